//! The house: unsafe lives in the kernel layer alone, imports flow down, and what the signal handler runs names nothing that allocates, locks or
//! panics.
//!
//! The checks read the source as text, with comments, literals and test modules taken out. Each of them is shown a made-up offender too, so that a
//! check that finds nothing is known to be able to find something.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What runs inside the signal handler, file by file: the entry, what the kernel layer gives it, and the engine's receiving side with the gate and
/// the sending side (an `Interrupt` policy sends from there). Functions in these files that only the thread itself calls obey all the same.
const HANDLER: &[&str] = &[
    "src/kernel/handler.rs",
    "src/kernel/action.rs",
    "src/kernel/clock.rs",
    "src/kernel/decide.rs",
    "src/kernel/frame.rs",
    "src/kernel/futex.rs",
    "src/kernel/held.rs",
    "src/kernel/inject.rs",
    "src/kernel/mask.rs",
    "src/kernel/pid.rs",
    "src/kernel/raw.rs",
    "src/kernel/registers/aarch64.rs",
    "src/kernel/registers/x86_64.rs",
    "src/kernel/send.rs",
    "src/kernel/stack.rs",
    "src/kernel/stub/window.rs",
    "src/kernel/timer.rs",
    "src/engine/blocked.rs",
    "src/engine/chain.rs",
    "src/engine/deliver.rs",
    "src/engine/foreign.rs",
    "src/engine/gate.rs",
    "src/engine/interrupt.rs",
    "src/engine/lane.rs",
    "src/engine/nested.rs",
    "src/engine/node.rs",
    "src/engine/provenance.rs",
    "src/engine/resend.rs",
    "src/engine/turn.rs",
];

/// Files that the handler reads from and the thread itself writes to, with what is the thread's alone: that is not looked at.
const SHARED: &[(&str, &[&str])] = &[
    ("src/engine/record.rs", &["thread_local!", "fn claim(", "fn adopt(", "fn lane_to_open("]),
    ("src/engine/slot.rs", &["fn remember(", "fn add_interrupter("]),
];

/// Names that must not stand in those files, and why.
const FORBIDDEN: &[(&str, &str)] = &[
    ("Box", "allocates"),
    ("Vec", "allocates"),
    ("VecDeque", "allocates"),
    ("String", "allocates"),
    ("Rc", "frees"),
    ("Arc", "frees"),
    ("HashMap", "allocates"),
    ("HashSet", "allocates"),
    ("BTreeMap", "allocates"),
    ("BTreeSet", "allocates"),
    ("CString", "allocates"),
    ("vec!", "allocates"),
    ("to_vec", "allocates"),
    ("to_owned", "allocates"),
    ("to_string", "allocates"),
    ("collect", "allocates"),
    ("alloc", "allocates"),
    ("malloc", "allocates"),
    ("free", "frees"),
    ("format!", "allocates and formats"),
    ("format_args!", "formats"),
    ("write!", "formats"),
    ("writeln!", "formats"),
    ("print!", "formats and locks"),
    ("println!", "formats and locks"),
    ("eprint!", "formats and locks"),
    ("eprintln!", "formats and locks"),
    ("dbg!", "formats and locks"),
    ("panic!", "panics"),
    ("todo!", "panics"),
    ("unimplemented!", "panics"),
    ("unreachable!", "panics"),
    ("assert!", "panics"),
    ("assert_eq!", "panics"),
    ("assert_ne!", "panics"),
    ("unwrap", "panics"),
    ("expect", "panics"),
    ("unwrap_err", "panics"),
    ("expect_err", "panics"),
    ("Mutex", "locks"),
    ("RwLock", "locks"),
    ("Condvar", "locks"),
    ("Once", "locks"),
    ("OnceLock", "locks"),
    ("LazyLock", "locks"),
    ("LazyCell", "initialises lazily"),
    ("OnceCell", "initialises lazily"),
    ("thread_local!", "initialises lazily"),
    ("with_borrow", "touches a thread-local"),
    ("stdin", "locks"),
    ("stdout", "locks"),
    ("stderr", "locks"),
    ("std::thread", "touches a thread-local"),
];

