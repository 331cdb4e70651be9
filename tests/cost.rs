//! What the crate costs, counted in system calls: nothing at all on threads without a scope, but for the signals that come to them anyway; and for
//! each operation on a thread with one, the calls that it must make.
//!
//! The calls are counted by ptrace(2), on one thread of a forked child. Where tracing is not permitted the tests say so and do nothing.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)] // as in tests/common

mod common;
#[path = "common/traced.rs"]
mod traced;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use eintr::{Delivery, Foreign, Remote, Resend, Scope, ScopeOptions, Status, Ticket};
use traced::{
    ACTION, Event, GETPID, GETTID, MAKE_TIMER, MASK, QUEUE, READ, RETURN, SET_TIMER, TGKILL, mark, measured, trace,
    without_probes,
};

extern "C" fn count(_: i32) {
    RUNS.fetch_add(1, SeqCst);
}
static RUNS: AtomicU64 = AtomicU64::new(0);

/// A thread with a scope on `sig`, for as long as the returned sender lives.
fn scoped_thread(sig: i32) -> (Remote, mpsc::Sender<()>, std::thread::JoinHandle<()>) {
    let (give, given) = mpsc::channel();
    let (end, ends) = mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        let scope = Scope::enter(sig).expect("entered");
        give.send(scope.remote()).unwrap();
        let _ = ends.recv();
    });
    (given.recv().unwrap(), end, thread)
}

/// What a thread does that knows nothing of scopes.
fn work() {
    let mut buffer = [0u8; 8];
    let (reader, writer) = common::pipe();
    let (from, to) = (std::os::fd::AsRawFd::as_raw_fd(&reader), std::os::fd::AsRawFd::as_raw_fd(&writer));
    let lock = std::sync::Mutex::new(0);
    let pause = libc::timespec { tv_sec: 0, tv_nsec: 1000 };
    unsafe {
        assert_eq!(libc::write(to, buffer.as_ptr().cast(), 8), 8);
        assert_eq!(libc::read(from, buffer.as_mut_ptr().cast(), 8), 8);
        let mut set = libc::pollfd { fd: from, events: libc::POLLIN, revents: 0 };
        assert_eq!(libc::poll(&mut set, 1, 1), 0);
        assert_eq!(libc::nanosleep(&pause, std::ptr::null_mut()), 0);
        libc::sched_yield();
    }
    *lock.lock().unwrap() += 1;
    common::mask();
}

/// Beside scopes that are entered, interrupted and left on other threads, a thread without one makes the very same calls as without the crate, and
/// gets no signal.
#[test]
fn a_thread_without_a_scope_pays_nothing() {
    let _t = common::begin();
    const ROUNDS: u64 = 200;
    let Some(alone) = trace(|| {
        work();
        mark(1);
        (0..ROUNDS).for_each(|_| work());
        mark(0);
    }) else {
        return;
    };
    let beside = trace(|| {
        let (sig, other) = (libc::SIGUSR1, libc::SIGRTMIN() + 1);
        let (remote, end, thread) = scoped_thread(sig);
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let sender = std::thread::spawn({
            let (stop, sent) = (stop.clone(), sent.clone());
            move || {
                while !stop.load(SeqCst) {
                    let own = Scope::enter(other).expect("entered");
                    if own.remote().interrupt() == Delivery::Sent {
                        sent.fetch_add(1, SeqCst);
                    }
                    drop(own);
                    // Nobody acknowledges this one, so it is sent again and again.
                    assert_ne!(remote.interrupt(), Delivery::Gone);
                }
            }
        });
        common::wait_until(|| sent.load(SeqCst) > 0);
        work();
        let before = sent.load(SeqCst);
        mark(1);
        (0..ROUNDS).for_each(|_| work());
        mark(0);
        assert!(sent.load(SeqCst) > before, "nothing went on meanwhile");
        stop.store(true, SeqCst);
        sender.join().unwrap();
        drop(end);
        thread.join().unwrap();
    });
    assert_eq!(Some(alone), beside);
}

