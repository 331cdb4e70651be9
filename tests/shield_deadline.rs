//! Shields and time: a deadline that is due, comes due inside, or later; and a forked child under a shield, which goes on with what its parent's thread had.
// Tests fork and make bare calls.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/counting.rs"]
mod counting;
#[path = "common/shielding.rs"]
mod shielding;
#[path = "common/witness.rs"]
mod witness;

use common::State;
use counting::{Counting, kinds};
use eintr::{Deadline, Delivery, Interrupted, Reason, Scope, ScopeOptions, Status, check, shield};
use shielding::{OWN, PLAIN, Silent, each};
use std::time::{Duration, Instant};

const HOUR: Duration = Duration::from_secs(3600);
const DUE: Result<(), Reason> = Err(Reason::Deadline);

fn on_each(test: impl Fn(i32)) {
    let _t = common::begin();
    for sig in kinds() {
        for handler in [None, Some(libc::SA_RESTART), Some(0)] {
            let behind = handler.map(|flags| Counting::with_flags(sig, flags));
            let before = State::now();
            test(sig);
            assert_eq!(State::now(), before, "{sig} {handler:?}");
            behind.iter().for_each(|behind| assert_eq!(behind.runs(), 0, "none of ours reaches the action behind"));
        }
    }
}

fn undisturbed() {
    each(&PLAIN).expect("plain calls are left alone");
    each(&OWN).expect("calls of the crate go on");
}

fn checked() -> Result<(), Reason> {
    check().map_err(Interrupted::reason)
}

fn read(silent: &Silent) -> Result<usize, Reason> {
    silent.read().map_err(|e| e.interrupted().expect("an interrupt").reason())
}

fn until_expired(limit: &Deadline<'_>) {
    while !limit.expired() {
        each(&PLAIN).expect("under a shield a plain call is left alone, however the time goes by");
    }
}

/// What is due has been kept, and now acts on everything: plain calls, calls of the crate, `check`.
fn acts(silent: &Silent) {
    assert_eq!(silent.plain_read(), Err(libc::EINTR));
    assert_eq!(read(silent).unwrap_err(), Reason::Deadline);
    assert_eq!(checked(), DUE);
    each(&PLAIN).expect("it was acknowledged");
}

#[test]
fn a_deadline_that_is_due_waits_until_the_shield_is_lowered() {
    on_each(|sig| {
        let (scope, silent) = (Scope::enter(sig).unwrap(), Silent::new());
        for acknowledged in [false, true] {
            let limit = scope.timeout(Duration::ZERO).unwrap();
            assert!(!acknowledged || check().is_err());
            let guard = shield();
            undisturbed();
            assert!(limit.expired(), "it tells the time, shielded or not");
            assert_eq!(scope.interrupted().map(Interrupted::reason), Some(Reason::Deadline));
            assert!(scope.clear().is_none(), "it is not the scope's to take");
            undisturbed();
            drop(guard);
            if acknowledged {
                each(&PLAIN).expect("it was acknowledged before");
                assert_eq!(read(&silent), Err(Reason::Deadline));
            } else {
                acts(&silent);
            }
            drop(limit);
            undisturbed();
        }
    });
}

#[test]
fn a_deadline_that_comes_due_under_a_shield_acts_when_it_is_lowered() {
    on_each(|sig| {
        let (scope, silent) = (Scope::enter(sig).unwrap(), Silent::new());
        for inside in [shield as fn() -> _, || {
            let lower = shield();
            drop(shield());
            lower
        }] {
            let limit = scope.timeout(Duration::from_micros(300)).unwrap();
            let guard = inside();
            until_expired(&limit);
            undisturbed();
            drop(guard);
            acts(&silent);
            drop(limit);
            undisturbed();
        }
        for once in [false, true] {
            let limit = scope.timeout(Duration::from_micros(300)).unwrap();
            let guard = shield();
            until_expired(&limit);
            drop(guard);
            // The first thing after the shield, whatever that is.
            if once { assert_eq!(checked(), DUE) } else { assert_eq!(read(&silent), Err(Reason::Deadline)) }
        }
    });
}

#[test]
fn a_deadline_that_comes_due_after_a_shield_is_on_time() {
    on_each(|sig| {
        let (scope, silent) = (Scope::enter(sig).unwrap(), Silent::new());
        for plain in [false, true] {
            let (began, time) = (Instant::now(), Duration::from_millis(3));
            let limit = scope.timeout(time).unwrap();
            let guards = (shield(), shield());
            each(&PLAIN).expect("it is not due");
            drop(guards.0);
            drop(guards.1);
            if plain {
                acts(&silent)
            } else {
                assert_eq!(read(&silent), Err(Reason::Deadline))
            }
            assert!(began.elapsed() >= time && limit.expired());
        }
    });
}

