//! A scope that ends, or acknowledges, beside a sender inside its gate sleeps until that sender is out (protocol 1, close and hold): it never spins, so
//! a sender of lower priority on the same core gets to leave.
// Tests make bare system calls and set scheduling policies of their own threads.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/gatekeeper.rs"]
mod gatekeeper;

use common::State;
use eintr::{Delivery, Interrupted, Scope, ScopeOptions};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const SIG: i32 = libc::SIGUSR1;

/// What a thread has cost so far: times it went to sleep, times it was preempted, and nanoseconds on a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cost {
    slept: u64,
    preempted: u64,
    ran: u64,
}

impl Cost {
    fn of(tid: libc::pid_t) -> Cost {
        let status = std::fs::read_to_string(format!("/proc/self/task/{tid}/status")).expect("the thread lives");
        let field = |name: &str| {
            let line = status.lines().find(|l| l.starts_with(name)).expect("a field of status");
            line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
        };
        // Without CONFIG_SCHED_INFO the file is missing, and the switches alone have to do.
        let times = std::fs::read_to_string(format!("/proc/self/task/{tid}/schedstat")).unwrap_or_default();
        let ran = times.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0);
        Cost { slept: field("voluntary_ctxt_switches:"), preempted: field("nonvoluntary_ctxt_switches:"), ran }
    }
}

/// Puts a sender inside the gate of a fresh scope and lets this thread do `end`, which must wait for it; while it waits, another thread looks at it.
fn waits_asleep_for_the_sender_inside<T>(what: &str, end: impl FnOnce(Scope) -> T) -> Option<T> {
    let scope = Scope::enter(SIG).expect("enter");
    let sender = scope.remote();
    let held = gatekeeper::hold_sender(move || sender.interrupt())?;
    assert!(scope.interrupted().is_some(), "pending is stored before the signal is sent");
    let (waiter, over) = (common::gettid(), AtomicBool::new(false));
    let result = std::thread::scope(|s| {
        let looker = s.spawn(|| {
            common::wait_until(|| common::blocked_in(waiter) == libc::SYS_futex || over.load(SeqCst));
            assert!(!over.load(SeqCst), "{what} did not wait for the sender inside the gate");
            // Asleep it costs nothing at all, however long it takes: the counters stand still.
            let start = Cost::of(waiter);
            std::thread::sleep(Duration::from_millis(300));
            let end = Cost::of(waiter);
            assert_eq!(common::blocked_in(waiter), libc::SYS_futex, "{what} no longer sleeps, {start:?}, {end:?}");
            assert_eq!(start, end, "{what} did something while it waited");
            assert!(!over.load(SeqCst), "{what} did not wait for the sender inside the gate");
            println!("{what}: asleep while the sender was held: {end:?}");
            held.release()
        });
        let result = end(scope);
        over.store(true, SeqCst);
        assert_eq!(looker.join().expect("the looker is content"), Delivery::Sent);
        result
    });
    Some(result)
}

// The sender has been let in and has not sent yet. A drop that did not wait would put the action back, and what is sent then kills the process.
#[test]
fn drop_waits_for_a_sender_inside_the_gate_asleep() {
    const NAME: &str = "drop_waits_for_a_sender_inside_the_gate_asleep";
    let _t = common::begin();
    let (status, text) = common::own_process(NAME, || {
        let before = State::now();
        waits_asleep_for_the_sender_inside("drop", |scope| scope.leave().expect("nobody replaced the action"));
        assert_eq!(State::now(), before);
    });
    print!("{text}");
    assert!(status.success(), "{status}");
}

// The number blocked: the signal that the sender sends on its way out has to be drained.
#[test]
fn drop_with_the_number_blocked_waits_asleep_and_drains_what_the_sender_sent() {
    const NAME: &str = "drop_with_the_number_blocked_waits_asleep_and_drains_what_the_sender_sent";
    let _t = common::begin();
    let (status, text) = common::own_process(NAME, || {
        let before = State::now();
        waits_asleep_for_the_sender_inside("drop", |scope| {
            common::block(SIG);
            drop(scope);
        });
        assert_eq!(State::now(), before);
    });
    print!("{text}");
    assert!(status.success(), "{status}");
}

