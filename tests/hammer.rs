//! The hammer: scopes nested and dropped in any order on three threads, beside two interrupting threads and a second process that sends the same
//! number. No signal of ours reaches the action behind, every foreign real-time one does, and the state is exact at the end.
//!
//! `EINTR_HAMMER_SCOPES` says how many scopes the six tests enter together.
// Tests install handlers, fork, share memory with the child and send signals by bare calls.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;

use common::{Random, State};
use eintr::{Delivery, Remote, Scope};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const SCOPED_THREADS: usize = 3;
const INTERRUPTING_THREADS: usize = 2;
/// SI_ASYNCNL, the `si_code` of our signals (R1).
const OUR_CODE: i32 = -60;

/// How the second process sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// kill(2): SI_USER.
    Kill,
    /// tgkill(2) to a scoped thread: SI_TKILL.
    Tgkill,
    /// rt_sigqueueinfo(2) with a value: SI_QUEUE.
    Queue,
    /// rt_tgsigqueueinfo(2) with a value, to a scoped thread.
    QueueToThread,
    /// As `Queue`, with our own code: forged, but not our pid and not our magic.
    ForgedCode,
    /// As `QueueToThread`, likewise.
    ForgedCodeToThread,
}

/// One run of the hammer.
struct Run {
    name: &'static str,
    sig: i32,
    /// What the second process sends; nothing: there is none, and the action behind is the default, which kills.
    foreign: &'static [How],
    /// The second process sends the next one when the last has arrived, so that a standard number's are not merged among themselves.
    one_at_a_time: bool,
    /// The number is blocked before `enter` at times.
    blocked_before: bool,
    /// Part of the scopes, in percent.
    share: u64,
}

/// Shared by the two processes and the handler behind.
#[repr(C)]
struct Shared {
    stop: AtomicBool,
    /// By [`How`].
    sent: [AtomicU64; 6],
    /// EAGAIN: the queue was full.
    refused: AtomicU64,
    /// Sum of the values that went with them.
    sent_values: AtomicU64,
    /// What the counting handler saw of the second process: SI_USER, SI_TKILL, and those with a value.
    received: [AtomicU64; 3],
    received_values: AtomicU64,
    /// What it must not see: signals of ours.
    strays: AtomicU64,
    /// Blank ones: from a full queue.
    blank: AtomicU64,
    /// Of a kind that nobody sends.
    unknown: AtomicU64,
}

static SHARED: AtomicPtr<Shared> = AtomicPtr::new(std::ptr::null_mut());
static OWN_PID: AtomicU64 = AtomicU64::new(0);

fn shared() -> &'static Shared {
    // Mapped by `map_shared` and never unmapped; zeroes are valid.
    unsafe { &*SHARED.load(SeqCst) }
}

fn map_shared() {
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    let page = unsafe { libc::mmap(std::ptr::null_mut(), size_of::<Shared>(), access, kind, -1, 0) };
    assert_ne!(page, libc::MAP_FAILED);
    SHARED.store(page.cast(), SeqCst);
    OWN_PID.store(common::getpid() as u64, SeqCst);
}

/// A siginfo as the second process makes it: all 128 bytes.
#[repr(C, align(8))]
struct Info {
    signo: i32,
    errno: i32,
    code: i32,
    _pad: i32,
    pid: i32,
    uid: u32,
    value: u64,
    _rest: [u64; 12],
}
const _: () = assert!(size_of::<Info>() == 128);

/// The action behind. It judges by the siginfo alone who sent what it gets.
extern "C" fn counting(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let info = unsafe { &*info.cast::<Info>() };
    let s = shared();
    let own = info.pid as u64 == OWN_PID.load(SeqCst);
    let counter = match info.code {
        OUR_CODE | libc::SI_TKILL if own => &s.strays,
        libc::SI_USER if info.pid == 0 => &s.blank,
        libc::SI_USER => &s.received[0],
        libc::SI_TKILL => &s.received[1],
        libc::SI_QUEUE | OUR_CODE => {
            s.received_values.fetch_add(info.value, SeqCst);
            &s.received[2]
        }
        _ => &s.unknown,
    };
    counter.fetch_add(1, SeqCst);
}

