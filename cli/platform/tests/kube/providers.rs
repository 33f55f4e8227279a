//! Who else can split the traffic than a gateway: annotations of ingress-nginx (as objects; no controller reads them here),
//! and numbers of pods.

use std::time::Duration;

use opsctl_platform::kube::{KubePlatform, Provider, config, record_name};
use opsctl_platform::run::{Journal, Recovered, RunRecord, UndoReport, recover};
use opsctl_platform::{Cas, Fence, Field, Platform as _, PlatformError, Weight};
use serde_json::{Value, json};

use crate::stage::{Shop, Stage, second, settings};

const LONG: Duration = Duration::from_mins(1);

/// The shop with another provider, and a canary in it.
async fn canary(stage: &Stage, provider: Provider) -> (Shop, Fence) {
    let shop = stage.shop().await;
    let file = stage.plane.folder().join("admin.kubeconfig");
    let config = config::context(Some(&file), "admin", Some(&stage.plane.url()))
        .await
        .unwrap();
    let mut settings = settings(&shop.namespace, &["orders"]);
    settings.services[0].provider = provider;
    if provider == Provider::IngressNginx {
        settings.services[0].mark = Some("header:x-canary=k7".parse().unwrap());
    }
    let shop = Shop {
        platform: KubePlatform::connect(settings, &config).unwrap(),
        ..shop
    };
    let mut record = RunRecord::new("r1", "canary", "service/orders", Value::Null, shop.platform.now());
    record.plan_change(Field::version("orders", "v2"), None, Some(second().value()), 0);
    record.revision = shop.platform.create_record(&record).await.unwrap();
    let by = record.fence();
    let started = shop.platform.start_version(Some(&by), "orders", &second()).await;
    assert_eq!(started.unwrap(), Cas::Applied);
    shop.until("the canary is ready", |service| service.ready_of("v2") == 1)
        .await;
    (shop, by)
}

async fn set(shop: &Shop, by: &Fence, field: &Field, new: Option<Value>) {
    let now = shop.platform.get(field).await.unwrap();
    let set = shop
        .platform
        .compare_and_set(Some(by), field, now.as_ref(), new.as_ref());
    assert_eq!(set.await.unwrap(), Cas::Applied, "{field}");
}

async fn grant(shop: &Shop, by: &Fence, from: u8, to: u8) -> Result<Cas, PlatformError> {
    shop.platform.grant_weight(by, "orders", "v2", from, to, LONG).await
}

/// What somebody else does to the second Ingress.
async fn weigh(stage: &Stage, shop: &Shop, weight: &str) {
    let weight = format!("nginx.ingress.kubernetes.io/canary-weight={weight}");
    let words = [
        "annotate",
        "ingress/orders-canary",
        &weight,
        "--overwrite",
        "--namespace",
        &shop.namespace,
    ];
    stage.plane.kubectl(&words, "").await.unwrap();
}

/// The Ingress of `orders` under some name.
fn ingress(shop: &Shop, name: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": { "name": name, "namespace": shop.namespace },
        "spec": { "ingressClassName": "nginx", "rules": [{ "host": "orders.shop.local", "http": { "paths": [
            { "path": "/", "pathType": "Prefix", "backend": { "service": { "name": "orders", "port": { "number": 80 } } } },
        ] } }] },
    })
}

/// The undo of the run `r1`, whose record nobody has any more.
async fn undone_without_a_record(stage: &Stage, shop: &Shop) -> UndoReport {
    let record = record_name("r1");
    let delete = ["delete", "configmap", &record, "--namespace", &shop.namespace];
    stage.plane.kubectl(&delete, "").await.unwrap();
    let strays = shop.platform.strays().await.unwrap();
    let found: Vec<&str> = strays.iter().map(|record| record.id.as_str()).collect();
    assert_eq!(found, ["r1"]);
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path().join("events.ndjson"), "r1").unwrap();
    match recover(&shop.platform, "r1", &journal).await.unwrap() {
        Recovered::Closed { report, .. } => report,
        other => panic!("{other:?}"),
    }
}

