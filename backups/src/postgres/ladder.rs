//! What PostgreSQL itself can say of a restored cluster, step by step, each with what came of it: passed, failed with
//! what, or not run with why. A step that could not be made is never taken for one that passed.
//!
//! The first two steps are made where the copy is restored and where the repository is checked; the caller hands in what
//! came of them. The others are made here, in the order that the copy allows: files against the manifest while nothing has
//! touched them, then a server that recovers, then everything that asks it, and last the checksums of all pages, once it
//! has stopped.

use std::ffi::OsString;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use async_trait::async_trait;
use replication::Lsn;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::guard::{Guarded, Line, Task};
use super::scratch::{Reached, ScratchError, ScratchOptions, ScratchServer};
use crate::Error;
use crate::error::chain;
use crate::proof::{Assertion, Canary, Check, Group, Live, Outcome, Subject, Value};

/// How long is waited for the end of a server after something failed, which may be why.
const GOES_WITHIN: Duration = Duration::from_millis(500);
/// So much of what a program said is told.
const TOLD: usize = 2000;

/// The steps, in the order of their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Every file against the manifest's SHA-256 while it was written.
    Manifest,
    /// The repository's own check.
    Repository,
    /// `pg_verifybackup` on the files as they came back.
    Files,
    /// A server starts and replays the log up to the target.
    Recovery,
    /// `pg_checksums --check` on the stopped copy.
    Checksums,
    /// `pg_amcheck --heapallindexed` of every database.
    Indexes,
    /// `pg_dump` of every database, and of what belongs to none, to nowhere.
    Dump,
    /// What the catalogue asserts.
    Questions,
}

impl Step {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Manifest,
        Self::Repository,
        Self::Files,
        Self::Recovery,
        Self::Checksums,
        Self::Indexes,
        Self::Dump,
        Self::Questions,
    ];

    /// In words, for reports and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Repository => "repository",
            Self::Files => "pg_verifybackup",
            Self::Recovery => "recovery",
            Self::Checksums => "pg_checksums",
            Self::Indexes => "pg_amcheck",
            Self::Dump => "pg_dump",
            Self::Questions => "assertions",
        }
    }

    fn expected(self) -> &'static str {
        match self {
            Self::Manifest => "every file as the manifest says",
            Self::Repository => "nothing damaged",
            Self::Files => "every file as it was saved",
            Self::Recovery => "the target is reached",
            Self::Checksums => "every page as its checksum says",
            Self::Indexes => "tables are sound, and indexes hold every row",
            Self::Dump => "every row can be read",
            Self::Questions => "everything asserted holds",
        }
    }
}

/// What came of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome", content = "told")]
pub enum Came {
    /// It held; with what was looked at.
    Passed(String),
    /// It did not; with what is wrong.
    Failed(String),
    /// It was not made; with why.
    NotRun(String),
}

impl fmt::Display for Came {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed(told) => write!(f, "passed: {told}"),
            Self::Failed(told) => write!(f, "failed: {told}"),
            Self::NotRun(told) => write!(f, "not run: {told}"),
        }
    }
}

/// One step and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rung {
    /// Which one.
    pub step: Step,
    /// What came of it.
    pub came: Came,
    /// How long it took.
    pub took: Duration,
}

impl Rung {
    /// As it stands in the record of a drill.
    pub fn check(&self) -> Check {
        let (observed, outcome) = match &self.came {
            Came::Passed(told) => (told.clone(), Outcome::Met),
            Came::Failed(told) => (told.clone(), Outcome::NotMet),
            Came::NotRun(told) => (told.clone(), Outcome::Skipped),
        };
        Check {
            group: match self.step {
                Step::Manifest | Step::Recovery => Group::Restore,
                Step::Questions => Group::Assertion,
                _ => Group::Source,
            },
            name: self.step.name().to_owned(),
            expected: self.step.expected().to_owned(),
            observed,
            figure: None,
            outcome,
        }
    }
}

