//! Names of series: the template that a query has for them, and what they are called without one.

use std::collections::BTreeSet;

use super::data::Series;

/// No name is longer.
const LONGEST: usize = 200;

/// The names of the series of one query.
pub(super) fn names(series: &[Series], template: &str, expr: &str) -> Vec<String> {
    let differing = differing(series);
    series
        .iter()
        .map(|one| {
            let name = match template.trim() {
                "" | "__auto" => automatic(one, &differing, expr),
                template => filled(one, template),
            };
            name.chars().take(LONGEST).collect()
        })
        .collect()
}

/// `{{label}}` replaced by its value; what a series does not have is nothing.
fn filled(series: &Series, template: &str) -> String {
    let mut name = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((label, end)) = after.split_once("}}") else {
            break;
        };
        name.push_str(before);
        name.push_str(series.labels.get(label.trim()).map_or("", String::as_str));
        rest = end;
    }
    name + rest
}

/// The labels that tell the series apart.
fn differing(series: &[Series]) -> BTreeSet<&str> {
    let all: BTreeSet<&str> = series
        .iter()
        .flat_map(|one| one.labels.keys().map(String::as_str))
        .collect();
    let first = series.first();
    all.into_iter()
        .filter(|label| {
            let value = first.and_then(|first| first.labels.get(*label));
            series.iter().any(|one| one.labels.get(*label) != value)
        })
        .collect()
}

fn automatic(series: &Series, differing: &BTreeSet<&str>, expr: &str) -> String {
    let has = |label: &&str| series.labels.contains_key(*label);
    let mut told: Vec<&str> = differing.iter().copied().filter(has).collect();
    if told.is_empty() {
        told = series
            .labels
            .keys()
            .map(String::as_str)
            .filter(|label| *label != "__name__")
            .collect();
    }
    match told.as_slice() {
        [] => series.labels.get("__name__").cloned().unwrap_or_else(|| one_line(expr)),
        [label] => series.labels[*label].clone(),
        several => {
            let pairs: Vec<String> = several
                .iter()
                .map(|label| format!("{label}={}", series.labels[*label]))
                .collect();
            pairs.join(" ")
        }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(labels: &[(&str, &str)]) -> Series {
        Series {
            labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            points: Vec::new(),
        }
    }

    #[test]
    fn names_come_from_the_template_or_from_what_differs() {
        let two = [
            series(&[("job", "orders"), ("pod", "a")]),
            series(&[("job", "orders"), ("pod", "b")]),
        ];
        for (template, expected) in [
            ("{{job}}/{{ pod }}", ["orders/a", "orders/b"]),
            ("{{none}}!", ["!", "!"]),
            ("__auto", ["a", "b"]),
            ("", ["a", "b"]),
            ("open {{", ["open {{", "open {{"]),
        ] {
            assert_eq!(names(&two, template, "up"), expected, "{template}");
        }
        assert_eq!(names(&[series(&[])], "", "sum(\n  up)"), ["sum( up)"]);
        assert_eq!(names(&two[..1], "", "up"), ["job=orders pod=a"]);
    }
}
