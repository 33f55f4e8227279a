//! What each operation does with the labels of what it is given, as Prometheus' engine does it.

use promql::Span;
use promql::ast::{Aggregation, Aggregator, Binary, BinaryOp, Call, Cardinality, Expr, MatchOp, Matching};

use super::{Flow, Flows, How, Loss, Presence};

pub(super) fn flow(expr: &Expr, flows: &Flows) -> Flow {
    match expr {
        Expr::Number(number) => Flow::nothing(number.span, How::Constant),
        Expr::String(string) => Flow::nothing(string.span, How::Constant),
        Expr::Selector(_) | Expr::Variable(_) => Flow::anything(),
        Expr::Subquery(subquery) => flows.of(&subquery.expr).clone(),
        Expr::Unary(unary) => flows.of(&unary.expr).clone(),
        Expr::Paren(paren) => flows.of(&paren.expr).clone(),
        Expr::Aggregation(aggregation) => aggregated(aggregation, flows.of(&aggregation.expr)),
        Expr::Call(call) => called(call, flows),
        Expr::Binary(binary) => combined(binary, flows),
    }
}

fn lost(span: Span, how: How) -> Presence {
    Presence::Impossible(Loss { span, how })
}

/// What is kept as it is, or lost; what was lost before stays lost where it was.
fn keep(presence: Presence, kept: bool, span: Span, how: How) -> Presence {
    match presence {
        Presence::Impossible(_) => presence,
        _ if kept => presence,
        _ => lost(span, how),
    }
}

fn aggregated(aggregation: &Aggregation, inner: &Flow) -> Flow {
    let Some(aggregator) = aggregation.aggregator() else {
        return Flow::anything();
    };
    if aggregator.is_selection() {
        return inner.clone();
    }
    let mut flow = match &aggregation.grouping {
        None => inner.map(|_, presence| keep(presence, false, aggregation.op_span, How::Aggregated)),
        Some(grouping) if grouping.labels.iter().any(|label| label.templated) => Flow::anything(),
        Some(grouping) => {
            let how = if grouping.without { How::Without } else { How::By };
            let mut whole = inner.clone();
            for label in &grouping.labels {
                whole.set(&label.text, inner.presence(&label.text));
            }
            whole.map(|label, presence| {
                let kept = label.map_or(grouping.without, |label| aggregation.keeps(label));
                keep(presence, kept, grouping.span, how)
            })
        }
    };
    if aggregator == Aggregator::CountValues
        && let Some(Expr::String(label)) = aggregation.parameter.as_ref().map(Expr::unparenthesised)
    {
        flow.set(&label.value, Presence::Certain);
    }
    flow
}

fn called(call: &Call, flows: &Flows) -> Flow {
    let vector = |index: usize| call.arguments.get(index).map(|argument| flows.of(argument).clone());
    let text = |index: usize| match call.arguments.get(index).map(Expr::unparenthesised) {
        Some(Expr::String(string)) if !string.templated => Some(&*string.value),
        _ => None,
    };
    match call.name() {
        "" | "info" | "histogram_quantiles" => Flow::anything(),
        "absent" | "absent_over_time" => absent(call),
        "label_replace" | "label_join" => match (vector(0), text(1)) {
            (Some(mut flow), Some(label)) => {
                let may_match = match flow.presence(label) {
                    known if known.is_certain() => Presence::Certain,
                    _ => Presence::Possible,
                };
                flow.set(label, may_match);
                flow
            }
            _ => Flow::anything(),
        },
        "histogram_quantile" => {
            let mut flow = vector(1).unwrap_or_else(Flow::anything);
            flow.set("le", lost(call.name_span, How::Quantile));
            flow
        }
        "histogram_fraction" => {
            let mut flow = vector(2).unwrap_or_else(Flow::anything);
            flow.set("le", lost(call.name_span, How::Quantile));
            flow
        }
        "quantile_over_time" => vector(1).unwrap_or_else(Flow::anything),
        "vector" | "scalar" | "time" | "pi" | "step" | "range" | "start" | "end" => {
            Flow::nothing(call.span, How::Constant)
        }
        _ => vector(0).unwrap_or_else(|| Flow::nothing(call.span, How::Constant)),
    }
}

/// Only labels of matchers with `=`, each compared once.
fn absent(call: &Call) -> Flow {
    let mut flow = Flow::nothing(call.span, How::Absent);
    if let Some(Expr::Selector(selector)) = call.arguments.first().map(Expr::unparenthesised) {
        for view in selector.views() {
            let alone = selector.matchers_of(view.label).count() == 1;
            if view.op == MatchOp::Equal && alone && !view.value.is_empty() && view.label != "__name__" {
                flow.set(view.label, Presence::Fixed);
            }
        }
    }
    flow
}

fn combined(binary: &Binary, flows: &Flows) -> Flow {
    use promql::ValueType::Scalar;
    let (left, right) = (flows.of(&binary.left), flows.of(&binary.right));
    match (binary.left.value_type(), binary.right.value_type()) {
        (_, Some(Scalar)) => return left.clone(),
        (Some(Scalar), _) => return right.clone(),
        _ => {}
    }
    match (binary.op, binary.cardinality()) {
        (BinaryOp::Or, _) => left.or(right),
        (BinaryOp::Unless, _) => left.clone(),
        // Nothing comes of it, and nothing more is said about that.
        _ if left.unmatched(right, binary.matching.as_ref()).next().is_some()
            || right.unmatched(left, binary.matching.as_ref()).next().is_some() =>
        {
            Flow::anything()
        }
        (BinaryOp::And, _) => left.clone(),
        (_, Cardinality::OneToMany) => grouped(binary.matching.as_ref(), right, left),
        (_, Cardinality::ManyToOne) => grouped(binary.matching.as_ref(), left, right),
        _ => matched(binary.matching.as_ref(), left, right),
    }
}

/// Series of one side or of the other.
pub(super) fn either(left: Presence, right: Presence) -> Presence {
    match (left, right) {
        (Presence::Impossible(_), Presence::Impossible(_)) => left,
        _ if left.is_certain() && right.is_certain() => Presence::Certain,
        _ => Presence::Possible,
    }
}

/// A label that both sides must have alike.
fn alike(left: Presence, right: Presence) -> Presence {
    match (left, right) {
        (Presence::Impossible(_), _) => left,
        (_, Presence::Impossible(_)) => right,
        (Presence::Fixed, _) | (_, Presence::Fixed) => Presence::Fixed,
        (Presence::Certain, _) | (_, Presence::Certain) => Presence::Certain,
        _ => Presence::Possible,
    }
}

fn matched(matching: Option<&Matching>, left: &Flow, right: &Flow) -> Flow {
    let flow = left.zip(right, alike);
    let Some(matching) = matching else {
        return flow;
    };
    let mut whole = flow.clone();
    for label in &matching.labels {
        whole.set(&label.text, flow.presence(&label.text));
    }
    let how = if matching.on { How::On } else { How::Ignoring };
    whole.map(|label, presence| {
        let kept = label.map_or(!matching.on, |label| matching.compares(label));
        keep(presence, kept, matching.span, how)
    })
}

/// All labels of the side with many, and what is included of the other.
fn grouped(matching: Option<&Matching>, many: &Flow, one: &Flow) -> Flow {
    let mut flow = many.clone();
    let group = matching.and_then(|matching| matching.group.as_ref());
    for label in group.map(|group| &*group.include).unwrap_or_default() {
        flow.set(&label.text, one.presence(&label.text));
    }
    flow
}
