//! Alerts about datastores: backups, their proofs, and how full a PostgreSQL server is. They stand on what `opsctl recovery
//! status` writes, and do their own counting of time, so that a status which nobody writes any more grows old too.

mod log;

use std::time::Duration;

use manifest::landscape::{Datastore, Ratio, Selector, window};

use super::model::{Alert, Case, RuleFile, STEP, Severity};
use super::subject::{Subject, Words};
use super::thresholds::Thresholds;
use super::traffic::{percentage, series};

/// Adds the groups of a datastore.
pub(super) fn add(
    file: &mut RuleFile,
    store: &Datastore,
    subject: &Subject<'_>,
    interval: Duration,
    thresholds: &Thresholds,
    notes: &mut Vec<String>,
) {
    let tried = Tried { store, subject };
    let mut alerts = Vec::new();
    if let Some(limit) = oldest_backup(store, thresholds) {
        alerts.push(tried.backup_too_old(limit));
    } else {
        notes.push(format!(
            "datastore `{}`: no BackupTooOld: it has neither an objective (`rpo`) nor a schedule",
            store.name
        ));
    }
    if let Some(every) = store.prove_every {
        alerts.push(tried.restore_proof_too_old(every));
        alerts.push(tried.unproved_restore());
    } else {
        notes.push(format!(
            "datastore `{}`: no RestoreProofTooOld: nothing says how old a proof may be (`prove_every`)",
            store.name
        ));
    }
    if store.log {
        alerts.extend([
            tried.log_lost(),
            tried.log_not_received(),
            tried.replication_slot_filling(),
        ]);
    }
    if !alerts.is_empty() {
        alerts.push(tried.metrics_absent());
    }
    if let Some(exporter) = &store.exporter {
        alerts.push(tried.high_db_connection_usage(exporter, thresholds.connections));
    }
    file.add(format!("{}-recovery", store.name), interval, alerts);
}

/// How old the last snapshot may be. Where changes are shipped between snapshots the objective is kept by those.
fn oldest_backup(store: &Datastore, thresholds: &Thresholds) -> Option<Duration> {
    let late = |gap: Duration| {
        let seconds = gap.as_secs_f64() * (1.0 + thresholds.late_backup.as_f64());
        Duration::from_secs(seconds.ceil() as u64)
    };
    let by_schedule = store.schedule.as_ref().map(|schedule| late(schedule.longest_gap));
    match store.rpo {
        Some(rpo) if !store.continuous => Some(rpo),
        _ => by_schedule,
    }
}

/// A series of the store: metric, labels, values.
type Given<'a> = (&'a str, &'a [(&'a str, &'a str)], String);

struct Tried<'a> {
    store: &'a Datastore,
    subject: &'a Subject<'a>,
}

const LAST_BACKUP: &str = catalogue::OPSCTL_BACKUP_LAST_SUCCESS_TIMESTAMP_SECONDS.metric().name;
const LAST_PROOF: &str = catalogue::OPSCTL_PROOF_LAST_SUCCESS_TIMESTAMP_SECONDS.metric().name;
const SNAPSHOTS: &str = catalogue::OPSCTL_BACKUP_SNAPSHOTS.metric().name;
const MISSED: &str = catalogue::OPSCTL_RECOVERY_OBJECTIVE_MISSED.metric().name;
const VERDICT: &str = catalogue::OPSCTL_PROOF_LAST_VERDICT.metric().name;

/// Shown of an age; what never was is as old as the clock.
const AGE: &str = "{{ if gt $value 1e9 }}never{{ else }}{{ $value | humanizeDuration }} ago{{ end }}";

