//! What a collector's answer means: taken, refused for good, or not now. Pure. Sources:
//! <https://opentelemetry.io/docs/specs/otlp/#otlphttp-response> and
//! <https://opentelemetry.io/docs/specs/otlp/#failures>.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;
use tonic::Code;

use crate::report::RejectReason;
use crate::sink::retry::{LONGEST_RETRY_AFTER, Verdict, verdict};

/// What became of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Taken, but for so many items.
    Taken { rejected: u64, why: String },
    /// Too large as one request; parts of it may be taken.
    TooLarge,
    /// Refused for good.
    Refused { reason: RejectReason, why: String },
    /// Not now, or no answer; not before `after`, if the collector said so.
    Later { after: Option<Duration>, why: String },
}

/// A 2xx over HTTP, or OK over gRPC, with its message. The responses of all signals have the same form: a count and a text
/// in the message of field 1.
pub(crate) fn taken(message: &[u8]) -> Answer {
    // What cannot be read says nothing of a rejection, and the status says that it was taken.
    let partial = ExportTraceServiceResponse::decode(message)
        .ok()
        .and_then(|response| response.partial_success)
        .unwrap_or_default();
    Answer::Taken {
        rejected: u64::try_from(partial.rejected_spans).unwrap_or_default(),
        why: partial.error_message,
    }
}

/// Any other status over HTTP, with its body.
pub(crate) fn of_status(status: u16, retry_after: Option<&str>, body: &[u8]) -> Answer {
    let why = || {
        let text = Status::decode(body).map(|status| status.message).unwrap_or_default();
        if text.is_empty() {
            format!("status {status}")
        } else {
            format!("status {status}: {}", crate::redact::limited(&text, 500))
        }
    };
    let reason = match status {
        // These and no others may be sent again, says the protocol.
        429 | 502..=504 => {
            let after = match verdict(status, retry_after, crate::wall_clock()) {
                Verdict::Later { after } => after,
                _ => None,
            };
            return Answer::Later { after, why: why() };
        }
        413 => return Answer::TooLarge,
        400 | 422 => RejectReason::BadRequest,
        401 | 403 => RejectReason::Unauthorized,
        _ => RejectReason::Refused,
    };
    Answer::Refused { reason, why: why() }
}

/// A status of gRPC that is not OK, with its details.
pub(crate) fn of_code(code: Code, message: &str, details: &[u8]) -> Answer {
    let why = format!("{code:?}: {}", crate::redact::limited(message, 500));
    let asked = retry_info(details);
    let reason = match code {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => return Answer::Later { after: asked, why },
        // Only if the collector says that it will have room again.
        Code::ResourceExhausted if asked.is_some() => return Answer::Later { after: asked, why },
        Code::ResourceExhausted if message.contains("larger than max") => return Answer::TooLarge,
        Code::InvalidArgument => RejectReason::BadRequest,
        Code::Unauthenticated | Code::PermissionDenied => RejectReason::Unauthorized,
        _ => RejectReason::Refused,
    };
    Answer::Refused { reason, why }
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<prost_types::Duration>,
}

fn retry_info(details: &[u8]) -> Option<Duration> {
    let status = Status::decode(details).ok()?;
    let info = status
        .details
        .iter()
        .find(|any| any.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(info.value.as_slice())
        .ok()?
        .retry_delay
        .unwrap_or_default();
    // A negative delay is none.
    Some(Duration::try_from(delay).unwrap_or_default().min(LONGEST_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    //! Every row of the protocol's tables.

    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;

    use super::*;

    fn kind(answer: &Answer) -> &'static str {
        match answer {
            Answer::Taken { .. } => "taken",
            Answer::TooLarge => "too large",
            Answer::Later { .. } => "later",
            Answer::Refused { reason, .. } => reason.name(),
        }
    }

    #[test]
    fn each_status_has_its_class() {
        for (status, wanted) in [
            (300, "refused"),
            (400, "bad_request"),
            (401, "unauthorized"),
            (403, "unauthorized"),
            (404, "refused"),
            (408, "refused"),
            (413, "too large"),
            (429, "later"),
            (500, "refused"),
            (501, "refused"),
            (502, "later"),
            (503, "later"),
            (504, "later"),
            (505, "refused"),
        ] {
            assert_eq!(kind(&of_status(status, None, b"")), wanted, "{status}");
        }
        let after = Some(Duration::from_secs(7));
        assert!(matches!(of_status(503, Some("7"), b""), Answer::Later { after: found, .. } if found == after));
    }

    #[test]
    fn each_code_has_its_class() {
        for (code, wanted) in [
            (Code::Cancelled, "later"),
            (Code::Unknown, "refused"),
            (Code::InvalidArgument, "bad_request"),
            (Code::DeadlineExceeded, "later"),
            (Code::NotFound, "refused"),
            (Code::AlreadyExists, "refused"),
            (Code::PermissionDenied, "unauthorized"),
            (Code::ResourceExhausted, "refused"),
            (Code::FailedPrecondition, "refused"),
            (Code::Aborted, "later"),
            (Code::OutOfRange, "later"),
            (Code::Unimplemented, "refused"),
            (Code::Internal, "refused"),
            (Code::Unavailable, "later"),
            (Code::DataLoss, "later"),
            (Code::Unauthenticated, "unauthorized"),
        ] {
            assert_eq!(kind(&of_code(code, "", b"")), wanted, "{code:?}");
        }
        assert_eq!(
            kind(&of_code(
                Code::ResourceExhausted,
                "message larger than max (5 vs 4)",
                b""
            )),
            "too large"
        );
    }

    #[test]
    fn retry_info_makes_a_full_collector_one_for_later() {
        let info = RetryInfo {
            retry_delay: Some(prost_types::Duration { seconds: 2, nanos: 0 }),
        };
        let status = Status {
            code: 8,
            message: "full".to_owned(),
            details: vec![prost_types::Any {
                type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
                value: info.encode_to_vec(),
            }],
        };
        let answer = of_code(Code::ResourceExhausted, "full", &status.encode_to_vec());
        assert!(matches!(answer, Answer::Later { after: Some(after), .. } if after == Duration::from_secs(2)));
    }

    #[test]
    fn a_partial_success_counts_what_was_rejected() {
        let response = ExportTraceServiceResponse {
            partial_success: Some(ExportTracePartialSuccess {
                rejected_spans: 3,
                error_message: "too old".to_owned(),
            }),
        };
        let why = "too old".to_owned();
        assert_eq!(taken(&response.encode_to_vec()), Answer::Taken { rejected: 3, why });
        let why = String::new();
        assert_eq!(taken(b"{}"), Answer::Taken { rejected: 0, why });
    }
}
