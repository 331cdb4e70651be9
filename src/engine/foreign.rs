//! Signals that are not ours (protocol 10): which policy counts, and what it does.
//!
//! # Invariants
//! 1. The innermost scope of a lane decides; one that chains is looked through, as if it were not there.
//! 2. A scope that asked to be interrupted is, whichever thread the kernel picked, unless a scope further in on its own lane
//!    ignores. What else happens is the innermost one's to say.
//! 3. A scope is reached by its link only: one that has ended answers Gone, so nobody waits for the handlers of other threads.
//! 4. The action behind runs before the scopes are interrupted that want both: what its handler wrote is there when they wake.
//!
//! # Async-signal-safety
//! [`arrived`] is. [`entered`] and [`left`] are for the thread itself.

use crate::engine::chain;
use crate::engine::gate::Request;
use crate::engine::lane::Lane;
use crate::engine::node::{Link, Shadow};
use crate::engine::record::Record;
use crate::engine::slot::Slot;
use crate::engine::{blocked, interrupt};
use crate::kernel::frame::{Caller, Frame};
use crate::kernel::send::Info;
use crate::policy::Foreign;
use crate::signal::Signal;

/// A foreign signal, with a siginfo. All signals are blocked.
pub(super) fn arrived(frame: &Frame, caller: Caller, info: &Info, lane: Option<&Lane>) {
    let live = lane.filter(|lane| lane.is_live());
    if let Some(lane) = live {
        if Signal::from(frame.sig).is_standard() {
            lane.calm(); // the kernel may have merged ours into it (R2)
        }
        if lane.is_entering() {
            return blocked::hold(frame, caller, lane, info);
        }
    }
    let slot = Slot::of(frame.sig);
    match interrupt_scopes(slot) {
        Interrupted::None => {}
        Interrupted::Done => return,
        Interrupted::ThenChain => {
            as_before(frame, caller, info, live);
            return interrupt_those_after(slot);
        }
        Interrupted::AfterHandler => {
            if chain::is_handler(slot) {
                chain::forward(frame, caller, slot);
            }
            return interrupt_those_after(slot);
        }
    }
    if live.is_none_or(|lane| decides(lane) != Foreign::Ignore) {
        as_before(frame, caller, info, live);
    }
}

/// What would have happened without a scope.
fn as_before(frame: &Frame, caller: Caller, info: &Info, lane: Option<&Lane>) {
    match lane {
        Some(lane) if lane.was_blocked() => blocked::hand_back(frame, caller, lane, info),
        _ => chain::forward(frame, caller, Slot::of(frame.sig)),
    }
}

#[derive(Clone, Copy)]
enum Interrupted {
    /// Nobody wants to be.
    None,
    /// All who want to be; nothing else happens.
    Done,
    /// The second one under `InterruptOnce`.
    ThenChain,
    /// Some are still to be, after the handler behind.
    AfterHandler,
}

fn interrupt_scopes(slot: &Slot) -> Interrupted {
    let mut outcome = Interrupted::None;
    for link in wanting(slot) {
        outcome = match (act_on(link), outcome) {
            (Interrupted::None, before) => before,
            (Interrupted::Done, Interrupted::None) => Interrupted::Done,
            (Interrupted::AfterHandler, Interrupted::None | Interrupted::Done) => Interrupted::AfterHandler,
            (Interrupted::ThenChain, _) => Interrupted::ThenChain,
            (_, before) => before,
        };
    }
    outcome
}

/// What one scope wants. One that is decided for further in is interrupted, no more.
fn act_on(link: Link) -> Interrupted {
    let decides = link.node().shadow() == Shadow::None;
    let request = match link.node().policy() {
        Foreign::InterruptAndChain if decides => return Interrupted::AfterHandler,
        Foreign::InterruptOnce if decides => Request::FirstSignal,
        _ => Request::Signal,
    };
    match interrupt::masked(link, request) {
        None => Interrupted::ThenChain,
        Some(_) => Interrupted::Done,
    }
}

/// Those that want the handler behind to have run before.
fn interrupt_those_after(slot: &Slot) {
    let both = |link: &Link| link.node().policy() == Foreign::InterruptAndChain && link.node().shadow() == Shadow::None;
    for link in wanting(slot).filter(both) {
        interrupt::masked(link, Request::Signal);
    }
}

fn wanting(slot: &Slot) -> impl Iterator<Item = Link> {
    slot.interrupters().filter(|link| link.is_open() && link.node().shadow() != Shadow::Ignored)
}

/// The policy of this thread's lane (invariant 1).
fn decides(lane: &Lane) -> Foreign {
    let on_lane = |link: &Link| link.node().sig() == lane.sig && link.is_open();
    let policies = lane.record.scopes().map(Link::of).filter(on_lane).map(|link| link.node().policy());
    policies.filter(|policy| *policy != Foreign::Chain).last().unwrap_or_default()
}

/// A scope was added to the calling thread's list.
pub(super) fn entered(record: &Record, link: Link) {
    let policy = link.node().policy();
    if policy.interrupts() {
        Slot::of(link.node().sig()).add_interrupter(link);
    }
    if policy != Foreign::Chain {
        shadow(record, link.node().sig());
    }
}

/// A scope was taken out of the list; its gate is closed, its node not yet given back.
pub(super) fn left(record: &Record, link: Link) {
    let policy = link.node().policy();
    if policy.interrupts() {
        Slot::of(link.node().sig()).remove_interrupter(link);
    }
    if policy != Foreign::Chain {
        shadow(record, link.node().sig());
    }
}

/// Says of each scope of a lane what those further in leave of its policy (invariants 1 and 2).
fn shadow(record: &Record, sig: i32) {
    let on_lane = || record.scopes().filter(move |place| place.value.sig() == sig);
    for (at, place) in on_lane().enumerate() {
        let further_in = || on_lane().skip(at + 1).map(|inner| inner.value.policy());
        place.value.set_shadow(if further_in().any(|policy| policy == Foreign::Ignore) {
            Shadow::Ignored
        } else if further_in().any(Foreign::interrupts) {
            Shadow::Decided
        } else {
            Shadow::None
        });
    }
}
