//! `eintr::sleep` and `sleep_until`: as long as asked for whatever other signals come, until an interrupt.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)] // as in tests/common

mod common;
#[path = "common/counting.rs"]
mod counting;
#[path = "common/deadlines.rs"]
mod deadlines;
#[path = "common/refusing.rs"]
mod refusing;
#[path = "common/suite.rs"]
mod suite;

use counting::{Counting, kinds, runs};
use deadlines::{Beside, DUE, HOUR, ms, us};
use eintr::{Interrupted, Reason, Scope, sleep, sleep_until};
use refusing::refuse;
use std::time::{Duration, Instant};
use suite::{Storm, worker};

/// In a scope or in none.
fn scopes() -> [Option<Scope>; 2] {
    [None, Some(Scope::enter(libc::SIGUSR1).unwrap())]
}

/// Three numbers whose handlers restart calls and one whose handler does not, each every 70 us: a sleep that begins anew with each never ends, and one that
/// counts what is left by its own looks at the clock may end early.
#[test]
fn it_is_as_long_as_asked_for_in_a_storm_and_ends() {
    let _t = common::begin();
    let foreign = [
        (libc::SIGHUP, libc::SA_RESTART),
        (libc::SIGUSR2, 0),
        (libc::SIGUSR1, libc::SA_RESTART),
        (libc::SIGRTMIN() + 3, 0),
    ];
    let _handlers = foreign.map(|(sig, flags)| Counting::with_flags(sig, flags));
    for scope in scopes() {
        let storms = foreign.map(|(sig, _)| Storm::on(common::gettid(), sig, us(70)));
        for length in [Duration::ZERO, Duration::from_nanos(1), us(30), us(999), ms(5), ms(40)] {
            for _ in 0..if length < ms(1) { 100 } else { 5 } {
                let (begun, before) = (Instant::now(), runs());
                assert_eq!(sleep(length), Ok(()));
                assert!(begun.elapsed() >= length, "{length:?}");
                assert!(length < ms(40) || runs() > before, "there was no storm");
                let at = Instant::now() + length;
                assert_eq!(sleep_until(at), Ok(()));
                assert!(Instant::now() >= at, "{length:?}");
            }
        }
        drop((storms, scope));
    }
}

/// A process that is stopped meanwhile sleeps on when it is continued: what counts is the clock.
#[test]
fn it_is_no_shorter_for_being_stopped_meanwhile() {
    let _t = common::begin();
    let pid = common::fork(|| {
        let (scope, begun) = (Scope::enter(libc::SIGUSR1), Instant::now());
        i32::from(scope.is_err() || sleep(ms(60)) != Ok(()) || begun.elapsed() < ms(60))
    });
    let _stops = Beside::again_and_again(move || {
        for sig in [libc::SIGSTOP, libc::SIGCONT] {
            unsafe { libc::kill(pid, sig) }; // not reaped before this has ended
            std::thread::sleep(us(500));
        }
    });
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let ended = unsafe { libc::waitid(libc::P_PID, pid as u32, &mut info, libc::WEXITED | libc::WNOWAIT) };
    drop(_stops);
    assert_eq!((ended, common::reap(pid)), (0, 0));
}

#[test]
fn an_instant_that_has_passed_is_no_error() {
    let _t = common::begin();
    for scope in scopes() {
        let now = Instant::now();
        for at in [now, now - us(1), now.checked_sub(HOUR).unwrap_or(now)] {
            assert_eq!((sleep_until(at), sleep(Duration::ZERO)), (Ok(()), Ok(())));
        }
        if let Some(scope) = &scope {
            scope.remote().interrupt();
            assert!(sleep_until(now).is_err() && sleep(Duration::ZERO).is_err(), "but one that is interrupted is");
            assert!(scope.clear().is_some() && sleep_until(now).is_ok());
        }
    }
}

/// One of all time; one that ends together with the interrupt is either.
#[test]
fn an_interrupt_ends_it() {
    let _t = common::begin();
    let far = Instant::now().checked_add(Duration::from_secs(1 << 40)).unwrap();
    type Sleeps = fn(Instant) -> Result<(), Interrupted>;
    let sleeps: [(&str, Sleeps); 4] = [
        ("of all time", |_| sleep(Duration::MAX)),
        ("of 584 years", |_| sleep(Duration::from_nanos(u64::MAX))),
        ("of an hour", |_| sleep(HOUR)),
        ("until a far instant", sleep_until),
    ];
    for sig in kinds() {
        for (name, call) in sleeps {
            let sleeper = worker(sig, move |scope, _| {
                assert_eq!(call(far).map_err(Interrupted::reason), Err(Reason::Remote), "{name}");
                assert_eq!(call(far).map_err(Interrupted::reason), Err(Reason::Remote), "{name}, until it is cleared");
                assert!(scope.clear().is_some());
                let limit = scope.timeout(us(300)).unwrap();
                assert_eq!(call(far).map_err(Interrupted::reason), Err(DUE.unwrap()), "{name}");
                drop(limit);
                let _shield = eintr::shield();
                scope.remote().interrupt();
                let begun = Instant::now();
                assert!(sleep(ms(2)).is_ok() && begun.elapsed() >= ms(2), "shielded");
            });
            common::wait_blocked_in(sleeper.tid, libc::SYS_clock_nanosleep);
            sleeper.remote.interrupt();
            sleeper.join();
        }
    }
}

/// Where a filter forbids the call it is done by another.
#[test]
fn under_a_filter_it_sleeps_all_the_same() {
    let _t = common::begin();
    let (filtered, told) = std::sync::mpsc::channel();
    let sleeper = std::thread::spawn(move || {
        let scope = Scope::enter(libc::SIGUSR1).unwrap();
        if let Err(e) = refuse(libc::SYS_clock_nanosleep) {
            println!("SKIPPED: no seccomp filter here ({e}): a sleep without clock_nanosleep");
            return;
        }
        for length in [Duration::ZERO, us(1), ms(5)] {
            let begun = Instant::now();
            assert!(sleep(length).is_ok() && begun.elapsed() >= length, "{length:?}");
            let at = Instant::now() + length;
            assert!(sleep_until(at).is_ok() && Instant::now() >= at, "{length:?}");
        }
        filtered.send((common::gettid(), scope.remote())).unwrap();
        assert_eq!(sleep(Duration::MAX).map_err(Interrupted::reason), Err(Reason::Remote));
    });
    if let Ok((tid, remote)) = told.recv() {
        common::wait_blocked_in(tid, libc::SYS_ppoll);
        remote.interrupt();
    }
    sleeper.join().unwrap();
}
