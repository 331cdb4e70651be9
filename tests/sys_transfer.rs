//! Bytes between descriptors and from the generator: other people's signals change nothing, an interrupt ends the wait, and whatever moved is told and
//! in the offsets.
// Sockets and files are set up by plain calls.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/waiting.rs"]
mod waiting;

use common::wait_blocked_in;
use eintr::{Scope, sys};
use nix::fcntl::SpliceFFlags;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicI64, Ordering};
use waiting::{Caller, Waiting, assert_remote, in_three_ways};

fn pipe() -> (File, File) {
    let (read, write) = common::pipe();
    (read.into(), write.into())
}

/// A file in memory with `bytes`, standing at its beginning.
fn file(bytes: &[u8]) -> File {
    let mut file = File::from(memfd_create(c"eintr", MFdFlags::MFD_CLOEXEC).unwrap());
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

fn take(mut from: &File, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes).unwrap();
    bytes
}

/// Fills a pipe to the brim; answers how much that was.
fn fill(pipe: &File) -> usize {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let (mut total, page) = (0, [b'.'; 4096]);
    while let Ok(n) = nix::unistd::write(pipe, &page) {
        total += n;
    }
    fcntl(pipe, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    total
}

/// Waits for bytes in a pipe.
struct FromPipe {
    from: (File, File),
    to: (File, File),
}

impl FromPipe {
    fn new() -> FromPipe {
        FromPipe { from: pipe(), to: pipe() }
    }
    fn ready(&self) {
        (&self.from.1).write_all(b"five.").unwrap();
    }
}

struct Splice(FromPipe);
impl Waiting for Splice {
    type Value = usize;
    const NUMBER: libc::c_long = libc::SYS_splice;
    fn new() -> Splice {
        Splice(FromPipe::new())
    }
    fn call(&self) -> sys::Result<usize> {
        sys::splice(&self.0.from.0, None, &self.0.to.1, None, 100, SpliceFFlags::empty())
    }
    fn ready(&self, _: libc::pid_t) {
        self.0.ready();
    }
    fn check(&self, value: usize) {
        assert_eq!(value, 5);
        assert_eq!(take(&self.0.to.0, 5), b"five.");
    }
}

struct Tee(FromPipe);
impl Waiting for Tee {
    type Value = usize;
    const NUMBER: libc::c_long = libc::SYS_tee;
    fn new() -> Tee {
        Tee(FromPipe::new())
    }
    fn call(&self) -> sys::Result<usize> {
        sys::tee(&self.0.from.0, &self.0.to.1, 100, SpliceFFlags::empty())
    }
    fn ready(&self, _: libc::pid_t) {
        self.0.ready();
    }
    fn check(&self, value: usize) {
        assert_eq!(value, 5);
        assert_eq!((take(&self.0.from.0, 5), take(&self.0.to.0, 5)), (b"five.".to_vec(), b"five.".to_vec()));
    }
}

/// Waits for room in a pipe, with an offset in a file.
struct FromFile {
    file: File,
    offset: AtomicI64,
    to: (File, File),
    filled: usize,
}

impl FromFile {
    fn new() -> FromFile {
        let to = pipe();
        let filled = fill(&to.1);
        FromFile { file: file(b"0123456789"), offset: AtomicI64::new(3), to, filled }
    }
    /// `call`, with the offset; that is moved by what was moved, and by nothing else.
    fn with_offset(&self, call: impl FnOnce(&mut i64) -> sys::Result<usize>) -> sys::Result<usize> {
        let before = self.offset.load(Ordering::SeqCst);
        let mut offset = before;
        let answer = call(&mut offset);
        assert_eq!(offset - before, *answer.as_ref().unwrap_or(&0) as i64);
        self.offset.store(offset, Ordering::SeqCst);
        answer
    }
    fn ready(&self) {
        take(&self.to.0, self.filled);
    }
    fn check(&self, value: usize) {
        assert_eq!(value, 7);
        assert_eq!(take(&self.to.0, 7), b"3456789");
        assert_eq!((&self.file).stream_position().unwrap(), 0, "the file's own place stays");
    }
}

struct SpliceOut(FromFile);
impl Waiting for SpliceOut {
    type Value = usize;
    const NUMBER: libc::c_long = libc::SYS_splice;
    fn new() -> SpliceOut {
        SpliceOut(FromFile::new())
    }
    fn call(&self) -> sys::Result<usize> {
        let case = &self.0;
        case.with_offset(|at| sys::splice(&case.file, Some(at), &case.to.1, None, 100, SpliceFFlags::SPLICE_F_MORE))
    }
    fn ready(&self, _: libc::pid_t) {
        self.0.ready();
    }
    fn check(&self, value: usize) {
        self.0.check(value);
    }
}

struct Sendfile(FromFile);
impl Waiting for Sendfile {
    type Value = usize;
    const NUMBER: libc::c_long = libc::SYS_sendfile;
    fn new() -> Sendfile {
        Sendfile(FromFile::new())
    }
    fn call(&self) -> sys::Result<usize> {
        self.0.with_offset(|at| sys::sendfile(&self.0.to.1, &self.0.file, Some(at), 100))
    }
    fn ready(&self, _: libc::pid_t) {
        self.0.ready();
    }
    fn check(&self, value: usize) {
        self.0.check(value);
    }
}

#[test]
fn splice_waits() {
    if common::skipped_if_emulated("splice", "the emulator lets a signal wait until its splice is done") {
        return;
    }
    let _t = common::begin();
    in_three_ways::<Splice>();
    in_three_ways::<SpliceOut>();
}

#[test]
fn tee_waits() {
    if common::skipped_if_emulated("tee", "the emulator lets a signal wait until its tee is done") {
        return;
    }
    let _t = common::begin();
    in_three_ways::<Tee>();
}

#[test]
fn sendfile_waits() {
    if common::skipped_if_emulated("sendfile", "the emulator lets a signal wait until its sendfile is done") {
        return;
    }
    let _t = common::begin();
    in_three_ways::<Sendfile>();
}

/// A transfer that has begun is told; the interrupt is for the next call.
#[test]
fn a_part_that_was_sent_is_returned() {
    if common::skipped_if_emulated("sendfile", "the emulator lets a signal wait until its sendfile is done") {
        return;
    }
    let _t = common::begin();
    const SIZE: usize = 16 << 20;
    let (mut theirs, ours) = UnixStream::pair().unwrap();
    let caller = Caller::start(Some(libc::SIGUSR1), move |scope| {
        let (mut offset, source) = (0, file(&vec![b'x'; SIZE]));
        let part = sys::sendfile(&ours, &source, Some(&mut offset), SIZE).expect("a part");
        assert!(0 < part && part < SIZE && offset as usize == part);
        assert_remote(sys::sendfile(&ours, &source, Some(&mut offset), SIZE));
        assert_eq!(offset as usize, part, "nothing was sent");
        scope.unwrap().clear();
        part
    });
    wait_blocked_in(caller.tid, libc::SYS_sendfile);
    caller.interrupt();
    let part = caller.join();
    let mut sent = Vec::new();
    theirs.read_to_end(&mut sent).unwrap();
    assert_eq!(sent.len(), part);
}

#[test]
fn copy_file_range_moves_the_offsets_it_is_given() {
    let _t = common::begin();
    let scope = Scope::enter(libc::SIGUSR1).unwrap();
    let (from, to) = (file(b"0123456789"), file(b""));
    let (mut at, mut into) = (2, 1);
    scope.remote().interrupt();
    assert_remote(sys::copy_file_range(&from, Some(&mut at), &to, Some(&mut into), 5));
    assert_eq!((at, into, to.metadata().unwrap().len()), (2, 1, 0));
    scope.clear();
    assert_eq!(sys::copy_file_range(&from, Some(&mut at), &to, Some(&mut into), 5), Ok(5));
    assert_eq!((at, into), (7, 6));
    assert_eq!(sys::copy_file_range(&from, None, &to, None, 1), Ok(1));
    assert_eq!(take(&to, 5), b"23456");
}

#[test]
fn getrandom_interrupted_before_writes_nothing() {
    let _t = common::begin();
    let scope = Scope::enter(libc::SIGUSR1).unwrap();
    let mut buf = [0; 64];
    scope.remote().interrupt();
    assert_remote(sys::getrandom(&mut buf, 0));
    assert_eq!(buf, [0; 64]);
    scope.clear();
    assert_eq!(sys::getrandom(&mut buf, 0), Ok(64));
    assert_ne!(buf, [0; 64]);
}

/// Of a large request a part may come; it is told, and behind it nothing is written.
#[test]
fn getrandom_says_how_much_it_wrote() {
    let _t = common::begin();
    let foreign = waiting::Foreign::install();
    let caller = Caller::start(Some(libc::SIGUSR1), |scope| {
        let (mut buf, mut parts, mut interrupts) = (vec![0u8; 4 << 20], 0, 0);
        for _ in 0..60 {
            buf.fill(0);
            match sys::getrandom(&mut buf, 0) {
                Ok(n) => {
                    parts += u32::from(n < buf.len());
                    assert!(n > 0 && buf[n..].iter().all(|b| *b == 0));
                    assert!(n < 256 || buf[n - 16..n].iter().any(|b| *b != 0));
                }
                interrupted => {
                    assert_remote(interrupted);
                    interrupts += 1;
                    scope.unwrap().clear();
                }
            }
        }
        println!("{parts} parts, {interrupts} interrupts");
    });
    while !caller.thread.is_finished() && foreign.pester(caller.tid) {
        caller.interrupt();
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    caller.join();
}

/// A descriptor that is borrowed stays open, and one's own.
#[test]
fn descriptors_are_borrowed() {
    let _t = common::begin();
    let (read, write): (OwnedFd, OwnedFd) = common::pipe();
    nix::unistd::write(&write, b"12").unwrap();
    let (other, into) = common::pipe();
    assert_eq!(sys::tee(&read, &into, 1, SpliceFFlags::empty()), Ok(1));
    assert_eq!(sys::splice(&read, None, &into, None, 2, SpliceFFlags::SPLICE_F_NONBLOCK), Ok(2));
    assert_eq!(common::plain_read(&other), Ok(3));
}
