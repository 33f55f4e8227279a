//! The command tree: what can be typed, its help, and the dispatch. What a command does is in `command/`.

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, CommandFactory, FromArgMatches, Parser};

use crate::command::{Command, internal};
use crate::context::{ColorChoice, Context, Process};
use crate::error::{Failure, Outcome};
use crate::exit::Exit;
use crate::output::Output;

/// Keeps services up, and proves it
#[derive(Debug, Parser)]
#[command(
    name = "opsctl",
    version,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 80,
    styles = STYLES
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The flags that every command takes.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// The environment of opsctl.toml to work in [env: OPSCTL_ENV]
    #[arg(
        short = 'e',
        long = "env",
        value_name = "NAME",
        global = true,
        hide_short_help = true
    )]
    pub(crate) env: Option<String>,

    /// The cluster of the environment, where it has several: reads take all, changes need one
    #[arg(long, value_name = "NAME", global = true, hide_short_help = true)]
    pub(crate) cluster: Option<String>,

    /// The configuration file, instead of the opsctl.toml found upwards [env: OPSCTL_CONFIG]
    #[arg(long, value_name = "FILE", global = true, hide_short_help = true)]
    pub(crate) config: Option<std::path::PathBuf>,

    /// One JSON document on stdout (one a line where it streams), errors as JSON on stderr
    #[arg(long, global = true, hide_short_help = true)]
    pub(crate) json: bool,

    /// Say less on stderr; twice: errors alone
    #[arg(short, long, global = true, action = clap::ArgAction::Count, hide_short_help = true)]
    pub(crate) quiet: u8,

    /// Say more on stderr
    #[arg(short, long, global = true, action = clap::ArgAction::Count, hide_short_help = true)]
    pub(crate) verbose: u8,

    /// When to colour, by itself `auto` [env: NO_COLOR, CLICOLOR_FORCE]
    // No default of clap's: with one, `opsctl` alone would no longer count as "without arguments" and print no help.
    #[arg(long, value_name = "WHEN", global = true, value_enum, hide_short_help = true)]
    pub(crate) color: Option<ColorChoice>,

    /// No progress line
    #[arg(long, global = true, hide_short_help = true)]
    pub(crate) no_progress: bool,

    /// Never ask, as without a terminal
    #[arg(long, global = true, hide_short_help = true)]
    pub(crate) no_input: bool,
}

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::White.on_default().bold())
    .usage(AnsiColor::White.on_default().bold())
    .literal(AnsiColor::Cyan.on_default())
    .placeholder(AnsiColor::Cyan.on_default());

/// The commands of the root help, by job. A test holds that every visible command is here once.
const GROUPS: [(&str, &[&str]); 6] = [
    (
        "Protect",
        &[
            "backup",
            "restore",
            "snapshot",
            "recovery",
            "repository",
            "wal",
            "schedule",
        ],
    ),
    ("Rehearse", &["drill", "load"]),
    ("Ship", &["deploy"]),
    (
        "Observe",
        &["status", "logs", "trace", "health", "policy", "alert", "dashboard"],
    ),
    ("Runs", &["run", "recover"]),
    (
        "Local",
        &["init", "up", "down", "tour", "config", "rbac", "completions", "help"],
    ),
];

/// The widest that help gets.
const WIDTH: usize = 80;

/// The one clap tree: help, completions and man pages come from it. `width` is the terminal's, if there is one.
pub(crate) fn tree(width: Option<usize>) -> clap::Command {
    let (tree, width) = (Cli::command(), width.unwrap_or(WIDTH).min(WIDTH));
    let short = format!(
        "{{about}}\n{{usage-heading}} {{usage}}\n\n{}{}",
        overview(&tree, width),
        wrap(
            "Options: -e/--env NAME, --json, -q, -v … (--help). More: opsctl help TOPIC",
            width
        )
        .join("\n"),
    );
    tree.help_template(short).term_width(width)
}

/// Takes the line ends out of the paragraphs below each command's long help: clap breaks lines at the terminal's width,
/// and those of the source beside its own would leave every other line short. Lines that are set in stay as they are.
pub(crate) fn unfolded(mut command: clap::Command) -> clap::Command {
    if let Some(after) = command.get_after_long_help().map(ToString::to_string) {
        let mut text = String::new();
        let mut flows = false;
        for line in after.lines() {
            let prose = !line.is_empty() && !line.starts_with(' ');
            if !text.is_empty() {
                text.push(if flows && prose { ' ' } else { '\n' });
            }
            text.push_str(line);
            flows = prose;
        }
        command = command.after_long_help(text);
    }
    command.mut_subcommands(unfolded)
}

/// The whole of `opsctl --help`.
fn long_help(width: Option<usize>) -> clap::Command {
    let (tree, width) = (Cli::command(), width.unwrap_or(WIDTH).min(WIDTH));
    let what = wrap(
        "Backs up and restores, rehearses failures, ships canaries, on a laptop as on a cluster. \
         Whatever it changes it can undo: kill it at any instant, and `opsctl recover` puts things back.",
        width,
    );
    let template = format!(
        "{{about}}\n\n{}\n\n{{usage-heading}} {{usage}}\n\n{}\n{{options}}\n\n\
         Examples:\n  \
         # See everything once, on this machine, with nothing installed\n  opsctl tour\n\n  \
         # Write an opsctl.toml for a service of yours, and run it\n  opsctl init --service shop --command ./shop\n  opsctl up\n\n  \
         # The four jobs\n  opsctl backup\n  opsctl restore\n  opsctl drill pod-kill\n  opsctl deploy canary --weight 10\n\n\
         {}",
        what.join("\n"),
        overview(&tree, width),
        Exit::section(&Exit::ALL[1..])
    );
    tree.help_template(template).term_width(width)
}