/// The free functions, and everything that only looks, on a thread that never had a scope: no system call, whether others have scopes or not.
#[test]
fn looking_without_a_scope_makes_no_system_call() {
    let _t = common::begin();
    let look = || {
        assert_eq!(eintr::check(), Ok(()));
        assert!(!eintr::is_interruptible());
        assert_eq!(eintr::retry(|| 7), Ok(7));
    };
    let Some(parts) = trace(|| {
        mark(1);
        look();
        mark(0);
        let (remote, end, thread) = scoped_thread(libc::SIGUSR1);
        mark(2);
        look();
        assert!(!remote.is_closed());
        drop(remote.clone());
        mark(0);
        drop(end);
        thread.join().unwrap();
        mark(3);
        look();
        assert!(remote.is_closed());
        assert_eq!(remote.wait(Duration::ZERO), Status::Closed);
        mark(0);
    }) else {
        return;
    };
    assert_eq!(parts.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
    for (part, events) in parts {
        assert_eq!(events, [], "part {part}");
    }
}

/// A foreign signal on a thread without a scope, while another thread has one on the number: the handler behind runs as it would, five calls dearer:
/// all signals blocked, whoever called; which thread this is; which process, since a child of vfork shares our memory; and the mask that the kernel
/// would have set, there and back. The first and the thousandth alike.
#[test]
fn a_foreign_signal_on_a_thread_without_a_scope_costs_five_calls_more() {
    let _t = common::begin();
    for sig in [libc::SIGUSR1, libc::SIGRTMIN() + 1] {
        let raise = move |part| {
            let before = RUNS.load(SeqCst);
            let (pid, tid) = (common::getpid(), common::gettid());
            mark(part);
            unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, sig) };
            mark(0);
            assert_eq!(RUNS.load(SeqCst), before + 1);
        };
        let Some(parts) = trace(move || {
            common::install(sig, count as *const () as usize, libc::SA_RESTART, &[]);
            raise(1);
            let (_remote, end, thread) = scoped_thread(sig);
            raise(2);
            (0..1000).for_each(|_| raise(3));
            raise(4);
            drop(end);
            thread.join().unwrap();
            raise(5);
        }) else {
            return;
        };
        let plain = [TGKILL, Event::Signal(sig), RETURN];
        let ours = [TGKILL, Event::Signal(sig), MASK, GETTID, GETPID, MASK, MASK, RETURN];
        assert_eq!(parts[&1], plain, "without the crate");
        assert_eq!(parts[&2], ours, "the first");
        assert_eq!(parts[&3].chunks(ours.len()).find(|events| *events != ours), None);
        assert_eq!(parts[&4], ours, "the last");
        assert_eq!(parts[&5], plain, "after the last scope: as before");
    }
}

/// One operation and the calls that it is to make.
struct Row {
    name: &'static str,
    calls: Vec<Event>,
}

