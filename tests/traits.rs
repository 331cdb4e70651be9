//! The public types are what they are said to be: where they may go, what they convert to, and where an interrupt is found again.
#![allow(unsafe_code, missing_docs)] // one value is made from its one field, see `by_deadline`

mod common;

use eintr::*;
use nix::errno::Errno;
use std::error::Error as StdError;
use std::fmt::{self, Debug};
use std::io;
use std::panic::{RefUnwindSafe, UnwindSafe};

fn send<T: Send>() {}
fn sync<T: Sync>() {}
fn unwind<T: UnwindSafe + RefUnwindSafe>() {}
fn err<T: StdError + Send + Sync + 'static + Copy>() {}
fn dbg<T: Debug>() {}
fn clone<T: Clone>() {}
fn forever<T: 'static>() {}

#[test]
fn a_handle_may_go_to_any_thread() {
    let _t = common::begin();
    send::<Remote>();
    sync::<Remote>();
    clone::<Remote>();
    unwind::<Remote>();
    forever::<Remote>();
    send::<Ticket>();
    sync::<Ticket>();
    send::<DropGuard>();
    sync::<DropGuard>();
    send::<ScopeOptions>();
    sync::<ScopeOptions>();
    clone::<ScopeOptions>();
    send::<Signal>();
    sync::<Signal>();
}

/// `implements!(Type: Trait)` is a constant: whether it does. An inherent constant is preferred to that of a trait.
macro_rules! implements {
    ($t:ty: $($bound:path),+) => {{
        struct Probe<T>(std::marker::PhantomData<T>);
        #[allow(dead_code)] // unused when the type implements the bound
        trait No {
            const ANSWER: bool = false;
        }
        impl<T> No for Probe<T> {}
        #[allow(dead_code)] // unused when the type does not implement the bound
        impl<T: $($bound +)+> Probe<T> {
            const ANSWER: bool = true;
        }
        <Probe<$t>>::ANSWER
    }};
}

#[test]
fn a_scope_stays_on_its_thread() {
    let _t = common::begin();
    const { assert!(implements!(Remote: Send) && implements!(u8: Sync), "the probe tells yes") };
    const { assert!(!implements!(Scope: Send)) };
    const { assert!(!implements!(Scope: Sync)) };
    const { assert!(!implements!(Scope: Clone) && !implements!(Ticket: Clone) && !implements!(DropGuard: Clone)) };
    unwind::<Scope>();
    dbg::<Scope>();
}

#[test]
fn errors_are_plain_values() {
    let _t = common::begin();
    err::<Interrupted>();
    err::<Error>();
    err::<EnterError>();
    err::<LeaveError>();
    unwind::<Error>();
    dbg::<(Delivery, Status, Foreign, Refusal, Reason, Signal)>();
    assert_eq!(size_of::<Error>(), 8);
    assert_eq!(size_of::<Result<usize, Error>>(), 16);
    assert_eq!(Foreign::default(), Foreign::Chain);
}

fn by_remote() -> Interrupted {
    let (ticket, remote) = Ticket::new();
    remote.interrupt();
    let scope = ticket.enter(libc::SIGUSR1).unwrap();
    scope.clear().unwrap()
}

fn by_signal() -> Interrupted {
    let scope = ScopeOptions::new(libc::SIGUSR1).foreign(Foreign::Interrupt).enter().unwrap();
    nix::sys::signal::raise(nix::sys::signal::SIGUSR1).unwrap();
    scope.clear().unwrap()
}

fn by_deadline() -> Interrupted {
    // SAFETY: `Interrupted` has one field, a `Reason`, and its size (the compiler checks that), so the field is all of it.
    let it = unsafe { std::mem::transmute::<Reason, Interrupted>(Reason::Deadline) };
    assert_eq!(it.reason(), Reason::Deadline);
    it
}

fn every_reason() -> [(Reason, Interrupted); 3] {
    [(Reason::Remote, by_remote()), (Reason::Signal, by_signal()), (Reason::Deadline, by_deadline())]
}

#[test]
fn an_interrupt_never_becomes_something_that_std_retries() {
    let _t = common::begin();
    for (reason, interrupted) in every_reason() {
        assert_eq!(interrupted.reason(), reason);
        let kind = if reason == Reason::Deadline { io::ErrorKind::TimedOut } else { io::ErrorKind::Other };
        for e in [io::Error::from(interrupted), io::Error::from(Error::from(interrupted))] {
            assert_eq!(e.kind(), kind, "{reason:?}");
            assert_ne!(e.kind(), io::ErrorKind::Interrupted);
            assert_eq!(e.raw_os_error(), None);
            let inner = e.get_ref().and_then(|inner| inner.downcast_ref::<Interrupted>());
            assert_eq!(inner, Some(&interrupted), "the typed value is inside");
            assert_eq!(e.to_string(), interrupted.to_string());
        }
        let errno = if reason == Reason::Deadline { Errno::ETIMEDOUT } else { Errno::ECANCELED };
        assert_eq!(Errno::from(Error::from(interrupted)), errno, "{reason:?}");
    }
}

