//! Random programs against a model: scopes entered, nested, dropped out of order, by panics and by the end of a thread, among interrupts and other
//! people's signals; every answer is the model's, every foreign signal is accounted for, and the state afterwards is the state before.
//!
//! EINTR_PROGRAMS sets how many; with EINTR_SHOW each one is printed before it runs, for programs that end the process.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)] // as in tests/common

mod common;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::Duration;

use common::State;
use eintr::{Delivery, Foreign, Reason, Remote, Scope, ScopeOptions, Status, Ticket};
use nix::errno::Errno;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

/// The numbers that scopes are entered on, by what the thread is like before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Number {
    /// A standard one, open, a counting handler behind.
    Standard,
    /// The same, blocked.
    StandardBlocked,
    /// A real-time one, open, a counting handler behind.
    RealTime,
    /// The same, blocked.
    RealTimeBlocked,
    /// A real-time one, open, SIG_DFL behind: one of ours that gets there ends the process. Nobody else sends it.
    Deadly,
}
use Number::*;

const NUMBERS: [Number; 5] = [Standard, StandardBlocked, RealTime, RealTimeBlocked, Deadly];

impl Number {
    fn raw(self) -> i32 {
        match self {
            Standard => libc::SIGUSR1,
            StandardBlocked => libc::SIGUSR2,
            RealTime => libc::SIGRTMIN() + 3,
            RealTimeBlocked => libc::SIGRTMIN() + 4,
            Deadly => libc::SIGRTMIN() + 5,
        }
    }
    fn is_standard(self) -> bool {
        matches!(self, Standard | StandardBlocked)
    }
    fn begins_blocked(self) -> bool {
        matches!(self, StandardBlocked | RealTimeBlocked)
    }
    fn has_handler(self) -> bool {
        self != Deadly
    }
}

/// Which policy a scope gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pick {
    Chain,
    /// The one that the program gives to the number.
    Own,
    Ignore,
}

#[derive(Clone, Copy, Debug)]
enum By {
    /// The scoped thread itself.
    Itself,
    /// Another thread.
    Another,
    /// A signal handler of the scoped thread.
    Handler,
    /// The drop of a `DropGuard`.
    Guard,
}

#[derive(Clone, Copy, Debug)]
enum How {
    Raise,
    PthreadKill,
    Kill,
    Sigqueue,
}

/// Places (`u8`) are taken modulo what there is.
#[derive(Clone, Debug)]
enum Op {
    Enter {
        number: Number,
        policy: Pick,
    },
    /// Something that is refused, with a ticket or without.
    EnterRefused {
        ticket: bool,
    },
    MakeTicket,
    EnterTicket {
        ticket: u8,
        number: Number,
        policy: Pick,
    },
    DropTicket {
        ticket: u8,
    },
    Interrupt {
        remote: u8,
        by: By,
    },
    Signal {
        number: Number,
        how: How,
    },
    Block {
        number: Number,
    },
    Unblock {
        number: Number,
    },
    Clear {
        scope: u8,
    },
    Check,
    Look {
        scope: u8,
    },
    Retry {
        eintrs: u8,
    },
    Wait {
        remote: u8,
    },
    Drop {
        scope: u8,
        leave: bool,
    },
    /// A block of its own, whose scopes end with it: by return or by panic.
    Within {
        ops: Vec<Op>,
        panics: bool,
    },
}

#[derive(Clone, Debug)]
struct Program {
    ops: Vec<Op>,
    /// The policy of each number, for scopes that do not chain.
    policies: BTreeMap<Number, Foreign>,
    /// Another thread has a scope on this number all the while, and has the number blocked.
    companion: Option<Number>,
    /// Scopes still live at the end are leaked, and the thread ends.
    leaks: bool,
}

fn number() -> impl Strategy<Value = Number> {
    prop::sample::select(NUMBERS.to_vec())
}

