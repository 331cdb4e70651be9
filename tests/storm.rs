//! The storm: a thread in a blocking read is interrupted once at a time, at random instants, among foreign signals whose handlers lie on top, with
//! the process stopped and continued and the thread attached to by a tracer meanwhile. None is lost; of the naive twin's some are.
//!
//! `EINTR_STORM` says how many interrupts are made; without it 200,000, or as many as a minute allows.
// Tests install handlers, fork, and send signals by bare calls.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;

use common::Random;
use eintr::{Delivery, Remote, Scope};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// Foreign, and its handler restarts: the lower number, so that the kernel builds its frame first and ours lands on top of it.
const FOREIGN: i32 = libc::SIGUSR1;

/// One run of the storm.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// By hand: a flag, a handler that does nothing, and a signal.
    naive: bool,
    sig: i32,
    /// A handler without SA_RESTART stands behind ours, instead of the default.
    behind: bool,
    /// The foreign handler makes an interruptible call of its own.
    nested: bool,
}

/// Shared by the stormy process and the one that torments it.
#[repr(C)]
#[derive(Debug)]
struct Shared {
    /// The scoped thread reads, so tormenting may begin.
    ready: AtomicBool,
    over: AtomicBool,
    asked: AtomicU64,
    acknowledged: AtomicU64,
    lost: AtomicU64,
    written: AtomicU64,
    read: AtomicU64,
    bytes_lost: AtomicU64,
    foreign: AtomicU64,
    behind: AtomicU64,
    /// A descriptor that has nothing to read and does not block, for the nested calls; 0: none.
    nested_fd: AtomicI32,
}

static SHARED: AtomicPtr<Shared> = AtomicPtr::new(std::ptr::null_mut());
/// The naive twin's.
static FLAG: AtomicBool = AtomicBool::new(false);

fn shared() -> &'static Shared {
    // Mapped by `map_shared` and never unmapped; zeroes are valid.
    unsafe { &*SHARED.load(SeqCst) }
}

fn map_shared() -> &'static Shared {
    let (size, protection) = (size_of::<Shared>(), libc::PROT_READ | libc::PROT_WRITE);
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    let at = unsafe { libc::mmap(std::ptr::null_mut(), size, protection, flags, -1, 0) };
    assert!(at != libc::MAP_FAILED);
    SHARED.store(at.cast(), SeqCst);
    shared()
}

extern "C" fn on_foreign(_: i32) {
    let errno = unsafe { *libc::__errno_location() };
    let shared = shared();
    shared.foreign.fetch_add(1, SeqCst);
    let fd = shared.nested_fd.load(SeqCst);
    if fd > 0 {
        // Open as long as the process lives. EAGAIN, or an interrupt that is the outer call's.
        let _ = eintr::sys::read(unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) }, &mut [0]);
    }
    unsafe { *libc::__errno_location() = errno };
}

extern "C" fn on_behind(_: i32) {
    shared().behind.fetch_add(1, SeqCst);
}

extern "C" fn on_naive(_: i32) {}

/// The naive twin's read: `None` if the flag was up.
fn naive_read(fd: &OwnedFd, buf: &mut [u8]) -> Option<usize> {
    loop {
        if FLAG.swap(false, SeqCst) {
            return None;
        }
        match nix::unistd::read(fd, buf) {
            Ok(n) => return Some(n),
            Err(nix::errno::Errno::EINTR) => {}
            Err(e) => panic!("read: {e}"),
        }
    }
}

fn sys_read(fd: &OwnedFd, buf: &mut [u8]) -> Option<usize> {
    match eintr::sys::read(fd.as_fd(), buf) {
        Ok(n) => Some(n),
        Err(e) => {
            assert!(e.interrupted().is_some(), "read: {e}");
            None
        }
    }
}

// The stormy process.

fn storm(run: Run, interrupts: u64, limit: Duration, seed: u64) -> i32 {
    let shared = shared();
    let install =
        |sig, handler: extern "C" fn(i32), flags| common::install(sig, handler as *const () as usize, flags, &[]);
    install(FOREIGN, on_foreign, libc::SA_RESTART);
    if run.naive {
        install(run.sig, on_naive, 0);
    } else if run.behind {
        install(run.sig, on_behind, 0);
    }
    let scope = (!run.naive).then(|| Scope::enter(run.sig).expect("enter"));
    if run.nested {
        let (reader, writer) = common::pipe();
        assert_eq!(unsafe { libc::fcntl(reader.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) }, 0);
        shared.nested_fd.store(reader.as_raw_fd(), SeqCst);
        std::mem::forget((reader, writer));
    }
    let (reader, writer) = common::pipe();
    let tid = common::gettid();
    let remote = scope.as_ref().map(Scope::remote);
    let target = Target { run, tid, remote, writer };
    let foreign = common::unsignalled(move || send_foreign(tid, seed));
    let interrupter = common::unsignalled(move || target.interrupt_again_and_again(interrupts, limit, seed));
    shared.ready.store(true, SeqCst);
    let mut buf = [0; 16];
    while !shared.over.load(SeqCst) {
        match if run.naive { naive_read(&reader, &mut buf) } else { sys_read(&reader, &mut buf) } {
            Some(n) => _ = shared.read.fetch_add(n as u64, SeqCst),
            None => {
                if let Some(scope) = &scope {
                    assert!(scope.clear().is_some(), "interrupted, and nothing to clear");
                }
                shared.acknowledged.fetch_add(1, SeqCst);
            }
        }
    }
    interrupter.join().expect("the interrupter ends");
    foreign.join().expect("the foreign sender ends");
    0
}

