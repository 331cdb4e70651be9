//! The time: as coarse as it is cheap, as it is, and as the kernel wants to be told of an instant.
//!
//! # Safety
//! The structures written are locals.
//!
//! # Async-signal-safety
//! clock_gettime(2) is, by signal-safety(7).

use libc::timespec;
use std::time::{Duration, Instant};

/// `int clock_gettime(clockid_t clock, struct timespec *time)`, CLOCK_MONOTONIC_COARSE: a timer tick (1 to 10 milliseconds) behind at most.
#[inline]
pub(crate) fn coarse() -> timespec {
    let mut time = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is written; the clock exists since Linux 2.6.32.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &mut time) };
    time
}

/// The same in milliseconds.
pub(crate) fn coarse_milliseconds() -> u64 {
    let time = coarse();
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

/// An instant that is not before the one at which [`coarse`] told `time`: a step of that clock later.
pub(crate) fn end_of_coarse(time: timespec) -> Duration {
    let mut step = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `step` is written; the clock exists since Linux 2.6.32.
    unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &mut step) };
    duration(time) + duration(step)
}

/// `int clock_gettime(clockid_t clock, struct timespec *time)`, CLOCK_MONOTONIC.
pub(crate) fn now() -> Duration {
    let mut time = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is written; the clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    duration(time)
}

fn duration(time: timespec) -> Duration {
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// An instant as an absolute time of CLOCK_MONOTONIC, which std's is but does not show. Never earlier than the instant: it is off by the time
/// between the two looks at the clock. One that has passed is now.
pub(crate) fn monotonic(at: Instant) -> timespec {
    let rest = at.saturating_duration_since(Instant::now());
    let mut time = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is written; the clock exists since Linux 2.6.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    later(time, rest)
}

/// A length of time; one that the kernel's seconds do not hold is as long as they can say.
pub(crate) fn length(of: Duration) -> timespec {
    later(timespec { tv_sec: 0, tv_nsec: 0 }, of)
}

fn later(time: timespec, by: Duration) -> timespec {
    let nanoseconds = time.tv_nsec + i64::from(by.subsec_nanos()); // each is below 10^9
    let seconds = i64::try_from(by.as_secs()).unwrap_or(i64::MAX).saturating_add(nanoseconds / 1_000_000_000);
    timespec { tv_sec: time.tv_sec.saturating_add(seconds), tv_nsec: nanoseconds % 1_000_000_000 }
}
