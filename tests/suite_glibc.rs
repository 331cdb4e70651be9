//! glibc's cancellation points, ported: every call of the list, with an interrupt pending before it is made (*early*), with one that comes while it
//! is blocked (*in time*), with one that comes together with what it waits for, and with none but other signals.
//!
//! | glibc | here |
//! | --- | --- |
//! | `tst-cancel4`, `tst-cancel4_1`, `tst-cancel4_2`, early and in time: read, readv, write, writev, accept, connect, send, sendto, sendmsg, recv, recvfrom, recvmsg, open (of a FIFO), poll, ppoll, select, pselect, wait, waitpid, waitid, sigwait, sigwaitinfo, sigtimedwait, msgsnd, msgrcv | a module each; select is `pselect`, wait and waitpid are `wait4`, sigwait and sigwaitinfo are `sigtimedwait` without a time |
//! | the same, sleep, usleep, nanosleep | `suite_glibc_waits.rs`: `clock_nanosleep` is what all of them are made of |
//! | the same, pause, sigpause, sigsuspend | `suspending_calls_end_by_an_interrupt_alone`, by ppoll of nothing; they themselves are refused, since any signal ends them |
//! | the same, early only there, since they do not block where one can say so: open and creat of a file, pread, preadv, pwrite, pwritev, fsync, fdatasync, msync, tcdrain | `calls_that_never_sleep_here_...`, early and uninterrupted |
//! | the same, close | `close_is_not_interruptible`: it frees the descriptor whatever it answers, so nobody may end it |
//! | `tst-cancel12` to `16`, `18` | `suite_glibc_waits.rs` |
//! | `tst-cancel19`, `26`, `27`, `tst-sigcontext-get_pc` | `suite_glibc_abi.rs` |
//!
//! Left out: `getmsg`, `putmsg` (not on Linux), `aio_suspend` and `lockf` as such (not the kernel's; lockf is `fcntl_lock`), `pthread_join` (std's
//! join cannot be ended), `pthread_testcancel` (that is `check`); `tst-cancel29` and `tst-pthread_kill-*`, which are about shields and threads that
//! have ended and not about calls.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)] // as in tests/common

mod common;
#[path = "common/counting.rs"]
mod counting;
#[path = "common/cases_io.rs"]
mod io;
#[path = "common/cases_ipc.rs"]
mod ipc;
#[path = "common/suite.rs"]
mod suite;
#[path = "common/cases_wait.rs"]
mod wait;

use counting::{Counting, kinds};
use eintr::{Error, Scope, sys};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::mman::MsFlags;
use nix::sys::signal::SigSet;
use nix::sys::stat::Mode;
use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use suite::{Answer, at_once, four_ways, fresh_path, interrupted, memory_file, readable};

four_ways! { io: read readv write writev recv recvfrom recvmsg send sendto sendmsg }
four_ways! { wait: accept4 connect connect_tcp open_to_read open_to_write poll ppoll pselect wait4 waitid sigtimedwait }
four_ways! { ipc: msgrcv msgsnd }

/// What a file holds.
fn bytes(file: &File) -> Vec<u8> {
    let mut all = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut all, 0).unwrap();
    all
}

fn ten_bytes() -> File {
    let mut file = memory_file();
    file.write_all(b"0123456789").unwrap();
    file
}

#[test]
fn calls_that_never_sleep_here_that_read_at_an_offset() {
    let _t = common::begin();
    let file = ten_bytes();
    let mut buffer = *b"....";
    at_once(
        || {
            buffer = *b"....";
            let answer = sys::pread(&file, &mut buffer, 3);
            assert_eq!(&buffer, if answer.is_ok() { b"3456" } else { b"...." });
            answer
        },
        || (),
        4,
    );
    at_once(
        || {
            let (mut one, mut other) = (*b".", *b"..");
            let answer = sys::preadv(&file, &mut [IoSliceMut::new(&mut one), IoSliceMut::new(&mut other)], 7);
            assert_eq!((&one, &other), if answer.is_ok() { (b"7", b"89") } else { (b".", b"..") });
            answer
        },
        || (),
        3,
    );
}

#[test]
fn calls_that_never_sleep_here_that_write_at_an_offset() {
    let _t = common::begin();
    let file = ten_bytes();
    // What was written is looked at, and taken back for the next call.
    let wrote = |answer: Answer, all: &[u8]| {
        if answer.is_ok() {
            assert_eq!(bytes(&file), all);
            file.set_len(10).unwrap();
            file.write_all_at(b"0123456789", 0).unwrap();
        }
        answer
    };
    let undone = || assert_eq!(bytes(&file), b"0123456789");
    at_once(|| wrote(sys::pwrite(&file, b"abcd", 3), b"012abcd789"), undone, 4);
    let parts = [IoSlice::new(b"ab"), IoSlice::new(b"cd")];
    at_once(|| wrote(sys::pwritev(&file, &parts, 8), b"01234567abcd"), undone, 4);
}

#[test]
fn calls_that_never_sleep_here_that_bring_a_file_to_its_disk() {
    let _t = common::begin();
    let path = fresh_path();
    let file = File::create_new(&path).unwrap();
    let call = |answer: sys::Result<()>| -> Answer { answer.map(|()| 0) };
    at_once(|| call(sys::fsync(&file)), || (), 0);
    at_once(|| call(sys::fdatasync(&file)), || (), 0);
    let shared = libc::MAP_SHARED;
    file.set_len(4096).unwrap();
    let page = unsafe { libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, shared, file.as_raw_fd(), 0) };
    let page = std::ptr::NonNull::new(page).filter(|page| page.as_ptr() != libc::MAP_FAILED).unwrap();
    at_once(|| call(unsafe { sys::msync(page, 4096, MsFlags::MS_SYNC) }), || (), 0);
    assert_eq!(unsafe { libc::munmap(page.as_ptr(), 4096) }, 0);
    std::fs::remove_file(path).unwrap();
}

