//! The Linux Test Project's and Open POSIX's tests of calls that a signal ends, and of the time that remains, ported.
//!
//! | Suite: case | here |
//! | --- | --- |
//! | LTP `flock07` | `flock`, `flock_shared`, the four ways |
//! | LTP `fcntl16` | `waiters_for_a_part_of_a_file_...`: its eleven rows |
//! | LTP `futex_wait07`, Open POSIX `sem_wait/7-1`, `13-1`, `sem_timedwait/9-1` | `suite_glibc_waits.rs`; the time in `times_that_a_call_was_given_...` |
//! | LTP `epoll_wait08` | `epoll_wait`, `epoll_pwait`, the four ways |
//! | LTP `msgrcv05`, `msgsnd05` | `suite_glibc.rs` (`msgrcv`, `msgsnd`) |
//! | LTP `semop03`, whose other half is `semtimedop` | `semtimedop`, the four ways |
//! | LTP `ppoll01` | `ppoll_as_the_linux_test_project_tries_it_...` |
//! | LTP `nanosleep02`, Open POSIX `nanosleep/5-2`, `7-1`, `7-2`, `clock_nanosleep/9-1`, `10-1` | `what_a_plain_sleep_says_remains_...`, `a_plain_sleep_until_a_time_...`; `a_sleep_...` in `suite_glibc_waits.rs` |
//! | Open POSIX `mq_receive/13-1`, `mq_send/12-1`, `mq_timedreceive/5-*`, `17-*`, `18-*`, `mq_timedsend/12-1`, `20-1` | `mq_send`, `mq_receive`, the four ways; the time in `times_that_a_call_was_given_...` |
//! | libc-test `pthread_cancel-points`, `pthread_cancel-sem_wait` | early, in time: here and in `suite_glibc*.rs` |
//!
//! Here too, though no suite has them: the calls of `sys` that block and are on none of the lists. Left out: libc-test
//! `pthread_cond_wait-cancel_ignored` (about a condition variable and not a call). Masks, actions and fork are in `suite_posix_masks.rs` and
//! `suite_posix_fork.rs`.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)] // as in tests/common

mod common;
#[path = "common/counting.rs"]
mod counting;
#[path = "common/cases_io.rs"]
mod io;
#[path = "common/cases_ipc.rs"]
mod ipc;
#[path = "common/suite.rs"]
mod suite;
#[path = "common/cases_wait.rs"]
mod wait;

use counting::{Counting, kinds};
use eintr::{Error, Scope, sys};
use nix::errno::Errno;
use nix::fcntl::FcntlArg;
use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::SigSet;
use nix::sys::socket::MsgFlags;
use nix::sys::time::TimeSpec;
use nix::time::ClockId;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use suite::{Storm, Worker, four_ways, interrupted, memory_file, sleep, worker};

four_ways! { io: recvmmsg sendmmsg splice tee sendfile syscall }
four_ways! { wait: openat openat_of_the_working_directory flock flock_shared epoll_wait epoll_pwait }
four_ways! { ipc: semtimedop mq_send mq_receive }

const TIME: Duration = Duration::from_millis(40);

/// A lock of a part of a file: its kind, its first byte, how many (0: to the end).
type Part = (i32, i64, i64);

/// What becomes of the two that wait: a part that is asked for, and whether it is had in the end.
type Wish = (Part, bool);

const READ: i32 = libc::F_RDLCK;
const WRITE: i32 = libc::F_WRLCK;
const NOTHING: i32 = libc::F_UNLCK;
const ALL: (i64, i64) = (0, 0);

