//! The lane's timer: what sends again when one signal was not enough, and what brings a deadline (protocol 8).
//!
//! # Invariants
//! 1. A sender arms on the change from idle only. A timer that is set anew may take back an expiry that is queued, and with it a signal that was
//!    merged into that; so nothing depends on one signal arriving.
//! 2. An expiry means nothing by itself: the handler looks at the gates. Whoever takes `armed` off looks at them afterwards, so a request is
//!    either seen by that look, or its sender finds the timer idle and arms it.
//! 3. The timer is made once for a lane and a thread, kept, and deleted when the thread ends; in a forked child its id is forgotten, not
//!    deleted, since it may be another timer's there.
//! 4. `armed` speaks of the resend. `next` is the lane's next deadline; whoever sets the timer, for whatever, sets it no later than that, and looks at
//!    `next` again afterwards, since the thread may have set an earlier one in between.
//! 5. The thread sets the timer for its deadlines without regard to who has armed it, so it looks at the gates afterwards ([`look_again`], [`renew`]): a
//!    request whose sender was overtaken is armed anew.
//! 6. `armed` that has outlived its expiry by [`LOST_AFTER`] is taken for idle: somebody ate the signal, or the number is blocked.
//!
//! # Async-signal-safety
//! Everything is. Callers have all signals blocked, so nobody leaves by longjmp between `armed` and the setting of the timer.

use crate::atomic::{AtomicI32, AtomicU32, AtomicU64, SeqCst};
use crate::engine::deadline::{self, Entry};
use crate::engine::lane::{LOST_AFTER, Lane};
use crate::engine::node::Node;
use crate::engine::record::Record;
use crate::engine::{interrupt, provenance, standing};
use crate::kernel::clock::{self, NEVER};
use crate::kernel::frame::Caller;
use crate::kernel::{raw, timer};
use crate::resend::{Pauses, Resend};
use nix::errno::Errno;

/// No timer was made: 0 is a timer's id.
const NONE: i32 = -1;

/// The state of a lane's timer.
#[derive(Debug)]
pub(crate) struct Timer {
    id: AtomicI32,
    armed: AtomicU32,
    /// It was set since it was stopped. (`armed` does not say: before Linux 6.13 the expiry of an earlier setting may land after a later one.)
    runs: AtomicU32,
    /// When it is to expire, in coarse milliseconds.
    due: AtomicU64,
    /// The pause that was taken last, in nanoseconds.
    pause: AtomicU64,
    /// The lane's next deadline, in nanoseconds of CLOCK_MONOTONIC.
    next: AtomicU64,
}

impl Timer {
    pub(crate) const fn new() -> Timer {
        Timer {
            id: AtomicI32::new(NONE),
            armed: AtomicU32::new(0),
            runs: AtomicU32::new(0),
            due: AtomicU64::new(0),
            pause: AtomicU64::new(0),
            next: AtomicU64::new(NEVER),
        }
    }

    /// Whether an expiry is to be expected.
    pub(crate) fn is_armed(&self) -> bool {
        self.armed.load(SeqCst) != 0 && !self.is_overdue()
    }

    fn is_overdue(&self) -> bool {
        clock::coarse_milliseconds() > self.due.load(SeqCst).saturating_add(LOST_AFTER)
    }

    /// The same, for a deadline too: what comes without a siginfo may be an expiry.
    pub(crate) fn may_have_expired(&self) -> bool {
        self.is_armed() || self.next() <= clock::now()
    }

    /// See `next`.
    pub(super) fn next(&self) -> u64 {
        self.next.load(SeqCst)
    }

    pub(super) fn note_next(&self, at: u64) {
        self.next.store(at, SeqCst);
    }

    /// The pauses begin with the first again.
    pub(super) fn begin_anew(&self) {
        self.pause.store(0, SeqCst);
    }

    /// It has expired.
    pub(super) fn expired(&self) {
        self.armed.store(0, SeqCst);
    }

    /// In a forked child, where there is no such timer.
    pub(super) fn forget(&self) {
        self.id.store(NONE, SeqCst);
        self.armed.store(0, SeqCst);
        self.runs.store(0, SeqCst);
        self.next.store(NEVER, SeqCst);
    }

    /// The thread ends.
    pub(super) fn delete(&self) {
        let id = self.id.swap(NONE, SeqCst);
        self.armed.store(0, SeqCst);
        if id != NONE {
            timer::delete(id);
        }
    }

