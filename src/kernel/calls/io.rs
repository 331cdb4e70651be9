//! Bytes in and out of a descriptor.
//!
//! # Safety
//! Descriptors are borrowed for the call, buffers are slices of the length that is passed.

use crate::kernel::stub::window::{Door, call};
use nix::errno::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `ssize_t read(int fd, void *buf, size_t count)`, read(2).
pub(crate) fn read(door: Door<'_>, fd: BorrowedFd<'_>, buf: &mut [u8]) -> Result<usize, Errno> {
    let args = [fd.as_raw_fd() as usize, buf.as_mut_ptr() as usize, buf.len(), 0, 0, 0];
    // SAFETY: `buf` is writable for its length, and the descriptor is open as long as it is borrowed.
    unsafe { call(door, libc::SYS_read, args) }
}
