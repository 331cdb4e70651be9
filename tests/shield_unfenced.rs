//! Shields raised while the program has the number blocked, where no fence can be sent to find out what is ours: the queue is full, or a filter lets no siginfo
//! through. Everything that waits is taken out then, and what somebody else has sent goes back behind the program's block.
// Tests block numbers, forbid calls and fork.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/counting.rs"]
mod counting;
#[path = "common/deadlines.rs"]
mod deadlines;
#[path = "common/refusing.rs"]
mod refusing;
#[path = "common/witness.rs"]
mod witness;

use counting::{kinds, real_time};
use deadlines::NoRoom;
use eintr::{Scope, check, shield};
use std::sync::mpsc::channel;
use witness::Way;

/// Why no fence can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Without {
    Room,
    Siginfo,
}

/// A thread that has a scope on the number too, with everything blocked, while `body` runs: what was kept must not go to it, nor wait for its end.
fn beside_another_scope(sig: i32, body: impl FnOnce()) {
    let ((tell, is_up), (end, ended)) = (channel(), channel::<()>());
    let other = common::unsignalled(move || {
        let scope = Scope::enter(sig).unwrap();
        common::set_mask(!0);
        tell.send(()).unwrap();
        let _ = ended.recv();
        drop(scope);
    });
    is_up.recv().unwrap();
    body();
    drop(end);
    other.join().unwrap();
}

/// One signal from elsewhere waits behind the program's block, a shield is raised and lowered, the program opens the number.
fn shielded(sig: i32, way: Way, without: Without) {
    let me = common::gettid();
    witness::forget();
    let scope = Scope::enter(sig).unwrap();
    scope.remote().interrupt(); // the timer is made, and something was sent
    assert!(check().is_err() && scope.clear().is_some());
    common::block(sig);
    way.send(sig, 0);
    let full = (without == Without::Room).then(NoRoom::begin);
    drop(shield());
    drop(full);
    assert_eq!(witness::count(), 0, "the program's block is left alone");
    common::unblock(sig);
    let threads: Vec<_> = witness::runs().iter().map(|run| run.tid).collect();
    assert_eq!(threads, [me], "it comes when the number is opened, here: {sig} {way:?} {without:?}");
    drop(scope);
    assert_eq!(witness::count(), 1, "and not again");
}

fn in_child(sig: i32, way: Way, without: Without, nested: bool) {
    witness::well(witness::child(|| {
        common::install(sig, witness::plain_handler(), libc::SA_RESTART, &[]);
        let body = || {
            if without == Without::Siginfo {
                refusing::refuse(libc::SYS_rt_tgsigqueueinfo).expect("it was possible before");
            }
            for _ in 0..3 {
                shielded(sig, way, without);
            }
        };
        if nested {
            beside_another_scope(sig, body)
        } else {
            body()
        }
        assert!(witness::count() <= 1, "nor when the other scope ends");
    }));
}

fn each_way(numbers: &[i32], without: Without) {
    for sig in numbers {
        for way in [Way::Raise, Way::Kill, Way::TgkillFromOutside] {
            for nested in [false, true] {
                in_child(*sig, way, without, nested);
            }
        }
    }
}

// A standard number is queued with a full queue, too, without its siginfo; so its fence comes.
#[test]
fn with_a_full_queue_a_signal_from_elsewhere_comes_when_the_program_opens_its_block() {
    let _t = common::begin();
    if common::skipped_if_emulated("a full queue", "the emulator queues by itself") {
        return;
    }
    each_way(&[real_time()], Without::Room);
}

#[test]
fn under_a_filter_a_signal_from_elsewhere_comes_when_the_program_opens_its_block() {
    let _t = common::begin();
    let filtered = std::thread::spawn(|| refusing::refuse(libc::SYS_rt_tgsigqueueinfo)).join().unwrap();
    match filtered {
        Ok(()) => each_way(&kinds(), Without::Siginfo),
        Err(e) => println!("SKIPPED: no seccomp filter here ({e}): a shield that can send no fence"),
    }
}
