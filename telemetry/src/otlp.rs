//! Spans to a collector over OTLP: a bounded queue, and a thread with a runtime of its own, so that it works under any
//! runtime, never waits on the service's, and what the exporter itself logs is not exported again. Every span is counted
//! as delivered, rejected or dropped. Which spans exist and are sampled is decided elsewhere.

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry_otlp::{Protocol, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter, SpanProcessor};
use tokio::sync::{mpsc, oneshot};

use crate::InitError;
use crate::report::SinkCounts;

/// Spans that may wait.
const QUEUE: usize = 8192;
/// Spans in one request.
const BATCH: usize = 512;
/// How long the first span of a batch waits for others.
const LINGER: Duration = Duration::from_secs(1);

/// Where and how spans are sent.
#[derive(Debug, Clone)]
pub(crate) struct OtlpConfig {
    pub(crate) endpoint: String,
    pub(crate) grpc: bool,
    pub(crate) timeout: Duration,
}

#[derive(Debug, Default)]
struct Counts {
    emitted: AtomicU64,
    delivered: AtomicU64,
    rejected: AtomicU64,
    dropped: AtomicU64,
}

enum Message {
    Span(Box<SpanData>),
    Flush(oneshot::Sender<()>),
}

/// The queue's inner end as a span processor.
#[derive(Clone)]
pub(crate) struct Otlp {
    queue: Arc<Mutex<Option<mpsc::Sender<Message>>>>,
    counts: Arc<Counts>,
}

impl std::fmt::Debug for Otlp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Otlp")
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

impl Otlp {
    /// Starts the thread. The collector need not be there.
    pub(crate) fn start(config: OtlpConfig, resource: Resource) -> Result<Self, InitError> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let counts = Arc::new(Counts::default());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| InitError::Thread { source })?;
        let exporter = {
            let _inside = runtime.enter();
            exporter(&config, resource).map_err(|source| InitError::Otlp { source: source.into() })?
        };
        let of_thread = Arc::clone(&counts);
        let run = move || {
            // What the exporter and its HTTP stack log must not come back as telemetry.
            tracing::subscriber::with_default(tracing::subscriber::NoSubscriber::new(), || {
                runtime.block_on(export(exporter, receiver, &of_thread, config.timeout));
            });
        };
        std::thread::Builder::new()
            .name("telemetry-otlp".to_owned())
            .spawn(run)
            .map_err(|source| InitError::Thread { source })?;
        Ok(Self {
            queue: Arc::new(Mutex::new(Some(sender))),
            counts,
        })
    }

    fn sender(&self) -> Option<mpsc::Sender<Message>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends what is queued, waiting at most `limit`, and takes no more. Spans without an answer by then count as
    /// dropped.
    pub(crate) async fn close(&self, limit: Duration) -> SinkCounts {
        let sender = self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sender) = sender {
            let _ = tokio::time::timeout(limit, async {
                let (done, wait) = oneshot::channel();
                if sender.send(Message::Flush(done)).await.is_ok() {
                    let _ = wait.await;
                }
            })
            .await;
        }
        let mut counts = self.counts();
        counts.dropped = counts.emitted.saturating_sub(counts.delivered + counts.rejected);
        counts
    }

    /// Counts so far; what is neither delivered, rejected nor dropped is queued.
    pub(crate) fn counts(&self) -> SinkCounts {
        SinkCounts {
            emitted: self.counts.emitted.load(Ordering::Relaxed),
            delivered: self.counts.delivered.load(Ordering::Relaxed),
            rejected: self.counts.rejected.load(Ordering::Relaxed),
            dropped: self.counts.dropped.load(Ordering::Relaxed),
            ..SinkCounts::default()
        }
    }
}

impl SpanProcessor for Otlp {
    fn on_start(&self, _span: &mut Span, _context: &opentelemetry::Context) {}

