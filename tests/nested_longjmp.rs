//! Handlers that are left by siglongjmp(3), out of a call that is blocked: the mark of that call lies on the stack still, and must be known for dead (R4).
//! Afterwards plain calls and calls of the crate are interrupted as ever, no number stays blocked, and nothing is acknowledged by mistake.
//!
//! `EINTR_NESTED_ROUNDS` says how often each case is run.
// Tests install handlers, jump out of them, and send signals by bare calls.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/nest.rs"]
mod nest;
#[path = "common/witness.rs"]
mod witness;

use nest::{Answer, ENTERED, GO, Here, INSIDE, Installed, Subject, Tally, Work};
use std::cell::UnsafeCell;
use std::hint::black_box;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering::SeqCst};
use witness::Jump;

fn rounds() -> u64 {
    common::rounds("EINTR_NESTED_ROUNDS", 1000)
}

/// The scope's number, and two foreign ones on either side of it.
fn cases() -> [(i32, [i32; 2]); 2] {
    let real_time = libc::SIGRTMIN();
    [(libc::SIGUSR1, [libc::SIGHUP, libc::SIGUSR2]), (real_time + 3, [real_time + 4, real_time + 2])]
}

/// Two buffers: [0] leads back to the thread's own code, [1] to a handler.
struct Jumps([UnsafeCell<Jump>; 2]);
// One thread at a time jumps.
unsafe impl Sync for Jumps {}
static JUMPS: Jumps = Jumps([const { UnsafeCell::new(Jump::ZERO) }; 2]);
static PIPES: [AtomicI32; 3] = [const { AtomicI32::new(-1) }; 3];
static ANSWER: AtomicU32 = AtomicU32::new(0);
const INTERRUPTED: u32 = u32::MAX;

fn read_at(pipe: usize) -> Answer {
    // Open for as long as the subject lives, whose calls these are.
    let fd = unsafe { BorrowedFd::borrow_raw(PIPES[pipe].load(SeqCst)) };
    Answer::from(eintr::sys::read(fd, &mut [0; 1]))
}

/// Runs `f` so many KiB deeper on the stack, and leaves what lies between as it was: a dead frame there stays intact.
#[inline(never)]
fn deeper<R>(kib: usize, f: &mut dyn FnMut() -> R) -> R {
    let room = MaybeUninit::<[u8; 8192]>::uninit();
    black_box(room.as_ptr());
    let r = if kib <= 8 { f() } else { deeper(kib - 8, f) };
    black_box(room.as_ptr());
    r
}

/// The same, and nothing between is as it was.
#[inline(never)]
fn deeper_over<R>(kib: usize, f: &mut dyn FnMut() -> R) -> R {
    let room = black_box([0u8; 1024]);
    let r = if kib <= 1 { f() } else { deeper_over(kib - 1, f) };
    black_box(&room);
    r
}

/// A call of the crate that a handler jumps out of.
extern "C" fn reads_outer() {
    read_at(0);
}

/// The same from a place that lies 16 KiB deeper.
extern "C" fn reads_outer_deep() {
    deeper(16, &mut || read_at(0));
}

/// A call of a handler that another handler jumps out of.
extern "C" fn reads_inner() {
    read_at(1);
}

/// Leaves `body` by a jump out of a handler; false if it was not left so.
fn jumped_out_of(body: extern "C" fn()) -> bool {
    !witness::until_longjmp(unsafe { &mut *JUMPS.0[0].get() }, body)
}

/// A handler that reads, interruptibly; another one jumps out of it, to where [`jumped_out_of`] was called.
extern "C" fn reads_in_handler(_: libc::c_int) {
    ENTERED.fetch_add(1, SeqCst);
    read_at(1);
}

/// A handler that waits for the sender first, so that the interrupt has landed, and jumps then.
extern "C" fn waits_and_jumps(sig: libc::c_int) {
    nest::waits(sig);
    witness::jumping(sig);
}

