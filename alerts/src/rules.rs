//! Rule files as Prometheus reads them, with the bytes of every value: groups, rules, `PrometheusRule` objects, several
//! documents in one file. It judges no expression.
//!
//! ```
//! let file = lint::SourceFile::new("a.yml", "groups:\n- name: a\n  rules:\n  - alert: A\n    expr: up == 0\n    for: 5m\n");
//! let (rules, findings) = alerts::rules::read(&file);
//! assert!(findings.is_empty());
//! let rule = &rules.groups[0].rules[0];
//! assert_eq!(&file.text()[rule.expr.span.clone()], "up == 0");
//! assert_eq!(rule.hold.as_ref().map(|hold| hold.value.as_secs()), Some(300));
//! ```

mod reader;

use std::ops::Range;
use std::time::Duration;

use lint::document::Offsets;

pub use reader::{CHECKS, read};

/// What a file of rules holds.
#[derive(Debug, Default)]
pub struct RuleFile {
    /// The groups of all its documents.
    pub groups: Vec<Group>,
    /// The comments, each from its `#` to the end of the line.
    pub comments: Vec<Range<usize>>,
}

/// Rules that are evaluated one after the other at one time.
#[derive(Debug)]
pub struct Group {
    /// All of it.
    pub span: Range<usize>,
    /// What it is called.
    pub name: Text,
    /// How often it is evaluated; the server's own interval where it is missing.
    pub interval: Option<Spanned<Duration>>,
    /// How far in the past it is evaluated.
    pub query_offset: Option<Spanned<Duration>>,
    /// How many alerts or series a rule of it may make.
    pub limit: Option<Spanned<u64>>,
    /// Labels of every rule in it.
    pub labels: Vec<(Text, Text)>,
    /// The rules, in their order.
    pub rules: Vec<Rule>,
}

/// A rule.
#[derive(Debug)]
pub struct Rule {
    /// All of it.
    pub span: Range<usize>,
    /// Whether it alerts or records.
    pub kind: RuleKind,
    /// The name of the alert, or of the series that is recorded.
    pub name: Text,
    /// What is asked.
    pub expr: Text,
    /// `for`.
    pub hold: Option<Spanned<Duration>>,
    /// `keep_firing_for`.
    pub keep_firing_for: Option<Spanned<Duration>>,
    /// Labels that the rule sets, templates in alerts.
    pub labels: Vec<(Text, Text)>,
    /// Annotations, which are templates.
    pub annotations: Vec<(Text, Text)>,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleKind {
    /// It makes alerts.
    Alert,
    /// It records series.
    Record,
}

/// A value with its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// The bytes of the file.
    pub span: Range<usize>,
}

/// Text, and where its parts stand in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// The text.
    pub value: String,
    /// The bytes of the file, with quotes and block headers.
    pub span: Range<usize>,
    /// From bytes of the text to bytes of the file.
    pub offsets: Offsets,
}

impl Rule {
    /// The value of a label that the rule itself sets.
    pub fn label(&self, name: &str) -> Option<&Text> {
        pair(&self.labels, name)
    }

    /// The annotation of that name.
    pub fn annotation(&self, name: &str) -> Option<&Text> {
        pair(&self.annotations, name)
    }
}

impl Group {
    /// The value of a label of the group.
    pub fn label(&self, name: &str) -> Option<&Text> {
        pair(&self.labels, name)
    }
}

fn pair<'a>(pairs: &'a [(Text, Text)], name: &str) -> Option<&'a Text> {
    pairs.iter().find(|(key, _)| key.value == name).map(|(_, value)| value)
}

impl RuleFile {
    /// All rules with their groups.
    pub fn rules(&self) -> impl Iterator<Item = (&Group, &Rule)> {
        self.groups
            .iter()
            .flat_map(|group| group.rules.iter().map(move |rule| (group, rule)))
    }
}
