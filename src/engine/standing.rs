//! Whether our handler stands in an action, and stands there as we put it.
//!
//! Code that saves a handler by signal(2), or keeps `sa_handler` alone of what sigaction(2) told it, puts back the address of ours without SA_SIGINFO
//! and without our mask. What it means is "as before", so that is what is made of it.
//!
//! # Async-signal-safety
//! Everything is; all signals are blocked.

use crate::engine::hooks::handler;
use crate::engine::slot::{Slot, mirrored};
use crate::kernel::action::{self, Action};

/// Whether a signal of this number would come to us, and not to a stranger.
pub(super) fn is_ours(sig: i32) -> bool {
    action::current(sig)
        .is_ok_and(|standing| standing.handler == handler() && (is_whole(&standing) || mend(sig, standing)))
}

fn is_whole(standing: &Action) -> bool {
    const ALL_BUT_A_FEW: u32 = 60; // SIGKILL and SIGSTOP are not kept in a mask; an emulator leaves out others
    standing.has(libc::SA_SIGINFO) && standing.mask.0.count_ones() >= ALL_BUT_A_FEW
}

fn mend(sig: i32, standing: Action) -> bool {
    let Some(behind) = Slot::of(sig).behind() else { return false };
    let whole = standing.whole(mirrored(&behind.action()));
    match action::swap(sig, &whole) {
        Ok(replaced) if replaced.handler != handler() => {
            let _ = action::swap(sig, &replaced); // theirs came between look and swap
            false
        }
        mended => mended.is_ok(),
    }
}
