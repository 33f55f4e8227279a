//! Redis through the application's own connection: `PING`, and for a cluster whether it serves all of its slots.

use redis::aio::ConnectionLike;
use redis::{ErrorKind, RedisError};

use super::Asking;
use crate::check::{Check, Failure, Reason};

/// `PING` over a connection that the application has anyway: a `ConnectionManager`, a multiplexed or a cluster
/// connection. Their clones share one socket, so a probe opens none.
///
/// A `ConnectionManager` tries again before it says that it cannot connect. Where its tries take longer than the check's
/// timeout, a server that is down is called `timeout` instead of `refused`.
#[derive(Debug, Clone)]
pub struct RedisCheck<C> {
    connection: C,
    cluster: bool,
}

impl<C: ConnectionLike + Clone + Send + Sync + 'static> RedisCheck<C> {
    /// Asks over `connection`.
    pub fn new(connection: &C) -> Self {
        Self {
            connection: connection.clone(),
            cluster: false,
        }
    }

    /// Asks `CLUSTER INFO` instead, and fails unless the state is `ok`.
    #[must_use]
    pub fn cluster(mut self) -> Self {
        self.cluster = true;
        self
    }

    async fn ask(&self) -> Result<(), Failure> {
        let mut connection = self.connection.clone();
        if !self.cluster {
            return redis::cmd("PING").query_async(&mut connection).await.map_err(failure);
        }
        let info: String = redis::cmd("CLUSTER")
            .arg("INFO")
            .query_async(&mut connection)
            .await
            .map_err(failure)?;
        let state = info.lines().find_map(|line| line.strip_prefix("cluster_state:"));
        match state {
            Some("ok") => Ok(()),
            Some(state) => Err(Failure::new(
                Reason::Protocol,
                format!("the cluster's state is {state}"),
            )),
            None => Err(Failure::new(Reason::Protocol, "CLUSTER INFO without a state")),
        }
    }
}

impl<C: ConnectionLike + Clone + Send + Sync + 'static> Check for RedisCheck<C> {
    fn run(&self) -> Asking<'_> {
        Box::pin(async move { self.ask().await.into() })
    }

    fn component_type(&self) -> &'static str {
        "datastore"
    }
}

fn failure(error: RedisError) -> Failure {
    let reason = match error.code() {
        Some("NOAUTH" | "WRONGPASS" | "NOPERM") => Some(Reason::Auth),
        Some("LOADING" | "MASTERDOWN") => Some(Reason::Refused),
        _ if error.kind() == ErrorKind::AuthenticationFailed => Some(Reason::Auth),
        _ if error.to_string().contains("max number of clients") => Some(Reason::Saturated),
        Some(_) => Some(Reason::Protocol),
        None if error.is_timeout() => Some(Reason::Timeout),
        None if error.is_connection_refusal() || error.is_connection_dropped() => Some(Reason::Refused),
        None => None,
    };
    let mut failure = Failure::from(error);
    if let Some(reason) = reason {
        failure.reason = reason;
    }
    failure
}
