//! Where the counters of a service come from: which series are asked for, what each of them counts, and for whom. Words of
//! PromQL and nothing that speaks to anybody.

use std::collections::BTreeSet;

use super::ledger::Measure;
use crate::kube::settings::{Sli, Workload};
use crate::prometheus::Series;

/// A range of raw samples to ask for, and what its series count.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Question {
    /// A selector without its range.
    pub(super) selector: String,
    /// What each of its series counts; else their names tell.
    pub(super) only: Option<&'static [Measure]>,
}

/// Routes that are asked by machines, not by clients.
const PROBES: &str = r"/(health(z|/.*)?|livez|readyz|startupz|metrics)";
/// The same of gRPC.
const GRPC_PROBES: &str = r"grpc\.(health|reflection)\..*";
/// gRPC codes that are the server's failure, by name and by number.
const GRPC_ERRORS: &[&str] = &[
    "Unknown",
    "DeadlineExceeded",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "2",
    "4",
    "12",
    "13",
    "14",
    "15",
];

const HTTP: &str = catalogue::HTTP_SERVER_REQUEST_DURATION_SECONDS.metric().name;
const GRPC: &str = catalogue::GRPC_SERVER_HANDLING_SECONDS.metric().name;
const GRPC_HANDLED: &str = catalogue::GRPC_SERVER_HANDLED_TOTAL.metric().name;
const TRAEFIK: &str = "traefik_service_request_duration_seconds";
const TRAEFIK_REQUESTS: &str = "traefik_service_requests_total";
/// What every Traefik exports, with or without requests: it tells that one was scraped.
const TRAEFIK_ALWAYS: &str = "traefik_config_reloads_total";

/// The ranges to ask for. Of the buckets only the one that ends at the latency objective, if there is one.
pub(super) fn questions(workload: &Workload) -> Vec<Question> {
    let objective = workload.objectives.latency_seconds;
    let named = |names: &[String], matchers: &str| Question {
        selector: format!("{{__name__=~{},{matchers}}}", literal(&names.join("|"))),
        only: None,
    };
    let histogram = |name: &str, names: &mut Vec<String>| {
        names.push(format!("{name}_count"));
        names.extend(objective.map(|_| format!("{name}_bucket")));
    };
    let bucket = literal(&objective.map_or_else(String::new, |objective| format!("|{}", bound_pattern(objective))));
    let mut names = Vec::new();
    match &workload.sli {
        Sli::Opsctl => {
            histogram(HTTP, &mut names);
            histogram(GRPC, &mut names);
            names.extend([GRPC_HANDLED.to_owned(), "up".to_owned()]);
            vec![named(&names, &format!("{},le=~{bucket}", of_pods(workload)))]
        }
        Sli::OtelHttp => {
            histogram(HTTP, &mut names);
            names.push("up".to_owned());
            vec![named(&names, &format!("{},le=~{bucket}", of_pods(workload)))]
        }
        Sli::Traefik => {
            histogram(TRAEFIK, &mut names);
            names.push(TRAEFIK_REQUESTS.to_owned());
            vec![
                named(&names, &format!("{},le=~{bucket}", of_backends(workload))),
                Question {
                    selector: TRAEFIK_ALWAYS.to_owned(),
                    only: Some(&[]),
                },
            ]
        }
        Sli::Custom { total, errors, slow } => {
            let only = |selector: &String, measures| Question {
                selector: selector.clone(),
                only: Some(measures),
            };
            let mut all = vec![
                Question {
                    selector: format!("up{{{}}}", pods(workload)),
                    only: Some(&[]),
                },
                only(total, &[Measure::Requests]),
                only(errors, &[Measure::Errors]),
            ];
            all.extend(slow.iter().map(|slow| only(slow, &[Measure::Slow])));
            all
        }
    }
}