/// The commands by job, no line longer than `width`.
fn overview(tree: &clap::Command, width: usize) -> String {
    // A column of jobs, one of names, the rest for what they do; a narrow terminal has the jobs on lines of their own.
    let beside = width >= 60;
    let indent = if beside { 25 } else { 15 };
    let mut text = String::new();
    for (group, names) in GROUPS {
        if !beside {
            text.push_str(&format!("{group}\n"));
        }
        for (index, name) in names.iter().enumerate() {
            let about = tree
                .find_subcommand(name)
                .and_then(clap::Command::get_about)
                .map(ToString::to_string)
                .unwrap_or_default();
            let label = if index == 0 { group } else { "" };
            let mut lines = wrap(&about, width.saturating_sub(indent)).into_iter();
            let first = lines.next().unwrap_or_default();
            if beside {
                text.push_str(&format!("  {label:<9} {name:<12} {first}\n"));
            } else {
                text.push_str(&format!("  {name:<12} {first}\n"));
            }
            text.extend(lines.map(|line| format!("{:indent$}{line}\n", "")));
        }
    }
    text
}

/// Breaks `text` between words so that no line is longer than `width` (unless a word alone is).
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Reads the command line, runs the command, tells what went wrong. Returns how it ended.
pub(crate) fn run() -> Exit {
    let process = match Process::read() {
        Ok(process) => process,
        Err(failure) => {
            let mut stderr = std::io::stderr();
            let _ = std::io::Write::write_all(&mut stderr, failure.text(crate::output::Paint::Plain).as_bytes());
            return failure.exit;
        }
    };
    if process.args.get(1).is_some_and(|arg| arg == "internal") {
        return run_internal(process);
    }
    let cli = match parse(&process) {
        Ok(cli) => cli,
        // To PostgreSQL an error of usage would be the end of its log.
        Err(Exit::Usage) if process.args.get(1..3).is_some_and(|words| words == ["wal", "get"]) => return Exit::Stop,
        Err(exit) => return exit,
    };
    let context = process.into_context(cli.global);
    finish(&context, cli.command.run(&context))
}

fn run_internal(process: Process) -> Exit {
    match internal::Args::try_parse_from(&process.args[1..]) {
        Ok(args) => {
            let context = process.into_context(args.global());
            finish(&context, internal::run(&args, &context))
        }
        Err(error) => tell(&process.provisional_output(), &error),
    }
}

fn finish(context: &Context, outcome: Outcome) -> Exit {
    match outcome {
        Ok(exit) => exit,
        Err(failure) => context.out.failure(&failure),
    }
}

fn parse(process: &Process) -> Result<Cli, Exit> {
    let out = process.provisional_output();
    // clap gives `-h` and `--help` one template; the root's differ.
    let wants_all = process.args.get(1).is_some_and(|arg| arg == "--help");
    let mut tree = if wants_all {
        long_help(out.width)
    } else if process.args.iter().any(|arg| arg == "--help") {
        unfolded(tree(out.width))
    } else {
        tree(out.width)
    };
    let matches = match tree.try_get_matches_from_mut(&process.args) {
        Ok(matches) => matches,
        Err(error) => return Err(tell(&out, &error)),
    };
    Cli::from_arg_matches(&matches).map_err(|error| tell(&out, &error.format(&mut tree)))
}

/// Prints help and version to stdout, errors to stderr.
fn tell(out: &Output, error: &clap::Error) -> Exit {
    use clap::error::ErrorKind;
    let paint = if error.use_stderr() { out.stderr } else { out.stdout };
    let text = if paint == crate::output::Paint::Ansi {
        error.render().ansi().to_string()
    } else {
        error.render().to_string()
    };
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => out
            .data(&text)
            .map_or_else(|failure| out.failure(&failure), |()| Exit::Done),
        _ if out.json => {
            let text = error.render().to_string();
            let mut lines = text.lines().filter(|line| !line.trim().is_empty());
            let message = lines
                .next()
                .unwrap_or_default()
                .trim_start_matches("error: ")
                .to_owned();
            out.failure(&Failure::usage("usage", message).details(lines.map(|line| line.trim().to_owned())))
        }
        _ => {
            out.say(text.trim_end());
            Exit::Usage
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{GROUPS, overview, tree};

    #[test]
    fn the_tree_is_sound() {
        tree(None).debug_assert();
    }

    #[test]
    fn the_overview_fits_a_narrow_terminal() {
        for width in [40, 60, 80] {
            for line in overview(&tree(None), width).lines() {
                assert!(line.chars().count() <= width, "{width}: {line}");
            }
        }
    }

    #[test]
    fn every_visible_command_is_in_one_group() {
        let mut grouped: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        let tree = tree(None);
        let mut visible: Vec<&str> = tree
            .get_subcommands()
            .filter(|command| !command.is_hide_set())
            .map(clap::Command::get_name)
            .collect();
        grouped.sort_unstable();
        visible.sort_unstable();
        assert_eq!(grouped, visible);
    }
}
