//! The gate under every interleaving of its senders with the thread that owns it: nothing goes out behind its back, nothing is lost, nobody sleeps for ever.
//!
//! Runs with `RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test --release --test loom_gate`; without the flag this file is empty.
//!
//! The gate is the crate's own source file, over loom's atomics. loom makes a SeqCst load or store weaker than it is, so here a load is a
//! read-modify-write that changes nothing and a store is a swap: those loom keeps in one order, as the machine keeps all SeqCst accesses.
//! The futex is a mutex and a condition variable: compare and sleep are one step, and so are a change of the word and a wake-up in the order of
//! the caller.
#![cfg(loom)]

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use atomic::{AtomicU32, SeqCst};
use gate::{Answer, Gate, Outcome, Request};
use loom::sync::Arc;
use loom::thread;

#[path = "../src/engine/gate.rs"]
#[allow(dead_code)] // what these models do not call
mod gate;

mod atomic {
    use std::sync::atomic::Ordering;
    pub(crate) use std::sync::atomic::Ordering::SeqCst;

    thread_local! {
        /// A load is a load, for the model that asks what a look publishes. (loom runs all threads of a model on one thread of the machine.)
        pub(crate) static PLAIN_LOADS: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    }

    macro_rules! atomics { ($($name:ident: $t:ty),*) => { $(
        #[derive(Debug)]
        pub(crate) struct $name(loom::sync::atomic::$name);

        #[allow(dead_code)] // one of the two widths or the other
        impl $name {
            pub(crate) fn new(v: $t) -> Self {
                $name(loom::sync::atomic::$name::new(v))
            }
            pub(crate) fn load(&self, order: Ordering) -> $t {
                if order == Ordering::Relaxed || PLAIN_LOADS.get() {
                    return self.0.load(order);
                }
                self.0.fetch_or(0, order)
            }
            pub(crate) fn store(&self, v: $t, order: Ordering) {
                if order == Ordering::Relaxed {
                    self.0.store(v, order)
                } else {
                    self.0.swap(v, order);
                }
            }
            pub(crate) fn swap(&self, v: $t, order: Ordering) -> $t {
                self.0.swap(v, order)
            }
            pub(crate) fn compare_exchange(&self, is: $t, new: $t, ok: Ordering, err: Ordering) -> Result<$t, $t> {
                self.0.compare_exchange(is, new, ok, err)
            }
            pub(crate) fn fetch_or(&self, v: $t, order: Ordering) -> $t {
                self.0.fetch_or(v, order)
            }
            pub(crate) fn fetch_and(&self, v: $t, order: Ordering) -> $t {
                self.0.fetch_and(v, order)
            }
            pub(crate) fn fetch_add(&self, v: $t, order: Ordering) -> $t {
                self.0.fetch_add(v, order)
            }
            pub(crate) fn fetch_sub(&self, v: $t, order: Ordering) -> $t {
                self.0.fetch_sub(v, order)
            }
        }
    )* } }
    atomics!(AtomicU32: u32, AtomicU64: u64);
}

mod kernel {
    pub(crate) mod futex {
        use crate::atomic::{AtomicU32, SeqCst};
        use loom::sync::{Condvar, Mutex};
        use std::time::Duration;

        loom::lazy_static! {
            static ref SLEEPERS: (Mutex<()>, Condvar) = (Mutex::new(()), Condvar::new());
        }

        /// Time does not pass in the model: who sleeps is woken, or loom reports that all threads are blocked.
        pub(crate) fn wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) -> bool {
            assert_eq!(timeout, None, "the models wait without a limit");
            let (lock, sleepers) = &*SLEEPERS;
            let held = lock.lock().unwrap();
            if word.load(SeqCst) == expected {
                drop(sleepers.wait(held).unwrap());
            }
            true
        }

        pub(crate) fn wake_all(_word: &AtomicU32) {
            let (lock, sleepers) = &*SLEEPERS;
            let _held = lock.lock().unwrap();
            sleepers.notify_all();
        }
    }
}

/// Long enough that no clock is asked for it: the gate then waits without a limit.
const FOR_EVER: Duration = Duration::MAX;
const ONCE: Request = Request::Remote { once: true };
/// One that is to be sent again until it is acknowledged.
const AGAIN: Request = Request::Remote { once: false };

