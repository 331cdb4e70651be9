//! Leaving (protocol 7): any order, any path.
//!
//! # Invariants
//! 1. The number's bit in the thread's mask is put back by the last scope of a lane. (Per scope it comes out wrong after drops out of order.)
//! 2. When a lane ends nothing of ours is queued any more: its gates are closed and empty, so nothing new comes, and either the number is open
//!    and a system call has returned since (the barrier), or it is blocked and was drained.
//! 3. The mask bit goes back before `refs` if the number was blocked, and after the action if it was open: in neither order does a foreign
//!    signal meet an action that is not the true one.

use crate::engine::lane::Lane;
use crate::engine::node::Link;
use crate::engine::record::Record;
use crate::engine::slot::{Displaced, Slot};
use crate::engine::{deadline, drain, foreign, fork, nested, resend};
use crate::kernel::mask::{self, Mask};

/// Leaves a scope of the calling thread (protocol 7): any order, any path. One that has ended already, with its thread or by `exec`, is left
/// alone.
pub(crate) fn leave(link: Link) -> Result<(), Displaced> {
    fork::check();
    let node = link.node();
    let (true, Some(record)) = (link.is_open(), node.record()) else { return Ok(()) };
    let Some(lane) = record.lane(node.sig()) else { return Ok(()) };
    nested::look(record);
    let masked = if !deadline::has_any(record, link) && node.gate.close_quiet() {
        record.remove(link);
        None
    } else {
        let saved = mask::block_all();
        node.gate.close();
        deadline::end_all(record, link);
        record.remove(link);
        record.lower();
        Some(saved)
    };
    foreign::left(record, link);
    link.recycle();
    if lane.remove_scope() {
        return end(lane, masked);
    }
    if let Some(mask) = masked {
        resend::retune(lane);
        resend::renew(record);
        mask::set(mask);
    }
    Ok(())
}

/// Leaves every scope of the calling thread.
pub(crate) fn leave_all(record: &Record) {
    while let Some(innermost) = record.scopes().last() {
        let _ = leave(Link::of(innermost));
    }
}

/// Protocol 7.3 to 7.10. `masked`: the thread's mask, if all signals are blocked now.
fn end(lane: &Lane, masked: Option<Mask>) -> Result<(), Displaced> {
    lane.begin_end();
    lane.timer.stop(); // CLOSING: nobody arms it any more
    let masked = if lane.is_dirty() { quiet(lane, masked) } else { masked };
    lane.settle();
    let slot = Slot::of(lane.sig);
    let masked = masked.or_else(|| slot.has_one_user().then(mask::block_all));
    let displaced = if lane.was_blocked() { end_blocked(lane, slot, masked) } else { end_open(lane, slot, masked) };
    lane.set_before(false);
    displaced
}

/// Invariant 2. `masked` as for `end`; returned likewise.
fn quiet(lane: &Lane, masked: Option<Mask>) -> Option<Mask> {
    if cfg!(eintr_without = "barrier") {
        return masked;
    }
    let mask = masked.unwrap_or_else(mask::get);
    if !mask.has(lane.sig) {
        // The barrier: setting the mask delivers what is queued; asking for it has done so already.
        masked.into_iter().for_each(mask::set);
        return None;
    }
    let mask = masked.unwrap_or_else(mask::block_all);
    if !cfg!(eintr_without = "drain") {
        drain::fence(lane);
    }
    Some(mask)
}

/// The number was open: the bit goes back last (invariant 3).
fn end_open(lane: &Lane, slot: &Slot, masked: Option<Mask>) -> Result<(), Displaced> {
    let displaced = quit(slot, masked.is_some());
    match masked {
        Some(mask) => {
            lane.give_back_held(); // only a drain without a fence leaves something
            mask::set(mask.without(lane.sig));
        }
        None if !lane.held.is_empty() => {
            let mask = mask::block_all();
            lane.give_back_held();
            mask::set(mask.without(lane.sig));
        }
        None => {
            mask::unblock(lane.sig);
        }
    }
    displaced
}

/// The number was blocked: it is again before `refs` goes down (invariant 3), and then what was held goes back.
fn end_blocked(lane: &Lane, slot: &Slot, masked: Option<Mask>) -> Result<(), Displaced> {
    let mask = masked.unwrap_or_else(|| mask::block(lane.sig));
    slot.remove_blocked();
    let displaced = quit(slot, masked.is_some());
    if masked.is_some() || !lane.held.is_empty() {
        if masked.is_none() {
            mask::block_all();
        }
        lane.give_back_held();
        mask::set(mask.with(lane.sig));
    }
    displaced
}

/// `masked`: all signals are blocked, so the lock may be taken.
fn quit(slot: &Slot, masked: bool) -> Result<(), Displaced> {
    if slot.try_quit() {
        return Ok(());
    }
    let saved = (!masked).then(mask::block_all);
    slot.lock();
    let displaced = slot.give_back();
    slot.unlock();
    saved.into_iter().for_each(mask::set);
    displaced
}
