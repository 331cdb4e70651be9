//! std's standard input and output under signals: they are read and written as any other file, each both ways as in `tests/std_calls.rs`; but `print!`
//! and the like panic. In processes of their own, since the descriptors are everybody's.
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
use libc::{SYS_read, SYS_write};
use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::panic::catch_unwind;
use std_call::{Call, Fate, Row};
use std_ends::{Full, HELLO, fed, fed_at_last, filled, filled_and_told, full_file, read, terminal};
use suite::{keep, pipe_files};
use waiting::Caller;

const INPUT: &[Row] = &[
    Row::new(Fate::Eintr, "Read::read", "standard input, a pipe", || {
        fed(&[SYS_read], from(pipe_files()), |()| read(&mut io::stdin()))
    }),
    Row::new(Fate::Eintr, "Read::read", "standard input, a terminal", || typed(|line| io::stdin().read(line))),
    Row::new(Fate::Eintr, "BufRead::fill_buf", "standard input, a pipe", || {
        fed(&[SYS_read], from(pipe_files()), |()| {
            let mut input = io::stdin().lock();
            let text = input.fill_buf()?.to_vec();
            assert_eq!(text, HELLO);
            input.consume(text.len());
            Ok(text.len())
        })
    }),
    Row::new(Fate::Canceled, "Stdin::read_line", "standard input, a pipe that is half read", || {
        let (end, mut to) = pipe_files();
        to.write_all(b"say ").unwrap();
        let mut line = String::new();
        fed_at_last(&[SYS_read], from((end, to)), move |()| {
            io::stdin().read_line(&mut line)?;
            assert_eq!(line, "say hello");
            Ok(HELLO.len())
        })
    }),
    Row::new(Fate::Canceled, "Stdin::read_line", "standard input, a terminal", || {
        typed(|line| {
            let mut text = String::new();
            let n = io::stdin().read_line(&mut text)?;
            line[..n].copy_from_slice(text.as_bytes());
            Ok(n)
        })
    }),
    Row::new(Fate::Canceled, "Lines::next", "standard input, a pipe", || {
        fed_at_last(&[SYS_read], from(pipe_files()), |()| {
            let line = io::stdin().lines().next().expect("a line, or an error")?;
            assert_eq!(line.as_bytes(), HELLO);
            Ok(line.len())
        })
    }),
];

const OUTPUT: &[Row] = &[
    Row::new(Fate::Canceled, "Write::write_all", "standard output, a full pipe", || {
        let full = to(full_file());
        filled_and_told(&[SYS_write], full, b"hell\n", |(), text| io::stdout().write_all(text).map(|()| text.len()))
    }),
    Row::new(Fate::Canceled, "Write::flush", "standard output, a full pipe", || {
        let mut is_written = false;
        filled(&[SYS_write], to(full_file()), move |(), text| {
            if !std::mem::replace(&mut is_written, true) {
                io::stdout().write_all(text)?;
            }
            io::stdout().flush().map(|()| text.len())
        })
    }),
];

/// Puts the first in the place of standard input.
fn from<W>((end, other): (File, W)) -> ((), W) {
    put(&end, libc::STDIN_FILENO);
    ((), other)
}

/// Puts the writing side in the place of standard output.
fn to<R>(full: Full<R, File>) -> Full<R, ()> {
    put(&full.to, libc::STDOUT_FILENO);
    Full { from: full.from, to: (), filling: full.filling }
}

fn put(file: &File, at: libc::c_int) {
    assert_eq!(unsafe { libc::dup2(file.as_raw_fd(), at) }, at);
}

/// What a descriptor was before, when this value is dropped.
struct PutBack(File, libc::c_int);

impl PutBack {
    fn of(fd: libc::c_int) -> PutBack {
        let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
        assert!(copy >= 0);
        PutBack(File::from(unsafe { OwnedFd::from_raw_fd(copy) }), fd)
    }
}

impl Drop for PutBack {
    fn drop(&mut self) {
        put(&self.0, self.1);
    }
}

/// A line from a terminal that is standard input.
fn typed(call: fn(&mut [u8; 8]) -> io::Result<usize>) -> Call {
    let ((), mut to) = from(terminal());
    let call = move || {
        let mut line = [b'.'; 8];
        let n = call(&mut line)?;
        assert_eq!(&line, b"hell\n...");
        Ok(n)
    };
    Call::new(&[SYS_read], 5, call, move |_| {
        to.write_all(b"hell\n").unwrap();
        keep(to)
    })
}

#[test]
fn standard_input_is_read_as_any_file() {
    let _t = common::begin();
    common::in_own_process("standard_input_is_read_as_any_file", || {
        std_call::with_a_scope_they_do_what_they_do_without(INPUT);
        std_call::a_remote_makes_of_them_what_the_table_says(INPUT);
    });
}

#[test]
fn standard_output_is_written_as_any_file() {
    let _t = common::begin();
    common::in_own_process("standard_output_is_written_as_any_file", || {
        let _output = PutBack::of(libc::STDOUT_FILENO);
        std_call::with_a_scope_they_do_what_they_do_without(OUTPUT);
        std_call::a_remote_makes_of_them_what_the_table_says(OUTPUT);
    });
}

// What they print through has no way to say that it failed.
#[test]
fn printing_panics_when_it_is_interrupted() {
    let _t = common::begin();
    common::in_own_process("printing_panics_when_it_is_interrupted", || {
        std::panic::set_hook(Box::new(|_| {})); // it would print
        let prints: [(_, fn(), _); 2] = [
            (libc::STDOUT_FILENO, || println!("hello"), "failed printing to stdout"),
            (libc::STDERR_FILENO, || eprintln!("hello"), "failed printing to stderr"),
        ];
        for (fd, print, says) in prints {
            let before = PutBack::of(fd);
            let full = full_file();
            put(&full.to, fd);
            let caller = Caller::with(Some(ScopeOptions::new(libc::SIGUSR1)), move |_| catch_unwind(print));
            common::wait_blocked_in(caller.tid, SYS_write);
            caller.interrupt();
            let panic = caller.join().expect_err("it panics");
            drop(before);
            let _ = std::panic::take_hook();
            let text = panic.downcast_ref::<String>().expect("a text");
            let canceled = io::Error::from_raw_os_error(libc::ECANCELED).to_string();
            assert!(text.starts_with(says) && text.ends_with(&canceled), "{text}");
        }
    });
}
