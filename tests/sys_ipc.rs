//! Message queues, semaphores and futexes: other people's signals change nothing, an interrupt ends the wait, and no message, no unit of a semaphore
//! and no wake-up is lost or taken twice.
// Queues are looked into by plain calls, as other processes do.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/queues.rs"]
mod queues;
#[path = "common/waiting.rs"]
mod waiting;

use common::{wait_blocked_in, wait_until};
use eintr::{Scope, sys};
use queues::{Mq, Msg, Sem};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use waiting::{Caller, Waiting, assert_remote, in_three_ways};

fn queue() -> Mq {
    Mq::new().expect("looked at before")
}

struct MqReceive(Mq);
impl Waiting for MqReceive {
    type Value = (Vec<u8>, u32);
    const NUMBER: libc::c_long = libc::SYS_mq_timedreceive;
    fn new() -> MqReceive {
        MqReceive(queue())
    }
    fn call(&self) -> sys::Result<Self::Value> {
        let mut msg = [0; 8];
        sys::mq_receive(&self.0.0, &mut msg, None).map(|(length, priority)| (msg[..length].to_vec(), priority))
    }
    fn ready(&self, _: libc::pid_t) {
        self.0.fill();
    }
    fn check(&self, value: Self::Value) {
        assert_eq!(value, (b"full".to_vec(), 3));
        assert_eq!(self.0.count(), 0);
    }
}

struct MqSend(Mq);
impl Waiting for MqSend {
    type Value = ();
    const NUMBER: libc::c_long = libc::SYS_mq_timedsend;
    fn new() -> MqSend {
        let queue = queue();
        queue.fill();
        MqSend(queue)
    }
    fn call(&self) -> sys::Result<()> {
        sys::mq_send(&self.0.0, b"more", 1, None)
    }
    fn ready(&self, _: libc::pid_t) {
        assert_eq!(self.0.take(), b"full");
    }
    fn check(&self, (): ()) {
        assert_eq!(self.0.take(), b"more");
        assert_eq!(self.0.count(), 0, "once");
    }
}

#[test]
fn posix_queues_wait() {
    let _t = common::begin();
    if Mq::new().is_some() {
        in_three_ways::<MqReceive>();
        in_three_ways::<MqSend>();
    }
}

struct Msgrcv(Msg);
impl Waiting for Msgrcv {
    type Value = (i64, Vec<u8>);
    const NUMBER: libc::c_long = libc::SYS_msgrcv;
    fn new() -> Msgrcv {
        Msgrcv(Msg::new())
    }
    fn call(&self) -> sys::Result<Self::Value> {
        let mut msg = [0; 11];
        sys::msgrcv(self.0.0, &mut msg, 0, 0).map(|(kind, length)| (kind, msg[..length].to_vec()))
    }
    fn ready(&self, _: libc::pid_t) {
        self.0.send(5, *b"message.");
    }
    fn check(&self, value: Self::Value) {
        assert_eq!(value, (5, b"message.".to_vec()));
        assert_eq!(self.0.count(), 0);
    }
}

struct Msgsnd(Msg);
impl Waiting for Msgsnd {
    type Value = ();
    const NUMBER: libc::c_long = libc::SYS_msgsnd;
    fn new() -> Msgsnd {
        let queue = Msg::new().narrow();
        queue.send(1, *b"is full.");
        Msgsnd(queue)
    }
    fn call(&self) -> sys::Result<()> {
        sys::msgsnd(self.0.0, 6, b"one more", 0)
    }
    fn ready(&self, _: libc::pid_t) {
        assert_eq!(self.0.take(), (1, *b"is full."));
    }
    fn check(&self, (): ()) {
        assert_eq!(self.0.take(), (6, *b"one more"));
        assert_eq!(self.0.count(), 0, "once");
    }
}

#[test]
fn system_v_queues_wait() {
    let _t = common::begin();
    in_three_ways::<Msgrcv>();
    in_three_ways::<Msgsnd>();
}

