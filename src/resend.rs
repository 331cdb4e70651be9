//! When an interrupt is sent again.

use std::time::Duration;

/// When an interrupt that was not acknowledged is sent again, by a timer of the kernel that is aimed at the thread. Of several scopes of one number
/// on a thread that wait, the shortest pauses count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resend {
    /// After `first`, then after twice as long each time, up to `ceiling`. Zero is taken to be a nanosecond; what is longer than 584 years is cut.
    Backoff {
        /// The first pause.
        first: Duration,
        /// The longest pause. One below 100 us is taken to be that: a thread that is signalled faster than it can return from the handler never gets on.
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
            Resend::Backoff { first, ceiling } => Pauses { first: nanoseconds(first), ceiling: nanoseconds(ceiling) },
            Resend::Never => Pauses { first: 0, ceiling: 0 },
        }
    }
}
