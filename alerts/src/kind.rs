//! What a file of YAML is, by its keys: rules, routes, or tests of either. Whether it is right is not looked at.

use lint::document::{LIMITS, Node, Value, read};

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Rules, as a file of Prometheus or as objects of its operator.
    Rules,
    /// An Alertmanager's configuration.
    Routes,
    /// Tests of rules.
    RuleTests,
    /// Tests of routes.
    RouteTests,
    /// YAML of something else.
    Other,
    /// Not YAML.
    Broken,
}

impl Kind {
    /// What the file with this text is.
    pub fn of(text: &str) -> Self {
        let Ok(documents) = read(text, LIMITS) else {
            return Self::Broken;
        };
        let kinds = documents.documents.iter().map(of_document);
        kinds
            .into_iter()
            .find(|kind| *kind != Self::Other)
            .unwrap_or(Self::Other)
    }
}

fn of_document(root: &Node) -> Kind {
    let has = |key: &str| root.get(key).is_some();
    let named = |wanted: &str| root.get("kind").and_then(Node::text) == Some(wanted);
    if has("tests") || has("rule_files") {
        return if has("alertmanager") {
            Kind::RouteTests
        } else {
            Kind::RuleTests
        };
    }
    if has("groups") || named("PrometheusRule") || named("PrometheusRuleList") {
        return Kind::Rules;
    }
    if has("route") {
        return Kind::Routes;
    }
    let items = match &root.value {
        // The bare list of groups, as a chart's values have it.
        Value::List(items) if items.iter().any(|item| item.get("rules").is_some()) => return Kind::Rules,
        _ if named("List") => root.get("items").map(Node::items).unwrap_or_default(),
        _ => &[],
    };
    let rules = |item: &Node| item.get("kind").and_then(Node::text) == Some("PrometheusRule");
    if items.iter().any(rules) {
        Kind::Rules
    } else {
        Kind::Other
    }
}

#[cfg(test)]
mod tests {
    use super::Kind;

    #[test]
    fn files_are_known_by_their_keys() {
        let cases = [
            ("groups: []", Kind::Rules),
            ("kind: PrometheusRule\nspec: {groups: []}", Kind::Rules),
            ("kind: List\nitems: [{kind: PrometheusRule}]", Kind::Rules),
            ("kind: Deployment\n---\nkind: PrometheusRule", Kind::Rules),
            ("- {name: a, rules: []}", Kind::Rules),
            ("route: {receiver: a}\nreceivers: [{name: a}]", Kind::Routes),
            ("rule_files: [a.yaml]\ntests: []", Kind::RuleTests),
            ("alertmanager: a.yaml\ntests: []", Kind::RouteTests),
            ("kind: Deployment", Kind::Other),
            ("", Kind::Other),
            ("a: [", Kind::Broken),
        ];
        for (text, kind) in cases {
            assert_eq!(Kind::of(text), kind, "{text}");
        }
    }
}
