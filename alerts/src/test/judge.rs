//! Verdicts: what promtool said of a case, against what the case expects. Pure.

use serde::Serialize;

use super::answer::{self, Alert, Answer, Failure};
use super::file::{Case, Expected, Labels, Question, State};
use super::generate::{Ask, Key, Kind};

/// How a case ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "verdict", rename_all = "lowercase")]
pub enum Verdict {
    /// As expected.
    Passed,
    /// Not as expected.
    Failed {
        /// What was expected, and what was there.
        #[serde(flatten)]
        difference: Difference,
    },
    /// There is no answer.
    Error {
        /// Why.
        why: String,
    },
}

/// What was expected, and what was there.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "of", rename_all = "lowercase")]
pub enum Difference {
    /// Alerts in a state.
    Alerts {
        /// Those that are missing.
        expected: Vec<Alert>,
        /// Those that are there and were not expected.
        got: Vec<Alert>,
        /// How the ones differ from the others, a line each.
        how: Vec<String>,
    },
    /// Samples, as promtool writes them.
    Samples {
        /// Expected.
        expected: String,
        /// There.
        got: String,
    },
}

/// The verdict of a case from what its entries came to.
pub(super) fn verdict(case: &Case, told: &[(&Ask, &Result<Answer, String>)]) -> Verdict {
    judge(case, told).unwrap_or_else(|why| Verdict::Error { why })
}

fn judge(case: &Case, told: &[(&Ask, &Result<Answer, String>)]) -> Result<Verdict, String> {
    let find = |kind: Kind| told.iter().find(|(ask, _)| ask.kind == kind);
    let (expected, partial, state) = match &case.question {
        Question::Alerts {
            expected,
            partial,
            state,
            ..
        } => (expected.as_slice(), *partial, *state),
        Question::Samples { .. } => (&[][..], false, State::Firing),
    };
    if let Some((ask, answer)) = find(Kind::Judged) {
        return judged(ask, answer.as_ref().map_err(Clone::clone)?, expected);
    }
    let complaint = |kind| -> Result<Option<&Failure>, String> {
        let Some((ask, answer)) = find(kind) else {
            return Ok(None);
        };
        let answer = answer.as_ref().map_err(Clone::clone)?;
        // What was asked cannot be right: without a complaint there is no answer.
        complaint(ask, answer)?
            .map(Some)
            .ok_or_else(|| "promtool did not say what there is".to_owned())
    };
    if let Some(Failure::Alerts { got, .. }) = complaint(Kind::Alerts)? {
        return Ok(compare(expected, got, partial));
    }
    let there = match complaint(Kind::States)? {
        Some(Failure::Samples { got, .. }) => {
            answer::samples(got).ok_or_else(|| format!("promtool's answer cannot be read: {got}"))?
        }
        Some(Failure::Query { error, .. }) => return Err(error.clone()),
        _ => return Err("promtool did not say what there is".to_owned()),
    };
    let wanted =
        |labels: &Labels| state == State::Inactive || labels.get("alertstate").is_some_and(|is| is == "pending");
    let mut got: Vec<Alert> = there.into_iter().filter(|labels| wanted(labels)).map(alert).collect();
    if state == State::Inactive {
        return Ok(inactive(expected, got));
    }
    if let Some(Failure::Alerts { got: undelayed, .. }) = complaint(Kind::Undelayed)? {
        for alert in &mut got {
            let same = undelayed.iter().find(|other| other.labels == alert.labels);
            alert.annotations = same.map(|same| same.annotations.clone()).unwrap_or_default();
        }
    }
    Ok(compare(expected, &got, partial))
}

/// What promtool itself found of a case.
fn judged(ask: &Ask, answer: &Answer, expected: &[Expected]) -> Result<Verdict, String> {
    let difference = match complaint(ask, answer)? {
        None => return Ok(Verdict::Passed),
        Some(Failure::Alerts { got, .. }) => {
            return Ok(match compare(expected, got, false) {
                // It is promtool that judges: what looks alike here differs in its eyes.
                Verdict::Passed => Verdict::Failed {
                    difference: Difference::Alerts {
                        expected: Vec::new(),
                        got: got.clone(),
                        how: vec!["promtool finds a difference that its answer does not show".to_owned()],
                    },
                },
                other => other,
            });
        }
        Some(Failure::Samples { expected, got, .. }) => Difference::Samples {
            expected: expected.clone(),
            got: got.clone(),
        },
        Some(Failure::Query { error, .. } | Failure::Other(error)) => return Err(error.clone()),
    };
    Ok(Verdict::Failed { difference })
}

