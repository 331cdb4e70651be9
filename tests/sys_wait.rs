//! Waiting for descriptors, children and signals: other people's signals change nothing, an interrupt ends it, nothing is lost; and no mask or set
//! that is passed keeps an interrupt out.
// Signals, children and descriptors are made by raw system calls, as applications do.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/waiting.rs"]
mod waiting;

use common::{getpid, wait_blocked_in};
use eintr::{Scope, sys};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::select::FdSet;
use nix::sys::signal::SigSet;
use nix::sys::wait::{Id, WaitPidFlag};
use nix::unistd::Pid;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use waiting::{Caller, Foreign, Waiting, assert_remote, in_three_ways, numbers};

/// A pipe; ready when there is a byte.
struct Pipe(OwnedFd, OwnedFd);

impl Pipe {
    fn new() -> Pipe {
        let (read, write) = common::pipe();
        Pipe(read, write)
    }
    fn fill(&self) {
        assert_eq!(nix::unistd::write(&self.1, b"x"), Ok(1));
    }
    fn is_full(&self) -> bool {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        nix::poll::poll(&mut fds, PollTimeout::ZERO) == Ok(1)
    }
}

/// Every signal, the numbers of scopes and libc's own too.
fn every_signal() -> SigSet {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    unsafe {
        set.as_mut_ptr().cast::<u8>().write_bytes(0xff, size_of::<libc::sigset_t>());
        SigSet::from_sigset_t_unchecked(set.assume_init())
    }
}

type OnPipe = fn(&Pipe) -> sys::Result<usize>;

macro_rules! waits_on_a_pipe {
    ($test:ident, $number:expr, $call:expr) => {
        #[test]
        fn $test() {
            struct Case(Pipe);
            impl Waiting for Case {
                type Value = usize;
                const NUMBER: libc::c_long = $number;
                fn new() -> Case {
                    Case(Pipe::new())
                }
                fn call(&self) -> sys::Result<usize> {
                    let call: OnPipe = $call;
                    call(&self.0)
                }
                fn ready(&self, _: libc::pid_t) {
                    self.0.fill();
                }
                fn check(&self, value: usize) {
                    assert_eq!(value, 1);
                    assert!(self.0.is_full(), "it only looks");
                }
            }
            let _t = common::begin();
            in_three_ways::<Case>();
        }
    };
}

fn to_read(pipe: &Pipe) -> [PollFd<'_>; 1] {
    [PollFd::new(pipe.0.as_fd(), PollFlags::POLLIN)]
}

waits_on_a_pipe!(poll_waits, libc::SYS_ppoll, |pipe| {
    let mut fds = to_read(pipe);
    let answer = sys::poll(&mut fds, PollTimeout::NONE);
    assert!(answer.is_err() || fds[0].revents() == Some(PollFlags::POLLIN));
    answer
});
waits_on_a_pipe!(poll_with_a_time_waits, libc::SYS_ppoll, |pipe| sys::poll(&mut to_read(pipe), PollTimeout::MAX));
waits_on_a_pipe!(ppoll_waits, libc::SYS_ppoll, |pipe| sys::ppoll(&mut to_read(pipe), None, None));
waits_on_a_pipe!(ppoll_waits_with_the_number_in_its_mask, libc::SYS_ppoll, |pipe| {
    // Not every signal: those of others are to get through.
    let mut set = *SigSet::empty().as_ref();
    for sig in numbers() {
        unsafe { libc::sigaddset(&mut set, sig) };
    }
    sys::ppoll(&mut to_read(pipe), None, Some(unsafe { SigSet::from_sigset_t_unchecked(set) }))
});
waits_on_a_pipe!(pselect_waits, libc::SYS_pselect6, |pipe| {
    let (mut read, mut write) = (FdSet::new(), FdSet::new());
    read.insert(pipe.0.as_fd());
    let answer = sys::pselect(None, Some(&mut read), Some(&mut write), None, None, Some(&SigSet::empty()));
    assert!(read.contains(pipe.0.as_fd()), "as it was, or ready");
    answer
});
waits_on_a_pipe!(epoll_wait_waits, libc::SYS_epoll_pwait, |pipe| {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    epoll.add(&pipe.0, EpollEvent::new(EpollFlags::EPOLLIN, 7)).unwrap();
    let mut events = [EpollEvent::empty(); 2];
    let answer = sys::epoll_wait(&epoll, &mut events, EpollTimeout::NONE);
    assert!(answer.is_err() || events[0].data() == 7);
    answer
});
waits_on_a_pipe!(epoll_pwait_waits, libc::SYS_epoll_pwait, |pipe| {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    epoll.add(&pipe.0, EpollEvent::new(EpollFlags::EPOLLIN, 7)).unwrap();
    sys::epoll_pwait(&epoll, &mut [EpollEvent::empty()], EpollTimeout::MAX, Some(&SigSet::empty()))
});

