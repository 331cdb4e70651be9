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

/// What is added to a time of [`coarse`] to be sure that it is not before the true one: two steps of that clock. It lies behind by one, and by more
/// when a tick comes late, so nothing but a tick that is late by a whole one is left; the kernel's own time-outs, which are counted in ticks, bear
/// no more.
pub(crate) fn coarse_lies_behind() -> Duration {
    let mut step = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `step` is written; the clock exists since Linux 2.6.32.
    unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &mut step) };
    duration(step) * 2
}

/// `int clock_gettime(clockid_t clock, struct timespec *time)`, CLOCK_MONOTONIC.
#[inline]
pub(crate) fn exact() -> timespec {
    let mut time = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is written; the clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time
}

/// Later than any time that comes.
pub(crate) const NEVER: u64 = u64::MAX;

/// CLOCK_MONOTONIC in nanoseconds. It stands still while the machine is suspended (clock_gettime(2)).
pub(crate) fn now() -> u64 {
    nanoseconds(duration(exact()))
}

/// A time from now, in those; [`NEVER`] if it lies beyond what they count (584 years).
pub(crate) fn after(length: Duration) -> u64 {
    now().saturating_add(nanoseconds(length))
}

/// An instant in those. Never earlier than the instant, see [`monotonic`]; one that has passed is now.
pub(crate) fn at(instant: Instant) -> u64 {
    let rest = instant.saturating_duration_since(Instant::now());
    after(rest)
}

fn nanoseconds(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(NEVER)
}

/// A time that the kernel told, as a length.
pub(crate) fn duration(time: timespec) -> Duration {
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// An instant as an absolute time of CLOCK_MONOTONIC, which std's is but does not show. Never earlier than the instant: it is off by the time
/// between the two looks at the clock. One that has passed is now.
pub(crate) fn monotonic(at: Instant) -> timespec {
    let rest = at.saturating_duration_since(Instant::now());
    later(exact(), rest)
}

/// A length of time; one that the kernel's seconds do not hold is as long as they can say.
pub(crate) fn length(of: Duration) -> timespec {
    later(timespec { tv_sec: 0, tv_nsec: 0 }, of)
}

/// A time and a length after it; no later than the kernel can be told.
pub(crate) fn later(time: timespec, by: Duration) -> timespec {
    let nanoseconds = time.tv_nsec + i64::from(by.subsec_nanos()); // each is below 10^9
    let seconds = i64::try_from(by.as_secs()).unwrap_or(i64::MAX).saturating_add(nanoseconds / 1_000_000_000);
    timespec { tv_sec: time.tv_sec.saturating_add(seconds), tv_nsec: nanoseconds % 1_000_000_000 }
}