    /// Stops it, if it was set. Nobody is inside the lane's gates.
    pub(super) fn stop(&self) {
        self.begin_anew();
        self.next.store(NEVER, SeqCst);
        if self.runs.swap(0, SeqCst) != 0 {
            let id = self.id.load(SeqCst);
            if id != NONE {
                let _ = timer::set(id, 0);
            }
            self.armed.store(0, SeqCst);
        }
    }

    /// Lets it expire now, if there is one, and waits until its signal is queued. Nobody arms it any more.
    pub(super) fn run_out(&self) {
        let id = self.id.load(SeqCst);
        if id == NONE || timer::set(id, 1).is_err() {
            return;
        }
        while timer::is_running(id) {
            raw::pause_for(1000);
        }
        self.armed.store(0, SeqCst);
    }

    /// Whether there is one.
    pub(super) fn is_made(&self) -> bool {
        self.id.load(SeqCst) != NONE
    }

    /// The next pause: the first, or twice the last one.
    fn next_pause(&self, pauses: Pauses) -> u64 {
        let last = self.pause.load(SeqCst);
        let next = if last == 0 { pauses.first } else { last.saturating_mul(2) }.clamp(1, pauses.ceiling.max(1));
        self.pause.store(next, SeqCst);
        next
    }
}

/// The lane's timer; made if there is none.
///
/// # Errors
/// EAGAIN: the kernel has no timer left (RLIMIT_SIGPENDING).
pub(super) fn prepare(lane: &Lane) -> Result<i32, Errno> {
    let known = lane.timer.id.load(SeqCst);
    if known != NONE {
        return Ok(known);
    }
    let made = timer::create(lane.record.tid(), lane.sig, provenance::value(lane))?;
    match lane.timer.id.compare_exchange(NONE, made, SeqCst, SeqCst) {
        Ok(_) => Ok(made),
        Err(theirs) => {
            timer::delete(made);
            Ok(theirs)
        }
    }
}

/// Arms the lane's timer, unless it is armed.
///
/// # Errors
/// As [`prepare`].
fn arm(lane: &Lane, pause: u64) -> Result<(), Errno> {
    let id = prepare(lane)?;
    let overdue = lane.timer.is_overdue();
    if lane.timer.armed.swap(1, SeqCst) != 0 && !overdue {
        return Ok(());
    }
    lane.timer.due.store(clock::coarse_milliseconds().saturating_add(pause / 1_000_000), SeqCst);
    set(lane, id, pause)
}

/// In a while, or at the next deadline if that comes first (invariant 4).
fn set(lane: &Lane, id: i32, pause: u64) -> Result<(), Errno> {
    lane.expect_expiry();
    lane.timer.runs.store(1, SeqCst);
    let mut next = lane.timer.next();
    if next == NEVER {
        timer::set(id, pause)?;
    } else {
        timer::set_at(id, clock::now().saturating_add(pause).min(next))?;
    }
    while lane.timer.next() < next {
        next = lane.timer.next();
        timer::set_at(id, clock::now().saturating_add(pause).min(next))?;
    }
    Ok(())
}

/// For a deadline that comes before what the timer may be set for. The caller looks again.
pub(super) fn bring_forward(lane: &Lane, at: u64) {
    lane.timer.note_next(at);
    set_to_deadline(lane, at);
}

/// Sets it to the next deadline, or stops it, whatever it was set for; the pauses begin anew. The caller looks again.
pub(super) fn retune(lane: &Lane) {
    let next = deadline::earliest(lane);
    lane.timer.begin_anew();
    lane.timer.note_next(next);
    if next != NEVER && standing::is_ours(lane.sig) {
        set_at(lane, next);
    } else if lane.timer.runs.load(SeqCst) != 0 {
        let _ = timer::set(lane.timer.id.load(SeqCst), 0);
    }
    lane.timer.armed.store(0, SeqCst);
}

/// The same where nobody is inside the lane's gates, so that it is known to be still afterwards.
pub(super) fn retune_shut(lane: &Lane) {
    if deadline::earliest(lane) == NEVER { lane.timer.stop() } else { retune(lane) }
}

fn set_to_deadline(lane: &Lane, at: u64) {
    if standing::is_ours(lane.sig) {
        set_at(lane, at);
    }
}

fn set_at(lane: &Lane, at: u64) {
    lane.expect_expiry();
    lane.timer.runs.store(1, SeqCst);
    let _ = timer::set_at(lane.timer.id.load(SeqCst), at); // without a timer there is no deadline: one is made first
}

/// The timer was set for the deadlines alone: a request that found it armed is armed anew (invariant 5).
pub(super) fn look_again(lane: &Lane) {
    if let Some(pauses) = wanted(lane).filter(|_| standing::is_ours(lane.sig)) {
        lane.timer.expired();
        start(lane, pauses);
    }
}

