//! A deadline that passes while the handler of another signal lies on top of the call (R3 to R5), and one that is moved with every message, as an idle timeout is.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks)] // as in tests/common

mod common;
#[path = "common/counting.rs"]
mod counting;
#[path = "common/deadlines.rs"]
mod deadlines;
#[path = "common/nest.rs"]
mod nest;
#[path = "common/witness.rs"]
mod witness;

use counting::kinds;
use deadlines::{Beside, DUE, HOUR, HOURS, ms, slept_well, told, us};
use eintr::{Delivery, Interrupted, Resend, Scope, ScopeOptions, sys};
use nest::{Answer, ENTERED, GO, Here, INSIDE, Installed, LEFT, SCOPE, Subject, Tally};
use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The scope's number, and foreign ones on either side of it.
fn cases() -> [(i32, [i32; 2]); 2] {
    let real_time = libc::SIGRTMIN();
    [(libc::SIGUSR1, [libc::SIGHUP, libc::SIGUSR2]), (real_time + 3, [real_time + 2, real_time + 4])]
}

/// How the scope sends again. The call does not depend on it.
const RESENDS: [fn() -> Resend; 3] = [Resend::default, || HOURS, || Resend::Never];

/// When the deadline of the next call passes.
static AT: Mutex<Option<Instant>> = Mutex::new(None);

/// In a while.
fn set_a_deadline() -> Instant {
    *AT.lock().unwrap().insert(Instant::now() + ms(3))
}

/// `sys::read` of the empty pipe, under that deadline.
fn read_under_a_deadline(here: &Here<'_>) -> Answer {
    let at = AT.lock().unwrap().unwrap();
    let limit = here.scope.deadline(at).unwrap();
    let answer = nest::sys_read(here);
    assert!(answer != Answer::Interrupted || limit.expired() && told() == DUE);
    answer
}

/// A foreign handler that waits, and says whether the scope's signal has landed on it: then it lies in the queue again, with the number blocked.
extern "C" fn waits(_: libc::c_int) {
    ENTERED.fetch_add(1, SeqCst);
    while !GO.load(SeqCst) {
        unsafe { libc::sched_yield() };
    }
    INSIDE.fetch_add(u32::from(nest::pending() & common::bit(SCOPE.load(SeqCst)) != 0), SeqCst);
    LEFT.fetch_add(1, SeqCst);
}

#[test]
fn one_that_passes_below_a_foreign_handler_ends_the_call_when_that_returns() {
    let _t = common::begin();
    let rounds = common::rounds("EINTR_NESTED_ROUNDS", 1000).div_ceil(25);
    for (sig, foreign) in cases() {
        for (foreign, resend) in foreign.into_iter().zip([0, 1]).chain([(foreign[0], 2)]) {
            let _foreign = Installed::new(foreign, waits, libc::SA_RESTART);
            let subject = Subject::new(ScopeOptions::new(sig).resend(RESENDS[resend]())).with_patience();
            let mut tally = Tally::new(format!("{sig} on {foreign}, {:?}", RESENDS[resend]()));
            for _ in 0..rounds {
                nest::reset();
                let at = set_a_deadline();
                subject.start(read_under_a_deadline);
                let asleep = || subject.look.sleeps_in() == Some((libc::SYS_read, subject.pipes[0].raw() as usize));
                common::wait_until(|| asleep() || Instant::now() > at); // a busy machine may come too late
                subject.signal(foreign);
                nest::wait_entered(1);
                deadlines::spin_until(at + us(300));
                GO.store(true, SeqCst);
                let answer = subject.end();
                common::wait_until(|| LEFT.load(SeqCst) == 1);
                tally.round(answer, Answer::Interrupted, INSIDE.load(SeqCst) == 1);
            }
            subject.leave();
            tally.end();
        }
    }
}

/// Where handlers wait.
static PIPE: AtomicI32 = AtomicI32::new(-1);

