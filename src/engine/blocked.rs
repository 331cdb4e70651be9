//! Numbers that were blocked before the scope (protocol 10): they belong to somebody's sigwait or signalfd, and while the scope lives the number
//! is open on its thread, so the kernel may bring here what is theirs.
//!
//! # Invariants
//! 1. What was sent to the process is offered to it again, with the number blocked here: a thread that waits for it takes it.
//! 2. What nobody takes is held, offered again when the next one comes and at every acknowledgement, and given back when the number is blocked
//!    again. Nothing is dropped.
//! 3. Where two scoped threads may both get a signal, each posts one and the same back once, and holds it the next time: they do not hand it
//!    to each other for ever.
//!
//! A siginfo does not say whether a signal sent by sigqueue(3) or pthread_sigqueue(3) was meant for the process or for the thread; only
//! tgkill(2) does. What does not say so is taken to be for the process.
//!
//! # Async-signal-safety
//! Everything is; it runs in the handler, with all signals blocked.

use crate::atomic::SeqCst;
use crate::engine::lane::Lane;
use crate::engine::slot::Slot;
use crate::engine::{provenance, resend};
use crate::kernel::frame::{Caller, Frame};
use crate::kernel::raw;
use crate::kernel::send::{self, Info, take};

/// How long somebody else has to take a signal that was posted back, in nanoseconds. Waiting for the signal itself would take it from them
/// (337 of 1,000, measured when the protocol was made).
const GRACE: i64 = 200_000;

/// A foreign signal arrived on a lane whose number was blocked.
pub(super) fn hand_back(frame: &Frame, caller: Caller, lane: &Lane, info: &Info) {
    let seen = fingerprint(info);
    let again = lane.posted.swap(seen, SeqCst) == seen && Slot::of(lane.sig).has_many_blocked();
    if again || info.is_for_thread() {
        lane.posted.store(0, SeqCst);
        return hold(frame, caller, lane, info);
    }
    if lane.hold(info) {
        offer_held(lane);
    } else {
        hold(frame, caller, lane, info);
    }
}

/// Offers to the process, once more, what is held of its signals; with all signals blocked here. What nobody takes is held again.
pub(super) fn offer_held(lane: &Lane) {
    if lane.held.is_empty() || !lane.was_blocked() {
        return;
    }
    let mut offered = false;
    lane.held.take_all(|info| {
        if info.is_for_thread() || send::to_process(lane.record.tid(), info).is_err() {
            lane.held.push(info);
        } else {
            offered = true;
        }
    });
    if offered {
        raw::pause_for(GRACE);
        let mut ours_too = false;
        while let Some(back) = take(lane.sig) {
            if provenance::is_ours(&back, Some(lane)) {
                ours_too = true;
                if provenance::is_expiry(&back) { lane.timer_landed() } else { lane.landed() }
            } else {
                lane.hold(&back);
            }
        }
        if ours_too && !lane.is_closing() {
            resend::after_taking(lane);
        }
    }
}

/// Keeps one until the lane ends. Without memory it stays queued, with the number blocked: the thread cannot be interrupted until then.
pub(super) fn hold(frame: &Frame, caller: Caller, lane: &Lane, info: &Info) {
    if !lane.hold(info) {
        give_back(lane.record.tid(), info);
        if caller == Caller::Kernel {
            frame.block_on_return(lane.sig);
        }
    }
}

/// Queues a signal where it came from: for the thread if it was sent by tgkill, else for the process. The siginfo stays as it was.
pub(super) fn give_back(tid: i32, info: &Info) {
    // Without a siginfo where a filter, or a full queue, takes no other; kill(2) is never refused for the queue.
    let sent = if info.is_for_thread() {
        send::to_thread(tid, info).or_else(|_| send::plain_to_thread(tid, info.signo))
    } else {
        send::to_process(tid, info)
    };
    if sent.is_err() {
        let _ = send::plain_to_process(info.signo);
    }
}

/// Tells two signals apart well enough; never 0.
fn fingerprint(info: &Info) -> u64 {
    let code = info.code as u32 as u64;
    (info.value ^ u64::from(info.pid) << 32 ^ u64::from(info.uid) << 8 ^ code << 16) | 1 << 63
}
