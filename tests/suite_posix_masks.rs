//! Open POSIX's, the Linux Test Project's and libc-test's tests of masks, actions and of sending to a thread, ported.
//!
//! | Suite: case | here |
//! | --- | --- |
//! | Open POSIX `pthread_kill/1-1`, `1-2`, LTP `tgkill01` | `each_interrupt_reaches_the_thread_...` |
//! | Open POSIX `pthread_kill/8-1` (never EINTR) | `a_sender_in_a_storm_...` |
//! | Open POSIX `pthread_kill/6-1`, LTP `tgkill03`: a thread that has ended (ESRCH) | `a_thread_that_the_kernel_alone_saw_end_...`; in other ways: `leak.rs`, `remote.rs` |
//! | Open POSIX `pthread_sigmask/4-1` | `signals_that_the_thread_blocks_in_a_scope_...` |
//! | Open POSIX `pthread_sigmask/8-1`, `8-2`, `8-3`, libc-test `sigprocmask-internal` | `a_mask_is_the_same_to_the_last_bit_...` |
//! | Open POSIX `pthread_sigmask/18-1` | `pthread_sigmask_never_fails_...` |
//! | Open POSIX `sigaction/16-*` (SA_RESTART, for each signal) | `for_each_signal_...` |
//! | Open POSIX `sigaction/17-*` (no SA_RESTART: EINTR) | `without_sa_restart_...` |
//!
//! Left out of tgkill's table: EINVAL and EPERM, which the sending side cannot meet: number, process and thread are its own. A full queue (EAGAIN) is
//! in `coexist_kernel.rs`, a signal number 0 (`pthread_kill/2-1`) and numbers that are none (`7-1`) are refused at enter (`forbidden.rs`).
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)] // as in tests/common

mod common;
#[path = "common/counting.rs"]
mod counting;
#[path = "common/suite.rs"]
mod suite;

use common::{State, bit};
use counting::{Counting, kinds, runs};
use eintr::{Delivery, Scope, sys};
use nix::errno::Errno;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::Duration;
use suite::{Storm, interrupted, pipe_files, send, sleep, worker};

#[test]
fn each_interrupt_reaches_the_thread_that_it_is_for_and_no_other() {
    let _t = common::begin();
    const THREADS: usize = 8;
    for sig in kinds() {
        let (plain, to_plain) = common::pipe();
        let (says, tid) = mpsc::channel();
        let bystander = std::thread::spawn(move || {
            says.send(common::gettid()).unwrap();
            common::plain_read(&plain)
        });
        common::wait_blocked_in(tid.recv().unwrap(), libc::SYS_read);
        let mut workers: Vec<_> = (0..THREADS)
            .map(|_| {
                let (from, to) = pipe_files();
                let reads = move |scope: &Scope, tell: &mpsc::Sender<()>| {
                    let mut times = 0;
                    while sys::read(&from, &mut [0; 8]).is_err() {
                        assert!(scope.clear().is_some());
                        times += 1;
                        tell.send(()).unwrap();
                    }
                    times
                };
                (worker(sig, reads).asleep(&sleep(libc::SYS_read)), to)
            })
            .collect();
        // The first is interrupted once, the second twice, and so on; all of them in turn.
        for round in 0..THREADS {
            for n in (round..THREADS).rev() {
                let (worker, to) = workers.remove(n);
                let _ = worker.remote.interrupt();
                workers.insert(n, (worker.has_told().asleep(&sleep(libc::SYS_read)), to));
            }
        }
        for (n, (worker, mut to)) in workers.into_iter().enumerate() {
            to.write_all(b"x").unwrap();
            assert_eq!(worker.join(), n + 1);
        }
        nix::unistd::write(&to_plain, b"x").unwrap();
        assert_eq!(bystander.join().unwrap(), Ok(1));
    }
}

