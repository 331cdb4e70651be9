//! Numbers that are blocked, before the scope or by the user inside it: what is pending is not run early, kills nobody, and is there afterwards, every
//! one of it.
// Tests install handlers, fork and send signals by bare calls.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/witness.rs"]
mod witness;

use common::State;
use eintr::{Delivery, Foreign, Reason, Remote, Scope, ScopeOptions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Barrier, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use witness::{Info, Way, a_read_is_ended, killed_by, well};

/// Sends a value to this process, or panics.
fn queue(sig: i32, value: usize) {
    assert_eq!(witness::queue(common::getpid(), sig, value), 0, "sigqueue");
}

/// Sends a value to the calling thread alone.
fn queue_to_thread(sig: i32, value: u64) {
    let info = Info { signo: sig, code: libc::SI_QUEUE, pid: common::getpid(), value, ..Info::default() };
    let (pid, tid) = (common::getpid(), common::gettid());
    let r = unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, pid, tid, sig, &info) };
    assert_eq!(r, 0, "rt_tgsigqueueinfo");
}

fn values(infos: &[Info]) -> Vec<u64> {
    infos.iter().map(|info| info.value).collect()
}

fn sorted(mut values: Vec<u64>) -> Vec<u64> {
    values.sort_unstable();
    values
}

/// Where a thread's and its process's pending signals lie.
fn pending(sig: i32) -> (bool, bool) {
    let bit = |field| common::status_bits(common::gettid(), field) & common::bit(sig) != 0;
    (bit("SigPnd:"), bit("ShdPnd:"))
}

/// What can stand behind where nothing may run: a handler that would be seen, and the default, which would kill.
fn behind() -> [usize; 2] {
    [witness::detailed_handler(), libc::SIG_DFL]
}

// The scope opens the number, and what was pending on it would now kill. [it did] It is kept and is there again afterwards, for whom it was sent, with
// what it carried; in between the scope works as ever.
#[test]
fn what_was_pending_before_enter_is_pending_after_it() {
    let _t = common::begin();
    for sig in witness::numbers() {
        for handler in behind() {
            for nested in [false, true] {
                well(witness::child(|| {
                    common::install(sig, handler, libc::SA_SIGINFO, &[]);
                    common::block(sig);
                    let rt = !witness::is_standard(sig);
                    let outsider = Way::KillFromOutside.send(sig, 0);
                    Way::Raise.send(sig, 0);
                    if rt {
                        (1..=5).for_each(|value| queue(sig, value));
                        Way::TgkillFromOutside.send(sig, 0);
                    }
                    let before = State::now();
                    assert_eq!(pending(sig), (true, true));

                    for _ in 0..3 {
                        let scope = Scope::enter(sig).expect("enter");
                        let inner = nested.then(|| Scope::enter(sig).expect("enter"));
                        assert_eq!(common::mask() & common::bit(sig), 0, "the number is open in the scope");
                        assert!(scope.interrupted().is_none() && eintr::check().is_ok());
                        a_read_is_ended(&scope);
                        if let Some(inner) = inner {
                            a_read_is_ended(&inner);
                            drop(scope);
                            a_read_is_ended(&inner);
                        } else {
                            drop(scope);
                        }
                        assert_eq!(State::now(), before);
                        assert_eq!(pending(sig), (true, true));
                    }

                    assert_eq!(witness::count(), 0, "the handler ran while its number was blocked");
                    let mut infos = witness::take_all(sig);
                    let (of_thread, rest): (Vec<_>, Vec<_>) = infos.drain(..).partition(|i| i.code == libc::SI_TKILL);
                    let (of_user, queued): (Vec<_>, Vec<_>) = rest.into_iter().partition(|i| i.code == libc::SI_USER);
                    assert_eq!(of_thread.len(), 1 + usize::from(rt));
                    assert_eq!(of_thread.first().map(|i| i.pid), Some(common::getpid()));
                    assert_eq!(of_user.iter().map(|i| i.pid).collect::<Vec<_>>(), [outsider]);
                    assert_eq!(sorted(values(&queued)), if rt { vec![1, 2, 3, 4, 5] } else { vec![] });
                }));
            }
        }
    }
}

