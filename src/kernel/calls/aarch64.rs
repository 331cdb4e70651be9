//! Numbers that aarch64 has and x86_64 has not: none that matters here.

/// See [`raw`](super::raw).
pub(super) const REFUSED: &[libc::c_long] = &[];
