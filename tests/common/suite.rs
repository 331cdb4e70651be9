//! What the ported suites share: a call that blocks, as a value, and the four ways in which each is tried. A test file takes it by
//! `#[path = "common/suite.rs"] mod suite;` beside `mod common;` and `#[path = "common/counting.rs"] mod counting;`.
//!
//! *Early*: the interrupt is pending before the call is made. *In time*: it comes while the call is blocked. *Together*: it
//! comes with what the call waits for. *Foreign*: other signals come while it is blocked, and no interrupt. After the first two the scope is
//! cleared and the call made again: it blocks, and what it gives when it is let go is what it would have given the first time. So nothing was done,
//! and nothing lost.
#![allow(
    dead_code,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused_macros,
    unused_imports,
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block
)]

use crate::common::{self, State};
use crate::counting::{Counting, kinds, runs};
use eintr::{Error, Reason, Remote, Scope, ScopeOptions};
use libc::{c_int, c_long, pid_t};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub type Answer = Result<usize, Error>;
pub type After = Box<dyn FnOnce()>;

/// A call that blocks until it is let go.
pub struct Case {
    /// The system calls that it sleeps in.
    pub sleeps_in: Vec<Sleep>,
    /// Makes the call, once. What it gives beside a number is looked at in here.
    pub call: Box<dyn FnMut() -> Answer + Send>,
    /// Lets the call that thread is blocked in come to its end; gives what is to be looked at, and put away, when it has.
    pub provide: Box<dyn FnOnce(pid_t) -> After>,
    /// What the call answers then.
    pub expected: usize,
}

/// A system call, and the first argument of the one that is meant where a thread may be in others of the number.
#[derive(Clone, Copy, Debug)]
pub struct Sleep {
    pub nr: c_long,
    pub first: Option<usize>,
}

pub fn sleep(nr: c_long) -> Vec<Sleep> {
    vec![Sleep { nr, first: None }]
}

impl Case {
    pub fn new(
        nr: c_long,
        expected: usize,
        call: impl FnMut() -> Answer + Send + 'static,
        provide: impl FnOnce(pid_t) -> After + 'static,
    ) -> Case {
        Case { sleeps_in: sleep(nr), call: Box::new(call), provide: Box::new(provide), expected }
    }
}

/// For `provide`: nothing to look at afterwards, but this must live until then.
pub fn keep<T: 'static>(value: T) -> After {
    Box::new(move || drop(value))
}

/// A thread in a scope.
pub struct Worker<T> {
    pub tid: pid_t,
    pub remote: Remote,
    /// What the thread tells by its sender.
    pub told: Receiver<()>,
    thread: JoinHandle<T>,
}

/// Starts a thread that enters a scope and works there.
pub fn worker<T: Send + 'static>(
    on: impl Into<ScopeOptions>,
    work: impl FnOnce(&Scope, &Sender<()>) -> T + Send + 'static,
) -> Worker<T> {
    let on = on.into();
    let (says, hears) = channel();
    let (tell, told) = channel();
    let thread = std::thread::spawn(move || {
        let scope = Scope::enter(on).unwrap();
        says.send((common::gettid(), scope.remote())).unwrap();
        work(&scope, &tell)
    });
    let (tid, remote) = hears.recv().expect("the thread enters");
    Worker { tid, remote, told, thread }
}

impl<T> Worker<T> {
    /// Waits until the thread sleeps in one of these; false if it has ended.
    #[must_use]
    pub fn is_asleep(&self, sleeps: &[Sleep]) -> bool {
        loop {
            if self.thread.is_finished() {
                return false;
            }
            if sleeps.iter().any(|sleep| sleeps_in(self.tid, *sleep)) {
                return true;
            }
            std::thread::yield_now();
        }
    }

    /// What the thread returned; its panic goes on here.
    pub fn join(self) -> T {
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Waits until the thread sleeps there.
    #[track_caller]
    pub fn asleep(self, sleeps: &[Sleep]) -> Worker<T> {
        if self.is_asleep(sleeps) {
            return self;
        }
        self.join();
        panic!("the thread ended without sleeping in {sleeps:?}");
    }

    /// Waits until the thread has told.
    #[track_caller]
    pub fn has_told(self) -> Worker<T> {
        if self.told.recv().is_ok() {
            return self;
        }
        self.join();
        panic!("the thread ended without a word");
    }
}

/// Whether the thread sleeps in that system call, as /proc tells. An emulator's arguments are its own.
fn sleeps_in(tid: pid_t, sleep: Sleep) -> bool {
    if !common::is_blocked_in(tid, sleep.nr) {
        return false;
    }
    let Some(wanted) = sleep.first.filter(|_| !common::emulated()) else { return true };
    let line = std::fs::read_to_string(format!("/proc/self/task/{tid}/syscall")).unwrap_or_default();
    let first = line.split_whitespace().nth(1).unwrap_or_default();
    usize::from_str_radix(first.trim_start_matches("0x"), 16) == Ok(wanted)
}

/// tgkill(2) to a thread of this process.
pub fn send(tid: pid_t, sig: c_int) {
    let r = unsafe { libc::syscall(libc::SYS_tgkill, common::getpid(), tid, sig) };
    assert_eq!(r, 0, "tgkill({tid}, {sig}): {}", std::io::Error::last_os_error());
}

/// A number that no other case of this process has.
pub fn unique() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, SeqCst)
}

