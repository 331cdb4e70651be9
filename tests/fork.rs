//! Fork (protocol 11): the child keeps the scopes of the thread that forked and nothing else of ours, whatever the senders were doing.
// Tests fork, make bare system calls and read what the kernel says.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/gatekeeper.rs"]
mod gatekeeper;

use common::State;
use eintr::{Delivery, Reason, Remote, Scope, ScopeOptions, Status};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

const SIG: i32 = libc::SIGUSR1;
const OTHER: i32 = libc::SIGUSR2;

type Claim = Result<(), String>;

/// Forks; what the child finds wrong goes to standard error by a bare write, since the harness's capture belongs to the parent.
fn child(claims: impl FnOnce() -> Claim) -> libc::pid_t {
    common::fork(|| {
        // One that hangs with every signal blocked must not outlive the test.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        match claims() {
            Ok(()) => 0,
            Err(what) => {
                let line = format!("child {}: {what}\n", common::getpid());
                unsafe { libc::write(2, line.as_ptr().cast(), line.len()) };
                1
            }
        }
    })
}

fn reap_well(pid: libc::pid_t) {
    assert_eq!(common::reap_in_time(pid), 0, "the child's raw status; it says above what was wrong");
}

fn demand(holds: bool, what: &str) -> Claim {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}

fn state_is(before: &State, when: &str) -> Claim {
    let now = State::now();
    if now == *before {
        return Ok(());
    }
    let differ: Vec<_> = before.actions.iter().zip(&now.actions).filter(|(b, n)| b != n).collect();
    let fields = |s: &State| [s.blocked, s.pending, s.caught, s.ignored];
    Err(format!("{when}: was {:x?}, is {:x?}; actions that differ: {differ:x?}", fields(before), fields(&now)))
}

/// Remotes made by the parent do nothing in a child and say so.
fn parents_remote_is_gone(remote: &Remote) -> Claim {
    demand(remote.interrupt() == Delivery::Gone, "the parent's remote: interrupt is not Gone")?;
    demand(remote.interrupt_once() == Delivery::Gone, "the parent's remote: interrupt_once is not Gone")?;
    demand(remote.wait(Duration::from_secs(3600)) == Status::Closed, "the parent's remote: wait is not Closed")?;
    demand(remote.is_closed(), "the parent's remote is not closed")
}

/// Enters, interrupts itself, drops: all of it works, and the state is exact afterwards.
fn a_scope_works_here(sig: i32, before: &State) -> Claim {
    let scope = Scope::enter(sig).map_err(|e| format!("enter({sig}): {e}"))?;
    demand(scope.interrupted().is_none() && eintr::check().is_ok(), "a fresh scope in a child is interrupted")?;
    let remote = scope.remote();
    let answer = remote.interrupt();
    demand(answer == Delivery::Sent, &format!("a child interrupts itself: {answer:?}"))?;
    demand(scope.interrupted().is_some_and(|i| i.reason() == Reason::Remote), "not interrupted by its own remote")?;
    demand(eintr::check().is_err(), "check does not fail after an interrupt in a child")?;
    demand(scope.clear().is_some() && eintr::check().is_ok(), "clear in a child")?;
    demand(remote.interrupt() != Delivery::Gone, "gone while the scope lives")?;
    drop(scope);
    demand(remote.interrupt() == Delivery::Gone, "not gone after the drop in a child")?;
    state_is(before, "after a scope of the child's own")
}

/// A thread that interrupts all the time until it is stopped, or told that everything is gone.
struct Storm {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Storm {
    fn over(remotes: Vec<Remote>) -> Storm {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut sent = 0u64;
            while !stopped.load(SeqCst) {
                for r in &remotes {
                    // Two kinds of request by turns: one that repeats the last is answered outside the gate.
                    for answer in [r.interrupt_once(), r.interrupt()] {
                        if answer == Delivery::Sent {
                            sent += 1;
                            let _ = tell.send(());
                        }
                    }
                }
            }
            sent
        });
        told.recv().expect("the storm has begun");
        drop(told);
        Storm { stop, thread: Some(thread) }
    }

    fn end(mut self) -> u64 {
        self.stop.store(true, SeqCst);
        self.thread.take().map_or(0, |t| t.join().expect("the sender ends"))
    }
}

/// Another thread in a scope on `sig`, in a storm of interrupts.
struct Stormed {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
    storm: Storm,
    remote: Remote,
}

