//! Plain calls in tight loops, interrupted at any instruction (protocol 9): one that meets the system call instruction before it has run sees what the last
//! run has left there. Calls that are not on the list are never touched; those on it lose nothing.
//!
//! `EINTR_STORM_MILLISECONDS` says how long each loop lasts.
// Tests step through their own code, and make calls by bare system calls.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/nest.rs"]
mod nest;

use eintr::{Delivery, Remote, Scope};
use nest::Installed;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// Whose interrupt the handler asks for, and how many were sent.
static REMOTE: AtomicPtr<Remote> = AtomicPtr::new(std::ptr::null_mut());
static SENT: AtomicU64 = AtomicU64::new(0);
static STEPS: AtomicU64 = AtomicU64::new(0);

/// After each instruction, with every signal blocked: an interrupt that is asked for here lands at the instruction that comes next.
extern "C" fn asks(_: libc::c_int) {
    // Multiplied so, the counts of steps are spread evenly (Knuth, TAOCP 3, 6.4).
    if STEPS.fetch_add(1, SeqCst).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 62 == 0 {
        let remote = unsafe { &*REMOTE.load(SeqCst) };
        SENT.fetch_add(u64::from(remote.interrupt_once() == Delivery::Sent), SeqCst);
    }
}

/// From here on the thread stops after each instruction, or does not.
#[inline(always)]
fn step(on: bool) {
    #[cfg(target_arch = "x86_64")]
    unsafe {
        match on {
            true => std::arch::asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq"), // TF
            false => std::arch::asm!("pushfq", "and qword ptr [rsp], ~0x100", "popfq"),
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = on;
}

/// Runs `calls`, which makes a few, again and again; at one instruction of four an interrupt lands. Behind the scope stands a handler with SA_RESTART, or the
/// default.
fn storm(what: &str, sig: i32, calls: &mut dyn FnMut()) {
    let _behind = (sig == libc::SIGUSR1).then(|| Installed::new(sig, nest::counts, libc::SA_RESTART));
    let others: Vec<_> = (1..=libc::SIGRTMAX()).filter(|other| ![32, 33].contains(other)).collect();
    let _steps = Installed::with_mask(libc::SIGTRAP, asks, libc::SA_RESTART, &others);
    let scope = Scope::enter(sig).expect("enter");
    let mut remote = scope.remote();
    REMOTE.store(&mut remote, SeqCst);
    SENT.store(0, SeqCst);
    let begun = Instant::now();
    while begun.elapsed() < time() {
        step(true);
        calls();
        step(false);
        scope.clear();
    }
    if cfg!(target_arch = "x86_64") {
        println!("{what}: {} interrupts by {sig}", SENT.load(SeqCst));
        assert!(SENT.load(SeqCst) > 0);
    } else {
        println!("SKIPPED: interrupts at each instruction of a loop: nothing steps on this architecture");
    }
}

fn time() -> Duration {
    Duration::from_millis(common::rounds("EINTR_STORM_MILLISECONDS", 400))
}

fn numbers() -> [i32; 2] {
    [libc::SIGUSR1, libc::SIGRTMIN() + 3]
}

/// The kernel's answer, errors negated: no libc between, so that the loop is tight.
#[inline(always)]
fn call(nr: libc::c_long, args: [usize; 6]) -> isize {
    let r: isize;
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!("syscall", inlateout("rax") nr as isize => r, in("rdi") args[0], in("rsi") args[1], in("rdx") args[2],
            in("r10") args[3], in("r8") args[4], in("r9") args[5], lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("svc #0", in("x8") nr, inlateout("x0") args[0] as isize => r, in("x1") args[1], in("x2") args[2],
            in("x3") args[3], in("x4") args[4], in("x5") args[5], options(nostack));
    }
    r
}

/// Answers that an interrupt would have made.
fn is_ours(r: isize) -> bool {
    r == -libc::EINTR as isize || r == -libc::ECANCELED as isize
}

const NO: usize = 0;
const CALLS: usize = 32;

/// The same call, [`CALLS`] times through one instruction; how many were told that they were interrupted.
#[cfg(target_arch = "x86_64")]
fn told_in_a_row(nr: libc::c_long, args: [usize; 6]) -> usize {
    let mut told = 0usize;
    // As little as can be lies between two runs of the instruction. The kernel changes rax, rcx and r11.
    unsafe {
        std::arch::asm!("2: mov rax, {nr}", "syscall", "cmp rax, {eintr}", "je 3f", "cmp rax, {canceled}", "jne 4f", "3: inc {told}",
            "4: dec {left}", "jnz 2b", nr = in(reg) nr, told = inout(reg) told, left = inout(reg) CALLS => _,
            eintr = const -libc::EINTR, canceled = const -libc::ECANCELED, out("rax") _, out("rcx") _, out("r11") _,
            in("rdi") args[0], in("rsi") args[1], in("rdx") args[2], in("r10") args[3], in("r8") args[4], in("r9") args[5],
            options(nostack));
    }
    told
}
#[cfg(not(target_arch = "x86_64"))]
fn told_in_a_row(nr: libc::c_long, args: [usize; 6]) -> usize {
    (0..CALLS).filter(|_| is_ours(call(nr, args))).count()
}

/// The same call over and over in a storm; none of the answers may be an interrupt's.
fn untouched(what: &str, nr: libc::c_long, args: [usize; 6]) {
    for sig in numbers() {
        let mut touched = 0;
        storm(what, sig, &mut || touched += told_in_a_row(nr, args));
        assert_eq!(touched, 0, "{what} by {sig}");
    }
}

#[test]
fn ioctl_that_does_not_wait_is_never_touched() {
    let _t = common::begin();
    let ((reader, _writer), mut bytes) = (common::pipe(), 0i32);
    let args = [reader.as_raw_fd() as usize, libc::FIONREAD as usize, &raw mut bytes as usize, NO, NO, NO];
    untouched("ioctl(FIONREAD)", libc::SYS_ioctl, args);
}

#[test]
fn fcntl_that_does_not_wait_is_never_touched() {
    let _t = common::begin();
    let (reader, _writer) = common::pipe();
    untouched("fcntl(F_GETFL)", libc::SYS_fcntl, [reader.as_raw_fd() as usize, libc::F_GETFL as usize, NO, NO, NO, NO]);
}

#[test]
fn getrandom_is_never_touched() {
    let _t = common::begin();
    let mut bytes = [0u8; 64];
    untouched("getrandom", libc::SYS_getrandom, [bytes.as_mut_ptr() as usize, bytes.len(), NO, NO, NO, NO]);
}

#[test]
fn a_futex_that_is_woken_is_never_touched() {
    let _t = common::begin();
    let word = AtomicU32::new(0);
    let wake = (libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG) as usize;
    untouched("FUTEX_WAKE", libc::SYS_futex, [word.as_ptr() as usize, wake, 1, NO, NO, NO]);
}

// Two calls through one instruction: the second finds what the first has left. One that were told EINTR would have closed nothing, locked nothing.
#[test]
fn pairs_of_calls_are_never_touched_by_halves() {
    let _t = common::begin();
    let (reader, _writer) = common::pipe();
    let (word, zero) = (AtomicU32::new(0), reader.as_raw_fd() as usize);
    let private = libc::FUTEX_PRIVATE_FLAG;
    let [lock, unlock] = [libc::FUTEX_LOCK_PI, libc::FUTEX_UNLOCK_PI].map(|command| (command | private) as usize);
    let (rights, kind) = (libc::PROT_READ as usize, (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize);
    #[inline(never)]
    fn one(nr: libc::c_long, args: [usize; 6]) -> isize {
        call(nr, args)
    }
    for sig in numbers() {
        let mut bad = Vec::new();
        storm("dup and close, FUTEX_LOCK_PI and its end, mmap and munmap", sig, &mut || {
            for _ in 0..CALLS / 4 {
                let fd = one(libc::SYS_dup, [zero, NO, NO, NO, NO, NO]);
                let close = one(libc::SYS_close, [fd as usize, NO, NO, NO, NO, NO]);
                let locked = one(libc::SYS_futex, [word.as_ptr() as usize, lock, NO, NO, NO, NO]);
                let unlocked = one(libc::SYS_futex, [word.as_ptr() as usize, unlock, NO, NO, NO, NO]);
                let page = one(libc::SYS_mmap, [NO, 4096, rights, kind, usize::MAX, NO]);
                let unmapped = one(libc::SYS_munmap, [page as usize, 4096, NO, NO, NO, NO]);
                if fd < 0 || page < 0 || [close, locked, unlocked, unmapped] != [0; 4] {
                    bad.push([fd, close, locked, unlocked, page, unmapped]);
                }
            }
        });
        assert!(bad.is_empty(), "{} of them, by {sig}: {:?}", bad.len(), &bad[..bad.len().min(5)]);
    }
}

fn pipe_with_room(bytes: usize) -> (OwnedFd, OwnedFd) {
    let (reader, writer) = common::pipe();
    let room = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, bytes) };
    assert!(room >= bytes as i32, "F_SETPIPE_SZ: {}", std::io::Error::last_os_error());
    (reader, writer)
}

fn filled(reader: &OwnedFd) -> usize {
    let mut bytes = 0i32;
    assert_eq!(
        call(
            libc::SYS_ioctl,
            [reader.as_raw_fd() as usize, libc::FIONREAD as usize, &raw mut bytes as usize, NO, NO, NO]
        ),
        0
    );
    bytes as usize
}

// P3 for plain calls: one that is told EINTR has not run. Each byte that is read was there, each that is written is there; nothing twice, nothing lost.
#[test]
fn reads_that_are_told_eintr_have_read_nothing() {
    let _t = common::begin();
    for sig in numbers() {
        let (reader, writer) = pipe_with_room(4096);
        let (from, to) = (reader.as_raw_fd() as usize, writer.as_raw_fd());
        let (mut byte, mut told) = (0u8, 0);
        storm("read", sig, &mut || {
            let text: [u8; CALLS] = std::array::from_fn(|n| n as u8);
            while unsafe { libc::write(to, text.as_ptr().cast(), CALLS) } < 0 {}
            let mut next = 0;
            while usize::from(next) < CALLS {
                match call(libc::SYS_read, [from, &raw mut byte as usize, 1, NO, NO, NO]) {
                    1 => {
                        assert_eq!(byte, next);
                        next += 1;
                    }
                    r if is_ours(r) => told += 1,
                    r => panic!("{r}"),
                }
            }
            assert_eq!(filled(&reader), 0);
        });
        println!("read: {told} were told EINTR or ECANCELED");
        assert!(told > 0 || cfg!(not(target_arch = "x86_64")), "interrupts meet the instruction before it runs");
    }
}

#[test]
fn writes_that_are_told_eintr_have_written_nothing() {
    let _t = common::begin();
    for sig in numbers() {
        let (reader, writer) = pipe_with_room(65536);
        let (to, byte) = (writer.as_raw_fd() as usize, 7u8);
        let (mut room, mut told) = ([0u8; CALLS], 0);
        storm("write", sig, &mut || {
            let mut written = 0;
            for _ in 0..CALLS {
                match call(libc::SYS_write, [to, &raw const byte as usize, 1, NO, NO, NO]) {
                    1 => written += 1,
                    r if is_ours(r) => told += 1,
                    r => panic!("{r}"),
                }
            }
            assert_eq!(filled(&reader), written);
            while filled(&reader) > 0 {
                unsafe { libc::read(reader.as_raw_fd(), room.as_mut_ptr().cast(), CALLS) };
            }
        });
        println!("write: {told} were told EINTR or ECANCELED");
    }
}

#[test]
fn opens_that_are_told_eintr_have_opened_nothing() {
    let _t = common::begin();
    let mut limit: libc::rlimit = unsafe { std::mem::zeroed() };
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) }, 0);
    let path = c"/dev/null".as_ptr() as usize;
    for sig in numbers() {
        let (next, mut told) = (call(libc::SYS_dup, [0, NO, NO, NO, NO, NO]) as usize, 0);
        assert_eq!(call(libc::SYS_close, [next, NO, NO, NO, NO, NO]), 0);
        storm("openat", sig, &mut || {
            for _ in 0..CALLS / 4 {
                let fd = call(libc::SYS_openat, [libc::AT_FDCWD as usize, path, libc::O_RDONLY as usize, NO, NO, NO]);
                if is_ours(fd) {
                    told += 1;
                    continue;
                }
                // A descriptor that was opened and not told of would be this one.
                assert!(
                    fd == next as isize && call(libc::SYS_close, [fd as usize, NO, NO, NO, NO, NO]) == 0,
                    "{fd}, {next}"
                );
            }
        });
        println!("openat: {told} were told EINTR or ECANCELED");
    }
}
