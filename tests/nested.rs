//! The row that everybody misses (R3): a foreign handler runs on top of the blocked call, the interrupt lands on top of that handler, both return, and the
//! call must end all the same. Every interrupt here is sent once, so no timer helps; a thread that sleeps with its signal delivered is told by /proc.
//!
//! `EINTR_NESTED_ROUNDS` says how often each case is run.
// Tests install handlers and send signals by bare calls.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/nest.rs"]
mod nest;

use common::State;
use nest::{Answer, ENTERED, GO, INSIDE, Installed, SCOPE, Subject, Tally};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

const RESTARTS: [i32; 2] = [libc::SA_RESTART, 0];
const STACKS: [i32; 2] = [0, libc::SA_ONSTACK];

fn rounds() -> u64 {
    common::rounds("EINTR_NESTED_ROUNDS", 1000)
}

/// The scope's number, a foreign one below it and a foreign one above.
fn numbers() -> [[i32; 3]; 2] {
    let real_time = libc::SIGRTMIN();
    [[libc::SIGUSR1, libc::SIGHUP, libc::SIGUSR2], [real_time + 3, real_time + 2, real_time + 4]]
}

/// What stands behind the scope: nothing (the default), or a handler with these flags.
fn behind(sig: i32, which: usize) -> Option<Installed> {
    let flags = [libc::SA_RESTART, 0, libc::SA_RESTART | libc::SA_ONSTACK];
    let flags = flags.get(which % 4)?;
    Some(Installed::new(sig, nest::counts, *flags))
}

// The row 6 of protocol 3. Without it the kernel restarts the call behind the foreign handler, and nobody is left to end it.
#[test]
fn an_interrupt_that_lands_in_a_foreign_handler_ends_the_call_below() {
    let _t = common::begin();
    let mut case = 0;
    for [sig, lower, higher] in numbers() {
        for foreign in [lower, higher] {
            for flags in RESTARTS.iter().flat_map(|restart| STACKS.map(|stack| restart | stack)) {
                let before = State::now();
                let _behind = behind(sig, case);
                let _foreign = Installed::new(foreign, nest::waits, flags);
                let mut tally = Tally::new(format!("{sig} on {foreign}, flags {flags:#x}, behind {}", case % 4));
                let subject = Subject::new(sig);
                for _ in 0..rounds() {
                    nest::reset();
                    subject.begin(nest::sys_read);
                    subject.signal(foreign);
                    nest::wait_entered(1);
                    subject.interrupt_once();
                    GO.store(true, SeqCst);
                    tally.round(subject.end(), Answer::Interrupted, INSIDE.load(SeqCst) == 1);
                }
                subject.leave();
                drop((_foreign, _behind));
                assert_eq!(State::now(), before);
                tally.end();
                case += 1;
            }
        }
    }
}

static BOTH: AtomicU32 = AtomicU32::new(0);
static FOREIGN: AtomicU32 = AtomicU32::new(0);

/// A handler, with both numbers in its mask, that returns when both are queued.
extern "C" fn gathers(sig: libc::c_int) {
    nest::waits(sig);
    let both = common::bit(SCOPE.load(SeqCst)) | common::bit(FOREIGN.load(SeqCst) as i32);
    BOTH.fetch_add(u32::from(nest::pending() & both == both), SeqCst);
}

