//! The resend (protocol 8): a plain call is ended by one `interrupt()`, wherever its thread was when the signal came: on the way into the call, asleep in
//! it, or below the handler of another signal. One signal alone is not enough.
//!
//! A thread makes plain calls that wait for what never comes, and looks at nothing in between; it is interrupted at random instants, once at a time,
//! among signals of a lower number whose handler restarts calls. `EINTR_RESENDS` says how many interrupts are made.
// Calls are made, handlers installed and signals sent by libc and by bare system calls, as applications do.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/endless.rs"]
mod endless;
#[path = "common/unaided.rs"]
mod unaided;

use common::Random;
use eintr::{Delivery, Remote, Resend, Scope, ScopeOptions};
use endless::{ALL, Call};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;
use unaided::Unaided;

/// Foreign, and its handler restarts: the lower number, so that the kernel builds its frame first and ours lands on top of it.
const FOREIGN: i32 = libc::SIGUSR1;

extern "C" fn on_foreign(_: i32) {}

extern "C" fn on_behind(_: i32) {
    BEHIND.fetch_add(1, SeqCst);
}

static BEHIND: AtomicU64 = AtomicU64::new(0);

/// How it is asked, and sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    Resent(Resend),
    Once,
    Never,
}

/// Short pauses, with the lowest ceiling that there is: among foreign signals that come faster than a thread wakes up, as on an idle virtual machine, most
/// resends land on top of one of those, and are in vain.
const SHORT: Asks =
    Asks::Resent(Resend::Backoff { first: Duration::from_micros(20), ceiling: Duration::from_millis(1) });

/// One thread, interrupted so often.
#[derive(Clone, Copy, Debug)]
struct Run {
    sig: i32,
    /// A handler without SA_RESTART stands behind ours, instead of the default: the kernel restarts nothing.
    behind: bool,
    asks: Asks,
    /// The thread makes a call again that was told EINTR, as std does, and looks at nothing.
    stubborn: bool,
    interrupts: u64,
}

/// What the threads of a run tell each other.
#[derive(Debug, Default)]
struct Shared {
    over: AtomicBool,
    asked: AtomicU64,
    acknowledged: AtomicU64,
    /// What the calls were told.
    eintr: AtomicU64,
    canceled: AtomicU64,
    /// EINTR with nothing asked.
    for_nothing: AtomicU64,
    unaided: OnceLock<Unaided>,
}

impl Shared {
    fn unaided(&self) -> &Unaided {
        self.unaided.wait()
    }
}

/// The scoped thread. It looks at nothing before it calls: an interrupt that has landed meanwhile ends the call by coming again, or not at all.
fn call_again_and_again(run: Run, call: &mut Call, scope: &Scope, shared: &Shared) {
    let mut random = Random::seeded(run.interrupts);
    for n in 0u64.. {
        if shared.over.load(SeqCst) {
            return;
        }
        if random.chance(2) {
            unaided::spin(random.below(10_000));
        }
        let answer = (call.call)();
        let helped = || shared.unaided().is_helping() || shared.over.load(SeqCst);
        match answer {
            Err(libc::EINTR) => _ = shared.eintr.fetch_add(1, SeqCst),
            Err(libc::ECANCELED) => _ = shared.canceled.fetch_add(1, SeqCst),
            answer => panic!("{}: {answer:?}", call.name),
        }
        if run.stubborn && answer == Err(libc::EINTR) && !helped() {
            continue;
        }
        if acknowledge(scope, n) {
            shared.acknowledged.fetch_add(1, SeqCst);
        } else {
            assert_eq!(answer, Err(libc::EINTR), "{}, and nothing was asked", call.name);
            shared.for_nothing.fetch_add(u64::from(!helped()), SeqCst);
        }
    }
}

/// By each of the ways in turn. `false`: nothing is asked.
fn acknowledge(scope: &Scope, n: u64) -> bool {
    match n % 3 {
        0 => {}
        1 => _ = eintr::check(),
        _ => _ = eintr::retry(|| 0i32),
    }
    scope.clear().is_some()
}

