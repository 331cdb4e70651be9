//! CPython's `_test_eintr.py`, ported: a timer that sends a signal again and again, whose handler has no SA_RESTART, against each call that it tries.
//! Each is tried both ways: with those signals alone it finishes as if none had come; with an interrupt among them it ends, and nothing is lost.
//!
//! | CPython | here |
//! | --- | --- |
//! | `OSEINTRTest.test_wait`, `test_wait3` | `waiting_for_any_of_three_children_...` |
//! | `test_waitpid`, `test_wait4` | `wait4`; and `waitid`, which CPython does not try |
//! | `test_read`, `test_readinto` | `pieces_that_come_one_by_one_...`: read with room for more, and with none |
//! | `test_write` | `a_buffer_that_fills_a_pipe_...` |
//! | `SocketEINTRTest.test_recv`, `test_recvmsg` | `pieces_that_come_one_by_one_...` |
//! | `test_send`, `test_sendall`, `test_sendmsg` | `a_buffer_that_fills_a_socket_...` |
//! | `test_accept` | `accept4` |
//! | `test_open`, `test_os_open` | `open_to_write`, `open_to_read` |
//! | `TimeEINTRTest.test_sleep` | `times_are_...` |
//! | `SignalEINTRTest.test_sigwaitinfo`, `test_sigtimedwait` | `sigtimedwait`, `sigtimedwait_with_a_time` |
//! | `SelectEINTRTest.test_select`, `test_poll`, `test_epoll` | `times_are_...`, and `pselect`, `poll`, `epoll_wait` without an end |
//! | `FCNTLEINTRTest.test_lockf`, `test_flock` | `fcntl_lock`, `flock` |
//!
//! The timer is a POSIX one, aimed at the thread, every 2 ms instead of every 100: CPython's `setitimer` reaches any thread. Left out: `test_kqueue`
//! and `test_devpoll`, which Linux has not.
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
use nix::poll::{PollFlags, PollTimeout};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollTimeout};
use nix::sys::socket::MsgFlags;
use nix::sys::time::TimeSpec;
use nix::sys::wait::WaitPidFlag;
use nix::time::ClockId;
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use suite::{Case, Sleep, Storm, Worker, interrupted, sleep, worker};

const PERIOD: Duration = Duration::from_millis(2);

/// The scope's number and the timer's: the same one, and another.
fn storms() -> [(i32, i32); 3] {
    let [standard, real_time] = kinds();
    [(standard, standard), (real_time, real_time), (standard, libc::SIGALRM)]
}

/// A thread in a scope that a timer sends signals to.
struct Stormed<T> {
    worker: Worker<T>,
    sleeps: Vec<Sleep>,
    behind: Counting,
    storm: Storm,
}

fn stormed<T: Send + 'static>(
    (sig, timers): (i32, i32),
    sleeps: Vec<Sleep>,
    work: impl FnOnce(&Scope, &std::sync::mpsc::Sender<()>) -> T + Send + 'static,
) -> Stormed<T> {
    let behind = Counting::with_flags(timers, 0);
    let worker = worker(sig, work);
    let storm = Storm::on(worker.tid, timers, PERIOD);
    Stormed { worker, sleeps, behind, storm }
}

impl<T> Stormed<T> {
    /// Waits until the call has been hit.
    fn hit(self) -> Stormed<T> {
        let so_far = self.behind.runs();
        let worker = self.worker.asleep(&self.sleeps);
        common::wait_until(|| self.behind.runs() >= so_far + 2);
        Stormed { worker: worker.asleep(&self.sleeps), ..self }
    }

    fn interrupt(self) -> Stormed<T> {
        let _ = self.worker.remote.interrupt();
        self
    }

    fn has_told(self) -> Stormed<T> {
        Stormed { worker: self.worker.has_told(), ..self }
    }

    fn join(self) -> T {
        let answer = self.worker.join();
        drop(self.storm);
        answer
    }
}

/// One call, with the timer's signals alone, and then with an interrupt among them.
fn both_ways(make: impl Fn() -> Option<Case>) {
    let _t = common::begin();
    for storm in storms() {
        for asks in [false, true] {
            let Some(Case { sleeps_in, mut call, provide, expected }) = make() else { return };
            let mut stormed = stormed(storm, sleeps_in, move |scope, tell| {
                if asks {
                    interrupted(call());
                    assert!(scope.clear().is_some());
                    tell.send(()).unwrap();
                }
                call()
            });
            stormed = stormed.hit();
            if asks {
                stormed = stormed.interrupt().has_told().hit();
            }
            let after = provide(stormed.worker.tid);
            assert_eq!(stormed.join(), Ok(expected));
            after();
        }
    }
}

