//! Why a server gave no usable answer: what, who, and why.

use std::error::Error;
use std::time::Duration;

use reqwest::StatusCode;

/// Why a server gave no usable answer. Credentials are never in it, and of the server's words only the beginning.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// Not an `http://host…` or `https://host…` URL.
    #[error("the address of {0} must be an http:// or https:// URL with a host")]
    Address(&'static str),
    /// There is no TLS here, the certificate authority is none, or the token none.
    #[error("a client for {who} cannot be made")]
    Client {
        /// What the server is called.
        who: &'static str,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Nobody answered, or the connection broke.
    #[error("{who} at {at} cannot be reached")]
    Unreachable {
        /// What the server is called.
        who: &'static str,
        /// Its address.
        at: String,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// It took too long.
    #[error("{who} at {at} took longer than {} s", .limit.as_secs_f64())]
    TimedOut {
        /// What the server is called.
        who: &'static str,
        /// Its address.
        at: String,
        /// The limit.
        limit: Duration,
    },
    /// It wants other credentials.
    #[error("{who} at {at} refuses {sent} (HTTP {})", .status.as_u16())]
    Forbidden {
        /// What the server is called.
        who: &'static str,
        /// Its address.
        at: String,
        /// What it was sent: a token, a user and a password, or nothing.
        sent: &'static str,
        /// 401 or 403.
        status: StatusCode,
    },
    /// It sends the question elsewhere, where credentials do not follow.
    #[error(
        "{who} at {at} answers with a redirect (HTTP {}), which is not followed; configure where it leads",
        .status.as_u16()
    )]
    Redirected {
        /// What the server is called.
        who: &'static str,
        /// Its address.
        at: String,
        /// 3xx.
        status: StatusCode,
    },
    /// It refuses the question, or cannot answer now.
    #[error("{who} at {at} {}", said(*.status, .message))]
    Refused {
        /// What the server is called.
        who: &'static str,
        /// Its address.
        at: String,
        /// The status.
        status: StatusCode,
        /// The beginning of its words; empty when it had none.
        message: String,
    },
    /// The answer is larger than what is read.
    #[error("the answer of {who} at {at} is larger than {limit} bytes")]
    TooLarge {
        /// What the server is called.
        who: &'static str,
        /// Its address.
        at: String,
        /// The limit.
        limit: usize,
    },
    /// Something answered that is not what it should be.
    #[error("{at} does not answer as {who} does")]
    Foreign {
        /// What the server is called.
        who: &'static str,
        /// Its address.
        at: String,
        /// What could not be read.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl EndpointError {
    /// Whether the server was not there, as opposed to wrong.
    pub const fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::TimedOut { .. })
    }
}

fn said(status: StatusCode, message: &str) -> String {
    let verb = if status.is_server_error() { "failed" } else { "refuses" };
    let colon = if message.is_empty() { "" } else { ": " };
    format!("{verb} (HTTP {}){colon}{message}", status.as_u16())
}
