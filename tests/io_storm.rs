//! std's loops over `io::Interruptible` beside interrupts that come all the time: each loop that breaks is gone on with where the wrapper says that it broke,
//! and in the end the peer has every byte, once.
// Pipes are made narrow by bare calls.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod common;
#[path = "common/counting.rs"]
mod counting;
#[path = "common/shielding.rs"]
mod shielding;

use common::Random;
use counting::kinds;
use eintr::io::Interruptible;
use eintr::{Interrupted, Scope};
use shielding::{Ask, beside_two_senders};
use std::io::{self, BufRead, BufReader, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

fn narrow_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = io::pipe().unwrap();
    assert_eq!(unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) }, 4096);
    (reader, writer)
}

/// So many bytes go through in each test.
fn amount() -> usize {
    common::rounds("EINTR_BYTES", 48 << 20) as usize
}

/// The byte that belongs there.
fn byte(at: usize) -> u8 {
    (at.wrapping_mul(0x9e37_79b9) >> 13) as u8
}

fn bytes(at: usize, length: usize) -> Vec<u8> {
    (at..at + length).map(byte).collect()
}

#[track_caller]
fn assert_are(found: &[u8], at: usize) {
    if let Some(n) = (0..found.len()).find(|n| found[*n] != byte(at + n)) {
        panic!("byte {} of {} at {at} is wrong", n, found.len());
    }
}

/// Runs `body` in a scope that two threads interrupt all the time; it is told how to go on after an error. How often it had to.
fn stormed(body: impl Fn(&dyn Fn(&io::Error))) {
    let _t = common::begin();
    for sig in kinds() {
        let scope = Scope::enter(sig).unwrap();
        let broken = std::cell::Cell::new(0u64);
        let go_on = |error: &io::Error| {
            assert!(Interrupted::find(error).is_some(), "{error:?}");
            broken.set(broken.get() + 1);
            scope.clear();
        };
        // With a pause, or nothing would ever be moved: one that is pending ends each call before it has begun.
        let ask: Ask = |remote| {
            std::thread::sleep(Duration::from_micros(20));
            remote.interrupt()
        };
        let ((), sent) = beside_two_senders(&[scope.remote()], ask, || body(&go_on));
        println!("signal {sig}: broken {} times, sent {}", broken.get(), sent[0]);
        assert!(broken.get() > 0, "nothing was broken"); // how often is the scheduler's to say
    }
}

/// A thread that reads to the end, in pieces of any size, and looks at each byte; how many there were.
fn reader_of(mut reader: PipeReader) -> Receiver<usize> {
    let (tell, told) = channel();
    common::unsignalled(move || {
        let (mut at, mut random, mut room) = (0, Random::new(), [0; 8192]);
        loop {
            let size = 1 + random.below(room.len() as u64) as usize;
            match reader.read(&mut room[..size]).unwrap() {
                0 => break,
                n => {
                    assert_are(&room[..n], at);
                    at += n;
                }
            }
        }
        tell.send(at)
    });
    told
}

/// A thread that writes all, in pieces of any size.
fn writer_of(mut writer: PipeWriter, amount: usize) {
    common::unsignalled(move || {
        let (mut at, mut random) = (0, Random::new());
        while at < amount {
            let size = (1 + random.below(8192) as usize).min(amount - at);
            writer.write_all(&bytes(at, size)).unwrap();
            at += size;
        }
    });
}

#[test]
fn write_all_loses_nothing_and_repeats_nothing() {
    stormed(|go_on| {
        let (reader, writer) = narrow_pipe();
        let (read, mut writer, mut random) = (reader_of(reader), Interruptible::new(writer), Random::new());
        while writer.bytes_written() < amount() as u64 {
            let at = writer.bytes_written() as usize;
            let size = 1 + random.below(12_000) as usize;
            if let Err(error) = writer.write_all(&bytes(at, size)) {
                assert!(writer.bytes_written() < (at + size) as u64);
                go_on(&error);
            } else {
                assert_eq!(writer.bytes_written(), (at + size) as u64);
            }
        }
        let written = writer.bytes_written() as usize;
        drop(writer);
        assert_eq!(read.recv(), Ok(written), "what the peer got");
    });
}

#[test]
fn read_exact_loses_nothing_and_repeats_nothing() {
    stormed(|go_on| {
        let (reader, writer) = narrow_pipe();
        writer_of(writer, amount());
        let (mut reader, mut random) = (Interruptible::new(reader), Random::new());
        while reader.bytes_read() < amount() as u64 {
            let at = reader.bytes_read() as usize;
            let mut room = vec![0; (1 + random.below(12_000) as usize).min(amount() - at)];
            let outcome = reader.read_exact(&mut room);
            let got = reader.bytes_read() as usize - at;
            assert_are(&room[..got], at);
            match outcome {
                Ok(()) => assert_eq!(got, room.len()),
                Err(error) => go_on(&error),
            }
        }
        assert_eq!(
            reader
                .read(&mut [0; 8])
                .or_else(|e| {
                    go_on(&e);
                    reader.read(&mut [0; 8])
                })
                .unwrap_or(0),
            0
        );
    });
}

#[test]
fn read_to_end_and_read_until_lose_nothing() {
    stormed(|go_on| {
        let (reader, writer) = narrow_pipe();
        writer_of(writer, amount());
        let (mut reader, mut all) = (BufReader::new(Interruptible::new(reader)), Vec::new());
        let half = amount() / 2;
        while all.len() < half {
            // A piece that was broken off is gone on with.
            if let Err(error) = reader.read_until(0, &mut all) {
                go_on(&error);
            }
        }
        while let Err(error) = reader.read_to_end(&mut all) {
            go_on(&error);
        }
        assert_eq!((all.len(), reader.get_ref().bytes_read()), (amount(), amount() as u64));
        assert_are(&all, 0);
    });
}

// `copy` keeps what it has read and not written; the two counts say how much that is.
#[test]
fn after_copy_the_counts_say_what_is_missing() {
    stormed(|go_on| {
        let ((from, source), (sink, to)) = (narrow_pipe(), narrow_pipe());
        writer_of(source, amount());
        let (mut from, mut to) = (Interruptible::new(from), Interruptible::new(to));
        let (tell, told) = channel();
        common::unsignalled(move || {
            let mut all = Vec::new();
            let mut sink = sink;
            sink.read_to_end(&mut all).unwrap();
            tell.send(all)
        });
        let mut missing = Vec::new();
        loop {
            let outcome = io::copy(&mut from, &mut to);
            let (read, written) = (from.bytes_read() as usize, to.bytes_written() as usize + missing.len());
            missing.extend(written..read);
            match outcome {
                Ok(_) => break,
                Err(error) => go_on(&error),
            }
        }
        drop(to);
        let (all, mut missing) = (told.recv().unwrap(), missing.into_iter().peekable());
        let wanted = (0..amount()).filter(|at| missing.next_if_eq(at).is_none()).map(byte);
        assert!(all.iter().copied().eq(wanted), "{} bytes of {}", all.len(), amount());
    });
}
