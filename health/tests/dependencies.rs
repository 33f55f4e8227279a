//! The checks of servers, held against the real servers. What all of them have to do is one suite, `contract`; a server is
//! a file with its client, and with what only it can do. A server that is not installed is skipped by name.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]
#![expect(clippy::print_stdout, reason = "what happened when, for whoever looks at a failure")]

#[path = "dependencies/contract.rs"]
mod contract;
#[path = "dependencies/kafka.rs"]
mod kafka;
#[path = "dependencies/migrations.rs"]
mod migrations;
#[path = "dependencies/mongodb.rs"]
mod mongodb;
#[path = "dependencies/nats.rs"]
mod nats;
#[path = "dependencies/postgres.rs"]
mod postgres;
#[path = "dependencies/rabbitmq.rs"]
mod rabbitmq;
#[path = "dependencies/redis.rs"]
mod redis;
#[path = "dependencies/relay.rs"]
mod relay;
#[path = "dependencies/temporal.rs"]
mod temporal;
