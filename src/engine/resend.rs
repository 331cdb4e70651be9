//! The lane's timer: what sends again when one signal was not enough, and what brings a deadline (protocol 8).
//!
//! # Invariants
//! 1. A sender sets the timer only if nobody has armed it for a time before the sender's own. A timer that is set anew may take back an expiry that
//!    is queued, and with it a signal that was merged into that; so nothing depends on one signal arriving.
//! 2. An expiry means nothing by itself: the handler looks at the gates. Whoever takes `due` off looks at them afterwards, so a request is either seen
//!    by that look, or its sender finds the timer idle and arms it.
//! 3. The timer is made once for a lane and a thread, kept, and deleted when the thread ends; in a forked child its id is forgotten, not
//!    deleted, since it may be another timer's there.
//! 4. `due` is the time of the resend, `next` that of the lane's next deadline. Whoever sets the timer, for whatever, writes down first what for, sets it
//!    no later than either, and looks at both again afterwards: of two who set it at once, the one that comes last has seen what the other wrote.
//! 5. Where the thread takes back what the timer was set for ([`retune`]), `due` is taken off first and then the gates are looked at: a request whose sender
//!    had armed it by then is armed anew.
//! 6. A `due` that has passed by [`LOST_AFTER`] is taken for none: somebody ate the signal, or the number is blocked.
//!
//! # Async-signal-safety
//! Everything is. Senders, and the handler, have all signals blocked, so nobody leaves by longjmp between `due` and the setting of the timer.

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
    /// It was set since it was stopped. (`due` does not say: before Linux 6.13 the expiry of an earlier setting may land after a later one.)
    runs: AtomicU32,
    /// When the signal is to come again, in nanoseconds of CLOCK_MONOTONIC. NEVER: nobody has armed the timer.
    due: AtomicU64,
    /// The lane's next deadline, likewise.
    next: AtomicU64,
    /// The pause that was taken last, in nanoseconds.
    pause: AtomicU64,
    /// The same where the interrupt could not be brought home ([`by_timer`]).
    doubt: AtomicU64,
}

impl Timer {
    pub(crate) const fn new() -> Timer {
        Timer {
            id: AtomicI32::new(NONE),
            runs: AtomicU32::new(0),
            due: AtomicU64::new(NEVER),
            next: AtomicU64::new(NEVER),
            pause: AtomicU64::new(0),
            doubt: AtomicU64::new(0),
        }
    }

    /// Whether the signal is to come again.
    pub(crate) fn is_armed(&self) -> bool {
        let due = self.due.load(SeqCst);
        due != NEVER && !is_lost(due)
    }

    /// `true` if the caller is to set the timer: it was not to expire before this.
    fn claim(&self, at: u64) -> bool {
        let sooner = |due| (at < due || is_lost(due)).then_some(at);
        self.due.fetch_update(SeqCst, SeqCst, sooner).is_ok()
    }

    /// The same for the first pause: the time, if the caller is to set it.
    fn claim_first(&self, pauses: Pauses) -> Option<u64> {
        let at = from_now(pauses.first);
        self.claim(at).then(|| {
            self.pause.store(pauses.first, SeqCst);
            at
        })
    }

    /// What it is to be set for.
    fn time(&self) -> u64 {
        self.due.load(SeqCst).min(self.next())
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
        self.doubt.store(0, SeqCst);
    }

    /// It has expired, or what it was armed for is no more. The caller looks at the gates (invariants 2 and 5).
    pub(super) fn expired(&self) {
        self.due.store(NEVER, SeqCst);
    }

    /// In a forked child, where there is no such timer.
    pub(super) fn forget(&self) {
        self.id.store(NONE, SeqCst);
        self.runs.store(0, SeqCst);
        self.due.store(NEVER, SeqCst);
        self.next.store(NEVER, SeqCst);
    }

    /// The thread ends.
    pub(super) fn delete(&self) {
        let id = self.id.swap(NONE, SeqCst);
        self.due.store(NEVER, SeqCst);
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
        }
        self.due.store(NEVER, SeqCst);
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
        self.due.store(NEVER, SeqCst);
    }

    /// Whether there is one.
    pub(super) fn is_made(&self) -> bool {
        self.id.load(SeqCst) != NONE
    }
}

/// Long after its time it has not come.
fn is_lost(due: u64) -> bool {
    clock::coarse_milliseconds() > (due / 1_000_000).saturating_add(LOST_AFTER)
}

/// A pause that comes again and again is no shorter, or the next signal is there before the thread has returned from the one before, for ever.
const SHORTEST: u64 = 100_000;

