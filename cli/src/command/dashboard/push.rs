//! `opsctl dashboard push`: the boards of the catalogue into a Grafana, after a plan that was shown.

use std::path::PathBuf;

use dashboards::push::{self, Action, Board, Folder, Http, Outcome as Pushed, Plan, PushError, Step};
use serde::Serialize;
use serde_json::Value;

use super::ours;
use crate::config::{self, Config, Grafana, SecretSource};
use crate::consent::{ConsentArgs, Consequence, Stake, approve};
use crate::context::Context;
use crate::error::{self, Failure, Outcome};
use crate::exit::Exit;
use crate::landscape;
use crate::output::{Paint, Style, plural, printable};

/// Bring the boards of the catalogue to a Grafana
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// Boards by name; without any, all of the catalogue
    #[arg(value_name = "BOARD")]
    boards: Vec<String>,

    /// The folder that they go into; it is made where it is not there
    #[arg(long, value_name = "NAME", default_value = "opsctl")]
    folder: String,

    /// Another Grafana than the environment's, which gets no token of it
    #[arg(long, value_name = "URL")]
    url: Option<String>,

    /// The file with the token for --url
    #[arg(long, value_name = "FILE", requires = "url")]
    token_file: Option<PathBuf>,

    /// Say what would change, and change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,

    #[command(flatten)]
    consent: ConsentArgs,
}

fn help() -> String {
    format!(
        "Examples:\n  # What differs between the catalogue and the Grafana\n  opsctl -e production dashboard push --dry-run\n\n  \
         # Bring it there; the same again changes nothing\n  opsctl -e production dashboard push --folder Shop\n\n\
         Where the Grafana is and what lets us in says `grafana = {{ url = \"…\", token = {{ file = \"…\" }} }}` of the environment in\n\
         opsctl.toml. A board that is kept in a newer model, in a newer schema version or by somebody else's files is left alone,\n\
         and one that was saved after the plan was made is not written. Exit 3: some boards were not written. Exit 5: some boards\n\
         were left alone.\n\n\
         It was written after Grafana's documentation and tried on a server that answers as that says, never on a Grafana.\n\n{}",
        Exit::section(&[
            Exit::Failed,
            Exit::Usage,
            Exit::Partial,
            Exit::Refused,
            Exit::Unreachable
        ])
    )
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    r#type: &'static str,
    environment: &'a str,
    grafana: &'a str,
    folder: &'a str,
    makes_folder: bool,
    dry_run: bool,
    boards: Vec<Line<'a>>,
}

#[derive(Serialize)]
struct Line<'a> {
    uid: &'a str,
    title: &'a str,
    /// `create`, `update`, `unchanged`, `refused`.
    action: &'static str,
    /// Why it is left alone, or was not written.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    moves_from: Option<&'a str>,
    changes: Vec<Changed<'a>>,
    written: bool,
}

#[derive(Serialize)]
struct Changed<'a> {
    path: &'a str,
    before: Option<&'a Value>,
    after: Option<&'a Value>,
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let config = config::load(context)?;
    let boards: Vec<Board> = ours(&landscape::of(&config), &args.boards)?
        .iter()
        .map(Board::from)
        .collect();
    let (url, client) = client(args, context, &config)?;
    let line = context.out.progress("asking Grafana what it has");
    let plan = context.block_on(push::plan(&client, boards, folder(&args.folder)));
    drop(line);
    let plan = plan.map_err(|error| error::dashboards::push("could not find out what Grafana has", &error))?;
    let document = |written: Option<&[Pushed]>| Document {
        schema: "opsctl.dashboard_push/v1",
        r#type: "dashboard_push",
        environment: &config.environment.name,
        grafana: &url,
        folder: &plan.folder.title,
        makes_folder: plan.makes_folder,
        dry_run: args.dry_run,
        boards: lines(&plan, written),
    };
    if !context.out.json {
        context.out.data(&shown(&plan, context.out.stdout))?;
    }
    if args.dry_run || plan.is_empty() {
        if context.out.json {
            context.out.document(&document(None))?;
        }
        context.out.note(if plan.is_empty() {
            "there is nothing to change"
        } else {
            "nothing was changed"
        });
        return Ok(left_alone(&plan));
    }
    let plan_to_apply = approve(context, &args.consent, &plan, &stake(&plan, &config, &url))?.into_plan();
    let line = context.out.progress("writing boards");
    // Not to be interrupted between two boards: each is written as a whole, and the next plan sees which.
    let outcomes = context.block_on(push::apply(&client, plan_to_apply));
    drop(line);
    let outcomes = outcomes.map_err(|error| error::dashboards::push("could not make the folder", &error))?;
    if context.out.json {
        context.out.document(&document(Some(&outcomes)))?;
    }
    verdict(&plan, outcomes, context)
}

