//! A foreign handler that makes a call of the crate, on top of one that is blocked, with the interrupt at each instruction of that inner call in turn: before
//! its mark is set, in its window, behind it, in the code around. The outer call ends (R3), and what the inner one did is told.
// Tests install handlers and step through code.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]
#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code, unused_imports))]

mod common;
#[path = "common/nest.rs"]
mod nest;
#[path = "common/witness.rs"]
mod witness;

use eintr::{Delivery, Remote};
use nest::{Answer, Installed, LEFT, Subject, Tally};
use std::ffi::{c_int, c_void};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, Ordering::SeqCst};

static PIPE: AtomicI32 = AtomicI32::new(-1);
static REMOTE: AtomicPtr<Remote> = AtomicPtr::new(std::ptr::null_mut());
/// Instructions to go before the interrupt; those that were stepped over; whether it was sent.
static WHEN: AtomicU32 = AtomicU32::new(0);
static STEPS: AtomicU32 = AtomicU32::new(0);
static SENT: AtomicU32 = AtomicU32::new(0);
/// The step at which the call stood before its system call instruction.
static CALL: AtomicU32 = AtomicU32::new(0);
static BYTES: AtomicU32 = AtomicU32::new(0);

/// From here on the thread stops after each instruction, or does not.
#[inline(always)]
fn step(on: bool) {
    #[cfg(target_arch = "x86_64")]
    unsafe {
        match on {
            true => std::arch::asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq"), // TF
            false => std::arch::asm!("pushfq", "and qword ptr [rsp], ~0x100", "popfq"),
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("nothing is stepped on this architecture: {on}")
}

/// After each instruction, with every signal blocked: what is sent here lands at the instruction that comes next. No more is stepped then.
extern "C" fn steps(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    let step = STEPS.fetch_add(1, SeqCst);
    let context: *mut libc::ucontext_t = context.cast();
    let (pc, result) = unsafe { (*witness::pc_of(context), *witness::result_of(context)) };
    if unsafe { (pc as *const [u8; 2]).read() } == SYSCALL && result == libc::SYS_read as u64 {
        CALL.store(step, SeqCst);
    }
    if step == WHEN.load(SeqCst) {
        let remote = unsafe { &*REMOTE.load(SeqCst) };
        SENT.fetch_add(u32::from(remote.interrupt_once() == Delivery::Sent), SeqCst);
        #[cfg(target_arch = "x86_64")]
        unsafe {
            (*context).uc_mcontext.gregs[libc::REG_EFL as usize] &= !0x100;
        }
    }
}

/// The opcode of `syscall`.
const SYSCALL: [u8; 2] = [0x0f, 0x05];

/// Reads the byte that is there.
extern "C" fn reads(_: libc::c_int) {
    let pipe = unsafe { BorrowedFd::borrow_raw(PIPE.load(SeqCst)) };
    step(true);
    let answer = eintr::sys::read(pipe, &mut [0; 1]);
    step(false);
    match Answer::from(answer) {
        Answer::Bytes(n) => BYTES.store(n as u32, SeqCst),
        Answer::Interrupted => BYTES.store(0, SeqCst),
        other => panic!("{other:?}"),
    }
    LEFT.fetch_add(1, SeqCst);
}

/// One round, with the interrupt before that step; after the handler, if it makes fewer. Whether the inner call has read, if the interrupt was on time.
fn round(subject: &Subject, foreign: i32, when: u32, tally: &mut Tally) -> Option<bool> {
    nest::reset();
    [&WHEN, &STEPS, &SENT, &CALL]
        .into_iter()
        .zip([when, 0, 0, 0])
        .for_each(|(place, value)| place.store(value, SeqCst));
    let pipe = &subject.pipes[1];
    pipe.drain();
    pipe.feed(1);
    subject.begin(nest::sys_read);
    subject.signal(foreign);
    common::wait_until(|| LEFT.load(SeqCst) == 1);
    let on_time = SENT.load(SeqCst) == 1;
    if !on_time {
        subject.interrupt_once();
    }
    let (read, left) = (BYTES.load(SeqCst) == 1, pipe.filled());
    assert_eq!(left, usize::from(!read), "interrupted at {when}");
    tally.round(subject.end(), Answer::Interrupted, true);
    on_time.then_some(read)
}

#[test]
fn at_each_instruction_of_the_call_of_a_handler_an_interrupt_ends_the_call_below() {
    let _t = common::begin();
    if cfg!(not(target_arch = "x86_64")) {
        println!("SKIPPED: interrupts at each instruction of a handler's call: nothing steps on this architecture");
        return;
    }
    let all: Vec<_> = (1..=libc::SIGRTMAX()).filter(|sig| ![32, 33].contains(sig)).collect();
    let trap = common::install(libc::SIGTRAP, steps as *const () as usize, libc::SA_SIGINFO | libc::SA_RESTART, &all);
    for (sig, foreign, flags) in [
        (libc::SIGUSR1, libc::SIGHUP, libc::SA_RESTART),
        (libc::SIGUSR1, libc::SIGUSR2, libc::SA_RESTART | libc::SA_ONSTACK),
        (libc::SIGRTMIN() + 3, libc::SIGUSR2, libc::SA_RESTART),
    ] {
        let _foreign = Installed::new(foreign, reads, flags);
        let subject = Subject::new(sig);
        let mut remote = subject.remote.clone();
        REMOTE.store(&mut remote, SeqCst);
        PIPE.store(subject.pipes[1].raw(), SeqCst);
        let mut tally = Tally::new(format!("{sig} at each instruction in a handler of {foreign}"));
        assert_eq!(round(&subject, foreign, u32::MAX, &mut tally), None);
        let (last, call) = (STEPS.load(SeqCst), CALL.load(SeqCst));
        assert!((1..last).contains(&call), "the call's instruction was met: {call} of {last}");
        // All instructions of the stub, and some of what is around it, which a debug build has many of.
        let near = |when: &u32| (when + 24 >= call && *when <= call + 16) || when.is_multiple_of(last / 60 + 1);
        let answers: Vec<_> =
            (0..last).filter(near).filter_map(|when| round(&subject, foreign, when, &mut tally)).collect();
        let read = answers.iter().filter(|read| **read).count();
        println!("{sig} in a handler of {foreign}: {read} of {} reads were not interrupted", answers.len());
        assert!(read > 10 && answers.len() > read + 10, "{read} of {}", answers.len());
        subject.leave();
        tally.end();
    }
    common::restore(libc::SIGTRAP, trap);
}
