//! What an interrupt does to the code that it lands on (protocol 3, rows 3 to 8): a pure function of where the program counter stands and of
//! what lies below.
//!
//! # Invariants
//! 1. A program counter between `begin` and `end` belongs to a call that has not happened: it is cancelled. Anywhere else in the stub a result
//!    stands, or `pending` is still to be tested: nothing is done to it.
//! 2. A call below another handler is never ended from here; the interrupt comes again when that handler has returned.

use crate::kernel::stack::Life;
use crate::kernel::stub::window::Labels;

/// Where a program counter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Between the test of `pending` and the end of the system call instruction.
    Window,
    /// In the stub, and the mark names its frame.
    Marked,
    /// In the stub, before the mark was set or after it was taken off.
    Unmarked,
    /// Elsewhere.
    Outside,
}

impl Place {
    pub(crate) const fn of(pc: usize, stub: &Labels) -> Place {
        if pc < stub.first || pc >= stub.last {
            Place::Outside
        } else if pc < stub.begin {
            Place::Unmarked
        } else if pc < stub.end {
            Place::Window
        } else if pc < stub.popped {
            Place::Marked
        } else if pc < stub.cancel {
            Place::Unmarked
        } else {
            Place::Marked
        }
    }

    /// Whether the mark is that of the call that was interrupted, so that what lies below is what it has saved.
    pub(crate) const fn has_own_mark(self) -> bool {
        matches!(self, Place::Window | Place::Marked)
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    /// Move the program counter to `cancel`.
    pub(crate) cancel: bool,
    pub(crate) then: Then,
}

/// And what besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Nothing,
    /// A call lies below the code that was interrupted: block the number there and send again (R3).
    Resend,
    /// Perhaps one does: let the timer send again.
    Timer,
    /// No call of the crate is concerned; a plain one may be about to be restarted (protocol 9).
    Plain,
}

/// `below`: the frame that lies below the one that was interrupted. An interrupt is pending.
pub(crate) const fn decide(place: Place, below: Life) -> Decision {
    let then = match (below, place) {
        (Life::Live, _) => Then::Resend,
        (Life::Doubtful, _) => Then::Timer,
        (Life::Dead, Place::Outside) => Then::Plain,
        (Life::Dead, _) => Then::Nothing,
    };
    Decision { cancel: matches!(place, Place::Window), then }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STUB: Labels = Labels { first: 100, begin: 140, end: 150, popped: 162, cancel: 168, last: 180 };

    #[test]
    fn the_table_of_places() {
        let expected = |pc| match pc {
            140..150 => Place::Window,
            150..162 | 168..180 => Place::Marked,
            100..140 | 162..168 => Place::Unmarked,
            _ => Place::Outside,
        };
        for pc in 90..190 {
            assert_eq!(Place::of(pc, &STUB), expected(pc), "{pc}");
        }
    }

    #[test]
    fn the_table_of_decisions() {
        use {Life::*, Place::*};
        let table = [
            (Window, Dead, true, Then::Nothing),
            (Window, Live, true, Then::Resend),
            (Window, Doubtful, true, Then::Timer),
            (Marked, Dead, false, Then::Nothing),
            (Marked, Live, false, Then::Resend),
            (Marked, Doubtful, false, Then::Timer),
            (Unmarked, Dead, false, Then::Nothing),
            (Unmarked, Live, false, Then::Resend),
            (Unmarked, Doubtful, false, Then::Timer),
            (Outside, Dead, false, Then::Plain),
            (Outside, Live, false, Then::Resend),
            (Outside, Doubtful, false, Then::Timer),
        ];
        for (place, below, cancel, then) in table {
            assert_eq!(decide(place, below), Decision { cancel, then }, "{place:?} {below:?}");
        }
    }

    #[test]
    fn the_stub_has_its_labels_in_order() {
        let stub = Labels::of_the_stub();
        let labels = [stub.first, stub.begin, stub.end, stub.popped, stub.cancel, stub.last];
        assert!(labels.is_sorted_by(|a, b| a < b), "{stub:x?}");
    }
}
