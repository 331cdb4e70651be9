//! Interrupts that are lost in a storm of foreign signals whose handler has SA_RESTART: by hand, by hand with a resend, and ours.

use crate::measure::latency::STORM;
use crate::measure::report::{Run, figure, skipped};
use crate::measure::rig::{End, Rig, Way};
use std::time::{Duration, Instant};

/// Who is compared, and the name of the figure.
const PEERS: [(Way, &str); 3] = [
    (Way::Naive, "storm_lost_naive_percent"),
    (Way::Resending, "storm_late_resending_percent"),
    (Way::OursOnce, "storm_lost_percent"),
];

/// One that ended later than this, but ended, is late: the next signal is sent after 10 ms. In microseconds.
const LATE: f64 = 9_000.0;

pub fn figures(run: &Run) {
    if !run.wants_any(&PEERS.map(|(_, name)| name)) {
        return;
    }
    let Some(mut rig) = Rig::new() else { return PEERS.iter().for_each(|(_, name)| skipped(name, "one processor")) };
    let time = run.choose(Duration::from_millis(2500), Duration::from_secs(20));
    let (tries, losses) = lose(&mut rig, time, STORM);
    for ((way, name), losses) in PEERS.iter().zip(losses) {
        let what = if *way == Way::Resending { "ended by a later signal than the first" } else { "not ended" };
        let about = format!("{losses} of {tries} {what}, among {} foreign signals a second", 1_000_000_000 / STORM);
        figure(name, 100.0 * losses as f64 / tries as f64, about);
    }
}

/// How many tries of each peer fit into the time, in turns, and how many of them were lost, or late, in such a storm.
pub fn lose(rig: &mut Rig, time: Duration, storm: u64) -> (usize, [usize; 3]) {
    let (mut tries, mut losses) = (0, [0; 3]);
    let until = Instant::now() + time;
    while Instant::now() < until {
        tries += 1;
        for ((way, _), losses) in PEERS.iter().zip(&mut losses) {
            let is_loss = match rig.try_once(*way, storm) {
                End::Lost => true,
                End::After(time) => *way == Way::Resending && time > LATE,
            };
            *losses += usize::from(is_loss);
        }
    }
    (tries, losses)
}
