//! The timers of the kernel that bring resends and deadlines: one for each number on a thread, gone with the thread, never mistaken for one of the application's,
//! and nothing of theirs comes once their scope has ended.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)] // as in tests/common

mod common;
#[path = "common/counting.rs"]
mod counting;
#[path = "common/deadlines.rs"]
mod deadlines;
#[path = "common/nest.rs"]
mod nest;
#[path = "common/witness.rs"]
mod witness;

use common::{Random, State};
use counting::{Counting, kinds, real_time};
use deadlines::{
    Beside, DUE, HOUR, HOURS, KernelTimer, NoRoom, kernel_timers, left_of, ms, plain_poll, slept_well, told, us,
};
use eintr::{Delivery, Reason, Remote, Resend, Scope, ScopeOptions};
use nest::Installed;
use std::mem::forget;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};
use witness::{child, well};

/// Of the calling thread, by number.
fn own_timers() -> Option<Vec<KernelTimer>> {
    let mut own = kernel_timers()?;
    own.retain(|timer| timer.tid == common::gettid());
    own.sort_by_key(|timer| timer.sig);
    Some(own)
}

#[test]
fn there_is_one_for_each_number_on_a_thread_made_when_first_needed_and_kept() {
    let _t = common::begin();
    std::thread::spawn(|| {
        let Some(none) = own_timers() else { return };
        assert_eq!(none, []);
        let scopes = [libc::SIGUSR1, real_time()].map(|sig| Scope::enter(sig).unwrap());
        assert!(eintr::check().is_ok() && eintr::sleep(us(1)).is_ok());
        drop(eintr::shield());
        scopes[0].remote().interrupt_once();
        assert!(scopes[0].clear().is_some());
        assert_eq!(own_timers().unwrap(), [], "nothing was to come later, or again");
        let first = scopes[0].timeout(HOUR).unwrap();
        let made = own_timers().unwrap();
        assert_eq!(made.iter().map(|timer| timer.sig).collect::<Vec<_>>(), [libc::SIGUSR1]);
        assert!(left_of(made[0].id).unwrap() > HOUR / 2);
        let [second, third] = [scopes[0].timeout(HOUR), scopes[1].timeout(HOUR)].map(Result::unwrap);
        scopes[1].remote().interrupt();
        assert!(eintr::check().is_err() && scopes[1].clear().is_some());
        let both = own_timers().unwrap();
        assert_eq!(both.iter().map(|timer| timer.sig).collect::<Vec<_>>(), [libc::SIGUSR1, real_time()]);
        assert_eq!(both[0], made[0]);
        drop((first, second));
        assert_eq!(left_of(both[0].id), Some(Duration::ZERO), "stopped, and kept");
        assert!(left_of(both[1].id).unwrap() > HOUR / 2, "the other number's goes on");
        drop(third);
        drop(scopes);
        assert!(both.iter().all(|timer| left_of(timer.id) == Some(Duration::ZERO)));
        let again = Scope::enter(libc::SIGUSR1).unwrap();
        let limit = again.timeout(ms(1)).unwrap();
        assert_eq!((plain_poll(), limit.expired()), (libc::EINTR, true));
        assert_eq!(own_timers().unwrap(), both);
    })
    .join()
    .unwrap();
}

/// Ended well, by a panic, with everything forgotten, and while it expires.
#[test]
fn no_timer_is_left_of_threads_that_have_ended() {
    let _t = common::begin();
    let Some(before) = kernel_timers() else { return };
    let state = State::now();
    let mut random = Random::new();
    for round in 0..common::rounds("EINTR_THREADS", 400) {
        let (length, again) = (us(random.below(120)), Duration::from_nanos(random.below(50_000)));
        let threads = [0, 1, 2].map(|n| {
            std::thread::spawn(move || {
                let sig = [libc::SIGUSR1, libc::SIGUSR2, real_time()][n];
                let options = ScopeOptions::new(sig).resend(Resend::Backoff { first: again, ceiling: again });
                let (scope, other) = (options.timeout(length).enter().unwrap(), Scope::enter(real_time() + 1).unwrap());
                scope.remote().interrupt();
                forget((other.timeout(length).unwrap(), scope.timeout(HOUR).unwrap()));
                match round % 3 {
                    0 => drop((scope, other)),
                    1 => forget((scope, other)),
                    _ => std::panic::resume_unwind(Box::new(())),
                }
            })
        });
        assert!(threads.into_iter().all(|thread| thread.join().is_ok() == (round % 3 != 2)));
        assert_eq!(kernel_timers().unwrap(), before, "round {round}");
        assert_eq!(State::now(), state);
    }
}

