//! `loki.client = "tracing-loki"`: that crate, as its authors made it, for those who want it. It tells nothing of what
//! becomes of a line, and neither does this: the report says `unknown`. Its task runs on a thread of ours, so that it works
//! under any runtime, and its end is bounded: where it would wait for ever, it is aborted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::settings::refused;
use super::{LokiAuth, LokiSettings};
use crate::InitError;
use crate::report::SinkCounts;
use crate::sink::Sink;
use crate::sink::thread::{self, Ended};

/// The sink.
#[derive(Debug)]
pub(crate) struct Unmodified {
    emitted: Arc<AtomicU64>,
    end: watch::Sender<Option<Instant>>,
    ended: Ended,
}

/// The crate's layer, with a count of what goes into it, or nothing. (A layer in an `Option` that is `None` says of
/// itself that nothing is enabled, and silences those beside it.)
#[derive(Default)]
pub(crate) struct CountedLayer(Option<Counted>);

struct Counted {
    layer: tracing_loki::Layer,
    emitted: Arc<AtomicU64>,
}

impl Unmodified {
    /// The layer and the sink. Settings that the crate does not have are errors: they would be ignored in silence.
    ///
    /// # Errors
    /// When a setting cannot be used or the thread cannot be made.
    pub(crate) fn start(
        settings: &LokiSettings,
        service: &str,
        environment: &str,
    ) -> Result<(CountedLayer, Self), InitError> {
        const NONE: &str = "unset with the client tracing-loki, which does not have it";
        if let Some(file) = &settings.certificate {
            return Err(InitError::setting(
                "telemetry.loki.certificate",
                &file.to_string_lossy(),
                NONE,
            ));
        }
        if let Some(folder) = &settings.spool.dir {
            return Err(InitError::setting(
                "telemetry.loki.spool.dir",
                &folder.to_string_lossy(),
                NONE,
            ));
        }
        crate::init_tls();
        let mut builder = tracing_loki::builder();
        let own = [("service", service), ("env", environment)];
        let own = own.into_iter().filter(|(_, value)| !value.is_empty());
        let more = settings
            .labels
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in own.chain(more) {
            builder = builder.label(name, value).map_err(refused)?;
        }
        for (name, value) in &settings.headers {
            builder = builder.http_header(name, value).map_err(refused)?;
        }
        if let Some(tenant) = &settings.tenant {
            builder = builder.http_header("X-Scope-OrgID", tenant).map_err(refused)?;
        }
        if let Some(LokiAuth::Bearer { token_file }) = &settings.auth {
            let token = std::fs::read_to_string(token_file).map_err(refused)?;
            let value = format!("Bearer {}", token.trim_end());
            builder = builder.http_header("Authorization", value).map_err(refused)?;
        } else if let Some(LokiAuth::Basic { user, .. }) = &settings.auth {
            return Err(InitError::setting("telemetry.loki.auth.basic", user, NONE));
        }
        // The crate adds the path of the push itself.
        let mut url = settings.address()?;
        let path = url.path().trim_end_matches("loki/api/v1/push").to_owned();
        url.set_path(&path);
        let (layer, controller, task) = builder.build_controller_url(url).map_err(refused)?;
        let (end, mut ending) = watch::channel(None);
        let ended = thread::spawn("telemetry-loki", move || async move {
            let mut task = tokio::spawn(task);
            // The controller is kept to the end: without it the task would spin.
            let Ok(Some(until)) = ending.wait_for(Option::is_some).await.map(|end| *end) else {
                task.abort();
                return;
            };
            let quits = async {
                controller.shutdown().await;
                let _ = (&mut task).await;
            };
            if tokio::time::timeout_at(until, quits).await.is_err() {
                task.abort();
            }
        })
        .map_err(|source| InitError::Thread { source })?;
        let emitted = Arc::new(AtomicU64::new(0));
        let counted = Counted {
            layer,
            emitted: Arc::clone(&emitted),
        };
        Ok((CountedLayer(Some(counted)), Self { emitted, end, ended }))
    }
}

impl Sink for Unmodified {
    fn name(&self) -> &'static str {
        "loki"
    }

    fn counts(&self) -> SinkCounts {
        let emitted = self.emitted.load(Ordering::Relaxed);
        SinkCounts {
            emitted,
            unknown: emitted,
            ..SinkCounts::default()
        }
    }

    fn queued_bytes(&self) -> usize {
        0
    }

    /// The crate cannot say when it has sent something.
    fn flush(&self, _limit: Duration) {}

    fn close(&self, limit: Duration) -> SinkCounts {
        self.end.send_if_modified(|end| {
            let first = end.is_none();
            end.get_or_insert_with(|| Instant::now() + limit);
            first
        });
        self.ended.wait(limit);
        self.counts()
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for CountedLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(counted) = &self.0 {
            counted.layer.on_new_span(attributes, id, context);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(counted) = &self.0 {
            counted.layer.on_record(id, values, context);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if let Some(counted) = &self.0 {
            counted.emitted.fetch_add(1, Ordering::Relaxed);
            counted.layer.on_event(event, context);
        }
    }
}
