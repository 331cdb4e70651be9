//! Shields and what is not ours: numbers that the program has blocked, signals from elsewhere, the policies for them. And that nothing is even sent while a
//! shield is up, by the thread's queue.
// Tests block numbers, send signals by bare calls and look into the queues.
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
use eintr::{Delivery, Foreign, Interrupted, Reason, Remote, Resend, Scope, ScopeOptions, check, shield};
use shielding::{Ask, OWN, PLAIN, Silent, beside_two_senders, each, from_another_thread};
use std::time::Duration;
use witness::Way;

fn queued() -> u64 {
    let tid = common::gettid();
    common::status_bits(tid, "SigPnd:") | common::status_bits(tid, "ShdPnd:")
}

fn undisturbed() {
    each(&PLAIN).expect("plain calls are left alone");
    each(&OWN).expect("calls of the crate go on");
}

/// A number that is blocked until this is dropped.
struct Blocked(i32);

impl Blocked {
    fn new(sig: i32) -> Blocked {
        common::block(sig);
        Blocked(sig)
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        common::unblock(self.0);
    }
}

/// As often as a timer goes.
fn resent(sig: i32) -> Scope {
    let pause = Duration::from_micros(20);
    ScopeOptions::new(sig).resend(Resend::Backoff { first: pause, ceiling: pause }).enter().unwrap()
}

/// A child in which the calling thread is the only one, so that what is sent to the process comes to it.
fn in_child(body: impl FnOnce()) {
    witness::well(witness::child(body));
}

// With the number blocked what is sent is seen in the queue.
#[test]
fn while_a_shield_is_up_nothing_is_queued() {
    let _t = common::begin();
    for sig in kinds() {
        let scope = resent(sig);
        let rounds = common::rounds("EINTR_ROUNDS", 2000);
        let (seen, [sent, held]) = beside_two_senders(&[scope.remote()], Remote::interrupt, || {
            let one = |_| {
                let guard = shield();
                let blocked = Blocked::new(sig);
                let seen = (0..5).filter(|_| queued() & common::bit(sig) != 0).count();
                drop((blocked, guard));
                scope.clear();
                seen
            };
            (0..rounds).map(one).sum::<usize>()
        });
        println!("signal {sig}: {rounds} rounds, sent {sent}, not sent {held}");
        assert_eq!(seen, 0, "looks that saw one, signal {sig}");
        assert!(held > 0 && sent > 0, "they asked: {held}, {sent}"); // how often is the scheduler's to say
    }
}

// The signal was sent before, and waits behind the program's own block; it is not to come when the program opens the number again.
#[test]
fn what_waits_behind_the_programs_block_is_taken_out() {
    let _t = common::begin();
    for sig in kinds() {
        for ask in [Remote::interrupt as Ask, Remote::interrupt_once] {
            let before = State::now();
            let scope = resent(sig);
            for _ in 0..common::rounds("EINTR_ROUNDS", 50) {
                let blocked = Blocked::new(sig);
                assert_eq!(from_another_thread(&scope.remote(), ask), Delivery::Sent);
                common::wait_until(|| queued() & common::bit(sig) != 0);
                let guard = shield();
                assert_eq!(queued() & common::bit(sig), 0);
                assert_ne!(common::mask() & common::bit(sig), 0, "the program's block is left alone");
                drop(blocked);
                undisturbed();
                drop(guard);
                assert!(check().is_err() && scope.clear().is_some());
            }
            undisturbed();
            drop(scope);
            assert_eq!(State::now(), before);
        }
    }
}

// A block that outlasts the shield: what was kept is told by every look and call of the crate's, as for any block of the program's.
#[test]
fn under_the_programs_block_what_was_kept_acts_on_calls_of_the_crate() {
    let _t = common::begin();
    for sig in kinds() {
        let (scope, silent) = (Scope::enter(sig).unwrap(), Silent::new());
        let blocked = Blocked::new(sig);
        let guard = shield();
        assert_eq!(scope.remote().interrupt(), Delivery::Held);
        undisturbed();
        drop(guard);
        assert!(silent.read().unwrap_err().interrupted().is_some());
        assert!(check().is_err() && scope.clear().is_some());
        drop(blocked);
        undisturbed();
    }
}

/// Signals from elsewhere that wait with ours; each comes, once, when the number is opened. (A standard one for the thread that comes after ours merges into
/// it, which is the kernel's doing; so ours are the last there.)
fn foreign_ones_stay(sig: i32, ways: &[Way]) {
    witness::forget();
    common::install(sig, witness::detailed_handler(), libc::SA_SIGINFO | libc::SA_RESTART, &[]);
    let scope = resent(sig);
    let blocked = Blocked::new(sig);
    let asks = || assert_ne!(from_another_thread(&scope.remote(), Remote::interrupt), Delivery::Gone);
    let mut sent = Vec::new();
    for (n, way) in ways.iter().enumerate() {
        sent.push((*way, way.send(sig, 100 + n), 100 + n as u64));
        if !witness::is_standard(sig) {
            asks();
        }
    }
    asks();
    let guard = shield();
    assert_eq!(witness::count(), 0);
    drop(blocked);
    undisturbed();
    let runs = witness::runs();
    drop(guard);
    assert!(check().is_err() && scope.clear().is_some());
    drop(scope);
    undisturbed();
    assert_eq!(witness::count(), runs.len(), "none later: {ways:?}");
    if witness::is_standard(sig) {
        // Of those for the thread one, and one of those for the process.
        let queues = [true, false].map(|for_thread| ways.iter().any(|way| way.is_for_thread() == for_thread));
        assert_eq!(runs.len(), queues.into_iter().filter(|used| *used).count(), "{ways:?}: {runs:?}");
    } else {
        let mut came: Vec<_> = runs.iter().map(|run| (run.info.pid, run.info.value)).collect();
        for (way, pid, value) in sent {
            let queues = matches!(way, Way::Sigqueue | Way::SigqueueFromOutside);
            let at = came.iter().position(|(of, with)| *of == pid && (!queues || *with == value));
            came.remove(at.unwrap_or_else(|| panic!("{way:?} is missing, with its siginfo: {runs:?}")));
        }
        assert_eq!(came, [], "{ways:?}");
    }
}

