//! Waiting for children.
//!
//! # Safety
//! What the kernel writes are locals.

use crate::kernel::stub::window::{Door, call};
use libc::{c_int, pid_t, siginfo_t};
use nix::errno::Errno;
use std::mem::MaybeUninit;

/// `pid_t wait4(pid_t pid, int *status, int options, struct rusage *usage)`, wait4(2), without usage. The child and its status; 0 and 0 if there is
/// none yet, under WNOHANG.
pub(crate) fn wait4(door: Door<'_>, pid: pid_t, options: c_int) -> Result<(pid_t, c_int), Errno> {
    let mut status = 0;
    let args = [pid as usize, &raw mut status as usize, options as usize, 0, 0, 0];
    // SAFETY: `status` is a local; no usage is asked for.
    let child = unsafe { call(door, libc::SYS_wait4, args) }?;
    Ok((child as pid_t, status))
}

/// `int waitid(idtype_t type, id_t id, siginfo_t *info, int options, struct rusage *usage)`, waitid(2), without usage. All zeros if there is none
/// yet, under WNOHANG.
pub(crate) fn waitid(door: Door<'_>, kind: libc::idtype_t, id: u32, options: c_int) -> Result<siginfo_t, Errno> {
    let mut info = MaybeUninit::<siginfo_t>::zeroed();
    let args = [kind as usize, id as usize, info.as_mut_ptr() as usize, options as usize, 0, 0];
    // SAFETY: `info` is a writable siginfo_t; no usage is asked for.
    unsafe { call(door, libc::SYS_waitid, args) }?;
    // SAFETY: zeros are a valid siginfo_t, and the kernel has written into it what is one too.
    Ok(unsafe { info.assume_init() })
}