/// Of every length around the words that the type is put in front of, and none.
#[test]
fn messages_of_any_length_come_out_as_they_went_in() {
    let _t = common::begin();
    let queue = Msg::new();
    let bytes: Vec<u8> = (0..=200).collect();
    for length in (0..40).chain([200]) {
        sys::msgsnd(queue.0, 1 + length as i64, &bytes[..length], 0).unwrap();
        let mut msg = [0xee; 201];
        assert_eq!(sys::msgrcv(queue.0, &mut msg[..length + 1], 0, 0), Ok((1 + length as i64, length)));
        assert_eq!(&msg[..length], &bytes[..length]);
        assert!(msg[length..].iter().all(|b| *b == 0xee), "nothing behind it is written");
    }
    sys::msgsnd(queue.0, 9, b"cut short", 0).unwrap();
    let mut msg = [0; 3];
    waiting::assert_errno(sys::msgrcv(queue.0, &mut msg, 0, 0), nix::errno::Errno::E2BIG);
    assert_eq!(sys::msgrcv(queue.0, &mut msg, -9, libc::MSG_NOERROR), Ok((9, 3)));
    assert_eq!(&msg, b"cut");
}

struct Semtimedop(Sem);
impl Waiting for Semtimedop {
    type Value = ();
    const NUMBER: libc::c_long = libc::SYS_semtimedop;
    fn new() -> Semtimedop {
        Semtimedop(Sem::new())
    }
    fn call(&self) -> sys::Result<()> {
        sys::semtimedop(self.0.0, &mut Sem::down(), None)
    }
    fn ready(&self, _: libc::pid_t) {
        self.0.up();
    }
    fn check(&self, (): ()) {
        assert_eq!(self.0.value(), 0);
    }
}

#[test]
fn semaphores_wait() {
    let _t = common::begin();
    in_three_ways::<Semtimedop>();
}

/// Wakes whoever sleeps on the word, as another process would.
fn wake(word: &AtomicU32, count: i32) -> i64 {
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, count) }
}

struct FutexWait(AtomicU32);
impl Waiting for FutexWait {
    type Value = bool;
    const NUMBER: libc::c_long = libc::SYS_futex;
    fn new() -> FutexWait {
        FutexWait(AtomicU32::new(0))
    }
    fn call(&self) -> sys::Result<bool> {
        sys::futex_wait(&self.0, 0, None)
    }
    fn ready(&self, _: libc::pid_t) {
        self.0.store(1, Ordering::SeqCst);
        wake(&self.0, i32::MAX);
    }
    fn check(&self, _woken_or_it_differed: bool) {
        assert_eq!(sys::futex_wait(&self.0, 0, None), Ok(false));
    }
}

#[test]
fn futexes_wait() {
    let _t = common::begin();
    in_three_ways::<FutexWait>();
}

/// Two sleep, one is woken while one is interrupted. If the wake-up went to the interrupted one, it says so; otherwise the other has it.
#[test]
fn an_interrupt_eats_no_wake_up() {
    let _t = common::begin();
    let (rounds, mut random) = (common::rounds("EINTR_ROUNDS", 400), common::Random::new());
    let mut taken = 0;
    for _ in 0..rounds {
        let word = Arc::new(AtomicU32::new(0));
        let [of_first, of_second] = [word.clone(), word.clone()];
        let first = Caller::start(Some(libc::SIGUSR1), move |_| sys::futex_wait(&of_first, 0, None));
        wait_blocked_in(first.tid, libc::SYS_futex); // the kernel wakes in the order of arrival
        let second = Caller::start(None, move |_| sys::futex_wait(&of_second, 0, None));
        wait_blocked_in(second.tid, libc::SYS_futex);
        let (remote, go) = (first.remote.clone().unwrap(), Arc::new(AtomicBool::new(false)));
        let gone = go.clone();
        let interrupter = std::thread::spawn(move || {
            wait_until(|| gone.load(Ordering::SeqCst));
            remote.interrupt();
        });
        go.store(true, Ordering::SeqCst);
        spin(random.below(30_000));
        assert_eq!(wake(&word, 1), 1);
        interrupter.join().unwrap();
        match first.join() {
            Ok(true) => {
                taken += 1;
                assert!(!second.thread.is_finished());
                assert_eq!(wake(&word, 1), 1);
            }
            answer => assert_remote(answer),
        }
        assert_eq!(second.join(), Ok(true));
    }
    println!("of {rounds} the interrupted one took the wake-up {taken} times");
}

fn spin(times: u64) {
    (0..times).for_each(|_| std::hint::spin_loop());
}