// And once the number is opened again, it does what it was sent for: the handler runs, or the process dies of it.
#[test]
fn what_was_held_does_its_work_when_the_number_is_opened() {
    let _t = common::begin();
    for sig in witness::numbers() {
        for sent_before in [false, true] {
            for way in Way::ALL {
                let scene = |handler: usize| {
                    common::install(sig, handler, libc::SA_SIGINFO, &[]);
                    common::block(sig);
                    if sent_before {
                        way.send(sig, 7);
                    }
                    let scope = Scope::enter(sig).expect("enter");
                    if !sent_before {
                        way.send(sig, 7);
                        common::getpid();
                    }
                    drop(scope);
                    assert_eq!(witness::count(), 0, "{way:?}");
                    common::unblock(sig);
                };
                well(witness::child(|| {
                    scene(witness::detailed_handler());
                    let runs = witness::runs();
                    assert_eq!((runs.len(), runs[0].info.signo), (1, sig), "{way:?}");
                    let queued = matches!(way, Way::Sigqueue | Way::SigqueueFromOutside);
                    // An emulator leaves on the stack what lay there, where a siginfo has no value.
                    assert!(
                        !queued && common::emulated() || runs[0].info.value == if queued { 7 } else { 0 },
                        "{way:?}"
                    );
                }));
                killed_by(sig, witness::child(|| scene(libc::SIG_DFL)));
            }
        }
    }
}

// Those that come one after the other while the scope lives are held in the order of their coming, however many. [with room for 64: 151 of 13,541 lost]
#[test]
fn thousands_are_held_and_given_back_in_order() {
    let _t = common::begin();
    const MANY: usize = 1500; // more than the 1,024 that are made room for at once
    let sig = libc::SIGRTMIN() + 3;
    for handler in behind() {
        well(witness::child(|| {
            common::install(sig, handler, libc::SA_SIGINFO, &[]);
            common::block(sig);
            let before = State::now();
            let scope = Scope::enter(sig).expect("enter");
            for value in 0..MANY {
                queue(sig, value); // taken by this thread before the call returns
                if value % 100 == 0 {
                    assert_ne!(scope.remote().interrupt(), Delivery::Gone);
                    assert!(eintr::check().is_err());
                    scope.clear();
                }
            }
            assert_eq!(pending(sig), (false, false));
            drop(scope);
            assert_eq!(witness::count(), 0);
            assert_eq!(values(&witness::take_all(sig)), (0..MANY as u64).collect::<Vec<_>>());
            assert_eq!(State::now(), before);
        }));
    }
}

// [28,606 of 28,606 while interrupts go on] The interrupter is another thread and foreign signals come from another process; the lane is opened and
// closed all the while. What the scopes hold must not be lost at a close, nor be taken for ours.
#[test]
fn what_comes_to_blocked_scopes_beside_interrupts_is_all_there_at_the_end() {
    let _t = common::begin();
    let signals = common::rounds("EINTR_HELD_SIGNALS", 800);
    let sig = libc::SIGRTMIN() + 3;
    let shared = witness::shared();
    let [ready, all_sent, ..] = &shared.count;
    let child = witness::spawn_child(|| {
        common::block(sig);
        let before = State::now();
        let (remotes, scopes) = mpsc::channel::<Remote>();
        let interrupter = common::unsignalled(move || {
            while let Ok(remote) = scopes.recv() {
                while remote.interrupt() != Delivery::Gone {}
            }
        });
        ready.store(1, SeqCst);
        let mut rounds = 0;
        while all_sent.load(SeqCst) == 0 || rounds < 100 {
            let scope = Scope::enter(sig).expect("enter");
            remotes.send(scope.remote()).expect("it lives");
            for _ in 0..10 {
                let _ = eintr::check();
                scope.clear();
            }
            if rounds % 3 == 0 {
                common::block(sig);
            }
            drop(scope);
            rounds += 1;
        }
        drop(remotes);
        interrupter.join().expect("it ended well");
        let taken = witness::take_all(sig);
        assert!(taken.iter().all(|info| info.code == libc::SI_QUEUE), "one of ours is left over");
        assert_eq!(sorted(values(&taken)), (0..signals).collect::<Vec<_>>());
        assert_eq!(State::now(), before);
    });
    common::wait_until(|| ready.load(SeqCst) == 1);
    for value in 0..signals {
        while witness::queue(child, sig, value as usize) != 0 {
            let errno = std::io::Error::last_os_error().raw_os_error();
            assert_eq!(errno, Some(libc::EAGAIN));
            std::thread::yield_now();
        }
    }
    all_sent.store(1, SeqCst);
    well(common::reap(child));
}

