//! What fires now, for those on call: since when, whose it is, whether anybody is told, where to read on, and when the
//! alert was last proved. Pure.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::alertmanager::{ReceivedAlert, Silence};
use super::check::Verdict;
use super::world::{Seen, World};

/// When a drill last made an alert fire.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Proof {
    /// The alert.
    pub alertname: String,
    /// When.
    pub at: Timestamp,
    /// Which run.
    pub run: String,
}

/// What there is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// Version of the document.
    pub schema: &'static str,
    /// When.
    pub at: Timestamp,
    /// Alerts that fire and are told come first, then those that are hidden, then those that are pending.
    pub alerts: Vec<Standing>,
    /// What was not answered.
    pub unknown: Vec<String>,
}

/// One alert.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Standing {
    /// Its name.
    pub name: String,
    /// Its other labels.
    pub labels: BTreeMap<String, String>,
    /// `firing` or `pending`.
    pub state: String,
    /// Since when: of what fires the time of firing as Alertmanager knows it, else since when its expression holds.
    pub since: Option<Timestamp>,
    /// The label `severity`.
    pub severity: Option<String>,
    /// The label `team` or `owner`, or such an annotation.
    pub owner: Option<String>,
    /// The annotation `summary`, or `description`.
    pub summary: Option<String>,
    /// The annotation `runbook_url`.
    pub runbook: Option<String>,
    /// Who is told.
    pub receivers: Vec<String>,
    /// What keeps it from being told.
    pub hidden: Vec<Hidden>,
    /// Alertmanager does not have it, though it fires.
    pub lost: bool,
    /// When a drill last made it fire.
    pub proved: Option<Proof>,
}

/// What keeps an alert from being told.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "by", rename_all = "lowercase")]
pub enum Hidden {
    /// A silence.
    Silence {
        /// Its id.
        id: String,
        /// Who made it.
        author: String,
        /// Why.
        comment: String,
        /// Until when.
        until: Option<Timestamp>,
    },
    /// Another alert that fires.
    Alert {
        /// Its name; its fingerprint where it is not known.
        name: String,
    },
    /// A time interval.
    Interval {
        /// Its name.
        name: String,
    },
}

impl Status {
    /// From what was seen, and the proofs of drills.
    pub fn of(world: &World, proofs: &[Proof]) -> Self {
        let told = &world.told;
        let empty = Vec::new();
        let received = told.alerts.told().unwrap_or(&empty);
        let mut taken = vec![false; received.len()];
        let known = Known::of(world, received);
        let mut alerts = Vec::new();
        for active in told.active.told().into_iter().flatten() {
            let mut standing = describe(&active.labels, &active.annotations, &active.state);
            standing.since = active.active_at;
            if active.state == "firing" {
                match known.nearest(&active.labels) {
                    Some(at) => {
                        taken[at] = true;
                        known.complete(&mut standing, &received[at]);
                    }
                    None => standing.lost = matches!(told.alerts, Seen::Told(_)),
                }
            }
            alerts.push(standing);
        }
        // Of others than this Prometheus.
        for (alert, _) in received.iter().zip(taken).filter(|(_, taken)| !taken) {
            let mut standing = describe(&alert.labels, &alert.annotations, "firing");
            known.complete(&mut standing, alert);
            alerts.push(standing);
        }
        for alert in &mut alerts {
            let of = proofs.iter().filter(|proof| proof.alertname == alert.name);
            alert.proved = of.max_by_key(|proof| proof.at).cloned();
        }
        alerts.sort_by_key(|alert| {
            let rank = u8::from(alert.state != "firing") * 2 + u8::from(!alert.hidden.is_empty());
            (
                rank,
                severity(alert.severity.as_deref()),
                alert.since,
                alert.name.clone(),
            )
        });
        let reasons = [told.active.silence(), told.alerts.silence(), told.silences.silence()];
        let mut unknown: Vec<String> = reasons.into_iter().flatten().map(|(why, _)| why.to_owned()).collect();
        unknown.dedup();
        Self {
            schema: "opsctl.xyz/v1",
            at: world.now,
            alerts,
            unknown,
        }
    }

    /// Whether what fires is known at all, and whether anything does that nobody hides.
    pub fn verdict(&self, world: &World) -> Verdict {
        match &world.told.active {
            Seen::Told(_) if !self.unknown.is_empty() => Verdict::Inconclusive,
            Seen::Told(_) => {
                // What only shows that alerts come through has the severity `none`.
                let none = |alert: &Standing| alert.severity.as_deref() == Some("none");
                let open = |alert: &Standing| alert.state == "firing" && alert.hidden.is_empty() && !none(alert);
                if self.alerts.iter().any(open) {
                    Verdict::Bad
                } else {
                    Verdict::Good
                }
            }
            Seen::Silent { unreachable: true, .. } => Verdict::Unreachable,
            Seen::Silent { .. } | Seen::NotAsked => Verdict::Inconclusive,
        }
    }
}