/// Every operation, after a first round that makes what is made once.
#[test]
fn each_operation_makes_the_calls_it_must_and_no_others() {
    let _t = common::begin();
    let sig = libc::SIGRTMIN() + 1;
    let arrival = [Event::Signal(sig), MASK, GETTID, RETURN];
    let send = [MASK, ACTION, QUEUE, MASK];
    let rows = [
        Row { name: "enter, the first scope on the number", calls: vec![MASK, ACTION, ACTION, MASK] },
        Row { name: "enter, nested", calls: vec![] },
        Row { name: "looking", calls: vec![] },
        Row { name: "leave, nested", calls: vec![] },
        Row { name: "interrupt", calls: [&send[..], &arrival[..]].concat() },
        Row { name: "looking at an interrupt", calls: vec![] },
        Row { name: "check that fails", calls: vec![MASK, MASK] },
        Row { name: "clear", calls: vec![MASK, MASK] },
        Row { name: "interrupt with the number blocked", calls: send.to_vec() },
        Row { name: "interrupt again, the signal still on its way", calls: vec![] },
        Row { name: "leave after an interrupt", calls: vec![MASK, MASK, MASK, ACTION, ACTION, MASK] },
        Row { name: "interrupt of an ended scope", calls: vec![MASK, MASK] },
        Row { name: "leave, the last scope on the number", calls: vec![MASK, ACTION, ACTION, MASK] },
        Row { name: "enter where another thread has a scope", calls: vec![MASK] },
        Row { name: "leave where another thread has a scope", calls: vec![MASK] },
        Row { name: "a ticket, interrupted and dropped", calls: vec![MASK, MASK] },
    ];
    let part = |name: &str| 1 + rows.iter().position(|row| row.name == name).expect("a row") as u64;
    let round = |on: bool| {
        let part = |name| if on { part(name) } else { 0 };
        let scope = measured(part("enter, the first scope on the number"), || Scope::enter(sig)).expect("entered");
        let inner = measured(part("enter, nested"), || Scope::enter(sig)).expect("entered");
        let remote = scope.remote();
        measured(part("looking"), || {
            assert_eq!(eintr::check(), Ok(()));
            assert!(eintr::is_interruptible() && scope.interrupted().is_none());
            assert_eq!(eintr::retry(|| 7), Ok(7));
            let again = scope.remote();
            assert!(!again.clone().is_closed());
        });
        measured(part("leave, nested"), || drop(inner));
        assert_eq!(measured(part("interrupt"), || remote.interrupt_once()), Delivery::Sent);
        assert!(measured(part("looking at an interrupt"), || scope.interrupted()).is_some());
        assert!(measured(part("check that fails"), eintr::check).is_err());
        assert!(measured(part("clear"), || scope.clear()).is_some());
        common::block(sig);
        assert_eq!(measured(part("interrupt with the number blocked"), || remote.interrupt_once()), Delivery::Sent);
        let again = measured(part("interrupt again, the signal still on its way"), || remote.interrupt_once());
        assert_eq!(again, Delivery::Held);
        common::unblock(sig);
        measured(part("leave after an interrupt"), || drop(scope));
        let answer = measured(part("interrupt of an ended scope"), || remote.interrupt_once());
        assert_eq!(answer, Delivery::Gone);
        let scope = Scope::enter(sig).expect("entered");
        measured(part("leave, the last scope on the number"), || drop(scope));
        let (_, end, thread) = scoped_thread(sig);
        let scope = measured(part("enter where another thread has a scope"), || Scope::enter(sig)).expect("entered");
        measured(part("leave where another thread has a scope"), || drop(scope));
        drop(end);
        thread.join().unwrap();
        measured(part("a ticket, interrupted and dropped"), || {
            let (ticket, remote) = Ticket::new();
            assert_eq!(remote.interrupt_once(), Delivery::Held);
            drop(ticket);
        });
    };
    let Some(parts) = trace(|| {
        round(false);
        round(true);
    }) else {
        return;
    };
    for row in &rows {
        assert_eq!(without_probes(&parts[&part(row.name)]), row.calls, "{}", row.name);
    }
}

