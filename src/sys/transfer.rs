//! Bytes from the kernel's generator, and from one descriptor to another.

use super::Result;
use crate::engine::op;
use crate::kernel::calls::time_left::TimeLeft;
use crate::kernel::calls::transfer::{self, End};
use libc::off_t;
use nix::errno::Errno;
use nix::fcntl::SpliceFFlags;
use std::os::fd::AsFd;

/// Fills `buf` with random bytes; how many were written. See getrandom(2).
///
/// Up to 256 bytes come whole, once the generator is ready. Of more, a signal of anybody's may leave fewer; those are returned, and an interrupt
/// stays pending for the next call.
///
/// # Errors
/// The interrupt, if nothing was written. The kernel's: `EAGAIN` with GRND_NONBLOCK before the generator is ready, `EINVAL` for other flags.
pub fn getrandom(buf: &mut [u8], flags: u32) -> Result<usize> {
    op::run(|door| transfer::getrandom(door, buf, flags))
}

/// Moves up to `len` bytes between a pipe and another descriptor, one of the two being a pipe; how many, 0 at the end. See splice(2).
///
/// An offset is for the side that is no pipe: it is used instead of the file's own, and moved on by what was moved. Bytes that were moved are
/// returned; an interrupt that came with them stays pending. A socket's time-out, which is counted from when
/// the pipe is ready, starts afresh after other people's signals.
///
/// # Errors
/// The interrupt, if nothing was moved. The kernel's: `EAGAIN` with `SPLICE_F_NONBLOCK`, and when a socket's time is up; `EBADF`, `EINVAL` for two
/// descriptors without a pipe, or one that cannot be spliced, `ESPIPE` for an offset of a pipe, `ENOMEM`, `EPIPE`.
pub fn splice<A: AsFd, B: AsFd>(
    input: A,
    in_off: Option<&mut i64>,
    output: B,
    out_off: Option<&mut i64>,
    len: usize,
    flags: SpliceFFlags,
) -> Result<usize> {
    let mut input = End { fd: input.as_fd(), offset: in_off };
    let mut output = End { fd: output.as_fd(), offset: out_off };
    op::run(|door| transfer::splice(door, &mut input, &mut output, len, flags.bits()))
}

/// Copies up to `len` bytes from one pipe to another and leaves them in the first; how many, 0 at the end. See tee(2).
///
/// # Errors
/// The interrupt, if nothing was copied. The kernel's: `EAGAIN` with `SPLICE_F_NONBLOCK`, `EINVAL` for what is no pipe, or one and the same,
/// `EBADF`, `ENOMEM`, `EPIPE`.
pub fn tee<A: AsFd, B: AsFd>(input: A, output: B, len: usize, flags: SpliceFFlags) -> Result<usize> {
    let (input, output) = (input.as_fd(), output.as_fd());
    op::run(|door| transfer::tee(door, input, output, len, flags.bits()))
}

/// Copies up to `count` bytes from a file to any descriptor; how many, 0 at the end. See sendfile(2).
///
/// With an offset the reading begins there, the offset is moved on, and the file's own stays. Bytes that were copied are returned; an interrupt
/// that came with them stays pending. A socket's time-out goes on through other people's signals, as in [`send`](super::send).
///
/// # Errors
/// The interrupt, if nothing was copied. The kernel's: `EAGAIN` for a non-blocking `output`, and when a socket's time is up; `EBADF`, `EINVAL` for
/// an `input` that cannot be read so, `ESPIPE`, `EOVERFLOW`, `EIO`, `ENOMEM`, `EPIPE`.
pub fn sendfile<A: AsFd, B: AsFd>(output: A, input: B, offset: Option<&mut off_t>, count: usize) -> Result<usize> {
    let (output, mut input) = (output.as_fd(), End { fd: input.as_fd(), offset });
    let mut time = TimeLeft::to_send(output);
    op::run(|door| time.spend_ready(door, Errno::EAGAIN, || transfer::sendfile(door, output, &mut input, count)))
}

/// Copies up to `len` bytes from one file to another, inside the kernel or the file system; how many, 0 at the end. See copy_file_range(2).
///
/// Offsets are as for [`splice`]. Local file systems look at no signal while they copy a piece; bytes that were copied are returned.
///
/// # Errors
/// The interrupt, if nothing was copied. The kernel's: `EBADF`, `EINVAL`, `EISDIR`, `EXDEV` for two file systems that cannot do this, `EFBIG`,
/// `ENOSPC`, `EIO`, `ENOMEM`, `EOVERFLOW`, `EPERM`, `ETXTBSY`.
pub fn copy_file_range<A: AsFd, B: AsFd>(
    input: A,
    in_off: Option<&mut i64>,
    output: B,
    out_off: Option<&mut i64>,
    len: usize,
) -> Result<usize> {
    let mut input = End { fd: input.as_fd(), offset: in_off };
    let mut output = End { fd: output.as_fd(), offset: out_off };
    op::run(|door| transfer::copy_file_range(door, &mut input, &mut output, len))
}
