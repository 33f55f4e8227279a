//! The Prometheus that pictures of boards are drawn from. It asks nothing.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dashboards::draw::data::Prometheus;
use opsctl_platform::prometheus::Access;

use super::cluster::{access, one, prometheus};
use crate::config::{self, Config, PlatformKind};
use crate::context::Context;
use crate::error::{self, Failure};

/// The one of the cluster that is named, else the environment's, else that of its only cluster.
pub(crate) fn prometheus_of<'a>(context: &Context, config: &'a Config) -> Result<&'a config::Prometheus, Failure> {
    let environment = &config.environment;
    let known = match environment.platform {
        PlatformKind::Kubernetes if context.global.cluster.is_some() || environment.prometheus.is_none() => {
            prometheus(config, one(context, config)?)
        }
        PlatformKind::Kubernetes | PlatformKind::Local => environment.prometheus.as_ref(),
    };
    known.ok_or_else(|| {
        Failure::usage(
            "no_prometheus",
            format!("no Prometheus of environment `{}` is known", environment.name),
        )
        .help(format!(
            "`prometheus = \"http://…\"` in `[env.{}]` of opsctl.toml, or OPSCTL_PROMETHEUS",
            environment.name
        ))
    })
}

/// A client for it; no question takes longer than `patience`.
pub(crate) fn figures(
    context: &Context,
    known: &config::Prometheus,
    patience: Duration,
) -> Result<Prometheus, Failure> {
    let (access, authority) = access(context, known)?;
    let client = Prometheus::new(&known.url, patience, authority.as_deref())
        .map_err(|error| error::dashboards::data("Prometheus cannot be asked", &error))?;
    Ok(match access {
        Access::Open => client,
        Access::Bearer(token) => client.authorization(&format!("Bearer {token}")),
        Access::Basic { username, password } => {
            let both = STANDARD.encode(format!("{username}:{password}"));
            client.authorization(&format!("Basic {both}"))
        }
    })
}
