//! A hop between a client and a server: what it passes on, what each fault does to connections under way and to new ones,
//! and that all of it ends. Last, PostgreSQL behind one.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opsctl_proxy::hop::{Forward, Hop, Options};
use opsctl_proxy_control::{ControlError, Fault, FaultKind, HopClient, HopCounters};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(10);

/// A hop that runs, until it is dropped.
struct Scene {
    addr: SocketAddr,
    control: SocketAddr,
    client: HopClient,
    shutdown: CancellationToken,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Scene {
    async fn to(to: String) -> Self {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let shutdown = CancellationToken::new();
        let forward = Forward { listen: any, to };
        let options = Options::new(vec![forward], any, "secret".to_owned(), shutdown.clone());
        let hop = Hop::bind(options).await.unwrap();
        let (addr, control) = (hop.addrs()[0], hop.control().unwrap());
        tokio::spawn(hop.run());
        Self {
            addr,
            control,
            client: HopClient::new("secret"),
            shutdown,
        }
    }

    async fn put(&self, kind: FaultKind, ttl_seconds: u64) {
        let stream = HopClient::connect(self.control).await.unwrap();
        self.client.put_fault(stream, &fault(kind, ttl_seconds)).await.unwrap();
    }

    async fn end(&self) {
        let stream = HopClient::connect(self.control).await.unwrap();
        self.client.delete_fault(stream, "run-1").await.unwrap();
    }

    async fn counters(&self) -> HopCounters {
        let stream = HopClient::connect(self.control).await.unwrap();
        self.client.counters(stream).await.unwrap()
    }
}

fn fault(kind: FaultKind, ttl_seconds: u64) -> Fault {
    Fault {
        id: "run-1".to_owned(),
        service: "database".to_owned(),
        kind,
        percent: 100.0,
        ttl_seconds,
        run: "run-1".to_owned(),
        version: None,
    }
}

/// Sends back what it gets; counts its connections.
async fn echo() -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
                let _ = to.shutdown().await;
            });
        }
    });
    (addr, connections)
}

async fn with_echo() -> (Scene, Arc<AtomicU64>) {
    let (addr, connections) = echo().await;
    (Scene::to(addr.to_string()).await, connections)
}

/// Sends a word and waits for it; how long that took.
async fn round(stream: &mut TcpStream) -> std::io::Result<Duration> {
    let begun = Instant::now();
    stream.write_all(b"hello").await?;
    let mut word = [0; 5];
    stream.read_exact(&mut word).await?;
    assert_eq!(&word, b"hello");
    Ok(begun.elapsed())
}

