//! What a signal from outside does under each `Foreign` policy, whichever thread the kernel picks for it, alone and with scopes nested.
// Tests install handlers, fork and send signals by bare calls.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/witness.rs"]
mod witness;

use common::State;
use eintr::Foreign::{self, Chain, Ignore, Interrupt, InterruptAndChain, InterruptOnce};
use eintr::{Delivery, Reason, Remote, Resend, Scope, ScopeOptions};
use std::cell::Cell;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc;
use std::thread::JoinHandle;
use witness::{Way, killed_by, well};

/// What a [`Scoped`] thread saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Saw {
    /// Its read ended, and its scope says why; how often the handler behind had run by then.
    Interrupted { why: Reason, runs: usize },
    /// Its read returned a byte, and nothing is asked of its scope.
    Byte,
    /// What `clear` returned.
    Cleared(Option<Reason>),
    /// What `check` returned.
    Checked(Option<Reason>),
}

#[derive(Clone, Copy, Debug)]
enum Order {
    Read,
    Clear,
    Check,
}

/// A thread with a scope, that does as it is told.
struct Scoped {
    tid: libc::pid_t,
    remote: Remote,
    orders: mpsc::Sender<Order>,
    answers: mpsc::Receiver<Saw>,
    writer: OwnedFd,
    thread: JoinHandle<()>,
}

impl Scoped {
    /// Enters and waits for orders.
    fn start(options: ScopeOptions) -> Scoped {
        let (empty, writer) = common::pipe();
        let (orders, todo) = mpsc::channel();
        let (answer, answers) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let scope = options.enter().expect("enter");
            tell.send((common::gettid(), scope.remote())).expect("the test waits");
            while let Ok(order) = todo.recv() {
                common::getpid(); // what was sent to this thread before it got the order is taken when a system call returns
                let saw = match order {
                    Order::Read => read(&scope, &empty),
                    Order::Clear => Saw::Cleared(scope.clear().map(|i| i.reason())),
                    Order::Check => Saw::Checked(eintr::check().err().map(|i| i.reason())),
                };
                answer.send(saw).expect("the test waits");
            }
            scope.leave().expect("the action was put back");
        });
        let (tid, remote) = told.recv().expect("entered");
        Scoped { tid, remote, orders, answers, writer, thread }
    }

    /// Comes back when it is blocked in a plain read.
    fn block_in_read(&self) {
        self.orders.send(Order::Read).expect("it lives");
        common::wait_blocked_in(self.tid, libc::SYS_read);
    }

    fn saw(&self) -> Saw {
        self.answers.recv().expect("it answers")
    }

    fn order(&self, order: Order) -> Saw {
        self.orders.send(order).expect("it lives");
        self.saw()
    }

    /// Ends its read by a byte. A signal that it was sent before has been taken when it answers.
    fn write(&self) -> Saw {
        assert_eq!(unsafe { libc::write(self.writer.as_raw_fd(), c"x".as_ptr().cast(), 1) }, 1);
        self.saw()
    }

    fn end(self) {
        drop(self.orders);
        self.thread.join().expect("it ended well");
    }
}

/// Plain reads, until one returns something or an interrupt is asked for.
fn read(scope: &Scope, fd: &OwnedFd) -> Saw {
    loop {
        let read = common::plain_read(fd);
        match (scope.interrupted(), read) {
            (Some(i), Err(libc::EINTR)) => return Saw::Interrupted { why: i.reason(), runs: witness::count() },
            (None, Err(libc::EINTR)) => {}
            (None, Ok(1)) => return Saw::Byte,
            other => panic!("{other:?}"),
        }
    }
}

/// Which thread the kernel brings the signal to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taker {
    /// The thread of the scope, to which it was sent.
    Itself,
    /// The thread of the scope, which is the only one that has the number open.
    ItselfForProcess,
    /// A thread with a scope of its own on the number, which chains.
    AnotherScoped,
    /// A thread without a scope: the first one of the process, which the kernel prefers.
    Bystander,
}

const TAKERS: [Taker; 4] = [Taker::Itself, Taker::ItselfForProcess, Taker::AnotherScoped, Taker::Bystander];

