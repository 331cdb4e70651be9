//! What stands behind a scope in the tests of living with others: handlers that write down what the kernel would have told them, the ways in which
//! a signal can be sent, and children that may die of one. A test file takes it by `#[path = "common/witness.rs"] mod witness;` beside
//! `mod common;`.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block
)]

use crate::common;
use eintr::{Reason, Scope};
use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::mem::offset_of;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering::SeqCst};

/// The kernel's siginfo, all 128 bytes.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Info {
    pub signo: i32,
    pub errno: i32,
    pub code: i32,
    pub pad: i32,
    pub pid: i32,
    pub uid: u32,
    pub value: u64,
    pub rest: [u64; 12],
}
const _: () = assert!(size_of::<Info>() == 128 && size_of::<libc::siginfo_t>() == 128);

/// One run of a handler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Run {
    pub sig: i32,
    /// Zeroes for a handler without SA_SIGINFO.
    pub info: Info,
    pub tid: i32,
    /// The mask while the handler runs.
    pub mask: u64,
    /// uc_sigmask, the instruction and uc_stack that it was given; zeroes for a handler without SA_SIGINFO.
    pub mask_below: u64,
    pub pc: u64,
    pub stack: [u64; 3],
    /// Whether it runs on the thread's alternate stack.
    pub on_alternate: bool,
    /// The handler that the kernel would run if the signal came again.
    pub standing: usize,
}

const ROOM: usize = 8192;
struct Log([UnsafeCell<Run>; ROOM]);
// Each place is written by the one handler that drew its number, and read when `WRITTEN` says that it is done.
unsafe impl Sync for Log {}
static LOG: Log = Log([const { UnsafeCell::new(NOTHING) }; ROOM]);
const NOTHING: Run = Run {
    sig: 0,
    info: Info { signo: 0, errno: 0, code: 0, pad: 0, pid: 0, uid: 0, value: 0, rest: [0; 12] },
    tid: 0,
    mask: 0,
    mask_below: 0,
    pc: 0,
    stack: [0; 3],
    on_alternate: false,
    standing: 0,
};
static DRAWN: AtomicUsize = AtomicUsize::new(0);
static WRITTEN: AtomicUsize = AtomicUsize::new(0);

/// Forgets every run.
pub fn forget() {
    assert_eq!(DRAWN.load(SeqCst), WRITTEN.load(SeqCst), "a handler is still running");
    DRAWN.store(0, SeqCst);
    WRITTEN.store(0, SeqCst);
}

/// How many runs have ended.
pub fn count() -> usize {
    WRITTEN.load(SeqCst)
}

/// Every run since [`forget`].
pub fn runs() -> Vec<Run> {
    let n = DRAWN.load(SeqCst);
    common::wait_until(|| WRITTEN.load(SeqCst) == n);
    LOG.0[..n].iter().map(|place| unsafe { *place.get() }).collect()
}

/// Writes a run down. Async-signal-safe.
fn note(run: Run) {
    let n = DRAWN.fetch_add(1, SeqCst);
    if let Some(place) = LOG.0.get(n) {
        unsafe { *place.get() = run };
    }
    WRITTEN.fetch_add(1, SeqCst);
}

fn here(sig: c_int) -> Run {
    let mut stack: libc::stack_t = unsafe { std::mem::zeroed() };
    unsafe { libc::sigaltstack(std::ptr::null(), &mut stack) };
    let mut action = common::Action::default();
    unsafe { libc::syscall(libc::SYS_rt_sigaction, sig, 0usize, &mut action, 8usize) };
    Run {
        sig,
        tid: common::gettid(),
        mask: common::mask(),
        on_alternate: stack.ss_flags & libc::SS_ONSTACK != 0,
        standing: action.handler,
        ..NOTHING
    }
}

/// A handler without SA_SIGINFO.
pub extern "C" fn plain(sig: c_int) {
    note(here(sig));
}

/// A handler with SA_SIGINFO.
pub extern "C" fn detailed(sig: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    note(seen(sig, info, context));
}

/// What a handler with SA_SIGINFO was given.
pub fn seen(sig: c_int, info: *mut libc::siginfo_t, context: *mut c_void) -> Run {
    let context: *mut libc::ucontext_t = context.cast();
    Run {
        info: unsafe { *info.cast::<Info>() },
        mask_below: unsafe { *mask_of(context) },
        pc: unsafe { *pc_of(context) },
        stack: unsafe {
            [(*context).uc_stack.ss_sp as u64, (*context).uc_stack.ss_size as u64, (*context).uc_stack.ss_flags as u64]
        },
        ..here(sig)
    }
}

