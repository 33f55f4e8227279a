//! How datastores stand, in Prometheus' text format (0.0.4), under the catalogue's names. It measures nothing.

use std::fmt::Write as _;

use backups::proof::standing::Standing;
use backups::proof::{Outcome, Verdict};
use catalogue::Metric;

use super::log::{Log, State};

/// Renders all datastores of an environment. What is not known is absent, never zero.
pub(super) fn render<'a>(
    environment: &str,
    stores: impl Iterator<Item = (&'a str, (&'a Standing, Option<&'a Log>))> + Clone,
) -> String {
    let mut text = Text::default();
    let logs = stores.clone().filter_map(|(store, (_, log))| Some((store, log?)));
    let stores = stores.map(|(store, (standing, _))| (store, standing));
    let mut gauge = |metric: &'static Metric, value: &dyn Fn(&Standing) -> Option<f64>| {
        text.family(metric);
        for (store, standing) in stores.clone() {
            if let Some(value) = value(standing) {
                text.sample(&[environment, store], value);
            }
        }
    };
    let unix = |at: jiff::Timestamp| at.as_duration().as_secs_f64();
    gauge(
        catalogue::OPSCTL_BACKUP_LAST_SUCCESS_TIMESTAMP_SECONDS.metric(),
        &|standing| standing.last_whole_backup.map(unix),
    );
    gauge(catalogue::OPSCTL_BACKUP_LAST_TIMESTAMP_SECONDS.metric(), &|standing| {
        standing.last_backup.as_ref().map(|last| unix(last.time))
    });
    gauge(catalogue::OPSCTL_BACKUP_LAST_PARTIAL.metric(), &|standing| {
        standing
            .last_backup
            .as_ref()
            .map(|last| f64::from(u8::from(last.partial)))
    });
    gauge(catalogue::OPSCTL_BACKUP_SIZE_BYTES.metric(), &|standing| {
        Some(standing.last_backup.as_ref()?.bytes? as f64)
    });
    gauge(catalogue::OPSCTL_BACKUP_SNAPSHOTS.metric(), &|standing| {
        Some(standing.snapshots as f64)
    });
    gauge(
        catalogue::OPSCTL_PROOF_LAST_SUCCESS_TIMESTAMP_SECONDS.metric(),
        &|standing| standing.last_proof.as_ref().map(|proof| unix(proof.time)),
    );
    gauge(catalogue::OPSCTL_PROOF_LAST_TIMESTAMP_SECONDS.metric(), &|standing| {
        standing.last_drill.as_ref().map(|drill| unix(drill.time))
    });
    gauge(
        catalogue::OPSCTL_RECOVERY_POINT_MEASURED_SECONDS.metric(),
        &|standing| standing.last_drill.as_ref()?.rpo_seconds,
    );
    gauge(
        catalogue::OPSCTL_RECOVERY_POINT_OBJECTIVE_SECONDS.metric(),
        &|standing| standing.objectives.rpo_seconds,
    );
    gauge(catalogue::OPSCTL_RECOVERY_TIME_MEASURED_SECONDS.metric(), &|standing| {
        standing.last_drill.as_ref()?.rto_seconds
    });
    gauge(
        catalogue::OPSCTL_RECOVERY_TIME_OBJECTIVE_SECONDS.metric(),
        &|standing| standing.objectives.rto_seconds,
    );
    gauge(
        catalogue::OPSCTL_PROOF_INTERVAL_OBJECTIVE_SECONDS.metric(),
        &|standing| standing.objectives.prove_every_seconds,
    );
    gauge(
        catalogue::OPSCTL_BACKUP_COMPLETE_UNTIL_TIMESTAMP_SECONDS.metric(),
        &|standing| standing.last_shipped.map(unix),
    );
    let mut of_log = |metric: &'static Metric, value: &dyn Fn(&Log) -> Option<f64>| {
        if logs.clone().next().is_none() {
            return;
        }
        text.family(metric);
        for (store, log) in logs.clone() {
            if let Some(value) = value(log) {
                text.sample(&[environment, store], value);
            }
        }
    };
    let is = |state: State, log: &Log| {
        let known = !matches!(log.slot.state, State::Unknown | State::Missing);
        known.then(|| f64::from(u8::from(log.slot.state == state)))
    };
    of_log(catalogue::OPSCTL_LOG_ARCHIVED_POSITION_BYTES.metric(), &|log| {
        log.archived_lsn.map(|lsn| lsn.0 as f64)
    });
    of_log(catalogue::OPSCTL_LOG_LOST_GAPS.metric(), &|log| {
        Some(log.lost.len() as f64)
    });
    of_log(catalogue::OPSCTL_LOG_RECEIVING.metric(), &|log| {
        is(State::Receiving, log)
    });
    of_log(catalogue::OPSCTL_LOG_SLOT_LOST.metric(), &|log| is(State::Lost, log));
    of_log(catalogue::OPSCTL_LOG_SLOT_KEPT_BYTES.metric(), &|log| {
        log.slot.kept_bytes.map(|kept| kept as f64)
    });
    of_log(catalogue::OPSCTL_LOG_SLOT_SAFE_BYTES.metric(), &|log| {
        log.slot.safe_bytes.map(|safe| safe as f64)
    });

    text.family(catalogue::OPSCTL_PROOF_LAST_VERDICT.metric());
    for (store, standing) in stores.clone() {
        let Some(drill) = &standing.last_drill else { continue };
        for (verdict, word) in [
            (Verdict::Proved, "proved"),
            (Verdict::NotProved, "not_proved"),
            (Verdict::Inconclusive, "inconclusive"),
        ] {
            text.sample(
                &[environment, store, word],
                f64::from(u8::from(drill.verdict == verdict)),
            );
        }
    }
    text.family(catalogue::OPSCTL_RECOVERY_OBJECTIVE_MISSED.metric());
    for (store, standing) in stores {
        for promise in &standing.promises {
            let missed = match promise.outcome {
                Outcome::Met => 0.0,
                Outcome::NotMet => 1.0,
                Outcome::Unknown | Outcome::Skipped => continue,
            };
            text.sample(&[environment, store, promise.name], missed);
        }
    }
    text.out
}

