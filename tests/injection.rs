//! Plain calls on the scoped thread (protocol 9): where the kernel restarts them after our handler, our own interrupts end them all the same, with EINTR
//! first and with ECANCELED when they are made again; a futex never gets ECANCELED; and calls for which EINTR would be a lie are not touched.
//!
//! `EINTR_SERIAL` may name a serial line that a test may open, to wait for its modem lines.
// Tests make and interrupt calls by bare system calls, some of them in pages of their own.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

#[path = "common/blocking.rs"]
mod blocking;
mod common;
#[path = "common/nest.rs"]
mod nest;

use blocking::{Blocking, Make, Returned, Told};
use eintr::{Delivery, Remote, Scope, ScopeOptions, Status};
use nest::{Installed, Look};
use std::os::fd::AsRawFd;
use std::sync::mpsc;
use std::time::Duration;

/// What stands behind the scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behind {
    Restarts,
    DoesNot,
    Default,
    Ignored,
}
use Behind::*;

const BEHIND: [Behind; 4] = [Restarts, DoesNot, Default, Ignored];

impl Behind {
    fn install(self, sig: i32) -> Installed {
        match self {
            Restarts => Installed::new(sig, nest::counts, libc::SA_RESTART),
            DoesNot => Installed::new(sig, nest::counts, 0),
            Default => Installed::action(sig, libc::SIG_DFL),
            Ignored => Installed::action(sig, libc::SIG_IGN),
        }
    }
}

fn numbers() -> [i32; 2] {
    [libc::SIGUSR1, libc::SIGRTMIN() + 3]
}

/// A thread with a scope.
struct Scoped<R> {
    look: Look,
    remote: Remote,
    thread: std::thread::JoinHandle<R>,
}

impl<R: Send + 'static> Scoped<R> {
    fn new(sig: i32, body: impl FnOnce(&Scope) -> R + Send + 'static) -> Scoped<R> {
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let scope = ScopeOptions::new(sig).allow_ignored().enter().expect("enter");
            tell.send((common::gettid(), scope.remote())).expect("the test waits");
            let r = body(&scope);
            let own = common::mask() & common::bit(sig);
            assert_eq!(own, 0, "the number is open");
            r
        });
        let (tid, remote) = told.recv().expect("the thread lives");
        Scoped { look: Look::at(tid), remote, thread }
    }

    fn wait_asleep_in(&self, nr: libc::c_long) {
        let there = |asleep| nr == blocking::ANY && asleep != libc::SYS_futex || common::look_alike(asleep, nr);
        let asleep = || self.look.sleeps_in().is_some_and(|(nr, _)| there(nr)) && self.look.is_at_rest();
        // One that has ended is not waited for: what it has to say tells why.
        common::wait_until(|| self.thread.is_finished() || asleep());
    }

    fn end(self) -> R {
        self.thread.join().expect("it ends well")
    }
}

/// Makes the call `times` times while it is interrupted, acknowledges, and makes it again, when it must end well: the last of what it returned.
fn interrupted(sig: i32, blocked: Blocking, times: usize, interrupt: fn(&Remote)) -> Vec<Returned> {
    let Blocking { nr, mut call, release, .. } = blocked;
    let (go, gone) = mpsc::channel::<()>();
    let scoped = Scoped::new(sig, move |scope| {
        let mut all: Vec<_> = (0..times).map(|_| call()).collect();
        assert!(scope.clear().is_some());
        gone.recv().expect("the test goes on");
        all.push(call());
        all
    });
    scoped.wait_asleep_in(nr);
    interrupt(&scoped.remote);
    assert_eq!(scoped.remote.wait(Duration::from_secs(50)), Status::Acknowledged);
    let _ = go.send(());
    scoped.wait_asleep_in(nr);
    release();
    scoped.end()
}

fn all() -> impl Iterator<Item = Make> {
    blocking::RESTARTABLE.into_iter().chain(blocking::NEVER_RESTARTED)
}

// Whoever does not retry is ended by the first EINTR, and nothing is lost by it: the same call, made again, ends well.
#[test]
fn an_interrupt_ends_a_plain_call_with_eintr_whatever_stands_behind() {
    let _t = common::begin();
    for sig in numbers() {
        for behind in BEHIND {
            let _behind = behind.install(sig);
            for blocked in all().filter_map(|make| make()) {
                let name = blocked.name;
                let answers = interrupted(sig, blocked, 1, |remote| {
                    assert_eq!(remote.interrupt(), Delivery::Sent);
                });
                assert!(answers[0] == Err(libc::EINTR) && answers[1].is_ok(), "{name}, {sig}, {behind:?}: {answers:?}");
            }
        }
    }
}

