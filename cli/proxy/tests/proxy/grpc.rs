//! gRPC through the proxy: unary, streams both ways, trailers, and statuses that count as errors.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use opsctl_proxy_control::{Fault, FaultKind, Hold};
use tonic::Code;
use tonic::transport::{Channel, Server, server::TcpIncoming};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::support::{Proxy, Upstream, backend, http2, until};

fn check(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.to_owned(),
    }
}

#[tokio::test]
async fn calls_streams_and_statuses_pass() {
    let proxy = Proxy::fresh(|_| {}).await;
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter.set_service_status("shop", ServingStatus::Serving).await;
    // A runtime of its own, so that it can be killed as a process would be.
    let instance = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("runtime");
    let (tell, told) = tokio::sync::oneshot::channel();
    instance.spawn(async move {
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().expect("address")).expect("bind");
        tell.send(incoming.local_addr().expect("address")).expect("told");
        Server::builder()
            .add_service(service)
            .serve_with_incoming(incoming)
            .await
    });
    let upstream = told.await.expect("the instance started");
    let (_, addr) = proxy.route(vec![backend("orders-1", "v1", upstream)]).await;

    let channel = Channel::from_shared(format!("http://{addr}"))
        .expect("address")
        .connect()
        .await
        .expect("connect");
    let mut client = HealthClient::new(channel);
    let answer = client.check(check("shop")).await.expect("unary").into_inner();
    assert_eq!(answer.status, 1);
    let missing = client.check(check("nobody")).await.expect_err("a status in trailers");
    assert_eq!(missing.code(), Code::NotFound);
    let mut watch = client.watch(check("shop")).await.expect("stream").into_inner();
    assert_eq!(watch.next().await.expect("a message").expect("good").status, 1);
    reporter.set_service_status("shop", ServingStatus::NotServing).await;
    assert_eq!(watch.next().await.expect("a message").expect("good").status, 2);
    drop(watch);
    until("the stream is counted", || async {
        (proxy.counters().await.versions[0].in_flight == 0).then_some(())
    })
    .await;
    let version = &proxy.counters().await.versions[0];
    assert_eq!(
        (version.requests, version.errors),
        (3, 0),
        "NOT_FOUND is the caller's error: {version:?}"
    );

    let fault = Fault {
        id: "f".to_owned(),
        service: "orders".to_owned(),
        kind: FaultKind::Error { status: 500 },
        percent: 100.0,
        ttl_seconds: 60,
        run: "r".to_owned(),
        version: None,
    };
    proxy.client.put_fault(&fault).await.expect("put");
    assert_eq!(
        client.check(check("shop")).await.expect_err("injected").code(),
        Code::Unavailable
    );
    proxy.client.delete_fault("f").await.expect("removed");
    let hold = Hold {
        retry_after_seconds: 1,
        reason: "restore".to_owned(),
    };
    proxy.client.set_hold("orders", Some(hold)).await.expect("held");
    assert_eq!(
        client.check(check("shop")).await.expect_err("held").code(),
        Code::Unavailable
    );
    proxy.client.set_hold("orders", None).await.expect("let go");
    client.check(check("shop")).await.expect("again");

    instance.shutdown_background();
    let lost = client.check(check("shop")).await.expect_err("no instance");
    assert_eq!(lost.code(), Code::Unavailable);
    let unknown = client.check(check("shop")).await.expect_err("no instance");
    assert_eq!(unknown.code(), Code::Unavailable);
    let counters = proxy.counters().await;
    assert_eq!(
        counters.versions[0].errors + counters.unrouted_errors,
        3,
        "{counters:?}"
    );
    proxy.stop().await;
}

#[tokio::test]
async fn messages_go_both_ways_while_the_call_is_open_and_trailers_arrive() {
    let proxy = Proxy::fresh(|_| {}).await;
    let v1 = Upstream::start("v1");
    let (_, addr) = proxy.route(vec![backend("orders-1", "v1", v1.addr)]).await;
    let mut sender = http2(addr).await;
    let (send, messages) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, std::convert::Infallible>>(4);
    let body = StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(messages));
    let request = Request::post("http://orders/echo")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .expect("request");
    send.send(Ok(Frame::data(Bytes::from_static(b"0"))))
        .await
        .expect("open");
    let mut echoed = sender
        .send_request(request)
        .await
        .expect("headers before the end")
        .into_body();
    for n in 1..50 {
        let frame = echoed
            .frame()
            .await
            .expect("an echo")
            .expect("good")
            .into_data()
            .expect("data");
        assert_eq!(frame, Bytes::from((n - 1).to_string()));
        send.send(Ok(Frame::data(Bytes::from(n.to_string()))))
            .await
            .expect("open");
    }
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static("13"));
    send.send(Ok(Frame::trailers(trailers))).await.expect("open");
    drop(send);
    let rest = echoed.collect().await.expect("whole");
    assert_eq!(rest.trailers().expect("trailers")["grpc-status"], "13");
    let version = &proxy.counters().await.versions[0];
    assert_eq!((version.requests, version.errors), (1, 1), "INTERNAL is an error");

    // HTTP/1.1 on the gRPC port is no gRPC and gets no answer.
    let plain = tokio::time::timeout(Duration::from_secs(10), super::support::get(addr, "/", &[])).await;
    assert!(plain.expect("ends").is_err());
    proxy.stop().await;
}