// An acknowledgement holds the gate: what it takes is all that was asked for, the request of the sender inside too, and nothing of it comes later.
#[test]
fn clear_waits_for_a_sender_inside_the_gate_asleep() {
    let _t = common::begin();
    let before = State::now();
    let cleared = waits_asleep_for_the_sender_inside("clear", |scope| {
        let cleared: Option<Interrupted> = scope.clear();
        eintr::check().expect("cleared");
        cleared
    });
    if let Some(cleared) = cleared {
        assert!(cleared.is_some());
    }
    assert_eq!(State::now(), before);
}

// The gate is shut for new ones at once: they are not counted, so the wait is bounded by those who were inside.
#[test]
fn while_drop_waits_nobody_new_gets_in() {
    let _t = common::begin();
    let scope = Scope::enter(SIG).expect("enter");
    let (remote, sender) = (scope.remote(), scope.remote());
    let Some(held) = gatekeeper::hold_sender(move || sender.interrupt()) else { return };
    let waiter = common::gettid();
    std::thread::scope(|s| {
        s.spawn(move || {
            common::wait_until(|| common::blocked_in(waiter) == libc::SYS_futex);
            for _ in 0..1000 {
                assert_eq!(remote.interrupt(), Delivery::Gone);
            }
            assert_eq!(common::blocked_in(waiter), libc::SYS_futex, "those who were turned away woke the drop");
            held.release();
        });
        drop(scope);
    });
}

/// Runs the calling thread under SCHED_FIFO at `priority`, on processor `cpu` alone.
fn fifo(priority: i32, cpu: usize) -> std::io::Result<()> {
    unsafe {
        let mut one: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut one);
        let param = libc::sched_param { sched_priority: priority };
        // The thread's own id is 0 in both.
        if libc::sched_setaffinity(0, size_of_val(&one), &one) != 0
            || libc::sched_setscheduler(0, libc::SCHED_FIFO, &param) != 0
        {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}

/// The first processor that this process may use.
fn a_cpu() -> usize {
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        assert_eq!(libc::sched_getaffinity(0, size_of_val(&set), &mut set), 0);
        (0..libc::CPU_SETSIZE as usize).find(|c| libc::CPU_ISSET(*c, &set)).expect("a processor")
    }
}

