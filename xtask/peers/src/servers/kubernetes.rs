//! Kubernetes' control plane alone, without a node: what a test of a client needs. Controllers, scheduler and nodes
//! that are played by kwok are there on demand; no container ever runs.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt,
    process::Command,
    time::{Instant, sleep},
};

use super::program;
use crate::{
    Place, Port, Program, Ready, Recipe, Server, Tree,
    certificates::{Authority, Subject, kubeconfig, token_keys, write_private},
    http,
};

/// What kwok plays.
pub(crate) const STAGES: &str = include_str!("kwok.yaml");
/// How long controllers and nodes may take until they are there.
const START_WITHIN: Duration = Duration::from_mins(1);
/// How often it is looked whether something has come to pass.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Who signs every certificate here.
pub(crate) const AUTHORITY: &str = "kubernetes";
/// What marks a node that kwok plays.
const PLAYED: &str = "kwok.x-k8s.io/node";

/// An etcd and a kube-apiserver, and what is to be beside them. Port: `https`.
///
/// Without controllers a Deployment makes no pods, and a pod needs no service account.
#[derive(Debug, Clone, Copy, Default)]
pub struct Kubernetes {
    controllers: bool,
    scheduler: bool,
    nodes: usize,
}

impl Kubernetes {
    /// With the controllers: Deployments make pods, namespaces end, budgets are counted.
    #[must_use]
    pub fn controllers(mut self) -> Self {
        self.controllers = true;
        self
    }

    /// With so many nodes played by kwok, on which pods are scheduled and become ready at once. Brings the controllers.
    #[must_use]
    pub fn nodes(mut self, nodes: usize) -> Self {
        self.controllers = true;
        self.scheduler = true;
        self.nodes = nodes;
        self
    }
}

impl Recipe for Kubernetes {
    fn peer(&self) -> &'static str {
        "kubernetes"
    }

    fn ports(&self) -> &'static [Port] {
        const {
            &[
                Port {
                    name: "https",
                    url: "https://{}",
                },
                Port::http("etcd"),
                Port::http("etcd-peer"),
            ]
        }
    }

    fn prepare(&self, place: &Place) -> io::Result<Vec<Program>> {
        let folder = place.folder();
        let authority = Authority::new(AUTHORITY)?;
        write_private(&folder.join("ca.pem"), &authority.certificate())?;
        write_private(&folder.join("ca.key"), authority.key())?;
        let server = Subject {
            name: "kube-apiserver",
            hosts: &["127.0.0.1", "localhost", "kubernetes.default.svc", "10.96.0.1"],
            ..Subject::default()
        };
        authority.sign(server)?.write(folder, "server")?;
        let (private, public) = token_keys()?;
        write_private(&folder.join("tokens.key"), &private)?;
        write_private(&folder.join("tokens.pub"), &public)?;
        let admin = Subject {
            name: "admin",
            groups: &["system:masters"],
            ..Subject::default()
        };
        let admin = authority.sign(admin)?;
        admin.write(folder, "client")?;
        place.write("kwok.yaml", STAGES)?;
        let server = format!("https://{}", place.address("https"));
        let admin = kubeconfig("admin", &server, &authority.certificate(), &admin);
        write_private(&folder.join("admin.kubeconfig"), &admin)?;

        let etcd = Program::new(program("etcd")?)
            .arg("--data-dir")
            .arg(folder.join("etcd"))
            .args(etcd_flags(place.port("etcd"), place.port("etcd-peer")));
        let mut apiserver = Program::new(program("kube-apiserver")?)
            .args(apiserver_flags(folder, place.port("etcd")))
            .arg(format!("--secure-port={}", place.port("https")))
            // Loopback is no address for the endpoint of the API inside of a cluster, and nobody is inside.
            .args(["--bind-address=127.0.0.1", "--endpoint-reconciler-type=none"]);
        if !self.controllers {
            // Nobody makes the account that this would give to each pod.
            apiserver = apiserver.arg("--disable-admission-plugins=ServiceAccount");
        }
        Ok(vec![etcd, apiserver])
    }

    fn ready(&self) -> Ready {
        Ready::Https {
            port: "https",
            path: "/readyz",
        }
    }
}

/// How etcd is run: on loopback, and without waiting for the disk, since what a process wrote outlives its kill.
pub(crate) fn etcd_flags(port: u16, peer_port: u16) -> [String; 8] {
    let (client, peer) = (
        format!("http://127.0.0.1:{port}"),
        format!("http://127.0.0.1:{peer_port}"),
    );
    [
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        "--auto-compaction-retention=10m".to_owned(),
    ]
}

