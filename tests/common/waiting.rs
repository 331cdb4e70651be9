//! A call that waits, looked at in three ways: under other people's signals alone, interrupted before it begins, interrupted while it sleeps.
//!
//! What must hold: (i) it finishes as if no signal had come; (ii), (iii) the interrupt, nothing taken, and the next call works.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block
)]

use super::common::{self, Action, getpid, gettid, wait_blocked_in, wait_until};
use eintr::{Error, Reason, Remote, Scope, ScopeOptions, sys};
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

/// A call with what it waits for.
pub trait Waiting: Sized + Send + Sync + 'static {
    type Value: Debug + Send + 'static;
    /// Of the system call that it sleeps in.
    const NUMBER: libc::c_long;

    fn new() -> Self;

    /// On the thread that will call, before anything else.
    fn prepare(&self) {}

    fn call(&self) -> sys::Result<Self::Value>;

    /// Makes the call end, or the next one that `caller` makes.
    fn ready(&self, caller: libc::pid_t);

    /// What the call answered, once [`Waiting::ready`] had been called: exactly that, once.
    fn check(&self, value: Self::Value);
}

static HANDLED: AtomicU64 = AtomicU64::new(0);

extern "C" fn count(_: libc::c_int) {
    HANDLED.fetch_add(1, Ordering::SeqCst);
}

/// Other people's handlers: one that asks for restarts, one that does not, and one of a real-time number.
#[derive(Debug)]
pub struct Foreign([(i32, Action); 3]);

impl Foreign {
    pub fn install() -> Foreign {
        let rt = libc::SIGRTMIN() + 9;
        let numbers = [(libc::SIGUSR2, libc::SA_RESTART), (libc::SIGHUP, 0), (rt, libc::SA_RESTART)];
        Foreign(numbers.map(|(sig, flags)| (sig, common::install(sig, count as *const () as usize, flags, &[]))))
    }

    /// Each of them once, at a thread that sleeps in `nr`; returns when it sleeps there again.
    pub fn strike(&self, tid: libc::pid_t, nr: libc::c_long) {
        for (sig, _) in self.0 {
            wait_blocked_in(tid, nr);
            let before = HANDLED.load(Ordering::SeqCst);
            assert_eq!(unsafe { libc::syscall(libc::SYS_tgkill, getpid(), tid, sig) }, 0);
            wait_until(|| HANDLED.load(Ordering::SeqCst) != before);
        }
        wait_blocked_in(tid, nr);
    }

    /// The first of them, once; returns when its handler has run.
    pub fn strike_once(&self, tid: libc::pid_t) {
        let before = HANDLED.load(Ordering::SeqCst);
        assert_eq!(unsafe { libc::syscall(libc::SYS_tgkill, getpid(), tid, self.0[0].0) }, 0);
        wait_until(|| HANDLED.load(Ordering::SeqCst) != before);
    }

    /// One after the other at a thread, whatever it does; `false` if it has gone.
    pub fn pester(&self, tid: libc::pid_t) -> bool {
        self.0.iter().all(|(sig, _)| unsafe { libc::syscall(libc::SYS_tgkill, getpid(), tid, *sig) } == 0)
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        for (sig, action) in self.0 {
            common::restore(sig, action);
        }
    }
}

/// A thread with a scope (or without one), and what is known of it.
#[derive(Debug)]
pub struct Caller<T> {
    pub tid: libc::pid_t,
    pub remote: Option<Remote>,
    pub thread: JoinHandle<T>,
}

impl<T: Send + 'static> Caller<T> {
    pub fn start(sig: Option<i32>, body: impl FnOnce(Option<&Scope>) -> T + Send + 'static) -> Caller<T> {
        Caller::with(sig.map(ScopeOptions::new), body)
    }

    pub fn with(options: Option<ScopeOptions>, body: impl FnOnce(Option<&Scope>) -> T + Send + 'static) -> Caller<T> {
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let scope = options.map(|options| options.enter().unwrap());
            tell.send((gettid(), scope.as_ref().map(Scope::remote))).unwrap();
            body(scope.as_ref())
        });
        let (tid, remote) = told.recv().unwrap();
        Caller { tid, remote, thread }
    }

    pub fn interrupt(&self) {
        self.remote.as_ref().expect("a scope").interrupt();
    }

    pub fn join(self) -> T {
        self.thread.join().expect("the caller did not panic")
    }
}

/// The numbers that scopes are entered on here: a standard one and a real-time one.
pub fn numbers() -> [i32; 2] {
    [libc::SIGUSR1, libc::SIGRTMIN() + 3]
}

/// All three.
pub fn in_three_ways<W: Waiting>() {
    undisturbed::<W>(None);
    for sig in numbers() {
        undisturbed::<W>(Some(sig));
        interrupted_before::<W>(sig);
        interrupted_in_time::<W>(sig);
    }
}

/// Other people's signals alone: as if none had come.
pub fn undisturbed<W: Waiting>(sig: Option<i32>) {
    let (case, foreign) = (Arc::new(W::new()), Foreign::install());
    let of_caller = case.clone();
    let caller = Caller::start(sig, move |_| {
        of_caller.prepare();
        of_caller.call()
    });
    for _ in 0..3 {
        foreign.strike(caller.tid, W::NUMBER);
    }
    case.ready(caller.tid);
    case.check(caller.join().expect("it finishes as if no signal had come"));
}

/// The interrupt is there already, and so is what the call waits for: that is not taken.
pub fn interrupted_before<W: Waiting>(sig: i32) {
    let case = W::new();
    case.prepare();
    let scope = Scope::enter(sig).unwrap();
    case.ready(gettid());
    scope.remote().interrupt();
    for _ in 0..2 {
        unsafe { *libc::__errno_location() = 77 };
        assert_remote(case.call());
        assert_eq!(unsafe { *libc::__errno_location() }, 77, "errno is not written");
    }
    assert!(scope.clear().is_some());
    case.check(case.call().expect("what was ready is still there"));
}

/// The interrupt comes while it sleeps; the next call gets what comes then.
pub fn interrupted_in_time<W: Waiting>(sig: i32) {
    let case = Arc::new(W::new());
    let (tell, told) = mpsc::channel();
    let of_caller = case.clone();
    let caller = Caller::start(Some(sig), move |scope| {
        of_caller.prepare();
        assert_remote(of_caller.call());
        assert!(scope.unwrap().clear().is_some());
        tell.send(()).unwrap();
        of_caller.call()
    });
    wait_blocked_in(caller.tid, W::NUMBER);
    caller.interrupt();
    told.recv().expect("it was interrupted");
    wait_blocked_in(caller.tid, W::NUMBER);
    case.ready(caller.tid);
    case.check(caller.join().expect("nothing was lost"));
}

#[track_caller]
pub fn assert_remote<T: Debug>(answer: sys::Result<T>) {
    match answer {
        Err(Error::Interrupted(i)) => assert_eq!(i.reason(), Reason::Remote),
        other => panic!("not interrupted: {other:?}"),
    }
}

#[track_caller]
pub fn assert_errno<T: Debug>(answer: sys::Result<T>, errno: nix::errno::Errno) {
    match answer {
        Err(Error::Os(e)) => assert_eq!(e, errno),
        other => panic!("not {errno}: {other:?}"),
    }
}
