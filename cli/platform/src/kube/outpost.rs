//! A pod of opsctl in a namespace of services, for what only somebody there can do: stand before a Service, end the
//! sessions at a database. It is kept by a Deployment, which holds the value of the field that it is there for, and is
//! steered through the API server with a token that lies in a Secret of the same name. What it is told to do is decided
//! elsewhere.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use opsctl_proxy_control::HopClient;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::KubePlatform;
use super::edit::{Change, MANAGER, Note, Target, UNDO};
use super::state::is_ready;
use crate::run::RunRecord;
use crate::{Fence, PlatformError, Result};

/// The label of everything that belongs to an outpost; its value is the outpost's name.
pub(super) const HOP: &str = "opsctl.dev/hop";
/// Where its pod is steered.
pub(super) const CONTROL_PORT: u16 = 9911;
/// How long connections under way may go on when it is not needed any more.
const DRAIN_SECONDS: u32 = 300;
/// How long it may take to come up.
const READY: Duration = Duration::from_mins(1);
/// Between two looks at something that is waited for.
pub(super) const POLL: Duration = Duration::from_millis(250);
/// The variable with the address of a database.
const DATABASE_URL: &str = "DATABASE_URL";
const PART_OF: &str = "app.kubernetes.io/part-of";

/// One outpost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outpost {
    pub(super) namespace: String,
    /// The name of all of its objects.
    pub(super) name: String,
}

/// What its pod does.
#[derive(Debug, Default)]
pub(super) struct Duty<'a> {
    pub(super) image: &'a str,
    /// What it is there for, as a label says it.
    pub(super) part_of: &'a str,
    /// On the Deployment.
    pub(super) annotations: Value,
    /// `--forward` of each port, and more.
    pub(super) args: Vec<String>,
    pub(super) ports: Vec<Value>,
    /// A variable of a container with the address of a database, and where that is: it can end the sessions of that role.
    pub(super) sessions: Option<(&'a Value, String)>,
}

impl Outpost {
    pub(super) fn deployment(&self) -> Target {
        Target::of::<Deployment>(&self.namespace, &self.name)
    }

    pub(super) fn labels(&self, part_of: &str) -> Value {
        json!({
            "app.kubernetes.io/name": self.name,
            "app.kubernetes.io/component": "hop",
            "app.kubernetes.io/managed-by": MANAGER,
            PART_OF: part_of,
            HOP: self.name,
        })
    }