const MOST_LINES: usize = 350;

/// A source file, by its path from the root of the repository.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn made_up(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), text: text.to_owned() }
    }

    /// What the compiler reads, without test modules; lines stay where they are.
    fn code(&self) -> String {
        without_tests(&blank(&self.text))
    }

    fn is_in(&self, folder: &str) -> bool {
        self.path.starts_with(folder)
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].bytes().filter(|b| *b == b'\n').count() + 1
}

/// Puts spaces in the place of comments, and of what stands in string and character literals.
fn blank(text: &str) -> String {
    let s: Vec<char> = text.chars().collect();
    let mut out: Vec<char> = Vec::with_capacity(s.len());
    let at = |i: usize| s.get(i).copied().unwrap_or('\0');
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let hide = |out: &mut Vec<char>, from: usize, to: usize| {
        out.extend(s[from..to.min(s.len())].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
    };
    let mut i = 0;
    while i < s.len() {
        let start = i;
        if at(i) == '/' && at(i + 1) == '/' {
            while i < s.len() && at(i) != '\n' {
                i += 1;
            }
            hide(&mut out, start, i);
        } else if at(i) == '/' && at(i + 1) == '*' {
            let mut depth = 0;
            loop {
                match (at(i), at(i + 1)) {
                    ('/', '*') => (depth, i) = (depth + 1, i + 2),
                    ('*', '/') => (depth, i) = (depth - 1, i + 2),
                    _ => i += 1,
                }
                if depth == 0 || i >= s.len() {
                    break;
                }
            }
            hide(&mut out, start, i);
        } else if let Some(hashes) = raw_string(&s, i) {
            let open = i + s[i..].iter().position(|c| *c == '"').unwrap_or(0);
            let end: String = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
            i = open + 1;
            while i < s.len() && !end.chars().enumerate().all(|(k, c)| at(i + k) == c) {
                i += 1;
            }
            i += end.len();
            hide(&mut out, start, i);
        } else if at(i) == '"' {
            i += 1;
            while i < s.len() && at(i) != '"' {
                i += if at(i) == '\\' { 2 } else { 1 };
            }
            i += 1;
            hide(&mut out, start, i);
        } else if at(i) == '\'' && (at(i + 1) == '\\' || at(i + 2) == '\'') {
            i += if at(i + 1) == '\\' { 3 } else { 2 };
            while i < s.len() && at(i) != '\'' {
                i += 1;
            }
            i += 1;
            hide(&mut out, start, i);
        } else if is_name(at(i)) {
            while is_name(at(i)) {
                i += 1;
            }
            out.extend(&s[start..i]);
        } else {
            out.push(at(i));
            i += 1;
        }
    }
    out.into_iter().collect()
}

/// The number of `#` of a raw string that begins here.
fn raw_string(s: &[char], i: usize) -> Option<usize> {
    let rest = match s.get(i..)? {
        ['r', rest @ ..] | ['b', 'r', rest @ ..] | ['c', 'r', rest @ ..] => rest,
        _ => return None,
    };
    let hashes = rest.iter().take_while(|c| **c == '#').count();
    (rest.get(hashes) == Some(&'"')).then_some(hashes)
}

/// Takes out every item that `head` ends in a block: from the head to the closing brace. Of text that went through [`blank`].
fn without_items(code: &str, head: &str) -> String {
    let mut out = code.to_owned();
    let mut from = 0;
    while let Some(found) = out[from..].find(head) {
        let start = from + found;
        let end = block_end(&out, start + head.len());
        let spaces: String = out[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        out.replace_range(start..end, &spaces);
        from = start + spaces.len();
    }
    out
}

/// Where the item ends that goes on at `from`: behind its closing brace, or its semicolon if it has no block.
fn block_end(code: &str, from: usize) -> usize {
    let mut depth = 0;
    for (i, c) in code[from..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth <= 1 => return from + i + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return from + i + 1,
            _ => {}
        }
    }
    code.len()
}

fn without_tests(code: &str) -> String {
    without_items(code, "#[cfg(test)]")
}

/// Positions of `word` where it is a whole word; one that ends in `!` is a macro's name.
fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = code[..*at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(is_name) && (word.ends_with('!') || !after.is_some_and(is_name))
    })
}

