//! After an acknowledgement (protocol 6) nothing of ours comes until the next request, and after the end of a scope (protocol 7) nothing at all: neither
//! a signal that was on its way nor the timer's. Clean-up made of plain calls is left alone, and so is the next scope.
//!
//! `EINTR_QUIET_ROUNDS` says how often each is tried.
// Calls are made, and handlers installed, by bare system calls, as applications do.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/counting.rs"]
mod counting;
#[path = "common/gatekeeper.rs"]
mod gatekeeper;

use common::{Random, State};
use counting::{Counting, kinds, undisturbed};
use eintr::{Delivery, Remote, Resend, Scope, ScopeOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, Once, mpsc};
use std::time::{Duration, Instant};

/// First pauses, in nanoseconds, about as long as what is interrupted here, so that an expiry is under way at every instant; and how many of a hundred rounds
/// are made with each. (The shortest comes again some twenty times before the thread gets anywhere.)
const FIRST: [(u64, u64); 4] = [(1, 2), (3_000, 20), (8_000, 39), (20_000, 39)];

fn options(sig: i32, first: u64) -> ScopeOptions {
    let (first, ceiling) = (Duration::from_nanos(first), Duration::from_millis(1));
    ScopeOptions::new(sig).resend(Resend::Backoff { first, ceiling })
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
    /// Those that the action behind got.
    behind: u64,
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

/// What a thread that interrupts is told, and tells.
#[derive(Debug)]
struct Interrupter {
    asked: AtomicU64,
    done: AtomicU64,
    remote: Mutex<Option<Remote>>,
    told: Mutex<Option<Delivery>>,
}

impl Interrupter {
    /// The process's one; its thread is started at the first use.
    fn get() -> &'static Interrupter {
        static ONE: Interrupter = Interrupter {
            asked: AtomicU64::new(0),
            done: AtomicU64::new(0),
            remote: Mutex::new(None),
            told: Mutex::new(None),
        };
        static STARTED: Once = Once::new();
        STARTED.call_once(|| drop(common::unsignalled(|| ONE.serve())));
        &ONE
    }

    fn serve(&self) {
        for n in 1u64.. {
            wait_until(|| self.asked.load(SeqCst) >= n);
            let remote = self.remote.lock().expect("nobody panics with it").take();
            *self.told.lock().expect("nobody panics with it") = remote.map(|remote| remote.interrupt());
            self.done.store(n, SeqCst);
        }
    }

    fn go(&self, scope: &Scope) {
        *self.remote.lock().expect("nobody panics with it") = Some(scope.remote());
        self.asked.fetch_add(1, SeqCst);
    }

    /// Waits until it is back, and says what it was told.
    fn wait_until_back(&self) -> Option<Delivery> {
        wait_until(|| self.done.load(SeqCst) == self.asked.load(SeqCst));
        *self.told.lock().expect("nobody panics with it")
    }
}

fn spin(nanoseconds: u64) {
    let until = Instant::now() + Duration::from_nanos(nanoseconds);
    while Instant::now() < until {}
}

/// Awake at first.
fn wait_until(done: impl Fn() -> bool) {
    if !(0..2000).any(|_| done()) {
        common::wait_until(done);
    }
}

// After an acknowledgement.

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
    let interrupter = Interrupter::get();
    let (mut made, mut before, mut after) = (0, Strays::default(), Strays::default());
    for (sig, (first, share)) in kinds().into_iter().flat_map(|sig| FIRST.map(|first| (sig, first))) {
        let scope = options(sig, first).enter().unwrap();
        for round in 0..(rounds() * share).div_ceil(2 * 100) {
            let (by_itself, all) = (round % 4 != 0, round % 512 >= 256);
            if by_itself {
                assert_eq!(scope.remote().interrupt(), Delivery::Sent, "all that was asked before is acknowledged");
            } else {
                interrupter.go(&scope);
            }
            acknowledge(&scope, &nothing, random.next());
            before.look(sig, Duration::from_micros(10), all); // the sender may be on its way back still
            if !by_itself {
                assert_eq!(interrupter.wait_until_back(), Some(Delivery::Sent));
                after.look(sig, Duration::from_micros(5), all);
            }
            scope.clear();
            made += 1;
        }
    }
    println!("quiet: {made} acknowledgements, strays: {before:?}, with the sender back: {after:?}");
    assert_eq!((before, after), (Strays::default(), Strays::default()), "of {made}");
}

