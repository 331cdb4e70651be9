//! Opening, locking, syncing: other people's signals change nothing, an interrupt ends what waits, and no descriptor and no lock is lost or left
//! behind.
// Files, locks and children are made by raw system calls, as applications do.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/notices.rs"]
mod notices;
#[path = "common/waiting.rs"]
mod waiting;
#[macro_use]
#[path = "common/waits.rs"]
mod waits;

use common::wait_blocked_in;
use eintr::{Scope, sys};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FlockArg, OFlag};
use nix::sys::mman::MsFlags;
use nix::sys::stat::Mode;
use notices::{Notice, Told};
use std::ffi::c_void;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use waiting::{Caller, assert_errno, assert_remote, numbers};

/// A name of its own in a place for tests; removed at the end.
#[derive(Debug)]
struct Name(PathBuf);

impl Name {
    fn new() -> Name {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::SeqCst);
        Name(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("files-{}-{count}", common::getpid())))
    }

    fn of_a_file() -> Name {
        let name = Name::new();
        fs::write(&name.0, b"0123456789").unwrap();
        name
    }

    fn open(&self) -> File {
        File::options().read(true).write(true).open(&self.0).unwrap()
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn has_cloexec(fd: &impl AsRawFd) -> bool {
    (unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) }) & libc::FD_CLOEXEC != 0
}

/// A FIFO, and its other end once somebody has it.
struct Fifo {
    name: Name,
    both: Mutex<Option<File>>,
}

impl Fifo {
    fn new() -> Fifo {
        let name = Name::new();
        nix::unistd::mkfifo(&name.0, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        Fifo { name, both: Mutex::new(None) }
    }

    /// Both ends: whoever waits for one of them has it.
    fn open_both(&self) {
        *self.both.lock().unwrap() = Some(self.name.open());
    }

    /// It is an end of this FIFO, and stays open by exec only if it was to.
    fn check(&self, end: OwnedFd, cloexec: bool) {
        assert_eq!(has_cloexec(&end), cloexec);
        let (mut end, mut byte) = (File::from(end), [0]);
        let mut both = self.both.lock().unwrap().take().unwrap();
        let reads = unsafe { libc::fcntl(end.as_raw_fd(), libc::F_GETFL) } & libc::O_ACCMODE == libc::O_RDONLY;
        let (from, to) = if reads { (&mut end, &mut both) } else { (&mut both, &mut end) };
        to.write_all(b"x").unwrap();
        assert_eq!(from.read(&mut byte).unwrap(), 1);
    }
}

waits!(opening_a_fifo_to_read_waits, libc::SYS_openat, Fifo => OwnedFd,
    new: Fifo::new,
    call: |fifo| sys::open(&fifo.name.0, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()),
    ready: Fifo::open_both,
    check: |fifo, end| fifo.check(end, true),
);

waits!(opening_a_fifo_to_write_waits, libc::SYS_openat, Fifo => OwnedFd,
    new: Fifo::new,
    call: |fifo| {
        let dir = File::open(env!("CARGO_TARGET_TMPDIR")).unwrap();
        sys::openat(&dir, fifo.name.0.file_name().unwrap(), OFlag::O_WRONLY, Mode::empty())
    },
    ready: Fifo::open_both,
    check: |fifo, end| fifo.check(end, false),
);

/// A file that one open file has locked, and another waits for.
struct Locked {
    name: Name,
    holder: File,
    waiter: File,
}

impl Locked {
    fn by_flock() -> Locked {
        let locked = Locked::not();
        assert_eq!(locked.flock(libc::LOCK_EX), 0);
        locked
    }

    fn by_ofd() -> Locked {
        let locked = Locked::not();
        sys::fcntl_lock(&locked.holder, FcntlArg::F_OFD_SETLK(&whole(libc::F_WRLCK))).unwrap();
        locked
    }

    fn not() -> Locked {
        let name = Name::of_a_file();
        let (holder, waiter) = (name.open(), name.open());
        Locked { name, holder, waiter }
    }