/// Fills the queues of the calling thread, which has the number blocked, with foreign signals and some of ours between them. Returns what the handler
/// must see: the thread's, then the process's, as the kernel delivers. `late`: the timer that sends again has expired, too.
fn fill(sig: i32, remote: &Remote, late: bool) -> Vec<u64> {
    if witness::is_standard(sig) {
        // One for each queue; ours goes into the thread's first, and the foreign one merges into it if it is for the thread. So it comes first.
        queue_to_thread(sig, 1);
        assert_eq!(remote.interrupt(), Delivery::Sent);
        queue(sig, 2);
        if late {
            // Its expiry lies beside the thread's. [taken back by the drop, it swallowed the fence, and the first of the two foreign ones was lost]
            std::thread::sleep(Duration::from_millis(1));
        }
        return vec![1, 2];
    }
    for value in 0..20 {
        if value % 5 == 0 {
            let _ = eintr::check(); // acknowledged: the next interrupt is sent although the last one lies there still
            assert_eq!(remote.interrupt(), Delivery::Sent);
        }
        queue_to_thread(sig, value);
        queue(sig, 100 + value as usize);
    }
    (0..20).chain(100..120).collect()
}

fn seen_values() -> Vec<u64> {
    witness::runs().iter().map(|run| run.info.value).collect()
}

// The user blocks the number in the scope and foreign signals gather; ours are between them. Drop opens the number, since it was open before, but
// only when the true action is in place and ours are gone: the handler sees its own action standing, every foreign one in order, and none of ours.
#[test]
fn drop_after_the_user_blocked_runs_nothing_early_and_loses_nothing() {
    let _t = common::begin();
    for sig in witness::numbers() {
        for nested in [false, true] {
            well(witness::child(|| {
                common::install(sig, witness::detailed_handler(), libc::SA_SIGINFO, &[]);
                let before = State::now();
                for round in 1..=20 {
                    witness::forget();
                    let scope = Scope::enter(sig).expect("enter");
                    let inner = nested.then(|| Scope::enter(sig).expect("enter"));
                    common::block(sig);
                    let expected = fill(sig, &scope.remote(), round % 4 < 2);
                    if inner.is_some() {
                        inner.iter().for_each(|inner| assert_ne!(inner.remote().interrupt(), Delivery::Gone));
                        drop(inner);
                        assert_eq!(
                            witness::count(),
                            0,
                            "the end of one of two scopes ran the handler, in round {round}"
                        );
                        assert_ne!(
                            common::mask() & common::bit(sig),
                            0,
                            "the user's block was undone by one of two scopes"
                        );
                    }
                    assert_eq!(witness::count(), 0);
                    drop(scope);
                    assert_eq!(seen_values(), expected, "round {round}");
                    let standing = witness::runs().iter().all(|run| run.standing == witness::detailed_handler());
                    assert!(standing, "the handler ran before its action was back in place");
                    assert_eq!(State::now(), before);
                }
            }));
        }
    }
}

// The same where the number was blocked before the scope: then it is blocked afterwards, and the handler runs when the user opens it.
#[test]
fn drop_onto_a_number_that_was_blocked_runs_nothing_at_all() {
    let _t = common::begin();
    for sig in witness::numbers() {
        for handler in behind() {
            well(witness::child(|| {
                common::install(sig, handler, libc::SA_SIGINFO, &[]);
                common::block(sig);
                let before = State::now();
                for round in 1..=20 {
                    let scope = Scope::enter(sig).expect("enter");
                    common::block(sig);
                    let expected = fill(sig, &scope.remote(), round % 4 < 2);
                    drop(scope);
                    assert_eq!(witness::count(), 0, "round {round}");
                    assert_eq!(pending(sig), (true, true));
                    if handler == libc::SIG_DFL || round % 2 == 0 {
                        assert_eq!(values(&witness::take_all(sig)), expected, "round {round}");
                    } else {
                        common::unblock(sig);
                        assert_eq!(seen_values(), expected, "round {round}");
                        common::block(sig);
                        witness::forget();
                    }
                    assert_eq!(State::now(), before);
                }
            }));
        }
    }
}