/// What is done after the jump, with one interrupt for it. `Answer::Os(EINTR)` of a plain call that was ended counts as `Interrupted`.
const AFTERWARDS: [(&str, Work); 6] = [
    ("sys::read", nest::sys_read),
    ("look, plain read", |here| {
        assert!(here.scope.interrupted().is_none());
        plainly(here, 0)
    }),
    ("look, plain read 8 KiB deeper", |here| {
        assert!(here.scope.interrupted().is_none());
        plainly(here, 8)
    }),
    ("check, plain read 24 KiB deeper", |here| {
        eintr::check().expect("nothing was asked");
        plainly(here, 24)
    }),
    ("plain read, the dead frame written over", |here| deeper_over(24, &mut || plainly(here, 0))),
    ("check, sys::read 24 KiB deeper", |here| {
        eintr::check().expect("nothing was asked");
        deeper(24, &mut || nest::sys_read(here))
    }),
];

fn plainly(here: &Here<'_>, kib: usize) -> Answer {
    match if kib == 0 { nest::plain_read(here) } else { deeper(kib, &mut || nest::plain_read(here)) } {
        Answer::Os(libc::EINTR) => Answer::Interrupted,
        other => other,
    }
}

fn subject(sig: i32) -> Subject {
    let subject = Subject::new(sig);
    for (at, pipe) in PIPES.iter().zip(subject.pipes.iter()) {
        at.store(pipe.raw(), SeqCst);
    }
    subject
}

/// What the thread does in a round: the jump's part, and then one of [`AFTERWARDS`].
static AFTER: AtomicU32 = AtomicU32::new(0);
/// Rounds in which the jump was made.
static JUMPED: AtomicU32 = AtomicU32::new(0);

fn afterwards(here: &Here<'_>, jumped: bool) -> Answer {
    JUMPED.fetch_add(u32::from(jumped), SeqCst);
    AFTERWARDS[AFTER.load(SeqCst) as usize].1(here)
}

/// Asleep in read(2) of that pipe.
fn wait_asleep(subject: &Subject, pipe: usize) {
    subject.look.wait_asleep(libc::SYS_read, subject.pipes[pipe].raw() as usize);
}

/// Waits until the round's jump was made and the thread sleeps in what comes afterwards.
fn wait_jumped(subject: &Subject, before: u32) {
    common::wait_until(|| JUMPED.load(SeqCst) > before);
    wait_asleep(subject, 0);
}

fn behind(sig: i32, restart: bool) -> Option<Installed> {
    // Behind the default a plain call is ended by injection, behind a handler without SA_RESTART by the kernel.
    (!restart).then(|| Installed::new(sig, nest::counts, 0))
}

// From the handler straight back into the thread's code.
#[test]
fn after_a_jump_out_of_a_call_the_next_calls_are_interrupted() {
    let _t = common::begin();
    for (sig, foreign) in cases() {
        for (foreign, restart) in foreign.into_iter().flat_map(|foreign| [(foreign, true), (foreign, false)]) {
            let _behind = behind(sig, restart);
            let _jumps = Installed::new(foreign, witness::jumping, libc::SA_RESTART);
            let subject = subject(sig);
            for (after, (what, _)) in AFTERWARDS.iter().enumerate() {
                AFTER.store(after as u32, SeqCst);
                let mut tally = Tally::new(format!("{sig}: {what} after a jump by {foreign}, restart {restart}"));
                for round in 0..rounds() / 2 {
                    let jumped = JUMPED.load(SeqCst);
                    subject.begin(match round % 2 {
                        0 => |here| afterwards(here, jumped_out_of(reads_outer)),
                        _ => |here| afterwards(here, jumped_out_of(reads_outer_deep)),
                    });
                    subject.signal(foreign);
                    wait_jumped(&subject, jumped);
                    subject.interrupt_once();
                    tally.round(subject.end(), Answer::Interrupted, JUMPED.load(SeqCst) == jumped + 1);
                }
                tally.end();
            }
            subject.leave();
        }
    }
}

