//! When an interrupt is sent again.

use std::time::Duration;

/// When an interrupt that was not acknowledged is sent again, by a timer of the kernel that is aimed at the thread. Of several scopes of one number
/// on a thread that wait, the shortest pauses count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resend {
    /// After `first`, then after twice as long each time, up to `ceiling`. A `first` of zero is taken to be a nanosecond, a `ceiling` below a
    /// millisecond to be one: sent again and again after less, the signal would keep the thread from ever getting to see it. What is longer than 584
    /// years is cut.
    Backoff {
        /// The first pause.
        first: Duration,
        /// The longest pause; of the first one too.
        ceiling: Duration,
    },
    /// Never: one signal for each interrupt, as [`interrupt_once`](crate::Remote::interrupt_once) does. Loops that retry `EINTR` do not end then.
    Never,
}

/// 50 us doubling to 100 ms.
impl Default for Resend {
    fn default() -> Self {
        Resend::Backoff { first: Duration::from_micros(50), ceiling: Duration::from_millis(100) }
    }
}

/// The pauses in nanoseconds; both 0 for [`Resend::Never`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pauses {
    pub(crate) first: u64,
    pub(crate) ceiling: u64,
}

/// A timer that is armed with a few microseconds expires before the handler that armed it has returned: 5 us, again and again, and the thread does not
/// run one instruction more. On slow machines (emulators) a handler takes the better part of a millisecond.
const LEAST_CEILING: u64 = 1_000_000;

impl Pauses {
    /// The shorter ones of both.
    pub(crate) fn shorter_of(self, other: Pauses) -> Pauses {
        Pauses { first: self.first.min(other.first), ceiling: self.ceiling.min(other.ceiling) }
    }
}

impl Resend {
    pub(crate) fn pauses(self) -> Pauses {
        let nanoseconds = |pause: Duration| u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX).max(1);
        match self {
            Resend::Backoff { first, ceiling } => {
                let ceiling = nanoseconds(ceiling).max(LEAST_CEILING);
                Pauses { first: nanoseconds(first).min(ceiling), ceiling }
            }
            Resend::Never => Pauses { first: 0, ceiling: 0 },
        }
    }
}
