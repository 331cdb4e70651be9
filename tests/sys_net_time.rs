//! The time-outs of a socket: under other people's signals a call ends when its time is up, not before, and not later for ever; what comes in time is
//! received, and an interrupt ends it.
// Signals are sent and options set by raw system calls, as applications do.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/sockets.rs"]
mod sockets;
#[path = "common/waiting.rs"]
mod waiting;

use common::{wait_blocked_in, wait_until};
use eintr::sys;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockFlag, UnixAddr};
use sockets::{Datagrams, Messages, Stream, set_time};
use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use waiting::{Caller, Foreign, assert_errno, assert_remote, numbers};

const NONE: MsgFlags = MsgFlags::empty();
const LONG: Duration = Duration::from_secs(1000);

/// What calls are made on: a stream and datagrams that have nothing to receive and no room to send, and a listener without connections.
struct Sockets {
    stream: Stream,
    datagrams: Datagrams,
    listener: TcpListener,
    file: File,
}

impl Sockets {
    fn new(time: Duration) -> Arc<Sockets> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let file = File::open(std::env::current_exe().unwrap()).unwrap();
        let sockets = Sockets { stream: Stream::full(), datagrams: Datagrams::full(), listener, file };
        sockets.stream.set_times(time);
        sockets.datagrams.set_times(time);
        set_time(&sockets.datagrams.unconnected, libc::SO_SNDTIMEO, time);
        set_time(&sockets.listener, libc::SO_RCVTIMEO, time);
        Arc::new(sockets)
    }

    /// Makes every call work.
    fn ready(&self) {
        self.stream.put(b"hello");
        self.stream.drain();
        self.datagrams.put(b"hello");
        self.datagrams.drain();
        // Not accepted by anybody but the call, if it accepts.
        drop(std::net::TcpStream::connect(self.listener.local_addr().unwrap()).unwrap());
    }
}

struct Call {
    name: &'static str,
    /// What it sleeps in before a signal has come.
    number: libc::c_long,
    make: fn(&Sockets) -> sys::Result<usize>,
    worked: usize,
}

const CALLS: &[Call] = &[
    Call { name: "recv", number: libc::SYS_recvfrom, make: |s| sys::recv(&s.stream.a, &mut [0; 8], NONE), worked: 5 },
    Call {
        name: "recv of a datagram",
        number: libc::SYS_recvfrom,
        make: |s| sys::recv(&s.datagrams.a, &mut [0; 8], NONE),
        worked: 5,
    },
    Call {
        name: "recvfrom",
        number: libc::SYS_recvfrom,
        make: |s| {
            let (n, from) = sys::recvfrom::<_, UnixAddr>(&s.datagrams.a, &mut [0; 8], NONE)?;
            assert_eq!(from, Some(s.datagrams.name_of_b));
            Ok(n)
        },
        worked: 5,
    },
    Call { name: "read", number: libc::SYS_read, make: |s| sys::read(&s.stream.a, &mut [0; 8]), worked: 5 },
    Call {
        name: "readv",
        number: libc::SYS_readv,
        make: |s| {
            let (mut one, mut two) = ([0; 2], [0; 8]);
            let n = sys::readv(&s.stream.a, &mut [IoSliceMut::new(&mut one), IoSliceMut::new(&mut two)])?;
            assert_eq!((&one, &two[..3]), (b"he", &b"llo"[..]));
            Ok(n)
        },
        worked: 5,
    },
    Call {
        name: "recvmsg",
        number: libc::SYS_recvmsg,
        make: |s| unsafe {
            sys::recvmsg(&s.stream.a, &mut Messages::to_receive([&mut [0; 8][..]]).headers[0].msg_hdr, NONE)
        },
        worked: 5,
    },
    Call {
        name: "recvmmsg",
        number: libc::SYS_recvmmsg,
        make: |s| unsafe {
            sys::recvmmsg(
                &s.datagrams.a,
                &mut Messages::to_receive([&mut [0; 8][..]]).headers,
                MsgFlags::MSG_WAITFORONE,
            )
        },
        worked: 1,
    },
    Call { name: "send", number: libc::SYS_sendto, make: |s| sys::send(&s.stream.a, b"hello", NONE), worked: 5 },
    Call {
        name: "send of a datagram",
        number: libc::SYS_sendto,
        make: |s| sys::send(&s.datagrams.a, b"hello", NONE),
        worked: 5,
    },
    // Poll does not know that this one's receiver has no room.
    Call {
        name: "sendto",
        number: libc::SYS_sendto,
        make: |s| sys::sendto(&s.datagrams.unconnected, b"hello", &s.datagrams.name_of_b, NONE),
        worked: 5,
    },
    Call { name: "write", number: libc::SYS_write, make: |s| sys::write(&s.stream.a, b"hello"), worked: 5 },
    Call {
        name: "writev",
        number: libc::SYS_writev,
        make: |s| sys::writev(&s.stream.a, &[IoSlice::new(b"he"), IoSlice::new(b"llo")]),
        worked: 5,
    },
    Call {
        name: "sendmsg",
        number: libc::SYS_sendmsg,
        make: |s| unsafe { sys::sendmsg(&s.datagrams.a, &Messages::to_send([b"hello"]).headers[0].msg_hdr, NONE) },
        worked: 5,
    },
    Call {
        name: "sendmmsg",
        number: libc::SYS_sendmmsg,
        make: |s| unsafe { sys::sendmmsg(&s.datagrams.a, &mut Messages::to_send([b"hello"]).headers, NONE) },
        worked: 1,
    },
    Call {
        name: "sendfile",
        number: libc::SYS_sendfile,
        make: |s| sys::sendfile(&s.stream.a, &s.file, Some(&mut 0), 5),
        worked: 5,
    },
    Call {
        name: "accept4",
        number: libc::SYS_accept4,
        make: |s| sys::accept4(&s.listener, SockFlag::SOCK_CLOEXEC).map(|_| 0),
        worked: 0,
    },
];

