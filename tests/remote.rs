//! A Remote ends the blocking calls of its own thread, tells what became of the request, and is harmless once the scope has ended; a Ticket's
//! works before there is a scope.
// Calls are made, signals sent and handlers installed by raw system calls, as applications do.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/counting.rs"]
mod counting;

use common::{State, bit};
use counting::{Counting, kinds, real_time};
use eintr::{Delivery, DropGuard, Error, Reason, Remote, Resend, Scope, ScopeOptions, Status, Ticket};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A thread that is in a scope and works there.
struct Scoped<T> {
    tid: libc::pid_t,
    remote: Remote,
    thread: JoinHandle<T>,
}

fn scoped<T: Send + 'static>(
    on: impl Into<ScopeOptions>,
    work: impl FnOnce(&Scope) -> T + Send + 'static,
) -> Scoped<T> {
    let on = on.into();
    let (says, hears) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let scope = Scope::enter(on).unwrap();
        says.send((common::gettid(), scope.remote())).unwrap();
        work(&scope)
    });
    let (tid, remote) = hears.recv().expect("the thread enters");
    Scoped { tid, remote, thread }
}

fn errno() -> i32 {
    nix::errno::Errno::last_raw()
}

/// A raw system call: what it returns, or minus its errno.
fn call(nr: libc::c_long, args: [usize; 6]) -> i64 {
    let r = unsafe { libc::syscall(nr, args[0], args[1], args[2], args[3], args[4], args[5]) };
    if r == -1 { -i64::from(errno()) } else { r }
}

fn memory_file() -> File {
    use std::os::fd::FromRawFd;
    unsafe { File::from_raw_fd(libc::memfd_create(c"remote".as_ptr(), libc::MFD_CLOEXEC)) }
}

/// Another open file description of the same file.
fn again(file: &impl AsRawFd) -> File {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    File::options().read(true).write(true).open(path).unwrap()
}

type Call = (&'static str, libc::c_long, Box<dyn FnMut() -> i64 + Send>);

/// Calls that block for ever, each with what it blocks on.
fn blocking_calls() -> Vec<Call> {
    fn fd(fd: &impl AsRawFd) -> usize {
        fd.as_raw_fd() as usize
    }
    let mut calls: Vec<Call> = Vec::new();

    let (reader, writer) = common::pipe();
    let mut byte = 0u8;
    let read = move || (call(libc::SYS_read, [fd(&reader), &raw mut byte as usize, 1, 0, 0, 0]), &writer).0;
    calls.push(("read of a pipe", libc::SYS_read, Box::new(read)));

    let (reader, writer) = common::pipe();
    let page = vec![0u8; unsafe { libc::fcntl(fd(&writer) as i32, libc::F_SETPIPE_SZ, 4096) } as usize];
    assert_eq!(nix::unistd::write(&writer, &page).unwrap(), page.len(), "the pipe is full now");
    let write = move || (call(libc::SYS_write, [fd(&writer), page.as_ptr() as usize, 1, 0, 0, 0]), &reader).0;
    calls.push(("write to a full pipe", libc::SYS_write, Box::new(write)));

    let holder = memory_file();
    assert_eq!(unsafe { libc::flock(holder.as_raw_fd(), libc::LOCK_EX) }, 0);
    let waits = again(&holder);
    let flock = move || (call(libc::SYS_flock, [fd(&waits), libc::LOCK_EX as usize, 0, 0, 0, 0]), &holder).0;
    calls.push(("flock", libc::SYS_flock, Box::new(flock)));

    let holder = memory_file();
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as i16;
    assert_eq!(unsafe { libc::fcntl(holder.as_raw_fd(), libc::F_OFD_SETLK, &lock) }, 0);
    let waits = again(&holder);
    let setlkw = move || {
        let mut lock = lock;
        (call(libc::SYS_fcntl, [fd(&waits), libc::F_OFD_SETLKW as usize, &raw mut lock as usize, 0, 0, 0]), &holder).0
    };
    calls.push(("fcntl lock", libc::SYS_fcntl, Box::new(setlkw)));

    let socket = |kind| unsafe { libc::socket(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0) };
    let listener = own(socket(libc::SOCK_STREAM));
    let family = libc::sa_family_t::try_from(libc::AF_UNIX).unwrap(); // the kernel picks a name
    let bound = unsafe { libc::bind(listener.as_raw_fd(), (&raw const family).cast(), size_of_val(&family) as u32) };
    assert_eq!((bound, unsafe { libc::listen(listener.as_raw_fd(), 1) }), (0, 0));
    let accept = move || call(libc::SYS_accept4, [fd(&listener), 0, 0, libc::SOCK_CLOEXEC as usize, 0, 0]);
    calls.push(("accept", libc::SYS_accept4, Box::new(accept)));

    let mut byte = 0u8;
    let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
    let recv = move || (call(libc::SYS_recvfrom, [fd(&one), &raw mut byte as usize, 1, 0, 0, 0]), &other).0;
    calls.push(("recv", libc::SYS_recvfrom, Box::new(recv)));

    let path = std::env::temp_dir().join(format!("eintr-remote-{}", common::getpid()));
    let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    let open = move || {
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        let flags = libc::O_RDONLY | libc::O_CLOEXEC;
        let r = call(libc::SYS_openat, [libc::AT_FDCWD as usize, name.as_ptr() as usize, flags as usize, 0, 0, 0]);
        unsafe { libc::unlink(name.as_ptr()) };
        r
    };
    calls.push(("open of a FIFO", libc::SYS_openat, Box::new(open)));

    let wait = || {
        let child = common::fork(|| unsafe { libc::pause() });
        let r = call(libc::SYS_wait4, [child as usize, 0, 0, 0, 0, 0]);
        unsafe { libc::kill(child, libc::SIGKILL) };
        common::reap(child);
        r
    };
    calls.push(("wait for a child", libc::SYS_wait4, Box::new(wait)));

    calls.push(("poll", libc::SYS_ppoll, Box::new(|| call(libc::SYS_ppoll, [0; 6]))));
    calls.push(("select", libc::SYS_pselect6, Box::new(|| call(libc::SYS_pselect6, [0; 6]))));

    let epoll = own(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) });
    let epoll_wait = move || {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        call(libc::SYS_epoll_pwait, [fd(&epoll), &raw mut event as usize, 1, usize::MAX, 0, 8])
    };
    calls.push(("epoll", libc::SYS_epoll_pwait, Box::new(epoll_wait)));

    let sleep = || {
        let hour = libc::timespec { tv_sec: 3600, tv_nsec: 0 };
        call(libc::SYS_clock_nanosleep, [libc::CLOCK_MONOTONIC as usize, 0, &raw const hour as usize, 0, 0, 0])
    };
    calls.push(("sleep", libc::SYS_clock_nanosleep, Box::new(sleep)));

    let futex = || {
        let word = 0u32;
        call(libc::SYS_futex, [&raw const word as usize, libc::FUTEX_WAIT as usize, 0, 0, 0, 0])
    };
    calls.push(("futex", libc::SYS_futex, Box::new(futex)));

    let queue = unsafe { libc::msgget(libc::IPC_PRIVATE, 0o600) };
    if queue >= 0 {
        let receive = move || {
            let mut message = [0u64; 2];
            let r = call(libc::SYS_msgrcv, [queue as usize, &raw mut message as usize, 8, 0, 0, 0]);
            unsafe { libc::msgctl(queue, libc::IPC_RMID, std::ptr::null_mut()) };
            r
        };
        calls.push(("msgrcv", libc::SYS_msgrcv, Box::new(receive)));
    } else {
        println!("SKIPPED: msgrcv, since there is no System V IPC here");
    }

    let suspend = || {
        let nothing = 0u64;
        call(libc::SYS_rt_sigsuspend, [&raw const nothing as usize, 8, 0, 0, 0, 0])
    };
    calls.push(("sigsuspend", libc::SYS_rt_sigsuspend, Box::new(suspend)));
    calls
}

