//! The unwinder, asked from within a signal handler: the program counter of the signal's context, and every frame from the handler outwards. A test
//! file takes it by `#[path = "common/unwinder.rs"] mod unwinder;` beside `mod common;`.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block
)]

use crate::common::{self, Action};
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering::SeqCst};

/// A frame, as the unwinder tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    pub pc: usize,
    /// A signal has interrupted it, so `pc` has not run yet; else it is where a call comes back to.
    pub is_interrupted: bool,
    /// Where the function begins that the frame is of; 0 if the unwinder does not know.
    pub function: usize,
}

/// From one handler outwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    /// Of the context that the handler was given.
    pub pc: usize,
    pub frames: Vec<Frame>,
}

#[repr(C)]
struct Context([u8; 0]);

// Itanium C++ ABI, exception handling; libgcc_s and libunwind both have them, and std links one.
unsafe extern "C" {
    fn _Unwind_Backtrace(each: extern "C" fn(*mut Context, *mut c_void) -> c_int, arg: *mut c_void) -> c_int;
    fn _Unwind_GetIPInfo(frame: *mut Context, before: *mut c_int) -> usize;
    fn _Unwind_FindEnclosingFunction(pc: *mut c_void) -> *mut c_void;
}

const ROOM: usize = 64;
const STEPS: usize = 128;

/// A walk that needs no memory but its own.
#[derive(Clone, Copy)]
struct Raw {
    pc: usize,
    frames: [Frame; ROOM],
    count: usize,
}

impl Raw {
    const NOTHING: Raw = Raw { pc: 0, frames: [Frame { pc: 0, is_interrupted: false, function: 0 }; ROOM], count: 0 };

    fn walk(pc: usize) -> Raw {
        let mut raw = Raw { pc, ..Raw::NOTHING };
        unsafe { _Unwind_Backtrace(note, (&raw mut raw).cast()) };
        raw
    }

    fn told(&self) -> Walk {
        Walk { pc: self.pc, frames: self.frames[..self.count].to_vec() }
    }
}

extern "C" fn note(frame: *mut Context, raw: *mut c_void) -> c_int {
    const NO_REASON: c_int = 0;
    const END_OF_STACK: c_int = 5;
    let raw = unsafe { &mut *raw.cast::<Raw>() };
    let mut before = 0;
    let pc = unsafe { _Unwind_GetIPInfo(frame, &mut before) };
    let Some(place) = raw.frames.get_mut(raw.count) else { return END_OF_STACK };
    *place = Frame { pc, is_interrupted: before != 0, function: function_at(pc + usize::from(before != 0)) };
    raw.count += 1;
    NO_REASON
}

/// By an address to come back to: libgcc looks at the byte before it, so who is at an instruction adds one.
fn function_at(pc: usize) -> usize {
    unsafe { _Unwind_FindEnclosingFunction(pc as *mut c_void) as usize }
}

#[cfg(target_arch = "x86_64")]
fn pc_of(context: *mut libc::ucontext_t) -> usize {
    unsafe { (*context).uc_mcontext.gregs[libc::REG_RIP as usize] as usize }
}
#[cfg(target_arch = "aarch64")]
fn pc_of(context: *mut libc::ucontext_t) -> usize {
    unsafe { (*context).uc_mcontext.pc as usize }
}

static WALKED: AtomicPtr<Raw> = AtomicPtr::new(std::ptr::null_mut());
static DONE: AtomicBool = AtomicBool::new(false);

extern "C" fn walk(_: c_int, _: *mut libc::siginfo_t, context: *mut libc::ucontext_t) {
    unsafe { *WALKED.load(SeqCst) = Raw::walk(pc_of(context)) };
    DONE.store(true, SeqCst);
}

/// A handler that walks, until it is dropped. SA_RESTART.
pub struct Walker {
    sig: c_int,
    was: Action,
    room: *mut Raw,
}

impl Walker {
    pub fn on(sig: c_int) -> Walker {
        std::hint::black_box(Raw::walk(0)); // the unwinder may allocate once
        let room = Box::into_raw(Box::new(Raw::NOTHING));
        WALKED.store(room, SeqCst);
        DONE.store(false, SeqCst);
        let was = common::install(sig, walk as *const () as usize, libc::SA_RESTART | libc::SA_SIGINFO, &[]);
        Walker { sig, was, room }
    }

    /// Waits until it has run once; what it saw.
    pub fn walk(&self) -> Walk {
        common::wait_until(|| DONE.load(SeqCst));
        unsafe { (*self.room).told() }
    }
}

impl Drop for Walker {
    fn drop(&mut self) {
        common::restore(self.sig, self.was);
        drop(unsafe { Box::from_raw(self.room) });
    }
}

static STEPPED: AtomicPtr<Raw> = AtomicPtr::new(std::ptr::null_mut());
static COUNT: AtomicUsize = AtomicUsize::new(0);
static FUNCTION: AtomicUsize = AtomicUsize::new(0);

/// TF, the eighth bit of the flags.
#[cfg(target_arch = "x86_64")]
const TRAP_FLAG: i64 = 0x100;

/// SIGTRAP, after each instruction: those of the function that is looked at are walked from. Where the function is left there are no more: what
/// follows may block all signals, and a trap that is blocked kills.
#[cfg(target_arch = "x86_64")]
extern "C" fn stepped(_: c_int, _: *mut libc::siginfo_t, context: *mut libc::ucontext_t) {
    let pc = pc_of(context);
    let n = COUNT.load(SeqCst);
    if n < STEPS && function_at(pc + 1) == FUNCTION.load(SeqCst) {
        unsafe { *STEPPED.load(SeqCst).add(n) = Raw::walk(pc) };
        COUNT.store(n + 1, SeqCst);
    } else if n > 0 {
        unsafe { (*context).uc_mcontext.gregs[libc::REG_EFL as usize] &= !TRAP_FLAG };
    }
}

/// Runs `call` instruction by instruction, and gives a walk from each of them that lies in the function that begins at `function`.
#[cfg(target_arch = "x86_64")]
pub fn step(function: usize, call: impl FnOnce()) -> Vec<Walk> {
    std::hint::black_box(Raw::walk(0));
    let mut room = vec![Raw::NOTHING; STEPS];
    STEPPED.store(room.as_mut_ptr(), SeqCst);
    FUNCTION.store(function, SeqCst);
    COUNT.store(0, SeqCst);
    let was = common::install(libc::SIGTRAP, stepped as *const () as usize, libc::SA_RESTART | libc::SA_SIGINFO, &[]);
    // The kernel clears the flag for a handler, and brings it back with the context.
    unsafe { std::arch::asm!("pushfq", "or qword ptr [rsp], {flag}", "popfq", flag = const TRAP_FLAG) };
    call();
    common::restore(libc::SIGTRAP, was);
    room[..COUNT.load(SeqCst)].iter().map(Raw::told).collect()
}
