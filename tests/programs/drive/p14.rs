//! Program 14: the rollback is not broken by the interrupt that caused it, and takes two seconds at most.
// Pipes and locks are looked into by bare calls.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

#[path = "../../common/mod.rs"]
mod common;
#[path = "../../common/shielding.rs"]
mod shielding;

/// It compiles as it stands, to the byte.
#[rustfmt::skip]
#[allow(dead_code)] // nothing in here can be called from outside
#[path = "../p14_shielded_cleanup.rs"]
mod as_it_stands;

/// The same, to be called; see build.rs.
mod program {
    include!(concat!(env!("OUT_DIR"), "/p14_shielded_cleanup.rs"));

    /// What `main` makes, over this log.
    pub(crate) fn transaction(log: File) -> impl Sized {
        Txn { log: Interruptible::new(log) }
    }

    pub(crate) fn run() -> io::Result<()> {
        main()
    }
}

use common::State;
use eintr::{Reason, Remote, Scope, Status};
use shielding::{beside_two_senders, each};
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

const ROLLBACK: &[u8] = b"rollback\n";
const SIG: i32 = libc::SIGUSR1;

/// A log that takes no more: both ends of a full pipe, and how much is in it.
fn full_pipe() -> (File, File, usize) {
    let (reader, writer) = common::pipe();
    let (reader, mut writer) = (File::from(reader), File::from(writer));
    let size = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) } as usize;
    std::io::Write::write_all(&mut writer, &vec![b'-'; size]).unwrap();
    (reader, writer, size)
}

fn bytes_in(pipe: &File) -> usize {
    let mut n = 0;
    assert_eq!(unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &mut n) }, 0);
    n as usize
}

/// What the outer scope's interrupt is after the rollback: kept, and now it acts.
fn the_interrupt_is_still_there(scope: &Scope) {
    assert_eq!(scope.interrupted().map(|i| i.reason()), Some(Reason::Remote));
    assert_eq!(scope.remote().wait(Duration::ZERO), Status::StillRunning, "the rollback has not acknowledged it");
    assert!(eintr::check().is_err() && scope.clear().is_some());
    each(&shielding::PLAIN).expect("nothing is left of the rollback's own limit");
}

#[test]
fn a_rollback_into_a_log_that_nobody_reads_ends_by_its_own_limit() {
    let _t = common::begin();
    let before = State::now();
    let scope = Scope::enter(SIG).unwrap();
    let (reader, writer, size) = full_pipe();
    let transaction = program::transaction(writer);
    assert_ne!(scope.remote().interrupt(), eintr::Delivery::Gone);
    let began = Instant::now();
    drop(transaction);
    assert!(began.elapsed() >= Duration::from_secs(2), "neither the interrupt nor anything else ends it sooner");
    assert_eq!(bytes_in(&reader), size, "and nothing was written");
    the_interrupt_is_still_there(&scope);
    drop(scope);
    assert_eq!(State::now(), before);
}

/// Interrupted before, and all the time; the log is full until the rollback waits for it, and then somebody reads.
#[test]
fn a_rollback_into_a_log_that_is_read_is_whole() {
    let _t = common::begin();
    let before = State::now();
    for _ in 0..common::rounds("EINTR_ROUNDS", 200) {
        let scope = Scope::enter(SIG).unwrap();
        let (mut reader, writer, size) = full_pipe();
        let (transaction, tid, ended) = (program::transaction(writer), common::gettid(), AtomicBool::new(false));
        scope.remote().interrupt();
        let (all, _) = beside_two_senders(&[scope.remote()], Remote::interrupt, || {
            std::thread::scope(|threads| {
                let ended = &ended;
                let read = threads.spawn(move || {
                    common::wait_until(|| common::is_blocked_in(tid, libc::SYS_write) || ended.load(SeqCst));
                    let mut all = Vec::new();
                    reader.read_to_end(&mut all).unwrap();
                    all
                });
                drop(transaction);
                ended.store(true, SeqCst);
                read.join().unwrap()
            })
        });
        assert_eq!(all[size..], *ROLLBACK, "{} bytes behind the {size}", all.len() - size);
        the_interrupt_is_still_there(&scope);
    }
    assert_eq!(State::now(), before);
}

/// A directory of its own for a program that works where it stands.
fn directory(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("eintr-p14-{}-{name}", common::getpid()));
    fs::create_dir(&path).unwrap();
    path
}

/// Runs the executable there with this input; whether it said that all went well, and what is in its log.
fn executable(name: &str, input: Stdio) -> (bool, String) {
    let path = directory(name);
    let mut command = common::program(env!("CARGO_BIN_EXE_p14_shielded_cleanup"));
    let out = command.current_dir(&path).stdin(input).output().unwrap();
    let log = fs::read_to_string(path.join("log")).unwrap();
    fs::remove_dir_all(path).unwrap();
    (out.status.success(), log)
}

#[test]
fn the_program_commits_what_it_has_read_and_rolls_back_what_it_cannot_read() {
    let _t = common::begin();
    let (reader, writer) = std::io::pipe().unwrap();
    std::io::Write::write_all(&mut { writer }, b"committed\n").unwrap();
    assert_eq!(executable("commits", reader.into()), (true, "committed\n".to_owned()));
    let unreadable = File::open(std::env::temp_dir()).unwrap();
    assert_eq!(executable("rolls-back", unreadable.into()), (false, "rollback\n".to_owned()));
}

/// `main` itself, whose scope nobody else knows: nothing of it is left.
#[test]
fn after_main_all_is_as_before() {
    common::in_own_process("after_main_all_is_as_before", || {
        let path = directory("main");
        std::env::set_current_dir(&path).unwrap();
        let before = State::now();
        program::run().unwrap(); // standard input is at its end
        assert_eq!(State::now(), before);
        fs::remove_dir_all(path).unwrap();
    });
}
