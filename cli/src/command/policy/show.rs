//! `opsctl policy show`: every policy of every instance, as it is now. It changes nothing.

use serde::Serialize;
use serde_json::Value;

use super::{Read, moment, number, read, running, text, words};
use crate::admin::AdminError;
use crate::context::Context;
use crate::error::{self, Outcome};
use crate::exit::Exit;
use crate::output::{Paint, Style, Table, printable, seconds};
use crate::platform;

/// Changes of a breaker that the table tells; the document has all that are known.
const CHANGES: usize = 3;

/// Show what the policies of running services do now
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// The service; without it all that run
    #[arg(value_name = "SERVICE")]
    service: Option<String>,

    /// Only this instance
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
}

fn help() -> String {
    format!(
        "Examples:\n  # Which breakers are open, and since when?\n  opsctl policy show orders\n\n  \
         # For a script: every breaker that is not closed\n  \
         opsctl policy show --json | jq '.policies[] | select(.breaker.state != \"closed\")'\n\n\
         Each instance has its own figures. WINDOW: calls and failures that the breaker judges by; RETRIES: what the\n\
         retry budget has left, and refused since the start; LIMITS: places, rates and times of the parts that the policy\n\
         has. Services without an admin listener are left out unless they are named. Exit 3: some instances did not\n\
         answer, and are listed.\n\n{}",
        Exit::section(&[Exit::Usage, Exit::Partial, Exit::Unreachable])
    )
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    r#type: &'static str,
    policies: Vec<Row<'a>>,
    unreachable: Vec<Unread>,
}

#[derive(Serialize)]
struct Row<'a> {
    service: &'a str,
    instance: &'a str,
    version: &'a str,
    #[serde(flatten)]
    policy: &'a Value,
}

#[derive(Serialize)]
struct Unread {
    service: String,
    instance: String,
    reason: String,
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let clusters = platform::open_all(context)?;
    let all = context.block_on(async {
        let mut all = Vec::new();
        for opened in &clusters {
            let services = running(opened, args.service.as_deref(), args.instance.as_deref()).await?;
            all.extend(read(opened, &services).await);
        }
        Ok::<_, error::Failure>(all)
    })?;
    let named = args.service.is_some() || args.instance.is_some();
    let unread: Vec<(&Read, &AdminError)> = all
        .iter()
        .filter_map(|read| Some((read, read.policies.as_ref().err()?)))
        // Not every program has a listener, and nobody asked for this one.
        .filter(|(_, error)| named || !matches!(error, AdminError::NoListener | AdminError::Unknown))
        .collect();
    let rows = rows(&all);
    if rows.is_empty()
        && let Some((read, error)) = unread.first()
    {
        return Err(error::admin::failure(
            format!("could not read the policies of `{}`", read.instance.id),
            &read.instance,
            error,
        ));
    }
    let document = Document {
        schema: "opsctl.policies/v1",
        r#type: "policies",
        policies: rows,
        unreachable: unread
            .iter()
            .map(|(read, error)| Unread {
                service: read.instance.service.clone(),
                instance: read.instance.id.clone(),
                reason: error.to_string(),
            })
            .collect(),
    };
    context.out.answer(&document, |paint| {
        if document.policies.is_empty() {
            return String::new();
        }
        table(context, &document.policies, paint)
    })?;
    if document.policies.is_empty() {
        context.out.note("nothing that runs tells of policies");
    }
    for row in &document.policies {
        if let Some(by) = forced_by(row.policy) {
            // Reasons and names come from elsewhere.
            let told = format!("{} {}: {by}", row.instance, name(row.policy));
            context.out.note(printable(&told));
        }
        if let Some(told) = faults(row.policy) {
            context
                .out
                .warn(format!("{} {}: {told}", row.instance, name(row.policy)));
        }
        if named {
            for doubt in doubts(row.policy) {
                context
                    .out
                    .note(printable(&format!("{} {}: {doubt}", row.instance, name(row.policy))));
            }
        }
    }
    for missing in &document.unreachable {
        context.out.warn(format!("{}: {}", missing.instance, missing.reason));
    }
    Ok(if document.unreachable.is_empty() {
        Exit::Done
    } else {
        Exit::Partial
    })
}

/// By service and policy, so that the instances of one policy stand together.
fn rows(all: &[Read]) -> Vec<Row<'_>> {
    let mut rows: Vec<Row<'_>> = all
        .iter()
        .filter_map(|read| Some((read, read.policies.as_ref().ok()?)))
        .flat_map(|(read, policies)| {
            policies.iter().map(|policy| Row {
                service: &read.instance.service,
                instance: &read.instance.id,
                version: &read.instance.version,
                policy,
            })
        })
        .collect();
    rows.sort_by_key(|row| (row.service, name(row.policy), row.instance));
    rows
}

fn name(policy: &Value) -> &str {
    text(policy, "/name").unwrap_or_default()
}

