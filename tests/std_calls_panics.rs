//! Where std takes ECANCELED for impossible: `docs/guide.md` names the functions that panic when a Remote interrupts them, and what says nothing at all.
//! Each of them leaves its child running, or its bytes unwritten. (`print!` and the like are in `tests/std_calls_stdio.rs`.)
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks)] // as in tests/common

mod common;
#[path = "common/counting.rs"]
mod counting;
#[path = "common/look.rs"]
mod look;
#[path = "common/std_call.rs"]
mod std_call;
#[path = "common/std_ends.rs"]
mod std_ends;
#[path = "common/suite.rs"]
mod suite;
#[path = "common/waiting.rs"]
mod waiting;

use eintr::ScopeOptions;
use libc::{SYS_read, SYS_wait4, SYS_write, c_long};
use std::io::{self, BufWriter, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use std_ends::{RECEIVES, full_file, reap_all};
use suite::{pipe_files, readable};
use waiting::Caller;

/// What it said when it panicked, after an interrupt that came while it slept in the last of these.
fn panic_of<T: Send + 'static>(sleeps_in: &[c_long], call: impl FnOnce() -> T + Send + 'static) -> String {
    let caller = Caller::with(Some(ScopeOptions::new(libc::SIGUSR1)), move |_| {
        catch_unwind(AssertUnwindSafe(call)).map(|_| "it did not panic")
    });
    common::wait_until(|| sleeps_in.iter().any(|nr| common::is_blocked_in(caller.tid, *nr)));
    caller.interrupt();
    let panic = caller.join().expect_err("it panics");
    let text = panic.downcast_ref::<String>().cloned();
    text.unwrap_or_else(|| (*panic.downcast_ref::<&str>().expect("a text")).to_owned())
}

/// A program that does nothing before it is told to, with its output in a pipe; whoever is told gives its descriptors back.
fn output_of(
    script: &str,
    call: fn(&mut Command) -> io::Result<Output>,
) -> (impl FnOnce() -> io::Result<Output>, std::fs::File) {
    let (input, to) = pipe_files();
    let script = script.to_owned();
    let call = move || call(Command::new("sh").args(["-c", &script]).stdin(input).stdout(Stdio::piped()));
    (call, to)
}

#[test]
fn the_output_of_a_child_with_one_pipe_that_is_open_panics() {
    let _t = common::begin();
    let one: fn(&mut Command) -> io::Result<Output> = |command| command.stderr(Stdio::null()).output();
    let spawned: fn(&mut Command) -> io::Result<Output> = |command| command.spawn()?.wait_with_output();
    for (script, call) in [("cat", one), ("cat", spawned), ("exec 2>&-; cat", Command::output)] {
        let (call, to) = output_of(script, call);
        let text = panic_of(&[SYS_read], call);
        assert!(text.contains("called `Result::unwrap()`") && text.contains("125"), "{text}");
        drop(to);
        reap_all();
    }
}

#[test]
fn the_output_of_a_child_whose_pipes_are_closed_is_canceled_as_a_wait() {
    let _t = common::begin();
    let (call, to) = output_of("exec >&- 2>&-; read line", Command::output);
    let caller = Caller::with(Some(ScopeOptions::new(libc::SIGUSR1)), move |_| call().map(drop));
    common::wait_blocked_in(caller.tid, SYS_wait4);
    caller.interrupt();
    assert_eq!(caller.join().unwrap_err().raw_os_error(), Some(libc::ECANCELED));
    drop(to);
    reap_all();
}

// With `pre_exec` std forks by itself, and reads from a pipe whether the child has come to its exec; broken, it waits for the child, and does not bear that
// this is broken too.
#[test]
fn spawn_panics_while_the_child_is_not_yet_at_its_exec() {
    let _t = common::begin();
    let (gate, mut to) = pipe_files();
    let text = panic_of(RECEIVES, move || {
        let (fd, limit) = (gate.as_raw_fd(), common::patience(Duration::from_secs(60)).as_secs() as u32);
        let wait = move || {
            unsafe { libc::alarm(limit) }; // it does not outlive a test that fails
            let mut byte = 0u8;
            let n = unsafe { libc::read(fd, (&raw mut byte).cast(), 1) };
            if n == 1 { Ok(()) } else { Err(io::Error::last_os_error()) }
        };
        let mut command = Command::new("true");
        let child = unsafe { command.pre_exec(wait) }.spawn();
        drop(gate);
        child
    });
    assert_eq!(text, "wait() should either return Ok or panic");
    to.write_all(b"!").unwrap();
    reap_all();
}

// Its drop tries, and cannot tell.
#[test]
fn a_buf_writer_that_is_dropped_loses_what_it_cannot_write() {
    let _t = common::begin();
    let full = full_file();
    let (mut writer, filling) = (BufWriter::new(full.to), full.filling);
    writer.write_all(b"hello").unwrap();
    let caller = Caller::with(Some(ScopeOptions::new(libc::SIGUSR1)), move |scope| {
        drop(writer);
        scope.unwrap().interrupted().is_some()
    });
    common::wait_blocked_in(caller.tid, SYS_write);
    caller.interrupt();
    assert!(caller.join());
    assert_eq!(readable(&full.from), filling);
}
