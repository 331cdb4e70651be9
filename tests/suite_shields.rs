//! The cases of two libraries that can hold interrupts off: Ruby's `Thread.handle_interrupt` (`test_thread.rb`) and Boost.Thread's `disable_interruption`
//! and `restore_interruption` (`test_thread.cpp`), ported.
//!
//! | there | here |
//! | --- | --- |
//! | Ruby `test_handle_interrupt`: `:immediate` and `:on_blocking` interrupt inside of the block, `:never` behind it | `never_...`, `on_blocking_...`, `immediate_...` |
//! | `..._with_return`, `..._with_break`: a block that is left early is interrupted behind it | `leaving_early_...` |
//! | `..._blocking`: interrupted while it blocks, the `ensure` of that is not | `on_blocking_...`, `the_clean_up_...` |
//! | `..._and_io`, `..._and_p`: output is no point of interruption unless it blocks | `output_that_does_not_block_...` |
//! | `test_handle_interrupted?`: a pending one is seen inside, and let in at a place of one's own | `a_pending_one_is_seen_...` |
//! | new threads | `a_thread_that_is_started_under_a_shield_...` |
//! | Boost: interrupted at an interruption point, not while disabled, at the next point when enabled again | `never_...`, `a_point_...` |
//! | `disable_interruption` nests; `restore_interruption` lets in for a while, and not if an outer one disables | `restored_for_a_while_...` |
//! | a second interrupt while the first is pending | `two_are_one_...` |
//!
//! Ruby's `:never` is a shield; `:on_blocking` is what calls of the crate are; `:immediate` is `check` all the time. A time within a shield in which interrupts
//! are let in is made by taking the shield down and putting up another.
// Masks and actions are looked at by bare calls.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/counting.rs"]
mod counting;
#[path = "common/shielding.rs"]
mod shielding;
#[path = "common/suite.rs"]
mod suite;

use common::State;
use counting::kinds;
use eintr::{Interrupted, Scope, Shield, check, shield, sys};
use shielding::{OWN, PLAIN, Silent, each};
use std::io::Write;
use std::sync::mpsc::{Receiver, channel};
use suite::{interrupted, sleep, worker};

/// Where a thread was interrupted: Ruby's c1 and c2.
#[derive(Debug, PartialEq)]
enum Where {
    Inside,
    Behind,
    Nowhere,
}

/// On either number: a thread in a scope tells that it is ready, `block` is run there under a shield or without, and meanwhile the test interrupts once.
/// What `block` is given to wait on ends when that is done.
fn interrupted_where(shielded: bool, block: fn(&Receiver<()>) -> Result<(), Interrupted>) -> [Where; 2] {
    let _t = common::begin();
    let before = State::now();
    let told = kinds().map(|sig| {
        let (done, is_done) = channel();
        let worker = worker(sig, move |_, tell| {
            let guard = shielded.then(shield);
            tell.send(()).unwrap();
            let inside = block(&is_done);
            drop(guard);
            match (inside, check()) {
                (Err(_), _) => Where::Inside,
                (Ok(()), Err(_)) => Where::Behind,
                (Ok(()), Ok(())) => Where::Nowhere,
            }
        });
        let worker = worker.has_told();
        let _ = worker.remote.interrupt();
        let _ = done.send(()); // it may have ended
        worker.join()
    });
    assert_eq!(State::now(), before);
    told
}

/// Waits until the interrupt was asked for, and then does what blocks and what looks.
fn blocks_and_looks(is_done: &Receiver<()>) -> Result<(), Interrupted> {
    is_done.recv().unwrap();
    each(&PLAIN).unwrap();
    each(&OWN).unwrap();
    check()
}

#[test]
fn never_means_behind_the_block() {
    assert_eq!(interrupted_where(true, blocks_and_looks), [Where::Behind, Where::Behind]);
}

#[test]
fn immediate_means_inside() {
    let look = |_: &Receiver<()>| loop {
        check()?;
    };
    assert_eq!(interrupted_where(false, look), [Where::Inside, Where::Inside]);
}

#[test]
fn on_blocking_means_inside_if_the_block_blocks() {
    let wait = |_: &Receiver<()>| eintr::sleep(std::time::Duration::MAX);
    assert_eq!(interrupted_where(false, wait), [Where::Inside, Where::Inside]);
    let compute = |is_done: &Receiver<()>| {
        is_done.recv().unwrap();
        Ok(())
    };
    assert_eq!(interrupted_where(false, compute), [Where::Behind, Where::Behind]);
}

/// Out of the middle of what a shield is over, in three ways.
fn leave_early(how: u32, asked: impl FnOnce()) -> Option<u32> {
    let _guard = shield();
    asked();
    each(&PLAIN).unwrap();
    for n in 0.. {
        match how {
            0 => return Some(n),
            1 => break,
            _ => None::<u32>?,
        };
    }
    each(&OWN).unwrap();
    None
}

#[test]
fn leaving_early_is_interrupted_behind_the_block() {
    let _t = common::begin();
    for sig in kinds() {
        let scope = Scope::enter(sig).unwrap();
        for how in 0..3 {
            leave_early(how, || _ = scope.remote().interrupt());
            assert!(check().is_err() && scope.clear().is_some());
            let panics = || {
                let _guard = shield();
                scope.remote().interrupt();
                std::panic::resume_unwind(Box::new(how));
            };
            let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).unwrap_err();
            assert_eq!(panic.downcast_ref(), Some(&how));
            assert!(check().is_err() && scope.clear().is_some());
        }
    }
}

