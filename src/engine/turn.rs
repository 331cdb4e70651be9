//! Turning a restart (protocol 9): a plain call that the kernel is about to restart after our handler is told EINTR, and if its caller goes
//! back to it all the same, ECANCELED.
//!
//! # Invariants
//! 1. Only for an interrupt that nobody has acknowledged: what runs after that is left alone.
//! 2. Only calls of [`inject::when`], and only when they have run, or seem to: by what the instruction left behind, or because the thread is met
//!    at the same place with the same arguments twice in a row, and has slept in between.
//!
//! # Async-signal-safety
//! Everything is; all signals are blocked.

use crate::atomic::{AtomicU32, AtomicU64, SeqCst};
use crate::engine::lane::Lane;
use crate::engine::resend;
use crate::kernel::inject::{self, When};
use crate::kernel::raw;
use crate::kernel::registers::Registers;

/// What a lane remembers of the plain code that its signals landed on.
#[derive(Debug)]
pub(crate) struct Landing {
    /// A restart was turned since the request.
    turned: AtomicU32,
    pc: AtomicU64,
    sp: AtomicU64,
    /// Number and arguments, mixed.
    call: AtomicU64,
    /// How often the thread had gone to sleep by then.
    slept: AtomicU64,
}

impl Landing {
    pub(crate) const fn new() -> Landing {
        Landing {
            turned: AtomicU32::new(0),
            pc: AtomicU64::new(0),
            sp: AtomicU64::new(0),
            call: AtomicU64::new(0),
            slept: AtomicU64::new(0),
        }
    }

    /// An acknowledgement, or a new scope: what comes is told EINTR first again.
    pub(super) fn forget(&self) {
        self.turned.store(0, SeqCst);
        self.pc.store(0, SeqCst);
    }

    /// Whether the last landing was at the same call, and the thread has gone to sleep since: it is stuck there. (Two that land one right after the
    /// other, before the call has been made, find it awake.)
    fn repeats(&self, registers: Registers) -> bool {
        let mix = |so_far: u64, word: usize| (so_far ^ word as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        let call = registers.arguments().into_iter().fold(registers.number() as u64, mix);
        let pc = self.pc.swap(registers.pc() as u64, SeqCst) == registers.pc() as u64;
        let sp = self.sp.swap(registers.sp() as u64, SeqCst) == registers.sp() as u64;
        let slept = raw::times_slept();
        let slept = self.slept.swap(slept, SeqCst) != slept;
        self.call.swap(call, SeqCst) == call && slept && pc && sp
    }
}

/// One of ours landed on plain code.
pub(super) fn turn(lane: &Lane, registers: Registers) {
    if !lane.record.has_unseen() {
        return;
    }
    let when = inject::when(registers.number(), registers.arguments());
    let Some(when) = when.filter(|_| inject::is_at_call(registers)) else { return lane.landing.pc.store(0, SeqCst) };
    let stuck = lane.landing.repeats(registers);
    let last = resend::wanted(lane).is_none() || !lane.timer.is_made(); // none will come again and find it stuck
    let ran = stuck || when != When::Stuck && (registers.has_run() || last);
    if ran {
        let again = lane.landing.turned.swap(1, SeqCst) != 0;
        registers.answer(if again && when != When::RanEintrOnly { libc::ECANCELED } else { libc::EINTR });
    }
}
