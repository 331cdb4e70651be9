//! Pairs of sockets with something at the other end, and messages.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block
)]

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A name for an abstract socket that nobody else has.
pub fn unique_name() -> Vec<u8> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("eintr-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst)).into_bytes()
}

/// A connected pair of streams; `a` is the one that is looked at.
#[derive(Debug)]
pub struct Stream {
    pub a: UnixStream,
    pub b: UnixStream,
    /// How many bytes were sent to `b` to fill it.
    filled: usize,
}

impl Stream {
    pub fn new() -> Stream {
        let (a, b) = UnixStream::pair().unwrap();
        Stream { a, b, filled: 0 }
    }

    /// `a` has no more room.
    pub fn full() -> Stream {
        let mut pair = Stream::new();
        pair.a.set_nonblocking(true).unwrap();
        for size in [1 << 16, 1] {
            while let Ok(n) = (&pair.a).write(&vec![b'-'; size]) {
                pair.filled += n;
            }
        }
        pair.a.set_nonblocking(false).unwrap();
        pair
    }

    pub fn put(&self, bytes: &[u8]) {
        (&self.b).write_all(bytes).unwrap();
    }

    /// Takes what it was filled with, and nothing else.
    pub fn drain(&self) {
        (&self.b).read_exact(&mut vec![0; self.filled]).unwrap();
    }

    /// Exactly that has been sent to `b`.
    pub fn assert_holds(&self, bytes: &[u8]) {
        let mut all = Vec::new();
        self.b.set_nonblocking(true).unwrap();
        assert_eq!((&self.b).read_to_end(&mut all).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        self.b.set_nonblocking(false).unwrap();
        assert!(all == bytes, "{} bytes instead of {}", all.len(), bytes.len());
    }

    pub fn assert_empty(&self) {
        self.a.set_nonblocking(true).unwrap();
        assert!((&self.a).read(&mut [0]).is_err(), "something is left");
        self.a.set_nonblocking(false).unwrap();
    }

    pub fn set_times(&self, time: Duration) {
        self.a.set_read_timeout(Some(time)).unwrap();
        self.a.set_write_timeout(Some(time)).unwrap();
    }
}

pub fn datagram() -> OwnedFd {
    socket::socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).unwrap()
}

fn named() -> (OwnedFd, UnixAddr) {
    let (fd, name) = (datagram(), UnixAddr::new_abstract(&unique_name()).unwrap());
    socket::bind(fd.as_raw_fd(), &name).unwrap();
    (fd, name)
}

/// Two datagram sockets, `a` connected to `b`; and one more. A socket's queue holds a few datagrams only.
#[derive(Debug)]
pub struct Datagrams {
    pub a: OwnedFd,
    pub b: OwnedFd,
    pub unconnected: OwnedFd,
    pub name_of_a: UnixAddr,
    pub name_of_b: UnixAddr,
    /// How many datagrams were sent to `b` to fill its queue.
    filled: usize,
}

impl Datagrams {
    pub fn new() -> Datagrams {
        let [(a, name_of_a), (b, name_of_b)] = [named(), named()];
        socket::connect(a.as_raw_fd(), &name_of_b).unwrap();
        Datagrams { a, b, unconnected: datagram(), name_of_a, name_of_b, filled: 0 }
    }

    /// `b`'s queue is full.
    pub fn full() -> Datagrams {
        let mut pair = Datagrams::new();
        while socket::send(pair.a.as_raw_fd(), b"-", socket::MsgFlags::MSG_DONTWAIT).is_ok() {
            pair.filled += 1;
        }
        pair
    }

    pub fn put(&self, bytes: &[u8]) {
        assert!(self.try_put(bytes, socket::MsgFlags::empty()));
    }

    /// `false` if there is no room.
    pub fn try_put(&self, bytes: &[u8], flags: socket::MsgFlags) -> bool {
        match socket::sendto(self.b.as_raw_fd(), bytes, &self.name_of_a, flags) {
            Err(nix::errno::Errno::EAGAIN) => false,
            sent => sent == Ok(bytes.len()) || panic!("{sent:?}"),
        }
    }

