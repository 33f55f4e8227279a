//! What holds for every text that is to be a query: nothing makes the parser fall, places lie where they should, and what is
//! printed is read as the same tree. The tests of `promql` have this file as a module, too.

use std::borrow::Cow;

use fixtures::fuzzing::Target;
use promql::ast::{Duration, Expr, Matcher, Modifiers, Offset};
use promql::{Dialect, Query, Span, variables};

/// The targets of this file.
pub const TARGETS: &[Target] = &[
    Target {
        name: "query",
        seeds,
        property: query,
        odd: ODD,
    },
    Target {
        name: "variables",
        seeds,
        property: found_variables,
        odd: ODD,
    },
];

/// The dialects that are spoken here.
pub const DIALECTS: [Dialect; 3] = [Dialect::prometheus(), Dialect::all_features(), Dialect::grafana()];

/// Sound texts of every shape.
pub const SOUND: &[&str] = &[
    "up",
    "node:cpu:rate5m",
    r#"{__name__=~"a|b", job!="x", "b.c"='d', `e f`!~"g.*",}"#,
    r#"{"metric.name", "label.name"="value"}"#,
    "sum by (job, instance) (rate(http_requests_total{code=~\"5..\"}[5m])) / ignoring (code) group_left (a) sum(b)",
    "topk without (a,) (3, x) unless on () y or z and w",
    "count_values(\"v\", x) == bool 3",
    "quantile_over_time(0.9, x[1h:5m] @ end() offset -1d)",
    "x[5m] smoothed @ start() offset 1h30m",
    "x anchored offset (5m * 2 + step())",
    "avg_over_time(x[max_of(5m, step() * 2)] offset -min_of(1m, range()))",
    "-x ^ -2 ^ 0x1F + 1_000 * .5 % Inf atan2 NaN",
    "a + on (b) group_right (c) fill_left (-1) fill_right (2m) d",
    "a </ 5 >/ 3",
    "sum(x) # why\n  + # because\n y # end",
    "label_replace(x, \"a\", \"$1\", 'b', `(.*)\\d`) and \"\\xff\\u00e9\" == \"\"",
    "vector(time()) - timestamp(x @ 1609746000.123)",
    "sum + by + without + offset + start{a=\"b\"} + step[5m]",
    "rate($metric{job=~\"$job\", $filters}[$__rate_interval]) > ${threshold}",
    "sum by ($by, [[other:csv]]) (foo_${suffix}_total{instance=~\"${instance:regex}\"}[${n}m:$step] offset $off)",
    "$agg by (a) (b) + $fn(c) + $whole + topk($k, d @ $__from)",
    "histogram_quantile(0.95, sum by (le) (rate(latency_bucket[5m])))",
];

/// What tends to be one too many.
pub const ODD: &[&str] = &[
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    "[[",
    "]]",
    "${",
    "$",
    "\"",
    "'",
    "`",
    "\\",
    "#",
    "\n",
    "5m",
    "0x",
    "1e",
    "é",
    "\u{fffd}",
    "\u{0}",
    "offset",
    "@",
    "by (",
    "[5m:",
    "-",
    "^",
    "max_of(",
    "{a=~\"[\"}",
    "=~",
    "😀",
    ":",
    "1_",
    "fill(",
    "$__interval",
    "..",
];

