//! The log of real servers, received under writers: whole, in order, byte for byte, whoever is killed and whatever the
//! store does; and what cannot be received is said by its name.

use std::sync::atomic::Ordering;
use std::time::Duration;

use backups::pitr::postgres::receiver::{Ended, Phase, ReceiverError, Warning, slot_name};
use jiff::Timestamp;
use peers::servers::Release;
use peers::servers::postgres::Cluster;
use rand::{Rng, SeedableRng};
use replication::{Lsn, Timeline};
use tokio::process::Command;

use crate::receiver_world::{World, position, recipe, system, write_much};

fn seed(test: &str) -> rand::rngs::StdRng {
    let seed = std::env::var("OPSCTL_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(rand::random::<u64>);
    println!("{test}: OPSCTL_SEED={seed}");
    rand::rngs::StdRng::seed_from_u64(seed)
}

/// Under a writer, with segments that fill up and ones that are ended early; what is flushed is all that was
/// acknowledged, and it stays so when receiver and server have ended.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_every_release_is_received_byte_for_byte() {
    let test = "the_log_of_every_release_is_received_byte_for_byte";
    for release in Release::ALL {
        let Some(mut cluster) = Cluster::start(recipe(release), test).await else {
            continue;
        };
        let (world, system) = (World::new().await, system(&cluster).await);
        let mut receiver = world.start(world.options(&cluster.url()));
        let rows = cluster.numbered(500).await;
        write_much(&cluster).await;
        cluster.switch_wal().await;
        let row = rows.reaches(100).await;
        let before = position(&cluster).await;
        let flushed = receiver.flush().await;
        assert!(flushed >= before, "{flushed} {before}");
        let at = Timestamp::try_from(row.at).unwrap();
        let status = receiver
            .until("a moment", |status| status.complete_until.is_some())
            .await;
        assert!(status.complete_until.unwrap() >= at && status.durable >= flushed);
        assert!(
            status.warnings.contains(&Warning::SlotKeepsEverything),
            "{:?}",
            status.warnings
        );
        assert_eq!(status.system, Some(system));
        // Without being asked, what is acknowledged becomes durable in time, and the server hears of it.
        let later = rows.reaches(row.number + 100).await;
        let at = Timestamp::try_from(later.at).unwrap();
        receiver
            .until("the pulse", |status| {
                status.complete_until.is_some_and(|until| until >= at)
            })
            .await;
        let slot = receiver
            .until("the slot", |status| status.slot.is_some())
            .await
            .slot
            .unwrap();
        assert_eq!(slot.wal_status.as_deref(), Some("reserved"));
        rows.stop().await;
        // A server ends in good order only when we have all of it.
        cluster.stop().await;
        receiver
            .until("the end of the server", |status| status.phase == Phase::Waiting)
            .await;
        let end = receiver.status.borrow().durable;
        assert_eq!(receiver.stop().await, Ended::Cancelled);
        let way = world.way(system).await;
        assert!(
            way.gaps.is_empty() && way.reached >= flushed && way.reached == end,
            "{way:?}"
        );
        assert!(way.moment.is_some_and(|moment| moment >= at));
        assert!(world.is_the_log_of(&cluster, system).await >= 3);
    }
}

