//! Open POSIX's tests of what a forked child has of its parent's signals, and libc-test's of raise against fork, ported.
//!
//! | Suite: case | here |
//! | --- | --- |
//! | Open POSIX `fork/12-1` (no pending signals) | `a_child_has_no_signal_queued_that_its_parent_has` |
//! | Open POSIX `fork/18-1` (no timers) | `the_timer_of_an_interrupt_is_its_parents_alone` |
//! | Open POSIX `fork/21-1` (one thread) | `nobody_interrupts_a_child_for_its_parent` |
//! | libc-test `raise-race` (raise, while a handler forks) | `raise_loses_nothing_while_a_handler_forks` |
//!
//! And, since signal(7) tells of it, a stop in a call: `a_process_that_was_stopped_goes_on_with_its_call`. Left out: nothing. What becomes of scopes
//! in a child is in `fork.rs`.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)] // as in tests/common

mod common;
#[path = "common/counting.rs"]
mod counting;
#[path = "common/suite.rs"]
mod suite;

use common::bit;
use counting::{Counting, kinds, runs};
use eintr::{Delivery, Error, Foreign, Resend, Scope, ScopeOptions, Status, sys};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollTimeout};
use nix::sys::time::TimeSpec;
use nix::time::ClockId;
use std::io::Write;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};
use suite::{pipe_files, send, worker};

/// The child's body; what it says is its exit status, 0 if all holds.
fn child(claims: impl FnOnce() -> Result<(), &'static str>) -> libc::pid_t {
    common::fork(|| match claims() {
        Ok(()) => 0,
        Err(what) => {
            let text = format!("in the child: {what}\n");
            unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
            1
        }
    })
}

