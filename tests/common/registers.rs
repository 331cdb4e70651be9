//! Callee-saved registers around a call: loaded with a pattern, and read when the call has come back. A test file takes it by
//! `#[path = "common/registers.rs"] mod registers;`.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block
)]

use std::ffi::c_void;

#[cfg(target_arch = "x86_64")]
const COUNT: usize = 6;
/// In the order of [`Registers`].
#[cfg(target_arch = "x86_64")]
pub const NAMES: &str = "rbx rbp r12 r13 r14 r15";

#[cfg(target_arch = "aarch64")]
const COUNT: usize = 19;
/// In the order of [`Registers`].
#[cfg(target_arch = "aarch64")]
pub const NAMES: &str = "x19 to x28, x29, d8 to d15";

pub type Registers = [u64; COUNT];

/// Makes the call with a pattern in each callee-saved register: what it answered, the pattern, and what was in them afterwards.
pub fn around<T>(mut call: impl FnMut() -> T) -> (T, Registers, Registers) {
    let before: Registers = std::array::from_fn(|n| 0x5a00_0000_c3a5_0000 | n as u64);
    let mut after = [0; COUNT];
    let mut answer = None;
    let mut store = || answer = Some(call());
    unsafe { with_registers(trampoline_of(&store), (&raw mut store).cast(), &before, &mut after) };
    (answer.expect("the call was made"), before, after)
}

type Trampoline = extern "C" fn(*mut c_void);

fn trampoline_of<F: FnMut()>(_: &F) -> Trampoline {
    extern "C" fn run<F: FnMut()>(call: *mut c_void) {
        unsafe { (*call.cast::<F>())() }
    }
    run::<F>
}

/// In: rdi the function, rsi its argument, rdx the pattern, rcx where the registers go afterwards. The registers of our own caller are pushed, and
/// come back at the end.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
unsafe extern "C" fn with_registers(call: Trampoline, arg: *mut c_void, before: &Registers, after: &mut Registers) {
    std::arch::naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "push rcx",
        "mov rbx, [rdx]",
        "mov rbp, [rdx + 8]",
        "mov r12, [rdx + 16]",
        "mov r13, [rdx + 24]",
        "mov r14, [rdx + 32]",
        "mov r15, [rdx + 40]",
        "mov rax, rdi",
        "mov rdi, rsi",
        "call rax",
        "pop rcx",
        "mov [rcx], rbx",
        "mov [rcx + 8], rbp",
        "mov [rcx + 16], r12",
        "mov [rcx + 24], r13",
        "mov [rcx + 32], r14",
        "mov [rcx + 40], r15",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",
    )
}

/// In: x0 the function, x1 its argument, x2 the pattern, x3 where the registers go afterwards. The registers of our own caller lie in the frame, and
/// come back at the end.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
unsafe extern "C" fn with_registers(call: Trampoline, arg: *mut c_void, before: &Registers, after: &mut Registers) {
    std::arch::naked_asm!(
        "hint 34", // bti c
        "stp x29, x30, [sp, #-176]!",
        "stp x19, x20, [sp, #16]",
        "stp x21, x22, [sp, #32]",
        "stp x23, x24, [sp, #48]",
        "stp x25, x26, [sp, #64]",
        "stp x27, x28, [sp, #80]",
        "stp d8, d9, [sp, #96]",
        "stp d10, d11, [sp, #112]",
        "stp d12, d13, [sp, #128]",
        "stp d14, d15, [sp, #144]",
        "str x3, [sp, #160]",
        "ldp x19, x20, [x2]",
        "ldp x21, x22, [x2, #16]",
        "ldp x23, x24, [x2, #32]",
        "ldp x25, x26, [x2, #48]",
        "ldp x27, x28, [x2, #64]",
        "ldr x29, [x2, #80]",
        "ldp d8, d9, [x2, #88]",
        "ldp d10, d11, [x2, #104]",
        "ldp d12, d13, [x2, #120]",
        "ldp d14, d15, [x2, #136]",
        "mov x8, x0",
        "mov x0, x1",
        "blr x8",
        "ldr x3, [sp, #160]",
        "stp x19, x20, [x3]",
        "stp x21, x22, [x3, #16]",
        "stp x23, x24, [x3, #32]",
        "stp x25, x26, [x3, #48]",
        "stp x27, x28, [x3, #64]",
        "str x29, [x3, #80]",
        "stp d8, d9, [x3, #88]",
        "stp d10, d11, [x3, #104]",
        "stp d12, d13, [x3, #120]",
        "stp d14, d15, [x3, #136]",
        "ldp x19, x20, [sp, #16]",
        "ldp x21, x22, [sp, #32]",
        "ldp x23, x24, [sp, #48]",
        "ldp x25, x26, [sp, #64]",
        "ldp x27, x28, [sp, #80]",
        "ldp d8, d9, [sp, #96]",
        "ldp d10, d11, [sp, #112]",
        "ldp d12, d13, [sp, #128]",
        "ldp d14, d15, [sp, #144]",
        "ldp x29, x30, [sp], #176",
        "ret",
    )
}
