//! What the tests of shields share: plain calls that no handler lets restart, and calls of the crate, each of them short; senders that interrupt all the
//! time; a pipe that nothing is written to. A test file takes it by `#[path = "common/shielding.rs"] mod shielding;` beside `mod common;`.
#![allow(
    dead_code,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block
)]

use crate::common;
use eintr::nix::errno::Errno;
use eintr::nix::poll::PollTimeout;
use eintr::nix::sys::time::TimeSpec;
use eintr::nix::time::ClockId;
use eintr::{Delivery, Error, Remote, sys};
use std::fmt::Debug;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::{null, null_mut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// A call that ends by itself, soon; what ended it otherwise.
pub type Short = fn() -> Result<(), String>;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// As long as the calls last.
const MOMENT: Duration = Duration::from_micros(20);

/// The calls of glibc's tst-cancel29, made through libc. The kernel never restarts them (signal(7)), so each signal that runs a handler shows.
pub const PLAIN: [(&str, Short); 6] = [
    ("sigtimedwait", || {
        let none: libc::sigset_t = unsafe { std::mem::zeroed() };
        let r = unsafe { libc::sigtimedwait(&none, null_mut(), &moment()) };
        let errno = std::io::Error::last_os_error();
        if r == -1 && errno.raw_os_error() == Some(libc::EAGAIN) { Ok(()) } else { Err(format!("{r}: {errno}")) }
    }),
    // It counts in milliseconds, so it mostly only looks; it tells of a signal that is pending all the same.
    ("poll", || zero(unsafe { libc::poll(null_mut(), 0, i32::from(COUNT.fetch_add(1, SeqCst).is_multiple_of(5))) })),
    ("ppoll", || zero(unsafe { libc::ppoll(null_mut(), 0, &moment(), null()) })),
    ("select", || {
        let mut time = libc::timeval { tv_sec: 0, tv_usec: MOMENT.as_micros() as libc::suseconds_t };
        zero(unsafe { libc::select(0, null_mut(), null_mut(), null_mut(), &mut time) })
    }),
    ("pselect", || zero(unsafe { libc::pselect(0, null_mut(), null_mut(), null_mut(), &moment(), null()) })),
    ("clock_nanosleep", || match unsafe { libc::clock_nanosleep(libc::CLOCK_REALTIME, 0, &moment(), null_mut()) } {
        0 => Ok(()),
        errno => Err(std::io::Error::from_raw_os_error(errno).to_string()),
    }),
];

/// The crate's own, and what looks without a call.
pub const OWN: [(&str, Short); 8] = [
    ("sys::sigtimedwait", || {
        let none: libc::sigset_t = unsafe { std::mem::zeroed() };
        is(sys::sigtimedwait(&none, Some(MOMENT)).map(|taken| taken.is_none()), true)
    }),
    ("sys::poll", || {
        let milliseconds = u8::from(COUNT.fetch_add(1, SeqCst).is_multiple_of(5));
        is(sys::poll(&mut [], PollTimeout::from(milliseconds)), 0)
    }),
    ("sys::ppoll", || is(sys::ppoll(&mut [], Some(TimeSpec::from_duration(MOMENT)), None), 0)),
    ("sys::pselect", || is(sys::pselect(Some(0), None, None, None, Some(TimeSpec::from_duration(MOMENT)), None), 0)),
    ("sys::clock_nanosleep", || {
        let clock = ClockId::CLOCK_REALTIME;
        is(sys::clock_nanosleep(clock, clock.now().expect("it is there") + TimeSpec::from_duration(MOMENT)), ())
    }),
    ("sys::futex_wait", || match sys::futex_wait(&AtomicU32::new(0), 0, Some(Instant::now() + MOMENT)) {
        Err(Error::Os(Errno::ETIMEDOUT)) => Ok(()),
        other => Err(format!("{other:?}")),
    }),
    ("sleep", || is(eintr::sleep(MOMENT), ())),
    ("check, and a call in retry", || {
        is(eintr::check(), ())?;
        is(eintr::retry(|| unsafe { libc::ppoll(null_mut(), 0, &moment(), null()) }), 0)
    }),
];

fn moment() -> libc::timespec {
    libc::timespec { tv_sec: 0, tv_nsec: MOMENT.subsec_nanos().into() }
}

fn zero(r: i32) -> Result<(), String> {
    if r == 0 { Ok(()) } else { Err(format!("{r}: {}", std::io::Error::last_os_error())) }
}

fn is<T: PartialEq + Debug, E: Debug>(answer: Result<T, E>, wanted: T) -> Result<(), String> {
    match answer {
        Ok(value) if value == wanted => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

/// Each of these once; what was not as it should be.
pub fn each(calls: &[(&str, Short)]) -> Result<(), String> {
    calls.iter().try_for_each(|(name, call)| call().map_err(|what| format!("{name}: {what}")))
}

/// What is asked of a remote.
pub type Ask = fn(&Remote) -> Delivery;

/// Runs `body` beside two threads that interrupt all the time; how many of theirs were sent as a signal, and how many were not.
pub fn beside_two_senders<T>(remotes: &[Remote], ask: Ask, body: impl FnOnce() -> T) -> (T, [u64; 2]) {
    let (done, counts, running) = (AtomicBool::new(false), [const { AtomicU64::new(0) }; 2], AtomicU32::new(0));
    let sends = || {
        common::set_mask(!0);
        running.fetch_add(1, SeqCst);
        while !done.load(SeqCst) {
            for remote in remotes {
                match ask(remote) {
                    Delivery::Sent => counts[0].fetch_add(1, SeqCst),
                    Delivery::Held => counts[1].fetch_add(1, SeqCst),
                    other => panic!("{other:?}"),
                };
                std::thread::yield_now();
            }
        }
    };
    let value = std::thread::scope(|threads| {
        let _stop = Stop(&done);
        let _ = [(); 2].map(|()| threads.spawn(sends));
        common::wait_until(|| running.load(SeqCst) == 2);
        body()
    });
    (value, counts.map(AtomicU64::into_inner))
}

/// The senders stop, also when the body panics.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// A pipe that nothing is written to, so that only an interrupt ends a read of it. One that nobody ends gets a byte after a while, and says so.
pub struct Silent {
    pub reader: OwnedFd,
    writer: Arc<OwnedFd>,
}

impl Silent {
    pub fn new() -> Silent {
        let (reader, writer) = common::pipe();
        Silent { reader, writer: Arc::new(writer) }
    }

    /// One plain read(2): errno, or how many bytes the rescue was.
    pub fn plain_read(&self) -> Result<usize, i32> {
        self.rescued(|| common::plain_read(&self.reader))
    }

    /// One of the crate.
    pub fn read(&self) -> sys::Result<usize> {
        self.rescued(|| sys::read(&self.reader, &mut [0; 8]))
    }

    fn rescued<T>(&self, call: impl FnOnce() -> T) -> T {
        const LONG: Duration = Duration::from_secs(5);
        let ((done, ended), writer) = (channel::<()>(), self.writer.clone());
        let rescuer = common::unsignalled(move || {
            if ended.recv_timeout(common::patience(LONG)) == Err(RecvTimeoutError::Timeout) {
                assert_eq!(unsafe { libc::write(writer.as_raw_fd(), c"!".as_ptr().cast(), 1) }, 1);
            }
        });
        let answer = call();
        drop(done);
        rescuer.join().expect("the rescuer ends");
        answer
    }
}

/// Asks from another thread.
pub fn from_another_thread(remote: &Remote, ask: Ask) -> Delivery {
    std::thread::scope(|threads| threads.spawn(|| ask(remote)).join().expect("it asks"))
}
