//! Bytes and connections of a socket.
//!
//! # Safety
//! Descriptors are borrowed for the call; buffers are slices of the length that is passed; addresses are nix's, valid for the length that they
//! answer (the trait is sealed). A new descriptor has an owner before anything else can happen.

use crate::kernel::calls::time_left::{Mode, option};
use crate::kernel::stub::window::{Door, call};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockFlag, SockaddrLike};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// `ssize_t recv(int sockfd, void *buf, size_t size, int flags)`, recv(2).
#[inline]
pub(crate) fn recv(door: Door<'_>, fd: BorrowedFd<'_>, buf: &mut [u8], flags: MsgFlags) -> Result<usize, Errno> {
    let args = [fd.as_raw_fd() as usize, buf.as_mut_ptr() as usize, buf.len(), flags.bits() as usize, 0, 0];
    // SAFETY: `buf` is writable for its length, no address is asked for, and the descriptor is borrowed.
    unsafe { call(door, libc::SYS_recvfrom, args) }
}

/// `ssize_t recvfrom(int sockfd, void *buf, size_t size, int flags, struct sockaddr *src_addr, socklen_t *addrlen)`, recvfrom(2). `None` if there
/// is no address, or one of another kind.
pub(crate) fn recvfrom<A: SockaddrLike>(
    door: Door<'_>,
    fd: BorrowedFd<'_>,
    buf: &mut [u8],
    flags: MsgFlags,
) -> Result<(usize, Option<A>), Errno> {
    let mut storage = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let room = A::size().min(size_of::<libc::sockaddr_storage>() as libc::socklen_t);
    let mut len = room;
    let (address, length) = (storage.as_mut_ptr() as usize, &raw mut len as usize);
    let args = [fd.as_raw_fd() as usize, buf.as_mut_ptr() as usize, buf.len(), flags.bits() as usize, address, length];
    // SAFETY: `buf` is writable for its length, `storage` for `len`, and the descriptor is borrowed.
    let n = unsafe { call(door, libc::SYS_recvfrom, args) }?;
    // The kernel answers the whole length where it has cut the address off, which may be one more than a sockaddr_un (unix(7), BUGS).
    let len = len.min(room);
    // SAFETY: `storage` is initialised, aligned for every address, and as long as `len` says at least.
    let from = (len > 0).then(|| unsafe { A::from_raw(storage.as_ptr().cast(), Some(len)) });
    Ok((n, from.flatten()))
}

/// `ssize_t send(int sockfd, const void *buf, size_t size, int flags)`, send(2).
#[inline]
pub(crate) fn send(door: Door<'_>, fd: BorrowedFd<'_>, buf: &[u8], flags: MsgFlags) -> Result<usize, Errno> {
    let args = [fd.as_raw_fd() as usize, buf.as_ptr() as usize, buf.len(), flags.bits() as usize, 0, 0];
    // SAFETY: `buf` is readable for its length, no address is given, and the descriptor is borrowed.
    unsafe { call(door, libc::SYS_sendto, args) }
}

/// `ssize_t sendto(int sockfd, const void *buf, size_t size, int flags, const struct sockaddr *dest_addr, socklen_t addrlen)`, sendto(2).
pub(crate) fn sendto(
    door: Door<'_>,
    fd: BorrowedFd<'_>,
    buf: &[u8],
    addr: &dyn SockaddrLike,
    flags: MsgFlags,
) -> Result<usize, Errno> {
    let (address, length) = (addr.as_ptr() as usize, addr.len() as usize);
    let args = [fd.as_raw_fd() as usize, buf.as_ptr() as usize, buf.len(), flags.bits() as usize, address, length];
    // SAFETY: `buf` is readable for its length, the address for its own, and the descriptor is borrowed.
    unsafe { call(door, libc::SYS_sendto, args) }
}

/// `int accept4(int sockfd, struct sockaddr *addr, socklen_t *addrlen, int flags)`, accept4(2), without the address.
pub(crate) fn accept4(door: Door<'_>, fd: BorrowedFd<'_>, flags: SockFlag) -> Result<OwnedFd, Errno> {
    // SAFETY: no address is asked for, and the descriptor is borrowed.
    let new = unsafe { call(door, libc::SYS_accept4, [fd.as_raw_fd() as usize, 0, 0, flags.bits() as usize, 0, 0]) }?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(new as RawFd) })
}

/// `int connect(int sockfd, const struct sockaddr *addr, socklen_t addrlen)`, connect(2).
pub(crate) fn connect(door: Door<'_>, fd: BorrowedFd<'_>, addr: &dyn SockaddrLike) -> Result<(), Errno> {
    let args = [fd.as_raw_fd() as usize, addr.as_ptr() as usize, addr.len() as usize, 0, 0, 0];
    // SAFETY: the address is readable for its length, and the descriptor is borrowed.
    unsafe { call(door, libc::SYS_connect, args) }.map(drop)
}

/// readv(2) of a socket, without waiting.
#[cold]
pub(super) fn read_at_once(door: Door<'_>, fd: BorrowedFd<'_>, iov: &mut [IoSliceMut<'_>]) -> Result<usize, Errno> {
    let mut message = empty_message();
    message.msg_iov = iov.as_mut_ptr().cast();
    message.msg_iovlen = iov.len() as _; // at most IOV_MAX: more were refused at the first try
    let flags = Mode::AtOnce.flag().bits() as usize;
    let args = [fd.as_raw_fd() as usize, &raw mut message as usize, flags, 0, 0, 0];
    // SAFETY: `message` names an array of iovecs, each writable for its length, and nothing else; the descriptor is borrowed.
    unsafe { call(door, libc::SYS_recvmsg, args) }
}

/// writev(2) to a socket, without waiting: like the kernel's own it ends a record of a sequence (`net/socket.c`, sock_write_iter).
#[cold]
pub(super) fn write_at_once(door: Door<'_>, fd: BorrowedFd<'_>, iov: &[IoSlice<'_>]) -> Result<usize, Errno> {
    let mut message = empty_message();
    message.msg_iov = iov.as_ptr().cast_mut().cast();
    message.msg_iovlen = iov.len() as _; // at most IOV_MAX: more were refused at the first try
    let records = option(fd, libc::SO_TYPE, 0) == Ok(libc::SOCK_SEQPACKET);
    let flags = Mode::AtOnce.flag() | if records { MsgFlags::MSG_EOR } else { MsgFlags::empty() };
    let args = [fd.as_raw_fd() as usize, &raw const message as usize, flags.bits() as usize, 0, 0, 0];
    // SAFETY: `message` names an array of iovecs, each readable for its length, and nothing else; the descriptor is borrowed.
    unsafe { call(door, libc::SYS_sendmsg, args) }
}

fn empty_message() -> libc::msghdr {
    // SAFETY: a `struct msghdr` of zeroes is one without address, buffers and control data.
    unsafe { MaybeUninit::zeroed().assume_init() }
}
