//! The registers of interrupted code, as the kernel saved them and will load them again; one file for each architecture.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
pub(crate) use aarch64::Registers;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::Registers;
