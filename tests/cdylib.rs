//! The crate as a shared object, loaded by dlopen into a process whose threads already run: foreign signals reach threads that never entered a scope
//! while they allocate, and the handler allocates nothing and touches no thread-local that has to be made first.
//!
//! The test binary puts its own `malloc` in front of the C library's, so that every allocation in the process is seen, the loader's too.
#![cfg(target_env = "gnu")] // the C library whose allocator can be reached behind one's own
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)] // as in tests/common

mod common;
#[path = "common/plugin.rs"]
mod plugin;

use std::cell::Cell;
use std::ffi::{CString, c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Once, mpsc};
use std::time::Duration;

use common::State;

/// The process's allocator: the C library's, watched.
mod heap {
    use super::*;

    unsafe extern "C" {
        fn __libc_malloc(size: usize) -> *mut c_void;
        fn __libc_calloc(n: usize, size: usize) -> *mut c_void;
        fn __libc_realloc(at: *mut c_void, size: usize) -> *mut c_void;
        fn __libc_free(at: *mut c_void);
    }

    /// Calls that came while the same thread was inside another: from a signal handler, then. They deadlock, or corrupt the heap.
    pub(crate) static NESTED: AtomicU64 = AtomicU64::new(0);
    /// Calls by threads that had said they make none.
    pub(crate) static UNEXPECTED: AtomicU64 = AtomicU64::new(0);
    /// All calls.
    pub(crate) static CALLS: AtomicU64 = AtomicU64::new(0);

    // In an executable these have their place before the thread begins: no call is needed to reach them.
    thread_local! {
        static INSIDE: Cell<bool> = const { Cell::new(false) };
        pub(crate) static QUIET: Cell<bool> = const { Cell::new(false) };
    }

    fn watched<T>(call: impl FnOnce() -> T) -> T {
        CALLS.fetch_add(1, SeqCst);
        if QUIET.get() {
            UNEXPECTED.fetch_add(1, SeqCst);
        }
        if INSIDE.replace(true) {
            NESTED.fetch_add(1, SeqCst);
        }
        let answer = call();
        INSIDE.set(false);
        answer
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn malloc(size: usize) -> *mut c_void {
        watched(|| unsafe { __libc_malloc(size) })
    }
    #[unsafe(no_mangle)]
    unsafe extern "C" fn calloc(n: usize, size: usize) -> *mut c_void {
        watched(|| unsafe { __libc_calloc(n, size) })
    }
    #[unsafe(no_mangle)]
    unsafe extern "C" fn realloc(at: *mut c_void, size: usize) -> *mut c_void {
        watched(|| unsafe { __libc_realloc(at, size) })
    }
    #[unsafe(no_mangle)]
    unsafe extern "C" fn free(at: *mut c_void) {
        watched(|| unsafe { __libc_free(at) })
    }

    /// Whether what the C library allocates comes by here: `strdup` does.
    pub(crate) fn sees_the_c_library() -> bool {
        let before = CALLS.load(SeqCst);
        let copy = unsafe { libc::strdup(c"seen".as_ptr()) };
        let seen = CALLS.load(SeqCst) > before;
        unsafe { libc::free(copy.cast()) };
        seen
    }
}

type Session = *mut c_void;

/// The functions of the shared object.
#[derive(Clone, Copy)]
struct Plugin {
    object: *mut c_void,
    enter: extern "C" fn(c_int) -> Session,
    drop: unsafe extern "C" fn(Session) -> c_int,
    interrupt: unsafe extern "C" fn(Session) -> c_int,
    clear: unsafe extern "C" fn(Session) -> c_int,
    install: unsafe extern "C" fn(c_int, *const AtomicU64) -> c_int,
    allocations: extern "C" fn() -> u64,
}

/// Builds the shared object; once, and not in the processes that tests start for themselves.
fn build() {
    static BUILT: Once = Once::new();
    BUILT.call_once(plugin::build);
}

/// Alone in this process, with the shared object built; a first build may take its time.
fn begin() -> common::Test {
    let test = common::begin_with(Duration::from_secs(300));
    if std::env::var_os("EINTR_TEST_CHILD").is_none() {
        build();
    }
    test
}

impl Plugin {
    fn load() -> Plugin {
        let path = CString::new(plugin::object().to_str().expect("UTF-8")).unwrap();
        let object = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        assert!(!object.is_null(), "dlopen of {path:?}");
        let symbol = |name: &str| {
            let name = CString::new(name).unwrap();
            let found = unsafe { libc::dlsym(object, name.as_ptr()) };
            assert!(!found.is_null(), "{name:?} is missing");
            found
        };
        unsafe {
            Plugin {
                object,
                enter: std::mem::transmute::<*mut c_void, extern "C" fn(c_int) -> Session>(symbol("plugin_enter")),
                drop: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(Session) -> c_int>(symbol("plugin_drop")),
                interrupt: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(Session) -> c_int>(symbol(
                    "plugin_interrupt",
                )),
                clear: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(Session) -> c_int>(symbol(
                    "plugin_clear",
                )),
                install: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(c_int, *const AtomicU64) -> c_int>(
                    symbol("plugin_install"),
                ),
                allocations: std::mem::transmute::<*mut c_void, extern "C" fn() -> u64>(symbol("plugin_allocations")),
            }
        }
    }

