//! The two plots of `docs/figures.md`, measured and drawn: `cargo bench --bench plots`, on a quiet machine (`-- --quick` for a look at it).
//!
//! What is drawn is printed too, a line for each point.

#[path = "../tests/common/mod.rs"]
mod common;
mod measure;
#[path = "../tests/common/plugin.rs"]
mod plugin;

use measure::latency::STORM;
use measure::plot::{Axis, Plot, Series};
use measure::report::{Run, quantile, sorted};
use measure::rig::{End, Rig, Way};
use measure::storm::lose;
use std::time::{Duration, Instant};

const BLACK: &str = "#555555";
const BLUE: &str = "#0072b2";
const ORANGE: &str = "#d55e00";
const GREEN: &str = "#009e73";

/// Foreign signals a second.
const RATES: [u64; 7] = [500, 1_000, 2_000, 5_000, 10_000, 20_000, 40_000];

fn main() {
    let run = Run::from_args();
    let _watchdog = common::Watchdog::new(Duration::from_secs(900));
    run.describe();
    let mut rig = Rig::new().expect("two processors: the sleeper has one of its own");
    latencies(&mut rig, run.choose(Duration::from_secs(5), Duration::from_secs(60))).write("latency.svg");
    losses(&mut rig, run.choose(Duration::from_secs(1), Duration::from_secs(20))).write("losses.svg");
}

/// A curve of the first plot: its name, its look, and what it is made of.
type Curve = (&'static str, &'static str, bool, Way, u64);

const CURVES: [Curve; 5] = [
    ("by hand, no storm", BLACK, false, Way::Naive, 0),
    ("eintr, no storm", BLUE, false, Way::Ours, 0),
    ("eintr in the storm", BLUE, true, Way::Ours, STORM),
    ("by hand in the storm", ORANGE, true, Way::Naive, STORM),
    ("by hand, sent again every 10 ms", GREEN, true, Way::Resending, STORM),
];

/// What part of the interrupts had ended the read by when. Those that were lost are in the whole, so their curve ends below it.
fn latencies(rig: &mut Rig, time: Duration) -> Plot {
    let mut times = [const { Vec::new() }; CURVES.len()];
    let (mut tries, until) = (0, Instant::now() + time);
    while Instant::now() < until {
        tries += 1;
        for ((.., way, storm), times) in CURVES.iter().zip(&mut times) {
            if let End::After(time) = rig.try_once(*way, *storm) {
                times.push(time);
            }
        }
    }
    let series = CURVES.iter().zip(times).map(|((name, color, dashed, ..), times)| {
        let times = sorted(times);
        let ended = 100.0 * times.len() as f64 / f64::from(tries);
        let points = (0..=400).map(|n| f64::from(n) / 400.0).map(|part| (quantile(&times, part), part * ended));
        Series { name: (*name).to_owned(), color, dashed: *dashed, marked: false, points: points.collect() }
    });
    Plot {
        title: format!("From the interrupt to the return of a sleeping read ({tries} tries each)"),
        x: Axis { name: "microseconds".to_owned(), from: 1.0, to: 100_000.0, logarithmic: true },
        y: Axis { name: "ended by then, %".to_owned(), from: 0.0, to: 100.0, logarithmic: false },
        series: series.collect(),
    }
}

fn losses(rig: &mut Rig, time: Duration) -> Plot {
    let names = [
        ("by hand: lost", ORANGE),
        ("by hand, sent again every 10 ms: not by the first signal", GREEN),
        ("eintr, one signal: lost", BLUE),
    ];
    let mut series = names.map(|(name, color)| {
        let name = name.to_owned();
        Series { name, color, dashed: false, marked: true, points: Vec::new() }
    });
    for rate in RATES {
        let (tries, losses) = lose(rig, time, 1_000_000_000 / rate);
        for (series, losses) in series.iter_mut().zip(losses) {
            series.points.push((rate as f64, 100.0 * losses as f64 / tries as f64));
        }
    }
    let worst = series.iter().flat_map(|series| &series.points).map(|point| point.1).fold(0.0, f64::max);
    Plot {
        title: "Interrupts lost in a storm of foreign signals whose handler has SA_RESTART".to_owned(),
        x: Axis { name: "foreign signals a second".to_owned(), from: 400.0, to: 50_000.0, logarithmic: true },
        y: Axis { name: "%".to_owned(), from: 0.0, to: (worst / 10.0).ceil().max(1.0) * 10.0, logarithmic: false },
        series: series.into(),
    }
}
