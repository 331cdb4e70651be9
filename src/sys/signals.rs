//! Waiting for signals that are not handled but taken.

use super::Result;
use super::countdown::Countdown;
use crate::engine::op;
use crate::kernel::calls::signals;
use crate::kernel::clock;
use crate::kernel::mask::Mask;
use nix::errno::Errno;
use std::time::Duration;

/// Waits until a signal of `set` is queued for the thread or the process, and takes it; `None` when the time is up. See sigtimedwait(2).
///
/// The set is libc's, since nix's has no real-time signals. The numbers of live scopes are left out of it: the interrupt itself would be the result.
/// So what others send on such a number is not taken here, even if it was blocked before the scope. As always the caller has blocked the signals of
/// the set; a zero time-out looks, `None` waits for ever. Signals outside of the set run their handlers and do not end the wait.
///
/// # Errors
/// The interrupt.
pub fn sigtimedwait(set: &libc::sigset_t, timeout: Option<Duration>) -> Result<Option<libc::siginfo_t>> {
    let set = Mask::from(set).except(op::numbers());
    let mut time = Countdown::of(timeout.map(clock::length));
    op::run(|door| match signals::rt_sigtimedwait(door, set, time.left()) {
        Err(Errno::EAGAIN) => Ok(None),
        answer => answer.map(Some),
    })
}
