//! Silences for those on call: what a silence hides, and making one with a plan that says so first. Rendering and
//! consent are the command line's.

use std::collections::BTreeMap;

use endpoint::EndpointError;
use jiff::{SignedDuration, Timestamp};
use regex::Regex;
use serde::Serialize;

use super::alertmanager::{Alertmanager, Matcher, PostableSilence, ReceivedAlert, Silence};

/// What a silence does to alerts of which some labels are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hides {
    /// It does not concern them.
    Nothing,
    /// It asks only for labels that are not known beforehand.
    Unknown,
    /// It may hide some: what is known fits, and it asks for more.
    Some,
    /// It hides them all.
    All,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Which alerts: those that all of these fit.
    pub matchers: Vec<Matcher>,
    /// For how long, from now on.
    pub duration: SignedDuration,
    /// Who asks.
    pub author: String,
    /// Why.
    pub comment: String,
}

/// What would be done.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "do", rename_all = "lowercase")]
pub enum Plan {
    /// A silence is made.
    Create {
        /// Its conditions.
        matchers: Vec<Matcher>,
        /// From when.
        from: Timestamp,
        /// Until when.
        until: Timestamp,
        /// Who.
        author: String,
        /// Why.
        comment: String,
        /// The alerts that it hides at once.
        hides: Vec<BTreeMap<String, String>>,
        /// How many alerts there are.
        of: usize,
        /// Silences in force that have the same conditions.
        beside: Vec<String>,
    },
    /// A silence ends now.
    Expire {
        /// Which.
        silence: Silence,
    },
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SilenceError {
    /// Nothing in the matchers keeps it from hiding everything.
    #[error("this silence would hide every alert; name a label with its value, such as alertname=\"HighErrorRate\"")]
    Everything,
    /// A matcher's pattern is none.
    #[error("`{0}` is no pattern")]
    Pattern(String),
    /// A matcher names no label.
    #[error("a matcher has no label")]
    Label,
    /// It would be over before it began.
    #[error("a silence must last at least a second")]
    Duration,
    /// It would last longer than anybody remembers.
    #[error("a silence of more than 30 days is forever; change the rule or its route instead")]
    Forever,
    /// It does not say who and why.
    #[error("a silence says who makes it and why")]
    Unexplained,
    /// There is no silence of that id that is not over.
    #[error("there is no silence `{0}` in force or to come")]
    Unknown(String),
}

const LONGEST: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Plans a silence. `alerts` and `silences` are what Alertmanager has now.
///
/// # Errors
/// [`SilenceError`].
pub fn plan(
    request: Request,
    alerts: &[ReceivedAlert],
    silences: &[Silence],
    now: Timestamp,
) -> Result<Plan, SilenceError> {
    if request.author.trim().is_empty() || request.comment.trim().is_empty() {
        return Err(SilenceError::Unexplained);
    }
    if request.duration < SignedDuration::from_secs(1) {
        return Err(SilenceError::Duration);
    }
    if request.duration > LONGEST {
        return Err(SilenceError::Forever);
    }
    let until = now.checked_add(request.duration).map_err(|_| SilenceError::Forever)?;
    for matcher in &request.matchers {
        if matcher.name.is_empty() {
            return Err(SilenceError::Label);
        }
        if matcher.is_regex {
            pattern(&matcher.value).ok_or_else(|| SilenceError::Pattern(matcher.value.clone()))?;
        }
    }
    if !request.matchers.iter().any(narrows) {
        return Err(SilenceError::Everything);
    }
    let matchers = Matchers::new(&request.matchers);
    let hidden = alerts.iter().filter(|alert| matchers.fit(&alert.labels));
    let same = |silence: &&Silence| silence.status.state == "active" && silence.matchers == request.matchers;
    Ok(Plan::Create {
        hides: hidden.map(|alert| alert.labels.clone()).collect(),
        of: alerts.len(),
        beside: silences.iter().filter(same).map(|silence| silence.id.clone()).collect(),
        matchers: request.matchers,
        from: now,
        until,
        author: request.author,
        comment: request.comment,
    })
}

/// Plans the end of a silence.
///
/// # Errors
/// [`SilenceError::Unknown`].
pub fn plan_expire(id: &str, silences: &[Silence]) -> Result<Plan, SilenceError> {
    let silence = silences
        .iter()
        .find(|silence| silence.id == id && silence.status.state != "expired");
    silence
        .map(|silence| Plan::Expire {
            silence: silence.clone(),
        })
        .ok_or_else(|| SilenceError::Unknown(id.to_owned()))
}

/// Does what is planned; the silence's id.
///
/// # Errors
/// [`EndpointError`].
pub async fn apply(plan: &Plan, alertmanager: &Alertmanager) -> Result<String, EndpointError> {
    match plan {
        Plan::Create {
            matchers,
            from,
            until,
            author,
            comment,
            ..
        } => {
            let silence = PostableSilence {
                matchers,
                starts_at: *from,
                ends_at: *until,
                created_by: author,
                comment,
            };
            alertmanager.post_silence(&silence).await
        }
        Plan::Expire { silence } => {
            alertmanager.delete_silence(&silence.id).await?;
            Ok(silence.id.clone())
        }
    }
}

/// Reads `alertname="A"`, `severity!=info`, `pod=~"a-.*"`, as one types them: quotes may be left out.
///
/// # Errors
/// [`SilenceError::Label`], [`SilenceError::Pattern`].
pub fn matcher(text: &str) -> Result<Matcher, SilenceError> {
    let at = text.find(['=', '!']).ok_or(SilenceError::Label)?;
    let (name, rest) = text.split_at(at);
    let operators = [
        ("=~", true, true),
        ("!~", false, true),
        ("!=", false, false),
        ("=", true, false),
    ];
    let (value, is_equal, is_regex) = operators
        .iter()
        .find_map(|(sign, equal, regex)| Some((rest.strip_prefix(sign)?, *equal, *regex)))
        .ok_or(SilenceError::Label)?;
    let value = value.trim();
    let value = match value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) {
        Some(quoted) => quoted.replace("\\\"", "\"").replace("\\\\", "\\"),
        None => value.to_owned(),
    };
    let name = name.trim();
    if name.is_empty() {
        return Err(SilenceError::Label);
    }
    if is_regex && pattern(&value).is_none() {
        return Err(SilenceError::Pattern(value));
    }
    Ok(Matcher {
        name: name.to_owned(),
        value,
        is_regex,
        is_equal,
    })
}

