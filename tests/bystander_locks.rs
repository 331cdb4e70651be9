//! The C library's locks and its allocator, used by threads that are interrupted all the while, over an action that restarts calls: their waits are futexes,
//! which may be told EINTR and nothing else (protocol 9), and not even that where it would be taken for success. Whoever uses them notices nothing.
//!
//! `EINTR_LOCKS_INTERRUPTS` says how many interrupts all tests together are to see, `EINTR_LOCKS_SECONDS` how long each of them may take for its share.
// Tests use the C library's locks by bare calls.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/nest.rs"]
mod nest;

use common::Random;
use eintr::{Delivery, Remote, Scope};
use nest::Installed;
use std::cell::UnsafeCell;
use std::mem::zeroed;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const SHARES: u64 = 9;
/// Threads that use the lock: two with a scope, one without.
const THREADS: usize = 3;
const SCOPED: usize = 2;

/// Something of C that threads share by its address.
struct Shared<T>(UnsafeCell<T>);
// The C library says that its locks may be used so; what they guard is used under them.
unsafe impl<T> Sync for Shared<T> {}
unsafe impl<T> Send for Shared<T> {}

impl<T> Shared<T> {
    fn new(value: T) -> Shared<T> {
        Shared(UnsafeCell::new(value))
    }
    fn at(&self) -> *mut T {
        self.0.get()
    }
}

/// What a lock guards: who is inside, and a count that only an exclusive section keeps right.
struct Section {
    inside: AtomicUsize,
    count: Shared<u64>,
}

impl Section {
    fn new() -> Section {
        Section { inside: AtomicUsize::new(0), count: Shared::new(0) }
    }

    /// The exclusive section. It lasts long enough for the others to wait.
    fn pass(&self) {
        assert_eq!(self.inside.fetch_add(1, SeqCst), 0, "nobody else is inside");
        let before = unsafe { *self.count.at() };
        linger(200);
        unsafe { *self.count.at() = before + 1 };
        assert_eq!(self.inside.fetch_sub(1, SeqCst), 1, "nobody else came in");
    }

    fn count(&self) -> u64 {
        unsafe { *self.count.at() }
    }
}

fn linger(turns: u32) {
    for _ in 0..turns {
        std::hint::spin_loop();
    }
    unsafe { libc::sched_yield() };
}

/// The threads run `step` over and over, as long as it says so or until all is over, while another one interrupts those with a scope. How many steps there were.
fn under_interrupts(what: &str, step: impl Fn(usize, bool) -> bool + Sync) -> u64 {
    let wanted = common::rounds("EINTR_LOCKS_INTERRUPTS", 100_000) / SHARES;
    let time = Duration::from_secs(common::rounds("EINTR_LOCKS_SECONDS", 2));
    let (mut sent, mut steps) = (0, 0);
    // Behind the scope a handler with SA_RESTART, and the default: calls restart in both cases.
    for sig in [libc::SIGUSR1, libc::SIGRTMIN() + 3] {
        let _behind = (sig == libc::SIGUSR1).then(|| Installed::new(sig, nest::counts, libc::SA_RESTART));
        let (done, over) = (AtomicU64::new(0), AtomicBool::new(false));
        let (tell, told) = mpsc::channel();
        std::thread::scope(|threads| {
            for n in 0..THREADS {
                let (tell, step, done, over) = (tell.clone(), &step, &done, &over);
                threads.spawn(move || {
                    let scope = (n < SCOPED).then(|| Scope::enter(sig).expect("enter"));
                    scope.iter().for_each(|scope| tell.send(scope.remote()).expect("the test waits"));
                    drop(tell);
                    while step(n, over.load(SeqCst)) {
                        done.fetch_add(1, SeqCst);
                        scope.iter().for_each(|scope| _ = scope.clear());
                    }
                });
            }
            drop(tell);
            let remotes: Vec<Remote> = told.iter().collect();
            sent += interrupt_all(&remotes, wanted / 2, time / 2);
            over.store(true, SeqCst);
        });
        steps += done.load(SeqCst);
    }
    println!("{what}: {sent} interrupts, {steps} steps");
    steps
}

/// That many there must be, however long they take.
const FEW: u64 = 200;

/// So many interrupts, or so long.
fn interrupt_all(remotes: &[Remote], wanted: u64, time: Duration) -> u64 {
    let (begun, mut sent, mut random) = (Instant::now(), 0, Random::seeded(wanted));
    while sent < wanted && (begun.elapsed() < time || sent < FEW) {
        for remote in remotes {
            sent += u64::from(remote.interrupt() == Delivery::Sent);
            for _ in 0..random.below(400) {
                std::hint::spin_loop();
            }
        }
        if random.chance(8) {
            std::thread::yield_now();
        }
    }
    sent
}