fn seeds() -> Vec<Vec<u8>> {
    SOUND.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// The input as text, as far as it is text.
pub fn text(input: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(input)
}

fn query(input: &[u8]) {
    let text = text(input);
    for dialect in DIALECTS {
        holds(&text, dialect);
    }
}

/// Variables are found from left to right, each where it is said to be.
fn found_variables(input: &[u8]) {
    let text = text(input);
    let mut end = 0;
    for variable in variables(&text) {
        assert!(
            variable.span.start >= end && !variable.span.is_empty(),
            "{text:?}: {variable:?}"
        );
        end = variable.span.end;
        let written = text.get(variable.span.range());
        let written = written.unwrap_or_else(|| panic!("{text:?}: {variable:?} lies outside"));
        let parts = [Some(variable.name), variable.field, variable.format];
        for part in parts.into_iter().flatten() {
            assert!(!part.is_empty() && written.contains(part), "{text:?}: {variable:?}");
        }
        let again: Vec<_> = variables(written)
            .map(|one| (one.name, one.field, one.format))
            .collect();
        assert_eq!(again, [(variable.name, variable.field, variable.format)], "{text:?}");
    }
}

/// What holds for a text in a dialect.
pub fn holds(text: &str, dialect: Dialect) {
    match dialect.parse(text) {
        Ok(query) => holds_for_query(&query, dialect),
        Err(error) => {
            assert!(
                text.get(error.span.range()).is_some(),
                "{text:?}: {error:?} lies outside"
            );
            assert!(
                error.line > 0 && error.column > 0 && !error.message.is_empty(),
                "{error:?}"
            );
        }
    }
}

/// What holds for what was read.
pub fn holds_for_query(query: &Query, dialect: Dialect) {
    let text = &*query.text;
    query.expr.walk(&mut |expr| {
        let span = expr.span();
        assert!(
            !span.is_empty() && text.get(span.range()).is_some(),
            "{text:?}: {expr:?}"
        );
        for child in expr.children() {
            assert!(span.contains(child.span()), "{text:?}: {child:?} is not in {expr:?}");
        }
        if let Expr::Selector(selector) = expr {
            let ranges = selector.range.iter().map(|range| range.span);
            let inner = selector.matchers.iter().map(Matcher::span).chain(ranges);
            for inner in inner.chain(selector.braces) {
                assert!(span.contains(inner), "{text:?}: {selector:?}");
            }
        }
    });
    let written = |span: &Span| span.of(text).trim_end().to_owned();
    let comments: Vec<String> = query.comments.iter().map(written).collect();
    assert!(
        comments.iter().all(|comment| comment.starts_with('#')),
        "{text:?}: {comments:?}"
    );

    let printed = query.expr.to_string();
    // What Prometheus prints is not always what it reads, and this prints the same. A range of less than a millisecond
    // becomes none, `@` goes before an offset, which then takes the operators behind it, and the sign that `Inf` gets is
    // one of its own before a power.
    let mut greedy = false;
    query.expr.walk(&mut |expr| {
        greedy |= match expr {
            Expr::Selector(selector) => is_greedy(&selector.modifiers),
            Expr::Subquery(subquery) => is_greedy(&subquery.modifiers),
            _ => false,
        };
    });
    if greedy || printed.contains("+Inf ^") || printed.contains("[0s") || printed.contains(":0s]") {
        return;
    }
    let again = dialect
        .parse(&printed)
        .unwrap_or_else(|error| panic!("{text:?} is printed as {printed:?}: {error}"));
    assert_eq!(again.expr.to_string(), printed, "{text:?}");
    let pretty = query.pretty();
    let again = dialect
        .parse(&pretty)
        .unwrap_or_else(|error| panic!("{text:?} is printed as {pretty:?}: {error}"));
    assert_eq!(again.expr.to_string(), printed, "{text:?} is printed as {pretty:?}");
    let kept: Vec<String> = again
        .comments
        .iter()
        .map(|span| span.of(&pretty).trim_end().to_owned())
        .collect();
    assert_eq!(kept, comments, "{text:?} is printed as {pretty:?}");
}

/// Whether `@` follows an offset that is printed behind it and takes operators.
fn is_greedy(modifiers: &Modifiers) -> bool {
    let takes = |offset: &Offset| matches!(offset.duration, Duration::Paren { .. } | Duration::Computed { .. });
    modifiers.at.is_some() && modifiers.offset.as_ref().is_some_and(takes)
}
