//! The status of an environment on clusters. The document has the fields of the local platform's, and grows by
//! `clusters` and by each service's `cluster`.

use std::collections::BTreeMap;

use opsctl_platform::ServiceState;
use opsctl_platform::run::{Phase, RunRecord, orphans};
use serde::Serialize;
use serde_json::Value;

use super::{restarts, state};
use crate::context::Context;
use crate::error::{self, Failure};
use crate::exit::Exit;
use crate::output::{Paint, Style, Table};
use crate::platform::{Opened, words};

/// What runs on the clusters of an environment.
#[derive(Serialize)]
pub(super) struct Overview {
    schema: &'static str,
    r#type: &'static str,
    healthy: bool,
    environment: String,
    /// These belong to the local platform.
    supervisor: Value,
    proxy: Value,
    proxy_answers: bool,
    stopping: bool,
    front_errors: BTreeMap<String, String>,
    clusters: Vec<Cluster>,
    services: Vec<Row>,
    /// Runs that are not over.
    runs: Vec<RunRecord>,
    /// Runs that need `recover`, with the reason in words.
    orphans: BTreeMap<String, String>,
    #[serde(skip)]
    unreachable: bool,
}

/// A cluster that was asked.
#[derive(Serialize)]
struct Cluster {
    name: String,
    /// Why nothing is known of it.
    error: Option<String>,
}

#[derive(Serialize)]
struct Row {
    cluster: String,
    #[serde(flatten)]
    state: ServiceState,
}

impl Overview {
    /// Asks every cluster. One of several that does not answer is told, and the others are shown.
    pub(super) async fn read(context: &Context, all: &[Opened]) -> Result<Self, Failure> {
        let mut seen = Self {
            schema: "opsctl.status/v1",
            r#type: "status",
            healthy: true,
            environment: all
                .first()
                .map(|opened| opened.config.environment.name.clone())
                .unwrap_or_default(),
            supervisor: Value::Null,
            proxy: Value::Null,
            proxy_answers: false,
            stopping: false,
            front_errors: BTreeMap::new(),
            clusters: Vec::new(),
            services: Vec::new(),
            runs: Vec::new(),
            orphans: BTreeMap::new(),
            unreachable: false,
        };
        let answers = futures::future::join_all(all.iter().map(seen_on)).await;
        for (opened, answer) in all.iter().zip(answers) {
            let name = opened.cluster().unwrap_or_default().to_owned();
            let error = match answer {
                Ok((states, runs)) => {
                    seen.services.extend(states.into_iter().map(|state| Row {
                        cluster: name.clone(),
                        state,
                    }));
                    seen.runs
                        .extend(runs.into_iter().filter(|record| record.phase != Phase::Closed));
                    for orphan in orphans(opened.platform.as_ref()).await.unwrap_or_default() {
                        if !orphan.watched {
                            seen.orphans
                                .insert(orphan.record.id, words::loss(orphan.loss).to_owned());
                        }
                    }
                    None
                }
                Err(failure) if all.len() > 1 => {
                    seen.unreachable = true;
                    let why = failure.causes.first().unwrap_or(&failure.message).clone();
                    context.out.warn(format!("cluster {name}: {why}"));
                    Some(why)
                }
                Err(failure) => return Err(failure),
            };
            seen.clusters.push(Cluster { name, error });
        }
        seen.healthy = !seen.unreachable && seen.services.iter().all(|row| row.state.complete());
        Ok(seen)
    }

    pub(super) fn exit(&self) -> Exit {
        if self.unreachable {
            Exit::Unreachable
        } else if self.healthy {
            Exit::Done
        } else {
            Exit::No
        }
    }

    pub(super) fn show(&self, context: &Context) -> Result<(), Failure> {
        if context.out.json {
            return context.out.event(self);
        }
        if self.services.is_empty() {
            context
                .out
                .note(format!("no service is declared in environment `{}`", self.environment));
            return Ok(());
        }
        context.out.data(&self.table(context.out.stdout, context.out.width))?;
        for record in &self.runs {
            let (state, _) = words::state(record);
            context.out.note(format!(
                "run {} {} {}: {state}",
                record.id,
                record.kind,
                words::target(record)
            ));
        }
        for (run, why) in &self.orphans {
            context
                .out
                .warn(format!("run {run} left something behind ({why}): opsctl recover {run}"));
        }
        Ok(())
    }

    fn table(&self, paint: Paint, width: Option<usize>) -> String {
        let several = self.clusters.len() > 1;
        let headings = ["cluster", "service", "ready", "version", "restarts", "state"];
        let mut table = Table::new(if several { &headings } else { &headings[1..] });
        for Row {
            cluster,
            state: service,
        } in &self.services
        {
            let (told, style) = state(service);
            let desired: u32 = service.versions.iter().map(|version| version.replicas).sum();
            let mut cells = vec![
                (service.name.clone(), Some(Style::Hint)),
                (format!("{}/{desired}", service.ready().count()), Some(style)),
                (service.stable_version.clone().unwrap_or_default(), None),
                (restarts(service), None),
                (told, Some(style)),
            ];
            if several {
                cells.insert(0, (cluster.clone(), None));
            }
            table.styled(cells);
        }
        table.render(paint, width)
    }
}

/// What one cluster says.
async fn seen_on(opened: &Opened) -> Result<(Vec<ServiceState>, Vec<RunRecord>), Failure> {
    let cluster = opened.cluster().unwrap_or_default();
    futures::future::try_join(opened.platform.states(), opened.platform.records())
        .await
        .map_err(|error| error::platform::failure(format!("could not read the status of `{cluster}`"), &error))
}
