//! The figures: what calls, scopes and interrupts cost, each against its floor, measured in the same run. `docs/figures.md` says what each means.
//!
//! `cargo bench -- --quick` takes less than 20 s; names, or parts of them, choose; `--path NAME COUNT` runs one hot path and measures nothing, for
//! `benches/callgrind`, and `--paths` says which there are.

#[path = "../tests/common/mod.rs"]
mod common;
mod measure;
#[path = "../tests/common/plugin.rs"]
mod plugin;

use measure::report::Run;
use measure::{calls, latency, memory, scale, scopes, storm, subjects};
use std::time::{Duration, Instant};

#[global_allocator]
static HEAP: memory::Counting = memory::Counting;

fn main() {
    let began = Instant::now();
    let run = Run::from_args();
    if let Some(threads) = run.scale {
        return scale::serve(threads);
    }
    if run.paths {
        return subjects::list_paths();
    }
    if let Some((name, count)) = &run.path {
        return subjects::run_path(name, *count);
    }
    let _watchdog = common::Watchdog::new(Duration::from_secs(if run.quick { 120 } else { 900 }));
    run.describe();
    calls::figures(&run);
    scopes::figures(&run);
    memory::figures(&run);
    latency::figures(&run);
    storm::figures(&run);
    scale::figures(&run);
    println!("{:.1} s, load {}", began.elapsed().as_secs_f64(), measure::report::load());
}
