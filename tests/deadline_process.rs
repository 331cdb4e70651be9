//! Deadlines and the rest of the process: a forked child has them too, a program that is started has not; where somebody else's action stands nothing expires;
//! and a kernel that has no timer left refuses them.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)] // as in tests/common

mod common;
#[path = "common/counting.rs"]
mod counting;
#[path = "common/deadlines.rs"]
mod deadlines;
#[path = "common/witness.rs"]
mod witness;

use common::{Random, State};
use counting::{Counting, kinds};
use deadlines::{DUE, HOUR, HOURS, NoRoom, kernel_timers, ms, plain_poll, slept_well, told, us};
use eintr::{Deadline, Delivery, Error, Interrupted, Reason, Refusal, Resend, Scope, ScopeOptions, Ticket};
use nix::errno::Errno;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};
use witness::{child, spawn_child, well};

/// A call of the crate's own, or a plain one, is ended by the deadline, and not before its time.
fn acts(limit: &Deadline<'_>, at: Instant, plainly: bool) {
    if plainly {
        assert_eq!(plain_poll(), libc::EINTR);
    } else {
        assert_eq!(eintr::sleep(Duration::MAX).map_err(Interrupted::reason), Err(Reason::Deadline));
    }
    assert!(Instant::now() >= at && limit.expired() && told() == DUE);
}

#[test]
fn in_a_forked_child_it_acts_and_in_the_parent_too() {
    let _t = common::begin();
    for sig in kinds() {
        for round in 0..8 {
            let before = State::now();
            let at = Instant::now() + ms(8);
            let scope = Scope::enter(sig).unwrap();
            let (limit, far) = (scope.deadline(at).unwrap(), scope.timeout(HOUR).unwrap());
            let mut theirs = Some((limit, scope.timeout(HOUR).unwrap()));
            let pid = spawn_child(|| {
                let (limit, other) = theirs.take().unwrap();
                acts(&limit, at, round % 2 == 0);
                drop(limit);
                assert!(told().is_none() && slept_well(ms(30)), "after the drop");
                other.reset(Instant::now() + ms(1));
                acts(&other, Instant::now(), round % 4 < 2);
                drop(other);
                assert_eq!(told(), None);
                let own = scope.timeout(ms(1)).unwrap();
                acts(&own, Instant::now(), true);
            });
            let (limit, other) = theirs.take().unwrap();
            if round % 3 != 0 {
                acts(&limit, at, round % 2 == 1);
            }
            drop(limit);
            well(common::reap_in_time(pid));
            assert!(told().is_none() && slept_well(us(100)) && !far.expired() && !other.expired());
            drop((far, other, theirs));
            drop(scope);
            assert_eq!(State::now(), before);
        }
    }
}

/// Due before the fork, acknowledged or not; due in the middle of it; and the guards dropped in the child, whatever became of them.
#[test]
fn whenever_a_thread_forks_around_the_time_both_have_it() {
    let _t = common::begin();
    let mut random = Random::new();
    for sig in kinds() {
        let before = State::now();
        for round in 0..common::rounds("EINTR_FORKS", 700) / 7 {
            let mut scope = Some(Scope::enter(sig).unwrap());
            let at = Instant::now() + us(random.below(400));
            std::mem::forget(scope.as_ref().unwrap().deadline(at).unwrap());
            if round % 3 == 0 {
                while eintr::check().is_ok() {}
            }
            deadlines::spin_until(Instant::now() + us(random.below(200)));
            let pid = common::fork(|| {
                assert!(eintr::sleep(Duration::MAX).is_err() && Instant::now() >= at);
                drop(scope.take());
                i32::from(State::now() != before)
            });
            assert!(eintr::sleep(Duration::MAX).is_err() && Instant::now() >= at);
            well(common::reap_in_time(pid));
            drop(scope);
            assert!(told().is_none() && State::now() == before);
        }
    }
}

#[test]
fn the_deadlines_of_other_threads_are_not_in_the_child() {
    let _t = common::begin();
    let before = State::now();
    let (tell, told_scoped) = std::sync::mpsc::channel();
    let (end, ends) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || {
        let scope = Scope::enter(libc::SIGUSR1).unwrap();
        let limit = scope.timeout(ms(5)).unwrap();
        tell.send(()).unwrap();
        acts(&limit, Instant::now(), true);
        let _ = ends.recv();
    });
    told_scoped.recv().unwrap();
    let status = child(|| {
        assert!(slept_well(ms(10)) && told().is_none());
        assert!(kernel_timers().is_none_or(|timers| timers.is_empty()));
        let scope = Scope::enter(libc::SIGUSR1).unwrap();
        assert!(slept_well(ms(1)));
        let limit = scope.timeout(ms(1)).unwrap();
        acts(&limit, Instant::now(), true);
    });
    well(status);
    drop(end);
    other.join().unwrap();
    assert_eq!(State::now(), before);
}

