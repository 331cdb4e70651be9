//! How long it takes from `interrupt()` to the return of a read that sleeps on another processor; without a storm, and in one.

use crate::measure::report::{Run, figure, quantile, skipped, sorted};
use crate::measure::rig::{End, Rig, Way};
use std::time::{Duration, Instant};

/// Nanoseconds between two foreign signals, in the storm: 20,000 a second.
pub const STORM: u64 = 50_000;

const QUIET: [&str; 4] = ["latency_floor_us", "latency_p50_ratio", "latency_p99_ratio", "latency_once_p50_ratio"];
const IN_STORM: &str = "storm_p50_ratio";

pub fn figures(run: &Run) {
    if !run.wants_any(&QUIET) && !run.wants(IN_STORM) {
        return;
    }
    let Some(mut rig) = Rig::new() else {
        for name in QUIET.iter().chain([&IN_STORM]) {
            skipped(name, "one processor");
        }
        return;
    };
    if run.wants_any(&QUIET) {
        quiet(&mut rig, run.choose(Duration::from_millis(2500), Duration::from_secs(30)));
    }
    if run.wants(IN_STORM) {
        in_storm(&mut rig, run.choose(Duration::from_millis(2000), Duration::from_secs(15)));
    }
}

/// Tries of some kinds, in turns of ten, so that all meet the same machine. The microseconds of each.
fn alternate<const N: usize>(rig: &mut Rig, time: Duration, kinds: [(Way, u64); N]) -> [Vec<f64>; N] {
    const TURN: usize = 10;
    let mut samples = [const { Vec::new() }; N];
    let until = Instant::now() + time;
    while Instant::now() < until {
        for ((way, storm), samples) in kinds.iter().zip(&mut samples) {
            for _ in 0..TURN {
                match rig.try_once(*way, *storm) {
                    End::After(time) => samples.push(time),
                    End::Lost => {}
                }
            }
        }
    }
    samples
}

fn quiet(rig: &mut Rig, time: Duration) {
    let [floor, ours, once] = alternate(rig, time, [(Way::Raw, 0), (Way::Ours, 0), (Way::OursOnce, 0)]);
    let (p50, p99, once) = (compare(&floor, &ours, 0.5), compare(&floor, &ours, 0.99), compare(&floor, &once, 0.5));
    figure("latency_floor_us", p50.floor, format!("p99 {:.1} us; {} tries of each, in turns", p99.floor, floor.len()));
    figure("latency_p50_ratio", p50.ratio, format!("{:.2} us; {}", p50.ours, p50.spread));
    figure("latency_p99_ratio", p99.ratio, format!("{:.1} us; {}", p99.ours, p99.spread));
    figure("latency_once_p50_ratio", once.ratio, format!("{:.2} us by interrupt_once; {}", once.ours, once.spread));
}

fn in_storm(rig: &mut Rig, time: Duration) {
    let [quiet, storm] = alternate(rig, time, [(Way::Ours, 0), (Way::Ours, STORM)]);
    let p50 = compare(&quiet, &storm, 0.5);
    let about = format!(
        "{:.2} us in {} tries among {} foreign signals a second, without {:.2}; {}",
        p50.ours,
        storm.len(),
        1_000_000_000 / STORM,
        p50.floor,
        p50.spread
    );
    figure(IN_STORM, p50.ratio, about);
}

struct Compared {
    floor: f64,
    ours: f64,
    ratio: f64,
    spread: String,
}

/// A quantile of both, and how its ratio spreads over ten parts of the run.
fn compare(floor: &[f64], ours: &[f64], part: f64) -> Compared {
    let of = |samples: &[f64]| quantile(&sorted(samples.to_vec()), part);
    let size = |samples: &[f64]| samples.len().div_ceil(10).max(1);
    let parts = floor.chunks(size(floor)).zip(ours.chunks(size(ours)));
    let ratios = sorted(parts.map(|(floor, ours)| of(ours) / of(floor)).collect());
    let (floor, ours) = (of(floor), of(ours));
    let spread = format!("in ten parts of the run {:.2} to {:.2}", quantile(&ratios, 0.0), quantile(&ratios, 1.0));
    Compared { floor, ours, ratio: ours / floor, spread }
}
