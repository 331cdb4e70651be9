//! Errors: what ended a call, why a scope was refused, what could not be put back.

use crate::signal::Signal;
use nix::errno::Errno;
use std::error::Error as StdError;
use std::{fmt, io};

/// An interrupt ended a call. `Copy + Send + Sync + 'static`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Interrupted {
    reason: Reason,
}

impl Interrupted {
    pub(crate) const fn new(reason: Reason) -> Interrupted {
        Interrupted { reason }
    }

    /// Who asked. With several at once: the outermost scope first, a remote before a signal before a deadline.
    pub const fn reason(self) -> Reason {
        self.reason
    }

    /// Finds it in an error or its sources, inside an `io::Error` too (whose `source()` skips it).
    ///
    /// ```
    /// let nothing = std::io::Error::other("no interrupt in here");
    /// assert!(eintr::Interrupted::find(&nothing).is_none());
    /// ```
    pub fn find(err: &(dyn StdError + 'static)) -> Option<Interrupted> {
        let mut next = Some(err);
        while let Some(err) = next {
            let inner = err.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            if let Some(inner) = inner {
                next = Some(inner);
                continue;
            }
            match err.downcast_ref::<Error>() {
                Some(Error::Interrupted(interrupted)) => return Some(*interrupted),
                _ => match err.downcast_ref::<Interrupted>() {
                    Some(interrupted) => return Some(*interrupted),
                    None => next = err.source(),
                },
            }
        }
        None
    }
}

/// Who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// A [`Remote`](crate::Remote).
    Remote,
    /// A deadline: of [`Scope::timeout`](crate::Scope::timeout), [`Scope::deadline`](crate::Scope::deadline) or [`ScopeOptions`](crate::ScopeOptions).
    Deadline,
    /// A signal from outside, under [`Foreign::Interrupt`](crate::Foreign::Interrupt).
    Signal,
}

/// Why a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// An interrupt ended it.
    Interrupted(Interrupted),
    /// The kernel's own answer, unchanged. Never `EINTR`.
    Os(Errno),
}

impl Error {
    /// The interrupt, if it was one.
    pub const fn interrupted(self) -> Option<Interrupted> {
        match self {
            Error::Interrupted(i) => Some(i),
            Error::Os(_) => None,
        }
    }

    /// The kernel's answer, if it was one.
    pub const fn errno(self) -> Option<Errno> {
        match self {
            Error::Os(e) => Some(e),
            Error::Interrupted(_) => None,
        }
    }
}

impl From<Interrupted> for Error {
    fn from(i: Interrupted) -> Self {
        Error::Interrupted(i)
    }
}

impl From<Errno> for Error {
    fn from(e: Errno) -> Self {
        Error::Os(e)
    }
}

/// An interrupt becomes `ECANCELED`, a deadline `ETIMEDOUT`; never `EINTR`, which loops by hand would retry for ever.
impl From<Error> for Errno {
    fn from(e: Error) -> Errno {
        match e {
            Error::Interrupted(i) if i.reason == Reason::Deadline => Errno::ETIMEDOUT,
            Error::Interrupted(_) => Errno::ECANCELED,
            Error::Os(errno) => errno,
        }
    }
}

/// `TimedOut` for a deadline, else `Other`, the typed value inside; never `ErrorKind::Interrupted`, which std retries for ever.
impl From<Interrupted> for io::Error {
    fn from(i: Interrupted) -> Self {
        let kind = if i.reason == Reason::Deadline { io::ErrorKind::TimedOut } else { io::ErrorKind::Other };
        io::Error::new(kind, i)
    }
}

impl From<Error> for io::Error {
    fn from(e: Error) -> Self {
        match e {
            Error::Interrupted(i) => i.into(),
            Error::Os(e) => e.into(),
        }
    }
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.reason {
            Reason::Remote => "interrupted by a remote",
            Reason::Deadline => "the deadline has passed",
            Reason::Signal => "interrupted by a signal",
        })
    }
}

