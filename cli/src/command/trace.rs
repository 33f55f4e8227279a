//! `opsctl trace`: one request as the tree of its spans, across services. Where spans are found is `crate::request`; how
//! they hang together is `tree`, and how that looks `draw`.

mod draw;
mod tree;

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::config;
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::exit::Exit;
use crate::output::plural;
use crate::request::{Found, LINES, Line, Query, RequestId, SPANS, Sources, Span, Status};
use tree::{Skew, Tree};

/// Show a request's trace as a tree
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// A trace id, a traceparent, or an X-Correlation-ID
    #[arg(value_name = "ID")]
    id: String,

    /// Put the log lines where they belong
    #[arg(long)]
    logs: bool,

    /// Show no more spans than this; 0: all
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: usize,

    /// With a correlation id or --logs: how far back to look for lines
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    since: Option<Duration>,
}

fn help() -> String {
    format!(
        "Examples:\n  # Where did the time go?\n  opsctl trace 4bf92f3577b34da6a3ce929d0e0e4736\n\n  \
         # With what the services said meanwhile, by the id of the answer's X-Correlation-ID\n  \
         opsctl trace --logs 0198a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b\n\n  \
         # For a script: the slowest spans\n  \
         opsctl trace ID --json | jq '.traces[].spans | sort_by(-.duration_seconds) | .[:3]'\n\n\
         Spans come from the Jaeger or Tempo that the environment names (`traces` in opsctl.toml), or from the span\n\
         files of the local platform. A correlation id is looked up in the log lines first. A span whose parent is\n\
         not there is shown under what is missing: it was not sampled, is lost, or has not arrived. Exit 4: there is\n\
         no such trace.\n\n{}",
        Exit::section(&[Exit::Usage, Exit::No, Exit::Unreachable])
    )
}

/// One trace that was found.
struct Trace {
    id: String,
    spans: Found<Span>,
    lines: Vec<Line>,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    r#type: &'static str,
    id: &'a str,
    source: String,
    traces: Vec<TraceDocument<'a>>,
}

#[derive(Serialize)]
struct TraceDocument<'a> {
    trace_id: &'a str,
    started_at: jiff::Timestamp,
    duration_seconds: f64,
    services: Vec<&'a str>,
    errors: usize,
    spans: &'a [Span],
    /// Spans that others name as their parent and that are not there.
    missing_spans: Vec<&'a str>,
    clock_skew: Vec<Skew>,
    /// Whether there were more spans than are kept.
    truncated: bool,
    /// With `--logs`, else absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    lines: Option<Vec<Value>>,
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let id = RequestId::parse(&args.id)?;
    let config = config::load(context)?;
    let sources = Sources::of(context, &config)?;
    let traces = context.interruptible(find(args, &id, &sources))??;
    if context.out.json {
        let document = Document {
            schema: "opsctl.trace/v1",
            r#type: "trace",
            id: id.text(),
            source: sources.spans_from(),
            traces: traces.iter().map(|trace| document(args, trace)).collect(),
        };
        context.out.document(&document)?;
        return Ok(Exit::Done);
    }
    for (index, trace) in traces.iter().enumerate() {
        if index > 0 {
            context.out.line("")?;
        }
        show(args, context, trace)?;
    }
    Ok(Exit::Done)
}

/// The spans of the id's trace; else the lines with the id, and the spans of the traces that they name.
async fn find(args: &Args, id: &RequestId, sources: &Sources<'_>) -> Result<Vec<Trace>, Failure> {
    let query = Query {
        since: args.since,
        ..Query::default()
    };
    let mut traces = Vec::new();
    let mut lines = None;
    if let RequestId::Trace(trace) = id {
        let spans = sources.spans(trace).await?;
        if !spans.items.is_empty() {
            traces.push((trace.clone(), spans));
        }
    }
    if traces.is_empty() {
        let found = sources.lines(id, query).await?.items;
        for trace in Sources::traces(id, &found) {
            if id.text() != trace {
                let spans = sources.spans(&trace).await?;
                if !spans.items.is_empty() {
                    traces.push((trace, spans));
                }
            }
        }
        lines = Some(found);
    }
    if traces.is_empty() {
        let lines = lines.as_deref().unwrap_or_default();
        return Err(no_trace(id, sources, lines, args.since));
    }
    let lines = match (args.logs, lines) {
        (false, _) => Vec::new(),
        (true, Some(lines)) => lines,
        (true, None) => sources.lines(id, query).await?.items,
    };
    let of = |trace: &str| {
        let mine = lines.iter().filter(|line| line.trace_id.as_deref() == Some(trace));
        mine.cloned().collect()
    };
    Ok(traces
        .into_iter()
        .map(|(id, spans)| Trace {
            lines: of(&id),
            id,
            spans,
        })
        .collect())
}

fn no_trace(id: &RequestId, sources: &Sources<'_>, lines: &[Line], since: Option<Duration>) -> Failure {
    let failure = Failure::new(
        Exit::No,
        "not_found",
        format!("there is no trace of the {} `{}`", id.kind(), id.text()),
    )
    .cause(format!("looked in {}", sources.spans_from()));
    if lines.is_empty() {
        return failure
            .cause(format!("and found no line with it in {}", sources.lines_from()))
            .help(sources.none_found(since));
    }
    let count = plural(lines.len() as u64, "line has", "lines have");
    failure
        .cause(format!(
            "{count} it: it was not sampled, or its spans are lost or still on their way"
        ))
        .help(format!("opsctl logs --trace {}", id.text()))
}

fn document<'a>(args: &Args, trace: &'a Trace) -> TraceDocument<'a> {
    let tree = Tree::new(&trace.spans.items, &trace.lines);
    let lines = trace.lines.iter().map(|line| {
        serde_json::json!({
            "service": line.service,
            "instance": line.instance,
            "time": line.time,
            "span_id": line.span_id,
            "text": line.text,
        })
    });
    TraceDocument {
        trace_id: &trace.id,
        started_at: tree.started_at(),
        duration_seconds: tree.duration_seconds(),
        services: tree.services(),
        errors: errors(&trace.spans.items),
        missing_spans: tree.missing(),
        clock_skew: tree.skews(),
        spans: &trace.spans.items,
        truncated: trace.spans.cut,
        lines: args.logs.then(|| lines.collect()),
    }
}

fn errors(spans: &[Span]) -> usize {
    spans.iter().filter(|span| span.status == Status::Error).count()
}

fn show(args: &Args, context: &Context, trace: &Trace) -> Result<(), Failure> {
    let tree = Tree::new(&trace.spans.items, &trace.lines);
    let limit = if args.limit == 0 { usize::MAX } else { args.limit };
    context.out.data(&draw::text(
        &trace.id,
        &tree,
        limit,
        context.out.stdout,
        context.out.width,
    ))?;
    for skew in tree.skews() {
        context.out.note(crate::output::printable(&skew.words()));
    }
    let shown = trace.spans.items.len().min(limit);
    if shown < trace.spans.items.len() {
        context.out.warn(format!(
            "{shown} of {} spans are shown: `--limit 0` shows all",
            trace.spans.items.len()
        ));
    }
    if trace.spans.cut {
        context
            .out
            .warn(format!("the trace has more than {SPANS} spans: the rest is left out"));
    }
    if trace.lines.len() >= LINES {
        context
            .out
            .warn(format!("there are more than {LINES} lines: the rest is left out"));
    }
    Ok(())
}
