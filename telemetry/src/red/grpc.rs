//! gRPC calls under the names of go-grpc-prometheus, `grpc_server_*` and `grpc_client_*`, and under OpenTelemetry's
//! `rpc_*` where those are asked for. A server's method that was not announced has series of its own once a call of it
//! went well: until then its name is a caller's text.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use crate::metrics::{Counter, Exemplar, Histogram, Metrics};

/// What stands for services and methods that nobody is known to serve.
const UNMATCHED: &str = "_unmatched";
/// gRPC's codes, 0 to 16.
const CODES: usize = catalogue::GRPC_CODES.len();
const UNKNOWN: usize = 2;
/// Methods that may be learned.
const LEARNED: usize = 500;

/// Type of a gRPC method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrpcType {
    /// One message each way.
    Unary,
    /// Many messages to the server.
    ClientStream,
    /// Many messages from the server.
    ServerStream,
    /// Many messages both ways.
    BidiStream,
}

impl GrpcType {
    /// By whether the caller and the server send many messages.
    pub const fn of(caller_streams: bool, server_streams: bool) -> Self {
        match (caller_streams, server_streams) {
            (false, false) => Self::Unary,
            (true, false) => Self::ClientStream,
            (false, true) => Self::ServerStream,
            (true, true) => Self::BidiStream,
        }
    }

    /// The value of the label `grpc_type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ClientStream => "client_stream",
            Self::ServerStream => "server_stream",
            Self::BidiStream => "bidi_stream",
        }
    }
}

/// Which of OpenTelemetry's names for gRPC servers are exported besides `grpc_server_*`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RpcNames {
    /// `rpc_server_call_duration_seconds`, the release candidate of the coming stable names.
    pub stable: bool,
    /// `rpc_server_duration_milliseconds`, the names up to version 1.37.
    pub v1_37: bool,
}

/// Which side of calls is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Server(RpcNames),
    Client,
}

/// Series of all methods of one side. Clones share.
#[derive(Debug, Clone)]
pub(crate) struct GrpcRed {
    metrics: Metrics,
    side: Side,
    /// Found without a lock.
    announced: Arc<HashMap<Box<str>, Arc<Method>>>,
    learned: Arc<RwLock<HashMap<Box<str>, Arc<Method>>>>,
    /// Those of everything else, once there is a call of it.
    unmatched: Arc<OnceLock<Arc<Method>>>,
}

/// Series of one method.
#[derive(Debug)]
pub(crate) struct Method {
    service: Box<str>,
    name: Box<str>,
    started: Counter,
    handled: [Counter; CODES],
    handling: Histogram,
    /// By code, made when one is first seen.
    stable: [OnceLock<Histogram>; CODES],
    v1_37: [OnceLock<Histogram>; CODES],
}

/// One call that began.
#[derive(Debug)]
pub(crate) enum GrpcCall {
    /// Of a method that is known; it is counted as started.
    Known(Arc<Method>),
    /// Of this path, which may be anything.
    Unknown(Box<str>),
}

impl GrpcRed {
    pub(crate) fn server(metrics: Metrics) -> Self {
        let names = metrics.rpc_names();
        Self::new(metrics, Side::Server(names))
    }

    pub(crate) fn client(metrics: Metrics) -> Self {
        Self::new(metrics, Side::Client)
    }

    /// Exports the server's calls under these names too.
    pub(crate) fn export_as(&mut self, names: RpcNames) {
        self.side = Side::Server(names);
    }

