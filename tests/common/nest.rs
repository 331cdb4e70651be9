//! A thread with a scope that blocks in a call, handlers of other signals on top of it, and a look at it from outside that tells sleeping for ever from
//! everything else. A test file takes it by `#[path = "common/nest.rs"] mod nest;` beside `mod common;`.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unused_imports,
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block
)]

#[path = "look.rs"]
mod look;

use crate::common;
use eintr::{Delivery, Error, Remote, Scope, ScopeOptions, Status};
use std::cell::Cell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use look::{Apart, Look};

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Bytes(usize),
    Interrupted,
    Os(i32),
    /// It did not: the thread slept with the interrupt delivered, until it was given a byte.
    Slept,
}

impl From<eintr::sys::Result<usize>> for Answer {
    fn from(result: eintr::sys::Result<usize>) -> Answer {
        match result {
            Ok(n) => Answer::Bytes(n),
            Err(Error::Interrupted(_)) => Answer::Interrupted,
            Err(e) => Answer::Os(nix::errno::Errno::from(e) as i32),
        }
    }
}

/// An empty pipe that a call waits at.
#[derive(Debug)]
pub struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Pipe {
    fn new() -> Pipe {
        let (reader, writer) = common::pipe();
        Pipe { reader, writer }
    }

    pub fn reader(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    pub fn raw(&self) -> libc::c_int {
        self.reader.as_raw_fd()
    }

    /// Writes so many bytes; they must find room.
    pub fn feed(&self, bytes: usize) {
        let text = vec![b'!'; bytes];
        let n = unsafe { libc::write(self.writer.as_raw_fd(), text.as_ptr().cast(), bytes) };
        assert_eq!(n, bytes as isize, "write: {}", std::io::Error::last_os_error());
    }

    /// How many bytes are in it.
    pub fn filled(&self) -> usize {
        let mut bytes: libc::c_int = 0;
        assert_eq!(unsafe { libc::ioctl(self.reader.as_raw_fd(), libc::FIONREAD, &mut bytes) }, 0);
        bytes as usize
    }

    pub fn drain(&self) {
        let mut room = vec![0u8; 65536];
        while self.filled() > 0 {
            let n = unsafe { libc::read(self.raw(), room.as_mut_ptr().cast(), room.len()) };
            assert!(n > 0, "read: {}", std::io::Error::last_os_error());
        }
    }
}

/// What the scoped thread works with.
#[derive(Debug)]
pub struct Here<'a> {
    pub scope: &'a Scope,
    /// The pipe that the thread's own calls wait at.
    pub outer: &'a Pipe,
}

