//! Which snapshots are compared with each other: those of one datastore, else those of one machine and its paths.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;

use super::{Candidate, Decision};

/// Tags that say of what a snapshot is; together they make its group.
const SAYING: [&str; 2] = ["datastore:", "environment:"];

/// What a group has in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupKey {
    /// A datastore, as the tags of its snapshots say: `datastore:NAME` and, if there is one, `environment:NAME`.
    Datastore(Vec<String>),
    /// Machine and paths, for snapshots without such a tag.
    Paths(String, Vec<String>),
}

impl GroupKey {
    /// The group of a snapshot.
    pub fn of(tags: &[String], host: &str, paths: &[String]) -> Self {
        let mut saying: Vec<String> = tags
            .iter()
            .filter(|tag| SAYING.iter().any(|start| tag.starts_with(start)))
            .cloned()
            .collect();
        saying.sort_unstable();
        saying.dedup();
        if saying.iter().any(|tag| tag.starts_with(SAYING[0])) {
            return Self::Datastore(saying);
        }
        let mut paths = paths.to_vec();
        paths.sort_unstable();
        Self::Paths(host.to_owned(), paths)
    }
}

impl fmt::Display for GroupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Datastore(tags) => {
                let names: Vec<&str> = tags
                    .iter()
                    .map(|tag| tag.split_once(':').map_or(tag.as_str(), |(_, name)| name))
                    .collect();
                f.write_str(&names.join(" in "))
            }
            Self::Paths(host, paths) => write!(f, "{} on {host}", paths.join(" ")),
        }
    }
}

/// Snapshots that are compared with each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// What they have in common.
    pub key: GroupKey,
    /// What becomes of each, newest first.
    pub decisions: Vec<Decision>,
}

/// Groups snapshots, and puts the newest of each group first. Nothing is decided yet.
pub(super) fn group(candidates: Vec<Candidate>, now: Timestamp) -> Vec<Group> {
    let mut groups: BTreeMap<GroupKey, Vec<Decision>> = BTreeMap::new();
    for candidate in candidates {
        let key = GroupKey::of(&candidate.tags, &candidate.host, &candidate.paths);
        groups.entry(key).or_default().push(Decision {
            counted: candidate.counted(now),
            candidate,
            reasons: Vec::new(),
        });
    }
    let sorted = groups.into_iter().map(|(key, mut decisions)| {
        decisions.sort_by_key(|decision| std::cmp::Reverse((decision.counted, decision.candidate.id)));
        Group { key, decisions }
    });
    sorted.collect()
}