/// A request that is to be sent again until somebody acknowledges it: a timer that is made once, and one call to arm it; asked again it is nothing.
#[test]
fn a_resend_costs_a_timer_once_and_a_setting_each_time() {
    let _t = common::begin();
    let sig = libc::SIGRTMIN() + 1;
    let arrival = [Event::Signal(sig), MASK, GETTID, RETURN];
    let rows = [
        Row { name: "the first", calls: [&[MASK, ACTION, MAKE_TIMER, QUEUE, SET_TIMER, MASK][..], &arrival].concat() },
        Row { name: "again", calls: vec![] },
        Row { name: "check that fails", calls: vec![MASK, SET_TIMER, MASK] },
        Row { name: "check that fails again", calls: vec![MASK, MASK] },
        Row { name: "clear", calls: vec![MASK, MASK] },
        Row { name: "the second", calls: [&[MASK, ACTION, QUEUE, SET_TIMER, MASK][..], &arrival].concat() },
        Row { name: "clear of an armed one", calls: vec![MASK, SET_TIMER, MASK] },
        Row { name: "leave", calls: vec![MASK, SET_TIMER, MASK, MASK, ACTION, ACTION, MASK] },
        Row { name: "in the next scope", calls: [&[MASK, ACTION, QUEUE, SET_TIMER, MASK][..], &arrival].concat() },
    ];
    let part = |name: &str| 1 + rows.iter().position(|row| row.name == name).expect("a row") as u64;
    // So long that none comes meanwhile.
    let hour = Duration::from_secs(3600);
    let options = || ScopeOptions::new(sig).resend(Resend::Backoff { first: hour, ceiling: hour });
    let Some(parts) = trace(|| {
        drop(Scope::enter(sig).expect("entered"));
        let scope = options().enter().expect("entered");
        let remote = scope.remote();
        assert_eq!(measured(part("the first"), || remote.interrupt()), Delivery::Sent);
        assert_eq!(measured(part("again"), || remote.interrupt()), Delivery::Held);
        assert!(measured(part("check that fails"), eintr::check).is_err());
        assert!(measured(part("check that fails again"), eintr::check).is_err());
        assert!(measured(part("clear"), || scope.clear()).is_some());
        assert_eq!(measured(part("the second"), || remote.interrupt()), Delivery::Sent);
        assert!(measured(part("clear of an armed one"), || scope.clear()).is_some());
        assert_eq!(remote.interrupt(), Delivery::Sent);
        measured(part("leave"), || drop(scope));
        let scope = options().enter().expect("entered");
        assert_eq!(measured(part("in the next scope"), || scope.remote().interrupt()), Delivery::Sent);
    }) else {
        return;
    };
    for row in &rows {
        assert_eq!(without_probes(&parts[&part(row.name)]), row.calls, "{}", row.name);
    }
}