pub type Work = fn(&Here<'_>) -> Answer;

/// `sys::read` of the empty pipe; an interrupt that ended it is acknowledged.
pub fn sys_read(here: &Here<'_>) -> Answer {
    let answer = Answer::from(eintr::sys::read(here.outer.reader(), &mut [0; 8]));
    if answer == Answer::Interrupted {
        assert_eq!(here.scope.remote().wait(Duration::ZERO), Status::Acknowledged);
    }
    answer
}

/// A plain read(2) of the empty pipe.
pub fn plain_read(here: &Here<'_>) -> Answer {
    common::plain_read(&here.outer.reader()).map_or_else(Answer::Os, Answer::Bytes)
}

/// What a call that polls may be to the kernel. Its first argument names no pipe: handlers poll the second one alone.
#[cfg(target_arch = "x86_64")]
pub const POLLS: [libc::c_long; 2] = [libc::SYS_ppoll, libc::SYS_poll];
#[cfg(target_arch = "aarch64")]
pub const POLLS: [libc::c_long; 1] = [libc::SYS_ppoll];

/// How many pipes a subject has: one for its own calls, the others for those of handlers.
pub const PIPES: usize = 4;

/// The scoped thread.
#[derive(Debug)]
pub struct Subject {
    pub tid: libc::pid_t,
    pub sig: i32,
    pub look: Look,
    pub remote: Remote,
    /// The first is the outer one.
    pub pipes: Arc<[Pipe; PIPES]>,
    orders: Sender<Work>,
    answers: Receiver<Answer>,
    thread: JoinHandle<()>,
    /// How long it may sleep with the signal delivered: not at all, or until a timer has had its chance.
    patience: Duration,
    asleep: Cell<Option<(usize, Instant)>>,
    /// It was found asleep for ever, and woken by a byte.
    rescued: Cell<bool>,
}

impl Subject {
    pub fn new(options: impl Into<ScopeOptions>) -> Subject {
        let options = options.into();
        let pipes = Arc::new(std::array::from_fn(|_| Pipe::new()));
        let (shared, (orders, ordered), (answer, answers)) = (Arc::clone(&pipes), mpsc::channel(), mpsc::channel());
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let _stack = AlternateStack::new();
            let before = common::mask();
            let scope = options.enter().expect("enter");
            tell.send((common::gettid(), scope.signal(), scope.remote())).expect("the test waits");
            work(&Here { scope: &scope, outer: &shared[0] }, &ordered, &answer);
            drop(scope);
            assert_eq!(common::mask(), before, "the mask after the scope");
        });
        let (tid, sig, remote) = told.recv().expect("the scoped thread lives");
        SCOPE.store(sig.as_raw(), SeqCst);
        Subject {
            tid,
            sig: sig.as_raw(),
            look: Look::at(tid),
            remote,
            pipes,
            orders,
            answers,
            thread,
            patience: Duration::ZERO,
            asleep: Cell::new(None),
            rescued: Cell::new(false),
        }
    }

    /// For interrupts that are sent again.
    pub fn with_patience(self) -> Subject {
        Subject { patience: Duration::from_secs(5), ..self }
    }

    /// Lets it work, and comes back when it sleeps in read(2) of its pipe.
    pub fn begin(&self, work: Work) {
        self.start(work);
        self.look.wait_asleep(libc::SYS_read, self.pipes[0].raw() as usize);
    }

    /// Lets it work.
    pub fn start(&self, work: Work) {
        self.orders.send(work).expect("the scoped thread lives");
    }

    /// A foreign signal for it.
    pub fn signal(&self, sig: i32) {
        let r = unsafe { libc::syscall(libc::SYS_tgkill, common::getpid(), self.tid, sig) };
        assert_eq!(r, 0, "tgkill({}, {sig}): {}", self.tid, std::io::Error::last_os_error());
    }

    /// One interrupt that nothing repeats.
    pub fn interrupt_once(&self) {
        assert_eq!(self.remote.interrupt_once(), Delivery::Sent);
    }

    /// How the work ended. One that would have slept on is told apart.
    pub fn end(&self) -> Answer {
        let mut answer = Err(TryRecvError::Empty);
        self.wait_until(|| {
            answer = self.answers.try_recv();
            answer != Err(TryRecvError::Empty)
        });
        let answer = answer.expect("the scoped thread lives");
        if self.rescued.replace(false) {
            self.pipes.iter().for_each(Pipe::drain);
            return Answer::Slept;
        }
        answer
    }

    /// Waits until `done` says so, and wakes the thread when it sleeps on with its interrupt delivered.
    pub fn wait_until(&self, mut done: impl FnMut() -> bool) {
        self.asleep.set(None);
        while !done() {
            let left = self.left_asleep_at();
            let since = match (left, self.asleep.get()) {
                (Some(n), Some((m, since))) if n == m => since,
                _ => Instant::now(),
            };
            self.asleep.set(left.map(|n| (n, since)));
            if let Some(n) = left.filter(|_| since.elapsed() >= self.patience) {
                // It may have ended between the two looks.
                if done() {
                    return;
                }
                self.rescued.set(true);
                self.pipes[n].feed(1);
            }
            std::thread::yield_now();
        }
    }

    /// The pipe that it sleeps at with its interrupt delivered.
    fn left_asleep_at(&self) -> Option<usize> {
        let (nr, first) = self.look.sleeps_in()?;
        let pipe = match nr {
            libc::SYS_read => self.pipes.iter().position(|pipe| pipe.raw() as usize == first)?,
            _ if POLLS.contains(&nr) => 1,
            _ => return None,
        };
        self.look.is_left_asleep(nr, first, self.sig).then_some(pipe)
    }

    /// Lets it leave its scope and end.
    pub fn leave(self) {
        drop(self.orders);
        self.thread.join().expect("the scoped thread ends well");
    }
}

/// Works until there are no more orders. Between two of them nothing is pending and the mask is what the scope has made it.
fn work(here: &Here<'_>, orders: &Receiver<Work>, answers: &Sender<Answer>) {
    let (mask, sig) = (common::mask(), here.scope.signal().as_raw());
    assert_eq!(mask & common::bit(sig), 0, "the number is open");
    while let Ok(work) = orders.recv() {
        let answer = work(here);
        here.scope.clear();
        assert_eq!((common::mask(), pending() & common::bit(sig)), (mask, 0), "mask and queue after {answer:?}");
        eintr::check().expect("nothing is pending once it was cleared");
        answers.send(answer).expect("the test waits");
    }
}