    fn take(&self) -> Option<Vec<u8>> {
        let mut buf = [0; 64];
        let n = socket::recv(self.b.as_raw_fd(), &mut buf, socket::MsgFlags::MSG_DONTWAIT).ok()?;
        Some(buf[..n].to_vec())
    }

    /// Takes what it was filled with, and nothing else.
    pub fn drain(&self) {
        (0..self.filled).for_each(|_| assert_eq!(self.take().as_deref(), Some(&b"-"[..])));
    }

    pub fn assert_holds(&self, bytes: &[u8]) {
        assert_eq!(self.take().as_deref(), Some(bytes));
        assert_eq!(self.take(), None, "one datagram, once");
    }

    /// Whether nothing waits to be received by `a`.
    pub fn is_empty(&self) -> bool {
        let mut count: libc::c_int = 0;
        assert_eq!(unsafe { libc::ioctl(self.a.as_raw_fd(), libc::FIONREAD, &mut count) }, 0);
        count == 0
    }

    pub fn assert_empty(&self) {
        assert!(self.is_empty(), "something is left");
    }

    pub fn set_times(&self, time: Duration) {
        for name in [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO] {
            set_time(&self.a, name, time);
        }
    }
}

pub fn set_time(socket: &impl AsRawFd, name: libc::c_int, time: Duration) {
    let time = libc::timeval { tv_sec: time.as_secs() as _, tv_usec: time.subsec_micros() as _ };
    let size = size_of::<libc::timeval>() as libc::socklen_t;
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, name, (&raw const time).cast(), size) };
    assert_eq!(set, 0);
}

/// A socket whose path fills all 108 bytes, without a NUL.
#[derive(Debug)]
pub struct Longest {
    pub fd: OwnedFd,
    pub path: [u8; 108],
}

pub fn bound_to_the_longest_path() -> Longest {
    let fd = datagram();
    let dir = std::env::temp_dir().into_os_string().into_encoded_bytes();
    let mut path = [b'x'; 108];
    let start = [dir, vec![b'/'], unique_name()].concat();
    path[..start.len()].copy_from_slice(&start);
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as _;
    address.sun_path = path.map(|byte| byte as libc::c_char);
    let bound = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as _) };
    assert_eq!(bound, 0, "{}", std::io::Error::last_os_error());
    Longest { fd, path }
}

impl Drop for Longest {
    fn drop(&mut self) {
        use std::os::unix::ffi::OsStringExt;
        let _ = std::fs::remove_file(PathBuf::from(std::ffi::OsString::from_vec(self.path.to_vec())));
    }
}

/// Messages of one buffer each.
#[derive(Debug)]
pub struct Messages<const N: usize> {
    pub buffers: Box<[libc::iovec; N]>,
    pub headers: [libc::mmsghdr; N],
}

impl<const N: usize> Messages<N> {
    /// The buffers must outlive it.
    pub fn to_receive(buffers: [&mut [u8]; N]) -> Messages<N> {
        Messages::of(buffers.map(|b| libc::iovec { iov_base: b.as_mut_ptr().cast(), iov_len: b.len() }))
    }

    pub fn to_send(buffers: [&[u8]; N]) -> Messages<N> {
        Messages::of(buffers.map(|b| libc::iovec { iov_base: b.as_ptr().cast_mut().cast(), iov_len: b.len() }))
    }

    fn of(buffers: [libc::iovec; N]) -> Messages<N> {
        let mut messages = Messages { buffers: Box::new(buffers), headers: unsafe { std::mem::zeroed() } };
        for (header, buffer) in messages.headers.iter_mut().zip(messages.buffers.iter_mut()) {
            header.msg_hdr.msg_iov = buffer;
            header.msg_hdr.msg_iovlen = 1;
        }
        messages
    }
}
