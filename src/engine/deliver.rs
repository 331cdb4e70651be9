//! The receiving side (protocol 3): what the handler does. One screen.
//!
//! # Invariants
//! 1. Ours are never chained, whatever generation they are of; foreign ones are never swallowed.
//! 2. IN_FLIGHT is taken off before anything else is looked at: a request that comes now sends again.
//! 3. The interrupt itself is `pending`, which the sender has set; the signal only ends the call that the thread is blocked in.
//! 4. What is to be done is decided after the handler behind has run, by the registers as it left them (R6).
//!
//! # Async-signal-safety
//! This is the handler: atomics, arithmetic, system calls. The thread is found by its kernel id, since threads made by a raw `clone` share a
//! thread pointer, and the first touch of a thread-local may allocate.

use crate::atomic::SeqCst;
use crate::engine::lane::Lane;
use crate::engine::record::Record;
use crate::engine::slot::Slot;
use crate::engine::{chain, deadline, foreign, nested, provenance, resend, standing, turn};
use crate::kernel::decide::{Place, Then, decide};
use crate::kernel::frame::{Caller, Frame};
use crate::kernel::send::Info;
use crate::kernel::stub::window::Labels;
use crate::kernel::{pid, raw};
use crate::signal::Signal;

/// A signal of a number that was taken over.
pub(super) fn on_signal(frame: &Frame) {
    let caller = frame.check();
    let record = Record::of(raw::gettid());
    let lane = record.and_then(|record| record.lane(frame.sig));
    match caller {
        Caller::Bare => return without_info(frame, lane),
        Caller::Stripped => return of_a_stripped_action(frame, lane),
        Caller::Kernel | Caller::Dispatcher => {}
    }
    let info = frame.info();
    let ours = if provenance::is_ours(&info, lane) {
        lane.into_iter().for_each(|lane| landed(lane, &info, caller));
        true
    } else if record.is_none() && pid::current() != raw::getpid() {
        return chain::forward(frame, caller, Slot::of(frame.sig)); // a child that shares our memory (vfork): the scopes are its parent's
    } else {
        let merged = Signal::from(frame.sig).is_standard() && lane.is_some_and(Lane::was_sent_to);
        foreign::arrived(frame, caller, &info, lane);
        merged
    };
    lane.into_iter().for_each(|lane| end_the_call(frame, caller, lane, ours));
}

fn landed(lane: &Lane, info: &Info, caller: Caller) {
    lane.record.open(lane.sig);
    let is_expiry = provenance::is_expiry(info);
    if is_expiry {
        lane.timer_landed()
    } else {
        lane.landed()
    }
    if lane.is_closing() {
        return;
    }
    deadline::mark_due(lane); // by the clock: what an expiry was set for is not to be told
    if is_expiry {
        resend::again(lane, caller);
    }
}

/// Rows 4 to 8. `ours`: one of ours arrived, perhaps merged into another.
fn end_the_call(frame: &Frame, caller: Caller, lane: &Lane, ours: bool) {
    if lane.is_closing() || lane.record.window.pending.load(SeqCst) == 0 {
        return;
    }
    let Some(registers) = frame.registers(caller) else { return };
    let stub = Labels::of_the_stub();
    let place = Place::of(registers.pc(), &stub);
    let decision = decide(place, nested::below(lane.record, place, registers, frame.alternate()));
    if decision.cancel && !cfg!(eintr_without = "window") {
        registers.go_to(stub.cancel);
    }
    match decision.then {
        Then::Resend if cfg!(eintr_without = "nested") => {}
        Then::Resend => nested::block_and_resend(frame, caller, lane),
        Then::Timer => resend::by_timer(lane, caller),
        Then::Plain if ours => turn::turn(lane, registers),
        Then::Plain | Then::Nothing => {}
    }
}

/// Called by somebody's dispatcher with the number alone. While one of ours is out it is taken to be that one.
fn without_info(frame: &Frame, lane: Option<&Lane>) {
    match lane.filter(|lane| lane.is_out() || lane.timer.may_have_expired()) {
        Some(lane) => landed_bare(lane, Caller::Bare),
        None => chain::forward(frame, Caller::Bare, Slot::of(frame.sig)),
    }
}

/// One of ours, sent or an expiry.
fn landed_bare(lane: &Lane, caller: Caller) {
    lane.landed();
    lane.timer.expired();
    if !lane.is_closing() {
        deadline::mark_due(lane);
        resend::again(lane, caller);
    }
}

/// Somebody has put our handler back without its flags (see `standing`): mended, and what came is taken to be ours while one of ours is out.
fn of_a_stripped_action(frame: &Frame, lane: Option<&Lane>) {
    standing::is_ours(frame.sig);
    frame.blank_info();
    match lane.filter(|lane| lane.is_out() || lane.timer.may_have_expired()) {
        Some(lane) => {
            lane.record.open(lane.sig);
            landed_bare(lane, Caller::Kernel);
            end_the_call(frame, Caller::Kernel, lane, true);
        }
        None => foreign::arrived(frame, Caller::Kernel, &frame.info(), lane),
    }
}
