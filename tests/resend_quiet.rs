//! After an acknowledgement (protocol 6) nothing of ours comes until the next request, and the next request is as good as the first; after the end of a
//! scope nothing comes at all. The resend is what would break both: a timer that nobody stopped, or that somebody stopped for one who still needs it.
//!
//! `EINTR_QUIET_ROUNDS` says how often each is tried.
// Calls are made, and handlers installed, by bare system calls, as applications do.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/counting.rs"]
mod counting;
#[path = "common/unaided.rs"]
mod unaided;

use common::{Random, State};
use counting::{Counting, kinds, undisturbed};
use eintr::{Delivery, Remote, Resend, Scope, ScopeOptions, Status};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;
use unaided::Unaided;

/// First pauses about as long as what is interrupted here, so that an expiry is under way at every instant.
const FIRST: [u64; 4] = [1, 700, 4_000, 15_000];

fn options(sig: i32, first: u64) -> ScopeOptions {
    let first = Duration::from_nanos(first);
    ScopeOptions::new(sig).resend(Resend::Backoff { first, ceiling: Duration::from_micros(200) })
}

fn rounds() -> u64 {
    common::rounds("EINTR_QUIET_ROUNDS", if cfg!(debug_assertions) { 12_000 } else { 100_000 })
}

/// So that a plain call of some microseconds lasts no longer.
fn wake_in_time() {
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
}

/// What plain calls saw of signals that were not to come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Strays {
    /// Polls that were broken.
    broken: u64,
    /// Deliveries, counted by another action in the place of ours.
    delivered: u64,
}

impl Strays {
    /// A poll that lasts so long. A delivery that breaks none is seen too, if `all`: from here to the end of the poll another handler stands in the action.
    /// Meanwhile nothing is sent, so what comes had been on its way.
    fn look(&mut self, sig: i32, time: Duration, all: bool) {
        let counting = all.then(|| Counting::with_flags(sig, 0));
        self.broken += u64::from(!undisturbed(time));
        self.delivered += counting.map_or(0, |counting| counting.runs());
    }
}

// Nothing comes.

/// A thread that interrupts when it is told to.
struct Interrupter {
    turn: Arc<[AtomicU64; 2]>,
    thread: JoinHandle<()>,
}

impl Interrupter {
    fn start(remote: Remote) -> Interrupter {
        let turn = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let turns = Arc::clone(&turn);
        let thread = common::unsignalled(move || {
            for n in 1u64.. {
                wait_until(|| turns[0].load(SeqCst) >= n);
                if turns[0].load(SeqCst) == u64::MAX {
                    return;
                }
                assert_eq!(remote.interrupt(), Delivery::Sent, "all that was asked before is acknowledged");
                turns[1].store(n, SeqCst);
            }
        });
        Interrupter { turn, thread }
    }

    fn go(&self) {
        self.turn[0].fetch_add(1, SeqCst);
    }

    fn wait_until_done(&self) {
        wait_until(|| self.turn[1].load(SeqCst) == self.turn[0].load(SeqCst) || self.thread.is_finished());
    }

    fn end(self) {
        self.turn[0].store(u64::MAX, SeqCst);
        self.thread.join().expect("each interrupt was sent");
    }
}

/// Awake at first.
fn wait_until(done: impl Fn() -> bool) {
    if !(0..2000).any(|_| done() || std::hint::black_box(false)) {
        common::wait_until(done);
    }
}

/// Waits for the interrupt, and acknowledges it by one of the ways.
fn acknowledge(scope: &Scope, nothing: &OwnedFd, way: u64) {
    let read = || eintr::sys::read(nothing.as_fd(), &mut [0; 8]).expect_err("nothing is to be read").interrupted();
    match way % 5 {
        0 => assert!(read().is_some()),
        1 => {
            wait_until(|| scope.interrupted().is_some());
            assert!(read().is_some());
        }
        2 => wait_until(|| eintr::check().is_err()),
        3 => wait_until(|| eintr::retry(|| 0i32).is_err()),
        _ => {
            wait_until(|| scope.interrupted().is_some());
            assert!(scope.clear().is_some());
        }
    }
}