// One core. The scoped thread (priority 20) sleeps in a plain call, so the sender (priority 10) runs, enters the gate and sends: the kernel wakes the scoped
// thread, which preempts the sender right there, inside. The sender will not run again before the scoped thread sleeps. A drop that spun, with
// sched_yield too, which under SCHED_FIFO yields to equals alone, would never end; one that slept for a while and looked again would cost many switches.
#[test]
fn under_sched_fifo_a_drop_beside_a_starved_sender_sleeps() {
    let _t = common::begin();
    let before = State::now();
    let rounds = common::rounds("EINTR_FIFO", 2000);
    let (tell, told) = mpsc::channel::<eintr::Remote>();
    let (ready, is_ready) = mpsc::channel::<std::io::Result<()>>();
    let cpu = a_cpu();
    let scoped = std::thread::spawn(move || {
        if let Err(e) = is_ready.recv().expect("the sender says so").and_then(|()| fifo(20, cpu)) {
            println!("SKIPPED: SCHED_FIFO is not permitted here ({e}): no drop beside a starved sender");
            return None;
        }
        let own = common::gettid();
        let start = Cost::of(own);
        let mut ended = 0;
        for n in 0..rounds {
            // A nested scope on odd rounds, whose drop is the short way: the lane lives on.
            let outer = (n % 2 == 1).then(|| ScopeOptions::new(SIG).enter().expect("enter"));
            let scope = Scope::enter(SIG).expect("enter");
            tell.send(scope.remote()).expect("the sender waits");
            let long = libc::timespec { tv_sec: 3600, tv_nsec: 0 };
            if unsafe { libc::nanosleep(&long, std::ptr::null_mut()) } == -1 {
                ended += 1;
            }
            assert!(scope.interrupted().is_some());
            drop(scope);
            drop(outer);
        }
        Some((start, Cost::of(own), ended))
    });
    let sender = std::thread::spawn(move || {
        let permitted = fifo(10, cpu);
        let quit = permitted.is_err();
        ready.send(permitted).expect("the scoped thread waits");
        let mut calls = 0u64;
        while let (false, Ok(remote)) = (quit, told.recv()) {
            while remote.interrupt() != Delivery::Gone {
                calls += 1;
            }
        }
        calls
    });
    let cost = scoped.join().expect("the scoped thread ends");
    let calls = sender.join().expect("the sender ends");
    if let Some((start, end, ended)) = cost {
        let slept = end.slept - start.slept;
        println!(
            "{rounds} rounds: slept {slept} times, {} us on the processor, {calls} interrupts",
            (end.ran - start.ran) / 1000
        );
        assert_eq!(ended, rounds, "every sleep was ended by its interrupt");
        // Asleep in the plain call, in the drop, and for the channel's lock at times: three a round, and the first rounds' page faults.
        assert!(slept >= rounds, "it slept in every plain call: {slept}");
        assert!(slept <= 4 * rounds + 100, "it slept {slept} times in {rounds} rounds: it looks again and again");
        // A sender is preempted inside the gate in every round, or this test proves nothing: then the drop slept too.
        assert!(
            slept >= rounds + rounds / 2,
            "the sender was not starved inside the gate: {slept} sleeps in {rounds} rounds"
        );
    }
    assert_eq!(State::now(), before);
}

// The same with the sender held inside for certain, and let go only when the drop waits: by then the drop has the processor for itself, if it wants it.
#[test]
fn under_sched_fifo_a_held_sender_of_lower_priority_gets_out() {
    let _t = common::begin();
    let cpu = a_cpu();
    let result = std::thread::spawn(move || {
        let own = common::gettid();
        let scope = Scope::enter(SIG).expect("enter");
        let sender = scope.remote();
        if let Err(e) = fifo(20, cpu) {
            println!("SKIPPED: SCHED_FIFO is not permitted here ({e}): no drop beside a held sender");
            return None;
        }
        let held = gatekeeper::hold_sender(move || fifo(10, cpu).map(|()| sender.interrupt()))?;
        let start = Cost::of(own);
        // Whoever lets the sender go is an ordinary thread that may run anywhere; it waits until the drop has slept or run for a while.
        let looker = unpinned(move || {
            let begun = Instant::now();
            while common::blocked_in(own) != libc::SYS_futex && begun.elapsed() < Duration::from_secs(1) {
                std::thread::yield_now();
            }
            held.release()
        });
        drop(scope);
        let end = Cost::of(own);
        assert_eq!(looker.join().expect("it ends").expect("permitted, as for this thread"), Delivery::Sent);
        Some((start, end))
    })
    .join()
    .expect("the scoped thread ends");
    if let Some((start, end)) = result {
        println!("slept {} times, {} us on the processor", end.slept - start.slept, (end.ran - start.ran) / 1000);
        assert!(end.slept > start.slept, "it did not sleep");
        assert!(end.slept - start.slept <= 5, "it slept again and again: {start:?}, {end:?}");
    }
}

/// A thread under the ordinary policy that may run on every processor, whoever starts it.
fn unpinned<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> std::thread::JoinHandle<T> {
    let (tell, told) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let param = libc::sched_param { sched_priority: 0 };
        unsafe {
            let mut all: libc::cpu_set_t = std::mem::zeroed();
            (0..libc::CPU_SETSIZE as usize).for_each(|c| libc::CPU_SET(c, &mut all));
            libc::sched_setaffinity(0, size_of_val(&all), &all);
            libc::sched_setscheduler(0, libc::SCHED_OTHER, &param);
        }
        tell.send(()).expect("the starter waits");
        f()
    });
    told.recv().expect("it started");
    thread
}
