//! A database of a live PostgreSQL is replaced while its service runs on Kubernetes: the Secret leads to the new database,
//! the pods are new ones, nobody else is touched, and whatever does not go well is taken back. The server is a real one
//! beside the control plane.

use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use peers::Server;
use peers::servers::Postgres;
use serde_json::{Value, json};

use crate::rights::{allowed, without};
use crate::sandbox::Ran;
use crate::stage::Stage;

const SECRET: &str = "/api/v1/namespaces/shop/secrets/orders-database";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/shop/deployments/orders";
const RESTARTED: &str = "/spec/template/metadata/annotations/kubectl.kubernetes.io~1restartedAt";
const REPLACE: [&str; 6] = ["restore", "pg", "--database", "orders", "--replace", "--yes"];

struct Shop {
    stage: Stage,
    server: Server,
    psql: std::path::PathBuf,
}

impl Shop {
    async fn open(test: &str) -> Option<Self> {
        let psql = peers::peer("postgres", test)?.with_file_name("psql");
        let server = Server::start(Postgres::default(), test).await?;
        let stage = Stage::new(test).await?;
        let shop = Self { stage, server, psql };
        shop.sql("postgres", "CREATE ROLE app LOGIN");
        shop.sql("postgres", "CREATE DATABASE orders OWNER app");
        shop.sql("postgres", "ALTER DATABASE orders CONNECTION LIMIT 20");
        shop.sql(
            "orders",
            "CREATE TABLE items (id int); INSERT INTO items SELECT generate_series(1, 500)",
        );
        let sandbox = &shop.stage.sandbox;
        sandbox.secret("password", "correct horse\n");
        sandbox.secret("dsn", &shop.url("postgres"));
        let plane = &shop.stage.plane;
        shop.stage
            .catalogue(&plane.kubeconfig(), "admin", &plane.url(), "repository = \"here\"");
        let text = std::fs::read_to_string(sandbox.path("opsctl.toml")).expect("the catalogue");
        let text = text.replace(
            "[service.orders]\n",
            "[service.orders]\nuses = [\"pg/orders\"]\nkubernetes = { database = \"orders-database#url\" }\n",
        );
        sandbox.write(
            "opsctl.toml",
            &format!(
                "{text}[repository.here]\nstore = \"file:repo\"\npassword = {{ file = \"password\" }}\n\
                 [datastore.pg]\nkind = \"postgres\"\ndsn = {{ file = \"dsn\" }}\n"
            ),
        );
        shop.secret("postgres://app:hunter2@db.shop:5432/orders?sslmode=require\n")
            .await;
        shop.run(&["backup", "pg"]).await.ended(0);
        shop.sql("orders", "INSERT INTO items VALUES (501)");
        Some(shop)
    }

    async fn secret(&self, url: &str) {
        self.stage
            .apply(&json!({
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": { "name": "orders-database", "namespace": "shop" },
                "stringData": { "url": url, "other": "untouched" },
            }))
            .await;
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://postgres@{}/{database}", self.server.address("postgres"))
    }

    #[track_caller]
    fn sql(&self, database: &str, sql: &str) -> String {
        let mut psql = Command::new(&self.psql);
        psql.args([
            "-X",
            "-A",
            "-t",
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            &self.url(database),
            "-c",
            sql,
        ]);
        let output = psql.output().expect("psql starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{sql}: {said}");
        String::from_utf8(output.stdout).expect("text").trim_end().to_owned()
    }

    fn databases(&self) -> String {
        self.sql(
            "postgres",
            "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE NOT datistemplate",
        )
    }

    async fn run(&self, words: &[&str]) -> Ran {
        let ran = self.stage.run(words).await;
        assert!(
            !ran.stdout.contains("hunter2") && !ran.stderr.contains("hunter2"),
            "{ran:?}"
        );
        ran
    }

    /// What the Secret leads to.
    async fn address(&self) -> String {
        let secret = self.stage.get(SECRET).await;
        let decoded = |key: &str| {
            let bytes = STANDARD
                .decode(secret["data"][key].as_str().expect("a value"))
                .expect("base64");
            String::from_utf8(bytes).expect("text")
        };
        assert_eq!(decoded("other"), "untouched");
        decoded("url")
    }

    /// The pods of a service, by what tells one from its successor.
    async fn pods(&self, service: &str) -> Vec<String> {
        let path = format!("/api/v1/namespaces/shop/pods?labelSelector=app.kubernetes.io/name={service}");
        let pods = self.stage.get(&path).await;
        let pods = pods["items"].as_array().expect("pods");
        let mut uids: Vec<String> = pods.iter().map(|pod| pod["metadata"]["uid"].to_string()).collect();
        uids.sort();
        uids
    }

