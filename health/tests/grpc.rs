//! grpc.health.v1 over a real connection with tonic's client: Check, Watch, unknown names, the cap, the drain.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::net::SocketAddr;
use std::time::Duration;

use health::{Drain, Health, Lifecycle, OnDown, Spec, State};
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Streaming};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

#[path = "support/dependency.rs"]
mod dependency;
use dependency::{Dependency, until};

const SERVING: i32 = 1;
const NOT_SERVING: i32 = 2;
const SERVICE_UNKNOWN: i32 = 3;

/// A service with a gRPC port, and its end.
struct Service {
    health: Health,
    life: Lifecycle,
    address: SocketAddr,
    ended: JoinHandle<bool>,
}

impl Service {
    async fn start(health: Health) -> Self {
        let times = Drain {
            delay: Duration::from_millis(300),
            timeout: Duration::from_secs(10),
            ..Drain::default()
        };
        let life = Lifecycle::without_signals(times).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = tonic::service::Routes::new(health.grpc_service()).into_axum_router();
        let ended = {
            let (life, health) = (life.clone(), health.clone());
            tokio::spawn(async move {
                let servers = life.serve(listener, app);
                life.run(&health, servers, |_| async {}).await.servers.is_some()
            })
        };
        Self {
            health,
            life,
            address,
            ended,
        }
    }

    fn client(&self) -> HealthClient<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        HealthClient::new(endpoint.connect_lazy())
    }

    async fn watch(&self, service: &str) -> Streaming<HealthCheckResponse> {
        self.client().watch(named(service)).await.unwrap().into_inner()
    }
}

fn named(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.to_owned(),
    }
}

/// The next status; `None` at the end of the stream.
async fn next(stream: &mut Streaming<HealthCheckResponse>) -> Option<i32> {
    let message = tokio::time::timeout(Duration::from_secs(20), stream.message()).await;
    message.expect("a status in time").unwrap().map(|reply| reply.status)
}

/// Nothing more comes for a while.
async fn is_silent(stream: &mut Streaming<HealthCheckResponse>) -> bool {
    tokio::time::timeout(Duration::from_millis(300), stream.message())
        .await
        .is_err()
}

/// Checks asked quickly, so that the test need not wait.
fn quick(spec: Spec) -> Spec {
    spec.interval(Duration::from_millis(40))
        .timeout(Duration::from_millis(30))
        .down_after(2)
        .up_after(1)
}

