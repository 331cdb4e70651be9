//! Bytes in and out: other people's signals change nothing, an interrupt ends what waits, and no byte is lost, moved twice, or left behind unsaid.
// Pipes and files are made by raw system calls, as applications do.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/waiting.rs"]
mod waiting;
#[macro_use]
#[path = "common/waits.rs"]
mod waits;

use common::wait_blocked_in;
use eintr::{Scope, sys};
use nix::errno::Errno;
use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, mpsc};
use waiting::{Caller, Foreign, assert_errno, assert_remote, numbers};

/// A pipe, nothing in it.
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipe {
    fn new() -> Pipe {
        let (read, write) = common::pipe();
        Pipe { read, write }
    }

    /// One page, and that is full.
    fn full() -> Pipe {
        let pipe = Pipe::new();
        assert_eq!(unsafe { libc::fcntl(pipe.write.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) }, 4096);
        pipe.put(&[b'-'; 4096]);
        pipe
    }

    fn put(&self, bytes: &[u8]) {
        File::from(self.write.try_clone().unwrap()).write_all(bytes).unwrap();
    }

    fn take(&self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        File::from(self.read.try_clone().unwrap()).read_exact(&mut bytes).unwrap();
        bytes
    }

    fn filled(&self) -> usize {
        let mut count: libc::c_int = 0;
        assert_eq!(unsafe { libc::ioctl(self.read.as_raw_fd(), libc::FIONREAD, &mut count) }, 0);
        count as usize
    }

    /// Exactly these bytes are in it; they are taken.
    fn assert_holds(&self, bytes: &[u8]) {
        assert_eq!(self.filled(), bytes.len());
        assert_eq!(self.take(bytes.len()), bytes);
    }
}

waits!(read_waits, libc::SYS_read, Pipe => Vec<u8>,
    new: Pipe::new,
    call: |pipe| {
        let mut buf = [0; 16];
        sys::read(&pipe.read, &mut buf).map(|n| buf[..n].to_vec())
    },
    ready: |pipe| pipe.put(b"hello"),
    check: |pipe, bytes| {
        assert_eq!(bytes, b"hello");
        pipe.assert_holds(b"");
    },
);

waits!(readv_waits, libc::SYS_readv, Pipe => (usize, Vec<u8>),
    new: Pipe::new,
    call: |pipe| {
        let (mut two, mut four) = ([0; 2], [0; 4]);
        let n = sys::readv(&pipe.read, &mut [IoSliceMut::new(&mut two), IoSliceMut::new(&mut four)])?;
        Ok((n, [&two[..], &four[..]].concat()))
    },
    ready: |pipe| pipe.put(b"hello"),
    check: |pipe, read| {
        assert_eq!(read, (5, b"hello\0".to_vec()));
        pipe.assert_holds(b"");
    },
);

waits!(write_waits, libc::SYS_write, Pipe => usize,
    new: Pipe::full,
    call: |pipe| sys::write(&pipe.write, b"hello"),
    ready: |pipe| drop(pipe.take(4096)),
    check: |pipe, n| {
        assert_eq!(n, 5);
        pipe.assert_holds(b"hello");
    },
);

waits!(writev_waits, libc::SYS_writev, Pipe => usize,
    new: Pipe::full,
    call: |pipe| sys::writev(&pipe.write, &[IoSlice::new(b"he"), IoSlice::new(b""), IoSlice::new(b"llo")]),
    ready: |pipe| drop(pipe.take(4096)),
    check: |pipe, n| {
        assert_eq!(n, 5);
        pipe.assert_holds(b"hello");
    },
);

/// What was written before a signal came is told; the interrupt that came with it waits for the next call.
#[test]
fn a_partial_write_is_returned_and_the_interrupt_stays() {
    let _t = common::begin();
    for (sig, vectored) in numbers().into_iter().flat_map(|sig| [(sig, false), (sig, true)]) {
        let pipe = Arc::new(Pipe::full());
        assert_eq!(pipe.take(4096).len(), 4096); // empty, one page large
        let of_caller = pipe.clone();
        let caller = Caller::start(Some(sig), move |scope| {
            let bytes: Vec<u8> = (0..10_000u32).map(|n| n as u8).collect();
            let written = if vectored {
                sys::writev(&of_caller.write, &[IoSlice::new(&bytes[..3000]), IoSlice::new(&bytes[3000..])])
            } else {
                sys::write(&of_caller.write, &bytes)
            };
            let n = written.expect("some went");
            assert!(scope.unwrap().interrupted().is_some(), "the interrupt stays");
            assert_remote(sys::write(&of_caller.write, &bytes[n..]));
            assert!(scope.unwrap().clear().is_some());
            (n, bytes)
        });
        wait_blocked_in(caller.tid, if vectored { libc::SYS_writev } else { libc::SYS_write });
        assert_eq!(pipe.filled(), 4096);
        caller.interrupt();
        let (n, bytes) = caller.join();
        assert_eq!(n, 4096);
        pipe.assert_holds(&bytes[..n]);
    }
}

