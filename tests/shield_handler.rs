//! A signal handler raises a shield and lowers it, on top of a call that is blocked. The shield is the handler's; the call below is to end by what is asked
//! before, meanwhile and afterwards, although each is asked once: what was queued for it is taken out when the shield is raised, and is sent anew when it is
//! lowered, to come again when the handler has returned (R3).
// Tests install handlers and send signals by bare calls.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/counting.rs"]
mod counting;
#[path = "common/nest.rs"]
mod nest;
#[path = "common/witness.rs"]
mod witness;

use common::State;
use counting::undisturbed;
use eintr::{Delivery, Remote, Shield, shield};
use nest::{Answer, Here, Installed, SCOPE, Subject, Tally};
use std::cell::{Cell, UnsafeCell};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering::SeqCst};
use std::time::Duration;
use witness::Jump;

const ALL_FLAGS: [i32; 4] = [libc::SA_RESTART, 0, libc::SA_RESTART | libc::SA_ONSTACK, libc::SA_ONSTACK];

fn rounds() -> u64 {
    common::rounds("EINTR_NESTED_ROUNDS", 20)
}

/// The scope's number, a foreign one below it and a foreign one above.
fn numbers() -> [[i32; 3]; 2] {
    let real_time = libc::SIGRTMIN();
    [[libc::SIGUSR1, libc::SIGHUP, libc::SIGUSR2], [real_time + 3, real_time + 2, real_time + 4]]
}

type Ask = fn(&Remote) -> Delivery;

/// How far the handler has come, and how far it may go.
static AT: AtomicU32 = AtomicU32::new(0);
static UP_TO: AtomicU32 = AtomicU32::new(0);
/// What was not as it should be under the shield.
static FAULTS: AtomicU32 = AtomicU32::new(0);

const BEFORE: u32 = 1;
const DURING: u32 = 2;
const BEHIND: u32 = 3;

/// Waits in the handler until the test says that it may go on. What was sent meanwhile has been delivered then, if it is open.
fn stand(at: u32) {
    AT.store(at, SeqCst);
    while UP_TO.load(SeqCst) < at {
        unsafe { libc::sched_yield() };
    }
    common::getpid();
}

/// Looks whether something of ours is queued or comes, or the number is blocked for its sake.
fn look(opened: bool) {
    let bit = common::bit(SCOPE.load(SeqCst));
    let quiet = nest::pending() & bit == 0 && (!opened || common::mask() & bit == 0);
    let moment = Duration::from_micros(10);
    let faults = [!quiet, !undisturbed(moment), eintr::check().is_err(), eintr::sleep(moment).is_err()];
    FAULTS.fetch_add(faults.into_iter().map(u32::from).sum(), SeqCst);
}

fn shielded(opened: bool) {
    stand(BEFORE);
    let guard = shield();
    look(opened);
    stand(DURING);
    look(opened);
    drop(guard);
    stand(BEHIND);
}

extern "C" fn shields(_: libc::c_int) {
    shielded(true);
}

/// The same with the scope's number in the handler's own mask.
extern "C" fn shields_blocked(_: libc::c_int) {
    shielded(false);
}

/// Has the subject's handler go through its stations, and asks at those that `when` has the bit of.
fn go_through(subject: &Subject, foreign: i32, when: u32, ask: Ask) {
    AT.store(0, SeqCst);
    UP_TO.store(0, SeqCst);
    FAULTS.store(0, SeqCst);
    subject.signal(foreign);
    for station in [BEFORE, DURING, BEHIND] {
        common::wait_until(|| AT.load(SeqCst) == station);
        if when & 1 << station != 0 {
            let answer = ask(&subject.remote);
            assert!(
                answer == Delivery::Held || answer == Delivery::Sent && station != DURING,
                "{answer:?} at {station}"
            );
        }
        UP_TO.store(station, SeqCst);
    }
}

/// Every set of stations to ask at.
const WHENEVER: std::ops::Range<u32> = 1..8;

