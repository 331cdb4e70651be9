//! Doing what the action behind ours would have done (protocol 10).
//!
//! # Invariants
//! 1. SIG_IGN and SIG_DFL are never called, and the fatal default is done only when the kernel itself called us.
//! 2. A handler runs with the mask that the kernel would have set, with the kernel's arguments, and once: if it was called by way of a
//!    dispatcher that keeps our handler as its previous one, it is not called again for the same signal.
//! 3. Everything of ours is settled before it runs: it may leave by longjmp.
//!
//! # Async-signal-safety
//! Everything is.

use crate::engine::hooks::handler;
use crate::engine::slot::{Behind, Slot};
use crate::kernel::action::{self, Action};
use crate::kernel::frame::{Caller, Forwards, Frame};
use crate::kernel::mask::{self, Mask};
use crate::kernel::send;
use crate::signal::Signal;

/// Whose turn it is.
pub(super) fn forward(frame: &Frame, caller: Caller, slot: &Slot) {
    let (next, inside) = match caller {
        Caller::Kernel | Caller::Stripped => (slot.behind(), frame.first()),
        Caller::Dispatcher | Caller::Bare => next_of_dispatcher(frame, caller, slot),
    };
    if let Some(behind) = next {
        run(frame, caller, behind.action_to_run(), inside);
    }
}

/// Whether what stands behind is a handler (a default is done by [`forward`] alone).
pub(super) fn is_handler(slot: &Slot) -> bool {
    slot.behind().is_some_and(|behind| behind.action().is_handler())
}

/// Somebody's dispatcher has called us as its previous handler. While ours is displaced that is as it should be: what is behind ours is next. But
/// the dispatcher may itself stand behind ours, or may have kept our address from a scope long gone; then what stood behind before it is next, or
/// the first action ever saved: whichever has not had its turn. A default is nobody's to call: a dispatcher that had found it would have called nothing.
fn next_of_dispatcher(frame: &Frame, caller: Caller, slot: &Slot) -> (Option<&'static Behind>, Forwards) {
    let (standing, restorer) = action::current(frame.sig).map_or((0, 0), |action| (action.handler, action.restorer));
    let forwards = frame.forwards_under_way(restorer);
    let under_way = forwards.depth;
    let usual = under_way == 0 && standing != handler() && caller == Caller::Dispatcher;
    let ran = slot.behind().filter(|_| under_way > 0).map(|behind| behind.action().handler);
    let has_its_turn = |next: &&Behind| {
        let action = next.action();
        action.is_handler() && action.handler != standing && Some(action.handler) != ran
    };
    let candidates = [slot.behind().filter(|_| usual), slot.previous(), slot.original()];
    let next = candidates.into_iter().flatten().filter(|_| under_way < 2).find(has_its_turn);
    (next, forwards)
}

fn run(frame: &Frame, caller: Caller, action: Action, inside: Forwards) {
    if action.is_ignored() || action.is_default() && Signal::from(frame.sig).is_ignored_by_default() {
        return;
    }
    if action.is_default() {
        return die(frame);
    }
    if caller == Caller::Bare {
        let before = mask::swap(frame.outer_mask(caller));
        frame.call(action.handler, inside);
        mask::set(before);
        return;
    }
    let itself = if action.has(libc::SA_NODEFER) { Mask(0) } else { Mask::of(frame.sig) };
    let before = mask::swap(Mask(frame.outer_mask(caller).0 | action.mask.0 | itself.0));
    frame.call(action.handler, inside);
    mask::set(before);
}

/// The default that ends the process is done for real, so that the parent sees the true status: the default action, the signal itself, and the
/// number opened. Where the kernel spares the process (the init of a pid namespace) everything is put back.
fn die(frame: &Frame) {
    let Ok(ours) = action::swap(frame.sig, &Action::DEFAULT) else { return };
    if ours.handler != handler() {
        let _ = action::swap(frame.sig, &ours); // it was somebody else's call after all
        return;
    }
    if send::to_self(&frame.info()).is_err() {
        let _ = send::plain_to_process(frame.sig);
    }
    let before = mask::unblock(frame.sig);
    mask::set(before);
    if action::current(frame.sig).is_ok_and(|action| action.is_default()) {
        let _ = action::swap(frame.sig, &ours);
    }
}
