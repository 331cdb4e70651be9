//! Plain calls, by libc and nix, that wait for what never comes. A test file takes it by `#[path = "common/endless.rs"] mod endless;` beside `mod common;`.
#![allow(
    dead_code,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block
)]

use crate::common;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, FromRawFd};

/// What a call returned, or errno.
pub type Answer = Result<i64, i32>;

/// One of them.
pub struct Call {
    pub name: &'static str,
    /// What every signal ends, restarts or not: the foreign ones too.
    pub is_broken_by_all: bool,
    pub call: Box<dyn FnMut() -> Answer + Send>,
}

fn returned(r: impl Into<i64>) -> Answer {
    let r = r.into();
    if r < 0 { Err(nix::errno::Errno::last_raw()) } else { Ok(r) }
}

fn call(name: &'static str, call: impl FnMut() -> Answer + Send + 'static) -> Call {
    Call { name, is_broken_by_all: false, call: Box::new(call) }
}

pub fn read() -> Call {
    let (reader, writer) = common::pipe();
    let mut room = [0u8; 8];
    call("read", move || {
        let _open = &writer;
        returned(unsafe { libc::read(reader.as_raw_fd(), room.as_mut_ptr().cast(), room.len()) } as i64)
    })
}

pub fn flock() -> Call {
    let holder = unsafe { File::from_raw_fd(libc::memfd_create(c"resend".as_ptr(), libc::MFD_CLOEXEC)) };
    assert_eq!(unsafe { libc::flock(holder.as_raw_fd(), libc::LOCK_EX) }, 0);
    let path = format!("/proc/self/fd/{}", holder.as_raw_fd());
    let waits = File::options().read(true).write(true).open(path).expect("the same file again");
    call("flock", move || {
        let _held = &holder;
        returned(unsafe { libc::flock(waits.as_raw_fd(), libc::LOCK_EX) })
    })
}

pub fn accept() -> Call {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port of its own");
    call("accept", move || {
        let nobody = std::ptr::null_mut();
        returned(unsafe { libc::accept(listener.as_raw_fd(), nobody, nobody.cast()) })
    })
}

/// A futex, of glibc's.
pub fn sem_wait() -> Call {
    struct Semaphore(Box<libc::sem_t>);
    unsafe impl Send for Semaphore {}
    let mut semaphore = Semaphore(Box::new(unsafe { std::mem::zeroed() }));
    assert_eq!(unsafe { libc::sem_init(&mut *semaphore.0, 0, 0) }, 0);
    call("sem_wait", move || {
        let semaphore = &mut semaphore;
        returned(unsafe { libc::sem_wait(&mut *semaphore.0) })
    })
}

pub fn poll() -> Call {
    use nix::poll::{PollFd, PollFlags, PollTimeout};
    let (reader, writer) = common::pipe();
    let poll = move || {
        let _open = &writer;
        let answer = nix::poll::poll(&mut [PollFd::new(reader.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE);
        answer.map(i64::from).map_err(|errno| errno as i32)
    };
    Call { is_broken_by_all: true, ..call("poll", poll) }
}

pub const ALL: [fn() -> Call; 5] = [read, flock, accept, sem_wait, poll];
