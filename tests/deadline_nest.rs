//! Several deadlines on a thread: each is its own, the earliest acts first, and one that is dropped or moved leaves the others as they were.
#![allow(unsafe_code, missing_docs)] // as in tests/common

mod common;
#[path = "common/counting.rs"]
mod counting;
#[path = "common/deadlines.rs"]
mod deadlines;

use common::{Random, State};
use counting::{kinds, real_time};
use deadlines::{DUE, HOUR, ms, plain_poll, slept_well, told, us};
use eintr::{Deadline, Interrupted, Reason, Resend, Scope, ScopeOptions};
use std::mem::forget;
use std::time::{Duration, Instant};

/// Sleeps until an interrupt.
fn sleep_on() -> Interrupted {
    eintr::sleep(Duration::MAX).unwrap_err()
}

/// The order in which they are made does not matter, and each says of itself alone whether it has passed.
#[test]
fn the_earliest_acts_first_and_expired_is_only_its_own() {
    let _t = common::begin();
    for sig in kinds() {
        let scope = Scope::enter(sig).unwrap();
        for order in [[1, 2, 3], [3, 2, 1], [2, 3, 1], [2, 1, 3]] {
            let begun = Instant::now();
            let mut limits: Vec<_> = order.iter().map(|n| (ms(4) * *n, scope.timeout(ms(4) * *n).unwrap())).collect();
            limits.sort_by_key(|(length, _)| *length);
            while !limits.is_empty() {
                assert_eq!(sleep_on().reason(), Reason::Deadline);
                // Looked at from the last to the first: if one has passed, those before it have.
                let passed: Vec<_> = limits.iter().rev().map(|(_, limit)| limit.expired()).collect();
                assert!(passed.is_sorted() && passed.contains(&true), "{order:?}: {passed:?}");
                assert!(
                    limits.iter().all(|(length, limit)| !limit.expired() || begun.elapsed() >= *length),
                    "{order:?}"
                );
                limits.retain(|(_, limit)| !limit.expired());
            }
            assert_eq!(told(), None);
        }
    }
}

#[test]
fn in_whatever_order_they_are_dropped_the_others_act_at_their_time() {
    let _t = common::begin();
    let mut random = Random::new();
    let scope = Scope::enter(libc::SIGUSR1).unwrap();
    for round in 0..60 {
        let mut limits: Vec<_> = (0..12).map(|_| scope.timeout(HOUR).unwrap()).collect();
        let begun = Instant::now();
        let last = scope.timeout(us(400)).unwrap();
        let also_near = scope.timeout(us(100 + random.below(200))).unwrap();
        drop(also_near);
        while !limits.is_empty() {
            let which = match round % 3 {
                0 => limits.len() - 1,
                1 => 0,
                _ => random.below(limits.len() as u64) as usize,
            };
            drop(limits.remove(which));
        }
        assert_eq!(sleep_on().reason(), Reason::Deadline);
        assert!(begun.elapsed() >= us(400) && last.expired());
        drop(last);
        assert_eq!(told(), None);
    }
}

/// Forward, back, and into the past; and one that had passed is taken back, with everything that it had set going.
#[test]
fn reset_moves_it_wherever_it_was() {
    let _t = common::begin();
    for sig in kinds() {
        let scope = Scope::enter(sig).unwrap();
        let beside = scope.timeout(HOUR).unwrap();
        for acknowledged in [false, true] {
            let limit = scope.timeout(ms(1)).unwrap();
            limit.reset(Instant::now() + HOUR);
            assert!((0..4).all(|_| slept_well(ms(1))) && !limit.expired() && told().is_none(), "forward");
            let at = Instant::now() + ms(1);
            limit.reset(at);
            assert_eq!((plain_poll(), limit.expired()), (libc::EINTR, true), "back");
            assert!(Instant::now() >= at);
            if acknowledged {
                assert_eq!(told(), DUE);
            }
            limit.reset(Instant::now() + HOUR);
            assert!(!limit.expired() && told().is_none() && scope.interrupted().is_none(), "after it passed");
            assert!((0..20).all(|_| slept_well(ms(1))), "nothing of it comes any more");
            limit.reset(Instant::now() - ms(1));
            assert!(told() == DUE && limit.expired(), "into the past");
            limit.reset(Instant::now());
            assert_eq!(told(), DUE, "due to due");
            limit.reset(Instant::now() + ms(1));
            assert_eq!(told(), None);
            assert_eq!(sleep_on().reason(), Reason::Deadline);
            assert!(!beside.expired());
            drop(limit);
            assert_eq!(told(), None);
        }
    }
}

/// What is taken back is its own: the others, and a remote's interrupt, stay.
#[test]
fn dropping_or_resetting_one_that_has_passed_leaves_the_other_interrupts() {
    let _t = common::begin();
    let scope = Scope::enter(libc::SIGUSR1).unwrap();
    for drops in [true, false] {
        let [one, two] = [(); 2].map(|()| scope.timeout(Duration::ZERO).unwrap());
        let away = |limit: Deadline<'_>| if drops { drop(limit) } else { limit.reset(Instant::now() + HOUR) };
        away(one);
        assert_eq!((told(), two.expired()), (DUE, true));
        scope.remote().interrupt();
        away(two);
        assert_eq!(told(), Some(Reason::Remote));
        assert!(scope.clear().is_some() && told().is_none());
        let unseen = scope.timeout(us(50)).unwrap();
        let other = scope.timeout(us(60)).unwrap();
        assert_eq!(plain_poll(), libc::EINTR);
        eintr::sleep(Duration::MAX).unwrap_err();
        away(unseen);
        while !other.expired() {}
        assert_eq!(told(), DUE);
    }
}