fn holds(claim: bool, what: &'static str) -> Result<(), &'static str> {
    if claim { Ok(()) } else { Err(what) }
}

#[track_caller]
fn ends_well(pid: libc::pid_t) {
    assert_eq!(common::reap_in_time(pid), 0, "the child says what did not hold");
}

fn queued() -> u64 {
    common::status_bits(common::gettid(), "SigPnd:") | common::status_bits(common::gettid(), "ShdPnd:")
}

/// An interrupt of ours is queued, and two signals of others, all blocked: blocked they are in the child, queued they are not.
#[test]
fn a_child_has_no_signal_queued_that_its_parent_has() {
    let _t = common::begin();
    for sig in kinds() {
        let _behind = [libc::SIGUSR2, libc::SIGALRM].map(Counting::on);
        let scope = Scope::enter(ScopeOptions::new(sig).resend(Resend::Never)).unwrap();
        let outer = [sig, libc::SIGUSR2, libc::SIGALRM].map(common::block)[0];
        assert_eq!(scope.remote().interrupt(), Delivery::Sent);
        [libc::SIGUSR2, libc::SIGALRM].into_iter().for_each(|sig| send(common::gettid(), sig));
        let all = bit(sig) | bit(libc::SIGUSR2) | bit(libc::SIGALRM);
        assert_eq!(queued() & all, all);
        ends_well(child(|| {
            holds(queued() == 0, "nothing is queued")?;
            holds(common::mask() & all == all, "all three are blocked")
        }));
        assert_eq!(queued() & all, all, "the parent's are still there");
        common::set_mask(outer);
        drop(scope);
    }
}

/// An interrupt that nobody acknowledges is sent again and again to the parent's thread, by a timer. It is pending in the child, since that goes on
/// for a thread that was asked to stop; but the timer is not there. (The child makes one of its own, for as long as it has not acknowledged.)
#[test]
fn the_timer_of_an_interrupt_is_its_parents_alone() {
    let _t = common::begin();
    let comes = |sig: i32| {
        let (outer, start) = (common::block(sig), Instant::now());
        let is_queued = || queued() & bit(sig) != 0;
        while start.elapsed() < Duration::from_millis(250) && !is_queued() {}
        let comes = is_queued();
        common::set_mask(outer);
        comes
    };
    for sig in kinds() {
        let scope = Scope::enter(ScopeOptions::new(sig).resend(Resend::Never)).unwrap();
        let _ = scope.remote().interrupt();
        ends_well(child(|| {
            holds(scope.interrupted().is_some(), "it is pending here too")?;
            holds(!comes(sig), "nothing is sent here, if it was to be sent once")
        }));
        drop(scope);

        let scope = Scope::enter(sig).unwrap();
        let _ = scope.remote().interrupt();
        assert!(comes(sig), "it is sent again here");
        ends_well(child(|| {
            holds(scope.clear().is_some(), "it is pending here too, and can be cleared")?;
            holds(!comes(sig) && eintr::check().is_ok(), "and then nothing is sent here")
        }));
        assert!(comes(sig), "and here it is still sent");
        assert!(scope.clear().is_some());
    }
}

/// The parent's threads are not in the child. One of them interrupts on and on: the parent's thread alone, while the child reads in peace.
#[test]
fn nobody_interrupts_a_child_for_its_parent() {
    let _t = common::begin();
    for sig in kinds() {
        let (from, mut to) = pipe_files();
        let forks = worker(sig, move |scope, tell| {
            let pid = child(|| {
                holds(scope.interrupted().is_none(), "nothing was asked before the fork")?;
                holds(sys::read(&from, &mut [0; 8]) == Ok(5), "what the parent writes is read")?;
                holds(scope.interrupted().is_none(), "and nothing was asked here")
            });
            tell.send(()).unwrap();
            let mut times = 0;
            while times < 50 {
                let (nothing, _to) = pipe_files();
                suite::interrupted(sys::read(&nothing, &mut [0; 8]));
                assert!(scope.clear().is_some());
                times += 1;
            }
            pid
        });
        let forks = forks.has_told();
        let remote = forks.remote.clone();
        while !remote.is_closed() {
            let _ = remote.interrupt();
            let _: Status = remote.wait(Duration::from_millis(10));
        }
        let pid = forks.join();
        common::wait_process_blocked_in(pid, libc::SYS_read);
        to.write_all(b"hello").unwrap();
        ends_well(pid);
    }
}

type Wait = (&'static [libc::c_long], fn() -> sys::Result<()>);

/// Waits without an end. Some of them are gone on with by restart_syscall(2) after a stop, some say EINTR then (signal(7)).
fn waits() -> [Wait; 6] {
    const RESTART: libc::c_long = libc::SYS_restart_syscall;
    [
        (&[libc::SYS_ppoll, RESTART], || sys::ppoll(&mut [], Some(TimeSpec::new(3600, 0)), None).map(drop)),
        (&[libc::SYS_pselect6, RESTART], || sys::pselect(None, None, None, None, None, None).map(drop)),
        (&[libc::SYS_epoll_pwait, RESTART], || {
            let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
            sys::epoll_wait(&epoll, &mut [EpollEvent::empty()], EpollTimeout::NONE).map(drop)
        }),
        (&[libc::SYS_futex, RESTART], || {
            sys::futex_wait(&0.into(), 0, Some(Instant::now() + Duration::from_secs(3600))).map(drop)
        }),
        (&[libc::SYS_clock_nanosleep, RESTART], || {
            let clock = ClockId::CLOCK_MONOTONIC;
            sys::clock_nanosleep(clock, clock.now().unwrap() + TimeSpec::new(3600, 0))
        }),
        (&[libc::SYS_rt_sigtimedwait, RESTART], || {
            sys::sigtimedwait(&unsafe { std::mem::zeroed() }, Some(Duration::from_secs(3600))).map(drop)
        }),
    ]
}

/// No handler runs for it, but the kernel breaks or restarts the call all the same. It goes on, and an interrupt ends it.
#[test]
fn a_process_that_was_stopped_goes_on_with_its_call() {
    let _t = common::begin();
    if common::skipped_if_emulated("a stop in a call", "the emulator's own calls are broken by it") {
        return;
    }
    for sig in kinds() {
        for (numbers, wait) in waits() {
            let pid = child(|| {
                let scope = ScopeOptions::new(sig).foreign(Foreign::Interrupt).enter().map_err(|_| "a scope")?;
                let ended = wait();
                holds(matches!(ended, Err(Error::Interrupted(_))), "nothing but an interrupt ends it")?;
                holds(scope.interrupted().is_some(), "and that was asked for")
            });
            let line = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let is_waiting = || numbers.iter().any(|nr| line("syscall").starts_with(&format!("{nr} ")));
            for _ in 0..3 {
                common::wait_until(|| line("stat").contains(") S ") && is_waiting());
                assert_eq!(unsafe { libc::kill(pid, libc::SIGSTOP) }, 0);
                common::wait_until(|| line("stat").contains(") T "));
                assert_eq!(unsafe { libc::kill(pid, libc::SIGCONT) }, 0);
            }
            common::wait_until(|| line("stat").contains(") S ") && is_waiting());
            assert_eq!(unsafe { libc::kill(pid, sig) }, 0);
            ends_well(pid);
        }
    }
}

static PARENT: AtomicI32 = AtomicI32::new(0);
static FORKS: AtomicU32 = AtomicU32::new(0);

extern "C" fn fork_here(_: i32) {
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        unsafe { libc::alarm(30) };
    } else if pid > 0 {
        FORKS.fetch_add(1, SeqCst);
    }
}

/// raise(3) as musl has it. glibc's asks for its ids first, and a fork in between makes the child send to its parent.
fn raise(sig: i32) {
    let outer = common::set_mask(!0);
    send(common::gettid(), sig);
    common::set_mask(outer);
}

/// A thread raises its scope's own number, over a handler that counts, while another signal's handler forks on it wherever it stands: in its own
/// code, in our handler's caller, in the one that counts. Parent and children each count what they raised, to the last one.
#[test]
fn raise_loses_nothing_while_a_handler_forks() {
    const RAISED: u64 = 1000;
    let forks = common::rounds("EINTR_FORKS", 50) as u32;
    let _t = common::begin();
    common::in_own_process("raise_loses_nothing_while_a_handler_forks", || {
        for sig in kinds() {
            let behind = Counting::with_flags(sig, libc::SA_RESTART);
            let fork_signal = libc::SIGRTMIN() + 5;
            let was = common::install(fork_signal, fork_here as *const () as usize, libc::SA_RESTART, &[]);
            PARENT.store(common::getpid(), SeqCst);
            FORKS.store(0, SeqCst);
            let (nothing, _to) = pipe_files();
            let raises = worker(sig, move |scope, tell| {
                tell.send(()).unwrap();
                while FORKS.load(SeqCst) < forks && common::getpid() == PARENT.load(SeqCst) {
                    raise(sig);
                }
                let so_far = runs();
                (0..RAISED).for_each(|_| raise(sig));
                let all = runs() - so_far == RAISED && scope.interrupted().is_none();
                if common::getpid() != PARENT.load(SeqCst) {
                    // A scope is as good as any here.
                    let _ = scope.remote().interrupt();
                    let ended = sys::read(&nothing, &mut [0; 8]).is_err() && scope.clear().is_some();
                    unsafe { libc::_exit(i32::from(!all) | i32::from(!ended) << 1) };
                }
                all
            });
            let raises = raises.has_told();
            for n in 0..forks {
                send(raises.tid, fork_signal);
                common::wait_until(|| FORKS.load(SeqCst) > n);
            }
            assert!(raises.join(), "the parent has counted all");
            for _ in 0..forks {
                let mut status = 0;
                assert!(unsafe { libc::waitpid(-1, &mut status, 0) } > 0);
                assert_eq!(status, 0, "a child has counted all, and can be interrupted");
            }
            common::restore(fork_signal, was);
            drop(behind);
        }
    });
}
