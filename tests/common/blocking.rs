//! Plain calls that block, each with what lets it end well: what a thread may be in when a signal comes. A test file takes it by
//! `#[path = "common/blocking.rs"] mod blocking;` beside `mod common;`.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unused_imports,
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block
)]

#[path = "blocking_others.rs"]
mod others;

use crate::common;
use libc::{c_int, c_long, c_void};
use std::ffi::CString;
use std::fmt;
use std::fs::File;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

pub use others::{ANY, NEVER_RESTARTED, UNTOUCHED};

/// What a call returned, or errno.
pub type Returned = Result<i64, i32>;

/// What an interrupt may tell the call when the kernel would restart it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// EINTR, and ECANCELED when it is made again.
    Canceled,
    /// EINTR, whenever.
    Eintr,
    /// Nothing: the kernel restarts it as if nobody had asked.
    Nothing,
}

/// One call.
pub struct Blocking {
    pub name: &'static str,
    /// The system call that it sleeps in.
    pub nr: c_long,
    /// Makes it, once.
    pub call: Box<dyn FnMut() -> Returned + Send>,
    /// Lets it end well.
    pub release: Box<dyn FnOnce() + Send>,
    pub told: Told,
}

impl fmt::Debug for Blocking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Makes one.
pub type Make = fn() -> Option<Blocking>;

/// Every call that the kernel restarts after a handler with SA_RESTART (signal(7)), and that can be made to block here.
pub const RESTARTABLE: [Make; 23] = [
    || Some(of_pipe("read of a pipe", libc::SYS_read, |fd| unsafe { libc::read(fd, room(), 1) })),
    || Some(of_pipe("readv of a pipe", libc::SYS_readv, |fd| unsafe { libc::readv(fd, &vector(room()), 1) })),
    read_of_terminal,
    || Some(of_socket("read of a socket", libc::SYS_read, |fd| unsafe { libc::read(fd, room(), 1) })),
    || Some(of_socket("recv", libc::SYS_recvfrom, |fd| unsafe { libc::recv(fd, room(), 1, 0) })),
    || Some(of_socket("recvmsg", libc::SYS_recvmsg, |fd| unsafe { libc::recvmsg(fd, &mut message(), 0) })),
    || Some(of_socket("recvmmsg", libc::SYS_recvmmsg, recvmmsg)),
    || Some(to_full_pipe("write to a full pipe", libc::SYS_write, |fd| unsafe { libc::write(fd, text(), 1) })),
    || {
        Some(to_full_pipe("writev to a full pipe", libc::SYS_writev, |fd| unsafe {
            libc::writev(fd, &vector(text().cast_mut()), 1)
        }))
    },
    || Some(to_full_socket("send", libc::SYS_sendto, |fd| unsafe { libc::send(fd, text(), 1, 0) })),
    || Some(to_full_socket("sendmsg", libc::SYS_sendmsg, |fd| unsafe { libc::sendmsg(fd, &message(), 0) })),
    || {
        Some(accepting("accept", libc::SYS_accept, |fd| unsafe {
            libc::accept(fd, std::ptr::null_mut(), room().cast())
        }))
    },
    || {
        Some(accepting("accept4", libc::SYS_accept4, |fd| unsafe {
            libc::accept4(fd, std::ptr::null_mut(), room().cast(), 0)
        }))
    },
    open_of_fifo,
    || {
        Some(waiting_for_a_child("wait4", libc::SYS_wait4, |pid| unsafe {
            libc::waitpid(pid, std::ptr::null_mut(), 0)
        }))
    },
    || Some(waiting_for_a_child("waitid", libc::SYS_waitid, waitid)),
    flock,
    || Some(record_lock("F_SETLKW", libc::F_SETLKW)),
    || Some(record_lock("F_OFD_SETLKW", libc::F_OFD_SETLKW)),
    mq_receive,
    mq_send,
    || Some(futex("futex, FUTEX_WAIT", libc::FUTEX_WAIT, 0)),
    || Some(futex("futex, FUTEX_WAIT_BITSET", libc::FUTEX_WAIT_BITSET, u32::MAX)),
];

