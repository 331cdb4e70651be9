#![doc = include_str!("../README.md")]
#[cfg(not(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    target_pointer_width = "64"
)))]
compile_error!("eintr works on Linux on x86_64 and aarch64 only: it speaks to the kernel in their terms");

// Vocabulary, used everywhere.
mod atomic;
mod delivery;
mod error;
mod policy;
mod resend;
mod signal;

// The face.
mod deadline;
pub mod io;
pub mod process;
mod remote;
mod retry;
mod scope;
mod shield;
mod sleep;
pub mod sys;

// What it stands on: the engine, on the kernel layer.
mod engine;
mod kernel;

pub use deadline::Deadline;
pub use delivery::{Delivery, Status};
pub use error::{EnterError, Error, Interrupted, LeaveError, Reason, Refusal};
/// The version of nix whose types this crate speaks.
pub use nix;
pub use policy::Foreign;
pub use remote::{DropGuard, Remote, Ticket};
pub use resend::Resend;
pub use retry::{Outcome, check, is_interruptible, retry};
pub use scope::{Scope, ScopeOptions};
pub use shield::{Shield, shield};
pub use signal::Signal;
pub use sleep::{sleep, sleep_until};
