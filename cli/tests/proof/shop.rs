//! The four services on the cluster, from their images, by their Helm chart, on PostgreSQL; and a project folder whose
//! environment is there.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use opsctl_load::{Request, Target};
use peers::cluster::Lent;
use peers::http;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::sandbox::{Ran, Sandbox};
use crate::traffic::Traffic;
use crate::turn::Turn;

/// Where `cargo xtask prove` has put the images.
const PACKAGES: &str = "OPSCTL_PACKAGES";
/// What the chart installs.
pub const SERVICES: [&str; 4] = ["identity", "orders", "payments", "notifications"];
/// How long anything may take to show.
pub const LIMIT: Duration = Duration::from_mins(4);

/// The cluster, and whether the shop was installed there.
static CLUSTER: OnceCell<Option<Lent>> = OnceCell::const_new();
static INSTALLED: OnceCell<()> = OnceCell::const_new();

/// The services on the cluster, of which a test has some for itself.
pub struct Shop {
    pub cluster: &'static Lent,
    pub sandbox: Sandbox,
    _turn: Turn,
}

impl Shop {
    /// The shop as its chart says, every pod ready, with `parts` of it for this test alone. `None` after saying that `test`
    /// is skipped, where none can be.
    pub async fn open(test: &str, parts: &[&str]) -> Option<Self> {
        let Some(packages) = std::env::var_os(PACKAGES).map(PathBuf::from) else {
            peers::skip(test, "the images are not there; `cargo xtask prove` makes them");
            return None;
        };
        let helm = peers::peer("helm", test)?;
        let shop = Self {
            cluster: CLUSTER.get_or_init(|| peers::cluster::lend(test)).await.as_ref()?,
            sandbox: Sandbox::new(),
            _turn: Turn::take(parts).await,
        };
        shop.write_catalogue();
        INSTALLED.get_or_init(|| shop.set_up(&packages, &helm)).await;
        shop.tidy(parts).await;
        Some(shop)
    }

    /// Images, rights, keys and the chart.
    async fn set_up(&self, packages: &Path, helm: &Path) {
        self.load(packages).await;
        let role = self.opsctl(&["rbac", "--for", "drill,canary"]).await.ended(0);
        let taken = self.cluster.kubectl(&["apply", "--filename=-"], &role.stdout).await;
        taken.expect("kubectl takes the role");
        self.keys(packages).await;
        // What runs of an earlier process left behind.
        for service in SERVICES {
            self.opsctl(&["deploy", "abort", service]).await.ended(0);
        }
        self.recover().await;
        let began = Instant::now();
        self.install(helm, &[]).await;
        println!("the services run in pods after {:.1?}", began.elapsed());
    }

    /// What a test left behind, as it does when it fails or has shipped a version, must not fail the next one.
    async fn tidy(&self, parts: &[&str]) {
        for service in SERVICES.iter().filter(|service| parts.contains(service)) {
            self.opsctl(&["deploy", "abort", service]).await.ended(0);
        }
        self.recover().await;
        for service in SERVICES.iter().filter(|service| parts.contains(service)) {
            if self.version(service).await != "v1" {
                let workload = format!("deployment/{service}");
                self.kubectl(&["rollout", "undo", &workload, "--namespace=shop"]).await;
                self.kubectl(&["rollout", "status", &workload, "--namespace=shop"])
                    .await;
            }
        }
    }

    /// Puts back what dead runs left, whoever's they are. Who was killed has its lock for the rest of its lease.
    pub async fn recover(&self) {
        self.until("nothing is left to recover", async || {
            self.opsctl(&["recover"]).await.code == 0
        })
        .await;
    }

    /// The version that a service's Deployment says.
    pub async fn version(&self, service: &str) -> Value {
        let deployment = self.deployment(service).await;
        deployment["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/version"].clone()
    }