fn own(fd: i32) -> OwnedFd {
    use std::os::fd::FromRawFd;
    assert!(fd >= 0, "errno {}", errno());
    unsafe { OwnedFd::from_raw_fd(fd) }
}

#[test]
fn an_interrupt_ends_the_plain_call_that_its_thread_is_blocked_in() {
    let _t = common::begin();
    let before = State::now();
    for sig in kinds() {
        for (name, nr, mut blocks) in blocking_calls() {
            let worker = scoped(sig, move |_| (blocks(), eintr::check()));
            common::wait_blocked_in(worker.tid, nr);
            assert_eq!(worker.remote.interrupt(), Delivery::Sent, "{name}");
            let (answer, look) = worker.thread.join().unwrap();
            assert_eq!(answer, -i64::from(libc::EINTR), "{name}");
            assert_eq!(look.unwrap_err().reason(), Reason::Remote, "{name}");
            assert!(worker.remote.is_closed(), "{name}");
        }
    }
    assert_eq!(State::now(), before);
}

/// A thread that reads from a pipe until it is interrupted or there is something.
fn reader(on: impl Into<ScopeOptions>) -> (Scoped<Result<usize, Error>>, OwnedFd) {
    let (from, to) = common::pipe();
    let read = move || {
        let mut buffer = [0; 8];
        nix::unistd::read(&from, &mut buffer)
    };
    (scoped(on, move |_| eintr::retry(read)), to)
}

#[test]
fn either_kind_of_request_ends_a_call_made_by_retry() {
    let _t = common::begin();
    for sig in kinds() {
        for request in [Remote::interrupt, Remote::interrupt_once] {
            let (worker, _keep) = reader(sig);
            common::wait_blocked_in(worker.tid, libc::SYS_read);
            assert_eq!(request(&worker.remote), Delivery::Sent);
            assert!(worker.thread.join().unwrap().unwrap_err().interrupted().is_some());
        }
    }
}

