//! What `policy force` and `policy reset` share: which instances are meant, the consent, the change on each of them, and
//! what came of it.

use opsctl_platform::Instance;
use serde::Serialize;
use serde_json::Value;

use super::{moment, read, running, text, words};
use crate::admin::{Admin, AdminError};
use crate::consent::{ConsentArgs, Consequence, Stake, approve};
use crate::context::Context;
use crate::error::{self, Failure, Outcome};
use crate::exit::Exit;
use crate::output::plural;
use crate::platform::{self, Opened};
use crate::target;

/// What an instance takes into its log.
const MAX_REASON: usize = 500;

/// A change that is asked for.
pub(super) struct Wanted<'a> {
    pub(super) service: &'a str,
    pub(super) policy: &'a str,
    /// Only this instance.
    pub(super) instance: Option<&'a str>,
    /// The word of the admin listener: `force`, `reset`.
    pub(super) action: &'static str,
    /// What happens, as in "force the breaker `payments` open for 10m".
    pub(super) what: String,
    /// The same when it is done, without the breaker's name: "is forced open for 10m".
    pub(super) done: String,
    /// What the admin listener is told besides actor and reason.
    pub(super) body: Value,
    pub(super) dry_run: bool,
    pub(super) consent: &'a ConsentArgs,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    r#type: &'static str,
    service: &'a str,
    policy: &'a str,
    action: &'static str,
    dry_run: bool,
    actor: String,
    reason: Option<&'a str>,
    /// What was changed, or would be.
    instances: Vec<Changed>,
    failed: Vec<Failed>,
}

#[derive(Serialize)]
struct Changed {
    instance: String,
    state_before: Option<String>,
    /// `None` on a dry run.
    state: Option<String>,
    until: Option<String>,
}

#[derive(Serialize)]
struct Failed {
    instance: String,
    reason: String,
}

/// An instance that has the breaker.
struct Holder {
    instance: Instance,
    state: Option<String>,
}

/// Runs the change to its end.
pub(super) fn run(context: &Context, wanted: &Wanted<'_>) -> Outcome {
    if wanted
        .consent
        .reason
        .as_ref()
        .is_some_and(|reason| reason.len() > MAX_REASON)
    {
        let told = format!("the reason is too long: at most {MAX_REASON} bytes");
        return Err(Failure::usage("reason_too_long", told));
    }
    let opened = platform::open(context)?;
    let (holders, mut failed) = context.block_on(holders(&opened, wanted))?;
    let stake = Stake {
        question: format!(
            "{} of `{}` on {}?",
            wanted.what,
            wanted.service,
            plural(holders.len() as u64, "instance", "instances")
        ),
        name: wanted.service,
        consequence: Consequence::UndoneByItself,
        protected: opened.config.protected(),
    };
    let mut changed = Vec::new();
    if wanted.dry_run {
        changed.extend(holders.into_iter().map(|holder| Changed {
            instance: holder.instance.id,
            state_before: holder.state,
            state: None,
            until: None,
        }));
    } else {
        let holders = approve(context, wanted.consent, holders, &stake)?.into_plan();
        let mut body = wanted.body.clone();
        body["actor"] = context.actor().into();
        body["reason"] = wanted.consent.reason.as_deref().into();
        let outcomes = context.block_on(async {
            let mut outcomes = Vec::new();
            for holder in holders {
                let outcome = match Admin::of(&opened, &holder.instance) {
                    Ok(admin) => admin.change(wanted.policy, wanted.action, &body).await,
                    Err(error) => Err(error),
                };
                outcomes.push((holder, outcome));
            }
            outcomes
        });
        let mut refusal = None;
        for (holder, outcome) in outcomes {
            match outcome {
                Ok(policy) => changed.push(Changed {
                    instance: holder.instance.id,
                    state_before: holder.state,
                    state: text(&policy, "/breaker/state").map(str::to_owned),
                    until: moment(&policy, "/forced/until"),
                }),
                Err(error) => {
                    failed.push((holder.instance.id.clone(), error.to_string()));
                    refusal.get_or_insert((holder.instance, error));
                }
            }
        }
        if changed.is_empty()
            && let Some((instance, error)) = refusal
        {
            let what = format!("could not {} of `{}`", wanted.what, wanted.service);
            return Err(error::admin::failure(what, &instance, &error));
        }
    }
    tell(context, wanted, changed, failed)
}

