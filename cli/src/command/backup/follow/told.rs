//! What is told of following: the line on a terminal, warnings once each, and the stream of events under `--json`.

use std::mem::discriminant;
use std::time::Duration;

use backups::pitr::postgres::receiver::{Phase, SlotStanding, Status, Warning};
use backups::pitr::postgres::{Lsn, Timeline};
use jiff::Timestamp;
use serde::Serialize;
use tokio::time::Instant;

use super::Follow;
use crate::error::Failure;
use crate::output::{bytes, seconds};

/// How often how it stands is told at most, as events.
const OFTEN: Duration = Duration::from_secs(5);

/// One event of the stream under `--json`.
#[derive(Debug, Default, Serialize)]
pub(super) struct Document<'a> {
    pub(super) schema: &'static str,
    pub(super) r#type: &'static str,
    pub(super) datastore: &'a str,
    pub(super) time: Timestamp,
    /// The timeline that is received.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) timeline: Option<Timeline>,
    /// Up to here the log is in the repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) durable: Option<Lsn>,
    /// Everything that was acknowledged before, by the server's clock, can be restored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) until: Option<Timestamp>,
    /// What the server has and the repository has not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) behind_bytes: Option<u64>,
    /// What the server keeps for us.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) slot_bytes: Option<u64>,
    /// What it will keep besides; absent where there is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) slot_safe_bytes: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) snapshot: Option<String>,
    /// What is lost for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lost: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

/// What was told already.
pub(super) struct Told {
    slot: String,
    /// That it is received was told.
    begun: bool,
    warnings: Vec<Warning>,
    error: Option<String>,
    timeline: Option<Timeline>,
    until: Option<Timestamp>,
    at: Option<Instant>,
}

impl Told {
    pub(super) fn new(slot: &impl ToString) -> Self {
        Self {
            slot: slot.to_string(),
            begun: false,
            warnings: Vec::new(),
            error: None,
            timeline: None,
            until: None,
            at: None,
        }
    }

    /// Whether a warning is new. One of a slot that runs short comes again when it had recovered.
    fn is_new(&mut self, warning: &Warning) -> bool {
        let same = |known: &Warning| match warning {
            Warning::SlotShort { .. } => discriminant(known) == discriminant(warning),
            warning => known == warning,
        };
        let new = !self.warnings.iter().any(same);
        if new {
            self.warnings.push(warning.clone());
        }
        new
    }

    fn forget(&mut self, now: &[Warning]) {
        let is_short = |warning: &Warning| matches!(warning, Warning::SlotShort { .. });
        if !now.iter().any(is_short) {
            self.warnings.retain(|warning| !is_short(warning));
        }
    }
}

