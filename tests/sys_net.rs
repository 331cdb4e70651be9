//! Sockets: other people's signals change nothing, an interrupt ends what waits, and no byte, message, connection or descriptor is lost.
// Sockets are made by raw system calls where std has none, as applications do.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/sockets.rs"]
mod sockets;
#[path = "common/waiting.rs"]
mod waiting;
#[macro_use]
#[path = "common/waits.rs"]
mod waits;

use common::wait_blocked_in;
use eintr::{Remote, Scope, sys};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockFlag, SockaddrIn, SockaddrStorage, UnixAddr};
use sockets::{Datagrams, Messages, Stream};
use std::io::{IoSlice, IoSliceMut};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use waiting::{Caller, Foreign, assert_errno, assert_remote, numbers};

const NONE: MsgFlags = MsgFlags::empty();

/// What a call that receives gets.
macro_rules! receives {
    ($test:ident, $number:expr, $state:ident, $call:expr) => {
        waits!($test, $number, $state => Vec<u8>,
            new: $state::new,
            call: |pair| {
                let mut buf = [0; 16];
                let call: fn(&$state, &mut [u8]) -> sys::Result<usize> = $call;
                call(pair, &mut buf).map(|n| buf[..n].to_vec())
            },
            ready: |pair| pair.put(b"hello"),
            check: |pair, bytes| {
                assert_eq!(bytes, b"hello");
                pair.assert_empty();
            },
        );
    };
}

/// What a call that sends leaves at the other end.
macro_rules! sends {
    ($test:ident, $number:expr, $state:ident, $call:expr) => {
        waits!($test, $number, $state => usize,
            new: $state::full,
            call: $call,
            ready: $state::drain,
            check: |pair, n| {
                assert_eq!(n, 5);
                pair.assert_holds(b"hello");
            },
        );
    };
}

receives!(recv_waits, libc::SYS_recvfrom, Stream, |pair, buf| sys::recv(&pair.a, buf, NONE));
receives!(recv_of_a_datagram_waits, libc::SYS_recvfrom, Datagrams, |pair, buf| sys::recv(&pair.a, buf, NONE));
receives!(read_of_a_socket_waits, libc::SYS_read, Stream, |pair, buf| sys::read(&pair.a, buf));
receives!(recvfrom_waits, libc::SYS_recvfrom, Datagrams, |pair, buf| {
    let (n, from) = sys::recvfrom::<_, UnixAddr>(&pair.a, buf, NONE)?;
    assert_eq!(from, Some(pair.name_of_b), "who sent it");
    Ok(n)
});
receives!(recvmsg_waits, libc::SYS_recvmsg, Stream, |pair, buf| {
    let mut messages = Messages::to_receive([&mut buf[..]]);
    unsafe { sys::recvmsg(&pair.a, &mut messages.headers[0].msg_hdr, NONE) }
});
receives!(recvmmsg_waits, libc::SYS_recvmmsg, Datagrams, |pair, buf| {
    let mut second = [0; 4];
    let mut messages = Messages::to_receive([buf, &mut second]);
    assert_eq!(unsafe { sys::recvmmsg(&pair.a, &mut messages.headers, MsgFlags::MSG_WAITFORONE) }?, 1);
    Ok(messages.headers[0].msg_len as usize)
});

sends!(send_waits, libc::SYS_sendto, Stream, |pair| sys::send(&pair.a, b"hello", NONE));
sends!(send_of_a_datagram_waits, libc::SYS_sendto, Datagrams, |pair| sys::send(&pair.a, b"hello", NONE));
sends!(write_to_a_socket_waits, libc::SYS_write, Stream, |pair| sys::write(&pair.a, b"hello"));
sends!(sendto_waits, libc::SYS_sendto, Datagrams, |pair| {
    sys::sendto(&pair.unconnected, b"hello", &pair.name_of_b, NONE)
});
sends!(sendmsg_waits, libc::SYS_sendmsg, Datagrams, |pair| {
    let messages = Messages::to_send([b"hello"]);
    unsafe { sys::sendmsg(&pair.a, &messages.headers[0].msg_hdr, NONE) }
});
sends!(sendmmsg_waits, libc::SYS_sendmmsg, Datagrams, |pair| {
    let mut messages = Messages::to_send([b"hello"]);
    assert_eq!(unsafe { sys::sendmmsg(&pair.a, &mut messages.headers, NONE) }?, 1);
    Ok(messages.headers[0].msg_len as usize)
});

/// A listener, and who has connected to it.
struct Listener {
    listener: TcpListener,
    peer: Mutex<Option<TcpStream>>,
}

impl Listener {
    fn new() -> Listener {
        Listener { listener: TcpListener::bind("127.0.0.1:0").unwrap(), peer: Mutex::new(None) }
    }