#[test]
fn only_the_thread_that_was_meant_is_interrupted() {
    let _t = common::begin();
    for sig in kinds() {
        let mut workers: Vec<_> = (0..8).map(|_| reader(sig)).collect();
        let (plain, to_plain) = common::pipe();
        let (says, tid) = mpsc::channel();
        let bystander = std::thread::spawn(move || {
            says.send(common::gettid()).unwrap();
            common::plain_read(&plain)
        });
        common::wait_blocked_in(tid.recv().unwrap(), libc::SYS_read);
        for (worker, _) in &workers {
            common::wait_blocked_in(worker.tid, libc::SYS_read);
        }
        let meant = [1, 4, 7];
        for which in meant {
            assert_eq!(workers[which].0.remote.interrupt(), Delivery::Sent);
        }
        for which in meant.into_iter().rev() {
            let (worker, _keep) = workers.swap_remove(which);
            assert!(worker.thread.join().unwrap().is_err());
        }
        for (worker, to) in workers {
            nix::unistd::write(&to, b"data").unwrap();
            assert_eq!(worker.thread.join().unwrap(), Ok(4), "the others go on");
        }
        nix::unistd::write(&to_plain, b"data").unwrap();
        assert_eq!(bystander.join().unwrap(), Ok(4), "and so does a thread that is in no scope");
    }
}

#[test]
fn the_remote_of_any_of_the_nested_scopes_ends_the_call() {
    let _t = common::begin();
    for numbers in [[libc::SIGUSR1, libc::SIGUSR2, real_time()], [libc::SIGUSR1; 3], [real_time(); 3]] {
        for which in 0..3 {
            let (from, _keep) = common::pipe();
            let (says, remotes) = mpsc::channel();
            let worker = scoped(numbers[0], move |outermost| {
                let inner = [numbers[1], numbers[2]].map(|sig| Scope::enter(sig).unwrap());
                let scopes = [outermost, &inner[0], &inner[1]];
                says.send(scopes.map(Scope::remote)).unwrap();
                (common::plain_read(&from), scopes.map(|s| s.interrupted().is_some()))
            });
            let remotes = remotes.recv().unwrap();
            common::wait_blocked_in(worker.tid, libc::SYS_read);
            assert_eq!(remotes[which].interrupt(), Delivery::Sent);
            let (answer, interrupted) = worker.thread.join().unwrap();
            assert_eq!(answer, Err(libc::EINTR), "scope {which} of {numbers:?}");
            assert_eq!(interrupted, [0, 1, 2].map(|n| n == which), "and it alone says that it was interrupted");
        }
    }
}

#[test]
fn an_interrupt_before_the_call_is_kept_for_it() {
    let _t = common::begin();
    for request in [Remote::interrupt, Remote::interrupt_once] {
        let scope = Scope::enter(libc::SIGUSR1).unwrap();
        assert_eq!(request(&scope.remote()), Delivery::Sent);
        let (from, _keep) = common::pipe();
        let answer = eintr::retry(|| nix::unistd::read(&from, &mut [0; 8]));
        assert!(answer.unwrap_err().interrupted().is_some());
    }
}

/// After 100 ms one that has not landed is taken to be lost; so only what was asked well within that says something.
#[test]
fn what_is_on_its_way_is_not_sent_again() {
    let _t = common::begin();
    for sig in kinds() {
        loop {
            let scope = Scope::enter(sig).unwrap();
            let outer_mask = common::block(sig); // so that it stays on its way
            let (remote, start) = (scope.remote(), Instant::now());
            assert_eq!(remote.interrupt(), Delivery::Sent);
            let again = [Remote::interrupt, Remote::interrupt_once, Remote::interrupt].map(|request| request(&remote));
            let of_another = Scope::enter(sig).unwrap().remote().interrupt();
            let in_time = start.elapsed() < Duration::from_millis(80);
            // The timer that sends again may have expired by now.
            let queued = [(); 2].map(|()| take(sig).is_some_and(|info| info.si_code != libc::SI_TIMER));
            drop(scope);
            common::set_mask(outer_mask);
            if in_time {
                assert_eq!(again, [Delivery::Held; 3]);
                assert_eq!(of_another, Delivery::Held, "one for each number and thread");
                assert_eq!(queued, [true, false], "there is one");
                break;
            }
        }
    }
}

/// One signal out of the queue.
fn take(sig: i32) -> Option<libc::siginfo_t> {
    let (set, now) = (bit(sig), libc::timespec { tv_sec: 0, tv_nsec: 0 });
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let args = [&raw const set as usize, &raw mut info as usize, &raw const now as usize, 8, 0, 0];
    (call(libc::SYS_rt_sigtimedwait, args) == i64::from(sig)).then_some(info)
}

