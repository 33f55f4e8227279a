//! What holds for files of YAML: rules as files and as objects, routes, tests of both, and what stands in their texts and
//! comments.

use std::path::Path;
use std::sync::LazyLock;

use alerts::check::{Options, check, checks, template};
use alerts::kind::Kind;
use alerts::routing::{self, Suite};
use alerts::test::{TestFile, plain};
use fixtures::fuzzing::Target;
use jiff::Timestamp;
use jiff::civil::date;
use lint::document::{LIMITS, Node, read};
use lint::{SourceFile, suppression};
use manifest::Manifest;

use super::{findings, language::text};

/// The targets of this file.
pub const TARGETS: &[Target] = &[
    Target {
        name: "document",
        seeds: rules_and_routes,
        property: document,
        odd: ODD,
    },
    Target {
        name: "rules",
        seeds: rules_and_routes,
        property: rules,
        odd: ODD,
    },
    Target {
        name: "routing",
        seeds: routes,
        property: routing,
        odd: ODD,
    },
    Target {
        name: "suite",
        seeds: || vec![include_bytes!("../seeds/suite.yaml").to_vec()],
        property: suite,
        odd: ODD,
    },
    Target {
        name: "rule_test",
        seeds: || vec![include_bytes!("../seeds/test.yaml").to_vec()],
        property: rule_test,
        odd: ODD,
    },
    Target {
        name: "template",
        seeds: templates,
        property: expanded,
        odd: TEMPLATE,
    },
    Target {
        name: "suppression",
        seeds: comments,
        property: comment,
        odd: &[
            "#",
            "opsctl",
            "ignore(",
            ")",
            ",",
            "until",
            ":",
            "2026-02-30",
            "-0001-01-01",
            "é",
        ],
    },
];

/// What means something in YAML, and in the texts that stand in it.
const ODD: &[&str] = &[
    ":",
    ": ",
    "- ",
    "? ",
    "&a ",
    "*a",
    "<<: *a",
    "!!str ",
    "!",
    "|\n",
    ">-\n",
    "'",
    "\"",
    "\\",
    "#",
    " # x\n",
    "---\n",
    "...\n",
    "%YAML 1.2\n",
    "{",
    "}",
    "[",
    "]",
    ",",
    "\t",
    "\r\n",
    "\u{feff}",
    "\u{85}",
    "\u{2028}",
    "é",
    "\u{1b}[2J",
    "\\e[2J",
    "~",
    "groups:",
    "expr:",
    "{{",
    "}}",
    "{{ $labels.x }}",
    "${x}",
    "up",
    "5m",
    "1h30m",
    ".inf",
    "rules: &a [*a]",
];

/// What means something in a template.
const TEMPLATE: &[&str] = &[
    "{{",
    "}}",
    "{{-",
    "-}}",
    "{{/*",
    "*/}}",
    "{{ end }}",
    "{{ else }}",
    "if",
    "range",
    "with",
    "define",
    "template",
    "$labels",
    "$value",
    ".",
    "|",
    "(",
    ")",
    "\"",
    "`",
    "'",
    "$x :=",
    "printf",
    "query",
    "\n",
    "é",
    "{{ . }",
];

static OPTIONS: LazyLock<Options> = LazyLock::new(|| {
    let mut manifest = Manifest::built_in();
    manifest.merge(Manifest::catalogue());
    Options::new(manifest, date(2026, 11, 23))
});

fn routes() -> Vec<Vec<u8>> {
    let files: [&[u8]; 2] = [
        include_bytes!("../seeds/alertmanager.yaml"),
        include_bytes!("../../tests/reference/alertmanager/alertmanager.yaml"),
    ];
    files.map(<[u8]>::to_vec).to_vec()
}

fn rules_and_routes() -> Vec<Vec<u8>> {
    let files: [&[u8]; 11] = [
        include_bytes!("../seeds/rules.yaml"),
        include_bytes!("../seeds/object.yaml"),
        include_bytes!("../../tests/checks/regex-literal.yml"),
        include_bytes!("../../tests/checks/label-unknown.yml"),
        include_bytes!("../../tests/checks/template-query.yml"),
        include_bytes!("../../tests/checks/delta-on-counter.yml"),
        include_bytes!("../../tests/checks/for-short.yml"),
        include_bytes!("../../tests/checks/le-off-bucket.yml"),
        include_bytes!("../../tests/checks/regex-anchor.yml"),
        include_bytes!("../../tests/checks/value-in-label.yml"),
        include_bytes!("../../tests/checks/recorded-later.yml"),
    ];
    [files.map(<[u8]>::to_vec).to_vec(), routes()].concat()
}

