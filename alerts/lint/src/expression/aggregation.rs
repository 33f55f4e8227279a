//! Aggregations that drop what is needed, add up what is one number, or group by what never ends.

use manifest::Scope;
use promql::Span;
use promql::ast::{Aggregator, Expr, MatchOp};

use super::shape::is_call;
use super::table::{ABSENT_AGGREGATED, IDENTITY_LABEL, LABEL_DROPPED, LE_DROPPED, SELECTION_FLAPS, SHARED_SUM};
use super::{Look, Purpose};
use crate::Severity;
use crate::flow::How;

/// `histogram_quantile` of what has no `le` any more.
pub(super) fn le(look: &mut Look<'_>, expr: &Expr, _: &[&Expr]) {
    let Expr::Call(call) = expr else {
        return;
    };
    let Some(vector) = call.arguments.get(1).filter(|_| call.name() == "histogram_quantile") else {
        return;
    };
    // Native histograms need no `le`, and have no `_bucket`.
    let classic = vector
        .selectors()
        .iter()
        .any(|selector| selector.metric().is_some_and(|name| name.ends_with("_bucket")));
    let flow = look.flows.of(vector);
    let Some(loss) = flow.lost("le").filter(|_| classic) else {
        return;
    };
    // VictoriaMetrics' own histograms have ranges in the place of bounds.
    if loss.how == How::By && flow.lost("vmrange").is_none() {
        return;
    }
    let by = one_line(look.text(loss.span));
    let what = match loss.how {
        How::By | How::Without => format!("`{by}` drops `le`, of which `histogram_quantile` computes."),
        How::Aggregated => format!("`{by}` without `by (le)` drops `le`, of which `histogram_quantile` computes."),
        _ => "`le` is dropped before `histogram_quantile`, which computes of it.".to_owned(),
    };
    let text = look.text(loss.span);
    let found = look.find(&LE_DROPPED, loss.span, what);
    match (loss.how, text.find('(')) {
        (How::By, Some(open)) => {
            let at = loss.span.start + open as u32 + 1;
            let rest = text[open + 1..].trim();
            let insert = if rest.starts_with(')') { "le" } else { "le, " };
            found.fix("keep `le`", vec![(Span::new(at, at), insert.to_owned())]);
        }
        (How::Aggregated, _) => {
            let at = Span::new(loss.span.end, loss.span.end);
            found.fix("keep `le`", vec![(at, " by (le) ".to_owned())]);
        }
        _ => {}
    }
}

/// A sum over replicas of what they all read in one place; grouping by what an inner operation dropped.
pub(super) fn shared(look: &mut Look<'_>, expr: &Expr, _: &[&Expr]) {
    let Expr::Aggregation(aggregation) = expr else {
        return;
    };
    let adds_up = aggregation.aggregator() == Some(Aggregator::Sum);
    let per_replica = ["instance", "pod"].iter().any(|label| aggregation.keeps(label));
    if let Some(known) = one_metric(&aggregation.expr).and_then(|name| look.context.manifest.lookup(name))
        && adds_up
        && !per_replica
        && known.metric.scope == Scope::Shared
    {
        let what = format!(
            "Every replica exports the same `{}`; the sum counts it once for each.",
            known.metric.name
        );
        let found = look
            .find(&SHARED_SUM, aggregation.span, what)
            .according_to(&known.metric.source);
        found.fix("use `max`", vec![(aggregation.op_span, "max".to_owned())]);
    }
    let Some(grouping) = aggregation.grouping.as_ref().filter(|grouping| !grouping.without) else {
        return;
    };
    let inner = look.flows.of(&aggregation.expr);
    for label in &grouping.labels {
        let Some(loss) = inner.lost(&label.text) else {
            continue;
        };
        // A label that is never there groups by nothing; that some metrics lack one is how rules for many are written.
        if matches!(
            loss.how,
            How::Constant | How::AskedEmpty | How::NotExported | How::Recorded
        ) {
            continue;
        }
        let what = format!(
            "`{}` has no label `{}` any more.",
            one_line(look.text(loss.span)),
            label.text
        );
        look.find(&LABEL_DROPPED, label.span, what)
            .graded(Severity::Warning)
            .because("Grouping by it has no effect.");
    }
}