/// A deadline: a timer that is made once; then a look at the action that stands and one setting, where it is the earliest; nothing where it is not. The same for
/// a reset. Looking is free.
#[test]
fn a_deadline_costs_a_look_and_a_setting_if_it_is_the_earliest_and_nothing_else() {
    let _t = common::begin();
    let set = vec![ACTION, SET_TIMER];
    let rows = [
        Row { name: "the first", calls: vec![MAKE_TIMER, ACTION, SET_TIMER] },
        Row { name: "drop of the only one", calls: vec![SET_TIMER] },
        Row { name: "made", calls: set.clone() },
        Row { name: "looking", calls: vec![] },
        Row { name: "a later one", calls: vec![] },
        Row { name: "one without end", calls: vec![] },
        Row { name: "looking at one that is not the earliest", calls: vec![] },
        Row { name: "reset of a later one", calls: vec![] },
        Row { name: "reset of the earliest, forward", calls: set.clone() },
        Row { name: "reset of the earliest, back", calls: set.clone() },
        Row { name: "reset of the earliest behind the next", calls: set.clone() },
        Row { name: "reset of a later one before the earliest", calls: set.clone() },
        Row { name: "drop of a later one", calls: vec![] },
        Row { name: "drop of the earliest", calls: set.clone() },
        Row { name: "drop of the one without end", calls: vec![] },
        Row { name: "enter with an own one", calls: vec![ACTION, SET_TIMER] },
        Row { name: "enter with an own one that is later", calls: vec![] },
        Row { name: "leave of a nested scope with its own", calls: vec![MASK, ACTION, SET_TIMER, MASK] },
        Row { name: "leave, armed", calls: vec![MASK, SET_TIMER, MASK, MASK, ACTION, ACTION, MASK] },
        Row { name: "enter, after deadlines", calls: vec![MASK, ACTION, ACTION, MASK] },
        Row { name: "leave, without one", calls: vec![MASK, ACTION, ACTION, MASK] },
    ];
    let part = |name: &str| 1 + rows.iter().position(|row| row.name == name).expect("a row") as u64;
    let sig = libc::SIGRTMIN() + 1;
    let hours = |n: u64| Duration::from_secs(3600 * n);
    let Some(parts) = trace(|| {
        drop(Scope::enter(sig).expect("entered"));
        let now = Instant::now();
        let scope = Scope::enter(sig).expect("entered");
        let limit = measured(part("the first"), || scope.timeout(hours(1))).expect("made");
        measured(part("drop of the only one"), || drop(limit));
        let limit = measured(part("made"), || scope.deadline(now + hours(2))).expect("made");
        measured(part("looking"), || {
            assert!(!limit.expired() && scope.interrupted().is_none());
            assert_eq!(eintr::check(), Ok(()));
        });
        let later = measured(part("a later one"), || scope.deadline(now + hours(4))).expect("made");
        let endless = measured(part("one without end"), || scope.timeout(Duration::MAX)).expect("made");
        assert!(!measured(part("looking at one that is not the earliest"), || later.expired()));
        measured(part("reset of a later one"), || later.reset(now + hours(5)));
        measured(part("reset of the earliest, forward"), || limit.reset(now + hours(3)));
        measured(part("reset of the earliest, back"), || limit.reset(now + hours(1)));
        measured(part("reset of the earliest behind the next"), || limit.reset(now + hours(6)));
        measured(part("reset of a later one before the earliest"), || limit.reset(now + hours(2)));
        measured(part("drop of a later one"), || drop(later));
        let later = scope.deadline(now + hours(5)).expect("made");
        measured(part("drop of the earliest"), || drop(limit));
        measured(part("drop of the one without end"), || drop(endless));
        let own = |n| ScopeOptions::new(sig).timeout(hours(n));
        let inner = measured(part("enter with an own one"), || own(1).enter()).expect("entered");
        let innermost = measured(part("enter with an own one that is later"), || own(9).enter()).expect("entered");
        measured(part("leave of a nested scope with its own"), || drop(inner));
        drop(innermost);
        std::mem::forget(later);
        measured(part("leave, armed"), || drop(scope));
        let scope = measured(part("enter, after deadlines"), || Scope::enter(sig)).expect("entered");
        measured(part("leave, without one"), || drop(scope));
    }) else {
        return;
    };
    for row in &rows {
        assert_eq!(without_probes(&parts[&part(row.name)]), row.calls, "{}", row.name);
    }
}

/// One that passes: an arrival, and the setting of what comes next; until it is acknowledged, which sets the timer once more. Then nothing, though it is due.
#[test]
fn a_deadline_that_passes_costs_an_arrival_and_taking_it_back_one_setting() {
    let _t = common::begin();
    let sig = libc::SIGRTMIN() + 1;
    let hour = Duration::from_secs(3600);
    let rows = [
        Row { name: "passes", calls: vec![Event::Signal(sig), MASK, GETTID, SET_TIMER, RETURN] },
        Row { name: "looking", calls: vec![] },
        Row { name: "check that fails", calls: vec![MASK, SET_TIMER, MASK] },
        Row { name: "check that fails again", calls: vec![MASK, MASK] },
        Row { name: "reset", calls: vec![MASK, ACTION, SET_TIMER, MASK] },
        Row { name: "made, and due at once", calls: vec![MASK, ACTION, SET_TIMER, MASK] },
        Row { name: "drop of one that is due", calls: vec![MASK, ACTION, SET_TIMER, MASK] },
    ];
    let part = |name: &str| 1 + rows.iter().position(|row| row.name == name).expect("a row") as u64;
    let Some(parts) = trace(|| {
        let options = ScopeOptions::new(sig).resend(Resend::Backoff { first: hour, ceiling: hour });
        let scope = options.enter().expect("entered");
        let limit = scope.timeout(Duration::from_millis(30)).expect("made");
        measured(part("passes"), || {
            let until = Instant::now() + Duration::from_millis(90);
            while Instant::now() < until {} // by the vDSO: no system call
        });
        measured(part("looking"), || assert!(limit.expired() && scope.interrupted().is_some()));
        assert!(measured(part("check that fails"), eintr::check).is_err());
        assert!(measured(part("check that fails again"), eintr::check).is_err());
        measured(part("reset"), || limit.reset(Instant::now() + hour));
        let due = measured(part("made, and due at once"), || scope.timeout(Duration::ZERO)).expect("made");
        measured(part("drop of one that is due"), || drop(due));
        assert_eq!(eintr::check(), Ok(()));
    }) else {
        return;
    };
    for row in &rows {
        assert_eq!(without_probes(&parts[&part(row.name)]), row.calls, "{}", row.name);
    }
}

