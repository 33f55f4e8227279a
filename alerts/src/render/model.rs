//! Rule files as types: what a rule says, and what shows that it is right. How they are written down is not here.

use std::time::Duration;

/// The rules of one file of Prometheus, or of one PrometheusRule.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleFile {
    /// Its name without an extension, unique in the environment: `service-orders`.
    pub name: String,
    /// What it is about, for people.
    pub about: String,
    /// The namespace of its PrometheusRule, where it has one of its own.
    pub namespace: Option<String>,
    /// Groups in the order in which they stand.
    pub groups: Vec<Group>,
    /// What shows that its alerts fire when they must and are silent when they must not.
    pub cases: Vec<Case>,
}

/// Rules that are evaluated one after another.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Its name, unique in the environment.
    pub name: String,
    /// How often it is evaluated.
    pub interval: Duration,
    /// Its rules; one may use what an earlier one records.
    pub rules: Vec<Rule>,
}

/// A rule.
#[derive(Debug, Clone, PartialEq)]
pub enum Rule {
    /// Keeps the answer to a question as a series.
    Record(Record),
    /// Tells somebody.
    Alert(Alert),
}

/// A recording rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Name of the series.
    pub name: String,
    /// The question.
    pub expr: String,
    /// Labels that are put on the series.
    pub labels: Vec<(String, String)>,
}

/// An alerting rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    /// Its name, and that of its runbook page.
    pub name: &'static str,
    /// The question; every series of its answer is an alert.
    pub expr: String,
    /// The answer has to hold for so long.
    pub hold: Duration,
    /// It goes on firing for so long after the answer is empty: one missed scrape ends nothing.
    pub keep: Duration,
    /// Labels that are put on the alert.
    pub labels: Vec<(String, String)>,
    /// What people are told; templates of Prometheus.
    pub annotations: Vec<(String, String)>,
}

/// How urgent an alert is: label `severity`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Somebody is woken.
    Page,
    /// Somebody looks at it in working hours.
    Ticket,
    /// Nobody is told: it shows that alerts come through at all.
    None,
}

impl Severity {
    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::Ticket => "ticket",
            Self::None => "none",
        }
    }
}

/// One thing that is tried: with these series, at that time, exactly those alerts of that name fire.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// What it shows, a sentence.
    pub shows: String,
    /// The alert.
    pub alert: &'static str,
    /// Series, and their values a minute apart in promtool's notation.
    pub series: Vec<(String, String)>,
    /// When one looks, from the first value on.
    pub at: Duration,
    /// How often the rules are evaluated.
    pub pace: Duration,
    /// What fires.
    pub fires: Vec<Firing>,
}

/// An alert that fires.
#[derive(Debug, Clone, PartialEq)]
pub struct Firing {
    /// All of its labels but its name.
    pub labels: Vec<(String, String)>,
    /// All of its annotations, filled in.
    pub annotations: Vec<(String, String)>,
}

/// Time between two values of a case's series, and as a rule between two evaluations.
pub const STEP: Duration = Duration::from_mins(1);

impl Case {
    /// The same, evaluated so often.
    #[must_use]
    pub const fn paced(mut self, pace: Duration) -> Self {
        self.pace = pace;
        self
    }
}

impl Alert {
    /// How it fires for a series with these labels, where its value is shown as `value`.
    pub fn firing(&self, labels: &[(&str, &str)], value: &str) -> Firing {
        let mut all: Vec<(String, String)> = labels
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        all.extend(self.labels.iter().cloned());
        let label = |name: &str| {
            all.iter()
                .find(|(label, _)| label == name)
                .map_or("", |(_, value)| value.as_str())
        };
        let annotations = self
            .annotations
            .iter()
            .map(|(name, text)| (name.clone(), filled(text, value, label)))
            .collect();
        Firing {
            labels: all.clone(),
            annotations,
        }
    }
}

/// A template with its actions replaced: one of a label by that, any other, and a choice as a whole, by the value.
fn filled<'a>(template: &str, value: &str, label: impl Fn(&str) -> &'a str) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((action, after)) = after.split_once("}}") else {
            break;
        };
        out.push_str(before);
        rest = after;
        match action.trim().strip_prefix("$labels.") {
            Some(name) => out.push_str(label(name)),
            None => out.push_str(value),
        }
        if action.trim().starts_with("if ") {
            rest = after.split_once("{{ end }}").map_or("", |(_, after)| after);
        }
    }
    out + rest
}
