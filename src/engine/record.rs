//! A thread that has scopes: found by its own code in a thread-local, by the handler in a table by thread id, by a signal by its index.
//!
//! # Invariants
//! 1. A record is never freed; it belongs to the thread whose id stands in `tid`, or to nobody (0).
//! 2. `scopes` is changed only by its thread, in single stores, so that the thread's handler can walk it at any instant.
//! 3. `pending` is 1 if a gate of the list acts ([`Gate::acts`](crate::engine::gate::Gate::acts)), or a deadline that was found due; it is 0 in
//!    that case only while a sender stands between its two steps. The gates and the deadlines are the truth.
//! 4. The table names a record for a thread id from the thread's first scope until the thread ends.
//!
//! # Async-signal-safety
//! Everything but [`Record::claim`] and [`Record::lane_to_open`] is. No thread-local is used by the handler: one in an object that was dlopen'd is
//! made at its first touch, with malloc.

use crate::atomic::{AtomicU32, AtomicU64, AtomicUsize, SeqCst};
use crate::engine::deadline::{self, Entry};
use crate::engine::lane::Lane;
use crate::engine::node::{Link, Node};
use crate::engine::pool::{Place, Pool};
use crate::kernel::mask::{self, Mask};
use crate::kernel::stack::Stack;
use crate::kernel::stub::window::Window;
use crate::kernel::{hooks, raw};
use once_cell::race::{OnceBox, OnceRef};
use std::cell::Cell;

/// Signal numbers run from 1 to this.
pub(crate) const LAST_SIGNAL: usize = 64;

static RECORDS: Pool<Record> = Pool::new();
/// By thread id: index plus one. Ids are below 2^22 (`include/linux/threads.h`, PID_MAX_LIMIT).
static TABLE: [OnceBox<[AtomicU32; ROW]>; (1 << 22) / ROW] = [const { OnceBox::new() }; (1 << 22) / ROW];
const ROW: usize = 1024;

