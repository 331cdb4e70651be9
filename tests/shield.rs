//! What a shield does: it keeps what is asked for until it is lowered, and then that acts; what is made inside acts inside; and it leaves no trace.
// Tests look at the masks and queues, and make bare calls.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/counting.rs"]
mod counting;
#[path = "common/shielding.rs"]
mod shielding;

use common::State;
use counting::{Counting, kinds};
use eintr::{Delivery, Error, Reason, Remote, Scope, Status, Ticket, check, shield};
use shielding::{Ask, OWN, PLAIN, Silent, each, from_another_thread};
use std::time::Duration;

const REMOTE: Reason = Reason::Remote;

/// Runs `test` on a standard and on a real-time number, with the default behind and with a handler: the state of the process is as before each time.
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

fn reason(of: Option<eintr::Interrupted>) -> Option<Reason> {
    of.map(eintr::Interrupted::reason)
}

fn undisturbed() {
    each(&PLAIN).expect("plain calls are left alone");
    each(&OWN).expect("calls of the crate go on");
}

/// Nothing is asked of this thread's scopes: calls go on, and the next interrupt acts.
fn works_on(scope: &Scope) {
    undisturbed();
    assert_eq!(from_another_thread(&scope.remote(), Remote::interrupt_once), Delivery::Sent);
    assert_eq!(check().map_err(|i| i.reason()), Err(REMOTE));
    assert_eq!(reason(scope.clear()), Some(REMOTE));
}

/// Whether read(2) by the crate is ended, by whom.
fn read_is_ended(silent: &Silent) -> Reason {
    match silent.read() {
        Err(Error::Interrupted(interrupted)) => interrupted.reason(),
        other => panic!("it was not ended: {other:?}"),
    }
}

fn kept(scope: &Scope, ask: Ask) {
    assert_eq!(from_another_thread(&scope.remote(), ask), Delivery::Held);
    assert_eq!(ask(&scope.remote()), Delivery::Held, "and on the thread itself");
    assert_eq!(reason(scope.interrupted()), Some(REMOTE), "a look sees what is kept");
    undisturbed();
    assert_eq!(reason(scope.interrupted()), Some(REMOTE));
}

#[test]
fn what_is_asked_is_kept_and_acts_when_the_shield_is_lowered() {
    on_each(|sig| {
        let (scope, silent) = (Scope::enter(sig).unwrap(), Silent::new());
        for ask in [Remote::interrupt as Ask, Remote::interrupt_once] {
            let guard = shield();
            kept(&scope, ask);
            drop(guard);
            assert_eq!(check().map_err(|i| i.reason()), Err(REMOTE));
            assert!(scope.clear().is_some());

            let guard = shield();
            kept(&scope, ask);
            drop(guard);
            assert_eq!(read_is_ended(&silent), REMOTE);
            assert!(scope.clear().is_some());
            works_on(&scope);
        }
    });
}

// Nobody sends for what was kept but the timer that is set when the shield is lowered.
#[test]
fn what_was_kept_ends_plain_calls_by_being_sent_again() {
    on_each(|sig| {
        let (scope, silent) = (Scope::enter(sig).unwrap(), Silent::new());
        let guard = shield();
        kept(&scope, Remote::interrupt);
        drop(guard);
        assert_eq!(silent.plain_read(), Err(libc::EINTR));
        assert!(matches!(silent.plain_read(), Err(libc::EINTR | libc::ECANCELED)), "until somebody acknowledges");
        assert!(check().is_err());
        each(&PLAIN).expect("acknowledged: nothing comes any more");
        assert!(scope.clear().is_some());
        works_on(&scope);
    });
}