/// The matchers of a silence, with their patterns made ready once. One whose pattern is none fits nothing.
pub(super) struct Matchers<'a>(Vec<(&'a Matcher, Option<Regex>)>);

impl<'a> Matchers<'a> {
    pub fn new(matchers: &'a [Matcher]) -> Self {
        let ready = |matcher: &'a Matcher| {
            let pattern = matcher.is_regex.then(|| pattern(&matcher.value)).flatten();
            (matcher, pattern)
        };
        Self(matchers.iter().map(ready).collect())
    }

    /// What the silence does to alerts of which these labels are known.
    pub fn hides(&self, labels: &BTreeMap<&str, &str>) -> Hides {
        let mut known = 0;
        for (matcher, pattern) in &self.0 {
            // What a template becomes, and what the expression's series have, is not known.
            let value = labels.get(matcher.name.as_str()).filter(|value| !value.contains("{{"));
            let Some(value) = value else { continue };
            if !accepts(matcher, pattern.as_ref(), value) {
                return Hides::Nothing;
            }
            known += 1;
        }
        match known {
            all if all == self.0.len() => Hides::All,
            0 => Hides::Unknown,
            _ => Hides::Some,
        }
    }

    /// Whether an alert is hidden. A label that is not there is empty.
    fn fit(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = |name: &str| labels.get(name).map_or("", String::as_str);
        self.0
            .iter()
            .all(|(matcher, pattern)| accepts(matcher, pattern.as_ref(), value(&matcher.name)))
    }
}

fn accepts(matcher: &Matcher, pattern: Option<&Regex>, value: &str) -> bool {
    let fits = match pattern {
        Some(pattern) => pattern.is_match(value),
        None if matcher.is_regex => return false,
        None => matcher.value == value,
    };
    fits == matcher.is_equal
}

/// A pattern for the whole of a value.
fn pattern(text: &str) -> Option<Regex> {
    let mut builder = regex::RegexBuilder::new(&format!("^(?:{text})$"));
    // Alertmanager's `.` stands for line breaks too.
    builder.dot_matches_new_line(true).size_limit(1 << 20).build().ok()
}