/// What to climb with.
#[derive(Debug, Clone)]
pub struct LadderOptions {
    /// The copy, and how it recovers. The programs of the other steps are looked for in the same folder; a step whose program is
    /// missing is not run.
    pub scratch: ScratchOptions,
    /// The positions up to which it must have replayed the log: one of them.
    pub target: Option<RangeInclusive<Lsn>>,
    /// What came of the restore's own comparison with the manifest.
    pub manifest: Came,
    /// What came of the repository's check.
    pub repository: Came,
    /// What the catalogue asserts.
    pub assertions: Vec<Assertion>,
    /// What tells the time of the newest row.
    pub canary: Option<Canary>,
    /// The database that is asked where none is named, if not the only one besides `postgres`.
    pub asked: Option<String>,
    /// How long one query may take.
    pub query_limit: Duration,
    /// How many relations are looked through at one time.
    pub jobs: u32,
}

/// How far it was climbed.
#[derive(Debug, Clone, PartialEq)]
pub struct Ladder {
    /// Every step, in the order of their numbers.
    pub rungs: Vec<Rung>,
    /// The answers to the questions.
    pub checks: Vec<Check>,
    /// What the canary's query answered, or why it did not; absent where there is none or nobody could be asked.
    pub newest: Option<Result<Value, String>>,
    /// How far the copy came; absent when it did not start.
    pub reached: Option<Reached>,
    /// From the server's start until its first answer: what recovery adds to the time of the restore.
    pub recovered_in: Option<Duration>,
    /// The server's version.
    pub version: Option<String>,
    /// Libraries that the cluster loads and that are not installed here.
    pub missing_libraries: Vec<String>,
}

impl Ladder {
    /// What came of a step.
    pub fn came(&self, step: Step) -> Option<&Came> {
        self.rungs.iter().find(|rung| rung.step == step).map(|rung| &rung.came)
    }

    /// Whether no step failed and no answer was wrong. Steps that were not run count neither way.
    pub fn holds(&self) -> bool {
        let failed = self.rungs.iter().any(|rung| matches!(rung.came, Came::Failed(_)));
        !failed && self.checks.iter().all(|check| check.outcome != Outcome::NotMet)
    }

    fn put(&mut self, step: Step, came: Came, since: Instant) {
        let took = since.elapsed();
        self.rungs.push(Rung { step, came, took });
        self.rungs.sort_by_key(|rung| rung.step);
    }

    /// Fills up with steps that cannot be made any more.
    fn fill(mut self, why: &str) -> Self {
        for step in Step::ALL {
            if self.came(step).is_none() {
                self.put(step, Came::NotRun(why.to_owned()), Instant::now());
            }
        }
        self
    }
}

/// Climbs it. What is wrong with the copy is in the answer, a server that gives up included. `tell` hears which step is made.
///
/// Errors: [`ScratchError`] when nothing can be said of the copy: no programs, no user to run them as, cancelled.
pub async fn climb(
    options: &LadderOptions,
    tell: &(dyn Fn(Step) + Send + Sync),
    cancel: &CancellationToken,
) -> Result<Ladder, ScratchError> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(ScratchError::Cancelled),
        ladder = up(options, tell, cancel) => ladder,
    }
}

async fn up(
    options: &LadderOptions,
    tell: &(dyn Fn(Step) + Send + Sync),
    cancel: &CancellationToken,
) -> Result<Ladder, ScratchError> {
    let began = Instant::now();
    let mut ladder = Ladder {
        rungs: Vec::new(),
        checks: Vec::new(),
        newest: None,
        reached: None,
        recovered_in: None,
        version: None,
        missing_libraries: Vec::new(),
    };
    ladder.put(Step::Manifest, options.manifest.clone(), began);
    ladder.put(Step::Repository, options.repository.clone(), began);
    tell(Step::Files);
    let files = files(&options.scratch).await?;
    ladder.put(Step::Files, files, began);

    tell(Step::Recovery);
    let began = Instant::now();
    let mut server = match Box::pin(ScratchServer::start(&options.scratch, cancel)).await {
        Ok(server) => server,
        Err(ScratchError::Ended { problem, log }) => {
            ladder.put(Step::Recovery, Came::Failed(told_of(&problem, &log)), began);
            return Ok(ladder.fill("the server did not start"));
        }
        Err(error) => return Err(error),
    };
    ladder.missing_libraries = server.missing_libraries().to_vec();
    let started = first_answer(&server, options.target.as_ref()).await;
    ladder.recovered_in = Some(began.elapsed());
    match started {
        Ok((came, reached, version)) => {
            ladder.put(Step::Recovery, came, began);
            (ladder.reached, ladder.version) = (Some(reached), Some(version));
        }
        Err(error) => {
            let came = Came::Failed(chain(&error));
            let came = died(&mut server, &came).await.map_or(came, Came::Failed);
            ladder.put(Step::Recovery, came, began);
            return Ok(ladder.fill("the server did not answer"));
        }
    }

    for step in [Step::Questions, Step::Indexes, Step::Dump] {
        tell(step);
        let began = Instant::now();
        let came = match step {
            Step::Questions => questions(&server, options, &mut ladder).await,
            Step::Indexes => indexes(&server, options.jobs).await,
            _ => dump(&server).await,
        };
        let came = came.unwrap_or_else(|error| Came::Failed(chain(&error)));
        if let Some(problem) = died(&mut server, &came).await {
            ladder.put(
                step,
                Came::Failed(format!("the server ended meanwhile: {problem}")),
                began,
            );
            return Ok(ladder.fill("the server had ended"));
        }
        ladder.put(step, came, began);
    }
    tell(Step::Checksums);
    let began = Instant::now();
    let came = checksums(server)
        .await
        .unwrap_or_else(|error| Came::Failed(chain(&error)));
    ladder.put(Step::Checksums, came, began);
    Ok(ladder)
}

