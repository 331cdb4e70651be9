//! Deadlines (protocol 8): what is to happen at a time, on which lane, and whether that time has come.
//!
//! # Invariants
//! 1. A deadline is *due* when the clock says so, and never before. DUE in `state` says that `pending` was told; so what is not marked, whether
//!    its time has passed or not, is what the lane's timer is still to expire for. (Two looks at the clock would lose the one that falls between.)
//!    Whoever tells the thread's own code that it is due, marks it: what looks next must not find nothing.
//! 2. The list is changed by its thread alone, in single stores, so that the thread's handler can walk it at any instant; `state` is changed by
//!    both, on one thread.
//! 3. An entry is never freed. It belongs to a guard as long as the generation is the one that the guard remembers, and it leaves the list no later
//!    than its scope does.
//! 4. One that is shielded neither acts nor arms; nothing about it has to be remembered, since the clock tells all of it when the shield ends.
//!
//! # Async-signal-safety
//! [`mark_due`], [`earliest`] and the walks are. What the guard calls is for the thread itself; [`begin`] may allocate.

use crate::atomic::{AtomicU32, AtomicU64, SeqCst};
use crate::engine::lane::Lane;
use crate::engine::node::Link;
use crate::engine::pool::{Place, Pool};
use crate::engine::record::Record;
use crate::engine::{fork, nested, resend};
use crate::kernel::clock::{self, NEVER};
use crate::kernel::mask;
use crate::resend::Pauses;
use nix::errno::Errno;

static ENTRIES: Pool<Entry> = Pool::new();

/// Its time was seen to have come, and `pending` was told.
const DUE: u32 = 1;
/// And it was acknowledged.
const SEEN: u32 = 2;

/// See the module.
#[derive(Debug)]
pub(crate) struct Entry {
    /// In nanoseconds of CLOCK_MONOTONIC.
    at: AtomicU64,
    state: AtomicU32,
    /// Order of making, on the thread.
    order: AtomicU64,
    /// Shields that are up over it.
    shields: AtomicU32,
    /// The scope that it interrupts.
    scope: AtomicU64,
    generation: AtomicU64,
    /// Index plus one of the next one in the thread's list.
    next: AtomicU32,
}

/// What a guard holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tag {
    place: &'static Place<Entry>,
    generation: u64,
}

impl Entry {
    fn new() -> Entry {
        Entry {
            at: AtomicU64::new(NEVER),
            state: AtomicU32::new(0),
            order: AtomicU64::new(0),
            shields: AtomicU32::new(0),
            scope: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            next: AtomicU32::new(0),
        }
    }

    fn is_shielded(&self) -> bool {
        self.shields.load(SeqCst) != 0
    }

    fn state_is(&self, bits: u32) -> bool {
        self.state.load(SeqCst) == bits
    }

    /// Whether `pending` is to be 1 for it.
    pub(super) fn acts(&self) -> bool {
        !self.state_is(0) && !self.is_shielded()
    }

    /// The same, and nobody has acknowledged it.
    pub(super) fn is_unseen(&self) -> bool {
        self.state_is(DUE) && !self.is_shielded()
    }

    /// Whether it is due at this time.
    fn is_due(&self, now: u64) -> bool {
        !self.state_is(0) || self.at.load(SeqCst) <= now
    }

    /// It was found due.
    fn tell(&self, record: &Record) {
        if !self.is_shielded() && self.state.compare_exchange(0, DUE, SeqCst, SeqCst).is_ok() {
            record.window.pending.store(1, SeqCst);
        }
    }

    fn link(&self) -> Option<Link> {
        Link::from_bits(self.scope.load(SeqCst))
    }

    /// The pauses of its scope's resend.
    pub(super) fn pauses(&self) -> Option<Pauses> {
        self.link().map(|link| link.node().pauses())
    }
}

/// The deadlines of a thread. For the thread itself and its handler.
pub(super) fn all(record: &Record) -> impl Iterator<Item = &'static Entry> {
    places(record).map(|place| &place.value)
}

fn places(record: &Record) -> impl Iterator<Item = &'static Place<Entry>> {
    let place = |plus_one: u32| ENTRIES.get(plus_one.checked_sub(1)?);
    std::iter::successors(place(record.deadlines.load(SeqCst)), move |at| place(at.value.next.load(SeqCst)))
}