/// A scope: its gate, its thread's summary, the signals sent to the thread, and whether one may be sent now.
struct Scope {
    gate: Gate,
    generation: u32,
    pending: AtomicU32,
    /// The book of the model, which is no part of what it checks: std's atomics, so that loom need not try every order of theirs.
    sent: std::sync::atomic::AtomicU32,
    /// Nothing may be sent: `hold` or `close` has returned, and `open` was not called.
    quiet: std::sync::atomic::AtomicBool,
    /// What a sender wrote before its request, in no order of its own.
    data: AtomicU32,
}

impl Scope {
    /// A scope whose gate is still held, as `enter` makes it.
    fn held() -> Arc<Scope> {
        let gate = Gate::new();
        let generation = gate.renew();
        let zero = || AtomicU32::new(0);
        Arc::new(Scope { gate, generation, pending: zero(), sent: 0.into(), quiet: false.into(), data: zero() })
    }

    fn open() -> Arc<Scope> {
        let scope = Scope::held();
        assert!(!scope.gate.open(), "nothing was asked");
        scope
    }

    /// A request as protocol 2 makes it: the word, `pending`, the signal, out.
    fn ask(&self) -> Answer {
        self.ask_for(ONCE)
    }

    fn ask_for(&self, request: Request) -> Answer {
        let answer = self.gate.ask(self.generation, request);
        if answer == Answer::Inside {
            self.pending.store(1, SeqCst);
            assert!(!self.quiet.load(SeqCst), "a signal goes out behind a gate that is shut");
            self.sent.fetch_add(1, SeqCst);
            self.gate.leave();
        }
        answer
    }

    /// Protocol 1: swap, then look.
    fn lower(&self) {
        self.pending.swap(0, SeqCst);
        if self.gate.acts() {
            self.pending.store(1, SeqCst);
        }
    }

    /// The gate is held while `what` runs, as an acknowledgement holds it.
    fn holding(&self, what: impl FnOnce()) {
        self.gate.hold();
        self.quiet.store(true, SeqCst);
        let sent = self.sent.load(SeqCst);
        what();
        self.lower();
        assert_eq!(self.sent.load(SeqCst), sent, "nothing is sent while the gate is held");
        self.quiet.store(false, SeqCst);
        if self.gate.open() {
            self.pending.store(1, SeqCst);
        }
    }

    fn close(&self) {
        self.gate.close();
        self.quiet.store(true, SeqCst);
        self.lower();
    }

    /// Whether the last request is acknowledged, or there was none; by a look that does not sleep.
    fn is_acknowledged(&self) -> bool {
        self.gate.wait(self.generation, false, Duration::ZERO) == Outcome::Acknowledged
    }
}

fn sender(scope: &Arc<Scope>) -> thread::JoinHandle<Answer> {
    let scope = scope.clone();
    thread::spawn(move || scope.ask())
}

/// Every interleaving (`None`), or every one with at most so many preemptions. LOOM_MAX_PREEMPTIONS overrides it.
fn model(bound: Option<usize>, f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    if builder.preemption_bound.is_none() {
        builder.preemption_bound = bound;
    }
    builder.check(f);
}

/// Drop beside two senders. What it guards: a sender that passed the test of CLOSED and was overtaken by the whole of `close` would signal a
/// thread whose action has been put back; and a `close` that sleeps after the last sender looked for WAITER would sleep for ever.
#[test]
fn nothing_is_sent_once_close_has_returned() {
    model(Some(5), || {
        let scope = Scope::open();
        let senders = [sender(&scope), sender(&scope)];
        scope.close();
        let sent = scope.sent.load(SeqCst);
        let answers = senders.map(|s| s.join().unwrap());
        assert_eq!(scope.sent.load(SeqCst), sent, "after close nothing more");
        let inside = answers.iter().filter(|a| **a == Answer::Inside).count();
        assert_eq!(sent as usize, inside, "who was let in has sent");
        assert!(answers.iter().all(|a| matches!(a, Answer::Inside | Answer::Closed)), "{answers:?}");
        assert_eq!(scope.pending.load(SeqCst), 0, "a closed gate owns no interrupt");
        assert_eq!(scope.ask(), Answer::Closed);
    });
}