// The kernel builds the frames of pending signals in the order of their numbers, so a foreign one with a lower number lies below ours before it has run an
// instruction; one with a higher number lies on top of what ours has decided.
#[test]
fn with_both_signals_pending_the_call_ends_in_either_order() {
    let _t = common::begin();
    let mut case = 0;
    for [sig, lower, higher] in numbers() {
        for foreign in [lower, higher] {
            for flags in RESTARTS.iter().flat_map(|restart| STACKS.map(|stack| restart | stack)) {
                let _behind = behind(sig, case);
                let _gathers = Installed::with_mask(libc::SIGWINCH, gathers, libc::SA_RESTART, &[sig, foreign]);
                let _foreign = Installed::new(foreign, nest::counts, flags);
                FOREIGN.store(foreign as u32, SeqCst);
                let mut tally = Tally::new(format!("{sig} with {foreign}, flags {flags:#x}, behind {}", case % 4));
                let subject = Subject::new(sig);
                for _ in 0..rounds() {
                    nest::reset();
                    BOTH.store(0, SeqCst);
                    subject.begin(nest::sys_read);
                    subject.signal(libc::SIGWINCH);
                    nest::wait_entered(1);
                    subject.signal(foreign);
                    subject.interrupt_once();
                    GO.store(true, SeqCst);
                    tally.round(subject.end(), Answer::Interrupted, BOTH.load(SeqCst) == 1);
                    assert_eq!(ENTERED.load(SeqCst), 2, "the foreign handler has run, once");
                }
                subject.leave();
                tally.end();
                case += 1;
            }
        }
    }
}

// The interrupt lands on the topmost, again when that has returned, and so on downwards.
#[test]
fn under_handlers_on_handlers_the_call_ends() {
    let _t = common::begin();
    let real_time = libc::SIGRTMIN();
    let foreign = [libc::SIGUSR2, libc::SIGHUP, libc::SIGWINCH, real_time + 1, real_time + 8];
    for (case, sig) in [libc::SIGUSR1, real_time + 3, libc::SIGUSR1, real_time + 3].into_iter().enumerate() {
        let _behind = behind(sig, case);
        // Which of them restart what they interrupt, and which run on the alternate stack. (Once one does, those above it do, too.)
        let flags = |n: usize| if n == case { 0 } else { libc::SA_RESTART } | STACKS[usize::from(n > case)];
        let mut installed = Vec::new();
        for (n, foreign) in foreign.into_iter().enumerate() {
            installed.push(Installed::new(foreign, nest::waits, flags(n)));
        }
        let subject = Subject::new(sig);
        for depth in [2, 3, 5] {
            let mut tally = Tally::new(format!("{sig} on {depth} handlers"));
            for round in 0..rounds() {
                nest::reset();
                subject.begin(nest::sys_read);
                for n in 0..depth {
                    subject.signal(foreign[(round as usize + n) % foreign.len()]);
                    nest::wait_entered(n as u32 + 1);
                }
                subject.interrupt_once();
                GO.store(true, SeqCst);
                tally.round(subject.end(), Answer::Interrupted, INSIDE.load(SeqCst) >= 1);
            }
            tally.end();
        }
        subject.leave();
    }
}

/// A handler that is over soon.
extern "C" fn brief(sig: libc::c_int) {
    for _ in 0..sig {
        std::hint::spin_loop();
    }
    common::getpid();
    ENTERED.fetch_add(1, SeqCst);
}

// Nobody waits for anybody: the signals meet the call, each other's handlers and ours at any instruction.
#[test]
fn among_foreign_signals_at_random_instants_none_is_lost() {
    let _t = common::begin();
    let mut random = common::Random::new();
    for [sig, lower, higher] in numbers() {
        for flags in RESTARTS {
            let foreign = [lower, higher, libc::SIGWINCH];
            let _behind = behind(sig, 1);
            let _foreign = foreign.map(|foreign| Installed::new(foreign, brief, flags));
            let mut tally = Tally::new(format!("{sig} among others, flags {flags:#x}"));
            let subject = Subject::new(sig);
            for round in 0..2 * rounds() {
                nest::reset();
                if round % 2 == 0 {
                    subject.begin(nest::sys_read)
                } else {
                    subject.start(nest::sys_read)
                }
                let (before, count) = (random.below(4), random.below(6));
                for n in 0..=count {
                    if n == before.min(count) {
                        subject.interrupt_once();
                    }
                    subject.signal(foreign[random.below(3) as usize]);
                    for _ in 0..random.below(200) {
                        std::hint::spin_loop();
                    }
                }
                // Where it landed is not known here.
                tally.round(subject.end(), Answer::Interrupted, true);
            }
            subject.leave();
            tally.end();
        }
    }
}