/// A standby takes over while the old primary is lost: the receiver follows it by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_is_followed() {
    let test = "a_promotion_is_followed";
    for release in [Release::V14, Release::V15] {
        let Some(mut primary) = Cluster::start(recipe(release), test).await else {
            continue;
        };
        let standby = primary.standby(Some("follower")).await;
        let (world, system) = (World::new().await, system(&primary).await);
        let host = |cluster: &Cluster| cluster.url().split(['@', '/']).nth(3).unwrap().to_owned();
        let address = format!(
            "postgres://postgres@{},{}/postgres?target_session_attrs=primary",
            host(&primary),
            host(&standby)
        );
        let mut receiver = world.start(world.options(&address));
        let rows = primary.numbered(500).await;
        write_much(&primary).await;
        rows.reaches(50).await;
        receiver.flush().await;
        primary.kill();
        rows.fails().await;
        standby.promote().await;
        let rows = standby.numbered(500).await;
        write_much(&standby).await;
        rows.reaches(rows.attempted() + 50).await;
        receiver
            .until("timeline 2", |status| status.timeline == Some(Timeline(2)))
            .await;
        let (before, flushed) = (position(&standby).await, receiver.flush().await);
        assert!(flushed >= before);
        assert_eq!(receiver.stop().await, Ended::Cancelled);
        let way = world.way(system).await;
        assert_eq!(way.timeline, Timeline(2));
        assert!(way.gaps.is_empty() && way.reached >= flushed, "{way:?}");
        assert!(world.is_the_log_of(&standby, system).await >= 3);
        assert!(world.is_the_log_of(&primary, system).await >= 1);
    }
}

/// The standby itself is received from, and promoted under the stream.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_over_to_the_next_timeline() {
    let test = "a_stream_goes_over_to_the_next_timeline";
    let Some(primary) = Cluster::start(recipe(Release::V15), test).await else {
        return;
    };
    let standby = primary.standby(Some("follower")).await;
    let (world, system) = (World::new().await, system(&primary).await);
    let mut receiver = world.start(world.options(&standby.url()));
    receiver
        .until("the stream", |status| status.phase == Phase::Streaming)
        .await;
    let rows = primary.numbered(500).await;
    write_much(&primary).await;
    rows.reaches(50).await;
    let known = |warning: &Warning| matches!(warning, Warning::MomentUnknown(_));
    receiver
        .until("a standby", |status| status.warnings.iter().any(known))
        .await;
    rows.stop().await;
    standby.promote().await;
    receiver
        .until("timeline 2", |status| status.timeline == Some(Timeline(2)))
        .await;
    write_much(&standby).await;
    let (before, flushed) = (position(&standby).await, receiver.flush().await);
    assert!(flushed >= before);
    receiver
        .until("the moment", |status| !status.warnings.iter().any(known))
        .await;
    receiver.stop().await;
    let way = world.way(system).await;
    assert!(
        way.timeline == Timeline(2) && way.gaps.is_empty() && way.reached >= flushed,
        "{way:?}"
    );
    assert!(world.is_the_log_of(&standby, system).await >= 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_is_received_again() {
    let test = "a_server_that_is_killed_is_received_again";
    let Some(mut cluster) = Cluster::start(recipe(Release::V15), test).await else {
        return;
    };
    let (world, system) = (World::new().await, system(&cluster).await);
    let receiver = world.start(world.options(&cluster.url()));
    for round in 1..=3 {
        let rows = cluster.numbered(1000).await;
        write_much(&cluster).await;
        rows.reaches(rows.attempted() + 20).await;
        receiver.flush().await;
        cluster.kill();
        rows.fails().await;
        cluster.start_again().await;
        let (before, flushed) = (position(&cluster).await, receiver.flush().await);
        assert!(flushed >= before, "round {round}");
    }
    receiver.stop().await;
    let way = world.way(system).await;
    assert!(way.gaps.is_empty(), "{way:?}");
    assert!(world.is_the_log_of(&cluster, system).await >= 3);
}

/// However often the receiver dies, and wherever: what it left is gone on with, and nothing is missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_killed_leaves_nothing_out() {
    let test = "a_receiver_that_is_killed_leaves_nothing_out";
    let mut random = seed(test);
    let Some(cluster) = Cluster::start(recipe(Release::V15), test).await else {
        return;
    };
    let (world, system) = (World::new().await, system(&cluster).await);
    let mut options = world.options(&cluster.url());
    // The server has not noticed yet that the one before is gone.
    options.slot_patience = Duration::from_secs(30);
    let rows = cluster.numbered(1000).await;
    for _ in 0..10 {
        let mut receiver = world.start(options.clone());
        let begun = receiver
            .until("the stream", |status| status.phase == Phase::Streaming)
            .await;
        write_much(&cluster).await;
        let some = begun.durable.plus(random.random_range(0..2 << 20));
        receiver.until("some of the log", |status| status.received > some).await;
        drop(receiver);
    }
    let receiver = world.start(options);
    let last = rows.stop().await.unwrap();
    let (before, flushed) = (position(&cluster).await, receiver.flush().await);
    assert!(flushed >= before && last.number > 10);
    receiver.stop().await;
    let way = world.way(system).await;
    assert!(way.gaps.is_empty() && way.reached >= flushed, "{way:?}");
    assert!(world.is_the_log_of(&cluster, system).await >= 10);
}

