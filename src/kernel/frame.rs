//! What the kernel hands to a signal handler: number, siginfo, context; and how much of it can be believed.
//!
//! A handler may be called by the kernel, or by somebody else's dispatcher that keeps it as "the previous one": with the kernel's own
//! siginfo and context, with copies of them, or with nothing but the number.
//!
//! # Safety
//! [`Frame::check`] makes sure once that siginfo and context are there to be read; every other method relies on that.
//!
//! # Async-signal-safety
//! Every function is.

use crate::kernel::action;
use crate::kernel::mask::{self, Mask};
use crate::kernel::raw;
use crate::kernel::registers::Registers;
use crate::kernel::send::Info;
use crate::kernel::stack::Stack;
use libc::{c_int, c_void, ucontext_t};
use std::mem::offset_of;

/// How far above our own stack pointer a forward is looked for.
const FORWARDS_WITHIN: usize = 64 * 1024;

/// The arguments of a signal handler and its stack pointer at entry.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) sig: c_int,
    info: *mut Info,
    context: *mut ucontext_t,
    entry_sp: usize,
    entry_mask: Mask,
    /// Our handler's address.
    own: usize,
}

/// Who called the handler, as far as the arguments tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// The kernel.
    Kernel,
    /// The kernel, by an action that is ours but for its flags: without a siginfo.
    Stripped,
    /// A dispatcher, which passed a siginfo and a context that can be read.
    Dispatcher,
    /// A dispatcher that passed nothing to be believed: `old.sa_handler(sig)`.
    Bare,
}

/// In a marker's second word: how deep it is. The rest names the kernel's frame.
const LEVEL: usize = 7;

/// Forwards of a signal that are under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Forwards {
    /// Where the kernel's frame of the signal begins; 0 if it was not found.
    pub(crate) delivery: usize,
    /// How many of them, one inside the other.
    pub(crate) depth: usize,
}

impl Frame {
    /// Blocks every signal, if they are not: whoever calls.
    pub(super) fn begin(sig: c_int, info: *mut c_void, context: *mut c_void, entry_sp: usize, own: usize) -> Frame {
        Frame { sig, info: info.cast(), context: context.cast(), entry_sp, entry_mask: mask::block_all(), own }
    }

    /// Gives a dispatcher back the mask that it had. (Behind the kernel's own call all signals stay blocked until it returns to the thread.)
    pub(super) fn end(&self) {
        if !self.entry_mask.is_full() {
            mask::set(self.entry_mask);
        }
    }

    /// If the kernel called us: its frame begins here, and no forward is under way.
    pub(crate) fn first(&self) -> Forwards {
        Forwards { delivery: self.entry_sp & !LEVEL, depth: 0 }
    }

    /// The mask that a handler is to run with which the kernel, or this dispatcher, calls: before its own additions.
    pub(crate) fn outer_mask(&self, caller: Caller) -> Mask {
        if caller == Caller::Kernel { self.saved_mask() } else { self.entry_mask }
    }

    /// Judges the arguments. The kernel's frame has a fixed place relative to the stack pointer that it starts the handler with; anything
    /// else is probed before it is read.
    pub(crate) fn check(&self) -> Caller {
        if from_kernel(self.info as usize, self.context as usize, self.entry_sp) {
            // A dispatcher that ends in a jump to us leaves the stack pointer as the kernel set it, but hardly every signal blocked.
            if self.entry_mask.is_full() {
                return Caller::Kernel;
            }
            // Nor does it jump when it does not stand itself: then somebody has put ours back without our mask, and perhaps without SA_SIGINFO.
            if let Some(standing) = action::current(self.sig).ok().filter(|standing| standing.handler == self.own) {
                return if standing.has(libc::SA_SIGINFO) { Caller::Kernel } else { Caller::Stripped };
            }
        }
        let info = can_be_read(self.info as usize, size_of::<Info>());
        if !info || !can_be_read(self.context as usize, size_of::<ucontext_t>()) {
            return Caller::Bare;
        }
        if self.info().signo == self.sig { Caller::Dispatcher } else { Caller::Bare }
    }