/// An acknowledgement beside two senders, then nothing: a request either was there when the acknowledgement looked, or it is pending without SEEN.
/// What it guards: SEEN written over a request that came after the look; `pending` lowered after a sender raised it.
#[test]
fn an_acknowledgement_loses_no_later_request() {
    model(Some(5), || {
        let scope = Scope::open();
        let senders = [sender(&scope), sender(&scope)];
        let mut sent_before = 0;
        scope.holding(|| {
            sent_before = scope.sent.load(SeqCst);
            scope.gate.see();
        });
        for s in senders {
            assert!(matches!(s.join().unwrap(), Answer::Inside | Answer::Kept));
        }
        assert_eq!(scope.gate.asked_by_remote(scope.generation), Some(true), "sticky until clear");
        assert_eq!(scope.pending.load(SeqCst), 1);
        if scope.is_acknowledged() {
            assert_eq!(scope.sent.load(SeqCst), sent_before, "acknowledged, so nothing came later");
        }
        if sent_before == 0 && scope.sent.load(SeqCst) > 0 {
            assert!(!scope.is_acknowledged(), "both came after the look");
        }
    });
}

/// `clear` beside two senders: `pending` is what the gate says in the end, and a request that was sent for after the clearing is not forgotten.
#[test]
fn a_request_after_clear_is_pending() {
    model(Some(5), || {
        let scope = Scope::open();
        let senders = [sender(&scope), sender(&scope)];
        let mut sent_before = 0;
        scope.holding(|| {
            sent_before = scope.sent.load(SeqCst);
            scope.gate.clear();
        });
        let answers = senders.map(|s| s.join().unwrap());
        let asked = scope.gate.asked_by_remote(scope.generation).is_some();
        assert_eq!(scope.pending.load(SeqCst) == 1, asked, "the summary says what the gate says");
        assert_eq!(scope.gate.acts(), asked, "the gate is open again");
        if scope.sent.load(SeqCst) > sent_before {
            assert!(asked, "sent for after the clearing, and forgotten: {answers:?}");
            assert!(!scope.is_acknowledged());
        }
    });
}

/// Two acknowledgements and a close beside one sender that asks twice: hold, open, hold, open, close. What it guards: a WAITER left over from one
/// wait that swallows the wake-up of the next.
#[test]
fn every_wait_for_senders_ends() {
    model(Some(5), || {
        let scope = Scope::open();
        let other = {
            let scope = scope.clone();
            thread::spawn(move || [scope.ask(), scope.ask()])
        };
        scope.holding(|| scope.gate.see());
        scope.holding(|| scope.gate.see());
        scope.close();
        let answers = other.join().unwrap();
        assert_ne!(answers[0], Answer::Refused);
        assert_ne!(answers[1], Answer::Refused);
        assert!(answers[0] != Answer::Closed || answers[1] == Answer::Closed, "closed is for good: {answers:?}");
        assert_eq!(scope.pending.load(SeqCst), 0);
    });
}

/// A gate that begins held (a ticket, or `enter` at work): a request is kept, and acts when the gate opens; one that comes later is let in.
#[test]
fn a_request_before_open_is_kept_and_acts_then() {
    model(None, || {
        let scope = Scope::held();
        scope.quiet.store(true, SeqCst);
        let senders = [sender(&scope), sender(&scope)];
        scope.quiet.store(false, SeqCst);
        let found = scope.gate.open();
        if found {
            scope.pending.store(1, SeqCst);
        }
        let answers = senders.map(|s| s.join().unwrap());
        assert!(answers.iter().all(|a| matches!(a, Answer::Inside | Answer::Kept)), "{answers:?}");
        assert_eq!(answers.contains(&Answer::Kept), found, "kept ones are found by open, all others send: {answers:?}");
        assert_eq!(scope.sent.load(SeqCst) as usize, answers.iter().filter(|a| **a == Answer::Inside).count());
        assert_eq!(scope.pending.load(SeqCst), 1);
        assert!(!scope.is_acknowledged());
    });
}

/// A ticket dropped unused, or refused, while somebody asks: held to closed without ever being open.
#[test]
fn a_gate_closed_while_held_lets_nobody_in() {
    model(None, || {
        let scope = Scope::held();
        scope.quiet.store(true, SeqCst);
        let senders = [sender(&scope), sender(&scope)];
        scope.close();
        for s in senders {
            assert!(matches!(s.join().unwrap(), Answer::Kept | Answer::Closed));
        }
        assert_eq!(scope.sent.load(SeqCst), 0);
        assert_eq!(scope.gate.asked_by_remote(scope.generation), None, "closed: nothing to own up to");
    });
}

