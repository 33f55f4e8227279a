//! How long a person waits where there are many: `opsctl` with a thousand services of five pods each, on a real API server
//! whose nodes are played. Whole processes, with the most memory that they ever had.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use peers::servers::{ControlPlane, Kubernetes};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};

use super::page::Section;
use super::requirement::Requirement;
use super::{machine, process, program};

const SERVICES: usize = 1000;
const PODS: usize = 5;
/// A kubelet takes 110 pods; a played one takes what its node says.
const PODS_OF_A_NODE: usize = 900;
const RUNS: usize = 7;
/// Objects that kubectl is given at one time.
const AT_ONCE: usize = 100;
const NAMESPACE: &str = "many";
/// How long the controllers may take to make all of them.
const LIMIT: Duration = Duration::from_mins(20);

/// Measures `status` and what a drill looks at before it begins.
pub fn measure() -> Result<Section> {
    program::build(&["opsctl"])?;
    let opsctl = program::release("opsctl")?;
    let folder = tempfile::tempdir().context("could not make a scratch folder")?;
    let runtime = Runtime::new()?;
    runtime.block_on(async {
        let nodes = (SERVICES * PODS).div_ceil(PODS_OF_A_NODE);
        let plane = ControlPlane::start_with(Kubernetes::default().nodes(nodes), "bench").await;
        let plane = plane.context("Kubernetes is not installed: cargo xtask peers install kubernetes etcd kwok")?;
        catalogue(folder.path(), &plane)?;
        make(&plane).await?;
        let run = |arguments: &[&str]| {
            let mut command = Command::new(&opsctl);
            command.args(arguments).current_dir(folder.path());
            command
        };
        until_ready(&plane).await?;
        let status = worst(|| run(&["status", "--json"])).await?;
        let drill = worst(|| run(&["drill", "pod-kill", "service-500", "--no-probe", "--dry-run"])).await?;
        Ok(section(&status, &drill))
    })
}

fn section(status: &Seen, drill: &Seen) -> Section {
    let most = status.mib.max(drill.mib);
    let required = [
        Requirement::at_most("`opsctl status`, slowest", Some(status.worst), 2.0, "s"),
        Requirement::at_most("what a drill looks at first, slowest", Some(drill.worst), 2.0, "s"),
        Requirement::at_most("memory", Some(most), 100.0, "MiB"),
    ];
    let required: Vec<String> = required.iter().map(|one| format!("- {one}")).collect();
    let row = |command: &str, seen: &Seen| {
        vec![
            command.to_owned(),
            format!("{:.2}", seen.median),
            format!("{:.2}", seen.worst),
            format!("{:.0}", seen.mib),
        ]
    };
    Section {
        area: "kubernetes",
        title: "On a cluster with many services",
        method: format!(
            "{SERVICES} Deployments with {PODS} pods each in one namespace, on nodes that kwok plays; kube-apiserver, etcd and \
             the controllers run beside it on the same machine. Whole processes from start to exit, {RUNS} each, nothing kept \
             between them; peak memory of a process as Linux counts it (`VmHWM`).\n\n{}\n\nRequired:\n\n{}",
            machine::describe(),
            required.join("\n")
        ),
        columns: vec!["command", "s, median", "s, slowest", "peak MiB"],
        rows: vec![
            row("opsctl status --json", status),
            row("opsctl drill pod-kill --dry-run", drill),
        ],
    }
}

/// The catalogue of all services, on the one cluster.
fn catalogue(folder: &Path, plane: &ControlPlane) -> Result<()> {
    let mut text = format!(
        "version = 1\n[env.many]\nplatform = \"kubernetes\"\nclusters = [\"played\"]\n[cluster.played]\ncontext = \"admin\"\n\
         server = {:?}\nkubeconfig = {:?}\n[defaults.service]\nkubernetes = {{ namespace = {NAMESPACE:?} }}\n",
        plane.url(),
        plane.kubeconfig().display().to_string()
    );
    text.extend((0..SERVICES).map(|number| format!("[service.service-{number}]\n")));
    let file = folder.join("opsctl.toml");
    fs::write(&file, text)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    Ok(())
}

async fn make(plane: &ControlPlane) -> Result<()> {
    plane.kubectl(&["create", "namespace", NAMESPACE], "").await?;
    let names: Vec<String> = (0..SERVICES).map(|number| format!("service-{number}")).collect();
    for part in names.chunks(AT_ONCE) {
        let items: Vec<Value> = part.iter().map(|name| deployment(name)).collect();
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string();
        plane.kubectl(&["create", "--filename=-"], &list).await?;
    }
    Ok(())
}

fn deployment(name: &str) -> Value {
    let labels = json!({ "app.kubernetes.io/name": name });
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": name, "namespace": NAMESPACE },
        "spec": {
            "replicas": PODS,
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": { "containers": [{ "name": name, "image": format!("opsctl/{name}:1") }] },
            },
        },
    })
}

async fn until_ready(plane: &ControlPlane) -> Result<()> {
    let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments");
    let all = async {
        loop {
            let listed = plane.get(&path).await?.json();
            let deployments = listed["items"].as_array().map_or(&[][..], Vec::as_slice);
            let ready = deployments.iter().filter(|one| one["status"]["readyReplicas"] == PODS);
            if ready.count() == SERVICES {
                return Ok(());
            }
            sleep(Duration::from_secs(2)).await;
        }
    };
    timeout(LIMIT, all).await.context("the pods did not become ready")?
}

/// What several runs of a command came to.
struct Seen {
    /// Seconds.
    median: f64,
    /// Seconds.
    worst: f64,
    /// The most of all runs.
    mib: f64,
}

async fn worst(command: impl Fn() -> Command) -> Result<Seen> {
    let mut times = Vec::with_capacity(RUNS);
    let mut mib = 0_f64;
    for _ in 0..RUNS {
        let cost = process::cost(command()).await?;
        times.push(cost.wall);
        mib = mib.max(cost.mib);
    }
    times.sort_by(f64::total_cmp);
    Ok(Seen {
        median: times[RUNS / 2],
        worst: times[RUNS - 1],
        mib,
    })
}