/// The server gave up on the slot: the gap has a name and an end, and what comes after it is received.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_slot_is_a_gap() {
    let test = "a_lost_slot_is_a_gap";
    for release in Release::ALL {
        let recipe = recipe(release)
            .setting("wal_keep_size", "0")
            .setting("max_slot_wal_keep_size", "24MB");
        let recipe = recipe.setting("max_wal_size", "2MB").setting("min_wal_size", "2MB");
        let Some(cluster) = Cluster::start(recipe, test).await else {
            continue;
        };
        let (world, system) = (World::new().await, system(&cluster).await);
        let receiver = world.start(world.options(&cluster.url()));
        write_much(&cluster).await;
        receiver.flush().await;
        assert!(
            !receiver
                .status
                .borrow()
                .warnings
                .contains(&Warning::SlotKeepsEverything)
        );
        receiver.stop().await;
        let reached = world.way(system).await.reached;
        let client = cluster.connect().await.unwrap();
        let lost = "select count(*) from pg_replication_slots where wal_status = 'lost'";
        let mut rounds = 0;
        while client.query_one(lost, &[]).await.unwrap().get::<_, i64>(0) == 0 {
            rounds += 1;
            assert!(rounds < 40, "{release:?}: the slot is kept");
            write_much(&cluster).await;
            cluster.run("checkpoint").await;
        }
        let lost = match world.start(world.options(&cluster.url())).ended().await {
            Ok(Ended::Gap(lost)) => lost,
            other => panic!("{release:?}: {other:?}"),
        };
        assert!(lost.from == reached && lost.until > lost.from, "{lost} {reached}");
        assert_eq!(world.archive.gaps(system).await.unwrap(), [lost]);
        let receiver = world.start(world.options(&cluster.url()));
        write_much(&cluster).await;
        let flushed = receiver.flush().await;
        receiver.stop().await;
        let way = world.way(system).await;
        assert!(way.reached == reached && way.moment.is_none(), "{way:?}");
        let [gap] = &way.gaps[..] else { panic!("{:?}", way.gaps) };
        assert_eq!((gap.from, gap.until), (lost.from, lost.until));
        assert!(way.reaches(flushed).is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_the_cluster_of_the_archive_is_refused() {
    let test = "who_is_not_the_cluster_of_the_archive_is_refused";
    let folder = tempfile::tempdir().unwrap();
    peers_may_enter(folder.path());
    let data = folder.path().join("cluster");
    let Some(mut cluster) = Cluster::start(recipe(Release::V15).data(&data), test).await else {
        return;
    };
    cluster.stop().await;
    let copy = folder.path().join("copy");
    let copied = Command::new("cp")
        .arg("-a")
        .args([&data, &copy])
        .status()
        .await
        .unwrap();
    assert!(copied.success());
    cluster.start_again().await;
    let (world, ours) = (World::new().await, system(&cluster).await);
    let receiver = world.start(world.options(&cluster.url()));
    write_much(&cluster).await;
    let flushed = receiver.flush().await;

    // Another one that uses the slot is named.
    let error = world.start(world.options(&cluster.url())).ended().await.unwrap_err();
    let ReceiverError::SlotInUse { slot, said } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(*slot, slot_name(world.archive.datastore()));
    let holder = cluster.run("select active_pid from pg_replication_slots").await;
    assert!(said.contains(&holder), "{said} {holder}");
    receiver.stop().await;

    // The same cluster as it was before.
    cluster.wipe();
    std::fs::rename(&copy, &data).unwrap();
    cluster.start_again().await;
    let error = world.start(world.options(&cluster.url())).ended().await.unwrap_err();
    match &error {
        ReceiverError::Ahead { archive, server } => assert!(archive.lsn >= flushed && server.lsn < flushed, "{error}"),
        other => panic!("{other:?}"),
    }

    let Some(other) = Cluster::start(recipe(Release::V15), test).await else {
        return;
    };
    let theirs = system(&other).await;
    let error = world.start(world.options(&other.url())).ended().await.unwrap_err();
    match &error {
        ReceiverError::Foreign { archive, server } => assert_eq!((*archive, *server), (ours, theirs)),
        other => panic!("{other:?}"),
    }
    assert!(error.to_string().contains(&ours.to_string()) && error.to_string().contains(&theirs.to_string()));
    let contents = world.archive.list().await.unwrap();
    assert_eq!(contents.systems.keys().copied().collect::<Vec<_>>(), [ours]);
}

/// The server's user goes through it.
fn peers_may_enter(folder: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// A store that hangs and then fails keeps the server from nothing but forgetting: memory stays bounded, the connection
/// stays up for longer than the server bears silence, and nothing is confirmed.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_holds_up_and_loses_nothing() {
    let test = "a_store_that_fails_holds_up_and_loses_nothing";
    let recipe = recipe(Release::V15).setting("wal_sender_timeout", "1s");
    let Some(cluster) = Cluster::start(recipe, test).await else {
        return;
    };
    let (world, system) = (World::new().await, system(&cluster).await);
    let mut options = world.options(&cluster.url());
    options.in_flight = 2;
    let mut receiver = world.start(options);
    let flushed = receiver.flush().await;
    let sender = "select pid from pg_stat_replication where state = 'streaming'";
    let pid = cluster.run(sender).await;
    world.gate.holds.send_replace(true);
    for _ in 0..4 {
        write_much(&cluster).await;
    }
    let held = receiver.until("the back-pressure", |status| status.uploads >= 2).await;
    assert!(held.durable <= flushed.plus(1 << 20));
    // Three times as long as the server bears silence, it hears from us.
    let first = cluster.run("select max(reply_time) from pg_stat_replication").await;
    let heard =
        format!("select bool_or(reply_time > '{first}'::timestamptz + interval '3 s') from pg_stat_replication");
    let hears = async { while cluster.run(&heard).await != "t" {} };
    tokio::time::timeout(Duration::from_secs(30), hears)
        .await
        .expect("the server hears from us");
    assert_eq!(cluster.run(sender).await, pid, "the connection was kept");
    assert!(
        world.gate.most.load(Ordering::SeqCst) <= 4,
        "not more than two, a partial and a record at one time"
    );
    let restart: Lsn = cluster
        .run("select restart_lsn from pg_replication_slots")
        .await
        .parse()
        .unwrap();
    assert!(restart <= held.durable, "{restart} is not durable");

    world.gate.fails.store(true, Ordering::SeqCst);
    world.gate.holds.send_replace(false);
    receiver.until("the error", |status| status.last_error.is_some()).await;
    let restart: Lsn = cluster
        .run("select restart_lsn from pg_replication_slots")
        .await
        .parse()
        .unwrap();
    assert!(restart <= receiver.status.borrow().durable);
    world.gate.fails.store(false, Ordering::SeqCst);
    let (before, flushed) = (position(&cluster).await, receiver.flush().await);
    assert!(flushed >= before);
    receiver.until("no error", |status| status.last_error.is_none()).await;
    receiver.stop().await;
    let way = world.way(system).await;
    assert!(way.gaps.is_empty() && way.reached >= flushed, "{way:?}");
    assert!(world.is_the_log_of(&cluster, system).await >= 3);
}