// Over the default: with nothing but ours in the queue drop must not let one of them through. [it kills]
#[test]
fn drop_after_the_user_blocked_lets_none_of_ours_through() {
    let _t = common::begin();
    for sig in witness::numbers() {
        for blocked_before in [false, true] {
            well(witness::child(|| {
                if blocked_before {
                    common::block(sig);
                }
                let before = State::now();
                for round in 0..200 {
                    let scope = Scope::enter(sig).expect("enter");
                    common::block(sig);
                    assert_eq!(scope.remote().interrupt(), Delivery::Sent);
                    if round % 2 == 0 {
                        assert!(eintr::check().is_err());
                        assert_eq!(scope.remote().interrupt(), Delivery::Sent, "acknowledged: so it is sent again");
                    }
                    drop(scope);
                    assert_eq!(State::now(), before);
                }
            }));
        }
    }
}

// A fatal one that is pending over the default kills at drop, since that opens the number, and not a moment earlier.
#[test]
fn a_pending_fatal_one_kills_when_drop_opens_the_number() {
    let _t = common::begin();
    for sig in witness::numbers() {
        for way in Way::ALL {
            let shared = witness::shared();
            let status = witness::child(|| {
                let scope = Scope::enter(sig).expect("enter");
                common::block(sig);
                if !witness::is_standard(sig) || !way.is_for_thread() {
                    assert_eq!(scope.remote().interrupt(), Delivery::Sent);
                }
                way.send(sig, 0);
                eintr::check().unwrap_or_default();
                shared.count[0].store(1, SeqCst);
                drop(scope);
                shared.count[1].store(1, SeqCst);
            });
            killed_by(sig, status);
            let reached = (shared.count[0].load(SeqCst), shared.count[1].load(SeqCst));
            assert_eq!(reached, (1, 0), "{way:?}");
        }
    }
}

/// A thread with a scope that waits in ppoll(2), which every signal breaks that it gets, until it is told to end.
struct Waiter {
    tid: libc::pid_t,
    remote: Remote,
    interrupts: Arc<AtomicU64>,
    writer: OwnedFd,
    thread: JoinHandle<()>,
}

/// How often the wait of any waiter was broken.
static BROKEN: AtomicU64 = AtomicU64::new(0);

impl Waiter {
    /// Its mask is its creator's.
    fn start(sig: i32) -> Waiter {
        let (empty, writer) = common::pipe();
        let interrupts = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&interrupts);
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mask = common::mask();
            let scope = Scope::enter(sig).expect("enter");
            tell.send((common::gettid(), scope.remote())).expect("the test waits");
            while common::plain_wait(&empty) == Err(libc::EINTR) {
                BROKEN.fetch_add(1, SeqCst);
                if scope.clear().is_some() {
                    seen.fetch_add(1, SeqCst);
                }
            }
            scope.leave().expect("the action was put back");
            assert_eq!(common::mask(), mask);
        });
        let (tid, remote) = told.recv().expect("entered");
        Waiter { tid, remote, interrupts, writer, thread }
    }

    /// Its wait is ended by its remote, however often that takes.
    fn is_interrupted(&self) {
        let before = self.interrupts.load(SeqCst);
        common::wait_until(|| {
            common::wait_blocked_in(self.tid, libc::SYS_ppoll);
            self.remote.interrupt();
            self.interrupts.load(SeqCst) > before
        });
    }

    fn end(self) {
        assert_eq!(unsafe { libc::write(self.writer.as_raw_fd(), c"x".as_ptr().cast(), 1) }, 1);
        self.thread.join().expect("it ended well");
    }
}

/// Waits until nothing happens to the waiters any more: for 100 ms no wait is broken, and all stand in one.
fn wait_until_quiet(waiters: &[Waiter]) {
    loop {
        let broken = BROKEN.load(SeqCst);
        waiters.iter().for_each(|waiter| common::wait_blocked_in(waiter.tid, libc::SYS_ppoll));
        let start = Instant::now();
        common::wait_until(|| start.elapsed() > Duration::from_millis(100));
        if BROKEN.load(SeqCst) == broken {
            return;
        }
    }
}

