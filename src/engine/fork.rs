//! A forked child: one thread, no queued signals, a copy of everything else (protocol 11).
//!
//! # Invariants
//! 1. Of the parent's Remotes none acts here: they remember the parent's pid, and the nodes are given the child's.
//! 2. A number that the forking thread has no scope on gets its action back at once; the others when the scopes are dropped, as usual.
//!
//! # Async-signal-safety
//! Runs in the child of a process with threads, where little else is allowed: it takes no lock (those of the parent's threads are void) and
//! allocates at most one row of the thread table, which glibc and musl make safe after `fork`.

use crate::atomic::SeqCst;
use crate::engine::lane::Lane;
use crate::engine::node::Link;
use crate::engine::record::Record;
use crate::engine::resend;
use crate::engine::slot::Slot;
use crate::kernel::mask::{self, Mask};
use crate::kernel::pid;

/// For a child of a raw `clone`, which no handler of pthread_atfork(3) saw: puts it right at the first use, whatever that is.
pub(crate) fn check() {
    if pid::in_forked_child() {
        in_child();
    }
}

/// Puts the copy right; once.
pub(super) fn in_child() {
    if pid::is_noted() {
        return;
    }
    let saved = mask::block_all();
    pid::note_fork();
    let mine = Record::current();
    Record::forget_others(mine);
    let shut = mine.map_or(0, |record| record.shut.swap(0, SeqCst)); // what was to come again was queued in the parent
    if let Some(record) = mine {
        adopt(record);
    }
    for (sig, slot) in Slot::all() {
        let lane = mine.and_then(|record| record.lane(sig)).filter(|lane| lane.has_scopes());
        slot.after_fork(lane.is_some(), lane.is_some_and(Lane::was_blocked), |link| is_listed(mine, link));
    }
    mask::set(Mask(saved.0 & !shut));
}

fn adopt(record: &'static Record) {
    record.adopt();
    for place in record.scopes() {
        place.value.pid.store(pid::current(), SeqCst);
        place.value.gate.forget_senders();
    }
    record.lanes().for_each(Lane::after_fork);
    record.lower();
    resend::renew_in_child(record); // what was asked before the fork, of scopes that live on here
}

fn is_listed(record: Option<&Record>, link: Link) -> bool {
    record.is_some_and(|record| record.scopes().any(|place| Link::of(place).to_bits() == link.to_bits()))
}
