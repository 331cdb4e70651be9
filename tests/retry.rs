//! `retry` calls again what somebody else's signal broke, ends when an interrupt is pending, and never lets EINTR out.
// Signals are sent by raw system calls, as applications do.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/counting.rs"]
mod counting;

use common::State;
use counting::Counting;
use eintr::{Error, Interrupted, Outcome, Reason, Scope, Status};
use nix::errno::Errno;
use std::io;
use std::sync::mpsc;
use std::time::Duration;

#[derive(Debug, PartialEq)]
enum Told {
    Interrupted(Reason),
    Os(i32),
}

impl From<Error> for Told {
    fn from(e: Error) -> Told {
        let os = || Told::Os(e.errno().unwrap() as i32);
        e.interrupted().map_or_else(os, |i| Told::Interrupted(i.reason()))
    }
}

impl From<io::Error> for Told {
    fn from(e: io::Error) -> Told {
        let os = || Told::Os(e.raw_os_error().expect("an interrupt or an errno"));
        Interrupted::find(&e).map_or_else(os, |i| Told::Interrupted(i.reason()))
    }
}

/// A kind of result that `retry` understands.
trait Made: Outcome<Err: Into<Told>, Ok: std::fmt::Debug + PartialEq> {
    fn failed(errno: i32) -> Self;
    fn worked() -> Self;
    fn value() -> Self::Ok;
}

impl Made for Result<u8, Errno> {
    fn failed(errno: i32) -> Self {
        Err(Errno::from_raw(errno))
    }
    fn worked() -> Self {
        Ok(7)
    }
    fn value() -> u8 {
        7
    }
}

impl Made for io::Result<u8> {
    fn failed(errno: i32) -> Self {
        Err(io::Error::from_raw_os_error(errno))
    }
    fn worked() -> Self {
        Ok(7)
    }
    fn value() -> u8 {
        7
    }
}

macro_rules! made_of_minus_one {
    ($($int:ty),*) => { $(
        impl Made for $int {
            fn failed(errno: i32) -> Self {
                Errno::set_raw(errno);
                -1
            }
            fn worked() -> Self {
                Errno::set_raw(libc::EINTR); // means nothing: the call worked
                7
            }
            fn value() -> $int {
                7
            }
        }
    )* };
}
made_of_minus_one!(i32, i64, isize);

/// An application's own result type: no value, and an error of its own.
#[derive(Debug, PartialEq)]
struct Own(Option<i32>);

#[derive(Debug)]
struct OwnError(Told);

impl From<Interrupted> for OwnError {
    fn from(i: Interrupted) -> OwnError {
        OwnError(Told::Interrupted(i.reason()))
    }
}

impl From<OwnError> for Told {
    fn from(e: OwnError) -> Told {
        e.0
    }
}

impl Outcome for Own {
    type Ok = ();
    type Err = OwnError;
    fn os_error(&self) -> Option<i32> {
        self.0
    }
    fn into_result(self) -> Result<(), OwnError> {
        self.0.map_or(Ok(()), |errno| Err(OwnError(Told::Os(errno))))
    }
}

impl Made for Own {
    fn failed(errno: i32) -> Self {
        Own(Some(errno))
    }
    fn worked() -> Self {
        Own(None)
    }
    fn value() {}
}

/// Calls by `retry` what fails `fails` times with `errno` and works then; `during` runs in the first call. The answer, and how often it called.
fn retried<R: Made>(errno: i32, fails: usize, during: impl Fn()) -> (Result<R::Ok, Told>, usize) {
    let mut calls = 0;
    let answer = eintr::retry(|| {
        calls += 1;
        if calls == 1 {
            during();
        }
        if calls <= fails { R::failed(errno) } else { R::worked() }
    });
    (answer.map_err(Into::into), calls)
}