#[test]
fn after_an_acknowledgement_plain_calls_are_left_alone() {
    let _t = common::begin_with(Duration::from_secs(240));
    wake_in_time();
    let (mut random, (nothing, _writer)) = (Random::new(), common::pipe());
    let configurations = kinds().len() * FIRST.len();
    let (each, mut made) = (rounds().div_ceil(configurations as u64), 0);
    let (mut before, mut after) = (Strays::default(), Strays::default());
    for (sig, first) in kinds().into_iter().flat_map(|sig| FIRST.map(|first| (sig, first))) {
        let scope = options(sig, first).enter().unwrap();
        let interrupter = Interrupter::start(scope.remote());
        for round in 0..each {
            if round % 4 == 0 {
                interrupter.go();
            } else {
                assert_eq!(scope.remote().interrupt(), Delivery::Sent, "all that was asked before is acknowledged");
            }
            acknowledge(&scope, &nothing, random.next());
            let all = random.chance(2);
            before.look(sig, Duration::from_micros(10), all); // the sender may be on its way back still
            interrupter.wait_until_done();
            after.look(sig, Duration::from_micros(5), all);
            scope.clear();
            made += 1;
        }
        interrupter.end();
    }
    println!("quiet: {made} acknowledgements, strays: {before:?}, with the sender back: {after:?}");
    assert_eq!((before, after), (Strays::default(), Strays::default()), "of {made}");
}

// What is asked anew comes.

/// The two scopes that the senders interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scopes {
    Same,
    OfOneNumber,
    OfTwoNumbers,
}

#[derive(Debug, Default)]
struct Race {
    over: AtomicBool,
    /// The thread is acknowledging.
    busy: AtomicBool,
    /// Requests that were made meanwhile.
    during: AtomicU64,
    made: AtomicU64,
    unaided: OnceLock<Unaided>,
}

/// Makes a plain call that nothing ends but an interrupt, acknowledges, by `check` or by `clear` of one or of both, and goes on.
fn call_again_and_again(scopes: &[Scope], race: &Race, seed: u64) {
    let (mut random, (nothing, _writer)) = (Random::seeded(seed), common::pipe());
    while !race.over.load(SeqCst) {
        let answer = common::plain_read(&nothing);
        assert!(matches!(answer, Err(libc::EINTR | libc::ECANCELED)), "{answer:?}");
        race.busy.store(true, SeqCst);
        match random.below(4) {
            0 => _ = eintr::check(),
            1 => _ = scopes[0].clear(),
            2 => _ = scopes.last().expect("one or two").clear(),
            _ => scopes.iter().for_each(|scope| _ = scope.clear()),
        }
        race.busy.store(false, SeqCst);
    }
}

/// Interrupts at random, each time until it is acknowledged: what was asked while the thread was acknowledging something else ends its next call.
fn interrupt_again_and_again(remote: &Remote, race: &Race, requests: u64, seed: u64) {
    let mut random = Random::seeded(seed);
    for _ in 0..requests {
        unaided::spin(if random.chance(8) { random.below(30_000) } else { random.below(3_000) });
        race.during.fetch_add(u64::from(race.busy.load(SeqCst)), SeqCst);
        assert_ne!(remote.interrupt(), Delivery::Gone);
        race.made.fetch_add(1, SeqCst);
        race.unaided.wait().wait_until(|| remote.wait(Duration::ZERO) != Status::StillRunning);
    }
}

