//! A thread that sleeps in a read, again and again, and one on another processor that ends it; how long that takes, or that it does not happen.
//!
//! The sleeper spins between its reads, so when /proc says that it sleeps, it sleeps in one. Foreign signals, if there are to be any, come from a timer
//! of the sleeper's own: at a rate that does not depend on who else wants the processor.

use crate::common;
use crate::measure::raw;
use eintr::{Delivery, Remote, Scope};
use std::fs::File;
use std::hint::spin_loop;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, mpsc};

/// The foreign one, whose handler has SA_RESTART. The lower number: the kernel builds its frame first, and the frame of the other on top of it.
pub const FOREIGN: i32 = libc::SIGUSR1;
/// What is sent by hand, to a handler without SA_RESTART.
const BY_HAND: i32 = libc::SIGUSR2;

/// What ends the read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The least that can be done: a signal, a handler that does nothing, and a read of the C library that ends with EINTR.
    Raw,
    /// A flag besides; the reader looks at it before each read, and after EINTR.
    Naive,
    /// The same, and the signal is sent again every 10 ms until the reader has seen the flag.
    Resending,
    /// `Remote::interrupt` and `sys::read`.
    Ours,
    /// `Remote::interrupt_once`: without a resend that would make up for a loss.
    OursOnce,
}

const WAYS: [Way; 5] = [Way::Raw, Way::Naive, Way::Resending, Way::Ours, Way::OursOnce];

/// How one try ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    /// Microseconds from before the sending to after the return.
    After(f64),
    /// It slept on.
    Lost,
}

/// What the two threads share. `order` is the number of the try and the way; 0: the end.
#[derive(Debug, Default)]
struct Shared {
    order: AtomicU64,
    /// Nanoseconds between two foreign signals; 0: none come.
    storm: AtomicU64,
    flag: AtomicBool,
    /// The last try that has ended, and when.
    done: AtomicU64,
    returned: AtomicU64,
}

/// See the module. This is the interrupting side.
#[derive(Debug)]
pub struct Rig {
    shared: Arc<Shared>,
    remote: Remote,
    tid: i32,
    pipe: Arc<(OwnedFd, OwnedFd)>,
    stat: File,
    tries: u64,
    sleeper: Option<std::thread::JoinHandle<()>>,
    random: common::Random,
    /// Where this thread might run before.
    processors: Vec<usize>,
}

impl Rig {
    /// Two threads on two processors, if there are two. `None`: there are not.
    pub fn new() -> Option<Rig> {
        let processors = raw::processors();
        let (Some(first), Some(last)) = (processors.first(), processors.last().filter(|_| processors.len() > 1)) else {
            return None;
        };
        common::install(FOREIGN, raw::do_nothing as *const () as usize, libc::SA_RESTART, &[]);
        common::install(BY_HAND, raw::do_nothing as *const () as usize, 0, &[]);
        raw::pin_to(&[*first]);
        let (shared, pipe, last) = (Arc::new(Shared::default()), Arc::new(common::pipe()), *last);
        let (give, given) = mpsc::channel();
        let sleeper = std::thread::spawn({
            let (shared, pipe) = (shared.clone(), pipe.clone());
            move || {
                raw::pin_to(&[last]);
                sleep_again_and_again(&shared, &pipe.0, |remote| {
                    give.send((remote, common::gettid())).expect("it waits")
                });
            }
        });
        let (remote, tid) = given.recv().expect("entered");
        let stat = File::open(format!("/proc/self/task/{tid}/stat")).expect("the thread lives");
        let random = common::Random::seeded(raw::now());
        Some(Rig { shared, remote, tid, pipe, stat, tries: 0, sleeper: Some(sleeper), random, processors })
    }