/// Asks for the bounds of the buckets that there are; absent where the source has none.
pub(super) fn bounds_query(workload: &Workload) -> Option<String> {
    let (names, matchers) = match workload.sli {
        Sli::Opsctl => (format!("{HTTP}_bucket|{GRPC}_bucket"), of_pods(workload)),
        Sli::OtelHttp => (format!("{HTTP}_bucket"), of_pods(workload)),
        Sli::Traefik => (format!("{TRAEFIK}_bucket"), of_backends(workload)),
        Sli::Custom { .. } => return None,
    };
    Some(format!(
        "count by (__name__, le) ({{__name__=~{},{matchers}}})",
        literal(&names)
    ))
}

/// The histogram that has no bucket which ends at the objective, if there is one: its latency cannot be counted.
pub(super) fn without_bucket(all: &[Series]) -> Option<&str> {
    let names = |suffix: &'static str| {
        all.iter()
            .filter_map(move |series| series.label("__name__").strip_suffix(suffix))
            .collect::<BTreeSet<&str>>()
    };
    names("_count").difference(&names("_bucket")).next().copied()
}

/// The bounds of `histogram` next to `objective`, in words, from the answer of [`bounds_query`].
pub(super) fn nearest_bounds(histogram: &str, objective: f64, answer: &[Series]) -> String {
    let bounds: Vec<f64> = answer
        .iter()
        .filter(|series| series.label("__name__").strip_suffix("_bucket") == Some(histogram))
        .filter_map(|series| series.label("le").parse().ok())
        .filter(|bound: &f64| bound.is_finite())
        .collect();
    let below = bounds
        .iter()
        .copied()
        .filter(|bound| *bound < objective)
        .reduce(f64::max);
    let above = bounds
        .iter()
        .copied()
        .filter(|bound| *bound > objective)
        .reduce(f64::min);
    let nearest: Vec<String> = [below, above]
        .iter()
        .flatten()
        .map(|bound| format!("{bound} s"))
        .collect();
    if nearest.is_empty() {
        format!("`{histogram}` has no buckets")
    } else {
        format!(
            "it is no bucket bound of `{histogram}`; the nearest are {}",
            nearest.join(" and ")
        )
    }
}

/// All ways to write a number as the label `le`: `1`, `1.0`, `1e-05`.
fn bound_pattern(objective: f64) -> String {
    let plain = objective.to_string();
    let decimals = if plain.contains('.') {
        format!("{}0*", escape(&plain))
    } else {
        format!(r"{plain}(\.0*)?")
    };
    match format!("{objective:e}").split_once('e') {
        // Go's shortest form has at least two digits in its exponent.
        Some((digits, exponent)) if exponent.starts_with('-') => {
            format!("{decimals}|{}e-0?{}", escape(digits), &exponent[1..])
        }
        _ => decimals,
    }
}

/// What a series counts; its time only where there is an objective. Nothing: it only tells that its target was scraped.
pub(super) fn measures(series: &Series, timed: bool) -> &'static [Measure] {
    let name = series.label("__name__");
    let grpc = series.label("protocol").starts_with("grpc");
    let failed = match name {
        GRPC_HANDLED => GRPC_ERRORS.contains(&series.label("grpc_code")),
        TRAEFIK_REQUESTS if grpc => GRPC_ERRORS.contains(&series.label("code")),
        TRAEFIK_REQUESTS => series.label("code").starts_with('5'),
        _ => series.label("http_response_status_code").starts_with('5'),
    };
    match (name.strip_suffix("_count"), name.strip_suffix("_bucket"), failed) {
        (Some(HTTP), _, true) if timed => &[Measure::Requests, Measure::Timed, Measure::Errors],
        (Some(HTTP), _, false) if timed => &[Measure::Requests, Measure::Timed],
        (Some(HTTP), _, true) => &[Measure::Requests, Measure::Errors],
        (Some(HTTP), _, false) => &[Measure::Requests],
        (Some(_), _, _) if timed => &[Measure::Timed],
        (_, Some(_), _) => &[Measure::Fast],
        _ if name == GRPC_HANDLED || name == TRAEFIK_REQUESTS => {
            if failed {
                &[Measure::Requests, Measure::Errors]
            } else {
                &[Measure::Requests]
            }
        }
        _ => &[],
    }
}

