//! What an interrupt costs from end to end, counted in system calls: of the one that sends, of the call that it ends, and of calls that nobody ends.
//!
//! The other operations are counted in `cost`. Where tracing is not permitted the tests say so and do nothing.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)] // as in tests/common

mod common;
#[path = "common/traced.rs"]
mod traced;

use std::fs;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::Duration;

use eintr::nix::poll::{PollFd, PollFlags, PollTimeout};
use eintr::nix::sys::socket::MsgFlags;
use eintr::{Delivery, Remote, Resend, Scope, ScopeOptions, sys};
use traced::{
    ACTION, Event, GETTID, MAKE_TIMER, MASK, Parts, QUEUE, READ, RETURN, SET_TIMER, TGKILL, mark, measured, trace,
};

/// Nothing is sent again meanwhile.
fn without_expiries(sig: i32) -> ScopeOptions {
    let hour = Duration::from_secs(3600);
    ScopeOptions::new(sig).resend(Resend::Backoff { first: hour, ceiling: hour })
}

/// Whether the thread sleeps in read(2), and does not just stand for its tracer.
fn sleeps_in_read(tid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/self/task/{tid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" S")) && common::is_blocked_in(tid, libc::SYS_read)
}

/// A thread that sleeps in `sys::read`, clears what ends it, and goes back; until the pipe is closed.
struct Sleeper {
    remote: Remote,
    tid: i32,
    cleared: Arc<AtomicU32>,
    writer: OwnedFd,
    thread: std::thread::JoinHandle<()>,
}

impl Sleeper {
    fn start(sig: i32) -> Sleeper {
        let (reader, writer) = common::pipe();
        let (give, given) = mpsc::channel();
        let cleared = Arc::new(AtomicU32::new(0));
        let counter = cleared.clone();
        let thread = std::thread::spawn(move || {
            let scope = without_expiries(sig).enter().expect("entered");
            give.send((scope.remote(), common::gettid())).unwrap();
            while sys::read(&reader, &mut [0; 1]).is_err() {
                assert!(scope.clear().is_some());
                counter.fetch_add(1, SeqCst);
            }
        });
        let (remote, tid) = given.recv().unwrap();
        Sleeper { remote, tid, cleared, writer, thread }
    }

    /// Until it sleeps, and has cleared so many.
    fn wait(&self, cleared: u32) {
        common::wait_until(|| self.cleared.load(SeqCst) == cleared && sleeps_in_read(self.tid));
    }

    fn end(self) {
        drop(self.writer);
        self.thread.join().unwrap();
    }
}

/// Who acknowledges waits for a sender that is still between its signal and its leave, and is woken by that; whether it comes to that is up to the
/// scheduler.
fn without_waits(events: &[Event]) -> Vec<Event> {
    let wait = Event::Call(libc::SYS_futex);
    events.iter().copied().filter(|event| *event != wait).collect()
}

/// The sender's side: all signals blocked, the action looked at, the signal, the mask; and if it is to be sent again, the setting of a timer that
/// exists from the first time on. While the thread has not acknowledged, and that may be soon, asking again costs nothing: that is counted in `cost`.
#[test]
fn an_interrupt_of_a_sleeping_thread_costs_four_calls_and_a_setting() {
    let _t = common::begin();
    for sig in [libc::SIGUSR1, libc::SIGRTMIN() + 1] {
        let Some(parts) = trace(move || {
            let sleeper = Sleeper::start(sig);
            sleeper.wait(0);
            for round in 1..=4 {
                let remote = &sleeper.remote;
                let delivery = measured(u64::from(round), || {
                    if round % 2 == 1 { remote.interrupt() } else { remote.interrupt_once() }
                });
                assert_eq!(delivery, Delivery::Sent);
                sleeper.wait(round);
            }
            let remote = sleeper.remote.clone();
            sleeper.end();
            assert_eq!(measured(5, || remote.interrupt()), Delivery::Gone);
        }) else {
            return;
        };
        assert_eq!(
            without_waits(&parts[&1]),
            [MASK, ACTION, MAKE_TIMER, QUEUE, SET_TIMER, MASK],
            "the first of the lane"
        );
        assert_eq!(without_waits(&parts[&2]), [MASK, ACTION, QUEUE, MASK], "once");
        assert_eq!(without_waits(&parts[&3]), [MASK, ACTION, QUEUE, SET_TIMER, MASK], "the timer is there");
        assert_eq!(without_waits(&parts[&4]), [MASK, ACTION, QUEUE, MASK], "once, with a timer");
        assert_eq!(parts[&5], [MASK, MASK], "of an ended scope");
    }
}

/// Interrupts the traced main thread, so often, each time when it sleeps in a read and has come so far.
fn interrupt_when_it_sleeps(remote: Remote, tid: i32, ways: &'static [fn(&Remote) -> Delivery]) {
    COUNT.store(0, SeqCst);
    common::unsignalled(move || {
        for (round, way) in (0..).zip(ways) {
            common::wait_until(|| COUNT.load(SeqCst) == round && sleeps_in_read(tid));
            assert_eq!(way(&remote), Delivery::Sent);
        }
    });
}

/// What the traced thread, or its handler, has got done.
static COUNT: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: i32) {
    COUNT.fetch_add(1, SeqCst);
}

