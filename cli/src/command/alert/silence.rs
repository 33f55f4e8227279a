//! `opsctl alert silence`: alerts that nobody is to hear of for a while. What a silence hides is shown before it is made;
//! one that hides everything, or is forever, is refused.

use std::fmt::Write as _;
use std::time::Duration;

use alerts::live::silence::{self, Plan, Request};
use alerts::live::{Alertmanager, Matcher, Silence};
use clap::Subcommand;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::config::{self, Config};
use crate::consent::{ConsentArgs, Consequence, Stake, approve};
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::exit::Exit;
use crate::output::{Style, Table, plural, printable, seconds};
use crate::platform;

/// Keep alerts from being told for a while
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Create(Create),
    List(List),
    Expire(Expire),
}

/// Silence the alerts that all matchers fit
#[derive(Debug, clap::Args)]
#[command(after_long_help = create_help())]
struct Create {
    /// Labels and what they are: alertname=SlowRequests, severity!=page, pod=~"orders-.*"
    #[arg(value_name = "MATCHER", required = true)]
    matchers: Vec<String>,

    /// How long nobody is told, at most 30d
    #[arg(long = "for", value_name = "TIME", default_value = "2h", value_parser = humantime::parse_duration)]
    duration: Duration,

    /// Why: whoever finds the silence reads it
    #[arg(long, value_name = "TEXT")]
    comment: String,

    /// Who silences, you by itself
    #[arg(long, value_name = "NAME")]
    author: Option<String>,

    /// Answer yes to the question that a protected environment asks
    #[arg(short = 'y', long)]
    yes: bool,

    /// Say what would be silenced, and change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// List the silences in force and to come
#[derive(Debug, clap::Args)]
#[command(after_long_help = list_help())]
struct List {
    /// Those that are over, too
    #[arg(long)]
    all: bool,
}

/// End a silence now
#[derive(Debug, clap::Args)]
#[command(after_long_help = expire_help())]
struct Expire {
    /// Its id, or how it begins
    #[arg(value_name = "SILENCE")]
    id: String,

    /// Say what would be told again, and change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

fn codes() -> String {
    Exit::section(&[Exit::Failed, Exit::Usage, Exit::Refused, Exit::Unreachable])
}

fn create_help() -> String {
    format!(
        "Examples:\n  # A disk is being replaced\n  \
         opsctl alert silence create alertname=SlowRequests service=orders --for 2h --comment \"new disk\"\n\n  \
         # What would it hide?\n  opsctl alert silence create team=shop severity!=page --comment \"migration\" --dry-run\n\n\
         One matcher at least names a label with its value: a silence that hides everything is refused. It ends by itself.\n\
         A protected environment asks for the typed name (or --yes); the comment is the reason.\n\n{}",
        codes()
    )
}

fn list_help() -> String {
    format!(
        "Examples:\n  # What does nobody hear of?\n  opsctl -e production alert silence list\n\n{}",
        codes()
    )
}

fn expire_help() -> String {
    format!(
        "Examples:\n  # The disk is in\n  opsctl alert silence expire 3f1c22d0\n\n\
         It asks for no consent, also in a protected environment: alerts are told again.\n\n{}",
        codes()
    )
}

#[derive(Serialize)]
struct Done<'a> {
    schema: &'static str,
    r#type: &'static str,
    environment: &'a str,
    dry_run: bool,
    /// Absent where nothing was changed.
    id: Option<String>,
    #[serde(flatten)]
    plan: &'a Plan,
}

#[derive(Serialize)]
struct Listed<'a> {
    schema: &'static str,
    r#type: &'static str,
    environment: &'a str,
    silences: Vec<&'a Silence>,
}

/// Runs the command.
pub(crate) fn run(args: Args, context: &Context) -> Outcome {
    let config = config::load(context)?;
    match args.command {
        Command::Create(args) => create(&args, context, &config),
        Command::List(args) => list(&args, context, &config),
        Command::Expire(args) => expire(&args, context, &config),
    }
}

fn create(args: &Create, context: &Context, config: &Config) -> Outcome {
    let matchers: Result<Vec<Matcher>, Failure> = args
        .matchers
        .iter()
        .map(|typed| {
            silence::matcher(typed).map_err(|error| Failure {
                message: format!("`{typed}` is no matcher"),
                ..Failure::from(error)
            })
        })
        .collect();
    let request = Request {
        matchers: matchers?,
        duration: SignedDuration::try_from(args.duration).unwrap_or(SignedDuration::MAX),
        author: args.author.clone().unwrap_or_else(|| context.actor()),
        comment: args.comment.clone(),
    };
    // What is wrong with the request is said before anybody is asked.
    silence::plan(request.clone(), &[], &[], context.now())?;
    let (alertmanager, plan) = context.interruptible(async {
        let alertmanager = platform::teller(context, config).await?;
        let (alerts, silences) = tokio::try_join!(alertmanager.alerts(), alertmanager.silences())?;
        let plan = silence::plan(request, &alerts, &silences, context.now())?;
        Ok::<_, Failure>((alertmanager, plan))
    })??;
    if !context.out.json {
        context.out.say(printable(&words(&plan, context.now())).trim_end());
    }
    if args.dry_run {
        return tell(context, config, &plan, None);
    }
    let consent = ConsentArgs {
        yes: args.yes,
        reason: Some(args.comment.clone()),
    };
    let stake = Stake {
        question: "Silence these alerts?".to_owned(),
        name: &config.environment.name,
        consequence: Consequence::UndoneByItself,
        protected: config.protected(),
    };
    let plan = approve(context, &consent, plan, &stake)?.into_plan();
    apply(context, config, &alertmanager, &plan)
}

