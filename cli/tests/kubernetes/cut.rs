//! `drill db-down --mode policy` where it cannot be made: one clear error each, and nothing is changed.

use serde_json::{Value, json};

use crate::stage::Stage;

const CUT: [&str; 7] = ["drill", "db-down", "orders", "--at", "postgres", "--mode", "policy"];

#[tokio::test(flavor = "multi_thread")]
async fn what_would_prove_nothing_is_refused_before_anything_is_made() {
    let Some(stage) = Stage::new("what_would_prove_nothing_is_refused_before_anything_is_made").await else {
        return;
    };
    let asked = async |more: &str, code: i32, says: &str| {
        let words = [&CUT[..], &["--no-probe", more]].concat();
        let ran = stage.run(&words).await.ended(code);
        let told = format!("{}{}", ran.stdout, ran.stderr);
        assert!(told.contains(says), "{says:?} is not in:\n{told}");
        for path in [
            "/api/v1/namespaces/shop/configmaps?labelSelector=opsctl.dev/run",
            "/apis/apps/v1/namespaces/shop/deployments?labelSelector=opsctl.dev/hop",
            "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies?labelSelector=opsctl.dev/hop",
            "/apis/coordination.k8s.io/v1/namespaces/shop/leases",
        ] {
            assert_eq!(stage.get(path).await["items"], json!([]), "{path}");
        }
    };
    asked("--keep-sessions", 2, "`--mode policy`").await;
    asked("--yes", 5, "`image` of the cluster").await;
    let text = std::fs::read_to_string(stage.sandbox.path("opsctl.toml")).expect("the catalogue");
    let image = "[cluster.eu]\nimage = \"registry.example/opsctl:1\"\n";
    stage
        .sandbox
        .write("opsctl.toml", &text.replace("[cluster.eu]\n", image));
    asked("--yes", 2, "Service `postgres`").await;
    stage.database().await;
    asked("--dry-run", 0, "it would be accepted").await;

    stage
        .apply(&policy(
            "inwards",
            json!({ "podSelector": {}, "policyTypes": ["Ingress"] }),
        ))
        .await;
    asked("--dry-run", 0, "it would be accepted").await;
    let every_pod = json!({ "podSelector": {}, "policyTypes": ["Egress"], "egress": [{}] });
    stage.apply(&policy("outwards", every_pod)).await;
    for how in ["--dry-run", "--yes"] {
        asked(how, 5, "the NetworkPolicy `outwards`").await;
    }
}

fn policy(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": { "name": name, "namespace": "shop" },
        "spec": spec,
    })
}