/// Why the server is not there any more, if it is not. Who was killed may be on the way out yet.
async fn died(server: &mut ScratchServer, came: &Came) -> Option<String> {
    let within = if matches!(came, Came::Failed(_)) {
        GOES_WITHIN
    } else {
        Duration::ZERO
    };
    server.has_ended(within).await.map(|error| match error {
        ScratchError::Ended { problem, log } => told_of(&problem, &log),
        error => chain(&error),
    })
}

/// A complaint with the end of the log that it stands in.
fn told_of(problem: &str, log: &str) -> String {
    let last: Vec<&str> = log
        .lines()
        .rev()
        .filter(|line| !line.trim().is_empty())
        .take(5)
        .collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    shortened(&format!("{problem}; its log ends:\n{}", last.join("\n")))
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(TOLD) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// The files as they came back, before anything touches them.
async fn files(scratch: &ScratchOptions) -> Result<Came, ScratchError> {
    let not_run = |why: &str| Ok(Came::NotRun(why.to_owned()));
    if !scratch.data.join("backup_manifest").is_file() {
        return not_run("the base backup has no manifest");
    }
    if !scratch.data.join("backup_label").is_file() {
        return not_run("a server has run over the copy already");
    }
    let task = Task {
        program: scratch.programs.join("pg_verifybackup"),
        // The log comes from the archive, not from the base backup.
        arguments: vec![OsString::from("--no-parse-wal"), scratch.data.clone().into()],
        variables: Vec::new(),
        user: None,
        silent: false,
        removed: None,
    };
    let ran = run(&task, of_tool).await?;
    Ok(ran.map_or_else(|why| why, |ran| ran.came("every file is as the manifest says")))
}

/// Whether the target was reached, how far it came, and the server's version.
async fn first_answer(
    server: &ScratchServer,
    target: Option<&RangeInclusive<Lsn>>,
) -> Result<(Came, Reached, String), ScratchError> {
    let reached = server.reached().await?;
    let what = "its version";
    let client = server.connect("template1").await?;
    let row = client.query_one("SHOW server_version", &[]).await;
    let version = row
        .and_then(|row| row.try_get(0))
        .map_err(|source| ScratchError::Ask { what, source })?;
    let position = reached.position;
    let came = match target {
        Some(target) if !target.contains(&position) => Came::Failed(format!(
            "it recovered up to {position}, and is on timeline {}; {} was wanted",
            reached.timeline,
            if position < *target.start() {
                target.start()
            } else {
                target.end()
            }
        )),
        _ => Came::Passed(format!(
            "it recovered up to {position}, and is on timeline {}",
            reached.timeline
        )),
    };
    Ok((came, reached, version))
}

/// The server as something that is asked.
struct Door {
    server: tokio_postgres::Config,
    /// The database that is meant where none is named.
    asked: Option<String>,
    version: String,
}

#[async_trait]
impl Live for Door {
    fn address(&self, database: Option<&str>) -> Result<tokio_postgres::Config, String> {
        let mut address = self.server.clone();
        let Some(database) = database.or(self.asked.as_deref()) else {
            return Err("there are several databases: say which one is asked with `database`".to_owned());
        };
        address.dbname(database);
        Ok(address)
    }

    fn version(&self) -> String {
        self.version.clone()
    }

    async fn stop(self: Box<Self>) -> Result<(), Error> {
        Ok(())
    }
}

/// The only database that is not PostgreSQL's own; that of its user where there is no other.
pub(crate) fn only(databases: Vec<String>) -> Option<String> {
    let (own, others): (Vec<_>, Vec<_>) = databases
        .into_iter()
        .filter(|name| !matches!(name.as_str(), "template0" | "template1"))
        .partition(|name| name == "postgres");
    match others.as_slice() {
        [] => own.into_iter().next(),
        [only] => Some(only.clone()),
        _ => None,
    }
}

/// The runtime is going down.
fn not_asked(_: Error) -> ScratchError {
    ScratchError::Cancelled
}

async fn questions(server: &ScratchServer, options: &LadderOptions, ladder: &mut Ladder) -> Result<Came, ScratchError> {
    let asked = match &options.asked {
        Some(asked) => Some(asked.clone()),
        None => only(server.databases().await?),
    };
    let door = Door {
        server: server.address("template1"),
        asked,
        version: ladder.version.clone().unwrap_or_default(),
    };
    let mut subject = Subject::of_server(server.data().to_owned(), Box::new(door), options.query_limit);
    if let Some(canary) = &options.canary {
        ladder.newest = Some(subject.newest(canary).await.map_err(not_asked)?);
    }
    for assertion in &options.assertions {
        ladder.checks.extend(subject.check(assertion).await.map_err(not_asked)?);
    }
    let wrong: Vec<&Check> = ladder
        .checks
        .iter()
        .filter(|check| check.outcome == Outcome::NotMet)
        .collect();
    let unknown = ladder
        .checks
        .iter()
        .filter(|check| check.outcome == Outcome::Unknown)
        .count();
    Ok(match (wrong.first(), ladder.checks.len()) {
        (Some(first), _) => Came::Failed(format!(
            "{} of {} do not hold, the first is {:?}: {} was expected, and it is {}",
            wrong.len(),
            ladder.checks.len(),
            first.name,
            first.expected,
            first.observed
        )),
        (None, 0) => Came::NotRun("nothing is asserted".to_owned()),
        (None, count) if unknown > 0 => Came::NotRun(format!("{unknown} of {count} had no answer in time")),
        (None, 1) => Came::Passed("1 answer is as expected".to_owned()),
        (None, count) => Came::Passed(format!("{count} answers are as expected")),
    })
}

async fn indexes(server: &ScratchServer, jobs: u32) -> Result<Came, ScratchError> {
    let not_run = |why: String| Ok(Came::NotRun(why));
    let client = server.connect("template1").await?;
    let what = "whether it has amcheck";
    let there = client
        .query_one(
            "SELECT pg_is_in_recovery(), EXISTS (SELECT FROM pg_catalog.pg_available_extensions WHERE name = 'amcheck')",
            &[],
        )
        .await
        .and_then(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
    match there.map_err(|source| ScratchError::Ask { what, source })? {
        (true, _) => return not_run("the copy is paused at its target, and can only be read".to_owned()),
        (_, false) => return not_run("the extension amcheck is not installed here".to_owned()),
        (false, true) => {}
    }
    let jobs = format!("--jobs={}", jobs.max(1));
    let words = [
        "--all",
        "--heapallindexed",
        "--install-missing",
        "--verbose",
        "--no-password",
        &jobs,
    ];
    let ran = match run(&server.task("pg_amcheck", &words, None), of_amcheck).await? {
        Ok(ran) => ran,
        Err(why) => return Ok(why),
    };
    if ran.status.success() && ran.counted == 0 {
        return not_run("pg_amcheck looked at no relation".to_owned());
    }
    let came = ran.came(&format!("{} tables and indexes are sound", ran.counted));
    // An index of text is in the order of a collation, and another machine may have another version of it.
    let other = match &came {
        Came::Failed(_) => other_collations(&client).await.unwrap_or_default(),
        _ => Vec::new(),
    };
    Ok(match came {
        Came::Failed(told) if !other.is_empty() => Came::Failed(format!(
            "the collations of {} have another version here, so indexes of text may be sound where they come from: {told}",
            other.join(", ")
        )),
        came => came,
    })
}

/// The databases whose collation had another version where they were made. Not known before PostgreSQL 15.
async fn other_collations(client: &tokio_postgres::Client) -> Result<Vec<String>, tokio_postgres::Error> {
    let rows = client
        .query(
            "SELECT datname FROM pg_catalog.pg_database
             WHERE datcollversion <> pg_database_collation_actual_version(oid) ORDER BY datname",
            &[],
        )
        .await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

async fn dump(server: &ScratchServer) -> Result<Came, ScratchError> {
    let databases = server.databases().await?;
    let mut wrong = Vec::new();
    for database in &databases {
        let mut task = server.task("pg_dump", &["--no-password"], Some(database));
        task.silent = true;
        match run(&task, of_tool).await? {
            Ok(ran) if ran.status.success() => {}
            Ok(ran) => wrong.push(format!("{database:?}: {}", ran.problem())),
            Err(why) => return Ok(why),
        }
    }
    let mut task = server.task("pg_dumpall", &["--globals-only", "--no-password"], None);
    task.silent = true;
    match run(&task, of_tool).await? {
        Ok(ran) if ran.status.success() => {}
        Ok(ran) => wrong.push(format!("roles and tablespaces: {}", ran.problem())),
        Err(why) => return Ok(why),
    }
    Ok(if wrong.is_empty() {
        Came::Passed(format!("{} databases can be read to their end", databases.len()))
    } else {
        Came::Failed(shortened(&wrong.join("\n")))
    })
}

/// Ends the server, and looks at every page.
async fn checksums(server: ScratchServer) -> Result<Came, ScratchError> {
    let what = "whether it has checksums";
    let client = server.connect("template1").await?;
    let row = client.query_one("SHOW data_checksums", &[]).await;
    let has: String = row
        .and_then(|row| row.try_get(0))
        .map_err(|source| ScratchError::Ask { what, source })?;
    drop(client);
    let data = server.data().display().to_string();
    let task = server.task("pg_checksums", &["--check", "--pgdata", &data], None);
    server.stop().await?;
    if has != "on" {
        return Ok(Came::NotRun("the cluster has no checksums".to_owned()));
    }
    Ok(run(&task, of_tool)
        .await?
        .map_or_else(|why| why, |ran| ran.came("every page is as its checksum says")))
}

/// How a program ended.
struct Ran {
    status: std::process::ExitStatus,
    marked: Vec<String>,
    said: String,
    counted: u64,
}

impl Ran {
    fn came(&self, sound: &str) -> Came {
        if self.status.success() {
            Came::Passed(sound.to_owned())
        } else {
            Came::Failed(self.problem())
        }
    }

    fn problem(&self) -> String {
        let told = if self.marked.is_empty() {
            self.said.clone()
        } else {
            self.marked.join("\n")
        };
        if told.is_empty() {
            format!("it ended with {}", self.status)
        } else {
            shortened(&told)
        }
    }
}

/// Runs a program to its end. A program that is not there is a step that is not run.
async fn run(task: &Task, judge: fn(&str) -> Line) -> Result<Result<Ran, Came>, ScratchError> {
    if !task.program.exists() {
        let (folder, name) = (task.program.parent(), task.program.file_name().unwrap_or_default());
        let folder = folder.unwrap_or(&task.program).display();
        return Ok(Err(Came::NotRun(format!("there is no {} in {folder}", name.display()))));
    }
    let failed = |source| ScratchError::Run {
        program: task.program.clone(),
        source,
    };
    let mut process = Guarded::start(task, judge).map_err(failed)?;
    let status = process.ended().await.map_err(failed)?;
    Ok(Ok(Ran {
        status,
        marked: process.marked(),
        said: process.said(),
        counted: process.counted(),
    }))
}

fn of_tool(line: &str) -> Line {
    let complains = ["error:", "fatal:", "detail:"].iter().any(|word| line.contains(word));
    if complains { Line::Marked } else { Line::Plain }
}

/// `pg_amcheck: checking heap table "shop.public.orders"`, and what is wrong as `heap table "shop.public.orders", block 0:`
/// with the complaint in the next line.
fn of_amcheck(line: &str) -> Line {
    if line.contains("checking heap table") || line.contains("checking btree index") {
        return Line::Counted;
    }
    let names = line.starts_with("heap table ") || line.starts_with("btree index ");
    if names || line.starts_with("    ") {
        Line::Marked
    } else {
        of_tool(line)
    }
}
