//! Bytes in and out of a descriptor.
//!
//! # Safety
//! Descriptors are borrowed for the call. Buffers are slices of the length that is passed; `IoSlice` and `IoSliceMut` have the layout of
//! `struct iovec` (std documents it), so a slice of them is an array of those, each valid for its length as long as it is borrowed.

use crate::kernel::calls::net;
use crate::kernel::calls::time_left::Mode;
use crate::kernel::stub::window::{Door, call};
use nix::errno::Errno;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd};

/// `ssize_t read(int fd, void *buf, size_t count)`, read(2).
#[inline]
pub(crate) fn read(door: Door<'_>, fd: BorrowedFd<'_>, buf: &mut [u8], mode: Mode) -> Result<usize, Errno> {
    // Of nothing at all read(2) answers 0 without looking, where recv(2) would take a datagram.
    if mode == Mode::AtOnce && !buf.is_empty() {
        return net::recv(door, fd, buf, mode.flag());
    }
    let args = [fd.as_raw_fd() as usize, buf.as_mut_ptr() as usize, buf.len(), 0, 0, 0];
    // SAFETY: `buf` is writable for its length, and the descriptor is open as long as it is borrowed.
    unsafe { call(door, libc::SYS_read, args) }
}

/// `ssize_t write(int fd, const void *buf, size_t count)`, write(2).
#[inline]
pub(crate) fn write(door: Door<'_>, fd: BorrowedFd<'_>, buf: &[u8], mode: Mode) -> Result<usize, Errno> {
    if mode == Mode::AtOnce {
        return net::write_at_once(door, fd, &[IoSlice::new(buf)]);
    }
    let args = [fd.as_raw_fd() as usize, buf.as_ptr() as usize, buf.len(), 0, 0, 0];
    // SAFETY: `buf` is readable for its length, and the descriptor is open as long as it is borrowed.
    unsafe { call(door, libc::SYS_write, args) }
}

/// `ssize_t readv(int fd, const struct iovec *iov, int iovcnt)`, readv(2).
#[inline]
pub(crate) fn readv(
    door: Door<'_>,
    fd: BorrowedFd<'_>,
    iov: &mut [IoSliceMut<'_>],
    mode: Mode,
) -> Result<usize, Errno> {
    if mode == Mode::AtOnce && iov.iter().any(|buf| !buf.is_empty()) {
        return net::read_at_once(door, fd, iov);
    }
    let args = [fd.as_raw_fd() as usize, iov.as_mut_ptr() as usize, iov.len(), 0, 0, 0];
    // SAFETY: `iov` is an array of iovecs of that length, each writable for its length, and the descriptor is borrowed.
    unsafe { call(door, libc::SYS_readv, args) }
}

/// `ssize_t writev(int fd, const struct iovec *iov, int iovcnt)`, writev(2).
#[inline]
pub(crate) fn writev(door: Door<'_>, fd: BorrowedFd<'_>, iov: &[IoSlice<'_>], mode: Mode) -> Result<usize, Errno> {
    if mode == Mode::AtOnce {
        return net::write_at_once(door, fd, iov);
    }
    let args = [fd.as_raw_fd() as usize, iov.as_ptr() as usize, iov.len(), 0, 0, 0];
    // SAFETY: `iov` is an array of iovecs of that length, each readable for its length, and the descriptor is borrowed.
    unsafe { call(door, libc::SYS_writev, args) }
}

/// `ssize_t pread(int fd, void *buf, size_t count, off_t offset)`, pread(2).
#[inline]
pub(crate) fn pread(door: Door<'_>, fd: BorrowedFd<'_>, buf: &mut [u8], offset: libc::off_t) -> Result<usize, Errno> {
    let args = [fd.as_raw_fd() as usize, buf.as_mut_ptr() as usize, buf.len(), offset as usize, 0, 0];
    // SAFETY: `buf` is writable for its length, and the descriptor is open as long as it is borrowed.
    unsafe { call(door, libc::SYS_pread64, args) }
}

/// `ssize_t pwrite(int fd, const void *buf, size_t count, off_t offset)`, pwrite(2).
#[inline]
pub(crate) fn pwrite(door: Door<'_>, fd: BorrowedFd<'_>, buf: &[u8], offset: libc::off_t) -> Result<usize, Errno> {
    let args = [fd.as_raw_fd() as usize, buf.as_ptr() as usize, buf.len(), offset as usize, 0, 0];
    // SAFETY: `buf` is readable for its length, and the descriptor is open as long as it is borrowed.
    unsafe { call(door, libc::SYS_pwrite64, args) }
}

/// `ssize_t preadv(int fd, const struct iovec *iov, int iovcnt, off_t offset)`, preadv(2). The kernel takes the offset in two halves, of which a
/// 64-bit one looks at the first alone (`fs/read_write.c`, pos_from_hilo).
#[inline]
pub(crate) fn preadv(
    door: Door<'_>,
    fd: BorrowedFd<'_>,
    iov: &mut [IoSliceMut<'_>],
    offset: libc::off_t,
) -> Result<usize, Errno> {
    let args = [fd.as_raw_fd() as usize, iov.as_mut_ptr() as usize, iov.len(), offset as usize, 0, 0];
    // SAFETY: `iov` is an array of iovecs of that length, each writable for its length, and the descriptor is borrowed.
    unsafe { call(door, libc::SYS_preadv, args) }
}

/// `ssize_t pwritev(int fd, const struct iovec *iov, int iovcnt, off_t offset)`, pwritev(2). The offset as in [`preadv`].
#[inline]
pub(crate) fn pwritev(
    door: Door<'_>,
    fd: BorrowedFd<'_>,
    iov: &[IoSlice<'_>],
    offset: libc::off_t,
) -> Result<usize, Errno> {
    let args = [fd.as_raw_fd() as usize, iov.as_ptr() as usize, iov.len(), offset as usize, 0, 0];
    // SAFETY: `iov` is an array of iovecs of that length, each readable for its length, and the descriptor is borrowed.
    unsafe { call(door, libc::SYS_pwritev, args) }
}
