//! `cargo xtask test`: all tests, with what they need installed on request, and no skip in silence. Programs of tests run
//! side by side: most of their time is waiting for servers and processes of their own.

mod lanes;
mod program;

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};

use crate::step;
use lanes::{Job, Outcome};
use program::Program;

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
    let mut jobs: Vec<Job> = build()?.into_iter().map(Program::job).collect();
    jobs.push(program::documentation());
    let log = skip_log();
    let _ = fs::remove_file(&log);
    for job in &mut jobs {
        job.command.env(peers::SKIP_LOG, &log);
        if arguments.require_peers {
            job.command.env(peers::REQUIRE_PEERS, "1");
        }
        job.command.args(&arguments.filter);
    }
    let mut seconds = Seconds::read();
    // The longest first, so that none is still running when all others are done; who is new may be long.
    jobs.sort_by_key(|job| std::cmp::Reverse(seconds.of(&job.name)));
    let outcomes = lanes::run(jobs)?;
    if arguments.filter.is_none() {
        for outcome in &outcomes {
            seconds.note(outcome);
        }
        seconds.write();
    }
    report_skips(&fs::read_to_string(&log).unwrap_or_default());
    let _ = fs::remove_file(&log);
    report(&outcomes)
}

/// Builds every program of tests, and those of ours that they run.
///
/// # Errors
/// When something does not build.
pub fn build() -> Result<Vec<Program>> {
    // Tests run the real binaries of other packages, so those are built first, all with the same features.
    step::run(&mut step::cargo(["build", "--workspace", "--bins", "--examples"]))?;
    program::all()
}

/// How long each program took the last time, which decides the order and nothing else.
struct Seconds(BTreeMap<String, f64>);

impl Seconds {
    fn file() -> PathBuf {
        step::target().join("seconds-of-tests.json")
    }

    fn read() -> Self {
        let text = fs::read_to_string(Self::file()).unwrap_or_default();
        Self(serde_json::from_str(&text).unwrap_or_default())
    }

    fn of(&self, name: &str) -> Duration {
        let known = self.0.get(name).map(|seconds| Duration::try_from_secs_f64(*seconds));
        known.and_then(Result::ok).unwrap_or(Duration::MAX)
    }

    fn note(&mut self, outcome: &Outcome) {
        self.0.insert(outcome.name.clone(), outcome.took.as_secs_f64());
    }

    fn write(&self) {
        let text = serde_json::to_string_pretty(&self.0).unwrap_or_default();
        // Without it the next run is only a little longer.
        let _ = fs::write(Self::file(), text);
    }
}

/// Names the programs that took long, and those that failed.
fn report(outcomes: &[Outcome]) -> Result<()> {
    let mut longest: Vec<&Outcome> = outcomes.iter().collect();
    longest.sort_by_key(|outcome| std::cmp::Reverse(outcome.took));
    println!("the longest:");
    for outcome in longest.iter().take(12) {
        println!("  {:>5.0} s  {}", outcome.took.as_secs_f64(), outcome.name);
    }
    let failed: Vec<&str> = outcomes
        .iter()
        .filter(|outcome| !outcome.succeeded)
        .map(|outcome| outcome.name.as_str())
        .collect();
    ensure!(failed.is_empty(), "tests failed: {}", failed.join(", "));
    Ok(())
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
