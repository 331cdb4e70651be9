//! A foreign signal does what it would have done without a scope: every kind of action behind, every way of sending, taken by the scoped thread
//! or by one that has no scope, alone or while one of ours is queued.
// Tests install handlers, fork and send signals by bare calls.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/witness.rs"]
mod witness;

use common::State;
use eintr::{Delivery, Reason, Remote, Scope, ScopeOptions};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use witness::{Run, Way, killed_by, well};

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
        assert_eq!(eintr::check().is_err(), self.in_flight && self.taker == Taker::Scoped || eintr_here(scope), "{self:?}");
    }
}

fn eintr_here(scope: &Scope) -> bool {
    scope.interrupted().is_some()
}

/// A plain read of an empty pipe is ended by the scope's remote.
fn a_read_is_ended(scope: &Scope) {
    let (empty, _writer) = common::pipe();
    let (remote, reader, done) = (scope.remote(), common::gettid(), AtomicBool::new(false));
    std::thread::scope(|threads| {
        threads.spawn(|| {
            common::set_mask(!0);
            common::wait_blocked_in(reader, libc::SYS_read);
            common::until(&done, || {
                remote.interrupt();
            });
        });
        let read = common::plain_read(&empty);
        done.store(true, SeqCst);
        assert_eq!(read, Err(libc::EINTR));
    });
    assert_eq!(scope.clear().map(|i| i.reason()), Some(Reason::Remote));
}

// The default action is done by the kernel itself: the parent is told the number of the signal, not an exit code nor SIGABRT, whoever sent it,
// whichever thread took it, and also when ours lies in the queue before it.
#[test]
fn a_fatal_default_kills_with_the_true_status() {
    let _t = common::begin();
    let sigs = [libc::SIGUSR1, libc::SIGTERM, libc::SIGQUIT, libc::SIGHUP, libc::SIGRTMIN() + 3, libc::SIGRTMAX()];
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
    for (sig, action) in by_default.into_iter().chain(explicitly) {
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
                        assert_eq!(common::action(sig).handler, libc::SIG_DFL, "it was to be used once: {scene:?} {kind:?}");
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

static DEPTH: AtomicI32 = AtomicI32::new(0);
static DEEPEST: AtomicI32 = AtomicI32::new(0);

extern "C" fn raising(sig: i32) {
    let depth = DEPTH.fetch_add(1, SeqCst) + 1;
    DEEPEST.fetch_max(depth, SeqCst);
    if depth < 5 {
        unsafe { libc::raise(sig) };
    }
    DEPTH.fetch_sub(1, SeqCst);
}

// With SA_NODEFER the number stays open while the handler runs, so one raised in it runs inside it; without, it runs afterwards. Ours come in
// between and are not run at all.
#[test]
fn nodefer_is_reentered_and_the_others_are_not() {
    let _t = common::begin();
    for sig in witness::numbers() {
        for (flags, deepest) in [(libc::SA_NODEFER, 5), (0, 1)] {
            well(witness::child(|| {
                common::install(sig, raising as *const () as usize, flags, &[]);
                let before = State::now();
                for scoped in [false, true] {
                    let scope = scoped.then(|| Scope::enter(sig).expect("enter"));
                    (DEPTH.store(if flags == 0 { 3 } else { 0 }, SeqCst), DEEPEST.store(0, SeqCst));
                    let start = DEPTH.load(SeqCst);
                    scope.iter().for_each(|s| assert_ne!(s.remote().interrupt(), Delivery::Gone));
                    unsafe { libc::raise(sig) };
                    // Without SA_NODEFER: started at 3, the first raises once more (4 < 5), which runs after it, again as the fourth.
                    let levels = DEEPEST.load(SeqCst) - start;
                    if flags == 0 {
                        // It goes on raising for ever at depth 4: stopped by the count of rounds below.
                        unreachable_if(levels != deepest, "not re-entered", levels);
                    } else {
                        unreachable_if(levels != deepest, "re-entered", levels);
                    }
                }
                assert_eq!(State::now(), before);
            }));
        }
    }
}

fn unreachable_if(wrong: bool, what: &str, levels: i32) {
    assert!(!wrong, "{what}: {levels} deep");
}
