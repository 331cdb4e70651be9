//! Exec (protocol 11): the new program starts with the mask from before the scopes and without a signal of ours; what other children inherit.
// Tests fork, exec and change masks and actions by bare calls.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;

use common::State;
use eintr::{Delivery, Remote, Scope, ScopeOptions};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

const SIG: i32 = libc::SIGUSR1;

fn rt() -> i32 {
    libc::SIGRTMIN() + 2
}

/// A program that prints the signal state it was started with.
fn status_printer() -> Command {
    let mut c = Command::new("cat");
    c.arg("/proc/self/status");
    c
}

/// What the program printed.
#[derive(Debug)]
struct Started {
    text: String,
}

impl Started {
    fn bits(&self, field: &str) -> u64 {
        let line =
            self.text.lines().find(|l| l.starts_with(field)).unwrap_or_else(|| panic!("no {field} in {:?}", self.text));
        common::set_from_proc(
            u64::from_str_radix(line.split_whitespace().nth(1).expect("a value"), 16).expect("hexadecimal"),
        )
    }
    /// Of the thread and of the process.
    fn pending(&self) -> u64 {
        self.bits("SigPnd:") | self.bits("ShdPnd:")
    }
}

/// Forks; in the child `f` is to exec, with standard output going here. The raw status and the output.
fn in_child(f: impl FnOnce() -> i32) -> (i32, Started) {
    let (read, write) = common::pipe();
    let pid = common::fork(|| {
        unsafe { libc::dup2(write.as_raw_fd(), 1) };
        f()
    });
    drop(write);
    // First the end, then the output, which is short: a child that hangs would keep the pipe open.
    let status = common::reap_in_time(pid);
    let mut text = String::new();
    std::fs::File::from(read).read_to_string(&mut text).expect("the child's output");
    (status, Started { text })
}

/// A thread that interrupts for ever; returns once it has sent. It has every signal blocked: started in a scope it would have the number open, and a
/// foreign signal that is given back to the process would be its.
fn storm(remotes: Vec<Remote>) {
    let sent = Arc::new(AtomicU64::new(0));
    let count = sent.clone();
    common::unsignalled(move || {
        loop {
            for r in &remotes {
                // Two kinds of request by turns: one that repeats the last is answered outside the gate.
                for answer in [r.interrupt_once(), r.interrupt()] {
                    count.fetch_add(u64::from(answer == Delivery::Sent), SeqCst);
                }
            }
        }
    });
    common::wait_until(|| sent.load(SeqCst) > 3);
}

/// How the thread stood to the number before it entered, and what it did to it inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    Open,
    BlockedInside,
    BlockedBefore,
    /// Open, and the thread that execs is not the child's first, which is in a scope and a storm too.
    OpenOnASecondThread,
}

/// Enters three scopes, two of one number, and execs in a storm.
fn exec_in_a_storm(number: Number, before: u64) -> i32 {
    if number == Number::BlockedBefore {
        common::set_mask(before | common::bit(SIG));
    } else {
        common::set_mask(before);
    }
    let go = || {
        let scopes = [SIG, rt(), SIG].map(|s| Scope::enter(s).expect("enter"));
        storm(scopes.iter().map(Scope::remote).collect());
        if number == Number::BlockedInside {
            common::block(SIG);
            common::block(rt());
        }
        let error = eintr::process::exec(&mut status_printer());
        eprintln!("exec came back: {error}");
        7
    };
    if number != Number::OpenOnASecondThread {
        return go();
    }
    let here = Scope::enter(SIG).expect("enter");
    storm(vec![here.remote()]);
    std::thread::scope(|s| s.spawn(go).join().expect("the second thread ends"))
}

// exec keeps the queue but not the handler: a signal of ours that is queued at that instant, or sent just after the last look, kills the program.
// [416 of 1,500] A child that was forked beside the harness's threads starts threads of its own; glibc allows it.
#[test]
fn the_program_starts_with_the_old_mask_and_no_signal_beside_senders() {
    let _t = common::begin_with(std::time::Duration::from_secs(300));
    let rounds = common::rounds("EINTR_EXECS", 600);
    // A mask that is not empty, so that "old" is told from "none".
    let before = common::bit(libc::SIGHUP) | common::bit(libc::SIGRTMIN() + 5);
    for n in 0..rounds {
        let kinds = [Number::Open, Number::BlockedInside, Number::BlockedBefore, Number::OpenOnASecondThread];
        let number = kinds[(n % 4) as usize];
        let (status, started) = in_child(|| exec_in_a_storm(number, before));
        assert_eq!(status, 0, "round {n}, {number:?}: the program's raw status; output {:?}", started.text);
        let expected = if number == Number::BlockedBefore { before | common::bit(SIG) } else { before };
        assert_eq!(started.bits("SigBlk:"), expected, "round {n}, {number:?}: mask {:#x}", started.bits("SigBlk:"));
        assert_eq!(started.pending(), 0, "round {n}, {number:?}: pending {:#x}", started.pending());
        assert_eq!(started.bits("SigCgt:"), 0, "round {n}, {number:?}");
    }
    println!("{rounds} programs started beside senders");
}

