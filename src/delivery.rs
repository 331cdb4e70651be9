//! What became of an interrupt.

use nix::errno::Errno;

/// What became of an interrupt. Every variant but `Gone` leaves it pending. Not `#[must_use]`: a scope that has ended by itself is the ordinary
/// case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delivery {
    /// A signal is on its way; it comes again until the thread acknowledges, if that was asked for.
    Sent,
    /// Nothing to send: a signal is on the way already, or will be sent again, or the scope is shielded or not yet entered.
    Held,
    /// Somebody replaced the action while the scope lived; a signal would go to a stranger, so none was sent.
    Displaced,
    /// The signal went out once; the kernel has no timer left to send it again (`EAGAIN`: RLIMIT_SIGPENDING, timer_create(2)). Calls of
    /// [`sys`](crate::sys) end as ever; a plain call that begins after the signal has landed does not.
    SentOnce(Errno),
    /// The kernel took no signal; a call that is blocked now will not notice. `EAGAIN`: the queue of real-time signals is full
    /// (RLIMIT_SIGPENDING, getrlimit(2)).
    Refused(Errno),
    /// The scope has ended, or belongs to another process (fork): nothing was done.
    Gone,
}

/// What [`Remote::wait`](crate::Remote::wait) saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Status {
    /// The thread knows.
    Acknowledged,
    /// The scope has ended.
    Closed,
    /// Neither: it computes, sleeps uninterruptibly, is is shielded, is in a plain call that goes on after `EINTR`, or has the signal blocked.
    StillRunning,
}
