//! Whose a signal is (R1): what ours carry, and how it is read.
//!
//! ```text
//! 63        40 39          20 19              1  0
//! | magic 24  | record 20    | generation 19   | 0 |
//! | magic 24  | fence serial 39                | 1 |
//! ```
//!
//! # Invariants
//! 1. The value names an index, never an address: a process of the same user may forge any of this, and must gain no more than a
//!    spurious wake-up.
//! 2. The magic is drawn once per loaded copy of the crate, so that two copies in a process do not take each other's signals.
//! 3. A delivery of an older generation is ours like any other.
//!
//! # Async-signal-safety
//! Everything is but [`draw_magic`].

use crate::engine::lane::Lane;
use crate::engine::record::Record;
use crate::kernel::send::{Info, OUR_CODE};
use crate::kernel::{pid, raw};
use crate::signal::Signal;
use once_cell::race::OnceNonZeroUsize;
use std::num::NonZeroUsize;

static MAGIC: OnceNonZeroUsize = OnceNonZeroUsize::new();

const MAGIC_BITS: u64 = (1 << 24) - 1;
const INDEX_BITS: u64 = (1 << 20) - 1;
const GENERATION_BITS: u64 = (1 << 19) - 1;
const FENCE_BITS: u64 = (1 << 39) - 1;
const FENCE: u64 = 1;

/// Draws the magic; before the first signal is sent.
pub(super) fn draw_magic() {
    MAGIC.get_or_init(|| {
        let mut bytes = 0u64;
        raw::random(&mut bytes);
        let here = &raw const MAGIC as usize as u64; // all there is where the kernel has no getrandom
        NonZeroUsize::new((((bytes ^ here >> 4) & MAGIC_BITS) as usize).max(1)).unwrap_or(NonZeroUsize::MIN)
    });
}

fn magic() -> u64 {
    MAGIC.get().map_or(0, |magic| magic.get() as u64) << 40
}

/// The value that a lane's signals carry.
pub(super) fn value(lane: &Lane) -> u64 {
    let index = u64::from(lane.record.index()) & INDEX_BITS;
    magic() | index << 20 | (u64::from(lane.generation()) & GENERATION_BITS) << 1
}

/// The value of a fence (protocol 7).
pub(super) fn fence(serial: u64) -> u64 {
    magic() | (serial & FENCE_BITS) << 1 | FENCE
}

/// Whether a signal that the thread of `lane` received is ours.
pub(super) fn is_ours(info: &Info, lane: Option<&Lane>) -> bool {
    if cfg!(eintr_without = "provenance") {
        return lane.is_some_and(Lane::is_in_flight);
    }
    carries_our_value(info) || lane.is_some_and(|lane| may_be_ours(info, lane))
}

fn carries_our_value(info: &Info) -> bool {
    let exists = info.value & FENCE != 0 || Record::by_index((info.value >> 20 & INDEX_BITS) as u32).is_some();
    let sent = info.code == OUR_CODE && info.pid == pid::current();
    (sent || is_expiry(info)) && info.value >> 40 << 40 == magic() && exists
}

/// Whether a timer sent it: ours is told by the value. (Where others have the pid, it has the timer's id.)
pub(super) fn is_expiry(info: &Info) -> bool {
    info.code == libc::SI_TIMER
}

/// Ours that lost their siginfo: a standard signal when the queue was full, or one sent by tgkill. Both count as ours while
/// one of ours may be queued. (By IN_FLIGHT, which an acknowledgement takes off before the barrier, some of ours reach the action behind; by DIRTY,
/// which stays until the lane ends, so does every signal of root from outside of a pid namespace stay away from it, since that looks blank.)
fn may_be_ours(info: &Info, lane: &Lane) -> bool {
    let blank = info.is_blank() && Signal::from(lane.sig).is_standard();
    let plain = lane.expects_plain() && info.is_for_thread() && info.pid == pid::current();
    (blank || plain) && lane.is_out()
}