/// All that can be made here; the others are said aloud.
pub fn all(makes: &[Make]) -> impl Iterator<Item = Blocking> + '_ {
    makes.iter().filter_map(|make| make())
}

pub fn returned(r: impl Into<i64>) -> Returned {
    let r = r.into();
    if r < 0 { Err(std::io::Error::last_os_error().raw_os_error().expect("it has set errno")) } else { Ok(r) }
}

fn ssize(call: fn(RawFd) -> isize) -> impl Fn(RawFd) -> Returned {
    move |fd| returned(call(fd) as i64)
}

/// Eight bytes to read into, that nobody looks at; zeroes, so that they serve as the length of an address, too.
fn room() -> *mut c_void {
    Box::leak(Box::new(0u64)) as *mut u64 as *mut c_void
}

fn text() -> *const c_void {
    b"!".as_ptr().cast()
}

fn vector(base: *mut c_void) -> libc::iovec {
    libc::iovec { iov_base: base, iov_len: 1 }
}

fn message() -> libc::msghdr {
    let vector = Box::leak(Box::new(vector(room())));
    libc::msghdr { msg_iov: vector, msg_iovlen: 1, ..unsafe { zeroed() } }
}

fn recvmmsg(fd: RawFd) -> isize {
    let mut message = libc::mmsghdr { msg_hdr: message(), msg_len: 0 };
    unsafe { libc::recvmmsg(fd, &mut message, 1, 0, std::ptr::null_mut()) as isize }
}

fn write_byte(fd: &impl AsRawFd) {
    assert_eq!(unsafe { libc::write(fd.as_raw_fd(), text(), 1) }, 1);
}

fn of_pipe(name: &'static str, nr: c_long, call: fn(RawFd) -> isize) -> Blocking {
    let (reader, writer) = common::pipe();
    let call = ssize(call);
    Blocking {
        name,
        nr,
        call: Box::new(move || call(reader.as_raw_fd())),
        release: Box::new(move || write_byte(&writer)),
        told: Told::Canceled,
    }
}

fn of_socket(name: &'static str, nr: c_long, call: fn(RawFd) -> isize) -> Blocking {
    let (reader, writer) = UnixStream::pair().expect("socketpair");
    let call = ssize(call);
    Blocking {
        name,
        nr,
        call: Box::new(move || call(reader.as_raw_fd())),
        release: Box::new(move || {
            write_byte(&writer);
            let _ = writer.into_raw_fd(); // its end must not come before the byte is read
        }),
        told: Told::Canceled,
    }
}

fn read_of_terminal() -> Option<Blocking> {
    let (mut master, mut slave) = (-1, -1);
    let (no_name, none) = (std::ptr::null_mut(), std::ptr::null_mut());
    if unsafe { libc::openpty(&mut master, &mut slave, no_name, none, std::ptr::null_mut()) } != 0 {
        eprintln!("SKIPPED: read of a terminal: openpty: {}", std::io::Error::last_os_error());
        return None;
    }
    let [master, slave] = [master, slave].map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    Some(Blocking {
        name: "read of a terminal",
        nr: libc::SYS_read,
        call: Box::new(move || returned(unsafe { libc::read(slave.as_raw_fd(), room(), 8) } as i64)),
        release: Box::new(move || {
            assert_eq!(unsafe { libc::write(master.as_raw_fd(), c"!\n".as_ptr().cast(), 2) }, 2);
            let _ = master.into_raw_fd(); // closed, it would hang up
        }),
        told: Told::Canceled,
    })
}

/// Writes until there is no room.
fn fill(fd: RawFd) {
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) };
    for size in [4096, 1] {
        while unsafe { libc::write(fd, [0u8; 4096].as_ptr().cast(), size) } > 0 {}
    }
    unsafe { libc::fcntl(fd, libc::F_SETFL, flags) };
}

/// Reads until there is nothing.
fn empty(fd: RawFd) {
    unsafe { libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK) };
    while unsafe { libc::read(fd, [0u8; 4096].as_mut_ptr().cast(), 4096) } > 0 {}
}

