//! The messages of the control protocol. Not their transport.

use std::net::SocketAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The `schema` of every [`Document`] that this crate writes and the only one that it reads.
pub const SCHEMA: &str = "opsctl.proxy-control/v1";

/// What every body of the protocol is wrapped in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document<T> {
    /// [`SCHEMA`].
    pub schema: String,
    /// The message.
    pub data: T,
}

impl<T> Document<T> {
    /// Wraps `data` with the current [`SCHEMA`].
    pub fn new(data: T) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            data,
        }
    }
}

/// Which proxy answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Process id of the proxy.
    pub pid: u32,
    /// Version of the opsctl that the proxy is part of, such as `0.1.0`.
    pub version: String,
    /// When this proxy process started, UTC.
    pub started_at: Timestamp,
    /// Random id of this proxy process; counters start from zero when it changes.
    pub boot_id: String,
    /// Grows by one with every accepted change of routes, backends, holds, weights or faults; kept over restarts.
    pub revision: u64,
}

/// What a service's listeners are and how its traffic is judged. Written as a whole by `put_route`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteConfig {
    /// Name of the service: the key of everything below.
    pub service: String,
    /// Where the proxy listens for HTTP/1.1 and HTTP/2 without TLS (prior knowledge). Port 0 lets the proxy choose;
    /// the answer to `put_route` and `routes` say which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_listen: Option<SocketAddr>,
    /// Where the proxy listens for gRPC (HTTP/2 without TLS). Port 0 as above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_listen: Option<SocketAddr>,
    /// The version that gets all traffic that no weight and no rule takes. Backends of other versions get traffic
    /// through [`Weight`], [`Rule`] or a canary token alone.
    pub stable_version: String,
    /// A response whose last byte was later than this many milliseconds after the request arrived counts in
    /// `over_objective`; for gRPC and event streams the response headers count instead of the last byte.
    pub latency_objective_ms: u64,
    /// Milliseconds that an instance may take until its response begins, counted while it is the instance's turn: a
    /// slow upload and a long response are not cut. Then the client gets 504, or DEADLINE_EXCEEDED from gRPC, and it
    /// counts as an error; a shorter `grpc-timeout` of the caller holds as well. 0: no limit. At most
    /// [`crate::MAX_RESPONSE_TIMEOUT_MS`].
    #[serde(default = "default_response_timeout_ms")]
    pub response_timeout_ms: u64,
    /// Requests that go to one version whatever the weight; the first that matches wins, headers before cookies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
}

fn default_response_timeout_ms() -> u64 {
    crate::DEFAULT_RESPONSE_TIMEOUT_MS
}

/// Sends requests that carry a header or a cookie of one value to one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Where to look.
    pub source: RuleSource,
    /// Name of the header (any case) or of the cookie (exact).
    pub name: String,
    /// The value that matches, exact.
    pub value: String,
    /// The version that such a request gets; while it has no ready backend, the rule does not apply.
    pub version: String,
}

/// Where a [`Rule`] looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleSource {
    /// A request header.
    Header,
    /// A cookie in the `cookie` header.
    Cookie,
}

/// One running instance of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// Id of the instance, unique within its service, such as `orders-1`.
    pub instance: String,
    /// The version that it runs.
    pub version: String,
    /// Where it serves HTTP, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<SocketAddr>,
    /// Where it serves gRPC, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<SocketAddr>,
    /// Whether it gets new requests. A backend that turns unready, or is left out of the next `set_backends`,
    /// finishes the requests that it has.
    pub ready: bool,
}

/// While set, the service's requests are answered 503 with `Retry-After` and never reach an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// What `Retry-After` says, in seconds.
    pub retry_after_seconds: u64,
    /// Why, for the body of the 503.
    pub reason: String,
}

/// The share of a service's requests that one version beside the stable one gets, as a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weight {
    /// The version that gets the share.
    pub version: String,
    /// The share in percent, 0 to 100. As read: the share that is in effect now, so 0 once the lease ran out.
    pub percent: u8,
    /// As written: seconds until the share drops to 0 by itself, 1 to [`crate::MAX_WEIGHT_TTL_SECONDS`].
    /// As read: what is left of them.
    pub ttl_seconds: u64,
    /// Who holds the lease: the id of the run.
    pub holder: String,
    /// As read: the percentage that was in effect until the lease ran out or the proxy restarted. Not written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lapsed_percent: Option<u8>,
}

/// Asks for a change of weight, to be done only if the weight is what the caller believes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightChange {
    /// The version and percentage that must be set now, or none. A lapsed weight matches both 0 and the percentage
    /// that it had: the lapse is the proxy's doing and no other run's change.
    pub expect: Option<(String, u8)>,
    /// What to set; none removes the weight.
    pub new: Option<Weight>,
}

/// Asks to prolong the lease on a weight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightRenewal {
    /// The holder that the weight must have.
    pub holder: String,
    /// The new time to live in seconds, from now.
    pub ttl_seconds: u64,
}

