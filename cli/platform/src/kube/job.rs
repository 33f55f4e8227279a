//! Judge and watchdog of a run inside the cluster: one Job with two containers that see each other's processes, so that
//! each can tell whether the other lives. What they do is the business of the program in the image.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::json;

use super::KubePlatform;
use super::edit::MANAGER;
use super::record::{labels, record_name};
use crate::run::RunRecord;
use crate::{PlatformError, Result};

/// Where the description of the platform is mounted: the key `platform` of the record's ConfigMap.
pub const SETTINGS: &str = "/etc/opsctl/platform.json";
/// Where a webhook's address is mounted, if it is in a Secret.
pub const WEBHOOK: &str = "/etc/opsctl-webhook/url";
/// Where the Secret is mounted with what lets a Job ask its Prometheus: `token`, or `username` and `password`; `ca.crt`.
pub const PROMETHEUS: &str = "/etc/opsctl-prometheus";
/// The state folder of the two processes. The volume itself belongs to root.
pub const STATE: &str = "/var/run/opsctl/state";
/// A Job that is over is kept so long, for its log.
const KEPT_SECONDS: u32 = 3600;
/// A container that ends badly is started again so often.
const TRIES: u32 = 10;

/// How a run's Job is made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobSpec {
    /// The image of opsctl.
    pub image: String,
    /// The service account that it runs as.
    pub service_account: String,
    /// Nodes that it must not run on: those that the run is about to drain.
    pub avoid_nodes: Vec<String>,
    /// The Secret of the same namespace, and the key in it, that has the address of a webhook.
    pub webhook: Option<(String, String)>,
    /// The Secret of the same namespace that lets it ask its Prometheus.
    pub prometheus: Option<String>,
}

/// Why a Job does not get to work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// In words.
    pub why: String,
    /// It will not go away by itself.
    pub last: bool,
}

impl KubePlatform {
    /// The namespace of a run: of its record, its journal, its Job.
    pub fn namespace_of(&self, record: &RunRecord) -> &str {
        self.record_namespace(record)
    }

    fn jobs(&self, record: &RunRecord) -> Api<Job> {
        Api::namespaced(self.clients.calls.clone(), self.record_namespace(record))
    }

    /// Starts judge and watchdog of a stored run. The Job belongs to the record and goes with it.
    ///
    /// Errors: [`PlatformError::RecordMissing`]; [`PlatformError::Refused`] and [`PlatformError::Forbidden`] as the API
    /// server says.
    pub async fn start_job(&self, record: &RunRecord, spec: &JobSpec) -> Result<()> {
        let namespace = self.record_namespace(record);
        let map = self.record_map(&record.id).await?;
        let uid = map
            .and_then(|map| map.metadata.uid)
            .ok_or_else(|| PlatformError::RecordMissing { run: record.id.clone() })?;
        let name = job_name(record);
        let job = job(&name, &uid, namespace, record, spec);
        let parameters = PostParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PostParams::default()
        };
        match self.jobs(record).create(&parameters, &job).await {
            // Ours, whose answer was lost.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            other => other.map(drop).map_err(|error| self.error(error)),
        }
    }

    /// Ends the Job of a run with its pod, before it has taken the run up.
    pub async fn delete_job(&self, record: &RunRecord) -> Result<()> {
        let name = job_name(record);
        match self.jobs(record).delete(&name, &DeleteParams::background()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => other.map(drop).map_err(|error| self.error(error)),
        }
    }

    /// Why a run's newest Job does not get to work; `None` while nothing is amiss.
    pub async fn job_trouble(&self, record: &RunRecord) -> Result<Option<Trouble>> {
        let name = job_name(record);
        let job = self
            .jobs(record)
            .get_opt(&name)
            .await
            .map_err(|error| self.error(error))?;
        let Some(job) = job else {
            return Ok(Some(Trouble {
                why: format!("the job `{name}` is gone"),
                last: true,
            }));
        };
        let pods: Api<Pod> = Api::namespaced(self.clients.calls.clone(), self.record_namespace(record));
        let of_job = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={name}"));
        let pods = pods.list(&of_job).await.map_err(|error| self.error(error))?;
        Ok(pods
            .items
            .iter()
            .find_map(trouble_of_pod)
            .or_else(|| trouble_of_job(&job))
            .or_else(|| pods.items.is_empty().then(|| without_pod(&job))))
    }
}

