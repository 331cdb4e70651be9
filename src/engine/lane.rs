//! A signal number on a thread: opened by the first scope, closed by the last.
//!
//! # Invariants
//! 1. The number's bit in the thread's mask is taken by the first scope of a lane and put back by its last; scopes in between make no system
//!    call for it (per scope it comes out wrong after drops out of order).
//! 2. IN_FLIGHT throttles and nothing else (R2): it is never waited for.
//! 3. When a lane ends nothing of ours is queued any more: its gates are closed and empty, so nothing new comes, and either the number is open
//!    and a system call has returned since (the barrier), or it is blocked and was drained.
//! 4. The mask bit goes back before `refs` if the number was blocked, and after the action if it was open: in neither order does a
//!    foreign signal meet an action that is not the true one.
//! 5. `held` is touched with all signals blocked only.
//!
//! # Async-signal-safety
//! The flags and [`Lane::hold`]; opening and closing are for the thread itself, outside of handlers.

use crate::atomic::{AtomicU8, AtomicU32, AtomicU64, SeqCst};
use crate::engine::node::Link;
use crate::engine::record::Record;
use crate::engine::slot::{Displaced, Slot};
use crate::engine::{blocked, drain, foreign, fork, hooks};
use crate::error::Refusal;
use crate::kernel::held::Held;
use crate::kernel::mask::{self, Mask};
use crate::kernel::send::Info;
use crate::policy::Foreign;
use crate::signal::Signal;
use scopeguard::ScopeGuard;

/// One of ours is on its way, as far as anybody knows.
const IN_FLIGHT: u32 = 1;
/// Something was sent since the lane opened.
const DIRTY: u32 = 2;
/// Ending, or without a scope.
const CLOSING: u32 = 4;

/// What the number's bit in the mask was before the lane.
const OPEN: u8 = 0;
const BLOCKED: u8 = 1;
const ENTERING: u8 = 2;

/// See the module.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) record: &'static Record,
    pub(crate) sig: i32,
    flags: AtomicU32,
    scopes: AtomicU32,
    generation: AtomicU32,
    before: AtomicU8,
    pub(crate) held: Held,
    /// Fingerprint of the signal that this thread posted back last.
    pub(crate) posted: AtomicU64,
}

impl Lane {
    pub(crate) fn new(record: &'static Record, sig: i32) -> Lane {
        Lane {
            record,
            sig,
            flags: AtomicU32::new(CLOSING),
            scopes: AtomicU32::new(0),
            generation: AtomicU32::new(0),
            before: AtomicU8::new(OPEN),
            held: Held::new(),
            posted: AtomicU64::new(0),
        }
    }

    pub(crate) fn generation(&self) -> u32 {
        self.generation.load(SeqCst)
    }

    /// Whether a scope lives here, or is about to, or has just ended.
    pub(crate) fn is_live(&self) -> bool {
        self.scopes.load(SeqCst) != 0 || self.flags.load(SeqCst) & CLOSING == 0 || self.was_blocked()
    }

    pub(crate) fn has_scopes(&self) -> bool {
        self.scopes.load(SeqCst) != 0
    }

    pub(crate) fn was_blocked(&self) -> bool {
        self.before.load(SeqCst) == BLOCKED
    }

    pub(crate) fn is_entering(&self) -> bool {
        self.before.load(SeqCst) == ENTERING
    }

    pub(crate) fn is_in_flight(&self) -> bool {
        self.flags.load(SeqCst) & IN_FLIGHT != 0
    }

    /// Whether something was sent since the lane opened.
    pub(crate) fn is_dirty(&self) -> bool {
        self.flags.load(SeqCst) & DIRTY != 0
    }

    /// `true` if the caller is to send: nothing of ours was on its way.
    pub(crate) fn take_off(&self) -> bool {
        self.flags.fetch_or(IN_FLIGHT | DIRTY, SeqCst) & IN_FLIGHT == 0
    }

