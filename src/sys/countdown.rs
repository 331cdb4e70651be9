//! The time that is left to a call with a relative time-out, when it is made again after somebody else's signal.
//!
//! # Invariants
//! 1. The first try is given what the caller gave, unchanged: zero looks, none waits for ever, and what is no time is the kernel's to refuse.
//! 2. The end is fixed once, before the first try, on CLOCK_MONOTONIC, which the kernel counts these time-outs by. Later tries are given what is
//!    left until then, and nothing less, so the whole wait is never shorter than asked for; and it does end, however many signals come.

use crate::kernel::clock;
use libc::{c_int, timespec};
use std::time::{Duration, Instant};

/// See the module.
#[derive(Debug)]
pub(super) struct Countdown {
    given: Option<timespec>,
    /// None for a time-out that need not be counted: there is none, it is zero, it is no time, or it ends later than any instant.
    end: Option<Instant>,
    begun: bool,
}

impl Countdown {
    pub(super) fn of(timeout: Option<timespec>) -> Countdown {
        let length = timeout.as_ref().and_then(duration).filter(|length| !length.is_zero());
        let end = length.and_then(|length| Instant::now().checked_add(length));
        Countdown { given: timeout, end, begun: false }
    }

    /// For the next try.
    pub(super) fn left(&mut self) -> Option<timespec> {
        match self.end.filter(|_| std::mem::replace(&mut self.begun, true)) {
            Some(end) => Some(clock::length(end.saturating_duration_since(Instant::now()))),
            None => self.given,
        }
    }

    /// The same in milliseconds, rounded up, so that no try ends early; -1 for none.
    pub(super) fn left_milliseconds(&mut self) -> c_int {
        let Some(left) = self.left() else { return -1 };
        let milliseconds = left.tv_sec.saturating_mul(1000).saturating_add((left.tv_nsec + 999_999) / 1_000_000);
        c_int::try_from(milliseconds).unwrap_or(c_int::MAX)
    }
}

/// Milliseconds as poll(2) and epoll_wait(2) have them: a negative number is no time-out.
pub(super) fn milliseconds(time: c_int) -> Option<timespec> {
    u64::try_from(time).ok().map(|milliseconds| clock::length(Duration::from_millis(milliseconds)))
}

/// `None` for what the kernel refuses.
fn duration(time: &timespec) -> Option<Duration> {
    let nanoseconds = u32::try_from(time.tv_nsec).ok().filter(|n| *n < 1_000_000_000)?;
    Some(Duration::new(u64::try_from(time.tv_sec).ok()?, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn time(tv_sec: i64, tv_nsec: i64) -> Option<timespec> {
        Some(timespec { tv_sec, tv_nsec })
    }

    fn pair(time: Option<timespec>) -> Option<(i64, i64)> {
        time.map(|t| (t.tv_sec, t.tv_nsec))
    }

    #[test]
    fn what_needs_no_counting_is_given_unchanged_each_time() {
        for given in [None, time(0, 0), time(-1, 0), time(1, -1), time(1, 1_000_000_000), time(i64::MAX, 999_999_999)] {
            let mut countdown = Countdown::of(given);
            assert!(countdown.end.is_none());
            for _ in 0..3 {
                assert_eq!(pair(countdown.left()), pair(given));
            }
        }
    }

    #[test]
    fn later_tries_are_given_what_is_left() {
        let mut countdown = Countdown::of(time(5, 7));
        assert_eq!(pair(countdown.left()), Some((5, 7)));
        let second = countdown.left().map(|t| (t.tv_sec, t.tv_nsec));
        let third = pair(countdown.left());
        assert!(second <= Some((5, 7)) && third <= second && third >= Some((0, 0)));
    }

    #[test]
    fn a_time_that_has_passed_leaves_a_look() {
        let mut countdown = Countdown::of(time(0, 1));
        countdown.left();
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!(pair(countdown.left()), Some((0, 0)));
    }

    #[test]
    fn milliseconds_are_rounded_up() {
        let as_given = |t: Option<timespec>| Countdown { given: t, end: None, begun: false }.left_milliseconds();
        assert_eq!([as_given(None), as_given(time(0, 0)), as_given(time(0, 1))], [-1, 0, 1]);
        assert_eq!([as_given(time(0, 1_000_000)), as_given(time(0, 1_000_001))], [1, 2]);
        assert_eq!([as_given(time(2, 999_999_999)), as_given(time(i64::MAX, 0))], [3000, c_int::MAX]);
        for given in [0, 1, 999, 1000, c_int::MAX] {
            assert_eq!(as_given(milliseconds(given)), given);
        }
        assert!(milliseconds(-1).is_none() && milliseconds(c_int::MIN).is_none());
    }
}