fn to_full(name: &'static str, nr: c_long, ends: [OwnedFd; 2], call: fn(RawFd) -> isize) -> Blocking {
    let [reader, writer] = ends;
    fill(writer.as_raw_fd());
    let call = ssize(call);
    Blocking {
        name,
        nr,
        call: Box::new(move || call(writer.as_raw_fd())),
        release: Box::new(move || {
            empty(reader.as_raw_fd());
            let _ = reader.into_raw_fd(); // nobody is to be told that the pipe is broken
        }),
        told: Told::Canceled,
    }
}

fn to_full_pipe(name: &'static str, nr: c_long, call: fn(RawFd) -> isize) -> Blocking {
    let (reader, writer) = common::pipe();
    to_full(name, nr, [reader, writer], call)
}

fn to_full_socket(name: &'static str, nr: c_long, call: fn(RawFd) -> isize) -> Blocking {
    let (reader, writer) = UnixStream::pair().expect("socketpair");
    to_full(name, nr, [reader.into(), writer.into()], call)
}

/// A path that nobody else has, in the directory for temporary files.
pub fn path(kind: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("eintr-{}-{}-{kind}", std::process::id(), COUNT.fetch_add(1, SeqCst));
    std::env::temp_dir().join(name)
}

fn accepting(name: &'static str, nr: c_long, call: fn(RawFd) -> c_int) -> Blocking {
    let path = path("socket");
    let listener = UnixListener::bind(&path).expect("bind");
    Blocking {
        name,
        nr,
        call: Box::new(move || {
            let r = returned(call(listener.as_raw_fd()));
            r.inspect(|fd| drop(unsafe { OwnedFd::from_raw_fd(*fd as RawFd) }))
        }),
        release: Box::new(move || {
            UnixStream::connect(&path).expect("connect");
            std::fs::remove_file(&path).expect("the socket's name");
        }),
        told: Told::Canceled,
    }
}

