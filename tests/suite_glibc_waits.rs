//! glibc's cancellation of semaphores, locks and sleeps, ported.
//!
//! | glibc | here |
//! | --- | --- |
//! | `tst-cancel12`, `14` (sem_wait, sem_timedwait that block are cancelled, the semaphore keeps its count) | `futex_wait` and `futex_wait_until`, the four ways; `an_interrupt_that_comes_with_a_post_...` |
//! | `tst-cancel13`, `15` (the same, cancelled before) | the same, early; `a_wait_that_need_not_block_...` |
//! | `tst-cancel16` (lockf, fcntl) | `fcntl_lock`, `fcntl_lock_of_the_open_file`, the four ways; `a_lock_that_was_not_waited_for_to_the_end_...` |
//! | `tst-cancel18` (clock_nanosleep) | `a_sleep_...` |
//!
//! A semaphore is a word that `sys::futex_wait` waits on, as in libc. Left out: `sem_clockwait` with CLOCK_REALTIME (`futex_wait` takes an instant).
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)] // as in tests/common

mod common;
#[path = "common/counting.rs"]
mod counting;
#[path = "common/suite.rs"]
mod suite;
#[path = "common/cases_wait.rs"]
mod wait;

use counting::{Counting, kinds};
use eintr::{Error, Scope, sys};
use nix::errno::Errno;
use nix::fcntl::FcntlArg;
use nix::sys::time::TimeSpec;
use nix::time::ClockId;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};
use suite::{Storm, four_ways, interrupted, sleep, worker};

four_ways! { wait: futex_wait futex_wait_until fcntl_lock fcntl_lock_of_the_open_file }

/// A semaphore, as libc makes it: a count, and a futex on it.
#[derive(Debug, Default)]
struct Semaphore(AtomicU32);

impl Semaphore {
    fn take(&self) -> bool {
        self.0.fetch_update(SeqCst, SeqCst, |count| count.checked_sub(1)).is_ok()
    }

    fn wait(&self, until: Option<Instant>) -> Result<(), Error> {
        while !self.take() {
            sys::futex_wait(&self.0, 0, until)?;
        }
        Ok(())
    }

    fn post(&self) {
        self.0.fetch_add(1, SeqCst);
        unsafe { libc::syscall(libc::SYS_futex, self.0.as_ptr(), libc::FUTEX_WAKE, 1) };
    }

    fn count(&self) -> u32 {
        self.0.load(SeqCst)
    }
}

/// One post and one interrupt, at the same time: the post is taken or it is there, whichever comes first.
#[test]
fn an_interrupt_that_comes_with_a_post_does_not_eat_it() {
    let _t = common::begin();
    for sig in kinds() {
        let (mut taken, mut left) = (0, 0);
        for round in 0..common::rounds("EINTR_ROUNDS", 300) {
            let semaphore = Arc::new(Semaphore::default());
            let waits = semaphore.clone();
            let waiter = worker(sig, move |_, _| waits.wait(None));
            let waiter = if round % 3 == 0 { waiter } else { waiter.asleep(&sleep(libc::SYS_futex)) };
            let remote = waiter.remote.clone();
            std::thread::scope(|threads| {
                threads.spawn(move || remote.interrupt());
                semaphore.post();
            });
            match waiter.join() {
                Ok(()) => {
                    taken += 1;
                    assert_eq!(semaphore.count(), 0);
                }
                ended => {
                    left += 1;
                    interrupted(ended);
                    assert_eq!(semaphore.count(), 1);
                }
            }
        }
        println!("taken {taken}, left {left}");
    }
}

/// Of two that wait one is interrupted, while a post wakes one: the other is not left asleep beside a post that nobody takes.
#[test]
fn an_interrupt_of_one_waiter_does_not_eat_the_wake_up_of_another() {
    let _t = common::begin();
    for _ in 0..common::rounds("EINTR_ROUNDS", 200) {
        let semaphore = Arc::new(Semaphore::default());
        let waiters = [(); 2].map(|()| {
            let waits = semaphore.clone();
            // Whoever is ended passes on what it may have been woken for, as any wait on a futex must.
            let wait = move |_: &Scope, _: &_| {
                waits.wait(None).inspect_err(|_| {
                    if waits.count() > 0 {
                        waits.wake()
                    }
                })
            };
            worker(libc::SIGUSR1, wait).asleep(&sleep(libc::SYS_futex))
        });
        let remote = waiters[0].remote.clone();
        std::thread::scope(|threads| {
            threads.spawn(move || remote.interrupt());
            semaphore.post();
        });
        let [first, second] = waiters;
        let first = first.join();
        if first.is_ok() {
            let _ = second.remote.interrupt();
            interrupted(second.join());
        } else {
            interrupted(first);
            assert_eq!(second.join(), Ok(()), "the post is its own");
        }
        assert_eq!(semaphore.count(), 0);
    }
}

impl Semaphore {
    fn wake(&self) {
        unsafe { libc::syscall(libc::SYS_futex, self.0.as_ptr(), libc::FUTEX_WAKE, 1) };
    }
}