#[test]
fn a_kernel_answer_is_passed_on_unchanged() {
    let _t = common::begin();
    for errno in [Errno::EBADF, Errno::EAGAIN, Errno::ECANCELED, Errno::ETIMEDOUT, Errno::EIO] {
        let error = Error::from(errno);
        assert_eq!((error.errno(), error.interrupted()), (Some(errno), None));
        assert_eq!(Errno::from(error), errno);
        let io = io::Error::from(error);
        assert_eq!((io.raw_os_error(), io.kind()), (Some(errno as i32), io::Error::from(errno).kind()));
    }
    let error = Error::from(by_remote());
    assert_eq!((error.errno(), error.interrupted()), (None, Some(by_remote())));
}

#[test]
fn an_error_tells_its_source() {
    let _t = common::begin();
    let interrupted = by_remote();
    let error = Error::from(interrupted);
    assert_eq!(error.source().and_then(|s| s.downcast_ref::<Interrupted>()), Some(&interrupted));
    let error = Error::from(Errno::EIO);
    assert_eq!(error.source().and_then(|s| s.downcast_ref::<Errno>()), Some(&Errno::EIO));
    assert!(interrupted.source().is_none());
}

/// An application's own error, above another one.
#[derive(Debug)]
struct Above<E>(E);
impl<E> fmt::Display for Above<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the job failed")
    }
}
impl<E: StdError + 'static> StdError for Above<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.0)
    }
}

#[test]
fn an_interrupt_is_found_wherever_it_lies() {
    let _t = common::begin();
    for (reason, i) in every_reason() {
        let e = Error::from(i);
        let io = || io::Error::from(i);
        let errors: [(&str, Box<dyn StdError>); 12] = [
            ("itself", Box::new(i)),
            ("in Error", Box::new(e)),
            ("in io::Error", Box::new(io())),
            ("in Error in io::Error", Box::new(io::Error::from(e))),
            ("in io::Error as it is", Box::new(io::Error::other(e))),
            ("in io::Error in io::Error", Box::new(io::Error::other(io()))),
            ("three deep", Box::new(io::Error::new(io::ErrorKind::NotFound, io::Error::other(io())))),
            ("a source", Box::new(Above(i))),
            ("a source's source", Box::new(Above(Above(e)))),
            ("under an io::Error that is a source", Box::new(Above(io()))),
            ("a source inside an io::Error", Box::new(io::Error::other(Above(e)))),
            ("all of it", Box::new(Above(io::Error::other(Above(Above(io::Error::other(io()))))))),
        ];
        for (place, error) in errors {
            assert_eq!(Interrupted::find(&*error), Some(i), "{reason:?} {place}");
        }
    }
}

#[test]
fn no_interrupt_is_found_where_there_is_none() {
    let _t = common::begin();
    let errors: [Box<dyn StdError>; 8] = [
        Box::new(Error::from(Errno::EIO)),
        Box::new(Errno::EINTR),
        Box::new(io::Error::from(io::ErrorKind::Interrupted)),
        Box::new(io::Error::from_raw_os_error(libc::ECANCELED)),
        Box::new(io::Error::other("interrupted by a remote")),
        Box::new(io::Error::other(Above(io::Error::other(Error::from(Errno::ETIMEDOUT))))),
        Box::new(fmt::Error),
        Box::new(Scope::enter(libc::SIGKILL).unwrap_err()),
    ];
    for error in errors {
        assert_eq!(Interrupted::find(&*error), None, "{error:?}");
    }
}

#[test]
fn texts_name_the_reason() {
    let _t = common::begin();
    let texts = every_reason().map(|(reason, i)| (reason, i.to_string(), Error::from(i).to_string()));
    for (reason, text, as_error) in &texts {
        let word = format!("{reason:?}").to_lowercase();
        assert!(text.contains(&word), "{reason:?}: {text}");
        assert_eq!(text, as_error);
    }
    let os = Error::from(Errno::EBADF).to_string();
    assert!(os.contains("EBADF"), "{os}");
}

#[test]
fn a_scope_is_entered_on_a_signal_of_any_kind() {
    let _t = common::begin();
    let by_nix = Scope::enter(nix::sys::signal::SIGUSR1).unwrap();
    let by_number = Scope::enter(libc::SIGUSR1).unwrap();
    let by_signal = Scope::enter(Signal::rt(3)).unwrap();
    let by_options = Scope::enter(ScopeOptions::new(libc::SIGUSR2)).unwrap();
    let by_chain = ScopeOptions::new(nix::sys::signal::SIGUSR2).foreign(Foreign::Ignore).enter().unwrap();
    assert_eq!(by_nix.signal(), by_number.signal());
    assert_eq!(by_nix.signal(), Signal::from(libc::SIGUSR1));
    assert_eq!(by_signal.signal().as_raw(), libc::SIGRTMIN() + 3);
    assert_eq!(by_options.signal(), by_chain.signal());
}
