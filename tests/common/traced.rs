//! The system calls that a piece of code makes, one by one: a forked child runs it, and ptrace(2) tells what its main thread does.
//!
//! A test file takes it by `#[path = "common/traced.rs"] mod traced;` beside `mod common;`. Where tracing is not permitted [`trace`] says so and there is
//! nothing to compare.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block
)]

use crate::common;
use std::collections::BTreeMap;
use std::fmt;

/// What a traced thread does that the kernel sees.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    Call(i64),
    Signal(i32),
    /// `rt_sigprocmask` that only asks whether memory can be read.
    Probe,
}

pub const MASK: Event = Event::Call(libc::SYS_rt_sigprocmask);
pub const ACTION: Event = Event::Call(libc::SYS_rt_sigaction);
pub const QUEUE: Event = Event::Call(libc::SYS_rt_tgsigqueueinfo);
pub const GETTID: Event = Event::Call(libc::SYS_gettid);
pub const GETPID: Event = Event::Call(libc::SYS_getpid);
pub const TGKILL: Event = Event::Call(libc::SYS_tgkill);
pub const RETURN: Event = Event::Call(libc::SYS_rt_sigreturn);
pub const MAKE_TIMER: Event = Event::Call(libc::SYS_timer_create);
pub const SET_TIMER: Event = Event::Call(libc::SYS_timer_settime);
pub const READ: Event = Event::Call(libc::SYS_read);

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
            &MAKE_TIMER => f.write_str("timer_create"),
            &SET_TIMER => f.write_str("timer_settime"),
            &READ => f.write_str("read"),
            Event::Probe => f.write_str("<probe>"),
            Event::Call(nr) => write!(f, "call {nr}"),
            Event::Signal(sig) => write!(f, "<signal {sig}>"),
        }
    }
}

/// No system call has this number: the kernel answers ENOSYS, and the tracer reads the argument.
const MARK: i64 = 0x7ee7;

/// From here on what the traced thread does belongs to this part; 0 is no part.
pub fn mark(part: u64) {
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

pub type Parts = BTreeMap<u64, Vec<Event>>;

/// Runs `body` on the main thread of a forked child and tells what that thread did in each part that it marked. `None`: no tracing here.
pub fn trace(body: impl FnOnce()) -> Option<Parts> {
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
                    (ENTRY, libc::SYS_rt_sigprocmask) if info.args[0] > libc::SIG_SETMASK as u64 => {
                        parts.entry(part).or_default().push(Event::Probe);
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

/// Without the probes. Where the handler lands on what looks like a call that restarts, it asks whether the instruction can be read: on x86_64 a call
/// that has returned 0 looks like read(2). Two questions for a signal at most.
pub fn without_probes(events: &[Event]) -> Vec<Event> {
    let count = |what: fn(&Event) -> bool| events.iter().filter(|event| what(event)).count();
    let (probes, signals) = (count(|e| *e == Event::Probe), count(|e| matches!(e, Event::Signal(_))));
    assert!(probes <= 2 * signals, "{events:?}");
    events.iter().copied().filter(|event| *event != Event::Probe).collect()
}

/// Runs `f` as this part.
pub fn measured<T>(part: u64, f: impl FnOnce() -> T) -> T {
    mark(part);
    let value = f();
    mark(0);
    value
}
