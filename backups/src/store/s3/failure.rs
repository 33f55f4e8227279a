//! What a request that failed says: the codes of S3, the status of those who use no codes, a network that broke; and what
//! follows from it for a retry and for the caller. Pure.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use jiff::Timestamp;
use resilience::{Kind as Why, Verdict};

use crate::clock;
use crate::store::StoreError;

/// A request that failed.
#[derive(Debug, Clone)]
pub(super) struct Failed {
    pub(super) kind: Kind,
    /// What the service or the system said.
    pub(super) said: String,
    /// How long the service asks to wait.
    pub(super) hint: Option<Duration>,
    /// The service's clock.
    pub(super) date: Option<Timestamp>,
    /// Which credentials it was signed with.
    pub(super) generation: u64,
}

/// What kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// No such object.
    NotFound,
    /// No such bucket.
    NoBucket,
    /// No such multipart upload.
    NoUpload,
    /// The condition of a write does not hold.
    Exists,
    /// Not allowed.
    Denied,
    /// Unknown or unusable credentials.
    Credentials,
    /// Credentials that were good once.
    Expired,
    /// The clocks differ.
    Skewed,
    /// The service lacks something that was asked for.
    NotImplemented,
    /// The bucket takes nothing without a checksum.
    ChecksumNeeded,
    /// The range lies beyond the object's end.
    BeyondEnd,
    /// No room left.
    Full,
    /// It has too much to do.
    Busy,
    /// It may work if tried again.
    Passing,
    /// Refused without a word why, as a HEAD is, whose answer has no body. It may be for a time that ran out.
    Unclear,
    /// Nothing moved for too long.
    Silent,
    /// All else; trying again does not help.
    Other,
}

impl Failed {
    pub(super) fn new(kind: Kind, said: impl Into<String>) -> Self {
        Self {
            kind,
            said: said.into(),
            hint: None,
            date: None,
            generation: 0,
        }
    }

    /// Reads an error of the SDK.
    pub(super) fn read<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        let header = |name: &str| error.raw_response().and_then(|raw| raw.headers().get(name));
        let hint = header("retry-after").and_then(|value| value.parse().ok());
        let status = error.raw_response().map(|raw| raw.status().as_u16());
        let (kind, said) = match error {
            SdkError::ServiceError(answer) => {
                let (code, message) = (answer.err().code(), answer.err().message().unwrap_or_default());
                let status = status.unwrap_or_default();
                let said = match code {
                    Some(code) if message.is_empty() => format!("{code} (status {status})"),
                    Some(code) => format!("{code}: {message}"),
                    None => format!("status {status}"),
                };
                (kind_of(code.unwrap_or_default(), message, status), said)
            }
            // An answer that is none: a gateway's page in place of XML, or half a document.
            SdkError::ResponseError(_) => {
                let kind = match status.unwrap_or_default() {
                    status @ 300.. => kind_of("", "", status),
                    _ => Kind::Passing,
                };
                (kind, chain(error))
            }
            SdkError::TimeoutError(_) => (Kind::Silent, chain(error)),
            SdkError::DispatchFailure(failure) if failure.is_user() => (Kind::Other, chain(error)),
            SdkError::DispatchFailure(_) => (Kind::Passing, chain(error)),
            _ => (Kind::Other, chain(error)),
        };
        Self {
            hint: hint.map(Duration::from_secs),
            ..Self::new(kind, said)
        }
    }

    /// Whether the request may have been done although it failed.
    pub(super) fn leaves_doubt(&self) -> bool {
        matches!(self.kind, Kind::Passing | Kind::Silent | Kind::Busy)
    }

    /// Whether the service answered, and the answer will stay the same.
    pub(super) fn is_refusal(&self) -> bool {
        !self.leaves_doubt()
    }

    /// What it says of the service.
    pub(super) fn verdict(&self) -> Verdict {
        match self.kind {
            Kind::Busy => Verdict::Overload { hint: self.hint },
            Kind::Passing | Kind::Unclear => Verdict::Failure(Why::Transient),
            Kind::Silent => Verdict::Failure(Why::Timeout),
            _ => Verdict::Ignore,
        }
    }

    /// The failure of a store.
    pub(super) fn told(self, location: &str, bucket: &str, action: &'static str, key: String) -> StoreError {
        let location = location.to_owned();
        let source = io::Error::other(self.said);
        match self.kind {
            Kind::NotFound | Kind::NoUpload => StoreError::NotFound { key },
            Kind::Exists => StoreError::Exists { key },
            Kind::NoBucket => StoreError::NoPlace {
                location: format!("bucket `{bucket}`"),
            },
            Kind::Denied => StoreError::Denied { key, source },
            Kind::Credentials | Kind::Expired => StoreError::Credentials { location, source },
            Kind::Skewed => StoreError::ClockSkew {
                location,
                ours: clock::now(),
                theirs: self.date,
            },
            Kind::Full => StoreError::Full { location },
            Kind::Busy | Kind::Passing | Kind::Silent => StoreError::Unavailable { location, source },
            Kind::NotImplemented | Kind::ChecksumNeeded | Kind::BeyondEnd | Kind::Unclear | Kind::Other => {
                StoreError::Io { action, key, source }
            }
        }
    }
}

