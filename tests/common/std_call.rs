//! Calls of std as the rows of a table, each looked at both ways: under signals that are not ours it does with a scope what it does without one, and
//! a Remote makes of it what the table says. A test file takes it by `#[path = "common/std_call.rs"] mod std_call;` beside `mod common;` and the files
//! that the `use` lines below name.
#![allow(dead_code, missing_docs, unreachable_pub)]

#[path = "std_row.rs"]
mod row;

use crate::common::{self, State};
use crate::counting::kinds;
use crate::look::Look;
use crate::suite::send;
use crate::waiting::Caller;
use eintr::{Delivery, Foreign, Interrupted, Reason, ScopeOptions, Status};
use libc::{c_int, c_long};
use row::{BEHIND, Behind};
use std::collections::BTreeSet;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::time::Duration;

#[allow(unused_imports)] // not every file needs each
pub use row::{Call, Fate, Row};

/// What a call answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Ok(usize),
    Os(c_int),
    Interrupted,
    /// An error without a number.
    Other(io::ErrorKind),
}

impl From<io::Result<usize>> for Answer {
    fn from(result: io::Result<usize>) -> Answer {
        match result {
            Ok(n) => Answer::Ok(n),
            Err(e) => match (Interrupted::find(&e), e.raw_os_error()) {
                (Some(interrupt), _) if interrupt.reason() == Reason::Remote => Answer::Interrupted,
                (None, Some(errno)) => Answer::Os(errno),
                _ => Answer::Other(e.kind()),
            },
        }
    }
}

/// Whether the thread sleeps in one of these, and nothing is on its way to it.
fn rests(look: &Look, sleeps_in: &[c_long], sig: c_int) -> bool {
    let there =
        || look.sleeps_in().is_some_and(|(nr, _)| sleeps_in.iter().any(|wanted| common::look_alike(nr, *wanted)));
    there() && look.is_at_rest() && !look.is_pending(sig) && there()
}

/// Waits until it does; an end of the thread before that is told by a panic.
#[track_caller]
fn wait_at_rest<T>(caller: &Caller<T>, look: &Look, sleeps_in: &[c_long], sig: c_int) {
    common::wait_until(|| caller.thread.is_finished() || rests(look, sleeps_in, sig));
    assert!(!caller.thread.is_finished(), "it ends without sleeping in {sleeps_in:?}");
}

/// How often the interrupt wakes a call that goes back to sleep before that call is held to be one that does not come back; more often where it should.
/// The third landing ends what can be ended. (An emulator's threads sleep for reasons of their own.)
fn patience(comes_back: bool) -> u64 {
    match comes_back {
        true if common::emulated() => 200,
        true => 20,
        false => 8,
    }
}

/// What a Remote makes of a call.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    ComesBack(Answer),
    Stays,
}

/// Interrupts the call while it sleeps. If it comes back it is made again, and then, or if it does not, let go: it must end as if nothing had been.
fn interrupted(row: &Row, sig: c_int, by_retry: bool, patience: u64) -> Outcome {
    let Call { sleeps_in, mut call, provide, expected, ends_alone } = (row.make)();
    let (tell, told) = mpsc::channel();
    let caller = Caller::with(Some(ScopeOptions::new(sig)), move |scope| {
        let scope = scope.expect("a scope");
        let first = Answer::from(if by_retry { eintr::retry(&mut call) } else { call() });
        // One that has stayed has not swallowed the interrupt.
        assert_eq!(scope.clear().map(|interrupt| interrupt.reason()), Some(Reason::Remote), "after {first:?}");
        let _ = tell.send(first);
        if !matches!(first, Answer::Ok(_)) {
            let _ = tell.send(Answer::from(call()));
        }
    });
    let (look, remote) = (Look::at(caller.tid), caller.remote.clone().expect("a scope"));
    wait_at_rest(&caller, &look, sleeps_in, sig);
    let slept = look.sleeps();
    assert_eq!(remote.interrupt(), Delivery::Sent);
    let mut first = None;
    common::wait_until(|| {
        let stays = look.sleeps() >= slept + patience && rests(&look, sleeps_in, sig);
        // One that has come back has told so before it sleeps there again.
        first = told.try_recv().ok();
        stays || first.is_some() || caller.thread.is_finished()
    });
    let stays = first.is_none() && !caller.thread.is_finished();
    if stays && !ends_alone {
        assert_eq!(remote.wait(Duration::from_millis(1)), Status::StillRunning);
    } else if first.is_some_and(|first| !matches!(first, Answer::Ok(_))) {
        assert_eq!(remote.wait(Duration::ZERO), Status::Acknowledged);
        wait_at_rest(&caller, &look, sleeps_in, sig);
    }
    let after = provide(caller.tid);
    caller.join();
    let answers: Vec<_> = first.into_iter().chain(told.try_iter()).collect();
    after();
    assert_eq!(answers.last(), Some(&Answer::Ok(expected)), "{answers:?}");
    match answers[..] {
        [came, _] => Outcome::ComesBack(came),
        [_] if stays || ends_alone => Outcome::Stays,
        _ => panic!("it came back before it was let go: {answers:?}"),
    }
}