/// How kube-apiserver is run with the certificates and keys in `folder`: nobody is anonymous, roles decide.
pub(crate) fn apiserver_flags(folder: &Path, etcd_port: u16) -> Vec<String> {
    let file = |flag: &str, name: &str| format!("--{flag}={}", folder.join(name).display());
    vec![
        format!("--etcd-servers=http://127.0.0.1:{etcd_port}"),
        file("client-ca-file", "ca.pem"),
        file("tls-cert-file", "server.pem"),
        file("tls-private-key-file", "server.key"),
        file("service-account-key-file", "tokens.pub"),
        file("service-account-signing-key-file", "tokens.key"),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--anonymous-auth=false".to_owned(),
        "--allow-privileged=true".to_owned(),
        "--profiling=false".to_owned(),
    ]
}

/// How kube-controller-manager is run with the keys in `folder`. A thousand Deployments made at once are no reason to wait.
pub(crate) fn controllers_flags(folder: &Path) -> Vec<String> {
    let file = |flag: &str, name: &str| format!("--{flag}={}", folder.join(name).display());
    vec![
        file("kubeconfig", "admin.kubeconfig"),
        file("root-ca-file", "ca.pem"),
        file("service-account-private-key-file", "tokens.key"),
        "--use-service-account-credentials".to_owned(),
        "--leader-elect=false".to_owned(),
        "--secure-port=0".to_owned(),
        "--kube-api-qps=1000".to_owned(),
        "--kube-api-burst=2000".to_owned(),
        "--concurrent-deployment-syncs=20".to_owned(),
        "--concurrent-replicaset-syncs=20".to_owned(),
    ]
}

/// How kube-scheduler is run with the kubeconfig in `folder`.
pub(crate) fn scheduler_flags(folder: &Path) -> Vec<String> {
    vec![
        format!("--kubeconfig={}", folder.join("admin.kubeconfig").display()),
        "--leader-elect=false".to_owned(),
        "--secure-port=0".to_owned(),
        "--kube-api-qps=1000".to_owned(),
        "--kube-api-burst=2000".to_owned(),
    ]
}

/// How kwok is run with the stages in `folder`: it plays the nodes that say so, and no other.
pub(crate) fn kwok_flags(folder: &Path) -> Vec<String> {
    vec![
        format!("--kubeconfig={}", folder.join("admin.kubeconfig").display()),
        format!("--config={}", folder.join("kwok.yaml").display()),
        format!("--manage-nodes-with-annotation-selector={PLAYED}=fake"),
        "--node-lease-duration-seconds=40".to_owned(),
        "--cidr=10.128.0.0/16".to_owned(),
    ]
}

/// A node for kwok to play, called `kwok-NUMBER`.
pub(crate) fn played_node(number: usize) -> Value {
    let name = format!("kwok-{number}");
    let room = json!({ "cpu": "64", "memory": "256Gi", "pods": "1000" });
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": { PLAYED: "fake" },
            "labels": { "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "type": "kwok" },
        },
        "status": { "allocatable": room, "capacity": room },
    })
}

/// A control plane for one test: on free loopback ports, gone with the value, and gone too when the test is killed.
pub struct ControlPlane {
    // Dropped before the server that they ask, and the folder that they run in.
    beside: Vec<Tree>,
    server: Server,
    client: http::Secure,
}

impl ControlPlane {
    /// Starts etcd and kube-apiserver for `test` and waits until they are ready; `None` after saying that the test is
    /// skipped because they are not installed.
    ///
    /// # Panics
    /// When they are missing although peers are required, and with the end of the log when they do not start.
    pub async fn start(test: &str) -> Option<Self> {
        Self::start_with(Kubernetes::default(), test).await
    }