/// A run that is gone on with gets another Job.
fn job_name(record: &RunRecord) -> String {
    match record.epoch {
        0 | 1 => record_name(&record.id),
        epoch => format!("{}-{epoch}", record_name(&record.id)),
    }
}

fn job(name: &str, uid: &str, namespace: &str, record: &RunRecord, spec: &JobSpec) -> Job {
    let container = |role: &str| {
        let mut mounts = vec![
            json!({ "name": "platform", "mountPath": "/etc/opsctl", "readOnly": true }),
            json!({ "name": "state", "mountPath": "/var/run/opsctl" }),
        ];
        if spec.webhook.is_some() {
            mounts.push(json!({ "name": "webhook", "mountPath": "/etc/opsctl-webhook", "readOnly": true }));
        }
        if spec.prometheus.is_some() {
            mounts.push(json!({ "name": "prometheus", "mountPath": PROMETHEUS, "readOnly": true }));
        }
        json!({
            "name": role,
            "image": spec.image,
            "args": ["internal", "--in-cluster", role, "--state", STATE, "--run", record.id],
            "resources": {
                "requests": { "cpu": "20m", "memory": "32Mi" },
                "limits": { "memory": "128Mi" },
            },
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": { "drop": ["ALL"] },
            },
            "volumeMounts": mounts,
        })
    };
    let mut volumes = vec![
        json!({
            "name": "platform",
            "configMap": {
                "name": record_name(&record.id),
                "items": [{ "key": "platform", "path": "platform.json" }],
            },
        }),
        json!({ "name": "state", "emptyDir": { "sizeLimit": "64Mi" } }),
    ];
    if let Some((secret, key)) = &spec.webhook {
        let items = json!([{ "key": key, "path": "url" }]);
        volumes.push(json!({ "name": "webhook", "secret": { "secretName": secret, "items": items } }));
    }
    if let Some(secret) = &spec.prometheus {
        volumes.push(json!({ "name": "prometheus", "secret": { "secretName": secret } }));
    }
    let mut pod = json!({
        "restartPolicy": "OnFailure",
        "serviceAccountName": spec.service_account,
        "shareProcessNamespace": true,
        "terminationGracePeriodSeconds": 60,
        "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
        "containers": [container("judge"), container("watchdog")],
        "volumes": volumes,
    });
    if !spec.avoid_nodes.is_empty() {
        let elsewhere = json!([{ "key": "metadata.name", "operator": "NotIn", "values": spec.avoid_nodes }]);
        pod["affinity"] = json!({ "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [{ "matchFields": elsewhere }] },
        }});
    }
    let labels = labels(record);
    // By this name network policies let it reach the API server and Prometheus.
    let mut of_pod = labels.clone();
    of_pod["app.kubernetes.io/name"] = MANAGER.into();
    let job = json!({
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": labels,
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "ConfigMap", "name": record_name(&record.id), "uid": uid,
            }],
        },
        "spec": {
            "backoffLimit": TRIES,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "template": { "metadata": { "labels": of_pod }, "spec": pod },
        },
    });
    serde_json::from_value(job).expect("it is a Job")
}

/// Reasons for which a container never starts, whatever time passes.
const HOPELESS: [&str; 3] = ["ErrImageNeverPull", "InvalidImageName", "CreateContainerConfigError"];
/// Reasons that may be over the next time.
const SLOW: [&str; 4] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "CrashLoopBackOff",
    "CreateContainerError",
];

fn trouble_of_pod(pod: &Pod) -> Option<Trouble> {
    let status = pod.status.as_ref()?;
    let waiting = status.container_statuses.iter().flatten().find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.as_deref()?;
        let last = HOPELESS.contains(&reason);
        (last || SLOW.contains(&reason)).then(|| Trouble {
            why: told(
                &format!("its container `{}`", container.name),
                reason,
                waiting.message.as_deref(),
            ),
            last,
        })
    });
    let unscheduled = || {
        let mut conditions = status.conditions.iter().flatten();
        let condition =
            conditions.find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
        Some(Trouble {
            why: told(
                "its pod",
                condition.reason.as_deref().unwrap_or("not scheduled"),
                condition.message.as_deref(),
            ),
            last: false,
        })
    };
    waiting.or_else(unscheduled)
}

