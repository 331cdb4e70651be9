//! Which signals a scope may take: every refusal is typed, says what to do instead, and leaves nothing changed.
// Actions and masks are set by raw system calls, as applications do.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;

use common::{Action, State, action};
use eintr::{Delivery, EnterError, Foreign, Refusal, Scope, ScopeOptions, Signal, Status, Ticket};
use nix::errno::Errno;
use std::error::Error as _;
use std::io;
use std::time::Duration;

/// Puts an action in until it is dropped.
struct Installed(i32, Action);

impl Installed {
    fn new(sig: i32, handler: usize) -> Installed {
        Installed(sig, common::install(sig, handler, libc::SA_RESTART, &[libc::SIGHUP]))
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        common::restore(self.0, self.1);
    }
}

extern "C" fn nothing(_: i32) {}

/// What signal(7), and the C library, say of a number; not asked of the crate.
fn expected(sig: i32) -> Result<(), Refusal> {
    let name = nix::sys::signal::Signal::try_from(sig).map(|s| s.as_str()).unwrap_or("");
    match name {
        "SIGKILL" | "SIGSTOP" => Err(Refusal::Uncatchable),
        "SIGSEGV" | "SIGBUS" | "SIGFPE" | "SIGILL" | "SIGTRAP" | "SIGSYS" | "SIGABRT" => Err(Refusal::Fault),
        "SIGTSTP" | "SIGTTIN" | "SIGTTOU" => Err(Refusal::Stop),
        _ if !(1..=64).contains(&sig) => Err(Refusal::OutOfRange),
        _ if (32..libc::SIGRTMIN()).contains(&sig) => Err(Refusal::Reserved),
        _ => {
            let a = action(sig);
            let by_default = ["SIGCHLD", "SIGURG", "SIGWINCH", "SIGCONT"].contains(&name);
            let ignored = a.handler == libc::SIG_IGN || a.handler == libc::SIG_DFL && by_default;
            if ignored { Err(Refusal::Ignored) } else { Ok(()) }
        }
    }
}

fn numbers() -> impl Iterator<Item = i32> {
    (-3..=130).chain([i32::MIN, i32::MAX, 256 + libc::SIGUSR1, 1 << 16 | libc::SIGUSR1])
}

#[test]
fn each_number_is_taken_or_refused_as_signal_7_has_it() {
    let _t = common::begin();
    for sig in numbers() {
        let before = State::now();
        let answer = Scope::enter(sig).map(drop);
        assert_eq!(answer.map_err(EnterError::why), expected(sig), "signal number {sig}");
        if let Err(e) = answer {
            assert_eq!(e.signal(), Signal::from(sig));
        }
        assert_eq!(State::now(), before, "after entering on {sig}");
    }
}

#[test]
fn an_ignored_signal_is_taken_if_that_is_allowed_and_nothing_else_becomes_allowed() {
    let _t = common::begin();
    let _ignored = [Installed::new(libc::SIGUSR1, libc::SIG_IGN), Installed::new(libc::SIGRTMIN() + 5, libc::SIG_IGN)];
    for sig in numbers() {
        let before = State::now();
        let answer = ScopeOptions::new(sig).allow_ignored().enter().map(drop).map_err(EnterError::why);
        let wanted = if expected(sig) == Err(Refusal::Ignored) { Ok(()) } else { expected(sig) };
        assert_eq!(answer, wanted, "signal number {sig}");
        assert_eq!(State::now(), before, "after entering on {sig}");
    }
}

#[test]
fn a_refused_enter_changes_nothing_with_any_action_mask_and_scope_around() {
    let _t = common::begin();
    let refused = || numbers().filter(|sig| expected(*sig).is_err());
    let _ignored = Installed::new(libc::SIGUSR2, libc::SIG_IGN);
    for around in [None, Some(libc::SIGUSR1), Some(libc::SIGRTMIN() + 3)] {
        for blocked in [0, common::bit(libc::SIGUSR1) | common::bit(libc::SIGUSR2), !0] {
            let mask = common::set_mask(blocked);
            let outside = State::now();
            let scope = around.map(|sig| Scope::enter(sig).unwrap());
            let before = State::now();
            for sig in refused() {
                let (ticket, remote) = Ticket::new();
                assert!(ticket.enter(sig).is_err());
                assert_eq!(State::now(), before, "{sig} refused inside {around:?} with {blocked:#x} blocked");
                assert_eq!(remote.interrupt(), Delivery::Gone);
                assert_eq!(eintr::is_interruptible(), around.is_some());
            }
            if let Some(scope) = scope {
                assert!(scope.interrupted().is_none());
                scope.remote().interrupt();
                assert!(eintr::check().is_err(), "the scope around is as good as before");
            }
            assert_eq!(State::now(), outside);
            common::set_mask(mask);
        }
    }
}

