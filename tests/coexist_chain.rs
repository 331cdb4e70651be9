//! A foreign signal does what it would have done without a scope: every kind of action behind, every way of sending, taken by the scoped thread
//! or by one that has no scope, alone or while one of ours is queued.
// Tests install handlers, fork and send signals by bare calls.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/witness.rs"]
mod witness;

use common::State;
use eintr::{Delivery, Reason, Remote, Scope, ScopeOptions};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::Duration;
use witness::{Jump, Run, Way, a_read_is_ended, killed_by, until_longjmp, well};

/// Which thread the foreign signal comes to; it is always the first one of its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taker {
    /// The scoped one, which is alone in its process.
    Scoped,
    /// One without a scope, beside the scoped one.
    Bystander,
}

/// One arrangement of a scope and a foreign signal.
#[derive(Clone, Copy, Debug)]
struct Scene {
    sig: i32,
    way: Way,
    taker: Taker,
    /// One of ours is queued for the scoped thread when the foreign one comes.
    in_flight: bool,
}

impl Scene {
    fn all(sigs: &[i32]) -> Vec<Scene> {
        let mut scenes = Vec::new();
        for sig in sigs {
            for way in Way::ALL {
                for taker in [Taker::Scoped, Taker::Bystander] {
                    for in_flight in [false, true] {
                        scenes.push(Scene { sig: *sig, way, taker, in_flight });
                    }
                }
            }
        }
        // The kernel merges a thread-directed standard signal into one of the same number that is queued already.
        scenes.retain(|s| !s.merges());
        scenes
    }

    fn merges(self) -> bool {
        self.in_flight && self.taker == Taker::Scoped && self.way.is_for_thread() && witness::is_standard(self.sig)
    }

    /// The number is blocked while the signals are queued, and opened when all are.
    fn is_blocked_meanwhile(self) -> bool {
        self.in_flight && self.taker == Taker::Scoped
    }

    /// Sends the foreign signal, `first` before it, and comes back when both were delivered. Returns the sender.
    #[inline(never)]
    fn provoke(self, first: impl FnOnce()) -> i32 {
        if self.is_blocked_meanwhile() {
            common::block(self.sig);
        }
        first();
        let sender = self.way.send(self.sig, 0x1234_5678);
        if self.is_blocked_meanwhile() {
            common::unblock(self.sig);
        }
        common::getpid(); // what is queued for this thread is delivered when a system call returns
        sender
    }

    /// The same while a scope lives, which must end as it should.
    fn provoke_scoped(self, options: ScopeOptions) -> i32 {
        match self.taker {
            Taker::Scoped => {
                let scope = options.enter().expect("enter");
                let sender = self.provoke(|| self.put_in_flight(&scope.remote()));
                self.judge(&scope);
                scope.leave().expect("the action was put back");
                sender
            }
            Taker::Bystander => self.beside(options),
        }
    }

    fn beside(self, options: ScopeOptions) -> i32 {
        let (tell, told) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        std::thread::scope(|threads| {
            let scoped = threads.spawn(move || {
                let scope = options.enter().expect("enter");
                if self.in_flight {
                    common::block(self.sig);
                }
                self.put_in_flight(&scope.remote());
                tell.send(()).expect("the test waits");
                let _ = ended.recv();
                if self.in_flight {
                    common::unblock(self.sig);
                }
                self.judge(&scope);
                scope.leave().expect("the action was put back");
            });
            told.recv().expect("the scope was entered");
            let sender = self.provoke(|| ());
            drop(end);
            scoped.join().expect("the scope ended well");
            sender
        })
    }

    fn put_in_flight(self, remote: &Remote) {
        if self.in_flight {
            assert_eq!(remote.interrupt(), Delivery::Sent, "{self:?}");
        }
    }

    /// The scope knows what was asked of it by its remote, and nothing else.
    fn judge(self, scope: &Scope) {
        let expected = self.in_flight.then_some(Reason::Remote);
        assert_eq!(scope.interrupted().map(|i| i.reason()), expected, "{self:?}");
        assert_eq!(eintr::check().is_err(), self.in_flight, "{self:?}");
    }
}

