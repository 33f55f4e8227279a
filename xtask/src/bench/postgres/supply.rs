//! How fast a recovery gets the log: by `opsctl wal get` out of an S3, for a PostgreSQL that replays nothing, so that what
//! replay takes hides nothing; and for the real one, in a whole restore.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use peers::servers::postgres::Release;

use super::Part;
use super::cluster::Database;
use super::load::Since;
use super::project::{Project, Store};
use crate::bench::process::{Cost, cost};
use crate::bench::requirement::Requirement;

/// At least so many segments a second.
const RATE: f64 = 30.0;
const SEGMENT: f64 = (16 << 20) as f64;
/// How long a restore may take.
const LIMIT: Duration = Duration::from_mins(10);

pub(super) const METHOD: &str = "Then the same log out of the same S3: every segment by an `opsctl wal get` of its own, one \
     after the other as PostgreSQL asks, for a program in PostgreSQL's place that replays nothing; and a whole restore with \
     PostgreSQL, which replays all of it.";

/// Measures both. `segments` are in the archive, one behind the other.
pub(super) async fn measure(
    opsctl: &Path,
    scratch: &Path,
    database: &Database,
    store: Store<'_>,
    segments: &[String],
    part: &mut Part,
) -> Result<()> {
    ensure!(!segments.is_empty(), "pgbench did not fill one segment");
    let programs = stand_in(scratch, segments)?;
    let project = Project::make(opsctl, scratch.join("alone"), &database.url(), store, Some(&programs))?;
    let target = scratch.join("alone-restored");
    let mut restore = tokio::process::Command::from(project.restore(&target));
    let restore = restore.stdin(Stdio::null()).kill_on_drop(true).output();
    let since = Since::now()?;
    let ended = tokio::time::timeout(LIMIT, restore)
        .await
        .context("the restore does not end")??;
    let busy = since.busy()?;
    // It says that PostgreSQL ended, which is right.
    let said = String::from_utf8_lossy(&ended.stderr);
    let times = fs::read_to_string(target.join("served"));
    let times = times.with_context(|| format!("not every segment was served: {said}"))?;
    let times = times.lines().map(str::parse).collect::<Result<Vec<f64>, _>>()?;
    let [begun, done] = times[..] else {
        anyhow::bail!("not every segment was served: {said}");
    };
    fs::remove_dir_all(&target)?;
    let bytes = segments.len() as f64 * SEGMENT;
    let wall = done - begun;
    let rate = segments.len() as f64 / wall;
    println!(
        "wal get: {} segments in {wall:.2} s, {rate:.1} a second",
        segments.len()
    );
    let none = Cost {
        wall,
        cpu: f64::NAN,
        mib: f64::NAN,
    };
    part.row(
        &format!("{} segments, one after the other", segments.len()),
        "opsctl wal get",
        bytes,
        none,
        busy,
    );
    part.required.push(Requirement::at_least(
        "`wal get` from S3 at 20 ms",
        Some(rate),
        RATE,
        "segments a second",
    ));

    let project = Project::make(opsctl, scratch.join("whole"), &database.url(), store, None)?;
    let target = scratch.join("whole-restored");
    let since = Since::now()?;
    let whole = cost(project.restore(&target)).await?;
    println!("restore with recovery: {whole:.2?}");
    part.row(
        "restore and replay of that log",
        "opsctl and PostgreSQL",
        bytes,
        whole,
        since.busy()?,
    );
    Ok(fs::remove_dir_all(&target)?)
}

/// Programs of PostgreSQL of which `postgres` only asks for these segments, and then writes down when it began and when
/// it had the last one.
fn stand_in(scratch: &Path, segments: &[String]) -> Result<std::path::PathBuf> {
    let programs = scratch.join("programs");
    fs::create_dir(&programs)?;
    symlink(
        Release::default()
            .programs()
            .context("PostgreSQL is not installed")?
            .join("pg_controldata"),
        programs.join("pg_controldata"),
    )?;
    let names = scratch.join("segments");
    fs::write(&names, segments.join("\n") + "\n")?;
    let real = Release::default()
        .programs()
        .context("PostgreSQL is not installed")?
        .join("postgres");
    let script = format!(
        "#!/bin/sh\n\
         if [ \"$1\" = --version ]; then exec {real} --version; fi\n\
         for argument; do\n\
         case \"$argument\" in restore_command=*) ask=${{argument#restore_command=}};; esac\n\
         case \"$before\" in -D) data=$argument;; esac\n\
         before=$argument\n\
         done\n\
         # As PostgreSQL replaces them, once for all.\n\
         ask=$(printf '%s' \"$ask\" | sed 's|%f|$name|g; s|%p|$to|g')\n\
         export name to=$data/pg_wal/RECOVERYXLOG\n\
         begun=$(date +%s.%N)\n\
         # It frees the name before each.\n\
         while read -r name; do rm -f \"$to\"; sh -c \"$ask\" || exit 3; done < {names}\n\
         done=$(date +%s.%N)\n\
         printf '%s\\n%s\\n' \"$begun\" \"$done\" > \"$data/served\"\n\
         exit 1\n",
        real = real.display(),
        names = names.display(),
    );
    let program = programs.join("postgres");
    fs::write(&program, script)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok(programs)
}
