//! What every test file shares: a watchdog, one test at a time, the state of the process as the kernel tells it, and processes of one's own.
//!
//! A test begins with `let _t = common::begin();`. It then runs alone in its process, and a hang of more than a minute aborts loudly. What an
//! emulated machine asks for is in `emulation`.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block
)]

mod emulation;
#[allow(unused_imports)] // not every file needs each
pub use emulation::{
    affordable, emulated, look_alike, number_from_proc, number_in_proc, patience, program, set_from_proc,
    skipped_if_emulated,
};

use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, mpsc};
use std::time::{Duration, Instant};

/// Aborts the process, saying which test hung, unless it is dropped in time: within the limit, or [`patience`] with it.
#[derive(Debug)]
pub struct Watchdog {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watchdog {
    pub fn new(limit: Duration) -> Watchdog {
        let limit = patience(limit);
        let name = std::thread::current().name().unwrap_or("?").to_owned();
        let (stop, stopped) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        let thread = unsignalled(move || {
            let _ = tell.send(());
            if stopped.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("WATCHDOG: {name} hangs for {limit:?}; threads:");
                for t in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
                    let syscall = std::fs::read_to_string(t.path().join("syscall")).unwrap_or_default();
                    eprintln!("  {:?}: {}", t.file_name(), syscall.trim());
                }
                std::process::abort();
            }
        });
        // Not before it runs: an emulator's lock that a thread takes as it starts would stay locked in a child that is forked meanwhile.
        let _ = told.recv();
        Watchdog { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(t) = self.thread.take() {
            let _ = t.join();
        }
    }
}

/// Starts a thread with every signal blocked, so that process-directed ones never pick it.
pub fn unsignalled<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> std::thread::JoinHandle<T> {
    let old = set_mask(!0);
    let thread = std::thread::spawn(f);
    set_mask(old);
    thread
}

#[derive(Debug)]
pub struct Test {
    _watchdog: Watchdog,
    _alone: MutexGuard<'static, ()>,
}

/// Runs the calling test alone among the tests of this process that do the same, with a watchdog of 60 s.
pub fn begin() -> Test {
    begin_with(Duration::from_secs(60))
}

pub fn begin_with(limit: Duration) -> Test {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    Test { _watchdog: Watchdog::new(limit), _alone: alone }
}

pub fn gettid() -> libc::pid_t {
    unsafe { libc::syscall(libc::SYS_gettid) as libc::pid_t }
}

pub fn getpid() -> libc::pid_t {
    unsafe { libc::syscall(libc::SYS_getpid) as libc::pid_t }
}

/// The kernel's sigaction, every bit of it. Two are equal if every bit with a meaning is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Action {
    pub handler: usize,
    pub flags: u64,
    pub restorer: usize,
    pub mask: u64,
}

impl PartialEq for Action {
    fn eq(&self, other: &Action) -> bool {
        // glibc on aarch64 does not set the flag and hands over whatever lies in the word, which the kernel keeps and never uses.
        const SA_RESTORER: u64 = 0x0400_0000;
        let way_back = |action: &Action| if action.flags & SA_RESTORER != 0 { action.restorer } else { 0 };
        let all = |action: &Action| (action.handler, action.flags, action.mask, way_back(action));
        all(self) == all(other)
    }
}
impl Eq for Action {}

/// The action of `sig`, asked of the kernel itself.
pub fn action(sig: i32) -> Action {
    let mut a = Action::default();
    let r = unsafe { libc::syscall(libc::SYS_rt_sigaction, sig, std::ptr::null::<Action>(), &mut a, 8usize) };
    assert_eq!(r, 0, "rt_sigaction({sig})");
    a
}

/// Installs an action through libc; gives the one before it.
pub fn install(sig: i32, handler: usize, flags: i32, mask: &[i32]) -> Action {
    let before = action(sig);
    unsafe {
        let mut a: libc::sigaction = std::mem::zeroed();
        a.sa_sigaction = handler;
        a.sa_flags = flags;
        libc::sigemptyset(&mut a.sa_mask);
        for s in mask {
            libc::sigaddset(&mut a.sa_mask, *s);
        }
        assert_eq!(libc::sigaction(sig, &a, std::ptr::null_mut()), 0);
    }
    before
}

/// Puts back what [`install`] gave, by the kernel's own call.
pub fn restore(sig: i32, a: Action) {
    let r = unsafe { libc::syscall(libc::SYS_rt_sigaction, sig, &a, std::ptr::null::<Action>(), 8usize) };
    assert_eq!(r, 0);
}