/// `unsafe` outside the kernel layer, and the lint lifted there. Signatures `unsafe fn`, and the lint lifted right above one, are for the raw calls
/// under src/sys too.
fn unsafe_outside_the_kernel_layer(source: &Source) -> Vec<String> {
    if source.is_in("src/kernel/") {
        return Vec::new();
    }
    let code = blank(&source.text); // in tests too
    let in_sys = source.is_in("src/sys/") || source.path == "src/sys.rs";
    let is_signature = |at: usize| {
        let rest = code[at + "unsafe".len()..].trim_start();
        rest.starts_with("fn ") || rest.starts_with("extern ")
    };
    let blocks = words(&code, "unsafe").filter(|at| !(in_sys && is_signature(*at)));
    let is_for_a_signature = |at: usize| code[at..].starts_with("unsafe_code)]\npub unsafe fn ");
    let lifted = words(&code, "unsafe_code").filter(|at| {
        let line = code[..*at].rfind("#").map_or("", |start| &code[start..*at]);
        let is_lifted = line.contains("allow") || line.contains("expect") || line.contains("warn");
        is_lifted && !(in_sys && is_for_a_signature(*at))
    });
    let mut found: Vec<String> =
        blocks.map(|at| format!("{}:{}: unsafe outside src/kernel", source.path, line_of(&code, at))).collect();
    found.extend(lifted.map(|at| format!("{}:{}: unsafe_code is lifted", source.path, line_of(&code, at))));
    found
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Layer {
    Kernel,
    Engine,
    Face,
}

/// Words that every layer speaks: modules, and what the crate root names of theirs.
const VOCABULARY: &[&str] = &[
    "atomic",
    "delivery",
    "error",
    "policy",
    "signal",
    "Delivery",
    "EnterError",
    "Error",
    "Foreign",
    "Interrupted",
    "LeaveError",
    "Reason",
    "Refusal",
    "Resend",
    "resend",
    "Signal",
    "Status",
];

/// The lowest layer that a module at the crate root belongs to; `None` is vocabulary.
fn layer_of(name: &str) -> Option<Layer> {
    match name {
        "kernel" => Some(Layer::Kernel),
        "engine" => Some(Layer::Engine),
        name if VOCABULARY.contains(&name) => None,
        _ => Some(Layer::Face),
    }
}

/// Names of the crate that a layer must not know. The vocabulary may ask the kernel layer and nothing above.
fn imports_that_flow_up(source: &Source) -> Vec<String> {
    let Some(inside) = source.path.strip_prefix("src/") else { return Vec::new() };
    let root = inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs");
    let own = if inside == "lib.rs" { Layer::Face } else { layer_of(root).unwrap_or(Layer::Kernel) };
    let depth = inside.split('/').filter(|part| *part != "mod.rs").count();
    let code = source.code();
    let mut found = Vec::new();
    for (at, name) in root_names(&code, depth) {
        let above = match name.as_str() {
            "*" | "self" => true,
            name => layer_of(name).is_some_and(|layer| layer > own),
        };
        if above && own != Layer::Face {
            found.push(format!("{}:{}: {own:?} names crate::{name}", source.path, line_of(&code, at)));
        }
    }
    found
}

/// What follows `crate::`, or as many `super::` as lead out of a file that deep: the names at the crate's root, each member of a `{}` too. Of
/// `crate as x` and of a path attribute, which would go round the check, a `self`.
fn root_names(code: &str, depth: usize) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for at in words(code, "crate") {
        let rest = code[at + "crate".len()..].trim_start();
        if let Some(rest) = rest.strip_prefix("::") {
            found.extend(heads(rest).into_iter().map(|name| (at, name)));
        } else if rest.starts_with("as ") {
            found.push((at, "self".to_owned()));
        }
    }
    for at in words(code, "super") {
        if code[..at].trim_end().ends_with("::") {
            continue; // not the first of its row
        }
        let (mut supers, mut rest) = (0, &code[at..]);
        while let Some(next) = rest.trim_start().strip_prefix("super") {
            let Some(next) = next.trim_start().strip_prefix("::") else { break };
            (supers, rest) = (supers + 1, next);
        }
        if supers >= depth {
            found.extend(heads(rest).into_iter().map(|name| (at, name)));
        }
    }
    found.extend(code.match_indices("#[path").map(|(at, _)| (at, "self".to_owned())));
    found
}

