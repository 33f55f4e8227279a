//! What a line, a span, a measured request, a scrape and a probe cost, ours beside tracing-subscriber's fmt,
//! tracing-opentelemetry, tracing-loki and prometheus-client, as the crate's own driver measures them in one run; what one
//! second of the processor delivers to a real Loki; and whether each required figure is met.

use anyhow::{Context, Result};
use serde::Deserialize;

use super::requirement::Requirement;
use super::{machine, page::Section};
use crate::step;

const OURS: &str = "telemetry";

/// The most nanoseconds that a call of ours may cost.
const BARS: [(&str, f64); 3] = [
    ("log line in one span", 350.0),
    ("unsampled span", 200.0),
    ("/metrics of 1000 series", 2e6),
];
/// The most that the middleware may add to a request.
const RED_BAR: f64 = 250.0;
/// Lines a second that go through the queue when two threads make as many as they can.
const FLOOD_BAR: f64 = 3e6;
/// How many times as long as one of an empty handler a probe may take.
const PROBE_BAR: f64 = 1.3;

/// The driver's document.
#[derive(Debug, Deserialize)]
struct Measured {
    calls: Calls,
    flood: Flood,
    probe: Probe,
    loki: Vec<Delivery>,
}

#[derive(Debug, Deserialize)]
struct Calls {
    rounds: usize,
    figures: Vec<Figure>,
}

/// What one candidate costs: nanoseconds a call. `None` where it was not measured.
#[derive(Debug, Deserialize)]
struct Figure {
    what: String,
    who: String,
    ns: Option<f64>,
    ns_together: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct Flood {
    lines: u64,
    threads: u64,
    /// Best first.
    lines_per_second: Vec<f64>,
}

#[derive(Debug, Deserialize)]
struct Probe {
    ours_us: f64,
    empty_us: f64,
    /// The median of the rounds' quotients.
    times: f64,
}

/// Lines sent to a real Loki and found there.
#[derive(Debug, Deserialize)]
struct Delivery {
    who: String,
    emitted: u64,
    delivered: u64,
    cpu_seconds: f64,
}

/// Builds and runs the driver.
pub fn measure() -> Result<Section> {
    let text = step::output(&mut step::cargo([
        "bench",
        "--quiet",
        "--package",
        "telemetry",
        "--bench",
        "telemetry",
    ]))?;
    section(&serde_json::from_str(&text).context("the driver printed no JSON document")?)
}

fn section(measured: &Measured) -> Result<Section> {
    let judged: Vec<String> = requirements(measured)?
        .iter()
        .map(|requirement| format!("- {requirement}"))
        .collect();
    let Flood { lines, threads, .. } = measured.flood;
    Ok(Section {
        area: "telemetry",
        title: "Logs, spans, metrics and probes",
        method: format!(
            "Calls: the thread's own processor time, on one thread the least of {} batches, on all cores the median of those \
             that ran undisturbed, candidates in turn; what consumes lines and spans throws them away. The flood: {threads} \
             threads make {lines} lines in all, callers wait while the queue is full, and every line comes out at its other \
             end; the best of {} rounds. A probe is one GET over a fresh connection, in turn with one of an empty handler. \
             Loki: a real one on loopback; the processor time is that of the sending process alone, and what arrived is \
             counted by a query.\n\n{}\n\nRequired:\n\n{}",
            measured.calls.rounds,
            measured.flood.lines_per_second.len(),
            machine::describe(),
            judged.join("\n"),
        ),
        columns: vec!["what", "whose", "one thread", "all cores"],
        rows: rows(measured),
    })
}

fn rows(measured: &Measured) -> Vec<Vec<String>> {
    let calls = measured.calls.figures.iter().map(|figure| {
        let cell = |ns: Option<f64>| ns.map_or(String::new(), nanoseconds);
        vec![
            figure.what.clone(),
            figure.who.clone(),
            cell(figure.ns),
            cell(figure.ns_together),
        ]
    });
    let best = measured.flood.lines_per_second.first().copied().unwrap_or_default();
    let flood = [vec![
        "flood through the queue".to_owned(),
        OURS.to_owned(),
        String::new(),
        format!("{:.2} M lines/s", best / 1e6),
    ]];
    let probe = [
        ("health", measured.probe.ours_us),
        ("an empty handler of hyper's", measured.probe.empty_us),
    ]
    .map(|(who, us)| {
        vec![
            "probe, fresh connection".to_owned(),
            who.to_owned(),
            nanoseconds(us * 1e3),
            String::new(),
        ]
    });
    let loki = measured.loki.iter().map(|delivery| {
        vec![
            format!("to a real Loki, {} of {} arrived", delivery.delivered, delivery.emitted),
            delivery.who.clone(),
            format!(
                "{:.0} lines a CPU second",
                delivery.delivered as f64 / delivery.cpu_seconds
            ),
            String::new(),
        ]
    });
    calls.chain(flood).chain(probe).chain(loki).collect()
}

fn nanoseconds(ns: f64) -> String {
    match ns {
        _ if ns < 1e4 => format!("{ns:.1} ns"),
        _ if ns < 1e6 => format!("{:.1} µs", ns / 1e3),
        _ => format!("{:.2} ms", ns / 1e6),
    }
}

fn requirements(measured: &Measured) -> Result<Vec<Requirement>> {
    let mut all = Vec::new();
    let find = |what: &str, who: &str| {
        let found = (measured.calls.figures.iter()).find(|figure| figure.what == what && figure.who == who);
        found.with_context(|| format!("the driver measured no `{what}` of {who}"))
    };
    for (what, most) in BARS {
        all.push(Requirement::at_most(what, find(what, OURS)?.ns, most, "ns"));
    }
    let request = |who| Ok::<_, anyhow::Error>(find("request and its RED metrics", who)?.ns);
    let added = (request(OURS)?.zip(request("the handler alone")?)).map(|(whole, handler)| whole - handler);
    all.push(Requirement::at_most("RED metrics of a request", added, RED_BAR, "ns"));
    let flood = measured.flood.lines_per_second.first().copied();
    all.push(Requirement::at_least(
        "lines a second through the queue",
        flood,
        FLOOD_BAR,
        "lines",
    ));
    all.push(Requirement::at_most(
        "probe over a fresh connection",
        Some(measured.probe.times),
        PROBE_BAR,
        "times an empty handler",
    ));
    Ok(all)
}
