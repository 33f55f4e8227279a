//! From the catalogue to what rules and boards are derived from: plain data, without asking anybody.

use std::collections::BTreeSet;
use std::time::Duration;

use backups::schedule::Timing;
use jiff::{SignedDuration, Timestamp};
use manifest::landscape::{
    self, Canary, DatastoreKind as Kind, Landscape, Latency, Links, Platform, Ratio, Selector, Sli, Team, Webhook,
};
use opsctl_platform::kube::{self, traefik_services};

use crate::config::{Config, Datastore, DatastoreKind, Job, Notify, PlatformKind, Schedule, SecretSource, Service};
use crate::physical;

/// A canary that is held for half of the longest time that `deploy canary` holds one is stuck.
const STUCK: Duration = Duration::from_hours(12);

/// Where services are whose namespace nobody names.
const NAMESPACE: &str = "default";

/// What the catalogue says of the chosen environment.
pub(crate) fn of(config: &Config) -> Landscape {
    let environment = &config.environment;
    let watching = &environment.watching;
    Landscape {
        environment: environment.name.clone(),
        platform: match environment.platform {
            PlatformKind::Local => Platform::Local,
            PlatformKind::Kubernetes => Platform::Kubernetes,
        },
        scrape_interval: watching.scrape_interval,
        evaluation_interval: watching.evaluation_interval,
        services: config.services.values().map(|one| service(config, one)).collect(),
        datastores: config.datastores.values().map(|one| datastore(config, one)).collect(),
        teams: config
            .teams
            .iter()
            .map(|(name, notify)| Team {
                name: name.clone(),
                webhook: webhook(notify),
            })
            .collect(),
        canary: Some(Canary { stuck_after: STUCK }),
        links: Links {
            dashboards: {
                let grafana = environment.grafana.as_ref().map(|grafana| grafana.url.clone());
                watching.dashboards.clone().or(grafana)
            },
            runbooks: watching.runbooks.clone(),
        },
    }
}

fn service(config: &Config, known: &Service) -> landscape::Service {
    let environment = &config.environment;
    let on_cluster = environment.platform == PlatformKind::Kubernetes;
    let place = &known.kubernetes;
    let or_name = |name: &Option<String>| name.clone().unwrap_or_else(|| known.name.clone());
    let namespace = place.namespace.clone().or_else(|| environment.namespace.clone());
    let namespace = namespace.unwrap_or_else(|| NAMESPACE.to_owned());
    let deployment = or_name(&place.deployment);
    let uses: BTreeSet<&str> = known.uses.iter().map(|used| used.store.as_str()).collect();
    landscape::Service {
        name: known.name.clone(),
        team: known.team.clone(),
        selector: if on_cluster {
            Selector::pods(&namespace, &deployment)
        } else {
            Selector::job(&known.name)
        },
        sli: match &known.sli {
            kube::Sli::Opsctl => Sli::Opsctl,
            kube::Sli::OtelHttp => Sli::OtelHttp,
            kube::Sli::Traefik => {
                let service = or_name(&place.service);
                let both = [service.as_str(), &format!("{service}-canary")];
                Sli::Traefik(Selector::default().matching("service", &traefik_services(&namespace, &both)))
            }
            kube::Sli::Custom { total, errors, slow } => Sli::Custom {
                total: total.clone(),
                errors: errors.clone(),
                slow: slow.clone(),
            },
        },
        namespace: on_cluster.then_some(namespace),
        deployment: on_cluster.then_some(deployment),
        availability: known.availability.and_then(Ratio::new),
        latency: known.latency.and_then(|latency| {
            Some(Latency {
                quantile: Ratio::new(latency.quantile)?,
                bound: latency.bound,
            })
        }),
        exports: known.exports.clone(),
        uses: uses.into_iter().map(str::to_owned).collect(),
        depends_on: known.depends_on.clone(),
    }
}