impl Stormed {
    fn on(sig: i32) -> Stormed {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let scope = Scope::enter(sig).expect("enter");
            tell.send(scope.remote()).expect("the test waits");
            while !stopped.load(SeqCst) {
                scope.clear();
                std::thread::yield_now();
            }
            scope.leave().expect("nobody replaced the action");
        });
        let remote = told.recv().expect("the scope is entered");
        let storm = Storm::over(vec![remote.clone()]);
        Stormed { stop, thread, storm, remote }
    }

    fn end(self) -> u64 {
        self.stop.store(true, SeqCst);
        self.thread.join().expect("the scoped thread ends");
        self.storm.end()
    }
}

/// How many forks each of the three storms below sees; together at least 2,000.
fn forks() -> u64 {
    common::rounds("EINTR_FORKS", 700)
}

// The sender stands anywhere between "in" and "out" of the gate when the thread forks; in the child it does not exist, so a count taken over
// as it was would have the child's drop wait for ever. The signal that it sent is queued on the parent's thread only.
#[test]
fn a_scoped_thread_forks_beside_its_sender_and_the_child_restores_everything() {
    let _t = common::begin_with(Duration::from_secs(300));
    let before = State::now();
    let mut outer = Some(Scope::enter(SIG).expect("enter"));
    let mut inner = Some(Scope::enter(SIG).expect("enter"));
    let remotes: Vec<Remote> = [&outer, &inner].into_iter().flatten().map(Scope::remote).collect();
    let storm = Storm::over(remotes.clone());
    for n in 0..forks() {
        if n % 3 == 0 {
            outer.as_ref().map(Scope::clear);
            inner.as_ref().map(Scope::clear);
        }
        reap_well(child(|| {
            outer.as_ref().map(Scope::clear);
            inner.as_ref().map(Scope::clear);
            for r in &remotes {
                parents_remote_is_gone(r)?;
            }
            demand(eintr::check().is_ok(), "a remote that is gone wrote into the scope")?;
            let (mut last, kept) = if n % 2 == 0 { (outer.take(), &mut inner) } else { (inner.take(), &mut outer) };
            drop(last.take());
            if let Some(scope) = kept {
                let own = scope.remote();
                demand(own.interrupt() != Delivery::Gone, "a remote made in the child is gone while the scope lives")?;
                demand(scope.interrupted().is_some(), "a remote made in the child does not interrupt")?;
                demand(eintr::check().is_err(), "check in the child")?;
            }
            drop(kept.take());
            state_is(&before, "after the child dropped the parent's guards")?;
            a_scope_works_here(SIG, &before)?;
            a_scope_works_here(OTHER, &before)
        }));
    }
    // Only now: the parent is as alive as before.
    assert!(!remotes[0].is_closed());
    drop((outer.take(), inner.take()));
    let sent = storm.end();
    println!("{} forks beside {sent} signals", forks());
    state_is(&before, "in the parent").unwrap();
}

// As above, but the storm is over another thread, which does not exist in the child: its number's action has nobody left who would put it back.
#[test]
fn an_unscoped_thread_forks_beside_a_storm_and_the_child_has_the_true_state_at_once() {
    let _t = common::begin_with(Duration::from_secs(300));
    let before = State::now();
    let stormed = Stormed::on(SIG);
    for _ in 0..forks() {
        reap_well(child(|| {
            state_is(&before, "at once")?;
            parents_remote_is_gone(&stormed.remote)?;
            demand(
                !eintr::is_interruptible() && eintr::check().is_ok(),
                "the child has a scope that it never entered",
            )?;
            a_scope_works_here(SIG, &before)?;
            a_scope_works_here(OTHER, &before)
        }));
    }
    println!("{} forks beside {} signals", forks(), stormed.end());
    state_is(&before, "in the parent").unwrap();
}

// Both at once: the child keeps its own lane on one number, beside a sender of that number, and must lose the other thread's lane on the other.
#[test]
fn a_thread_scoped_on_another_number_forks_and_the_child_loses_only_what_is_not_its_own() {
    let _t = common::begin_with(Duration::from_secs(300));
    let before = State::now();
    let stormed = Stormed::on(SIG);
    let mut own = Some(Scope::enter(OTHER).expect("enter"));
    let remote = own.as_ref().map(Scope::remote).expect("entered");
    let storm = Storm::over(vec![remote.clone()]);
    let index = (1..=64).filter(|s| ![9, 19].contains(s)).position(|s| s == SIG).expect("a number");
    for _ in 0..forks() {
        reap_well(child(|| {
            demand(
                common::action(SIG) == before.actions[index],
                "the other thread's action is still ours in the child",
            )?;
            demand(common::mask() & (common::bit(SIG) | common::bit(OTHER)) == 0, "a number is blocked in the child")?;
            parents_remote_is_gone(&stormed.remote)?;
            parents_remote_is_gone(&remote)?;
            drop(own.take());
            state_is(&before, "after the child dropped its guard")?;
            a_scope_works_here(SIG, &before)?;
            a_scope_works_here(OTHER, &before)
        }));
    }
    drop(own.take());
    println!("{} forks beside {} and {} signals", forks(), storm.end(), stormed.end());
    state_is(&before, "in the parent").unwrap();
}

