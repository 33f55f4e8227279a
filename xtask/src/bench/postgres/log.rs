//! The log while pgbench writes it with all cores: whether the receiver keeps up, and what it costs. Into an S3 that is 20
//! ms away, out of which it is then fetched again ([`super::supply`]).

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use peers::Server;
use peers::faults::{FaultProxy, Limits};
use peers::servers::MinIo;
use tokio::process::Child;
use tokio::time::{Instant, sleep};

use super::cluster::{Database, REPLICATION, client, told};
use super::load::{Since, cpu_of};
use super::project::{BUCKET, Project, Store};
use super::{MIB, Part, disk, supply};
use crate::bench::process::{Cost, cost, peak_mib};
use crate::bench::requirement::Requirement;

/// Of pgbench: a few hundred MiB, so that the pages are in memory.
const SCALE: u64 = 40;
const SECONDS: u64 = 60;
/// Of every request.
const LATENCY: Duration = Duration::from_millis(20);
/// The most of a core that 10 MB/s of log may take, in percent.
const MOST: f64 = 5.0;
/// The most that may be missing when pgbench ends, in seconds of what it wrote.
const BEHIND: f64 = 1.0;
/// How often it is looked how far the receiver is.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long anything is waited for.
const LIMIT: Duration = Duration::from_mins(2);

/// What the receiver did.
struct Received {
    bytes: f64,
    /// Of the receiver, until all was durable.
    cost: Cost,
    /// Seconds that pgbench ran.
    seconds: f64,
    /// Transactions a second.
    tps: f64,
    /// The most that was not received at one time, and what was not when pgbench ended.
    most_behind: f64,
    behind: f64,
    /// How long it took after pgbench's end until all was durable.
    late: f64,
    busy: super::load::Busy,
    /// Names of whole segments that were written meanwhile.
    segments: Vec<String>,
}

/// Measures the receiver, then the way back.
pub(super) async fn measure(opsctl: &Path) -> Result<Part> {
    let scratch = disk::scratch()?;
    let settings = [
        &REPLICATION[..],
        &[
            ("shared_buffers", "1GB"),
            // Else it is the disk that pgbench waits for, and the cores are idle.
            ("synchronous_commit", "off"),
        ],
    ]
    .concat();
    let database = Database::start(&scratch.path().join("cluster"), &settings).await?;
    database.make_pgbench(SCALE).await?;
    let minio = Server::launch(MinIo::default().bucket(BUCKET)).await;
    let minio = minio.context("MinIO does not run; `cargo xtask peers build minio` installs it")?;
    let proxy = FaultProxy::start(minio.address("s3"))?;
    let url = proxy.url();
    proxy.limit(Limits {
        latency: LATENCY,
        bytes_per_second: None,
    });
    let store = Store::Bucket(&url);
    let project = Project::make(opsctl, scratch.path().join("project"), &database.url(), store, None)?;
    cost(project.backup()).await.context("could not take a base backup")?;
    let received = receive(&database, &project).await?;
    let mut part = Part {
        method: format!(
            "pgbench at scale {SCALE} with as many threads as there are cores and four clients each, {SECONDS} s, commits not \
             waited for (`synchronous_commit = off`), so that the cores are what it lacks; {:.0} transactions a second. \
             Received by `opsctl backup --follow` into an S3, MinIO on the same machine behind a proxy that lets every \
             request wait {} ms. At most {:.1} MiB were not received at any time, {:.2} MiB when pgbench ended, and \
             everything was durable {:.1} s later; half a segment waits for up to 5 s in any case, half of the objective. {}",
            received.tps,
            LATENCY.as_millis(),
            received.most_behind / MIB,
            received.behind / MIB,
            received.late,
            supply::METHOD
        ),
        ..Part::default()
    };
    let per_second = received.bytes / received.seconds;
    part.required.extend([
        Requirement::at_most(
            "log that is not received when pgbench ends",
            Some(received.behind / per_second),
            BEHIND,
            "s of what it writes",
        ),
        Requirement::at_most(
            "cores for 10 MB/s of log",
            Some(received.cost.cpu / received.bytes * 1e7 * 100.0),
            MOST,
            "percent of one",
        ),
    ]);
    let what = format!("log of pgbench, {} segments", received.segments.len());
    part.row(
        &what,
        "opsctl backup --follow",
        received.bytes,
        received.cost,
        received.busy,
    );
    supply::measure(opsctl, scratch.path(), &database, store, &received.segments, &mut part).await?;
    Ok(part)
}

