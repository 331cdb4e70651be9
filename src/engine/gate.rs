//! The gate of a scope: one word that every sender passes through, and that only the scoped thread shuts.
//!
//! ```text
//! 63            32 31     30   29      28   27   26        25        24     19              0
//! | generation    | CLOSED HELD PENDING SEEN ONCE BY_SIGNAL BY_REMOTE WAITER| senders inside |
//! ```
//!
//! A gate is never freed; it is used again, with the next generation, when its scope has ended. A `Remote` remembers the generation it was
//! made for, so an old one finds the gate closed (protocol 1; the count of generations is 32 bits wide).
//!
//! # Invariants
//! 1. A sender is inside only after one exchange that saw its generation, and neither CLOSED nor HELD.
//! 2. After [`close`](Gate::close) or [`hold`](Gate::hold) has returned nobody is inside, and nobody gets in until [`open`](Gate::open).
//! 3. PENDING is set by senders only, and taken off by [`clear`](Gate::clear) and [`renew`](Gate::renew) only. SEEN is set by
//!    [`see`](Gate::see), and taken off by the next request: so PENDING without SEEN is a request that nobody has acknowledged.
//! 4. Who sleeps on the gate has set WAITER, after it read `wakes` and before it looked at the word for the last time; who changes what
//!    sleepers wait for takes WAITER off and counts `wakes` up. So no wake-up is lost.
//!
//! # Orderings
//! SeqCst throughout. The word pairs with the thread's `pending`: a sender writes the word and then `pending`; the thread, when it lowers
//! `pending`, writes it and then reads the words.
//!
//! # Async-signal-safety
//! Every function is. The ones that wait (`close`, `hold`) belong to the scoped thread, with all signals blocked; those they wait for have
//! all signals blocked too and never wait themselves, so the wait is bounded by them.

use crate::atomic::{AtomicU32, AtomicU64, SeqCst};
use crate::kernel::futex;
use std::time::{Duration, Instant};

const CLOSED: u64 = 1 << 31;
const HELD: u64 = 1 << 30;
const PENDING: u64 = 1 << 29;
const SEEN: u64 = 1 << 28;
const ONCE: u64 = 1 << 27;
const BY_SIGNAL: u64 = 1 << 26;
const BY_REMOTE: u64 = 1 << 25;
const WAITER: u64 = 1 << 24;
const SENDERS: u64 = (1 << 20) - 1;
/// Everything that a request leaves behind.
const REQUEST: u64 = PENDING | SEEN | ONCE | BY_SIGNAL | BY_REMOTE;

/// Who asks, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// A Remote; `once` wants no resend.
    Remote { once: bool },
    /// A signal from outside, under a policy.
    Signal,
    /// The same, but not if the gate is pending by a signal already.
    FirstSignal,
}

impl Request {
    const fn bits(self) -> u64 {
        match self {
            Request::Remote { once: true } => PENDING | BY_REMOTE | ONCE,
            Request::Remote { once: false } => PENDING | BY_REMOTE,
            Request::Signal | Request::FirstSignal => PENDING | BY_SIGNAL,
        }
    }
}

/// The gate's answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Answer {
    /// The scope has ended: nothing was done.
    Closed,
    /// The request is kept; nothing may be sent now.
    Kept,
    /// [`Request::FirstSignal`] came second: nothing was done.
    Refused,
    /// The caller is inside: it may send, and must [`leave`](Gate::leave).
    Inside,
}

/// What became of the last request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing is asked, or it was acknowledged.
    Acknowledged,
    /// The scope has ended.
    Closed,
    /// The time is up.
    TimedOut,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Gate {
    word: AtomicU64,
    wakes: AtomicU32,
}

impl Gate {
    /// A gate without a scope, closed.
    pub(crate) fn new() -> Gate {
        Gate { word: AtomicU64::new(CLOSED), wakes: AtomicU32::new(0) }
    }

    /// Begins the next generation, held (protocol 5: opened last). Only for who owns the gate, which is closed and empty.
    pub(crate) fn renew(&self) -> u32 {
        let generation = ((self.word.load(SeqCst) >> 32) as u32).wrapping_add(1);
        self.word.store(u64::from(generation) << 32 | HELD, SeqCst);
        generation
    }

    /// The generation of now.
    pub(crate) fn generation(&self) -> u32 {
        (self.word.load(SeqCst) >> 32) as u32
    }

    /// Whether this generation has not been closed.
    pub(crate) fn is_open(&self, generation: u32) -> bool {
        live(self.word.load(SeqCst), generation)
    }

    /// A request (protocol 2.4).
    pub(crate) fn ask(&self, generation: u32, request: Request) -> Answer {
        let mut word = self.word.load(SeqCst);
        loop {
            if !live(word, generation) {
                return Answer::Closed;
            }
            if request == Request::FirstSignal && word & BY_SIGNAL != 0 {
                return Answer::Refused;
            }
            let kept = word & HELD != 0;
            let insisted = word & (PENDING | SEEN | ONCE) == PENDING; // somebody waits who wants it sent again
            let bits = if insisted { request.bits() & !ONCE } else { request.bits() };
            let next = (word & !(SEEN | ONCE) | bits) + u64::from(!kept);
            match self.word.compare_exchange(word, next, SeqCst, SeqCst) {
                Ok(_) if kept => return Answer::Kept,
                Ok(_) => return Answer::Inside,
                Err(seen) => word = seen,
            }
        }
    }

    /// A request that changes nothing, because the same was asked already and not acknowledged (protocol 2.2): an exchange of the same value,
    /// so that what was written before it is visible to who acknowledges.
    pub(crate) fn repeats(&self, generation: u32, request: Request) -> bool {
        let word = self.word.load(SeqCst);
        let same = word & (REQUEST & !BY_SIGNAL | HELD) == request.bits() && live(word, generation);
        same && self.word.compare_exchange(word, word, SeqCst, SeqCst).is_ok()
    }