// The sender that 1,177 of 2,000 children would wait for, made to stand still: it is inside the gate in the parent when the thread forks.
#[test]
fn a_child_does_not_wait_for_a_sender_that_stood_inside_the_gate() {
    let _t = common::begin();
    if !gatekeeper::can_hold() {
        return;
    }
    let before = State::now();
    let mut scope = Some(Scope::enter(SIG).expect("enter"));
    let remote = scope.as_ref().map(Scope::remote).expect("entered");
    let sender = remote.clone();
    let Some(held) = gatekeeper::hold_sender(move || sender.interrupt()) else { return };
    for clear_first in [false, true] {
        reap_well(child(|| {
            demand(
                scope.as_ref().is_some_and(|s| s.interrupted().is_some()),
                "what the sender asked for is not pending in the child",
            )?;
            if clear_first {
                demand(scope.as_ref().and_then(Scope::clear).is_some(), "clear")?;
            }
            drop(scope.take());
            state_is(&before, "after the child dropped the guard")?;
            a_scope_works_here(SIG, &before)
        }));
        // The same from a thread of no scope: the number is free to enter in the child.
        let before = before.clone();
        std::thread::spawn(move || reap_well(child(|| a_scope_works_here(SIG, &before)))).join().expect("it forks");
    }
    assert_eq!(held.release(), Delivery::Sent);
    drop(scope);
    state_is(&before, "in the parent").unwrap();
}

// The interrupt is the request; the fork copies the thread, so it copies what was asked of it. It is the signal that is not copied.
#[test]
fn a_pending_interrupt_of_the_forking_thread_is_pending_in_the_child() {
    let _t = common::begin();
    let before = State::now();
    let mut outer = Some(Scope::enter(SIG).expect("enter"));
    let mut inner = Some(Scope::enter(OTHER).expect("enter"));
    let remote = outer.as_ref().map(Scope::remote).expect("entered");
    for (acknowledged, first_look) in [(false, "interrupted"), (true, "interrupted"), (false, "check"), (true, "check")]
    {
        assert_ne!(remote.interrupt(), Delivery::Gone);
        if acknowledged {
            assert!(eintr::check().is_err());
        }
        reap_well(child(|| {
            let pending = |s: &Option<Scope>| s.as_ref().and_then(Scope::interrupted).map(|i| i.reason());
            if first_look == "check" {
                demand(eintr::check().is_err(), "check forgot it")?;
            }
            demand(pending(&outer) == Some(Reason::Remote), "the interrupted scope is not interrupted in the child")?;
            demand(pending(&inner).is_none(), "the other scope is interrupted in the child")?;
            demand(eintr::check().is_err(), "check forgot it")?;
            demand(eintr::check().is_err(), "check forgot it after an acknowledgement in the child")?;
            demand(outer.as_ref().and_then(Scope::clear).is_some(), "clear found nothing")?;
            demand(eintr::check().is_ok(), "still interrupted after clear")?;
            drop((outer.take(), inner.take()));
            state_is(&before, "after the guards")
        }));
        // The child's clear was the child's.
        assert!(outer.as_ref().and_then(Scope::interrupted).is_some());
        outer.as_ref().map(Scope::clear);
    }
    drop((outer, inner));
    state_is(&before, "in the parent").unwrap();
}

// `pending` is counted anew in the child: a thread that is not there must not count.
#[test]
fn an_interrupt_of_another_thread_is_not_pending_in_the_child() {
    let _t = common::begin();
    let stormed = Stormed::on(SIG);
    let scope = Scope::enter(SIG).expect("enter");
    for _ in 0..20 {
        assert_ne!(stormed.remote.interrupt(), Delivery::Gone);
        reap_well(child(|| {
            demand(
                scope.interrupted().is_none() && eintr::check().is_ok(),
                "interrupted by what was asked of another thread",
            )
        }));
    }
    drop(scope);
    stormed.end();
}

