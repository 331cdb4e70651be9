//! The atomics of the crate, in one place so that a model checker can put its own here.
//!
//! # Orderings
//! SeqCst everywhere: the words of a gate and `pending` guard each other by store buffering (one writes A and reads B, the other writes B and
//! reads A), where anything weaker loses an interrupt.

pub(crate) use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst};
