//! A whole Kubernetes cluster of one node on this machine: a real kubelet and real containers, with a gateway, names,
//! measurements and a database. It outlives who started it until [`down`] ends it, and then nothing of it is left.
//!
//! There is one a machine, since node and pods have addresses, links and packet filter rules of the machine. It wants root.

mod configuration;
mod database;
mod images;
mod lend;
mod machine;
mod network;
mod objects;
mod processes;
mod removal;
mod start;
mod state;
mod status;
mod tables;

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use rustix::process::Signal;
use tokio::time::Instant;

use self::{
    configuration::{API, GATEWAY_FOR_PODS, PROMETHEUS},
    network::ADDRESS,
    start::aside,
    state::State,
};
pub use self::{
    lend::{Lent, lend},
    status::Part,
};
use crate::{Peer, http, servers::kubernetes::kubectl};

/// The peers that it is made of.
pub const PEERS: &[&str] = &[
    "kubernetes",
    "etcd",
    "containerd",
    "runc",
    "cni-plugins",
    "catatonit",
    "iptables",
    "conntrack",
    "coredns",
    "metrics-server",
    "gateway-api",
    "traefik",
    "prometheus",
    "postgres",
    "kwok",
];

/// Why there is no cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Who asks is not root.
    #[error("a cluster wants root: it makes network links, mounts and control groups")]
    NotRoot,
    /// Programs are not there.
    #[error("{0} is not installed; `cargo xtask peers build {0}` does that", .missing.join(" "))]
    Missing {
        /// Which peers.
        missing: Vec<&'static str>,
    },
    /// Another user's cluster, or one with another cache folder, runs on the machine.
    #[error("a cluster runs already, in {}; there can be one a machine", .folder.display())]
    Another {
        /// Its folder.
        folder: PathBuf,
    },
    /// Pods of someone else run on the machine, and could not be told from the cluster's.
    #[error("another kubelet runs pods on this machine")]
    OtherPods,
    /// None runs.
    #[error("no cluster runs; `cargo xtask cluster up` starts one")]
    None,
    /// Something that had to be done could not be done.
    #[error("could not {what}")]
    Failed {
        /// What.
        what: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A part ended, or was not ready in time.
    #[error("{part} {how}; its log ends:\n{log}")]
    NotReady {
        /// Which part.
        part: String,
        /// What is wrong with it.
        how: &'static str,
        /// The last lines that it wrote.
        log: String,
    },
}

/// A cluster that runs.
#[derive(Clone)]
pub struct Cluster {
    state: State,
    admin: http::Secure,
}

/// Says what was not to be done.
trait While<T> {
    fn while_to(self, what: &str) -> Result<T, ClusterError>;
}

impl<T> While<T> for io::Result<T> {
    fn while_to(self, what: &str) -> Result<T, ClusterError> {
        let what = what.to_owned();
        self.map_err(|source| ClusterError::Failed { what, source })
    }
}

/// Whether who runs this may have a cluster.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Starts a cluster and waits until all of it is ready. Of one that runs, what has ended is started again; what one left that
/// was not ready yet is removed first. At least `played` nodes are played by kwok. `say` is told what has come to pass and
/// when, in seconds since the start.
///
/// When the future is dropped before its end, [`down`] removes what is there by then.
///
/// # Errors
/// When something is missing or does not start; then nothing is left of it.
pub async fn up(played: usize, mut say: impl FnMut(f64, &str)) -> Result<Cluster, ClusterError> {
    if !is_root() {
        return Err(ClusterError::NotRoot);
    }
    let installed = |name: &str| Peer::named(name).and_then(Peer::locate).is_some();
    let missing: Vec<_> = PEERS.iter().copied().filter(|name| !installed(name)).collect();
    if !missing.is_empty() {
        return Err(ClusterError::Missing { missing });
    }
    let begin = Instant::now();
    let mut say = |what: &str| say(begin.elapsed().as_secs_f64(), what);
    let _lock = state::lock().while_to("lock the cluster's folder")?;
    let folder = state::folder();
    if let Some(folder) = processes::clusters().into_iter().find(|other| *other != folder) {
        return Err(ClusterError::Another { folder });
    }
    if network::exists()
        && let Ok(mut cluster) = Cluster::running()
    {
        match start::mend(&mut cluster, played, &mut say).await {
            Ok(()) => return Ok(cluster),
            Err(error) => say(&format!("the cluster that runs cannot be mended: {error}")),
        }
    }
    if folder.exists() || network::exists() {
        say("removing what an earlier cluster left");
        removal::remove(&folder).await?;
    }
    if machine::has_pods() {
        return Err(ClusterError::OtherPods);
    }
    let outcome = start::start(&folder, played, &mut say).await;
    if outcome.is_err() {
        say("removing what was there of it");
        removal::remove(&folder).await?;
    }
    outcome
}

