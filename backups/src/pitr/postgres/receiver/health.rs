//! What the server says of the slot, asked by SQL now and then where that is allowed.

use std::sync::Arc;
use std::time::Duration;

use replication::{Address, Lsn, SlotName, Sql};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::status::{SlotStanding, Status, Warning};

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
    let address = address.clone();
    let (application, slot, status) = (application.to_owned(), slot.clone(), Arc::clone(status));
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            match tokio::time::timeout(LIMIT, look(&address, &application, &slot)).await {
                Ok(Ok(standing)) => status.send_modify(|status| {
                    status
                        .warnings
                        .retain(|warning| !matches!(warning, Warning::SlotShort { .. }));
                    let short = standing.as_ref().filter(|slot| slot.is_short());
                    status.warnings.extend(short.map(|slot| Warning::SlotShort {
                        kept: slot.lag,
                        safe: slot.safe_wal_size.unwrap_or_default(),
                    }));
                    status.slot = standing;
                }),
                // Not everybody who may replicate may do more.
                Ok(Err(error)) => tracing::debug!(%error, "the slot cannot be looked at"),
                Err(_) => tracing::debug!("the slot cannot be looked at in time"),
            }
            tokio::time::sleep(EVERY).await;
        }
    }))
}

/// What the server says of a slot; `None` if there is none of this name. No limit of time but the caller's.
///
/// # Errors
/// The server's. Before version 15 not everybody who may replicate may ask.
pub async fn look(
    address: &Address,
    application: &str,
    slot: &SlotName,
) -> Result<Option<SlotStanding>, replication::Error> {
    // Of a standby nobody knows how far the primary is.
    const END: &str = "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_receive_lsn() \
                       ELSE pg_catalog.pg_current_wal_flush_lsn() END";
    let database = address.database().unwrap_or("postgres").to_owned();
    let address = address.clone().with_database(&database);
    let mut sql = Sql::open(&address, application).await?;
    let Some(state) = sql.slot(slot).await? else {
        return Ok(None);
    };
    let answer = sql.query(END).await?;
    let end = answer.into_iter().flatten().flatten().next();
    let end = end.and_then(|end| end.parse::<Lsn>().ok()).unwrap_or(Lsn::ZERO);
    Ok(Some(SlotStanding {
        restart: state.slot.restart,
        active: state.active,
        lag: state.slot.restart.map_or(0, |restart| end.since(restart)),
        wal_status: state.wal_status,
        safe_wal_size: state.safe_wal_size,
    }))
}
