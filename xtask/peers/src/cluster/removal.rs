//! How a cluster is ended, whatever state it is in.

use std::{path::Path, time::Duration};

use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use super::{
    ClusterError, While, database, machine, processes,
    start::{ASIDE, LOOK_EVERY},
};

/// How long PostgreSQL may take to end and give back what it shares with its children.
const DATABASE_ENDS_WITHIN: Duration = Duration::from_secs(10);

/// Ends every process of the cluster in `folder` and removes everything of it.
pub(super) async fn remove(folder: &Path) -> Result<(), ClusterError> {
    let _alone = ASIDE.write().await;
    // PostgreSQL gives back the memory that it shares with its children only when it is asked to end.
    processes::signal(folder, Signal::QUIT, |member| member.part == "postgres");
    let deadline = Instant::now() + DATABASE_ENDS_WITHIN;
    let database = |folder| {
        processes::members(folder)
            .iter()
            .any(|member| member.part == "postgres")
    };
    while database(folder) && Instant::now() < deadline {
        sleep(LOOK_EVERY).await;
    }
    let ended = machine::until("every process of the cluster ends", || {
        processes::signal(folder, Signal::KILL, |_| true);
        processes::members(folder).is_empty()
    });
    ended.await.while_to("end the cluster's processes")?;
    machine::restore(folder)
        .await
        .while_to("put the machine back as it was")?;
    database::remove_data().while_to("remove the database")?;
    machine::remove(folder).while_to("remove the cluster's folder")
}
