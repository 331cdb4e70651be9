//! The tracer's side of a round: leads the child to an instruction, makes something arrive there, and looks at what comes of it. Beside
//! `mod common;`, `mod tracee;` and `mod stepped_child;`.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block
)]

use crate::common;
use crate::stepped_child::{
    AFTER, BEFORE, BEHIND, Board, INTERRUPTED, ORDER, Pipes, SENTINEL, Setup, Shape, child, on_foreign,
};
use crate::tracee::{Labels, Registers, Stop, Tracee};
use std::fs::File;
use std::io::{Read, Write};
use std::sync::atomic::Ordering::SeqCst;

/// What arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    Ours,
    Foreign,
    /// Both are pending when the thread goes on: the kernel builds the frames in the order of the numbers.
    Both,
    /// Ours, when the thread stands at the first instruction of the foreign signal's handler.
    OnTop,
    /// Ours, when that handler has returned into the stub and so many instructions were run since.
    Behind(usize),
    /// Ours, so many instructions into the stub in the call that the foreign handler makes.
    Inside(usize),
    /// Flag and signal of the naive twin.
    Naive,
}

impl Arrival {
    fn interrupts(self) -> bool {
        self != Arrival::Foreign
    }
    fn is_foreign_too(self) -> bool {
        !matches!(self, Arrival::Ours | Arrival::Naive)
    }
    fn stops_in_foreign(self) -> bool {
        matches!(self, Arrival::OnTop | Arrival::Behind(_) | Arrival::Inside(_))
    }
}

/// Where a round's arrival is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spot {
    /// Right before the instruction at this address is run.
    At(u64),
    /// Asleep in the call.
    Asleep,
}

/// What came of a round.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    pub answer: i64,
    /// The scope's interrupt is there when the call has come back.
    pub interrupted: bool,
    /// Bytes in the pipe then.
    pub left: i32,
    /// The thread was found asleep after the arrival, so a byte was written.
    pub slept: bool,
    /// What the foreign handler's own call answered.
    pub inner: i64,
    /// Where ours, or the foreign one alone, found the thread in the end.
    pub met: Spot,
}

/// What is compared when the stub returns.
#[derive(Clone, Copy, Debug)]
struct Entry {
    registers: Registers,
    returns_to: u64,
    window: u64,
    mark: u64,
}

#[derive(Debug)]
pub struct Stepper {
    pub setup: Setup,
    pub labels: Labels,
    tracee: Tracee,
    board: &'static Board,
    pipes: Pipes,
    commands: File,
    replies: File,
    mask: u64,
    /// Rounds made.
    pub rounds: u64,
    /// As the stub was entered in this round, until it returns.
    entry: Option<Entry>,
}

impl Stepper {
    /// `None`: ptrace is not permitted.
    pub fn start(setup: Setup) -> Option<Stepper> {
        let (board, pipes, labels) = (Board::map(), Pipes::new(), Labels::of_this_executable());
        let ((to_read, commands), (replies, to_write)) = (common::pipe(), common::pipe());
        let tracee = Tracee::start(&[libc::SYS_read, libc::SYS_splice, libc::SYS_ppoll], || {
            child(board, setup, &pipes, File::from(to_read), File::from(to_write))
        })?;
        let (commands, replies) = (File::from(commands), File::from(replies));
        let mask = tracee.mask();
        Some(Stepper { setup, labels, tracee, board, pipes, commands, replies, mask, rounds: 0, entry: None })
    }

    /// Lets the child leave its scope and end.
    pub fn end(self) {
        self.board.shape.store(Shape::End as u32, SeqCst);
        self.tracee.end();
    }

    fn place(&self) -> u32 {
        self.board.place.load(SeqCst)
    }

    /// To the child's next trap.
    fn go_on(&mut self, place: u32) {
        assert_eq!((self.tracee.go(), self.place()), (Stop::Trap, place), "{:?}", self.setup);
    }

    /// To right before the call.
    fn begin(&mut self, shape: Shape) {
        self.rounds += 1;
        self.board.shape.store(shape as u32, SeqCst);
        self.go_on(BEFORE);
        self.tracee.passed.clear();
    }

