//! What a receiver sees of us and what a person is told, against a small server that is no Loki: the real one is in
//! `tests/loki`.

use std::collections::VecDeque;
use std::sync::Mutex;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};

use super::*;
use crate::log::line::Line;
use crate::report::DropReason;
use crate::sink::queue::{OnFull, QueueLimits, Severity};

/// Answers with the statuses one after the other, then with 204.
#[derive(Clone, Default)]
struct Receiver {
    statuses: Arc<Mutex<VecDeque<u16>>>,
    headers: Arc<Mutex<Vec<HeaderMap>>>,
}

async fn receive(State(receiver): State<Receiver>, headers: HeaderMap) -> StatusCode {
    receiver.headers.lock().unwrap().push(headers);
    let status = receiver.statuses.lock().unwrap().pop_front();
    StatusCode::from_u16(status.unwrap_or(204)).unwrap()
}

impl Receiver {
    async fn start(statuses: impl IntoIterator<Item = u16>) -> (Self, String) {
        let receiver = Self::default();
        receiver.statuses.lock().unwrap().extend(statuses);
        let app = Router::new()
            .route("/loki/api/v1/push", axum::routing::post(receive))
            .with_state(receiver.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (receiver, url)
    }

    fn header(&self, name: &str) -> Vec<Option<String>> {
        let headers = self.headers.lock().unwrap();
        let value = |headers: &HeaderMap| Some(headers.get(name)?.to_str().unwrap().to_owned());
        headers.iter().map(value).collect()
    }
}

/// A sink, its queue and what it has told.
struct Started {
    loki: Arc<Loki>,
    queue: Arc<Queue<LineLane>>,
    told: Arc<Mutex<Vec<(Severity, String)>>>,
}

fn watchers(alarm: Alarm) -> Watchers {
    Watchers {
        alarm,
        took: None,
        running: None,
    }
}

impl Started {
    fn new(url: &str, change: impl FnOnce(&mut LokiSettings)) -> Self {
        let mut settings = LokiSettings {
            url: Some(url.to_owned()),
            linger: Duration::from_millis(1),
            ..LokiSettings::default()
        };
        settings.retry.first = Duration::from_millis(10);
        settings.retry.closed = Duration::from_millis(10);
        change(&mut settings);
        let limits = QueueLimits {
            bytes: settings.queue_bytes,
            items: usize::MAX,
            on_full: OnFull::DropLowest,
            block: Duration::ZERO,
        };
        let queue = Queue::new("loki", limits, None);
        let told = Arc::new(Mutex::new(Vec::new()));
        let tells = Arc::clone(&told);
        let alarm: Alarm =
            Arc::new(move |severity, text: &str| tells.lock().unwrap().push((severity, text.to_owned())));
        let loki = Loki::start(&settings, "shop", "test", Arc::clone(&queue), watchers(alarm)).unwrap();
        Self {
            loki: Arc::new(loki),
            queue,
            told,
        }
    }

    /// One line, and its way to the end.
    async fn line(&self) {
        self.queue.push(Line::new(
            "{\"message\":\"x\"}\n",
            1_700_000_000_000_000_000,
            Severity::Info,
        ));
        let loki = Arc::clone(&self.loki);
        let flushed = tokio::task::spawn_blocking(move || loki.flush(Duration::from_secs(10)));
        flushed.await.unwrap();
    }

    fn told(&self) -> Vec<(Severity, String)> {
        self.told.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn a_person_is_told_once_that_loki_lets_nobody_in_and_once_that_it_does_again() {
    for status in [401, 403, 404, 302] {
        let (receiver, url) = Receiver::start([status; 4]).await;
        let sink = Started::new(&url, |_| {});
        sink.line().await;
        sink.line().await;
        assert_eq!(sink.queue.counts().delivered, 2, "{status}: nothing is lost");
        let told = sink.told();
        let [(Severity::Error, alarm), (Severity::Info, over)] = &told[..] else {
            panic!("{told:?}")
        };
        assert!(
            alarm.contains(&status.to_string()) && over.contains("again"),
            "{told:?}"
        );
        assert_eq!(receiver.header("content-type").len(), 6);
    }
}

#[tokio::test]
async fn credentials_come_from_files_and_are_read_again_when_they_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "first\n").unwrap();
    let (receiver, url) = Receiver::start([204, 401]).await;
    let sink = Started::new(&url, |settings| {
        settings.auth = Some(LokiAuth::Bearer {
            token_file: file.clone(),
        });
        settings.tenant = Some("team".to_owned());
        settings.compression = LokiCompression::Gzip;
    });
    sink.line().await;
    std::fs::write(&file, "second\n").unwrap();
    sink.line().await;
    let sent = ["Bearer first", "Bearer first", "Bearer second"].map(|text| Some(text.to_owned()));
    assert_eq!(receiver.header("authorization"), sent);
    assert_eq!(receiver.header("x-scope-orgid")[0].as_deref(), Some("team"));
    assert_eq!(receiver.header("content-encoding")[0].as_deref(), Some("gzip"));
    assert_eq!(
        receiver.header("content-type")[0].as_deref(),
        Some("application/x-protobuf")
    );

    let (receiver, url) = Receiver::start([]).await;
    let sink = Started::new(&url, |settings| {
        settings.auth = Some(LokiAuth::Basic {
            user: "me".to_owned(),
            password_file: file,
        });
    });
    sink.line().await;
    assert_eq!(
        receiver.header("authorization"),
        [Some("Basic bWU6c2Vjb25k".to_owned())]
    );
    assert_eq!(
        receiver.header("content-encoding"),
        [None],
        "Loki wants none for snappy"
    );
}

#[tokio::test]
async fn settings_that_cannot_be_used_are_errors_at_the_start() {
    let start = |change: fn(&mut LokiSettings)| {
        let mut settings = LokiSettings {
            url: Some("http://127.0.0.1:1".to_owned()),
            ..LokiSettings::default()
        };
        change(&mut settings);
        let limits = QueueLimits {
            bytes: 1,
            items: usize::MAX,
            on_full: OnFull::DropLowest,
            block: Duration::ZERO,
        };
        let queue = Queue::new("loki", limits, None);
        Loki::start(&settings, "shop", "test", queue, watchers(Arc::new(|_, _| {}))).is_ok()
    };
    assert!(start(|_| {}), "a Loki that is not there is no error");
    assert!(!start(|settings| settings.url = Some("loki".to_owned())));
    assert!(!start(|settings| settings.tenant = Some("a\nb".to_owned())));
    assert!(!start(|settings| drop(
        settings.labels.insert("service".to_owned(), "other".to_owned())
    )));
    assert!(!start(|settings| drop(
        settings.labels.insert("trace-id".to_owned(), "x".to_owned())
    )));
    assert!(!start(|settings| settings.certificate = Some("/nowhere.pem".into())));
    assert!(!start(|settings| settings.spool.dir = Some("/proc/nowhere".into())));
}

/// The last moment: a sink that was dropped and never ended lets go of everything it has.
#[tokio::test]
async fn nothing_comes_after_the_end() {
    let (_, url) = Receiver::start([]).await;
    let sink = Started::new(&url, |_| {});
    sink.line().await;
    let loki = Arc::clone(&sink.loki);
    let close = move || loki.close(Duration::from_secs(10));
    let counts = tokio::task::spawn_blocking(close).await.unwrap();
    assert_eq!((counts.emitted, counts.delivered), (1, 1));
    sink.queue.push(Line::new("{}\n", 0, Severity::Error));
    assert_eq!(sink.queue.counts().dropped_because(DropReason::Closed), 1);
}
