//! What is known of a lane's timer: its id, what it is to expire for, and how long the pauses are by now. `resend` sets it.
//!
//! # Async-signal-safety
//! Everything is.

use crate::atomic::{AtomicI32, AtomicU32, AtomicU64, SeqCst};
use crate::engine::lane::LOST_AFTER;
use crate::kernel::clock::{self, NEVER};
use crate::kernel::{raw, timer};
use crate::resend::Pauses;

/// No timer was made: 0 is a timer's id.
pub(super) const NONE: i32 = -1;

/// The state of a lane's timer.
#[derive(Debug)]
pub(crate) struct Timer {
    pub(super) id: AtomicI32,
    /// It was set since it was stopped. (`due` does not say: before Linux 6.13 the expiry of an earlier setting may land after a later one.)
    pub(super) runs: AtomicU32,
    /// It was stopped since somebody else's action stood, though something is waited for.
    stopped: AtomicU32,
    /// When the signal is to come again, in nanoseconds of CLOCK_MONOTONIC. NEVER: nobody has armed the timer.
    pub(super) due: AtomicU64,
    /// The lane's next deadline, likewise.
    next: AtomicU64,
    /// The pause that was taken last, in nanoseconds.
    pub(super) pause: AtomicU64,
    /// The same where the interrupt could not be brought home ([`by_timer`](crate::engine::resend)).
    pub(super) doubt: AtomicU64,
}

impl Timer {
    pub(crate) const fn new() -> Timer {
        Timer {
            id: AtomicI32::new(NONE),
            runs: AtomicU32::new(0),
            stopped: AtomicU32::new(0),
            due: AtomicU64::new(NEVER),
            next: AtomicU64::new(NEVER),
            pause: AtomicU64::new(0),
            doubt: AtomicU64::new(0),
        }
    }

    /// Whether the signal is to come again.
    pub(crate) fn is_armed(&self) -> bool {
        let due = self.due.load(SeqCst);
        due != NEVER && !is_lost(due)
    }

    /// `true` if the caller is to set the timer: it was not to expire before this.
    pub(super) fn claim(&self, at: u64) -> bool {
        let sooner = |due| (at < due || is_lost(due)).then_some(at);
        self.due.fetch_update(SeqCst, SeqCst, sooner).is_ok()
    }

    /// The same for the first pause: the time, if the caller is to set it.
    pub(super) fn claim_first(&self, pauses: Pauses) -> Option<u64> {
        let at = from_now(pauses.first);
        self.claim(at).then(|| {
            self.pause.store(pauses.first, SeqCst);
            at
        })
    }

    /// What it is to be set for.
    pub(super) fn time(&self) -> u64 {
        self.due.load(SeqCst).min(self.next())
    }

    /// What comes without a siginfo may be an expiry.
    pub(crate) fn may_have_expired(&self) -> bool {
        self.time() <= clock::now()
    }

    /// See `stopped`.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(SeqCst) != 0
    }

    pub(super) fn note_stopped(&self, stopped: bool) {
        self.stopped.store(u32::from(stopped), SeqCst);
    }

    /// See `next`.
    pub(super) fn next(&self) -> u64 {
        self.next.load(SeqCst)
    }

    pub(super) fn note_next(&self, at: u64) {
        self.next.store(at, SeqCst);
    }

    /// The pauses begin with the first again.
    pub(super) fn begin_anew(&self) {
        self.pause.store(0, SeqCst);
        self.doubt.store(0, SeqCst);
    }

    /// It has expired, or what it was armed for is no more. The caller looks at the gates (invariants 2 and 5).
    pub(super) fn expired(&self) {
        self.due.store(NEVER, SeqCst);
    }

    /// In a forked child, where there is no such timer.
    pub(super) fn forget(&self) {
        self.id.store(NONE, SeqCst);
        self.runs.store(0, SeqCst);
        self.note_stopped(false);
        self.due.store(NEVER, SeqCst);
        self.next.store(NEVER, SeqCst);
    }

    /// The thread ends.
    pub(super) fn delete(&self) {
        let id = self.id.swap(NONE, SeqCst);
        self.due.store(NEVER, SeqCst);
        if id != NONE {
            timer::delete(id);
        }
    }

    /// Stops it, if it was set. Nobody is inside the lane's gates.
    pub(super) fn stop(&self) {
        self.begin_anew();
        self.next.store(NEVER, SeqCst);
        if self.runs.swap(0, SeqCst) != 0 {
            let id = self.id.load(SeqCst);
            if id != NONE {
                let _ = timer::set(id, 0);
            }
        }
        self.due.store(NEVER, SeqCst); // also where it was claimed and not set, since somebody else's action stood
        self.note_stopped(false);
    }

    /// Lets it expire now, if there is one, and waits until its signal is queued. Nobody arms it any more.
    pub(super) fn run_out(&self) {
        let id = self.id.load(SeqCst);
        if id == NONE || timer::set(id, 1).is_err() {
            return;
        }
        while timer::is_running(id) {
            raw::pause_for(1000);
        }
        self.due.store(NEVER, SeqCst);
    }

    /// Whether there is one.
    pub(super) fn is_made(&self) -> bool {
        self.id.load(SeqCst) != NONE
    }
}

/// Long after its time it has not come.
fn is_lost(due: u64) -> bool {
    clock::coarse_milliseconds() > (due / 1_000_000).saturating_add(LOST_AFTER)
}

/// The next pause: the first, or twice the last one.
pub(super) fn next_pause(last: &AtomicU64, pauses: Pauses) -> u64 {
    let next = last.load(SeqCst).saturating_mul(2).max(pauses.first).min(pauses.ceiling).max(1);
    last.store(next, SeqCst);
    next
}

/// A time so long from now, which is not never.
pub(super) fn from_now(pause: u64) -> u64 {
    clock::now().saturating_add(pause).min(NEVER - 1)
}
