//! The pieces of code that are compared, by name: those of [`calls`] and [`scopes`].

use crate::measure::pairs::{Judge, ratio};
use crate::measure::report::Run;
use crate::measure::{calls, scopes};

/// A figure that is a ratio of two pieces of code on one thread.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    pub name: &'static str,
    pub floor_is: &'static str,
    /// Makes what the two need, and hands them over.
    pub set_up: fn(Judge<'_>),
}

/// A piece of code, run again and again.
#[macro_export]
macro_rules! each {
    ($run:expr) => {
        &mut |count: u32| {
            for _ in 0..count {
                $run;
            }
        }
    };
}

/// Measures and prints those that are asked for, each on a thread of its own: one that has had no scope, of no signal but what the subject sends.
pub fn figures(run: &Run, subjects: &[Subject]) {
    for subject in subjects.iter().filter(|subject| run.wants(subject.name)) {
        std::thread::scope(|s| {
            s.spawn(|| {
                (subject.set_up)(&mut |floor, ours| ratio(run, subject.name, subject.floor_is, floor, ours));
            });
        });
    }
}

fn all() -> impl Iterator<Item = &'static Subject> {
    calls::SUBJECTS.iter().chain(scopes::SUBJECTS)
}

/// Prints the names.
pub fn list_paths() {
    all().for_each(|subject| println!("{}", subject.name));
}

/// Runs one, or its floor (`NAME/floor`), so many times.
pub fn run_path(name: &str, count: u32) {
    let (name, wants_floor) = name.strip_suffix("/floor").map_or((name, false), |name| (name, true));
    let subject = all().find(|subject| subject.name == name).expect("--paths says which there are");
    (subject.set_up)(&mut |floor, ours| if wants_floor { floor(count) } else { ours(count) });
}
