//! The kernel's interruptible calls, typed: each goes through the stub ([`Door`](crate::kernel::stub::window::Door)) and answers what the kernel
//! answers, `EINTR` too.

pub(crate) mod io;
