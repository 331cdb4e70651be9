//! The kernel's interruptible calls, typed: each goes through the stub ([`Door`](crate::kernel::stub::window::Door)) and answers what the kernel
//! answers, `EINTR` too.

#[cfg(target_arch = "aarch64")]
mod aarch64;
pub(crate) mod children;
pub(crate) mod connect;
pub(crate) mod files;
pub(crate) mod io;
pub(crate) mod messages;
pub(crate) mod net;
pub(crate) mod queues;
pub(crate) mod raw;
pub(crate) mod ready;
pub(crate) mod signals;
pub(crate) mod sleep;
pub(crate) mod time_left;
pub(crate) mod transfer;
#[cfg(target_arch = "x86_64")]
mod x86_64;
