//! Connecting: other people's signals change nothing, an interrupt ends it, and "connected" is said of nothing but a connected socket.
// Sockets are made by raw system calls where std cannot, as applications do.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/notices.rs"]
mod notices;
#[path = "common/sockets.rs"]
mod sockets;
#[path = "common/waiting.rs"]
mod waiting;
#[macro_use]
#[path = "common/waits.rs"]
mod waits;

use common::{wait_blocked_in, wait_until};
use eintr::{Scope, sys};
use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, SockaddrLike, SockaddrStorage, UnixAddr,
};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};
use waiting::{Caller, Foreign, assert_errno, assert_remote, numbers};

/// A listener that has all the connections that it has room for, and a socket that is to be connected.
struct Full<A> {
    listener: OwnedFd,
    at: A,
    socket: OwnedFd,
    /// Accepted ones, kept open.
    accepted: Mutex<Vec<OwnedFd>>,
    _fillers: Vec<OwnedFd>,
}

fn stream(family: AddressFamily) -> OwnedFd {
    socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap()
}

impl Full<UnixAddr> {
    fn unix() -> Full<UnixAddr> {
        let at = UnixAddr::new_abstract(&sockets::unique_name()).unwrap();
        Full::of(AddressFamily::Unix, at)
    }
}

impl Full<SockaddrIn> {
    fn tcp() -> Full<SockaddrIn> {
        Full::of(AddressFamily::Inet, SockaddrIn::new(127, 0, 0, 1, 0))
    }
}

impl<A: SockaddrLike> Full<A> {
    fn of(family: AddressFamily, at: A) -> Full<A> {
        let listener = stream(family);
        socket::bind(listener.as_raw_fd(), &at).unwrap();
        socket::listen(&listener, Backlog::new(0).unwrap()).unwrap();
        let at: A = socket::getsockname(listener.as_raw_fd()).unwrap();
        let filler = stream(family);
        socket::connect(filler.as_raw_fd(), &at).unwrap(); // a backlog of 0 has room for one
        let accepted = Mutex::new(Vec::new());
        Full { listener, at, socket: stream(family), accepted, _fillers: vec![filler] }
    }

    /// There is room for one more.
    fn accept(&self) {
        self.accepted.lock().unwrap().push(socket::accept4(&self.listener, SockFlag::SOCK_CLOEXEC).unwrap());
    }

    fn connect(&self) -> sys::Result<()> {
        sys::connect(&self.socket, &self.at)
    }

    fn is_connected(&self) -> bool {
        is_connected(&self.socket)
    }

    /// The socket is connected to the listener, and to nothing else.
    fn check(&self) {
        assert!(self.is_connected());
        self.accept();
        assert_errno(self.connect(), Errno::EISCONN);
        let (ours, theirs) = (&self.socket, self.accepted.lock().unwrap().pop().unwrap());
        assert_eq!(sys::write(&theirs, b"x").unwrap(), 1);
        assert_eq!(sys::read(ours, &mut [0; 8]).unwrap(), 1);
    }
}

fn is_connected(socket: &OwnedFd) -> bool {
    socket::getpeername::<SockaddrStorage>(socket.as_raw_fd()).is_ok()
}

waits!(connecting_a_local_socket_waits, libc::SYS_connect, Full<UnixAddr> => (),
    new: Full::unix,
    call: Full::connect,
    ready: Full::accept,
    check: |full, ()| full.check(),
);

// A second each: the kernel tries again that much later.
waits!(connecting_over_tcp_waits, libc::SYS_connect, Full<SockaddrIn> => (),
    new: Full::tcp,
    call: Full::connect,
    ready: Full::accept,
    check: |full, ()| full.check(),
);

/// A call that was never made has connected nothing, whatever the socket looks like to poll and SO_ERROR.
#[test]
fn a_call_that_was_interrupted_before_has_not_connected() {
    let _t = common::begin();
    let unix = Full::unix();
    let tcp = Full::tcp();
    unix.accept();
    tcp.accept();
    let scope = Scope::enter(numbers()[0]).unwrap();
    scope.remote().interrupt();
    assert_remote(unix.connect());
    assert_remote(tcp.connect());
    assert!(!unix.is_connected() && !tcp.is_connected());
    assert!(scope.clear().is_some());
    unix.connect().unwrap();
    tcp.connect().unwrap();
    unix.check();
    tcp.check();
}

