//! `[schedule.NAME]`, the schedules of `backup = { … }` and of `[cleanup.NAME]`: when a job runs, and which. Read and
//! checked; who runs them is `opsctl schedule`.

mod cleanup;
mod condition;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use backups::schedule::{Expression, QuietHours, Timing, zone};
use jiff::tz::TimeZone;

use super::document::{Node, Origin, Table};
use super::environment;
use super::finding::Findings;
use super::model::Datastore;
use super::read::{check_name, exists};
use super::secret::SecretSource;
use super::section::Section;
use super::suggest::suggestion;
use super::values::{FromNode, Span, quoted};

pub(crate) use cleanup::{Call, CallTo, Cleanup, Cutoff, CutoffKind, What};
pub(crate) use condition::{columns_of, filled};

/// A job and when it runs.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    /// Its name: of the table, or `backup:DATASTORE`, or `cleanup:NAME`.
    pub(crate) name: String,
    /// Where it is declared.
    pub(crate) origin: Origin,
    /// What runs.
    pub(crate) job: Job,
    /// On what; what that may be depends on the job.
    pub(crate) target: Option<String>,
    /// Further arguments of the job's command.
    pub(crate) args: Vec<String>,
    /// When.
    pub(crate) timing: Timing,
    /// Told that it ran, so that somebody notices when it did not.
    pub(crate) ping: Option<Ping>,
    /// Whether it runs by itself.
    pub(crate) enabled: bool,
}

/// Who is told when a job begins and how it ended: a check of healthchecks.io, or anything that takes its addresses.
#[derive(Debug, Clone)]
pub(crate) struct Ping {
    /// Its address, which is its secret.
    pub(crate) url: SecretSource,
    /// By POST with a line about the run, else by GET.
    pub(crate) post: bool,
}

/// What can be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Job {
    /// `opsctl backup`.
    Backup,
    /// `opsctl drill restore`.
    RestoreDrill,
    /// `opsctl repository forget`.
    Forget,
    /// `opsctl repository prune`.
    Prune,
    /// `opsctl repository check`.
    Check,
    /// `opsctl repository copy`.
    Copy,
    /// A job of `[cleanup.NAME]`, which runs in the process of the schedule.
    Cleanup,
}

impl Job {
    /// Every job, as written in the file.
    pub(crate) const ALL: [(&'static str, Self); 7] = [
        ("backup", Self::Backup),
        ("restore-drill", Self::RestoreDrill),
        ("forget", Self::Forget),
        ("prune", Self::Prune),
        ("check", Self::Check),
        ("copy", Self::Copy),
        ("cleanup", Self::Cleanup),
    ];

    /// The job as written in the file.
    pub(crate) fn word(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, job)| *job == self)
            .map_or("", |(word, _)| word)
    }

    /// The command that does it.
    pub(crate) fn command(self) -> &'static [&'static str] {
        match self {
            Self::Backup => &["backup"],
            Self::RestoreDrill => &["drill", "restore"],
            Self::Forget => &["repository", "forget"],
            Self::Prune => &["repository", "prune"],
            Self::Check => &["repository", "check"],
            Self::Copy => &["repository", "copy"],
            Self::Cleanup => &["schedule", "run"],
        }
    }

    /// Whether it deletes, so that a protected environment asks when it is begun by hand.
    pub(crate) fn asks(self) -> bool {
        matches!(self, Self::Forget | Self::Prune)
    }
}

/// What is read of schedules.
#[derive(Debug, Clone, Default)]
pub(super) struct Read {
    pub(super) schedules: BTreeMap<String, Schedule>,
    pub(super) cleanups: BTreeMap<String, Cleanup>,
}