impl Shared {
    /// Accepted by the kernel, by what will be seen of it.
    fn accepted(&self) -> [u64; 3] {
        let of = |h: How| self.sent[h as usize].load(SeqCst);
        let valued = [How::Queue, How::QueueToThread, How::ForgedCode, How::ForgedCodeToThread];
        [of(How::Kill), of(How::Tgkill), valued.into_iter().map(of).sum()]
    }
    fn arrived(&self) -> [u64; 3] {
        [0, 1, 2].map(|i| self.received[i].load(SeqCst))
    }
}

/// The second process: sends until it is told to stop.
fn send_from_outside(run: &Run, pid: libc::pid_t, tids: [libc::pid_t; SCOPED_THREADS], seed: u64) -> i32 {
    // A sender that outlived the test would go on against a pid that is somebody else's.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    if unsafe { libc::getppid() } != pid {
        return 3;
    }
    let (s, own, mut random) = (shared(), common::getpid(), Random::seeded(seed));
    let most = if run.one_at_a_time { 1 } else { 200 };
    // Standard ones that are merged never arrive: there the count of what is under way means nothing.
    let counted = run.one_at_a_time || run.sig >= libc::SIGRTMIN();
    let (mut accepted, mut serial) = (0u64, 0u64);
    while !s.stop.load(SeqCst) {
        if counted && accepted >= s.arrived().iter().sum::<u64>() + s.blank.load(SeqCst) + most {
            std::thread::yield_now();
            continue;
        }
        let how = run.foreign[random.below(run.foreign.len() as u64) as usize];
        let tid = tids[random.below(SCOPED_THREADS as u64) as usize];
        serial += 1;
        let forged = matches!(how, How::ForgedCode | How::ForgedCodeToThread);
        let code = if forged { OUR_CODE } else { libc::SI_QUEUE };
        let info = Info { signo: run.sig, errno: 0, code, _pad: 0, pid: own, uid: 0, value: serial, _rest: [0; 12] };
        let sent = unsafe {
            match how {
                How::Kill => libc::syscall(libc::SYS_kill, pid, run.sig),
                How::Tgkill => libc::syscall(libc::SYS_tgkill, pid, tid, run.sig),
                How::Queue | How::ForgedCode => libc::syscall(libc::SYS_rt_sigqueueinfo, pid, run.sig, &info),
                How::QueueToThread | How::ForgedCodeToThread => {
                    libc::syscall(libc::SYS_rt_tgsigqueueinfo, pid, tid, run.sig, &info)
                }
            }
        };
        if sent == 0 {
            accepted += 1;
            s.sent[how as usize].fetch_add(1, SeqCst);
            if !matches!(how, How::Kill | How::Tgkill) {
                s.sent_values.fetch_add(serial, SeqCst);
            }
        } else if std::io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN) {
            s.refused.fetch_add(1, SeqCst);
        } else {
            return 4;
        }
        if random.chance(4) {
            std::thread::yield_now();
        }
    }
    0
}

/// What the threads of a run share. The remotes of each scoped thread's latest scopes stay here after these have ended, so that senders are in and
/// about the gate while it closes.
#[derive(Default)]
struct Floor {
    remotes: [Mutex<Vec<Remote>>; SCOPED_THREADS],
    scopes_left: [AtomicU64; SCOPED_THREADS],
    finished: AtomicU64,
    stop_interrupting: AtomicBool,
    go_home: AtomicBool,
    interrupts: Interrupts,
}

