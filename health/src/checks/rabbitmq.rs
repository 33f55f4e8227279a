//! RabbitMQ over the application's own AMQP connection: a channel is opened and closed, nothing is declared, published or
//! consumed.

use std::fmt;
use std::sync::Arc;

use lapin::options::QueueDeclareOptions;
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::types::FieldTable;
use lapin::{Connection, ErrorKind};
use tokio::sync::Mutex;
use tokio::task::{JoinError, JoinHandle};

use super::Asking;
use super::cause::Cause;
use crate::check::{Check, Failure, Outcome, Reason};

/// Opens a channel, looks whether the wanted queues exist, closes it: two round trips, one more for each queue. A
/// connection that the broker blocks (memory or disk alarm) is a warning, `saturated`.
pub struct RabbitCheck {
    connection: Box<dyn Fn() -> Option<Arc<Connection>> + Send + Sync>,
    queues: Arc<Vec<String>>,
    cause: Cause,
    /// The question that waits for its answer, longer than the check may take: one, however long the broker hangs.
    asked: Mutex<Option<Asked>>,
}

/// A question under way, and the connection that it is asked over.
struct Asked {
    connection: Arc<Connection>,
    answer: JoinHandle<lapin::Result<()>>,
}

impl fmt::Debug for RabbitCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitCheck")
            .field("queues", &self.queues)
            .finish_non_exhaustive()
    }
}

impl RabbitCheck {
    /// Asks over the connection that `connection` answers: the one in use now, `None` while there is none.
    pub fn new(connection: impl Fn() -> Option<Arc<Connection>> + Send + Sync + 'static) -> Self {
        Self {
            connection: Box::new(connection),
            queues: Arc::default(),
            cause: Cause::default(),
            asked: Mutex::default(),
        }
    }

    /// This queue must exist. It is declared passively, which creates nothing and needs no permission to configure.
    #[must_use]
    pub fn queue(mut self, name: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.queues).push(name.into());
        self
    }

    /// Says why there is no connection, from what the application's connect loop told with [`Cause::rabbitmq_error`].
    #[must_use]
    pub fn explained_by(mut self, cause: &Cause) -> Self {
        self.cause = cause.clone();
        self
    }
}

impl Check for RabbitCheck {
    fn run(&self) -> Asking<'_> {
        Box::pin(async move {
            let connection = (self.connection)().filter(|connection| connection.status().connected());
            let Some(connection) = connection else {
                let unknown = || Failure::new(Reason::Refused, "not connected");
                return Outcome::Fail(self.cause.failure().unwrap_or_else(unknown));
            };
            if connection.status().blocked() {
                return Outcome::Warn(Failure::new(Reason::Saturated, "the broker blocks the connection"));
            }
            match self.answer(connection).await {
                Ok(answer) => answer.map_err(failure).into(),
                Err(ended) => Outcome::Fail(Failure::new(Reason::Panic, ended.to_string())),
            }
        })
    }

    fn component_type(&self) -> &'static str {
        "datastore"
    }
}

impl RabbitCheck {
    /// The answer to the question that is under way over this connection, else to a new one. A question is asked to its
    /// end, also when the check's time is over: a channel that is given up half-way may cost the application its connection.
    async fn answer(&self, connection: Arc<Connection>) -> Result<lapin::Result<()>, JoinError> {
        let mut asked = self.asked.lock().await;
        if asked
            .as_ref()
            .is_some_and(|asked| !Arc::ptr_eq(&asked.connection, &connection))
        {
            *asked = None;
        }
        let under_way = asked.get_or_insert_with(|| {
            let (over, queues) = (Arc::clone(&connection), Arc::clone(&self.queues));
            let answer = tokio::spawn(async move { ask(&over, &queues).await });
            Asked { connection, answer }
        });
        let answer = (&mut under_way.answer).await;
        *asked = None;
        answer
    }
}

async fn ask(connection: &Connection, queues: &[String]) -> lapin::Result<()> {
    let channel = connection.create_channel().await?;
    let passive = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    for queue in queues {
        // An error closes the channel, as AMQP says.
        channel
            .queue_declare(queue.as_str().into(), passive, FieldTable::default())
            .await?;
    }
    channel.close(200, "health check".into()).await
}

impl Cause {
    /// Takes an error of `lapin::Connection::connect`, or of the connection's `events_listener`.
    pub fn rabbitmq_error(&self, error: lapin::Error) {
        self.report(failure(error));
    }
}

fn failure(error: lapin::Error) -> Failure {
    let reason = match error.kind() {
        ErrorKind::IOError(error) => Some(Reason::of_io(error)),
        ErrorKind::MissingHeartbeatError => Some(Reason::Timeout),
        ErrorKind::ChannelsLimitReached => Some(Reason::Saturated),
        ErrorKind::InvalidConnectionState(_) | ErrorKind::InvalidChannelState(..) => Some(Reason::Refused),
        ErrorKind::AuthProviderError(_) => Some(Reason::Auth),
        ErrorKind::ProtocolError(error) => Some(match error.kind() {
            AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) | AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => {
                Reason::Auth
            }
            AMQPErrorKind::Hard(AMQPHardError::CONNECTIONFORCED) => Reason::Refused,
            AMQPErrorKind::Hard(AMQPHardError::RESOURCEERROR) => Reason::Saturated,
            _ => Reason::Protocol,
        }),
        _ => None,
    };
    let mut failure = Failure::from(error);
    if let Some(reason) = reason {
        failure.reason = reason;
    }
    failure
}
