//! Queues and semaphores of one's own, gone when they are dropped.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block
)]

use nix::mqueue::{MQ_OFlag, MqAttr, MqdT, mq_open, mq_unlink};
use nix::sys::stat::Mode;
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::atomic::{AtomicU32, Ordering};

/// A POSIX queue that holds one message of 8 bytes.
#[derive(Debug)]
pub struct Mq(pub MqdT);

impl Mq {
    /// `None` where the kernel has none, which is printed.
    pub fn new() -> Option<Mq> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("/eintr-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        let flags = MQ_OFlag::O_RDWR | MQ_OFlag::O_CREAT | MQ_OFlag::O_EXCL | MQ_OFlag::O_CLOEXEC;
        match mq_open(name.as_str(), flags, Mode::S_IRWXU, Some(&MqAttr::new(0, 1, 8, 0))) {
            Ok(queue) => {
                mq_unlink(name.as_str()).unwrap();
                Some(Mq(queue))
            }
            Err(e) => {
                println!("SKIPPED: POSIX message queues: mq_open: {e}");
                None
            }
        }
    }

    /// Fills it, by the plain call.
    pub fn fill(&self) {
        nix::mqueue::mq_send(&self.0, b"full", 3).unwrap();
    }

    /// Takes what is there, by the plain call.
    pub fn take(&self) -> Vec<u8> {
        let (mut msg, mut priority) = ([0; 8], 0);
        let length = nix::mqueue::mq_receive(&self.0, &mut msg, &mut priority).unwrap();
        msg[..length].to_vec()
    }

    pub fn count(&self) -> i64 {
        nix::mqueue::mq_getattr(&self.0).unwrap().curmsgs()
    }
}

impl Drop for Mq {
    fn drop(&mut self) {
        drop(unsafe { std::os::fd::OwnedFd::from_raw_fd(self.0.as_raw_fd()) });
    }
}

/// A System V queue.
#[derive(Debug)]
pub struct Msg(pub i32);

impl Msg {
    pub fn new() -> Msg {
        let id = unsafe { libc::msgget(libc::IPC_PRIVATE, 0o600) };
        assert!(id >= 0, "msgget");
        Msg(id)
    }

    fn stat(&self) -> libc::msqid_ds {
        let mut stat = unsafe { std::mem::zeroed() };
        assert_eq!(unsafe { libc::msgctl(self.0, libc::IPC_STAT, &mut stat) }, 0);
        stat
    }

    /// Room for a single message of 8 bytes.
    pub fn narrow(self) -> Msg {
        let mut stat = self.stat();
        stat.msg_qbytes = 8;
        assert_eq!(unsafe { libc::msgctl(self.0, libc::IPC_SET, &mut stat) }, 0);
        self
    }

    pub fn count(&self) -> u64 {
        self.stat().msg_qnum
    }

    pub fn send(&self, kind: i64, bytes: [u8; 8]) {
        let msg = (kind, bytes);
        assert_eq!(unsafe { libc::msgsnd(self.0, (&raw const msg).cast(), 8, libc::IPC_NOWAIT) }, 0);
    }

    pub fn take(&self) -> (i64, [u8; 8]) {
        let mut msg = (0i64, [0u8; 8]);
        assert_eq!(unsafe { libc::msgrcv(self.0, (&raw mut msg).cast(), 8, 0, libc::IPC_NOWAIT) }, 8);
        msg
    }
}

impl Drop for Msg {
    fn drop(&mut self) {
        unsafe { libc::msgctl(self.0, libc::IPC_RMID, std::ptr::null_mut()) };
    }
}

/// A System V semaphore, 0 at first.
#[derive(Debug)]
pub struct Sem(pub i32);

impl Sem {
    pub fn new() -> Sem {
        let id = unsafe { libc::semget(libc::IPC_PRIVATE, 1, 0o600) };
        assert!(id >= 0, "semget");
        Sem(id)
    }

    pub fn down() -> [libc::sembuf; 1] {
        [libc::sembuf { sem_num: 0, sem_op: -1, sem_flg: 0 }]
    }

    pub fn up(&self) {
        let mut op = libc::sembuf { sem_num: 0, sem_op: 1, sem_flg: 0 };
        assert_eq!(unsafe { libc::semop(self.0, &mut op, 1) }, 0);
    }

    pub fn value(&self) -> i32 {
        unsafe { libc::semctl(self.0, 0, libc::GETVAL) }
    }
}

impl Drop for Sem {
    fn drop(&mut self) {
        unsafe { libc::semctl(self.0, 0, libc::IPC_RMID) };
    }
}