/// Foreign signals to the thread at random short gaps. Where they end the call by themselves, only while nothing is asked: they would be a help.
fn send_foreign(tid: libc::pid_t, shared: &Shared, sparing: bool, seed: u64) {
    let mut random = Random::seeded(seed ^ 0x5bd1_e995);
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
    while !shared.over.load(SeqCst) {
        if !sparing || shared.asked.load(SeqCst) == shared.acknowledged.load(SeqCst) {
            strike(tid);
        }
        std::thread::sleep(Duration::from_nanos(random.below(60_000)));
    }
}

fn strike(tid: libc::pid_t) {
    unsafe { libc::syscall(libc::SYS_tgkill, common::getpid(), tid, FOREIGN) };
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    made: u64,
    helped: u64,
    eintr: u64,
    canceled: u64,
    for_nothing: u64,
    worst: Duration,
}

impl std::ops::AddAssign for Told {
    fn add_assign(&mut self, other: Told) {
        self.made += other.made;
        self.helped += other.helped;
        self.eintr += other.eintr;
        self.canceled += other.canceled;
        self.for_nothing += other.for_nothing;
        self.worst = self.worst.max(other.worst);
    }
}

/// The scoped thread, as those have it that interrupt it.
struct Target {
    run: Run,
    /// What the foreign signals spare: see [`Call::is_broken_by_all`].
    sparing: bool,
    tid: libc::pid_t,
    remote: Remote,
    thread: JoinHandle<()>,
    shared: Arc<Shared>,
}

impl Target {
    fn start(run: Run, mut call: Call) -> Target {
        let (tell, told) = mpsc::channel();
        let (sparing, shared) = (call.is_broken_by_all, Arc::new(Shared::default()));
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let options = ScopeOptions::new(run.sig);
            let options = match run.asks {
                Asks::Resent(resend) => options.resend(resend),
                Asks::Once => options,
                Asks::Never => options.resend(Resend::Never),
            };
            let scope = options.enter().expect("entered");
            tell.send((common::gettid(), scope.remote())).expect("the test waits");
            call_again_and_again(run, &mut call, &scope, &of_thread);
        });
        let (tid, remote) = told.recv().expect("the thread enters");
        let target = Target { run, sparing, tid, remote, thread, shared };
        let patience = if target.is_naive() { Duration::from_millis(1) } else { unaided::long_enough() };
        target.shared.unaided.get_or_init(|| Unaided::new(tid, &[run.sig, FOREIGN], patience));
        target
    }

    fn is_naive(&self) -> bool {
        matches!(self.run.asks, Asks::Once | Asks::Never)
    }

    fn ask(&self) -> Delivery {
        if self.run.asks == Asks::Once { self.remote.interrupt_once() } else { self.remote.interrupt() }
    }

    /// Once at a time, until the thread has acknowledged.
    fn interrupt_again_and_again(&self, random: &mut Random) {
        for n in 1..=self.run.interrupts {
            // Mostly so soon that the thread is on its way into the call, at times when it sleeps there.
            unaided::spin(if random.chance(4) { random.below(20_000) } else { random.below(1_500) });
            self.shared.asked.store(n, SeqCst);
            if random.chance(4) {
                strike(self.tid); // right before ours: the two are often pending together
            }
            // Held: the thread is just looking, after a foreign signal.
            let told = self.ask();
            assert!(told == Delivery::Sent || self.sparing && told == Delivery::Held, "{told:?}");
            let ended = || self.thread.is_finished();
            self.shared.unaided().wait_until(|| self.shared.acknowledged.load(SeqCst) == n || ended());
            assert!(!ended(), "the thread has ended");
            if !self.is_naive() && self.shared.unaided().helped() > 2 {
                return; // that says enough, and each has taken its time
            }
        }
    }

    fn end(self) -> Told {
        self.shared.over.store(true, SeqCst);
        common::wait_until(|| {
            self.ask();
            self.shared.unaided().strike();
            self.thread.is_finished()
        });
        self.thread.join().expect("the thread ends well");
        let [eintr, canceled, for_nothing] =
            [&self.shared.eintr, &self.shared.canceled, &self.shared.for_nothing].map(|count| count.load(SeqCst));
        let (helped, worst) = (self.shared.unaided().helped(), self.shared.unaided().worst());
        Told { made: self.run.interrupts, helped, eintr, canceled, for_nothing, worst }
    }
}

