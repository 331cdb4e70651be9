//! Messages of a socket, with everything that libc's `struct msghdr` can say (nix's types for it cannot be built outside of nix).

use super::Result;
use crate::engine::op;
use crate::kernel::calls::messages;
use crate::kernel::calls::time_left::TimeLeft;
use nix::sys::socket::MsgFlags;
use std::os::fd::AsFd;

/// Receives a message; how many bytes. See recvmsg(2).
///
/// Descriptors in the control data are the caller's to own, at once; with `MSG_CMSG_CLOEXEC` exec closes them.
///
/// # Errors
/// As [`recv`](super::recv); `EMSGSIZE` for more than IOV_MAX (1,024) buffers. `msg` is unchanged then.
///
/// # Safety
/// The pointers in `msg` are null or valid for their lengths: name, buffers and control data to be written, the array of buffers to be read. What
/// libc keeps there as padding is zero.
// The signature alone: what is unsafe lies in the kernel layer.
#[allow(unsafe_code)]
pub unsafe fn recvmsg<Fd: AsFd>(fd: Fd, msg: &mut libc::msghdr, flags: MsgFlags) -> Result<usize> {
    let fd = fd.as_fd();
    let mut time = TimeLeft::to_receive(fd).with(flags);
    op::run(|door| time.spend(door, |mode| messages::recvmsg(door, fd, msg, flags | mode.flag())))
}

/// Sends a message; how many bytes. See sendmsg(2).
///
/// # Errors
/// As [`sendto`](super::sendto); `EMSGSIZE` for more than IOV_MAX (1,024) buffers, `EINVAL` for control data that cannot be.
///
/// # Safety
/// As for [`recvmsg`], but everything is only read.
// The signature alone: what is unsafe lies in the kernel layer.
#[allow(unsafe_code)]
pub unsafe fn sendmsg<Fd: AsFd>(fd: Fd, msg: &libc::msghdr, flags: MsgFlags) -> Result<usize> {
    let fd = fd.as_fd();
    let mut time = TimeLeft::to_send(fd).with(flags);
    op::run(|door| time.spend(door, |mode| messages::sendmsg(door, fd, msg, flags | mode.flag())))
}

/// Receives up to `msgs.len()` messages, of which the kernel takes no more than 1,024; how many. Each one's length is in its `msg_len`. See
/// recvmmsg(2).
///
/// It waits for all of them, or with `MSG_WAITFORONE` for the first; a signal of anybody's may leave fewer. Then the kernel keeps an error on the
/// socket (`EINTR` or 512) that the next call answers: the calls here know it, others fail once. `MSG_WAITFORONE` avoids that.
///
/// # Errors
/// As [`recvmsg`], if nothing was received.
///
/// # Safety
/// As for [`recvmsg`], each of them.
// The signature alone: what is unsafe lies in the kernel layer.
#[allow(unsafe_code)]
pub unsafe fn recvmmsg<Fd: AsFd>(fd: Fd, msgs: &mut [libc::mmsghdr], flags: MsgFlags) -> Result<usize> {
    let fd = fd.as_fd();
    let mut time = TimeLeft::to_receive(fd).with(flags);
    op::run(|door| time.spend(door, |mode| messages::recvmmsg(door, fd, msgs, flags | mode.flag())))
}

/// Sends up to `msgs.len()` messages, of which the kernel takes no more than 1,024; how many. How much of each, is in its `msg_len`. See
/// sendmmsg(2).
///
/// # Errors
/// As [`sendmsg`], if nothing was sent.
///
/// # Safety
/// As for [`sendmsg`], each of them.
// The signature alone: what is unsafe lies in the kernel layer.
#[allow(unsafe_code)]
pub unsafe fn sendmmsg<Fd: AsFd>(fd: Fd, msgs: &mut [libc::mmsghdr], flags: MsgFlags) -> Result<usize> {
    let fd = fd.as_fd();
    let mut time = TimeLeft::to_send(fd).with(flags);
    op::run(|door| time.spend(door, |mode| messages::sendmmsg(door, fd, msgs, flags | mode.flag())))
}
