//! The race, run: a flag beside `read`, as everybody writes it first, and `sys::read`, in the same storm of signals.

use eintr::{Scope, nix::sys::pthread::*, nix::sys::signal::*, nix::unistd::read, sys};
use std::io::{PipeReader, Result, Write, pipe};
use std::sync::{atomic::AtomicBool, atomic::Ordering::SeqCst, mpsc::channel};
use std::{fs, hint, process, thread, time::Duration};

const ROUNDS: u32 = 10_000;

/// Another thread interrupts this one, which waits in `wait`. How often that was lost: it slept on, and a byte had to wake it.
fn storm(name: &str, wait: impl Fn(&PipeReader), interrupt: impl Fn() + Send) -> Result<u32> {
    let ((reader, mut writer), (back, is_back)) = (pipe()?, channel());
    let (this, asleep) = (pthread_self(), format!("{} ", libc::SYS_read));
    thread::scope(|s| {
        let torment = s.spawn(move || {
            let mut lost = 0;
            for round in 0..ROUNDS {
                (0..round % 3000).for_each(|_| hint::spin_loop());
                pthread_kill(this, Signal::SIGUSR1)?; // somebody else's
                interrupt();
                let mut sleeps = false;
                while is_back.recv_timeout(Duration::from_millis(1)).is_err() {
                    if sleeps {
                        lost += 1;
                        writer.write_all(&[0])?;
                    }
                    let of = |file| fs::read_to_string(format!("/proc/{}/{file}", process::id()));
                    sleeps = of("syscall")?.starts_with(&asleep) && of("stat")?.contains(") S "); // R: it is being woken
                }
            }
            println!("{name}: {ROUNDS} rounds, {lost} lost");
            Ok(lost)
        });
        (0..ROUNDS).map(|_| wait(&reader)).try_for_each(|()| back.send(())).expect("it waits for that");
        torment.join().expect("it does not panic")
    })
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    extern "C" fn do_nothing(_: i32) {}
    for (signal, flags) in [(Signal::SIGUSR1, SaFlags::SA_RESTART), (Signal::SIGUSR2, SaFlags::empty())] {
        let action = SigAction::new(SigHandler::Handler(do_nothing), flags, SigSet::empty());
        // SAFETY: the handler does nothing, which is async-signal-safe.
        #[allow(unsafe_code)]
        let _before = unsafe { sigaction(signal, &action) }?;
    }
    let (this, flag) = (pthread_self(), AtomicBool::new(false));
    let wait = |pipe: &PipeReader| {
        while !flag.swap(false, SeqCst) {
            let _ = read(pipe, &mut [0]);
        }
    };
    storm("naive", wait, || _ = (flag.store(true, SeqCst), pthread_kill(this, Signal::SIGUSR2)))?;

    let scope = Scope::enter(Signal::SIGUSR2)?;
    let remote = scope.remote();
    let wait = |pipe: &PipeReader| while sys::read(pipe, &mut [0]).is_ok() || scope.clear().is_none() {};
    process::exit(i32::from(storm("eintr", wait, || _ = remote.interrupt_once())? > 0))
}
