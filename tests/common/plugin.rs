//! The crate as a shared object (`tests/plugin`): where it lies and how it is built.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::path::PathBuf;
use std::process::Command;

/// Where the shared object is built: a target folder of its own, since the one in use is locked.
fn places() -> (PathBuf, PathBuf, String) {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("plugin");
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    let object = target.join(&triple).join(profile).join("libeintr_plugin.so");
    (object, target, triple)
}

pub fn object() -> PathBuf {
    places().0
}

/// Builds it with the cargo that built this program.
pub fn build() {
    let (_, target, triple) = places();
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/plugin/Cargo.toml");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.arg("build").arg("--manifest-path").arg(&manifest).arg("--target-dir").arg(&target);
    cargo.args(["--target", &triple, "--offline"]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let out = cargo.output().expect("cargo starts");
    assert!(out.status.success(), "the plugin does not build:\n{}", String::from_utf8_lossy(&out.stderr));
}
