//! A connection, over the tries of one call (protocol 12).
//!
//! After an EINTR the attempt goes on in the kernel (AF_INET, AF_INET6), or has left nothing (AF_UNIX). In both cases connect(2), made again, goes
//! on waiting and answers what became of it, so the kernel's answer is the only word for "connected". Polling and asking SO_ERROR instead would
//! call a socket connected that is not: one of AF_UNIX, and one whose first call was cancelled before it was made.
//!
//! # Safety
//! The descriptor is borrowed; what the kernel writes to are locals.

use crate::kernel::calls::net;
use crate::kernel::calls::time_left::{self, TimeLeft};
use crate::kernel::stub::window::{Door, call};
use nix::errno::Errno;
use nix::sys::socket::SockaddrLike;
use std::os::fd::{AsRawFd, BorrowedFd};

/// A call of connect(2) and what it knows from one try to the next.
pub(crate) struct Attempt<'a> {
    fd: BorrowedFd<'a>,
    addr: &'a dyn SockaddrLike,
    time: TimeLeft<'a>,
}

impl std::fmt::Debug for Attempt<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attempt").field("fd", &self.fd).field("time", &self.time).finish_non_exhaustive()
    }
}

impl<'a> Attempt<'a> {
    pub(crate) fn new(fd: BorrowedFd<'a>, addr: &'a dyn SockaddrLike) -> Attempt<'a> {
        Attempt { fd, addr, time: TimeLeft::to_send(fd) }
    }

    /// Makes one try.
    pub(crate) fn make(&mut self, door: Door<'_>) -> Result<(), Errno> {
        if self.time.is_first_try() { net::connect(door, self.fd, self.addr) } else { self.again(door) }
    }

    /// After an EINTR that was not ours. The first try has reached the kernel: one that the stub cancelled was interrupted, and is not made again.
    #[cold]
    fn again(&mut self, door: Door<'_>) -> Result<(), Errno> {
        let family = time_left::option(self.fd, libc::SO_DOMAIN, libc::AF_UNSPEC)?;
        let in_background = family == libc::AF_INET || family == libc::AF_INET6;
        if in_background {
            self.time.spend_ready(door, Errno::EINPROGRESS, || Ok(()))?;
        } else if family == libc::AF_UNIX && self.time.is_up() {
            return Err(Errno::EAGAIN); // poll(2) knows nothing of the other side's backlog
        }
        match net::connect(door, self.fd, self.addr) {
            Err(Errno::EISCONN) => Ok(()), // the first try got there, or it would have answered this
            Err(Errno::EALREADY) if in_background && !time_left::is_nonblocking(self.fd) => self.finish(door),
            answer => answer,
        }
    }

    /// For a protocol that does not wait in a second call (SCTP).
    fn finish(&mut self, door: Door<'_>) -> Result<(), Errno> {
        if !self.time.wait(door)? {
            return Err(Errno::EINPROGRESS);
        }
        match time_left::option(self.fd, libc::SO_ERROR, 0)? {
            0 => self.peer(),
            error => Err(Errno::from_raw(error)),
        }
    }

    /// `int getpeername(int sockfd, struct sockaddr *addr, socklen_t *addrlen)`, getpeername(2): whether there is one.
    fn peer(&self) -> Result<(), Errno> {
        let (mut room, mut len) = ([0u8; 0], 0 as libc::socklen_t);
        let args = [self.fd.as_raw_fd() as usize, &raw mut room as usize, &raw mut len as usize, 0, 0, 0];
        // SAFETY: the kernel writes as much as `len` says, which is nothing, and `len` itself.
        let peer = unsafe { call(Door::of(None), libc::SYS_getpeername, args) };
        peer.map(drop).map_err(|_| Errno::ECONNABORTED) // the kernel's own word for a connection that is gone without an error
    }
}
