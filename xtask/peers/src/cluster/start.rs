//! How a cluster is started, in the order in which its parts need each other, and how one that lost a part is mended.

use std::{fs, io, path::Path, time::Duration};

use serde_json::json;
use tokio::{
    sync::RwLock,
    time::{Instant, sleep},
};

use super::{
    Cluster, ClusterError, While, configuration, database, images, machine, network, objects, processes,
    state::State,
    status::{Kind, PARTS},
};
use crate::{Peer, servers::kubernetes::played_node};

/// How long a part may take until it is ready. Machines that build something beside it are slow.
const READY_WITHIN: Duration = Duration::from_mins(2);
/// How often it is looked whether something has come to pass.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How much of a log an error shows, in lines.
const LOG_TAIL: usize = 20;

/// Starts a cluster in `folder`, where nothing is.
pub(super) async fn start(folder: &Path, played: usize, say: &mut impl FnMut(&str)) -> Result<Cluster, ClusterError> {
    fs::create_dir_all(folder).while_to("make the cluster's folder")?;
    machine::remember(folder).while_to("write down how the machine is")?;
    let state = State::choose(folder).while_to("choose ports")?;
    state.write().while_to("keep the settings")?;
    network::make().while_to("make the node's network")?;
    configuration::write(&state).while_to("write the configuration")?;
    for part in ["etcd", "kube-apiserver", "containerd"] {
        run(&state, part)?;
    }
    let mut cluster = Cluster::of(state).while_to("read the certificates")?;
    let state = &cluster.state;
    // The images and the database are made while the API server starts.
    let making = aside(state, "make the images", |state| {
        images::write(state)?;
        database::make(state)
    });
    let mut not_yet = |_: &str| {};
    tokio::try_join!(cluster.becomes_ready(vec!["kube-apiserver"], &mut not_yet), making)?;
    say("the control plane is ready");
    for part in [
        "kube-controller-manager",
        "kube-scheduler",
        "kubelet",
        "kube-proxy",
        "prometheus",
        "postgres",
    ] {
        run(state, part)?;
    }
    let importing = aside(state, "import the images", |state| {
        for image in ["pause", "coredns", "metrics-server"] {
            images::import(state, &state.file(&format!("images/{image}.tar")))?;
        }
        Ok(())
    });
    let definitions = Peer::named("gateway-api").and_then(Peer::locate).unwrap_or_default();
    let definitions = definitions.display().to_string();
    let founding = cluster.apply(objects::foundation(state));
    let opening = async {
        let arguments = ["apply", "--server-side", "--filename", &definitions];
        let told = cluster.kubectl(&arguments, "").await;
        told.while_to("define the gateway's objects")?;
        run(state, "traefik")?;
        let established = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"];
        let told = cluster.kubectl(&established, "").await;
        told.while_to("define the gateway's objects")?;
        cluster.apply(objects::gateway(state)).await
    };
    let everything = PARTS.iter().map(|(part, _)| *part).filter(|part| *part != "kwok");
    let ready = cluster.becomes_ready(everything.collect(), say);
    tokio::try_join!(importing, founding, opening, ready)?;
    cluster.state.whole = true;
    cluster.state.write().while_to("keep the settings")?;
    cluster.play(played, say).await?;
    Ok(cluster)
}

/// Starts again what has ended of a cluster that runs, and has more nodes played if there are to be.
pub(super) async fn mend(cluster: &mut Cluster, played: usize, say: &mut impl FnMut(&str)) -> Result<(), ClusterError> {
    let state = &cluster.state;
    let members = processes::members(&state.folder);
    let runs = |part: &str| members.iter().any(|member| member.part == part);
    let wanted = PARTS
        .iter()
        .filter(|(part, kind)| *kind == Kind::Process && (*part != "kwok" || state.played > 0));
    let ended: Vec<&str> = wanted.map(|(part, _)| *part).filter(|part| !runs(part)).collect();
    if ended.is_empty() {
        say("the cluster runs already");
    }
    for part in &ended {
        say(&format!("{part} has ended; starting it again"));
        run(state, part)?;
    }
    cluster.becomes_ready(ended, say).await?;
    cluster.play(played, say).await
}

fn run(state: &State, part: &str) -> Result<(), ClusterError> {
    let program = if part == "postgres" {
        database::program()
    } else {
        configuration::program(state, part)
    };
    let started = program.and_then(|program| processes::start(&state.folder, part, &program));
    started.while_to(&format!("start {part}"))
}

/// Held shared by what blocks beside the rest: it cannot be interrupted, so who removes a cluster waits for its end.
pub(super) static ASIDE: RwLock<()> = RwLock::const_new(());

/// Does what blocks beside the rest.
pub(super) async fn aside(
    state: &State,
    what: &str,
    work: impl FnOnce(&State) -> io::Result<()> + Send + 'static,
) -> Result<(), ClusterError> {
    let state = state.clone();
    let held = ASIDE.read().await;
    let work = move || {
        let _held = held;
        work(&state)
    };
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panic| Err(io::Error::other(panic))).while_to(what)
}

impl Cluster {
    /// Has `count` nodes played by kwok, beside the real one. They are tainted, so that only who asks for one gets there.
    ///
    /// # Errors
    /// When kwok does not start.
    pub(super) async fn play(&mut self, count: usize, say: &mut impl FnMut(&str)) -> Result<(), ClusterError> {
        if count <= self.state.played {
            return Ok(());
        }
        if self.state.played == 0 {
            run(&self.state, "kwok")?;
        }
        let nodes = (self.state.played..count).map(|number| {
            let mut node = played_node(number);
            node["spec"] = json!({ "taints": [{ "key": "kwok.x-k8s.io/node", "effect": "NoSchedule" }] });
            node
        });
        self.apply(objects::list(nodes.collect())).await?;
        self.state.played = count;
        self.state.write().while_to("keep the settings")?;
        self.becomes_ready(vec!["kwok"], say).await
    }

    /// Waits until `parts` are ready, those that are yet to be started included.
    async fn becomes_ready(&self, parts: Vec<&str>, say: &mut impl FnMut(&str)) -> Result<(), ClusterError> {
        let deadline = Instant::now() + READY_WITHIN;
        let mut waiting = parts;
        while !waiting.is_empty() {
            let mut still = Vec::new();
            for part in waiting {
                if self.is_ready(part).await {
                    say(&format!("{part} is ready"));
                } else {
                    self.must_be_coming(part, deadline).await?;
                    still.push(part);
                }
            }
            waiting = still;
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// A part that is not ready may still become so.
    async fn must_be_coming(&self, part: &str, deadline: Instant) -> Result<(), ClusterError> {
        let process = PARTS.iter().any(|(name, kind)| *name == part && *kind == Kind::Process);
        let folder = &self.state.folder;
        let started = processes::log(folder, part).exists();
        let absent = || started && !processes::members(folder).iter().any(|member| member.part == part);
        let mut ended = absent();
        if ended {
            // While a process becomes another program, nothing can be read of it.
            sleep(LOOK_EVERY).await;
            ended = absent();
        }
        if !ended && Instant::now() < deadline {
            return Ok(());
        }
        // What runs in a pod is the kubelet's to tell of.
        let log = processes::log(folder, if process { part } else { "kubelet" });
        let log = fs::read(log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        Err(ClusterError::NotReady {
            part: part.to_owned(),
            how: if ended { "ended" } else { "is not ready in time" },
            log: lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n"),
        })
    }
}