/// What promtool complains of in an entry; an error where the file as a whole came to nothing.
fn complaint<'a>(ask: &Ask, answer: &'a Answer) -> Result<Option<&'a Failure>, String> {
    let of_ask = |failure: &&Failure| match (failure, &ask.key) {
        (Failure::Alerts { name, at, .. }, Key::Alerts(asked, when)) => name == asked && at == when,
        (Failure::Samples { expr, at, .. } | Failure::Query { expr, at, .. }, Key::Samples(asked, when)) => {
            expr == asked && at == when
        }
        _ => false,
    };
    if let Some(failure) = answer.failures.iter().find(of_ask) {
        return Ok(Some(failure));
    }
    let other = answer.failures.iter().find_map(|failure| match failure {
        Failure::Other(words) => Some(words.clone()),
        _ => None,
    });
    match other {
        Some(words) => Err(words),
        None if answer.success || !answer.failures.is_empty() => Ok(None),
        None => Err("promtool failed without a word".to_owned()),
    }
}

/// An alert from its series.
fn alert(mut labels: Labels) -> Alert {
    for own in ["__name__", "alertname", "alertstate"] {
        labels.remove(own);
    }
    Alert {
        labels,
        annotations: Labels::new(),
    }
}

/// No alert may be there that one of these describes; none at all where nothing is described.
fn inactive(described: &[Expected], got: Vec<Alert>) -> Verdict {
    let meant = |alert: &Alert| described.is_empty() || described.iter().any(|one| within(&one.labels, &alert.labels));
    let got: Vec<Alert> = got.into_iter().filter(meant).collect();
    if got.is_empty() {
        return Verdict::Passed;
    }
    let how = got
        .iter()
        .map(|alert| format!("not inactive: {}", show(&alert.labels)))
        .collect();
    Verdict::Failed {
        difference: Difference::Alerts {
            expected: Vec::new(),
            got,
            how,
        },
    }
}

fn within(named: &Labels, all: &Labels) -> bool {
    named.iter().all(|(name, value)| all.get(name) == Some(value))
}

fn fits(expected: &Expected, alert: &Alert, partial: bool) -> bool {
    if partial {
        within(&expected.labels, &alert.labels) && within(&expected.annotations, &alert.annotations)
    } else {
        expected.labels == alert.labels && expected.annotations == alert.annotations
    }
}

/// Each expected alert must be another of those that are there, and none may be left.
fn compare(expected: &[Expected], got: &[Alert], partial: bool) -> Verdict {
    let pairs = pair(expected, got, partial);
    let missing: Vec<&Expected> = (0..expected.len())
        .filter(|at| !pairs.contains(&Some(*at)))
        .map(|at| &expected[at])
        .collect();
    let extra: Vec<&Alert> = got
        .iter()
        .zip(&pairs)
        .filter(|(_, of)| of.is_none())
        .map(|(alert, _)| alert)
        .collect();
    if missing.is_empty() && extra.is_empty() {
        return Verdict::Passed;
    }
    Verdict::Failed {
        difference: Difference::Alerts {
            how: how(&missing, &extra, partial),
            expected: missing
                .into_iter()
                .map(|one| Alert {
                    labels: one.labels.clone(),
                    annotations: one.annotations.clone(),
                })
                .collect(),
            got: extra.into_iter().cloned().collect(),
        },
    }
}

/// For each alert the expected one that it is, in a largest matching (augmenting paths, breadth first).
fn pair(expected: &[Expected], got: &[Alert], partial: bool) -> Vec<Option<usize>> {
    let mut of: Vec<Option<usize>> = vec![None; got.len()];
    for start in 0..expected.len() {
        // From which expected alert each one that is there was reached.
        let mut reached: Vec<Option<usize>> = vec![None; got.len()];
        let mut waiting = std::collections::VecDeque::from([start]);
        let mut free = None;
        'search: while let Some(wants) = waiting.pop_front() {
            for (at, alert) in got.iter().enumerate() {
                if reached[at].is_some() || !fits(&expected[wants], alert, partial) {
                    continue;
                }
                reached[at] = Some(wants);
                let Some(other) = of[at] else {
                    free = Some(at);
                    break 'search;
                };
                waiting.push_back(other);
            }
        }
        // Back along the way, each takes what it had reached.
        while let Some(at) = free {
            let Some(wants) = reached[at] else { break };
            free = of.iter().position(|has| *has == Some(wants));
            of[at] = Some(wants);
            if wants == start {
                break;
            }
        }
    }
    of
}

