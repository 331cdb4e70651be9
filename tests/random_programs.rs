//! Random programs against a model: scopes entered, nested, dropped out of order, by panics and by the end of a thread, among interrupts and other
//! people's signals; every answer is the model's, every foreign signal is accounted for, and the state afterwards is the state before.
//!
//! With a resend, a plain call that is made while a request is not acknowledged must end; without one every answer is known beforehand.
//! EINTR_PROGRAMS sets how many; with EINTR_SHOW each one is printed before it runs, for programs that end the process.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)] // as in tests/common

mod common;
#[path = "common/model.rs"]
mod model;
#[path = "common/programs.rs"]
mod programs;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::Duration;

use common::State;
use eintr::{Delivery, Foreign, Remote, Resend, Scope, ScopeOptions, Status, Ticket};
use model::{Model, Once};
use nix::errno::Errno;
use programs::{By, How, NUMBERS, Number, Op, Program, Resends, choose, program};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

// What the handlers behind count.

static RUNS: [AtomicU64; 65] = [const { AtomicU64::new(0) }; 65];

extern "C" fn count(sig: i32) {
    RUNS[sig as usize].fetch_add(1, SeqCst);
}

/// Interrupts what FROM_HANDLER points to; answers by LAST.
extern "C" fn interrupt_from_handler(_: i32) {
    let (remote, answer) = (FROM_HANDLER.load(SeqCst), ANSWER.load(SeqCst));
    let (remote, once) = unsafe { (&*remote, ONCE.load(SeqCst)) };
    unsafe { *answer = Some(request(remote, once)) };
}
static ONCE: AtomicBool = AtomicBool::new(false);
static FROM_HANDLER: AtomicPtr<Remote> = AtomicPtr::new(std::ptr::null_mut());
static ANSWER: AtomicPtr<Option<Delivery>> = AtomicPtr::new(std::ptr::null_mut());

fn request(remote: &Remote, once: bool) -> Delivery {
    if once { remote.interrupt_once() } else { remote.interrupt() }
}

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
    model: Model,
    blocks: Vec<Scopes>,
    tickets: Vec<(usize, Ticket)>,
    remotes: Vec<(usize, Remote)>,
    ids: usize,
    resends: Resends,
    interrupter: &'a Interrupter,
}

/// A thread that interrupts on demand and never gets a signal itself.
struct Interrupter {
    ask: mpsc::Sender<(Remote, bool, mpsc::Sender<Delivery>)>,
}

impl Interrupter {
    fn new() -> Interrupter {
        let (ask, asked) = mpsc::channel::<(Remote, bool, mpsc::Sender<Delivery>)>();
        common::unsignalled(move || {
            for (remote, once, answer) in asked {
                let _ = answer.send(request(&remote, once));
            }
        });
        Interrupter { ask }
    }

    fn interrupt(&self, remote: &Remote, once: bool) -> Delivery {
        let (answer, answered) = mpsc::channel();
        self.ask.send((remote.clone(), once, answer)).unwrap();
        answered.recv().unwrap()
    }
}