/// Each row, interrupted, over each action; with and without `retry` where it should come back.
pub fn a_remote_makes_of_them_what_the_table_says(rows: &[Row]) {
    each(rows, |row| {
        for (sig, behind) in pairs(kinds(), BEHIND) {
            if row.slow && (sig, behind) != (kinds()[0], Behind::Default) {
                continue;
            }
            let fate = row.fate.over(behind);
            for by_retry in [false, true] {
                if by_retry && fate.is_none() {
                    continue;
                }
                let told = |errno| if by_retry { Answer::Interrupted } else { Answer::Os(errno) };
                let wanted = fate.map_or(Outcome::Stays, |errno| Outcome::ComesBack(told(errno)));
                let handler = behind.install(sig);
                let outcome = interrupted(row, sig, by_retry, patience(fate.is_some()));
                let at = format!("signal {sig}, {behind:?} behind, by retry: {by_retry}");
                assert_eq!(outcome, wanted, "{at}");
                assert_eq!(handler.map_or(0, |handler| handler.runs()), 0, "{at}: the handler behind");
            }
        }
    });
}

/// Who is there when somebody else's signals come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scoped {
    No,
    By(Foreign),
}

const SIGNALS: u64 = 3;

/// What the call answers, in order, when three signals that nobody of ours has sent come while it sleeps, each when it sleeps again.
fn story(row: &Row, sig: c_int, scoped: Scoped) -> Vec<Answer> {
    let Call { sleeps_in, mut call, provide, expected, ends_alone } = (row.make)();
    let options = match scoped {
        Scoped::No => None,
        Scoped::By(policy) => Some(ScopeOptions::new(sig).foreign(policy)),
    };
    let caller = Caller::with(options, move |scope| {
        let mut answers = Vec::new();
        loop {
            answers.push(Answer::from(call()));
            assert_eq!((eintr::check(), scope.and_then(eintr::Scope::interrupted)), (Ok(()), None));
            if answers.last() != Some(&Answer::Os(libc::EINTR)) {
                return answers;
            }
        }
    });
    let look = Look::at(caller.tid);
    for _ in 0..SIGNALS {
        common::wait_until(|| caller.thread.is_finished() || rests(&look, sleeps_in, sig));
        assert!(ends_alone || !caller.thread.is_finished(), "it ends before it is let go: {:?}", caller.join());
        let slept = look.sleeps();
        send(caller.tid, sig);
        common::wait_until(|| caller.thread.is_finished() || look.sleeps() > slept && rests(&look, sleeps_in, sig));
    }
    let after = provide(caller.tid);
    let answers = caller.join();
    after();
    assert_eq!(answers.last(), Some(&Answer::Ok(expected)));
    answers
}