// The place that the dead mark names is overwritten, or is not: a plain call above it on the stack finds it dead by its own stack pointer, without a look between.
#[test]
fn after_a_jump_a_plain_call_above_the_dead_mark_is_interrupted_without_a_look() {
    let _t = common::begin();
    for (sig, [foreign, _]) in cases() {
        for restart in [true, false] {
            let _behind = behind(sig, restart);
            let _jumps = Installed::new(foreign, witness::jumping, libc::SA_RESTART);
            let subject = subject(sig);
            let mut tally = Tally::new(format!("{sig}: plain read right after a jump by {foreign}, restart {restart}"));
            for _ in 0..rounds() {
                let jumped = JUMPED.load(SeqCst);
                subject.begin(|here| {
                    let jumped = jumped_out_of(reads_outer_deep);
                    JUMPED.fetch_add(u32::from(jumped), SeqCst);
                    plainly(here, 0)
                });
                subject.signal(foreign);
                wait_jumped(&subject, jumped);
                subject.interrupt_once();
                tally.round(subject.end(), Answer::Interrupted, JUMPED.load(SeqCst) == jumped + 1);
            }
            subject.leave();
            tally.end();
        }
    }
}

// Two marks die at once: that of the thread's call, and that of the handler's on top of it.
#[test]
fn after_a_jump_out_of_the_call_of_a_handler_the_next_calls_are_interrupted() {
    let _t = common::begin();
    for (sig, [reads, jumps]) in cases() {
        for restart in [true, false] {
            let _behind = behind(sig, restart);
            let _reads = Installed::new(reads, reads_in_handler, libc::SA_RESTART);
            let _jumps = Installed::new(jumps, witness::jumping, libc::SA_RESTART);
            let subject = subject(sig);
            for (after, (what, _)) in AFTERWARDS.iter().enumerate() {
                AFTER.store(after as u32, SeqCst);
                let mut tally =
                    Tally::new(format!("{sig}: {what} after a jump out of a handler of {reads}, restart {restart}"));
                for _ in 0..rounds() / 2 {
                    let jumped = JUMPED.load(SeqCst);
                    subject.begin(|here| afterwards(here, jumped_out_of(reads_outer)));
                    subject.signal(reads);
                    wait_asleep(&subject, 1);
                    subject.signal(jumps);
                    wait_jumped(&subject, jumped);
                    subject.interrupt_once();
                    tally.round(subject.end(), Answer::Interrupted, JUMPED.load(SeqCst) == jumped + 1);
                }
                tally.end();
            }
            subject.leave();
        }
    }
}

// Row 6 has blocked the number in the context that the handler does not return to; the mask that the jump puts back has it open, so it lands in the thread's
// code, which is to say nowhere: what counts is `pending`.
#[test]
fn an_interrupt_that_a_handler_jumped_away_with_ends_the_next_call() {
    let _t = common::begin();
    for (sig, foreign) in cases() {
        for foreign in foreign {
            let _jumps = Installed::new(foreign, waits_and_jumps, libc::SA_RESTART);
            let subject = subject(sig);
            let mut tally = Tally::new(format!("{sig} on a handler of {foreign} that jumps"));
            for _ in 0..rounds() {
                nest::reset();
                let jumped = JUMPED.load(SeqCst);
                subject.begin(|here| {
                    JUMPED.fetch_add(u32::from(jumped_out_of(reads_outer)), SeqCst);
                    nest::sys_read(here)
                });
                subject.signal(foreign);
                nest::wait_entered(1);
                subject.interrupt_once();
                GO.store(true, SeqCst);
                let landed = INSIDE.load(SeqCst) <= 1;
                tally.round(subject.end(), Answer::Interrupted, landed && JUMPED.load(SeqCst) == jumped + 1);
            }
            subject.leave();
            tally.end();
        }
    }
}

