//! What a deadline is: it acts at its time and not before, for its own scope, with its own reason, and stays due until it is dropped or reset.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks)] // as in tests/common

mod common;
#[path = "common/counting.rs"]
mod counting;
#[path = "common/deadlines.rs"]
mod deadlines;

use common::State;
use counting::kinds;
use deadlines::{DUE, HOUR, ms, plain_poll, slept_well, told, us};
use eintr::{Error, Foreign, Interrupted, Reason, Resend, Scope, ScopeOptions, sys};
use nix::errno::Errno;
use std::io;
use std::time::{Duration, Instant};

fn by_deadline<T: std::fmt::Debug>(answer: Result<T, Error>) -> bool {
    answer.unwrap_err().interrupted().map(Interrupted::reason) == DUE
}

/// A call of the crate's own, a plain one, and a loop that computes: each is ended, and none before the time.
#[test]
fn it_acts_at_its_time_and_never_before() {
    let _t = common::begin();
    let nanosecond = Duration::from_nanos(1);
    for sig in kinds() {
        let scope = Scope::enter(sig).unwrap();
        for length in [Duration::ZERO, nanosecond, us(1), us(60), ms(1), ms(7)] {
            let wait: [fn(); 3] = [
                || assert!(eintr::sleep(Duration::MAX).is_err()),
                || assert_eq!(plain_poll(), libc::EINTR),
                || while eintr::check().is_ok() {},
            ];
            let at = Instant::now() + length;
            let limit = scope.deadline(at).unwrap();
            while !limit.expired() {}
            assert!(Instant::now() >= at, "{length:?}");
            drop(limit);
            for wait in wait {
                let begun = Instant::now();
                let limit = scope.timeout(length).unwrap();
                wait();
                assert!(begun.elapsed() >= length, "{length:?}");
                assert!(limit.expired() && told() == DUE);
                drop(limit);
                let at = Instant::now() + length;
                let limit = scope.deadline(at).unwrap();
                wait();
                assert!(Instant::now() >= at && limit.expired() && told() == DUE);
            }
        }
        assert_eq!(told(), None);
    }
}

/// No signal has to arrive for it: the very next look fails, and the next call is not made.
#[test]
fn zero_and_the_past_act_at_once() {
    let _t = common::begin();
    let scope = Scope::enter(libc::SIGUSR1).unwrap();
    let (from, to) = common::pipe();
    assert_eq!(nix::unistd::write(&to, b"data"), Ok(4));
    let past = [Instant::now(), Instant::now() - ms(1), Instant::now().checked_sub(HOUR).unwrap_or(Instant::now())];
    for at in [None, Some(past[0]), Some(past[1]), Some(past[2])] {
        let make = || at.map_or_else(|| scope.timeout(Duration::ZERO), |at| scope.deadline(at)).unwrap();
        let limit = make();
        assert!(by_deadline(sys::read(&from, &mut [0; 8])), "in spite of what is there to be read");
        assert!(limit.expired() && scope.interrupted().is_some());
        drop(limit);
        let _limit = make();
        assert_eq!(told(), DUE);
    }
    assert_eq!(sys::read(&from, &mut [0; 8]), Ok(4));
    for at in past {
        assert_eq!(
            ScopeOptions::new(libc::SIGUSR1).deadline(at).enter().unwrap().interrupted().unwrap().reason(),
            Reason::Deadline
        );
    }
}

#[test]
fn one_that_lies_beyond_all_time_never_acts() {
    let _t = common::begin();
    let before = State::now();
    let scope = Scope::enter(libc::SIGUSR1).unwrap();
    let years = |n: u64| Duration::from_secs(n * 31_557_600);
    let lengths = [
        Duration::MAX,
        Duration::from_secs(u64::MAX),
        Duration::from_nanos(u64::MAX),
        years(584),
        years(300),
        years(100),
    ];
    let limits: Vec<_> = lengths.iter().map(|length| scope.timeout(*length).unwrap()).collect();
    let mut far = Instant::now();
    for step in [1 << 62, 1 << 60, 1 << 50, 1 << 40, 1 << 34, 1 << 33].map(Duration::from_secs) {
        far = far.checked_add(step).unwrap_or(far);
    }
    assert!(far.duration_since(Instant::now()) > years(1000), "the clock of this machine counts further");
    let by_instant = scope.deadline(far).unwrap();
    let limit = scope.timeout(us(50)).unwrap();
    assert!(eintr::sleep(Duration::MAX).is_err(), "one that is near acts beside them");
    limit.reset(far);
    for _ in 0..3 {
        assert!(slept_well(us(300)) && eintr::sleep(us(300)).is_ok() && told().is_none());
        assert!(limits.iter().chain([&by_instant, &limit]).all(|limit| !limit.expired()));
    }
    limits[0].reset(Instant::now());
    assert!(limits[0].expired() && told() == DUE);
    limits[0].reset(far);
    assert!(!limits[0].expired() && told().is_none());
    drop((limits, by_instant, limit));
    let _forever = ScopeOptions::new(libc::SIGUSR2).timeout(Duration::MAX).enter().unwrap();
    assert!(eintr::sleep(us(300)).is_ok());
    drop((_forever, scope));
    assert_eq!(State::now(), before);
}