/// A scope on a thread of its own, and who takes what is sent.
struct Scene {
    sig: i32,
    taker: Taker,
    target: Scoped,
    another: Option<Scoped>,
    mask: u64,
}

impl Scene {
    /// What is sent to the target itself must not meet a resend in its queue, where the kernel merges a standard one with that: that scope has none.
    fn set(taker: Taker, sig: i32, options: ScopeOptions) -> Scene {
        let merges = taker == Taker::Itself && witness::is_standard(sig);
        let target = Scoped::start(if merges { options.resend(Resend::Never) } else { options });
        let another = (taker == Taker::AnotherScoped).then(|| Scoped::start(ScopeOptions::new(sig).allow_ignored()));
        let mask = common::mask();
        if taker == Taker::ItselfForProcess {
            common::block(sig);
        }
        Scene { sig, taker, target, another, mask }
    }

    /// Sends one signal, and comes back when it was taken, unless the target itself is to take it.
    fn send(&self) {
        match (self.taker, &self.another) {
            (Taker::AnotherScoped, Some(another)) => {
                another.block_in_read();
                witness::to_thread(another.tid, self.sig);
                assert_eq!(another.write(), Saw::Byte, "a scope that chains was interrupted");
            }
            (Taker::Itself, _) => witness::to_thread(self.target.tid, self.sig),
            _ => {
                Way::Kill.send(self.sig, 0);
            }
        }
    }

    /// Sends one while the target is blocked in a read, which it ends.
    fn interrupts(&self, runs: usize) {
        self.target.block_in_read();
        self.send();
        assert_eq!(self.target.saw(), Saw::Interrupted { why: Reason::Signal, runs }, "{:?}", self.taker);
    }

    /// Sends one while the target is blocked in a read, which goes on.
    fn lets_go_on(&self, runs: usize) {
        self.target.block_in_read();
        self.send();
        assert_eq!(self.target.write(), Saw::Byte, "{:?}", self.taker);
        assert_eq!(witness::count(), runs, "{:?}", self.taker);
    }

    /// Sends one while the target waits for orders; comes back when it was taken.
    fn send_unblocked(&self) {
        self.send();
        self.target.order(Order::Check);
    }

    fn end(self) {
        self.target.end();
        self.another.into_iter().for_each(Scoped::end);
        common::set_mask(self.mask);
    }
}

/// Runs `claim` in a child for each taker and both kinds of number.
fn everywhere(claim: impl Fn(Taker, i32)) {
    for sig in witness::numbers() {
        for taker in TAKERS {
            println!("signal {sig}, {taker:?}");
            well(witness::child(|| claim(taker, sig)));
        }
    }
}

/// The three things that can stand behind: a counting handler, the default, SIG_IGN.
fn behind() -> [usize; 3] {
    [witness::plain_handler(), libc::SIG_DFL, libc::SIG_IGN]
}

fn with(sig: i32, policy: Foreign) -> ScopeOptions {
    ScopeOptions::new(sig).foreign(policy).allow_ignored()
}

// The signal comes to any thread; the scope that asked for it is interrupted, and what stands behind is not done: not the handler, and not the
// default, which would kill.
#[test]
fn interrupt_ends_the_scope_and_nothing_else_happens() {
    let _t = common::begin();
    everywhere(|taker, sig| {
        for handler in behind() {
            common::install(sig, handler, 0, &[]);
            let before = State::now();
            let scene = Scene::set(taker, sig, with(sig, Interrupt));
            for _ in 0..5 {
                scene.interrupts(0);
                assert_eq!(scene.target.order(Order::Check), Saw::Checked(Some(Reason::Signal)));
                scene.interrupts(0); // acknowledged, and still pending: the next one ends the next call
                assert_eq!(scene.target.order(Order::Clear), Saw::Cleared(Some(Reason::Signal)));
                assert_eq!(scene.target.order(Order::Check), Saw::Checked(None));
            }
            scene.end();
            assert_eq!((witness::count(), State::now()), (0, before));
        }
    });
}