/// What is queued for the calling thread or its process, and blocked.
pub fn pending() -> u64 {
    let mut set = 0u64;
    assert_eq!(unsafe { libc::syscall(libc::SYS_rt_sigpending, &mut set, 8usize) }, 0);
    set
}

/// A stack for handlers with room for many frames; std's own has 8 KiB.
struct AlternateStack(libc::stack_t, #[expect(dead_code, reason = "it is where the handlers run")] Vec<u8>);

impl AlternateStack {
    fn new() -> AlternateStack {
        let mut room = vec![0u8; 256 * 1024];
        let new = libc::stack_t { ss_sp: room.as_mut_ptr().cast(), ss_flags: 0, ss_size: room.len() };
        let mut old = new;
        assert_eq!(unsafe { libc::sigaltstack(&new, &mut old) }, 0);
        AlternateStack(old, room)
    }
}

impl Drop for AlternateStack {
    fn drop(&mut self) {
        unsafe { libc::sigaltstack(&self.0, std::ptr::null_mut()) };
    }
}

/// The handlers' and the test's meeting points, set back by [`reset`].
pub static ENTERED: AtomicU32 = AtomicU32::new(0);
pub static LEFT: AtomicU32 = AtomicU32::new(0);
/// The handlers may go on.
pub static GO: AtomicBool = AtomicBool::new(false);
/// Runs of a foreign handler in which the scope's signal has certainly been delivered: it was open there, sent during the run, and a system call
/// has been made since.
pub static INSIDE: AtomicU32 = AtomicU32::new(0);
/// The number of the scope.
pub static SCOPE: AtomicI32 = AtomicI32::new(0);

pub fn reset() {
    ENTERED.store(0, SeqCst);
    LEFT.store(0, SeqCst);
    INSIDE.store(0, SeqCst);
    GO.store(false, SeqCst);
}

/// Waits in a handler until the sender has sent. What it sent has been delivered when this returns, if it is open.
pub fn wait_for_go() {
    let before = GO.load(SeqCst);
    let open = common::mask() & common::bit(SCOPE.load(SeqCst)) == 0;
    while !GO.load(SeqCst) {
        unsafe { libc::sched_yield() };
    }
    common::getpid();
    INSIDE.fetch_add(u32::from(open && !before), SeqCst);
}

/// A foreign handler that waits until the sender has sent.
pub extern "C" fn waits(_: libc::c_int) {
    ENTERED.fetch_add(1, SeqCst);
    wait_for_go();
    LEFT.fetch_add(1, SeqCst);
}

/// One that only counts.
pub extern "C" fn counts(_: libc::c_int) {
    ENTERED.fetch_add(1, SeqCst);
    LEFT.fetch_add(1, SeqCst);
}

pub fn wait_entered(n: u32) {
    common::wait_until(|| ENTERED.load(SeqCst) >= n);
}

/// The action of a number while a test runs.
#[derive(Debug)]
pub struct Installed(i32, common::Action);

impl Installed {
    pub fn new(sig: i32, handler: extern "C" fn(libc::c_int), flags: i32) -> Installed {
        Installed::with_mask(sig, handler, flags, &[])
    }
    /// SIG_DFL or SIG_IGN.
    pub fn action(sig: i32, action: libc::sighandler_t) -> Installed {
        Installed(sig, common::install(sig, action, 0, &[]))
    }
    pub fn with_mask(sig: i32, handler: extern "C" fn(libc::c_int), flags: i32, mask: &[i32]) -> Installed {
        Installed(sig, common::install(sig, handler as *const () as usize, flags, mask))
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        common::restore(self.0, self.1);
    }
}

/// What many rounds came to.
#[derive(Debug)]
pub struct Tally {
    what: String,
    rounds: u64,
    slept: u64,
    inside: u64,
}

impl Tally {
    pub fn new(what: impl Into<String>) -> Tally {
        Tally { what: what.into(), rounds: 0, slept: 0, inside: 0 }
    }

    /// A round has ended as it should, or by sleeping for ever; whether the interrupt landed where this test wants it.
    #[track_caller]
    pub fn round(&mut self, answer: Answer, wanted: Answer, inside: bool) {
        self.rounds += 1;
        self.slept += u64::from(answer == Answer::Slept);
        self.inside += u64::from(inside);
        assert!(answer == wanted || answer == Answer::Slept, "{}: {answer:?} in round {}", self.what, self.rounds);
        assert!(self.slept < 5, "{self:?}");
    }

    /// None slept for ever, and most landed where they should.
    #[track_caller]
    pub fn end(self) {
        assert!(self.slept == 0 && self.inside * 2 > self.rounds, "{self:?}");
    }
}
