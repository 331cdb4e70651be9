//! The examples do what their first line says, when a person runs them: as processes of their own, with real signals from outside.

// Tests speak to the kernel themselves, so that what they see is not what the crate says.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The example's executable, beside this one. Cargo is asked to build it, since `cargo test --test examples` does not. Should the watchdog end
/// this process, the example ends too.
fn example(name: &str) -> Command {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| {
        let this = std::env::current_exe().unwrap();
        let profile = this.parent().and_then(Path::parent).expect("PROFILE/deps/this");
        match std::env::var_os("CARGO") {
            Some(cargo) => build_examples(Command::new(cargo), profile),
            None => println!("SKIPPED: building the examples anew (not started by cargo); those that are there run"),
        }
        profile.join("examples")
    });
    let mut command = common::program(directory.join(name));
    let end_with_this_thread = || ok(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } == 0);
    // SAFETY: prctl(2), which is async-signal-safe, is all that runs between fork and exec.
    unsafe { command.pre_exec(end_with_this_thread) };
    command
}

/// Builds them where this test lies: TARGET/PROFILE, or TARGET/TRIPLE/PROFILE after `cargo test --target TRIPLE`.
fn build_examples(mut cargo: Command, profile: &Path) {
    let name = profile.file_name().and_then(|name| name.to_str()).expect("a profile's name");
    let mut target = profile.parent().expect("TARGET/PROFILE");
    cargo.args(["build", "--quiet", "--examples", "--profile", if name == "debug" { "dev" } else { name }]);
    if let Some(triple) = target.file_name().and_then(|name| name.to_str()).filter(|name| name.contains("-linux-")) {
        cargo.args(["--target", triple]);
        target = target.parent().expect("TARGET/TRIPLE");
    }
    cargo.arg("--target-dir").arg(target);
    cargo.arg("--manifest-path").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
    assert!(cargo.status().unwrap().success(), "the examples compile");
}

/// The command with SIGINT at `action` when the program starts.
fn with_sigint(mut command: Command, action: libc::sighandler_t) -> Command {
    let set = move || ok(unsafe { libc::signal(libc::SIGINT, action) } != libc::SIG_ERR);
    // SAFETY: signal(2), which is async-signal-safe, is all that runs between fork and exec.
    unsafe { command.pre_exec(set) };
    command
}