    fn on_end(&self, span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        self.counts.emitted.fetch_add(1, Ordering::Relaxed);
        let sent = self
            .sender()
            .is_some_and(|sender| sender.try_send(Message::Span(Box::new(span))).is_ok());
        if !sent {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        // `Otlp::close` does it, where its result can be reported.
        Ok(())
    }
}

async fn export(exporter: Exporter, mut queue: mpsc::Receiver<Message>, counts: &Counts, timeout: Duration) {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let mut flush = None;
        let mut deadline = None;
        while batch.len() < BATCH && flush.is_none() {
            let message = match deadline {
                None => queue.recv().await,
                Some(at) => match tokio::time::timeout_at(at, queue.recv()).await {
                    Ok(message) => message,
                    Err(_) => break,
                },
            };
            match message {
                Some(Message::Span(span)) => {
                    batch.push(*span);
                    deadline.get_or_insert_with(|| tokio::time::Instant::now() + LINGER);
                }
                Some(Message::Flush(done)) => flush = Some(done),
                None => break,
            }
        }
        let ended = batch.is_empty() && flush.is_none();
        if !batch.is_empty() {
            let spans = batch.len() as u64;
            let sent = tokio::time::timeout(timeout, exporter.export(std::mem::take(&mut batch))).await;
            let count = match sent {
                Ok(Ok(())) => &counts.delivered,
                // Retries are the exporter's own matter and are over.
                Ok(Err(_)) if exporter.was_refused() => &counts.rejected,
                Ok(Err(_)) | Err(_) => &counts.dropped,
            };
            count.fetch_add(spans, Ordering::Relaxed);
        }
        if let Some(done) = flush {
            let _ = done.send(());
        }
        if ended {
            return;
        }
    }
}

#[derive(Debug)]
struct Exporter {
    inner: opentelemetry_otlp::SpanExporter,
    last_status: Arc<AtomicU16>,
}

impl Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.inner.export(batch).await
    }

    /// Whether the collector answered and refused for good.
    fn was_refused(&self) -> bool {
        matches!(self.last_status.load(Ordering::Relaxed), 400..=407 | 409..=428 | 430..=499)
    }
}

fn exporter(config: &OtlpConfig, resource: Resource) -> Result<Exporter, opentelemetry_otlp::ExporterBuildError> {
    let last_status = Arc::new(AtomicU16::new(0));
    let builder = opentelemetry_otlp::SpanExporter::builder();
    let mut exporter = if config.grpc {
        builder
            .with_tonic()
            .with_endpoint(&config.endpoint)
            .with_timeout(config.timeout)
            .build()?
    } else {
        crate::init_tls();
        builder
            .with_http()
            .with_http_client(HttpClient::new(config.timeout, Arc::clone(&last_status)))
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{}/v1/traces", config.endpoint.trim_end_matches('/')))
            .with_timeout(config.timeout)
            .build()?
    };
    exporter.set_resource(&resource);
    Ok(Exporter {
        inner: exporter,
        last_status,
    })
}

/// The HTTP client of the exporter. It remembers the last status, since the exporter's errors do not tell a collector
/// that refused from one that was not there.
#[derive(Debug)]
struct HttpClient {
    client: reqwest::Client,
    last_status: Arc<AtomicU16>,
}

impl HttpClient {
    fn new(timeout: Duration, last_status: Arc<AtomicU16>) -> Self {
        let client = reqwest::Client::builder()
            .timeout(timeout)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap_or_default();
        Self { client, last_status }
    }
}

#[tonic::async_trait]
impl opentelemetry_http::HttpClient for HttpClient {
    async fn send_bytes(
        &self,
        request: http::Request<bytes::Bytes>,
    ) -> Result<http::Response<bytes::Bytes>, opentelemetry_http::HttpError> {
        self.last_status.store(0, Ordering::Relaxed);
        let response = self.client.execute(request.try_into()?).await?;
        self.last_status.store(response.status().as_u16(), Ordering::Relaxed);
        let mut answer = http::Response::builder().status(response.status());
        if let Some(headers) = answer.headers_mut() {
            headers.clone_from(response.headers());
        }
        Ok(answer.body(response.bytes().await?)?)
    }
}
