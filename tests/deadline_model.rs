//! Deadlines, scopes and shields made, moved, forgotten and dropped at random, against a model that knows of each between which two instants its time
//! lies: who is told, who has expired, what sleeps on and what is ended.
//!
//! `EINTR_DEADLINE_PROGRAMS` says how many programs are run; each is as long as its seed says, which is printed if it fails.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks)] // as in tests/common

mod common;
#[path = "common/counting.rs"]
mod counting;
#[path = "common/deadlines.rs"]
mod deadlines;

use common::{Random, State};
use counting::{real_time, undisturbed};
use deadlines::{spin_until, told, us};
use eintr::{Deadline, Interrupted, Reason, Resend, Scope, ScopeOptions, Shield};
use std::time::{Duration, Instant};

/// When a deadline is to act: not before `from`, and by the clock at `to`. `None`: never.
type Span = Option<(Instant, Instant)>;

/// One deadline, as the model has it.
struct Entry {
    /// `None`: it was forgotten.
    guard: Option<Deadline<'static>>,
    span: Span,
    order: u64,
    /// It has been acknowledged, for certain.
    seen: bool,
}

struct Level {
    scope: &'static Scope,
    entries: Vec<Entry>,
    order: u64,
    /// Asked by a remote; and whether nobody has acknowledged it.
    asked: Option<bool>,
}

impl Entry {
    /// It may have passed by then.
    fn may(&self, now: Instant) -> bool {
        self.span.is_some_and(|(from, _)| from <= now)
    }
    /// It has.
    fn must(&self, now: Instant) -> bool {
        self.span.is_some_and(|(_, to)| to <= now)
    }
}

#[derive(Default)]
struct World {
    /// Outermost first.
    levels: Vec<Level>,
    shields: Vec<(u64, Shield)>,
    orders: u64,
}

impl World {
    fn next_order(&mut self) -> u64 {
        self.orders += 1;
        self.orders
    }

    fn shielded(&self, order: u64) -> bool {
        self.shields.iter().any(|(shield, _)| *shield > order)
    }

    fn enter(&mut self, random: &mut Random) {
        let sig = [libc::SIGUSR1, libc::SIGUSR1, libc::SIGUSR2, real_time()][random.below(4) as usize];
        let resend = if random.chance(4) { Resend::Never } else { Resend::default() };
        let (order, own) = (self.next_order(), self.next_order());
        let options = ScopeOptions::new(sig).resend(resend);
        let (options, length) = match random.chance(4) {
            true => {
                let length = us(random.below(2000));
                (options.timeout(length), Some(length))
            }
            false => (options, None),
        };
        let from = Instant::now();
        let scope = options.enter().expect("entered");
        let to = Instant::now();
        let entry = |length| Entry { guard: None, span: Some((from + length, to + length)), order: own, seen: false };
        let scope = Box::leak(Box::new(scope));
        self.levels.push(Level { scope, entries: length.into_iter().map(entry).collect(), order, asked: None });
    }

    /// Its guards are forgotten, or dropped before it.
    fn leave(&mut self, random: &mut Random) {
        let level = self.levels.remove(random.below(self.levels.len() as u64) as usize);
        for guard in level.entries.into_iter().filter_map(|entry| entry.guard) {
            if random.chance(2) {
                drop(guard);
            } else {
                std::mem::forget(guard);
            }
        }
        // Made by Box::leak in `enter`; no guard of it is left.
        drop(unsafe { Box::from_raw(std::ptr::from_ref(level.scope).cast_mut()) });
    }

