//! NATS through the application's own client: is it connected, and does the server answer it.

use async_nats::connection::State;
use async_nats::{Client, ClientError, Event, RequestErrorKind, ServerError};

use super::Asking;
use super::cause::Cause;
use crate::check::{Check, Failure, Outcome, Reason};

/// One round trip to the server over the client's connection.
///
/// The client's own `flush` ends when the bytes are written, so it passes while a server hangs. Instead the server's own
/// service `$SYS.REQ.USER.INFO` is asked who we are; any answer passes, also that nobody answers there (servers before
/// 2.9). A user with limited permissions needs to publish to that subject and to subscribe to its inboxes.
#[derive(Debug, Clone)]
pub struct NatsCheck {
    client: Client,
    subject: String,
    cause: Cause,
}

impl NatsCheck {
    /// Asks over `client`.
    pub fn new(client: &Client) -> Self {
        Self {
            client: client.clone(),
            subject: "$SYS.REQ.USER.INFO".to_owned(),
            cause: Cause::default(),
        }
    }

    /// Sends the request to this subject. It must change nothing: what answers there is asked at every run.
    #[must_use]
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = subject.into();
        self
    }

    /// Says why the client is not connected, from what [`Cause::nats_event`] has heard.
    #[must_use]
    pub fn explained_by(mut self, cause: &Cause) -> Self {
        self.cause = cause.clone();
        self
    }

    async fn ask(&self) -> Outcome {
        match self.client.connection_state() {
            State::Connected => {}
            State::Pending | State::Disconnected => {
                let unknown = || Failure::new(Reason::Refused, "not connected");
                return Outcome::Fail(self.cause.failure().unwrap_or_else(unknown));
            }
        }
        let question = async_nats::Request::new().timeout(None);
        match self.client.send_request(self.subject.clone(), question).await {
            Ok(_) => Outcome::Pass,
            Err(error) if error.kind() == RequestErrorKind::NoResponders => Outcome::Pass,
            Err(error) if error.kind() == RequestErrorKind::TimedOut => {
                Outcome::Fail(Failure::new(Reason::Timeout, error.to_string()))
            }
            Err(error) => Outcome::Fail(error.into()),
        }
    }
}

impl Check for NatsCheck {
    fn run(&self) -> Asking<'_> {
        Box::pin(self.ask())
    }
}

impl Cause {
    /// Takes an event of the client: `options.event_callback(move |event| { cause.nats_event(&event); async {} })`.
    pub fn nats_event(&self, event: &Event) {
        match event {
            Event::Connected => self.clear(),
            Event::ServerError(ServerError::AuthorizationViolation) => {
                self.report(Failure::new(Reason::Auth, event.to_string()));
            }
            Event::ClientError(ClientError::Other(text)) => {
                self.report(Failure::new(reason_of_text(text), event.to_string()));
            }
            Event::Closed | Event::ClientError(_) => {
                self.report(Failure::new(Reason::Refused, event.to_string()));
            }
            // The reason for losing the connection comes before or after this one, if any.
            _ => {}
        }
    }
}

/// The client hands its errors to the callback as text.
fn reason_of_text(text: &str) -> Reason {
    let text = text.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if has(&["authorization violation", "authentication", "signing nonce"]) {
        Reason::Auth
    } else if has(&["tls", "certificate"]) {
        Reason::Tls
    } else if has(&["dns", "lookup"]) {
        Reason::Dns
    } else if has(&["timed out", "timeout"]) {
        Reason::Timeout
    } else {
        Reason::Refused
    }
}