/// Two senders race with the acknowledgements of what the other one asked: how many requests there were, and how many needed help.
fn race(scopes: Scopes, sig: i32, first: u64, requests: u64, random: &mut Random) -> Arc<Race> {
    let (race, seeds) = (Arc::new(Race::default()), [random.next(), random.next(), random.next()]);
    let (tell, told) = mpsc::channel();
    let of_thread = Arc::clone(&race);
    let thread = std::thread::spawn(move || {
        let numbers: &[i32] = match scopes {
            Scopes::Same => &[sig],
            Scopes::OfOneNumber => &[sig, sig],
            Scopes::OfTwoNumbers => &[sig, libc::SIGUSR2],
        };
        let scopes: Vec<_> = numbers.iter().map(|sig| options(*sig, first).enter().unwrap()).collect();
        tell.send((common::gettid(), scopes.iter().map(Scope::remote).collect::<Vec<_>>())).unwrap();
        call_again_and_again(&scopes, &of_thread, seeds[2]);
    });
    let (tid, remotes) = told.recv().expect("the thread enters");
    race.unaided.get_or_init(|| Unaided::new(tid, &[sig, libc::SIGUSR2], unaided::long_enough()));
    let senders = [0, 1].map(|n| {
        let (race, remote) = (Arc::clone(&race), remotes[n % remotes.len()].clone());
        common::unsignalled(move || interrupt_again_and_again(&remote, &race, requests, seeds[n]))
    });
    senders.into_iter().for_each(|sender| sender.join().expect("the sender ends well"));
    race.over.store(true, SeqCst);
    common::wait_until(|| {
        remotes[0].interrupt();
        thread.is_finished()
    });
    thread.join().expect("the thread ends well");
    race
}

#[test]
fn what_is_asked_during_an_acknowledgement_ends_the_next_plain_call() {
    let _t = common::begin_with(Duration::from_secs(240));
    let (mut random, each) = (Random::new(), rounds().div_ceil(4 * 3 * 2 * 2));
    let (mut made, mut during, mut helped, mut worst) = (0, 0, 0, Duration::ZERO);
    for scopes in [Scopes::Same, Scopes::OfOneNumber, Scopes::OfTwoNumbers] {
        for (sig, first) in kinds().into_iter().flat_map(|sig| [700, 15_000].map(|first| (sig, first))) {
            let race = race(scopes, sig, first, each, &mut random);
            made += race.made.load(SeqCst);
            during += race.during.load(SeqCst);
            helped += race.unaided.wait().helped();
            worst = worst.max(race.unaided.wait().worst());
        }
    }
    println!(
        "newer: {made} requests, {during} of them during an acknowledgement, {helped} needed help; the worst took {worst:?}"
    );
    assert!(during > 0, "none was asked during an acknowledgement");
    assert_eq!(helped, 0, "of {made} requests");
}

// What is over is over.

/// How the scope ends that an expiry was to come for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    WithTheNumberOpen,
    WithTheNumberBlocked,
    InsideAnother,
}

/// A scope whose timer is about to expire, or just has, is dropped; the next one of the same number is entered at once.
#[test]
fn an_expiry_for_a_scope_that_has_ended_does_nothing_to_the_next_one() {
    let _t = common::begin_with(Duration::from_secs(240));
    wake_in_time();
    let mut random = Random::new();
    let (each, mut made, mut strays) = (rounds().div_ceil(4 * 24), 0, Strays::default());
    for (sig, first) in kinds().into_iter().flat_map(|sig| FIRST.map(|first| (sig, first))) {
        let behind = Counting::on(sig);
        let state = State::now();
        for ends in [Ends::WithTheNumberOpen, Ends::WithTheNumberBlocked, Ends::InsideAnother] {
            for round in 0..each {
                let around = (ends == Ends::InsideAnother).then(|| options(sig, first).enter().unwrap());
                let scope = options(sig, first).enter().unwrap();
                if ends == Ends::WithTheNumberBlocked {
                    common::block(sig);
                }
                assert_eq!(scope.remote().interrupt(), Delivery::Sent);
                unaided::spin(random.below(first + 300));
                drop(scope);
                let next = around.unwrap_or_else(|| options(sig, first).enter().unwrap());
                assert!(next.interrupted().is_none() && eintr::check().is_ok(), "{ends:?}, round {round}");
                strays.look(sig, Duration::from_micros(5), round % 2 == 0);
                assert!(next.interrupted().is_none() && eintr::check().is_ok(), "{ends:?}, round {round}");
                made += 1;
            }
        }
        assert_eq!(State::now(), state);
        assert_eq!(behind.runs(), strays.delivered, "signal {sig}: what reached the action behind");
    }
    println!("stale: {made} scopes, strays: {strays:?}");
    assert_eq!(strays, Strays::default(), "of {made}");
}