/// Signals come to the sender itself, in a scope and not; its request is made all the same, and its errno is its own.
#[test]
fn a_sender_in_a_storm_is_never_told_of_it() {
    let _t = common::begin();
    for sig in kinds() {
        let behind = Counting::with_flags(libc::SIGALRM, 0);
        let receiver = worker(sig, |_, tell| {
            tell.send(()).unwrap();
            let (from, _to) = pipe_files();
            while eintr::check().is_ok() {
                interrupted(sys::read(&from, &mut [0; 8]));
            }
        });
        let receiver = receiver.has_told();
        let idle = Scope::enter(sig).unwrap();
        let own_scope = [false, true].map(|own| own.then(|| Scope::enter(sig).unwrap()));
        drop(idle);
        for scope in own_scope {
            let storm = Storm::on(common::gettid(), libc::SIGALRM, Duration::from_micros(100));
            let so_far = behind.runs();
            while behind.runs() < so_far + 20 {
                Errno::set_raw(4000);
                let delivery = receiver.remote.interrupt();
                assert_eq!(Errno::last_raw(), 4000, "errno is untouched");
                assert!(matches!(delivery, Delivery::Sent | Delivery::Held | Delivery::Gone), "{delivery:?}");
            }
            drop((storm, scope));
        }
        receiver.join();
    }
}

/// By the bare system call, without anybody's clean-up: its scope is open to the last, and the kernel knows no such thread.
#[test]
fn a_thread_that_the_kernel_alone_saw_end_is_gone() {
    let _t = common::begin();
    common::in_own_process("a_thread_that_the_kernel_alone_saw_end_is_gone", || {
        let (says, hears) = mpsc::channel();
        drop(std::thread::spawn(move || {
            let scope = Scope::enter(libc::SIGUSR1).unwrap();
            says.send((common::gettid(), scope.remote())).unwrap();
            drop(says);
            unsafe { libc::syscall(libc::SYS_exit, 0) };
        }));
        let (tid, remote) = hears.recv().unwrap();
        common::wait_until(|| !std::path::Path::new(&format!("/proc/self/task/{tid}")).exists());
        assert_eq!([(); 3].map(|()| remote.interrupt()), [Delivery::Gone; 3]);
        assert_eq!(remote.interrupt_once(), Delivery::Gone);
    });
}

/// Two more numbers are blocked inside, and raised: they wait, their handlers do not run, and interrupts go on as ever.
#[test]
fn signals_that_the_thread_blocks_in_a_scope_wait_and_interrupts_do_not() {
    let _t = common::begin();
    let others = [libc::SIGALRM, libc::SIGVTALRM];
    let _handlers = others.map(|sig| Counting::with_flags(sig, 0));
    for sig in kinds() {
        let outer = common::mask();
        let scope = Scope::enter(sig).unwrap();
        let both = others.map(bit).iter().sum::<u64>();
        common::set_mask(outer | both);
        let so_far = runs();
        others.into_iter().for_each(|sig| assert_eq!(unsafe { libc::raise(sig) }, 0));
        let (from, _to) = pipe_files();
        for _ in 0..3 {
            let _ = scope.remote().interrupt();
            interrupted(sys::read(&from, &mut [0; 8]));
            assert!(scope.clear().is_some());
        }
        assert_eq!(common::status_bits(common::gettid(), "SigPnd:") & both, both);
        assert_eq!((runs(), common::mask()), (so_far, outer | both));
        drop(scope);
        assert_eq!((runs(), common::mask()), (so_far, outer | both));
        common::set_mask(outer);
        assert_eq!(runs(), so_far + 2);
    }
}

