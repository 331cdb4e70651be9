//! A panic is one of the ways out of a scope: action, mask and queue are as before, whatever was in flight, and nothing panics twice.
// Masks are set, signals sent and calls made by raw system calls, as applications do.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/counting.rs"]
mod counting;
#[path = "common/gatekeeper.rs"]
mod gatekeeper;

use common::{Random, State, action, bit};
use counting::{Counting, is_open, kinds, real_time, undisturbed};
use eintr::{Delivery, Foreign, Reason, Remote, Resend, Scope, ScopeOptions, Status, Ticket};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// What the panics of these tests carry, so that a failed assertion is not taken for one of them.
#[derive(Debug, PartialEq)]
struct Meant(u32);

/// Panics without the hook, so that thousands of them do not fill the log.
fn panic_meant(n: u32) -> ! {
    resume_unwind(Box::new(Meant(n)))
}

/// Runs `f`, which must panic so, and returns the number.
fn panics(f: impl FnOnce()) -> u32 {
    let payload = catch_unwind(AssertUnwindSafe(f)).expect_err("it panics");
    match payload.downcast::<Meant>() {
        Ok(meant) => meant.0,
        Err(other) => resume_unwind(other),
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Asked {
    Nothing,
    /// Delivered, not acknowledged.
    Pending,
    Acknowledged,
    /// Queued behind the user's own block.
    Queued,
}

fn ask(scope: &Scope, asked: Asked) {
    if asked == Asked::Queued {
        common::block(scope.signal().as_raw());
    }
    if asked != Asked::Nothing {
        assert_eq!(scope.remote().interrupt(), Delivery::Sent);
    }
    if asked == Asked::Acknowledged {
        assert!(eintr::check().is_err());
    }
}

const ALL: [Asked; 4] = [Asked::Nothing, Asked::Pending, Asked::Acknowledged, Asked::Queued];

#[test]
fn a_panic_in_a_scope_puts_everything_back() {
    let _t = common::begin();
    for sig in kinds() {
        for handler in [false, true] {
            let counting = handler.then(|| Counting::on(sig));
            for was_blocked in [false, true] {
                let outer_mask = if was_blocked { common::block(sig) } else { common::unblock(sig) };
                for asked in ALL {
                    let before = State::now();
                    let mut remote = None;
                    let n = panics(|| {
                        let scope = Scope::enter(sig).unwrap();
                        remote = Some(scope.remote());
                        ask(&scope, asked);
                        panic_meant(1);
                    });
                    assert_eq!(n, 1);
                    assert_eq!(State::now(), before, "{sig} {handler} {was_blocked} {asked:?}");
                    assert_eq!(remote.unwrap().interrupt(), Delivery::Gone);
                    assert!(eintr::check().is_ok() && !eintr::is_interruptible());
                }
                common::unblock(sig); // what is queued for the action behind would come now
                common::set_mask(outer_mask);
            }
            assert!(counting.is_none_or(|c| c.runs() == 0));
        }
    }
}

#[test]
fn a_panic_that_the_hook_reports_puts_everything_back_too() {
    let _t = common::begin();
    let before = State::now();
    let caught = catch_unwind(|| {
        let scope = Scope::enter(libc::SIGUSR1).unwrap();
        scope.remote().interrupt();
        panic!("meant, and reported");
    });
    assert!(caught.is_err());
    assert_eq!(State::now(), before);
}

/// Frames nested as scopes are, innermost first to unwind.
fn nest(signals: &[i32], asked: &[Asked], remotes: &mut Vec<Remote>) {
    let [sig, inner @ ..] = signals else { panic_meant(remotes.len() as u32) };
    let scope = Scope::enter(*sig).unwrap();
    remotes.push(scope.remote());
    ask(&scope, asked[0]);
    nest(inner, &asked[1..], remotes);
}

#[test]
fn a_panic_in_nested_scopes_puts_everything_back() {
    let _t = common::begin();
    let numbers = [libc::SIGUSR1, libc::SIGUSR2, real_time()];
    let counting: Vec<_> = numbers.iter().map(|sig| Counting::on(*sig)).collect();
    for blocked in [0, bit(libc::SIGUSR2), numbers.iter().fold(0, |mask, sig| mask | bit(*sig))] {
        let outer_mask = common::set_mask(blocked);
        for signals in [[0, 1, 2], [0, 0, 0], [0, 1, 0], [2, 2, 1]].map(|of| of.map(|i: usize| numbers[i])) {
            for asked in (0..27).map(|n| [n / 9, n / 3 % 3, n % 3].map(|i| ALL[i])) {
                let before = State::now();
                let mut remotes = Vec::new();
                assert_eq!(panics(|| nest(&signals, &asked, &mut remotes)), 3);
                assert_eq!(State::now(), before, "{signals:?} {asked:?}");
                assert!(remotes.iter().all(Remote::is_closed));
            }
        }
        common::set_mask(outer_mask);
    }
    assert!(counting.iter().all(|c| c.runs() == 0));
}

/// A Vec drops from the front: the outermost scope goes first.
#[test]
fn a_panic_that_drops_scopes_out_of_order_puts_everything_back() {
    let _t = common::begin();
    let mut random = Random::new();
    let numbers = [libc::SIGUSR1, libc::SIGUSR2, real_time()];
    for _ in 0..300 {
        let before = State::now();
        let n = panics(|| {
            let mut scopes: Vec<_> = (0..6).map(|_| Scope::enter(numbers[random.below(3) as usize]).unwrap()).collect();
            for at in (1..scopes.len()).rev() {
                scopes.swap(at, random.below(at as u64 + 1) as usize);
            }
            for scope in scopes.iter().filter(|_| random.chance(2)) {
                scope.remote().interrupt();
            }
            panic_meant(6);
        });
        assert_eq!(n, 6);
        assert_eq!(State::now(), before);
        assert!(eintr::check().is_ok());
    }
}

/// A thread that interrupts each scope whose remote it gets, again and again until that is gone.
fn interrupter() -> (mpsc::Sender<Remote>, std::thread::JoinHandle<u64>) {
    let (remotes, to_ask) = mpsc::channel::<Remote>();
    let thread = common::unsignalled(move || {
        let mut sent = 0;
        for remote in to_ask {
            loop {
                match remote.interrupt_once() {
                    Delivery::Gone => break,
                    Delivery::Sent => sent += 1,
                    _ => {}
                }
            }
        }
        sent
    });
    (remotes, thread)
}

/// The sender stands between the gate and the kernel, or its signal is queued, while the thread unwinds out of the scope. Over the default
/// action one that comes late ends the process; over a handler it is counted; a call that it breaks says EINTR.
#[test]
fn a_panic_while_an_interrupt_is_in_flight_lets_nothing_through() {
    let _t = common::begin();
    for handler in [false, true] {
        let counting = handler.then(|| kinds().map(Counting::on));
        let before = State::now();
        let (ask, interrupter) = interrupter();
        for round in 0..common::rounds("EINTR_PANIC_ROUNDS", 400) {
            for sig in kinds() {
                let nested = round % 3 == 0;
                let n = panics(|| {
                    let scope = Scope::enter(sig).unwrap();
                    let inner = nested.then(|| Scope::enter(sig).unwrap());
                    if round % 5 == 0 {
                        common::block(sig);
                    }
                    ask.send(inner.as_ref().unwrap_or(&scope).remote()).unwrap();
                    while round % 2 == 0 && inner.as_ref().unwrap_or(&scope).interrupted().is_none() {}
                    panic_meant(2);
                });
                assert_eq!(n, 2);
                assert!(undisturbed(Duration::from_micros(100)), "round {round}");
            }
        }
        drop(ask);
        assert!(interrupter.join().unwrap() > 0);
        assert_eq!(State::now(), before);
        assert!(counting.is_none_or(|c| c[0].runs() == 0));
    }
}

/// The same, with the sender held before its system call until the thread that unwinds waits for it.
#[test]
fn unwinding_waits_for_a_sender_that_has_not_sent_yet() {
    let _t = common::begin();
    if !gatekeeper::can_hold() {
        return;
    }
    for sig in kinds() {
        let counting = Counting::on(sig);
        let before = State::now();
        let (from, to) = common::pipe();
        let (says, hears) = mpsc::channel();
        let worker = std::thread::spawn(move || {
            panics(|| {
                let scopes = [sig, libc::SIGUSR2, sig].map(|sig| Scope::enter(sig).unwrap());
                says.send((common::gettid(), scopes[0].remote())).unwrap();
                while scopes[0].interrupted().is_none() {}
                panic_meant(0);
            });
            common::plain_read(&from)
        });
        let (tid, remote) = hears.recv().unwrap();
        let Some(sender) = gatekeeper::hold_sender(move || remote.interrupt_once()) else { return };
        common::wait_until(|| [libc::SYS_futex, libc::SYS_read].contains(&common::blocked_in(tid)));
        assert_eq!(sender.release(), Delivery::Sent);
        common::wait_until(|| worker.is_finished() || common::blocked_in(tid) == libc::SYS_read);
        let _ = nix::unistd::write(&to, b"data"); // nobody reads if the signal broke it
        assert_eq!(worker.join().unwrap(), Ok(4));
        assert_eq!(State::now(), before);
        assert_eq!(counting.runs(), 0);
    }
}

/// Enters, interrupts, looks and leaves when it is dropped; catches a panic of its own inside.
struct Cleanup<'a>(&'a mut Vec<Remote>);

impl Drop for Cleanup<'_> {
    fn drop(&mut self) {
        assert!(std::thread::panicking());
        let scope = Scope::enter(libc::SIGUSR1).unwrap();
        let inner = Scope::enter(real_time()).unwrap();
        for scope in [&scope, &inner] {
            scope.remote().interrupt();
            assert!(eintr::check().is_err() && scope.clear().is_some() && eintr::check().is_ok());
            self.0.push(scope.remote());
        }
        assert_eq!(eintr::retry(|| 7), Ok(7));
        drop(scope);
        assert_eq!(inner.leave(), Ok(()));
    }
}