    fn connect(&self) {
        *self.peer.lock().unwrap() = Some(TcpStream::connect(self.listener.local_addr().unwrap()).unwrap());
    }

    fn check(&self, new: OwnedFd) {
        assert!(unsafe { libc::fcntl(new.as_raw_fd(), libc::F_GETFD) } & libc::FD_CLOEXEC != 0);
        assert!(unsafe { libc::fcntl(new.as_raw_fd(), libc::F_GETFL) } & libc::O_NONBLOCK == 0);
        let (new, peer) = (TcpStream::from(new), self.peer.lock().unwrap().take().unwrap());
        assert_eq!(new.peer_addr().unwrap(), peer.local_addr().unwrap());
        self.listener.set_nonblocking(true).unwrap();
        assert!(self.listener.accept().is_err(), "one connection, taken once");
    }
}

waits!(accept4_waits, libc::SYS_accept4, Listener => OwnedFd,
    new: Listener::new,
    call: |listener| sys::accept4(&listener.listener, SockFlag::SOCK_CLOEXEC),
    ready: Listener::connect,
    check: Listener::check,
);

#[test]
fn accept4_gives_the_flags_that_were_asked_for() {
    let _t = common::begin();
    let listener = Listener::new();
    listener.connect();
    let new = sys::accept4(&listener.listener, SockFlag::SOCK_NONBLOCK).unwrap();
    assert!(unsafe { libc::fcntl(new.as_raw_fd(), libc::F_GETFD) } & libc::FD_CLOEXEC == 0);
    assert!(unsafe { libc::fcntl(new.as_raw_fd(), libc::F_GETFL) } & libc::O_NONBLOCK != 0);
}

/// Interrupts again and again, until the scope has ended.
fn storm(remote: Remote) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        while !remote.is_closed() {
            remote.interrupt();
            std::thread::yield_now();
        }
    })
}

