//! The handler's outermost layer: the entry that the kernel jumps to, errno, and nothing else.
//!
//! # Invariants
//! 1. errno is the same when the handler returns as it was when it began.
//! 2. While the handler runs every signal is blocked, whoever called it: by its own action's mask, or by its first system call.
//! 3. Nothing here, nor in what it calls (`frame`, `registers`, `decide`, `stack`, `inject`, `send`, `timer`, `mask`, `held`, and the engine's `deliver`,
//!    `nested`, `resend`, `turn`, `foreign`, `interrupt`, `gate`), allocates, locks, panics, formats, or touches a thread-local that may have to be made first.
//!
//! # Safety
//! [`address`] is installed with SA_SIGINFO, so the kernel calls it with number, siginfo and context; what anybody else calls it with is
//! judged by [`Frame::check`] before it is read.
//!
//! # Async-signal-safety
//! This is the handler.

use crate::kernel::frame::Frame;
use crate::kernel::hooks::Hooks;
use libc::{c_int, c_void};
use nix::errno::Errno;

/// The address that stands in an action while scopes of its number live.
pub(crate) fn address<H: Hooks>() -> usize {
    entry::<H> as *const () as usize
}

/// Hands the stack pointer at entry on as a fourth argument: by it a call by the kernel is told from a call by a dispatcher.
/// In: number, siginfo, context as the ABI passes them (rdi, rsi, rdx). Out: the same, and rsp in rcx, which the ABI lets a callee change.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
extern "C" fn entry<H: Hooks>(sig: c_int, info: *mut c_void, context: *mut c_void) {
    std::arch::naked_asm!("endbr64", "mov rcx, rsp", "jmp {body}", body = sym body::<H>)
}

/// As on x86_64. In: x0, x1, x2. Out: the same, and sp in x3. `hint 34` is `bti c`, a no-operation where there is no BTI.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
extern "C" fn entry<H: Hooks>(sig: c_int, info: *mut c_void, context: *mut c_void) {
    std::arch::naked_asm!("hint 34", "mov x3, sp", "b {body}", body = sym body::<H>)
}

extern "C" fn body<H: Hooks>(sig: c_int, info: *mut c_void, context: *mut c_void, entry_sp: usize) {
    let errno = Errno::last_raw();
    let frame = Frame::begin(sig, info, context, entry_sp, address::<H>());
    H::on_signal(&frame);
    frame.end();
    Errno::set_raw(errno);
}
