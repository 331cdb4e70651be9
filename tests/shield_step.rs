//! A child is stepped through the raising and the lowering of a shield, and at one instruction an interrupt comes, or a signal whose handler does something
//! with the crate: before that instruction or after it, the shield is up or it is not, and nothing is lost in between.
//!
//! x86_64 only. EINTR_SPOTS says at how many instructions, of each path.
// Tests install handlers, fork, and look into the child's registers.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]
#![cfg(target_arch = "x86_64")]

mod common;
#[path = "common/counting.rs"]
mod counting;
#[path = "common/tracee.rs"]
mod tracee;

use common::State;
use counting::{kinds, undisturbed};
use eintr::{Delivery, Error, Remote, Scope, shield};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, Ordering::SeqCst};
use std::time::Duration;
use tracee::{Stop, Tracee, trap};

/// What was done in the scope before: it is raised and lowered in another way then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Past {
    /// Nothing was ever sent: one exchange.
    Quiet,
    /// Something was sent, and is over.
    Dirty,
    /// Something is asked.
    Asked,
    /// The same, acknowledged.
    Seen,
    /// A deadline is an hour off.
    Limit,
}

const PASTS: [Past; 5] = [Past::Quiet, Past::Dirty, Past::Asked, Past::Seen, Past::Limit];

/// Which of the two is stepped through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    Raise,
    Lower,
}

/// What comes at the instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrival {
    Nothing,
    /// Another thread interrupts once.
    Interrupt,
    /// A handler that raises a shield of its own and lowers it.
    Shield,
    /// The same, and another thread interrupts, from within.
    ShieldAndInterrupt,
    /// A handler that looks, by `check`, which acknowledges.
    Check,
    /// A handler that makes a call, which may be interrupted.
    Call,
}

const ARRIVALS: [Arrival; 5] =
    [Arrival::Interrupt, Arrival::Shield, Arrival::ShieldAndInterrupt, Arrival::Check, Arrival::Call];

/// What the child and its tracer share.
#[repr(C)]
#[derive(Default)]
struct Board {
    past: AtomicU32,
    path: AtomicU32,
    arrival: AtomicU32,
    /// How what was asked is looked for afterwards: by a call, or by `check`.
    by_call: AtomicU32,
    place: AtomicU32,
    /// Runs of the foreign handler.
    runs: AtomicU32,
}

const ORDER: u32 = 1;
const BEFORE: u32 = 2;
const BEHIND: u32 = 3;
const END: u32 = u32::MAX;

impl Board {
    fn map() -> &'static Board {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        let at = unsafe { libc::mmap(std::ptr::null_mut(), size_of::<Board>(), access, kind, -1, 0) };
        assert_ne!(at, libc::MAP_FAILED);
        BOARD.store(at.cast(), SeqCst);
        unsafe { &*at.cast::<Board>() }
    }

    fn stand(&self, place: u32) {
        self.place.store(place, SeqCst);
        trap();
    }

    fn past(&self) -> Past {
        PASTS[self.past.load(SeqCst) as usize]
    }

    fn arrival(&self) -> Arrival {
        ARRIVALS.get(self.arrival.load(SeqCst) as usize).copied().unwrap_or(Arrival::Nothing)
    }
}

static BOARD: AtomicPtr<Board> = AtomicPtr::new(std::ptr::null_mut());
static REMOTE: AtomicPtr<Remote> = AtomicPtr::new(std::ptr::null_mut());
static PIPE: AtomicI32 = AtomicI32::new(-1);

const FOREIGN: i32 = libc::SIGUSR2;

extern "C" fn on_foreign(_: i32) {
    let board = unsafe { &*BOARD.load(SeqCst) };
    board.runs.fetch_add(1, SeqCst);
    match board.arrival() {
        Arrival::Shield => drop(shield()),
        Arrival::ShieldAndInterrupt => {
            let guard = shield();
            assert_eq!(unsafe { &*REMOTE.load(SeqCst) }.interrupt_once(), Delivery::Held);
            drop(guard);
        }
        Arrival::Check => _ = eintr::check(),
        Arrival::Call => {
            let pipe = unsafe { BorrowedFd::borrow_raw(PIPE.load(SeqCst)) };
            let answer = eintr::sys::read(pipe, &mut [0; 1]);
            assert!(matches!(answer, Ok(1) | Err(Error::Interrupted(_))), "{answer:?}");
        }
        Arrival::Nothing | Arrival::Interrupt => {}
    }
}

