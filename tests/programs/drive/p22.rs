//! Program 22 on a terminal of its own: what is typed is read, a change of the window breaks the read to redraw and only that, another thread quits.
//!
//! The program keeps its remote to itself, so here its `Scope` is one that hands a second one out; everything else is the crate's, and the program's text is
//! as it stands.
// A terminal is made, and becomes that of another process, by bare calls.
#![allow(unsafe_code, missing_docs, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

#[path = "../../common/mod.rs"]
mod common;

/// The crate, with a `Scope` that tells of itself.
mod tapped {
    pub(crate) use eintr::*;
    use std::sync::mpsc::Sender;
    use std::sync::{Mutex, PoisonError};

    /// Who is to be told.
    pub(crate) static TOLD: Mutex<Option<Sender<Remote>>> = Mutex::new(None);

    pub(crate) struct Scope(eintr::Scope);

    impl Scope {
        pub(crate) fn enter(on: impl Into<ScopeOptions>) -> Result<Scope, EnterError> {
            let scope = eintr::Scope::enter(on)?;
            if let Some(told) = TOLD.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
                let _ = told.send(scope.remote());
            }
            Ok(Scope(scope))
        }
    }

    impl std::ops::Deref for Scope {
        type Target = eintr::Scope;
        fn deref(&self) -> &eintr::Scope {
            &self.0
        }
    }
}

/// It compiles as it stands, to the byte.
#[rustfmt::skip]
#[allow(dead_code)] // nothing in here can be called from outside
#[path = "../p22_sigwinch.rs"]
mod as_it_stands;

/// The same, to be called; see build.rs.
mod program {
    use crate::tapped as eintr;
    include!(concat!(env!("OUT_DIR"), "/p22_sigwinch.rs"));

    pub(crate) fn run() -> io::Result<()> {
        main()
    }
}

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdout, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;

/// The name of the test in which the child runs, and of the variable that says so.
const CHILD: &str = "child";
const VARIABLE: &str = "EINTR_P22";

/// In the child, whose standard input is the terminal: `main`, and a thread that quits when the parent closes the pipe at this number.
#[test]
fn child() {
    let Ok(quit) = std::env::var(VARIABLE) else { return };
    // Open, and nobody else's.
    let mut quit = unsafe { File::from_raw_fd(quit.parse().unwrap()) };
    let (tell, told) = channel();
    *tapped::TOLD.lock().unwrap() = Some(tell);
    std::thread::spawn(move || {
        let remote = told.recv().expect("main enters");
        assert_eq!(quit.read(&mut [0]).unwrap(), 0);
        remote.interrupt();
    });
    println!("\nbegin");
    program::run().unwrap();
    println!("end");
    std::process::exit(0);
}

/// The program, its terminal, and what it says.
struct Running {
    child: Child,
    master: File,
    /// Closed, it quits.
    quit: Option<OwnedFd>,
    lines: BufReader<ChildStdout>,
    errors: ChildStderr,
}

/// A terminal that does not echo: its two ends.
fn terminal() -> Option<(OwnedFd, OwnedFd)> {
    let (mut master, mut slave) = (-1, -1);
    let mut settings: libc::termios = unsafe { std::mem::zeroed() };
    let (no_name, no_size) = (std::ptr::null_mut(), std::ptr::null_mut());
    if unsafe { libc::openpty(&mut master, &mut slave, no_name, std::ptr::null_mut(), no_size) } != 0 {
        println!("SKIPPED: the program on a terminal: openpty: {}", std::io::Error::last_os_error());
        return None;
    }
    assert_eq!(unsafe { libc::tcgetattr(slave, &mut settings) }, 0);
    settings.c_lflag &= !libc::ECHO;
    assert_eq!(unsafe { libc::tcsetattr(slave, libc::TCSANOW, &settings) }, 0);
    let [master, slave] = [master, slave].map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    Some((master, slave))
}