pub fn bit(sig: i32) -> u64 {
    1 << (sig - 1)
}

/// Sets the calling thread's mask, all 64 bits; gives the one before.
pub fn set_mask(mask: u64) -> u64 {
    let mut old = 0u64;
    let r = unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &mask, &mut old, 8usize) };
    assert_eq!(r, 0);
    old
}

pub fn block(sig: i32) -> u64 {
    let old = mask();
    set_mask(old | bit(sig))
}

pub fn unblock(sig: i32) -> u64 {
    let old = mask();
    set_mask(old & !bit(sig))
}

pub fn mask() -> u64 {
    let mut old = 0u64;
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, std::ptr::null::<u64>(), &mut old, 8usize) };
    old
}

/// A field of /proc/self/task/TID/status as a bit set: SigBlk, SigPnd, ShdPnd, SigIgn, SigCgt.
pub fn status_bits(tid: libc::pid_t, field: &str) -> u64 {
    let s = std::fs::read_to_string(format!("/proc/self/task/{tid}/status")).expect("the thread lives");
    let line = s.lines().find(|l| l.starts_with(field)).expect("a field of status");
    set_from_proc(u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap())
}

/// Every action of the process and the calling thread's mask and pending signals, as the kernel and /proc tell them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub actions: Vec<Action>,
    pub blocked: u64,
    pub pending: u64,
    pub caught: u64,
    pub ignored: u64,
}

impl State {
    pub fn now() -> State {
        let tid = gettid();
        State {
            actions: (1..=64).filter(|s| ![9, 19].contains(s)).map(action).collect(),
            // An emulator never blocks what it needs itself.
            blocked: if emulated() { mask() } else { status_bits(tid, "SigBlk:") },
            pending: status_bits(tid, "SigPnd:") | status_bits(tid, "ShdPnd:"),
            caught: status_bits(tid, "SigCgt:"),
            ignored: status_bits(tid, "SigIgn:"),
        }
    }
}

/// Waits until thread `tid` sleeps in system call `nr`, as /proc tells.
pub fn wait_blocked_in(tid: libc::pid_t, nr: libc::c_long) {
    wait_until(|| is_blocked_in(tid, nr));
}

/// Whether thread `tid` sleeps in system call `nr`, as /proc tells.
pub fn is_blocked_in(tid: libc::pid_t, nr: libc::c_long) -> bool {
    shown_at(&format!("/proc/self/task/{tid}")) == number_in_proc(nr)
}

/// The system call that thread `tid` sleeps in, as /proc tells; -1 if it runs or is gone.
pub fn blocked_in(tid: libc::pid_t) -> libc::c_long {
    number_from_proc(shown_at(&format!("/proc/self/task/{tid}")))
}

/// [`wait_blocked_in`] for the main thread of another process.
pub fn wait_process_blocked_in(pid: libc::pid_t, nr: libc::c_long) {
    wait_until(|| shown_at(&format!("/proc/{pid}")) == number_in_proc(nr));
}

fn shown_at(directory: &str) -> libc::c_long {
    let s = std::fs::read_to_string(format!("{directory}/syscall")).unwrap_or_default();
    s.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(-1)
}

/// Waits until `done` says so; the watchdog of the test bounds it.
pub fn wait_until(mut done: impl FnMut() -> bool) {
    while !done() {
        std::thread::yield_now();
    }
}

pub fn pipe() -> (std::os::fd::OwnedFd, std::os::fd::OwnedFd) {
    use std::os::fd::FromRawFd;
    let mut fds = [0; 2];
    unsafe {
        assert_eq!(libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC), 0);
        (std::os::fd::OwnedFd::from_raw_fd(fds[0]), std::os::fd::OwnedFd::from_raw_fd(fds[1]))
    }
}

/// One plain `read(2)` of at most 64 bytes: the count, or errno. Never retried.
pub fn plain_read(fd: &impl std::os::fd::AsRawFd) -> Result<usize, i32> {
    let mut buf = [0u8; 64];
    let n = unsafe { libc::read(fd.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len()) };
    if n < 0 { Err(std::io::Error::last_os_error().raw_os_error().unwrap()) } else { Ok(n as usize) }
}

/// One plain `ppoll(2)` for something to read, without end, never retried: unlike a read it is ended by every signal that runs a handler, with SA_RESTART
/// or without (signal(7)). `Err`: errno.
pub fn plain_wait(fd: &impl std::os::fd::AsRawFd) -> Result<(), i32> {
    let mut ready = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let (forever, as_it_is) = (std::ptr::null::<libc::timespec>(), std::ptr::null::<u64>());
    let n = unsafe { libc::syscall(libc::SYS_ppoll, &mut ready, 1, forever, as_it_is, 8usize) };
    if n < 0 { Err(std::io::Error::last_os_error().raw_os_error().unwrap()) } else { Ok(()) }
}