/// What became of the interrupts.
#[derive(Debug, Default)]
struct Interrupts {
    sent: AtomicU64,
    held: AtomicU64,
    gone: AtomicU64,
    /// Refused, or sent once for want of a timer.
    other: AtomicU64,
    /// Must stay 0: nobody replaces the action.
    displaced: AtomicU64,
}

fn interrupting_thread(floor: &Floor, seed: u64) {
    let mut random = Random::seeded(seed);
    let n = &floor.interrupts;
    while !floor.stop_interrupting.load(SeqCst) {
        let remote = {
            let remotes = floor.remotes[random.below(SCOPED_THREADS as u64) as usize]
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if remotes.is_empty() { None } else { remotes.get(random.below(remotes.len() as u64) as usize).cloned() }
        };
        let Some(remote) = remote else { continue };
        for _ in 0..=random.below(6) {
            let answer = if random.chance(2) { remote.interrupt() } else { remote.interrupt_once() };
            let counter = match answer {
                Delivery::Sent => &n.sent,
                Delivery::Held => &n.held,
                Delivery::Gone => &n.gone,
                Delivery::Displaced => &n.displaced,
                _ => &n.other,
            };
            counter.fetch_add(1, SeqCst);
            if answer == Delivery::Gone {
                break;
            }
        }
    }
}

/// Enters and leaves until its share is done, then stays to take what is still sent to it.
fn scoped_thread(run: &Run, floor: &Floor, index: usize, seed: u64) {
    let mut random = Random::seeded(seed);
    let before = common::mask();
    while floor.scopes_left[index].load(SeqCst) > 0 {
        let blocked_before = run.blocked_before && random.chance(3);
        if blocked_before {
            common::block(run.sig);
        }
        let mut scopes = Vec::new();
        for _ in 0..=random.below(4) {
            let scope = Scope::enter(run.sig).expect("enter");
            let mut remotes = floor.remotes[index].lock().unwrap_or_else(PoisonError::into_inner);
            if remotes.len() >= 4 {
                remotes.remove(0);
            }
            remotes.push(scope.remote());
            drop(remotes);
            scopes.push(scope);
            something(&mut random, &scopes);
        }
        floor.scopes_left[index].fetch_sub((scopes.len() as u64).min(floor.scopes_left[index].load(SeqCst)), SeqCst);
        while !scopes.is_empty() {
            if random.chance(4) {
                common::block(run.sig);
                // At times one of ours has come and cannot be delivered when the drop begins.
                for _ in 0..random.below(20) {
                    if scopes.iter().all(|s| s.interrupted().is_none()) {
                        std::thread::yield_now();
                    }
                }
            } else if random.chance(8) {
                common::unblock(run.sig);
            }
            something(&mut random, &scopes);
            let scope = scopes.swap_remove(random.below(scopes.len() as u64) as usize);
            if random.chance(4) {
                scope.leave().expect("nobody replaces the action");
            } else {
                drop(scope);
            }
        }
        let expected = if blocked_before { before | common::bit(run.sig) } else { before };
        assert_eq!(common::mask(), expected, "the mask after the last scope; blocked before: {blocked_before}");
        assert!(!eintr::is_interruptible());
        if blocked_before {
            common::unblock(run.sig);
        }
    }
    floor.finished.fetch_add(1, SeqCst);
    while !floor.go_home.load(SeqCst) {
        std::thread::yield_now();
    }
    assert_eq!(common::mask(), before);
    assert_eq!(
        common::status_bits(common::gettid(), "SigPnd:") & common::bit(run.sig),
        0,
        "something is left in the queue"
    );
}

/// What a thread does in its scopes; the outcome of a call is of no interest here.
fn something(random: &mut Random, scopes: &[Scope]) {
    match random.below(11) {
        0..2 => std::thread::yield_now(),
        2 => {
            let little = libc::timespec { tv_sec: 0, tv_nsec: 20_000 };
            unsafe { libc::nanosleep(&little, std::ptr::null_mut()) };
        }
        3 => {
            let _ = eintr::check();
        }
        4 | 5 => {
            let scope = &scopes[random.below(scopes.len() as u64) as usize];
            let was = scope.interrupted();
            let taken = scope.clear();
            assert!(was.is_none() || taken.is_some(), "an interrupt was seen and is not there to be cleared");
        }
        _ => {}
    }
}