fn datastore(config: &Config, known: &Datastore) -> landscape::Datastore {
    let objectives = &known.proof.objectives;
    let time = |seconds: Option<f64>| seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    landscape::Datastore {
        name: known.name.clone(),
        kind: match known.kind {
            DatastoreKind::Sqlite => Kind::Sqlite,
            DatastoreKind::Files => Kind::Files,
            DatastoreKind::Command => Kind::Command,
            DatastoreKind::Postgres => Kind::Postgres,
            DatastoreKind::Mongodb => Kind::Mongodb,
            DatastoreKind::Redis => Kind::Redis,
            DatastoreKind::Mariadb => Kind::Mariadb,
            DatastoreKind::Kafka => Kind::Kafka,
            DatastoreKind::Kubernetes => Kind::Kubernetes,
        },
        rpo: time(objectives.rpo_seconds),
        rto: time(objectives.rto_seconds),
        prove_every: time(objectives.prove_every_seconds),
        schedule: schedule(config, &known.name),
        continuous: known.ship.is_some() || physical::is_physical(known),
        log: physical::is_physical(known),
        exporter: known.exporter.as_ref().map(|labels| {
            labels
                .iter()
                .fold(Selector::default(), |all, (name, value)| all.equal(name, value))
        }),
    }
}

/// Of the schedules that back a datastore up, the one with the shortest pauses.
fn schedule(config: &Config, datastore: &str) -> Option<landscape::Schedule> {
    let backs_up = |schedule: &&Schedule| {
        let meant = |target: &str| {
            let service = config.services.get(target);
            target == datastore
                || service.is_some_and(|service| service.uses.iter().any(|used| used.store == datastore))
        };
        schedule.enabled && schedule.job == Job::Backup && schedule.target.as_deref().is_none_or(meant)
    };
    let known = config.schedules.values().filter(backs_up);
    let known = known.filter_map(|schedule| Some((longest_gap(&schedule.timing)?, schedule)));
    let (longest_gap, schedule) = known.min_by_key(|(gap, _)| *gap)?;
    Some(landscape::Schedule {
        cron: schedule.timing.expression.to_string(),
        longest_gap,
    })
}

/// The longest time between two starts, without what they are spread by. It is looked for in the same years whenever it
/// is asked, so that what is derived of it does not change by itself.
fn longest_gap(timing: &Timing) -> Option<Duration> {
    /// The beginning of 2026, in UTC.
    const FROM: i64 = 1_767_225_600;
    const YEARS: SignedDuration = SignedDuration::from_hours(5 * 366 * 24);
    /// Two weeks of every two minutes: what is denser has no longer pauses later.
    const LOOKS: usize = 10_000;
    let from = Timestamp::from_second(FROM).ok()?;
    let until = from.checked_add(YEARS).ok()?;
    let timing = Timing {
        jitter: Duration::ZERO,
        ..timing.clone()
    };
    let starts = timing.upcoming(from).map(|due| due.start);
    let starts: Vec<Timestamp> = starts.take_while(|start| *start < until).take(LOOKS).collect();
    let gaps = starts.windows(2).map(|pair| pair[1].duration_since(pair[0]));
    gaps.max().and_then(|gap| Duration::try_from(gap).ok())
}

fn webhook(notify: &Notify) -> Option<Webhook> {
    Some(match notify.webhook.as_ref()? {
        SecretSource::File(path) => Webhook::File(path.display().to_string()),
        SecretSource::Kubernetes(name) => match secret(name) {
            Some(secret) => secret,
            None => Webhook::Elsewhere,
        },
        SecretSource::Command { .. } | SecretSource::Variable(_) => Webhook::Elsewhere,
    })
}

/// `namespace/name#key`.
fn secret(written: &str) -> Option<Webhook> {
    let (namespace, rest) = written.split_once('/')?;
    let (name, key) = rest.split_once('#')?;
    Some(Webhook::Secret {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        key: key.to_owned(),
    })
}
