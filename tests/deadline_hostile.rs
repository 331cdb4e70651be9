//! Deadlines in programs that get in their way: an action that is replaced for a moment, a forked child that moves one, a dispatcher that hands on the number
//! alone, an expiry that somebody has eaten. What was said to happen still does, and nothing else.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)] // as in tests/common

mod common;
#[path = "common/counting.rs"]
mod counting;
#[path = "common/deadlines.rs"]
mod deadlines;
#[path = "common/shielding.rs"]
mod shielding;
#[path = "common/witness.rs"]
mod witness;

use counting::{Counting, kinds};
use deadlines::{DUE, HOUR, NoRoom, ms, slept_well, spin_until, told, us};
use eintr::{Deadline, Delivery, Error, Interrupted, Reason, Resend, Scope, ScopeOptions, shield, sys};
use shielding::Silent;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};
use witness::{child, well};

fn by_deadline<T: Debug>(answer: Result<T, Error>) {
    assert_eq!(answer.map_err(|error| error.interrupted().map(Interrupted::reason)).map(drop), Err(DUE));
}

type OnScope = fn(&Scope);

/// What looks whose action stands, and stops the timer where it is a stranger's.
const MEANWHILE: [(&str, OnScope); 3] = [
    ("another deadline, made and dropped", |scope| drop(scope.timeout(ms(20)).unwrap())),
    ("a shield, raised and lowered", |_| drop(shield())),
    ("an acknowledgement", |scope| {
        assert_eq!(scope.remote().interrupt(), Delivery::Displaced);
        assert!(told() == Some(Reason::Remote) && scope.clear().is_some());
    }),
];

/// The timer is stopped while a stranger's handler stands; that it is so was forgotten, and nobody set it again when the scope's was back.
#[test]
fn one_whose_number_was_displaced_for_a_moment_acts() {
    let _t = common::begin();
    for sig in kinds() {
        for (what, meanwhile) in MEANWHILE {
            for _ in 0..3 {
                let (scope, silent) = (Scope::enter(sig).unwrap(), Silent::new());
                let at = Instant::now() + ms(50);
                let limit = scope.deadline(at).unwrap();
                let stranger = Counting::on(sig);
                meanwhile(&scope);
                drop(stranger);
                println!("{what}, signal {sig}");
                by_deadline(silent.read());
                assert!(Instant::now() >= at && limit.expired() && told() == DUE);
            }
        }
    }
}

/// The first was noted as what the timer is set for, which it was not: a second, later one relied on it.
#[test]
fn one_that_was_made_while_displaced_does_not_keep_a_later_one_from_acting() {
    let _t = common::begin();
    for sig in kinds() {
        for plainly in [false, true] {
            let (scope, silent) = (Scope::enter(sig).unwrap(), Silent::new());
            let stranger = Counting::on(sig);
            let first = Instant::now() + ms(50);
            let _first = scope.deadline(first).unwrap();
            drop(stranger);
            let _second = scope.timeout(ms(60)).unwrap();
            if plainly {
                assert_eq!(silent.plain_read(), Err(libc::EINTR));
            } else {
                by_deadline(silent.read());
            }
            assert!(Instant::now() >= first && told() == DUE);
        }
    }
}

/// A child inherits no timer; where nothing was to come at the fork, moving a deadline is the first that needs one.
#[test]
fn one_that_a_forked_child_moves_acts_there() {
    let _t = common::begin();
    for sig in kinds() {
        for (before, plainly) in
            [Duration::MAX, Duration::ZERO].into_iter().flat_map(|time| [(time, false), (time, true)])
        {
            let scope = Scope::enter(sig).unwrap();
            let limit = scope.timeout(before).unwrap();
            // The one that is due was acknowledged before the fork.
            assert_eq!(told(), (before == Duration::ZERO).then_some(Reason::Deadline));
            well(child(|| {
                let (silent, at) = (Silent::new(), Instant::now() + ms(50));
                limit.reset(at);
                if plainly {
                    assert_eq!(silent.plain_read(), Err(libc::EINTR), "{before:?}");
                } else {
                    by_deadline(silent.read());
                }
                assert!(Instant::now() >= at && told() == DUE);
            }));
        }
    }
}

static OURS: AtomicUsize = AtomicUsize::new(0);
static HANDED_ON: AtomicU64 = AtomicU64::new(0);

/// Calls the handler before it as `void handler(int)`: what the other registers hold is anything.
extern "C" fn hands_on_the_number_alone(sig: i32) {
    // SAFETY: the handler that stood before this one takes up to three arguments, and believes two of them only after it has looked.
    let before = unsafe { std::mem::transmute::<usize, extern "C" fn(i32, usize, usize)>(OURS.load(SeqCst)) };
    before(sig, 1, 1);
    HANDED_ON.fetch_add(1, SeqCst);
}

