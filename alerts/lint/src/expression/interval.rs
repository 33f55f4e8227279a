//! Between which two numbers the values of an expression lie, and why. NaN lies nowhere: it meets no condition anyway.

use manifest::{Kind, Source, Unit};
use promql::ast::{Aggregator, Binary, BinaryOp, Call, Expr, MatcherView, Selector, Sign};

use super::shape::{GROWTH, same_but_matchers};
use super::{Context, bounds};

/// Two numbers, and what keeps values between them.
#[derive(Debug, Clone, PartialEq)]
pub struct Interval {
    /// The least value, or minus infinity.
    pub low: f64,
    /// The greatest value, or infinity.
    pub high: f64,
    /// A sentence, where it is not plain.
    pub why: Option<String>,
    /// Whether the upper end is the top bucket of a histogram.
    pub top_bucket: bool,
}

impl Interval {
    fn new(low: f64, high: f64) -> Self {
        Self {
            low,
            high,
            why: None,
            top_bucket: false,
        }
    }

    fn because(self, why: impl Into<String>) -> Self {
        Self {
            why: Some(why.into()),
            ..self
        }
    }

    fn anything() -> Self {
        Self::new(f64::NEG_INFINITY, f64::INFINITY)
    }

    /// The same reason for other ends; nothing is known where they are no numbers.
    fn moved(self, low: f64, high: f64) -> Self {
        if low.is_nan() || high.is_nan() {
            return Self::anything();
        }
        Self {
            low: low.min(high),
            high: high.max(low),
            ..self
        }
    }
}

/// Where the values of `expr` lie. The parser limits how deep it goes.
pub fn interval(expr: &Expr, context: Context<'_>) -> Interval {
    match expr {
        Expr::Number(number) => Interval::new(number.value, number.value),
        Expr::Paren(paren) => interval(&paren.expr, context),
        Expr::Subquery(subquery) => interval(&subquery.expr, context),
        Expr::Selector(selector) => of_metric(selector, context),
        Expr::Unary(unary) => {
            let inner = interval(&unary.expr, context);
            let (low, high) = (inner.low, inner.high);
            match unary.sign {
                Sign::Plus => inner,
                Sign::Minus => inner.moved(-high, -low),
            }
        }
        Expr::Aggregation(aggregation) => {
            let inner = interval(&aggregation.expr, context);
            match aggregation.aggregator() {
                Some(
                    Aggregator::Avg
                    | Aggregator::Min
                    | Aggregator::Max
                    | Aggregator::Topk
                    | Aggregator::Bottomk
                    | Aggregator::Quantile
                    | Aggregator::Limitk
                    | Aggregator::LimitRatio,
                ) => inner,
                Some(Aggregator::Sum) if inner.low >= 0.0 => inner.moved(0.0, f64::INFINITY),
                Some(Aggregator::Count) => {
                    Interval::new(1.0, f64::INFINITY).because("`count` of nothing is no result, not 0")
                }
                Some(Aggregator::Group) => Interval::new(1.0, 1.0).because("`group` is always 1"),
                Some(Aggregator::Stddev | Aggregator::Stdvar) => Interval::new(0.0, f64::INFINITY),
                _ => Interval::anything(),
            }
        }
        Expr::Call(call) => of_call(call, context),
        Expr::Binary(binary) => of_binary(binary, context),
        Expr::String(_) | Expr::Variable(_) => Interval::anything(),
    }
}

fn of_metric(selector: &Selector, context: Context<'_>) -> Interval {
    let Some(name) = selector.metric().filter(|_| !selector.metric_is_templated()) else {
        return Interval::anything();
    };
    if name == "up" {
        return Interval::new(0.0, 1.0).because("`up` is 0 or 1");
    }
    if context.records.contains_key(name) {
        return Interval::anything();
    }
    let Some(known) = context.manifest.lookup(name) else {
        return Interval::anything();
    };
    let metric = known.metric;
    if metric.is_cumulative(known.part) {
        return Interval::new(0.0, f64::INFINITY).because(format!("`{name}` counts, and is never less than 0"));
    }
    match metric.kind {
        Kind::Info => Interval::new(1.0, 1.0).because(format!("`{name}` is always 1")),
        Kind::StateSet => Interval::new(0.0, 1.0).because(format!("`{name}` is 0 or 1")),
        Kind::Gauge if metric.unit == Unit::Ratio && metric.source == Source::Catalogue => {
            Interval::new(0.0, 1.0).because(format!("`{name}` is a share, between 0 and 1"))
        }
        _ => Interval::anything(),
    }
}