/// Values lie in the file, those of a map or list in it unless an alias stands for them.
fn document(input: &[u8]) {
    let text = text(input);
    let documents = match read(&text, LIMITS) {
        Ok(documents) => documents,
        Err(error) => {
            assert!(error.at <= text.len() && !error.what.is_empty(), "{text:?}: {error:?}");
            return;
        }
    };
    for comment in &documents.comments {
        assert!(text.get(comment.clone()).is_some(), "{text:?}: the comment {comment:?}");
    }
    let mut nodes: Vec<&Node> = documents.documents.iter().collect();
    while let Some(node) = nodes.pop() {
        assert!(text.get(node.span.clone()).is_some(), "{text:?}: {node:?} lies outside");
        let offsets = node.offsets(&text);
        for (at, character) in node.text().unwrap_or_default().char_indices().take(200) {
            let range = offsets.range(at..at + character.len_utf8());
            assert!(
                text.get(range.clone()).is_some(),
                "{text:?}: {node:?} at {at} is {range:?}"
            );
        }
        nodes.extend(node.items());
        nodes.extend(node.entries().iter().flat_map(|(key, value)| [key, value]));
    }
}

/// Whether a file is read at all, and every expression in it.
fn reads(text: &str) -> bool {
    let (rules, refused) = alerts::rules::read(&SourceFile::new("a.yaml", text));
    let sound = rules.rules().all(|(_, rule)| promql::parse(&rule.expr.value).is_ok());
    refused.is_empty() && sound
}

fn rules(input: &[u8]) {
    let file = SourceFile::new("a.yaml", text(input));
    findings::mend(&file, &|file| check(vec![file], &OPTIONS), &reads);
    let _ = Kind::of(file.text());
}

fn routing(input: &[u8]) {
    let text = text(input);
    let file = SourceFile::new("a.yaml", text.as_ref());
    findings::mend(&file, &|file| check(vec![file], &OPTIONS), &reads);
    let receivers = alerts::check::routes::receivers(&file);
    let at: Timestamp = "2026-03-29T01:30:00Z".parse().expect("an instant");
    for at in [at, Timestamp::MIN, Timestamp::MAX] {
        let held = routing::holding(Path::new("a.yaml"), &text, at);
        assert!(receivers.is_none() || held.is_ok() || !held.expect_err("it").to_string().is_empty());
    }
}

fn suite(input: &[u8]) {
    let text = text(input);
    match Suite::parse(Path::new("folder/a.yaml"), &text) {
        Ok(suite) => {
            let lines = text.lines().count().max(1);
            assert!(suite.tests.iter().all(|test| test.line <= lines), "{suite:?}");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// What is read is read again, to the same cases but ours, when it is made plain for promtool.
fn rule_test(input: &[u8]) {
    let (text, path) = (text(input), Path::new("a.yaml"));
    let read = TestFile::parse(path, &text);
    if let Err(error) = &read {
        assert!(!error.to_string().is_empty());
    }
    let Ok(without) = plain(path, &text) else { return };
    assert_eq!(
        plain(path, &without).ok().as_ref(),
        Some(&without),
        "{text:?} is plain as {without:?}"
    );
}

fn templates() -> Vec<Vec<u8>> {
    let texts = [
        "{{ $labels.job }} is at {{ $value | humanizePercentage }} of {{ printf \"%.2f\" $value }}",
        "{{ range query \"up{job='x'}\" }}{{ .Labels.instance }}{{ else }}none{{ end }}",
        "{{- with $x := $labels.a }}{{ if eq $x \"b\" }}{{ $x | toUpper | title }}{{ else if . }}c{{ end -}}{{ end }}",
        "{{ define \"a\" }}{{ .Value }}{{ end }}{{ template \"a\" (args 1 2) }}{{/* why */}}{{ externalURL }}",
    ];
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}

/// What a template uses lies in it.
fn expanded(input: &[u8]) {
    let text = text(input);
    let read = template::read(&text);
    for used in read.labels.iter().chain(&read.queries) {
        assert!(text.get(used.span.clone()).is_some(), "{text:?}: {used:?}");
    }
    for span in &read.values {
        assert!(text.get(span.clone()).is_some(), "{text:?}: {span:?}");
    }
    for fault in &read.faults {
        assert!(
            text.get(fault.span.clone()).is_some() && !fault.what.is_empty(),
            "{text:?}: {fault:?}"
        );
        if let Some((span, meant)) = &fault.meant {
            assert!(
                text.get(span.clone()).is_some() && !meant.is_empty(),
                "{text:?}: {fault:?}"
            );
        }
    }
}

fn comments() -> Vec<Vec<u8>> {
    let texts = [
        "# opsctl ignore(no-for) until 2026-12-31: the job runs for a minute",
        "# opsctl ignore-file(no-for, label-unknown) until 2027-01-01: exported by others",
    ];
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}

/// What suppresses names checks, a day and a reason; all else that is meant to says what it lacks.
fn comment(input: &[u8]) {
    let text = text(input);
    match suppression::read(&text, 0..text.len(), &checks()) {
        None => {}
        Some(Err(why)) => assert!(!why.to_string().is_empty()),
        Some(Ok(suppression)) => {
            assert!(
                !suppression.checks.is_empty() && !suppression.reason.trim().is_empty(),
                "{text:?}"
            );
            assert!(
                suppression
                    .checks
                    .iter()
                    .all(|name| checks().iter().any(|check| check.name == *name))
            );
        }
    }
}
