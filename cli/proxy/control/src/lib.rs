//! The proxy's control protocol: its messages, a client for its Unix socket, and the canary token that the proxy
//! trusts. Not the proxy itself: whoever steers traffic (platform, drills, rollouts) needs this crate alone.
//!
//! The protocol is HTTP/1.1 with JSON over a Unix socket of mode 0600; who may open the socket may steer the
//! traffic. Every body is a [`Document`]: `{"schema": "opsctl.proxy-control/v1", "data": …}`. Fields are only ever
//! added; an unknown field is ignored, an unknown schema is refused.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /v1/status` | | [`Status`] |
//! | `GET /v1/routes` | | list of [`Route`] |
//! | `PUT /v1/routes/{service}` | [`RouteConfig`] | [`Route`] |
//! | `DELETE /v1/routes/{service}` | | null |
//! | `PUT /v1/routes/{service}/backends` | list of [`Backend`] | null |
//! | `PUT /v1/routes/{service}/hold` | [`Hold`] or null | null |
//! | `GET /v1/routes/{service}/weight` | | [`Weight`] or null |
//! | `POST /v1/routes/{service}/weight` | [`WeightChange`] | null |
//! | `POST /v1/routes/{service}/weight/renew` | [`WeightRenewal`] | null |
//! | `GET /v1/routes/{service}/faults` | | list of [`Fault`] |
//! | `PUT /v1/faults/{id}` | [`Fault`] | null |
//! | `DELETE /v1/faults/{id}` | | null |
//! | `GET /v1/routes/{service}/counters` | | [`Counters`] |
//! | `GET /metrics` | | OpenMetrics text |
//!
//! A refusal has status 4xx or 5xx and a [`Refusal`] as data; [`Client`] turns it into a [`ControlError`].
//!
//! A hop, which passes TCP on and plays faults on it, speaks a part of it over TCP, with a bearer token:
//! `GET /v1/status`, `GET /v1/faults`, `PUT` and `DELETE /v1/faults/{id}`, `GET /v1/counters` (a [`HopCounters`]),
//! `POST /v1/sessions/end` (how many database sessions it has ended).

mod client;
mod error;
mod hop;
mod message;
pub mod socket;
pub mod token;

pub use client::Client;
pub use error::ControlError;
pub use hop::{HopClient, HopCounters};
pub use message::{
    Backend, Counters, Document, Fault, FaultKind, Hold, InstanceCounters, Refusal, RefusalCode, Route, RouteConfig,
    Rule, RuleSource, SCHEMA, Status, VersionCounters, Weight, WeightChange, WeightRenewal,
};

/// A request with this header is a probe: it is counted in the `probe_*` fields only. The value is the run's id.
pub const PROBE_HEADER: &str = "x-opsctl-probe";

/// The header (and the cookie) that asks for one version of a service; stripped unless it holds a valid
/// [`token`].
pub const CANARY_HEADER: &str = "x-opsctl-canary";

/// The longest time to live of a fault. A longer one is refused: a fault must end although nobody removes it.
pub const MAX_FAULT_TTL_SECONDS: u64 = 3600;

/// How long an instance may take until its response begins, unless the route says otherwise: see
/// [`RouteConfig::response_timeout_ms`].
pub const DEFAULT_RESPONSE_TIMEOUT_MS: u64 = 60_000;

/// The longest such time that can be set.
pub const MAX_RESPONSE_TIMEOUT_MS: u64 = 24 * 3600 * 1000;

/// The longest lease on a weight.
pub const MAX_WEIGHT_TTL_SECONDS: u64 = 600;
