//! std under signals, where a Remote ends nothing: the third column of the table in `docs/guide.md`. Each call goes back to sleep however often it is
//! woken, and the interrupter is told `StillRunning`; it ends well when what it waits for comes, and then the interrupt is still there. And other people's
//! signals do to it what they do without a scope, as in `tests/std_calls.rs`.
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

use libc::{SYS_clock_nanosleep, SYS_connect, SYS_futex, SYS_splice, c_long};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::sync::{Arc, Barrier, Condvar, LazyLock, Mutex, Once, OnceLock, RwLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};
use std_call::{Call, Fate, Row};
use std_ends::{
    HELLO, HOUR, POLLS, RECEIVES, SENDS, abstract_name, fed, fed_at_last, file_twice, filled, full_unix, narrow, tcp,
    unix,
};
use suite::{After, keep, pipe_files};

const fn stays(name: &'static str, of: &'static str, make: fn() -> Call) -> Row {
    Row::new(Fate::Stays, name, of, make)
}

/// What std itself does not try again: only the kernel's restart keeps it.
const fn restarted(name: &'static str, of: &'static str, make: fn() -> Call) -> Row {
    Row::new(Fate::Restarted, name, of, make)
}

const FUTEX: &[c_long] = &[SYS_futex];
const LONG: Duration = Duration::from_secs(3600);

