//! Builds `hostel-guest` and `hostel-probe` as static executables and hands them to the library as bytes.
//!
//! Cargo cannot yet embed one package's executable in another (artifact dependencies are unstable), so this
//! runs a second cargo with its own target directory, which the next build finds warm.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Variables by which the outer cargo, or clippy, would reach into the inner one.
const NOT_INHERITED: [&str; 6] = [
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "CARGO_PROFILE_DEV_DEBUG",
];

fn main() {
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("cargo did not set {name}"));
    let workspace = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("../..");
    let out = PathBuf::from(variable("OUT_DIR"));
    for source in [
        "guest/src",
        "guest/Cargo.toml",
        "guest-protocol/src",
        "guest-protocol/Cargo.toml",
        "system-calls/src",
        "system-calls/Cargo.toml",
        "../Cargo.toml",
    ] {
        println!("cargo::rerun-if-changed={}", workspace.join("crates").join(source).display());
    }
    let target = variable("TARGET");
    let target_directory = target_directory(&out).join("guest");
    let mut cargo = Command::new(variable("CARGO"));
    cargo
        .current_dir(&workspace)
        .args(["build", "--package", "hostel-guest", "--bins", "--profile", "guest", "--target", &target])
        .arg("--target-dir")
        .arg(&target_directory)
        .env("CARGO_ENCODED_RUSTFLAGS", ["-C", "target-feature=+crt-static"].join("\u{1f}"));
    for name in NOT_INHERITED.iter().filter(|name| **name != "CARGO_ENCODED_RUSTFLAGS") {
        cargo.env_remove(name);
    }
    let status = cargo.status().expect("cargo can be started");
    assert!(status.success(), "building the guest failed: {status}");
    for name in ["hostel-guest", "hostel-probe"] {
        let built = target_directory.join(&target).join("guest").join(name);
        std::fs::copy(&built, out.join(name))
            .unwrap_or_else(|error| panic!("copy {}: {error}", built.display()));
    }
}

/// The outer build's target directory: `OUT_DIR` is `TARGET/PROFILE/build/PACKAGE/out`, with the target triple
/// in between in cross builds; a folder named `guest` beside `PROFILE` is nobody else's.
fn target_directory(out: &Path) -> PathBuf {
    out.ancestors().nth(4).map_or_else(|| out.to_owned(), Path::to_owned)
}
