//! Any call, by its number, and the numbers that must not go through the stub.
//!
//! # Safety
//! [`by_number`] is for the `unsafe fn` of `sys` alone, whose own caller answers for the arguments.

#[cfg(target_arch = "aarch64")]
use super::aarch64 as here;
#[cfg(target_arch = "x86_64")]
use super::x86_64 as here;
use crate::kernel::stub::window::{Door, call};
use libc::c_long;
use nix::errno::Errno;

/// By why they are refused.
const REFUSED: &[&[c_long]] = &[
    // After EINTR the descriptor is closed all the same (close(2)): made again, the call closes somebody else's.
    &[libc::SYS_close, libc::SYS_close_range],
    // They do not come back, and the thread's record, scopes and timer would be left behind.
    &[libc::SYS_exit, libc::SYS_exit_group, libc::SYS_execve, libc::SYS_execveat],
    // Takes a frame of the kernel's from the stack, where the stub's is.
    &[libc::SYS_rt_sigreturn],
    // They come back twice, the second time on another stack or on this one at the same time, and no fork handler runs. fork(2) is never interrupted.
    &[libc::SYS_clone, libc::SYS_clone3],
    // To be ended by any signal is what they are for: made again after EINTR they never end.
    &[libc::SYS_rt_sigsuspend],
    // Goes on with a call that the kernel alone knows; called by hand it answers EINTR, for ever.
    &[libc::SYS_restart_syscall],
    here::REFUSED,
];

/// Numbers from this bit on are of the x32 ABI, whose structures are others. The kernel reads no more than 32 bits of a number
/// (`arch/x86/entry/syscall_64.c`, `do_syscall_64`; `arch/arm64/kernel/syscall.c`, `do_el0_svc`).
const OF_ANOTHER_ABI: u32 = 0x4000_0000;

/// Whether the call must not be made.
pub(crate) fn is_refused(nr: c_long) -> bool {
    let nr = nr as u32;
    nr >= OF_ANOTHER_ABI || REFUSED.iter().copied().flatten().any(|refused| *refused as u32 == nr)
}

/// `long syscall(long number, ...)`, syscall(2).
pub(crate) fn by_number(door: Door<'_>, nr: c_long, args: [usize; 6]) -> Result<usize, Errno> {
    // SAFETY: whoever calls `sys::syscall` answers for the arguments, by its contract; the numbers that break the stub are refused there.
    unsafe { call(door, nr, args) }
}