// Sticky like a remote's: one that comes while the thread is in no call ends the next `check`.
#[test]
fn interrupt_between_two_calls_is_kept() {
    let _t = common::begin();
    everywhere(|taker, sig| {
        let scene = Scene::set(taker, sig, with(sig, Interrupt));
        scene.send();
        common::wait_until(|| scene.target.order(Order::Check) == Saw::Checked(Some(Reason::Signal)));
        assert_eq!(scene.target.order(Order::Check), Saw::Checked(Some(Reason::Signal)));
        assert_eq!(scene.target.order(Order::Clear), Saw::Cleared(Some(Reason::Signal)));
        assert_eq!(scene.target.order(Order::Clear), Saw::Cleared(None));
        scene.end();
    });
}

// A host's handler (Python's, signal-hook's) has set its flag before the scoped thread wakes and looks at it; it runs once, on the thread that the
// kernel picked. The other actions are not done: with a fatal default that would be the end.
#[test]
fn interrupt_and_chain_runs_the_handler_first() {
    let _t = common::begin();
    everywhere(|taker, sig| {
        for handler in behind() {
            common::install(sig, handler, 0, &[]);
            let before = State::now();
            let scene = Scene::set(taker, sig, with(sig, InterruptAndChain));
            let each = usize::from(handler == witness::plain_handler());
            for n in 1..=5 {
                scene.interrupts(n * each);
                assert_eq!(scene.target.order(Order::Clear), Saw::Cleared(Some(Reason::Signal)));
            }
            let taken_by = match taker {
                Taker::Itself | Taker::ItselfForProcess => scene.target.tid,
                Taker::AnotherScoped => scene.another.as_ref().expect("there is one").tid,
                Taker::Bystander => common::gettid(),
            };
            assert!(witness::runs().iter().all(|run| run.tid == taken_by), "{taker:?}");
            assert_eq!(witness::count(), 5 * each);
            scene.end();
            assert_eq!(State::now(), before);
            witness::forget();
        }
    });
}

// The first interrupts; the second is chained, whether the first was acknowledged or not; `clear` begins anew. A remote's interrupt is not a first
// one: the user who presses Ctrl+C while a watchdog has the scope already does not kill by that.
#[test]
fn interrupt_once_chains_the_second_until_clear() {
    let _t = common::begin();
    everywhere(|taker, sig| {
        common::install(sig, witness::plain_handler(), 0, &[]);
        let before = State::now();
        let scene = Scene::set(taker, sig, with(sig, InterruptOnce));
        let mut runs = 0;
        for round in 0..6 {
            if round % 3 == 2 {
                assert_ne!(scene.target.remote.interrupt(), Delivery::Gone);
                assert_eq!(scene.target.order(Order::Check), Saw::Checked(Some(Reason::Remote)));
                scene.send_unblocked();
                assert_eq!(witness::count(), runs, "a remote's interrupt was taken for a first signal");
            } else {
                scene.interrupts(runs);
            }
            if round % 3 == 1 {
                assert_eq!(scene.target.order(Order::Check), Saw::Checked(Some(Reason::Signal)));
            }
            for _ in 0..3 {
                scene.send_unblocked();
                common::wait_until(|| witness::count() > runs);
                runs += 1;
                assert_eq!(witness::count(), runs, "round {round}");
            }
            assert!(matches!(scene.target.order(Order::Clear), Saw::Cleared(Some(_))));
        }
        scene.end();
        assert_eq!((witness::count(), State::now()), (runs, before));
    });
}

// The second Ctrl+C kills, in the clean-up too, and by the true signal.
#[test]
fn the_second_signal_kills_under_interrupt_once() {
    let _t = common::begin();
    for sig in [libc::SIGINT, libc::SIGRTMIN() + 3] {
        for taker in TAKERS {
            for acknowledged in [false, true] {
                let shared = witness::shared();
                let status = witness::child(|| {
                    common::install(sig, libc::SIG_DFL, 0, &[]);
                    let scene = Scene::set(taker, sig, with(sig, InterruptOnce));
                    for round in 0..3 {
                        scene.interrupts(0);
                        if acknowledged || round < 2 {
                            assert_eq!(scene.target.order(Order::Check), Saw::Checked(Some(Reason::Signal)));
                        }
                        if round < 2 {
                            assert_eq!(scene.target.order(Order::Clear), Saw::Cleared(Some(Reason::Signal)));
                        }
                    }
                    shared.count[0].store(1, SeqCst);
                    scene.send();
                    scene.target.order(Order::Check);
                });
                println!("signal {sig}, {taker:?}, acknowledged: {acknowledged}");
                killed_by(sig, status);
                assert_eq!(shared.count[0].load(SeqCst), 1, "the first one killed");
            }
        }
    }
}