/// open with O_CREAT, which is creat(2): an open that was ended has made no file.
#[test]
fn calls_that_never_sleep_here_that_make_a_file() {
    let _t = common::begin();
    let path = fresh_path();
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    let open = || {
        let file: OwnedFd = sys::open(&path, flags, Mode::S_IRUSR)?;
        drop(file);
        std::fs::remove_file(&path).unwrap();
        Ok(0)
    };
    at_once(open, || assert!(!path.exists()), 0);
}

/// A terminal of one's own: its two ends.
fn terminal() -> Option<(OwnedFd, OwnedFd)> {
    let (mut one, mut other) = (-1, -1);
    let (name, shape, size) = (std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut());
    if unsafe { libc::openpty(&mut one, &mut other, name, shape, size) } != 0 {
        println!("SKIPPED: tcdrain: no terminal: {}", std::io::Error::last_os_error());
        return None;
    }
    Some(unsafe { (OwnedFd::from_raw_fd(one), OwnedFd::from_raw_fd(other)) })
}

/// A pseudo-terminal has nothing to wait for. What the other end has not read is still there.
#[test]
fn calls_that_never_sleep_here_on_a_terminal() {
    let _t = common::begin();
    let Some((master, slave)) = terminal() else { return };
    nix::unistd::write(&slave, b"hello").unwrap();
    common::wait_until(|| readable(&master) == 5); // the kernel hands it over in its own time
    at_once(|| sys::tcdrain(&slave).map(|()| 0), || (), 0);
    let mut n = 0i32;
    let request = libc::FIONREAD as libc::c_ulong;
    let mut ioctl = || unsafe { sys::ioctl(&master, request, &raw mut n as usize) }.map(|answer| answer as usize);
    at_once(&mut ioctl, || (), 0);
    assert_eq!(n, 5);
}

/// Entropy is there, and so nothing to wait for.
#[test]
fn calls_that_never_sleep_here_beside_the_list() {
    let _t = common::begin();
    let mut noise = [0u8; 16];
    at_once(
        || {
            noise = [0; 16];
            let answer = sys::getrandom(&mut noise, 0);
            assert_eq!(noise == [0; 16], answer.is_err());
            answer
        },
        || (),
        16,
    );
    let (from, to) = (ten_bytes(), memory_file());
    let (mut read_at, mut write_at) = (2, 0);
    let copy = || {
        (read_at, write_at) = (2, 0);
        let answer = sys::copy_file_range(&from, Some(&mut read_at), &to, Some(&mut write_at), 5);
        assert_eq!((read_at, write_at), if answer.is_ok() { (7, 5) } else { (2, 0) });
        answer
    };
    at_once(copy, || assert!(bytes(&to).is_empty() || bytes(&to) == b"23456"), 5);
    assert_eq!(bytes(&to), b"23456");
}

/// What pause is made of here: a poll of nothing, with a mask of its own and without; from the mask the number of the scope is left out.
#[test]
fn suspending_calls_end_by_an_interrupt_alone() {
    let _t = common::begin();
    for (sig, flags) in kinds().into_iter().zip([libc::SA_RESTART, 0]) {
        let handlers = [(sig, flags), (libc::SIGUSR2, 0)].map(|(sig, flags)| Counting::with_flags(sig, flags));
        for mask in [None, Some(SigSet::empty()), Some(SigSet::all())] {
            let worker = suite::worker(sig, move |scope, tell| {
                let suspend = || sys::ppoll(&mut [], None, mask);
                let _ = scope.remote().interrupt();
                interrupted(suspend());
                assert!(scope.clear().is_some());
                tell.send(()).unwrap();
                interrupted(suspend());
            });
            let sleeps = suite::sleep(libc::SYS_ppoll);
            let mut worker = worker.has_told().asleep(&sleeps);
            for _ in 0..10 {
                let so_far = handlers[0].runs();
                suite::send(worker.tid, sig);
                common::wait_until(|| handlers[0].runs() > so_far);
                worker = worker.asleep(&sleeps);
            }
            let _ = worker.remote.interrupt();
            worker.join();
        }
    }
}

/// The kernel frees the descriptor before it may say EINTR (close(2)): a close that was ended and made again would close somebody else's.
#[test]
fn close_is_not_interruptible() {
    let _t = common::begin();
    let scope = Scope::enter(libc::SIGUSR1).unwrap();
    let file = memory_file();
    let fd = file.as_raw_fd();
    let by_number = |nr| unsafe { sys::syscall(nr, [fd as usize, fd as usize, 0, 0, 0, 0]) };
    let close = || [by_number(libc::SYS_close), by_number(libc::SYS_close_range)];
    let is_open = || unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0;
    assert_eq!((close(), is_open()), ([Err(Error::Os(Errno::ENOSYS)); 2], true));
    let _ = scope.remote().interrupt();
    assert!(close().iter().all(Result::is_err));
    assert!(is_open());
    drop(file); // std's own close happens, interrupt or not
    assert!(!is_open());
}
