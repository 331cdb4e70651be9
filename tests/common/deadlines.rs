//! What the tests of deadlines share: times, looks, a sender beside the thread, the kernel's timers, and a queue without room. A test file takes it by
//! `#[path = "common/deadlines.rs"] mod deadlines;` beside `mod common;`.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block
)]

use crate::common;
use eintr::{Interrupted, Reason, Resend};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub const HOUR: Duration = Duration::from_secs(3600);
/// Pauses that no test lives to see the end of.
pub const HOURS: Resend = Resend::Backoff { first: HOUR, ceiling: HOUR };

pub const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub const fn us(n: u64) -> Duration {
    Duration::from_micros(n)
}

/// Runs until then, in user space.
pub fn spin_until(at: Instant) {
    while Instant::now() < at {
        std::hint::spin_loop();
    }
}

/// Why `check` fails, if it does.
pub fn told() -> Option<Reason> {
    eintr::check().err().map(Interrupted::reason)
}

pub const DUE: Option<Reason> = Some(Reason::Deadline);

/// One plain poll(2) of nothing, without end: what it is told when a signal ends it.
pub fn plain_poll() -> i32 {
    let (nothing, forever) = (std::ptr::null::<libc::pollfd>(), std::ptr::null::<libc::timespec>());
    let ended = unsafe { libc::syscall(libc::SYS_ppoll, nothing, 0, forever, std::ptr::null::<u64>(), 8usize) };
    assert_eq!(ended, -1, "a poll of nothing does not end by itself");
    std::io::Error::last_os_error().raw_os_error().unwrap()
}

/// One plain nanosleep(2): `false` if a signal broke it.
pub fn slept_well(time: Duration) -> bool {
    let time = libc::timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
    unsafe { libc::syscall(libc::SYS_nanosleep, &time, std::ptr::null::<libc::timespec>()) == 0 }
}

/// A thread of its own, which no signal reaches, that does something again and again until this is dropped.
#[derive(Debug)]
pub struct Beside {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Beside {
    pub fn again_and_again(mut what: impl FnMut() + Send + 'static) -> Beside {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = common::unsignalled(move || {
            while !stopped.load(SeqCst) {
                what();
            }
        });
        Beside { stop, thread: Some(thread) }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || ended.is_none_or(|ended| ended.is_ok()), "the thread beside ends well");
    }
}

/// A POSIX timer of this process, as the kernel lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelTimer {
    pub id: i32,
    pub sig: i32,
    /// The thread that it is aimed at.
    pub tid: i32,
}

/// All of them; `None`, said aloud, where the kernel does not list them (CONFIG_CHECKPOINT_RESTORE), or lists an emulator's.
pub fn kernel_timers() -> Option<Vec<KernelTimer>> {
    let listed = std::fs::read_to_string("/proc/self/timers").ok().filter(|_| !common::emulated());
    let Some(text) = listed else {
        println!("SKIPPED: this kernel lists no timers in /proc/self/timers");
        return None;
    };
    let after = |line: &str, what: char| line.rsplit(what).next().and_then(|n| n.trim().parse().ok());
    let mut all = Vec::new();
    for line in text.lines() {
        let (name, value) = line.split_once(':').unwrap_or_default();
        let last = all.last_mut();
        match (name, last) {
            ("ID", _) => all.push(KernelTimer { id: after(line, ':').expect("an id"), sig: 0, tid: 0 }),
            ("signal", Some(timer)) => {
                timer.sig = value.split('/').next().and_then(|n| n.trim().parse().ok()).unwrap_or(0)
            }
            ("notify", Some(timer)) => timer.tid = after(line, '.').unwrap_or(0),
            _ => {}
        }
    }
    Some(all)
}

/// How long a timer is still to run; `None`: there is none of that id; zero: it does not run.
pub fn left_of(id: i32) -> Option<Duration> {
    let mut left: libc::itimerspec = unsafe { std::mem::zeroed() };
    let there = unsafe { libc::syscall(libc::SYS_timer_gettime, id, &mut left) } == 0;
    there.then(|| Duration::new(left.it_value.tv_sec as u64, left.it_value.tv_nsec as u32))
}

/// While it lives the queue of signals has no room (RLIMIT_SIGPENDING is 0): nobody gets a timer.
#[derive(Debug)]
pub struct NoRoom(libc::rlimit);

impl NoRoom {
    pub fn begin() -> NoRoom {
        let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_SIGPENDING, &mut before) }, 0);
        let none = libc::rlimit { rlim_cur: 0, ..before };
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_SIGPENDING, &none) }, 0);
        NoRoom(before)
    }
}

impl Drop for NoRoom {
    fn drop(&mut self) {
        unsafe { libc::setrlimit(libc::RLIMIT_SIGPENDING, &self.0) };
    }
}