/// The default action is behind: one signal that comes too late, and the child is dead. With the number open, blocked before, and blocked in the scope.
#[test]
fn nothing_of_a_timer_comes_after_its_scope() {
    let _t = common::begin();
    let mut random = Random::new();
    let rounds = common::rounds("EINTR_DROPS", 12_000) / 12;
    for (sig, blocks) in kinds().into_iter().flat_map(|sig| [(sig, 0), (sig, 1), (sig, 2)]) {
        let seed = random.next();
        well(child(|| {
            let random = &mut Random::seeded(seed);
            for _ in 0..rounds {
                let mask = if blocks == 1 { common::block(sig) } else { common::mask() };
                let options = ScopeOptions::new(sig).resend(Resend::Backoff { first: us(2), ceiling: us(5) });
                let at = Instant::now() + us(10) + Duration::from_nanos(random.below(10_000));
                let scope = options.deadline(at).enter().unwrap();
                if random.chance(2) {
                    scope.remote().interrupt();
                }
                if blocks == 2 {
                    common::block(sig);
                }
                let limit = random.chance(2).then(|| scope.deadline(at - us(1)).unwrap());
                deadlines::spin_until(at + Duration::from_nanos(random.below(6000)) - us(3));
                drop(limit);
                drop(scope);
                assert_eq!(State::now().pending & common::bit(sig), 0, "something is queued behind the scope");
                common::set_mask(mask);
                common::unblock(sig); // what was queued would kill now
                assert!(told().is_none() && slept_well(us(1)));
            }
        }));
    }
}

/// The remote of the scope that the handler below is in, and how many there were.
static INNER: Mutex<Option<Remote>> = Mutex::new(None);
static ENTERED: AtomicU64 = AtomicU64::new(0);
const INNERS: u64 = 400;

/// On top of a call of another scope, which is interrupted: scopes that end while they are interrupted, and while deadlines of theirs expire.
extern "C" fn enters_and_leaves(_: i32) {
    for n in 0..INNERS {
        let scope = Scope::enter(libc::SIGUSR1).unwrap();
        let limit = (n % 2 == 0).then(|| scope.timeout(us(3)).unwrap());
        *INNER.lock().unwrap() = Some(scope.remote());
        ENTERED.fetch_add(1, SeqCst);
        deadlines::spin_until(Instant::now() + us(4));
        drop(limit);
        drop(scope);
    }
}

/// Interrupts each of them once, around its end.
fn interrupter() -> Beside {
    let (mut random, mut last) = (Random::new(), 0);
    Beside::again_and_again(move || {
        let now = ENTERED.load(SeqCst);
        if std::mem::replace(&mut last, now) == now {
            return std::thread::yield_now();
        }
        let remote = INNER.lock().unwrap().clone();
        deadlines::spin_until(Instant::now() + Duration::from_nanos(random.below(8000)));
        remote.map(|remote| remote.interrupt_once());
    })
}

// A lane that closes in a handler above a call that is interrupted: what lands there is, by rows 4 to 6, to be blocked and sent again for that call. It would
// come after the action has been put back, and by that it kills.
#[test]
fn a_lane_that_closes_while_its_signals_land_sends_none_again() {
    let _t = common::begin();
    let rounds = common::rounds("EINTR_CLOSINGS", 40);
    well(child(|| {
        let _handler = Installed::new(libc::SIGHUP, enters_and_leaves, libc::SA_RESTART);
        let _interrupter = interrupter();
        let (from, _to) = common::pipe();
        let scope = Scope::enter(libc::SIGUSR2).unwrap();
        let (remote, tid) = (scope.remote(), common::gettid());
        for round in 0..rounds {
            let read = std::thread::scope(|threads| {
                threads.spawn(|| {
                    common::set_mask(!0);
                    common::wait_blocked_in(tid, libc::SYS_read);
                    witness::to_thread(tid, libc::SIGHUP);
                    common::wait_until(|| ENTERED.load(SeqCst) > round * INNERS);
                    remote.interrupt_once();
                });
                eintr::sys::read(&from, &mut [0; 8])
            });
            assert!(read.is_err() && scope.clear().is_some());
            assert_eq!(ENTERED.load(SeqCst), (round + 1) * INNERS);
        }
    }));
}

