//! std under signals, where it gives EINTR to its caller: the first column of the table in `docs/guide.md`. Each call both ways: under signals of the
//! scope's number that somebody else sends it does with a scope what it does without one; a Remote makes it answer EINTR, and nothing is lost: the
//! same call, made again, blocks again, and ends well. By `retry` the answer is the interrupt.
//!
//! The other columns are in `tests/std_calls_loops.rs` and `tests/std_calls_waits.rs`, standard input and output in `tests/std_calls_stdio.rs`.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks)] // as in tests/common

mod common;
#[path = "common/counting.rs"]
mod counting;
#[path = "common/look.rs"]
mod look;
#[path = "common/std_call.rs"]
mod std_call;
#[path = "common/std_ends.rs"]
mod std_ends;
#[path = "common/suite.rs"]
mod suite;
#[path = "common/waiting.rs"]
mod waiting;

use libc::{SYS_flock, SYS_read, SYS_write};
use std::fs::{File, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::UdpSocket;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Child, Command, Stdio};
use std_call::{Call, Fate, Row};
use std_ends::{
    Full, HELLO, HOUR, RECEIVES, SENDS, abstract_name, fed, file_twice, filled, full_file, full_tcp, full_unix, read,
    read_by, tcp, terminal, unix,
};
use suite::{keep, pipe_files};

const fn eintr(name: &'static str, of: &'static str, make: fn() -> Call) -> Row {
    Row::new(Fate::Eintr, name, of, make)
}

const ROWS: &[Row] = &[
    eintr("Read::read", "a pipe", || fed(&[SYS_read], pipe_files(), read)),
    eintr("Read::read", "a pipe of std's", || fed(&[SYS_read], io::pipe().unwrap(), read)),
    eintr("Read::read", "a terminal", || {
        let (from, mut to) = terminal();
        let call = |from: &mut File| read_line_of_a_terminal(from);
        Call::new(&[SYS_read], 5, in_place(from, call), move |_| {
            to.write_all(b"hell\n").unwrap();
            keep(to)
        })
    }),
    eintr("Read::read", "a child's output", of_a_childs_output),
    eintr("Read::read", "a TcpStream", || fed(RECEIVES, tcp(), read)),
    eintr("Read::read", "a UnixStream", || fed(RECEIVES, unix(), read)),
    eintr("Read::read", "a TcpStream with a time-out", || {
        let (from, to) = tcp();
        from.set_read_timeout(HOUR).unwrap();
        fed(RECEIVES, (from, to), read)
    }),
    eintr("Read::read", "a UnixStream with a time-out", || {
        let (from, to) = unix();
        from.set_read_timeout(HOUR).unwrap();
        fed(RECEIVES, (from, to), read)
    }),
    eintr("BufRead::fill_buf", "a pipe", || {
        let (from, to) = pipe_files();
        fed(&[SYS_read], (BufReader::new(from), to), |from| {
            let n = from.fill_buf()?.len();
            assert_eq!(from.buffer(), HELLO);
            from.consume(n);
            Ok(n)
        })
    }),
    eintr("Write::write", "a full pipe", || filled(&[SYS_write], full_file(), write)),
    eintr("Write::write", "a full TcpStream", || filled(SENDS, full_tcp(), write)),
    eintr("Write::write", "a full UnixStream", || filled(SENDS, full_unix(), write)),
    eintr("Write::write", "a full TcpStream with a time-out", || {
        let full = full_tcp();
        full.to.set_write_timeout(HOUR).unwrap();
        filled(SENDS, full, write)
    }),
    eintr("Write::write", "a full UnixStream with a time-out", || {
        let full = full_unix();
        full.to.set_write_timeout(HOUR).unwrap();
        filled(SENDS, full, write)
    }),
    eintr("Write::write", "a child's full input", to_a_childs_full_input),
    eintr("TcpStream::peek", "one that is empty", || {
        fed(RECEIVES, tcp(), |from| {
            let n = read_by(|buffer| from.peek(buffer))?;
            assert_eq!(read(from).unwrap(), n, "it is still there");
            Ok(n)
        })
    }),
    eintr("UdpSocket::recv", "an empty queue", || of_udp(|socket, _| read_by(|buffer| socket.recv(buffer)))),
    eintr("UdpSocket::recv", "one with a time-out", || {
        of_udp(|socket, _| {
            socket.set_read_timeout(HOUR)?;
            read_by(|buffer| socket.recv(buffer))
        })
    }),
    eintr("UdpSocket::recv_from", "an empty queue", || {
        of_udp(|socket, peer| read_by(|buffer| socket.recv_from(buffer).map(|(n, from)| told(n, from == peer))))
    }),
    eintr("UdpSocket::peek", "an empty queue", || {
        of_udp(|socket, _| {
            let n = read_by(|buffer| socket.peek(buffer))?;
            assert_eq!(read_by(|buffer| socket.recv(buffer)).unwrap(), n, "it is still there");
            Ok(n)
        })
    }),
    eintr("UdpSocket::peek_from", "an empty queue", || {
        of_udp(|socket, peer| {
            let n = read_by(|buffer| socket.peek_from(buffer).map(|(n, from)| told(n, from == peer)))?;
            assert_eq!(read_by(|buffer| socket.recv(buffer)).unwrap(), n, "it is still there");
            Ok(n)
        })
    }),
    eintr("UnixDatagram::recv", "an empty queue", || of_unix(|socket| read_by(|buffer| socket.recv(buffer)))),
    eintr("UnixDatagram::recv_from", "an empty queue", || {
        of_unix(|socket| read_by(|buffer| socket.recv_from(buffer).map(|(n, from)| told(n, from.is_unnamed()))))
    }),
    eintr("UnixDatagram::send", "a full queue", || to_full_unix(|socket, _| socket.send(HELLO))),
    eintr("UnixDatagram::send_to", "a full queue", || {
        to_full_unix(|_, to| UnixDatagram::unbound().unwrap().send_to_addr(HELLO, to))
    }),
    eintr("File::lock", "a file that is locked", || lock(File::lock)),
    eintr("File::lock_shared", "a file that is locked", || lock(File::lock_shared)),
];