// The default action is done by the kernel itself: the parent is told the number of the signal, not an exit code nor SIGABRT, whoever sent it,
// whichever thread took it, and also when ours lies in the queue before it.
#[test]
fn a_fatal_default_kills_with_the_true_status() {
    let _t = common::begin();
    let sigs =
        [libc::SIGUSR1, libc::SIGTERM, libc::SIGQUIT, libc::SIGHUP, libc::SIGRTMIN() + 3, witness::last_number()];
    for scene in Scene::all(&sigs) {
        let status = witness::child(|| {
            common::install(scene.sig, libc::SIG_DFL, 0, &[]);
            scene.provoke_scoped(ScopeOptions::new(scene.sig));
        });
        println!("{scene:?}");
        killed_by(scene.sig, status);
    }
}

// As above, with the scope nested in another of the same number, and after a scope that has ended.
#[test]
fn a_fatal_default_kills_inside_nested_scopes_and_after_them() {
    let _t = common::begin();
    for sig in witness::numbers() {
        for live in [0, 1, 3] {
            let status = witness::child(|| {
                let mut scopes: Vec<Scope> = (0..3).map(|_| Scope::enter(sig).expect("enter")).collect();
                scopes.iter().for_each(|s| assert_ne!(s.remote().interrupt(), Delivery::Gone));
                scopes.truncate(live);
                Way::Kill.send(sig, 0);
            });
            killed_by(sig, status);
        }
    }
}

// SIG_IGN is 1, and the defaults of these numbers are to do nothing: neither may be called nor done.
#[test]
fn what_was_ignored_stays_without_effect() {
    let _t = common::begin();
    let by_default = [libc::SIGCHLD, libc::SIGURG, libc::SIGWINCH, libc::SIGCONT].map(|sig| (sig, libc::SIG_DFL));
    let explicitly = [libc::SIGUSR1, libc::SIGCHLD, libc::SIGHUP, libc::SIGRTMIN() + 3].map(|sig| (sig, libc::SIG_IGN));
    let rewritten =
        || common::skipped_if_emulated("interrupts by SIGCHLD", "the emulator makes a child's end of every siginfo");
    for (sig, action) in
        by_default.into_iter().chain(explicitly).filter(|(sig, _)| *sig != libc::SIGCHLD || !rewritten())
    {
        well(witness::child(|| {
            common::install(sig, action, 0, &[]);
            let before = State::now();
            for scene in Scene::all(&[sig]) {
                scene.provoke_scoped(ScopeOptions::new(sig).allow_ignored());
                assert_eq!(State::now(), before, "{scene:?}");
            }
            let scope = ScopeOptions::new(sig).allow_ignored().enter().expect("enter");
            for way in Way::ALL {
                way.send(sig, 0);
                assert!(scope.interrupted().is_none() && eintr::check().is_ok(), "{way:?}");
                a_read_is_ended(&scope);
            }
            drop(scope);
            assert_eq!(State::now(), before);
        }));
    }
}

/// A handler's flags and mask.
#[derive(Clone, Copy, Debug)]
struct Kind {
    siginfo: bool,
    flags: i32,
    mask: &'static [i32],
}

