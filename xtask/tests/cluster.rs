//! `cargo xtask cluster`: the cluster that it starts is a real one, and of none that it ends is anything left.
#![expect(clippy::unwrap_used, reason = "a test ends where it is surprised")]

#[path = "cluster/machine.rs"]
mod machine;

use std::{
    io::{BufRead, BufReader},
    net::{Ipv4Addr, UdpSocket},
    os::unix::fs::symlink,
    process::{Command, Output, Stdio},
    time::Duration,
};

use machine::Machine;
use peers::{Image, http};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    sync::{Mutex, MutexGuard},
    time::{Instant, sleep},
};

/// There is one machine.
static MACHINE: Mutex<()> = Mutex::const_new(());

/// What a cluster with pods changes on a machine.
const EVERYTHING: [&str; 6] = [
    "processes",
    "mounts",
    "network namespaces",
    "links",
    "rules",
    "control groups",
];

/// A cache folder of its own, with the programs of the real one: no cluster of someone else is touched.
struct Place {
    cache: TempDir,
    _machine: MutexGuard<'static, ()>,
}

impl Place {
    /// `None` after saying that `test` is skipped, where no cluster can be.
    async fn new(test: &str) -> Option<Self> {
        for peer in peers::cluster::PEERS {
            peers::peer(peer, test)?;
        }
        if !peers::cluster::is_root() {
            peers::skip(test, "a cluster wants root");
            return None;
        }
        let machine = MACHINE.lock().await;
        let cache = tempfile::tempdir().unwrap();
        std::fs::create_dir(cache.path().join("opsctl")).unwrap();
        symlink(peers::cache(), cache.path().join("opsctl/peers")).unwrap();
        Some(Self {
            cache,
            _machine: machine,
        })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command
            .arg("cluster")
            .args(arguments)
            .env("XDG_CACHE_HOME", self.cache.path());
        command
    }

    fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "cluster {arguments:?}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What `cluster env` sets `name` to.
    fn variable(&self, name: &str) -> String {
        let text = self.succeeds(&["env"]);
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("export {name}='")));
        line.unwrap_or_else(|| panic!("no {name} in {text}"))
            .trim_end_matches('\'')
            .to_owned()
    }

    /// Runs kubectl as someone does who followed `cluster env`.
    fn kubectl(&self, arguments: &[&str], input: &Value) -> Result<String, String> {
        let program = peers::Peer::named("kubectl").unwrap().program("kubectl").unwrap();
        let file = self.cache.path().join("objects.json");
        std::fs::write(&file, input.to_string()).unwrap();
        let output = Command::new(program)
            .args(arguments)
            .stdin(std::fs::File::open(file).unwrap())
            .env("KUBECONFIG", self.variable("KUBECONFIG"))
            .env("KUBECACHEDIR", self.variable("KUBECACHEDIR"))
            .output()
            .unwrap();
        if output.status.success() {
            Ok(said(&output))
        } else {
            Err(said(&output))
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A test that failed in the middle leaves nothing either.
        let _ = self.command(&["down"]).output();
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !condition().await {
        assert!(Instant::now() < deadline, "never seen: {what}");
        sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn pods_serve_through_the_gateway_and_two_rounds_leave_nothing() {
    let test = "pods_serve_through_the_gateway_and_two_rounds_leave_nothing";
    let Some(place) = Place::new(test).await else {
        return;
    };
    let before = Machine::now(place.cache.path());
    place.succeeds(&["up"]);
    let again = place.succeeds(&["up"]);
    assert!(again.contains("runs already"), "{again}");
    let status: Value = serde_json::from_str(&place.succeeds(&["status", "--json"])).unwrap();
    let parts = status["parts"].as_array().unwrap();
    assert_eq!(parts.len(), 12, "{status:#}");
    assert!(parts.iter().all(|part| part["ready"] == true), "{status:#}");
    serve(&place).await;
    names_lead_to_the_database().await;
    Machine::now(place.cache.path()).is_different_from(&before, &EVERYTHING);
    place.succeeds(&["down"]);
    Machine::now(place.cache.path()).is_as(&before);
    assert!(place.succeeds(&["down"]).contains("no cluster runs"));

    place.succeeds(&["up", "--kwok-nodes", "2"]);
    place.succeeds(&["up", "--kwok-nodes", "3"]);
    let nodes = place.kubectl(&["get", "nodes", "--output=name"], &Value::Null).unwrap();
    assert_eq!(nodes.lines().count(), 4, "{nodes}");
    serve(&place).await;
    for part in ["kube-apiserver", "traefik", "postgres"] {
        kill(&place, part).await;
    }
    let mended = place.succeeds(&["up"]);
    assert!(mended.contains("traefik has ended; starting it again"), "{mended}");
    serve(&place).await;
    // The worst end: nobody is there any more who could tidy up.
    for part in ["kubelet", "containerd", "kube-apiserver"] {
        kill(&place, part).await;
    }
    place.succeeds(&["down"]);
    Machine::now(place.cache.path()).is_as(&before);
}

/// Kills a part's process.
async fn kill(place: &Place, part: &str) {
    let status: Value = serde_json::from_str(&place.succeeds(&["status", "--json"])).unwrap();
    let parts = status["parts"].as_array().unwrap();
    let pid = parts.iter().find(|found| found["name"] == part).unwrap()["pid"].to_string();
    assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
    // Its ports are free once it is gone.
    let process = std::path::Path::new("/proc").join(pid);
    let deadline = Instant::now() + Duration::from_secs(10);
    while process.exists() {
        assert!(Instant::now() < deadline, "{part} does not end");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Loads an image, runs two pods of it, and asks them through the gateway and by Prometheus.
async fn serve(place: &Place) {
    let coredns = peers::Peer::named("coredns").unwrap().locate().unwrap();
    let tar = place.cache.path().join("hello.tar");
    let image = Image::new("opsctl/hello:1").user(65532).usual("hello");
    let image = image.file(coredns, "/hello", 0o755).entrypoint(["/hello"]);
    let corefile = ".:1053 {\n  health :8080\n  prometheus :9153\n  whoami\n}\n";
    image.text("/etc/hello", corefile, 0o644).write(&tar).unwrap();
    place.succeeds(&["load-image", &tar.display().to_string()]);
    place.kubectl(&["apply", "--filename=-"], &hello()).unwrap();
    place
        .kubectl(
            &[
                "rollout",
                "status",
                "--namespace=shop",
                "deployment/hello",
                "--timeout=60s",
            ],
            &Value::Null,
        )
        .unwrap();
    let logs = place
        .kubectl(&["logs", "--namespace=shop", "deployment/hello"], &Value::Null)
        .unwrap();
    assert!(logs.contains("CoreDNS"), "{logs}");
    let gateway = place.variable("OPSCTL_GATEWAY");
    let gateway = gateway.trim_start_matches("http://").parse().unwrap();
    eventually("the pods answer through the gateway", async || {
        let headers = [("Host", "hello.shop.local")];
        let answer = http::send(gateway, "GET", "/health", &headers, "").await;
        answer.is_ok_and(|answer| answer.status == 200 && answer.body == "OK")
    })
    .await;
    let prometheus = place.variable("PROMETHEUS_URL");
    let prometheus = prometheus.trim_start_matches("http://").parse().unwrap();
    let finds = async |query: &str| {
        let path = format!("/api/v1/query?query={}", http::encode(query));
        let answer = http::get(prometheus, &path).await;
        answer.is_ok_and(|answer| {
            answer.json()["data"]["result"]
                .as_array()
                .is_some_and(|found| !found.is_empty())
        })
    };
    for query in [
        r#"count(up{job="pods",namespace="shop",service="hello",version="1",track="stable",pod=~"hello-.+"} == 1) == 2"#,
        r#"traefik_service_requests_total{service=~".*hello.*",code="200"} > 0"#,
        r#"container_memory_working_set_bytes{namespace="shop",pod=~"hello-.+"} > 0"#,
    ] {
        eventually(query, async || finds(query).await).await;
    }
    eventually("metrics-server knows what the node uses", async || {
        place.kubectl(&["top", "nodes"], &Value::Null).is_ok()
    })
    .await;
}

fn hello() -> Value {
    let labels = json!({
        "app.kubernetes.io/name": "hello", "app.kubernetes.io/version": "1", "opsctl.dev/track": "stable",
    });
    let selector = json!({ "app.kubernetes.io/name": "hello" });
    let metadata = json!({ "name": "hello", "namespace": "shop" });
    let scraped =
        json!({ "prometheus.io/scrape": "true", "prometheus.io/port": "9153", "prometheus.io/path": "/metrics" });
    let deployment = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": 2,
            "selector": { "matchLabels": selector },
            "template": {
                "metadata": { "labels": labels, "annotations": scraped },
                "spec": { "containers": [{
                    "name": "hello",
                    "image": "opsctl/hello:1",
                    "imagePullPolicy": "Never",
                    "args": ["-conf", "/etc/hello"],
                    "readinessProbe": { "httpGet": { "path": "/health", "port": 8080 }, "periodSeconds": 1 },
                    "securityContext": { "runAsNonRoot": true, "readOnlyRootFilesystem": true },
                }] },
            },
        },
    });
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": { "selector": selector, "ports": [{ "port": 80, "targetPort": 8080 }] },
    });
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": metadata,
        "spec": {
            "parentRefs": [{ "name": "gateway", "namespace": "opsctl" }],
            "hostnames": ["hello.shop.local"],
            "rules": [{ "backendRefs": [{ "name": "hello", "port": 80 }] }],
        },
    });
    json!({ "apiVersion": "v1", "kind": "List", "items": [deployment, service, route] })
}

