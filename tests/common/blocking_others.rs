//! Plain calls that block and are not ended by turning a restart: those that the kernel never restarts, and those that must be restarted. Part of
//! `blocking`.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block
)]

use super::{Blocking, Make, Returned, Told, path, returned, write_byte};
use crate::common;
use libc::{c_int, c_long};
use std::mem::zeroed;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

/// Calls that any handler ends, whatever its flags (signal(7)).
pub const NEVER_RESTARTED: [Make; 5] = [
    || Some(ready("poll", |fd| unsafe { libc::poll(&mut readable(fd), 1, -1) })),
    || Some(ready("ppoll", |fd| unsafe { libc::ppoll(&mut readable(fd), 1, std::ptr::null(), std::ptr::null()) })),
    || Some(ready("epoll_wait", epoll_wait)),
    msgrcv,
    semop,
];

fn readable(fd: RawFd) -> libc::pollfd {
    libc::pollfd { fd, events: libc::POLLIN, revents: 0 }
}

fn epoll_wait(fd: RawFd) -> c_int {
    let epoll = unsafe { OwnedFd::from_raw_fd(libc::epoll_create1(libc::EPOLL_CLOEXEC)) };
    let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
    unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event) };
    unsafe { libc::epoll_wait(epoll.as_raw_fd(), &mut event, 1, -1) }
}

/// Waits for a pipe to be ready. What call that is to the kernel depends on the libc.
fn ready(name: &'static str, call: fn(RawFd) -> c_int) -> Blocking {
    let (reader, writer) = common::pipe();
    Blocking {
        name,
        nr: ANY,
        call: Box::new(move || returned(call(reader.as_raw_fd()))),
        release: Box::new(move || write_byte(&writer)),
        told: Told::Eintr,
    }
}

/// Stands for any call.
pub const ANY: c_long = -1;

fn msgrcv() -> Option<Blocking> {
    let id = unsafe { libc::msgget(libc::IPC_PRIVATE, 0o600) };
    if id < 0 {
        eprintln!("SKIPPED: calls on System V message queues: msgget: {}", std::io::Error::last_os_error());
        return None;
    }
    let message = || [1u64, 0];
    Some(Blocking {
        name: "msgrcv",
        nr: libc::SYS_msgrcv,
        call: Box::new(move || returned(unsafe { libc::msgrcv(id, message().as_mut_ptr().cast(), 8, 0, 0) } as i64)),
        release: Box::new(move || {
            assert_eq!(unsafe { libc::msgsnd(id, message().as_ptr().cast(), 8, 0) }, 0);
            // Once it is empty it goes.
            let mut state: libc::msqid_ds = unsafe { zeroed() };
            common::wait_until(|| unsafe { libc::msgctl(id, libc::IPC_STAT, &mut state) } == 0 && state.msg_qnum == 0);
            unsafe { libc::msgctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
        }),
        told: Told::Eintr,
    })
}

fn semop() -> Option<Blocking> {
    let id = unsafe { libc::semget(libc::IPC_PRIVATE, 1, 0o600) };
    if id < 0 {
        eprintln!("SKIPPED: calls on System V semaphores: semget: {}", std::io::Error::last_os_error());
        return None;
    }
    let change = |by| libc::sembuf { sem_num: 0, sem_op: by, sem_flg: 0 };
    Some(Blocking {
        name: "semop",
        nr: ANY,
        call: Box::new(move || returned(unsafe { libc::semop(id, &mut change(-1), 1) })),
        release: Box::new(move || {
            assert_eq!(unsafe { libc::semop(id, &mut change(1), 1) }, 0);
            common::wait_until(|| unsafe { libc::semctl(id, 0, libc::GETVAL) } == 0);
            unsafe { libc::semctl(id, 0, libc::IPC_RMID) };
        }),
        told: Told::Eintr,
    })
}

/// Calls that block and restart, and that no interrupt may touch: EINTR would be taken for something else than "not done".
pub const UNTOUCHED: [Make; 2] = [|| Some(connect()), || Some(lock_pi())];

/// A connection that the listener has no room for.
fn connect() -> Blocking {
    let path = path("full");
    let listener = UnixListener::bind(&path).expect("bind");
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let mut address: libc::sockaddr_un = unsafe { zeroed() };
    address.sun_family = libc::AF_UNIX as _;
    for (place, byte) in address.sun_path.iter_mut().zip(path.to_str().expect("a path in UTF-8").bytes()) {
        *place = byte as _;
    }
    let connect = move |kind: c_int| unsafe {
        let fd = OwnedFd::from_raw_fd(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | kind, 0));
        let length = size_of_val(&address) as libc::socklen_t;
        let r = returned(libc::connect(fd.as_raw_fd(), (&raw const address).cast(), length));
        r.map(|_| fd)
    };
    let queued: Vec<_> = std::iter::from_fn(|| connect(libc::SOCK_NONBLOCK).ok()).collect();
    Blocking {
        name: "connect",
        nr: libc::SYS_connect,
        call: Box::new(move || connect(0).map(|_| 0)),
        release: Box::new(move || {
            for _ in &queued {
                listener.accept().expect("one of the queue");
            }
            // The one that waited looks for the name again.
            let mut ready = readable(listener.as_raw_fd());
            unsafe { libc::poll(&mut ready, 1, 10_000) };
            std::fs::remove_file(&path).expect("the socket's name");
        }),
        told: Told::Nothing,
    }
}

fn futex_pi(word: &AtomicU32, command: c_int) -> Returned {
    returned(unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), command | libc::FUTEX_PRIVATE_FLAG, 0, 0usize, 0usize, 0)
    })
}

/// A futex with priority inheritance that another thread owns.
fn lock_pi() -> Blocking {
    let word = Arc::new(AtomicU32::new(0));
    let other = Arc::clone(&word);
    let ((tell, told), (let_go, wait)) = (std::sync::mpsc::channel(), std::sync::mpsc::channel::<()>());
    let owner = common::unsignalled(move || {
        assert_eq!(futex_pi(&other, libc::FUTEX_LOCK_PI), Ok(0));
        tell.send(()).expect("the test waits");
        let _ = wait.recv();
        assert_eq!(futex_pi(&other, libc::FUTEX_UNLOCK_PI), Ok(0));
    });
    told.recv().expect("the owner lives");
    Blocking {
        name: "futex, FUTEX_LOCK_PI",
        nr: libc::SYS_futex,
        call: Box::new(move || {
            let r = futex_pi(&word, libc::FUTEX_LOCK_PI);
            if r.is_ok() {
                let owner = word.load(SeqCst) & libc::FUTEX_TID_MASK;
                assert_eq!(owner, common::gettid() as u32, "it is told that it has the lock");
                assert_eq!(futex_pi(&word, libc::FUTEX_UNLOCK_PI), Ok(0));
            }
            r
        }),
        release: Box::new(move || {
            drop(let_go);
            owner.join().expect("the owner ends well");
        }),
        told: Told::Nothing,
    }
}
