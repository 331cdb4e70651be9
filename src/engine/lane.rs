//! A signal number on a thread, from its first scope (`enter`) to its last (`leave`): what is on its way, what was before, what is held.
//!
//! # Invariants
//! 1. IN_FLIGHT throttles and nothing else (R2): it is never waited for.
//! 2. `sent` is counted up before one of ours is queued, `gone` when one was delivered or cannot be queued any more: while they are equal,
//!    nothing that comes without a siginfo is ours.
//! 3. `held` is touched with all signals blocked only.
//!
//! # Async-signal-safety
//! Everything is, for the thread and its handler; [`Lane::take_off`] for senders.

use crate::atomic::{AtomicU8, AtomicU32, AtomicU64, SeqCst};
use crate::engine::blocked;
use crate::engine::record::Record;
use crate::engine::timer::Timer;
use crate::engine::turn::Landing;
use crate::kernel::clock;
use crate::kernel::held::Held;
use crate::kernel::mask;
use crate::kernel::send::{self, Info};
use crate::signal::Signal;

/// One of ours is on its way, as far as anybody knows.
const IN_FLIGHT: u32 = 1;
/// Something was sent since the lane opened.
const DIRTY: u32 = 2;
/// Ending, or without a scope.
const CLOSING: u32 = 4;

/// One was sent without a siginfo.
const PLAIN: u32 = 16;

