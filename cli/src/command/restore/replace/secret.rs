//! `restore --replace` of a PostgreSQL whose users run on Kubernetes: the new database gets a name of its own, the Secrets
//! that lead services to the old one lead to the new one, and the services are restarted, a few pods at a time. Undone, it
//! is the same way back. What is in a Secret besides the name of the database is neither read nor changed.

use std::collections::BTreeSet;
use std::time::Duration;

use opsctl_platform::kube::access::{Command, needed};
use opsctl_platform::run::{Control, Run};
use opsctl_platform::{Field, PlatformError};
use tokio::time::Instant;

use super::database::{LONGEST, Work, uses};
use super::stop_asked;
use crate::command::restore::database::Document;
use crate::config::{Config, Datastore};
use crate::error::{self, Failure};
use crate::exit::Exit;
use crate::platform::{OnCluster, Opened, Part};

/// How long a roll-out may take: what Deployments themselves allow by default.
const ROLL_OUT: Duration = Duration::from_mins(10);
/// Between two looks at the cluster.
const POLL: Duration = Duration::from_millis(500);
/// How long the server may take to notice that pods have ended.
const GONE_LIMIT: Duration = Duration::from_secs(5);
/// What stands between the name of a database and the run that restored it.
const RESTORED: &str = ".restored-";

/// What a restored database is called. One that was restored before loses what it got then.
pub(super) fn new_name(name: &str, run: &str) -> String {
    let base = name.split_once(RESTORED).map_or(name, |(base, _)| base);
    let suffix = format!("{RESTORED}{run}");
    let mut length = base.len().min(LONGEST.saturating_sub(suffix.len()));
    while !base.is_char_boundary(length) {
        length -= 1;
    }
    format!("{}{suffix}", &base[..length])
}

/// The database to which the Secrets of services lead that use `database` of a server, these services, and the Secrets.
pub(super) async fn led(
    config: &Config,
    store: &Datastore,
    opened: &Opened,
    there: &OnCluster,
    database: &str,
) -> Result<(String, Vec<String>, Vec<Field>), Failure> {
    let what = format!("could not restore `{}` in place", store.name);
    let failed = |error: &PlatformError| error::platform::failure(what.clone(), error);
    let mut names: BTreeSet<String> = BTreeSet::new();
    let (mut services, mut secrets, mut told) = (Vec::new(), Vec::new(), Vec::new());
    for service in config.users_of(&store.name) {
        let says_so = uses(service, store, database);
        let Some(key) = &service.kubernetes.database else {
            if says_so {
                return Err(Failure::usage("not_configured", what)
                    .cause(format!(
                        "service `{}` uses the database, and where it has its address from is not known",
                        service.name
                    ))
                    .help(format!(
                        "say so at {}: kubernetes = {{ database = \"SECRET#KEY\" }}",
                        service.origin
                    )));
            }
            continue;
        };
        let workload = there.kube.settings().workload(&service.name);
        let namespace = workload.map_or("default", |workload| workload.namespace.as_str());
        let field = Field::database_of(namespace, &key.secret, &key.key);
        let value = opened.platform.get(&field).await.map_err(|error| failed(&error))?;
        let name = value
            .as_ref()
            .and_then(serde_json::Value::as_str)
            .unwrap_or_default()
            .to_owned();
        // After an earlier restore it has another name than the catalogue says.
        if says_so || name == database {
            told.push(format!("{}: {name}, by {field}", service.name));
            names.insert(name);
            services.push(service.name.clone());
            if !secrets.contains(&field) {
                secrets.push(field);
            }
        }
    }
    let mut names = names.into_iter();
    match (names.next(), names.next()) {
        (Some(live), None) => {
            allowed(there, &services, &what).await?;
            Ok((live, services, secrets))
        }
        (None, _) => Err(Failure::usage("not_configured", what)
            .cause(format!("no service says that it uses database {database} of `{}`", store.name))
            .help("say so with `uses` of a service, and where it has the address from: kubernetes = { database = \"SECRET#KEY\" }")),
        (Some(_), Some(_)) => Err(Failure::refused("ambiguous", what)
            .cause("the Secrets of the services lead to different databases")
            .details(told)
            .help("`uses = [\"STORE/DATABASE\"]` says which one a service uses")),
    }
}

/// Asks the cluster for every right that is needed, those of the undo too.
async fn allowed(there: &OnCluster, services: &[String], what: &str) -> Result<(), Failure> {
    let settings = there.kube.settings();
    let workloads = services.iter().filter_map(|service| settings.workload(service));
    let mut namespaces: Vec<&str> = workloads.map(|workload| workload.namespace.as_str()).collect();
    namespaces.push(&settings.namespace);
    namespaces.sort_unstable();
    namespaces.dedup();
    let rows = needed(&[Command::Status, Command::Restore], &settings.providers());
    let refused = there.kube.may(&namespaces, &rows).await;
    let refused =
        refused.map_err(|error| error::platform::failure("could not ask the cluster what is allowed", &error))?;
    if refused.is_empty() {
        return Ok(());
    }
    Err(Failure::refused("forbidden", what)
        .cause(format!(
            "not everything is allowed that it needs on cluster `{}`",
            there.cluster.name
        ))
        .details(refused.iter().map(|one| {
            let place = one.namespace.as_deref().unwrap_or("the cluster");
            format!("{} {} in {place}", one.verb, one.resource)
        }))
        .help("nothing was changed; `opsctl rbac --for restore` prints the role that is needed"))
}

