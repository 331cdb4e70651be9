//! The guard of a deadline.

use crate::engine::deadline::{self, Tag};
use crate::kernel::clock::{self, NEVER};
use crate::scope::Scope;
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

/// Guard of [`Scope::timeout`] and [`Scope::deadline`]; dropping it takes its own interrupt back.
///
/// Deadlines nest, and may be dropped in any order: each acts at its own time, so the earliest does first. One that has passed stays due, and calls go on
/// failing with [`Reason::Deadline`](crate::Reason::Deadline), until its guard drops or is [`reset`](Deadline::reset).
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// let scope = eintr::Scope::enter(libc::SIGUSR1)?;
/// let limit = scope.timeout(Duration::from_millis(10))?;
/// assert!(eintr::sleep(Duration::MAX).is_err());
/// assert!(limit.expired());
/// drop(limit);
/// assert!(eintr::check().is_ok());
/// # Ok(())
/// # }
/// ```
///
/// It belongs to the scope, hence to its thread:
///
/// ```compile_fail,E0505
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let scope = eintr::Scope::enter(libc::SIGUSR1)?;
/// let limit = scope.timeout(std::time::Duration::ZERO)?;
/// drop(scope);
/// drop(limit);
/// # Ok(())
/// # }
/// ```
///
/// # Time
/// It is counted by CLOCK_MONOTONIC, as std's `Instant` is: the time that the machine is suspended does not count (clock_gettime(2)). It never acts
/// before its time.
///
/// # Leaks
/// With `mem::forget` it stays until the scope ends.
///
/// # Async-signal-safety
/// Making one is not async-signal-safe.
#[must_use = "the deadline ends where this value is dropped"]
pub struct Deadline<'s> {
    tag: Tag,
    at: Cell<u64>,
    _scope: PhantomData<&'s Scope>,
}

impl Deadline<'_> {
    /// Whether this deadline, not one around it, has passed; shielded or not.
    pub fn expired(&self) -> bool {
        let expired = clock::now() >= self.at.get() && self.at.get() != NEVER;
        if expired {
            deadline::tell(self.tag);
        }
        expired
    }

    /// Moves it, as an idle timeout does after each message. If it had passed, its interrupt is taken back. An instant that has passed acts at once.
    pub fn reset(&self, at: Instant) {
        self.at.set(clock::at(at));
        deadline::reset(self.tag, self.at.get());
    }
}

impl Drop for Deadline<'_> {
    fn drop(&mut self) {
        deadline::end(self.tag);
    }
}

/// Shows whether it has passed, and what is left.
impl fmt::Debug for Deadline<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = Duration::from_nanos(self.at.get().saturating_sub(clock::now()));
        f.debug_struct("Deadline").field("expired", &self.expired()).field("left", &left).finish()
    }
}

impl Scope {
    /// Interrupts this scope with [`Reason::Deadline`](crate::Reason::Deadline) unless the guard drops within `timeout`: without a thread, by a timer of
    /// the kernel that is aimed at this one. Zero acts at once, one that ends later than any instant never. Plain calls come back as they do for an
    /// [`interrupt`](crate::Remote::interrupt), with the scope's [`Resend`](crate::Resend).
    ///
    /// While somebody else's action stands where the scope's did, no timer is set, and a call that sleeps does not end; one that is made after the time
    /// does. A timer that was set before is not taken back by that: it expires into whatever stands then, which kills if that is the default. (Any
    /// deadline that is made, moved or dropped meanwhile stops it, and so does a shield or an acknowledgement.)
    ///
    /// # Errors
    /// `EAGAIN`, if the kernel has no timer left (RLIMIT_SIGPENDING, timer_create(2)), `ENOMEM`; nothing has changed then.
    pub fn timeout(&self, timeout: Duration) -> Result<Deadline<'_>, crate::Error> {
        self.at_time(clock::after(timeout))
    }

    /// The same at an instant; one in the past acts at once, one out of range never.
    ///
    /// # Errors
    /// As [`timeout`](Scope::timeout).
    pub fn deadline(&self, at: Instant) -> Result<Deadline<'_>, crate::Error> {
        self.at_time(clock::at(at))
    }

    fn at_time(&self, at: u64) -> Result<Deadline<'_>, crate::Error> {
        let tag = deadline::begin(self.link(), at)?;
        Ok(Deadline { tag, at: Cell::new(at), _scope: PhantomData })
    }
}

/// A deadline that is fixed before its scope is entered.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    None,
    /// Counted from `enter`.
    After(Duration),
    At(Instant),
}

impl Limit {
    /// In nanoseconds of the clock.
    pub(crate) fn counted_from_now(self) -> Option<u64> {
        match self {
            Limit::None => None,
            Limit::After(timeout) => Some(clock::after(timeout)),
            Limit::At(at) => Some(clock::at(at)),
        }
    }
}
