//! What is used and what is asked for, by whoever pays for it. In cores and bytes: prices are known to those who pay.

use manifest::landscape::{Board, Landscape, Platform, regex_escape};

use super::sheet::{Plot, Sheet};
use super::{Draft, one_of, uid};
use crate::model::Unit;

/// The labels that our manifests put on every pod, as kube-state-metrics writes them, and what they say. It exports them
/// when told so: `--metric-labels-allowlist=pods=[opsctl.dev/owner,…]`.
const LABELS: [(&str, &str); 3] = [
    ("label_opsctl_dev_owner", "team"),
    ("label_opsctl_dev_cost_center", "cost center"),
    ("label_opsctl_dev_service", "service"),
];

pub(super) fn board(landscape: &Landscape) -> Option<Draft> {
    if landscape.services.is_empty() {
        return None;
    }
    let sheet = match landscape.platform {
        Platform::Kubernetes => LABELS.iter().fold(Sheet::default(), |sheet, (label, payer)| {
            sheet.row(&format!("By {payer}"), by_label(label, payer))
        }),
        Platform::Local => Sheet::default().row("By team", by_team(landscape)),
    };
    Some(Draft {
        uid: uid(Board::Cost),
        title: "Cost",
        about: "Processor time and memory that each team asks for and uses: what is asked for and not used is paid for all the same.",
        from: "now-24h",
        variables: Vec::new(),
        sheet,
    })
}

/// One machine has no requests: what the processes of each team use.
fn by_team(landscape: &Landscape) -> [Plot; 3] {
    let mut teams: Vec<(&str, Vec<String>)> = Vec::new();
    for service in &landscape.services {
        let team = service.team.as_deref().unwrap_or("nobody");
        let job = regex_escape(&service.name);
        match teams.iter_mut().find(|(name, _)| *name == team) {
            Some((_, jobs)) => jobs.push(job),
            None => teams.push((team, vec![job])),
        }
    }
    teams.sort_unstable();
    let each = |plot: Plot, expr: &dyn Fn(&str) -> String| {
        teams
            .iter()
            .fold(plot, |plot, (team, jobs)| plot.ask(expr(&one_of("job", jobs)), team))
    };
    [
        each(
            Plot::lines("Processor time by team", Unit::Cores)
                .about("Cores that the processes of each team's services use.")
                .wide(12)
                .stacked(),
            &|jobs| format!("sum(rate(process_cpu_seconds_total{{{jobs}}}[$__rate_interval]))"),
        ),
        each(
            Plot::lines("Memory by team", Unit::Bytes)
                .about("In RAM, of the processes of each team's services.")
                .wide(12)
                .stacked(),
            &|jobs| format!("sum(process_resident_memory_bytes{{{jobs}}})"),
        ),
        each(
            Plot::number("Core hours of a day", Unit::CoreHours)
                .about("That each team used in the last day.")
                .size(24, 5),
            &|jobs| format!("sum(increase(process_cpu_seconds_total{{{jobs}}}[1d])) / 3600"),
        ),
    ]
}

/// Adds the label of a pod to what is known of its containers.
fn with_label(series: &str, label: &str) -> String {
    format!(
        "sum by ({label}) ({series} * on (namespace, pod) group_left ({label}) max by (namespace, pod, {label}) (kube_pod_labels{{NAMESPACE}}))"
    )
}

fn by_label(label: &str, payer: &str) -> [Plot; 6] {
    let legend = format!("{{{{{label}}}}}");
    // Pods that have ended ask for nothing any more, though their requests are still listed.
    let alive = "on (namespace, pod) group_left () max by (namespace, pod) (kube_pod_status_phase{NAMESPACE, phase=~\"Pending|Running\"} == 1)";
    let asked = |resource: &str| {
        with_label(
            &format!("kube_pod_container_resource_requests{{NAMESPACE, resource=\"{resource}\"}} * {alive}"),
            label,
        )
    };
    let cpu = with_label(
        "rate(container_cpu_usage_seconds_total{NAMESPACE, container!=\"\"}[$__rate_interval])",
        label,
    );
    let memory = with_label("container_memory_working_set_bytes{NAMESPACE, container!=\"\"}", label);
    let plot = |title: &str, unit, about: &str, expr: String| {
        Plot::lines(&format!("{title} by {payer}"), unit)
            .about(about)
            .ask(expr, &legend)
    };
    [
        plot(
            "Cores asked for",
            Unit::Cores,
            "The cluster keeps them free, used or not.",
            asked("cpu"),
        )
        .stacked(),
        plot("Cores used", Unit::Cores, "Cores that the containers use.", cpu.clone()).stacked(),
        plot(
            "Share of cores used",
            Unit::Ratio,
            "Of those that were asked for. Far below 100 % is money, above it is luck.",
            format!("{cpu} / ({} > 0)", asked("cpu")),
        ),
        plot(
            "Memory asked for",
            Unit::Bytes,
            "The cluster keeps it free, used or not.",
            asked("memory"),
        )
        .stacked(),
        plot("Memory used", Unit::Bytes, "That cannot be given back.", memory.clone()).stacked(),
        plot(
            "Share of memory used",
            Unit::Ratio,
            "Of that which was asked for. Far below 100 % is money, above it a full node ends the container.",
            format!("{memory} / ({} > 0)", asked("memory")),
        ),
    ]
}
