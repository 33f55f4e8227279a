//! `cargo xtask fuzz`: the fuzz targets of `backups/fuzz`, guided by coverage. Libfuzzer's runtime comes with a crate and
//! the coverage from options of the pinned compiler, so that neither a nightly toolchain nor a program is needed besides.
//! What every run of the tests does with the same properties is `backups/src/fuzzing/slice.rs`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::step;

/// Which targets, and for how long.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Only the targets whose name contains this
    #[arg(default_value = "")]
    target: String,
    /// Seconds for each target
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Names the targets and runs none
    #[arg(long)]
    list: bool,
}

const FOLDER: &str = "backups/fuzz";

/// What `cargo fuzz` passes with `--sanitizer none`: counters and comparisons that guide the fuzzer.
const COVERAGE: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg=fuzzing",
];

/// Runs each target for some time. What was found interesting is kept beside the build and gone on from.
///
/// # Errors
/// When something does not hold: the message names the input, which fails again alone.
pub fn run(arguments: &Arguments) -> Result<()> {
    let targets: Vec<String> = targets()?
        .into_iter()
        .filter(|target| target.contains(&arguments.target))
        .collect();
    ensure!(!targets.is_empty(), "no target is called so: `cargo xtask fuzz --list`");
    if arguments.list {
        println!("{}", targets.join("\n"));
        return Ok(());
    }
    let (programs, mut failed) = (build(&targets)?, Vec::new());
    for target in &targets {
        println!("== {target}");
        if let Err(error) = fuzz(&programs, target, arguments.seconds) {
            println!("{error:#}");
            failed.push(target.as_str());
        }
    }
    ensure!(failed.is_empty(), "does not hold: {}", failed.join(", "));
    Ok(())
}

fn folder() -> PathBuf {
    peers::workspace_root().join(FOLDER)
}

fn targets() -> Result<Vec<String>> {
    let sources = fs::read_dir(folder().join("fuzz_targets")).context("there are no fuzz targets")?;
    let mut targets = Vec::new();
    for source in sources {
        let source = source?.path();
        targets.extend(source.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    targets.sort();
    Ok(targets)
}

/// Builds the targets with the workspace's own versions of everything, and says where they are.
fn build(targets: &[String]) -> Result<PathBuf> {
    // A lock file of its own would drift; this copy is not committed, and cargo adds to it what only fuzzing needs.
    let lock = peers::workspace_root().join("Cargo.lock");
    fs::copy(&lock, folder().join("Cargo.lock")).context("could not copy Cargo.lock")?;
    let target = step::target().join("fuzz");
    // With a platform that is named, the options do not reach what runs while building.
    let platform = platform()?;
    let mut build = step::cargo(["build", "--release", "--target", &platform, "--manifest-path"]);
    build.arg(folder().join("Cargo.toml"));
    build.args(targets.iter().flat_map(|target| ["--bin", target]));
    build
        .env("CARGO_TARGET_DIR", &target)
        .env("CARGO_ENCODED_RUSTFLAGS", COVERAGE.join("\u{1f}"));
    step::run(&mut build)?;
    Ok(target.join(platform).join("release"))
}

fn platform() -> Result<String> {
    let told = step::output(Command::new("rustc").arg("-vV").current_dir(peers::workspace_root()))?;
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not say what it builds for")?.to_owned())
}

fn fuzz(programs: &Path, target: &str, seconds: u64) -> Result<()> {
    let place = step::target().join("fuzz").join("corpus").join(target);
    let [corpus, seeds, found] = ["corpus", "seeds", "found"].map(|name| place.join(name));
    for folder in [&corpus, &seeds, &found] {
        fs::create_dir_all(folder).with_context(|| format!("could not make {}", folder.display()))?;
    }
    let mut run = Command::new(programs.join(target));
    run.arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/", found.display()))
        .args([
            "-timeout=10",
            "-rss_limit_mb=1024",
            "-max_len=8192",
            "-print_final_stats=1",
        ])
        .args([&corpus, &seeds])
        .env("OPSCTL_FUZZ_SEEDS", &seeds);
    step::run(&mut run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_is_a_program() {
        let manifest = fs::read_to_string(folder().join("Cargo.toml")).unwrap();
        let manifest: toml::Table = toml::from_str(&manifest).unwrap();
        let programs = manifest["bin"].as_array().unwrap().iter();
        let mut names: Vec<_> = programs
            .map(|program| program["name"].as_str().unwrap().to_owned())
            .collect();
        names.sort();
        assert_eq!(names, targets().unwrap());
    }
}
