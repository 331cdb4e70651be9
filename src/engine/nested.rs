//! Calls of the crate below other people's handlers (R3 to R5): whether there is one, and how an interrupt gets to it.
//!
//! # Invariants
//! 1. Every way into the crate looks first ([`look`]): a mark whose frame was left by longjmp is taken off there, and numbers that were blocked
//!    for the sake of such a frame are opened.
//! 2. A number is blocked in the interrupted handler's mask only together with a signal that is queued to come again, and only if it was open
//!    there. Otherwise the timer sends.
//!
//! # Async-signal-safety
//! Everything is.

use crate::atomic::{AtomicUsize, SeqCst};
use crate::engine::lane::Lane;
use crate::engine::record::Record;
use crate::engine::{interrupt, resend};
use crate::kernel::decide::Place;
use crate::kernel::frame::{Caller, Frame};
use crate::kernel::mask::{self, Mask};
use crate::kernel::registers::Registers;
use crate::kernel::stack::{self, Life, Stack};

/// The look of every way in. A load or two, if nothing is out of the ordinary.
#[inline]
pub(crate) fn look(record: &Record) {
    if record.window.mark.load(SeqCst) != 0 || record.shut.load(SeqCst) != 0 {
        look_closer(record);
    }
}

#[cold]
fn look_closer(record: &Record) {
    take_off_dead_marks(record);
    open_shut(record);
}

/// Whether a call lies below the calling code that must not be robbed of its interrupt: the code is that of a handler.
pub(crate) fn has_call_below(record: &Record) -> bool {
    record.window.mark.load(SeqCst) != 0 && take_off_dead_marks(record) != Life::Dead
}

fn take_off_dead_marks(record: &Record) -> Life {
    let (here, own) = (stack::here(), record.stack());
    let alternate = if own.has(here) { Stack::default() } else { Stack::alternate() };
    let (mark, life) = innermost(record, record.window.mark.load(SeqCst), here, alternate);
    record.window.mark.store(mark, SeqCst);
    remember(record, mark, |mark| stack::judge(mark, here, own, alternate));
    life
}

/// The innermost call that is not dead. Where the chain was written over, what was remembered leads on.
fn innermost(record: &Record, mark: usize, sp: usize, alternate: Stack) -> (usize, Life) {
    let own = record.stack();
    let found = stack::innermost(mark, sp, own, alternate);
    if mark == 0 || found.1 != Life::Dead {
        return found;
    }
    let remembered = record.below.iter().rev().map(|place| place.load(SeqCst)).filter(|mark| *mark != 0);
    remembered
        .map(|mark| (mark, stack::judge(mark, sp, own, alternate)))
        .find(|(_, life)| *life != Life::Dead)
        .unwrap_or(found)
}

/// Behind those that are still there. (One that finds no room is found by its frame alone.)
fn remember(record: &Record, mark: usize, judge: impl Fn(usize) -> Life) {
    let mut places = record.below.iter();
    let is_kept = |place: &&AtomicUsize| place.load(SeqCst) != mark && judge(place.load(SeqCst)) != Life::Dead;
    if let Some(place) = places.find(|place| !is_kept(place)) {
        place.store(mark, SeqCst);
    }
    places.for_each(|place| place.store(0, SeqCst));
}

/// Numbers that were blocked for the sake of a call below. If it is still there, what is queued lands here, and is blocked and sent again.
fn open_shut(record: &Record) {
    let shut = record.shut.swap(0, SeqCst);
    if shut != 0 {
        mask::unblock_all(Mask(shut));
    }
}

/// The frame below the code that a signal has interrupted.
pub(super) fn below(record: &Record, place: Place, registers: Registers, alternate: Stack) -> Life {
    let mark = record.window.mark.load(SeqCst);
    if mark == 0 {
        return Life::Dead;
    }
    let mark = if place.has_own_mark() { stack::saved_mark(mark) } else { mark };
    innermost(record, mark, registers.sp(), alternate).1
}

/// Protocol 3, row 6: our signal waits until the code that it has interrupted, a handler, has returned to the call below.
pub(super) fn block_and_resend(frame: &Frame, caller: Caller, lane: &Lane) {
    if caller != Caller::Kernel || frame.saved_mask().has(lane.sig) {
        return resend::by_timer(lane, caller); // R5: sent again now it would land at once, again and again
    }
    frame.block_on_return(lane.sig);
    lane.record.shut.fetch_or(Mask::of(lane.sig).0, SeqCst);
    if lane.take_off() && interrupt::send(lane).is_err() {
        lane.landed();
        if !resend::start_at_once(lane) {
            lane.record.open(lane.sig);
            frame.open_on_return(lane.sig);
        }
    }
}
