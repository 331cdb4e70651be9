//! A thread that is to come out of its plain calls by nothing but what the crate sends: who waits for it sees to it, and where it sleeps on helps from
//! outside and counts that. A test file takes it by `#[path = "common/unaided.rs"] mod unaided;` beside `mod common;`.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unused_imports,
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block
)]

#[path = "look.rs"]
mod look;

use crate::common;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

pub use look::{Apart, Look};

/// The help: a signal that does nothing but that it breaks the call.
const HELP: i32 = libc::SIGHUP;

extern "C" fn on_help(_: i32) {}

/// How long a thread may sleep before it is taken to sleep for ever: many times the longest pause of a resend.
pub fn long_enough() -> Duration {
    common::patience(Duration::from_secs(10))
}

/// See the file.
#[derive(Debug)]
pub struct Unaided {
    tid: libc::pid_t,
    was: common::Action,
    look: Look,
    /// What the thread is sent by others.
    sent: Vec<i32>,
    patience: Duration,
    helping: AtomicU32,
    helped: AtomicU64,
    worst: AtomicU64,
}

impl Unaided {
    /// Looks after a thread that is sent these signals. The test must run alone: SIGHUP has another action until this drops.
    pub fn new(tid: libc::pid_t, sent: &[i32], patience: Duration) -> Unaided {
        Unaided {
            tid,
            was: common::install(HELP, on_help as *const () as usize, 0, &[]),
            look: Look::at(tid),
            sent: sent.to_vec(),
            patience,
            helping: AtomicU32::new(0),
            helped: AtomicU64::new(0),
            worst: AtomicU64::new(0),
        }
    }

    /// Waits until it is done. The thread is helped if it sleeps when the patience is at its end, and no signal is pending that would wake it.
    pub fn wait_until(&self, done: impl Fn() -> bool) {
        let began = Instant::now();
        for look in 0u64.. {
            if done() {
                self.worst.fetch_max(began.elapsed().as_nanos() as u64, SeqCst);
                return;
            }
            if look < 2000 {
                std::hint::spin_loop();
            } else if look % 64 == 0 && began.elapsed() >= self.patience && self.sleeps() && !done() {
                return self.help(done);
            } else {
                std::thread::yield_now();
            }
        }
    }

    fn sleeps(&self) -> bool {
        self.look.sleeps_in().is_some() && self.look.is_at_rest() && !self.sent.iter().any(|s| self.look.is_pending(*s))
    }

    fn help(&self, done: impl Fn() -> bool) {
        self.helped.fetch_add(1, SeqCst);
        self.helping.fetch_add(1, SeqCst);
        while !done() {
            self.strike();
            std::thread::sleep(Duration::from_micros(100));
        }
        self.helping.fetch_sub(1, SeqCst);
    }

    /// Breaks the call that the thread is in.
    pub fn strike(&self) {
        unsafe { libc::syscall(libc::SYS_tgkill, common::getpid(), self.tid, HELP) };
    }

    /// Whether it is helped at this moment, so that an EINTR may be of that.
    pub fn is_helping(&self) -> bool {
        self.helping.load(SeqCst) != 0
    }

    /// How often it had to be helped.
    pub fn helped(&self) -> u64 {
        self.helped.load(SeqCst)
    }

    /// The longest time that was waited without helping.
    pub fn worst(&self) -> Duration {
        Duration::from_nanos(self.worst.load(SeqCst))
    }
}

impl Drop for Unaided {
    fn drop(&mut self) {
        common::restore(HELP, self.was);
    }
}

/// Does nothing for so long, awake.
pub fn spin(nanoseconds: u64) {
    let until = Instant::now() + Duration::from_nanos(nanoseconds);
    while Instant::now() < until {
        std::hint::spin_loop();
    }
}
