//! The kinds of servers, a file each: what a test may choose of one, and how it is started.

mod alertmanager;
mod collector;
mod ferretdb;
mod jaeger;
mod kafka;
pub(crate) mod kubernetes;
mod loki;
mod minio;
mod nats;
pub mod postgres;
mod prometheus;
mod rabbitmq;
mod redis;
mod temporal;

use std::{io, path::PathBuf};

pub use self::{
    alertmanager::Alertmanager,
    collector::Collector,
    ferretdb::FerretDb,
    jaeger::{Jaeger, JaegerFromFile},
    kafka::Kafka,
    kubernetes::{ControlPlane, Kubernetes},
    loki::Loki,
    minio::MinIo,
    nats::Nats,
    postgres::{Postgres, Release},
    prometheus::Prometheus,
    rabbitmq::RabbitMq,
    redis::Redis,
    temporal::Temporal,
};
use crate::{Peer, Recipe};

/// The peers that are servers.
pub const NAMES: &[&str] = &[
    "loki",
    "collector",
    "jaeger",
    "prometheus",
    "alertmanager",
    "postgres",
    "postgres-14",
    "postgres-18",
    "redis",
    "nats",
    "rabbitmq",
    "kafka",
    "ferretdb",
    "temporal",
    "minio",
    "kubernetes",
];

/// The kind of server `name`, without settings.
pub(crate) fn named(name: &str) -> Option<Box<dyn Recipe>> {
    Some(match name {
        "loki" => Box::new(Loki::default()),
        "collector" => Box::new(Collector::default()),
        "jaeger" => Box::new(Jaeger),
        "prometheus" => Box::new(Prometheus::default()),
        "alertmanager" => Box::new(Alertmanager::default()),
        "postgres" => Box::new(Postgres::default()),
        "postgres-14" => Box::new(Postgres::of(Release::V14)),
        "postgres-18" => Box::new(Postgres::of(Release::V18)),
        "redis" => Box::new(Redis::default()),
        "nats" => Box::new(Nats::default()),
        "rabbitmq" => Box::new(RabbitMq),
        "kafka" => Box::new(Kafka::default()),
        "ferretdb" => Box::new(FerretDb),
        "temporal" => Box::new(Temporal),
        "minio" => Box::new(MinIo::default()),
        "kubernetes" => Box::new(Kubernetes::default()),
        _ => return None,
    })
}

/// Where a program of the catalogue is.
pub(crate) fn program(name: &str) -> io::Result<PathBuf> {
    let found = Peer::named(name).and_then(|peer| peer.program(name));
    found.ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!("the program `{name}` is not installed"),
        )
    })
}
