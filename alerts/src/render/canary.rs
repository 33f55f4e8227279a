//! The alert about a canary that stands: neither promoted nor taken back. There is no metric of a canary's state, so it is
//! derived from what a canary does: locally it has a weight in the proxy, on Kubernetes pods of its own.

use std::time::Duration;

use manifest::landscape::{Canary, Platform, Selector, Service, regex_escape, window};

use super::model::{Alert, Case, RuleFile, STEP, Severity};
use super::subject::{Subject, Words};
use super::traffic::series;

/// How often one looks whether it stands.
const LOOK: Duration = Duration::from_mins(5);

/// Adds the group of a service's canary.
pub(super) fn add(
    file: &mut RuleFile,
    service: &Service,
    subject: &Subject<'_>,
    platform: Platform,
    interval: Duration,
    canary: Canary,
) {
    let Some(sign) = Sign::of(service, platform) else {
        return;
    };
    // At nine of ten looks: one lost scrape in twelve hours does not begin them anew.
    let looks = canary.stuck_after.as_secs() / LOOK.as_secs() * 9 / 10;
    let stands = &sign.stands;
    let over = window(canary.stuck_after);
    let expr = format!(
        "count_over_time(({stands})[{over}:{}]) >= {} and {stands}",
        window(LOOK),
        looks.max(1)
    );
    let words = Words {
        summary: format!("{}: a canary is neither promoted nor taken back", service.name),
        description: format!(
            "{} of {} has had a part of its traffic for {over}.",
            sign.what, service.name
        ),
    };
    let alert = subject.alert("CanaryStuck", Severity::Ticket, expr, words);
    let cases = cases(service, &sign, canary, &alert);
    file.add(format!("{}-canary", service.name), interval, vec![(alert, cases)]);
}

/// What one sees of a canary.
struct Sign {
    /// Has a series while there is one.
    stands: String,
    /// The new version, in words.
    what: &'static str,
    /// The series that shows it, and what it shows while there is one and while there is none.
    shown: Option<(String, &'static str, &'static str)>,
    /// Labels that the alert gets from it.
    labels: &'static [(&'static str, &'static str)],
}

impl Sign {
    fn of(service: &Service, platform: Platform) -> Option<Self> {
        match platform {
            Platform::Local => {
                let weight = catalogue::PROXY_WEIGHT_RATIO.metric().name;
                let selector = Selector::default().equal("service", &service.name);
                Some(Self {
                    stands: format!("max by (version) ({}) > 0 < 1", selector.of(weight)),
                    what: "Version {{ $labels.version }}",
                    shown: series(&selector, weight, &[("version", "2")]).map(|series| (series, "0.1", "1")),
                    labels: &[("version", "2")],
                })
            }
            Platform::Kubernetes => {
                let pods = format!(
                    "{}-canary-[a-z0-9]+-[a-z0-9]{{5}}",
                    regex_escape(service.deployment.as_ref()?)
                );
                let selector = Selector::default()
                    .equal("namespace", service.namespace.as_ref()?)
                    .matching("pod", &pods);
                Some(Self {
                    stands: format!("count({}) > 0", selector.of("up")),
                    what: "The canary",
                    shown: series(&selector, "up", &[]).map(|series| (series, "1", "stale")),
                    labels: &[],
                })
            }
        }
    }
}

fn cases(service: &Service, sign: &Sign, canary: Canary, alert: &Alert) -> Vec<Case> {
    let Some((series, yes, no)) = &sign.shown else {
        return Vec::new();
    };
    let minutes = canary.stuck_after.as_secs() / 60;
    let after = |minutes: u64| STEP * u32::try_from(minutes).unwrap_or(u32::MAX);
    let standing = |minutes: u64| format!("{yes}x{minutes}");
    let case = |shows: &str, values: String, at: Duration, fires: bool| Case {
        shows: format!("{}: {shows}", service.name),
        alert: alert.name,
        series: vec![(series.clone(), values)],
        at,
        pace: STEP * 10,
        fires: fires.then(|| alert.firing(sign.labels, "")).into_iter().collect(),
    };
    vec![
        case(
            "it stands for too long",
            standing(minutes + 60),
            after(minutes + 20),
            true,
        ),
        case(
            "it stands for half as long as it may",
            standing(minutes),
            after(minutes / 2),
            false,
        ),
        case(
            "it was promoted",
            format!("{} {no}", standing(minutes + 20)),
            after(minutes + 40),
            false,
        ),
        case("there is none", no.to_string(), after(60), false),
    ]
}
