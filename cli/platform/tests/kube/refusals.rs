//! What cannot be done is refused with what it is, and nothing is changed; rights are asked for verb by verb.

use opsctl_platform::kube::access::{Access, Command, needed};
use opsctl_platform::kube::{KubePlatform, config};
use opsctl_platform::run::{Journal, Outcome, Run, RunRecord};
use opsctl_platform::{Field, Hold, KillMode, LeaseHolder, Platform as _, PlatformError};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::stage::{Shop, Stage, settings, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_is_told_what() {
    let Some(stage) = Stage::new("who_may_not_is_told_what").await else {
        return;
    };
    let shop = stage.shop().await;
    kubeconfigs_are_read_by_name(&stage).await;
    credentials_are_looked_at(&stage, &shop).await;
    the_least_role_is_enough_and_not_too_much(&stage, &shop).await;
    // The last: it ends the server.
    a_server_that_is_gone_is_named(stage, &shop).await;
}

async fn kubeconfigs_are_read_by_name(stage: &Stage) {
    let file = stage.plane.kubeconfig();
    let url = stage.plane.url();
    assert!(config::context(Some(&file), "admin", Some(&url)).await.is_ok());
    let unknown = config::context(Some(&file), "production", None).await.unwrap_err();
    assert!(
        matches!(&unknown, PlatformError::UnknownContext { known, .. } if known == &["admin"]),
        "{unknown}"
    );
    let wrong = config::context(Some(&file), "admin", Some("https://production.example:6443")).await;
    let wrong = wrong.unwrap_err();
    assert!(
        matches!(&wrong, PlatformError::WrongServer { actual, .. } if actual.starts_with(&url)),
        "{wrong}"
    );
    let none = config::context(Some(Path::new("/nonexistent")), "admin", None)
        .await
        .unwrap_err();
    assert!(matches!(none, PlatformError::Kubeconfig { .. }), "{none}");
    let elsewhere = config::in_cluster().unwrap_err();
    assert!(matches!(elsewhere, PlatformError::Kubeconfig { .. }), "{elsewhere}");
}

async fn credentials_are_looked_at(stage: &Stage, shop: &Shop) {
    stage.plane.kubeconfig_expired().unwrap();
    let expired = stage.platform("expired", &shop.namespace).await;
    let error = expired.service("orders").await.unwrap_err();
    assert!(matches!(error, PlatformError::Expired { .. }), "{error}");

    stage.plane.kubeconfig_of("nobody", &[]).unwrap();
    let nobody = stage.platform("nobody", &shop.namespace).await;
    let error = nobody.states().await.unwrap_err();
    let PlatformError::Forbidden {
        verb,
        resource,
        namespace,
    } = error
    else {
        panic!("it may do nothing: {error}");
    };
    assert_eq!(verb, "list");
    assert!(
        [
            "deployments.apps",
            "pods",
            "httproutes.gateway.networking.k8s.io",
            "grpcroutes.gateway.networking.k8s.io"
        ]
        .contains(&resource.as_str()),
        "{resource}"
    );
    assert_eq!(namespace.as_deref(), Some(shop.namespace.as_str()));
    let unread = stage.platform("admin", "no-such-namespace").await;
    let state = unread.service("orders").await.unwrap();
    assert_eq!(
        (state.stable_version, state.versions.len()),
        (None, 0),
        "what is not there has no version"
    );
}

/// A role with the verbs of `rows` but for one, and the user who has it.
fn role(shop: &Shop, user: &str, rows: &[Access], without: Option<(&Access, &str)>) -> [Value; 2] {
    let rules: Vec<Value> = rows
        .iter()
        .map(|row| {
            let verbs: Vec<&str> = row
                .verbs
                .iter()
                .copied()
                .filter(|verb| without.is_none_or(|(other, left)| other != row || left != *verb))
                .collect();
            json!({ "apiGroups": [row.group], "resources": [row.resource], "verbs": verbs })
        })
        .filter(|rule| rule["verbs"] != json!([]))
        .collect();
    let meta = json!({ "name": user, "namespace": shop.namespace });
    [
        json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": meta, "rules": rules }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": user },
            "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user }],
        }),
    ]
}

