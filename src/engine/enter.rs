//! Entering (protocol 5).
//!
//! # Invariants
//! 1. The number's bit in the thread's mask is taken by the first scope of a lane; those after it make no system call.
//! 2. A scope that is refused leaves everything as it was.
//! 3. The gate is opened last: what was asked of a ticket acts from the scope's first instant, and not before.

use crate::atomic::SeqCst;
use crate::engine::lane::Lane;
use crate::engine::node::Link;
use crate::engine::record::Record;
use crate::engine::slot::Slot;
use crate::engine::{foreign, fork, hooks, nested, resend};
use crate::error::Refusal;
use crate::kernel::mask;
use crate::policy::Foreign;
use crate::resend::Pauses;
use scopeguard::ScopeGuard;

/// What a scope is entered with, besides its signal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct How {
    pub(crate) policy: Foreign,
    pub(crate) allow_ignored: bool,
    pub(crate) pauses: Pauses,
}

/// Enters a scope on the calling thread (protocol 5).
///
/// # Errors
/// Whatever [`Slot::take_over`] and [`hooks::register`] refuse. Nothing was changed, but that the link is closed.
pub(crate) fn enter(link: Link, sig: i32, how: How) -> Result<(), Refusal> {
    let link = scopeguard::guard(link, discard);
    fork::check();
    hooks::register().map_err(Refusal::Os)?;
    let record = Record::claim();
    nested::look(record);
    let lane = record.lane_to_open(sig);
    if lane.has_scopes() {
        Slot::of(sig).judge(how.allow_ignored)?;
    } else {
        open(lane, how.allow_ignored)?;
    }
    let link = ScopeGuard::into_inner(link);
    link.bind(record, sig, how.policy, how.pauses);
    lane.add_scope();
    record.push(link);
    foreign::entered(record, link);
    if link.node().gate.open() {
        act_on_what_the_ticket_kept(record);
    }
    Ok(())
}

fn act_on_what_the_ticket_kept(record: &Record) {
    let saved = mask::block_all();
    record.window.pending.store(1, SeqCst);
    resend::renew(record);
    mask::set(saved);
}

/// Ends a ticket that was not entered.
pub(crate) fn discard(link: Link) {
    if link.is_open() {
        link.node().gate.close(); // held: nobody is inside, so nothing is waited for
        link.recycle();
    }
}

/// Protocol 5 for the first scope of a lane. As before if it fails.
fn open(lane: &Lane, allow_ignored: bool) -> Result<(), Refusal> {
    lane.begin();
    let undo = scopeguard::guard(lane, Lane::refuse);
    let slot = Slot::of(lane.sig);
    if slot.try_join() { open_warm(lane, slot, allow_ignored) } else { open_cold(lane, slot, allow_ignored) }?;
    ScopeGuard::into_inner(undo);
    Ok(())
}

/// Another thread's scope holds the action: one system call, which also tells what the bit was.
fn open_warm(lane: &Lane, slot: &Slot, allow_ignored: bool) -> Result<(), Refusal> {
    if let Err(refusal) = slot.judge(allow_ignored) {
        slot.quit();
        return Err(refusal);
    }
    lane.await_mask();
    let blocked = mask::unblock(lane.sig).has(lane.sig);
    lane.set_before(blocked);
    if blocked {
        slot.add_blocked();
    } else {
        lane.release_needlessly_held();
    }
    Ok(())
}

/// Four system calls: all signals blocked, the action looked at, ours installed, the mask back with the number open.
fn open_cold(lane: &Lane, slot: &Slot, allow_ignored: bool) -> Result<(), Refusal> {
    let saved = scopeguard::guard(mask::block_all(), mask::set);
    {
        slot.lock();
        let _lock = scopeguard::guard((), |()| slot.unlock());
        slot.take_over(allow_ignored)?;
    }
    let saved = ScopeGuard::into_inner(saved);
    lane.set_before(saved.has(lane.sig));
    if saved.has(lane.sig) {
        slot.add_blocked();
    }
    mask::set(saved.without(lane.sig));
    Ok(())
}
