//! The reference pages: the command line from its clap tree, the metrics from the catalogue. Neither is written by hand,
//! so neither can lag behind.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use catalogue::{Metric, Values};

use crate::step;

/// Writes or checks `docs/reference/{command-line,metrics}.md`.
pub fn write(check: bool) -> Result<()> {
    let folder = peers::workspace_root().join("docs/reference");
    fs::create_dir_all(&folder).context("could not make docs/reference")?;
    for (page, text) in [("command-line", command_line()?), ("metrics", metrics(catalogue::ALL))] {
        let file = folder.join(format!("{page}.md"));
        if fs::read_to_string(&file).is_ok_and(|old| old == text) {
            continue;
        }
        ensure!(!check, "docs/reference/{page}.md is stale; run `cargo xtask codegen`");
        fs::write(&file, text).with_context(|| format!("could not write docs/reference/{page}.md"))?;
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
    step::run(&mut step::cargo(["build", "--quiet", "--workspace", "--bins"]))?;
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
    let bounds: Vec<String> = catalogue::DURATION_BUCKETS.iter().map(ToString::to_string).collect();
    let _ = writeln!(
        page,
        "\nHistograms of seconds have the upper bounds {} and `+Inf`.",
        bounds.join(", ")
    );
    page
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
    fn a_metric_is_one_row_with_its_labels() {
        let page = metrics(&[catalogue::OUTBOX_RELAYED_TOTAL.metric()]);
        let row = page.lines().find(|line| line.starts_with("| `outbox")).expect("a row");
        assert_eq!(
            row,
            "| `outbox_relayed_total` | counter | one | `result`: ok, error | Events that the relay sent. |"
        );
    }
}
