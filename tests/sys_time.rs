//! Calls with a time: other people's signals make none of them end early, nor late for ever; zero, no time, enormous and invalid times mean what they
//! mean to the kernel; an interrupt ends them all.
// Signals are sent by raw system calls, as applications do.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/queues.rs"]
mod queues;
#[path = "common/waiting.rs"]
mod waiting;

use common::wait_blocked_in;
use eintr::{Error, Scope, sys};
use nix::errno::Errno;
use nix::poll::PollTimeout;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollTimeout};
use nix::sys::signal::SigSet;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};
use queues::{Mq, Sem};
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};
use waiting::{Caller, Foreign, assert_errno, assert_remote};

/// What a call says when the time is up.
#[derive(Debug, PartialEq)]
struct TimeIsUp;

/// `Ok(TimeIsUp)` for `expected`, and for nothing else that is no error.
fn is_up<T: PartialEq + std::fmt::Debug>(answer: sys::Result<T>, expected: Result<T, Errno>) -> sys::Result<TimeIsUp> {
    match (answer, expected) {
        (Ok(value), Ok(expected)) => {
            assert_eq!(value, expected);
            Ok(TimeIsUp)
        }
        (Err(Error::Os(e)), Err(expected)) if e == expected => Ok(TimeIsUp),
        (answer, _) => answer.map(|value| panic!("not the time is up: {value:?}")),
    }
}

fn on(clock: ClockId, after: Duration) -> TimeSpec {
    let now = clock_gettime(clock).unwrap();
    let end = Duration::from(now).saturating_add(after);
    libc::timespec { tv_sec: end.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: end.subsec_nanos().into() }.into()
}

fn spec(length: Duration) -> TimeSpec {
    let seconds = length.as_secs().try_into().unwrap_or(i64::MAX);
    libc::timespec { tv_sec: seconds, tv_nsec: length.subsec_nanos().into() }.into()
}

fn milliseconds(length: Duration) -> PollTimeout {
    PollTimeout::try_from(length).unwrap_or(PollTimeout::MAX)
}