/// Deliveries vanish: a thread in sigwait takes them. So what is on its way only throttles: a request after an acknowledgement is sent, and one
/// after a while.
#[test]
fn a_signal_that_vanished_does_not_keep_later_ones_from_being_sent() {
    let _t = common::begin();
    for sig in kinds() {
        let scope = ScopeOptions::new(sig).resend(Resend::Never).enter().unwrap();
        common::block(sig);
        assert_eq!(scope.remote().interrupt(), Delivery::Sent);
        assert!(take(sig).is_some());
        common::wait_until(|| scope.remote().interrupt() == Delivery::Sent); // after a while, without an acknowledgement too
        assert!(take(sig).is_some());
        assert!(eintr::check().is_err(), "the interrupt itself did not vanish");
        assert_eq!(scope.remote().interrupt(), Delivery::Sent);
        assert!(take(sig).is_some());
    }
}

/// Nor is a resend waited for that will not come: its expiry, which alone has the next one armed, vanishes just so. (One that is armed anew takes back what
/// lies in the queue, and what has merged into that: so here it is waited for what is taken.)
#[test]
fn a_resend_that_vanished_does_not_keep_later_ones_from_being_sent() {
    let _t = common::begin();
    for sig in kinds() {
        let scope = Scope::enter(sig).unwrap();
        let mask = common::block(sig);
        assert_eq!(scope.remote().interrupt(), Delivery::Sent);
        assert!(take(sig).is_some());
        for again in 0..3 {
            common::wait_until(|| take(sig).is_some()); // the expiry
            common::wait_until(|| take(sig).is_none());
            let asked = std::iter::from_fn(|| Some(scope.remote().interrupt()));
            assert_eq!(asked.into_iter().find(|told| *told != Delivery::Held), Some(Delivery::Sent), "{again}");
        }
        common::set_mask(mask);
        assert!(eintr::check().is_err(), "the interrupt itself did not vanish");
        assert_eq!(scope.remote().interrupt(), Delivery::Sent);
    }
}

#[test]
fn a_blocked_number_turns_interrupts_of_plain_calls_off_and_wait_says_so() {
    let _t = common::begin();
    let (from, to) = common::pipe();
    let worker = scoped(libc::SIGUSR1, move |scope| {
        common::block(libc::SIGUSR1);
        (common::plain_read(&from), scope.clear().is_some())
    });
    common::wait_blocked_in(worker.tid, libc::SYS_read);
    assert_eq!(worker.remote.interrupt(), Delivery::Sent);
    assert_eq!(worker.remote.wait(Duration::from_millis(20)), Status::StillRunning);
    assert!(!worker.remote.is_closed());
    nix::unistd::write(&to, b"data").unwrap();
    assert_eq!(worker.thread.join().unwrap(), (Ok(4), true));
    assert_eq!(worker.remote.wait(Duration::ZERO), Status::Closed);
}

#[test]
fn nothing_is_sent_to_a_stranger_but_the_interrupt_is_pending_all_the_same() {
    let _t = common::begin();
    for request in [Remote::interrupt, Remote::interrupt_once] {
        let before = State::now();
        let scope = Scope::enter(libc::SIGUSR1).unwrap();
        let theirs = Counting::on(libc::SIGUSR1);
        for _ in 0..10 {
            assert_eq!(request(&scope.remote()), Delivery::Displaced);
        }
        assert_eq!(scope.remote().wait(Duration::ZERO), Status::StillRunning);
        assert!(eintr::check().is_err() && scope.clear().is_some());
        assert_eq!(theirs.runs(), 0);
        drop(theirs);
        assert_eq!(request(&scope.remote()), Delivery::Sent, "when ours stands there again");
        drop(scope);
        assert_eq!(State::now(), before);
    }
}

/// RLIMIT_SIGPENDING at 0: the kernel takes no real-time signal, and a standard one only without what it carries.
#[test]
fn a_full_signal_queue_is_told_and_the_interrupt_is_pending_all_the_same() {
    let _t = common::begin();
    common::in_own_process("a_full_signal_queue_is_told_and_the_interrupt_is_pending_all_the_same", || {
        let before = State::now();
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_SIGPENDING, &mut limit) }, 0);
        let full = libc::rlimit { rlim_cur: 0, ..limit };
        let set = |to: &libc::rlimit| assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_SIGPENDING, to) }, 0);
        let full_up = nix::errno::Errno::EAGAIN;
        // Neither has a timer: one is made when it is first needed, and finds no room.
        let answers =
            [(Delivery::SentOnce(full_up), Delivery::Sent), (Delivery::Refused(full_up), Delivery::Refused(full_up))];
        for (sig, (told, told_once)) in kinds().into_iter().zip(answers) {
            let (worker, _keep) = reader(sig);
            common::wait_blocked_in(worker.tid, libc::SYS_read);
            set(&full);
            assert_eq!(worker.remote.interrupt(), told);
            assert!(
                [told_once, Delivery::Held, Delivery::Gone].contains(&worker.remote.interrupt_once()),
                "the same, or on its way, or over"
            );
            set(&limit);
            common::wait_until(|| worker.thread.is_finished() || worker.remote.interrupt() == Delivery::Sent);
            assert!(worker.thread.join().unwrap().unwrap_err().interrupted().is_some());

            let scope = Scope::enter(sig).unwrap();
            set(&full);
            assert_eq!(scope.remote().interrupt(), told);
            set(&limit);
            assert!(eintr::check().is_err() && scope.clear().is_some());
            assert_eq!(scope.remote().interrupt(), Delivery::Sent, "there is room again");
            assert!(eintr::check().is_err() && scope.clear().is_some());
            set(&full);
            assert_eq!(scope.remote().interrupt(), Delivery::Sent, "the timer has room of its own");
            set(&limit);
            drop(scope);
            assert_eq!(State::now(), before, "the default action did not see it");
        }
    });
}

