//! What the crate costs, counted in system calls: nothing at all on threads without a scope, but for the signals that come to them anyway; and for
//! each operation on a thread with one, the calls that it must make.
//!
//! The calls are counted by ptrace(2), on one thread of a forked child. Where tracing is not permitted the tests say so and do nothing.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)] // as in tests/common

mod common;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use eintr::{Delivery, Remote, Scope, Status, Ticket};

/// What a traced thread does that the kernel sees.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Call(i64),
    Signal(i32),
}

const MASK: Event = Event::Call(libc::SYS_rt_sigprocmask);
const ACTION: Event = Event::Call(libc::SYS_rt_sigaction);
const QUEUE: Event = Event::Call(libc::SYS_rt_tgsigqueueinfo);
const GETTID: Event = Event::Call(libc::SYS_gettid);
const GETPID: Event = Event::Call(libc::SYS_getpid);
const TGKILL: Event = Event::Call(libc::SYS_tgkill);
const RETURN: Event = Event::Call(libc::SYS_rt_sigreturn);

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            &MASK => f.write_str("rt_sigprocmask"),
            &ACTION => f.write_str("rt_sigaction"),
            &QUEUE => f.write_str("rt_tgsigqueueinfo"),
            &GETTID => f.write_str("gettid"),
            &GETPID => f.write_str("getpid"),
            &TGKILL => f.write_str("tgkill"),
            &RETURN => f.write_str("rt_sigreturn"),
            Event::Call(nr) => write!(f, "call {nr}"),
            Event::Signal(sig) => write!(f, "<signal {sig}>"),
        }
    }
}

/// No system call has this number: the kernel answers ENOSYS, and the tracer reads the argument.
const MARK: i64 = 0x7ee7;

/// From here on what the traced thread does belongs to this part; 0 is no part.
fn mark(part: u64) {
    unsafe { libc::syscall(MARK, part) };
}

/// `struct ptrace_syscall_info` of ptrace(2), as far as it is read here.
#[repr(C)]
#[derive(Default)]
struct SyscallInfo {
    op: u8,
    _pad: [u8; 3],
    _arch: u32,
    _ip: u64,
    _sp: u64,
    nr: u64,
    args: [u64; 6],
    _rest: [u64; 2],
}
const PTRACE_GET_SYSCALL_INFO: libc::c_uint = 0x420e;
const ENTRY: u8 = 1;

type Parts = BTreeMap<u64, Vec<Event>>;

/// Runs `body` on the main thread of a forked child and tells what that thread did in each part that it marked. `None`: no tracing here.
fn trace(body: impl FnOnce()) -> Option<Parts> {
    let child = common::fork(|| {
        let traced = unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
        if traced != 0 {
            return 77;
        }
        unsafe { libc::raise(libc::SIGSTOP) };
        body();
        0
    });
    let mut status = wait(child);
    if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 77 {
        eprintln!("SKIPPED: ptrace is not permitted here, system calls are not counted");
        return None;
    }
    assert!(libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGSTOP, "the child stops: {status:#x}");
    let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
    assert_eq!(unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, child, 0, options) }, 0);
    let (mut parts, mut part) = (Parts::new(), 0);
    let mut deliver = 0;
    loop {
        assert_eq!(unsafe { libc::ptrace(libc::PTRACE_SYSCALL, child, 0, deliver) }, 0);
        deliver = 0;
        status = wait(child);
        if !libc::WIFSTOPPED(status) {
            break;
        }
        match libc::WSTOPSIG(status) {
            stop if stop == libc::SIGTRAP | 0x80 => {
                let mut info = SyscallInfo::default();
                let size = size_of::<SyscallInfo>();
                if unsafe { libc::ptrace(PTRACE_GET_SYSCALL_INFO, child, size, &mut info) } <= 0 {
                    eprintln!(
                        "SKIPPED: this kernel does not tell system calls apart (before 5.3), they are not counted"
                    );
                    unsafe { libc::kill(child, libc::SIGKILL) };
                    wait(child);
                    return None;
                }
                match (info.op, info.nr as i64) {
                    (ENTRY, MARK) => {
                        part = info.args[0];
                        parts.entry(part).or_default();
                    }
                    (ENTRY, nr) => parts.entry(part).or_default().push(Event::Call(nr)),
                    _ => {}
                }
            }
            sig => {
                deliver = sig;
                parts.entry(part).or_default().push(Event::Signal(sig));
            }
        }
    }
    assert_eq!(status, 0, "the child ends well (as waitpid(2) has it: {status:#x})");
    parts.remove(&0);
    Some(parts)
}

fn wait(child: libc::pid_t) -> i32 {
    let mut status = 0;
    assert_eq!(unsafe { libc::waitpid(child, &mut status, libc::__WALL) }, child);
    status
}

extern "C" fn count(_: i32) {
    RUNS.fetch_add(1, SeqCst);
}
static RUNS: AtomicU64 = AtomicU64::new(0);