/// Milliseconds after which a signal that has not landed is taken to be lost.
pub(super) const LOST_AFTER: u64 = 100;

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
    /// Signals of ours that were sent here, ever.
    sent: AtomicU64,
    /// How many of them are gone for sure: they were delivered, or merged into one that was.
    gone: AtomicU64,
    /// How many had been sent when the last barrier began.
    queued: AtomicU64,
    /// When the last one was sent, in milliseconds.
    sent_at: AtomicU64,
    /// Fingerprint of the signal that this thread posted back last.
    pub(crate) posted: AtomicU64,
    pub(crate) timer: Timer,
    pub(crate) landing: Landing,
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
            sent: AtomicU64::new(0),
            gone: AtomicU64::new(0),
            queued: AtomicU64::new(0),
            sent_at: AtomicU64::new(0),
            posted: AtomicU64::new(0),
            timer: Timer::new(),
            landing: Landing::new(),
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

    pub(crate) fn has_one_scope(&self) -> bool {
        self.scopes.load(SeqCst) == 1
    }

    pub(crate) fn was_blocked(&self) -> bool {
        self.before.load(SeqCst) == BLOCKED
    }

    pub(crate) fn is_entering(&self) -> bool {
        self.before.load(SeqCst) == ENTERING
    }

    /// Whether one of ours is on its way. One that was sent long ago and has not landed was eaten (by sigwait, by somebody's handler that
    /// stood there for a moment, by a debugger), or the number is blocked: the next request sends again.
    pub(crate) fn is_in_flight(&self) -> bool {
        let young = || clock::coarse_milliseconds().saturating_sub(self.sent_at.load(SeqCst)) < LOST_AFTER;
        self.flags.load(SeqCst) & IN_FLIGHT != 0 && young()
    }

    /// Whether something was sent since the lane opened.
    pub(crate) fn is_dirty(&self) -> bool {
        self.flags.load(SeqCst) & DIRTY != 0
    }

    /// Whether it ends, or has no scope: the handler neither sends nor arms.
    pub(crate) fn is_closing(&self) -> bool {
        self.flags.load(SeqCst) & CLOSING != 0
    }

    /// Whether one of ours may have merged into what arrives.
    pub(crate) fn was_sent_to(&self) -> bool {
        self.flags.load(SeqCst) & IN_FLIGHT != 0
    }

    /// The timer is about to be armed: something may be queued.
    pub(crate) fn expect_expiry(&self) {
        self.flags.fetch_or(DIRTY, SeqCst);
    }

    /// `true` if the caller is to send: nothing of ours is on its way.
    pub(crate) fn take_off(&self) -> bool {
        let was_flying = self.is_in_flight();
        if self.flags.fetch_or(IN_FLIGHT | DIRTY, SeqCst) & IN_FLIGHT != 0 && was_flying {
            return false;
        }
        self.sent_at.store(clock::coarse_milliseconds(), SeqCst);
        self.count_sent();
        true
    }

    /// One of ours is about to be queued.
    pub(crate) fn count_sent(&self) {
        self.sent.fetch_add(1, SeqCst);
    }

    /// Whether one of ours may be queued: for those that come without their siginfo. Unlike IN_FLIGHT it outlives an acknowledgement, until
    /// the barrier of that.
    pub(crate) fn is_out(&self) -> bool {
        self.sent.load(SeqCst) > self.gone.load(SeqCst)
    }

    /// One of ours is about to be queued by tgkill.
    pub(crate) fn expect_plain(&self) {
        self.flags.fetch_or(PLAIN, SeqCst);
    }

    pub(crate) fn expects_plain(&self) -> bool {
        self.flags.load(SeqCst) & PLAIN != 0
    }

    /// While no sender is inside a gate of this lane: all that was sent is queued, or gone.
    pub(crate) fn before_barrier(&self) {
        self.queued.store(self.sent.load(SeqCst), SeqCst);
    }

    /// The number has been open since: what was queued then is gone.
    pub(crate) fn after_barrier(&self) {
        self.gone.fetch_max(self.queued.load(SeqCst), SeqCst);
    }

    /// Nothing of ours is on its way, or may be taken to be (R2).
    pub(crate) fn calm(&self) {
        self.flags.fetch_and(!IN_FLIGHT, SeqCst);
    }

    /// One of ours was delivered.
    pub(crate) fn landed(&self) {
        self.calm();
        let next = self.gone.load(SeqCst) + 1; // only this thread and its handler count here; two that merge are made up for by a barrier
        self.gone.fetch_max(next.min(self.sent.load(SeqCst)), SeqCst);
    }

    /// The timer's was delivered. (It is never without its siginfo, so it is not counted.)
    pub(crate) fn timer_landed(&self) {
        self.calm();
        self.timer.expired();
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
        self.timer.forget();
    }

    /// In a forked child, on the lanes of the forking thread.
    pub(crate) fn after_fork(&self) {
        self.flags.fetch_and(CLOSING, SeqCst);
        self.before_barrier();
        self.after_barrier();
        self.held.take_all(|_| ());
        self.timer.forget();
    }

    /// A first scope is about to enter.
    pub(super) fn begin(&self) {
        self.generation.fetch_add(1, SeqCst);
        self.flags.store(0, SeqCst);
        self.landing.forget();
    }

    /// From now until [`Lane::set_before`] it is not known whether the number was open; what arrives is held.
    pub(super) fn await_mask(&self) {
        self.before.store(ENTERING, SeqCst);
    }

    /// The number was open, or blocked, before.
    pub(super) fn set_before(&self, blocked: bool) {
        self.before.store(if blocked { BLOCKED } else { OPEN }, SeqCst);
    }

    /// It did not enter.
    pub(super) fn refuse(&self) {
        self.begin_end();
        self.set_before(false);
        self.release_needlessly_held();
    }

    /// No scope is left.
    pub(super) fn begin_end(&self) {
        self.flags.fetch_or(CLOSING, SeqCst);
    }

    /// Nobody is inside a gate any more, and nothing of ours is queued.
    pub(super) fn settle(&self) {
        self.before_barrier();
        self.after_barrier();
        self.generation.fetch_add(1, SeqCst);
    }

    pub(super) fn add_scope(&self) {
        self.scopes.fetch_add(1, SeqCst);
    }

    /// `true` for the last one.
    pub(super) fn remove_scope(&self) -> bool {
        self.scopes.fetch_sub(1, SeqCst) == 1
    }

    /// What came while it was not known yet that the number had been open. It came to this thread, so it goes back to this thread.
    pub(super) fn release_needlessly_held(&self) {
        if !self.held.is_empty() {
            let saved = mask::block_all();
            self.held.take_all(|info| {
                if send::to_thread(self.record.tid(), info).is_err() {
                    blocked::give_back(self.record.tid(), info);
                }
            });
            mask::set(saved);
        }
    }

    /// To whom it was sent: the thread or the process. All signals are blocked.
    pub(super) fn give_back_held(&self) {
        self.held.take_all(|info| blocked::give_back(self.record.tid(), info));
    }
}
