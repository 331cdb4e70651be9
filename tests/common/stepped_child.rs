//! The child that is stepped: one call a round, as the tracer orders, with traps before and behind it, and a second thread that interrupts.
//! Beside `mod common;` and `mod tracee;`.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block
)]

use crate::common;
use crate::tracee::trap;
use eintr::nix::fcntl::SpliceFFlags;
use eintr::nix::poll::{PollFd, PollFlags, PollTimeout};
use eintr::{Delivery, Error, Remote, Scope, sys};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicPtr, AtomicU32, Ordering::SeqCst};

/// Signals and actions of a child.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// The scope's number.
    pub ours: i32,
    /// Flags of a handler that stands behind ours; without one the default does.
    pub behind: Option<i32>,
    /// The number of the foreign signal.
    pub foreign: i32,
    pub foreign_flags: i32,
    /// What its handler blocks.
    pub foreign_mask: &'static [i32],
    /// Its handler makes a call of its own, which fails with EAGAIN.
    pub inner_call: bool,
}

/// What the call is, and what it would do by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Read an empty pipe: it blocks.
    Empty,
    /// Splice from an empty pipe: six arguments, of which two are on the stack or far from it.
    Splice,
    /// Wait for an empty pipe: a call that no handler lets restart.
    Poll,
    /// Read a pipe with a byte in it.
    Byte,
    /// Read the end of a pipe that is for writing: EBADF.
    WriteEnd,
    /// Read an empty pipe that does not block: EAGAIN.
    NonBlocking,
    /// Read an empty pipe with an interrupt that was acknowledged already: it is cancelled.
    Acknowledged,
    /// Read an empty pipe as people do by hand: a flag, and read(2).
    Naive,
    /// No call: the child ends.
    End,
}

const SHAPES: [Shape; 9] = [
    Shape::Empty,
    Shape::Splice,
    Shape::Poll,
    Shape::Byte,
    Shape::WriteEnd,
    Shape::NonBlocking,
    Shape::Acknowledged,
    Shape::Naive,
    Shape::End,
];

/// Where the child stands when it traps.
pub const ORDER: u32 = 1;
pub const BEFORE: u32 = 2;
pub const BEHIND: u32 = 3;
pub const AFTER: u32 = 4;

/// What a call answered: a count, an errno made negative, or this.
pub const INTERRUPTED: i64 = -1000;
pub const SENTINEL: i32 = 4242;

/// What the child and its tracer share.
#[repr(C)]
#[derive(Debug)]
pub struct Board {
    pub shape: AtomicU32,
    pub place: AtomicU32,
    pub answer: AtomicI64,
    pub errno: AtomicI32,
    pub interrupted: AtomicBool,
    pub left: AtomicI32,
    pub after: AtomicI64,
    pub foreign_runs: AtomicU32,
    pub behind_runs: AtomicU32,
    /// The descriptor for the foreign handler's call; 0: it makes none.
    pub inner_fd: AtomicI32,
    pub inner_answer: AtomicI64,
}

static BOARD: AtomicPtr<Board> = AtomicPtr::new(std::ptr::null_mut());

impl Board {
    pub fn map() -> &'static Board {
        let (size, protection) = (size_of::<Board>(), libc::PROT_READ | libc::PROT_WRITE);
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), size, protection, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0)
        };
        assert!(at != libc::MAP_FAILED);
        BOARD.store(at.cast(), SeqCst);
        // Zeroes are valid, and it is never unmapped.
        unsafe { &*at.cast::<Board>() }
    }

    pub fn shape(&self) -> Shape {
        let found = SHAPES.into_iter().find(|shape| *shape as u32 == self.shape.load(SeqCst));
        found.expect("a shape that the tracer has written")
    }

    fn stand(&self, place: u32) {
        self.place.store(place, SeqCst);
        trap();
    }
}

pub extern "C" fn on_foreign(_: i32) {
    let board = unsafe { &*BOARD.load(SeqCst) };
    board.foreign_runs.fetch_add(1, SeqCst);
    let fd = board.inner_fd.load(SeqCst);
    if fd > 0 {
        // Open as long as the child lives.
        let answer = sys_read(unsafe { BorrowedFd::borrow_raw(fd) }, &mut [0]);
        board.inner_answer.store(number(answer), SeqCst);
    }
}

extern "C" fn on_behind(_: i32) {
    unsafe { &*BOARD.load(SeqCst) }.behind_runs.fetch_add(1, SeqCst);
}

extern "C" fn on_naive(_: i32) {}

/// The number of the naive twin, whose handler does nothing and restarts nothing.
const NAIVE: i32 = libc::SIGHUP;
static FLAG: AtomicBool = AtomicBool::new(false);

/// What everybody writes first.
fn naive_read(fd: BorrowedFd<'_>, buf: &mut [u8]) -> Result<usize, i64> {
    loop {
        if FLAG.swap(false, SeqCst) {
            return Err(INTERRUPTED);
        }
        let n = unsafe { libc::read(fd.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len()) };
        if n >= 0 {
            return Ok(n as usize);
        }
        match std::io::Error::last_os_error().raw_os_error().unwrap_or(0) {
            libc::EINTR => {}
            errno => return Err(-i64::from(errno)),
        }
    }
}