impl Tried<'_> {
    /// What `opsctl recovery status` says of the store.
    fn selector(&self) -> Selector {
        self.subject
            .labels
            .iter()
            .filter(|(label, _)| label != "team")
            .fold(Selector::default(), |selector, (label, value)| {
                selector.equal(label, value)
            })
    }

    /// Seconds since then; since the beginning of time where it never was, but the store is known.
    fn age(&self, since: &str) -> String {
        let selector = self.selector();
        format!(
            "time() - (max({}) or max({}) * 0)",
            selector.of(since),
            selector.of(SNAPSHOTS)
        )
    }

    /// With these metrics of the store the alert fires, its value shown so, or not at all.
    fn case(&self, alert: &Alert, shows: &str, given: &[Given<'_>], at: Duration, fires: Option<&str>) -> Case {
        let made = given
            .iter()
            .filter_map(|(metric, labels, values)| Some((series(&self.selector(), metric, labels)?, values.clone())));
        Case {
            shows: format!("{}: {shows}", self.store.name),
            alert: alert.name,
            series: made.collect(),
            at,
            pace: pace(at),
            fires: fires.map(|value| alert.firing(&[], value)).into_iter().collect(),
        }
    }

    /// The cases of an age that must not exceed `limit`.
    fn ages(&self, alert: &Alert, metric: &str, limit: Duration, hold: Duration) -> Vec<Case> {
        let (pace_of, limit_minutes) = (pace(limit * 2), limit.as_secs().div_ceil(60));
        let after =
            |minutes: u64| pace_of * u32::try_from(minutes.div_ceil(pace_of.as_secs() / 60)).unwrap_or(u32::MAX);
        let late = after(limit_minutes + hold.as_secs() / 60 + 1) + pace_of * 2;
        let minutes = late.as_secs() / 60 + 30;
        let made = |values: String| {
            [
                (metric, [].as_slice(), values),
                (SNAPSHOTS, [].as_slice(), format!("1x{minutes}")),
            ]
        };
        let case = |shows: &str, given: &[Given<'_>], at, fires| Case {
            pace: pace_of,
            ..self.case(alert, shows, given, at, fires)
        };
        let shown = format!("{} ago", humanized(late));
        let mut cases = vec![
            case(
                "the last one is too old",
                &made(format!("0x{minutes}")),
                late,
                Some(&shown),
            ),
            // One more each minute: the newest is never older than that.
            case("there was one just now", &made(format!("0+60x{minutes}")), late, None),
            case("there never was one", &made(String::new())[1..], late, Some(&shown)),
            case("nobody wrote the status", &[], late, None),
        ];
        let young = pace_of * u32::try_from(limit_minutes * 60 * 9 / 10 / pace_of.as_secs()).unwrap_or(0);
        cases.push(case(
            "the last one is young enough",
            &made(format!("0x{minutes}")),
            young,
            None,
        ));
        cases
    }

    fn backup_too_old(&self, limit: Duration) -> (Alert, Vec<Case>) {
        let name = &self.store.name;
        let age = self.age(LAST_BACKUP);
        let mut expr = format!("{age} > {}", limit.as_secs());
        if self.store.continuous && self.store.rpo.is_some() {
            let missed = self.selector().equal("objective", "rpo").of(MISSED);
            expr = format!("{expr} or {age} and max({missed}) == 1");
        }
        let promise = match self.store.rpo {
            Some(rpo) => format!("No more than {} may be lost.", window(rpo)),
            None => format!("It should be backed up every {} at least.", window(limit)),
        };
        let words = Words {
            summary: format!("{name}: the last backup is too old"),
            description: format!("The last whole backup was made {AGE}. {promise}"),
        };
        let severity = if self.store.rpo.is_some() {
            Severity::Page
        } else {
            Severity::Ticket
        };
        let alert = self.subject.alert("BackupTooOld", severity, expr, words).times(5, 15);
        let mut cases = self.ages(&alert, LAST_BACKUP, limit, alert.hold);
        if self.store.continuous && self.store.rpo.is_some() {
            let given = |missed: &str| {
                [
                    (LAST_BACKUP, [].as_slice(), "0x30".to_owned()),
                    (MISSED, [("objective", "rpo")].as_slice(), missed.to_owned()),
                ]
            };
            cases.push(self.case(
                &alert,
                "nothing is shipped any more",
                &given("1x30"),
                STEP * 20,
                Some("20m 0s ago"),
            ));
            cases.push(self.case(&alert, "changes are shipped", &given("0x30"), STEP * 20, None));
        }
        (alert, cases)
    }

    fn restore_proof_too_old(&self, every: Duration) -> (Alert, Vec<Case>) {
        let expr = format!("{} > {}", self.age(LAST_PROOF), every.as_secs());
        let words = Words {
            summary: format!("{}: nobody has proved that it can be restored", self.store.name),
            description: format!(
                "The last restore drill that proved a backup was {AGE}. There should be one every {}.",
                window(every)
            ),
        };
        let alert = self
            .subject
            .alert("RestoreProofTooOld", Severity::Ticket, expr, words)
            .times(60, 15);
        let cases = self.ages(&alert, LAST_PROOF, every, alert.hold);
        (alert, cases)
    }

    fn unproved_restore(&self) -> (Alert, Vec<Case>) {
        let verdict = self.selector().equal("verdict", "not_proved").of(VERDICT);
        let words = Words {
            summary: format!("{}: the last restore drill failed", self.store.name),
            description: "The last restore drill did not prove its snapshot.".to_owned(),
        };
        let alert = self
            .subject
            .alert(
                "UnprovedRestore",
                Severity::Ticket,
                format!("max({verdict}) == 1"),
                words,
            )
            .times(5, 15);
        let given = |proved: &str, not: &str| {
            [
                (VERDICT, [("verdict", "proved")].as_slice(), proved.to_owned()),
                (VERDICT, [("verdict", "not_proved")].as_slice(), not.to_owned()),
            ]
        };
        let cases = vec![
            self.case(
                &alert,
                "the last drill failed",
                &given("0x30", "1x30"),
                STEP * 20,
                Some("1"),
            ),
            self.case(&alert, "the last drill proved", &given("1x30", "0x30"), STEP * 20, None),
            self.case(
                &alert,
                "another drill proved",
                &given("0x10 1x50", "1x10 0x50"),
                STEP * 50,
                None,
            ),
            self.case(&alert, "there was none", &[], STEP * 20, None),
        ];
        (alert, cases)
    }

    fn metrics_absent(&self) -> (Alert, Vec<Case>) {
        let expr = format!("absent({})", self.selector().of(SNAPSHOTS));
        let words = Words {
            summary: format!("{}: nobody tells how its backups are", self.store.name),
            description: format!(
                "`opsctl recovery status --textfile` has written nothing of {}.",
                self.store.name
            ),
        };
        let alert = self
            .subject
            .alert("MetricsAbsent", Severity::Ticket, expr, words)
            .label("metric", SNAPSHOTS)
            .times(30, 5);
        let there = |values: &str| [(SNAPSHOTS, [].as_slice(), values.to_owned())];
        let cases = vec![
            self.case(&alert, "nobody wrote the status", &[], STEP * 40, Some("1")),
            self.case(&alert, "the status is there", &there("1x60"), STEP * 40, None),
            self.case(&alert, "the status came late", &there("_x40 1x60"), STEP * 60, None),
        ];
        (alert, cases)
    }

    fn high_db_connection_usage(&self, exporter: &Selector, bound: Ratio) -> (Alert, Vec<Case>) {
        let (backends, limit, reserved) = (
            "pg_stat_activity_count",
            "pg_settings_max_connections",
            "pg_settings_superuser_reserved_connections",
        );
        // The count has a series for each database and state, the settings have one: they meet by server.
        let expr = format!(
            "sum by (instance, server) ({}) / on (instance, server) (max by (instance, server) ({}) - on (instance, server) max by \
             (instance, server) ({})) > {bound}",
            exporter.of(backends),
            exporter.of(limit),
            exporter.of(reserved)
        );
        let words = Words {
            summary: format!("{}: nearly all connections are in use", self.store.name),
            description: "{{ $value | humanizePercentage }} of the connections that {{ $labels.server }} ({{ $labels.instance }}) \
                          has for clients are in use."
                .to_owned(),
        };
        let alert = self
            .subject
            .alert("HighDBConnectionUsage", Severity::Ticket, expr, words)
            .times(5, 5);
        let at = [("instance", "pg:9187"), ("server", "pg:5432")];
        let in_state =
            |database: &'static str, state: &'static str| [at[0], at[1], ("datname", database), ("state", state)];
        let case = |shows: &str, active: &str, idle: &str, fires: Option<&str>| {
            let (shop, other) = (in_state("shop", "active"), in_state("other", "idle"));
            let given: [Given<'_>; 4] = [
                (backends, &shop, active.to_owned()),
                (backends, &other, idle.to_owned()),
                (limit, &at, "103x60".to_owned()),
                (reserved, &at, "3x60".to_owned()),
            ];
            let made = given
                .iter()
                .filter_map(|(metric, labels, values)| Some((series(exporter, metric, labels)?, values.clone())));
            Case {
                shows: format!("{}: {shows}", self.store.name),
                alert: alert.name,
                series: made.collect(),
                at: STEP * 30,
                pace: STEP,
                fires: fires.map(|value| alert.firing(&at, value)).into_iter().collect(),
            }
        };
        let above = (bound.as_f64() * 100.0) as u64 + 1;
        let full = percentage(above as f64 / 100.0);
        let cases = vec![
            case(
                "nearly all are in use",
                &format!("{}x60", above - 10),
                "10x60",
                Some(&full),
            ),
            case("half are in use", "40x60", "10x60", None),
            case("there is room again", "95x10 10x50", "5x60", None),
        ];
        (alert, cases)
    }
}

/// How often rules are evaluated in a case that looks so far ahead: some hundred times.
fn pace(at: Duration) -> Duration {
    let minutes = (at.as_secs() / 60 / 400).max(1);
    STEP * u32::try_from(minutes).unwrap_or(60)
}

/// As `humanizeDuration` shows whole minutes.
fn humanized(duration: Duration) -> String {
    let minutes = duration.as_secs() / 60;
    let (days, hours, minutes) = (minutes / 1440, minutes / 60 % 24, minutes % 60);
    if days > 0 {
        format!("{days}d {hours}h {minutes}m 0s")
    } else if hours > 0 {
        format!("{hours}h {minutes}m 0s")
    } else {
        format!("{minutes}m 0s")
    }
}
