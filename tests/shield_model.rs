//! Scopes, deadlines and shields made and ended in any order, on two numbers, against a model of a few lines: what is over what, what acts, who is told why,
//! what a look sees. EINTR_SEED repeats a run, EINTR_PROGRAMS says how many.
// Scopes are dropped in any order, before or after what borrows from them was forgotten; masks are set by bare calls.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/counting.rs"]
mod counting;

use common::{Random, State};
use counting::{kinds, undisturbed};
use eintr::{Deadline, Delivery, Error, Interrupted, Reason, Remote, Scope, Shield, Status, Ticket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

const HOUR: Duration = Duration::from_secs(3600);

/// A scope, and what the model knows of it.
struct Scoped {
    scope: &'static Scope,
    made: u64,
    asked: Asked,
    limits: Vec<Limit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    No,
    Unseen,
    Seen,
}

struct Limit {
    guard: Deadline<'static>,
    made: u64,
    due: Asked,
}

struct World {
    random: Random,
    /// Orders the making of everything.
    count: u64,
    /// Outermost first.
    scopes: Vec<Scoped>,
    shields: Vec<(Option<Shield>, u64)>,
    pipe: (OwnedFd, OwnedFd),
    /// What was done, for who must find out why.
    story: Vec<String>,
}

impl World {
    fn next(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    /// A shield made later is up.
    fn is_shielded(&self, made: u64) -> bool {
        self.shields.iter().any(|(_, raised)| *raised > made)
    }

    /// What acts, in the order in which it is told.
    fn acting(&self) -> impl Iterator<Item = (Reason, Asked)> {
        self.scopes.iter().flat_map(|scoped| {
            let asked = (!self.is_shielded(scoped.made)).then_some((Reason::Remote, scoped.asked));
            let open = scoped.limits.iter().filter(|limit| !self.is_shielded(limit.made));
            asked
                .into_iter()
                .chain(open.map(|limit| (Reason::Deadline, limit.due)))
                .filter(|(_, asked)| *asked != Asked::No)
        })
    }

    fn expected(&self) -> Result<(), Reason> {
        self.acting().next().map_or(Ok(()), |(reason, _)| Err(reason))
    }

    /// Everything that acts was acknowledged.
    fn acknowledge(&mut self) {
        let newest = self.shields.iter().map(|(_, raised)| *raised).max().unwrap_or(0);
        for scoped in &mut self.scopes {
            for limit in &mut scoped.limits {
                see(&mut limit.due, limit.made > newest);
            }
            see(&mut scoped.asked, scoped.made > newest);
        }
    }

    fn any_scope(&mut self) -> Option<usize> {
        let n = self.scopes.len() as u64;
        (n > 0).then(|| self.random.below(n) as usize)
    }

    fn any_limit(&mut self) -> Option<(usize, usize)> {
        let at = self.any_scope()?;
        let n = self.scopes[at].limits.len() as u64;
        (n > 0).then(|| (at, self.random.below(n) as usize))
    }
}

/// A shield is over all that is older than it, so what is newer than the newest is open.
fn see(asked: &mut Asked, open: bool) {
    if open && *asked == Asked::Unseen {
        *asked = Asked::Seen;
    }
}

type Op = fn(&mut World);

const OPS: [(&str, Op); 15] = [
    ("enter", enter),
    ("enter", enter),
    ("drop a scope", drop_scope),
    ("raise", raise),
    ("raise", raise),
    ("lower", lower),
    ("lower", lower),
    ("interrupt", interrupt),
    ("interrupt", interrupt),
    ("clear", clear),
    ("check", check),
    ("read", read),
    ("a deadline", make_limit),
    ("change a deadline", change_limit),
    ("block or open", toggle),
];

fn enter(world: &mut World) {
    if world.scopes.len() == 5 {
        return;
    }
    let sig = kinds()[world.random.below(2) as usize];
    let (ticket, remote) = Ticket::new();
    let asked = world.random.chance(4);
    assert!(!asked || remote.interrupt() == Delivery::Held);
    let scope = Box::leak(Box::new(ticket.enter(sig).unwrap()));
    let made = world.next();
    world.scopes.push(Scoped { scope, made, asked: if asked { Asked::Unseen } else { Asked::No }, limits: Vec::new() });
}

fn drop_scope(world: &mut World) {
    let Some(at) = world.any_scope() else { return };
    let Scoped { scope, limits, .. } = world.scopes.remove(at);
    if world.random.chance(2) {
        limits.into_iter().for_each(|limit| std::mem::forget(limit.guard)); // they end with it
    } else {
        drop(limits);
    }
    // Made by Box::leak, and nothing that borrows from it is left.
    drop(unsafe { Box::from_raw(std::ptr::from_ref(scope).cast_mut()) });
}

fn raise(world: &mut World) {
    if world.shields.len() < 4 {
        let made = world.next();
        world.shields.push((Some(eintr::shield()), made));
    }
}

fn lower(world: &mut World) {
    if world.shields.is_empty() {
        return;
    }
    let at = world.random.below(world.shields.len() as u64) as usize;
    drop(world.shields.remove(at));
}

fn interrupt(world: &mut World) {
    let Some(at) = world.any_scope() else { return };
    let remote = world.scopes[at].scope.remote();
    let ask = if world.random.chance(2) { Remote::interrupt } else { Remote::interrupt_once };
    let answer = if world.random.chance(2) {
        ask(&remote)
    } else {
        std::thread::scope(|threads| threads.spawn(|| ask(&remote)).join().unwrap())
    };
    let shielded = world.is_shielded(world.scopes[at].made);
    assert!(answer == Delivery::Held || !shielded && answer == Delivery::Sent, "{answer:?}");
    world.scopes[at].asked = Asked::Unseen;
}

fn clear(world: &mut World) {
    let Some(at) = world.any_scope() else { return };
    let scoped = &mut world.scopes[at];
    let taken = scoped.scope.clear().map(Interrupted::reason);
    assert_eq!(taken, (scoped.asked != Asked::No).then_some(Reason::Remote));
    scoped.asked = Asked::No;
}

fn check(world: &mut World) {
    assert_eq!(eintr::check().map_err(Interrupted::reason), world.expected());
    world.acknowledge();
}

fn read(world: &mut World) {
    assert_eq!(nix::unistd::write(&world.pipe.1, b"!"), Ok(1));
    match eintr::sys::read(&world.pipe.0, &mut [0; 8]) {
        Err(Error::Interrupted(interrupted)) => {
            assert_eq!(Err(interrupted.reason()), world.expected());
            assert_eq!(common::plain_read(&world.pipe.0), Ok(1), "nothing is lost");
        }
        answer => assert_eq!((answer, world.expected()), (Ok(1), Ok(()))),
    }
    world.acknowledge();
}

fn make_limit(world: &mut World) {
    let Some(at) = world.any_scope().filter(|at| world.scopes[*at].limits.len() < 3) else { return };
    let passed = world.random.chance(2);
    let guard = world.scopes[at].scope.timeout(if passed { Duration::ZERO } else { HOUR }).unwrap();
    let made = world.next();
    world.scopes[at].limits.push(Limit { guard, made, due: if passed { Asked::Unseen } else { Asked::No } });
}

fn change_limit(world: &mut World) {
    let Some((at, n)) = world.any_limit() else { return };
    let (how, limits) = (world.random.below(3), &mut world.scopes[at].limits);
    if how == 0 {
        drop(limits.remove(n));
        return;
    }
    limits[n].guard.reset(if how == 1 { Instant::now() } else { Instant::now() + HOUR });
    limits[n].due = if how == 1 { Asked::Unseen } else { Asked::No };
}

fn toggle(world: &mut World) {
    let sig = kinds()[world.random.below(2) as usize];
    let blocked = common::mask() & common::bit(sig) != 0;
    if blocked {
        common::unblock(sig)
    } else {
        common::block(sig)
    };
}

/// What every look must see, and plain calls.
fn look(world: &World) {
    for scoped in &world.scopes {
        let due = scoped.limits.iter().any(|limit| limit.due != Asked::No);
        let asked = (scoped.asked != Asked::No).then_some(Reason::Remote);
        let wanted = asked.or(due.then_some(Reason::Deadline));
        assert_eq!(scoped.scope.interrupted().map(Interrupted::reason), wanted);
        let known = if scoped.asked == Asked::Unseen { Status::StillRunning } else { Status::Acknowledged };
        assert_eq!(scoped.scope.remote().wait(Duration::ZERO), known);
        scoped.limits.iter().for_each(|limit| assert_eq!(limit.guard.expired(), limit.due != Asked::No));
    }
    let open = world.scopes.iter().any(|scoped| !world.is_shielded(scoped.made));
    assert_eq!(eintr::is_interruptible(), open);
    if !world.acting().any(|(_, asked)| asked == Asked::Unseen) {
        assert!(undisturbed(Duration::from_micros(1)), "a plain call is left alone");
    }
}

fn run(world: &mut World, steps: u64) {
    for _ in 0..steps {
        let (name, op) = OPS[world.random.below(OPS.len() as u64) as usize];
        world.story.push(format!("{name}: {} scopes, {} shields", world.scopes.len(), world.shields.len()));
        op(world);
        look(world);
    }
    // The end, in any order.
    while !world.scopes.is_empty() || !world.shields.is_empty() {
        if world.random.chance(2) {
            drop_scope(world)
        } else {
            lower(world)
        }
        look(world);
    }
}

#[test]
fn in_any_order_what_is_older_than_a_shield_waits_and_what_is_newer_acts() {
    let _t = common::begin();
    let mut seeds = Random::new();
    for program in 0..common::rounds("EINTR_PROGRAMS", 1500) {
        let before = State::now();
        let seed = seeds.next();
        let mut world = World {
            random: Random::seeded(seed),
            count: 0,
            scopes: Vec::new(),
            shields: Vec::new(),
            pipe: common::pipe(),
            story: Vec::new(),
        };
        let body = std::panic::AssertUnwindSafe(|| run(&mut world, 50));
        if let Err(panic) = std::panic::catch_unwind(body) {
            eprintln!("program {program}: {}", world.story.join("\n"));
            std::panic::resume_unwind(panic);
        }
        kinds().into_iter().for_each(|sig| _ = common::unblock(sig));
        assert_eq!(State::now(), before, "program {program}: {}", world.story.join("\n"));
    }
}
