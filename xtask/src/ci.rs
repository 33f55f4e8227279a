//! `cargo xtask ci`: what a change must pass, one part after the other, with the minutes that each took.

use std::time::Duration;

use anyhow::Result;

use crate::{background::Background, codegen, instructions, prove, step, test, tidy};

/// What to check.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Run only the part of this name
    #[arg(long)]
    only: Option<String>,
}

/// The first part that needs every peer.
const TEST: &str = "test";
/// The one that needs images.
const PROVE: &str = "prove";

type Part = (&'static str, fn() -> Result<()>);

/// In the order in which a mistake is found soonest.
const PARTS: &[Part] = &[
    ("fmt", || step::run(&mut step::cargo(["fmt", "--all", "--check"]))),
    ("tidy", tidy::run),
    ("clippy", || {
        clippy(&["--all-targets"])?;
        // Which is no test of `cargo test`, and so none of all targets.
        clippy(&["--test", "proof"])
    }),
    ("codegen", || codegen::run(&codegen::Arguments::check())),
    ("docs", || {
        let mut docs = step::cargo(["doc", "--workspace", "--no-deps", "--quiet"]);
        step::run(docs.env("RUSTDOCFLAGS", "-D warnings"))
    }),
    ("loom", loom),
    ("build", || test::build().map(drop)),
    (TEST, || test::run(&test::Arguments::complete())),
    (PROVE, || prove::run(&prove::Arguments::default())),
    ("features", features),
    // After the tests, which install what is missing.
    ("instructions", instructions::check),
];

fn clippy(what: &[&str]) -> Result<()> {
    // Some features are on for nobody else in the workspace.
    let mut clippy = step::cargo(["clippy", "--workspace", "--all-features", "--quiet"]);
    step::run(clippy.args(what).args(["--", "-D", "warnings"]))
}

/// Every interleaving of the lock-free modules of `resilience`. They take a second; the bound, of switches to another
/// thread where none was due, is so that a new model does not take hours. The cfg changes how everything is built, so it
/// has a target directory of its own.
fn loom() -> Result<()> {
    let mut models = step::cargo(["test", "--package", "resilience", "--lib", "--quiet", "loom"]);
    models
        .env("RUSTFLAGS", "--cfg resilience_loom")
        .env("LOOM_MAX_PREEMPTIONS", "3")
        .env("CARGO_TARGET_DIR", step::target().join("loom"));
    step::run(&mut models)
}

/// The clients of others that `telemetry` sends with when it is told to, behind features that no program of ours turns
/// on. Of the whole workspace, so that what it stands on is not built a second time.
fn features() -> Result<()> {
    let mut tests = step::cargo([
        "test",
        "--workspace",
        "--quiet",
        "--test",
        "collector",
        "--test",
        "loki",
    ]);
    tests.args([
        "--features",
        "telemetry/tracing-loki,telemetry/opentelemetry-otlp",
        "says_unknown",
    ]);
    step::run(tests.env(peers::REQUIRE_PEERS, "1"))
}

/// Runs the parts until one fails.
///
/// # Errors
/// The first part's failure, named.
pub fn run(arguments: &Arguments) -> Result<()> {
    let chosen = |name: &str| arguments.only.as_deref().is_none_or(|only| only == name);
    // Servers take long to build, and nothing before the tests needs them.
    let peers_are_missing = !peers::plan().missing.is_empty();
    let mut servers = if chosen(TEST) && peers_are_missing {
        Some(Background::start("peers", &["peers", "build"])?)
    } else {
        None
    };
    let mut images = None;
    let mut minutes = Vec::new();
    let mut outcome = Ok(());
    for (name, part) in PARTS {
        if !chosen(name) {
            continue;
        }
        println!("== {name}");
        let started = now();
        if *name == TEST {
            servers.take().map_or(Ok(()), Background::wait)?;
            // Tests wait more than they compute, so this costs them little.
            if chosen(PROVE) {
                images = Some(Background::start("images", &["prove", "--images"])?);
            }
        }
        if *name == PROVE {
            images.take().map_or(Ok(()), Background::wait)?;
        }
        outcome = part().map_err(|error| error.context(format!("part `{name}` failed")));
        minutes.push((*name, now().duration_since(started)));
        if outcome.is_err() {
            break;
        }
    }
    println!("minutes:");
    for (name, took) in &minutes {
        println!("  {name:<12} {:>6.2}", took.as_secs_f64() / 60.0);
    }
    let total: Duration = minutes.iter().map(|(_, took)| *took).sum();
    println!("  {:<12} {:>6.2}", "total", total.as_secs_f64() / 60.0);
    outcome
}

#[expect(
    clippy::disallowed_methods,
    reason = "a task measures real minutes and has no runtime"
)]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}