#[test]
fn scopes_may_be_entered_used_and_left_while_panicking() {
    let _t = common::begin();
    let before = State::now();
    for in_scope in [false, true] {
        let mut remotes = Vec::new();
        let n = panics(|| {
            let around = in_scope.then(|| Scope::enter(libc::SIGUSR1).unwrap());
            let _cleanup = Cleanup(&mut remotes);
            let _scopes = [libc::SIGUSR1, libc::SIGUSR2].map(|sig| Scope::enter(sig).unwrap());
            panic_meant(around.is_some().into());
        });
        assert_eq!(n, in_scope.into());
        assert_eq!(remotes.len(), 2);
        assert!(remotes.iter().all(Remote::is_closed));
        assert_eq!(State::now(), before);
    }
}

/// The clean-up of a panic that unwinds through an interrupted scope is made of plain calls: they are not broken by what was acknowledged.
#[test]
fn plain_calls_of_a_clean_up_are_left_alone_after_an_acknowledgement() {
    struct Sleeps;
    impl Drop for Sleeps {
        fn drop(&mut self) {
            assert!(undisturbed(Duration::from_millis(2)));
        }
    }
    let _t = common::begin();
    let before = State::now();
    for sig in kinds() {
        for _ in 0..50 {
            panics(|| {
                let scope = Scope::enter(sig).unwrap();
                let _sleeps = Sleeps;
                scope.remote().interrupt();
                if eintr::check().is_err() {
                    panic_meant(0);
                }
            });
        }
    }
    assert_eq!(State::now(), before);
}

