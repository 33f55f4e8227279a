//! Runbook pages: a skeleton that is written anew each time, and steps between two marks that belong to people and are
//! kept. It never guesses: a page whose marks are damaged is left alone.

use std::fmt::Write as _;

use thiserror::Error;

use super::model::{Rule, RuleFile};
use super::page::Page;

/// Begins what people write.
const BEGIN: &str = "<!-- Steps: what stands between these two lines is yours and is kept. -->";
/// Ends it.
const END: &str = "<!-- End of steps. -->";
/// What stands there until somebody knows better.
const NOTHING_YET: &str =
    "1. Type the commands above, from the first on.\n2. Write here what helped, for whoever is next.";

/// Why an older page cannot be written anew without losing what people wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RunbookError {
    /// It has not exactly one line that begins the steps, followed by one that ends them.
    #[error("the lines that begin and end the hand-written steps are not there exactly once and in this order")]
    Marks,
}

/// The page of an alert: `old` is the page that is there, whose steps are kept.
pub fn page(page: &Page, rules: &[RuleFile], old: Option<&str>) -> Result<String, RunbookError> {
    let steps = match old {
        Some(old) => steps(old)?,
        None => format!("{NOTHING_YET}\n"),
    };
    Ok(skeleton(page, rules, &steps))
}

/// What stands between the marks.
fn steps(old: &str) -> Result<String, RunbookError> {
    // Whatever the lines of the old page end in, those of the new one end in a line feed.
    let lines: Vec<&str> = old.lines().collect();
    let of = |mark: &str| -> Result<usize, RunbookError> {
        let mut found = lines.iter().enumerate().filter(|(_, line)| line.trim() == mark);
        match (found.next(), found.next()) {
            (Some((at, _)), None) => Ok(at),
            _ => Err(RunbookError::Marks),
        }
    };
    let between = lines.get(of(BEGIN)? + 1..of(END)?).ok_or(RunbookError::Marks)?;
    let mut steps = between.join("\n");
    if !between.is_empty() {
        steps.push('\n');
    }
    Ok(steps)
}

fn skeleton(page: &Page, rules: &[RuleFile], steps: &str) -> String {
    let mut out = format!(
        "# {}\n\n{}\n\n## How it is measured\n\n{}\n",
        page.alert, page.means, page.measured
    );
    out.push_str("\n## First commands\n\n```sh\n");
    let width = page
        .commands
        .iter()
        .map(|(command, _)| command.len())
        .max()
        .unwrap_or(0);
    for (command, tells) in page.commands {
        let _ = writeln!(out, "{command:width$}  # {tells}");
    }
    out.push_str("```\n");
    if page
        .commands
        .iter()
        .any(|(command, _)| command.contains("SERVICE") || command.contains("DATASTORE"))
    {
        out.push_str("\n`SERVICE` and `DATASTORE` are the alert's labels `service` and `datastore`.\n");
    }
    let _ = write!(out, "\n## Steps\n\n{BEGIN}\n{steps}{END}\n");
    let rows = rows(page.alert, rules);
    if !rows.is_empty() {
        out.push_str("\n## Whose it is\n\n| about | team | severity | for |\n|---|---|---|---|\n");
        for row in rows {
            let _ = writeln!(out, "{row}");
        }
    }
    out
}

/// One row for each rule of that name.
fn rows(alert: &str, rules: &[RuleFile]) -> Vec<String> {
    let mut rows = Vec::new();
    for rule in rules
        .iter()
        .flat_map(|file| &file.groups)
        .flat_map(|group| &group.rules)
    {
        let Rule::Alert(rule) = rule else { continue };
        if rule.name != alert {
            continue;
        }
        let label = |name: &str| {
            rule.labels
                .iter()
                .find(|(label, _)| label == name)
                .map(|(_, value)| value.as_str())
        };
        let about = ["service", "datastore"]
            .into_iter()
            .find_map(|kind| Some(format!("{kind} `{}`", label(kind)?)));
        let which: Vec<String> = ["window", "cause"]
            .into_iter()
            .filter_map(|name| Some(format!(", {name} `{}`", label(name)?)))
            .collect();
        rows.push(format!(
            "| {}{} | {} | {} | {} |",
            about.as_deref().unwrap_or("the environment"),
            which.concat(),
            label("team").unwrap_or("everybody"),
            label("severity").unwrap_or_default(),
            manifest::landscape::window(rule.hold)
        ));
    }
    rows
}

#[cfg(test)]
mod tests;
