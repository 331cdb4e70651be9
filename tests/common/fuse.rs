//! A file system in this process, with one file whose calls wait until they are told to go on: what local file systems do not let happen to reads
//! at an offset, and to syncing. It speaks the kernel's protocol itself (fuse(4), `include/uapi/linux/fuse.h`).
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block
)]

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

pub const OPEN: u32 = 14;
pub const READ: u32 = 15;
pub const WRITE: u32 = 16;
pub const FSYNC: u32 = 20;
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const DIRECT_IO: u64 = 1;

#[derive(Debug, Default)]
struct State {
    is_ready: bool,
    held: Option<(u64, Vec<u8>)>,
    /// How many of the slow calls were answered, and what was written by them.
    served: u32,
    interrupted: u32,
    written: Vec<u8>,
}

#[derive(Debug)]
struct Server {
    device: File,
    slow: u32,
    is_direct: bool,
    state: Mutex<State>,
}

/// The mounted file system; it ends with the process, or when this drops.
#[derive(Debug)]
pub struct Slow {
    server: Arc<Server>,
    dir: PathBuf,
}

/// Lets the calling thread, and those that it starts, mount what nobody else sees.
pub fn own_mounts() -> Result<(), String> {
    let fail = |what| Err(format!("{what}: {}", std::io::Error::last_os_error()));
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return fail("unshare");
    }
    let (none, root) = (std::ptr::null::<libc::c_char>(), c"/".as_ptr());
    if unsafe { libc::mount(none, root, none, libc::MS_REC | libc::MS_PRIVATE, std::ptr::null()) } != 0 {
        return fail("private mounts");
    }
    Slow::mount(0, true).map(drop)
}

impl Slow {
    /// The calls that are `slow` wait; the file's pages are not kept if it `is_direct`.
    pub fn mount(slow: u32, is_direct: bool) -> Result<Slow, String> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::SeqCst);
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("fuse-{}-{count}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let device = File::options().read(true).write(true).open("/dev/fuse");
        let device = device.map_err(|e| format!("/dev/fuse: {e}"))?;
        let path = CString::new(dir.to_str().unwrap()).unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let options = CString::new(options).unwrap();
        let (source, kind) = (c"eintr".as_ptr(), c"fuse".as_ptr());
        if unsafe { libc::mount(source, path.as_ptr(), kind, 0, options.as_ptr().cast()) } != 0 {
            return Err(format!("mount: {}", std::io::Error::last_os_error()));
        }
        let server = Arc::new(Server { device, slow, is_direct, state: Mutex::default() });
        let of_thread = server.clone();
        super::common::unsignalled(move || of_thread.serve());
        Ok(Slow { server, dir })
    }

    pub fn file(&self) -> PathBuf {
        self.dir.join("file")
    }

    pub fn open(&self) -> File {
        File::options().read(true).write(true).open(self.file()).unwrap()
    }

    /// The slow call that waits is answered, and those to come.
    pub fn ready(&self) {
        let mut state = self.server.state.lock().unwrap();
        state.is_ready = true;
        if let Some((unique, body)) = state.held.take() {
            self.server.do_slow(&mut state, unique, &body);
        }
    }

    /// One slow call was done, in all.
    pub fn assert_served_once(&self) {
        assert_eq!(self.server.state.lock().unwrap().served, 1);
    }

    pub fn written(&self) -> Vec<u8> {
        self.server.state.lock().unwrap().written.clone()
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        let path = CString::new(self.dir.to_str().unwrap()).unwrap();
        unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
        let _ = std::fs::remove_dir(&self.dir);
    }
}

impl Server {
    /// Until the file system is unmounted.
    fn serve(&self) {
        let mut buf = vec![0; 1 << 17];
        while let Ok(n) = (&self.device).read(&mut buf) {
            let word = |at: usize| u64::from_ne_bytes(buf[at..at + 8].try_into().unwrap());
            let (opcode, unique, node, body) = ((word(0) >> 32) as u32, word(8), word(16), &buf[40..n]);
            let mut state = self.state.lock().unwrap();
            match opcode {
                INTERRUPT => self.interrupt(&mut state, word(40)),
                _ if opcode == self.slow && state.is_ready => self.do_slow(&mut state, unique, body),
                _ if opcode == self.slow => state.held = Some((unique, body.to_vec())),
                _ => self.do_at_once(opcode, unique, node),
            }
        }
    }

    /// As a server of a file system is to do it: what waits fails, and has done nothing.
    fn interrupt(&self, state: &mut State, unique: u64) {
        if state.held.take_if(|held| held.0 == unique).is_some() {
            state.interrupted += 1;
            self.answer(unique, -libc::EINTR, &[]);
        }
    }

    fn do_slow(&self, state: &mut State, unique: u64, body: &[u8]) {
        state.served += 1;
        match self.slow {
            READ => self.answer(unique, 0, b"hello"),
            WRITE => {
                let data = &body[40..]; // behind a struct fuse_write_in
                state.written.extend_from_slice(data);
                self.answer(unique, 0, &(data.len() as u64).to_ne_bytes());
            }
            OPEN => self.answer(unique, 0, &words(&[1, DIRECT_IO])),
            _ => self.answer(unique, 0, &[]),
        }
    }

    fn do_at_once(&self, opcode: u32, unique: u64, node: u64) {
        match opcode {
            INIT => self.answer(unique, 0, &words(&[7 | 31 << 32, 0, 1 << (32 + 16), 1, 0, 0, 0, 0])),
            LOOKUP => self.answer(unique, 0, &[words(&[2, 0, 1000, 1000, 0]), attributes(2)].concat()),
            GETATTR => self.answer(unique, 0, &[words(&[1000, 0]), attributes(node)].concat()),
            OPEN => self.answer(unique, 0, &words(&[1, if self.is_direct { DIRECT_IO } else { 0 }])),
            RELEASE | FLUSH => self.answer(unique, 0, &[]),
            FORGET => {}
            _ => self.answer(unique, -libc::ENOSYS, &[]),
        }
    }

    fn answer(&self, unique: u64, error: i32, body: &[u8]) {
        let length = 16 + body.len() as u64;
        let head = words(&[length | (error as u32 as u64) << 32, unique]);
        let _ = (&self.device).write(&[head, body.to_vec()].concat()); // ENOENT: it was given up
    }
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// A `struct fuse_attr`: node 1 is the directory, 2 the file, of one page.
fn attributes(node: u64) -> Vec<u8> {
    let mode: u64 = if node == 1 { 0o040755 } else { 0o100644 };
    words(&[node, 4096, 8, 0, 0, 0, 0, mode << 32, 1, 0, 4096 << 32])
}
