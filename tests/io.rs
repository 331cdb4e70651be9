//! `io::Interruptible`: std's loops over it end on an interrupt, with an error that std does not retry and that says why; and what they had moved by then is
//! told to the byte.
// Tests fork, put descriptors in other places, and look into pipes by bare calls.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/counting.rs"]
mod counting;
#[path = "common/suite.rs"]
mod suite;
#[path = "common/witness.rs"]
mod witness;

use counting::{Counting, kinds};
use eintr::io::Interruptible;
use eintr::{Foreign, Interrupted, Reason, Scope, ScopeOptions};
use std::io::{self, BufRead, BufReader, ErrorKind, IoSlice, IoSliceMut, PipeReader, PipeWriter, Read, Stdin, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;
use suite::readable;

/// A pipe that holds one page.
fn narrow_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = io::pipe().unwrap();
    assert_eq!(unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, PAGE) }, PAGE as i32);
    (reader, writer)
}
const PAGE: usize = 4096;

/// How an interrupt comes to the calling thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// By a remote, while the thread sleeps in the system call.
    Remote,
    Deadline,
    /// A signal from elsewhere, likewise.
    Signal,
}

/// For all that is moved before it sleeps.
fn enough() -> Duration {
    common::patience(Duration::from_millis(100))
}

/// `broken`, which sleeps in system call `nr` in the end, is broken by an interrupt in each way and on each number; its error is one that std does not
/// retry, and says why.
fn broken_in(nr: libc::c_long, broken: impl Fn() -> io::Error) {
    let _t = common::begin();
    for sig in kinds() {
        let _behind = Counting::on(sig);
        for how in [How::Remote, How::Deadline, How::Signal] {
            let scope = ScopeOptions::new(sig).foreign(Foreign::Interrupt).enter().unwrap();
            let (tid, remote) = (common::gettid(), scope.remote());
            let limit = (how == How::Deadline).then(|| scope.timeout(enough()).unwrap());
            let ended = AtomicBool::new(false);
            let error = std::thread::scope(|threads| {
                let _ended = Ended(&ended);
                if how != How::Deadline {
                    threads.spawn(|| {
                        common::wait_until(|| common::is_blocked_in(tid, nr) || ended.load(SeqCst));
                        match how {
                            How::Remote => _ = remote.interrupt(),
                            _ => suite::send(tid, sig),
                        }
                    });
                }
                broken()
            });
            let wanted = match how {
                How::Remote => (ErrorKind::Other, Reason::Remote),
                How::Deadline => (ErrorKind::TimedOut, Reason::Deadline),
                How::Signal => (ErrorKind::Other, Reason::Signal),
            };
            let found = Interrupted::find(&error).map(Interrupted::reason);
            assert_eq!((error.kind(), found), (wanted.0, Some(wanted.1)), "{error:?}");
            assert!(error.get_ref().is_some_and(|inner| inner.is::<Interrupted>()), "the typed value lies inside");
            drop(limit);
        }
    }
}

/// Sets it when it drops, in a panic too: then nobody waits any more for a call that will not come.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[test]
fn read_exact_ends_and_what_came_is_told() {
    broken_in(libc::SYS_read, || {
        let (reader, mut writer) = narrow_pipe();
        let (mut reader, mut buffer) = (Interruptible::new(reader), [0; 20]);
        writer.write_all(b"0123456789").unwrap();
        let error = reader.read_exact(&mut buffer).unwrap_err();
        assert_eq!((reader.bytes_read(), &buffer), (10, b"0123456789\0\0\0\0\0\0\0\0\0\0"));
        error
    });
}

#[test]
fn read_to_end_ends_and_what_came_is_there() {
    broken_in(libc::SYS_read, || {
        let (reader, mut writer) = narrow_pipe();
        let (mut reader, mut all) = (Interruptible::new(reader), b"before ".to_vec());
        writer.write_all(&[b'!'; 3000]).unwrap();
        let error = reader.read_to_end(&mut all).unwrap_err();
        assert_eq!((reader.bytes_read(), all.len(), readable(&reader.into_inner())), (3000, 3007, 0));
        error
    });
}

#[test]
fn read_line_ends_in_the_middle_of_a_line_and_goes_on_there() {
    broken_in(libc::SYS_read, || {
        let (reader, mut writer) = narrow_pipe();
        let (mut reader, mut line) = (BufReader::new(Interruptible::new(reader)), String::new());
        writer.write_all(b"one\ntw").unwrap();
        assert_eq!((reader.read_line(&mut line).unwrap(), &line[..]), (4, "one\n"));
        let error = reader.read_line(&mut line).unwrap_err();
        assert_eq!((reader.get_ref().bytes_read(), &line[..]), (6, "one\ntw"));
        writer.write_all(b"o\n").unwrap();
        let _guard = eintr::shield();
        assert_eq!(reader.read_line(&mut line).unwrap(), 2);
        assert_eq!((reader.get_ref().bytes_read(), &line[..]), (8, "one\ntwo\n"));
        error
    });
}