// On the thread of a scope that ignores nothing happens. One that comes to another thread is that thread's: it does there what it would have done.
#[test]
fn ignore_swallows_what_comes_to_its_thread() {
    let _t = common::begin();
    everywhere(|taker, sig| {
        for handler in behind() {
            let at_target = matches!(taker, Taker::Itself | Taker::ItselfForProcess);
            if !at_target && handler == libc::SIG_DFL {
                continue; // the other thread would die of it, as without a scope
            }
            common::install(sig, handler, 0, &[]);
            let before = State::now();
            let scene = Scene::set(taker, sig, with(sig, Ignore));
            let each = usize::from(!at_target && handler == witness::plain_handler());
            for n in 1..=5 {
                scene.lets_go_on(n * each);
            }
            scene.end();
            assert_eq!(State::now(), before);
            witness::forget();
        }
    });
}

// The default policy: calls go on, the handler runs once each, the scope hears nothing.
#[test]
fn chain_runs_the_handler_and_interrupts_nothing() {
    let _t = common::begin();
    everywhere(|taker, sig| {
        common::install(sig, witness::plain_handler(), 0, &[]);
        let before = State::now();
        let scene = Scene::set(taker, sig, with(sig, Chain));
        for n in 1..=5 {
            scene.lets_go_on(n);
        }
        scene.end();
        assert_eq!(State::now(), before);
    });
}

// Whatever the sender's call, it is a signal from outside.
#[test]
fn every_way_of_sending_interrupts() {
    let _t = common::begin();
    for sig in witness::numbers() {
        for (policy, each) in [(Interrupt, 0), (InterruptAndChain, 1), (InterruptOnce, 0)] {
            well(witness::child(|| {
                common::install(sig, witness::detailed_handler(), libc::SA_SIGINFO, &[]);
                let scope = with(sig, policy).enter().expect("enter");
                for (n, way) in Way::ALL.into_iter().enumerate() {
                    way.send(sig, 7);
                    common::getpid();
                    assert_eq!(eintr::check().map_err(|i| i.reason()), Err(Reason::Signal), "{way:?}");
                    assert_eq!(witness::count(), (n + 1) * each, "{way:?}");
                    assert_eq!(scope.clear().map(|i| i.reason()), Some(Reason::Signal), "{way:?}");
                }
            }));
        }
    }
}

// One signal, many scopes: each that asked is interrupted, those that did not are not.
#[test]
fn one_signal_interrupts_every_scope_that_asked() {
    let _t = common::begin();
    for sig in witness::numbers() {
        well(witness::child(|| {
            common::install(sig, witness::plain_handler(), 0, &[]);
            let asked = [Interrupt, InterruptOnce, Interrupt, InterruptOnce].map(|p| Scoped::start(with(sig, p)));
            let others = [Chain, Ignore].map(|p| Scoped::start(with(sig, p)));
            for taker in [&others[0], &others[1], &asked[0], &asked[3]] {
                asked.iter().for_each(Scoped::block_in_read);
                others.iter().for_each(Scoped::block_in_read);
                witness::to_thread(taker.tid, sig);
                for scoped in &asked {
                    assert_eq!(scoped.saw(), Saw::Interrupted { why: Reason::Signal, runs: 0 });
                    assert_eq!(scoped.order(Order::Clear), Saw::Cleared(Some(Reason::Signal)));
                }
                assert!(others.iter().all(|scoped| scoped.write() == Saw::Byte));
            }
            asked.into_iter().chain(others).for_each(Scoped::end);
            assert_eq!(witness::count(), 0);
        }));
    }
}

// With a remote's and a signal's interrupt both pending the remote's is told first (design 3).
#[test]
fn a_remote_is_told_before_a_signal() {
    let _t = common::begin();
    for sig in witness::numbers() {
        well(witness::child(|| {
            let scope = with(sig, Interrupt).enter().expect("enter");
            for remote_first in [false, true] {
                if remote_first {
                    scope.remote().interrupt();
                }
                Way::Raise.send(sig, 0);
                scope.remote().interrupt();
                assert_eq!(scope.interrupted().map(|i| i.reason()), Some(Reason::Remote));
                assert_eq!(eintr::check().map_err(|i| i.reason()), Err(Reason::Remote));
                assert_eq!(scope.clear().map(|i| i.reason()), Some(Reason::Remote));
                assert!(scope.clear().is_none(), "`clear` takes both");
            }
        }));
    }
}