/// A fault that the proxy plays on a share of a service's requests until its time to live ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// Id of the fault, chosen by the caller; putting the same id again replaces it, and one that is the same but for its
    /// time to live begins that time anew.
    pub id: String,
    /// The service whose requests it hits.
    pub service: String,
    /// What happens to a request.
    #[serde(flatten)]
    pub kind: FaultKind,
    /// Share of the requests that it hits, above 0 and up to 100 percent.
    pub percent: f64,
    /// As written: seconds until it ends by itself, 1 to [`crate::MAX_FAULT_TTL_SECONDS`]. As read: what is left.
    pub ttl_seconds: u64,
    /// Id of the run that put it.
    pub run: String,
    /// The only version whose requests it hits; none means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// What a [`Fault`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FaultKind {
    /// Every part of the response (headers, each chunk of the body) reaches the client later by `ms` ± up to
    /// `jitter_ms`: as on a longer line, parts do not wait for each other.
    Latency {
        /// Milliseconds of delay.
        ms: u64,
        /// Largest deviation from `ms` either way, uniform; at most `ms`.
        #[serde(default)]
        jitter_ms: u64,
    },
    /// Answers with this status instead of asking an instance (gRPC: status UNAVAILABLE in trailers-only form).
    Error {
        /// An HTTP status from 400 to 599.
        status: u16,
    },
    /// Ends the client's connection with a TCP reset, and with it whatever else is on that connection.
    Reset,
    /// Swallows the request, or what is left of a response under way; nothing comes until the fault ends, and the
    /// connection stays open. A client that goes away meanwhile counts as an error.
    Blackhole,
}

/// What the proxy counted for one service since it started. All figures but `in_flight` only grow while `boot_id`
/// stays the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// When they were read, UTC.
    pub at: Timestamp,
    /// Random id of the proxy process; when it differs from an earlier reading, all figures began at zero again.
    pub boot_id: String,
    /// The service.
    pub service: String,
    /// The stable version at the time of reading.
    pub stable_version: String,
    /// Per version, sorted by version. A version stays listed after its last backend has gone.
    pub versions: Vec<VersionCounters>,
    /// Per instance, sorted by instance. An instance stays listed after it has gone.
    pub instances: Vec<InstanceCounters>,
    /// Requests that were answered 503 because of a [`Hold`]; not contained in any version.
    pub held_rejections: u64,
    /// Requests that failed because no instance was ready or reachable; not contained in any version. All of them
    /// are errors as clients see it.
    pub unrouted_errors: u64,
    /// Probes that were answered 503 because of a [`Hold`]; not contained in `held_rejections`.
    #[serde(default)]
    pub probe_held_rejections: u64,
    /// Probes that failed before an instance had them.
    #[serde(default)]
    pub probe_unrouted_errors: u64,
}

/// What was counted for one version of a service. A request counts when it ends: the response's last byte went to
/// the client, or it failed. What a [`Fault`] does to a request counts for the version that was chosen for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionCounters {
    /// The version.
    pub version: String,
    /// Finished requests, errors included, probes not.
    pub requests: u64,
    /// Those that failed: status 5xx, connection to the instance lost, or gRPC status UNKNOWN, DEADLINE_EXCEEDED,
    /// UNIMPLEMENTED, INTERNAL, UNAVAILABLE or DATA_LOSS. A client that goes away is no error.
    pub errors: u64,
    /// Those that took longer than the route's latency objective.
    pub over_objective: u64,
    /// Requests under way now, probes included.
    pub in_flight: u64,
    /// Finished requests that carried [`crate::PROBE_HEADER`].
    pub probe_requests: u64,
    /// The probes that failed.
    pub probe_errors: u64,
    /// The probes that took longer than the objective.
    pub probe_over_objective: u64,
}

/// What was counted for one instance; fields as in [`VersionCounters`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceCounters {
    /// Id of the instance.
    pub instance: String,
    /// The version that it ran when last registered.
    pub version: String,
    /// Finished requests, errors included, probes not.
    pub requests: u64,
    /// Those that failed.
    pub errors: u64,
    /// Those that took longer than the route's latency objective.
    pub over_objective: u64,
    /// Requests under way now, probes included.
    pub in_flight: u64,
    /// Finished probes.
    pub probe_requests: u64,
    /// The probes that failed.
    pub probe_errors: u64,
    /// The probes that took longer than the objective.
    pub probe_over_objective: u64,
    /// Attempts that reached no connection; the request went to another instance, or failed as unrouted.
    pub connect_failures: u64,
}

/// All that the proxy knows of one service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// Its configuration; listen addresses have the real ports.
    pub config: RouteConfig,
    /// Its backends, as last set.
    pub backends: Vec<Backend>,
    /// Its hold, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// Its weight, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<Weight>,
}

/// Why the proxy refused a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The kind.
    pub code: RefusalCode,
    /// One sentence for a person.
    pub message: String,
    /// With [`RefusalCode::PortTaken`]: the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addr: Option<SocketAddr>,
    /// With [`RefusalCode::Conflict`]: the weight that is set now, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actual: Option<Box<Weight>>,
}

/// The kinds of [`Refusal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// The weight is not what the caller expected, or is held by another run, or has lapsed.
    Conflict,
    /// Another process listens there.
    PortTaken,
    /// No such service.
    UnknownService,
    /// A field has a value that the proxy cannot use.
    Invalid,
    /// The proxy could not do it: its state file could not be written, for one.
    Failed,
}