/// A name in the directory for temporary files that nothing has.
pub fn fresh_path() -> PathBuf {
    std::env::temp_dir().join(format!("eintr-suite-{}-{}", common::getpid(), unique()))
}

pub fn memory_file() -> File {
    unsafe { File::from_raw_fd(libc::memfd_create(c"suite".as_ptr(), libc::MFD_CLOEXEC)) }
}

/// Another open file description of the same file.
pub fn again(file: &File) -> File {
    File::options().read(true).write(true).open(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap()
}

/// A pipe: where it is read, and where it is written.
pub fn pipe_files() -> (File, File) {
    let (from, to) = common::pipe();
    (from.into(), to.into())
}

/// A pipe of one page that takes not a byte more, and how many it holds: all of them are `-`.
pub fn full_pipe() -> (File, File, usize) {
    let (from, mut to) = pipe_files();
    let size = unsafe { libc::fcntl(to.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) };
    to.write_all(&vec![b'-'; usize::try_from(size).unwrap()]).unwrap();
    (from, to, size as usize)
}

/// How many bytes there are to be read: FIONREAD of ioctl(2).
pub fn readable(fd: &impl AsRawFd) -> usize {
    let mut n: c_int = 0;
    assert_eq!(unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &mut n) }, 0);
    n as usize
}

/// The call was ended by the remote, and says so.
#[track_caller]
pub fn interrupted<T: std::fmt::Debug>(answer: Result<T, Error>) {
    match answer {
        Err(Error::Interrupted(interrupt)) => assert_eq!(interrupt.reason(), Reason::Remote),
        other => panic!("not interrupted: {other:?}"),
    }
}

/// The interrupt is pending before the call.
pub fn early(make: impl Fn() -> Option<Case>) {
    let _t = common::begin();
    let before = State::now();
    for sig in kinds() {
        let Some(Case { sleeps_in, mut call, provide, expected }) = make() else { return };
        let worker = worker(sig, move |scope, tell| {
            let _ = scope.remote().interrupt();
            interrupted(call());
            interrupted(call()); // until it is cleared
            assert_eq!(scope.clear().map(|i| i.reason()), Some(Reason::Remote));
            tell.send(()).unwrap();
            call()
        });
        let worker = worker.has_told().asleep(&sleeps_in);
        let after = provide(worker.tid);
        assert_eq!(worker.join(), Ok(expected));
        after();
    }
    assert_eq!(State::now(), before);
}

/// The interrupt comes while the call is blocked.
pub fn in_time(make: impl Fn() -> Option<Case>) {
    let _t = common::begin();
    let before = State::now();
    for sig in kinds() {
        let Some(Case { sleeps_in, mut call, provide, expected }) = make() else { return };
        let worker = worker(sig, move |scope, tell| {
            interrupted(call());
            assert_eq!(scope.clear().map(|i| i.reason()), Some(Reason::Remote));
            tell.send(()).unwrap();
            call()
        });
        let worker = worker.asleep(&sleeps_in);
        let _ = worker.remote.interrupt();
        let worker = worker.has_told().asleep(&sleeps_in);
        let after = provide(worker.tid);
        assert_eq!(worker.join(), Ok(expected));
        after();
    }
    assert_eq!(State::now(), before);
}

/// The interrupt comes at the same time as what the call waits for: the call answers, or it was ended and the next one answers; and no other way.
/// Ten times, or for a second.
pub fn together(make: impl Fn() -> Option<Case>) {
    let _t = common::begin();
    let before = State::now();
    for sig in kinds() {
        let (start, mut ended) = (Instant::now(), 0);
        for round in 0..10 {
            let Some(Case { sleeps_in, mut call, provide, expected }) = make() else { return };
            let worker = worker(sig, move |scope, _| {
                let mut ended = 0;
                loop {
                    match call() {
                        Err(Error::Interrupted(_)) => ended += 1,
                        answer => return (answer, ended),
                    }
                    assert!(scope.clear().is_some());
                }
            });
            let worker = worker.asleep(&sleeps_in);
            let (remote, tid) = (worker.remote.clone(), worker.tid);
            let (ready, go) = channel();
            let interrupts = std::thread::spawn(move || {
                ready.send(()).unwrap();
                (0..round * 200).for_each(|_| std::hint::spin_loop());
                let _ = remote.interrupt();
            });
            go.recv().unwrap();
            let after = provide(tid);
            let (answer, times) = worker.join();
            assert_eq!(answer, Ok(expected));
            ended += times;
            interrupts.join().unwrap();
            after();
            if start.elapsed() > Duration::from_secs(1) {
                break;
            }
        }
        println!("signal {sig}: ended {ended}");
    }
    assert_eq!(State::now(), before);
}