    /// Its objects. Nothing is asked here.
    pub(super) fn objects(&self, duty: Duty<'_>) -> (Deployment, Secret) {
        let labels = self.labels(duty.part_of);
        let mut args = vec!["internal".to_owned(), "hop".to_owned()];
        args.extend(duty.args);
        args.extend(["--control".to_owned(), format!("0.0.0.0:{CONTROL_PORT}")]);
        args.extend(["--token".to_owned(), "/etc/opsctl-hop/token".to_owned()]);
        args.extend(["--drain".to_owned(), format!("{}s", DRAIN_SECONDS - 10)]);
        let mut ports = vec![json!({ "name": "opsctl-control", "containerPort": CONTROL_PORT })];
        ports.extend(duty.ports);
        let mut env = Vec::new();
        if let Some((variable, at)) = duty.sessions {
            args.extend(["--sessions-at".to_owned(), at]);
            env.push(variable);
        }
        let probe = json!({ "httpGet": { "path": "/healthz", "port": CONTROL_PORT }, "periodSeconds": 1 });
        let pod = json!({
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": DRAIN_SECONDS,
            "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [{
                "name": "hop",
                "image": duty.image,
                "args": args,
                "ports": ports,
                "env": env,
                "readinessProbe": probe,
                "resources": { "requests": { "cpu": "20m", "memory": "16Mi" }, "limits": { "memory": "128Mi" } },
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": { "drop": ["ALL"] },
                },
                "volumeMounts": [{ "name": "token", "mountPath": "/etc/opsctl-hop", "readOnly": true }],
            }],
            "volumes": [{ "name": "token", "secret": { "secretName": self.name } }],
        });
        let deployment = json!({
            "metadata": {
                "name": self.name,
                "namespace": self.namespace,
                "labels": labels,
                "annotations": duty.annotations,
            },
            "spec": {
                "replicas": 1,
                // Two would do everything twice.
                "strategy": { "type": "Recreate" },
                "selector": { "matchLabels": { HOP: self.name } },
                "template": { "metadata": { "labels": labels }, "spec": pod },
            },
        });
        let token = format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
        let secret = json!({
            "metadata": { "name": self.name, "namespace": self.namespace, "labels": labels },
            "stringData": { "token": token },
        });
        (
            serde_json::from_value(deployment).expect("it is a Deployment"),
            serde_json::from_value(secret).expect("it is a Secret"),
        )
    }

    /// Creates its Deployment with what the run has to undo; the field that it holds is present from here on. `None` when
    /// there is one already.
    pub(super) async fn create_holder(
        &self,
        on: &KubePlatform,
        change: &Change<'_>,
        record: Option<&RunRecord>,
        mut deployment: Deployment,
    ) -> Result<Option<Deployment>> {
        if let Some(record) = record {
            let notes = serde_json::to_string(&Note::all(record, change.field));
            let notes = notes.expect("strings, numbers and JSON are JSON");
            let annotations = deployment.metadata.annotations.get_or_insert_default();
            annotations.insert(UNDO.to_owned(), notes);
        }
        let deployments: Api<Deployment> = Api::namespaced(on.clients.calls.clone(), &self.namespace);
        match deployments.create(&creating(change), &deployment).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
            other => other.map(Some).map_err(|error| on.error(error)),
        }
    }

    /// Creates its Secret.
    pub(super) async fn create_secret(&self, on: &KubePlatform, change: &Change<'_>, secret: &Secret) -> Result<()> {
        let secrets: Api<Secret> = Api::namespaced(on.clients.calls.clone(), &self.namespace);
        unless_there(secrets.create(&creating(change), secret).await).map_err(|error| on.error(error))
    }

    /// Waits until its pod is ready.
    pub(super) async fn ready(&self, on: &KubePlatform, by: Option<&Fence>) -> Result<()> {
        let deadline = Instant::now() + READY;
        while self.ready_pod(on).await?.is_none() {
            if Instant::now() >= deadline {
                return Err(PlatformError::TimedOut {
                    what: format!("the start of `{}`", self.name),
                    limit: READY,
                });
            }
            tokio::time::sleep(POLL).await;
            // The run may have been lost meanwhile.
            on.admit(by).await?;
        }
        Ok(())
    }

    pub(super) async fn ready_pod(&self, on: &KubePlatform) -> Result<Option<String>> {
        let pods: Api<Pod> = Api::namespaced(on.clients.calls.clone(), &self.namespace);
        let ours = ListParams::default().labels(&format!("{HOP}={}", self.name));
        let pods = pods.list(&ours).await.map_err(|error| on.error(error))?;
        let ready = pods.items.into_iter().find(is_ready);
        Ok(ready.and_then(|pod| pod.metadata.name))
    }

    /// Who steers it.
    pub(super) async fn client(&self, on: &KubePlatform) -> Result<HopClient> {
        let secrets: Api<Secret> = Api::namespaced(on.clients.calls.clone(), &self.namespace);
        let secret = secrets.get(&self.name).await.map_err(|error| on.error(error))?;
        let token = secret.data.and_then(|mut data| data.remove("token"));
        let token = token.and_then(|token| String::from_utf8(token.0).ok());
        let token = token.ok_or_else(|| PlatformError::Missing {
            what: format!("the token in the Secret `{}`", self.name),
        })?;
        Ok(HopClient::new(token))
    }

    /// A connection to its control, through the API server.
    pub(super) async fn reach(
        &self,
        on: &KubePlatform,
    ) -> Result<impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + use<>> {
        let pods: Api<Pod> = Api::namespaced(on.clients.once.clone(), &self.namespace);
        let name = self
            .ready_pod(on)
            .await?
            .ok_or_else(|| self.unreachable("it has no ready pod".into()))?;
        let mut forwarded = pods
            .portforward(&name, &[CONTROL_PORT])
            .await
            .map_err(|error| on.error(error))?;
        forwarded
            .take_stream(CONTROL_PORT)
            .ok_or_else(|| self.unreachable("its control port is not forwarded".into()))
    }

    pub(super) fn unreachable(&self, source: Box<dyn std::error::Error + Send + Sync>) -> PlatformError {
        PlatformError::Unreachable {
            what: format!("`{}` in namespace `{}`", self.name, self.namespace),
            source,
        }
    }

    /// Has it end the open sessions of the role that it knows: how many there were.
    pub(super) async fn end_sessions(&self, on: &KubePlatform) -> Result<u64> {
        let ended = self.client(on).await?.end_sessions(self.reach(on).await?).await;
        ended.map_err(|error| self.unreachable(error.into()))
    }

    /// Removes its objects; the Deployment, which holds the field, last. Its pod goes on until its connections have ended,
    /// or its time to end in is over.
    pub(super) async fn close(&self, on: &KubePlatform) -> Result<()> {
        self.remove(on, Target::of::<Secret>(&self.namespace, &self.name))
            .await?;
        self.remove(on, self.deployment()).await
    }

    /// Deletes an object that belongs to it.
    pub(super) async fn remove(&self, on: &KubePlatform, target: Target) -> Result<()> {
        let Some(object) = on.read(&target).await? else {
            return Ok(());
        };
        let labels = object.metadata.labels.unwrap_or_default();
        if labels.get(HOP) != Some(&self.name) {
            // Somebody else's, by chance with the same name.
            return Ok(());
        }
        let this_very_one = DeleteParams::background().preconditions(Preconditions {
            uid: object.metadata.uid,
            resource_version: None,
        });
        let api = target.api(on.clients.calls.clone());
        match api.delete(&target.name, &this_very_one).await {
            // It is gone, or another one is there by now.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            other => other.map(drop).map_err(|error| on.error(error)),
        }
    }
}