/// The race for a connection: none is taken by a call that was interrupted, and none is lost.
#[test]
fn connections_and_interrupts_in_a_race_lose_neither() {
    let _t = common::begin();
    let listener = Listener::new();
    let (at, of_caller) = (listener.listener.local_addr().unwrap(), listener.listener.try_clone().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let caller = Caller::start(Some(numbers()[0]), move |scope| {
        let (mut accepted, mut interrupted) = (Vec::new(), 0);
        while accepted.len() < 2000 || interrupted < 200 {
            match sys::accept4(&of_caller, SockFlag::SOCK_CLOEXEC) {
                Ok(new) => {
                    accepted.push(TcpStream::from(new).peer_addr().unwrap());
                    count.fetch_add(1, Ordering::SeqCst);
                }
                Err(e) => interrupted += e.interrupted().map(|_| 1).expect("no other error"),
            }
            scope.unwrap().clear();
        }
        accepted
    });
    let storm = storm(caller.remote.clone().unwrap());
    let mut peers = Vec::new();
    while !caller.thread.is_finished() {
        if peers.len() < counted.load(Ordering::SeqCst) + 500 {
            let peer = TcpStream::connect(at).unwrap();
            peers.push(peer.local_addr().unwrap());
        }
        std::thread::yield_now();
    }
    let accepted = caller.join();
    storm.join().unwrap();
    let same = accepted.iter().zip(&peers).take_while(|(a, b)| a == b).count();
    assert_eq!(same, accepted.len(), "each once, in order");
}

/// The race for a datagram: it is received whole, or is there for the next call.
#[test]
fn datagrams_and_interrupts_in_a_race_lose_neither() {
    let _t = common::begin();
    for call in 0..4 {
        let pair = Arc::new(Datagrams::new());
        let of_caller = pair.clone();
        let caller = Caller::start(Some(numbers()[1]), move |scope| {
            let (mut received, mut interrupted) = (Vec::new(), 0);
            while received.len() < 1000 || interrupted < 300 {
                match receive(&of_caller.a, call) {
                    Ok(datagrams) => received.extend(datagrams),
                    Err(e) => interrupted += e.interrupted().map(|_| 1).expect("no other error"),
                }
                scope.unwrap().clear();
            }
            received
        });
        let (storm, mut sent) = (storm(caller.remote.clone().unwrap()), 0u32);
        while !caller.thread.is_finished() {
            sent += u32::from(pair.try_put(&sent.to_ne_bytes(), MsgFlags::MSG_DONTWAIT));
        }
        let mut received = caller.join();
        storm.join().unwrap();
        assert_eq!(unsafe { libc::fcntl(pair.a.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) }, 0);
        while let Ok(rest) = receive(&pair.a, call) {
            received.extend(rest);
        }
        assert!(received.iter().copied().eq(0..sent), "call {call}: each once, in order");
    }
}

/// Receives by one of four calls, one datagram or two.
fn receive(socket: &OwnedFd, call: u32) -> sys::Result<Vec<u32>> {
    let (mut one, mut two) = ([0; 4], [0; 4]);
    let bytes = match call {
        0 => sys::recv(socket, &mut one, NONE)?,
        1 => sys::readv(socket, &mut [IoSliceMut::new(&mut one)])?,
        2 => unsafe { sys::recvmsg(socket, &mut Messages::to_receive([&mut one]).headers[0].msg_hdr, NONE) }?,
        _ => {
            let mut messages = Messages::to_receive([&mut one, &mut two]);
            let n = unsafe { sys::recvmmsg(socket, &mut messages.headers, MsgFlags::MSG_WAITFORONE) }?;
            messages.headers[..n].iter().map(|header| header.msg_len as usize).sum()
        }
    };
    assert!(bytes == 4 || bytes == 8, "whole");
    Ok([one, two].into_iter().take(bytes / 4).map(u32::from_ne_bytes).collect())
}

/// What went to a stream before the signal is told; the interrupt that came with it waits for the next call.
#[test]
fn a_partial_send_is_returned_and_the_interrupt_stays() {
    let _t = common::begin();
    for call in 0..3 {
        let pair = Arc::new(Stream::new());
        let of_caller = pair.clone();
        let bytes: Vec<u8> = (0..4 << 20).map(|n| (n / 3) as u8).collect();
        let sent = bytes.clone();
        let caller = Caller::start(Some(numbers()[0]), move |scope| {
            let n = match call {
                0 => sys::send(&of_caller.a, &sent, NONE),
                1 => sys::write(&of_caller.a, &sent),
                _ => sys::writev(&of_caller.a, &[IoSlice::new(&sent)]),
            };
            assert!(scope.unwrap().interrupted().is_some(), "the interrupt stays");
            assert_remote(sys::send(&of_caller.a, b"more", NONE));
            assert!(scope.unwrap().clear().is_some());
            n.expect("some went")
        });
        wait_blocked_in(caller.tid, [libc::SYS_sendto, libc::SYS_write, libc::SYS_writev][call]);
        caller.interrupt();
        let n = caller.join();
        assert!(n > 0 && n < bytes.len());
        pair.assert_holds(&bytes[..n]);
    }
}

/// A signal that comes after the first message of several: recvmmsg(2) answers with what there is, and the kernel makes the signal an error of the
/// socket. The calls here do not show it.
#[test]
fn an_error_that_recvmmsg_left_is_not_told() {
    let _t = common::begin();
    for by_interrupt in [false, true] {
        for with_time in [false, true] {
            let (pair, foreign) = (Arc::new(Datagrams::new()), Foreign::install());
            if with_time {
                pair.set_times(std::time::Duration::from_secs(100));
            }
            let of_caller = pair.clone();
            let caller = Caller::start(Some(numbers()[0]), move |scope| {
                let (mut one, mut two, mut three) = ([0; 4], [0; 4], [0; 4]);
                let mut messages = Messages::to_receive([&mut one, &mut two]);
                let n = unsafe { sys::recvmmsg(&of_caller.a, &mut messages.headers, NONE) };
                scope.unwrap().clear();
                (n.unwrap(), sys::recv(&of_caller.a, &mut three, NONE).map(|n| three[..n].to_vec()))
            });
            wait_blocked_in(caller.tid, libc::SYS_recvmmsg);
            pair.put(b"one");
            common::wait_until(|| pair.is_empty());
            wait_blocked_in(caller.tid, libc::SYS_recvmmsg);
            if by_interrupt {
                caller.interrupt();
            } else {
                foreign.strike_once(caller.tid);
            }
            common::wait_until(|| [libc::SYS_recvfrom, libc::SYS_ppoll].contains(&common::blocked_in(caller.tid)));
            pair.put(b"two");
            let (n, next) = caller.join();
            assert_eq!((n, &*next.unwrap()), (1, &b"two"[..]));
        }
    }
}

/// An address of the kind that was asked for, however long the kernel says that it is.
#[test]
fn the_address_of_a_datagram_is_told() {
    let _t = common::begin();
    let (a, b) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let mut buf = [0; 8];
    let to = SockaddrIn::from(match a.local_addr().unwrap() {
        std::net::SocketAddr::V4(at) => at,
        _ => unreachable!(),
    });
    for _ in 0..3 {
        assert_eq!(sys::sendto(&b, b"hello", &to, NONE).unwrap(), 5);
    }
    let (n, from) = sys::recvfrom::<_, SockaddrIn>(&a, &mut buf, NONE).unwrap();
    assert_eq!((n, from.unwrap().port()), (5, b.local_addr().unwrap().port()));
    let (n, from) = sys::recvfrom::<_, SockaddrStorage>(&a, &mut buf, NONE).unwrap();
    assert_eq!((n, from.unwrap().as_sockaddr_in().unwrap().port()), (5, b.local_addr().unwrap().port()));
    let (n, from) = sys::recvfrom::<_, UnixAddr>(&a, &mut buf, NONE).unwrap();
    assert_eq!((n, from), (5, None), "of another kind");

    let pair = Datagrams::new();
    pair.put(b"x");
    let (_, from) = sys::recvfrom::<_, SockaddrIn>(&pair.a, &mut buf, NONE).unwrap();
    assert_eq!(from, None);
    let stream = Stream::new();
    stream.put(b"x");
    assert_eq!(sys::recvfrom::<_, SockaddrStorage>(&stream.a, &mut buf, NONE).unwrap(), (1, None));
}

/// unix(7): of a path that fills all of its 108 bytes the kernel answers a length of one more than the structure has.
#[test]
fn the_longest_path_of_a_socket_is_told() {
    let _t = common::begin();
    let (from, to) = (sockets::bound_to_the_longest_path(), sockets::datagram());
    let name = sockets::unique_name();
    nix::sys::socket::bind(to.as_raw_fd(), &UnixAddr::new_abstract(&name).unwrap()).unwrap();
    assert_eq!(sys::sendto(&from.fd, b"x", &UnixAddr::new_abstract(&name).unwrap(), NONE).unwrap(), 1);
    let (n, address) = sys::recvfrom::<_, UnixAddr>(&to, &mut [0; 4], NONE).unwrap();
    let address = address.unwrap();
    let path = unsafe { (*address.as_ptr()).sun_path }.map(|c| c as u8);
    assert_eq!((n, &path[..]), (1, &from.path[..]));
}

/// The kernel's own errors come through, and what was live goes on living.
#[test]
fn the_kernels_errors_come_through() {
    let _t = common::begin();
    let scope = Scope::enter(numbers()[0]).unwrap();
    let nobody = unsafe { BorrowedFd::borrow_raw(1_000_000) };
    let name = UnixAddr::new_abstract(b"nobody is here").unwrap();
    let (pipe, mut buf) = (common::pipe().0, [0; 4]);
    unsafe { *libc::__errno_location() = 77 };
    for (fd, errno) in [(nobody, Errno::EBADF), (std::os::fd::AsFd::as_fd(&pipe), Errno::ENOTSOCK)] {
        assert_errno(sys::recv(fd, &mut buf, NONE), errno);
        assert_errno(sys::recvfrom::<_, UnixAddr>(fd, &mut buf, NONE), errno);
        assert_errno(sys::send(fd, &buf, NONE), errno);
        assert_errno(sys::sendto(fd, &buf, &name, NONE), errno);
        assert_errno(sys::accept4(fd, SockFlag::empty()), errno);
        assert_errno(sys::connect(fd, &name), errno);
        let mut messages = Messages::to_receive([&mut buf]);
        assert_errno(unsafe { sys::recvmsg(fd, &mut messages.headers[0].msg_hdr, NONE) }, errno);
        assert_errno(unsafe { sys::recvmmsg(fd, &mut messages.headers, NONE) }, errno);
        assert_errno(unsafe { sys::sendmsg(fd, &messages.headers[0].msg_hdr, NONE) }, errno);
        assert_errno(unsafe { sys::sendmmsg(fd, &mut messages.headers, NONE) }, errno);
    }
    let pair = Datagrams::new();
    assert_errno(sys::recv(&pair.a, &mut buf, MsgFlags::MSG_DONTWAIT), Errno::EAGAIN);
    assert_errno(sys::sendto(&pair.unconnected, b"x", &name, NONE), Errno::ECONNREFUSED);
    assert_errno(sys::accept4(&pair.a, SockFlag::empty()), Errno::EOPNOTSUPP);
    pair.put(b"hello");
    let mut nowhere = Messages::to_receive([&mut buf]);
    nowhere.buffers[0].iov_base = 8 as *mut libc::c_void;
    assert_errno(unsafe { sys::recvmsg(&pair.a, &mut nowhere.headers[0].msg_hdr, NONE) }, Errno::EFAULT);
    assert_errno(unsafe { sys::sendmsg(&pair.a, &nowhere.headers[0].msg_hdr, NONE) }, Errno::EFAULT);
    assert_eq!(unsafe { *libc::__errno_location() }, 77, "errno is not written");
    scope.remote().interrupt();
    assert_remote(sys::recv(&pair.a, &mut buf, NONE));
    assert!(scope.clear().is_some());
}
