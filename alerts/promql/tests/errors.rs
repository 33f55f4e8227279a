//! What is said of a text that is no query: where, of which kind, and in words that help.

use promql::{Dialect, ErrorKind, Feature};

#[test]
fn faults_are_named_where_they_are() {
    use ErrorKind::{Limit, Meaning, Syntax};
    for (text, place, kind, words) in [
        ("", "1:1", Syntax, "there is no expression"),
        ("sum(rate(a[5m])", "1:16", Syntax, "parenthesis is not closed"),
        ("a)", "1:2", Syntax, "closes nothing"),
        ("a{b=\"c\"", "1:8", Syntax, "brace is not closed"),
        ("a{b=c}", "1:5", Syntax, "unexpected `c`, expected a text in quotes"),
        ("a{b}", "1:4", Syntax, "`=~`"),
        ("a[5m", "1:5", Syntax, "bracket is not closed"),
        ("a[b]", "1:3", Syntax, "unexpected character 'b' between brackets"),
        ("a[]", "1:3", Syntax, "expected a duration"),
        ("a[5x]", "1:3", Syntax, "`5` is neither"),
        ("a[1m1h]", "1:3", Syntax, "in this order"),
        ("a b", "1:3", Syntax, "expected an operator or the end"),
        ("a +", "1:4", Syntax, "the query ends where an expression is expected"),
        ("a\n+ é", "2:3", Syntax, "unexpected character 'é'"),
        ("\"abc", "1:1", Syntax, "not closed"),
        ("a{b=\"x\\dy\"}", "1:7", Syntax, "unknown escape"),
        (
            "a{b=~\"(\"}",
            "1:6",
            Syntax,
            "no regular expression: a parenthesis is not closed",
        ),
        ("rate(a,)", "1:8", Syntax, "expected an expression"),
        ("sum by (a b) (c)", "1:11", Syntax, "expected `,` or `)`"),
        ("1e400", "1:1", Syntax, "too large"),
        ("rat(a[5m])", "1:1", Meaning, "no function `rat`"),
        ("topk_max(5, a)", "1:1", Meaning, "MetricsQL"),
        ("rollup_rate(a[5m])", "1:1", Meaning, "MetricsQL"),
        (
            "rate(a)",
            "1:6",
            Meaning,
            "`rate` takes a range vector, and this is an instant vector",
        ),
        ("rate(a[5m], 1)", "1:1", Meaning, "takes 1 arguments, not 2"),
        ("round()", "1:1", Meaning, "takes 1 to 2 arguments"),
        ("topk(a)", "1:1", Meaning, "takes 2 arguments, not 1"),
        ("topk(\"5\", a)", "1:6", Meaning, "takes a scalar"),
        ("1 > 2", "1:3", Meaning, "`> bool`"),
        ("a + bool b", "1:5", Meaning, "comparisons"),
        ("a and 1", "1:3", Meaning, "between instant vectors only"),
        ("a and on (b) group_left c", "1:1", Meaning, "cannot be grouped"),
        ("a / on (b) group_left (b) c", "1:24", Meaning, "at once"),
        ("1 + on (a) 2", "1:5", Meaning, "only instant vectors"),
        ("a[5m] + 1", "1:1", Meaning, "this is a range vector"),
        ("{a=~\".*\"}", "1:1", Meaning, "all series"),
        ("a{__name__=\"b\"}", "1:1", Meaning, "at once"),
        ("sum(a)[5m]", "1:7", Meaning, "subquery"),
        ("sum(a) offset 5m", "1:8", Meaning, "follows a selector"),
        ("a offset 5m offset 1m", "1:13", Meaning, "second offset"),
        ("a @ 1 @ 2", "1:7", Meaning, "second `@`"),
        ("a[-5m]", "1:3", Meaning, "longer than nothing"),
        ("-\"a\"", "1:1", Meaning, "sign"),
        ("a[5m/0]", "1:5", Meaning, "division by zero"),
    ] {
        let error = promql::parse(text).expect_err(text);
        let (found, message) = (format!("{}:{}", error.line, error.column), &error.message);
        assert_eq!((found.as_str(), error.kind), (place, kind), "{text}: {message}");
        assert!(message.contains(words), "{text}: {message}");
        assert_eq!(error.to_string(), format!("{place}: {message}"));
    }
    let nested = promql::parse(&"(".repeat(1000)).unwrap_err();
    assert_eq!(nested.kind, Limit);
}

#[test]
fn what_needs_a_flag_names_it() {
    for (text, feature) in [
        ("a + fill (0) b", Feature::FillModifiers),
        ("rate(a[5m] anchored)", Feature::ExtendedRangeSelectors),
        ("a smoothed", Feature::ExtendedRangeSelectors),
        ("sort_by_label(a, \"b\")", Feature::ExperimentalFunctions),
        ("limitk(1, a)", Feature::ExperimentalFunctions),
        ("step()", Feature::ExperimentalFunctions),
    ] {
        let error = promql::parse(text).expect_err(text);
        assert_eq!(error.kind, ErrorKind::Feature(feature), "{text}: {error}");
        assert!(error.message.contains(feature.flag()), "{error}");
        Dialect::all_features().parse(text).unwrap();
    }
    // Computed durations need none.
    promql::parse("a[step() * 2]").unwrap();
    promql::parse("a[5m * 2] offset (step())").unwrap();
}
