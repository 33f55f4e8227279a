//! Alertmanager's configuration: who is told of what, what is told together, and what need not be told. Addresses of
//! webhooks are secrets: it names the files that hold them.

use manifest::landscape::{Landscape, Team, Webhook};

use super::yaml::Yaml;

/// Receiver of what nobody owns: it tells every team.
const EVERYBODY: &str = "everybody";
/// Receiver of the alert that always fires.
const WATCHDOG: &str = "watchdog";

/// Alerts that say less than that no instance is ready.
const SAID_BY_DOWN: &str =
    "AvailabilityBudgetBurn|HighErrorRate|LatencyBudgetBurn|MetricsAbsent|SliAbsent|SlowRequests|TrafficStopped";

/// The configuration. `watchdog` is the file with the address of whoever is to miss the watchdog; `notes` are for people.
pub(super) fn configuration(landscape: &Landscape, watchdog: Option<&str>, notes: &mut Vec<String>) -> Yaml {
    let told: Vec<(&Team, String)> = landscape
        .teams
        .iter()
        .filter_map(|team| Some((team, file_of(team, notes)?)))
        .collect();
    let owners = landscape.services.iter().filter_map(|service| service.team.as_deref());
    let mut deaf: Vec<&str> = owners
        .filter(|owner| !told.iter().any(|(team, _)| team.name == *owner))
        .collect();
    deaf.sort_unstable();
    deaf.dedup();
    notes.extend(deaf.iter().map(|team| {
        format!("team `{team}` has no webhook in a file or a Secret: its alerts go to everybody who has one")
    }));
    if told.is_empty() {
        notes.push("no team has a webhook in a file or a Secret: nobody is told of any alert".to_owned());
    }
    let mut receivers = vec![receiver(EVERYBODY, told.iter().map(|(_, file)| file.as_str()), true)];
    receivers.extend(
        told.iter()
            .map(|(team, file)| receiver(&name_of(team), [file.as_str()].into_iter(), true)),
    );
    receivers.push(receiver(WATCHDOG, watchdog.into_iter(), false));
    Yaml::map([
        ("route", route(told.iter().map(|(team, _)| *team))),
        ("inhibit_rules", inhibit_rules()),
        ("receivers", Yaml::List(receivers)),
    ])
}

/// The name of a team's receiver.
fn name_of(team: &Team) -> String {
    format!("team-{}", team.name)
}

/// The file with a team's address.
fn file_of(team: &Team, notes: &mut Vec<String>) -> Option<String> {
    match team.webhook.as_ref()? {
        Webhook::File(path) => Some(path.clone()),
        // Where the operator mounts the Secrets that `spec.secrets` lists.
        Webhook::Secret { name, key, .. } => Some(format!("/etc/alertmanager/secrets/{name}/{key}")),
        Webhook::Elsewhere => {
            let path = format!("/etc/alertmanager/secrets/{}/webhook", team.name);
            notes.push(format!(
                "team `{}`: only opsctl can read the address of its webhook; put it into `{path}` for Alertmanager",
                team.name
            ));
            Some(path)
        }
    }
}

fn route<'a>(teams: impl Iterator<Item = &'a Team>) -> Yaml {
    let entry = |key: &'static str, value: &str| (key, Yaml::text(value));
    let matching = |matcher: &str| ("matchers", Yaml::list([matcher]));
    let tickets = || {
        Yaml::map([
            matching("severity = \"ticket\""),
            entry("group_wait", "1m"),
            entry("repeat_interval", "1d"),
        ])
    };
    let mut routes = vec![Yaml::map([
        matching("alertname = \"Watchdog\""),
        entry("receiver", WATCHDOG),
        entry("group_wait", "0s"),
        entry("group_interval", "1m"),
        entry("repeat_interval", "5m"),
    ])];
    routes.extend(teams.map(|team| {
        Yaml::map([
            matching(&format!("team = {}", manifest::landscape::string(&team.name))),
            entry("receiver", &name_of(team)),
            ("routes", Yaml::List(vec![tickets()])),
        ])
    }));
    routes.push(tickets());
    Yaml::map([
        entry("receiver", EVERYBODY),
        // One message for all that is wrong with a service, pages apart from tickets.
        (
            "group_by",
            Yaml::list(["environment", "service", "datastore", "severity"]),
        ),
        entry("group_wait", "15s"),
        entry("group_interval", "5m"),
        entry("repeat_interval", "4h"),
        ("routes", Yaml::List(routes)),
    ])
}

fn inhibit_rules() -> Yaml {
    let rule = |source: &[&str], target: &[&str], equal: &[&str]| {
        Yaml::map([
            ("source_matchers", Yaml::list(source.iter().copied())),
            ("target_matchers", Yaml::list(target.iter().copied())),
            ("equal", Yaml::list(equal.iter().copied())),
        ])
    };
    let burn = "alertname =~ \"(Availability|Latency)BudgetBurn\"";
    Yaml::List(vec![
        // What pages needs no ticket besides.
        rule(
            &[burn, "severity = \"page\""],
            &[burn, "severity = \"ticket\""],
            &["environment", "service", "slo"],
        ),
        rule(
            &["alertname = \"AvailabilityBudgetBurn\"", "severity = \"page\""],
            &["alertname = \"HighErrorRate\""],
            &["environment", "service"],
        ),
        rule(
            &["alertname = \"LatencyBudgetBurn\"", "severity = \"page\""],
            &["alertname = \"SlowRequests\""],
            &["environment", "service"],
        ),
        rule(
            &["alertname = \"HealthEndpointDown\""],
            &[&format!("alertname =~ \"{SAID_BY_DOWN}\"")],
            &["environment", "service"],
        ),
    ])
}

fn receiver<'a>(name: &str, files: impl Iterator<Item = &'a str>, resolved: bool) -> Yaml {
    let webhooks: Vec<Yaml> = files
        .map(|file| {
            Yaml::map([
                ("url_file", Yaml::text(file)),
                ("send_resolved", Yaml::Bare(resolved.to_string())),
            ])
        })
        .collect();
    let mut entries = vec![("name", Yaml::text(name))];
    if !webhooks.is_empty() {
        entries.push(("webhook_configs", Yaml::List(webhooks)));
    }
    Yaml::map(entries)
}
