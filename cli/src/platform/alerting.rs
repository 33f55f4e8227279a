//! Who evaluates the alerts of an environment and who is told of them: its Prometheus, and its Alertmanager. The catalogue
//! says where they are; without a word the Alertmanager is the one that Prometheus names. It asks about no alert.

use alerts::live;
use endpoint::{Access, EndpointError};
use opsctl_drills::expectation::Servers;
use opsctl_platform::prometheus::{Alertmanager, Prometheus};

use super::cluster::{access, asked, meant, one, prometheus};
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
    let server = server.ok_or_else(|| no_prometheus(config))?;
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

/// Who is asked what is loaded and what fires.
#[derive(Debug)]
pub(crate) struct Watchers {
    /// Evaluates the rules.
    pub(crate) prometheus: live::Prometheus,
    /// Tells people; absent where nobody says where it is.
    pub(crate) alertmanager: Option<live::Alertmanager>,
}

/// The Prometheus and the Alertmanager of what is meant. That Prometheus does not answer is no failure here: whoever asks
/// it says so.
pub(crate) async fn watchers(context: &Context, config: &Config) -> Result<Watchers, Failure> {
    let cluster = watched(context, config)?;
    let server = match cluster {
        Some(cluster) => prometheus(config, cluster),
        None => config.environment.prometheus.as_ref(),
    };
    let server = server.ok_or_else(|| no_prometheus(config))?;
    let prometheus = client(context, server, live::Prometheus::new)?;
    let alertmanager = match alertmanager_of(config, cluster) {
        Some(declared) => Some(client(context, declared, live::Alertmanager::new)?),
        None => match prometheus.alertmanagers().await {
            Ok(found) => found
                .first()
                .map(|url| live::Alertmanager::new(url, Access::Open, None))
                .transpose()?,
            Err(_) => None,
        },
    };
    Ok(Watchers {
        prometheus,
        alertmanager,
    })
}

/// The Alertmanager alone.
pub(crate) async fn teller(context: &Context, config: &Config) -> Result<live::Alertmanager, Failure> {
    if let Some(declared) = alertmanager_of(config, watched(context, config)?) {
        return client(context, declared, live::Alertmanager::new);
    }
    let watchers = watchers(context, config).await?;
    if let Some(alertmanager) = watchers.alertmanager {
        return Ok(alertmanager);
    }
    // One that does not answer is another fault than one that is not there.
    watchers.prometheus.alertmanagers().await?;
    Err(
        Failure::usage("no_alertmanager", "Prometheus sends alerts to no Alertmanager").help(format!(
            "`alertmanager = \"http://…\"` in `[env.{}]` of opsctl.toml, if it is told by others",
            config.environment.name
        )),
    )
}

/// The cluster whose servers are meant: of several, none where all share the environment's.
fn watched<'a>(context: &Context, config: &'a Config) -> Result<Option<&'a Cluster>, Failure> {
    let clusters = meant(context, config)?;
    let own = |cluster: &&Cluster| cluster.prometheus.is_some() || cluster.alertmanager.is_some();
    match clusters.as_slice() {
        [only] => Ok(Some(only)),
        several if several.iter().any(own) => one(context, config).map(Some),
        _ => Ok(None),
    }
}

fn no_prometheus(config: &Config) -> Failure {
    let name = &config.environment.name;
    Failure::usage("no_prometheus", "no Prometheus is known that evaluates the alerts")
        .help(format!("`prometheus = \"http://…\"` in `[env.{name}]` of opsctl.toml"))
}

fn client<T>(
    context: &Context,
    server: &config::Prometheus,
    make: impl Fn(&str, Access, Option<&[u8]>) -> Result<T, EndpointError>,
) -> Result<T, Failure> {
    let (access, authority) = access(context, server)?;
    Ok(make(&server.url, access, authority.as_deref())?)
}
