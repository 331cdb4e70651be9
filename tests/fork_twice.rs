//! A forked child is put right once, whoever notices first that it is one: nothing of the crate's own runs on unseen there.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)] // as in tests/common

mod common;

use common::{begin, fork, reap, rounds};
use eintr::Scope;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// In a child of its own: interrupts itself and forks; the grandchild drops the scope at once and goes on, over the default action, for longer than
/// the timer's first pause there. Its raw status.
fn interrupts_forks_and_drops(sig: i32, enter: impl FnOnce() -> Scope) -> i32 {
    let child = fork(|| {
        let scope = enter();
        scope.remote().interrupt();
        let grandchild = fork(|| {
            drop(scope);
            std::thread::sleep(std::time::Duration::from_millis(30));
            3
        });
        let status = reap(grandchild);
        if libc::WIFSIGNALED(status) { 100 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) }
    });
    let status = reap(child);
    assert!(libc::WIFEXITED(status), "{status:#x}");
    assert_ne!(libc::WEXITSTATUS(status), 100 + sig, "killed by one of ours, after the drop");
    libc::WEXITSTATUS(status)
}

extern "C" fn uses_the_crate() {
    drop(Scope::enter(libc::SIGUSR2));
}

#[test]
fn a_fork_handler_that_comes_before_the_crates_and_uses_it_does_no_harm() {
    let _t = begin();
    assert_eq!(unsafe { libc::pthread_atfork(None, None, Some(uses_the_crate)) }, 0);
    for _ in 0..rounds("EINTR_ROUNDS", 100) {
        for sig in [libc::SIGRTMIN() + 4, libc::SIGUSR1] {
            assert_eq!(interrupts_forks_and_drops(sig, || Scope::enter(sig).unwrap()), 3);
        }
    }
}

#[test]
fn two_first_scopes_at_once_do_no_harm_to_a_child() {
    static READY: AtomicUsize = AtomicUsize::new(0);
    let _t = begin();
    let sig = libc::SIGRTMIN() + 4;
    let meet = move || {
        READY.fetch_add(1, SeqCst);
        while READY.load(SeqCst) < 2 {
            std::hint::spin_loop();
        }
        Scope::enter(sig).unwrap()
    };
    for _ in 0..rounds("EINTR_ROUNDS", 200) {
        let at_once = || {
            let other = std::thread::spawn(move || drop(meet()));
            let scope = meet();
            other.join().unwrap();
            scope
        };
        assert_eq!(interrupts_forks_and_drops(sig, at_once), 3);
    }
}

static GO: AtomicUsize = AtomicUsize::new(0);

/// Above a call that was interrupted: forks and execs, as a crash reporter may.
extern "C" fn forks_and_execs(_: libc::c_int) {
    GO.store(1, SeqCst);
    while GO.load(SeqCst) < 2 {
        std::hint::spin_loop();
    }
    let child = unsafe { libc::fork() };
    if child == 0 {
        let args = [
            c"grep".as_ptr(),
            c"-qE".as_ptr(),
            c"^SigPnd:.0*$".as_ptr(),
            c"/proc/self/status".as_ptr(),
            std::ptr::null(),
        ];
        unsafe { libc::execvp(args[0], args.as_ptr()) };
        unsafe { libc::_exit(9) };
    }
    GO.store(if reap(child) == 0 { 3 } else { 4 }, SeqCst);
}

// The signal that is to come again when the handler has returned is queued in the parent; a child that only execs gets none.
#[test]
fn a_handler_that_forks_and_execs_above_a_call_hands_nothing_on() {
    let _t = begin();
    if common::emulated() {
        println!("SKIPPED: a program that is run from a handler: the emulator does not start programs of the host");
        return;
    }
    let sig = libc::SIGUSR1;
    let handler = forks_and_execs as *const () as usize;
    let before = common::install(libc::SIGUSR2, handler, libc::SA_RESTART, &[]);
    for once in [true, false] {
        GO.store(0, SeqCst);
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let scope = Scope::enter(sig).unwrap();
            let (silent, _writer) = common::pipe();
            tell.send((common::gettid(), scope.remote())).unwrap();
            eintr::sys::read(&silent, &mut [0; 8]).unwrap_err().interrupted().unwrap();
        });
        let (tid, remote) = told.recv().unwrap();
        common::wait_blocked_in(tid, libc::SYS_read);
        assert_eq!(unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, libc::SIGUSR2) }, 0);
        common::wait_until(|| GO.load(SeqCst) == 1);
        if once {
            remote.interrupt_once()
        } else {
            remote.interrupt()
        };
        common::wait_until(|| common::status_bits(tid, "SigPnd:") & common::bit(sig) != 0);
        GO.store(2, SeqCst);
        thread.join().unwrap();
        assert_eq!(GO.load(SeqCst), 3, "the new program has a signal pending");
    }
    common::restore(libc::SIGUSR2, before);
}
