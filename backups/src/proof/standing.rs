//! How a datastore stands: how much would be lost now, how long it takes to be back, when that was proved, against what
//! is promised, and where it is going. Pure: snapshots, records and `now` are arguments.

use jiff::Timestamp;
use serde::Serialize;

use super::record::{Objectives, Outcome, Proof, Verdict};
use crate::repo::Id;
use crate::snapshots::SnapshotRecord;

/// How a datastore stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Standing {
    /// How many snapshots there are of it.
    pub snapshots: usize,
    /// The latest of them.
    pub last_backup: Option<LastBackup>,
    /// The latest that is whole: what would be lost is counted from there.
    pub last_whole_backup: Option<Timestamp>,
    /// The latest state that was shipped after a snapshot: what would be lost is counted from there, if that is later.
    pub last_shipped: Option<Timestamp>,
    /// The longest time between two whole snapshots that follow each other: the most that could have been lost.
    pub longest_gap_seconds: Option<f64>,
    /// The latest drill, whatever came of it.
    pub last_drill: Option<LastDrill>,
    /// The latest drill that proved its snapshot.
    pub last_proof: Option<LastDrill>,
    /// What is promised.
    pub objectives: Objectives,
    /// How each promise stands, in the order rpo, rto, proof; those that were not made are absent.
    pub promises: Vec<Promise>,
    /// Where it is going.
    pub trend: Trend,
}

/// The latest snapshot.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LastBackup {
    /// Its name.
    pub snapshot: Id,
    /// When it was made.
    pub time: Timestamp,
    /// How long ago that is.
    pub age_seconds: f64,
    /// Whether something could not be read.
    pub partial: bool,
    /// Bytes in its files, where it says so.
    pub bytes: Option<u64>,
}

/// A drill.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LastDrill {
    /// The snapshot.
    pub snapshot: Id,
    /// When it ended.
    pub time: Timestamp,
    /// How long ago that is.
    pub age_seconds: f64,
    /// What came of it.
    pub verdict: Verdict,
    /// The time that the recovery took.
    pub rto_seconds: Option<f64>,
    /// What would have been lost.
    pub rpo_seconds: Option<f64>,
}

/// What was promised and how it stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Promise {
    /// `rpo`, `rto` or `proof`.
    pub name: &'static str,
    /// In seconds; absent where the promise is only that the last drill proved.
    pub objective_seconds: Option<f64>,
    /// What is measured: the age of the last whole backup, the last measured recovery, the age of the last proof.
    pub measured_seconds: Option<f64>,
    /// Kept, broken, or not known.
    pub outcome: Outcome,
    /// In words, where it is not kept.
    pub told: Option<String>,
}

/// Where it is going.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Trend {
    /// Growth over the last snapshots.
    pub bytes_a_day: Option<f64>,
    /// The last measured recovery against the median of those before: 1.2 is a fifth longer.
    pub rto_ratio: Option<f64>,
}

/// So many of the last snapshots and drills make a trend.
const LAST: usize = 10;

impl Standing {
    /// From all snapshots and drills of one datastore, each oldest first, and the latest state that was shipped.
    pub fn of(
        snapshots: &[SnapshotRecord],
        shipped: Option<Timestamp>,
        drills: &[&Proof],
        objectives: Objectives,
        now: Timestamp,
    ) -> Self {
        let age = |then: Timestamp| now.duration_since(then).as_secs_f64().max(0.0);
        let whole: Vec<&SnapshotRecord> = snapshots
            .iter()
            .filter(|record| !record.snapshot.is_partial())
            .collect();
        let last_whole_backup = whole.last().map(|record| record.snapshot.time);
        let drill = |proof: &Proof| LastDrill {
            snapshot: proof.snapshot,
            time: proof.at,
            age_seconds: age(proof.at),
            verdict: proof.verdict,
            rto_seconds: proof.rto_seconds,
            rpo_seconds: proof.rpo_seconds,
        };
        let last_proof = drills.iter().rev().find(|proof| proof.verdict == Verdict::Proved);
        let mut standing = Self {
            snapshots: snapshots.len(),
            last_backup: snapshots.last().map(|record| LastBackup {
                snapshot: record.id,
                time: record.snapshot.time,
                age_seconds: age(record.snapshot.time),
                partial: record.snapshot.is_partial(),
                bytes: record
                    .snapshot
                    .summary
                    .as_ref()
                    .map(|summary| summary.total_bytes_processed),
            }),
            last_whole_backup,
            last_shipped: shipped,
            longest_gap_seconds: whole
                .windows(2)
                .map(|pair| {
                    pair[1]
                        .snapshot
                        .time
                        .duration_since(pair[0].snapshot.time)
                        .as_secs_f64()
                })
                .reduce(f64::max),
            last_drill: drills.last().map(|proof| drill(proof)),
            last_proof: last_proof.map(|proof| drill(proof)),
            objectives,
            promises: Vec::new(),
            trend: Trend {
                bytes_a_day: growth(&whole),
                rto_ratio: slowdown(drills),
            },
        };
        standing
            .promises
            .extend(standing.rpo(last_whole_backup.max(shipped).map(age), shipped > last_whole_backup));
        standing.promises.extend(standing.rto());
        standing.promises.extend(standing.proof());
        standing
    }

