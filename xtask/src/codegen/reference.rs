//! The reference pages: the command line from its clap tree, the metrics from the catalogue. Neither is written by hand,
//! so neither can lag behind.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use catalogue::{Metric, Values};

use crate::step;

/// Writes or checks `docs/reference/{command-line,metrics}.md`, and `metrics.json` beside them for tools.
pub fn write(check: bool) -> Result<()> {
    let folder = peers::workspace_root().join("docs/reference");
    fs::create_dir_all(&folder).context("could not make docs/reference")?;
    for (page, text) in [
        ("command-line.md", command_line()?),
        ("metrics.md", metrics(catalogue::ALL)),
        ("metrics.json", catalogue::export_json()),
    ] {
        let file = folder.join(page);
        if fs::read_to_string(&file).is_ok_and(|old| old == text) {
            continue;
        }
        ensure!(!check, "docs/reference/{page} is stale; run `cargo xtask codegen`");
        fs::write(&file, text).with_context(|| format!("could not write docs/reference/{page}"))?;
    }
    Ok(())
}

/// What the built `opsctl` says of itself. It lies beside this task: cargo puts all binaries into one folder.
fn command_line() -> Result<String> {
    let program = std::env::current_exe()
        .context("could not tell where this task lies")?
        .with_file_name("opsctl");
    // The whole workspace, as the tests build it: one package alone would have its dependencies built again, with
    // other features.
    step::run(&mut step::cargo([
        "build",
        "--quiet",
        "--workspace",
        "--bins",
        "--examples",
    ]))?;
    step::output(Command::new(program).args(["internal", "reference"]))
}

const HEAD: &str = "# Metrics\n\n\
    <!-- Written by `cargo xtask codegen` from telemetry/catalogue; edit that. -->\n\n\
    Everything that opsctl and the reference services export on `/metrics`. A label with a list takes only those values;\n\
    one marked “any” takes what the program has (routes, checks, policies), never text from a request.\n\n";

/// The page of `metrics`, in their order.
fn metrics(metrics: &[&Metric]) -> String {
    let mut page = HEAD.to_owned();
    page.push_str("| metric | kind | unit | labels | what it counts |\n|---|---|---|---|---|\n");
    for metric in metrics {
        let labels: Vec<String> = metric.labels.iter().map(label).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {} | {} |",
            metric.name,
            metric.kind.as_str(),
            metric.unit.as_str(),
            labels.join("<br>"),
            metric.help.replace('|', "\\|"),
        );
    }
    page.push_str("\nBuckets of the histograms: their upper bounds, and `+Inf`.\n\n");
    for (bounds, names) in buckets(metrics) {
        let bounds: Vec<String> = bounds.iter().map(ToString::to_string).collect();
        let _ = writeln!(page, "- {}: {}", names.join(", "), bounds.join(", "));
    }
    page
}

/// Each set of bounds with the histograms that have it, in the order of the list.
fn buckets(metrics: &[&Metric]) -> Vec<(&'static [f64], Vec<String>)> {
    let mut all: Vec<(&'static [f64], Vec<String>)> = Vec::new();
    for metric in metrics.iter().filter(|metric| !metric.buckets.is_empty()) {
        let name = format!("`{}`", metric.name);
        match all.iter_mut().find(|(bounds, _)| *bounds == metric.buckets) {
            Some((_, names)) => names.push(name),
            None => all.push((metric.buckets, vec![name])),
        }
    }
    all
}

fn label(label: &catalogue::Label) -> String {
    match label.values {
        Values::Bounded => format!("`{}` (any)", label.name),
        Values::Closed(values) => format!("`{}`: {}", label.name, values.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::metrics;

    #[test]
    fn histograms_are_named_beside_their_buckets() {
        let page = metrics(&[
            catalogue::DB_POOL_WAIT_SECONDS.metric(),
            catalogue::PROXY_REQUEST_DURATION_SECONDS.metric(),
        ]);
        assert!(page.contains("\n- `db_pool_wait_seconds`: 0.0001, 0.00025,"), "{page}");
        assert!(
            page.contains("\n- `proxy_request_duration_seconds`: 0.005, 0.01,"),
            "{page}"
        );
    }

    #[test]
    fn a_metric_is_one_row_with_its_labels() {
        let page = metrics(&[catalogue::OUTBOX_RELAYED_TOTAL.metric()]);
        let row = page.lines().find(|line| line.starts_with("| `outbox")).expect("a row");
        assert_eq!(
            row,
            "| `outbox_relayed_total` | counter | one | `result`: ok, error | Events that the relay sent. |"
        );
    }
}
