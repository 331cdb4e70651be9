//! Running under a user-mode emulator, which `.ci/aarch64` says by EINTR_EMULATED: its value is the command that runs a program so.
//!
//! The tests are then the guest of a process of the host. What /proc tells is the host's: its system call numbers, its signal numbers. A program
//! that a test starts needs the command in front, and everything takes ten to twenty times as long.

use std::ffi::OsStr;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

/// The emulator's command and its arguments; `None` on the real thing.
fn emulator() -> Option<&'static [String]> {
    static EMULATOR: OnceLock<Option<Vec<String>>> = OnceLock::new();
    let read = || std::env::var("EINTR_EMULATED").ok().map(|v| v.split_whitespace().map(str::to_owned).collect());
    EMULATOR.get_or_init(read).as_deref()
}

/// Whether the machine that the tests run on is emulated.
pub fn emulated() -> bool {
    emulator().is_some()
}

/// Whether `what` cannot be shown since the machine is emulated, which is then said aloud.
pub fn skipped_if_emulated(what: &str, why: &str) -> bool {
    if emulated() {
        println!("SKIPPED: emulated: {what}: {why}");
    }
    emulated()
}

/// A program built as the tests are: it needs the emulator if they do.
pub fn program(path: impl AsRef<OsStr>) -> Command {
    match emulator() {
        Some([first, rest @ ..]) => {
            let mut command = Command::new(first);
            command.args(rest).arg(path);
            command
        }
        _ => Command::new(path),
    }
}

/// A limit that must not be met, five times as long where everything is slow.
pub fn patience(limit: Duration) -> Duration {
    if emulated() { limit * 5 } else { limit }
}

/// How often to repeat by default: what was asked for, in an optimized build. A quarter in the one that `cargo test` makes, and a twentieth where
/// everything is slow; but 20 times if more was asked for.
pub fn affordable(rounds: u64) -> u64 {
    let parts = if emulated() {
        20
    } else if cfg!(debug_assertions) {
        4
    } else {
        1
    };
    (rounds / parts).max(rounds.min(20))
}

/// The number under which /proc shows the system call `nr` of this program: the emulator's own call for it.
pub fn number_in_proc(nr: libc::c_long) -> libc::c_long {
    if !emulated() {
        return nr;
    }
    let known = HOSTS.iter().find(|(guests, _)| *guests == nr);
    known.unwrap_or_else(|| panic!("system call {nr} has no entry in tests/common/emulation.rs")).1
}

/// Whether /proc shows these two under one number.
pub fn look_alike(a: libc::c_long, b: libc::c_long) -> bool {
    let shown = |nr| HOSTS.iter().find(|(guests, _)| *guests == nr).map(|(_, hosts)| hosts);
    a == b || emulated() && shown(a).is_some() && shown(a) == shown(b)
}

/// The system call that /proc shows as `nr`.
pub fn number_from_proc(nr: libc::c_long) -> libc::c_long {
    if !emulated() {
        return nr;
    }
    HOSTS.iter().find(|(_, hosts)| *hosts == nr).map_or(-1, |(guests, _)| *guests)
}

/// A set of signals out of /proc. The emulator keeps the host's first two real-time numbers from the guest, whose 32 is the host's 34.
pub fn set_from_proc(set: u64) -> u64 {
    const STANDARD: u64 = (1 << 31) - 1;
    if emulated() { set & STANDARD | set >> 2 & !STANDARD } else { set }
}

/// The calls that a thread may sleep in, and the numbers on x86_64 of those that qemu makes for them (`linux-user/syscall.c`). Of two that become
/// one, the likelier comes first.
const HOSTS: [(libc::c_long, libc::c_long); 47] = [
    (libc::SYS_read, 0),
    (libc::SYS_write, 1),
    (libc::SYS_ioctl, 16),
    (libc::SYS_pread64, 17),
    (libc::SYS_pwrite64, 18),
    (libc::SYS_readv, 19),
    (libc::SYS_writev, 20),
    (libc::SYS_msync, 26),
    (libc::SYS_nanosleep, 35),
    (libc::SYS_sendfile, 40),
    (libc::SYS_connect, 42),
    (libc::SYS_sendto, 44),
    (libc::SYS_recvfrom, 45),
    (libc::SYS_sendmsg, 46),
    (libc::SYS_sendmmsg, 46),
    (libc::SYS_recvmsg, 47),
    (libc::SYS_recvmmsg, 47),
    (libc::SYS_wait4, 61),
    (libc::SYS_msgsnd, 69),
    (libc::SYS_msgrcv, 70),
    (libc::SYS_fcntl, 72),
    (libc::SYS_flock, 73),
    (libc::SYS_fsync, 74),
    (libc::SYS_fdatasync, 75),
    (libc::SYS_rt_sigtimedwait, 128),
    (libc::SYS_rt_sigsuspend, 130),
    (libc::SYS_futex, 202),
    (libc::SYS_semtimedop, 220),
    (libc::SYS_semop, 220),
    (libc::SYS_clock_nanosleep, 230),
    (libc::SYS_mq_timedsend, 242),
    (libc::SYS_mq_timedreceive, 243),
    (libc::SYS_waitid, 247),
    (libc::SYS_openat, 257),
    (libc::SYS_pselect6, 270),
    (libc::SYS_ppoll, 271),
    (libc::SYS_splice, 275),
    (libc::SYS_tee, 276),
    (libc::SYS_epoll_pwait, 281),
    (libc::SYS_accept4, 288),
    (libc::SYS_accept, 288),
    (libc::SYS_preadv, 295),
    (libc::SYS_pwritev, 296),
    (libc::SYS_rt_tgsigqueueinfo, 297),
    (libc::SYS_preadv2, 327),
    (libc::SYS_pwritev2, 328),
    (libc::SYS_epoll_pwait2, 441),
];