/// All 64 bits, those of libc's own numbers too: entering opens the scope's number and nothing else, calls and interrupts change nothing, and leaving
/// brings it all back. Another thread's mask is its own.
#[test]
fn a_mask_is_the_same_to_the_last_bit_inside_and_after() {
    let _t = common::begin();
    let cannot_be_blocked = bit(libc::SIGKILL) | bit(libc::SIGSTOP);
    let (says, tid) = mpsc::channel();
    let (over, ends) = mpsc::channel::<()>();
    let bystander = common::unsignalled(move || {
        says.send(common::gettid()).unwrap();
        ends.recv().unwrap_err();
    });
    let bystanders = tid.recv().unwrap();
    let theirs = common::status_bits(bystanders, "SigBlk:");
    let (from, mut to) = pipe_files();
    for sig in kinds() {
        for mask in [0, !0, 0x5555_5555_5555_5555, 0xaaaa_aaaa_aaaa_aaaa, bit(32) | bit(33), bit(sig), bit(64) | bit(1)]
        {
            let blocked = mask & !cannot_be_blocked & there_are();
            let outer = common::set_mask(mask);
            let before = State::now();
            let scope = Scope::enter(sig).unwrap();
            let is_as_it_should_be = || assert_eq!(common::mask(), blocked & !bit(sig));
            is_as_it_should_be();
            to.write_all(b"x").unwrap();
            assert_eq!(sys::read(&from, &mut [0; 8]), Ok(1));
            is_as_it_should_be();
            let _ = scope.remote().interrupt();
            interrupted(sys::read(&from, &mut [0; 8]));
            is_as_it_should_be();
            assert!(scope.clear().is_some());
            is_as_it_should_be();
            assert_eq!(common::status_bits(bystanders, "SigBlk:"), theirs);
            drop(scope);
            assert_eq!((State::now(), common::mask()), (before, blocked));
            common::set_mask(outer);
        }
    }
    drop(over);
    bystander.join().unwrap();
}

/// While interrupts and other signals come: what it is told to do it does, and it never says EINTR.
#[test]
fn pthread_sigmask_never_fails_while_interrupts_come() {
    let _t = common::begin();
    let signals = [libc::SIGBUS, libc::SIGABRT, libc::SIGCHLD, libc::SIGHUP, libc::SIGTERM];
    for (sig, flags) in kinds().into_iter().zip([libc::SA_RESTART, 0]) {
        let behind = Counting::with_flags(sig, flags);
        let done = std::sync::Arc::new(AtomicBool::new(false));
        let stop = done.clone();
        let masks = worker(sig, move |scope, tell| {
            let outer = common::mask();
            let _storm = Storm::on(common::gettid(), sig, Duration::from_micros(200));
            tell.send(()).unwrap();
            let (mut expected, mut round) = (outer, 0);
            while !stop.load(SeqCst) {
                let other = signals[round % signals.len()];
                let how = [libc::SIG_BLOCK, libc::SIG_UNBLOCK, libc::SIG_SETMASK][round / signals.len() % 3];
                expected = match how {
                    libc::SIG_BLOCK => expected | bit(other),
                    libc::SIG_UNBLOCK => expected & !bit(other),
                    _ => bit(other),
                };
                unsafe {
                    let mut set: libc::sigset_t = std::mem::zeroed();
                    libc::sigaddset(&mut set, other);
                    assert_eq!(libc::pthread_sigmask(how, &set, std::ptr::null_mut()), 0);
                }
                assert_eq!(common::mask(), expected);
                if round % 16 == 0 {
                    scope.clear();
                }
                round += 1;
            }
            common::set_mask(outer);
        });
        let masks = masks.has_told();
        let so_far = behind.runs();
        while behind.runs() < so_far + 50 {
            let _ = masks.remote.interrupt();
        }
        done.store(true, SeqCst);
        masks.join();
    }
}

/// The numbers that there are. The emulator lacks the last two.
fn there_are() -> u64 {
    if common::skipped_if_emulated("signals 63 and 64", "qemu-user has two fewer") { !0 >> 2 } else { !0 }
}

