//! The Prometheus that pictures of boards are drawn from. It asks nothing.

use std::time::Duration;

use dashboards::draw::data::Prometheus;

use super::cluster::{access, one, prometheus};
use crate::config::{self, Config, PlatformKind};
use crate::context::Context;
use crate::error::Failure;

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
    Ok(Prometheus::new(&known.url, access, patience, authority.as_deref())?)
}
