//! Waiting until one of several descriptors is ready.

use super::Result;
use super::countdown::{Countdown, milliseconds};
use crate::engine::op;
use crate::kernel::calls::ready::{self, Sets};
use crate::kernel::mask::Mask;
use libc::c_int;
use nix::poll::{PollFd, PollTimeout};
use nix::sys::epoll::{Epoll, EpollEvent, EpollTimeout};
use nix::sys::select::FdSet;
use nix::sys::signal::SigSet;
use nix::sys::time::TimeSpec;
use std::os::fd::AsFd;

/// Waits until one of `fds` is ready; how many are, 0 when the time is up. See poll(2).
///
/// The time-out is in milliseconds: zero looks, `PollTimeout::NONE` waits for ever. It goes on through signals that are not ours, and is never cut
/// short by them. The call made is ppoll(2), without a mask.
///
/// # Errors
/// The interrupt; then `revents` says nothing. The kernel's: `EINVAL` for more descriptors than RLIMIT_NOFILE allows, `ENOMEM`. One that is not open
/// is no error: its `revents` says `POLLNVAL`.
pub fn poll<T: Into<PollTimeout>>(fds: &mut [PollFd<'_>], timeout: T) -> Result<usize> {
    let mut time = Countdown::of(milliseconds(timeout.into().into()));
    op::run(|door| ready::ppoll(door, fds, time.left(), None))
}

/// Waits as [`poll`] does, with `mask` as the thread's mask meanwhile, down to the nanosecond. See ppoll(2).
///
/// The numbers of live scopes are left out of `mask`: with one of them blocked an interrupt would not get through. A signal that is not ours, and
/// that `mask` lets through, runs its handler and does not end the wait; who waits for such a signal takes it as a descriptor (signalfd(2)) or as an
/// interrupt ([`Foreign::Interrupt`](crate::Foreign::Interrupt)).
///
/// # Errors
/// The interrupt. The kernel's: `EINVAL` for a negative time-out, or one with nanoseconds outside of 0 to 999,999,999; otherwise as [`poll`].
pub fn ppoll(fds: &mut [PollFd<'_>], timeout: Option<TimeSpec>, mask: Option<SigSet>) -> Result<usize> {
    let mask = mask.as_ref().map(open_to_interrupts);
    let mut time = Countdown::of(timeout.map(|t| *t.as_ref()));
    op::run(|door| ready::ppoll(door, fds, time.left(), mask))
}

/// Waits until a descriptor of the sets is ready; how many are, 0 when the time is up. See pselect(2).
///
/// The sets are left with what is ready, and as they were if the call fails. `nfds` is the highest descriptor plus one, found by looking if it is
/// `None`; above FD_SETSIZE it means FD_SETSIZE. Time-out and `mask` are as for [`ppoll`].
///
/// # Errors
/// The interrupt. The kernel's: `EBADF` for a descriptor that is not open, `EINVAL` for a negative `nfds` or what is no time.
pub fn pselect<'fd>(
    nfds: Option<c_int>,
    read: Option<&mut FdSet<'fd>>,
    write: Option<&mut FdSet<'fd>>,
    except: Option<&mut FdSet<'fd>>,
    timeout: Option<TimeSpec>,
    mask: Option<&SigSet>,
) -> Result<usize> {
    let mut sets = Sets([read, write, except]);
    let nfds = nfds.unwrap_or_else(|| sets.count());
    let mask = mask.map(open_to_interrupts);
    let mut time = Countdown::of(timeout.map(|t| *t.as_ref()));
    op::run(|door| ready::pselect(door, nfds, &mut sets, time.left(), mask))
}

/// Waits for events of an epoll instance; how many were written to the front of `events`, 0 when the time is up. See epoll_wait(2).
///
/// The time-out is in milliseconds: zero looks, `EpollTimeout::NONE` waits for ever. After a signal that is not ours the rest of it is rounded up to
/// the next millisecond, so the wait does not end early. An event is taken (of those with EPOLLET or EPOLLONESHOT) only by a call that returns it.
/// The call made is epoll_pwait(2), without a mask.
///
/// # Errors
/// The interrupt. The kernel's: `EINVAL` for an empty `events`.
pub fn epoll_wait<T: Into<EpollTimeout>>(epoll: &Epoll, events: &mut [EpollEvent], timeout: T) -> Result<usize> {
    epoll_pwait(epoll, events, timeout, None)
}

/// Waits as [`epoll_wait`] does, with `mask` as the thread's mask meanwhile. See epoll_pwait(2).
///
/// The numbers of live scopes are left out of `mask`, and signals that it lets through do not end the wait, as for [`ppoll`].
///
/// # Errors
/// As [`epoll_wait`].
pub fn epoll_pwait<T: Into<EpollTimeout>>(
    epoll: &Epoll,
    events: &mut [EpollEvent],
    timeout: T,
    mask: Option<&SigSet>,
) -> Result<usize> {
    let epoll = epoll.0.as_fd();
    let mask = mask.map(open_to_interrupts);
    let mut time = Countdown::of(milliseconds(timeout.into().into()));
    op::run(|door| ready::epoll_pwait(door, epoll, events, time.left_milliseconds(), mask))
}

/// The mask without the numbers of live scopes.
fn open_to_interrupts(mask: &SigSet) -> Mask {
    Mask::from(mask.as_ref()).except(op::numbers())
}
