//! Our tree in the form in which Prometheus hands out its own, with what it folds away while it reads folded too.

use promql::ast::{
    Binary, Cardinality, Duration, DurationOp, Expr, Fill, FillValue, Instant, Modifiers, Operand, RangeEdge, Selector,
    Side, Sign,
};
use serde_json::{Value, json};

pub fn of(expr: &Expr) -> Value {
    match expr {
        Expr::Number(number) => number_of(number.value),
        Expr::String(string) => json!({"type": "stringLiteral", "val": &*string.value}),
        Expr::Variable(name) => panic!("{name:?} is no part of PromQL"),
        Expr::Paren(paren) => json!({"type": "parenExpr", "expr": of(&paren.expr)}),
        Expr::Unary(unary) => match folded(expr) {
            Some(value) => number_of(value),
            None => json!({"type": "unaryExpr", "op": unary.sign.text(), "expr": of(&unary.expr)}),
        },
        Expr::Call(call) => {
            let function = call.function.known().unwrap();
            let arguments: Vec<Value> = call.arguments.iter().map(of).collect();
            let types: Vec<&str> = function.arguments.iter().map(|of| type_of(*of)).collect();
            let variadic = match function.arity {
                promql::Arity::Exact => 0,
                promql::Arity::Optional(more) => i32::from(more),
                promql::Arity::Any => -1,
            };
            json!({"type": "call", "args": arguments, "func": {
                "name": function.name, "argTypes": types, "variadic": variadic, "returnType": type_of(function.returns),
            }})
        }
        Expr::Aggregation(aggregation) => {
            let grouping = aggregation.grouping.as_ref();
            let labels: Vec<&str> = grouping
                .iter()
                .flat_map(|grouping| &grouping.labels)
                .map(|name| &*name.text)
                .collect();
            json!({
                "type": "aggregation",
                "op": aggregation.aggregator().unwrap().text(),
                "expr": of(&aggregation.expr),
                "param": aggregation.parameter.as_ref().map(of),
                "grouping": labels,
                "without": grouping.is_some_and(|grouping| grouping.without),
            })
        }
        Expr::Binary(binary) => json!({
            "type": "binaryExpr",
            "op": binary.op.text(),
            "lhs": of(&binary.left),
            "rhs": of(&binary.right),
            "matching": matching(binary),
            "bool": binary.returns_bool.is_some(),
        }),
        Expr::Subquery(subquery) => {
            let mut value = json!({
                "type": "subquery",
                "expr": of(&subquery.expr),
                "range": milliseconds(Some(&subquery.range)),
                "rangeExpr": computed(Some(&subquery.range)),
                "step": milliseconds(subquery.step.as_ref()),
                "stepExpr": computed(subquery.step.as_ref()),
            });
            modify(&mut value, &subquery.modifiers);
            value
        }
        Expr::Selector(selector) => selector_of(selector),
    }
}

fn selector_of(selector: &Selector) -> Value {
    let mut matchers: Vec<Value> = Vec::new();
    // The name before the braces comes last.
    let named = usize::from(selector.name.is_some());
    let views: Vec<_> = selector.views().collect();
    for view in views[named..].iter().chain(&views[..named]) {
        matchers.push(json!({"name": view.label, "value": view.value, "type": view.op.text()}));
    }
    let edge = selector.modifiers.edge.map(|(edge, _)| edge);
    let mut value = json!({
        "type": "vectorSelector",
        "name": selector.name.as_ref().map_or("", |name| &name.text),
        "matchers": matchers,
        "anchored": edge == Some(RangeEdge::Anchored),
        "smoothed": edge == Some(RangeEdge::Smoothed),
    });
    if let Some(range) = &selector.range {
        value["type"] = "matrixSelector".into();
        value["range"] = milliseconds(Some(&range.duration));
        value["rangeExpr"] = computed(Some(&range.duration));
    }
    modify(&mut value, &selector.modifiers);
    value
}

fn modify(value: &mut Value, modifiers: &Modifiers) {
    let offset = modifiers.offset.as_ref().map(|offset| &offset.duration);
    value["offset"] = milliseconds(offset);
    value["offsetExpr"] = match offset {
        // Here alone a plus before a call stays.
        Some(Duration::Signed {
            sign: Sign::Plus,
            duration,
            ..
        }) if is_call(duration) => {
            json!({"type": "durationExpr", "op": "+", "lhs": null, "rhs": duration_of(duration), "wrapped": false})
        }
        offset => computed(offset),
    };
    let (timestamp, edge) = match modifiers.at.as_ref().map(|at| &at.instant) {
        None => (Value::Null, Value::Null),
        Some(Instant::Milliseconds(at)) => ((*at).into(), Value::Null),
        Some(Instant::Start) => (Value::Null, "start".into()),
        Some(Instant::End) => (Value::Null, "end".into()),
        Some(Instant::Variable(name)) => panic!("{name:?} is no part of PromQL"),
    };
    value["timestamp"] = timestamp;
    value["startOrEnd"] = edge;
}

