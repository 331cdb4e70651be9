//! The stub on aarch64.
//!
//! ```text
//! in    x0 number   x1 to x6 arguments 1 to 6   x7 the Window: +0 pending (4 bytes), +8 mark
//! call  x8 number   x0 to x5 arguments
//! out   x0 what the kernel returned, or -EINTR
//! frame [mark] the check word, [mark+8] the mark before
//! ```
//!
//! Changed: x0 to x11, all of them the callee's to change by the procedure call standard. The call changes x0 alone (`arch/arm64/kernel/entry.S`),
//! so x7 still names the Window behind it. A leaf: the link register is never stored, so it needs no signature.
//!
//! # Invariants
//! 1. Between `begin` and `end` lie the test and the call: a program counter there means that the call has not happened, or is to be restarted,
//!    and may be moved to `cancel`. One at `end` means that it has, and x0 is its result.
//! 2. The mark names this frame exactly from `begin` to `popped`: its store is the last instruction before the one, and the first after `end`
//!    that changes anything.
//! 3. There is one way out, so a cancelled call leaves the registers and the stack as one that the kernel ended does.
//!
//! # Safety
//! Called by [`window`](super::window) alone, with its six arguments and a Window that outlives the call.

use super::window::CHECK;

std::arch::global_asm!(
    ".pushsection .text.eintr_0_1_0_stub,\"ax\",@progbits",
    ".p2align 6",
    ".globl eintr_0_1_0_stub",
    ".hidden eintr_0_1_0_stub",
    ".type eintr_0_1_0_stub,@function",
    "eintr_0_1_0_stub:",
    ".cfi_startproc",
    "hint 34", // bti c
    "mov x8, x0",
    "mov x0, x1",
    "mov x1, x2",
    "mov x2, x3",
    "mov x3, x4",
    "mov x4, x5",
    "mov x5, x6",
    "ldr x9, [x7, #8]",
    "sub sp, sp, #16",
    ".cfi_adjust_cfa_offset 16",
    "mov x11, sp",
    "mov x10, #{check}",
    "eor x10, x11, x10",
    "stp x10, x9, [sp]",
    "str x11, [x7, #8]",
    ".globl eintr_0_1_0_begin",
    ".hidden eintr_0_1_0_begin",
    "eintr_0_1_0_begin:",
    "ldr w9, [x7]",
    "cbnz w9, eintr_0_1_0_cancel",
    "svc #0",
    ".globl eintr_0_1_0_end",
    ".hidden eintr_0_1_0_end",
    "eintr_0_1_0_end:",
    "ldr x9, [sp, #8]",
    "str x9, [x7, #8]",
    ".globl eintr_0_1_0_popped",
    ".hidden eintr_0_1_0_popped",
    "eintr_0_1_0_popped:",
    "add sp, sp, #16",
    ".cfi_adjust_cfa_offset -16",
    "ret",
    ".cfi_adjust_cfa_offset 16",
    ".globl eintr_0_1_0_cancel",
    ".hidden eintr_0_1_0_cancel",
    "eintr_0_1_0_cancel:",
    "mov x0, #-{eintr}",
    "b eintr_0_1_0_end",
    ".globl eintr_0_1_0_last",
    ".hidden eintr_0_1_0_last",
    "eintr_0_1_0_last:",
    ".cfi_endproc",
    ".size eintr_0_1_0_stub, . - eintr_0_1_0_stub",
    ".popsection",
    check = const CHECK,
    eintr = const libc::EINTR,
);