/// The rows of fcntl16: what is locked first, what others wait for, and what the holder changes then.
fn rows() -> [(Vec<Part>, Vec<Wish>, Vec<Part>); 11] {
    let whole = |kind| (kind, ALL.0, ALL.1);
    let wish = |from, length, has| ((READ, from, length), has);
    [
        (vec![whole(WRITE)], vec![wish(0, 5, true), wish(6, 5, true)], vec![whole(READ)]),
        (vec![whole(WRITE)], vec![wish(0, 5, false), wish(6, 5, false)], vec![whole(WRITE)]),
        (vec![whole(WRITE)], vec![wish(2, 3, false), wish(6, 3, false)], vec![(READ, 3, 5)]),
        (vec![whole(WRITE)], vec![wish(2, 3, false), wish(6, 3, true)], vec![(READ, 5, 5)]),
        (vec![whole(WRITE)], vec![wish(3, 5, true), wish(5, 6, false)], vec![(READ, 2, 7)]),
        (vec![whole(WRITE)], vec![wish(2, 3, false), wish(6, 3, true)], vec![(NOTHING, 3, 7)]),
        (vec![whole(WRITE), (READ, 3, 5)], vec![wish(2, 3, true), wish(6, 3, true)], vec![(READ, 1, 9)]),
        (vec![(WRITE, 2, 3), (WRITE, 6, 3)], vec![wish(3, 5, true)], vec![(READ, 1, 5), (READ, 5, 5)]),
        (vec![whole(WRITE), (READ, 3, 5)], vec![wish(2, 3, true), wish(6, 3, true)], vec![(READ, 1, 3), (READ, 7, 3)]),
        (vec![whole(WRITE)], vec![wish(2, 3, true), wish(6, 3, true)], vec![(READ, 1, 7), (READ, 3, 7)]),
        (vec![whole(WRITE)], vec![wish(3, 5, true), wish(3, 5, true)], vec![(READ, 3, 5)]),
    ]
}

/// The process's locks would not keep its own threads waiting: these belong to the open file.
fn request((kind, from, length): Part) -> libc::flock {
    libc::flock { l_type: kind as _, l_start: from, l_len: length, ..unsafe { std::mem::zeroed() } }
}

#[test]
fn waiters_for_a_part_of_a_file_get_it_or_are_ended_by_an_interrupt() {
    let _t = common::begin();
    for (row, (first, wishes, then)) in rows().into_iter().enumerate() {
        let file = memory_file();
        let lock = |part| nix::fcntl::fcntl(&file, FcntlArg::F_OFD_SETLK(&request(part))).unwrap();
        first.into_iter().for_each(|part| _ = lock(part));
        let waiters: Vec<(Worker<_>, bool)> = wishes
            .into_iter()
            .map(|(part, has)| {
                let own = suite::again(&file);
                let waits = move |_: &Scope, _: &_| {
                    let answer = sys::fcntl_lock(&own, FcntlArg::F_OFD_SETLKW(&request(part)));
                    (answer, own)
                };
                (worker(libc::SIGUSR1, waits).asleep(&sleep(libc::SYS_fcntl)), has)
            })
            .collect();
        then.into_iter().for_each(|part| _ = lock(part));
        let (have, have_not): (Vec<_>, Vec<_>) = waiters.into_iter().partition(|(_, has)| *has);
        let held: Vec<File> = have
            .into_iter()
            .map(|(waiter, _)| {
                let (answer, own) = waiter.join();
                assert_eq!(answer, Ok(()), "row {}", row + 1);
                own
            })
            .collect();
        for (waiter, _) in have_not {
            let waiter = waiter.asleep(&sleep(libc::SYS_fcntl));
            let _ = waiter.remote.interrupt();
            interrupted(waiter.join().0);
        }
        drop(held);
    }
}

/// Runs while a timer sends a signal each millisecond: of the scope's number, and of another; with handlers that have SA_RESTART and that have not.
fn in_storms(work: impl Fn(&Counting)) {
    let _t = common::begin();
    for (sig, foreign) in kinds().into_iter().flat_map(|sig| [(sig, sig), (sig, libc::SIGALRM)]) {
        for flags in [0, libc::SA_RESTART] {
            let behind = Counting::with_flags(foreign, flags);
            let scope = Scope::enter(sig).unwrap();
            let storm = Storm::on(common::gettid(), foreign, Duration::from_millis(1));
            work(&behind);
            drop(storm);
            assert_eq!((eintr::check(), scope.interrupted()), (Ok(()), None));
        }
    }
}

