//! Waiting for signals that are not handled but taken.
//!
//! # Safety
//! What the kernel reads and writes are locals.

use crate::kernel::mask::Mask;
use crate::kernel::stub::window::{Door, call};
use libc::{siginfo_t, timespec};
use nix::errno::Errno;
use std::mem::MaybeUninit;

/// `int rt_sigtimedwait(const sigset_t *set, siginfo_t *info, const struct timespec *timeout, size_t size)`, sigtimedwait(2). `EAGAIN` when the time
/// is up.
pub(crate) fn rt_sigtimedwait(door: Door<'_>, set: Mask, timeout: Option<timespec>) -> Result<siginfo_t, Errno> {
    let mut info = MaybeUninit::<siginfo_t>::zeroed();
    let time = timeout.as_ref().map_or(0, |t| &raw const *t as usize);
    let args = [&raw const set as usize, info.as_mut_ptr() as usize, time, size_of::<Mask>(), 0, 0];
    // SAFETY: `set` is a local of 8 bytes, which is the size passed; `info` is a writable siginfo_t; `time` is null or points to a local.
    unsafe { call(door, libc::SYS_rt_sigtimedwait, args) }?;
    // SAFETY: zeros are a valid siginfo_t, and the kernel has written into it what is one too.
    Ok(unsafe { info.assume_init() })
}
