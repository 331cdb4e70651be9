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
//! 6. A `due` that has passed by [`LOST_AFTER`](crate::engine::lane::LOST_AFTER) is taken for none: somebody ate the signal, or the number is blocked.
//!
//! # Async-signal-safety
//! Everything is. Senders and the handler have all signals blocked, so nobody leaves by longjmp between `due` and the setting of the timer. The thread's
//! own settings for its deadlines do without (two calls less): a longjmp out of those is forbidden, as out of `enter`.

use crate::atomic::SeqCst;
use crate::engine::deadline::{self, Entry};
use crate::engine::lane::Lane;
use crate::engine::node::Node;
use crate::engine::record::Record;
use crate::engine::timer::{NONE, from_now, next_pause};
use crate::engine::{interrupt, provenance, standing};
use crate::kernel::clock::{self, NEVER};
use crate::kernel::frame::Caller;
use crate::kernel::timer;
use crate::resend::{Pauses, Resend};
use nix::errno::Errno;

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
    lane.timer.note_stopped(false);
    timer::set_at(id, time)
}

/// For a deadline that comes before what the timer may be set for.
pub(super) fn bring_forward(lane: &Lane, at: u64) {
    lane.timer.note_next(at.min(deadline::earliest(lane)));
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

/// Sets it to what it is to expire for. Where somebody else's action stands it is stopped, so that nothing of ours comes there.
fn set_if_ours(lane: &Lane) {
    let is_wanted = || lane.timer.time() != NEVER;
    let was_wanted = is_wanted(); // once: what a sender claims from here on is not taken off
    if was_wanted && standing::is_ours(lane.sig) {
        // Made, if there is none: in a forked child nobody has needed it by now.
        let _ = prepare(lane).and_then(|id| set(lane, id, NEVER));
        return;
    }
    if was_wanted {
        lane.timer.note_stopped(true);
        lane.timer.expired();
    }
    if lane.timer.runs.load(SeqCst) != 0 {
        let _ = timer::set(lane.timer.id.load(SeqCst), 0);
        if is_wanted() && standing::is_ours(lane.sig) {
            let _ = prepare(lane).and_then(|id| set(lane, id, NEVER)); // a sender was overtaken
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
