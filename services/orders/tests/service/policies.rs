//! The policies of orders: from TOML, live on the admin listener, and as health checks.

use chassis::trial::{Trial, until_async};
use orders::peers::POLICIES;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::stack::{Stack, admin_socket, book, sibling};

#[test]
fn the_compiled_in_text_has_a_policy_for_each_peer() {
    for peer in ["payments", "notifications", "identity"] {
        let policy = resilience::Pipeline::from_toml(POLICIES, peer).unwrap();
        assert!(policy.breaker().is_some(), "{peer}");
    }
    let payments = resilience::Pipeline::from_toml(POLICIES, "payments")
        .unwrap()
        .snapshot();
    assert_eq!(payments.bulkhead.unwrap().limit, 128);
    let budget = payments.retry.unwrap().budget.unwrap();
    assert!((budget.limit_ratio - 0.2).abs() < 1e-9);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_policies_end_the_start_with_one_line_and_code_2() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policies.toml");
    let trial = Trial::new(&sibling("orders"), folder.path()).env("POLICIES_FILE", file.to_str().unwrap());
    let payments = POLICIES.split("[policy.notifications]").next().unwrap();
    for (text, words) in [
        (POLICIES.replacen("total = \"4s\"", "totl = \"4s\"", 1), "`totl`"),
        (
            POLICIES.replacen("attempt = \"1s\"", "attempt = \"9s\"", 1),
            "timeout.attempt",
        ),
        (
            POLICIES.replacen("failure_ratio = 0.5", "failure_ratio = 1.5", 1),
            "breaker.failure_ratio",
        ),
        (payments.to_owned(), "there is no [policy.notifications]"),
        ("nonsense".to_owned(), "line 1"),
    ] {
        std::fs::write(&file, text).unwrap();
        let (code, stdout, stderr) = trial.run_to_end().await;
        assert_eq!(code, Some(2), "{stderr}{stdout}");
        assert!(
            stderr.contains(words) && stderr.contains("policies.toml"),
            "{words} in {stderr}"
        );
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
    std::fs::remove_file(&file).unwrap();
    let (code, _, stderr) = trial.run_to_end().await;
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("it cannot be read"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_forced_open_stops_charges_and_degrades_until_it_is_reset() {
    let stack = Stack::start(1).await;
    let socket = admin_socket(&stack.folder, 0);
    let admin = reqwest::Client::builder().unix_socket(socket).build().unwrap();
    let policies: Vec<Value> = admin
        .get("http://x/policies")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let names: Vec<&str> = policies.iter().filter_map(|policy| policy["name"].as_str()).collect();
    assert_eq!(names, ["payments", "notifications", "identity"]);

    let force = admin.post("http://x/policies/payments/force");
    let forced = force
        .json(&json!({"state": "open", "actor": "ann@desk"}))
        .send()
        .await
        .unwrap();
    assert_eq!(forced.status(), StatusCode::OK);
    let instance = &stack.orders[0].instance;
    until_async("the check says so", || async {
        let up = instance.metric("health_check_up{check=\"breaker:payments\"}").await;
        (up < 0.5).then_some(())
    })
    .await;
    let ready = instance.get("/health/ready").await.unwrap();
    assert_eq!((ready.status, ready.json()["status"].as_str()), (200, Some("warn")));
    let id = stack.place(&book(1, 100, "here")).await;
    until_async("the charge is refused", || async {
        let rejected = "circuit_breaker_calls_total{name=\"payments\",outcome=\"rejected\"}";
        (instance.metric(rejected).await > 0.5).then_some(())
    })
    .await;
    assert!(stack.charges(&id).await.is_empty());

    let reset = admin.post("http://x/policies/payments/reset").send().await.unwrap();
    assert_eq!(reset.status(), StatusCode::OK);
    stack.until(&id, "delivered").await;
    until_async("the check passes again", || async {
        let up = instance.metric("health_check_up{check=\"breaker:payments\"}").await;
        (up > 0.5).then_some(())
    })
    .await;
}