/// The same of somebody else's signal, as of the kernel's own call: the rest is the caller's to write, and nothing says "interrupted".
#[test]
fn a_partial_write_is_returned_after_other_peoples_signals() {
    let _t = common::begin();
    let (pipe, foreign) = (Arc::new(Pipe::full()), Foreign::install());
    assert_eq!(pipe.take(4096).len(), 4096);
    let of_caller = pipe.clone();
    let caller = Caller::start(Some(numbers()[0]), move |_| {
        let bytes: Vec<u8> = (0..100_000u32).map(|n| (n / 7) as u8).collect();
        let (mut rest, mut calls) = (&bytes[..], 0);
        while !rest.is_empty() {
            rest = &rest[sys::write(&of_caller.write, rest).unwrap()..];
            calls += 1;
        }
        (bytes, calls)
    });
    for _ in 0..10 {
        foreign.strike(caller.tid, libc::SYS_write);
    }
    let read = pipe.take(100_000);
    let (bytes, calls) = caller.join();
    assert!(read == bytes, "every byte once, in order");
    assert!(calls > 1, "a signal has ended a write that had written some");
}

/// The call that works and the interrupt that comes race each other; whoever wins, the byte is read once. An `op` that told the interrupt after a
/// call that had worked would lose it.
#[test]
fn bytes_and_interrupts_in_a_race_lose_neither() {
    let _t = common::begin();
    for sig in numbers() {
        let pipe = Arc::new(Pipe::new());
        let of_caller = pipe.clone();
        let caller = Caller::start(Some(sig), move |scope| {
            let (mut bytes, mut interrupted, mut buf) = (Vec::new(), 0, [0; 3]);
            while bytes.len() < 5000 || interrupted < 1000 {
                match sys::read(&of_caller.read, &mut buf) {
                    Ok(n) => bytes.extend_from_slice(&buf[..n]),
                    Err(e) => interrupted += e.interrupted().map(|_| 1).expect("no other error"),
                }
                scope.unwrap().clear();
            }
            bytes
        });
        let remote = caller.remote.clone().unwrap();
        let interrupter = std::thread::spawn(move || {
            while !remote.is_closed() {
                remote.interrupt();
                std::thread::yield_now();
            }
        });
        let mut written = 0u32;
        while !caller.thread.is_finished() {
            if pipe.filled() < 100 {
                pipe.put(&[written as u8]);
                written += 1;
            }
        }
        let mut bytes = caller.join();
        interrupter.join().unwrap();
        bytes.extend(pipe.take(pipe.filled()));
        assert!(bytes.iter().copied().eq((0..written).map(|n| n as u8)), "{} of {written} bytes", bytes.len());
    }
}

/// A regular file does not make these wait; an interrupt that is there before them is told, and nothing has moved.
#[test]
fn calls_at_an_offset_move_nothing_when_interrupted_before() {
    let _t = common::begin();
    let file = tempfile(b"0123456789");
    for sig in numbers() {
        let scope = Scope::enter(sig).unwrap();
        scope.remote().interrupt();
        let (mut a, mut b) = ([0; 2], [0; 3]);
        assert_remote(sys::pread(&file, &mut a, 1));
        assert_remote(sys::pwrite(&file, b"xx", 1));
        assert_remote(sys::preadv(&file, &mut [IoSliceMut::new(&mut a), IoSliceMut::new(&mut b)], 1));
        assert_remote(sys::pwritev(&file, &[IoSlice::new(b"xx")], 1));
        assert_eq!((a, b), ([0; 2], [0; 3]));
        assert!(scope.clear().is_some());
        assert_eq!(sys::pread(&file, &mut a, 1).unwrap(), 2);
        assert_eq!(&a, b"12", "nothing was written");
        let mut at = [IoSliceMut::new(&mut a), IoSliceMut::new(&mut b)];
        assert_eq!(sys::preadv(&file, &mut at, 4).unwrap(), 5);
        assert_eq!((&a, &b), (b"45", b"678"));
        assert_eq!(sys::pwrite(&file, b"AB", 8).unwrap(), 2);
        assert_eq!(sys::pwritev(&file, &[IoSlice::new(b"C"), IoSlice::new(b"DE")], 9).unwrap(), 3);
        let mut all = [0; 16];
        assert_eq!(sys::pread(&file, &mut all, 0).unwrap(), 12);
        assert_eq!(&all[..12], b"01234567ACDE");
        assert_eq!(sys::pwrite(&file, b"89", 8).unwrap(), 2);
        file.set_len(10).unwrap();
        assert_eq!(sys::read(&file, &mut all).unwrap(), 10, "the file's own offset has stayed");
        assert_eq!(nix::unistd::lseek(&file, 0, nix::unistd::Whence::SeekSet), Ok(0));
    }
}

