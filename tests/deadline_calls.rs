//! A deadline ends the calls that an interrupt ends: plain ones, by EINTR and then ECANCELED; the crate's own, with nothing lost; below the handler of another
//! signal, and in a storm of those.
#![allow(unsafe_code, missing_docs)] // as in tests/common

#[path = "common/blocking.rs"]
mod blocking;
mod common;
#[path = "common/counting.rs"]
mod counting;
#[path = "common/deadlines.rs"]
mod deadlines;
#[path = "common/cases_io.rs"]
mod io;
#[path = "common/cases_ipc.rs"]
mod ipc;
#[path = "common/nest.rs"]
mod nest;
#[path = "common/suite.rs"]
mod suite;
#[path = "common/cases_wait.rs"]
mod wait;

use blocking::{Blocking, Returned, Told};
use common::State;
use counting::kinds;
use deadlines::{DUE, HOUR, ms, slept_well, told, us};
use eintr::{Interrupted, Resend, Scope, ScopeOptions, sys};
use nest::{Installed, Look};
use std::io::ErrorKind;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc;
use std::time::Instant;
use suite::{Case, worker};

/// Makes the call under two deadlines, one after the other, twice each; then it is let go and made for good.
fn under_two_deadlines(sig: i32, blocked: Blocking) -> ([Returned; 4], Returned) {
    let Blocking { nr, mut call, release, .. } = blocked;
    let (tell, told_tid) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let scope = Scope::enter(sig).unwrap();
        let mut ended = Vec::new();
        for _ in 0..2 {
            let limit = scope.timeout(us(500)).unwrap();
            ended.extend([call(), call()]);
            assert!(limit.expired());
        }
        assert_eq!(told(), None);
        tell.send(common::gettid()).unwrap();
        (ended.try_into().unwrap(), call())
    });
    if let Ok(tid) = told_tid.recv() {
        let look = Look::at(tid);
        let there = |asleep| nr == blocking::ANY && asleep != libc::SYS_futex || common::look_alike(asleep, nr);
        let asleep = || look.sleeps_in().is_some_and(|(nr, _)| there(nr)) && look.is_at_rest();
        common::wait_until(|| thread.is_finished() || asleep());
        release();
    }
    thread.join().expect("it ends well")
}

/// EINTR for the first, whatever came before; ECANCELED for who makes it again and would be restarted. Nothing is lost by it.
#[test]
fn plain_calls_are_ended_by_each_deadline_anew() {
    let _t = common::begin();
    for sig in kinds() {
        for (handler, flags) in
            [(None, 0), (Some(nest::counts as extern "C" fn(i32)), libc::SA_RESTART), (Some(nest::counts), 0)]
        {
            let _behind = match handler {
                Some(handler) => Installed::new(sig, handler, flags),
                None => Installed::action(sig, libc::SIG_DFL),
            };
            let restarts = handler.is_none() || flags != 0;
            for blocked in blocking::all(&blocking::RESTARTABLE).chain(blocking::all(&blocking::NEVER_RESTARTED)) {
                let (name, canceled) = (blocked.name, restarts && blocked.told == Told::Canceled);
                let (ended, last) = under_two_deadlines(sig, blocked);
                let second = Err(if canceled { libc::ECANCELED } else { libc::EINTR });
                let expected = [Err(libc::EINTR), second, Err(libc::EINTR), second];
                assert!(ended == expected && last.is_ok(), "{name}, {sig}, {flags:#x}: {ended:?}, {last:?}");
            }
        }
    }
}

fn abstract_listener() -> (std::os::unix::net::SocketAddr, UnixListener) {
    use std::os::linux::net::SocketAddrExt;
    let name = format!("eintr-deadline-{}-{}", common::getpid(), suite::unique());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap();
    let listener = UnixListener::bind_addr(&address).unwrap();
    (address, listener)
}

/// std makes an accept again that was told EINTR.
#[test]
fn stds_loops_end_by_the_resend() {
    let _t = common::begin();
    for sig in kinds() {
        let scope = Scope::enter(sig).unwrap();
        let (_, listener) = abstract_listener();
        let limit = scope.timeout(ms(1)).unwrap();
        assert_eq!(listener.accept().unwrap_err().raw_os_error(), Some(libc::ECANCELED));
        assert!(limit.expired());
        limit.reset(Instant::now() + ms(1));
        let by_retry = eintr::retry(|| listener.accept()).unwrap_err();
        assert_eq!(
            (by_retry.kind(), Interrupted::find(&by_retry).map(Interrupted::reason)),
            (ErrorKind::TimedOut, DUE)
        );
        limit.reset(Instant::now() + HOUR);
        assert!(slept_well(ms(1)) && told().is_none());
    }
}