#[test]
fn write_all_ends_and_what_went_out_is_told() {
    broken_in(libc::SYS_write, || {
        let (mut reader, writer) = narrow_pipe();
        let (mut writer, text) = (Interruptible::new(writer), text(3 * PAGE));
        let error = writer.write_all(&text).unwrap_err();
        assert_eq!(writer.bytes_written(), PAGE as u64, "as much as there is room for");
        drop(writer);
        let _guard = eintr::shield(); // std's own reader would be told, too
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        assert!(got == text[..PAGE], "{} bytes", got.len());
        error
    });
}

#[test]
fn copy_ends_where_it_reads_and_where_it_writes() {
    broken_in(libc::SYS_read, || {
        let (from, mut source) = narrow_pipe();
        let (sink, to) = narrow_pipe();
        source.write_all(&text(1000)).unwrap();
        let (mut from, mut to) = (Interruptible::new(from), Interruptible::new(to));
        let error = io::copy(&mut from, &mut to).unwrap_err();
        assert_eq!((from.bytes_read(), to.bytes_written(), readable(&sink)), (1000, 1000, 1000));
        error
    });
    broken_in(libc::SYS_write, || {
        let (sink, to) = narrow_pipe();
        let mut to = Interruptible::new(to);
        let error = io::copy(&mut io::repeat(7), &mut to).unwrap_err();
        assert_eq!((to.bytes_written(), readable(&sink)), (PAGE as u64, PAGE));
        error
    });
}

// The kernel takes 1,024 at once; std's traits set no limit.
#[test]
fn as_many_buffers_as_one_likes_are_read_and_written() {
    broken_in(libc::SYS_writev, || {
        let (mut reader, writer) = narrow_pipe();
        let (mut writer, text) = (Interruptible::new(writer), text(3 * PAGE));
        let mut buffers: Vec<IoSlice<'_>> = text.chunks(4).map(IoSlice::new).collect();
        assert!(buffers.len() > 1024);
        let mut rest = &mut buffers[..];
        let error = loop {
            match writer.write_vectored(rest) {
                Ok(n) => IoSlice::advance_slices(&mut rest, n),
                Err(error) => break error,
            }
        };
        assert_eq!(writer.bytes_written(), PAGE as u64);
        let mut got = vec![0; PAGE];
        reader.read_exact(&mut got).unwrap();
        assert!(got == text[..PAGE]);
        error
    });
    broken_in(libc::SYS_readv, || {
        let (reader, mut writer) = narrow_pipe();
        let text = text(PAGE);
        writer.write_all(&text).unwrap();
        let (mut reader, mut room) = (Interruptible::new(reader), vec![0; 2 * PAGE]);
        let mut buffers: Vec<IoSliceMut<'_>> = room.chunks_mut(2).map(IoSliceMut::new).collect();
        let mut rest = &mut buffers[..];
        let error = loop {
            match reader.read_vectored(rest) {
                Ok(n) => IoSliceMut::advance_slices(&mut rest, n),
                Err(error) => break error,
            }
        };
        assert_eq!(reader.bytes_read(), PAGE as u64);
        assert!(room[..PAGE] == text && room[PAGE..].iter().all(|byte| *byte == 0));
        error
    });
}

// Nothing read is the end, and nothing written is an error to std's loops; so that must not be the answer to a thousand empty ones in front.
#[test]
fn empty_buffers_in_front_are_no_end() {
    let _t = common::begin();
    let (reader, writer) = narrow_pipe();
    let (mut reader, mut writer) = (Interruptible::new(reader), Interruptible::new(writer));
    let mut buffers = vec![IoSlice::new(&[]); 3000];
    assert_eq!(writer.write_vectored(&buffers).unwrap(), 0, "nothing but empty ones");
    buffers.push(IoSlice::new(b"text"));
    assert_eq!(writer.write_vectored(&buffers).unwrap(), 4);
    let mut room = [0; 8];
    let mut buffers: Vec<_> = (0..3000).map(|_| IoSliceMut::new(&mut [])).collect();
    assert_eq!(reader.read_vectored(&mut buffers).unwrap(), 0);
    buffers.push(IoSliceMut::new(&mut room));
    assert_eq!((reader.read_vectored(&mut buffers).unwrap(), &room[..4]), (4, &b"text"[..]));
    assert_eq!((reader.bytes_read(), writer.bytes_written()), (4, 4));
}

#[test]
fn what_was_moved_comes_first_and_the_interrupt_with_the_next_call() {
    let _t = common::begin();
    for sig in kinds() {
        let scope = Scope::enter(sig).unwrap();
        let (reader, writer) = narrow_pipe();
        let (mut writer, remote, tid) = (Interruptible::new(writer), scope.remote(), common::gettid());
        std::thread::scope(|threads| {
            threads.spawn(move || {
                common::wait_blocked_in(tid, libc::SYS_write);
                remote.interrupt()
            });
            assert_eq!(writer.write(&text(2 * PAGE)).unwrap(), PAGE);
        });
        assert_eq!((writer.bytes_written(), readable(&reader)), (PAGE as u64, PAGE));
        assert!(Interrupted::find(&writer.write(b"!").unwrap_err()).is_some());
        assert_eq!((writer.bytes_written(), readable(&reader)), (PAGE as u64, PAGE));
    }
}