/// A destructor that panicked while the thread unwinds would end the process, and this test run with it.
#[test]
fn unwinding_out_of_a_scope_whose_action_was_replaced_does_not_panic_again() {
    let _t = common::begin();
    for sig in kinds() {
        let before = State::now();
        let theirs = std::cell::RefCell::new(None);
        let n = panics(|| {
            let scope = Scope::enter(sig).unwrap();
            scope.remote().interrupt_once(); // a resend that is under way may reach theirs, once
            *theirs.borrow_mut() = Some((Counting::on(sig), action(sig)));
            assert_eq!(scope.remote().interrupt(), Delivery::Displaced);
            panic_meant(3);
        });
        assert_eq!(n, 3);
        let (theirs, standing) = theirs.take().unwrap();
        assert_eq!(action(sig), standing, "theirs was left");
        assert_eq!(theirs.runs(), 0);
        common::restore(sig, common::Action::default());
        std::mem::forget(theirs);
        assert_eq!(State::now(), before);
    }
}

/// How often [`dispatch`] was called, and what it calls.
static DISPATCHED: AtomicU64 = AtomicU64::new(0);
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// A stranger's handler that hands everything on to the one that it found.
extern "C" fn dispatch(sig: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    DISPATCHED.fetch_add(1, SeqCst);
    let next: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) =
        unsafe { std::mem::transmute(NEXT.load(SeqCst)) };
    next(sig, info, context);
}

