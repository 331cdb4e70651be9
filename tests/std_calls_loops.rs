//! std under signals, where it tries again after EINTR: the second column of the table in `docs/guide.md`, whose calls come back with ECANCELED where
//! the kernel restarts calls. Each both ways, as in `tests/std_calls.rs`; and over a handler without SA_RESTART, where they do not come back at all.
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

use libc::{SYS_accept4, SYS_openat, SYS_read, SYS_wait4, SYS_write};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std_call::{Call, Fate, Row};
use std_ends::{
    BLANK, Fifo, HELLO, RECEIVES, SENDS, fed, fed_at_last, filled, full_file, full_tcp, full_unix, reap_all, terminal,
    unix,
};
use suite::{keep, memory_file, pipe_files};

const fn canceled(name: &'static str, of: &'static str, make: fn() -> Call) -> Row {
    Row::new(Fate::Canceled, name, of, make)
}

const ROWS: &[Row] = &[
    canceled("Read::read_exact", "a pipe", || fed(&[SYS_read], pipe_files(), read_exact)),
    canceled("Read::read_exact", "a UnixStream", || fed(RECEIVES, unix(), read_exact)),
    canceled("Read::read_to_end", "a pipe that is half read", || {
        let mut all = Vec::new();
        fed_at_last(&[SYS_read], half_read(), move |from| from.read_to_end(&mut all).and_then(|_| hello_at_last(&all)))
    }),
    canceled("Read::read_to_string", "a pipe that is half read", || {
        let mut all = String::new();
        fed_at_last(&[SYS_read], half_read(), move |from| {
            from.read_to_string(&mut all).and_then(|_| hello_at_last(all.as_bytes()))
        })
    }),
    canceled("BufRead::read_line", "a pipe that is half read", || {
        let ((from, to), mut line) = (half_read(), String::new());
        fed_at_last(&[SYS_read], (BufReader::new(from), to), move |from| {
            from.read_line(&mut line).and_then(|_| hello_at_last(line.as_bytes()))
        })
    }),
    canceled("BufRead::read_line", "a terminal", || {
        let ((from, mut to), mut line) = (terminal(), String::new());
        let mut from = BufReader::new(from);
        Call::new(
            &[SYS_read],
            5,
            move || from.read_line(&mut line),
            move |_| {
                to.write_all(b"hell\n").unwrap();
                keep(to)
            },
        )
    }),
    canceled("BufRead::read_until", "a pipe that is half read", || {
        let ((from, to), mut all) = (half_read(), Vec::new());
        fed(&[SYS_read], (BufReader::new(from), to), move |from| {
            from.read_until(b'o', &mut all).and_then(|_| hello_at_last(&all))
        })
    }),
    canceled("fs::read", "a FIFO that is open for writing", read_of_an_open_fifo),
    canceled("fs::read", "a FIFO that nobody has opened", read_of_a_fifo),
    canceled("fs::write", "a FIFO that nobody has opened", write_of_a_fifo),
    canceled("File::open", "a FIFO", || open_of_a_fifo(|path| File::open(path), false)),
    canceled("OpenOptions::open", "a FIFO, for writing", || {
        open_of_a_fifo(|path| File::options().write(true).open(path), true)
    }),
    canceled("Write::write_all", "a full pipe", || filled(&[SYS_write], full_file(), write_all)),
    canceled("Write::write_all", "a full TcpStream", || filled(SENDS, full_tcp(), write_all)),
    canceled("Write::write_all", "a full UnixStream", || filled(SENDS, full_unix(), write_all)),
    canceled("Write::flush", "a BufWriter on a full pipe", flush),
    canceled("TcpListener::accept", "nobody calls", accept_of_tcp),
    canceled("UnixListener::accept", "nobody calls", accept_of_unix),
    canceled("Child::wait", "a child that lives", || {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let input = child.stdin.take().unwrap();
        Call::new(
            &[SYS_wait4],
            1,
            move || child.wait().map(|status| status.success().into()),
            move |_| {
                drop(input);
                keep(())
            },
        )
    }),
    canceled("Command::status", "a child that lives", || {
        let (input, to) = pipe_files();
        let cat = move || Command::new("cat").stdin(input.try_clone().unwrap()).stdout(Stdio::null()).status();
        Call::new(
            &[SYS_wait4],
            1,
            move || cat().map(|status| status.success().into()),
            move |_| {
                drop(to);
                Box::new(reap_all) // the one whose wait was broken goes on until then
            },
        )
    }),
    canceled("io::copy", "a pipe into memory", || {
        let mut all = Vec::new();
        fed_at_last(&[SYS_read], pipe_files(), move |from| io::copy(from, &mut all).map(|_| of_hello(all.split_off(0))))
    }),
    canceled("io::copy", "a UnixStream into a file", || {
        let mut all = memory_file();
        fed_at_last(RECEIVES, unix(), move |from| io::copy(from, &mut all).map(|n| n as usize))
    }),
    canceled("io::copy", "a file into a full pipe", || {
        filled(&[SYS_write], full_file(), |to, text| {
            let mut file = memory_file();
            file.write_all(text)?;
            file.rewind()?;
            io::copy(&mut file, to).map(|n| n as usize)
        })
    }),
    canceled("io::copy", "memory into a full pipe", || {
        filled(&[SYS_write], full_file(), |to, mut text| io::copy(&mut text, to).map(|n| n as usize))
    }),
];

/// A pipe with something in it that the call takes before it blocks.
fn half_read() -> (File, File) {
    let (from, mut to) = pipe_files();
    to.write_all(b"say ").unwrap();
    (from, to)
}

/// What the broken call has read is where the next one goes on.
fn hello_at_last(all: &[u8]) -> io::Result<usize> {
    assert_eq!(all, b"say hello");
    Ok(HELLO.len())
}

