//! The guard.

use crate::deadline::Limit;
use crate::engine::acknowledge;
use crate::engine::enter::How;
use crate::engine::node::Link;
use crate::engine::{deadline, enter, fork, leave};
use crate::error::{EnterError, Interrupted, LeaveError, Refusal};
use crate::policy::Foreign;
use crate::remote::Remote;
use crate::resend::Resend;
use crate::signal::Signal;
use std::fmt;
use std::marker::PhantomData;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::{Duration, Instant};

/// Guard: while it lives, its [`Remote`]s can end this thread's blocking calls: those of [`sys`](crate::sys) without fail, plain ones by
/// [`retry`](crate::retry) with a resend. Dropping it puts action and mask back, in any order of drops, on
/// any path out.
///
/// It belongs to the thread that entered it: `!Send`, `!Sync`.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let scope = eintr::Scope::enter(libc::SIGUSR1)?;
/// let remote = scope.remote();
/// std::thread::spawn(move || remote.interrupt()).join().unwrap();
/// assert!(eintr::check().is_err());
/// # Ok(())
/// # }
/// ```
///
/// A scope cannot be sent to another thread:
///
/// ```compile_fail,E0277
/// let scope = eintr::Scope::enter(libc::SIGUSR1).unwrap();
/// std::thread::spawn(move || drop(scope));
/// ```
///
/// nor shared with one:
///
/// ```compile_fail,E0277
/// let scope = eintr::Scope::enter(libc::SIGUSR1).unwrap();
/// std::thread::scope(|s| drop(s.spawn(|| scope.signal())));
/// ```
///
/// a remote can:
///
/// ```
/// let scope = eintr::Scope::enter(libc::SIGUSR1).unwrap();
/// let remote = scope.remote();
/// std::thread::spawn(move || drop(remote)).join().unwrap();
/// ```
///
/// # Leaks
/// With `mem::forget` the scope lives until its thread ends; then it is left as by drop. The main thread's is left to the end of the process.
///
/// # Async-signal-safety
/// Entering and dropping are not async-signal-safe: they must not run in a signal handler that interrupted either.
#[must_use = "the scope ends where this value is dropped: bind it to a name, not to `_`"]
pub struct Scope {
    link: Link,
    signal: Signal,
    _thread_bound: PhantomData<*mut ()>,
}

impl Scope {
    /// Enters a scope on a signal, or on [`ScopeOptions`].
    ///
    /// The first scope on a number installs a handler; the first on a thread opens the number in its mask. Threads and children that are started
    /// inside the scope inherit that mask (pthread_create(3), fork(2), execve(2)).
    ///
    /// While scopes of the number live, a further one relies on what the first has done: it makes no system call on the same thread, so it does not
    /// open a number that was blocked inside the scope, and does not put the handler back where somebody has replaced it
    /// ([`Delivery::Displaced`](crate::Delivery::Displaced)).
    ///
    /// # Errors
    /// [`EnterError`], if the signal is refused; nothing is changed then. See [`Refusal`](crate::Refusal) for the reasons.
    pub fn enter(on: impl Into<ScopeOptions>) -> Result<Scope, EnterError> {
        Scope::enter_link(Link::make(), on.into())
    }

    /// The same with a node that exists already; it is spent if the signal is refused.
    pub(crate) fn enter_link(link: Link, options: ScopeOptions) -> Result<Scope, EnterError> {
        let signal = options.signal;
        let refused = |why| EnterError::new(signal, why);
        if let Err(why) = signal.judge() {
            enter::discard(link);
            return Err(refused(why));
        }
        let how =
            How { policy: options.foreign, allow_ignored: options.allow_ignored, pauses: options.resend.pauses() };
        let limit = options.limit.counted_from_now();
        enter::enter(link, signal.as_raw(), how).map_err(refused)?;
        let scope = Scope { link, signal, _thread_bound: PhantomData };
        if let Some(at) = limit {
            deadline::begin(link, at).map_err(|errno| refused(Refusal::Os(errno)))?; // it ends with the scope
        }
        Ok(scope)
    }

    pub(crate) fn link(&self) -> Link {
        self.link
    }

    /// A handle to interrupt this scope with, from any thread or signal handler.
    pub fn remote(&self) -> Remote {
        fork::check();
        Remote::new(self.link)
    }

    /// The signal it was entered on.
    pub fn signal(&self) -> Signal {
        self.signal
    }

