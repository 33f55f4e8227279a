//! What a Prometheus says of its alerts: the rules, what is pending or firing, whom it tells. It judges nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::answer::data;

/// How far an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertState {
    /// Its condition holds, but not for long enough.
    Pending,
    /// It is told.
    Firing,
}

/// An alert that is pending or firing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ActiveAlert {
    /// Its labels, `alertname` among them.
    pub labels: BTreeMap<String, String>,
    /// How far it is.
    pub state: AlertState,
    /// Since when its condition holds; by Prometheus' clock.
    pub active_at: Option<Timestamp>,
    /// What its expression gave last; absent when that is not finite.
    pub value: Option<f64>,
}

impl ActiveAlert {
    /// The rule's name.
    pub fn name(&self) -> &str {
        self.labels.get("alertname").map_or("", String::as_str)
    }
}

/// An alerting rule as it is loaded.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct AlertRule {
    /// Its name.
    pub name: String,
    /// The group that it is in.
    pub group: String,
    /// Its expression, as Prometheus prints it.
    pub query: String,
    /// How long its condition must hold.
    pub hold: Duration,
    /// How long it goes on firing when its condition holds no more.
    pub keep_firing_for: Duration,
    /// The time between two evaluations of its group.
    pub interval: Duration,
    /// The labels that it adds, as templates.
    pub labels: BTreeMap<String, String>,
    /// Why it could not be evaluated last.
    pub error: Option<String>,
}

/// A recording rule as it is loaded.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RecordingRule {
    /// The series that it makes.
    pub name: String,
    /// The group that it is in.
    pub group: String,
    /// Its expression, as Prometheus prints it.
    pub query: String,
    /// The time between two evaluations of its group.
    pub interval: Duration,
}

/// The rules that are loaded, in order.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Rules {
    /// Those that make alerts.
    pub alerts: Vec<AlertRule>,
    /// Those that make series.
    pub recordings: Vec<RecordingRule>,
}

/// The answer of `/api/v1/rules`.
pub(super) fn rules(body: &[u8]) -> serde_json::Result<Rules> {
    #[derive(Deserialize)]
    struct Groups {
        #[serde(default)]
        groups: Vec<Group>,
    }
    #[derive(Deserialize)]
    struct Group {
        #[serde(default)]
        name: String,
        #[serde(default)]
        interval: f64,
        #[serde(default)]
        rules: Vec<Rule>,
    }
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Rule {
        r#type: String,
        name: String,
        query: String,
        duration: f64,
        keep_firing_for: f64,
        labels: BTreeMap<String, String>,
        last_error: String,
    }
    let Groups { groups } = data(body)?;
    let mut all = Rules::default();
    for group in groups {
        let interval = seconds(group.interval);
        for rule in group.rules {
            match rule.r#type.as_str() {
                "alerting" => all.alerts.push(AlertRule {
                    name: rule.name,
                    group: group.name.clone(),
                    query: rule.query,
                    hold: seconds(rule.duration),
                    keep_firing_for: seconds(rule.keep_firing_for),
                    interval,
                    labels: rule.labels,
                    error: Some(rule.last_error).filter(|error| !error.is_empty()),
                }),
                "recording" => all.recordings.push(RecordingRule {
                    name: rule.name,
                    group: group.name.clone(),
                    query: rule.query,
                    interval,
                }),
                _ => {}
            }
        }
    }
    Ok(all)
}

/// The answer of `/api/v1/alerts`.
pub(super) fn active(body: &[u8]) -> serde_json::Result<Vec<ActiveAlert>> {
    #[derive(Deserialize)]
    struct Alerts {
        #[serde(default)]
        alerts: Vec<Alert>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Alert {
        #[serde(default)]
        labels: BTreeMap<String, String>,
        state: String,
        #[serde(default)]
        active_at: Option<Timestamp>,
        #[serde(default)]
        value: String,
    }
    let Alerts { alerts } = data(body)?;
    Ok(alerts
        .into_iter()
        .filter_map(|alert| {
            let state = match alert.state.as_str() {
                "pending" => AlertState::Pending,
                "firing" => AlertState::Firing,
                _ => return None,
            };
            Some(ActiveAlert {
                labels: alert.labels,
                state,
                active_at: alert.active_at,
                value: alert.value.parse().ok().filter(|value: &f64| value.is_finite()),
            })
        })
        .collect())
}

/// The answer of `/api/v1/alertmanagers`: their addresses, without the path of their API.
pub(super) fn alertmanagers(body: &[u8]) -> serde_json::Result<Vec<String>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Known {
        #[serde(default)]
        active_alertmanagers: Vec<At>,
    }
    #[derive(Deserialize)]
    struct At {
        url: String,
    }
    let Known { active_alertmanagers } = data(body)?;
    Ok(active_alertmanagers
        .into_iter()
        .map(|At { url }| {
            let base = url.rsplit_once("/api/").map_or(url.as_str(), |(base, _)| base);
            base.trim_end_matches('/').to_owned()
        })
        .collect())
}

/// A number of seconds as a duration; nonsense is none.
fn seconds(number: f64) -> Duration {
    Duration::try_from_secs_f64(number).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_say_how_long_they_hold_and_how_often_they_are_looked_at() {
        let body = br#"{"status":"success","data":{"groups":[{"name":"g","interval":15,"rules":[
            {"type":"recording","name":"a:b","query":"sum(up)"},
            {"type":"alerting","name":"Down","query":"up == 0","duration":60,"keepFiringFor":30,
             "labels":{"severity":"page"},"lastError":""}]}]}}"#;
        let Rules {
            alerts: rules,
            recordings,
        } = rules(body).unwrap();
        assert_eq!((rules.len(), recordings.len()), (1, 1));
        assert_eq!(
            (recordings[0].name.as_str(), recordings[0].interval.as_secs()),
            ("a:b", 15)
        );
        assert_eq!((rules[0].name.as_str(), rules[0].group.as_str()), ("Down", "g"));
        let figures = [rules[0].hold, rules[0].keep_firing_for, rules[0].interval];
        assert_eq!(figures, [60, 30, 15].map(Duration::from_secs));
        assert_eq!(rules[0].error, None);
    }

    #[test]
    fn what_is_active_has_a_state_that_is_known() {
        let body = br#"{"status":"success","data":{"alerts":[
            {"labels":{"alertname":"Down"},"state":"firing","activeAt":"2026-03-14T09:26:53.5Z","value":"1e+00"},
            {"labels":{"alertname":"Odd"},"state":"pending","value":"NaN"},
            {"labels":{"alertname":"New"},"state":"unknown"}]}}"#;
        let alerts = active(body).unwrap();
        let told: Vec<_> = alerts
            .iter()
            .map(|alert| (alert.name(), alert.state, alert.value))
            .collect();
        assert_eq!(
            told,
            [
                ("Down", AlertState::Firing, Some(1.0)),
                ("Odd", AlertState::Pending, None)
            ]
        );
    }

    #[test]
    fn an_alertmanager_is_where_its_api_begins() {
        let body = br#"{"status":"success","data":{"activeAlertmanagers":[
            {"url":"http://10.0.0.7:9093/api/v2/alerts"},{"url":"https://am.internal/x/api/v2/alerts"}]}}"#;
        assert_eq!(
            alertmanagers(body).unwrap(),
            ["http://10.0.0.7:9093", "https://am.internal/x"]
        );
    }
}
