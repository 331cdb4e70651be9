//! The time-outs of a socket (SO_RCVTIMEO, SO_SNDTIMEO), kept over the tries of one call.
//!
//! The kernel starts such a time-out afresh whenever the call is made, and answers EINTR to any signal while it runs, with SA_RESTART too
//! (`net/core/sock.h`, sock_intr_errno): a call that is merely made again ends late, or never. So the time at which the call began is noted,
//! without a system call; after an EINTR the option is read, what is left of its time is waited for in ppoll(2), and the call is made without
//! waiting. A call that no signal breaks, or on something else than a socket with such an option, is the plain call.
//!
//! # Invariants
//! 1. Time is never cut short. Calls that are for sockets note it exactly, which takes 20 ns. read(2) and write(2), mostly made on other things,
//!    note it by the coarse clock, 5 ns, which lies behind: what it may lie behind is added. *Seen:* with one step of it, 40 ms over after 39.9.
//! 2. Nobody spins. Where poll says that the socket is ready and the call says that it is not (a datagram with a bad checksum; a peer's full
//!    queue, which poll does not know of before connect(2)), the call is made as the application made it.
//! 3. What recvmmsg(2) left on the socket is skipped, once. A signal that comes after its first message becomes the socket's error
//!    (`net/socket.c`, do_recvmmsg), which the next call answers: EINTR, or 512, a number from inside the kernel. *Seen:* Linux 6.18, each time.
//! 4. errno is not written by anything here: an application may look at it after a call that worked.
//!
//! # Safety
//! Descriptors are borrowed; what the kernel writes to are locals of the kind that it writes.

use crate::kernel::clock;
use crate::kernel::stub::window::{Door, call};
use nix::errno::Errno;
use nix::sys::socket::MsgFlags;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// How one try is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// As the application asked.
    Plain,
    /// Of a socket only: EAGAIN where it would wait.
    AtOnce,
}

impl Mode {
    /// What it adds to the flags of a message.
    pub(crate) const fn flag(self) -> MsgFlags {
        match self {
            Mode::Plain => MsgFlags::empty(),
            Mode::AtOnce => MsgFlags::MSG_DONTWAIT,
        }
    }
}

/// What a call waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Receive,
    Send,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    /// No try was made yet.
    Untried,
    /// A try was broken, and the option was not read yet.
    Unknown,
    Never,
    Until(Duration),
}

/// What a call knows of its time from one try to the next.
#[derive(Debug)]
pub(crate) struct TimeLeft<'a> {
    fd: BorrowedFd<'a>,
    side: Side,
    began: libc::timespec,
    is_coarse: bool,
    limit: Limit,
    /// Invariant 3.
    has_skipped: bool,
}

