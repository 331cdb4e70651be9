//! What a scope does with signals that no Remote sent.

/// What a signal of the scope's number does when no [`Remote`](crate::Remote) sent it.
///
/// With scopes of one number nested on a thread the innermost decides; one that chains is looked through, as if it were not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Foreign {
    /// What it would have done without the scope; calls go on.
    #[default]
    Chain,
    /// Nothing, where this thread receives it. (The kernel gives one that is sent to the process to any thread that has the number open.)
    Ignore,
    /// Interrupts every scope entered so, whichever thread the kernel picked ([`Reason::Signal`](crate::Reason::Signal)); the action behind
    /// does not run.
    Interrupt,
    /// As `Interrupt`, after the action behind ran if that is a handler: for hosts (Python's Ctrl+C) and for flags set by signal-hook.
    InterruptAndChain,
    /// As `Interrupt`, but one that comes while the scope is interrupted by a signal already, acknowledged or not, until
    /// [`clear`](crate::Scope::clear), is chained: the second Ctrl+C kills, in the clean-up too.
    InterruptOnce,
}

impl Foreign {
    const ALL: [Foreign; 5] =
        [Foreign::Chain, Foreign::Ignore, Foreign::Interrupt, Foreign::InterruptAndChain, Foreign::InterruptOnce];

    pub(crate) const fn bits(self) -> u8 {
        self as u8
    }

    pub(crate) fn from_bits(bits: u8) -> Foreign {
        Foreign::ALL.get(bits as usize).copied().unwrap_or_default()
    }

    /// Whether it is one of the three that interrupt.
    pub(crate) const fn interrupts(self) -> bool {
        matches!(self, Foreign::Interrupt | Foreign::InterruptAndChain | Foreign::InterruptOnce)
    }
}