/// An interrupt, and a deadline, that come again after a nanosecond, and after a nanosecond again: the thread would never get to acknowledge them.
#[test]
fn with_pauses_of_nothing_the_thread_gets_on_all_the_same() {
    let _t = common::begin_with(Duration::from_secs(20));
    for sig in kinds() {
        let scope = ScopeOptions::new(sig)
            .resend(Resend::Backoff { first: Duration::ZERO, ceiling: Duration::ZERO })
            .enter()
            .unwrap();
        for by_deadline in [false, true] {
            let limit = by_deadline.then(|| scope.timeout(Duration::ZERO).unwrap());
            if !by_deadline {
                scope.remote().interrupt();
            }
            for _ in 0..3 {
                assert_eq!(plain_poll(), libc::EINTR);
                deadlines::spin_until(Instant::now() + ms(1));
            }
            assert!(told().is_some());
            assert!(scope.clear().is_some() != by_deadline);
            drop(limit);
        }
    }
}

/// Its entry in the queue is its own. It has been set for hours before, for a request that nobody has acknowledged, or for a deadline.
#[test]
fn with_a_full_queue_a_timer_that_was_made_brings_interrupts_at_once_and_deadlines_in_time() {
    let _t = common::begin();
    common::in_own_process(
        "with_a_full_queue_a_timer_that_was_made_brings_interrupts_at_once_and_deadlines_in_time",
        || {
            let _t = common::Watchdog::new(Duration::from_secs(20));
            for by_deadline in [false, true] {
                let sig = real_time();
                let outer = ScopeOptions::new(sig).resend(HOURS).enter().unwrap();
                let inner = Scope::enter(sig).unwrap();
                let far = by_deadline.then(|| outer.timeout(HOUR).unwrap());
                if !by_deadline {
                    assert_eq!(outer.remote().interrupt(), Delivery::Sent);
                }
                let full = NoRoom::begin();
                let (remote, tid) = (inner.remote(), common::gettid());
                std::thread::scope(|threads| {
                    threads.spawn(move || {
                        common::set_mask(!0);
                        common::wait_blocked_in(tid, libc::SYS_ppoll);
                        assert_eq!(remote.interrupt_once(), Delivery::Sent);
                    });
                    assert_eq!(plain_poll(), libc::EINTR);
                });
                assert_eq!((told(), inner.clear().is_some()), (Some(Reason::Remote), true));
                assert_eq!(outer.clear().is_some(), !by_deadline);
                let limit = outer.timeout(ms(1)).unwrap();
                assert_eq!((plain_poll(), limit.expired(), told()), (libc::EINTR, true, DUE));
                drop((full, limit, far));
            }
        },
    );
}

/// One of ours, or of somebody else's, and an expiry, in both orders, with the number blocked: of a standard number the kernel keeps one, and puts only an expiry
/// beside it; and a drop that sets the timer throws away what was merged into it.
#[test]
fn what_meets_a_queued_expiry_is_not_lost() {
    let _t = common::begin();
    for sig in kinds() {
        for (expiry_first, drops) in [(false, false), (false, true), (true, false), (true, true)] {
            let behind = Counting::on(sig);
            let scope = Scope::enter(sig).unwrap();
            let mask = common::block(sig);
            let queued = || common::status_bits(common::gettid(), "SigPnd:") & common::bit(sig) != 0;
            let ours = || assert_eq!(scope.remote().interrupt(), Delivery::Sent);
            if !expiry_first {
                ours();
                assert!(queued());
            }
            let limit = scope.timeout(us(100)).unwrap();
            deadlines::spin_until(Instant::now() + us(200));
            common::wait_until(queued);
            if expiry_first {
                ours();
            }
            let limit = (!drops).then_some(limit);
            common::set_mask(mask);
            for _ in 0..3 {
                assert_eq!(plain_poll(), libc::EINTR, "until it is acknowledged");
            }
            assert_eq!((told(), scope.clear().is_some()), (Some(Reason::Remote), true));
            assert_eq!(told(), limit.as_ref().and(DUE));
            drop(limit);
            common::block(sig);
            witness::to_thread(common::gettid(), sig);
            let limit = scope.timeout(us(100)).unwrap();
            deadlines::spin_until(Instant::now() + ms(1)); // the expiry lies beside it
            common::set_mask(mask);
            assert_eq!((behind.runs(), told()), (1, DUE), "somebody else's, and the deadline");
            drop(limit);
            drop(scope);
            assert_eq!(behind.runs(), 1);
        }
    }
}
