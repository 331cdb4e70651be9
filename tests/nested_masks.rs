//! Foreign handlers that wait with a mask of their own, on top of a call that is blocked (R5). Here the timer sends again.
//!
//! `EINTR_NESTED_ROUNDS` divided by 100 says how often each case is run.
// Tests install handlers and send signals by bare calls.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/nest.rs"]
mod nest;

use nest::{Answer, ENTERED, GO, Installed, LEFT, Subject, Tally};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering::SeqCst};
use std::time::Duration;

fn rounds() -> u64 {
    common::rounds("EINTR_NESTED_ROUNDS", 1000).div_ceil(100)
}

/// The scope's number and foreign ones on either side of it.
fn cases() -> [(i32, [i32; 2]); 2] {
    let real_time = libc::SIGRTMIN();
    [(libc::SIGUSR1, [libc::SIGHUP, libc::SIGUSR2]), (real_time + 3, [real_time + 2, real_time + 4])]
}

/// Where the handlers wait.
static PIPE: AtomicI32 = AtomicI32::new(-1);
static EINTRS: AtomicU32 = AtomicU32::new(0);

/// Waits in ppoll(2), with a mask, until the inner pipe has a byte.
fn waits_in_ppoll(mask: u64) {
    ENTERED.fetch_add(1, SeqCst);
    let mut ready = libc::pollfd { fd: PIPE.load(SeqCst), events: libc::POLLIN, revents: 0 };
    let no_time = std::ptr::null::<libc::timespec>();
    while unsafe { libc::syscall(libc::SYS_ppoll, &mut ready, 1, no_time, &mask, 8usize) } < 0 {
        EINTRS.fetch_add(1, SeqCst);
    }
    LEFT.fetch_add(1, SeqCst);
}

extern "C" fn ppolls_closed(_: libc::c_int) {
    waits_in_ppoll(!0);
}
extern "C" fn ppolls_open(_: libc::c_int) {
    waits_in_ppoll(0);
}

/// Waits in rt_sigsuspend(2), which any handler ends, with an empty mask.
extern "C" fn suspends(_: libc::c_int) {
    ENTERED.fetch_add(1, SeqCst);
    let mask = 0u64;
    while !GO.load(SeqCst) {
        unsafe { libc::syscall(libc::SYS_rt_sigsuspend, &mask, 8usize) };
        EINTRS.fetch_add(1, SeqCst);
    }
    LEFT.fetch_add(1, SeqCst);
}

/// Interrupts that are sent again while the handler waits with a mask of its own for 20 ms, and is let go then; how often the wait was broken.
fn wait_broken(sig: i32, foreign: i32, handler: extern "C" fn(libc::c_int), nr: libc::c_long) -> Vec<u32> {
    let _foreign = Installed::new(foreign, handler, libc::SA_RESTART);
    let _wakes = Installed::new(libc::SIGWINCH, nest::counts, libc::SA_RESTART);
    let subject = Subject::new(sig).with_patience();
    PIPE.store(subject.pipes[1].raw(), SeqCst);
    let mut tally = Tally::new(format!("{sig} on a handler of {foreign} that waits in {nr}"));
    let mut broken = Vec::new();
    for _ in 0..rounds() {
        nest::reset();
        EINTRS.store(0, SeqCst);
        subject.begin(nest::sys_read);
        subject.signal(foreign);
        common::wait_until(|| subject.look.sleeps_in().is_some_and(|(asleep, _)| asleep == nr));
        subject.remote.interrupt();
        std::thread::sleep(Duration::from_millis(20));
        broken.push(EINTRS.load(SeqCst));
        GO.store(true, SeqCst);
        subject.pipes[1].feed(1);
        subject.signal(libc::SIGWINCH);
        tally.round(subject.end(), Answer::Interrupted, LEFT.load(SeqCst) >= 1);
        subject.pipes[1].drain();
    }
    subject.leave();
    tally.end();
    broken
}

// R5. With every signal blocked the interrupt lands when the wait is over.
#[test]
fn a_handler_that_waits_with_everything_blocked_is_left_alone_and_the_call_below_ends() {
    let _t = common::begin();
    for (sig, foreign) in cases() {
        for foreign in foreign {
            let broken = wait_broken(sig, foreign, ppolls_closed, libc::SYS_ppoll);
            assert!(broken.iter().all(|n| *n == 0), "{broken:?}");
        }
    }
}

// R5. The mask of the wait has the number open, the mask that comes back after it has it blocked: who sends again at once breaks the wait as fast as it can be
// begun, without end. [305,675 times in half a second] The timer's pauses double, so that a few breaks are all there are.
#[test]
fn a_handler_that_waits_with_nothing_blocked_is_not_broken_without_end() {
    let _t = common::begin();
    for (sig, foreign) in cases() {
        for foreign in foreign {
            for (handler, nr) in
                [(ppolls_open as extern "C" fn(_), libc::SYS_ppoll), (suspends, libc::SYS_rt_sigsuspend)]
            {
                let broken = wait_broken(sig, foreign, handler, nr);
                println!("{sig} on {foreign}: {broken:?}");
                assert!(broken.iter().all(|n| (1..100).contains(n)), "{broken:?}");
            }
        }
    }
}
