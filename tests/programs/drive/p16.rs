//! Program 16: one word more around calls of nix and std; a deadline is ETIMEDOUT, an interrupt ECANCELED, and EINTR never comes out.
// Children are made, and locks taken, by bare calls.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

#[path = "../../common/mod.rs"]
mod common;
#[path = "../../common/counting.rs"]
mod counting;
#[path = "../../common/suite.rs"]
mod suite;

/// It compiles as it stands, to the byte.
#[rustfmt::skip]
#[allow(dead_code)] // nothing in here can be called from outside
#[path = "../p16_retry_nix.rs"]
mod as_it_stands;

/// The same, to be called; see build.rs.
#[allow(dead_code)] // `main` runs as an executable
mod program {
    include!(concat!(env!("OUT_DIR"), "/p16_retry_nix.rs"));

    pub(crate) fn reap_(pid: i32) -> nix::Result<WaitStatus> {
        reap(Pid::from_raw(pid))
    }
    pub(crate) fn lock_std_(file: &File) -> std::io::Result<()> {
        lock_std(file)
    }
}

use common::State;
use counting::Counting;
use eintr::{Interrupted, Reason, Scope};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use program::{lock_std_ as lock_std, reap_ as reap};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;
use suite::Storm;

const SIG: i32 = libc::SIGUSR1;

/// A child that runs `first` and then sleeps until it is killed.
struct Child(libc::pid_t);

impl Child {
    fn new(first: impl FnOnce()) -> Child {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let pid = common::fork(|| {
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            first();
            assert_eq!(unsafe { libc::write(writer.as_raw_fd(), c"!".as_ptr().cast(), 1) }, 1);
            unsafe { libc::pause() }
        });
        reader.read_exact(&mut [0]).expect("it is ready");
        Child(pid)
    }

    fn kill(&self) {
        assert_eq!(unsafe { libc::kill(self.0, libc::SIGTERM) }, 0);
    }

    fn has_ended(&self, status: nix::Result<WaitStatus>) {
        assert!(
            matches!(status, Ok(WaitStatus::Signaled(pid, Signal::SIGTERM, _)) if pid.as_raw() == self.0),
            "{status:?}"
        );
    }
}

/// Other people's signals at the calling thread, by a handler that does not let restart and by one that does, faster than any call comes to its end. Where
/// both are pending the lower number says what becomes of the call.
fn storms() -> [(Counting, Storm); 2] {
    [(libc::SIGHUP, 0), (libc::SIGUSR2, libc::SA_RESTART)].map(|(sig, flags)| {
        let behind = Counting::with_flags(sig, flags);
        (behind, Storm::on(common::gettid(), sig, Duration::from_micros(300)))
    })
}

/// Has another thread do this when the calling one sleeps in that call, or has come back from it.
fn when_blocked<T>(nr: libc::c_long, act: impl FnOnce() + Send, call: impl FnOnce() -> T) -> T {
    let (tid, ended) = (common::gettid(), AtomicBool::new(false));
    std::thread::scope(|threads| {
        threads.spawn(|| {
            common::set_mask(!0);
            common::wait_until(|| common::is_blocked_in(tid, nr) || ended.load(SeqCst));
            act();
        });
        let answer = call();
        ended.store(true, SeqCst);
        answer
    })
}

#[test]
fn a_child_that_sleeps_is_waited_for_until_the_deadline_or_an_interrupt_and_is_there_still() {
    let _t = common::begin();
    let before = State::now();
    for stormy in [false, true] {
        let child = Child::new(|| ());
        let storms = stormy.then(storms);
        let scope = Scope::enter(SIG).unwrap();
        let limit = scope.timeout(Duration::from_millis(20)).unwrap();
        assert_eq!(reap(child.0), Err(Errno::ETIMEDOUT));
        assert_eq!(reap(child.0), Err(Errno::ETIMEDOUT), "until the deadline is dropped");
        drop(limit);
        let remote = scope.remote();
        assert_eq!(when_blocked(libc::SYS_wait4, || _ = remote.interrupt(), || reap(child.0)), Err(Errno::ECANCELED));
        assert!(scope.clear().is_some());
        child.has_ended(when_blocked(libc::SYS_wait4, || child.kill(), || reap(child.0)));
        assert_eq!(reap(child.0), Err(Errno::ECHILD), "its status was told once");
        drop((storms, scope));
    }
    assert_eq!(State::now(), before);
}

// No interrupt, and signals all the time.
#[test]
fn under_a_storm_the_child_is_waited_for_to_its_end() {
    let _t = common::begin();
    let storms = storms();
    let scope = Scope::enter(SIG).unwrap();
    for _ in 0..common::rounds("EINTR_ROUNDS", 50) {
        let child = Child::new(|| ());
        let after_some = || {
            let so_far = counting::runs();
            common::wait_until(|| counting::runs() > so_far + 5);
            child.kill();
        };
        child.has_ended(when_blocked(libc::SYS_wait4, after_some, || reap(child.0)));
    }
    assert!(eintr::check().is_ok());
    drop((storms, scope));
}

/// A file, and another process that holds the lock on it.
fn locked_elsewhere() -> (File, Child) {
    let file = suite::memory_file();
    let holder = suite::again(&file);
    let child = Child::new(|| assert_eq!(unsafe { libc::flock(holder.as_raw_fd(), libc::LOCK_EX) }, 0));
    (file, child)
}

#[test]
fn a_lock_that_another_process_holds_is_waited_for_until_the_deadline_or_an_interrupt() {
    let _t = common::begin();
    let before = State::now();
    for stormy in [false, true] {
        let (file, holder) = locked_elsewhere();
        let storms = stormy.then(storms);
        let scope = Scope::enter(SIG).unwrap();
        let said = |error: &std::io::Error| (error.kind(), Interrupted::find(error).map(Interrupted::reason));
        let limit = scope.timeout(Duration::from_millis(20)).unwrap();
        assert_eq!(lock_std(&file).map_err(|e| said(&e)), Err((ErrorKind::TimedOut, Some(Reason::Deadline))));
        drop(limit);
        let remote = scope.remote();
        let ended = when_blocked(libc::SYS_flock, || _ = remote.interrupt(), || lock_std(&file));
        assert_eq!(ended.map_err(|e| said(&e)), Err((ErrorKind::Other, Some(Reason::Remote))));
        assert!(scope.clear().is_some());
        when_blocked(libc::SYS_flock, || holder.kill(), || lock_std(&file)).unwrap();
        assert!(suite::again(&file).try_lock().is_err(), "it is ours");
        drop((storms, scope));
        holder.has_ended(reap(holder.0));
    }
    assert_eq!(State::now(), before);
}

/// Process 1 is nobody's child here, so the executable has nothing to wait for; it says so by way of `?`.
#[test]
fn the_program_passes_on_what_is_no_interrupt() {
    let _t = common::begin();
    let mut command = common::program(env!("CARGO_BIN_EXE_p16_retry_nix"));
    let out = command.current_dir(std::env::temp_dir()).output().unwrap();
    assert_eq!((out.status.code(), &out.stderr[..]), (Some(1), &b"Error: ECHILD\n"[..]), "{out:?}");
}
