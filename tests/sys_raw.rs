//! `syscall`: any number, but for those that must not go through the stub; and what the kernel says to bad arguments, which is told as it is and does
//! the scope no harm.
// The calls under test are unsafe.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/queues.rs"]
mod queues;
#[path = "common/waiting.rs"]
mod waiting;

use common::State;
use eintr::{Scope, sys};
use nix::errno::Errno;
use nix::fcntl::SpliceFFlags;
use nix::mqueue::MqdT;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::epoll::{Epoll, EpollEvent, EpollTimeout};
use nix::sys::select::FdSet;
use nix::sys::wait::{Id, WaitPidFlag};
use nix::time::ClockId;
use nix::unistd::Pid;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use waiting::{Waiting, assert_errno, assert_remote, in_three_ways};

struct Read(OwnedFd, OwnedFd);
impl Waiting for Read {
    type Value = u8;
    const NUMBER: libc::c_long = libc::SYS_read;
    fn new() -> Read {
        let (read, write) = common::pipe();
        Read(read, write)
    }
    fn call(&self) -> sys::Result<u8> {
        let mut byte = 0u8;
        let args = [self.0.as_raw_fd() as usize, &raw mut byte as usize, 1, 0, 0, 0];
        unsafe { sys::syscall(libc::SYS_read, args) }.map(|n| {
            assert_eq!(n, 1);
            byte
        })
    }
    fn ready(&self, _: libc::pid_t) {
        nix::unistd::write(&self.1, b"r").unwrap();
    }
    fn check(&self, value: u8) {
        assert_eq!(value, b'r');
    }
}

#[test]
fn a_call_by_number_waits() {
    let _t = common::begin();
    in_three_ways::<Read>();
}

/// All six arguments arrive in their places: futex takes six, of which the fourth is a time and the last a set.
#[test]
fn six_arguments_arrive() {
    let _t = common::begin();
    let (word, past) = (5u32, libc::timespec { tv_sec: 0, tv_nsec: 1 });
    let time = &raw const past as usize;
    let wait = |expected, bits| {
        let args = [&raw const word as usize, libc::FUTEX_WAIT_BITSET as usize, expected, time, 0, bits];
        unsafe { sys::syscall(libc::SYS_futex, args) }
    };
    assert_errno(wait(5, 1), Errno::ETIMEDOUT);
    assert_errno(wait(6, 1), Errno::EAGAIN);
    assert_errno(wait(5, 0), Errno::EINVAL);
    let (from, mut fds) = (File::open("/proc/self/exe").unwrap(), [0; 2]);
    assert_eq!(unsafe { libc::pipe(fds.as_mut_ptr()) }, 0);
    let [read, write] = fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    let mut offset = 1i64;
    let args = [from.as_raw_fd() as usize, &raw mut offset as usize, write.as_raw_fd() as usize, 0, 3, 0];
    assert_eq!(unsafe { sys::syscall(libc::SYS_splice, args) }, Ok(3));
    let mut buf = [0u8; 8];
    assert_eq!(unsafe { libc::read(read.as_raw_fd(), buf.as_mut_ptr().cast(), 8) }, 3);
    assert_eq!(&buf[..3], b"ELF");
}

