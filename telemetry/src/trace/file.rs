//! Spans to a file, for a machine without a collector: one line is one `ExportTraceServiceRequest` as OTLP/JSON, as the
//! collector's own file exporter writes it. Whoever reads the file is not told of it, and what does not fit on the disk is
//! counted as dropped. Source: <https://opentelemetry.io/docs/specs/otel/protocol/file-exporter/>.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};

use crate::InitError;
use crate::report::DropReason;
use crate::sink::account::Fate;
use crate::sink::queue::{BatchLimits, Queue, QueueLimits};
use crate::sink::thread;
use crate::trace::finished::{Finished, Spans, scope};
use crate::trace::settings::FileSettings;

/// Spans in one line, and how long the first waits for others.
const BATCH: BatchLimits = BatchLimits {
    bytes: 1024 * 1024,
    items: 512,
    linger: Duration::from_millis(250),
};

/// Opens the file, starts the thread that writes to it and gives the queue before it.
pub(crate) fn start(
    settings: &FileSettings,
    resource: Resource,
    queue: QueueLimits,
) -> Result<Option<Arc<Queue<Spans>>>, InitError> {
    let Some(path) = &settings.path else { return Ok(None) };
    let Ok(file) = open(path) else {
        let value = path.display().to_string();
        return Err(InitError::setting(
            "telemetry.traces.file.path",
            &value,
            "a file that can be written",
        ));
    };
    let queue = Queue::new("traces_file", queue, None);
    let mut writer = Writer {
        file,
        path: path.clone(),
        max_bytes: settings.max_bytes.map(|bytes| bytes as u64),
        resource,
        queue: Arc::clone(&queue),
    };
    let run = move || async move {
        let mut batch = Vec::new();
        while writer.queue.take_async(BATCH, &mut batch).await {
            writer.write(&mut batch);
        }
    };
    thread::spawn("telemetry-traces", run).map_err(|source| InitError::Thread { source })?;
    Ok(Some(queue))
}

struct Writer {
    file: File,
    path: PathBuf,
    max_bytes: Option<u64>,
    resource: Resource,
    queue: Arc<Queue<Spans>>,
}

impl Writer {
    fn write(&mut self, batch: &mut Vec<Finished>) {
        let spans = batch.len() as u64;
        let line = self.line(batch);
        let fate = match line.and_then(|line| self.put(&line)) {
            Ok(()) => Fate::Delivered,
            Err(_) => Fate::Dropped(DropReason::WriteFailed),
        };
        self.queue.settle(spans, fate);
    }

    fn line(&self, batch: &mut Vec<Finished>) -> std::io::Result<Vec<u8>> {
        let of_scope = ScopeSpans {
            scope: Some(scope()),
            spans: batch.drain(..).filter_map(|span| span.decode()).collect(),
            schema_url: String::new(),
        };
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: vec![of_scope],
                schema_url: String::new(),
            }],
        };
        let mut line = serde_json::to_vec(&request)?;
        line.push(b'\n');
        Ok(line)
    }

    /// Appends a whole line or nothing: readers and other writers of the file see no halves.
    fn put(&mut self, line: &[u8]) -> std::io::Result<()> {
        let length = self.file.metadata()?.len();
        if self
            .max_bytes
            .is_some_and(|most| length > 0 && length + line.len() as u64 > most)
        {
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            std::fs::rename(&self.path, old)?;
            self.file = open(&self.path)?;
        }
        let before = self.file.metadata()?.len();
        self.file.write_all(line).inspect_err(|_| {
            // The disk is full: what was begun is taken back.
            let _ = self.file.set_len(before);
        })
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    File::options().append(true).create(true).mode(0o600).open(path)
}
