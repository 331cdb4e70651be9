//! Shields (protocol 8): the scopes and deadlines of the thread that are there when one is raised wait until it is lowered.
//!
//! # Invariants
//! 1. The gate of a scope is held as long as a shield is up over it. The count of shields goes up before the gate is held, and down before it is opened;
//!    so a handler in between that raises a shield of its own and lowers it leaves the gate as it was.
//! 2. A shield is over what was made before it, by the order of making on the thread. So it need not remember what; and shields may be lowered in any
//!    order, and scopes end under them.
//! 3. When [`raise`] returns nothing of ours comes for what it is over: nobody is inside those gates, the timer is set for nothing of theirs, and what
//!    was queued has been taken by the barrier.
//!
//! # Async-signal-safety
//! Everything is.

use crate::atomic::SeqCst;
use crate::engine::lane::Lane;
use crate::engine::record::Record;
use crate::engine::{acknowledge, deadline, drain, fork, nested, resend};
use crate::kernel::mask;

/// Raises a shield on the calling thread; what to lower it with. `None` where no scope was ever entered.
pub(crate) fn raise() -> Option<u64> {
    fork::check();
    let record = Record::current()?;
    nested::look(record);
    let order = record.next_order();
    let mut quiet = record.deadlines.load(SeqCst) == 0;
    for node in record.scopes().map(|place| &place.value) {
        node.shields.fetch_add(1, SeqCst);
        quiet &= node.gate.hold_quiet() && record.lane(node.sig()).is_none_or(|lane| !lane.is_dirty());
    }
    if !quiet {
        take_what_is_on_its_way(record);
    }
    Some(order)
}

/// Something is asked, or due later, or was sent (invariant 3).
#[cold]
fn take_what_is_on_its_way(record: &Record) {
    let saved = mask::block_all();
    record.scopes().for_each(|place| place.value.gate.hold());
    deadline::shield(record);
    let live = || record.lanes().filter(|lane| lane.has_scopes());
    live().for_each(acknowledge::quiet);
    record.lower();
    // Where the user has blocked the number, restoring the mask takes nothing.
    live().filter(|lane| saved.has(lane.sig) && lane.is_dirty()).for_each(take_out);
    acknowledge::finish(record, saved);
}

/// Nobody is inside the lane's gates, and its timer is still: after this none of ours is out.
fn take_out(lane: &Lane) {
    drain::fence(lane);
    lane.before_barrier();
    lane.after_barrier();
    if !lane.was_blocked() {
        lane.give_back_held(); // a drain without a fence takes what is foreign, too; it goes back behind the program's block
    }
}

/// Lowers the shield.
pub(crate) fn lower(order: u64) {
    fork::check();
    let Some(record) = Record::current() else { return };
    nested::look(record);
    let mut asked = false;
    for node in record.scopes().map(|place| &place.value).filter(|node| node.order.load(SeqCst) < order) {
        asked |= node.shields.fetch_sub(1, SeqCst) == 1 && node.gate.open();
    }
    if asked || record.deadlines.load(SeqCst) != 0 {
        act_on_what_was_kept(record, order);
    }
}

#[cold]
fn act_on_what_was_kept(record: &Record, order: u64) {
    let saved = mask::block_all();
    deadline::unshield(record, order);
    let live = || record.lanes().filter(|lane| lane.has_scopes());
    live().for_each(deadline::mark_due);
    record.lower();
    // In a forked child a lane has no timer before it needs one; while they were shielded its deadlines needed none.
    live().filter(|lane| deadline::is_waited_for(lane)).for_each(|lane| _ = resend::prepare(lane));
    live().for_each(resend::retune);
    resend::renew(record);
    mask::set(saved);
}
