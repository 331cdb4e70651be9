//! Signals with a siginfo: made, sent to a thread or to the process, taken from the queue.
//!
//! # Safety
//! [`Info`] is the kernel's `siginfo_t` of 64-bit little-endian Linux: 128 bytes, aligned to 8 (`include/uapi/asm-generic/siginfo.h`).
//!
//! # Async-signal-safety
//! Every function is.

use crate::kernel::mask::Mask;
use crate::kernel::{pid, raw};
use nix::errno::Errno;

/// `si_code` of our signals: SI_ASYNCNL, known to the kernel, negative, and hardly used by anybody (R1). A code that the kernel does not
/// know would be refused with E2BIG (`kernel/signal.c`, `post_copy_siginfo_from_user`).
pub(crate) const OUR_CODE: i32 = -60;

/// A siginfo, byte by byte.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Info {
    pub(crate) signo: i32,
    pub(crate) errno: i32,
    pub(crate) code: i32,
    _pad: i32,
    /// `si_pid`; of a timer its id.
    pub(crate) pid: u32,
    /// `si_uid`; of a timer its overruns.
    pub(crate) uid: u32,
    /// `si_value`.
    pub(crate) value: u64,
    _rest: [u64; 12],
}
const _: () = assert!(size_of::<Info>() == 128);

impl Info {
    const BLANK: Info = Info { signo: 0, errno: 0, code: 0, _pad: 0, pid: 0, uid: 0, value: 0, _rest: [0; 12] };

    /// A siginfo of ours: our code, our pid, and the value.
    pub(crate) fn ours(sig: i32, value: u64) -> Info {
        Info { signo: sig, code: OUR_CODE, pid: pid::current(), value, ..Info::BLANK }
    }
    /// With nothing in it but the number: SI_USER of process 0.
    pub(crate) const fn blank(sig: i32) -> Info {
        Info { signo: sig, ..Info::BLANK }
    }
    /// What a standard signal looks like that came when the queue was full: SI_USER of pid 0 (`kernel/signal.c`, `collect_signal`).
    pub(crate) const fn is_blank(&self) -> bool {
        self.code == libc::SI_USER && self.pid == 0 && self.uid == 0
    }
    /// Sent by tgkill(2) or pthread_kill(3), so meant for one thread.
    pub(crate) const fn is_for_thread(&self) -> bool {
        self.code == libc::SI_TKILL
    }
}

impl std::fmt::Debug for Info {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Info(signal {}, code {}, pid {}, value {:#x})", self.signo, self.code, self.pid, self.value)
    }
}

/// `int rt_tgsigqueueinfo(pid_t tgid, pid_t tid, int sig, siginfo_t *info)`, rt_tgsigqueueinfo(2). To a thread of this process. To oneself
/// every `si_code` is allowed.
///
/// # Errors
/// ESRCH: no such thread. EAGAIN: a real-time number and a full queue. EPERM, ENOSYS: refused by a seccomp filter.
pub(crate) fn to_thread(tid: i32, info: &Info) -> Result<(), Errno> {
    let args = [pid::current() as usize, tid as usize, info.signo as usize, &raw const *info as usize];
    // SAFETY: `info` is 128 readable bytes.
    unsafe { raw::call(libc::SYS_rt_tgsigqueueinfo, args) }.map(drop)
}

/// `int tgkill(pid_t tgid, pid_t tid, int sig)`, tgkill(2): the fallback that carries no siginfo.
///
/// # Errors
/// ESRCH: no such thread. EAGAIN: a real-time number and a full queue.
pub(crate) fn plain_to_thread(tid: i32, sig: i32) -> Result<(), Errno> {
    // SAFETY: integers only.
    unsafe { raw::call(libc::SYS_tgkill, [pid::current() as usize, tid as usize, sig as usize, 0]) }.map(drop)
}

/// The same to the calling thread, also in a child that shares its parent's memory (vfork(2)), where [`pid::current`] is the parent's.
///
/// # Errors
/// As for [`to_thread`].
pub(crate) fn to_self(info: &Info) -> Result<(), Errno> {
    let args = [raw::getpid() as usize, raw::gettid() as usize, info.signo as usize, &raw const *info as usize];
    // SAFETY: `info` is 128 readable bytes.
    unsafe { raw::call(libc::SYS_rt_tgsigqueueinfo, args) }.map(drop)
}

/// `int kill(pid_t pid, int sig)`, kill(2), to the process that calls it.
pub(crate) fn plain_to_process(sig: i32) -> Result<(), Errno> {
    // SAFETY: integers only.
    unsafe { raw::call(libc::SYS_kill, [raw::getpid() as usize, sig as usize, 0, 0]) }.map(drop)
}

/// `int rt_sigqueueinfo(pid_t tgid, int sig, siginfo_t *info)`, rt_sigqueueinfo(2), to this process, the siginfo unchanged.
///
/// The kernel lets nobody but the addressee pretend a code of its own, and compares the *thread's* id with the pid that is passed
/// (`kernel/signal.c`, `do_rt_sigqueueinfo`); it looks the pid up among all tasks, and a signal sent so is for the whole process whichever
/// of its threads was named. So the caller names itself.
///
/// # Errors
/// EAGAIN: a real-time number and a full queue. EPERM, ENOSYS: refused by a seccomp filter.
pub(crate) fn to_process(own_tid: i32, info: &Info) -> Result<(), Errno> {
    // SAFETY: `info` is 128 readable bytes.
    unsafe {
        raw::call(libc::SYS_rt_sigqueueinfo, [own_tid as usize, info.signo as usize, &raw const *info as usize, 0])
    }
    .map(drop)
}

/// `int rt_sigtimedwait(const sigset_t *set, siginfo_t *info, const struct timespec *timeout, size_t size)`, sigwaitinfo(2), with a time-out
/// of zero: takes one signal of this number, of the thread's own queue first, then of the process's. The number must be blocked.
pub(crate) fn take(sig: i32) -> Option<Info> {
    let (set, mut info) = (Mask::of(sig), Info::BLANK);
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let args = [&raw const set as usize, &raw mut info as usize, &raw const now as usize, size_of::<Mask>()];
    // SAFETY: set and time are read, `info` is 128 writable bytes; all are locals.
    unsafe { raw::call(libc::SYS_rt_sigtimedwait, args) }.ok().map(|_| info)
}
