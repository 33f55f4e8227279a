//! `cargo xtask bench`: ours beside its peers, in one run on one machine, written to docs/reference/benchmarks.md.

mod alerts;
mod backup;
mod command_line;
mod dashboards;
mod kubernetes;
mod machine;
mod material;
mod page;
mod postgres;
mod process;
mod program;
mod proxy;
mod requirement;
mod resilience;
mod rounds;
mod telemetry;

use anyhow::Result;
use clap::ValueEnum;

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The area to measure; all of them without it
    area: Option<Area>,
    /// How large the cluster of `postgres` is; with another size than the usual its figures are printed and not kept
    #[arg(long, value_name = "GIB", default_value_t = postgres::GIB, value_parser = clap::value_parser!(u64).range(1..=1000))]
    size: u64,
}

/// One area of measurement: one file below `bench/`, one section of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Area {
    /// Checks and tests of alert rules beside promtool, the parser of queries beside another
    Alerts,
    /// Backup and restore beside restic and rustic
    Backup,
    /// How long a person waits for `--help` and `status`
    CommandLine,
    /// Checks of boards
    Dashboards,
    /// A cluster with a thousand services
    Kubernetes,
    /// Base backups, the log and recovery of PostgreSQL beside its own programs
    Postgres,
    /// The traffic proxy: requests per CPU second, latency added
    Proxy,
    /// Policies of the crate `resilience` beside those of others
    Resilience,
    /// Logs, spans, metrics and probes beside those of others
    Telemetry,
}

/// Measures, prints each figure with its peer's, and writes the page's sections.
///
/// # Errors
/// When something cannot be built, started or measured.
pub fn run(arguments: &Arguments) -> Result<()> {
    for area in Area::value_variants() {
        if arguments.area.is_some_and(|only| only != *area) {
            continue;
        }
        let section = match area {
            Area::Alerts => alerts::measure()?,
            Area::Backup => backup::measure()?,
            Area::CommandLine => command_line::measure()?,
            Area::Dashboards => dashboards::measure()?,
            Area::Kubernetes => kubernetes::measure()?,
            Area::Postgres => postgres::measure(arguments.size)?,
            Area::Proxy => proxy::measure()?,
            Area::Resilience => resilience::measure()?,
            Area::Telemetry => telemetry::measure()?,
        };
        println!("{section}");
        if *area != Area::Postgres || arguments.size == postgres::GIB {
            page::write(section)?;
        }
    }
    Ok(())
}
