//! `opsctl internal reference`: the whole command line as one Markdown page, from the clap tree that also parses it. The
//! same on every machine: nothing of the terminal, the folder or the environment goes into it.

use clap::{Arg, ArgAction, Command};

use super::super::help;
use crate::cli;

const HEAD: &str = "# Command line\n\n\
    <!-- Written by `cargo xtask codegen` from the command line itself; edit that. -->\n\n\
    Every command, its arguments and examples. `opsctl COMMAND --help` says the same in a terminal.\n";

/// The page.
pub(super) fn page() -> String {
    let mut tree = cli::tree(None);
    tree.build();
    let mut page = HEAD.to_owned();
    let global: Vec<&Arg> = tree.get_arguments().filter(|arg| arg.is_global_set()).collect();
    page.push_str("\n## Options of every command\n\n");
    page.push_str(&options(&global));
    for command in shown(&tree) {
        describe(command, &mut page);
    }
    page.push_str("\n## Topics\n");
    for (topic, text) in help::topics() {
        page.push_str(&format!(
            "\n### opsctl help {topic}\n\n```text\n{}\n```\n",
            text.trim_end()
        ));
    }
    page
}

fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command
        .get_subcommands()
        .filter(|command| !command.is_hide_set() && (command.get_name() != "help" || !command.has_subcommands()))
}

fn describe(command: &Command, page: &mut String) {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    page.push_str(&format!("\n## {name}\n"));
    if let Some(about) = command.get_long_about().or_else(|| command.get_about()) {
        page.push_str(&format!("\n{}.\n", about.to_string().trim_end_matches('.')));
    }
    if command.has_subcommands() {
        page.push('\n');
        for inner in shown(command) {
            let about = inner.get_about().map(ToString::to_string).unwrap_or_default();
            let inner = inner.get_bin_name().unwrap_or_else(|| inner.get_name());
            page.push_str(&format!("- [`{inner}`](#{}): {about}\n", inner.replace(' ', "-")));
        }
    } else {
        let usage = command.clone().render_usage().to_string();
        page.push_str(&format!(
            "\n```text\n{}\n```\n",
            usage.trim_start_matches("Usage:").trim()
        ));
    }
    let own: Vec<&Arg> = command
        .get_arguments()
        .filter(|arg| !arg.is_global_set() && !arg.is_hide_set() && !is_builtin(arg))
        .collect();
    if !own.is_empty() {
        page.push('\n');
        page.push_str(&options(&own));
    }
    if let Some(after) = command.get_after_long_help().or_else(|| command.get_after_help()) {
        page.push_str(&format!("\n```text\n{}\n```\n", after.to_string().trim_end()));
    }
    for inner in shown(command) {
        describe(inner, page);
    }
}

fn is_builtin(arg: &Arg) -> bool {
    matches!(
        arg.get_action(),
        ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version
    )
}

fn options(arguments: &[&Arg]) -> String {
    let mut table = String::from("| argument | what it does |\n|---|---|\n");
    for arg in arguments {
        table.push_str(&format!("| `{}` | {} |\n", cell(&typed(arg)), cell(&meaning(arg))));
    }
    table
}

/// As it is typed: `-e, --env NAME`, `[TARGET]`.
fn typed(arg: &Arg) -> String {
    let names: Vec<String> = arg
        .get_value_names()
        .unwrap_or_default()
        .iter()
        .map(ToString::to_string)
        .collect();
    let many = arg.get_num_args().is_some_and(|range| range.max_values() > 1);
    let more = if many { "…" } else { "" };
    if arg.is_positional() {
        let name = names.join(" ");
        return if arg.is_required_set() {
            format!("{name}{more}")
        } else {
            format!("[{name}]{more}")
        };
    }
    let short = arg.get_short().map(|short| format!("-{short}"));
    let long = arg.get_long().map(|long| format!("--{long}"));
    let mut text = short.into_iter().chain(long).collect::<Vec<_>>().join(", ");
    if arg.get_action().takes_values() {
        text.push(' ');
        text.push_str(&names.join(" "));
        text.push_str(more);
    }
    text
}

fn meaning(arg: &Arg) -> String {
    let mut text = arg
        .get_long_help()
        .or_else(|| arg.get_help())
        .map(ToString::to_string)
        .unwrap_or_default();
    if !arg.get_action().takes_values() {
        return text;
    }
    let defaults: Vec<String> = arg
        .get_default_values()
        .iter()
        .map(|value| format!("`{}`", value.to_string_lossy()))
        .collect();
    if !defaults.is_empty() {
        text.push_str(&format!(". Default: {}", defaults.join(", ")));
    }
    let values: Vec<String> = arg
        .get_possible_values()
        .iter()
        .filter(|value| !value.is_hide_set())
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    if !values.is_empty() {
        text.push_str(&format!(". One of {}", values.join(", ")));
    }
    text
}

/// Text that stays inside its cell.
fn cell(text: &str) -> String {
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::page;

    #[test]
    fn holds_every_command_and_nothing_hidden() {
        let page = page();
        for heading in [
            "## opsctl backup",
            "## opsctl drill pod-kill",
            "## opsctl load run",
            "### opsctl help exit-codes",
        ] {
            assert!(page.lines().any(|line| line == heading), "{heading}");
        }
        assert!(
            !page.contains("opsctl internal"),
            "what is hidden is not in the reference"
        );
        assert_eq!(page.matches("`--no-input`").count(), 1, "global options stand once");
    }
}