/// Those that act by this lane's number.
pub(super) fn of_lane(lane: &Lane) -> impl Iterator<Item = &'static Entry> {
    let sig = lane.sig;
    all(lane.record).filter(move |entry| entry.link().is_some_and(|link| link.node().sig() == sig))
}

/// Whether one of the lane's acts, or is to.
pub(super) fn is_waited_for(lane: &Lane) -> bool {
    of_lane(lane).any(|entry| !entry.is_shielded())
}

/// When the lane's timer is to expire next (invariant 1).
pub(super) fn earliest(lane: &Lane) -> u64 {
    let waiting = of_lane(lane).filter(|entry| entry.state_is(0) && !entry.is_shielded());
    waiting.map(|entry| entry.at.load(SeqCst)).min().unwrap_or(NEVER)
}

/// Looks at the clock, and tells `pending` of the lane's deadlines that are due now.
pub(super) fn mark_due(lane: &Lane) {
    if lane.record.deadlines.load(SeqCst) == 0 {
        return lane.timer.note_next(NEVER); // one that ends is off the list before the timer is told
    }
    let now = clock::now();
    for entry in of_lane(lane).filter(|entry| entry.state_is(0) && !entry.is_shielded() && entry.is_due(now)) {
        entry.tell(lane.record);
        lane.timer.begin_anew();
    }
    lane.timer.note_next(earliest(lane));
}

/// The thread itself looks, before a call too: what the clock says is so, though the signal may have been eaten, or wait behind a number that the program
/// has blocked. A timer that was stopped while somebody else's action stood is set again.
#[inline]
pub(crate) fn notice(record: &Record) {
    if record.deadlines.load(SeqCst) != 0 {
        notice_all(record);
    }
}

fn notice_all(record: &Record) {
    let now = clock::now();
    for entry in all(record).filter(|entry| entry.state_is(0) && !entry.is_shielded()) {
        let lane = entry.link().and_then(lane_of);
        if entry.is_due(now) {
            entry.tell(record);
        }
        lane.filter(|lane| lane.timer.is_stopped()).into_iter().for_each(resend::retune);
    }
}

/// An acknowledgement: what is due now is seen.
pub(super) fn see_due(record: &Record) {
    if record.deadlines.load(SeqCst) != 0 {
        let now = clock::now();
        let due = all(record).filter(|entry| !entry.is_shielded() && entry.is_due(now));
        due.for_each(|entry| entry.state.store(DUE | SEEN, SeqCst));
    }
}

/// Whether one of the scope's own is due; `shielded`: also one that waits for the end of a shield. For the thread's own look (invariant 1).
pub(super) fn is_due(record: &Record, link: Link, shielded: bool) -> bool {
    let mut of_scope = all(record).filter(|entry| entry.scope.load(SeqCst) == link.to_bits());
    let mut now = None;
    let mut is_due = |entry: &Entry| entry.is_due(*now.get_or_insert_with(clock::now));
    let due = of_scope.find(|entry| (shielded || !entry.is_shielded()) && is_due(entry));
    due.into_iter().for_each(|entry| entry.tell(record));
    due.is_some()
}

/// A new shield is over all that there are.
pub(super) fn shield(record: &Record) {
    all(record).for_each(|entry| _ = entry.shields.fetch_add(1, SeqCst));
}

/// A shield ends that was over those before it.
pub(super) fn unshield(record: &Record, order: u64) {
    let below = all(record).filter(|entry| entry.order.load(SeqCst) < order);
    below.for_each(|entry| _ = entry.shields.fetch_sub(1, SeqCst));
}

/// Takes those of a scope off, which ends.
pub(super) fn end_all(record: &Record, link: Link) {
    while let Some(place) = places(record).find(|place| place.value.scope.load(SeqCst) == link.to_bits()) {
        unlink(record, place);
        give_back(place);
    }
}

/// Whether the scope has any.
pub(super) fn has_any(record: &Record, link: Link) -> bool {
    all(record).any(|entry| entry.scope.load(SeqCst) == link.to_bits())
}