// After the end.

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
    let (mut made, mut strays) = (0, Strays::default());
    for (sig, (first, share)) in kinds().into_iter().flat_map(|sig| FIRST.map(|first| (sig, first))) {
        let behind = Counting::on(sig);
        let state = State::now();
        for ends in [Ends::WithTheNumberOpen, Ends::WithTheNumberBlocked, Ends::InsideAnother] {
            for round in 0..(rounds() * share).div_ceil(2 * 3 * 300) {
                let around = (ends == Ends::InsideAnother).then(|| options(sig, first).enter().unwrap());
                let scope = options(sig, first).enter().unwrap();
                if ends == Ends::WithTheNumberBlocked {
                    common::block(sig);
                }
                assert_eq!(scope.remote().interrupt(), Delivery::Sent);
                spin(random.below(first + 300));
                drop(scope);
                let next = around.unwrap_or_else(|| options(sig, first).enter().unwrap());
                assert!(next.interrupted().is_none() && eintr::check().is_ok(), "{ends:?}, round {round}");
                strays.look(sig, Duration::from_micros(5), round % 512 >= 256);
                assert!(next.interrupted().is_none() && eintr::check().is_ok(), "{ends:?}, round {round}");
                made += 1;
            }
        }
        assert_eq!(State::now(), state);
        strays.behind += behind.runs();
    }
    strays.behind -= strays.delivered; // which are counted by the same handler
    println!("stale: {made} scopes, strays: {strays:?}");
    assert_eq!(strays, Strays::default(), "of {made}");
}

static OUTER: Mutex<Option<Remote>> = Mutex::new(None);
static INNER: Mutex<Option<Remote>> = Mutex::new(None);
static BROKEN: AtomicU64 = AtomicU64::new(0);
const TIMES: usize = 10;

/// On top of a call of the crate that an outer scope has been asked to end: that interrupt stays pending, for the call below, while other scopes begin
/// and end here, each with its sender inside the gate.
extern "C" fn on_top(_: i32) {
    let outer = OUTER.lock().expect("nobody panics with it").take();
    assert_ne!(outer.expect("the test has put it there").interrupt_once(), Delivery::Gone);
    for sig in [kinds(); TIMES].into_iter().flatten() {
        let scope = Scope::enter(sig).unwrap();
        *INNER.lock().expect("nobody panics with it") = Some(scope.remote());
        wait_until(|| scope.interrupted().is_some());
        drop(scope);
        BROKEN.fetch_add(u64::from(!undisturbed(Duration::from_micros(50))), SeqCst);
    }
}

/// CLOSING (protocol 7.3): what lands while a scope ends is not sent again, though `pending` is set, for another scope, and a call lies below (row 6).
#[test]
fn a_scope_that_ends_above_a_call_leaves_nothing_behind() {
    let _t = common::begin();
    if !gatekeeper::can_hold() {
        return;
    }
    let (behind, state) = (kinds().map(Counting::on), State::now());
    let was = common::install(libc::SIGHUP, on_top as *const () as usize, 0, &[]);
    let ((nothing, _writer), (tell, told)) = (common::pipe(), mpsc::channel());
    let thread = std::thread::spawn(move || {
        let scope = Scope::enter(libc::SIGUSR2).unwrap();
        *OUTER.lock().expect("nobody panics with it") = Some(scope.remote());
        tell.send(common::gettid()).unwrap();
        eintr::sys::read(&nothing, &mut [0; 8]).expect_err("nothing is to be read").interrupted().is_some()
    });
    let tid = told.recv().expect("the thread enters");
    common::wait_blocked_in(tid, libc::SYS_read);
    assert_eq!(unsafe { libc::syscall(libc::SYS_tgkill, common::getpid(), tid, libc::SIGHUP) }, 0);
    for _ in 0..TIMES * kinds().len() {
        common::wait_until(|| INNER.lock().expect("nobody panics with it").is_some());
        let remote = INNER.lock().expect("nobody panics with it").take().expect("it is there");
        let Some(sender) = gatekeeper::hold_sender(move || remote.interrupt_once()) else { return };
        common::wait_blocked_in(tid, libc::SYS_futex);
        assert_eq!(sender.release(), Delivery::Sent);
    }
    assert!(thread.join().expect("it is ended when the handler has returned"));
    common::restore(libc::SIGHUP, was);
    assert_eq!((BROKEN.load(SeqCst), behind[0].runs()), (0, 0), "plain calls broken, and signals that got behind");
    assert_eq!(State::now(), state);
}
