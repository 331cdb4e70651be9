//! A thread's system call, told to a listener that answers it in the kernel's place (seccomp_unotify(2)): an ioctl that waits, and answers that a
//! kernel gives seldom.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block
)]

use std::mem::zeroed;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, mpsc};
use std::thread::JoinHandle;

const FILTER: u32 = 1; // SECCOMP_SET_MODE_FILTER
const NEW_LISTENER: u32 = 8;
const USER_NOTIF: u32 = 0x7fc0_0000;
const ALLOW: u32 = 0x7fff_0000;
pub const RECEIVE: libc::c_ulong = 0xc050_2100;
const SEND: libc::c_ulong = 0xc018_2101;

/// `struct seccomp_notif`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    pub id: u64,
    pub pid: u32,
    pub flags: u32,
    pub nr: i32,
    pub arch: u32,
    pub instruction: u64,
    pub args: [u64; 6],
}
const _: () = assert!(size_of::<Notice>() == 80);

impl Notice {
    pub fn empty() -> Notice {
        unsafe { zeroed() }
    }
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
struct Answer {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

/// A thread whose getpgid(2) is told to the listener, and answered by who listens.
#[derive(Debug)]
pub struct Told {
    pub listener: OwnedFd,
    go: mpsc::Sender<()>,
    thread: Mutex<Option<JoinHandle<i64>>>,
}

impl Told {
    /// `Err` with errno where filters, or listeners, cannot be had.
    pub fn new() -> Result<Told, i32> {
        let (go, gone) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let listener = listen_to(libc::SYS_getpgid);
            tell.send(listener).unwrap();
            if listener.is_err() || gone.recv().is_err() {
                return 0;
            }
            unsafe { libc::syscall(libc::SYS_getpgid, 17) }
        });
        let listener = unsafe { OwnedFd::from_raw_fd(told.recv().unwrap()?) };
        Ok(Told { listener, go, thread: Mutex::new(Some(thread)) })
    }

    /// The thread makes its call.
    pub fn go(&self) {
        self.go.send(()).unwrap();
    }

    /// Answers the call that was told; the thread must get that.
    pub fn answer(&self, notice: &Notice) {
        assert_eq!((notice.nr as libc::c_long, notice.args[0]), (libc::SYS_getpgid, 17));
        send(&self.listener, &Answer { id: notice.id, value: 4242, error: 0, flags: 0 });
        assert_eq!(self.thread.lock().unwrap().take().unwrap().join().unwrap(), 4242);
    }
}

/// Tells this call of the calling thread, for good. `Err` with errno where filters, or listeners, cannot be had.
pub fn listen_to(nr: libc::c_long) -> Result<RawFd, i32> {
    let statement = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0), // the number of the call
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, nr as u32, 0, 1),
        statement(libc::BPF_RET | libc::BPF_K, USER_NOTIF, 0, 0),
        statement(libc::BPF_RET | libc::BPF_K, ALLOW, 0, 0),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    let fd = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::syscall(libc::SYS_seccomp, FILTER, NEW_LISTENER, &program)
    };
    if fd < 0 { Err(std::io::Error::last_os_error().raw_os_error().unwrap()) } else { Ok(fd as RawFd) }
}

/// Waits for the next call, and answers it with an error.
pub fn fail_next(listener: &OwnedFd, errno: i32) {
    let mut notice = Notice::empty();
    assert_eq!(unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE as _, &mut notice) }, 0);
    send(listener, &Answer { id: notice.id, value: 0, error: -errno, flags: 0 });
}

fn send(listener: &OwnedFd, answer: &Answer) {
    assert_eq!(unsafe { libc::ioctl(listener.as_raw_fd(), SEND as _, answer) }, 0);
}
