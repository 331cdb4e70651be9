//! What the benches share. `report` prints, `pairs` compares two pieces of code, `subjects` are the pieces; `rig` is a thread that sleeps in a read
//! and one that wakes it; `raw` says unsafe.
#![allow(dead_code, missing_docs, unreachable_pub)] // each bench uses a part

pub mod calls;
pub mod dylib;
pub mod latency;
pub mod memory;
pub mod pairs;
pub mod plot;
pub mod raw;
pub mod report;
pub mod rig;
pub mod scale;
pub mod scopes;
pub mod storm;
pub mod subjects;
