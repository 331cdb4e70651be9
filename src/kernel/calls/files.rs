//! Opening, locking and syncing files, and what only ioctl(2) can say.
//!
//! # Safety
//! Descriptors are borrowed for the call, or AT_FDCWD; paths are C strings and lock requests references. A new descriptor has an owner before
//! anything else can happen. What takes an address or an argument of unknown kind is called by an `unsafe fn` of `sys` alone, whose caller answers
//! for it: that is said at the function.

use crate::kernel::stub::window::{Door, call};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::mman::MsFlags;
use nix::sys::stat::Mode;
use std::ffi::{CStr, c_int, c_ulong, c_void};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;

/// `int openat(int dirfd, const char *path, int flags, mode_t mode)`, openat(2). Without a directory: relative to the working directory.
pub(crate) fn openat(
    door: Door<'_>,
    dir: Option<BorrowedFd<'_>>,
    path: &CStr,
    flags: OFlag,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    let dir = dir.map_or(libc::AT_FDCWD, |dir| dir.as_raw_fd());
    let args = [dir as usize, path.as_ptr() as usize, flags.bits() as usize, mode.bits() as usize, 0, 0];
    // SAFETY: `path` ends in a NUL, and the directory is borrowed.
    let fd = unsafe { call(door, libc::SYS_openat, args) }?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// `int fsync(int fd)`, fsync(2).
pub(crate) fn fsync(door: Door<'_>, fd: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: no memory is named, and the descriptor is borrowed.
    unsafe { call(door, libc::SYS_fsync, [fd.as_raw_fd() as usize, 0, 0, 0, 0, 0]) }.map(drop)
}

/// `int fdatasync(int fd)`, fdatasync(2).
pub(crate) fn fdatasync(door: Door<'_>, fd: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: no memory is named, and the descriptor is borrowed.
    unsafe { call(door, libc::SYS_fdatasync, [fd.as_raw_fd() as usize, 0, 0, 0, 0, 0]) }.map(drop)
}

/// `int msync(void *addr, size_t length, int flags)`, msync(2). For `sys::msync` alone: its caller answers for the range.
pub(crate) fn msync(door: Door<'_>, addr: NonNull<c_void>, length: usize, flags: MsFlags) -> Result<(), Errno> {
    // SAFETY: the caller of `sys::msync` vouches for what the flags do to the range.
    unsafe { call(door, libc::SYS_msync, [addr.as_ptr() as usize, length, flags.bits() as usize, 0, 0, 0]) }.map(drop)
}

/// `int flock(int fd, int operation)`, flock(2).
pub(crate) fn flock(door: Door<'_>, fd: BorrowedFd<'_>, operation: c_int) -> Result<(), Errno> {
    // SAFETY: no memory is named, and the descriptor is borrowed.
    unsafe { call(door, libc::SYS_flock, [fd.as_raw_fd() as usize, operation as usize, 0, 0, 0, 0]) }.map(drop)
}

/// `int fcntl(int fd, int op, const struct flock *lock)`, fcntl(2), with one of the four requests for a lock.
pub(crate) fn lock(door: Door<'_>, fd: BorrowedFd<'_>, op: c_int, lock: &libc::flock) -> Result<(), Errno> {
    debug_assert!([libc::F_SETLK, libc::F_SETLKW, libc::F_OFD_SETLK, libc::F_OFD_SETLKW].contains(&op));
    let args = [fd.as_raw_fd() as usize, op as usize, &raw const *lock as usize, 0, 0, 0];
    // SAFETY: these operations read a `struct flock`, which `lock` is, and the descriptor is borrowed.
    unsafe { call(door, libc::SYS_fcntl, args) }.map(drop)
}

/// `int ioctl(int fd, unsigned long op, ...)`, ioctl(2). For `sys::ioctl`, whose caller answers for the argument, and [`tcdrain`].
pub(crate) fn ioctl(door: Door<'_>, fd: BorrowedFd<'_>, op: c_ulong, arg: usize) -> Result<c_int, Errno> {
    // SAFETY: the caller of `sys::ioctl` vouches for the argument, and the descriptor is borrowed.
    unsafe { call(door, libc::SYS_ioctl, [fd.as_raw_fd() as usize, op as usize, arg, 0, 0, 0]) }.map(|n| n as c_int)
}

/// `int tcdrain(int fd)`, tcdrain(3): TCSBRK with an argument that is not zero, which sends no break (TCSBRK(2const)).
pub(crate) fn tcdrain(door: Door<'_>, fd: BorrowedFd<'_>) -> Result<(), Errno> {
    ioctl(door, fd, libc::TCSBRK as c_ulong, 1).map(drop)
}
