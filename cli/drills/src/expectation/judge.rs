//! What was seen of the expected alerts, look by look, and what it proves. Pure: it takes what Prometheus and Alertmanager
//! said and when, and knows neither.
//!
//! A moment is when the servers say that it was, if that lies between two looks, and else the look that first saw it: clocks
//! that differ make no figure wrong by more than the time between two looks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use opsctl_platform::prometheus::{ActiveAlert, AlertState, Received};

use super::{AlertReport, Expected, Proof, Unexpected};
use crate::figures::duration;

/// Unexpected alerts are listed up to so many.
const LISTED: usize = 100;
/// So long nobody may have answered without anything having been missed.
pub const BLIND: Duration = Duration::from_secs(10);

/// One look at the servers.
#[derive(Debug, Clone, PartialEq)]
pub struct Look {
    /// When it was.
    pub at: Timestamp,
    /// What is pending or firing; absent when Prometheus did not answer.
    pub alerts: Option<Vec<ActiveAlert>>,
    /// What Alertmanager was told of; absent when it did not answer.
    pub received: Option<Vec<Received>>,
}

/// Something that became so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// When.
    pub at: Timestamp,
    /// A word for machines.
    pub kind: &'static str,
    /// A few words for people.
    pub text: String,
}

/// What is known of one expected alert.
#[derive(Debug)]
struct Track {
    expected: Expected,
    /// How far it was before anything was done.
    before: Option<AlertState>,
    pending: Option<Timestamp>,
    firing: Option<Timestamp>,
    received: Option<Timestamp>,
    /// When Alertmanager knew of it and nothing kept it back.
    open: Option<Timestamp>,
    suppressed: Option<Timestamp>,
    suppressed_by: BTreeSet<String>,
    receivers: BTreeSet<String>,
    resolved: Option<Timestamp>,
    cleared: Option<Timestamp>,
}

impl Track {
    fn wait(&self) -> Duration {
        Duration::try_from_secs_f64(self.expected.predicted.group_wait_most_seconds).unwrap_or_default()
    }

    /// When somebody is told, by what Alertmanager waits.
    fn due(&self) -> Option<Timestamp> {
        self.open.map(|open| later(open, self.wait()))
    }

    /// Whether it was over before anybody was told.
    fn missed(&self) -> bool {
        matches!((self.cleared.or(self.resolved), self.due()), (Some(over), Some(due)) if over < due)
    }
}

/// One server, as far as it answers.
#[derive(Debug, Default)]
struct Sight {
    last: Option<Timestamp>,
    /// Since when it has not answered.
    silent: Option<Timestamp>,
    /// The longest time between two answers since the fault.
    gap: Duration,
}

impl Sight {
    /// Takes a look in; gives when the answer before it was.
    fn look(&mut self, at: Timestamp, answered: bool, counts: bool) -> Timestamp {
        let before = self.last.unwrap_or(at);
        if counts {
            self.gap = self.gap.max(between(before, at));
        }
        if answered {
            (self.last, self.silent) = (Some(at), None);
        } else {
            self.silent.get_or_insert(at);
        }
        before
    }

    /// Whether something may have been missed.
    fn blind(&self) -> bool {
        self.last.is_none() || self.gap > BLIND
    }
}

/// What was seen so far.
#[derive(Debug)]
pub struct Judge {
    tracks: Vec<Track>,
    /// Whether the fault was made.
    armed: bool,
    prometheus: Sight,
    alertmanager: Sight,
    /// What was active before the fault.
    known: BTreeSet<BTreeMap<String, String>>,
    unexpected: BTreeMap<BTreeMap<String, String>, Timestamp>,
    /// What was not listed for want of room.
    unlisted: BTreeSet<String>,
    changes: Vec<Change>,
}

