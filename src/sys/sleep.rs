//! Sleeping until a time, and on a word.

use super::Result;
use crate::engine::op;
use crate::kernel::calls::sleep;
use crate::kernel::clock;
use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::time::ClockId;
use std::sync::atomic::AtomicU32;
use std::time::Instant;

/// Sleeps until a clock shows `until`. See clock_nanosleep(2), TIMER_ABSTIME.
///
/// A time that has passed is no error. Relative sleeps are `thread::sleep`'s business: being absolute, this one does not grow with the signals that
/// come meanwhile, and goes with a clock that is set.
///
/// # Errors
/// The interrupt. The kernel's: `EINVAL` for what is no time or no clock, `EOPNOTSUPP` for a clock that cannot be slept on.
pub fn clock_nanosleep(clock: ClockId, until: TimeSpec) -> Result<()> {
    op::run(|door| sleep::clock_nanosleep(door, clock.as_raw(), *until.as_ref()))
}

/// Sleeps while `word` is `expected`, until it is woken: `true`. `false` if the word was something else. See futex(2), FUTEX_WAIT_BITSET.
///
/// To be woken is no promise that the word has changed: wake-ups may be spurious, so the caller looks again. An interrupt never eats a wake-up. The
/// word may lie in memory shared with other processes; whoever wakes uses FUTEX_WAKE *without* FUTEX_PRIVATE_FLAG, which the kernel keeps apart from
/// this. With an instant that has passed, the word is compared all the same.
///
/// # Errors
/// The interrupt; `ETIMEDOUT` at `until`, never before.
pub fn futex_wait(word: &AtomicU32, expected: u32, until: Option<Instant>) -> Result<bool> {
    let until = until.map(clock::monotonic);
    op::run(|door| match sleep::futex_wait(door, word, expected, until) {
        Err(Errno::EAGAIN) => Ok(false),
        answer => answer.map(|()| true),
    })
}