fn op() -> impl Strategy<Value = Op> {
    let by = prop_oneof![3 => Just(By::Itself), 2 => Just(By::Another), 1 => Just(By::Handler), 1 => Just(By::Guard)];
    let how = prop_oneof![Just(How::Raise), Just(How::PthreadKill), Just(How::Kill), Just(How::Sigqueue)];
    let pick = || prop_oneof![3 => Just(Pick::Chain), 5 => Just(Pick::Own), 1 => Just(Pick::Ignore)];
    let enter = || (number(), pick());
    let simple = prop_oneof![
        6 => enter().prop_map(|(number, policy)| Op::Enter { number, policy }),
        1 => any::<bool>().prop_map(|ticket| Op::EnterRefused { ticket }),
        1 => Just(Op::MakeTicket),
        2 => (any::<u8>(), enter()).prop_map(|(ticket, (number, policy))| Op::EnterTicket { ticket, number, policy }),
        1 => any::<u8>().prop_map(|ticket| Op::DropTicket { ticket }),
        8 => (any::<u8>(), by).prop_map(|(remote, by)| Op::Interrupt { remote, by }),
        7 => (number(), how).prop_map(|(number, how)| Op::Signal { number, how }),
        2 => number().prop_map(|number| Op::Block { number }),
        2 => number().prop_map(|number| Op::Unblock { number }),
        2 => any::<u8>().prop_map(|scope| Op::Clear { scope }),
        2 => Just(Op::Check),
        2 => any::<u8>().prop_map(|scope| Op::Look { scope }),
        1 => (0..3u8).prop_map(|eintrs| Op::Retry { eintrs }),
        1 => any::<u8>().prop_map(|remote| Op::Wait { remote }),
        5 => (any::<u8>(), any::<bool>()).prop_map(|(scope, leave)| Op::Drop { scope, leave }),
    ];
    simple.prop_recursive(2, 24, 8, |op| {
        (prop::collection::vec(op, 1..8), any::<bool>()).prop_map(|(ops, panics)| Op::Within { ops, panics })
    })
}

fn program() -> impl Strategy<Value = Program> {
    let policy = prop_oneof![
        2 => Just(Foreign::Chain),
        1 => Just(Foreign::Ignore),
        1 => Just(Foreign::Interrupt),
        1 => Just(Foreign::InterruptAndChain),
        1 => Just(Foreign::InterruptOnce),
    ];
    let policies = prop::collection::vec(policy, NUMBERS.len())
        .prop_map(|all| NUMBERS.into_iter().zip(all).collect::<BTreeMap<_, _>>());
    let companion = prop::option::weighted(0.3, number());
    (prop::collection::vec(op(), 1..40), policies, companion, prop::bool::weighted(0.25))
        .prop_map(|(ops, policies, companion, leaks)| Program { ops, policies, companion, leaks })
}

// What the handlers behind count.

static RUNS: [AtomicU64; 65] = [const { AtomicU64::new(0) }; 65];

extern "C" fn count(sig: i32) {
    RUNS[sig as usize].fetch_add(1, SeqCst);
}

/// Interrupts what FROM_HANDLER points to; answers by LAST.
extern "C" fn interrupt_from_handler(_: i32) {
    let (remote, answer) = (FROM_HANDLER.load(SeqCst), ANSWER.load(SeqCst));
    unsafe { *answer = Some((*remote).interrupt_once()) };
}
static FROM_HANDLER: AtomicPtr<Remote> = AtomicPtr::new(std::ptr::null_mut());
static ANSWER: AtomicPtr<Option<Delivery>> = AtomicPtr::new(std::ptr::null_mut());

// The model.

/// A queue of foreign signals of one number. Standard ones have one place for the thread and one for the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Queue {
    thread: u64,
    process: u64,
}

impl Queue {
    fn add(&mut self, number: Number, other: Queue) {
        let most = if number.is_standard() { 1 } else { u64::MAX };
        self.thread = (self.thread + other.thread).min(most);
        self.process = (self.process + other.process).min(most);
    }
}