// It was on its way already, or is sent again all the time, or was acknowledged, when the shield is raised.
#[test]
fn what_was_asked_before_is_kept_too() {
    on_each(|sig| {
        let (scope, silent) = (Scope::enter(sig).unwrap(), Silent::new());
        assert_eq!(from_another_thread(&scope.remote(), Remote::interrupt), Delivery::Sent);
        let guard = shield();
        undisturbed();
        assert_eq!(reason(scope.interrupted()), Some(REMOTE));
        drop(guard);
        assert_eq!(silent.plain_read(), Err(libc::EINTR));
        assert!(check().is_err());

        let guard = shield(); // acknowledged, but not cleared
        undisturbed();
        assert_eq!(reason(scope.interrupted()), Some(REMOTE));
        drop(guard);
        each(&PLAIN).expect("it was acknowledged");
        assert!(check().is_err(), "and is there until it is cleared");
        assert!(scope.clear().is_some());
        works_on(&scope);
    });
}

#[test]
fn a_shield_without_an_interrupt_changes_nothing() {
    on_each(|sig| {
        let scope = Scope::enter(sig).unwrap();
        for asked_before in [false, true] {
            if asked_before {
                works_on(&scope); // from here on something was sent in this scope
            }
            let inside = State::now();
            let guard = shield();
            assert!(!eintr::is_interruptible());
            undisturbed();
            drop(guard);
            assert!(eintr::is_interruptible());
            assert_eq!(State::now(), inside);
            assert!(check().is_ok() && scope.interrupted().is_none());
            undisturbed();
        }
        works_on(&scope);
    });
}

#[test]
fn without_a_scope_it_does_nothing() {
    let _t = common::begin();
    let nothing = || {
        let before = State::now();
        let guards = [shield(), shield()];
        undisturbed();
        assert_eq!(State::now(), before);
        drop(guards);
        undisturbed();
        assert_eq!(State::now(), before);
    };
    std::thread::spawn(nothing).join().unwrap();
    for sig in kinds() {
        let guard = shield();
        let scope = Scope::enter(sig).unwrap();
        works_on(&scope);
        drop(guard);
        works_on(&scope);
        drop(scope);
        nothing();
    }
}

#[test]
fn shields_nest_and_the_last_one_counts_in_any_order() {
    on_each(|sig| {
        let scope = Scope::enter(sig).unwrap();
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut guards = [shield(), shield(), shield()].map(Some);
            for n in order {
                assert!(check().is_ok());
                kept(&scope, Remote::interrupt);
                guards[n] = None;
            }
            assert_eq!(check().map_err(|i| i.reason()), Err(REMOTE));
            assert!(scope.clear().is_some());
            works_on(&scope);
        }
    });
}

#[test]
fn a_remote_sees_that_what_is_kept_is_not_acknowledged() {
    on_each(|sig| {
        let scope = Scope::enter(sig).unwrap();
        let remote = scope.remote();
        let guard = shield();
        assert_eq!(remote.wait(Duration::ZERO), Status::Acknowledged, "nothing was asked");
        kept(&scope, Remote::interrupt);
        for time in [Duration::ZERO, Duration::from_millis(5)] {
            assert_eq!(remote.wait(time), Status::StillRunning);
        }
        let waiter = std::thread::spawn(move || remote.wait(Duration::MAX));
        undisturbed();
        assert!(!waiter.is_finished());
        drop(guard);
        assert!(!waiter.is_finished(), "lowering acknowledges nothing");
        assert!(check().is_err());
        assert_eq!(waiter.join().unwrap(), Status::Acknowledged);
    });
}

#[test]
fn clear_takes_what_is_kept_and_leaves_the_scope_shielded() {
    on_each(|sig| {
        let scope = Scope::enter(sig).unwrap();
        let guard = shield();
        for _ in 0..2 {
            assert_eq!(scope.clear(), None);
            kept(&scope, Remote::interrupt);
            assert_eq!(reason(scope.clear()), Some(REMOTE));
            assert_eq!((scope.interrupted(), scope.remote().wait(Duration::ZERO)), (None, Status::Acknowledged));
            assert!(!eintr::is_interruptible());
        }
        drop(guard);
        undisturbed();
        works_on(&scope);
    });
}