fn above_a_call(handler: extern "C" fn(libc::c_int), masked: bool, work: nest::Work, ask: Ask, wanted: Answer) {
    let _t = common::begin();
    for [sig, lower, higher] in numbers() {
        for (foreign, flags) in [lower, higher].into_iter().flat_map(|foreign| ALL_FLAGS.map(|flags| (foreign, flags)))
        {
            let before = State::now();
            let mask = if masked { &[sig][..] } else { &[] };
            let installed = Installed::with_mask(foreign, handler, flags, mask);
            let subject = Subject::new(sig);
            // A plain call may sleep on until it is sent for again.
            let subject = if wanted == Answer::Interrupted { subject } else { subject.with_patience() };
            let mut tally = Tally::new(format!("{sig} in {foreign}, flags {flags:#x}"));
            for when in (0..rounds()).flat_map(|_| WHENEVER) {
                subject.begin(work);
                go_through(&subject, foreign, when << 1, ask);
                let answer = subject.end();
                assert_eq!(FAULTS.load(SeqCst), 0, "under the shield, asked at {when:#b}");
                tally.round(answer, wanted, true);
            }
            subject.leave();
            drop(installed);
            assert_eq!(State::now(), before);
            tally.end();
        }
    }
}

#[test]
fn a_call_below_ends_by_what_is_asked_once_before_in_and_behind_a_handlers_shield() {
    above_a_call(shields, false, nest::sys_read, Remote::interrupt_once, Answer::Interrupted);
}

#[test]
fn also_below_a_handler_that_has_the_number_blocked() {
    above_a_call(shields_blocked, true, nest::sys_read, Remote::interrupt_once, Answer::Interrupted);
}

// Without SA_RESTART the plain call is over when the handler returns; with it, only the resend ends it, which the shield has stopped.
#[test]
fn a_plain_call_below_ends_by_being_sent_for_again() {
    above_a_call(shields, false, nest::plain_read, Remote::interrupt, Answer::Os(libc::EINTR));
}

/// A call of the crate under a shield; then what was kept.
fn read_under_a_shield(here: &Here<'_>) -> Answer {
    let guard = shield();
    let answer = nest::sys_read(here);
    drop(guard);
    if eintr::check().is_err() { answer } else { Answer::Slept }
}

// The handler's shield lies over that of the code below, and does not lower it.
#[test]
fn a_handlers_shield_leaves_the_one_below_as_it_was() {
    let _t = common::begin();
    for [sig, lower, _] in numbers() {
        for flags in ALL_FLAGS {
            let _foreign = Installed::new(lower, shields, flags);
            let subject = Subject::new(sig);
            for when in (0..rounds()).flat_map(|_| WHENEVER) {
                subject.begin(read_under_a_shield);
                go_through(&subject, lower, when << 1, Remote::interrupt_once);
                subject.look.wait_asleep(libc::SYS_read, subject.pipes[0].raw() as usize);
                subject.pipes[0].feed(1);
                assert_eq!((subject.end(), FAULTS.load(SeqCst)), (Answer::Bytes(1), 0), "asked at {when:#b}");
            }
            subject.leave();
        }
    }
}

thread_local! {
    static MINE: Cell<Option<Shield>> = const { Cell::new(None) };
}

extern "C" fn lowers(_: libc::c_int) {
    drop(MINE.take());
}

fn under_mine(work: nest::Work, here: &Here<'_>) -> Answer {
    MINE.set(Some(shield()));
    let answer = work(here);
    assert!(MINE.take().is_none(), "the handler has lowered it");
    answer
}

// The shield of the call itself is lowered above it, as a handler may that has it in its reach.
#[test]
fn a_call_under_a_shield_ends_when_a_handler_lowers_it() {
    let _t = common::begin();
    let works: [(nest::Work, Ask, Answer); 2] = [
        (|here| under_mine(nest::sys_read, here), Remote::interrupt_once, Answer::Interrupted),
        (|here| under_mine(nest::plain_read, here), Remote::interrupt, Answer::Os(libc::EINTR)),
    ];
    for [sig, lower, higher] in numbers() {
        for (foreign, flags) in [(lower, ALL_FLAGS[0]), (higher, ALL_FLAGS[0]), (lower, ALL_FLAGS[2])] {
            let _foreign = Installed::new(foreign, lowers, flags);
            for (work, ask, wanted) in works {
                let subject = Subject::new(sig).with_patience();
                let mut tally = Tally::new(format!("{sig} in {foreign}, flags {flags:#x}"));
                for _ in 0..rounds() {
                    subject.begin(work);
                    assert_eq!(ask(&subject.remote), Delivery::Held);
                    subject.signal(foreign);
                    tally.round(subject.end(), wanted, true);
                }
                subject.leave();
                tally.end();
            }
        }
    }
}

/// Where the handler jumps to. One thread at a time does.
struct There(UnsafeCell<Jump>);
unsafe impl Sync for There {}
static THERE: There = There(UnsafeCell::new(Jump::ZERO));
static PIPE: AtomicI32 = AtomicI32::new(-1);

