//! Looking for an interrupt, and calling again what another signal broke.

use crate::atomic::SeqCst;
use crate::engine::record::Record;
use crate::engine::{acknowledge, deadline, fork, nested};
use crate::error::{Error, Interrupted};
use nix::errno::Errno;

/// Fails if an interrupt is pending for this thread and not shielded; for loops that compute. Acknowledges it when it fails, but not in a signal handler that has
/// interrupted a call of [`sys`](crate::sys): that call is still to be ended.
///
/// # Errors
/// [`Interrupted`], with the outermost scope's reason; again and again until [`clear`](crate::Scope::clear) or the end of the scope.
pub fn check() -> Result<(), Interrupted> {
    fork::check();
    let Some(record) = Record::current() else { return Ok(()) };
    nested::look(record);
    if record.window.pending.load(SeqCst) == 0 {
        deadline::notice(record);
        if record.window.pending.load(SeqCst) == 0 {
            return Ok(());
        }
    }
    match acknowledge::owner(record) {
        Some(interrupted) => {
            acknowledge::acknowledge(record);
            Err(interrupted)
        }
        None => Ok(()),
    }
}

/// Calls `op` again as long as a signal that is not ours breaks it; ends when it succeeds, fails otherwise, or an interrupt is pending. Looks before
/// the first call, too. Never lets EINTR out.
///
/// For plain calls, of nix, std or C. An interrupt that comes between the look and the call's sleep is brought by the resend, not by the first signal;
/// the functions of [`sys`](crate::sys) have no such gap, and need no `retry`. What of std comes back is in the guide.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let scope = eintr::Scope::enter(libc::SIGUSR1)?;
/// scope.remote().interrupt();
/// let answer: std::io::Result<()> = eintr::retry(|| -> std::io::Result<()> { panic!("not called: an interrupt is pending") });
/// assert!(eintr::Interrupted::find(&answer.unwrap_err()).is_some());
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// The interrupt, acknowledged, by way of the error type; or what `op` failed with.
pub fn retry<R: Outcome>(mut op: impl FnMut() -> R) -> Result<R::Ok, R::Err> {
    loop {
        check()?;
        let outcome = op();
        match outcome.os_error() {
            Some(libc::EINTR) => {}
            Some(libc::ECANCELED) => {
                check()?;
                return outcome.into_result();
            }
            _ => return outcome.into_result(),
        }
    }
}

/// Whether a scope is live on this thread and not shielded: what a library asserts in its debug build.
pub fn is_interruptible() -> bool {
    Record::current().is_some_and(|record| record.scopes().any(|place| !place.value.gate.is_held()))
}

/// What [`retry`] understands: `Result`s of nix and std, and the bare `-1` and errno of C. Implement it for your own result types.
pub trait Outcome {
    /// The value of a call that worked.
    type Ok;
    /// The error of a call that failed; an interrupt is told through it.
    type Err: From<Interrupted>;
    /// The OS error it failed with. `EINTR` is looked into by [`retry`], and `ECANCELED` while an interrupt is pending.
    fn os_error(&self) -> Option<libc::c_int>;
    /// Its outcome otherwise.
    ///
    /// # Errors
    /// What the call failed with.
    fn into_result(self) -> Result<Self::Ok, Self::Err>;
}

impl<T> Outcome for Result<T, Errno> {
    type Ok = T;
    type Err = Error;
    fn os_error(&self) -> Option<libc::c_int> {
        self.as_ref().err().map(|e| *e as libc::c_int)
    }
    fn into_result(self) -> Result<T, Error> {
        self.map_err(Error::Os)
    }
}

impl<T> Outcome for std::io::Result<T> {
    type Ok = T;
    type Err = std::io::Error;
    fn os_error(&self) -> Option<libc::c_int> {
        let e = self.as_ref().err()?;
        if e.kind() == std::io::ErrorKind::Interrupted { Some(libc::EINTR) } else { e.raw_os_error() }
    }
    fn into_result(self) -> Self {
        self
    }
}

macro_rules! bare {
    ($($int:ty),*) => { $(
        /// `-1` means: see errno.
        impl Outcome for $int {
            type Ok = $int;
            type Err = Error;
            fn os_error(&self) -> Option<libc::c_int> {
                (*self == -1).then(Errno::last_raw)
            }
            fn into_result(self) -> Result<$int, Error> {
                if self == -1 { Err(Error::Os(Errno::last())) } else { Ok(self) }
            }
        }
    )* };
}
bare!(i32, i64, isize);
