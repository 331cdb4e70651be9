//! Bytes in and out of a descriptor.

use super::Result;
use crate::engine::op;
use crate::kernel::calls::io;
use std::os::fd::AsFd;

/// read(2)
///
/// # Errors
/// The interrupt, or as read(2).
#[inline]
pub fn read<Fd: AsFd>(fd: Fd, buf: &mut [u8]) -> Result<usize> {
    let fd = fd.as_fd();
    op::run(|door| io::read(door, fd, buf))
}
