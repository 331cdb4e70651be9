//! The calling thread's signal mask: all 64 bits of it, the two that libc keeps for itself (32, 33) too.
//!
//! The kernel's own call is used because libc's leaves its private numbers open, and a handler of those could run in the middle of what
//! must not be interrupted (glibc: `sysdeps/unix/sysv/linux/internal-signals.h`).
//!
//! # Safety
//! Sets and masks are 8 bytes, the kernel's `sigset_t` on x86_64 and aarch64; pointers are to locals.
//!
//! # Async-signal-safety
//! Every function is.

use crate::kernel::raw;
use nix::errno::Errno;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// A set of signals: bit `n - 1` is signal `n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mask(pub(crate) u64);

impl Mask {
    pub(crate) const ALL: Mask = Mask(!0);

    pub(crate) const fn of(sig: i32) -> Mask {
        Mask(1 << (sig - 1))
    }
    pub(crate) const fn has(self, sig: i32) -> bool {
        self.0 & Mask::of(sig).0 != 0
    }
    pub(crate) const fn with(self, sig: i32) -> Mask {
        Mask(self.0 | Mask::of(sig).0)
    }
    pub(crate) const fn without(self, sig: i32) -> Mask {
        Mask(self.0 & !Mask::of(sig).0)
    }
    /// Whether everything is blocked that can be.
    pub(crate) fn is_full(self) -> bool {
        let full = FULL.load(SeqCst);
        self.0 & full == full
    }
    pub(crate) const fn except(self, other: Mask) -> Mask {
        Mask(self.0 & !other.0)
    }
}

/// What a thread's mask reads with everything blocked: all but SIGKILL and SIGSTOP (sigprocmask(2)).
static FULL: AtomicU64 = AtomicU64::new(!(1 << (libc::SIGKILL - 1) | 1 << (libc::SIGSTOP - 1)));

/// Looks what can be blocked here. qemu-user has fewer real-time numbers than its guest knows of, and hands a handler the two bits, too.
pub(crate) fn measure() -> Mask {
    let before = block_all();
    let full = swap(before);
    FULL.store(full.0, SeqCst);
    full
}

const _: () = assert!(size_of::<libc::sigset_t>() >= 8 && align_of::<libc::sigset_t>() >= 8);

/// The part of libc's set that the kernel knows. The C libraries keep it first, as one word (glibc `__val[0]`, musl `__bits[0]`).
impl From<&libc::sigset_t> for Mask {
    fn from(set: &libc::sigset_t) -> Mask {
        // SAFETY: a set is at least 8 bytes, aligned to 8, and any bits are a Mask.
        Mask(unsafe { (&raw const *set).cast::<u64>().read() })
    }
}

/// `int rt_sigprocmask(int how, const sigset_t *set, sigset_t *old, size_t size)`, rt_sigprocmask(2). Returns the mask before.
fn change(how: libc::c_int, set: Option<Mask>) -> Mask {
    let mut old = Mask(0);
    let set = set.as_ref().map_or(0, |m| &raw const *m as usize);
    let args = [how as usize, set, &raw mut old as usize, size_of::<u64>()];
    // SAFETY: `set` is null or points to a Mask on this stack, `old` too; both are 8 bytes, which is the size passed.
    let _ = unsafe { raw::call(libc::SYS_rt_sigprocmask, args) };
    old
}

/// Blocks every signal; returns the mask before.
pub(crate) fn block_all() -> Mask {
    change(libc::SIG_SETMASK, Some(Mask::ALL))
}

/// Sets the mask. What this opens and was queued is delivered before it returns: the barrier of protocol 7.
pub(crate) fn set(mask: Mask) {
    change(libc::SIG_SETMASK, Some(mask));
}

/// Sets the mask; returns the one before.
pub(crate) fn swap(mask: Mask) -> Mask {
    change(libc::SIG_SETMASK, Some(mask))
}

/// Asks for the mask: a system call, hence a barrier for the numbers that are open. It is asked by blocking nothing: qemu-user answers a bare question
/// by itself, without a call of the host, so without looking for signals.
pub(crate) fn get() -> Mask {
    change(libc::SIG_BLOCK, Some(Mask(0)))
}

/// Blocks one number; returns the mask before.
pub(crate) fn block(sig: i32) -> Mask {
    change(libc::SIG_BLOCK, Some(Mask::of(sig)))
}

/// Opens these.
pub(crate) fn unblock_all(numbers: Mask) {
    change(libc::SIG_UNBLOCK, Some(numbers));
}

/// Opens one number; returns the mask before.
pub(crate) fn unblock(sig: i32) -> Mask {
    change(libc::SIG_UNBLOCK, Some(Mask::of(sig)))
}

/// Whether the 8 bytes around `address`, aligned down, can be read. The kernel reads the set before it looks at `how`
/// (`kernel/signal.c`, `SYSCALL_DEFINE4(rt_sigprocmask)`), so a wrong `how` answers EFAULT or EINVAL and changes nothing.
pub(crate) fn readable(address: usize) -> bool {
    let args = [usize::MAX, address & !7, 0, size_of::<u64>()];
    // SAFETY: the kernel itself checks the address; with this `how` nothing is changed and nothing is written.
    let r = unsafe { raw::call(libc::SYS_rt_sigprocmask, args) };
    r == Err(Errno::EINVAL)
}