/// Foreign signals to the thread at random short gaps.
fn send_foreign(tid: libc::pid_t, seed: u64) {
    let mut random = Random::seeded(seed ^ 0x5bd1_e995);
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
    while !shared().over.load(SeqCst) {
        unsafe { libc::syscall(libc::SYS_tgkill, common::getpid(), tid, FOREIGN) };
        std::thread::sleep(Duration::from_nanos(random.below(60_000)));
    }
}

/// The thread in its read, as the interrupting thread has it.
struct Target {
    run: Run,
    tid: libc::pid_t,
    remote: Option<Remote>,
    writer: OwnedFd,
}

impl Target {
    fn interrupt_again_and_again(&self, interrupts: u64, limit: Duration, seed: u64) {
        let (mut random, began, shared) = (Random::seeded(seed), Instant::now(), shared());
        for n in 1..=interrupts {
            // Mostly so short that the thread is on its way into the call, at times so long that it sleeps there.
            let gap = if random.chance(4) { random.below(20_000) } else { random.below(1_500) };
            let until = Instant::now() + Duration::from_nanos(gap);
            while Instant::now() < until {
                std::hint::spin_loop();
            }
            let byte = random.chance(8);
            if byte && random.chance(2) {
                self.write();
            }
            shared.asked.store(n, SeqCst);
            if random.chance(4) {
                // Right before ours: the two are often pending together.
                unsafe { libc::syscall(libc::SYS_tgkill, common::getpid(), self.tid, FOREIGN) };
            }
            self.interrupt();
            if byte && shared.written.load(SeqCst) == shared.read.load(SeqCst) {
                self.write();
            }
            while !self.waits_for(|| shared.acknowledged.load(SeqCst) == n) {
                let lost = shared.lost.fetch_add(1, SeqCst) + 1;
                if !self.run.naive {
                    eprintln!("STORM lost {lost}, at interrupt {n}");
                }
                self.write(); // its read returns, and the next one looks at flag or `pending`
            }
            if !self.waits_for(|| shared.written.load(SeqCst) == shared.read.load(SeqCst)) {
                // It sleeps in its read, so there is nothing to be read.
                let missing = shared.written.load(SeqCst) - shared.read.swap(shared.written.load(SeqCst), SeqCst);
                eprintln!("STORM bytes lost: {missing}, at interrupt {n}");
                shared.bytes_lost.fetch_add(missing, SeqCst);
            }
            if n % 64 == 0 && began.elapsed() >= limit {
                break;
            }
        }
        shared.over.store(true, SeqCst);
        self.write();
    }

    fn write(&self) {
        shared().written.fetch_add(1, SeqCst);
        assert_eq!(unsafe { libc::write(self.writer.as_raw_fd(), [7u8].as_ptr().cast(), 1) }, 1);
    }

    fn interrupt(&self) {
        match &self.remote {
            Some(remote) => assert_eq!(remote.interrupt_once(), Delivery::Sent, "nothing is on its way"),
            None => {
                FLAG.store(true, SeqCst);
                unsafe { libc::syscall(libc::SYS_tgkill, common::getpid(), self.tid, self.run.sig) };
            }
        }
    }

    /// Waits until the thread has done it. `false`: for as long as the patience lasts it has not, and it sleeps in its read with no signal pending.
    fn waits_for(&self, done: impl Fn() -> bool) -> bool {
        let patience = if self.run.naive { Duration::from_millis(1) } else { Duration::from_secs(1) };
        let began = Instant::now();
        for look in 0u64.. {
            if done() {
                return true;
            }
            if look < 2000 {
                std::hint::spin_loop();
            } else if look % 64 == 0 && began.elapsed() >= patience && self.sleeps() {
                return done(); // it may have done it, and then fallen asleep
            } else {
                std::thread::yield_now();
            }
        }
        unreachable!("looked for ever")
    }

    /// Not one that stands for a tracer: such a one has its call, too.
    fn sleeps(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/self/task/{}/stat", self.tid)).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" S"))
            && common::blocked_in(self.tid) == libc::SYS_read
            && common::status_bits(self.tid, "SigPnd:") & (common::bit(self.run.sig) | common::bit(FOREIGN)) == 0
    }
}

// The process that torments.

/// What was done to the stormy process.
#[derive(Debug, Default)]
struct Torments {
    stopped: u64,
    attached: u64,
    /// Signals that were on their way to the thread as it stopped for the tracer, and were passed on.
    passed: u64,
}

