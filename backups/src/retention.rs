//! Which snapshots a policy keeps. Pure: no store, no clock, no repository; who deletes is [`forget`](crate::forget).
//!
//! The rules are restic's (`internal/restic/snapshot_policy.go`): newest first, a slot such as *daily* keeps the newest
//! snapshot of each of the last N days that have one, and *within* counts from the newest snapshot of the group, so that
//! nothing is lost because backups stopped. On top of them:
//!
//! - A partial snapshot never takes the place of a whole one, nor an unproved one that of a proved one: the policy is
//!   applied to all, to the whole and to the proved ones, and what any of the three keeps stays.
//! - The newest whole and the newest proved snapshot of a group always stay.
//! - A snapshot that claims to be younger than its file is as old as the file: the store's clock decides.

mod groups;

pub use groups::{Group, GroupKey};

use std::collections::BTreeMap;
use std::fmt;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::repo::Id;

/// What to keep. Everything that any part of it keeps stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// So many snapshots a slot.
    pub counts: BTreeMap<Slot, u32>,
    /// All that are younger than the newest by less than this.
    pub within: Option<SignedDuration>,
    /// One a slot of those that are younger than the newest by less than this.
    pub slots_within: BTreeMap<Slot, SignedDuration>,
    /// All that have one of these tags.
    pub tags: Vec<String>,
}

impl Policy {
    /// It keeps nothing.
    pub fn is_empty(&self) -> bool {
        self.counts.values().all(|count| *count == 0)
            && self.within.is_none()
            && self.slots_within.is_empty()
            && self.tags.is_empty()
    }
}

/// Spans of which each keeps its newest snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// Every snapshot is a span of its own.
    Last,
    /// Hours.
    Hourly,
    /// Days.
    Daily,
    /// Weeks of ISO 8601: Monday to Sunday, of the year that has their Thursday.
    Weekly,
    /// Months.
    Monthly,
    /// Years.
    Yearly,
}

impl Slot {
    /// Every slot, the shortest first.
    pub const ALL: [Self; 6] = [
        Self::Last,
        Self::Hourly,
        Self::Daily,
        Self::Weekly,
        Self::Monthly,
        Self::Yearly,
    ];

    /// As it is written in policies.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
        }
    }

    /// What two snapshots of one span have in common. `number` is the snapshot's, counted from the newest.
    fn span(self, time: Timestamp, zone: &TimeZone, number: usize) -> [i64; 3] {
        let local = time.to_zoned(zone.clone());
        let (year, month) = (i64::from(local.year()), i64::from(local.month()));
        match self {
            Self::Last => [i64::try_from(number).unwrap_or(i64::MAX), 0, 0],
            // When clocks go back one hour is there twice; the offset tells the two apart.
            Self::Hourly => {
                let day = i64::from(local.day_of_year());
                [
                    year,
                    day * 24 + i64::from(local.hour()),
                    i64::from(local.offset().seconds()),
                ]
            }
            Self::Daily => [year, i64::from(local.day_of_year()), 0],
            Self::Weekly => {
                let week = local.date().iso_week_date();
                [i64::from(week.year()), i64::from(week.week()), 0]
            }
            Self::Monthly => [year, month, 0],
            Self::Yearly => [year, 0, 0],
        }
    }
}

/// What has to be known of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The snapshot.
    pub id: Id,
    /// When it was made, as it says itself.
    pub time: Timestamp,
    /// When its file was written, by the store's clock.
    pub modified: Option<Timestamp>,
    /// Its labels.
    pub tags: Vec<String>,
    /// The machine.
    pub host: String,
    /// What was saved.
    pub paths: Vec<String>,
    /// Nothing is missing from it.
    pub is_whole: bool,
    /// It was restored, and what came back was sound.
    pub is_proved: bool,
}

impl Candidate {
    /// The time that counts: no snapshot is younger than its file, and none comes from the future.
    pub fn counted(&self, now: Timestamp) -> Timestamp {
        self.time.min(self.modified.unwrap_or(now)).min(now)
    }
}

/// Why a snapshot stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// The rule that keeps it.
    pub rule: Rule,
    /// Which snapshots the rule was applied to.
    pub among: Among,
}

/// A rule that keeps snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// It is the newest of a span.
    Slot(Slot),
    /// It is young enough.
    Within,
    /// It is young enough, and the newest of a span.
    SlotWithin(Slot),
    /// It has this tag.
    Tag(String),
    /// It is the newest of its group.
    Newest,
    /// Nobody asked to remove it.
    NotAsked,
}

/// Which snapshots of a group a rule was applied to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Among {
    /// All.
    All,
    /// Those that lack nothing.
    Whole,
    /// Those that were restored, and lack nothing.
    Proved,
}

