//! The kernel's blocking calls, with nix's names and (where nix lets anybody build them) types. `EINTR` never comes out.

mod io;

pub use io::read;

/// What every call here returns.
pub type Result<T> = std::result::Result<T, crate::Error>;
