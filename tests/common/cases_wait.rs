//! Calls that wait for something else than bytes, one [`Case`] each: another end, a lock, readiness, a child, a wake-up, a signal.
//! See [`suite`](crate::suite).
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block,
    clippy::unnecessary_wraps // some cases answer None where the kernel has no such thing
)]

use crate::common;
use crate::counting::kinds;
use crate::suite::{After, Answer, Case, Sleep, again, fresh_path, keep, memory_file, pipe_files, send, unique};
use eintr::sys;
use nix::fcntl::{AT_FDCWD, FcntlArg, FlockArg, OFlag};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::select::FdSet;
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, UnixAddr};
use nix::sys::stat::Mode;
use nix::sys::wait::{Id, WaitPidFlag};
use nix::unistd::Pid;
use std::fs::File;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// What came back is open and closes on exec, and there is one more of its kind than before.
fn opened(answer: sys::Result<OwnedFd>) -> Answer {
    answer.map(|fd| {
        assert!(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) } >= 0);
        0
    })
}

pub fn accept4() -> Option<Case> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let call = move || opened(sys::accept4(&listener, SockFlag::SOCK_CLOEXEC));
    Some(Case::new(libc::SYS_accept4, 0, call, move |_| keep(TcpStream::connect(address).unwrap())))
}

/// To a listener of AF_UNIX that has as many callers waiting as it takes.
pub fn connect() -> Option<Case> {
    let stream = || socket::socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let name = format!("eintr-suite-{}-{}", common::getpid(), unique());
    let address = UnixAddr::new_abstract(name.as_bytes()).unwrap();
    let listener = stream();
    socket::bind(listener.as_raw_fd(), &address).unwrap();
    socket::listen(&listener, Backlog::new(0).unwrap()).unwrap();
    let first = stream();
    socket::connect(first.as_raw_fd(), &address).unwrap();
    let mine = Arc::new(stream());
    let connects = mine.clone();
    let call = move || sys::connect(&*connects, &address).map(|()| 0);
    Some(Case::new(libc::SYS_connect, 0, call, move |_| {
        let accepted = socket::accept(&listener).unwrap();
        Box::new(move || {
            let own = socket::accept(&listener).unwrap();
            assert_eq!(unsafe { libc::send(mine.as_raw_fd(), b"hello".as_ptr().cast(), 5, 0) }, 5);
            assert_eq!(
                socket::recv(own.as_raw_fd(), &mut [0; 8], socket::MsgFlags::empty()),
                Ok(5),
                "this one is connected"
            );
            let mut more = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
            assert_eq!(nix::poll::poll(&mut more, PollTimeout::ZERO), Ok(0), "and once");
            drop((first, accepted, own));
        })
    }))
}

/// To a listener of TCP whose queue is full: the kernel throws the first packets away and sends again after a second. An interrupted attempt goes on
/// in the background, and the next call on the same socket waits for it.
pub fn connect_tcp() -> Option<Case> {
    let tcp = || socket::socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let listener = tcp();
    socket::bind(listener.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    socket::listen(&listener, Backlog::new(0).unwrap()).unwrap();
    let address: SockaddrIn = socket::getsockname(listener.as_raw_fd()).unwrap();
    let first = tcp(); // a backlog of 0 has room for one
    socket::connect(first.as_raw_fd(), &address).unwrap();
    let mine = tcp();
    let call = move || sys::connect(&mine, &address).map(|()| 0);
    Some(Case::new(libc::SYS_connect, 0, call, move |_| {
        let accepted = socket::accept(&listener).unwrap();
        keep((first, accepted, listener))
    }))
}

/// A FIFO that nobody has opened, and what lets an open of it for `mode` go on.
fn fifo(nr: libc::c_long, call: impl Fn(&std::path::Path) -> sys::Result<OwnedFd> + Send + 'static) -> Option<Case> {
    let path = fresh_path();
    nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    let opens = path.clone();
    Some(Case::new(
        nr,
        0,
        move || opened(call(&opens)),
        move |_| {
            let both = File::options().read(true).write(true).open(&path).unwrap(); // this never waits (fifo(7))
            Box::new(move || {
                std::fs::remove_file(&path).unwrap();
                drop(both);
            })
        },
    ))
}

pub fn open_to_read() -> Option<Case> {
    fifo(libc::SYS_openat, |path| sys::open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()))
}

