//! What an interrupt sees at a system call instruction (protocol 9): one that has not run, beside registers that look as if it had; one in a page that can be
//! executed and not read; one that is the last of its page, with nothing behind it that can be read. On x86_64, whose one sign that a call has run may be stale.
// Tests step through code, make code of their own, and catch faults.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]
#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code, unused_imports))]

mod common;
#[path = "common/nest.rs"]
mod nest;
#[path = "common/witness.rs"]
mod witness;

use eintr::{Delivery, Remote, Scope};
use nest::{Installed, Look};
use std::ffi::{c_int, c_void};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering::SeqCst};

/// Said aloud where there is nothing to be seen.
fn elsewhere() -> bool {
    if cfg!(not(target_arch = "x86_64")) {
        println!("SKIPPED: code that looks as if it had run: there is no such sign on this architecture");
    }
    cfg!(not(target_arch = "x86_64"))
}

/// Where the interrupt is to land, and whose.
static AT: AtomicUsize = AtomicUsize::new(0);
static REMOTE: AtomicPtr<Remote> = AtomicPtr::new(std::ptr::null_mut());
static SENT: AtomicU32 = AtomicU32::new(0);

/// After each instruction, with every signal blocked: at the one that is waited for it interrupts, once, and the signal lands when this returns.
extern "C" fn steps(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    if unsafe { *witness::pc_of(context.cast()) } as usize == AT.load(SeqCst) {
        let remote = unsafe { &*REMOTE.load(SeqCst) };
        SENT.fetch_add(u32::from(remote.interrupt_once() == Delivery::Sent), SeqCst);
    }
}

/// Makes a call, stepping, with the register that tells of a run as the last run of the same instruction leaves it. Errors negated.
#[cfg(target_arch = "x86_64")]
#[inline(never)]
fn stepped(nr: libc::c_long, args: [usize; 6]) -> isize {
    let r: isize;
    unsafe {
        std::arch::asm!(
            "lea rcx, [rip + 2f]",
            "mov [r11], rcx",
            "lea rcx, [rip + 3f]",
            "pushfq",
            "or qword ptr [rsp], 0x100", // TF
            "popfq",
            "nop", // the first that is stepped over
            "2: syscall",
            "3: nop",
            "pushfq",
            "and qword ptr [rsp], ~0x100",
            "popfq",
            inlateout("rax") nr as isize => r,
            in("rdi") args[0], in("rsi") args[1], in("rdx") args[2], in("r10") args[3], in("r8") args[4], in("r9") args[5],
            out("rcx") _, inlateout("r11") AT.as_ptr() => _,
        );
    }
    r
}
#[cfg(not(target_arch = "x86_64"))]
fn stepped(_: libc::c_long, _: [usize; 6]) -> isize {
    unreachable!("nothing is stepped on this architecture")
}

const NO: usize = 0;

/// One call that an interrupt meets before it has run; the interrupt is acknowledged. What it answered.
fn met(scope: &Scope, nr: libc::c_long, args: [usize; 6]) -> isize {
    let sent = SENT.load(SeqCst);
    let r = stepped(nr, args);
    AT.store(0, SeqCst);
    assert_eq!(SENT.load(SeqCst), sent + 1, "the interrupt has landed on the instruction");
    assert!(scope.clear().is_some());
    r
}

fn with_steps(body: impl Fn(&Scope)) {
    let trap =
        common::install(libc::SIGTRAP, steps as *const () as usize, libc::SA_SIGINFO, &(1..32).collect::<Vec<_>>());
    for sig in [libc::SIGUSR1, libc::SIGTERM] {
        let _behind = (sig == libc::SIGUSR1).then(|| Installed::new(sig, nest::counts, libc::SA_RESTART));
        let scope = Scope::enter(sig).expect("enter");
        let mut remote = scope.remote();
        REMOTE.store(&mut remote, SeqCst);
        for _ in 0..200 {
            body(&scope);
        }
    }
    common::restore(libc::SIGTRAP, trap);
}

const EINTR: isize = -libc::EINTR as isize;

// On the list stands only what may be told EINTR although it has not run: it did nothing, so nothing is lost.
#[test]
fn a_read_that_has_not_run_may_be_told_eintr_and_has_read_nothing() {
    let _t = common::begin();
    if elsewhere() {
        return;
    }
    let (reader, writer) = common::pipe();
    let mut byte = 0u8;
    let read = [reader.as_raw_fd() as usize, &raw mut byte as usize, 1, NO, NO, NO];
    with_steps(|scope| {
        assert_eq!(unsafe { libc::write(writer.as_raw_fd(), b"!".as_ptr().cast(), 1) }, 1);
        // That it is told so shows that the interrupts of this file land where they should.
        assert_eq!(met(scope, libc::SYS_read, read), EINTR);
        assert_eq!(common::plain_read(&reader), Ok(1));
    });
}

