//! Signal numbers, and which of them a scope may take.

use crate::error::Refusal;
use crate::kernel::{action, mask};
use libc::c_int;
use once_cell::race::OnceNonZeroUsize;
use std::fmt;
use std::num::NonZeroUsize;

/// The last signal number (`include/uapi/asm-generic/signal.h`, _NSIG).
const LAST: c_int = 64;
/// The first real-time number of the kernel; libc keeps some for itself and says where the rest begins (signal(7), SIGRTMIN).
const FIRST_REAL_TIME: c_int = 32;

/// A signal number, real-time ones too; whether a scope may take it is said by [`Scope::enter`](crate::Scope::enter).
///
/// Real-time numbers are the better choice for a scope: the kernel never merges them with anybody else's.
///
/// ```
/// use eintr::Signal;
/// assert_eq!(Signal::from(libc::SIGUSR1).to_string(), "SIGUSR1");
/// assert_eq!(Signal::rt(3).to_string(), "SIGRTMIN+3");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Signal(c_int);

impl Signal {
    /// `SIGRTMIN + n`. Above `SIGRTMAX` it is a number that every scope refuses.
    pub fn rt(n: u8) -> Signal {
        Signal(libc::SIGRTMIN() + c_int::from(n))
    }

    /// The highest real-time signal whose action was the default when first asked; the same answer for the life of the process. `None`: all are
    /// taken. Nothing reserves it: two libraries that ask get the same number, which scopes share without harm.
    pub fn unused() -> Option<Signal> {
        static ANSWER: OnceNonZeroUsize = OnceNonZeroUsize::new();
        let answer = ANSWER.get_or_init(|| {
            let there_are = mask::measure(); // fewer under an emulator
            let is_default = |n| action::current(n).is_ok_and(|a| a.is_default());
            let free = (libc::SIGRTMIN()..=LAST).rev().find(|n| there_are.has(*n) && is_default(*n));
            free.and_then(|n| NonZeroUsize::new(n as usize)).unwrap_or(NonZeroUsize::MAX)
        });
        (answer != NonZeroUsize::MAX).then_some(Signal(answer.get() as c_int))
    }

    /// The number.
    pub const fn as_raw(self) -> c_int {
        self.0
    }

    /// Below the real-time numbers: one place in a queue, so the kernel merges.
    pub(crate) const fn is_standard(self) -> bool {
        self.0 < FIRST_REAL_TIME
    }

    /// What SIG_DFL ignores (signal(7)).
    pub(crate) const fn is_ignored_by_default(self) -> bool {
        matches!(self.0, libc::SIGCHLD | libc::SIGURG | libc::SIGWINCH | libc::SIGCONT)
    }

    /// Whether a scope may take it, whatever its action is.
    pub(crate) fn judge(self) -> Result<(), Refusal> {
        match self.0 {
            libc::SIGKILL | libc::SIGSTOP => Err(Refusal::Uncatchable),
            libc::SIGSEGV
            | libc::SIGBUS
            | libc::SIGFPE
            | libc::SIGILL
            | libc::SIGTRAP
            | libc::SIGSYS
            | libc::SIGABRT => Err(Refusal::Fault),
            libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => Err(Refusal::Stop),
            n if !(1..=LAST).contains(&n) => Err(Refusal::OutOfRange),
            n if n >= FIRST_REAL_TIME && n < libc::SIGRTMIN() => Err(Refusal::Reserved),
            _ => Ok(()),
        }
    }
}

impl From<c_int> for Signal {
    fn from(n: c_int) -> Signal {
        Signal(n)
    }
}

impl From<nix::sys::signal::Signal> for Signal {
    fn from(s: nix::sys::signal::Signal) -> Signal {
        Signal(s as c_int)
    }
}

/// `SIGUSR1`, `SIGRTMIN+3`; any other number as `signal 77`.
impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Ok(standard) = nix::sys::signal::Signal::try_from(self.0) {
            return f.write_str(standard.as_str());
        }
        match self.0 {
            n if n == libc::SIGRTMIN() => f.write_str("SIGRTMIN"),
            n if (libc::SIGRTMIN()..=LAST).contains(&n) => write!(f, "SIGRTMIN+{}", n - libc::SIGRTMIN()),
            n => write!(f, "signal {n}"),
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
