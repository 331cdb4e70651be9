//! The two words that the stub tests and writes, its labels, and the way in.
//!
//! # Invariants
//! 1. A [`Window`] belongs to one thread. `pending` is written by anybody, `mark` by the stub and its thread alone.
//! 2. The symbols carry the crate's version: two versions in one program do not meet. Two copies of one version lie in different objects, which
//!    hidden symbols do not cross.
//!
//! # Safety
//! [`call`] runs the kernel's call with whatever it is given; what wraps it answers for the arguments.
//!
//! # Async-signal-safety
//! Everything is. No thread-local is touched, errno neither.

use crate::atomic::{AtomicU32, AtomicUsize};
use nix::errno::Errno;

/// What a frame's check word is made of, beside its own address. Fits the immediate of an instruction on both architectures.
pub(crate) const CHECK: usize = 0x4e17;

/// The words of a thread that the stub knows, at the offsets that it knows.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Window {
    /// Not 0: calls are cancelled. See `Record`.
    pub(crate) pending: AtomicU32,
    /// Where the innermost frame of the stub lies; 0 if there is none.
    pub(crate) mark: AtomicUsize,
}
const _: () = assert!(std::mem::offset_of!(Window, pending) == 0 && std::mem::offset_of!(Window, mark) == 8);

impl Window {
    pub(crate) const fn new() -> Window {
        Window { pending: AtomicU32::new(0), mark: AtomicUsize::new(0) }
    }
}

/// How a call gets to the kernel: past its thread's window; past one of its own, in which nothing is ever asked, on a thread that never had a scope.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Door<'a>(Option<&'a Window>);

impl<'a> Door<'a> {
    pub(crate) const fn of(window: Option<&'a Window>) -> Door<'a> {
        Door(window)
    }
}

// The symbols below, and in the assembly, are named after this version.
const _: () = assert!(matches!(env!("CARGO_PKG_VERSION").as_bytes(), b"0.1.0"));

unsafe extern "C" {
    #[link_name = "eintr_0_1_0_stub"]
    fn stub(nr: usize, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize, window: *const Window) -> isize;
    #[link_name = "eintr_0_1_0_begin"]
    static BEGIN: u8;
    #[link_name = "eintr_0_1_0_end"]
    static END: u8;
    #[link_name = "eintr_0_1_0_popped"]
    static POPPED: u8;
    #[link_name = "eintr_0_1_0_cancel"]
    static CANCEL: u8;
    #[link_name = "eintr_0_1_0_last"]
    static LAST: u8;
}

/// `long syscall(long number, ...)`, syscall(2), but interruptible: EINTR without having run if `pending` is, or becomes, set before the kernel
/// has begun; EINTR from the kernel if it becomes set while the call sleeps. A call that did something returns what it did.
///
/// # Errors
/// What the kernel answers, or `EINTR`. errno is not written.
///
/// # Safety
/// The arguments must be what the call `nr` asks for: pointers valid for the lengths that it reads or writes.
#[inline]
pub(crate) unsafe fn call(door: Door<'_>, nr: libc::c_long, args: [usize; 6]) -> Result<usize, Errno> {
    let nobodys = Window::new();
    let [a, b, c, d, e, f] = args;
    let window = &raw const *door.0.unwrap_or(&nobodys);
    // SAFETY: the caller answers for the arguments, and `window` is a live reference.
    let answer = unsafe { stub(nr as usize, a, b, c, d, e, f, window) };
    // The kernel's errors are the last page of numbers (`include/linux/err.h`, MAX_ERRNO).
    if (-4095..0).contains(&answer) { Err(Errno::from_raw(-answer as i32)) } else { Ok(answer as usize) }
}

/// Where the stub lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Labels {
    pub(crate) first: usize,
    pub(crate) begin: usize,
    pub(crate) end: usize,
    pub(crate) popped: usize,
    pub(crate) cancel: usize,
    pub(crate) last: usize,
}

impl Labels {
    pub(crate) fn of_the_stub() -> Labels {
        Labels {
            first: stub as *const () as usize,
            begin: &raw const BEGIN as usize,
            end: &raw const END as usize,
            popped: &raw const POPPED as usize,
            cancel: &raw const CANCEL as usize,
            last: &raw const LAST as usize,
        }
    }
}