impl StdError for Interrupted {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Interrupted(i) => fmt::Display::fmt(i, f),
            Error::Os(e) => fmt::Display::fmt(e, f),
        }
    }
}

/// `source()` is the `Interrupted` or the `Errno`.
impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Error::Interrupted(i) => Some(i),
            Error::Os(e) => Some(e),
        }
    }
}

/// Why a scope could not be entered; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnterError {
    signal: Signal,
    why: Refusal,
}

impl EnterError {
    pub(crate) const fn new(signal: Signal, why: Refusal) -> EnterError {
        EnterError { signal, why }
    }

    /// The signal asked for.
    pub const fn signal(self) -> Signal {
        self.signal
    }

    /// The reason.
    pub const fn why(self) -> Refusal {
        self.why
    }
}

/// Why a signal was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// SIGKILL, SIGSTOP: cannot be caught.
    Uncatchable,
    /// SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT: mean a fault.
    Fault,
    /// SIGTSTP, SIGTTIN, SIGTTOU: their default, to stop, cannot be chained.
    Stop,
    /// Its action is to be ignored; see [`ScopeOptions::allow_ignored`](crate::ScopeOptions::allow_ignored).
    Ignored,
    /// Kept by the C library (below `SIGRTMIN`).
    Reserved,
    /// No such signal.
    OutOfRange,
    /// The kernel or the C library refused: the action (sigaction(2)), a fork handler (pthread_atfork(3)), or a key for the ends of threads
    /// (pthread_key_create(3), `EAGAIN`), or a timer for the deadline (timer_create(2), `EAGAIN`: RLIMIT_SIGPENDING).
    Os(Errno),
}

/// "SIGKILL cannot be caught; take SIGUSR1, SIGUSR2 or a real-time signal": what, why, what instead.
impl fmt::Display for EnterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let instead = "take SIGUSR1, SIGUSR2 or a real-time signal";
        let signal = self.signal;
        match self.why {
            Refusal::Uncatchable => write!(f, "{signal} cannot be caught; {instead}"),
            Refusal::Fault => write!(f, "{signal} means a fault of the program; {instead}"),
            Refusal::Stop => {
                write!(f, "{signal} stops the process by default, which a scope cannot pass on; {instead}")
            }
            Refusal::Ignored => write!(
                f,
                "{signal} is ignored, and with a handler in its place every thread's poll and sleep would see EINTR; take a signal that \
                 is not ignored, say Signal::unused(), or allow this one by ScopeOptions::allow_ignored"
            ),
            Refusal::Reserved => write!(f, "{signal} is kept by the C library; take Signal::rt(0) or above"),
            Refusal::OutOfRange => write!(f, "{signal} does not exist; {instead}"),
            Refusal::Os(errno) => write!(
                f,
                "{signal} could not be taken over: {errno}; allow sigaction(2) if a filter forbids it, free a pthread key if none is left, or \
                 raise RLIMIT_SIGPENDING if there is no timer for the deadline"
            ),
        }
    }
}

/// `source()` is the `Errno`, if the kernel refused.
impl StdError for EnterError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.why {
            Refusal::Os(e) => Some(e),
            _ => None,
        }
    }
}

/// Of the kind of the `Errno` if the kernel refused, else `InvalidInput`; the typed value inside.
impl From<EnterError> for io::Error {
    fn from(e: EnterError) -> Self {
        let kind = match e.why {
            Refusal::Os(errno) => io::Error::from(errno).kind(),
            _ => io::ErrorKind::InvalidInput,
        };
        io::Error::new(kind, e)
    }
}

/// Somebody replaced the action of this signal while the scope lived; theirs was left in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaveError {
    /// The signal.
    pub signal: Signal,
}

impl fmt::Display for LeaveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the action of {} was replaced while the scope lived; the replacement was left in place", self.signal)
    }
}

impl StdError for LeaveError {}