impl Judge {
    /// Nothing was seen yet.
    pub fn new(expected: Vec<Expected>) -> Self {
        let track = |expected| Track {
            expected,
            before: None,
            pending: None,
            firing: None,
            received: None,
            open: None,
            suppressed: None,
            suppressed_by: BTreeSet::new(),
            receivers: BTreeSet::new(),
            resolved: None,
            cleared: None,
        };
        Self {
            tracks: expected.into_iter().map(track).collect(),
            armed: false,
            prometheus: Sight::default(),
            alertmanager: Sight::default(),
            known: BTreeSet::new(),
            unexpected: BTreeMap::new(),
            unlisted: BTreeSet::new(),
            changes: Vec::new(),
        }
    }

    /// The fault is made now: what becomes active from here on is due to it.
    pub fn arm(&mut self) {
        self.armed = true;
    }

    /// Takes a look in. One that is older than the last is passed over.
    pub fn see(&mut self, look: &Look) {
        if self.prometheus.last.is_some_and(|last| look.at < last) {
            return;
        }
        let before = self.prometheus.look(look.at, look.alerts.is_some(), self.armed);
        self.alertmanager.look(look.at, look.received.is_some(), self.armed);
        let span = (before, look.at);
        if let Some(alerts) = &look.alerts {
            self.alerts(alerts, span);
        }
        if let Some(received) = &look.received {
            self.received(received, span);
        }
    }

    fn alerts(&mut self, alerts: &[ActiveAlert], (before, at): (Timestamp, Timestamp)) {
        for track in &mut self.tracks {
            let ours: Vec<&ActiveAlert> = alerts
                .iter()
                .filter(|alert| track.expected.means(&alert.labels))
                .collect();
            let state = ours.iter().map(|alert| alert.state).max();
            if !self.armed {
                track.before = track.before.max(state);
                continue;
            }
            let mut changed = |at, kind, word: &str| {
                self.changes.push(Change {
                    at,
                    kind,
                    text: format!("{} {word}", track.expected.alert),
                });
            };
            if track.pending.is_none() && state.is_some() {
                let since = ours.iter().filter_map(|alert| alert.active_at).min();
                let since = bounded(since, before, at);
                track.pending = Some(since);
                changed(since, "alert_pending", "is pending");
            }
            match (state, track.firing) {
                (Some(AlertState::Firing), None) => {
                    track.firing = Some(at);
                    changed(at, "alert_firing", "fires");
                }
                (Some(AlertState::Firing), Some(_)) if track.resolved.take().is_some() => {
                    changed(at, "alert_firing", "fires again");
                }
                (None | Some(AlertState::Pending), Some(_)) if track.resolved.is_none() => {
                    track.resolved = Some(at);
                    changed(at, "alert_resolved", "is resolved");
                }
                _ => {}
            }
        }
        let others = alerts
            .iter()
            .filter(|alert| !self.tracks.iter().any(|track| track.expected.means(&alert.labels)));
        if !self.armed {
            self.known.extend(others.map(|alert| alert.labels.clone()));
            return;
        }
        for alert in others.filter(|alert| alert.state == AlertState::Firing) {
            if self.known.contains(&alert.labels) || self.unexpected.contains_key(&alert.labels) {
                continue;
            }
            if self.unexpected.len() < LISTED {
                self.unexpected.insert(alert.labels.clone(), at);
            } else if self.unlisted.len() < LISTED {
                self.unlisted.insert(alert.name().to_owned());
            }
        }
    }