    /// As [`start`](Self::start), with what `recipe` says beside them.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn start_with(recipe: Kubernetes, test: &str) -> Option<Self> {
        crate::peer("etcd", test)?;
        if recipe.nodes > 0 {
            crate::peer("kwok", test)?;
        }
        let server = Server::start(recipe, test).await?;
        let file = |name| server.folder().join(name);
        let client = http::Secure::read(&file("ca.pem"), &file("client.pem"), &file("client.key"));
        let mut plane = Self {
            beside: Vec::new(),
            client: client.expect("the server was asked with the same files"),
            server,
        };
        if let Err(error) = plane.start_beside(&recipe).await {
            let log = plane.server.log_tail();
            panic!("{test} cannot run: {error}; the log ends:\n{log}");
        }
        Some(plane)
    }

    async fn start_beside(&mut self, recipe: &Kubernetes) -> io::Result<()> {
        let folder = self.server.folder().to_owned();
        let mut start = |name: &str, flags: Vec<String>| -> io::Result<()> {
            let program = Program::new(program(name)?).args(flags);
            self.beside.push(self.server.beside(&program)?);
            Ok(())
        };
        if recipe.controllers {
            start("kube-controller-manager", controllers_flags(&folder))?;
        }
        if recipe.scheduler {
            start("kube-scheduler", scheduler_flags(&folder))?;
        }
        if recipe.nodes > 0 {
            start("kwok", kwok_flags(&folder))?;
            let nodes: Vec<_> = (0..recipe.nodes).map(played_node).collect();
            let list = json!({ "apiVersion": "v1", "kind": "List", "items": nodes });
            self.kubectl(&["apply", "--filename=-"], &list.to_string()).await?;
        }
        // What the API server and the controllers make by themselves, and a test would soon miss.
        let account = if recipe.controllers {
            "/serviceaccounts/default"
        } else {
            ""
        };
        let path = format!("/api/v1/namespaces/default{account}");
        self.until("the namespace `default` is there", async || {
            self.get(&path).await.is_ok_and(|answer| answer.status == 200)
        })
        .await?;
        self.until("every node is ready", async || {
            recipe.nodes == 0 || self.ready_nodes().await == recipe.nodes
        })
        .await
    }

    async fn until(&self, what: &str, mut condition: impl AsyncFnMut() -> bool) -> io::Result<()> {
        let deadline = Instant::now() + START_WITHIN;
        while !condition().await {
            if Instant::now() > deadline {
                return Err(io::Error::new(io::ErrorKind::TimedOut, format!("never seen: {what}")));
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    async fn ready_nodes(&self) -> usize {
        let Ok(answer) = self.get("/api/v1/nodes").await else {
            return 0;
        };
        let nodes = answer.json();
        let ready = |node: &&Value| {
            let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
            conditions
                .filter(|condition| condition["type"] == "Ready")
                .any(|condition| condition["status"] == "True")
        };
        nodes["items"].as_array().into_iter().flatten().filter(ready).count()
    }

    /// The kubeconfig of the user `admin`, who may do everything. Its context is called `admin`.
    pub fn kubeconfig(&self) -> PathBuf {
        self.server.folder().join("admin.kubeconfig")
    }

    /// Where the API server listens: `https://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        self.server.url("https")
    }

    /// The certificate, as PEM, of who signed the API server's.
    pub fn ca(&self) -> PathBuf {
        self.server.folder().join("ca.pem")
    }

    /// The folder with certificates, data and log, which is gone with the value.
    pub fn folder(&self) -> &Path {
        self.server.folder()
    }

    /// etcd and API server: to pause, kill, stop or start them again. The controllers wait for them.
    pub fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    /// A kubeconfig of the user `name` in `groups`, who may do what the roles bound to them say.
    ///
    /// # Errors
    /// What the file system says.
    pub fn kubeconfig_of(&self, name: &str, groups: &[&str]) -> io::Result<PathBuf> {
        let subject = Subject {
            name,
            groups,
            ..Subject::default()
        };
        self.kubeconfig_with(subject)
    }

    /// A kubeconfig of `admin` whose certificate ended long ago.
    ///
    /// # Errors
    /// What the file system says.
    pub fn kubeconfig_expired(&self) -> io::Result<PathBuf> {
        let subject = Subject {
            name: "expired",
            groups: &["system:masters"],
            expired: true,
            ..Subject::default()
        };
        self.kubeconfig_with(subject)
    }

    fn kubeconfig_with(&self, subject: Subject<'_>) -> io::Result<PathBuf> {
        let authority = Authority::again(AUTHORITY, &fs::read_to_string(self.folder().join("ca.key"))?)?;
        let path = self.folder().join(format!("{}.kubeconfig", subject.name));
        let user = authority.sign(subject)?;
        let trusted = fs::read_to_string(self.ca())?;
        write_private(&path, &kubeconfig(subject.name, &self.url(), &trusted, &user))?;
        Ok(path)
    }

    /// `GET path` of the API, as `admin`.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub async fn get(&self, path: &str) -> io::Result<http::Answer> {
        self.client.get(self.server.address("https"), path).await
    }

    /// Runs `kubectl` as `admin` with `input` as its standard input, and returns what it wrote.
    ///
    /// # Errors
    /// When it does not succeed, with what it complained about.
    pub async fn kubectl(&self, arguments: &[&str], input: &str) -> io::Result<String> {
        kubectl(self.folder(), arguments, input).await
    }
}

/// Runs `kubectl` with `admin.kubeconfig` of `folder` and with `input` as its standard input, and returns what it wrote.
pub(crate) async fn kubectl(folder: &Path, arguments: &[&str], input: &str) -> io::Result<String> {
    let mut command = Command::new(program("kubectl")?);
    command
        .arg("--kubeconfig")
        .arg(folder.join("admin.kubeconfig"))
        .arg("--cache-dir")
        .arg(folder.join("kubectl"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // It may end without reading; its complaint says why.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let output = child.wait_with_output().await?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let shown = arguments.join(" ");
    Err(io::Error::other(format!("`kubectl {shown}`: {}", complaint.trim())))
}