/// Waits in ppoll(2) with nothing blocked, until there is a byte. From the second landing on the number is blocked in the mask that comes back (R5).
extern "C" fn ppolls_open(_: libc::c_int) {
    ENTERED.fetch_add(1, SeqCst);
    let mut ready = libc::pollfd { fd: PIPE.load(SeqCst), events: libc::POLLIN, revents: 0 };
    let (no_time, mask) = (std::ptr::null::<libc::timespec>(), 0u64);
    while unsafe { libc::syscall(libc::SYS_ppoll, &mut ready, 1, no_time, &mask, 8usize) } < 0 {
        INSIDE.fetch_add(1, SeqCst);
    }
    LEFT.fetch_add(1, SeqCst);
}

/// The timer tries again soon, however long the pauses of the resend are: nothing else brings it to the call.
#[test]
fn where_it_cannot_be_brought_home_long_pauses_do_not_count() {
    let _t = common::begin();
    let rounds = common::rounds("EINTR_NESTED_ROUNDS", 1000).div_ceil(100);
    for (sig, [foreign, _]) in cases() {
        for (by_remote, resend) in RESENDS.iter().flat_map(|resend| [(false, resend()), (true, resend())]) {
            let work: nest::Work = if by_remote { nest::sys_read } else { read_under_a_deadline };
            let _foreign = Installed::new(foreign, ppolls_open, libc::SA_RESTART);
            let _wakes = Installed::new(libc::SIGWINCH, nest::counts, libc::SA_RESTART);
            let subject = Subject::new(ScopeOptions::new(sig).resend(resend)).with_patience();
            PIPE.store(subject.pipes[1].raw(), SeqCst);
            let mut tally = Tally::new(format!("{sig} on a ppoll in the handler of {foreign}, {resend:?}"));
            for _ in 0..rounds {
                nest::reset();
                let at = set_a_deadline();
                subject.start(work);
                let sleeps_in = |nr| subject.look.sleeps_in().is_some_and(|(asleep, _)| asleep == nr);
                common::wait_until(|| sleeps_in(libc::SYS_read) || Instant::now() > at && !by_remote);
                subject.signal(foreign);
                common::wait_until(|| sleeps_in(libc::SYS_ppoll));
                if by_remote {
                    assert_eq!(subject.remote.interrupt(), Delivery::Sent);
                }
                // Broken twice: from the second landing on the number is blocked below. Or the call had ended before.
                common::wait_until(|| INSIDE.load(SeqCst) >= 2 || Instant::now() > at + ms(20) && !by_remote);
                subject.pipes[1].feed(1);
                subject.signal(libc::SIGWINCH);
                let answer = subject.end();
                common::wait_until(|| LEFT.load(SeqCst) >= 2);
                tally.round(answer, Answer::Interrupted, INSIDE.load(SeqCst) >= 2);
                subject.pipes[1].drain();
            }
            subject.leave();
            tally.end();
        }
    }
}

/// A number that was blocked before belongs to somebody's sigwait: what comes for the process is offered to it, and the handler takes back what nobody took, with
/// whatever of ours was queued in those 200 microseconds.
#[test]
fn an_expiry_that_is_taken_in_passing_is_not_lost() {
    let _t = common::begin();
    let rounds = common::rounds("EINTR_NESTED_ROUNDS", 1000) / 2;
    for (sig, resend) in kinds().into_iter().flat_map(|sig| [(sig, Resend::default()), (sig, Resend::Never)]) {
        witness::well(witness::child(|| {
            common::block(sig);
            let _holds_out = common::Watchdog::new(Duration::from_secs(20));
            let scope = ScopeOptions::new(sig).resend(resend).enter().unwrap();
            let (round, sent, began) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)), Instant::now());
            let sender = {
                let (round, sent, mut random, mut last) = (round.clone(), sent.clone(), common::Random::new(), 0);
                Beside::again_and_again(move || {
                    let at = round.load(SeqCst);
                    if std::mem::replace(&mut last, at) == at {
                        return std::thread::yield_now();
                    }
                    deadlines::spin_until(began + Duration::from_nanos(at) - us(random.below(260)));
                    assert_eq!(unsafe { libc::kill(common::getpid(), sig) }, 0);
                    sent.fetch_add(1, SeqCst);
                })
            };
            let (from, _to) = common::pipe();
            for n in 1..=rounds {
                let at = Instant::now() + us(300);
                let limit = scope.deadline(at).unwrap();
                round.store((at - began).as_nanos() as u64, SeqCst);
                let ended = sys::read(&from, &mut [0; 8]).unwrap_err();
                assert!(ended.interrupted().map(Interrupted::reason) == DUE && Instant::now() >= at);
                drop(limit);
                common::wait_until(|| sent.load(SeqCst) == n);
            }
            drop((sender, scope));
            let theirs = witness::take_all(sig);
            assert!(theirs.iter().all(|info| info.code == libc::SI_USER), "{theirs:?}");
            assert_eq!(theirs.len() as u64, if witness::is_standard(sig) { 1 } else { rounds });
        }));
    }
}