fn trouble_of_job(job: &Job) -> Option<Trouble> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let failed = conditions.iter().find(|condition| {
        matches!(condition.type_.as_str(), "Failed" | "FailureTarget") && condition.status == "True"
    })?;
    Some(Trouble {
        why: told(
            "it",
            failed.reason.as_deref().unwrap_or("failed"),
            failed.message.as_deref(),
        ),
        last: true,
    })
}

/// A Job whose pod is refused says so in events alone; for its first second every Job has none.
fn without_pod(job: &Job) -> Trouble {
    let pod = job.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let account = pod
        .and_then(|pod| pod.service_account_name.as_deref())
        .unwrap_or("default");
    Trouble {
        why: format!("it has no pod; a service account `{account}` that is not there, a quota or a policy forbids it"),
        last: false,
    }
}

fn told(who: &str, reason: &str, message: Option<&str>) -> String {
    match message.filter(|message| !message.is_empty()) {
        Some(message) => format!("{who}: {reason} ({message})"),
        None => format!("{who}: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn record() -> RunRecord {
        RunRecord::new(
            "20260314-092653-7f3a",
            "drill/pod-kill",
            "service/orders",
            Value::Null,
            jiff::Timestamp::UNIX_EPOCH,
        )
    }

    #[test]
    fn judge_and_watchdog_see_each_other_and_may_nothing_else() {
        let spec = JobSpec {
            image: "registry.example/opsctl:1".to_owned(),
            service_account: "opsctl".to_owned(),
            avoid_nodes: vec!["n1".to_owned()],
            webhook: Some(("pay".to_owned(), "url".to_owned())),
            prometheus: Some("prom".to_owned()),
        };
        let record = record();
        let job = serde_json::to_value(job(&job_name(&record), "u", "shop", &record, &spec)).expect("it is JSON");
        assert_eq!(job["metadata"]["name"], "opsctl-run-20260314-092653-7f3a");
        assert_eq!(job["metadata"]["labels"]["opsctl.dev/kind"], "drill.pod-kill");
        let pod = &job["spec"]["template"]["spec"];
        assert_eq!(pod["shareProcessNamespace"], true);
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        let containers = pod["containers"].as_array().expect("two");
        let roles: Vec<&str> = containers
            .iter()
            .filter_map(|container| container["name"].as_str())
            .collect();
        assert_eq!(roles, ["judge", "watchdog"]);
        for container in containers {
            assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
            assert_eq!(container["args"][0], "internal");
        }
        let secrets: Vec<_> = pod["volumes"]
            .as_array()
            .expect("volumes")
            .iter()
            .filter_map(|volume| volume["secret"]["secretName"].as_str())
            .collect();
        assert_eq!(secrets, ["pay", "prom"]);
        let term = &pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
        assert_eq!(term["nodeSelectorTerms"][0]["matchFields"][0]["values"], json!(["n1"]));
    }

    #[test]
    fn a_run_that_is_gone_on_with_has_another_job() {
        let mut record = record();
        record.epoch = 4;
        assert_eq!(job_name(&record), "opsctl-run-20260314-092653-7f3a-4");
    }

    #[test]
    fn why_a_job_does_not_get_to_work_is_told() {
        let pod = |status: Value| serde_json::from_value::<Pod>(json!({ "status": status })).expect("it is a pod");
        let waiting = |reason: &str| {
            pod(json!({ "containerStatuses": [{
                "name": "judge", "image": "x", "imageID": "", "ready": false, "restartCount": 0,
                "state": { "waiting": { "reason": reason, "message": "no such image" } },
            }]}))
        };
        let trouble = trouble_of_pod(&waiting("ErrImageNeverPull")).expect("it says so");
        assert!(trouble.last);
        assert_eq!(trouble.why, "its container `judge`: ErrImageNeverPull (no such image)");
        assert!(!trouble_of_pod(&waiting("ImagePullBackOff")).expect("it says so").last);
        assert_eq!(trouble_of_pod(&waiting("ContainerCreating")), None);
        let unscheduled = json!({ "conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available",
        }]});
        let trouble = trouble_of_pod(&pod(unscheduled)).expect("it says so");
        assert_eq!(trouble.why, "its pod: Unschedulable (0/1 nodes are available)");
    }
}
