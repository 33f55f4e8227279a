//! What a metric is against what is done with it: counters compared as they are, rates of gauges, moments taken for
//! durations, quantiles averaged.

use manifest::{Found as Known, Kind, Part, Unit};
use promql::ast::{Aggregator, BinaryOp, Expr, Selector};

use super::Look;
use super::shape::{GROWTH, holds_call, is_call};
use super::table::{COUNTER_RAW, DELTA_ON_COUNTER, QUANTILE_AGGREGATED, RATE_OF_SUM, RATE_ON_GAUGE, TIMESTAMP_RAW};
use crate::Severity;

/// Functions that leave a value what it is, or take one of several.
const SAME_VALUE: &[&str] = &[
    "abs",
    "avg_over_time",
    "ceil",
    "clamp",
    "clamp_max",
    "clamp_min",
    "first_over_time",
    "floor",
    "label_join",
    "label_replace",
    "last_over_time",
    "max_over_time",
    "min_over_time",
    "quantile_over_time",
    "round",
    "scalar",
    "sort",
    "sort_desc",
    "sum_over_time",
    "vector",
];

fn known<'a>(look: &Look<'a>, selector: &Selector) -> Option<Known<'a>> {
    let name = selector.metric().filter(|_| !selector.metric_is_templated())?;
    if look.context.records.contains_key(name) {
        return None;
    }
    look.context.manifest.lookup(name)
}

/// What a value becomes on the way up to a comparison with a number.
struct Compared {
    op: BinaryOp,
    number: f64,
    /// The comparison is what the whole expression comes to, not a condition beside it.
    main: bool,
    /// The value was divided by another one on the way.
    divided: bool,
}

/// The comparison with a number that the value of `expr` reaches as what it is.
fn compared(expr: &Expr, above: &[&Expr]) -> Option<Compared> {
    let mut below = expr;
    let mut divided = false;
    for (index, parent) in above.iter().enumerate().rev() {
        match parent {
            Expr::Paren(_) | Expr::Subquery(_) | Expr::Unary(_) => {}
            Expr::Aggregation(aggregation) => match aggregation.aggregator()? {
                Aggregator::Count
                | Aggregator::CountValues
                | Aggregator::Group
                | Aggregator::Stddev
                | Aggregator::Stdvar => return None,
                _ => {}
            },
            Expr::Call(call) if SAME_VALUE.contains(&call.name()) => {}
            Expr::Binary(binary) => {
                let is_left = std::ptr::eq(below, &raw const binary.left);
                let other = if is_left { &binary.right } else { &binary.left };
                let number = other.as_number();
                if binary.op.is_comparison() {
                    return Some(Compared {
                        op: binary.op,
                        number: number?,
                        main: above[..index].iter().all(|expr| matches!(expr, Expr::Paren(_))),
                        divided,
                    });
                }
                match (binary.op, number) {
                    (BinaryOp::Mul | BinaryOp::Div, Some(_)) | (BinaryOp::Or, _) => {}
                    (BinaryOp::And | BinaryOp::Unless, None) if is_left => {}
                    (BinaryOp::Div, None) if is_left => divided = true,
                    _ => return None,
                }
            }
            _ => return None,
        }
        below = parent;
    }
    None
}

/// A counter whose value is compared with a number.
pub(super) fn counter(look: &mut Look<'_>, expr: &Expr, above: &[&Expr]) {
    let Expr::Selector(selector) = expr else {
        return;
    };
    let Some(known) = known(look, selector) else {
        return;
    };
    if !known.metric.is_cumulative(known.part) {
        return;
    }
    let Some(compared) = compared(expr, above) else {
        return;
    };
    // “Has it ever happened” and “is there any traffic at all” are questions that one may ask.
    if compared.number == 0.0 && (!compared.main || matches!(compared.op, BinaryOp::Equal | BinaryOp::LessOrEqual)) {
        return;
    }
    let name = selector.metric().unwrap_or_default();
    let what = if compared.divided {
        format!("`{name}` only grows: this is a mean since the process began, in which a change drowns.")
    } else {
        format!("`{name}` only grows: once the condition is true it stays so until the process restarts.")
    };
    let grave = compared.number != 0.0 && !compared.divided;
    let found = look
        .find(&COUNTER_RAW, selector.span, what)
        .according_to(&known.metric.source);
    if !grave {
        found.graded(Severity::Warning);
    }
    if selector.range.is_none() && selector.modifiers == promql::ast::Modifiers::default() && !compared.divided {
        let end = promql::Span::new(selector.span.end, selector.span.end);
        let start = promql::Span::new(selector.span.start, selector.span.start);
        let edits = vec![(start, "increase(".to_owned()), (end, "[5m])".to_owned())];
        found.propose("compare what it grew by", edits);
    }
}

/// The selector that a function of ranges is given.
fn ranged(expr: &Expr) -> Option<&Selector> {
    match expr.unparenthesised() {
        Expr::Selector(selector) => Some(selector),
        Expr::Subquery(subquery) => match subquery.expr.unparenthesised() {
            Expr::Selector(selector) => Some(selector),
            _ => None,
        },
        _ => None,
    }
}