// A second interrupt, meant for whatever the thread does then, meets the clean-up of the first.
#[test]
fn the_clean_up_of_an_interrupted_call_is_not_interrupted() {
    let _t = common::begin();
    for sig in kinds() {
        let silent = std::sync::Arc::new(Silent::new());
        let (reads, (go, goes)) = (silent.clone(), channel());
        let sleeper = worker(sig, move |scope, tell| {
            let call = reads.read();
            let guard = shield();
            scope.clear();
            tell.send(()).unwrap();
            goes.recv().unwrap();
            each(&PLAIN).and(each(&OWN)).expect("the clean-up is left alone");
            drop(guard);
            (call, reads.read())
        });
        let sleeper = sleeper.asleep(&sleep(libc::SYS_read));
        let _ = sleeper.remote.interrupt();
        let sleeper = sleeper.has_told();
        let _ = sleeper.remote.interrupt();
        go.send(()).unwrap();
        let (first, second) = sleeper.join();
        interrupted(first);
        interrupted(second);
    }
}

#[test]
fn output_that_does_not_block_is_made_whole() {
    let _t = common::begin();
    for sig in kinds() {
        let scope = Scope::enter(sig).unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        let mut writer = eintr::io::Interruptible::new(writer);
        let guard = shield();
        scope.remote().interrupt();
        (0..100).for_each(|n| writeln!(writer, "line {n}").unwrap());
        drop(guard);
        assert!(writeln!(writer, "not this one").is_err());
        drop(writer);
        assert_eq!(std::io::read_to_string(reader).unwrap().lines().count(), 100);
    }
}

/// Lets in what was kept, at a place of one's own: `Thread.handle_interrupt(Object => :immediate) {}`, Boost's `restore_interruption`.
fn let_in(guard: &mut Option<Shield>) -> Result<(), Interrupted> {
    *guard = None;
    let outcome = check();
    *guard = Some(shield());
    outcome
}

#[test]
fn a_pending_one_is_seen_inside_and_let_in_where_one_likes() {
    let _t = common::begin();
    for sig in kinds() {
        let scope = Scope::enter(sig).unwrap();
        let mut guard = Some(shield());
        assert!(scope.interrupted().is_none() && let_in(&mut guard).is_ok());
        scope.remote().interrupt();
        assert!(scope.interrupted().is_some() && check().is_ok());
        assert!(let_in(&mut guard).is_err());
        each(&PLAIN).and(each(&OWN)).expect("shielded again");
        assert!(scope.clear().is_some() && let_in(&mut guard).is_ok());
    }
}

#[test]
fn restored_for_a_while_it_is_disabled_again_and_an_outer_one_counts() {
    let _t = common::begin();
    for sig in kinds() {
        let scope = Scope::enter(sig).unwrap();
        let outer = shield();
        let mut inner = Some(shield());
        scope.remote().interrupt();
        assert!(let_in(&mut inner).is_ok(), "the outer one disables still");
        drop(outer);
        assert!(check().is_ok(), "the inner one is there");
        assert!(let_in(&mut inner).is_err());
        assert!(check().is_ok(), "and is there again");
        drop(inner);
        assert!(check().is_err());
    }
}

#[test]
fn a_point_of_interruption_is_one_again_when_interrupts_are_enabled() {
    let _t = common::begin();
    for sig in kinds() {
        let (scope, silent) = (Scope::enter(sig).unwrap(), Silent::new());
        let points: [fn(&Silent) -> bool; 3] =
            [|_| check().is_err(), |silent| silent.read().is_err(), |_| eintr::retry(|| 7).is_err()];
        for point in points {
            let guard = shield();
            scope.remote().interrupt();
            assert!(check().is_ok());
            drop(guard);
            assert!(point(&silent) && point(&silent));
            assert!(scope.clear().is_some());
        }
    }
}

#[test]
fn two_are_one_and_one_clear_takes_both() {
    let _t = common::begin();
    for sig in kinds() {
        let scope = Scope::enter(sig).unwrap();
        let guard = shield();
        scope.remote().interrupt();
        scope.remote().interrupt();
        drop(guard);
        scope.remote().interrupt();
        assert!(check().is_err() && scope.clear().is_some());
        assert!(check().is_ok() && scope.clear().is_none());
        each(&PLAIN).and(each(&OWN)).expect("nothing is left");
    }
}

#[test]
fn a_thread_that_is_started_under_a_shield_has_none() {
    let _t = common::begin();
    for sig in kinds() {
        let outer = Scope::enter(sig).unwrap();
        let guard = shield();
        let silent = std::sync::Arc::new(Silent::new());
        let reads = silent.clone();
        let thread = worker(sig, move |_, _| sys::read(&reads.reader, &mut [0; 8]));
        let thread = thread.asleep(&sleep(libc::SYS_read));
        let _ = thread.remote.interrupt();
        interrupted(thread.join());
        outer.remote().interrupt();
        each(&PLAIN).and(each(&OWN)).expect("this one has");
        drop(guard);
        assert!(check().is_err());
    }
}