/// The child: one shield a round, as the tracer orders, with traps around what is stepped through; and a second thread that interrupts.
fn child(board: &'static Board, sig: i32, mut commands: File, mut replies: File) {
    // The harness's own hook would write into a buffer that ends with this process.
    std::panic::set_hook(Box::new(|panic| {
        let text = format!("in the child: {panic}\n");
        unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
    }));
    common::install(FOREIGN, on_foreign as *const () as usize, libc::SA_RESTART, &[]);
    let (zero, empty) = (File::open("/dev/zero").unwrap(), common::pipe());
    PIPE.store(zero.as_raw_fd(), SeqCst);
    common::unsignalled(move || {
        while commands.read_exact(&mut [0]).is_ok() {
            let answer = unsafe { &*REMOTE.load(SeqCst) }.interrupt_once();
            assert!(matches!(answer, Delivery::Sent | Delivery::Held), "{answer:?}");
            replies.write_all(&[0]).unwrap();
        }
    });
    loop {
        board.stand(ORDER);
        if board.past.load(SeqCst) == END {
            return;
        }
        let before = (common::mask(), common::action(sig));
        round(board, sig, &empty.0);
        assert_eq!((common::mask(), common::action(sig)), before);
    }
}

fn round(board: &Board, sig: i32, empty: &OwnedFd) {
    let scope = Scope::enter(sig).unwrap();
    let (mut remote, past) = (scope.remote(), board.past());
    REMOTE.store(&mut remote, SeqCst);
    let limit = (past == Past::Limit).then(|| scope.timeout(Duration::from_secs(3600)).unwrap());
    if matches!(past, Past::Dirty | Past::Asked | Past::Seen) {
        assert_eq!(remote.interrupt_once(), Delivery::Sent);
        assert!(past == Past::Asked || eintr::check().is_err());
        assert!(past != Past::Dirty || scope.clear().is_some());
    }
    let raises = board.path.load(SeqCst) == Path::Raise as u32;
    if raises {
        board.stand(BEFORE);
    }
    let guard = shield();
    if raises {
        board.stand(BEHIND);
        shielded(&scope, asked(board));
    } else {
        board.stand(BEFORE);
    }
    drop(guard);
    if !raises {
        board.stand(BEHIND);
    }
    open(&scope, asked(board), board.by_call.load(SeqCst) != 0, empty);
    drop(limit);
}

fn asked(board: &Board) -> bool {
    matches!(board.past(), Past::Asked | Past::Seen)
        || matches!(board.arrival(), Arrival::Interrupt | Arrival::ShieldAndInterrupt)
}

/// Nothing of ours is queued, comes, or is kept away by a mask.
fn quiet(sig: i32) {
    let mut set = 0u64;
    assert_eq!(unsafe { libc::syscall(libc::SYS_rt_sigpending, &mut set, 8usize) }, 0);
    assert_eq!((common::mask() & common::bit(sig), set & common::bit(sig)), (0, 0));
    assert!(undisturbed(Duration::from_micros(5)));
}

fn shielded(scope: &Scope, asked: bool) {
    assert_eq!(scope.interrupted().is_some(), asked);
    assert!(eintr::check().is_ok() && eintr::sleep(Duration::from_micros(1)).is_ok() && !eintr::is_interruptible());
    quiet(scope.signal().as_raw());
}

/// What was asked acts, on a call or on `check`; and after it was cleared the scope is as good as new.
fn open(scope: &Scope, asked: bool, by_call: bool, empty: &OwnedFd) {
    assert!(eintr::is_interruptible());
    if asked && by_call {
        let answer = eintr::sys::read(empty, &mut [0; 8]); // one that is not ended is found asleep
        assert!(matches!(answer, Err(Error::Interrupted(_))), "{answer:?}");
    }
    assert_eq!(eintr::check().is_err(), asked);
    assert_eq!(scope.interrupted().is_some(), asked); // after the others: it tells them
    quiet(scope.signal().as_raw());
    assert_eq!(scope.clear().is_some(), asked);
    assert!(eintr::check().is_ok());
    assert_eq!(scope.remote().interrupt_once(), Delivery::Sent);
    assert!(eintr::check().is_err() && scope.clear().is_some());
    quiet(scope.signal().as_raw());
}

/// An instruction, and how often it has been met before.
#[derive(Clone, Copy, Debug)]
struct Spot {
    pc: u64,
    times: usize,
}

/// The tracer's side.
struct Stepper {
    tracee: Tracee,
    board: &'static Board,
    commands: File,
    replies: File,
}

impl Stepper {
    fn start(sig: i32) -> Option<Stepper> {
        let (board, (to_read, commands), (replies, to_write)) = (Board::map(), common::pipe(), common::pipe());
        let child = || child(board, sig, to_read.into(), to_write.into());
        let tracee = Tracee::start(&[libc::SYS_read], child)?;
        Some(Stepper { tracee, board, commands: commands.into(), replies: replies.into() })
    }