fn in_place<T: Send>(
    mut on: T,
    call: impl Fn(&mut T) -> io::Result<usize> + Send,
) -> impl FnMut() -> io::Result<usize> + Send {
    move || call(&mut on)
}

fn read_line_of_a_terminal(from: &mut File) -> io::Result<usize> {
    let mut buffer = [b'.'; 8];
    let n = from.read(&mut buffer)?;
    assert_eq!(&buffer, b"hell\n...");
    Ok(n)
}

fn write(to: &mut impl Write, text: &[u8]) -> io::Result<usize> {
    to.write(text)
}

#[track_caller]
fn told(n: usize, by_peer: bool) -> usize {
    assert!(by_peer, "whose it is");
    n
}

/// `cat`, which says what it is told.
fn cat() -> Child {
    Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

fn of_a_childs_output() -> Call {
    let mut child = cat();
    let (mut to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    Call::new(&[SYS_read], 5, in_place(from, read), move |_| {
        to.write_all(HELLO).unwrap();
        Box::new(move || {
            drop(to);
            assert!(child.wait().unwrap().success());
        })
    })
}

/// The child does not read before it is let go: it waits at a FIFO first.
fn to_a_childs_full_input() -> Call {
    let gate = std_ends::Fifo::new();
    let mut child = Command::new("sh")
        .args(["-c", "read go < \"$0\"; exec cat"])
        .arg(&gate.0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let size = nix::fcntl::fcntl(&to, nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    (&mut &to).write_all(&vec![b'-'; size as usize]).unwrap();
    let call = filled(&[SYS_write], Full { from, to, filling: size as usize }, write);
    let provide = call.provide;
    let provide = move |tid| -> suite::After {
        std::fs::write(&gate.0, b"go\n").unwrap();
        let after = provide(tid);
        Box::new(move || {
            after();
            assert!(child.wait().unwrap().success());
        })
    };
    Call { provide: Box::new(provide), ..call }
}

/// Two that are connected: the call is told whom it hears from.
fn of_udp(call: fn(&UdpSocket, std::net::SocketAddr) -> io::Result<usize>) -> Call {
    let [socket, peer] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    let [here, there] = [&socket, &peer].map(|socket| socket.local_addr().unwrap());
    socket.connect(there).unwrap();
    peer.connect(here).unwrap();
    Call::new(
        RECEIVES,
        5,
        move || call(&socket, there),
        move |_| {
            assert_eq!(peer.send(HELLO).unwrap(), 5);
            keep(peer)
        },
    )
}

fn of_unix(call: fn(&UnixDatagram) -> io::Result<usize>) -> Call {
    let (socket, peer) = UnixDatagram::pair().unwrap();
    Call::new(
        RECEIVES,
        5,
        move || call(&socket),
        move |_| {
            assert_eq!(peer.send(HELLO).unwrap(), 5);
            keep(peer)
        },
    )
}

/// A queue with no room for another message, which is read when the call is let go.
fn to_full_unix(call: fn(&UnixDatagram, &SocketAddr) -> io::Result<usize>) -> Call {
    let name = abstract_name();
    let (socket, peer) = (UnixDatagram::unbound().unwrap(), UnixDatagram::bind_addr(&name).unwrap());
    socket.connect_addr(&name).unwrap();
    socket.set_nonblocking(true).unwrap();
    let filling = std::iter::repeat_with(|| socket.send(b"-")).take_while(Result::is_ok).count();
    socket.set_nonblocking(false).unwrap();
    Call::new(
        SENDS,
        5,
        move || call(&socket, &name),
        move |_| {
            let mut buffer = [0; 8];
            for _ in 0..filling {
                assert_eq!((peer.recv(&mut buffer).unwrap(), buffer[0]), (1, b'-'));
            }
            Box::new(move || {
                assert_eq!(peer.recv(&mut buffer).unwrap(), 5);
                assert_eq!(&buffer[..5], HELLO);
                peer.set_nonblocking(true).unwrap();
                assert_eq!(peer.recv(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock, "once");
            })
        },
    )
}

/// The file is locked by another description, until the call is let go.
fn lock(call: fn(&File) -> io::Result<()>) -> Call {
    let [holder, other] = file_twice();
    let third = suite::again(&other);
    holder.lock().unwrap();
    let locks = other.try_clone().unwrap();
    Call::new(
        &[SYS_flock],
        0,
        move || call(&locks).map(|()| 0),
        move |_| {
            drop(holder);
            Box::new(move || {
                assert!(matches!(third.try_lock(), Err(TryLockError::WouldBlock)), "it has the lock");
                other.unlock().unwrap();
                third.try_lock().unwrap();
            })
        },
    )
}

#[test]
fn signals_from_elsewhere_do_to_them_what_they_do_without_a_scope() {
    let _t = common::begin();
    std_call::with_a_scope_they_do_what_they_do_without(ROWS);
}

#[test]
fn a_remote_ends_them_with_eintr_and_nothing_is_lost() {
    let _t = common::begin();
    std_call::a_remote_makes_of_them_what_the_table_says(ROWS);
}

#[test]
fn the_guide_has_them_in_its_first_column() {
    let _t = common::begin(); // it opens a file, and the others count
    std_call::the_guide_names_them(0, ROWS);
}
