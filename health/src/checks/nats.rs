//! NATS through the application's own client: is it connected, and does the server answer it.

use async_nats::connection::State;
use async_nats::{Client, ClientError, Event, RequestErrorKind, ServerError};
use bytes::Bytes;
use futures::StreamExt as _;

use super::Asking;
use super::cause::Cause;
use crate::check::{Check, Failure, Outcome, Reason};

/// One round trip to the server over the client's connection.
///
/// The client's own `flush` ends when the bytes are written, so it passes while a server hangs. Instead the check sends
/// an empty message to an inbox of its own and waits for it. A user with limited permissions must be allowed to publish
/// and subscribe below the client's inbox prefix (`_INBOX.>`); a client made with `no_echo` needs [`NatsCheck::subject`].
#[derive(Debug, Clone)]
pub struct NatsCheck {
    client: Client,
    subject: Option<String>,
    cause: Cause,
}

impl NatsCheck {
    /// Asks over `client`.
    pub fn new(client: &Client) -> Self {
        Self {
            client: client.clone(),
            subject: None,
            cause: Cause::default(),
        }
    }

    /// Sends an empty request to this subject instead; any answer passes. What answers there is asked at every run, so it
    /// must change nothing.
    #[must_use]
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
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
        let answer = match &self.subject {
            Some(subject) => self.request(subject.clone()).await,
            None => self.to_ourselves().await,
        };
        answer.into()
    }

    async fn to_ourselves(&self) -> Result<(), Failure> {
        let inbox = self.client.new_inbox();
        // Dropped at the end, which unsubscribes.
        let mut inbox_messages = self.client.subscribe(inbox.clone()).await?;
        self.client.publish(inbox, Bytes::new()).await?;
        let closed = || Failure::new(Reason::Refused, "the client is closed");
        inbox_messages.next().await.map(drop).ok_or_else(closed)
    }

    async fn request(&self, subject: String) -> Result<(), Failure> {
        match self
            .client
            .send_request(subject, async_nats::Request::new().timeout(None))
            .await
        {
            Ok(_) => Ok(()),
            Err(error) => {
                let reason = match error.kind() {
                    RequestErrorKind::NoResponders => Reason::Protocol,
                    RequestErrorKind::TimedOut => Reason::Timeout,
                    _ => Reason::Refused,
                };
                Err(Failure::new(reason, error.to_string()))
            }
        }
    }
}

impl Check for NatsCheck {
    fn run(&self) -> Asking<'_> {
        Box::pin(self.ask())
    }

    fn component_type(&self) -> &'static str {
        "datastore"
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
