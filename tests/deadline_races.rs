//! Deadlines that are dropped, moved and acknowledged around their time, beside senders that set the same timer: none is lost, and nothing comes of one that is
//! no more.
#![allow(unsafe_code, missing_docs)] // as in tests/common

mod common;
#[path = "common/counting.rs"]
mod counting;
#[path = "common/deadlines.rs"]
mod deadlines;
#[path = "common/gatekeeper.rs"]
mod gatekeeper;

use common::{Random, State};
use counting::{kinds, undisturbed};
use deadlines::{Beside, DUE, HOUR, HOURS, ms, plain_poll, slept_well, spin_until, told, us};
use eintr::{Deadline, Delivery, Interrupted, Reason, Scope, ScopeOptions};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// An instant close by, and one around it.
fn close_by(random: &mut Random) -> (Instant, Instant) {
    let at = Instant::now() + us(12) + Duration::from_nanos(random.below(10_000));
    (at, at + Duration::from_nanos(random.below(6000)) - Duration::from_nanos(3500))
}

/// What each of them takes off is looked at by a plain sleep and a plain poll, which any signal breaks.
fn nothing_comes_afterwards(away: fn(Deadline<'_>, &mut Random)) {
    let _t = common::begin();
    let before = State::now();
    let mut random = Random::new();
    for sig in kinds() {
        let (mut passed, mut strays) = (0, 0);
        let rounds = common::rounds("EINTR_DROPS", 12_000) / 2;
        let scope = Scope::enter(sig).unwrap();
        for round in 0..rounds {
            let beside = (round % 4 == 0).then(|| scope.timeout(HOUR).unwrap());
            let (at, then) = close_by(&mut random);
            let limit = scope.deadline(at).unwrap();
            spin_until(then);
            if round % 2 == 0 {
                passed += u64::from(limit.expired());
            }
            away(limit, &mut random);
            let undisturbed = if round % 2 == 0 { slept_well(us(1)) } else { undisturbed(us(1)) };
            strays += u64::from(!undisturbed);
            assert!(told().is_none() && beside.is_none_or(|beside| !beside.expired()));
        }
        println!("{rounds} rounds of signal {sig}, {passed} of every other had passed");
        assert_eq!(strays, 0, "signals that nobody wanted, in {rounds} rounds");
        assert!(
            passed > rounds / 100 && passed < rounds / 2 - rounds / 100,
            "too early or too late: {passed} of {rounds}"
        );
        drop(scope);
    }
    assert_eq!(State::now(), before);
}

// The entry is off the list, and the timer not yet told, when the expiry lands: the handler finds nothing to be due, and must not set the timer for what has
// passed, or the signal is there again before it has returned, for ever.
#[test]
fn of_one_that_is_dropped_around_its_time_nothing_comes_afterwards() {
    nothing_comes_afterwards(|limit, _| drop(limit));
}

#[test]
fn of_one_that_is_moved_away_around_its_time_nothing_comes_afterwards() {
    nothing_comes_afterwards(|limit, random| {
        limit.reset(Instant::now() + HOUR);
        if random.chance(2) {
            assert!(undisturbed(us(1)), "a signal after a reset");
        }
        assert!(!limit.expired() && told().is_none());
    });
}

/// The options' own goes with its scope: the action that comes back must not meet the expiry.
#[test]
fn of_one_that_ends_with_its_scope_around_its_time_nothing_comes_afterwards() {
    let _t = common::begin();
    let mut random = Random::new();
    for sig in kinds() {
        let behind = counting::Counting::on(sig);
        let before = State::now();
        for round in 0..common::rounds("EINTR_DROPS", 12_000) / 2 {
            let outer = (round % 3 == 0).then(|| Scope::enter(sig).unwrap());
            let (at, then) = close_by(&mut random);
            let scope = ScopeOptions::new(sig).deadline(at).enter().unwrap();
            spin_until(then);
            drop(scope);
            assert!(undisturbed(us(1)) && told().is_none(), "round {round}");
            drop(outer);
            assert_eq!(behind.runs(), 0, "the action behind has met it, round {round}");
        }
        assert_eq!(State::now(), before);
    }
}

/// A sender stands before its setting of the timer, for an hour; the thread sets it for a deadline; the sender's setting comes last. It looks again at what the
/// thread has written down.
#[test]
fn a_senders_arming_does_not_displace_a_deadline() {
    let _t = common::begin_with(Duration::from_secs(20));
    if !gatekeeper::can_hold() {
        return;
    }
    for sig in kinds() {
        for resets in [false, true] {
            let scope = ScopeOptions::new(sig).resend(HOURS).enter().unwrap();
            let far = resets.then(|| scope.timeout(HOUR * 2).unwrap());
            let remote = scope.remote();
            let Some(sender) = gatekeeper::hold_in(libc::SYS_timer_settime, move || remote.interrupt()) else { return };
            let begun = Instant::now();
            let near = far.is_none().then(|| scope.timeout(ms(20)).unwrap());
            let limit = far.or(near).unwrap();
            limit.reset(begun + ms(20));
            assert_eq!(sender.release(), Delivery::Sent);
            // Nothing is acknowledged: that would set the timer anew. A poll that began before the first signal is told of that.
            while !limit.expired() {
                assert_eq!(plain_poll(), libc::EINTR);
            }
            assert!(begun.elapsed() >= ms(20));
            assert_eq!(scope.clear().map(Interrupted::reason), Some(Reason::Remote));
            assert_eq!(told(), DUE);
        }
    }
}

/// Dropped, moved away, and dropped after it had passed.
const AWAY: [fn(Deadline<'_>); 3] = [
    |limit| drop(limit),
    |limit| limit.reset(Instant::now() + HOUR),
    |limit| {
        limit.reset(Instant::now() - ms(1));
        drop(limit);
    },
];

/// The timer is set anew, or stopped, where a deadline goes that it was set for: with that the resend of a request is gone, which has long been sent for the
/// first time. So the gates are looked at.
#[test]
fn a_deadline_that_goes_does_not_take_a_resend_along() {
    let _t = common::begin_with(Duration::from_secs(20));
    for sig in kinds() {
        for away in AWAY {
            for further in [false, true] {
                let scope = Scope::enter(sig).unwrap();
                let further = further.then(|| scope.timeout(HOUR).unwrap());
                let limit = scope.timeout(HOUR / 2).unwrap();
                assert_eq!(scope.remote().interrupt(), Delivery::Sent); // and it has landed
                away(limit);
                assert_eq!(plain_poll(), libc::EINTR);
                assert_eq!(told(), Some(Reason::Remote));
                drop(further);
            }
        }
    }
}

/// The timer is one for both: what it expires for is told by the clock.
#[test]
fn the_expiry_of_a_resend_does_not_make_a_deadline_due() {
    let _t = common::begin();
    for sig in kinds() {
        let scope = Scope::enter(sig).unwrap();
        let limit = scope.timeout(HOUR).unwrap();
        scope.remote().interrupt();
        for _ in 0..3 {
            assert_eq!(plain_poll(), libc::EINTR);
        }
        assert!(scope.clear().is_some());
        assert!(told().is_none() && scope.interrupted().is_none() && !limit.expired());
        assert!(slept_well(ms(1)));
    }
}

/// A scope with long pauses has armed the timer, for a request or for a deadline that nobody acknowledges; another one, on the same number, wants it sooner.
#[test]
fn short_pauses_count_beside_long_ones() {
    let _t = common::begin_with(Duration::from_secs(20));
    for sig in kinds() {
        for (long_is_outer, long_is_due) in [(true, true), (true, false), (false, true), (false, false)] {
            let (long, short) = (ScopeOptions::new(sig).resend(HOURS), ScopeOptions::new(sig));
            let (outer, inner) = if long_is_outer { (long, short) } else { (short, long) };
            let (outer, inner) = (outer.enter().unwrap(), inner.enter().unwrap());
            let (long, short) = if long_is_outer { (&outer, &inner) } else { (&inner, &outer) };
            let _due = long_is_due.then(|| long.timeout(Duration::ZERO).unwrap());
            if !long_is_due {
                long.remote().interrupt();
            }
            short.remote().interrupt();
            for _ in 0..3 {
                assert_eq!(plain_poll(), libc::EINTR, "the request's");
            }
            assert!(short.clear().is_some());
            let limit = short.timeout(us(100)).unwrap();
            for _ in 0..3 {
                assert_eq!(plain_poll(), libc::EINTR, "the deadline's");
            }
            drop(limit);
        }
    }
}

/// Two looks at the clock would lose the one whose time falls between them: passed for the one, still to come for the other. A resend expires at about the
/// time of the deadline, so the handler looks there.
#[test]
fn one_that_passes_while_the_handler_looks_is_not_lost() {
    let _t = common::begin();
    let mut random = Random::new();
    for sig in kinds() {
        let scope = Scope::enter(sig).unwrap();
        for _ in 0..common::rounds("EINTR_DROPS", 12_000) / 2 {
            scope.remote().interrupt();
            let at = Instant::now() + us(48) + Duration::from_nanos(random.below(8000));
            let limit = scope.deadline(at).unwrap();
            spin_until(at + us(8));
            assert!(scope.clear().is_some());
            assert_eq!(plain_poll(), libc::EINTR); // for ever, if the deadline is lost
            drop(limit);
        }
    }
}

/// The expiry is still on its way when the thread looks at the clock; or it does not come, since the number is blocked. What looks next must find what that has
/// told.
#[test]
fn who_is_told_that_it_is_due_finds_it_due_everywhere() {
    let _t = common::begin();
    for sig in kinds() {
        let scope = Scope::enter(sig).unwrap();
        let (from, to) = common::pipe();
        assert_eq!(nix::unistd::write(&to, b"data"), Ok(4));
        for round in 0..4000 {
            let mask = if round % 1000 < 8 { common::block(sig) } else { common::mask() };
            let limit = scope.deadline(Instant::now() + us(5)).unwrap();
            if round % 2 == 0 {
                while scope.interrupted().is_none() {}
            } else {
                while !limit.expired() {}
            }
            match round / 2 % 2 {
                0 => assert_eq!(told(), DUE, "round {round}"),
                _ => assert!(eintr::sys::read(&from, &mut [0; 8]).is_err(), "round {round}"),
            }
            drop(limit);
            common::set_mask(mask);
        }
    }
}

/// All of them on one number, at about the same instants.
#[test]
fn threads_on_one_number_have_deadlines_of_their_own() {
    let _t = common::begin();
    let before = State::now();
    for sig in kinds() {
        let work = move |mut random: Random| {
            let scope = Scope::enter(sig).unwrap();
            for round in 0..common::rounds("EINTR_DEADLINE_RACES", 10_000) / 25 {
                let at = Instant::now() + us(random.below(200));
                let (limit, far) = (scope.deadline(at).unwrap(), scope.timeout(HOUR).unwrap());
                match round % 2 {
                    0 => assert_eq!(eintr::sleep(Duration::MAX).map_err(Interrupted::reason), Err(Reason::Deadline)),
                    _ => assert_eq!(plain_poll(), libc::EINTR),
                }
                assert!(Instant::now() >= at && limit.expired() && !far.expired());
                drop(limit);
                assert!(told().is_none() && undisturbed(us(1)));
            }
        };
        let mut random = Random::new();
        let threads: [_; 8] = std::array::from_fn(|_| {
            let random = Random::seeded(random.next());
            std::thread::spawn(move || work(random))
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
    assert_eq!(State::now(), before);
}

/// A round: the thread has a deadline; the sender interrupts around it, with pauses of hours, so that what it arms does not help. The thread acknowledges, at
/// any instant; when the sender is through, what is left is the deadline.
#[test]
fn among_interrupts_and_acknowledgements_no_deadline_is_lost() {
    let _t = common::begin();
    let mut random = Random::new();
    for sig in kinds() {
        let scope = ScopeOptions::new(sig).resend(HOURS).enter().unwrap();
        let (round, answered) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let sender = {
            let (round, answered, remote) = (round.clone(), answered.clone(), scope.remote());
            let (mut random, mut last) = (Random::seeded(random.next()), 0);
            Beside::again_and_again(move || {
                let now = round.load(SeqCst);
                if now == last {
                    return std::thread::yield_now();
                }
                for _ in 0..random.below(4) {
                    spin_until(Instant::now() + Duration::from_nanos(random.below(12_000)));
                    assert_ne!(remote.interrupt(), Delivery::Gone);
                }
                last = now;
                answered.store(now, SeqCst);
            })
        };
        let begun = Instant::now();
        for n in 1..=common::rounds("EINTR_DEADLINE_RACES", 10_000) {
            if n > 500 && begun.elapsed() > Duration::from_secs(3) {
                println!("{n} rounds of signal {sig}: a busy machine");
                break;
            }
            let far = random.chance(3).then(|| scope.timeout(HOUR).unwrap());
            round.store(n, SeqCst);
            let at = Instant::now() + us(5) + Duration::from_nanos(random.below(30_000));
            let limit = scope.deadline(at).unwrap();
            while answered.load(SeqCst) != n {
                match random.below(4) {
                    0 => _ = eintr::check(),
                    1 => _ = scope.clear(),
                    2 => drop(far.as_ref().map(|far| far.reset(Instant::now() + HOUR))),
                    _ => std::thread::yield_now(),
                }
            }
            scope.clear();
            // By now there is no request. It sleeps for ever if the deadline is lost.
            assert_eq!(eintr::sleep(Duration::MAX).map_err(Interrupted::reason), Err(Reason::Deadline));
            assert!(limit.expired() && Instant::now() >= at);
            drop((limit, far));
            assert_eq!(told(), None);
        }
        drop(sender);
    }
}
