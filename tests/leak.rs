//! A scope that is never dropped ends with its thread: action, queue and remotes are then as after a drop.
// Threads, keys, forks and signals are made by libc and raw system calls, as applications do.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/counting.rs"]
mod counting;
#[path = "common/gatekeeper.rs"]
mod gatekeeper;

use common::State;
use counting::{Counting, kinds, real_time, undisturbed};
use eintr::{Delivery, Foreign, Remote, Scope, ScopeOptions, Status, Ticket};
use std::cell::RefCell;
use std::mem::forget;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Barrier, mpsc};
use std::time::Duration;

fn is_gone(remote: &Remote) {
    assert!(remote.is_closed() && remote.wait_closed(Duration::MAX));
    assert_eq!((remote.interrupt(), remote.interrupt_once()), (Delivery::Gone, Delivery::Gone));
    assert_eq!(remote.wait(Duration::MAX), Status::Closed);
}

/// Runs `f` on a thread of its own and waits until the kernel has none of it left.
fn on_a_thread<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::spawn(f).join().expect("the thread does not panic")
}

#[test]
fn a_forgotten_scope_lives_until_its_thread_ends() {
    let _t = common::begin();
    for sig in kinds() {
        for handler in [false, true] {
            let counting = handler.then(|| Counting::on(sig));
            let before = State::now();
            for asked in [false, true] {
                let (says, hears) = mpsc::channel();
                let ends = Arc::new(Barrier::new(2));
                let end = ends.clone();
                let thread = std::thread::spawn(move || {
                    let scope = Scope::enter(sig).unwrap();
                    let remote = scope.remote();
                    forget(scope);
                    assert!(eintr::is_interruptible() && eintr::check().is_ok());
                    remote.interrupt();
                    assert!(eintr::check().is_err(), "a forgotten scope works");
                    says.send(remote).unwrap();
                    end.wait();
                });
                let remote = hears.recv().unwrap();
                assert!(!remote.is_closed() && !remote.wait_closed(Duration::from_millis(1)));
                assert_ne!(State::now(), before, "the action is still ours");
                if asked {
                    assert_eq!(remote.interrupt(), Delivery::Sent);
                }
                ends.wait();
                assert!(remote.wait_closed(Duration::MAX), "who waits for the end is woken");
                thread.join().unwrap();
                is_gone(&remote);
                assert_eq!(State::now(), before, "{sig} {handler} {asked}");
            }
            assert!(counting.is_none_or(|c| c.runs() == 0));
        }
    }
}

#[test]
fn every_scope_that_a_thread_forgot_ends_with_it() {
    let _t = common::begin();
    let before = State::now();
    let numbers = [libc::SIGUSR1, real_time(), libc::SIGUSR1, libc::SIGUSR2, real_time(), libc::SIGUSR1];
    for blocked in [0, common::bit(libc::SIGUSR1), !0] {
        for queued in [false, true] {
            let remotes = on_a_thread(move || {
                common::set_mask(blocked);
                let scopes = numbers.map(|sig| Scope::enter(sig).unwrap());
                if queued {
                    common::set_mask(!0);
                }
                let remotes = scopes.each_ref().map(Scope::remote);
                for remote in &remotes[1..] {
                    assert_ne!(remote.interrupt(), Delivery::Gone);
                }
                let mut scopes = scopes.into_iter();
                drop(scopes.nth(2));
                scopes.for_each(forget);
                remotes
            });
            remotes.iter().for_each(is_gone);
            assert_eq!(State::now(), before, "{blocked:#x} blocked before, queued: {queued}");
        }
    }
}

