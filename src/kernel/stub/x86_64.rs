//! The stub on x86_64.
//!
//! ```text
//! in    rdi number   rsi rdx rcx r8 r9 [rsp+8] arguments 1 to 6   [rsp+16] the Window: +0 pending (4 bytes), +8 mark
//! call  rax number   rdi rsi rdx r10 r8 r9     arguments
//! out   rax what the kernel returned, or -EINTR
//! frame [mark] the check word, [mark+8] the mark before, [mark+16] the return address
//! ```
//!
//! Changed: rax, rcx, r11 (by the call itself, `arch/x86/entry/entry_64.S`) and the argument registers; all of them are the callee's to change by
//! the System V ABI. Nothing is kept in a register over the call, so whatever a handler or a tracer leaves there does no harm.
//!
//! # Invariants
//! 1. Between `begin` and `end` lie the test and the call: a program counter there means that the call has not happened, or is to be restarted,
//!    and may be moved to `cancel`. One at `end` means that it has, and rax is its result.
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
    "endbr64",
    "mov rax, rdi",
    "mov rdi, rsi",
    "mov rsi, rdx",
    "mov rdx, rcx",
    "mov r10, r8",
    "mov r8, r9",
    "mov r9, [rsp + 8]",
    "mov r11, [rsp + 16]",
    "push qword ptr [r11 + 8]",
    ".cfi_adjust_cfa_offset 8",
    "lea rcx, [rsp - 8]",
    "xor rcx, {check}",
    "push rcx",
    ".cfi_adjust_cfa_offset 8",
    "mov [r11 + 8], rsp",
    ".globl eintr_0_1_0_begin",
    ".hidden eintr_0_1_0_begin",
    "eintr_0_1_0_begin:",
    "cmp dword ptr [r11], 0",
    "jne eintr_0_1_0_cancel",
    "syscall",
    ".globl eintr_0_1_0_end",
    ".hidden eintr_0_1_0_end",
    "eintr_0_1_0_end:",
    "mov r11, [rsp + 32]",
    "mov rcx, [rsp + 8]",
    "mov [r11 + 8], rcx",
    ".globl eintr_0_1_0_popped",
    ".hidden eintr_0_1_0_popped",
    "eintr_0_1_0_popped:",
    "add rsp, 16",
    ".cfi_adjust_cfa_offset -16",
    "ret",
    ".cfi_adjust_cfa_offset 16",
    ".globl eintr_0_1_0_cancel",
    ".hidden eintr_0_1_0_cancel",
    "eintr_0_1_0_cancel:",
    "mov rax, -{eintr}",
    "jmp eintr_0_1_0_end",
    ".globl eintr_0_1_0_last",
    ".hidden eintr_0_1_0_last",
    "eintr_0_1_0_last:",
    ".cfi_endproc",
    ".size eintr_0_1_0_stub, . - eintr_0_1_0_stub",
    ".popsection",
    check = const CHECK,
    eintr = const libc::EINTR,
);
