//! What runs: health, processes and their runtime everywhere; pods and containers on Kubernetes, from kube-state-metrics
//! and the kubelet.

use manifest::landscape::{Board, Landscape, Platform};

use super::sheet::{Plot, Sheet};
use super::{Draft, uid, variables};
use crate::model::Unit;

pub(super) fn board(landscape: &Landscape) -> Option<Draft> {
    if landscape.services.is_empty() {
        return None;
    }
    let mut sheet = Sheet::default().row("Health", health());
    if landscape.platform == Platform::Kubernetes {
        sheet = sheet
            .row("Pods", pods())
            .row("Containers: what is used, asked for and allowed", containers());
    }
    let sheet = sheet.row("Processes", processes()).folded("Runtime", runtime());
    Some(Draft {
        uid: uid(Board::Workload),
        title: "Workload",
        about: "What runs, whether it is healthy, and what it uses of what it may have.",
        from: "now-3h",
        variables: vec![variables::services(landscape)],
        sheet,
    })
}

fn health() -> [Plot; 6] {
    [
        Plot::states(
            "State of the services",
            &[
                ("0", "starting or draining", "blue"),
                ("1", "ready", "green"),
                ("2", "degraded", "yellow"),
                ("3", "not ready", "red"),
            ],
        )
        .about("As the service itself says; of several instances the worst.")
        .size(12, 7)
        .ask(
            "max by (job) (health_status{SERVICE, status=\"not_ready\"} * 3) > 0 or max by (job) (health_status{SERVICE, status=\"degraded\"} * 2) > 0 or max by (job) (health_status{SERVICE, status=\"ready\"})",
            "{{job}}",
        ),
        Plot::states("Checks", &[("0", "fails", "red"), ("1", "passes", "green")])
            .about("Of what the services depend on; of several instances the worst.")
            .size(12, 7)
            .ask("min by (job, check) (health_check_up{SERVICE})", "{{job}} {{check}}"),
        Plot::lines("Duration of checks", Unit::Seconds)
            .about("Of the last run, in the slowest instance. One near its time limit fails next.")
            .wide(6)
            .ask("max by (job, check) (health_check_duration_seconds{SERVICE})", "{{job}} {{check}}"),
        Plot::lines("Since a check last passed", Unit::Seconds)
            .about("In the instance that waits longest. Checks that never passed are left out.")
            .wide(6)
            .ask(
                "time() - min by (job, check) (health_check_last_success_timestamp_seconds{SERVICE} > 0)",
                "{{job}} {{check}}",
            ),
        Plot::lines("Changes of checks", Unit::Count)
            .about("In the last hour, by where to. Many are a check that flaps.")
            .wide(6)
            .ask(
                "sum by (job, check, to) (increase(health_transitions_total{SERVICE}[1h])) > 0",
                "{{job}} {{check}} to {{to}}",
            ),
        Plot::lines("Age of the processes", Unit::Seconds)
            .about("Of the youngest instance: a saw is a crash loop.")
            .wide(6)
            .ask("time() - max by (job) (process_start_time_seconds{SERVICE})", "{{job}}"),
    ]
}

fn processes() -> [Plot; 4] {
    [
        Plot::lines("Processor time", Unit::Cores)
            .about("Cores that each instance uses.")
            .wide(6)
            .ask(
                "sum by (job, instance) (rate(process_cpu_seconds_total{SERVICE}[$__rate_interval]))",
                "{{job}} {{instance}}",
            ),
        Plot::lines("Memory", Unit::Bytes)
            .about("Of each instance that is in RAM. A line that only rises is a leak.")
            .wide(6)
            .ask(
                "max by (job, instance) (process_resident_memory_bytes{SERVICE})",
                "{{job}} {{instance}}",
            ),
        Plot::lines("Open files", Unit::Ratio)
            .about("Of those that the process may have. At 100 % no connection is taken any more.")
            .wide(6)
            .up_to(1.0)
            .steps(&[(0.8, "red")])
            .ask(
                "max by (job, instance) (process_open_fds{SERVICE} / process_max_fds{SERVICE})",
                "{{job}} {{instance}}",
            ),
        Plot::lines("Starts", Unit::Count)
            .about("Instances that began anew in the last hour.")
            .wide(6)
            .ask(
                "sum by (job) (changes(process_start_time_seconds{SERVICE}[1h]))",
                "{{job}}",
            ),
    ]
}

fn runtime() -> [Plot; 4] {
    [
        Plot::lines("Workers that are busy", Unit::Ratio)
            .about("Share of the time of a runtime's worker threads. Near 100 % everything waits for everything.")
            .wide(6)
            .up_to(1.0)
            .ask(
                "sum by (job, runtime) (rate(tokio_worker_busy_seconds_total{SERVICE}[$__rate_interval])) / sum by (job, runtime) (tokio_workers{SERVICE})",
                "{{job}} {{runtime}}",
            ),
        Plot::lines("Tasks", Unit::Count)
            .about("That have not ended. A line that only rises is a leak.")
            .wide(6)
            .ask("sum by (job, runtime) (tokio_alive_tasks{SERVICE})", "{{job}} {{runtime}}"),
        Plot::lines("Tasks that wait", Unit::Count)
            .about("In a runtime's global queue, in the instance with the most.")
            .wide(6)
            .ask("max by (job, runtime) (tokio_global_queue_depth{SERVICE})", "{{job}} {{runtime}}"),
        Plot::lines("Parks", Unit::PerSecond)
            .about("Times per second that worker threads went to sleep. None, with busy workers: something blocks.")
            .wide(6)
            .ask(
                "sum by (job, runtime) (rate(tokio_worker_parks_total{SERVICE}[$__rate_interval]))",
                "{{job}} {{runtime}}",
            ),
    ]
}

