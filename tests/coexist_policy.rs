//! What a signal from outside does under each `Foreign` policy, whichever thread the kernel picks for it, alone and with scopes nested.
// Tests install handlers, fork and send signals by bare calls.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/witness.rs"]
mod witness;

use common::State;
use eintr::Foreign::{self, Chain, Ignore, Interrupt, InterruptAndChain, InterruptOnce};
use eintr::{Delivery, Reason, Remote, Scope, ScopeOptions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc;
use std::thread::JoinHandle;
use witness::{Way, killed_by, well};

/// What a [`Scoped`] thread saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Saw {
    /// Its read ended, and its scope says why; how often the handler behind had run by then.
    Interrupted { why: Reason, runs: usize },
    /// Its read returned a byte, and nothing is asked of its scope.
    Byte,
    /// What `clear` returned.
    Cleared(Option<Reason>),
    /// What `check` returned.
    Checked(Option<Reason>),
}

#[derive(Clone, Copy, Debug)]
enum Order {
    Read,
    Clear,
    Check,
}

/// A thread with a scope, that does as it is told.
struct Scoped {
    tid: libc::pid_t,
    remote: Remote,
    orders: mpsc::Sender<Order>,
    answers: mpsc::Receiver<Saw>,
    writer: OwnedFd,
    thread: JoinHandle<()>,
}

impl Scoped {
    /// Enters and waits for orders.
    fn start(options: ScopeOptions) -> Scoped {
        let (empty, writer) = common::pipe();
        let (orders, todo) = mpsc::channel();
        let (answer, answers) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let scope = options.enter().expect("enter");
            tell.send((common::gettid(), scope.remote())).expect("the test waits");
            while let Ok(order) = todo.recv() {
                let saw = match order {
                    Order::Read => read(&scope, &empty),
                    Order::Clear => Saw::Cleared(scope.clear().map(|i| i.reason())),
                    Order::Check => Saw::Checked(eintr::check().err().map(|i| i.reason())),
                };
                answer.send(saw).expect("the test waits");
            }
            scope.leave().expect("the action was put back");
        });
        let (tid, remote) = told.recv().expect("entered");
        Scoped { tid, remote, orders, answers, writer, thread }
    }

    /// Comes back when it is blocked in a plain read.
    fn block_in_read(&self) {
        self.orders.send(Order::Read).expect("it lives");
        common::wait_blocked_in(self.tid, libc::SYS_read);
    }

    fn saw(&self) -> Saw {
        self.answers.recv().expect("it answers")
    }

    fn order(&self, order: Order) -> Saw {
        self.orders.send(order).expect("it lives");
        self.saw()
    }

    /// Ends its read by a byte. A signal that it was sent before has been taken when it answers.
    fn write(&self) -> Saw {
        assert_eq!(unsafe { libc::write(self.writer.as_raw_fd(), c"x".as_ptr().cast(), 1) }, 1);
        self.saw()
    }

    fn end(self) {
        drop(self.orders);
        self.thread.join().expect("it ended well");
    }
}

/// Plain reads, until one returns something or an interrupt is asked for.
fn read(scope: &Scope, fd: &OwnedFd) -> Saw {
    loop {
        let read = common::plain_read(fd);
        match (scope.interrupted(), read) {
            (Some(i), Err(libc::EINTR)) => return Saw::Interrupted { why: i.reason(), runs: witness::count() },
            (None, Err(libc::EINTR)) => {}
            (None, Ok(1)) => return Saw::Byte,
            other => panic!("{other:?}"),
        }
    }
}

/// Which thread the kernel brings the signal to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taker {
    /// The thread of the scope, to which it was sent.
    Itself,
    /// The thread of the scope, which is the only one that has the number open.
    ItselfForProcess,
    /// A thread with a scope of its own on the number, which chains.
    AnotherScoped,
    /// A thread without a scope: the first one of the process, which the kernel prefers.
    Bystander,
}

const TAKERS: [Taker; 4] = [Taker::Itself, Taker::ItselfForProcess, Taker::AnotherScoped, Taker::Bystander];

impl Taker {
    /// Sends one signal, and comes back when it was taken, except by `target` itself.
    fn send(self, sig: i32, target: &Scoped, another: &Scoped) {
        match self {
            Taker::Itself => witness::to_thread(target.tid, sig),
            Taker::ItselfForProcess => {
                let mask = common::block(sig);
                witness::to_thread(another.tid, 0); // it lives, blocked in a wait for orders with the number open: so it is made to block it
                Way::Kill.send(sig, 0);
                common::set_mask(mask);
            }
            Taker::AnotherScoped => {
                another.block_in_read();
                witness::to_thread(another.tid, sig);
                assert_eq!(another.write(), Saw::Byte, "a scope that chains was interrupted");
            }
            Taker::Bystander => {
                Way::Kill.send(sig, 0);
            }
        }
    }
}
