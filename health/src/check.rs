//! What a check is: an async question about one thing that the service needs, and how its answer is to be taken.
//! When checks run, and what their answers make of the service, is `schedule` and `state`.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// A question about one thing that the service needs. Implemented by every `Fn() -> impl Future` whose output turns
/// into an [`Outcome`]: `()`, `Result<(), E>` of any error, or `Outcome` itself.
pub trait Check: Send + Sync + 'static {
    /// Asks once. The future is dropped when the check's timeout is over.
    fn run(&self) -> Pin<Box<dyn Future<Output = Outcome> + Send + '_>>;
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
            if !detail.is_empty() {
                detail.push_str(": ");
            }
            detail.push_str(&error.to_string());
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
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

/// What a check means for the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The service cannot start without it. What its failure means later is said by [`OnDown`].
    Critical,
    /// The service works worse without it; it never keeps traffic away.
    Degraded,
    /// Shown and measured, without effect on the service's state.
    Informative,
}

/// What the failure of a critical check means once the service has been ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDown {
    /// Keep the traffic and say `degraded`: right for what all instances share, since taking all of them out of
    /// balance turns a brown-out into an outage.
    Degrade,
    /// Take this instance out of balance: right for what it has for itself (its disk, its queue).
    NotReady,
}

/// A check with its name, role and times. Made by [`Spec::critical`], [`Spec::degraded`], [`Spec::informative`].
pub struct Spec {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) on_down: OnDown,
    pub(crate) check: Box<dyn Check>,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    pub(crate) down_after: u32,
    pub(crate) up_after: u32,
}

impl Spec {
    fn new(name: impl Into<String>, role: Role, check: impl Check) -> Self {
        Self {
            name: name.into(),
            role,
            on_down: OnDown::Degrade,
            check: Box::new(check),
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(1),
            down_after: 3,
            up_after: 2,
        }
    }

    /// A check that must pass once before the service is ready; afterwards it degrades unless [`Spec::on_down`] says
    /// otherwise.
    pub fn critical(name: impl Into<String>, check: impl Check) -> Self {
        Self::new(name, Role::Critical, check)
    }

    /// A check whose failure degrades the service.
    pub fn degraded(name: impl Into<String>, check: impl Check) -> Self {
        Self::new(name, Role::Degraded, check)
    }

    /// A check that is shown and measured only.
    pub fn informative(name: impl Into<String>, check: impl Check) -> Self {
        Self::new(name, Role::Informative, check)
    }

    /// What the failure of a critical check means after the start. Default [`OnDown::Degrade`].
    #[must_use]
    pub fn on_down(mut self, on_down: OnDown) -> Self {
        self.on_down = on_down;
        self
    }

    /// Time between two runs, spread by 20 %. Default 10 s; 1 s (or less, if this is less) until the first success.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Time that one run may take; must be less than the interval. Default 1 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Failures in a row that make it fail. Default 3.
    #[must_use]
    pub fn down_after(mut self, failures: u32) -> Self {
        self.down_after = failures;
        self
    }

    /// Successes in a row that make it pass again. Default 2.
    #[must_use]
    pub fn up_after(mut self, successes: u32) -> Self {
        self.up_after = successes;
        self
    }
}
