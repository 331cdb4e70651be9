//! `docs/calls.md` says what is so: its rows are the functions of `sys`, its numbers are those that the code uses, its column *plain* is the list in
//! `src/kernel/inject.rs`, and where a plain call can be made to sleep, what the kernel and the handler do with it is measured.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)] // as in tests/common

mod common;
#[path = "common/plain.rs"]
mod plain;
#[path = "common/queues.rs"]
mod queues;
#[path = "common/waiting.rs"]
mod waiting;

use common::{Action, getpid, wait_until};
use plain::{CASES, Make};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use waiting::Caller;

/// A row, by the heads of its columns.
type Row = BTreeMap<String, String>;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn cells(line: &str) -> Vec<String> {
    line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
}

/// The tables of the page.
fn tables() -> [Vec<Row>; 2] {
    let page = read("docs/calls.md");
    let mut tables = Vec::new();
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        if line.starts_with('|') && lines.peek().is_some_and(|next| next.starts_with("| ---")) {
            lines.next();
            let (heads, mut rows) = (cells(line), Vec::new());
            while let Some(line) = lines.next_if(|line| line.starts_with('|')) {
                let cells = cells(line);
                assert_eq!(cells.len(), heads.len(), "{line}");
                assert!(cells.iter().all(|cell| !cell.is_empty()), "{line}");
                rows.push(heads.iter().cloned().zip(cells).collect());
            }
            tables.push(rows);
        }
    }
    tables.try_into().expect("two tables")
}

fn rows() -> Vec<Row> {
    tables()[0].clone()
}

/// What stands between backquotes.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The cell's first word.
fn word(cell: &str) -> &str {
    cell.split([',', ' ']).next().unwrap_or(cell)
}

/// Names in `text` that follow `before`.
fn names_after(text: &str, before: &str) -> Vec<String> {
    let name = |rest: &str| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    text.match_indices(before).map(|(at, _)| name(&text[at + before.len()..])).collect()
}

fn sources(folder: &str) -> Vec<(String, String)> {
    let files = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap();
    let mut names: Vec<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names.into_iter().map(|name| (name.clone(), read(&format!("{folder}/{name}")))).collect()
}

#[test]
fn there_is_a_row_for_each_function_of_sys_and_no_other() {
    let mut functions = Vec::new();
    for (_, text) in sources("src/sys") {
        let lines = text.lines().filter_map(|l| l.strip_prefix("pub fn ").or(l.strip_prefix("pub unsafe fn ")));
        functions.extend(lines.flat_map(|line| names_after(&format!("!{line}"), "!")));
    }
    let mut exported: Vec<String> = Vec::new();
    for line in read("src/sys/mod.rs").lines().filter_map(|line| line.strip_prefix("pub use ")) {
        let names = line.split("::").last().unwrap().trim_matches(['{', '}', ';', ' ']);
        exported.extend(names.replace(['{', '}', ';'], "").split(',').map(|name| name.trim().to_owned()));
    }
    let mut documented: Vec<String> = rows().iter().flat_map(|row| quoted(&row["Call"])).collect();
    for names in [&mut functions, &mut exported, &mut documented] {
        names.sort();
    }
    assert!(functions.len() > 40, "{functions:?}");
    assert_eq!(exported, functions, "what mod.rs exports, and what is there");
    assert_eq!(documented, functions, "what docs/calls.md has, and what is there");
}

/// Every number that goes through the stub with the caller's door is in the column; those that a broken call on a socket adds are in the text above.
#[test]
fn the_numbers_are_those_that_the_code_uses() {
    let (mut used, mut beside) = (BTreeSet::new(), BTreeSet::new());
    for (file, text) in sources("src/kernel/calls") {
        used.extend(names_after(&text, "call(door, libc::SYS_"));
        beside.extend(names_after(&text, "call(Door::of(None), libc::SYS_"));
        let others = names_after(&text, "libc::SYS_").len();
        let known = names_after(&text, "call(door, libc::SYS_").len() + names_after(&text, "None), libc::SYS_").len();
        assert!(others == known || ["raw.rs", "x86_64.rs"].contains(&file.as_str()), "{file}: a number used otherwise");
    }
    let documented: BTreeSet<String> = rows().iter().flat_map(|row| quoted(&row["System call"])).collect();
    assert_eq!(documented, used);
    let text = read("docs/calls.md");
    let beside_text = text.split("also make").nth(1).and_then(|rest| rest.split('.').next()).unwrap();
    for name in beside {
        assert!(quoted(beside_text).contains(&name), "{name} is not said to be made beside");
    }
}

#[test]
fn manual_pages_are_named() {
    for row in rows() {
        let (name, section) = row["Manual"].split_once('(').expect("a section");
        assert!(!name.is_empty() && ["2)", "3)"].contains(&section), "{row:?}");
    }
}