/// A function for counters on a gauge, and the other way round.
pub(super) fn gauge(look: &mut Look<'_>, expr: &Expr, _: &[&Expr]) {
    const OF_GAUGES: &[&str] = &["delta", "idelta", "deriv", "predict_linear"];
    let Expr::Call(call) = expr else {
        return;
    };
    let Some(selector) = call.arguments.first().and_then(ranged) else {
        return;
    };
    let Some(known) = known(look, selector) else {
        return;
    };
    let (name, function) = (selector.metric().unwrap_or_default(), call.name());
    let on_gauge = known.part == Part::Value && matches!(known.metric.kind, Kind::Gauge | Kind::Info | Kind::StateSet);
    if GROWTH.contains(&function) && on_gauge {
        let instead = if function == "increase" { "delta" } else { "deriv" };
        let what = format!(
            "`{function}` is for counters; `{name}` is a {}.",
            known.metric.kind.as_str()
        );
        let found = look
            .find(&RATE_ON_GAUGE, call.span, what)
            .according_to(&known.metric.source);
        found.propose(format!("use `{instead}`"), vec![(call.name_span, instead.to_owned())]);
        if name.ends_with("_total") {
            found.graded(Severity::Warning);
        }
    } else if OF_GAUGES.contains(&function) && known.metric.is_cumulative(known.part) {
        let what = format!("`{function}` is for gauges; `{name}` only grows.");
        let found = look
            .find(&DELTA_ON_COUNTER, call.span, what)
            .according_to(&known.metric.source);
        let instead = match function {
            "delta" => "increase",
            "idelta" => "irate",
            "deriv" => "rate",
            _ => return,
        };
        found.propose(format!("use `{instead}`"), vec![(call.name_span, instead.to_owned())]);
    }
}

/// A moment that is compared with a number as if it were an age.
pub(super) fn timestamp(look: &mut Look<'_>, expr: &Expr, above: &[&Expr]) {
    /// Seconds from 1970 until 1973: what is less is no moment of any interest.
    const OLDEST: f64 = 1e8;
    let Expr::Selector(selector) = expr else {
        return;
    };
    let Some(known) = known(look, selector).filter(|known| known.metric.unit == Unit::Timestamp) else {
        return;
    };
    let Some(compared) = compared(expr, above) else {
        return;
    };
    if compared.number == 0.0 || compared.number.abs() >= OLDEST || compared.divided || known.part != Part::Value {
        return;
    }
    let name = selector.metric().unwrap_or_default();
    let what = format!(
        "`{name}` is a moment in seconds since 1970; it is never as small as {}.",
        compared.number
    );
    let start = promql::Span::new(selector.span.start, selector.span.start);
    let found = look
        .find(&TIMESTAMP_RAW, selector.span, what)
        .according_to(&known.metric.source);
    if above
        .iter()
        .all(|expr| matches!(expr, Expr::Paren(_) | Expr::Binary(_)))
    {
        found.propose("compare its age", vec![(start, "time() - ".to_owned())]);
    }
}

/// Quantiles that are summed or averaged.
pub(super) fn quantiles(look: &mut Look<'_>, expr: &Expr, _: &[&Expr]) {
    let Expr::Aggregation(aggregation) = expr else {
        return;
    };
    let Some(aggregator @ (Aggregator::Sum | Aggregator::Avg)) = aggregation.aggregator() else {
        return;
    };
    let inner = aggregation.expr.unparenthesised();
    let source = match inner {
        _ if is_call(inner, &["histogram_quantile"]) => None,
        Expr::Selector(selector) => match known(look, selector) {
            Some(known) if known.metric.kind == Kind::Summary && known.part == Part::Value => {
                Some(&known.metric.source)
            }
            _ => return,
        },
        _ => return,
    };
    let what = match aggregator {
        Aggregator::Sum => "The sum of quantiles means nothing.",
        _ => "The mean of quantiles is the quantile of nothing.",
    };
    let found = look.find(&QUANTILE_AGGREGATED, aggregation.span, what);
    if aggregator == Aggregator::Avg {
        found.graded(Severity::Warning);
    }
    if let Some(source) = source {
        found.according_to(source);
    }
}

/// `rate(sum(…)[5m:])`.
pub(super) fn rate_of_aggregate(look: &mut Look<'_>, expr: &Expr, _: &[&Expr]) {
    let Expr::Call(call) = expr else {
        return;
    };
    let Some(Expr::Subquery(subquery)) = call.arguments.first().map(Expr::unparenthesised) else {
        return;
    };
    let Expr::Aggregation(aggregation) = subquery.expr.unparenthesised() else {
        return;
    };
    let adds_up = matches!(aggregation.aggregator(), Some(Aggregator::Sum | Aggregator::Avg));
    let is_growth = holds_call(&aggregation.expr, GROWTH) || holds_call(&aggregation.expr, &["deriv", "delta"]);
    if !GROWTH.contains(&call.name()) || !adds_up || is_growth {
        return;
    }
    let what = format!("`{}` is taken of what was added up before.", call.name());
    look.find(&RATE_OF_SUM, call.span, what);
}