/// A name, what it sleeps in, and a call that nothing but the time ends.
type Timed = (&'static str, libc::c_long, fn(Duration) -> sys::Result<TimeIsUp>);

const TIMED: [Timed; 11] = [
    ("poll", libc::SYS_ppoll, |time| is_up(sys::poll(&mut [], milliseconds(time)), Ok(0))),
    ("ppoll", libc::SYS_ppoll, |time| is_up(sys::ppoll(&mut [], Some(spec(time)), Some(SigSet::empty())), Ok(0))),
    ("pselect", libc::SYS_pselect6, |time| {
        is_up(sys::pselect(None, None, None, None, Some(spec(time)), Some(&SigSet::empty())), Ok(0))
    }),
    ("epoll_wait", libc::SYS_epoll_pwait, |time| {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        is_up(sys::epoll_wait(&epoll, &mut [EpollEvent::empty()], milliseconds(time)), Ok(0))
    }),
    ("epoll_pwait", libc::SYS_epoll_pwait, |time| {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        let mask = SigSet::empty();
        is_up(sys::epoll_pwait(&epoll, &mut [EpollEvent::empty()], milliseconds(time), Some(&mask)), Ok(0))
    }),
    ("clock_nanosleep", libc::SYS_clock_nanosleep, |time| {
        is_up(sys::clock_nanosleep(ClockId::CLOCK_MONOTONIC, on(ClockId::CLOCK_MONOTONIC, time)), Ok(()))
    }),
    ("clock_nanosleep of the day", libc::SYS_clock_nanosleep, |time| {
        is_up(sys::clock_nanosleep(ClockId::CLOCK_REALTIME, on(ClockId::CLOCK_REALTIME, time)), Ok(()))
    }),
    ("futex_wait", libc::SYS_futex, |time| {
        let until = Instant::now().checked_add(time).or(Instant::now().checked_add(Duration::from_secs(1 << 60)));
        assert!(until.is_some());
        is_up(sys::futex_wait(&AtomicU32::new(1), 1, until), Err(Errno::ETIMEDOUT))
    }),
    ("sigtimedwait", libc::SYS_rt_sigtimedwait, |time| {
        let answer = sys::sigtimedwait(SigSet::from(nix::sys::signal::SIGURG).as_ref(), Some(time));
        is_up(answer.map(|info| info.map(|info| info.si_signo)), Ok(None))
    }),
    ("semtimedop", libc::SYS_semtimedop, |time| {
        is_up(sys::semtimedop(Sem::new().0, &mut Sem::down(), Some(time)), Err(Errno::EAGAIN))
    }),
    ("mq_receive", libc::SYS_mq_timedreceive, |time| {
        let Some(queue) = Mq::new() else { return sys::poll(&mut [], milliseconds(time)).map(|_| TimeIsUp) };
        let until = on(ClockId::CLOCK_REALTIME, time);
        is_up(sys::mq_receive(&queue.0, &mut [0; 8], Some(until)), Err(Errno::ETIMEDOUT))
    }),
];

fn mq_send(time: Duration) -> sys::Result<TimeIsUp> {
    let Some(queue) = Mq::new() else { return sys::poll(&mut [], milliseconds(time)).map(|_| TimeIsUp) };
    queue.fill();
    is_up(sys::mq_send(&queue.0, b"more", 0, Some(on(ClockId::CLOCK_REALTIME, time))), Err(Errno::ETIMEDOUT))
}

fn timed() -> impl Iterator<Item = Timed> {
    TIMED.into_iter().chain([("mq_send", libc::SYS_mq_timedsend, mq_send as fn(_) -> _)])
}

/// Signals come faster than the time passes: a time-out that starts afresh with each of them never ends (and the watchdog does), one that is taken
/// for over ends early.
#[test]
fn the_time_is_what_was_asked_for_however_many_signals_come() {
    let _t = common::begin();
    let foreign = Foreign::install();
    let time = Duration::from_millis(120);
    for (name, _, call) in timed() {
        for sig in [None, Some(libc::SIGUSR1)] {
            let caller = Caller::start(sig, move |_| {
                let begun = Instant::now();
                (call(time), begun.elapsed())
            });
            let mut signals = 0;
            while !caller.thread.is_finished() && foreign.pester(caller.tid) {
                signals += 1;
                std::thread::sleep(Duration::from_millis(3));
            }
            let (answer, elapsed) = caller.join();
            assert_eq!(answer, Ok(TimeIsUp), "{name}");
            assert!(elapsed >= time, "{name}: {elapsed:?}");
            assert!(signals > 1, "{name}: {signals}");
        }
    }
}

#[test]
fn an_interrupt_ends_a_call_with_a_time() {
    let _t = common::begin();
    for (name, nr, call) in timed() {
        for sig in waiting::numbers() {
            println!("{name}");
            let caller = Caller::start(Some(sig), move |scope| {
                let first = call(Duration::from_secs(3600));
                assert_remote(call(Duration::from_secs(3600))); // before it begins
                assert_remote(call(Duration::ZERO));
                assert!(scope.unwrap().clear().is_some());
                assert_eq!(call(Duration::from_millis(1)), Ok(TimeIsUp));
                first
            });
            wait_blocked_in(caller.tid, nr);
            caller.interrupt();
            assert_remote(caller.join());
        }
    }
}

#[test]
fn zero_is_a_look() {
    let _t = common::begin();
    let _scope = Scope::enter(libc::SIGUSR1).unwrap();
    for (name, _, call) in timed() {
        assert_eq!(call(Duration::ZERO), Ok(TimeIsUp), "{name}");
    }
}

/// Neither an overflow nor an end at once; also after other people's signals, when the rest is reckoned.
#[test]
fn an_enormous_time_is_very_long() {
    let _t = common::begin();
    let foreign = Foreign::install();
    let enormous = [Duration::MAX, Duration::from_secs(i64::MAX as u64), Duration::from_secs(1 << 55)];
    for (name, nr, call) in timed() {
        for time in enormous {
            println!("{name} {time:?}");
            let caller = Caller::start(Some(libc::SIGUSR1), move |_| call(time));
            foreign.strike(caller.tid, nr);
            foreign.strike(caller.tid, nr);
            caller.interrupt();
            assert_remote(caller.join());
        }
    }
}

#[test]
fn what_is_no_time_is_refused_by_the_kernel() {
    let _t = common::begin();
    let scope = Scope::enter(libc::SIGUSR1).unwrap();
    let invalid = [(-1, 0), (0, -1), (0, 1_000_000_000), (i64::MIN, i64::MIN), (1, i64::MAX)];
    for (tv_sec, tv_nsec) in invalid {
        let time = TimeSpec::from(libc::timespec { tv_sec, tv_nsec });
        assert_errno(sys::ppoll(&mut [], Some(time), None), Errno::EINVAL);
        assert_errno(sys::pselect(None, None, None, None, Some(time), None), Errno::EINVAL);
        assert_errno(sys::clock_nanosleep(ClockId::CLOCK_MONOTONIC, time), Errno::EINVAL);
        if let Some(queue) = Mq::new() {
            assert_errno(sys::mq_receive(&queue.0, &mut [0; 8], Some(time)), Errno::EINVAL);
            assert_errno(sys::mq_send(&queue.0, b"", 0, Some(time)), Errno::EINVAL);
        }
    }
    scope.remote().interrupt();
    assert_remote(sys::poll(&mut [], PollTimeout::NONE));
}

#[test]
fn a_time_that_has_passed_is_over() {
    let _t = common::begin();
    let _scope = Scope::enter(libc::SIGUSR1).unwrap();
    let long_ago = TimeSpec::from(libc::timespec { tv_sec: 1, tv_nsec: 0 });
    sys::clock_nanosleep(ClockId::CLOCK_MONOTONIC, long_ago).unwrap();
    sys::clock_nanosleep(ClockId::CLOCK_REALTIME, long_ago).unwrap();
    let past = Instant::now();
    std::thread::sleep(Duration::from_millis(1));
    let word = AtomicU32::new(1);
    assert_errno(sys::futex_wait(&word, 1, Some(past)), Errno::ETIMEDOUT);
    assert_eq!(sys::futex_wait(&word, 2, Some(past)), Ok(false));
    if let Some(queue) = Mq::new() {
        assert_errno(sys::mq_receive(&queue.0, &mut [0; 8], Some(long_ago)), Errno::ETIMEDOUT);
        sys::mq_send(&queue.0, b"room", 0, Some(long_ago)).unwrap();
        assert_errno(sys::mq_send(&queue.0, b"full", 0, Some(long_ago)), Errno::ETIMEDOUT);
    }
}

/// The interrupt does not end a time-out of milliseconds early either: 0.6 ms that are left of 1 are a whole one.
#[test]
fn no_epoll_wait_is_shorter_than_asked() {
    let _t = common::begin();
    let foreign = Foreign::install();
    let caller = Caller::start(Some(libc::SIGUSR1), |_| {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        for milliseconds in [1u16, 2, 5].into_iter().cycle().take(150) {
            let begun = Instant::now();
            let answer = sys::epoll_wait(&epoll, &mut [EpollEvent::empty()], EpollTimeout::from(milliseconds));
            assert_eq!(answer, Ok(0));
            assert!(begun.elapsed() >= Duration::from_millis(milliseconds.into()));
        }
    });
    while !caller.thread.is_finished() && foreign.pester(caller.tid) {
        std::thread::sleep(Duration::from_micros(700));
    }
    caller.join();
}