/// What the list says of each number: when, and constants that stand there too.
fn injected() -> BTreeMap<String, (String, Vec<String>)> {
    let text = read("src/kernel/inject.rs").replace("Registers::OPEN", "libc::SYS_open");
    let body = text.split("match number {").nth(1).expect("the list").split("\n    }\n").next().unwrap();
    let mut found = BTreeMap::new();
    for arm in body.split_inclusive("When::") {
        // The names in front of a verdict; the verdict follows behind.
        let at = arm.as_ptr() as usize - body.as_ptr() as usize + arm.len();
        let when: String = body[at..].chars().take_while(char::is_ascii_alphabetic).collect();
        let is_kind = |name: &String| !name.starts_with("SYS_") && !name.contains("FLAG") && !name.contains("CLOCK");
        let constants: Vec<String> = names_after(arm, "libc::").into_iter().filter(is_kind).collect();
        for number in names_after(arm, "libc::SYS_") {
            let before = found.insert(number.clone(), (when.clone(), constants.clone()));
            assert!(before.is_none(), "{number} twice");
        }
    }
    assert!(found.len() >= 20, "the list was not understood: {found:?}");
    found
}

#[test]
fn plain_calls_are_ended_as_the_list_says() {
    let list = injected();
    let mut documented = BTreeSet::new();
    for row in tables().concat() {
        let cell = &row["Plain"];
        for number in quoted(&row["System call"]) {
            let (when, constants) = list.get(&number).cloned().unwrap_or_default();
            let expected = match when.as_str() {
                "Ran" | "RanEintrOnly" => "yes",
                "Stuck" => "second",
                "" => "no",
                other => panic!("{number}: {other} is new: describe it on the page, and here"),
            };
            assert_eq!(word(cell), expected, "{number}: {row:?}");
            assert_eq!(cell.contains("EINTR only"), when == "RanEintrOnly", "{number}");
            // Where not every call of a number is meant (tcdrain is one that is).
            if row["Call"] != "`tcdrain`" {
                assert_eq!(quoted(cell), constants, "{number}");
            }
            documented.insert(number);
        }
    }
    let missing: Vec<_> = list.keys().filter(|number| !documented.contains(*number)).collect();
    assert!(missing.is_empty(), "on the list, not on the page: {missing:?}");
}

static HANDLED: AtomicU64 = AtomicU64::new(0);

extern "C" fn count(_: libc::c_int) {
    HANDLED.fetch_add(1, Ordering::SeqCst);
}

/// A handler that is there until this value is dropped.
struct Handler(i32, Action);

impl Handler {
    fn install(sig: i32, flags: i32) -> Handler {
        Handler(sig, common::install(sig, count as *const () as usize, flags, &[]))
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        common::restore(self.0, self.1);
    }
}

/// A plain call under way on a thread.
struct Running {
    caller: Caller<Vec<i32>>,
    nr: libc::c_long,
    first: usize,
    _keeps: Box<dyn std::any::Any + Send>,
}

impl Running {
    /// Makes it so many times: what comes of it is errno, or 0, each time.
    fn start(case: plain::Plain, scope: Option<i32>, times: usize) -> Running {
        let (nr, [a, b, c, d, e, f]) = (case.nr, case.args);
        let caller = Caller::start(scope, move |_| {
            let call = || unsafe { libc::syscall(nr, a, b, c, d, e, f) };
            let errno = |r| if r < 0 { std::io::Error::last_os_error().raw_os_error().unwrap() } else { 0 };
            (0..times).map(|_| errno(call())).collect()
        });
        let running = Running { caller, nr, first: a, _keeps: case.keeps };
        wait_until(|| running.is_over() || running.sleeps());
        assert!(running.sleeps(), "it sleeps: {}", running.end()[0]);
        running
    }

    fn is_over(&self) -> bool {
        self.caller.thread.is_finished()
    }

    fn sleeps(&self) -> bool {
        let path = format!("/proc/self/task/{}/syscall", self.caller.tid);
        let line = fs::read_to_string(path).unwrap_or_default();
        line.starts_with(&format!("{} {:#x} ", common::number_in_proc(self.nr), self.first))
    }

    /// How often it has gone to sleep.
    fn switches(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/self/task/{}/status", self.caller.tid)).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.map_or(0, |count| count.trim().parse().unwrap())
    }

    fn strike(&self, sig: i32) {
        unsafe { libc::syscall(libc::SYS_tgkill, getpid(), self.caller.tid, sig) };
    }

    /// By a handler that asks for no restart.
    fn end(self) -> Vec<i32> {
        let handler = Handler::install(libc::SIGHUP, 0);
        while !self.is_over() {
            self.strike(handler.0);
            std::thread::yield_now();
        }
        self.caller.join()
    }
}

