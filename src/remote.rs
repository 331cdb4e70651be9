//! The handle, the scope to be, and the guard that interrupts.

use crate::delivery::{Delivery, Status};
use crate::engine::gate::{Outcome, Request};
use crate::engine::node::Link;
use crate::engine::{enter, interrupt};
use crate::error::EnterError;
use crate::kernel::pid::{self, Identity};
use crate::scope::{Scope, ScopeOptions};
use std::fmt;
use std::time::Duration;

/// Handle to a [`Scope`]: `Clone + Send + Sync + 'static`. Useless, never harmful, once the scope has ended.
///
/// In a forked child the remotes that the parent made are `Gone`; a scope that lives on there hands out new ones.
#[derive(Clone)]
pub struct Remote {
    link: Link,
    home: Identity,
}

impl Remote {
    pub(crate) fn new(link: Link) -> Remote {
        Remote { link, home: pid::identity() }
    }

    /// Interrupts: sticky, and signalled. What was written before it is visible to the thread that acknowledges it.
    ///
    /// The call of [`sys`](crate::sys) that the thread is in, or the next one, fails with it; there is no instant at which it can be missed. A plain
    /// call that blocks ends with `EINTR`: the signal is sent again, as the scope's [`Resend`](crate::Resend) says, until the thread acknowledges; and if
    /// the call is made again all the same, and is one that the kernel would restart, with `ECANCELED`. Some plain calls cannot be ended: see the guide.
    ///
    /// # Async-signal-safety
    /// Async-signal-safe.
    pub fn interrupt(&self) -> Delivery {
        self.ask(Request::Remote { once: false })
    }

    /// The same with one signal and no resend: a plain call that begins after that has landed is not ended. Kept by a shield or a ticket, it later ends calls of
    /// [`sys`](crate::sys), not plain ones.
    ///
    /// It does not stop the resend of an [`interrupt`](Remote::interrupt) that nobody has acknowledged yet.
    ///
    /// # Async-signal-safety
    /// Async-signal-safe.
    pub fn interrupt_once(&self) -> Delivery {
        self.ask(Request::Remote { once: true })
    }

    fn ask(&self, request: Request) -> Delivery {
        if self.is_foreign() { Delivery::Gone } else { interrupt::interrupt(self.link, request) }
    }

    /// Waits until the last interrupt asked for is acknowledged, the scope has ended, or the time is up. `Acknowledged` also when nothing was
    /// ever asked; `Closed` in a forked child. A time-out of zero looks; one that ends later than any instant waits for ever. Not async-signal-safe.
    pub fn wait(&self, timeout: Duration) -> Status {
        if self.is_foreign() {
            return Status::Closed;
        }
        match self.link.node().gate.wait(self.link.generation(), false, timeout) {
            Outcome::Acknowledged => Status::Acknowledged,
            Outcome::Closed => Status::Closed,
            Outcome::TimedOut => Status::StillRunning,
        }
    }

    /// Waits until the scope has ended; `false` if the time is up first. Not async-signal-safe.
    pub fn wait_closed(&self, timeout: Duration) -> bool {
        self.is_foreign() || self.link.node().gate.wait(self.link.generation(), true, timeout) == Outcome::Closed
    }

    /// Whether the scope has ended.
    pub fn is_closed(&self) -> bool {
        self.is_foreign() || !self.link.is_open()
    }

    /// Interrupts when the returned guard drops.
    pub fn drop_guard(self) -> DropGuard {
        DropGuard { remote: Some(self) }
    }

    /// Made in another process: this one is its forked child.
    fn is_foreign(&self) -> bool {
        !pid::is_here(self.home)
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("closed", &self.is_closed()).finish()
    }
}

/// A scope to be: its [`Remote`] works before anyone has entered it. `Send`; dropped unused, the `Remote` is `Gone`.
///
/// ```
/// # fn main() -> Result<(), eintr::EnterError> {
/// let (ticket, remote) = eintr::Ticket::new();
/// remote.interrupt(); // before there is a thread
/// std::thread::spawn(move || {
///     let scope = ticket.enter(libc::SIGUSR1)?;
///     assert!(scope.interrupted().is_some());
///     Ok(())
/// })
/// .join()
/// .unwrap()
/// # }
/// ```
#[must_use]
pub struct Ticket {
    link: Option<Link>,
}

impl Ticket {
    /// A ticket and its remote; an interrupt asked for before `enter` is pending in the scope from its first instant.
    pub fn new() -> (Ticket, Remote) {
        let link = Link::make();
        (Ticket { link: Some(link) }, Remote::new(link))
    }

    /// [`Scope::enter`] on the calling thread. If it is refused the ticket is spent and its remote `Gone`.
    ///
    /// # Errors
    /// As [`Scope::enter`].
    pub fn enter(mut self, on: impl Into<ScopeOptions>) -> Result<Scope, EnterError> {
        Scope::enter_link(self.link.take().unwrap_or_else(Link::make), on.into())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(link) = self.link.take() {
            enter::discard(link);
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").finish_non_exhaustive()
    }
}

/// Interrupts when dropped.
#[derive(Debug)]
#[must_use = "it interrupts where this value is dropped"]
pub struct DropGuard {
    remote: Option<Remote>,
}

impl DropGuard {
    /// Gives the remote back without interrupting.
    pub fn disarm(mut self) -> Remote {
        match self.remote.take() {
            Some(remote) => remote,
            None => unreachable!("a guard holds its remote until it is dropped or disarmed"),
        }
    }
}

impl Drop for DropGuard {
    fn drop(&mut self) {
        if let Some(remote) = self.remote.take() {
            remote.interrupt();
        }
    }
}