    /// Installs the shared object's counting handler; its counter.
    fn install(&self, sig: i32) -> &'static AtomicU64 {
        let runs: &'static AtomicU64 = Box::leak(Box::new(AtomicU64::new(0)));
        assert_eq!(unsafe { (self.install)(sig, runs) }, 0);
        runs
    }
}

/// A thread of the host that runs before the shared object is loaded, and its id.
struct Early {
    tid: i32,
    thread: std::thread::JoinHandle<()>,
}

fn early(work: impl FnOnce() + Send + 'static) -> Early {
    let (say, said) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        say.send(common::gettid()).unwrap();
        work();
    });
    Early { tid: said.recv().unwrap(), thread }
}

fn tgkill(tid: i32, sig: i32) -> bool {
    unsafe { libc::syscall(libc::SYS_tgkill, common::getpid(), tid, sig) == 0 }
}

/// A scope of the shared object on a thread of its own, and how to end it.
fn hold_a_scope(plugin: Plugin, sig: i32) -> (mpsc::Sender<()>, std::thread::JoinHandle<()>) {
    let (entered, is_entered) = mpsc::channel();
    let (end, ends) = mpsc::channel::<()>();
    let (enter, leave) = (plugin.enter, plugin.drop);
    let thread = std::thread::spawn(move || {
        let session = enter(sig);
        assert!(!session.is_null());
        entered.send(()).unwrap();
        let _ = ends.recv();
        assert_eq!(unsafe { leave(session) }, 0);
    });
    is_entered.recv().unwrap();
    (end, thread)
}

/// Waits until `n` runs of the handler behind are counted: nothing of a real-time number is lost.
fn wait_for(runs: &AtomicU64, n: u64) {
    common::wait_until(|| runs.load(SeqCst) >= n);
    assert_eq!(runs.load(SeqCst), n, "more runs than signals");
}

/// Sends one, and waits for it at once, so that neither kind of number can merge.
fn send_and_wait(tid: i32, sig: i32, runs: &AtomicU64, times: u64) {
    for _ in 0..times {
        let before = runs.load(SeqCst);
        assert!(tgkill(tid, sig));
        wait_for(runs, before + 1);
    }
}