#[tokio::test(flavor = "multi_thread")]
async fn check_answers_for_every_name() {
    let (db, mail) = (Dependency::default(), Dependency::default());
    db.set_down(true);
    let health = Health::builder()
        .check(quick(Spec::critical("db", db.check())))
        .check(quick(Spec::degraded("mail", mail.check())))
        .group("storing", ["db"])
        .grpc_name("shop.v1.Shop")
        .grpc_name_of_group("shop.v1.Store", "storing")
        .build()
        .unwrap();
    let service = Service::start(health).await;
    let mut client = service.client();
    let mut ask = async |name: &str| client.check(named(name)).await.map(|reply| reply.get_ref().status);
    for (name, status) in [
        ("", NOT_SERVING),
        ("readiness", NOT_SERVING),
        ("liveness", SERVING),
        ("startup", NOT_SERVING),
        ("shop.v1.Shop", NOT_SERVING),
        ("shop.v1.Store", NOT_SERVING),
    ] {
        assert_eq!(ask(name).await.unwrap(), status, "{name} while starting");
    }
    db.set_down(false);
    until(&service.health, State::Ready).await;
    for name in ["", "readiness", "liveness", "startup", "shop.v1.Shop", "shop.v1.Store"] {
        assert_eq!(ask(name).await.unwrap(), SERVING, "{name} when ready");
    }
    db.set_down(true);
    until(&service.health, State::Degraded).await;
    assert_eq!(
        ask("shop.v1.Shop").await.unwrap(),
        SERVING,
        "readiness keeps the traffic"
    );
    assert_eq!(ask("shop.v1.Store").await.unwrap(), NOT_SERVING, "it follows its group");
    assert_eq!(ask("Shop").await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_tells_changes_once_and_keeps_who_asks_for_what_it_does_not_know() {
    let db = Dependency::default();
    let health = Health::builder()
        .check(quick(Spec::critical("db", db.check()).on_down(OnDown::NotReady)))
        .check(quick(Spec::degraded("noise", db.check())))
        .build()
        .unwrap();
    until(&health, State::Ready).await;
    let service = Service::start(health).await;
    let (mut whole, mut unknown) = (service.watch("").await, service.watch("who?").await);
    assert_eq!(next(&mut whole).await, Some(SERVING));
    assert_eq!(next(&mut unknown).await, Some(SERVICE_UNKNOWN));
    let before = db.asked();
    assert!(is_silent(&mut whole).await, "nothing has changed");
    assert!(db.asked() > before, "though the checks have run on");
    db.set_down(true);
    assert_eq!(next(&mut whole).await, Some(NOT_SERVING));
    assert!(is_silent(&mut whole).await);
    db.set_down(false);
    assert_eq!(next(&mut whole).await, Some(SERVING));
    assert!(is_silent(&mut unknown).await, "it stays open");
}

#[tokio::test(flavor = "multi_thread")]
async fn liveness_can_be_watched() {
    let beat = health::Heartbeat::new(Duration::from_millis(500));
    let of_check = beat.clone();
    let health = Health::builder()
        .liveness("loop", move || of_check.check())
        .build()
        .unwrap();
    let service = Service::start(health).await;
    beat.beat();
    let mut live = service.watch("liveness").await;
    assert_eq!(next(&mut live).await, Some(SERVING));
    assert_eq!(next(&mut live).await, Some(NOT_SERVING));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_tells_every_watcher_and_then_ends_its_stream() {
    let health = Health::builder()
        .check(quick(Spec::critical("db", || async {})))
        .build()
        .unwrap();
    until(&health, State::Ready).await;
    let service = Service::start(health).await;
    let mut streams = Vec::new();
    for name in ["", "readiness", "liveness", "startup", "who?"] {
        let mut stream = service.watch(name).await;
        let first = next(&mut stream).await.unwrap();
        streams.push((name, first, stream));
    }
    let began = tokio::time::Instant::now();
    service.life.drain();
    let mut client = service.client();
    for (name, first, stream) in &mut streams {
        if ["", "readiness"].contains(name) {
            assert_eq!(next(stream).await, Some(NOT_SERVING), "{name}");
            assert!(began.elapsed() < Duration::from_millis(300), "at once, not at the end");
        } else {
            assert_ne!(*first, NOT_SERVING, "{name} has nothing new to tell");
        }
    }
    let late = client.check(named("")).await.map(|reply| reply.get_ref().status);
    assert_eq!(late.unwrap(), NOT_SERVING, "new connections are still taken");
    for (name, _, stream) in &mut streams {
        assert_eq!(next(stream).await, None, "{name} ends in order");
    }
    assert!(service.ended.await.unwrap(), "nothing had to be cut");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_are_capped_and_their_places_come_back() {
    let service = Service::start(Health::builder().build().unwrap()).await;
    // One connection takes no more than some hundred streams.
    let clients: Vec<_> = (0..11).map(|_| service.client()).collect();
    let client = clients.last().unwrap();
    let mut streams = Vec::new();
    let refused = loop {
        match clients[streams.len() / 100].clone().watch(named("")).await {
            Ok(stream) => streams.push(stream),
            Err(status) => break status,
        }
        assert!(streams.len() <= 1024);
    };
    assert_eq!((refused.code(), streams.len()), (Code::ResourceExhausted, 1024));
    assert!(client.clone().check(named("")).await.is_ok());
    drop(streams);
    tokio::time::timeout(Duration::from_secs(20), async {
        while client.clone().watch(named("")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_listener_of_probes_has_grpc_too() {
    let health = Health::builder()
        .listen("127.0.0.1:0".parse().unwrap())
        .build()
        .unwrap();
    let address = health.listens_on().unwrap();
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let mut client = HealthClient::new(endpoint.connect_lazy());
    assert_eq!(client.check(named("liveness")).await.unwrap().get_ref().status, SERVING);
    let mut stream = client.watch(named("")).await.unwrap().into_inner();
    assert_eq!(next(&mut stream).await, Some(SERVING));
}
