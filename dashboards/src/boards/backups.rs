//! Backups and their proof, as `opsctl recovery status` measures them, and the schedules that make them.

use manifest::landscape::{Board, Landscape};

use super::sheet::{Plot, Sheet};
use super::{Draft, uid, variables};
use crate::model::Unit;

pub(super) fn board(landscape: &Landscape) -> Option<Draft> {
    if landscape.datastores.is_empty() {
        return None;
    }
    let sheet = Sheet::default()
        .row("Promises", promises())
        .row("Backups", backups())
        .row("Between backups", log())
        .row("Proofs", proofs())
        .row("Schedules", schedules());
    Some(Draft {
        uid: uid(Board::Backups),
        title: "Backups and proofs",
        about: "How old backups and their proofs are, what the last restore drill measured, and what was promised.",
        from: "now-7d",
        variables: vec![
            variables::label_values(
                "datastore",
                "Datastore",
                "The datastores that are shown.",
                "opsctl_backup_last_timestamp_seconds",
                "datastore",
            ),
            variables::label_values(
                "schedule",
                "Schedule",
                "The schedules that are shown.",
                "schedule_next_start_timestamp_seconds",
                "schedule",
            ),
        ],
        sheet,
    })
}

/// A figure of every chosen datastore.
fn of(metric: &str) -> String {
    format!("max by (datastore) ({metric}{{ENVIRONMENT, datastore=~\"$datastore\"}})")
}

/// A figure of every chosen schedule.
fn scheduled(metric: &str) -> String {
    format!("max by (schedule) ({metric}{{schedule=~\"$schedule\"}})")
}

fn promises() -> [Plot; 2] {
    [
        Plot::states("Promises about recovery", &[("0", "kept", "green"), ("1", "broken", "red")])
            .about("Recovery point, recovery time and age of the proof, each held against what was promised. A gap is not known, which is not the same as kept.")
            .size(24, 7)
            .ask(
                "max by (datastore, objective) (opsctl_recovery_objective_missed{ENVIRONMENT, datastore=~\"$datastore\"})",
                "{{datastore}} {{objective}}",
            ),
        Plot::table(
            "Promised and measured",
            Unit::Seconds,
            &[
                ("datastore", "Datastore"),
                ("Value #A", "May be lost (RPO)"),
                ("Value #B", "Lost in the drill"),
                ("Value #C", "Back within (RTO)"),
                ("Value #D", "Back in the drill"),
                ("Value #E", "Proof at most"),
                ("Value #F", "Age of the proof"),
            ],
        )
        .about("The objectives beside what the last restore drill measured.")
        .ask(of("opsctl_recovery_point_objective_seconds"), "__auto")
        .ask(of("opsctl_recovery_point_measured_seconds"), "__auto")
        .ask(of("opsctl_recovery_time_objective_seconds"), "__auto")
        .ask(of("opsctl_recovery_time_measured_seconds"), "__auto")
        .ask(of("opsctl_proof_interval_objective_seconds"), "__auto")
        .ask(format!("time() - {}", of("opsctl_proof_last_success_timestamp_seconds")), "__auto"),
    ]
}

fn backups() -> [Plot; 4] {
    [
        Plot::lines("Age of the last backup", Unit::Seconds)
            .about("Whole, and whole or not: where the two part, something could not be read.")
            .wide(12)
            .ask(format!("time() - {}", of("opsctl_backup_last_success_timestamp_seconds")), "{{datastore}}")
            .ask(format!("time() - {}", of("opsctl_backup_last_timestamp_seconds")), "{{datastore}}, whole or not"),
        Plot::lines("Size", Unit::Bytes)
            .about("Of the files in the last snapshot. One that halves overnight is worth a look, however green the rest is.")
            .wide(12)
            .ask(of("opsctl_backup_size_bytes"), "{{datastore}}"),
        Plot::lines("Snapshots", Unit::Count)
            .about("That there are to restore.")
            .wide(12)
            .ask(of("opsctl_backup_snapshots"), "{{datastore}}"),
        Plot::states("Last backup", &[("0", "whole", "green"), ("1", "partial", "orange")])
            .about("Partial: something could not be read. Such a one can be restored, but is no whole backup.")
            .size(12, 8)
            .ask(of("opsctl_backup_last_partial"), "{{datastore}}"),
    ]
}

