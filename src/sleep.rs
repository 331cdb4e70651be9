//! Sleeping until an interrupt.

use crate::engine::op;
use crate::error::{Error, Interrupted};
use crate::kernel::calls::sleep::clock_nanosleep;
use crate::kernel::clock::{exact, later, monotonic};
use libc::timespec;
use std::time::{Duration, Instant};

/// [`std::thread::sleep`] that ends on an interrupt. Signals from elsewhere do not shorten it, nor do they make it longer.
///
/// # Errors
/// The interrupt; at once, if one is pending.
pub fn sleep(d: Duration) -> Result<(), Interrupted> {
    until(later(exact(), d))
}

/// The same to an instant; one that has passed is no error.
///
/// # Errors
/// As [`sleep`].
pub fn sleep_until(at: Instant) -> Result<(), Interrupted> {
    until(monotonic(at))
}

fn until(time: timespec) -> Result<(), Interrupted> {
    match op::run(|door| clock_nanosleep(door, libc::CLOCK_MONOTONIC, time)) {
        Err(Error::Interrupted(interrupted)) => Err(interrupted),
        Ok(()) => Ok(()),
        // A filter: the call fails for nothing else that can be passed here.
        Err(Error::Os(_)) => {
            let now = exact();
            let rest = Duration::new(time.tv_sec as u64, time.tv_nsec as u32);
            std::thread::sleep(rest.saturating_sub(Duration::new(now.tv_sec as u64, now.tv_nsec as u32)));
            Ok(())
        }
    }
}
