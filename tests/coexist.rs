//! A daemon that takes its signals with sigwait or signalfd gets every one of them while scopes on the same number come and go in its other threads,
//! and while one stays.
// Tests fork, make descriptors and send signals by bare calls.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/witness.rs"]
mod witness;

use eintr::{Delivery, Remote, Scope};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use witness::{Way, a_read_is_ended, well};

/// How the daemon's thread takes its signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Daemon {
    /// Waits in sigwaitinfo(2): while it does, the kernel may pick it.
    Sigwait,
    /// Waits in read(2) of a signalfd: the number stays blocked, so the kernel never picks it.
    Signalfd,
}

/// The value that tells the daemon's thread to end; every other one is written down.
const END: u64 = u64::MAX >> 1;

/// Starts the daemon's thread, which has the number blocked like its creator. It counts in `received` what it gets.
fn start(daemon: Daemon, sig: i32, received: &'static AtomicU64) -> JoinHandle<Vec<u64>> {
    std::thread::spawn(move || {
        let fd = signalfd(sig);
        let mut values = Vec::new();
        loop {
            let value = match daemon {
                Daemon::Sigwait => witness::wait_for(sig).value,
                Daemon::Signalfd => read(&fd),
            };
            if value == END {
                return values;
            }
            values.push(value);
            received.fetch_add(1, SeqCst);
        }
    })
}

fn signalfd(sig: i32) -> OwnedFd {
    let mask = common::bit(sig);
    let fd = unsafe { libc::syscall(libc::SYS_signalfd4, -1, &mask, 8usize, libc::SFD_CLOEXEC) };
    assert!(fd >= 0, "signalfd: {}", std::io::Error::last_os_error());
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

fn read(signalfd: &OwnedFd) -> u64 {
    let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::signalfd_siginfo>();
    loop {
        let n = unsafe { libc::read(signalfd.as_raw_fd(), (&raw mut info).cast(), size) };
        if n == size as isize {
            return info.ssi_ptr;
        }
        assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EINTR), "read of a signalfd");
    }
}

/// Enters and leaves until it is told to stop; interrupts itself at times, and is interrupted by others.
fn come_and_go(sig: i32, stop: &AtomicBool, remotes: &mpsc::Sender<Remote>) {
    let mask = common::mask();
    let mut rounds = 0u64;
    while !stop.load(SeqCst) {
        let scope = Scope::enter(sig).expect("enter");
        rounds += 1;
        if rounds.is_multiple_of(4) {
            let _ = remotes.send(scope.remote());
        }
        let nested = rounds.is_multiple_of(3).then(|| Scope::enter(sig).expect("enter"));
        for _ in 0..rounds % 20 {
            std::thread::yield_now();
            if rounds.is_multiple_of(5) {
                scope.remote().interrupt();
                assert!(eintr::check().is_err());
                scope.clear();
            }
        }
        drop(scope);
        drop(nested);
        assert_eq!(common::mask(), mask);
    }
}

// [a daemon's sigwait thread got 1,000 of 1,000 without, 0 with a live scope] The kernel prefers a thread that has the number open, and the scopes are such
// threads: what they get is the daemon's. Real-time: every value, once. Standard: one at a time, each arrives. Over the default action, which
// would kill.
fn gets_every_signal(daemon: Daemon, sig: i32) {
    let signals = common::rounds("EINTR_DAEMON_SIGNALS", 1500);
    let shared = witness::shared();
    let [ready, received, all_sent, ..] = &shared.count;
    let child = witness::spawn_child(|| {
        common::block(sig);
        let before = common::State::now();
        let (remotes, scopes) = mpsc::channel::<Remote>();
        let interrupter = common::unsignalled(move || {
            while let Ok(remote) = scopes.recv() {
                while remote.interrupt() != Delivery::Gone {}
            }
        });
        let stop = AtomicBool::new(false);
        let values = std::thread::scope(|threads| {
            let scoped: Vec<_> = (0..2)
                .map(|_| {
                    let remotes = remotes.clone();
                    let stop = &stop;
                    threads.spawn(move || come_and_go(sig, stop, &remotes))
                })
                .collect();
            let waiter = start(daemon, sig, received);
            ready.store(1, SeqCst);
            common::wait_until(|| all_sent.load(SeqCst) == 1);
            stop.store(true, SeqCst);
            scoped.into_iter().for_each(|t| t.join().expect("it ended well"));
            // Whatever was held is given back by now, and queued before this.
            assert_eq!(witness::queue(common::getpid(), sig, END as usize), 0);
            waiter.join().expect("it ended well")
        });
        drop(remotes);
        interrupter.join().expect("it ended well");
        let mut sorted = values.clone();
        sorted.sort_unstable();
        if witness::is_standard(sig) {
            assert_eq!(values.len() as u64, signals);
        } else {
            assert_eq!(sorted, (0..signals).collect::<Vec<_>>());
        }
        assert_eq!(common::State::now(), before);
    });
    common::wait_until(|| ready.load(SeqCst) == 1);
    for n in 0..signals {
        if witness::is_standard(sig) {
            assert_eq!(unsafe { libc::kill(child, sig) }, 0);
            wait_unless_dead(child, || received.load(SeqCst) > n);
        } else {
            wait_unless_dead(child, || witness::queue(child, sig, n as usize) == 0);
        }
    }
    all_sent.store(1, SeqCst);
    well(common::reap(child));
}

