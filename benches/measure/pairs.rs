//! Two pieces of code, a floor and ours, compared in many short pairs: one batch of each, right behind one another, in alternating order. The figure is
//! the median of the pairs' ratios. What disturbs a batch, a switch to another process above all, spoils one pair; what changes slowly, the clock
//! of the processor above all, changes both.

use crate::measure::report::{Run, figure, quantile, sorted};
use std::time::{Duration, Instant};

/// Runs a piece of code so many times.
pub type Side<'a> = &'a mut dyn FnMut(u32);

/// Is handed a floor and ours, once they can be run.
pub type Judge<'a> = &'a mut dyn FnMut(Side<'_>, Side<'_>);

/// A batch takes about as long as this: much longer than a look at the clock, much shorter than a time slice.
const BATCH: Duration = Duration::from_micros(20);

/// How a ratio came out.
#[derive(Clone, Copy, Debug)]
pub struct Ratio {
    pub median: f64,
    /// Half of the pairs lie between these.
    pub quartiles: (f64, f64),
    /// The median of one run of each, in nanoseconds.
    pub floor: f64,
    pub ours: f64,
    pub pairs: usize,
}

pub fn compare(time: Duration, floor: Side<'_>, ours: Side<'_>) -> Ratio {
    let count = batch(floor).min(batch(ours));
    let (mut floors, mut ourses, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let until = Instant::now() + time;
    while Instant::now() < until || ratios.len() < 100 {
        let (f, o) = if ratios.len() % 2 == 0 {
            let f = timed(floor, count);
            (f, timed(ours, count))
        } else {
            let o = timed(ours, count);
            (timed(floor, count), o)
        };
        floors.push(f);
        ourses.push(o);
        ratios.push(o / f);
    }
    let (floors, ourses, ratios) = (sorted(floors), sorted(ourses), sorted(ratios));
    Ratio {
        median: quantile(&ratios, 0.5),
        quartiles: (quantile(&ratios, 0.25), quantile(&ratios, 0.75)),
        floor: quantile(&floors, 0.5),
        ours: quantile(&ourses, 0.5),
        pairs: ratios.len(),
    }
}

/// Measures and prints.
pub fn ratio(run: &Run, name: &str, floor_is: &str, floor: Side<'_>, ours: Side<'_>) {
    let r = compare(run.choose(Duration::from_millis(300), Duration::from_secs(4)), floor, ours);
    let (low, high) = r.quartiles;
    let spread = format!("half of {} pairs between {low:.3} and {high:.3}", r.pairs);
    figure(name, r.median, format!("{spread}; {:.1} ns, {floor_is}: {:.1} ns", r.ours, r.floor));
}

/// How many runs fill a batch.
fn batch(side: Side<'_>) -> u32 {
    let mut count = 1;
    loop {
        // The best of a few: one that was disturbed looks too long.
        let best = (0..5).map(|_| timed(side, count)).fold(f64::INFINITY, f64::min) * f64::from(count);
        if best >= BATCH.as_nanos() as f64 / 2.0 || count >= 1 << 20 {
            return count;
        }
        count *= 2;
    }
}

/// Nanoseconds for one run.
fn timed(side: Side<'_>, count: u32) -> f64 {
    let began = Instant::now();
    side(count);
    began.elapsed().as_nanos() as f64 / f64::from(count)
}
