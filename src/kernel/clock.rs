//! The time, as coarse as it is cheap.
//!
//! # Safety
//! The structure written is a local.
//!
//! # Async-signal-safety
//! clock_gettime(2) is, by signal-safety(7).

/// `int clock_gettime(clockid_t clock, struct timespec *time)`, CLOCK_MONOTONIC_COARSE: milliseconds, a timer tick (1 to 10 of them) behind at most.
pub(crate) fn coarse_milliseconds() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is written; the clock exists since Linux 2.6.32.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &mut time) };
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}
