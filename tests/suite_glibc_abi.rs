//! glibc's tests of what a cancellation point does to its caller, ported: registers, errno, and where the program counter stands.
//!
//! | glibc | here |
//! | --- | --- |
//! | `tst-cancel19` (callee-saved registers survive a cancellation point) | `registers_of_the_caller_survive_...` |
//! | `tst-cancel26`, `27` (a failing call keeps its errno, cancellation enabled and disabled) | `a_call_that_fails_...`: with a scope and without; errno itself in `errno_is_not_touched_...` |
//! | `tst-sigcontext-get_pc` (the pc of a signal's context is the one that the unwinder sees) | `the_unwinder_sees_...`, in the blocked call; on x86_64 also at each instruction of the stub, for a call that succeeds and one that is cancelled |
//!
//! Left out: nothing.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)] // as in tests/common

mod common;
#[path = "common/counting.rs"]
mod counting;
#[path = "common/registers.rs"]
mod registers;
#[path = "common/suite.rs"]
mod suite;
#[path = "common/unwinder.rs"]
mod unwinder;

use counting::{Counting, kinds};
use eintr::{Error, Scope, sys};
use nix::errno::Errno;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use suite::{interrupted, memory_file, pipe_files, sleep, worker};
use unwinder::Walk;

/// What `call` leaves in the callee-saved registers is what was in them before.
#[track_caller]
fn spares_the_registers<T>(call: impl FnMut() -> T) -> T {
    let (answer, before, after) = registers::around(call);
    assert_eq!(before, after, "{}", registers::NAMES);
    answer
}

// The stub's name carries the crate's version; it is hidden, but in this program all the same.
const _: () = assert!(matches!(env!("CARGO_PKG_VERSION").as_bytes(), b"0.1.0"));

/// What the stub knows of a thread.
#[repr(C)]
struct Window {
    pending: u32,
    mark: usize,
}

/// The stub itself, so that nothing of Rust in between saves a register that it would spoil: a call that succeeds, one that fails, and one that is
/// cancelled.
#[test]
fn registers_of_the_caller_survive_the_bare_stub() {
    #[rustfmt::skip]
    unsafe extern "C" {
        #[link_name = "eintr_0_1_0_stub"]
        fn stub(nr: usize, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize, window: *mut Window) -> isize;
    }
    let _t = common::begin();
    let pid = common::getpid() as isize;
    let nobodys = i32::MAX as usize;
    for (pending, nr, expected) in [
        (0, libc::SYS_getpid, pid),
        (0, libc::SYS_fsync, -libc::EBADF as isize),
        (1, libc::SYS_getpid, -libc::EINTR as isize),
    ] {
        let mut window = Window { pending, mark: 7 };
        let (nr, window_at) = (nr as usize, &raw mut window);
        assert_eq!(spares_the_registers(|| unsafe { stub(nr, nobodys, 0, 0, 0, 0, 0, window_at) }), expected);
        assert_eq!((window.pending, window.mark), (pending, 7), "the mark is back");
    }
}

#[test]
fn registers_of_the_caller_survive_a_call_that_succeeds() {
    let _t = common::begin();
    let (mut from, mut to) = pipe_files();
    let read = |from: &File| spares_the_registers(|| sys::read(from, &mut [0; 8]));
    to.write_all(b"no scope").unwrap();
    assert_eq!(read(&from), Ok(8));
    let _scope = Scope::enter(libc::SIGUSR1).unwrap();
    to.write_all(b"a scope").unwrap();
    assert_eq!(read(&from), Ok(7));
    to.write_all(b"x").unwrap();
    assert_eq!(from.read(&mut [0; 8]).unwrap(), 1);
}

#[test]
fn registers_of_the_caller_survive_a_call_that_was_cancelled_before_it_began() {
    let _t = common::begin();
    let (from, _to) = pipe_files();
    for sig in kinds() {
        let scope = Scope::enter(sig).unwrap();
        let _ = scope.remote().interrupt();
        interrupted(spares_the_registers(|| sys::read(&from, &mut [0; 8])));
    }
}

