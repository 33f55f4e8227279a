//! What expressions have in common, apart from places and matchers; and what stands at the bottom of one.

use promql::ast::{Expr, MatcherView, Selector};

/// Whether both ask for the same with the same operations, but for their matchers, and the labels in which those differ.
pub fn same_but_matchers<'q>(left: &'q Expr, right: &'q Expr) -> Option<Vec<&'q str>> {
    let mut differing = Vec::new();
    same(left, right, &mut differing).then_some(differing)
}

fn same<'q>(left: &'q Expr, right: &'q Expr, differing: &mut Vec<&'q str>) -> bool {
    match (left.unparenthesised(), right.unparenthesised()) {
        (Expr::Number(a), Expr::Number(b)) => a.value.to_bits() == b.value.to_bits(),
        (Expr::String(a), Expr::String(b)) => a.value == b.value,
        (Expr::Selector(a), Expr::Selector(b)) => {
            let same_modifiers = a.modifiers.at.is_none()
                && b.modifiers.at.is_none()
                && offset(a) == offset(b)
                && a.metric().is_some()
                && a.metric() == b.metric()
                && !a.metric_is_templated()
                && !a.has_unknown_matchers()
                && !b.has_unknown_matchers();
            let range = |selector: &Selector| {
                let range = selector.range.as_ref();
                (
                    range.is_some(),
                    range.and_then(|range| range.duration.seconds()).map(f64::to_bits),
                )
            };
            if !same_modifiers || range(a) != range(b) {
                return false;
            }
            for (one, other) in [(a, b), (b, a)] {
                for view in one.views() {
                    if !other.views().any(|candidate| same_view(view, candidate)) && !differing.contains(&view.label) {
                        differing.push(view.label);
                    }
                }
            }
            true
        }
        (Expr::Call(a), Expr::Call(b)) => {
            !a.name().is_empty()
                && a.name() == b.name()
                && a.arguments.len() == b.arguments.len()
                && a.arguments.iter().zip(&b.arguments).all(|(a, b)| same(a, b, differing))
        }
        (Expr::Aggregation(a), Expr::Aggregation(b)) => {
            let labels = |grouping: &promql::ast::Grouping| {
                let mut names: Vec<Box<str>> = grouping.labels.iter().map(|label| label.text.clone()).collect();
                names.sort();
                names.dedup();
                (grouping.without, names)
            };
            a.aggregator().is_some()
                && a.aggregator() == b.aggregator()
                && a.parameter.is_none()
                && b.parameter.is_none()
                && a.grouping.as_ref().map(labels) == b.grouping.as_ref().map(labels)
                && same(&a.expr, &b.expr, differing)
        }
        _ => false,
    }
}

fn same_view(a: MatcherView<'_>, b: MatcherView<'_>) -> bool {
    (a.label, a.op, a.value) == (b.label, b.op, b.value)
}

fn offset(selector: &Selector) -> Option<u64> {
    let offset = selector.modifiers.offset.as_ref()?;
    Some(offset.duration.seconds().map_or(u64::MAX, f64::to_bits))
}

/// Whether an expression is a call of one of these functions.
pub fn is_call(expr: &Expr, names: &[&str]) -> bool {
    matches!(expr, Expr::Call(call) if names.contains(&call.name()))
}

/// Whether there is a call of one of these functions anywhere in it.
pub fn holds_call(expr: &Expr, names: &[&str]) -> bool {
    holds(expr, |part| is_call(part, names))
}

/// Whether any part of it is such.
pub fn holds(expr: &Expr, is_it: impl Fn(&Expr) -> bool) -> bool {
    let mut found = false;
    expr.walk(&mut |part| found |= is_it(part));
    found
}

/// Functions that read growth off a counter.
pub const GROWTH: &[&str] = &["rate", "irate", "increase"];
