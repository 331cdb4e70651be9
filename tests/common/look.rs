//! A look at a thread from outside, by /proc: what it sleeps in, and whether anything will wake it. Part of `nest`.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block
)]

use crate::common;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// A thread as /proc tells it.
#[derive(Debug)]
pub struct Look {
    syscall: File,
    status: File,
}

impl Look {
    pub fn at(tid: libc::pid_t) -> Look {
        let open = |file: &str| File::open(format!("/proc/self/task/{tid}/{file}")).expect("the thread lives");
        Look { syscall: open("syscall"), status: open("status") }
    }

    fn text<'a>(file: &File, buf: &'a mut [u8]) -> &'a str {
        // The kernel writes the file anew for who reads it from its beginning.
        let n = file.read_at(buf, 0).unwrap_or(0);
        std::str::from_utf8(&buf[..n]).unwrap_or("")
    }

    /// The system call that it sleeps in, and the first argument; `None` while it runs.
    pub fn sleeps_in(&self) -> Option<(libc::c_long, usize)> {
        let mut buf = [0; 256];
        let mut words = Look::text(&self.syscall, &mut buf).split_whitespace();
        let nr = common::number_from_proc(words.next()?.parse().ok()?);
        let first = usize::from_str_radix(words.next()?.trim_start_matches("0x"), 16).ok()?;
        Some((nr, first))
    }

    fn word<R>(&self, name: &str, read: impl Fn(&str) -> R) -> R {
        let mut buf = [0; 4096];
        let line = Look::text(&self.status, &mut buf).lines().find(|line| line.starts_with(name));
        read(line.and_then(|line| line.split_whitespace().nth(1)).expect("a field of status"))
    }

    /// Whether one is queued for this thread.
    pub fn is_pending(&self, sig: i32) -> bool {
        let pending = self.word("SigPnd:", |word| u64::from_str_radix(word, 16).expect("a mask"));
        common::set_from_proc(pending) & common::bit(sig) != 0
    }

    /// Not woken either: a thread that is about to be put on another processor is still where it slept to `syscall`, but not to `status`.
    pub fn is_at_rest(&self) -> bool {
        self.word("State:", |word| word == "S")
    }

    /// How often it has gone to sleep.
    pub fn sleeps(&self) -> u64 {
        self.word("voluntary_ctxt_switches:", |word| word.parse().expect("a number"))
    }

    pub fn wait_asleep(&self, nr: libc::c_long, first: usize) {
        common::wait_until(|| self.sleeps_in() == Some((nr, first)));
    }

    /// Whether it sleeps in that call and nothing is on its way that would wake it. A signal that was sent before is either queued still, or has been
    /// delivered, and the thread has gone to sleep after that.
    pub fn is_left_asleep(&self, nr: libc::c_long, first: usize, sig: i32) -> bool {
        let asleep = || self.sleeps_in() == Some((nr, first));
        (0..2).all(|_| asleep() && self.is_at_rest() && !self.is_pending(sig) && asleep())
    }
}

/// While it lives the calling thread has one processor and the other thread another, if there are two: what one sends lands at any instruction of the other.
#[derive(Debug)]
pub struct Apart {
    tids: [libc::pid_t; 2],
    before: [libc::cpu_set_t; 2],
}

impl Apart {
    pub fn from(other: libc::pid_t) -> Apart {
        let tids = [common::gettid(), other];
        let before = tids.map(|tid| {
            let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
            assert_eq!(unsafe { libc::sched_getaffinity(tid, size_of_val(&set), &mut set) }, 0);
            set
        });
        let mut processors = (0..libc::CPU_SETSIZE as usize).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &before[0]) });
        if let (Some(first), Some(second)) = (processors.next(), processors.next()) {
            for (tid, cpu) in tids.into_iter().zip([first, second]) {
                let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
                unsafe { libc::CPU_SET(cpu, &mut set) };
                unsafe { libc::sched_setaffinity(tid, size_of_val(&set), &set) };
            }
        }
        Apart { tids, before }
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        for (tid, set) in self.tids.iter().zip(&self.before) {
            unsafe { libc::sched_setaffinity(*tid, size_of_val(set), set) };
        }
    }
}
