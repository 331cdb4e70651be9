//! Calls that block on bytes, one [`Case`] each: pipes and sockets, empty or full. See [`suite`](crate::suite).
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block,
    clippy::unnecessary_wraps // some cases answer None where the kernel has no such thing
)]

use crate::common;
use crate::suite::{After, Case, full_pipe, keep, memory_file, pipe_files, readable, sleep, unique};
use eintr::sys;
use nix::sys::socket::{MsgFlags, SockaddrIn, SockaddrLike, UnixAddr};
use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};

/// What a buffer holds that nobody has written to.
const BLANK: [u8; 8] = *b"........";

fn flags() -> MsgFlags {
    MsgFlags::empty()
}

/// What was read: `hello`, or nothing at all.
fn read_hello<T>(answer: &sys::Result<T>, buffer: &[u8]) {
    match answer {
        Ok(_) => assert_eq!(buffer, b"hello..."),
        Err(_) => assert_eq!(buffer, BLANK),
    }
}

pub fn read() -> Option<Case> {
    let (from, mut to) = pipe_files();
    let call = move || {
        let mut buffer = BLANK;
        let answer = sys::read(&from, &mut buffer);
        read_hello(&answer, &buffer);
        answer
    };
    Some(Case::new(libc::SYS_read, 5, call, move |_| {
        to.write_all(b"hello").unwrap();
        keep(to)
    }))
}

pub fn readv() -> Option<Case> {
    let (from, mut to) = pipe_files();
    let call = move || {
        let (mut one, mut other) = ([b'.'; 3], [b'.'; 5]);
        let answer = sys::readv(&from, &mut [IoSliceMut::new(&mut one), IoSliceMut::new(&mut other)]);
        read_hello(&answer, &[one.as_slice(), &other].concat());
        answer
    };
    Some(Case::new(libc::SYS_readv, 5, call, move |_| {
        to.write_all(b"hello").unwrap();
        keep(to)
    }))
}

/// What is read out of a pipe that was full, and of what was written to it then: the filling, and `hello` once.
fn filled_then_hello(mut from: File, filling: usize) -> After {
    let mut all = vec![0; filling];
    from.read_exact(&mut all).unwrap();
    assert_eq!(all, vec![b'-'; filling], "what the ended calls have written");
    Box::new(move || {
        let mut hello = [0; 5];
        from.read_exact(&mut hello).unwrap();
        assert_eq!(&hello, b"hello");
        assert_eq!(readable(&from), 0);
    })
}

pub fn write() -> Option<Case> {
    let (from, to, filling) = full_pipe();
    let call = move || sys::write(&to, b"hello");
    Some(Case::new(libc::SYS_write, 5, call, move |_| filled_then_hello(from, filling)))
}

pub fn writev() -> Option<Case> {
    let (from, to, filling) = full_pipe();
    let call = move || sys::writev(&to, &[IoSlice::new(b"he"), IoSlice::new(b"llo")]);
    Some(Case::new(libc::SYS_writev, 5, call, move |_| filled_then_hello(from, filling)))
}

pub fn recv() -> Option<Case> {
    let (one, mut other) = UnixStream::pair().unwrap();
    let call = move || {
        let mut buffer = BLANK;
        let answer = sys::recv(&one, &mut buffer, flags());
        read_hello(&answer, &buffer);
        answer
    };
    Some(Case::new(libc::SYS_recvfrom, 5, call, move |_| {
        other.write_all(b"hello").unwrap();
        keep(other)
    }))
}

/// UDP, so that there is an address to be told.
pub fn recvfrom() -> Option<Case> {
    let [receiver, sender] = [(); 2].map(|()| std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
    let (to, from) = (receiver.local_addr().unwrap(), sender.local_addr().unwrap());
    let call = move || {
        let mut buffer = BLANK;
        let answer = sys::recvfrom::<_, SockaddrIn>(&receiver, &mut buffer, flags());
        read_hello(&answer, &buffer);
        let (n, address) = answer?;
        assert_eq!(address.expect("UDP tells").to_string(), from.to_string());
        Ok(n)
    };
    Some(Case::new(libc::SYS_recvfrom, 5, call, move |_| {
        assert_eq!(sender.send_to(b"hello", to).unwrap(), 5);
        keep(sender)
    }))
}

/// A message header over one buffer.
fn header(buffer: &mut libc::iovec) -> libc::msghdr {
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = buffer;
    header.msg_iovlen = 1;
    header
}

fn iovec(buffer: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: buffer.as_ptr().cast_mut().cast(), iov_len: buffer.len() }
}

