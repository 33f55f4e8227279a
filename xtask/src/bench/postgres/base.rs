//! Base backups beside pg_basebackup, with its two kinds of checksums: the first one into a fresh repository, one more
//! after a hundredth of the pages were changed, and a restore beside a copy of the files.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use peers::servers::postgres::Release;

use super::cluster::Database;
use super::load::{Busy, Since};
use super::project::{Project, Store};
use super::{MIB, Part, disk};
use crate::bench::material::size_of;
use crate::bench::process::{Cost, cost};
use crate::bench::requirement::Requirement;
use crate::bench::rounds::median;

const ROUNDS: usize = 3;
/// What is compared with, by the argument that makes it so. Its default first.
const CHECKSUMS: [&str; 2] = ["CRC32C", "SHA256"];
/// At least so many times its speed.
const FIRST: f64 = 0.8;
/// A second backup is so many times as fast as the first.
const SECOND: f64 = 3.0;
/// A restore has so many times the speed of a copy.
const RESTORE: f64 = 0.8;
/// Room for the cluster, what is restored of it and a copy of that, or a repository of two backups, in sixteenths of the
/// cluster's size.
const ROOM: u64 = 50;

/// What something took.
#[derive(Debug, Clone, Copy)]
struct Taken {
    cost: Cost,
    busy: Busy,
}

/// What each took in one round.
#[derive(Default)]
struct Rounds {
    /// pg_basebackup with each of its checksums.
    theirs: [Vec<Taken>; 2],
    /// What the server sends, thrown away.
    alone: Vec<Taken>,
    first: Vec<Taken>,
    second: Vec<Taken>,
    restore: Vec<Taken>,
    copy: Vec<Taken>,
    /// Bytes of the repository after the first backup and after the second.
    stored: [Vec<f64>; 2],
}

/// Measures all of it with a cluster of `gib` GiB.
pub(super) async fn measure(opsctl: &Path, gib: u64) -> Result<Part> {
    let scratch = disk::scratch()?;
    let bytes = gib << 30;
    disk::has_room(scratch.path(), bytes / 16 * ROOM)?;
    let begun = tokio::time::Instant::now();
    let database = Database::filled(&scratch.path().join("cluster"), bytes).await?;
    println!("made a cluster in {:.0} s", begun.elapsed().as_secs_f64());
    let mut rounds = Rounds::default();
    for round in 0..ROUNDS {
        let steps = [0, 1, 2].map(|step| (step + round) % 3);
        let project = Project::make(
            opsctl,
            scratch.path().join(format!("project-{round}")),
            &database.url(),
            Store::Folder,
            None,
        )?;
        for step in steps {
            match step {
                0 | 1 => {
                    let copy = scratch.path().join("copy");
                    let taken = taken(&database, pg_basebackup(&database, CHECKSUMS[step], &copy)?).await?;
                    println!("round {}, pg_basebackup {}: {taken:.2?}", round + 1, CHECKSUMS[step]);
                    rounds.theirs[step].push(taken);
                    fs::remove_dir_all(copy)?;
                }
                _ => {
                    let taken = taken(&database, project.backup()).await?;
                    println!("round {}, first backup: {taken:.2?}", round + 1);
                    rounds.first.push(taken);
                    rounds.stored[0].push(size_of(&project.repository())? as f64);
                }
            }
        }
        rounds.rest(round, &database, &project, scratch.path()).await?;
    }
    let size = size_of(database.data())?;
    Ok(rounds.part(size as f64))
}

impl Rounds {
    /// The second backup, and the way back.
    async fn rest(&mut self, round: usize, database: &Database, project: &Project, scratch: &Path) -> Result<()> {
        let alone = taken(database, sent(database)?).await?;
        println!("round {}, the server alone: {alone:.2?}", round + 1);
        self.alone.push(alone);
        database.change().await?;
        let second = taken(database, project.backup()).await?;
        println!("round {}, second backup: {second:.2?}", round + 1);
        self.second.push(second);
        self.stored[1].push(size_of(&project.repository())? as f64);
        let restored = scratch.join("restored");
        disk::forget(&project.repository())?;
        let since = Since::now()?;
        let restore = Taken {
            cost: cost(project.restore(&restored)).await?,
            busy: since.busy()?,
        };
        println!("round {}, restore: {restore:.2?}", round + 1);
        self.restore.push(restore);
        fs::remove_dir_all(project.repository())?;
        // A copy of the same files: what was restored, from the disk and to the disk.
        let copy = scratch.join("copy");
        disk::forget(&restored)?;
        let since = Since::now()?;
        let copied = Taken {
            cost: cost(disk::copy(&restored, &copy)).await?,
            busy: since.busy()?,
        };
        println!("round {}, copy: {copied:.2?}", round + 1);
        self.copy.push(copied);
        fs::remove_dir_all(restored)?;
        Ok(fs::remove_dir_all(copy)?)
    }

