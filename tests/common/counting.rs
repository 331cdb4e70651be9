//! What stands behind the scopes in many tests: a handler that counts, on a standard and on a real-time number.
#![allow(dead_code, missing_docs, unreachable_pub, unsafe_code, clippy::undocumented_unsafe_blocks)]

use super::common::{self, Action};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

static RUNS: AtomicU64 = AtomicU64::new(0);

pub extern "C" fn count(_: i32) {
    RUNS.fetch_add(1, SeqCst);
}

/// How often [`count`] ran in this process, whatever the number.
pub fn runs() -> u64 {
    RUNS.load(SeqCst)
}

/// A counting handler in the action of a signal, until it is dropped.
#[derive(Debug)]
pub struct Counting {
    sig: i32,
    was: Action,
    runs: u64,
}

impl Counting {
    /// With SA_RESTART, SA_NODEFER, and a mask.
    pub fn on(sig: i32) -> Counting {
        Counting::with_flags(sig, libc::SA_RESTART | libc::SA_NODEFER)
    }

    pub fn with_flags(sig: i32, flags: i32) -> Counting {
        let was = common::install(sig, count as *const () as usize, flags, &[libc::SIGHUP]);
        Counting { sig, was, runs: runs() }
    }

    /// How often the handler ran since this was made, whatever the number.
    pub fn runs(&self) -> u64 {
        runs() - self.runs
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        common::restore(self.sig, self.was);
    }
}

pub fn real_time() -> i32 {
    libc::SIGRTMIN() + 3
}

/// A standard number, of which the kernel merges, and a real-time one, which it queues.
pub fn kinds() -> [i32; 2] {
    [libc::SIGUSR1, real_time()]
}

/// Whether the number is open in the calling thread's mask, as /proc tells.
pub fn is_open(sig: i32) -> bool {
    common::status_bits(common::gettid(), "SigBlk:") & common::bit(sig) == 0
}

/// One poll(2) of nothing that lasts so long: `false` if a signal broke it.
pub fn undisturbed(time: Duration) -> bool {
    let time = libc::timespec { tv_sec: 0, tv_nsec: i64::from(time.subsec_nanos()) };
    let mask = std::ptr::null::<u64>();
    unsafe { libc::syscall(libc::SYS_ppoll, std::ptr::null::<libc::pollfd>(), 0, &time, mask, 8) == 0 }
}