#[test]
fn a_signal_that_another_thread_took_allowing_ignored_is_refused_to_who_does_not() {
    let _t = common::begin();
    for (sig, behind) in [(libc::SIGUSR2, libc::SIG_IGN), (libc::SIGWINCH, libc::SIG_DFL)] {
        let _behind = Installed::new(sig, behind);
        let before = State::now();
        let (entered, wait) = (std::sync::Barrier::new(2), std::sync::Barrier::new(2));
        std::thread::scope(|s| {
            let other = s.spawn(|| {
                let scope = ScopeOptions::new(sig).allow_ignored().enter().unwrap();
                entered.wait();
                wait.wait();
                scope.remote().interrupt();
                eintr::check().is_err()
            });
            entered.wait();
            let during = State::now();
            assert_eq!(Scope::enter(sig).unwrap_err().why(), Refusal::Ignored, "where the action is taken already");
            assert_eq!(State::now(), during);
            let mine = ScopeOptions::new(sig).allow_ignored().enter().unwrap();
            let with_mine = State::now();
            assert_eq!(Scope::enter(sig).unwrap_err().why(), Refusal::Ignored, "where this thread has a scope of it");
            assert_eq!(State::now(), with_mine);
            drop(mine);
            assert_eq!(State::now(), during);
            wait.wait();
            assert!(other.join().unwrap(), "the other thread's scope is as good as before");
        });
        assert_eq!(State::now(), before);
    }
}

#[test]
fn a_ticket_that_is_refused_is_spent() {
    let _t = common::begin();
    for interrupted in [false, true] {
        let (ticket, remote) = Ticket::new();
        if interrupted {
            assert_eq!(remote.interrupt(), Delivery::Held);
        }
        let other = remote.clone();
        let (says, hear) = std::sync::mpsc::channel();
        let waiter = std::thread::spawn(move || {
            says.send(common::gettid()).unwrap();
            other.wait_closed(Duration::MAX)
        });
        common::wait_blocked_in(hear.recv().unwrap(), libc::SYS_futex);
        assert_eq!(ticket.enter(libc::SIGSEGV).unwrap_err().why(), Refusal::Fault);
        assert!(waiter.join().unwrap(), "who waits for its end is woken");
        assert!(remote.is_closed());
        assert_eq!((remote.interrupt(), remote.interrupt_once()), (Delivery::Gone, Delivery::Gone));
        assert_eq!(remote.wait(Duration::ZERO), Status::Closed);
    }
    assert!(eintr::check().is_ok(), "an interrupt that a refused ticket kept is nobody's");
}

/// The words after "take": what the text advises.
fn advice(text: &str) -> &str {
    text.split_once("take ").map_or("", |(_, advice)| advice)
}

#[test]
fn each_refusal_says_which_signal_why_and_what_instead() {
    let _t = common::begin();
    let _ignored = [Installed::new(libc::SIGUSR1, libc::SIG_IGN), Installed::new(libc::SIGRTMIN(), libc::SIG_IGN)];
    for sig in numbers().filter(|sig| expected(*sig).is_err()) {
        let error = Scope::enter(sig).unwrap_err();
        let (text, name) = (error.to_string(), Signal::from(sig).to_string());
        assert!(text.contains(&name), "which: {text}");
        assert!(name.starts_with("SIG") || name.contains(&sig.to_string()), "a name that tells the number: {name}");
        let why = match error.why() {
            Refusal::Uncatchable => "cannot be caught",
            Refusal::Fault => "fault",
            Refusal::Stop => "stop",
            Refusal::Ignored => "ignored",
            Refusal::Reserved => "C library",
            Refusal::OutOfRange => "exist",
            other => panic!("{other:?}"),
        };
        assert!(text.contains(why), "why: {text}");
        assert!(!advice(&text).is_empty(), "what instead: {text}");
        let as_word = |word: &str| word.trim_matches([',', ';', '.']) == name;
        assert!(!advice(&text).split(' ').any(as_word), "what instead is what was refused: {text}");
        assert_eq!(text.contains("allow_ignored"), error.why() == Refusal::Ignored, "{text}");
        assert!(text.lines().count() == 1, "{text}");
    }
}