// "It is there again afterwards" holds for a program too: a foreign signal that was pending behind the block before `enter` is pending in it.
#[test]
fn a_foreign_signal_that_was_blocked_and_pending_before_is_pending_in_the_program() {
    let _t = common::begin();
    for sig in [SIG, rt()] {
        for interrupted in [false, true] {
            let (status, started) = in_child(|| {
                common::block(sig);
                unsafe { libc::kill(common::getpid(), sig) };
                let scope = Scope::enter(sig).expect("enter");
                if interrupted {
                    storm(vec![scope.remote()]);
                }
                let error = eintr::process::exec(&mut status_printer());
                eprintln!("exec came back: {error}");
                7
            });
            assert_eq!(status, 0, "signal {sig}, interrupted: {interrupted}: {:?}", started.text);
            assert_eq!(started.pending(), common::bit(sig), "signal {sig}, interrupted: {interrupted}");
            assert_ne!(started.bits("SigBlk:") & common::bit(sig), 0, "signal {sig}, interrupted: {interrupted}");
        }
    }
}

#[test]
fn an_ignored_signal_is_ignored_in_the_program_again() {
    let _t = common::begin();
    let (status, started) = in_child(|| {
        common::install(SIG, libc::SIG_IGN, 0, &[]);
        let scope = ScopeOptions::new(SIG).allow_ignored().enter().expect("enter");
        storm(vec![scope.remote()]);
        eprintln!("exec came back: {}", eintr::process::exec(&mut status_printer()));
        7
    });
    assert_eq!(status, 0, "{:?}", started.text);
    assert_ne!(started.bits("SigIgn:") & common::bit(SIG), 0);
}

// std resets SIGPIPE before it execs and leaves it so when that fails; it is at its default here from the start.
#[test]
fn an_exec_that_fails_leaves_the_scopes_closed_and_says_why() {
    const NAME: &str = "an_exec_that_fails_leaves_the_scopes_closed_and_says_why";
    let _t = common::begin();
    common::in_own_process(NAME, || {
        // By signal(2), as std does: its flags are part of the state.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        let before = State::now();
        for n in 0..200 {
            let scopes = [SIG, rt(), SIG].map(|s| Scope::enter(s).expect("enter"));
            let remotes: Vec<Remote> = scopes.iter().map(Scope::remote).collect();
            let senders: Vec<Remote> = remotes.clone();
            let sender = std::thread::spawn(move || {
                while !senders.iter().all(|r| r.interrupt() == Delivery::Gone) {
                    std::hint::spin_loop();
                }
            });
            if n % 2 == 1 {
                common::wait_until(|| scopes[0].interrupted().is_some());
                common::block(SIG);
            }
            let error = eintr::process::exec(&mut Command::new("/no/such/program"));
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
            assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
            assert_eq!(State::now(), before, "round {n}: after exec came back");
            for r in &remotes {
                assert!(r.is_closed());
                assert_eq!(r.interrupt(), Delivery::Gone);
            }
            sender.join().expect("the sender ends once all are gone");
            assert!(!eintr::is_interruptible());
            eintr::check().expect("no scope, no interrupt");
            // The guards are still there; dropping them now changes nothing, in the midst of a new scope neither.
            let fresh = Scope::enter(SIG).expect("enter after a failed exec");
            let with_fresh = State::now();
            drop(scopes);
            assert_eq!(State::now(), with_fresh, "round {n}: guards that exec had closed");
            assert_eq!(fresh.remote().interrupt(), Delivery::Sent);
            assert!(eintr::check().is_err());
            drop(fresh);
            assert_eq!(State::now(), before, "round {n}: after the next scope");
        }
    });
}

// Only the thread's own scopes are left: another thread's on the same number goes on when the exec fails.
#[test]
fn an_exec_that_fails_leaves_other_threads_scopes_alone() {
    const NAME: &str = "an_exec_that_fails_leaves_other_threads_scopes_alone";
    let _t = common::begin();
    common::in_own_process(NAME, || {
        let before = State::now();
        let (tell, told) = std::sync::mpsc::channel();
        let (finish, finished) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || {
            let scope = Scope::enter(SIG).expect("enter");
            tell.send(scope.remote()).expect("the test waits");
            finished.recv().expect("the test says when");
            assert!(eintr::check().is_err(), "the interrupt was lost");
            scope.leave().expect("nobody replaced the action");
        });
        let theirs = told.recv().expect("entered");
        let own = Scope::enter(SIG).expect("enter");
        let remote = own.remote();
        let error = eintr::process::exec(&mut Command::new("/no/such/program"));
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
        assert!(remote.is_closed() && !theirs.is_closed());
        assert_eq!(theirs.interrupt(), Delivery::Sent);
        finish.send(()).expect("the other thread waits");
        other.join().expect("the other thread ends");
        drop(own);
        assert_eq!(common::action(SIG), before.actions[SIG as usize - 2], "9 is left out of the list");
        assert_eq!(common::mask(), before.blocked);
    });
}

