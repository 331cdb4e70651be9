//! The longest pause of [`Resend::Backoff`] bounds each of them, the first too.
#![allow(unsafe_code, missing_docs)] // as in tests/common

mod common;
#[path = "common/counting.rs"]
mod counting;
#[path = "common/deadlines.rs"]
mod deadlines;
#[path = "common/shielding.rs"]
mod shielding;

use counting::kinds;
use deadlines::{HOUR, kernel_timers, left_of, ms};
use eintr::{Delivery, Reason, Resend, ScopeOptions};
use shielding::Silent;

/// The pauses double up to the ceiling; one that was longer from the start was taken as it is.
#[test]
fn no_pause_is_longer_than_the_ceiling() {
    let _t = common::begin();
    for sig in kinds() {
        let pauses = Resend::Backoff { first: 2 * HOUR, ceiling: HOUR };
        let scope = ScopeOptions::new(sig).resend(pauses).enter().unwrap();
        assert_eq!(scope.remote().interrupt(), Delivery::Sent);
        if let Some(timers) = kernel_timers() {
            let running: Vec<_> =
                timers.iter().filter(|timer| timer.sig == sig).map(|timer| left_of(timer.id)).collect();
            assert!(matches!(running[..], [Some(left)] if left > HOUR / 2 && left <= HOUR), "{running:?}");
        }
        drop(scope);
        // The signal has landed before the read begins, so that a resend has to end it.
        let (silent, pauses) = (Silent::new(), Resend::Backoff { first: HOUR, ceiling: ms(1) });
        let scope = ScopeOptions::new(sig).resend(pauses).enter().unwrap();
        assert_eq!(scope.remote().interrupt(), Delivery::Sent);
        assert_eq!(silent.plain_read(), Err(libc::EINTR), "the first resend comes after the ceiling");
        assert_eq!(scope.clear().map(|taken| taken.reason()), Some(Reason::Remote));
    }
}
