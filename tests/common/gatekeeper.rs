//! Stops a sender inside the gate for as long as a test likes: its `rt_tgsigqueueinfo(2)`, or another call, is held by a seccomp filter of its own
//! thread (SECCOMP_RET_USER_NOTIF, seccomp_unotify(2)) until somebody lets it go on. A test file takes it by
//! `#[path = "common/gatekeeper.rs"] mod gatekeeper;` beside `mod common;`.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block
)]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::mpsc;
use std::thread::JoinHandle;

// linux/seccomp.h: _IOWR('!', 0, struct seccomp_notif) and _IOWR('!', 1, struct seccomp_notif_resp)
const NOTIF_RECV: u64 = 0xC050_2100;
const NOTIF_SEND: u64 = 0xC018_2101;
const _: () = assert!(size_of::<libc::seccomp_notif>() == 80 && size_of::<libc::seccomp_notif_resp>() == 24);

/// A thread that stands in its call.
#[derive(Debug)]
pub struct HeldSender<T> {
    listener: OwnedFd,
    call: u64,
    thread: JoinHandle<T>,
    pub tid: libc::pid_t,
}

/// Whether a sender can be held here; said aloud if not. To be asked before anything is set up that the sender's signal could meet.
pub fn can_hold() -> bool {
    let asked = std::thread::spawn(|| filter_this_thread(SENDS).map(drop)).join().expect("it only asks");
    if let Err(e) = &asked {
        println!("SKIPPED: no seccomp user notification here ({e}): senders are not held inside the gate");
    }
    asked.is_ok()
}

const SENDS: libc::c_long = libc::SYS_rt_tgsigqueueinfo;

/// Starts a thread that runs `send`, and comes back when it stands in `rt_tgsigqueueinfo`. `None`, said aloud, where the kernel gives no such filter.
pub fn hold_sender<T: Send + 'static>(send: impl FnOnce() -> T + Send + 'static) -> Option<HeldSender<T>> {
    hold_in(SENDS, send)
}

/// The same for its first call of this number.
pub fn hold_in<T: Send + 'static>(
    nr: libc::c_long,
    send: impl FnOnce() -> T + Send + 'static,
) -> Option<HeldSender<T>> {
    let (tell, told) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        tell.send(filter_this_thread(nr).map(|fd| (fd, crate::common::gettid()))).expect("the test waits");
        send()
    });
    match told.recv().expect("the sender's thread has started") {
        Err(e) => {
            eprintln!("SKIPPED: no seccomp user notification here ({e}): the sender is not held inside the gate");
            thread.join().expect("the sender ends");
            None
        }
        Ok((listener, tid)) => {
            let mut ready = libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            while unsafe { libc::poll(&mut ready, 1, -1) } < 0 {}
            assert!(ready.revents & libc::POLLIN != 0, "the sender ended without a call of number {nr}");
            let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
            let r = unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_RECV as _, &mut call) };
            assert_eq!(r, 0, "SECCOMP_IOCTL_NOTIF_RECV: {}", std::io::Error::last_os_error());
            Some(HeldSender { listener, call: call.id, thread, tid })
        }
    }
}

impl<T> HeldSender<T> {
    /// Lets the call happen; what `send` returned.
    pub fn release(self) -> T {
        let mut answer: libc::seccomp_notif_resp = unsafe { std::mem::zeroed() };
        answer.id = self.call;
        answer.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as _;
        let r = unsafe { libc::ioctl(self.listener.as_raw_fd(), NOTIF_SEND as _, &mut answer) };
        assert_eq!(r, 0, "SECCOMP_IOCTL_NOTIF_SEND: {}", std::io::Error::last_os_error());
        // Later calls of this thread are let through at once, until it has ended.
        while !self.thread.is_finished() {
            let mut ready = libc::pollfd { fd: self.listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            if unsafe { libc::poll(&mut ready, 1, 10) } != 1 || ready.revents & libc::POLLIN == 0 {
                continue;
            }
            let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
            if unsafe { libc::ioctl(self.listener.as_raw_fd(), NOTIF_RECV as _, &mut call) } == 0 {
                answer.id = call.id;
                unsafe { libc::ioctl(self.listener.as_raw_fd(), NOTIF_SEND as _, &mut answer) };
            }
        }
        self.thread.join().expect("the sender ends")
    }
}

/// The calling thread alone gets a filter that hands this call to the listener and allows the rest.
fn filter_this_thread(nr: libc::c_long) -> std::io::Result<OwnedFd> {
    let op = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let program = [
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0), // seccomp_data.nr
        op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, nr as u32),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_USER_NOTIF),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    let fd = unsafe {
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
            return Err(std::io::Error::last_os_error());
        }
        let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
        libc::syscall(libc::SYS_seccomp, mode, flags, &program)
    };
    if fd < 0 { Err(std::io::Error::last_os_error()) } else { Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) }) }
}
