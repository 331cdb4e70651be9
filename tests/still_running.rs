//! `Remote::wait` and `wait_closed` say what is, and no more: a thread that no interrupt gets through to is still running, for as long as that lasts, and
//! has acknowledged when it has looked and not before.
// Threads block signals, sleep, and start children by bare system calls, as applications do.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/counting.rs"]
mod counting;
#[path = "common/look.rs"]
mod look;

use counting::kinds;
use eintr::{Delivery, Remote, Scope, Status};
use look::Look;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A scoped thread that is busy with something, and looks when it is told to.
struct Busy {
    tid: libc::pid_t,
    remote: Remote,
    go: Sender<()>,
    thread: JoinHandle<()>,
}

impl Busy {
    /// `with` is done in the scope; it must leave the interrupt unacknowledged.
    fn start(sig: i32, with: impl FnOnce() + Send + 'static) -> Busy {
        let ((go, gone), (tell, told)) = (mpsc::channel(), mpsc::channel());
        let thread = std::thread::spawn(move || {
            let scope = Scope::enter(sig).unwrap();
            tell.send((common::gettid(), scope.remote())).unwrap();
            with();
            wait_for(&gone);
            assert!(eintr::check().is_err());
            wait_for(&gone);
        });
        let (tid, remote) = told.recv().expect("the thread enters");
        Busy { tid, remote, go, thread }
    }

    /// It is what it says for as long as it was asked to wait, and no shorter.
    fn is_running(&self, why: &str) {
        for time in [Duration::ZERO, Duration::from_nanos(1), Duration::from_millis(2), Duration::from_millis(10)] {
            let start = Instant::now();
            assert_eq!(self.remote.wait(time), Status::StillRunning, "{why}");
            assert!(!self.remote.wait_closed(time) && !self.remote.is_closed(), "{why}");
            assert!(start.elapsed() >= 2 * time, "{why}: it was waited for {:?}", start.elapsed());
        }
    }

    /// Looks when it is told to, and ends when it is told to.
    fn looks_and_ends(self) {
        self.is_running("it has not looked yet");
        self.go.send(()).unwrap();
        assert_eq!(self.remote.wait(Duration::MAX), Status::Acknowledged);
        assert!(!self.remote.wait_closed(Duration::from_millis(1)), "it has acknowledged, and not ended");
        assert_eq!(self.remote.wait(Duration::from_millis(1)), Status::Acknowledged);
        self.go.send(()).unwrap();
        assert!(self.remote.wait_closed(Duration::MAX));
        assert_eq!(self.remote.wait(Duration::MAX), Status::Closed);
        self.thread.join().expect("the thread ends well");
    }
}

/// Waits for the word, however often it is woken.
fn wait_for(word: &Receiver<()>) {
    word.recv().expect("the test goes on");
}

#[test]
fn who_has_the_number_blocked_is_running_until_it_opens_it_and_looks() {
    let _t = common::begin();
    for sig in kinds() {
        let (open, opened) = mpsc::channel();
        let busy = Busy::start(sig, move || {
            common::block(sig);
            wait_for(&opened);
            common::unblock(sig); // where the signal lands
        });
        common::wait_until(|| common::status_bits(busy.tid, "SigBlk:") & common::bit(sig) != 0);
        assert_eq!(busy.remote.interrupt(), Delivery::Sent);
        busy.is_running("the number is blocked");
        open.send(()).unwrap();
        common::wait_until(|| common::status_bits(busy.tid, "SigBlk:") & common::bit(sig) == 0);
        busy.looks_and_ends();
    }
}

#[test]
fn who_computes_is_running_until_it_looks() {
    let _t = common::begin();
    for sig in kinds() {
        let enough = Arc::new(AtomicBool::new(false));
        let of_thread = Arc::clone(&enough);
        let busy = Busy::start(sig, move || while !of_thread.load(SeqCst) {});
        assert_eq!(busy.remote.interrupt(), Delivery::Sent);
        busy.is_running("it computes");
        enough.store(true, SeqCst);
        busy.looks_and_ends();
    }
}

/// std sleeps on after EINTR, for as long as was asked for.
#[test]
fn who_sleeps_by_std_is_running_until_it_has_slept() {
    let _t = common::begin();
    for sig in kinds() {
        let enough = Arc::new(AtomicBool::new(false));
        let of_thread = Arc::clone(&enough);
        let busy = Busy::start(sig, move || {
            let (long, mut start) = (Duration::from_millis(100), Instant::now());
            while !of_thread.load(SeqCst) {
                std::thread::sleep(long);
                assert!(start.elapsed() >= long);
                start = Instant::now();
            }
        });
        let look = Look::at(busy.tid);
        let asleep = || look.sleeps_in().is_some_and(|(nr, _)| nr == libc::SYS_clock_nanosleep);
        common::wait_until(asleep);
        let slept = look.sleeps();
        assert_eq!(busy.remote.interrupt(), Delivery::Sent);
        common::wait_until(|| look.sleeps() >= slept + 3); // the signal and the resends have woken it
        busy.is_running("it sleeps");
        enough.store(true, SeqCst);
        busy.looks_and_ends();
    }
}

/// The parent of a child that shares its life (CLONE_VFORK) waits where no signal reaches it, until the child has ended.
fn bear_a_child_that_waits(word: &OwnedFd, keep: &OwnedFd) {
    let flags = (libc::CLONE_VFORK | libc::SIGCHLD) as libc::c_long;
    let child = unsafe { libc::syscall(libc::SYS_clone, flags, 0usize, 0usize, 0usize, 0usize) };
    if child == 0 {
        // Memory of its own, and no other thread: nothing but calls of the kernel.
        unsafe {
            libc::close(keep.as_raw_fd());
            libc::read(word.as_raw_fd(), [0u8].as_mut_ptr().cast(), 1);
            libc::_exit(0);
        }
    }
    assert!(child > 0, "clone: {}", std::io::Error::last_os_error());
    assert_eq!(common::reap(child as libc::pid_t), 0);
}

#[test]
fn who_sleeps_where_no_signal_reaches_it_is_running_until_it_comes_back_and_looks() {
    let _t = common::begin();
    if common::skipped_if_emulated("a thread in uninterruptible sleep", "vfork(2) is fork(2) there") {
        return;
    }
    for sig in kinds() {
        let (word, writer) = common::pipe();
        let writer = Arc::new(writer);
        let keep = Arc::clone(&writer);
        let busy = Busy::start(sig, move || bear_a_child_that_waits(&word, &keep));
        let state = || std::fs::read_to_string(format!("/proc/self/task/{}/stat", busy.tid)).unwrap_or_default();
        let is_deaf = || state().rsplit(')').next().is_some_and(|rest| rest.starts_with(" D"));
        common::wait_until(is_deaf);
        assert_eq!(busy.remote.interrupt(), Delivery::Sent);
        busy.is_running("it sleeps uninterruptibly");
        assert!(is_deaf(), "it was there all the time");
        assert_eq!(nix::unistd::write(&*writer, b"!"), Ok(1));
        busy.looks_and_ends();
    }
}