pub fn plain_handler() -> usize {
    plain as *const () as usize
}

pub fn detailed_handler() -> usize {
    detailed as *const () as usize
}

/// The mask that comes back when the handler returns: the kernel's 8 bytes open libc's larger set.
pub fn mask_of(context: *mut libc::ucontext_t) -> *mut u64 {
    context.wrapping_byte_add(offset_of!(libc::ucontext_t, uc_sigmask)).cast()
}

#[cfg(target_arch = "x86_64")]
pub fn pc_of(context: *mut libc::ucontext_t) -> *mut u64 {
    unsafe { (&raw mut (*context).uc_mcontext.gregs[libc::REG_RIP as usize]).cast() }
}
#[cfg(target_arch = "aarch64")]
pub fn pc_of(context: *mut libc::ucontext_t) -> *mut u64 {
    unsafe { &raw mut (*context).uc_mcontext.pc }
}

/// The register that a system call's result comes back in.
#[cfg(target_arch = "x86_64")]
pub fn result_of(context: *mut libc::ucontext_t) -> *mut u64 {
    unsafe { (&raw mut (*context).uc_mcontext.gregs[libc::REG_RAX as usize]).cast() }
}
#[cfg(target_arch = "aarch64")]
pub fn result_of(context: *mut libc::ucontext_t) -> *mut u64 {
    unsafe { &raw mut (*context).uc_mcontext.regs[0] }
}

/// How a signal is sent to the calling thread, or to its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// kill(2).
    Kill,
    /// killpg(3), in a process group of its own.
    Killpg,
    /// sigqueue(3) with a value.
    Sigqueue,
    /// raise(3).
    Raise,
    /// pthread_kill(3) from another thread of the process.
    PthreadKill,
    /// kill(2) from another process.
    KillFromOutside,
    /// sigqueue(3) with a value, from another process.
    SigqueueFromOutside,
    /// tgkill(2) from another process.
    TgkillFromOutside,
}

impl Way {
    pub const ALL: [Way; 8] = [
        Way::Kill,
        Way::Killpg,
        Way::Sigqueue,
        Way::Raise,
        Way::PthreadKill,
        Way::KillFromOutside,
        Way::SigqueueFromOutside,
        Way::TgkillFromOutside,
    ];

    /// For the calling thread and no other of its process.
    pub fn is_for_thread(self) -> bool {
        matches!(self, Way::Raise | Way::PthreadKill | Way::TgkillFromOutside)
    }

    /// The kernel delivers it before the sender's own system call comes back.
    pub fn is_synchronous(self) -> bool {
        matches!(self, Way::Kill | Way::Killpg | Way::Sigqueue | Way::Raise)
    }

    /// Sends; returns when it has been queued, with the sender's process id.
    #[inline(never)]
    pub fn send(self, sig: i32, value: usize) -> i32 {
        let (pid, tid) = (common::getpid(), common::gettid());
        let ok = |r: c_int, what: &str| assert_eq!(r, 0, "{what}({sig}): {}", std::io::Error::last_os_error());
        match self {
            Way::Kill => ok(unsafe { libc::kill(pid, sig) }, "kill"),
            Way::Killpg => ok(unsafe { libc::killpg(libc::getpgrp(), sig) }, "killpg"),
            Way::Sigqueue => ok(queue(pid, sig, value), "sigqueue"),
            Way::Raise => ok(unsafe { libc::raise(sig) }, "raise"),
            Way::PthreadKill => {
                let me = unsafe { libc::pthread_self() };
                let r = common::unsignalled(move || unsafe { libc::pthread_kill(me, sig) }).join();
                ok(r.expect("it sends and ends"), "pthread_kill");
            }
            Way::KillFromOutside => return outside(|| unsafe { libc::kill(pid, sig) }),
            Way::SigqueueFromOutside => return outside(|| queue(pid, sig, value)),
            Way::TgkillFromOutside => {
                return outside(|| unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, sig) as c_int });
            }
        }
        pid
    }
}

/// sigqueue(3).
pub fn queue(pid: i32, sig: i32, value: usize) -> c_int {
    unsafe { libc::sigqueue(pid, sig, libc::sigval { sival_ptr: value as *mut c_void }) }
}

/// tgkill(2) to a thread of this process.
pub fn to_thread(tid: i32, sig: i32) {
    let r = unsafe { libc::syscall(libc::SYS_tgkill, common::getpid(), tid, sig) };
    assert_eq!(r, 0, "tgkill({tid}, {sig}): {}", std::io::Error::last_os_error());
}

