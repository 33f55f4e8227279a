//! Slots of real servers: made, seen, lost.

use peers::servers::postgres::Cluster;
use peers::servers::{Postgres, Release};
use replication::{Address, Segment, SegmentSize, SlotLifetime, SlotName, Sql};

use crate::{open, soon};

#[tokio::test]
async fn slots_are_made_seen_and_dropped() {
    for release in Release::ALL {
        let Some(cluster) = Cluster::start(Postgres::of(release), "slots_are_made_seen_and_dropped").await else {
            continue;
        };
        let (kept, passing) = (SlotName::new("kept").unwrap(), SlotName::new("passing").unwrap());
        let mut connection = open(&cluster).await;
        assert_eq!(connection.slot(&kept).await.unwrap(), None);
        connection.create_slot(&kept, SlotLifetime::Permanent).await.unwrap();
        let error = connection
            .create_slot(&kept, SlotLifetime::Permanent)
            .await
            .unwrap_err();
        assert!(error.exists(), "{error}");
        connection.create_slot(&passing, SlotLifetime::Temporary).await.unwrap();
        let identity = connection.identify().await.unwrap();
        let slot = connection.slot(&kept).await.unwrap().unwrap();
        // It keeps the log from now on, though nobody read from it yet.
        let restart = slot.restart.unwrap();
        assert!(restart <= identity.flushed && identity.flushed.since(restart) < SegmentSize::DEFAULT.bytes());
        if release >= Release::V15 {
            assert_eq!(slot.timeline, Some(identity.timeline));
        }
        assert!(connection.slot(&passing).await.unwrap().is_some());

        let mut sql = Sql::open(&Address::parse(&cluster.url()).unwrap(), "test")
            .await
            .unwrap();
        let state = sql.slot(&kept).await.unwrap().unwrap();
        assert_eq!((state.slot.restart, state.active), (Some(restart), false));
        assert_eq!(state.wal_status.as_deref(), Some("reserved"));
        assert_eq!(state.safe_wal_size, None);

        drop(connection);
        let mut connection = open(&cluster).await;
        soon("the end of the temporary slot", async {
            while connection.slot(&passing).await.unwrap().is_some() {}
        })
        .await;
        connection.drop_slot(&kept).await.unwrap();
        assert!(connection.drop_slot(&kept).await.unwrap_err().is_missing());
        assert_eq!(sql.slot(&kept).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_slot_that_lost_its_log_is_told() {
    for release in Release::ALL {
        let recipe = Postgres::of(release)
            .setting("max_slot_wal_keep_size", "1MB")
            .setting("min_wal_size", "32MB")
            .setting("max_wal_size", "32MB")
            .setting("wal_keep_size", "0");
        let Some(cluster) = Cluster::start(recipe, "a_slot_that_lost_its_log_is_told").await else {
            continue;
        };
        let name = SlotName::new("slow").unwrap();
        let mut connection = open(&cluster).await;
        let identity = connection.identify().await.unwrap();
        connection.create_slot(&name, SlotLifetime::Permanent).await.unwrap();
        let mut sql = Sql::open(&Address::parse(&cluster.url()).unwrap(), "test")
            .await
            .unwrap();
        assert!(sql.slot(&name).await.unwrap().unwrap().safe_wal_size.is_some());
        soon("the loss", async {
            while sql.slot(&name).await.unwrap().unwrap().wal_status.as_deref() != Some("lost") {
                cluster.run("create table if not exists here (n int)").await;
                cluster.run("insert into here values (1)").await;
                cluster.switch_wal().await;
                cluster.run("checkpoint").await;
            }
        })
        .await;
        let start = Segment::containing(identity.timeline, identity.flushed, SegmentSize::DEFAULT);
        let start = start.start(SegmentSize::DEFAULT);
        for slot in [Some(&name), None] {
            let stream = open(&cluster).await.stream(slot, identity.timeline, start).await;
            let error = match stream {
                Err(error) => error,
                Ok(mut stream) => {
                    soon("the refusal", async {
                        loop {
                            if let Err(error) = stream.next().await {
                                break error;
                            }
                        }
                    })
                    .await
                }
            };
            assert!(error.is_removed() && !error.is_unreachable(), "{release}: {error:?}");
        }
        // No restart position any more, or one that is told to be lost.
        let state = sql.slot(&name).await.unwrap().unwrap();
        assert_eq!(state.wal_status.as_deref(), Some("lost"));
    }
}
