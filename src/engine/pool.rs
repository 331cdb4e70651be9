//! Things that are made once, never freed, and used again: addressed by index, so that a signal handler may hold an index of something long
//! gone and still read memory that exists.
//!
//! Page `k` has `64 << k` places, so a small table reaches any index. The free list is a stack whose head carries a counter.
//!
//! # Invariants
//! 1. An index below the length of a page that exists names one place, for ever.
//! 2. The head's counter changes with every push and pop: a pop that was overtaken fails its exchange.
//!
//! # Async-signal-safety
//! [`Pool::get`] is; [`Pool::take`] may allocate.

use crate::atomic::{AtomicU32, AtomicU64, SeqCst};
use once_cell::race::OnceBox;

/// Pages of a pool: 64 + 128 + ... places, 2^32 in all.
const PAGES: usize = 26;
const FIRST: u32 = 64;
const NONE: u32 = u32::MAX;

/// One place of a pool.
#[derive(Debug)]
pub(crate) struct Place<T> {
    index: u32,
    next_free: AtomicU32,
    pub(crate) value: T,
}

impl<T> Place<T> {
    pub(crate) const fn index(&self) -> u32 {
        self.index
    }
}

#[derive(Debug)]
pub(crate) struct Pool<T: 'static> {
    pages: [OnceBox<Vec<Place<T>>>; PAGES],
    made: AtomicU32,
    /// counter << 32 | index of the first free place, or NONE.
    free: AtomicU64,
}

impl<T: 'static> Pool<T> {
    pub(crate) const fn new() -> Pool<T> {
        let pages = [const { OnceBox::new() }; PAGES];
        Pool { pages, made: AtomicU32::new(0), free: AtomicU64::new(NONE as u64) }
    }

    /// The place with this index, if it was ever made.
    pub(crate) fn get(&'static self, index: u32) -> Option<&'static Place<T>> {
        let (page, at) = locate(index);
        self.pages.get(page)?.get()?.get(at)
    }

    /// How many places were made: those with a smaller index.
    pub(crate) fn made(&self) -> u32 {
        self.made.load(SeqCst)
    }

    /// A place that nobody else has: a used one, or a new one made by `make`.
    pub(crate) fn take(&'static self, make: impl Fn() -> T) -> &'static Place<T> {
        let mut head = self.free.load(SeqCst);
        while let Some(place) = self.get(head as u32) {
            let next = ((head >> 32).wrapping_add(1)) << 32 | u64::from(place.next_free.load(SeqCst));
            match self.free.compare_exchange(head, next, SeqCst, SeqCst) {
                Ok(_) => return place,
                Err(seen) => head = seen,
            }
        }
        loop {
            let index = self.made.fetch_add(1, SeqCst);
            let (page, _) = locate(index);
            if let Some(cell) = self.pages.get(page) {
                cell.get_or_init(|| Box::new(new_page(page, &make)));
            }
            if let Some(place) = self.get(index) {
                return place;
            }
        }
    }

    /// Gives a place back.
    pub(crate) fn give(&'static self, place: &'static Place<T>) {
        let mut head = self.free.load(SeqCst);
        loop {
            place.next_free.store(head as u32, SeqCst);
            let next = ((head >> 32).wrapping_add(1)) << 32 | u64::from(place.index);
            match self.free.compare_exchange(head, next, SeqCst, SeqCst) {
                Ok(_) => return,
                Err(seen) => head = seen,
            }
        }
    }
}

fn new_page<T>(page: usize, make: &impl Fn() -> T) -> Vec<Place<T>> {
    let first = FIRST * ((1 << page) - 1);
    let places = first..first + (FIRST << page);
    places.map(|index| Place { index, next_free: AtomicU32::new(NONE), value: make() }).collect()
}

/// Page, and place in it.
const fn locate(index: u32) -> (usize, usize) {
    let n = index as u64 / FIRST as u64 + 1;
    let page = n.ilog2();
    let first = FIRST as u64 * ((1 << page) - 1);
    (page as usize, (index as u64 - first) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_has_its_own_place() {
        let mut expected = (0, 0);
        for index in 0..100_000 {
            assert_eq!(locate(index), expected, "index {index}");
            expected.1 += 1;
            if expected.1 == 64 << expected.0 {
                expected = (expected.0 + 1, 0);
            }
        }
        assert!(locate(NONE).0 >= PAGES - 1);
    }

    #[test]
    fn a_place_given_back_is_taken_again() {
        static POOL: Pool<u8> = Pool::new();
        let first = POOL.take(|| 7);
        let second = POOL.take(|| 7);
        assert_ne!(first.index(), second.index());
        POOL.give(first);
        assert_eq!(POOL.take(|| 8).index(), first.index());
        assert_eq!(POOL.made(), 2);
    }

    #[test]
    fn threads_never_share_a_place() {
        static POOL: Pool<AtomicU32> = Pool::new();
        let work = || {
            for _ in 0..20_000 {
                let place = POOL.take(|| AtomicU32::new(0));
                assert_eq!(place.value.fetch_add(1, SeqCst), 0);
                place.value.fetch_sub(1, SeqCst);
                POOL.give(place);
            }
        };
        std::thread::scope(|s| (0..4).for_each(|_| drop(s.spawn(work))));
        assert!(POOL.made() <= 8, "{} places for 4 threads", POOL.made());
    }
}