/// Whether the kernel restarts it after a handler with SA_RESTART.
fn restarts(case: plain::Plain) -> bool {
    let handler = Handler::install(libc::SIGUSR2, libc::SA_RESTART);
    let running = Running::start(case, None, 1);
    let before = HANDLED.load(Ordering::SeqCst);
    running.strike(handler.0);
    wait_until(|| HANDLED.load(Ordering::SeqCst) != before);
    wait_until(|| running.is_over() || running.sleeps());
    let restarts = !running.is_over();
    assert_eq!(running.end(), [libc::EINTR]);
    restarts
}

fn case_of(number: &str) -> Option<Make> {
    CASES.iter().find(|(name, _)| *name == number).map(|(_, make)| *make)
}

#[test]
fn the_kernel_restarts_what_is_said_to_restart() {
    if common::skipped_if_emulated(
        "what the kernel does with the calls of docs/calls.md",
        "the emulator stands between",
    ) {
        return;
    }
    let _t = common::begin();
    let mut unmeasured = BTreeSet::new();
    for row in rows() {
        let (cell, numbers) = (&row["Restarts"], quoted(&row["System call"]));
        for number in numbers.iter().filter(|_| ["yes", "no"].contains(&word(cell))) {
            match case_of(number) {
                Some(make) => {
                    let Some(case) = make() else { continue };
                    assert_eq!(restarts(case), word(cell) == "yes", "{number}");
                }
                None => drop(unmeasured.insert(number.clone())),
            }
        }
    }
    // The generator is ready since the machine started.
    assert_eq!(unmeasured, BTreeSet::from(["getrandom".to_owned()]));
    assert!(!restarts(case_of("futex with a time").unwrap()().unwrap()));
    assert!(restarts(case_of("fcntl of the open file").unwrap()().unwrap()));
    assert!(restarts(case_of("accept").unwrap()().unwrap()));
}

#[test]
fn a_socket_with_a_time_out_restarts_nothing() {
    if common::skipped_if_emulated(
        "what the kernel does with the calls of docs/calls.md",
        "the emulator stands between",
    ) {
        return;
    }
    use nix::sys::socket::{setsockopt, sockopt};
    let _t = common::begin();
    for row in rows() {
        let cell = &row["Restarts"];
        let Some(option) = cell.split("no with SO_").nth(1) else { continue };
        for number in quoted(&row["System call"]) {
            let case = case_of(&number).unwrap()().unwrap();
            let socket = unsafe { BorrowedFd::borrow_raw(case.args[0] as i32) };
            let hour = nix::sys::time::TimeVal::new(3600, 0);
            match option {
                "RCVTIMEO" => setsockopt(&socket, sockopt::ReceiveTimeout, &hour).unwrap(),
                "SNDTIMEO" => setsockopt(&socket, sockopt::SendTimeout, &hour).unwrap(),
                other => panic!("SO_{other}"),
            }
            assert!(!restarts(case), "{number} on {}", socket.as_raw_fd());
        }
    }
}

/// What a Remote does to a plain call that would be restarted: `yes`, `second` or `no`.
fn ended(number: &str, make: Make) -> Option<&'static str> {
    let behind = Handler::install(libc::SIGUSR1, libc::SA_RESTART);
    let running = Running::start(make()?, Some(behind.0), 1);
    let before = running.switches();
    let remote = running.caller.remote.clone().unwrap();
    remote.interrupt_once();
    wait_until(|| running.is_over() || (running.sleeps() && running.switches() > before));
    if running.is_over() {
        assert_eq!(running.end(), [libc::EINTR], "{number}");
        return Some("yes");
    }
    remote.interrupt();
    wait_until(|| running.is_over() || (running.sleeps() && running.switches() > before + 8));
    let is_over = running.is_over();
    assert_eq!(running.end(), [libc::EINTR], "{number}");
    Some(if is_over { "second" } else { "no" })
}

/// A thread that calls again without acknowledging.
fn told_twice(make: Make) -> Option<Vec<i32>> {
    let behind = Handler::install(libc::SIGUSR1, libc::SA_RESTART);
    let running = Running::start(make()?, Some(behind.0), 2);
    running.caller.interrupt();
    wait_until(|| running.is_over());
    Some(running.end())
}

#[test]
fn a_remote_ends_the_plain_calls_that_it_is_said_to_end() {
    if common::skipped_if_emulated(
        "what the kernel does with the calls of docs/calls.md",
        "the emulator stands between",
    ) {
        return;
    }
    let _t = common::begin();
    for row in tables().concat() {
        let restarts = row.get("Restarts").is_none_or(|cell| word(cell) == "yes");
        for number in quoted(&row["System call"]).iter().filter(|_| restarts) {
            let Some(make) = case_of(number) else { continue };
            let cell = &row["Plain"];
            let Some(how) = ended(number, make) else { continue };
            assert_eq!(how, word(cell), "{number}");
            if how != "no" {
                let second = if cell.contains("EINTR only") { libc::EINTR } else { libc::ECANCELED };
                assert_eq!(told_twice(make), Some(vec![libc::EINTR, second]), "{number}");
            }
        }
    }
}
