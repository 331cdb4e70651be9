//! Any call, by its number.

use super::Result;
use crate::engine::op;
use crate::error::Error;
use crate::kernel::calls::raw;
use libc::c_long;
use nix::errno::Errno;

/// Makes the call `nr` with `args`, as syscall(2) does: what the kernel returns. For calls that `sys` has no function for.
///
/// After a signal that is not ours the same arguments are passed again. So a relative time-out starts afresh each time, unless the kernel wrote back
/// what was left of it; a mask or set that has the number of a live scope makes the call deaf, or takes the interrupt as its result; and connect(2)
/// may answer `EISCONN` for success. The functions of `sys` know all that.
///
/// Refused with `ENOSYS`, and not made:
/// - close, close_range: after `EINTR` the descriptor is closed, and a second try closes somebody else's;
/// - exit, exit_group, execve, execveat: they do not come back, and scopes must be left before ([`process::exec`](crate::process::exec));
/// - fork, vfork, clone, clone3: they come back twice, on another stack or on this one at the same time; no signal interrupts them anyway;
/// - rt_sigreturn, which takes the stack for a frame of the kernel's; restart_syscall, which by hand is `EINTR` and nothing else;
/// - pause, rt_sigsuspend: to be ended by any signal is their success, which here is a reason to go on;
/// - numbers of the x32 ABI, which has other structures.
///
/// # Errors
/// The interrupt; what the kernel answers. `ENOSYS` for what is refused, and the kernel's own for a number that it does not know.
///
/// # Safety
/// The arguments must be what the call asks for: pointers valid for what it reads and writes, also where it keeps them. It must not take from the
/// thread what the crate stands on: its stack, its memory, its actions while scopes live.
// The signature alone: what is unsafe lies in the kernel layer.
#[allow(unsafe_code)]
pub unsafe fn syscall(nr: c_long, args: [usize; 6]) -> Result<usize> {
    if raw::is_refused(nr) {
        return Err(Error::Os(Errno::ENOSYS));
    }
    op::run(|door| raw::by_number(door, nr, args))
}
