//! Why a client that connects in the background is not connected. Such clients (NATS, MongoDB, Kafka, RabbitMQ) keep an
//! application's calls waiting and say what is wrong to a callback alone; a check by itself could just say `timeout`.

use tokio::sync::watch;

use crate::check::Failure;

/// What a client last said of its connection. Clones share: one goes to the client's callback, one to the check.
#[derive(Debug, Clone)]
pub struct Cause {
    pub(super) last: watch::Sender<Option<Failure>>,
}

impl Default for Cause {
    fn default() -> Self {
        Self {
            last: watch::Sender::new(None),
        }
    }
}

impl Cause {
    /// Nothing is known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The client could not connect, or lost its connection, because of this.
    pub fn report(&self, failure: impl Into<Failure>) {
        self.last.send_replace(Some(failure.into()));
    }

    /// The client is connected.
    pub fn clear(&self) {
        self.last.send_replace(None);
    }

    /// What was reported since the last [`Cause::clear`].
    pub fn failure(&self) -> Option<Failure> {
        self.last.borrow().clone()
    }
}