fn sys_read(fd: BorrowedFd<'_>, buf: &mut [u8]) -> Result<usize, i64> {
    told(sys::read(fd, buf))
}

fn told(answer: sys::Result<usize>) -> Result<usize, i64> {
    answer.map_err(|e| match e {
        Error::Interrupted(_) => INTERRUPTED,
        Error::Os(errno) => -(errno as i64),
        other => panic!("{other:?}"),
    })
}

fn number(answer: Result<usize, i64>) -> i64 {
    answer.map_or_else(|e| e, |n| n as i64)
}

fn bytes_in(fd: &OwnedFd) -> i32 {
    let mut n = 0;
    assert_eq!(unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &mut n) }, 0);
    n
}

/// A pipe to read, one that does not block, and one to write to.
#[derive(Debug)]
pub struct Pipes {
    reader: OwnedFd,
    writer: OwnedFd,
    non_blocking: OwnedFd,
    _its_writer: OwnedFd,
    sink: OwnedFd,
    drain: OwnedFd,
}

impl Pipes {
    pub fn new() -> Pipes {
        let ((reader, writer), (non_blocking, _its_writer), (drain, sink)) =
            (common::pipe(), common::pipe(), common::pipe());
        assert_eq!(unsafe { libc::fcntl(non_blocking.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) }, 0);
        Pipes { reader, writer, non_blocking, _its_writer, sink, drain }
    }

    pub fn write(&self) {
        assert_eq!(unsafe { libc::write(self.writer.as_raw_fd(), [7u8].as_ptr().cast(), 1) }, 1);
    }
}

pub fn child(board: &Board, setup: Setup, pipes: &Pipes, commands: File, replies: File) {
    common::install(NAIVE, on_naive as *const () as usize, 0, &[]);
    common::install(setup.foreign, on_foreign as *const () as usize, setup.foreign_flags, setup.foreign_mask);
    if let Some(flags) = setup.behind {
        common::install(setup.ours, on_behind as *const () as usize, flags, &[]);
    }
    if setup.inner_call {
        board.inner_fd.store(pipes.non_blocking.as_raw_fd(), SeqCst);
    }
    let (action, mask) = (common::action(setup.ours), common::mask());
    let scope = Scope::enter(setup.ours).expect("enter");
    let (remote, tid) = (scope.remote(), common::gettid());
    common::unsignalled(move || other_thread(tid, &remote, commands, replies));
    loop {
        board.stand(ORDER);
        match board.shape() {
            Shape::End => break,
            shape => round(board, shape, &scope, pipes),
        }
    }
    scope.leave().expect("our action stands");
    assert_eq!((common::action(setup.ours), common::mask()), (action, mask), "as before the scope");
}

/// Interrupts when the tracer says so, however the traced thread is held.
fn other_thread(tid: libc::pid_t, remote: &Remote, mut commands: File, mut replies: File) {
    let mut command = [0];
    while commands.read_exact(&mut command).is_ok() {
        let reply = match command[0] {
            b'i' => match remote.interrupt_once() {
                Delivery::Sent => b's',
                Delivery::Held => b'h',
                other => panic!("{other:?}"),
            },
            _ => {
                FLAG.store(true, SeqCst);
                unsafe { libc::syscall(libc::SYS_tgkill, common::getpid(), tid, NAIVE) };
                b's'
            }
        };
        replies.write_all(&[reply]).expect("the tracer listens");
    }
}

fn round(board: &Board, shape: Shape, scope: &Scope, pipes: &Pipes) {
    let fd = match shape {
        Shape::WriteEnd => pipes.writer.as_fd(),
        Shape::NonBlocking => pipes.non_blocking.as_fd(),
        _ => pipes.reader.as_fd(),
    };
    if shape == Shape::Byte {
        pipes.write();
    }
    if shape == Shape::Acknowledged {
        scope.remote().interrupt_once();
        assert!(eintr::check().is_err());
    }
    let mut buf = [0];
    unsafe { *libc::__errno_location() = SENTINEL };
    board.stand(BEFORE);
    let answer = match shape {
        Shape::Naive => naive_read(fd, &mut buf),
        Shape::Splice => told(sys::splice(fd, None, &pipes.sink, None, 1, SpliceFFlags::empty())),
        Shape::Poll => told(sys::poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::NONE)),
        _ => sys_read(fd, &mut buf),
    };
    board.errno.store(unsafe { *libc::__errno_location() }, SeqCst);
    board.answer.store(number(answer), SeqCst);
    board.stand(BEHIND);
    board.interrupted.store(scope.interrupted().is_some(), SeqCst);
    if bytes_in(&pipes.drain) > 0 {
        common::plain_read(&pipes.drain).expect("what was spliced");
    }
    let left = bytes_in(&pipes.reader);
    board.left.store(left, SeqCst);
    let cleared = scope.clear().is_some();
    assert_eq!(cleared, board.interrupted.load(SeqCst), "what was there is cleared");
    if left > 0 {
        assert_eq!(sys_read(pipes.reader.as_fd(), &mut [0; 8]), Ok(left as usize), "what was left is there");
    }
    FLAG.store(false, SeqCst);
    board.stand(AFTER);
    board.after.store(number(sys_read(pipes.reader.as_fd(), &mut buf)), SeqCst);
    scope.clear();
}