/// Signals that nobody of ours has sent, each while the call is blocked: of the scope's number, with an SA_RESTART handler behind and with one that
/// has not; of another number, with either handler.
pub fn foreign(make: impl Fn() -> Option<Case>) {
    let _t = common::begin();
    let before = State::now();
    for (sig, flags) in kinds().into_iter().zip([libc::SA_RESTART, 0]) {
        let Some(Case { sleeps_in, mut call, provide, expected }) = make() else { return };
        let behind = [(sig, flags), (libc::SIGVTALRM, libc::SA_RESTART), (libc::SIGUSR2, 0)];
        let handlers = behind.map(|(sig, flags)| Counting::with_flags(sig, flags));
        let worker = worker(sig, move |scope, _| {
            let answer = call();
            assert_eq!((eintr::check(), scope.interrupted()), (Ok(()), None));
            answer
        });
        let mut worker = worker.asleep(&sleeps_in);
        for _ in 0..4 {
            for (sig, _) in behind {
                let so_far = runs();
                send(worker.tid, sig);
                common::wait_until(|| runs() > so_far);
                worker = worker.asleep(&sleeps_in);
            }
        }
        let after = provide(worker.tid);
        assert_eq!(worker.join(), Ok(expected));
        after();
        drop(handlers);
    }
    assert_eq!(State::now(), before);
}

/// The four ways for each call of a module of cases.
macro_rules! four_ways {
    ($cases:ident: $($call:ident)*) => { $(
        mod $call {
            use crate::{$cases as cases, suite};
            #[test]
            fn an_interrupt_before_it_ends_it_and_nothing_is_done() {
                suite::early(cases::$call);
            }
            #[test]
            fn an_interrupt_while_it_is_blocked_ends_it_and_nothing_is_lost() {
                suite::in_time(cases::$call);
            }
            #[test]
            fn an_interrupt_that_comes_with_what_it_waits_for_loses_nothing() {
                suite::together(cases::$call);
            }
            #[test]
            fn signals_from_elsewhere_alone_do_not_end_it() {
                suite::foreign(cases::$call);
            }
        }
    )* };
}
pub(crate) use four_ways;

/// A call that never sleeps here, interrupted before it is made, and then made; and made again and again while other signals come.
/// `undone` looks whether it has done nothing, each time that it was ended.
#[track_caller]
pub fn at_once(mut call: impl FnMut() -> Answer, mut undone: impl FnMut(), expected: usize) {
    let before = State::now();
    for (sig, flags) in kinds().into_iter().zip([libc::SA_RESTART, 0]) {
        let behind = Counting::with_flags(sig, flags);
        let scope = Scope::enter(sig).unwrap();
        for _ in 0..2 {
            let _ = scope.remote().interrupt();
            interrupted(call());
            undone();
        }
        assert!(scope.clear().is_some());
        let storm = Storm::on(common::gettid(), sig, Duration::from_micros(100));
        for _ in 0..50 {
            assert_eq!(call(), Ok(expected));
        }
        common::wait_until(|| behind.runs() > 2);
        assert_eq!(call(), Ok(expected));
        drop(storm);
        assert_eq!(eintr::check(), Ok(()));
        drop(scope);
    }
    assert_eq!(State::now(), before);
}

/// A timer of the kernel that sends a signal to one thread again and again, until it is dropped.
#[derive(Debug)]
pub struct Storm(libc::timer_t);

impl Storm {
    pub fn on(tid: pid_t, sig: c_int, period: Duration) -> Storm {
        let mut timer = std::ptr::null_mut();
        let time = libc::timespec { tv_sec: period.as_secs() as i64, tv_nsec: period.subsec_nanos().into() };
        let times = libc::itimerspec { it_interval: time, it_value: time };
        unsafe {
            let mut event: libc::sigevent = std::mem::zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = sig;
            event.sigev_notify_thread_id = tid;
            assert_eq!(libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer), 0, "timer_create");
            assert_eq!(libc::timer_settime(timer, 0, &times, std::ptr::null_mut()), 0, "timer_settime");
        }
        Storm(timer)
    }
}

/// What it has sent is delivered to the calling thread before this returns, if it was meant for it.
impl Drop for Storm {
    fn drop(&mut self) {
        assert_eq!(unsafe { libc::timer_delete(self.0) }, 0, "timer_delete");
    }
}
