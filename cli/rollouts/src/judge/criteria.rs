//! A service's own success criteria: queries whose number must keep within bounds. Numbers in, verdicts out; who asks, and
//! whom, is not decided here.
//!
//! A number beyond its bound fails the canary when the looks that follow confirm it. No number is neither good nor bad:
//! it keeps a canary from passing, and says nothing else.

use crate::analysis::Verdict;
use serde::{Deserialize, Serialize};

/// Words that a query may hold in double braces.
pub const PLACEHOLDERS: [&str; 4] = ["canary", "stable", "namespace", "service"];

/// A number that must keep within bounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Criterion {
    /// What it is called in reports.
    pub name: String,
    /// What a Prometheus is asked.
    pub query: String,
    /// The most that is good.
    pub max: Option<f64>,
    /// The least that is good.
    pub min: Option<f64>,
}

impl Criterion {
    fn allows(&self, value: f64) -> bool {
        self.max.is_none_or(|max| value <= max) && self.min.is_none_or(|min| value >= min)
    }

    /// How far a value is from the nearest bound; negative within.
    fn off(&self, value: f64) -> f64 {
        let above = self.max.map_or(f64::NEG_INFINITY, |max| value - max);
        let below = self.min.map_or(f64::NEG_INFINITY, |min| min - value);
        above.max(below)
    }

    /// The bounds in words.
    pub fn bounds(&self) -> String {
        match (self.min, self.max) {
            (Some(min), Some(max)) => format!("{min} to {max}"),
            (Some(min), None) => format!("at least {min}"),
            (None, Some(max)) => format!("at most {max}"),
            (None, None) => "anything".to_owned(),
        }
    }
}

/// Why a query cannot be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// `{{` without `}}`.
    #[error("`{{{{` is not closed")]
    Unclosed,
    /// A word that nothing stands for.
    #[error("`{{{{{0}}}}}` stands for nothing")]
    Unknown(String),
}

/// A query with values in place of `{{word}}`, written so that they can stand in PromQL's strings.
pub fn expand(query: &str, value: impl Fn(&str) -> Option<String>) -> Result<String, QueryError> {
    let mut expanded = String::with_capacity(query.len());
    let mut rest = query;
    while let Some((before, after)) = rest.split_once("{{") {
        let (word, after) = after.split_once("}}").ok_or(QueryError::Unclosed)?;
        let word = word.trim();
        let value = value(word).ok_or_else(|| QueryError::Unknown(word.to_owned()))?;
        expanded.push_str(before);
        for c in value.chars() {
            if matches!(c, '"' | '\'' | '`' | '\\') {
                expanded.push('\\');
            }
            expanded.push(c);
        }
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// What was seen of a criterion.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// The last look's number; absent when there was none.
    pub last: Option<f64>,
    /// The number nearest to its bound, or farthest beyond.
    pub worst: Option<f64>,
    /// Looks at it.
    pub looks: u64,
    /// Looks without a number.
    pub missing: u64,
    /// Looks in a row with a number beyond its bound. Looks without one are none.
    pub beyond: u32,
}

impl Seen {
    /// Takes in a look.
    pub fn add(&mut self, criterion: &Criterion, value: Option<f64>) {
        let value = value.filter(|value| value.is_finite());
        self.looks += 1;
        self.last = value;
        let Some(value) = value else {
            self.missing += 1;
            return;
        };
        self.beyond = if criterion.allows(value) { 0 } else { self.beyond + 1 };
        if self
            .worst
            .is_none_or(|worst| criterion.off(value) > criterion.off(worst))
        {
            self.worst = Some(value);
        }
    }

    /// What it says; `confirm` looks in a row fail it.
    pub fn verdict(&self, confirm: u32) -> Verdict {
        if self.beyond >= confirm.max(1) {
            Verdict::Fail
        } else if self.beyond > 0 || self.last.is_none() {
            Verdict::Inconclusive
        } else {
            Verdict::Pass
        }
    }
}

/// What is known of a criterion, for reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CriterionReport {
    /// The criterion.
    #[serde(flatten)]
    pub criterion: Criterion,
    /// What was seen of it.
    #[serde(flatten)]
    pub seen: Seen,
    /// What it says by itself.
    pub verdict: Verdict,
}

impl CriterionReport {
    /// One line: the number, its bound, and what is amiss.
    pub fn describe(&self) -> String {
        let Criterion { name, .. } = &self.criterion;
        let number = self
            .seen
            .last
            .map_or_else(|| "no number".to_owned(), |last| format!("{last:.4}"));
        let bounds = self.criterion.bounds();
        let more = match self.seen.beyond {
            0 => String::new(),
            looks => format!(", beyond that for {looks} looks"),
        };
        format!("{name}: {number}, good is {bounds}{more}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn criterion(max: Option<f64>, min: Option<f64>) -> Criterion {
        Criterion {
            name: "checkout".to_owned(),
            query: "vector(1)".to_owned(),
            max,
            min,
        }
    }

    #[test]
    fn a_bound_is_crossed_when_looks_confirm_it() {
        let most = criterion(Some(0.3), None);
        let mut seen = Seen::default();
        assert_eq!(seen.verdict(3), Verdict::Inconclusive, "nothing was seen");
        for (value, verdict) in [
            (Some(0.3), Verdict::Pass),
            (Some(0.4), Verdict::Inconclusive),
            (Some(0.4), Verdict::Inconclusive),
            (Some(0.2), Verdict::Pass),
            (Some(0.5), Verdict::Inconclusive),
            // Nobody knows: it neither confirms nor refutes.
            (None, Verdict::Inconclusive),
            (Some(0.4), Verdict::Inconclusive),
            (Some(0.31), Verdict::Fail),
        ] {
            seen.add(&most, value);
            assert_eq!(seen.verdict(3), verdict, "{seen:?}");
        }
        assert_eq!((seen.worst, seen.looks, seen.missing), (Some(0.5), 8, 1));
    }

    #[test]
    fn a_least_and_no_number_at_all() {
        let least = criterion(None, Some(10.0));
        let mut seen = Seen::default();
        seen.add(&least, Some(9.0));
        assert_eq!(seen.verdict(1), Verdict::Fail);
        let mut unknown = Seen::default();
        for value in [None, Some(f64::NAN), None] {
            unknown.add(&least, value);
        }
        assert_eq!((unknown.verdict(3), unknown.missing), (Verdict::Inconclusive, 3));
        assert_eq!(criterion(Some(2.0), Some(1.0)).bounds(), "1 to 2");
    }

    #[test]
    fn placeholders_are_values_within_strings() {
        let value = |word: &str| (word == "canary").then(|| "1.5\"0".to_owned());
        let expanded = expand("up{version=\"{{canary}}\"} > {{ canary }}", value);
        assert_eq!(expanded.as_deref(), Ok("up{version=\"1.5\\\"0\"} > 1.5\\\"0"));
        assert_eq!(expand("a{b=\"c\"}", value).as_deref(), Ok("a{b=\"c\"}"));
        assert_eq!(expand("{{canary", value), Err(QueryError::Unclosed));
        let unknown = expand("{{canry}}", value).expect_err("it is none");
        assert_eq!(unknown.to_string(), "`{{canry}}` stands for nothing");
    }
}