// On x86_64 the kernel leaves a sign that the call has run, so one signal is enough, but for the two calls that are only touched where they are stuck.
#[test]
fn one_signal_is_enough_where_there_is_a_sign_that_the_call_has_run() {
    let _t = common::begin();
    if cfg!(not(target_arch = "x86_64")) {
        println!("SKIPPED: one signal for a plain call: there is no sign that it has run on this architecture");
        return;
    }
    for sig in numbers() {
        for behind in BEHIND {
            let _behind = behind.install(sig);
            for blocked in all().filter_map(|make| make()) {
                let (name, nr) = (blocked.name, blocked.nr);
                if behind != DoesNot && [libc::SYS_openat, libc::SYS_write, libc::SYS_writev].contains(&nr) {
                    continue;
                }
                let answers = interrupted(sig, blocked, 1, |remote| {
                    assert_eq!(remote.interrupt_once(), Delivery::Sent);
                });
                assert!(answers[0] == Err(libc::EINTR) && answers[1].is_ok(), "{name}, {sig}, {behind:?}: {answers:?}");
            }
        }
    }
}

// std retries EINTR for ever in File::open, accept, Child::wait, read_exact, write_all: the resend tells them something else. Not so a futex, since glibc
// aborts; nor a call that the kernel itself ends.
#[test]
fn code_that_retries_eintr_is_told_ecanceled_where_calls_restart() {
    let _t = common::begin();
    for sig in numbers() {
        for behind in BEHIND {
            let _behind = behind.install(sig);
            for blocked in all().filter_map(|make| make()) {
                let (name, told) = (blocked.name, blocked.told);
                let answers = interrupted(sig, blocked, 4, |remote| {
                    assert_eq!(remote.interrupt(), Delivery::Sent);
                });
                let then = if told == Told::Canceled && behind != DoesNot { libc::ECANCELED } else { libc::EINTR };
                let wanted = [Err(libc::EINTR), Err(then), Err(then), Err(then)];
                assert!(answers[..4] == wanted && answers[4].is_ok(), "{name}, {sig}, {behind:?}: {answers:?}");
            }
        }
    }
}

// An acknowledgement ends the count: the next interrupt begins with EINTR.
#[test]
fn each_interrupt_begins_with_eintr() {
    let _t = common::begin();
    for sig in numbers() {
        let (reader, _writer) = common::pipe();
        let scoped = Scoped::new(sig, move |scope| {
            for round in 0..200 {
                assert_eq!(common::plain_read(&reader), Err(libc::EINTR), "round {round}");
                if round % 3 > 0 {
                    assert_eq!(common::plain_read(&reader), Err(libc::ECANCELED), "round {round}");
                }
                if round % 2 == 0 {
                    assert!(eintr::check().is_err());
                }
                scope.clear();
            }
        });
        while !scoped.remote.is_closed() {
            if scoped.look.sleeps_in().is_some_and(|(nr, _)| nr == libc::SYS_read) {
                scoped.remote.interrupt();
            }
        }
        scoped.end();
    }
}

// Code by the book takes an EINTR of connect for "goes on by itself" and asks whether it has; glibc takes one of FUTEX_LOCK_PI for success: a mutex with two owners.
#[test]
fn calls_for_which_eintr_would_be_a_lie_are_restarted() {
    let _t = common::begin();
    for sig in numbers() {
        for behind in [Restarts, Default, Ignored] {
            let _behind = behind.install(sig);
            for Blocking { name, nr, mut call, release, .. } in blocking::all(&blocking::UNTOUCHED) {
                let scoped = Scoped::new(sig, move |_| call());
                scoped.wait_asleep_in(nr);
                // It has been woken, and has gone to sleep again, so often.
                let slept = scoped.look.sleeps();
                assert_eq!(scoped.remote.interrupt(), Delivery::Sent);
                common::wait_until(|| scoped.look.sleeps() >= slept + 6);
                scoped.wait_asleep_in(nr);
                release();
                let answer = scoped.end();
                assert!(answer.is_ok(), "{name}, {sig}, {behind:?}: {answer:?}");
            }
        }
    }
}

// tcdrain(3) of a line that is held, and the wait for its modem lines: only a serial line has both.
#[test]
fn the_waits_of_a_serial_line_are_ended() {
    let _t = common::begin();
    let Ok(path) = std::env::var("EINTR_SERIAL") else {
        println!("SKIPPED: ioctl(TIOCMIWAIT): EINTR_SERIAL names no serial line that may be opened");
        return;
    };
    let _behind = Restarts.install(libc::SIGUSR1);
    let line = std::fs::File::options().read(true).write(true).open(path).expect("the line that EINTR_SERIAL names");
    let scoped = Scoped::new(libc::SIGUSR1, move |scope| {
        let wait = || unsafe { libc::ioctl(line.as_raw_fd(), libc::TIOCMIWAIT, libc::TIOCM_RNG | libc::TIOCM_CAR) };
        let answers = [blocking::returned(wait()), blocking::returned(wait())];
        scope.clear();
        answers
    });
    scoped.wait_asleep_in(libc::SYS_ioctl);
    scoped.remote.interrupt();
    assert_eq!(scoped.end(), [Err(libc::EINTR), Err(libc::ECANCELED)]);
}
