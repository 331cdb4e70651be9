//! The engine: what a scope is made of, how an interrupt travels, and what happens to everybody else's signals.
//!
//! In the order in which a reader needs them: `gate` (the one word), `node` (a scope's shared half), `record` (a thread), `lane` (a number on
//! a thread), `enter` and `leave`, `slot` (a number in the process), `provenance` (whose a signal is), `interrupt` (the sending side), `timer`, `resend` (what
//! sets it), `deadline`, `shield`, `deliver` (the receiving side), `nested` (calls below other handlers), `turn` (restarts of plain calls), `op` (a call of `sys`), `foreign` and
//! `chain` (other people's signals), `blocked` (numbers that were blocked before the scope), `drain`, `acknowledge`, `exit` and `fork`.

pub(crate) mod acknowledge;
mod blocked;
mod chain;
pub(crate) mod deadline;
mod deliver;
mod drain;
pub(crate) mod enter;
mod exit;
mod foreign;
pub(crate) mod fork;
pub(crate) mod gate;
pub(crate) mod hooks;
pub(crate) mod interrupt;
pub(crate) mod lane;
pub(crate) mod leave;
pub(crate) mod nested;
pub(crate) mod node;
pub(crate) mod op;
mod pool;
mod provenance;
pub(crate) mod record;
mod resend;
pub(crate) mod shield;
mod slot;
mod standing;
mod timer;
mod turn;