fn is_gone(remote: &Remote) {
    for _ in 0..3 {
        assert_eq!(remote.interrupt(), Delivery::Gone);
        assert_eq!(remote.interrupt_once(), Delivery::Gone);
        assert_eq!(remote.wait(Duration::ZERO), Status::Closed);
        assert_eq!(remote.wait(Duration::MAX), Status::Closed);
        assert!(remote.wait_closed(Duration::ZERO) && remote.wait_closed(Duration::MAX) && remote.is_closed());
        assert!(format!("{remote:?}").contains("closed: true"));
    }
}

#[test]
fn a_remote_is_gone_once_its_scope_was_dropped_or_its_thread_has_ended() {
    let _t = common::begin();
    let before = State::now();
    for interrupted in [false, true] {
        let scope = Scope::enter(libc::SIGUSR1).unwrap();
        let remotes = [scope.remote(), scope.remote().clone()];
        assert!(format!("{:?}", remotes[0]).contains("closed: false"));
        if interrupted {
            remotes[0].interrupt();
        }
        drop(scope);
        remotes.iter().for_each(is_gone);
        let worker = scoped(libc::SIGUSR1, |_| ());
        worker.thread.join().unwrap();
        is_gone(&worker.remote);
    }
    assert_eq!(State::now(), before);
}

/// Memory of ended scopes is used again: an old remote must not take the scope that lies there now for its own.
#[test]
fn the_remote_of_an_ended_scope_never_reaches_one_that_came_after() {
    let _t = common::begin();
    let mut old = Vec::new();
    for _ in 0..500 {
        let scope = Scope::enter(libc::SIGUSR1).unwrap();
        for remote in &old {
            assert_eq!(Remote::interrupt(remote), Delivery::Gone);
            assert!(remote.is_closed());
        }
        assert!(eintr::check().is_ok() && scope.interrupted().is_none());
        old.push(scope.remote());
    }
}

/// The interrupter reads an open gate, the scope ends, its place is taken by the next scope; the request must not come through there.
#[test]
fn a_request_that_races_with_drop_never_reaches_the_next_scope() {
    let _t = common::begin();
    let (ask, to_ask) = mpsc::channel::<Remote>();
    let interrupter = std::thread::spawn(move || {
        let mut sent = 0;
        for remote in to_ask {
            while remote.interrupt_once() != Delivery::Gone {
                sent += 1;
            }
        }
        sent
    });
    for round in 0..common::rounds("EINTR_DROP_ROUNDS", 500) {
        let scope = Scope::enter(kinds()[round as usize % 2]).unwrap();
        ask.send(scope.remote()).unwrap();
        while round % 3 != 0 && scope.interrupted().is_none() {}
        drop(scope);
        let next = Scope::enter(kinds()[round as usize % 2]).unwrap();
        std::thread::yield_now();
        assert!(eintr::check().is_ok() && next.interrupted().is_none(), "round {round}");
    }
    drop(ask);
    assert!(interrupter.join().unwrap() > 0);
}

/// A thread that waits on `remote` for what `how` says; it sleeps there when this returns.
fn waiter<T: Send + 'static>(remote: &Remote, how: impl FnOnce(Remote) -> T + Send + 'static) -> JoinHandle<T> {
    let remote = remote.clone();
    let (says, tid) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        says.send(common::gettid()).unwrap();
        how(remote)
    });
    common::wait_blocked_in(tid.recv().unwrap(), libc::SYS_futex);
    thread
}

#[test]
fn who_waits_is_woken_by_every_way_of_acknowledging_and_by_the_end() {
    let _t = common::begin();
    type Acknowledge = fn(&Scope);
    let ways: [(&str, Acknowledge); 3] = [
        ("check", |_| assert!(eintr::check().is_err())),
        ("retry", |_| assert!(eintr::retry(|| 0i32).is_err())),
        ("clear", |scope| assert!(scope.clear().is_some())),
    ];
    let long = [Duration::from_secs(3600), Duration::MAX, Duration::from_secs(u64::MAX / 4)];
    for (way, acknowledge) in ways {
        for time in long {
            let scope = Scope::enter(libc::SIGUSR1).unwrap();
            let remote = scope.remote();
            remote.interrupt();
            let waits: Vec<_> = (0..3).map(|_| waiter(&remote, move |r| r.wait(time))).collect();
            let ends = waiter(&remote, move |r| r.wait_closed(time));
            acknowledge(&scope);
            waits.into_iter().for_each(|w| assert_eq!(w.join().unwrap(), Status::Acknowledged, "{way}"));
            assert_eq!(remote.wait(time), Status::Acknowledged, "at once if it was acknowledged before");
            assert!(!ends.is_finished() && !remote.wait_closed(Duration::ZERO));
            remote.interrupt();
            let waits = waiter(&remote, move |r| r.wait(time));
            drop(scope);
            assert!(ends.join().unwrap());
            assert_eq!(waits.join().unwrap(), Status::Closed);
        }
    }
}

