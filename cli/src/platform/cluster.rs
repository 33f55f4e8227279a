//! Services on a cluster: which cluster is meant, how it is reached, and what the catalogue says of the services there.
//! How a cluster is spoken to is the crate `opsctl-platform`.

use std::collections::BTreeSet;
use std::sync::Arc;

use endpoint::Access;
use opsctl_platform::kube::{KubePlatform, Settings, Workload, config as kubeconfig};
use opsctl_platform::prometheus::Prometheus;

use super::specs;
use crate::config::{self, Cluster, Config, Key, PlatformKind, SecretSource, suggestion};
use crate::context::Context;
use crate::error::{self, Failure};

/// A cluster that is open.
#[derive(Clone)]
pub(crate) struct OnCluster {
    /// What the catalogue says of it.
    pub(crate) cluster: Cluster,
    /// The platform on it.
    pub(crate) kube: Arc<KubePlatform>,
}

/// Where services are whose namespace nobody names.
const NAMESPACE: &str = "default";

/// The clusters that are meant: the one of `--cluster`, else all of the environment. Empty on the local platform.
pub(super) fn meant<'a>(context: &Context, config: &'a Config) -> Result<Vec<&'a Cluster>, Failure> {
    let environment = &config.environment;
    let named = context.global.cluster.as_deref();
    if environment.platform == PlatformKind::Local {
        return match named {
            None => Ok(Vec::new()),
            Some(_) => Err(Failure::usage(
                "no_clusters",
                format!("environment `{}` is on this machine, not on clusters", environment.name),
            )
            .help("leave `--cluster` away, or choose another environment with `-e`")),
        };
    }
    let Some(named) = named else {
        if environment.clusters.is_empty() {
            return Err(Failure::usage(
                "not_configured",
                format!(
                    "environment `{}` does not say on which clusters it is",
                    environment.name
                ),
            )
            .help(format!(
                "add `clusters = [\"…\"]` to `[env.{}]` of opsctl.toml, and a `[cluster.…]` for each",
                environment.name
            )));
        }
        return Ok(environment
            .clusters
            .iter()
            .filter_map(|name| config.clusters.get(name))
            .collect());
    };
    if !environment.clusters.iter().any(|cluster| cluster == named) {
        let known = environment.clusters.iter().map(String::as_str);
        let failure = Failure::usage(
            "unknown_cluster",
            format!("environment `{}` is not on a cluster `{named}`", environment.name),
        )
        .cause(format!("it is on {}", environment.clusters.join(", ")));
        return Err(match suggestion(named, known) {
            Some(near) => failure.help(format!("did you mean `{near}`?")),
            None => failure,
        });
    }
    Ok(config.clusters.get(named).into_iter().collect())
}

/// What the catalogue says of services on the clusters that are meant; nobody is asked.
pub(crate) fn described(context: &Context, config: &Config) -> Result<Vec<(Cluster, Settings)>, Failure> {
    let clusters = meant(context, config)?;
    Ok(clusters
        .into_iter()
        .map(|cluster| (cluster.clone(), settings(config, cluster)))
        .collect())
}

/// The one cluster that a change is made on.
pub(super) fn one<'a>(context: &Context, config: &'a Config) -> Result<&'a Cluster, Failure> {
    match meant(context, config)?.as_slice() {
        [only] => Ok(only),
        several => Err(Failure::usage(
            "which_cluster",
            format!("environment `{}` is on several clusters", config.environment.name),
        )
        .details(several.iter().map(|cluster| cluster.name.clone()))
        .help("say on which with `--cluster NAME`; a change is made on one at a time")),
    }
}

