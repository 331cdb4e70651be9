//! Waiting until one of several descriptors is ready.
//!
//! # Safety
//! Arrays are slices of the length that is passed, sets and times are locals or exclusively borrowed. nix's `PollFd`, `FdSet` and `EpollEvent` are
//! `repr(transparent)` over the kernel's structures.

use crate::kernel::mask::Mask;
use crate::kernel::stub::window::{Door, call};
use libc::{c_int, timespec};
use nix::errno::Errno;
use nix::poll::PollFd;
use nix::sys::epoll::EpollEvent;
use nix::sys::select::FdSet;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Size of the kernel's `sigset_t`.
const SET: usize = size_of::<u64>();

/// `int ppoll(struct pollfd *fds, nfds_t nfds, struct timespec *timeout, const sigset_t *mask, size_t size)`, ppoll(2). The rest of the time,
/// which the kernel writes back, is not told.
pub(crate) fn ppoll(
    door: Door<'_>,
    fds: &mut [PollFd<'_>],
    mut timeout: Option<timespec>,
    mask: Option<Mask>,
) -> Result<usize, Errno> {
    let time = timeout.as_mut().map_or(0, |t| &raw mut *t as usize);
    let mask = mask.as_ref().map_or(0, |m| &raw const *m as usize);
    let args = [fds.as_mut_ptr() as usize, fds.len(), time, mask, SET, 0];
    // SAFETY: `fds` is writable for its length; `time` and `mask` are null or point to locals, 16 writable and 8 readable bytes.
    unsafe { call(door, libc::SYS_ppoll, args) }
}

/// The sets of pselect(2): to read, to write, exceptional.
#[derive(Debug)]
pub(crate) struct Sets<'a, 'fd>(pub(crate) [Option<&'a mut FdSet<'fd>>; 3]);

impl Sets<'_, '_> {
    /// The highest descriptor in any of them, plus one.
    pub(crate) fn count(&self) -> c_int {
        let highest = self.0.iter().flatten().filter_map(|set| set.highest()).map(|fd| fd.as_raw_fd()).max();
        highest.map_or(0, |fd| fd + 1)
    }
}

/// `int pselect6(int nfds, fd_set *read, fd_set *write, fd_set *except, struct timespec *timeout, const struct { const sigset_t *mask; size_t
/// size; } *mask)`, pselect(2). The rest of the time is not told. The sets are written only by a call that succeeds (`fs/select.c`,
/// `core_sys_select`). A set has FD_SETSIZE bits: with a greater `nfds` no more than these are looked at.
pub(crate) fn pselect(
    door: Door<'_>,
    nfds: c_int,
    sets: &mut Sets<'_, '_>,
    mut timeout: Option<timespec>,
    mask: Option<Mask>,
) -> Result<usize, Errno> {
    let nfds = nfds.min(libc::FD_SETSIZE as c_int);
    let [read, write, except] = sets.0.each_mut().map(|set| set.as_deref_mut().map_or(0, |s| &raw mut *s as usize));
    let time = timeout.as_mut().map_or(0, |t| &raw mut *t as usize);
    let mask = mask.as_ref().map(|m| [&raw const *m as usize, SET]);
    let mask = mask.as_ref().map_or(0, |pair| &raw const *pair as usize);
    // SAFETY: each set is null or exclusively borrowed, and at most FD_SETSIZE bits of it are used; `time` and `mask` are null or point to locals.
    unsafe { call(door, libc::SYS_pselect6, [nfds as usize, read, write, except, time, mask]) }
}

/// `int epoll_pwait(int epoll, struct epoll_event *events, int count, int milliseconds, const sigset_t *mask, size_t size)`, epoll_pwait(2). -1 waits
/// for ever.
pub(crate) fn epoll_pwait(
    door: Door<'_>,
    epoll: BorrowedFd<'_>,
    events: &mut [EpollEvent],
    milliseconds: c_int,
    mask: Option<Mask>,
) -> Result<usize, Errno> {
    let count = c_int::try_from(events.len()).unwrap_or(c_int::MAX);
    let mask = mask.as_ref().map_or(0, |m| &raw const *m as usize);
    let [fd, events] = [epoll.as_raw_fd() as usize, events.as_mut_ptr() as usize];
    // SAFETY: `events` is writable for `count` elements, `mask` is null or points to a local of 8 bytes.
    unsafe { call(door, libc::SYS_epoll_pwait, [fd, events, count as usize, milliseconds as usize, mask, SET]) }
}