fn retry_as_it_should<R: Made>() {
    let interrupted = || Err(Told::Interrupted(Reason::Remote));
    let without = [(); 2].map(|()| retried::<R>(libc::EINTR, 1000, || ()));
    assert!(without.iter().all(|it| *it == (Ok(R::value()), 1001)), "EINTR without a scope is retried");

    let scope = Scope::enter(libc::SIGUSR1).unwrap();
    let ask = || {
        scope.remote().interrupt();
    };
    assert_eq!(retried::<R>(0, 0, || ()), (Ok(R::value()), 1));
    assert_eq!(retried::<R>(libc::EINTR, 1000, || ()), (Ok(R::value()), 1001), "and that of somebody else's signal");
    assert_eq!(retried::<R>(libc::EINTR, usize::MAX, ask), (interrupted(), 1), "until an interrupt is pending");
    assert_eq!(retried::<R>(0, 0, || panic!("called")), (interrupted(), 0), "then it looks before the first call");
    scope.clear().unwrap();
    for errno in [libc::EBADF, libc::EAGAIN, libc::ETIMEDOUT, libc::ECANCELED, libc::EIO] {
        assert_eq!(retried::<R>(errno, 1, || ()), (Err(Told::Os(errno)), 1), "the kernel's answer is passed on");
    }
    assert_eq!(
        retried::<R>(libc::ECANCELED, 1, ask),
        (interrupted(), 1),
        "ECANCELED with an interrupt pending is ours"
    );
    scope.clear().unwrap();
    assert_eq!(retried::<R>(0, 0, ask), (Ok(R::value()), 1), "a call that did something returns what it did");
    assert_eq!(retried::<R>(0, 0, || ()), (interrupted(), 0), "the next one ends");
    scope.clear().unwrap();
    assert_eq!(retried::<R>(libc::EBADF, 1, ask), (Err(Told::Os(libc::EBADF)), 1), "so it is with what went wrong");
    assert_eq!(scope.remote().wait(Duration::ZERO), Status::StillRunning, "and nobody has seen the interrupt");
}

#[test]
fn retry_calls_again_until_it_worked_failed_or_was_interrupted() {
    let _t = common::begin();
    let before = State::now();
    retry_as_it_should::<Result<u8, Errno>>();
    retry_as_it_should::<io::Result<u8>>();
    retry_as_it_should::<i32>();
    retry_as_it_should::<i64>();
    retry_as_it_should::<isize>();
    retry_as_it_should::<Own>();
    assert_eq!(State::now(), before);
}

#[test]
fn retry_knows_eintr_by_its_kind_too_and_never_lets_it_out() {
    let _t = common::begin();
    let mut calls = 0;
    let answer = eintr::retry(|| -> io::Result<u8> {
        calls += 1;
        if calls < 100 { Err(io::ErrorKind::Interrupted.into()) } else { Ok(1) }
    });
    assert_eq!((answer.unwrap(), calls), (1, 100));
    let scope = Scope::enter(libc::SIGUSR1).unwrap();
    let answer = eintr::retry(|| -> io::Result<u8> {
        scope.remote().interrupt();
        Err(io::ErrorKind::Interrupted.into())
    });
    assert_ne!(answer.unwrap_err().kind(), io::ErrorKind::Interrupted);
}

/// A real call, broken again and again by a handler without SA_RESTART that is not ours.
#[test]
fn retry_goes_on_under_foreign_signals_until_there_is_data() {
    let _t = common::begin();
    let foreign = Counting::with_flags(libc::SIGUSR2, 0);
    for in_scope in [false, true] {
        let (reader, writer) = common::pipe();
        let (says, tid) = mpsc::channel();
        let blocked = std::thread::spawn(move || {
            let _scope = in_scope.then(|| Scope::enter(libc::SIGUSR1).unwrap());
            says.send(common::gettid()).unwrap();
            let mut calls = 0;
            let mut buffer = [0; 8];
            let read = eintr::retry(|| {
                calls += 1;
                nix::unistd::read(&reader, &mut buffer)
            });
            (read, calls)
        });
        let tid = tid.recv().unwrap();
        for _ in 0..50 {
            common::wait_blocked_in(tid, libc::SYS_read);
            let runs = foreign.runs();
            unsafe { libc::syscall(libc::SYS_tgkill, common::getpid(), tid, libc::SIGUSR2) };
            common::wait_until(|| foreign.runs() > runs);
        }
        nix::unistd::write(&writer, b"data").unwrap();
        let (read, calls) = blocked.join().unwrap();
        assert_eq!(read, Ok(4));
        assert!(calls > 1, "at least one of the signals broke it");
    }
}