/// 0, which is all that these functions return when all is well.
#[track_caller]
fn well(r: i32) {
    assert_eq!(r, 0, "{}", std::io::Error::from_raw_os_error(r));
}

/// A mutex of that protocol.
fn mutex(protocol: i32) -> Shared<libc::pthread_mutex_t> {
    let (mutex, mut attributes) = (Shared::new(libc::PTHREAD_MUTEX_INITIALIZER), unsafe { zeroed() });
    well(unsafe { libc::pthread_mutexattr_init(&mut attributes) });
    well(unsafe { libc::pthread_mutexattr_setprotocol(&mut attributes, protocol) });
    well(unsafe { libc::pthread_mutex_init(mutex.at(), &attributes) });
    mutex
}

fn a_mutex_is_exclusive(what: &str, protocol: i32) {
    let (mutex, section) = (mutex(protocol), Section::new());
    let steps = under_interrupts(what, |_, over| {
        well(unsafe { libc::pthread_mutex_lock(mutex.at()) });
        section.pass();
        well(unsafe { libc::pthread_mutex_unlock(mutex.at()) });
        !over
    });
    // The last step of each thread is not counted there.
    assert_eq!(section.count(), steps + 2 * THREADS as u64);
    well(unsafe { libc::pthread_mutex_destroy(mutex.at()) });
}

#[test]
fn a_mutex_stays_exclusive() {
    let _t = common::begin();
    a_mutex_is_exclusive("mutex", libc::PTHREAD_PRIO_NONE);
}

// glibc takes whatever FUTEX_LOCK_PI answers, but for a few errors, for the lock: told EINTR, two threads own it.
#[test]
fn a_mutex_with_priority_inheritance_stays_exclusive() {
    let _t = common::begin();
    a_mutex_is_exclusive("mutex with priority inheritance", libc::PTHREAD_PRIO_INHERIT);
}

// One token goes round: who has it is alone, and no wake-up is lost, or all would wait for ever.
#[test]
fn a_condition_variable_loses_no_wake_up() {
    let _t = common::begin();
    let (mutex, condition) = (mutex(libc::PTHREAD_PRIO_NONE), Shared::new(libc::PTHREAD_COND_INITIALIZER));
    let (free, section) = (Shared::new(true), Section::new());
    let steps = under_interrupts("condition variable", |_, over| {
        well(unsafe { libc::pthread_mutex_lock(mutex.at()) });
        while !unsafe { *free.at() } {
            well(unsafe { libc::pthread_cond_wait(condition.at(), mutex.at()) });
        }
        unsafe { *free.at() = false };
        well(unsafe { libc::pthread_mutex_unlock(mutex.at()) });
        section.pass();
        well(unsafe { libc::pthread_mutex_lock(mutex.at()) });
        unsafe { *free.at() = true };
        well(unsafe { libc::pthread_cond_signal(condition.at()) });
        well(unsafe { libc::pthread_mutex_unlock(mutex.at()) });
        !over
    });
    assert_eq!(section.count(), steps + 2 * THREADS as u64);
}

#[test]
fn a_read_write_lock_keeps_readers_and_writers_apart() {
    let _t = common::begin();
    let (lock, section) = (Shared::new(libc::PTHREAD_RWLOCK_INITIALIZER), Section::new());
    let (readers, written, turns) = (AtomicUsize::new(0), AtomicU64::new(0), [const { AtomicU64::new(0) }; THREADS]);
    under_interrupts("read-write lock", |n, over| {
        if turns[n].fetch_add(1, SeqCst) % 2 == n as u64 % 2 {
            well(unsafe { libc::pthread_rwlock_wrlock(lock.at()) });
            assert_eq!(readers.load(SeqCst), 0, "no reader is inside");
            section.pass();
            written.fetch_add(1, SeqCst);
        } else {
            well(unsafe { libc::pthread_rwlock_rdlock(lock.at()) });
            readers.fetch_add(1, SeqCst);
            let before = section.count();
            linger(100);
            assert_eq!((section.inside.load(SeqCst), section.count()), (0, before), "no writer is inside");
            readers.fetch_sub(1, SeqCst);
        }
        well(unsafe { libc::pthread_rwlock_unlock(lock.at()) });
        !over
    });
    assert_eq!(section.count(), written.load(SeqCst));
}

