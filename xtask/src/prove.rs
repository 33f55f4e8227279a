//! `cargo xtask prove`: drills and canaries on real pods. Makes the images, has a cluster for as long as it takes, and runs
//! the tests of `cli/tests/proof` there: by itself a seeded slice of a few minutes, from `cargo xtask soak` the full counts.

use std::{path::PathBuf, process::ExitStatus};

use anyhow::{Context as _, Result, ensure};
use peers::cluster::{self, Cluster};
use tokio::signal::unix::{SignalKind, signal};

use crate::{dist, step};

/// What to prove.
#[derive(Debug, Default, clap::Args)]
pub struct Arguments {
    /// Take the images that lie in this folder, as `cargo xtask dist --profile image --tag v1` makes them with the variants
    /// `next`, `bad` and `slow`
    #[arg(long, value_name = "DIR")]
    packages: Option<PathBuf>,
    /// Make the images and go no further
    #[arg(long, conflicts_with = "packages")]
    images: bool,
    /// SIGKILLs in all [default: 12]
    #[arg(long)]
    kills: Option<u32>,
    /// The seed of random instants; printed, so that a failure can be had again
    #[arg(long)]
    seed: Option<u64>,
    /// Freeze for minutes, not for seconds
    #[arg(long)]
    long: bool,
    /// Prove only what has this in its name
    filter: Option<String>,
}

impl Arguments {
    /// Everything, with so many kills.
    pub fn full(kills: u32, seed: Option<u64>) -> Self {
        Self {
            packages: None,
            images: false,
            kills: Some(kills),
            seed,
            long: true,
            filter: None,
        }
    }
}

/// Proves it, and ends the cluster unless it ran before.
///
/// # Errors
/// When images cannot be made, the cluster does not start or end, or a test fails.
pub fn run(arguments: &Arguments) -> Result<()> {
    let packages = match &arguments.packages {
        Some(packages) => packages.canonicalize().context("no such folder of images")?,
        None => images()?,
    };
    if arguments.images {
        return Ok(());
    }
    let mut tests = step::cargo(["test", "--workspace", "--test", "proof"]);
    tests.args(&arguments.filter);
    // All at once: each waits until what it needs of the one cluster is its own.
    tests.args(["--", "--nocapture", "--test-threads=16"]);
    tests.env("OPSCTL_PACKAGES", packages).env(peers::REQUIRE_PEERS, "1");
    if let Some(kills) = arguments.kills {
        tests.env("OPSCTL_KILLS", kills.to_string());
    }
    if arguments.long {
        tests.env("OPSCTL_SOAK", "1");
    }
    if let Some(seed) = arguments.seed {
        tests.env("OPSCTL_SEED", seed.to_string());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let status = runtime.block_on(beside_a_cluster(tests.into()))?;
    ensure!(status.success(), "the tests on the cluster ended with {status}");
    Ok(())
}

/// Makes the images that the tests want, and returns the folder that they are in.
fn images() -> Result<PathBuf> {
    let folder = step::target().join("packages/proof");
    dist::run(&dist::Arguments::for_tests(folder.clone()))?;
    Ok(folder)
}

/// Runs the tests while a cluster is there. Who interrupts them interrupts what they have started, not the way back.
async fn beside_a_cluster(mut tests: tokio::process::Command) -> Result<ExitStatus> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let ran_before = Cluster::running().is_ok();
    let proven = async {
        cluster::up(0, |seconds, what| println!("{seconds:6.1} s  {what}")).await?;
        Ok::<_, anyhow::Error>(tests.kill_on_drop(true).status().await?)
    };
    let proven = tokio::select! {
        proven = proven => proven,
        _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow::anyhow!("terminated")),
    };
    if !ran_before {
        cluster::down().await?;
    }
    proven
}