/// The first name of a path, or of each path in `{a::b, c}`.
fn heads(path: &str) -> Vec<String> {
    let path = path.trim_start();
    let name = |s: &str| -> String {
        let s = s.trim_start();
        if s.starts_with('*') {
            return "*".to_owned();
        }
        s.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let Some(list) = path.strip_prefix('{') else { return vec![name(path)] };
    let (mut depth, mut from, mut members) = (0, 0, Vec::new());
    for (i, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                members.push(&list[from..i]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                members.push(&list[from..i]);
                from = i + 1;
            }
            _ => {}
        }
    }
    members.into_iter().map(name).filter(|n| !n.is_empty()).collect()
}

/// Forbidden names in what the handler runs. Taken out first: what the compiler evaluates (`const _`), `Debug`, which no handler calls, the thread's
/// own thread-local, which the handler does not touch, and the functions that are not the handler's.
fn unsafe_in_a_signal(source: &Source, not_run: &[&str]) -> Vec<String> {
    let mut code = source.code();
    let never_run = ["const _: () =", "impl std::fmt::Debug for", "impl fmt::Debug for"];
    for head in never_run.iter().chain(not_run) {
        code = without_items(&code, head);
    }
    let mut found = Vec::new();
    for (name, why) in FORBIDDEN {
        for at in words(&code, name) {
            found.push(format!("{}:{}: {name} {why}", source.path, line_of(&code, at)));
        }
    }
    found
}

/// A file says first what it owns.
fn without_a_header(source: &Source) -> Vec<String> {
    let first = source.text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let said = first.strip_prefix("//!").is_some_and(|words| !words.trim().is_empty());
    if said || first.starts_with("#![doc = include_str!") {
        return Vec::new();
    }
    vec![format!("{}: no `//!` sentence at the top", source.path)]
}

fn too_long(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    if lines <= MOST_LINES { Vec::new() } else { vec![format!("{}: {lines} lines, at most {MOST_LINES}", source.path)] }
}

/// A mod.rs lists what is there.
fn logic_in_mod_rs(source: &Source) -> Vec<String> {
    if !source.path.ends_with("/mod.rs") {
        return Vec::new();
    }
    let code = source.code();
    let found = ["fn", "impl", "macro_rules!"].into_iter().flat_map(|word| words(&code, word));
    found.map(|at| format!("{}:{}: logic in mod.rs", source.path, line_of(&code, at))).collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources_under(folder: &str) -> Vec<Source> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() {
                walk(&entry, found);
            } else if entry.extension().is_some_and(|e| e == "rs") {
                found.push(entry);
            }
        }
    }
    let mut paths = Vec::new();
    walk(&root().join(folder), &mut paths);
    paths.sort();
    let read = |path: PathBuf| Source {
        path: path.strip_prefix(root()).expect("inside").to_str().expect("UTF-8").to_owned(),
        text: fs::read_to_string(&path).expect("a text"),
    };
    paths.into_iter().map(read).collect()
}

