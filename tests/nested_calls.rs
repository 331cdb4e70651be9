//! Foreign handlers that make interruptible calls themselves, on top of one that is blocked: an interrupt ends the inner call, is not acknowledged there,
//! and ends the outer one when the handler has returned.
//!
//! `EINTR_NESTED_ROUNDS` says how often each case is run.
// Tests install handlers and send signals by bare calls.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/nest.rs"]
mod nest;

use eintr::Status;
use eintr::nix::poll::{PollFd, PollFlags, PollTimeout};
use nest::{Answer, ENTERED, GO, INSIDE, Installed, LEFT, Subject, Tally};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

fn rounds() -> u64 {
    common::rounds("EINTR_NESTED_ROUNDS", 1000)
}

/// The scope's number and foreign ones on either side of it.
fn cases() -> [(i32, [i32; 3]); 2] {
    let real_time = libc::SIGRTMIN();
    [
        (libc::SIGUSR1, [libc::SIGUSR2, libc::SIGHUP, real_time + 4]),
        (real_time + 3, [real_time + 2, libc::SIGUSR2, real_time + 4]),
    ]
}

/// Where the handlers read, by how deep they lie.
static PIPES: [AtomicI32; 3] = [const { AtomicI32::new(-1) }; 3];
/// What their calls answered: [`code`], 0 while there is no answer.
static ANSWERS: [AtomicU32; 3] = [const { AtomicU32::new(0) }; 3];
const INTERRUPTED: u32 = u32::MAX;

fn code(answer: Answer) -> u32 {
    match answer {
        Answer::Bytes(n) => n as u32,
        Answer::Interrupted => INTERRUPTED,
        Answer::Os(errno) => 1000 + errno as u32,
        Answer::Slept => 999,
    }
}

fn answer_at(level: usize) -> u32 {
    ANSWERS[level].load(SeqCst)
}

fn pipe_at(level: usize) -> BorrowedFd<'static> {
    // Open for as long as the subject lives, whose handlers these are.
    unsafe { BorrowedFd::borrow_raw(PIPES[level].load(SeqCst)) }
}

fn read_at(level: usize) -> Answer {
    Answer::from(eintr::sys::read(pipe_at(level), &mut [0; 1]))
}

/// A subject whose handlers know where to read.
fn subject(sig: i32) -> Subject {
    let subject = Subject::new(sig);
    for (at, pipe) in PIPES.iter().zip(subject.pipes.iter().skip(1)) {
        at.store(pipe.raw(), SeqCst);
    }
    subject
}

fn reset() {
    nest::reset();
    ANSWERS.iter().for_each(|answer| answer.store(0, SeqCst));
}

/// A handler that reads at its level, and waits for leave to return.
extern "C" fn reads(_: libc::c_int) {
    let level = ENTERED.fetch_add(1, SeqCst) as usize;
    ANSWERS[level].store(code(read_at(level)), SeqCst);
    nest::wait_for_go();
    LEFT.fetch_add(1, SeqCst);
}

/// A handler that polls its pipe.
extern "C" fn polls(_: libc::c_int) {
    let level = ENTERED.fetch_add(1, SeqCst) as usize;
    let mut fds = [PollFd::new(pipe_at(level), PollFlags::POLLIN)];
    ANSWERS[level].store(code(Answer::from(eintr::sys::poll(&mut fds, PollTimeout::NONE))), SeqCst);
    nest::wait_for_go();
    LEFT.fetch_add(1, SeqCst);
}

/// Lets the handlers of these numbers begin one on top of the other, each asleep in its read.
fn pile_up(subject: &Subject, foreign: &[i32]) {
    for (level, foreign) in foreign.iter().enumerate() {
        subject.signal(*foreign);
        subject.look.wait_asleep(libc::SYS_read, subject.pipes[level + 1].raw() as usize);
    }
}

fn wait_for_answer(subject: &Subject, level: usize) {
    subject.wait_until(|| answer_at(level) != 0);
}

// Protocol 6: above a live mark nothing is acknowledged. The inner call that did would take away what the outer one needs.
#[test]
fn an_interrupt_ends_the_calls_of_handlers_and_the_call_below() {
    let _t = common::begin();
    for (sig, foreign) in cases() {
        for flags in [libc::SA_RESTART, libc::SA_RESTART | libc::SA_ONSTACK, 0] {
            let _foreign = foreign.map(|foreign| Installed::new(foreign, reads, flags));
            let subject = subject(sig);
            for depth in 1..=3 {
                let mut tally = Tally::new(format!("{sig}, {depth} handlers that read, flags {flags:#x}"));
                for _ in 0..rounds() {
                    reset();
                    subject.begin(nest::sys_read);
                    pile_up(&subject, &foreign[..depth]);
                    subject.interrupt_once();
                    wait_for_answer(&subject, depth - 1);
                    let unseen = subject.remote.wait(Duration::ZERO) == Status::StillRunning;
                    GO.store(true, SeqCst);
                    let answer = subject.end();
                    let inner = (0..depth).all(|level| answer_at(level) == INTERRUPTED);
                    assert!(answer == Answer::Slept || inner && unseen, "{inner}, {unseen}");
                    tally.round(answer, Answer::Interrupted, inner);
                }
                tally.end();
            }
            subject.leave();
        }
    }
}

