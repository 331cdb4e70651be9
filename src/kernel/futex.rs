//! Sleeping on a word, and waking who sleeps there.
//!
//! # Safety
//! The word is a live reference for the length of the call; the kernel only reads it.
//!
//! # Async-signal-safety
//! Both functions are.

use crate::kernel::raw;
use nix::errno::Errno;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// `long futex(uint32_t *word, int FUTEX_WAIT_PRIVATE, uint32_t value, const struct timespec *timeout)`, futex(2).
/// Sleeps while the word is `expected`, at most `timeout` (for ever without one). `false` when the time is up; any other wake-up, also a
/// spurious one or a signal, is `true`: the caller looks again.
pub(crate) fn wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) -> bool {
    let time = timeout.map(|t| libc::timespec {
        tv_sec: i64::try_from(t.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(t.subsec_nanos()),
    });
    let time = time.as_ref().map_or(0, |t| &raw const *t as usize);
    let op = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: `word` is a live atomic, `time` is null or a valid timespec on this stack.
    let r = unsafe { raw::call(libc::SYS_futex, [word.as_ptr() as usize, op as usize, expected as usize, time]) };
    r != Err(Errno::ETIMEDOUT)
}

/// `long futex(uint32_t *word, int FUTEX_WAKE_PRIVATE, int count)`, futex(2). Wakes everybody who sleeps on the word.
pub(crate) fn wake_all(word: &AtomicU32) {
    let op = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the address of a live atomic; FUTEX_WAKE does not write to it.
    let _ = unsafe { raw::call(libc::SYS_futex, [word.as_ptr() as usize, op as usize, i32::MAX as usize, 0]) };
}
