//! Calls that block on message queues and semaphores, one [`Case`] each. See [`suite`](crate::suite).
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block
)]

use crate::common;
use crate::suite::{Answer, Case, keep, unique};
use eintr::sys;
use nix::mqueue::{MQ_OFlag, MqAttr, MqdT, mq_attr_member_t, mq_open, mq_unlink};
use nix::sys::stat::Mode;
use std::sync::Arc;

/// A System V object, which is removed when nobody has it any more.
pub struct SystemV {
    pub id: i32,
    remove: fn(i32),
}

impl Drop for SystemV {
    fn drop(&mut self) {
        (self.remove)(self.id);
    }
}

/// Two that share it: the call's, and the other side's. `None`, said aloud, where the kernel has none.
fn system_v(id: i32, remove: fn(i32)) -> Option<[Arc<SystemV>; 2]> {
    if id < 0 {
        println!("SKIPPED: System V IPC: {}", std::io::Error::last_os_error());
        return None;
    }
    let object = Arc::new(SystemV { id, remove });
    Some([object.clone(), object])
}

pub fn message_queue() -> Option<[Arc<SystemV>; 2]> {
    system_v(unsafe { libc::msgget(libc::IPC_PRIVATE, 0o600) }, remove_queue)
}

pub fn semaphores(n: i32) -> Option<[Arc<SystemV>; 2]> {
    system_v(unsafe { libc::semget(libc::IPC_PRIVATE, n, 0o600) }, remove_semaphores)
}