/// Runs `f` in another process, which tells nobody when it ends, and waits for it; its id. Only system calls may be made there.
fn outside(f: impl FnOnce() -> c_int) -> i32 {
    // A clone without flags is a fork whose end raises no SIGCHLD; qemu-user refuses that. The mask stays as it is: the kernel picks a thread by it.
    let flags = if common::emulated() { libc::SIGCHLD as usize } else { 0 };
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0usize, 0usize, 0usize, 0usize) } as i32;
    if pid == 0 {
        let r = f();
        unsafe { libc::_exit(i32::from(r != 0)) };
    }
    assert!(pid > 0, "clone");
    let mut status = 0;
    while unsafe { libc::waitpid(pid, &mut status, libc::__WALL) } != pid {
        // While what was sent interrupts a scope of this thread, again and again, a call that is made anew ends so.
        let errno = std::io::Error::last_os_error().raw_os_error();
        assert!(matches!(errno, Some(libc::EINTR | libc::ECANCELED)), "waitpid: {errno:?}");
    }
    assert_eq!(status, 0, "the process outside could not send");
    pid
}

/// Forks a child, in a process group of its own, with no other thread: what is sent to the process is delivered to the calling one. A panic
/// there is told on stderr. Returns the status word.
pub fn child(f: impl FnOnce()) -> c_int {
    common::reap(spawn_child(f))
}

/// [`child`] that is still running.
pub fn spawn_child(f: impl FnOnce()) -> libc::pid_t {
    common::fork(|| {
        unsafe {
            libc::setpgid(0, 0);
            let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            libc::setrlimit(libc::RLIMIT_CORE, &none);
        }
        // Whatever the tests were started with: nohup ignores SIGHUP, a shell's background job SIGINT.
        for sig in (1..=64).filter(|sig| ![libc::SIGKILL, libc::SIGSTOP, libc::SIGPIPE].contains(sig)) {
            if common::action(sig).handler == libc::SIG_IGN {
                common::restore(sig, common::Action::default());
            }
        }
        common::set_mask(0);
        // The harness's own hook would write into a buffer that ends with this process.
        std::panic::set_hook(Box::new(|panic| {
            let text = format!("in the child: {panic}\n");
            unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
        }));
        f();
        0
    })
}

/// The child's body ran to its end.
#[track_caller]
pub fn well(status: c_int) {
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "{}", tell(status));
}

/// The child was killed by `sig`, as its parent is told.
#[track_caller]
pub fn killed_by(sig: i32, status: c_int) {
    assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == sig, "not killed by {sig}: {}", tell(status));
}

pub fn tell(status: c_int) -> String {
    if libc::WIFSIGNALED(status) {
        let hang = if libc::WTERMSIG(status) == libc::SIGALRM { " (its watchdog: it hung)" } else { "" };
        format!("the child was killed by signal {}{hang}", libc::WTERMSIG(status))
    } else {
        format!("the child ended with status {}", libc::WEXITSTATUS(status))
    }
}

/// A plain read of an empty pipe is ended by the scope's remote, however often that takes; the scope is cleared afterwards.
#[track_caller]
pub fn a_read_is_ended(scope: &Scope) {
    let (empty, _writer) = common::pipe();
    let (remote, reader, done) = (scope.remote(), common::gettid(), AtomicBool::new(false));
    let read = std::thread::scope(|threads| {
        threads.spawn(|| {
            common::set_mask(!0);
            common::wait_blocked_in(reader, libc::SYS_read);
            common::until(&done, || {
                remote.interrupt();
            });
        });
        let read = common::plain_read(&empty);
        done.store(true, SeqCst);
        read
    });
    assert_eq!((read, scope.clear().map(|i| i.reason())), (Err(libc::EINTR), Some(Reason::Remote)));
}

/// Numbers that a child and its parent both see.
#[derive(Debug)]
#[repr(C)]
pub struct Shared {
    pub count: [AtomicU64; 64],
}

/// A page shared with the children forked from now on, zeroed. It stays mapped.
pub fn shared() -> &'static Shared {
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    let page = unsafe { libc::mmap(std::ptr::null_mut(), size_of::<Shared>(), access, kind, -1, 0) };
    assert_ne!(page, libc::MAP_FAILED);
    unsafe { &*page.cast::<Shared>() }
}

/// Takes one signal of `sig` from the queues of the calling thread, its own first, then the process's; the number must be blocked.
pub fn take(sig: i32) -> Option<Info> {
    let (set, mut info) = (common::bit(sig), Info::default());
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let r = unsafe { libc::syscall(libc::SYS_rt_sigtimedwait, &set, &mut info, &now, 8usize) };
    (r == sig as libc::c_long).then_some(info)
}