/// The instances that have the breaker, and those that could not be asked.
async fn holders(opened: &Opened, wanted: &Wanted<'_>) -> Result<(Vec<Holder>, Vec<(String, String)>), Failure> {
    let services = running(opened, Some(wanted.service), wanted.instance).await?;
    let (mut holders, mut known, mut plain) = (Vec::new(), Vec::new(), false);
    let mut unread: Vec<(Instance, AdminError)> = Vec::new();
    for read in read(opened, &services).await {
        let policies = match read.policies {
            Ok(policies) => policies,
            Err(error) => {
                unread.push((read.instance, error));
                continue;
            }
        };
        for policy in policies {
            let name = text(&policy, "/name").unwrap_or_default();
            if !known.iter().any(|known| known == name) {
                known.push(name.to_owned());
            }
            if name != wanted.policy {
                continue;
            }
            let state = text(&policy, "/breaker/state").map(str::to_owned);
            plain |= state.is_none();
            if state.is_some() {
                let instance = read.instance.clone();
                holders.push(Holder { instance, state });
            }
        }
    }
    if !holders.is_empty() {
        let failed = unread
            .into_iter()
            .map(|(instance, error)| (instance.id, error.to_string()))
            .collect();
        return Ok((holders, failed));
    }
    if plain {
        let what = format!("policy `{}` of `{}` has no breaker", wanted.policy, wanted.service);
        return Err(Failure::usage("no_breaker", what).help(format!("opsctl policy show {}", wanted.service)));
    }
    if known.is_empty()
        && let Some((instance, error)) = unread.first()
    {
        let what = format!("could not read the policies of `{}`", instance.id);
        return Err(error::admin::failure(what, instance, error));
    }
    Err(target::unknown("policy", wanted.policy, &known))
}

fn tell(context: &Context, wanted: &Wanted<'_>, changed: Vec<Changed>, failed: Vec<(String, String)>) -> Outcome {
    let document = Document {
        schema: "opsctl.policy/v1",
        r#type: "policy_change",
        service: wanted.service,
        policy: wanted.policy,
        action: wanted.action,
        dry_run: wanted.dry_run,
        actor: context.actor(),
        reason: wanted.consent.reason.as_deref(),
        instances: changed,
        failed: failed
            .into_iter()
            .map(|(instance, reason)| Failed { instance, reason })
            .collect(),
    };
    context.out.answer(&document, |_| {
        document
            .instances
            .iter()
            .map(|changed| {
                let before = changed.state_before.as_deref().map(words).unwrap_or_default();
                let now = changed.state.as_deref().map(words);
                let now = now.unwrap_or_else(|| format!("{before}, unchanged"));
                let until = changed.until.as_deref().map(|until| format!(" until {until}"));
                format!(
                    "{}  was {before}, is {now}{}\n",
                    changed.instance,
                    until.unwrap_or_default()
                )
            })
            .collect()
    })?;
    for failed in &document.failed {
        context.out.warn(format!("{}: {}", failed.instance, failed.reason));
    }
    if wanted.dry_run {
        context
            .out
            .note(format!("would {} of `{}`", wanted.what, wanted.service));
    } else {
        context.out.done(format!(
            "`{}` of `{}` {}; the log of each instance says who did it",
            wanted.policy, wanted.service, wanted.done
        ));
    }
    Ok(if document.failed.is_empty() {
        Exit::Done
    } else {
        Exit::Partial
    })
}
