//! The client against real servers of every release that there is here, and against a server that is none.

#[cfg(test)]
#[path = "servers/access.rs"]
mod access;
#[cfg(test)]
#[path = "servers/backup.rs"]
mod backup;
#[cfg(test)]
#[path = "servers/hostile.rs"]
mod hostile;
#[cfg(test)]
#[path = "servers/log.rs"]
mod log;
#[cfg(test)]
#[path = "servers/slots.rs"]
mod slots;

#[cfg(test)]
use peers::servers::postgres::Cluster;
#[cfg(test)]
use replication::{Address, Connection};

/// Nothing that a test waits for takes longer.
#[cfg(test)]
const PATIENCE: std::time::Duration = std::time::Duration::from_mins(1);

#[cfg(test)]
async fn open(cluster: &Cluster) -> Connection {
    let address = Address::parse(&cluster.url()).unwrap();
    Connection::open(&address, "test").await.unwrap()
}

/// Waits for what must come.
#[cfg(test)]
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let late = |_| panic!("{what} did not come within {PATIENCE:?}");
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(late)
}

/// An error with all of its reasons.
#[cfg(test)]
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(reason) = source {
        text = format!("{text}: {reason}");
        source = reason.source();
    }
    text
}