// A jump that leaves the mask alone takes the blocked number along. The next look opens it: what is queued lands there, and what is sent again after it.
#[test]
fn an_interrupt_that_a_handler_jumped_away_with_and_kept_blocked_ends_the_next_call() {
    let _t = common::begin();
    const AFTER_IT: [(&str, Work); 3] = [
        ("sys::read", nest::sys_read),
        ("look, plain read", |here| {
            assert!(here.scope.interrupted().is_some());
            plainly(here, 0)
        }),
        ("look, plain read 24 KiB deeper", |here| {
            assert!(here.scope.interrupted().is_some());
            plainly(here, 24)
        }),
    ];
    for (sig, foreign) in cases() {
        for (foreign, restart) in foreign.into_iter().flat_map(|foreign| [(foreign, true), (foreign, false)]) {
            let _behind = behind(sig, restart);
            let _jumps = Installed::new(foreign, waits_and_jumps, libc::SA_RESTART | libc::SA_NODEFER);
            let subject = subject(sig).with_patience();
            for (after, (what, _)) in AFTER_IT.iter().enumerate() {
                AFTER.store(after as u32, SeqCst);
                let mut tally = Tally::new(format!("{sig}: {what} after a jump with its mask, restart {restart}"));
                for _ in 0..rounds() / 4 {
                    nest::reset();
                    let jumped = JUMPED.load(SeqCst);
                    subject.begin(|here| {
                        let left = !witness::until_longjmp_with_mask(unsafe { &mut *JUMPS.0[0].get() }, reads_outer);
                        let blocked = common::mask() & common::bit(here.scope.signal().as_raw()) != 0;
                        JUMPED.fetch_add(u32::from(left && blocked), SeqCst);
                        AFTER_IT[AFTER.load(SeqCst) as usize].1(here)
                    });
                    subject.signal(foreign);
                    nest::wait_entered(1);
                    subject.remote.interrupt();
                    GO.store(true, SeqCst);
                    tally.round(subject.end(), Answer::Interrupted, JUMPED.load(SeqCst) == jumped + 1);
                }
                tally.end();
            }
            subject.leave();
        }
    }
}

/// A handler whose read another one jumps out of, to the handler itself; it then waits for the interrupt, or reads again.
extern "C" fn goes_on_after_a_jump(_: libc::c_int) {
    let left = !witness::until_longjmp(unsafe { &mut *JUMPS.0[1].get() }, reads_inner);
    JUMPED.fetch_add(u32::from(left), SeqCst);
    ENTERED.fetch_add(1, SeqCst);
    if AFTER.load(SeqCst) == 0 {
        nest::wait_for_go();
    } else {
        ANSWER.store(if read_at(2) == Answer::Interrupted { INTERRUPTED } else { 1 }, SeqCst);
    }
}

// The mark of the handler's call is dead, that of the call below it is not, and what links the two may be overwritten: doubtful, so the timer does it.
#[test]
fn after_a_jump_within_a_handler_the_call_below_ends() {
    let _t = common::begin();
    for (sig, [reads, jumps]) in cases() {
        let _reads = Installed::new(reads, goes_on_after_a_jump, libc::SA_RESTART);
        let _jumps = Installed::new(jumps, witness::jumping, libc::SA_RESTART);
        let subject = subject(sig).with_patience();
        for after in 0..2 {
            AFTER.store(after, SeqCst);
            let mut tally = Tally::new(format!("{sig}: a jump within a handler of {reads}, afterwards {after}"));
            for _ in 0..rounds() / 4 {
                nest::reset();
                let jumped = JUMPED.load(SeqCst);
                subject.begin(nest::sys_read);
                subject.signal(reads);
                wait_asleep(&subject, 1);
                subject.signal(jumps);
                nest::wait_entered(1);
                if after == 1 {
                    wait_asleep(&subject, 2);
                }
                subject.remote.interrupt();
                GO.store(true, SeqCst);
                let answer = subject.end();
                assert!(answer == Answer::Slept || after == 0 || ANSWER.load(SeqCst) == INTERRUPTED);
                tally.round(answer, Answer::Interrupted, JUMPED.load(SeqCst) == jumped + 1);
            }
            tally.end();
        }
        subject.leave();
    }
}
