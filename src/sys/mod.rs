//! The kernel's blocking calls, with nix's names and (where nix lets anybody build them) types. `EINTR` never comes out.

mod files;
mod io;
mod messages;
mod net;

pub use files::{fcntl_lock, fdatasync, flock, fsync, ioctl, msync, open, openat, tcdrain};
pub use io::{pread, preadv, pwrite, pwritev, read, readv, write, writev};
pub use messages::{recvmmsg, recvmsg, sendmmsg, sendmsg};
pub use net::{accept4, connect, recv, recvfrom, send, sendto};

/// What every call here returns.
pub type Result<T> = std::result::Result<T, crate::Error>;