#[derive(Debug, Default)]
struct ModelLane {
    scopes: usize,
    was_blocked: bool,
    /// The number is blocked in the thread's mask.
    blocked: bool,
    /// A signal of ours is on its way as far as its senders know.
    in_flight: bool,
    /// A signal of ours lies in the thread's queue.
    ours_queued: bool,
    /// Foreign ones in the kernel's queues.
    queued: Queue,
    /// Foreign ones kept for later, because the number had been blocked.
    held: Queue,
    /// Runs of the handler behind.
    runs: u64,
}

#[derive(Debug)]
struct ModelScope {
    id: usize,
    number: Number,
    policy: Foreign,
    by_remote: bool,
    by_signal: bool,
    seen: bool,
}

impl ModelScope {
    fn is_asked(&self) -> bool {
        self.by_remote || self.by_signal
    }
    fn reason(&self) -> Option<Reason> {
        self.is_asked().then_some(if self.by_remote { Reason::Remote } else { Reason::Signal })
    }
}

#[derive(Debug, Default)]
struct Model {
    lanes: BTreeMap<Number, ModelLane>,
    /// Outermost first.
    scopes: Vec<ModelScope>,
    /// Tickets not entered, and whether they were interrupted.
    tickets: BTreeMap<usize, bool>,
}

impl Model {
    fn new() -> Model {
        let lane = |n: Number| ModelLane { blocked: n.begins_blocked(), ..ModelLane::default() };
        Model { lanes: NUMBERS.into_iter().map(|n| (n, lane(n))).collect(), ..Model::default() }
    }

    fn lane(&mut self, number: Number) -> &mut ModelLane {
        self.lanes.get_mut(&number).unwrap()
    }

    fn scope(&mut self, id: usize) -> Option<&mut ModelScope> {
        self.scopes.iter_mut().find(|s| s.id == id)
    }

    fn enter(&mut self, id: usize, number: Number, policy: Foreign, asked: bool) {
        let lane = self.lane(number);
        lane.scopes += 1;
        if lane.scopes == 1 {
            lane.was_blocked = lane.blocked;
            lane.blocked = false;
            lane.in_flight = false;
            let pending = std::mem::take(&mut lane.queued);
            lane.held.add(number, pending); // only a blocked number has some
        }
        self.scopes.push(ModelScope { id, number, policy, by_remote: asked, by_signal: false, seen: false });
    }

    fn leave(&mut self, id: usize) {
        let at = self.scopes.iter().position(|s| s.id == id).expect("it lives");
        let number = self.scopes.remove(at).number;
        let lane = self.lane(number);
        lane.scopes -= 1;
        if lane.scopes == 0 {
            lane.ours_queued = false;
            lane.in_flight = false;
            if lane.was_blocked {
                lane.blocked = true;
                let held = std::mem::take(&mut lane.held);
                lane.queued.add(number, held);
                lane.was_blocked = false;
            } else {
                lane.blocked = false;
                self.deliver(number);
            }
        }
    }

    /// What the kernel has queued for an open number arrives.
    fn deliver(&mut self, number: Number) {
        let lane = self.lane(number);
        assert!(!lane.blocked);
        lane.ours_queued = false;
        lane.in_flight = false;
        let queued = std::mem::take(&mut lane.queued);
        for _ in 0..queued.thread {
            self.arrive(number, Queue { thread: 1, process: 0 });
        }
        for _ in 0..queued.process {
            self.arrive(number, Queue { thread: 0, process: 1 });
        }
    }