// poll(2) is never restarted: the kernel ends it with any signal, and the crate calls it again if that was not ours.
#[test]
fn an_interrupt_ends_the_poll_of_a_handler_and_the_call_below() {
    let _t = common::begin();
    for (sig, [foreign, _, breaks]) in cases() {
        let _foreign = Installed::new(foreign, polls, libc::SA_RESTART);
        let _breaks = Installed::new(breaks, nest::counts, libc::SA_RESTART);
        let subject = subject(sig);
        let polling = || subject.look.sleeps_in().is_some_and(|(nr, _)| nest::POLLS.contains(&nr));
        let mut tally = Tally::new(format!("{sig} on a handler of {foreign} that polls"));
        for round in 0..rounds() {
            reset();
            subject.begin(nest::sys_read);
            subject.signal(foreign);
            common::wait_until(polling);
            if round % 2 == 1 {
                subject.signal(breaks);
                nest::wait_entered(2);
                common::wait_until(polling);
            }
            subject.interrupt_once();
            wait_for_answer(&subject, 0);
            let unseen = subject.remote.wait(Duration::ZERO) == Status::StillRunning;
            GO.store(true, SeqCst);
            let answer = subject.end();
            assert!(answer == Answer::Slept || unseen && answer_at(0) == INTERRUPTED, "{unseen}, {}", answer_at(0));
            tally.round(answer, Answer::Interrupted, answer_at(0) == INTERRUPTED);
        }
        subject.leave();
        tally.end();
    }
}

// A frame of the stub, a handler, a frame of the stub, a handler: the mark names the upper one, and the one before lies in it.
#[test]
fn under_another_handler_the_calls_of_handlers_end() {
    let _t = common::begin();
    for (sig, foreign) in cases() {
        for (below, above) in [(foreign[0], foreign[1]), (foreign[1], foreign[2]), (foreign[2], foreign[0])] {
            let _reads = Installed::new(below, reads, libc::SA_RESTART);
            let _waits = Installed::new(above, nest::waits, libc::SA_RESTART);
            let subject = subject(sig);
            let mut tally = Tally::new(format!("{sig} on {above} over a read on {below}"));
            for _ in 0..rounds() {
                reset();
                subject.begin(nest::sys_read);
                pile_up(&subject, &[below]);
                subject.signal(above);
                nest::wait_entered(2);
                subject.interrupt_once();
                GO.store(true, SeqCst);
                let answer = subject.end();
                assert!(answer == Answer::Slept || answer_at(0) == INTERRUPTED, "inner: {}", answer_at(0));
                // GO is seen by the lower handler, too, but not as something that it has waited for.
                tally.round(answer, Answer::Interrupted, INSIDE.load(SeqCst) == 1);
            }
            subject.leave();
            tally.end();
        }
    }
}

const MANY: usize = 60_000;
static DONE: AtomicU32 = AtomicU32::new(0);
static ENDED: AtomicU32 = AtomicU32::new(0);

/// A handler that reads byte after byte, all there, until a little after the interrupt was sent.
extern "C" fn reads_on(_: libc::c_int) {
    ENTERED.fetch_add(1, SeqCst);
    let (mut done, mut ended, mut left) = (0, 0, 24);
    for n in 0..MANY {
        if n % 1024 == 1023 {
            unsafe { libc::sched_yield() }; // to the sender, if it has no processor of its own
        }
        match read_at(0) {
            Answer::Bytes(1) if ended == 0 => done += 1,
            Answer::Interrupted => ended += 1,
            // What follows an interrupted one is interrupted: an answer that no test expects.
            _ => done += 1000 * MANY as u32,
        }
        left -= i32::from(GO.load(SeqCst));
        if left <= 0 {
            break;
        }
    }
    DONE.store(done, SeqCst);
    ENDED.store(ended, SeqCst);
    LEFT.fetch_add(1, SeqCst);
}

