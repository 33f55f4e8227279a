//! How long Alertmanager waits with a new group, from its configuration. Which way an alert takes depends on labels that are
//! known only when it fires: every route that it might take counts. It is no test of routes.

use std::collections::BTreeMap;
use std::time::Duration;

use opsctl_platform::prometheus::duration;
use serde::Deserialize;

/// What Alertmanager waits where nothing else is said.
const DEFAULT: Duration = Duration::from_secs(30);
/// Routes lie in routes so deep; what is deeper is not looked at.
const DEPTH: usize = 32;

/// How long it waits with a new group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupWait {
    /// On the quickest of the routes.
    pub least: Duration,
    /// On the slowest.
    pub most: Duration,
}

impl GroupWait {
    /// Where nobody says how long.
    pub const UNKNOWN: Self = Self {
        least: Duration::ZERO,
        most: DEFAULT,
    };
}

/// A configuration that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the configuration of Alertmanager cannot be read")]
pub struct RouteError(#[source] Box<dyn std::error::Error + Send + Sync>);

#[derive(Deserialize)]
struct Configuration {
    route: Route,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Route {
    matchers: Vec<String>,
    r#match: BTreeMap<String, String>,
    match_re: BTreeMap<String, String>,
    group_wait: Option<String>,
    r#continue: bool,
    routes: Vec<Route>,
}

/// Whether a route takes an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Takes {
    No,
    Perhaps,
    Yes,
}

/// The waits of every route that an alert with at least `labels` might take. A label that is a template, or is not there,
/// may have any value.
///
/// # Errors
/// [`RouteError`] where the text is no configuration.
pub fn group_wait(configuration: &str, labels: &BTreeMap<String, String>) -> Result<GroupWait, RouteError> {
    let Configuration { route } =
        serde_saphyr::from_str(configuration).map_err(|error| RouteError(error.to_string().into()))?;
    let mut waits = Vec::new();
    route.waits(labels, DEFAULT, DEPTH, &mut waits);
    let (least, most) = (waits.iter().min(), waits.iter().max());
    Ok(GroupWait {
        least: least.copied().unwrap_or(DEFAULT),
        most: most.copied().unwrap_or(DEFAULT),
    })
}

impl Route {
    fn waits(&self, labels: &BTreeMap<String, String>, inherited: Duration, depth: usize, waits: &mut Vec<Duration>) {
        let own = self.group_wait.as_deref().and_then(duration).unwrap_or(inherited);
        if depth == 0 {
            return waits.push(own);
        }
        // It stays here unless a route below takes it for sure.
        let mut stays = true;
        for route in &self.routes {
            let takes = route.takes(labels);
            if takes == Takes::No {
                continue;
            }
            route.waits(labels, own, depth - 1, waits);
            if takes == Takes::Yes {
                stays = false;
                if !route.r#continue {
                    break;
                }
            }
        }
        if stays {
            waits.push(own);
        }
    }

    fn takes(&self, labels: &BTreeMap<String, String>) -> Takes {
        let written = self.matchers.iter().map(|matcher| decide(matcher, labels));
        let equal = self.r#match.iter().map(|(name, value)| equals(labels, name, value));
        let pattern = self.match_re.iter().map(|_| Takes::Perhaps);
        written.chain(equal).chain(pattern).min().unwrap_or(Takes::Yes)
    }
}

fn equals(labels: &BTreeMap<String, String>, name: &str, wanted: &str) -> Takes {
    match labels.get(name) {
        Some(value) if value.contains("{{") => Takes::Perhaps,
        Some(value) if value == wanted => Takes::Yes,
        Some(_) => Takes::No,
        None => Takes::Perhaps,
    }
}

/// `name="value"`, `name!="value"`; what is matched by a pattern may match.
fn decide(matcher: &str, labels: &BTreeMap<String, String>) -> Takes {
    let Some(at) = matcher.find(['=', '!']) else {
        return Takes::Perhaps;
    };
    let name = matcher[..at].trim().trim_matches('"');
    let operator = &matcher[at..];
    let (not, value) = match operator.strip_prefix("!=") {
        Some(value) => (true, value),
        None => match operator.strip_prefix('=').filter(|rest| !rest.starts_with('~')) {
            Some(value) => (false, value),
            None => return Takes::Perhaps,
        },
    };
    let value = value.trim();
    let value = value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'))
        .unwrap_or(value);
    if value.contains('\\') {
        return Takes::Perhaps;
    }
    match (equals(labels, name, value), not) {
        (Takes::Perhaps, _) => Takes::Perhaps,
        (takes, false) => takes,
        (Takes::No, true) => Takes::Yes,
        (Takes::Yes, true) => Takes::No,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIGURATION: &str = r#"
route:
  receiver: nobody
  group_wait: 10s
  routes:
  - matchers: ['severity="page"', 'team="pay"']
    receiver: pay
    group_wait: 1s
    routes:
    - matchers: ['alertname=~"Slow.*"']
      group_wait: 1m
  - match: {severity: ticket}
    receiver: tickets
    continue: true
  - matchers: ['severity!="page"', 'quiet="yes"']
    group_wait: 5m
receivers: [{name: nobody}, {name: pay}, {name: tickets}]
"#;

    fn waits(labels: &[(&str, &str)]) -> (u64, u64) {
        let labels = labels
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let wait = group_wait(CONFIGURATION, &labels.collect()).unwrap();
        (wait.least.as_secs(), wait.most.as_secs())
    }

    #[test]
    fn every_route_counts_that_the_alert_might_take() {
        for (labels, wanted) in [
            // Whether the pattern matches is not decided here.
            (vec![("severity", "page"), ("team", "pay")], (1, 60)),
            // A template may be anything.
            (vec![("severity", "page"), ("team", "{{ $labels.team }}")], (1, 60)),
            (vec![("severity", "page"), ("team", "shop")], (10, 10)),
            (vec![("severity", "ticket"), ("quiet", "no")], (10, 10)),
            (vec![("severity", "ticket"), ("quiet", "yes")], (10, 300)),
            (vec![("severity", "none")], (10, 300)),
        ] {
            assert_eq!(waits(&labels), wanted, "{labels:?}");
        }
    }

    #[test]
    fn without_a_word_it_is_half_a_minute_and_nonsense_is_an_error() {
        let labels = BTreeMap::new();
        let wait = group_wait("route: {receiver: x}\n", &labels).unwrap();
        assert_eq!((wait.least, wait.most), (DEFAULT, DEFAULT));
        let quick = group_wait("route: {receiver: x, group_wait: 0s}\n", &labels).unwrap();
        assert_eq!(quick.most, Duration::ZERO);
        assert!(group_wait("route: [", &labels).is_err());
        assert!(group_wait("", &labels).is_err());
        let deep = format!("route: {}{}", "{routes: [".repeat(2_000), "]}".repeat(2_000));
        // Refused or read, but it ends.
        let _ = group_wait(&deep, &labels);
    }
}