/// What it guards: a handler that finds its thread by a thread-local of the shared object. That object came after the thread, so the first touch
/// calls malloc; and the signal came while the thread was inside malloc with its lock held: it waits for itself for ever.
#[test]
fn foreign_signals_under_malloc_load_never_allocate_in_the_handler() {
    let _t = begin();
    common::in_own_process("foreign_signals_under_malloc_load_never_allocate_in_the_handler", || {
        assert!(heap::sees_the_c_library(), "the watched allocator is not in use");
        for sig in [libc::SIGUSR1, libc::SIGRTMIN() + 2] {
            let stop = Arc::new(AtomicBool::new(false));
            let load = |seed: u64| {
                let stop = stop.clone();
                move || {
                    let mut random = common::Random::seeded(seed);
                    let mut kept: Vec<Vec<u8>> = Vec::new();
                    while !stop.load(SeqCst) {
                        kept.push(vec![0; random.below(40_000) as usize]);
                        if kept.len() > 64 {
                            kept.swap_remove(random.below(64) as usize);
                        }
                    }
                }
            };
            let workers: Vec<Early> = (1..=2).map(|seed| early(load(seed))).collect();
            let plugin = Plugin::load();
            let runs = plugin.install(sig);
            let (end, scope) = hold_a_scope(plugin, sig);
            let nested = heap::NESTED.load(SeqCst);
            // A real-time number queues up to 50, a standard one would merge.
            let (rounds, at_once) = (common::rounds("EINTR_SIGNALS", 100), if sig < 32 { 1 } else { 50 });
            for round in 1..=rounds {
                let worker = &workers[round as usize % workers.len()];
                (0..at_once).for_each(|_| assert!(tgkill(worker.tid, sig)));
                wait_for(runs, round * at_once);
            }
            assert_eq!(
                heap::NESTED.load(SeqCst),
                nested,
                "allocations in the handler, on top of one that was under way"
            );
            stop.store(true, SeqCst);
            workers.into_iter().for_each(|w| w.thread.join().unwrap());
            drop(end);
            scope.join().unwrap();
        }
    });
}

/// The first signal of a thread is the one that would make what has to be made: on a thread that makes no call at all, any allocation is the
/// handler's.
#[test]
fn the_first_and_every_later_signal_of_a_thread_allocate_nothing() {
    let _t = begin();
    common::in_own_process("the_first_and_every_later_signal_of_a_thread_allocate_nothing", || {
        assert!(heap::sees_the_c_library(), "the watched allocator is not in use");
        let sig = libc::SIGRTMIN() + 2;
        let spin = |stop: &Arc<AtomicBool>| {
            let stop = stop.clone();
            move || {
                heap::QUIET.set(true);
                while !stop.load(SeqCst) {
                    std::hint::spin_loop();
                }
                heap::QUIET.set(false);
            }
        };
        let stop = Arc::new(AtomicBool::new(false));
        let threads: Vec<Early> = (0..8).map(|_| early(spin(&stop))).collect();
        let plugin = Plugin::load();
        let runs = plugin.install(sig);
        let (end, scope) = hold_a_scope(plugin, sig);
        let own = (plugin.allocations)();
        for thread in &threads {
            send_and_wait(thread.tid, sig, runs, 50);
        }
        assert_eq!(heap::UNEXPECTED.load(SeqCst), 0, "allocations by the C library or the loader in the handler");
        assert_eq!((plugin.allocations)(), own, "allocations by the crate in the handler");
        stop.store(true, SeqCst);
        threads.into_iter().for_each(|t| t.thread.join().unwrap());
        drop(end);
        scope.join().unwrap();
    });
}

/// Whether the two tests above can fail: a touch of a thread-local of an object that came late does allocate, and is seen.
#[test]
fn the_watched_allocator_sees_what_a_handler_allocates() {
    let _t = begin();
    common::in_own_process("the_watched_allocator_sees_what_a_handler_allocates", || {
        extern "C" fn allocate(_: c_int) {
            drop(std::hint::black_box(vec![1u8; 100]));
        }
        let sig = libc::SIGUSR1;
        common::install(sig, allocate as *const () as usize, 0, &[]);
        heap::QUIET.set(true);
        unsafe { libc::raise(sig) };
        heap::QUIET.set(false);
        assert!(heap::UNEXPECTED.load(SeqCst) >= 2);
    });
}

