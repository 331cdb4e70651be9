//! Messages of a socket, with everything that a `struct msghdr` can say.
//!
//! # Safety
//! Each function here is called by the `unsafe fn` of its name in `sys` alone, whose caller vouches for the pointers in the messages; they are safe
//! to name, since that layer has no `unsafe` blocks. Descriptors are borrowed for the call.

use crate::kernel::stub::window::{Door, call};
use nix::errno::Errno;
use nix::sys::socket::MsgFlags;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `ssize_t recvmsg(int sockfd, struct msghdr *msg, int flags)`, recvmsg(2).
pub(crate) fn recvmsg(
    door: Door<'_>,
    fd: BorrowedFd<'_>,
    msg: &mut libc::msghdr,
    flags: MsgFlags,
) -> Result<usize, Errno> {
    let args = [fd.as_raw_fd() as usize, &raw mut *msg as usize, flags.bits() as usize, 0, 0, 0];
    // SAFETY: `msg` may be written, and the caller of `sys::recvmsg` vouches for what it names.
    unsafe { call(door, libc::SYS_recvmsg, args) }
}

/// `ssize_t sendmsg(int sockfd, const struct msghdr *msg, int flags)`, sendmsg(2).
pub(crate) fn sendmsg(door: Door<'_>, fd: BorrowedFd<'_>, msg: &libc::msghdr, flags: MsgFlags) -> Result<usize, Errno> {
    let args = [fd.as_raw_fd() as usize, &raw const *msg as usize, flags.bits() as usize, 0, 0, 0];
    // SAFETY: the kernel reads `msg`, and the caller of `sys::sendmsg` vouches for what it names.
    unsafe { call(door, libc::SYS_sendmsg, args) }
}

/// `int recvmmsg(int sockfd, struct mmsghdr *msgvec, unsigned int vlen, int flags, struct timespec *timeout)`, recvmmsg(2), without the time-out,
/// which is looked at between messages only.
pub(crate) fn recvmmsg(
    door: Door<'_>,
    fd: BorrowedFd<'_>,
    msgs: &mut [libc::mmsghdr],
    flags: MsgFlags,
) -> Result<usize, Errno> {
    let args = [fd.as_raw_fd() as usize, msgs.as_mut_ptr() as usize, length(msgs), flags.bits() as usize, 0, 0];
    // SAFETY: `msgs` may be written, and the caller of `sys::recvmmsg` vouches for what they name.
    unsafe { call(door, libc::SYS_recvmmsg, args) }
}

/// `int sendmmsg(int sockfd, struct mmsghdr *msgvec, unsigned int vlen, int flags)`, sendmmsg(2).
pub(crate) fn sendmmsg(
    door: Door<'_>,
    fd: BorrowedFd<'_>,
    msgs: &mut [libc::mmsghdr],
    flags: MsgFlags,
) -> Result<usize, Errno> {
    let args = [fd.as_raw_fd() as usize, msgs.as_mut_ptr() as usize, length(msgs), flags.bits() as usize, 0, 0];
    // SAFETY: the lengths in `msgs` may be written, and the caller of `sys::sendmmsg` vouches for what they name.
    unsafe { call(door, libc::SYS_sendmmsg, args) }
}

/// The kernel takes 32 bits of it, and no more than 1,024 messages anyway.
fn length(msgs: &[libc::mmsghdr]) -> usize {
    msgs.len().min(u32::MAX as usize)
}