    fn new(metrics: Metrics, side: Side) -> Self {
        Self {
            metrics,
            side,
            announced: Arc::default(),
            learned: Arc::default(),
            unmatched: Arc::default(),
        }
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Makes the series of a service's methods.
    pub(crate) fn announce(&mut self, service: &str, methods: &[(&str, GrpcType)]) {
        let announced = Arc::make_mut(&mut self.announced);
        for (method, kind) in methods {
            let path = format!("/{service}/{method}").into_boxed_str();
            let method = Method::new(&self.metrics, self.side, *kind, service, method);
            announced.insert(path, Arc::new(method));
        }
    }

    /// A call of this path (`/service/method`) begins.
    pub(crate) fn begin(&self, path: &str) -> GrpcCall {
        let known = self.announced.get(path).cloned().or_else(|| {
            let learned = self.learned.read().unwrap_or_else(PoisonError::into_inner);
            learned.get(path).cloned()
        });
        match known {
            Some(method) => {
                method.started.inc();
                GrpcCall::Known(method)
            }
            None => GrpcCall::Unknown(path.into()),
        }
    }

    /// The call ended with this code; what is no code of gRPC counts as `Unknown`.
    pub(crate) fn finish(&self, call: &GrpcCall, code: u16, took: Duration, exemplar: Option<Exemplar>) {
        let index = usize::from(code);
        let index = if index < CODES { index } else { UNKNOWN };
        let learned;
        let method = match call {
            GrpcCall::Known(method) => method,
            GrpcCall::Unknown(path) => {
                // What a client calls is of the program; what a server is asked for may be anything.
                learned = self.learn(path, code == 0 || self.side == Side::Client);
                learned.started.inc();
                &learned
            }
        };
        method.handled[index].inc();
        method.handling.observe_with(took.as_secs_f64(), exemplar);
        if let Side::Server(names) = self.side {
            method.observe_rpc(&self.metrics, names, index, took, exemplar);
        }
    }

    /// The series of a method that was not announced: its own if there surely is one, else everybody's.
    fn learn(&self, path: &str, is_real: bool) -> Arc<Method> {
        let new = |service, method| Arc::new(Method::new(&self.metrics, self.side, GrpcType::Unary, service, method));
        if is_real && let Some((service, method)) = split(path) {
            let mut learned = self.learned.write().unwrap_or_else(PoisonError::into_inner);
            if learned.len() < LEARNED || learned.contains_key(path) {
                return Arc::clone(learned.entry(path.into()).or_insert_with(|| new(service, method)));
            }
        }
        Arc::clone(self.unmatched.get_or_init(|| new(UNMATCHED, UNMATCHED)))
    }
}

impl Method {
    /// With every series at zero, so that `rate()` sees the first error.
    fn new(metrics: &Metrics, side: Side, kind: GrpcType, service: &str, method: &str) -> Self {
        let (started, handled, handling) = match side {
            Side::Server(_) => (
                catalogue::GRPC_SERVER_STARTED_TOTAL,
                catalogue::GRPC_SERVER_HANDLED_TOTAL,
                catalogue::GRPC_SERVER_HANDLING_SECONDS,
            ),
            Side::Client => (
                catalogue::GRPC_CLIENT_STARTED_TOTAL,
                catalogue::GRPC_CLIENT_HANDLED_TOTAL,
                catalogue::GRPC_CLIENT_HANDLING_SECONDS,
            ),
        };
        let labels = [kind.as_str(), service, method];
        Self {
            service: service.into(),
            name: method.into(),
            started: metrics.counter(started, labels),
            handled: catalogue::GRPC_CODES.map(|code| metrics.counter(handled, [labels[0], service, method, code])),
            handling: metrics.histogram(handling, labels),
            stable: Default::default(),
            v1_37: Default::default(),
        }
    }

    fn observe_rpc(&self, metrics: &Metrics, names: RpcNames, code: usize, took: Duration, exemplar: Option<Exemplar>) {
        let seconds = took.as_secs_f64();
        if names.stable {
            let series = self.stable[code].get_or_init(|| {
                let name = format!("{}/{}", self.service, self.name);
                let labels = ["grpc", &name, catalogue::RPC_CODES[code]];
                metrics.histogram(catalogue::RPC_SERVER_CALL_DURATION_SECONDS, labels)
            });
            series.observe_with(seconds, exemplar);
        }
        if names.v1_37 {
            let series = self.v1_37[code].get_or_init(|| {
                let labels = ["grpc", &self.service, &self.name, &code.to_string()];
                metrics.histogram(catalogue::RPC_SERVER_DURATION_MILLISECONDS, labels)
            });
            series.observe_with(seconds * 1e3, exemplar);
        }
    }
}

/// Service and method of a path.
pub(crate) fn split(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix('/')?.split_once('/')
}
