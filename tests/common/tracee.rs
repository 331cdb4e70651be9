//! A child whose main thread is stepped through its instructions by ptrace(2), and the labels of the stub as the executable's symbol table has them.
//! x86_64 only. A test file takes it by `#[path = "common/tracee.rs"] mod tracee;` beside `mod common;`.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block
)]

use crate::common;
use std::fs;
use std::io::{Error, Write};

/// Registers as ptrace tells them.
pub type Registers = libc::user_regs_struct;

/// Why the tracee does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A step, a breakpoint, or [`trap`]; the program counter tells which.
    Trap,
    /// It sleeps in a system call that was named at the start, and no signal is about to be delivered.
    Asleep,
}

/// The tracer's side. The tracee is killed with it, and when it drops.
#[derive(Debug)]
pub struct Tracee {
    pub pid: libc::pid_t,
    /// The calls whose sleep is [`Stop::Asleep`].
    sleep: &'static [libc::c_long],
    /// Addresses, and the bytes that stood there.
    breakpoints: Vec<(u64, u8)>,
    /// Goes into the tracee when it is resumed.
    pass: i32,
    /// The signals that were passed on, in order.
    pub passed: Vec<i32>,
}

/// Stops the tracee that runs into it; the tracer finds the program counter behind it.
#[inline]
pub fn trap() {
    unsafe { std::arch::asm!("int3") };
}

