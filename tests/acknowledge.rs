//! The thread learns of an interrupt by looking, as often as it looks, until it clears it; and what it has acknowledged disturbs it no more.
// Signals are raised, and calls made, by raw system calls, as applications do.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/counting.rs"]
mod counting;
#[path = "common/gatekeeper.rs"]
mod gatekeeper;

use common::{Random, State};
use counting::{Counting, kinds, real_time, undisturbed};
use eintr::{Delivery, Error, Foreign, Interrupted, Reason, Remote, Scope, ScopeOptions, Status};
use std::sync::mpsc;
use std::time::Duration;

#[test]
fn a_pending_interrupt_fails_every_look_until_it_is_cleared() {
    let _t = common::begin();
    let scope = Scope::enter(libc::SIGUSR1).unwrap();
    assert!(eintr::check().is_ok() && scope.clear().is_none() && scope.interrupted().is_none());
    for _ in 0..3 {
        scope.remote().interrupt();
        for _ in 0..3 {
            assert_eq!(eintr::check().unwrap_err().reason(), Reason::Remote);
            let never: Result<i32, Error> = eintr::retry(|| -> i32 { panic!("called in spite of the interrupt") });
            assert_eq!(never.unwrap_err().interrupted().unwrap().reason(), Reason::Remote);
            assert_eq!(scope.interrupted().unwrap().reason(), Reason::Remote);
        }
        assert_eq!(scope.clear().unwrap().reason(), Reason::Remote);
        assert!(scope.clear().is_none() && scope.interrupted().is_none() && eintr::check().is_ok());
        assert_eq!(eintr::retry(|| 7), Ok(7));
    }
}

#[test]
fn a_pending_interrupt_ends_with_its_scope() {
    let _t = common::begin();
    let scope = Scope::enter(libc::SIGUSR1).unwrap();
    scope.remote().interrupt();
    assert!(eintr::check().is_err());
    drop(scope);
    assert!(eintr::check().is_ok());
    let next = Scope::enter(libc::SIGUSR1).unwrap();
    assert!(eintr::check().is_ok() && next.interrupted().is_none());
}

#[test]
fn looking_acknowledges_nothing_and_check_retry_clear_and_drop_do() {
    let _t = common::begin();
    fn check(scope: Scope) -> Option<Scope> {
        eintr::check().unwrap_err();
        Some(scope)
    }
    fn retry(scope: Scope) -> Option<Scope> {
        eintr::retry(|| 0i32).unwrap_err();
        Some(scope)
    }
    fn clear(scope: Scope) -> Option<Scope> {
        scope.clear().unwrap();
        Some(scope)
    }
    fn end(_: Scope) -> Option<Scope> {
        None
    }
    type Acknowledge = fn(Scope) -> Option<Scope>;
    let told: [(&str, Acknowledge); 4] = [("check", check), ("retry", retry), ("clear", clear), ("drop", end)];
    for (what, acknowledge) in told {
        let scope = Scope::enter(libc::SIGUSR1).unwrap();
        let remote = scope.remote();
        assert_eq!(remote.wait(Duration::ZERO), Status::Acknowledged, "nothing was asked");
        remote.interrupt();
        for _ in 0..3 {
            assert!(scope.interrupted().is_some() && !format!("{scope:?}").is_empty() && eintr::is_interruptible());
            assert_eq!(remote.wait(Duration::ZERO), Status::StillRunning, "before {what}");
        }
        let after = acknowledge(scope);
        let wanted = if what == "drop" { Status::Closed } else { Status::Acknowledged };
        assert_eq!(remote.wait(Duration::ZERO), wanted, "after {what}");
        if let Some(scope) = after {
            assert_eq!(remote.interrupt(), Delivery::Sent, "a new request after {what} is sent again");
            assert_eq!(remote.wait(Duration::ZERO), Status::StillRunning);
            assert!(eintr::check().is_err() && scope.clear().is_some());
        }
    }
}

/// An outer scope that signals interrupt, and an inner one.
fn outer_by_signal() -> (Scope, Scope) {
    let outer = ScopeOptions::new(libc::SIGUSR2).foreign(Foreign::Interrupt).enter().unwrap();
    (outer, Scope::enter(libc::SIGUSR1).unwrap())
}

fn reason() -> Option<Reason> {
    eintr::check().err().map(Interrupted::reason)
}

#[test]
fn of_several_scopes_the_outermost_is_told_first() {
    let _t = common::begin();
    let (outer, inner) = outer_by_signal();
    inner.remote().interrupt();
    assert_eq!(reason(), Some(Reason::Remote));
    unsafe { libc::raise(libc::SIGUSR2) };
    assert_eq!(reason(), Some(Reason::Signal), "the outer scope's");
    assert_eq!(inner.interrupted().map(Interrupted::reason), Some(Reason::Remote), "each scope tells its own");
    assert!(outer.clear().is_some());
    assert_eq!(reason(), Some(Reason::Remote), "the inner scope's is left");
    drop(outer);
    assert_eq!(reason(), Some(Reason::Remote), "wherever the outer one is");
    assert!(inner.clear().is_some());
    assert_eq!(reason(), None);
}