/// The thread's side: the call, which is not made again; the signal and its handler, two calls and the return; the acknowledgement, two calls, and the
/// setting of the timer if it was armed.
#[test]
fn a_sleeping_call_that_is_interrupted_costs_the_handler_and_the_acknowledgement() {
    let _t = common::begin();
    for sig in [libc::SIGUSR1, libc::SIGRTMIN() + 1] {
        let Some(parts) = trace(move || {
            let (reader, _writer) = common::pipe();
            let scope = without_expiries(sig).enter().expect("entered");
            interrupt_when_it_sleeps(
                scope.remote(),
                common::gettid(),
                &[Remote::interrupt, Remote::interrupt, Remote::interrupt_once],
            );
            for part in 1..=3 {
                let end = measured(part, || sys::read(&reader, &mut [0; 1]));
                assert!(end.expect_err("it is interrupted").interrupted().is_some());
                assert!(scope.clear().is_some());
                COUNT.fetch_add(1, SeqCst);
            }
        }) else {
            return;
        };
        let handler = [Event::Signal(sig), MASK, GETTID, RETURN];
        let armed = [&[READ], &handler[..], &[MASK, SET_TIMER, MASK]].concat();
        let once = [&[READ], &handler[..], &[MASK, MASK]].concat();
        for (part, expected) in [(1, &armed), (2, &armed), (3, &once)] {
            assert_eq!(without_waits(&parts[&part]), *expected, "part {part}");
        }
    }
}

/// A foreign signal that breaks a read costs what its handler costs, and the call once more; before that it is asked whether the descriptor is a socket
/// with a time-out, which is to go on (protocol 12).
#[test]
fn a_foreign_signal_costs_the_call_once_more() {
    let _t = common::begin();
    let foreign = libc::SIGUSR2;
    let Some(parts) = trace(move || {
        COUNT.store(0, SeqCst);
        common::install(foreign, count as *const () as usize, 0, &[]);
        let (reader, writer) = common::pipe();
        let _scope = Scope::enter(libc::SIGUSR1).expect("entered");
        let (pid, tid) = (common::getpid(), common::gettid());
        common::unsignalled(move || {
            common::wait_until(|| sleeps_in_read(tid));
            unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, foreign) };
            common::wait_until(|| COUNT.load(SeqCst) == 1 && sleeps_in_read(tid));
            assert_eq!(unsafe { libc::write(writer.as_raw_fd(), [7u8].as_ptr().cast(), 1) }, 1);
        });
        assert_eq!(measured(1, || sys::read(&reader, &mut [0; 1])), Ok(1));
    }) else {
        return;
    };
    let option = Event::Call(libc::SYS_getsockopt);
    assert_eq!(parts[&1], [READ, Event::Signal(foreign), RETURN, option, READ]);
}

/// What the calls of the table need.
struct Things {
    zero: fs::File,
    null: fs::File,
    socket: UnixStream,
    peer: UnixStream,
}

/// A call of `sys`, and the one system call that it is to be.
type Case = (&'static str, libc::c_long, fn(&Things));

const CASES: &[Case] = &[
    ("read", libc::SYS_read, |t| assert_eq!(sys::read(&t.zero, &mut [1; 4]), Ok(4))),
    ("write", libc::SYS_write, |t| assert_eq!(sys::write(&t.null, &[1; 4]), Ok(4))),
    ("readv", libc::SYS_readv, |t| assert_eq!(sys::readv(&t.zero, &mut [IoSliceMut::new(&mut [1; 4])]), Ok(4))),
    ("writev", libc::SYS_writev, |t| assert_eq!(sys::writev(&t.null, &[IoSlice::new(&[1; 4])]), Ok(4))),
    ("send", libc::SYS_sendto, |t| assert_eq!(sys::send(&t.peer, &[1; 4], MsgFlags::empty()), Ok(4))),
    ("recv", libc::SYS_recvfrom, |t| assert_eq!(sys::recv(&t.socket, &mut [0; 4], MsgFlags::empty()), Ok(4))),
    ("poll", libc::SYS_ppoll, |t| {
        let mut one = [PollFd::new(t.zero.as_fd(), PollFlags::POLLIN)];
        assert_eq!(sys::poll(&mut one, PollTimeout::from(1000u16)), Ok(1));
    }),
    ("flock", libc::SYS_flock, |t| _ = sys::flock(&t.null, eintr::nix::fcntl::FlockArg::LockSharedNonblock)),
];

/// Each is the one call, without a scope, in one, and in two.
#[test]
fn calls_of_every_kind_are_one_system_call() {
    let _t = common::begin();
    let Some(parts) = trace(|| {
        let open = |path| fs::OpenOptions::new().read(true).write(true).open(path).expect("a device");
        let (socket, peer) = UnixStream::pair().expect("a pair");
        let things = Things { zero: open("/dev/zero"), null: open("/dev/null"), socket, peer };
        let all = |first: u64| {
            for (part, (_, _, call)) in (first..).zip(CASES) {
                measured(part, || call(&things));
            }
        };
        all(100);
        let _outer = Scope::enter(libc::SIGUSR1).expect("entered");
        all(200);
        let _inner = Scope::enter(libc::SIGRTMIN() + 1).expect("entered");
        all(300);
    }) else {
        return;
    };
    for first in [100, 200, 300] {
        for (part, (name, number, _)) in (first..).zip(CASES) {
            assert_eq!(parts[&part], [Event::Call(*number)], "{name}, {first}");
        }
    }
}

/// `retry` adds nothing to what it runs, again and again or once.
#[test]
fn retry_makes_no_call_of_its_own() {
    let _t = common::begin();
    let pid = std::process::id();
    let Some(parts): Option<Parts> = trace(|| {
        let _scope = Scope::enter(libc::SIGUSR1).expect("entered");
        let mut broken = 3;
        mark(1);
        let answer = eintr::retry(|| {
            unsafe { libc::syscall(libc::SYS_tgkill, pid, 1, 0) };
            broken -= 1;
            if broken == 0 { Ok(7) } else { Err(eintr::nix::errno::Errno::EINTR) }
        });
        mark(0);
        assert_eq!(answer, Ok(7));
    }) else {
        return;
    };
    assert_eq!(parts[&1], [TGKILL; 3]);
}
