//! `opsctl health check`: asks once and says it by the exit code, so that it serves as a probe of its own.

use std::time::Duration;

use futures::StreamExt as _;
use serde::Serialize;

use super::ask::{Answer, ask};
use super::target::{self, Target};
use super::{Asked, State};
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::exit::Exit;
use crate::output::{Paint, Style, Table, latency};

/// How many are asked at one time.
const AT_ONCE: usize = 32;

/// Ask services how they are, once
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    #[command(flatten)]
    asked: Asked,
}

fn help() -> String {
    format!(
        "Examples:\n  # Every instance of every service that is declared\n  opsctl health check\n\n  \
         # A probe: says nothing while all is well\n  \
         opsctl health check -q http://127.0.0.1:8080/health/live\n\n  \
         # gRPC, of one service name\n  opsctl health check grpc://127.0.0.1:9090/shop.v1.Orders\n\n\
         A service is asked at every instance, behind the proxy, by each way that its `health` names; one that names\n\
         none must take connections. On Kubernetes every pod is asked so, through a port-forward of the API server, whose\n\
         way there and back is in the latency. An address without a path is asked for /health/ready, or for its --group.\n\
         2xx and SERVING are healthy, also where the answer is `warn`. Redirects are not followed. https:// and\n\
         grpcs:// want a certificate that this machine trusts.\n\n\
         Of several targets the worst counts: 7 before 4 before 0. With -q only what is not healthy is told.\n\n{}",
        Exit::section(&[Exit::Usage, Exit::No, Exit::Unreachable])
    )
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    r#type: &'static str,
    healthy: bool,
    targets: Vec<Row<'a>>,
}

/// A target and its answer.
#[derive(Serialize)]
pub(super) struct Row<'a> {
    pub(super) service: Option<&'a str>,
    pub(super) instance: Option<&'a str>,
    /// The address that was asked; `None` when nobody is there.
    pub(super) address: Option<String>,
    pub(super) protocol: Option<&'static str>,
    #[serde(flatten)]
    pub(super) answer: &'a Answer,
}

impl<'a> Row<'a> {
    pub(super) fn new(target: &'a Target, answer: &'a Answer) -> Self {
        let endpoint = target.endpoint.as_ref().ok();
        Self {
            service: target.service.as_deref(),
            instance: target.instance.as_deref(),
            address: endpoint.map(ToString::to_string),
            protocol: endpoint.map(|endpoint| endpoint.question.protocol()),
            answer,
        }
    }
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let (targets, answers) = context.block_on_this_thread(async {
        let targets = target::resolve(context, &args.asked.targets, args.asked.group.as_deref()).await?;
        let answers = ask_all(&targets, args.asked.timeout).await;
        Ok::<_, Failure>((targets, answers))
    })?;
    let worst = answers.iter().map(|answer| answer.state).max();
    let exit = worst.map_or(Exit::Done, State::exit);
    let document = Document {
        schema: "opsctl.health/v1",
        r#type: "health",
        healthy: exit == Exit::Done,
        targets: targets
            .iter()
            .zip(&answers)
            .map(|(target, answer)| Row::new(target, answer))
            .collect(),
    };
    context.out.answer(&document, |paint| {
        let quiet = context.out.quiet > 0;
        let shown = targets.iter().zip(&answers);
        let shown: Vec<_> = shown
            .filter(|(_, answer)| !quiet || answer.state > State::Degraded)
            .collect();
        table(&shown, paint, context.out.width)
    })?;
    Ok(exit)
}

async fn ask_all(targets: &[Target], timeout: Duration) -> Vec<Answer> {
    futures::stream::iter(targets)
        .map(|target| ask(target, timeout))
        .buffered(AT_ONCE)
        .collect()
        .await
}

fn table(shown: &[(&Target, &Answer)], paint: Paint, width: Option<usize>) -> String {
    if shown.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["target", "asked", "state", "latency", "answer"]);
    for (target, answer) in shown {
        let asked = target
            .endpoint
            .as_ref()
            .map_or("-", |endpoint| endpoint.question.protocol());
        let took = answer
            .latency
            .map_or("-".to_owned(), |took| latency(took.as_secs_f64()));
        table.styled(vec![
            (target.name(), Some(Style::Hint)),
            (asked.to_owned(), None),
            (answer.state.word().to_owned(), Some(answer.state.style())),
            (took, None),
            (answer.detail.clone(), None),
        ]);
    }
    table.render(paint, width)
}
