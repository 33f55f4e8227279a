//! All services at once cost one question for each page of Deployments, pods and routes, however many services there are.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opsctl_platform::kube::KubePlatform;
use opsctl_platform::{InstanceState, Platform as _};
use serde_json::{Value, json};

use crate::stage::{deployment, settings};

/// Services on the server that is played; a page holds as many.
const PAGE: usize = 3;
const PAGES: usize = 4;

fn pod(number: usize) -> Value {
    let name = format!("service-{number}");
    json!({
        "metadata": {
            "name": format!("{name}-abc-xyz"),
            "uid": format!("uid-{number}"),
            "labels": { "pod-template-hash": "abc", "app.kubernetes.io/version": "v1" },
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{name}-abc"), "uid": "u" }],
        },
        "spec": { "containers": [{ "name": name, "image": format!("opsctl/{name}:v1") }] },
        "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] },
    })
}

/// One page of a list, and the token of the next.
fn page(path: &str, query: &str) -> Value {
    let token = query.split('&').find_map(|part| part.strip_prefix("continue="));
    let number: usize = token.map_or(0, |token| token.parse().unwrap());
    let here = number * PAGE..(number + 1) * PAGE;
    let (version, kind, items): (_, _, Vec<Value>) = match path.rsplit('/').next().unwrap() {
        "deployments" => (
            "apps/v1",
            "Deployment",
            here.map(|number| deployment("shop", &format!("service-{number}"), "v1", 1))
                .collect(),
        ),
        "pods" => ("v1", "Pod", here.map(pod).collect()),
        _ => ("gateway.networking.k8s.io/v1", "Route", Vec::new()),
    };
    let more = !items.is_empty() && number + 1 < PAGES;
    let next = if more { (number + 1).to_string() } else { String::new() };
    json!({ "apiVersion": version, "kind": format!("{kind}List"), "metadata": { "continue": next }, "items": items })
}

/// An API server that is played: answers lists and notes what it was asked.
async fn serve(asked: Arc<Mutex<Vec<String>>>) -> http::Uri {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let asked = Arc::clone(&asked);
            let answer = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let uri = request.uri().clone();
                asked.lock().unwrap().push(uri.to_string());
                let body = page(uri.path(), uri.query().unwrap_or_default()).to_string();
                async move { Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from(body)))) }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    });
    url.parse().unwrap()
}

#[tokio::test]
async fn all_services_cost_as_many_questions_as_there_are_pages() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let config = kube::Config::new(serve(Arc::clone(&asked)).await);
    let names: Vec<String> = (0..PAGE * PAGES).map(|number| format!("service-{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let platform = KubePlatform::connect(settings("shop", &names), &config).unwrap();

    let states = platform.states().await.unwrap();

    assert_eq!(states.len(), PAGE * PAGES);
    for state in &states {
        assert_eq!((state.ready_of("v1"), state.settled()), (1, true), "{}", state.name);
        assert_eq!(state.instances[0].state, InstanceState::Ready);
    }
    let asked = asked.lock().unwrap();
    let of = |kind: &str| asked.iter().filter(|uri| uri.contains(kind)).count();
    assert_eq!((of("/deployments?"), of("/pods?")), (PAGES, PAGES), "{asked:?}");
    assert_eq!(asked.len(), 2 * PAGES + of("/httproutes?") + of("/grpcroutes?"));
    assert!(
        of("/httproutes?") <= 1 && asked.iter().all(|uri| uri.contains("limit=500")),
        "{asked:?}"
    );
}