/// The metric of an expression that is one selector, as it is or over time.
fn one_metric(expr: &Expr) -> Option<&str> {
    match expr.unparenthesised() {
        Expr::Selector(selector) => selector.metric(),
        Expr::Call(call) if call.name().ends_with("_over_time") => call.arguments.last().and_then(one_metric),
        _ => None,
    }
}

/// Labels that tell one request, user or order from another.
const IDENTITIES: &[&str] = &[
    "correlation_id",
    "customer_id",
    "email",
    "event_id",
    "message_id",
    "order_id",
    "payment_id",
    "request_id",
    "saga_id",
    "session_id",
    "span_id",
    "trace_id",
    "transaction_id",
    "user_id",
    "uuid",
];

pub(super) fn identities(look: &mut Look<'_>, expr: &Expr, _: &[&Expr]) {
    match expr {
        Expr::Aggregation(aggregation) => {
            let Some(grouping) = aggregation.grouping.as_ref().filter(|grouping| !grouping.without) else {
                return;
            };
            for label in grouping
                .labels
                .iter()
                .filter(|label| IDENTITIES.contains(&&*label.text))
            {
                let what = format!("`{}` has as many values as there are of what it names.", label.text);
                look.find(&IDENTITY_LABEL, label.span, what).graded(Severity::Error);
            }
        }
        Expr::Selector(selector) => {
            let known = selector.metric().and_then(|name| look.context.manifest.lookup(name));
            let Some(metric) = known.map(|known| known.metric) else {
                return;
            };
            for label in metric
                .labels
                .iter()
                .filter(|label| IDENTITIES.contains(&label.name.as_str()))
            {
                let what = format!("`{}` has a series for every `{}`.", metric.name, label.name);
                look.find(&IDENTITY_LABEL, selector.span, what)
                    .graded(Severity::Error)
                    .according_to(&metric.source);
            }
        }
        _ => {}
    }
}

/// An alert whose series are the k greatest.
pub(super) fn selection(look: &mut Look<'_>, expr: &Expr, above: &[&Expr]) {
    let Expr::Aggregation(aggregation) = expr else {
        return;
    };
    let Some(aggregator) = aggregation.aggregator().filter(|aggregator| aggregator.is_selection()) else {
        return;
    };
    let mut below = expr;
    for parent in above.iter().rev() {
        let passes = match parent {
            Expr::Paren(_) => true,
            Expr::Binary(binary) => {
                let is_left = std::ptr::eq(below, &raw const binary.left);
                is_left && (binary.op.is_comparison() || binary.op.is_set()) && binary.matching.is_none()
            }
            _ => false,
        };
        if !passes {
            return;
        }
        below = parent;
    }
    if look.context.purpose == Purpose::Alert {
        let what = format!("Which series `{aggregator}` selects changes between evaluations.");
        look.find(&SELECTION_FLAPS, aggregation.span, what);
    }
}

/// `absent` of what many series make up.
pub(super) fn absent(look: &mut Look<'_>, expr: &Expr, _: &[&Expr]) {
    let Expr::Call(call) = expr else {
        return;
    };
    if !is_call(expr, &["absent", "absent_over_time"]) || look.context.purpose != Purpose::Alert {
        return;
    }
    let what = match call.arguments.first().map(Expr::unparenthesised) {
        Some(Expr::Aggregation(_)) => "`absent` of an aggregation has no labels at all.".to_owned(),
        Some(Expr::Selector(selector)) => {
            let mut views = selector
                .views()
                .filter(|view| view.op == MatchOp::Regex && view.value.contains('|'));
            let Some(view) = views.next() else {
                return;
            };
            format!("This is true only when none of `{}` is there.", look.text(view.span))
        }
        _ => return,
    };
    look.find(&ABSENT_AGGREGATED, call.span, what);
}

/// Text with its white space as single blanks.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