/// The race: each call that was told "connected" is, and the listener has seen that many; the others are not.
#[test]
fn connections_and_interrupts_in_a_race_agree() {
    let _t = common::begin();
    let full = Arc::new(Full::unix());
    let of_caller = full.clone();
    let caller = Caller::start(Some(numbers()[0]), move |scope| {
        let (mut connected, mut interrupted) = (0, 0);
        while connected < 1000 || interrupted < 1000 {
            let socket = stream(AddressFamily::Unix);
            let answer = sys::connect(&socket, &of_caller.at);
            assert_eq!(is_connected(&socket), answer.is_ok(), "{answer:?}");
            match answer {
                Ok(()) => connected += 1,
                Err(e) => interrupted += e.interrupted().map(|_| 1).expect("no other error"),
            }
            scope.unwrap().clear();
        }
        connected
    });
    full.accept(); // the one that filled it
    let (remote, mut accepted) = (caller.remote.clone().unwrap(), 0);
    let storm = std::thread::spawn(move || {
        while !remote.is_closed() {
            remote.interrupt();
        }
    });
    while !caller.thread.is_finished() || has_connection(&full.listener) {
        if has_connection(&full.listener) {
            full.accept();
            full.accepted.lock().unwrap().clear();
            accepted += 1;
        }
    }
    storm.join().unwrap();
    assert_eq!(caller.join(), accepted);
}

fn has_connection(listener: &OwnedFd) -> bool {
    let mut ready = libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    unsafe { libc::poll(&mut ready, 1, 0) == 1 }
}

/// An attempt that fails after signals of other people's: what it failed with.
#[test]
fn a_refusal_after_signals_is_told() {
    let _t = common::begin();
    let foreign = Foreign::install();
    let unix = Full::unix();
    let Full { listener, at, socket, .. } = unix;
    let caller = Caller::start(Some(numbers()[0]), move |_| sys::connect(&socket, &at));
    wait_blocked_in(caller.tid, libc::SYS_connect);
    foreign.strike(caller.tid, libc::SYS_connect);
    drop(listener);
    assert_errno(caller.join(), Errno::ECONNREFUSED);

    let tcp = Full::tcp();
    let Full { listener, at, socket, .. } = tcp;
    let caller = Caller::start(Some(numbers()[0]), move |_| sys::connect(&socket, &at));
    wait_blocked_in(caller.tid, libc::SYS_connect);
    foreign.strike(caller.tid, libc::SYS_connect);
    drop(listener);
    assert_errno(caller.join(), Errno::ECONNREFUSED);
}

/// SO_SNDTIMEO is the time-out of connect(2), with an answer of its own; in a storm it ends as without, and not before its time.
#[test]
fn the_time_is_up_in_a_storm_as_without() {
    fn answers<A: SockaddrLike + Send + Sync + 'static>(full: fn() -> Full<A>, errno: Errno) {
        let time = Duration::from_millis(60);
        for in_a_storm in [false, true] {
            let (full, foreign) = (full(), Foreign::install());
            sockets::set_time(&full.socket, libc::SO_SNDTIMEO, time);
            let caller = Caller::start(Some(numbers()[0]), move |_| {
                unsafe { *libc::__errno_location() = 77 };
                let (began, answer) = (Instant::now(), full.connect());
                let took = began.elapsed();
                assert_eq!(unsafe { *libc::__errno_location() }, 77, "errno is not written");
                assert!(!full.is_connected());
                (answer, took)
            });
            while in_a_storm && !caller.thread.is_finished() && foreign.pester(caller.tid) {
                std::thread::sleep(Duration::from_millis(1)); // a pace, nothing is waited for
            }
            let (answer, took) = caller.join();
            assert_errno(answer, errno);
            assert!(took >= time, "after {took:?}");
        }
    }
    let _t = common::begin();
    answers(Full::unix, Errno::EAGAIN);
    answers(Full::tcp, Errno::EINPROGRESS);
}