    fn rpo(&self, age: Option<f64>, by_shipping: bool) -> Option<Promise> {
        let limit = self.objectives.rpo_seconds?;
        // Without a backup everything would be lost: that is known, and is no missing figure.
        let kept = age.is_some_and(|age| age <= limit);
        Some(Promise {
            name: "rpo",
            objective_seconds: Some(limit),
            measured_seconds: age,
            outcome: Outcome::of(kept),
            told: (!kept).then(|| match age {
                Some(_) if by_shipping => "what was shipped or received last is older than that".to_owned(),
                Some(_) => "the last whole backup is older than that".to_owned(),
                None => "there is no whole backup".to_owned(),
            }),
        })
    }

    fn rto(&self) -> Option<Promise> {
        let limit = self.objectives.rto_seconds?;
        let measured = self.last_drill.as_ref().and_then(|drill| drill.rto_seconds);
        Some(Promise {
            name: "rto",
            objective_seconds: Some(limit),
            measured_seconds: measured,
            outcome: measured.map_or(Outcome::Unknown, |measured| Outcome::of(measured <= limit)),
            told: match measured {
                Some(measured) if measured <= limit => None,
                Some(_) => Some("the last drill took longer than that".to_owned()),
                None => Some("no drill has measured it".to_owned()),
            },
        })
    }

    /// The last drill must not have failed, and the last proof not be too old.
    fn proof(&self) -> Option<Promise> {
        let limit = self.objectives.prove_every_seconds;
        let age = self.last_proof.as_ref().map(|proof| proof.age_seconds);
        let promise = |outcome, told: &str| {
            Some(Promise {
                name: "proof",
                objective_seconds: limit,
                measured_seconds: age,
                outcome,
                told: (outcome != Outcome::Met).then(|| told.to_owned()),
            })
        };
        match (self.last_drill.as_ref().map(|drill| drill.verdict), limit, age) {
            (Some(Verdict::NotProved), ..) => promise(Outcome::NotMet, "the last drill did not prove its snapshot"),
            (_, Some(limit), Some(age)) if age > limit => promise(Outcome::NotMet, "the last proof is older than that"),
            (Some(Verdict::Inconclusive), ..) => promise(Outcome::Unknown, "the last drill was inconclusive"),
            (None, Some(_), _) => promise(Outcome::Unknown, "there was no drill"),
            (None, None, _) => None,
            (Some(Verdict::Proved), ..) => promise(Outcome::Met, ""),
        }
    }

    /// All promises together; a datastore that was never backed up has none to judge by.
    pub fn outcome(&self) -> Outcome {
        if self.promises.iter().any(|promise| promise.outcome == Outcome::NotMet) {
            Outcome::NotMet
        } else if self.last_backup.is_none() || self.promises.iter().any(|promise| promise.outcome == Outcome::Unknown)
        {
            Outcome::Unknown
        } else {
            Outcome::Met
        }
    }

    /// One promise.
    pub fn promise(&self, name: &str) -> Option<&Promise> {
        self.promises.iter().find(|promise| promise.name == name)
    }
}

/// From the first to the last of the latest snapshots that say how large they are.
fn growth(whole: &[&SnapshotRecord]) -> Option<f64> {
    let mut sizes = whole[whole.len().saturating_sub(LAST)..].iter().filter_map(|record| {
        let bytes = record.snapshot.summary.as_ref()?.total_bytes_processed;
        Some((record.snapshot.time, bytes))
    });
    let (began, first) = sizes.next()?;
    let (ended, last) = sizes.next_back()?;
    let days = ended.duration_since(began).as_secs_f64() / 86_400.0;
    // Minutes say nothing about days.
    (days > 1.0 / 24.0).then(|| (last as f64 - first as f64) / days)
}

