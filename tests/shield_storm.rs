//! While a shield is up no signal of ours comes, however many are asked for: glibc's tst-cancel29, and what else has to be waited for and taken when one is
//! raised, in many rounds beside two threads that interrupt all the time.
//!
//! Each of these fails without one of the steps of raising or lowering a shield (protocol 8). `EINTR_SHIELDED` says how many calls each test makes.
// Tests make bare calls, to see what those see.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/counting.rs"]
mod counting;
#[path = "common/shielding.rs"]
mod shielding;

use common::State;
use counting::kinds;
use eintr::{Remote, Resend, Scope, ScopeOptions};
use shielding::{Ask, OWN, PLAIN, Short, beside_two_senders};
use std::collections::BTreeMap;
use std::time::Duration;

const RESENT: Ask = Remote::interrupt;
const ONCE: Ask = Remote::interrupt_once;

/// How many calls a test makes: what was promised in a release build, fewer where everything is slow.
fn shielded_calls() -> u64 {
    common::rounds("EINTR_SHIELDED", 30_000)
}

/// What was seen in many rounds.
#[derive(Debug, Default)]
struct Seen {
    calls: u64,
    /// By the call and what it said.
    broken: BTreeMap<String, u64>,
    /// Rounds in which something was asked by the time that the shield was lowered.
    kept: u64,
}

impl Seen {
    /// None was broken, and most could have been.
    #[track_caller]
    fn judge(&self, what: &str, sent: [u64; 2]) {
        println!(
            "{what}: {} calls, {} with something kept; sent {}, not sent {}",
            self.calls, self.kept, sent[0], sent[1]
        );
        assert!(
            self.broken.is_empty(),
            "{what}: of {} calls under a shield these were broken: {:?}",
            self.calls,
            self.broken
        );
        // How often the senders have their turn is the scheduler's to say.
        assert!(
            self.kept * 500 > self.calls && sent[0] * 500 > self.calls,
            "{what}: nothing went on: {self:?}, {sent:?}"
        );
    }
}

/// One call of `calls` under a shield each. Between two shields the interrupts act, and the next shield is raised at any instant of what they do.
fn call_by_call(scope: &Scope, calls: &[(&str, Short)], count: u64) -> Seen {
    let mut seen = Seen::default();
    for n in 0..count {
        let shield = eintr::shield();
        let (name, call) = calls[n as usize % calls.len()];
        if let Err(what) = call() {
            *seen.broken.entry(format!("{name}: {what}")).or_default() += 1;
        }
        let kept = scope.interrupted().is_some();
        drop(shield);
        seen.calls += 1;
        seen.kept += u64::from(kept);
        assert!(!kept || scope.interrupted().is_some(), "what was kept is there when the shield is lowered");
        let turn = n / calls.len() as u64;
        assert!(turn.is_multiple_of(4) || !kept || eintr::check().is_err(), "and acts");
        if turn % 4 > 1 {
            scope.clear();
        }
        until_the_next(scope, turn);
    }
    seen
}

/// Until somebody asks (he stands in the gate then, and has not sent yet), or for a while more.
fn until_the_next(scope: &Scope, turn: u64) {
    let asked = || scope.interrupted().is_some();
    let mut left = 2000 + turn * 7 % 50;
    while left > 0 {
        std::hint::spin_loop();
        left = if asked() && left > 50 { turn * 7 % 50 } else { left - 1 };
    }
}

fn storm_of(calls: &[(&str, Short)], what: &str, ask: Ask) {
    let _t = common::begin();
    let before = State::now();
    for sig in kinds() {
        // As often as it goes, so that a timer that was not stopped is seen.
        let pause = Duration::from_micros(20);
        let scope = ScopeOptions::new(sig).resend(Resend::Backoff { first: pause, ceiling: pause }).enter().unwrap();
        let (seen, sent) =
            beside_two_senders(&[scope.remote()], ask, || call_by_call(&scope, calls, shielded_calls() / 2));
        drop(scope);
        seen.judge(&format!("{what}, signal {sig}"), sent);
    }
    assert_eq!(State::now(), before);
}

// Without holding the gate, without waiting for senders inside, without the barrier, or with the timer left running, some see EINTR.
#[test]
fn plain_calls_under_a_shield_see_no_eintr() {
    storm_of(&PLAIN, "plain calls", RESENT);
}

// One that is sent once is not in anybody's hands any more when its sender has left the gate: only the barrier takes it.
#[test]
fn plain_calls_under_a_shield_see_none_of_those_that_are_sent_once() {
    storm_of(&PLAIN, "plain calls, sent once", ONCE);
}

#[test]
fn calls_of_the_crate_under_a_shield_are_not_interrupted() {
    storm_of(&OWN, "calls of the crate", RESENT);
}