/// Gives the canary a share, as a run does: how to undo it is noted first.
async fn share_of_a_run(shop: &Shop, share: u8) {
    let mut record = shop.platform.record("r1").await.unwrap().unwrap();
    record.plan_change(Field::canary("orders"), None, Weight::value("v2", share, "r1"), 0);
    record.revision = shop.platform.update_record(&record).await.unwrap();
    assert_eq!(grant(shop, &record.fence(), 0, share).await.unwrap(), Cas::Applied);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_is_taken_back_though_the_record_is_gone() {
    let Some(stage) = Stage::new("a_share_is_taken_back_though_the_record_is_gone").await else {
        return;
    };
    let (shop, _) = canary(&stage, Provider::IngressNginx).await;
    stage.apply(&ingress(&shop, "orders")).await;
    share_of_a_run(&shop, 50).await;
    let report = undone_without_a_record(&stage, &shop).await;
    assert!(report.complete(), "{report:?}");
    let all = ["get", "ingress", "--namespace", &shop.namespace, "--output=name"];
    let left = stage.plane.kubectl(&all, "").await.unwrap();
    assert_eq!(left.trim(), "ingress.networking.k8s.io/orders");
    assert_eq!(
        stage.marks(&shop.namespace, "ingress/orders").await,
        Vec::<String>::new()
    );

    let (shop, _) = canary(&stage, Provider::Replicas).await;
    share_of_a_run(&shop, 33).await;
    let report = undone_without_a_record(&stage, &shop).await;
    assert!(report.complete(), "{report:?}");
    assert_eq!(
        stage.marks(&shop.namespace, "service/orders").await,
        Vec::<String>::new()
    );

    // Numbers of pods that somebody else has set are told, and left alone.
    let (shop, _) = canary(&stage, Provider::Replicas).await;
    share_of_a_run(&shop, 33).await;
    let scale = [
        "scale",
        "deployment/orders-canary",
        "--replicas=3",
        "--namespace",
        &shop.namespace,
    ];
    stage.plane.kubectl(&scale, "").await.unwrap();
    let report = undone_without_a_record(&stage, &shop).await;
    let told: Vec<String> = report.conflicts().map(|step| step.field.to_string()).collect();
    assert_eq!(told, [Field::version("orders", "v2").to_string()]);
    let left = stage.object(&shop.namespace, "deployment/orders-canary").await;
    assert_eq!(left["spec"]["replicas"], 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ingress_nginx_gets_a_second_ingress_and_loses_it() {
    let Some(stage) = Stage::new("ingress_nginx_gets_a_second_ingress_and_loses_it").await else {
        return;
    };
    let (shop, by) = canary(&stage, Provider::IngressNginx).await;
    let error = grant(&shop, &by, 0, 10).await.unwrap_err();
    assert!(error.to_string().contains("an Ingress in namespace"), "{error}");
    stage.apply(&ingress(&shop, "orders")).await;
    let before = stage.object(&shop.namespace, "ingress/orders").await;
    assert_eq!(grant(&shop, &by, 0, 10).await.unwrap(), Cas::Applied);
    assert_eq!(grant(&shop, &by, 10, 50).await.unwrap(), Cas::Applied);
    let second = stage.object(&shop.namespace, "ingress/orders-canary").await;
    let annotation =
        |name: &str| second["metadata"]["annotations"][format!("nginx.ingress.kubernetes.io/{name}")].clone();
    assert_eq!(
        (annotation("canary"), annotation("canary-weight")),
        (json!("true"), json!("50"))
    );
    assert_eq!(
        (annotation("canary-by-header"), annotation("canary-by-header-value")),
        (json!("x-canary"), json!("k7"))
    );
    let backend = &second["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"];
    assert_eq!(backend, "orders-canary");
    assert_eq!(
        shop.platform.get(&Field::canary("orders")).await.unwrap(),
        Weight::value("v2", 50, "r1")
    );

    // A weight that somebody else has set is neither taken for ours nor set back: the share is lost, and cannot be had again.
    shop.platform.renew_weight(&by, "orders", LONG).await.unwrap();
    weigh(&stage, &shop, "0").await;
    let renewed = shop.platform.renew_weight(&by, "orders", LONG).await;
    assert!(matches!(renewed, Err(PlatformError::WeightLost { .. })), "{renewed:?}");
    assert!(matches!(grant(&shop, &by, 0, 50).await, Ok(Cas::Conflict { .. })));
    weigh(&stage, &shop, "50").await;
    shop.platform.renew_weight(&by, "orders", LONG).await.unwrap();

    // The stable version switches, and what is left of the share goes.
    set(&shop, &by, &Field::stable_version("orders"), Some("v2".into())).await;
    set(&shop, &by, &Field::canary("orders"), None).await;
    let second = stage.object(&shop.namespace, "ingress/orders-canary").await;
    assert_eq!(
        second["metadata"]["annotations"]["nginx.ingress.kubernetes.io/canary-weight"],
        "100"
    );
    set(&shop, &by, &Field::stable_version("orders"), Some("v1".into())).await;
    let all = ["get", "ingress", "--namespace", &shop.namespace, "--output=name"];
    assert_eq!(
        stage.plane.kubectl(&all, "").await.unwrap().trim(),
        "ingress.networking.k8s.io/orders"
    );
    let after = stage.object(&shop.namespace, "ingress/orders").await;
    assert_eq!(after["spec"], before["spec"]);

    stage.apply(&ingress(&shop, "orders-old")).await;
    let error = grant(&shop, &by, 0, 10).await.unwrap_err();
    assert!(
        error.to_string().contains("Ingress `orders` and Ingress `orders-old`"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_numbers_of_pods_a_share_is_kept_or_refused() {
    let Some(stage) = Stage::new("by_numbers_of_pods_a_share_is_kept_or_refused").await else {
        return;
    };
    let (shop, by) = canary(&stage, Provider::Replicas).await;
    let before = stage.object(&shop.namespace, "service/orders").await;
    let selected = async || {
        let service = stage.object(&shop.namespace, "service/orders").await;
        let selector = service["spec"]["selector"].as_object().unwrap();
        let selector: Vec<String> = selector
            .iter()
            .map(|(key, value)| format!("{key}={}", value.as_str().unwrap()))
            .collect();
        let selector = selector.join(",");
        let get = [
            "get",
            "pods",
            "--namespace",
            &shop.namespace,
            "--selector",
            &selector,
            "--output=json",
        ];
        let pods: Value = serde_json::from_str(&stage.plane.kubectl(&get, "").await.unwrap()).unwrap();
        let mut versions: Vec<String> = pods["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pod| {
                pod["metadata"]["labels"]["app.kubernetes.io/version"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            })
            .collect();
        versions.sort();
        versions
    };
    assert_eq!(selected().await, ["v1", "v1"], "a canary begins without traffic");
    let error = grant(&shop, &by, 0, 10).await.unwrap_err().to_string();
    assert!(
        error.contains("the nearest share is 33 %; it needs 10 pods in all, 9 of them stable"),
        "{error}"
    );
    assert_eq!(selected().await, ["v1", "v1"]);

    assert_eq!(grant(&shop, &by, 0, 33).await.unwrap(), Cas::Applied);
    assert_eq!(selected().await, ["v1", "v1", "v2"]);
    shop.platform.renew_weight(&by, "orders", LONG).await.unwrap();
    assert_eq!(grant(&shop, &by, 33, 100).await.unwrap(), Cas::Applied);
    assert_eq!(selected().await, ["v2"]);
    set(&shop, &by, &Field::stable_version("orders"), Some("v2".into())).await;
    set(&shop, &by, &Field::canary("orders"), None).await;
    assert_eq!(selected().await, ["v2"]);

    // The end: the stable pods become new ones, and the Service selects them again.
    let old = Field::version("orders", "v1");
    set(&shop, &by, &old, None).await;
    assert_eq!(selected().await, ["v2", "v2"]);
    let after = stage.object(&shop.namespace, "service/orders").await;
    assert_eq!(after["spec"], before["spec"]);
    shop.until("two pods of the new version, and no others", |service| {
        service.instances.len() == 2 && service.ready_of("v2") == 2
    })
    .await;
}