// What is not on the list runs, and answers as ever: one that were told EINTR would be taken to have closed, locked, mapped, or to have failed.
#[test]
fn calls_that_are_not_on_the_list_run_whatever_the_registers_say() {
    let _t = common::begin();
    if elsewhere() {
        return;
    }
    let (reader, _writer) = common::pipe();
    let (mut bytes, word, fd) = ([0u8; 8], AtomicU32::new(0), reader.as_raw_fd() as usize);
    let room = bytes.as_mut_ptr() as usize;
    let futex =
        |command: c_int| [word.as_ptr() as usize, (command | libc::FUTEX_PRIVATE_FLAG) as usize, NO, NO, NO, NO];
    let (rights, kind) = (libc::PROT_READ as usize, (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize);
    with_steps(|scope| {
        let met = |nr, args| met(scope, nr, args);
        assert_eq!(met(libc::SYS_ioctl, [fd, libc::FIONREAD as usize, room, NO, NO, NO]), 0);
        assert_eq!(met(libc::SYS_fcntl, [fd, libc::F_GETFD as usize, NO, NO, NO, NO]), libc::FD_CLOEXEC as isize);
        assert_eq!(met(libc::SYS_getrandom, [room, 8, NO, NO, NO, NO]), 8);
        assert_eq!(met(libc::SYS_futex, futex(libc::FUTEX_LOCK_PI)), 0);
        assert_eq!(word.load(SeqCst), common::gettid() as u32);
        assert_eq!(met(libc::SYS_futex, futex(libc::FUTEX_UNLOCK_PI)), 0);
        assert_eq!(met(libc::SYS_futex, futex(libc::FUTEX_WAKE)), 0);
        let copy = met(libc::SYS_dup, [fd, NO, NO, NO, NO, NO]);
        assert!(copy >= 0, "{copy}");
        assert_eq!(met(libc::SYS_close, [copy as usize, NO, NO, NO, NO, NO]), 0);
        assert_eq!(met(libc::SYS_close, [copy as usize, NO, NO, NO, NO, NO]), -libc::EBADF as isize);
        let page = met(libc::SYS_mmap, [NO, 4096, rights, kind, usize::MAX, NO]);
        assert!(page > 0, "{page}");
        assert_eq!(met(libc::SYS_munmap, [page as usize, 4096, NO, NO, NO, NO]), 0);
        let socket = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0) };
        let nowhere = libc::sockaddr_un { sun_family: libc::AF_UNIX as _, sun_path: [1; 108] };
        let address = [socket as usize, &raw const nowhere as usize, size_of_val(&nowhere), NO, NO, NO];
        assert_eq!(met(libc::SYS_connect, address), -libc::ENOENT as isize);
        assert_eq!(unsafe { libc::close(socket) }, 0);
    });
}

// dlopen's open and the flush of a stdio stream do not block, and take EINTR badly: only where the thread is met twice in the same call is it stuck.
#[test]
fn open_and_write_that_are_met_once_run() {
    let _t = common::begin();
    if elsewhere() {
        return;
    }
    let (reader, writer) = common::pipe();
    let path = c"/dev/null".as_ptr() as usize;
    let vector = libc::iovec { iov_base: c"!".as_ptr().cast_mut().cast(), iov_len: 1 };
    let to = writer.as_raw_fd() as usize;
    with_steps(|scope| {
        let met = |nr, args| met(scope, nr, args);
        let fd = met(libc::SYS_openat, [libc::AT_FDCWD as usize, path, libc::O_RDONLY as usize, NO, NO, NO]);
        assert!(fd >= 0 && unsafe { libc::close(fd as c_int) } == 0, "{fd}");
        assert_eq!(met(libc::SYS_write, [to, c"!".as_ptr() as usize, 1, NO, NO, NO]), 1);
        assert_eq!(met(libc::SYS_writev, [to, &raw const vector as usize, 1, NO, NO, NO]), 1);
        assert_eq!(common::plain_read(&reader), Ok(2));
    });
}

const PAGE: usize = 4096;
/// `xor eax, eax` (read is 0), `syscall`, `ret`.
const READ: [u8; 5] = [0x31, 0xc0, 0x0f, 0x05, 0xc3];

type Code = extern "C" fn(usize, *mut u8, usize) -> isize;

