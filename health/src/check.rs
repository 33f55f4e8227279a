//! What a check is: an async question about one thing that the service needs, and its answer. What the answer means for
//! the service is `spec`, when checks run is `schedule`.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::checks::single_flight::SingleFlight;

/// A question about one thing that the service needs. Implemented by every `Fn() -> impl Future` whose output turns
/// into an [`Outcome`]: `()`, `Result<(), E>` of any error, or `Outcome` itself.
///
/// The future must not block its thread: a timeout cannot interrupt it there, and the runtime's other tasks wait with
/// it. What can only be asked by blocking goes through [`blocking`].
pub trait Check: Send + Sync + 'static {
    /// Asks once. The future is dropped when the check's timeout is over.
    fn run(&self) -> Pin<Box<dyn Future<Output = Outcome> + Send + '_>>;

    /// What is asked, in the words of draft-inadarei-api-health-check: `datastore`, `system` or `component`. Shown in
    /// details.
    fn component_type(&self) -> &'static str {
        "component"
    }
}

impl<F, Fut> Check for F
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future + Send + 'static,
    Fut::Output: Into<Outcome>,
{
    fn run(&self) -> Pin<Box<dyn Future<Output = Outcome> + Send + '_>> {
        let future = self();
        Box::pin(async move { future.await.into() })
    }
}

/// A check that blocks a thread, such as a call of a C library or of a file system over the network: it runs on the
/// runtime's threads for blocking work. A run that hangs outlives its timeout, since nobody can interrupt it, and holds
/// one thread, however long it hangs: the next run waits for it instead of asking again.
pub fn blocking<O: Into<Outcome>>(ask: impl Fn() -> O + Send + Sync + 'static) -> Blocking {
    Blocking {
        ask: Arc::new(move || ask().into()),
        flight: SingleFlight::default(),
    }
}

/// Made by [`blocking`].
pub struct Blocking {
    ask: Arc<dyn Fn() -> Outcome + Send + Sync>,
    flight: SingleFlight,
}

impl fmt::Debug for Blocking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blocking").finish_non_exhaustive()
    }
}

impl Check for Blocking {
    fn run(&self) -> Pin<Box<dyn Future<Output = Outcome> + Send + '_>> {
        let ask = Arc::clone(&self.ask);
        Box::pin(self.flight.ask(move || ask()))
    }
}

/// Answer of a check.
#[derive(Debug)]
pub enum Outcome {
    /// All is well.
    Pass,
    /// It works, with something that a person should know, such as a full pool.
    Warn(Failure),
    /// It does not work.
    Fail(Failure),
}

impl From<()> for Outcome {
    fn from((): ()) -> Self {
        Self::Pass
    }
}

impl<E: Into<Failure>> From<Result<(), E>> for Outcome {
    fn from(result: Result<(), E>) -> Self {
        match result {
            Ok(()) => Self::Pass,
            Err(error) => Self::Fail(error.into()),
        }
    }
}

impl<E: Into<Failure>> From<Result<Outcome, E>> for Outcome {
    fn from(result: Result<Outcome, E>) -> Self {
        match result {
            Ok(outcome) => outcome,
            Err(error) => Self::Fail(error.into()),
        }
    }
}

/// Why a check failed: a reason code that may be shown to anyone, and a detail for the log alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Shown in details and metrics.
    pub reason: Reason,
    /// For the log; never in an answer of a probe.
    pub detail: String,
}

impl Failure {
    /// A failure with its reason and a detail for the log. User information in URLs is taken out of the detail.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: without_user_info(detail.into()),
        }
    }
}

impl<E: std::error::Error + 'static> From<E> for Failure {
    /// Takes the error's whole chain as the detail; the reason is told from the last `io::Error` in it.
    fn from(error: E) -> Self {
        let mut detail = String::new();
        let mut reason = Reason::Error;
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(error) = next {
            if let Some(io) = error.downcast_ref::<std::io::Error>() {
                reason = Reason::of_io(io);
            }
            let text = error.to_string();
            // Many errors repeat their source's text at their own end.
            if !detail.ends_with(&text) {
                if !detail.is_empty() {
                    detail.push_str(": ");
                }
                detail.push_str(&text);
            }
            next = error.source();
        }
        Self::new(reason, detail)
    }
}

/// `scheme://user:password@host` becomes `scheme://***@host`: errors of clients like to repeat the address that they
/// were given. A password may hold characters that should have been escaped, so the word's last `@` is the one.
fn without_user_info(text: String) -> String {
    let mut clean = String::new();
    let mut rest = text.as_str();
    while let Some(start) = rest.find("://") {
        let (before, after) = rest.split_at(start + 3);
        clean.push_str(before);
        let word = after.split([' ', '"', '\'', ')', '>']).next().unwrap_or_default();
        rest = after;
        if let Some(at) = word.rfind('@') {
            clean.push_str("***");
            rest = &after[at..];
        }
    }
    clean.push_str(rest);
    clean
}

/// Reason codes of a check that did not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// No answer in time.
    Timeout,
    /// Nothing listens there, or the connection broke.
    Refused,
    /// Credentials were refused.
    Auth,
    /// The TLS handshake failed.
    Tls,
    /// The name does not resolve.
    Dns,
    /// An answer that is not what the protocol or the check expects.
    Protocol,
    /// The last answer is too old.
    Stale,
    /// The check panicked.
    Panic,
    /// A pool, disk or quota is full.
    Saturated,
    /// Not run yet.
    Pending,
    /// Anything else.
    Error,
}

impl Reason {
    /// The code in details and metrics: `timeout`, `refused` and so on.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Refused => "refused",
            Self::Auth => "auth",
            Self::Tls => "tls",
            Self::Dns => "dns",
            Self::Protocol => "protocol",
            Self::Stale => "stale",
            Self::Panic => "panic",
            Self::Saturated => "saturated",
            Self::Pending => "pending",
            Self::Error => "error",
        }
    }

    /// The reason that an I/O error stands for.
    pub fn of_io(error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::TimedOut => Self::Timeout,
            ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::NotConnected
            | ErrorKind::BrokenPipe
            | ErrorKind::UnexpectedEof
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NotFound => Self::Refused,
            ErrorKind::PermissionDenied => Self::Auth,
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::Saturated,
            // What rustls says comes as invalid data, with its own text.
            ErrorKind::InvalidData => {
                let text = error.to_string();
                let tls = ["certificate", "fatal alert", "corrupt message"];
                if tls.iter().any(|word| text.contains(word)) {
                    Self::Tls
                } else {
                    Self::Protocol
                }
            }
            // The resolver's errors have neither a kind nor an operating system code, just this text.
            _ if error.to_string().starts_with("failed to lookup address") => Self::Dns,
            _ => Self::Error,
        }
    }
}
