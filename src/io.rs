//! `std::io` traits whose calls end on an interrupt.
//!
//! std's own loops (`read_exact`, `read_to_end`, `write_all`, `io::copy`, `read_line`) go on after [`ErrorKind::Interrupted`](std::io::ErrorKind). An
//! interrupt is never of that kind here: it is `TimedOut` for a deadline and `Other` otherwise, with the typed
//! [`Interrupted`](crate::Interrupted) inside, which [`Interrupted::find`](crate::Interrupted::find) gets out. So such a loop ends, and what it had moved
//! by then is told by [`bytes_read`](Interruptible::bytes_read) and [`bytes_written`](Interruptible::bytes_written).

use crate::sys;
use std::io::{IoSlice, IoSliceMut, Read, Result, Write};
use std::ops::{Deref, Range};
use std::os::fd::{AsFd, BorrowedFd};

/// `Read` and `Write` on any descriptor, by its number: what `T` itself buffers is passed by. No lifetime; `Send` if `T` is.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::io::Write;
/// let scope = eintr::Scope::enter(libc::SIGUSR1)?;
/// let (_reader, writer) = std::io::pipe()?;
/// let _limit = scope.timeout(std::time::Duration::from_millis(10))?;
/// let mut writer = eintr::io::Interruptible::new(writer);
/// let full = writer.write_all(&[0; 1 << 20]).unwrap_err();
/// assert_eq!(full.kind(), std::io::ErrorKind::TimedOut);
/// assert!(writer.bytes_written() > 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Interruptible<T> {
    inner: T,
    read: u64,
    written: u64,
}

impl<T: AsFd> Interruptible<T> {
    /// Wraps it; `&TcpStream`, `Arc<File>` and `io::stdin()` do too.
    pub const fn new(inner: T) -> Self {
        Interruptible { inner, read: 0, written: 0 }
    }

    /// Bytes read so far: tells how much of a broken `read_exact` there was.
    pub const fn bytes_read(&self) -> u64 {
        self.read
    }

    /// Bytes written so far: tells how much of a broken `write_all` went out.
    pub const fn bytes_written(&self) -> u64 {
        self.written
    }

    /// What it wraps.
    pub const fn get_ref(&self) -> &T {
        &self.inner
    }

    /// What it wraps.
    pub const fn get_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    /// What it wraps.
    pub fn into_inner(self) -> T {
        self.inner
    }
}

impl<T: AsFd> Read for Interruptible<T> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        let n = sys::read(&self.inner, buf)?;
        self.read += n as u64;
        Ok(n)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> Result<usize> {
        let range = at_once(bufs);
        let n = sys::readv(&self.inner, &mut bufs[range])?;
        self.read += n as u64;
        Ok(n)
    }
}

impl<T: AsFd> Write for Interruptible<T> {
    fn write(&mut self, buf: &[u8]) -> Result<usize> {
        let n = sys::write(&self.inner, buf)?;
        self.written += n as u64;
        Ok(n)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> Result<usize> {
        let n = sys::writev(&self.inner, &bufs[at_once(bufs)])?;
        self.written += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

impl<T: AsFd> AsFd for Interruptible<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

/// What readv(2) and writev(2) take at once (`include/uapi/linux/uio.h`, UIO_MAXIOV); std's traits set no limit.
const IOV_MAX: usize = 1024;

/// Those of the buffers that one call moves. Empty ones in front are passed over: with them alone nothing would be moved, which is the end of input to a
/// reader, and an error to who writes all.
fn at_once<B: Deref<Target = [u8]>>(bufs: &[B]) -> Range<usize> {
    let first = bufs.iter().position(|buf| !buf.is_empty()).unwrap_or(0);
    first..bufs.len().min(first + IOV_MAX)
}