/// Takes all.
pub fn take_all(sig: i32) -> Vec<Info> {
    std::iter::from_fn(|| take(sig)).collect()
}

/// Waits for one, for ever.
pub fn wait_for(sig: i32) -> Info {
    let (set, mut info) = (common::bit(sig), Info::default());
    loop {
        let r = unsafe { libc::syscall(libc::SYS_rt_sigtimedwait, &set, &mut info, 0usize, 8usize) };
        if r == sig as libc::c_long {
            return info;
        }
        assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EINTR), "rt_sigtimedwait");
    }
}

/// Calls `body` in such a way that `siglongjmp(jump, 1)` in it, or in a signal handler above it, ends the call: false if it was ended so. The two
/// returns of sigsetjmp(3) are both in here, out of the compiler's sight. No frame that `body` makes may have a destructor.
pub fn until_longjmp(jump: &mut Jump, body: extern "C" fn()) -> bool {
    jump_target(jump, body, 1)
}

/// The same, but the jump does not put the mask back: it is the handler's from there on.
pub fn until_longjmp_with_mask(jump: &mut Jump, body: extern "C" fn()) -> bool {
    jump_target(jump, body, 0)
}

fn jump_target(jump: &mut Jump, body: extern "C" fn(), save_mask: i32) -> bool {
    unsafe extern "C" {
        fn __sigsetjmp(jump: *mut Jump, save_mask: i32) -> i32;
    }
    // In: rdi the buffer, rsi the body, edx whether the mask is saved. rbx keeps the body, and keeps the stack aligned; siglongjmp brings it back.
    #[cfg(target_arch = "x86_64")]
    #[unsafe(naked)]
    unsafe extern "C" fn call(jump: *mut Jump, body: extern "C" fn(), save_mask: i32) -> i32 {
        std::arch::naked_asm!(
            "push rbx",
            "mov rbx, rsi",
            "mov esi, edx",
            "call {set}@PLT",
            "test eax, eax",
            "jnz 2f",
            "call rbx",
            "xor eax, eax",
            "2: pop rbx",
            "ret",
            set = sym __sigsetjmp,
        )
    }
    // In: x0 the buffer, x1 the body, which x19 keeps, w2 whether the mask is saved.
    #[cfg(target_arch = "aarch64")]
    #[unsafe(naked)]
    unsafe extern "C" fn call(jump: *mut Jump, body: extern "C" fn(), save_mask: i32) -> i32 {
        std::arch::naked_asm!(
            "stp x29, x30, [sp, #-32]!",
            "str x19, [sp, #16]",
            "mov x19, x1",
            "mov w1, w2",
            "bl {set}",
            "cbnz w0, 2f",
            "blr x19",
            "mov w0, #0",
            "2: ldr x19, [sp, #16]",
            "ldp x29, x30, [sp], #32",
            "ret",
            set = sym __sigsetjmp,
        )
    }
    JUMP.store(jump, SeqCst);
    unsafe { call(jump, body, save_mask) == 0 }
}

/// Room for a sigjmp_buf of either architecture.
#[repr(C, align(16))]
#[derive(Debug)]
pub struct Jump([u64; 64]);

impl Jump {
    pub const ZERO: Jump = Jump([0; 64]);

    #[allow(clippy::new_without_default)] // it is what a jump needs, not a value
    pub fn new() -> Jump {
        Jump::ZERO
    }
}

static JUMP: AtomicPtr<Jump> = AtomicPtr::new(std::ptr::null_mut());
static JUMPS: AtomicU64 = AtomicU64::new(0);

/// How often [`jumping`] ran.
pub fn jumps() -> u64 {
    JUMPS.load(SeqCst)
}

/// A handler that leaves by siglongjmp(3), out of the last [`until_longjmp`].
pub extern "C" fn jumping(_: c_int) {
    unsafe extern "C" {
        fn siglongjmp(jump: *mut Jump, value: i32) -> !;
    }
    JUMPS.fetch_add(1, SeqCst);
    unsafe { siglongjmp(JUMP.load(SeqCst), 1) }
}

/// The last real-time number. An emulator has two fewer than it says.
pub fn last_number() -> i32 {
    if common::emulated() { libc::SIGRTMAX() - 2 } else { libc::SIGRTMAX() }
}

/// The numbers that the tests are made with: a standard one and a real-time one.
pub fn numbers() -> [i32; 2] {
    [libc::SIGUSR1, libc::SIGRTMIN() + 3]
}

pub fn is_standard(sig: i32) -> bool {
    sig < 32
}