#[test]
fn a_refusal_becomes_an_io_error_that_nobody_retries() {
    let _t = common::begin();
    for sig in numbers().filter(|sig| expected(*sig).is_err()) {
        let refused = Scope::enter(sig).unwrap_err();
        assert!(refused.source().is_none());
        let error = io::Error::from(refused);
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(error.get_ref().and_then(|e| e.downcast_ref::<EnterError>()), Some(&refused));
        assert_eq!(error.to_string(), refused.to_string());
    }
}

/// The C library has no key left for the ends of threads, so a scope could not be ended with its thread: refused, and as before.
#[test]
fn an_enter_that_the_c_library_refuses_changes_nothing() {
    let _t = common::begin();
    common::in_own_process("an_enter_that_the_c_library_refuses_changes_nothing", || {
        let mut keys = Vec::new();
        let mut key = 0;
        while unsafe { libc::pthread_key_create(&mut key, None) } == 0 {
            keys.push(key);
        }
        let before = State::now();
        let (ticket, remote) = Ticket::new();
        remote.interrupt();
        for error in [ticket.enter(libc::SIGUSR1).unwrap_err(), Scope::enter(Signal::rt(1)).unwrap_err()] {
            assert_eq!(error.why(), Refusal::Os(Errno::EAGAIN));
            check_os_error(error, Errno::EAGAIN);
            assert_eq!(State::now(), before);
        }
        assert_eq!(remote.interrupt(), Delivery::Gone);
        assert!(!eintr::is_interruptible() && eintr::check().is_ok());
        for key in keys {
            unsafe { libc::pthread_key_delete(key) };
        }
        let scope = Scope::enter(libc::SIGUSR1).expect("with keys to be had it works");
        scope.remote().interrupt();
        assert!(eintr::check().is_err());
        drop(scope);
        assert_eq!(State::now(), before);
    });
}

fn check_os_error(error: EnterError, errno: Errno) {
    assert_eq!(error.source().and_then(|e| e.downcast_ref::<Errno>()), Some(&errno));
    let text = error.to_string();
    assert!(text.contains(&error.signal().to_string()) && text.contains(errno.desc()), "which and why: {text}");
    assert!(text.contains(';'), "what instead: {text}");
    let io = io::Error::from(error);
    assert_eq!(io.kind(), io::Error::from(errno).kind());
    assert_eq!(io.get_ref().and_then(|e| e.downcast_ref::<EnterError>()), Some(&error));
}

/// From now on the calling thread may not set the action of `sig` (EPERM), only ask for it. `false`: no seccomp here.
fn forbid_sigaction(sig: i32) -> bool {
    let op = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = |offset: u32| op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0);
    let equal = |k: u32, jt: u8, jf: u8| op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, k, jt, jf);
    let answer = |k: u32| op(libc::BPF_RET | libc::BPF_K, k, 0, 0);
    // struct seccomp_data: the number at 0, the arguments from 16 on, 8 bytes each.
    let mut filter = [
        load(0),
        equal(libc::SYS_rt_sigaction as u32, 0, 5),
        load(16),
        equal(sig as u32, 0, 3),
        load(24),
        equal(0, 1, 0),
        answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) == 0
    }
}

/// A filter is a thread's own and ends with it.
#[test]
fn an_enter_that_the_kernel_refuses_changes_nothing() {
    let _t = common::begin();
    for blocked in [0, common::bit(libc::SIGUSR1)] {
        let outside = State::now();
        let done = std::thread::spawn(move || {
            common::set_mask(blocked);
            if !forbid_sigaction(libc::SIGUSR1) {
                return false;
            }
            let before = State::now();
            for round in 0..3 {
                let (ticket, remote) = Ticket::new();
                let error = ticket.enter(libc::SIGUSR1).unwrap_err();
                assert_eq!(error.why(), Refusal::Os(Errno::EPERM), "round {round}");
                check_os_error(error, Errno::EPERM);
                assert_eq!(State::now(), before);
                assert_eq!(remote.interrupt(), Delivery::Gone);
                assert!(!eintr::is_interruptible());
            }
            let other = Scope::enter(libc::SIGUSR2).expect("other numbers are not concerned");
            other.remote().interrupt();
            assert!(eintr::check().is_err());
            drop(other);
            assert_eq!(State::now(), before);
            true
        });
        if !done.join().unwrap() {
            println!("SKIPPED: a refusal by the kernel, since this thread may not have a seccomp filter");
        }
        assert_eq!(State::now(), outside);
        let scope = Scope::enter(libc::SIGUSR1).expect("threads without the filter are not concerned");
        scope.remote().interrupt();
        assert!(eintr::check().is_err());
    }
}

