//! The traffic proxy: its requests per CPU second and the latency that it adds, as the proxy crate's own driver
//! measures them with the proxy in a process of its own.

use anyhow::{Context, Result};
use serde_json::Value;

use super::{machine, page::Section};
use crate::step;

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
    section(&serde_json::from_str(&text).context("the driver printed no JSON document")?)
}

fn section(measured: &Value) -> Result<Section> {
    let number = |pointer: &str| {
        let found = measured.pointer(pointer).and_then(Value::as_f64);
        found.with_context(|| format!("the driver's document has no number at {pointer}"))
    };
    let milliseconds = |pointer: &str| Ok::<_, anyhow::Error>(format!("{:.3}", number(pointer)? * 1e3));
    Ok(Section {
        area: "proxy",
        title: "Traffic proxy",
        method: format!(
            "The proxy in a process of its own before one upstream, keep-alive GET; CPU time of the proxy alone.\n\n{}",
            machine::describe()
        ),
        columns: vec!["what", "through the proxy", "direct, in the same run", "bar"],
        rows: vec![
            vec![
                "requests per CPU second".into(),
                format!("{:.0}", number("/proxy/requests_per_cpu_second")?),
                String::new(),
                "20000".into(),
            ],
            vec![
                "median at 2,000/s, ms".into(),
                milliseconds("/proxy/latency/proxied_p50_seconds")?,
                milliseconds("/proxy/latency/direct_p50_seconds")?,
                "+ 0.3".into(),
            ],
        ],
    })
}
