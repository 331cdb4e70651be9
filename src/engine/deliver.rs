//! The receiving side (protocol 3): what the handler does. One screen.
//!
//! # Invariants
//! 1. Ours are never chained, whatever generation they are of; foreign ones are never swallowed.
//! 2. IN_FLIGHT is taken off before anything else is looked at: a request that comes now sends again.
//! 3. The interrupt itself is `pending`, which the sender has set; the signal only ends the call that the thread is blocked in.
//!
//! # Async-signal-safety
//! This is the handler: atomics, arithmetic, system calls. The thread is found by its kernel id, since threads made by a raw `clone` share a
//! thread pointer, and the first touch of a thread-local may allocate.

use crate::engine::lane::Lane;
use crate::engine::record::Record;
use crate::engine::slot::Slot;
use crate::engine::{chain, foreign, provenance};
use crate::kernel::frame::{Caller, Frame};
use crate::kernel::{pid, raw};

/// A signal of a number that was taken over.
pub(super) fn on_signal(frame: &Frame) {
    let caller = frame.check();
    let record = Record::of(raw::gettid());
    let lane = record.and_then(|record| record.lane(frame.sig));
    if caller == Caller::Bare {
        return without_info(frame, lane);
    }
    let info = frame.info();
    if provenance::is_ours(&info, lane) {
        lane.into_iter().for_each(Lane::landed);
    } else if record.is_none() && pid::current() != raw::getpid() {
        chain::forward(frame, caller, Slot::of(frame.sig)); // a child that shares our memory (vfork): the scopes are its parent's
    } else {
        foreign::arrived(frame, caller, &info, lane);
    }
}

/// Called by somebody's dispatcher with the number alone. While one of ours is out it is taken to be that one.
fn without_info(frame: &Frame, lane: Option<&Lane>) {
    match lane.filter(|lane| lane.is_out()) {
        Some(lane) => lane.landed(),
        None => chain::forward(frame, Caller::Bare, Slot::of(frame.sig)),
    }
}
