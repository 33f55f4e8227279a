//! A PostgreSQL that is saved as a whole, beside PostgreSQL's own programs: base backups and their restore, the log while
//! pgbench writes it, and how fast a recovery gets it back. What dumps cost is `pg_dump`'s business.
//!
//! A cluster is half pages that compress and half pages that do not. It lies on a disk, in the folder for temporary files,
//! with up to three times its size beside it; whatever ends the measurement, nothing stays.

mod base;
mod cluster;
mod disk;
mod load;
mod log;
mod project;
mod supply;

use anyhow::{Context as _, Result, bail};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::page::Section;
use super::process::Cost;
use super::requirement::Requirement;
use super::{machine, program};
use load::Busy;

/// How large the cluster is that is saved.
pub const GIB: u64 = 10;

const MIB: f64 = (1 << 20) as f64;

/// What one part of the section says.
#[derive(Default)]
struct Part {
    /// How it was measured.
    method: String,
    required: Vec<Requirement>,
    rows: Vec<Vec<String>>,
}

impl Part {
    /// What a program took for so many bytes. `busy`: how many cores the whole machine had under work meanwhile. A figure
    /// that is none stays empty.
    fn row(&mut self, what: &str, whose: &str, bytes: f64, cost: Cost, busy: Busy) {
        let known = |figure: f64, digits: usize| {
            if figure.is_nan() {
                String::new()
            } else {
                format!("{figure:.digits$}")
            }
        };
        self.rows.push(vec![
            what.to_owned(),
            whose.to_owned(),
            format!("{:.1}", cost.wall),
            format!("{:.0}", bytes / MIB / cost.wall),
            known(cost.cpu, 1),
            known(cost.mib, 0),
            format!("{:.2}", busy.cores),
            format!("{:.2}", busy.waiting),
        ]);
    }
}

/// Measures all parts, with a cluster of `gib` GiB.
pub fn measure(gib: u64) -> Result<Section> {
    program::build(&["opsctl"])?;
    let opsctl = program::release("opsctl")?;
    let load = load::average()?;
    println!("load average before: {load}");
    let runtime = Runtime::new()?;
    let parts = runtime.block_on(async {
        let all = async {
            Ok([
                base::measure(&opsctl, gib)
                    .await
                    .context("could not measure base backups")?,
                log::measure(&opsctl).await.context("could not measure the log")?,
            ])
        };
        // What was begun is dropped here, and goes with its files and servers.
        tokio::select! {
            parts = all => parts,
            signal = ended_by() => bail!("ended by {}", signal?),
        }
    })?;
    let methods = parts.iter().map(|part| format!("- {}", part.method));
    let required = parts.iter().flat_map(|part| &part.required);
    Ok(Section {
        area: "postgres",
        title: "PostgreSQL as a whole",
        method: format!(
            "opsctl {} beside PostgreSQL's own programs: whole processes from start to exit, in turn. `CPU s` are those of the \
             process and what it starts, without the server's; `cores busy` are those of the whole machine meanwhile, with the \
             server and whatever else ran, and `waiting` those that had nothing to do but wait for the disk. Load average when \
             it began: {load}.\n\n{}\n\n{}\n\nRequired:\n\n{}",
            env!("CARGO_PKG_VERSION"),
            methods.collect::<Vec<_>>().join("\n"),
            machine::describe(),
            required.map(|one| format!("- {one}")).collect::<Vec<_>>().join("\n"),
        ),
        columns: vec![
            "what",
            "whose",
            "wall s",
            "MiB/s",
            "CPU s",
            "peak MiB",
            "cores busy",
            "waiting",
        ],
        rows: parts.into_iter().flat_map(|part| part.rows).collect(),
    })
}

/// Waits for Ctrl-C, or for whoever ends this otherwise.
async fn ended_by() -> Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed.map(|()| "Ctrl-C").map_err(Into::into),
        _ = terminate.recv() => Ok("SIGTERM"),
    }
}