    /// One foreign signal, with the number open. The innermost scope decides, those that chain looked through; an `Interrupt` policy counts for
    /// every scope entered so, but for those that one further in ignores for.
    fn arrive(&mut self, number: Number, one: Queue) {
        let mut on_lane: Vec<_> = self.scopes.iter_mut().filter(|s| s.number == number).collect();
        let ignoring = on_lane.iter().rposition(|s| s.policy == Foreign::Ignore);
        let counting = &mut on_lane[ignoring.map_or(0, |at| at + 1)..];
        let decides = counting.iter().map(|s| s.policy).rfind(|p| *p != Foreign::Chain);
        let refused = counting.iter().any(|s| s.policy == Foreign::InterruptOnce && s.by_signal);
        for scope in counting {
            let takes = match scope.policy {
                Foreign::Interrupt | Foreign::InterruptAndChain => true,
                Foreign::InterruptOnce => !scope.by_signal,
                _ => false,
            };
            if takes {
                (scope.by_signal, scope.seen) = (true, false);
            }
        }
        let chains = match decides {
            None => ignoring.is_none(),
            Some(Foreign::InterruptAndChain) => true,
            Some(Foreign::InterruptOnce) => refused,
            Some(_) => false,
        };
        let lane = self.lane(number);
        if !chains {
            return;
        }
        if lane.was_blocked {
            lane.held.add(number, one);
        } else {
            lane.runs += 1;
        }
    }

    /// One foreign signal is sent. Returns how, since the kernel merges a thread's standard signal into ours if that lies there.
    fn signal(&mut self, number: Number, how: How) -> How {
        let lane = self.lane(number);
        let merges = number.is_standard() && lane.ours_queued;
        let how = if merges && matches!(how, How::Raise | How::PthreadKill) { How::Kill } else { how };
        let one = match how {
            How::Raise | How::PthreadKill => Queue { thread: 1, process: 0 },
            How::Kill | How::Sigqueue => Queue { thread: 0, process: 1 },
        };
        lane.queued.add(number, one);
        if !lane.blocked {
            self.deliver(number);
        }
        how
    }

    fn interrupt(&mut self, id: usize) -> Delivery {
        if let Some(asked) = self.tickets.get_mut(&id) {
            *asked = true;
            return Delivery::Held;
        }
        let Some(scope) = self.scope(id) else { return Delivery::Gone };
        (scope.by_remote, scope.seen) = (true, false);
        let number = scope.number;
        let lane = self.lane(number);
        let answer = if lane.in_flight { Delivery::Held } else { Delivery::Sent };
        lane.in_flight = lane.blocked;
        lane.ours_queued |= lane.blocked && answer == Delivery::Sent;
        answer
    }

    /// Why the thread is interrupted.
    fn reason(&self) -> Option<Reason> {
        self.scopes.iter().find_map(ModelScope::reason)
    }

    fn acknowledge(&mut self) {
        self.scopes.iter_mut().filter(|s| s.is_asked()).for_each(|s| s.seen = true);
        self.lanes.values_mut().for_each(|lane| lane.in_flight = false);
    }

    fn clear(&mut self, id: usize) -> Option<Reason> {
        let scope = self.scope(id)?;
        let reason = scope.reason();
        (scope.by_remote, scope.by_signal, scope.seen) = (false, false, false);
        let number = scope.number;
        self.lane(number).in_flight = false;
        reason
    }

    fn wait(&mut self, id: usize) -> Status {
        let is_asked = match self.tickets.get(&id) {
            Some(asked) => *asked,
            None => match self.scope(id) {
                Some(scope) => scope.is_asked() && !scope.seen,
                None => return Status::Closed,
            },
        };
        if is_asked { Status::StillRunning } else { Status::Acknowledged }
    }
}

// The real thing, in step with it.

/// The scopes of one block: dropped, first to last, where the block ends.
type Scopes = Rc<RefCell<Vec<(usize, Scope)>>>;

struct Block(Scopes);

impl Drop for Block {
    fn drop(&mut self) {
        while !self.0.borrow().is_empty() {
            let first = self.0.borrow_mut().remove(0);
            drop(first);
        }
    }
}

/// The payload of the panics that a program asks for.
struct Planned;

