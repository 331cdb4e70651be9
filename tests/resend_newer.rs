//! What is asked while the thread acknowledges something else (protocol 6) is as good as the first request: it ends the next plain call, and needs no help.
//! An acknowledgement stops the resend; where it stops one that somebody still needs, that call sleeps for ever.
//!
//! `EINTR_QUIET_ROUNDS` says how often it is tried, about.
// Calls are made by bare system calls, as applications do.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/counting.rs"]
mod counting;
#[path = "common/unaided.rs"]
mod unaided;

use common::Random;
use counting::kinds;
use eintr::{Delivery, Remote, Resend, Scope, ScopeOptions, Status};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;
use unaided::Unaided;

/// Pauses of about the time between two requests.
const FIRST: [u64; 2] = [700, 15_000];

fn options(sig: i32, first: u64) -> ScopeOptions {
    let (first, ceiling) = (Duration::from_nanos(first), Duration::from_millis(1));
    ScopeOptions::new(sig).resend(Resend::Backoff { first, ceiling })
}

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
    /// How often a sender was ready for a round.
    arrived: AtomicU64,
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

/// Interrupts once in each round, and waits until that is acknowledged: what was asked while the thread was acknowledging the other's request ends its next
/// call. Nothing else does: the other sender waits for the end of the round, too.
fn interrupt_once_a_round(remote: &Remote, race: &Race, rounds: u64, seed: u64) {
    let mut random = Random::seeded(seed);
    for round in 1..=rounds {
        race.arrived.fetch_add(1, SeqCst);
        while race.arrived.load(SeqCst) < 2 * round {
            std::thread::yield_now();
        }
        unaided::spin(if random.chance(4) { random.below(20_000) } else { random.below(4_000) });
        race.during.fetch_add(u64::from(race.busy.load(SeqCst)), SeqCst);
        assert_ne!(remote.interrupt(), Delivery::Gone);
        race.unaided.wait().wait_until(|| remote.wait(Duration::ZERO) != Status::StillRunning);
    }
}

/// Two senders race with the acknowledgements of what the other one asked: how many requests there were, and how many needed help.
fn race(scopes: Scopes, sig: i32, first: u64, rounds: u64, random: &mut Random) -> Arc<Race> {
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
    race.unaided.get_or_init(|| Unaided::new(tid, &[sig, libc::SIGUSR2], common::patience(Duration::from_secs(1))));
    let senders = [0, 1].map(|n| {
        let (race, remote) = (Arc::clone(&race), remotes[n % remotes.len()].clone());
        common::unsignalled(move || interrupt_once_a_round(&remote, &race, rounds, seeds[n]))
    });
    senders.into_iter().for_each(|sender| sender.join().expect("the sender ends well"));
    race.over.store(true, SeqCst);
    common::wait_until(|| {
        remotes[0].interrupt();
        race.unaided.wait().strike();
        thread.is_finished()
    });
    thread.join().expect("the thread ends well");
    race
}

#[test]
fn what_is_asked_during_an_acknowledgement_ends_the_next_plain_call() {
    let _t = common::begin_with(Duration::from_secs(240));
    let rounds = common::rounds("EINTR_QUIET_ROUNDS", if cfg!(debug_assertions) { 6_000 } else { 30_000 });
    let (mut random, each) = (Random::new(), rounds.div_ceil(2 * 3 * 2 * 2));
    let (mut made, mut during, mut helped, mut worst) = (0, 0, 0, Duration::ZERO);
    for scopes in [Scopes::Same, Scopes::OfOneNumber, Scopes::OfTwoNumbers] {
        for (sig, first) in kinds().into_iter().flat_map(|sig| FIRST.map(|first| (sig, first))) {
            let race = race(scopes, sig, first, each, &mut random);
            made += race.arrived.load(SeqCst);
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
