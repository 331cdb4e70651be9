//! Numbers that x86_64 has and aarch64 has not: there clone(2) and ppoll(2) do for all three.

/// See [`raw`](super::raw).
pub(super) const REFUSED: &[libc::c_long] = &[libc::SYS_fork, libc::SYS_vfork, libc::SYS_pause];
