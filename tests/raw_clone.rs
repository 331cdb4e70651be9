//! A bare clone(2), which runs no pthread_atfork handler (protocol 11): the child is noticed at the first use that sees another pid.
// Tests clone, make bare system calls and install actions.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;

use common::Action;
use eintr::{Delivery, Remote, Scope, Status};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

const SIG: i32 = libc::SIGUSR1;
const OTHER: i32 = libc::SIGUSR2;

/// What the kernel says about signals, asked without memory: nobody made malloc's locks fit for this kind of child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plain {
    actions: [Action; 65],
    mask: u64,
    pending: u64,
}

impl Plain {
    fn now() -> Plain {
        let mut actions = [Action::default(); 65];
        for (sig, a) in actions.iter_mut().enumerate().filter(|(s, _)| ![0, 9, 19].contains(s)) {
            *a = common::action(sig as i32);
        }
        let mut pending = 0u64;
        unsafe { libc::syscall(libc::SYS_rt_sigpending, &mut pending, 8usize) };
        Plain { actions, mask: common::mask(), pending }
    }
}

/// A child by the bare call. It ends with the line on which a claim failed, or 0; SIGALRM ends it after 30 s.
fn raw_child(claims: impl FnOnce() -> Result<(), u32>) -> libc::pid_t {
    // x86_64 and aarch64 differ in the order of the last arguments, which are all null.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0usize, 0usize, 0usize, 0usize) } as libc::pid_t;
    assert!(pid >= 0, "clone");
    if pid == 0 {
        // One that hangs with every signal blocked must not outlive the test.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        unsafe { libc::alarm(30) };
        let line = claims().err().unwrap_or(0);
        if line != 0 {
            let digits = [b'0' + (line / 100 % 10) as u8, b'0' + (line / 10 % 10) as u8, b'0' + (line % 10) as u8];
            for text in [&b"raw child: the claim on line "[..], &digits, b" does not hold\n"] {
                unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
            }
        }
        unsafe { libc::_exit(i32::from(line != 0)) };
    }
    pid
}

macro_rules! demand {
    ($claim:expr) => {
        if !$claim {
            return Err(line!());
        }
    };
}

fn reap_well(pid: libc::pid_t) {
    assert_eq!(common::reap_in_time(pid), 0, "the child's raw status; it says above what was wrong");
}

fn a_scope_works_here(sig: i32, before: &Plain) -> Result<(), u32> {
    let Ok(scope) = Scope::enter(sig) else { return Err(line!()) };
    demand!(scope.interrupted().is_none() && eintr::check().is_ok());
    let remote = scope.remote();
    demand!(remote.interrupt() == Delivery::Sent);
    demand!(scope.interrupted().is_some() && eintr::check().is_err());
    demand!(scope.clear().is_some() && eintr::check().is_ok());
    demand!(remote.interrupt() != Delivery::Gone);
    drop(scope);
    demand!(remote.interrupt() == Delivery::Gone);
    demand!(Plain::now() == *before);
    Ok(())
}

/// A thread that interrupts all the time and allocates nothing while it does.
fn storm(remotes: Vec<Remote>) -> (Arc<AtomicBool>, std::thread::JoinHandle<u64>) {
    let stop = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicU64::new(0));
    let (stopped, count) = (stop.clone(), sent.clone());
    let thread = std::thread::spawn(move || {
        while !stopped.load(SeqCst) {
            for r in &remotes {
                // Two kinds of request by turns: one that repeats the last is answered outside the gate.
                for answer in [r.interrupt_once(), r.interrupt()] {
                    count.fetch_add(u64::from(answer == Delivery::Sent), SeqCst);
                }
            }
        }
        count.load(SeqCst)
    });
    common::wait_until(|| sent.load(SeqCst) > 0);
    (stop, thread)
}

fn clones() -> u64 {
    common::rounds("EINTR_FORKS", 500)
}