/// An expiry arms the next one by one call more than any other arrival, and once it is acknowledged nothing comes any more.
#[test]
fn an_expiry_costs_one_setting_until_it_is_acknowledged() {
    let _t = common::begin();
    let sig = libc::SIGUSR1;
    let spin = |time: Duration| {
        let until = Instant::now() + time;
        while Instant::now() < until {} // by the vDSO: no system call
    };
    let Some(parts) = trace(|| {
        let pause = Duration::from_millis(2);
        let options = ScopeOptions::new(sig).resend(Resend::Backoff { first: pause, ceiling: pause });
        let scope = options.enter().expect("entered");
        assert_eq!(scope.remote().interrupt(), Delivery::Sent);
        measured(1, || spin(pause * 20));
        assert!(eintr::check().is_err());
        measured(2, || spin(pause * 20));
        assert_eq!(scope.remote().interrupt_once(), Delivery::Sent);
        measured(3, || spin(pause * 20));
    }) else {
        return;
    };
    let expiry = [Event::Signal(sig), MASK, GETTID, SET_TIMER, RETURN];
    let resent = without_probes(&parts[&1]);
    assert!(resent.len() >= expiry.len(), "none came");
    assert_eq!(resent.chunks(expiry.len()).find(|events| *events != expiry), None);
    assert_eq!(parts[&2], [], "after the acknowledgement");
    assert_eq!(parts[&3], [], "after one that was to be sent once");
}

/// A scope that is never interrupted creates, arms and sends nothing, whatever is done in it.
#[test]
fn without_an_interrupt_there_is_no_timer_and_no_signal() {
    let _t = common::begin();
    let Some(parts) = trace(|| {
        measured(1, || {
            for sig in [libc::SIGUSR1, libc::SIGRTMIN() + 1] {
                for policy in [Foreign::Chain, Foreign::Interrupt, Foreign::InterruptOnce, Foreign::Ignore] {
                    let outer = ScopeOptions::new(sig).foreign(policy).enter().expect("entered");
                    let inner = Scope::enter(sig).expect("entered");
                    work();
                    assert_eq!(eintr::check(), Ok(()));
                    assert_eq!(eintr::retry(|| 7), Ok(7));
                    assert!(outer.clear().is_none());
                    drop(outer);
                    inner.leave().expect("left");
                }
            }
        });
    }) else {
        return;
    };
    let sends = [MAKE_TIMER, SET_TIMER, QUEUE, TGKILL, Event::Call(libc::SYS_rt_sigqueueinfo)];
    let found = |event: &&Event| sends.contains(event) || matches!(event, Event::Signal(_) | Event::Probe);
    assert_eq!(parts[&1].iter().find(found), None);
}

