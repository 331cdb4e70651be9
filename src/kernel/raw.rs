//! System calls by number, with the errno as a value.
//!
//! # Safety
//! `call` is as unsafe as the call that it makes; the other files of this layer wrap it in typed functions.
//!
//! # Async-signal-safety
//! Everything here is.

use nix::errno::Errno;

/// `long syscall(long number, ...)`, syscall(2). errno stays what it was: an application may look at it after a call of its own, with one of ours in
/// between (a handler's, a drop).
///
/// # Safety
/// The arguments must be what the call `nr` asks for: pointers valid for the lengths that it reads or writes.
pub(crate) unsafe fn call(nr: libc::c_long, args: [usize; 4]) -> Result<usize, Errno> {
    let before = Errno::last_raw();
    // SAFETY: the caller answers for the arguments; a call that takes fewer ignores the rest.
    let r = unsafe { libc::syscall(nr, args[0], args[1], args[2], args[3], 0usize, 0usize) };
    if r != -1 {
        return Ok(r as usize);
    }
    let why = Errno::last();
    Errno::set_raw(before);
    Err(why)
}

/// `int getrusage(int who, struct rusage *usage)`, getrusage(2): how often the calling thread has gone to sleep.
pub(crate) fn times_slept() -> u64 {
    // SAFETY: rusage is plain data, valid when zeroed.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is written.
    let _ = unsafe { call(libc::SYS_getrusage, [libc::RUSAGE_THREAD as usize, &raw mut usage as usize, 0, 0]) };
    usage.ru_nvcsw as u64
}

/// `pid_t gettid(void)`, gettid(2). Never a cached value: threads made by a raw clone share their creator's thread pointer.
pub(crate) fn gettid() -> i32 {
    // SAFETY: gettid(2) takes no argument and cannot fail.
    unsafe { libc::syscall(libc::SYS_gettid) as i32 }
}

/// `pid_t getpid(void)`, getpid(2).
pub(crate) fn getpid() -> u32 {
    // SAFETY: getpid(2) takes no argument and cannot fail.
    unsafe { libc::syscall(libc::SYS_getpid) as u32 }
}

/// Sleeps so long, whatever happens meanwhile; for the handler, where all signals are blocked. clock_nanosleep(2).
pub(crate) fn pause_for(nanoseconds: i64) {
    let time = libc::timespec { tv_sec: 0, tv_nsec: nanoseconds };
    let args = [libc::CLOCK_MONOTONIC as usize, 0, &raw const time as usize, 0];
    // SAFETY: `time` is a valid timespec for the length of the call; no remainder is asked for.
    let _ = unsafe { call(libc::SYS_clock_nanosleep, args) };
}

/// `ssize_t process_vm_readv(pid_t pid, const struct iovec *local, ..., const struct iovec *remote, ..., unsigned long flags)`,
/// process_vm_readv(2), of the calling process itself. `false` if there is nothing to be read, or a filter forbids the call.
pub(crate) fn copy_own(address: usize, words: &mut [usize; 65]) -> bool {
    let size = size_of_val(words);
    let local = libc::iovec { iov_base: words.as_mut_ptr().cast(), iov_len: size };
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: size };
    // SAFETY: `local` is writable for its length; the kernel checks `remote` itself, and answers EFAULT.
    let copied =
        unsafe { libc::syscall(libc::SYS_process_vm_readv, gettid(), &local, 1usize, &remote, 1usize, 0usize) };
    copied == size as libc::c_long
}

/// `ssize_t getrandom(void *buf, size_t len, unsigned flags)`, getrandom(2), without waiting. Leaves `bytes` as they are if it fails.
pub(crate) fn random(bytes: &mut u64) {
    let args = [&raw mut *bytes as usize, size_of::<u64>(), libc::GRND_NONBLOCK as usize, 0];
    // SAFETY: eight writable bytes.
    let _ = unsafe { call(libc::SYS_getrandom, args) };
}
