//! Which instance a request gets, and that every one is counted.

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt as _, Full};
use opsctl_proxy_control::{ControlError, Hold, RouteConfig, Rule, RuleSource, token};

use super::support::{Connection, backend, config, get, http2, one, several, until, weight};

#[tokio::test]
async fn one_port_speaks_http1_and_http2_and_forwards_cleanly() {
    let (proxy, _v1, addr) = one().await;

    let seen = get(
        addr,
        "/headers",
        &[
            ("connection", "x-private"),
            ("x-private", "1"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("x-forwarded-for", "10.0.0.9"),
        ],
    )
    .await
    .expect("HTTP/1.1");
    assert!(
        seen.body.contains("x-forwarded-for: 10.0.0.9, 127.0.0.1"),
        "{}",
        seen.body
    );
    assert!(seen.body.contains("host: orders"), "{}", seen.body);
    for gone in ["x-private", "upgrade", "connection", "te:"] {
        assert!(!seen.body.contains(gone), "{gone} in {}", seen.body);
    }

    let mut sender = http2(addr).await;
    for _ in 0..3 {
        let request = Request::get("http://shop.local/headers")
            .body(Full::<Bytes>::default())
            .expect("request");
        let response = sender.send_request(request).await.expect("response");
        assert_eq!(response.version(), Version::HTTP_2);
        let body = response.into_body().collect().await.expect("body").to_bytes();
        let body = String::from_utf8_lossy(&body);
        assert!(body.contains("host: shop.local"), "{body}");
    }
    assert_eq!(proxy.counters().await.versions[0].requests, 4);
    proxy.stop().await;
}

#[tokio::test]
async fn weights_hold_per_request_and_changing_them_drops_nothing() {
    let (proxy, [v1, v2], addr) = several([("v1", "v1"), ("v2", "v2")]).await;
    let mut connection = Connection::open(addr).await;
    let mut expect = None;
    for percent in [0, 10, 50, 99, 100, 0] {
        proxy.weigh(expect, percent, 60).await;
        expect = Some(("v2", percent));
        let mut canary = 0;
        for _ in 0..300 {
            let seen = connection.get("/", &[]).await.expect("the connection stays");
            canary += u32::from(seen.body == "v2");
        }
        // Far inside the binomial bounds: the share is exact in every hundred.
        assert_eq!(canary, 3 * u32::from(percent), "at {percent} %");
    }
    let counters = proxy.counters().await;
    let requests: Vec<u64> = counters.versions.iter().map(|version| version.requests).collect();
    assert_eq!(requests, [1800 - 777, 777]);
    assert_eq!((v1.seen(), v2.seen()), (1800 - 777, 777));

    // A version without a ready instance gets nothing, whatever its weight.
    proxy.weigh(Some(("v2", 0)), 100, 60).await;
    let mut resting = backend("orders-2", "v2", v2.addr);
    resting.ready = false;
    proxy
        .client
        .set_backends("orders", vec![backend("orders-1", "v1", v1.addr), resting])
        .await
        .expect("set");
    assert_eq!(connection.get("/", &[]).await.expect("answer").body, "v1");
    proxy.stop().await;
}

#[tokio::test]
async fn a_weight_is_a_lease_that_only_its_holder_renews() {
    let (proxy, [_v1, _v2], addr) = several([("v1", "v1"), ("v2", "v2")]).await;
    let control = &proxy.client;
    proxy.weigh(None, 100, 60).await;
    assert_eq!(get(addr, "/", &[]).await.expect("answer").body, "v2");

    let wrong = control.compare_and_set_weight("orders", Some(("v2", 10)), None).await;
    let Err(ControlError::Conflict {
        actual: Some(actual), ..
    }) = wrong
    else {
        panic!("{wrong:?}")
    };
    assert_eq!((actual.percent, actual.holder.as_str()), (100, "run-1"));
    let stranger = control.renew_weight("orders", "run-2", 60).await;
    assert!(matches!(stranger, Err(ControlError::Conflict { .. })), "{stranger:?}");

    control
        .renew_weight("orders", "run-1", 1)
        .await
        .expect("renewed to a second");
    until("the canary gets nothing any more", || async {
        (get(addr, "/", &[]).await.expect("answer").body == "v1").then_some(())
    })
    .await;
    let lapsed = control.weight("orders").await.expect("weight").expect("stays readable");
    assert_eq!(
        (lapsed.percent, lapsed.lapsed_percent, lapsed.ttl_seconds),
        (0, Some(100), 0)
    );
    let late = control.renew_weight("orders", "run-1", 60).await;
    assert!(matches!(late, Err(ControlError::Conflict { .. })), "{late:?}");
    // Undoing what one set oneself works although it has lapsed.
    control
        .compare_and_set_weight("orders", Some(("v2", 100)), None)
        .await
        .expect("undone");
    assert_eq!(control.weight("orders").await.expect("weight"), None);

    for (percent, ttl) in [(101, 60), (140, 60), (10, 0), (10, 601)] {
        let refused = control
            .compare_and_set_weight("orders", None, Some(weight(percent, ttl)))
            .await;
        assert!(
            matches!(refused, Err(ControlError::Invalid { .. })),
            "{percent} {ttl}: {refused:?}"
        );
    }
    let unknown = control.weight("nobody").await;
    assert!(
        matches!(unknown, Err(ControlError::UnknownService { .. })),
        "{unknown:?}"
    );
    proxy.stop().await;
}

#[tokio::test]
async fn rules_and_signed_marks_choose_a_version_and_forged_marks_vanish() {
    let (proxy, [_v1, _v2], addr) = several([("v1", "v1"), ("v2", "v2")]).await;
    let rule = |source, name: &str| Rule {
        source,
        name: name.to_owned(),
        value: "beta".to_owned(),
        version: "v2".to_owned(),
    };
    let rules = vec![rule(RuleSource::Header, "X-Group"), rule(RuleSource::Cookie, "group")];
    proxy
        .client
        .put_route(&RouteConfig { rules, ..config() })
        .await
        .expect("rules");
    let secret = token::read_secret(&proxy.folder.join("proxy.secret")).expect("secret");
    let signed = token::sign(&secret, "orders", "v2", u64::from(u32::MAX));
    let cookie = format!("a=1; x-opsctl-canary={signed}");
    let expired = token::sign(&secret, "orders", "v2", 1);
    for (name, value, version) in [
        ("x-group", "beta", "v2"),
        ("x-group", "alpha", "v1"),
        ("cookie", "a=1; group=beta", "v2"),
        ("cookie", "group=betas", "v1"),
        ("x-opsctl-canary", "v2", "v1"),
        ("x-opsctl-canary", &expired, "v1"),
        ("x-opsctl-canary", &signed, "v2"),
        ("cookie", &cookie, "v2"),
    ] {
        let seen = get(addr, "/", &[(name, value)]).await.expect("answer");
        assert_eq!(seen.body, version, "{name}: {value}");
    }
    let seen = get(
        addr,
        "/headers",
        &[("x-opsctl-canary", "v2"), ("cookie", "x-opsctl-canary=v2; a=1")],
    )
    .await
    .expect("answer");
    assert!(!seen.body.contains("x-opsctl-canary"), "{}", seen.body);
    assert!(seen.body.contains("cookie: a=1"), "{}", seen.body);
    proxy.stop().await;
}

#[tokio::test]
async fn a_held_service_answers_503_and_reaches_no_instance() {
    let (proxy, v1, addr) = one().await;
    let hold = Hold {
        retry_after_seconds: 7,
        reason: "restore".to_owned(),
    };
    proxy.client.set_hold("orders", Some(hold)).await.expect("held");
    let seen = get(addr, "/", &[]).await.expect("answer");
    assert_eq!(
        (seen.status.as_u16(), &seen.headers["retry-after"]),
        (503, &"7".parse().expect("value"))
    );
    get(addr, "/", &[("x-opsctl-probe", "run-1")]).await.expect("answer");
    proxy.client.set_hold("orders", None).await.expect("let go");
    assert_eq!(get(addr, "/", &[]).await.expect("answer").body, "v1");
    let counters = proxy.counters().await;
    assert_eq!((counters.held_rejections, counters.probe_held_rejections), (1, 1));
    assert_eq!((counters.versions[0].requests, v1.seen()), (1, 1));
    proxy.stop().await;
}

#[tokio::test]
async fn every_request_is_counted_once_where_it_belongs() {
    let (proxy, [one, two], addr) = several([("one", "v1"), ("two", "v1")]).await;
    let load = (0..8).map(|worker| async move {
        let mut connection = Connection::open(addr).await;
        for n in 0..50 {
            let path = if n % 10 == 0 { "/status/500" } else { "/" };
            let probe: &[(&str, &str)] = if worker < 2 { &[("x-opsctl-probe", "r")] } else { &[] };
            connection.get(path, probe).await.expect("answer");
        }
    });
    futures::future::join_all(load).await;
    let _ = get(addr, "/gone", &[]).await;
    let _ = get(addr, "/break", &[]).await;
    let _ = get(addr, "/status/404", &[]).await;
    let counters = proxy.counters().await;
    let version = &counters.versions[0];
    assert_eq!(
        (version.requests, version.errors, version.in_flight),
        (303, 32, 0),
        "{counters:?}"
    );
    assert_eq!(
        (version.probe_requests, version.probe_errors),
        (100, 10),
        "{counters:?}"
    );
    let by_instance: u64 = counters.instances.iter().map(|i| i.requests + i.probe_requests).sum();
    assert_eq!((by_instance, one.seen() + two.seen()), (403, 403));
    assert!(
        counters.instances.iter().all(|i| i.requests > 100),
        "equals take turns: {counters:?}"
    );

    // Slower than the objective, which nothing can meet now.
    let strict = RouteConfig {
        latency_objective_ms: 0,
        ..config()
    };
    proxy.client.put_route(&strict).await.expect("objective");
    let waiting = tokio::spawn(async move { get(addr, "/gate", &[]).await.expect("answer") });
    until("it is under way", || async {
        (proxy.counters().await.versions[0].in_flight == 1).then_some(())
    })
    .await;
    one.open_gate();
    two.open_gate();
    waiting.await.expect("no panic");
    let version = &proxy.counters().await.versions[0];
    assert_eq!(
        (version.requests, version.over_objective, version.in_flight),
        (304, 1, 0)
    );

    let metrics = proxy.client.metrics().await.expect("metrics");
    for line in [
        "proxy_requests_total{service=\"orders\",version=\"v1\",code=\"5xx\"} 41",
        "proxy_over_objective_total{service=\"orders\",version=\"v1\"} 1",
        "proxy_request_duration_seconds_count{service=\"orders\",version=\"v1\"} 404",
    ] {
        assert!(metrics.contains(line), "{line} not in\n{metrics}");
    }
    assert!(metrics.ends_with("# EOF\n"));
    proxy.stop().await;
}
