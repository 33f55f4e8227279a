//! What `opsctl schedule` does with the schedules that are declared: remembers how their jobs ended, runs them, tells who
//! waits to hear of it. When they are due is decided in `backups::schedule`.

mod metrics;
mod ping;
mod record;
pub(crate) mod staying;
mod work;

use crate::config::{Cleanup, Config, Job, Schedule, suggestion};
use crate::error::Failure;

pub(crate) use record::{Last, Records};
pub(crate) use work::{Ran, Work};

/// The schedule, or the cleanup without one, that a word means.
pub(crate) enum Named<'a> {
    /// A schedule.
    Schedule(&'a Schedule),
    /// A cleanup that runs only when somebody asks.
    Cleanup(&'a Cleanup),
}

impl Named<'_> {
    /// The full name.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Schedule(schedule) => schedule.name.clone(),
            Self::Cleanup(cleanup) => format!("cleanup:{}", cleanup.name),
        }
    }
}

/// Finds a schedule by its name; `cleanup:` and `backup:` may be left out where that is clear.
pub(crate) fn find<'a>(config: &'a Config, word: &str) -> Result<Named<'a>, Failure> {
    let full = [word.to_owned(), format!("cleanup:{word}"), format!("backup:{word}")];
    if let Some(found) = full.iter().find_map(|name| config.schedules.get(name)) {
        return Ok(Named::Schedule(found));
    }
    let cleanup = word.strip_prefix("cleanup:").unwrap_or(word);
    if let Some(cleanup) = config.cleanups.get(cleanup) {
        return Ok(Named::Cleanup(cleanup));
    }
    let mut known: Vec<String> = config.schedules.keys().cloned().collect();
    known.extend(config.cleanups.keys().map(|name| format!("cleanup:{name}")));
    known.sort();
    known.dedup();
    let failure = Failure::usage("unknown_schedule", format!("there is no schedule `{word}`"));
    if known.is_empty() {
        return Err(failure
            .cause("opsctl.toml declares none")
            .help("a datastore has `backup = { schedule = \"0 2 * * *\" }`, other jobs are `[schedule.NAME]`"));
    }
    let failure = failure.cause(format!("declared are {}", known.join(", ")));
    Err(match suggestion(word, known.iter().map(String::as_str)) {
        Some(near) => failure.help(format!("did you mean `{near}`?")),
        None => failure,
    })
}

/// The cleanup that a schedule runs.
pub(crate) fn cleanup_of<'a>(config: &'a Config, schedule: &Schedule) -> Option<&'a Cleanup> {
    (schedule.job == Job::Cleanup)
        .then(|| config.cleanups.get(schedule.target.as_deref()?))
        .flatten()
}

/// What a schedule runs, in words: `backup orders-db`.
pub(crate) fn what(schedule: &Schedule) -> String {
    match &schedule.target {
        Some(target) => format!("{} {target}", schedule.job.word()),
        None => schedule.job.word().to_owned(),
    }
}
