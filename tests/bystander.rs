//! Threads without a scope, blocked in plain calls, that take signals of a scope's number while scopes live on other threads: what becomes of their calls
//! is what would become of them without the crate. Behind an action that restarts calls nobody ever sees EINTR; behind one that does not everybody does.
// Tests install handlers and make and signal calls by bare system calls.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

#[path = "common/blocking.rs"]
mod blocking;
mod common;
#[path = "common/nest.rs"]
mod nest;
#[path = "common/witness.rs"]
mod witness;

use blocking::{Blocking, Returned};
use common::State;
use eintr::ScopeOptions;
use nest::{Answer, LEFT, Look, Subject};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::{self, Receiver};

/// A thread without a scope, and the call that it makes over and over until it is told otherwise.
struct Bystander {
    tid: libc::pid_t,
    look: Look,
    nr: libc::c_long,
    name: &'static str,
    returned: Receiver<Returned>,
    release: Box<dyn FnOnce() + Send>,
    thread: std::thread::JoinHandle<()>,
}

impl Bystander {
    fn new(Blocking { name, nr, mut call, release, .. }: Blocking) -> Bystander {
        let ((tell, told), (answer, returned)) = (mpsc::channel(), mpsc::channel());
        let thread = std::thread::spawn(move || {
            tell.send(common::gettid()).expect("the test waits");
            while {
                let r = call();
                answer.send(r).expect("the test waits");
                r.is_err()
            } {}
        });
        let tid = told.recv().expect("the thread lives");
        Bystander { tid, look: Look::at(tid), nr, name, returned, release, thread }
    }

    fn wait_asleep(&self) {
        let asleep = || self.look.sleeps_in().is_some_and(|(nr, _)| common::look_alike(nr, self.nr));
        common::wait_until(|| asleep() && self.look.is_at_rest());
    }

    /// One foreign signal while it sleeps in its call, by one of two ways; comes back when the thread sleeps in that call again.
    fn takes(&self, sig: i32, way: usize, handled: bool) {
        self.wait_asleep();
        let (ran, slept) = (LEFT.load(SeqCst), self.look.sleeps());
        match way % 2 {
            0 => witness::to_thread(self.tid, sig),
            _ => queue_to_thread(self.tid, sig),
        }
        if handled {
            common::wait_until(|| LEFT.load(SeqCst) > ran);
        }
        // Behind an ignored number only our handler runs, if there is one; without it the kernel drops the signal and the thread sleeps on.
        if self.is_caught(sig) {
            common::wait_until(|| self.look.sleeps() > slept);
        }
        self.wait_asleep();
    }

    fn is_caught(&self, sig: i32) -> bool {
        common::action(sig).handler > libc::SIG_IGN
    }

    /// Lets its call end well.
    fn end(self) {
        self.wait_asleep();
        (self.release)();
        let last = self.returned.iter().last().expect("it has returned");
        assert!(last.is_ok(), "{}: {last:?} in the end", self.name);
        self.thread.join().expect("it ends well");
    }
}

/// rt_tgsigqueueinfo(2), as sigqueue(3) does it, for one thread.
fn queue_to_thread(tid: libc::pid_t, sig: i32) {
    let info = witness::Info { signo: sig, code: libc::SI_QUEUE, pid: common::getpid(), ..witness::Info::default() };
    let r = unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, common::getpid(), tid, sig, &info) };
    assert_eq!(r, 0, "rt_tgsigqueueinfo: {}", std::io::Error::last_os_error());
}

/// What stands behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behind {
    Handler(i32),
    Ignored,
    Default,
}

impl Behind {
    fn install(self, sig: i32) -> common::Action {
        match self {
            Behind::Handler(flags) => common::install(sig, nest::counts as *const () as usize, flags, &[]),
            Behind::Ignored => common::install(sig, libc::SIG_IGN, 0, &[]),
            Behind::Default => common::install(sig, libc::SIG_DFL, 0, &[]),
        }
    }
}

const SIGNALS: usize = 12;

