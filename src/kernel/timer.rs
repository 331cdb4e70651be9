//! Timers of the kernel that send a signal to one thread.
//!
//! # Safety
//! [`Event`] is the kernel's `struct sigevent` of 64-bit Linux: 64 bytes, the thread's id behind `sigev_notify` (`include/uapi/asm-generic/siginfo.h`).
//!
//! # Async-signal-safety
//! Every function is a bare system call.

use crate::kernel::raw;
use nix::errno::Errno;

#[repr(C)]
struct Event {
    value: u64,
    signo: i32,
    notify: i32,
    tid: i32,
    _rest: [i32; 11],
}
const _: () = assert!(size_of::<Event>() == 64);

/// `int timer_create(clockid_t clock, struct sigevent *event, timer_t *id)`, timer_create(2): one of CLOCK_MONOTONIC that sends `sig` with `value` to
/// the thread `tid` of this process. Its siginfo is set aside now, so its signal arrives when the queue is full, too.
///
/// # Errors
/// EAGAIN: RLIMIT_SIGPENDING is used up. ENOMEM. EINVAL: no such thread.
pub(crate) fn create(tid: i32, sig: i32, value: u64) -> Result<i32, Errno> {
    let event = Event { value, signo: sig, notify: libc::SIGEV_THREAD_ID, tid, _rest: [0; 11] };
    let mut id = 0i32;
    let args = [libc::CLOCK_MONOTONIC as usize, &raw const event as usize, &raw mut id as usize, 0];
    // SAFETY: `event` is read, `id` is written; the kernel's timer_t is an int.
    unsafe { raw::call(libc::SYS_timer_create, args) }?;
    Ok(id)
}

/// `int timer_settime(timer_t id, int flags, const struct itimerspec *new, struct itimerspec *old)`, timer_settime(2): once, after so many
/// nanoseconds; 0 stops it. From Linux 6.13 on that also takes back an expiry that is queued (`kernel/time/posix-timers.c`).
///
/// # Errors
/// EINVAL: no such timer.
pub(crate) fn set(id: i32, nanoseconds: u64) -> Result<(), Errno> {
    settime(id, 0, nanoseconds)
}

/// The same at a time of CLOCK_MONOTONIC, in nanoseconds; at once, if that has passed.
///
/// # Errors
/// As [`set`].
pub(crate) fn set_at(id: i32, time: u64) -> Result<(), Errno> {
    settime(id, libc::TIMER_ABSTIME, time)
}

fn settime(id: i32, flags: i32, nanoseconds: u64) -> Result<(), Errno> {
    const SECOND: u64 = 1_000_000_000;
    let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let value = libc::timespec { tv_sec: (nanoseconds / SECOND) as i64, tv_nsec: (nanoseconds % SECOND) as i64 };
    let new = libc::itimerspec { it_interval: never, it_value: value };
    // SAFETY: `new` is read; the old setting is not asked for.
    unsafe { raw::call(libc::SYS_timer_settime, [id as usize, flags as usize, &raw const new as usize, 0]) }.map(drop)
}

/// `int timer_gettime(timer_t id, struct itimerspec *setting)`, timer_gettime(2): whether it is still to expire. If not, its signal has been queued:
/// the kernel answers under the lock that it queues under (`kernel/time/posix-timers.c`, `common_timer_get`).
pub(crate) fn is_running(id: i32) -> bool {
    let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let mut left = libc::itimerspec { it_interval: never, it_value: never };
    // SAFETY: `left` is written.
    let asked = unsafe { raw::call(libc::SYS_timer_gettime, [id as usize, &raw mut left as usize, 0, 0]) };
    asked.is_ok() && (left.it_value.tv_sec, left.it_value.tv_nsec) != (0, 0)
}

/// `int timer_delete(timer_t id)`, timer_delete(2).
pub(crate) fn delete(id: i32) {
    // SAFETY: an integer.
    let _ = unsafe { raw::call(libc::SYS_timer_delete, [id as usize, 0, 0, 0]) };
}