// Two threads that had the number blocked, each with a scope, and nobody who waits for the signal: each would post it back, and the other, whose
// number is open, would get it, for ever. It comes to rest in one of them, interrupts work all the while, and at the end all of it is there.
#[test]
fn two_threads_that_had_it_blocked_do_not_hand_it_to_each_other_for_ever() {
    let _t = common::begin();
    for sig in witness::numbers() {
        for alike in [false, true] {
            for threads in [2, 3] {
                println!("signal {sig}, alike: {alike}, {threads} threads");
                well(witness::child(|| {
                    common::block(sig);
                    let before = State::now();
                    let waiters: Vec<_> = (0..threads).map(|_| Waiter::start(sig)).collect();
                    let signals = if witness::is_standard(sig) { 1 } else { 60 };
                    for value in 0..signals {
                        if alike {
                            Way::Kill.send(sig, 0);
                        } else {
                            queue(sig, value);
                        }
                        if value % 20 == 10 {
                            wait_until_quiet(&waiters);
                        }
                    }
                    wait_until_quiet(&waiters);
                    assert_eq!(pending(sig), (false, false), "it lies where the scoped threads could get it");
                    waiters.iter().for_each(Waiter::is_interrupted);
                    wait_until_quiet(&waiters);
                    waiters.into_iter().for_each(Waiter::end);
                    let taken = sorted(values(&witness::take_all(sig)));
                    let expected: Vec<u64> = (0..signals as u64).map(|v| if alike { 0 } else { v }).collect();
                    assert_eq!(taken, expected);
                    assert_eq!(State::now(), before);
                }));
            }
        }
    }
}

// One thread had it blocked and one had it open: what comes to the first is posted back, and the second runs the handler. What it does not take in time
// is there at the end.
#[test]
fn of_two_threads_the_one_that_had_it_open_runs_the_handler() {
    let _t = common::begin();
    let sig = libc::SIGRTMIN() + 3;
    const SIGNALS: usize = 200;
    well(witness::child(|| {
        common::install(sig, witness::detailed_handler(), libc::SA_SIGINFO, &[]);
        let open = Waiter::start(sig);
        common::block(sig);
        let blocked = Waiter::start(sig);
        for value in 0..SIGNALS {
            queue(sig, value);
        }
        let waiters = [open, blocked];
        wait_until_quiet(&waiters);
        let [open, blocked] = waiters;
        let taker = open.tid;
        blocked.end();
        // Now the open one alone is left, and gets what was held.
        common::wait_until(|| witness::count() == SIGNALS);
        open.end();
        let runs = witness::runs();
        assert!(runs.iter().all(|run| run.tid == taker), "the handler ran on a thread that had its number blocked");
        assert_eq!(sorted(runs.iter().map(|run| run.info.value).collect()), (0..SIGNALS as u64).collect::<Vec<_>>());
    }));
}

// What is sent to a thread is for that thread: it is not offered to others, and goes back to its queue.
#[test]
fn what_was_sent_to_the_thread_goes_back_to_the_thread() {
    let _t = common::begin();
    for sig in witness::numbers() {
        well(witness::child(|| {
            common::block(sig);
            let start = Barrier::new(2);
            std::thread::scope(|threads| {
                let waiter = threads.spawn(|| {
                    start.wait();
                    let taken = witness::wait_for(sig); // its own, when all is over
                    assert_eq!(
                        (taken.code, taken.value),
                        (libc::SI_QUEUE, 1),
                        "it got what was sent to another thread"
                    );
                });
                let before = State::now();
                let scope = Scope::enter(sig).expect("enter");
                start.wait();
                for way in [Way::Raise, Way::PthreadKill, Way::TgkillFromOutside] {
                    way.send(sig, 0);
                    common::getpid();
                }
                assert_eq!(pending(sig), (false, false));
                drop(scope);
                assert_eq!(pending(sig), (true, false));
                let each = if witness::is_standard(sig) { 1 } else { 3 };
                assert_eq!(witness::take_all(sig).len(), each);
                assert_eq!(State::now(), before);
                queue(sig, 1);
                waiter.join().expect("it got its own");
            });
        }));
    }
}

// An Interrupt policy beats giving back: the scope asked for these signals, so they are its own, also those that were pending before it.
#[test]
fn an_interrupt_policy_beats_giving_back() {
    let _t = common::begin();
    for sig in witness::numbers() {
        for policy in [Foreign::Interrupt, Foreign::InterruptAndChain, Foreign::InterruptOnce] {
            well(witness::child(|| {
                common::block(sig);
                let before = State::now();
                let scope = ScopeOptions::new(sig).foreign(policy).enter().expect("enter");
                for way in Way::ALL {
                    way.send(sig, 0);
                    common::getpid();
                    assert_eq!(eintr::check().map_err(|i| i.reason()), Err(Reason::Signal), "{policy:?}, {way:?}");
                    assert!(scope.clear().is_some());
                }
                drop(scope);
                assert_eq!(State::now(), before, "{policy:?}: one of them was kept besides");
                assert!(witness::take(sig).is_none());
            }));
        }
    }
}

