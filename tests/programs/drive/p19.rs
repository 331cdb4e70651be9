//! Program 19: each answer that `stop` has, by a worker that earns it.
// Limits and masks are set by bare calls.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

#[path = "../../common/mod.rs"]
mod common;
#[path = "../../common/counting.rs"]
mod counting;
#[path = "../../common/suite.rs"]
mod suite;

/// It compiles as it stands, to the byte.
#[rustfmt::skip]
#[allow(dead_code)] // nothing in here can be called from outside
#[path = "../p19_watchdog.rs"]
mod as_it_stands;

/// The same, to be called; see build.rs.
#[allow(dead_code)] // `main` runs as an executable
mod program {
    include!(concat!(env!("OUT_DIR"), "/p19_watchdog.rs"));

    pub(crate) fn stop_(worker: &Remote) -> &'static str {
        stop(worker)
    }
}

use common::State;
use eintr::{Scope, Status};
use program::stop_ as stop;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use suite::{Worker, interrupted, worker};

const SIG: i32 = libc::SIGUSR1;
const HOUR: Duration = Duration::from_secs(3600);
const DID_NOT_NOTICE: &str = "did not notice: in D state, or the signal is blocked there";

#[test]
fn who_has_finished_is_let_be() {
    let _t = common::begin();
    let scope = Scope::enter(SIG).unwrap();
    let remote = scope.remote();
    drop(scope);
    assert_eq!(stop(&remote), "had finished already");
    let (ticket, remote) = eintr::Ticket::new();
    drop(ticket);
    assert_eq!(stop(&remote), "had finished already");
}

/// Blocked in a call of the crate, in a plain one, computing; one that leaves its scope without a look; one that has not begun.
#[test]
fn who_leaves_is_stopped() {
    let _t = common::begin();
    for sig in counting::kinds() {
        let asleep = worker(sig, |_, _| assert!(eintr::sleep(Duration::MAX).is_err()));
        let plain = worker(sig, |_, _| {
            let (silent, _writer) = common::pipe();
            assert_eq!(common::plain_read(&silent), Err(libc::EINTR));
            assert!(eintr::check().is_err());
        });
        let computes = worker(sig, |_, _| while eintr::check().is_ok() {});
        let leaves = worker(sig, |scope, _| while scope.interrupted().is_none() {});
        for worker in [asleep, plain, computes, leaves] {
            assert_eq!(stop(&worker.remote), "stopped");
            worker.join();
        }
        let (ticket, remote) = eintr::Ticket::new();
        let late = std::thread::spawn(move || {
            let scope = ticket.enter(sig).unwrap();
            assert!(eintr::sleep(HOUR).is_err());
            drop(scope);
        });
        assert_eq!(stop(&remote), "stopped");
        late.join().unwrap();
    }
}

/// A worker that does `work` until it is let go.
fn until_let_go(work: impl FnOnce(&Scope) -> Box<dyn FnOnce(&Scope)> + Send + 'static) -> (Worker<()>, impl FnOnce()) {
    let (go, goes): (_, Receiver<()>) = channel();
    let worker = worker(SIG, move |scope, tell| {
        let after = work(scope);
        tell.send(()).unwrap();
        let _ = goes.recv();
        after(scope);
    });
    (worker.has_told(), move || drop(go))
}

/// The answers that take their time, all at once.
#[test]
fn who_cleans_up_and_who_does_not_notice_are_told_apart() {
    let _t = common::begin();
    let before = State::now();
    let cleans_up = worker(SIG, |scope, tell| {
        interrupted(eintr::sleep(HOUR).map_err(Into::into));
        tell.send(()).unwrap();
        common::wait_until(|| scope.remote().wait(Duration::ZERO) != Status::Acknowledged);
    });
    let (blocked, open) = until_let_go(|_| {
        common::block(SIG);
        Box::new(|_| assert!(eintr::check().is_err()))
    });
    let (shielded, lower) = until_let_go(|_| {
        let guard = eintr::shield();
        Box::new(|_| {
            assert!(eintr::check().is_ok());
            drop(guard);
            assert!(eintr::check().is_err());
        })
    });
    std::thread::scope(|threads| {
        let told = [&cleans_up, &blocked, &shielded].map(|worker| {
            let remote = worker.remote.clone();
            threads.spawn(move || {
                let began = Instant::now();
                (stop(&remote), began.elapsed())
            })
        });
        let [cleaning, blocked, shielded] = told.map(|told| told.join().unwrap());
        assert_eq!(cleaning.0, "knows, still cleaning up");
        assert_eq!([blocked.0, shielded.0], [DID_NOT_NOTICE; 2]);
        let times = [cleaning.1, blocked.1, shielded.1].map(|time| time.as_secs());
        assert!(times[0] >= 5 && times[1] >= 1 && times[2] >= 1, "each was waited for: {times:?}");
    });
    cleans_up.remote.interrupt(); // asked anew, so no longer acknowledged
    open();
    lower();
    [cleans_up, blocked, shielded].into_iter().for_each(Worker::join);
    assert_eq!(State::now(), before);
}

fn limit_signals(to: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_SIGPENDING, &mut limit) }, 0);
    limit.rlim_cur = to.min(limit.rlim_max);
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_SIGPENDING, &limit) }, 0);
}

const NO_RESEND: &str = "without_a_timer_it_says_so_and_the_worker_is_stopped";
const NO_SIGNAL: &str = "without_room_in_the_queue_it_says_so_and_the_worker_does_not_notice";

#[test]
fn without_a_timer_it_says_so_and_the_worker_is_stopped() {
    if common::skipped_if_emulated("a full queue", "the emulator queues by itself") {
        return;
    }
    let (status, text) = common::own_process(NO_RESEND, || {
        let worker = worker(SIG, |_, _| interrupted(eintr::sleep(HOUR).map_err(Into::into)));
        let worker = worker.asleep(&suite::sleep(libc::SYS_clock_nanosleep));
        limit_signals(0);
        assert_eq!(stop(&worker.remote), "stopped");
        worker.join();
    });
    assert!(status.success() && text.contains("no resend: EAGAIN"), "{status}: {text}");
}

#[test]
fn without_room_in_the_queue_it_says_so_and_the_worker_does_not_notice() {
    if common::skipped_if_emulated("a full queue", "the emulator queues by itself") {
        return;
    }
    let (status, text) = common::own_process(NO_SIGNAL, || {
        let worker = worker(counting::real_time(), |_, _| interrupted(eintr::sleep(HOUR).map_err(Into::into)));
        let worker = worker.asleep(&suite::sleep(libc::SYS_clock_nanosleep));
        limit_signals(0);
        assert_eq!(stop(&worker.remote), DID_NOT_NOTICE);
        limit_signals(u64::MAX);
        assert_eq!(stop(&worker.remote), "stopped");
        worker.join();
    });
    assert!(status.success() && text.contains("no signal: EAGAIN"), "{status}: {text}");
}

#[test]
fn the_program_stops_itself() {
    let _t = common::begin();
    for _ in 0..common::rounds("EINTR_ROUNDS", 50) {
        let out = common::program(env!("CARGO_BIN_EXE_p19_watchdog")).output().unwrap();
        assert!(out.status.success() && out.stderr.is_empty() && out.stdout == b"stopped\n", "{out:?}");
    }
}