/// Whether a matcher leaves any alert out that has the label: `severity="page"` does, `severity=~".+"` does not, and
/// nor do those that only exclude.
fn narrows(matcher: &Matcher) -> bool {
    if !matcher.is_equal {
        return false;
    }
    if !matcher.is_regex {
        return !matcher.value.is_empty();
    }
    // Values that have nothing in common but to be values.
    const ANY: [&str; 4] = ["a", "Zq-9_/x.y", "0", "\u{e9} \u{4e16}"];
    pattern(&matcher.value).is_some_and(|pattern| !ANY.iter().all(|value| pattern.is_match(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(matchers: &[&str]) -> Request {
        Request {
            matchers: matchers.iter().map(|text| matcher(text).unwrap()).collect(),
            duration: SignedDuration::from_mins(30),
            author: "sam".to_owned(),
            comment: "disk is being replaced".to_owned(),
        }
    }

    fn alert(labels: &[(&str, &str)]) -> ReceivedAlert {
        ReceivedAlert {
            labels: labels
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..ReceivedAlert::default()
        }
    }

    #[test]
    fn a_silence_that_hides_everything_is_refused() {
        let now = Timestamp::UNIX_EPOCH;
        let everything: &[&[&str]] = &[
            &[],
            &["alertname=~.*"],
            &["alertname=~.+", "severity=~\"(.+)\""],
            &["alertname!=Watchdog"],
            &["severity!~info"],
            &["alertname=\"\""],
            &["alertname=~\"[^\\n]+|\""],
        ];
        for matchers in everything {
            let refused = plan(request(matchers), &[], &[], now);
            assert_eq!(refused, Err(SilenceError::Everything), "{matchers:?}");
        }
        for matchers in [
            &["alertname=A"][..],
            &["pod=~\"a-.*\""],
            &["severity!=info", "team=pay"],
        ] {
            assert!(plan(request(matchers), &[], &[], now).is_ok(), "{matchers:?}");
        }
    }

    #[test]
    fn a_plan_says_what_it_hides() {
        let alerts = [
            alert(&[("alertname", "A"), ("pod", "a-1")]),
            alert(&[("alertname", "A"), ("pod", "b-1")]),
            alert(&[("alertname", "B")]),
        ];
        let made = plan(
            request(&["alertname=A", "pod!~b-.*"]),
            &alerts,
            &[],
            Timestamp::UNIX_EPOCH,
        )
        .unwrap();
        let Plan::Create { hides, of, until, .. } = made else {
            panic!("{made:?}")
        };
        assert_eq!((hides, of), (vec![alerts[0].labels.clone()], 3));
        assert_eq!(until.as_second(), 1_800);
    }

    #[test]
    fn it_is_short_and_explained() {
        let now = Timestamp::UNIX_EPOCH;
        let mut long = request(&["alertname=A"]);
        long.duration = SignedDuration::from_hours(24 * 365 * 100);
        assert_eq!(plan(long, &[], &[], now), Err(SilenceError::Forever));
        let mut mute = request(&["alertname=A"]);
        mute.comment = " ".to_owned();
        assert_eq!(plan(mute, &[], &[], now), Err(SilenceError::Unexplained));
        let mut none = request(&["alertname=A"]);
        none.duration = SignedDuration::ZERO;
        assert_eq!(plan(none, &[], &[], now), Err(SilenceError::Duration));
        assert_eq!(plan_expire("x", &[]), Err(SilenceError::Unknown("x".to_owned())));
    }

    #[test]
    fn matchers_are_read_as_they_are_typed() {
        let read = |text: &str| matcher(text).map(|matcher| matcher.to_string());
        assert_eq!(read("a=b").as_deref(), Ok("a=\"b\""));
        assert_eq!(read("a =~ \"b|c\"").as_deref(), Ok("a=~\"b|c\""));
        assert_eq!(read("a!=\"x=y\"").as_deref(), Ok("a!=\"x=y\""));
        assert_eq!(read("a!~x").as_deref(), Ok("a!~\"x\""));
        assert_eq!(read("=b"), Err(SilenceError::Label));
        assert_eq!(read("ab"), Err(SilenceError::Label));
        assert_eq!(read("a=~("), Err(SilenceError::Pattern("(".to_owned())));
    }
}