fn slowdown(drills: &[&Proof]) -> Option<f64> {
    let times: Vec<f64> = drills.iter().filter_map(|proof| proof.rto_seconds).collect();
    let (last, before) = times.split_last()?;
    let mut before = before[before.len().saturating_sub(LAST)..].to_vec();
    before.sort_by(f64::total_cmp);
    let median = *before.get(before.len() / 2)?;
    (median > 0.0).then(|| last / median)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::record::{Phases, RpoBasis, SCHEMA};
    use super::*;
    use crate::repo::{PARTIAL_TAG, Snapshot, Summary};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn snapshot((second, bytes, partial): (i64, u64, bool)) -> SnapshotRecord {
        SnapshotRecord {
            id: Id::of(&second.to_le_bytes()),
            snapshot: Snapshot {
                time: at(second),
                parent: None,
                tree: Id::of(b""),
                paths: Vec::new(),
                hostname: String::new(),
                username: String::new(),
                uid: 0,
                gid: 0,
                excludes: Vec::new(),
                tags: partial.then(|| PARTIAL_TAG.to_owned()).into_iter().collect(),
                original: None,
                program_version: None,
                summary: Some(Summary {
                    total_bytes_processed: bytes,
                    ..Summary::default()
                }),
            },
        }
    }

    fn drill((second, rto, verdict): (i64, Option<f64>, Verdict)) -> Proof {
        Proof {
            schema: SCHEMA.to_owned(),
            snapshot: Id::of(b"snapshot"),
            snapshot_time: at(second),
            datastore: String::new(),
            kind: String::new(),
            environment: String::new(),
            at: at(second),
            moment: at(second),
            actor: String::new(),
            host: String::new(),
            run: None,
            phases: Phases::default(),
            rto_seconds: rto,
            rpo_seconds: None,
            rpo_basis: RpoBasis::Snapshot,
            objectives: Objectives::default(),
            checks: Vec::new(),
            files: 0,
            bytes: 0,
            verdict,
            tool_version: String::new(),
            sqlite_version: None,
            server_version: None,
        }
    }

    fn snapshots() -> impl Strategy<Value = Vec<(i64, u64, bool)>> {
        proptest::collection::vec((0_i64..1_000_000, any::<u64>(), any::<bool>()), 0..15).prop_map(|mut all| {
            all.sort_unstable();
            all
        })
    }

    fn drills() -> impl Strategy<Value = Vec<(i64, Option<f64>, Verdict)>> {
        let one = (
            0_i64..1_000_000,
            proptest::option::of(0.0..1e12_f64),
            proptest::sample::select(Verdict::ALL.to_vec()),
        );
        proptest::collection::vec(one, 0..15).prop_map(|mut all| {
            all.sort_by_key(|drill| drill.0);
            all
        })
    }

    proptest! {
        /// Time alone never mends a promise, and every figure is one that can be shown.
        #[test]
        fn waiting_mends_nothing(
            snapshots in snapshots(),
            drills in drills(),
            limits in (proptest::option::of(1.0..1e6_f64), proptest::option::of(1.0..1e6_f64), proptest::option::of(1.0..1e6_f64)),
            now in 0_i64..2_000_000,
            later in 0_i64..2_000_000,
        ) {
            let snapshots: Vec<SnapshotRecord> = snapshots.into_iter().map(snapshot).collect();
            let drills: Vec<Proof> = drills.into_iter().map(drill).collect();
            let drills: Vec<&Proof> = drills.iter().collect();
            let objectives = Objectives { rpo_seconds: limits.0, rto_seconds: limits.1, prove_every_seconds: limits.2 };
            let stands = |second| Standing::of(&snapshots, None, &drills, objectives, at(second));
            let (first, second) = (stands(now), stands(now + later));
            prop_assert_eq!(first.promises.len(), second.promises.len());
            for (before, after) in first.promises.iter().zip(&second.promises) {
                prop_assert!(before.outcome != Outcome::NotMet || after.outcome == Outcome::NotMet, "{before:?} {after:?}");
                prop_assert_eq!(before.outcome == Outcome::Met, before.told.is_none());
            }
            let trend = &second.trend;
            prop_assert!([trend.bytes_a_day, trend.rto_ratio].iter().flatten().all(|figure| figure.is_finite()));
            prop_assert_eq!(second.outcome() == Outcome::Met, !snapshots.is_empty()
                && second.promises.iter().all(|promise| promise.outcome == Outcome::Met));
        }
    }

    #[test]
    fn what_was_shipped_since_the_last_backup_is_not_lost() {
        let day = 86_400;
        let all = [(0, 1000, false), (day, 1000, false)].map(snapshot);
        let promised = Objectives {
            rpo_seconds: Some(5.0),
            ..Objectives::default()
        };
        let rpo = |shipped: Option<i64>| {
            let standing = Standing::of(&all, shipped.map(at), &[], promised, at(day + 100));
            standing.promise("rpo").unwrap().measured_seconds
        };
        assert_eq!(rpo(None), Some(100.0));
        assert_eq!(rpo(Some(day + 98)), Some(2.0));
        // A backup that came later counts.
        assert_eq!(rpo(Some(day - 10)), Some(100.0));
    }

    #[test]
    fn a_trend_is_told_by_what_was_whole() {
        let day = 86_400;
        let all = [(0, 1000, false), (day, 5, true), (2 * day, 3000, false)].map(snapshot);
        let drills = [(0, Some(10.0)), (1, None), (2, Some(20.0)), (3, Some(40.0))]
            .map(|(at, rto)| drill((at, rto, Verdict::Proved)));
        let drills: Vec<&Proof> = drills.iter().collect();
        let standing = Standing::of(&all, None, &drills, Objectives::default(), at(3 * day));
        assert_eq!(standing.trend.bytes_a_day, Some(1000.0));
        assert_eq!(standing.trend.rto_ratio, Some(2.0));
        assert_eq!(standing.longest_gap_seconds, Some(2.0 * 86_400.0));
    }
}