/// What is asked once in the life of a thread (its stack, and what libc must read or allocate for that) is asked at its first scope, and has nothing to do
/// with signals: those calls are the same four, at the end. From then on a first scope on any number makes these alone.
#[test]
fn the_first_scope_of_a_thread_asks_for_its_stack_and_no_later_one_does() {
    let _t = common::begin();
    // What is done once in the life of the process is done by then.
    std::thread::spawn(|| drop(Scope::enter(libc::SIGUSR1))).join().expect("entered and left");
    let Some(parts) = trace(|| {
        drop(measured(1, || Scope::enter(libc::SIGUSR1)));
        drop(measured(2, || Scope::enter(libc::SIGUSR1)));
        drop(measured(3, || Scope::enter(libc::SIGRTMIN() + 1)));
    }) else {
        return;
    };
    let cold = [MASK, ACTION, ACTION, MASK];
    assert!(parts[&1].ends_with(&cold), "{:?}", parts[&1]);
    let about_signals = |event: &&Event| [MASK, ACTION, QUEUE, MAKE_TIMER, SET_TIMER, TGKILL].contains(event);
    assert_eq!(parts[&1].iter().filter(about_signals).count(), cold.len(), "{:?}", parts[&1]);
    assert_eq!((&parts[&2][..], &parts[&3][..]), (&cold[..], &cold[..]));
}

/// A call of the crate's own is the kernel's call and nothing else: on a thread that never had a scope, in one, in two, and after the last.
#[test]
fn a_call_through_the_crate_is_one_system_call() {
    let _t = common::begin();
    let sig = libc::SIGUSR1;
    let Some(parts) = trace(|| {
        let zero = std::fs::File::open("/dev/zero").expect("there is one");
        let read = |part| {
            let mut buffer = [1u8; 8];
            assert_eq!(measured(part, || eintr::sys::read(&zero, &mut buffer)), Ok(8));
            assert_eq!(buffer, [0; 8]);
        };
        read(1);
        let outer = Scope::enter(sig).expect("entered");
        read(2);
        let inner = Scope::enter(libc::SIGUSR2).expect("entered");
        read(3);
        assert_eq!(inner.remote().interrupt(), Delivery::Sent);
        assert!(inner.clear().is_some());
        read(4);
        drop((outer, inner));
        read(5);
    }) else {
        return;
    };
    for (part, events) in parts {
        assert_eq!(events, [READ], "part {part}");
    }
}

/// One that finds an interrupt pending does not reach the kernel: what is left is the acknowledgement.
#[test]
fn a_call_that_is_cancelled_makes_no_call_of_its_own() {
    let _t = common::begin();
    let Some(parts) = trace(|| {
        let zero = std::fs::File::open("/dev/zero").expect("there is one");
        let scope = Scope::enter(libc::SIGUSR1).expect("entered");
        assert_eq!(scope.remote().interrupt_once(), Delivery::Sent);
        let answer = measured(1, || eintr::sys::read(&zero, &mut [0; 8]));
        assert!(answer.expect_err("it is cancelled").interrupted().is_some());
    }) else {
        return;
    };
    assert_eq!(parts[&1], [MASK, MASK]);
}

/// Where nothing was sent since the lanes opened, a shield is a matter of atomics.
#[test]
fn a_shield_makes_no_system_call_unless_something_was_sent() {
    let _t = common::begin();
    let up_and_down = || {
        let guards = (eintr::shield(), eintr::shield());
        drop(guards.0);
        assert!(!eintr::is_interruptible() && eintr::check().is_ok());
        drop(guards.1);
    };
    let Some(parts) = trace(|| {
        measured(1, up_and_down);
        for sig in [libc::SIGUSR1, libc::SIGRTMIN() + 1] {
            let scope = Scope::enter(sig).expect("entered");
            assert_ne!(scope.remote().interrupt(), Delivery::Gone);
            drop(scope); // what was sent in a scope before does not count
            let outer = Scope::enter(sig).expect("entered");
            measured(2, up_and_down);
            let inner = ScopeOptions::new(sig).foreign(Foreign::Interrupt).enter().expect("entered");
            measured(3, || (0..1000).for_each(|_| up_and_down()));
            let guard = eintr::shield();
            assert_eq!(inner.remote().interrupt(), Delivery::Held);
            assert!(inner.clear().is_some()); // asked, and nothing was sent for it
            measured(4, || drop(guard));
            measured(5, up_and_down);
            drop(outer);
            measured(6, up_and_down);
            drop(inner);
            measured(7, up_and_down);
        }
    }) else {
        return;
    };
    assert_eq!(parts.keys().copied().collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7]);
    for (part, events) in parts {
        assert_eq!(events, [], "part {part}");
    }
}

