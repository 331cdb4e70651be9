//! Our handler put back by its address alone, as signal(2) does: without SA_SIGINFO, without our mask. What is meant is "as before".
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)] // as in tests/common

mod common;

use common::{State, begin, gettid, in_own_process, wait_blocked_in};
use eintr::{Delivery, Scope, Status, sys};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::Duration;

static RUNS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn counts(_: libc::c_int) {
    RUNS.fetch_add(1, SeqCst);
}

/// What a C library does that takes a signal over for a while.
fn save_and_restore(sig: i32) {
    let ours = unsafe { libc::signal(sig, libc::SIG_IGN) };
    assert_ne!(unsafe { libc::signal(sig, ours) }, libc::SIG_ERR);
    assert_eq!(common::action(sig).flags & libc::SA_SIGINFO as u64, 0, "or this proves nothing");
}

fn restores_and_keeps_siginfo(sig: i32) {
    let ours = common::action(sig);
    common::install(sig, ours.handler, libc::SA_SIGINFO | libc::SA_RESTART, &[]);
}

#[test]
fn an_interrupt_ends_the_call_all_the_same() {
    let _t = begin();
    for sig in [libc::SIGUSR1, libc::SIGRTMIN() + 5] {
        for (restore, before_it_blocks) in
            [(save_and_restore as fn(i32), true), (save_and_restore, false), (restores_and_keeps_siginfo, true)]
        {
            for once in [false, true] {
                let before = State::now();
                let (tell, told) = mpsc::channel();
                let thread = std::thread::spawn(move || {
                    let scope = Scope::enter(sig).unwrap();
                    let (silent, _writer) = common::pipe();
                    if before_it_blocks {
                        restore(sig);
                    }
                    tell.send((scope.remote(), gettid())).unwrap();
                    assert!(sys::read(&silent, &mut [0; 8]).unwrap_err().interrupted().is_some());
                    scope.leave().expect("ours was there to be taken out");
                });
                let (remote, tid) = told.recv().unwrap();
                wait_blocked_in(tid, libc::SYS_read);
                if !before_it_blocks {
                    restore(sig);
                }
                assert_eq!(if once { remote.interrupt_once() } else { remote.interrupt() }, Delivery::Sent);
                assert_ne!(remote.wait(Duration::from_secs(30)), Status::StillRunning);
                thread.join().unwrap();
                assert_eq!(State::now(), before);
            }
        }
    }
}

#[test]
fn a_handler_behind_runs_for_each_foreign_signal() {
    let _t = begin();
    let sig = libc::SIGUSR2;
    let before = common::install(sig, counts as *const () as usize, libc::SA_RESTART, &[]);
    let scope = Scope::enter(sig).unwrap();
    scope.remote().interrupt_once(); // its siginfo is left on the stack
    assert!(eintr::check().is_err());
    scope.clear();
    for round in 1..=20 {
        save_and_restore(sig);
        assert_eq!(unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), gettid(), sig) }, 0);
        assert_eq!(RUNS.load(SeqCst), round);
    }
    drop(scope);
    common::restore(sig, before);
}

#[test]
#[cfg(target_arch = "x86_64")] // elsewhere the kernel passes nothing that tells its call from a dispatcher's
fn a_default_behind_is_done() {
    let _t = begin();
    in_own_process("a_default_behind_is_done", || {
        let child = common::fork(|| {
            let _scope = Scope::enter(libc::SIGTERM).unwrap();
            save_and_restore(libc::SIGTERM);
            unsafe { libc::kill(libc::getpid(), libc::SIGTERM) };
            common::getpid();
            7
        });
        let status = common::reap(child);
        assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGTERM, "{status:#x}");
    });
}