fn options(number: Number, policy: Foreign, resend: Resend) -> ScopeOptions {
    let options = ScopeOptions::new(number.raw());
    let options = if resend == Resend::default() { options } else { options.resend(resend) };
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

    /// How the scope with this id has its interrupts sent again.
    fn resend(&self, id: usize) -> Resend {
        let pause = Duration::from_micros(1);
        match self.resends {
            Resends::None => Resend::Never,
            Resends::All => Resend::default(),
            Resends::AllFast => Resend::Backoff { first: pause, ceiling: pause * 500 },
            Resends::Some if id.is_multiple_of(2) => Resend::default(),
            Resends::Some => Resend::Never,
        }
    }

    /// A number that was blocked belongs to somebody's sigwait: what `Ignore` and the two that also chain do to that is left out here.
    fn policy(&self, number: Number, policy: Foreign) -> Foreign {
        let lane = &self.model.lanes[&number];
        let was_blocked = if lane.scopes > 0 { lane.was_blocked } else { lane.blocked };
        if was_blocked && policy != Foreign::Interrupt { Foreign::Chain } else { policy }
    }

    fn entered(&mut self, id: usize, scope: Scope, number: Number, policy: Foreign, asked: Option<Once>) {
        assert_eq!(scope.signal().as_raw(), number.raw());
        self.remotes.push((id, scope.remote()));
        self.blocks.last().unwrap().borrow_mut().push((id, scope));
        self.model.enter(id, number, policy, asked, self.resend(id) != Resend::Never);
    }

    /// Where the scope is that this place names: block and index.
    fn find(&self, place: u8) -> Option<(usize, usize)> {
        let all: Vec<_> = self
            .blocks
            .iter()
            .enumerate()
            .flat_map(|(b, scopes)| (0..scopes.borrow().len()).map(move |i| (b, i)))
            .collect();
        Some(all[choose(place, all.len())?])
    }

    fn with_scope<T>(&self, at: (usize, usize), f: impl FnOnce(usize, &Scope) -> T) -> T {
        let scopes = self.blocks[at.0].borrow();
        let (id, scope) = &scopes[at.1];
        f(*id, scope)
    }

    fn remote(&self, place: u8) -> Option<(usize, Remote)> {
        Some(self.remotes[choose(place, self.remotes.len())?].clone())
    }

    fn run(&mut self, ops: &[Op]) {
        for op in ops {
            self.step(op);
            self.compare(op);
        }
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::Enter { number, policy } => {
                let policy = self.policy(*number, *policy);
                let id = self.id();
                let scope = Scope::enter(options(*number, policy, self.resend(id))).expect("entered");
                self.entered(id, scope, *number, policy, None);
            }
            Op::EnterRefused { ticket } => {
                // A timer goes on all the while.
                let resent = if self.resends == Resends::None { 0 } else { self.model.resent() };
                let state = || State { pending: State::now().pending & !resent, ..State::now() };
                let before = state();
                if *ticket {
                    let (ticket, remote) = Ticket::new();
                    assert!(ticket.enter(libc::SIGTSTP).is_err());
                    assert!(remote.is_closed());
                } else {
                    assert!(Scope::enter(libc::SIGKILL).is_err());
                }
                assert_eq!(state(), before, "a refused enter changes nothing");
            }
            Op::MakeTicket => {
                let (ticket, remote) = Ticket::new();
                let id = self.id();
                self.tickets.push((id, ticket));
                self.remotes.push((id, remote));
                self.model.tickets.insert(id, None);
            }
            Op::EnterTicket { ticket, number, policy } if !self.tickets.is_empty() => {
                let (id, ticket) = self.tickets.remove(*ticket as usize % self.tickets.len());
                let policy = self.policy(*number, *policy);
                let scope = ticket.enter(options(*number, policy, self.resend(id))).expect("entered");
                let asked = self.model.tickets.remove(&id).unwrap();
                self.entered(id, scope, *number, policy, asked);
            }
            Op::DropTicket { ticket } if !self.tickets.is_empty() => {
                let (id, ticket) = self.tickets.remove(*ticket as usize % self.tickets.len());
                drop(ticket);
                self.model.tickets.remove(&id);
            }
            Op::Interrupt { remote, by, once } => {
                if let Some((id, remote)) = self.remote(*remote) {
                    let answer = self.interrupt(remote, *by, *once);
                    let allowed = self.model.interrupt(id, *once && *by != By::Guard, answer);
                    assert!(answer.is_none_or(|a| allowed.contains(&a)), "{answer:?}, and the model says {allowed:?}");
                }
            }
            Op::Signal { number, how } if number.has_handler() => {
                let how = self.model.signal(*number, *how);
                send(*number, how);
            }
            Op::Block { number } => {
                common::block(number.raw());
                self.model.block(*number);
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
            Op::Read if self.model.ends_plain_calls() => {
                let (empty, _writer) = common::pipe();
                let read = common::plain_read(&empty);
                assert!(matches!(read, Err(libc::EINTR | libc::ECANCELED)), "{read:?}");
            }
            Op::Call => self.call(),
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
            Op::EnterTicket { .. } | Op::DropTicket { .. } | Op::Signal { .. } | Op::Read => {}
        }
    }

    fn interrupt(&self, remote: Remote, by: By, once: bool) -> Option<Delivery> {
        let answer = match by {
            By::Itself => Some(request(&remote, once)),
            By::Another => Some(self.interrupter.interrupt(&remote, once)),
            By::Handler => {
                let mut answer = None;
                FROM_HANDLER.store((&raw const remote).cast_mut(), SeqCst);
                ANSWER.store(&mut answer, SeqCst);
                ONCE.store(once, SeqCst);
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

    fn call(&mut self) {
        let (from, to) = common::pipe();
        let Some(reason) = self.model.reason() else {
            nix::unistd::write(&to, b"data").expect("there is room");
            assert_eq!(eintr::sys::read(&from, &mut [0; 8]), Ok(4));
            return;
        };
        let answer = eintr::sys::read(&from, &mut [0; 8]);
        assert_eq!(answer.err().and_then(|e| e.interrupted()).map(|i| i.reason()), Some(reason));
        self.model.acknowledge();
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
            assert_eq!(remote.wait(Duration::ZERO), self.model.wait(*id), "remote {id} after {op:?}");
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
        model: Model::new(),
        blocks: vec![block.0.clone()],
        tickets: Vec::new(),
        remotes: Vec::new(),
        ids: 0,
        resends: program.resends,
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
            cases: common::rounds("EINTR_PROGRAMS", 1000) as u32,
            failure_persistence: None,
            max_shrink_iters: 5_000,
            ..Config::default()
        };
        let show = std::env::var_os("EINTR_SHOW").is_some();
        let result = TestRunner::new(config).run(&program(), |program| {
            if show {
                eprintln!("{program:?}");
            }
            unsafe { libc::alarm(60) }; // for one that hangs
            run(&program, &interrupter)
        });
        if let Err(failure) = result {
            panic!("{failure}");
        }
    });
    common::set_mask(old);
}