/// One side gives `COUNT` things, one after the other, one takes them and is interrupted all the time; each is taken once.
fn none_is_lost<R: Send + Sync + 'static>(
    resource: R,
    give: fn(&R, u32),
    take: impl Fn(&R) -> sys::Result<u32> + Send + 'static,
) {
    const COUNT: u32 = 2000;
    let (resource, got) = (Arc::new(resource), Arc::new(AtomicU32::new(0)));
    let (of_taker, by_taker, mut random) = (resource.clone(), got.clone(), common::Random::new());
    let taker = Caller::start(Some(libc::SIGUSR1), move |scope| {
        let mut interrupts = 0;
        for expected in 0..COUNT {
            let value = loop {
                match take(&of_taker) {
                    Ok(value) => break value,
                    interrupted => assert_remote(interrupted),
                }
                interrupts += 1;
                scope.unwrap().clear();
            };
            assert_eq!(value, expected);
            by_taker.store(value + 1, Ordering::SeqCst);
        }
        interrupts
    });
    let (remote, over) = (taker.remote.clone().unwrap(), Arc::new(AtomicBool::new(false)));
    let stop = over.clone();
    let interrupter = std::thread::spawn(move || {
        while !stop.load(Ordering::SeqCst) {
            remote.interrupt();
        }
    });
    for value in 0..COUNT {
        wait_until(|| got.load(Ordering::SeqCst) == value || taker.thread.is_finished());
        spin(random.below(3000));
        give(&resource, value);
    }
    let interrupts = taker.join();
    over.store(true, Ordering::SeqCst);
    interrupter.join().unwrap();
    println!("{interrupts} interrupts");
}

fn as_number(msg: &[u8]) -> u32 {
    u32::from_ne_bytes(msg[..4].try_into().unwrap())
}

#[test]
fn no_message_of_a_posix_queue_is_lost() {
    let _t = common::begin();
    let Some(queue) = Mq::new() else { return };
    let give = |queue: &Mq, value: u32| nix::mqueue::mq_send(&queue.0, &value.to_ne_bytes(), 0).unwrap();
    none_is_lost(queue, give, |queue| {
        let mut msg = [0; 8];
        sys::mq_receive(&queue.0, &mut msg, None).map(|_| as_number(&msg))
    });
}

#[test]
fn no_message_of_a_system_v_queue_is_lost() {
    let _t = common::begin();
    let give = |queue: &Msg, value: u32| queue.send(1, u64::from(value).to_ne_bytes());
    none_is_lost(Msg::new(), give, |queue| {
        let mut msg = [0; 8];
        sys::msgrcv(queue.0, &mut msg, 0, 0).map(|_| as_number(&msg))
    });
}

#[test]
fn no_unit_of_a_semaphore_is_lost() {
    let _t = common::begin();
    let count = AtomicU32::new(0);
    none_is_lost(
        Sem::new(),
        |sem, _| sem.up(),
        move |sem| sys::semtimedop(sem.0, &mut Sem::down(), None).map(|()| count.fetch_add(1, Ordering::SeqCst)),
    );
}

/// The other direction: what was said to have been sent is there, and what was not is not.
#[test]
fn an_interrupted_send_has_sent_nothing() {
    let _t = common::begin();
    let Some(queue) = Mq::new() else { return };
    let queue = Arc::new(queue);
    let of_sender = queue.clone();
    let sender = Caller::start(Some(libc::SIGUSR1), move |scope| {
        for value in 0..2000u32 {
            while let Err(e) = sys::mq_send(&of_sender.0, &value.to_ne_bytes(), 0, None) {
                assert!(e.interrupted().is_some());
                scope.unwrap().clear();
            }
        }
    });
    for value in 0..2000 {
        sender.interrupt();
        assert_eq!(as_number(&queue.take()), value);
        sender.interrupt();
    }
    sender.join();
}

/// With both at once: what was taken is returned, and the interrupt waits for the next call.
#[test]
fn an_interrupt_that_comes_too_late_is_for_the_next_call() {
    let _t = common::begin();
    let scope = Scope::enter(libc::SIGUSR1).unwrap();
    let sem = Sem::new();
    sem.up();
    assert_eq!(sys::semtimedop(sem.0, &mut Sem::down(), None), Ok(()));
    scope.remote().interrupt();
    assert_remote(sys::semtimedop(sem.0, &mut Sem::down(), None));
    assert_eq!(sem.value(), 0);
}