    /// The Secret and the pods are as they were, and nothing is left on the server.
    async fn is_as_it_was(&self, pods: &[String]) {
        assert_eq!(
            self.address().await,
            "postgres://app:hunter2@db.shop:5432/orders?sslmode=require\n"
        );
        assert_eq!(self.databases(), "orders postgres");
        assert_eq!(self.sql("orders", "SELECT count(*) FROM items"), "501");
        self.stage
            .until("the pods are those of before", async |_| {
                self.pods("orders").await == pods
            })
            .await;
        assert_eq!(self.stage.get(DEPLOYMENT).await.pointer(RESTARTED), None);
        let runs = self.run(&["run", "list", "--active", "--json"]).await.json();
        assert_eq!(runs["runs"], json!([]));
        // No note of ours stays on what everybody sees.
        for path in [SECRET, DEPLOYMENT] {
            let annotations = self.stage.get(path).await["metadata"]["annotations"].to_string();
            assert!(!annotations.contains("opsctl.dev/undo"), "{annotations}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_leads_to_the_restored_database_and_back_when_that_does_not_go_well() {
    let test = "a_secret_leads_to_the_restored_database_and_back_when_that_does_not_go_well";
    let Some(shop) = Shop::open(test).await else { return };
    let before = shop.pods("orders").await;
    let others = shop.pods("payments").await;
    let told = shop.run(&[&REPLACE[..], &["--dry-run"]].concat()).await.ended(0).stdout;
    assert!(
        told.contains(
            "as orders.restored-RUN beside orders; lead secret/shop/orders-database/url to it; and restart orders"
        ),
        "{told}"
    );
    shop.is_as_it_was(&before).await;

    // No room for another pod: the roll-out cannot begin.
    let quota = json!({
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": { "name": "full", "namespace": "shop" },
        "spec": { "hard": { "pods": "3" } },
    });
    shop.stage.apply(&quota).await;
    shop.stage
        .until("the quota counts", async |plane| {
            let answer = plane.get("/api/v1/namespaces/shop/resourcequotas/full").await;
            answer.is_ok_and(|answer| answer.json()["status"]["used"]["pods"] == "3")
        })
        .await;
    shop.run(&[&REPLACE[..], &["--timeout", "3s"]].concat())
        .await
        .ended(4)
        .says("`orders` did not become ready with the restored database");
    shop.is_as_it_was(&before).await;

    // Killed in the middle: the watchdog does the same.
    let mut child = shop
        .stage
        .sandbox
        .command(&REPLACE)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("opsctl starts");
    shop.stage
        .until("the restart", async |plane| {
            let answer = plane.get(DEPLOYMENT).await;
            answer.is_ok_and(|answer| answer.json().pointer(RESTARTED).is_some())
        })
        .await;
    assert!(shop.address().await.contains("/orders.restored-"));
    child.kill().expect("our own child");
    child.wait().expect("our own child");
    shop.stage
        .until("the undo", async |_| {
            let runs = shop.stage.run(&["run", "list", "--active", "--json"]).await;
            runs.code == 0 && runs.json()["runs"] == json!([])
        })
        .await;
    shop.is_as_it_was(&before).await;

    let words = ["delete", "resourcequota", "full", "--namespace=shop"];
    shop.stage.plane.kubectl(&words, "").await.expect("kubectl deletes it");
    let document = shop.run(&[&REPLACE[..], &["--json"]].concat()).await.ended(0).json();
    let run = document["run"].as_str().expect("a run");
    let new = format!("orders.restored-{run}");
    assert_eq!(
        (&document["database"], &document["kept"]),
        (&json!(new), &json!("orders"))
    );
    assert_eq!(
        shop.address().await,
        format!("postgres://app:hunter2@db.shop:5432/{new}?sslmode=require\n")
    );
    assert_eq!(shop.databases(), format!("orders {new} postgres"));
    assert_eq!(shop.sql(&new, "SELECT count(*) FROM items"), "500");
    assert_eq!(shop.sql("orders", "SELECT count(*) FROM items"), "501");
    let limits = "SELECT string_agg(DISTINCT datconnlimit || ' ' || pg_get_userbyid(datdba), ',') FROM pg_database WHERE datname LIKE 'orders%'";
    assert_eq!(shop.sql("postgres", limits), "20 app");
    assert!(
        shop.stage
            .get(DEPLOYMENT)
            .await
            .pointer(RESTARTED)
            .is_some_and(Value::is_string)
    );
    shop.stage
        .until("all pods are new", async |_| {
            let now = shop.pods("orders").await;
            now.len() == 2 && now.iter().all(|pod| !before.contains(pod))
        })
        .await;
    assert_eq!(shop.pods("payments").await, others);
    shop.run(&["recover"]).await.ended(0).says("nothing to do");
    let record = shop.stage.get("/api/v1/namespaces/shop/configmaps").await.to_string();
    assert!(!record.contains("hunter2"), "a record holds no address");

    // The next one is told apart by the Secret, whatever the catalogue calls the database.
    shop.run(&["backup", "pg"]).await.ended(0);
    let again = ["restore", "pg", "--database", &new, "--replace", "--yes", "--json"];
    let document = shop.run(&again).await.ended(0).json();
    assert_eq!(document["kept"], json!(new));
    assert!(shop.address().await.contains("/orders.restored-"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_cannot_be_changed_is_one_clear_error() {
    let test = "a_secret_that_cannot_be_changed_is_one_clear_error";
    let Some(shop) = Shop::open(test).await else { return };
    let pods = shop.pods("orders").await;
    let good = "postgres://app:hunter2@db.shop:5432/orders?sslmode=require\n";
    let catalogue = std::fs::read_to_string(shop.stage.sandbox.path("opsctl.toml")).expect("the catalogue");
    for (key, code, says) in [
        (
            "orders-database#gone",
            2,
            "key `gone` of the Secret `shop/orders-database`",
        ),
        ("orders-databas#url", 2, "the Secret `shop/orders-databas`"),
        ("orders-database", 2, "expected SECRET#KEY"),
    ] {
        shop.stage
            .sandbox
            .write("opsctl.toml", &catalogue.replace("orders-database#url", key));
        shop.run(&REPLACE).await.ended(code).says(says);
    }
    let without = catalogue.replace("kubernetes = { database = \"orders-database#url\" }\n", "");
    shop.stage.sandbox.write("opsctl.toml", &without);
    shop.run(&REPLACE)
        .await
        .ended(2)
        .says("where it has its address from is not known");
    shop.stage.sandbox.write("opsctl.toml", &catalogue);

    shop.secret("mysql://app:hunter2@db/orders").await;
    shop.run(&REPLACE)
        .await
        .ended(5)
        .says("neither the address of a database");
    shop.secret(good).await;
    shop.is_as_it_was(&pods).await;

    // Somebody who would set it back.
    let maker = shop
        .stage
        .get("/apis/apps/v1/namespaces/shop/deployments/payments")
        .await;
    let maker = &maker["metadata"]["uid"];
    for (metadata, more, says) in [
        (
            json!({ "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "Deployment", "name": "payments", "uid": maker }] }),
            json!({}),
            "it belongs to the Deployment `payments`",
        ),
        (
            json!({ "ownerReferences": null, "labels": { "argocd.argoproj.io/instance": "shop" } }),
            json!({}),
            "it belongs to the Argo CD application `shop`",
        ),
        (
            json!({ "labels": null }),
            json!({ "immutable": true }),
            "the Secret is immutable",
        ),
    ] {
        let mut patch = more;
        patch["metadata"] = metadata;
        let words = [
            "patch",
            "secret",
            "orders-database",
            "--namespace=shop",
            "--type=merge",
            "--patch",
            &patch.to_string(),
        ];
        shop.stage.plane.kubectl(&words, "").await.expect("kubectl patches it");
        shop.run(&REPLACE).await.ended(5).says(says);
        shop.is_as_it_was(&pods).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_printed_role_is_enough_and_what_lacks_is_named() {
    let test = "the_printed_role_is_enough_and_what_lacks_is_named";
    let Some(shop) = Shop::open(test).await else { return };
    let pods = shop.pods("orders").await;
    let stage = &shop.stage;
    let text = std::fs::read_to_string(stage.sandbox.path("opsctl.toml")).expect("the catalogue");
    let oncall = stage.plane.kubeconfig_of("oncall", &[]).expect("a kubeconfig");
    let admin = stage.plane.kubeconfig().display().to_string();
    let text = text.replace("context = \"admin\"", "context = \"oncall\"");
    stage
        .sandbox
        .write("opsctl.toml", &text.replace(&admin, &oncall.display().to_string()));
    let words = ["rbac", "--for", "restore", "--user", "oncall", "--json"];
    let printed = shop.run(&words).await.ended(0).json();
    let objects = printed["objects"].as_array().expect("objects");
    let role = objects.iter().find(|object| object["kind"] == "Role").expect("a role");
    for object in objects {
        stage.apply(object).await;
    }
    for (resource, verb) in [("secrets", "patch"), ("secrets", "get")] {
        stage.apply(&without(role, "", resource, verb)).await;
        allowed(stage, verb, resource, false).await;
        shop.run(&REPLACE).await.ended(5).says(&format!("{verb} {resource}"));
        shop.is_as_it_was(&pods).await;
    }
    stage.apply(role).await;
    allowed(stage, "get", "secrets", true).await;
    shop.run(&REPLACE).await.ended(0);
    assert!(shop.address().await.contains("/orders.restored-"));
}
