//! Bytes in and out of a descriptor.
//!
//! What moved bytes says how many, whatever signals came meanwhile; an interrupt that came with them stays pending for the next call.

use super::Result;
use crate::engine::op;
use crate::kernel::calls::io;
use crate::kernel::calls::time_left::TimeLeft;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::AsFd;

/// Reads up to `buf.len()` bytes; how many, 0 at the end. See read(2).
///
/// A socket's SO_RCVTIMEO goes on through other people's signals. The time of a terminal (VTIME) starts afresh after each, as it does under
/// SA_RESTART.
///
/// # Errors
/// The interrupt, if nothing was read. The kernel's: `EAGAIN` of a non-blocking descriptor, or when a socket's time is up; `EBADF`, `EFAULT`,
/// `EINVAL`, `EIO`, `EISDIR`, and what the file's kind adds.
#[inline]
pub fn read<Fd: AsFd>(fd: Fd, buf: &mut [u8]) -> Result<usize> {
    let fd = fd.as_fd();
    let mut time = TimeLeft::to_read(fd);
    op::run(|door| time.spend(door, |mode| io::read(door, fd, buf, mode)))
}

/// Writes up to `buf.len()` bytes; how many. See write(2).
///
/// Fewer than `buf.len()` when a signal of anybody's came after some were written, or there is no room for more. Up to PIPE_BUF (4,096) bytes go
/// into a pipe whole or not at all, a datagram too. A socket's SO_SNDTIMEO goes on through other people's signals.
///
/// # Errors
/// The interrupt, if nothing was written. The kernel's: `EAGAIN` of a non-blocking descriptor, or when a socket's time is up; `EPIPE` (and
/// SIGPIPE), `EBADF`, `EFBIG`, `EINVAL`, `EIO`, `ENOSPC`, `EDQUOT`, and what the file's kind adds.
#[inline]
pub fn write<Fd: AsFd>(fd: Fd, buf: &[u8]) -> Result<usize> {
    let fd = fd.as_fd();
    let mut time = TimeLeft::to_write(fd);
    op::run(|door| time.spend(door, |mode| io::write(door, fd, buf, mode)))
}

/// [`read`] into several buffers, one after the other. See readv(2).
///
/// # Errors
/// As [`read`]; `EINVAL` for more than IOV_MAX (1,024) buffers.
#[inline]
pub fn readv<Fd: AsFd>(fd: Fd, iov: &mut [IoSliceMut<'_>]) -> Result<usize> {
    let fd = fd.as_fd();
    let mut time = TimeLeft::to_read(fd);
    op::run(|door| time.spend(door, |mode| io::readv(door, fd, iov, mode)))
}

/// [`write`](fn@write) from several buffers, one after the other. See writev(2).
///
/// # Errors
/// As [`write`](fn@write); `EINVAL` for more than IOV_MAX (1,024) buffers.
#[inline]
pub fn writev<Fd: AsFd>(fd: Fd, iov: &[IoSlice<'_>]) -> Result<usize> {
    let fd = fd.as_fd();
    let mut time = TimeLeft::to_write(fd);
    op::run(|door| time.spend(door, |mode| io::writev(door, fd, iov, mode)))
}

/// [`read`] from `offset` bytes on, counted from the beginning; the file's own offset stays where it is. See pread(2).
///
/// # Errors
/// As [`read`]; `ESPIPE` for what has no offsets (a pipe, a socket, a terminal), `EINVAL` for one below 0.
#[inline]
pub fn pread<Fd: AsFd>(fd: Fd, buf: &mut [u8], offset: libc::off_t) -> Result<usize> {
    let fd = fd.as_fd();
    op::run(|door| io::pread(door, fd, buf, offset))
}

/// [`write`](fn@write) from `offset` bytes on, counted from the beginning; the file's own offset stays where it is. With O_APPEND Linux writes at
/// the end all the same. See pwrite(2).
///
/// # Errors
/// As [`write`](fn@write); `ESPIPE` for what has no offsets (a pipe, a socket, a terminal), `EINVAL` for one below 0.
#[inline]
pub fn pwrite<Fd: AsFd>(fd: Fd, buf: &[u8], offset: libc::off_t) -> Result<usize> {
    let fd = fd.as_fd();
    op::run(|door| io::pwrite(door, fd, buf, offset))
}

/// [`pread`] into several buffers, one after the other. See preadv(2).
///
/// # Errors
/// As [`pread`]; `EINVAL` for more than IOV_MAX (1,024) buffers.
#[inline]
pub fn preadv<Fd: AsFd>(fd: Fd, iov: &mut [IoSliceMut<'_>], offset: libc::off_t) -> Result<usize> {
    let fd = fd.as_fd();
    op::run(|door| io::preadv(door, fd, iov, offset))
}

/// [`pwrite`] from several buffers, one after the other. See pwritev(2).
///
/// # Errors
/// As [`pwrite`]; `EINVAL` for more than IOV_MAX (1,024) buffers.
#[inline]
pub fn pwritev<Fd: AsFd>(fd: Fd, iov: &[IoSlice<'_>], offset: libc::off_t) -> Result<usize> {
    let fd = fd.as_fd();
    op::run(|door| io::pwritev(door, fd, iov, offset))
}
