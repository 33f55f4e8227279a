//! `cargo xtask instructions`: how many instructions a call takes on each hot path of `resilience`, counted by callgrind
//! and held against committed ceilings. Unlike times, counts do not depend on what else the machine does. Times are
//! `cargo xtask bench resilience`'s matter.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::step;

/// What to do with the counts.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Write new ceilings, 5 % above what is counted now, instead of checking
    #[arg(long)]
    write: bool,
}

/// The hot paths, as the measured program names them.
const PATHS: [&str; 6] = [
    "closed_breaker",
    "closed_breaker_slow_calls",
    "open_breaker",
    "retry_first_try",
    "standard_ready",
    "standard_pending_once",
];
/// The measured program's folder. It is a package of its own, so that it is built as a service would build it.
const FOLDER: &str = "resilience/benches/instructions";
const CEILINGS: &str = "ceilings.toml";
/// Room above what was counted: a new release of a dependency may move a few.
const ROOM: f64 = 1.05;
/// Calls of two runs. What the process costs besides is the same in both, so the difference is the calls' alone.
const CALLS: [u64; 2] = [1_000, 5_000];

#[derive(Debug, Serialize, Deserialize)]
struct Ceilings {
    /// Instructions a call, by path.
    ceilings: BTreeMap<String, u64>,
}

/// The part of `cargo xtask ci`.
///
/// # Errors
/// As [`run`].
pub fn check() -> Result<()> {
    run(&Arguments { write: false })
}

/// Counts, and checks the counts or writes new ceilings. Without valgrind it says so and checks nothing.
///
/// # Errors
/// When a path takes more instructions than its ceiling, or something cannot be built or run.
pub fn run(arguments: &Arguments) -> Result<()> {
    let Some(valgrind) = peers::peer("valgrind", "instructions") else {
        return Ok(());
    };
    let program = build()?;
    let mut counts = BTreeMap::new();
    for path in PATHS {
        counts.insert(path.to_owned(), count(&valgrind, &program, path)?);
    }
    let file = folder().join(CEILINGS);
    if arguments.write {
        return write(&file, &counts);
    }
    let text = fs::read_to_string(&file).with_context(|| format!("could not read {}", file.display()))?;
    let Ceilings { ceilings } =
        toml::from_str(&text).with_context(|| format!("{} is not as expected", file.display()))?;
    let findings = judge(&counts, &ceilings);
    for (path, count) in &counts {
        let ceiling = ceilings.get(path).map_or("none".to_owned(), u64::to_string);
        println!("{path:<26} {count:>6} instructions a call, ceiling {ceiling:>6}");
    }
    if !findings.is_empty() {
        bail!(
            "{}\nmake it cheaper, or raise the ceilings on purpose: `cargo xtask instructions --write`",
            findings.join("\n")
        );
    }
    Ok(())
}

/// What is wrong with `counts`.
fn judge(counts: &BTreeMap<String, u64>, ceilings: &BTreeMap<String, u64>) -> Vec<String> {
    let mut findings = Vec::new();
    for (path, count) in counts {
        match ceilings.get(path) {
            Some(ceiling) if count <= ceiling => {}
            Some(ceiling) => findings.push(format!("{path} takes {count} instructions, its ceiling is {ceiling}")),
            None => findings.push(format!("{path} has no ceiling")),
        }
    }
    let unknown = ceilings.keys().filter(|path| !counts.contains_key(*path));
    findings.extend(unknown.map(|path| format!("{path} has a ceiling and is no path")));
    findings
}

/// Builds the measured program with the workspace's own versions of everything.
fn build() -> Result<PathBuf> {
    // A lock file of its own would drift; this copy is not committed, and cargo drops what is not needed from it.
    let lock = peers::workspace_root().join("Cargo.lock");
    fs::copy(&lock, folder().join("Cargo.lock")).context("could not copy Cargo.lock")?;
    let target = step::target().join("instructions");
    let mut build = step::cargo(["build", "--release", "--quiet", "--manifest-path"]);
    build.arg(folder().join("Cargo.toml")).env("CARGO_TARGET_DIR", &target);
    step::run(&mut build)?;
    Ok(target.join("release").join("instructions"))
}

/// Instructions a call on `path`.
fn count(valgrind: &Path, program: &Path, path: &str) -> Result<u64> {
    let [few, many] = CALLS;
    let all = |calls: u64| -> Result<u64> {
        let mut command = Command::new(valgrind);
        command
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(program)
            .args([path, &calls.to_string()])
            .current_dir("/");
        let output = command.output().context("could not start valgrind")?;
        let text = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            bail!("`{path}` under callgrind ended with {}\n{text}", output.status);
        }
        collected(&text).with_context(|| format!("callgrind told no count for `{path}`:\n{text}"))
    };
    Ok(all(many)?.saturating_sub(all(few)?).div_ceil(many - few))
}

/// The number in callgrind's line `Collected : N`.
fn collected(text: &str) -> Option<u64> {
    let (_, rest) = text.split_once("Collected :")?;
    rest.split_whitespace().next()?.parse().ok()
}

fn write(file: &Path, counts: &BTreeMap<String, u64>) -> Result<()> {
    let ceilings = counts
        .iter()
        .map(|(path, count)| (path.clone(), (*count as f64 * ROOM).ceil() as u64))
        .collect();
    let text = format!(
        "# The most instructions that a call may take: 5 % above what was counted. Checked by `cargo xtask ci`, written by\n\
         # `cargo xtask instructions --write`.\n\n{}",
        toml::to_string(&Ceilings { ceilings })?
    );
    fs::write(file, &text).with_context(|| format!("could not write {}", file.display()))?;
    print!("{text}");
    Ok(())
}

fn folder() -> PathBuf {
    peers::workspace_root().join(FOLDER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(of: &[(&str, u64)]) -> BTreeMap<String, u64> {
        of.iter().map(|(path, count)| ((*path).to_owned(), *count)).collect()
    }

    #[test]
    fn more_than_the_ceiling_and_a_path_without_one_are_found() {
        let ceilings = counts(&[("a", 10), ("b", 10)]);
        assert!(judge(&counts(&[("a", 10), ("b", 9)]), &ceilings).is_empty());
        assert_eq!(judge(&counts(&[("a", 11), ("b", 9)]), &ceilings).len(), 1);
        assert_eq!(judge(&counts(&[("a", 1), ("b", 1), ("c", 1)]), &ceilings).len(), 1);
        assert_eq!(judge(&counts(&[("a", 1)]), &ceilings).len(), 1);
    }

    #[test]
    fn the_count_is_found_in_what_callgrind_tells() {
        let told = "==7== Events    : Ir\n==7== Collected : 532819\n==7== \n==7== I   refs:      532,819\n";
        assert_eq!(collected(told), Some(532_819));
        assert_eq!(collected("valgrind: failed to start"), None);
    }
}
