//! Which plain calls may be told EINTR although the kernel was about to restart them (protocol 9). The one list.
//!
//! A call is on it if the kernel restarts it after a handler with SA_RESTART (signal(7)), if its manual page documents EINTR, and if EINTR
//! without having run does no harm, since no sign of its having run is perfect.
//!
//! | Call | Why it may be |
//! | --- | --- |
//! | read, readv, recvfrom, recvmsg, recvmmsg | nothing was taken: what was taken is returned instead |
//! | sendto, sendmsg, sendmmsg | nothing was queued: likewise |
//! | accept, accept4 | no connection was taken |
//! | wait4, waitid | no child was reaped |
//! | flock, fcntl with F_SETLKW or F_OFD_SETLKW | no lock was taken |
//! | futex with FUTEX_WAIT or FUTEX_WAIT_BITSET | a wake-up that may be spurious, which every user of these must expect; never ECANCELED: glibc aborts |
//! | mq_timedsend, mq_timedreceive | no message was moved |
//! | write, writev, open, openat | as the others, but only where the thread is seen to be stuck: dlopen(3) and the flush of a stdio stream use them, do not block there, and take EINTR badly |
//! | ioctl with TCSBRK, TCSBRKP, TIOCMIWAIT | tcdrain(3) and the like: nothing was done |
//!
//! Not on it, on purpose: connect (code by the book takes EINTR for "goes on by itself", polls, and finds no error of an attempt that was never made), getrandom
//! (callers that cannot fail), close (the descriptor's state would be unknown), FUTEX_LOCK_PI (glibc takes EINTR for success: a mutex with two
//! owners), and everything that never restarts, which the signal has ended already.
//!
//! # Safety
//! The instruction at the program counter is read after the kernel was asked whether it can be: a page may be executable and nothing else.
//!
//! # Async-signal-safety
//! Everything is.

use crate::kernel::mask;
use crate::kernel::registers::Registers;
use libc::c_long;

/// How sure one must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// The call has run, or seems to.
    Ran,
    /// As `Ran`, and never anything but EINTR.
    RanEintrOnly,
    /// It was met twice at the same place with the same arguments.
    Stuck,
}

/// Whether, and when, a call may be told that it was interrupted.
pub(crate) fn when(number: c_long, arguments: [usize; 6]) -> Option<When> {
    let second = |allowed: &[u32]| allowed.contains(&(arguments[1] as u32)); // an int: its upper half says nothing
    match number {
        libc::SYS_read | libc::SYS_readv | libc::SYS_recvfrom | libc::SYS_recvmsg | libc::SYS_recvmmsg => {
            Some(When::Ran)
        }
        libc::SYS_sendto | libc::SYS_sendmsg | libc::SYS_sendmmsg => Some(When::Ran),
        libc::SYS_accept | libc::SYS_accept4 | libc::SYS_wait4 | libc::SYS_waitid => Some(When::Ran),
        libc::SYS_mq_timedsend | libc::SYS_mq_timedreceive | libc::SYS_flock => Some(When::Ran),
        libc::SYS_fcntl if second(&[libc::F_SETLKW as u32, libc::F_OFD_SETLKW as u32]) => Some(When::Ran),
        libc::SYS_ioctl if second(&[libc::TCSBRK as u32, libc::TCSBRKP as u32, libc::TIOCMIWAIT as u32]) => {
            Some(When::Ran)
        }
        libc::SYS_futex => {
            let kind = arguments[1] as i32 & !(libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME);
            let waits = kind == libc::FUTEX_WAIT || kind == libc::FUTEX_WAIT_BITSET;
            waits.then_some(When::RanEintrOnly)
        }
        libc::SYS_write | libc::SYS_writev | libc::SYS_openat => Some(When::Stuck),
        n if Registers::OPEN == Some(n) => Some(When::Stuck),
        _ => None,
    }
}

/// Whether the program counter stands on a system call instruction.
pub(crate) fn is_at_call(registers: Registers) -> bool {
    let pc = registers.pc();
    let readable = mask::readable(pc) && mask::readable(pc.wrapping_add(Registers::CALL.len() - 1));
    readable && (pc..).zip(Registers::CALL).all(|(address, byte)| byte_at(address) == *byte)
}

fn byte_at(address: usize) -> u8 {
    // SAFETY: `is_at_call` has found it readable; whatever code unmaps its own instructions meanwhile could not go on itself.
    unsafe { (address as *const u8).read_volatile() }
}
