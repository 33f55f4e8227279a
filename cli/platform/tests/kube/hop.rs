//! Which Services a hop can stand before; that it does is shown where pods run.

use opsctl_platform::{Cas, Fault, FaultKind, Field, Platform as _, PlatformError, Result};
use serde_json::{Value, json};

use crate::stage::{Shop, Stage, until};

#[tokio::test]
async fn what_no_hop_can_stand_before_is_refused_before_anything_is_made() {
    let Some(stage) = Stage::new("what_no_hop_can_stand_before_is_refused_before_anything_is_made").await else {
        return;
    };
    let shop = stage.shop().await;
    let objects = async || {
        let kinds = "deployments,services,secrets,endpointslices";
        let words = ["get", kinds, "--namespace", &shop.namespace, "--output=name"];
        stage.plane.kubectl(&words, "").await.unwrap()
    };
    let refused = async |service: &str, of: Option<&str>, why: &str| {
        let error = asked(&shop, &shop.namespace, service, of).await.unwrap_err();
        assert!(matches!(error, PlatformError::Refused { .. }), "{error}");
        assert!(error.to_string().contains(why), "{error}");
    };
    stage.apply(&without_selector(&shop, "nowhere")).await;
    refused("nowhere", None, "neither a selector nor addresses").await;

    stage.apply(&without_selector(&shop, "mirrored")).await;
    stage
        .apply(&json!({
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": { "name": "mirrored", "namespace": shop.namespace },
            "subsets": [{ "addresses": [{ "ip": "192.0.2.1" }], "ports": [{ "port": 5432 }] }],
        }))
        .await;
    until("its addresses are mirrored", async || {
        objects().await.contains("endpointslice.discovery.k8s.io/mirrored-")
    })
    .await;
    refused("mirrored", None, "mirrored from Endpoints").await;

    stage.apply(&without_selector(&shop, "outside")).await;
    stage
        .apply(&json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "outside",
                "namespace": shop.namespace,
                "labels": { "kubernetes.io/service-name": "outside" },
            },
            "addressType": "IPv4",
            "endpoints": [{ "addresses": ["192.0.2.1"] }],
            "ports": [{ "port": 5432 }],
        }))
        .await;
    refused("outside", Some("orders"), "no variable DATABASE_URL").await;
    let before = objects().await;
    for service in ["outside", "orders"] {
        let would = asked(&shop, &shop.namespace, service, None).await;
        assert_eq!(would.unwrap(), Cas::Applied, "{service}");
    }
    assert_eq!(objects().await, before, "nobody did more than ask");

    // A Secret is for the pods beside it.
    let patch = json!([{
        "op": "add",
        "path": "/spec/template/spec/containers/0/env",
        "value": [{ "name": "DATABASE_URL", "valueFrom": { "secretKeyRef": { "name": "orders", "key": "url" } } }],
    }]);
    let patch = patch.to_string();
    let words = [
        "patch",
        "deployment/orders",
        "--namespace",
        &shop.namespace,
        "--type=json",
        "--patch",
        &patch,
    ];
    stage.plane.kubectl(&words, "").await.unwrap();
    let would = asked(&shop, &shop.namespace, "outside", Some("orders")).await;
    assert_eq!(would.unwrap(), Cas::Applied);
    let error = asked(&shop, "default", "kubernetes", Some("orders")).await.unwrap_err();
    assert!(error.to_string().contains("--keep-sessions"), "{error}");
}

/// What the platform says to a fault that nobody plays.
async fn asked(shop: &Shop, namespace: &str, service: &str, sessions_of: Option<&str>) -> Result<Cas> {
    let fault = Fault {
        holder: "r1".to_owned(),
        kind: FaultKind::Reset,
        percent: 100.0,
        sessions_of: sessions_of.map(str::to_owned),
    };
    let field = Field::fault(&format!("endpoint/{namespace}/{service}"));
    shop.platform.rehearse(&field, None, Some(&fault.value())).await
}

fn without_selector(shop: &Shop, name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name, "namespace": shop.namespace },
        "spec": { "ports": [{ "port": 5432 }] },
    })
}
