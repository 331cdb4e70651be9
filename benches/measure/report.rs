//! What a run is asked for, and how a figure is printed.

use std::fmt::Display;
use std::fs;

/// The command line.
#[derive(Debug, Default)]
pub struct Run {
    pub quick: bool,
    /// Parts of names; none: everything.
    names: Vec<String>,
    /// `--path NAME COUNT`.
    pub path: Option<(String, u32)>,
    /// `--paths`.
    pub paths: bool,
    /// `--scale THREADS`: this process is one that `scale` has started.
    pub scale: Option<usize>,
}

impl Run {
    pub fn from_args() -> Run {
        let mut run = Run::default();
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut number = || args.next().and_then(|n| n.parse().ok()).expect("a number behind it");
            match arg.as_str() {
                "--bench" => {} // cargo says so
                "--quick" => run.quick = true,
                "--paths" => run.paths = true,
                "--scale" => run.scale = Some(number()),
                "--path" => {
                    let name = args.next().expect("--path NAME COUNT");
                    run.path = Some((name, args.next().and_then(|n| n.parse().ok()).expect("--path NAME COUNT")));
                }
                _ if arg.starts_with('-') => panic!("{arg}: there is --quick, --path NAME COUNT, and names of figures"),
                _ => run.names.push(arg),
            }
        }
        run
    }

    /// Whether this figure is asked for.
    pub fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|part| name.contains(part.as_str()))
    }

    pub fn wants_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.wants(name))
    }

    /// `quick` or `full`.
    pub fn choose<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }

    /// Where the figures come from.
    pub fn describe(&self) {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        println!("{cores} cores, Linux {}, {}, load {}", kernel.trim(), std::env::consts::ARCH, load());
        if load().split(' ').next().and_then(|load| load.parse().ok()).is_some_and(|load: f64| load > 1.5) {
            println!("the machine is busy: ratios bear that, times and tails do not");
        }
    }
}

/// The load averages.
pub fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// One line for the figure, one for what is to be known about it.
pub fn figure(name: &str, value: f64, about: impl Display) {
    println!("figure: {name} {value:.3}");
    println!("        {about}");
}

/// A figure that cannot be had here.
pub fn skipped(name: &str, why: impl Display) {
    println!("SKIPPED: {name}: {why}");
}

/// The value below which this part of the samples lies; they are sorted.
pub fn quantile(sorted: &[f64], part: f64) -> f64 {
    let at = (sorted.len().saturating_sub(1) as f64 * part).round() as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

pub fn sorted(mut samples: Vec<f64>) -> Vec<f64> {
    samples.sort_by(f64::total_cmp);
    samples
}
