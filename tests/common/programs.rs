//! Programs for tests/random_programs.rs: what a thread with scopes may do, and how one is made up at random.

use eintr::Foreign;
use proptest::prelude::*;

/// The numbers that scopes are entered on, by what the thread is like before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Number {
    /// A standard one, open, a counting handler behind.
    Standard,
    /// The same, blocked.
    StandardBlocked,
    /// A real-time one, open, a counting handler behind.
    RealTime,
    /// The same, blocked.
    RealTimeBlocked,
    /// A real-time one, open, SIG_DFL behind: one of ours that gets there ends the process. Nobody else sends it.
    Deadly,
}
pub(crate) use Number::*;

pub(crate) const NUMBERS: [Number; 5] = [Standard, StandardBlocked, RealTime, RealTimeBlocked, Deadly];

impl Number {
    pub(crate) fn raw(self) -> i32 {
        match self {
            Standard => libc::SIGUSR1,
            StandardBlocked => libc::SIGUSR2,
            RealTime => libc::SIGRTMIN() + 3,
            RealTimeBlocked => libc::SIGRTMIN() + 4,
            Deadly => libc::SIGRTMIN() + 5,
        }
    }
    pub(crate) fn is_standard(self) -> bool {
        matches!(self, Standard | StandardBlocked)
    }
    pub(crate) fn begins_blocked(self) -> bool {
        matches!(self, StandardBlocked | RealTimeBlocked)
    }
    pub(crate) fn has_handler(self) -> bool {
        self != Deadly
    }
}

/// The index that a place names among `len`; `None` if there is nothing.
pub(crate) fn choose(place: u8, len: usize) -> Option<usize> {
    match place {
        _ if len == 0 => None,
        128.. => Some(len - 1),
        _ => Some(place as usize % len),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// The scoped thread itself.
    Itself,
    /// Another thread.
    Another,
    /// A signal handler of the scoped thread.
    Handler,
    /// The drop of a `DropGuard`.
    Guard,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum How {
    Raise,
    PthreadKill,
    Kill,
    Sigqueue,
}

/// A place (`u8`) names the latest there is, every other time; else any, modulo their count.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Enter {
        number: Number,
        policy: Foreign,
    },
    /// Something that is refused, with a ticket or without.
    EnterRefused {
        ticket: bool,
    },
    MakeTicket,
    EnterTicket {
        ticket: u8,
        number: Number,
        policy: Foreign,
    },
    DropTicket {
        ticket: u8,
    },
    Interrupt {
        remote: u8,
        by: By,
        /// By one signal. (A guard never is.)
        once: bool,
    },
    Signal {
        number: Number,
        how: How,
    },
    Block {
        number: Number,
    },
    Unblock {
        number: Number,
    },
    Clear {
        scope: u8,
    },
    Check,
    Look {
        scope: u8,
    },
    Retry {
        eintrs: u8,
    },
    Wait {
        remote: u8,
    },
    /// A plain read that only a resend can end; if there is to be one.
    Read,
    /// A read of the crate's own: of nothing, which an interrupt ends; of something, if none is pending.
    Call,
    Drop {
        scope: u8,
        leave: bool,
    },
    /// A block of its own, whose scopes end with it: by return or by panic.
    Within {
        ops: Vec<Op>,
        panics: bool,
    },
}

/// Which scopes have their interrupts sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resends {
    /// None: then every answer is known beforehand.
    None,
    /// All, as scopes are when nobody says otherwise.
    All,
    /// All, as fast as it goes.
    AllFast,
    /// Every other one.
    Some,
}

#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) ops: Vec<Op>,
    /// Another thread has a scope on this number all the while, and has the number blocked.
    pub(crate) companion: Option<Number>,
    pub(crate) resends: Resends,
    /// Scopes still live at the end are leaked, and the thread ends.
    pub(crate) leaks: bool,
}

fn op(numbers: Vec<Number>) -> impl Strategy<Value = Op> {
    let number = move || prop::sample::select(numbers.clone());
    let by = prop_oneof![3 => Just(By::Itself), 2 => Just(By::Another), 1 => Just(By::Handler), 1 => Just(By::Guard)];
    let how = prop_oneof![Just(How::Raise), Just(How::PthreadKill), Just(How::Kill), Just(How::Sigqueue)];
    let policy = || {
        prop_oneof![
            5 => Just(Foreign::Chain),
            1 => Just(Foreign::Ignore),
            2 => Just(Foreign::Interrupt),
            2 => Just(Foreign::InterruptAndChain),
            2 => Just(Foreign::InterruptOnce),
        ]
    };
    let enter = || (number(), policy());
    let simple = prop_oneof![
        6 => enter().prop_map(|(number, policy)| Op::Enter { number, policy }),
        1 => any::<bool>().prop_map(|ticket| Op::EnterRefused { ticket }),
        1 => Just(Op::MakeTicket),
        2 => (any::<u8>(), enter()).prop_map(|(ticket, (number, policy))| Op::EnterTicket { ticket, number, policy }),
        1 => any::<u8>().prop_map(|ticket| Op::DropTicket { ticket }),
        8 => (any::<u8>(), by, any::<bool>()).prop_map(|(remote, by, once)| Op::Interrupt { remote, by, once }),
        7 => (number(), how).prop_map(|(number, how)| Op::Signal { number, how }),
        4 => number().prop_map(|number| Op::Block { number }),
        2 => number().prop_map(|number| Op::Unblock { number }),
        2 => any::<u8>().prop_map(|scope| Op::Clear { scope }),
        3 => Just(Op::Check),
        2 => any::<u8>().prop_map(|scope| Op::Look { scope }),
        1 => (0..3u8).prop_map(|eintrs| Op::Retry { eintrs }),
        1 => any::<u8>().prop_map(|remote| Op::Wait { remote }),
        2 => Just(Op::Read),
        1 => Just(Op::Call),
        3 => (any::<u8>(), any::<bool>()).prop_map(|(scope, leave)| Op::Drop { scope, leave }),
    ];
    simple.prop_recursive(2, 24, 8, |op| {
        (prop::collection::vec(op, 1..8), any::<bool>()).prop_map(|(ops, panics)| Op::Within { ops, panics })
    })
}

fn program_on(numbers: Vec<Number>) -> impl Strategy<Value = Program> {
    let resends = prop_oneof![
        3 => Just(Resends::None),
        2 => Just(Resends::All),
        1 => Just(Resends::AllFast),
        1 => Just(Resends::Some),
    ];
    let companion = prop::option::weighted(0.3, prop::sample::select(numbers.clone()));
    (prop::collection::vec(op(numbers), 1..40), companion, resends, prop::bool::weighted(0.25))
        .prop_map(|(ops, companion, resends, leaks)| Program { ops, companion, resends, leaks })
}

/// Mostly on one or two numbers, so that what happens there meets.
pub(crate) fn program() -> impl Strategy<Value = Program> {
    let numbers = prop_oneof![
        3 => prop::sample::subsequence(NUMBERS.to_vec(), 1..=1),
        2 => prop::sample::subsequence(NUMBERS.to_vec(), 2..=2),
        1 => prop::sample::subsequence(NUMBERS.to_vec(), 3..=5),
    ];
    numbers.prop_flat_map(program_on)
}