/// Where a call sleeps after a signal: in the wait for the socket, or again in itself.
fn sleeps_again(tid: libc::pid_t, call: &Call) -> bool {
    let at = common::blocked_in(tid);
    at == libc::SYS_ppoll || at == call.number
}

/// The kernel starts the time afresh whenever a call is made again; the storm has a signal ready long before it is up, so a call that left it at that
/// would go on for ever. It must end, with the kernel's answer, and not before its time.
#[test]
fn the_time_is_up_in_a_storm_as_without() {
    let _t = common::begin_with(Duration::from_secs(120));
    let time = Duration::from_millis(60);
    for call in CALLS {
        for sig in [None, Some(numbers()[0])] {
            let (sockets, foreign) = (Sockets::new(time), Foreign::install());
            let caller = Caller::start(sig, move |_| {
                unsafe { *libc::__errno_location() = 77 };
                let began = Instant::now();
                let answer = (call.make)(&sockets);
                let took = began.elapsed();
                assert_eq!(unsafe { *libc::__errno_location() }, 77, "{}: errno is not written", call.name);
                (answer, took)
            });
            while !caller.thread.is_finished() && foreign.pester(caller.tid) {
                std::thread::sleep(Duration::from_millis(1)); // a pace, nothing is waited for
            }
            let (answer, took) = caller.join();
            assert_eq!(answer.unwrap_err().errno(), Some(Errno::EAGAIN), "{}", call.name);
            // These are made on anything, so they note the time by a clock that is only cheap.
            let exact = !["read", "readv", "write", "writev"].contains(&call.name);
            assert!(took >= if exact { time } else { time / 2 }, "{}: after {took:?}", call.name);
        }
    }
}

#[test]
fn the_time_is_up_without_signals() {
    let _t = common::begin();
    for call in CALLS {
        let time = Duration::from_millis(8);
        let sockets = Sockets::new(time);
        let began = Instant::now();
        assert_errno((call.make)(&sockets), Errno::EAGAIN);
        assert!(began.elapsed() >= time, "{}", call.name);
    }
}