    /// Nothing of ours is on its way, or may be taken to be (R2).
    pub(crate) fn landed(&self) {
        self.flags.fetch_and(!IN_FLIGHT, SeqCst);
    }

    /// Keeps a foreign signal until the lane ends. Of standard ones one for the thread and one for the process, as the kernel would. `false`:
    /// no memory.
    pub(crate) fn hold(&self, info: &Info) -> bool {
        let merges = Signal::from(self.sig).is_standard()
            && self.held.any(|other| other.is_for_thread() == info.is_for_thread());
        merges || self.held.push(info)
    }

    /// In a forked child: no signal of the parent's threads is queued here, none of theirs is kept.
    pub(crate) fn forget(&self) {
        self.flags.store(CLOSING, SeqCst);
        self.scopes.store(0, SeqCst);
        self.before.store(OPEN, SeqCst);
        self.held.take_all(|_| ());
    }

    /// In a forked child, on the lanes of the forking thread.
    pub(crate) fn after_fork(&self) {
        self.flags.fetch_and(CLOSING, SeqCst);
        self.held.take_all(|_| ());
    }

    /// Protocol 5 for the first scope of a lane. As before if it fails.
    fn open(&self, allow_ignored: bool) -> Result<(), Refusal> {
        self.generation.fetch_add(1, SeqCst);
        self.before.store(ENTERING, SeqCst);
        self.flags.store(0, SeqCst);
        let undo = scopeguard::guard(self, |lane| {
            lane.flags.store(CLOSING, SeqCst);
            lane.before.store(OPEN, SeqCst);
        });
        let slot = Slot::of(self.sig);
        if slot.try_join() { self.open_warm(slot, allow_ignored) } else { self.open_cold(slot, allow_ignored) }?;
        ScopeGuard::into_inner(undo);
        Ok(())
    }

    /// Another thread's scope holds the action: one system call, which also tells what the bit was.
    fn open_warm(&self, slot: &Slot, allow_ignored: bool) -> Result<(), Refusal> {
        if let Err(refusal) = slot.judge(allow_ignored) {
            slot.quit();
            return Err(refusal);
        }
        if mask::unblock(self.sig).has(self.sig) {
            self.before.store(BLOCKED, SeqCst);
        } else {
            self.before.store(OPEN, SeqCst);
            self.release_needlessly_held();
        }
        Ok(())
    }

    /// Four system calls: all signals blocked, the action looked at, ours installed, the mask back with the number open.
    fn open_cold(&self, slot: &Slot, allow_ignored: bool) -> Result<(), Refusal> {
        let saved = scopeguard::guard(mask::block_all(), mask::set);
        {
            slot.lock();
            let _lock = scopeguard::guard((), |()| slot.unlock());
            slot.take_over(allow_ignored)?;
        }
        let saved = ScopeGuard::into_inner(saved);
        self.before.store(if saved.has(self.sig) { BLOCKED } else { OPEN }, SeqCst);
        if !saved.has(self.sig) {
            self.give_back_held();
        }
        mask::set(saved.without(self.sig));
        Ok(())
    }

    /// What came while it was not known yet that the number had been open.
    fn release_needlessly_held(&self) {
        if !self.held.is_empty() {
            let saved = mask::block_all();
            self.give_back_held();
            mask::set(saved);
        }
    }

    /// To whom it was sent: the thread or the process. All signals are blocked.
    fn give_back_held(&self) {
        self.held.take_all(|info| blocked::give_back(self.record.tid(), info));
    }

    /// Protocol 7.3 to 7.10. `masked`: the thread's mask, if all signals are blocked now.
    fn end(&self, masked: Option<Mask>) -> Result<(), Displaced> {
        self.flags.fetch_or(CLOSING, SeqCst);
        let masked = if self.is_dirty() { self.quiet(masked) } else { masked };
        self.generation.fetch_add(1, SeqCst);
        let slot = Slot::of(self.sig);
        let masked = masked.or_else(|| slot.has_one_user().then(mask::block_all));
        let displaced = if self.was_blocked() { self.end_blocked(slot, masked) } else { self.end_open(slot, masked) };
        self.before.store(OPEN, SeqCst);
        displaced
    }