/// All bystanders at once take signals of one number; how many EINTRs each saw. `scoped`: two scopes live on another thread meanwhile, and are
/// interrupted now and again.
fn eintrs(sig: i32, behind: Behind, scoped: bool) -> Vec<(&'static str, usize)> {
    let before = State::now();
    let action = behind.install(sig);
    let scopes = scoped.then(|| [(); 2].map(|()| Subject::new(ScopeOptions::new(sig).allow_ignored())));
    let bystanders: Vec<_> = blocking::all(&blocking::RESTARTABLE).map(Bystander::new).collect();
    for n in 0..SIGNALS {
        for bystander in &bystanders {
            bystander.takes(sig, n, matches!(behind, Behind::Handler(_)));
        }
        for subject in scopes.iter().flatten() {
            subject.begin(nest::sys_read);
            subject.interrupt_once();
            assert_eq!(subject.end(), Answer::Interrupted);
        }
    }
    let mut seen = Vec::new();
    for bystander in bystanders {
        let broken: Vec<_> = bystander.returned.try_iter().collect();
        assert!(broken.iter().all(|r| *r == Err(libc::EINTR)), "{}: {broken:?}", bystander.name);
        seen.push((bystander.name, broken.len()));
        bystander.end();
    }
    scopes.into_iter().flatten().for_each(Subject::leave);
    common::restore(sig, action);
    assert_eq!(State::now(), before);
    seen
}

fn numbers() -> [i32; 2] {
    [libc::SIGUSR1, libc::SIGRTMIN() + 3]
}

// Protocol 10: SA_RESTART is mirrored from the action behind.
#[test]
fn behind_a_handler_that_restarts_calls_a_bystander_never_sees_eintr() {
    let _t = common::begin();
    for (sig, flags) in numbers().into_iter().flat_map(|sig| [(sig, 0), (sig, libc::SA_ONSTACK)]) {
        for scoped in [false, true] {
            let seen = eintrs(sig, Behind::Handler(libc::SA_RESTART | flags), scoped);
            assert!(seen.iter().all(|(_, eintrs)| *eintrs == 0), "scoped: {scoped}, {sig}: {seen:?}");
        }
    }
}

#[test]
fn behind_a_handler_that_does_not_a_bystander_always_sees_eintr() {
    let _t = common::begin();
    for sig in numbers() {
        for scoped in [false, true] {
            let seen = eintrs(sig, Behind::Handler(0), scoped);
            assert!(seen.iter().all(|(_, eintrs)| *eintrs == SIGNALS), "scoped: {scoped}, {sig}: {seen:?}");
        }
    }
}

// The kernel drops an ignored signal where it is sent; with a handler in its place it reaches the thread, whose calls restart.
#[test]
fn behind_an_ignored_signal_a_bystander_never_sees_eintr() {
    let _t = common::begin();
    for (sig, behind) in [
        (libc::SIGUSR1, Behind::Ignored),
        (libc::SIGRTMIN() + 3, Behind::Ignored),
        (libc::SIGURG, Behind::Default),
        (libc::SIGWINCH, Behind::Ignored),
    ] {
        for scoped in [false, true] {
            let seen = eintrs(sig, behind, scoped);
            assert!(seen.iter().all(|(_, eintrs)| *eintrs == 0), "scoped: {scoped}, {sig}, {behind:?}: {seen:?}");
        }
    }
}

// A default that ends the process does, by the true signal, whichever call it meets.
#[test]
fn behind_the_default_a_signal_for_a_bystander_kills_as_it_would_have() {
    let _t = common::begin();
    for sig in [libc::SIGUSR1, libc::SIGTERM, libc::SIGRTMIN() + 3] {
        for make in blocking::RESTARTABLE {
            let status = witness::child(|| {
                let Some(blocked) = make() else {
                    unsafe { libc::raise(sig) };
                    return;
                };
                let subject = Subject::new(sig);
                subject.begin(nest::sys_read);
                subject.interrupt_once();
                assert_eq!(subject.end(), Answer::Interrupted);
                let bystander = Bystander::new(blocked);
                bystander.wait_asleep();
                witness::to_thread(bystander.tid, sig);
                loop {
                    unsafe { libc::pause() };
                }
            });
            witness::killed_by(sig, status);
        }
    }
}