impl Tracee {
    /// Forks. The child's main thread runs `body`, traced; it must end by a trap that the tracer does not leave, or by itself. `None`, said aloud,
    /// where ptrace is not permitted.
    pub fn start(sleep: &'static [libc::c_long], body: impl FnOnce()) -> Option<Tracee> {
        let (ready, go) = common::pipe();
        stay_here();
        let pid = common::fork(|| {
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                libc::alarm(110);
            }
            assert_eq!(common::plain_read(&ready), Ok(1), "the tracer is there");
            body();
            0
        });
        let mut tracee = Tracee { pid, sleep, breakpoints: Vec::new(), pass: 0, passed: Vec::new() };
        if let Err(e) = tracee.ask(libc::PTRACE_SEIZE, 0, libc::PTRACE_O_EXITKILL as u64) {
            println!("SKIPPED: stepping a child through the stub: ptrace(2) is not permitted here: {e}");
            return None;
        }
        fs::File::from(go).write_all(&[1]).expect("the child waits");
        assert_eq!(tracee.wait(), Stop::Trap, "the child's first trap");
        Some(tracee)
    }

    fn ask(&self, request: libc::c_uint, at: u64, data: u64) -> Result<u64, Error> {
        let r = unsafe { libc::ptrace(request, self.pid, at, data) };
        if r < 0 { Err(Error::last_os_error()) } else { Ok(r as u64) }
    }

    pub fn registers(&self) -> Registers {
        let mut registers: Registers = unsafe { std::mem::zeroed() };
        self.ask(libc::PTRACE_GETREGS, 0, &raw mut registers as u64).expect("PTRACE_GETREGS of a stopped child");
        registers
    }

    pub fn pc(&self) -> u64 {
        self.registers().rip
    }

    /// The word at an address of the tracee.
    pub fn word(&self, at: u64) -> u64 {
        // A word may look like an error, so errno decides (ptrace(2)); libc's wrapper gives the word back.
        unsafe { *libc::__errno_location() = 0 };
        let word = unsafe { libc::ptrace(libc::PTRACE_PEEKDATA, self.pid, at, 0) };
        assert_eq!(unsafe { *libc::__errno_location() }, 0, "PTRACE_PEEKDATA at {at:#x}");
        word as u64
    }

    fn put(&self, at: u64, byte: u8) {
        let word = self.word(at) & !0xff | u64::from(byte);
        self.ask(libc::PTRACE_POKEDATA, at, word).expect("PTRACE_POKEDATA of a stopped child");
    }

    /// The tracee, which is stopped now, stops when it comes to this address; once.
    pub fn break_at(&mut self, at: u64) {
        self.breakpoints.push((at, self.word(at) as u8));
        self.put(at, 0xcc); // int3
    }

    /// Takes out every breakpoint that was not met.
    pub fn forget_breakpoints(&mut self) {
        while let Some((at, byte)) = self.breakpoints.pop() {
            self.put(at, byte);
        }
    }

    /// At a trap: if that was a breakpoint, takes it out and puts the program counter back on it.
    fn mend(&mut self) {
        let mut registers = self.registers();
        let Some(met) = self.breakpoints.iter().position(|(at, _)| at + 1 == registers.rip) else { return };
        let (at, byte) = self.breakpoints.swap_remove(met);
        self.put(at, byte);
        registers.rip = at;
        self.ask(libc::PTRACE_SETREGS, 0, &raw const registers as u64).expect("PTRACE_SETREGS of a stopped child");
    }

    /// One instruction, or until it sleeps. A signal is passed on, and the step made behind it: in its handler.
    pub fn step(&mut self) -> Stop {
        self.resume(libc::PTRACE_SINGLESTEP);
        self.wait_by(libc::PTRACE_SINGLESTEP)
    }

    /// Until the next trap or breakpoint, or until it sleeps; signals are passed on.
    pub fn go(&mut self) -> Stop {
        self.resume(libc::PTRACE_CONT);
        self.wait()
    }

    /// [`go`](Tracee::go) to one address.
    pub fn go_to(&mut self, at: u64) {
        self.break_at(at);
        assert_eq!((self.go(), self.pc()), (Stop::Trap, at));
    }

    /// Until something stops the tracee that runs or sleeps.
    pub fn wait(&mut self) -> Stop {
        self.wait_by(libc::PTRACE_CONT)
    }

    fn resume(&mut self, how: libc::c_uint) {
        let sig = std::mem::take(&mut self.pass);
        if sig != 0 {
            self.passed.push(sig);
        }
        self.ask(how, 0, sig as u64).expect("a stopped child is resumed");
    }

    fn wait_by(&mut self, how: libc::c_uint) -> Stop {
        for look in 0u64.. {
            // Most stops come at once, and this question is dear.
            let asleep = look >= 20 && self.is_asleep();
            match self.event() {
                // The end of a step that fell asleep, of which nobody waits any more.
                Some(libc::SIGTRAP) if how == libc::PTRACE_CONT && !self.is_at_int3() => self.resume(how),
                Some(libc::SIGTRAP) => {
                    self.mend();
                    return Stop::Trap;
                }
                Some(sig) => {
                    self.pass = sig;
                    self.resume(how);
                }
                // It slept, and has not stopped since: what could wake it has not come.
                None if asleep => return Stop::Asleep,
                None => std::thread::yield_now(),
            }
        }
        unreachable!("looked for ever")
    }

    /// The signal that it has stopped with, if it has stopped.
    fn event(&self) -> Option<i32> {
        let mut status = 0;
        let r = unsafe { libc::waitpid(self.pid, &mut status, libc::WNOHANG | libc::__WALL) };
        assert!(r >= 0, "waitpid: {}", Error::last_os_error());
        if r == 0 {
            return None;
        }
        assert!(libc::WIFSTOPPED(status), "the child has ended: status {status:#x}");
        let sig = libc::WSTOPSIG(status);
        assert!(sig != libc::SIGALRM, "the child's time is up");
        Some(sig)
    }

    /// Whether it stopped by int3, a breakpoint's or [`trap`]'s, and not by a step: the code of its siginfo is SI_KERNEL then.
    fn is_at_int3(&self) -> bool {
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        self.ask(libc::PTRACE_GETSIGINFO, 0, &raw mut info as u64).expect("PTRACE_GETSIGINFO of a stopped child");
        info.si_code == 0x80
    }

    /// Whether it sleeps, interruptibly, in such a call.
    fn is_asleep(&self) -> bool {
        let read = |file| fs::read_to_string(format!("/proc/{}/{file}", self.pid)).unwrap_or_default();
        // The state stands behind the name, which may hold anything.
        read("stat").rsplit(')').next().is_some_and(|rest| rest.starts_with(" S"))
            && read("syscall").split(' ').next().is_some_and(|nr| self.sleep.iter().any(|call| call.to_string() == nr))
    }

    /// A signal to the main thread, from this process.
    pub fn signal(&self, sig: i32) {
        let r = unsafe { libc::syscall(libc::SYS_tgkill, self.pid, self.pid, sig) };
        assert_eq!(r, 0, "tgkill({sig})");
    }

    /// The signals that its main thread blocks.
    pub fn mask(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).expect("the child lives");
        let line = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).expect("SigBlk");
        u64::from_str_radix(line.trim(), 16).expect("a mask")
    }

    /// Lets it run to its end, which must be a good one.
    pub fn end(self) {
        self.ask(libc::PTRACE_DETACH, 0, 0).expect("a stopped child is let go");
        let status = common::reap_in_time(self.pid);
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "the child ended with status {status:#x}");
        std::mem::forget(self);
    }
}

