//! What the engine is told: a signal arrived, this is a forked child, this thread ends. And that this code must stay mapped.
//!
//! # Invariants
//! 1. [`register`] has returned before the first handler is installed.
//! 2. A thread that called [`tell_thread_exit`] is told of its end once, after the destructors of its thread-locals.
//!
//! # Safety
//! The functions given to libc live as long as the process: [`pin`] keeps a dlopen'd object with them mapped (pam-ssh-agent's issue 110 is what
//! happens otherwise).

use crate::kernel::frame::Frame;
use crate::kernel::mask;
use nix::errno::Errno;
use once_cell::race::OnceNonZeroUsize;
use std::ffi::{c_int, c_void};
use std::num::NonZeroUsize;

/// The engine's side.
pub(crate) trait Hooks: 'static {
    /// A signal of a number that was taken over. Async-signal-safe.
    fn on_signal(frame: &Frame);
    /// This is a forked child, with one thread. Async-signal-safe.
    fn in_child();
    /// The calling thread ends.
    fn at_thread_exit();
}

/// The key whose destructor runs at the end of a thread, plus one (a key may be 0).
static KEY: OnceNonZeroUsize = OnceNonZeroUsize::new();

/// Whether [`register`] was called before.
pub(crate) fn is_registered() -> bool {
    KEY.get().is_some()
}

/// Registers the hooks and pins the code; at the first call only.
///
/// # Errors
/// What pthread_key_create(3) or pthread_atfork(3) answers: EAGAIN (no key left), ENOMEM.
pub(crate) fn register<H: Hooks>() -> Result<(), Errno> {
    if is_registered() {
        return Ok(());
    }
    // Two threads may both come here: then both register for forks, which is told twice and does no harm, and one key is given back.
    let _ = mask::measure();
    pin::<H>();
    // SAFETY: a function of the right type that stays mapped.
    check(unsafe { libc::pthread_atfork(None, None, Some(in_child::<H>)) })?;
    let mut key: libc::pthread_key_t = 0;
    // SAFETY: `key` is written; the destructor is a function of the right type that stays mapped.
    check(unsafe { libc::pthread_key_create(&mut key, Some(at_thread_exit::<H>)) })?;
    let Some(plus_one) = NonZeroUsize::new(key as usize + 1) else { return Err(Errno::EAGAIN) };
    if KEY.set(plus_one).is_err() {
        // SAFETY: our own key, which no thread has used.
        check(unsafe { libc::pthread_key_delete(key) })?;
    }
    Ok(())
}

/// Asks to be told when the calling thread ends.
pub(crate) fn tell_thread_exit() {
    if let Some(key) = KEY.get() {
        // SAFETY: a key that was made and is never deleted; any value but null makes the destructor run.
        unsafe { libc::pthread_setspecific((key.get() - 1) as libc::pthread_key_t, std::ptr::dangling::<u8>().cast()) };
    }
}

extern "C" fn at_thread_exit<H: Hooks>(_: *mut c_void) {
    H::at_thread_exit();
}

extern "C" fn in_child<H: Hooks>() {
    H::in_child();
}

/// Keeps the object that this code lies in mapped for the life of the process (dlopen(3), RTLD_NODELETE). For an executable it does nothing.
fn pin<H: Hooks>() {
    // SAFETY: Dl_info is plain data, valid when zeroed.
    let mut object: libc::Dl_info = unsafe { std::mem::zeroed() };
    let here = in_child::<H> as *const c_void;
    // SAFETY: `object` is written; the address is one of this code.
    if unsafe { libc::dladdr(here, &mut object) } != 0 && !object.dli_fname.is_null() {
        // SAFETY: the name is the loader's own string; RTLD_NOLOAD only finds what is loaded already.
        unsafe { libc::dlopen(object.dli_fname, libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE) };
    }
}

fn check(error: c_int) -> Result<(), Errno> {
    if error == 0 { Ok(()) } else { Err(Errno::from_raw(error)) }
}