/// Whom to ask: the one that was typed, with its own token, else the environment's.
fn client(args: &Args, context: &Context, config: &Config) -> Result<(String, Http), Failure> {
    let typed = args.url.as_ref().map(|url| Grafana {
        url: url.clone(),
        token: args
            .token_file
            .as_ref()
            .map(|file| SecretSource::File(context.absolute(file))),
        authority: None,
    });
    let environment = &config.environment;
    let known = typed.or_else(|| environment.grafana.clone()).ok_or_else(|| {
        Failure::usage("no_grafana", format!("no Grafana of environment `{}` is known", environment.name)).help(format!(
            "`grafana = {{ url = \"https://…\", token = {{ file = \"…\" }} }}` in `[env.{}]` of opsctl.toml, or `--url`",
            environment.name
        ))
    })?;
    let token = known
        .token
        .as_ref()
        .map(|source| source.fetch(context, "the token of Grafana"))
        .transpose()?;
    let authority = known.authority.as_ref().map(std::fs::read).transpose();
    let authority = authority.map_err(|error| Failure::io("could not read the `ca_file` of Grafana", &error))?;
    let token = token.map(|token| token.expose().to_owned());
    let client = Http::new(&known.url, token, "default", authority.as_deref())
        .map_err(|error| error::dashboards::push("Grafana cannot be asked", &error))?;
    Ok((client.address(), client))
}

/// A folder whose uid is made of its name, so that the same name is the same folder.
fn folder(title: &str) -> Folder {
    let letter = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    let uid: String = title.chars().map(letter).take(40).collect();
    Folder {
        uid,
        title: title.to_owned(),
    }
}

fn stake<'a>(plan: &Plan, config: &'a Config, url: &str) -> Stake<'a> {
    let count = |is: fn(&Action) -> bool| plan.steps.iter().filter(|step| is(&step.action)).count() as u64;
    let updates = count(|action| matches!(action, Action::Update { .. }));
    let creates = count(|action| matches!(action, Action::Create));
    Stake {
        question: format!(
            "write {} and replace {} at {url}?",
            plural(creates, "new board", "new boards"),
            plural(updates, "board", "boards")
        ),
        name: &config.environment.name,
        consequence: if updates > 0 {
            Consequence::ReplacesData
        } else {
            Consequence::UndoneByItself
        },
        protected: config.protected(),
    }
}

/// More differences of a board are counted only.
const MOST: usize = 20;

fn shown(plan: &Plan, paint: Paint) -> String {
    let mut text = String::new();
    if plan.makes_folder {
        text.push_str(&format!("create     folder {}\n", printable(&plan.folder.title)));
    }
    for Step { board, action } in &plan.steps {
        let style = match action {
            Action::Create => Style::Done,
            Action::Update { .. } => Style::Warning,
            Action::Unchanged => Style::Faint,
            Action::Refused(_) => Style::Error,
        };
        let word = paint.apply(style, &format!("{:<9}", action.as_str()));
        text.push_str(&format!("{word}  {}  {}\n", board.uid, board.title));
        match action {
            Action::Update {
                changes, moves_from, ..
            } => {
                if let Some(from) = moves_from {
                    let from = if from.is_empty() { "the top" } else { from };
                    text.push_str(&format!("    from the folder {}\n", printable(from)));
                }
                for change in changes.iter().take(MOST) {
                    for line in change.to_string().lines() {
                        text.push_str(&format!("    {}\n", printable(line)));
                    }
                }
                if changes.len() > MOST {
                    text.push_str(&format!("    and {} more\n", changes.len() - MOST));
                }
            }
            Action::Refused(why) => text.push_str(&format!("    {}\n", printable(&why.to_string()))),
            Action::Create | Action::Unchanged => {}
        }
    }
    text
}

fn lines<'a>(plan: &'a Plan, outcomes: Option<&[Pushed]>) -> Vec<Line<'a>> {
    let line = |(index, Step { board, action }): (usize, &'a Step)| {
        let result = outcomes.and_then(|all| all.get(index)?.result.as_ref());
        let (changes, moves_from) = match action {
            Action::Update {
                changes, moves_from, ..
            } => (changes.as_slice(), moves_from.as_deref()),
            _ => (&[][..], None),
        };
        let why = match (action, result) {
            (Action::Refused(why), _) => Some(why.to_string()),
            (_, Some(Err(error))) => Some(error.to_string()),
            _ => None,
        };
        Line {
            uid: &board.uid,
            title: &board.title,
            action: action.as_str(),
            why,
            moves_from,
            changes: changes
                .iter()
                .map(|change| Changed {
                    path: &change.path,
                    before: change.before.as_ref(),
                    after: change.after.as_ref(),
                })
                .collect(),
            written: matches!(result, Some(Ok(()))),
        }
    };
    plan.steps.iter().enumerate().map(line).collect()
}

fn left_alone(plan: &Plan) -> Exit {
    if plan.refused().next().is_some() {
        Exit::Refused
    } else {
        Exit::Done
    }
}

/// All that was to be written is, or which is not and why.
fn verdict(plan: &Plan, outcomes: Vec<Pushed>, context: &Context) -> Outcome {
    let mut written = 0_u64;
    let mut failed: Vec<(String, PushError)> = Vec::new();
    for Pushed { uid, result } in outcomes {
        match result {
            Some(Ok(())) => written += 1,
            Some(Err(error)) => failed.push((uid, error)),
            None => {}
        }
    }
    if let Some((uid, error)) = failed.first() {
        let mut failure = error::dashboards::push(format!("could not write `{uid}`"), error);
        if failed.len() > 1 {
            failure = failure.details(failed.iter().map(|(uid, error)| format!("{uid}: {error}")));
        }
        if written > 0 {
            failure.exit = Exit::Partial;
        }
        return Err(failure);
    }
    context
        .out
        .done(format!("{} written", plural(written, "board", "boards")));
    Ok(left_alone(plan))
}
