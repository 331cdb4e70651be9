//! Calls that wait on the file system alone, which one in user space lets happen: reads and writes at an offset, opening, syncing. Other people's
//! signals change nothing, and an interrupt ends them.
// Files are mapped and mounted by raw system calls, as applications do.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/fuse.rs"]
mod fuse;
#[path = "common/waiting.rs"]
mod waiting;
#[macro_use]
#[path = "common/waits.rs"]
mod waits;

use eintr::sys;
use fuse::Slow;
use nix::fcntl::OFlag;
use nix::sys::mman::MsFlags;
use nix::sys::stat::Mode;
use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;

/// The file, open.
struct Opened {
    file: File,
    slow: Slow,
}

impl Opened {
    fn new(slow: u32) -> Opened {
        let slow = Slow::mount(slow, slow != fuse::FSYNC).unwrap();
        Opened { file: slow.open(), slow }
    }
}

macro_rules! waits_on_the_file_system {
    ($test:ident, $number:expr, $slow:expr, $value:ty, $call:expr, $check:expr) => {
        waits!($test, $number, Opened => $value,
            needs: fuse::own_mounts,
            new: || Opened::new($slow),
            call: $call,
            ready: |opened| opened.slow.ready(),
            check: |opened, value| {
                opened.slow.assert_served_once();
                let check: fn(&Opened, $value) = $check;
                check(opened, value);
            },
        );
    };
}

waits_on_the_file_system!(
    pread_waits,
    libc::SYS_pread64,
    fuse::READ,
    Vec<u8>,
    |opened| {
        let mut buf = [0; 16];
        sys::pread(&opened.file, &mut buf, 7).map(|n| buf[..n].to_vec())
    },
    |_, bytes| assert_eq!(bytes, b"hello")
);

waits_on_the_file_system!(
    preadv_waits,
    libc::SYS_preadv,
    fuse::READ,
    (usize, Vec<u8>),
    |opened| {
        let (mut two, mut four) = ([0; 2], [0; 4]);
        let n = sys::preadv(&opened.file, &mut [IoSliceMut::new(&mut two), IoSliceMut::new(&mut four)], 7)?;
        Ok((n, [&two[..], &four[..]].concat()))
    },
    |_, read| assert_eq!(read, (5, b"hello\0".to_vec()))
);

waits_on_the_file_system!(
    pwrite_waits,
    libc::SYS_pwrite64,
    fuse::WRITE,
    usize,
    |opened| sys::pwrite(&opened.file, b"hello", 7),
    |opened, n| assert_eq!((n, &*opened.slow.written()), (5, &b"hello"[..]))
);

waits_on_the_file_system!(
    pwritev_waits,
    libc::SYS_pwritev,
    fuse::WRITE,
    usize,
    |opened| sys::pwritev(&opened.file, &[IoSlice::new(b"he"), IoSlice::new(b"llo")], 7),
    |opened, n| assert_eq!((n, &*opened.slow.written()), (5, &b"hello"[..]))
);

waits_on_the_file_system!(fsync_waits, libc::SYS_fsync, fuse::FSYNC, (), |opened| sys::fsync(&opened.file), |_, ()| {});

waits_on_the_file_system!(
    fdatasync_waits,
    libc::SYS_fdatasync,
    fuse::FSYNC,
    (),
    |opened| sys::fdatasync(&opened.file),
    |_, ()| {}
);

waits_on_the_file_system!(
    msync_waits,
    libc::SYS_msync,
    fuse::FSYNC,
    (),
    |opened| {
        let (protection, fd) = (libc::PROT_READ, opened.file.as_raw_fd());
        let at = unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, libc::MAP_SHARED, fd, 0) };
        assert_ne!(at, libc::MAP_FAILED);
        let synced = unsafe { sys::msync(NonNull::new(at).unwrap(), 4096, MsFlags::MS_SYNC) };
        unsafe { libc::munmap(at, 4096) };
        synced
    },
    |_, ()| {}
);

waits!(open_waits, libc::SYS_openat, Slow => OwnedFd,
    needs: fuse::own_mounts,
    new: || Slow::mount(fuse::OPEN, true).unwrap(),
    call: |slow| sys::open(&slow.file(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()),
    ready: Slow::ready,
    check: |slow, fd| {
        slow.assert_served_once();
        assert_eq!(std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap(), slow.file());
    },
);