fn expire(args: &Expire, context: &Context, config: &Config) -> Outcome {
    let (alertmanager, plan) = context.interruptible(async {
        let alertmanager = platform::teller(context, config).await?;
        let silences = alertmanager.silences().await?;
        let id = whole(&args.id, &silences)?;
        let plan = silence::plan_expire(&id, &silences)?;
        Ok::<_, Failure>((alertmanager, plan))
    })??;
    if !context.out.json {
        context.out.say(printable(&words(&plan, context.now())).trim_end());
    }
    if args.dry_run {
        return tell(context, config, &plan, None);
    }
    apply(context, config, &alertmanager, &plan)
}

/// The id that begins so, where only one does.
fn whole(typed: &str, silences: &[Silence]) -> Result<String, Failure> {
    let begins: Vec<&Silence> = silences
        .iter()
        .filter(|silence| silence.status.state != "expired" && silence.id.starts_with(typed))
        .collect();
    match begins.as_slice() {
        [only] if !typed.is_empty() => Ok(only.id.clone()),
        [] | [_] => Ok(typed.to_owned()),
        several => Err(
            Failure::usage("which_silence", format!("several silences begin with `{typed}`"))
                .details(several.iter().map(|silence| silence.id.clone())),
        ),
    }
}

fn apply(context: &Context, config: &Config, alertmanager: &Alertmanager, plan: &Plan) -> Outcome {
    let id = context.interruptible(silence::apply(plan, alertmanager))??;
    match plan {
        Plan::Create { until, .. } => context.out.done(format!("silence {id} until {until}")),
        Plan::Expire { .. } => context.out.done(format!("silence {id} is over")),
    }
    tell(context, config, plan, Some(id))
}

fn tell(context: &Context, config: &Config, plan: &Plan, id: Option<String>) -> Outcome {
    let document = Done {
        schema: "opsctl.alert_silence/v1",
        r#type: "alert_silence",
        environment: &config.environment.name,
        dry_run: id.is_none(),
        id: id.clone(),
        plan,
    };
    context
        .out
        .answer(&document, |_| id.map(|id| format!("{id}\n")).unwrap_or_default())?;
    Ok(Exit::Done)
}

fn shown(matchers: &[Matcher]) -> String {
    let all: Vec<String> = matchers.iter().map(ToString::to_string).collect();
    all.join(" ")
}

/// What a plan does, for people.
fn words(plan: &Plan, now: Timestamp) -> String {
    match plan {
        Plan::Create {
            matchers,
            until,
            author,
            comment,
            hides,
            of,
            beside,
            ..
        } => {
            let lasts = seconds(until.duration_since(now).as_secs_f64().max(0.0));
            let mut text = format!("silences {} for {lasts}\n", shown(matchers));
            let _ = writeln!(text, "  {author}: {comment}");
            let _ = writeln!(
                text,
                "  hides {} of {of} that fire now",
                plural(hides.len() as u64, "alert", "alerts")
            );
            for labels in hides {
                let name = labels.get("alertname").map_or("", String::as_str);
                let rest = labels.iter().filter(|(label, _)| *label != "alertname");
                let rest: Vec<String> = rest.map(|(label, value)| format!("{label}={value}")).collect();
                let _ = writeln!(text, "    {name} {}", rest.join(" "));
            }
            for id in beside {
                let _ = writeln!(text, "  the same is silenced by {id} already");
            }
            text
        }
        Plan::Expire { silence } => format!(
            "ends the silence {} of {}: {}\n",
            shown(&silence.matchers),
            silence.created_by,
            silence.comment
        ),
    }
}

fn list(args: &List, context: &Context, config: &Config) -> Outcome {
    let silences = context.interruptible(async {
        let alertmanager = platform::teller(context, config).await?;
        Ok::<_, Failure>(alertmanager.silences().await?)
    })??;
    let mut silences: Vec<&Silence> = silences
        .iter()
        .filter(|silence| args.all || silence.status.state != "expired")
        .collect();
    silences.sort_by_key(|silence| (silence.ends_at, &silence.id));
    let now = context.now();
    let document = Listed {
        schema: "opsctl.alert_silences/v1",
        r#type: "alert_silences",
        environment: &config.environment.name,
        silences,
    };
    context.out.answer(&document, |paint| {
        if document.silences.is_empty() {
            return String::new();
        }
        table(&document.silences, now).render(paint, context.out.width)
    })?;
    if document.silences.is_empty() {
        context.out.note("nothing is silenced");
    }
    Ok(Exit::Done)
}

fn table(silences: &[&Silence], now: Timestamp) -> Table {
    let mut table = Table::new(&["silence", "state", "ends", "by", "matchers", "why"]);
    for silence in silences {
        let style = match silence.status.state.as_str() {
            "active" => Style::Warning,
            _ => Style::Faint,
        };
        let ends = silence.ends_at.map_or_else(
            || "never".to_owned(),
            |end| {
                let left = end.duration_since(now).as_secs_f64();
                if left < 0.0 {
                    format!("{} ago", seconds(-left))
                } else {
                    format!("in {}", seconds(left))
                }
            },
        );
        table.styled(vec![
            (silence.id.get(..8).unwrap_or(&silence.id).to_owned(), Some(Style::Hint)),
            (silence.status.state.clone(), Some(style)),
            (ends, None),
            (silence.created_by.clone(), None),
            (shown(&silence.matchers), None),
            (silence.comment.clone(), None),
        ]);
    }
    table
}
