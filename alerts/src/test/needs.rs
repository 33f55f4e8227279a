//! What an expression needs to be there: recorded metrics, and the series of alerts. What cannot be told is everything:
//! a rule too many costs time, a rule too few would change a verdict.

use std::collections::BTreeSet;

use promql::Dialect;
use promql::ast::{Expr, MatchOp, Selector};

/// What must be evaluated before an expression.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// It may ask for anything.
    pub everything: bool,
    /// It asks for the state of any alert.
    pub all_alerts: bool,
    /// Names of metrics that it asks for.
    pub metrics: BTreeSet<String>,
    /// Alerts whose state it asks for.
    pub alerts: BTreeSet<String>,
}

impl Needs {
    fn everything() -> Self {
        Self {
            everything: true,
            ..Self::default()
        }
    }

    /// Also what another needs.
    pub fn add(&mut self, other: Self) {
        self.everything |= other.everything;
        self.all_alerts |= other.all_alerts;
        self.metrics.extend(other.metrics);
        self.alerts.extend(other.alerts);
    }

    fn select(&mut self, selector: &Selector) {
        match selector.metric() {
            None => self.everything = true,
            Some("ALERTS" | "ALERTS_FOR_STATE") => {
                let mut names = selector
                    .matchers_of("alertname")
                    .filter(|matcher| matcher.op == MatchOp::Equal);
                match names.next() {
                    Some(name) => _ = self.alerts.insert(name.value.to_owned()),
                    None => self.all_alerts = true,
                }
            }
            Some(name) => _ = self.metrics.insert(name.to_owned()),
        }
    }
}

/// What an expression needs.
pub(super) fn of_expression(text: &str) -> Needs {
    // Which features promtool has switched on is its matter.
    let Ok(query) = Dialect::all_features().parse(text) else {
        return Needs::everything();
    };
    let mut needs = Needs::default();
    query.expr.walk(&mut |expr| match expr {
        Expr::Selector(selector) => needs.select(selector),
        // It looks for this metric by itself.
        Expr::Call(call) if call.function.known().is_some_and(|function| function.name == "info") => {
            needs.metrics.insert("target_info".to_owned());
        }
        _ => {}
    });
    needs
}

/// What an annotation or a label needs: Prometheus runs the queries in it at each evaluation.
pub(super) fn of_template(text: &str) -> Needs {
    if !text.contains("query") {
        return Needs::default();
    }
    let mut needs = Needs::default();
    let mut any = false;
    let mut rest = text;
    while let Some((literal, after)) = literal(rest) {
        any = true;
        rest = after;
        // A text that is put together while it runs is a query that nobody knows.
        needs.add(if literal.contains('%') {
            Needs::everything()
        } else {
            of_expression(&literal)
        });
    }
    if any { needs } else { Needs::everything() }
}

/// The next text in quotes, and what follows it.
fn literal(text: &str) -> Option<(String, &str)> {
    let start = text.find(['"', '`'])?;
    let mut signs = text[start..].char_indices();
    let (_, quote) = signs.next()?;
    let mut literal = String::new();
    while let Some((at, sign)) = signs.next() {
        match sign {
            // Other escapes are none of PromQL's either, so that the query is refused and everything is needed.
            '\\' if quote == '"' => literal.push(signs.next().map_or('\\', |(_, escaped)| escaped)),
            sign if sign == quote => return Some((literal, &text[start + at + 1..])),
            sign => literal.push(sign),
        }
    }
    Some((literal, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(text: &str) -> Vec<String> {
        let needs = of_expression(text);
        assert!(!needs.everything, "{text}");
        needs.metrics.into_iter().collect()
    }

    #[test]
    fn names_are_found_wherever_they_stand() {
        for (text, names) in [
            ("a:b:rate5m > 1", &["a:b:rate5m"][..]),
            ("sum by (x) (rate(a_total{job=\"b\"}[5m]))", &["a_total"]),
            ("{__name__=\"a\", b=\"c\"}", &["a"]),
            ("{'a b', c='d'}", &["a b"]),
            ("a # comment with 'quote\n", &["a"]),
            ("sum(a) / on (x) group_left sum(b offset 1h)", &["a", "b"]),
            ("max_over_time(a[1h:5m]) unless (b or -c)", &["a", "b", "c"]),
            ("{\"métrique\"} == 0", &["métrique"]),
            ("info(a)", &["a", "target_info"]),
        ] {
            assert_eq!(
                metrics(text),
                names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(),
                "{text}"
            );
        }
    }

    #[test]
    fn what_may_ask_for_anything_needs_everything() {
        for text in [
            "{job=\"a\"}",
            "{__name__=~\"a.*\"}",
            "{__name__!=\"a\", job=\"b\"}",
            "count({b=~\".+\"})",
            "not a query",
            "info(a, {__name__=~\".+_info\"})",
        ] {
            assert!(of_expression(text).everything, "{text}");
        }
    }

    #[test]
    fn alerts_are_asked_for_by_name_or_all() {
        let one = of_expression("ALERTS{alertname=\"A\",alertstate=\"firing\"}");
        assert_eq!((one.all_alerts, one.alerts.len()), (false, 1));
        assert!(of_expression("ALERTS == 1").all_alerts);
        assert!(of_expression("ALERTS{alertname=~\"A|B\"}").all_alerts);
        assert!(of_expression("ALERTS_FOR_STATE{severity=\"x\"}").all_alerts);
    }

    #[test]
    fn queries_in_annotations_count() {
        let needs = of_template("{{ with query \"sum by (x) (a:b{c=\\\"d\\\"})\" }}{{ . | first }}{{ end }}");
        assert!(!needs.everything && needs.metrics.contains("a:b"), "{needs:?}");
        assert!(of_template("{{ with query `a` }}{{ end }}").metrics.contains("a"));
        assert!(of_template("{{ with printf \"a{x=%q}\" $labels.x | query }}{{ end }}").everything);
        assert!(of_template("{{ $labels.query }}").everything);
        assert_eq!(of_template("it is {{ $value }}"), Needs::default());
    }
}
