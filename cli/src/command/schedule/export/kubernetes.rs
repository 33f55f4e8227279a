//! A CronJob for each schedule, a Deployment for what goes on all the time, and the service account that they run as, which
//! may do nothing. The configuration is a ConfigMap `opsctl`, variables that it names come from a Secret `opsctl`; the user makes both.

use serde_json::{Value, json};

use super::{Args, Made, slug, slug_of};
use crate::command::rbac::yaml;
use crate::config::{Config, Datastore, DatastoreKind, Job, Schedule};
use crate::context::Context;
use crate::error::Failure;
use crate::schedule::{staying, what};

const ACCOUNT: &str = "opsctl-schedule";
/// The user of the image; not root, so that a pod that asks for that is refused.
const USER: u32 = 65532;
/// What Kubernetes allows for a CronJob, since it adds eleven characters for each Job.
const LONGEST: usize = 52;

/// The objects, one a file.
pub(super) fn files(
    args: &Args,
    context: &Context,
    config: &Config,
    schedules: &[&Schedule],
    stays: &[&Datastore],
) -> Result<Vec<Made>, Failure> {
    let image = image(args, context, config)?;
    let namespace = args.namespace.clone().or_else(|| config.environment.namespace.clone());
    let Some(namespace) = namespace else {
        return Err(
            Failure::usage("no_namespace", "in which namespace is not clear").help(format!(
                "add `--namespace NAME`, or set `namespace` in `[env.{}]` of opsctl.toml",
                config.environment.name
            )),
        );
    };
    let mut files = vec![Made {
        name: format!("{ACCOUNT}.yaml"),
        content: yaml::document(&json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": { "name": ACCOUNT, "namespace": namespace, "labels": labels() },
            "automountServiceAccountToken": false,
        })),
    }];
    for schedule in schedules {
        let name = slug(schedule);
        if name.len() > LONGEST {
            return Err(Failure::usage(
                "name_too_long",
                format!("`{name}` is too long for a CronJob: expected at most {LONGEST} characters"),
            ));
        }
        let of_job = match (schedule.job, &schedule.target) {
            (Job::Backup | Job::RestoreDrill, Some(target)) => config.datastores.get(target),
            _ => None,
        };
        warn_of_paths(context, &schedule.name, "CronJob", of_job);
        files.push(Made {
            name: format!("{name}.yaml"),
            content: yaml::document(&object(&name, &namespace, &image, config, schedule)?),
        });
    }
    for store in stays {
        let name = slug_of(store);
        warn_of_paths(context, &name, "Deployment", Some(store));
        files.push(Made {
            name: format!("{name}.yaml"),
            content: yaml::document(&deployment(&name, &namespace, &image, config, store)),
        });
    }
    Ok(files)
}

fn image(args: &Args, context: &Context, config: &Config) -> Result<String, Failure> {
    if let Some(image) = &args.image {
        return Ok(image.clone());
    }
    let cluster = match (&context.global.cluster, config.environment.clusters.as_slice()) {
        (Some(name), _) => Some(name),
        (None, [only]) => Some(only),
        (None, _) => None,
    };
    cluster
        .and_then(|name| config.clusters.get(name)?.image.clone())
        .ok_or_else(|| {
            Failure::usage("no_image", "which image of opsctl runs there is not clear")
                .help("add `--image IMAGE`, or choose the cluster whose `image` it is with `--cluster NAME`")
        })
}

fn labels() -> Value {
    json!({ "app.kubernetes.io/managed-by": "opsctl", "app.kubernetes.io/name": "opsctl" })
}