thread_local! {
    static CURRENT: Cell<Option<&'static Record>> = const { Cell::new(None) };
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Record {
    index: AtomicU32,
    tid: AtomicU32,
    /// The process that the record was claimed in.
    pid: AtomicU32,
    /// `pending` and `mark`: what the stub tests and writes.
    pub(crate) window: Window,
    /// Index plus one of the outermost scope.
    scopes: AtomicU32,
    /// Index plus one of the deadline that was made last.
    pub(super) deadlines: AtomicU32,
    /// How many scopes, deadlines and shields were made.
    orders: AtomicU64,
    /// Numbers that the handler has blocked for the sake of a call below another handler, as a mask.
    pub(crate) shut: AtomicU64,
    /// Marks of calls that were there when a handler above them made one of its own: the chain of frames breaks when such a handler is left by
    /// longjmp. Outermost first.
    pub(crate) below: [AtomicUsize; 8],
    /// The thread's own stack.
    stack: [AtomicUsize; 2],
    lanes: [OnceRef<'static, Lane>; LAST_SIGNAL],
}

impl Record {
    fn new() -> Record {
        Record {
            index: AtomicU32::new(0),
            tid: AtomicU32::new(0),
            pid: AtomicU32::new(0),
            window: Window::new(),
            scopes: AtomicU32::new(0),
            deadlines: AtomicU32::new(0),
            orders: AtomicU64::new(0),
            shut: AtomicU64::new(0),
            below: [const { AtomicUsize::new(0) }; 8],
            stack: [const { AtomicUsize::new(0) }; 2],
            lanes: [const { OnceRef::new() }; LAST_SIGNAL],
        }
    }

    /// The calling thread's record, if it ever entered a scope.
    pub(crate) fn current() -> Option<&'static Record> {
        CURRENT.get()
    }

    /// The calling thread's record; made if there is none.
    pub(crate) fn claim() -> &'static Record {
        if let Some(record) = CURRENT.get() {
            return record;
        }
        let place: &'static Place<Record> = RECORDS.take(Record::new);
        let record = &place.value;
        record.index.store(place.index(), SeqCst);
        record.note_stack();
        record.adopt();
        CURRENT.set(Some(record));
        hooks::tell_thread_exit();
        record
    }

    /// Begins with the calling thread's stack, and nothing on it.
    fn note_stack(&self) {
        let Stack { low, high } = Stack::of_thread();
        self.stack[0].store(low, SeqCst);
        self.stack[1].store(high, SeqCst);
        self.window.mark.store(0, SeqCst);
        self.shut.store(0, SeqCst);
        self.below.iter().for_each(|mark| mark.store(0, SeqCst)); // of the thread that had the record before
    }

    /// The stack that the thread was made with.
    pub(crate) fn stack(&self) -> Stack {
        Stack { low: self.stack[0].load(SeqCst), high: self.stack[1].load(SeqCst) }
    }

    /// Writes the calling thread's id into record and table.
    pub(crate) fn adopt(&self) {
        let tid = raw::gettid() as u32;
        self.pid.store(raw::getpid(), SeqCst);
        self.tid.store(tid, SeqCst);
        if let Some(row) = TABLE.get(tid as usize / ROW) {
            let row = row.get_or_init(|| Box::new([const { AtomicU32::new(0) }; ROW]));
            if let Some(entry) = row.get(tid as usize % ROW) {
                entry.store(self.index() + 1, SeqCst);
            }
        }
    }

    /// The thread ends: its record goes to another one. No scope is left.
    pub(crate) fn release(&self) {
        CURRENT.set(None);
        if let Some(entry) = entry_of(self.tid() as u32) {
            let _ = entry.compare_exchange(self.index() + 1, 0, SeqCst, SeqCst);
        }
        self.lanes().for_each(|lane| lane.timer.delete());
        self.tid.store(0, SeqCst);
        if let Some(place) = RECORDS.get(self.index()) {
            RECORDS.give(place);
        }
    }

    /// The record with this index.
    pub(crate) fn by_index(index: u32) -> Option<&'static Record> {
        RECORDS.get(index).map(|place| &place.value)
    }

    /// The record of the thread with this id.
    pub(crate) fn of(tid: i32) -> Option<&'static Record> {
        let plus_one = entry_of(tid as u32)?.load(SeqCst);
        Record::by_index(plus_one.checked_sub(1)?).filter(|record| record.tid() == tid)
    }

    /// Every record that was ever made.
    pub(crate) fn all() -> impl Iterator<Item = &'static Record> {
        (0..RECORDS.made()).filter_map(Record::by_index)
    }

    pub(crate) fn index(&self) -> u32 {
        self.index.load(SeqCst)
    }

    pub(crate) fn tid(&self) -> i32 {
        self.tid.load(SeqCst) as i32
    }

    /// The lane of a number, if a scope of it was ever entered on this record.
    pub(crate) fn lane(&self, sig: i32) -> Option<&'static Lane> {
        self.lanes.get(sig as usize - 1)?.get()
    }

    /// The same; made if there is none. Like the record it is never freed.
    pub(crate) fn lane_to_open(&'static self, sig: i32) -> &'static Lane {
        if let Some(lane) = self.lane(sig) {
            return lane;
        }
        let lane: &'static Lane = Box::leak(Box::new(Lane::new(self, sig)));
        if let Some(place) = self.lanes.get(sig as usize - 1) {
            let _ = place.set(lane); // only this thread sets it
        }
        lane
    }

    /// Every lane of this record.
    pub(crate) fn lanes(&self) -> impl Iterator<Item = &'static Lane> {
        self.lanes.iter().filter_map(OnceRef::get)
    }

    /// The scopes of this thread, outermost first. For the thread itself and its handler.
    pub(crate) fn scopes(&self) -> impl Iterator<Item = &'static Place<Node>> {
        let first = Node::by_plus_one(self.scopes.load(SeqCst));
        std::iter::successors(first, |place| Node::by_plus_one(place.value.next.load(SeqCst)))
    }

    /// Tells what was made before from what is made now.
    pub(crate) fn next_order(&self) -> u64 {
        self.orders.fetch_add(1, SeqCst)
    }

    /// Adds a scope, as the innermost.
    pub(crate) fn push(&self, link: Link) {
        match self.scopes().last() {
            Some(last) => last.value.next.store(link.plus_one(), SeqCst),
            None => self.scopes.store(link.plus_one(), SeqCst),
        }
    }

    /// Takes a scope out, wherever it is.
    pub(crate) fn remove(&self, link: Link) {
        let next = link.node().next.load(SeqCst);
        let before = self.scopes().find(|place| place.value.next.load(SeqCst) == link.plus_one());
        match before {
            Some(place) => place.value.next.store(next, SeqCst),
            None if self.scopes.load(SeqCst) == link.plus_one() => self.scopes.store(next, SeqCst),
            None => {}
        }
    }

    /// Sets `pending` to what the gates and the deadlines say: swap, then walk (invariant 3). For the thread itself, with all signals blocked.
    pub(crate) fn lower(&self) {
        self.window.pending.swap(0, SeqCst);
        if self.scopes().any(|place| place.value.gate.acts()) || deadline::all(self).any(Entry::acts) {
            self.window.pending.store(1, SeqCst);
        }
    }

    /// Nobody owns up to `pending`: a handler runs on top of a thread that is about to lower it (a deadline that was due is dropped). The call that found
    /// it would be cancelled again and again.
    pub(crate) fn mend_pending(&self) {
        if self.window.pending.load(SeqCst) != 0 {
            let saved = mask::block_all();
            self.lower();
            mask::set(saved);
        }
    }

    /// Whether something is asked that acts and that nobody has acknowledged.
    pub(crate) fn has_unseen(&self) -> bool {
        self.scopes().any(|place| place.value.gate.is_unseen()) || deadline::all(self).any(Entry::is_unseen)
    }

    /// The number is not blocked by us any more, or is about to be opened.
    pub(crate) fn open(&self, sig: i32) {
        self.shut.fetch_and(!Mask::of(sig).0, SeqCst);
    }

    /// In a forked child: forgets every thread but the caller's.
    pub(crate) fn forget_others(keep: Option<&'static Record>) {
        let kept = keep.map(Record::index);
        for entry in TABLE.iter().filter_map(OnceBox::get).flatten() {
            entry.store(0, SeqCst);
        }
        for record in Record::all().filter(|record| record.tid() != 0 && Some(record.index()) != kept) {
            record.scopes.store(0, SeqCst);
            record.deadlines.store(0, SeqCst);
            record.window.pending.store(0, SeqCst);
            record.lanes().for_each(Lane::forget);
            record.tid.store(0, SeqCst);
            if let Some(place) = RECORDS.get(record.index()) {
                RECORDS.give(place);
            }
        }
    }
}

fn entry_of(tid: u32) -> Option<&'static AtomicU32> {
    TABLE.get(tid as usize / ROW)?.get()?.get(tid as usize % ROW)
}