impl Follow<'_> {
    /// Tells what is new; `leads` is whether a base backup leads to what is received. Returns whether the log goes on with
    /// another timeline.
    pub(super) fn tell(&self, status: &Status, leads: bool, told: &mut Told) -> bool {
        let (out, name) = (&self.context.out, &self.store.name);
        told.forget(&status.warnings);
        for warning in &status.warnings {
            if told.is_new(warning) {
                out.warn(format!("{name}: {}", words(warning)));
            }
        }
        if status.last_error != told.error {
            if let Some(error) = &status.last_error {
                out.warn(format!("{name}: {error}; trying again"));
                let document = Document {
                    error: Some(error.clone()),
                    ..Document::default()
                };
                self.event("failing", document);
            } else {
                out.done(format!("{name} is followed again"));
                self.event("recovered", Document::default());
            }
            told.error.clone_from(&status.last_error);
        }
        if status.phase != Phase::Streaming {
            return false;
        }
        if !told.begun {
            told.begun = true;
            let server = status.server.as_deref().unwrap_or("the server");
            let (slot, from) = (&told.slot, status.durable);
            out.note(format!(
                "following {name} at {server} by slot {slot}, from {from} on; Ctrl-C ends it"
            ));
        }
        let switched = told.timeline.is_some() && status.timeline.is_some() && told.timeline != status.timeline;
        told.timeline = status.timeline.or(told.timeline);
        if let (true, Some(timeline)) = (switched, told.timeline) {
            out.note(format!("{name}: the log goes on with timeline {timeline}"));
        }
        let until = status.complete_until.filter(|_| leads);
        let moved = told.at.is_none() || until != told.until;
        if switched || (moved && told.at.is_none_or(|at| at.elapsed() >= OFTEN)) {
            (told.at, told.until) = (Some(Instant::now()), until);
            let slot = status.slot.as_ref();
            let document = Document {
                timeline: status.timeline,
                durable: Some(status.durable),
                until,
                behind_bytes: Some(status.behind()),
                slot_bytes: slot.map(|slot| slot.lag),
                slot_safe_bytes: slot.and_then(|slot: &SlotStanding| slot.safe_wal_size),
                ..Document::default()
            };
            self.event("following", document);
        }
        switched
    }

    /// Something failed that is tried again in a minute.
    pub(super) fn failing(&self, failure: &Failure) {
        let causes = failure.causes.join(": ");
        self.context
            .out
            .warn(format!("{}: {causes}; trying again in a minute", failure.message));
        let document = Document {
            error: Some(causes),
            ..Document::default()
        };
        self.event("failing", document);
    }

    pub(super) fn event(&self, kind: &'static str, document: Document<'_>) {
        if self.context.out.json {
            // A reader that went away does not end the receiving.
            let _ = self.context.out.event(&Document {
                schema: "opsctl.following/v1",
                r#type: kind,
                datastore: &self.store.name,
                time: self.context.now(),
                ..document
            });
        }
    }
}

/// The line on a terminal.
pub(super) fn standing(status: &Status, leads: bool, now: Timestamp) -> String {
    match status.phase {
        Phase::Connecting => "connecting".to_owned(),
        Phase::Waiting => "waiting to try again".to_owned(),
        Phase::Ended => "ending".to_owned(),
        Phase::Streaming => {
            let lost = match status.rpo(now) {
                _ if !leads => ", and no base backup yet".to_owned(),
                Some(rpo) => format!(", {} would be lost now", seconds(rpo.as_secs_f64())),
                None => String::new(),
            };
            format!(
                "{} in the repository, {} behind{lost}",
                status.durable,
                bytes(status.behind())
            )
        }
    }
}

fn words(warning: &Warning) -> String {
    match warning {
        Warning::SlotKeepsEverything => {
            "max_slot_wal_keep_size is not set: while nobody follows, the log fills the server's disk".to_owned()
        }
        Warning::SlotShort { kept, safe } => format!(
            "the server keeps {} of log for the slot, and only {} more before it gives up on it: then log is lost for ever",
            bytes(*kept),
            bytes(u64::try_from(*safe).unwrap_or(0))
        ),
        Warning::CommitsMayWait(value) => {
            format!("synchronous_standby_names is {value:?}: commits may wait for this repository")
        }
        Warning::MomentUnknown(why) => format!("it is not known up to which moment the log is held: {why}"),
        Warning::LeftBehind { timeline, left, held } => format!(
            "timeline {timeline} was left at {left}, and the archive has it up to {held}: what lies behind is on no way"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_slot_is_told_once_until_it_has_recovered() {
        let mut told = Told::new(&"slot");
        let short = |safe| Warning::SlotShort { kept: 100, safe };
        assert!(told.is_new(&short(9)) && !told.is_new(&short(8)));
        told.forget(&[short(7)]);
        assert!(!told.is_new(&short(6)));
        told.forget(&[Warning::SlotKeepsEverything]);
        assert!(told.is_new(&short(5)));
        assert!(told.is_new(&Warning::SlotKeepsEverything) && !told.is_new(&Warning::SlotKeepsEverything));
        assert!(
            told.is_new(&Warning::MomentUnknown("one".into())) && told.is_new(&Warning::MomentUnknown("two".into()))
        );
    }
}
