//! Operators between vectors whose sides have no series in common, too many, or the same ones.

use promql::ast::{Binary, BinaryOp, Cardinality, Expr, MatchOp, Matching, Selector};
use promql::{Span, ValueType};

use super::Look;
use super::shape::same_but_matchers;
use super::table::{MANY_TO_ONE, NO_MATCH, SAME_SERIES};
use crate::Severity;
use crate::flow::{Flow, Presence};

pub(super) fn binary(look: &mut Look<'_>, expr: &Expr, _: &[&Expr]) {
    let Expr::Binary(binary) = expr else {
        return;
    };
    let is_vector = |side: &Expr| side.value_type() == Some(ValueType::Vector);
    let templated = binary
        .matching
        .as_ref()
        .is_some_and(|matching| matching.labels.iter().any(|label| label.templated));
    if !is_vector(&binary.left) || !is_vector(&binary.right) || !binary.fill.is_empty() || templated {
        return;
    }
    if same_series(look, binary) || no_match(look, binary) {
        return;
    }
    if binary.cardinality() == Cardinality::OneToOne {
        many_to_one(look, binary, &binary.left, &binary.right);
        many_to_one(look, binary, &binary.right, &binary.left);
    }
}

fn compares(matching: Option<&Matching>, label: &str) -> bool {
    matching.is_none_or(|matching| matching.compares(label))
}

/// Both sides ask for the same, and the labels in which they differ are compared: each series meets itself.
fn same_series(look: &mut Look<'_>, binary: &Binary) -> bool {
    let always = match binary.op {
        BinaryOp::Div => "1",
        BinaryOp::Sub | BinaryOp::Mod => "0",
        BinaryOp::Greater | BinaryOp::Less | BinaryOp::NotEqual => "empty",
        _ => return false,
    };
    let Some(differing) = same_but_matchers(&binary.left, &binary.right) else {
        return false;
    };
    let matching = binary.matching.as_ref();
    if matching.is_some_and(|matching| matching.group.is_some()) {
        return false;
    }
    let (left, right) = (look.flows.of(&binary.left), look.flows.of(&binary.right));
    let meets = |label: &&str| compares(matching, label) && left.lost(label).is_none() && right.lost(label).is_none();
    if !differing.iter().all(meets) {
        return false;
    }
    let (one, other) = (binary.left.selectors(), binary.right.selectors());
    let apart = one
        .iter()
        .zip(&other)
        .find_map(|(one, other)| differing.iter().find(|label| excludes(one, other, label)));
    if let Some(label) = apart {
        let what = format!("`{label}` must be the same on both sides, and each side asks for another value of it.");
        let found = look.find(&NO_MATCH, binary.span, what);
        if matching.is_none() {
            let at = Span::new(binary.op_span.end, binary.op_span.end);
            let edits = vec![(at, format!(" ignoring ({label})"))];
            found.propose(format!("do not compare `{label}`"), edits);
        }
        return true;
    }
    let what = match differing.as_slice() {
        [] => format!("Both sides are the same: the result is always {always}."),
        labels => format!(
            "Both sides carry `{}`, and what the narrower one selects is among what the other does: every series meets itself, and the result is always {always}.",
            labels.join("` and `")
        ),
    };
    let has_job = left.lost("job").is_none();
    let found = look.find(&SAME_SERIES, binary.span, what);
    if !differing.is_empty() && matching.is_none() && has_job {
        let edits = around(binary, "sum by (job) ");
        found.propose("add up both sides before", edits);
    }
    true
}

/// Puts an aggregation around both sides.
fn around(binary: &Binary, aggregation: &str) -> Vec<(Span, String)> {
    let mut edits = Vec::new();
    for side in [&binary.left, &binary.right] {
        let span = side.span();
        let bare = !matches!(side, Expr::Paren(_));
        let open = if bare {
            format!("{aggregation}(")
        } else {
            aggregation.to_owned()
        };
        edits.push((Span::new(span.start, span.start), open));
        if bare {
            edits.push((Span::new(span.end, span.end), ")".to_owned()));
        }
    }
    edits
}

/// Whether the two ask for different values of a label.
fn excludes(one: &Selector, other: &Selector, label: &str) -> bool {
    let equal = |selector: &Selector| {
        let mut views = selector
            .views()
            .filter(|view| view.label == label && view.op == MatchOp::Equal);
        views.next().map(|view| view.value.to_owned())
    };
    matches!((equal(one), equal(other)), (Some(one), Some(other)) if one != other)
}

