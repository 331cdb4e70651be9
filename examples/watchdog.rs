//! Several workers, each in a plain call that has no time-out, and a watchdog with a `Remote` for each: `watchdog [MILLISECONDS]`.

use eintr::nix::fcntl::{FcntlArg, fcntl};
use eintr::nix::sys::{socket, wait};
use eintr::nix::{Result, unistd};
use eintr::{Signal, Ticket, retry};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::{env, error::Error, fs::File, io, process, thread, time::Duration};

type Call = Box<dyn FnMut() -> Result<()> + Send>;
const WHOLE: libc::flock =
    libc::flock { l_type: libc::F_WRLCK as _, l_whence: libc::SEEK_SET as _, l_start: 0, l_len: 0, l_pid: 0 };

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let limit = Duration::from_millis(env::args().nth(1).map_or(Ok(300), |ms| ms.parse())?);
    let signal = Signal::unused().ok_or("every real-time signal is taken")?;

    let path = |kind| env::temp_dir().join(format!("eintr-{kind}-{}", process::id()));
    let (lock, socket) = (path("lock"), path("socket"));
    let (holder, file) = (File::create(&lock)?, File::create(&lock)?);
    fcntl(&holder, FcntlArg::F_OFD_SETLK(&WHOLE))?;
    let (listener, (silent, _writer), (inbox, _outbox)) =
        (UnixListener::bind(&socket)?, io::pipe()?, UnixDatagram::pair()?);
    let mut child = process::Command::new("cat").stdin(process::Stdio::piped()).spawn()?;
    let pid = unistd::Pid::from_raw(child.id() as i32);

    let calls: [(&str, Call); 6] = [
        ("read", Box::new(move || unistd::read(&silent, &mut [0]).map(drop))),
        ("recv", Box::new(move || socket::recv(inbox.as_raw_fd(), &mut [0], socket::MsgFlags::empty()).map(drop))),
        ("accept", Box::new(move || socket::accept(&listener).map(drop))),
        ("lock", Box::new(move || fcntl(&file, FcntlArg::F_OFD_SETLKW(&WHOLE)).map(drop))),
        ("waitpid", Box::new(move || wait::waitpid(pid, None).map(drop))),
        ("nothing", Box::new(|| Ok(()))),
    ];
    let workers = calls.map(|(name, mut call)| {
        let (ticket, remote) = Ticket::new(); // the Remote is there before the thread is
        let work = move || {
            let _scope = ticket.enter(signal)?;
            Ok::<_, eintr::EnterError>(retry(&mut call))
        };
        (name, remote, thread::spawn(work))
    });

    thread::sleep(limit);
    for (name, remote, worker) in workers {
        let delivery = remote.interrupt(); // blocked by now or not: the signal comes again until the worker knows
        let outcome = worker.join().map_err(|_| "a worker panicked")??;
        println!("{name}: {delivery:?}, {}", outcome.map_or_else(|e| e.to_string(), |()| "done in time".into()));
    }
    child.wait()?; // closes its input first, so it ends
    std::fs::remove_file(lock)?;
    Ok(std::fs::remove_file(socket)?)
}