#[test]
fn a_scope_that_is_entered_later_is_further_in_whatever_was_dropped_between() {
    let _t = common::begin();
    let first = Scope::enter(libc::SIGUSR1).unwrap();
    let (outer, inner) = outer_by_signal();
    drop(first);
    let innermost = Scope::enter(libc::SIGUSR1).unwrap();
    for scope in [&inner, &innermost] {
        scope.remote().interrupt();
    }
    unsafe { libc::raise(libc::SIGUSR2) };
    assert_eq!(reason(), Some(Reason::Signal));
    drop(outer);
    assert_eq!(reason(), Some(Reason::Remote));
}

#[test]
fn a_remote_is_told_before_a_signal_of_the_same_scope() {
    let _t = common::begin();
    for remote_first in [false, true] {
        let scope = ScopeOptions::new(libc::SIGUSR1).foreign(Foreign::Interrupt).enter().unwrap();
        if remote_first {
            scope.remote().interrupt();
        }
        unsafe { libc::raise(libc::SIGUSR1) };
        assert_eq!(reason(), Some(if remote_first { Reason::Remote } else { Reason::Signal }));
        scope.remote().interrupt();
        assert_eq!(reason(), Some(Reason::Remote));
        assert_eq!(scope.clear().map(Interrupted::reason), Some(Reason::Remote));
        assert!(scope.clear().is_none(), "both were taken");
    }
}

#[test]
fn check_acknowledges_every_scope_and_clear_only_its_own() {
    let _t = common::begin();
    for (one, two) in [(libc::SIGUSR1, libc::SIGUSR2), (libc::SIGUSR1, libc::SIGUSR1)] {
        let (outer, inner) = (Scope::enter(one).unwrap(), Scope::enter(two).unwrap());
        let remotes = [outer.remote(), inner.remote()];
        let asked = || remotes.each_ref().map(|r| r.wait(Duration::ZERO) == Status::StillRunning);
        for remote in &remotes {
            remote.interrupt();
        }
        assert_eq!(asked(), [true, true]);
        assert!(inner.clear().is_some());
        assert_eq!(asked(), [true, false], "the outer one's is not seen");
        assert!(outer.interrupted().is_some() && reason().is_some(), "nor taken");
        remotes[1].interrupt();
        assert_eq!(asked(), [false, true], "a new request is not acknowledged by what came before it");
        assert!(reason().is_some());
        assert_eq!(asked(), [false, false]);
        assert!(outer.interrupted().is_some() && inner.interrupted().is_some(), "check takes none");
        assert!(outer.clear().is_some());
        assert!(reason().is_some(), "the inner one's is left");
        assert!(inner.clear().is_some() && reason().is_none());
    }
}

/// Interrupts, once for each remote that comes, on a thread of its own; says when it is back from it.
fn interrupter() -> (mpsc::Sender<Remote>, mpsc::Receiver<Delivery>) {
    let (remotes, to_ask) = mpsc::channel::<Remote>();
    let (answers, answered) = mpsc::channel();
    common::unsignalled(move || {
        for remote in to_ask {
            if answers.send(remote.interrupt_once()).is_err() {
                return;
            }
        }
    });
    (remotes, answered)
}

/// What ends what was asked, and leaves scopes of the same number or not.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ends {
    Check,
    Clear,
    Drop,
    DropInside,
}

/// Protocol 6 and 7: the sender has marked the gate and stands before its system call; the thread sees the mark, acknowledges or drops, and goes on
/// to a plain call; then the signal comes, and breaks it, or meets the action behind. So the thread waits for who stands between the two. Both have
/// every signal blocked there: a handler that ran on one of them might wait for the other.
#[test]
fn acknowledging_and_dropping_wait_for_a_sender_that_has_not_sent_yet() {
    let _t = common::begin();
    if !gatekeeper::can_hold() {
        return;
    }
    for sig in kinds() {
        for ends in [Ends::Check, Ends::Clear, Ends::Drop, Ends::DropInside] {
            let counting = Counting::on(sig);
            let before = State::now();
            let (from, to) = common::pipe();
            let (says, hears) = mpsc::channel();
            let worker = std::thread::spawn(move || {
                let around = (ends == Ends::DropInside).then(|| Scope::enter(sig).unwrap());
                let scope = Scope::enter(sig).unwrap();
                says.send((common::gettid(), scope.remote())).unwrap();
                while scope.interrupted().is_none() {}
                let kept = match ends {
                    Ends::Check => eintr::check().err().map(|_| scope),
                    Ends::Clear => scope.clear().map(|_| scope),
                    Ends::Drop | Ends::DropInside => {
                        drop(scope);
                        None
                    }
                };
                let read = common::plain_read(&from);
                drop((kept, around));
                read
            });
            let (tid, remote) = hears.recv().unwrap();
            let Some(sender) = gatekeeper::hold_sender(move || remote.interrupt_once()) else { return };
            common::wait_until(|| [libc::SYS_futex, libc::SYS_read].contains(&common::blocked_in(tid)));
            let every = !(common::bit(libc::SIGKILL) | common::bit(libc::SIGSTOP));
            assert_eq!(common::status_bits(sender.tid, "SigBlk:"), every, "the sender, between gate and kernel");
            if common::blocked_in(tid) == libc::SYS_futex {
                assert_eq!(common::status_bits(tid, "SigBlk:"), every, "who waits for it");
            }
            assert_eq!(sender.release(), Delivery::Sent);
            common::wait_until(|| worker.is_finished() || common::blocked_in(tid) == libc::SYS_read);
            let _ = nix::unistd::write(&to, b"data"); // nobody reads if the signal broke it
            assert_eq!(worker.join().unwrap(), Ok(4), "signal {sig} after {ends:?}");
            assert_eq!(State::now(), before);
            assert_eq!(counting.runs(), 0);
        }
    }
}

