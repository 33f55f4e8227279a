//! Builds programs that need nothing of the machine that they run on: the C library is linked in as well.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};

use crate::step;

/// What the programs run on.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Everything that is shipped. Cargo is always told all of them, so that one program is the same bytes whichever others
/// are made with it: what the crates that they share are built with depends on who asks for them.
pub const PROGRAMS: [&str; 5] = ["opsctl", "identity", "orders", "payments", "notifications"];

/// Programs that were built, and how.
pub struct Built {
    /// The folder that they lie in.
    pub folder: PathBuf,
    /// Cargo's profile, or nothing when they were built elsewhere.
    pub profile: Option<String>,
}

/// Builds `names` with cargo's `profile`.
///
/// # Errors
/// When the compiler lacks the target or the C library's static form, or a program does not build.
pub fn programs(names: &[&str], profile: &str) -> Result<Built> {
    require_target()?;
    // Another target directory than that of tests: its flags differ, and neither waits for the other's lock.
    let target = step::target().join("static");
    let mut build = step::cargo(["build", "--locked", "--target", TARGET, "--profile", profile]);
    build.args(PROGRAMS.iter().flat_map(|package| ["--package", package]));
    build.args(names.iter().flat_map(|name| ["--bin", name]));
    build.env("CARGO_TARGET_DIR", &target);
    // An outer `cargo run` may have set either; the encoded form would win over ours.
    build
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("RUSTFLAGS", flags(profile)?);
    step::run(&mut build)?;
    let folder = if profile == "dev" { "debug" } else { profile };
    Ok(Built {
        folder: target.join(TARGET).join(folder),
        profile: Some(profile.to_owned()),
    })
}

/// With `--target` these are for the programs alone: macros and build scripts stay as this machine wants them.
fn flags(profile: &str) -> Result<String> {
    let mut flags = "-C target-feature=+crt-static".to_owned();
    if profile == "dist" {
        // What is shipped says the same wherever it was built, and nothing of where that was.
        let registry = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let registry = registry.or_else(|| Some(std::env::home_dir()?.join(".cargo")));
        let registry = registry.context("neither CARGO_HOME nor HOME is set")?;
        for (place, name) in [(registry.as_path(), "/cargo"), (peers::workspace_root(), "/opsctl")] {
            flags.extend([" --remap-path-prefix=", &place.to_string_lossy(), "=", name]);
        }
    }
    Ok(flags)
}

fn require_target() -> Result<()> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let library = step::output(Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]))?;
    ensure!(
        PathBuf::from(library.trim()).is_dir(),
        "the compiler cannot build for {TARGET}: `rustup target add {TARGET}` adds it"
    );
    // The name alone comes back when there is no such file.
    let found = step::output(Command::new("cc").arg("-print-file-name=libc.a"))?;
    ensure!(
        PathBuf::from(found.trim()).is_absolute(),
        "the C library cannot be linked in, its libc.a is missing: Debian has it in libc6-dev, Fedora in glibc-static"
    );
    Ok(())
}