struct World<'a> {
    program: &'a Program,
    model: Model,
    blocks: Vec<Scopes>,
    tickets: Vec<(usize, Ticket)>,
    remotes: Vec<(usize, Remote)>,
    ids: usize,
    interrupter: &'a Interrupter,
}

/// A thread that interrupts on demand and never gets a signal itself.
struct Interrupter {
    ask: mpsc::Sender<(Remote, mpsc::Sender<Delivery>)>,
}

impl Interrupter {
    fn new() -> Interrupter {
        let (ask, asked) = mpsc::channel::<(Remote, mpsc::Sender<Delivery>)>();
        common::unsignalled(move || {
            for (remote, answer) in asked {
                let _ = answer.send(remote.interrupt());
            }
        });
        Interrupter { ask }
    }

    fn interrupt(&self, remote: &Remote) -> Delivery {
        let (answer, answered) = mpsc::channel();
        self.ask.send((remote.clone(), answer)).unwrap();
        answered.recv().unwrap()
    }
}

fn options(number: Number, policy: Foreign) -> ScopeOptions {
    let options = ScopeOptions::new(number.raw());
    if policy == Foreign::Chain { options } else { options.foreign(policy) }
}

/// Comes back when every open signal that was sent to this thread before has been delivered.
fn flush() {
    common::mask();
}

