//! Alerts about the log of a PostgreSQL that is saved as a whole: whether it is received, and whether any of it is lost or
//! soon will be. Whether too much would be lost is told by the alert about backups.

use super::Tried;
use crate::render::model::{Alert, Case, STEP, Severity};
use crate::render::subject::Words;

const RECEIVING: &str = catalogue::OPSCTL_LOG_RECEIVING.metric().name;
const GAPS: &str = catalogue::OPSCTL_LOG_LOST_GAPS.metric().name;
const LOST: &str = catalogue::OPSCTL_LOG_SLOT_LOST.metric().name;
const KEPT: &str = catalogue::OPSCTL_LOG_SLOT_KEPT_BYTES.metric().name;
const SAFE: &str = catalogue::OPSCTL_LOG_SLOT_SAFE_BYTES.metric().name;

impl Tried<'_> {
    /// What is promised is at stake.
    fn urgency(&self) -> Severity {
        if self.store.rpo.is_some() {
            Severity::Page
        } else {
            Severity::Ticket
        }
    }

    pub(super) fn log_lost(&self) -> (Alert, Vec<Case>) {
        let name = &self.store.name;
        let of = |metric| self.selector().of(metric);
        let expr = format!("max({}) > 0 or max({}) == 1", of(GAPS), of(LOST));
        let words = Words {
            summary: format!("{name}: log is lost for ever"),
            description: "The server removed log before it was received, and no base backup was taken since."
                .to_owned(),
        };
        let alert = self.subject.alert("LogLost", self.urgency(), expr, words).times(5, 5);
        let given = |gaps: &str, lost: &str| {
            [
                (GAPS, [].as_slice(), gaps.to_owned()),
                (LOST, [].as_slice(), lost.to_owned()),
            ]
        };
        let case = |shows, gaps, lost, fires| self.case(&alert, shows, &given(gaps, lost), STEP * 20, fires);
        let cases = vec![
            case("a gap stays open", "1x30", "0x30", Some("1")),
            case("the slot is lost, and nobody follows", "0x30", "1x30", Some("1")),
            case("all of it is there", "0x30", "0x30", None),
            case("a base backup ended it", "1x5 0x30", "0x30", None),
            case("the server cannot be asked", "0x30", "_x30", None),
        ];
        (alert, cases)
    }

    pub(super) fn log_not_received(&self) -> (Alert, Vec<Case>) {
        let expr = format!("max({}) == 0", self.selector().of(RECEIVING));
        let words = Words {
            summary: format!("{}: nobody receives its log", self.store.name),
            description:
                "What is committed now is on the server alone, which keeps the log for a slot that nobody reads from."
                    .to_owned(),
        };
        let alert = self
            .subject
            .alert("LogNotReceived", self.urgency(), expr, words)
            .times(10, 5);
        let given = |values: &str| [(RECEIVING, [].as_slice(), values.to_owned())];
        let case = |shows, values, fires| self.case(&alert, shows, &given(values), STEP * 30, fires);
        let cases = vec![
            case("nobody follows", "0x40", Some("0")),
            case("somebody follows", "1x40", None),
            case("it began again at once", "1x10 0x4 1x40", None),
            case("there is no slot", "_x40", None),
        ];
        (alert, cases)
    }

    pub(super) fn replication_slot_filling(&self) -> (Alert, Vec<Case>) {
        let of = |metric| self.selector().of(metric);
        let expr = format!("max({0}) / (max({1}) + max({0})) < 0.25", of(SAFE), of(KEPT));
        let words = Words {
            summary: format!(
                "{}: the server will soon give up on the replication slot",
                self.store.name
            ),
            description: "{{ $value | humanizePercentage }} is left of the log that it may keep for whoever receives."
                .to_owned(),
        };
        let alert = self
            .subject
            .alert("ReplicationSlotFilling", self.urgency(), expr, words)
            .times(5, 5);
        let given = |kept: &str, safe: &str| {
            [
                (KEPT, [].as_slice(), kept.to_owned()),
                (SAFE, [].as_slice(), safe.to_owned()),
            ]
        };
        let case = |shows, kept, safe, fires| self.case(&alert, shows, &given(kept, safe), STEP * 20, fires);
        let cases = vec![
            case("a fifth is left", "800x30", "200x30", Some("20%")),
            case("a third is left", "600x30", "300x30", None),
            case("it was received again", "900x5 10x30", "100x5 990x30", None),
            case("there is no limit", "900x30", "_x30", None),
        ];
        (alert, cases)
    }
}
