//! `Resend`: the pauses are what was asked for, of several scopes the shortest, and double; none at all, or hours, leave plain code alone; calls of `sys`
//! end in every case, also where the kernel has no timer.
//!
//! What the kernel's timers are set to is asked of the kernel (timer_gettime(2)), so pauses of hours are seen without waiting for them.
// Calls are made, limits and handlers set by bare system calls, as applications do.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/counting.rs"]
mod counting;
#[path = "common/unaided.rs"]
mod unaided;

use common::Random;
use counting::kinds;
use eintr::{Delivery, Remote, Resend, Scope, ScopeOptions};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use unaided::{Look, Unaided};

const HOUR: Duration = Duration::from_secs(3600);

fn backoff(first: Duration, ceiling: Duration) -> Resend {
    Resend::Backoff { first, ceiling }
}

fn entered(sig: i32, resend: Resend) -> Scope {
    ScopeOptions::new(sig).resend(resend).enter().unwrap()
}

/// Begins a test that asks what timers are set to.
fn begin() -> Option<common::Test> {
    let lied_to =
        common::skipped_if_emulated("what timers are set to", "qemu answers for those that it has not made, too");
    (!lied_to).then(common::begin)
}

/// What the timers of this process are set to that run.
fn running() -> Vec<Duration> {
    const ENOUGH: i32 = 1024; // ids are given out one after the other
    let left = |id: i32| {
        let mut left: libc::itimerspec = unsafe { std::mem::zeroed() };
        let there = unsafe { libc::syscall(libc::SYS_timer_gettime, id, &mut left) } == 0;
        there.then(|| Duration::new(left.it_value.tv_sec as u64, left.it_value.tv_nsec as u32))
    };
    (0..ENOUGH).filter_map(left).filter(|left| !left.is_zero()).collect()
}

/// One runs, and it expires within so long, or a little less.
#[track_caller]
fn assert_runs(pause: Duration, when: &str) {
    let running = running();
    let good = running.len() == 1 && running[0] <= pause && running[0] > pause - HOUR / 2;
    assert!(good, "{when}: {running:?}, and not {pause:?}");
}

#[track_caller]
fn assert_none_runs(when: &str) {
    assert_eq!(running(), [], "{when}");
}

fn taken(scope: &Scope) -> bool {
    scope.clear().is_some()
}

// The pauses.

#[test]
fn the_timer_runs_from_an_interrupt_until_it_is_acknowledged() {
    let Some(_t) = begin() else { return };
    type End = fn(Scope) -> Option<Scope>;
    let ends: [(&str, End); 3] = [
        ("check", |scope| eintr::check().is_err().then_some(scope)),
        ("clear", |scope| taken(&scope).then_some(scope)),
        ("drop", |_| None),
    ];
    for (sig, (name, end)) in kinds().into_iter().flat_map(|sig| ends.map(|end| (sig, end))) {
        let scope = entered(sig, backoff(HOUR, HOUR));
        assert_none_runs("before");
        assert_eq!(scope.remote().interrupt_once(), Delivery::Sent);
        assert_none_runs("one that is not to be sent again");
        assert_eq!(scope.remote().interrupt(), Delivery::Sent);
        assert_runs(HOUR, "interrupted");
        assert!(scope.interrupted().is_some());
        assert_eq!(scope.remote().interrupt(), Delivery::Held);
        assert_runs(HOUR, "looked at, and asked again");
        let scope = end(scope);
        assert_none_runs(name);
        if let Some(scope) = scope {
            assert_eq!(scope.remote().interrupt(), Delivery::Sent);
            assert_runs(HOUR, "asked again after an acknowledgement");
        }
    }
    assert_none_runs("in the end");
}