impl Drop for Tracee {
    fn drop(&mut self) {
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, std::ptr::null_mut(), libc::__WALL);
        }
    }
}

/// Keeps this thread, and the child, on one processor: a step costs a switch then, and no wake-up of another processor.
fn stay_here() {
    unsafe {
        let mut here: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(libc::sched_getcpu() as usize, &mut here);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &here);
    }
}

/// Where the stub's labels lie in this process, and in its forked children.
#[derive(Clone, Copy, Debug)]
pub struct Labels {
    pub first: u64,
    pub begin: u64,
    pub end: u64,
    pub popped: u64,
    pub cancel: u64,
    pub last: u64,
}

impl Labels {
    /// Read from this executable's symbol table, which has the hidden ones too.
    pub fn of_this_executable() -> Labels {
        let elf = fs::read("/proc/self/exe").expect("the executable");
        let of = |label| {
            let name = format!("eintr_0_1_0_{label}");
            symbol(&elf, &name).unwrap_or_else(|| panic!("{name} is not in the symbol table: is it stripped?"))
        };
        Labels {
            first: of("stub"),
            begin: of("begin"),
            end: of("end"),
            popped: of("popped"),
            cancel: of("cancel"),
            last: of("last"),
        }
    }

    pub fn has(&self, pc: u64) -> bool {
        (self.first..self.last).contains(&pc)
    }
}

/// Address at run time of a symbol of the executable (elf(5)).
fn symbol(elf: &[u8], wanted: &str) -> Option<u64> {
    let number = |at: usize, size: usize| {
        let mut bytes = [0; 8];
        bytes[..size].copy_from_slice(&elf[at..at + size]);
        u64::from_le_bytes(bytes)
    };
    // The entry point tells how far the file was moved when it was loaded.
    let moved = unsafe { libc::getauxval(libc::AT_ENTRY) }.wrapping_sub(number(0x18, 8));
    let (headers, size, count) = (number(0x28, 8) as usize, number(0x3a, 2) as usize, number(0x3c, 2) as usize);
    let header = |index: usize| headers + index * size;
    let table = (0..count).map(header).find(|at| number(at + 4, 4) == 2)?; // SHT_SYMTAB
    let names = number(header(number(table + 0x28, 4) as usize) + 0x18, 8) as usize;
    let (symbols, bytes) = (number(table + 0x18, 8) as usize, number(table + 0x20, 8) as usize);
    let of = |at: usize| elf[names + number(at, 4) as usize..].split(|b| *b == 0).next();
    let found = (symbols..symbols + bytes).step_by(24).find(|at| of(*at) == Some(wanted.as_bytes()))?;
    Some(number(found + 8, 8).wrapping_add(moved))
}
