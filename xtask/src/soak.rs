//! `cargo xtask soak`: the kill and fault tests with their full counts. CI runs a seeded slice of the same tests.

use anyhow::Result;

use crate::{prove, step};

/// How much to soak.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// SIGKILLs in all, spread over what reads and writes repositories in folders and in a bucket, drill, canary and the
    /// services under load
    #[arg(long, default_value_t = 1000)]
    kills: u32,
    /// SIGKILLs of drills and canaries on the cluster
    #[arg(long, default_value_t = 100)]
    cluster_kills: u32,
    /// Rounds in which a PostgreSQL is lost with its disk, and as many in which opsctl is killed beside one
    #[arg(long, default_value_t = 100)]
    rounds: u32,
    /// The seed of the first round; printed, so that a failure can be had again
    #[arg(long)]
    seed: Option<u64>,
    /// Run only soak tests whose name contains this; `services` are those of the services, `outages` those of servers
    /// that are down, slow or hang for a minute, `alerts` all changes of rules that their tests must notice and all that
    /// promtool is asked, `postgres` those of clusters that are saved as a whole, `cluster` those on real pods
    #[arg(default_value = "")]
    filter: String,
}

/// The kinds among which the kills are divided: the tests of `cli/tests/kill.rs` that count them, of which the six in a
/// bucket take half as many, and the one of `orders`.
const KINDS: u32 = 14;

/// The filter for the tests of the services, which are one module of a larger test binary.
const SERVICES: &str = "services";

/// The filter for the tests of outages.
const OUTAGES: &str = "outages";

/// The filter for the tests of alerts.
const ALERTS: &str = "alerts";

/// The test binaries of which CI runs a slice, or leaves out what takes promtool long.
const ALERT_TESTS: [&str; 2] = ["render", "promtool"];

/// The filter for the tests of PostgreSQL that is saved as a whole.
const POSTGRES: &str = "postgres";

/// The filter for the tests on the cluster.
const CLUSTER: &str = "cluster";

/// The test binaries of what CI tests with outages of seconds: each sink and each health dependency, and networks that are
/// cut while repositories are used.
const OUTAGE_TESTS: [&str; 4] = ["loki", "collector", "dependencies", "faults"];

/// Runs the kill tests with the counts asked for, and the outages in full length.
///
/// # Errors
/// When one of them fails.
pub fn run(arguments: &Arguments) -> Result<()> {
    step::run(&mut step::cargo(["build", "--workspace", "--bins", "--examples"]))?;
    let filter = arguments.filter.as_str();
    let asked = |kind: &str| filter.is_empty() || filter == kind;
    let mut outcome = Ok(());
    if ![OUTAGES, ALERTS, POSTGRES, CLUSTER].contains(&filter) {
        outcome = kills(arguments);
    }
    if asked(OUTAGES) {
        outcome = outcome.and(whole(&OUTAGE_TESTS));
    }
    if asked(ALERTS) {
        outcome = outcome.and(whole(&ALERT_TESTS));
    }
    if asked(POSTGRES) {
        outcome = outcome.and(postgres(arguments));
    }
    if asked(CLUSTER) {
        let everything = prove::Arguments::full(arguments.cluster_kills, arguments.seed);
        outcome = outcome.and(prove::run(&everything));
    }
    outcome
}

fn seed(arguments: &Arguments) -> u64 {
    arguments.seed.unwrap_or_else(|| u64::from(std::process::id()))
}

fn postgres(arguments: &Arguments) -> Result<()> {
    let seed = seed(arguments);
    println!("soak: {} rounds of PostgreSQL, seed {seed}", arguments.rounds);
    let mut tests = step::cargo(["test", "--workspace", "--no-fail-fast", "--test", "pitr_faults"]);
    tests.args(["--", "--nocapture", "--test-threads=1"]);
    tests
        .env("OPSCTL_ROUNDS", arguments.rounds.to_string())
        .env("OPSCTL_SEED", seed.to_string())
        .env(peers::REQUIRE_PEERS, "1");
    step::run(&mut tests)
}

fn kills(arguments: &Arguments) -> Result<()> {
    let seed = seed(arguments);
    println!("soak: {} kills, seed {seed}", arguments.kills);
    let each = arguments.kills.div_ceil(KINDS);
    let mut outcome = Ok(());
    for (target, filter) in [("kill", arguments.filter.as_str()), ("service", "kill::")] {
        let services = target == "service";
        if !arguments.filter.is_empty() && services != (arguments.filter == SERVICES) {
            continue;
        }
        let mut tests = step::cargo(["test", "--workspace", "--no-fail-fast", "--test", target]);
        tests.arg(filter).args(["--", "--nocapture", "--test-threads=1"]);
        tests
            .env("OPSCTL_KILLS", each.to_string())
            .env("OPSCTL_SEED", seed.to_string())
            .env(peers::REQUIRE_PEERS, "1");
        outcome = outcome.and(step::run(&mut tests));
    }
    outcome
}

/// All of them in full length, even after one has failed.
fn whole(targets: &[&str]) -> Result<()> {
    let mut outcome = Ok(());
    for target in targets {
        let mut tests = step::cargo(["test", "--workspace", "--no-fail-fast", "--test", target]);
        tests.args(["--", "--nocapture", "--test-threads=1"]);
        tests.env("OPSCTL_SOAK", "1").env(peers::REQUIRE_PEERS, "1");
        outcome = outcome.and(step::run(&mut tests));
    }
    outcome
}
