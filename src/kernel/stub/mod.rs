//! The stub: the one piece of code in which a system call can be interrupted without a gap (protocol 4). `window` has the words that it tests,
//! the labels, and the way in; the other two have the code, one for each architecture.

#[cfg(target_arch = "aarch64")]
mod aarch64;
pub(crate) mod window;
#[cfg(target_arch = "x86_64")]
mod x86_64;
