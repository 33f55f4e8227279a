//! Killing a pod: by eviction, which disruption budgets may refuse, by deletion, or its main container alone.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{AttachParams, DeleteParams, Preconditions};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::time::Instant;

use super::KubePlatform;
use super::state::container_of;
use crate::{Fence, Instance, KillMode, PlatformError, Result};

/// Between two requests to evict a pod that a budget protects.
const PAUSE: Duration = Duration::from_secs(1);

impl KubePlatform {
    pub(super) async fn kill_pod(
        &self,
        by: Option<&Fence>,
        instance: &Instance,
        mode: KillMode,
        dry_run: bool,
    ) -> Result<Timestamp> {
        let workload = self.workload(&instance.service)?;
        let pods: Api<Pod> = Api::namespaced(self.clients.calls.clone(), &workload.namespace);
        let pod = pods.get_opt(&instance.id).await.map_err(|error| self.error(error))?;
        let alive =
            |pod: &Pod| pod.uid().as_deref() == Some(&instance.uid) && pod.metadata.deletion_timestamp.is_none();
        let pod = pod.filter(alive);
        self.admit(by).await?;
        let pod = pod.ok_or_else(|| gone(instance))?;
        let at = self.clients.now();
        match mode {
            KillMode::Evict { patience_seconds } => {
                let patience = if dry_run { 0 } else { patience_seconds };
                self.evict(
                    by,
                    &workload.namespace,
                    instance,
                    Duration::from_secs(patience),
                    dry_run,
                )
                .await
            }
            KillMode::Delete { grace_seconds } => {
                let params = DeleteParams {
                    dry_run,
                    grace_period_seconds: Some(grace_seconds),
                    preconditions: Some(Preconditions {
                        uid: Some(instance.uid.clone()),
                        resource_version: None,
                    }),
                    ..DeleteParams::default()
                };
                match pods.delete(&instance.id, &params).await {
                    Ok(_) => Ok(at),
                    Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Err(gone(instance)),
                    Err(error) => Err(self.error(error)),
                }
            }
            KillMode::Container => {
                let containers = pod.spec.as_ref().map_or(&[][..], |spec| &spec.containers);
                let main = container_of(containers, workload.container.as_deref(), &workload.deployment);
                let main = main.map(|main| main.name.clone()).unwrap_or_default();
                if !dry_run {
                    self.end_container(&workload.namespace, instance, &main).await?;
                }
                Ok(at)
            }
        }
    }

    /// Evicts exactly this pod. kube's own request spells the preconditions in a way that no API server reads.
    pub(super) async fn evict(
        &self,
        by: Option<&Fence>,
        namespace: &str,
        instance: &Instance,
        patience: Duration,
        dry_run: bool,
    ) -> Result<Timestamp> {
        let deadline = Instant::now() + patience;
        loop {
            let at = self.clients.now();
            let eviction = json!({
                "apiVersion": "policy/v1",
                "kind": "Eviction",
                "metadata": { "name": instance.id, "namespace": namespace },
                "deleteOptions": {
                    "preconditions": { "uid": instance.uid },
                    "dryRun": if dry_run { vec!["All"] } else { Vec::new() },
                },
            });
            let request = http::Request::post(format!("/api/v1/namespaces/{namespace}/pods/{}/eviction", instance.id))
                .header(http::header::CONTENT_TYPE, "application/json")
                .body(eviction.to_string().into_bytes())
                .expect("names of objects make a path");
            let refusal = match self.clients.once.request_text(request).await {
                Ok(_) => return Ok(at),
                Err(kube::Error::Api(status)) => status,
                Err(error) => return Err(self.error(error)),
            };
            match refusal.code {
                404 | 409 => return Err(gone(instance)),
                429 if Instant::now() + PAUSE <= deadline => {
                    tokio::time::sleep(PAUSE).await;
                    // The run may have been lost meanwhile.
                    self.admit(by).await?;
                }
                // A budget forbids it; or there are two, of which the API server cannot say which holds.
                429 | 500 => {
                    let causes = refusal.details.as_ref().map_or(&[][..], |details| &details.causes);
                    let budget = causes.iter().find(|cause| cause.reason == "DisruptionBudget");
                    return Err(PlatformError::Refused {
                        what: format!("the eviction of `{}`", instance.id),
                        why: budget.map_or(refusal.message.clone(), |cause| cause.message.clone()),
                    });
                }
                _ => return Err(self.error(kube::Error::Api(refusal))),
            }
        }
    }

    /// Ends the main container's first process as its image allows: nothing outside the pod's node can, and from within
    /// its own namespace the first process takes no SIGKILL, so it is asked to end and Kubernetes starts it again.
    async fn end_container(&self, namespace: &str, instance: &Instance, container: &str) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.clients.once.clone(), namespace);
        let params = AttachParams::default()
            .container(container)
            .stdin(false)
            .stdout(false)
            .stderr(true);
        let refused = |why: String| PlatformError::Refused {
            what: format!("ending the container `{container}` of `{}`", instance.id),
            why,
        };
        let mut running = match pods.exec(&instance.id, ["kill", "-TERM", "1"], &params).await {
            Ok(running) => running,
            Err(kube::Error::Api(status)) if status.code == 404 => return Err(gone(instance)),
            Err(error) => return Err(self.error(error)),
        };
        let status = match running.take_status() {
            Some(status) => status.await,
            None => None,
        };
        match status {
            // The connection may end with the container before its status is told.
            None => Ok(()),
            Some(status) if status.status.as_deref() == Some("Success") => Ok(()),
            Some(status) => {
                let why = status.message.unwrap_or_default();
                let absent = why.contains("executable file not found") || why.contains("no such file");
                Err(refused(if absent {
                    "its image has no program `kill`; use the mode `delete`".to_owned()
                } else {
                    why
                }))
            }
        }
    }
}

fn gone(instance: &Instance) -> PlatformError {
    PlatformError::Gone {
        instance: instance.id.clone(),
        uid: instance.uid.clone(),
    }
}