macro_rules! both_ways {
    ($($call:ident)*) => { $(
        mod $call {
            #[test]
            fn finishes_among_signals_and_ends_by_an_interrupt() {
                super::both_ways(super::wait::$call);
            }
        }
    )* };
}
both_ways! { wait4 waitid accept4 open_to_write open_to_read sigtimedwait sigtimedwait_with_a_time }
both_ways! { pselect poll epoll_wait fcntl_lock flock }

type Ends = fn() -> (OwnedFd, OwnedFd);

fn pipe() -> (OwnedFd, OwnedFd) {
    common::pipe()
}

fn sockets() -> (OwnedFd, OwnedFd) {
    let (one, other) = UnixStream::pair().unwrap();
    (one.into(), other.into())
}

const PIECES: [&[u8]; 3] = [b"hello", b"world", b"spam"];

/// Each piece is sent when the reader has been hit while it waits for it. With `asks`, it is interrupted before the second piece.
fn pieces(nr: libc::c_long, ends: Ends, room: usize, read: fn(&OwnedFd, &mut [u8]) -> sys::Result<usize>) {
    for storm in storms() {
        for asks in [false, true] {
            let (from, to) = ends();
            let mut stormed = stormed(storm, sleep(nr), move |scope, tell| {
                for (n, piece) in PIECES.into_iter().enumerate() {
                    let mut buffer = vec![b'.'; piece.len() + room];
                    if asks && n == 1 {
                        interrupted(read(&from, &mut buffer));
                        assert!(scope.clear().is_some());
                        assert_eq!(buffer, vec![b'.'; buffer.len()]);
                        tell.send(()).unwrap();
                    }
                    assert_eq!(read(&from, &mut buffer), Ok(piece.len()));
                    assert_eq!(&buffer[..piece.len()], piece);
                    tell.send(()).unwrap();
                }
            });
            let mut to = File::from(to);
            for (n, piece) in PIECES.into_iter().enumerate() {
                stormed = stormed.hit();
                if asks && n == 1 {
                    stormed = stormed.interrupt().has_told().hit();
                }
                to.write_all(piece).unwrap();
                stormed = stormed.has_told();
            }
            stormed.join();
        }
    }
}

fn recvmsg(fd: &OwnedFd, buffer: &mut [u8]) -> sys::Result<usize> {
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    (header.msg_iov, header.msg_iovlen) = (&mut part, 1);
    unsafe { sys::recvmsg(fd, &mut header, MsgFlags::empty()) }
}

#[test]
fn pieces_that_come_one_by_one_are_read_one_by_one() {
    let _t = common::begin();
    pieces(libc::SYS_read, pipe, 0, |fd, buffer| sys::read(fd, buffer));
    pieces(libc::SYS_read, pipe, 8, |fd, buffer| sys::read(fd, buffer));
}

#[test]
fn pieces_that_come_one_by_one_are_received_one_by_one() {
    let _t = common::begin();
    pieces(libc::SYS_recvfrom, sockets, 0, |fd, buffer| sys::recv(fd, buffer, MsgFlags::empty()));
    pieces(libc::SYS_recvmsg, sockets, 0, recvmsg);
}

/// Bytes of which none can be taken for the one a little further on.
fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32).flat_map(|n| n.to_le_bytes()).take(length).collect()
}