/// How the missing differ from what was there instead; each beside the one that is most like it.
fn how(missing: &[&Expected], extra: &[&Alert], partial: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let mut left: Vec<&Alert> = extra.to_vec();
    for one in missing {
        let like = |alert: &&Alert| {
            let same = |named: &Labels, all: &Labels| {
                named
                    .iter()
                    .filter(|(name, value)| all.get(*name) == Some(value))
                    .count()
            };
            same(&one.labels, &alert.labels) * 2 + same(&one.annotations, &alert.annotations)
        };
        let Some(nearest) = (0..left.len()).max_by_key(|at| like(&left[*at])) else {
            lines.push(format!("missing: {}", show(&one.labels)));
            continue;
        };
        let alert = left.swap_remove(nearest);
        differences("label", &one.labels, &alert.labels, partial, &mut lines);
        differences("annotation", &one.annotations, &alert.annotations, partial, &mut lines);
    }
    lines.extend(
        left.into_iter()
            .map(|alert| format!("not expected: {}", show(&alert.labels))),
    );
    lines
}

fn differences(kind: &str, expected: &Labels, got: &Labels, partial: bool, lines: &mut Vec<String>) {
    for (name, value) in expected {
        match got.get(name) {
            Some(other) if other == value => {}
            Some(other) => lines.push(format!("{kind} {name}: expected {value:?}, got {other:?}")),
            None => lines.push(format!("{kind} {name}: expected {value:?}, got none")),
        }
    }
    let others = got.iter().filter(|(name, _)| !partial && !expected.contains_key(*name));
    lines.extend(others.map(|(name, value)| format!("{kind} {name}: expected none, got {value:?}")));
}

/// Labels in PromQL's notation.
pub(super) fn show(labels: &Labels) -> String {
    let all: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    format!("{{{}}}", all.join(", "))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(text: &str) -> Labels {
        text.split_whitespace()
            .filter_map(|one| one.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    fn expected(text: &str) -> Expected {
        Expected {
            labels: labels(text),
            annotations: Labels::new(),
        }
    }

    fn there(text: &str) -> Alert {
        Alert {
            labels: labels(text),
            annotations: Labels::new(),
        }
    }

    #[test]
    fn a_vague_expectation_leaves_the_alert_that_another_needs() {
        let wanted = [expected("a=1"), expected("a=1 b=2")];
        assert_eq!(
            compare(&wanted, &[there("a=1 b=2"), there("a=1 b=3")], true),
            Verdict::Passed
        );
        assert!(matches!(
            compare(&wanted, &[there("a=1 b=3"), there("a=1 b=4")], true),
            Verdict::Failed { .. }
        ));
        assert!(matches!(
            compare(&wanted[..1], &[there("a=1"), there("a=1 c=1")], true),
            Verdict::Failed { .. }
        ));
    }

    #[test]
    fn a_difference_names_the_label() {
        let Verdict::Failed {
            difference: Difference::Alerts { how, .. },
        } = compare(&[expected("a=1 b=2")], &[there("a=1 b=3 c=4")], false)
        else {
            panic!("they differ")
        };
        assert_eq!(
            how,
            [
                "label b: expected \"2\", got \"3\"",
                "label c: expected none, got \"4\""
            ]
        );
    }

    /// Every assignment tried, as long as there are few.
    fn possible(expected: &[Expected], got: &[Alert], used: u32) -> bool {
        let Some((first, rest)) = expected.split_first() else {
            return used.count_ones() as usize == got.len();
        };
        got.iter()
            .enumerate()
            .any(|(at, alert)| used & (1 << at) == 0 && fits(first, alert, true) && possible(rest, got, used | 1 << at))
    }

    proptest! {
        #[test]
        fn a_matching_is_found_where_there_is_one(
            wanted in proptest::collection::vec("(a=[12] )?(b=[12] )?(c=[12])?", 0..6),
            got in proptest::collection::vec("a=[12] b=[12] c=[12]", 0..6),
        ) {
            let wanted: Vec<_> = wanted.iter().map(|text| expected(text)).collect();
            let got: Vec<_> = got.iter().map(|text| there(text)).collect();
            let passed = compare(&wanted, &got, true) == Verdict::Passed;
            prop_assert_eq!(passed, possible(&wanted, &got, 0));
        }
    }
}
