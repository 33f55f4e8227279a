//! The client for Prometheus against a real one, and against what is none.

#![expect(clippy::unwrap_used, reason = "a step of a test that fails is a failed test")]

mod exporter;

use std::time::Duration;

use exporter::Exporter;
use opsctl_platform::kube::{KubePlatform, Settings, Workload};
use opsctl_platform::prometheus::{Access, EndpointError, Prometheus, PrometheusError};
use opsctl_platform::{Platform as _, PlatformError};
use peers::{Server, servers};
use tokio::net::TcpListener;
use tokio::time::Instant;

fn client(url: &str) -> Prometheus {
    Prometheus::new(url, Access::Open, None).unwrap()
}

#[tokio::test]
async fn a_real_one_answers_with_raw_samples_and_says_what_it_scrapes() {
    const TEST: &str = "a_real_one_answers_with_raw_samples_and_says_what_it_scrapes";
    let exporter = Exporter::start("# TYPE shop_total counter\nshop_total{code=\"200\"} 7\n").await;
    let recipe = servers::Prometheus::default().scrape("shop", exporter.address);
    let Some(mut server) = Server::start(recipe, TEST).await else {
        return;
    };
    let prometheus = client(&server.url("http"));
    // A build of one's own says nothing of its version.
    prometheus.build_info().await.unwrap();

    // The samples of a range come with the times at which they were scraped, a second apart.
    let deadline = Instant::now() + Duration::from_secs(20);
    let series = loop {
        let series = prometheus.query("shop_total[1m]").await.unwrap().complete().unwrap();
        if series.first().is_some_and(|one| one.samples.len() >= 3) {
            break series;
        }
        assert!(Instant::now() < deadline, "no three samples within 20 s: {series:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(series[0].label("code"), "200");
    assert!(series[0].samples.iter().all(|sample| sample.value == Some(7.0)));
    let apart = series[0].samples[2].at_ms - series[0].samples[1].at_ms;
    assert!((900..1_100).contains(&apart), "{apart} ms apart");

    let targets = prometheus.targets().await.unwrap();
    assert_eq!(targets.len(), 1);
    assert_eq!(targets[0].labels["job"], "shop");
    assert!(targets[0].up && targets[0].scraped_at.is_some());
    assert_eq!(targets[0].interval, Some(Duration::from_secs(1)));

    // Nothing divided by nothing is no number, and an empty answer is none either.
    assert_eq!(prometheus.query("vector(0) / 0").await.unwrap().number(), None);
    assert_eq!(prometheus.query("absent_total").await.unwrap().number(), None);
    exporter.set("# TYPE shop_total counter\nshop_total{code=\"200\"} 8\n");
    while prometheus.query("shop_total").await.unwrap().number() != Some(8.0) {
        assert!(Instant::now() < deadline, "the new value was not scraped");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(prometheus.query("1 + 1").await.unwrap().number(), Some(2.0));

    let error = prometheus.query("sum(shop_total").await.unwrap_err();
    assert!(
        matches!(&error, PrometheusError::BadQuery { query, message } if query == "sum(shop_total" && message.contains("parse error")),
        "{error:?}"
    );

    server.kill();
    let error = prometheus.query("up").await.unwrap_err();
    assert!(
        matches!(error, PrometheusError::Endpoint(EndpointError::Unreachable { .. })),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_platform_on_kubernetes_gives_the_number_of_a_query() {
    const TEST: &str = "a_platform_on_kubernetes_gives_the_number_of_a_query";
    let Some(server) = Server::start(servers::Prometheus::default(), TEST).await else {
        return;
    };
    let orders = Workload {
        name: "orders".to_owned(),
        ..Workload::default()
    };
    let settings = Settings {
        prometheus: Some(server.url("http")),
        services: vec![orders],
        ..Settings::default()
    };
    // Nobody asks the API server.
    let config = kube::Config::new("https://127.0.0.1:1".parse().unwrap());
    let platform = KubePlatform::connect(settings.clone(), &config).unwrap();
    let number = async |query: &str| platform.number("orders", query).await;
    assert_eq!(number("1 + 1").await.unwrap(), Some(2.0));
    for nothing in [
        "vector(0) / 0",
        "absent_total",
        "vector(1) or label_replace(vector(2), \"a\", \"b\", \"\", \"\")",
    ] {
        assert_eq!(number(nothing).await.unwrap(), None, "{nothing}");
    }
    let error = number("sum(").await.unwrap_err();
    assert!(
        matches!(&error, PlatformError::Refused { why, .. } if why.contains("parse error")),
        "{error:?}"
    );
    let nowhere = Settings {
        prometheus: None,
        ..settings
    };
    let platform = KubePlatform::connect(nowhere, &config).unwrap();
    let error = platform.number("orders", "1").await.unwrap_err();
    assert!(matches!(error, PlatformError::NoTraffic { .. }), "{error:?}");
}

#[tokio::test]
async fn what_is_no_prometheus_is_one_clear_error() {
    let refusing = Exporter::answering("401 Unauthorized", "who are you").await;
    let error = Prometheus::new(
        &format!("http://{}", refusing.address),
        Access::Bearer("secret".to_owned()),
        None,
    )
    .unwrap()
    .query("up")
    .await
    .unwrap_err();
    assert!(
        matches!(error, PrometheusError::Endpoint(EndpointError::Forbidden { .. })),
        "{error:?}"
    );

    let page = Exporter::start("<html>welcome</html>").await;
    let error = client(&format!("http://{}/prometheus", page.address))
        .query("up")
        .await
        .unwrap_err();
    assert!(
        matches!(&error, PrometheusError::Endpoint(EndpointError::Foreign { at, .. }) if at.ends_with("/prometheus")),
        "{error:?}"
    );

    let flood = Exporter::start(&"x".repeat(17 << 20)).await;
    let error = client(&format!("http://{}", flood.address))
        .query("up")
        .await
        .unwrap_err();
    assert!(
        matches!(error, PrometheusError::Endpoint(EndpointError::TooLarge { .. })),
        "{error:?}"
    );

    let broken = Exporter::answering("502 Bad Gateway", "no upstream").await;
    let error = client(&format!("http://{}", broken.address))
        .query("up")
        .await
        .unwrap_err();
    assert!(
        matches!(&error, PrometheusError::Endpoint(EndpointError::Refused { status, .. }) if status.as_u16() == 502),
        "{error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn one_that_is_silent_is_given_up_on_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let began = Instant::now();
    let error = client(&format!("http://{}", silent.local_addr().unwrap()))
        .query("up")
        .await
        .unwrap_err();
    assert!(
        matches!(error, PrometheusError::Endpoint(EndpointError::TimedOut { .. })),
        "{error:?}"
    );
    assert!(began.elapsed() <= Duration::from_secs(13), "{:?}", began.elapsed());
}
