//! A call of std as a row of a table: how it is made to block, how it is let go, and what a Remote makes of it. Part of `std_call`.
#![allow(dead_code, missing_docs, missing_debug_implementations, unreachable_pub)]

use crate::counting::Counting;
use crate::suite::After;
use libc::{c_int, c_long, pid_t};
use std::io;

/// What becomes of a call that a Remote interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It answers EINTR.
    Eintr,
    /// std tries again after EINTR: ECANCELED where the kernel restarts calls, and nothing where it does not.
    Canceled,
    /// It does not come back.
    Stays,
    /// Nor does this where the kernel restarts calls; elsewhere EINTR, after which std does not try again.
    Restarted,
}

/// What stands behind the scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    Default,
    /// A handler with SA_RESTART.
    Restarts,
    /// A handler without.
    DoesNot,
}

pub const BEHIND: [Behind; 3] = [Behind::Default, Behind::Restarts, Behind::DoesNot];

impl Behind {
    pub fn install(self, sig: c_int) -> Option<Counting> {
        let flags = match self {
            Behind::Default => return None, // as every test finds it
            Behind::Restarts => libc::SA_RESTART,
            Behind::DoesNot => 0,
        };
        Some(Counting::with_flags(sig, flags))
    }
}

impl Fate {
    /// What it answers; `None`: it does not come back.
    pub fn over(self, behind: Behind) -> Option<c_int> {
        match (self, behind) {
            (Fate::Eintr, _) | (Fate::Restarted, Behind::DoesNot) => Some(libc::EINTR),
            (Fate::Canceled, Behind::Default | Behind::Restarts) => Some(libc::ECANCELED),
            _ => None,
        }
    }

    /// Whether std itself gives EINTR to its caller, where the kernel does not restart the call.
    pub fn lets_eintr_out(self) -> bool {
        self.over(Behind::DoesNot).is_some()
    }
}

/// A call that blocks until it is let go.
pub struct Call {
    /// The system calls that it sleeps in, one of them.
    pub sleeps_in: &'static [c_long],
    /// Makes it, once. What it gives beside a number is looked at in here.
    pub call: Box<dyn FnMut() -> io::Result<usize> + Send>,
    /// Lets the call that this thread is in come to its end; gives what is to be looked at when it has.
    pub provide: Box<dyn FnOnce(pid_t) -> After>,
    /// What it answers then.
    pub expected: usize,
    /// It is one that ends by itself, and says `expected` only if it took the time that it should.
    pub ends_alone: bool,
}

impl Call {
    pub fn new(
        sleeps_in: &'static [c_long],
        expected: usize,
        call: impl FnMut() -> io::Result<usize> + Send + 'static,
        provide: impl FnOnce(pid_t) -> After + 'static,
    ) -> Call {
        Call { sleeps_in, call: Box::new(call), provide: Box::new(provide), expected, ends_alone: false }
    }

    pub fn that_ends_alone(self) -> Call {
        Call { ends_alone: true, ..self }
    }
}

/// A row.
pub struct Row {
    /// As the table of the guide has it.
    pub name: &'static str,
    /// What it is a call of.
    pub of: &'static str,
    pub fate: Fate,
    pub make: fn() -> Call,
    /// It takes a second to let it go, so it is not tried in every way.
    pub slow: bool,
    /// An emulator makes the call in one, and has no signal in it.
    pub in_one: bool,
}

impl Row {
    pub const fn new(fate: Fate, name: &'static str, of: &'static str, make: fn() -> Call) -> Row {
        Row { name, of, fate, make, slow: false, in_one: false }
    }

    pub const fn slow(self) -> Row {
        Row { slow: true, ..self }
    }

    pub const fn in_one(self) -> Row {
        Row { in_one: true, ..self }
    }
}