#[test]
fn registers_of_the_caller_survive_a_call_that_was_ended_while_it_was_blocked() {
    let _t = common::begin();
    for sig in kinds() {
        let (from, _to) = pipe_files();
        let reader = worker(sig, move |_, _| spares_the_registers(|| sys::read(&from, &mut [0; 8])));
        let reader = reader.asleep(&sleep(libc::SYS_read));
        let _ = reader.remote.interrupt();
        interrupted(reader.join());
    }
}

#[test]
fn registers_of_the_caller_survive_signals_from_elsewhere() {
    let _t = common::begin();
    for (sig, flags) in kinds().into_iter().zip([libc::SA_RESTART, 0]) {
        let behind = Counting::with_flags(sig, flags);
        let (from, mut to) = pipe_files();
        let reader = worker(sig, move |_, _| spares_the_registers(|| sys::read(&from, &mut [0; 8])));
        let reader = reader.asleep(&sleep(libc::SYS_read));
        suite::send(reader.tid, sig);
        common::wait_until(|| behind.runs() > 0);
        let reader = reader.asleep(&sleep(libc::SYS_read));
        to.write_all(b"hello").unwrap();
        assert_eq!(reader.join(), Ok(5));
    }
}

/// Calls that fail, each in its own way.
fn failing() -> [(Result<usize, Error>, Errno); 4] {
    let file = memory_file();
    let nowhere = unsafe { BorrowedFd::borrow_raw(i32::MAX) };
    let (from, to) = pipe_files();
    drop(from);
    [
        (sys::write(nowhere, b""), Errno::EBADF),
        (sys::read(File::open("/").unwrap(), &mut [0; 8]), Errno::EISDIR),
        (sys::write(&to, b"nobody reads"), Errno::EPIPE),
        (sys::recv(&file, &mut [0; 8], nix::sys::socket::MsgFlags::empty()), Errno::ENOTSOCK),
    ]
}

#[test]
fn a_call_that_fails_says_why_with_a_scope_and_without() {
    let _t = common::begin();
    let all_say_why = || failing().into_iter().for_each(|(answer, why)| assert_eq!(answer, Err(Error::Os(why))));
    all_say_why();
    for sig in kinds() {
        let scope = Scope::enter(sig).unwrap();
        all_say_why();
        // An interrupt that was asked for comes first; and after it the call fails as before.
        let _ = scope.remote().interrupt();
        failing().into_iter().for_each(|(answer, _)| interrupted(answer));
        assert!(scope.clear().is_some());
        all_say_why();
    }
    all_say_why();
}

const UNTOUCHED: i32 = 4000; // no error has this number

/// Makes one call and looks at the thread's errno behind it.
#[track_caller]
fn spares_errno<T>(call: impl FnOnce() -> T) -> T {
    Errno::set_raw(UNTOUCHED);
    let answer = call();
    assert_eq!(Errno::last_raw(), UNTOUCHED);
    answer
}

#[test]
fn errno_is_not_touched_by_a_call_whatever_becomes_of_it() {
    let _t = common::begin();
    let nowhere = unsafe { BorrowedFd::borrow_raw(i32::MAX) };
    let fails = move || spares_errno(|| sys::read(nowhere, &mut [0; 8]));
    assert_eq!(fails(), Err(Error::Os(Errno::EBADF)));
    for (sig, flags) in kinds().into_iter().zip([libc::SA_RESTART, 0]) {
        let behind = Counting::with_flags(sig, flags);
        let (from, mut to) = pipe_files();
        let reader = worker(sig, move |scope, tell| {
            assert_eq!(fails(), Err(Error::Os(Errno::EBADF)));
            let read = || spares_errno(|| sys::read(&from, &mut [0; 8]));
            interrupted(read());
            interrupted(read());
            assert!(scope.clear().is_some());
            tell.send(()).unwrap();
            read()
        });
        let reader = reader.asleep(&sleep(libc::SYS_read));
        let _ = reader.remote.interrupt();
        let reader = reader.has_told().asleep(&sleep(libc::SYS_read));
        suite::send(reader.tid, sig);
        common::wait_until(|| behind.runs() > 0);
        let reader = reader.asleep(&sleep(libc::SYS_read));
        to.write_all(b"hello").unwrap();
        assert_eq!(reader.join(), Ok(5));
    }
}