/// A thread with a scope on `sig`, for as long as the returned sender lives.
fn scoped_thread(sig: i32) -> (Remote, mpsc::Sender<()>, std::thread::JoinHandle<()>) {
    let (give, given) = mpsc::channel();
    let (end, ends) = mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        let scope = Scope::enter(sig).expect("entered");
        give.send(scope.remote()).unwrap();
        let _ = ends.recv();
    });
    (given.recv().unwrap(), end, thread)
}

/// What a thread does that knows nothing of scopes.
fn work() {
    let mut buffer = [0u8; 8];
    let (reader, writer) = common::pipe();
    let (from, to) = (std::os::fd::AsRawFd::as_raw_fd(&reader), std::os::fd::AsRawFd::as_raw_fd(&writer));
    let lock = std::sync::Mutex::new(0);
    let pause = libc::timespec { tv_sec: 0, tv_nsec: 1000 };
    unsafe {
        assert_eq!(libc::write(to, buffer.as_ptr().cast(), 8), 8);
        assert_eq!(libc::read(from, buffer.as_mut_ptr().cast(), 8), 8);
        let mut set = libc::pollfd { fd: from, events: libc::POLLIN, revents: 0 };
        assert_eq!(libc::poll(&mut set, 1, 1), 0);
        assert_eq!(libc::nanosleep(&pause, std::ptr::null_mut()), 0);
        libc::sched_yield();
    }
    *lock.lock().unwrap() += 1;
    common::mask();
}

/// Beside scopes that are entered, interrupted and left on other threads, a thread without one makes the very same calls as without the crate, and
/// gets no signal.
#[test]
fn a_thread_without_a_scope_pays_nothing() {
    let _t = common::begin();
    const ROUNDS: u64 = 200;
    let Some(alone) = trace(|| {
        work();
        mark(1);
        (0..ROUNDS).for_each(|_| work());
        mark(0);
    }) else {
        return;
    };
    let beside = trace(|| {
        let (sig, other) = (libc::SIGUSR1, libc::SIGRTMIN() + 1);
        let (remote, end, thread) = scoped_thread(sig);
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let sender = std::thread::spawn({
            let (stop, sent) = (stop.clone(), sent.clone());
            move || {
                while !stop.load(SeqCst) {
                    drop(Scope::enter(other).expect("entered"));
                    if remote.interrupt() == Delivery::Sent {
                        sent.fetch_add(1, SeqCst);
                    }
                }
            }
        });
        common::wait_until(|| sent.load(SeqCst) > 0);
        work();
        let before = sent.load(SeqCst);
        mark(1);
        (0..ROUNDS).for_each(|_| work());
        mark(0);
        assert!(sent.load(SeqCst) > before, "nothing went on meanwhile");
        stop.store(true, SeqCst);
        sender.join().unwrap();
        drop(end);
        thread.join().unwrap();
    });
    assert_eq!(Some(alone), beside);
}

/// The free functions, and everything that only looks, on a thread that never had a scope: no system call, whether others have scopes or not.
#[test]
fn looking_without_a_scope_makes_no_system_call() {
    let _t = common::begin();
    let look = || {
        assert_eq!(eintr::check(), Ok(()));
        assert!(!eintr::is_interruptible());
        assert_eq!(eintr::retry(|| 7), Ok(7));
    };
    let Some(parts) = trace(|| {
        mark(1);
        look();
        mark(0);
        let (remote, end, thread) = scoped_thread(libc::SIGUSR1);
        mark(2);
        look();
        assert!(!remote.is_closed());
        drop(remote.clone());
        mark(0);
        drop(end);
        thread.join().unwrap();
        mark(3);
        look();
        assert!(remote.is_closed());
        assert_eq!(remote.wait(Duration::ZERO), Status::Closed);
        mark(0);
    }) else {
        return;
    };
    assert_eq!(parts.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
    for (part, events) in parts {
        assert_eq!(events, [], "part {part}");
    }
}

/// A foreign signal on a thread without a scope, while another thread has one on the number: the handler behind runs as it would, five calls dearer:
/// all signals blocked, whoever called; which thread this is; which process, since a child of vfork shares our memory; and the mask that the kernel
/// would have set, there and back. The first and the thousandth alike.
#[test]
fn a_foreign_signal_on_a_thread_without_a_scope_costs_five_calls_more() {
    let _t = common::begin();
    for sig in [libc::SIGUSR1, libc::SIGRTMIN() + 1] {
        let raise = move |part| {
            let before = RUNS.load(SeqCst);
            let (pid, tid) = (common::getpid(), common::gettid());
            mark(part);
            unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, sig) };
            mark(0);
            assert_eq!(RUNS.load(SeqCst), before + 1);
        };
        let Some(parts) = trace(move || {
            common::install(sig, count as *const () as usize, libc::SA_RESTART, &[]);
            raise(1);
            let (_remote, end, thread) = scoped_thread(sig);
            raise(2);
            (0..1000).for_each(|_| raise(3));
            raise(4);
            drop(end);
            thread.join().unwrap();
            raise(5);
        }) else {
            return;
        };
        let plain = [TGKILL, Event::Signal(sig), RETURN];
        let ours = [TGKILL, Event::Signal(sig), MASK, GETTID, GETPID, MASK, MASK, RETURN];
        assert_eq!(parts[&1], plain, "without the crate");
        assert_eq!(parts[&2], ours, "the first");
        assert_eq!(parts[&3].chunks(ours.len()).find(|events| *events != ours), None);
        assert_eq!(parts[&4], ours, "the last");
        assert_eq!(parts[&5], plain, "after the last scope: as before");
    }
}

