//! PostgreSQL recovers a base backup up to the record of a plan: started on the restored files as a server that nobody
//! else reaches, fed by ours, watched until it takes connections or gives up, and held against the plan.
//!
//! Nothing is written into its configuration: what recovery needs is said on its command line, so that what is left is a
//! plain cluster on a timeline of its own. Its own configuration is not read either but for `postgresql.auto.conf`, of
//! which whatever could reach others (its archive, its primary) or could keep it from starting here is overruled.

use std::path::Path;
use std::sync::Arc;

use replication::{Lsn, Timeline};
use tokio_util::sync::CancellationToken;

use super::super::serve::{Served, Supply};
use super::feed::{Feed, NOT_WHOLE, damage};
use super::{Place, Plan, RecoveryError};
use crate::error::Error;
use crate::postgres::scratch::{PORT, ScratchServer};

/// A server that recovered, and now takes writes on a timeline of its own.
pub struct Recovered {
    server: ScratchServer,
    /// Up to where it replayed the log.
    pub reached: Lsn,
    /// The timeline that it is on now.
    pub timeline: Timeline,
    /// Ends after the server.
    feed: Feed,
}

/// Lets PostgreSQL recover what lies in `place`, up to the record of `plan`, and promotes it. `tell` hears how far it has
/// asked for the log.
///
/// # Errors
/// [`RecoveryError`] if it did not come as far as the plan says; [`PostgresError`](crate::postgres::PostgresError) if there
/// are no programs of its version.
pub async fn recover(
    plan: &Plan,
    place: &Place,
    supply: Arc<dyn Supply>,
    tell: &(dyn Fn(&Served) + Send + Sync),
    cancel: &CancellationToken,
) -> Result<Recovered, Error> {
    let feed = Feed::open(plan, place, Arc::clone(&supply)).await?;
    let mut served = feed.served();
    let starting = ScratchServer::start(feed.options(), cancel);
    let mut starting = Box::pin(starting);
    let started = loop {
        tell(&served.borrow_and_update());
        tokio::select! {
            biased;
            started = &mut starting => break started,
            Ok(()) = served.changed() => {}
        }
    };
    drop(starting);
    let server = match started.map_err(|error| feed.failed(error)) {
        Err(Error::Recovery(failed)) => return Err(named(*failed, plan, supply, cancel).await),
        started => started?,
    };
    let reached = server.reached().await.map_err(|error| feed.failed(error))?;
    let (reached, timeline) = (reached.position, reached.timeline);
    if !plan.ends().contains(&reached) || timeline <= plan.way.timeline {
        return Err(RecoveryError::Fewer {
            reached,
            timeline,
            wanted: if plan.stop.inclusive {
                plan.stop.end
            } else {
                plan.stop.lsn
            },
        }
        .into());
    }
    Ok(Recovered {
        server,
        reached,
        timeline,
        feed,
    })
}

/// What PostgreSQL gave up for, with the file of the log that is why.
async fn named(error: RecoveryError, plan: &Plan, supply: Arc<dyn Supply>, cancel: &CancellationToken) -> Error {
    match error {
        RecoveryError::Failed { problem, said } if !problem.starts_with(NOT_WHOLE) => {
            match damage(plan, supply, cancel).await {
                Ok(Some(damage)) => RecoveryError::Failed {
                    problem: format!("{damage}; {problem}"),
                    said,
                }
                .into(),
                Ok(None) => RecoveryError::Failed { problem, said }.into(),
                Err(error) => error,
            }
        }
        error => error.into(),
    }
}

impl Recovered {
    /// How a database of it is connected to: as a superuser, by its socket.
    pub fn address(&self, database: &str) -> tokio_postgres::Config {
        self.server.address(database)
    }

    /// The folder of its socket.
    pub fn sockets(&self) -> &Path {
        self.server.socket()
    }

    /// The number in the name of its socket.
    pub fn port(&self) -> u16 {
        PORT
    }

    /// The databases that can be connected to, by name.
    pub async fn databases(&self) -> Result<Vec<String>, Error> {
        self.server.databases().await.map_err(|error| self.feed.failed(error))
    }

    /// Waits until it ends by itself, and says how.
    pub async fn ended(&mut self) -> Error {
        let error = self.server.ended().await;
        self.feed.failed(error)
    }

    /// The name of a superuser.
    pub fn superuser(&self) -> &str {
        self.server.superuser()
    }

    /// The version of its programs, such as `15.6`.
    pub fn version(&self) -> &str {
        self.feed.version()
    }

    /// The major version of its programs: 15 of 15.6.
    pub fn major(&self) -> u32 {
        self.feed.major()
    }

    /// Stops it in good order: what lies in the data folder is then whole without any log.
    pub async fn stop(self) -> Result<(), Error> {
        let Self { server, feed, .. } = self;
        server.stop().await.map_err(|error| feed.failed(error))
    }
}
