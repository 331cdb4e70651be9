//! Message queues, POSIX's and System V's, and System V's semaphores.

use super::Result;
use super::countdown::Countdown;
use crate::engine::op;
use crate::kernel::calls::queues::{self, Letter};
use crate::kernel::clock;
use libc::{c_int, c_long, sembuf};
use nix::mqueue::MqdT;
use nix::sys::time::TimeSpec;
use std::os::fd::AsFd;
use std::time::Duration;

/// Adds a message to a POSIX queue, waiting while that is full, at most until CLOCK_REALTIME shows `until`. See mq_timedsend(2).
///
/// Interrupted, it has added nothing. Priorities run from 0 to 32,767.
///
/// # Errors
/// The interrupt. The kernel's: `ETIMEDOUT`, `EAGAIN` for a non-blocking queue that is full, `EMSGSIZE`, `EBADF`, `EINVAL` for the priority or what
/// is no time (which is looked at first, even if there is room).
pub fn mq_send(mq: &MqdT, msg: &[u8], prio: u32, until: Option<TimeSpec>) -> Result<()> {
    let (mq, until) = (mq.as_fd(), until.map(|t| *t.as_ref()));
    op::run(|door| queues::mq_timedsend(door, mq, msg, prio, until))
}

/// Takes the oldest of the most urgent messages of a POSIX queue, waiting for one at most until CLOCK_REALTIME shows `until`: length and priority.
/// See mq_timedreceive(2).
///
/// A message that was taken is returned, even if an interrupt comes with it.
///
/// # Errors
/// The interrupt. The kernel's: `ETIMEDOUT`, `EAGAIN` for a non-blocking queue that is empty, `EMSGSIZE` if `msg` is shorter than the queue's
/// messages may be, `EBADF`, `EINVAL` for what is no time.
pub fn mq_receive(mq: &MqdT, msg: &mut [u8], until: Option<TimeSpec>) -> Result<(usize, u32)> {
    let (mq, until) = (mq.as_fd(), until.map(|t| *t.as_ref()));
    op::run(|door| queues::mq_timedreceive(door, mq, msg, until))
}

/// Adds a message of type `kind`, above 0, to a System V queue, waiting while that is full. See msgsnd(2).
///
/// `msg` is the bytes alone; the type is put in front of a copy of them. Interrupted, it has added nothing.
///
/// # Errors
/// The interrupt. The kernel's: `EAGAIN` with IPC_NOWAIT, `EINVAL` for a type below 1, a message that is longer than `/proc/sys/kernel/msgmax`, or a
/// queue that does not exist, `EIDRM` if that was removed, `EACCES`, `ENOMEM` (for the copy, too).
pub fn msgsnd(id: c_int, kind: c_long, msg: &[u8], flags: c_int) -> Result<()> {
    let letter = Letter::to_send(kind, msg)?;
    op::run(|door| queues::msgsnd(door, id, &letter, flags))
}

/// Takes a message from a System V queue, waiting for one: its type, and how many bytes were written to the front of `msg`. See msgrcv(2).
///
/// `kind` 0 takes the oldest of all, a type the oldest of that type, a negative one the oldest of the lowest type up to its absolute value. A message
/// that was taken is returned, even if an interrupt comes with it.
///
/// # Errors
/// The interrupt. The kernel's: `E2BIG` for a message that is longer than `msg`, without MSG_NOERROR (it stays in the queue), `ENOMSG` with
/// IPC_NOWAIT, `EINVAL`, `EIDRM`, `EACCES`; `ENOMEM` for room as large as `msg`, before anything is taken.
pub fn msgrcv(id: c_int, msg: &mut [u8], kind: c_long, flags: c_int) -> Result<(c_long, usize)> {
    let mut letter = Letter::with_room(msg.len())?;
    op::run(|door| queues::msgrcv(door, id, &mut letter, msg, kind, flags))
}

/// Does all of `ops` on a System V semaphore set, or none, waiting until they can be done. See semtimedop(2).
///
/// Zero looks, `None` waits for ever, and the time goes on through signals that are not ours. Interrupted, it has done nothing.
///
/// # Errors
/// The interrupt. The kernel's: `EAGAIN` when the time is up, or with IPC_NOWAIT, `EFBIG`, `E2BIG` for too many operations, `EIDRM`, `EINVAL` for no
/// operations or a set that does not exist, `EACCES`, `ENOMEM`, `ENOSPC`, `ERANGE`.
pub fn semtimedop(id: c_int, ops: &mut [sembuf], timeout: Option<Duration>) -> Result<()> {
    let mut time = Countdown::of(timeout.map(clock::length));
    op::run(|door| queues::semtimedop(door, id, ops, time.left()))
}