fn read_exact(from: &mut impl Read) -> io::Result<usize> {
    let mut buffer = BLANK;
    let answer = from.read_exact(&mut buffer[..HELLO.len()]);
    assert_eq!(&buffer, if answer.is_ok() { b"hello..." } else { &BLANK });
    answer.map(|()| HELLO.len())
}

fn write_all(to: &mut impl Write, text: &[u8]) -> io::Result<usize> {
    to.write_all(text).map(|()| text.len())
}

/// What it could not write stays in its buffer.
fn flush() -> Call {
    let full = full_file();
    let full = std_ends::Full { from: full.from, to: BufWriter::new(full.to), filling: full.filling };
    filled(&[SYS_write], full, |to, text| {
        if to.buffer().is_empty() {
            to.write_all(text)?;
        }
        to.flush().map(|()| text.len())
    })
}

fn of_hello(bytes: Vec<u8>) -> usize {
    assert_eq!(bytes, HELLO);
    bytes.len()
}

fn read_of_an_open_fifo() -> Call {
    let fifo = Fifo::new();
    let (mut to, path) = (fifo.both(), fifo.0.clone());
    Call::new(
        &[SYS_read],
        HELLO.len(),
        move || fs::read(&path).map(of_hello),
        move |_| {
            to.write_all(HELLO).unwrap();
            drop(to);
            keep(fifo)
        },
    )
}

fn read_of_a_fifo() -> Call {
    let fifo = Fifo::new();
    let path = fifo.0.clone();
    Call::new(
        &[SYS_openat],
        HELLO.len(),
        move || fs::read(&path).map(of_hello),
        move |tid| {
            let mut to = fifo.both();
            common::wait_blocked_in(tid, SYS_read); // it has opened it
            to.write_all(HELLO).unwrap();
            keep(fifo)
        },
    )
}

fn write_of_a_fifo() -> Call {
    let fifo = Fifo::new();
    let path = fifo.0.clone();
    let call = move || fs::write(&path, HELLO).map(|()| HELLO.len());
    Call::new(&[SYS_openat], HELLO.len(), call, move |_| {
        let mut from = fifo.both();
        Box::new(move || {
            assert_eq!(read_exact(&mut from).unwrap(), HELLO.len());
            drop(fifo);
        })
    })
}

/// What was opened is used then.
fn open_of_a_fifo(open: fn(&Path) -> io::Result<File>, to_write: bool) -> Call {
    let fifo = Fifo::new();
    let (path, slot) = (fifo.0.clone(), Arc::new(Mutex::new(None)));
    let opened = Arc::clone(&slot);
    let call = move || open(&path).map(|file| usize::from(opened.lock().unwrap().replace(file).is_some()));
    Call::new(&[SYS_openat], 0, call, move |_| {
        let both = fifo.both();
        Box::new(move || {
            let opened = slot.lock().unwrap().take().unwrap();
            let (mut from, mut to) = if to_write { (both, opened) } else { (opened, both) };
            to.write_all(HELLO).unwrap();
            assert_eq!(read_exact(&mut from).unwrap(), HELLO.len());
            drop(fifo);
        })
    })
}

/// One caller, who is accepted once: the address that `accept` is told is the one that he says.
fn accept<P: PartialEq + std::fmt::Debug + Send + 'static, S: 'static>(
    mut accept: impl FnMut() -> io::Result<P> + Send + 'static,
    connect: impl FnOnce() -> S + 'static,
    address: fn(&S) -> P,
    nobody_waits: impl FnOnce() -> bool + 'static,
) -> Call {
    let slot = Arc::new(Mutex::new(None));
    let accepted = Arc::clone(&slot);
    let call = move || accept().map(|peer| usize::from(accepted.lock().unwrap().replace(peer).is_some()));
    Call::new(&[SYS_accept4], 0, call, move |_| {
        let caller = connect();
        Box::new(move || {
            assert_eq!(slot.lock().unwrap().take(), Some(address(&caller)));
            assert!(nobody_waits());
        })
    })
}

fn accept_of_tcp() -> Call {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (place, other) = (listener.local_addr().unwrap(), listener.try_clone().unwrap());
    let connect = move || TcpStream::connect(place).unwrap();
    let nobody_waits = move || other.set_nonblocking(true).and_then(|()| other.accept()).is_err();
    accept(move || Ok(listener.accept()?.1), connect, |caller| caller.local_addr().unwrap(), nobody_waits)
}

fn accept_of_unix() -> Call {
    let name = std_ends::abstract_name();
    let listener = UnixListener::bind_addr(&name).unwrap();
    let other = listener.try_clone().unwrap();
    let connect = move || UnixStream::connect_addr(&name).unwrap();
    let nobody_waits = move || other.set_nonblocking(true).and_then(|()| other.accept()).is_err();
    accept(move || Ok(listener.accept()?.1.is_unnamed()), connect, |_| true, nobody_waits)
}

#[test]
fn signals_from_elsewhere_do_to_them_what_they_do_without_a_scope() {
    let _t = common::begin();
    std_call::with_a_scope_they_do_what_they_do_without(ROWS);
}

// Over a handler without SA_RESTART std's own loops eat every EINTR: then they stay, until what they wait for comes.
#[test]
fn a_remote_ends_them_with_ecanceled_where_calls_restart_and_not_at_all_elsewhere() {
    let _t = common::begin();
    std_call::a_remote_makes_of_them_what_the_table_says(ROWS);
}

#[test]
fn the_guide_has_them_in_its_second_column() {
    let _t = common::begin(); // it opens a file, and the others count
    std_call::the_guide_names_them(1, ROWS);
}