/// After signals of other people's: what comes is received, there is room to send, once; the socket is left as it was.
#[test]
fn what_comes_after_signals_is_not_missed() {
    let _t = common::begin();
    for call in CALLS {
        for signals in 1..3 {
            let (sockets, foreign) = (Sockets::new(LONG), Foreign::install());
            let of_caller = sockets.clone();
            let caller = Caller::start(Some(numbers()[0]), move |_| (call.make)(&of_caller));
            wait_blocked_in(caller.tid, call.number);
            for _ in 0..signals {
                foreign.strike_once(caller.tid);
                wait_until(|| sleeps_again(caller.tid, call));
            }
            sockets.ready();
            assert_eq!(caller.join().unwrap(), call.worked, "{}", call.name);
            assert_eq!(sockets.stream.a.read_timeout().unwrap(), Some(LONG));
            for fd in [sockets.stream.a.as_raw_fd(), sockets.datagrams.a.as_raw_fd(), sockets.listener.as_raw_fd()] {
                assert_eq!(unsafe { libc::fcntl(fd, libc::F_GETFL) } & libc::O_NONBLOCK, 0);
            }
        }
    }
}

/// An interrupt ends the wait for the socket as it ends the call; nothing is taken.
#[test]
fn an_interrupt_after_signals_ends_it() {
    let _t = common::begin();
    for (call, sig) in CALLS.iter().flat_map(|call| numbers().map(|sig| (call, sig))) {
        let (sockets, foreign) = (Sockets::new(LONG), Foreign::install());
        let of_caller = sockets.clone();
        let caller = Caller::start(Some(sig), move |scope| {
            assert_remote((call.make)(&of_caller));
            assert!(scope.unwrap().clear().is_some());
            of_caller.ready();
            assert_eq!((call.make)(&of_caller).unwrap(), call.worked, "{}", call.name);
        });
        wait_blocked_in(caller.tid, call.number);
        foreign.strike_once(caller.tid);
        wait_until(|| sleeps_again(caller.tid, call));
        caller.interrupt();
        caller.join();
    }
}

/// A record of a sequence ends where the call ends, also where it was made again.
#[test]
fn records_stay_whole_after_signals() {
    use nix::sys::socket::{AddressFamily, SockType, socketpair};
    let _t = common::begin();
    let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
    set_time(&a, libc::SO_SNDTIMEO, LONG);
    let (b, mut filled) = (Arc::new(b), 0);
    while nix::sys::socket::send(a.as_raw_fd(), b"-", MsgFlags::MSG_DONTWAIT).is_ok() {
        filled += 1;
    }
    let foreign = Foreign::install();
    let caller = Caller::start(Some(numbers()[0]), move |_| {
        sys::writev(&a, &[IoSlice::new(b"he"), IoSlice::new(b"llo")]).unwrap();
        sys::write(&a, b"world").unwrap()
    });
    wait_blocked_in(caller.tid, libc::SYS_writev);
    foreign.strike_once(caller.tid);
    wait_blocked_in(caller.tid, libc::SYS_ppoll);
    let mut buf = [0; 16];
    for expected in std::iter::repeat_n(&b"-"[..], filled).chain([&b"hello"[..], b"world"]) {
        let n = sys::read(&b, &mut buf).unwrap();
        assert_eq!(&buf[..n], expected);
    }
    caller.join();
}

/// What does not wait has no time to be up: other people's signals, and options, change nothing.
#[test]
fn what_does_not_wait_answers_at_once() {
    let _t = common::begin();
    let sockets = Sockets::new(LONG);
    let dontwait = MsgFlags::MSG_DONTWAIT;
    assert_errno(sys::recv(&sockets.stream.a, &mut [0; 8], dontwait), Errno::EAGAIN);
    assert_errno(sys::send(&sockets.stream.a, b"x", dontwait), Errno::EAGAIN);
    sockets.stream.a.set_nonblocking(true).unwrap();
    assert_errno(sys::read(&sockets.stream.a, &mut [0; 8]), Errno::EAGAIN);
    assert_errno(sys::write(&sockets.stream.a, b"x"), Errno::EAGAIN);
    sockets.listener.set_nonblocking(true).unwrap();
    assert_errno(sys::accept4(&sockets.listener, SockFlag::empty()), Errno::EAGAIN);
}