/// What is shipped or received of a datastore while nobody backs it up.
fn log() -> [Plot; 5] {
    [
        Plot::lines("Would be lost now", Unit::Seconds)
            .about("Since the moment up to which everything that was acknowledged can be restored, where changes are shipped or a log is received; and what may be lost.")
            .size(12, 8)
            .ask(
                format!("time() - {}", of("opsctl_backup_complete_until_timestamp_seconds")),
                "{{datastore}}",
            )
            .ask(of("opsctl_recovery_point_objective_seconds"), "{{datastore}} promised"),
        Plot::lines("Log kept by the server", Unit::Bytes)
            .about("For the replication slot: written, and not in the repository yet; and what may still be written before the server gives up on the slot.")
            .size(12, 8)
            .ask(of("opsctl_log_slot_kept_bytes"), "{{datastore}} kept")
            .ask(of("opsctl_log_slot_safe_bytes"), "{{datastore}} may come"),
        Plot::lines("Log archived", Unit::BytesPerSecond)
            .about("How fast the end of the archived log moves on. A server that is idle writes next to nothing; none at all for long is worth a look.")
            .size(12, 8)
            .ask(
                "max by (datastore) (clamp_min(deriv(opsctl_log_archived_position_bytes{ENVIRONMENT, datastore=~\"$datastore\"}[$__rate_interval]), 0))",
                "{{datastore}}",
            ),
        Plot::states("Received", &[("0", "by nobody", "red"), ("1", "received", "green")])
            .about("Whether somebody reads from the replication slot. A gap: there is no slot, or the server could not be asked.")
            .size(6, 8)
            .ask(of("opsctl_log_receiving"), "{{datastore}}"),
        Plot::states("Lost", &[("0", "nothing", "green"), ("1", "log lost", "red")])
            .about("Log that nothing can fill and no base backup was taken after, or a slot that the server has given up on.")
            .size(6, 8)
            .ask(format!("clamp_max({}, 1)", of("opsctl_log_lost_gaps")), "{{datastore}} archive")
            .ask(of("opsctl_log_slot_lost"), "{{datastore}} slot"),
    ]
}

fn proofs() -> [Plot; 3] {
    [
        Plot::states("Last proof", &[("0", "proved", "green"), ("1", "inconclusive", "yellow"), ("2", "not proved", "red")])
            .about("What the last restore drill came to. A backup counts once it was restored.")
            .ask(
                "max by (datastore) (opsctl_proof_last_verdict{ENVIRONMENT, datastore=~\"$datastore\", verdict=\"not_proved\"} * 2) > 0 or max by (datastore) (opsctl_proof_last_verdict{ENVIRONMENT, datastore=~\"$datastore\", verdict=\"inconclusive\"})",
                "{{datastore}}",
            ),
        Plot::lines("Age of the last proof", Unit::Seconds)
            .about("Since a drill proved a snapshot, and since the last drill.")
            .ask(format!("time() - {}", of("opsctl_proof_last_success_timestamp_seconds")), "{{datastore}}")
            .ask(format!("time() - {}", of("opsctl_proof_last_timestamp_seconds")), "{{datastore}}, any drill"),
        Plot::lines("Time to come back", Unit::Seconds)
            .about("That restore drills took until the data was back, checked and answering, and what was promised.")
            .ask(of("opsctl_recovery_time_measured_seconds"), "{{datastore}}")
            .ask(of("opsctl_recovery_time_objective_seconds"), "{{datastore}} promised"),
    ]
}

fn schedules() -> [Plot; 5] {
    [
        Plot::table(
            "Schedules",
            Unit::FromNow,
            &[
                ("schedule", "Schedule"),
                ("Value #A", "Last success"),
                ("Value #B", "Next run"),
                ("Value #C", "Last took"),
            ],
        )
        .about("When each went well, when it is due, how long it takes.")
        .size(12, 9)
        .unit_of("Last took", Unit::Seconds)
        .ask(format!("{} * 1000", scheduled("schedule_last_success_timestamp_seconds")), "__auto")
        .ask(format!("{} * 1000", scheduled("schedule_next_start_timestamp_seconds")), "__auto")
        .ask(scheduled("schedule_last_duration_seconds"), "__auto"),
        Plot::lines("Runs by outcome", Unit::Count)
            .about("Runs that ended in the last hour.")
            .size(12, 9)
            .ask(
                "sum by (schedule, outcome) (increase(schedule_runs_total{schedule=~\"$schedule\"}[1h])) > 0",
                "{{schedule}} {{outcome}}",
            ),
        Plot::lines("Runs that were missed", Unit::Count)
            .about("Times at which a job was due and had no run of its own, in the last day: the machine was off, or the run before took too long.")
            .steps(&[(1.0, "orange")])
            .ask(
                "sum by (schedule) (increase(schedule_missed_runs_total{schedule=~\"$schedule\"}[1d]))",
                "{{schedule}}",
            ),
        Plot::lines("Time that runs take", Unit::Seconds)
            .about("Of the last run. One that grows will once not be done before the next.")
            .ask(scheduled("schedule_last_duration_seconds"), "{{schedule}}"),
        Plot::lines("Rows cleaned up", Unit::Count)
            .about("Rows that cleanups deleted in the last hour.")
            .ask(
                "sum by (schedule) (increase(cleanup_rows_deleted_total{schedule=~\"$schedule\"}[1h]))",
                "{{schedule}}",
            ),
    ]
}