#[test]
fn who_waits_for_the_end_is_woken_also_if_nothing_was_ever_asked() {
    let _t = common::begin();
    for around in [false, true] {
        let outer = around.then(|| Scope::enter(libc::SIGUSR1).unwrap());
        let scope = Scope::enter(libc::SIGUSR1).unwrap();
        let ends = waiter(&scope.remote(), |r| r.wait_closed(Duration::MAX));
        drop(scope);
        assert!(ends.join().unwrap());
        drop(outer);
    }
}

#[test]
fn wait_says_what_it_saw_when_the_time_is_up() {
    let _t = common::begin();
    let scope = Scope::enter(libc::SIGUSR1).unwrap();
    let remote = scope.remote();
    for time in [Duration::ZERO, Duration::from_nanos(1), Duration::from_millis(5)] {
        assert_eq!(remote.wait(time), Status::Acknowledged, "nothing was asked");
        let start = Instant::now();
        assert!(!remote.wait_closed(time));
        assert!(start.elapsed() >= time);
        remote.interrupt();
        let start = Instant::now();
        assert_eq!(remote.wait(time), Status::StillRunning);
        assert!(start.elapsed() >= time);
        assert!(scope.clear().is_some());
    }
}

/// The waiter has looked and is about to sleep when the thread acknowledges: its wake-up must not be lost.
#[test]
fn a_wake_up_that_races_with_falling_asleep_is_not_lost() {
    let _t = common::begin();
    let (ask, to_ask) = mpsc::channel::<Remote>();
    let (answers, answered) = mpsc::channel();
    let waiter = std::thread::spawn(move || {
        for remote in to_ask {
            remote.interrupt_once();
            answers.send(()).unwrap();
            let status = remote.wait(Duration::MAX);
            answers.send(()).unwrap();
            assert_ne!(status, Status::StillRunning);
        }
    });
    let mut random = common::Random::new();
    for round in 0..common::rounds("EINTR_WAIT_ROUNDS", 5000) {
        let scope = Scope::enter(libc::SIGUSR1).unwrap();
        ask.send(scope.remote()).unwrap();
        answered.recv().unwrap();
        (0..random.below(3000)).for_each(|_| std::hint::spin_loop());
        match round % 3 {
            0 => assert!(eintr::check().is_err()),
            1 => assert!(scope.clear().is_some()),
            _ => drop(scope),
        }
        answered.recv().unwrap();
    }
    drop(ask);
    waiter.join().unwrap();
}

#[test]
fn a_drop_guard_interrupts_when_it_drops_unless_it_was_disarmed() {
    let _t = common::begin();
    let scope = Scope::enter(libc::SIGUSR1).unwrap();
    let remote = scope.remote().drop_guard().disarm();
    assert!(scope.interrupted().is_none());
    let guard: DropGuard = remote.clone().drop_guard();
    assert!(scope.interrupted().is_none() && format!("{guard:?}").contains("Remote"));
    drop(guard);
    assert!(scope.clear().is_some());
    std::mem::forget(remote.clone().drop_guard());
    assert!(scope.clear().is_none());
    assert_eq!(remote.interrupt(), Delivery::Sent, "the disarmed one is as good as any");
    drop(scope);
    drop(remote.drop_guard()); // nobody is there: nothing happens
}

#[test]
fn the_drop_guard_of_another_thread_ends_the_call_when_its_work_is_over() {
    let _t = common::begin();
    let (worker, _keep) = reader(libc::SIGUSR1);
    common::wait_blocked_in(worker.tid, libc::SYS_read);
    let guard = worker.remote.clone().drop_guard();
    std::thread::spawn(move || drop(guard)).join().unwrap();
    assert!(worker.thread.join().unwrap().unwrap_err().interrupted().is_some());
}