#[test]
fn a_refused_number_keeps_its_meaning_for_foreign_signals() {
    let _t = common::begin();
    common::in_own_process("a_refused_number_keeps_its_meaning_for_foreign_signals", || {
        let _ignored = Installed::new(libc::SIGUSR2, libc::SIG_IGN);
        assert!(Scope::enter(libc::SIGUSR2).is_err());
        assert!(Scope::enter(libc::SIGCHLD).is_err());
        for sig in [libc::SIGUSR2, libc::SIGCHLD] {
            unsafe { libc::raise(sig) }; // still ignored: the process lives
        }
        let _handler = Installed::new(libc::SIGSEGV, nothing as *const () as usize);
        let before = action(libc::SIGSEGV);
        assert!(Scope::enter(ScopeOptions::new(libc::SIGSEGV).foreign(Foreign::Ignore)).is_err());
        assert_eq!(action(libc::SIGSEGV), before);
        unsafe { libc::raise(libc::SIGSEGV) };
    });
}

#[test]
fn unused_is_the_highest_real_time_number_with_its_default_action() {
    let _t = common::begin();
    let name = "unused_is_the_highest_real_time_number_with_its_default_action";
    common::in_own_process(name, || {
        let free = (libc::SIGRTMIN()..=64).rev().find(|s| action(*s).handler == libc::SIG_DFL).expect("one is free");
        let highest = Installed::new(free, libc::SIG_IGN);
        let _next = Installed::new(free - 1, nothing as *const () as usize);
        let unused = Signal::unused().expect("one more is free");
        assert_eq!(unused.as_raw(), (libc::SIGRTMIN()..free - 1).rev().find(|s| action(*s).handler == 0).unwrap());
        let _taken = Installed::new(unused.as_raw(), nothing as *const () as usize);
        assert_eq!(Signal::unused(), Some(unused), "the same answer for the life of the process");
        assert_eq!(std::thread::spawn(Signal::unused).join().unwrap(), Some(unused));
        drop(highest);
        let before = State::now();
        let (a, b) = (Scope::enter(unused).unwrap(), Scope::enter(unused).unwrap());
        a.remote().interrupt();
        assert!(eintr::check().is_err() && b.interrupted().is_none());
        drop((a, b));
        assert_eq!(State::now(), before);
    });
}

#[test]
fn unused_is_none_if_every_real_time_number_is_taken() {
    let _t = common::begin();
    common::in_own_process("unused_is_none_if_every_real_time_number_is_taken", || {
        for sig in libc::SIGRTMIN()..=64 {
            common::install(sig, nothing as *const () as usize, 0, &[]);
        }
        assert_eq!(Signal::unused(), None);
        common::install(64, libc::SIG_DFL, 0, &[]);
        assert_eq!(Signal::unused(), None, "the same answer for the life of the process");
    });
}

#[test]
fn a_signal_shows_its_name_and_any_number_shows_something() {
    let _t = common::begin();
    let first = libc::SIGRTMIN();
    let names = [
        (libc::SIGUSR1, "SIGUSR1".to_owned()),
        (libc::SIGKILL, "SIGKILL".to_owned()),
        (libc::SIGCHLD, "SIGCHLD".to_owned()),
        (first, "SIGRTMIN".to_owned()),
        (first + 3, "SIGRTMIN+3".to_owned()),
        (64, format!("SIGRTMIN+{}", 64 - first)),
    ];
    for (sig, name) in names {
        assert_eq!(Signal::from(sig).to_string(), name);
        assert_eq!(format!("{:?}", Signal::from(sig)), name);
    }
    for sig in numbers().filter(|sig| !(1..32).contains(sig) && !(first..=64).contains(sig)) {
        let name = Signal::from(sig).to_string();
        assert!(name.contains(&sig.to_string()), "{sig} shows as {name}");
    }
    for n in 0..=u8::MAX {
        assert_eq!(Signal::rt(n).as_raw(), first + i32::from(n));
        assert_eq!(Scope::enter(Signal::rt(n)).is_ok(), first + i32::from(n) <= 64, "SIGRTMIN+{n}");
    }
}