#[derive(Default)]
struct Text {
    out: String,
    metric: Option<&'static Metric>,
}

impl Text {
    fn family(&mut self, metric: &'static Metric) {
        self.metric = Some(metric);
        let help = metric.help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(self.out, "# HELP {} {help}", metric.name);
        let _ = writeln!(self.out, "# TYPE {} {}", metric.name, metric.kind.as_str());
    }

    fn sample(&mut self, values: &[&str], value: f64) {
        let Some(metric) = self.metric else { return };
        let labels: Vec<String> = metric
            .labels
            .iter()
            .zip(values)
            .map(|(label, value)| format!("{}=\"{}\"", label.name, escape(value)))
            .collect();
        let _ = writeln!(self.out, "{}{{{}}} {value}", metric.name, labels.join(","));
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use backups::proof::Objectives;

    use super::*;

    #[test]
    fn a_label_ends_where_it_ends() {
        let standing = Standing::of(&[], None, &[], Objectives::default(), jiff::Timestamp::UNIX_EPOCH);
        let text = render("a\"b\\c\nd", [("db", (&standing, None))].into_iter());
        assert!(
            text.contains("opsctl_backup_snapshots{environment=\"a\\\"b\\\\c\\nd\",datastore=\"db\"} 0\n"),
            "{text}"
        );
        assert!(
            !text.contains("opsctl_backup_last_success_timestamp_seconds{"),
            "what is not known is absent: {text}"
        );
        assert!(
            text.lines()
                .all(|line| line.starts_with("# ") || line.starts_with("opsctl_"))
        );
    }
}