/// Reads `[schedule.…]` and `[cleanup.…]`, and adds the schedules of datastores.
pub(super) fn read(
    (root, table): (&Section<'_>, &Table),
    environment: (&str, &[String]),
    datastores: &BTreeMap<String, Datastore>,
    services: &BTreeSet<String>,
) -> Read {
    let findings = root.findings();
    root.skip("cleanup");
    root.skip("schedule");
    let mut read = Read::default();
    for (name, node) in environment::layered(table, "cleanup", environment.0, environment.1, findings) {
        check_name(&name, "cleanup", &node.origin, findings);
        let section = Section::new(
            environment::table_of(&node),
            format!("cleanup.{name}"),
            &node.origin,
            findings,
        );
        let full = format!("cleanup:{name}");
        if let Some(when) = when(&full, &section, "schedule") {
            let schedule = when.schedule(full.clone(), Job::Cleanup, Some(name.clone()));
            read.schedules.insert(full, schedule);
        }
        if let Some(cleanup) = cleanup::read(&name, &section, datastores, services) {
            read.cleanups.insert(name, cleanup);
        }
        section.skip("env");
        section.finish();
    }
    for (name, node) in environment::layered(table, "schedule", environment.0, environment.1, findings) {
        check_name(&name, "schedule", &node.origin, findings);
        let section = Section::new(
            environment::table_of(&node),
            format!("schedule.{name}"),
            &node.origin,
            findings,
        );
        if let Some(schedule) = declared(&name, &section, datastores, services, &read.cleanups) {
            read.schedules.insert(name, schedule);
        }
        section.skip("env");
        section.finish();
    }
    for datastore in datastores.values() {
        if let Some(schedule) = &datastore.schedule {
            read.schedules.insert(schedule.name.clone(), schedule.clone());
        }
    }
    read
}

fn declared(
    name: &str,
    section: &Section<'_>,
    datastores: &BTreeMap<String, Datastore>,
    services: &BTreeSet<String>,
    cleanups: &BTreeMap<String, Cleanup>,
) -> Option<Schedule> {
    let job: Option<String> = section.required("job");
    let job = job.and_then(|word| {
        let job = Job::ALL.iter().find(|(known, _)| *known == word).map(|(_, job)| *job);
        if job.is_none() {
            let near = suggestion(&word, Job::ALL.iter().map(|(word, _)| *word));
            let help = near.map_or_else(
                || format!("known are {}", Job::ALL.map(|(word, _)| word).join(", ")),
                |near| format!("did you mean `{near}`?"),
            );
            let told = format!("`{word}` is no job, {help}");
            section.findings().error(section.place("job"), told);
        }
        job
    });
    let target: Option<String> = section.optional("target");
    let args: Vec<String> = section.optional("args").unwrap_or_default();
    let when = when(name, section, "cron");
    if when.is_none() && !section.has("cron") {
        let told = format!("`schedule.{name}` needs `cron`, such as \"0 2 * * *\" or \"@daily\"");
        section.findings().error(section.origin(), told);
    }
    let job = job?;
    let place = section.place("target");
    let who = format!("schedule `{name}` is for");
    match (job, &target) {
        (Job::Backup | Job::RestoreDrill, Some(target)) => {
            let known = datastores.keys().chain(services).map(String::as_str);
            exists(target, known, "datastore or service", &who, place, section.findings());
        }
        (Job::Cleanup, Some(target)) => {
            let known = cleanups.keys().map(String::as_str);
            exists(target, known, "cleanup", &who, place, section.findings());
        }
        (Job::Cleanup, None) => {
            let told = format!("`schedule.{name}` needs `target`, a `[cleanup.NAME]`");
            section.findings().error(section.origin(), told);
        }
        (Job::Forget | Job::Prune | Job::Check | Job::Copy, Some(_)) => {
            let told = format!(
                "job `{}` works on the environment's repository and takes no target: its options stand in `args`",
                job.word()
            );
            section.findings().error(place, told);
        }
        (_, None) => {}
    }
    let mut schedule = when?.schedule(name.to_owned(), job, target);
    schedule.args = args;
    Some(schedule)
}

/// The schedule of `backup = { schedule = … }` of a datastore.
pub(super) fn of_backup(store: &str, backup: &Section<'_>) -> Option<Schedule> {
    let name = format!("backup:{store}");
    let when = when(&name, backup, "schedule")?;
    Some(when.schedule(name, Job::Backup, Some(store.to_owned())))
}

struct When {
    timing: Timing,
    ping: Option<Ping>,
    enabled: bool,
    origin: Origin,
}

impl When {
    fn schedule(self, name: String, job: Job, target: Option<String>) -> Schedule {
        Schedule {
            name,
            origin: self.origin,
            job,
            target,
            args: Vec::new(),
            timing: self.timing,
            ping: self.ping,
            enabled: self.enabled,
        }
    }
}

/// The keys that every schedule has; `None` without an expression.
fn when(name: &str, section: &Section<'_>, key: &'static str) -> Option<When> {
    let expression: Option<Cron> = section.optional(key);
    let zone: Option<Zone> = section.optional("timezone");
    let jitter: Option<Span> = section.optional("jitter");
    let quiet: Vec<QuietHours> = section
        .optional::<Vec<Quiet>>("quiet_hours")
        .unwrap_or_default()
        .into_iter()
        .map(|quiet| quiet.0)
        .collect();
    let ping = ping(section);
    let enabled = section.optional("enabled").unwrap_or(true);
    if let Err(error) = Timing::check_quiet(&quiet) {
        section
            .findings()
            .error(section.place("quiet_hours"), error.to_string());
    }
    Some(When {
        timing: Timing {
            name: name.to_owned(),
            expression: expression?.0,
            zone: zone.map_or(TimeZone::UTC, |zone| zone.0),
            jitter: jitter.map_or(Duration::ZERO, |span| span.0),
            quiet,
        },
        ping,
        enabled,
        origin: section.place(key).clone(),
    })
}

/// `ping = { file = "…" }`, or with `url` and `method`.
fn ping(section: &Section<'_>) -> Option<Ping> {
    let with_url = matches!(section.table_or_value("ping")?, Ok(table) if table.has("url"));
    if !with_url {
        let url = section.optional("ping")?;
        return Some(Ping { url, post: false });
    }
    let table = section.section("ping")?;
    let url = table.required("url");
    let method = table.or("method", "GET".to_owned());
    if !["GET", "POST"].contains(&method.as_str()) {
        let told = format!("`{method}` is no way to ping: expected GET or POST");
        table.findings().error(table.place("method"), told);
    }
    table.finish();
    Some(Ping {
        url: url?,
        post: method == "POST",
    })
}

struct Cron(Expression);

impl FromNode for Cron {
    fn from_node(node: &Node, findings: &Findings) -> Option<Self> {
        let text = String::from_node(node, findings)?;
        text.parse()
            .map(Self)
            .map_err(|error| findings.error(&node.origin, format!("`{text}` is no schedule: {error}")))
            .ok()
    }
    fn shown(&self) -> String {
        quoted(&self.0.to_string())
    }
}

struct Zone(TimeZone);

impl FromNode for Zone {
    fn from_node(node: &Node, findings: &Findings) -> Option<Self> {
        let text = String::from_node(node, findings)?;
        let found = zone(&text);
        if found.is_none() {
            let names: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
            let help = suggestion(&text, names.iter().map(String::as_str)).map_or_else(
                || "expected for example \"Europe/Berlin\"".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            findings.error(&node.origin, format!("`{text}` is no time zone, {help}"));
        }
        found.map(Self)
    }
    fn shown(&self) -> String {
        quoted(self.0.iana_name().unwrap_or("UTC"))
    }
}

struct Quiet(QuietHours);

impl FromNode for Quiet {
    fn from_node(node: &Node, findings: &Findings) -> Option<Self> {
        let text = String::from_node(node, findings)?;
        text.parse()
            .map(Self)
            .map_err(|error: backups::schedule::QuietError| findings.error(&node.origin, error.to_string()))
            .ok()
    }
    fn shown(&self) -> String {
        quoted(&self.0.to_string())
    }
}