/// Ends the cluster and removes everything of it, also what one left that was killed. Says whether there was one.
///
/// # Errors
/// When something cannot be removed.
pub async fn down() -> Result<bool, ClusterError> {
    let folder = state::folder();
    if !folder.exists() {
        return Ok(false);
    }
    if !is_root() {
        return Err(ClusterError::NotRoot);
    }
    let _lock = state::lock().while_to("lock the cluster's folder")?;
    removal::remove(&folder).await?;
    Ok(true)
}

impl Cluster {
    /// The cluster that was ready and was not ended since; parts of it may have.
    ///
    /// # Errors
    /// When there is none.
    pub fn running() -> Result<Self, ClusterError> {
        let state = State::read(&state::folder()).filter(|state| state.whole);
        Self::of(state.ok_or(ClusterError::None)?).map_err(|_| ClusterError::None)
    }

    fn of(state: State) -> io::Result<Self> {
        let file = |name: &str| state.file(name);
        let admin = http::Secure::read(&file("ca.pem"), &file("client.pem"), &file("client.key"))?;
        Ok(Self { state, admin })
    }

    /// The kubeconfig of the user `admin`. Its only context is called `opsctl`.
    pub fn kubeconfig(&self) -> PathBuf {
        self.state.file("admin.kubeconfig")
    }

    /// Where the API server listens.
    pub fn server(&self) -> String {
        format!("https://{ADDRESS}:{API}")
    }

    /// Where the gateway listens for clients on this machine.
    pub fn gateway(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.state.gateway).into()
    }

    /// Where Prometheus listens.
    pub fn prometheus(&self) -> SocketAddr {
        status::at(ADDRESS, PROMETHEUS)
    }

    /// What one sets in a shell to use the cluster.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("KUBECONFIG", self.kubeconfig().display().to_string()),
            // kubectl would keep what it knows of the cluster in the home directory, where nobody removes it.
            ("KUBECACHEDIR", self.state.file("kubectl").display().to_string()),
            ("OPSCTL_GATEWAY", format!("http://{}", self.gateway())),
            (
                "OPSCTL_GATEWAY_FOR_PODS",
                format!("http://{ADDRESS}:{GATEWAY_FOR_PODS}"),
            ),
            ("PROMETHEUS_URL", format!("http://{}", self.prometheus())),
            ("POSTGRES_URL", database::url_of_superuser(&self.state)),
            (
                "CONTAINERD_ADDRESS",
                self.state.file("containerd.sock").display().to_string(),
            ),
            ("CONTAINERD_NAMESPACE", "k8s.io".to_owned()),
        ]
    }

    /// Hands an image tar to the node, such as [`Image`](crate::Image) writes.
    ///
    /// # Errors
    /// When it cannot be read, or is no image.
    pub async fn load_image(&self, path: &Path) -> Result<(), ClusterError> {
        let what = format!("load {}", path.display());
        let path = fs::canonicalize(path).while_to(&what)?;
        aside(&self.state, &what, move |state| images::import(state, &path)).await
    }

    /// Kills the processes of a part, such as `kube-apiserver`, at once. [`up`] starts it again.
    pub fn kill(&self, part: &str) {
        self.signal(part, Signal::KILL);
    }

    /// Lets a part hang: its connections stay open and nothing answers, until [`resume`](Self::resume).
    pub fn pause(&self, part: &str) {
        self.signal(part, Signal::STOP);
    }

    /// Lets a paused part go on.
    pub fn resume(&self, part: &str) {
        self.signal(part, Signal::CONT);
    }

    fn signal(&self, part: &str, signal: Signal) {
        processes::signal(&self.state.folder, signal, |member| member.part == part);
    }

    /// Runs `kubectl` as `admin` with `input` as its standard input, and returns what it wrote.
    ///
    /// # Errors
    /// When it does not succeed, with what it complained about.
    pub async fn kubectl(&self, arguments: &[&str], input: &str) -> io::Result<String> {
        kubectl(&self.state.folder, arguments, input).await
    }

    /// `GET path` of the API, as `admin`.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub async fn get(&self, path: &str) -> io::Result<http::Answer> {
        self.admin.get(status::at(ADDRESS, API), path).await
    }

    async fn apply(&self, objects: serde_json::Value) -> Result<(), ClusterError> {
        let arguments = ["apply", "--server-side", "--filename=-"];
        let applied = self.kubectl(&arguments, &objects.to_string()).await;
        applied
            .map(drop)
            .while_to("tell the API server of the cluster's objects")
    }
}