pub fn open_to_write() -> Option<Case> {
    fifo(libc::SYS_openat, |path| sys::open(path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty()))
}

pub fn openat() -> Option<Case> {
    let directory = File::open(std::env::temp_dir()).unwrap();
    fifo(libc::SYS_openat, move |path| {
        let name = path.file_name().unwrap();
        sys::openat(&directory, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
    })
}

pub fn openat_of_the_working_directory() -> Option<Case> {
    fifo(libc::SYS_openat, |path| sys::openat(AT_FDCWD, path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty()))
}

fn flock_as(arg: fn() -> FlockArg) -> Option<Case> {
    let file = memory_file();
    let holder = again(&file);
    assert_eq!(unsafe { libc::flock(holder.as_raw_fd(), libc::LOCK_EX) }, 0);
    let probe = again(&file);
    let call = move || sys::flock(&file, arg()).map(|()| 0);
    Some(Case::new(libc::SYS_flock, 0, call, move |_| {
        assert_eq!(unsafe { libc::flock(holder.as_raw_fd(), libc::LOCK_UN) }, 0);
        keep(probe)
    }))
}

pub fn flock() -> Option<Case> {
    flock_as(|| FlockArg::LockExclusive)
}

pub fn flock_shared() -> Option<Case> {
    flock_as(|| FlockArg::LockShared)
}

fn whole_file(kind: i32) -> libc::flock {
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as _;
    lock.l_whence = libc::SEEK_SET as _;
    lock
}

/// A lock of the process's (F_SETLKW), or of the open file's (F_OFD_SETLKW), which another open file's lock keeps waiting.
fn record_lock(arg: fn(&libc::flock) -> FcntlArg<'_>) -> Option<Case> {
    let file = memory_file();
    let (holder, looks) = (again(&file), again(&file));
    nix::fcntl::fcntl(&holder, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_WRLCK))).unwrap();
    let call = move || sys::fcntl_lock(&file, arg(&whole_file(libc::F_WRLCK))).map(|()| 0);
    Some(Case::new(libc::SYS_fcntl, 0, call, move |_| {
        nix::fcntl::fcntl(&holder, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_UNLCK))).unwrap();
        keep(looks)
    }))
}

pub fn fcntl_lock() -> Option<Case> {
    record_lock(|lock| FcntlArg::F_SETLKW(lock))
}

pub fn fcntl_lock_of_the_open_file() -> Option<Case> {
    record_lock(|lock| FcntlArg::F_OFD_SETLKW(lock))
}

/// A wait, without an end, for a pipe to become readable.
fn readiness(nrs: &[libc::c_long], mut call: impl FnMut(&File) -> Answer + Send + 'static) -> Option<Case> {
    let (from, mut to) = pipe_files();
    let mut case = Case::new(
        nrs[0],
        1,
        move || call(&from),
        move |_| {
            to.write_all(b"x").unwrap();
            keep(to)
        },
    );
    case.sleeps_in = nrs.iter().map(|nr| Sleep { nr: *nr, first: None }).collect();
    Some(case)
}

#[cfg(target_arch = "x86_64")]
const POLLS: &[libc::c_long] = &[libc::SYS_poll, libc::SYS_ppoll];
#[cfg(target_arch = "aarch64")]
const POLLS: &[libc::c_long] = &[libc::SYS_ppoll];
#[cfg(target_arch = "x86_64")]
const EPOLLS: &[libc::c_long] = &[libc::SYS_epoll_wait, libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2];
#[cfg(target_arch = "aarch64")]
const EPOLLS: &[libc::c_long] = &[libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2];

pub fn poll() -> Option<Case> {
    readiness(POLLS, |from| {
        let mut fds = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
        let answer = sys::poll(&mut fds, PollTimeout::NONE);
        assert_eq!(fds[0].any(), Some(answer.is_ok()));
        answer
    })
}

pub fn ppoll() -> Option<Case> {
    readiness(POLLS, |from| sys::ppoll(&mut [PollFd::new(from.as_fd(), PollFlags::POLLIN)], None, None))
}

pub fn pselect() -> Option<Case> {
    readiness(&[libc::SYS_pselect6], |from| {
        let mut set = FdSet::new();
        set.insert(from.as_fd());
        let answer = sys::pselect(None, Some(&mut set), None, None, None, None);
        if answer.is_ok() {
            assert!(set.contains(from.as_fd()));
        }
        answer
    })
}