// While a foreign one is offered to others the timer of an interrupt may expire, and is taken back with it. The resend goes on all the same: a plain call
// that begins afterwards is ended. [blocked for ever: the lane took its timer to be armed]
#[test]
fn a_resend_that_is_taken_back_with_a_foreign_one_goes_on() {
    let _t = common::begin();
    for sig in witness::numbers() {
        well(witness::child(|| {
            common::block(sig);
            let before = State::now();
            let scope = Scope::enter(sig).expect("enter");
            let (empty, _writer) = common::pipe();
            for round in 0..100 {
                assert_eq!(scope.remote().interrupt(), Delivery::Sent, "it lands at once, outside of any call");
                Way::Kill.send(sig, 0);
                assert_eq!(common::plain_read(&empty), Err(libc::EINTR), "round {round}");
                assert!(scope.clear().is_some());
            }
            drop(scope);
            assert_eq!(witness::take_all(sig).len(), if witness::is_standard(sig) { 1 } else { 100 });
            assert_eq!(State::now(), before);
        }));
    }
}

// The same of an interrupt that is sent once: it may be taken back with the foreign one that the call was interrupted by, and ends the call then.
// [with calls that restart: blocked for ever]
#[test]
fn the_only_signal_that_is_taken_back_with_a_foreign_one_ends_the_call() {
    let _t = common::begin();
    for sig in witness::numbers() {
        well(witness::child(|| {
            common::block(sig);
            let scope = Scope::enter(sig).expect("enter");
            let (remote, me) = (scope.remote(), common::gettid());
            let (empty, _writer) = common::pipe();
            let (tell, told) = mpsc::channel();
            let interrupter = common::unsignalled(move || {
                let mut random = common::Random::new();
                while told.recv().is_ok() {
                    common::wait_blocked_in(me, libc::SYS_read);
                    Way::Kill.send(sig, 0);
                    std::thread::sleep(Duration::from_micros(random.below(150)));
                    assert_ne!(remote.interrupt_once(), Delivery::Gone);
                }
            });
            for round in 0..200 {
                tell.send(()).expect("it waits");
                assert_eq!(common::plain_read(&empty), Err(libc::EINTR), "round {round}");
                assert!(scope.clear().is_some());
            }
            drop(tell);
            interrupter.join().expect("it ends");
        }));
    }
}

// The number was blocked, so the handler behind would not have run; nor does it under a policy that runs it first.
// With `Ignore` nothing is done and nothing kept.
#[test]
fn ignore_keeps_nothing_of_a_number_that_was_blocked() {
    let _t = common::begin();
    for sig in witness::numbers() {
        well(witness::child(|| {
            common::install(sig, witness::plain_handler(), 0, &[]);
            common::block(sig);
            let before = State::now();
            let scope = ScopeOptions::new(sig).foreign(Foreign::Ignore).enter().expect("enter");
            for way in Way::ALL {
                way.send(sig, 0);
                common::getpid();
                assert!(scope.interrupted().is_none());
            }
            drop(scope);
            assert_eq!((State::now(), witness::count()), (before, 0));
        }));
    }
}

// The bit belongs to the lane: taken by its first scope, put back by its last, whatever the user did to it meanwhile and in whatever order they end.
#[test]
fn the_mask_is_what_it_was_whatever_the_user_did_to_it() {
    let _t = common::begin();
    for sig in witness::numbers() {
        for blocked_before in [false, true] {
            well(witness::child(|| {
                if blocked_before {
                    common::block(sig);
                }
                let before = State::now();
                let mut random = common::Random::new();
                for _ in 0..500 {
                    let mut scopes: Vec<_> = (0..3).map(|_| Scope::enter(sig).expect("enter")).collect();
                    for _ in 0..6 {
                        match random.below(4) {
                            0 => _ = common::block(sig),
                            1 => _ = common::unblock(sig),
                            2 => _ = scopes[random.below(3) as usize].remote().interrupt(),
                            _ => _ = eintr::check(),
                        }
                    }
                    while !scopes.is_empty() {
                        let mask = common::mask();
                        drop(scopes.swap_remove(random.below(scopes.len() as u64) as usize));
                        assert!(scopes.is_empty() || common::mask() == mask, "one of several scopes changed the mask");
                    }
                    assert_eq!(State::now(), before);
                }
            }));
        }
    }
}