/// An event that is told once only (EPOLLONESHOT) is not spent on a call that was interrupted.
#[test]
fn an_interrupted_epoll_wait_spends_no_event() {
    let _t = common::begin();
    let pipe = Pipe::new();
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    epoll.add(&pipe.0, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT, 7)).unwrap();
    pipe.fill();
    let scope = Scope::enter(libc::SIGUSR1).unwrap();
    scope.remote().interrupt();
    let mut events = [EpollEvent::empty()];
    assert_remote(sys::epoll_wait(&epoll, &mut events, EpollTimeout::NONE));
    scope.clear();
    assert_eq!(sys::epoll_wait(&epoll, &mut events, EpollTimeout::ZERO).unwrap(), 1);
    assert_eq!(sys::epoll_wait(&epoll, &mut events, EpollTimeout::ZERO).unwrap(), 0);
}

/// With every signal in the mask, other people's are held off meanwhile, and the interrupt is not.
#[test]
fn a_full_mask_keeps_no_interrupt_out() {
    let _t = common::begin();
    let calls: [(libc::c_long, OnPipe); 3] = [
        (libc::SYS_ppoll, |pipe| sys::ppoll(&mut to_read(pipe), None, Some(every_signal()))),
        (libc::SYS_pselect6, |pipe| {
            let mut read = FdSet::new();
            read.insert(pipe.0.as_fd());
            sys::pselect(None, Some(&mut read), None, None, None, Some(&every_signal()))
        }),
        (libc::SYS_epoll_pwait, |pipe| {
            let epoll = Epoll::new(EpollCreateFlags::empty()).unwrap();
            epoll.add(&pipe.0, EpollEvent::new(EpollFlags::EPOLLIN, 7)).unwrap();
            sys::epoll_pwait(&epoll, &mut [EpollEvent::empty()], EpollTimeout::NONE, Some(&every_signal()))
        }),
    ];
    for (nr, call) in calls {
        for sig in numbers() {
            let caller = Caller::start(Some(sig), move |_| {
                let inner = Scope::enter(libc::SIGALRM).unwrap(); // a second number
                let before = common::mask();
                let answer = call(&Pipe::new());
                assert_eq!(common::mask(), before);
                drop(inner);
                answer
            });
            wait_blocked_in(caller.tid, nr);
            let blocked = common::status_bits(caller.tid, "SigBlk:");
            let ours = common::bit(sig) | common::bit(libc::SIGALRM);
            let all_but_ours = !(ours | common::bit(libc::SIGKILL) | common::bit(libc::SIGSTOP));
            // An emulator never blocks what it needs itself.
            assert!(blocked == all_but_ours || common::emulated() && blocked & ours == 0, "{blocked:#x}");
            caller.interrupt();
            assert_remote(caller.join());
        }
    }
}

/// A mask that blocks the number is the caller's word for other calls; here the thread's own mask has it too, and the wait is interruptible.
#[test]
fn a_number_that_the_thread_blocks_is_open_in_a_wait_with_a_mask() {
    let _t = common::begin();
    let caller = Caller::start(Some(libc::SIGUSR1), |_| {
        common::block(libc::SIGUSR1);
        let answer = sys::ppoll(&mut to_read(&Pipe::new()), None, Some(SigSet::thread_get_mask().unwrap()));
        assert_ne!(common::mask() & common::bit(libc::SIGUSR1), 0, "the thread's own mask is as it was");
        common::unblock(libc::SIGUSR1);
        answer
    });
    wait_blocked_in(caller.tid, libc::SYS_ppoll);
    caller.interrupt();
    assert_remote(caller.join());
}

/// A child that ends by a real-time signal, which nix's WaitStatus cannot say.
struct Child {
    pid: libc::pid_t,
    _not_yet: OwnedFd,
}

impl Child {
    fn new() -> Child {
        let (read, write) = common::pipe();
        let pid = common::fork(|| {
            unsafe { libc::close(std::os::fd::AsRawFd::as_raw_fd(&write)) };
            common::plain_read(&read).map_or(2, |_| 3)
        });
        Child { pid, _not_yet: write }
    }
    fn end(&self) {
        assert_eq!(unsafe { libc::kill(self.pid, libc::SIGRTMIN() + 5) }, 0);
    }
    fn is_reaped(&self) -> bool {
        unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), libc::WNOHANG) == -1 }
    }
}

struct Wait4(Child);
impl Waiting for Wait4 {
    type Value = Option<(Pid, ExitStatus)>;
    const NUMBER: libc::c_long = libc::SYS_wait4;
    fn new() -> Wait4 {
        Wait4(Child::new())
    }
    fn call(&self) -> sys::Result<Self::Value> {
        sys::wait4(Some(Pid::from_raw(self.0.pid)), WaitPidFlag::empty())
    }
    fn ready(&self, _: libc::pid_t) {
        self.0.end();
    }
    fn check(&self, value: Self::Value) {
        let (pid, status) = value.expect("a child");
        assert_eq!((pid.as_raw(), status.signal()), (self.0.pid, Some(libc::SIGRTMIN() + 5)));
        assert!(self.0.is_reaped());
    }
}