// As with fork, a sender stands inside the gate when the picture is taken; and here the first of our calls in the child has to see that it is one,
// whichever call that is.
#[test]
fn the_first_use_in_a_raw_child_sees_that_it_is_one_beside_a_sender() {
    if common::skipped_if_emulated(
        "a child of a raw clone notices at its first use",
        "MADV_WIPEONFORK is accepted and ignored",
    ) {
        return;
    }
    let _t = common::begin_with(Duration::from_secs(300));
    let before = Plain::now();
    let mut scope = Some(Scope::enter(SIG).expect("enter"));
    let mut nested = Some(Scope::enter(OTHER).expect("enter"));
    let remote = scope.as_ref().map(Scope::remote).expect("entered");
    let (stop, sender) = storm(vec![remote.clone()]);
    for n in 0..clones() {
        reap_well(raw_child(|| {
            // The first use, each kind in turn.
            match n % 8 {
                0 => demand!(remote.interrupt() == Delivery::Gone),
                1 => demand!(remote.wait(Duration::from_secs(3600)) == Status::Closed),
                2 => {
                    let _ = eintr::check();
                }
                3 => demand!(scope.as_ref().map(Scope::clear).is_some()),
                4 => {
                    let Some(own) = scope.as_ref().map(Scope::remote) else { return Err(line!()) };
                    demand!(own.interrupt() != Delivery::Gone);
                    demand!(scope.as_ref().is_some_and(|s| s.interrupted().is_some()));
                }
                5 => drop(nested.take()),
                6 => drop(Scope::enter(SIG).map_err(|_| line!())?),
                _ => {}
            }
            if let Some(s) = scope.as_ref() {
                s.clear();
            }
            demand!(remote.interrupt() == Delivery::Gone && remote.interrupt_once() == Delivery::Gone);
            demand!(remote.wait(Duration::from_secs(3600)) == Status::Closed && remote.is_closed());
            demand!(scope.as_ref().is_some_and(|s| s.interrupted().is_none()) && eintr::check().is_ok());
            drop((scope.take(), nested.take()));
            demand!(Plain::now() == before);
            a_scope_works_here(SIG, &before)?;
            a_scope_works_here(OTHER, &before)
        }));
    }
    drop((scope.take(), nested.take()));
    stop.store(true, SeqCst);
    println!("{} clones beside {} signals", clones(), sender.join().expect("the sender ends"));
    assert_eq!(Plain::now(), before);
}

// Nobody in the child holds a scope, so nothing of ours runs there by itself; a scope of its own, on any number, is the first use that can mend it.
#[test]
fn a_raw_child_of_an_unscoped_thread_has_the_true_state_after_its_first_scope() {
    if common::skipped_if_emulated(
        "the first scope in a child of a raw clone",
        "MADV_WIPEONFORK is accepted and ignored",
    ) {
        return;
    }
    let _t = common::begin_with(Duration::from_secs(300));
    let before = Plain::now();
    let (tell, told) = std::sync::mpsc::channel();
    let (finish, finished) = std::sync::mpsc::channel::<()>();
    let scoped = std::thread::spawn(move || {
        let scope = Scope::enter(SIG).expect("enter");
        tell.send(scope.remote()).expect("the test waits");
        // Interrupts do not end it: std's channels wait on.
        let _ = finished.recv();
        drop(scope);
    });
    let remote = told.recv().expect("entered");
    let (stop, sender) = storm(vec![remote.clone()]);
    for n in 0..clones() {
        reap_well(raw_child(|| {
            if n % 2 == 0 {
                demand!(remote.interrupt() == Delivery::Gone && remote.wait(Duration::ZERO) == Status::Closed);
            }
            a_scope_works_here(if n % 4 < 2 { SIG } else { OTHER }, &before)?;
            a_scope_works_here(SIG, &before)
        }));
    }
    drop(finish);
    scoped.join().expect("the scoped thread ends");
    stop.store(true, SeqCst);
    sender.join().expect("the sender ends");
    assert_eq!(Plain::now(), before);
}

#[test]
fn a_pending_interrupt_stays_pending_in_a_raw_child() {
    let _t = common::begin();
    let before = Plain::now();
    let mut scope = Some(Scope::enter(SIG).expect("enter"));
    let mut other = Some(Scope::enter(OTHER).expect("enter"));
    scope.as_ref().map(|s| s.remote().interrupt());
    for n in 0..4 {
        reap_well(raw_child(|| {
            demand!(n % 2 == 0 || eintr::check().is_err());
            demand!(scope.as_ref().is_some_and(|s| s.interrupted().is_some()));
            demand!(other.as_ref().is_some_and(|s| s.interrupted().is_none()));
            demand!(eintr::check().is_err());
            demand!(scope.as_ref().and_then(Scope::clear).is_some() && eintr::check().is_ok());
            drop((scope.take(), other.take()));
            demand!(Plain::now() == before);
            Ok(())
        }));
    }
    drop((scope, other));
    assert_eq!(Plain::now(), before);
}

static COUNTED: AtomicU64 = AtomicU64::new(0);
extern "C" fn count(_: i32) {
    COUNTED.fetch_add(1, SeqCst);
}

// Our handler stands in the child before any use of ours: it finds a record whose tid is the parent's, so none, and does what would have been done.
#[test]
fn a_foreign_signal_before_the_first_use_in_a_raw_child_does_what_it_did_before() {
    let _t = common::begin();
    let counting = common::install(OTHER, count as *const () as usize, libc::SA_RESTART, &[]);
    let scopes = [SIG, OTHER].map(|s| Scope::enter(s).expect("enter"));
    for unscoped in [false, true] {
        let clone = || {
            let status = common::reap_in_time(raw_child(|| {
                unsafe { libc::kill(common::getpid(), SIG) };
                Err(line!())
            }));
            assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == SIG, "{status:#x}");
            reap_well(raw_child(|| {
                COUNTED.store(0, SeqCst);
                unsafe { libc::kill(common::getpid(), OTHER) };
                demand!(COUNTED.load(SeqCst) == 1);
                Ok(())
            }));
        };
        if unscoped { std::thread::spawn(clone).join().expect("it ends") } else { clone() }
    }
    drop(scopes);
    common::restore(OTHER, counting);
}