/// A stranger comes while a resend is armed, and hands on what he gets: he sees the one that was under way, and none after it.
/// [with an expiry that has the next one armed without a look at the action: hundreds]
#[test]
fn the_resend_stops_at_a_strangers_handler() {
    let _t = common::begin();
    let pause = Duration::from_micros(50);
    for sig in kinds() {
        for hands_on in [true, false] {
            let before = State::now();
            let resend = Resend::Backoff { first: pause, ceiling: pause };
            let scope = ScopeOptions::new(sig).resend(resend).enter().unwrap();
            NEXT.store(action(sig).handler, SeqCst);
            let seen = (DISPATCHED.load(SeqCst), counting::runs());
            assert_eq!(scope.remote().interrupt(), Delivery::Sent);
            let theirs = if hands_on { dispatch as *const () as usize } else { counting::count as *const () as usize };
            common::install(sig, theirs, libc::SA_SIGINFO | libc::SA_RESTART, &[]);
            let until = Instant::now() + Duration::from_millis(50);
            common::wait_until(|| Instant::now() > until);
            let seen = DISPATCHED.load(SeqCst) - seen.0 + counting::runs() - seen.1;
            assert!(seen <= 2, "the stranger saw {seen} of ours");
            assert!(eintr::check().is_err(), "the interrupt is pending all the same");
            assert_eq!(scope.remote().interrupt(), Delivery::Displaced);
            assert!(scope.leave().is_err(), "ours was replaced");
            assert_eq!(action(sig).handler, theirs);
            common::restore(sig, common::Action::default());
            assert_eq!(State::now(), before);
        }
    }
}

#[test]
fn a_thread_that_caught_a_panic_uses_scopes_as_before() {
    let _t = common::begin();
    let before = State::now();
    let (from, to) = common::pipe();
    for round in 0..200 {
        let sig = kinds()[round as usize % 2];
        panics(|| {
            let scope = Scope::enter(sig).unwrap();
            if round % 3 == 0 {
                scope.remote().interrupt();
            }
            panic_meant(round);
        });
        let scope = Scope::enter(sig).unwrap();
        assert!(scope.interrupted().is_none() && eintr::check().is_ok(), "nothing is left of the one that panicked");
        nix::unistd::write(&to, b"data").unwrap();
        assert_eq!(eintr::retry(|| nix::unistd::read(&from, &mut [0; 8])), Ok(4));
        assert_eq!(scope.remote().interrupt(), Delivery::Sent);
        assert!(eintr::retry(|| nix::unistd::read(&from, &mut [0; 8])).unwrap_err().interrupted().is_some());
    }
    assert_eq!(State::now(), before);
}

#[test]
fn a_blocked_call_of_a_thread_that_caught_a_panic_is_ended_as_before() {
    let _t = common::begin();
    let before = State::now();
    let (says, hears) = mpsc::channel();
    let (from, _keep) = common::pipe();
    let thread = std::thread::spawn(move || {
        panics(|| {
            let _scopes = [Scope::enter(libc::SIGUSR1).unwrap(), Scope::enter(libc::SIGUSR1).unwrap()];
            panic_meant(0);
        });
        let scope = Scope::enter(libc::SIGUSR1).unwrap();
        says.send((common::gettid(), scope.remote())).unwrap();
        common::plain_read(&from)
    });
    let (tid, remote) = hears.recv().unwrap();
    common::wait_blocked_in(tid, libc::SYS_read);
    assert_eq!(remote.interrupt(), Delivery::Sent);
    assert_eq!(thread.join().unwrap(), Err(libc::EINTR));
    assert_eq!(State::now(), before);
}

#[test]
fn a_panic_caught_inside_a_scope_leaves_the_scopes_around_it() {
    let _t = common::begin();
    let before = State::now();
    for sig in kinds() {
        let outer = Scope::enter(sig).unwrap();
        let inside = State::now();
        for pending in [false, true] {
            if pending {
                outer.remote().interrupt();
            }
            panics(|| {
                let inner = [sig, libc::SIGUSR2].map(|sig| Scope::enter(sig).unwrap());
                inner[0].remote().interrupt();
                panic_meant(0);
            });
            assert_eq!(State::now(), inside);
            assert!(is_open(sig) && eintr::is_interruptible());
            assert_eq!(outer.interrupted().is_some(), pending);
            assert_eq!(
                eintr::check().is_err(),
                pending,
                "the inner one's interrupt went with it, the outer one's did not"
            );
        }
        assert!(outer.clear().is_some());
        assert_eq!(outer.remote().interrupt(), Delivery::Sent);
        assert!(eintr::check().is_err());
    }
    assert_eq!(State::now(), before);
}

