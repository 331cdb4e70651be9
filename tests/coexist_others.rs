//! Other dispatchers of signals in the process: signal-hook and ctrlc registered before, during and after a scope, and handlers that keep ours as
//! their previous one. Their actions do not run for our signals, run once for everybody else's, and outlive us.
// Tests install handlers, fork and send signals by bare calls.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/witness.rs"]
mod witness;

use common::State;
use eintr::{Delivery, Error, Reason, Scope, ScopeOptions};
use nix::errno::Errno;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::SeqCst};
use witness::{Jump, Way, a_read_is_ended, until_longjmp, well};

static ACTIONS: AtomicUsize = AtomicUsize::new(0);

/// What stands behind everything: a counting handler, the default, SIG_IGN.
fn behind() -> [usize; 3] {
    [witness::plain_handler(), libc::SIG_DFL, libc::SIG_IGN]
}

fn enter(sig: i32) -> Scope {
    ScopeOptions::new(sig).allow_ignored().enter().expect("enter")
}

/// An interrupt is refused because a stranger's handler stands where ours did; it is pending all the same, and nothing was sent.
#[track_caller]
fn is_displaced(scope: &Scope) {
    let actions = ACTIONS.load(SeqCst);
    for _ in 0..10 {
        assert_eq!(scope.remote().interrupt(), Delivery::Displaced);
    }
    assert_eq!(State::now().pending, 0);
    assert_eq!(ACTIONS.load(SeqCst), actions, "an action of theirs ran for ours");
    assert_eq!(eintr::check().map_err(|i| i.reason()), Err(Reason::Remote));
    let call = eintr::retry(|| -> Result<(), Errno> { unreachable!("an interrupt is pending") });
    assert!(matches!(call, Err(Error::Interrupted(_))));
    assert_eq!(scope.clear().map(|i| i.reason()), Some(Reason::Remote));
}

/// One foreign signal runs their action once, and the handler behind once, if that is one.
#[track_caller]
fn runs_once(sig: i32, actions: usize, handlers: usize) {
    let before = (ACTIONS.load(SeqCst), witness::count());
    // One to the process, one to the thread; the second thread has no scope.
    for way in [Way::Kill, Way::Raise] {
        way.send(sig, 0);
    }
    std::thread::spawn(move || Way::Raise.send(sig, 0)).join().expect("it lives");
    let ran = (ACTIONS.load(SeqCst) - before.0, witness::count() - before.1);
    assert_eq!(ran, (3 * actions, 3 * handlers), "actions of theirs, runs of the handler behind");
}

mod hook {
    use super::*;

    /// Registers an action that counts.
    pub(super) fn register(sig: i32) -> signal_hook::SigId {
        let count = || {
            ACTIONS.fetch_add(1, SeqCst);
        };
        unsafe { signal_hook::low_level::register(sig, count) }.expect("signal-hook registers")
    }

    pub(super) fn unregister(id: signal_hook::SigId) {
        assert!(signal_hook::low_level::unregister(id));
    }
}

// Registered before: their action runs for foreign signals as if there were no scope, not at all for ours, and is back in its place afterwards.
#[test]
fn signal_hook_registered_before_a_scope_is_chained() {
    let _t = common::begin();
    for sig in witness::numbers() {
        for handler in behind() {
            let h = usize::from(handler == witness::plain_handler());
            well(witness::child(|| {
                common::install(sig, handler, 0, &[]);
                let id = hook::register(sig);
                runs_once(sig, 1, h);
                let before = State::now();
                for _ in 0..3 {
                    let scope = Scope::enter(sig).expect("signal-hook's handler is none to be ignored");
                    runs_once(sig, 1, h);
                    a_read_is_ended(&scope);
                    runs_once(sig, 1, h);
                    scope.leave().expect("the action was put back");
                    runs_once(sig, 1, h);
                }
                assert_eq!(State::now(), before);
                assert_eq!(ACTIONS.load(SeqCst), 30, "it ran for ours");
                hook::unregister(id);
                runs_once(sig, 0, h);
            }));
        }
    }
}