fn watching(from: &File) -> Epoll {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    epoll.add(from.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, 7)).unwrap();
    epoll
}

pub fn epoll_wait() -> Option<Case> {
    readiness(EPOLLS, |from| {
        let mut events = [EpollEvent::empty(); 2];
        let answer = sys::epoll_wait(&watching(from), &mut events, EpollTimeout::NONE);
        assert_eq!(events[0].data(), if answer.is_ok() { 7 } else { 0 });
        answer
    })
}

pub fn epoll_pwait() -> Option<Case> {
    readiness(EPOLLS, |from| {
        let mut events = [EpollEvent::empty(); 2];
        sys::epoll_pwait(&watching(from), &mut events, EpollTimeout::NONE, None)
    })
}

/// A child that ends with status 7 when it is told to, and what tells it so.
pub fn child() -> (Pid, File) {
    let (from, to) = pipe_files();
    let pid = common::fork(|| {
        let mut byte = 0u8;
        unsafe { libc::read(from.as_raw_fd(), (&raw mut byte).cast(), 1) };
        7
    });
    (Pid::from_raw(pid), to)
}

fn ends(mut to: File) -> After {
    to.write_all(b"x").unwrap();
    keep(to)
}

pub fn wait4() -> Option<Case> {
    let (pid, to) = child();
    let call = move || {
        let (who, status) = sys::wait4(Some(pid), WaitPidFlag::empty())?.expect("it was waited for");
        assert_eq!((who, status.into_raw()), (pid, 7 << 8));
        Ok(7)
    };
    Some(Case::new(libc::SYS_wait4, 7, call, move |_| ends(to)))
}

/// As a library does that must not take other people's children; and then for good.
pub fn waitid() -> Option<Case> {
    let (pid, to) = child();
    let call = move || {
        let look = sys::waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)?;
        let taken = sys::waitid(Id::Pid(pid), WaitPidFlag::WEXITED)?;
        for info in [look, taken] {
            let (who, status) = unsafe { (info.si_pid(), info.si_status()) };
            assert_eq!((who, info.si_code, status), (pid.as_raw(), libc::CLD_EXITED, 7));
        }
        Ok(7)
    };
    Some(Case::new(libc::SYS_waitid, 7, call, move |_| ends(to)))
}

/// Woken after its value has changed.
fn word(until: fn() -> Option<Instant>) -> Option<Case> {
    let word = Arc::new(AtomicU32::new(0));
    let waits = word.clone();
    let sleeps_in = vec![Sleep { nr: libc::SYS_futex, first: Some(word.as_ptr() as usize) }];
    let call = move || {
        let was_expected = sys::futex_wait(&waits, 0, until())?;
        assert!(was_expected || waits.load(SeqCst) == 1);
        Ok(waits.load(SeqCst) as usize)
    };
    let provide = move |_| {
        word.store(1, SeqCst);
        assert!(unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1) } >= 0);
        keep(word)
    };
    Some(Case { sleeps_in, ..Case::new(libc::SYS_futex, 1, call, provide) })
}

pub fn futex_wait() -> Option<Case> {
    word(|| None)
}

pub fn futex_wait_until() -> Option<Case> {
    word(|| Some(Instant::now() + Duration::from_secs(3600)))
}

/// For a signal that the thread has blocked; and for the scope's number, which the call leaves out: an interrupt is not taken for what is waited for.
fn sigtimedwait_for(time: Option<Duration>) -> Option<Case> {
    let waited_for = libc::SIGRTMIN() + 7;
    let call = move || {
        common::block(waited_for); // for good: the thread is of no use to others
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        for sig in kinds().into_iter().chain([waited_for]) {
            unsafe { libc::sigaddset(&mut set, sig) };
        }
        let answer = sys::sigtimedwait(&set, time);
        let info = answer?.expect("the time is not up");
        assert_eq!(info.si_signo, waited_for);
        Ok(1)
    };
    Some(Case::new(libc::SYS_rt_sigtimedwait, 1, call, move |tid| {
        send(tid, waited_for);
        keep(())
    }))
}

pub fn sigtimedwait() -> Option<Case> {
    sigtimedwait_for(None)
}

pub fn sigtimedwait_with_a_time() -> Option<Case> {
    sigtimedwait_for(Some(Duration::from_secs(3600)))
}
