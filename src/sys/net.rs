//! Bytes and connections of a socket.
//!
//! The time-outs that a socket was given (SO_RCVTIMEO, SO_SNDTIMEO; socket(7)) go on through other people's signals: the call ends when the time
//! is up that began with it, within a clock tick. Only where the kernel cannot say beforehand whether a call would wait may such a call take up to
//! twice its time.

use super::Result;
use crate::engine::op;
use crate::kernel::calls::connect::Attempt;
use crate::kernel::calls::net;
use crate::kernel::calls::time_left::TimeLeft;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockFlag, SockaddrLike};
use std::os::fd::{AsFd, OwnedFd};

/// Receives up to `buf.len()` bytes of a stream, or one datagram; how many, 0 at the end of a stream. See recv(2).
///
/// A datagram is taken whole (what `buf` has no room for is lost), or not at all. With `MSG_WAITALL` a signal of anybody's may leave fewer bytes.
///
/// # Errors
/// The interrupt, if nothing was received. The kernel's: `EAGAIN` of a non-blocking socket or with `MSG_DONTWAIT`, and when the socket's time is
/// up; `EBADF`, `ECONNREFUSED`, `ECONNRESET`, `EINVAL`, `ENOTCONN`, `ENOTSOCK`.
#[inline]
pub fn recv<Fd: AsFd>(fd: Fd, buf: &mut [u8], flags: MsgFlags) -> Result<usize> {
    let fd = fd.as_fd();
    let mut time = TimeLeft::to_receive(fd).with(flags);
    op::run(|door| time.spend(door, |mode| net::recv(door, fd, buf, flags | mode.flag())))
}

/// [`recv`], and who sent it: `None` on a connected stream, and for an address of another kind than `A`. See recvfrom(2).
///
/// # Errors
/// As [`recv`].
pub fn recvfrom<Fd: AsFd, A: SockaddrLike>(fd: Fd, buf: &mut [u8], flags: MsgFlags) -> Result<(usize, Option<A>)> {
    let fd = fd.as_fd();
    let mut time = TimeLeft::to_receive(fd).with(flags);
    op::run(|door| time.spend(door, |mode| net::recvfrom(door, fd, buf, flags | mode.flag())))
}

/// Sends up to `buf.len()` bytes to a stream, or one datagram; how many. See send(2).
///
/// A datagram goes whole, or not at all. To a stream fewer bytes go when a signal of anybody's came after some had gone.
///
/// # Errors
/// The interrupt, if nothing was sent. The kernel's: `EAGAIN` of a non-blocking socket or with `MSG_DONTWAIT`, and when the socket's time is up;
/// `EPIPE` (and SIGPIPE, but for `MSG_NOSIGNAL`), `EBADF`, `ECONNRESET`, `EDESTADDRREQ`, `EMSGSIZE`, `ENOBUFS`, `ENOTCONN`, `ENOTSOCK`.
#[inline]
pub fn send<Fd: AsFd>(fd: Fd, buf: &[u8], flags: MsgFlags) -> Result<usize> {
    let fd = fd.as_fd();
    let mut time = TimeLeft::to_send(fd).with(flags);
    op::run(|door| time.spend(door, |mode| net::send(door, fd, buf, flags | mode.flag())))
}

/// [`send`] to an address. See sendto(2).
///
/// # Errors
/// As [`send`]; `EISCONN` of a connected stream, `EAFNOSUPPORT`, `EHOSTUNREACH`, `ENETUNREACH`, `ENOENT`.
pub fn sendto<Fd: AsFd>(fd: Fd, buf: &[u8], addr: &dyn SockaddrLike, flags: MsgFlags) -> Result<usize> {
    let fd = fd.as_fd();
    let mut time = TimeLeft::to_send(fd).with(flags);
    op::run(|door| time.spend(door, |mode| net::sendto(door, fd, buf, addr, flags | mode.flag())))
}

/// Waits for a connection and takes it. See accept4(2).
///
/// Exec closes the descriptor with `SOCK_CLOEXEC` only, as the flags say. SO_RCVTIMEO is its time-out.
///
/// # Errors
/// The interrupt; no connection was taken. The kernel's: `EAGAIN` of a non-blocking socket, and when the socket's time is up; `EBADF`,
/// `ECONNABORTED`, `EINVAL` of a socket that does not listen, `EMFILE`, `ENFILE`, `ENOTSOCK`, `EOPNOTSUPP`, `EPROTO`, and the network's.
pub fn accept4<Fd: AsFd>(fd: Fd, flags: SockFlag) -> Result<OwnedFd> {
    let fd = fd.as_fd();
    let mut time = TimeLeft::to_receive(fd);
    op::run(|door| time.spend_ready(door, Errno::EAGAIN, || net::accept4(door, fd, flags)))
}

/// Connects a socket, and waits until it is connected. See connect(2).
///
/// After a signal that is not ours it goes on waiting. An attempt that was interrupted goes on in the background, and nothing tells how far it
/// got: close the socket. SO_SNDTIMEO is its time-out, on AF_INET, AF_INET6 and AF_UNIX through other people's signals.
///
/// # Errors
/// The interrupt. The kernel's: `EINPROGRESS` of a non-blocking socket, and when the socket's time is up; on AF_UNIX, whose attempts do not go on,
/// that is `EAGAIN`; `EALREADY`, `EISCONN`, `ECONNREFUSED`, `ETIMEDOUT`, `EADDRINUSE`, `EADDRNOTAVAIL`, `EAFNOSUPPORT`, `EBADF`, `ENOENT`,
/// `ENETUNREACH`, `ENOTSOCK`, `EPROTOTYPE`.
pub fn connect<Fd: AsFd>(fd: Fd, addr: &dyn SockaddrLike) -> Result<()> {
    let mut attempt = Attempt::new(fd.as_fd(), addr);
    op::run(|door| attempt.make(door))
}
