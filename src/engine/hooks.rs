//! Where the kernel layer calls the engine.

use crate::engine::{deliver, exit, fork, provenance};
use crate::kernel::frame::Frame;
use crate::kernel::hooks::{self, Hooks};
use crate::kernel::{handler as entry, pid};
use nix::errno::Errno;

struct Engine;

impl Hooks for Engine {
    fn on_signal(frame: &Frame) {
        deliver::on_signal(frame);
    }
    fn in_child() {
        fork::in_child();
    }
    fn at_thread_exit() {
        exit::at_thread_exit();
    }
}

/// Once in the life of the process, before the first handler is installed.
///
/// # Errors
/// EAGAIN, ENOMEM: libc has no key for thread ends, or no place for a fork handler.
pub(super) fn register() -> Result<(), Errno> {
    if !hooks::is_registered() {
        provenance::draw_magic();
        pid::note();
    }
    hooks::register::<Engine>()
}

/// The address of our handler.
pub(crate) fn handler() -> usize {
    entry::address::<Engine>()
}
