//! Waits for a lock that another process holds, but not for ever: `lock_with_timeout [MILLISECONDS]`.
//!
//! F_SETLKW has no time-out, so a watchdog thread ends it: before it, in it, or not at all, if the lock was there in time.

use eintr::nix::fcntl::FcntlArg::F_SETLKW;
use eintr::{Scope, Signal, sys};
use std::fs::{File, read_to_string, remove_file};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError::Timeout, channel};
use std::{env, error::Error, io, io::BufRead, thread, time::Duration};

const WHOLE: libc::flock =
    libc::flock { l_type: libc::F_WRLCK as _, l_whence: libc::SEEK_SET as _, l_start: 0, l_len: 0, l_pid: 0 };

fn main() -> Result<(), Box<dyn Error>> {
    let argument = env::args().nth(1).unwrap_or("500".into());
    let Ok(limit) = argument.parse().map(Duration::from_millis) else { return hold(&argument) }; // the other process
    let path = env::temp_dir().join(format!("eintr-lock-{}", std::process::id()));
    let file = File::create(&path)?;
    let mut other = Command::new("/proc/self/exe").arg(&path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let said = io::BufReader::new(other.stdout.take().ok_or("no output")?).lines().next();
    println!("process {}: {}", other.id(), said.ok_or("it ended")??);
    thread::spawn(|| ()).join().map_err(|_| "no thread")?; // from the first one on glibc catches a signal of its own
    let before = signal_state()?;
    println!("within {limit:?}: {}", lock_within(&file, limit)?);
    let after = signal_state()?;
    println!("{after}actions and mask are {} before", if after == before { "as" } else { "NOT as" });
    other.wait()?; // closes its input first, and so it lets go
    println!("once it is free: {}", lock_within(&file, limit)?);
    Ok(remove_file(path)?)
}

fn lock_within(file: &File, limit: Duration) -> Result<String, Box<dyn Error>> {
    let scope = Scope::enter(Signal::unused().ok_or("every real-time signal is taken")?)?;
    let (remote, (done, ended)) = (scope.remote(), channel::<()>());
    thread::spawn(move || (ended.recv_timeout(limit) == Err(Timeout)).then(|| remote.interrupt()));
    let outcome = sys::fcntl_lock(file, F_SETLKW(&WHOLE));
    drop(done); // ends the watchdog; were it to interrupt only now, its Remote would answer Gone
    Ok(outcome.map_or_else(|e| format!("not locked: {e}"), |()| "locked".into()))
}

fn hold(path: &str) -> Result<(), Box<dyn Error>> {
    let file = File::options().write(true).open(path)?;
    sys::fcntl_lock(&file, F_SETLKW(&WHOLE))?;
    println!("holds the lock");
    Ok(io::stdin().read_line(&mut String::new()).map(drop)?) // until the input ends
}

fn signal_state() -> io::Result<String> {
    let status = read_to_string("/proc/self/status")?;
    Ok(status.split_inclusive('\n').skip_while(|l| !l.starts_with("SigBlk")).take(3).collect()) // SigIgn, SigCgt
}