#[test]
fn threads_that_forget_all_at_once_leave_nothing_behind() {
    let _t = common::begin();
    let counting = kinds().map(Counting::on);
    let before = State::now();
    for _ in 0..10 {
        let together = Arc::new(Barrier::new(32));
        let threads: Vec<_> = (0..32)
            .map(|n| {
                let together = together.clone();
                std::thread::spawn(move || {
                    let scopes = [0, 1, n].map(|k| Scope::enter(kinds()[k % 2]).unwrap());
                    let remotes = scopes.each_ref().map(Scope::remote);
                    scopes.into_iter().for_each(forget);
                    together.wait();
                    remotes[n % 3].interrupt();
                    remotes
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap().iter().for_each(is_gone);
        }
        assert_eq!(State::now(), before);
    }
    assert_eq!(counting[0].runs(), 0);
}

/// The sender stands between the gate and its system call when the thread ends: it would send to an id that may be another thread's by then, and
/// that thread has the true action. So the end of the thread waits for it.
#[test]
fn a_thread_that_forgot_its_scope_does_not_end_before_a_sender_that_is_inside() {
    let _t = common::begin();
    if !gatekeeper::can_hold() {
        return;
    }
    let counting = kinds().map(Counting::on);
    let before = State::now();
    for sig in kinds() {
        let (says, hears) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let scope = Scope::enter(sig).unwrap();
            says.send((common::gettid(), scope.remote())).unwrap();
            while scope.interrupted().is_none() {}
            forget(scope);
        });
        let (tid, remote) = hears.recv().unwrap();
        let asks = remote.clone();
        let Some(sender) = gatekeeper::hold_sender(move || asks.interrupt_once()) else { return };
        let path = format!("/proc/self/task/{tid}");
        let gone = || !std::path::Path::new(&path).exists();
        common::wait_until(|| gone() || common::blocked_in(tid) == libc::SYS_futex);
        assert!(!gone(), "the thread has ended, and the sender is about to send to it");
        assert_eq!(sender.release(), Delivery::Sent);
        thread.join().unwrap();
        is_gone(&remote);
    }
    assert_eq!(State::now(), before);
    assert_eq!(counting[0].runs(), 0);
}

/// The sender has passed the gate, or its signal is queued, when the thread ends: nothing may go out to a thread that is gone, or to another
/// one that got its id, and nothing may meet the default action.
#[test]
fn an_interrupt_in_flight_when_the_thread_ends_reaches_nobody() {
    let _t = common::begin();
    let before = State::now();
    let (ask, to_ask) = mpsc::channel::<Remote>();
    let interrupter = common::unsignalled(move || {
        let mut sent = 0u64;
        for remote in to_ask {
            while remote.interrupt_once() != Delivery::Gone {
                sent += 1;
            }
        }
        sent
    });
    for round in 0..common::rounds("EINTR_LEAK_ROUNDS", 400) {
        for sig in kinds() {
            let ask = ask.clone();
            on_a_thread(move || {
                let scope = Scope::enter(sig).unwrap();
                ask.send(scope.remote()).unwrap();
                while round % 2 == 0 && scope.interrupted().is_none() {}
                if round % 3 == 0 {
                    common::block(sig);
                }
                forget(scope);
            });
            // A thread that may have got the id of the one that ended.
            assert!(on_a_thread(|| undisturbed(Duration::from_micros(100))), "round {round}");
        }
    }
    drop(ask);
    assert!(interrupter.join().unwrap() > 0);
    assert_eq!(State::now(), before);
}

thread_local! {
    static KEPT: RefCell<Vec<Scope>> = const { RefCell::new(Vec::new()) };
}

#[test]
fn a_scope_kept_in_a_thread_local_is_dropped_with_its_thread() {
    let _t = common::begin();
    let before = State::now();
    for early in [false, true] {
        let remotes = on_a_thread(move || {
            if early {
                KEPT.with_borrow_mut(|kept| assert!(kept.is_empty())); // its destructor is registered before the first scope
            }
            let scopes = [libc::SIGUSR1, real_time(), libc::SIGUSR1].map(|sig| Scope::enter(sig).unwrap());
            let remotes = scopes.each_ref().map(Scope::remote);
            remotes[1].interrupt();
            KEPT.with_borrow_mut(|kept| kept.extend(scopes));
            remotes
        });
        remotes.iter().for_each(is_gone);
        assert_eq!(State::now(), before, "registered before the first scope: {early}");
    }
}

/// Enters, uses and forgets a scope while the thread is being taken down.
struct AtTheEnd(mpsc::Sender<Remote>);

impl Drop for AtTheEnd {
    fn drop(&mut self) {
        let scope = Scope::enter(libc::SIGUSR1).unwrap();
        scope.remote().interrupt();
        assert!(eintr::check().is_err());
        self.0.send(scope.remote()).unwrap();
        forget(scope);
    }
}

thread_local! {
    static LATE: RefCell<Option<AtTheEnd>> = const { RefCell::new(None) };
}

#[test]
fn a_scope_entered_and_forgotten_by_a_thread_locals_destructor_ends_too() {
    let _t = common::begin();
    let before = State::now();
    for scopes_before in [false, true] {
        let (says, hears) = mpsc::channel();
        on_a_thread(move || {
            LATE.with_borrow_mut(|late| *late = Some(AtTheEnd(says)));
            if scopes_before {
                forget(Scope::enter(libc::SIGUSR1).unwrap());
            }
        });
        is_gone(&hears.recv().unwrap());
        assert_eq!(State::now(), before, "after other scopes: {scopes_before}");
    }
}

extern "C" fn drop_scope(scope: *mut libc::c_void) {
    drop(unsafe { Box::from_raw(scope.cast::<Scope>()) });
}

extern "C" fn drop_late(late: *mut libc::c_void) {
    drop(unsafe { Box::from_raw(late.cast::<AtTheEnd>()) });
}

/// A key of the C library, made before or after the crate's own: its destructor runs before or after the crate has left the thread's scopes.
fn key(destructor: extern "C" fn(*mut libc::c_void)) -> libc::pthread_key_t {
    let mut key = 0;
    assert_eq!(unsafe { libc::pthread_key_create(&mut key, Some(destructor)) }, 0);
    key
}

fn keep<T>(key: libc::pthread_key_t, value: T) {
    let value = Box::into_raw(Box::new(value));
    assert_eq!(unsafe { libc::pthread_setspecific(key, value.cast()) }, 0);
}

/// In a process of its own: it matters that the first key is older than the crate's.
#[test]
fn destructors_of_the_c_librarys_keys_may_drop_and_forget_scopes_in_any_order() {
    let _t = common::begin();
    common::in_own_process("destructors_of_the_c_librarys_keys_may_drop_and_forget_scopes_in_any_order", || {
        let older = [key(drop_scope), key(drop_late)];
        drop(Scope::enter(libc::SIGUSR1).unwrap());
        let newer = [key(drop_scope), key(drop_late)];
        let before = State::now();
        for (scope_key, late_key) in [(older[0], older[1]), (newer[0], newer[1]), (older[0], newer[1])] {
            for interrupted in [false, true] {
                let (says, hears) = mpsc::channel();
                let remote = on_a_thread(move || {
                    let scope = Scope::enter(libc::SIGUSR1).unwrap();
                    let remote = scope.remote();
                    if interrupted {
                        remote.interrupt();
                    }
                    forget(Scope::enter(real_time()).unwrap());
                    keep(scope_key, scope);
                    keep(late_key, AtTheEnd(says));
                    remote
                });
                is_gone(&remote);
                is_gone(&hears.recv().unwrap());
                assert_eq!(State::now(), before, "keys {scope_key} and {late_key}");
            }
        }
    });
}

#[test]
fn a_forgotten_scope_keeps_the_action_of_others_as_a_live_one_does() {
    let _t = common::begin();
    let before = State::now();
    let mine = Scope::enter(libc::SIGUSR1).unwrap();
    on_a_thread(|| forget(Scope::enter(libc::SIGUSR1).unwrap()));
    assert_eq!(mine.remote().interrupt(), Delivery::Sent, "the thread that ended took its own scope away only");
    assert!(eintr::check().is_err());
    drop(mine);
    assert_eq!(State::now(), before);
}

#[test]
fn an_action_replaced_over_a_forgotten_scope_is_left_when_the_thread_ends() {
    let _t = common::begin();
    let before = State::now();
    let (theirs, standing) = on_a_thread(|| {
        let scope = Scope::enter(libc::SIGUSR1).unwrap();
        let theirs = Counting::on(libc::SIGUSR1);
        assert_eq!(scope.remote().interrupt(), Delivery::Displaced);
        forget(scope);
        (theirs, common::action(libc::SIGUSR1))
    });
    assert_eq!(common::action(libc::SIGUSR1), standing);
    assert_eq!(theirs.runs(), 0);
    forget(theirs);
    common::restore(libc::SIGUSR1, common::Action::default());
    assert_eq!(State::now(), before);
}

#[test]
fn a_forgotten_scope_that_signals_interrupt_is_not_asked_after_its_thread() {
    let _t = common::begin();
    let counting = Counting::on(libc::SIGUSR1);
    let before = State::now();
    let options = || ScopeOptions::new(libc::SIGUSR1).foreign(Foreign::Interrupt);
    let remote = on_a_thread(move || {
        let scope = options().enter().unwrap();
        let remote = scope.remote();
        forget(scope);
        remote
    });
    is_gone(&remote);
    assert_eq!(State::now(), before);
    let chains = Scope::enter(libc::SIGUSR1).unwrap();
    unsafe { libc::raise(libc::SIGUSR1) };
    assert_eq!(counting.runs(), 1, "the policy went with the thread");
    assert!(chains.interrupted().is_none());
}

/// The child of a fork has one thread, so nobody but the scoped thread has the number open.
#[test]
fn what_a_forgotten_scope_held_for_the_process_is_there_again_when_its_thread_ends() {
    let _t = common::begin();
    for sig in kinds() {
        let child = common::fork(|| {
            let was_pending = move |set: u64| set & common::bit(sig) != 0;
            common::block(sig);
            on_a_thread(move || {
                forget(Scope::enter(sig).unwrap());
                let value = libc::sigval { sival_ptr: std::ptr::null_mut() };
                assert_eq!(unsafe { libc::sigqueue(common::getpid(), sig, value) }, 0);
                let own = common::status_bits(common::gettid(), "SigPnd:");
                assert!(!was_pending(own), "it was open here, so it came, and is held");
            });
            let process = common::status_bits(common::gettid(), "ShdPnd:");
            if was_pending(process) && common::action(sig).handler == libc::SIG_DFL { 0 } else { 1 }
        });
        assert_eq!(common::reap(child), 0, "signal {sig}");
    }
}

#[test]
fn a_forgotten_ticket_keeps_what_is_asked_and_harms_nobody() {
    let _t = common::begin();
    let before = State::now();
    let (ticket, remote) = Ticket::new();
    forget(ticket);
    assert_eq!(remote.interrupt(), Delivery::Held);
    assert_eq!(remote.wait(Duration::ZERO), Status::StillRunning);
    assert!(!remote.is_closed() && eintr::check().is_ok());
    assert_eq!(State::now(), before);
}

/// The end of a process does not wait for scopes: a sender may be busy with one when the exit handlers run.
#[test]
fn a_process_ends_as_it_wants_to_with_scopes_live_and_senders_busy() {
    let _t = common::begin();
    for round in 0..20 {
        let sig = kinds()[round % 2];
        let child = common::fork(|| {
            let over = Arc::new(AtomicBool::new(false));
            let (says, hears) = mpsc::channel();
            let scope = Scope::enter(sig).unwrap();
            let (remote, stop) = (scope.remote(), over.clone());
            std::thread::spawn(move || {
                while !stop.load(SeqCst) {
                    remote.interrupt_once();
                    let _ = says.send(());
                }
            });
            hears.recv().unwrap();
            forget(scope);
            unsafe { libc::exit(42) }
        });
        let status = common::reap(child);
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 42, "round {round}: status {status:#x}");
    }
}