/// Every number that a scope may take.
fn takeable() -> impl Iterator<Item = i32> {
    let fault_or_stop = [
        libc::SIGILL,
        libc::SIGTRAP,
        libc::SIGABRT,
        libc::SIGBUS,
        libc::SIGFPE,
        libc::SIGKILL,
        libc::SIGSEGV,
        libc::SIGSTOP,
        libc::SIGTSTP,
        libc::SIGTTIN,
        libc::SIGTTOU,
        libc::SIGSYS,
    ];
    let real_time = libc::SIGRTMIN()..=libc::SIGRTMAX();
    let there_are = there_are();
    let all = (1..32).filter(move |sig| !fault_or_stop.contains(sig)).chain(real_time);
    all.filter(move |sig| there_are & bit(*sig) != 0)
}

/// A thread's plain read: its tid, where to write, and what it says.
fn plain_reader() -> (libc::pid_t, std::fs::File, std::thread::JoinHandle<Result<usize, i32>>) {
    let (from, to) = pipe_files();
    let (says, tid) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        says.send(common::gettid()).unwrap();
        common::plain_read(&from)
    });
    let tid = tid.recv().unwrap();
    common::wait_blocked_in(tid, libc::SYS_read);
    (tid, to, thread)
}

/// Sends one that its handler takes, and waits until the thread is back in its read.
fn hit(tid: libc::pid_t, sig: i32) {
    let so_far = runs();
    send(tid, sig);
    common::wait_until(|| runs() > so_far);
    common::wait_blocked_in(tid, libc::SYS_read);
}

/// Plain reads, of a thread without a scope and of one with, while the scope lives: both are restarted, as before it; and the second is ended by an
/// interrupt for all that.
#[test]
fn for_each_signal_with_sa_restart_plain_calls_are_restarted_but_for_an_interrupt() {
    let _t = common::begin();
    for sig in takeable() {
        let before = State::now();
        let behind = Counting::with_flags(sig, libc::SA_RESTART);
        let (bystander, mut to, read) = plain_reader();
        let (from, _to) = pipe_files();
        let scoped = worker(sig, move |_, _| (common::plain_read(&from), eintr::check().is_err()));
        let scoped = scoped.asleep(&sleep(libc::SYS_read));
        for _ in 0..3 {
            hit(bystander, sig);
            hit(scoped.tid, sig);
        }
        let _ = scoped.remote.interrupt();
        assert_eq!(scoped.join(), (Err(libc::EINTR), true), "signal {sig}");
        hit(bystander, sig);
        to.write_all(b"x").unwrap();
        assert_eq!(read.join().unwrap(), Ok(1), "signal {sig}");
        assert_eq!(behind.runs(), 7, "signal {sig}: the interrupt was not passed on");
        drop(behind);
        assert_eq!(State::now(), before, "signal {sig}");
    }
}

/// As without a scope: read says EINTR if the handler has no SA_RESTART, and select says so whatever it has (signal(7)).
#[test]
fn without_sa_restart_plain_calls_are_told_and_select_always_is() {
    let _t = common::begin();
    for sig in kinds() {
        for flags in [0, libc::SA_RESTART] {
            let behind = Counting::with_flags(sig, flags);
            let _scope = Scope::enter(sig).unwrap();
            let (says, tid) = mpsc::channel();
            let selects = std::thread::spawn(move || {
                says.send(common::gettid()).unwrap();
                let nothing = std::ptr::null_mut();
                let r = unsafe { libc::select(0, nothing, nothing, nothing, std::ptr::null_mut()) };
                (r, Errno::last())
            });
            let tid = tid.recv().unwrap();
            common::wait_blocked_in(tid, libc::SYS_pselect6);
            send(tid, sig);
            assert_eq!(selects.join().unwrap(), (-1, Errno::EINTR));
            assert_eq!(behind.runs(), 1);
            if flags == 0 {
                let (bystander, _to, read) = plain_reader();
                send(bystander, sig);
                assert_eq!(read.join().unwrap(), Err(libc::EINTR));
            }
        }
    }
}
