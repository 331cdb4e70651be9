//! Gives getaddrinfo(3) a deadline, and tells what becomes of it: `resolve_with_deadline [NAME [MILLISECONDS]]`.
//!
//! glibc's resolver polls a socket with a time-out of its own, and goes on with what is left of that after each EINTR. So the deadline does not shorten
//! the wait: the call comes back when the resolver gives up, and then it is known that it came too late. Who must not wait that long asks in a thread,
//! and leaves it behind.
#![allow(unsafe_code)] // C functions

use eintr::{Scope, Signal};
use std::{env, error::Error, ffi::CStr, ffi::CString, ptr, time::Duration, time::Instant};

fn main() -> Result<(), Box<dyn Error>> {
    let name = CString::new(env::args().nth(1).unwrap_or("localhost".into()))?;
    let limit = Duration::from_millis(env::args().nth(2).map_or(Ok(500), |ms| ms.parse())?);
    let scope = Scope::enter(Signal::unused().ok_or("every real-time signal is taken")?)?;

    let began = Instant::now();
    let deadline = scope.timeout(limit)?;
    let mut list = ptr::null_mut();
    // SAFETY: a C string, no service, no hints, and a place for the list.
    let code = unsafe { libc::getaddrinfo(name.as_ptr(), ptr::null(), ptr::null(), &mut list) };
    let (took, expired) = (began.elapsed(), deadline.expired());
    drop(deadline);

    let what = if code == 0 {
        // SAFETY: the list is getaddrinfo's, and is not used again.
        unsafe { libc::freeaddrinfo(list) };
        "an address".into()
    } else {
        // SAFETY: an integer; the answer is a C string that is never freed (gai_strerror(3)).
        let text = unsafe { libc::gai_strerror(code) };
        // SAFETY: as said.
        unsafe { CStr::from_ptr(text) }.to_string_lossy()
    };
    println!("{what}, {}", if expired { format!("too late: after {took:?} of {limit:?}") } else { "in time".into() });
    Ok(())
}