/// A descriptor comes with the data: it is there, once, and not lost by the calls that were ended.
pub fn recvmsg() -> Option<Case> {
    let (one, other) = UnixStream::pair().unwrap();
    let call = move || {
        let mut buffer = BLANK;
        let mut control = [0u64; 8];
        let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        let mut header = header(&mut part);
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control) as _;
        let answer = unsafe { sys::recvmsg(&one, &mut header, MsgFlags::MSG_CMSG_CLOEXEC) };
        read_hello(&answer, &buffer);
        if answer.is_ok() {
            let sent = unsafe { libc::CMSG_FIRSTHDR(&header).as_ref() }.expect("a descriptor came along");
            assert_eq!((sent.cmsg_level, sent.cmsg_type), (libc::SOL_SOCKET, libc::SCM_RIGHTS));
            let fd: i32 = unsafe { libc::CMSG_DATA(sent).cast::<i32>().read_unaligned() };
            assert_eq!(unsafe { libc::close(fd) }, 0);
        }
        answer
    };
    Some(Case::new(libc::SYS_recvmsg, 5, call, move |_| {
        let (part, fds) = ([IoSlice::new(b"hello")], [other.as_raw_fd()]);
        let rights = [nix::sys::socket::ControlMessage::ScmRights(&fds)];
        let sent = nix::sys::socket::sendmsg::<UnixAddr>(other.as_raw_fd(), &part, &rights, flags(), None);
        assert_eq!(sent, Ok(5));
        keep(other)
    }))
}

/// Two messages are asked for, and the call waits for the second (recvmmsg(2): without MSG_WAITFORONE). What has one is returned when an interrupt
/// comes; the next call, by `sys` again, asks for what is missing.
pub fn recvmmsg() -> Option<Case> {
    let (one, other) = UnixDatagram::pair().unwrap();
    let mut taken = Vec::new();
    let call = move || {
        while taken.len() < 2 {
            let mut buffers = [BLANK; 2];
            let mut parts = buffers
                .each_mut()
                .map(|buffer| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() });
            let mut messages = parts.each_mut().map(|part| libc::mmsghdr { msg_hdr: header(part), msg_len: 0 });
            let answer = unsafe { sys::recvmmsg(&one, &mut messages[taken.len()..], flags()) };
            let lengths = messages.map(|message| message.msg_len as usize);
            let got = taken.len()..taken.len() + answer.unwrap_or(0);
            taken.extend(got.clone().map(|n| buffers[n][..lengths[n]].to_vec()));
            assert!((0..2).all(|n| got.contains(&n) || buffers[n] == BLANK), "only what is told was written");
            answer?;
        }
        assert_eq!(taken, [b"hello".as_slice(), b"world!"]);
        Ok(2)
    };
    let mut case = Case::new(libc::SYS_recvmmsg, 2, call, move |_| {
        assert_eq!((other.send(b"hello").unwrap(), other.send(b"world!").unwrap()), (5, 6));
        keep(other)
    });
    case.sleeps_in.extend(sleep(libc::SYS_recvmsg)); // an emulator's way
    Some(case)
}

/// A stream socket that takes no more, its other end, and how much is in between.
fn full_stream() -> (UnixStream, UnixStream, usize) {
    let (mut one, other) = UnixStream::pair().unwrap();
    one.set_nonblocking(true).unwrap();
    let mut filling = 0;
    for chunk in [4096, 1] {
        while let Ok(n) = one.write(&vec![b'-'; chunk]) {
            filling += n;
        }
    }
    one.set_nonblocking(false).unwrap();
    (one, other, filling)
}

fn as_file(socket: impl Into<OwnedFd>) -> File {
    File::from(socket.into())
}

pub fn send() -> Option<Case> {
    let (one, other, filling) = full_stream();
    let call = move || sys::send(&one, b"hello", flags());
    Some(Case::new(libc::SYS_sendto, 5, call, move |_| filled_then_hello(as_file(other), filling)))
}

pub fn sendmsg() -> Option<Case> {
    let (one, other, filling) = full_stream();
    let call = move || unsafe { sys::sendmsg(&one, &header(&mut iovec(b"hello")), flags()) };
    Some(Case::new(libc::SYS_sendmsg, 5, call, move |_| filled_then_hello(as_file(other), filling)))
}

/// As with recvmmsg: what has sent one says so.
pub fn sendmmsg() -> Option<Case> {
    if crate::common::skipped_if_emulated("sendmmsg", "the emulator makes one call for each message") {
        return None;
    }
    let (one, other, filling) = full_stream();
    let mut sent = 0;
    let call = move || {
        while sent < 2 {
            let (mut first, mut second) = (iovec(b"he"), iovec(b"llo"));
            let mut messages =
                [&mut first, &mut second].map(|part| libc::mmsghdr { msg_hdr: header(part), msg_len: 0 });
            sent += unsafe { sys::sendmmsg(&one, &mut messages[sent..], flags()) }?;
        }
        Ok(sent)
    };
    let mut case = Case::new(libc::SYS_sendmmsg, 2, call, move |_| filled_then_hello(as_file(other), filling));
    case.sleeps_in.extend(sleep(libc::SYS_sendmsg)); // an emulator's way
    Some(case)
}