#[test]
fn of_several_scopes_that_wait_the_shortest_pause_counts() {
    let Some(_t) = begin() else { return };
    for sig in kinds() {
        let [long, middle, short] = [3, 2, 1].map(|hours| entered(sig, backoff(hours * HOUR, hours * HOUR)));
        let never = entered(sig, Resend::Never);
        never.remote().interrupt();
        assert_none_runs("one that never wants it");
        long.remote().interrupt();
        assert_runs(3 * HOUR, "the long one alone");
        assert!(eintr::check().is_err());
        assert_none_runs("acknowledged");
        for scope in [&short, &long, &middle] {
            scope.remote().interrupt();
            assert_runs(HOUR, "the short one, and then longer ones");
        }
        assert!(taken(&short));
        assert_runs(2 * HOUR, "the longer ones are left");
        assert!(taken(&middle));
        assert_runs(3 * HOUR, "the long one is left");
        assert!(taken(&long));
        assert_none_runs("none is left");
        for scope in [&short, &long] {
            scope.remote().interrupt();
        }
        drop(short);
        assert_runs(3 * HOUR, "the short one has ended");
        drop(long);
        assert_none_runs("both have");
        assert!(taken(&never));
    }
}

/// The same for what the thread's own handler sets after an expiry.
#[test]
fn the_shortest_pause_counts_after_an_expiry_too() {
    let Some(_t) = begin() else { return };
    let (first, ceiling) = (Duration::from_millis(1), Duration::from_millis(2));
    for sig in kinds() {
        let scopes = [entered(sig, backoff(first, ceiling)), entered(sig, backoff(HOUR, HOUR))];
        scopes.iter().for_each(|scope| assert_ne!(scope.remote().interrupt(), Delivery::Gone));
        let (nothing, _writer) = common::pipe();
        (0..8).for_each(|_| assert_eq!(common::plain_wait(&nothing), Err(libc::EINTR)));
        let mask = common::block(sig); // so that it is set no more
        assert!(running().iter().all(|left| *left <= ceiling), "{:?}", running());
        common::set_mask(mask);
    }
}

#[test]
fn a_shorter_pause_that_is_asked_for_later_counts_too() {
    let Some(_t) = begin() else { return };
    for sig in kinds() {
        let [long, short] = [2 * HOUR, HOUR].map(|pause| entered(sig, backoff(pause, pause)));
        long.remote().interrupt();
        assert_runs(2 * HOUR, "the long one alone");
        short.remote().interrupt();
        assert_runs(HOUR, "the long one, and then the short one");
        drop(long);
        assert_runs(HOUR, "the long one has ended");
        assert!(taken(&short));
    }
}

#[test]
fn no_pause_is_longer_than_the_ceiling() {
    let Some(_t) = begin() else { return };
    for sig in kinds() {
        let scope = entered(sig, backoff(2 * HOUR, HOUR));
        scope.remote().interrupt();
        assert_runs(HOUR, "the first one");
        assert!(taken(&scope));
    }
}

/// One that comes before the handler of the last one has returned leaves the thread no instruction of its own: it would never come to acknowledge.
#[test]
fn pauses_of_nothing_leave_the_thread_some_time() {
    let _t = common::begin();
    common::in_own_process("pauses_of_nothing_leave_the_thread_some_time", || {
        unsafe { libc::alarm(common::patience(Duration::from_secs(10)).as_secs() as u32) };
        for (sig, pause) in kinds().into_iter().flat_map(|sig| [0, 1, 2].map(|microseconds| (sig, microseconds))) {
            let pause = Duration::from_micros(pause);
            let scope = entered(sig, backoff(pause, pause));
            scope.remote().interrupt();
            (0..1_000_000u64).for_each(|n| _ = std::hint::black_box(n));
            assert!(eintr::check().is_err());
        }
    });
}