    fn make(&mut self, random: &mut Random) {
        let order = self.next_order();
        let Some(level) = pick(&mut self.levels, random) else { return };
        let (guard, span) = match random.below(8) {
            0 => (level.scope.timeout(Duration::MAX), None),
            1 => (level.scope.timeout(Duration::ZERO), Some((Instant::now(), Instant::now()))),
            n => {
                let at = soon(random);
                let before = Instant::now();
                let left = at.saturating_duration_since(before);
                let by_length = n % 2 == 0;
                let guard = if by_length { level.scope.timeout(left) } else { level.scope.deadline(at) };
                (guard, Some(span_of(at, before)))
            }
        };
        level.entries.push(Entry { guard: Some(guard.expect("there is room for a timer")), span, order, seen: false });
    }

    fn end(&mut self, random: &mut Random) {
        let Some(level) = pick(&mut self.levels, random) else { return };
        if level.entries.is_empty() {
            return;
        }
        let which = random.below(level.entries.len() as u64) as usize;
        match level.entries[which].guard.take() {
            Some(guard) if random.chance(8) => std::mem::forget(guard),
            Some(_) => drop(level.entries.remove(which)),
            None => {}
        }
    }

    fn reset(&mut self, random: &mut Random) {
        let Some(level) = pick(&mut self.levels, random) else { return };
        let Some(entry) = pick(&mut level.entries, random) else { return };
        let Some(guard) = &entry.guard else { return };
        let (at, before) = (soon(random), Instant::now());
        guard.reset(at);
        (entry.span, entry.seen) = (Some(span_of(at, before)), false);
    }

    /// Every look that there is.
    fn look(&mut self) {
        for level in &self.levels {
            for entry in &level.entries {
                let Some(guard) = &entry.guard else { continue };
                let before = Instant::now();
                let expired = guard.expired();
                let after = Instant::now();
                assert!(!expired || entry.may(after), "expired before its time: {guard:?}");
                assert!(expired || !entry.must(before), "not expired: {guard:?}");
            }
            let before = Instant::now();
            let found = level.scope.interrupted().map(Interrupted::reason);
            let after = Instant::now();
            let may = level.entries.iter().any(|entry| entry.may(after));
            let must = level.entries.iter().any(|entry| entry.must(before));
            match found {
                Some(Reason::Remote) => assert!(level.asked.is_some()),
                Some(reason) => assert!(level.asked.is_none() && may, "{reason:?}"),
                None => assert!(level.asked.is_none() && !must, "a deadline has passed unseen"),
            }
        }
        self.check();
    }

    /// `check` tells one of the reasons that it may tell.
    fn check(&mut self) {
        let before = Instant::now();
        let told = told();
        let after = Instant::now();
        let mut answers = Vec::new();
        for level in &self.levels {
            if level.asked.is_some() && !self.shielded(level.order) {
                answers.push(Some(Reason::Remote));
                break;
            }
            let open = |entry: &&Entry| !self.shielded(entry.order);
            if level.entries.iter().filter(open).any(|entry| entry.may(after)) {
                answers.push(Some(Reason::Deadline));
            }
            if level.entries.iter().filter(open).any(|entry| entry.must(before)) {
                break;
            }
        }
        let certain = self.levels.iter().any(|level| {
            level.asked.is_some() && !self.shielded(level.order)
                || level.entries.iter().any(|entry| entry.must(before) && !self.shielded(entry.order))
        });
        if !certain {
            answers.push(None);
        }
        assert!(answers.contains(&told), "told {told:?}, which is none of {answers:?}");
        if told.is_some() {
            self.acknowledged(before);
        }
    }

    /// What had passed by then, and was not shielded, is acknowledged.
    fn acknowledged(&mut self, before: Instant) {
        let shields: Vec<_> = self.shields.iter().map(|(order, _)| *order).collect();
        let shielded = |order: u64| shields.iter().any(|shield| *shield > order);
        for level in &mut self.levels {
            if level.asked.is_some() && !shielded(level.order) {
                level.asked = Some(true);
            }
            for entry in level.entries.iter_mut().filter(|entry| entry.must(before) && !shielded(entry.order)) {
                entry.seen = true;
            }
        }
    }