#[test]
fn it_has_a_reason_an_errno_and_a_kind_of_its_own() {
    let _t = common::begin();
    let scope = Scope::enter(libc::SIGUSR1).unwrap();
    let limit = scope.timeout(us(100)).unwrap();
    let (from, _to) = common::pipe();
    let answer = sys::read(&from, &mut [0; 8]).unwrap_err();
    assert_eq!((answer.interrupted().map(Interrupted::reason), answer.errno()), (DUE, None));
    assert_eq!(Errno::from(answer), Errno::ETIMEDOUT);
    assert_eq!(answer.to_string(), "the deadline has passed");
    let as_io = io::Error::from(answer);
    assert_eq!((as_io.kind(), Interrupted::find(&as_io).map(Interrupted::reason)), (io::ErrorKind::TimedOut, DUE));
    let by_io: io::Result<()> = eintr::retry(|| -> io::Result<()> { panic!("called in spite of the deadline") });
    assert_eq!(by_io.unwrap_err().kind(), io::ErrorKind::TimedOut);
    let by_nix: Result<(), Error> = eintr::retry(|| -> nix::Result<()> { panic!("called in spite of the deadline") });
    assert_eq!(Errno::from(by_nix.unwrap_err()), Errno::ETIMEDOUT);
    assert_eq!(scope.interrupted().map(Interrupted::reason), DUE);
    assert!(format!("{limit:?}").contains("expired: true, left: 0ns"), "{limit:?}");
    limit.reset(Instant::now() + HOUR);
    assert!(format!("{limit:?}").contains("expired: false, left: 3599"), "{limit:?}");
}

/// The outermost scope first; of one scope a Remote, a signal, a deadline.
#[test]
fn of_several_reasons_the_outermost_scopes_is_told_and_of_one_scope_the_remotes() {
    let _t = common::begin();
    for (one, two) in [(libc::SIGUSR1, libc::SIGUSR1), (libc::SIGUSR1, libc::SIGUSR2), (libc::SIGUSR2, libc::SIGUSR1)] {
        let outer = ScopeOptions::new(one).foreign(Foreign::Interrupt).enter().unwrap();
        let inner = Scope::enter(two).unwrap();
        inner.remote().interrupt();
        let limit = outer.timeout(Duration::ZERO).unwrap();
        assert_eq!(told(), DUE, "the outer scope's");
        assert_eq!(inner.interrupted().map(Interrupted::reason), Some(Reason::Remote), "each scope tells its own");
        if one != two {
            // SAFETY: a number.
            unsafe { libc::raise(one) };
            assert_eq!(told(), Some(Reason::Signal));
        }
        outer.remote().interrupt();
        assert_eq!(told(), Some(Reason::Remote));
        assert!(inner.clear().is_some());
        assert_eq!(told(), Some(Reason::Remote), "the outer scope's");
        assert!(outer.clear().is_some());
        assert_eq!(told(), DUE);
        drop(limit);
        assert_eq!(told(), None);
        let _inner = inner.timeout(Duration::ZERO).unwrap();
        assert_eq!(told(), DUE);
        outer.remote().interrupt();
        assert_eq!(told(), Some(Reason::Remote));
    }
}

#[test]
fn one_that_has_passed_stays_due_until_it_is_dropped_and_takes_nothing() {
    let _t = common::begin();
    for sig in kinds() {
        let scope = Scope::enter(sig).unwrap();
        let (from, to) = common::pipe();
        assert_eq!(nix::unistd::write(&to, b"data"), Ok(4));
        let limit = scope.timeout(us(100)).unwrap();
        assert!(eintr::sleep(Duration::MAX).is_err());
        for _ in 0..100 {
            assert!(by_deadline(sys::read(&from, &mut [0; 8])));
            assert_eq!((told(), limit.expired()), (DUE, true));
            assert_eq!(scope.clear(), None, "a deadline is not taken");
        }
        scope.remote().interrupt();
        assert_eq!(told(), Some(Reason::Remote));
        assert_eq!(scope.clear().map(Interrupted::reason), Some(Reason::Remote), "what is taken is the remote's");
        assert_eq!(told(), DUE);
        drop(limit);
        assert_eq!((told(), scope.interrupted()), (None, None));
        assert_eq!(sys::read(&from, &mut [0; 8]), Ok(4));
    }
}

/// The signal comes again until the thread acknowledges, and not after that; with [`Resend::Never`] it comes once.
#[test]
fn what_was_acknowledged_disturbs_no_more_though_it_is_due() {
    let _t = common::begin();
    for sig in kinds() {
        let scope = Scope::enter(sig).unwrap();
        let limit = scope.timeout(us(100)).unwrap();
        for _ in 0..4 {
            assert_eq!(plain_poll(), libc::EINTR, "until somebody acknowledges");
        }
        assert_eq!(told(), DUE);
        assert!((0..20).all(|_| slept_well(ms(1))), "it was acknowledged");
        assert!(by_deadline(sys::poll(&mut [], nix::poll::PollTimeout::NONE)), "and is due");
        assert!((0..20).all(|_| slept_well(ms(1))));
        drop(limit);
        drop(scope);
        let scope = ScopeOptions::new(sig).resend(Resend::Never).enter().unwrap();
        let limit = scope.timeout(us(100)).unwrap();
        assert_eq!(plain_poll(), libc::EINTR);
        assert!((0..20).all(|_| slept_well(ms(1))), "once");
        assert!(by_deadline(sys::read(&common::pipe().0, &mut [0])));
        drop(limit);
    }
}