#[test]
fn a_panic_in_what_retry_calls_changes_nothing() {
    let _t = common::begin();
    let before = State::now();
    let scope = Scope::enter(libc::SIGUSR1).unwrap();
    for interrupts in [false, true] {
        let n = panics(|| {
            let _ = eintr::retry(|| -> i32 {
                if interrupts {
                    scope.remote().interrupt();
                }
                panic_meant(4)
            });
        });
        assert_eq!(n, 4);
        assert_eq!(scope.remote().wait(Duration::ZERO) == Status::StillRunning, interrupts, "nobody has seen it");
        assert_eq!(scope.clear().is_some(), interrupts);
        assert_eq!(eintr::retry(|| 7), Ok(7));
    }
    drop(scope);
    assert_eq!(State::now(), before);
}

#[test]
fn a_thread_that_dies_of_a_panic_leaves_its_scopes() {
    let _t = common::begin();
    let before = State::now();
    for asked in ALL {
        let (says, hears) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let scopes = [libc::SIGUSR1, libc::SIGUSR1, real_time()].map(|sig| Scope::enter(sig).unwrap());
            for scope in &scopes[1..] {
                ask(scope, asked);
            }
            says.send(scopes.each_ref().map(Scope::remote)).unwrap();
            panic_meant(5);
        });
        let remotes = hears.recv().unwrap();
        assert!(remotes.iter().all(|r| r.wait_closed(Duration::MAX)));
        assert_eq!(thread.join().unwrap_err().downcast::<Meant>().unwrap(), Box::new(Meant(5)));
        assert!(remotes.iter().all(|r| r.interrupt() == Delivery::Gone));
        assert_eq!(State::now(), before);
    }
}

/// The watchdog dies; what it guarded is ended all the same.
#[test]
fn the_drop_guard_of_a_thread_that_panics_interrupts() {
    let _t = common::begin();
    let (says, hears) = mpsc::channel();
    let (from, _keep) = common::pipe();
    let worker = std::thread::spawn(move || {
        let scope = Scope::enter(libc::SIGUSR1).unwrap();
        says.send((common::gettid(), scope.remote())).unwrap();
        (common::plain_read(&from), scope.interrupted().map(eintr::Interrupted::reason))
    });
    let (tid, remote) = hears.recv().unwrap();
    common::wait_blocked_in(tid, libc::SYS_read);
    let watchdog = std::thread::spawn(move || {
        let _guard = remote.drop_guard();
        panic_meant(0);
    });
    assert!(watchdog.join().is_err());
    assert_eq!(worker.join().unwrap(), (Err(libc::EINTR), Some(Reason::Remote)));
}

#[test]
fn a_ticket_that_unwinding_drops_is_gone() {
    let _t = common::begin();
    let (ticket, remote) = Ticket::new();
    assert_eq!(remote.interrupt(), Delivery::Held);
    panics(move || {
        let _ticket = ticket;
        panic_meant(0);
    });
    assert!(remote.is_closed());
    assert_eq!((remote.interrupt(), remote.wait(Duration::MAX)), (Delivery::Gone, Status::Closed));
    assert!(eintr::check().is_ok());
}

/// A foreign signal between the panic and the end of the scope does what it would have done after it, and before it.
#[test]
fn foreign_signals_go_on_while_a_scope_is_unwound() {
    struct Raises(i32, &'static str);
    impl Drop for Raises {
        fn drop(&mut self) {
            let runs = counting::runs();
            unsafe { libc::raise(self.0) };
            assert_eq!(counting::runs() - runs, 1, "{}", self.1);
        }
    }
    let _t = common::begin();
    for sig in kinds() {
        let _behind = Counting::on(sig);
        let before = State::now();
        panics(|| {
            let _after = Raises(sig, "after the scopes");
            let _chains = Scope::enter(sig).unwrap();
            let _between = Raises(sig, "between the scopes");
            let inner = Scope::enter(sig).unwrap();
            let _inside = Raises(sig, "inside the scopes");
            inner.remote().interrupt();
            panic_meant(0);
        });
        let interrupted = std::cell::Cell::new(false);
        panics(|| {
            let scope = ScopeOptions::new(sig).foreign(Foreign::Interrupt).enter().unwrap();
            unsafe { libc::raise(sig) };
            interrupted.set(scope.interrupted().is_some());
            panic_meant(0);
        });
        assert!(interrupted.get());
        assert_eq!(State::now(), before);
    }
}