    /// To the first instruction of the stub.
    fn enter(&mut self) {
        self.tracee.go_to(self.labels.first);
        let registers = self.tracee.registers();
        assert_eq!(registers.rsp % 16, 8, "the stack is aligned to 16 at the call, which has pushed an address");
        let word = |at| self.tracee.word(at);
        // The seventh and eighth arguments lie above the return address; the eighth is the Window.
        let (returns_to, window) = (word(registers.rsp), word(registers.rsp + 16));
        self.entry = Some(Entry { registers, returns_to, window, mark: word(window + 8) });
        self.tracee.break_at(returns_to);
    }

    /// The instructions that a round runs through, from the stub's first to its return, with nothing arriving; `Asleep` if it blocks then.
    pub fn path_of_stub(&mut self, shape: Shape) -> Vec<Spot> {
        self.begin(shape);
        self.enter();
        let labels = self.labels;
        self.path(|stepper| labels.has(stepper.tracee.pc()))
    }

    /// The same from right before the call to right behind it, the code around the stub too. That code need not go the same way each time.
    pub fn path_of_call(&mut self, shape: Shape) -> Vec<Spot> {
        self.begin(shape);
        self.path(|stepper| stepper.place() == BEFORE)
    }

    fn path(&mut self, inside: impl Fn(&Stepper) -> bool) -> Vec<Spot> {
        let mut path = Vec::new();
        while path.last() != Some(&Spot::Asleep) && inside(self) {
            path.push(Spot::At(self.tracee.pc()));
            if self.tracee.step() == Stop::Asleep {
                path.push(Spot::Asleep);
            }
        }
        assert_eq!(self.tracee.passed, [0; 0], "nothing arrives by itself");
        self.finish(path.last() == Some(&Spot::Asleep));
        path
    }

    /// One round: along the stub's `path` to its last spot; there `arrival` is made.
    pub fn round(&mut self, shape: Shape, path: &[Spot], arrival: Arrival) -> Outcome {
        self.begin(shape);
        self.enter();
        let foreign = on_foreign as *const () as u64;
        if arrival.stops_in_foreign() {
            self.tracee.break_at(foreign); // it can be set while the thread stands, and not while it sleeps
        }
        for (from, to) in path.iter().zip(&path[1..]) {
            assert_eq!(*from, Spot::At(self.tracee.pc()), "the same way as before");
            assert_eq!(self.step(), *to, "the same way as before");
        }
        self.go_through(*path.last().expect("a spot"), arrival)
    }

    /// One round: so many instructions from right before the call; there `arrival` is made.
    pub fn round_by_steps(&mut self, shape: Shape, steps: usize, arrival: Arrival) -> Outcome {
        self.begin(shape);
        let mut met = Spot::At(self.tracee.pc());
        for _ in 0..steps {
            if met == Spot::Asleep || self.place() != BEFORE {
                break;
            }
            met = self.step();
        }
        self.go_through(met, arrival)
    }

    fn go_through(&mut self, spot: Spot, arrival: Arrival) -> Outcome {
        assert_eq!(self.tracee.passed, [0; 0], "nothing arrives by itself");
        let runs = self.board.foreign_runs.load(SeqCst);
        let met = self.arrive(spot, arrival);
        let slept = self.finish(met == Spot::Asleep);
        let (interrupted, left) = (self.board.interrupted.load(SeqCst), self.board.left.load(SeqCst));
        let foreign = self.board.foreign_runs.load(SeqCst) - runs;
        assert_eq!(foreign, u32::from(arrival.is_foreign_too()), "runs of the foreign handler");
        assert_eq!(self.board.behind_runs.load(SeqCst), 0, "nothing of ours reaches the action behind");
        let (answer, inner) = (self.board.answer.load(SeqCst), self.board.inner_answer.load(SeqCst));
        Outcome { answer, interrupted, left, slept, inner, met }
    }

