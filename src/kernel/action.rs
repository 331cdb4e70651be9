//! What the kernel does with a signal: asking, taking over, putting back.
//!
//! Asking and putting back go to the kernel directly, so that every bit is seen and comes back (libc rewrites flags and restorer).
//! Taking over goes through libc's `sigaction`, which musl needs to see once before it lets EINTR out of its own calls.
//!
//! # Safety
//! [`Action`] is the kernel's `struct sigaction` of x86_64 and aarch64 (`arch/*/include/uapi/asm/signal.h`: handler, flags, restorer, mask).
//!
//! # Async-signal-safety
//! [`current`] and [`swap`] are.

use crate::kernel::mask::Mask;
use crate::kernel::raw;
use nix::errno::Errno;

/// `include/uapi/linux/signal.h` of both architectures.
const SA_RESTORER: u64 = 0x0400_0000;

/// The kernel's action of one signal. Two are equal if every bit with a meaning is.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Action {
    pub(crate) handler: usize,
    pub(crate) flags: u64,
    /// The way back from the handler. Without SA_RESTORER the kernel keeps it and never uses it; glibc on aarch64 hands over whatever lay there.
    pub(crate) restorer: usize,
    pub(crate) mask: Mask,
}

impl PartialEq for Action {
    fn eq(&self, other: &Action) -> bool {
        let same_flags = self.flags == other.flags;
        let same_way_back = self.flags & SA_RESTORER == 0 || self.restorer == other.restorer;
        self.handler == other.handler && same_flags && same_way_back && self.mask == other.mask
    }
}
impl Eq for Action {}

impl Action {
    pub(crate) const DEFAULT: Action = Action { handler: libc::SIG_DFL, flags: 0, restorer: 0, mask: Mask(0) };

    pub(crate) const fn is_default(&self) -> bool {
        self.handler == libc::SIG_DFL
    }
    pub(crate) const fn is_ignored(&self) -> bool {
        self.handler == libc::SIG_IGN
    }
    /// Neither of the two.
    pub(crate) const fn is_handler(&self) -> bool {
        !self.is_default() && !self.is_ignored()
    }
    /// The same but for the restorer, which musl's sigaction does not tell, and glibc's on aarch64 neither.
    pub(crate) const fn does_the_same_as(&self, other: &Action) -> bool {
        let flags = (self.flags ^ other.flags) & !SA_RESTORER;
        self.handler == other.handler && flags == 0 && self.mask.0 == other.mask.0
    }
    /// With the way back from a handler that another action of this process has, if this one tells none.
    pub(crate) const fn with_restorer_of(self, other: &Action) -> Action {
        if self.restorer != 0 {
            return self;
        }
        let flags = self.flags & !SA_RESTORER | other.flags & SA_RESTORER;
        Action { flags, restorer: other.restorer, ..self }
    }
    /// Our own, made of what somebody has left of it: its handler and its way back, with `flags` and every signal blocked.
    pub(crate) const fn whole(self, flags: libc::c_int) -> Action {
        let flags = (flags | libc::SA_SIGINFO) as u32 as u64 | self.flags & SA_RESTORER;
        Action { flags, mask: Mask::ALL, ..self }
    }
    pub(crate) const fn has(&self, flag: libc::c_int) -> bool {
        self.flags & (flag as u32 as u64) != 0
    }
}

/// `int rt_sigaction(int sig, const struct sigaction *new, struct sigaction *old, size_t size)`, sigaction(2).
fn change(sig: i32, new: Option<&Action>) -> Result<Action, Errno> {
    let mut old = Action::DEFAULT;
    let new = new.map_or(0, |a| &raw const *a as usize);
    let args = [sig as usize, new, &raw mut old as usize, size_of::<Mask>()];
    // SAFETY: `new` is null or a live Action, `old` is one on this stack; a handler that is put in came from the kernel itself or is ours.
    unsafe { raw::call(libc::SYS_rt_sigaction, args) }?;
    Ok(old)
}

/// The action that stands now.
///
/// # Errors
/// EINVAL: no such signal, or SIGKILL or SIGSTOP.
pub(crate) fn current(sig: i32) -> Result<Action, Errno> {
    change(sig, None)
}

/// Puts an action in and returns the one before.
///
/// # Errors
/// As for [`current`].
pub(crate) fn swap(sig: i32, new: &Action) -> Result<Action, Errno> {
    change(sig, Some(new))
}

/// Installs `handler` with every signal blocked while it runs; `flags` besides SA_SIGINFO. Returns the action before.
///
/// # Errors
/// As for [`current`].
pub(crate) fn install(sig: i32, handler: usize, flags: libc::c_int) -> Result<Action, Errno> {
    // SAFETY: sigaction is plain data, valid when zeroed.
    let mut new: libc::sigaction = unsafe { std::mem::zeroed() };
    let mut old = new;
    new.sa_sigaction = handler;
    new.sa_flags = flags | libc::SA_SIGINFO;
    // SAFETY: the set's bytes may have any value; libc's sigfillset would leave 32 and 33 out.
    unsafe { (&raw mut new.sa_mask).write_bytes(0xff, 1) };
    // SAFETY: both are valid for the call; `handler` is a function of the handler's type that lives as long as the process.
    if unsafe { libc::sigaction(sig, &new, &mut old) } != 0 {
        return Err(Errno::last());
    }
    // SAFETY: the kernel's set is the first 8 bytes of libc's, which is at least that large and aligned.
    let mask = unsafe { (&raw const old.sa_mask).cast::<Mask>().read() };
    let restorer = old.sa_restorer.map_or(0, |f| f as usize);
    Ok(Action { handler: old.sa_sigaction, flags: old.sa_flags as u32 as u64, restorer, mask })
}