/// A compared label is on every series of one side and on none of the other.
fn no_match(look: &mut Look<'_>, binary: &Binary) -> bool {
    if binary.op == BinaryOp::Or {
        return false;
    }
    let (left, right) = (look.flows.of(&binary.left), look.flows.of(&binary.right));
    let matching = binary.matching.as_ref();
    let only = |one: &Flow, other: &Flow| -> Vec<String> {
        let labels = one.unmatched(other, matching);
        labels.map(str::to_owned).collect()
    };
    let (only_left, only_right) = (only(left, right), only(right, left));
    if only_left.is_empty() && only_right.is_empty() {
        return false;
    }
    let side = |labels: &[String], has: &str, lacks: &str| match labels {
        [] => String::new(),
        labels => format!(
            "`{}` {} on every series on the {has} and on none on the {lacks}. ",
            labels.join("`, `"),
            if labels.len() == 1 { "is" } else { "are" }
        ),
    };
    let what = format!(
        "{}{}So no two series belong together.",
        side(&only_left, "left", "right"),
        side(&only_right, "right", "left"),
    );
    let common: Vec<&str> = ["job", "instance"]
        .into_iter()
        .filter(|label| left.lost(label).is_none() && right.lost(label).is_none())
        .chain(
            left.named()
                .filter(|(label, presence)| {
                    !matches!(*label, "job" | "instance") && presence.is_certain() && right.presence(label).is_certain()
                })
                .map(|(label, _)| label),
        )
        .collect();
    let source = [&binary.left, &binary.right]
        .into_iter()
        .find_map(|side| source(look, side));
    let is_unless = binary.op == BinaryOp::Unless;
    let on = matching.is_some_and(|matching| matching.on);
    let found = look.find(&NO_MATCH, binary.span, what.replace(". So", ", so"));
    if let Some(source) = source {
        found.according_to(&source);
    }
    if is_unless {
        found.graded(Severity::Warning).because("Nothing is ever excluded.");
    } else if !common.is_empty() && !on && !binary.op.is_set() {
        let aggregation = format!("sum by ({}) ", common.join(", "));
        found.propose("add up both sides by what they share", around(binary, &aggregation));
    } else if !common.is_empty() && binary.op.is_set() && matching.is_none() {
        let at = Span::new(binary.op_span.end, binary.op_span.end);
        let edits = vec![(at, format!(" on ({})", common.join(", ")))];
        found.propose("compare what they share", edits);
    }
    true
}

/// Who declares one of the metrics below.
fn source(look: &Look<'_>, side: &Expr) -> Option<manifest::Source> {
    side.selectors().into_iter().find_map(|selector| {
        let known = look.context.manifest.lookup(selector.metric()?)?;
        Some(known.metric.source.clone())
    })
}

/// A label that tells series of one side apart and is not compared.
fn many_to_one(look: &mut Look<'_>, binary: &Binary, side: &Expr, other: &Expr) {
    let Some(matching) = &binary.matching else {
        return;
    };
    let flow = look.flows.of(side);
    let told_apart: Vec<String> = flow
        .named()
        .filter(|(label, presence)| *presence == Presence::Certain && !matching.compares(label))
        .filter(|(label, _)| varies(look, side, label))
        .map(|(label, _)| label.to_owned())
        .collect();
    if told_apart.is_empty() {
        return;
    }
    let is_left = std::ptr::eq(side, &raw const binary.left);
    let place = if is_left { "left" } else { "right" };
    let what = format!(
        "Series on the {place} that differ in `{}` belong to the same one on the other side.",
        told_apart.join("`, `")
    );
    let other_is_one = other.selectors().len() <= 1;
    let source = source(look, side);
    let at = Span::new(matching.span.end, matching.span.end);
    let found = look.find(&MANY_TO_ONE, matching.span, what);
    if let Some(source) = source {
        found.according_to(&source);
    }
    if other_is_one {
        let group = if is_left { " group_left ()" } else { " group_right ()" };
        found.propose(format!("say that the {place} has many"), vec![(at, group.to_owned())]);
    }
}

/// Whether a label is declared with several values and nothing selects one of them.
fn varies(look: &Look<'_>, side: &Expr, label: &str) -> bool {
    let selectors = side.selectors();
    let is_declared = |selector: &&Selector| {
        let known = selector.metric().and_then(|name| look.context.manifest.lookup(name));
        known.is_some_and(|known| {
            matches!(
                known.metric.label(label).map(|label| &label.values),
                Some(manifest::Values::Closed(values)) if values.len() > 1
            ) && !matches!(known.metric.kind, manifest::Kind::StateSet | manifest::Kind::Info)
        })
    };
    selectors.iter().any(is_declared)
        && !selectors
            .iter()
            .any(|selector| selector.matchers_of(label).next().is_some())
}