    /// Where the thread is when all has arrived.
    fn arrive(&mut self, spot: Spot, arrival: Arrival) -> Spot {
        let foreign = on_foreign as *const () as u64;
        if arrival.is_foreign_too() {
            self.tracee.signal(self.setup.foreign);
        }
        if arrival.stops_in_foreign() {
            let stop = if spot == Spot::Asleep { self.tracee.wait() } else { self.tracee.go() };
            assert_eq!((stop, self.tracee.pc()), (Stop::Trap, foreign));
        }
        let mut met = spot;
        match arrival {
            Arrival::Foreign => {}
            Arrival::Naive => self.command(b'n'),
            Arrival::Ours | Arrival::Both => self.command(b'i'),
            Arrival::OnTop => {
                self.command(b'i');
                met = Spot::At(foreign);
            }
            Arrival::Behind(steps) => {
                // It steps over the return, too, and into a second call.
                self.entry = None;
                self.tracee.forget_breakpoints();
                met = self.leave_handler(steps);
                self.command(b'i');
            }
            Arrival::Inside(steps) => {
                self.tracee.go_to(self.labels.first);
                (0..steps).for_each(|_| assert_eq!(self.tracee.step(), Stop::Trap));
                met = Spot::At(self.tracee.pc());
                self.command(b'i');
            }
        }
        met
    }

    fn step(&mut self) -> Spot {
        match self.tracee.step() {
            Stop::Asleep => Spot::Asleep,
            Stop::Trap => Spot::At(self.tracee.pc()),
        }
    }

    /// From the handler back into the stub, and as many steps further; fewer if it falls asleep.
    fn leave_handler(&mut self, steps: usize) -> Spot {
        while !self.labels.has(self.tracee.pc()) {
            assert_eq!(self.tracee.step(), Stop::Trap);
        }
        let mut met = Spot::At(self.tracee.pc());
        for _ in 0..steps {
            if met == Spot::Asleep {
                break;
            }
            met = self.step();
        }
        met
    }

    /// From the middle of a call to the child's next order, looking at all there is to see on the way. `true`: it slept, and was woken by a byte.
    fn finish(&mut self, asleep: bool) -> bool {
        let mut stop = if asleep { self.tracee.wait() } else { self.tracee.go() };
        let mut slept = false;
        loop {
            match stop {
                Stop::Asleep => {
                    assert!(!slept, "it sleeps although there is a byte");
                    slept = true;
                    self.pipes.write();
                    stop = self.tracee.wait();
                }
                Stop::Trap if self.place() == BEHIND => break,
                Stop::Trap => {
                    let entry = self.entry.take().expect("the stub was entered, and has not returned yet");
                    if self.tracee.registers().rsp == entry.registers.rsp + 8 {
                        self.look_at_return(&entry);
                    } else {
                        // The foreign handler's own call returns to the same place.
                        self.tracee.step();
                        self.tracee.break_at(entry.returns_to);
                        self.entry = Some(entry);
                    }
                    stop = self.tracee.go();
                }
            }
        }
        self.entry = None;
        self.tracee.forget_breakpoints();
        self.go_on(AFTER);
        assert!(self.board.errno.load(SeqCst) == SENTINEL || self.board.shape() == Shape::Naive, "errno was written");
        // The scope works on: a plain round.
        assert_eq!(self.tracee.go(), Stop::Asleep, "a call with nothing pending blocks");
        self.command(b'i');
        assert_eq!((self.tracee.wait(), self.place()), (Stop::Trap, ORDER), "an interrupt ends it");
        assert_eq!(self.board.after.load(SeqCst), INTERRUPTED);
        assert_eq!(self.tracee.mask(), self.mask, "the mask is as before the call");
        slept
    }

    fn look_at_return(&self, entry: &Entry) {
        let (was, is) = (&entry.registers, self.tracee.registers());
        assert_eq!(is.rip, entry.returns_to);
        assert_eq!(is.rsp, was.rsp + 8, "the stack pointer, less the address that the return took");
        let kept = |r: &Registers| [r.rbx, r.rbp, r.r12, r.r13, r.r14, r.r15];
        assert_eq!(kept(&is), kept(was), "rbx, rbp, r12 to r15 are the caller's");
        assert_eq!(is.eflags & 1 << 10, 0, "the direction flag is off");
        assert_eq!(self.tracee.word(entry.window + 8), entry.mark, "the mark is as it was");
    }

    /// Has the child's other thread interrupt.
    fn command(&mut self, command: u8) {
        self.commands.write_all(&[command]).expect("the child listens");
        let mut reply = [0];
        self.replies.read_exact(&mut reply).expect("the child replies");
        assert_eq!(reply, [b's'], "a signal is sent: nothing is on its way");
    }
}