/// The body, in a process of its own.
fn hammer(run: &Run) {
    let scopes = total_scopes() * run.share / 100;
    // After the watchdog, which says more.
    unsafe { libc::alarm(limit().as_secs() as u32 + 60) };
    map_shared();
    let seed = Random::new().next();
    if !run.foreign.is_empty() {
        // Calls restart behind it, as they do in most programs.
        common::install(run.sig, counting as *const () as usize, libc::SA_SIGINFO | libc::SA_RESTART, &[]);
    }
    let before = State::now();
    let begun = Instant::now();
    let floor = Floor::default();
    for left in &floor.scopes_left {
        left.store(scopes.div_ceil(SCOPED_THREADS as u64), SeqCst);
    }
    std::thread::scope(|s| {
        let (tell, told) = std::sync::mpsc::channel();
        for index in 0..SCOPED_THREADS {
            let (floor, tell) = (&floor, tell.clone());
            s.spawn(move || {
                tell.send((index, common::gettid())).expect("the test waits");
                // A thread that panics must end the process: the others would wait for it.
                let end = std::panic::AssertUnwindSafe(|| scoped_thread(run, floor, index, seed ^ (index as u64 + 1)));
                if std::panic::catch_unwind(end).is_err() {
                    eprintln!("HAMMER {}: a scoped thread found something wrong, see above", run.name);
                    std::process::exit(1);
                }
            });
        }
        let mut tids = [0; SCOPED_THREADS];
        for _ in 0..SCOPED_THREADS {
            let (index, tid) = told.recv().expect("they have started");
            tids[index] = tid;
        }
        let pid = common::getpid();
        let outside = (!run.foreign.is_empty()).then(|| {
            common::fork(|| {
                unsafe { libc::alarm(limit().as_secs() as u32 + 60) };
                send_from_outside(run, pid, tids, seed ^ 99)
            })
        });
        for n in 0..INTERRUPTING_THREADS {
            let floor = &floor;
            s.spawn(move || interrupting_thread(floor, seed ^ (n as u64 + 17)));
        }
        while floor.finished.load(SeqCst) < SCOPED_THREADS as u64 {
            std::thread::sleep(Duration::from_millis(5));
        }
        floor.stop_interrupting.store(true, SeqCst);
        shared().stop.store(true, SeqCst);
        if let Some(pid) = outside {
            assert_eq!(common::reap(pid), 0, "the second process");
        }
        settle(run);
        floor.go_home.store(true, SeqCst);
    });
    report(run, &floor, scopes, begun.elapsed());
    judge(run, &floor);
    assert_eq!(State::now(), before, "{}: the state at the end", run.name);
}