/// With time left, signals of other people's do no harm, and an interrupt ends it wherever it waits.
#[test]
fn in_time_it_connects_or_is_interrupted() {
    fn both<A: SockaddrLike + Send + Sync + 'static>(full: fn() -> Full<A>) {
        for interrupted in [false, true] {
            let (full, foreign) = (Arc::new(full()), Foreign::install());
            sockets::set_time(&full.socket, libc::SO_SNDTIMEO, Duration::from_secs(1000));
            let of_caller = full.clone();
            let caller = Caller::start(Some(numbers()[0]), move |_| of_caller.connect());
            wait_blocked_in(caller.tid, libc::SYS_connect);
            for _ in 0..3 {
                foreign.strike_once(caller.tid);
                wait_until(|| [libc::SYS_connect, libc::SYS_ppoll].contains(&common::blocked_in(caller.tid)));
            }
            if interrupted {
                caller.interrupt();
                assert_remote(caller.join());
                assert!(!full.is_connected());
            } else {
                full.accept();
                caller.join().unwrap();
                full.check();
            }
        }
    }
    let _t = common::begin();
    both(Full::unix);
    both(Full::tcp);
}

/// What does not wait says so, and what is connected too.
#[test]
fn the_kernels_answers_come_through() {
    let _t = common::begin();
    let (unix, tcp) = (Full::unix(), Full::tcp());
    for socket in [&unix.socket, &tcp.socket] {
        assert_eq!(unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) }, 0);
    }
    assert_errno(unix.connect(), Errno::EAGAIN);
    assert_errno(tcp.connect(), Errno::EINPROGRESS);
    assert_errno(tcp.connect(), Errno::EALREADY);
    let nobody = UnixAddr::new_abstract(b"nobody is here").unwrap();
    assert_errno(sys::connect(&unix.socket, &nobody), Errno::ECONNREFUSED);
    assert_errno(sys::connect(&unix.socket, &tcp.at), Errno::EINVAL);
    unix.accept();
    unix.connect().unwrap();
    unix.accept();
    assert_errno(unix.connect(), Errno::EISCONN);
}

/// What the kernel answers to the second call of a protocol that does not wait there (SCTP), and what it means then. No signal: a filter answers.
#[test]
fn a_second_call_that_does_not_wait_is_followed_to_the_end() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum State {
        Never,
        Connecting,
        Refused,
    }
    let _t = common::begin();
    let cases = [
        (State::Connecting, Errno::EISCONN, None), // the first call got there
        (State::Connecting, Errno::EALREADY, None),
        (State::Refused, Errno::EALREADY, Some(Errno::ECONNREFUSED)),
        (State::Never, Errno::EALREADY, Some(Errno::ECONNABORTED)), // nothing is under way: never "connected"
        (State::Never, Errno::ENETUNREACH, Some(Errno::ENETUNREACH)),
    ];
    for (state, second, expected) in cases {
        let Full { listener, at, socket, accepted, _fillers } = Full::tcp();
        if state != State::Never {
            let flags =
                |flags: libc::c_int| assert_eq!(unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_SETFL, flags) }, 0);
            flags(libc::O_NONBLOCK);
            assert_errno(sys::connect(&socket, &at), Errno::EINPROGRESS);
            flags(0);
        }
        let (tell, told) = mpsc::channel();
        let caller = Caller::start(Some(numbers()[0]), move |_| {
            let listener = notices::listen_to(libc::SYS_connect);
            tell.send(listener).unwrap();
            if listener.is_ok() { Some(sys::connect(&socket, &at)) } else { None }
        });
        let notices = match told.recv().unwrap() {
            Ok(fd) => unsafe { OwnedFd::from_raw_fd(fd) },
            Err(errno) => {
                println!("SKIPPED: answers to connect that are seldom: no seccomp listener, errno {errno}");
                return;
            }
        };
        notices::fail_next(&notices, libc::EINTR);
        notices::fail_next(&notices, second as i32);
        let full = (state != State::Refused).then_some(listener);
        let new = full.as_ref().map(|full| socket::accept4(full, SockFlag::SOCK_CLOEXEC).unwrap());
        match (caller.join().unwrap(), expected) {
            (Ok(()), None) => {}
            (answer, Some(errno)) => assert_errno(answer, errno),
            (answer, None) => panic!("{state:?}, {second}: {answer:?}"),
        }
        drop((new, accepted));
    }
}