/// Otherwise the mask is set twice, which is the barrier, and a timer that was set is stopped; what was kept sets it again.
#[test]
fn a_shield_over_what_was_sent_makes_the_calls_it_must() {
    let _t = common::begin();
    let sig = libc::SIGRTMIN() + 1;
    let rows = [
        Row { name: "raise while one is sent again", calls: vec![MASK, SET_TIMER, MASK] },
        Row { name: "raise another", calls: vec![MASK, MASK] },
        Row { name: "lower it", calls: vec![] },
        Row { name: "ask", calls: vec![MASK, MASK] },
        // Looked at for the timer, and for a call below.
        Row { name: "lower the last one", calls: vec![MASK, ACTION, SET_TIMER, ACTION, MASK] },
        Row { name: "raise after the acknowledgement", calls: vec![MASK, MASK] },
        Row { name: "lower with nothing that is to be sent", calls: vec![MASK, MASK] },
        Row { name: "raise after it was cleared", calls: vec![MASK, MASK] },
        Row { name: "lower with nothing asked", calls: vec![] },
    ];
    let part = |name: &str| 1 + rows.iter().position(|row| row.name == name).expect("a row") as u64;
    let hour = Duration::from_secs(3600);
    let Some(parts) = trace(|| {
        let options = ScopeOptions::new(sig).resend(Resend::Backoff { first: hour, ceiling: hour });
        let scope = options.enter().expect("entered");
        let remote = scope.remote();
        assert_eq!(remote.interrupt(), Delivery::Sent);
        let last = measured(part("raise while one is sent again"), eintr::shield);
        let another = measured(part("raise another"), eintr::shield);
        measured(part("lower it"), || drop(another));
        assert_eq!(measured(part("ask"), || remote.interrupt()), Delivery::Held);
        measured(part("lower the last one"), || drop(last));
        assert!(eintr::check().is_err());
        let guard = measured(part("raise after the acknowledgement"), eintr::shield);
        measured(part("lower with nothing that is to be sent"), || drop(guard));
        assert!(scope.clear().is_some());
        let guard = measured(part("raise after it was cleared"), eintr::shield);
        measured(part("lower with nothing asked"), || drop(guard));
    }) else {
        return;
    };
    for row in &rows {
        assert_eq!(without_probes(&parts[&part(row.name)]), row.calls, "{}", row.name);
    }
}

/// However many are asked for meanwhile.
#[test]
fn no_signal_comes_while_a_shield_is_up() {
    let _t = common::begin();
    for sig in [libc::SIGUSR1, libc::SIGRTMIN() + 1] {
        let Some(parts) = trace(|| {
            let pause = Duration::from_micros(20);
            let options = ScopeOptions::new(sig).resend(Resend::Backoff { first: pause, ceiling: pause });
            let scope = options.enter().expect("entered");
            let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
            let sender = std::thread::spawn({
                let (stop, asked, remote) = (stop.clone(), asked.clone(), scope.remote());
                move || {
                    while !stop.load(SeqCst) {
                        assert_ne!(remote.interrupt(), Delivery::Gone);
                        asked.fetch_add(1, SeqCst);
                    }
                }
            });
            for _ in 0..200 {
                common::wait_until(|| scope.interrupted().is_some());
                let guard = eintr::shield();
                let before = asked.load(SeqCst);
                measured(1, || {
                    work();
                    common::wait_until(|| asked.load(SeqCst) > before + 1);
                });
                drop(guard);
                assert!(scope.clear().is_some(), "asked meanwhile");
            }
            stop.store(true, SeqCst);
            sender.join().unwrap();
        }) else {
            return;
        };
        let signals = parts[&1].iter().filter(|event| matches!(event, Event::Signal(_))).count();
        assert_eq!((signals, parts[&1].is_empty()), (0, false), "signal {sig}");
    }
}
