//! Children.

use crate::engine::record::Record;
use crate::engine::{fork, leave};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// [`CommandExt::exec`] from inside scopes: leaves all of this thread's scopes first, since the kernel keeps queued signals over execve(2) but not
/// the handler, so that one in flight would kill the new program; and gives it the mask from before them.
///
/// Returns only if it fails; the scopes have ended then, and their guards do nothing when they drop.
pub fn exec(command: &mut Command) -> std::io::Error {
    fork::check();
    if let Some(record) = Record::current() {
        leave::leave_all(record);
    }
    command.exec()
}
