//! Taking ours out of the queue of a thread that has the number blocked, without running anybody's signal (protocol 7, fence drain).
//!
//! # Invariants
//! 1. The number is never unblocked: what is queued there for others stays out of their critical section.
//! 2. Ours are queued for the thread, and a thread's own queue is taken before the process's, in the order of arrival for one number. So when
//!    the fence comes, everything of ours that was queued before it has come, and nothing of the process's queue was touched.
//! 3. A standard signal that is sent merges with one of its number that lies in the thread's queue; only a timer's expiry is put beside it. So
//!    with a fence sent, the next one taken is from the thread's own queue; and when that is the fence itself, nothing else was there. Nobody is
//!    left who could put another in: the timer has run out, the gates are closed.
//!    An expiry that was taken back by a later setting of the timer lies there still, from Linux 6.13 on: a fence merges into it, and whoever comes to it
//!    throws it away and takes from the process's queue instead. An expiry of now makes it a good one again (`kernel/signal.c`, `posixtimer_send_sigqueue`).
//! 4. A foreign signal that was taken goes back to the thread: a real-time one behind the fence, so that their order is kept.

use crate::atomic::{AtomicU64, SeqCst};
use crate::engine::lane::Lane;
use crate::engine::provenance;
use crate::kernel::send::{self, Info, take};
use crate::signal::Signal;

/// All signals are blocked, nobody is inside the lane's gates.
pub(super) fn fence(lane: &Lane) {
    static SERIAL: AtomicU64 = AtomicU64::new(1);
    let fence = Info::ours(lane.sig, provenance::fence(SERIAL.fetch_add(1, SeqCst)));
    let is_standard = Signal::from(lane.sig).is_standard();
    if !lane.is_out() && !lane.timer.is_made() {
        return; // nothing of ours can be queued: what is there stays untouched
    }
    if is_standard {
        lane.timer.run_out(); // invariant 3
    }
    if lane.expects_plain() {
        return without_fence(lane);
    }
    lane.count_sent(); // with a full queue it comes blank
    if send::to_thread(lane.record.tid(), &fence).is_err() {
        lane.landed();
        return without_fence(lane);
    }
    if is_standard {
        return standard(lane, &fence);
    }
    while let Some(info) = take(lane.sig) {
        if info.code == fence.code && info.value == fence.value {
            return;
        }
        put_back_foreign(lane, &info);
    }
}

/// Invariant 3: a fence of a standard number merges into what is queued, so rounds of one fence and one take, until a fence comes back itself,
/// or blank, with a full queue.
fn standard(lane: &Lane, fence: &Info) {
    let mut foreign = None;
    while let Some(info) = take(lane.sig) {
        let is_fence = info.code == fence.code && info.value == fence.value;
        if is_fence || info.is_blank() {
            break;
        }
        if !provenance::is_ours(&info, Some(lane)) {
            foreign = Some(info);
        }
        lane.count_sent();
        if send::to_thread(lane.record.tid(), fence).is_err() {
            break;
        }
    }
    foreign.into_iter().for_each(|info| put_back_foreign(lane, &info));
}

fn put_back_foreign(lane: &Lane, info: &Info) {
    if !provenance::is_ours(info, Some(lane)) && send::to_thread(lane.record.tid(), info).is_err() {
        lane.held.push(info);
    }
}

/// The queue is full, or a filter lets no siginfo through: takes until nothing comes; for ours no more than as many as are out. What was foreign is
/// given back when the lane has ended.
fn without_fence(lane: &Lane) {
    while let Some(info) = take(lane.sig) {
        match provenance::is_ours(&info, Some(lane)) {
            true if provenance::is_expiry(&info) => lane.timer_landed(),
            true => lane.landed(),
            false => _ = lane.held.push(&info),
        }
    }
}
