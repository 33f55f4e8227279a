//! What is known of one request: its lines and its spans, from files of the local platform or from the servers that the
//! environment names. Which is asked is decided here, how in the files below; nothing here prints.

mod files;
mod id;
mod jaeger;
mod line;
mod loki;
mod otlp;
mod server;
mod span;
mod traces;

use std::time::Duration;

use opsctl_platform::local::StateDir;

pub(crate) use id::RequestId;
pub(crate) use line::Line;
pub(crate) use span::{Kind, Span, Status, time};

use crate::config::{Config, PlatformKind};
use crate::context::Context;
use crate::error::{self, Failure};
use loki::LokiServer;
use traces::TraceServer;

/// The most lines of a request that are kept.
pub(crate) const LINES: usize = 5000;
/// The most spans of a request that are kept.
pub(crate) const SPANS: usize = 50_000;
/// The most traces that one correlation id is followed to.
const TRACES: usize = 20;

/// What was found, and whether there was more.
#[derive(Debug)]
pub(crate) struct Found<T> {
    /// In order of time.
    pub(crate) items: Vec<T>,
    /// There was more than is kept.
    pub(crate) cut: bool,
}

/// Which lines are meant.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Query<'a> {
    /// Of these services; none: of all.
    pub(crate) services: &'a [String],
    /// Of this instance.
    pub(crate) instance: Option<&'a str>,
    /// Not older than this.
    pub(crate) since: Option<Duration>,
}

/// Where the lines and spans of an environment are.
#[derive(Debug)]
pub(crate) struct Sources<'a> {
    context: &'a Context,
    files: Option<StateDir>,
    loki: Option<LokiServer>,
    traces: Option<TraceServer>,
}

impl<'a> Sources<'a> {
    /// Those of the configured environment. Connects to nothing yet.
    pub(crate) fn of(context: &'a Context, config: &Config) -> Result<Self, Failure> {
        let files = match config.environment.platform {
            PlatformKind::Local => StateDir::find(config.state()).map_err(|error| {
                error::platform::failure(format!("could not use `{}`", context.shown(&config.state())), &error)
            })?,
            PlatformKind::Kubernetes => None,
        };
        let (loki, traces) = (&config.environment.loki, &config.environment.traces);
        if config.environment.platform == PlatformKind::Kubernetes && (loki.is_none() || traces.is_none()) {
            let missing = if loki.is_none() { "loki" } else { "traces" };
            let name = &config.environment.name;
            return Err(Failure::usage(
                "not_configured",
                format!("environment `{name}` does not say where its {missing} is"),
            )
            .help(format!(
                "add `{missing} = \"https://…\"` to `[env.{name}]` of opsctl.toml"
            )));
        }
        Ok(Self {
            context,
            files,
            loki: loki.as_ref().map(|loki| LokiServer::new(context, loki)).transpose()?,
            traces: traces
                .as_ref()
                .map(|traces| TraceServer::new(context, traces))
                .transpose()?,
        })
    }

    /// Where lines are looked for, in words.
    pub(crate) fn lines_from(&self) -> String {
        match &self.loki {
            Some(loki) => loki.words(),
            None => "the log files of the local platform".to_owned(),
        }
    }

    /// What may be amiss when no line was found. Files are looked through as far as they are kept; a Loki is not.
    pub(crate) fn none_found(&self, since: Option<Duration>) -> &'static str {
        if self.loki.is_none() && since.is_none() {
            "is it right, and not older than what is kept?"
        } else {
            "is it right, and not older than what was looked at? `--since 7d` looks a week back"
        }
    }

    /// Where spans are looked for, in words.
    pub(crate) fn spans_from(&self) -> String {
        match &self.traces {
            Some(traces) => traces.words(),
            None => "the span files of the local platform".to_owned(),
        }
    }

    /// The lines of a request: those that hold the id, and where that is a correlation id, those of its traces.
    pub(crate) async fn lines(&self, id: &RequestId, query: Query<'_>) -> Result<Found<Line>, Failure> {
        let found = self.lines_with(std::slice::from_ref(id), query).await?;
        let mut ids = vec![id.clone()];
        ids.extend(traces_of(&found.items).into_iter().filter(|trace| trace != id));
        if ids.len() == 1 || matches!(id, RequestId::Trace(_)) {
            return Ok(found);
        }
        self.lines_with(&ids, query).await
    }

    async fn lines_with(&self, ids: &[RequestId], query: Query<'_>) -> Result<Found<Line>, Failure> {
        let Found { mut items, cut } = match (&self.loki, &self.files) {
            (Some(loki), _) => loki.lines(self.context, ids, query).await?,
            (None, Some(state)) => Found {
                items: files::lines(self.context, state, ids, query)?,
                cut: false,
            },
            (None, None) => Found {
                items: Vec::new(),
                cut: false,
            },
        };
        line::sort(&mut items);
        let cut = cut || items.len() > LINES;
        items.truncate(LINES);
        Ok(Found { items, cut })
    }

    /// The spans of a trace.
    pub(crate) async fn spans(&self, trace: &str) -> Result<Found<Span>, Failure> {
        let mut spans = match (&self.traces, &self.files) {
            (Some(traces), _) => traces.spans(trace).await?,
            (None, Some(state)) => files::spans(state, trace)?,
            (None, None) => Vec::new(),
        };
        span::tidy(&mut spans);
        let cut = spans.len() > SPANS;
        spans.truncate(SPANS);
        Ok(Found { items: spans, cut })
    }

    /// The traces that a request's lines name, the one of its id first.
    pub(crate) fn traces(id: &RequestId, lines: &[Line]) -> Vec<String> {
        let mut traces = Vec::new();
        if let RequestId::Trace(trace) = id {
            traces.push(trace.clone());
        }
        for RequestId::Trace(trace) | RequestId::Correlation(trace) in traces_of(lines) {
            if !traces.contains(&trace) {
                traces.push(trace);
            }
        }
        traces
    }
}

/// The traces that lines name, in their order, at most [`TRACES`].
fn traces_of(lines: &[Line]) -> Vec<RequestId> {
    let mut traces: Vec<RequestId> = Vec::new();
    for trace in lines.iter().filter_map(|line| line.trace_id.as_deref()) {
        if traces.len() < TRACES
            && let Ok(id @ RequestId::Trace(_)) = RequestId::parse(trace)
            && !traces.contains(&id)
        {
            traces.push(id);
        }
    }
    traces
}