// Registered during: it stands where ours did, with ours as its previous handler. Nothing of ours is sent into it; a foreign signal comes to it, and
// by way of ours to what stood behind. Over the default nothing more happens, as without us: signal-hook has replaced the default, and a
// dispatcher cannot call SIG_DFL.
#[test]
fn signal_hook_registered_during_a_scope_displaces_it() {
    let _t = common::begin();
    for sig in witness::numbers() {
        for handler in behind() {
            let h = usize::from(handler == witness::plain_handler());
            println!("signal {sig}, behind {handler:#x}");
            well(witness::child(|| {
                common::install(sig, handler, 0, &[]);
                let scope = enter(sig);
                a_read_is_ended(&scope);
                let id = hook::register(sig);
                let theirs = common::action(sig);
                is_displaced(&scope);
                runs_once(sig, 1, h);
                is_displaced(&scope);
                assert_eq!(scope.leave().map_err(|e| e.signal.as_raw()), Err(sig));
                assert_eq!(common::action(sig), theirs, "theirs was left");
                runs_once(sig, 1, h);

                // The next scope stands in front of it, as of any handler; now the two point at each other.
                let scope = enter(sig);
                runs_once(sig, 1, h);
                let actions = ACTIONS.load(SeqCst);
                a_read_is_ended(&scope);
                assert_eq!(ACTIONS.load(SeqCst), actions, "it ran for ours");
                runs_once(sig, 1, h);
                scope.leave().expect("the action was put back");
                assert_eq!(common::action(sig), theirs);
                runs_once(sig, 1, h);
                hook::unregister(id);
                runs_once(sig, 0, h);
            }));
        }
    }
}

#[test]
fn signal_hook_registered_after_a_scope_knows_nothing_of_it() {
    let _t = common::begin();
    for sig in witness::numbers() {
        for handler in behind() {
            let h = usize::from(handler == witness::plain_handler());
            well(witness::child(|| {
                common::install(sig, handler, 0, &[]);
                let scope = enter(sig);
                a_read_is_ended(&scope);
                scope.leave().expect("the action was put back");
                let id = hook::register(sig);
                runs_once(sig, 1, h);
                hook::unregister(id);
                runs_once(sig, 0, h);
            }));
        }
    }
}