impl<'a> TimeLeft<'a> {
    /// Of a call that receives from a socket, or accepts.
    #[inline]
    pub(crate) fn to_receive(fd: BorrowedFd<'a>) -> TimeLeft<'a> {
        TimeLeft::of(fd, Side::Receive, clock::exact(), false)
    }

    /// Of a call that sends to a socket, or connects.
    #[inline]
    pub(crate) fn to_send(fd: BorrowedFd<'a>) -> TimeLeft<'a> {
        TimeLeft::of(fd, Side::Send, clock::exact(), false)
    }

    /// Of a call that reads from anything.
    #[inline]
    pub(crate) fn to_read(fd: BorrowedFd<'a>) -> TimeLeft<'a> {
        TimeLeft::of(fd, Side::Receive, clock::coarse(), true)
    }

    /// Of a call that writes to anything.
    #[inline]
    pub(crate) fn to_write(fd: BorrowedFd<'a>) -> TimeLeft<'a> {
        TimeLeft::of(fd, Side::Send, clock::coarse(), true)
    }

    #[inline]
    fn of(fd: BorrowedFd<'a>, side: Side, began: libc::timespec, is_coarse: bool) -> TimeLeft<'a> {
        TimeLeft { fd, side, began, is_coarse, limit: Limit::Untried, has_skipped: false }
    }

    /// With flags that keep a call from waiting there is no time-out.
    #[inline]
    pub(crate) fn with(mut self, flags: MsgFlags) -> TimeLeft<'a> {
        if flags.intersects(MsgFlags::MSG_DONTWAIT.union(MsgFlags::MSG_ERRQUEUE).union(MsgFlags::MSG_OOB)) {
            self.limit = Limit::Never;
        }
        self
    }

    /// Makes one try of a call that has a way not to wait.
    #[inline]
    pub(crate) fn spend<T>(
        &mut self,
        door: Door<'_>,
        mut call: impl FnMut(Mode) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let answer = if self.is_first_try() || self.limit().is_none() {
            call(Mode::Plain)
        } else {
            match call(Mode::AtOnce) {
                Err(Errno::EAGAIN) if !self.wait(door)? => Err(Errno::EAGAIN),
                Err(Errno::EAGAIN) => match call(Mode::AtOnce) {
                    Err(Errno::EAGAIN) if !self.is_up() => call(Mode::Plain), // invariant 2
                    answer => answer,
                },
                answer => answer,
            }
        };
        self.skip(answer)
    }

    /// Makes one try of a call that has none: it waits for the socket to be ready. `up` is the answer when the time is up.
    #[inline]
    pub(crate) fn spend_ready<T>(
        &mut self,
        door: Door<'_>,
        up: Errno,
        call: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let ready = self.is_first_try() || self.limit().is_none() || self.wait(door)?;
        let answer = if ready { call() } else { Err(up) };
        self.skip(answer)
    }

    /// Invariant 3: the call is to be made again, as after a signal.
    #[inline]
    fn skip<T>(&mut self, answer: Result<T, Errno>) -> Result<T, Errno> {
        match answer {
            Err(Errno::UnknownErrno) if !std::mem::replace(&mut self.has_skipped, true) => Err(Errno::EINTR),
            answer => answer,
        }
    }

    /// Whether this is the first try; the next time it is not.
    #[inline]
    pub(super) fn is_first_try(&mut self) -> bool {
        let first = self.limit == Limit::Untried;
        if first {
            self.limit = Limit::Unknown;
        }
        first
    }

    /// When the time is up, on the monotonic clock; `None` if the descriptor has no time-out, or does not wait at all.
    #[cold]
    pub(super) fn limit(&mut self) -> Option<Duration> {
        if self.limit == Limit::Unknown {
            let behind = if self.is_coarse { clock::coarse_lies_behind() } else { Duration::ZERO };
            let until = self.time_out().and_then(|time| (clock::duration(self.began) + behind).checked_add(time));
            self.limit = until.map_or(Limit::Never, Limit::Until);
        }
        match self.limit {
            Limit::Until(at) => Some(at),
            _ => None,
        }
    }

    /// Whether the time is up.
    #[cold]
    pub(super) fn is_up(&mut self) -> bool {
        self.limit().is_some_and(|until| until <= clock::duration(clock::exact()))
    }

    fn time_out(&self) -> Option<Duration> {
        let name = match self.side {
            Side::Receive => libc::SO_RCVTIMEO,
            Side::Send => libc::SO_SNDTIMEO,
        };
        let time = option(self.fd, name, libc::timeval { tv_sec: 0, tv_usec: 0 }).ok()?;
        let time = Duration::new(u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_usec).ok()? * 1000);
        (!time.is_zero() && !is_nonblocking(self.fd)).then_some(time)
    }

    /// Waits until the socket is ready: `true`; or the time is up.
    #[cold]
    pub(super) fn wait(&mut self, door: Door<'_>) -> Result<bool, Errno> {
        let left = self.limit().map(|until| until.saturating_sub(clock::duration(clock::exact())));
        let mut time = left.map(clock::length);
        let events = if self.side == Side::Receive { libc::POLLIN } else { libc::POLLOUT };
        let mut ready = libc::pollfd { fd: self.fd.as_raw_fd(), events, revents: 0 };
        let time = time.as_mut().map_or(0, |time| &raw mut *time as usize);
        // SAFETY: one pollfd; no time or a local one, which the kernel may write to; no mask.
        unsafe { call(door, libc::SYS_ppoll, [&raw mut ready as usize, 1, time, 0, 0, 0]) }.map(|n| n > 0)
    }
}

/// Whether calls on the descriptor do not wait.
pub(super) fn is_nonblocking(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: F_GETFL names no memory, and the descriptor is borrowed.
    let flags =
        unsafe { call(Door::of(None), libc::SYS_fcntl, [fd.as_raw_fd() as usize, libc::F_GETFL as usize, 0, 0, 0, 0]) };
    flags.is_ok_and(|flags| flags & libc::O_NONBLOCK as usize != 0)
}

/// What an option of a socket may be: plain numbers, of which every pattern of bits is one.
///
/// # Safety
/// Of such types only.
pub(super) unsafe trait Plain: Copy {}
// SAFETY: an integer.
unsafe impl Plain for libc::c_int {}
// SAFETY: two integers, without padding on targets of 64 bits.
unsafe impl Plain for libc::timeval {}

/// `int getsockopt(int sockfd, int level, int optname, void *optval, socklen_t *optlen)`, getsockopt(2), at SOL_SOCKET. `value` is what stands where
/// the kernel writes less.
pub(super) fn option<T: Plain>(fd: BorrowedFd<'_>, name: libc::c_int, mut value: T) -> Result<T, Errno> {
    let mut len = size_of::<T>() as libc::socklen_t;
    let (level, value_at, len_at) = (libc::SOL_SOCKET as usize, &raw mut value as usize, &raw mut len as usize);
    // SAFETY: `value` is writable for `len`, and stays a `T` whatever is written (`Plain`); the descriptor is borrowed.
    unsafe {
        call(Door::of(None), libc::SYS_getsockopt, [fd.as_raw_fd() as usize, level, name as usize, value_at, len_at, 0])
    }?;
    Ok(value)
}