fn run(run: Run, make: fn() -> Call, seed: u64) -> Told {
    let before = [FOREIGN, run.sig].map(|sig| (sig, common::action(sig)));
    common::install(FOREIGN, on_foreign as *const () as usize, libc::SA_RESTART, &[]);
    if run.behind {
        common::install(run.sig, on_behind as *const () as usize, 0, &[]);
    }
    let call = make();
    let name = call.name;
    let target = Target::start(run, call);
    let (tid, sparing, shared) = (target.tid, target.sparing, Arc::clone(&target.shared));
    let foreign = common::unsignalled(move || send_foreign(tid, &shared, sparing, seed));
    target.interrupt_again_and_again(&mut Random::seeded(seed));
    let told = target.end();
    foreign.join().expect("the foreign sender ends");
    before.into_iter().for_each(|(sig, action)| common::restore(sig, action));
    assert_eq!(BEHIND.load(SeqCst), 0, "signals of ours that reached the action behind");
    println!("{name}, {run:?}: {told:?}");
    told
}

/// On a standard number and on a real-time one, over the default and over a handler.
fn kinds(asks: Asks, interrupts: u64) -> impl Iterator<Item = Run> {
    let numbers = [libc::SIGUSR2, libc::SIGRTMIN() + 5];
    let all = numbers.into_iter().flat_map(|sig| [false, true].map(|behind| (sig, behind)));
    all.map(move |(sig, behind)| Run { sig, behind, asks, stubborn: false, interrupts })
}

fn rounds() -> u64 {
    common::rounds("EINTR_RESENDS", if cfg!(debug_assertions) { 10_000 } else { 52_000 })
}

#[test]
fn one_interrupt_ends_a_plain_call_wherever_its_thread_is() {
    let _t = common::begin_with(Duration::from_secs(240));
    let (mut random, each) = (Random::new(), rounds().div_ceil(4 * ALL.len() as u64));
    let mut all = Told::default();
    for make in ALL {
        for kind in kinds(SHORT, each).chain(kinds(Asks::Resent(Resend::default()), each.div_ceil(50))) {
            let told = run(kind, make, random.next());
            assert!(make().is_broken_by_all || told.for_nothing == 0, "calls that were told EINTR for nothing");
            all += told;
            assert_eq!(all.helped, 0, "interrupts that needed help, of {}", all.made);
        }
    }
    println!("resend: {all:?}");
    assert_eq!(all.canceled, 0, "one that was told EINTR and has looked is told nothing else");
}

/// Code that makes the call again after EINTR, as std does, is told ECANCELED where the kernel would have restarted it; but not by a futex, since glibc aborts.
#[test]
fn one_interrupt_ends_a_loop_that_retries_eintr() {
    let _t = common::begin_with(Duration::from_secs(240));
    let mut random = Random::new();
    let mut all = Told::default();
    for make in [endless::read, endless::flock, endless::accept] {
        for kind in kinds(SHORT, rounds().div_ceil(100)).filter(|kind| !kind.behind) {
            all += run(Run { stubborn: true, ..kind }, make, random.next());
            assert_eq!(all.helped, 0, "interrupts that needed help, of {}", all.made);
        }
    }
    println!("retried: {all:?}");
    assert!(all.canceled >= all.made, "each is told ECANCELED in the end");
}

/// The naive twin: the same with one signal each.
#[test]
fn one_signal_alone_leaves_plain_calls_asleep() {
    let _t = common::begin_with(Duration::from_secs(120));
    let mut random = Random::new();
    for make in ALL {
        let mut all = Told::default();
        for kind in kinds(Asks::Once, 100).chain(kinds(Asks::Never, 100)) {
            all += run(kind, make, random.next());
        }
        let name = make().name;
        println!("once, {name}: {all:?}");
        assert!(all.helped > 0, "{name}: none of {} slept on: then the other proves nothing", all.made);
    }
}
