//! What can go wrong between a caller and the proxy. Not how a terminal words it.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::message::{Refusal, RefusalCode, Weight};

/// Why a call to the proxy did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody answers on the socket: the proxy does not run, or the socket may not be opened.
    #[error("the proxy does not answer on {}", socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The proxy took the connection and did not answer in time. Whether it did the work is unknown.
    #[error("the proxy did not answer on {} within {} s", socket.display(), after.as_secs_f64())]
    TimedOut {
        /// The socket.
        socket: PathBuf,
        /// The time-out that passed.
        after: Duration,
    },
    /// The weight is not what the caller expected, is held by another run, or has lapsed. Nothing was changed.
    #[error("{message}")]
    Conflict {
        /// The proxy's sentence.
        message: String,
        /// The weight that is set now.
        actual: Option<Weight>,
    },
    /// Another process listens on an address of the route. Nothing was changed.
    #[error("{addr} is taken by another process")]
    PortTaken {
        /// The address.
        addr: SocketAddr,
    },
    /// The proxy has no route for the service.
    #[error("{message}")]
    UnknownService {
        /// The proxy's sentence.
        message: String,
    },
    /// The proxy cannot use a value of the request.
    #[error("{message}")]
    Invalid {
        /// The proxy's sentence.
        message: String,
    },
    /// The proxy tried and failed.
    #[error("the proxy failed: {message}")]
    Failed {
        /// The proxy's sentence.
        message: String,
    },
    /// What came back is not this protocol: another program on the socket, or another version of opsctl.
    #[error("unexpected answer from the proxy: {detail}")]
    Protocol {
        /// What was unexpected.
        detail: String,
    },
}

impl From<Refusal> for ControlError {
    fn from(refusal: Refusal) -> Self {
        let Refusal {
            code,
            message,
            addr,
            actual,
        } = refusal;
        match (code, addr) {
            (RefusalCode::Conflict, _) => Self::Conflict {
                message,
                actual: actual.map(|weight| *weight),
            },
            (RefusalCode::PortTaken, Some(addr)) => Self::PortTaken { addr },
            (RefusalCode::UnknownService, _) => Self::UnknownService { message },
            (RefusalCode::Invalid, _) => Self::Invalid { message },
            (RefusalCode::Failed | RefusalCode::PortTaken, _) => Self::Failed { message },
        }
    }
}