    fn flock(&self, operation: libc::c_int) -> libc::c_int {
        unsafe { libc::flock(self.holder.as_raw_fd(), operation) }
    }

    fn ofd(&self, kind: libc::c_int) -> sys::Result<()> {
        sys::fcntl_lock(&self.holder, FcntlArg::F_OFD_SETLK(&whole(kind)))
    }
}

/// A request for the whole file.
fn whole(kind: libc::c_int) -> libc::flock {
    libc::flock { l_type: kind as _, l_whence: libc::SEEK_SET as _, l_start: 0, l_len: 0, l_pid: 0 }
}

waits!(flock_waits, libc::SYS_flock, Locked => (),
    new: Locked::by_flock,
    call: |file| sys::flock(&file.waiter, FlockArg::LockExclusive),
    ready: |file| assert_eq!(file.flock(libc::LOCK_UN), 0),
    check: |file, ()| {
        assert_eq!(file.flock(libc::LOCK_SH | libc::LOCK_NB), -1, "it has the lock");
        sys::flock(&file.waiter, FlockArg::Unlock).unwrap();
        assert_eq!(file.flock(libc::LOCK_EX | libc::LOCK_NB), 0, "once");
    },
);

waits!(a_shared_flock_waits, libc::SYS_flock, Locked => (),
    new: Locked::by_flock,
    call: |file| sys::flock(&file.waiter, FlockArg::LockShared),
    ready: |file| assert_eq!(file.flock(libc::LOCK_UN), 0),
    check: |file, ()| {
        assert_eq!(file.flock(libc::LOCK_EX | libc::LOCK_NB), -1, "it has the lock");
        assert_eq!(file.flock(libc::LOCK_SH | libc::LOCK_NB), 0, "a shared one");
    },
);

waits!(a_lock_of_an_open_file_waits, libc::SYS_fcntl, Locked => (),
    new: Locked::by_ofd,
    call: |file| sys::fcntl_lock(&file.waiter, FcntlArg::F_OFD_SETLKW(&whole(libc::F_WRLCK))),
    ready: |file| file.ofd(libc::F_UNLCK).unwrap(),
    check: |file, ()| {
        assert_errno(file.ofd(libc::F_RDLCK), Errno::EAGAIN);
        sys::fcntl_lock(&file.waiter, FcntlArg::F_OFD_SETLK(&whole(libc::F_UNLCK))).unwrap();
        file.ofd(libc::F_WRLCK).unwrap();
    },
);

/// A file that a child has locked; the lock is the child's until it ends.
struct LockedByChild {
    file: Locked,
    child: libc::pid_t,
    ends: Mutex<Option<OwnedFd>>,
}

impl LockedByChild {
    fn new() -> LockedByChild {
        let file = Locked::not();
        let (read, write) = common::pipe();
        let (told, tell) = common::pipe();
        let child = common::fork(|| {
            unsafe { libc::close(write.as_raw_fd()) };
            let lock = whole(libc::F_WRLCK);
            let locked = unsafe { libc::fcntl(file.holder.as_raw_fd(), libc::F_SETLK, &lock) };
            unsafe { libc::write(tell.as_raw_fd(), b"x".as_ptr().cast(), 1) };
            let _ = common::plain_read(&read); // until the parent closes its end
            locked
        });
        assert_eq!(common::plain_read(&told), Ok(1));
        LockedByChild { file, child, ends: Mutex::new(Some(write)) }
    }
}

waits!(a_lock_of_a_process_waits, libc::SYS_fcntl, LockedByChild => (),
    new: LockedByChild::new,
    call: |file| sys::fcntl_lock(&file.file.waiter, FcntlArg::F_SETLKW(&whole(libc::F_WRLCK))),
    ready: |file| {
        file.ends.lock().unwrap().take();
        assert_eq!(common::reap(file.child), 0);
    },
    check: |file, ()| assert_errno(file.file.ofd(libc::F_RDLCK), Errno::EAGAIN),
);

waits!(an_ioctl_waits, libc::SYS_ioctl, Told => Notice,
    needs: || Told::new().map(drop).map_err(|e| format!("no seccomp listener, errno {e}")),
    new: || Told::new().unwrap(),
    call: |told| {
        let mut notice = Notice::empty();
        unsafe { sys::ioctl(&told.listener, notices::RECEIVE, &raw mut notice as usize) }.map(|_| notice)
    },
    ready: Told::go,
    check: |told, notice| told.answer(&notice),
);

/// flock(2) gives the lock up before it waits for one of the other kind; an interrupt cannot bring it back. It is what the documentation says.
#[test]
fn a_lock_that_was_to_be_changed_is_gone_after_an_interrupt() {
    let _t = common::begin();
    let file = Arc::new(Locked::not());
    let third = file.name.open();
    assert_eq!(file.flock(libc::LOCK_SH), 0);
    sys::flock(&file.waiter, FlockArg::LockShared).unwrap();
    let of_caller = file.clone();
    let caller = Caller::start(Some(numbers()[0]), move |_| {
        assert_remote(sys::flock(&of_caller.waiter, FlockArg::LockExclusive));
    });
    wait_blocked_in(caller.tid, libc::SYS_flock);
    caller.interrupt();
    caller.join();
    assert_eq!(file.flock(libc::LOCK_UN), 0);
    sys::flock(&third, FlockArg::LockExclusiveNonblock).expect("nobody has it");
}

/// The race for a lock: who was told "interrupted" does not have it, who was told "locked" does.
#[test]
fn locks_and_interrupts_in_a_race_agree() {
    let _t = common::begin();
    for ofd in [false, true] {
        let file = Arc::new(Locked::not());
        let lock = move |file: &File, kind: libc::c_int| match kind {
            _ if ofd => sys::fcntl_lock(file, FcntlArg::F_OFD_SETLKW(&whole(kind))),
            libc::F_UNLCK => sys::flock(file, FlockArg::Unlock),
            _ => sys::flock(file, FlockArg::LockExclusive),
        };
        let of_caller = file.clone();
        let caller = Caller::start(Some(numbers()[0]), move |scope| {
            let (mut locked, mut interrupted) = (0, 0);
            while locked < 300 || interrupted < 300 {
                let answer = lock(&of_caller.waiter, libc::F_WRLCK);
                let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", of_caller.waiter.as_raw_fd())).unwrap();
                scope.unwrap().clear();
                while lock(&of_caller.waiter, libc::F_UNLCK).is_err() {
                    scope.unwrap().clear();
                }
                assert_eq!(info.contains("lock:"), answer.is_ok(), "told {answer:?}, and the kernel says {info}");
                match answer {
                    Ok(()) => locked += 1,
                    Err(e) => interrupted += e.interrupted().map(|_| 1).expect("no other error"),
                }
            }
        });
        while !caller.thread.is_finished() {
            lock(&file.holder, libc::F_WRLCK).unwrap();
            caller.interrupt();
            lock(&file.holder, libc::F_UNLCK).unwrap();
            std::thread::yield_now();
        }
        caller.join();
    }
}

/// The race for a new descriptor: an interrupt makes none, and none is lost.
#[test]
fn fifos_opened_and_interrupted_in_a_race_leave_no_descriptor() {
    common::in_own_process("fifos_opened_and_interrupted_in_a_race_leave_no_descriptor", || {
        let fifo = Arc::new(Fifo::new());
        let of_caller = fifo.clone();
        let caller = Caller::start(Some(numbers()[0]), move |scope| {
            let (mut opened, mut interrupted) = (0, 0);
            while opened < 300 || interrupted < 300 {
                match sys::open(&of_caller.name.0, OFlag::O_RDONLY, Mode::empty()) {
                    Ok(_) => opened += 1,
                    Err(e) => interrupted += e.interrupted().map(|_| 1).expect("no other error"),
                }
                scope.unwrap().clear();
            }
        });
        while !caller.thread.is_finished() {
            caller.interrupt();
            let writer = File::options().write(true).read(true).open(&fifo.name.0).unwrap();
            caller.interrupt();
            drop(writer);
        }
        caller.join();
        let left: Vec<_> = fs::read_dir("/proc/self/fd").unwrap().map(|fd| fs::read_link(fd.unwrap().path())).collect();
        let fifos = left.into_iter().flatten().filter(|path| *path == fifo.name.0);
        assert_eq!(fifos.count(), 0, "ends of the FIFO that nobody owns");
    });
}

/// These wait on no local file system; an interrupt that is there before them is told.
#[test]
fn syncing_is_interrupted_before() {
    let _t = common::begin();
    let name = Name::of_a_file();
    let file = name.open();
    let page = Mapped::new(&file);
    for sig in numbers() {
        let scope = Scope::enter(sig).unwrap();
        scope.remote().interrupt();
        assert_remote(sys::fsync(&file));
        assert_remote(sys::fdatasync(&file));
        assert_remote(unsafe { sys::msync(page.0, 4096, MsFlags::MS_SYNC) });
        assert!(scope.clear().is_some());
        sys::fsync(&file).unwrap();
        sys::fdatasync(&file).unwrap();
        unsafe { sys::msync(page.0, 4096, MsFlags::MS_SYNC) }.unwrap();
    }
}

/// A terminal without a line behind it has nothing to wait for (`drivers/tty/pty.c`): tcdrain(3) is interrupted before it begins.
#[test]
fn draining_is_interrupted_before() {
    let _t = common::begin();
    let pty = nix::pty::openpty(None, None).unwrap();
    let scope = Scope::enter(numbers()[0]).unwrap();
    scope.remote().interrupt();
    assert_remote(sys::tcdrain(&pty.slave));
    assert!(scope.clear().is_some());
    assert_eq!(nix::unistd::write(&pty.slave, b"hello"), Ok(5));
    sys::tcdrain(&pty.slave).unwrap();
    let mut bytes = [0; 16];
    assert_eq!(sys::read(&pty.master, &mut bytes).unwrap(), 5, "no break was sent");
    assert_errno(sys::tcdrain(common::pipe().0), Errno::ENOTTY);
}

/// One page of a file.
struct Mapped(NonNull<c_void>);

impl Mapped {
    fn new(file: &impl AsFd) -> Mapped {
        let fd = file.as_fd().as_raw_fd();
        let at = unsafe { libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_SHARED, fd, 0) };
        assert_ne!(at, libc::MAP_FAILED);
        Mapped(NonNull::new(at).unwrap())
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        unsafe { libc::munmap(self.0.as_ptr(), 4096) };
    }
}

