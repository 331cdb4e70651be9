//! Opening, locking and syncing files, and what only ioctl(2) can say.
//!
//! There is no `close`: it is never interruptible. After an EINTR the descriptor is closed already, and a second try would close somebody else's.

use super::Result;
use crate::engine::op;
use crate::error::Error;
use crate::kernel::calls::files;
use libc::{c_int, c_ulong};
use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FlockArg, OFlag};
use nix::sys::mman::MsFlags;
use nix::sys::stat::Mode;
use std::ffi::c_void;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;

/// Opens a file. Of a FIFO it waits for the other end. See open(2).
///
/// The descriptor is closed by exec with `O_CLOEXEC` only, as the flags say. `mode` counts where `O_CREAT` or `O_TMPFILE` makes a file.
///
/// # Errors
/// The interrupt; no descriptor was made. The kernel's: `EACCES`, `EEXIST`, `ENOENT`, `ENXIO` for a FIFO without a reader under `O_NONBLOCK`,
/// `EMFILE`, and others. `EINVAL` for a path with a NUL in it.
pub fn open<P: ?Sized + NixPath>(path: &P, flags: OFlag, mode: Mode) -> Result<OwnedFd> {
    path.with_nix_path(|path| op::run(|door| files::openat(door, None, path, flags, mode)))?
}

/// [`open`] of a path that is relative to the directory `dir`. See openat(2).
///
/// # Errors
/// As [`open`]; `EBADF`, `ENOTDIR` for a `dir` that is none, if the path is relative.
pub fn openat<Fd: AsFd, P: ?Sized + NixPath>(dir: Fd, path: &P, flags: OFlag, mode: Mode) -> Result<OwnedFd> {
    let dir = dir.as_fd();
    path.with_nix_path(|path| op::run(|door| files::openat(door, Some(dir), path, flags, mode)))?
}

/// Brings a file's data and metadata to the device. See fsync(2).
///
/// Local file systems look at no signal here: an interrupt that comes meanwhile stays pending.
///
/// # Errors
/// The interrupt; how much has reached the device is not known. The kernel's: `EBADF`, `EINVAL` for what cannot be synced, `EIO`, `ENOSPC`,
/// `EDQUOT`, `EROFS`.
pub fn fsync<Fd: AsFd>(fd: Fd) -> Result<()> {
    let fd = fd.as_fd();
    op::run(|door| files::fsync(door, fd))
}

/// [`fsync`] without the metadata that reading the data does not need. See fdatasync(2).
///
/// # Errors
/// As [`fsync`].
pub fn fdatasync<Fd: AsFd>(fd: Fd) -> Result<()> {
    let fd = fd.as_fd();
    op::run(|door| files::fdatasync(door, fd))
}

/// Brings `length` bytes of a mapped file from `addr` on to the device. See msync(2).
///
/// Local file systems look at no signal here, as in [`fsync`].
///
/// # Errors
/// As [`fsync`]; `EINVAL` for an address that is not a multiple of the page size, or both of `MS_ASYNC` and `MS_SYNC`; `ENOMEM` for what is not
/// mapped; `EBUSY` for locked memory with `MS_INVALIDATE`.
///
/// # Safety
/// With `MS_INVALIDATE` nobody relies on the bytes of the range staying as they are.
// The signature alone: what is unsafe lies in the kernel layer.
#[allow(unsafe_code)]
pub unsafe fn msync(addr: NonNull<c_void>, length: usize, flags: MsFlags) -> Result<()> {
    op::run(|door| files::msync(door, addr, length, flags))
}

/// Takes, changes or gives back the lock of a whole open file. See flock(2).
///
/// # Errors
/// The interrupt; the lock was not taken, but one of the other kind that was to be changed is gone, as flock(2) says under EINTR and EWOULDBLOCK.
/// The kernel's: `EWOULDBLOCK` of the kinds that do not wait, `EBADF`, `ENOLCK`.
pub fn flock<Fd: AsFd>(fd: Fd, arg: FlockArg) -> Result<()> {
    let operation = match arg {
        FlockArg::LockShared => libc::LOCK_SH,
        FlockArg::LockExclusive => libc::LOCK_EX,
        FlockArg::LockSharedNonblock => libc::LOCK_SH | libc::LOCK_NB,
        FlockArg::LockExclusiveNonblock => libc::LOCK_EX | libc::LOCK_NB,
        _ => libc::LOCK_UN, // `Unlock`, and its deprecated twin
    };
    let fd = fd.as_fd();
    op::run(|door| files::flock(door, fd, operation))
}

/// Takes or gives back the lock of a range of a file: `F_SETLKW` and `F_OFD_SETLKW`, which wait, `F_SETLK` and `F_OFD_SETLK`, which do not. See
/// fcntl_locking(2).
///
/// Anything else that fcntl(2) can do never waits, and is refused.
///
/// # Errors
/// The interrupt; the lock was not taken. The kernel's: `EAGAIN` or `EACCES` of the kinds that do not wait, `EDEADLK`, `EBADF`, `ENOLCK`, `EINVAL`.
/// `EINVAL` for what is no request for a lock.
pub fn fcntl_lock<Fd: AsFd>(fd: Fd, arg: FcntlArg<'_>) -> Result<()> {
    let (op, lock) = match arg {
        FcntlArg::F_SETLK(lock) => (libc::F_SETLK, lock),
        FcntlArg::F_SETLKW(lock) => (libc::F_SETLKW, lock),
        FcntlArg::F_OFD_SETLK(lock) => (libc::F_OFD_SETLK, lock),
        FcntlArg::F_OFD_SETLKW(lock) => (libc::F_OFD_SETLKW, lock),
        _ => return Err(Error::Os(Errno::EINVAL)),
    };
    let fd = fd.as_fd();
    op::run(|door| files::lock(door, fd, op, lock))
}

/// Waits until a terminal has sent what was written to it. See tcdrain(3).
///
/// # Errors
/// The interrupt; what was written goes out all the same. The kernel's: `EBADF`, `ENOTTY`, `EIO` in a process group that is orphaned.
pub fn tcdrain<Fd: AsFd>(fd: Fd) -> Result<()> {
    let fd = fd.as_fd();
    op::run(|door| files::tcdrain(door, fd))
}

/// Makes the request of a device, with an argument that is a number or an address: what the kernel returns. See ioctl(2).
///
/// After a signal that is not ours the request is made again, so a time-out in it starts afresh.
///
/// # Errors
/// The interrupt; whether the request did nothing then is the device's affair. The kernel's: `EBADF`, `EFAULT`, `EINVAL`, `ENOTTY`, and the
/// device's own.
///
/// # Safety
/// The argument must be what the request asks for, and what the request does must be sound.
// The signature alone: what is unsafe lies in the kernel layer.
#[allow(unsafe_code)]
pub unsafe fn ioctl<Fd: AsFd>(fd: Fd, request: c_ulong, arg: usize) -> Result<c_int> {
    let fd = fd.as_fd();
    op::run(|door| files::ioctl(door, fd, request, arg))
}