/// Each row under signals of the scope's number that somebody else sends: chained to a handler, or ignored, it does what it does without a scope.
pub fn with_a_scope_they_do_what_they_do_without(rows: &[Row]) {
    each(rows, |row| {
        if row.slow {
            return side_by_side(row);
        }
        for (sig, behind) in pairs(kinds(), [Behind::Restarts, Behind::DoesNot]) {
            let at = format!("signal {sig}, {behind:?} behind");
            let handler = behind.install(sig).expect("a handler");
            let without = (story(row, sig, Scoped::No), SIGNALS);
            let chained = (story(row, sig, Scoped::By(Foreign::Chain)), handler.runs() - SIGNALS);
            assert_eq!(chained, without, "{at}, chained");
            let without = without.0;
            if behind == Behind::DoesNot {
                assert_eq!(without, broken(row, &without), "{at}, without a scope");
            }
            assert_eq!(story(row, sig, Scoped::By(Foreign::Ignore)), without, "{at}, ignored");
            assert_eq!(handler.runs(), 2 * SIGNALS, "{at}: the handler behind");
            drop(handler);
            if behind == Behind::Restarts {
                // Over the default, a signal that is ignored restarts calls.
                assert_eq!(story(row, sig, Scoped::By(Foreign::Ignore)), without, "{at}, ignored over the default");
            }
        }
    });
}

/// What is told of a call that no kernel restarts: EINTR each time, if std lets it out; and how it ended.
fn broken(row: &Row, story: &[Answer]) -> Vec<Answer> {
    let times = if row.fate.lets_eintr_out() { SIGNALS as usize } else { 0 };
    std::iter::repeat_n(Answer::Os(libc::EINTR), times).chain(story.last().copied()).collect()
}

/// The same in one way alone: chained to a handler without SA_RESTART; and without a scope, at the same time, by another number.
fn side_by_side(row: &Row) {
    let [number, other] = kinds();
    let handlers = [number, other].map(|sig| Behind::DoesNot.install(sig).expect("a handler"));
    std::thread::scope(|s| {
        let without = s.spawn(|| story(row, number, Scoped::No));
        let chained = story(row, other, Scoped::By(Foreign::Chain));
        let without = without.join().expect("it ends well");
        assert_eq!(without, broken(row, &without), "without a scope");
        assert_eq!(chained, without, "chained");
    });
    assert_eq!(handlers[0].runs(), 2 * SIGNALS, "of both");
}

/// Looks at each row, and says of all that are not as they should be.
fn each(rows: &[Row], look: impl Fn(&Row)) {
    let before = State::now();
    let mut failed = Vec::new();
    for row in rows {
        let what = format!("{}, {}", row.name, row.of);
        if row.in_one && common::skipped_if_emulated(&what, "no signal is delivered before the call ends") {
            continue;
        }
        let files = open_files();
        match catch_unwind(AssertUnwindSafe(|| look(row))) {
            Err(_) => failed.push(what),
            Ok(()) => assert_eq!(open_files(), files, "{what}: descriptors"),
        }
    }
    assert!(failed.is_empty(), "{} of {} rows: {failed:#?}", failed.len(), rows.len());
    assert_eq!(State::now(), before);
}

/// How many descriptors there are; an emulator's own come and go.
fn open_files() -> usize {
    if common::emulated() { 0 } else { std::fs::read_dir("/proc/self/fd").expect("/proc").count() }
}

fn pairs<A: Copy, B: Copy, const N: usize, const M: usize>(a: [A; N], b: [B; M]) -> impl Iterator<Item = (A, B)> {
    a.into_iter().flat_map(move |a| b.into_iter().map(move |b| (a, b)))
}

/// The names between backquotes in a column of the table of the guide are those of the rows.
pub fn the_guide_names_them(column: usize, rows: &[Row]) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/guide.md");
    let page = std::fs::read_to_string(path).expect("the guide");
    let section = page.split("\n## std\n").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("its section");
    let lines = section.lines().filter(|line| line.starts_with('|')).skip(2);
    let cells = lines.map(|line| line.trim_matches('|').split('|').nth(column).expect("a column"));
    let documented: BTreeSet<_> = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    let shown: BTreeSet<_> = rows.iter().map(|row| row.name).collect();
    assert_eq!(documented, shown, "what the guide says, and what is shown");
}
