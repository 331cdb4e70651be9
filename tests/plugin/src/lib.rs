//! `eintr` behind a C interface, to be loaded by `dlopen` into a process whose threads already run; it counts what it allocates.
//!
//! A [`Session`] is one scope and its remote. It is left on the thread that entered it; its remote may be used from any thread.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::{c_int, c_void};
use std::hint::black_box;
use std::os::fd::BorrowedFd;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use eintr::{Delivery, Remote, Scope};

/// Passes everything on to the C library and counts the calls.
#[derive(Debug)]
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to `System` unchanged, so its promises are kept by `System`.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the caller's promise is the one that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: `at` came from `System` through this allocator.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: `at` came from `System` through this allocator.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static HEAP: Counting = Counting;

/// How often the code in this object has allocated, moved or freed memory, on any thread.
#[unsafe(no_mangle)]
pub extern "C" fn plugin_allocations() -> u64 {
    ALLOCATIONS.load(Ordering::SeqCst)
}

/// One scope and its remote.
#[derive(Debug)]
pub struct Session {
    scope: Scope,
    remote: Remote,
}

/// Enters a scope on the calling thread; null if it is refused.
#[unsafe(no_mangle)]
pub extern "C" fn plugin_enter(signal: c_int) -> *mut Session {
    match Scope::enter(signal) {
        Ok(scope) => {
            let remote = scope.remote();
            Box::into_raw(Box::new(Session { scope, remote }))
        }
        Err(_) => ptr::null_mut(),
    }
}

/// Drops the scope; 0, or -1 if somebody else's action was found and left in place.
///
/// # Safety
/// `session` came from [`plugin_enter`] on the calling thread, and nobody uses it any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plugin_drop(session: *mut Session) -> c_int {
    // SAFETY: the caller gives the box back.
    let session = unsafe { Box::from_raw(session) };
    if session.scope.leave().is_ok() { 0 } else { -1 }
}

/// Interrupts the scope of a session, from any thread: 0 sent, 1 held, 2 displaced, 3 gone, 4 anything else.
///
/// # Safety
/// `session` came from [`plugin_enter`] and has not been dropped.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plugin_interrupt(session: *const Session) -> c_int {
    // SAFETY: the session lives; only its remote, which is `Sync`, is touched.
    let remote = unsafe { &(*session).remote };
    match remote.interrupt_once() {
        Delivery::Sent => 0,
        Delivery::Held => 1,
        Delivery::Displaced => 2,
        Delivery::Gone => 3,
        _ => 4,
    }
}

/// Takes the interrupt of the scope of a session: 1 if there was one.
///
/// # Safety
/// `session` came from [`plugin_enter`] on the calling thread and has not been dropped.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plugin_clear(session: *const Session) -> c_int {
    // SAFETY: the session lives and the calling thread is its own.
    let scope = unsafe { &(*session).scope };
    c_int::from(scope.clear().is_some())
}

static RUNS: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());

extern "C" fn count(_signal: c_int, _info: *mut libc::siginfo_t, _context: *mut c_void) {
    // SAFETY: `plugin_install` was given a counter that outlives the process's signals.
    if let Some(runs) = unsafe { RUNS.load(Ordering::SeqCst).as_ref() } {
        runs.fetch_add(1, Ordering::SeqCst);
    }
}

/// Installs a handler for `signal` that adds one to `runs` each time; 0, or -1 as sigaction(2).
///
/// # Safety
/// `runs` is an atomic counter that lives for ever.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plugin_install(signal: c_int, runs: *mut AtomicU64) -> c_int {
    RUNS.store(runs, Ordering::SeqCst);
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = count;
    // SAFETY: all-zero is a valid sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
    // SAFETY: `action` is initialised; the handler only touches atomics.
    unsafe { libc::sigaction(signal, &action, ptr::null_mut()) }
}

/// `eintr::sys::read` of one byte, so many times, for the benches: 0, or -1 if one fails.
///
/// # Safety
/// The descriptor is open, and stays so.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plugin_reads(fd: c_int, count: u32) -> c_int {
    // SAFETY: the caller's promise.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    let mut byte = [0; 1];
    let all = (0..count).all(|_| eintr::sys::read(fd, black_box(&mut byte)) == Ok(1));
    if all { 0 } else { -1 }
}

/// The same by the C library.
#[unsafe(no_mangle)]
pub extern "C" fn plugin_plain_reads(fd: c_int, count: u32) -> c_int {
    let mut byte = [0u8; 1];
    // SAFETY: one writable byte.
    let all = (0..count).all(|_| unsafe { libc::read(fd, black_box(&mut byte).as_mut_ptr().cast(), 1) } == 1);
    if all { 0 } else { -1 }
}
