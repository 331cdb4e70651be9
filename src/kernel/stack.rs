//! Which frames of the stub are alive (R4): judged by stack pointers, since a handler may leave a call by longjmp without a word to anybody.
//!
//! # Invariants
//! 1. A frame that lies below a handler on the same stack is at least [`LEAST`] away from that handler's stack pointer: the kernel's own frame lies
//!    between the two. One that is nearer was left, however deep the functions are that ask.
//! 2. A frame that was left and written over has a wrong check word. One that was left and is intact, with the stack pointer far below it, is
//!    taken to be alive: then a plain call may be deaf until the next look from less deep (documented).
//!
//! # Safety
//! A frame is read without asking only between a stack pointer and the upper end of the stack that both lie on, which is mapped.
//!
//! # Async-signal-safety
//! Everything but [`Stack::of_thread`] is.

use crate::kernel::mask;
use crate::kernel::stub::window::CHECK;

/// The least that the kernel puts on a stack for a handler. x86_64: red zone 128, state of the floating point unit 512, context 304, siginfo 128
/// (`arch/x86/include/asm/sigframe.h`); aarch64: more than 4 KiB (`arch/arm64/kernel/signal.c`).
const LEAST: usize = 1024;

/// A stretch of memory that is a stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stack {
    pub(crate) low: usize,
    pub(crate) high: usize,
}

impl Stack {
    /// The calling thread's own; empty if nobody can tell.
    pub(crate) fn of_thread() -> Stack {
        let main = Stack::of_main_thread();
        if main.has(here()) { main } else { Stack::as_libc_says() }
    }

    /// The one that the program was started on: it begins below what the kernel put there for the program, the 16 random bytes of getauxval(3)
    /// among it, and may grow to RLIMIT_STACK (getrlimit(2)). (libc would read /proc/self/maps.)
    fn of_main_thread() -> Stack {
        const AT_MOST: u64 = 1 << 30;
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `limit` is written.
        unsafe { libc::getrlimit(libc::RLIMIT_STACK, &mut limit) };
        // SAFETY: takes and returns integers.
        let high = unsafe { libc::getauxval(libc::AT_RANDOM) } as usize;
        Stack { low: high.saturating_sub(limit.rlim_cur.min(AT_MOST) as usize), high }
    }

    /// As `pthread_getattr_np(3)` says.
    fn as_libc_says() -> Stack {
        // SAFETY: pthread_attr_t is plain data, valid when zeroed.
        let mut attributes: libc::pthread_attr_t = unsafe { std::mem::zeroed() };
        // SAFETY: the calling thread's own handle.
        let me = unsafe { libc::pthread_self() };
        // SAFETY: `attributes` is written.
        if unsafe { libc::pthread_getattr_np(me, &mut attributes) } != 0 {
            return Stack::default();
        }
        let (mut low, mut size) = (std::ptr::null_mut(), 0);
        // SAFETY: `attributes` was filled in above; both results are written.
        unsafe { libc::pthread_attr_getstack(&attributes, &mut low, &mut size) };
        // SAFETY: as above; it is not used again.
        unsafe { libc::pthread_attr_destroy(&mut attributes) };
        Stack { low: low as usize, high: (low as usize).saturating_add(size) }
    }

    /// The calling thread's alternate stack, `sigaltstack(2)`; empty if it has none.
    pub(crate) fn alternate() -> Stack {
        let mut stack = libc::stack_t { ss_sp: std::ptr::null_mut(), ss_flags: 0, ss_size: 0 };
        // SAFETY: `stack` is written; nothing is set.
        unsafe { libc::sigaltstack(std::ptr::null(), &mut stack) };
        Stack::from_parts(stack.ss_sp as usize, stack.ss_size)
    }

    pub(crate) const fn from_parts(low: usize, size: usize) -> Stack {
        Stack { low, high: low.saturating_add(size) }
    }

    pub(crate) const fn has(self, address: usize) -> bool {
        self.low <= address && address < self.high
    }
}

/// Whether a frame of the stub is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// The call goes on when what is above it has returned.
    Live,
    /// There is none, or it was left by longjmp.
    Dead,
    /// On a stack that nobody told us of.
    Doubtful,
}

/// Judges the frame at `mark`, seen from the stack pointer `sp` (R4).
pub(crate) fn judge(mark: usize, sp: usize, own: Stack, alternate: Stack) -> Life {
    if mark == 0 || !mark.is_multiple_of(8) {
        return Life::Dead;
    }
    let life = |there: bool| if there { Life::Live } else { Life::Dead };
    match [alternate, own].into_iter().find(|stack| stack.has(sp)) {
        Some(stack) if stack.has(mark) => life(mark >= sp.saturating_add(LEAST) && intact(mark)),
        Some(stack) if stack == alternate => life(intact_anywhere(mark)),
        Some(_) => Life::Dead, // a handler on its own stack was left
        None if mark < sp && !own.has(mark) => Life::Dead,
        None if intact_anywhere(mark) => Life::Doubtful,
        None => Life::Dead,
    }
}