    /// Whether something may come by then that nobody has acknowledged.
    fn may_be_disturbed(&self, by: Instant) -> bool {
        self.levels.iter().any(|level| {
            level.asked == Some(false) && !self.shielded(level.order)
                || level.entries.iter().any(|entry| entry.may(by) && !entry.seen && !self.shielded(entry.order))
        })
    }

    /// A plain call is left alone unless there is a reason.
    fn plain_call(&self, random: &mut Random) {
        let undisturbed = undisturbed(us(random.below(300)));
        assert!(undisturbed || self.may_be_disturbed(Instant::now()), "a signal without a reason");
    }

    /// A sleep without end is ended where something is to come, and not before that.
    fn sleep(&mut self, random: &mut Random) {
        let asked = self.levels.iter().any(|level| level.asked.is_some() && !self.shielded(level.order));
        let open = self.levels.iter().flat_map(|level| &level.entries).filter(|entry| !self.shielded(entry.order));
        let first = open.filter_map(|entry| entry.span).map(|(from, _)| from).min();
        let endless = asked || first.is_some();
        let length = if endless { Duration::MAX } else { us(random.below(200)) };
        let before = Instant::now();
        match eintr::sleep(length) {
            Ok(()) => assert!(!endless),
            Err(_) => {
                assert!(asked || first.is_some_and(|first| first <= Instant::now()), "ended before the time");
                self.acknowledged(before);
            }
        }
    }

    fn ask(&mut self, random: &mut Random) {
        let Some(level) = pick(&mut self.levels, random) else { return };
        if random.chance(2) {
            level.scope.remote().interrupt();
            level.asked = Some(false);
        } else {
            let taken = level.scope.clear().map(Interrupted::reason);
            assert_eq!(taken, level.asked.take().map(|_| Reason::Remote), "clear takes the remote's alone");
        }
    }

    fn shield(&mut self, random: &mut Random) {
        if self.shields.is_empty() || random.chance(2) {
            let order = self.next_order();
            self.shields.push((order, eintr::shield()));
        } else {
            drop(self.shields.remove(random.below(self.shields.len() as u64) as usize));
        }
    }
}

fn pick<'a, T>(of: &'a mut [T], random: &mut Random) -> Option<&'a mut T> {
    let n = of.len().max(1) as u64;
    of.get_mut(random.below(n) as usize)
}

/// A little while ago, or in a while.
fn soon(random: &mut Random) -> Instant {
    Instant::now() + us(random.below(900)) - us(150)
}

/// An instant is turned into the kernel's time at some point of the call that takes it: later by that at most, and what has passed is now.
fn span_of(at: Instant, before: Instant) -> (Instant, Instant) {
    let after = Instant::now();
    (at.max(before), at.max(before) + (after - before))
}

fn run(seed: u64) {
    let random = &mut Random::seeded(seed);
    let before = State::now();
    let mut world = World::default();
    world.enter(random);
    for _ in 0..20 + random.below(60) {
        match random.below(16) {
            0 if world.levels.len() < 4 => world.enter(random),
            1 if world.levels.len() > 1 => world.leave(random),
            0..=4 => world.make(random),
            5..=7 => world.end(random),
            8..=10 => world.reset(random),
            11 => world.ask(random),
            12 => world.shield(random),
            13 => world.plain_call(random),
            14 => world.sleep(random),
            _ => spin_until(Instant::now() + us(random.below(400))),
        }
        world.look();
    }
    while !world.levels.is_empty() {
        world.leave(random);
        world.look();
    }
    drop(world);
    assert_eq!((told(), State::now()), (None, before));
}

#[test]
fn random_programs_of_deadlines_scopes_and_shields_do_what_the_model_says() {
    let _t = common::begin();
    let mut seeds = Random::new();
    for n in 0..common::rounds("EINTR_DEADLINE_PROGRAMS", 300) {
        let seed = seeds.next();
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            eprintln!("program {n}, of seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