fn assert_none(sources: &[Source], check: impl Fn(&Source) -> Vec<String>) {
    assert!(!sources.is_empty(), "nothing to look at");
    let found: Vec<String> = sources.iter().flat_map(check).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn unsafe_stands_in_the_kernel_layer_only() {
    assert_none(&sources_under("src"), unsafe_outside_the_kernel_layer);
}

#[test]
fn imports_flow_down() {
    assert_none(&sources_under("src"), imports_that_flow_up);
}

#[test]
fn what_the_handler_runs_names_nothing_that_allocates_locks_or_panics() {
    let sources = sources_under("src");
    let paths: BTreeSet<&str> = sources.iter().map(|s| s.path.as_str()).collect();
    let listed = HANDLER.iter().map(|file| (*file, &[] as &[&str])).chain(SHARED.iter().copied());
    for (file, not_run) in listed {
        assert!(paths.contains(file), "{file} is not there: mend the list of what the handler runs");
        let source = sources.iter().find(|s| s.path == file).expect("listed");
        for function in not_run {
            assert!(source.code().contains(function), "{file} has no {function}: mend the list");
        }
        assert_none(std::slice::from_ref(source), |source| unsafe_in_a_signal(source, not_run));
    }
}

/// The thread-local that a thread finds its own record by is one object, and the handler's files do not name it.
#[test]
fn the_handler_finds_its_record_without_a_thread_local() {
    let uses = |source: &Source| {
        let code = source.code();
        let found = ["CURRENT", "Record::current", "LocalKey"].into_iter().flat_map(|word| words(&code, word));
        found.map(|at| format!("{}:{}: a thread-local", source.path, line_of(&code, at))).collect::<Vec<_>>()
    };
    let run: Vec<Source> = sources_under("src").into_iter().filter(|s| HANDLER.contains(&s.path.as_str())).collect();
    assert_none(&run, uses);
    shown(uses, &[("src/engine/deliver.rs", "fn f() { Record::current(); }")], &[("src/engine/x.rs", "// CURRENT")]);
}

#[test]
fn every_file_says_first_what_it_owns() {
    assert_none(&sources_under("src"), without_a_header);
    assert_none(&sources_under("tests"), without_a_header);
}

#[test]
fn no_file_of_the_crate_is_too_long() {
    assert_none(&sources_under("src"), too_long);
}

#[test]
fn a_mod_rs_only_lists() {
    assert_none(&sources_under("src"), logic_in_mod_rs);
}

/// Each offender is found; each innocent is not.
fn shown(check: impl Fn(&Source) -> Vec<String>, offenders: &[(&str, &str)], innocents: &[(&str, &str)]) {
    for (path, text) in offenders {
        assert!(!check(&Source::made_up(path, text)).is_empty(), "overlooked in {path}:\n{text}");
    }
    for (path, text) in innocents {
        assert_eq!(check(&Source::made_up(path, text)), [""; 0], "wrongly found in {path}:\n{text}");
    }
}

#[test]
fn the_check_of_unsafe_finds_it() {
    shown(
        unsafe_outside_the_kernel_layer,
        &[
            ("src/scope.rs", "fn f() { unsafe { g() } }"),
            ("src/engine/lane.rs", "unsafe impl Send for X {}"),
            ("src/engine/lane.rs", "pub unsafe fn f();"),
            ("src/engine/kernel/x.rs", "unsafe fn f();"),
            ("src/kernel.rs", "unsafe fn f();"),
            ("src/sys/read.rs", "pub unsafe fn f() { unsafe { g() } }"),
            ("src/sys/read.rs", "#[allow(unsafe_code)]\nfn f() {}"),
            ("src/sys/read.rs", "#![allow(unsafe_code)]\npub fn f() {}"),
            ("src/error.rs", "#[allow(unsafe_code)]\npub unsafe fn f() {}"),
            ("src/error.rs", "#[unsafe(no_mangle)] fn f() {}"),
            ("src/error.rs", "#![allow(unsafe_code)]"),
            ("src/error.rs", "#[expect(dead_code, unsafe_code)] mod x;"),
            ("src/error.rs", "#[cfg(test)] mod tests { fn f() { unsafe { g() } } }"),
            ("src/error.rs", "const Q: char = '\"'; fn f() { unsafe { g() } } const R: char = '\"';"),
            ("src/error.rs", "fn f<'a>(x: &'a u8) { unsafe { g() } }"),
            ("src/error.rs", "/* a /* nested */ comment */ unsafe { g() }"),
        ],
        &[
            ("src/kernel/raw.rs", "unsafe { g() }"),
            ("src/sys/read.rs", "pub unsafe fn f() {}"),
            ("src/sys/read.rs", "#[allow(unsafe_code)]\npub unsafe fn f() {}"),
            (
                "src/error.rs",
                "// unsafe\n/* unsafe /* unsafe */ unsafe */ /// unsafe\nconst S: &str = \"unsafe \\\" unsafe\";",
            ),
            ("src/error.rs", "const S: &str = r#\"unsafe \" unsafe\"#; const T: &[u8] = br\"unsafe\";"),
            ("src/lib.rs", "#![deny(unsafe_code)]"),
            ("src/lib.rs", "#![deny(unsafe_op_in_unsafe_fn)]"),
            ("src/lib.rs", "fn unsafely() {}"),
        ],
    );
}

#[test]
fn the_check_of_imports_finds_what_flows_up() {
    shown(
        imports_that_flow_up,
        &[
            ("src/kernel/raw.rs", "use crate::engine::lane;"),
            ("src/kernel/raw.rs", "use crate::{kernel::mask, engine};"),
            ("src/kernel/raw.rs", "use crate::{\n    kernel::{mask, pid},\n    scope::Scope,\n};"),
            ("src/kernel/raw.rs", "fn f() { crate::engine::lane::leave(); }"),
            ("src/kernel/raw.rs", "use crate::Scope;"),
            ("src/kernel/raw.rs", "use super::super::engine;"),
            ("src/kernel/stub/x86_64.rs", "use super::super::super::engine;"),
            ("src/kernel/mod.rs", "use super::scope;"),
            ("src/kernel/raw.rs", "use crate::*;"),
            ("src/kernel/raw.rs", "use crate as all;"),
            ("src/kernel/raw.rs", "#[path = \"../scope.rs\"] mod x;"),
            ("src/engine/lane.rs", "use crate::remote::Remote;"),
            ("src/engine/lane.rs", "use crate :: { engine::gate, Remote };"),
            ("src/engine/lane.rs", "use super::super::scope::Scope;"),
            ("src/error.rs", "use crate::engine::gate;"),
            ("src/error.rs", "use crate::scope::Scope;"),
            ("src/error.rs", "use super::scope::Scope;"),
            ("src/kernel/x.rs", "macro_rules! m { () => { $crate::engine::f() } }"),
        ],
        &[
            ("src/scope.rs", "use crate::{engine::lane, kernel::mask, remote::Remote, error::EnterError};"),
            ("src/engine/lane.rs", "use crate::kernel::{self, mask}; use crate::engine::gate; use crate::Signal;"),
            ("src/engine/lane.rs", "use super::gate::Gate; pub(crate) fn f() {} pub(in crate::engine) fn g() {}"),
            ("src/kernel/raw.rs", "use super::mask; use crate::error::Refusal; // use crate::engine"),
            ("src/kernel/stub/x86_64.rs", "use super::super::raw;"),
            ("src/kernel/raw.rs", "#[cfg(test)]\nmod tests { use super::*; }"),
            ("src/signal.rs", "use crate::kernel::action; use crate::error::Refusal;"),
            ("src/lib.rs", "pub use crate::scope::Scope;"),
        ],
    );
}

#[test]
fn the_check_of_the_handler_finds_what_must_not_be_there() {
    for (name, _) in FORBIDDEN {
        let used = format!("fn f() {{ x({name}(1)); }}");
        shown(|source| unsafe_in_a_signal(source, &[]), &[("src/kernel/handler.rs", &used)], &[]);
    }
    shown(
        |source| unsafe_in_a_signal(source, &[]),
        &[
            ("src/kernel/handler.rs", "fn f(x: Option<u8>) -> u8 { x.unwrap() }"),
            ("src/kernel/handler.rs", "fn f(x: Option<u8>) -> u8 { x\n    .expect(\"there\") }"),
            ("src/kernel/handler.rs", "use std::sync::Mutex;"),
            ("src/kernel/handler.rs", "fn f() { std::format!(\"{}\", 1); }"),
            ("src/kernel/handler.rs", "fn f() -> Vec<u8> { Vec::new() }"),
            ("src/kernel/handler.rs", "thread_local! { static X: u8 = 0; }"),
            (
                "src/kernel/handler.rs",
                "impl fmt::Debug for X { fn f() { write!(f, \"\") } }\nfn g() { write!(f, \"\") }",
            ),
            ("src/kernel/handler.rs", "const _: () = assert!(A == B);\nfn g() { assert!(A == B) }"),
        ],
        &[
            ("src/kernel/handler.rs", "fn f() { debug_assert!(x); debug_assert_eq!(x, y); }"),
            (
                "src/kernel/handler.rs",
                "/// Never a Box, never a panic!\nfn f() { x.unwrap_or(0); x.unwrap_or_default(); }",
            ),
            ("src/kernel/handler.rs", "const _: () = assert!(size_of::<X>() == 128);"),
            ("src/kernel/handler.rs", "impl std::fmt::Debug for X { fn f() { write!(f, \"\") } }"),
            ("src/kernel/handler.rs", "#[cfg(test)]\nmod tests { fn f() { assert!(true); vec![1]; } }"),
        ],
    );
}

#[test]
fn the_check_of_the_handler_leaves_out_only_what_is_named() {
    shown(
        |source| unsafe_in_a_signal(source, &["fn claim("]),
        &[
            ("src/engine/record.rs", "fn claim() { Box::new(1); }\nfn of() { Box::new(1); }"),
            ("src/engine/record.rs", "fn claim();\nfn of() { Box::new(1); }"),
        ],
        &[("src/engine/record.rs", "fn claim() -> X { { Box::new(1); } Box::new(2) }\nfn of() {}")],
    );
}

#[test]
fn the_check_of_headers_finds_a_file_without() {
    shown(
        without_a_header,
        &[
            ("src/x.rs", "use std::fs;\n//! Late."),
            ("src/x.rs", ""),
            ("src/x.rs", "//!\n"),
            ("src/x.rs", "// no\n//! Yes."),
        ],
        &[("src/x.rs", "//! Owns x.\nuse y;"), ("src/lib.rs", "#![doc = include_str!(\"../README.md\")]")],
    );
}

#[test]
fn the_check_of_length_counts() {
    let (most, more) = ("x\n".repeat(MOST_LINES), "x\n".repeat(MOST_LINES + 1));
    shown(too_long, &[("src/x.rs", &more)], &[("src/x.rs", &most)]);
}

#[test]
fn the_check_of_mod_rs_finds_logic() {
    shown(
        logic_in_mod_rs,
        &[("src/kernel/mod.rs", "mod x;\nfn f() {}"), ("src/kernel/mod.rs", "impl X {}")],
        &[("src/kernel/mod.rs", "//! The fn and impl of it.\nmod x;\npub(crate) use x::f;"), ("src/x.rs", "fn f() {}")],
    );
}
