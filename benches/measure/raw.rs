//! System calls as they are made by hand: the floors.
#![allow(unsafe_code)] // there are no safe ones

use crate::common::{Action, gettid};
use std::os::fd::{AsRawFd, BorrowedFd};

/// `ssize_t read(int fd, void *buf, size_t count)` of the C library.
#[inline]
pub fn read(fd: BorrowedFd<'_>, buf: &mut [u8]) -> isize {
    // SAFETY: `buf` is writable for its length.
    unsafe { libc::read(fd.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len()) }
}

/// `ssize_t write(int fd, const void *buf, size_t count)` of the C library.
pub fn write(fd: BorrowedFd<'_>, buf: &[u8]) -> isize {
    // SAFETY: `buf` is readable for its length.
    unsafe { libc::write(fd.as_raw_fd(), buf.as_ptr().cast(), buf.len()) }
}

/// Whether a read would not wait; poll(2).
pub fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let mut ready = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd.
    unsafe { libc::poll(&mut ready, 1, 0) == 1 }
}

/// The cheapest system call that is one.
#[inline]
pub fn getppid() -> i32 {
    // SAFETY: it takes nothing and cannot fail.
    unsafe { libc::getppid() }
}

/// rt_sigprocmask(2) with both sets.
#[inline]
pub fn mask(how: i32, set: u64) -> u64 {
    let mut old = 0u64;
    // SAFETY: two sets of 8 bytes, which is the size passed.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, &raw const set, &raw mut old, 8usize) };
    old
}

/// rt_sigaction(2); `None` only asks.
#[inline]
pub fn action(sig: i32, new: Option<&Action>) -> Action {
    let mut old = Action::default();
    let new = new.map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: `new` is null or an action as the kernel has it, whose handler is a function or came from the kernel; `old` is written.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, sig, new, &raw mut old, 8usize) };
    old
}

/// tgkill(2) within this process.
#[inline]
pub fn tgkill(tid: i32, sig: i32) {
    // SAFETY: integers only.
    unsafe { libc::syscall(libc::SYS_tgkill, std::process::id(), tid, sig) };
}

/// A handler that does nothing.
pub extern "C" fn do_nothing(_: i32) {}

/// A timer of the kernel that sends a signal to the thread that made it.
#[derive(Debug)]
pub struct Timer(i32);

impl Timer {
    pub fn new(sig: i32) -> Timer {
        // SAFETY: all-zero is a valid sigevent.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = sig;
        event.sigev_notify_thread_id = gettid();
        let mut id = 0i32;
        // SAFETY: `event` is read, `id`, the kernel's timer_t, is written.
        let made =
            unsafe { libc::syscall(libc::SYS_timer_create, libc::CLOCK_MONOTONIC, &raw const event, &raw mut id) };
        assert_eq!(made, 0, "timer_create");
        Timer(id)
    }

    /// In so many nanoseconds, and each time again after as many; 0 stops it.
    pub fn repeat(&self, nanoseconds: u64) {
        self.set(0, nanoseconds, nanoseconds);
    }

    /// Once, at a time of CLOCK_MONOTONIC in nanoseconds; 0 stops it.
    #[inline]
    pub fn once_at(&self, time: u64) {
        self.set(libc::TIMER_ABSTIME, time, 0);
    }

    #[inline]
    fn set(&self, flags: i32, value: u64, interval: u64) {
        let [it_value, it_interval] = [value, interval].map(|nanoseconds| libc::timespec {
            tv_sec: (nanoseconds / 1_000_000_000) as i64,
            tv_nsec: (nanoseconds % 1_000_000_000) as i64,
        });
        let new = libc::itimerspec { it_interval, it_value };
        let no_old = std::ptr::null_mut::<libc::itimerspec>();
        // SAFETY: `new` is read; the old setting is not asked for.
        unsafe { libc::syscall(libc::SYS_timer_settime, self.0, flags, &raw const new, no_old) };
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: an integer.
        unsafe { libc::syscall(libc::SYS_timer_delete, self.0) };
    }
}

/// CLOCK_MONOTONIC in nanoseconds, the same on all processors.
#[inline]
pub fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is written.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// No processor at all.
fn none() -> libc::cpu_set_t {
    // SAFETY: all-zero is a valid set.
    unsafe { std::mem::zeroed() }
}

/// The processors that the calling thread may run on.
pub fn processors() -> Vec<usize> {
    let mut set = none();
    // SAFETY: `set` is written.
    unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) };
    // SAFETY: a number below the size of the set.
    (0..libc::CPU_SETSIZE as usize).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect()
}

/// Keeps the calling thread on these.
pub fn pin_to(cpus: &[usize]) {
    let mut set = none();
    // SAFETY: numbers below the size of the set.
    cpus.iter().for_each(|cpu| unsafe { libc::CPU_SET(*cpu, &mut set) });
    // SAFETY: `set` is read.
    unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) };
}