/// Receives what pgbench writes.
async fn receive(database: &Database, project: &Project) -> Result<Received> {
    let mut follow = tokio::process::Command::from(project.follow());
    let follow = follow.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    let mut follow = follow.spawn().context("could not start opsctl")?;
    let receiver = follow.id().context("it has an id until it was waited for")?;
    until(|| async { Ok(how_far(database).await?.is_some()) }).await?;
    // What was written before has come, and a segment begins.
    let start = number(
        &database
            .sql("select pg_switch_wal(); select pg_current_wal_insert_lsn() - '0/0'")
            .await?,
    )?;
    until(|| async { Ok(how_far(database).await?.is_some_and(|(received, _)| received >= start)) }).await?;

    let cores = std::thread::available_parallelism()?.get();
    let mut pgbench = client("pgbench")?;
    pgbench.args(["-n", "-T", &SECONDS.to_string(), "-j", &cores.to_string()]);
    pgbench.args(["-c", &(4 * cores).to_string(), &database.url()]);
    let (since, cpu, begun) = (Since::now()?, cpu_of(receiver)?, Instant::now());
    let mut most_behind = 0_f64;
    let mut pgbench = Box::pin(pgbench.output());
    let ended = loop {
        tokio::select! {
            ended = &mut pgbench => break ended?,
            () = sleep(LOOK_EVERY) => {}
        }
        if let Some((received, written)) = how_far(database).await? {
            most_behind = most_behind.max(written - received);
        }
    };
    let seconds = begun.elapsed().as_secs_f64();
    let (received, end) = how_far(database).await?.context("nobody receives any more")?;
    let busy = since.busy()?;
    let tps = transactions(&told(ended).context("pgbench failed")?)?;
    let ended = Instant::now();
    until(|| async { Ok(durable(database).await? >= end) }).await?;
    let late = ended.elapsed().as_secs_f64();
    let cost = Cost {
        wall: seconds,
        cpu: cpu_of(receiver)? - cpu,
        mib: peak_mib(&format!("/proc/{receiver}/status")).unwrap_or(f64::NAN),
    };
    let names = database
        .sql(&format!(
            "select pg_walfile_name('0/0'::pg_lsn + n * 16777216 + 1)
             from generate_series({start}::numeric / 16777216, trunc({end}::numeric / 16777216) - 1) n"
        ))
        .await?;
    stop(&mut follow, receiver).await?;
    Ok(Received {
        bytes: end - start,
        cost,
        seconds,
        tps,
        most_behind,
        behind: end - received,
        late,
        busy,
        segments: names.lines().map(str::to_owned).collect(),
    })
}

/// How far the receiver is, and the server; `None` while nobody receives.
async fn how_far(database: &Database) -> Result<Option<(f64, f64)>> {
    let told = database
        .sql(
            "select write_lsn - '0/0', pg_current_wal_flush_lsn() - '0/0' from pg_stat_replication
             where state = 'streaming' and write_lsn is not null",
        )
        .await?;
    let both = told.split_once('|');
    both.map(|(received, written)| Ok((number(received)?, number(written)?)))
        .transpose()
}

/// Up to where the receiver said that the log is durable.
async fn durable(database: &Database) -> Result<f64> {
    number(
        &database
            .sql("select coalesce(max(flush_lsn - '0/0'), 0) from pg_stat_replication")
            .await?,
    )
}

fn number(text: &str) -> Result<f64> {
    let last = text.lines().last().unwrap_or_default();
    last.parse().with_context(|| format!("`{text}` is no number"))
}

fn transactions(said: &str) -> Result<f64> {
    let line = said.lines().find_map(|line| line.strip_prefix("tps = "));
    let number = line.and_then(|line| line.split_ascii_whitespace().next());
    number
        .context("pgbench does not say its transactions")?
        .parse()
        .map_err(Into::into)
}

async fn until<F: Future<Output = Result<bool>>>(mut holds: impl FnMut() -> F) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    while !holds().await? {
        ensure!(
            Instant::now() < deadline,
            "the receiver did not come as far as the server"
        );
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Ends the receiver as a person does.
async fn stop(follow: &mut Child, receiver: u32) -> Result<()> {
    kill(Pid::from_raw(receiver.cast_signed()), Signal::SIGINT)?;
    tokio::time::timeout(LIMIT, follow.wait())
        .await
        .context("opsctl does not end")??;
    Ok(())
}