const ROWS: &[Row] = &[
    stays("thread::sleep", "a while", || {
        const TIME: Duration = Duration::from_millis(40);
        let call = || {
            let begun = Instant::now();
            thread::sleep(TIME);
            Ok(usize::from(begun.elapsed() >= TIME))
        };
        Call::new(&[SYS_clock_nanosleep], 1, call, |_| keep(())).that_ends_alone()
    }),
    stays("thread::park", "nobody unparks", || parked(thread::park)),
    stays("thread::park_timeout", "nobody unparks", || parked(|| thread::park_timeout(LONG))),
    stays("JoinHandle::join", "a thread that lives", || {
        let (go, gone) = channel::<()>();
        let mut thread = Some(thread::spawn(move || gone.recv()));
        waits(move || thread.take().unwrap().join().unwrap().unwrap(), move || go.send(()).unwrap())
    }),
    stays("thread::scope", "a thread that lives", || {
        let (go, gone) = channel::<()>();
        let gone = Arc::new(Mutex::new(gone));
        let call = move || thread::scope(|s| drop(s.spawn(|| gone.lock().unwrap().recv().unwrap())));
        waits(call, move || go.send(()).unwrap())
    }),
    stays("Mutex::lock", "one that is locked", || {
        let (mutex, holder) = held(Mutex::new(0), |mutex, wait| (mutex.lock().unwrap(), wait()).1);
        waits(move || *mutex.lock().unwrap() += 1, holder)
    }),
    stays("RwLock::read", "one that is locked for writing", || {
        let (lock, holder) = held(RwLock::new(0), |lock, wait| (lock.write().unwrap(), wait()).1);
        waits(move || assert_eq!(*lock.read().unwrap(), 0), holder)
    }),
    stays("RwLock::write", "one that is locked for reading", || {
        let (lock, holder) = held(RwLock::new(0), |lock, wait| (lock.read().unwrap(), wait()).1);
        waits(move || *lock.write().unwrap() += 1, holder)
    }),
    stays("Condvar::wait", "nobody notifies", || notified(|mutex, condvar| drop(condvar.wait(mutex.lock().unwrap())))),
    stays("Condvar::wait_timeout", "nobody notifies", || {
        notified(|mutex, condvar| {
            let (guard, waited) = condvar.wait_timeout(mutex.lock().unwrap(), LONG).unwrap();
            drop(guard);
            assert!(!waited.timed_out());
        })
    }),
    stays("Barrier::wait", "the other one does not come", || {
        let here = Arc::new(Barrier::new(2));
        let there = Arc::clone(&here);
        waits(move || here.wait(), move || there.wait())
    }),
    stays("Receiver::recv", "nobody sends", || received(|from| from.recv().unwrap())),
    stays("Receiver::recv_timeout", "nobody sends", || received(|from| from.recv_timeout(LONG).unwrap())),
    stays("SyncSender::send", "a full channel", || {
        let (to, from) = sync_channel(1);
        to.send(1).unwrap();
        Call::new(
            FUTEX,
            0,
            move || to.send(2).map(|()| 0).map_err(io::Error::other),
            move |_| {
                assert_eq!(from.recv(), Ok(1));
                Box::new(move || assert_eq!(from.iter().collect::<Vec<_>>(), [2]))
            },
        )
    }),
    stays("Once::call_once", "another thread is at it", || {
        let (once, holder) = held(Once::new(), |once, wait| once.call_once(wait));
        waits(move || once.call_once(|| panic!("once")), holder)
    }),
    stays("Once::wait", "nobody has called", || {
        let here = Arc::new(Once::new());
        let there = Arc::clone(&here);
        waits(move || here.wait(), move || there.call_once(|| {}))
    }),
    stays("OnceLock::get_or_init", "another thread is at it", || {
        let (lock, holder) = held(OnceLock::new(), |lock, wait| *lock.get_or_init(wait));
        waits(move || *lock.get_or_init(|| panic!("once")), holder)
    }),
    stays("OnceLock::wait", "nobody has set it", || {
        let here = Arc::new(OnceLock::new());
        let there = Arc::clone(&here);
        waits(move || *here.wait(), move || there.set(()).unwrap())
    }),
    stays("LazyLock::force", "another thread is at it", || {
        let (go, gone) = channel::<()>();
        let (tell, told) = channel();
        let here = Arc::new(LazyLock::new(move || (tell.send(()).unwrap(), gone.recv().unwrap()).1));
        let there = Arc::clone(&here);
        let other = thread::spawn(move || *LazyLock::force(&there));
        told.recv().unwrap();
        waits(move || *LazyLock::force(&here), move || (go.send(()).unwrap(), other.join().unwrap()).1)
    }),
    stays("TcpStream::connect", "a listener with no room", || connect_of_tcp(&[SYS_connect], TcpStream::connect))
        .slow(),
    stays("TcpStream::connect_timeout", "a listener with no room", || {
        connect_of_tcp(POLLS, |address| TcpStream::connect_timeout(&address, LONG))
    })
    .slow(),
    restarted("UnixStream::connect", "a listener with no room", connect_of_unix),
    stays("Child::wait_with_output", "a child with two pipes", || {
        of_a_child(|command| command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?.wait_with_output())
    }),
    stays("Command::output", "a child with two pipes", || of_a_child(Command::output)),
    restarted("io::copy", "a pipe into a file", || {
        let [all, same] = file_twice();
        copied(fed_at_last(&[SYS_splice], pipe_files(), copy_into(all)), same)
    })
    .in_one(),
    restarted("io::copy", "a pipe into a UnixStream", || {
        let (to, from) = unix();
        copied(fed_at_last(&[SYS_splice], pipe_files(), copy_into(to)), from)
    })
    .in_one(),
    restarted("io::copy", "a UnixStream into a pipe", || {
        let (from, to) = pipe_files();
        copied(fed_at_last(&[SYS_splice], unix(), copy_into(to)), from)
    })
    .in_one(),
    restarted("io::copy", "a TcpStream into a pipe", || {
        let (from, to) = pipe_files();
        copied(fed_at_last(&[SYS_splice], tcp(), copy_into(to)), from)
    })
    .in_one(),
    stays("Read::read_exact", "a TcpStream with a time-out", || {
        let (from, to) = tcp();
        from.set_read_timeout(HOUR).unwrap();
        fed(RECEIVES, (from, to), |from| {
            let mut buffer = [0; 5];
            from.read_exact(&mut buffer)?;
            assert_eq!(buffer, HELLO);
            Ok(5)
        })
    }),
    stays("BufRead::read_line", "a UnixStream with a time-out", || {
        let (from, to) = unix();
        from.set_read_timeout(HOUR).unwrap();
        fed_at_last(RECEIVES, (BufReader::new(from), to), |from| {
            let mut line = String::new();
            from.read_line(&mut line)
        })
    }),
    stays("Write::write_all", "a full UnixStream with a time-out", || {
        let full = full_unix();
        full.to.set_write_timeout(HOUR).unwrap();
        filled(SENDS, full, |to, text| to.write_all(text).map(|()| text.len()))
    }),
];

/// A wait that has little to say, and what ends it.
fn waits<A, B>(mut call: impl FnMut() -> A + Send + 'static, provide: impl FnOnce() -> B + 'static) -> Call {
    let call = move || {
        call();
        Ok(0)
    };
    Call::new(FUTEX, 0, call, move |_| {
        provide();
        keep(())
    })
}

fn parked(park: fn()) -> Call {
    let slot = Arc::new(OnceLock::<Thread>::new());
    let parked = Arc::clone(&slot);
    let call = move || {
        parked.get_or_init(thread::current);
        park();
    };
    waits(call, move || slot.get().unwrap().unpark())
}