// The parent's timers are not inherited, and the kernel counts ids from 0 in every process, so the ids that the parent kept are now the application's:
// a child that disarmed or deleted "its" timers would hit these. [its timer was disarmed]
#[test]
fn timers_of_the_application_are_untouched_in_the_child() {
    if common::skipped_if_emulated("timers of the application in a child", "the emulator counts timers, not the kernel")
    {
        return;
    }
    const TIMERS: usize = 16;
    let _t = common::begin();
    let before = State::now();
    let mut scopes = Some([SIG, OTHER, libc::SIGRTMIN()].map(|s| Scope::enter(s).expect("enter")));
    for s in scopes.iter().flatten() {
        // Three lanes with a resend timer each, where there are such timers.
        assert_ne!(s.remote().interrupt(), Delivery::Gone);
    }
    assert!(eintr::check().is_err(), "acknowledged, so that nothing of ours is armed in the child");
    reap_well(child(|| {
        let mut ids = [0i32; TIMERS];
        for id in &mut ids {
            // SIGEV_NONE: it never signals, it only runs.
            let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
            event.sigev_notify = libc::SIGEV_NONE;
            let made = unsafe { libc::syscall(libc::SYS_timer_create, libc::CLOCK_MONOTONIC, &event, &raw mut *id) };
            demand(made == 0, "timer_create")?;
            let mut hour: libc::itimerspec = unsafe { std::mem::zeroed() };
            hour.it_value.tv_sec = 3600;
            let none = std::ptr::null_mut::<libc::itimerspec>();
            demand(unsafe { libc::syscall(libc::SYS_timer_settime, *id, 0, &hour, none) } == 0, "timer_settime")?;
        }
        demand(ids[0] == 0, &format!("this kernel counts ids from 0 in a child, or the test proves nothing: {ids:?}"))?;
        let untouched = |when: &str| {
            ids.iter().try_for_each(|id| {
                let mut left: libc::itimerspec = unsafe { std::mem::zeroed() };
                let there = unsafe { libc::syscall(libc::SYS_timer_gettime, *id, &mut left) } == 0;
                demand(there, &format!("timer {id} is gone {when}"))?;
                demand(
                    left.it_value.tv_sec > 1800,
                    &format!("timer {id} was set {when}: {} s left", left.it_value.tv_sec),
                )
            })
        };
        for s in scopes.iter().flatten() {
            s.clear();
        }
        untouched("after clear")?;
        for s in scopes.iter().flatten() {
            demand(s.remote().interrupt() != Delivery::Gone, "interrupt")?;
        }
        untouched("after an interrupt of a surviving scope")?;
        demand(eintr::check().is_err(), "check")?;
        untouched("after an acknowledgement")?;
        drop(scopes.take());
        untouched("after the guards dropped")?;
        state_is(&before, "after the guards dropped")?;
        a_scope_works_here(SIG, &before)?;
        untouched("after a scope of the child's own")
    }));
    drop(scopes);
    state_is(&before, "in the parent").unwrap();
}

extern "C" fn count(_: i32) {
    COUNTED.fetch_add(1, SeqCst);
}
static COUNTED: AtomicU64 = AtomicU64::new(0);

// A surviving scope chains, a lost one is not there: either way the child's parent sees what it would have seen without us.
#[test]
fn a_foreign_signal_in_the_child_does_what_it_did_before() {
    let _t = common::begin();
    for scoped_here in [true, false] {
        let stormed = Stormed::on(SIG);
        let scope = scoped_here.then(|| Scope::enter(SIG).expect("enter"));
        let status = common::reap_in_time(child(|| {
            unsafe { libc::kill(common::getpid(), SIG) };
            Err("the default action did not end the child".to_owned())
        }));
        assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == SIG, "scoped here: {scoped_here}: {status:#x}");
        drop(scope);
        stormed.end();

        let counting = common::install(OTHER, count as *const () as usize, libc::SA_RESTART, &[]);
        let stormed = Stormed::on(OTHER);
        let scope = scoped_here.then(|| Scope::enter(OTHER).expect("enter"));
        reap_well(child(|| {
            COUNTED.store(0, SeqCst);
            unsafe { libc::kill(common::getpid(), OTHER) };
            demand(COUNTED.load(SeqCst) == 1, "the handler behind did not run once")
        }));
        drop(scope);
        stormed.end();
        common::restore(OTHER, counting);
    }
}