/// Whether the series was scraped well: `up` is there, and 0, when it was not.
pub(super) fn scraped(series: &Series) -> impl Iterator<Item = i64> {
    let up = series.label("__name__") == "up";
    series
        .samples
        .iter()
        .filter(move |sample| sample.value.is_some_and(|value| !up || value > 0.0))
        .map(|sample| sample.at_ms)
}

/// Which of the two Services a series of Traefik counts for; absent for any other.
pub(super) fn backend(workload: &Workload, series: &Series) -> Option<Backend> {
    let name = series.label("service").strip_suffix("@kubernetesgateway")?;
    let is = |service: &str| {
        let rest = name.strip_prefix(&backend_name(&workload.namespace, service));
        let port = rest.and_then(|rest| {
            rest.strip_prefix("-http-")
                .or_else(|| rest.strip_prefix('-')?.strip_suffix("-grpc"))
        });
        port.is_some_and(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
    };
    if is(&workload.service) {
        Some(Backend::Stable)
    } else if is(&workload.canary_service()) {
        Some(Backend::Canary)
    } else {
        None
    }
}

/// One of a service's two Services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Backend {
    Stable,
    Canary,
}

/// The pod of a series, by the labels that are usual; empty when it has none.
pub(super) fn pod(series: &Series) -> &str {
    ["pod", "k8s_pod_name", "kubernetes_pod_name"]
        .iter()
        .map(|name| series.label(name))
        .find(|pod| !pod.is_empty())
        .unwrap_or_default()
}

/// Asks for the CPU time per second that pods use, over a range: of their containers where cAdvisor is scraped, else of
/// their processes.
pub(super) fn cpu_query(workload: &Workload, range: &str) -> String {
    let (pods, containers) = (pods(workload), containers(workload));
    let process = catalogue::PROCESS_CPU_SECONDS_TOTAL.metric().name;
    format!(
        "sum by (pod) (rate(container_cpu_usage_seconds_total{{{containers}}}[{range}])) or sum by (pod) (rate({process}{{{pods}}}[{range}]))"
    )
}

/// Asks for the memory that pods use, likewise.
pub(super) fn memory_query(workload: &Workload) -> String {
    let (pods, containers) = (pods(workload), containers(workload));
    let process = catalogue::PROCESS_RESIDENT_MEMORY_BYTES.metric().name;
    format!("sum by (pod) (container_memory_working_set_bytes{{{containers}}}) or sum by (pod) ({process}{{{pods}}})")
}

fn containers(workload: &Workload) -> String {
    format!("{},container!=\"\",container!=\"POD\"", pods(workload))
}

/// Pods of both Deployments, whose names begin alike.
fn pods(workload: &Workload) -> String {
    format!(
        "namespace={},pod=~{}",
        literal(&workload.namespace),
        literal(&format!("{}-.+", escape(&workload.deployment)))
    )
}

/// Their requests from clients.
fn of_pods(workload: &Workload) -> String {
    format!(
        "{},http_route!~{},grpc_service!~{}",
        pods(workload),
        literal(PROBES),
        literal(GRPC_PROBES)
    )
}

/// Both Services as Traefik's provider for the Gateway API names them: by namespace, name, protocol and port.
fn of_backends(workload: &Workload) -> String {
    let pattern = traefik_services(&workload.namespace, &[&workload.service, &workload.canary_service()]);
    format!("service=~{}", literal(&pattern))
}

/// What the label `service` of Traefik's metrics matches for these Services of a namespace.
pub fn traefik_services(namespace: &str, services: &[&str]) -> String {
    let names: Vec<String> = services
        .iter()
        .map(|service| {
            let name = escape(&backend_name(namespace, service));
            format!("{name}(-http-[0-9]+|-[0-9]+-grpc)")
        })
        .collect();
    format!("({})@kubernetesgateway", names.join("|"))
}

/// Traefik joins what is letter or digit by one hyphen.
fn backend_name(namespace: &str, service: &str) -> String {
    let words = format!("{namespace}-{service}");
    let words: Vec<&str> = words
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    words.join("-")
}

/// A text as a regular expression that matches it alone.
pub(in crate::kube) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// A text as a string of PromQL; JSON's escapes are among Go's.
fn literal(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests;
