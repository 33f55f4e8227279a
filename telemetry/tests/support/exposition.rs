//! A strict reader of what is scraped, in both formats, written from their specifications and sharing nothing with the
//! writer. It panics at the first byte that it does not like.
//! Sources: <https://prometheus.io/docs/specs/om/open_metrics_spec/>,
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::{BTreeMap, HashSet};

/// Labels by name.
pub type Labels = BTreeMap<String, String>;

#[derive(Debug, Clone, PartialEq)]
pub struct Exemplar {
    pub labels: Labels,
    pub value: f64,
    pub timestamp: f64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: Labels,
    pub value: f64,
    pub exemplar: Option<Exemplar>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    pub name: String,
    pub kind: String,
    pub help: String,
    pub unit: Option<String>,
    pub samples: Vec<Sample>,
}

/// A whole scrape.
#[derive(Debug, Clone, PartialEq)]
pub struct Exposition(pub Vec<Family>);

impl Exposition {
    pub fn family(&self, name: &str) -> Option<&Family> {
        self.0.iter().find(|family| family.name == name)
    }

    /// The one sample of that name and those labels.
    pub fn sample(&self, name: &str, labels: &[(&str, &str)]) -> Option<&Sample> {
        let wanted: Labels = labels
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect();
        let mut samples = self.0.iter().flat_map(|family| &family.samples);
        samples.find(|sample| sample.name == name && sample.labels == wanted)
    }

    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let sample = self.sample(name, labels);
        sample.unwrap_or_else(|| panic!("no {name} with {labels:?}")).value
    }

    /// Every exemplar, with the sample that it is at.
    pub fn exemplars(&self) -> impl Iterator<Item = (&Sample, &Exemplar)> {
        let samples = self.0.iter().flat_map(|family| &family.samples);
        samples.filter_map(|sample| Some((sample, sample.exemplar.as_ref()?)))
    }
}

/// Reads the classic format, 0.0.4.
pub fn classic(text: &str) -> Exposition {
    assert!(!text.contains("# EOF") && !text.contains("# UNIT"), "{text}");
    families(text, false)
}

/// Reads OpenMetrics 1.0.
pub fn openmetrics(text: &str) -> Exposition {
    let text = text
        .strip_suffix("# EOF\n")
        .expect("the end is `# EOF` and a line feed");
    families(text, true)
}

fn families(text: &str, openmetrics: bool) -> Exposition {
    assert!(text.is_empty() || text.ends_with('\n'), "the last line is not ended");
    let mut families: Vec<Family> = Vec::new();
    for line in text.split_terminator('\n') {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a name and a help");
            assert!(is_name(name, true), "{line}");
            assert!(
                families.iter().all(|family| family.name != name),
                "{name} is there twice"
            );
            families.push(Family {
                name: name.into(),
                kind: String::new(),
                help: help.into(),
                unit: None,
                samples: Vec::new(),
            });
            continue;
        }
        let family = families.last_mut().expect("a family begins with its help");
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let kind = rest
                .strip_prefix(&format!("{} ", family.name))
                .expect("the type of this family");
            assert!(family.kind.is_empty() && family.samples.is_empty(), "{line}");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(
                kind == "counter" && !openmetrics,
                family.name.ends_with("_total"),
                "a counter's family has its suffix in the classic format alone: {line}"
            );
            family.kind = kind.into();
        } else if let Some(rest) = line.strip_prefix("# UNIT ") {
            let unit = rest
                .strip_prefix(&format!("{} ", family.name))
                .expect("the unit of this family");
            assert!(
                openmetrics && family.unit.is_none() && family.samples.is_empty(),
                "{line}"
            );
            assert!(
                family.name.ends_with(&format!("_{unit}")),
                "the unit is the name's suffix: {line}"
            );
            family.unit = Some(unit.into());
        } else {
            let sample = sample(line, openmetrics);
            let suffixes: &[&str] = match (family.kind.as_str(), openmetrics) {
                ("counter", true) => &["_total"],
                ("histogram", _) => &["_bucket", "_sum", "_count"],
                ("counter" | "gauge", _) => &[""],
                _ => panic!("no type before {line}"),
            };
            let suffix = sample.name.strip_prefix(family.name.as_str());
            assert!(suffix.is_some_and(|suffix| suffixes.contains(&suffix)), "{line}");
            assert!(sample.exemplar.is_none() || suffix == Some("_bucket"), "{line}");
            assert!(family.kind != "counter" || sample.value >= 0.0, "{line}");
            family.samples.push(sample);
        }
    }
    for family in &families {
        check(family);
    }
    Exposition(families)
}