    /// Looks whether this scope (not one around it) was interrupted, or a deadline of it has passed, shielded or not. Acknowledges nothing, so it is safe
    /// in a log line.
    pub fn interrupted(&self) -> Option<Interrupted> {
        acknowledge::look(self.link)
    }

    /// Takes this scope's interrupt, so that calls block again; acknowledges it. Until then, or the end of the scope, every call of [`sys`](crate::sys),
    /// [`check`](crate::check) and [`retry`](crate::retry) fails. The interrupts of other scopes stay.
    ///
    /// A deadline that has passed is not taken: it stays due until its guard drops or is reset (for one of [`ScopeOptions`], until the scope ends). Under
    /// a [`shield`](crate::shield()) it takes what is kept.
    pub fn clear(&self) -> Option<Interrupted> {
        acknowledge::clear(self.link)
    }

    /// Drops the scope and says what could not be put back.
    ///
    /// # Errors
    /// [`LeaveError`], if this was the last scope of its number and somebody had replaced the action meanwhile: theirs was left in place.
    pub fn leave(self) -> Result<(), LeaveError> {
        let (link, signal) = (self.link, self.signal);
        std::mem::forget(self);
        leave::leave(link).map_err(|_displaced| LeaveError { signal })
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        let _ = leave::leave(self.link);
    }
}

/// Shows signal, thread, open or interrupted.
impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let thread = self.link.node().record().map(crate::engine::record::Record::tid);
        f.debug_struct("Scope")
            .field("signal", &self.signal)
            .field("thread", &thread)
            .field("open", &self.link.is_open())
            .field("interrupted", &self.interrupted())
            .finish()
    }
}

impl UnwindSafe for Scope {}
impl RefUnwindSafe for Scope {}

/// How to enter a scope. Made from a signal; `Clone + Send + Sync`, so that an application configures it once.
#[derive(Clone, Debug)]
#[must_use]
pub struct ScopeOptions {
    signal: Signal,
    allow_ignored: bool,
    foreign: Foreign,
    resend: Resend,
    limit: Limit,
}

impl ScopeOptions {
    /// What `Scope::enter(sig)` uses: foreign signals chained, resend with back-off, no deadline.
    pub fn new(sig: impl Into<Signal>) -> ScopeOptions {
        ScopeOptions {
            signal: sig.into(),
            allow_ignored: false,
            foreign: Foreign::Chain,
            resend: Resend::default(),
            limit: Limit::None,
        }
    }

    /// Allows a signal whose action is to be ignored. With a handler in its place every thread's `poll` and sleep see `EINTR` when it comes, and
    /// children started meanwhile do not inherit `SIG_IGN`. SIGCONT is a poor choice even so: each one that is sent discards the stop signals that are
    /// pending for the process, and resumes it (signal(7)).
    pub fn allow_ignored(self) -> ScopeOptions {
        ScopeOptions { allow_ignored: true, ..self }
    }

    /// What a signal that no [`Remote`] sent does here.
    pub fn foreign(self, what: Foreign) -> ScopeOptions {
        ScopeOptions { foreign: what, ..self }
    }

    /// When a signal that was not acknowledged is sent again; [`Resend::default`] if nothing is said. It is for plain calls: those of
    /// [`sys`](crate::sys) are ended by the first one.
    pub fn resend(self, when: Resend) -> ScopeOptions {
        ScopeOptions { resend: when, ..self }
    }

    /// A deadline for the life of the scope, counted from `enter`; in place of one that was said before. Entering fails with `EAGAIN` if the kernel has
    /// no timer left. See [`Scope::timeout`].
    pub fn timeout(self, timeout: Duration) -> ScopeOptions {
        ScopeOptions { limit: Limit::After(timeout), ..self }
    }

    /// The same at an instant.
    pub fn deadline(self, at: Instant) -> ScopeOptions {
        ScopeOptions { limit: Limit::At(at), ..self }
    }

    /// [`Scope::enter`], to end a chain with.
    ///
    /// # Errors
    /// As [`Scope::enter`].
    pub fn enter(self) -> Result<Scope, EnterError> {
        Scope::enter(self)
    }
}

impl From<Signal> for ScopeOptions {
    fn from(s: Signal) -> Self {
        ScopeOptions::new(s)
    }
}

impl From<nix::sys::signal::Signal> for ScopeOptions {
    fn from(s: nix::sys::signal::Signal) -> Self {
        ScopeOptions::new(s)
    }
}

impl From<libc::c_int> for ScopeOptions {
    fn from(s: libc::c_int) -> Self {
        ScopeOptions::new(s)
    }
}