#[test]
fn signals_from_elsewhere_that_wait_beside_ours_stay() {
    let _t = common::begin();
    for sig in kinds() {
        for ways in [
            &[Way::Kill][..],
            &[Way::Raise],
            &[Way::Sigqueue, Way::Raise],
            &[Way::TgkillFromOutside, Way::Kill],
            &[Way::Raise, Way::SigqueueFromOutside, Way::KillFromOutside, Way::Raise],
        ] {
            in_child(|| foreign_ones_stay(sig, ways));
        }
    }
}

// A full queue strips a standard signal of its siginfo; only while one of ours is out is such a one ours. What the shield has taken out is out no more.
#[test]
fn what_was_taken_out_is_not_counted_on_any_more() {
    let _t = common::begin();
    if common::skipped_if_emulated("a full queue", "the emulator queues by itself") {
        return;
    }
    let sig = libc::SIGUSR1;
    for ask in [Remote::interrupt as Ask, Remote::interrupt_once] {
        in_child(|| {
            let behind = Counting::on(sig);
            let scope = resent(sig);
            let blocked = Blocked::new(sig);
            assert_eq!(from_another_thread(&scope.remote(), ask), Delivery::Sent);
            let guard = shield();
            drop(blocked);
            let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_SIGPENDING, &none) }, 0);
            for n in 1..=3 {
                Way::Raise.send(sig, 0);
                assert_eq!(behind.runs(), n, "the application's, blank for the full queue, reaches its handler");
            }
            drop(guard);
            assert!(check().is_err());
        });
    }
}

fn reason(of: Option<Interrupted>) -> Option<Reason> {
    of.map(Interrupted::reason)
}

/// In a child: a scope with this policy over a counting handler; `then` is told how to send, and how often the handler has run.
fn under_policy(policy: Foreign, then: impl Fn(&Scope, &dyn Fn(), &dyn Fn() -> u64)) {
    for sig in kinds() {
        for way in [Way::Kill, Way::Raise, Way::Sigqueue] {
            in_child(|| {
                let behind = Counting::on(sig);
                let before = State::now();
                let scope = ScopeOptions::new(sig).foreign(policy).enter().unwrap();
                then(&scope, &|| _ = way.send(sig, 0), &|| behind.runs());
                drop(scope);
                assert_eq!(State::now(), before, "{policy:?} {way:?}");
            });
        }
    }
}

const SIGNAL: Option<Reason> = Some(Reason::Signal);

#[test]
fn a_signal_that_is_to_interrupt_is_kept_too() {
    let _t = common::begin();
    for policy in [Foreign::Interrupt, Foreign::InterruptAndChain] {
        let chains = u64::from(policy == Foreign::InterruptAndChain);
        under_policy(policy, |scope, send, runs| {
            let silent = Silent::new();
            let guard = shield();
            for n in 1..=3 {
                send();
                assert_eq!(runs(), n * chains, "the handler behind runs when the signal comes");
                undisturbed();
                assert_eq!(reason(scope.interrupted()), SIGNAL);
            }
            drop(guard);
            assert_eq!(silent.plain_read(), Err(libc::EINTR), "it is sent for");
            assert_eq!(silent.read().unwrap_err().interrupted().map(Interrupted::reason), SIGNAL);
            undisturbed_plain();
            assert_eq!(reason(scope.clear()), SIGNAL);
            undisturbed();
        });
    }
}

fn undisturbed_plain() {
    each(&PLAIN).expect("plain calls are left alone");
}

#[test]
fn under_interrupt_once_the_second_signal_is_chained_though_the_first_is_kept() {
    let _t = common::begin();
    under_policy(Foreign::InterruptOnce, |scope, send, runs| {
        let guard = shield();
        for n in 0..3 {
            send();
            assert_eq!(runs(), n);
            undisturbed();
        }
        assert_eq!(reason(scope.clear()), SIGNAL);
        send();
        assert_eq!((runs(), reason(scope.interrupted())), (2, SIGNAL), "after clear the next one is the first");
        drop(guard);
        assert!(check().is_err());
        send();
        assert_eq!(runs(), 3);
    });
}

#[test]
fn a_signal_that_does_not_interrupt_does_what_it_does_without_a_shield() {
    let _t = common::begin();
    for policy in [Foreign::Chain, Foreign::Ignore] {
        under_policy(policy, |scope, send, runs| {
            let guard = shield();
            for n in 1..=3 {
                send();
                assert_eq!(runs(), if policy == Foreign::Chain { n } else { 0 });
                undisturbed();
            }
            assert_eq!(scope.remote().interrupt(), Delivery::Held);
            send();
            assert_eq!(reason(scope.interrupted()), Some(Reason::Remote));
            undisturbed();
            drop(guard);
            assert!(check().is_err());
        });
    }
}