/// Waits for what the second process has sent; gives up when nothing is under way any more and still something is missing.
fn settle(run: &Run) {
    let mut idle_since = Instant::now();
    while shared().arrived() != shared().accepted() && idle_since.elapsed() < Duration::from_secs(3) {
        let pending = std::fs::read_dir("/proc/self/task").expect("proc").flatten().any(|thread| {
            // A thread may end meanwhile.
            let status = std::fs::read_to_string(thread.path().join("status")).unwrap_or_default();
            let fields = status.lines().filter(|l| l.starts_with("SigPnd:") || l.starts_with("ShdPnd:"));
            fields
                .filter_map(|l| u64::from_str_radix(l.split_whitespace().nth(1)?, 16).ok())
                .any(|b| b & common::bit(run.sig) != 0)
        });
        if pending {
            idle_since = Instant::now();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn report(run: &Run, floor: &Floor, scopes: u64, took: Duration) {
    let (s, i) = (shared(), &floor.interrupts);
    let of = |n: &AtomicU64| n.load(SeqCst);
    println!("hammer {}: signal {}, {scopes} scopes in {took:.1?}", run.name, run.sig);
    let answers = [&i.sent, &i.held, &i.gone, &i.other, &i.displaced].map(of);
    println!("  interrupts [sent, held, gone, other, displaced]: {answers:?}");
    if !run.foreign.is_empty() {
        let by_kind: Vec<_> = run.foreign.iter().map(|h| format!("{h:?} {}", of(&s.sent[*h as usize]))).collect();
        println!("  foreign signals accepted: {}; refused: {}", by_kind.join(", "), of(&s.refused));
        println!(
            "  foreign signals [SI_USER, SI_TKILL, with a value] accepted {:?}, arrived {:?}",
            s.accepted(),
            s.arrived()
        );
        println!("  ours at the action behind: {}; blank: {}", of(&s.strays), of(&s.blank));
    }
}

fn judge(run: &Run, floor: &Floor) {
    let (s, i) = (shared(), &floor.interrupts);
    let of = |n: &AtomicU64| n.load(SeqCst);
    assert!(of(&i.sent) > 0 && of(&i.gone) > 0, "{}: the interrupting threads did nothing", run.name);
    assert_eq!(of(&i.displaced), 0, "{}: nobody replaced the action", run.name);
    if run.foreign.is_empty() {
        return;
    }
    let (mut sent, mut arrived) = (s.accepted(), s.arrived());
    assert_eq!(of(&s.strays), 0, "HAMMER {}: signals of ours at the action behind", run.name);
    assert_eq!(of(&s.unknown), 0, "HAMMER {}: signals that nobody sent", run.name);
    assert!(sent.iter().sum::<u64>() > 0, "{}: the second process did nothing", run.name);
    if run.sig < libc::SIGRTMIN() && !run.one_at_a_time {
        let (sent, arrived): (u64, u64) = (sent.iter().sum(), arrived.iter().sum());
        assert!((1..=sent).contains(&arrived), "HAMMER {}: {arrived} of {sent} foreign signals arrived", run.name);
        return;
    }
    if of(&s.refused) + of(&s.blank) > 0 {
        // A standard number is merged without its siginfo when the queue is full; so is a real-time one that kill(2) sends, which is never refused.
        println!("SKIPPED: the signal queue was full at times: what kill(2) sent is not compared with what arrived");
        (sent[0], arrived[0]) = (0, 0);
        if run.sig < libc::SIGRTMIN() {
            return;
        }
    }
    assert_eq!(arrived, sent, "HAMMER {}: foreign signals at the action behind, and sent", run.name);
    assert_eq!(of(&s.received_values), of(&s.sent_values), "HAMMER {}: the sums of their values", run.name);
}

fn total_scopes() -> u64 {
    common::rounds("EINTR_HAMMER_SCOPES", 120_000)
}

/// Far above what a slow machine needs; what hangs is ended by it.
fn limit() -> Duration {
    Duration::from_secs(100 + total_scopes() / 500)
}

fn in_own_process(run: &Run) {
    let _t = common::begin_with(limit());
    let (status, text) = common::own_process(run.name, || hammer(run));
    print!("{text}");
    // The default is behind where nothing foreign is sent: a stray kills, and the status tells by which signal.
    assert!(status.success(), "HAMMER {}: the process ended with {status}", run.name);
}

// A signal that is queued, or on its way from a sender inside the gate, when the action goes back (protocol 7, 3 to 9): dead.
#[test]
fn over_the_default_action_a_standard_number_never_kills() {
    in_own_process(&Run {
        name: "over_the_default_action_a_standard_number_never_kills",
        sig: libc::SIGUSR1,
        foreign: &[],
        one_at_a_time: false,
        blocked_before: false,
        share: 25,
    });
}

// Real-time signals queue up: one drain has to take all of them, and each has its siginfo.
#[test]
fn over_the_default_action_a_real_time_number_never_kills() {
    in_own_process(&Run {
        name: "over_the_default_action_a_real_time_number_never_kills",
        sig: libc::SIGRTMIN() + 1,
        foreign: &[],
        one_at_a_time: false,
        blocked_before: false,
        share: 20,
    });
}

// Foreign ones lie in the queue between and behind ours when a drain runs, arrive on lanes that close, and look like ours but for the siginfo (R1).
#[test]
fn beside_a_second_process_every_foreign_real_time_signal_arrives_and_none_of_ours() {
    in_own_process(&Run {
        name: "beside_a_second_process_every_foreign_real_time_signal_arrives_and_none_of_ours",
        sig: libc::SIGRTMIN() + 1,
        foreign: &[How::Kill, How::Tgkill, How::Queue, How::QueueToThread, How::ForgedCode, How::ForgedCodeToThread],
        one_at_a_time: false,
        blocked_before: false,
        share: 20,
    });
}

// The kernel merges standard signals of one queue. One at a time, to the process, whose queue holds none of ours: nothing is merged, each must arrive.
#[test]
fn beside_a_second_process_standard_signals_to_the_process_arrive_one_for_one() {
    in_own_process(&Run {
        name: "beside_a_second_process_standard_signals_to_the_process_arrive_one_for_one",
        sig: libc::SIGUSR1,
        foreign: &[How::Kill, How::Queue, How::ForgedCode],
        one_at_a_time: true,
        blocked_before: false,
        share: 15,
    });
}

// To the threads too, where a foreign one may be merged into ours or ours into it: whatever is lost, none of ours comes out at the other end.
#[test]
fn beside_a_second_process_standard_signals_to_the_threads_let_none_of_ours_through() {
    in_own_process(&Run {
        name: "beside_a_second_process_standard_signals_to_the_threads_let_none_of_ours_through",
        sig: libc::SIGUSR1,
        foreign: &[How::Kill, How::Tgkill, How::Queue, How::QueueToThread, How::ForgedCode, How::ForgedCodeToThread],
        one_at_a_time: false,
        blocked_before: false,
        share: 15,
    });
}

// Where the number was blocked before `enter`, what is foreign belongs to somebody who waits for it, or waits itself: it is posted back or held, and given
// back at the drop, among interrupts that go on.
#[test]
fn where_the_number_was_blocked_before_nothing_foreign_is_lost() {
    in_own_process(&Run {
        name: "where_the_number_was_blocked_before_nothing_foreign_is_lost",
        sig: libc::SIGRTMIN() + 1,
        foreign: &[How::Queue, How::QueueToThread],
        one_at_a_time: false,
        blocked_before: true,
        share: 5,
    });
}

// A sender stores PENDING in the gate and then `pending`; it may be anywhere between the two when the scoped thread looks, first at the one (`interrupted`),
// then at the other (`check`). To the thread that is one request, and it has seen it.
#[test]
fn what_interrupted_has_seen_check_sees_too() {
    let _t = common::begin();
    common::in_own_process("what_interrupted_has_seen_check_sees_too", || {
        let before = State::now();
        let rounds = common::rounds("EINTR_HAMMER_LOOKS", 2000);
        let scope = Scope::enter(libc::SIGUSR1).expect("enter");
        std::thread::scope(|s| {
            for _ in 0..INTERRUPTING_THREADS {
                let remote = scope.remote();
                s.spawn(move || while remote.interrupt() != Delivery::Gone {});
            }
            for n in 0..rounds {
                while scope.interrupted().is_none() {
                    std::hint::spin_loop();
                }
                assert!(eintr::check().is_err(), "round {n}: the scope is interrupted and check does not say so");
                assert!(scope.clear().is_some(), "round {n}: seen, and not there to be cleared");
            }
            drop(scope);
        });
        assert_eq!(State::now(), before);
    });
}
