//! The traffic proxy: its requests per CPU second and the latency that it adds, as the proxy crate's own driver
//! measures them with the proxy in a process of its own.

use anyhow::{Context, Result};
use serde::Deserialize;

use super::{machine, page::Section};
use crate::step;

/// What the driver prints: one JSON document.
#[derive(Debug, Deserialize)]
struct Measured {
    method: String,
    rows: Vec<Row>,
}

#[derive(Debug, Deserialize)]
struct Row {
    what: String,
    measured: String,
    beside: String,
}

/// Builds and runs the driver.
pub fn measure() -> Result<Section> {
    let text = step::output(&mut step::cargo([
        "run",
        "--quiet",
        "--release",
        "--package",
        "opsctl-proxy",
        "--example",
        "bench_proxy",
    ]))?;
    let measured: Measured =
        serde_json::from_str(&text).context("the driver printed something else than its figures")?;
    Ok(Section {
        area: "proxy",
        title: "Traffic proxy",
        method: format!("{}\n\n{}", measured.method, machine::describe()),
        columns: vec!["what", "through the proxy", "beside it in the same run"],
        rows: measured
            .rows
            .into_iter()
            .map(|row| vec![row.what, row.measured, row.beside])
            .collect(),
    })
}
