//! The crate in a shared object that is loaded when the program runs already: a thread-local of such a one has no fixed place.
#![allow(unsafe_code)] // dlopen

use crate::plugin;
use std::ffi::{CStr, CString, c_int, c_void};
use std::fs::File;
use std::os::fd::AsRawFd;

/// The functions of the shared object.
#[derive(Clone, Copy, Debug)]
pub struct Dylib {
    enter: extern "C" fn(c_int) -> *mut c_void,
    drop: unsafe extern "C" fn(*mut c_void) -> c_int,
    reads: unsafe extern "C" fn(c_int, u32) -> c_int,
    plain_reads: extern "C" fn(c_int, u32) -> c_int,
}

/// A scope that the shared object has entered.
#[derive(Debug)]
pub struct Session(*mut c_void);

impl Dylib {
    /// Builds it, if it is not built, and loads it.
    pub fn load() -> Dylib {
        plugin::build();
        let path = CString::new(plugin::object().to_str().expect("UTF-8")).expect("no zero in it");
        // SAFETY: a path that ends with a zero; what the object does when it is loaded is what std does.
        let object = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        assert!(!object.is_null(), "dlopen of {path:?}");
        Dylib {
            enter: function(object, c"plugin_enter"),
            drop: function(object, c"plugin_drop"),
            reads: function(object, c"plugin_reads"),
            plain_reads: function(object, c"plugin_plain_reads"),
        }
    }

    /// Enters a scope on the calling thread.
    pub fn enter(&self, sig: i32) -> Session {
        let session = (self.enter)(sig);
        assert!(!session.is_null(), "entered");
        Session(session)
    }

    pub fn leave(&self, session: Session) {
        // SAFETY: it came from `enter`, on this thread, since it cannot be sent to another.
        assert_eq!(unsafe { (self.drop)(session.0) }, 0);
    }

    /// `sys::read` of one byte, so many times.
    pub fn reads(&self, from: &File, count: u32) {
        // SAFETY: the file is open for the length of the call.
        assert_eq!(unsafe { (self.reads)(from.as_raw_fd(), count) }, 0);
    }

    /// The same by the C library.
    pub fn plain_reads(&self, from: &File, count: u32) {
        assert_eq!((self.plain_reads)(from.as_raw_fd(), count), 0);
    }
}

/// A function of the shared object, of the type that `tests/plugin` gives it.
fn function<F: Copy>(object: *mut c_void, name: &CStr) -> F {
    // SAFETY: an object that is never closed, and a name that ends with a zero.
    let found = unsafe { libc::dlsym(object, name.as_ptr()) };
    assert!(!found.is_null() && size_of::<F>() == size_of_val(&found), "{name:?} is missing");
    // SAFETY: of the same size; the callers name each function with its type.
    unsafe { std::mem::transmute_copy(&found) }
}