/// Two pages, with `READ` at an offset; the first may be executed and has these rights besides.
fn code(offset: usize, rights: c_int) -> *mut u8 {
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let pages = unsafe { libc::mmap(std::ptr::null_mut(), 2 * PAGE, access, kind, -1, 0) }.cast::<u8>();
    assert_ne!(pages.cast(), libc::MAP_FAILED);
    unsafe { pages.add(offset).copy_from_nonoverlapping(READ.as_ptr(), READ.len()) };
    assert_eq!(unsafe { libc::mprotect(pages.cast(), PAGE, libc::PROT_EXEC | rights) }, 0);
    pages
}

/// Reads an empty pipe by code at that address, until it is interrupted once, or again and again; a byte comes if that did not end it. The kernel's answer.
fn read_by(address: *mut u8, resent: bool) -> isize {
    let (reader, writer) = common::pipe();
    let (tell, told) = std::sync::mpsc::channel();
    let (fd, address) = (reader.as_raw_fd() as usize, address as usize);
    let thread = std::thread::spawn(move || {
        let scope = Scope::enter(libc::SIGUSR1).expect("enter");
        tell.send((common::gettid(), scope.remote())).expect("the test waits");
        let code: Code = unsafe { std::mem::transmute::<usize, Code>(address) };
        code(fd, &mut 0, 1)
    });
    let (tid, remote) = told.recv().expect("the thread lives");
    let look = Look::at(tid);
    look.wait_asleep(libc::SYS_read, fd);
    let slept = look.sleeps();
    if resent {
        remote.interrupt()
    } else {
        remote.interrupt_once()
    };
    common::wait_until(|| thread.is_finished() || remote.is_closed() || look.sleeps() > slept + u64::from(resent) * 5);
    if !thread.is_finished() && look.is_left_asleep(libc::SYS_read, fd, libc::SIGUSR1) {
        assert_eq!(unsafe { libc::write(writer.as_raw_fd(), b"!".as_ptr().cast(), 1) }, 1);
    }
    thread.join().expect("it ends well")
}

// The handler looks at the instruction: who reads it without asking faults, with every signal blocked, and that ends the process.
#[test]
fn a_page_that_can_be_executed_and_not_read_does_not_fault_the_handler() {
    let _t = common::begin();
    if elsewhere() {
        return;
    }
    let _behind = Installed::new(libc::SIGUSR1, nest::counts, libc::SA_RESTART);
    let pages = code(64, libc::PROT_NONE);
    // The kernel reads the set before it looks at a `how` that does not exist.
    let r = unsafe { libc::syscall(libc::SYS_rt_sigprocmask, usize::MAX, pages.add(64), 0usize, 8usize) };
    let hidden = r < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT);
    for resent in [false, true].into_iter().cycle().take(20) {
        let r = read_by(unsafe { pages.add(64) }, resent);
        // What cannot be looked at is left alone.
        assert_eq!(r, if hidden { 1 } else { EINTR });
    }
    if !hidden {
        println!(
            "SKIPPED: a page that can be executed and not read: this processor, or kernel, lets every such page be read"
        );
    }
}

static BEHIND: AtomicUsize = AtomicUsize::new(0);
static OPENED: AtomicBool = AtomicBool::new(false);

/// What may be done with the page behind.
fn allow(rights: c_int) {
    assert_eq!(unsafe { libc::mprotect(BEHIND.load(SeqCst) as *mut c_void, PAGE, rights) }, 0);
}

/// Opens the page behind the last instruction when the thread gets there.
extern "C" fn opens(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    if unsafe { (*info).si_addr() } as usize != BEHIND.load(SeqCst) || OPENED.swap(true, SeqCst) {
        common::restore(libc::SIGSEGV, common::Action::default());
        return;
    }
    allow(libc::PROT_READ | libc::PROT_EXEC);
}

// Two bytes are there to be looked at, and no more.
#[test]
fn the_last_instruction_of_a_page_is_looked_at_and_nothing_behind_it() {
    let _t = common::begin();
    if elsewhere() {
        return;
    }
    let _behind = Installed::new(libc::SIGUSR1, nest::counts, libc::SA_RESTART);
    let fault = common::install(libc::SIGSEGV, opens as *const () as usize, libc::SA_SIGINFO, &[]);
    let pages = code(PAGE - 4, libc::PROT_READ); // `ret` lies behind
    BEHIND.store(pages as usize + PAGE, SeqCst);
    for _ in 0..50 {
        OPENED.store(false, SeqCst);
        allow(libc::PROT_NONE);
        let r = read_by(unsafe { pages.add(PAGE - 4) }, false);
        assert_eq!((r, OPENED.load(SeqCst)), (EINTR, true));
    }
    common::restore(libc::SIGSEGV, fault);
}