/// One signal: std's accept is made again and goes on. It has slept twice when somebody calls.
#[test]
fn without_a_resend_it_ends_a_call_once() {
    let _t = common::begin();
    for sig in kinds() {
        let (address, listener) = abstract_listener();
        let caller = worker(ScopeOptions::new(sig).resend(Resend::Never), move |scope, tell| {
            let (from, _to) = common::pipe();
            let limit = scope.timeout(us(500)).unwrap();
            assert_eq!(common::plain_read(&from), Err(libc::EINTR), "once, to who does not retry");
            drop(limit);
            let limit = scope.timeout(ms(2)).unwrap();
            tell.send(()).unwrap();
            let accepted = listener.accept().map(drop).map_err(|e| e.raw_os_error());
            assert_eq!((accepted, limit.expired(), told()), (Ok(()), true, DUE));
        });
        let caller = caller.has_told();
        common::wait_until(|| [libc::SYS_accept, libc::SYS_accept4].contains(&common::blocked_in(caller.tid)));
        let look = Look::at(caller.tid);
        let slept = look.sleeps();
        common::wait_until(|| look.sleeps() > slept && look.is_at_rest());
        assert!((0..5).all(|_| slept_well(ms(1))));
        UnixStream::connect_addr(&address).unwrap();
        caller.join();
    }
}

/// Ended by its deadline; made again while that is due, ended; made again after that, it blocks and answers.
fn by_deadline(make: fn() -> Option<Case>) {
    for sig in kinds() {
        let Some(Case { sleeps_in, mut call, provide, expected }) = make() else { return };
        let worker = worker(sig, move |scope, tell| {
            let limit = scope.timeout(us(700)).unwrap();
            for _ in 0..2 {
                assert_eq!(call().unwrap_err().interrupted().map(Interrupted::reason), DUE);
                assert!(limit.expired());
            }
            limit.reset(Instant::now() + us(700));
            assert_eq!(call().unwrap_err().interrupted().map(Interrupted::reason), DUE);
            drop(limit);
            tell.send(()).unwrap();
            call()
        });
        let worker = worker.has_told().asleep(&sleeps_in);
        let after = provide(worker.tid);
        assert_eq!(worker.join(), Ok(expected));
        after();
    }
}

#[test]
fn every_call_of_the_crates_own_is_ended_and_loses_nothing() {
    let _t = common::begin();
    let before = State::now();
    let bytes: [fn() -> Option<Case>; 16] = [
        io::read,
        io::readv,
        io::write,
        io::writev,
        io::recv,
        io::recvfrom,
        io::recvmsg,
        io::recvmmsg,
        io::send,
        io::sendmsg,
        io::sendmmsg,
        io::sendto,
        io::splice,
        io::tee,
        io::sendfile,
        io::syscall,
    ];
    let waits: [fn() -> Option<Case>; 23] = [
        wait::accept4,
        wait::connect,
        wait::connect_tcp,
        wait::open_to_read,
        wait::open_to_write,
        wait::openat,
        wait::openat_of_the_working_directory,
        wait::flock,
        wait::flock_shared,
        wait::fcntl_lock,
        wait::fcntl_lock_of_the_open_file,
        wait::poll,
        wait::ppoll,
        wait::pselect,
        wait::epoll_wait,
        wait::epoll_pwait,
        wait::wait4,
        wait::waitid,
        wait::futex_wait,
        wait::futex_wait_until,
        wait::sigtimedwait,
        wait::sigtimedwait_with_a_time,
        ipc::msgrcv,
    ];
    let queues: [fn() -> Option<Case>; 4] = [ipc::msgsnd, ipc::semtimedop, ipc::mq_receive, ipc::mq_send];
    bytes.into_iter().chain(waits).chain(queues).for_each(by_deadline);
    assert_eq!(State::now(), before);
}

/// Two foreign numbers, one on either side, whose handlers restart calls: they come all the time, and lie on top of the call when the expiry does.
#[test]
fn in_a_storm_of_foreign_signals_each_deadline_ends_its_call() {
    let _t = common::begin();
    let mut random = common::Random::new();
    for (sig, foreign) in [
        (libc::SIGUSR1, [libc::SIGHUP, libc::SIGUSR2]),
        (libc::SIGRTMIN() + 3, [libc::SIGRTMIN() + 2, libc::SIGRTMIN() + 4]),
    ] {
        let _handlers = foreign.map(|foreign| Installed::new(foreign, nest::counts, libc::SA_RESTART));
        let scope = Scope::enter(sig).unwrap();
        let (from, _to) = common::pipe();
        let storms = foreign.map(|foreign| suite::Storm::on(common::gettid(), foreign, us(150)));
        for round in 0..common::rounds("EINTR_DEADLINE_STORM", 2500) {
            let at = Instant::now() + us(10 + random.below(300));
            let limit = scope.deadline(at).unwrap();
            let ended = if round % 2 == 0 {
                sys::read(&from, &mut [0; 8]).unwrap_err().interrupted()
            } else {
                eintr::retry(|| nix::unistd::read(&from, &mut [0; 8])).unwrap_err().interrupted()
            };
            assert_eq!(ended.map(Interrupted::reason), DUE);
            assert!(Instant::now() >= at && limit.expired());
        }
        drop(storms);
        assert!(
            nest::ENTERED.swap(0, std::sync::atomic::Ordering::SeqCst) > 100 || common::emulated(),
            "there was no storm"
        );
    }
}