/// The quiet close, one exchange: it succeeds only where nobody was let in, or else the full close follows; never does a sender come behind it.
#[test]
fn the_quick_close_overlooks_nobody() {
    model(Some(5), || {
        let scope = Scope::open();
        let senders = [sender(&scope), sender(&scope)];
        let quick = scope.gate.close_quiet();
        if quick {
            scope.quiet.store(true, SeqCst);
        } else {
            scope.close();
        }
        let answers = senders.map(|s| s.join().unwrap());
        if quick {
            assert_eq!(answers, [Answer::Closed, Answer::Closed]);
            assert_eq!(scope.sent.load(SeqCst), 0);
        }
        assert!(!scope.gate.is_open(scope.generation));
    });
}

/// What was written before a request is visible to who acknowledges it, also when the request found the same one pending and changed nothing.
/// What it guards: a repeated request that only looks (a load publishes nothing).
#[test]
fn an_acknowledgement_sees_what_was_written_before_the_request() {
    atomic::PLAIN_LOADS.set(true);
    model(None, || {
        let scope = Scope::open();
        let other = {
            let scope = scope.clone();
            thread::spawn(move || {
                scope.data.store(1, Relaxed);
                assert!(matches!(scope.ask(), Answer::Inside | Answer::Kept));
                scope.data.store(2, Relaxed);
                if !scope.gate.repeats(scope.generation, ONCE) {
                    assert!(matches!(scope.ask(), Answer::Inside | Answer::Kept));
                }
            })
        };
        let mut read = None;
        scope.holding(|| {
            scope.gate.see();
            if scope.gate.asked_by_remote(scope.generation).is_some() {
                read = Some(scope.data.load(Relaxed));
            }
        });
        other.join().unwrap();
        if let Some(read) = read {
            assert_ne!(read, 0, "asked, and what came before it unseen");
        }
        if scope.is_acknowledged() {
            assert_eq!(read, Some(2), "acknowledged as a whole, but what came before the second request unseen");
        }
    });
}

/// A repeated request is only answered so while it is still pending and unseen: `repeats` and an acknowledgement never both win.
#[test]
fn a_repeated_request_is_not_swallowed_by_an_acknowledgement() {
    model(None, || {
        let scope = Scope::open();
        assert_eq!(scope.ask(), Answer::Inside);
        let other = {
            let scope = scope.clone();
            thread::spawn(move || {
                let repeated = scope.gate.repeats(scope.generation, ONCE);
                if !repeated {
                    assert!(matches!(scope.ask(), Answer::Inside | Answer::Kept));
                }
                repeated
            })
        };
        scope.holding(|| scope.gate.see());
        if other.join().unwrap() {
            assert!(scope.is_acknowledged(), "the acknowledgement came later and covers it");
        }
        assert_eq!(scope.pending.load(SeqCst), 1);
    });
}

/// Somebody waits for the end of the scope while a sender and the close are at work. What it guards: `close` and the waiter share WAITER: one takes
/// it off for both, and the other must not go to sleep on the old count of wake-ups.
#[test]
fn who_waits_for_the_end_is_woken_by_close() {
    model(Some(5), || {
        let scope = Scope::open();
        let waiter = {
            let scope = scope.clone();
            thread::spawn(move || scope.gate.wait(scope.generation, true, FOR_EVER))
        };
        let other = sender(&scope);
        scope.close();
        assert_eq!(waiter.join().unwrap(), Outcome::Closed);
        let _ = other.join().unwrap();
    });
}

/// The same with the quick close, which has no wake-up of its own: it must refuse while somebody waits.
#[test]
fn who_waits_for_the_end_is_not_overlooked_by_the_quick_close() {
    model(None, || {
        let scope = Scope::open();
        let waiter = {
            let scope = scope.clone();
            thread::spawn(move || scope.gate.wait(scope.generation, true, FOR_EVER))
        };
        if !scope.gate.close_quiet() {
            scope.close();
        }
        assert_eq!(waiter.join().unwrap(), Outcome::Closed);
    });
}

/// A sender waits until its request is acknowledged; the thread acknowledges by `see` or takes it by `clear`.
fn acknowledging_wakes(acknowledge: fn(&Gate)) {
    model(Some(5), move || {
        let scope = Scope::open();
        let waiter = {
            let scope = scope.clone();
            thread::spawn(move || {
                assert_eq!(scope.ask(), Answer::Inside);
                scope.gate.wait(scope.generation, false, FOR_EVER)
            })
        };
        while scope.pending.load(SeqCst) == 0 {
            thread::yield_now();
        }
        scope.holding(|| acknowledge(&scope.gate));
        assert_eq!(waiter.join().unwrap(), Outcome::Acknowledged);
    });
}

