//! Shields and other threads: one that is raised waits for the senders that stand in the gate; one that is left over when its thread ends is over nobody else.
// Senders are stopped by a filter, and threads looked at by bare calls.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/counting.rs"]
mod counting;
#[path = "common/gatekeeper.rs"]
mod gatekeeper;
#[path = "common/shielding.rs"]
mod shielding;
#[path = "common/suite.rs"]
mod suite;

use common::State;
use counting::kinds;
use eintr::{Delivery, Remote, Scope, Shield, check, shield};
use shielding::{OWN, PLAIN, each, from_another_thread};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use suite::worker;

// The sender has been let in, and has not sent yet, or not yet set the timer: what it does then is not to be seen under the shield.
#[test]
fn raising_waits_for_who_stands_in_the_gate() {
    let _t = common::begin();
    if !gatekeeper::can_hold() {
        return;
    }
    for (sig, nr) in
        kinds().into_iter().flat_map(|sig| [(sig, libc::SYS_rt_tgsigqueueinfo), (sig, libc::SYS_timer_settime)])
    {
        let (go, is_up) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (goes, tells) = (go.clone(), is_up.clone());
        let scoped = worker(sig, move |scope, tell| {
            tell.send(()).unwrap();
            while !goes.load(SeqCst) {
                std::hint::spin_loop(); // no call that could be taken for the one that waits
            }
            let guard = shield();
            tells.store(true, SeqCst);
            let left_alone = each(&PLAIN).and(each(&OWN));
            drop(guard);
            assert!(check().is_err() && scope.clear().is_some(), "it is kept");
            left_alone
        })
        .has_told();
        let remote = scoped.remote.clone();
        let Some(held) = gatekeeper::hold_in(nr, move || remote.interrupt()) else { return };
        go.store(true, SeqCst);
        common::wait_blocked_in(scoped.tid, libc::SYS_futex);
        assert!(!is_up.load(SeqCst));
        assert_eq!(held.release(), Delivery::Sent);
        scoped.join().unwrap();
    }
}

/// A scope here is as good as any.
fn works(sig: i32) {
    let scope = Scope::enter(sig).unwrap();
    each(&PLAIN).and(each(&OWN)).unwrap();
    assert_eq!(from_another_thread(&scope.remote(), Remote::interrupt_once), Delivery::Sent);
    assert!(check().is_err() && scope.clear().is_some());
}

// What the crate keeps for a thread goes to the next one.
#[test]
fn a_shield_that_was_forgotten_on_a_thread_is_not_over_the_next_one() {
    let _t = common::begin();
    let before = State::now();
    for sig in kinds() {
        for asked in [false, true] {
            let remote = std::thread::spawn(move || {
                let scope = Scope::enter(sig).unwrap();
                std::mem::forget(scope.timeout(std::time::Duration::ZERO));
                let remote = scope.remote();
                std::mem::forget((shield(), shield(), scope));
                assert!(!asked || remote.interrupt() == Delivery::Held);
                each(&PLAIN).and(each(&OWN)).unwrap();
                remote
            })
            .join()
            .unwrap();
            assert_eq!(remote.interrupt(), Delivery::Gone);
            std::thread::spawn(move || works(sig)).join().unwrap();
        }
    }
    assert_eq!(State::now(), before);
}

thread_local! {
    static SCOPE: RefCell<Option<Scope>> = const { RefCell::new(None) };
    static GUARD: RefCell<Option<Shield>> = const { RefCell::new(None) };
}

#[test]
fn a_scope_and_a_shield_may_end_with_their_thread_in_either_order() {
    let _t = common::begin();
    let before = State::now();
    for (sig, scope_first) in kinds().into_iter().flat_map(|sig| [(sig, false), (sig, true)]) {
        let remote = std::thread::spawn(move || {
            // Those of a thread are dropped in the order in which they were touched first, or in the other one.
            if scope_first {
                SCOPE.with(|_| GUARD.with(|_| ()));
            } else {
                GUARD.with(|_| SCOPE.with(|_| ()));
            }
            let scope = Scope::enter(sig).unwrap();
            let remote = scope.remote();
            SCOPE.set(Some(scope));
            GUARD.set(Some(shield()));
            assert_eq!(remote.interrupt(), Delivery::Held);
            remote
        })
        .join()
        .unwrap();
        assert_eq!(remote.interrupt(), Delivery::Gone);
        std::thread::spawn(move || works(sig)).join().unwrap();
    }
    assert_eq!(State::now(), before);
}