/// Messages of eight bytes, numbered, one after the other; each is written when the one before has been read, and then a while later.
fn messages(count: u64, pause: fn(u64) -> Duration) -> (File, Beside, Arc<AtomicU64>) {
    let (from, to) = common::pipe();
    let (mut to, read, mut next) = (File::from(to), Arc::new(AtomicU64::new(0)), 0);
    let taken = Arc::clone(&read);
    let writer = Beside::again_and_again(move || {
        if next < count && taken.load(SeqCst) == next {
            deadlines::spin_until(Instant::now() + pause(next));
            to.write_all(&next.to_ne_bytes()).unwrap();
            next += 1;
        }
        std::hint::spin_loop();
    });
    (from.into(), writer, read)
}

/// One limit for the whole stream, moved with each message: as long as they come nothing is ended, and when they do not, the next read is.
#[test]
fn an_idle_timeout_that_is_moved_with_each_message_ends_the_first_read_that_waits() {
    let _t = common::begin();
    let count = common::rounds("EINTR_MESSAGES", if cfg!(debug_assertions) { 40_000 } else { 100_000 });
    let scope = Scope::enter(libc::SIGUSR1).unwrap();
    let (from, writer, read) = messages(count, |_| Duration::ZERO);
    let limit = scope.timeout(HOUR).unwrap();
    for n in 0..count {
        let mut message = [0; 8];
        let bytes = match n % 2 {
            0 => sys::read(&from, &mut message).map_err(|e| e.to_string()),
            _ => nix::unistd::read(&from, &mut message).map_err(|e| e.to_string()),
        };
        assert_eq!((bytes, u64::from_ne_bytes(message)), (Ok(8), n));
        read.store(n + 1, SeqCst);
        limit.reset(Instant::now() + HOUR);
    }
    assert!(told().is_none() && slept_well(ms(1)));
    limit.reset(Instant::now() + ms(2));
    assert_eq!(common::plain_read(&from), Err(libc::EINTR));
    assert!(limit.expired() && told() == DUE);
    drop(writer);
}

/// The limit is about as long as the messages are apart: a read ends with one or the other, and no message is lost or comes twice.
#[test]
fn an_idle_timeout_as_long_as_the_pauses_loses_no_message() {
    let _t = common::begin();
    let count = common::rounds("EINTR_MESSAGES", 40_000) / 4;
    for sig in kinds() {
        let scope = ScopeOptions::new(sig).resend(HOURS).enter().unwrap();
        let (from, writer, read) = messages(count, |n| us(20 + n * 7 % 31));
        let limit = scope.timeout(us(35)).unwrap();
        let (mut n, mut ended) = (0, 0);
        while n < count {
            let mut message = [0; 8];
            match sys::read(&from, &mut message) {
                Ok(bytes) => {
                    assert_eq!((bytes, u64::from_ne_bytes(message)), (8, n));
                    n += 1;
                    read.store(n, SeqCst);
                }
                Err(e) => {
                    assert!(e.interrupted().map(Interrupted::reason) == DUE && limit.expired());
                    ended += 1;
                }
            }
            limit.reset(Instant::now() + us(35));
        }
        println!("{count} messages, {ended} reads ended by the limit");
        assert!(ended > 0);
        drop((limit, writer));
    }
}