#[test]
fn who_waits_for_an_acknowledgement_is_woken_by_it() {
    acknowledging_wakes(Gate::see);
}

#[test]
fn who_waits_for_an_acknowledgement_is_woken_by_clear() {
    acknowledging_wakes(|gate| {
        let _ = gate.clear();
    });
}

/// A gate is used again for another scope while somebody still asks through a Remote of the one before: the old request finds it closed, and
/// leaves no trace in the new one.
#[test]
fn a_request_for_an_ended_scope_never_reaches_the_next() {
    model(Some(5), || {
        let scope = Scope::open();
        let old = [sender(&scope), sender(&scope)];
        scope.close();
        let next = scope.gate.renew();
        assert_ne!(next, scope.generation);
        assert!(!scope.gate.open(), "a request from before");
        let sent = scope.sent.load(SeqCst);
        for s in old {
            let _ = s.join().unwrap();
        }
        assert_eq!(scope.sent.load(SeqCst), sent);
        assert_eq!(scope.gate.asked_by_remote(next), None);
        assert!(!scope.gate.acts());
        scope.gate.close();
    });
}

/// One after the other: a request for one signal does not take the resend from one that waits for it, and does not inherit it from one that has been
/// acknowledged.
#[test]
fn one_signal_is_enough_for_who_asked_last_if_nobody_else_waits() {
    model(None, || {
        let scope = Scope::open();
        let wants = |request| {
            let _ = scope.ask_for(request);
            assert!(scope.gate.is_unseen());
            scope.gate.wants_resend()
        };
        assert!(!wants(ONCE) && !wants(ONCE) && wants(AGAIN) && wants(ONCE) && wants(Request::Signal) && wants(ONCE));
        scope.holding(|| scope.gate.see());
        assert!(!scope.gate.wants_resend() && !scope.gate.is_unseen());
        assert!(!wants(ONCE) && wants(Request::Signal));
        scope.holding(|| _ = scope.gate.clear());
        assert!(!scope.gate.wants_resend() && !wants(ONCE));
        scope.close();
        assert!(!scope.gate.wants_resend() && !scope.gate.is_unseen());
    });
}

/// A request that is to be sent again, beside one for one signal and an acknowledgement: unless it was acknowledged it is sent again, whichever of the two
/// came last. What it guards: the mark of the other one, put on or left there over a request whose sender waits.
#[test]
fn a_request_that_waits_is_sent_again_whoever_asks_besides() {
    model(Some(5), || {
        let scope = Scope::open();
        let ask = |request| {
            let scope = scope.clone();
            thread::spawn(move || scope.ask_for(request))
        };
        let others = [ask(AGAIN), ask(ONCE)];
        let mut sent_before = 0;
        scope.holding(|| {
            sent_before = scope.sent.load(SeqCst);
            scope.gate.see();
        });
        let [again, once] = others.map(|other| other.join().unwrap());
        let (inside, sent) = ([again, once].map(|answer| answer == Answer::Inside), scope.sent.load(SeqCst));
        // Let in after the acknowledgement: both, or the one that was let in at all.
        let later = sent - sent_before;
        if later == 2 || later == 1 && inside == [true, false] {
            assert!(scope.gate.wants_resend(), "it is not acknowledged, and nobody sends again: {again:?}, {once:?}");
        }
        // The other was there when it was acknowledged, and something is not.
        if sent_before == 1 && inside == [false, true] && scope.gate.is_unseen() {
            assert!(scope.gate.wants_resend(), "kept, and not sent again: {again:?}, {once:?}");
        }
        if scope.gate.wants_resend() {
            assert!(later > 0 || again == Answer::Kept, "nobody is left who wants it: {again:?}, {once:?}");
        }
    });
}

/// The same on a ticket, where both are kept.
#[test]
fn a_request_that_a_ticket_keeps_is_sent_again_whoever_asks_besides() {
    model(None, || {
        let scope = Scope::held();
        scope.quiet.store(true, SeqCst);
        let ask = |request| {
            let scope = scope.clone();
            thread::spawn(move || scope.gate.ask(scope.generation, request))
        };
        let others = [ask(AGAIN), ask(ONCE)];
        assert!(!scope.gate.wants_resend(), "nothing acts while it is held");
        for other in others {
            assert_eq!(other.join().unwrap(), Answer::Kept);
        }
        assert!(scope.gate.open());
        assert!(scope.gate.wants_resend());
    });
}