/// Nothing to wait for: the word is another. The interrupt comes first all the same, as it does before any call.
#[test]
fn a_wait_that_need_not_block_is_ended_by_an_interrupt_alone() {
    let _t = common::begin();
    for (sig, flags) in kinds().into_iter().zip([libc::SA_RESTART, 0]) {
        let _behind = Counting::with_flags(sig, flags);
        let scope = Scope::enter(sig).unwrap();
        let word = AtomicU32::new(1);
        let waits = [None, Some(Instant::now()), Some(Instant::now() + Duration::from_secs(3600))];
        let _ = scope.remote().interrupt();
        waits.into_iter().for_each(|until| interrupted(sys::futex_wait(&word, 0, until)));
        assert!(scope.clear().is_some());
        let _storm = Storm::on(common::gettid(), sig, Duration::from_micros(100));
        for _ in 0..100 {
            waits.into_iter().for_each(|until| assert_eq!(sys::futex_wait(&word, 0, until), Ok(false)));
        }
    }
}

#[test]
fn a_wait_until_an_instant_is_over_then_and_not_before_whatever_signals_come() {
    let _t = common::begin();
    for (sig, flags) in kinds().into_iter().zip([libc::SA_RESTART, 0]) {
        let _behind = Counting::with_flags(sig, flags);
        let _scope = Scope::enter(sig).unwrap();
        let semaphore = Semaphore::default();
        let _storm = Storm::on(common::gettid(), sig, Duration::from_millis(1));
        let until = Instant::now() + Duration::from_millis(50);
        assert_eq!(semaphore.wait(Some(until)), Err(Error::Os(Errno::ETIMEDOUT)));
        assert!(Instant::now() >= until);
        semaphore.post();
        assert_eq!(semaphore.wait(Some(until)), Ok(()), "what is there is taken, late or not");
    }
}

/// Who was ended has not got it, and stands in nobody's way.
#[test]
fn a_lock_that_was_not_waited_for_to_the_end_is_not_held() {
    let _t = common::begin();
    for sig in kinds() {
        let holder = suite::memory_file();
        let lock = |kind: i32| libc::flock { l_type: kind as _, ..unsafe { std::mem::zeroed() } };
        nix::fcntl::fcntl(&holder, FcntlArg::F_OFD_SETLK(&lock(libc::F_WRLCK))).unwrap();
        let (waits, other) = (suite::again(&holder), suite::again(&holder));
        let waiter = worker(sig, move |_, tell| {
            interrupted(sys::fcntl_lock(&waits, FcntlArg::F_OFD_SETLKW(&lock(libc::F_WRLCK))));
            tell.send(()).unwrap();
            waits
        });
        let waiter = waiter.asleep(&sleep(libc::SYS_fcntl));
        let _ = waiter.remote.interrupt();
        let waiter = waiter.has_told();
        nix::fcntl::fcntl(&holder, FcntlArg::F_OFD_SETLK(&lock(libc::F_UNLCK))).unwrap();
        nix::fcntl::fcntl(&other, FcntlArg::F_OFD_SETLK(&lock(libc::F_WRLCK))).expect("nobody has it");
        drop(waiter.join());
    }
}

fn clocks() -> [ClockId; 3] {
    [ClockId::CLOCK_MONOTONIC, ClockId::CLOCK_REALTIME, ClockId::CLOCK_BOOTTIME]
}

/// What the clock will show after so long.
fn after(clock: ClockId, time: Duration) -> TimeSpec {
    clock.now().unwrap() + TimeSpec::from_duration(time)
}

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_sleep_is_ended_by_an_interrupt_before_it_and_in_it() {
    let _t = common::begin();
    for clock in clocks() {
        for sig in kinds() {
            let sleeper = worker(sig, move |scope, tell| {
                let _ = scope.remote().interrupt();
                interrupted(sys::clock_nanosleep(clock, after(clock, HOUR)));
                interrupted(sys::clock_nanosleep(clock, TimeSpec::new(0, 0)));
                assert!(scope.clear().is_some());
                assert_eq!(sys::clock_nanosleep(clock, TimeSpec::new(0, 0)), Ok(()), "that is long ago");
                tell.send(()).unwrap();
                interrupted(sys::clock_nanosleep(clock, after(clock, HOUR)));
            });
            let sleeper = sleeper.has_told().asleep(&sleep(libc::SYS_clock_nanosleep));
            let _ = sleeper.remote.interrupt();
            sleeper.join();
        }
    }
}

#[test]
fn a_sleep_lasts_as_long_as_it_was_to_last_whatever_signals_come() {
    let _t = common::begin();
    for clock in clocks() {
        for (sig, flags) in kinds().into_iter().zip([libc::SA_RESTART, 0]) {
            let behind = Counting::with_flags(sig, flags);
            let _scope = Scope::enter(sig).unwrap();
            let _storm = Storm::on(common::gettid(), sig, Duration::from_millis(1));
            let until = after(clock, Duration::from_millis(50));
            assert_eq!(sys::clock_nanosleep(clock, until), Ok(()));
            assert!(clock.now().unwrap() >= until);
            assert!(behind.runs() > 0);
        }
    }
}
