//! What calls of std wait at: pipes, terminals and sockets, empty or full, and [`Call`]s on them that are fed `hello`, or have to say it.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block
)]

use crate::std_call::Call;
use crate::suite::{full_pipe, keep, readable, unique};
use libc::{c_int, c_long};
use nix::sys::socket::{setsockopt, sockopt};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::linux::net::{SocketAddrExt, TcpStreamExt};
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

pub const HELLO: &[u8] = b"hello";

/// What a buffer holds that nobody has written to.
pub const BLANK: [u8; 8] = *b"........";

/// std may use either for a socket.
pub const RECEIVES: &[c_long] = &[libc::SYS_recvfrom, libc::SYS_read];
pub const SENDS: &[c_long] = &[libc::SYS_sendto, libc::SYS_write];
#[cfg(target_arch = "x86_64")]
pub const POLLS: &[c_long] = &[libc::SYS_poll, libc::SYS_ppoll];
#[cfg(target_arch = "aarch64")]
pub const POLLS: &[c_long] = &[libc::SYS_ppoll];

/// Longer than any test.
pub const HOUR: Option<Duration> = Some(Duration::from_secs(3600));

/// A name for a socket that nobody else has.
pub fn abstract_name() -> SocketAddr {
    SocketAddr::from_abstract_name(format!("eintr-std-{}-{}", std::process::id(), unique())).unwrap()
}

pub fn tcp() -> (TcpStream, TcpStream) {
    connected(&TcpListener::bind("127.0.0.1:0").unwrap())
}

fn connected(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (one, listener.accept().unwrap().0)
}

pub fn unix() -> (UnixStream, UnixStream) {
    UnixStream::pair().unwrap()
}

/// A terminal: where it is read, and where somebody types.
pub fn terminal() -> (File, File) {
    let (mut master, mut slave) = (-1, -1);
    let (no_name, none) = (std::ptr::null_mut(), std::ptr::null_mut());
    let made = unsafe { libc::openpty(&mut master, &mut slave, no_name, none, std::ptr::null_mut()) };
    assert_eq!(made, 0, "openpty: {}", io::Error::last_os_error());
    let [master, slave] = [master, slave].map(|fd| {
        assert_eq!(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) }, 0);
        File::from(unsafe { OwnedFd::from_raw_fd(fd) })
    });
    (slave, master)
}

/// A call at what is empty: `hello` comes when it is let go.
pub fn fed<R: Send + 'static>(
    sleeps_in: &'static [c_long],
    (mut from, mut to): (R, impl Write + 'static),
    mut call: impl FnMut(&mut R) -> io::Result<usize> + Send + 'static,
) -> Call {
    Call::new(
        sleeps_in,
        HELLO.len(),
        move || call(&mut from),
        move |_| {
            to.write_all(HELLO).unwrap();
            keep(to)
        },
    )
}

/// The same, and nothing after that.
pub fn fed_at_last<R: Send + 'static>(
    sleeps_in: &'static [c_long],
    (mut from, mut to): (R, impl Write + 'static),
    mut call: impl FnMut(&mut R) -> io::Result<usize> + Send + 'static,
) -> Call {
    Call::new(
        sleeps_in,
        HELLO.len(),
        move || call(&mut from),
        move |_| {
            to.write_all(HELLO).unwrap();
            drop(to);
            keep(())
        },
    )
}

/// `hello`, or nothing at all.
pub fn read_by(read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
    let mut buffer = BLANK;
    let answer = read(&mut buffer);
    assert_eq!(&buffer, if answer.is_ok() { b"hello..." } else { &BLANK });
    answer
}

pub fn read(from: &mut impl Read) -> io::Result<usize> {
    read_by(|buffer| from.read(buffer))
}

/// Something that takes not a byte more.
#[derive(Debug)]
pub struct Full<R, W> {
    pub from: R,
    pub to: W,
    pub filling: usize,
}

/// A call at what is full, which is emptied when it is let go: it holds the filling then, and `hello` once.
pub fn filled<R: Read + AsRawFd + Send + 'static, W: Send + 'static>(
    sleeps_in: &'static [c_long],
    full: Full<R, W>,
    call: impl FnMut(&mut W, &[u8]) -> io::Result<usize> + Send + 'static,
) -> Call {
    filled_and_told(sleeps_in, full, HELLO, call)
}

