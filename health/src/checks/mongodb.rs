//! MongoDB through the application's own client: `ping` on the database that it uses. The client's own way of waiting for a
//! server (30 s by default) is longer than any check; a [`Cause`] that listens to the client says what it waits for.

use std::time::Duration;

use mongodb::Database;
use mongodb::bson::doc;
use mongodb::error::{Error, ErrorKind};
use mongodb::event::EventHandler;
use mongodb::event::sdam::SdamEvent;
use mongodb::options::ClientOptions;

use super::Asking;
use super::cause::Cause;
use crate::check::{Check, Failure, Outcome, Reason};

/// How long an answer is still waited for once it is known that no server is there: after a broken connection the client
/// looks again after half a second.
const PATIENCE: Duration = Duration::from_millis(700);

/// `ping` on one database, with that database's read preference; asked once more when a failover broke the first one.
#[derive(Debug, Clone)]
pub struct MongoCheck {
    database: Database,
    cause: Cause,
}

impl MongoCheck {
    /// Asks over the client of `database`.
    pub fn new(database: &Database) -> Self {
        Self {
            database: database.clone(),
            cause: Cause::default(),
        }
    }

    /// Says why no server is there, from what the client told a cause that was made to [`Cause::watch_mongodb`].
    #[must_use]
    pub fn explained_by(mut self, cause: &Cause) -> Self {
        self.cause = cause.clone();
        self
    }

    async fn ask(&self) -> Outcome {
        let answer = match self.ping().await {
            Err(error) if is_failover(&error) => self.ping().await,
            other => other,
        };
        match answer {
            Ok(()) => Outcome::Pass,
            Err(error) => Outcome::Fail(failure(error)),
        }
    }

    /// Ends once the client has said for a while that it finds no server.
    async fn no_server(&self) -> Failure {
        let mut told = self.cause.last.subscribe();
        loop {
            // Fails when the sender is gone, and `self` holds it.
            let _ = told.wait_for(Option::is_some).await;
            tokio::time::sleep(PATIENCE).await;
            if let Some(failure) = self.cause.failure() {
                return failure;
            }
        }
    }

    async fn ping(&self) -> Result<(), Error> {
        let ping = self.database.run_command(doc! { "ping": 1 });
        match self.database.selection_criteria() {
            Some(criteria) => ping.selection_criteria(criteria.clone()).await?,
            None => ping.await?,
        };
        Ok(())
    }
}

impl Check for MongoCheck {
    fn run(&self) -> Asking<'_> {
        Box::pin(async {
            tokio::select! {
                biased;
                answer = self.ask() => answer,
                failure = self.no_server() => Outcome::Fail(failure),
            }
        })
    }

    fn component_type(&self) -> &'static str {
        "datastore"
    }
}

/// A server that stepped down or went away; another may have taken its place.
fn is_failover(error: &Error) -> bool {
    // NotWritablePrimary, PrimarySteppedDown, InterruptedDueToReplStateChange, InterruptedAtShutdown,
    // NotPrimaryNoSecondaryOk, NotPrimaryOrSecondary, ShutdownInProgress, HostUnreachable, HostNotFound.
    const STATE_CHANGES: [i32; 9] = [10107, 189, 11602, 11600, 13435, 13436, 91, 6, 7];
    match &*error.kind {
        ErrorKind::Io(_) | ErrorKind::ConnectionPoolCleared { .. } => true,
        ErrorKind::Command(command) => STATE_CHANGES.contains(&command.code),
        _ => false,
    }
}

impl Cause {
    /// Listens to the client that is made from `options`; replaces their `sdam_event_handler`. For an application that
    /// has one: [`Cause::mongodb_event`].
    pub fn watch_mongodb(&self, options: &mut ClientOptions) {
        let cause = self.clone();
        options.sdam_event_handler = Some(EventHandler::callback(move |event| cause.mongodb_event(&event)));
    }

    /// Takes what the client tells of its servers.
    pub fn mongodb_event(&self, event: &SdamEvent) {
        match event {
            SdamEvent::ServerHeartbeatSucceeded(_) => self.clear(),
            SdamEvent::ServerHeartbeatFailed(event) => self.report(failure(event.failure.clone())),
            _ => {}
        }
    }
}

fn failure(error: Error) -> Failure {
    // Unauthorized, AuthenticationFailed.
    const AUTH: [i32; 2] = [13, 18];
    let reason = match &*error.kind {
        ErrorKind::Io(error) => Some(Reason::of_io(error)),
        ErrorKind::Authentication { .. } => Some(Reason::Auth),
        ErrorKind::Command(command) if AUTH.contains(&command.code) => Some(Reason::Auth),
        ErrorKind::Command(_) | ErrorKind::InvalidResponse { .. } | ErrorKind::IncompatibleServer { .. } => {
            Some(Reason::Protocol)
        }
        ErrorKind::DnsResolve { .. } => Some(Reason::Dns),
        ErrorKind::InvalidTlsConfig { .. } => Some(Reason::Tls),
        ErrorKind::ServerSelection { .. } => Some(Reason::Timeout),
        ErrorKind::ConnectionPoolCleared { .. } | ErrorKind::Shutdown => Some(Reason::Refused),
        _ => None,
    };
    let mut failure = Failure::from(error);
    if let Some(reason) = reason {
        failure.reason = reason;
    }
    failure
}
