//! A C library's call that has no time-out, ended by a watchdog: `c_library [MILLISECONDS]`.
//!
//! pclose(3) waits for a child, and glibc's begins again after EINTR, so that one signal does not end it. The interrupt comes again, and is told as
//! ECANCELED then, which ends the wait; the child goes on, and is waited for in another way.
#![allow(unsafe_code)] // C functions

use eintr::nix::sys::wait::WaitPidFlag;
use eintr::{Scope, Signal, sys};
use std::os::fd::BorrowedFd;
use std::{env, error::Error, io, thread, time::Duration};

fn main() -> Result<(), Box<dyn Error>> {
    let limit = Duration::from_millis(env::args().nth(1).map_or(Ok(300), |ms| ms.parse())?);
    // SAFETY: two C strings.
    let stream = unsafe { libc::popen(c"read line; exit 7".as_ptr(), c"w".as_ptr()) };
    if stream.is_null() {
        return Err(io::Error::last_os_error().into());
    }
    // SAFETY: `stream` was opened just now.
    let end = unsafe { libc::fileno(stream) };
    // A copy of the pipe's end: pclose(3) closes its own, and the child would end.
    // SAFETY: the descriptor is the stream's, which is not closed meanwhile.
    let kept = unsafe { BorrowedFd::borrow_raw(end) }.try_clone_to_owned()?;

    let scope = Scope::enter(Signal::unused().ok_or("every real-time signal is taken")?)?;
    let remote = scope.remote();
    let watchdog = thread::spawn(move || {
        thread::sleep(limit);
        (remote.interrupt(), remote.wait(Duration::from_secs(60)))
    });
    // SAFETY: `stream` is popen's, and is not used again, whatever the answer is.
    let outcome = eintr::retry(|| unsafe { libc::pclose(stream) });
    println!("pclose: {}", outcome.map_or_else(|e| e.to_string(), |status| format!("exit status {}", status >> 8)));
    println!("the watchdog: {:?}", watchdog.join().map_err(|_| "it panicked")?);

    scope.clear(); // the clean-up may take as long as it needs
    drop(kept); // now the child ends
    let ended = sys::wait4(None, WaitPidFlag::empty())?;
    println!("the child: {}", ended.ok_or("none has ended")?.1);
    Ok(())
}