/// Counted in signals that come, each of which breaks a poll: the n-th must not have come before the pauses up to it have passed.
#[test]
fn the_pauses_double_up_to_the_ceiling() {
    let _t = common::begin();
    let milliseconds = Duration::from_millis;
    for sig in kinds() {
        for (first, ceiling) in [(milliseconds(1), milliseconds(8)), (milliseconds(1) / 20, milliseconds(100))] {
            let scope = entered(sig, backoff(first, ceiling));
            let (nothing, _writer) = common::pipe();
            let (start, mut pause, mut passed) = (Instant::now(), first, Duration::ZERO);
            assert_eq!(scope.remote().interrupt(), Delivery::Sent); // and landed
            for n in 1..=12 {
                assert_eq!(common::plain_wait(&nothing), Err(libc::EINTR));
                passed += pause;
                pause = (2 * pause).min(ceiling);
                assert!(
                    start.elapsed() >= passed,
                    "signal {sig}: the {n}th after {:?}, not {passed:?}",
                    start.elapsed()
                );
            }
            assert!(taken(&scope));
        }
    }
}

/// What the timer is set to after an interrupt and one expiry; `None` if the thread was held up, so that there may have been more.
fn set_after_one_expiry(scope: &Scope, sig: i32, first: Duration) -> Option<Vec<Duration>> {
    let mask = common::block(sig);
    assert_eq!(scope.remote().interrupt(), Delivery::Sent);
    assert!(running().iter().all(|left| *left <= first), "{:?}", running());
    common::wait_until(|| running().is_empty()); // it lies in the queue
    let start = Instant::now();
    common::set_mask(mask);
    common::block(sig);
    let set = running();
    let in_time = start.elapsed() < first;
    common::set_mask(mask);
    in_time.then_some(set)
}

#[test]
fn the_pauses_begin_with_the_first_again_after_an_acknowledgement() {
    let Some(_t) = begin() else { return };
    let first = Duration::from_millis(1);
    type Acknowledge = fn(&Scope);
    let ways: [Acknowledge; 3] = [
        |_| assert!(eintr::check().is_err()),
        |scope| assert!(taken(scope)),
        |_| assert!(eintr::retry(|| 0i32).is_err()),
    ];
    for (sig, acknowledge) in kinds().into_iter().flat_map(|sig| ways.map(|way| (sig, way))) {
        let scope = entered(sig, backoff(first, HOUR));
        let set = loop {
            scope.remote().interrupt();
            common::wait_until(|| running().iter().any(|left| *left > 20 * first)); // it has doubled five times
            acknowledge(&scope);
            assert_none_runs("acknowledged");
            let set = set_after_one_expiry(&scope, sig, first);
            acknowledge(&scope);
            if let Some(set) = set {
                break set;
            }
        };
        assert!(set.len() == 1 && set[0] <= 2 * first, "signal {sig}: {set:?}");
    }
}

// What plain calls and those of `sys` see.

/// The signal has landed before the call begins: a resend ends it.
#[test]
fn however_short_the_first_pause_a_plain_call_that_begins_later_is_ended() {
    let _t = common::begin();
    let (nothing, _writer) = common::pipe();
    let ceiling = Duration::from_millis(100);
    for sig in kinds() {
        for first in [Duration::ZERO, Duration::from_nanos(1), Duration::from_micros(50), Duration::from_millis(2)] {
            let scope = entered(sig, backoff(first, ceiling));
            for _ in 0..20 {
                assert_eq!(scope.remote().interrupt(), Delivery::Sent);
                assert_eq!(common::plain_read(&nothing), Err(libc::EINTR), "signal {sig}, {first:?}");
                assert!(taken(&scope));
            }
        }
    }
}