/// The next pause: the first, or twice the last one.
fn next_pause(last: &AtomicU64, pauses: Pauses) -> u64 {
    let next = last.load(SeqCst).saturating_mul(2).max(pauses.first).min(pauses.ceiling.max(SHORTEST));
    last.store(next, SeqCst);
    next
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

/// Arms the lane's timer, unless it is to expire before that.
///
/// # Errors
/// As [`prepare`].
fn arm(lane: &Lane, pause: u64) -> Result<(), Errno> {
    let id = prepare(lane)?;
    let at = from_now(pause);
    if lane.timer.claim(at) { set(lane, id, at) } else { Ok(()) }
}

fn from_now(pause: u64) -> u64 {
    clock::now().saturating_add(pause).min(NEVER - 1)
}

/// Sets it to this time, or to what it is to expire for if that comes first (invariant 4).
fn set(lane: &Lane, id: i32, at: u64) -> Result<(), Errno> {
    let mut time = at.min(lane.timer.time());
    loop {
        set_to(lane, id, time)?;
        let wanted = lane.timer.time();
        if wanted >= time {
            return Ok(());
        }
        time = wanted;
    }
}

fn set_to(lane: &Lane, id: i32, time: u64) -> Result<(), Errno> {
    lane.expect_expiry();
    lane.timer.runs.store(1, SeqCst);
    timer::set_at(id, time)
}

/// For a deadline that comes before what the timer may be set for.
pub(super) fn bring_forward(lane: &Lane, at: u64) {
    lane.timer.note_next(at);
    set_if_ours(lane);
}

/// Sets it anew, or stops it, for what is still waited for, whatever it was set for; the pauses begin anew.
pub(super) fn retune(lane: &Lane) {
    lane.timer.begin_anew();
    lane.timer.note_next(deadline::earliest(lane));
    lane.timer.expired();
    if let Some(pauses) = wanted(lane).filter(|_| lane.timer.is_made()) {
        lane.timer.claim_first(pauses); // invariant 5
    }
    set_if_ours(lane);
}

/// The same where nobody is inside the lane's gates, so that it is known to be still afterwards.
pub(super) fn retune_shut(lane: &Lane) {
    if deadline::earliest(lane) == NEVER { lane.timer.stop() } else { retune(lane) }
}

/// Sets it to what it is to expire for. Where somebody else's action stands it is stopped, so that nothing of ours comes there, and nobody has armed it.
fn set_if_ours(lane: &Lane) {
    let id = lane.timer.id.load(SeqCst);
    if id == NONE {
        return;
    }
    let is_wanted = lane.timer.time() != NEVER;
    if is_wanted && standing::is_ours(lane.sig) {
        let _ = set(lane, id, NEVER);
        return;
    }
    if is_wanted {
        lane.timer.expired();
    }
    if lane.timer.runs.load(SeqCst) != 0 {
        let _ = timer::set(id, 0);
        if lane.timer.time() != NEVER && standing::is_ours(lane.sig) {
            let _ = set(lane, id, NEVER); // a sender was overtaken
        }
    }
}

/// For a request that wants to be sent again.
pub(super) fn start(lane: &Lane, pauses: Pauses) {
    if let Ok(id) = prepare(lane)
        && let Some(at) = lane.timer.claim_first(pauses)
    {
        let _ = set(lane, id, at);
    }
}

/// Where the queue is full, the expiry of a timer that was made before still finds room. `false` if there is none.
pub(super) fn start_at_once(lane: &Lane) -> bool {
    lane.timer.is_made() && arm(lane, 1).is_ok()
}

/// The timer has expired: if somebody still waits, it is armed anew (invariant 2); else it is set for the next deadline.
pub(super) fn again(lane: &Lane, caller: Caller) {
    if caller != Caller::Kernel && !standing::is_ours(lane.sig) {
        return;
    }
    if let Some(pauses) = wanted(lane) {
        let _ = arm(lane, next_pause(&lane.timer.pause, pauses));
    } else if lane.timer.next() != NEVER {
        let _ = set(lane, lane.timer.id.load(SeqCst), NEVER);
    }
}

/// One of ours was taken out of the queue by the thread itself: for what nobody has acknowledged it is sent again, and lands when the handler returns.
pub(super) fn after_taking(lane: &Lane) {
    deadline::mark_due(lane);
    if lane.timer.next() != NEVER {
        set_if_ours(lane);
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

/// The interrupt cannot be brought home now: the timer tries again soon, whether or not a resend was asked for, and however long its pauses are.
pub(super) fn by_timer(lane: &Lane, caller: Caller) {
    if caller == Caller::Kernel || standing::is_ours(lane.sig) {
        let short = Resend::default().pauses();
        let pauses = wanted(lane).map_or(short, |pauses| pauses.shorter_of(short));
        let _ = arm(lane, next_pause(&lane.timer.doubt, pauses));
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
        let comes_again = has_unseen(lane) && (wanted(lane).is_some() || record.window.mark.load(SeqCst) != 0);
        let at = if comes_again { later } else { next.max(later) };
        if at != NEVER
            && standing::is_ours(lane.sig)
            && let Ok(id) = prepare(lane)
        {
            let _ = set_to(lane, id, at);
            lane.timer.due.store(if comes_again { at } else { NEVER }, SeqCst);
        }
        lane.timer.note_next(next);
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
    wanting.reduce(Pauses::shorter_of)
}

fn scopes(lane: &Lane) -> impl Iterator<Item = &'static Node> {
    let sig = lane.sig;
    lane.record.scopes().map(|place| &place.value).filter(move |node| node.sig() == sig)
}
