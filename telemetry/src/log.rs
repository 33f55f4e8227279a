//! The log layer: every event becomes one line, made once on the caller's thread, and each sink's queue takes a copy.
//! Which lines exist is the filter's matter (`level`); delivering them is the sinks'.

pub(crate) mod clock;
pub(crate) mod fields;
mod ids;
pub(crate) mod json;
pub(crate) mod line;
pub(crate) mod maker;
mod names;
pub(crate) mod pretty;
pub(crate) mod rate;
pub(crate) mod settings;
pub(crate) mod stdout;
pub(crate) mod waiting;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use tracing_log::NormalizeEvent as _;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use self::fields::{Fields, Recorder};
use self::line::Line;
use self::maker::{Buffers, Head, LineMaker};
use self::pretty::Pretty;
use self::rate::{RateLimit, Suppressed, Verdict};
use self::waiting::LineLane;
use crate::sink::queue::{Queue, Severity};
use crate::trace::kept::known;

/// Where finished lines go. Clones share.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outputs {
    pub(crate) stdout: Option<Arc<Queue<LineLane>>>,
    /// How stdout wants its lines, unless it is JSON.
    pub(crate) pretty: Option<Pretty>,
    pub(crate) loki: Option<Arc<Queue<LineLane>>>,
    /// A list in memory, for tests.
    pub(crate) capture: Option<Arc<Mutex<Vec<String>>>>,
}

/// Makes lines from events.
#[derive(Debug)]
pub(crate) struct LogLayer {
    maker: Arc<LineMaker>,
    outputs: Outputs,
    volume: Volume,
    rate: RateLimit,
}

/// Counts of lines by level, readable while the layer is in use. Clones share.
#[derive(Debug, Clone, Default)]
pub(crate) struct Volume(Arc<[AtomicU64; Severity::ALL.len()]>);

impl Volume {
    /// Lines of this level so far.
    pub(crate) fn of(&self, severity: Severity) -> u64 {
        self.0[severity as usize].load(Ordering::Relaxed)
    }
}

impl LogLayer {
    pub(crate) fn new(maker: Arc<LineMaker>, outputs: Outputs, rate: RateLimit) -> Self {
        Self {
            maker,
            outputs,
            volume: Volume::default(),
            rate,
        }
    }

    /// The counts by level.
    pub(crate) fn volume(&self) -> Volume {
        self.volume.clone()
    }

    /// Records the fields of a span.
    fn record_span(&self, record: impl FnOnce(&mut Recorder<'_>)) -> Fields {
        let mut fields = Fields::default();
        Buffers::lend(|buffers| {
            record(&mut Recorder {
                redact: &self.maker.redact,
                names: &mut buffers.names,
                fields: &mut fields,
                message: None,
                scratch: &mut buffers.scratch,
                of_log: false,
            });
        });
        fields
    }
}

impl<S> Layer<S> for LogLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let fields = self.record_span(|recorder| attributes.record(recorder));
        if !fields.is_empty() {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let later = self.record_span(|recorder| values.record(recorder));
        let mut extensions = span.extensions_mut();
        if let Some(fields) = extensions.get_mut::<Fields>() {
            fields.update(&later);
        } else {
            extensions.insert(later);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let at = crate::wall_nanos();
        match self.rate.admit(event.metadata(), clock::seconds(at)) {
            Verdict::Write => {}
            Verdict::LeaveOut => return,
            Verdict::Tell(suppressed) => self.maker.suppressed(suppressed, |line| self.outputs.push(line)),
        }
        // What came through the crate `log` says where it is from in its fields.
        let normal = (event.metadata().target() == "log")
            .then(|| event.normalized_metadata())
            .flatten();
        let metadata: &Metadata<'_> = normal.as_ref().unwrap_or(event.metadata());
        let head = Head {
            at,
            severity: metadata.level().into(),
            target: metadata.target(),
        };
        Buffers::lend(|buffers| {
            event.record(&mut Recorder {
                redact: &self.maker.redact,
                names: &mut buffers.names,
                fields: &mut buffers.fields,
                message: Some(&mut buffers.message),
                scratch: &mut buffers.scratch,
                of_log: normal.is_some(),
            });
            self.maker.begin(buffers, head);
            let room = LineMaker::room(&buffers.line);
            let Buffers { line, ids, fields, .. } = buffers;
            fields.cut(room);
            // From the inside out, each span looked at once: for its fields, and for the ids until one knows them.
            let mut own = None;
            let mut found = false;
            for span in context.event_scope(event).into_iter().flatten() {
                let (at, extensions) = (span.id(), span.extensions());
                if let Some(outer) = extensions.get::<Fields>() {
                    fields.add_outer(outer, room);
                }
                if !found && let Some((known, correlation)) = known(own.get_or_insert(at.clone()), &at, &extensions) {
                    ids.append(line, known, correlation);
                    found = true;
                }
            }
            LineMaker::end(buffers);
            self.outputs.push(Line::new(&buffers.line, at, head.severity));
        });
        self.volume.0[head.severity as usize].fetch_add(1, Ordering::Relaxed);
    }
}

impl Outputs {
    /// Hands a line to every sink.
    pub(crate) fn push(&self, line: Line<'_>) {
        if let Some(lines) = &self.capture {
            let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.push(line.text().to_owned());
        }
        if let Some(loki) = &self.loki {
            loki.push(line);
        }
        self.push_stdout(line);
    }

    /// Hands a line to stdout alone.
    pub(crate) fn push_stdout(&self, line: Line<'_>) {
        let Some(stdout) = &self.stdout else { return };
        match self.pretty {
            Some(pretty) => stdout.push(line.as_text(&pretty.show(line.text()))),
            None => stdout.push(line),
        }
    }
}

/// Writes lines of telemetry's own to stdout, and nowhere else: what a sink has to say must not come back to it. Clones
/// share.
#[derive(Debug, Clone)]
pub(crate) struct Notices {
    maker: Arc<LineMaker>,
    outputs: Outputs,
}

impl Notices {
    pub(crate) fn new(maker: Arc<LineMaker>, outputs: Outputs) -> Self {
        Self { maker, outputs }
    }

    /// Writes one line.
    pub(crate) fn tell(&self, severity: Severity, message: &str, fields: &[(&str, &dyn std::fmt::Display)]) {
        let told = |line: Line<'_>| self.outputs.push_stdout(line);
        self.maker.own(severity, maker::TARGET, message, fields, told);
    }

    /// Tells of lines that a rate limit left out; like those lines, to every sink.
    pub(crate) fn tell_suppressed(&self, suppressed: Suppressed) {
        self.maker.suppressed(suppressed, |line| self.outputs.push(line));
    }
}