/// Where the pods of a service have the address of their database from, for a pod in `namespace`.
pub(super) async fn database_url(on: &KubePlatform, namespace: &str, service: &str) -> Result<Value> {
    let workload = on.workload(service)?;
    let target = Target::of::<Deployment>(&workload.namespace, &workload.deployment);
    let found = on.read(&target).await?.and_then(|deployment| {
        let containers = deployment
            .data
            .pointer("/spec/template/spec/containers")?
            .as_array()?
            .clone();
        let mut variables = containers.into_iter().flat_map(|container| {
            let variables = container["env"].as_array().cloned();
            variables.unwrap_or_default()
        });
        variables.find(|variable| variable["name"] == DATABASE_URL)
    });
    let refused = |why: String| PlatformError::Refused {
        what: format!("ending the database sessions of `{service}`"),
        why,
    };
    let found = found.ok_or_else(|| refused(format!("its pods have no variable {DATABASE_URL}")))?;
    if !found["valueFrom"].is_null() && workload.namespace != namespace {
        let theirs = &workload.namespace;
        return Err(refused(format!(
            "its {DATABASE_URL} is kept in namespace `{theirs}`, and the hop would be in `{namespace}`: leave its sessions \
             with `--keep-sessions`"
        )));
    }
    Ok(found)
}

/// How objects are created for a change.
pub(super) fn creating(change: &Change<'_>) -> PostParams {
    PostParams {
        dry_run: change.dry_run,
        field_manager: Some(MANAGER.to_owned()),
    }
}

/// One of ours from a try before, whose answer was lost.
pub(super) fn unless_there<T>(created: kube::Result<T>) -> kube::Result<()> {
    match created {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        other => other.map(drop),
    }
}
