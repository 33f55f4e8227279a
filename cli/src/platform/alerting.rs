//! Who evaluates the alerts of an environment and who is told of them: its Prometheus, and its Alertmanager. The catalogue
//! says where they are; without a word the Alertmanager is the one that Prometheus names. It asks about no alert.

use opsctl_drills::expectation::Servers;
use opsctl_platform::prometheus::{Access, Alertmanager, Prometheus};

use super::cluster::{access, asked, prometheus};
use crate::config::{self, Cluster, Config};
use crate::context::Context;
use crate::error::Failure;
use crate::exit::Exit;

/// What the catalogue says of the Alertmanager.
pub(crate) fn alertmanager_of<'a>(config: &'a Config, cluster: Option<&'a Cluster>) -> Option<&'a config::Prometheus> {
    cluster
        .and_then(|cluster| cluster.alertmanager.as_ref())
        .or(config.environment.alertmanager.as_ref())
}

/// An Alertmanager that lets everybody in.
pub(crate) fn alertmanager_at(url: &str) -> Result<Alertmanager, Failure> {
    Alertmanager::new(url, Access::Open, None).map_err(|error| unfit(url).because(&error))
}

fn unfit(url: &str) -> Failure {
    Failure::usage("alertmanager", format!("the Alertmanager at `{url}` cannot be asked"))
}

/// Clients of both. `known` is where the Alertmanager was found before; without it Prometheus is asked, unless the catalogue
/// says where it is.
pub(crate) async fn alerting(
    context: &Context,
    config: &Config,
    cluster: Option<&Cluster>,
    known: Option<&str>,
) -> Result<Servers, Failure> {
    let server = match cluster {
        Some(cluster) => prometheus(config, cluster),
        None => config.environment.prometheus.as_ref(),
    };
    let name = &config.environment.name;
    let server = server.ok_or_else(|| {
        Failure::usage("no_prometheus", "no Prometheus is known that evaluates the alerts")
            .help(format!("`prometheus = \"http://…\"` in `[env.{name}]` of opsctl.toml"))
    })?;
    let prometheus = asked(context, server)?;
    let alertmanager = match (alertmanager_of(config, cluster), known) {
        (Some(declared), _) => {
            let (access, authority) = access(context, declared)?;
            Alertmanager::new(&declared.url, access, authority.as_deref())
                .map_err(|error| unfit(&declared.url).because(&error))?
        }
        (None, Some(url)) => alertmanager_at(url)?,
        (None, None) => alertmanager_at(&found(&prometheus, name).await?)?,
    };
    Ok(Servers {
        prometheus,
        alertmanager,
    })
}

/// Where Prometheus says that its Alertmanager is.
async fn found(prometheus: &Prometheus, environment: &str) -> Result<String, Failure> {
    let found = prometheus.alertmanagers().await.map_err(|error| {
        Failure::new(
            Exit::Unreachable,
            "prometheus_unreachable",
            "Prometheus could not be asked for its Alertmanager",
        )
        .because(&error)
    })?;
    found.into_iter().next().ok_or_else(|| {
        Failure::usage(
            "no_alertmanager",
            "nobody would be told: Prometheus sends alerts to no Alertmanager",
        )
        .help(format!(
            "`alertmanager = \"http://…\"` in `[env.{environment}]` of opsctl.toml, if it is told by others"
        ))
    })
}
