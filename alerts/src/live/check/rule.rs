//! A rendered rule beside a loaded one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::expression;
use super::super::prometheus::{LoadedRule, seconds};
use crate::duration;
use crate::rules::{Group, Rule, RuleKind, Spanned, Text};

/// Whether they have the same name and do the same kind of thing.
pub(super) fn named(rule: &Rule, loaded: &LoadedRule) -> bool {
    loaded.name == rule.name.value && loaded.alerts() == (rule.kind == RuleKind::Alert)
}

/// The labels of a rule in its group; the rule's own come first.
pub(super) fn merged<'a>(group: &'a [(Text, Text)], rule: &'a [(Text, Text)]) -> BTreeMap<&'a str, &'a str> {
    let both = group.iter().chain(rule);
    both.map(|(name, value)| (name.value.as_str(), value.value.as_str()))
        .collect()
}

/// In what a loaded rule is not the rendered one.
pub(super) fn differences(group: &Group, rule: &Rule, loaded: &LoadedRule) -> Vec<String> {
    let mut found = Vec::new();
    if !expression::same(&rule.expr.value, &loaded.query) {
        found.push(format!("its expression is `{}`", loaded.query));
    }
    let time = |span: &Option<Spanned<Duration>>| {
        duration::show(span.as_ref().map_or(0, |span| span.value.as_millis() as u64))
    };
    for (field, ours, theirs) in [
        ("for", time(&rule.hold), seconds(loaded.duration)),
        (
            "keep_firing_for",
            time(&rule.keep_firing_for),
            seconds(loaded.keep_firing_for),
        ),
    ] {
        if ours != theirs {
            found.push(format!("`{field}` is {theirs}, not {ours}"));
        }
    }
    let none = Vec::new();
    for (kind, ours, theirs) in [
        ("label", merged(&group.labels, &rule.labels), &loaded.labels),
        ("annotation", merged(&none, &rule.annotations), &loaded.annotations),
    ] {
        // An empty label is none.
        let ours: BTreeMap<_, _> = ours
            .into_iter()
            .filter(|(_, value)| !value.is_empty() || kind != "label")
            .collect();
        let names: BTreeSet<&str> = ours.keys().copied().chain(theirs.keys().map(String::as_str)).collect();
        for name in names {
            match (ours.get(name), theirs.get(name)) {
                (Some(ours), Some(theirs)) if ours == theirs => {}
                (Some(ours), Some(theirs)) => found.push(format!("the {kind} `{name}` is {theirs:?}, not {ours:?}")),
                (Some(_), None) => found.push(format!("the {kind} `{name}` is missing")),
                (None, _) => found.push(format!("the {kind} `{name}` was not rendered")),
            }
        }
    }
    found
}