    /// Invariant 3. `masked` as for `end`; returned likewise.
    fn quiet(&self, masked: Option<Mask>) -> Option<Mask> {
        if cfg!(eintr_without = "barrier") {
            return masked;
        }
        let mask = masked.unwrap_or_else(mask::get);
        if !mask.has(self.sig) {
            // The barrier: setting the mask delivers what is queued; asking for it has done so already.
            masked.into_iter().for_each(mask::set);
            return None;
        }
        let mask = masked.unwrap_or_else(mask::block_all);
        if !cfg!(eintr_without = "drain") {
            drain::fence(self);
        }
        Some(mask)
    }

    /// The number was open: the bit goes back last (invariant 4).
    fn end_open(&self, slot: &Slot, masked: Option<Mask>) -> Result<(), Displaced> {
        let displaced = quit(slot, masked.is_some());
        match masked {
            Some(mask) => {
                self.give_back_held(); // only a drain without a fence leaves something
                mask::set(mask.without(self.sig));
            }
            None => {
                mask::unblock(self.sig);
            }
        }
        displaced
    }

    /// The number was blocked: it is again before `refs` goes down (invariant 4), and then what was held goes back.
    fn end_blocked(&self, slot: &Slot, masked: Option<Mask>) -> Result<(), Displaced> {
        let mask = masked.unwrap_or_else(|| mask::block(self.sig));
        let displaced = quit(slot, masked.is_some());
        if masked.is_some() || !self.held.is_empty() {
            if masked.is_none() {
                mask::block_all();
            }
            self.give_back_held();
            mask::set(mask.with(self.sig));
        }
        displaced
    }
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

/// Enters a scope on the calling thread (protocol 5).
///
/// # Errors
/// Whatever [`Slot::take_over`] and [`hooks::register`] refuse. Nothing was changed, but that the link is closed.
pub(crate) fn enter(link: Link, sig: i32, policy: Foreign, allow_ignored: bool) -> Result<(), Refusal> {
    let link = scopeguard::guard(link, discard);
    fork::check();
    hooks::register().map_err(Refusal::Os)?;
    let record = Record::claim();
    let lane = record.lane_to_open(sig);
    if lane.has_scopes() {
        Slot::of(sig).judge(allow_ignored)?;
    } else {
        lane.open(allow_ignored)?;
    }
    let link = ScopeGuard::into_inner(link);
    link.bind(record, sig, policy);
    lane.scopes.fetch_add(1, SeqCst);
    record.push(link);
    foreign::entered(record, link);
    if link.node().gate.open() {
        record.pending.store(1, SeqCst);
    }
    Ok(())
}

/// Ends a ticket that was not entered.
pub(crate) fn discard(link: Link) {
    if link.is_open() {
        link.node().gate.close(); // held: nobody is inside, so nothing is waited for
        link.recycle();
    }
}

/// Leaves a scope of the calling thread (protocol 7): any order, any path. One that has ended already, with its thread or by `exec`, is left
/// alone.
pub(crate) fn leave(link: Link) -> Result<(), Displaced> {
    fork::check();
    let node = link.node();
    let (true, Some(record)) = (link.is_open(), node.record()) else { return Ok(()) };
    let Some(lane) = record.lane(node.sig()) else { return Ok(()) };
    let masked = if node.gate.close_quiet() {
        record.remove(link);
        None
    } else {
        let saved = mask::block_all();
        node.gate.close();
        record.remove(link);
        record.lower();
        Some(saved)
    };
    foreign::left(record, link);
    link.recycle();
    if lane.scopes.fetch_sub(1, SeqCst) == 1 {
        return lane.end(masked);
    }
    masked.into_iter().for_each(mask::set);
    Ok(())
}

/// Leaves every scope of the calling thread.
pub(crate) fn leave_all(record: &Record) {
    while let Some(innermost) = record.scopes().last() {
        let _ = leave(Link::of(innermost));
    }
}