#[test]
fn a_tickets_remote_works_before_there_is_a_scope() {
    let _t = common::begin();
    let before = State::now();
    for request in [Remote::interrupt, Remote::interrupt_once] {
        let (ticket, remote) = Ticket::new();
        assert!(!remote.is_closed() && !remote.wait_closed(Duration::ZERO) && !format!("{ticket:?}").is_empty());
        assert_eq!(remote.wait(Duration::ZERO), Status::Acknowledged, "nothing was asked");
        assert_eq!([request(&remote), request(&remote)], [Delivery::Held, Delivery::Held]);
        assert_eq!(remote.wait(Duration::ZERO), Status::StillRunning);
        assert!(eintr::check().is_ok() && !eintr::is_interruptible(), "it is nobody's yet");
        assert_eq!(State::now(), before, "a ticket touches no signal");
        let (from, _keep) = common::pipe();
        let entered = std::thread::spawn(move || {
            let scope = ticket.enter(real_time()).unwrap();
            let never = eintr::retry(|| nix::unistd::read(&from, &mut [0; 8])); // the very first look
            (never, scope.interrupted(), scope.clear(), eintr::check())
        });
        let (never, interrupted, cleared, after) = entered.join().unwrap();
        assert!(never.unwrap_err().interrupted().is_some() && interrupted.is_some() && cleared.is_some());
        assert!(after.is_ok());
        is_gone(&remote);
    }
}

#[test]
fn a_ticket_may_be_entered_like_any_scope_and_its_remote_stays() {
    let _t = common::begin();
    let before = State::now();
    for sig in kinds() {
        let outer = Scope::enter(sig).unwrap();
        let (ticket, remote) = Ticket::new();
        let inner = ticket.enter(ScopeOptions::new(sig)).unwrap();
        assert!(inner.interrupted().is_none() && eintr::check().is_ok());
        assert_eq!(remote.interrupt(), Delivery::Sent);
        assert!(inner.interrupted().is_some() && outer.interrupted().is_none());
        assert_eq!(inner.remote().wait(Duration::ZERO), Status::StillRunning);
        assert!(eintr::check().is_err());
        assert_eq!(remote.wait(Duration::ZERO), Status::Acknowledged);
        drop(outer);
        assert!(!remote.is_closed() && eintr::check().is_err());
        drop(inner);
        is_gone(&remote);
        assert_eq!(State::now(), before);
    }
}

#[test]
fn the_remote_of_a_dropped_ticket_is_gone_and_who_waits_is_woken() {
    let _t = common::begin();
    for interrupted in [false, true] {
        let (ticket, remote) = Ticket::new();
        if interrupted {
            assert_eq!(remote.interrupt(), Delivery::Held);
        }
        let ends = waiter(&remote, |r| r.wait_closed(Duration::MAX));
        let waits = interrupted.then(|| waiter(&remote, |r| r.wait(Duration::MAX)));
        drop(ticket);
        assert!(ends.join().unwrap());
        assert!(waits.is_none_or(|w| w.join().unwrap() == Status::Closed));
        is_gone(&remote);
        let scope = Scope::enter(libc::SIGUSR1).unwrap();
        assert!(scope.interrupted().is_none() && eintr::check().is_ok(), "what it kept is nobody's");
    }
}

/// The request comes while the ticket is being entered, before, at, or after the opening of the gate: it is pending in every case.
#[test]
fn a_request_that_races_with_entering_is_never_lost() {
    let _t = common::begin();
    let (ask, to_ask) = mpsc::channel::<Remote>();
    let (answers, answered) = mpsc::channel();
    std::thread::spawn(move || {
        for remote in to_ask {
            answers.send(remote.interrupt_once()).unwrap();
        }
    });
    let mut random = common::Random::new();
    let (mut kept, mut sent) = (0, 0);
    for round in 0..common::rounds("EINTR_TICKET_ROUNDS", 5000) {
        let (ticket, remote) = Ticket::new();
        ask.send(remote).unwrap();
        (0..random.below(2000)).for_each(|_| std::hint::spin_loop());
        let scope = ticket.enter(kinds()[round as usize % 2]).unwrap();
        match answered.recv().unwrap() {
            Delivery::Held => kept += 1,
            Delivery::Sent => sent += 1,
            other => panic!("round {round}: {other:?}"),
        }
        assert!(eintr::check().is_err() && scope.interrupted().is_some(), "round {round}");
    }
    println!("{kept} kept, {sent} sent");
}

static IN_HANDLER: AtomicPtr<Remote> = AtomicPtr::new(std::ptr::null_mut());
static HANDLED: AtomicU64 = AtomicU64::new(0);

extern "C" fn interrupt_in_handler(_: i32) {
    if let Some(remote) = unsafe { IN_HANDLER.load(SeqCst).as_ref() } {
        remote.interrupt();
        remote.interrupt_once();
        remote.is_closed();
    }
    HANDLED.fetch_add(1, SeqCst);
}

/// Which remote the handler interrupts; leaked, since a handler may be running.
fn from_handler(remote: Remote) {
    IN_HANDLER.store(Box::into_raw(Box::new(remote)), SeqCst);
}

fn tgkill(tid: libc::pid_t, sig: i32) {
    assert_eq!(call(libc::SYS_tgkill, [common::getpid() as usize, tid as usize, sig as usize, 0, 0, 0]), 0);
}

