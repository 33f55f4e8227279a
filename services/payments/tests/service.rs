//! The real binary, spoken to as its clients do: what it answers, what it refuses, how it starts and ends.
#![expect(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::net::TcpListener;

use chassis::trial::{FORGED, PROBES, Trial, request, until_async};
use proto::payments::v1::refund_payment_request::Target;
use proto::payments::v1::{
    ChargeStatus, ListChargesRequest, ProcessPaymentRequest, ProcessPaymentResponse, RefundPaymentRequest,
};
use support::client::{Client, EXE, charges, client, payment, refund};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

mod support {
    pub(crate) mod client;
}

async fn pay(client: &mut Client, request: ProcessPaymentRequest) -> Result<ProcessPaymentResponse, Status> {
    client.process_payment(request).await.map(tonic::Response::into_inner)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_charged_listed_and_refunded() {
    let folder = tempfile::tempdir().unwrap();
    let service = Trial::new(EXE, folder.path())
        .arg("--version-label")
        .arg("v1.2")
        .start()
        .await;
    let mut client = client(&service);

    let answer = client.process_payment(payment("o1", "k1", 1250)).await.unwrap();
    assert_eq!(answer.metadata().get("x-service-version").unwrap(), "v1.2");
    let charge = answer.into_inner().charge.unwrap();
    assert_eq!(
        (charge.status(), charge.amount_cents, charge.order_id.as_str()),
        (ChargeStatus::Charged, 1250, "o1")
    );
    assert!(pay(&mut client, payment("o1", "k1", 1250)).await.unwrap().replayed);

    let declined = pay(&mut client, payment("o2", "k2", 1_000_001))
        .await
        .unwrap()
        .charge
        .unwrap();
    assert_eq!(
        (declined.status(), declined.decline_reason.as_str()),
        (ChargeStatus::Declined, "over_limit")
    );

    let refunded = client.refund_payment(refund("o1", "r1")).await.unwrap().into_inner();
    assert!(!refunded.replayed);
    assert_eq!(refunded.charge.unwrap().status(), ChargeStatus::Refunded);
    assert!(
        client
            .refund_payment(refund("o1", "r2"))
            .await
            .unwrap()
            .into_inner()
            .replayed
    );

    let page = client
        .list_charges(ListChargesRequest {
            page_size: 1,
            ..Default::default()
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!((page.charges.len(), page.has_more), (1, true));
    let rest = ListChargesRequest {
        page_token: page.next_page_token,
        ..Default::default()
    };
    let page = client.list_charges(rest).await.unwrap().into_inner();
    assert_eq!(
        (page.charges.len(), page.charges[0].order_id.as_str(), page.has_more),
        (1, "o2", false)
    );
    let end = ListChargesRequest {
        page_token: page.next_page_token,
        ..Default::default()
    };
    let page = client.list_charges(end).await.unwrap().into_inner();
    assert!(page.charges.is_empty() && page.next_page_token.is_empty());

    assert!((service.metric("payments_processed_total{outcome=\"charged\"}").await - 1.0).abs() < 1e-9);
    assert!((service.metric("payments_refunded_total{outcome=\"replayed\"}").await - 1.0).abs() < 1e-9);
    let method = "grpc_server_handled_total{grpc_type=\"unary\",grpc_service=\"opsctl.payments.v1.Payments\",\
                  grpc_method=\"ProcessPayment\",grpc_code=\"OK\"}";
    assert!((service.metric(method).await - 3.0).abs() < 1e-9);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_error_has_its_own_code_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let service = Trial::new(EXE, folder.path()).start().await;
    let mut client = client(&service);
    pay(&mut client, payment("o1", "k1", 10)).await.unwrap();
    let sql = "x'); DELETE FROM charges; --";
    for (request, code) in [
        (payment("o1", "k1", 11), Code::AlreadyExists),
        (payment("o1", "k9", 10), Code::FailedPrecondition),
        (payment(sql, "k2", 10), Code::InvalidArgument),
        (payment("o2", sql, 10), Code::InvalidArgument),
        (payment("o2", FORGED, 10), Code::InvalidArgument),
        (payment("", "k2", 10), Code::InvalidArgument),
        (payment("o2", "k2", 0), Code::InvalidArgument),
        (payment("o2", "k2", i64::MIN), Code::InvalidArgument),
        (
            ProcessPaymentRequest {
                currency: "€€€".into(),
                ..payment("o2", "k2", 1)
            },
            Code::InvalidArgument,
        ),
        (ProcessPaymentRequest::default(), Code::InvalidArgument),
        (payment(&"x".repeat(1 << 20), "k2", 10), Code::OutOfRange),
    ] {
        let short = format!("{request:.100?}");
        assert_eq!(
            pay(&mut client, request).await.unwrap_err().code(),
            code,
            "{short:.200}"
        );
    }
    let unknown = RefundPaymentRequest {
        target: Some(Target::ChargeId(sql.into())),
        idempotency_key: "r".into(),
    };
    for (request, code) in [
        (refund("nobody", "r1"), Code::NotFound),
        (refund("o1", ""), Code::InvalidArgument),
        (unknown, Code::InvalidArgument),
        (
            RefundPaymentRequest {
                target: None,
                idempotency_key: "r".into(),
            },
            Code::InvalidArgument,
        ),
    ] {
        assert_eq!(client.refund_payment(request).await.unwrap_err().code(), code);
    }
    for request in [
        ListChargesRequest {
            page_token: "c1.x".into(),
            ..Default::default()
        },
        ListChargesRequest {
            page_token: "0".into(),
            ..Default::default()
        },
        ListChargesRequest {
            page_size: 1001,
            ..Default::default()
        },
        ListChargesRequest {
            order_id: sql.into(),
            ..Default::default()
        },
        ListChargesRequest {
            status: 77,
            ..Default::default()
        },
    ] {
        assert_eq!(
            client.list_charges(request).await.unwrap_err().code(),
            Code::InvalidArgument
        );
    }
    // Bytes that are no message, and no gRPC at all.
    request(service.grpc, b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let page = client
        .list_charges(ListChargesRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(page.charges.len(), 1);
    service.check_log();
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_tell_the_truth_whatever_the_fault() {
    let folder = tempfile::tempdir().unwrap();
    let service = Trial::new(EXE, folder.path())
        .arg("--fault")
        .arg("errors=100%")
        .start()
        .await;
    let mut client = client(&service);
    assert_eq!(
        pay(&mut client, payment("o1", "k1", 10)).await.unwrap_err().code(),
        Code::Internal
    );
    for path in PROBES.into_iter().chain(["/metrics"]) {
        let reply = service.get(path).await.unwrap();
        assert_eq!(
            (reply.status, reply.header("x-service-version")),
            (200, Some("dev")),
            "{path}"
        );
    }
    let mut health = HealthClient::new(service.channel());
    for name in ["", "opsctl.payments.v1.Payments", "liveness"] {
        let request = HealthCheckRequest { service: name.into() };
        assert_eq!(health.check(request).await.unwrap().into_inner().status, 1, "{name}");
    }
    let failed = "grpc_server_handled_total{grpc_type=\"unary\",grpc_service=\"opsctl.payments.v1.Payments\",\
                  grpc_method=\"ProcessPayment\",grpc_code=\"Internal\"}";
    assert!(
        (service.metric(failed).await - 1.0).abs() < 1e-9,
        "an injected error counts as one"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn its_metrics_tell_of_methods_database_and_runtime() {
    let folder = tempfile::tempdir().unwrap();
    let service = Trial::new(EXE, folder.path()).start().await;
    let text = service.get("/metrics").await.unwrap().body;
    for method in ["ProcessPayment", "RefundPayment", "ListCharges"] {
        let before =
            format!("grpc_service=\"opsctl.payments.v1.Payments\",grpc_method=\"{method}\",grpc_code=\"Internal\"}} 0");
        assert!(
            text.contains(&before),
            "{method} is there before its first call\n{text}"
        );
    }
    pay(&mut client(&service), payment("o1", "k1", 10)).await.unwrap();
    let call = "db_client_operation_duration_seconds_count{db_system_name=\"sqlite\",db_operation_name=\"INSERT\",\
                db_collection_name=\"charges\",error_type=\"\"}";
    for (series, wanted) in [
        (call, 1.0),
        ("db_pool_wait_seconds_count{pool=\"payments/writer\"}", 1.0),
        ("db_pool_connections_max{pool=\"payments/writer\"}", 1.0),
        ("db_pool_waiters{pool=\"payments/readers\"}", 0.0),
        (
            "grpc_server_started_total{grpc_type=\"unary\",grpc_service=\"opsctl.payments.v1.Payments\",grpc_method=\"ProcessPayment\"}",
            1.0,
        ),
    ] {
        let seen = service.metric(series).await;
        assert!((seen - wanted).abs() < 1e-9, "{series} is {seen}, not {wanted}");
    }
    assert!(service.metric("tokio_workers{runtime=\"main\"}").await >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_share_of_injected_errors_is_the_one_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let service = Trial::new(EXE, folder.path())
        .env("SERVICE_FAULT", "errors=20%,latency=1ms")
        .start()
        .await;
    let client = client(&service);
    let tasks: Vec<_> = (0..20)
        .map(|task| {
            let mut client = client.clone();
            tokio::spawn(async move {
                let mut failed = 0;
                for n in 0..100 {
                    let id = format!("{task}.{n}");
                    match pay(&mut client, payment(&id, &id, 10)).await {
                        Ok(_) => {}
                        Err(status) if status.code() == Code::Internal => failed += 1,
                        Err(status) => panic!("{status}"),
                    }
                }
                failed
            })
        })
        .collect();
    let mut failed = 0;
    for task in tasks {
        failed += task.await.unwrap();
    }
    // 400 of 2000 expected, standard deviation 18: outside of six of them once in 500 million runs.
    assert!((293..=507).contains(&failed), "{failed} of 2000");
    let charged = service.metric("payments_processed_total{outcome=\"charged\"}").await;
    assert!(
        (charged - f64::from(2000 - failed)).abs() < 1e-9,
        "what fails does not reach the handler"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_settings_end_it_with_one_line_and_code_2() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let trial = Trial::new(EXE, folder.path());
    let readable = folder.path().join("token");
    std::fs::write(&readable, "0123456789abcdef0123456789abcdef").unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    for (trial, words) in [
        (trial.clone().env("HTTP_ADDR", &address), "the port is taken"),
        (trial.clone().env("GRPC_ADDR", &address), "the port is taken"),
        (trial.clone().env("GRPC_ADDR", "8080"), "--grpc-addr"),
        (
            trial.clone().env("HTTP_ADDR", "192.0.2.1:80"),
            "cannot listen on 192.0.2.1:80",
        ),
        (trial.clone().env("SERVICE_FAULT", "errors=2"), "percent"),
        (trial.clone().env("DRAIN_DELAY", "soon"), "DRAIN_DELAY"),
        (trial.clone().env("DRAIN_TIMEOUT", "27s"), "must be less than grace 30s"),
        (
            trial.clone().env("HEALTH_CHECKS__DATABASE__TIMEOUT", "20s"),
            "health.checks.database.timeout",
        ),
        (
            trial.clone().env("HEALTH_CHECKS__NOTHING__KIND", "critical"),
            "there is no such check; there are: database",
        ),
        (trial.clone().env("HEALTH_LISTEN", &address), "health.listen"),
        (trial.clone().env("ADMIN_ADDR", "0.0.0.0:0"), "not loopback"),
        (
            trial
                .clone()
                .env("ADMIN_ADDR", "127.0.0.1:0")
                .env("ADMIN_TOKEN_FILE", readable.to_str().unwrap()),
            "others may read it",
        ),
        (
            trial
                .clone()
                .env("DATA_DIR", folder.path().join("file/deeper").to_str().unwrap()),
            "cannot make",
        ),
        (trial.clone().arg("--no-such-flag"), "--no-such-flag"),
    ] {
        let (code, stdout, stderr) = trial.run_to_end().await;
        assert_eq!(code, Some(2), "{stderr}{stdout}");
        assert!(stderr.contains(words), "{words} in {stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_loses_no_call_and_ends_with_0() {
    let folder = tempfile::tempdir().unwrap();
    let mut service = Trial::new(EXE, folder.path())
        .env("DRAIN_DELAY", "500ms")
        .env("SERVICE_FAULT", "latency=800ms")
        .start()
        .await;
    let mut health = HealthClient::new(service.channel());
    let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status, 1);
    // Clients that keep calling until they are told that the service is going, as a balancer would.
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let tasks: Vec<_> = (0..16)
        .map(|task| {
            // A connection each.
            let (mut client, stopped) = (client(&service), stopped.clone());
            tokio::spawn(async move {
                let mut done = 0;
                while !*stopped.borrow() {
                    let id = format!("{task}.{done}");
                    pay(&mut client, payment(&id, &id, 10)).await.unwrap();
                    done += 1;
                }
                done
            })
        })
        .collect();
    pay(&mut client(&service), payment("first", "first", 10)).await.unwrap();
    until_async("each client's call has begun", || async {
        let begun = service.metric("grpc_server_started_total").await;
        (begun >= 17.0).then_some(())
    })
    .await;
    service.terminate();
    let told = watch.message().await.unwrap().unwrap();
    assert_eq!(told.status, 2, "NOT_SERVING");
    let reply = service.get("/health/ready").await.unwrap();
    assert_eq!(
        (reply.status, service.get("/health/live").await.unwrap().status),
        (503, 200)
    );
    stop.send(true).unwrap();
    let mut done = 0;
    for task in tasks {
        done += task.await.expect("no call failed");
    }
    assert!(
        watch.message().await.unwrap().is_none(),
        "a watch ends and does not hold up the drain"
    );
    assert_eq!(service.until_ended().await.code(), Some(0));
    drop(service);

    let service = Trial::new(EXE, folder.path()).start().await;
    assert_eq!(charges(&mut client(&service)).await.len(), done + 1);
}
