//! gRPC: what a `tonic::Status` says, server hints (`grpc-retry-pushback-ms`, `google.rpc.RetryInfo`), deadlines as
//! `grpc-timeout` out and in, and [`GrpcLayer`], which does all of it around a channel. It makes no channels.
//! Sources: gRFC A6, <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.

mod body;
mod channel;
mod deadline;
mod layer;
mod retry_info;

use std::error::Error as StdError;
use std::time::Duration;

use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

pub use self::body::GrpcBody;
pub use self::channel::{GrpcChannel, StatusFuture};
pub use self::deadline::{DeadlineLayer, deadline_in, deadline_out};
pub use self::layer::{GrpcAttempt, GrpcAttempts, GrpcFuture, GrpcLayer, GrpcService, MAX_ATTEMPTS, UntilTheTrailers};
pub use crate::deadline::{DeadlineFuture, DeadlineService};
use crate::error::{By, Error};
use crate::http::{error_kind, final_verdict, has_cause};
use crate::verdict::{Classify, Kind, Verdict};

/// Classifies results of tonic clients.
///
/// What was refused before it was processed (connection or stream refused) was not sent; UNAVAILABLE may pass;
/// RESOURCE_EXHAUSTED, and UNAVAILABLE with a hint, are overload; DEADLINE_EXCEEDED, and tonic's own "Timeout expired",
/// are timeouts; a transport that failed is read as for HTTP; UNKNOWN, INTERNAL, DATA_LOSS are failures for good;
/// everything else is an answer. A pushback that is negative, no number, or repeated forbids the retry.
#[derive(Debug, Clone, Copy, Default)]
pub struct GrpcClassify;

impl<T> Classify<T, Status> for GrpcClassify {
    fn classify(&self, result: Result<&T, &Status>) -> Verdict {
        match result {
            Ok(_) => Verdict::Success,
            Err(status) => verdict(status),
        }
    }
}

/// The verdict on a status.
pub fn verdict(status: &Status) -> Verdict {
    match pushback(status.metadata()) {
        Pushback::None => verdict_with(status, retry_info::delay(status.details())),
        Pushback::After(wait) => verdict_with(status, Some(wait)),
        Pushback::Never => final_verdict(verdict_with(status, Some(Verdict::NEVER))),
    }
}

fn verdict_with(status: &Status, hint: Option<Duration>) -> Verdict {
    // A source means that no server said this: the transport did.
    let transport = status.source().map(transport_kind);
    match (status.code(), transport) {
        (Code::Ok, _) => Verdict::Success,
        (_, Some(Kind::NotSent)) => Verdict::Failure(Kind::NotSent),
        (Code::DeadlineExceeded, _) => Verdict::Failure(Kind::Timeout),
        // The time limit of a tonic server reaches us as a code and these words.
        (Code::Cancelled, None) if status.message() == "Timeout expired" => Verdict::Failure(Kind::Timeout),
        (Code::ResourceExhausted, _) => Verdict::Overload { hint },
        (Code::Unavailable, _) if hint.is_some() => Verdict::Overload { hint },
        (Code::Unavailable | Code::Cancelled | Code::Unknown, Some(kind)) => Verdict::Failure(kind),
        (Code::Unavailable, None) => Verdict::Failure(Kind::Transient),
        (Code::Unknown | Code::Internal | Code::DataLoss, _) => Verdict::Failure(Kind::Permanent),
        _ => Verdict::Ignore,
    }
}

fn transport_kind(error: &(dyn StdError + 'static)) -> Kind {
    if has_cause::<tonic::TimeoutExpired>(error) {
        Kind::Timeout
    } else if has_cause::<tonic::ConnectError>(error) {
        Kind::NotSent
    } else {
        error_kind(error)
    }
}

enum Pushback {
    None,
    After(Duration),
    Never,
}

fn pushback(metadata: &MetadataMap) -> Pushback {
    let mut values = metadata.get_all("grpc-retry-pushback-ms").iter();
    match (values.next(), values.next()) {
        (None, _) => Pushback::None,
        (Some(value), None) => match value.to_str().ok().and_then(|text| text.parse::<i32>().ok()) {
            Some(millis) if millis >= 0 => Pushback::After(Duration::from_millis(u64::from(millis.unsigned_abs()))),
            _ => Pushback::Never,
        },
        (Some(_), Some(_)) => Pushback::Never,
    }
}

impl From<Error<Status>> for Status {
    /// The status to answer with when a call under a policy failed: refusals are UNAVAILABLE, a full bulkhead
    /// RESOURCE_EXHAUSTED, time limits DEADLINE_EXCEEDED.
    fn from(error: Error<Status>) -> Self {
        match error {
            Error::Inner(status) => status,
            Error::Timeout { scope, limit } => {
                Self::deadline_exceeded(format!("no answer within the {scope} time limit of {limit:?}"))
            }
            Error::Rejected(rejected) => {
                let message = rejected.to_string();
                let mut status = match rejected.by {
                    By::Breaker | By::Fault => Self::unavailable(message),
                    By::Deadline => Self::deadline_exceeded(message),
                    By::Bulkhead | By::RateLimit | By::ConcurrencyLimit | By::Shed | By::Throttle => {
                        Self::resource_exhausted(message)
                    }
                };
                if let Some(wait) = rejected.retry_after {
                    let millis = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
                    status.metadata_mut().insert("grpc-retry-pushback-ms", millis.into());
                }
                status
            }
        }
    }
}
