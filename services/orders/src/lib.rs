//! The reference service `orders`: accepts orders by REST and gRPC, sees each through payment and delivery with a
//! saga, and tells others about it through a transactional outbox. It charges no cards and delivers nothing itself.

pub mod auth;
mod clock;
pub mod delivery;
pub mod domain;
pub mod metrics;
pub mod orchestrator;
pub mod origin;
pub mod peers;
pub mod ports;
pub mod problem;
pub mod process;
pub mod reconcile;
pub mod relay;
pub mod rest;
pub mod rpc;
pub mod saga;
pub mod service;
pub mod store;
