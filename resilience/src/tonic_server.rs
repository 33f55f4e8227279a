//! Limits for gRPC servers: `tonic::transport::Server::layer` takes them. A refusal is an answer of headers alone, with
//! the status and `grpc-retry-pushback-ms`; which status is said where [`crate::Error`] becomes a `tonic::Status`.
//! Deadlines are [`crate::grpc::DeadlineLayer`]'s matter.
//!
//! A call is inside until its response has ended or was dropped: a stream keeps its place.

use bytes::Bytes;
use http::Response;
use http::request::Parts;
use tonic::{Code, Status};

use crate::adaptive::AdaptiveLimit;
use crate::error::{Error, Rejected};
use crate::server::{Admit, Protocol, ServerLayer, ShedBy, ShedByHeader, priority};
use crate::shed::{Priority, Shedder};
use crate::verdict::{Kind, Verdict};

/// Sheds load by the priority that the metadata `x-priority` asks for (see [`priority`]).
pub fn shed(shedder: &Shedder) -> ServerLayer<ShedByHeader, Grpc> {
    shed_by(shedder, priority)
}

/// Sheds load by a priority that is found in another way: by method, or by who asks.
pub fn shed_by<F: Fn(&Parts) -> Priority>(shedder: &Shedder, priority: F) -> ServerLayer<ShedBy<F>, Grpc> {
    ServerLayer::new(ShedBy::new(shedder, priority))
}

/// Lets in as many calls at one time as can be answered without delay.
pub fn concurrency(limit: &AdaptiveLimit) -> ServerLayer<AdaptiveLimit, Grpc> {
    ServerLayer::new(limit.clone())
}

/// Lets in what a function lets in, such as a rate limit by client:
/// `limit(move |request: &Parts| clients.try_acquire(client_of(request)))`.
pub fn limit<F, G>(admit: F) -> ServerLayer<F, Grpc>
where
    F: Fn(&Parts) -> Result<G, Rejected> + Admit,
{
    ServerLayer::new(admit)
}

/// Refuses with a status, as an answer of headers alone.
#[derive(Debug, Clone, Copy)]
pub struct Grpc;

impl Protocol for Grpc {
    fn refusal(rejected: &Rejected) -> (Response<()>, Bytes) {
        let status = Status::from(Error::<Status>::Rejected(rejected.clone()));
        (status.into_http(), Bytes::new())
    }

    /// By the status, where it comes with the headers. One that comes after messages says nothing of the load: its
    /// headers were in time.
    fn verdict<B>(response: &Response<B>) -> Verdict {
        let status = response.headers().get("grpc-status");
        match status.map(|status| Code::from_bytes(status.as_bytes())) {
            Some(Code::Unavailable | Code::ResourceExhausted) => Verdict::Overload { hint: None },
            Some(Code::DeadlineExceeded) => Verdict::Failure(Kind::Timeout),
            Some(Code::Unknown | Code::Internal | Code::DataLoss) => Verdict::Failure(Kind::Permanent),
            _ => Verdict::Success,
        }
    }
}