/// The same is left asleep by `Never`, and by pauses that have not passed; a call of `sys` ends before it begins, and one that sleeps by the one signal.
#[test]
fn never_and_hours_leave_plain_code_asleep_and_end_calls_of_sys_at_once() {
    let _t = common::begin();
    let always = [backoff(HOUR, HOUR), backoff(Duration::MAX, Duration::MAX), Resend::Never];
    for (sig, resend) in kinds().into_iter().flat_map(|sig| always.map(|resend| (sig, resend))) {
        let (nothing, writer) = common::pipe();
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let scope = entered(sig, resend);
            assert_eq!(scope.remote().interrupt(), Delivery::Sent);
            tell.send((common::gettid(), scope.remote())).unwrap();
            let plain = common::plain_read(&nothing);
            let sys = || eintr::sys::read(nothing.as_fd(), &mut [0; 8]).map_err(|e| e.interrupted().is_some());
            let before = sys();
            assert!(taken(&scope));
            (plain, before, sys())
        });
        let (tid, remote): (_, Remote) = told.recv().expect("the thread enters");
        let look = Look::at(tid);
        common::wait_until(|| look.sleeps_in().is_some_and(|(nr, _)| nr == libc::SYS_read) && look.is_at_rest());
        let slept = look.sleeps();
        std::thread::sleep(Duration::from_millis(20)); // the usual pauses would have passed eight times
        assert_eq!(look.sleeps(), slept, "signal {sig}, {resend:?}: something woke it");
        assert_eq!(nix::unistd::write(&writer, b"!"), Ok(1));
        common::wait_until(|| remote.wait(Duration::ZERO) == eintr::Status::Acknowledged);
        common::wait_until(|| look.sleeps_in().is_some_and(|(nr, _)| nr == libc::SYS_read));
        assert_eq!(remote.interrupt(), Delivery::Sent);
        assert_eq!(thread.join().unwrap(), (Ok(1), Err(true), Err(true)), "signal {sig}, {resend:?}");
    }
}

extern "C" fn on_foreign(_: i32) {}

/// Interrupts, at random instants, with and without a handler of a lower number on top, a thread that reads by `sys` until it is `over`: how often it needed
/// help.
fn interrupt_a_read(rounds: u64, told: Delivery) -> u64 {
    let (over, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (of_thread, counts) = (Arc::clone(&over), Arc::clone(&acknowledged));
    let (tell, hear) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let (nothing, _writer) = common::pipe();
        let scope = Scope::enter(libc::SIGUSR2).unwrap();
        tell.send((common::gettid(), scope.remote())).unwrap();
        while !of_thread.load(SeqCst) {
            let answer = eintr::sys::read(nothing.as_fd(), &mut [0; 8]);
            assert!(answer.expect_err("nothing is to be read").interrupted().is_some() && taken(&scope));
            counts.fetch_add(1, SeqCst);
        }
    });
    let (tid, remote): (_, Remote) = hear.recv().expect("the thread enters");
    let unaided = Unaided::new(tid, &[libc::SIGUSR1, libc::SIGUSR2], common::patience(Duration::from_secs(1)));
    let mut random = Random::new();
    for n in 1..=rounds {
        unaided::spin(if random.chance(4) { random.below(20_000) } else { random.below(1_500) });
        if random.chance(2) {
            unsafe { libc::syscall(libc::SYS_tgkill, common::getpid(), tid, libc::SIGUSR1) };
        }
        over.store(n == rounds, SeqCst);
        assert_eq!(remote.interrupt(), told);
        unaided.wait_until(|| acknowledged.load(SeqCst) == n || thread.is_finished());
    }
    thread.join().expect("the thread ends well");
    unaided.helped()
}

/// Without a timer the one signal is enough for `sys`. (For a plain call it is not.)
#[test]
fn without_a_timer_calls_of_sys_end_as_ever() {
    let _t = common::begin();
    common::in_own_process("without_a_timer_calls_of_sys_end_as_ever", || {
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_SIGPENDING, &none) }, 0);
        common::install(libc::SIGUSR1, on_foreign as *const () as usize, libc::SA_RESTART, &[]);
        let rounds = common::rounds("EINTR_TIMERLESS", if cfg!(debug_assertions) { 2_000 } else { 20_000 });
        let helped = interrupt_a_read(rounds, Delivery::SentOnce(nix::errno::Errno::EAGAIN));
        assert_eq!(helped, 0, "interrupts that needed help, of {rounds}");
    });
}
