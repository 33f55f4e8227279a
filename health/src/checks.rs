//! The built-in checks. They only ask: nothing is written, declared, produced or created. Those of servers ask over the
//! application's own pool or client, and each sits behind a feature of its client's name, so that a service builds the
//! clients that it has anyway. What each asks, costs and needs: docs/guides/health-checks.md.

use std::future::Future;
use std::pin::Pin;

use crate::check::Outcome;

mod breaker;
mod cause;
mod clock;
mod disk;
mod grpc;
mod http;
#[cfg(feature = "kafka")]
mod kafka;
mod memory;
mod migrations;
#[cfg(feature = "mongodb")]
mod mongodb;
#[cfg(feature = "nats")]
mod nats;
mod outbox;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
#[cfg(feature = "redis")]
mod redis;
pub(crate) mod single_flight;

pub use breaker::{BreakerCheck, Circuit};
pub use cause::Cause;
pub use clock::ClockCheck;
pub use disk::DiskCheck;
pub use grpc::GrpcCheck;
pub use http::HttpCheck;
#[cfg(feature = "kafka")]
pub use kafka::KafkaCheck;
pub use memory::MemoryCheck;
#[cfg(feature = "postgres")]
pub use migrations::Table;
pub use migrations::{Applied, Difference, Migration, MigrationCheck, compare};
#[cfg(feature = "mongodb")]
pub use mongodb::MongoCheck;
#[cfg(feature = "nats")]
pub use nats::NatsCheck;
pub use outbox::OutboxCheck;
#[cfg(feature = "postgres")]
pub use postgres::PostgresCheck;
#[cfg(feature = "rabbitmq")]
pub use rabbitmq::RabbitCheck;
#[cfg(feature = "redis")]
pub use redis::RedisCheck;

/// What [`Check::run`](crate::Check::run) returns.
type Asking<'a> = Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;
