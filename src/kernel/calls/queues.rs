//! Message queues, POSIX's and System V's, and System V's semaphores.
//!
//! # Safety
//! Messages are slices of the length that is passed, or a [`Letter`], which knows its room; times are locals that the kernel reads.

use crate::kernel::stub::window::{Door, call};
use libc::{c_int, c_long, sembuf, timespec};
use nix::errno::Errno;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `int mq_timedsend(mqd_t queue, const char *msg, size_t length, unsigned priority, const struct timespec *until)`, mq_timedsend(2). `until` is of
/// CLOCK_REALTIME.
pub(crate) fn mq_timedsend(
    door: Door<'_>,
    queue: BorrowedFd<'_>,
    msg: &[u8],
    priority: u32,
    until: Option<timespec>,
) -> Result<(), Errno> {
    let until = until.as_ref().map_or(0, |t| &raw const *t as usize);
    let args = [queue.as_raw_fd() as usize, msg.as_ptr() as usize, msg.len(), priority as usize, until, 0];
    // SAFETY: `msg` is readable for its length, `until` is null or points to a local.
    unsafe { call(door, libc::SYS_mq_timedsend, args) }.map(drop)
}

/// `ssize_t mq_timedreceive(mqd_t queue, char *msg, size_t length, unsigned *priority, const struct timespec *until)`, mq_timedreceive(2). Length and
/// priority.
pub(crate) fn mq_timedreceive(
    door: Door<'_>,
    queue: BorrowedFd<'_>,
    msg: &mut [u8],
    until: Option<timespec>,
) -> Result<(usize, u32), Errno> {
    let mut priority = 0u32;
    let until = until.as_ref().map_or(0, |t| &raw const *t as usize);
    let [fd, buf, prio] = [queue.as_raw_fd() as usize, msg.as_mut_ptr() as usize, &raw mut priority as usize];
    // SAFETY: `msg` is writable for its length, `priority` is a local, `until` is null or points to one.
    let length = unsafe { call(door, libc::SYS_mq_timedreceive, [fd, buf, msg.len(), prio, until, 0]) }?;
    Ok((length, priority))
}

/// A message of System V's queues as the kernel has it: the type in front of the bytes.
#[derive(Debug)]
pub(crate) struct Letter {
    words: Vec<MaybeUninit<c_long>>,
    /// Bytes behind the type.
    room: usize,
}

impl Letter {
    /// Room for so many bytes. The kernel's limit for a message (`/proc/sys/kernel/msgmax`) is an int, so a greater length is cut to one more than
    /// that: the kernel refuses it or has no message that long.
    ///
    /// # Errors
    /// `ENOMEM`: before anything was sent or taken.
    pub(crate) fn with_room(bytes: usize) -> Result<Letter, Errno> {
        let room = bytes.min(c_int::MAX as usize + 1);
        let count = 1 + room.div_ceil(size_of::<c_long>());
        let mut words = Vec::new();
        words.try_reserve_exact(count).map_err(|_full| Errno::ENOMEM)?;
        words.resize_with(count, MaybeUninit::uninit);
        Ok(Letter { words, room })
    }

    /// One to be sent.
    ///
    /// # Errors
    /// `ENOMEM`; `EINVAL` for a message that is longer than any limit.
    pub(crate) fn to_send(kind: c_long, msg: &[u8]) -> Result<Letter, Errno> {
        if msg.len() > c_int::MAX as usize {
            return Err(Errno::EINVAL); // what the kernel says, without a copy of all that
        }
        let mut letter = Letter::with_room(msg.len())?;
        for (word, bytes) in letter.words.iter_mut().skip(1).zip(msg.chunks(size_of::<c_long>())) {
            let mut padded = [0; size_of::<c_long>()];
            padded[..bytes.len()].copy_from_slice(bytes);
            word.write(c_long::from_ne_bytes(padded));
        }
        letter.words[0].write(kind);
        Ok(letter)
    }

    /// What was received: its type; `length` bytes of it go to the front of `msg`.
    fn open(&self, length: usize, msg: &mut [u8]) -> c_long {
        let written = length.min(self.room).min(msg.len());
        let bytes = self.words[1..].as_ptr().cast::<u8>();
        // SAFETY: the kernel has written `length` bytes behind the type, where there is room for as many; `msg` is as long as what is copied.
        unsafe { bytes.copy_to_nonoverlapping(msg.as_mut_ptr(), written) };
        // SAFETY: the kernel has written the type.
        unsafe { self.words[0].assume_init() }
    }
}

/// `int msgsnd(int id, const struct msgbuf *msg, size_t length, int flags)`, msgsnd(2).
pub(crate) fn msgsnd(door: Door<'_>, id: c_int, letter: &Letter, flags: c_int) -> Result<(), Errno> {
    let args = [id as usize, letter.words.as_ptr() as usize, letter.room, flags as usize, 0, 0];
    // SAFETY: `letter` was made by `to_send`: the type and `room` bytes behind it are readable.
    unsafe { call(door, libc::SYS_msgsnd, args) }.map(drop)
}

/// `ssize_t msgrcv(int id, struct msgbuf *msg, size_t length, long type, int flags)`, msgrcv(2), by way of `letter` into `msg`. Type and length.
pub(crate) fn msgrcv(
    door: Door<'_>,
    id: c_int,
    letter: &mut Letter,
    msg: &mut [u8],
    kind: c_long,
    flags: c_int,
) -> Result<(c_long, usize), Errno> {
    let args = [id as usize, letter.words.as_mut_ptr() as usize, letter.room, kind as usize, flags as usize, 0];
    // SAFETY: `letter` has a word for the type and `room` bytes behind it.
    let length = unsafe { call(door, libc::SYS_msgrcv, args) }?;
    Ok((letter.open(length, msg), length))
}

/// `int semtimedop(int id, struct sembuf *ops, size_t count, const struct timespec *timeout)`, semtimedop(2).
pub(crate) fn semtimedop(
    door: Door<'_>,
    id: c_int,
    ops: &mut [sembuf],
    timeout: Option<timespec>,
) -> Result<(), Errno> {
    let time = timeout.as_ref().map_or(0, |t| &raw const *t as usize);
    let args = [id as usize, ops.as_mut_ptr() as usize, ops.len(), time, 0, 0];
    // SAFETY: `ops` is a slice of the length that is passed, `time` is null or points to a local.
    unsafe { call(door, libc::SYS_semtimedop, args) }.map(drop)
}
