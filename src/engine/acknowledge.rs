//! The thread saw the interrupt (protocol 6): nothing of ours comes any more for what was asked before.
//!
//! # Invariants
//! 1. While gates are marked SEEN they are held, so a request is either seen by this acknowledgement or PENDING without SEEN when they open.
//! 2. The mask comes back last: what was queued lands here and not in the clean-up that follows.

use crate::atomic::SeqCst;
use crate::engine::lane::Lane;
use crate::engine::node::Link;
use crate::engine::record::Record;
use crate::engine::{blocked, deadline, fork, nested, resend};
use crate::error::{Interrupted, Reason};
use crate::kernel::mask::{self, Mask};

/// Why the calling thread is interrupted, if it is: the outermost scope's reason, and of that a Remote before a signal before a deadline.
pub(crate) fn owner(record: &Record) -> Option<Interrupted> {
    record.scopes().map(Link::of).find_map(|link| {
        let asked = Some(link).filter(|link| link.node().gate.acts()).and_then(asked);
        asked.or_else(|| deadline::is_due(record, link, false).then_some(Interrupted::new(Reason::Deadline)))
    })
}

fn asked(link: Link) -> Option<Interrupted> {
    link.node().gate.asked_by_remote(link.generation()).map(told)
}

/// Why this scope is interrupted, if it is, shielded or not.
fn reason(link: Link) -> Option<Interrupted> {
    let due = || {
        let record = link.node().record().filter(|_| link.is_open())?;
        deadline::is_due(record, link, true).then_some(Interrupted::new(Reason::Deadline))
    };
    asked(link).or_else(due)
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
    let unshielded = || record.scopes().map(|place| &place.value).filter(|node| !node.is_shielded());
    unshielded().for_each(|node| node.gate.hold());
    unshielded().for_each(|node| node.gate.see());
    deadline::see_due(record);
    record.lanes().for_each(quiet);
    record.lower();
    for node in unshielded() {
        if node.gate.open() {
            record.window.pending.store(1, SeqCst);
        }
    }
    resend::renew(record); // what was asked meanwhile
    finish(record, saved);
}

/// Nothing of this lane comes for what was asked so far. Its gates are held, or shielded: all that was sent is queued.
pub(super) fn quiet(lane: &Lane) {
    resend::retune_shut(lane);
    lane.landing.forget();
    lane.calm();
    lane.before_barrier();
}

/// Opens the mask again, which is the barrier. What is held for somebody is offered before, unless
/// the user has blocked the number: what is queued behind that is not ours to take.
pub(super) fn finish(record: &Record, saved: Mask) {
    let saved = Mask(saved.0 & !record.shut.swap(0, SeqCst));
    record.lanes().filter(|lane| !saved.has(lane.sig)).for_each(blocked::offer_held);
    mask::set(saved);
    record.lanes().filter(|lane| !saved.has(lane.sig)).for_each(Lane::after_barrier);
}

/// Takes the interrupt of one scope of the calling thread; the others' are neither seen nor cleared. A deadline that is due stays so.
pub(crate) fn clear(link: Link) -> Option<Interrupted> {
    fork::check();
    let record = link.node().record().filter(|_| link.is_open())?;
    let saved = mask::block_all();
    let gate = &link.node().gate;
    gate.hold();
    let taken = gate.clear().map(told);
    match record.lane(link.node().sig()) {
        Some(lane) if lane.has_one_scope() => quiet(lane),
        Some(lane) => {
            resend::retune(lane);
            lane.landing.forget();
            lane.calm();
        }
        None => {}
    }
    record.lower();
    if !link.node().is_shielded() && gate.open() {
        record.window.pending.store(1, SeqCst);
    }
    resend::renew(record);
    finish(record, saved);
    taken
}