    fn go_on(&mut self, place: u32, what: &str) {
        assert_eq!((self.tracee.go(), self.board.place.load(SeqCst)), (Stop::Trap, place), "{what}");
    }

    fn begin(&mut self, past: usize, path: Path, arrival: usize, by_call: bool, what: &str) {
        self.board.past.store(past as u32, SeqCst);
        self.board.path.store(path as u32, SeqCst);
        self.board.arrival.store(arrival as u32, SeqCst);
        self.board.by_call.store(u32::from(by_call), SeqCst);
        self.go_on(BEFORE, what);
    }

    /// The instructions of the executable's that are run through, with nothing arriving: address, and how often it was met before. In a loop the first
    /// three times are enough. (The kernel's pages, for the clock, take no breakpoint.)
    fn path(&mut self, past: usize, path: Path) -> Vec<Spot> {
        self.begin(past, path, usize::MAX, false, "alone");
        let (mut spots, mut met) = (Vec::new(), BTreeMap::<u64, usize>::new());
        while self.board.place.load(SeqCst) == BEFORE {
            let pc = self.tracee.pc();
            let times = met.entry(pc).or_default();
            if *times < 3 && pc.abs_diff(on_foreign as *const () as u64) < 1 << 26 {
                spots.push(Spot { pc, times: *times });
            }
            *times += 1;
            assert_eq!(self.tracee.step(), Stop::Trap);
        }
        self.go_on(BEHIND, "alone");
        self.go_on(ORDER, "alone");
        spots
    }

    /// To right before that instruction; to the end of the path, if it is another one this time.
    fn go_to(&mut self, spot: Spot) {
        for times in 0..=spot.times {
            self.tracee.break_at(spot.pc);
            assert_eq!(self.tracee.go(), Stop::Trap);
            if self.tracee.pc() != spot.pc {
                return self.tracee.forget_breakpoints();
            }
            if times < spot.times {
                assert_eq!(self.tracee.step(), Stop::Trap);
            }
        }
    }

    fn round(&mut self, past: usize, path: Path, arrival: usize, spot: Spot) {
        let what = format!("{:?}, {path:?}, {:?} at {spot:x?}", PASTS[past], ARRIVALS[arrival]);
        self.begin(past, path, arrival, spot.pc.is_multiple_of(2), &what);
        self.go_to(spot);
        let runs = self.board.runs.load(SeqCst);
        if ARRIVALS[arrival] == Arrival::Interrupt {
            self.commands.write_all(&[0]).unwrap();
            self.replies.read_exact(&mut [0]).unwrap();
        } else {
            self.tracee.signal(FOREIGN);
        }
        if self.board.place.load(SeqCst) == BEFORE {
            self.go_on(BEHIND, &what);
        }
        self.go_on(ORDER, &what);
        assert_eq!(self.board.runs.load(SeqCst) - runs, u32::from(ARRIVALS[arrival] != Arrival::Interrupt), "{what}");
    }

    fn end(self) {
        self.board.past.store(END, SeqCst);
        self.tracee.end();
    }
}

/// Has everything arrive at some instructions of a path, others for each arrival and each number; how many rounds that were.
fn rounds_of(stepper: &mut Stepper, past: usize, path: Path, all: &[Spot], seed: usize) -> usize {
    let spots = common::rounds("EINTR_SPOTS", if cfg!(debug_assertions) { 12 } else { 40 }) as usize;
    let apart = (all.len() / spots).max(1);
    let mut rounds = 0;
    for arrival in 0..ARRIVALS.len() {
        for spot in all.iter().skip((seed + arrival * 7) % apart).step_by(apart) {
            stepper.round(past, path, arrival, *spot);
            rounds += 1;
        }
    }
    rounds
}

#[test]
fn at_each_instruction_of_raising_and_lowering_the_shield_is_up_or_it_is_not() {
    let _t = common::begin_with(Duration::from_secs(120));
    let before = State::now();
    let ways: Vec<_> = (0..PASTS.len()).flat_map(|past| [(past, Path::Raise), (past, Path::Lower)]).collect();
    let mut paths = Vec::new();
    for sig in kinds() {
        let Some(mut stepper) = Stepper::start(sig) else { return };
        if paths.is_empty() {
            // In each child the executable lies at the same place.
            paths.extend(ways.iter().map(|(past, path)| stepper.path(*past, *path)));
        }
        let mut rounds = 0;
        for ((past, path), all) in ways.iter().zip(&paths) {
            rounds += rounds_of(&mut stepper, *past, *path, all, rounds + sig as usize);
        }
        stepper.end();
        println!("signal {sig}: {rounds} rounds, {} instructions", paths.iter().map(Vec::len).sum::<usize>());
    }
    assert_eq!(State::now(), before);
}