const CHILD: &str = "EINTR_TEST_CHILD";

/// Whether this process was started by [`own_process`] for the test of that name.
pub fn is_child(test: &str) -> bool {
    std::env::var(CHILD).is_ok_and(|v| v == test)
}

/// Runs `body` in a process of its own: this test binary again, with only the test `test` (which must be the caller's name). In the child, `body`
/// runs and the process exits with 0; in the parent, the status of the child and what it wrote come back. The child kills itself after a minute.
pub fn own_process(test: &str, body: impl FnOnce()) -> (ExitStatus, String) {
    if is_child(test) {
        unsafe { libc::alarm(patience(Duration::from_secs(60)).as_secs() as u32) };
        body();
        std::process::exit(0);
    }
    let out = program(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, test)
        .stdin(Stdio::null())
        .output()
        .expect("the test binary starts again");
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    (out.status, text)
}

/// [`own_process`] that must end with status 0.
pub fn in_own_process(test: &str, body: impl FnOnce()) {
    let (status, text) = own_process(test, body);
    assert!(status.success(), "{test} in its own process: {status}\n{text}");
}

/// How long a forked child may live.
const CHILDS_LIMIT: Duration = Duration::from_secs(50);

/// Forks; the child runs `f` and exits with what it returns, never unwinding into the test harness; SIGALRM ends it after 50 s.
pub fn fork(f: impl FnOnce() -> i32) -> libc::pid_t {
    let limit = patience(CHILDS_LIMIT).as_secs() as u32;
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork");
    if pid == 0 {
        unsafe { libc::alarm(limit) };
        let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).unwrap_or(101);
        unsafe { libc::_exit(code) };
    }
    pid
}

/// Waits for a child; its raw status word as of waitpid(2).
pub fn reap(pid: libc::pid_t) -> i32 {
    let mut status = 0;
    loop {
        let r = unsafe { libc::waitpid(pid, &mut status, 0) };
        if r == pid {
            return status;
        }
        // In a scope with an interrupt that nobody has acknowledged a call that is made anew ends with ECANCELED.
        let errno = std::io::Error::last_os_error().raw_os_error();
        assert!(matches!(errno, Some(libc::EINTR | libc::ECANCELED)), "waitpid: {errno:?}");
    }
}

/// [`reap`] that must not wait for ever: a child that is still there after 50 s is killed, and the caller panics. Its alarm does not do: who
/// hangs with every signal blocked does not hear it.
pub fn reap_in_time(pid: libc::pid_t) -> i32 {
    let (child, limit) =
        (unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) } as i32, Instant::now() + patience(CHILDS_LIMIT));
    assert!(child >= 0, "pidfd_open");
    loop {
        let mut ready = libc::pollfd { fd: child, events: libc::POLLIN, revents: 0 };
        let left = limit.saturating_duration_since(Instant::now()).as_millis() as i32;
        if unsafe { libc::poll(&mut ready, 1, left) } == 1 {
            unsafe { libc::close(child) };
            return reap(pid);
        }
        if left == 0 {
            let at = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
            unsafe { libc::kill(pid, libc::SIGKILL) };
            reap(pid);
            panic!("child {pid} hung in system call {}", at.trim());
        }
    }
}

/// How often to repeat: the variable's value, or `default`, which is less where everything is slow.
pub fn rounds(variable: &str, default: u64) -> u64 {
    variable_or(variable, emulation::affordable(default))
}

fn variable_or(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// A small generator, seeded by the clock and printed, so that a failure can be repeated with EINTR_SEED.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    pub fn new() -> Random {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
        let seed = variable_or("EINTR_SEED", now);
        eprintln!("EINTR_SEED={seed}");
        Random(seed | 1)
    }
    pub fn seeded(seed: u64) -> Random {
        Random(seed | 1)
    }
    pub fn next(&mut self) -> u64 {
        // xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled", 2016)
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    pub fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }
}

/// Interrupts with `send` again and again until `done`, for plain calls that have no window: returns how often.
pub fn until(done: &AtomicBool, mut send: impl FnMut()) -> u64 {
    let mut n = 0;
    while !done.load(Ordering::SeqCst) {
        send();
        n += 1;
        std::thread::sleep(Duration::from_micros(200));
    }
    n
}

pub fn since(at: Instant) -> Duration {
    at.elapsed()
}