/// From a thread of the host that ran before the object came: enter, be interrupted by another thread, take it, leave; all as it was.
#[test]
fn a_scope_works_on_a_thread_older_than_the_object() {
    let _t = begin();
    let (give, given) = mpsc::channel::<(usize, usize)>();
    let (say, said) = mpsc::channel();
    let sig = libc::SIGRTMIN() + 6;
    static BLOCKED: AtomicI32 = AtomicI32::new(0);
    let old = std::thread::spawn(move || {
        let (enter, leave) = given.recv().unwrap();
        let before = State::now();
        let enter = unsafe { std::mem::transmute::<usize, extern "C" fn(c_int) -> Session>(enter) };
        let leave = unsafe { std::mem::transmute::<usize, unsafe extern "C" fn(Session) -> c_int>(leave) };
        let session = enter(sig);
        let (reader, _writer) = common::pipe();
        BLOCKED.store(common::gettid(), SeqCst);
        say.send(session as usize).unwrap();
        let answer = common::plain_read(&reader);
        assert_eq!(unsafe { leave(session) }, 0);
        (answer, before == State::now())
    });
    let plugin = Plugin::load();
    give.send((plugin.enter as *const () as usize, plugin.drop as *const () as usize)).unwrap();
    let session = said.recv().unwrap() as Session;
    common::wait_blocked_in(BLOCKED.load(SeqCst), libc::SYS_read);
    assert_eq!(unsafe { (plugin.interrupt)(session) }, 0, "sent");
    let (answer, same) = old.join().unwrap();
    assert_eq!(answer, Err(libc::EINTR));
    assert!(same, "action and mask are back");
}

/// The object's handler stays mapped when the host closes the object: a signal that comes then, or a call by somebody who kept the handler's
/// address, must not find a hole (pam-ssh-agent's issue 110).
#[test]
fn the_object_stays_mapped_after_dlclose() {
    let _t = begin();
    common::in_own_process("the_object_stays_mapped_after_dlclose", || {
        let sig = libc::SIGRTMIN() + 2;
        let plugin = Plugin::load();
        let runs = plugin.install(sig);
        let session = (plugin.enter)(sig);
        let ours = common::action(sig);
        assert_eq!(unsafe { libc::dlclose(plugin.object) }, 0);
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        assert!(maps.contains("libeintr_plugin.so"), "unmapped with the handler installed");
        send_and_wait(common::gettid(), sig, runs, 10);
        assert_eq!(unsafe { (plugin.drop)(session) }, 0);
        // Captured while the scope lived, installed again after it: nothing of ours is live, and the call still finds its code.
        let behind = common::action(sig);
        common::restore(sig, ours);
        send_and_wait(common::gettid(), sig, runs, 10);
        common::restore(sig, behind);
    });
}

/// Two copies of the crate in one process, the host's and the object's, on one number of one thread, one inside the other: neither takes the
/// other's signals for its own or for its user's, and each says so where it is not the one whose handler stands there.
#[test]
fn two_copies_of_the_crate_keep_apart() {
    let _t = begin();
    common::in_own_process("two_copies_of_the_crate_keep_apart", || {
        for sig in [libc::SIGUSR2, libc::SIGRTMIN() + 2] {
            let plugin = Plugin::load();
            let runs = plugin.install(sig);
            let before = State::now();
            let outer = eintr::Scope::enter(sig).expect("entered");
            let remote = outer.remote();
            assert_eq!(remote.interrupt(), eintr::Delivery::Sent);
            assert!(outer.clear().is_some());

            let inner = (plugin.enter)(sig);
            assert_eq!(unsafe { (plugin.interrupt)(inner) }, 0, "the object's handler stands there");
            assert_eq!(outer.interrupted(), None, "the object's signal is not the host's");
            assert_eq!(remote.interrupt(), eintr::Delivery::Displaced, "the host's does not");
            assert!(outer.interrupted().is_some(), "pending all the same");
            assert_eq!(unsafe { (plugin.clear)(inner) }, 1);
            assert_eq!(unsafe { (plugin.clear)(inner) }, 0);
            assert_eq!(runs.load(SeqCst), 0, "no signal of either reached the action behind both");
            send_and_wait(common::gettid(), sig, runs, 5);
            assert!(outer.clear().is_some());
            assert_eq!(unsafe { (plugin.drop)(inner) }, 0);

            assert_eq!(remote.interrupt(), eintr::Delivery::Sent, "its turn again");
            send_and_wait(common::gettid(), sig, runs, 5);
            drop(outer);
            assert_eq!(runs.load(SeqCst), 10, "every foreign one once");
            assert_eq!(State::now(), before);
            send_and_wait(common::gettid(), sig, runs, 1);
        }
    });
}