    /// The siginfo. Only after [`check`](Frame::check) did not say [`Caller::Bare`].
    pub(crate) fn info(&self) -> Info {
        // SAFETY: `check` found 128 readable, aligned bytes; any bytes are an Info.
        unsafe { self.info.read() }
    }

    /// Writes a siginfo that says nothing but the number, where the kernel has written none. Only after [`check`](Frame::check) said
    /// [`Caller::Stripped`].
    pub(crate) fn blank_info(&self) {
        // SAFETY: the kernel's own frame on this stack has room for one, whether or not it was filled.
        unsafe { self.info.write(Info::blank(self.sig)) };
    }

    /// The mask that comes back when the handler returns. Only after [`check`](Frame::check).
    pub(crate) fn saved_mask(&self) -> Mask {
        // SAFETY: `check` found the context readable, and any 8 bytes are a Mask.
        unsafe { self.saved_mask_place().read() }
    }

    /// Adds a number to the mask that comes back. Only after [`check`](Frame::check) said [`Caller::Kernel`].
    pub(crate) fn block_on_return(&self, sig: c_int) {
        let mask = self.saved_mask().with(sig);
        // SAFETY: the kernel's own frame on this stack, which is writable; nobody else runs on it.
        unsafe { self.saved_mask_place().write(mask) };
    }

    /// Takes a number out of it again. As [`block_on_return`](Frame::block_on_return).
    pub(crate) fn open_on_return(&self, sig: c_int) {
        let mask = self.saved_mask().without(sig);
        // SAFETY: as in `block_on_return`.
        unsafe { self.saved_mask_place().write(mask) };
    }

    /// The registers that come back when the handler returns: `None` if the context that was passed is a copy somewhere else than on the stack above
    /// this handler. Only after [`check`](Frame::check) did not say [`Caller::Bare`].
    pub(crate) fn registers(&self, caller: Caller) -> Option<Registers> {
        let above = (self.context as usize).wrapping_sub(self.entry_sp);
        (caller == Caller::Kernel || above < FORWARDS_WITHIN).then(|| Registers::of(self.context))
    }

    /// The alternate stack that the interrupted code had; its flags do not say whether it ran there (sigaltstack(2)). As [`Frame::registers`].
    pub(crate) fn alternate(&self) -> Stack {
        let place = self.context.wrapping_byte_add(offset_of!(ucontext_t, uc_stack)).cast::<libc::stack_t>();
        // SAFETY: `check` found the context readable; a stack_t may have any bytes.
        let stack = unsafe { place.read() };
        Stack::from_parts(stack.ss_sp as usize, stack.ss_size)
    }

    /// The kernel's 8-byte set opens libc's larger one.
    fn saved_mask_place(&self) -> *mut Mask {
        self.context.wrapping_byte_add(offset_of!(ucontext_t, uc_sigmask)).cast()
    }

    /// The forwards of this very signal that are under way: their markers lie between us and the kernel's frame, and name it. (Markers that handlers
    /// left behind which left by longjmp mostly name another; those of the same depth do not add up.) `restorer` is the way back from a handler, with which a frame begins.
    pub(crate) fn forwards_under_way(&self, restorer: usize) -> Forwards {
        const SEEN: usize = 16;
        let (mut seen, mut count) = ([0usize; SEEN], 0);
        let mut words = [0usize; 65];
        let from = self.entry_sp & !7;
        for place in (from..from.saturating_add(FORWARDS_WITHIN)).step_by(size_of::<usize>() * (words.len() - 1)) {
            // Copied by the kernel: above the stack may lie memory that another thread unmaps just now.
            if !raw::copy_own(place, &mut words) {
                break;
            }
            for (address, pair) in (place..).step_by(size_of::<usize>()).zip(words.windows(2)) {
                let &[word, named] = pair else { break };
                if self.is_kernel_frame(address, word == restorer) {
                    let of_this = seen.iter().take(count).filter(|named| **named & !LEVEL == address);
                    let depth = of_this.map(|named| named & LEVEL).max().unwrap_or(0);
                    return Forwards { delivery: address, depth };
                }
                if let Some(place) = seen.get_mut(count).filter(|_| word == marker_at(address)) {
                    *place = named;
                    count += 1;
                }
            }
        }
        Forwards { delivery: 0, depth: count }
    }