fn kinds() -> Vec<Kind> {
    let masks: [&'static [i32]; 2] = [&[], &[libc::SIGUSR2, libc::SIGTERM, 40]];
    let flags = [0, libc::SA_NODEFER, libc::SA_RESETHAND, libc::SA_ONSTACK, libc::SA_RESTART | libc::SA_NODEFER];
    let mut kinds = Vec::new();
    for siginfo in [false, true] {
        for flags in flags {
            for mask in masks {
                kinds.push(Kind { siginfo, flags, mask });
            }
        }
    }
    kinds
}

impl Kind {
    fn install(self, sig: i32) {
        let handler = if self.siginfo { witness::detailed_handler() } else { witness::plain_handler() };
        let siginfo = if self.siginfo { libc::SA_SIGINFO } else { 0 };
        common::install(sig, handler, self.flags | siginfo, self.mask);
    }

    /// The mask that the kernel sets while it runs, over `below`.
    fn mask_inside(self, sig: i32, below: u64) -> u64 {
        let itself = if self.flags & libc::SA_NODEFER != 0 { 0 } else { common::bit(sig) };
        below | itself | self.mask.iter().fold(0, |m, s| m | common::bit(*s))
    }
}

/// The one run that there was, with what differs between two sendings taken out.
fn the_run(scene: Scene, kind: Kind, sender: i32) -> Run {
    common::wait_until(|| witness::count() >= 1);
    let runs = witness::runs();
    assert_eq!(runs.len(), 1, "{scene:?} {kind:?}: {runs:?}");
    let mut run = runs[0];
    if kind.siginfo {
        assert_eq!(run.info.pid, sender, "{scene:?} {kind:?}");
        run.info.pid = 0;
    }
    if !scene.way.is_synchronous() && !scene.is_blocked_meanwhile() {
        run.pc = 0; // where the thread stood when it came
    }
    run.standing = 0;
    if common::emulated() {
        // It leaves on the stack what lay there, where a siginfo has nothing.
        let value = if run.info.code == libc::SI_QUEUE { run.info.value } else { 0 };
        run.info = witness::Info { pad: 0, rest: [0; 12], value, ..run.info };
    }
    if common::emulated() && scene.taker == Taker::Bystander {
        // It blocks all signals now and then, so the kernel picks another thread.
        (run.tid, run.stack) = (common::getpid(), [0; 3]);
    }
    run
}

// Each kind of handler is run once without and once with a scope, by the same sending; the two runs must be equal to the last byte of the siginfo,
// the mask inside and below, the instruction, the alternate stack. The mask is worked out besides, so that both cannot be wrong together.
#[test]
fn a_handler_gets_what_it_would_have_got_without_a_scope() {
    let _t = common::begin();
    for sig in witness::numbers() {
        for kind in kinds() {
            well(witness::child(|| {
                common::block(libc::SIGVTALRM); // something in the mask below
                for scene in Scene::all(&[sig]) {
                    kind.install(sig);
                    witness::forget();
                    let sender = scene.provoke(|| ());
                    let without = the_run(scene, kind, sender);

                    kind.install(sig);
                    let before = State::now();
                    witness::forget();
                    let sender = scene.provoke_scoped(ScopeOptions::new(sig));
                    let with = the_run(scene, kind, sender);

                    assert_eq!(with, without, "{scene:?} {kind:?}");
                    assert_eq!(with.mask, kind.mask_inside(sig, common::mask()), "{scene:?} {kind:?}");
                    if kind.siginfo {
                        assert_eq!(with.mask_below, common::mask(), "{scene:?} {kind:?}");
                        expect_siginfo(&with, scene);
                    }
                    if kind.flags & libc::SA_RESETHAND != 0 {
                        assert_eq!(
                            common::action(sig).handler,
                            libc::SIG_DFL,
                            "it was to be used once: {scene:?} {kind:?}"
                        );
                    } else {
                        assert_eq!(State::now(), before, "{scene:?} {kind:?}");
                    }
                }
            }));
        }
    }
}

fn expect_siginfo(run: &Run, scene: Scene) {
    let (code, value) = match scene.way {
        Way::Kill | Way::Killpg | Way::KillFromOutside => (libc::SI_USER, 0),
        Way::Raise | Way::PthreadKill | Way::TgkillFromOutside => (libc::SI_TKILL, 0),
        Way::Sigqueue | Way::SigqueueFromOutside => (libc::SI_QUEUE, 0x1234_5678),
    };
    let uid = unsafe { libc::getuid() };
    let told = (run.sig, run.info.signo, run.info.code, run.info.value, run.info.uid);
    assert_eq!(told, (scene.sig, scene.sig, code, value, uid), "{scene:?}");
    assert_eq!(run.tid, common::gettid(), "{scene:?}");
}

static DEPTH: AtomicUsize = AtomicUsize::new(0);
static DEEPEST: AtomicUsize = AtomicUsize::new(0);
static RUNS: AtomicUsize = AtomicUsize::new(0);
const RAISES: usize = 4;

extern "C" fn raising(sig: i32) {
    DEEPEST.fetch_max(DEPTH.fetch_add(1, SeqCst) + 1, SeqCst);
    if RUNS.fetch_add(1, SeqCst) < RAISES {
        unsafe { libc::raise(sig) };
    }
    DEPTH.fetch_sub(1, SeqCst);
}

// With SA_NODEFER the number stays open while the handler runs, so one raised in it runs inside it; without, it runs afterwards.
#[test]
fn a_nodefer_handler_is_reentered_and_no_other_is() {
    let _t = common::begin();
    for sig in witness::numbers() {
        for (flags, deepest) in [(libc::SA_NODEFER, RAISES + 1), (0, 1)] {
            well(witness::child(|| {
                common::install(sig, raising as *const () as usize, flags, &[]);
                let before = State::now();
                for scoped in [false, true] {
                    let scope = scoped.then(|| Scope::enter(sig).expect("enter"));
                    DEEPEST.store(0, SeqCst);
                    RUNS.store(0, SeqCst);
                    unsafe { libc::raise(sig) };
                    assert_eq!(RUNS.load(SeqCst), RAISES + 1, "scoped: {scoped}, {flags:#x}");
                    assert_eq!(DEEPEST.load(SeqCst), deepest, "scoped: {scoped}, {flags:#x}");
                    // The scope is as good as before.
                    scope.iter().for_each(a_read_is_ended);
                    assert_eq!(RUNS.load(SeqCst), RAISES + 1, "one of ours ran it");
                }
                assert_eq!(State::now(), before);
            }));
        }
    }
}

// SA_RESETHAND: the first one runs it, the second meets the default; ours in between and afterwards count for nothing.
#[test]
fn a_resethand_handler_runs_once_and_the_next_one_kills() {
    let _t = common::begin();
    for sig in witness::numbers() {
        for way in Way::ALL {
            let shared = witness::shared();
            let status = witness::child(|| {
                common::install(sig, witness::detailed_handler(), libc::SA_SIGINFO | libc::SA_RESETHAND, &[]);
                let scope = Scope::enter(sig).expect("enter");
                a_read_is_ended(&scope);
                assert_eq!(witness::count(), 0, "one of ours ran it");
                way.send(sig, 0);
                common::wait_until(|| witness::count() == 1);
                a_read_is_ended(&scope);
                shared.count[0].store(witness::count() as u64, SeqCst);
                way.send(sig, 0);
                shared.count[1].store(1, SeqCst);
            });
            killed_by(sig, status);
            assert_eq!((shared.count[0].load(SeqCst), shared.count[1].load(SeqCst)), (1, 0), "{way:?}");
        }
    }
}

/// Lets `all` threads go on together. It spins, so that they run at the same instant; it yields now and then, so that they get to run at all.
struct Meeting {
    all: usize,
    arrived: AtomicUsize,
}

impl Meeting {
    fn meet(&self) {
        let mine = self.arrived.fetch_add(1, SeqCst);
        let enough = (mine / self.all + 1) * self.all;
        let mut looks = 0u32;
        while self.arrived.load(SeqCst) < enough {
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(1 << 14) {
                std::thread::yield_now();
            }
            std::hint::spin_loop();
        }
    }
}

// The kernel takes the handler out and starts it in one step; so two threads that get a signal each at the same time run it once. The naive look
// ("not consumed yet? run it") lets both run it: look, look, run, run. One of them is late by a little more each round, so that all their steps come
// together in some. The number is one whose default is to do nothing, so that the loser lives.
#[test]
fn a_resethand_handler_has_one_winner() {
    let _t = common::begin_with(Duration::from_secs(300));
    let rounds = common::rounds("EINTR_RESETHAND_ROUNDS", 8000);
    well(witness::child(|| {
        unsafe { libc::alarm(300) };
        let sig = libc::SIGURG;
        let mut wrong = Vec::<(u64, usize, usize)>::new();
        let meeting = Meeting { all: 2, arrived: AtomicUsize::new(0) };
        let enter = || ScopeOptions::new(sig).allow_ignored().enter().expect("enter");
        std::thread::scope(|threads| {
            threads.spawn(|| {
                common::set_mask(!common::bit(sig));
                for round in 0..rounds {
                    meeting.meet();
                    let scope = enter();
                    meeting.meet();
                    for _ in 0..round % 256 {
                        std::hint::spin_loop();
                    }
                    unsafe { libc::raise(sig) };
                    meeting.meet();
                    drop(scope);
                    meeting.meet();
                }
            });
            for round in 0..rounds {
                common::install(sig, witness::plain_handler(), libc::SA_RESETHAND, &[]);
                witness::forget();
                meeting.meet();
                let scope = enter();
                meeting.meet();
                for _ in 0..128 {
                    std::hint::spin_loop();
                }
                unsafe { libc::raise(sig) };
                meeting.meet();
                drop(scope);
                meeting.meet();
                let put_back = common::action(sig).handler; // the default, once it has run
                if (witness::runs().len(), put_back) != (1, libc::SIG_DFL) {
                    wrong.push((round, witness::runs().len(), put_back));
                }
            }
        });
        assert!(wrong.is_empty(), "round, runs, action put back: {wrong:x?}");
    }));
}

static FD: AtomicI32 = AtomicI32::new(-1);
static SIG: AtomicI32 = AtomicI32::new(0);

extern "C" fn raise_and_wait() {
    unsafe { libc::raise(SIG.load(SeqCst)) };
    read_for_ever();
}

extern "C" fn read_for_ever() {
    let mut byte = 0u8;
    loop {
        unsafe { libc::read(FD.load(SeqCst), (&raw mut byte).cast(), 1) };
    }
}

// A shell's ^C handler leaves by siglongjmp, so nothing of ours may stand behind the call of the action behind: no mask, no count, no lock. After
// each of many jumps, out of a synchronous call and out of a blocked one, the scope works, and in the end everything is as before.
#[test]
fn a_handler_may_leave_by_siglongjmp() {
    let _t = common::begin();
    for sig in witness::numbers() {
        for flags in [0, libc::SA_NODEFER, libc::SA_ONSTACK] {
            well(witness::child(|| {
                let (empty, _writer) = common::pipe();
                FD.store(std::os::fd::AsRawFd::as_raw_fd(&empty), SeqCst);
                SIG.store(sig, SeqCst);
                let mut jump = Jump::new();
                common::install(sig, witness::jumping as *const () as usize, flags, &[libc::SIGUSR2]);
                let (before, mask) = (State::now(), common::mask());
                let outer = Scope::enter(sig).expect("enter");
                for round in 1..=20 {
                    let inner = (round % 2 == 0).then(|| Scope::enter(sig).expect("enter"));
                    assert!(!until_longjmp(&mut jump, raise_and_wait), "it came back without a jump");
                    assert_eq!(witness::jumps(), 2 * round - 1);
                    assert_eq!(common::mask(), mask, "siglongjmp puts back the mask of sigsetjmp");
                    a_read_is_ended(&outer);
                    inner.iter().for_each(a_read_is_ended);

                    let reader = common::gettid();
                    let sender = common::unsignalled(move || {
                        common::wait_blocked_in(reader, libc::SYS_read);
                        witness::to_thread(reader, sig);
                    });
                    assert!(!until_longjmp(&mut jump, read_for_ever), "it came back without a jump");
                    sender.join().expect("it sends and ends");
                    assert_eq!(witness::jumps(), 2 * round);
                    a_read_is_ended(&outer);
                    assert_eq!(witness::jumps(), 2 * round, "one of ours ran it");
                }
                drop(outer);
                assert_eq!(State::now(), before);
            }));
        }
    }
}

static LOWEST: AtomicUsize = AtomicUsize::new(0);

/// Needs 64 KiB of stack, and writes to each page of it.
#[inline(never)]
extern "C" fn hungry(sig: i32) {
    let mut room = [0u8; 64 * 1024];
    for byte in room.iter_mut().step_by(1024) {
        unsafe { std::ptr::from_mut(byte).write_volatile(1) };
    }
    LOWEST.store(std::hint::black_box(&room).as_ptr() as usize, SeqCst);
    witness::plain(sig);
}

// std gives each of its threads an alternate stack of a few KiB. A handler that did not ask for it (no SA_ONSTACK) runs on the thread's own
// stack, where it has room; if ours asks for it on its behalf, it runs into the guard page. One that did ask for it must get it.
#[test]
fn a_handler_runs_on_the_stack_that_it_asked_for() {
    let _t = common::begin();
    let (sig, rt) = (libc::SIGUSR1, libc::SIGRTMIN() + 3);
    well(witness::child(|| {
        let on_thread = |sig: i32| {
            std::thread::spawn(move || {
                let mut stack: libc::stack_t = unsafe { std::mem::zeroed() };
                assert_eq!(unsafe { libc::sigaltstack(std::ptr::null(), &mut stack) }, 0);
                assert!(
                    stack.ss_flags & libc::SS_DISABLE == 0,
                    "std gives its threads an alternate stack, or this proves nothing"
                );
                assert!(stack.ss_size < 64 * 1024, "it is too large for this test: {}", stack.ss_size);
                let local = 0u8;
                for way in [Way::Raise, Way::PthreadKill] {
                    way.send(sig, 0);
                }
                common::wait_until(|| witness::count() == 2);
                (&raw const local as usize, [stack.ss_sp as u64, stack.ss_size as u64])
            })
            .join()
            .expect("it lived")
        };
        for sig in [sig, rt] {
            common::install(sig, hungry as *const () as usize, 0, &[]);
            for scoped in [false, true] {
                let scope = scoped.then(|| Scope::enter(sig).expect("enter"));
                witness::forget();
                let (local, _) = on_thread(sig);
                assert!(witness::runs().iter().all(|run| !run.on_alternate), "scoped: {scoped}");
                let lowest = LOWEST.load(SeqCst);
                assert!(
                    lowest < local && local - lowest < 512 * 1024,
                    "on the thread's own stack: {lowest:#x}, {local:#x}"
                );
                drop(scope);
            }
            common::install(sig, witness::detailed_handler(), libc::SA_ONSTACK | libc::SA_SIGINFO, &[]);
            for scoped in [false, true] {
                let scope = scoped.then(|| Scope::enter(sig).expect("enter"));
                witness::forget();
                let (_, stack) = on_thread(sig);
                assert!(witness::runs().iter().all(|run| run.on_alternate), "scoped: {scoped}");
                let given = witness::runs()[0].stack;
                assert_eq!(given[..2], stack, "uc_stack tells the thread's own");
                drop(scope);
            }
        }
    }));
}

// Over the two that are no handler the alternate stack is the safe choice: a thread of Go or of a coroutine library may have no room on its own.
#[test]
fn without_a_handler_behind_ours_runs_on_the_alternate_stack() {
    let _t = common::begin();
    well(witness::child(|| {
        let flag = |sig: i32| common::action(sig).flags & libc::SA_ONSTACK as u64 != 0;
        let scope = Scope::enter(libc::SIGUSR1).expect("enter");
        assert!(flag(libc::SIGUSR1));
        common::install(libc::SIGUSR2, libc::SIG_IGN, 0, &[]);
        let other = ScopeOptions::new(libc::SIGUSR2).allow_ignored().enter().expect("enter");
        assert!(flag(libc::SIGUSR2));
        drop((scope, other));
        for (flags, asked) in [(0, false), (libc::SA_ONSTACK, true)] {
            common::install(libc::SIGUSR1, witness::plain_handler(), flags, &[]);
            let scope = Scope::enter(libc::SIGUSR1).expect("enter");
            assert_eq!(flag(libc::SIGUSR1), asked);
            drop(scope);
        }
    }));
}

/// Lets a system call fail, as handlers do, but keeps errno, as handlers should.
extern "C" fn careful(sig: i32) {
    let errno = unsafe { *libc::__errno_location() };
    unsafe { libc::close(-1) };
    witness::plain(sig);
    unsafe { *libc::__errno_location() = errno };
}

// errno of the interrupted code is the same after ours, after a chained one, after one that is handed back or held, and under every policy.
#[test]
fn errno_is_kept() {
    let _t = common::begin();
    const ERRNO: i32 = libc::EXDEV;
    use eintr::Foreign::{Chain, Ignore, Interrupt, InterruptAndChain, InterruptOnce};
    for sig in witness::numbers() {
        for policy in [Chain, Ignore, Interrupt, InterruptAndChain, InterruptOnce] {
            for blocked in [false, true] {
                well(witness::child(|| {
                    common::install(sig, careful as *const () as usize, 0, &[]);
                    if blocked {
                        common::block(sig);
                    }
                    let scope = ScopeOptions::new(sig).foreign(policy).enter().expect("enter");
                    let remote = scope.remote();
                    let pid = common::getpid();
                    let send: [&dyn Fn(); 4] = [
                        &|| unsafe {
                            libc::kill(pid, sig);
                        },
                        &|| unsafe {
                            libc::raise(sig);
                        },
                        &|| unsafe {
                            libc::syscall(libc::SYS_tgkill, pid, pid, sig);
                        },
                        &|| {
                            remote.interrupt();
                        },
                    ];
                    for (n, send) in send.iter().enumerate() {
                        unsafe { *libc::__errno_location() = ERRNO };
                        send();
                        assert_eq!(
                            unsafe { *libc::__errno_location() },
                            ERRNO,
                            "sending {n}, {policy:?}, blocked: {blocked}"
                        );
                        scope.clear();
                    }
                    drop(scope);
                }));
            }
        }
    }
}

extern "C" fn changing(_: i32, _: *mut libc::siginfo_t, context: *mut std::ffi::c_void) {
    let context = context.cast();
    unsafe {
        *witness::mask_of(context) |= common::bit(libc::SIGUSR2);
        *witness::result_of(context) = -libc::EXDEV as i64 as u64;
    }
}

// The handler is given the kernel's own context: what it changes there takes effect when it returns (runtimes do so: a garbage collector's
// handler that steps over an instruction, a handler that blocks a number for good).
#[test]
fn a_handler_may_change_the_context() {
    let _t = common::begin();
    for sig in witness::numbers() {
        well(witness::child(|| {
            common::install(sig, changing as *const () as usize, libc::SA_SIGINFO, &[]);
            for scoped in [false, true] {
                let scope = scoped.then(|| Scope::enter(sig).expect("enter"));
                // The result of the very call that sent the signal, which came while it returned.
                let sent = unsafe { libc::kill(common::getpid(), sig) };
                let errno = std::io::Error::last_os_error().raw_os_error();
                assert_eq!((sent, errno), (-1, Some(libc::EXDEV)), "scoped: {scoped}");
                assert_ne!(common::unblock(libc::SIGUSR2) & common::bit(libc::SIGUSR2), 0, "scoped: {scoped}");
                drop(scope);
            }
        }));
    }
}

// Real-time signals of one number never merge, and arrive in the order of their sending. With interrupts coming thick beside them, and scopes that
// come and go, every value arrives, once, in order.
#[test]
fn queued_values_arrive_in_order_while_interrupts_fly() {
    let _t = common::begin();
    const VALUES: usize = 3000;
    static INTERRUPTS: AtomicUsize = AtomicUsize::new(0);
    let sig = libc::SIGRTMIN() + 3;
    let shared = witness::shared();
    let receiver = witness::spawn_child(|| {
        common::install(sig, witness::detailed_handler(), libc::SA_SIGINFO, &[]);
        let before = State::now();
        let (remotes, scopes) = mpsc::channel::<Remote>();
        let interrupter = common::unsignalled(move || {
            while let Ok(remote) = scopes.recv() {
                while remote.interrupt() != Delivery::Gone {
                    INTERRUPTS.fetch_add(1, SeqCst);
                }
            }
        });
        shared.count[0].store(1, SeqCst);
        // On a busy machine the interrupter may not have run at all by then.
        while witness::count() < VALUES || INTERRUPTS.load(SeqCst) == 0 {
            let scope = Scope::enter(sig).expect("enter");
            remotes.send(scope.remote()).expect("it lives");
            for _ in 0..50 {
                common::getpid();
                let _ = eintr::check();
                scope.clear();
            }
        }
        drop(remotes);
        interrupter.join().expect("it ends");
        let values: Vec<u64> = witness::runs().iter().map(|run| run.info.value).collect();
        assert_eq!(values, (0..VALUES as u64).collect::<Vec<_>>());
        assert_eq!(State::now(), before);
    });
    common::wait_until(|| shared.count[0].load(SeqCst) == 1);
    for value in 0..VALUES {
        while witness::queue(receiver, sig, value) != 0 {
            assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EAGAIN));
            std::thread::yield_now();
        }
    }
    well(common::reap(receiver));
}
