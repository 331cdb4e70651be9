//! What a call costs more than the C library's.

use crate::each;
use crate::measure::dylib::Dylib;
use crate::measure::pairs::Judge;
use crate::measure::raw;
use crate::measure::report::Run;
use crate::measure::subjects::{self, Subject};
use eintr::Scope;
use std::fs::File;
use std::hint::black_box;
use std::os::fd::AsFd;

const LIBC: &str = "libc::read";

pub const SUBJECTS: &[Subject] = &[
    Subject { name: "read_ratio", floor_is: LIBC, set_up: in_a_scope },
    Subject { name: "read_bare_ratio", floor_is: LIBC, set_up: bare },
    Subject { name: "read_dylib_ratio", floor_is: LIBC, set_up: in_a_dylib },
    Subject { name: "retry_ratio", floor_is: LIBC, set_up: by_retry },
];

pub fn figures(run: &Run) {
    subjects::figures(run, SUBJECTS);
}

fn zero() -> File {
    File::open("/dev/zero").expect("/dev/zero")
}

/// `sys::read` of one byte.
fn bare(judge: Judge<'_>) {
    let (zero, mut a, mut b) = (zero(), [0; 1], [0; 1]);
    judge(
        each!(assert_eq!(raw::read(black_box(&zero).as_fd(), black_box(&mut a)), 1)),
        each!(assert_eq!(eintr::sys::read(black_box(&zero), black_box(&mut b)), Ok(1))),
    );
}

fn in_a_scope(judge: Judge<'_>) {
    let _scope = Scope::enter(libc::SIGRTMIN() + 1).expect("entered");
    bare(judge);
}

/// Both in a shared object that was loaded late, in a scope of that.
fn in_a_dylib(judge: Judge<'_>) {
    let (dylib, zero) = (Dylib::load(), zero());
    let session = dylib.enter(libc::SIGRTMIN() + 1);
    judge(&mut |count| dylib.plain_reads(&zero, count), &mut |count| dylib.reads(&zero, count));
    dylib.leave(session);
}

fn by_retry(judge: Judge<'_>) {
    let _scope = Scope::enter(libc::SIGRTMIN() + 1).expect("entered");
    let (zero, mut a, mut b) = (zero(), [0; 1], [0; 1]);
    judge(
        each!(assert_eq!(raw::read(black_box(&zero).as_fd(), black_box(&mut a)), 1)),
        each!(assert_eq!(eintr::retry(|| raw::read(black_box(&zero).as_fd(), black_box(&mut b))), Ok(1))),
    );
}