#[test]
fn times_that_a_call_was_given_are_over_neither_early_nor_never_in_a_storm() {
    in_storms(|behind| {
        if let Some([queue, _]) = ipc::posix_queue(1) {
            let clock = ClockId::CLOCK_REALTIME;
            let until = clock.now().unwrap() + TimeSpec::from_duration(TIME);
            assert_eq!(sys::mq_receive(&queue, &mut [0; 8], Some(until)), Err(Error::Os(Errno::ETIMEDOUT)));
            assert!(clock.now().unwrap() >= until);
            nix::mqueue::mq_send(&queue, b"-", 0).unwrap();
            let until = clock.now().unwrap() + TimeSpec::from_duration(TIME);
            assert_eq!(sys::mq_send(&queue, b"hello", 0, Some(until)), Err(Error::Os(Errno::ETIMEDOUT)));
            assert!(clock.now().unwrap() >= until);
        }
        if let Some([set, _]) = ipc::semaphores(1) {
            let mut down = [libc::sembuf { sem_num: 0, sem_op: -1, sem_flg: 0 }];
            let start = Instant::now();
            assert_eq!(sys::semtimedop(set.id, &mut down, Some(TIME)), Err(Error::Os(Errno::EAGAIN)));
            assert!(start.elapsed() >= TIME);
        }
        common::wait_until(|| behind.runs() > 0);
    });
}

/// A socket's own time, which the kernel starts afresh with each call. read looks at a clock that goes by ticks, and a tick may be late.
#[test]
fn times_of_a_socket_are_over_neither_early_nor_never_in_a_storm() {
    in_storms(|behind| {
        let (one, _other) = UnixStream::pair().unwrap();
        one.set_read_timeout(Some(TIME)).unwrap();
        type Receive = fn(&UnixStream, &mut [u8]) -> sys::Result<usize>;
        let recv: Receive = |one, buffer| sys::recv(one, buffer, MsgFlags::empty());
        let read: Receive = |one, buffer| sys::read(one, buffer);
        for (receive, ticks) in [(recv, 0), (read, 20)] {
            let start = Instant::now();
            assert_eq!(receive(&one, &mut [0; 8]), Err(Error::Os(Errno::EAGAIN)));
            let lasted = start.elapsed();
            assert!(lasted + Duration::from_millis(ticks) >= TIME, "over after {lasted:?}");
        }
        common::wait_until(|| behind.runs() > 0);
    });
}

/// NORMAL, TIMEOUT, FD_ALREADY_CLOSED, SEND_SIGINT; INVALID_NFDS and INVALID_FDS cannot be said but by number.
#[test]
fn ppoll_as_the_linux_test_project_tries_it_in_a_storm() {
    in_storms(|behind| {
        let file = memory_file();
        let time = || Some(TimeSpec::from_duration(TIME));
        let interest = PollFlags::POLLIN | PollFlags::POLLOUT;
        let mut ready = [PollFd::new(file.as_fd(), interest)];
        assert_eq!(sys::ppoll(&mut ready, time(), None), Ok(1));
        assert_eq!(ready[0].revents(), Some(interest));
        let start = Instant::now();
        assert_eq!(sys::ppoll(&mut [], time(), None), Ok(0));
        assert!(start.elapsed() >= TIME);
        let nobodys = unsafe { std::os::fd::BorrowedFd::borrow_raw(i32::MAX) };
        let mut closed = [PollFd::new(nobodys, interest)];
        assert_eq!(sys::ppoll(&mut closed, time(), None), Ok(1));
        assert_eq!(closed[0].revents(), Some(PollFlags::POLLNVAL));
        let by_number = |fds: usize, count: usize| unsafe { sys::syscall(libc::SYS_ppoll, [fds, count, 0, 0, 8, 0]) };
        assert_eq!(by_number(0, usize::MAX), Err(Error::Os(Errno::EINVAL)));
        assert_eq!(by_number(usize::MAX, 1), Err(Error::Os(Errno::EFAULT)));
        assert!(behind.runs() > 0);
    });
}

