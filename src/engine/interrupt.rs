//! The sending side (protocol 2): through the gate, `pending`, the throttle, the signal.
//!
//! # Invariants
//! 1. Everything between the gate's two sides happens with all signals blocked: a handler that ran there and left by longjmp would leave its
//!    count in the gate, and drop would wait for ever.
//! 2. `pending` is stored before the signal is sent, so that a signal that vanishes (merged, taken by sigwait) loses nothing.
//! 3. Nothing is sent while somebody else's action stands where ours did.
//!
//! # Async-signal-safety
//! Everything is.

use crate::atomic::SeqCst;
use crate::delivery::Delivery;
use crate::engine::gate::{Answer, Request};
use crate::engine::lane::Lane;
use crate::engine::node::Link;
use crate::engine::{provenance, resend, standing};
use crate::kernel::mask;
use crate::kernel::send::{self, Info};
use nix::errno::Errno;

/// Interrupts a scope.
pub(crate) fn interrupt(link: Link, request: Request) -> Delivery {
    if is_on_its_way(link, request) {
        return Delivery::Held;
    }
    let saved = mask::block_all();
    let delivery = masked(link, request).unwrap_or(Delivery::Held);
    mask::set(saved);
    delivery
}

/// Protocol 2.2: the same was asked already, and whoever will send again is at it; or nobody is to, and the signal has not landed. No system call.
fn is_on_its_way(link: Link, request: Request) -> bool {
    let node = link.node();
    if !node.gate.repeats(link.generation(), request) {
        return false;
    }
    let Some(lane) = node.record().and_then(|record| record.lane(node.sig())) else { return false };
    let resends = request != (Request::Remote { once: true }) && node.pauses().first != 0;
    let comes = if resends { lane.timer.is_armed() } else { lane.is_in_flight() };
    comes && lane.record.window.pending.load(SeqCst) != 0
}

/// The same with all signals blocked already. `None`: [`Request::FirstSignal`] was not the first.
pub(crate) fn masked(link: Link, request: Request) -> Option<Delivery> {
    match link.node().gate.ask(link.generation(), request) {
        Answer::Closed => Some(Delivery::Gone),
        Answer::Kept => Some(Delivery::Held),
        Answer::Refused => None,
        Answer::Inside => {
            let delivery = inside(link, request);
            link.node().gate.leave();
            Some(delivery)
        }
    }
}

/// Between the gate's two sides the node's record and lane are what they were when the gate was opened.
fn inside(link: Link, request: Request) -> Delivery {
    let node = link.node();
    let Some(record) = node.record() else { return Delivery::Gone };
    record.window.pending.store(1, SeqCst);
    let Some(lane) = record.lane(node.sig()) else { return Delivery::Gone };
    if !standing::is_ours(lane.sig) {
        return Delivery::Displaced;
    }
    let pauses = node.pauses();
    if request == (Request::Remote { once: true }) || pauses.first == 0 {
        return throttled(lane);
    }
    let timer = resend::prepare(lane); // before the signal, so that the handler knows whether it will come again
    let delivery = throttled(lane);
    match timer {
        Err(errno) if delivery == Delivery::Sent => return Delivery::SentOnce(errno),
        Ok(_) if delivery != Delivery::Gone => resend::start(lane, pauses),
        _ => {}
    }
    delivery
}

/// Sends, unless one is on its way.
fn throttled(lane: &Lane) -> Delivery {
    if !lane.take_off() {
        return Delivery::Held;
    }
    let Err(errno) = send(lane) else { return Delivery::Sent };
    lane.landed(); // as good as: it was not queued
    match errno {
        Errno::ESRCH => Delivery::Gone,
        Errno::EAGAIN if resend::start_at_once(lane) => Delivery::Sent,
        errno => Delivery::Refused(errno),
    }
}

/// By rt_tgsigqueueinfo; by tgkill where a filter refuses that to this thread.
pub(super) fn send(lane: &Lane) -> Result<(), Errno> {
    let tid = lane.record.tid();
    match send::to_thread(tid, &Info::ours(lane.sig, provenance::value(lane))) {
        Err(Errno::ENOSYS | Errno::EPERM) => {
            lane.expect_plain();
            send::plain_to_thread(tid, lane.sig)
        }
        answer => answer,
    }
}
