//! The expressions of rules: read, and what they record. What is wrong in them is found by `lint`.

use lint::flow::{Flow, Flows, Records};
use lint::{Finding, SourceFile};
use manifest::Manifest;
use promql::{Dialect, ErrorKind, Query};

use super::table::{FEATURE_FLAG, SYNTAX};
use crate::rules::{Group, Rule, RuleFile, RuleKind};

/// A rule with its query.
pub(super) type Queried<'a> = (&'a SourceFile, &'a Group, &'a Rule, Query);

/// Reads every expression. One that needs a feature flag is a finding and is read on.
pub(super) fn queries<'a>(
    files: &'a [SourceFile],
    sets: &'a [RuleFile],
    findings: &mut Vec<Finding>,
) -> Vec<Queried<'a>> {
    let mut out = Vec::new();
    for (file, rules) in files.iter().zip(sets) {
        for (group, rule) in rules.rules() {
            let text = &rule.expr.value;
            let (error, query) = match promql::parse(text) {
                Ok(query) => (None, Some(query)),
                Err(error) if matches!(error.kind, ErrorKind::Feature(_)) => {
                    (Some(error), Dialect::all_features().parse(text).ok())
                }
                Err(error) => (Some(error), None),
            };
            if let Some(error) = error {
                let span = rule.expr.offsets.range(error.span.range());
                let finding = match error.kind {
                    ErrorKind::Feature(feature) => {
                        let what = format!("This needs `--enable-feature={}`.", feature.flag());
                        Finding::new(&FEATURE_FLAG, file, span, what)
                    }
                    _ => Finding::new(&SYNTAX, file, span, format!("This is not PromQL: {}.", error.message)),
                };
                findings.push(finding.about(&rule.name.value));
            }
            out.extend(query.map(|query| (file, group, rule, query)));
        }
    }
    out
}

/// What is known of the series that rules record. Recorded series are made of others: what is found out about one is
/// used for the next, so often that usual depths are covered.
pub(super) fn records(queries: &[Queried<'_>], manifest: &Manifest) -> Records {
    const DEPTH: usize = 3;
    let recording = || queries.iter().filter(|(_, _, rule, _)| rule.kind == RuleKind::Record);
    let mut records: Records = recording()
        .map(|(_, _, rule, _)| (rule.name.value.clone(), Flow::anything()))
        .collect();
    for _ in 0..DEPTH {
        let mut next = Records::new();
        for (_, group, rule, query) in recording() {
            let flows = Flows::new(query, manifest, &records);
            let set = group.labels.iter().chain(&rule.labels);
            let set = set.map(|(label, value)| (label.value.as_str(), !value.value.is_empty()));
            let flow = flows.of(&query.expr).recorded(set);
            let known = next.remove(&rule.name.value);
            let flow = known.map_or_else(|| flow.clone(), |known| known.or(&flow));
            next.insert(rule.name.value.clone(), flow);
        }
        if next == records {
            break;
        }
        records = next;
    }
    records
}