/// The gravest first; words that are not known stand between those that are.
fn severity(word: Option<&str>) -> u8 {
    match word {
        Some("critical" | "page" | "emergency") => 0,
        Some("error" | "major" | "high") => 1,
        Some("warning" | "ticket") => 3,
        Some("info" | "none" | "low") => 4,
        _ => 2,
    }
}

fn describe(labels: &BTreeMap<String, String>, annotations: &BTreeMap<String, String>, state: &str) -> Standing {
    let label = |name: &str| labels.get(name).filter(|value| !value.is_empty()).cloned();
    let annotation = |name: &str| annotations.get(name).filter(|value| !value.is_empty()).cloned();
    let owners = ["team", "owner"];
    let mut rest = labels.clone();
    let name = rest.remove("alertname").unwrap_or_default();
    Standing {
        name,
        labels: rest,
        state: state.to_owned(),
        severity: label("severity"),
        owner: owners
            .into_iter()
            .find_map(label)
            .or_else(|| owners.into_iter().find_map(annotation)),
        summary: annotation("summary")
            .or_else(|| annotation("description"))
            .or_else(|| annotation("message")),
        runbook: annotation("runbook_url").or_else(|| annotation("runbook")),
        ..Standing::default()
    }
}

/// So many alerts are compared with one that has its rarest label: two servers that are honest have few of them in common.
const COMPARED: usize = 1000;

/// What Alertmanager knows, to be looked up.
struct Known<'a> {
    received: &'a [ReceivedAlert],
    /// Which alerts have a label.
    with: HashMap<(&'a str, &'a str), Vec<usize>>,
    /// The alerts' names by fingerprint.
    names: HashMap<&'a str, Option<&'a String>>,
    /// By id.
    silences: HashMap<&'a str, &'a Silence>,
}

impl<'a> Known<'a> {
    fn of(world: &'a World, received: &'a [ReceivedAlert]) -> Self {
        let mut with: HashMap<_, Vec<usize>> = HashMap::new();
        for (at, alert) in received.iter().enumerate() {
            for (name, value) in &alert.labels {
                with.entry((name.as_str(), value.as_str())).or_default().push(at);
            }
        }
        let names = received.iter();
        let silences = world.told.silences.told().into_iter().flatten();
        Self {
            received,
            with,
            names: names
                .map(|alert| (alert.fingerprint.as_str(), alert.labels.get("alertname")))
                .collect(),
            silences: silences.map(|silence| (silence.id.as_str(), silence)).collect(),
        }
    }

    /// The alert that has all these labels and the fewest others: Alertmanager may have been sent more, those of the server.
    fn nearest(&self, labels: &BTreeMap<String, String>) -> Option<usize> {
        let lists = labels.iter().map(|(name, value)| {
            let list = self.with.get(&(name.as_str(), value.as_str()));
            list.map_or(&[][..], Vec::as_slice)
        });
        let rarest = lists.min_by_key(|list| list.len())?;
        let has_all = |at: &&usize| {
            labels
                .iter()
                .all(|label| self.received[**at].labels.get(label.0) == Some(label.1))
        };
        let near = rarest.iter().take(COMPARED).filter(has_all);
        near.min_by_key(|at| self.received[**at].labels.len()).copied()
    }

    /// What Alertmanager knows of it.
    fn complete(&self, standing: &mut Standing, alert: &ReceivedAlert) {
        standing.since = alert.starts_at.or(standing.since);
        standing.receivers = alert.receivers.iter().map(|receiver| receiver.name.clone()).collect();
        let status = &alert.status;
        standing.hidden = status.silenced_by.iter().map(|id| self.silence(id)).collect();
        standing.hidden.extend(status.inhibited_by.iter().map(|fingerprint| {
            let name = self.names.get(fingerprint.as_str()).copied().flatten();
            Hidden::Alert {
                name: name.unwrap_or(fingerprint).clone(),
            }
        }));
        standing.hidden.extend(
            status
                .muted_by
                .iter()
                .map(|name| Hidden::Interval { name: name.clone() }),
        );
    }

    fn silence(&self, id: &str) -> Hidden {
        let silence = self.silences.get(id);
        Hidden::Silence {
            id: id.to_owned(),
            author: silence.map(|silence| silence.created_by.clone()).unwrap_or_default(),
            comment: silence.map(|silence| silence.comment.clone()).unwrap_or_default(),
            until: silence.and_then(|silence| silence.ends_at),
        }
    }
}
