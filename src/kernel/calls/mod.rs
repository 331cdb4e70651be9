//! The kernel's interruptible calls, typed: each goes through the stub ([`Door`](crate::kernel::stub::window::Door)) and answers what the kernel
//! answers, `EINTR` too.

pub(crate) mod connect;
pub(crate) mod files;
pub(crate) mod io;
pub(crate) mod messages;
pub(crate) mod net;
pub(crate) mod time_left;