/// The number is open in the new program, whose action is the default: an expiry would kill it. The child has a timer of its own, which the kernel takes away.
#[test]
fn a_program_that_is_started_around_the_time_is_left_alone() {
    let _t = common::begin();
    let mut random = Random::new();
    for sig in kinds() {
        let scope = Scope::enter(sig).unwrap();
        for round in 0..common::rounds("EINTR_EXECS", 40) {
            let length = if round % 2 == 0 { us(random.below(3000)) } else { ms(15) + us(random.below(10_000)) };
            let limit = scope.timeout(length).unwrap();
            // What the child waits before it starts the program: the child's own timer expires after 20 ms.
            let waits = ms(15) + us(random.below(10_000));
            let (from, to) = common::pipe();
            // What is queued with the number blocked is queued for the new program, but not what a timer has sent.
            let mask = if round % 4 < 2 { common::block(sig) } else { common::mask() };
            let pid = common::fork(|| unsafe {
                deadlines::spin_until(Instant::now() + waits);
                libc::dup2(to.as_raw_fd(), 1);
                let cat = [c"cat".as_ptr(), c"/proc/self/status".as_ptr(), std::ptr::null()];
                libc::execvp(cat[0], cat.as_ptr());
                70
            });
            well(common::reap_in_time(pid));
            drop(to);
            limit.reset(Instant::now() + HOUR);
            common::set_mask(mask);
            let text = std::io::read_to_string(std::fs::File::from(from)).unwrap();
            let line = |field: &str| text.lines().find(|line| line.starts_with(field)).unwrap().to_owned();
            for field in ["SigPnd:", "ShdPnd:"] {
                assert!(line(field).ends_with("0000000000000000"), "{}", line(field));
            }
        }
    }
}

/// Somebody's handler, and the default, which kills. What the timer was set for before is taken back where it is dropped or moved; the deadlines are told to who
/// asks.
#[test]
fn where_somebody_elses_action_stands_nothing_expires() {
    let _t = common::begin();
    for sig in kinds() {
        well(child(|| {
            let scope = Scope::enter(sig).unwrap();
            let (far, ours, runs) = (scope.timeout(HOUR).unwrap(), common::action(sig), counting::runs());
            for handler in [counting::count as *const () as usize, libc::SIG_DFL] {
                let [dropped, moved] = [ms(4), ms(5)].map(|length| scope.timeout(length).unwrap());
                common::install(sig, handler, 0, &[]);
                drop(dropped);
                moved.reset(Instant::now() + HOUR);
                let limits = [ms(1), us(1), Duration::ZERO].map(|length| scope.timeout(length).unwrap());
                far.reset(Instant::now() + ms(2));
                assert!((0..8).all(|_| slept_well(ms(1))));
                assert!(limits.iter().chain([&far]).all(Deadline::expired) && !moved.expired());
                assert!(told() == DUE && scope.interrupted().is_some());
                assert_eq!((scope.remote().interrupt(), scope.clear().is_some()), (Delivery::Displaced, true));
                limits.iter().for_each(|limit| limit.reset(Instant::now() + us(100)));
                drop(limits);
                far.reset(Instant::now() + HOUR);
                assert!(slept_well(ms(1)) && told().is_none());
                assert_eq!(counting::runs(), runs, "the stranger's handler has seen it");
                common::restore(sig, ours);
                let limit = scope.timeout(ms(1)).unwrap();
                acts(&limit, Instant::now(), true);
            }
        }));
    }
}

/// The timer was armed for a request, and is stopped with the deadline that goes meanwhile: who asks again must not rely on it.
#[test]
fn a_request_is_sent_again_when_ours_stands_again() {
    let _t = common::begin();
    for sig in kinds() {
        let scope = ScopeOptions::new(sig).resend(HOURS).enter().unwrap();
        let [limit, other] = [HOUR / 2, HOUR * 2].map(|length| scope.timeout(length).unwrap());
        assert_eq!(scope.remote().interrupt(), Delivery::Sent);
        let stranger = Counting::on(sig);
        drop(limit);
        assert_eq!(scope.remote().interrupt(), Delivery::Displaced);
        drop(stranger);
        assert_eq!(scope.remote().interrupt(), Delivery::Sent, "nobody has armed what was stopped");
        assert_eq!(scope.remote().interrupt(), Delivery::Held);
        drop(other);
    }
}

/// Nobody tells us of the replacement, so what is armed then expires there: once, since it is our own handler that arms the next.
#[test]
fn a_handler_that_is_registered_over_an_armed_deadline_sees_one_expiry_at_most() {
    let _t = common::begin();
    for sig in kinds() {
        let scope = Scope::enter(sig).unwrap();
        let limit = scope.timeout(us(500)).unwrap();
        let stranger = Counting::on(sig);
        common::wait_until(|| limit.expired());
        let _ = (0..10).map(|_| slept_well(ms(1))).collect::<Vec<_>>();
        assert!(stranger.runs() <= 1, "{} runs", stranger.runs());
        assert_eq!(told(), DUE);
    }
}