/// The innermost frame that is not dead, and its life: from `mark` outwards, past frames that were left and not yet written over.
pub(crate) fn innermost(mut mark: usize, sp: usize, own: Stack, alternate: Stack) -> (usize, Life) {
    const DEPTH: usize = 64; // a chain that is longer was written over
    for _ in 0..DEPTH {
        let life = judge(mark, sp, own, alternate);
        if life != Life::Dead {
            return (mark, life);
        }
        if mark == 0 || !intact_anywhere(mark) {
            break;
        }
        mark = saved_mark(mark);
    }
    (0, Life::Dead)
}

/// The mark that a frame has saved. Only of one that is intact, or that belongs to the very call that was interrupted.
pub(crate) fn saved_mark(mark: usize) -> usize {
    if mark == 0 { 0 } else { word_at(mark.wrapping_add(8)) }
}

fn intact(mark: usize) -> bool {
    word_at(mark) == mark ^ CHECK
}

fn intact_anywhere(mark: usize) -> bool {
    mark.is_multiple_of(8) && mask::readable(mark) && mask::readable(mark.wrapping_add(8)) && intact(mark)
}

fn word_at(address: usize) -> usize {
    // SAFETY: see the module: part of a mapped stack, aligned to 8, read once; what other code left there is a number like any other.
    unsafe { (address as *const usize).read_volatile() }
}

/// A stack pointer within the caller's frame.
#[inline(always)]
pub(crate) fn here() -> usize {
    let local = 0u8;
    &raw const local as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stack of our own to judge by, with a frame in it.
    struct Fake {
        words: Vec<usize>,
    }

    impl Fake {
        fn new() -> Fake {
            Fake { words: vec![0; 1024] }
        }
        fn stack(&self) -> Stack {
            Stack::from_parts(self.words.as_ptr() as usize, size_of_val(self.words.as_slice()))
        }
        fn frame(&mut self, at: usize, saved: usize) -> usize {
            let mark = &raw const self.words[at] as usize;
            self.words[at] = mark ^ CHECK;
            self.words[at + 1] = saved;
            mark
        }
    }

    #[test]
    fn a_frame_is_live_below_a_handler_and_dead_when_it_was_left() {
        let mut own = Fake::new();
        let mark = own.frame(600, 7);
        let (stack, none) = (own.stack(), Stack::default());
        assert_eq!(judge(mark, mark - LEAST, stack, none), Life::Live);
        assert_eq!(judge(mark, mark - LEAST + 8, stack, none), Life::Dead, "too near for a handler");
        assert_eq!(judge(mark, mark + 8, stack, none), Life::Dead, "left");
        assert_eq!(saved_mark(mark), 7);
        own.words[600] ^= 1;
        assert_eq!(judge(mark, mark - LEAST, stack, none), Life::Dead, "written over");
        assert_eq!(judge(0, stack.low, stack, none), Life::Dead, "no call");
    }

    #[test]
    fn on_the_alternate_stack_a_frame_of_the_own_one_is_live_and_not_the_other_way_round() {
        let (mut own, mut alternate) = (Fake::new(), Fake::new());
        let (below, above) = (own.frame(600, 0), alternate.frame(600, 0));
        let (o, a) = (own.stack(), alternate.stack());
        assert_eq!(judge(below, a.low + 64, o, a), Life::Live);
        assert_eq!(judge(above, above - LEAST, o, a), Life::Live);
        assert_eq!(judge(above, o.low + 64, o, a), Life::Dead, "the handler there was left");
    }

    #[test]
    fn on_a_stack_nobody_told_of_a_frame_is_in_doubt() {
        let (mut own, mut coroutine) = (Fake::new(), Fake::new());
        let (below, there) = (own.frame(600, 0), coroutine.frame(600, 0));
        let o = own.stack();
        assert_eq!(judge(there, there - LEAST, o, Stack::default()), Life::Doubtful);
        assert_eq!(judge(below, coroutine.stack().low, o, Stack::default()), Life::Doubtful);
        coroutine.words[600] = 0;
        assert_eq!(judge(there, there - LEAST, o, Stack::default()), Life::Dead);
    }

    #[test]
    fn past_a_frame_that_was_left_the_one_below_is_found() {
        let mut own = Fake::new();
        let outer = own.frame(800, 0);
        let inner = own.frame(200, outer);
        let (stack, none) = (own.stack(), Stack::default());
        assert_eq!(innermost(inner, inner + 16, stack, none), (outer, Life::Live));
        own.words[200] = 0;
        assert_eq!(innermost(inner, inner + 16, stack, none), (0, Life::Dead), "nothing leads to it any more");
        own.words[200] = inner ^ CHECK;
        own.words[201] = inner;
        assert_eq!(innermost(inner, inner + 16, stack, none), (0, Life::Dead), "a ring ends");
    }

    #[test]
    fn the_threads_own_stack_is_where_it_runs() {
        let stack = Stack::of_thread();
        assert!(stack.has(here()), "{stack:x?} {:x}", here());
    }
}