#[test]
fn what_is_made_inside_acts_inside() {
    on_each(|sig| {
        for inner_sig in [sig, libc::SIGUSR2] {
            let (outer, silent) = (Scope::enter(sig).unwrap(), Silent::new());
            let guard = shield();
            kept(&outer, Remote::interrupt);
            let (ticket, remote) = Ticket::new();
            assert_eq!(remote.interrupt(), Delivery::Held);
            let inner = ticket.enter(inner_sig).unwrap();
            assert!(eintr::is_interruptible());
            assert_eq!(silent.plain_read(), Err(libc::EINTR), "what the ticket kept acts");
            assert_eq!(read_is_ended(&silent), REMOTE);
            // The outer one's is not acknowledged with it.
            assert_eq!(remote.wait(Duration::ZERO), Status::Acknowledged);
            assert_eq!(outer.remote().wait(Duration::ZERO), Status::StillRunning);
            assert!(inner.clear().is_some());
            undisturbed();
            works_on(&inner);
            drop(inner);
            undisturbed();
            drop(guard);
            assert_eq!(silent.plain_read(), Err(libc::EINTR), "what was kept is sent for again");
            assert!(check().is_err() && outer.clear().is_some());
            works_on(&outer);
        }
    });
}

#[test]
fn a_shield_is_over_what_was_there_when_it_was_raised() {
    on_each(|sig| {
        let outer = Scope::enter(sig).unwrap();
        let lower = shield();
        let inner = Scope::enter(sig).unwrap();
        let upper = shield();
        kept(&outer, Remote::interrupt);
        kept(&inner, Remote::interrupt);
        drop(lower); // the upper one is over both
        undisturbed();
        let lower = shield();
        drop(upper); // so is the new one
        kept(&inner, Remote::interrupt);
        drop(lower);
        assert!(check().is_err());
        assert!(outer.clear().is_some() && inner.clear().is_some());

        let lower = shield();
        let innermost = Scope::enter(sig).unwrap();
        let upper = shield();
        kept(&innermost, Remote::interrupt_once);
        kept(&inner, Remote::interrupt_once);
        drop(upper);
        assert!(check().is_err(), "the lower one is not over what was made after it");
        assert!(innermost.clear().is_some());
        assert!(check().is_ok());
        kept(&inner, Remote::interrupt_once);
        drop((innermost, lower));
        assert!(check().is_err() && inner.clear().is_some());
        works_on(&outer);
    });
}

#[test]
fn scopes_end_under_a_shield() {
    on_each(|sig| {
        let outer = Scope::enter(sig).unwrap();
        let inner = Scope::enter(sig).unwrap();
        let (of_outer, of_inner) = (outer.remote(), inner.remote());
        let guard = shield();
        kept(&outer, Remote::interrupt);
        kept(&inner, Remote::interrupt);
        drop(outer);
        assert_eq!((of_outer.interrupt(), of_outer.wait(Duration::MAX)), (Delivery::Gone, Status::Closed));
        kept(&inner, Remote::interrupt);
        inner.leave().unwrap();
        assert_eq!((of_inner.interrupt(), of_inner.wait(Duration::MAX)), (Delivery::Gone, Status::Closed));
        // Its place goes to the next one, which is made inside.
        let next = Scope::enter(sig).unwrap();
        works_on(&next);
        drop(guard);
        works_on(&next);
    });
}

#[test]
fn a_forgotten_shield_holds_until_the_scope_ends() {
    on_each(|sig| {
        let scope = Scope::enter(sig).unwrap();
        std::mem::forget(shield());
        kept(&scope, Remote::interrupt);
        drop(shield());
        kept(&scope, Remote::interrupt);
        let inner = Scope::enter(sig).unwrap();
        works_on(&inner);
        drop((scope, inner));
        works_on(&Scope::enter(sig).unwrap());
    });
}

#[test]
fn a_panic_lowers_it() {
    on_each(|sig| {
        let scope = Scope::enter(sig).unwrap();
        let out = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _guard = shield();
            kept(&scope, Remote::interrupt);
            std::panic::resume_unwind(Box::new(7));
        }));
        assert_eq!(out.unwrap_err().downcast_ref(), Some(&7));
        assert!(check().is_err() && scope.clear().is_some());
        works_on(&scope);
    });
}
