//! The thread saw the interrupt (protocol 6): nothing of ours comes any more for what was asked before.
//!
//! # Invariants
//! 1. While gates are marked SEEN they are held, so a request is either seen by this acknowledgement or PENDING without SEEN when they open.
//! 2. The mask comes back last: what was queued lands here and not in the clean-up that follows.

use crate::atomic::SeqCst;
use crate::engine::lane::Lane;
use crate::engine::node::Link;
use crate::engine::record::Record;
use crate::engine::{blocked, fork, nested, resend};
use crate::error::{Interrupted, Reason};
use crate::kernel::mask::{self, Mask};

/// Why the calling thread is interrupted, if it is: the outermost scope's reason.
pub(crate) fn owner(record: &Record) -> Option<Interrupted> {
    record.scopes().map(Link::of).filter(|link| link.node().gate.acts()).find_map(reason)
}

/// Why this scope is interrupted, if it is, held or not.
pub(crate) fn reason(link: Link) -> Option<Interrupted> {
    link.node().gate.asked_by_remote(link.generation()).map(told)
}

/// The same for the scoped thread's own look. A sender may stand between writing the gate's word and `pending`; the thread that has seen the
/// first must not find the other unwritten, so it writes it itself.
pub(crate) fn look(link: Link) -> Option<Interrupted> {
    let seen = reason(link);
    link.node().record().filter(|_| link.is_open()).into_iter().for_each(nested::look);
    if let Some(record) = link.node().record().filter(|_| seen.is_some() && link.node().gate.acts()) {
        record.window.pending.store(1, SeqCst);
    }
    seen
}

fn told(by_remote: bool) -> Interrupted {
    Interrupted::new(if by_remote { Reason::Remote } else { Reason::Signal })
}

/// Acknowledges everything that is asked of the calling thread.
pub(crate) fn acknowledge(record: &Record) {
    if nested::has_call_below(record) {
        return; // a handler's call must not take away what the call below needs
    }
    let saved = mask::block_all();
    record.scopes().for_each(|place| place.value.gate.hold());
    record.scopes().for_each(|place| place.value.gate.see());
    record.lanes().for_each(quiet);
    record.lanes().for_each(Lane::before_barrier); // the gates are held: all that was sent is queued
    record.lower();
    for place in record.scopes() {
        if place.value.gate.open() {
            record.window.pending.store(1, SeqCst);
        }
    }
    resend::renew(record); // what was asked meanwhile
    finish(record, saved);
}

fn quiet(lane: &Lane) {
    lane.timer.stop();
    lane.landing.forget();
    lane.calm();
}

/// Opens the mask again, which is the barrier. What is held for somebody is offered before, unless
/// the user has blocked the number: what is queued behind that is not ours to take.
fn finish(record: &Record, saved: Mask) {
    let saved = Mask(saved.0 & !record.shut.swap(0, SeqCst));
    record.lanes().filter(|lane| !saved.has(lane.sig)).for_each(blocked::offer_held);
    mask::set(saved);
    record.lanes().filter(|lane| !saved.has(lane.sig)).for_each(Lane::after_barrier);
}

/// Takes the interrupt of one scope of the calling thread; the others' are neither seen nor cleared.
pub(crate) fn clear(link: Link) -> Option<Interrupted> {
    fork::check();
    let record = link.node().record().filter(|_| link.is_open())?;
    let saved = mask::block_all();
    let gate = &link.node().gate;
    gate.hold();
    let taken = gate.clear().map(told);
    if let Some(lane) = record.lane(link.node().sig()) {
        quiet(lane);
        if lane.has_one_scope() {
            lane.before_barrier();
        }
    }
    record.lower();
    if gate.open() {
        record.window.pending.store(1, SeqCst);
    }
    resend::renew(record);
    finish(record, saved);
    taken
}
