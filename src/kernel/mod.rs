//! The kernel layer: typed calls of the kernel, and the only place of the crate that says `unsafe`.
//!
//! Nothing here knows scopes, gates or lanes. What the engine wants to be told (a signal, a fork, the end of a thread) it says by the
//! [`Hooks`](hooks::Hooks) that it registers.
#![allow(unsafe_code)] // the one layer that may: every file states under `# Safety` what it upholds

pub(crate) mod action;
pub(crate) mod calls;
pub(crate) mod clock;
pub(crate) mod decide;
pub(crate) mod frame;
pub(crate) mod futex;
pub(crate) mod handler;
pub(crate) mod held;
pub(crate) mod hooks;
pub(crate) mod inject;
pub(crate) mod mask;
pub(crate) mod pid;
pub(crate) mod raw;
pub(crate) mod registers;
pub(crate) mod send;
pub(crate) mod stack;
pub(crate) mod stub;
pub(crate) mod timer;