    fn received(&mut self, received: &[Received], (before, at): (Timestamp, Timestamp)) {
        for track in &mut self.tracks {
            let ours: Vec<&Received> = received
                .iter()
                .filter(|one| track.expected.means(&one.labels))
                .collect();
            if !self.armed {
                if !ours.is_empty() {
                    track.before = Some(AlertState::Firing);
                }
                continue;
            }
            let Some(firing) = track.firing else { continue };
            let mut changed = |kind, text: String| self.changes.push(Change { at, kind, text });
            let name = &track.expected.alert;
            if ours.is_empty() {
                if track.received.is_some() && track.cleared.is_none() {
                    track.cleared = Some(at);
                }
                continue;
            }
            track.cleared = None;
            if track.received.is_none() {
                track.received = Some(at);
                // Prometheus does not say since when it fires; to Alertmanager it does.
                if firing == at {
                    track.firing = Some(bounded(ours.iter().filter_map(|one| one.starts_at).min(), before, at));
                }
                changed("alert_received", format!("{name} is known to Alertmanager"));
            }
            for one in &ours {
                track.receivers.extend(one.receivers.iter().cloned());
            }
            if ours.iter().all(|one| one.suppressed()) {
                let by = ours.iter().flat_map(|one| {
                    let kinds = [
                        ("silence", &one.silenced_by),
                        ("alert", &one.inhibited_by),
                        ("time", &one.muted_by),
                    ];
                    kinds
                        .into_iter()
                        .flat_map(|(kind, all)| all.iter().map(move |id| format!("{kind} {id}")))
                });
                track.suppressed_by.extend(by);
                if track.suppressed.is_none() {
                    track.suppressed = Some(at);
                    changed("alert_suppressed", format!("{name} is kept from being told"));
                }
            } else if track.open.is_none() {
                track.open = Some(at);
            }
        }
    }

    /// What became so since this was asked last.
    pub fn changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Why the fault must not be made: what is expected is there already, or nobody would see it.
    pub fn trouble(&self) -> Option<String> {
        let early = self.tracks.iter().find_map(|track| {
            let state = match track.before? {
                AlertState::Pending => "pending",
                AlertState::Firing => "firing",
            };
            Some(format!("alert {} is {state} already", track.expected))
        });
        early.or_else(|| {
            let silent = |sight: &Sight| sight.last.is_none() || sight.silent.is_some();
            let which = match (silent(&self.prometheus), silent(&self.alertmanager)) {
                (false, false) => return None,
                (true, _) => "Prometheus",
                (false, true) => "Alertmanager",
            };
            Some(format!("{which} does not answer"))
        })
    }

    /// Whether the fault is still needed: an alert has not come as far as it will, and there is time and somebody to see it.
    pub fn waits(&self, effect: Timestamp, now: Timestamp) -> bool {
        if self.prometheus.silent.is_some_and(|since| between(since, now) > BLIND) {
            return false;
        }
        self.tracks.iter().any(|track| {
            let in_time = between(effect, now) <= track.expected.within;
            match track.due() {
                Some(due) => now <= due && in_time,
                None => in_time && track.suppressed.is_none(),
            }
        })
    }

    /// Whether what fired is not over yet, and may still be in time: `since` is the end of the fault.
    pub fn lasts(&self, since: Timestamp, now: Timestamp) -> bool {
        if self.prometheus.silent.is_some_and(|since| between(since, now) > BLIND) {
            return false;
        }
        self.tracks.iter().any(|track| {
            let over = track.resolved.is_some() && (track.received.is_none() || track.cleared.is_some());
            track.firing.is_some() && !over && between(since, now) <= track.expected.resolved_within
        })
    }

    /// How each did. `effect` is when the fault was first seen, if it was; `over` is the end of the fault.
    pub fn reports(&self, effect: Option<Timestamp>, over: Option<Timestamp>) -> Vec<AlertReport> {
        self.tracks
            .iter()
            .map(|track| {
                let since = |at: Option<Timestamp>| Some(signed(effect?, at?).max(0.0));
                let (proof, why) = self.conclude(track, effect, over);
                let expected = &track.expected;
                AlertReport {
                    alert: expected.alert.clone(),
                    labels: expected.labels.clone(),
                    proof,
                    why,
                    pending_seconds: since(track.pending),
                    firing_seconds: since(track.firing),
                    received_seconds: since(track.received),
                    notified_seconds: since(track.due().filter(|_| !track.missed())),
                    suppressed_seconds: since(track.suppressed),
                    resolved_seconds: since(track.resolved),
                    cleared_seconds: since(track.cleared),
                    suppressed_by: track.suppressed_by.iter().cloned().collect(),
                    receivers: track.receivers.iter().cloned().collect(),
                    resolution_seconds: expected.predicted.grain_seconds() + self.prometheus.gap.as_secs_f64(),
                    within_seconds: expected.within.as_secs_f64(),
                    resolved_within_seconds: expected.resolved_within.as_secs_f64(),
                    predicted: expected.predicted,
                }
            })
            .collect()
    }

