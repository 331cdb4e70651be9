//! Registers of aarch64 (`arch/arm64/include/uapi/asm/sigcontext.h`).
//!
//! # Safety
//! [`Registers::of`] is given a context that can be read and written for as long as the value lives: that of the handler that runs.
//!
//! # Async-signal-safety
//! Everything is.

use libc::ucontext_t;

/// The saved registers of one context.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registers(*mut ucontext_t);

/// What kind of branch came last (PSTATE 11:10): set, the next instruction must be a landing pad.
const BTYPE: u64 = 0b11 << 10;

impl Registers {
    /// The opcode of `svc #0`.
    pub(crate) const CALL: &'static [u8] = &[0x01, 0x00, 0x00, 0xd4];
    /// open(2), which this architecture has not.
    pub(crate) const OPEN: Option<libc::c_long> = None;

    pub(in crate::kernel) const fn of(context: *mut ucontext_t) -> Registers {
        Registers(context)
    }

    fn get(self, register: usize) -> usize {
        // SAFETY: see the module; there are 31 of them.
        unsafe { (*self.0).uc_mcontext.regs[register] as usize }
    }

    pub(crate) fn pc(self) -> usize {
        // SAFETY: see the module.
        unsafe { (*self.0).uc_mcontext.pc as usize }
    }

    pub(crate) fn sp(self) -> usize {
        // SAFETY: see the module.
        unsafe { (*self.0).uc_mcontext.sp as usize }
    }

    /// Goes on there instead, as if by no branch at all.
    pub(crate) fn go_to(self, pc: usize) {
        // SAFETY: see the module.
        unsafe { (*self.0).uc_mcontext.pc = pc as u64 };
        // SAFETY: see the module.
        unsafe { (*self.0).uc_mcontext.pstate &= !BTYPE };
    }

    /// The number of the call that is about to be made, or made again.
    pub(crate) fn number(self) -> libc::c_long {
        self.get(8) as u32 as libc::c_long
    }

    pub(crate) fn arguments(self) -> [usize; 6] {
        [0, 1, 2, 3, 4, 5].map(|r| self.get(r))
    }

    /// Whether the instruction at the program counter has run: nothing tells here.
    pub(crate) fn has_run(self) -> bool {
        false
    }

    /// Makes the call that is about to be made again answer this instead.
    pub(crate) fn answer(self, errno: i32) {
        // SAFETY: see the module.
        unsafe { (*self.0).uc_mcontext.regs[0] = (-errno) as i64 as u64 };
        self.go_to(self.pc().wrapping_add(Self::CALL.len()));
    }
}