/// What is written in as many calls as it takes is what is read, each byte once. The reader reads when the writer has been hit; with `asks` the
/// writer is also interrupted, each time before the reader reads, and goes on from where it was: bytes written and bytes left add up.
fn fills(nr: libc::c_long, ends: Ends, write: fn(&OwnedFd, &[u8]) -> sys::Result<usize>) {
    let length = 1 << 20;
    for storm in storms() {
        for asks in [false, true] {
            let (from, to) = ends();
            let mut stormed = stormed(storm, sleep(nr), move |scope, _| {
                let data = pattern(length);
                let (mut written, mut ended) = (0, 0);
                while written < data.len() {
                    match write(&to, &data[written..]) {
                        Ok(n) => written += n,
                        Err(Error::Interrupted(_)) => {
                            assert!(scope.clear().is_some());
                            ended += 1;
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
                (written, ended)
            });
            let (mut from, mut received) = (File::from(from), Vec::new());
            let mut chunk = vec![0; 128 * 1024];
            while received.len() < length {
                if received.len() < length / 2 {
                    stormed = stormed.hit();
                    if asks {
                        stormed = stormed.interrupt();
                    }
                }
                let n = from.read(&mut chunk).unwrap();
                received.extend_from_slice(&chunk[..n]);
            }
            let (written, ended) = stormed.join();
            assert_eq!((written, received.len()), (length, length));
            assert!(received == pattern(length), "each byte once, and in order");
            assert_eq!(ended > 0, asks, "ended {ended} times");
        }
    }
}

fn sendmsg(fd: &OwnedFd, buffer: &[u8]) -> sys::Result<usize> {
    let mut part = libc::iovec { iov_base: buffer.as_ptr().cast_mut().cast(), iov_len: buffer.len() };
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    (header.msg_iov, header.msg_iovlen) = (&mut part, 1);
    unsafe { sys::sendmsg(fd, &header, MsgFlags::empty()) }
}

#[test]
fn a_buffer_that_fills_a_pipe_arrives_whole() {
    let _t = common::begin();
    fills(libc::SYS_write, pipe, |fd, buffer| sys::write(fd, buffer));
}

#[test]
fn a_buffer_that_fills_a_socket_arrives_whole_by_send() {
    let _t = common::begin();
    fills(libc::SYS_sendto, sockets, |fd, buffer| sys::send(fd, buffer, MsgFlags::empty()));
}

#[test]
fn a_buffer_that_fills_a_socket_arrives_whole_by_sendmsg() {
    let _t = common::begin();
    fills(libc::SYS_sendmsg, sockets, sendmsg);
}

#[test]
fn waiting_for_any_of_three_children_gets_each_of_them() {
    let _t = common::begin();
    for storm in storms() {
        for asks in [false, true] {
            let children: Vec<_> = (0..3).map(|_| wait::child()).collect();
            let all: BTreeSet<Pid> = children.iter().map(|(pid, _)| *pid).collect();
            let mut stormed = stormed(storm, sleep(libc::SYS_wait4), move |scope, tell| {
                let wait = || sys::wait4(None, WaitPidFlag::empty());
                let mut gone = BTreeSet::new();
                while gone.len() < 3 {
                    if asks {
                        interrupted(wait());
                        assert!(scope.clear().is_some());
                        tell.send(()).unwrap();
                    }
                    gone.insert(wait().unwrap().expect("it was waited for").0);
                    tell.send(()).unwrap();
                }
                gone
            });
            for (_, mut ends) in children {
                stormed = stormed.hit();
                if asks {
                    stormed = stormed.interrupt().has_told().hit();
                }
                ends.write_all(b"x").unwrap();
                stormed = stormed.has_told();
            }
            assert_eq!(stormed.join(), all);
        }
    }
}

const TIME: Duration = Duration::from_millis(40);

fn nothing_ready(answer: sys::Result<usize>) {
    assert_eq!(answer, Ok(0), "the time is up");
}

/// Waits of [`TIME`], by each call that has one.
fn timed() -> [(&'static str, fn()); 7] {
    fn poll() {
        nothing_ready(sys::poll(&mut [], PollTimeout::try_from(TIME).unwrap()));
    }
    fn ppoll() {
        let (from, _to) = pipe();
        let mut fds = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&from), PollFlags::POLLIN)];
        nothing_ready(sys::ppoll(&mut fds, Some(TimeSpec::from_duration(TIME)), None));
    }
    fn pselect() {
        nothing_ready(sys::pselect(None, None, None, None, Some(TimeSpec::from_duration(TIME)), None));
    }
    fn epoll() {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        nothing_ready(sys::epoll_wait(&epoll, &mut [EpollEvent::empty()], EpollTimeout::try_from(TIME).unwrap()));
    }
    fn nanosleep() {
        let clock = ClockId::CLOCK_MONOTONIC;
        sys::clock_nanosleep(clock, clock.now().unwrap() + TimeSpec::from_duration(TIME)).unwrap();
    }
    fn sigtimedwait() {
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        unsafe { libc::sigaddset(&mut set, libc::SIGRTMIN() + 7) };
        assert!(sys::sigtimedwait(&set, Some(TIME)).unwrap().is_none(), "the time is up");
    }
    fn futex() {
        let answer = sys::futex_wait(&0.into(), 0, Some(Instant::now() + TIME));
        assert_eq!(answer, Err(Error::Os(nix::errno::Errno::ETIMEDOUT)));
    }
    [
        ("poll", poll),
        ("ppoll", ppoll),
        ("pselect", pselect),
        ("epoll", epoll),
        ("nanosleep", nanosleep),
        ("sigtimedwait", sigtimedwait),
        ("futex", futex),
    ]
}

/// The timer goes on until the call is over. So it would not end if its time began again with each signal; and it is not over too early.
#[test]
fn times_are_as_long_as_they_were_to_be_whatever_signals_come() {
    let _t = common::begin();
    for (sig, timers) in storms() {
        let behind = Counting::with_flags(timers, 0);
        let _scope = Scope::enter(sig).unwrap();
        let _storm = Storm::on(common::gettid(), timers, PERIOD);
        for (name, wait) in timed() {
            let (start, so_far) = (Instant::now(), behind.runs());
            wait();
            let lasted = start.elapsed();
            assert!(lasted >= TIME, "{name} was over after {lasted:?}");
            assert!(behind.runs() > so_far, "{name} was not hit");
        }
    }
}