    fn part(&self, size: f64) -> Part {
        let mut part = Part {
            method: format!(
                "A cluster of {:.1} GiB without page checksums: pgbench's tables, and as much of a table whose bytes have no \
                 pattern. {ROUNDS} rounds, medians, quotients within a round; before each backup a checkpoint, and \
                 the files are read once, as those of a cluster that fits into memory. `pg_basebackup -Fp` with its fsync, the log streamed beside it, and the \
                 manifest's checksums that stand there; opsctl into a fresh repository in a folder, which deduplicates, \
                 compresses and encrypts, and holds each file against the server's manifest of SHA-256. The second backup is \
                 taken after a row was changed in one of a hundred pages, anywhere. A restore is the whole command: files, \
                 recovery by PostgreSQL, a stopped cluster. Beside it `cp -a` and `sync` of what was restored; what both read comes from the disk. `the \
                 server alone` is what bounds every backup: its stream with SHA-256 into `/dev/null`.",
                size / MIB / 1024.0
            ),
            ..Part::default()
        };
        let wall = |taken: &Taken| taken.cost.wall;
        let quotient = |slow: &[Taken], fast: &[Taken]| {
            median(
                slow.iter()
                    .zip(fast)
                    .map(|(slow, fast)| wall(slow) / wall(fast))
                    .collect(),
            )
        };
        for (theirs, checksums) in self.theirs.iter().zip(CHECKSUMS) {
            part.required.push(Requirement::at_least(
                &format!("speed of a backup, beside pg_basebackup with {checksums}"),
                Some(quotient(theirs, &self.first)),
                FIRST,
                "times pg_basebackup's",
            ));
        }
        part.required.extend([
            Requirement::at_least(
                "speed of a second backup, a hundredth changed",
                Some(quotient(&self.first, &self.second)),
                SECOND,
                "times the first's",
            ),
            Requirement::at_least(
                "speed of a restore",
                Some(quotient(&self.copy, &self.restore)),
                RESTORE,
                "times a copy's",
            ),
        ]);
        for (theirs, checksums) in self.theirs.iter().zip(CHECKSUMS) {
            row(
                &mut part,
                "backup",
                &format!("pg_basebackup, {checksums}"),
                size,
                theirs,
            );
        }
        row(&mut part, "backup", "the server alone, SHA256", size, &self.alone);
        let stored = self.stored.each_ref().map(|stored| median(stored.clone()) / MIB);
        let first = format!("backup, {:.0} MiB stored", stored[0]);
        row(&mut part, &first, "opsctl", size, &self.first);
        let second = format!("second backup, {:.0} MiB more", stored[1] - stored[0]);
        row(&mut part, &second, "opsctl", size, &self.second);
        row(&mut part, "restore", "opsctl", size, &self.restore);
        row(&mut part, "restore", "a copy of the files", size, &self.copy);
        part
    }
}

fn row(part: &mut Part, what: &str, whose: &str, size: f64, taken: &[Taken]) {
    let of = |figure: fn(&Taken) -> f64| median(taken.iter().map(figure).collect());
    let cost = Cost {
        wall: of(|taken| taken.cost.wall),
        cpu: of(|taken| taken.cost.cpu),
        mib: of(|taken| taken.cost.mib),
    };
    let busy = Busy {
        cores: of(|taken| taken.busy.cores),
        waiting: of(|taken| taken.busy.waiting),
    };
    part.row(what, whose, size, cost, busy);
}

/// Runs a backup of files that lie in memory.
async fn taken(database: &Database, command: Command) -> Result<Taken> {
    database.checkpoint().await?;
    disk::remember(database.data())?;
    let since = Since::now()?;
    let cost = cost(command).await?;
    let busy = since.busy()?;
    Ok(Taken { cost, busy })
}

fn pg_basebackup(database: &Database, checksums: &str, into: &Path) -> Result<Command> {
    let mut command = asked(database, checksums)?;
    command.args(["-Fp", "-D"]).arg(into);
    Ok(command)
}

/// What the server sends, to where nobody takes it.
fn sent(database: &Database) -> Result<Command> {
    let mut command = asked(database, CHECKSUMS[1])?;
    command.args(["-Ft", "-X", "none", "-D", "-"]);
    Ok(command)
}

fn asked(database: &Database, checksums: &str) -> Result<Command> {
    let program = Release::default().client("pg_basebackup");
    let mut command = Command::new(program.context("PostgreSQL's programs are not there")?);
    command.args(["--checkpoint=fast", "-d", &database.url()]);
    command.arg(format!("--manifest-checksums={checksums}"));
    Ok(command)
}