/// Stops and continues it, and attaches to its main thread and detaches, until it has ended: its status.
fn torment(pid: libc::pid_t, random: &mut Random, torments: &mut Torments) -> i32 {
    let mut may_trace = true;
    loop {
        let mut status = 0;
        match unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) } {
            0 => {}
            r => {
                assert_eq!(r, pid, "waitpid: {}", std::io::Error::last_os_error());
                return status;
            }
        }
        std::thread::sleep(Duration::from_micros(500 + random.below(4000)));
        if !shared().ready.load(SeqCst) || shared().over.load(SeqCst) {
            continue;
        }
        if random.chance(2) {
            unsafe { libc::kill(pid, libc::SIGSTOP) };
            std::thread::sleep(Duration::from_micros(random.below(200)));
            unsafe { libc::kill(pid, libc::SIGCONT) };
            torments.stopped += 1;
        } else if may_trace {
            may_trace = attach(pid, torments);
        }
    }
}

/// Attaches to the main thread, stops it wherever it is, and detaches. `false`, said aloud: not permitted.
fn attach(pid: libc::pid_t, torments: &mut Torments) -> bool {
    let ask = |request, data: i32| unsafe { libc::ptrace(request, pid, 0usize, data as usize) };
    if ask(libc::PTRACE_SEIZE, 0) != 0 {
        let e = std::io::Error::last_os_error();
        if e.raw_os_error() != Some(libc::ESRCH) {
            println!("SKIPPED: attaching to a thread in the storm: ptrace(2) is not permitted here: {e}");
        }
        return e.raw_os_error() == Some(libc::ESRCH);
    }
    ask(libc::PTRACE_INTERRUPT, 0);
    loop {
        let mut status = 0;
        let r = unsafe { libc::waitpid(pid, &mut status, libc::__WALL) };
        assert!(r == pid && libc::WIFSTOPPED(status), "the stormy process ended under its tracer: {status:#x}");
        if status >> 16 == libc::PTRACE_EVENT_STOP {
            ask(libc::PTRACE_DETACH, 0);
            torments.attached += 1;
            return true;
        }
        torments.passed += 1;
        ask(libc::PTRACE_CONT, libc::WSTOPSIG(status));
    }
}

/// Runs one storm in a process of its own.
fn run(run: Run, interrupts: u64, limit: Duration) -> &'static Shared {
    let (mut random, shared, mut torments) = (Random::new(), map_shared(), Torments::default());
    let seed = random.next();
    let pid = common::fork(|| {
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            libc::alarm(0); // the watchdog of the test, and with it the line above, are enough
        }
        storm(run, interrupts, limit, seed)
    });
    let status = torment(pid, &mut random, &mut torments);
    println!("{run:?}: {shared:?}, {torments:?}");
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "the stormy process: status {status:#x}");
    assert!(torments.stopped > 0, "it was over before it was tormented");
    assert_eq!(shared.behind.load(SeqCst), 0, "signals of ours that reached the action behind");
    assert!(shared.foreign.load(SeqCst) > 0);
    assert_eq!(shared.bytes_lost.load(SeqCst), 0, "bytes that an interrupt has cost");
    shared
}

#[test]
fn no_interrupt_is_lost_in_the_storm() {
    let asked_for = common::rounds("EINTR_STORM", 0);
    let (interrupts, limit) = match asked_for {
        0 => (common::affordable(200_000), Duration::from_secs(60)),
        n => (n, Duration::from_secs(60 + n / 500)),
    };
    let _t = common::begin_with(limit * 2 + Duration::from_secs(60));
    let plain = Run { naive: false, sig: libc::SIGUSR2, behind: false, nested: false };
    let runs = [
        plain,
        Run { behind: true, ..plain },
        Run { nested: true, ..plain },
        Run { sig: libc::SIGRTMIN() + 5, ..plain },
    ];
    let parts = runs.len() as u64;
    let (mut made, mut lost) = (0, 0);
    for one in runs {
        let shared = run(one, interrupts.div_ceil(parts), limit / parts as u32);
        made += shared.acknowledged.load(SeqCst);
        lost += shared.lost.load(SeqCst);
    }
    println!("storm: {made} interrupts, {lost} lost");
    assert_eq!(lost, 0, "of {made} interrupts");
    assert!(made >= interrupts / 4, "{made} interrupts in {limit:?}: too few to say anything");
}

/// The same storm without the crate. A thousand interrupts are more than enough.
#[test]
fn the_naive_twin_loses_in_the_same_storm() {
    let _t = common::begin_with(Duration::from_secs(120));
    let naive = Run { naive: true, sig: libc::SIGUSR2, behind: false, nested: false };
    let shared = run(naive, 20_000, Duration::from_secs(5));
    let (made, lost) = (shared.acknowledged.load(SeqCst), shared.lost.load(SeqCst));
    println!("naive: {made} interrupts, {lost} lost");
    assert!(lost > 0, "the naive twin is not seen to lose in {made} interrupts: then the other proves nothing");
}
