//! Registers of x86_64 (`arch/x86/include/uapi/asm/sigcontext.h`).
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

impl Registers {
    /// The opcode of `syscall`.
    pub(crate) const CALL: &'static [u8] = &[0x0f, 0x05];
    /// open(2), which aarch64 has not.
    pub(crate) const OPEN: Option<libc::c_long> = Some(libc::SYS_open);

    pub(in crate::kernel) const fn of(context: *mut ucontext_t) -> Registers {
        Registers(context)
    }

    fn get(self, register: libc::c_int) -> usize {
        // SAFETY: see the module; the index is one of libc's.
        unsafe { (*self.0).uc_mcontext.gregs[register as usize] as usize }
    }

    fn set(self, register: libc::c_int, value: usize) {
        // SAFETY: as in `get`.
        unsafe { (*self.0).uc_mcontext.gregs[register as usize] = value as i64 };
    }

    pub(crate) fn pc(self) -> usize {
        self.get(libc::REG_RIP)
    }

    pub(crate) fn sp(self) -> usize {
        self.get(libc::REG_RSP)
    }

    /// Goes on there instead.
    pub(crate) fn go_to(self, pc: usize) {
        self.set(libc::REG_RIP, pc);
    }

    /// The number of the call that is about to be made, or made again.
    pub(crate) fn number(self) -> libc::c_long {
        self.get(libc::REG_RAX) as libc::c_long
    }

    pub(crate) fn arguments(self) -> [usize; 6] {
        [libc::REG_RDI, libc::REG_RSI, libc::REG_RDX, libc::REG_R10, libc::REG_R8, libc::REG_R9].map(|r| self.get(r))
    }

    /// Whether the instruction at the program counter has run: it leaves the address behind it in rcx. (So did its last run before this one.)
    pub(crate) fn has_run(self) -> bool {
        self.get(libc::REG_RCX) == self.pc().wrapping_add(Self::CALL.len())
    }

    /// Makes the call that is about to be made again answer this instead.
    pub(crate) fn answer(self, errno: i32) {
        self.set(libc::REG_RAX, (-errno) as isize as usize);
        self.go_to(self.pc().wrapping_add(Self::CALL.len()));
    }
}