impl World<'_> {
    fn id(&mut self) -> usize {
        self.ids += 1;
        self.ids
    }

    /// A number that was blocked belongs to somebody's sigwait: what `Ignore` and the two that also chain do to that is left out here.
    fn policy(&self, number: Number, pick: Pick) -> Foreign {
        let lane = &self.model.lanes[&number];
        let was_blocked = if lane.scopes > 0 { lane.was_blocked } else { lane.blocked };
        let policy = match pick {
            Pick::Chain => Foreign::Chain,
            Pick::Own => self.program.policies[&number],
            Pick::Ignore => Foreign::Ignore,
        };
        if was_blocked && policy != Foreign::Interrupt { Foreign::Chain } else { policy }
    }

    fn entered(&mut self, id: usize, scope: Scope, number: Number, policy: Foreign, asked: bool) {
        assert_eq!(scope.signal().as_raw(), number.raw());
        self.remotes.push((id, scope.remote()));
        self.blocks.last().unwrap().borrow_mut().push((id, scope));
        self.model.enter(id, number, policy, asked);
    }

    /// Where the scope is that this place names: block and index.
    fn find(&self, place: u8) -> Option<(usize, usize)> {
        let all: Vec<_> = self
            .blocks
            .iter()
            .enumerate()
            .flat_map(|(b, scopes)| (0..scopes.borrow().len()).map(move |i| (b, i)))
            .collect();
        (!all.is_empty()).then(|| all[place as usize % all.len()])
    }

    fn with_scope<T>(&self, at: (usize, usize), f: impl FnOnce(usize, &Scope) -> T) -> T {
        let scopes = self.blocks[at.0].borrow();
        let (id, scope) = &scopes[at.1];
        f(*id, scope)
    }

    fn remote(&self, place: u8) -> Option<(usize, Remote)> {
        (!self.remotes.is_empty()).then(|| self.remotes[place as usize % self.remotes.len()].clone())
    }

    fn run(&mut self, ops: &[Op]) {
        for op in ops {
            self.step(op);
            self.compare(op);
        }
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::Enter { number, policy: pick } => {
                let policy = self.policy(*number, *pick);
                let scope = Scope::enter(options(*number, policy)).expect("entered");
                let id = self.id();
                self.entered(id, scope, *number, policy, false);
            }
            Op::EnterRefused { ticket } => {
                let before = State::now();
                if *ticket {
                    let (ticket, remote) = Ticket::new();
                    assert!(ticket.enter(libc::SIGTSTP).is_err());
                    assert!(remote.is_closed());
                } else {
                    assert!(Scope::enter(libc::SIGKILL).is_err());
                }
                assert_eq!(State::now(), before, "a refused enter changes nothing");
            }
            Op::MakeTicket => {
                let (ticket, remote) = Ticket::new();
                let id = self.id();
                self.tickets.push((id, ticket));
                self.remotes.push((id, remote));
                self.model.tickets.insert(id, false);
            }
            Op::EnterTicket { ticket, number, policy: pick } if !self.tickets.is_empty() => {
                let (id, ticket) = self.tickets.remove(*ticket as usize % self.tickets.len());
                let policy = self.policy(*number, *pick);
                let scope = ticket.enter(options(*number, policy)).expect("entered");
                let asked = self.model.tickets.remove(&id).unwrap();
                self.entered(id, scope, *number, policy, asked);
            }
            Op::DropTicket { ticket } if !self.tickets.is_empty() => {
                let (id, ticket) = self.tickets.remove(*ticket as usize % self.tickets.len());
                drop(ticket);
                self.model.tickets.remove(&id);
            }
            Op::Interrupt { remote, by } => {
                if let Some((id, remote)) = self.remote(*remote) {
                    let expected = self.model.interrupt(id);
                    let answer = self.interrupt(remote, *by);
                    assert!(answer.is_none_or(|a| a == expected), "{answer:?}, and the model says {expected:?}");
                }
            }
            Op::Signal { number, how } if number.has_handler() => {
                let how = self.model.signal(*number, *how);
                send(*number, how);
            }
            Op::Block { number } => {
                common::block(number.raw());
                self.model.lane(*number).blocked = true;
            }
            Op::Unblock { number } => {
                common::unblock(number.raw());
                self.model.lane(*number).blocked = false;
                self.model.deliver(*number);
            }
            Op::Clear { scope } => {
                if let Some(at) = self.find(*scope) {
                    let (id, taken) = self.with_scope(at, |id, scope| (id, scope.clear()));
                    assert_eq!(taken.map(|i| i.reason()), self.model.clear(id));
                }
            }
            Op::Check => {
                assert_eq!(eintr::check().err().map(|i| i.reason()), self.model.reason());
                if self.model.reason().is_some() {
                    self.model.acknowledge();
                }
            }
            Op::Look { scope } => {
                if let Some(at) = self.find(*scope) {
                    self.with_scope(at, |id, scope| assert!(format!("{scope:?}").contains("Scope"), "{id}"));
                }
            }
            Op::Retry { eintrs } => self.retry(*eintrs),
            Op::Wait { remote } => {
                if let Some((id, remote)) = self.remote(*remote) {
                    assert_eq!(remote.wait(Duration::ZERO), self.model.wait(id));
                    assert_eq!(remote.wait_closed(Duration::ZERO), self.model.wait(id) == Status::Closed);
                }
            }
            Op::Drop { scope, leave } => {
                if let Some((block, index)) = self.find(*scope) {
                    let (id, scope) = self.blocks[block].borrow_mut().remove(index);
                    if *leave {
                        scope.leave().expect("nobody replaced the action")
                    } else {
                        drop(scope)
                    }
                    self.model.leave(id);
                }
            }
            Op::Within { ops, panics } => self.within(ops, *panics),
            Op::EnterTicket { .. } | Op::DropTicket { .. } | Op::Signal { .. } => {}
        }
    }

    fn interrupt(&self, remote: Remote, by: By) -> Option<Delivery> {
        let answer = match by {
            By::Itself => Some(remote.interrupt_once()),
            By::Another => Some(self.interrupter.interrupt(&remote)),
            By::Handler => {
                let mut answer = None;
                FROM_HANDLER.store((&raw const remote).cast_mut(), SeqCst);
                ANSWER.store(&mut answer, SeqCst);
                unsafe { libc::raise(libc::SIGWINCH) };
                assert!(answer.is_some(), "the handler ran");
                answer
            }
            By::Guard => {
                drop(remote.clone().drop_guard().disarm().drop_guard());
                None
            }
        };
        flush();
        answer
    }

    fn retry(&mut self, eintrs: u8) {
        let mut calls = 0;
        let answer = eintr::retry(|| {
            calls += 1;
            if calls <= eintrs { Err(Errno::EINTR) } else { Ok(calls) }
        });
        match self.model.reason() {
            Some(reason) => {
                assert_eq!(answer.err().and_then(|e| e.interrupted()).map(|i| i.reason()), Some(reason));
                assert_eq!(calls, 0, "it looks before the first call");
                self.model.acknowledge();
            }
            None => assert_eq!(answer, Ok(eintrs + 1)),
        }
    }

    fn within(&mut self, ops: &[Op], panics: bool) {
        let block = Block(Rc::default());
        let scopes = block.0.clone();
        self.blocks.push(scopes.clone());
        let mut left = Vec::new();
        let caught = catch_unwind(AssertUnwindSafe(|| {
            let block = block;
            self.run(ops);
            left = block.0.borrow().iter().map(|(id, _)| *id).collect();
            if panics {
                resume_unwind(Box::new(Planned));
            }
        }));
        if let Err(payload) = caught
            && !payload.is::<Planned>()
        {
            resume_unwind(payload);
        }
        assert!(scopes.borrow().is_empty());
        self.blocks.pop();
        left.into_iter().for_each(|id| self.model.leave(id));
    }

    /// After each step: the mask, the summary, and what every scope and remote says.
    fn compare(&self, op: &Op) {
        let mask = common::mask();
        for (number, lane) in &self.model.lanes {
            assert_eq!(mask & common::bit(number.raw()) != 0, lane.blocked, "mask of {number:?} after {op:?}");
            assert_eq!(RUNS[number.raw() as usize].load(SeqCst), lane.runs, "runs behind {number:?} after {op:?}");
        }
        assert_eq!(eintr::is_interruptible(), !self.model.scopes.is_empty());
        for block in &self.blocks {
            for (id, scope) in block.borrow().iter() {
                let expected = self.model.scopes.iter().find(|s| s.id == *id).expect("it lives").reason();
                assert_eq!(scope.interrupted().map(|i| i.reason()), expected, "scope {id} after {op:?}");
            }
        }
        for (id, remote) in &self.remotes {
            let lives = self.model.tickets.contains_key(id) || self.model.scopes.iter().any(|s| s.id == *id);
            assert_eq!(remote.is_closed(), !lives, "remote {id} after {op:?}");
        }
    }

    /// Ends everything but the scopes; tickets first, as they hold nothing of the thread.
    fn end(&mut self) {
        for (id, ticket) in std::mem::take(&mut self.tickets) {
            drop(ticket);
            self.model.tickets.remove(&id);
        }
    }
}

