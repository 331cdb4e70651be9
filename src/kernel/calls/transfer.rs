//! Bytes from the kernel's generator, and from one descriptor to another.
//!
//! # Safety
//! Descriptors are borrowed for the call, buffers are slices of the length that is passed, offsets are null or exclusively borrowed; the kernel
//! writes them when bytes have moved.

use crate::kernel::stub::window::{Door, call};
use nix::errno::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `ssize_t getrandom(void *buf, size_t length, unsigned flags)`, getrandom(2).
pub(crate) fn getrandom(door: Door<'_>, buf: &mut [u8], flags: u32) -> Result<usize, Errno> {
    let args = [buf.as_mut_ptr() as usize, buf.len(), flags as usize, 0, 0, 0];
    // SAFETY: `buf` is writable for its length.
    unsafe { call(door, libc::SYS_getrandom, args) }
}

/// One end of a transfer: a descriptor, and where in it; without an offset where it stands.
#[derive(Debug)]
pub(crate) struct End<'a> {
    pub(crate) fd: BorrowedFd<'a>,
    pub(crate) offset: Option<&'a mut i64>,
}

impl End<'_> {
    fn args(&mut self) -> [usize; 2] {
        let offset = self.offset.as_deref_mut().map_or(0, |o| &raw mut *o as usize);
        [self.fd.as_raw_fd() as usize, offset]
    }
}

/// `ssize_t splice(int in, off_t *in_offset, int out, off_t *out_offset, size_t length, unsigned flags)`, splice(2).
pub(crate) fn splice(
    door: Door<'_>,
    input: &mut End<'_>,
    output: &mut End<'_>,
    length: usize,
    flags: u32,
) -> Result<usize, Errno> {
    let ([from, from_at], [to, to_at]) = (input.args(), output.args());
    // SAFETY: the offsets are null or exclusively borrowed.
    unsafe { call(door, libc::SYS_splice, [from, from_at, to, to_at, length, flags as usize]) }
}

/// `ssize_t tee(int in, int out, size_t length, unsigned flags)`, tee(2).
pub(crate) fn tee(
    door: Door<'_>,
    input: BorrowedFd<'_>,
    output: BorrowedFd<'_>,
    length: usize,
    flags: u32,
) -> Result<usize, Errno> {
    let args = [input.as_raw_fd() as usize, output.as_raw_fd() as usize, length, flags as usize, 0, 0];
    // SAFETY: tee(2) takes no pointer.
    unsafe { call(door, libc::SYS_tee, args) }
}

/// `ssize_t sendfile(int out, int in, off_t *in_offset, size_t length)`, sendfile(2).
pub(crate) fn sendfile(
    door: Door<'_>,
    output: BorrowedFd<'_>,
    input: &mut End<'_>,
    length: usize,
) -> Result<usize, Errno> {
    let [from, from_at] = input.args();
    // SAFETY: the offset is null or exclusively borrowed.
    unsafe { call(door, libc::SYS_sendfile, [output.as_raw_fd() as usize, from, from_at, length, 0, 0]) }
}

/// `ssize_t copy_file_range(int in, off_t *in_offset, int out, off_t *out_offset, size_t length, unsigned flags)`, copy_file_range(2), without flags.
pub(crate) fn copy_file_range(
    door: Door<'_>,
    input: &mut End<'_>,
    output: &mut End<'_>,
    length: usize,
) -> Result<usize, Errno> {
    let ([from, from_at], [to, to_at]) = (input.args(), output.args());
    // SAFETY: the offsets are null or exclusively borrowed.
    unsafe { call(door, libc::SYS_copy_file_range, [from, from_at, to, to_at, length, 0]) }
}
