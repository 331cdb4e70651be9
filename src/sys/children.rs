//! Waiting for children.

use super::Result;
use crate::engine::op;
use crate::kernel::calls::children;
use nix::sys::wait::{Id, WaitPidFlag};
use nix::unistd::Pid;
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// Waits until a child changes its state, and takes that; `None` under `WNOHANG`, if none has. See wait4(2).
///
/// No `pid` means any child, a negative one a process group, 0 the caller's own group. The status is std's, which knows all 64 signals: nix's
/// `WaitStatus` has no place for a child that a real-time signal killed. An interrupt never takes a child's status: it is there for the next call.
///
/// # Errors
/// The interrupt. The kernel's: `ECHILD` if there is no such child, `EINVAL` for options that it does not know, `ESRCH` for the smallest number there
/// is as `pid`.
pub fn wait4(pid: Option<Pid>, options: WaitPidFlag) -> Result<Option<(Pid, ExitStatus)>> {
    let pid = pid.map_or(-1, Pid::as_raw);
    let (child, status) = op::run(|door| children::wait4(door, pid, options.bits()))?;
    Ok((child != 0).then(|| (Pid::from_raw(child), ExitStatus::from_raw(status))))
}

/// Waits until a child changes its state; the kernel's siginfo of it, all zeros under `WNOHANG` if none has. See waitid(2).
///
/// With `WNOWAIT` the state is left for another call. An interrupt never takes it.
///
/// # Errors
/// The interrupt. The kernel's: `ECHILD` if there is no such child, `EINVAL` without one of `WEXITED`, `WSTOPPED` and `WCONTINUED`, `EBADF` for what
/// is no pidfd, `EAGAIN` for a non-blocking pidfd whose process lives.
pub fn waitid(id: Id<'_>, flags: WaitPidFlag) -> Result<libc::siginfo_t> {
    let (kind, id) = match id {
        Id::All => (libc::P_ALL, 0),
        Id::Pid(pid) => (libc::P_PID, pid.as_raw() as u32),
        Id::PGid(pid) => (libc::P_PGID, pid.as_raw() as u32),
        Id::PIDFd(fd) => (libc::P_PIDFD, fd.as_raw_fd() as u32),
        _ => (libc::idtype_t::MAX, 0), // nix's filler for other systems; the kernel says EINVAL
    };
    op::run(|door| children::waitid(door, kind, id, flags.bits()))
}
