//! Plain system calls that sleep until a signal ends them, made by number as a C library makes them.
#![allow(
    dead_code,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block,
    clippy::unnecessary_wraps // some answer None where the kernel has no such thing
)]

use super::common;
use super::queues::{Mq, Msg, Sem};
use libc::{AF_UNIX, SOCK_STREAM, c_long};
use std::any::Any;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

/// The arguments, and what has to live as long as the call. Memory that the kernel writes is given away for good.
pub struct Plain {
    pub nr: c_long,
    pub args: [usize; 6],
    pub keeps: Box<dyn Any + Send>,
}

pub type Make = fn() -> Option<Plain>;

/// By the names of the numbers.
pub const CASES: &[(&str, Make)] = &[
    ("read", || from_pipe(libc::SYS_read, [room(1), 8, 0])),
    ("readv", || from_pipe(libc::SYS_readv, [given(iovec()), 1, 0])),
    ("write", || into_pipe(libc::SYS_write, [room(1), 8, 0])),
    ("writev", || into_pipe(libc::SYS_writev, [given(iovec()), 1, 0])),
    ("openat", || fifo(libc::SYS_openat, |path| [libc::AT_FDCWD as usize, path, libc::O_RDONLY as usize])),
    ("recvfrom", || from_socket(libc::SYS_recvfrom, [room(1), 8, 0])),
    ("recvmsg", || from_socket(libc::SYS_recvmsg, [given(header()), 0, 0])),
    ("recvmmsg", || from_socket(libc::SYS_recvmmsg, [given(mheader()), 1, 0])),
    ("sendto", || into_socket(libc::SYS_sendto, [room(1), 8, 0])),
    ("sendmsg", || into_socket(libc::SYS_sendmsg, [given(header()), 0, 0])),
    ("sendmmsg", || into_socket(libc::SYS_sendmmsg, [given(mheader()), 1, 0])),
    ("accept", || listener(libc::SYS_accept)),
    ("accept4", || listener(libc::SYS_accept4)),
    ("connect", connect),
    ("ppoll", || {
        let (read, write) = common::pipe();
        let fd = libc::pollfd { fd: read.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        plain(libc::SYS_ppoll, [given(fd), 1, 0, 0, 8], (read, write))
    }),
    ("pselect6", || plain(libc::SYS_pselect6, [0; 5], ())),
    ("epoll_pwait", || {
        let epoll = owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) });
        plain(libc::SYS_epoll_pwait, [number(&epoll), room(2), 1, usize::MAX, 0], epoll)
    }),
    ("flock", || {
        let (file, other) = locked();
        assert_eq!(unsafe { libc::flock(other.as_raw_fd(), libc::LOCK_EX) }, 0);
        plain(libc::SYS_flock, [number(&file), libc::LOCK_EX as usize, 0, 0, 0], (file, other))
    }),
    ("fcntl", || lock(libc::F_SETLKW)),
    ("fcntl of the open file", || lock(libc::F_OFD_SETLKW)),
    ("wait4", || {
        let child = Child::new();
        plain(libc::SYS_wait4, [child.0 as usize, 0, 0, 0, 0], child)
    }),
    ("waitid", || {
        let child = Child::new();
        let [kind, options] = [libc::P_PID as usize, libc::WEXITED as usize];
        plain(libc::SYS_waitid, [kind, child.0 as usize, room(16), options, 0], child)
    }),
    ("clock_nanosleep", || {
        let [clock, flags] = [libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME].map(|n| n as usize);
        plain(libc::SYS_clock_nanosleep, [clock, flags, given(far()), 0, 0], ())
    }),
    ("futex", || futex(0)),
    ("futex with a time", || futex(given(far()))),
    ("rt_sigtimedwait", || plain(libc::SYS_rt_sigtimedwait, [given(common::bit(libc::SIGURG)), 0, 0, 8, 0], ())),
    ("mq_timedsend", || {
        let queue = Mq::new()?;
        queue.fill();
        plain(libc::SYS_mq_timedsend, [queue.0.as_raw_fd() as usize, room(1), 8, 0, 0], queue)
    }),
    ("mq_timedreceive", || {
        let queue = Mq::new()?;
        plain(libc::SYS_mq_timedreceive, [queue.0.as_raw_fd() as usize, room(1), 8, 0, 0], queue)
    }),
    ("msgsnd", || {
        let queue = Msg::new().narrow();
        queue.send(1, *b"is full.");
        plain(libc::SYS_msgsnd, [queue.0 as usize, given((1i64, 0u64)), 8, 0, 0], queue)
    }),
    ("msgrcv", || {
        let queue = Msg::new();
        plain(libc::SYS_msgrcv, [queue.0 as usize, room(2), 8, 0, 0], queue)
    }),
    ("semtimedop", || {
        let sem = Sem::new();
        plain(libc::SYS_semtimedop, [sem.0 as usize, given(Sem::down()), 1, 0, 0], sem)
    }),
    ("splice", || {
        let [from, into] = [common::pipe(), common::pipe()];
        let args = [number(&from.0), 0, number(&into.1), 0, 8];
        plain(libc::SYS_splice, args, (from, into))
    }),
    ("tee", || {
        let [from, into] = [common::pipe(), common::pipe()];
        plain(libc::SYS_tee, [number(&from.0), number(&into.1), 8, 0, 0], (from, into))
    }),
    ("sendfile", || {
        let (file, pipe) = (File::open("/proc/self/exe").unwrap(), full_pipe());
        plain(libc::SYS_sendfile, [number(&pipe.1), number(&file), 0, 8, 0], (file, pipe))
    }),
    #[cfg(target_arch = "x86_64")]
    ("open", || fifo(libc::SYS_open, |path| [path, libc::O_RDONLY as usize, 0])),
];

