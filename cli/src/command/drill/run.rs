//! `opsctl drill run`: the drill that a file describes. A key is what the flag of that name is on the command line, so that
//! whatever is checked there is checked here.

use std::path::{Path, PathBuf};

use clap::{FromArgMatches as _, Subcommand as _};
use toml::Value;

use super::Command;
use crate::config::suggestion;
use crate::consent::ConsentArgs;
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::exit::Exit;

/// Run the drill that a file describes
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// The file, as TOML
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Say what would be done, and do nothing
    #[arg(short = 'n', long)]
    dry_run: bool,

    #[command(flatten)]
    consent: ConsentArgs,
}

/// A longer file is none.
const LARGEST: u64 = 1 << 20;
/// What is no drill that a file could describe.
const NONE: [&str; 3] = ["run", "list", "help"];
/// What is said where the drill is run, and not in a file.
const SAID_HERE: [&str; 4] = ["yes", "dry-run", "help", "version"];

fn help() -> String {
    format!(
        "Examples:\n  # The drill of every Monday, from the repository\n  opsctl drill run drills/payments-slow.toml --yes\n\n\
         The file says what the command line would, `_` for `-`:\n\n  \
         version = 1\n  \
         drill = \"latency\"\n  \
         service = \"payments\"\n  \
         delay = \"300ms\"\n  \
         for = \"1m\"\n  \
         expect_alert = [\"SlowRequests,within=5m\"]\n\n{}",
        Exit::section(&super::conduct::EXITS)
    )
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let file = context.absolute(&args.file);
    let shown = context.shown(&file);
    let text = read(&file).map_err(|error| Failure::io(format!("could not read `{shown}`"), &error))?;
    let mut words = words(&shown, &text)?;
    // Behind the kind, before any name.
    let said = [(args.dry_run, "--dry-run"), (args.consent.yes, "--yes")];
    let said = said
        .into_iter()
        .filter(|(said, _)| *said)
        .map(|(_, flag)| flag.to_owned());
    let reason = args.consent.reason.iter().map(|reason| format!("--reason={reason}"));
    words.splice(1..1, said.chain(reason));
    let told = |error: clap::Error| {
        let text = error.to_string();
        let line = text.lines().next().unwrap_or_default();
        wrong(&shown, line.strip_prefix("error: ").unwrap_or(line))
    };
    let matches = drills().try_get_matches_from(words).map_err(told)?;
    super::dispatch(Command::from_arg_matches(&matches).map_err(told)?, context)
}

fn read(file: &Path) -> std::io::Result<String> {
    if std::fs::metadata(file)?.len() > LARGEST {
        return Err(std::io::Error::other("it is longer than a description of a drill"));
    }
    std::fs::read_to_string(file)
}

fn wrong(file: &str, why: impl std::fmt::Display) -> Failure {
    Failure::usage("bad_drill_file", format!("`{file}` describes no drill")).cause(why.to_string())
}

/// The drills as the command line knows them.
fn drills() -> clap::Command {
    Command::augment_subcommands(
        clap::Command::new("drill")
            .no_binary_name(true)
            .subcommand_required(true),
    )
}

/// What the command line would be.
fn words(file: &str, text: &str) -> Result<Vec<String>, Failure> {
    let wrong = |why: String| wrong(file, why);
    let mut table: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| wrong(error.to_string()))?;
    match table.remove("version") {
        Some(Value::Integer(1)) => {}
        _ => return Err(wrong("`version = 1` is missing".to_owned())),
    }
    let all = drills();
    let kinds = || {
        all.get_subcommands()
            .map(clap::Command::get_name)
            .filter(|name| !NONE.contains(name))
    };
    let Some(Value::String(kind)) = table.remove("drill") else {
        return Err(wrong(
            "`drill = \"…\"` is missing, such as `drill = \"latency\"`".to_owned(),
        ));
    };
    let unknown = |what: &str, word: &str, near: Option<&str>| {
        let failure = wrong(format!("{what} `{word}`"));
        match near {
            Some(near) => failure.help(format!("did you mean `{near}`?")),
            None => failure.help("opsctl drill list"),
        }
    };
    let known = kinds().find(|name| *name == kind);
    let known = known.ok_or_else(|| unknown("there is no drill", &kind, suggestion(&kind, kinds())))?;
    let command = all
        .find_subcommand(known)
        .ok_or_else(|| wrong(format!("there is no drill `{kind}`")))?;
    let mut words = vec![kind.clone()];
    // Behind the flags, and behind `--`: a name is never a flag.
    let mut named = Vec::new();
    for (key, value) in &table {
        let flag = key.replace('_', "-");
        let positional = command
            .get_positionals()
            .any(|argument| argument.get_id() == key.as_str());
        let flags = || {
            let longs = command.get_arguments().filter_map(clap::Arg::get_long);
            longs.filter(|long| !SAID_HERE.contains(long))
        };
        if !positional && !flags().any(|long| long == flag) {
            let near = suggestion(&flag, flags()).map(|near| near.replace('-', "_"));
            return Err(unknown("it has an unknown key", key, near.as_deref()));
        }
        let each = match value {
            Value::Array(all) => all.as_slice(),
            one => std::slice::from_ref(one),
        };
        for one in each {
            let text = match one {
                Value::String(text) => text.clone(),
                Value::Integer(number) => number.to_string(),
                Value::Float(number) => number.to_string(),
                Value::Boolean(true) => {
                    words.push(format!("--{flag}"));
                    continue;
                }
                Value::Boolean(false) => continue,
                other => return Err(wrong(format!("`{key}` cannot be {}", other.type_str()))),
            };
            if positional {
                named.push(text);
            } else {
                words.push(format!("--{flag}={text}"));
            }
        }
    }
    if !named.is_empty() {
        words.push("--".to_owned());
        words.extend(named);
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Result<Vec<String>, String> {
        words("drill.toml", text).map_err(|failure| failure.causes.join("; "))
    }

    #[test]
    fn a_key_is_the_flag_of_that_name() {
        let text = "version = 1\ndrill = \"latency\"\nservice = \"shop\"\ndelay = \"1s\"\npercent = 20\nno_probe = true\n\
                    unharmed = false\nexpect_alert = [\"A,within=1m\", \"B\"]\n";
        let mut words = said(text).unwrap();
        words.sort();
        let mut wanted = vec![
            "latency",
            "--delay=1s",
            "--percent=20",
            "--no-probe",
            "--expect-alert=A,within=1m",
            "--expect-alert=B",
            "--",
            "shop",
        ];
        wanted.sort_unstable();
        assert_eq!(words, wanted);
    }

    #[test]
    fn what_is_no_drill_is_refused() {
        for (text, why) in [
            ("drill = \"latency\"", "version"),
            ("version = 2\ndrill = \"latency\"", "version"),
            ("version = 1", "`drill"),
            ("version = 1\ndrill = \"latncy\"", "there is no drill `latncy`"),
            ("version = 1\ndrill = \"run\"", "there is no drill `run`"),
            (
                "version = 1\ndrill = \"latency\"\ndelya = \"1s\"",
                "unknown key `delya`",
            ),
            ("version = 1\ndrill = \"latency\"\nyes = true", "unknown key `yes`"),
            ("version = 1\ndrill = \"latency\"\ndelay = { s = 1 }", "cannot be table"),
            ("version = ", ""),
        ] {
            let told = said(text).unwrap_err();
            assert!(told.contains(why), "{text}: {told}");
        }
    }
}