/// What must hold over all lines of a family.
fn check(family: &Family) {
    assert!(!family.samples.is_empty(), "{} has no sample", family.name);
    let mut seen = HashSet::new();
    for sample in &family.samples {
        assert!(seen.insert((&sample.name, &sample.labels)), "twice: {sample:?}");
    }
    if family.kind != "histogram" {
        return;
    }
    let (mut last, mut below) = (f64::NEG_INFINITY, 0.0);
    for sample in &family.samples {
        if let Some(bound) = sample.labels.get("le") {
            assert!(sample.name.ends_with("_bucket"), "{sample:?}");
            let bound = number(bound);
            assert!(bound > last && sample.value >= below, "{sample:?}");
            if let Some(exemplar) = &sample.exemplar {
                assert!(
                    exemplar.value <= bound && exemplar.value > last,
                    "not in its bucket: {sample:?}"
                );
            }
            (last, below) = (bound, sample.value);
        } else if sample.name.ends_with("_count") {
            assert!(
                last.is_infinite() && sample.value.to_bits() == below.to_bits(),
                "{sample:?}"
            );
            (last, below) = (f64::NEG_INFINITY, 0.0);
        } else {
            assert!(sample.name.ends_with("_sum") && last.is_infinite(), "{sample:?}");
        }
    }
    assert!(last.is_sign_negative(), "{} ends without a count", family.name);
}

fn sample(line: &str, openmetrics: bool) -> Sample {
    let end = line.find(['{', ' ']).expect("a name and a value");
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name, true), "{line}");
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        (labels, rest) = read_labels(inside);
        assert!(!labels.is_empty(), "empty braces: {line}");
    }
    let rest = rest.strip_prefix(' ').expect("one blank before the value");
    let (value, exemplar) = match rest.split_once(" # ") {
        Some((value, exemplar)) => {
            assert!(openmetrics, "exemplars are OpenMetrics': {line}");
            (value, Some(read_exemplar(exemplar)))
        }
        None => (rest, None),
    };
    let whole = ["_bucket", "_count"].iter().any(|suffix| name.ends_with(suffix));
    assert!(
        !whole || value.parse::<u64>().is_ok(),
        "a count is a whole number: {line}"
    );
    Sample {
        name: name.into(),
        labels,
        value: number(value),
        exemplar,
    }
}

fn read_exemplar(text: &str) -> Exemplar {
    let (labels, rest) = read_labels(text.strip_prefix('{').expect("the exemplar's labels"));
    let characters: usize = labels
        .iter()
        .map(|(name, value)| name.chars().count() + value.chars().count())
        .sum();
    assert!(characters <= 128, "an exemplar has at most 128 characters: {text}");
    let (value, timestamp) = rest.trim_start().split_once(' ').expect("a value and a time");
    Exemplar {
        labels,
        value: number(value),
        timestamp: number(timestamp),
    }
}

/// The labels up to the closing brace, and what comes after it.
fn read_labels(mut text: &str) -> (Labels, &str) {
    let mut labels = Labels::new();
    loop {
        if let Some(rest) = text.strip_prefix('}') {
            return (labels, rest);
        }
        let (name, rest) = text.split_once("=\"").expect("a label's name");
        assert!(is_name(name, false), "{name}");
        let mut value = String::new();
        let mut characters = rest.char_indices();
        let end = loop {
            match characters.next().expect("the end of a label's value") {
                (at, '"') => break at + 1,
                (_, '\\') => value.push(match characters.next().expect("what is escaped").1 {
                    'n' => '\n',
                    character @ ('\\' | '"') => character,
                    other => panic!("\\{other} is no escape"),
                }),
                (_, character) => value.push(character),
            }
        };
        assert!(labels.insert(name.into(), value).is_none(), "{name} is there twice");
        text = &rest[end..];
        if !text.starts_with('}') {
            text = text.strip_prefix(',').expect("a comma between labels");
            assert!(!text.starts_with('}'), "a comma before the end");
        }
    }
}

fn is_name(name: &str, of_metric: bool) -> bool {
    let mut characters = name.chars();
    characters
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && characters.all(|c| c.is_ascii_alphanumeric() || c == '_' || (of_metric && c == ':'))
}

fn number(text: &str) -> f64 {
    match text {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        "NaN" => f64::NAN,
        _ => {
            assert!(!text.to_ascii_lowercase().contains("inf"), "{text}");
            text.parse().unwrap_or_else(|_| panic!("{text} is no number"))
        }
    }
}