#[test]
fn other_errors_and_ends_are_as_they_are() {
    let _t = common::begin();
    for scope in [None, Some(Scope::enter(libc::SIGUSR1).unwrap())] {
        let (reader, writer) = io::pipe().unwrap();
        assert_eq!(unsafe { libc::fcntl(reader.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) }, 0);
        let mut reader = Interruptible::new(reader);
        assert_eq!(reader.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(reader.write(b"!").unwrap_err().raw_os_error(), Some(libc::EBADF), "the end that is read");
        drop(writer);
        assert_eq!((reader.read(&mut [0; 8]).unwrap(), reader.bytes_read(), reader.bytes_written()), (0, 0, 0));
        let (reader, writer) = io::pipe().unwrap();
        let mut writer = Interruptible::new(writer);
        writer.write_all(b"12").and_then(|()| writer.flush()).unwrap();
        drop(reader);
        assert_eq!(writer.write_all(b"3").unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert_eq!(writer.bytes_written(), 2);
        drop(scope);
    }
}

fn is_sent<T: Send + Sync + 'static>(_: &T) {}

/// Wrappers without a lifetime of their own go to other threads.
#[test]
fn it_goes_where_its_descriptor_goes() {
    let _t = common::begin();
    let file = Arc::new(suite::memory_file());
    let mut wrapped = Interruptible::new(file.clone());
    is_sent(&wrapped);
    is_sent(&Interruptible::new(io::stdin()));
    assert_eq!(wrapped.as_fd().as_raw_fd(), file.as_raw_fd());
    let (mut wrapped, thread) = std::thread::spawn(move || {
        let scope = Scope::enter(libc::SIGUSR1).unwrap();
        wrapped.write_all(b"by another thread").unwrap();
        scope.remote().interrupt();
        assert!(wrapped.write_all(b"not this").is_err());
        (wrapped, std::thread::current().id())
    })
    .join()
    .unwrap();
    assert_ne!(thread, std::thread::current().id());
    assert_eq!(wrapped.bytes_written(), 17);
    assert_eq!(std::fs::read(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap(), b"by another thread");
    assert!(Arc::ptr_eq(wrapped.get_ref(), &file) && Arc::ptr_eq(wrapped.get_mut(), &file));
    assert!(format!("{wrapped:?}").contains("Interruptible"));
    assert!(Arc::ptr_eq(&wrapped.into_inner(), &file));
}

// Two threads, each with a wrapper around the same socket: one is interrupted in its read while the other writes.
#[test]
fn a_shared_socket_is_read_and_written_at_once() {
    let _t = common::begin();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    for sig in kinds() {
        let scope = Scope::enter(sig).unwrap();
        let (remote, tid, near) = (scope.remote(), common::gettid(), &near);
        std::thread::scope(|threads| {
            threads.spawn(move || {
                let mut writer = Interruptible::new(near);
                common::wait_blocked_in(tid, libc::SYS_read);
                writer.write_all(b"while it is read").unwrap();
                assert_eq!((writer.bytes_written(), writer.bytes_read()), (16, 0));
                remote.interrupt()
            });
            let mut reader = Interruptible::new(near);
            (&far).write_all(b"12345").unwrap();
            let error = reader.read_exact(&mut [0; 6]).unwrap_err();
            assert!(Interrupted::find(&error).is_some());
            assert_eq!((reader.bytes_written(), reader.bytes_read()), (0, 5));
        });
        let mut got = [0; 16];
        (&far).read_exact(&mut got).unwrap();
        assert_eq!(&got, b"while it is read");
    }
}

/// A child whose standard input is this.
fn with_stdin(input: &impl AsRawFd, body: impl FnOnce()) {
    let input = input.as_raw_fd();
    witness::well(witness::child(|| {
        assert_eq!(unsafe { libc::dup2(input, 0) }, 0);
        body();
    }));
}

// By its number: what std has read ahead stays in std's buffer.
#[test]
fn standard_input_is_read_by_its_number() {
    let _t = common::begin();
    for sig in kinds() {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"one\ntwo\n").unwrap();
        with_stdin(&reader, || {
            let mut line = String::new();
            io::stdin().read_line(&mut line).unwrap();
            writer.write_all(b"three\n").unwrap();
            let scope = Scope::enter(sig).unwrap();
            let _limit = scope.timeout(enough()).unwrap();
            let (mut stdin, mut all): (Interruptible<Stdin>, _) = (Interruptible::new(io::stdin()), Vec::new());
            let error = stdin.read_to_end(&mut all).unwrap_err();
            assert_eq!((error.kind(), &all[..], stdin.bytes_read()), (ErrorKind::TimedOut, &b"three\n"[..], 6));
            line.clear();
            io::stdin().read_line(&mut line).unwrap();
            assert_eq!(line, "two\n");
        });
    }
}

/// Of which every byte tells where it belongs.
fn text(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8).collect()
}