    /// What fired and was not expected, the first first.
    pub fn unexpected(&self, effect: Option<Timestamp>) -> Vec<Unexpected> {
        let mut all: Vec<_> = self.unexpected.iter().collect();
        all.sort_by_key(|(_, at)| **at);
        all.into_iter()
            .map(|(labels, at)| Unexpected {
                labels: labels.clone(),
                firing_seconds: effect.map(|effect| signed(effect, *at).max(0.0)),
            })
            .collect()
    }

    /// Names of alerts that fired beyond those that are listed.
    pub fn unlisted(&self) -> usize {
        self.unlisted.len()
    }

    fn conclude(&self, track: &Track, effect: Option<Timestamp>, over: Option<Timestamp>) -> (Proof, String) {
        let expected = &track.expected;
        let said = |proof, why: &str| (proof, why.to_owned());
        if let Some(state) = track.before {
            let state = match state {
                AlertState::Pending => "pending",
                AlertState::Firing => "firing",
            };
            return (Proof::FiredBefore, format!("it was {state} before anything was done"));
        }
        let Some(effect) = effect else {
            return said(Proof::Inconclusive, "there was no effect that it could have told of");
        };
        let within = duration(expected.within.as_secs_f64());
        let Some(firing) = track.firing else {
            if self.prometheus.blind() {
                return said(Proof::Inconclusive, "Prometheus did not answer");
            }
            let far = if track.pending.is_some() {
                "it was pending only"
            } else {
                "it was not even pending"
            };
            return (Proof::NotFired, far.to_owned());
        };
        if track.received.is_none() {
            if self.alertmanager.blind() {
                return said(Proof::Inconclusive, "it fired, and Alertmanager did not answer");
            }
            return said(Proof::NotReceived, "it fired, and Alertmanager was not told");
        }
        let after = |at| duration(signed(effect, at).max(0.0));
        let Some(due) = track.due() else {
            let by: Vec<&str> = track.suppressed_by.iter().map(String::as_str).collect();
            return (
                Proof::Suppressed,
                format!("nobody was told, because of {}", by.join(", ")),
            );
        };
        if between(effect, due) > expected.within {
            let told = format!(
                "it fired after {} and was told after {}, not within {within}",
                after(firing),
                after(due)
            );
            return (Proof::Late, told);
        }
        if track.missed() {
            return said(
                Proof::NotReceived,
                "it was over before Alertmanager had waited for its group",
            );
        }
        match (track.resolved, over) {
            (Some(resolved), Some(over)) if between(over, resolved) <= expected.resolved_within => (
                Proof::Proved,
                format!(
                    "fired after {}, told after {}, resolved after {}",
                    after(firing),
                    after(due),
                    after(resolved)
                ),
            ),
            (None, _) if self.prometheus.silent.is_some() => {
                said(Proof::Inconclusive, "it fired, and Prometheus did not answer any more")
            }
            (_, None) => said(Proof::Inconclusive, "the drill ended before it could be resolved"),
            _ => (
                Proof::NotResolved,
                format!(
                    "it was not resolved within {} of the end of the fault",
                    duration(expected.resolved_within.as_secs_f64())
                ),
            ),
        }
    }
}

/// What a server says, if it can be true: after the look that did not see it, and not after the one that did.
fn bounded(said: Option<Timestamp>, before: Timestamp, at: Timestamp) -> Timestamp {
    said.filter(|said| *said > before && *said <= at).unwrap_or(at)
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(at)
}

fn signed(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}

fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from_secs_f64(signed(from, to)).unwrap_or_default()
}