/// What one signal does: is the outer scope interrupted (`None`: either may be), is the inner one, how often does the handler run.
type Effect = (Option<bool>, bool, usize);

// On one thread and number the innermost scope decides; one that chains is looked through; at last comes the action behind. Where the inner one
// interrupts, whether the outer one that wants it too is interrupted with it is left open here.
#[test]
fn with_scopes_nested_the_innermost_that_does_not_chain_decides() {
    let _t = common::begin();
    let cases: [(Foreign, Foreign, Effect); 21] = [
        (Chain, Chain, (Some(false), false, 1)),
        (Chain, Ignore, (Some(false), false, 0)),
        (Chain, Interrupt, (Some(false), true, 0)),
        (Chain, InterruptAndChain, (Some(false), true, 1)),
        (Chain, InterruptOnce, (Some(false), true, 0)),
        (Ignore, Chain, (Some(false), false, 0)),
        (Ignore, Ignore, (Some(false), false, 0)),
        (Ignore, Interrupt, (Some(false), true, 0)),
        (Ignore, InterruptAndChain, (Some(false), true, 1)),
        (Ignore, InterruptOnce, (Some(false), true, 0)),
        (Interrupt, Chain, (Some(true), false, 0)),
        (Interrupt, Ignore, (Some(false), false, 0)),
        (Interrupt, Interrupt, (None, true, 0)),
        (Interrupt, InterruptAndChain, (None, true, 1)),
        (InterruptAndChain, Chain, (Some(true), false, 1)),
        (InterruptAndChain, Ignore, (Some(false), false, 0)),
        (InterruptAndChain, Interrupt, (None, true, 0)),
        (InterruptAndChain, InterruptAndChain, (None, true, 1)),
        (InterruptOnce, Chain, (Some(true), false, 0)),
        (InterruptOnce, Ignore, (Some(false), false, 0)),
        (InterruptOnce, Interrupt, (None, true, 0)),
    ];
    let mut wrong = Vec::new();
    for sig in witness::numbers() {
        for (outer, inner, effect) in cases {
            // In a third scope around both, and with a scope of another number in between, which has no say.
            for surrounded in [false, true] {
                let status = witness::child(|| {
                    common::install(sig, witness::plain_handler(), 0, &[]);
                    let around = surrounded.then(|| with(sig, Chain).enter().expect("enter"));
                    let a = with(sig, outer).enter().expect("enter");
                    let between = surrounded.then(|| with(libc::SIGUSR2, Ignore).enter().expect("enter"));
                    let b = with(sig, inner).enter().expect("enter");
                    Way::Raise.send(sig, 0);
                    let interrupted = (a.interrupted().is_some(), b.interrupted().is_some());
                    let (of_outer, of_inner, runs) = effect;
                    assert_eq!((interrupted.1, witness::count()), (of_inner, runs));
                    assert!(of_outer.is_none_or(|yes| yes == interrupted.0), "the outer one: {interrupted:?}");
                    drop((around, a, between, b));
                });
                if status != 0 {
                    wrong.push((sig, outer, inner, surrounded, witness::tell(status)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "signal, outer, inner, surrounded: {wrong:#?}");
}

// The same for the second signal: an outer `InterruptOnce` that has had its first one does not chain over the head of an inner scope.
#[test]
fn with_scopes_nested_the_innermost_decides_about_the_second_signal_too() {
    let _t = common::begin();
    let cases = [
        (InterruptOnce, Interrupt, true, 0),
        (InterruptOnce, Ignore, false, 0),
        (InterruptOnce, Chain, false, 2),
        (Interrupt, InterruptOnce, true, 2),
        (Ignore, InterruptOnce, true, 2),
        (Chain, InterruptOnce, true, 2),
    ];
    let mut wrong = Vec::new();
    for sig in witness::numbers() {
        // One that is sent to the thread merges with a resend that lies there, if it is a standard one.
        for (way, resend) in [(Way::Kill, Resend::default()), (Way::Raise, Resend::Never)] {
            for (outer, inner, heard, runs) in cases {
                let status = witness::child(|| {
                    common::install(sig, witness::plain_handler(), 0, &[]);
                    let a = with(sig, outer).resend(resend).enter().expect("enter");
                    let b = with(sig, inner).resend(resend).enter().expect("enter");
                    for _ in 0..3 {
                        way.send(sig, 0);
                    }
                    assert_eq!((b.interrupted().is_some(), witness::count()), (heard, runs));
                    drop((a, b));
                });
                if status != 0 {
                    wrong.push((sig, way, outer, inner, witness::tell(status)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "signal, way, outer, inner: {wrong:#?}");
}

// Policies come and go with their scopes, in any order of drops.
#[test]
fn a_policy_ends_with_its_scope() {
    let _t = common::begin();
    for sig in witness::numbers() {
        well(witness::child(|| {
            common::install(sig, witness::plain_handler(), 0, &[]);
            let before = State::now();
            let bottom = with(sig, Chain).enter().expect("enter");
            let a = with(sig, Interrupt).enter().expect("enter");
            let b = with(sig, Ignore).enter().expect("enter");
            let c = with(sig, InterruptAndChain).enter().expect("enter");
            let runs = Cell::new(0);
            let send = |hears: &[&Scope], deaf: &[&Scope], chained: usize| {
                Way::Raise.send(sig, 0);
                runs.set(runs.get() + chained);
                assert_eq!(witness::count(), runs.get());
                assert!(hears.iter().all(|s| s.clear().map(|i| i.reason()) == Some(Reason::Signal)));
                assert!(deaf.iter().all(|s| s.interrupted().is_none()));
            };
            send(&[&c], &[&a, &b, &bottom], 1);
            drop(b); // out of order
            send(&[&c], &[&bottom], 1);
            a.clear(); // it may have been interrupted with it
            drop(c);
            send(&[&a], &[&bottom], 0);
            let d = with(sig, Ignore).enter().expect("enter");
            send(&[], &[&a, &bottom, &d], 0);
            drop(d);
            send(&[&a], &[&bottom], 0);
            drop(a);
            send(&[], &[&bottom], 1);
            drop(bottom);
            send(&[], &[], 1);
            assert_eq!(State::now(), before);
        }));
    }
}

// A scope that has ended is not interrupted, nor is the one that its memory serves next; and a handler on another thread that is walking the
// scopes while one of them ends neither crashes nor interrupts a stranger. The chaining scopes are the strangers.
#[test]
fn scopes_with_a_policy_come_and_go_under_signals() {
    let _t = common::begin();
    for sig in witness::numbers() {
        well(witness::child(|| {
            common::install(sig, witness::plain_handler(), 0, &[]);
            let before = State::now();
            let (stop, heard) = (AtomicBool::new(false), AtomicU64::new(0));
            std::thread::scope(|threads| {
                for policy in [Interrupt, InterruptOnce, InterruptAndChain, Chain] {
                    let (stop, heard) = (&stop, &heard);
                    threads.spawn(move || {
                        while !stop.load(SeqCst) {
                            let outer = with(sig, policy).enter().expect("enter");
                            let inner = with(sig, Chain).enter().expect("enter");
                            std::thread::yield_now();
                            if let Some(i) = outer.interrupted() {
                                assert!(i.reason() == Reason::Signal && policy != Chain, "{policy:?} was interrupted");
                                heard.fetch_add(1, SeqCst);
                            }
                            assert!(inner.interrupted().is_none(), "a stranger was interrupted");
                            drop(outer);
                            assert!(inner.interrupted().is_none(), "a stranger was interrupted");
                            drop(inner);
                        }
                    });
                }
                let rounds = common::rounds("EINTR_POLICY_ROUNDS", 3000);
                for _ in 0..rounds {
                    Way::Kill.send(sig, 0); // comes to this thread, the first one
                }
                common::wait_until(|| {
                    Way::Kill.send(sig, 0);
                    heard.load(SeqCst) > 0
                });
                stop.store(true, SeqCst);
            });
            assert_eq!(State::now(), before);
        }));
    }
}
