//! Consent as a type: whatever replaces data or touches a protected environment takes an [`Approved`] plan, and only
//! this file makes one. How much is asked follows the consequence: nothing for what is undone by itself, `[y/N]` for
//! what replaces data, the typed name in a protected environment.

use clap::Args;

use crate::context::Context;
use crate::error::Failure;

/// The flags of every command that may have to ask.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ConsentArgs {
    /// Answer yes to the question that this command asks
    #[arg(short = 'y', long)]
    pub(crate) yes: bool,

    /// Why this is done; recorded with the run, and needed with `--yes` in a protected environment
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

/// What a plan does to the world, which decides how much is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Consequence {
    /// Undone by itself, within its guards: asked for in protected environments alone.
    UndoneByItself,
    /// Replaces or removes data: always asked for.
    ReplacesData,
}

/// What is at stake, in words for the question.
#[derive(Debug, Clone)]
pub(crate) struct Stake<'a> {
    /// The question without `[y/N]`, for example ``replace `orders-db` with snapshot 7f3a91c2?``.
    pub(crate) question: String,
    /// The name to type in a protected environment.
    pub(crate) name: &'a str,
    /// How bad it can get.
    pub(crate) consequence: Consequence,
    /// The environment's name, if that environment is protected.
    pub(crate) protected: Option<&'a str>,
}

/// A plan that was consented to. Nothing else may be applied.
#[derive(Debug)]
pub(crate) struct Approved<P>(P);

impl<P> Approved<P> {
    /// The plan.
    pub(crate) fn into_plan(self) -> P {
        self.0
    }
}

/// Asks for consent as the stake demands and returns the plan as approved; exit 5 without consent.
pub(crate) fn approve<P>(
    context: &Context,
    args: &ConsentArgs,
    plan: P,
    stake: &Stake<'_>,
) -> Result<Approved<P>, Failure> {
    match (stake.protected, &stake.consequence) {
        (Some(environment), _) => protected(context, args, stake, environment)?,
        (None, Consequence::ReplacesData) => ask(context, args, stake)?,
        (None, Consequence::UndoneByItself) => {}
    }
    Ok(Approved(plan))
}

fn ask(context: &Context, args: &ConsentArgs, stake: &Stake<'_>) -> Result<(), Failure> {
    if args.yes {
        return Ok(());
    }
    if !context.interactive() {
        return Err(
            Failure::refused("consent_needed", format!("nobody was asked: {}", stake.question))
                .help("`--yes` is required when not running interactively"),
        );
    }
    context.out.ask(&format!("{} [y/N]", stake.question));
    match context.read_line()?.as_deref().map(str::to_ascii_lowercase).as_deref() {
        Some("y" | "yes") => Ok(()),
        _ => Err(Failure::refused(
            "consent_refused",
            "nothing was changed: the answer was no",
        )),
    }
}

fn protected(context: &Context, args: &ConsentArgs, stake: &Stake<'_>, environment: &str) -> Result<(), Failure> {
    if args.yes {
        return if args.reason.as_deref().is_some_and(|reason| !reason.trim().is_empty()) {
            Ok(())
        } else {
            Err(Failure::refused(
                "reason_needed",
                format!("environment `{environment}` is protected: `--yes` needs a reason"),
            )
            .help("add `--reason \"…\"`; it is recorded with the run"))
        };
    }
    if !context.interactive() {
        return Err(Failure::refused(
            "consent_needed",
            format!("environment `{environment}` is protected: {}", stake.question),
        )
        .help("`--yes --reason \"…\"` is required when not running interactively"));
    }
    context.out.ask(&format!(
        "environment `{environment}` is protected. {} Type `{}` to go on:",
        stake.question, stake.name
    ));
    match context.read_line()? {
        Some(answer) if answer == stake.name => Ok(()),
        _ => Err(Failure::refused(
            "consent_refused",
            "nothing was changed: the name was not typed",
        )),
    }
}

/// Asks to choose one of several; on a terminal only. `None` when the answer is no choice.
pub(crate) fn pick(context: &Context, question: &str, choices: &[String]) -> Result<Option<usize>, Failure> {
    for (number, choice) in choices.iter().enumerate() {
        context.out.say(&format!("  {}  {choice}", number + 1));
    }
    context.out.ask(&format!("{question} [1-{}]", choices.len()));
    let answer = context.read_line()?.unwrap_or_default();
    let by_number = answer
        .parse::<usize>()
        .ok()
        .and_then(|number| number.checked_sub(1))
        .filter(|index| *index < choices.len());
    Ok(by_number.or_else(|| choices.iter().position(|choice| *choice == answer)))
}