#[test]
fn exec_without_a_scope_is_plain_exec() {
    let _t = common::begin();
    let mask = common::bit(libc::SIGHUP);
    let (status, started) = in_child(|| {
        common::set_mask(mask);
        eprintln!("exec came back: {}", eintr::process::exec(&mut status_printer()));
        7
    });
    assert_eq!(status, 0);
    assert_eq!((started.bits("SigBlk:"), started.pending()), (mask, 0));
}

// Documented: std's Command starts its child by posix_spawn with the caller's mask, which in a scope is the scope's; and an action that was
// "ignore" is the default in it. The child is another process, with its own tid and pid: no signal of ours is for it.
#[test]
fn a_spawned_program_inherits_the_mask_of_the_scope_and_is_never_signalled() {
    const NAME: &str = "a_spawned_program_inherits_the_mask_of_the_scope_and_is_never_signalled";
    let _t = common::begin();
    common::in_own_process(NAME, || {
        // `output` would give up: nobody acknowledges here, so its calls are told ECANCELED (docs/guide.md).
        let ended = |e: &std::io::Error| matches!(e.raw_os_error(), Some(libc::EINTR | libc::ECANCELED));
        let spawn = || {
            let mut child = status_printer().stdout(std::process::Stdio::piped()).spawn().expect("cat starts");
            let (mut out, mut text) = (child.stdout.take().expect("a pipe"), Vec::new());
            while let Err(e) = out.read_to_end(&mut text) {
                assert!(ended(&e), "{e}");
            }
            let status = loop {
                match child.wait() {
                    Err(e) if ended(&e) => {}
                    status => break status.expect("it is ours to wait for"),
                }
            };
            assert!(status.success(), "{status}");
            Started { text: String::from_utf8(text).expect("text") }
        };
        common::block(SIG);
        common::block(libc::SIGHUP);
        common::install(rt(), libc::SIG_IGN, 0, &[]);
        let before = common::mask();
        assert_eq!(spawn().bits("SigBlk:"), before, "without a scope");
        assert_ne!(spawn().bits("SigIgn:") & common::bit(rt()), 0, "without a scope");
        {
            let _open = Scope::enter(SIG).expect("enter");
            let _ignored = ScopeOptions::new(rt()).allow_ignored().enter().expect("enter");
            let sending = [_open.remote(), _ignored.remote()];
            let sender = std::thread::spawn(move || {
                while !sending.iter().all(|r| r.interrupt() == Delivery::Gone) {
                    std::hint::spin_loop();
                }
            });
            for n in 0..200 {
                let started = spawn();
                assert_eq!(started.bits("SigBlk:"), before & !common::bit(SIG), "round {n}: the scope's mask");
                assert_eq!(started.pending(), 0, "round {n}");
                assert_eq!(
                    started.bits("SigIgn:") & common::bit(rt()),
                    0,
                    "round {n}: it was caught when the program started"
                );
            }
            drop((_open, _ignored));
            sender.join().expect("the sender ends");
        }
        assert_eq!(spawn().bits("SigBlk:"), before, "after the scope");
        assert_ne!(spawn().bits("SigIgn:") & common::bit(rt()), 0, "after the scope");
    });
}

#[test]
fn a_thread_started_in_a_scope_inherits_its_mask_but_not_the_scope() {
    let _t = common::begin();
    common::block(SIG);
    let scope = Scope::enter(SIG).expect("enter");
    scope.remote().interrupt();
    std::thread::spawn(|| {
        assert_eq!(common::mask() & common::bit(SIG), 0, "open, as in the scope");
        assert!(!eintr::is_interruptible());
        eintr::check().expect("the other thread's interrupt is not this one's");
        let own = Scope::enter(SIG).expect("enter");
        assert!(own.interrupted().is_none());
        drop(own);
        assert_eq!(common::mask() & common::bit(SIG), 0, "open, as it was when the thread began");
    })
    .join()
    .expect("it ends");
    drop(scope);
    assert_ne!(common::mask() & common::bit(SIG), 0, "blocked, as before the scope");
    common::unblock(SIG);
}