/// Waits until `done`, or the child has died, which is told by the test that reaps it.
fn wait_unless_dead(child: libc::pid_t, mut done: impl FnMut() -> bool) {
    common::wait_until(|| {
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        unsafe { libc::waitid(libc::P_PID, child as u32, &mut info, flags) };
        done() || unsafe { info.si_pid() } == child
    });
}

#[test]
fn a_sigwait_thread_gets_every_real_time_signal_while_scopes_come_and_go() {
    let _t = common::begin();
    gets_every_signal(Daemon::Sigwait, libc::SIGRTMIN() + 3);
}

#[test]
fn a_sigwait_thread_gets_every_standard_signal_while_scopes_come_and_go() {
    let _t = common::begin();
    gets_every_signal(Daemon::Sigwait, libc::SIGHUP);
}

#[test]
fn a_signalfd_gets_every_real_time_signal_while_scopes_come_and_go() {
    let _t = common::begin();
    gets_every_signal(Daemon::Signalfd, libc::SIGRTMIN() + 3);
}

#[test]
fn a_signalfd_gets_every_standard_signal_while_scopes_come_and_go() {
    let _t = common::begin();
    gets_every_signal(Daemon::Signalfd, libc::SIGHUP);
}

// One scope that stays: the daemon does not have to wait for its end. How soon somebody else takes a signal that was posted back is the scheduler's
// affair, so the claim is that it can happen time after time to what came to the scoped thread, also when the signals look all the same (kill from
// one process), not that it always does. What nobody took in time is there when the scope ends.
fn goes_on_beside_a_scope_that_stays(daemon: Daemon, sig: i32, alike: bool) {
    const IN_A_ROW: u64 = 3;
    well(witness::child(|| {
        static RECEIVED: AtomicU64 = AtomicU64::new(0);
        static BROKEN_WAITS: AtomicU64 = AtomicU64::new(0);
        common::block(sig);
        let before = common::State::now();
        let (empty, writer) = common::pipe();
        let (tell, told) = mpsc::channel();
        // Made before the daemon's thread, so that the kernel, which looks in the order of making, finds this one first.
        let scoped = std::thread::spawn(move || {
            let scope = Scope::enter(sig).expect("enter");
            tell.send(common::gettid()).expect("the test waits");
            // Not in a read: the default restarts it, and the scope leaves that as it is.
            while common::plain_wait(&empty) == Err(libc::EINTR) {
                BROKEN_WAITS.fetch_add(1, SeqCst);
            }
            assert_eq!(common::plain_read(&empty), Ok(1));
            assert!(scope.interrupted().is_none());
            a_read_is_ended(&scope);
            scope.leave().expect("the action was put back");
            assert_ne!(common::mask() & common::bit(sig), 0);
        });
        let tid = told.recv().expect("entered");
        let waiter = start(daemon, sig, &RECEIVED);
        let (mut sent, mut in_a_row) = (0u64, 0);
        while in_a_row < IN_A_ROW {
            common::wait_blocked_in(tid, libc::SYS_ppoll);
            let (received, broken) = (RECEIVED.load(SeqCst), BROKEN_WAITS.load(SeqCst));
            let arrived = || RECEIVED.load(SeqCst) > received;
            let came_by_the_scope = || BROKEN_WAITS.load(SeqCst) > broken;
            if alike {
                Way::Kill.send(sig, 0);
            } else {
                assert_eq!(witness::queue(common::getpid(), sig, sent as usize), 0);
            }
            sent += 1;
            common::wait_until(|| arrived() || came_by_the_scope());
            // The scoped thread may be done with it, and the daemon have taken it and not said so yet.
            let patience = Instant::now() + Duration::from_millis(20);
            common::wait_until(|| arrived() || Instant::now() > patience);
            common::wait_blocked_in(tid, libc::SYS_ppoll);
            if came_by_the_scope() || daemon == Daemon::Sigwait {
                in_a_row = if arrived() { in_a_row + 1 } else { 0 };
            }
        }
        assert!(BROKEN_WAITS.load(SeqCst) > 0, "the scoped thread never got one, this proves nothing");
        assert_eq!(unsafe { libc::write(writer.as_raw_fd(), c"x".as_ptr().cast(), 1) }, 1);
        scoped.join().expect("it ended well");
        if witness::is_standard(sig) {
            // What was given back is one signal at most, which must not merge with the last word.
            common::wait_until(|| common::status_bits(common::gettid(), "ShdPnd:") & common::bit(sig) == 0);
        }
        assert_eq!(witness::queue(common::getpid(), sig, END as usize), 0);
        let mut values = waiter.join().expect("it ended well");
        if !witness::is_standard(sig) {
            values.sort_unstable();
            let expected = if alike { vec![0; sent as usize] } else { (0..sent).collect() };
            assert_eq!(values, expected);
        }
        println!("{} of {sent} arrived; the scoped thread got {}", values.len(), BROKEN_WAITS.load(SeqCst));
        assert_eq!(common::State::now(), before);
    }));
}

#[test]
fn a_sigwait_thread_gets_signals_beside_a_scope_that_stays() {
    let _t = common::begin();
    for sig in [libc::SIGHUP, libc::SIGRTMIN() + 3] {
        for alike in [false, true] {
            goes_on_beside_a_scope_that_stays(Daemon::Sigwait, sig, alike);
        }
    }
}

#[test]
fn a_signalfd_gets_signals_beside_a_scope_that_stays() {
    let _t = common::begin();
    for sig in [libc::SIGHUP, libc::SIGRTMIN() + 3] {
        for alike in [false, true] {
            goes_on_beside_a_scope_that_stays(Daemon::Signalfd, sig, alike);
        }
    }
}
