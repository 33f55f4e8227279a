//! `cargo xtask soak`: the kill and fault tests with their full counts. CI runs a seeded slice of the same tests.

use anyhow::Result;

use crate::step;

/// How much to soak.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// SIGKILLs in all, spread over backup, restore, restore in place, drill and canary
    #[arg(long, default_value_t = 500)]
    kills: u32,
    /// The seed of the first round; printed, so that a failure can be had again
    #[arg(long)]
    seed: Option<u64>,
    /// Run only soak tests whose name contains this
    #[arg(default_value = "")]
    filter: String,
}

/// The kinds of run among which the kills are divided: the tests of `cli/tests/kill.rs` that count them.
const KINDS: u32 = 5;

/// Runs the kill tests with the counts asked for.
///
/// # Errors
/// When one of them fails.
pub fn run(arguments: &Arguments) -> Result<()> {
    step::run(&mut step::cargo(["build", "--workspace", "--bins", "--examples"]))?;
    let seed = arguments.seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("soak: {} kills, seed {seed}", arguments.kills);
    let each = arguments.kills.div_ceil(KINDS);
    let mut tests = step::cargo(["test", "--workspace", "--no-fail-fast", "--test", "kill"]);
    if !arguments.filter.is_empty() {
        tests.arg(&arguments.filter);
    }
    tests.args(["--", "--nocapture", "--test-threads=1"]);
    tests
        .env("OPSCTL_KILLS", each.to_string())
        .env("OPSCTL_SEED", seed.to_string());
    tests.env(peers::REQUIRE_PEERS, "1");
    step::run(&mut tests)
}