    fn write_catalogue(&self) {
        let (server, gateway, prometheus) = (self.cluster.server(), self.cluster.gateway(), self.cluster.prometheus());
        let kubeconfig = self.cluster.kubeconfig().display().to_string();
        self.sandbox.write(
            "opsctl.toml",
            &format!(
                r#"version = 1
default_env = "dev"
[env.dev]
platform = "kubernetes"
clusters = ["here"]
namespace = "shop"
[cluster.here]
context = "opsctl"
server = "{server}"
kubeconfig = {kubeconfig:?}
image = "docker.io/opsctl/opsctl:v1"
gateway_url = "http://{gateway}"
prometheus = "http://{prometheus}"
[defaults.service]
objectives = {{ availability = "99%", latency_p95 = "250ms" }}
health = {{ http = "/health/ready", grpc = "" }}
probe = {{ http = "/health/live", rate = "20/s" }}
metrics = "opsctl"
[service.identity]
kubernetes = {{ host = "identity.shop.local", image = "docker.io/opsctl/identity" }}
probe = {{ http = "/.well-known/jwks.json", rate = "20/s" }}
[service.payments]
kubernetes = {{ host = "payments.shop.local", image = "docker.io/opsctl/payments" }}
[service.notifications]
kubernetes = {{ host = "notifications.shop.local", image = "docker.io/opsctl/notifications" }}
[service.orders]
kubernetes = {{ host = "orders.shop.local", image = "docker.io/opsctl/orders" }}
depends_on = ["identity", "payments", "notifications"]
# An order waits for three others and for PostgreSQL.
objectives = {{ latency_p95 = "1s" }}
"#
            ),
        );
    }

