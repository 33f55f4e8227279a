//! The log of real servers, held against their own files: resumed, over a change of timeline, and when a server ends.

use std::collections::BTreeMap;
use std::path::Path;

use peers::servers::postgres::Cluster;
use peers::servers::{Postgres, Release};
use replication::{Error, Event, History, Lsn, Segment, SegmentSize, SlotLifetime, SlotName, Timeline, WalStream};

use crate::{open, soon};

const SIZE: SegmentSize = SegmentSize::DEFAULT;

/// The log as it came.
#[derive(Default)]
struct Received(BTreeMap<Segment, Vec<u8>>);

impl Received {
    fn push(&mut self, timeline: Timeline, mut start: Lsn, mut data: &[u8]) {
        while !data.is_empty() {
            let segment = Segment::containing(timeline, start, SIZE);
            let content = self.0.entry(segment).or_default();
            assert_eq!(
                content.len() as u64,
                start.since(segment.start(SIZE)),
                "a gap at {start}"
            );
            let (now, later) = data.split_at(data.len().min((SIZE.bytes() as usize) - content.len()));
            content.extend_from_slice(now);
            (start, data) = (start.plus(now.len() as u64), later);
        }
    }

    /// What came is what the server wrote; how many whole segments that are.
    fn compare(&self, data: &Path) -> usize {
        for (segment, content) in &self.0 {
            let name = segment.file_name(SIZE);
            let theirs =
                std::fs::read(data.join("pg_wal").join(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(theirs[..content.len()] == content[..], "{name} differs");
        }
        self.0
            .values()
            .filter(|content| content.len() as u64 == SIZE.bytes())
            .count()
    }
}

/// Reads until `position` is received.
async fn read_to(stream: &mut WalStream, received: &mut Received, position: Lsn) {
    while stream.position() < position {
        match soon("the log", stream.next()).await.unwrap() {
            Event::Wal {
                start,
                data,
                end_of_log,
                sent_at,
            } => {
                received.push(stream.timeline(), start, &data);
                assert!(end_of_log >= start);
                let age = sent_at.elapsed().unwrap_or_default();
                assert!(age < crate::PATIENCE, "{age:?}");
            }
            Event::KeepAlive { .. } => {
                let at = stream.position();
                stream.confirm(at, at, at).await.unwrap();
            }
            other @ Event::TimelineEnds { .. } => panic!("{other:?}"),
        }
    }
}

async fn write(cluster: &Cluster) -> Lsn {
    cluster
        .run("insert into here select n, repeat(md5(n::text), 5) from generate_series(1, 60000) n")
        .await;
    cluster.switch_wal().await.parse().unwrap()
}

#[tokio::test]
async fn the_log_is_that_of_the_servers_files_and_goes_on_where_it_was_left() {
    const TEST: &str = "the_log_is_that_of_the_servers_files_and_goes_on_where_it_was_left";
    for release in Release::ALL {
        let recipe = Postgres::of(release).setting("wal_keep_size", "1GB");
        let Some(cluster) = Cluster::start(recipe, TEST).await else {
            continue;
        };
        cluster.run("create table here (n int, words text)").await;
        let name = SlotName::new("opsctl_test").unwrap();
        let mut connection = open(&cluster).await;
        connection.create_slot(&name, SlotLifetime::Permanent).await.unwrap();
        let identity = connection.identify().await.unwrap();
        let first = Segment::containing(identity.timeline, identity.flushed, SIZE);
        let mut received = Received::default();
        let mut stream = connection
            .stream(Some(&name), identity.timeline, first.start(SIZE))
            .await
            .unwrap();

        // A second reader of the slot is refused, and told so.
        let second = open(&cluster)
            .await
            .stream(Some(&name), identity.timeline, first.start(SIZE))
            .await;
        assert!(second.unwrap_err().slot_in_use());

        let position = write(&cluster).await;
        read_to(&mut stream, &mut received, position).await;
        // Dropped in the middle, with more on its way.
        write(&cluster).await;
        drop(stream);
        let whole = |received: &Received| received.0.values().filter(|c| c.len() as u64 == SIZE.bytes()).count();
        let next = first.start(SIZE).plus(whole(&received) as u64 * SIZE.bytes());
        received.0.retain(|segment, _| segment.start(SIZE) < next);
        assert!(received.compare(cluster.data()) > 0, "{release}");

        // The server notices the end of the first reader when it next writes to it.
        let mut stream = soon("the slot", async {
            loop {
                match open(&cluster).await.stream(Some(&name), identity.timeline, next).await {
                    Ok(stream) => break stream,
                    Err(error) => assert!(error.slot_in_use(), "{error}"),
                }
            }
        })
        .await;
        let position = write(&cluster).await;
        read_to(&mut stream, &mut received, position).await;
        assert!(received.compare(cluster.data()) >= 3, "{release}");

        // What is confirmed the server need not keep.
        let at = stream.position();
        stream.confirm(at, at, at).await.unwrap();
        let mut other = open(&cluster).await;
        soon("the confirmation", async {
            while other.slot(&name).await.unwrap().unwrap().restart < Some(at) {}
        })
        .await;
        let mut connection = soon("the end", stream.leave()).await.unwrap();
        assert_eq!(connection.identify().await.unwrap().system, identity.system);
        soon("the slot's end", async {
            while let Err(error) = connection.drop_slot(&name).await {
                assert!(error.slot_in_use(), "{error}");
            }
        })
        .await;
        assert_eq!(connection.slot(&name).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_promotion_is_followed_to_the_next_timeline() {
    for release in [Release::V14, Release::V15] {
        let recipe = Postgres::of(release).setting("wal_keep_size", "1GB");
        let Some(mut primary) = Cluster::start(recipe, "a_promotion_is_followed_to_the_next_timeline").await else {
            continue;
        };
        primary.run("create table here (n int, words text)").await;
        let standby = primary.standby(None).await;
        let mut connection = open(&standby).await;
        let identity = connection.identify().await.unwrap();
        let first = Segment::containing(identity.timeline, identity.flushed, SIZE);
        let mut received = Received::default();
        let mut stream = connection
            .stream(None, identity.timeline, first.start(SIZE))
            .await
            .unwrap();
        let position = write(&primary).await;
        read_to(&mut stream, &mut received, position).await;
        primary.kill();
        let promoted = async { standby.promote().await };
        let followed = async {
            loop {
                match soon("the end of the timeline", stream.next()).await.unwrap() {
                    Event::Wal { start, data, .. } => received.push(Timeline(1), start, &data),
                    Event::KeepAlive { .. } => {
                        let at = stream.position();
                        stream.confirm(at, at, at).await.unwrap();
                    }
                    Event::TimelineEnds { next, at } => break (next, at),
                }
            }
        };
        let ((next, at), ()) = tokio::join!(followed, promoted);
        assert_eq!(next, Timeline(2));
        assert_eq!(at, stream.position());
        // Asked again it says the same.
        assert_eq!(stream.next().await.unwrap(), Event::TimelineEnds { next, at });
        let mut connection = stream.leave().await.unwrap();
        let file = connection.history(next).await.unwrap();
        let theirs = std::fs::read(standby.data().join("pg_wal").join(&file.name)).unwrap();
        assert_eq!(file.content, theirs);
        let history = History::parse(&file.content).unwrap();
        assert_eq!(history.left(Timeline(1)), Some(at));

        // A stream that begins where the timeline ended has nothing to say but that.
        let mut nothing = connection.stream(None, Timeline(1), at).await.unwrap();
        assert_eq!(nothing.next().await.unwrap(), Event::TimelineEnds { next, at });
        let connection = nothing.leave().await.unwrap();

        let from = Segment::containing(next, at, SIZE);
        let mut stream = connection.stream(None, next, from.start(SIZE)).await.unwrap();
        let position = write(&standby).await;
        read_to(&mut stream, &mut received, position).await;
        // The same number exists on both, and both are as the server has them, as far as it still has the older.
        received
            .0
            .retain(|segment, _| standby.data().join("pg_wal").join(segment.file_name(SIZE)).exists());
        assert!(received.0.keys().any(|segment| segment.timeline == next));
        assert!(received.compare(standby.data()) > 0);
    }
}

#[tokio::test]
async fn the_end_of_a_server_is_told() {
    let Some(mut cluster) = Cluster::start(Postgres::default(), "the_end_of_a_server_is_told").await else {
        return;
    };
    for gently in [true, false] {
        let mut connection = open(&cluster).await;
        let identity = connection.identify().await.unwrap();
        let start = Segment::containing(identity.timeline, identity.flushed, SIZE).start(SIZE);
        let mut stream = connection.stream(None, identity.timeline, start).await.unwrap();
        let mut received = Received::default();
        read_to(&mut stream, &mut received, identity.flushed).await;
        let ended = tokio::spawn(async move {
            loop {
                match stream.next().await {
                    Ok(_) => {
                        let at = stream.position();
                        if let Err(error) = stream.confirm(at, at, at).await {
                            break error;
                        }
                    }
                    Err(error) => break error,
                }
            }
        });
        if gently {
            cluster.stop().await;
        } else {
            cluster.kill();
        }
        let error = soon("the end", ended).await.unwrap();
        assert!(error.is_unreachable() && !error.is_removed(), "{error:?}");
        if gently {
            assert!(matches!(error, Error::Stopped { .. }), "{error:?}");
        }
        cluster.start_again().await;
    }
}

#[tokio::test]
async fn what_is_dropped_while_it_waits_is_not_lost() {
    let Some(cluster) = Cluster::start(Postgres::default(), "what_is_dropped_while_it_waits_is_not_lost").await else {
        return;
    };
    cluster.run("create table here (n int, words text)").await;
    let mut connection = open(&cluster).await;
    let identity = connection.identify().await.unwrap();
    let start = Segment::containing(identity.timeline, identity.flushed, SIZE).start(SIZE);
    let mut stream = connection.stream(None, identity.timeline, start).await.unwrap();
    let mut received = Received::default();
    let position = write(&cluster).await;
    soon("the log", async {
        while stream.position() < position {
            // Polled once and dropped where nothing is there yet.
            tokio::select! {
                biased;
                event = stream.next() => {
                    if let Event::Wal { start, data, .. } = event.unwrap() {
                        received.push(identity.timeline, start, &data);
                    }
                }
                () = tokio::task::yield_now() => {}
            }
        }
    })
    .await;
    assert!(received.compare(cluster.data()) > 0);
}
