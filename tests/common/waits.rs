//! A test for each call that waits, in the three ways of `waiting`: what it waits on, how it is called, what makes it ready, and what it must
//! have done then; and, if not every machine has that, what it needs.

macro_rules! waits {
    ($test:ident, $number:expr, $state:ty => $value:ty,
     $(needs: $needs:expr,)?
     new: $new:expr, call: $call:expr, ready: $ready:expr, check: $check:expr $(,)?) => {
        #[test]
        fn $test() {
            struct Case($state);
            impl crate::waiting::Waiting for Case {
                type Value = $value;
                const NUMBER: libc::c_long = $number;
                fn new() -> Case {
                    let new: fn() -> $state = $new;
                    Case(new())
                }
                fn call(&self) -> eintr::sys::Result<$value> {
                    let call: fn(&$state) -> eintr::sys::Result<$value> = $call;
                    call(&self.0)
                }
                fn ready(&self, _: libc::pid_t) {
                    let ready: fn(&$state) = $ready;
                    ready(&self.0);
                }
                fn check(&self, value: $value) {
                    let check: fn(&$state, $value) = $check;
                    check(&self.0, value);
                }
            }
            let _t = crate::common::begin();
            $(
                let needs: fn() -> Result<(), String> = $needs;
                if let Err(why) = needs() {
                    println!("SKIPPED: {}: {why}", stringify!($test));
                    return;
                }
            )?
            crate::waiting::in_three_ways::<Case>();
        }
    };
}