fn pods() -> [Plot; 6] {
    [
        Plot::lines("Replicas", Unit::Count)
            .about("That are available, and that there ought to be.")
            .ask(
                "max by (deployment) (kube_deployment_status_replicas_available{NAMESPACE, deployment=~\"$service(-canary)?\"})",
                "{{deployment}} available",
            )
            .ask(
                "max by (deployment) (kube_deployment_spec_replicas{NAMESPACE, deployment=~\"$service(-canary)?\"})",
                "{{deployment}} wanted",
            ),
        Plot::lines("Pods by phase", Unit::Count)
            .about("Pending for long: no room, or no image.")
            .stacked()
            .ask("sum by (phase) (kube_pod_status_phase{SERVICE}) > 0", "{{phase}}"),
        Plot::lines("Containers that wait", Unit::Count)
            .about("By why: CrashLoopBackOff, ImagePullBackOff.")
            .ask(
                "sum by (pod, reason) (kube_pod_container_status_waiting_reason{SERVICE}) > 0",
                "{{pod}} {{reason}}",
            ),
        Plot::lines("Restarts", Unit::Count)
            .about("Of containers, in the last hour.")
            .ask(
                "sum by (pod, container) (increase(kube_pod_container_status_restarts_total{SERVICE}[1h])) > 0",
                "{{pod}} {{container}}",
            ),
        Plot::lines("Killed for their memory", Unit::Count)
            .about("Containers that ended last because they had more memory than they may.")
            .ask(
                "sum by (pod) (kube_pod_container_status_last_terminated_reason{SERVICE, reason=\"OOMKilled\"}) > 0",
                "{{pod}}",
            ),
        Plot::lines("Autoscaling", Unit::Count)
            .about("Replicas that there are beside the most that there may be. Where they meet, load goes on rising alone.")
            .ask(
                "max by (horizontalpodautoscaler) (kube_horizontalpodautoscaler_status_current_replicas{NAMESPACE, horizontalpodautoscaler=~\"$service\"})",
                "{{horizontalpodautoscaler}}",
            )
            .ask(
                "max by (horizontalpodautoscaler) (kube_horizontalpodautoscaler_spec_max_replicas{NAMESPACE, horizontalpodautoscaler=~\"$service\"})",
                "{{horizontalpodautoscaler}} at most",
            ),
    ]
}

fn containers() -> [Plot; 6] {
    [
        Plot::lines("Processor time by pod", Unit::Cores)
            .about("Cores that each pod uses.")
            .ask(
                "sum by (pod) (rate(container_cpu_usage_seconds_total{SERVICE, container!=\"\"}[$__rate_interval]))",
                "{{pod}}",
            ),
        Plot::lines("Processor time of what was asked for", Unit::Ratio)
            .about("Above 100 % a pod lives on what others do not use.")
            .ask(
                "sum by (pod) (rate(container_cpu_usage_seconds_total{SERVICE, container!=\"\"}[$__rate_interval])) / on (pod) sum by (pod) (kube_pod_container_resource_requests{SERVICE, resource=\"cpu\"})",
                "{{pod}}",
            ),
        Plot::lines("Throttled", Unit::Ratio)
            .about("Share of the periods in which a container had to wait for its limit to pass. It shows as slow requests.")
            .up_to(1.0)
            .steps(&[(0.25, "orange")])
            .ask(
                "sum by (pod, container) (rate(container_cpu_cfs_throttled_periods_total{SERVICE}[$__rate_interval])) / sum by (pod, container) (rate(container_cpu_cfs_periods_total{SERVICE}[$__rate_interval]))",
                "{{pod}} {{container}}",
            ),
        Plot::lines("Memory by pod", Unit::Bytes)
            .about("That cannot be given back.")
            .ask(
                "sum by (pod) (container_memory_working_set_bytes{SERVICE, container!=\"\"})",
                "{{pod}}",
            ),
        Plot::lines("Memory of what is allowed", Unit::Ratio)
            .about("At 100 % the container is killed.")
            .up_to(1.0)
            .steps(&[(0.8, "orange"), (0.95, "red")])
            .ask(
                "sum by (pod, container) (container_memory_working_set_bytes{SERVICE, container!=\"\"}) / on (pod, container) sum by (pod, container) (kube_pod_container_resource_limits{SERVICE, resource=\"memory\"})",
                "{{pod}} {{container}}",
            ),
        Plot::lines("Network", Unit::BytesPerSecond)
            .about("That pods receive and send.")
            .ask(
                "sum by (pod) (rate(container_network_receive_bytes_total{SERVICE}[$__rate_interval]))",
                "{{pod}} in",
            )
            .ask(
                "sum by (pod) (rate(container_network_transmit_bytes_total{SERVICE}[$__rate_interval]))",
                "{{pod}} out",
            ),
    ]
}