#[test]
fn a_deadline_that_is_made_inside_acts_inside() {
    on_each(|sig| {
        let (outer, silent) = (ScopeOptions::new(sig).timeout(Duration::ZERO).enter().unwrap(), Silent::new());
        outer.remote().interrupt();
        let guard = shield();
        undisturbed();
        // Of the scope that is itself shielded, and of one that is made inside.
        let limit = outer.timeout(Duration::from_millis(1)).unwrap();
        acts(&silent);
        assert!(limit.expired());
        drop(limit);
        undisturbed();
        let inner = Scope::enter(sig).unwrap();
        let limit = inner.timeout(Duration::from_millis(1)).unwrap();
        acts(&silent);
        limit.reset(Instant::now() + HOUR);
        undisturbed();
        let upper = shield();
        limit.reset(Instant::now());
        undisturbed();
        drop(upper);
        acts(&silent);
        drop(limit);
        drop(inner);
        undisturbed();
        assert_eq!(outer.remote().wait(Duration::ZERO), Status::StillRunning);
        drop(guard);
        assert_eq!(checked(), Err(Reason::Remote));
        assert!(outer.clear().is_some());
        assert_eq!(checked(), DUE, "that of the options is there as long as its scope");
    });
}

#[test]
fn a_deadline_may_be_moved_and_end_under_a_shield() {
    on_each(|sig| {
        let (scope, silent) = (Scope::enter(sig).unwrap(), Silent::new());
        let limits = [Duration::ZERO, Duration::from_micros(200), HOUR].map(|time| scope.timeout(time).unwrap());
        let guard = shield();
        limits.iter().for_each(|limit| limit.reset(Instant::now() + HOUR));
        undisturbed();
        assert!(scope.interrupted().is_none());
        limits[1].reset(Instant::now() + Duration::from_micros(200));
        until_expired(&limits[1]);
        undisturbed();
        limits[2].reset(Instant::now());
        undisturbed();
        let [first, second, third] = limits;
        drop(second);
        undisturbed();
        drop(guard);
        acts(&silent);
        drop(third);
        undisturbed();
        let guard = shield();
        first.reset(Instant::now());
        drop(first);
        drop(guard);
        undisturbed();
    });
}

/// The shield is raised and lowered at any instant of a deadline's coming due.
#[test]
fn whenever_a_shield_is_raised_a_deadline_comes_after_it_and_once() {
    let _t = common::begin();
    let mut random = common::Random::new();
    for sig in kinds() {
        let (scope, silent) = (Scope::enter(sig).unwrap(), Silent::new());
        for round in 0..common::rounds("EINTR_ROUNDS", 1500) {
            let limit = scope.timeout(Duration::from_nanos(1000 + random.below(60_000))).unwrap();
            for _ in 0..=random.below(3) {
                (0..random.below(600)).for_each(|_| std::hint::spin_loop());
                let guard = shield();
                let (name, call) = PLAIN[random.below(6) as usize];
                call().unwrap_or_else(|what| panic!("round {round}, {name}: {what}"));
                drop(guard);
            }
            match random.below(4) {
                0 => assert_eq!(silent.plain_read(), Err(libc::EINTR), "round {round}"),
                1 => assert_eq!(read(&silent), Err(Reason::Deadline), "round {round}"),
                _ => drop(limit),
            }
        }
        undisturbed();
    }
}

/// Forks; what the child holds to be true. The parent drops what is moved in here, as the child may.
fn in_child(claims: impl FnOnce()) {
    let child = common::fork(|| {
        // The harness's own hook would write into a buffer that ends with this process.
        std::panic::set_hook(Box::new(|panic| {
            let text = format!("in the child: {panic}\n");
            unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
        }));
        claims();
        0
    });
    witness::well(common::reap_in_time(child));
}

#[test]
fn a_forked_child_keeps_the_shield_and_what_it_keeps() {
    on_each(|sig| {
        let (scope, silent) = (Scope::enter(sig).unwrap(), Silent::new());
        for asked in [false, true] {
            let (guard, of_parent) = (shield(), scope.remote());
            assert!(!asked || of_parent.interrupt() == Delivery::Held);
            let scope = &scope;
            let silent = &silent;
            in_child(move || {
                assert_eq!((of_parent.interrupt(), of_parent.wait(HOUR)), (Delivery::Gone, Status::Closed));
                undisturbed();
                assert_eq!(scope.interrupted().is_some(), asked);
                if !asked {
                    assert_eq!(scope.remote().interrupt(), Delivery::Held);
                    undisturbed();
                }
                drop(guard);
                assert_eq!(silent.plain_read(), Err(libc::EINTR), "by the child's own timer");
                assert_eq!(read(silent), Err(Reason::Remote));
                each(&PLAIN).expect("it was acknowledged");
                assert!(scope.clear().is_some());
                undisturbed();
            });
            assert_eq!(check().is_err(), asked, "the parent's shield is the parent's");
            assert_eq!(scope.clear().is_some(), asked);
        }
    });
}

// The child has none of the parent's timers, and makes its own when there is something to be waited for: also when that was shielded at the fork.
#[test]
fn a_deadline_that_was_shielded_at_a_fork_is_on_time_in_the_child() {
    on_each(|sig| {
        let (scope, silent) = (Scope::enter(sig).unwrap(), Silent::new());
        for (time, plain) in
            [(Duration::ZERO, true), (Duration::from_millis(20), true), (Duration::from_millis(20), false)]
        {
            let (limit, guard) = (scope.timeout(time).unwrap(), shield());
            let (limit, silent) = (&limit, &silent);
            in_child(move || {
                undisturbed();
                drop(guard);
                if plain {
                    acts(silent)
                } else {
                    assert_eq!(read(silent), Err(Reason::Deadline))
                }
                assert!(limit.expired());
            });
            assert_eq!(read(silent), Err(Reason::Deadline), "and in the parent");
        }
    });
}