/// Numbers of each reason; had one of them been made, this process would be gone, doubled or hanging.
#[test]
fn what_must_not_go_through_the_stub_is_refused() {
    let _t = common::begin();
    let refused = [
        libc::SYS_close,
        libc::SYS_close_range,
        libc::SYS_exit,
        libc::SYS_exit_group,
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_rt_sigreturn,
        libc::SYS_clone,
        libc::SYS_clone3,
        libc::SYS_rt_sigsuspend,
        libc::SYS_restart_syscall,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_fork,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_vfork,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_pause,
    ];
    let scope = Scope::enter(libc::SIGUSR1).unwrap();
    let (read, _write) = common::pipe();
    let fd = read.as_raw_fd() as usize;
    for nr in refused {
        // As the kernel reads a number: its lower 32 bits, and on x86_64 without the bit of x32.
        for nr in [nr, nr + (1 << 32), nr | 0x4000_0000, nr - (1 << 32)] {
            assert_errno(unsafe { sys::syscall(nr, [fd, fd, 0, 0, 0, 0]) }, Errno::ENOSYS);
        }
    }
    assert!(nix::fcntl::fcntl(&read, nix::fcntl::FcntlArg::F_GETFD).is_ok(), "it is open");
    scope.remote().interrupt();
    assert_errno(unsafe { sys::syscall(libc::SYS_close, [fd, 0, 0, 0, 0, 0]) }, Errno::ENOSYS);
    assert_remote(unsafe { sys::syscall(libc::SYS_getpid, [0; 6]) });
}

#[test]
fn a_number_without_a_call_is_the_kernels_enosys() {
    let _t = common::begin();
    for nr in [-1, 1000, 4095, i64::from(i32::MAX), i64::from(i32::MIN)] {
        assert_errno(unsafe { sys::syscall(nr, [0; 6]) }, Errno::ENOSYS);
    }
    assert_eq!(unsafe { sys::syscall(libc::SYS_getpid, [0; 6]) }, Ok(common::getpid() as usize));
}

/// Descriptors that are not open, numbers that nobody has, arguments out of range.
#[test]
fn the_kernels_own_error_comes_out_unchanged() {
    let _t = common::begin();
    let before = State::now();
    let scope = Scope::enter(libc::SIGUSR1).unwrap();
    let (fd, bad) = (common::pipe().0, unsafe { BorrowedFd::borrow_raw(1_000_000) });
    let (no_pid, none) = (Pid::from_raw(libc::pid_t::MAX), SpliceFFlags::empty());
    for _ in 0..2 {
        assert_eq!(sys::poll(&mut [PollFd::new(bad, PollFlags::POLLIN)], PollTimeout::ZERO), Ok(1)); // POLLNVAL
        assert_errno(sys::pselect(Some(-1), None, None, None, None, None), Errno::EINVAL);
        bad_sets();
        bad_epolls();
        assert_errno(sys::wait4(Some(no_pid), WaitPidFlag::empty()), Errno::ECHILD);
        assert_errno(sys::wait4(None, WaitPidFlag::WNOWAIT), Errno::EINVAL);
        assert_errno(sys::waitid(Id::Pid(no_pid), WaitPidFlag::WEXITED).map(drop), Errno::ECHILD);
        assert_errno(sys::waitid(Id::All, WaitPidFlag::empty()).map(drop), Errno::EINVAL);
        assert_errno(sys::waitid(Id::PIDFd(fd.as_fd()), WaitPidFlag::WEXITED).map(drop), Errno::EBADF);
        assert_errno(
            sys::waitid(Id::_Unreachable(std::marker::PhantomData), WaitPidFlag::WEXITED).map(drop),
            Errno::EINVAL,
        );
        let until = libc::timespec { tv_sec: 0, tv_nsec: 0 }.into();
        assert_errno(sys::clock_nanosleep(ClockId::from_raw(99), until), Errno::EINVAL);
        let queue = std::mem::ManuallyDrop::new(unsafe { MqdT::from_raw_fd(fd.as_raw_fd()) });
        assert_errno(sys::mq_send(&queue, b"", 0, None), Errno::EBADF);
        assert_errno(sys::mq_receive(&queue, &mut [], None), Errno::EBADF);
        bad_queues();
        assert_errno(sys::getrandom(&mut [0; 8], 0x8000), Errno::EINVAL);
        assert_errno(sys::splice(bad, None, &fd, None, 1, none), Errno::EBADF);
        assert_errno(sys::splice(&fd, Some(&mut 0), &fd, None, 1, none), Errno::ESPIPE);
        assert_errno(sys::tee(&fd, &fd, 1, none), Errno::EBADF); // not open for writing
        assert_errno(sys::sendfile(&fd, &fd, None, 1), Errno::EBADF);
        assert_errno(sys::copy_file_range(bad, None, bad, None, 1), Errno::EBADF);
    }
    scope.remote().interrupt();
    assert_remote(sys::poll(&mut [], PollTimeout::NONE));
    drop(scope);
    assert_eq!(State::now(), before);
}