/// MASK_SIGNAL and SEND_SIGINT_RACE_TEST: what the mask holds back runs when the call is over, and what only the thread's own mask holds back runs
/// inside it; the call goes on either way.
#[test]
fn ppoll_as_the_linux_test_project_tries_it_with_masks() {
    let _t = common::begin();
    let (foreign, time) = (libc::SIGUSR2, || Some(TimeSpec::from_duration(TIME)));
    let behind = Counting::with_flags(foreign, 0);
    let scope = Scope::enter(libc::SIGUSR1).unwrap();
    let mut only = SigSet::empty();
    only.add(nix::sys::signal::Signal::SIGUSR2);
    for mask in [SigSet::empty(), only] {
        let outer = common::block(foreign);
        suite::send(common::gettid(), foreign);
        let start = Instant::now();
        let so_far = behind.runs();
        assert_eq!(sys::ppoll(&mut [], time(), Some(mask)), Ok(0));
        assert!(start.elapsed() >= TIME);
        let inside = u64::from(mask == SigSet::empty());
        assert_eq!(behind.runs() - so_far, inside, "inside the call");
        assert_eq!(common::mask(), outer | common::bit(foreign), "the thread's own mask is back");
        common::set_mask(outer);
        assert_eq!(behind.runs() - so_far, 1, "in the end");
    }
    drop(scope);
}

/// libc's sleep, made by the application itself. An interrupt ends it, and what it says remains is true: slept and remaining add up.
#[test]
fn what_a_plain_sleep_says_remains_is_what_remains() {
    let _t = common::begin();
    const HOUR: i64 = 3600 * 1_000_000_000;
    const SLACK: i64 = 1_000_000; // the kernel counts from when it would have woken at the latest (PR_SET_TIMERSLACK of prctl(2), 50 us)
    let nanoseconds = |time: libc::timespec| time.tv_sec * 1_000_000_000 + time.tv_nsec;
    type Sleep = fn(&libc::timespec, &mut libc::timespec) -> i32;
    let nanosleep: Sleep = |time, rest| unsafe { if libc::nanosleep(time, rest) == 0 { 0 } else { Errno::last_raw() } };
    let clock_nanosleep: Sleep = |time, rest| unsafe { libc::clock_nanosleep(libc::CLOCK_MONOTONIC, 0, time, rest) };
    for sleeps in [nanosleep, clock_nanosleep] {
        for sig in kinds() {
            let sleeper = worker(sig, move |_, _| {
                let time = libc::timespec { tv_sec: 3600, tv_nsec: 0 };
                let mut rest = libc::timespec { tv_sec: -1, tv_nsec: -1 };
                let start = Instant::now();
                let answer = sleeps(&time, &mut rest);
                let slept = start.elapsed().as_nanos() as i64;
                assert_eq!((answer, eintr::check().is_err()), (libc::EINTR, true));
                assert!((0..=HOUR + SLACK).contains(&nanoseconds(rest)), "{}", nanoseconds(rest));
                assert!(slept + nanoseconds(rest) >= HOUR, "slept {slept}, remaining {}", nanoseconds(rest));
            });
            // glibc makes the one of the other.
            let kinds = [sleep(libc::SYS_clock_nanosleep), sleep(libc::SYS_nanosleep)].concat();
            let sleeper = sleeper.asleep(&kinds);
            let _ = sleeper.remote.interrupt();
            sleeper.join();
        }
    }
}

/// Until a time, so there is nothing that remains: what it is given for that stays as it was, and going on is the same call again.
#[test]
fn a_plain_sleep_until_a_time_is_ended_and_gone_on_with() {
    in_storms(|behind| {
        let (clock, flags) = (ClockId::CLOCK_MONOTONIC, libc::TIMER_ABSTIME);
        let until = clock.now().unwrap() + TimeSpec::from_duration(TIME);
        let mut rest = libc::timespec { tv_sec: -1, tv_nsec: -1 };
        let slept: Result<(), Error> =
            eintr::retry(|| match unsafe { libc::clock_nanosleep(clock.as_raw(), flags, until.as_ref(), &mut rest) } {
                0 => Ok(()),
                errno => Err(Errno::from_raw(errno)),
            });
        assert_eq!(slept, Ok(()));
        assert!(clock.now().unwrap() >= until);
        assert_eq!((rest.tv_sec, rest.tv_nsec), (-1, -1));
        assert!(behind.runs() > 0);
    });
}
