//! Conditions that no value can meet, and thresholds beside the bounds of buckets.

use manifest::Part;
use promql::ast::{BinaryOp, Call, Expr, MatchOp};

use super::interval::{Interval, interval};
use super::table::{ABOVE_TOP_BUCKET, LE_OFF_BUCKET, NEVER_TRUE, OFF_BUCKET};
use super::{Context, Look, Purpose};
use crate::Severity;

/// The histogram below `histogram_quantile` and its bounds, where they are known and there is only one.
pub(super) fn buckets_below<'a>(call: &Call, context: Context<'a>) -> Option<(&'a str, &'a [f64])> {
    let selectors = call.arguments.get(1)?.selectors();
    let [selector] = selectors.as_slice() else {
        return None;
    };
    let known = context.manifest.lookup(selector.metric()?)?;
    let metric = known.metric;
    (known.part == Part::Bucket && !metric.buckets.is_empty()).then_some((&metric.name, &metric.buckets))
}

pub(super) fn comparison(look: &mut Look<'_>, expr: &Expr, above: &[&Expr]) {
    let Expr::Binary(binary) = expr else {
        return;
    };
    if !binary.op.is_comparison() || binary.returns_bool.is_some() {
        return;
    }
    let left = interval(&binary.left, look.context);
    let right = interval(&binary.right, look.context);
    if left.why.is_none() && right.why.is_none() {
        return;
    }
    let never = match binary.op {
        BinaryOp::Greater => left.high <= right.low,
        BinaryOp::GreaterOrEqual => left.high < right.low,
        BinaryOp::Less => left.low >= right.high,
        BinaryOp::LessOrEqual => left.low > right.high,
        BinaryOp::Equal => left.high < right.low || right.high < left.low,
        _ => false,
    };
    if never {
        let Interval { why, top_bucket, .. } = if left.why.is_some() { left } else { right };
        let check = if top_bucket { &ABOVE_TOP_BUCKET } else { &NEVER_TRUE };
        let what = format!("This is never true: {}.", why.unwrap_or_default());
        let is_or = |expr: &&Expr| matches!(expr, Expr::Binary(outer) if outer.op == BinaryOp::Or);
        let found = look.find(check, binary.span, what);
        if above.iter().any(is_or) {
            found
                .graded(Severity::Warning)
                .because("This side of `or` adds nothing to the other.");
        }
        return;
    }
    off_bucket(look, &binary.left, &binary.right);
    off_bucket(look, &binary.right, &binary.left);
}

/// A quantile, scaled or not, and the threshold that it is compared with.
fn off_bucket(look: &mut Look<'_>, quantile: &Expr, threshold: &Expr) {
    let Some(threshold_value) = threshold.as_number().filter(|_| look.context.purpose == Purpose::Alert) else {
        return;
    };
    let mut scaled = threshold_value;
    let mut expr = quantile;
    let call = loop {
        match expr {
            Expr::Paren(paren) => expr = &paren.expr,
            Expr::Binary(binary) => match (binary.op, binary.right.as_number()) {
                (BinaryOp::Mul, Some(factor)) => {
                    scaled /= factor;
                    expr = &binary.left;
                }
                (BinaryOp::Div, Some(factor)) => {
                    scaled *= factor;
                    expr = &binary.left;
                }
                _ => return,
            },
            Expr::Call(call) if call.name() == "histogram_quantile" => break call,
            _ => return,
        }
    };
    let Some((name, buckets)) = buckets_below(call, look.context) else {
        return;
    };
    let Some((below, above)) = neighbours(buckets, scaled) else {
        return;
    };
    let factor = threshold_value / scaled;
    let what = format!(
        "{threshold_value} is no bound of `{name}`; the nearest are {} and {}.",
        below * factor,
        above * factor
    );
    let source = look.context.manifest.get(name).map(|metric| metric.source.clone());
    let found = look.find(&OFF_BUCKET, threshold.span(), what);
    if let Some(source) = source {
        found.according_to(&source);
    }
    found.propose(
        "use the bound above",
        vec![(threshold.span(), (above * factor).to_string())],
    );
}

/// The bounds on both sides of `value`, when it is none itself and between two.
fn neighbours(buckets: &[f64], value: f64) -> Option<(f64, f64)> {
    let near = |bound: f64| (bound - value).abs() <= value.abs() * 1e-9;
    if buckets.iter().any(|bound| near(*bound)) {
        return None;
    }
    let index = buckets.partition_point(|bound| *bound < value);
    let below = if index == 0 { 0.0 } else { buckets[index - 1] };
    Some((below, *buckets.get(index)?))
}

/// `le="…"` on a bound that the histogram does not have.
pub(super) fn buckets(look: &mut Look<'_>, expr: &Expr, _: &[&Expr]) {
    let Expr::Selector(selector) = expr else {
        return;
    };
    let Some(known) = selector.metric().and_then(|name| look.context.manifest.lookup(name)) else {
        return;
    };
    let bounds = &known.metric.buckets;
    if known.part != Part::Bucket || bounds.is_empty() {
        return;
    }
    for view in selector
        .matchers_of("le")
        .filter(|view| view.op == MatchOp::Equal && !view.templated)
    {
        let value: f64 = match view.value.parse() {
            Ok(value) => value,
            Err(_) => continue,
        };
        if value.is_infinite() || bounds.iter().any(|bound| (bound - value).abs() < 1e-12) {
            continue;
        }
        let nearest = match neighbours(bounds, value) {
            Some((below, above)) => format!("the nearest are {below} and {above}"),
            None => format!("the highest is {}", bounds.last().copied().unwrap_or_default()),
        };
        let what = format!("`{}` has no bucket up to {}; {nearest}.", known.metric.name, view.value);
        look.find(&LE_OFF_BUCKET, view.span, what)
            .according_to(&known.metric.source);
    }
}