// At any instruction of the inner call: before its mark is set, in its window, behind it, and between two calls. No byte is lost.
#[test]
fn in_prologue_and_tail_of_the_calls_of_handlers_none_is_lost() {
    let _t = common::begin();
    let mut random = common::Random::new();
    for (sig, [lower, _, higher]) in cases() {
        for (foreign, flags) in [(lower, libc::SA_RESTART), (higher, libc::SA_RESTART | libc::SA_ONSTACK)] {
            let _foreign = Installed::new(foreign, reads_on, flags);
            let subject = subject(sig);
            let _apart = nest::Apart::from(subject.tid);
            let mut tally = Tally::new(format!("{sig} among the reads of a handler of {foreign}, flags {flags:#x}"));
            let begun = Instant::now();
            for round in 0..rounds() {
                if round > 100 && begun.elapsed() > Duration::from_secs(3) {
                    break; // a busy machine
                }
                reset();
                let pipe = &subject.pipes[1];
                pipe.drain(); // a pipe whose bytes lie scattered over its pages takes less
                pipe.feed(MANY);
                subject.begin(nest::sys_read);
                subject.signal(foreign);
                nest::wait_entered(1);
                for _ in 0..random.below(300) {
                    std::hint::spin_loop();
                }
                subject.interrupt_once();
                GO.store(true, SeqCst);
                subject.wait_until(|| LEFT.load(SeqCst) == 1);
                let (done, ended) = (DONE.load(SeqCst) as usize, ENDED.load(SeqCst));
                assert_eq!(MANY - done, pipe.filled(), "{ended} interrupted");
                tally.round(subject.end(), Answer::Interrupted, done > 0 && ended > 0);
            }
            subject.leave();
            tally.end();
        }
    }
}

// The inner call has popped its mark: the one below it counts again.
#[test]
fn after_the_calls_of_handlers_the_call_below_ends() {
    let _t = common::begin();
    for (sig, foreign) in cases() {
        for foreign in foreign {
            let _foreign = Installed::new(foreign, reads, libc::SA_RESTART);
            let subject = subject(sig);
            let mut tally = Tally::new(format!("{sig} after the read of a handler of {foreign}"));
            for round in 0..rounds() {
                reset();
                subject.begin(nest::sys_read);
                if round % 2 == 0 {
                    subject.pipes[1].feed(1);
                    subject.signal(foreign);
                } else {
                    pile_up(&subject, &[foreign]);
                    subject.pipes[1].feed(1);
                }
                wait_for_answer(&subject, 0);
                assert_eq!(answer_at(0), 1, "one byte");
                subject.interrupt_once();
                GO.store(true, SeqCst);
                tally.round(subject.end(), Answer::Interrupted, INSIDE.load(SeqCst) == 1);
            }
            subject.leave();
            tally.end();
        }
    }
}

/// A handler whose calls begin when the interrupt has landed in it.
extern "C" fn reads_late(_: libc::c_int) {
    let level = ENTERED.fetch_add(1, SeqCst) as usize;
    nest::wait_for_go();
    let look = || eintr::check().is_err() && eintr::retry(|| -> std::io::Result<()> { Ok(()) }).is_err();
    let (looked, first, second) = (look(), read_at(level), read_at(level));
    let all = looked && look() && first == second;
    ANSWERS[level].store(if all { code(first) } else { 998 }, SeqCst);
    LEFT.fetch_add(1, SeqCst);
    while LEFT.load(SeqCst) < 2 {
        unsafe { libc::sched_yield() };
    }
}

// The number is blocked while the handler runs (row 6); a call of the crate must fail all the same, and `check` and `retry`; the outer call is still to come.
#[test]
fn calls_of_handlers_that_begin_after_the_interrupt_end_and_acknowledge_nothing() {
    let _t = common::begin();
    for (sig, foreign) in cases() {
        for foreign in foreign {
            let _foreign = Installed::new(foreign, reads_late, libc::SA_RESTART);
            let subject = subject(sig);
            let mut tally = Tally::new(format!("{sig} before the read of a handler of {foreign}"));
            for _ in 0..rounds() {
                reset();
                subject.begin(nest::sys_read);
                subject.signal(foreign);
                nest::wait_entered(1);
                subject.interrupt_once();
                GO.store(true, SeqCst);
                wait_for_answer(&subject, 0);
                let unseen = subject.remote.wait(Duration::ZERO) == Status::StillRunning;
                LEFT.fetch_add(1, SeqCst);
                let answer = subject.end();
                assert!(answer == Answer::Slept || unseen && answer_at(0) == INTERRUPTED, "{unseen}, {}", answer_at(0));
                tally.round(answer, Answer::Interrupted, INSIDE.load(SeqCst) == 1);
            }
            subject.leave();
            tally.end();
        }
    }
}