/// The same with another text of five bytes.
pub fn filled_and_told<R: Read + AsRawFd + Send + 'static, W: Send + 'static>(
    sleeps_in: &'static [c_long],
    full: Full<R, W>,
    text: &'static [u8],
    mut call: impl FnMut(&mut W, &[u8]) -> io::Result<usize> + Send + 'static,
) -> Call {
    let Full { mut from, mut to, filling } = full;
    Call::new(
        sleeps_in,
        text.len(),
        move || call(&mut to, text),
        move |_| {
            let mut all = vec![0; filling];
            from.read_exact(&mut all).unwrap();
            assert!(all.iter().all(|byte| *byte == b'-'), "what the ended calls have written");
            Box::new(move || {
                let mut said = [0; 5];
                from.read_exact(&mut said).unwrap();
                assert_eq!(said, text);
                assert_eq!(readable(&from), 0);
            })
        },
    )
}

pub fn full_file() -> Full<File, File> {
    let (from, to, filling) = full_pipe();
    Full { from, to, filling }
}

pub fn full_unix() -> Full<UnixStream, UnixStream> {
    let (from, to) = unix();
    let filling = fill(&to, |on| to.set_nonblocking(on));
    Full { from, to, filling }
}

/// Of small buffers of a fixed size, and small segments, so that it is emptied without a pause. It stays full: all that has come is acknowledged, and
/// the other side has no window left, so nothing will move.
pub fn full_tcp() -> Full<TcpStream, TcpStream> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    setsockopt(&listener, sockopt::TcpMaxSeg, &1024).unwrap();
    setsockopt(&listener, sockopt::RcvBuf, &16384).unwrap();
    let (to, from) = connected(&listener);
    setsockopt(&to, sockopt::SndBuf, &16384).unwrap();
    let mut filling = 0;
    loop {
        let more = fill(&to, |on| to.set_nonblocking(on));
        filling += more;
        // What is acknowledged late leaves room.
        from.set_quickack(true).unwrap();
        if more == 0 && readable(&from) + unacknowledged(&to) == filling && window(&to).unwrap_or(0) == 0 {
            return Full { from, to, filling };
        }
    }
}

/// How many of the bytes that were written the other side has not acknowledged.
fn unacknowledged(to: &TcpStream) -> usize {
    let mut n: c_int = 0;
    assert_eq!(unsafe { libc::ioctl(to.as_raw_fd(), libc::TIOCOUTQ, &mut n) }, 0);
    n as usize
}

/// How much the other side would take; `None` where nobody says so (Linux before 5.4, an emulator).
fn window(to: &TcpStream) -> Option<u32> {
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let (room, mut size) = ((&raw mut info).cast(), size_of_val(&info) as libc::socklen_t);
    let told = unsafe { libc::getsockopt(to.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, room, &mut size) };
    let end = std::mem::offset_of!(libc::tcp_info, tcpi_snd_wnd) + size_of::<u32>();
    (told == 0 && size as usize >= end).then_some(info.tcpi_snd_wnd)
}

/// Writes until there is no room; gives how much that was.
fn fill<W>(to: &W, set_nonblocking: impl Fn(bool) -> io::Result<()>) -> usize
where
    for<'a> &'a W: Write,
{
    set_nonblocking(true).unwrap();
    let mut filling = 0;
    for size in [4096, 1] {
        loop {
            match (&mut &*to).write(&vec![b'-'; size]) {
                Ok(n) => filling += n,
                Err(e) => break assert_eq!(e.kind(), ErrorKind::WouldBlock),
            }
        }
    }
    set_nonblocking(false).unwrap();
    filling
}

/// A FIFO that nobody has opened; its name is gone with this value.
#[derive(Debug)]
pub struct Fifo(pub PathBuf);

impl Fifo {
    pub fn new() -> Fifo {
        let path = crate::suite::fresh_path();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        Fifo(path)
    }

    /// Both of its sides, which never waits.
    pub fn both(&self) -> File {
        File::options().read(true).write(true).open(&self.0).unwrap()
    }
}

impl Drop for Fifo {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Makes a listening socket take no more callers than one that nobody has accepted.
pub fn narrow(listener: &impl AsRawFd) {
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
}

/// Waits for every child that there is.
pub fn reap_all() {
    let mut status: c_int = 0;
    while unsafe { libc::waitpid(-1, &mut status, 0) } > 0 {}
    assert_eq!(io::Error::last_os_error().raw_os_error(), Some(libc::ECHILD));
}

/// Two open file descriptions of one file.
pub fn file_twice() -> [File; 2] {
    let file = crate::suite::memory_file();
    let again = crate::suite::again(&file);
    [file, again]
}
