//! What reading the language of queries costs, beside another parser of it, as the crate's own driver measures both.

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::Part;
use crate::bench::material;
use crate::bench::requirement::Requirement;
use crate::step;

/// Whose rows the bar is for.
const OURS: &str = "promql";
/// The fewest megabytes a second.
const BAR: f64 = 20.0;

/// The driver's document.
#[derive(Debug, Deserialize)]
struct Measured {
    rounds: usize,
    expressions: usize,
    bytes: usize,
    figures: Vec<Figure>,
}

#[derive(Debug, Deserialize)]
struct Figure {
    what: String,
    who: String,
    megabytes_per_second: Option<f64>,
}

/// Builds and runs the driver.
pub(super) fn measure() -> Result<Part> {
    // Without them it reads a few expressions of its own.
    let mixins = material::shared("mixins")?;
    let mut bench = step::cargo(["bench", "--quiet", "--package", "promql", "--bench", "parser"]);
    if let Some(data) = mixins.parent() {
        bench.env("OPSCTL_SHARED", data);
    }
    let text = step::output(&mut bench)?;
    part(&serde_json::from_str(&text).context("the driver printed no JSON document")?)
}

fn part(measured: &Measured) -> Result<Part> {
    let mut part = Part {
        method: format!(
            "The parser alone: the {} expressions of the same mixins, {} bytes, all in one call; the thread's own processor \
             time, the least of {} batches, in turn. promql-parser reads the same grammar, and keeps no places in its tree. \
             With variables on, ours also reads what Grafana puts into queries.",
            measured.expressions, measured.bytes, measured.rounds,
        ),
        ..Part::default()
    };
    for figure in &measured.figures {
        if figure.who == OURS {
            let what = format!("parser, {}", figure.what);
            let required = Requirement::at_least(&what, figure.megabytes_per_second, BAR, "MB/s");
            part.required.push(required);
        }
        let speed = figure.megabytes_per_second.map(|speed| format!("{speed:.1}"));
        let mut row = vec![format!("parser, {}", figure.what), figure.who.clone()];
        row.resize(5, String::new());
        row.push(speed.unwrap_or_default());
        part.rows.push(row);
    }
    ensure!(!part.required.is_empty(), "the driver did not measure ours");
    Ok(part)
}