fn remove_queue(id: i32) {
    unsafe { libc::msgctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
}

fn remove_semaphores(id: i32) {
    unsafe { libc::semctl(id, 0, libc::IPC_RMID) };
}

#[repr(C)]
struct Message {
    kind: libc::c_long,
    text: [u8; 8],
}

fn plain_msgsnd(id: i32, kind: libc::c_long, text: &[u8]) -> bool {
    let mut message = Message { kind, text: [0; 8] };
    message.text[..text.len()].copy_from_slice(text);
    unsafe { libc::msgsnd(id, (&raw const message).cast(), text.len(), libc::IPC_NOWAIT) == 0 }
}

fn plain_msgrcv(id: i32) -> Option<(libc::c_long, Vec<u8>)> {
    let mut message = Message { kind: 0, text: [0; 8] };
    let n = unsafe { libc::msgrcv(id, (&raw mut message).cast(), 8, 0, libc::IPC_NOWAIT) };
    (n >= 0).then(|| (message.kind, message.text[..n as usize].to_vec()))
}

/// Of one type among others: those stay.
pub fn msgrcv() -> Option<Case> {
    let [queue, other] = message_queue()?;
    assert!(plain_msgsnd(queue.id, 3, b"not it"));
    let call = move || {
        let mut text = *b"........";
        let answer = sys::msgrcv(queue.id, &mut text, 7, 0);
        assert_eq!(&text, if answer.is_ok() { b"hello..." } else { b"........" });
        let (kind, n) = answer?;
        assert_eq!(kind, 7);
        Ok(n)
    };
    Some(Case::new(libc::SYS_msgrcv, 5, call, move |_| {
        assert!(plain_msgsnd(other.id, 7, b"hello"));
        Box::new(move || {
            assert_eq!(plain_msgrcv(other.id), Some((3, b"not it".to_vec())));
            assert_eq!(plain_msgrcv(other.id), None);
        })
    }))
}

/// To a queue that is full: it holds 16 bytes at most, by its owner's wish.
pub fn msgsnd() -> Option<Case> {
    let [queue, other] = message_queue()?;
    let mut state: libc::msqid_ds = unsafe { std::mem::zeroed() };
    assert_eq!(unsafe { libc::msgctl(queue.id, libc::IPC_STAT, &mut state) }, 0);
    state.msg_qbytes = 16;
    assert_eq!(unsafe { libc::msgctl(queue.id, libc::IPC_SET, &mut state) }, 0);
    let mut filling = 0;
    while plain_msgsnd(queue.id, 1, b"--------") {
        filling += 1;
    }
    let call = move || sys::msgsnd(queue.id, 7, b"hello", 0).map(|()| 0);
    Some(Case::new(libc::SYS_msgsnd, 0, call, move |_| {
        for _ in 0..filling {
            assert_eq!(plain_msgrcv(other.id), Some((1, b"--------".to_vec())));
        }
        Box::new(move || {
            assert_eq!(plain_msgrcv(other.id), Some((7, b"hello".to_vec())));
            assert_eq!(plain_msgrcv(other.id), None, "once");
        })
    }))
}

/// Two operations at once, of which one can be done and the other not: neither is done by a call that is ended.
pub fn semtimedop() -> Option<Case> {
    let [set, other] = semaphores(2)?;
    let change = |n: u16, by: i16| libc::sembuf { sem_num: n, sem_op: by, sem_flg: 0 };
    let value = |id: i32| [0, 1].map(|n| unsafe { libc::semctl(id, n, libc::GETVAL) });
    let call = move || {
        let answer = sys::semtimedop(set.id, &mut [change(0, 1), change(1, -2)], None);
        match answer {
            Ok(()) => assert_eq!(value(set.id), [1, 0]),
            Err(_) => assert_eq!(value(set.id)[0], 0), // the other may have come by now
        }
        answer.map(|()| 0)
    };
    let mut case = Case::new(libc::SYS_semtimedop, 0, call, move |_| {
        let mut two = change(1, 2);
        assert_eq!(unsafe { libc::semop(other.id, &mut two, 1) }, 0);
        keep(other)
    });
    case.sleeps_in.extend(crate::suite::sleep(libc::SYS_semop));
    Some(case)
}

/// A POSIX queue of so many messages that has no name any more, and a second descriptor of it.
pub fn posix_queue(messages: i64) -> Option<[MqdT; 2]> {
    let name = format!("/eintr-suite-{}-{}", common::getpid(), unique());
    let attributes = MqAttr::new(0, messages as mq_attr_member_t, 8, 0);
    let both = MQ_OFlag::O_RDWR | MQ_OFlag::O_CREAT | MQ_OFlag::O_CLOEXEC;
    let open = || mq_open(name.as_str(), both, Mode::S_IRUSR | Mode::S_IWUSR, Some(&attributes));
    match (open(), open()) {
        (Ok(one), Ok(other)) => {
            mq_unlink(name.as_str()).unwrap();
            Some([one, other])
        }
        (one, _) => {
            println!("SKIPPED: POSIX message queues: {:?}", one.map(drop));
            None
        }
    }
}

pub fn mq_receive() -> Option<Case> {
    let [queue, other] = posix_queue(2)?;
    let call = move || {
        let mut text = *b"........";
        let answer = sys::mq_receive(&queue, &mut text, None);
        assert_eq!(&text, if answer.is_ok() { b"hello..." } else { b"........" });
        let (n, priority) = answer?;
        assert_eq!(priority, 7);
        Ok(n)
    };
    Some(Case::new(libc::SYS_mq_timedreceive, 5, call, move |_| {
        nix::mqueue::mq_send(&other, b"hello", 7).unwrap();
        keep(other)
    }))
}

pub fn mq_send() -> Option<Case> {
    let [queue, other] = posix_queue(1)?;
    nix::mqueue::mq_send(&other, b"-", 1).unwrap();
    let call = move || -> Answer { sys::mq_send(&queue, b"hello", 7, None).map(|()| 0) };
    Some(Case::new(libc::SYS_mq_timedsend, 0, call, move |_| {
        let (mut text, mut priority) = ([0; 8], 0);
        assert_eq!(nix::mqueue::mq_receive(&other, &mut text, &mut priority), Ok(1));
        Box::new(move || {
            assert_eq!(nix::mqueue::mq_receive(&other, &mut text, &mut priority), Ok(5));
            assert_eq!((&text[..5], priority), (b"hello".as_slice(), 7));
            let left = nix::mqueue::mq_getattr(&other).unwrap().curmsgs();
            assert_eq!(left, 0, "once");
        })
    }))
}