/// Acknowledging meets the sender, which may still be inside the gate: that is no business of errno's either.
#[test]
fn errno_is_not_touched_by_acknowledging_while_the_sender_is_not_done() {
    let _t = common::begin();
    let rounds = common::rounds("EINTR_ROUNDS", 5000);
    for sig in kinds() {
        let (from, _to) = pipe_files();
        let reader = worker(sig, move |scope, _| {
            for _ in 0..rounds {
                interrupted(spares_errno(|| sys::read(&from, &mut [0; 8])));
                assert!(spares_errno(|| scope.clear()).is_some());
            }
        });
        let remote = reader.remote.clone();
        std::thread::scope(|threads| {
            for _ in 0..3 {
                threads.spawn(|| {
                    common::set_mask(!0);
                    while !remote.is_closed() {
                        let _ = remote.interrupt();
                    }
                });
            }
        });
        reader.join();
    }
}

/// The function that the unwinder must get to, past handler, signal frame and stub.
#[inline(never)]
extern "C" fn the_caller(from: &OwnedFd, answer: &mut Result<usize, Error>) {
    *answer = sys::read(from, &mut [0; 8]);
    std::hint::black_box(&answer);
}

fn caller() -> usize {
    the_caller as *const () as usize
}

#[test]
fn the_unwinder_sees_the_blocked_call_where_the_context_says_it_is() {
    let _t = common::begin();
    for sig in kinds() {
        let walker = unwinder::Walker::on(libc::SIGUSR2);
        let (from, mut to) = pipe_files();
        let from = OwnedFd::from(from);
        let reader = worker(sig, move |_, _| {
            let mut answer = Ok(0);
            the_caller(&from, &mut answer);
            answer
        });
        let reader = reader.asleep(&sleep(libc::SYS_read));
        suite::send(reader.tid, libc::SIGUSR2);
        let walk = walker.walk();
        let reader = reader.asleep(&sleep(libc::SYS_read));
        to.write_all(b"hello").unwrap();
        assert_eq!(reader.join(), Ok(5));
        is_sound(&walk);
    }
}

/// The frame at the pc of the context is there, as one that a signal has interrupted, and the test's function further out.
#[track_caller]
fn is_sound(walk: &Walk) {
    let at = walk.frames.iter().position(|frame| frame.pc == walk.pc && frame.is_interrupted);
    let out = walk.frames.iter().position(|frame| frame.function == caller());
    assert!(matches!((at, out), (Some(at), Some(out)) if at < out), "{at:?} {out:?} of {:#x} in {walk:#x?}", caller());
    assert_ne!(walk.pc, 0);
}

/// The trap flag brings a signal after each instruction. Those of the stub are told by its first one, which the blocked call has shown.
#[cfg(target_arch = "x86_64")]
#[test]
fn the_unwinder_finds_its_way_out_of_the_stub_at_each_instruction() {
    let _t = common::begin();
    let stub = the_stub();
    let (from, mut to) = pipe_files();
    let from = OwnedFd::from(from);
    let scope = Scope::enter(libc::SIGUSR1).unwrap();
    let mut answer = Ok(0);
    to.write_all(b"hello").unwrap();
    let through = unwinder::step(stub, || the_caller(&from, &mut answer));
    assert_eq!(answer, Ok(5));
    let _ = scope.remote().interrupt();
    let cancelled = unwinder::step(stub, || the_caller(&from, &mut answer));
    interrupted(answer);
    for (way, walks) in [("through", through), ("cancelled", cancelled)] {
        println!("{way}: {} instructions", walks.len());
        assert!(walks.len() > 10, "the stub has more instructions than {}", walks.len());
        walks.iter().for_each(is_sound);
    }
}

/// Where the stub begins, as the unwinder knows it.
#[cfg(target_arch = "x86_64")]
fn the_stub() -> usize {
    let walker = unwinder::Walker::on(libc::SIGUSR2);
    let (from, mut to) = pipe_files();
    let reader = worker(libc::SIGUSR1, move |_, _| sys::read(&from, &mut [0; 8]));
    let reader = reader.asleep(&sleep(libc::SYS_read));
    suite::send(reader.tid, libc::SIGUSR2);
    let walk = walker.walk();
    to.write_all(b"x").unwrap();
    assert_eq!(reader.join(), Ok(1));
    walk.frames.iter().find(|frame| frame.pc == walk.pc).expect("the frame of the call").function
}