/// Interrupts the scope of the calling thread at a time, unless it is ended before.
///
/// # Errors
/// As [`resend::prepare`]; nothing has changed then.
pub(crate) fn begin(link: Link, at: u64) -> Result<Tag, Errno> {
    fork::check();
    let lane = lane_of(link);
    if let Some(lane) = lane {
        nested::look(lane.record);
        resend::prepare(lane)?;
    }
    let place = ENTRIES.take(Entry::new);
    let entry = &place.value;
    entry.at.store(at, SeqCst);
    entry.state.store(0, SeqCst);
    entry.shields.store(0, SeqCst);
    entry.scope.store(link.to_bits(), SeqCst);
    if let Some(lane) = lane {
        entry.order.store(lane.record.next_order(), SeqCst);
        entry.next.store(lane.record.deadlines.load(SeqCst), SeqCst);
        lane.record.deadlines.store(place.index() + 1, SeqCst);
        wait_for(lane, entry);
    }
    Ok(Tag { place, generation: entry.generation.load(SeqCst) })
}

/// Moves it. One that was due is taken back.
pub(crate) fn reset(tag: Tag, at: u64) {
    fork::check();
    let entry = &tag.place.value;
    let Some(lane) = tag.lane() else { return };
    nested::look(lane.record);
    let before = entry.at.swap(at, SeqCst);
    // The first two set the timer for what is earliest by then, this one or another; if it has passed, at once.
    if entry.state.swap(0, SeqCst) != 0 {
        take_back(lane);
    } else if before <= lane.timer.next() && before < at {
        resend::retune(lane);
    } else {
        wait_for(lane, entry);
    }
}

/// The guard has found it due.
pub(crate) fn tell(tag: Tag) {
    fork::check();
    if let Some(lane) = tag.lane() {
        tag.place.value.tell(lane.record);
    }
}

/// The guard drops.
pub(crate) fn end(tag: Tag) {
    fork::check();
    let entry = &tag.place.value;
    if entry.generation.load(SeqCst) != tag.generation {
        return; // ended with its scope
    }
    let Some(lane) = tag.lane() else { return give_back(tag.place) };
    nested::look(lane.record);
    unlink(lane.record, tag.place); // first: from here the handler leaves it alone
    let (was_due, at) = (!entry.state_is(0), entry.at.load(SeqCst));
    give_back(tag.place);
    if was_due {
        take_back(lane);
    } else if at <= lane.timer.next() {
        resend::retune(lane);
    }
}

impl Tag {
    /// The lane that it acts on, as long as its scope lives.
    fn lane(self) -> Option<&'static Lane> {
        let entry = &self.place.value;
        let link = entry.link().filter(|_| entry.generation.load(SeqCst) == self.generation)?;
        lane_of(link)
    }
}

fn lane_of(link: Link) -> Option<&'static Lane> {
    let record = link.node().record().filter(|_| link.is_open())?;
    record.lane(link.node().sig())
}

/// Out of the list, if it is there.
fn unlink(record: &Record, place: &'static Place<Entry>) {
    let next = place.value.next.load(SeqCst);
    let before = places(record).find(|other| other.value.next.load(SeqCst) == place.index() + 1);
    match before {
        Some(other) => other.value.next.store(next, SeqCst),
        None if record.deadlines.load(SeqCst) == place.index() + 1 => record.deadlines.store(next, SeqCst),
        None => {}
    }
}

/// Free for the next one.
fn give_back(place: &'static Place<Entry>) {
    place.value.generation.fetch_add(1, SeqCst);
    ENTRIES.give(place);
}

/// One that is to come makes the timer expire for it, unless an earlier one does. One that has passed acts at once.
fn wait_for(lane: &Lane, entry: &Entry) {
    let at = entry.at.load(SeqCst);
    if entry.is_shielded() || at == NEVER {
        return;
    }
    let now = clock::now();
    let was_eaten = lane.timer.next() <= now; // or is on its way; nobody is to count on it
    if at <= now || was_eaten {
        let saved = mask::block_all();
        mark_due(lane);
        if was_eaten {
            resend::retune(lane);
        }
        resend::renew(lane.record);
        mask::set(saved);
    } else if at <= lane.timer.next() || lane.timer.is_stopped() {
        // Also if it is the next already: a handler may have noted that, without cause to set the timer. And the next may have been noted while somebody
        // else's action stood, without the timer being set.
        resend::bring_forward(lane, at);
    }
}

/// One that was due is so no more: nothing of it may come after this. Restoring the mask is the barrier. The next interrupt is told EINTR first again,
/// unless what a call was told was for one that is still asked.
fn take_back(lane: &Lane) {
    let saved = mask::block_all();
    lane.record.lower();
    if !lane.record.has_unseen() {
        lane.landing.forget();
    }
    resend::retune(lane);
    resend::renew(lane.record);
    mask::set(saved);
}