/// The platform as `user` sees it.
async fn platform_of(stage: &Stage, shop: &Shop, user: &str) -> KubePlatform {
    let mut config = config::context(Some(&stage.plane.kubeconfig()), "admin", None)
        .await
        .unwrap();
    config.auth_info.impersonate = Some(user.to_owned());
    KubePlatform::connect(settings(&shop.namespace, &["orders"]), &config).unwrap()
}

async fn the_least_role_is_enough_and_not_too_much(stage: &Stage, shop: &Shop) {
    let commands = [
        Command::Status,
        Command::ServiceDown,
        Command::PodKill,
        Command::PodKillDelete,
    ];
    let rows: Vec<Access> = needed(&commands, &shop.platform.settings().providers())
        .into_iter()
        .filter(|row| !row.cluster)
        .collect();
    let mut objects = role(shop, "least", &rows, None).to_vec();
    let mut left_out = Vec::new();
    for row in &rows {
        for verb in row.verbs {
            let user = format!("without-{}", left_out.len());
            objects.extend(role(shop, &user, &rows, Some((row, verb))));
            left_out.push((user, row, *verb));
        }
    }
    stage
        .apply(&json!({ "apiVersion": "v1", "kind": "List", "items": objects }))
        .await;
    let least = platform_of(stage, shop, "least").await;
    until("the role counts", async || {
        least.may(&[&shop.namespace], &rows).await.unwrap().is_empty()
    })
    .await;
    for (user, row, verb) in &left_out {
        let user = platform_of(stage, shop, user).await;
        let mut refused = Vec::new();
        until("all verbs but one are granted", async || {
            refused = user.may(&[&shop.namespace], &rows).await.unwrap();
            refused.len() == 1
        })
        .await;
        let one = &refused[0];
        assert_eq!(one.verb, *verb);
        assert!(
            one.resource.starts_with(row.resource.split('/').next().unwrap()),
            "{one:?}"
        );
    }
    everything_under(&least).await;
}

/// What the drills do, with the rights that they ask for.
async fn everything_under(platform: &KubePlatform) {
    let record = RunRecord::new("rights", "drill/test", "service/orders", Value::Null, platform.now());
    let holder = LeaseHolder {
        run: "rights".to_owned(),
        host: "elsewhere".to_owned(),
        pid: 1,
        start_ticks: 1,
    };
    let record = RunRecord {
        locks: vec!["service-orders".to_owned()],
        ..record
    };
    let shared = Arc::new(platform.clone());
    let journal = Journal::memory("rights");
    let mut run = Run::begin(shared, record, holder, Duration::from_secs(15), journal)
        .await
        .unwrap();
    for mode in [KillMode::default(), KillMode::Delete { grace_seconds: 0 }] {
        let victim = platform
            .service("orders")
            .await
            .unwrap()
            .ready()
            .next()
            .unwrap()
            .clone();
        run.kill(&victim, mode).await.unwrap();
        until("it was replaced", async || {
            platform.service("orders").await.unwrap().ready_of("v1") == 2
        })
        .await;
    }
    let hold = Hold {
        holder: "rights".to_owned(),
        reason: "a test".to_owned(),
        retry_after_seconds: 1,
    };
    run.change(&Field::hold("orders"), Some(hold.value())).await.unwrap();
    assert!(run.undo().await.unwrap().complete());
    run.close(Outcome::Passed, "done").await.unwrap();
    assert!(opsctl_platform::run::orphans(platform).await.unwrap().is_empty());
    assert!(platform.strays().await.unwrap().is_empty());
}

async fn a_server_that_is_gone_is_named(mut stage: Stage, shop: &Shop) {
    let url = stage.plane.url();
    stage.plane.server().kill();
    let error = shop.platform.service("orders").await.unwrap_err();
    assert!(
        matches!(error, PlatformError::Unreachable { .. }) && error.to_string().contains(&url),
        "{error}"
    );
}