#[test]
fn a_file_is_made_with_the_mode_and_the_flags_that_were_given() {
    use std::os::unix::fs::PermissionsExt;
    let _t = common::begin();
    let name = Name::new();
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
    let file = sys::open(&name.0, flags, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    assert!(!has_cloexec(&file));
    assert_eq!(fs::metadata(&name.0).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_errno(sys::open(&name.0, flags, Mode::empty()), Errno::EEXIST);
    assert!(has_cloexec(&sys::open(&name.0, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).unwrap()));
}

#[test]
fn only_requests_for_locks_go_through_fcntl_lock() {
    let _t = common::begin();
    let file = Locked::not();
    let mut look = whole(libc::F_WRLCK);
    assert_errno(sys::fcntl_lock(&file.waiter, FcntlArg::F_GETLK(&mut look)), Errno::EINVAL);
    assert_errno(sys::fcntl_lock(&file.waiter, FcntlArg::F_OFD_GETLK(&mut look)), Errno::EINVAL);
    assert_errno(sys::fcntl_lock(&file.waiter, FcntlArg::F_GETFD), Errno::EINVAL);
    assert_errno(sys::fcntl_lock(&file.waiter, FcntlArg::F_DUPFD(0)), Errno::EINVAL);
    file.ofd(libc::F_WRLCK).unwrap();
    assert_errno(sys::fcntl_lock(&file.waiter, FcntlArg::F_SETLK(&whole(libc::F_WRLCK))), Errno::EAGAIN);
    file.ofd(libc::F_UNLCK).unwrap();
    sys::fcntl_lock(&file.waiter, FcntlArg::F_SETLK(&whole(libc::F_WRLCK))).unwrap();
    assert_errno(file.ofd(libc::F_WRLCK), Errno::EAGAIN);
}

#[test]
fn flock_that_does_not_wait_says_so() {
    let _t = common::begin();
    let file = Locked::by_flock();
    assert_errno(sys::flock(&file.waiter, FlockArg::LockExclusiveNonblock), Errno::EWOULDBLOCK);
    assert_errno(sys::flock(&file.waiter, FlockArg::LockSharedNonblock), Errno::EWOULDBLOCK);
    assert_eq!(file.flock(libc::LOCK_SH), 0);
    sys::flock(&file.waiter, FlockArg::LockSharedNonblock).unwrap();
}

/// The kernel's own errors come through, and what was live goes on living.
#[test]
fn the_kernels_errors_come_through() {
    let _t = common::begin();
    let scope = Scope::enter(numbers()[0]).unwrap();
    let nobody = unsafe { BorrowedFd::borrow_raw(1_000_000) };
    unsafe { *libc::__errno_location() = 77 };
    assert_errno(sys::open("/nonexistent/x", OFlag::O_RDONLY, Mode::empty()), Errno::ENOENT);
    assert_errno(sys::open("a\0b", OFlag::O_RDONLY, Mode::empty()), Errno::EINVAL);
    assert_errno(sys::open(&*"x".repeat(5000), OFlag::O_RDONLY, Mode::empty()), Errno::ENAMETOOLONG);
    assert_errno(sys::openat(nobody, "x", OFlag::O_RDONLY, Mode::empty()), Errno::EBADF);
    assert_errno(sys::fsync(nobody), Errno::EBADF);
    assert_errno(sys::fdatasync(nobody), Errno::EBADF);
    assert_errno(sys::fsync(common::pipe().0), Errno::EINVAL);
    assert_errno(sys::flock(nobody, FlockArg::LockShared), Errno::EBADF);
    assert_errno(sys::fcntl_lock(nobody, FcntlArg::F_SETLKW(&whole(libc::F_WRLCK))), Errno::EBADF);
    assert_errno(sys::tcdrain(nobody), Errno::EBADF);
    let page = NonNull::new(4096 as *mut c_void).unwrap();
    assert_errno(unsafe { sys::msync(page, 4096, MsFlags::MS_SYNC) }, Errno::ENOMEM);
    let unaligned = NonNull::new(4097 as *mut c_void).unwrap();
    assert_errno(unsafe { sys::msync(unaligned, 4096, MsFlags::MS_SYNC) }, Errno::EINVAL);
    let (read, _write) = common::pipe();
    assert_errno(unsafe { sys::ioctl(&read, libc::FIONREAD as _, 8) }, Errno::EFAULT);
    let unknown = if common::emulated() { Errno::ENOSYS } else { Errno::ENOTTY }; // an emulator knows what it can translate
    assert_errno(unsafe { sys::ioctl(&read, 0xdead, 0) }, unknown);
    let mut count: libc::c_int = 7;
    assert_eq!(unsafe { sys::ioctl(&read, libc::FIONREAD as _, &raw mut count as usize) }.unwrap(), 0);
    assert_eq!(count, 0);
    assert_eq!(unsafe { *libc::__errno_location() }, 77, "errno is not written");
    scope.remote().interrupt();
    assert_remote(sys::open("/dev/null", OFlag::O_RDONLY, Mode::empty()));
    assert!(scope.clear().is_some());
    sys::open("/dev/null", OFlag::O_RDONLY, Mode::empty()).unwrap();
}