#[test]
fn the_one_of_the_options_lasts_to_the_end_of_the_scope_and_counts_from_enter() {
    let _t = common::begin();
    for sig in kinds() {
        let options = ScopeOptions::new(sig).timeout(HOUR).timeout(ms(3));
        std::thread::sleep(ms(4)); // made long before: what counts is when it is entered
        let begun = Instant::now();
        let scope = options.clone().enter().unwrap();
        let own = scope.timeout(HOUR).unwrap();
        assert_eq!((sleep_on().reason(), own.expired()), (Reason::Deadline, false));
        assert!(begun.elapsed() >= ms(3));
        drop(own);
        for _ in 0..3 {
            assert!(told() == DUE && scope.clear().is_none());
        }
        let inner = Scope::enter(sig).unwrap();
        assert_eq!((told(), inner.interrupted()), (DUE, None));
        drop(inner);
        drop(scope);
        assert_eq!(told(), None);
        let begun = Instant::now();
        let scope = options.enter().unwrap();
        assert!(sleep_on().reason() == Reason::Deadline && begun.elapsed() >= ms(3), "the second time too");
        drop(scope);
        let scope = ScopeOptions::new(sig).timeout(Duration::ZERO).deadline(Instant::now() + HOUR).enter().unwrap();
        assert_eq!(told(), None, "in place of the one said before");
        drop(scope);
    }
    assert!(slept_well(ms(5)) && told().is_none());
}

#[test]
fn a_forgotten_one_ends_with_its_scope() {
    let _t = common::begin();
    let before = State::now();
    let around = Scope::enter(libc::SIGUSR2).unwrap();
    for sig in kinds() {
        for nested in [false, true] {
            let outer = nested.then(|| Scope::enter(sig).unwrap());
            let scope = Scope::enter(sig).unwrap();
            for length in [ms(2), us(1), HOUR, Duration::ZERO, Duration::MAX] {
                forget(scope.timeout(length).unwrap());
            }
            assert_eq!(told(), DUE);
            let unheard = (0..3).all(|_| slept_well(us(100)));
            drop(scope);
            assert!(told().is_none() && slept_well(ms(4)), "after {unheard}");
            drop(outer);
        }
    }
    drop(around);
    assert_eq!(State::now(), before);
}

/// Each by its own number, to the thread that is in both; and the scope that ends takes its own along.
#[test]
fn two_scopes_with_two_numbers_have_deadlines_of_their_own() {
    let _t = common::begin();
    let before = State::now();
    for (one, two) in [(libc::SIGUSR1, real_time()), (real_time(), libc::SIGUSR1), (libc::SIGUSR1, libc::SIGUSR2)] {
        let never = |sig| ScopeOptions::new(sig).resend(Resend::Never).enter().unwrap();
        let (outer, inner) = (never(one), never(two));
        let (late, later) = (outer.timeout(HOUR).unwrap(), inner.timeout(HOUR).unwrap());
        for scope in [&outer, &inner] {
            let limit = scope.timeout(ms(1)).unwrap();
            assert_eq!(plain_poll(), libc::EINTR);
            assert!(limit.expired() && told() == DUE && scope.interrupted().is_some());
            let other = if std::ptr::eq(scope, &outer) { &inner } else { &outer };
            assert_eq!(other.interrupted(), None);
            drop(limit);
            assert_eq!(told(), None);
        }
        let (of_inner, of_outer) = (inner.timeout(us(100)).unwrap(), outer.timeout(us(150)).unwrap());
        while !of_inner.expired() || !of_outer.expired() {
            sleep_on();
        }
        forget((of_outer, late));
        drop(outer);
        assert!(told() == DUE && inner.interrupted().is_some());
        drop(of_inner);
        assert!(told().is_none() && slept_well(ms(2)) && !later.expired());
        later.reset(Instant::now() + ms(1));
        assert_eq!((plain_poll(), told()), (libc::EINTR, DUE), "the lane that is left goes on");
        drop(later);
        drop(inner);
        assert_eq!((told(), State::now() == before), (None, true));
    }
}

/// The list is walked at every expiry, and by every drop.
#[test]
fn a_thousand_nested_ones_each_act_and_are_each_taken_off() {
    let _t = common::begin();
    let mut random = Random::new();
    let scope = Scope::enter(libc::SIGUSR1).unwrap();
    let begun = Instant::now();
    let mut limits: Vec<_> =
        (0..1000).map(|n| (us(20) * n + ms(2), scope.timeout(us(20) * n + ms(2)).unwrap())).collect();
    let mut woken = 0;
    while !limits.is_empty() {
        sleep_on();
        woken += 1;
        let now = begun.elapsed();
        assert!(limits.iter().any(|(_, limit)| limit.expired()));
        assert!(limits.iter().all(|(length, limit)| !limit.expired() || begun.elapsed() >= *length), "at {now:?}");
        while let Some(n) = limits.iter().position(|(_, limit)| limit.expired()) {
            drop(limits.remove(n));
        }
        assert!(told().is_none() || limits.iter().any(|(_, limit)| limit.expired()));
    }
    println!("1,000 deadlines in {woken} wake-ups");
    let mut limits: Vec<_> = (0..1000).map(|n| scope.timeout(ms(1) + us(n)).unwrap()).collect();
    while limits.len() > 1 {
        drop(limits.swap_remove(1 + random.below(limits.len() as u64 - 1) as usize));
    }
    assert_eq!(sleep_on().reason(), Reason::Deadline);
    drop(limits);
    assert!(told().is_none() && slept_well(ms(3)));
}