/// The cluster's own names, asked for at the address that pods ask, and the address that they stand for.
async fn names_lead_to_the_database() {
    let address = resolve("postgres.shop.svc.cluster.local").expect("the database has a name");
    TcpStream::connect((address, 5432))
        .await
        .expect("the Service leads to the host");
    let gateway = resolve("payments.shop.local");
    assert_eq!(
        gateway,
        Some(Ipv4Addr::new(10, 250, 0, 1)),
        "what routes are called is the gateway"
    );
}

/// Asks 10.96.0.10 for the address of `name`, with a question in DNS's wire format.
fn resolve(name: &str) -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    // Number 1, recursion desired, one question; of type A and class IN.
    let mut question = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0".to_vec();
    for label in name.split('.') {
        question.push(u8::try_from(label.len()).unwrap());
        question.extend(label.as_bytes());
    }
    question.extend(b"\0\0\x01\0\x01");
    socket.send_to(&question, "10.96.0.10:53").unwrap();
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).unwrap();
    // The only record that is asked for ends with four bytes of address; more may follow it.
    let answers = u16::from_be_bytes([answer[6], answer[7]]);
    let record = answer[question.len()..length]
        .windows(4)
        .position(|bytes| bytes == b"\0\x01\0\x01")?;
    let address = question.len() + record + 10;
    let address: [u8; 4] = answer.get(address..address + 4)?.try_into().ok()?;
    (answers > 0).then(|| Ipv4Addr::from(address))
}

#[tokio::test]
async fn a_start_that_is_interrupted_or_killed_leaves_nothing() {
    let test = "a_start_that_is_interrupted_or_killed_leaves_nothing";
    let Some(place) = Place::new(test).await else {
        return;
    };
    let before = Machine::now(place.cache.path());
    let interrupted = start_and_signal(&place, "-INT");
    assert_eq!(interrupted.code(), Some(1));
    Machine::now(place.cache.path()).is_as(&before);

    let killed = start_and_signal(&place, "-KILL");
    assert_eq!(killed.code(), None);
    let status = place.command(&["status"]).output().unwrap();
    assert!(
        said(&status).contains("cargo xtask cluster up"),
        "half a cluster is none: {}",
        said(&status)
    );
    Machine::now(place.cache.path()).is_different_from(&before, &["processes"]);
    let up = place.succeeds(&["up"]);
    assert!(up.contains("removing what an earlier cluster left"), "{up}");
    place.succeeds(&["down"]);
    Machine::now(place.cache.path()).is_as(&before);
}

/// Starts a cluster, and sends the process that does so a signal once pods may run.
fn start_and_signal(place: &Place, signal: &str) -> std::process::ExitStatus {
    let mut up = place.command(&["up"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(up.stdout.take().unwrap()).lines();
    let mut lines = lines.map_while(Result::ok);
    lines
        .find(|line| line.contains("kubelet is ready"))
        .expect("the kubelet gets ready");
    let pid = up.id().to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    lines.for_each(drop);
    up.wait().unwrap()
}

#[test]
fn what_is_missing_is_told_with_what_to_do() {
    let empty = tempfile::tempdir().unwrap();
    let task = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command
            .arg("cluster")
            .args(arguments)
            .env("XDG_CACHE_HOME", empty.path())
            .output()
            .unwrap()
    };
    for arguments in [["status"], ["env"]] {
        let none = task(&arguments);
        assert_eq!(none.status.code(), Some(1));
        assert!(
            said(&none).contains("`cargo xtask cluster up` starts one"),
            "{}",
            said(&none)
        );
    }
    let up = task(&["up"]);
    assert_eq!(up.status.code(), Some(1));
    let told = if peers::cluster::is_root() {
        "cargo xtask peers build kubernetes etcd"
    } else {
        "wants root"
    };
    assert!(said(&up).contains(told), "{}", said(&up));
    assert!(!empty.path().join("opsctl/cluster").exists(), "nothing was begun");
}