fn bad_sets() {
    // One that was open until now: numbers that no descriptor has ever had are overlooked by the kernel.
    let closed = common::pipe().0.as_raw_fd();
    let closed = unsafe { BorrowedFd::borrow_raw(closed) };
    let mut set = FdSet::new();
    set.insert(closed);
    let hour = Some(libc::timespec { tv_sec: 3600, tv_nsec: 0 }.into());
    assert_errno(sys::pselect(None, Some(&mut set), None, None, hour, None), Errno::EBADF);
    assert!(set.contains(closed), "as it was");
}

/// In a process with more descriptors than a set has bits a greater `nfds` would make the kernel read and write behind the set.
#[test]
fn no_more_is_looked_at_than_a_set_has() {
    let _t = common::begin();
    let mut limit = unsafe { std::mem::zeroed::<libc::rlimit>() };
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) }, 0);
    limit.rlim_cur = limit.rlim_max;
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
    let (pipe, _write) = common::pipe();
    let high = unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 2000) };
    if high < 0 {
        println!("SKIPPED: pselect beyond a set: no descriptor above 2000: RLIMIT_NOFILE is {}", limit.rlim_max);
        return;
    }
    let _high = unsafe { OwnedFd::from_raw_fd(high) };
    let zero = Some(libc::timespec { tv_sec: 0, tv_nsec: 0 }.into());
    let mut sets = [FdSet::new(), FdSet::new()];
    sets[1].insert(pipe.as_fd());
    let before = sets[1];
    for nfds in [1025, high + 1, i32::MAX] {
        assert_eq!(sys::pselect(Some(nfds), Some(&mut sets[0]), None, None, zero, None), Ok(0));
        assert_eq!(sets[1], before);
    }
}

fn bad_epolls() {
    let epoll = Epoll::new(nix::sys::epoll::EpollCreateFlags::empty()).unwrap();
    assert_errno(sys::epoll_wait(&epoll, &mut [], EpollTimeout::ZERO), Errno::EINVAL);
    let no_epoll = Epoll(common::pipe().0);
    assert_errno(sys::epoll_wait(&no_epoll, &mut [EpollEvent::empty()], EpollTimeout::ZERO), Errno::EINVAL);
}

fn bad_queues() {
    let (queue, sem) = (queues::Msg::new(), queues::Sem::new());
    assert_errno(sys::msgsnd(-1, 1, b"", 0), Errno::EINVAL);
    assert_errno(sys::msgsnd(queue.0, 0, b"", 0), Errno::EINVAL);
    assert_errno(sys::msgsnd(queue.0, 1, &vec![0; 1 << 24], 0), Errno::EINVAL); // above msgmax
    assert_errno(sys::msgrcv(-1, &mut [], 0, 0), Errno::EINVAL);
    assert_errno(sys::msgrcv(queue.0, &mut [], 0, libc::IPC_NOWAIT), Errno::ENOMSG);
    assert_errno(sys::semtimedop(-1, &mut queues::Sem::down(), None), Errno::EINVAL);
    assert_errno(sys::semtimedop(sem.0, &mut [], None), Errno::EINVAL);
    let no_such = libc::sembuf { sem_num: 7, sem_op: 1, sem_flg: 0 };
    assert_errno(sys::semtimedop(sem.0, &mut [no_such], None), Errno::EFBIG);
    let nowait = libc::sembuf { sem_num: 0, sem_op: -1, sem_flg: libc::IPC_NOWAIT as i16 };
    assert_errno(sys::semtimedop(sem.0, &mut [nowait], None), Errno::EAGAIN);
}
