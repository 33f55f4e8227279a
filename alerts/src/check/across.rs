//! What rules have to do with each other: the same twice, used before they are there, nothing left when all is gone.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use lint::{Edit, Finding, Fix};
use promql::ast::Expr;

use super::table::{DUPLICATE_ALERT, DUPLICATE_RULE, NO_DATA, RECORDED_ELSEWHERE, RECORDED_LATER};
use super::{Options, Read};
use crate::rules::RuleKind;

pub(super) fn check(all: &[Read<'_>], _: &Options, findings: &mut Vec<Finding>) {
    duplicates(all, findings);
    order(all, findings);
    no_data(all, findings);
}

/// Labels that the rule and its group set, the rule's own above.
fn labels<'a>(read: &'a Read<'_>) -> BTreeMap<&'a str, &'a str> {
    let pairs = read.group.labels.iter().chain(&read.rule.labels);
    pairs
        .map(|(key, value)| (key.value.as_str(), value.value.as_str()))
        .collect()
}

/// What a rule is known by: whether it alerts, its name, its labels.
type Identity<'a> = (bool, &'a str, BTreeMap<&'a str, &'a str>);

fn duplicates(all: &[Read<'_>], findings: &mut Vec<Finding>) {
    /// An expression, and how long it has to hold.
    type Condition = (String, Option<Duration>);
    /// The first of them all, and the first with each condition.
    type Before<'a> = (&'a Read<'a>, HashMap<Condition, &'a Read<'a>>);
    let mut seen: HashMap<Identity<'_>, Before<'_>> = HashMap::new();
    for read in all {
        let text = read.query.text.split_whitespace().collect::<Vec<_>>().join(" ");
        let condition = (text, read.rule.hold.as_ref().map(|hold| hold.value));
        let identity = (read.is_alert(), read.name(), labels(read));
        let (first, before) = match seen.entry(identity) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                entry.insert((read, HashMap::from([(condition, read)])));
                continue;
            }
        };
        let name = &read.rule.name;
        let place = |other: &Read<'_>| {
            let at = other.file.position(other.rule.span.start);
            format!("{}:{}", other.file.name(), at.line)
        };
        if let Some(other) = before.get(&condition) {
            let what = format!("The same rule is at {}.", place(other));
            findings.push(Finding::new(&DUPLICATE_RULE, read.file, name.span.clone(), what).about(&name.value));
        } else {
            if read.is_alert() {
                let what = format!("An alert with this name and these labels is at {} too.", place(first));
                findings.push(Finding::new(&DUPLICATE_ALERT, read.file, name.span.clone(), what).about(&name.value));
            }
            before.insert(condition, read);
        }
    }
}

/// Recorded series that a rule uses above the rule that records them, or in a group with another rhythm.
fn order(all: &[Read<'_>], findings: &mut Vec<Finding>) {
    let mut recorded: HashMap<&str, Vec<(usize, &Read<'_>)>> = HashMap::new();
    for (index, read) in all.iter().enumerate() {
        if read.rule.kind == RuleKind::Record {
            recorded.entry(read.name()).or_default().push((index, read));
        }
    }
    for (index, read) in all.iter().enumerate() {
        let mut told: HashSet<&str> = HashSet::new();
        for selector in read.query.expr.selectors() {
            let Some(name) = selector.metric().filter(|name| *name != read.name()) else {
                continue;
            };
            let Some(sources) = recorded.get(name).filter(|_| told.insert(name)) else {
                continue;
            };
            let same_group = |other: &Read<'_>| std::ptr::eq(other.group, read.group);
            let span = read.rule.expr.offsets.range(selector.span.range());
            let later = sources.iter().all(|(at, other)| same_group(other) && *at > index);
            if later {
                let what = format!("`{name}` is recorded further down in this group.");
                findings.push(Finding::new(&RECORDED_LATER, read.file, span, what).about(read.name()));
                continue;
            }
            let interval = |read: &Read<'_>| read.group.interval.as_ref().map(|interval| interval.value);
            let slower = sources.iter().find(|(_, other)| {
                !same_group(other) && matches!((interval(other), interval(read)), (Some(a), Some(b)) if a > b)
            });
            if let Some((_, other)) = slower {
                let what = format!(
                    "`{name}` is recorded in `{}`, which is evaluated less often.",
                    other.group.name.value
                );
                findings.push(Finding::new(&RECORDED_ELSEWHERE, read.file, span, what).about(read.name()));
            }
        }
    }
}

fn is_absent(expr: &Expr) -> bool {
    matches!(expr, Expr::Call(call) if matches!(call.name(), "absent" | "absent_over_time"))
}

/// Alerts whose series nobody misses when they are gone.
fn no_data(all: &[Read<'_>], findings: &mut Vec<Finding>) {
    let mut missed: HashSet<&str> = HashSet::new();
    let mut targets_watched = false;
    for read in all.iter().filter(|read| read.is_alert()) {
        read.query.expr.walk(&mut |part| {
            if is_absent(part) {
                missed.extend(part.selectors().iter().filter_map(|selector| selector.metric()));
            }
        });
        targets_watched |= read
            .query
            .expr
            .selectors()
            .iter()
            .any(|selector| selector.metric() == Some("up"));
    }
    if targets_watched {
        return;
    }
    for read in all.iter().filter(|read| read.is_alert()) {
        let names: Vec<&str> = read.query.expr.selectors().iter().filter_map(|s| s.metric()).collect();
        let Some(name) = names
            .first()
            .filter(|_| !names.iter().any(|name| missed.contains(name)))
        else {
            continue;
        };
        let what = format!("When `{name}` is gone, this alert resolves, and none of these rules fires.");
        let finding = Finding::new(&NO_DATA, read.file, read.rule.name.span.clone(), what).about(read.name());
        findings.push(finding.fixed_by(absent_rule(read, name)));
    }
}

/// An alert on the absence of `metric`, above the rule, where the file is written in lines.
fn absent_rule(read: &Read<'_>, metric: &str) -> Option<Fix> {
    let file = read.file;
    let position = file.position(read.rule.span.start);
    let start = file.line_start(position.line);
    let bar = file.text().get(start..read.rule.span.start)?;
    let indent = bar.strip_suffix("- ").filter(|indent| indent.trim().is_empty())?;
    let severity = read
        .rule
        .label("severity")
        .map_or("warning", |severity| severity.value.as_str());
    let text = format!(
        "{indent}- alert: {}Absent\n{indent}  expr: absent({metric})\n{indent}  for: 10m\n{indent}  labels:\n{indent}    severity: {severity}\n{indent}  annotations:\n{indent}    summary: Nothing exports {metric}.\n",
        read.name()
    );
    let edit = Edit {
        span: start..start,
        text,
    };
    Some(Fix::proposal("alert on its absence", vec![edit]))
}
