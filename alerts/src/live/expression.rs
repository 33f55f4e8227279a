//! Whether two expressions say the same, whatever their layout: Prometheus prints a rule anew when it loads it.

use promql::Dialect;

/// Whether both are the same query. Of what cannot be read the texts are compared.
pub(super) fn same(one: &str, other: &str) -> bool {
    let printed = |text: &str| {
        Dialect::all_features()
            .parse(text)
            .ok()
            .map(|query| query.expr.to_string())
    };
    one == other || matches!((printed(one), printed(other)), (Some(one), Some(other)) if one == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_nothing_and_meaning_is_something() {
        for (one, other) in [
            ("sum(up) by (job)", "sum by (job) (up)"),
            ("rate(a[300s])>1", "rate(a[5m]) > 1"),
            ("a{x='y',b!=\"c\"} # why", "a{b!=\"c\", x=\"y\"}"),
            ("not a query", "not a query"),
        ] {
            assert!(same(one, other), "{one} | {other}");
        }
        for (one, other) in [("a > 1", "a >= 1"), ("sum(a) by (b)", "sum(a)"), ("a (", "a  (")] {
            assert!(!same(one, other), "{one} | {other}");
        }
    }
}