fn no_room<T>(answer: Result<T, Error>) -> bool {
    answer.err().and_then(Error::errno) == Some(Errno::EAGAIN)
}

#[test]
fn without_room_for_a_timer_a_deadline_is_refused_and_nothing_has_changed() {
    let _t = common::begin();
    common::in_own_process("without_room_for_a_timer_a_deadline_is_refused_and_nothing_has_changed", || {
        for sig in kinds() {
            let before = State::now();
            let scope = Scope::enter(sig).unwrap();
            let (within, timers) = (State::now(), kernel_timers());
            let full = NoRoom::begin();
            for length in [HOUR, us(1), Duration::ZERO, Duration::MAX] {
                assert!(no_room(scope.timeout(length)) && no_room(scope.deadline(Instant::now() + length.min(HOUR))));
                let refused = ScopeOptions::new(sig).timeout(length).enter().unwrap_err();
                assert_eq!(refused.why(), Refusal::Os(Errno::EAGAIN), "nested");
            }
            assert!(slept_well(us(100)) && told().is_none() && scope.interrupted().is_none());
            assert!(State::now() == within && kernel_timers() == timers);
            drop(full);
            let limit = scope.timeout(us(500)).unwrap();
            acts(&limit, Instant::now(), true);
            drop(limit);
            let full = NoRoom::begin();
            let limit = scope.timeout(us(500)).unwrap(); // the timer is there, and has room of its own
            acts(&limit, Instant::now(), true);
            drop(limit);
            drop((full, scope));
            assert_eq!(State::now(), before);
        }
    });
}

/// On a thread that has no timer yet.
fn refused_for_want_of_room(sig: i32, blocked: bool) {
    if blocked {
        common::block(sig);
    }
    let (before, full) = (State::now(), NoRoom::begin());
    for length in [HOUR, Duration::ZERO, Duration::MAX] {
        let (ticket, remote) = Ticket::new();
        remote.interrupt();
        let options = ScopeOptions::new(sig).timeout(length);
        let refused = [options.clone().enter().unwrap_err(), ticket.enter(options).unwrap_err()];
        assert!(refused.iter().all(|refused| refused.why() == Refusal::Os(Errno::EAGAIN)), "{refused:?}");
        assert!(refused[0].to_string().contains("RLIMIT_SIGPENDING"));
        assert_eq!((remote.interrupt(), State::now() == before), (Delivery::Gone, true));
        assert!(!eintr::is_interruptible() && told().is_none());
    }
    drop(full);
    assert!(kernel_timers().is_none_or(|timers| timers.is_empty()));
    let scope = ScopeOptions::new(sig).timeout(us(200)).enter().unwrap();
    assert_eq!((plain_poll(), told()), (libc::EINTR, DUE));
    drop(scope);
    assert_eq!(State::now(), before);
}

#[test]
fn a_scope_whose_own_deadline_finds_no_room_is_not_entered() {
    let _t = common::begin();
    common::in_own_process("a_scope_whose_own_deadline_finds_no_room_is_not_entered", || {
        for (sig, blocked) in kinds().into_iter().flat_map(|sig| [(sig, false), (sig, true)]) {
            let refused = std::thread::spawn(move || refused_for_want_of_room(sig, blocked));
            refused.join().expect("it is refused");
        }
    });
}

/// It is gone, and with it the deadline that it was for; those that come later do not wait for it.
#[test]
fn after_an_expiry_that_somebody_has_eaten_the_next_deadline_acts() {
    let _t = common::begin();
    for sig in kinds() {
        for resend in [Resend::default(), Resend::Never] {
            let scope = ScopeOptions::new(sig).resend(resend).enter().unwrap();
            let idle = scope.timeout(HOUR).unwrap();
            for resets in [false, true] {
                common::block(sig);
                let eaten = scope.timeout(us(100)).unwrap();
                assert_eq!(witness::wait_for(sig).code, libc::SI_TIMER);
                common::unblock(sig);
                let made = (!resets).then(|| scope.timeout(ms(1)).unwrap());
                if resets {
                    idle.reset(Instant::now() + ms(1));
                }
                let limit = made.as_ref().unwrap_or(&idle);
                while !limit.expired() {
                    assert_eq!(plain_poll(), libc::EINTR); // the one that was eaten acts now, too
                }
                assert!(eaten.expired() && told() == DUE);
                drop((eaten, made));
                idle.reset(Instant::now() + HOUR);
                assert_eq!(told(), None);
            }
        }
    }
}