extern "C" fn reads() {
    // Open for as long as the subject lives.
    let pipe = unsafe { BorrowedFd::borrow_raw(PIPE.load(SeqCst)) };
    let answer = eintr::sys::read(pipe, &mut [0; 8]);
    unreachable!("it is left by a jump: {answer:?}");
}

extern "C" fn stands_and_jumps(sig: libc::c_int) {
    stand(BEFORE);
    witness::jumping(sig);
}

/// Is jumped out of a call, with its interrupt waiting for the handler's return, which never comes.
fn jumped_out(here: &Here<'_>) -> Answer {
    PIPE.store(here.outer.raw(), SeqCst);
    assert!(!witness::until_longjmp(unsafe { &mut *THERE.0.get() }, reads));
    let guard = shield();
    look(true);
    drop(guard);
    stand(BEHIND);
    nest::sys_read(here)
}

#[test]
fn after_a_jump_out_of_a_call_a_shield_is_as_quiet_as_ever() {
    let _t = common::begin();
    for [sig, lower, higher] in numbers() {
        for (foreign, flags) in [(lower, ALL_FLAGS[0]), (higher, ALL_FLAGS[0]), (lower, ALL_FLAGS[2])] {
            let _foreign = Installed::new(foreign, stands_and_jumps, flags);
            let subject = Subject::new(sig);
            let mut tally = Tally::new(format!("{sig} in {foreign}, flags {flags:#x}"));
            for _ in 0..5 * rounds() {
                AT.store(0, SeqCst);
                UP_TO.store(0, SeqCst);
                FAULTS.store(0, SeqCst);
                subject.begin(jumped_out);
                subject.signal(foreign);
                common::wait_until(|| AT.load(SeqCst) == BEFORE);
                subject.interrupt_once();
                UP_TO.store(BEFORE, SeqCst);
                common::wait_until(|| AT.load(SeqCst) == BEHIND);
                UP_TO.store(BEHIND, SeqCst);
                let answer = subject.end();
                assert_eq!(FAULTS.load(SeqCst), 0);
                tally.round(answer, Answer::Interrupted, true);
            }
            subject.leave();
            tally.end();
        }
    }
}

/// A handler with shields of its own that are over soon.
extern "C" fn brief(sig: libc::c_int) {
    let guards = (shield(), (sig % 2 == 0).then(shield));
    for _ in 0..sig {
        std::hint::spin_loop();
    }
    drop(guards.0);
    common::getpid();
}

/// Shields that are over by the time of the call.
fn shields_and_read(here: &Here<'_>) -> Answer {
    for n in 0..3 {
        let guard = shield();
        (0..n * 100).for_each(|_| std::hint::spin_loop());
        FAULTS.fetch_add(u32::from(eintr::check().is_err()), SeqCst);
        drop(guard);
    }
    nest::sys_read(here)
}

// Nobody waits for anybody: shields go up and down on top of shields and of the call, and the one interrupt comes at any instruction.
#[test]
fn among_shields_of_handlers_at_random_instants_no_interrupt_is_lost() {
    let _t = common::begin();
    let mut random = common::Random::new();
    for [sig, lower, higher] in numbers() {
        for flags in ALL_FLAGS {
            let foreign = [lower, higher, libc::SIGWINCH];
            let _foreign = foreign.map(|foreign| Installed::new(foreign, brief, flags));
            FAULTS.store(0, SeqCst);
            let mut tally = Tally::new(format!("{sig} among others, flags {flags:#x}"));
            let subject = Subject::new(sig);
            for round in 0..50 * rounds() {
                match round % 4 {
                    0 => subject.begin(nest::sys_read),
                    1 => subject.start(nest::sys_read),
                    _ => subject.start(shields_and_read),
                }
                let (before, count) = (random.below(4), random.below(6));
                for n in 0..=count {
                    if n == before.min(count) {
                        let answer = subject.remote.interrupt_once();
                        assert!(matches!(answer, Delivery::Sent | Delivery::Held), "{answer:?}");
                    }
                    subject.signal(foreign[random.below(3) as usize]);
                    (0..random.below(200)).for_each(|_| std::hint::spin_loop());
                }
                tally.round(subject.end(), Answer::Interrupted, true);
            }
            assert_eq!(FAULTS.load(SeqCst), 0);
            subject.leave();
            tally.end();
        }
    }
}