fn ok(done: bool) -> std::io::Result<()> {
    if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// What an example printed, once it has ended well.
fn output(command: &mut Command) -> String {
    let out = command.stdin(Stdio::null()).output().expect("the example starts");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{}\n{text}{}", out.status, String::from_utf8_lossy(&out.stderr));
    text
}

#[test]
fn lock_with_timeout_gives_up_and_later_has_the_lock() {
    if common::skipped_if_emulated("the example lock_with_timeout", "it starts itself again, which needs the emulator")
    {
        return;
    }
    let _t = common::begin();
    let began = Instant::now();
    let text = output(example("lock_with_timeout").arg("200"));
    assert!(began.elapsed() >= Duration::from_millis(200), "it waits as long as it was told\n{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("process ") && lines[0].ends_with(": holds the lock"), "{text}");
    assert_eq!(lines[1], "within 200ms: not locked: interrupted by a remote", "{text}");
    for (line, field) in lines[2..5].iter().zip(["SigBlk:", "SigIgn:", "SigCgt:"]) {
        assert!(line.starts_with(field), "{text}");
    }
    assert_eq!(lines[5..], ["actions and mask are as before", "once it is free: locked"], "{text}");
}

#[test]
fn watchdog_brings_every_worker_back_and_leaves_the_finished_one_alone() {
    let _t = common::begin();
    let text = output(example("watchdog").arg("100"));
    let mut lines = text.lines();
    for call in ["read", "recv", "accept", "lock", "waitpid"] {
        // `Held`, on a machine so busy that the worker has not entered its scope by then.
        let line = lines.next().unwrap_or_default();
        let rest = line.strip_prefix(call).unwrap_or_default();
        assert!([": Sent, ", ": Held, "].iter().any(|d| rest == format!("{d}interrupted by a remote")), "{text}");
    }
    assert_eq!(lines.next(), Some("nothing: Gone, done in time"), "{text}");
    assert_eq!(lines.next(), None, "{text}");
}

#[test]
fn race_loses_by_hand_and_not_by_the_stub() {
    if common::skipped_if_emulated("the example race", "it looks for its own number of read(2) in /proc") {
        return;
    }
    let _t = common::begin();
    let text = output(&mut example("race"));
    let lines: Vec<&str> = text.lines().collect();
    let lost: u64 = lines[0]
        .strip_prefix("naive: 10000 rounds, ")
        .and_then(|rest| rest.strip_suffix(" lost"))
        .and_then(|lost| lost.parse().ok())
        .unwrap_or_else(|| panic!("{text}"));
    assert!(lost > 0, "the naive one is not seen to lose\n{text}");
    assert_eq!(lines[1..], ["eintr: 10000 rounds, 0 lost"], "{text}");
}

#[test]
fn c_library_ends_pclose_and_leaves_the_child_to_itself() {
    let _t = common::begin();
    let text = output(example("c_library").arg("100"));
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("pclose: interrupted by a remote"), "{text}");
    assert_eq!(lines.next(), Some("the watchdog: (Sent, Acknowledged)"), "{text}");
    assert_eq!(lines.next(), Some("the child: exit status: 7"), "{text}");
    assert_eq!(lines.next(), None, "{text}");
}

#[test]
fn resolve_with_deadline_tells_what_came_of_it() {
    let _t = common::begin();
    assert_eq!(output(example("resolve_with_deadline").args(["localhost", "3600000"])), "an address, in time\n");
    let late = output(example("resolve_with_deadline").args(["localhost", "0"]));
    assert!(late.contains(", too late: after "), "{late}");
}

/// `ctrl_c` with SIGINT at its default: a shell's background job, which CI may be, has it ignored. No event comes within the life of the test,
/// so nothing but the signal ends the loop.
fn ctrl_c(clean_up: &str) -> Running {
    let mut command = with_sigint(example("ctrl_c"), libc::SIG_DFL);
    command.args(["3600000", clean_up]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("the example starts");
    let lines = BufReader::new(child.stdout.take().unwrap());
    Running { child, lines }
}

struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
    fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).unwrap();
        rest
    }
    /// A real one, to the process, as a terminal sends it.
    fn interrupt(&self) {
        assert_eq!(unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGINT) }, 0);
    }
    /// Waits until its main thread sleeps in recv(2).
    fn wait_in_recv(&self) {
        common::wait_process_blocked_in(self.child.id() as libc::pid_t, libc::SYS_recvfrom);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_first_ctrl_c_ends_the_loop_and_the_clean_up_runs() {
    let _t = common::begin();
    let mut run = ctrl_c("50");
    assert_eq!(run.line(), "waiting for events; Ctrl+C ends it");
    run.wait_in_recv();
    run.interrupt();
    assert_eq!(run.line(), "interrupted by a signal; cleaning up for 50ms; Ctrl+C kills");
    assert_eq!(run.rest(), "clean\n");
    assert!(run.child.wait().unwrap().success());
}

/// The scope lives on through the clean-up, and its interrupt is acknowledged by then: under `InterruptOnce` that must not make the next
/// SIGINT a first one again.
#[test]
fn the_second_ctrl_c_kills_in_the_clean_up_too() {
    let _t = common::begin();
    let mut run = ctrl_c("3600000");
    assert_eq!(run.line(), "waiting for events; Ctrl+C ends it");
    run.wait_in_recv();
    run.interrupt();
    assert_eq!(run.line(), "interrupted by a signal; cleaning up for 3600s; Ctrl+C kills");
    run.interrupt();
    let status = run.child.wait().unwrap();
    assert_eq!(status.signal(), Some(libc::SIGINT), "{status}");
    assert_eq!(run.rest(), "");
}

/// Interleaving: the second SIGINT comes while the handler runs for the first, or before the thread has come back from `recv`: not before the
/// clean-up nor in it. It kills all the same. (Before the handler has begun the kernel merges the two, and a third is needed.)
#[test]
fn a_second_ctrl_c_right_behind_the_first_kills() {
    let _t = common::begin();
    for _ in 0..20 {
        let mut run = ctrl_c("3600000");
        assert_eq!(run.line(), "waiting for events; Ctrl+C ends it");
        run.wait_in_recv();
        run.interrupt();
        run.interrupt();
        match run.line().as_str() {
            "" => {} // killed before it could say anything
            "interrupted by a signal; cleaning up for 3600s; Ctrl+C kills" => run.interrupt(),
            other => panic!("{other}"),
        }
        let status = run.child.wait().unwrap();
        assert_eq!(status.signal(), Some(libc::SIGINT), "{status}");
    }
}

#[test]
fn an_ignored_ctrl_c_is_refused_with_a_reason() {
    let _t = common::begin();
    let out = with_sigint(example("ctrl_c"), libc::SIG_IGN).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success() && text.contains("SIGINT") && text.contains("Ignored"), "{}: {text}", out.status);
}