/// Expiries are not counted as what is sent is: one that came so was taken for somebody else's, and the handler behind ran for a signal that nobody had sent.
#[test]
fn an_expiry_by_way_of_a_bare_dispatcher_is_not_taken_for_somebody_elses() {
    let _t = common::begin();
    common::in_own_process("an_expiry_by_way_of_a_bare_dispatcher_is_not_taken_for_somebody_elses", || {
        for sig in kinds() {
            let behind = Counting::on(sig); // before the first scope, so that it is what ours hands on to
            for round in 0..10 {
                let scope = Scope::enter(sig).unwrap();
                let limit = scope.timeout(ms(3)).unwrap();
                let dispatcher = hands_on_the_number_alone as *const () as usize;
                let ours = common::install(sig, dispatcher, libc::SA_RESTART, &[]);
                OURS.store(ours.handler, SeqCst);
                let before = HANDED_ON.load(SeqCst);
                common::wait_until(|| HANDED_ON.load(SeqCst) != before);
                assert_eq!(behind.runs(), round, "the handler behind ran for an expiry");
                by_deadline(sys::read(&common::pipe().0, &mut [0]));
                assert!(limit.expired() && told() == DUE);
                drop(limit);
                // SAFETY: a number.
                unsafe { libc::raise(sig) };
                assert_eq!(behind.runs(), round + 1, "somebody else's signal is its own");
                common::restore(sig, ours);
            }
        }
    });
}

/// A scope, asked and not acknowledged, whose resend was claimed, but not set, since a stranger's handler stood.
fn claimed_and_not_set(sig: i32, pause: Duration) -> Scope {
    let scope = ScopeOptions::new(sig).resend(Resend::Backoff { first: pause, ceiling: pause }).enter().unwrap();
    let makes_the_timer = scope.timeout(ms(1)).unwrap();
    common::wait_until(|| makes_the_timer.expired());
    assert_eq!(told(), DUE);
    drop(makes_the_timer);
    assert_eq!(told(), None);
    let stranger = Counting::on(sig);
    assert_eq!(scope.remote().interrupt(), Delivery::Displaced);
    drop(scope.timeout(Duration::ZERO).unwrap());
    drop(stranger);
    scope
}

#[test]
fn a_resend_that_was_claimed_and_not_set_disturbs_nobody_later() {
    let _t = common::begin();
    for sig in kinds() {
        let scope = claimed_and_not_set(sig, ms(150));
        assert!(told() == Some(Reason::Remote) && scope.clear().is_some());
        let _far = scope.timeout(HOUR).unwrap();
        assert!(slept_well(ms(300)), "nothing is asked, nothing is due");
        assert_eq!(told(), None);
    }
}

#[test]
fn a_resend_that_was_claimed_and_not_set_keeps_none_of_a_later_scope_back() {
    let _t = common::begin();
    for sig in kinds() {
        drop(claimed_and_not_set(sig, ms(200)));
        let (pause, silent) = (ms(250), Silent::new());
        let scope = ScopeOptions::new(sig).resend(Resend::Backoff { first: pause, ceiling: pause }).enter().unwrap();
        assert_eq!(scope.remote().interrupt(), Delivery::Sent);
        assert_eq!(silent.plain_read(), Err(libc::EINTR), "the first signal came before the read, a resend ends it");
        assert_eq!(told(), Some(Reason::Remote));
    }
}

/// A deadline that has passed while nobody could tell: `check` knew it by the clock, and a call that was begun afterwards slept for ever.
fn a_call_ends(limit: &Deadline<'_>) {
    by_deadline(Silent::new().read());
    assert_eq!(eintr::sleep(Duration::MAX).map_err(Interrupted::reason), Err(Reason::Deadline));
    assert!(limit.expired() && told() == DUE);
}

#[test]
fn a_call_that_begins_after_the_time_ends_though_the_expiry_was_eaten() {
    let _t = common::begin();
    for sig in kinds() {
        let scope = Scope::enter(sig).unwrap();
        for _ in 0..5 {
            common::block(sig);
            let limit = scope.timeout(us(500)).unwrap();
            assert_eq!(witness::wait_for(sig).code, libc::SI_TIMER);
            common::unblock(sig);
            a_call_ends(&limit);
        }
    }
}

#[test]
fn a_call_that_begins_after_the_time_ends_though_the_number_is_blocked() {
    let _t = common::begin();
    for sig in kinds() {
        let scope = Scope::enter(sig).unwrap();
        for _ in 0..5 {
            common::block(sig);
            let at = Instant::now() + us(500);
            let limit = scope.deadline(at).unwrap();
            spin_until(at);
            a_call_ends(&limit);
            common::unblock(sig);
        }
    }
}

/// What is asked while there is no room for a timer in the child: the same by the clock.
#[test]
fn a_call_that_begins_after_the_time_ends_in_a_child_that_got_no_timer() {
    let _t = common::begin();
    for sig in kinds() {
        let (scope, at) = (Scope::enter(sig).unwrap(), Instant::now() + ms(100));
        let limit = scope.deadline(at).unwrap();
        let full = NoRoom::begin();
        let forked = witness::spawn_child(|| {
            spin_until(at);
            a_call_ends(&limit);
        });
        drop(full);
        well(common::reap_in_time(forked));
    }
}