/// Reaches a cluster by the context that the catalogue names for it. Sends nothing yet.
pub(super) async fn connect(context: &Context, catalogue: &Config, cluster: &Cluster) -> Result<OnCluster, Failure> {
    let failed = |error| error::platform::failure(format!("could not use the cluster `{}`", cluster.name), &error);
    let file = cluster.kubeconfig.as_deref();
    let reached = kubeconfig::context(file, &cluster.context, cluster.server.as_deref()).await;
    let kube = reached.and_then(|reached| KubePlatform::connect(settings(catalogue, cluster), &reached));
    let mut kube = kube.map_err(failed)?;
    if let Some(known) = prometheus(catalogue, cluster) {
        kube = kube.asking(asked(context, known).map_err(|failure| failure.message));
    }
    Ok(OnCluster {
        cluster: cluster.clone(),
        kube: Arc::new(kube),
    })
}

/// The Prometheus that counts a cluster's requests.
pub(crate) fn prometheus<'a>(catalogue: &'a Config, cluster: &'a Cluster) -> Option<&'a config::Prometheus> {
    cluster
        .prometheus
        .as_ref()
        .or(catalogue.environment.prometheus.as_ref())
}

/// A client with what lets it in.
pub(super) fn asked(context: &Context, known: &config::Prometheus) -> Result<Prometheus, Failure> {
    let (access, authority) = access(context, known)?;
    Prometheus::new(&known.url, access, authority.as_deref())
        .map_err(|error| Failure::usage("prometheus", "Prometheus cannot be asked").because(&error))
}

/// What lets us ask a Prometheus or an Alertmanager, and who else signs its certificate.
pub(super) fn access(context: &Context, known: &config::Prometheus) -> Result<(Access, Option<Vec<u8>>), Failure> {
    let fetch = |source: &SecretSource| source.fetch(context, &format!("what lets us ask {}", known.url));
    let access = match &known.key {
        None => Access::Open,
        Some(Key::Token(source)) => Access::Bearer(fetch(source)?.expose().to_owned()),
        Some(Key::Password(username, source)) => Access::Basic {
            username: username.clone(),
            password: fetch(source)?.expose().to_owned(),
        },
    };
    let authority = known.authority.as_ref().map(std::fs::read).transpose();
    let authority =
        authority.map_err(|error| Failure::io(format!("could not read the `ca_file` of {}", known.url), &error))?;
    Ok((access, authority))
}

/// What the catalogue says of the services of an environment on a cluster.
fn settings(config: &Config, cluster: &Cluster) -> Settings {
    let environment = &config.environment;
    let elsewhere = environment.namespace.as_deref().unwrap_or(NAMESPACE);
    let services: Vec<Workload> = config
        .services
        .values()
        .map(|service| {
            let known = &service.kubernetes;
            let or_name = |name: &Option<String>| name.clone().unwrap_or_else(|| service.name.clone());
            Workload {
                name: service.name.clone(),
                namespace: known.namespace.clone().unwrap_or_else(|| elsewhere.to_owned()),
                deployment: or_name(&known.deployment),
                service: or_name(&known.service),
                container: known.container.clone(),
                provider: known.provider,
                routes: known.routes.clone(),
                take_ownership: known.take_ownership,
                mark: known.mark.clone(),
                url: known.url.clone().or_else(|| cluster.gateway_url.clone()),
                host: known.host.clone(),
                by_hostname: known.url.is_none() && cluster.gateway_url.is_some(),
                sli: service.sli.clone(),
                objectives: specs::objectives(service),
                health: specs::health(service),
                probe: specs::probe(service),
                depends_on: service.depends_on.clone(),
            }
        })
        .collect();
    let namespaces: BTreeSet<&str> = services.iter().map(|workload| workload.namespace.as_str()).collect();
    let namespace = match (&environment.namespace, namespaces.first()) {
        (None, Some(only)) if namespaces.len() == 1 => (*only).to_owned(),
        _ => elsewhere.to_owned(),
    };
    Settings {
        environment: environment.name.clone(),
        cluster: cluster.name.clone(),
        image: cluster.image.clone(),
        namespace,
        prometheus: prometheus(config, cluster).map(|prometheus| prometheus.url.clone()),
        services,
    }
}