impl Among {
    fn holds(self, candidate: &Candidate) -> bool {
        match self {
            Self::All => true,
            Self::Whole => candidate.is_whole,
            Self::Proved => candidate.is_proved,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rule {
            Rule::Slot(slot) => f.write_str(slot.word())?,
            Rule::Within => f.write_str("within")?,
            Rule::SlotWithin(slot) => write!(f, "{} within", slot.word())?,
            Rule::Tag(tag) => write!(f, "tag {tag}")?,
            Rule::Newest => f.write_str("newest")?,
            Rule::NotAsked => f.write_str("not asked for")?,
        }
        match self.among {
            Among::All => Ok(()),
            Among::Whole => f.write_str(" of the whole ones"),
            Among::Proved => f.write_str(" of the proved ones"),
        }
    }
}

/// What becomes of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The snapshot.
    pub candidate: Candidate,
    /// The time that counted.
    pub counted: Timestamp,
    /// Why it stays; empty means that it goes.
    pub reasons: Vec<Reason>,
}

impl Decision {
    /// It stays.
    pub fn is_kept(&self) -> bool {
        !self.reasons.is_empty()
    }
}

/// The policy keeps nothing: applied, it would be no policy but a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the policy keeps nothing")]
pub struct EmptyPolicy;

/// Applies a policy to each group of the snapshots. `now` is the store's time; `zone` says when days begin.
pub fn apply(
    policy: &Policy,
    candidates: Vec<Candidate>,
    now: Timestamp,
    zone: &TimeZone,
) -> Result<Vec<Group>, EmptyPolicy> {
    if policy.is_empty() {
        return Err(EmptyPolicy);
    }
    let mut groups = groups::group(candidates, now);
    for group in &mut groups {
        for among in [Among::All, Among::Whole, Among::Proved] {
            keep(policy, &mut group.decisions, among, zone);
        }
        guard(&mut group.decisions);
    }
    Ok(groups)
}

/// Decides on snapshots that were asked for by name: all others stay, and so do the newest whole and the newest proved
/// one of each group.
pub fn remove(wanted: &[Id], candidates: Vec<Candidate>, now: Timestamp) -> Vec<Group> {
    let mut groups = groups::group(candidates, now);
    for group in &mut groups {
        for decision in &mut group.decisions {
            if !wanted.contains(&decision.candidate.id) {
                decision.reasons.push(Reason {
                    rule: Rule::NotAsked,
                    among: Among::All,
                });
            }
        }
        guard(&mut group.decisions);
    }
    groups
}

/// Adds the reasons of a policy, applied to some snapshots of a group, newest first.
fn keep(policy: &Policy, decisions: &mut [Decision], among: Among, zone: &TimeZone) {
    let chosen = decisions.iter_mut().filter(|decision| among.holds(&decision.candidate));
    let mut counts = policy.counts.clone();
    let (mut last, mut last_within) = (BTreeMap::new(), BTreeMap::new());
    let mut newest = None;
    for (number, decision) in chosen.enumerate() {
        let (time, tags) = (decision.counted, &decision.candidate.tags);
        let newest = *newest.get_or_insert(time);
        // Exactly as old is too old, as in restic.
        let within = |span: SignedDuration| newest.duration_since(time) < span;
        let mut rules: Vec<Rule> = policy
            .tags
            .iter()
            .filter(|tag| tags.contains(tag))
            .cloned()
            .map(Rule::Tag)
            .collect();
        if policy.within.is_some_and(within) {
            rules.push(Rule::Within);
        }
        for (slot, count) in counts.iter_mut().filter(|(_, count)| **count > 0) {
            let span = slot.span(time, zone, number);
            if last.insert(*slot, span) != Some(span) {
                *count -= 1;
                rules.push(Rule::Slot(*slot));
            }
        }
        for (slot, _) in policy.slots_within.iter().filter(|(_, span)| within(**span)) {
            let span = slot.span(time, zone, number);
            if last_within.insert(*slot, span) != Some(span) {
                rules.push(Rule::SlotWithin(*slot));
            }
        }
        for rule in rules {
            // What keeps it among all needs not be said again.
            if decision.reasons.iter().all(|reason| reason.rule != rule) {
                decision.reasons.push(Reason { rule, among });
            }
        }
    }
}

/// The newest whole and the newest proved snapshot always stay.
fn guard(decisions: &mut [Decision]) {
    for among in [Among::Whole, Among::Proved] {
        let newest = decisions.iter_mut().find(|decision| among.holds(&decision.candidate));
        if let Some(newest) = newest.filter(|newest| !newest.is_kept()) {
            newest.reasons.push(Reason {
                rule: Rule::Newest,
                among,
            });
        }
    }
}

#[cfg(test)]
mod tests;
