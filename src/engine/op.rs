//! Running a call of the crate's own through the stub (protocol 4): ended by an interrupt, called again after any other EINTR.
//!
//! # Invariants
//! 1. EINTR never comes out. With an interrupt pending it becomes that, acknowledged; otherwise it was somebody else's, and the call is made again.
//! 2. A call that did something has answered with it, never with EINTR: so nothing is lost.

use crate::engine::record::Record;
use crate::engine::{acknowledge, deadline, fork, nested};
use crate::error::Error;
use crate::kernel::mask::Mask;
use crate::kernel::stub::window::Door;
use nix::errno::Errno;

/// Runs `call` until it answers something else than EINTR, or an interrupt is pending. `call` is given the door each time; what depends on the
/// time that is left it computes anew.
///
/// # Errors
/// The interrupt, acknowledged; or what the kernel answered.
#[inline]
pub(crate) fn run<T>(mut call: impl FnMut(Door<'_>) -> Result<T, Errno>) -> Result<T, Error> {
    fork::check();
    loop {
        let record = Record::current();
        record.into_iter().for_each(nested::look);
        record.into_iter().for_each(deadline::notice);
        match call(Door::of(record.map(|record| &record.window))) {
            Err(Errno::EINTR) => interrupted(record)?,
            answer => return answer.map_err(Error::Os),
        }
    }
}

/// After an EINTR.
#[cold]
fn interrupted(record: Option<&Record>) -> Result<(), Error> {
    match record.and_then(acknowledge::owner) {
        Some(interrupted) => {
            record.into_iter().for_each(acknowledge::acknowledge);
            Err(interrupted.into())
        }
        None => {
            record.into_iter().for_each(Record::mend_pending);
            Ok(())
        }
    }
}

/// The numbers of the calling thread's live scopes that are not shielded: what a call must not block or take while it waits, or an interrupt would not reach it
/// (protocol 12).
pub(crate) fn numbers() -> Mask {
    let Some(record) = Record::current() else { return Mask(0) };
    let open = record.scopes().map(|place| &place.value).filter(|node| !node.is_shielded());
    let mask = open.fold(Mask(0), |mask, node| mask.with(node.sig()));
    let waited_for = record.lanes().filter(|lane| deadline::is_waited_for(lane));
    waited_for.fold(mask, |mask, lane| mask.with(lane.sig))
}