/// Beyond 32 bits: the offset is one word to the kernel.
#[test]
fn offsets_are_of_64_bits() {
    let _t = common::begin();
    let file = tempfile(b"");
    let at = (5 << 32) + 3;
    assert_eq!(sys::pwritev(&file, &[IoSlice::new(b"far")], at).unwrap(), 3);
    assert_eq!(file.metadata().unwrap().len(), at as u64 + 3);
    let mut buf = [0; 8];
    assert_eq!(sys::preadv(&file, &mut [IoSliceMut::new(&mut buf)], at).unwrap(), 3);
    assert_eq!(&buf[..3], b"far");
}

/// The kernel's own errors come through, and what was live goes on living.
#[test]
fn the_kernels_errors_come_through() {
    let _t = common::begin();
    let scope = Scope::enter(numbers()[0]).unwrap();
    let pipe = Pipe::new();
    let nobody = unsafe { BorrowedFd::borrow_raw(1_000_000) };
    let mut buf = [0; 4];
    unsafe { *libc::__errno_location() = 77 };
    assert_errno(sys::read(nobody, &mut buf), Errno::EBADF);
    assert_errno(sys::write(nobody, &buf), Errno::EBADF);
    assert_errno(sys::readv(nobody, &mut [IoSliceMut::new(&mut buf)]), Errno::EBADF);
    assert_errno(sys::writev(nobody, &[IoSlice::new(b"x")]), Errno::EBADF);
    assert_errno(sys::read(&pipe.write, &mut buf), Errno::EBADF);
    assert_errno(sys::write(&pipe.read, &buf), Errno::EBADF);
    assert_errno(sys::pread(&pipe.read, &mut buf, 0), Errno::ESPIPE);
    assert_errno(sys::pwrite(&pipe.write, &buf, 0), Errno::ESPIPE);
    assert_errno(sys::preadv(&pipe.read, &mut [IoSliceMut::new(&mut buf)], 0), Errno::ESPIPE);
    assert_errno(sys::pwritev(&pipe.write, &[IoSlice::new(b"x")], 0), Errno::ESPIPE);
    let file = tempfile(b"");
    assert_errno(sys::pread(&file, &mut buf, -1), Errno::EINVAL);
    assert_errno(sys::pwritev(&file, &[IoSlice::new(b"x")], -1), Errno::EINVAL);
    assert_errno(sys::writev(&pipe.write, &vec![IoSlice::new(b"x"); 1025]), Errno::EINVAL);
    assert_eq!(sys::writev(&pipe.write, &vec![IoSlice::new(b"x"); 1024]).unwrap(), 1024);
    assert_eq!(unsafe { *libc::__errno_location() }, 77, "errno is not written");
    scope.remote().interrupt();
    assert_remote(sys::read(&pipe.read, &mut buf));
    assert!(scope.clear().is_some());
    assert_eq!(sys::read(&pipe.read, &mut buf).unwrap(), 4);
}

#[test]
fn a_broken_pipe_is_told() {
    common::in_own_process("a_broken_pipe_is_told", || {
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
        let (read, write) = common::pipe();
        drop(read);
        assert_errno(sys::write(&write, b"x"), Errno::EPIPE);
        let (read, write) = common::pipe();
        drop(write);
        assert_eq!(sys::read(&read, &mut [0; 4]).unwrap(), 0);
    });
}

/// A terminal's read in canonical mode, which is what people wait for: a line, whole.
#[test]
fn a_line_of_a_terminal_is_read_once() {
    let _t = common::begin();
    let pty = nix::pty::openpty(None, None).unwrap();
    let (master, slave) = (File::from(pty.master), Arc::new(pty.slave));
    let foreign = Foreign::install();
    let (of_caller, (tell, told)) = (slave.clone(), mpsc::channel());
    let caller = Caller::start(Some(numbers()[0]), move |scope| {
        let mut buf = [0; 64];
        assert_remote(sys::read(&*of_caller, &mut buf));
        assert!(scope.unwrap().clear().is_some());
        tell.send(()).unwrap();
        sys::read(&*of_caller, &mut buf).map(|n| buf[..n].to_vec())
    });
    wait_blocked_in(caller.tid, libc::SYS_read);
    (&master).write_all(b"he").unwrap(); // no line yet
    foreign.strike(caller.tid, libc::SYS_read);
    caller.interrupt();
    told.recv().unwrap();
    foreign.strike(caller.tid, libc::SYS_read);
    (&master).write_all(b"llo\n").unwrap();
    assert_eq!(caller.join().unwrap(), b"hello\n");
}

/// A file that has lost its name already.
fn tempfile(bytes: &[u8]) -> File {
    let fd = nix::fcntl::open(
        env!("CARGO_TARGET_TMPDIR"),
        nix::fcntl::OFlag::O_TMPFILE | nix::fcntl::OFlag::O_RDWR,
        nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR,
    );
    let file = File::from(fd.unwrap());
    assert_eq!(nix::sys::uio::pwrite(&file, bytes, 0), Ok(bytes.len()));
    file
}