/// A socket that has as many datagrams as it takes: the kernel counts them (`net.unix.max_dgram_qlen`).
pub fn sendto() -> Option<Case> {
    let name = format!("eintr-suite-{}-{}", common::getpid(), unique());
    let address = UnixAddr::new_abstract(name.as_bytes()).unwrap();
    let (receiver, sender) = (unix_datagram(), unix_datagram());
    nix::sys::socket::bind(receiver.as_raw_fd(), &address).unwrap();
    let mut filling = 0;
    let at_once = MsgFlags::MSG_DONTWAIT;
    while nix::sys::socket::sendto(sender.as_raw_fd(), b"-", &address as &dyn SockaddrLike, at_once).is_ok() {
        filling += 1;
    }
    let call = move || sys::sendto(&sender, b"hello", &address, flags());
    Some(Case::new(libc::SYS_sendto, 5, call, move |_| {
        let next = move || {
            let mut buffer = [0; 8];
            let n = nix::sys::socket::recv(receiver.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT);
            n.map(|n| buffer[..n].to_vec())
        };
        let mut received: Vec<_> = (0..filling).map(|_| next().unwrap()).collect();
        Box::new(move || {
            received.extend(std::iter::from_fn(|| next().ok()));
            let mut sent = vec![b"-".to_vec(); filling];
            sent.push(b"hello".to_vec());
            assert_eq!(received, sent);
        })
    }))
}

fn unix_datagram() -> OwnedFd {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).unwrap()
}

/// qemu makes these calls without looking for signals before, and goes back to them after: it is deaf in them.
fn is_deaf(call: &str) -> bool {
    common::skipped_if_emulated(call, "qemu-user restarts it whatever the handler says")
}

/// From an empty pipe into another.
pub fn splice() -> Option<Case> {
    if is_deaf("splice") {
        return None;
    }
    let (from, mut to) = pipe_files();
    let (mut end, into) = pipe_files();
    let call = move || sys::splice(&from, None, &into, None, 5, nix::fcntl::SpliceFFlags::empty());
    Some(Case::new(libc::SYS_splice, 5, call, move |_| {
        to.write_all(b"hello").unwrap();
        Box::new(move || {
            let mut hello = [0; 5];
            end.read_exact(&mut hello).unwrap();
            assert_eq!((&hello, readable(&end)), (b"hello", 0));
            drop(to);
        })
    }))
}

/// The same, but what was in the first pipe stays there.
pub fn tee() -> Option<Case> {
    if is_deaf("tee") {
        return None;
    }
    let (from, mut to) = pipe_files();
    let (mut end, into) = pipe_files();
    let looks = from.try_clone().unwrap();
    let call = move || sys::tee(&from, &into, 5, nix::fcntl::SpliceFFlags::empty());
    Some(Case::new(libc::SYS_tee, 5, call, move |_| {
        to.write_all(b"hello").unwrap();
        Box::new(move || {
            let mut hello = [0; 5];
            end.read_exact(&mut hello).unwrap();
            assert_eq!((&hello, readable(&end), readable(&looks)), (b"hello", 0, 5));
            drop(to);
        })
    }))
}

/// From a file into a full pipe, from where a position stands: it has moved by what was sent, and by nothing else.
pub fn sendfile() -> Option<Case> {
    if is_deaf("sendfile") {
        return None;
    }
    let (from, to, filling) = full_pipe();
    let mut file = memory_file();
    file.write_all(b"...hello...").unwrap();
    let mut at = 3;
    let call = move || {
        let answer = sys::sendfile(&to, &file, Some(&mut at), 5);
        assert_eq!(at, if answer.is_ok() { 8 } else { 3 });
        answer
    };
    Some(Case::new(libc::SYS_sendfile, 5, call, move |_| filled_then_hello(from, filling)))
}

/// `read` by its number.
pub fn syscall() -> Option<Case> {
    let (from, mut to) = pipe_files();
    let call = move || {
        let mut buffer = BLANK;
        let args = [from.as_fd().as_raw_fd() as usize, buffer.as_mut_ptr() as usize, buffer.len(), 0, 0, 0];
        let answer = unsafe { sys::syscall(libc::SYS_read, args) };
        read_hello(&answer, &buffer);
        answer
    };
    Some(Case::new(libc::SYS_read, 5, call, move |_| {
        to.write_all(b"hello").unwrap();
        keep(to)
    }))
}