impl Work<'_> {
    /// Everything up to the end. An error leaves what was changed to the caller's undo.
    pub(super) async fn carry_through_there(&self, run: &mut Run, there: &OnCluster) -> Result<Document, Failure> {
        let started = self.context.now();
        let (brought, new) = Box::pin(self.beside(run)).await?;
        stop_asked(run, self.cancel, &self.what)?;
        run.step("naming the new database")
            .await
            .map_err(|error| self.failed(&error))?;
        let names = backups::postgres::swap::Names {
            name: new_name(&self.plan.name, run.id()),
            staged: self.staged.clone(),
            // Nothing had the name before.
            kept: self.staged.clone(),
        };
        let database = names.name.clone();
        let name = self.part(&Part::Name(names));
        run.change(&name, Some(new.into()))
            .await
            .map_err(|error| self.failed(&error))?;

        stop_asked(run, self.cancel, &self.what)?;
        run.step("leading services to it")
            .await
            .map_err(|error| self.failed(&error))?;
        let at = self.opened.platform.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let restarts: Vec<Field> = self
            .plan
            .services
            .iter()
            .map(|service| Field::restarted(service))
            .collect();
        // Whoever takes it back restarts the services after their Secrets, too.
        for field in &restarts {
            let foreseen = run.foresee(field, Some(at.clone().into())).await;
            foreseen.map_err(|error| self.failed(&error))?;
        }
        for field in &self.plan.secrets {
            let changed = run.change(field, Some(database.clone().into())).await;
            changed.map_err(|error| self.failed(&error))?;
        }
        run.step("restarting services")
            .await
            .map_err(|error| self.failed(&error))?;
        for field in &restarts {
            let changed = run.change(field, Some(at.clone().into())).await;
            changed.map_err(|error| self.failed(&error))?;
        }
        if let Err(failure) = self.rolled_out(run, there, true).await {
            if run.control() != Control::Fenced {
                self.context.out.note("leading services back to the old database …");
                for field in self.plan.secrets.iter().chain(&restarts) {
                    run.undo_field(field).await.map_err(|error| self.failed(&error))?;
                }
                // The new database goes when nobody needs it any more.
                let _ = self.rolled_out(run, there, false).await;
            }
            return Err(failure);
        }

        // From here on the restored database stays: services write to it.
        let changed: Vec<Field> = self
            .plan
            .secrets
            .iter()
            .chain(&restarts)
            .cloned()
            .chain([name])
            .collect();
        run.keep_all(&changed).await.map_err(|error| self.failed(&error))?;
        run.undo().await.map_err(|error| self.failed(&error))?;
        self.tell_who_is_left().await;
        let kept = self.plan.old.as_ref().map(|_| self.plan.live.clone());
        Ok(self.document(run, started, brought, &database, kept))
    }

    /// Waits until all pods of the services are new ones. `heeds`: whoever wants it to stop is listened to.
    async fn rolled_out(&self, run: &Run, there: &OnCluster, heeds: bool) -> Result<(), Failure> {
        let limit = self.args.timeout.unwrap_or(ROLL_OUT);
        let until = Instant::now() + limit;
        for service in &self.plan.services {
            loop {
                let cause = match there.kube.is_rolled_out(service).await {
                    Ok(true) => break,
                    Ok(false) if Instant::now() < until => None,
                    Ok(false) => Some(format!("it took longer than {} s", limit.as_secs())),
                    // It may answer again.
                    Err(PlatformError::Unreachable { .. } | PlatformError::TimedOut { .. })
                        if Instant::now() < until =>
                    {
                        None
                    }
                    Err(error) => Some(error.to_string()),
                };
                if let Some(cause) = cause {
                    return Err(Failure::new(Exit::No, "not_ready", self.what.clone())
                        .cause(format!(
                            "`{service}` did not become ready with the restored database: {cause}"
                        ))
                        .help("its Secret leads to the old database again: opsctl status; opsctl logs"));
                }
                if heeds {
                    stop_asked(run, self.cancel, &self.what)?;
                }
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// Whoever is connected to the old database after all pods are new was forgotten in the catalogue, or reads its address
    /// from elsewhere.
    async fn tell_who_is_left(&self) {
        let Some(old) = &self.plan.old else { return };
        let until = Instant::now() + GONE_LIMIT;
        loop {
            let Ok(left) = self.server.sessions(old.oid).await else {
                return;
            };
            if left.is_empty() {
                return;
            }
            if Instant::now() >= until {
                for session in left {
                    let live = &self.plan.live;
                    self.context
                        .out
                        .warn(format!("still connected to the old database {live}: {session}"));
                }
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::new_name;

    #[test]
    fn a_name_does_not_grow_with_every_restore() {
        let first = new_name("orders", "20260314-092653-7f3a");
        assert_eq!(first, "orders.restored-20260314-092653-7f3a");
        assert_eq!(
            new_name(&first, "20260315-000000-0001"),
            "orders.restored-20260315-000000-0001"
        );
        assert!(new_name(&"ü".repeat(31), "20260315-000000-0001").len() <= 63);
    }
}
