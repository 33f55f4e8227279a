//! Which rules a test needs: those that it asks about, and transitively what they need of others. Everything where that
//! cannot be told.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::needs::Needs;
use super::rules::{Rule, RuleFile};

/// The rule files of one test file.
#[derive(Debug)]
pub(super) struct RuleSet {
    /// As they are on disk.
    pub paths: Vec<PathBuf>,
    /// As they were read; absent where one of them was not understood.
    read: Option<Files>,
}

#[derive(Debug)]
struct Files {
    all: Vec<Arc<RuleFile>>,
    alerts: HashMap<String, Vec<Id>>,
    records: HashMap<String, Vec<Id>>,
}

/// A rule: its file, its group in it, its place in that.
type Id = (usize, usize, usize);

/// Some rules of a set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Slice {
    /// The files as they are.
    Whole,
    /// These rules; of the named alerts without what delays them.
    Part {
        rules: BTreeSet<Id>,
        undelayed: BTreeSet<String>,
    },
}

impl RuleSet {
    pub fn new(files: Vec<(PathBuf, Option<Arc<RuleFile>>)>) -> Self {
        let (paths, files): (Vec<_>, Vec<_>) = files.into_iter().unzip();
        let files = files.into_iter().collect::<Option<Vec<_>>>().map(|files| {
            let mut set = Files {
                alerts: HashMap::new(),
                records: HashMap::new(),
                all: files,
            };
            for (f, file) in set.all.iter().enumerate() {
                for (g, group) in file.groups.iter().enumerate() {
                    for (r, rule) in group.rules.iter().enumerate() {
                        let names = if rule.alert { &mut set.alerts } else { &mut set.records };
                        names.entry(rule.name.clone()).or_default().push((f, g, r));
                    }
                }
            }
            set
        });
        Self { paths, read: files }
    }

    /// Whether every file was understood, so that what is not in them does not exist.
    pub fn understood(&self) -> bool {
        self.read.is_some()
    }

    /// The names of all alerts.
    pub fn alerts(&self) -> impl Iterator<Item = &str> {
        self.read.iter().flat_map(|set| set.alerts.keys().map(String::as_str))
    }

    /// Every alert with its file and line.
    pub fn places(&self) -> impl Iterator<Item = (&Path, &Rule)> {
        let files = self.read.iter().flat_map(|set| &set.all);
        files.flat_map(|file| {
            let rules = file.groups.iter().flat_map(|group| &group.rules);
            rules.filter(|rule| rule.alert).map(|rule| (file.path.as_path(), rule))
        })
    }

    /// The names of all groups, as they follow one another.
    pub fn groups(&self) -> Vec<&str> {
        let mut seen = BTreeSet::new();
        let files = self.read.iter().flat_map(|set| &set.all);
        let names = files.flat_map(|file| file.groups.iter().map(|group| group.name.as_str()));
        names.filter(|name| seen.insert(*name)).collect()
    }

    /// The rules that are needed, and what those need.
    pub fn slice(&self, needs: &Needs, undelayed: BTreeSet<String>) -> Slice {
        let Some(set) = &self.read else { return Slice::Whole };
        let mut rules = BTreeSet::new();
        let mut waiting = set.needed(needs);
        while let Some(id) = waiting.pop() {
            if rules.insert(id) {
                waiting.extend(set.needed(&set.rule(id).needs));
            }
        }
        Slice::Part { rules, undelayed }
    }

    /// The text of each file of a slice; JSON, which is YAML too.
    pub fn texts(&self, slice: &Slice) -> Vec<String> {
        let (Some(set), Slice::Part { rules, undelayed }) = (&self.read, slice) else {
            return Vec::new();
        };
        let files = set.all.iter().enumerate().map(|(f, file)| {
            let groups: Vec<String> = file
                .groups
                .iter()
                .enumerate()
                .filter_map(|(g, group)| {
                    let chosen: Vec<String> = rules
                        .range((f, g, 0)..=(f, g, usize::MAX))
                        .map(|id| {
                            let rule = set.rule(*id);
                            let mut text = rule.text.clone();
                            if rule.alert && undelayed.contains(&rule.name) {
                                text.remove("for");
                                text.remove("keep_firing_for");
                            }
                            super::generate::json(&text)
                        })
                        .collect();
                    let head = super::generate::json(&group.text);
                    let head = head.strip_suffix('}').unwrap_or(&head);
                    (!chosen.is_empty()).then(|| format!("{head},\"rules\":[\n{}\n]}}", chosen.join(",\n")))
                })
                .collect();
            (!groups.is_empty()).then(|| format!("{{\"groups\":[{}]}}\n", groups.join(",\n")))
        });
        files.flatten().collect()
    }
}

impl Files {
    fn rule(&self, (f, g, r): Id) -> &Rule {
        &self.all[f].groups[g].rules[r]
    }

    fn needed(&self, needs: &Needs) -> Vec<Id> {
        if needs.everything {
            return self
                .alerts
                .values()
                .chain(self.records.values())
                .flatten()
                .copied()
                .collect();
        }
        let mut ids: Vec<Id> = Vec::new();
        if needs.all_alerts {
            ids.extend(self.alerts.values().flatten());
        }
        let alerts = needs.alerts.iter().filter_map(|name| self.alerts.get(name));
        let records = needs.metrics.iter().filter_map(|name| self.records.get(name));
        ids.extend(alerts.chain(records).flatten());
        ids
    }
}

impl Slice {
    /// About how much there is to evaluate.
    pub fn size(&self) -> usize {
        match self {
            Self::Whole => 500,
            Self::Part { rules, .. } => rules.len(),
        }
    }
}