fn object(name: &str, namespace: &str, image: &str, config: &Config, schedule: &Schedule) -> Result<Value, Failure> {
    let crontab = schedule.timing.expression.crontab().ok_or_else(|| {
        Failure::usage(
            "no_crontab",
            format!("`{}` has seconds or years, which no CronJob has", schedule.name),
        )
        .help(format!("write five fields at {}", schedule.origin))
    })?;
    let mut arguments: Vec<String> = ["--env", &config.environment.name, "--no-input", "schedule", "run"]
        .map(str::to_owned)
        .to_vec();
    arguments.push(schedule.name.clone());
    if !schedule.timing.jitter.is_zero() || !schedule.timing.quiet.is_empty() {
        arguments.push("--as-scheduled".to_owned());
    }
    if config.protected().is_some() {
        arguments.extend(["--yes", "--reason", "CronJob"].map(str::to_owned));
    }
    let pod = pod(image, arguments, "Never");
    let mut spec = json!({
        "schedule": crontab,
        "concurrencyPolicy": "Forbid",
        // Later than that it waits for the next time.
        "startingDeadlineSeconds": 3600,
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 3,
        "jobTemplate": { "spec": {
            "backoffLimit": 2,
            "template": { "metadata": { "labels": labels() }, "spec": pod },
        } },
    });
    let zone = schedule.timing.zone.iana_name().unwrap_or("Etc/UTC");
    spec["timeZone"] = if zone == "UTC" { "Etc/UTC" } else { zone }.into();
    Ok(json!({
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": labels(),
            "annotations": {
                "opsctl.xyz/schedule": schedule.name,
                "opsctl.xyz/job": what(schedule),
            },
        },
        "spec": spec,
    }))
}

/// What runs one command line.
fn pod(image: &str, arguments: Vec<String>, restart: &str) -> Value {
    let container = json!({
        "name": "opsctl",
        "image": image,
        "args": arguments,
        "env": [
            { "name": "OPSCTL_CONFIG", "value": "/etc/opsctl/opsctl.toml" },
            { "name": "OPSCTL_STATE", "value": "/var/run/opsctl/state" },
        ],
        "envFrom": [{ "secretRef": { "name": "opsctl", "optional": true } }],
        "resources": {
            "requests": { "cpu": "50m", "memory": "64Mi" },
            "limits": { "memory": "512Mi" },
        },
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        },
        // The file alone: the folder of a ConfigMap may be written by everybody, which opsctl refuses.
        "volumeMounts": [
            { "name": "config", "mountPath": "/etc/opsctl/opsctl.toml", "subPath": "opsctl.toml", "readOnly": true },
            { "name": "state", "mountPath": "/var/run/opsctl" },
        ],
    });
    json!({
        "restartPolicy": restart,
        "serviceAccountName": ACCOUNT,
        "automountServiceAccountToken": false,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "terminationGracePeriodSeconds": 120,
        "containers": [container],
        "volumes": [
            { "name": "config", "configMap": { "name": "opsctl" } },
            { "name": "state", "emptyDir": {} },
        ],
    })
}

/// One pod at a time: a second one would find the slot in use, and is not started before the first is gone.
fn deployment(name: &str, namespace: &str, image: &str, config: &Config, store: &Datastore) -> Value {
    let mut arguments = ["--env", &config.environment.name, "--no-input"]
        .map(str::to_owned)
        .to_vec();
    arguments.extend(staying::command(store));
    let what = staying::command(store).join(" ");
    let mut selected = labels();
    selected["opsctl.xyz/datastore"] = store.name.as_str().into();
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": labels(),
            "annotations": { "opsctl.xyz/job": what },
        },
        "spec": {
            "replicas": 1,
            "strategy": { "type": "Recreate" },
            "selector": { "matchLabels": selected },
            "template": { "metadata": { "labels": selected }, "spec": pod(image, arguments, "Always") },
        },
    })
}

/// A file of this machine is not in a pod.
fn warn_of_paths(context: &Context, name: &str, kind: &str, store: Option<&Datastore>) {
    if let Some(store) = store
        && matches!(store.kind, DatastoreKind::Sqlite | DatastoreKind::Files)
    {
        context.out.warn(format!(
            "`{name}` reads files of datastore `{}`: add the volume that holds them to its {kind}",
            store.name
        ));
    }
}
