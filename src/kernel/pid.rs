//! The process's id without a system call, and how a forked child is told from its parent.
//!
//! The id lies in a page that the kernel clears in a child (MADV_WIPEONFORK, madvise(2), Linux 4.14), so even a raw `clone` is noticed. The
//! handler of pthread_atfork(3) writes the child's id there; emulators that accept the advice and ignore it are covered by that too.
//!
//! # Safety
//! The page is mapped once and never unmapped, so the reference to the atomic at its start is good for ever.
//!
//! # Async-signal-safety
//! [`current`] and [`in_forked_child`] are.

use crate::kernel::raw;
use once_cell::race::OnceRef;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

static PAGE: OnceRef<'static, AtomicU32> = OnceRef::new();

/// This process's id.
pub(crate) fn current() -> u32 {
    match PAGE.get().map(|word| word.load(SeqCst)) {
        None | Some(0) => raw::getpid(),
        Some(pid) => pid,
    }
}

/// Whether this is a child whose page was wiped and where [`note`] was not called yet.
pub(crate) fn in_forked_child() -> bool {
    PAGE.get().is_some_and(|word| word.load(SeqCst) == 0)
}

/// How often memory was copied by a fork on the way to this process. A child may have its parent's pid, in a pid namespace of its own.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// What tells this process from those that it was forked from, and its children from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pid: u32,
    forks: u32,
}

/// This process.
pub(crate) fn identity() -> Identity {
    Identity { pid: current(), forks: FORKS.load(SeqCst) }
}

/// Whether that is this process. Async-signal-safe.
pub(crate) fn is_here(identity: Identity) -> bool {
    !in_forked_child() && identity == self::identity()
}

/// In a forked child.
pub(crate) fn note_fork() {
    FORKS.fetch_add(1, SeqCst);
    note();
}

/// Whether this process has been noted: the copy that a forked child is was put right already. A handler of pthread_atfork(3) may come after code that
/// noticed by itself, and may have been registered twice.
pub(crate) fn is_noted() -> bool {
    let noted = PAGE.get().map_or_else(|| NOTED.load(SeqCst), |word| word.load(SeqCst));
    noted == raw::getpid()
}

/// For where there is no page.
static NOTED: AtomicU32 = AtomicU32::new(0);

/// Writes the id of the process that calls it; maps the page at the first call. Without a page (no memory, or a kernel without the advice)
/// every look is a system call.
pub(crate) fn note() {
    NOTED.store(raw::getpid(), SeqCst);
    if let Some(word) = PAGE.get().or_else(map) {
        word.store(raw::getpid(), SeqCst);
    }
}

fn map() -> Option<&'static AtomicU32> {
    const PAGE_SIZE: usize = 4096;
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: an anonymous private mapping at an address of the kernel's choice touches no memory that exists.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), PAGE_SIZE, access, kind, -1, 0) };
    if page == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: the range is exactly the mapping made above, which nobody else knows.
    if unsafe { libc::madvise(page, PAGE_SIZE, libc::MADV_WIPEONFORK) } != 0 {
        // SAFETY: as above; it is given back unused.
        unsafe { libc::munmap(page, PAGE_SIZE) };
        return None;
    }
    // SAFETY: the page is zeroed, aligned, and stays mapped: a zero is a valid AtomicU32. A loser of the race leaves its page mapped, once.
    let word = unsafe { AtomicU32::from_ptr(page.cast()) };
    // Before it is published: to a thread that found it empty this process would be a forked child.
    word.store(raw::getpid(), SeqCst);
    let _ = PAGE.set(word);
    PAGE.get()
}
