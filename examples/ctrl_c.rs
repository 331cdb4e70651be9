//! An event loop that Ctrl+C ends, with a clean-up; the second Ctrl+C kills, in the clean-up too: `ctrl_c [EVERY_MS] [CLEAN_UP_MS]`.
//!
//! Under `Foreign::InterruptOnce` the first SIGINT interrupts the scope, whichever thread the kernel gives it to, and the next one does what it
//! would have done without the scope.

use eintr::nix::sys::socket::MsgFlags;
use eintr::{Foreign, ScopeOptions, sys};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;
use std::{env, error::Error, thread};

fn main() -> Result<(), Box<dyn Error>> {
    let milliseconds = |at, usual| {
        let given = env::args().nth(at).map_or(Ok(usual), |given| given.parse());
        given.map(Duration::from_millis)
    };
    let (every, clean_up) = (milliseconds(1, 1000)?, milliseconds(2, 3000)?);

    // In a background job of a shell without job control SIGINT is ignored: then this says so and ends.
    let scope = ScopeOptions::new(libc::SIGINT).foreign(Foreign::InterruptOnce).enter()?;
    let (inbox, outbox) = UnixDatagram::pair()?;
    thread::spawn(move || {
        for n in 0u32.. {
            thread::sleep(every);
            outbox.send(&n.to_be_bytes()).expect("the inbox lives as long as the process");
        }
    });

    println!("waiting for events; Ctrl+C ends it");
    let mut event = [0; 4];
    let end = loop {
        match sys::recv(&inbox, &mut event, MsgFlags::empty()) {
            Ok(_) => println!("event {}", u32::from_be_bytes(event)),
            Err(end) => break end,
        }
    };

    // The scope still lives, so the interrupt is not forgotten; but it was acknowledged, so plain calls are left alone.
    println!("{end}; cleaning up for {clean_up:?}; Ctrl+C kills");
    thread::sleep(clean_up);
    println!("clean");
    drop(scope);
    if end.interrupted().is_some() { Ok(()) } else { Err(end.into()) }
}
