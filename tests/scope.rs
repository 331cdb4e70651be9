//! A scope takes an action and a bit of the mask while it lives, and puts back exactly those: in any order of drops, whatever was done meanwhile.
// Actions and masks are set by raw system calls, as applications do.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/counting.rs"]
mod counting;

use common::{Action, Random, State, action, bit, mask};
use counting::{Counting, is_open, kinds, real_time};
use eintr::{Delivery, LeaveError, Reason, Remote, Scope};

#[test]
fn a_scope_takes_the_action_and_opens_the_number_while_it_lives() {
    let _t = common::begin();
    for sig in kinds() {
        for blocked in [0, bit(sig), !0] {
            let outer_mask = common::set_mask(blocked);
            let (before, behind) = (State::now(), action(sig));
            let scope = Scope::enter(sig).unwrap();
            assert!(is_open(sig), "whatever the mask was");
            assert_ne!(action(sig), behind);
            assert_ne!(common::status_bits(common::gettid(), "SigCgt:") & bit(sig), 0, "it is caught");
            assert_eq!(mask(), before.blocked & !bit(sig), "no other number is concerned");
            assert_eq!(scope.signal().as_raw(), sig);
            drop(scope);
            assert_eq!(State::now(), before);
            common::set_mask(outer_mask);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Interrupts {
    None,
    Cleared,
    PendingAtDrop,
}

const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// Enters three scopes, drops them in this order, and looks at everything after each step.
fn nest(signals: [i32; 3], order: [usize; 3], interrupts: Interrupts) {
    let before = State::now();
    let actions = signals.map(action);
    let mut scopes: Vec<Option<Scope>> = signals.iter().map(|sig| Some(Scope::enter(*sig).unwrap())).collect();
    let remotes: Vec<Remote> = scopes.iter().flatten().map(Scope::remote).collect();
    for dropped in order {
        for live in 0..3 {
            let Some(scope) = &scopes[live] else { continue };
            assert!(!remotes[live].is_closed());
            if interrupts == Interrupts::Cleared {
                assert_eq!(remotes[live].interrupt(), Delivery::Sent);
                assert!(scopes.iter().flatten().all(|s| s.interrupted().is_some() == std::ptr::eq(s, scope)));
                assert_eq!(eintr::check().unwrap_err().reason(), Reason::Remote);
                assert!(scope.clear().is_some());
            }
            assert!(eintr::check().is_ok());
        }
        if interrupts == Interrupts::PendingAtDrop {
            remotes[dropped].interrupt();
            assert!(scopes[dropped].as_ref().unwrap().interrupted().is_some());
        }
        scopes[dropped] = None;
        assert_eq!(remotes[dropped].interrupt(), Delivery::Gone);
        assert!(eintr::check().is_ok(), "its interrupt went with it");
        for (sig, was) in signals.iter().zip(&actions) {
            let live = signals.iter().zip(&scopes).any(|(s, scope)| s == sig && scope.is_some());
            assert_eq!(action(*sig) != *was, live, "the action of {sig} is ours as long as it has a scope");
            assert_eq!(is_open(*sig), live || before.blocked & bit(*sig) == 0, "so it is with the mask");
        }
    }
    assert_eq!(State::now(), before);
}

#[test]
fn nested_scopes_of_same_and_different_signals_dropped_in_any_order_leave_everything_as_it_was() {
    let _t = common::begin();
    let numbers = [libc::SIGUSR1, libc::SIGUSR2, real_time()];
    let mut programs = 0;
    for handlers in [false, true] {
        let counting: Vec<_> = if handlers { numbers.iter().map(|n| Counting::on(*n)).collect() } else { vec![] };
        for blocked in [0, bit(libc::SIGUSR1), numbers.iter().fold(0, |mask, n| mask | bit(*n))] {
            let outer_mask = common::set_mask(blocked);
            for signals in (0..27).map(|n| [n / 9, n / 3 % 3, n % 3].map(|i| numbers[i])) {
                for order in ORDERS {
                    for interrupts in [Interrupts::None, Interrupts::Cleared, Interrupts::PendingAtDrop] {
                        nest(signals, order, interrupts);
                        programs += 1;
                    }
                }
            }
            common::set_mask(outer_mask);
        }
        assert!(counting.iter().all(|c| c.runs() == 0), "no signal of ours reached the action behind");
    }
    assert_eq!(programs, 2 * 3 * 27 * 6 * 3);
}

#[test]
fn a_thousand_nested_scopes_dropped_at_random_leave_everything_as_it_was() {
    let _t = common::begin();
    let mut random = Random::new();
    let before = State::now();
    let number = |n: u64| [libc::SIGUSR1, libc::SIGUSR2, real_time(), real_time() + 1][n as usize];
    let mut scopes: Vec<Scope> = (0..1000).map(|_| Scope::enter(number(random.below(4))).unwrap()).collect();
    while !scopes.is_empty() {
        let scope = scopes.swap_remove(random.below(scopes.len() as u64) as usize);
        if random.chance(3) {
            scope.remote().interrupt();
            assert!(scope.interrupted().is_some());
        }
        drop(scope);
        assert!(eintr::check().is_ok());
        if let Some(scope) = scopes.first().filter(|_| random.chance(10)) {
            scope.remote().interrupt();
            assert!(eintr::check().is_err() && scope.clear().is_some());
        }
    }
    assert_eq!(State::now(), before);
}

#[test]
fn a_scope_may_be_moved_boxed_and_kept_in_a_struct() {
    let _t = common::begin();
    struct Worker {
        scope: Option<Scope>,
        _name: String,
    }
    let before = State::now();
    let make = || -> Result<Worker, eintr::EnterError> {
        Ok(Worker { scope: Some(Scope::enter(libc::SIGUSR1)?), _name: "w".into() })
    };
    let mut boxed = Box::new(make().unwrap());
    let remote = boxed.scope.as_ref().unwrap().remote();
    let moved = boxed.scope.take().unwrap();
    remote.interrupt();
    assert!(moved.interrupted().is_some());
    boxed.scope = Some(moved);
    let replaced = boxed.scope.replace(Scope::enter(real_time()).unwrap());
    assert!(replaced.as_ref().unwrap().clear().is_some());
    drop(replaced);
    assert!(remote.is_closed());
    drop(boxed);
    assert_eq!(State::now(), before);
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Inside {
    Nothing,
    Block,
    Open,
    BlockAndOpen,
}

/// The bit goes back to what it was before the scope, whatever was done to it meanwhile, and nothing of ours is left queued behind it.
#[test]
fn the_mask_bit_comes_back_whatever_was_done_to_it_inside() {
    let _t = common::begin();
    for sig in kinds() {
        for was_blocked in [false, true] {
            for inside in [Inside::Nothing, Inside::Block, Inside::Open, Inside::BlockAndOpen] {
                for (asked_before, asked_after) in [(false, false), (true, false), (false, true), (true, true)] {
                    for leave in [false, true] {
                        let counting = Counting::on(sig);
                        let outer_mask = if was_blocked { common::block(sig) } else { common::unblock(sig) };
                        let before = State::now();
                        let scope = Scope::enter(sig).unwrap();
                        let ask = |yes: bool| yes.then(|| scope.remote().interrupt());
                        ask(asked_before);
                        match inside {
                            Inside::Nothing => 0,
                            Inside::Block => common::block(sig),
                            Inside::Open => common::unblock(sig),
                            Inside::BlockAndOpen => common::block(sig) & common::unblock(sig),
                        };
                        ask(asked_after);
                        assert_eq!(scope.interrupted().is_some(), asked_before || asked_after);
                        if leave {
                            scope.leave().unwrap();
                        } else {
                            drop(scope);
                        }
                        let what = (sig, was_blocked, inside, asked_before, asked_after, leave);
                        assert_eq!(State::now(), before, "{what:?}");
                        common::unblock(sig);
                        assert_eq!(counting.runs(), 0, "{what:?}");
                        common::set_mask(outer_mask);
                    }
                }
            }
        }
    }
}

#[test]
fn bits_of_other_signals_stay_as_the_user_set_them_inside() {
    let _t = common::begin();
    let outer_mask = common::block(libc::SIGTERM);
    for interrupted in [false, true] {
        for was_blocked in [false, true] {
            let before = if was_blocked { common::block(libc::SIGUSR1) } else { common::unblock(libc::SIGUSR1) };
            let scope = Scope::enter(libc::SIGUSR1).unwrap();
            common::block(libc::SIGHUP);
            common::unblock(libc::SIGTERM);
            if interrupted {
                scope.remote().interrupt();
                assert!(eintr::check().is_err());
                assert_eq!(mask() & (bit(libc::SIGHUP) | bit(libc::SIGTERM)), bit(libc::SIGHUP), "after check");
                scope.clear();
                scope.remote().interrupt();
            }
            drop(scope);
            let wanted = before & !bit(libc::SIGTERM) & !bit(libc::SIGUSR1) | bit(libc::SIGHUP);
            let own = if was_blocked { bit(libc::SIGUSR1) } else { 0 };
            assert_eq!(mask(), wanted | own, "interrupted: {interrupted}, blocked before: {was_blocked}");
            common::set_mask(outer_mask | bit(libc::SIGTERM));
        }
    }
    common::set_mask(outer_mask);
}

#[test]
fn the_mask_bit_is_taken_by_the_first_scope_of_a_number_and_put_back_by_the_last() {
    let _t = common::begin();
    for sig in kinds() {
        for was_blocked in [false, true] {
            for first_goes_first in [false, true] {
                let outer_mask = if was_blocked { common::block(sig) } else { common::unblock(sig) };
                let before = State::now();
                let first = Scope::enter(sig).unwrap();
                let second = Scope::enter(sig).unwrap();
                assert!(is_open(sig));
                let (gone, last) = if first_goes_first { (first, second) } else { (second, first) };
                drop(gone);
                assert!(is_open(sig), "one is left");
                common::block(sig);
                let third = Scope::enter(sig).unwrap();
                common::block(sig);
                drop(last);
                assert!(!is_open(sig), "what the user does meanwhile is left alone until the last one goes");
                drop(third);
                assert_eq!(State::now(), before);
                common::set_mask(outer_mask);
            }
        }
    }
}

/// Ours lies queued behind the user's block; the default action of both numbers would end the process, and a test that blocks afterwards would
/// find it.
#[test]
fn a_signal_of_ours_that_is_queued_at_drop_reaches_nobody() {
    let _t = common::begin();
    for sig in kinds() {
        for scopes in 1..=3 {
            let before = State::now();
            let mut live: Vec<_> = (0..scopes).map(|_| Scope::enter(sig).unwrap()).collect();
            common::block(sig);
            for scope in &live {
                scope.remote().interrupt();
            }
            assert_ne!(common::status_bits(common::gettid(), "SigPnd:") & bit(sig), 0, "it is queued");
            live.rotate_left(1);
            drop(live);
            assert_eq!(State::now(), before);
        }
    }
}

#[test]
fn leave_says_nothing_if_all_was_put_back() {
    let _t = common::begin();
    for interrupted in [false, true] {
        let before = State::now();
        let scope = Scope::enter(libc::SIGUSR1).unwrap();
        let remote = scope.remote();
        if interrupted {
            remote.interrupt();
        }
        assert_eq!(scope.leave(), Ok(()));
        assert!(remote.is_closed());
        assert_eq!(State::now(), before);
    }
}

#[test]
fn an_action_that_somebody_replaced_is_left_in_place_and_leave_says_so() {
    let _t = common::begin();
    for sig in kinds() {
        for was_blocked in [false, true] {
            for queued in [false, true] {
                let outer_mask = if was_blocked { common::block(sig) } else { common::unblock(sig) };
                let before = State::now();
                let scope = Scope::enter(sig).unwrap();
                if queued {
                    common::block(sig);
                    assert_eq!(scope.remote().interrupt(), Delivery::Sent);
                }
                let theirs = Counting::on(sig);
                let standing = action(sig);
                let error = scope.leave().unwrap_err();
                assert_eq!(error.signal.as_raw(), sig);
                assert_eq!(action(sig), standing);
                assert_eq!(mask(), before.blocked, "the mask comes back all the same");
                common::unblock(sig);
                assert_eq!(theirs.runs(), 0, "and theirs never ran for us: blocked {was_blocked}, queued {queued}");
                common::set_mask(outer_mask);

                let text = error.to_string();
                let name = error.signal.to_string();
                assert!(text.contains(&name) && text.contains("replaced") && text.contains("left in place"), "{text}");

                let over = Scope::enter(sig).expect("a scope over theirs");
                assert_eq!(over.remote().interrupt(), Delivery::Sent);
                assert!(eintr::check().is_err());
                assert_eq!(over.leave(), Ok(()));
                assert_eq!((action(sig), theirs.runs()), (standing, 0));
                common::restore(sig, Action::default());
                std::mem::forget(theirs);
            }
        }
    }
}

#[test]
fn dropping_leaves_a_replacement_in_place_too() {
    let _t = common::begin();
    let before = State::now();
    let scope = Scope::enter(libc::SIGUSR1).unwrap();
    let theirs = Counting::on(libc::SIGUSR1);
    let standing = action(libc::SIGUSR1);
    drop(scope);
    assert_eq!(action(libc::SIGUSR1), standing);
    std::mem::forget(theirs);
    common::restore(libc::SIGUSR1, Action::default());
    assert_eq!(State::now(), before);
}

#[test]
fn only_the_last_scope_of_a_number_tells_of_a_replacement() {
    let _t = common::begin();
    let (first, second) = (Scope::enter(libc::SIGUSR1).unwrap(), Scope::enter(libc::SIGUSR1).unwrap());
    let other = std::thread::spawn(|| {
        let scope = Scope::enter(libc::SIGUSR1).unwrap();
        let theirs = Counting::on(libc::SIGUSR1);
        std::mem::forget(theirs);
        scope.leave()
    });
    assert_eq!(other.join().unwrap(), Ok(()), "there are scopes on another thread");
    assert_eq!(first.leave(), Ok(()));
    assert!(matches!(second.leave(), Err(LeaveError { signal, .. }) if signal.as_raw() == libc::SIGUSR1));
    common::restore(libc::SIGUSR1, Action::default());
}

#[test]
fn an_action_that_was_replaced_and_put_back_is_none_of_leaves_business() {
    let _t = common::begin();
    for interrupted in [false, true] {
        let before = State::now();
        let scope = Scope::enter(libc::SIGUSR1).unwrap();
        let theirs = Counting::on(libc::SIGUSR1);
        if interrupted {
            assert_eq!(scope.remote().interrupt(), Delivery::Displaced);
        }
        drop(theirs);
        assert_eq!(scope.leave(), Ok(()));
        assert_eq!(State::now(), before);
    }
}

#[test]
fn a_thread_started_inside_a_scope_inherits_its_mask_and_nothing_else() {
    let _t = common::begin();
    let outer_mask = common::block(libc::SIGUSR1);
    let scope = Scope::enter(libc::SIGUSR1).unwrap();
    scope.remote().interrupt();
    let inside = std::thread::spawn(|| (is_open(libc::SIGUSR1), eintr::check(), eintr::retry(|| 7)));
    assert_eq!(inside.join().unwrap(), (true, Ok(()), Ok(7)));
    drop(scope);
    let after = std::thread::spawn(|| is_open(libc::SIGUSR1));
    assert!(!after.join().unwrap());
    common::set_mask(outer_mask);
}

#[test]
fn a_scope_shows_its_signal_its_thread_and_whether_it_was_interrupted() {
    let _t = common::begin();
    let scope = Scope::enter(libc::SIGUSR1).unwrap();
    let quiet = format!("{scope:?}");
    assert!(quiet.contains("SIGUSR1") && quiet.contains(&common::gettid().to_string()), "{quiet}");
    scope.remote().interrupt();
    let interrupted = format!("{scope:?}");
    assert_ne!(quiet, interrupted);
    assert!(interrupted.contains("Remote"), "{interrupted}");
    assert_eq!(format!("{:?}", Scope::enter(real_time()).unwrap().signal()), "SIGRTMIN+3");
}

/// Each thread nests and drops in its own way while the others do: the action is taken by whoever is first and put back by whoever is last.
#[test]
fn threads_that_enter_and_leave_at_the_same_time_leave_everything_as_it_was() {
    let _t = common::begin();
    let counting = kinds().map(Counting::on);
    let before = State::now();
    let threads: Vec<_> = (0..4)
        .map(|seed| {
            std::thread::spawn(move || {
                let mut random = Random::seeded(seed * 7919 + 1);
                if random.chance(2) {
                    common::block(kinds()[random.below(2) as usize]);
                }
                let own_mask = mask();
                for _ in 0..300 {
                    let mut scopes: Vec<_> =
                        (0..3).map(|_| Scope::enter(kinds()[random.below(2) as usize]).unwrap()).collect();
                    while !scopes.is_empty() {
                        let scope = scopes.swap_remove(random.below(scopes.len() as u64) as usize);
                        if random.chance(2) {
                            scope.remote().interrupt();
                            assert!(eintr::check().is_err());
                        }
                        assert_eq!(scope.leave(), Ok(()));
                    }
                    assert_eq!(mask(), own_mask);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    assert_eq!(State::now(), before);
    assert_eq!(counting[0].runs(), 0);
}
