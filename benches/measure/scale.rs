//! What an interrupt costs among many scoped threads, against few: two processes, one with 10,000 threads and one with 10, in turns.

use crate::common;
use crate::measure::raw;
use crate::measure::report::{Run, figure, quantile, skipped, sorted};
use eintr::{Remote, Scope};
use std::io::{BufRead, BufReader, Lines, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

const MANY: usize = 10_000;
const FEW: usize = 10;
const NAME: &str = "scale_ratio_10000";

pub fn figures(run: &Run) {
    if !run.wants(NAME) {
        return;
    }
    let (Some(mut many), Some(mut few)) = (Server::start(MANY), Server::start(FEW)) else {
        return skipped(NAME, format!("{MANY} threads are not to be had here"));
    };
    let (seconds, count) = run.choose((2, 200), (20, 500));
    let mut samples: [Vec<f64>; 6] = [const { Vec::new() }; 6];
    let until = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < until || samples[0].len() < 5 {
        let (few, many) = (few.serve(count), many.serve(count));
        for (samples, time) in samples.iter_mut().zip([few, many].concat()) {
            samples.push(time);
        }
    }
    // Pair by pair, then the median.
    let ratio = |few: usize, many: usize| {
        sorted(samples[few].iter().zip(&samples[many]).map(|(few, many)| many / few).collect())
    };
    let [whole, call, by_hand] = [ratio(0, 3), ratio(1, 4), ratio(2, 5)];
    let median = |at: usize| quantile(&sorted(samples[at].clone()), 0.5) / 1000.0;
    let about = format!(
        "half of {} pairs of {count} interrupts between {:.2} and {:.2}; {:.1} us from interrupt() to clear(), among {FEW} {:.1}; \
         interrupt() alone {:.2}; a tgkill to its handler {:.2}",
        whole.len(),
        quantile(&whole, 0.25),
        quantile(&whole, 0.75),
        median(3),
        median(0),
        quantile(&call, 0.5),
        quantile(&by_hand, 0.5)
    );
    figure(NAME, quantile(&whole, 0.5), about);
}

/// A process with so many threads, each blocked in a scope.
struct Server {
    child: Child,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Server {
    fn start(threads: usize) -> Option<Server> {
        let mut command = Command::new(std::env::current_exe().ok()?);
        command.args(["--scale", &threads.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().ok()?;
        let answers = BufReader::new(child.stdout.take()?).lines();
        let mut server = Server { child, answers };
        let is_ready = server.answers.next().is_some_and(|line| line.is_ok_and(|line| line == "ready"));
        is_ready.then_some(server)
    }

    /// So many interrupts, of one thread after the other: the nanoseconds that one takes, that its sender's call takes, and that a signal by hand
    /// takes to its handler.
    fn serve(&mut self, count: usize) -> [f64; 3] {
        let input = self.child.stdin.as_mut().expect("piped");
        writeln!(input, "{count}").expect("it listens");
        let line = self.answers.next().expect("it answers").expect("a line");
        let mut times = line.split(' ').map(|time| time.parse().expect("a number"));
        std::array::from_fn(|_| times.next().expect("three of them"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

static DONE: AtomicU64 = AtomicU64::new(0);
static HANDLED: AtomicU64 = AtomicU64::new(0);

extern "C" fn handle(_: i32) {
    HANDLED.fetch_add(1, SeqCst);
}

/// The process: says `ready`, then answers each number on its standard input.
pub fn serve(threads: usize) {
    let _watchdog = common::Watchdog::new(Duration::from_secs(900));
    let by_hand = libc::SIGUSR1;
    common::install(by_hand, handle as *const () as usize, libc::SA_RESTART | libc::SA_ONSTACK, &[]);
    let processors = raw::processors();
    raw::pin_to(&processors[processors.len() - 1..]); // the threads inherit that
    let Some(scoped) = start(threads) else { return };
    raw::pin_to(&processors[..1]);
    let mut everybody = scoped.iter().cycle();
    interrupt(everybody.by_ref().take(threads)); // makes what is made once
    println!("ready");
    for line in std::io::stdin().lines() {
        let count: usize = line.expect("a line").parse().expect("a number");
        let [whole, call] = interrupt(everybody.by_ref().take(count));
        let by_hand = signal(everybody.by_ref().take(count), by_hand);
        let each = |time: u64| time as f64 / count as f64;
        println!("{} {} {}", each(whole), each(call), each(by_hand));
    }
    std::process::exit(0); // as they are
}

struct Scoped {
    remote: Remote,
    tid: i32,
}

fn start(threads: usize) -> Option<Vec<Scoped>> {
    let (reader, _writer): (Arc<OwnedFd>, _) = {
        let (reader, writer) = common::pipe();
        (Arc::new(reader), std::mem::ManuallyDrop::new(writer))
    };
    let (give, given) = mpsc::channel();
    for _ in 0..threads {
        let (reader, give) = (reader.clone(), give.clone());
        let sleep = move || {
            let scope = Scope::enter(libc::SIGRTMIN() + 1).expect("entered");
            give.send(Scoped { remote: scope.remote(), tid: common::gettid() }).expect("it waits");
            drop(give);
            loop {
                assert!(eintr::sys::read(&*reader, &mut [0; 1]).is_err());
                let _ = scope.clear();
                DONE.fetch_add(1, SeqCst);
            }
        };
        std::thread::Builder::new().stack_size(64 * 1024).spawn(sleep).ok()?;
    }
    drop(give);
    Some(given.iter().take(threads).collect())
}

/// Nanoseconds in all, until each had cleared it; and of that in the calls.
fn interrupt<'a>(whom: impl Iterator<Item = &'a Scoped>) -> [u64; 2] {
    let (mut whole, mut call) = (0, 0);
    for scoped in whom {
        let (before, began) = (DONE.load(SeqCst), raw::now());
        scoped.remote.interrupt();
        call += raw::now() - began;
        while DONE.load(SeqCst) == before {
            std::hint::spin_loop();
        }
        whole += raw::now() - began;
    }
    [whole, call]
}

/// The same by tgkill, until the handler has run; the read goes on.
fn signal<'a>(whom: impl Iterator<Item = &'a Scoped>, sig: i32) -> u64 {
    let mut whole = 0;
    for scoped in whom {
        let (before, began) = (HANDLED.load(SeqCst), raw::now());
        raw::tgkill(scoped.tid, sig);
        while HANDLED.load(SeqCst) == before {
            std::hint::spin_loop();
        }
        whole += raw::now() - began;
    }
    whole
}