/// One operation and the calls that it is to make.
struct Row {
    name: &'static str,
    calls: Vec<Event>,
}

/// Every operation, after a first round that makes what is made once.
#[test]
fn each_operation_makes_the_calls_it_must_and_no_others() {
    let _t = common::begin();
    let sig = libc::SIGRTMIN() + 1;
    let arrival = [Event::Signal(sig), MASK, GETTID, RETURN];
    let send = [MASK, ACTION, QUEUE, MASK];
    let rows = [
        Row { name: "enter, the first scope on the number", calls: vec![MASK, ACTION, ACTION, MASK] },
        Row { name: "enter, nested", calls: vec![] },
        Row { name: "looking", calls: vec![] },
        Row { name: "leave, nested", calls: vec![] },
        Row { name: "interrupt", calls: [&send[..], &arrival[..]].concat() },
        Row { name: "looking at an interrupt", calls: vec![] },
        Row { name: "check that fails", calls: vec![MASK, MASK] },
        Row { name: "clear", calls: vec![MASK, MASK] },
        Row { name: "interrupt with the number blocked", calls: send.to_vec() },
        Row { name: "interrupt again, the signal still on its way", calls: vec![] },
        Row { name: "leave after an interrupt", calls: vec![MASK, MASK, MASK, ACTION, ACTION, MASK] },
        Row { name: "interrupt of an ended scope", calls: vec![MASK, MASK] },
        Row { name: "leave, the last scope on the number", calls: vec![MASK, ACTION, ACTION, MASK] },
        Row { name: "enter where another thread has a scope", calls: vec![MASK] },
        Row { name: "leave where another thread has a scope", calls: vec![MASK] },
        Row { name: "a ticket, interrupted and dropped", calls: vec![MASK, MASK] },
    ];
    let part = |name: &str| 1 + rows.iter().position(|row| row.name == name).expect("a row") as u64;
    fn measured<T>(part: u64, f: impl FnOnce() -> T) -> T {
        mark(part);
        let value = f();
        mark(0);
        value
    }
    let round = |on: bool| {
        let part = |name| if on { part(name) } else { 0 };
        let scope = measured(part("enter, the first scope on the number"), || Scope::enter(sig)).expect("entered");
        let inner = measured(part("enter, nested"), || Scope::enter(sig)).expect("entered");
        let remote = scope.remote();
        measured(part("looking"), || {
            assert_eq!(eintr::check(), Ok(()));
            assert!(eintr::is_interruptible() && scope.interrupted().is_none());
            assert_eq!(eintr::retry(|| 7), Ok(7));
            let again = scope.remote();
            assert!(!again.clone().is_closed());
        });
        measured(part("leave, nested"), || drop(inner));
        assert_eq!(measured(part("interrupt"), || remote.interrupt_once()), Delivery::Sent);
        assert!(measured(part("looking at an interrupt"), || scope.interrupted()).is_some());
        assert!(measured(part("check that fails"), eintr::check).is_err());
        assert!(measured(part("clear"), || scope.clear()).is_some());
        common::block(sig);
        assert_eq!(measured(part("interrupt with the number blocked"), || remote.interrupt_once()), Delivery::Sent);
        let again = measured(part("interrupt again, the signal still on its way"), || remote.interrupt_once());
        assert_eq!(again, Delivery::Held);
        common::unblock(sig);
        measured(part("leave after an interrupt"), || drop(scope));
        let answer = measured(part("interrupt of an ended scope"), || remote.interrupt_once());
        assert_eq!(answer, Delivery::Gone);
        let scope = Scope::enter(sig).expect("entered");
        measured(part("leave, the last scope on the number"), || drop(scope));
        let (_, end, thread) = scoped_thread(sig);
        let scope = measured(part("enter where another thread has a scope"), || Scope::enter(sig)).expect("entered");
        measured(part("leave where another thread has a scope"), || drop(scope));
        drop(end);
        thread.join().unwrap();
        measured(part("a ticket, interrupted and dropped"), || {
            let (ticket, remote) = Ticket::new();
            assert_eq!(remote.interrupt_once(), Delivery::Held);
            drop(ticket);
        });
    };
    let Some(parts) = trace(|| {
        round(false);
        round(true);
    }) else {
        return;
    };
    for row in &rows {
        assert_eq!(parts[&part(row.name)], row.calls, "{}", row.name);
    }
}