/// Something that another thread is inside of, until it is told to leave.
fn held<T: Send + Sync + 'static>(value: T, run: fn(&T, &mut dyn FnMut())) -> (Arc<T>, impl FnOnce()) {
    let value = Arc::new(value);
    let (theirs, (go, gone), (tell, told)) = (Arc::clone(&value), channel::<()>(), channel());
    let holder = thread::spawn(move || {
        run(&theirs, &mut || {
            tell.send(()).unwrap();
            gone.recv().unwrap();
        });
    });
    told.recv().unwrap();
    (value, move || {
        go.send(()).unwrap();
        holder.join().unwrap();
    })
}

fn notified(wait: fn(&Mutex<()>, &Condvar)) -> Call {
    let here = Arc::new((Mutex::new(()), Condvar::new()));
    let there = Arc::clone(&here);
    waits(
        move || wait(&here.0, &here.1),
        move || {
            drop(there.0.lock().unwrap());
            there.1.notify_one();
        },
    )
}

fn received(receive: fn(&Receiver<usize>) -> usize) -> Call {
    let (to, from): (Sender<usize>, _) = channel();
    waits(move || assert_eq!(receive(&from), 5), move || to.send(5).unwrap())
}

/// The caller's first packet was dropped for want of room; it is sent again after a second.
fn connect_of_tcp(sleeps_in: &'static [c_long], connect: fn(std::net::SocketAddr) -> io::Result<TcpStream>) -> Call {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    narrow(&listener);
    let address = listener.local_addr().unwrap();
    let first = TcpStream::connect(address).unwrap();
    let slot = Arc::new(Mutex::new(None));
    let connected = Arc::clone(&slot);
    let call = move || {
        let stream = connect(address)?;
        *connected.lock().unwrap() = Some(stream);
        Ok(0)
    };
    Call::new(sleeps_in, 0, call, move |_| {
        assert_eq!(listener.accept().unwrap().1, first.local_addr().unwrap());
        Box::new(move || {
            let stream = slot.lock().unwrap().take().unwrap();
            assert_eq!(listener.accept().unwrap().1, stream.local_addr().unwrap());
        })
    })
}

fn connect_of_unix() -> Call {
    let name = abstract_name();
    let listener = UnixListener::bind_addr(&name).unwrap();
    narrow(&listener);
    let first = UnixStream::connect_addr(&name).unwrap();
    let slot = Arc::new(Mutex::new(None));
    let connected = Arc::clone(&slot);
    let call = move || {
        let stream = UnixStream::connect_addr(&name)?;
        *connected.lock().unwrap() = Some(stream);
        Ok(0)
    };
    Call::new(&[SYS_connect], 0, call, move |_| {
        drop((listener.accept().unwrap(), first));
        Box::new(move || {
            let mut stream = slot.lock().unwrap().take().unwrap();
            stream.write_all(HELLO).unwrap();
            let mut hello = [0; 5];
            listener.accept().unwrap().0.read_exact(&mut hello).unwrap();
            assert_eq!(hello, HELLO);
        })
    })
}

/// A child that has ended when its output comes to an end: a child of its own has its pipes.
fn of_a_child(call: fn(&mut Command) -> io::Result<Output>) -> Call {
    let (input, to) = pipe_files();
    fed_at_last(POLLS, (input, to), move |input| {
        let mut command = Command::new("sh");
        let output = call(command.args(["-c", "exec 3<&0; cat <&3 &"]).stdin(input.try_clone()?))?;
        assert!(output.status.success() && output.stderr.is_empty());
        assert_eq!(output.stdout, HELLO);
        Ok(output.stdout.len())
    })
}

fn copy_into<R: Read, W: Write>(mut to: W) -> impl FnMut(&mut R) -> io::Result<usize> {
    move |from| io::copy(from, &mut to).map(|n| n as usize)
}

/// What has been copied is there, once.
fn copied(call: Call, mut to: impl Read + 'static) -> Call {
    let provide = call.provide;
    let provide = move |tid| -> After {
        let after = provide(tid);
        Box::new(move || {
            after();
            let mut all = Vec::new();
            to.read_to_end(&mut all).unwrap();
            assert_eq!(all, HELLO);
        })
    };
    Call { provide: Box::new(provide), ..call }
}

#[test]
fn signals_from_elsewhere_do_to_them_what_they_do_without_a_scope() {
    let _t = common::begin();
    std_call::with_a_scope_they_do_what_they_do_without(ROWS);
}

#[test]
fn a_remote_does_not_end_them_and_is_told_so() {
    let _t = common::begin();
    std_call::a_remote_makes_of_them_what_the_table_says(ROWS);
}

#[test]
fn the_guide_has_them_in_its_third_column() {
    let _t = common::begin(); // it opens a file, and the others count
    std_call::the_guide_names_them(2, ROWS);
}
