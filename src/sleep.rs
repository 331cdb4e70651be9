//! Sleeping until an interrupt.

use crate::engine::op;
use crate::error::{Error, Interrupted};
use crate::kernel::calls::sleep::clock_nanosleep;
use crate::kernel::clock::{duration, exact, later, length, monotonic};
use crate::sys;
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
        // A filter: the call fails for nothing else that can be passed here. (std's own sleep makes the same call, and panics.)
        Err(Error::Os(_)) => {
            let rest = duration(time).saturating_sub(duration(exact()));
            match sys::ppoll(&mut [], Some(length(rest).into()), None) {
                Err(Error::Interrupted(interrupted)) => return Err(interrupted),
                Err(Error::Os(_)) => std::thread::sleep(rest),
                Ok(_) => {}
            }
            Ok(())
        }
    }
}
