//! An alert on a service of a cluster, proved by a drill: Prometheus knows of the pods what the cluster's own says, and a
//! real Alertmanager is told.

use std::fs;

use peers::{Server, servers};

use crate::shop::Shop;

const RULES: &str = r#"
groups:
- name: shop
  rules:
  - {alert: NotificationsGone, expr: 'absent(up{service="notifications"} == 1)', for: 2s}
"#;

/// Tells whoever is listening at once.
const ROUTES: &str = "route: {receiver: nobody, group_wait: 1s}\nreceivers: [{name: nobody}]\n";

#[tokio::test]
async fn an_alert_on_pods_that_are_gone_is_proved() {
    let test = "an_alert_on_pods_that_are_gone_is_proved";
    let Some(shop) = Shop::open(test, &["notifications"]).await else {
        return;
    };
    let Some(alertmanager) = Server::start(servers::Alertmanager::new(ROUTES), test).await else {
        return;
    };
    let before = shop.state("notifications").await;
    let prometheus = prometheus(&shop, &alertmanager, test).await;
    let file = shop.sandbox.path("opsctl.toml");
    let text = fs::read_to_string(&file).expect("the catalogue");
    let theirs = format!("prometheus = \"http://{}\"", shop.cluster.prometheus());
    assert!(text.contains(&theirs), "{text}");
    let ours = format!("prometheus = {:?}", prometheus.url("http"));
    shop.sandbox.write("opsctl.toml", &text.replace(&theirs, &ours));
    shop.until("the pods are scraped", async || {
        let query = "/api/v1/query?query=up%7Bservice%3D%22notifications%22%7D%20%3D%3D%201";
        let answer = peers::http::get(prometheus.address("http"), query).await;
        answer.is_ok_and(|answer| answer.body.contains("\"metric\":{"))
    })
    .await;
    // Until then it had nothing of the pods, and may have called that an outage.
    shop.until("no alert is left of the time before", async || {
        let answer = peers::http::get(prometheus.address("http"), "/api/v1/alerts").await;
        answer.is_ok_and(|answer| answer.body.contains("\"alerts\":[]"))
    })
    .await;

    let words = [
        "drill",
        "service-down",
        "notifications",
        "--for=1s",
        "--yes",
        "--json",
        "--expect-alert=NotificationsGone,within=90s",
    ];
    let report = shop.opsctl(&words).await.json();
    let alert = &report["alerts"][0];
    println!("on a cluster: {alert}");
    assert_eq!(alert["proof"], "proved", "{report}");
    shop.settles("notifications", &before).await;
    let status = shop.opsctl(&["recovery", "status", "--json"]).await.ended(0).json();
    assert_eq!(status["alerts"][0]["last_proved"]["run"], report["run"], "{status}");
    // The others that work here ask the cluster's own.
    shop.sandbox.write("opsctl.toml", &text);
}

/// One that takes over what the cluster's Prometheus scrapes, each second, and evaluates our rules.
async fn prometheus(shop: &Shop, alertmanager: &Server, test: &str) -> Server {
    shop.sandbox.write("rules.yaml", RULES);
    shop.sandbox.write(
        "prometheus.yaml",
        &format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
             rule_files: [{rules}]\n\
             alerting: {{alertmanagers: [{{static_configs: [{{targets: [\"{told}\"]}}]}}]}}\n\
             scrape_configs:\n\
             - job_name: cluster\n  metrics_path: /federate\n  honor_labels: true\n  \
             params: {{'match[]': ['{{namespace=\"shop\"}}']}}\n  \
             static_configs: [{{targets: [\"{theirs}\"]}}]\n",
            rules = shop.sandbox.path("rules.yaml").display(),
            told = alertmanager.address("http"),
            theirs = shop.cluster.prometheus(),
        ),
    );
    let recipe = servers::Prometheus::default().configuration(shop.sandbox.path("prometheus.yaml"));
    Server::start(recipe, test)
        .await
        .expect("Alertmanager is installed, and so is Prometheus")
}