/// The same for a signal that has been sent, in all the interleavings that come by themselves: it lands before the acknowledgement is over.
#[test]
fn after_an_acknowledgement_no_signal_comes_for_what_was_asked_before() {
    let _t = common::begin();
    let (ask, answered) = interrupter();
    for round in 0..common::rounds("EINTR_ACK_ROUNDS", 1500) {
        for sig in kinds() {
            let scope = Scope::enter(sig).unwrap();
            ask.send(scope.remote()).unwrap();
            if round % 2 == 0 {
                while scope.interrupted().is_none() {}
                assert!(scope.clear().is_some());
            } else {
                while eintr::check().is_ok() {}
            }
            assert!(undisturbed(Duration::from_micros(300)), "round {round}");
            assert_eq!(answered.recv().unwrap(), Delivery::Sent);
            assert!(undisturbed(Duration::from_micros(50)), "round {round}, the sender is back");
        }
    }
}

/// The same with drop in place of the acknowledgement, and a handler behind that counts what gets through.
#[test]
fn after_drop_no_signal_comes_for_what_was_asked_before() {
    let _t = common::begin();
    let counting = kinds().map(Counting::on);
    let before = State::now();
    let (ask, answered) = interrupter();
    for round in 0..common::rounds("EINTR_ACK_ROUNDS", 1500) {
        for sig in kinds() {
            let scope = Scope::enter(sig).unwrap();
            let around = (round % 3 == 0).then(|| Scope::enter(sig).unwrap());
            ask.send(scope.remote()).unwrap();
            while scope.interrupted().is_none() {}
            drop(scope);
            assert!(undisturbed(Duration::from_micros(300)), "round {round}");
            answered.recv().unwrap();
            assert!(undisturbed(Duration::from_micros(50)), "round {round}, the sender is back");
            drop(around);
            assert_eq!(counting[0].runs(), 0, "round {round}");
        }
    }
    assert_eq!(State::now(), before);
}

/// clear looks, and finds nothing; a request comes, kept by the gate that clear holds; clear takes it off: nobody is ever told of it. So looking
/// and taking are one step.
#[test]
fn clear_never_wipes_an_interrupt_that_it_does_not_tell() {
    let _t = common::begin();
    let (ask, answered) = interrupter();
    let scope = Scope::enter(libc::SIGUSR1).unwrap();
    let rounds = common::rounds("EINTR_CLEAR_ROUNDS", 20_000);
    let mut random = Random::new();
    for round in 0..rounds {
        ask.send(scope.remote()).unwrap();
        let mut told = (0..random.below(64)).filter(|_| scope.clear().is_some()).count();
        assert_ne!(answered.recv().unwrap(), Delivery::Gone);
        told += usize::from(scope.clear().is_some());
        assert_eq!(told, 1, "round {round}: asked once, told {told} times");
    }
}

#[test]
fn a_thread_is_interruptible_while_a_scope_lives_on_it() {
    let _t = common::begin();
    assert!(!eintr::is_interruptible());
    let (ticket, remote) = eintr::Ticket::new();
    assert!(!eintr::is_interruptible(), "a ticket is not a scope yet");
    let (first, second) = (Scope::enter(libc::SIGUSR1).unwrap(), ticket.enter(real_time()).unwrap());
    assert!(eintr::is_interruptible());
    assert!(!std::thread::spawn(eintr::is_interruptible).join().unwrap(), "a thread started inside is not in it");
    drop(first);
    remote.interrupt();
    assert!(eintr::is_interruptible(), "and stays so while it is interrupted");
    assert!(eintr::check().is_err() && eintr::is_interruptible());
    drop(second);
    assert!(!eintr::is_interruptible());
}

#[test]
fn without_a_scope_the_free_functions_do_nothing() {
    let _t = common::begin();
    let before = State::now();
    assert_eq!(eintr::check(), Ok(()));
    assert!(!eintr::is_interruptible());
    assert_eq!(eintr::retry(|| 7), Ok(7));
    assert_eq!(State::now(), before);
}
