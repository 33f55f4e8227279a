//! `cargo xtask cluster`: a whole Kubernetes cluster of one node on this machine, to try opsctl out on and to test it
//! with. What it is made of stands in `peers::cluster`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use peers::cluster::{self, Cluster, Part};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

/// What to do.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Starts the cluster and returns once all of it is ready; `down` ends it
    Up {
        /// Has so many nodes beside the real one, played by kwok and tainted
        #[arg(long, value_name = "N", default_value_t = 0)]
        kwok_nodes: usize,
    },
    /// Ends the cluster, also one that was left half made, and removes everything of it
    Down,
    /// Says how every part is
    Status {
        /// One JSON document
        #[arg(long)]
        json: bool,
    },
    /// Prints what to set in a shell: eval "$(cargo xtask cluster env)"
    Env,
    /// Hands image tars to the node
    LoadImage {
        /// OCI layouts, such as `cargo xtask dist` writes
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

/// Does what was asked for.
///
/// # Errors
/// When the cluster does not start, or cannot be removed, or none runs.
pub fn run(arguments: &Arguments) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match &arguments.verb {
            Verb::Up { kwok_nodes } => up(*kwok_nodes).await,
            Verb::Down => {
                let ended = cluster::down().await?;
                println!(
                    "{}",
                    if ended {
                        "nothing is left of it"
                    } else {
                        "no cluster runs"
                    }
                );
                Ok(())
            }
            Verb::Status { json } => status(*json).await,
            Verb::Env => {
                for (name, value) in Cluster::running()?.environment() {
                    println!("export {name}='{value}'");
                }
                Ok(())
            }
            Verb::LoadImage { files } => {
                let cluster = Cluster::running()?;
                for file in files {
                    cluster.load_image(file).await?;
                    println!("loaded {}", file.display());
                }
                Ok(())
            }
        }
    })
}

async fn up(played: usize) -> Result<()> {
    // Listened to first: an end during the start leaves nothing, too.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let say = |seconds: f64, what: &str| println!("{seconds:6.1} s  {what}");
    let started = tokio::select! {
        started = cluster::up(played, say) => started,
        _ = interrupt.recv() => return interrupted().await,
        _ = terminate.recv() => return interrupted().await,
    };
    started?;
    println!("eval \"$(cargo xtask cluster env)\" sets KUBECONFIG and the rest; `cargo xtask cluster down` ends it");
    Ok(())
}

async fn interrupted() -> Result<()> {
    eprintln!("interrupted; removing what was there of the cluster");
    cluster::down().await?;
    bail!("interrupted; nothing is left of the cluster");
}

async fn status(as_json: bool) -> Result<()> {
    let parts = Cluster::running()?.status().await;
    let mib = |part: &Part| part.memory.map(|bytes| bytes.div_ceil(1 << 20));
    if as_json {
        let row = |part: &Part| {
            json!({
                "name": part.name,
                "pid": part.pid,
                "ready": part.ready,
                "age_seconds": part.age.map(|age| age.as_secs()),
                "memory_mib": mib(part),
            })
        };
        println!(
            "{:#}",
            json!({ "version": 1, "parts": parts.iter().map(row).collect::<Vec<_>>() })
        );
        return Ok(());
    }
    println!(
        "{:<24} {:>8}  {:<5} {:>8} {:>9}",
        "PART", "PID", "READY", "SECONDS", "MEMORY"
    );
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    for part in &parts {
        let pid = or_dash(part.pid.map(|pid| pid.to_string()));
        let seconds = or_dash(part.age.map(|age| age.as_secs().to_string()));
        let memory = or_dash(mib(part).map(|mib| format!("{mib} MiB")));
        let ready = if part.ready { "yes" } else { "no" };
        println!("{:<24} {pid:>8}  {ready:<5} {seconds:>8} {memory:>9}", part.name);
    }
    let all: u64 = parts.iter().filter_map(mib).sum();
    println!("{all} MiB in all, without pods");
    Ok(())
}