fn table(context: &Context, rows: &[Row<'_>], paint: Paint) -> String {
    let mut table = Table::new(&[
        "instance", "policy", "breaker", "window", "retries", "limits", "changes",
    ]);
    for row in rows {
        let (state, style) = breaker(row.policy);
        table.styled(vec![
            (row.instance.to_owned(), Some(Style::Hint)),
            (name(row.policy).to_owned(), None),
            (state, Some(style)),
            (window(row.policy), None),
            (retries(row.policy), None),
            (limits(row.policy), None),
            (changes(row.policy), Some(Style::Faint)),
        ]);
    }
    table.render(paint, context.out.width)
}

fn breaker(policy: &Value) -> (String, Style) {
    let Some(state) = text(policy, "/breaker/state") else {
        return ("-".to_owned(), Style::Faint);
    };
    let style = match state {
        "closed" => Style::Done,
        "open" | "forced_open" => Style::Error,
        _ => Style::Warning,
    };
    let left = number(policy, "/forced/remaining_seconds");
    let left = left.map(|left| format!(" for {}", seconds(left))).unwrap_or_default();
    (format!("{}{left}", words(state)), style)
}

fn window(policy: &Value) -> String {
    let Some(calls) = number(policy, "/breaker/window_calls") else {
        return "-".to_owned();
    };
    let failed = number(policy, "/breaker/failure_ratio").unwrap_or_default();
    format!("{calls:.0} calls, {:.1} % failed", failed * 100.0)
}

/// Retries that the budget has left, and those that it refused since the start.
fn retries(policy: &Value) -> String {
    let Some(left) = number(policy, "/retry/budget/left") else {
        return "-".to_owned();
    };
    match number(policy, "/retry/budget/exhausted").filter(|refused| *refused > 0.0) {
        Some(refused) => format!("{left:.0} left, {refused:.0} refused"),
        None => format!("{left:.0} left"),
    }
}

/// Places and rates, and time limits.
fn limits(policy: &Value) -> String {
    let mut told = Vec::new();
    if let Some(limit) = number(policy, "/bulkhead/limit") {
        let inside = number(policy, "/bulkhead/in_flight").unwrap_or_default();
        told.push(format!("{inside:.0} of {limit:.0} inside"));
    }
    if let Some(queued) = number(policy, "/bulkhead/queued").filter(|queued| *queued > 0.0) {
        told.push(format!("{queued:.0} wait"));
    }
    if let Some(limit) = number(policy, "/concurrency_limit/limit") {
        let inside = number(policy, "/concurrency_limit/in_flight").unwrap_or_default();
        told.push(format!("adaptive {inside:.0} of {limit:.0}"));
    }
    if let Some(rate) = number(policy, "/rate_limit/per_second") {
        told.push(format!("{rate:.0} a second"));
    }
    if let Some(share) = number(policy, "/throttle/reject_probability") {
        told.push(format!("throttle refuses {:.0} %", share * 100.0));
    }
    if let Some(delay) = number(policy, "/hedge/delay_seconds") {
        told.push(format!("hedge after {}", seconds(delay)));
    }
    if let Some(limit) = number(policy, "/attempt_timeout_seconds") {
        told.push(format!("attempt {}", seconds(limit)));
    }
    if let Some(limit) = number(policy, "/total_timeout_seconds") {
        told.push(format!("total {}", seconds(limit)));
    }
    if told.is_empty() {
        "-".to_owned()
    } else {
        told.join(", ")
    }
}

/// Faults that are in its calls now.
fn faults(policy: &Value) -> Option<String> {
    let active = number(policy, "/active_faults").filter(|active| *active > 0.0)?;
    let fault = if active > 1.0 { "faults are" } else { "fault is" };
    Some(format!("{active:.0} {fault} put into its calls"))
}

/// What looked doubtful when it was built.
fn doubts(policy: &Value) -> impl Iterator<Item = &str> {
    let all = policy.pointer("/warnings").and_then(Value::as_array);
    all.into_iter().flatten().filter_map(Value::as_str)
}

/// The last changes of the breaker, newest first.
fn changes(policy: &Value) -> String {
    if text(policy, "/breaker/state").is_none() {
        return "-".to_owned();
    }
    let all = policy.pointer("/breaker/last_transitions").and_then(Value::as_array);
    let told: Vec<String> = all
        .into_iter()
        .flatten()
        .rev()
        .take(CHANGES)
        .filter_map(|change| {
            let ago = number(change, "/ago_ms")? / 1000.0;
            let (from, to) = (text(change, "/from")?, text(change, "/to")?);
            Some(format!("{} to {} {} ago", words(from), words(to), seconds(ago)))
        })
        .collect();
    if told.is_empty() {
        "none".to_owned()
    } else {
        told.join(", ")
    }
}

/// Who forced the breaker, until when and why.
fn forced_by(policy: &Value) -> Option<String> {
    let state = text(policy, "/forced/state")?;
    let mut told = words(state);
    if let Some(actor) = text(policy, "/forced/actor") {
        told.push_str(&format!(" by {actor}"));
    }
    if let Some(until) = moment(policy, "/forced/until") {
        told.push_str(&format!(" until {until}"));
    }
    if let Some(reason) = text(policy, "/forced/reason") {
        told.push_str(&format!(": {reason}"));
    }
    Some(told)
}
