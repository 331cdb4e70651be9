//! The guard that holds interrupts off.

use crate::engine::shield;
use std::fmt;
use std::marker::PhantomData;

/// Holds off every interrupt and deadline of the scopes that are live on this thread, until the guard drops; nests; does nothing without a scope.
///
/// Nothing is even sent meanwhile: a signal that was on its way has been taken when this returns, so plain calls inside see no EINTR of ours, and calls of
/// [`sys`](crate::sys), [`check`](crate::check) and [`retry`](crate::retry) behave as without those scopes. What was asked is kept
/// ([`Delivery::Held`](crate::Delivery::Held)), and acts when the last shield over its scope drops. Scopes and deadlines that are made inside act inside.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let scope = eintr::Scope::enter(libc::SIGUSR1)?;
/// let shield = eintr::shield();
/// scope.remote().interrupt();
/// assert!(eintr::check().is_ok());
/// drop(shield);
/// assert!(eintr::check().is_err());
/// # Ok(())
/// # }
/// ```
///
/// A number that user code has blocked is left blocked; what was queued behind that is taken out all the same.
///
/// # Async-signal-safety
/// Raising and dropping it are async-signal-safe.
pub fn shield() -> Shield {
    Shield { order: shield::raise(), _thread_bound: PhantomData }
}

/// Guard of [`shield`](crate::shield()): the scopes and deadlines that were live when it was made wait; later ones act. `!Send`.
///
/// # Leaks
/// With `mem::forget` those scopes stay shielded until they end.
#[must_use = "the shield ends where this value is dropped"]
pub struct Shield {
    order: Option<u64>,
    _thread_bound: PhantomData<*mut ()>,
}

impl Drop for Shield {
    fn drop(&mut self) {
        if let Some(order) = self.order {
            shield::lower(order);
        }
    }
}

/// Shows nothing but its name.
impl fmt::Debug for Shield {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shield").finish_non_exhaustive()
    }
}
