//! A test file as promtool takes it: without our keys, and without the cases that promtool cannot judge. Everything else
//! stays as it was written, to the byte.

use std::ops::Range;
use std::path::Path;

use lint::document::{LIMITS, Node, read};

use super::TestError;

/// Takes our keys out of the text of the file at `path`, which is not opened.
///
/// # Errors
/// [`TestError::Wrong`] where it is no YAML.
pub fn plain(path: &Path, text: &str) -> Result<String, TestError> {
    let documents = read(text, LIMITS).map_err(|error| TestError::Wrong {
        path: path.to_owned(),
        line: text
            .get(..error.at)
            .map_or(0, |before| before.matches('\n').count() + 1),
        what: error.to_string(),
    })?;
    let mut cuts = Vec::new();
    for document in &documents.documents {
        entries(document, |key, _| key == "coverage", &mut cuts);
        for test in document.get("tests").into_iter().flat_map(Node::items) {
            let ours_alone = |key: &str, value: &Node| {
                key == "alert_rule_test" && !value.items().is_empty() && value.items().iter().all(ours)
            };
            entries(test, ours_alone, &mut cuts);
            let Some(cases) = test.get("alert_rule_test").map(Node::items) else {
                continue;
            };
            if cases.iter().all(ours) {
                continue;
            }
            let spans: Vec<_> = cases.iter().map(|case| (case.span.clone(), ours(case))).collect();
            cut(&spans, &mut cuts);
            for case in cases.iter().filter(|case| !ours(case)) {
                entries(case, |key, _| key == "match" || key == "state", &mut cuts);
            }
        }
    }
    cuts.sort_by_key(|cut| std::cmp::Reverse(cut.start));
    let mut plain = text.to_owned();
    for cut in cuts {
        plain.replace_range(cut, "");
    }
    Ok(plain)
}

/// Whether promtool cannot judge a case.
fn ours(case: &Node) -> bool {
    let says = |key: &str, usual: &str| case.get(key).and_then(Node::text).is_some_and(|text| text != usual);
    says("match", "exact") || says("state", "firing")
}

fn entries(map: &Node, goes: impl Fn(&str, &Node) -> bool, cuts: &mut Vec<Range<usize>>) {
    let entry = |(key, value): &(Node, Node)| {
        let end = value.span.end.max(key.span.end);
        (key.span.start..end, goes(key.text().unwrap_or_default(), value))
    };
    let spans: Vec<_> = map.entries().iter().map(entry).collect();
    cut(&spans, cuts);
}

/// What to cut so that of neighbours those that go are gone with what separates them. What follows one that goes takes
/// its place, which in a block is the same column.
fn cut(spans: &[(Range<usize>, bool)], cuts: &mut Vec<Range<usize>>) {
    let mut start = None;
    let mut kept: Option<usize> = None;
    for (span, goes) in spans {
        if *goes {
            start.get_or_insert(span.start);
            continue;
        }
        cuts.extend(start.take().map(|start| start..span.start));
        kept = Some(span.end);
    }
    if let (Some(start), Some((last, _))) = (start, spans.last()) {
        cuts.push(kept.unwrap_or(start)..last.end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> String {
        plain(Path::new("test.yaml"), text).unwrap()
    }

    #[test]
    fn what_is_promtools_stays_to_the_byte() {
        let text =
            "# why\nrule_files: [a]\ntests:\n- alert_rule_test:\n  - alertname: A # this one\n    eval_time: 1m\n";
        assert_eq!(of(text), text);
    }

    #[test]
    fn keys_and_cases_of_ours_are_gone() {
        let block = "coverage:\n  min: 5\nrule_files: [a]\ntests:\n- interval: 1m\n  alert_rule_test:\n  - match: exact\n    alertname: A\n  \
                     - alertname: B\n    state: pending\n  - alertname: C\n    state: firing\n  - alertname: D\n    match: partial\n  \
                     - alertname: E\n    state: inactive\n- alert_rule_test:\n  - alertname: F\n    state: pending\n  interval: 2m\n";
        assert_eq!(
            of(block),
            "rule_files: [a]\ntests:\n- interval: 1m\n  alert_rule_test:\n  - alertname: A\n  - alertname: C\n- interval: 2m\n"
        );
        let empty = "tests:\n- interval: 1m\n  alert_rule_test:\n  - match: partial\n    exp_alerts:\n";
        assert_eq!(of(empty), "tests:\n- interval: 1m\n");
        let flow = "{tests: [{alert_rule_test: [{alertname: A, match: partial}, {alertname: B, state: firing}, {alertname: C, state: inactive}]}], coverage: {min: 1}}";
        assert_eq!(of(flow), "{tests: [{alert_rule_test: [{alertname: B}]}]}");
    }

    #[test]
    fn what_is_no_yaml_has_its_line() {
        let error = plain(Path::new("test.yaml"), "a: b\nc: [\n").unwrap_err().to_string();
        assert!(error.starts_with("test.yaml:"), "{error}");
    }
}
