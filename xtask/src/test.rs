//! `cargo xtask test`: all tests, with what they need installed on request, and no skip in silence.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};

use crate::step;

/// What to test with.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Install the missing peers first, after printing their names and sizes
    #[arg(long)]
    install: bool,
    /// Fail a test whose peer is missing instead of skipping it
    #[arg(long)]
    require_peers: bool,
    /// Run only tests whose name contains this
    filter: Option<String>,
}

impl Arguments {
    /// Everything, with every peer installed and required.
    pub fn complete() -> Self {
        Self {
            install: true,
            require_peers: true,
            filter: None,
        }
    }
}

/// Installs what is missing, builds everything once, runs the tests, and lists what was skipped.
///
/// # Errors
/// When an installation, the build or a test fails.
pub fn run(arguments: &Arguments) -> Result<()> {
    if arguments.install {
        let plan = peers::plan();
        print!("{plan}");
        println!("to build: the workspace with its tests (about 2 GiB in the target directory)");
        peers::install(&plan, |line| println!("{line}")).context("could not install the peers")?;
    }
    // Tests run the real binaries of other packages, so those are built first, all with the same features.
    step::run(&mut step::cargo(["build", "--workspace", "--bins", "--examples"]))?;

    let log = skip_log();
    let _ = fs::remove_file(&log);
    let mut tests = step::cargo(["test", "--workspace", "--no-fail-fast"]);
    tests.env(peers::SKIP_LOG, &log);
    if arguments.require_peers {
        tests.env(peers::REQUIRE_PEERS, "1");
    }
    if let Some(filter) = &arguments.filter {
        tests.arg(filter);
    }
    let outcome = step::run(&mut tests);
    report_skips(&fs::read_to_string(&log).unwrap_or_default());
    let _ = fs::remove_file(&log);
    outcome
}

fn report_skips(log: &str) {
    let mut skipped: Vec<&str> = log.lines().collect();
    skipped.sort_unstable();
    skipped.dedup();
    if skipped.is_empty() {
        println!("no test was skipped");
        return;
    }
    println!("skipped ({}):", skipped.len());
    for line in skipped {
        println!("  {line}");
    }
}

fn skip_log() -> PathBuf {
    std::env::temp_dir().join(format!("opsctl-skipped-{}", std::process::id()))
}
