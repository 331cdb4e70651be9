//! The kernel's blocking calls, with nix's names and (where nix lets anybody build them) types. `EINTR` never comes out.
//!
//! pause(2), sigsuspend(2) and sigwait(3) are not here. To be ended by any signal, or by a signal that is taken, is what they are for, so there is
//! nothing to be told apart: wait with [`sigtimedwait`], or in [`ppoll`] on a signalfd(2).

mod children;
mod countdown;
mod files;
mod io;
mod messages;
mod net;
mod queues;
mod raw;
mod ready;
mod signals;
mod sleep;
mod transfer;

pub use children::{wait4, waitid};
pub use files::{fcntl_lock, fdatasync, flock, fsync, ioctl, msync, open, openat, tcdrain};
pub use io::{pread, preadv, pwrite, pwritev, read, readv, write, writev};
pub use messages::{recvmmsg, recvmsg, sendmmsg, sendmsg};
pub use net::{accept4, connect, recv, recvfrom, send, sendto};
pub use queues::{mq_receive, mq_send, msgrcv, msgsnd, semtimedop};
pub use raw::syscall;
pub use ready::{epoll_pwait, epoll_wait, poll, ppoll, pselect};
pub use signals::sigtimedwait;
pub use sleep::{clock_nanosleep, futex_wait};
pub use transfer::{copy_file_range, getrandom, sendfile, splice, tee};

/// What every call here returns.
pub type Result<T> = std::result::Result<T, crate::Error>;