    /// Gives the node the images, unless it has these very ones.
    async fn load(&self, packages: &Path) {
        let sums = fs::read_to_string(packages.join("SHA256SUMS")).expect("the checksums of `cargo xtask dist`");
        let known = self
            .cluster
            .get("/api/v1/namespaces/shop/configmaps/images")
            .await
            .expect("the API server answers")
            .json();
        if known["data"]["sums"] == sums.as_str() {
            return;
        }
        let files = sums.lines().filter_map(|line| line.split_once("  "));
        for (_, file) in files.filter(|(_, file)| Path::new(file).extension().is_some_and(|is| is == "tar")) {
            let loaded = self.cluster.load_image(&packages.join(file)).await;
            loaded.unwrap_or_else(|error| panic!("{file}: {error}"));
        }
        self.apply(&json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": { "name": "images", "namespace": "shop" },
            "data": { "sums": sums },
        }))
        .await;
    }

    /// The key that identity signs with.
    async fn keys(&self, packages: &Path) {
        let there = self.get("/api/v1/namespaces/shop/secrets/identity-keys").await;
        if there["kind"] == "Secret" {
            return;
        }
        let key = Command::new(packages.join("identity"))
            .arg("--print-key")
            .output()
            .expect("identity");
        let key = String::from_utf8(key.stdout).expect("PEM");
        self.apply(&json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": { "name": "identity-keys", "namespace": "shop" },
            "stringData": { "first.pem": key },
        }))
        .await;
    }

    /// Installs the chart, or brings what is there to what it says with these settings, and waits for every pod.
    pub async fn install(&self, helm: &Path, settings: &[&str]) {
        let chart = peers::workspace_root().join("services/deploy/chart");
        let mut command = tokio::process::Command::new(helm);
        command
            .args(["upgrade", "--install", "shop"])
            .arg(&chart)
            .arg("--values")
            .arg(chart.join("values-development.yaml"))
            .args(["--namespace=shop", "--set=image.tag=v1", "--wait", "--timeout=2m"])
            .args(settings.iter().map(|setting| format!("--set={setting}")))
            .env("KUBECONFIG", self.cluster.kubeconfig())
            .env("HOME", self.sandbox.path("."))
            .kill_on_drop(true);
        let output = command.output().await.expect("helm starts");
        if !output.status.success() {
            let pods = self
                .kubectl(&["get", "pods", "--namespace=shop", "--output=wide"])
                .await;
            panic!("{}\n{pods}", String::from_utf8_lossy(&output.stderr));
        }
        self.until("the routes lead to the pods", async || {
            let mut answers = true;
            for service in SERVICES {
                answers &= self
                    .asks(service, "/health/ready")
                    .await
                    .is_ok_and(|answer| answer.status == 200);
            }
            answers
        })
        .await;
    }

    /// `GET path` from a service through the gateway.
    pub async fn asks(&self, service: &str, path: &str) -> io::Result<http::Answer> {
        let host = format!("{service}.shop.local");
        http::send(self.cluster.gateway(), "GET", path, &[("Host", &host)], "").await
    }

    /// The gateway, asked for a service.
    pub fn door(&self, service: &str) -> Target {
        let target: Target = format!("http://{}/", self.cluster.gateway())
            .parse()
            .expect("an address");
        target.called(&format!("{service}.shop.local"))
    }

    /// Reads of identity's keys.
    pub fn reads(&self, rate: &str) -> Traffic {
        let request = Request::get("/.well-known/jwks.json").expect("a path");
        Traffic::of(self.door("identity"), rate, move |_| request.clone())
    }

    /// What the customer of this test is called.
    fn customer(&self) -> String {
        self.sandbox.path(".").display().to_string().replace(['/', '.'], "")
    }

    /// What a new customer shows to `orders`.
    pub async fn sign_in(&self) -> String {
        let headers = [("Host", "identity.shop.local"), ("Content-Type", "application/json")];
        let credentials =
            json!({ "email": format!("{}@example.org", self.customer()), "password": "correct horse battery" });
        let say = async |path: &str| {
            let answer = http::send(self.cluster.gateway(), "POST", path, &headers, &credentials.to_string()).await;
            let answer = answer.expect("identity answers");
            assert!(answer.status < 300, "{path}: {} {}", answer.status, answer.body);
            answer.json()
        };
        say("/register").await;
        let answer = say("/login").await;
        format!("Bearer {}", answer["access_token"].as_str().expect("a token"))
    }

    /// Orders of one customer. `orders` calls `payments` through the gateway for each.
    pub async fn customers(&self, rate: &str) -> Traffic {
        self.orders(self.sign_in().await, rate)
    }

    /// Orders of a customer who shows `token`.
    pub fn orders(&self, token: String, rate: &str) -> Traffic {
        let name = self.customer();
        Traffic::of(self.door("orders"), rate, move |number| {
            let request = Request::post_json("/orders", order(900 + number % 100).to_string()).expect("a request");
            let request = request.header("authorization", &token);
            let request = request
                .expect("a header")
                .header("idempotency-key", &format!("{name}-{number}"));
            request.expect("a header")
        })
    }

    /// Runs `opsctl` to its end.
    pub async fn opsctl(&self, words: &[&str]) -> Ran {
        ended(self.sandbox.command(words)).await
    }

    /// Starts `opsctl` and goes on. What it says is not kept.
    pub fn start(&self, words: &[&str]) -> Terminal {
        Terminal::start(self.sandbox.command(words))
    }

    /// `GET path` of the API.
    pub async fn get(&self, path: &str) -> Value {
        self.cluster.get(path).await.expect("the API server answers").json()
    }

    pub async fn kubectl(&self, words: &[&str]) -> String {
        self.cluster.kubectl(words, "").await.expect("kubectl does it")
    }

    pub async fn apply(&self, object: &Value) {
        let applied = self
            .cluster
            .kubectl(&["apply", "--filename=-"], &object.to_string())
            .await;
        applied.expect("kubectl takes it");
    }

    /// A Deployment of the namespace `shop`.
    pub async fn deployment(&self, name: &str) -> Value {
        self.get(&format!("/apis/apps/v1/namespaces/shop/deployments/{name}"))
            .await
    }

    /// What a run on a service may change, and has to put back: what its objects say, and what runs note on them.
    pub async fn state(&self, service: &str) -> BTreeMap<String, Value> {
        let kinds = "deployments,services,httproutes,grpcroutes,poddisruptionbudgets";
        let listed = self.kubectl(&["get", kinds, "--namespace=shop", "--output=json"]).await;
        let listed: Value = serde_json::from_str(&listed).expect("JSON");
        let items = listed["items"].as_array().expect("items").iter();
        let mut state = BTreeMap::new();
        for object in items {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            if name != service && !name.starts_with(&format!("{service}-")) {
                continue;
            }
            let notes: BTreeMap<&String, &Value> = object["metadata"]["annotations"]
                .as_object()
                .into_iter()
                .flatten()
                .filter(|(key, _)| key.starts_with("opsctl.dev/"))
                .collect();
            let kind = object["kind"].as_str().unwrap_or_default();
            state.insert(
                format!("{kind}/{name}"),
                json!({ "spec": object["spec"], "notes": notes }),
            );
        }
        state
    }

    /// Waits until the objects of a service are as they were, nobody holds its lock, and its pods are ready.
    pub async fn settles(&self, service: &str, before: &BTreeMap<String, Value>) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let now = self.state(service).await;
            let unlike = unlike(before, &now);
            let trouble = match unlike {
                None => self.trouble(service).await,
                unlike => unlike,
            };
            match trouble {
                None => return,
                Some(what) => assert!(Instant::now() < deadline, "{service} did not settle: {what}"),
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// What is not as it should be: too few pods, a lock that somebody holds.
    async fn trouble(&self, service: &str) -> Option<String> {
        let deployment = self.deployment(service).await;
        let (wanted, ready) = (&deployment["spec"]["replicas"], &deployment["status"]["readyReplicas"]);
        if wanted != ready {
            return Some(format!("{ready} of {wanted} pods are ready"));
        }
        let lock = self.lock(service).await?;
        Some(format!("its lock `{lock}` is held"))
    }

    /// The name of the Lease that a run on a service holds.
    pub async fn lock(&self, service: &str) -> Option<String> {
        let leases = self.get("/apis/coordination.k8s.io/v1/namespaces/shop/leases").await;
        let held = leases["items"].as_array()?.iter().find(|lease| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            text(&lease["metadata"]["name"]).contains(service) && !text(&lease["spec"]["holderIdentity"]).is_empty()
        });
        held?["metadata"]["name"].as_str().map(str::to_owned)
    }

    /// Names and identities of a service's pods, those that end left out.
    pub async fn pods(&self, service: &str) -> BTreeMap<String, String> {
        let path = format!("/api/v1/namespaces/shop/pods?labelSelector=app.kubernetes.io%2Fname%3D{service}");
        let listed = self.get(&path).await;
        let pods = listed["items"].as_array().into_iter().flatten();
        pods.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
            .map(|pod| {
                let text = |key: &str| pod["metadata"][key].as_str().unwrap_or_default().to_owned();
                (text("name"), text("uid"))
            })
            .collect()
    }

    /// The share of a service's canary, in percent, as its route has it.
    pub async fn share(&self, service: &str) -> u64 {
        let route = self
            .get(&format!(
                "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes/{service}"
            ))
            .await;
        let canary = format!("{service}-canary");
        route["spec"]["rules"][0]["backendRefs"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|backend| backend["name"] == canary.as_str())
            .and_then(|backend| backend["weight"].as_u64())
            .unwrap_or(0)
    }

    /// Waits for something.
    pub async fn until(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !holds().await {
            assert!(Instant::now() < deadline, "not within {LIMIT:?}: {what}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Whose images `deploy canary` takes.
    pub fn image(service: &str, tag: &str) -> String {
        format!("docker.io/opsctl/{service}:{tag}")
    }
}

/// What is ordered, for so many cents.
pub fn order(cents: u64) -> Value {
    json!({
        "items": [{ "sku": "book", "quantity": 1, "unit_price_cents": cents }],
        "currency": "EUR",
        "address": "Main Street 1",
    })
}

/// The first object that is not as it was.
pub fn unlike(before: &BTreeMap<String, Value>, now: &BTreeMap<String, Value>) -> Option<String> {
    let names = before.keys().chain(now.keys());
    names
        .filter(|name| before.get(*name) != now.get(*name))
        .map(|name| format!("{name} was {:?} and is {:?}", before.get(name), now.get(name)))
        .next()
}

/// Runs a command to its end.
pub async fn ended(mut command: Command) -> Ran {
    let output = tokio::task::spawn_blocking(move || command.output());
    Ran::of(output.await.expect("it does not panic").expect("opsctl starts"))
}

/// An `opsctl` that runs beside the test, and is killed with it.
pub struct Terminal(Child);

impl Terminal {
    pub fn start(mut command: Command) -> Self {
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("opsctl starts"))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).expect("our own child");
    }

    /// Kills it; true when it had ended by itself.
    pub fn kill(mut self) -> bool {
        self.0.try_wait().expect("our own child").is_some()
    }

    /// Waits for its end, and returns its exit code.
    pub async fn exit(mut self) -> i32 {
        let ended = tokio::task::spawn_blocking(move || self.0.wait().map(|status| status.code()));
        let code = ended.await.expect("it does not panic").expect("our own child");
        code.unwrap_or(-1)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