impl Running {
    /// `None`: there are no terminals here.
    fn start() -> Option<Running> {
        let ((master, slave), (to_close, quit)) = (terminal()?, common::pipe());
        let (master_number, quit_number) = (master.as_raw_fd(), to_close.as_raw_fd());
        let mut command = common::program(std::env::current_exe().unwrap());
        command.args([CHILD, "--exact", "--nocapture", "--test-threads=1"]);
        command.env(VARIABLE, quit_number.to_string());
        command.stdin(slave).stdout(Stdio::piped()).stderr(Stdio::piped());
        let prepare = move || {
            let ok = |r: libc::c_int| if r >= 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) };
            unsafe {
                ok(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
                ok(libc::setsid())?;
                ok(libc::ioctl(0, libc::TIOCSCTTY, 0))?;
                ok(libc::fcntl(quit_number, libc::F_SETFD, 0))?;
                ok(libc::close(master_number))
            }
        };
        // Bare system calls alone run between fork and exec.
        unsafe { command.pre_exec(prepare) };
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let errors = child.stderr.take().unwrap();
        let mut running = Running { child, master: master.into(), quit: Some(quit), lines, errors };
        while running.line() != "begin" {}
        Some(running)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        if self.lines.read_line(&mut line).unwrap() == 0 {
            let mut errors = String::new();
            let _ = self.errors.read_to_string(&mut errors);
            panic!("it has ended: {:?}: {errors}", self.child.wait());
        }
        line.trim_end().to_owned()
    }

    fn type_in(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// As a terminal's window does: the kernel sends SIGWINCH to the processes in front.
    fn resize(&self, rows: u16) {
        let size = libc::winsize { ws_row: rows, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        assert_eq!(unsafe { libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &size) }, 0);
    }

    /// The other thread quits; all that was said until the end, which is a good one.
    fn quits(mut self) -> Vec<String> {
        self.quit.take();
        let mut said = Vec::new();
        loop {
            match self.line().as_str() {
                "end" => break,
                line => said.push(line.to_owned()),
            }
        }
        assert!(self.child.wait().unwrap().success());
        said
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the program prints for a read of these keys.
fn printed(keys: &str) -> String {
    format!("{:?}", keys.as_bytes())
}

#[test]
fn it_reads_redraws_and_quits() {
    let _t = common::begin();
    let Some(mut program) = Running::start() else { return };
    for round in 1..=common::rounds("EINTR_ROUNDS", 200) as u16 {
        program.type_in("key\n");
        assert_eq!(program.line(), printed("key\n"));
        program.resize(round);
        assert_eq!(program.line(), "redraw");
    }
    assert_eq!(program.quits(), [""; 0], "and says nothing more");
}

/// At any instant: before the program waits, too.
#[test]
fn it_quits_whenever_it_is_told_to() {
    let _t = common::begin();
    for round in 0..common::rounds("EINTR_ROUNDS", 20) as u16 {
        let Some(mut program) = Running::start() else { return };
        let mut wanted = vec![];
        if round % 3 == 1 {
            program.resize(1 + round);
            wanted = vec!["redraw".to_owned()];
        } else if round % 3 == 2 {
            program.type_in("q\n");
            assert_eq!(program.line(), printed("q\n"));
        }
        let said = program.quits();
        assert!(said.is_empty() || said == wanted, "{said:?}");
    }
}

/// The window changes all the time, and not a key is lost, or read twice; nor is the quit lost among the changes.
#[test]
fn while_it_is_resized_all_the_time_no_key_is_lost() {
    let _t = common::begin();
    let Some(mut program) = Running::start() else { return };
    let (done, master) = (std::sync::Arc::new(AtomicBool::new(false)), program.master.try_clone().unwrap());
    let is_done = done.clone();
    let resizes: JoinHandle<u64> = std::thread::spawn(move || {
        let mut size = libc::winsize { ws_row: 1, ws_col: 1, ws_xpixel: 0, ws_ypixel: 0 };
        let mut times = 0;
        while !is_done.load(SeqCst) {
            size.ws_row = size.ws_row % 100 + 1;
            assert_eq!(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &size) }, 0);
            times += 1;
            std::thread::sleep(std::time::Duration::from_micros(50));
        }
        times
    });
    let mut redrawn = 0;
    for n in 0..common::rounds("EINTR_ROUNDS", 1000) {
        let keys = format!("{n}\n");
        program.type_in(&keys);
        loop {
            match program.line().as_str() {
                "redraw" => redrawn += 1,
                line => break assert_eq!(line, printed(&keys)),
            }
        }
    }
    program.quit.take();
    while program.line() != "end" {}
    done.store(true, SeqCst);
    let times = resizes.join().unwrap();
    println!("resized {times} times, redrawn {redrawn}");
    assert!(redrawn > 10 && redrawn <= times, "{redrawn} of {times}");
    assert!(program.child.wait().unwrap().success());
}