/// The first signal from outside interrupts, the second is refused (it goes to the action behind), whichever of two threads brings it.
#[test]
fn of_two_signals_from_outside_one_is_the_first() {
    model(Some(5), || {
        let scope = Scope::open();
        let bring = |scope: &Arc<Scope>| {
            let scope = scope.clone();
            thread::spawn(move || {
                let answer = scope.gate.ask(scope.generation, Request::FirstSignal);
                if answer == Answer::Inside {
                    scope.pending.store(1, SeqCst);
                    scope.gate.leave();
                }
                answer
            })
        };
        let both = [bring(&scope), bring(&scope)];
        scope.holding(|| scope.gate.see());
        let answers = both.map(|b| b.join().unwrap());
        assert_eq!(answers.iter().filter(|a| **a == Answer::Refused).count(), 1, "{answers:?}");
        assert_eq!(scope.gate.asked_by_remote(scope.generation), Some(false));
        assert_eq!(scope.pending.load(SeqCst), 1);
    });
}

/// `clear` tells the thread what it takes. What it guards: a look and then a clearing, with a request between the two, which the held gate keeps
/// and the clearing forgets: asked, answered "kept", and nobody is told.
#[test]
fn clear_tells_what_it_takes() {
    model(None, || {
        let scope = Scope::open();
        let other = sender(&scope);
        let mut taken = None;
        scope.holding(|| {
            taken = scope.gate.clear();
        });
        let answer = other.join().unwrap();
        let left = scope.gate.asked_by_remote(scope.generation);
        assert!(taken.is_some() || left.is_some(), "{answer:?}, and then neither told nor pending");
        assert!(taken.is_none() || left.is_none(), "one request, told twice");
    });
}

/// A shield beside two senders: the quick hold, one exchange, or the full one where it refuses. What it guards: a quick hold that overlooks who is inside, or
/// what is asked already, so that `pending` stays up, or a signal goes out under the shield.
#[test]
fn the_quick_hold_overlooks_nobody() {
    model(Some(5), || {
        let scope = Scope::open();
        let senders = [sender(&scope), sender(&scope)];
        let quick = scope.gate.hold_quiet();
        if !quick {
            scope.gate.hold();
        }
        scope.quiet.store(true, SeqCst);
        let sent = scope.sent.load(SeqCst);
        if quick {
            assert_eq!((sent, scope.pending.load(SeqCst)), (0, 0), "nothing has begun that was not waited for");
        } else {
            scope.lower();
        }
        assert_eq!(scope.pending.load(SeqCst), 0, "nothing acts under a shield");
        assert!(scope.gate.hold_quiet(), "a second shield finds it held");
        assert_eq!(scope.sent.load(SeqCst), sent, "nothing is sent under a shield");
        scope.quiet.store(false, SeqCst);
        let found = scope.gate.open();
        if found {
            scope.pending.store(1, SeqCst);
        }
        let answers = senders.map(|s| s.join().unwrap());
        assert!(answers.iter().all(|a| matches!(a, Answer::Inside | Answer::Kept)), "{answers:?}");
        assert!(found || !answers.contains(&Answer::Kept), "what was kept is found when it is lowered: {answers:?}");
        assert_eq!(scope.sent.load(SeqCst) as usize, answers.iter().filter(|a| **a == Answer::Inside).count());
        assert_eq!(scope.pending.load(SeqCst), 1);
        assert!(!scope.is_acknowledged());
    });
}

/// The same with something asked and acknowledged before: that must be lowered, so the quick hold refuses; and nobody who waits is forgotten.
#[test]
fn the_quick_hold_refuses_while_something_is_asked() {
    model(None, || {
        let scope = Scope::open();
        assert_eq!(scope.ask(), Answer::Inside);
        scope.holding(|| scope.gate.see());
        let other = sender(&scope);
        assert!(!scope.gate.hold_quiet());
        scope.gate.hold();
        scope.quiet.store(true, SeqCst);
        scope.lower();
        assert_eq!(scope.pending.load(SeqCst), 0);
        scope.quiet.store(false, SeqCst);
        assert!(scope.gate.open(), "it was asked before");
        scope.pending.store(1, SeqCst);
        let answer = other.join().unwrap();
        assert!(matches!(answer, Answer::Inside | Answer::Kept), "{answer:?}");
        assert!(scope.gate.is_unseen(), "the second one is not acknowledged");
    });
}