fn kind_of(code: &str, message: &str, status: u16) -> Kind {
    match code {
        "NoSuchKey" => Kind::NotFound,
        "NoSuchBucket" => Kind::NoBucket,
        "NoSuchUpload" => Kind::NoUpload,
        "PreconditionFailed" => Kind::Exists,
        "AccessDenied" | "AllAccessDisabled" | "AccountProblem" | "MethodNotAllowed" => Kind::Denied,
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" => Kind::Expired,
        "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken" | "InvalidSecurity" | "NotSignedUp" => {
            Kind::Credentials
        }
        "RequestTimeTooSkewed" => Kind::Skewed,
        "NotImplemented" => Kind::NotImplemented,
        "InvalidRange" => Kind::BeyondEnd,
        "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded" | "QuotaExceeded" | "InsufficientStorage" => Kind::Full,
        "SlowDown"
        | "SlowDownRead"
        | "SlowDownWrite"
        | "ServiceUnavailable"
        | "Throttling"
        | "ThrottlingException"
        | "RequestLimitExceeded"
        | "BandwidthLimitExceeded"
        | "TooManyRequests" => Kind::Busy,
        // Some were changed on the way, and sent again they are as they were. Of two conditional writes at one time it
        // shows which was first when it is asked again.
        "ConditionalRequestConflict"
        | "OperationAborted"
        | "InternalError"
        | "RequestTimeout"
        | "BadDigest"
        | "IncompleteBody"
        | "XAmzContentSHA256Mismatch"
        | "XAmzContentChecksumMismatch" => Kind::Passing,
        "InvalidRequest" if message.contains("Content-MD5") || message.contains("x-amz-checksum") => {
            Kind::ChecksumNeeded
        }
        _ => match status {
            400 if code.is_empty() => Kind::Unclear,
            401 => Kind::Credentials,
            403 => Kind::Denied,
            404 => Kind::NotFound,
            // Those above 504 are Cloudflare's, for a service behind it that does not answer.
            408 | 500 | 502 | 504 | 520..=524 => Kind::Passing,
            412 => Kind::Exists,
            416 => Kind::BeyondEnd,
            429 | 503 => Kind::Busy,
            501 => Kind::NotImplemented,
            507 => Kind::Full,
            _ => Kind::Other,
        },
    }
}

/// All that an error and its sources say, each thing once.
pub(super) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let said = error.to_string();
        if !parts.iter().any(|part| part.contains(&said)) {
            parts.push(said);
        }
        next = error.source();
    }
    parts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_told_from_what_stays() {
        let passes = |code: &str, status| Failed::new(kind_of(code, "", status), "").leaves_doubt();
        for (code, status) in [
            ("SlowDown", 503),
            ("InternalError", 200),
            ("InternalError", 500),
            ("RequestTimeout", 400),
            ("ConditionalRequestConflict", 409),
            ("", 502),
            ("", 504),
            ("NobodyKnowsThis", 500),
        ] {
            assert!(passes(code, status), "{code} {status}");
        }
        for (code, status) in [
            ("AccessDenied", 403),
            ("", 403),
            ("", 404),
            ("NoSuchBucket", 404),
            ("InvalidRequest", 400),
            ("", 400),
            ("", 301),
            ("NotImplemented", 501),
            ("RequestTimeTooSkewed", 403),
            ("ExpiredToken", 400),
        ] {
            assert!(!passes(code, status), "{code} {status}");
        }
    }

    #[test]
    fn a_code_says_more_than_its_status() {
        assert_eq!(kind_of("ExpiredToken", "", 400), Kind::Expired);
        assert_eq!(kind_of("SignatureDoesNotMatch", "", 403), Kind::Credentials);
        assert_eq!(kind_of("XMinioStorageFull", "", 507), Kind::Full);
        let lacks = "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters";
        assert_eq!(kind_of("InvalidRequest", lacks, 400), Kind::ChecksumNeeded);
        assert_eq!(kind_of("InvalidRequest", "else", 400), Kind::Other);
        // A HEAD is told the status alone, of a `RequestTimeout` as well.
        let unclear = Failed::new(kind_of("", "", 400), "status 400");
        assert_eq!(unclear.verdict(), Verdict::Failure(Why::Transient));
    }
}