fn send(number: Number, how: How) {
    let sig = number.raw();
    let sent = unsafe {
        match how {
            How::Raise => libc::raise(sig),
            How::PthreadKill => libc::pthread_kill(libc::pthread_self(), sig),
            How::Kill => libc::kill(common::getpid(), sig),
            How::Sigqueue => libc::sigqueue(common::getpid(), sig, libc::sigval { sival_ptr: 7 as *mut libc::c_void }),
        }
    };
    assert_eq!(sent, 0);
    flush();
}

/// The program on the calling thread; returns the model as it stands at the end, all scopes left or leaked.
fn on_this_thread(program: &Program, interrupter: &Interrupter) -> Model {
    let mut mask = common::mask();
    for number in NUMBERS {
        let bit = common::bit(number.raw());
        mask = if number.begins_blocked() { mask | bit } else { mask & !bit };
    }
    common::set_mask(mask);
    let before = State::now();
    let block = Block(Rc::default());
    let mut world = World {
        program,
        model: Model::new(),
        blocks: vec![block.0.clone()],
        tickets: Vec::new(),
        remotes: Vec::new(),
        ids: 0,
        interrupter,
    };
    world.run(&program.ops);
    world.end();
    let left: Vec<usize> = block.0.borrow().iter().map(|(id, _)| *id).collect();
    if program.leaks {
        block.0.borrow_mut().drain(..).for_each(|(_, scope)| std::mem::forget(scope));
    }
    drop(block);
    left.into_iter().for_each(|id| world.model.leave(id));
    if !program.leaks {
        let nothing = Op::Within { ops: Vec::new(), panics: false };
        world.compare(&nothing);
        for number in NUMBERS {
            world.step(&Op::Unblock { number });
            world.compare(&Op::Unblock { number });
        }
        common::set_mask(mask);
        assert_eq!(State::now(), before, "after the program");
    }
    world.model
}

