//! What the server says of the slot, asked by SQL now and then where that is allowed.

use std::sync::Arc;
use std::time::Duration;

use replication::{Address, SlotName, Sql};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::status::{SlotStanding, Status};

/// How often.
const EVERY: Duration = Duration::from_secs(30);
/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(15);

/// Looks after the slot for as long as the handle is kept.
pub(super) fn watch_slot(
    address: &Address,
    application: &str,
    slot: &SlotName,
    status: &Arc<watch::Sender<Status>>,
) -> AbortOnDropHandle<()> {
    let database = address.database().unwrap_or("postgres").to_owned();
    let address = address.clone().with_database(&database);
    let (application, slot, status) = (application.to_owned(), slot.clone(), Arc::clone(status));
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            match tokio::time::timeout(LIMIT, look(&address, &application, &slot)).await {
                Ok(Ok(standing)) => status.send_modify(|status| {
                    let lag = |restart| status.end_of_log.since(restart);
                    status.slot = standing.map(|standing| SlotStanding {
                        lag: standing.restart.map_or(0, lag),
                        ..standing
                    });
                }),
                // Not everybody who may replicate may do more.
                Ok(Err(error)) => tracing::debug!(%error, "the slot cannot be looked at"),
                Err(_) => tracing::debug!("the slot cannot be looked at in time"),
            }
            tokio::time::sleep(EVERY).await;
        }
    }))
}

async fn look(
    address: &Address,
    application: &str,
    slot: &SlotName,
) -> Result<Option<SlotStanding>, replication::Error> {
    let mut sql = Sql::open(address, application).await?;
    let state = sql.slot(slot).await?;
    Ok(state.map(|state| SlotStanding {
        restart: state.slot.restart,
        lag: 0,
        wal_status: state.wal_status,
        safe_wal_size: state.safe_wal_size,
    }))
}