    /// Whether the kernel's frame for this signal begins here, on x86_64 (`arch/x86/include/asm/sigframe.h`): the way back, behind that the context
    /// with its few flags and no link, behind that the siginfo.
    #[cfg(target_arch = "x86_64")]
    fn is_kernel_frame(&self, address: usize, begins_so: bool) -> bool {
        const FLAGS: usize = 1;
        const LINK: usize = 2;
        const SIGINFO: usize = 39; // the kernel's ucontext is 304 bytes
        let mut words = [0usize; 65];
        begins_so
            && raw::copy_own(address, &mut words)
            && (1..0x20).contains(&words[FLAGS])
            && words[LINK] == 0
            && words[SIGINFO] as u32 == self.sig as u32
    }

    /// On aarch64 nothing marks it but that the context follows the siginfo (`arch/arm64/kernel/signal.c`), if both were passed on.
    #[cfg(target_arch = "aarch64")]
    fn is_kernel_frame(&self, address: usize, _begins_so: bool) -> bool {
        address == self.info as usize && self.context as usize == address + size_of::<Info>()
    }

    /// Calls a handler as the kernel would: same arguments, all three of them, which one without SA_SIGINFO overlooks (the x86_64 kernel
    /// itself sets them for both kinds). `inside`: what it is called from within, for the marker.
    pub(crate) fn call(&self, handler: usize, inside: Forwards) {
        type Handler = extern "C" fn(c_int, *mut Info, *mut ucontext_t);
        let mut marker = [0usize; 2];
        let at = &raw mut marker;
        // SAFETY: `handler` is the address of a function that the kernel would have called with these arguments: it stood in an action and is
        // neither SIG_DFL nor SIG_IGN, which the caller has looked at.
        let handler = unsafe { std::mem::transmute::<usize, Handler>(handler) };
        // SAFETY: a local of this frame, which lasts as long as the call below.
        unsafe { at.write_volatile([marker_at(at as usize), inside.delivery | (inside.depth + 1).min(LEVEL)]) };
        handler(self.sig, self.info, self.context);
        // SAFETY: as above.
        unsafe { at.write_volatile([0; 2]) };
    }
}

/// Whether there is an object of this size: not null, aligned, its ends on readable pages.
fn can_be_read(address: usize, size: usize) -> bool {
    let Some(last) = address.checked_add(size - 8) else { return false };
    address != 0 && address.is_multiple_of(8) && mask::readable(address) && mask::readable(last)
}

/// Whether these are the arguments that the kernel starts a handler with: on x86_64 the context lies right above the return address
/// (`arch/x86/include/asm/sigframe.h`), on aarch64 the siginfo at the stack pointer (`arch/arm64/kernel/signal.c`).
#[cfg(target_arch = "x86_64")]
fn from_kernel(_info: usize, context: usize, entry_sp: usize) -> bool {
    context == entry_sp + 8
}
#[cfg(target_arch = "aarch64")]
fn from_kernel(info: usize, _context: usize, entry_sp: usize) -> bool {
    info == entry_sp
}

/// The word that a forward under way leaves on the stack at `address`: made of the address, so that a copy elsewhere says nothing.
/// It is made of the address of a static, too: two copies of this crate in a process have different ones.
fn marker_at(address: usize) -> usize {
    static COPY: u8 = 0;
    address ^ (&raw const COPY as usize).rotate_left(13)
}