#[tokio::test]
async fn without_a_fault_every_byte_passes_and_a_half_closed_connection_is_one() {
    let (scene, _) = with_echo().await;
    let sent: Vec<u8> = (0..4_000_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let (mut from, mut to) = TcpStream::connect(scene.addr).await.unwrap().into_split();
    let copy = sent.clone();
    let send = tokio::spawn(async move {
        to.write_all(&copy).await.unwrap();
        to.shutdown().await.unwrap();
    });
    let mut got = Vec::new();
    timeout(DEADLINE, from.read_to_end(&mut got)).await.unwrap().unwrap();
    send.await.unwrap();
    assert!(got == sent, "{} bytes of {}", got.len(), sent.len());
    let counted = scene.counters().await;
    assert_eq!((counted.bytes_in, counted.bytes_out), (4_000_000, 4_000_000));
}

#[tokio::test]
async fn a_delay_meets_a_connection_under_way_keeps_the_order_and_ends() {
    let (scene, _) = with_echo().await;
    let mut stream = TcpStream::connect(scene.addr).await.unwrap();
    assert!(round(&mut stream).await.unwrap() < Duration::from_millis(150));
    scene.put(FaultKind::Latency { ms: 200, jitter_ms: 50 }, 60).await;
    for _ in 0..3 {
        assert!(round(&mut stream).await.unwrap() >= Duration::from_millis(150));
    }
    // Parts do not wait for each other.
    let (mut from, mut to) = stream.split();
    let begun = Instant::now();
    for word in 0..20_u8 {
        to.write_all(&[word]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut words = [0; 20];
    timeout(DEADLINE, from.read_exact(&mut words)).await.unwrap().unwrap();
    assert!(words.is_sorted(), "{words:?}");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    scene.end().await;
    assert!(round(&mut stream).await.unwrap() < Duration::from_millis(150));
    assert_eq!(scene.counters().await.delayed, 1);
}

#[tokio::test]
async fn a_reset_ends_what_is_under_way_and_keeps_new_connections_from_the_server() {
    let (scene, connections) = with_echo().await;
    let mut stream = TcpStream::connect(scene.addr).await.unwrap();
    round(&mut stream).await.unwrap();
    scene.put(FaultKind::Reset, 60).await;
    let error = timeout(DEADLINE, stream.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    for _ in 0..5 {
        let refused = match TcpStream::connect(scene.addr).await {
            Ok(mut stream) => round(&mut stream).await.is_err(),
            Err(_) => true,
        };
        assert!(refused);
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    scene.end().await;
    let mut stream = TcpStream::connect(scene.addr).await.unwrap();
    round(&mut stream).await.unwrap();
    let counted = scene.counters().await;
    assert_eq!((counted.reset, counted.accepted, counted.open), (6, 7, 1));
}

#[tokio::test]
async fn a_black_hole_holds_what_comes_and_loses_nothing_when_its_time_is_over() {
    let (scene, connections) = with_echo().await;
    let mut old = TcpStream::connect(scene.addr).await.unwrap();
    round(&mut old).await.unwrap();
    scene.put(FaultKind::Blackhole, 1).await;
    let begun = Instant::now();
    let mut new = TcpStream::connect(scene.addr).await.unwrap();
    let (one, other) = tokio::join!(timeout(DEADLINE, round(&mut old)), timeout(DEADLINE, round(&mut new)));
    let (one, other) = (one.unwrap().unwrap(), other.unwrap().unwrap());
    assert!(
        one > Duration::from_millis(800) && other > Duration::from_millis(800),
        "{one:?} {other:?}"
    );
    // Nobody has ended it.
    assert!(begun.elapsed() < Duration::from_secs(4));
    assert_eq!(connections.load(Ordering::SeqCst), 2);
    assert_eq!(scene.counters().await.swallowed, 2);
}

#[tokio::test]
async fn who_has_no_token_steers_nothing_and_what_cannot_be_played_is_refused() {
    let (scene, _) = with_echo().await;
    for token in ["", "secre", "secret2", "terces"] {
        let stream = HopClient::connect(scene.control).await.unwrap();
        let asked = HopClient::new(token)
            .put_fault(stream, &fault(FaultKind::Reset, 60))
            .await;
        assert!(
            matches!(asked, Err(ControlError::Protocol { .. })),
            "{token}: {asked:?}"
        );
    }
    let mut stream = TcpStream::connect(scene.addr).await.unwrap();
    round(&mut stream).await.unwrap();
    for (kind, ttl) in [
        (FaultKind::Error { status: 503 }, 60),
        (FaultKind::Reset, 0),
        (FaultKind::Reset, 9999),
    ] {
        let control = HopClient::connect(scene.control).await.unwrap();
        let asked = scene.client.put_fault(control, &fault(kind, ttl)).await;
        assert!(matches!(asked, Err(ControlError::Invalid { .. })), "{asked:?}");
    }
    let control = HopClient::connect(scene.control).await.unwrap();
    assert_eq!(scene.client.faults(control).await.unwrap(), []);
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_an_ended_connection() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let scene = Scene::to(free.to_string()).await;
    let mut stream = TcpStream::connect(scene.addr).await.unwrap();
    assert!(timeout(DEADLINE, round(&mut stream)).await.unwrap().is_err());
    assert_eq!(scene.counters().await.unreached, 1);
}

#[tokio::test]
async fn postgresql_behind_it_is_down_for_a_while_and_back_at_once() {
    let test = "postgresql_behind_it_is_down_for_a_while_and_back_at_once";
    let Some(server) = peers::Server::start(peers::servers::Postgres::default(), test).await else {
        return;
    };
    let scene = Scene::to(server.address("postgres").to_string()).await;
    let address = format!(
        "host=127.0.0.1 port={} user=postgres dbname=postgres",
        scene.addr.port()
    );
    let connect = || async {
        let (client, connection) = tokio_postgres::connect(&address, tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        Ok::<_, tokio_postgres::Error>(client)
    };
    let client = connect().await.unwrap();
    client
        .batch_execute("create table t (n int); insert into t values (1)")
        .await
        .unwrap();
    scene.put(FaultKind::Reset, 60).await;
    // At once, without waiting for any time limit of a client.
    let asked = timeout(Duration::from_secs(2), client.query_one("select n from t", &[])).await;
    assert!(asked.unwrap().is_err());
    assert!(timeout(Duration::from_secs(2), connect()).await.unwrap().is_err());
    scene.end().await;
    let client = connect().await.unwrap();
    let row = client.query_one("select n from t", &[]).await.unwrap();
    assert_eq!(row.get::<_, i32>(0), 1);
    // A query that hangs goes on where it was.
    scene.put(FaultKind::Blackhole, 60).await;
    let asked = tokio::spawn(async move { client.query_one("select n + 1 from t", &[]).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!asked.is_finished());
    scene.end().await;
    assert_eq!(
        timeout(DEADLINE, asked)
            .await
            .unwrap()
            .unwrap()
            .unwrap()
            .get::<_, i32>(0),
        2
    );
}
