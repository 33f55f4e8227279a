//! What is remembered of schedules as metrics in Prometheus' text format, for a collector of text files (node_exporter's
//! `--collector.textfile`): nobody scrapes a command. Names and help are the catalogue's.

use std::path::Path;

use catalogue::Metric;
use jiff::Timestamp;
use opsctl_platform::local::state_dir::write_file;

use super::record::Record;
use crate::config::Schedule;
use crate::error::{self, Failure};

/// Writes the file as a whole. It is readable for us alone unless it stands in somebody else's folder.
pub(super) fn write(path: &Path, records: &[(Option<&Schedule>, Record)], now: Timestamp) -> Result<(), Failure> {
    write_file(path, text(records, now).as_bytes(), false)
        .map_err(|error| error::platform::failure(format!("could not write `{}`", path.display()), &error))?;
    // The collector is another user, and nothing in it is secret.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(path, mode)
        .map_err(|error| Failure::io(format!("could not open `{}` to its readers", path.display()), &error))
}

fn text(records: &[(Option<&Schedule>, Record)], now: Timestamp) -> String {
    let mut text = String::new();
    let mut family = |metric: &Metric, lines: Vec<(Vec<(&str, &str)>, f64)>| {
        if lines.is_empty() {
            return;
        }
        text.push_str(&format!(
            "# HELP {} {}\n# TYPE {} {}\n",
            metric.name,
            metric.help,
            metric.name,
            metric.kind.as_str()
        ));
        for (labels, value) in lines {
            let labels: Vec<String> = labels
                .into_iter()
                .map(|(name, value)| format!("{name}=\"{value}\""))
                .collect();
            text.push_str(&format!("{}{{{}}} {value}\n", metric.name, labels.join(",")));
        }
    };
    let each = |value: &dyn Fn(&Record) -> Option<f64>| {
        records
            .iter()
            .filter_map(|(_, record)| Some((vec![("schedule", record.schedule.as_str())], value(record)?)))
            .collect::<Vec<_>>()
    };
    let seconds = |time: Timestamp| time.as_second() as f64;
    family(
        catalogue::SCHEDULE_RUNS_TOTAL.metric(),
        records
            .iter()
            .flat_map(|(_, record)| {
                record.counts.iter().map(|(outcome, count)| {
                    let labels = vec![("schedule", record.schedule.as_str()), ("outcome", outcome.word())];
                    (labels, *count as f64)
                })
            })
            .collect(),
    );
    family(
        catalogue::SCHEDULE_MISSED_RUNS_TOTAL.metric(),
        each(&|record| Some(record.missed as f64)),
    );
    family(
        catalogue::SCHEDULE_LAST_SUCCESS_TIMESTAMP_SECONDS.metric(),
        each(&|record| record.succeeded_at.map(seconds)),
    );
    family(
        catalogue::SCHEDULE_LAST_DURATION_SECONDS.metric(),
        each(&|record| {
            let last = record.last.as_ref()?;
            Some(last.ended.duration_since(last.started).as_secs_f64())
        }),
    );
    family(
        catalogue::SCHEDULE_NEXT_START_TIMESTAMP_SECONDS.metric(),
        records
            .iter()
            .filter_map(|(schedule, record)| {
                let due = schedule.as_ref()?.timing.next(now)?;
                Some((vec![("schedule", record.schedule.as_str())], seconds(due.start)))
            })
            .collect(),
    );
    family(
        catalogue::CLEANUP_ROWS_DELETED_TOTAL.metric(),
        records
            .iter()
            .filter(|(_, record)| record.schedule.starts_with("cleanup:") || record.rows > 0)
            .map(|(_, record)| (vec![("schedule", record.schedule.as_str())], record.rows as f64))
            .collect(),
    );
    text
}