#[test]
fn a_handler_may_interrupt_the_thread_it_runs_on_and_any_other() {
    let _t = common::begin();
    let was = common::install(libc::SIGUSR2, interrupt_in_handler as *const () as usize, 0, &[]);
    for sig in kinds() {
        let (worker, _keep) = reader(sig);
        from_handler(worker.remote.clone());
        common::wait_blocked_in(worker.tid, libc::SYS_read);
        tgkill(worker.tid, libc::SIGUSR2);
        assert!(worker.thread.join().unwrap().unwrap_err().interrupted().is_some(), "on the thread itself");

        let (worker, _keep) = reader(sig);
        from_handler(worker.remote.clone());
        common::wait_blocked_in(worker.tid, libc::SYS_read);
        tgkill(common::gettid(), libc::SIGUSR2);
        assert!(worker.thread.join().unwrap().unwrap_err().interrupted().is_some(), "on another");
    }
    common::restore(libc::SIGUSR2, was);
}

/// The handler interrupts while the thread below it is itself inside `interrupt`, or inside enter, clear or drop: a lock there would deadlock,
/// and a sender left inside the gate would make drop wait for ever.
#[test]
fn a_handler_may_interrupt_whatever_call_of_ours_it_broke() {
    let _t = common::begin();
    let was = common::install(libc::SIGUSR2, interrupt_in_handler as *const () as usize, libc::SA_RESTART, &[]);
    let before = State::now();
    let over = Arc::new(AtomicBool::new(false));
    let rounds = common::rounds("EINTR_HANDLER_ROUNDS", 300);
    let (stop, stopped) = (over.clone(), over.clone());
    let scopes = scoped(libc::SIGUSR1, move |scope| {
        from_handler(scope.remote());
        let mut cleared = 0;
        while !stop.load(SeqCst) {
            let inner = Scope::enter(real_time()).unwrap();
            from_handler(inner.remote());
            let _ = eintr::check();
            cleared += u64::from(inner.clear().is_some());
            drop(inner);
            from_handler(scope.remote());
            cleared += u64::from(scope.clear().is_some());
        }
        cleared
    });
    let remote = scopes.remote.clone();
    let sends = scoped(libc::SIGUSR1, move |_| {
        while !stopped.load(SeqCst) {
            remote.interrupt();
        }
    });
    for round in 0..rounds {
        let handled = HANDLED.load(SeqCst);
        tgkill(if round % 2 == 0 { scopes.tid } else { sends.tid }, libc::SIGUSR2);
        common::wait_until(|| HANDLED.load(SeqCst) > handled);
    }
    over.store(true, SeqCst);
    assert!(scopes.thread.join().unwrap() > 0);
    sends.thread.join().unwrap();
    assert_eq!(State::now(), before);
    common::restore(libc::SIGUSR2, was);
}

/// The writer stores, relaxed, and interrupts, twice; the second request finds the same one pending, makes no system call, and must publish all the
/// same. When the writer says (relaxed, too) that both are acknowledged, the reader has seen the second value.
#[test]
fn what_was_written_before_an_interrupt_is_visible_to_who_acknowledges_it() {
    let _t = common::begin();
    let [written, settled, round] = [(); 3].map(|()| Arc::new(AtomicU64::new(0)));
    let scope = Scope::enter(libc::SIGUSR1).unwrap();
    let (remote, w, s, r) = (scope.remote(), written.clone(), settled.clone(), round.clone());
    let rounds = common::rounds("EINTR_VISIBLE_ROUNDS", 1000);
    let writer = std::thread::spawn(move || {
        for n in 1..=rounds {
            w.store(2 * n - 1, Relaxed);
            remote.interrupt();
            w.store(2 * n, Relaxed);
            remote.interrupt();
            assert_eq!(remote.wait(Duration::MAX), Status::Acknowledged);
            s.store(n, Relaxed);
            common::wait_until(|| r.load(Relaxed) == n);
        }
    });
    for n in 1..=rounds {
        let mut seen = 0;
        while settled.load(Relaxed) != n {
            if scope.clear().is_some() {
                seen = written.load(Relaxed);
            }
        }
        assert_eq!(seen, 2 * n);
        round.store(n, Relaxed);
    }
    writer.join().unwrap();
}

#[test]
fn a_remote_may_be_used_by_many_threads_at_once() {
    let _t = common::begin();
    let before = State::now();
    let over = Arc::new(AtomicBool::new(false));
    for sig in kinds() {
        over.store(false, SeqCst);
        let scope = Scope::enter(sig).unwrap();
        let senders: Vec<_> = (0..3)
            .map(|_| {
                let (remote, over) = (scope.remote(), over.clone());
                std::thread::spawn(move || while !over.load(SeqCst) && remote.interrupt() != Delivery::Gone {})
            })
            .collect();
        for _ in 0..common::rounds("EINTR_SENDERS_ROUNDS", 60) {
            while eintr::check().is_ok() {}
            assert!(scope.clear().is_some());
        }
        drop(scope); // waits for those inside, not for those who go on asking
        over.store(true, SeqCst);
        senders.into_iter().for_each(|s| s.join().unwrap());
        assert_eq!(State::now(), before);
    }
}