// signal-hook never takes its own OS handler out: after `unregister` it stands there without an action. Whether a scope is entered, left or alive
// around that, a foreign signal does what it does without us: run what stood behind it, or nothing.
#[test]
fn signal_hook_unregistered_in_any_order_leaves_its_handler() {
    let _t = common::begin();
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Enter,
        Leave,
        Register,
        Unregister,
    }
    use Step::{Enter, Leave, Register, Unregister};
    let orders: [&[Step]; 9] = [
        &[Register, Unregister], // without us
        &[Register, Enter, Unregister, Leave],
        &[Register, Enter, Leave, Unregister],
        &[Register, Unregister, Enter, Leave],
        &[Enter, Register, Unregister, Leave],
        &[Enter, Register, Leave, Unregister],
        &[Enter, Register, Leave, Enter, Unregister, Leave],
        &[Enter, Register, Unregister, Leave, Register, Enter, Unregister, Leave],
        &[Enter, Register, Enter, Leave, Unregister, Leave, Enter, Register, Leave],
    ];
    let mut wrong = Vec::new();
    for sig in witness::numbers() {
        for handler in behind() {
            let h = usize::from(handler == witness::plain_handler());
            for order in orders {
                let status = witness::child(|| {
                    common::install(sig, handler, 0, &[]);
                    let (mut scopes, mut ids, mut registered) = (Vec::new(), Vec::new(), false);
                    for step in order {
                        match step {
                            Enter => scopes.push(enter(sig)),
                            Leave => drop(scopes.pop()),
                            Register => ids.push(hook::register(sig)),
                            Unregister => ids.pop().into_iter().for_each(hook::unregister),
                        }
                        registered |= matches!(step, Register);
                        // Before that the default would kill, as it should.
                        if registered || handler != libc::SIG_DFL {
                            runs_once(sig, ids.len(), h);
                        }
                    }
                    let standing = common::action(sig).handler;
                    assert!(
                        ![handler, libc::SIG_DFL, libc::SIG_IGN].contains(&standing),
                        "signal-hook's handler is gone"
                    );
                    assert!(scopes.is_empty());
                    a_read_is_ended(&enter(sig));
                });
                if status != 0 {
                    wrong.push(format!("signal {sig}, behind {handler:#x}, {order:?}: {}", witness::tell(status)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

// ctrlc installs itself once in the life of a process and chains nobody. Its closure runs on a thread of its own, once for each ^C.
#[test]
fn ctrlc_works_before_during_and_after_a_scope() {
    let _t = common::begin();
    const SIG: i32 = libc::SIGINT;
    fn set() {
        ctrlc::set_handler(|| {
            ACTIONS.fetch_add(1, SeqCst);
        })
        .expect("ctrlc takes SIGINT");
    }
    /// One foreign signal, one run of the closure; a run that ours had caused before would show as one too many.
    fn closure_runs(n: usize) {
        Way::Kill.send(SIG, 0);
        common::wait_until(|| ACTIONS.load(SeqCst) >= n);
        assert_eq!(ACTIONS.load(SeqCst), n);
    }
    well(witness::child(|| {
        common::install(SIG, libc::SIG_DFL, 0, &[]);
        set();
        let before = State::now();
        let scope = Scope::enter(SIG).expect("enter");
        closure_runs(1);
        (0..10).for_each(|_| a_read_is_ended(&scope));
        closure_runs(2);
        scope.leave().expect("the action was put back");
        closure_runs(3);
        assert_eq!(State::now(), before);
    }));
    well(witness::child(|| {
        common::install(SIG, libc::SIG_DFL, 0, &[]);
        let scope = Scope::enter(SIG).expect("enter");
        a_read_is_ended(&scope);
        set();
        let theirs = common::action(SIG);
        is_displaced(&scope);
        closure_runs(1);
        is_displaced(&scope);
        closure_runs(2);
        assert_eq!(scope.leave().map_err(|e| e.signal.as_raw()), Err(SIG));
        assert_eq!(common::action(SIG), theirs, "theirs was left");
        closure_runs(3);
        let scope = Scope::enter(SIG).expect("enter");
        (0..10).for_each(|_| a_read_is_ended(&scope));
        closure_runs(4);
        scope.leave().expect("the action was put back");
        assert_eq!(common::action(SIG), theirs);
        closure_runs(5);
    }));
    well(witness::child(|| {
        common::install(SIG, libc::SIG_DFL, 0, &[]);
        let scope = Scope::enter(SIG).expect("enter");
        a_read_is_ended(&scope);
        drop(scope);
        set();
        closure_runs(1);
    }));
}

/// How a dispatcher hands a signal on to the handler that it found when it was installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
enum Forward {
    /// With what the kernel gave it.
    Faithful,
    /// With copies of siginfo and context in a place of its own.
    Copied,
    /// `old.sa_handler(sig)`, whatever flags that had.
    Bare,
    /// With null pointers for siginfo and context.
    Nulls,
    /// With addresses that cannot be read.
    Wild,
    /// With a siginfo and a context that it made itself, all zeroes.
    Zeroes,
}

const FORWARDS: [Forward; 6] =
    [Forward::Faithful, Forward::Copied, Forward::Bare, Forward::Nulls, Forward::Wild, Forward::Zeroes];

static OLD: AtomicUsize = AtomicUsize::new(0);
static FORWARD: AtomicUsize = AtomicUsize::new(0);
static DEPTH: AtomicUsize = AtomicUsize::new(0);

type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

extern "C" fn dispatcher(sig: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    ACTIONS.fetch_add(1, SeqCst);
    if DEPTH.fetch_add(1, SeqCst) > 20 {
        let text = b"the two handlers call each other for ever\n";
        unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
        unsafe { libc::_exit(99) };
    }
    let old = OLD.load(SeqCst);
    if ![libc::SIG_DFL, libc::SIG_IGN].contains(&old) {
        let bare = unsafe { std::mem::transmute::<usize, extern "C" fn(c_int)>(old) };
        let handler = unsafe { std::mem::transmute::<usize, Handler>(old) };
        match FORWARDS[FORWARD.load(SeqCst)] {
            Forward::Faithful => handler(sig, info, context),
            Forward::Copied => {
                // The siginfo's room is larger than the type says in no kernel; the context's first part is what libc knows of it.
                let mut info = unsafe { info.read() };
                let mut context = unsafe { context.cast::<libc::ucontext_t>().read() };
                handler(sig, &mut info, (&raw mut context).cast());
            }
            Forward::Bare => bare(sig),
            Forward::Nulls => handler(sig, std::ptr::null_mut(), std::ptr::null_mut()),
            Forward::Wild => {
                handler(sig, std::ptr::without_provenance_mut(8), std::ptr::without_provenance_mut(!0 << 4))
            }
            Forward::Zeroes => {
                let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
                let mut context: libc::ucontext_t = unsafe { std::mem::zeroed() };
                handler(sig, &mut info, (&raw mut context).cast());
            }
        }
    }
    DEPTH.fetch_sub(1, SeqCst);
}

/// Installs the dispatcher, which keeps what it finds as its previous handler, unless it finds itself.
fn capture(sig: i32) {
    let found = common::install(sig, dispatcher as *const () as usize, libc::SA_SIGINFO, &[]);
    if found.handler != dispatcher as *const () as usize {
        OLD.store(found.handler, SeqCst);
    }
}

/// Runs a claim for each kind of forwarding and each thing behind; the last argument is how often the handler behind is to run for one signal.
fn however_forwarded(claim: impl Fn(i32, usize)) {
    let mut wrong = Vec::new();
    for sig in witness::numbers() {
        for handler in behind() {
            for forward in FORWARDS {
                let status = witness::child(|| {
                    FORWARD.store(forward as usize, SeqCst);
                    common::install(sig, handler, 0, &[]);
                    claim(sig, usize::from(handler == witness::plain_handler()));
                });
                if status != 0 {
                    wrong.push(format!("signal {sig}, behind {handler:#x}, {forward:?}: {}", witness::tell(status)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

// The dispatcher keeps our handler, then a new scope puts ours in front of the dispatcher: each has the other as its previous handler. One foreign
// signal runs each handler once. [stack overflow]
#[test]
fn two_dispatchers_that_point_at_each_other_run_each_handler_once() {
    let _t = common::begin();
    however_forwarded(|sig, h| {
        let scope = enter(sig);
        capture(sig);
        is_displaced(&scope);
        runs_once(sig, 1, h);
        assert!(scope.leave().is_err());
        for _ in 0..3 {
            let scope = enter(sig);
            runs_once(sig, 1, h);
            let actions = ACTIONS.load(SeqCst);
            a_read_is_ended(&scope);
            assert_eq!(ACTIONS.load(SeqCst), actions, "it ran for ours");
            // And once more, with the scope alive: the dispatcher stands in front.
            capture(sig);
            is_displaced(&scope);
            runs_once(sig, 1, h);
            let nested = enter(sig);
            is_displaced(&nested);
            runs_once(sig, 1, h);
            assert!(nested.leave().is_ok(), "the number is still in use");
            assert!(scope.leave().is_err());
            runs_once(sig, 1, h);
        }
    });
}

// With all scopes ended, the handler that the dispatcher has kept is ours, and is called for years to come.
#[test]
fn our_handler_called_after_all_scopes_runs_what_stood_behind() {
    let _t = common::begin();
    however_forwarded(|sig, h| {
        let scope = enter(sig);
        capture(sig);
        drop(scope);
        for _ in 0..10 {
            runs_once(sig, 1, h);
        }
    });
}

// The dispatcher was there first: it is the first action that ever stood behind ours, so "the original" is the dispatcher itself.
#[test]
fn a_dispatcher_that_was_there_first_runs_once() {
    if common::skipped_if_emulated(
        "a dispatcher that stood behind the first scope",
        "forwards are found by process_vm_readv, which the emulator lacks",
    ) {
        return;
    }
    let _t = common::begin();
    however_forwarded(|sig, h| {
        capture(sig);
        runs_once(sig, 1, h);
        let old = OLD.load(SeqCst);
        let scope = enter(sig);
        runs_once(sig, 1, h);
        scope.leave().expect("the action was put back");
        runs_once(sig, 1, h);

        let scope = enter(sig);
        capture(sig); // now it has lost what it had before, as any that does so twice
        runs_once(sig, 1, 0);
        assert!(scope.leave().is_err());
        runs_once(sig, 1, 0);
        let scope = enter(sig);
        runs_once(sig, 1, 0);
        a_read_is_ended(&scope);
        scope.leave().expect("the action was put back");
        OLD.store(old, SeqCst);
        runs_once(sig, 1, h);
    });
}

static SIG: AtomicI32 = AtomicI32::new(0);

extern "C" fn raise() {
    unsafe { libc::raise(SIG.load(SeqCst)) };
}

/// Calls `f` so much deeper on the stack.
#[inline(never)]
fn deeper(levels: u64, f: &mut dyn FnMut()) {
    let room = [0u8; 2048];
    std::hint::black_box(&room);
    if levels == 0 {
        f()
    } else {
        deeper(levels - 1, f)
    }
    std::hint::black_box(&room);
}

// The handler at the end of the chain leaves by siglongjmp, so neither ours nor the dispatcher comes to its end. Whatever keeps two handlers from
// calling each other for ever must not take a forward that was left so for one that is under way, at whatever depth of the stack the next signal comes.
#[test]
fn a_handler_behind_a_dispatcher_may_leave_by_siglongjmp() {
    let _t = common::begin();
    for sig in witness::numbers() {
        for forward in FORWARDS {
            well(witness::child(|| {
                FORWARD.store(forward as usize, SeqCst);
                SIG.store(sig, SeqCst);
                common::install(sig, witness::jumping as *const () as usize, 0, &[]);
                let mut jump = Jump::new();
                let mut leaves = |rounds: u64| {
                    for depth in (0..rounds).map(|n| n * 7 % 5) {
                        let before = (witness::jumps(), ACTIONS.load(SeqCst));
                        deeper(depth, &mut || assert!(!until_longjmp(&mut jump, raise), "no jump: {forward:?}"));
                        assert_eq!(
                            (witness::jumps(), ACTIONS.load(SeqCst)),
                            (before.0 + 1, before.1 + 1),
                            "{forward:?}"
                        );
                        DEPTH.store(0, SeqCst);
                    }
                };
                let before = common::mask();
                let scope = enter(sig);
                capture(sig);
                leaves(20);
                is_displaced(&scope);
                drop(scope);
                leaves(20);
                for _ in 0..5 {
                    let scope = enter(sig);
                    leaves(10);
                    a_read_is_ended(&scope);
                    scope.leave().expect("the action was put back");
                    leaves(1);
                }
                assert_eq!(common::mask(), before);
            }));
        }
    }
}

// What stands behind now counts, not what stood there when the first scope of the process was entered.
#[test]
fn a_captured_handler_forwards_to_what_the_dispatcher_displaced() {
    let _t = common::begin();
    for sig in witness::numbers() {
        for forward in [Forward::Faithful, Forward::Copied] {
            well(witness::child(|| {
                FORWARD.store(forward as usize, SeqCst);
                drop(enter(sig)); // over the default, which so is the first
                common::install(sig, witness::plain_handler(), 0, &[]);
                let scope = enter(sig);
                capture(sig);
                runs_once(sig, 1, 1);
                assert!(scope.leave().is_err());
                runs_once(sig, 1, 1);
                let scope = enter(sig);
                runs_once(sig, 1, 1);
                scope.leave().expect("the action was put back");
                runs_once(sig, 1, 1);
            }));
        }
    }
}