// Each time round all are there, and one of them is told that it is the one.
#[test]
fn a_barrier_holds_everybody() {
    let _t = common::begin();
    let barrier = Shared::new(unsafe { zeroed::<libc::pthread_barrier_t>() });
    well(unsafe { libc::pthread_barrier_init(barrier.at(), std::ptr::null(), THREADS as u32) });
    let (arrived, last) = (AtomicUsize::new(0), AtomicBool::new(false));
    let wait = || match unsafe { libc::pthread_barrier_wait(barrier.at()) } {
        libc::PTHREAD_BARRIER_SERIAL_THREAD => true,
        r => {
            well(r);
            false
        }
    };
    under_interrupts("barrier", |n, over| {
        arrived.fetch_add(1, SeqCst);
        linger(50 * n as u32);
        if wait() {
            assert_eq!(arrived.swap(0, SeqCst), THREADS, "all are there, and one is told so");
            last.store(over, SeqCst);
        }
        wait();
        !last.load(SeqCst)
    });
    well(unsafe { libc::pthread_barrier_destroy(barrier.at()) });
}

// sem_wait(3) is documented to fail with EINTR; then it has taken nothing.
#[test]
fn a_semaphore_counts_right() {
    let _t = common::begin();
    let (semaphore, section, broken) =
        (Shared::new(unsafe { zeroed::<libc::sem_t>() }), Section::new(), AtomicU64::new(0));
    assert_eq!(unsafe { libc::sem_init(semaphore.at(), 0, 1) }, 0);
    let steps = under_interrupts("semaphore", |_, over| {
        while unsafe { libc::sem_wait(semaphore.at()) } != 0 {
            assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EINTR));
            broken.fetch_add(1, SeqCst);
        }
        section.pass();
        assert_eq!(unsafe { libc::sem_post(semaphore.at()) }, 0);
        !over
    });
    println!("semaphore: {} waits saw EINTR", broken.load(SeqCst));
    let mut left = 0;
    assert_eq!(unsafe { libc::sem_getvalue(semaphore.at(), &mut left) }, 0);
    assert_eq!((section.count(), left), (steps + 2 * THREADS as u64, 1));
}

// All threads share one arena, so that they wait for its lock.
#[test]
fn the_allocator_gives_nobody_what_another_one_has() {
    let _t = common::begin();
    #[cfg(target_env = "gnu")]
    unsafe {
        assert_eq!(libc::mallopt(libc::M_ARENA_MAX, 1), 1);
    }
    let turns = [const { AtomicU64::new(1) }; THREADS];
    under_interrupts("malloc", |n, over| {
        let mut random = Random::seeded(turns[n].fetch_add(2, SeqCst) * 97 + n as u64);
        let blocks: Vec<_> = (0..8)
            .map(|k| {
                // Too large for the caches that each thread has of its own.
                let size = 2048 + random.below(6000) as usize;
                let block = unsafe { libc::malloc(size) }.cast::<u8>();
                assert!(!block.is_null(), "malloc");
                let mark = (k * THREADS + n) as u8;
                unsafe { block.write_bytes(mark, size) };
                (block, size, mark)
            })
            .collect();
        for (block, size, mark) in blocks {
            let text = unsafe { std::slice::from_raw_parts(block, size) };
            assert!(text.iter().all(|byte| *byte == mark), "a block that somebody else has written to");
            unsafe { libc::free(block.cast()) };
        }
        linger(0);
        !over
    });
}

// std's own locks wait in futexes, too.
#[test]
fn the_standard_librarys_mutex_and_condition_variable_work() {
    let _t = common::begin();
    let (free, condition, section) = (std::sync::Mutex::new(true), std::sync::Condvar::new(), Section::new());
    let steps = under_interrupts("std::sync::Mutex and Condvar", |_, over| {
        let guard = free.lock().expect("nobody panics");
        *condition.wait_while(guard, |free| !*free).expect("nobody panics") = false;
        section.pass();
        *free.lock().expect("nobody panics") = true;
        condition.notify_one();
        !over
    });
    assert_eq!(section.count(), steps + 2 * THREADS as u64);
}

#[test]
fn the_standard_librarys_channels_and_barrier_work() {
    let _t = common::begin();
    let (to, from) = mpsc::sync_channel::<u64>(1);
    let (from, barrier) = (std::sync::Mutex::new(from), std::sync::Barrier::new(THREADS));
    let (given, taken, last) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let steps = under_interrupts("std::sync::mpsc and Barrier", |n, over| {
        // All but one give a number to the one; then all wait for each other.
        if n > 0 {
            for number in 1..4 {
                to.send(number).expect("somebody takes them");
                given.fetch_add(number, SeqCst);
            }
        } else {
            let from = from.lock().expect("nobody panics");
            for _ in 0..3 * (THREADS - 1) {
                taken.fetch_add(from.recv().expect("somebody gives them"), SeqCst);
            }
        }
        if barrier.wait().is_leader() {
            assert_eq!(given.load(SeqCst), taken.load(SeqCst));
            last.store(over, SeqCst);
        }
        barrier.wait();
        !last.load(SeqCst)
    });
    assert!(steps > 0);
}