// Tid, pid and table entry are fresh in the child: its own threads find the record and the signal finds its thread.
#[test]
fn a_thread_of_the_child_interrupts_a_plain_call_of_the_surviving_and_of_a_new_scope() {
    let _t = common::begin();
    let before = State::now();
    let mut survivor = Some(Scope::enter(SIG).expect("enter"));
    let remote = survivor.as_ref().map(Scope::remote).expect("entered");
    let storm = Storm::over(vec![remote]);
    for _ in 0..50 {
        reap_well(child(|| {
            survivor.as_ref().map(Scope::clear);
            read_is_ended(survivor.as_ref().ok_or("kept")?)?;
            let nested = Scope::enter(SIG).map_err(|e| e.to_string())?;
            read_is_ended(&nested)?;
            drop((survivor.take(), nested));
            let fresh = Scope::enter(OTHER).map_err(|e| e.to_string())?;
            read_is_ended(&fresh)?;
            drop(fresh);
            state_is(&before, "after all")
        }));
    }
    drop(survivor);
    storm.end();
    state_is(&before, "in the parent").unwrap();
}

/// A plain read of an empty pipe ends with EINTR when another thread of this process interrupts.
fn read_is_ended(scope: &Scope) -> Claim {
    let (empty, _writer) = common::pipe();
    let (remote, reader, done) = (scope.remote(), common::gettid(), AtomicBool::new(false));
    let read = std::thread::scope(|s| {
        s.spawn(|| {
            common::wait_blocked_in(reader, libc::SYS_read);
            common::until(&done, || {
                remote.interrupt();
            });
        });
        let read = common::plain_read(&empty);
        done.store(true, SeqCst);
        read
    });
    demand(read == Err(libc::EINTR), &format!("the read ended with {read:?}"))?;
    demand(scope.clear().is_some(), "the interrupt is not this scope's")
}

#[test]
fn a_grandchild_is_as_good_as_a_child() {
    let _t = common::begin();
    let before = State::now();
    let mut scope = Some(Scope::enter(SIG).expect("enter"));
    let remote = scope.as_ref().map(Scope::remote).expect("entered");
    let storm = Storm::over(vec![remote.clone()]);
    for _ in 0..50 {
        reap_well(child(|| {
            let parents = scope.as_ref().map(Scope::remote).ok_or("kept")?;
            parents.interrupt();
            let mut inner = Some(Scope::enter(OTHER).map_err(|e| e.to_string())?);
            let status = common::reap_in_time(child(|| {
                parents_remote_is_gone(&remote)?;
                parents_remote_is_gone(&parents)?;
                demand(
                    scope.as_ref().is_some_and(|s| s.interrupted().is_some()),
                    "its interrupt is not pending in the grandchild",
                )?;
                drop((scope.take(), inner.take()));
                state_is(&before, "in the grandchild")?;
                a_scope_works_here(SIG, &before)
            }));
            demand(status == 0, "the grandchild failed")?;
            demand(parents.interrupt() != Delivery::Gone, "gone in the child, because the grandchild dropped")?;
            drop((scope.take(), inner.take()));
            state_is(&before, "in the child")
        }));
    }
    drop(scope);
    storm.end();
}

// A slot's lock held, its count half-way, a record half-published: the fork takes a picture of another thread anywhere in `enter` or drop.
#[test]
fn a_child_of_a_thread_beside_others_that_enter_and_leave_finds_nothing_locked() {
    let _t = common::begin_with(Duration::from_secs(180));
    let before = State::now();
    let stop = AtomicBool::new(false);
    let entered = AtomicU64::new(0);
    std::thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                while !stop.load(SeqCst) {
                    let outer = ScopeOptions::new(SIG).enter().expect("enter");
                    let inner = ScopeOptions::new(OTHER).enter().expect("enter");
                    outer.remote().interrupt();
                    drop(outer);
                    drop(inner);
                    entered.fetch_add(2, SeqCst);
                }
            });
        }
        common::wait_until(|| entered.load(SeqCst) > 0);
        // A child that fails must not leave the others looping.
        let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for n in 0..forks() {
                let mut scope = (n % 2 == 0).then(|| Scope::enter(SIG).expect("enter"));
                reap_well(child(|| {
                    drop(scope.take());
                    state_is(&before, "at once, or after the guard")?;
                    a_scope_works_here(SIG, &before)?;
                    a_scope_works_here(OTHER, &before)
                }));
            }
        }));
        stop.store(true, SeqCst);
        if let Err(why) = end {
            std::panic::resume_unwind(why);
        }
    });
    println!("{} forks beside {} scopes", forks(), entered.load(SeqCst));
    state_is(&before, "in the parent").unwrap();
}