#[test]
fn wait4_waits() {
    let _t = common::begin();
    in_three_ways::<Wait4>();
}

struct Waitid(Child);
impl Waiting for Waitid {
    type Value = (i32, i32, i32);
    const NUMBER: libc::c_long = libc::SYS_waitid;
    fn new() -> Waitid {
        Waitid(Child::new())
    }
    fn call(&self) -> sys::Result<Self::Value> {
        let info = sys::waitid(Id::Pid(Pid::from_raw(self.0.pid)), WaitPidFlag::WEXITED)?;
        Ok(unsafe { (info.si_signo, info.si_pid(), info.si_status()) })
    }
    fn ready(&self, _: libc::pid_t) {
        self.0.end();
    }
    fn check(&self, value: Self::Value) {
        assert_eq!(value, (libc::SIGCHLD, self.0.pid, libc::SIGRTMIN() + 5));
        assert!(self.0.is_reaped());
    }
}

#[test]
fn waitid_waits() {
    let _t = common::begin();
    in_three_ways::<Waitid>();
}

#[test]
fn a_child_that_goes_on_is_none_under_wnohang() {
    let _t = common::begin();
    let child = Child::new();
    let pid = Pid::from_raw(child.pid);
    assert_eq!(sys::wait4(Some(pid), WaitPidFlag::WNOHANG).unwrap(), None);
    let info = sys::waitid(Id::Pid(pid), WaitPidFlag::WNOHANG | WaitPidFlag::WEXITED).unwrap();
    let bytes: [u8; 128] = unsafe { std::mem::transmute(info) };
    assert_eq!(bytes, [0; 128]);
    child.end();
    let left = sys::waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
    assert_eq!(unsafe { left.si_pid() }, child.pid);
    assert_eq!(sys::wait4(None, WaitPidFlag::__WALL).unwrap().map(|(pid, _)| pid), Some(pid));
}

/// Takes a real-time signal that the thread blocks.
struct Sigtimedwait;
impl Sigtimedwait {
    fn number() -> i32 {
        libc::SIGRTMIN() + 7
    }
    fn call_with(set: &libc::sigset_t) -> sys::Result<Option<i32>> {
        Ok(sys::sigtimedwait(set, None)?.map(|info| info.si_signo))
    }
}
fn send(tid: libc::pid_t, sig: i32) {
    assert_eq!(unsafe { libc::syscall(libc::SYS_tgkill, getpid(), tid, sig) }, 0);
}
impl Waiting for Sigtimedwait {
    type Value = Option<i32>;
    const NUMBER: libc::c_long = libc::SYS_rt_sigtimedwait;
    fn new() -> Sigtimedwait {
        Sigtimedwait
    }
    fn prepare(&self) {
        common::block(Sigtimedwait::number());
    }
    fn call(&self) -> sys::Result<Self::Value> {
        let mut set = *SigSet::empty().as_ref();
        unsafe { libc::sigaddset(&mut set, Sigtimedwait::number()) };
        Sigtimedwait::call_with(&set)
    }
    fn ready(&self, caller: libc::pid_t) {
        send(caller, Sigtimedwait::number());
    }
    fn check(&self, value: Self::Value) {
        assert_eq!(value, Some(Sigtimedwait::number()));
    }
}

#[test]
fn sigtimedwait_waits() {
    let _t = common::begin();
    in_three_ways::<Sigtimedwait>();
}

/// The interrupt's own signal is never the result, with every number in the set.
#[test]
fn sigtimedwait_of_every_signal_takes_no_interrupt() {
    let _t = common::begin();
    for sig in numbers() {
        let caller = Caller::start(Some(sig), move |scope| {
            Sigtimedwait.prepare();
            loop {
                match Sigtimedwait::call_with(every_signal().as_ref()) {
                    Ok(taken) => return taken,
                    interrupted => assert_remote(interrupted),
                }
                scope.unwrap().clear();
            }
        });
        for _ in 0..500 {
            let sleeps = || common::blocked_in(caller.tid) == libc::SYS_rt_sigtimedwait;
            common::wait_until(|| sleeps() || caller.thread.is_finished());
            caller.interrupt();
        }
        Sigtimedwait.ready(caller.tid);
        assert_eq!(caller.join(), Some(Sigtimedwait::number()));
    }
}

/// A foreign signal of the set that the thread has *not* blocked may be taken, as the kernel has it; one outside of the set runs its handler.
#[test]
fn signals_outside_of_the_set_run_their_handlers() {
    let _t = common::begin();
    let foreign = Foreign::install();
    let caller = Caller::start(Some(libc::SIGUSR1), |_| {
        Sigtimedwait.prepare();
        Sigtimedwait.call()
    });
    foreign.strike(caller.tid, libc::SYS_rt_sigtimedwait);
    send(caller.tid, Sigtimedwait::number());
    assert_eq!(caller.join().unwrap(), Some(Sigtimedwait::number()));
}
