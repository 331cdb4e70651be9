//! Our timers among the application's, in the process and in its forked children, where the same ids name other timers.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)] // as in tests/common

mod common;
#[path = "common/counting.rs"]
mod counting;
#[path = "common/deadlines.rs"]
mod deadlines;
#[path = "common/witness.rs"]
mod witness;

use common::State;
use counting::real_time;
use deadlines::{DUE, HOUR, kernel_timers, left_of, ms, told};
use eintr::{Interrupted, Reason, Scope};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};
use witness::{child, well};

/// How often each of the application's timers has expired.
static EXPIRED: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

extern "C" fn on_expiry(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let which = unsafe { (*info).si_value() }.sival_ptr as usize;
    EXPIRED[which].fetch_add(1, SeqCst);
}

/// A timer of the application's.
#[derive(Debug)]
struct Theirs(i32);

impl Theirs {
    /// `Some`: it signals the process, again and again; else it only runs, for an hour.
    fn new(which: Option<usize>, time: Duration) -> Theirs {
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = if which.is_some() { libc::SIGEV_SIGNAL } else { libc::SIGEV_NONE };
        event.sigev_signo = libc::SIGUSR2;
        event.sigev_value.sival_ptr = which.unwrap_or(0) as *mut libc::c_void;
        let mut id = 0;
        assert_eq!(unsafe { libc::syscall(libc::SYS_timer_create, libc::CLOCK_MONOTONIC, &event, &raw mut id) }, 0);
        let time = libc::timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
        let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let times = libc::itimerspec { it_interval: if which.is_some() { time } else { never }, it_value: time };
        assert_eq!(unsafe { libc::syscall(libc::SYS_timer_settime, id, 0, &times, 0usize) }, 0);
        Theirs(id)
    }

    fn runs_on(&self) -> bool {
        left_of(self.0).is_some_and(|left| left > HOUR / 2)
    }
}

impl Drop for Theirs {
    fn drop(&mut self) {
        assert_eq!(unsafe { libc::syscall(libc::SYS_timer_delete, self.0) }, 0, "timer {} was gone", self.0);
    }
}

/// Each of them expires again.
fn all_expire() {
    let before = EXPIRED.each_ref().map(|n| n.load(SeqCst));
    common::wait_until(|| EXPIRED.iter().zip(before).all(|(n, before)| n.load(SeqCst) > before));
}

/// Everything that sets or stops a timer of ours, on scopes of both numbers.
fn use_ours(scopes: [&Scope; 2]) {
    for scope in scopes {
        let limit = scope.timeout(ms(1)).unwrap();
        assert_eq!(eintr::sleep(Duration::MAX).map_err(Interrupted::reason), Err(Reason::Deadline));
        limit.reset(Instant::now() + HOUR);
        scope.remote().interrupt();
        assert!(eintr::check().is_err() && scope.clear().is_some());
        let other = scope.timeout(HOUR).unwrap();
        drop(limit);
        drop(eintr::shield());
        drop(other);
        scope.remote().interrupt();
        assert!(scope.clear().is_some() && told().is_none());
    }
}

/// The kernel counts ids from 0 in every process, so those that the parent knew are the application's now.
fn in_the_child(scopes: [Scope; 2], due: bool) {
    let theirs: [_; 12] = std::array::from_fn(|_| Theirs::new(None, HOUR));
    let untouched = |when: &str| assert!(theirs.iter().all(Theirs::runs_on), "{when}: {theirs:?}");
    if due {
        assert!(eintr::sleep(Duration::MAX).is_err() && told() == DUE);
        untouched("after the deadline");
    } else {
        use_ours([&scopes[0], &scopes[1]]);
        untouched("after deadlines and interrupts");
    }
    drop(scopes);
    untouched("after the scopes");
    let scopes = [libc::SIGUSR1, real_time()].map(|sig| Scope::enter(sig).unwrap());
    use_ours([&scopes[0], &scopes[1]]);
    drop(scopes);
    untouched("after scopes of the child's own");
    let thread = std::thread::spawn(|| {
        let scope = Scope::enter(libc::SIGUSR1).unwrap();
        drop(scope.timeout(HOUR).unwrap());
    });
    thread.join().unwrap();
    untouched("after a thread");
}

#[test]
fn timers_of_the_application_go_on_in_the_parent_and_are_untouched_in_children() {
    if common::skipped_if_emulated("timers of the application", "the emulator counts timers, not the kernel") {
        return;
    }
    let _t = common::begin();
    let handler =
        common::install(libc::SIGUSR2, on_expiry as *const () as usize, libc::SA_SIGINFO | libc::SA_RESTART, &[]);
    let before = State::now();
    // A thread of ours; the application's signals go to the harness's threads, too.
    let ours = std::thread::spawn(move || {
        let mut theirs = vec![Theirs::new(Some(0), ms(1))];
        let mut scopes = [libc::SIGUSR1, real_time()].map(|sig| Some(Scope::enter(sig).unwrap()));
        for (n, scope) in scopes.iter().flatten().enumerate() {
            drop(scope.timeout(HOUR).unwrap());
            theirs.push(Theirs::new(Some(1 + n), ms(1)));
        }
        theirs.push(Theirs::new(Some(3), ms(1)));
        if let Some(timers) = kernel_timers() {
            let own = timers.iter().filter(|timer| timer.tid == common::gettid());
            let around = |id: i32| theirs[0].0 < id && id < theirs[3].0;
            assert!(
                own.clone().count() == 2 && own.into_iter().all(|timer| around(timer.id)),
                "{timers:?}, {theirs:?}"
            );
        }
        for round in 0..common::rounds("EINTR_FORKS", 700) / 20 {
            for scope in scopes.iter().flatten().filter(|_| round % 2 == 0) {
                std::mem::forget(scope.timeout(ms(1)).unwrap());
            }
            well(child(|| {
                let scopes = scopes.each_mut().map(|scope| scope.take().unwrap());
                in_the_child(scopes, round % 2 == 0);
            }));
            all_expire();
            scopes = [libc::SIGUSR1, real_time()].map(|sig| Some(Scope::enter(sig).unwrap()));
            use_ours([scopes[0].as_ref().unwrap(), scopes[1].as_ref().unwrap()]);
            all_expire();
        }
        drop(scopes);
        all_expire();
        theirs
    });
    let theirs = ours.join().unwrap();
    all_expire();
    let left = kernel_timers().map(|timers| timers.len());
    assert!(left.is_none_or(|left| left == theirs.len()), "{left:?}");
    drop(theirs);
    assert_eq!(State::now(), before);
    common::restore(libc::SIGUSR2, handler);
}