    /// A sender goes out.
    pub(crate) fn leave(&self) {
        let before = self.word.fetch_sub(1, SeqCst);
        if before & SENDERS == 1 && before & WAITER != 0 {
            self.wake();
        }
    }

    /// Closes a gate for which there is nothing to do: nothing asked, nobody inside, nobody waiting. One exchange.
    pub(crate) fn close_quiet(&self) -> bool {
        let word = self.word.load(SeqCst);
        word & (REQUEST | WAITER | SENDERS | CLOSED) == 0
            && self.word.compare_exchange(word, word | CLOSED, SeqCst, SeqCst).is_ok()
    }

    /// Shuts the gate for good, and waits for those inside.
    pub(crate) fn close(&self) {
        self.word.fetch_or(CLOSED, SeqCst);
        self.wait_until_empty();
        self.wake_waiters();
    }

    /// Keeps requests from now on, and waits for those inside.
    pub(crate) fn hold(&self) {
        self.word.fetch_or(HELD, SeqCst);
        self.wait_until_empty();
    }

    /// Keeps requests from now on, if there is nothing else to do: nothing asked, nobody inside. One exchange; none, if they are kept already.
    pub(crate) fn hold_quiet(&self) -> bool {
        let word = self.word.load(SeqCst);
        word & HELD != 0
            || word & (PENDING | SENDERS) == 0 && self.word.compare_exchange(word, word | HELD, SeqCst, SeqCst).is_ok()
    }

    /// Ends [`hold`](Gate::hold) (or the state after [`renew`](Gate::renew)). `true` if a request is pending.
    pub(crate) fn open(&self) -> bool {
        self.word.fetch_and(!HELD, SeqCst) & PENDING != 0
    }

    /// Acknowledges what is asked.
    pub(crate) fn see(&self) {
        if self.word.load(SeqCst) & PENDING != 0 {
            self.word.fetch_or(SEEN, SeqCst);
            self.wake_waiters();
        }
    }

    /// Takes what is asked, and says who asked it: `Some(true)` for a Remote. One exchange: looking first would lose what comes in between.
    pub(crate) fn clear(&self) -> Option<bool> {
        let taken = self.word.fetch_and(!REQUEST, SeqCst);
        self.wake_waiters();
        by_remote(taken)
    }

    /// Whether requests are kept.
    pub(crate) fn is_held(&self) -> bool {
        self.word.load(SeqCst) & HELD != 0
    }

    /// Whether something is asked that may act: PENDING, neither held nor closed.
    pub(crate) fn acts(&self) -> bool {
        self.word.load(SeqCst) & (PENDING | HELD | CLOSED) == PENDING
    }

    /// Whether something is asked that may act and that nobody has acknowledged.
    pub(crate) fn is_unseen(&self) -> bool {
        self.word.load(SeqCst) & (PENDING | SEEN | HELD | CLOSED) == PENDING
    }

    /// The same, and the signal is to come again until somebody does.
    pub(crate) fn wants_resend(&self) -> bool {
        self.word.load(SeqCst) & (PENDING | SEEN | HELD | CLOSED | ONCE) == PENDING
    }

    /// Who asked, if something is asked of this generation: `Some(true)` for a Remote.
    pub(crate) fn asked_by_remote(&self, generation: u32) -> Option<bool> {
        let word = self.word.load(SeqCst);
        if live(word, generation) { by_remote(word) } else { None }
    }

    /// In a forked child: the senders were other threads of the parent.
    pub(crate) fn forget_senders(&self) {
        self.word.fetch_and(!(SENDERS | WAITER), SeqCst);
    }

    /// Waits until the last request is acknowledged (`ended_only`: no), or the scope has ended.
    pub(crate) fn wait(&self, generation: u32, ended_only: bool, timeout: Duration) -> Outcome {
        let until = Instant::now().checked_add(timeout);
        loop {
            let wakes = self.wakes.load(SeqCst);
            let word = self.word.load(SeqCst);
            if !live(word, generation) {
                return Outcome::Closed;
            }
            if !ended_only && word & (PENDING | SEEN) != PENDING {
                return Outcome::Acknowledged;
            }
            let left = until.map(|at| at.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Outcome::TimedOut;
            }
            self.sleep(word, wakes, left);
        }
    }

    fn wait_until_empty(&self) {
        loop {
            let wakes = self.wakes.load(SeqCst);
            let word = self.word.load(SeqCst);
            if word & SENDERS == 0 {
                return;
            }
            self.sleep(word, wakes, None);
        }
    }

    /// Sleeps unless the word has changed since `word` was read (invariant 4).
    fn sleep(&self, word: u64, wakes: u32, timeout: Option<Duration>) {
        if self.word.compare_exchange(word, word | WAITER, SeqCst, SeqCst).is_ok() {
            futex::wait(&self.wakes, wakes, timeout);
        }
    }

    fn wake_waiters(&self) {
        if self.word.load(SeqCst) & WAITER != 0 {
            self.wake();
        }
    }

    fn wake(&self) {
        self.word.fetch_and(!WAITER, SeqCst);
        self.wakes.fetch_add(1, SeqCst);
        futex::wake_all(&self.wakes);
    }
}

const fn live(word: u64, generation: u32) -> bool {
    (word >> 32) as u32 == generation && word & CLOSED == 0
}

const fn by_remote(word: u64) -> Option<bool> {
    if word & PENDING != 0 { Some(word & BY_REMOTE != 0) } else { None }
}