fn plain(nr: c_long, args: [usize; 5], keeps: impl Any + Send) -> Option<Plain> {
    let mut six = [0; 6];
    six[..5].copy_from_slice(&args);
    Some(Plain { nr, args: six, keeps: Box::new(keeps) })
}

fn given<T>(value: T) -> usize {
    Box::leak(Box::new(value)) as *mut T as usize
}

/// So many words.
fn room(words: usize) -> usize {
    vec![0u64; words].leak().as_mut_ptr() as usize
}

fn number(fd: &impl AsRawFd) -> usize {
    fd.as_raw_fd() as usize
}

fn owned(fd: i32) -> OwnedFd {
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn far() -> libc::timespec {
    libc::timespec { tv_sec: i64::MAX / 4_000_000_000, tv_nsec: 0 }
}

fn iovec() -> libc::iovec {
    libc::iovec { iov_base: room(1) as *mut libc::c_void, iov_len: 8 }
}

fn header() -> libc::msghdr {
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = given(iovec()) as *mut libc::iovec;
    header.msg_iovlen = 1;
    header
}

fn mheader() -> libc::mmsghdr {
    libc::mmsghdr { msg_hdr: header(), msg_len: 0 }
}

fn from_pipe(nr: c_long, [a, b, c]: [usize; 3]) -> Option<Plain> {
    let pipe = common::pipe();
    plain(nr, [number(&pipe.0), a, b, c, 0], pipe)
}

fn full_pipe() -> (OwnedFd, OwnedFd) {
    let (read, write) = common::pipe();
    let size = unsafe { libc::fcntl(write.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) };
    assert_eq!(nix::unistd::write(&write, &vec![0; size as usize]), Ok(size as usize));
    (read, write)
}

fn into_pipe(nr: c_long, [a, b, c]: [usize; 3]) -> Option<Plain> {
    let pipe = full_pipe();
    plain(nr, [number(&pipe.1), a, b, c, 0], pipe)
}

fn from_socket(nr: c_long, [a, b, c]: [usize; 3]) -> Option<Plain> {
    let pair = UnixStream::pair().unwrap();
    plain(nr, [number(&pair.0), a, b, c, 0], pair)
}

fn into_socket(nr: c_long, [a, b, c]: [usize; 3]) -> Option<Plain> {
    let pair = UnixStream::pair().unwrap();
    pair.0.set_nonblocking(true).unwrap();
    for size in [4096, 1] {
        while nix::unistd::write(&pair.0, &vec![0; size]).is_ok() {}
    }
    pair.0.set_nonblocking(false).unwrap();
    plain(nr, [number(&pair.0), a, b, c, 0], pair)
}

fn fresh_name() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("eintr-plain-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst))
}

/// A FIFO that nobody has opened; gone with this value.
struct Fifo(std::path::PathBuf);
impl Drop for Fifo {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn fifo(nr: c_long, args: fn(usize) -> [usize; 3]) -> Option<Plain> {
    let path = std::env::temp_dir().join(fresh_name());
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let name = CString::new(path.to_str().unwrap()).unwrap().into_raw();
    let [a, b, c] = args(name as usize);
    plain(nr, [a, b, c, 0, 0], Fifo(path))
}

fn abstract_address() -> std::os::unix::net::SocketAddr {
    use std::os::linux::net::SocketAddrExt;
    std::os::unix::net::SocketAddr::from_abstract_name(fresh_name()).unwrap()
}

fn listener(nr: c_long) -> Option<Plain> {
    let listener = UnixListener::bind_addr(&abstract_address()).unwrap();
    plain(nr, [number(&listener), 0, 0, 0, 0], listener)
}

/// To a listener of AF_UNIX that has as many callers waiting as it takes.
fn connect() -> Option<Plain> {
    use nix::sys::socket::{Backlog, SockaddrLike, UnixAddr};
    let address = UnixAddr::new_abstract(fresh_name().as_bytes()).unwrap();
    let [listens, first, caller] =
        [(); 3].map(|()| owned(unsafe { libc::socket(AF_UNIX, SOCK_STREAM | libc::SOCK_CLOEXEC, 0) }));
    nix::sys::socket::bind(listens.as_raw_fd(), &address).unwrap();
    nix::sys::socket::listen(&listens, Backlog::new(0).unwrap()).unwrap();
    nix::sys::socket::connect(first.as_raw_fd(), &address).unwrap();
    let args = [number(&caller), given(address), address.len() as usize, 0, 0];
    plain(libc::SYS_connect, args, [listens, first, caller])
}

/// A file, opened twice.
fn locked() -> (File, File) {
    let file = owned(unsafe { libc::memfd_create(c"plain".as_ptr(), libc::MFD_CLOEXEC) });
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    (file.into(), File::options().read(true).write(true).open(path).unwrap())
}

fn lock(op: i32) -> Option<Plain> {
    let (file, other) = locked();
    let mut whole: libc::flock = unsafe { std::mem::zeroed() };
    whole.l_type = libc::F_WRLCK as i16;
    assert_eq!(unsafe { libc::fcntl(other.as_raw_fd(), libc::F_OFD_SETLK, &whole) }, 0);
    plain(libc::SYS_fcntl, [number(&file), op as usize, given(whole), 0, 0], (file, other))
}

/// A child that goes on until this value is dropped.
struct Child(libc::pid_t);

impl Child {
    fn new() -> Child {
        Child(common::fork(|| unsafe { libc::pause() }))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        unsafe { libc::kill(self.0, libc::SIGKILL) };
        common::reap(self.0);
    }
}

fn futex(time: usize) -> Option<Plain> {
    let operation = (libc::FUTEX_WAIT_BITSET | libc::FUTEX_PRIVATE_FLAG) as usize;
    let mut case = plain(libc::SYS_futex, [room(1), operation, 0, time, 0], ())?;
    case.args[5] = u32::MAX as usize;
    Some(case)
}
