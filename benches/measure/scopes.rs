//! What scopes, deadlines and shields cost, and an interrupt that is pending already.

use crate::common;
use crate::each;
use crate::measure::pairs::Judge;
use crate::measure::raw;
use crate::measure::report::Run;
use crate::measure::subjects::{self, Subject};
use eintr::{Delivery, Resend, Scope, ScopeOptions};
use std::fs::File;
use std::hint::black_box;
use std::sync::mpsc;
use std::time::Duration;

const GETPPID: &str = "getppid";

pub const SUBJECTS: &[Subject] = &[
    Subject { name: "enter_drop_cold_ratio", floor_is: "the eight calls, raw", set_up: cold },
    Subject { name: "enter_drop_warm_ratio", floor_is: "the two calls, raw", set_up: warm },
    Subject { name: "enter_drop_nested_ratio", floor_is: GETPPID, set_up: nested },
    Subject { name: "acknowledge_ratio", floor_is: "two rt_sigprocmask", set_up: acknowledge },
    Subject { name: "deadline_ratio", floor_is: "two timer_settime", set_up: deadline },
    Subject { name: "shield_ratio", floor_is: GETPPID, set_up: shield },
    Subject { name: "interrupt_coalesced_ratio", floor_is: GETPPID, set_up: coalesced },
];

pub fn figures(run: &Run) {
    subjects::figures(run, SUBJECTS);
}

/// One that nobody else uses.
fn signal() -> i32 {
    libc::SIGRTMIN() + 1
}

const HOUR: Duration = Duration::from_secs(3600);

/// In place, as the floor is: after a system call each return costs.
#[inline(always)]
fn enter_and_drop() {
    drop(black_box(Scope::enter(black_box(signal())).expect("entered")));
}

/// The first scope on the number, and the last: block everything, look, install, open; block everything, look, put back, open.
fn cold(judge: Judge<'_>) {
    const RAW: i32 = libc::SIGUSR2; // has no handler, and nobody sends it
    let handler = common::Action { handler: raw::do_nothing as *const () as usize, mask: !0, ..raw::action(RAW, None) };
    let round = |install: Option<&common::Action>| {
        let before = raw::mask(libc::SIG_SETMASK, !0);
        let standing = raw::action(RAW, None);
        raw::action(RAW, Some(install.unwrap_or(&standing)));
        raw::mask(libc::SIG_SETMASK, before & !common::bit(RAW));
    };
    let default = raw::action(RAW, None);
    enter_and_drop(); // what is made once
    judge(
        each!({
            round(Some(&handler));
            round(Some(&default));
        }),
        each!(enter_and_drop()),
    );
}

/// While another thread's scope holds the action.
fn warm(judge: Judge<'_>) {
    let bit = common::bit(signal());
    let ((entered, is_entered), (end, ends)) = (mpsc::channel(), mpsc::channel::<()>());
    std::thread::scope(|s| {
        s.spawn(move || {
            let _scope = Scope::enter(signal()).expect("entered");
            entered.send(()).expect("it waits");
            let _ = ends.recv();
        });
        is_entered.recv().expect("entered");
        enter_and_drop();
        judge(
            each!({
                black_box(raw::mask(libc::SIG_UNBLOCK, bit));
                black_box(raw::mask(libc::SIG_UNBLOCK, bit));
            }),
            each!(enter_and_drop()),
        );
        drop(end);
    });
}

/// In a scope of the same thread and number.
fn nested(judge: Judge<'_>) {
    let _outer = Scope::enter(signal()).expect("entered");
    judge(each!(black_box(raw::getppid())), each!(enter_and_drop()));
}

/// A call that fails since an interrupt is pending: it does not get to the kernel, so what it costs is the acknowledgement, all of it.
fn acknowledge(judge: Judge<'_>) {
    let zero = File::open("/dev/zero").expect("/dev/zero");
    let scope = Scope::enter(signal()).expect("entered");
    assert_eq!(scope.remote().interrupt_once(), Delivery::Sent);
    judge(
        each!({
            let before = raw::mask(libc::SIG_SETMASK, !0);
            raw::mask(libc::SIG_SETMASK, before);
        }),
        each!(assert!(eintr::sys::read(black_box(&zero), black_box(&mut [0; 1])).is_err())),
    );
}

/// One that is dropped before its time: the lane's timer exists, as from the second deadline or interrupt of a thread on.
fn deadline(judge: Judge<'_>) {
    let scope = Scope::enter(signal()).expect("entered");
    drop(scope.timeout(HOUR).expect("a timer"));
    let (timer, at) = (raw::Timer::new(signal()), raw::now() + HOUR.as_nanos() as u64);
    judge(
        each!({
            timer.once_at(black_box(at));
            timer.once_at(0);
        }),
        each!(drop(black_box(scope.timeout(black_box(HOUR)).expect("a timer")))),
    );
}

/// Over a scope that nothing was sent to.
fn shield(judge: Judge<'_>) {
    let _scope = Scope::enter(signal()).expect("entered");
    judge(each!(black_box(raw::getppid())), each!(drop(black_box(eintr::shield()))));
}

/// Of a thread that sleeps in a plain call, and has not acknowledged.
fn coalesced(judge: Judge<'_>) {
    let ((give, given), (end, ends)) = (mpsc::channel(), mpsc::channel::<()>());
    std::thread::scope(|s| {
        s.spawn(move || {
            // So long that none comes meanwhile.
            let options = ScopeOptions::new(signal()).resend(Resend::Backoff { first: HOUR, ceiling: HOUR });
            let scope = options.enter().expect("entered");
            give.send(scope.remote()).expect("it waits");
            let _ = ends.recv();
        });
        let remote = given.recv().expect("entered");
        assert_eq!(remote.interrupt(), Delivery::Sent);
        judge(each!(black_box(raw::getppid())), each!(assert_eq!(black_box(&remote).interrupt(), Delivery::Held)));
        drop(end);
    });
}
