//! Memory: what a scope takes from the heap, and that a warm one takes nothing.

use crate::common;
use crate::measure::report::{Run, figure};
use eintr::Scope;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Passes everything on to the C library, and counts.
#[derive(Debug)]
pub struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

// An allocator is unsafe to write, and there is no other way to see what is allocated.
#[allow(unsafe_code)]
// SAFETY: every call goes to `System` unchanged, so its promises are kept by `System`. (Reallocation goes by the default, which is made of the two.)
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        BYTES.fetch_add(layout.size() as u64, Relaxed);
        // SAFETY: the caller's promise is the one that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size() as u64, Relaxed);
        // SAFETY: `at` came from `System` through this allocator.
        unsafe { System.dealloc(at, layout) }
    }
}

pub fn figures(run: &Run) {
    if run.wants("bytes_per_scope") {
        bytes_per_scope();
    }
    if run.wants("mallocs_warm") {
        mallocs_warm();
    }
}

/// Scopes come from pages that double, so it depends on how many there are: the worst case, from a page's worth of them on, and what it comes to.
fn bytes_per_scope() {
    const MOST: usize = 3000;
    let sig = libc::SIGRTMIN() + 4;
    let _first = Scope::enter(sig).expect("entered");
    let mut scopes = Vec::with_capacity(MOST);
    let before = BYTES.load(Relaxed);
    let (mut worst, mut best) = ((0, 0.0), (0, f64::INFINITY));
    for n in 1..=MOST {
        scopes.push(Scope::enter(sig).expect("entered"));
        let each = (BYTES.load(Relaxed) - before) as f64 / n as f64;
        if n >= 64 && each > worst.1 {
            worst = (n, each);
        }
        if n >= 64 && each < best.1 {
            best = (n, each);
        }
    }
    let about = format!(
        "at worst, with {} live ones on a thread that has one already; at best, with {}, {:.0}; never given back, used again",
        worst.0, best.0, best.1
    );
    figure("bytes_per_scope", worst.1, about);
}

/// While another thread's scope holds the action, and nested.
fn mallocs_warm() {
    const ROUNDS: u64 = 10_000;
    let sig = libc::SIGRTMIN() + 4;
    let mut counts = [0; 2];
    common::unsignalled(move || {
        let outer = Scope::enter(sig).expect("entered");
        std::thread::scope(|s| {
            let warm = s.spawn(|| {
                drop(Scope::enter(sig).expect("entered"));
                allocations(|| (0..ROUNDS).for_each(|_| drop(Scope::enter(sig).expect("entered"))))
            });
            counts[0] = warm.join().expect("it does not panic");
        });
        counts[1] = allocations(|| (0..ROUNDS).for_each(|_| drop(Scope::enter(sig).expect("entered"))));
        drop(outer);
        let total: u64 = counts.iter().sum();
        figure("mallocs_warm", total as f64 / ROUNDS as f64, format!("{counts:?} in {ROUNDS} times warm, and nested"));
    })
    .join()
    .expect("it does not panic");
}

fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.load(Relaxed);
    work();
    ALLOCATIONS.load(Relaxed) - before
}
