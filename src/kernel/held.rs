//! Siginfos kept for later, in memory that a signal handler may map.
//!
//! # Invariants
//! 1. Only the owning thread uses a [`Held`], with every signal blocked (its handler, or code that blocked them): no two uses overlap.
//! 2. A chunk is in the list from its mapping to its unmapping, and unmapped only by [`Held::take_all`], after it was unlinked.
//!
//! # Safety
//! Chunks are anonymous mappings, larger than [`Chunk`], zeroed, known to nobody else. The two invariants make every access exclusive.
//!
//! # Async-signal-safety
//! Every function is: mmap(2) and munmap(2) are called as bare system calls' thin wrappers, without a lock.

use crate::kernel::send::Info;
use std::sync::atomic::{AtomicPtr, Ordering::SeqCst};

/// Room of one chunk.
const ROOM: usize = 1024;

struct Chunk {
    older: *mut Chunk,
    len: usize,
    infos: [Info; ROOM],
}

/// A stack of chunks; empty and without memory until the first [`push`](Held::push).
#[derive(Debug)]
pub(crate) struct Held {
    newest: AtomicPtr<Chunk>,
}

impl Held {
    pub(crate) const fn new() -> Held {
        Held { newest: AtomicPtr::new(std::ptr::null_mut()) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.newest.load(SeqCst).is_null()
    }

    /// Keeps one; `false` when there is no memory for it.
    pub(crate) fn push(&self, info: &Info) -> bool {
        let mut chunk = self.newest.load(SeqCst);
        // SAFETY: invariants 1 and 2: a chunk of the list is mapped, and only this thread touches it.
        if chunk.is_null() || unsafe { (*chunk).len } == ROOM {
            let Some(fresh) = map(chunk) else { return false };
            self.newest.store(fresh, SeqCst);
            chunk = fresh;
        }
        // SAFETY: as above; the reference ends with this function.
        let chunk = unsafe { &mut *chunk };
        if let Some(place) = chunk.infos.get_mut(chunk.len) {
            *place = *info;
            chunk.len += 1;
        }
        true
    }

    /// Whether one is kept for which `is` holds.
    pub(crate) fn any(&self, is: impl Fn(&Info) -> bool) -> bool {
        let mut chunk = self.newest.load(SeqCst);
        while !chunk.is_null() {
            // SAFETY: invariants 1 and 2.
            let c = unsafe { &*chunk };
            if c.infos.iter().take(c.len).any(&is) {
                return true;
            }
            chunk = c.older;
        }
        false
    }

    /// Hands them out, oldest first, and gives the memory back.
    pub(crate) fn take_all(&self, mut each: impl FnMut(&Info)) {
        let mut chunk = oldest_first(self.newest.swap(std::ptr::null_mut(), SeqCst));
        while !chunk.is_null() {
            // SAFETY: unlinked by the swap, still mapped (invariant 2).
            let c = unsafe { &*chunk };
            c.infos.iter().take(c.len).for_each(&mut each);
            let next = c.older;
            // SAFETY: the whole mapping of this chunk, to which no reference is left.
            unsafe { libc::munmap(chunk.cast(), size_of::<Chunk>()) };
            chunk = next;
        }
    }
}

/// Turns a list around.
fn oldest_first(mut list: *mut Chunk) -> *mut Chunk {
    let mut turned = std::ptr::null_mut();
    while !list.is_null() {
        // SAFETY: a chunk of a list that was just unlinked: mapped and exclusively ours.
        let chunk = unsafe { &mut *list };
        (chunk.older, turned, list) = (turned, list, chunk.older);
    }
    turned
}

fn map(older: *mut Chunk) -> Option<*mut Chunk> {
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches no memory that exists.
    let chunk: *mut Chunk = unsafe { libc::mmap(std::ptr::null_mut(), size_of::<Chunk>(), access, kind, -1, 0) }.cast();
    if chunk.cast() == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: fresh, zeroed, page-aligned memory of the chunk's size; zeroes are a valid Chunk.
    unsafe { (*chunk).older = older };
    Some(chunk)
}