fn of_call(call: &Call, context: Context<'_>) -> Interval {
    let argument = |index: usize| {
        call.arguments
            .get(index)
            .map_or_else(Interval::anything, |argument| interval(argument, context))
    };
    let number = |index: usize| call.arguments.get(index).and_then(Expr::as_number);
    match call.name() {
        name if GROWTH.contains(&name) => {
            Interval::new(0.0, f64::INFINITY).because(format!("`{name}` is never less than 0"))
        }
        "changes" | "resets" | "count_over_time" | "stddev_over_time" | "stdvar_over_time" => {
            Interval::new(0.0, f64::INFINITY).because(format!("`{}` is never less than 0", call.name()))
        }
        "absent" | "absent_over_time" | "present_over_time" => {
            Interval::new(1.0, 1.0).because(format!("`{}` is 1 or nothing", call.name()))
        }
        "avg_over_time" | "min_over_time" | "max_over_time" | "last_over_time" | "first_over_time" | "scalar"
        | "vector" | "sort" | "sort_desc" | "label_replace" | "label_join" => argument(0),
        "quantile_over_time" => argument(1),
        "sum_over_time" if argument(0).low >= 0.0 => Interval::new(0.0, f64::INFINITY),
        "abs" => Interval::new(0.0, f64::INFINITY),
        "clamp_min" | "clamp_max" | "clamp" => {
            let inner = argument(0);
            let (mut low, mut high) = (inner.low, inner.high);
            if let (Some(bound), "clamp_min" | "clamp") = (number(1), call.name()) {
                (low, high) = (low.max(bound), high.max(bound));
            }
            let above = if call.name() == "clamp" { number(2) } else { number(1) };
            if let (Some(bound), "clamp_max" | "clamp") = (above, call.name()) {
                (low, high) = (low.min(bound), high.min(bound));
            }
            inner
                .moved(low, high)
                .because(format!("`{}` keeps it there", call.name()))
        }
        "histogram_quantile" => match bounds::buckets_below(call, context) {
            Some((name, buckets)) => {
                let (Some(&first), Some(&top)) = (buckets.first(), buckets.last()) else {
                    return Interval::anything();
                };
                let why = format!("the highest finite bound of `{name}` is {top}");
                Interval {
                    top_bucket: true,
                    ..Interval::new(first.min(0.0), top).because(why)
                }
            }
            None => Interval::anything(),
        },
        _ => Interval::anything(),
    }
}

fn of_binary(binary: &Binary, context: Context<'_>) -> Interval {
    if binary.returns_bool.is_some() {
        return Interval::new(0.0, 1.0).because("`bool` makes it 0 or 1");
    }
    let (left, right) = (interval(&binary.left, context), interval(&binary.right, context));
    let (a, b, c, d) = (left.low, left.high, right.low, right.high);
    let because_of = || match (&left.why, &right.why) {
        (Some(_), None) => left.clone(),
        (None, Some(_)) => right.clone(),
        // Of two reasons neither is the whole truth.
        _ => Interval::anything(),
    };
    match binary.op {
        BinaryOp::And | BinaryOp::Unless => left,
        BinaryOp::Or => Interval::new(a.min(c), b.max(d)),
        BinaryOp::Add => because_of().moved(a + c, b + d),
        BinaryOp::Sub => because_of().moved(a - d, b - c),
        BinaryOp::Mul => {
            let ends = [a * c, a * d, b * c, b * d];
            if ends.iter().any(|end| end.is_nan()) {
                return Interval::anything();
            }
            let low = ends.iter().copied().fold(f64::INFINITY, f64::min);
            let high = ends.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            because_of().moved(low, high)
        }
        BinaryOp::Div if share(binary) => Interval::new(0.0, 1.0).because("a part is never more than the whole"),
        BinaryOp::Div => match binary.right.as_number() {
            Some(number) if number > 0.0 => left.moved(a / number, b / number),
            _ if a >= 0.0 && c >= 0.0 => Interval::new(0.0, f64::INFINITY),
            _ => Interval::anything(),
        },
        op if op.is_comparison() => match (binary.left.as_number(), binary.right.as_number()) {
            (Some(_), None) => right,
            _ => left,
        },
        _ => Interval::anything(),
    }
}

/// Whether the left side is a part of what the right side adds up: the same question with more conditions.
fn share(binary: &Binary) -> bool {
    let Some(differing) = same_but_matchers(&binary.left, &binary.right) else {
        return false;
    };
    let adds_up = matches!(
        binary.left.unparenthesised(),
        Expr::Aggregation(aggregation) if matches!(aggregation.aggregator(), Some(Aggregator::Sum | Aggregator::Count))
    );
    let (left, right) = (binary.left.selectors(), binary.right.selectors());
    let narrower = |(one, other): (&&Selector, &&Selector)| {
        let has = |view: MatcherView<'_>| {
            one.views()
                .any(|candidate| (candidate.label, candidate.op, candidate.value) == (view.label, view.op, view.value))
        };
        other.views().all(has)
    };
    let grows = left.iter().all(|selector| selector.range.is_some());
    adds_up && grows && !differing.is_empty() && left.iter().zip(&right).all(narrower)
}
