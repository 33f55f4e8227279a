//! Grafana's variables, wherever its replacement of text may put something, and what the tree says of them.

use promql::{
    Dialect, Query, ValueType,
    ast::{Callee, Duration, Expr, Matcher},
    variables,
};

fn parse(text: &str) -> Query {
    Dialect::grafana()
        .parse(text)
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refused(text: &str) -> String {
    Dialect::grafana().parse(text).expect_err(text).to_string()
}

#[test]
fn variables_are_found_with_name_field_and_format() {
    let found = |text| {
        let parts = variables(text).map(|one| (one.name, one.field, one.format, one.span.of(text)));
        parts.collect::<Vec<_>>()
    };
    assert_eq!(
        found("a$b_1-${c:regex}[[d]]${e.f:csv}[[g:pipe]]$1$$h"),
        [
            ("b_1", None, None, "$b_1"),
            ("c", None, Some("regex"), "${c:regex}"),
            ("d", None, None, "[[d]]"),
            ("e", Some("f"), Some("csv"), "${e.f:csv}"),
            ("g", None, Some("pipe"), "[[g:pipe]]"),
            ("h", None, None, "$h"),
        ]
    );
    for none in [
        "", "$", "${", "${}", "${a", "${a:}", "[[", "[[a]", "$1", "[[1]]", "x[5m]", "é$é",
    ] {
        assert_eq!(found(none), [], "{none}");
    }
}

/// A variable may stand in every place that a name, number, duration, text, selector or function may.
#[test]
fn variables_stand_in_every_place() {
    for text in [
        "$metric",
        "${metric}",
        "[[metric]]",
        "foo_${x}_total",
        "${x}_total{a=\"b\"}",
        "a{b=\"$x\", c=~\"pre-${x:regex}-post\", d!=`[[x]]`}",
        "a{b=$x}",
        "a{$label=\"b\"}",
        "a{$filters}",
        "a{b=\"c\", $filters}",
        "a{b=\"c\" $filters}",
        "a{$filters, b=\"c\"}",
        "{$filters}",
        "rate(a[$__rate_interval])",
        "rate(a[${__rate_interval}])",
        "rate(a[[[interval]]])",
        "rate(a[ $interval ])",
        "rate(a[${minutes}m])",
        "rate(a[$__range_s]) * $__range_s",
        "max_over_time(a[$x:$y])",
        "max_over_time(a[${x}:${y}])",
        "max_over_time(a[1h:$__interval])",
        "max_over_time(a[$__interval * 2])",
        "a offset $x",
        "a offset -$x",
        "a @ $__from",
        "rate($metric[5m] offset 1h)",
        "rate($metric[5m:])",
        "sum by ($x) (a)",
        "sum by (a, ${x:csv}) (b)",
        "a / on ($x) group_left ($y) b",
        "a + fill ($x) b",
        "topk($k, a) > $threshold",
        "a * 1e$exponent",
        "quantile_over_time(0.$q, a[5m])",
        "$agg by (a) (b)",
        "$agg(b) by (a)",
        "$agg(3, b) without (a)",
        "$fn(a[5m])",
        "($a) / ($b)",
        "$a and $b or vector($c)",
        "histogram_quantile($q, $buckets)",
    ] {
        let query = parse(text);
        let found: Vec<_> = variables(text).collect();
        assert!(!found.is_empty(), "{text}");
        assert_eq!(
            parse(&query.expr.to_string()).expr.to_string(),
            query.expr.to_string(),
            "{text}"
        );
        assert!(
            promql::parse(text).is_err() || text.contains('"') || text.contains('`'),
            "{text} is no rule"
        );
    }
}

#[test]
fn the_tree_says_what_nobody_knows() {
    let query = parse("sum by ($by) (rate(${m}_total{job=~\"$job\", x=\"y\", $more}[$__rate_interval])) > $limit");
    let Expr::Binary(binary) = &query.expr else {
        panic!("{query:?}")
    };
    assert_eq!(binary.right.value_type(), None);
    assert_eq!(query.expr.value_type(), Some(ValueType::Vector));
    let selectors = query.expr.selectors();
    let selector = selectors[0];
    assert_eq!(selector.metric(), Some("${m}_total"));
    assert!(selector.metric_is_templated() && selector.has_unknown_matchers());
    let templated: Vec<bool> = selector
        .matchers
        .iter()
        .filter_map(Matcher::view)
        .map(|view| view.templated)
        .collect();
    assert_eq!(templated, [true, false]);
    let duration = &selector.range.as_ref().unwrap().duration;
    let Duration::Variable(name) = duration else {
        panic!("{duration:?}")
    };
    assert_eq!(
        name.variables().map(|one| one.name).collect::<Vec<_>>(),
        ["__rate_interval"]
    );
    assert_eq!(duration.seconds(), None);

    let query = parse("$agg by (a) (b)");
    let Expr::Aggregation(aggregation) = &query.expr else {
        panic!("{query:?}")
    };
    assert!(matches!(&aggregation.op, Callee::Variable(name) if &*name.text == "$agg"));
    assert!(aggregation.keeps("a") && !aggregation.keeps("c"));
}

/// A dollar in a rule is text or a fault, never a variable: `$1` in `label_replace` refers to a group.
#[test]
fn rules_have_no_variables() {
    assert!(promql::parse("rate(a[$x])").is_err());
    let query = promql::parse("label_replace(a{b=\"$c\"}, \"d\", \"$1\", \"e\", \"(.*)$\")").unwrap();
    assert!(!query.expr.selectors()[0].views().any(|view| view.templated));
    let query = parse("label_replace(a, \"d\", \"$1\", \"e\", \"(.*)$\")");
    query.expr.walk(&mut |expr| {
        if let Expr::String(string) = expr {
            assert!(!string.templated, "{string:?}");
        }
    });
}

#[test]
fn a_variable_makes_nothing_right_that_is_wrong_without_it() {
    for text in [
        "rate($x[5m]",
        "sum by $x (a",
        "a{b=\"$x}",
        "rate(a[$x)",
        "$x $y",
        "a +",
        "${x",
        "rate(a[$a:$b:$c])",
    ] {
        refused(text);
    }
    assert!(refused("rate(sum($x))").contains("range vector"));
}