    /// One try. `storm`: nanoseconds between two foreign signals, 0 for none.
    pub fn try_once(&mut self, way: Way, storm: u64) -> End {
        self.shared.storm.store(storm, SeqCst);
        self.tries += 1;
        let number = self.tries;
        let code = WAYS.iter().position(|w| *w == way).expect("one of them") as u64;
        self.shared.order.store(number << 8 | code, SeqCst);
        while !self.sleeps() {}
        self.rest();
        let began = raw::now();
        self.send(way);
        if self.wait(number, way, began) {
            return End::After((self.shared.returned.load(SeqCst) - began) as f64 / 1000.0);
        }
        // Out of the way with it: after a byte it looks at the flag, or `pending`.
        raw::write(self.pipe.1.as_fd(), &[0]);
        while self.shared.done.load(SeqCst) != number {
            spin_loop();
        }
        if raw::is_readable(self.pipe.0.as_fd()) {
            raw::read(self.pipe.0.as_fd(), &mut [0]); // the byte came too late
        }
        End::Lost
    }

    fn send(&self, way: Way) {
        match way {
            Way::Raw => raw::tgkill(self.tid, BY_HAND),
            Way::Naive | Way::Resending => {
                self.shared.flag.store(true, SeqCst);
                raw::tgkill(self.tid, BY_HAND);
            }
            Way::Ours => assert_eq!(self.remote.interrupt(), Delivery::Sent),
            Way::OursOnce => assert_eq!(self.remote.interrupt_once(), Delivery::Sent),
        }
    }

    /// So that the tries fall anywhere between two foreign signals.
    fn rest(&mut self) {
        let until = raw::now() + self.random.below(50_000);
        while raw::now() < until {
            spin_loop();
        }
    }

    /// Whether the try ended: `false` if the reader sleeps a good while later, and nobody is to send again (any more).
    fn wait(&self, number: u64, way: Way, began: u64) -> bool {
        const PERIOD: u64 = 10_000_000;
        let (mut next, mut resends) = (began + PERIOD, if way == Way::Resending { 10 } else { 0 });
        while self.shared.done.load(SeqCst) != number {
            spin_loop();
            if raw::now() < next {
                continue;
            }
            next += PERIOD;
            if resends != 0 {
                resends -= 1;
                raw::tgkill(self.tid, BY_HAND);
            } else if self.sleeps() && self.shared.done.load(SeqCst) != number {
                return false; // a signal that has not been handled would have woken it
            }
        }
        true
    }

    /// As /proc tells: the state stands behind the name, which ends with the last parenthesis.
    fn sleeps(&self) -> bool {
        let mut text = [0; 128];
        let read = self.stat.read_at(&mut text, 0).unwrap_or(0);
        let text = text.get(..read).unwrap_or(&[]);
        let end = text.iter().rposition(|byte| *byte == b')').unwrap_or(0);
        text.get(end..).is_some_and(|rest| rest.starts_with(b") S"))
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.shared.order.store(u64::MAX, SeqCst);
        if let Some(sleeper) = self.sleeper.take() {
            sleeper.join().expect("it does not panic");
        }
        raw::pin_to(&self.processors);
    }
}

/// The sleeping side.
fn sleep_again_and_again(shared: &Shared, reader: &OwnedFd, tell: impl FnOnce(Remote)) {
    let scope = Scope::enter(libc::SIGRTMIN() + 2).expect("entered");
    let storm = raw::Timer::new(FOREIGN);
    let (mut buf, mut interval) = ([0; 1], 0);
    tell(scope.remote());
    for number in 1.. {
        let order = loop {
            match shared.order.load(SeqCst) {
                u64::MAX => return,
                order if order >> 8 == number => break order,
                _ => spin_loop(),
            }
        };
        let wanted = shared.storm.load(SeqCst);
        if wanted != interval {
            interval = wanted;
            storm.repeat(interval);
        }
        match WAYS[(order & 0xff) as usize] {
            Way::Raw => _ = raw::read(reader.as_fd(), &mut buf),
            Way::Naive | Way::Resending => {
                while !shared.flag.load(SeqCst) {
                    raw::read(reader.as_fd(), &mut buf);
                }
            }
            Way::Ours | Way::OursOnce => _ = eintr::sys::read(reader, &mut buf),
        }
        shared.returned.store(raw::now(), SeqCst);
        shared.flag.store(false, SeqCst);
        let _ = scope.clear();
        shared.done.store(number, SeqCst);
    }
}