fn matching(binary: &Binary) -> Value {
    let vector = Some(promql::ValueType::Vector);
    if (binary.left.value_type(), binary.right.value_type()) != (vector, vector) {
        return Value::Null;
    }
    let matching = binary.matching.as_ref();
    let texts = |names: &[promql::ast::Name]| names.iter().map(|name| name.text.to_string()).collect::<Vec<_>>();
    let card = match binary.cardinality() {
        Cardinality::OneToOne => "one-to-one",
        Cardinality::ManyToOne => "many-to-one",
        Cardinality::OneToMany => "one-to-many",
        Cardinality::ManyToMany => "many-to-many",
    };
    let group = matching.and_then(|matching| matching.group.as_ref());
    assert_eq!(
        group.map(|group| group.many == Side::Left),
        group.map(|_| card == "many-to-one")
    );
    json!({
        "card": card,
        "labels": matching.map(|matching| texts(&matching.labels)).unwrap_or_default(),
        "on": matching.is_some_and(|matching| matching.on),
        "include": group.map(|group| texts(&group.include)).unwrap_or_default(),
        "fillValues": fill(&binary.fill),
    })
}

fn fill(fill: &Fill) -> Value {
    let value = |side: Option<&FillValue>| match side.map(|side| &side.value) {
        Some(Operand::Number(number)) => go_number(number.value),
        _ => Value::Null,
    };
    json!({"lhs": value(fill.left.as_ref()), "rhs": value(fill.right.as_ref())})
}

/// As Go writes it in JSON: whole numbers without a point.
fn go_number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        (value as i64).into()
    } else {
        value.into()
    }
}

fn number_of(value: f64) -> Value {
    json!({"type": "numberLiteral", "val": promql::print::number(value)})
}

/// The value of a number with signs before it, without parentheses.
fn folded(expr: &Expr) -> Option<f64> {
    match expr {
        Expr::Number(number) => Some(number.value),
        Expr::Unary(unary) => folded(&unary.expr).map(|value| unary.sign.apply(value)),
        _ => None,
    }
}

/// A duration that is a number with signs.
fn literal(duration: &Duration) -> Option<(f64, bool)> {
    match duration {
        Duration::Literal(number) => Some((number.value, number.duration)),
        Duration::Signed { sign, duration, .. } => literal(duration).map(|(value, unit)| (sign.apply(value), unit)),
        _ => None,
    }
}

fn milliseconds(duration: Option<&Duration>) -> Value {
    let seconds = duration.and_then(literal).map_or(0.0, |(seconds, _)| seconds);
    let nanoseconds = (seconds * 1e9).round();
    let nanoseconds = if nanoseconds.abs() < 9.223_372_036_854_775e18 {
        nanoseconds as i64
    } else {
        i64::MIN
    };
    (nanoseconds / 1_000_000).into()
}

fn is_call(duration: &Duration) -> bool {
    let calls = |op| matches!(op, DurationOp::MinOf | DurationOp::MaxOf);
    match duration {
        Duration::Step(_) | Duration::Range(_) => true,
        Duration::Computed { op, .. } => calls(*op),
        _ => false,
    }
}

/// A duration that is no mere number.
fn computed(duration: Option<&Duration>) -> Value {
    match duration {
        Some(duration) if literal(duration).is_none() => duration_of(duration),
        _ => Value::Null,
    }
}

fn duration_of(duration: &Duration) -> Value {
    if let Some((value, unit)) = literal(duration) {
        return json!({"type": "numberLiteral", "val": promql::print::number(value), "duration": unit});
    }
    let node = |op: &str, left: Value, right: Value| json!({"type": "durationExpr", "op": op, "lhs": left, "rhs": right, "wrapped": false});
    match duration {
        Duration::Literal(_) | Duration::Variable(_) => unreachable!("{duration:?}"),
        Duration::Step(_) => node("step", Value::Null, Value::Null),
        Duration::Range(_) => node("range", Value::Null, Value::Null),
        Duration::Signed {
            sign: Sign::Plus,
            duration,
            ..
        } => duration_of(duration),
        Duration::Signed { duration, .. } => node("-", Value::Null, duration_of(duration)),
        Duration::Computed { op, left, right, .. } => node(op.text(), duration_of(left), duration_of(right)),
        Duration::Paren { duration, .. } => {
            let mut inner = duration_of(duration);
            if inner["type"] != "durationExpr" {
                inner = node("+", Value::Null, inner);
            }
            inner["wrapped"] = true.into();
            inner
        }
    }
}

fn type_of(value: promql::ValueType) -> &'static str {
    match value {
        promql::ValueType::Scalar => "scalar",
        promql::ValueType::Vector => "vector",
        promql::ValueType::Matrix => "matrix",
        promql::ValueType::String => "string",
    }
}