fn open_of_fifo() -> Option<Blocking> {
    let path = path("fifo");
    let name = CString::new(path.to_str().expect("a path in UTF-8")).expect("no NUL");
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    let opened = name.clone();
    Some(Blocking {
        name: "open of a FIFO",
        nr: libc::SYS_openat,
        call: Box::new(move || {
            let r = returned(unsafe { libc::open(opened.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) });
            r.inspect(|fd| drop(unsafe { OwnedFd::from_raw_fd(*fd as RawFd) }))
        }),
        release: Box::new(move || {
            // With O_RDWR it does not wait, and the reader is let in.
            let fd = unsafe { libc::open(name.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
            assert!(fd >= 0, "{}", std::io::Error::last_os_error());
            std::fs::remove_file(&path).expect("the FIFO's name");
        }),
        told: Told::Canceled,
    })
}

fn waitid(pid: c_int) -> c_int {
    let mut info: libc::siginfo_t = unsafe { zeroed() };
    unsafe { libc::waitid(libc::P_PID, pid as libc::id_t, &mut info, libc::WEXITED) }
}

// The call that is tested waits for it.
#[allow(clippy::zombie_processes)]
fn waiting_for_a_child(name: &'static str, nr: c_long, call: fn(c_int) -> c_int) -> Blocking {
    let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("cat");
    let (pid, input) = (child.id() as c_int, child.stdin.take());
    Blocking {
        name,
        nr,
        call: Box::new(move || returned(call(pid))),
        release: Box::new(move || drop(input)),
        told: Told::Canceled,
    }
}

/// Two open file descriptions of one file.
fn file_twice() -> [File; 2] {
    let path = path("file");
    let open = || File::options().create(true).truncate(false).read(true).write(true).open(&path).expect("a file");
    let both = [open(), open()];
    std::fs::remove_file(&path).expect("the file's name");
    both
}

fn flock() -> Option<Blocking> {
    let [holder, other] = file_twice();
    assert_eq!(unsafe { libc::flock(holder.as_raw_fd(), libc::LOCK_EX) }, 0);
    Some(Blocking {
        name: "flock",
        nr: libc::SYS_flock,
        call: Box::new(move || returned(unsafe { libc::flock(other.as_raw_fd(), libc::LOCK_EX) })),
        release: Box::new(move || drop(holder)),
        told: Told::Canceled,
    })
}

/// The lock is held by an open file description, which a process's own lock does not get past either.
fn record_lock(name: &'static str, command: c_int) -> Blocking {
    let [holder, other] = file_twice();
    let whole = || libc::flock { l_type: libc::F_WRLCK as _, l_whence: libc::SEEK_SET as _, ..unsafe { zeroed() } };
    assert_eq!(unsafe { libc::fcntl(holder.as_raw_fd(), libc::F_OFD_SETLK, &whole()) }, 0);
    Blocking {
        name,
        nr: libc::SYS_fcntl,
        call: Box::new(move || returned(unsafe { libc::fcntl(other.as_raw_fd(), command, &whole()) })),
        release: Box::new(move || drop(holder)),
        told: Told::Canceled,
    }
}

/// A message queue with room for one message, its name gone.
fn queue() -> Option<Arc<OwnedFd>> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("/eintr-{}-{}", std::process::id(), COUNT.fetch_add(1, SeqCst));
    let name = CString::new(name).expect("no NUL");
    let mut attributes: libc::mq_attr = unsafe { zeroed() };
    (attributes.mq_maxmsg, attributes.mq_msgsize) = (1, 8);
    let fd = unsafe { libc::mq_open(name.as_ptr(), libc::O_CREAT | libc::O_EXCL | libc::O_RDWR, 0o600, &attributes) };
    if fd < 0 {
        eprintln!("SKIPPED: calls on POSIX message queues: mq_open: {}", std::io::Error::last_os_error());
        return None;
    }
    unsafe { libc::mq_unlink(name.as_ptr()) };
    Some(Arc::new(unsafe { OwnedFd::from_raw_fd(fd) }))
}

fn send_to(queue: &OwnedFd) -> Returned {
    returned(unsafe { libc::mq_send(queue.as_raw_fd(), text().cast(), 1, 0) })
}

fn receive_from(queue: &OwnedFd) -> Returned {
    returned(unsafe { libc::mq_receive(queue.as_raw_fd(), room().cast(), 8, std::ptr::null_mut()) } as i64)
}

fn mq_receive() -> Option<Blocking> {
    let queue = queue()?;
    let other = Arc::clone(&queue);
    Some(Blocking {
        name: "mq_receive",
        nr: libc::SYS_mq_timedreceive,
        call: Box::new(move || receive_from(&queue)),
        release: Box::new(move || assert_eq!(send_to(&other), Ok(0))),
        told: Told::Canceled,
    })
}

fn mq_send() -> Option<Blocking> {
    let queue = queue()?;
    assert_eq!(send_to(&queue), Ok(0));
    let other = Arc::clone(&queue);
    Some(Blocking {
        name: "mq_send",
        nr: libc::SYS_mq_timedsend,
        call: Box::new(move || send_to(&queue)),
        release: Box::new(move || assert_eq!(receive_from(&other), Ok(1))),
        told: Told::Canceled,
    })
}

fn futex(name: &'static str, command: c_int, bits: u32) -> Blocking {
    let word = Arc::new(AtomicU32::new(0));
    let other = Arc::clone(&word);
    let operation = command | libc::FUTEX_PRIVATE_FLAG;
    Blocking {
        name,
        nr: libc::SYS_futex,
        // One that finds the word changed has been released before it slept.
        call: Box::new(move || {
            let r = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, 0, 0usize, 0usize, bits) };
            returned(r).or_else(|errno| if errno == libc::EAGAIN { Ok(0) } else { Err(errno) })
        }),
        release: Box::new(move || {
            other.store(1, SeqCst);
            let wake = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
            unsafe { libc::syscall(libc::SYS_futex, other.as_ptr(), wake, 1) };
        }),
        told: Told::Eintr,
    }
}
