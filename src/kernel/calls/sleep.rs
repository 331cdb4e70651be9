//! Sleeping until a time, and on a word.
//!
//! # Safety
//! Times are locals that the kernel reads; the word is a live atomic that it reads.

use crate::kernel::stub::window::{Door, call};
use libc::{clockid_t, timespec};
use nix::errno::Errno;
use std::sync::atomic::AtomicU32;

/// `int clock_nanosleep(clockid_t clock, int flags, const struct timespec *time, struct timespec *rest)`, clock_nanosleep(2), with TIMER_ABSTIME.
pub(crate) fn clock_nanosleep(door: Door<'_>, clock: clockid_t, until: timespec) -> Result<(), Errno> {
    let args = [clock as usize, libc::TIMER_ABSTIME as usize, &raw const until as usize, 0, 0, 0];
    // SAFETY: `until` is a local; with TIMER_ABSTIME no rest is written.
    unsafe { call(door, libc::SYS_clock_nanosleep, args) }.map(drop)
}

/// `long futex(uint32_t *word, int FUTEX_WAIT_BITSET, uint32_t expected, const struct timespec *until, ..., uint32_t FUTEX_BITSET_MATCH_ANY)`,
/// futex(2). `until` is of CLOCK_MONOTONIC. Not private: the word may be shared between processes.
pub(crate) fn futex_wait(
    door: Door<'_>,
    word: &AtomicU32,
    expected: u32,
    until: Option<timespec>,
) -> Result<(), Errno> {
    let until = until.as_ref().map_or(0, |t| &raw const *t as usize);
    let [word, operation, any] = [word.as_ptr() as usize, libc::FUTEX_WAIT_BITSET as usize, u32::MAX as usize];
    // SAFETY: `word` is a live atomic, `until` is null or points to a local.
    unsafe { call(door, libc::SYS_futex, [word, operation, expected as usize, until, 0, any]) }.map(drop)
}
