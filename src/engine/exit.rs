//! The end of a thread, with scopes that nobody dropped.

use crate::engine::leave;
use crate::engine::record::Record;

/// Leaves what `mem::forget` left, and gives the record back. Runs after the destructors of the thread's own thread-locals, so that a scope
/// kept in one of those has been dropped by now.
pub(super) fn at_thread_exit() {
    if let Some(record) = Record::current() {
        leave::leave_all(record);
        record.release();
    }
}