/// Takes what is queued for the process; the calling thread has all five numbers blocked.
fn drain(number: Number) -> u64 {
    let (set, none) = (common::bit(number.raw()), libc::timespec { tv_sec: 0, tv_nsec: 0 });
    let take = || unsafe {
        libc::syscall(libc::SYS_rt_sigtimedwait, &set, std::ptr::null_mut::<libc::siginfo_t>(), &none, 8usize) > 0
    };
    std::iter::repeat_with(take).take_while(|taken| *taken).count() as u64
}

fn run(program: &Program, interrupter: &Interrupter) -> Result<(), TestCaseError> {
    for number in NUMBERS {
        drain(number);
        RUNS[number.raw() as usize].store(0, SeqCst);
    }
    let before = State::now();
    let result = std::thread::scope(|s| {
        let companion = program.companion.map(|number| {
            let (ready, is_ready) = mpsc::channel();
            let (end, ends) = mpsc::channel::<()>();
            let thread = s.spawn(move || {
                let scope = Scope::enter(number.raw()).expect("entered");
                common::block(number.raw());
                ready.send(()).unwrap();
                let _ = ends.recv();
                drop(scope);
            });
            is_ready.recv().unwrap();
            (thread, end)
        });
        let result = s.spawn(|| on_this_thread(program, interrupter)).join();
        if let Some((thread, end)) = companion {
            drop(end);
            thread.join().expect("the companion");
        }
        result
    });
    let model = result.map_err(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or_else(|| payload.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        TestCaseError::fail(text.unwrap_or_else(|| "a panic without a text".to_owned()))
    })?;
    for (number, lane) in &model.lanes {
        let runs = RUNS[number.raw() as usize].load(SeqCst);
        prop_assert_eq!(runs, lane.runs, "runs behind {:?} in the end", number);
        // What was queued for the thread itself ended with it.
        prop_assert_eq!(drain(*number), lane.queued.process, "left for the process of {:?}", number);
    }
    prop_assert_eq!(State::now(), before, "the process after the program");
    Ok(())
}

/// In a process of its own, started with the five numbers blocked, so that only the program's thread can take what is sent to the process.
#[test]
fn programs_do_what_the_model_says() {
    let _t = common::begin_with(Duration::from_secs(300));
    let name = "programs_do_what_the_model_says";
    let old = common::mask();
    common::set_mask(NUMBERS.into_iter().fold(old, |mask, number| mask | common::bit(number.raw())));
    common::in_own_process(name, || {
        for number in NUMBERS.into_iter().filter(|n| n.has_handler()) {
            common::install(number.raw(), count as *const () as usize, libc::SA_RESTART, &[]);
        }
        common::install(libc::SIGWINCH, interrupt_from_handler as *const () as usize, libc::SA_RESTART, &[]);
        let interrupter = Interrupter::new();
        let config = Config {
            cases: common::rounds("EINTR_PROGRAMS", 1500) as u32,
            failure_persistence: None,
            max_shrink_iters: 5_000,
            ..Config::default()
        };
        let show = std::env::var_os("EINTR_SHOW").is_some();
        let result = TestRunner::new(config).run(&program(), |program| {
            if show {
                eprintln!("{program:?}");
            }
            run(&program, &interrupter)
        });
        if let Err(failure) = result {
            panic!("{failure}");
        }
    });
    common::set_mask(old);
}