/// For a request that wants to be sent again.
pub(super) fn start(lane: &Lane, pauses: Pauses) {
    if !lane.timer.is_armed() {
        lane.timer.pause.store(pauses.first, SeqCst);
        let _ = arm(lane, pauses.first);
    }
}

/// Where the queue is full, the expiry of a timer that was made before still finds room. `false` if there is none.
pub(super) fn start_at_once(lane: &Lane) -> bool {
    lane.timer.is_made() && arm(lane, 1).is_ok()
}

/// The timer has expired: if somebody still waits, it is armed anew (invariant 2); else for the next deadline.
pub(super) fn again(lane: &Lane, caller: Caller) {
    if caller != Caller::Kernel && !standing::is_ours(lane.sig) {
        return;
    }
    if let Some(pauses) = wanted(lane) {
        let _ = arm(lane, lane.timer.next_pause(pauses));
    } else if lane.timer.next() != NEVER {
        set_at(lane, lane.timer.next());
        look_again(lane); // a sender may have armed it in between
    }
}

/// One of ours was taken out of the queue by the thread itself: for what nobody has acknowledged it is sent again, and lands when the handler returns.
pub(super) fn after_taking(lane: &Lane) {
    deadline::mark_due(lane);
    if lane.timer.next() != NEVER {
        set_to_deadline(lane, lane.timer.next());
        lane.timer.expired();
    }
    if has_unseen(lane) && standing::is_ours(lane.sig) {
        if let Some(pauses) = wanted(lane) {
            start(lane, pauses);
        }
        if lane.take_off() && interrupt::send(lane).is_err() {
            lane.landed();
        }
    }
}

/// The interrupt cannot be brought home now: the timer tries again, whether or not a resend was asked for.
pub(super) fn by_timer(lane: &Lane, caller: Caller) {
    if caller == Caller::Kernel || standing::is_ours(lane.sig) {
        let pauses = wanted(lane).unwrap_or(Resend::default().pauses());
        let _ = arm(lane, lane.timer.next_pause(pauses));
    }
}

/// The thread itself has opened gates, with all signals blocked: what was asked while they were held acts now.
pub(super) fn renew(record: &Record) {
    for lane in record.lanes().filter(|lane| has_unseen(lane)) {
        if !standing::is_ours(lane.sig) {
            continue;
        }
        if let Some(pauses) = wanted(lane) {
            start(lane, pauses);
        }
        if record.window.mark.load(SeqCst) != 0 && lane.take_off() && interrupt::send(lane).is_err() {
            lane.landed(); // for a call below this handler (row 6)
        }
    }
}

/// In a forked child: the same by the timer alone, and later. A child that does nothing but exec, in a handler above a call, must not hand a signal of
/// ours to the new program; exec deletes timers.
pub(super) fn renew_in_child(record: &Record) {
    const LATER: u64 = 20_000_000;
    let later = clock::now().saturating_add(LATER);
    for lane in record.lanes().filter(|lane| lane.has_scopes()) {
        let next = deadline::earliest(lane);
        lane.timer.note_next(next);
        let comes_again = has_unseen(lane) && (wanted(lane).is_some() || record.window.mark.load(SeqCst) != 0);
        let at = if comes_again { later } else { next.max(later) };
        if at != NEVER && prepare(lane).is_ok() {
            set_to_deadline(lane, at);
        }
    }
}

/// Whether something is asked on this lane, or due, that nobody has acknowledged.
fn has_unseen(lane: &Lane) -> bool {
    scopes(lane).any(|node| node.gate.is_unseen()) || deadline::of_lane(lane).any(Entry::is_unseen)
}

/// The shortest of the pauses that requests of this lane want which nobody has acknowledged.
pub(super) fn wanted(lane: &Lane) -> Option<Pauses> {
    let asked = scopes(lane).filter(|node| node.gate.wants_resend()).map(Node::pauses);
    let due = deadline::of_lane(lane).filter(|entry| entry.is_unseen()).filter_map(Entry::pauses);
    let wanting = asked.chain(due).filter(|pauses| pauses.first != 0);
    wanting.reduce(|a, b| Pauses { first: a.first.min(b.first), ceiling: a.ceiling.min(b.ceiling) })
}

fn scopes(lane: &Lane) -> impl Iterator<Item = &'static Node> {
    let sig = lane.sig;
    lane.record.scopes().map(|place| &place.value).filter(move |node| node.sig() == sig)
}
