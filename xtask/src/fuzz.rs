//! `cargo xtask fuzz`: the fuzz targets of every crate that has some, guided by coverage. Libfuzzer's runtime comes with a
//! crate and the coverage from options of the pinned compiler, so that neither a nightly toolchain nor a program is needed
//! besides. What every run of the tests does with the same properties stands in the tests of those crates.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::step;

/// Which targets, and for how long.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Only the targets whose name, such as `backups/wal`, contains this
    #[arg(default_value = "")]
    target: String,
    /// Seconds for each target
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Names the targets and runs none
    #[arg(long)]
    list: bool,
}

/// The crates with a folder `fuzz`, which is a package and a workspace of its own.
const CRATES: [&str; 4] = ["alerts", "backups", "backups/replication", "dashboards"];

/// A fuzz target: a program of the package in a crate's folder `fuzz`.
struct Target {
    in_crate: &'static str,
    program: String,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.in_crate, self.program)
    }
}

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
    let (mut any, mut failed) = (false, Vec::new());
    for in_crate in CRATES {
        let mut targets = targets(in_crate)?;
        targets.retain(|target| target.to_string().contains(&arguments.target));
        any |= !targets.is_empty();
        if arguments.list || targets.is_empty() {
            for target in &targets {
                println!("{target}");
            }
            continue;
        }
        let programs = build(in_crate, &targets)?;
        for target in &targets {
            println!("== {target}");
            if let Err(error) = fuzz(&programs, target, arguments.seconds) {
                println!("{error:#}");
                failed.push(target.to_string());
            }
        }
    }
    ensure!(any, "no target is called so: `cargo xtask fuzz --list`");
    ensure!(failed.is_empty(), "does not hold: {}", failed.join(", "));
    Ok(())
}

fn folder(in_crate: &str) -> PathBuf {
    peers::workspace_root().join(in_crate).join("fuzz")
}

fn targets(in_crate: &'static str) -> Result<Vec<Target>> {
    let sources = fs::read_dir(folder(in_crate).join("fuzz_targets")).context("there are no fuzz targets")?;
    let mut programs = Vec::new();
    for source in sources {
        let source = source?.path();
        programs.extend(source.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    programs.sort();
    let target = |program| Target { in_crate, program };
    Ok(programs.into_iter().map(target).collect())
}

/// Builds targets of one crate with the workspace's own versions of everything, and says where they are.
fn build(in_crate: &str, targets: &[Target]) -> Result<PathBuf> {
    let folder = folder(in_crate);
    // A lock file of its own would drift; this copy is not committed, and cargo adds to it what only fuzzing needs.
    let lock = peers::workspace_root().join("Cargo.lock");
    fs::copy(&lock, folder.join("Cargo.lock")).context("could not copy Cargo.lock")?;
    let target = step::target().join("fuzz");
    // With a platform that is named, the options do not reach what runs while building.
    let platform = platform()?;
    let mut build = step::cargo(["build", "--release", "--target", &platform, "--manifest-path"]);
    build.arg(folder.join("Cargo.toml"));
    build.args(targets.iter().flat_map(|target| ["--bin", &target.program]));
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

fn fuzz(programs: &Path, target: &Target, seconds: u64) -> Result<()> {
    let corpora = step::target().join("fuzz").join("corpus");
    let place = corpora.join(target.in_crate).join(&target.program);
    let [corpus, seeds, found] = ["corpus", "seeds", "found"].map(|name| place.join(name));
    for folder in [&corpus, &seeds, &found] {
        fs::create_dir_all(folder).with_context(|| format!("could not make {}", folder.display()))?;
    }
    let mut run = Command::new(programs.join(&target.program));
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
        for in_crate in CRATES {
            let manifest = fs::read_to_string(folder(in_crate).join("Cargo.toml")).unwrap();
            let manifest: toml::Table = toml::from_str(&manifest).unwrap();
            let programs = manifest["bin"].as_array().unwrap().iter();
            let mut names: Vec<_> = programs
                .map(|program| program["name"].as_str().unwrap().to_owned())
                .collect();
            names.sort();
            let sources = targets(in_crate).unwrap().into_iter();
            assert_eq!(
                names,
                sources.map(|target| target.program).collect::<Vec<_>>(),
                "{in_crate}"
            );
        }
    }
}
