//! PostgreSQL's log as real servers write it, read by ours: record by record against `pg_waldump`, times against what the
//! server says of its commits, and positions against where a recovery of the server's own stops.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use backups::pitr::postgres::contents::Held;
use backups::pitr::postgres::reach::{self, Base, Branch, Piece, Way};
use backups::pitr::postgres::search::{self, AtTime, Log, MARGIN, SearchError, Stop};
use backups::pitr::postgres::wal::mark::{Kind, Mark};
use backups::pitr::postgres::wal::{self, Expected, Fault, Reader};
use bytes::Bytes;
use jiff::Timestamp;
use peers::servers::Release;
use peers::servers::postgres::{Cluster, Postgres};
use replication::{History, Lsn, Segment, SegmentSize, SystemId, Timeline};
use tokio::process::Command;

fn size() -> SegmentSize {
    SegmentSize::new(1 << 20).unwrap()
}

fn recipe(release: Release) -> Postgres {
    Postgres::of(release)
        .made_with("--wal-segsize=1")
        .setting("max_prepared_transactions", "10")
        .setting("track_commit_timestamp", "on")
        .setting("autovacuum", "off")
        // Nothing of the log is removed.
        .setting("wal_keep_size", "1GB")
        .setting("min_wal_size", "8MB")
}

/// A bit of everything that ends up in a log.
async fn work(cluster: &Cluster) {
    cluster
        .run("create table kept (n bigint, x xid8 default pg_current_xact_id(), t text)")
        .await;
    cluster
        .run("create table wide (t text); alter table wide alter t set storage external")
        .await;
    let writers = (0..4).map(|writer| async move {
        for round in 0..25 {
            cluster
                .run(&format!("insert into kept values ({writer} * 1000 + {round})"))
                .await;
            cluster
                .run("begin; insert into kept values (-1); savepoint a; insert into kept values (-2); rollback")
                .await;
            cluster
                .run("begin; insert into kept values (0); savepoint a; insert into kept values (0); commit")
                .await;
        }
    });
    futures::future::join_all(writers).await;
    cluster.restore_point("before the deploy").await;
    // Records over many pages, one over several segments, full pages after a checkpoint.
    cluster
        .run("insert into wide select string_agg(md5(n::text), '') from generate_series(1, 60000) n")
        .await;
    cluster
        .run("select pg_logical_emit_message(false, 'test', repeat('x', 3000000))")
        .await;
    cluster.run("checkpoint").await;
    cluster.run("update kept set t = repeat('y', 100)").await;
    for (name, end) in [("one", "commit"), ("two", "rollback")] {
        cluster
            .run(&format!(
                "begin; insert into kept values (7); prepare transaction '{name}'"
            ))
            .await;
        cluster.run(&format!("{end} prepared '{name}'")).await;
    }
    cluster.run("select pg_replication_origin_create('elsewhere')").await;
    cluster
        .run(
            "select pg_replication_origin_session_setup('elsewhere');
             begin; select pg_replication_origin_xact_setup('0/1', now()); insert into kept values (8); commit",
        )
        .await;
    cluster.run("create database other").await;
    cluster.run("drop database other").await;
    cluster.run("create index on wide (md5(t)); drop table wide").await;
    cluster.switch_wal().await;
    cluster.run("insert into kept values (9)").await;
    cluster.restore_point("before the deploy").await;
    cluster.run("vacuum kept").await;
    cluster.run("insert into kept values (10)").await;
}

/// The files of a server's log, by the names of their segments.
fn files(log: &Path) -> BTreeMap<Segment, Vec<u8>> {
    let names = fs::read_dir(log).unwrap().map(|entry| entry.unwrap());
    let segments = names.filter_map(|entry| {
        let segment = Segment::parse(entry.file_name().to_str()?, size()).ok()?;
        Some((segment, fs::read(entry.path()).unwrap()))
    });
    segments.collect()
}

struct Seen {
    start: Lsn,
    length: u32,
    transaction: u32,
    mark: Option<Mark>,
}

/// All records from the oldest file up to `until`.
fn read(files: &BTreeMap<Segment, Vec<u8>>, expected: Expected, until: Lsn) -> Result<Vec<Seen>, Fault> {
    let first = files.keys().next().unwrap().start(size());
    let mut reader = Reader::new(first, expected);
    let mut seen = Vec::new();
    for (segment, content) in files {
        let start = segment.start(size());
        assert!(
            reader.at() == start || start >= until,
            "{start} follows on {}",
            reader.at()
        );
        let length = content.len().min(until.since(start) as usize);
        // As it comes over the network.
        for piece in content[..length].chunks(100_003) {
            reader.push(piece, |record| {
                seen.push(Seen {
                    start: record.extent.start,
                    length: record.length,
                    transaction: record.transaction,
                    mark: Mark::of(record),
                });
            })?;
        }
    }
    assert_eq!(reader.unfinished(), None, "the server flushed whole records");
    Ok(seen)
}

async fn end_of(cluster: &Cluster) -> Lsn {
    // A commit that is waited for is flushed.
    cluster.run("insert into kept values (11)").await;
    cluster.position().await.parse().unwrap()
}

async fn system_of(cluster: &Cluster) -> SystemId {
    SystemId(cluster.system_identifier().await)
}

fn expected(system: SystemId, timeline: u32, history: Option<History>) -> Expected {
    Expected {
        system: Some(system),
        segment_size: size(),
        timeline: Timeline(timeline),
        history,
    }
}

/// As `pg_waldump` and a server set to UTC write it.
fn time(text: &str) -> Timestamp {
    let civil = text.trim().trim_end_matches("+00").trim_end_matches(" UTC");
    format!("{}Z", civil.replace(' ', "T")).parse().unwrap()
}

/// Lines such as `rmgr: Heap len (rec/tot): 54/ 143, tx: 735, lsn: 0/0152D008, prev 0/0152CFD8, desc: …`.
fn dumped(line: &str) -> (Lsn, u32, u32, &str) {
    let field = |name: &str| {
        let (_, rest) = line.split_once(name).unwrap_or_else(|| panic!("{name} in {line}"));
        rest.split(',').next().unwrap().trim()
    };
    let length = field("len (rec/tot):").split_once('/').unwrap().1.trim();
    let (_, told) = line.split_once("desc: ").unwrap();
    (
        field("lsn:").parse().unwrap(),
        length.parse().unwrap(),
        field("tx:").parse().unwrap(),
        told,
    )
}

#[tokio::test]
async fn every_record_is_read_as_pg_waldump_reads_it() {
    let Some(cluster) = Cluster::start(recipe(Release::V15), "every_record_is_read_as_pg_waldump_reads_it").await
    else {
        return;
    };
    work(&cluster).await;
    let (end, system) = (end_of(&cluster).await, system_of(&cluster).await);
    let log = cluster.data().join("pg_wal");
    let files = files(&log);
    let seen = read(&files, expected(system, 1, None), end).unwrap();
    let dump = Command::new(Release::V15.client("pg_waldump").unwrap())
        .env("TZ", "UTC")
        .arg("-p")
        .arg(&log)
        .args(["-s", &seen[0].start.to_string(), "-e", &end.to_string()])
        .output()
        .await
        .unwrap();
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    let text = String::from_utf8_lossy(&dump.stdout);
    let lines: Vec<_> = text.lines().map(dumped).collect();
    assert_eq!(lines.len(), seen.len());
    assert!(lines.len() > 2000, "{} records", lines.len());
    let mut kinds = BTreeMap::<String, u32>::new();
    for ((start, length, transaction, told), ours) in lines.into_iter().zip(&seen) {
        assert_eq!(
            (ours.start, ours.length, ours.transaction),
            (start, length, transaction),
            "{told}"
        );
        let (word, rest) = told.split_once(' ').unwrap_or((told, ""));
        let mark = ours.mark.as_ref();
        let kind = match word {
            "COMMIT" | "ABORT" => {
                let when = rest.split(';').next().unwrap();
                assert_eq!(mark.unwrap().time, Some(time(when)), "{told}");
                if word == "COMMIT" { Kind::Commit } else { Kind::Abort }
            }
            "COMMIT_PREPARED" | "ABORT_PREPARED" => {
                let when = rest.split_once(": ").unwrap().1.split(';').next().unwrap();
                assert_eq!(mark.unwrap().time, Some(time(when)), "{told}");
                if word == "COMMIT_PREPARED" {
                    Kind::Commit
                } else {
                    Kind::Abort
                }
            }
            "RESTORE_POINT" => Kind::RestorePoint { name: rest.to_owned() },
            "CHECKPOINT_ONLINE" | "CHECKPOINT_SHUTDOWN" => {
                let redo = rest.strip_prefix("redo ").unwrap().split(';').next().unwrap();
                let shutdown = word == "CHECKPOINT_SHUTDOWN";
                let (timeline, previous) = (Timeline::FIRST, Timeline::FIRST);
                Kind::Checkpoint {
                    shutdown,
                    redo: redo.parse().unwrap(),
                    timeline,
                    previous,
                }
            }
            "SWITCH" => Kind::Switch,
            _ => {
                assert_eq!(mark, None, "{told}");
                continue;
            }
        };
        assert_eq!(mark.map(|mark| &mark.kind), Some(&kind), "{told}");
        *kinds.entry(word.to_owned()).or_default() += 1;
    }
    let words: Vec<_> = kinds.keys().map(String::as_str).collect();
    let all = [
        "ABORT",
        "ABORT_PREPARED",
        "CHECKPOINT_ONLINE",
        "CHECKPOINT_SHUTDOWN",
        "COMMIT",
        "COMMIT_PREPARED",
        "RESTORE_POINT",
        "SWITCH",
    ];
    assert_eq!(words, all, "{kinds:?}");
}

/// Each version's log: the times of commits as the server itself tells them, each file alone, and what is refused.
#[tokio::test]
async fn each_version_is_read() {
    for release in Release::ALL {
        let Some(mut cluster) = Cluster::start(recipe(release), "each_version_is_read").await else {
            continue;
        };
        work(&cluster).await;
        let (end, system) = (end_of(&cluster).await, system_of(&cluster).await);
        let told = cluster
            .run(
                "select string_agg(distinct concat_ws(' ', x, (extract(epoch from pg_xact_commit_timestamp(x::xid)) * 1000000)::bigint), ',')
                 from kept where n <> 8",
            )
            .await;
        let files = files(&cluster.data().join("pg_wal"));
        let seen = read(&files, expected(system, 1, None), end).unwrap();
        let commits = seen.iter().filter_map(|seen| {
            let mark = seen.mark.as_ref().filter(|mark| mark.kind == Kind::Commit)?;
            Some((u64::from(seen.transaction), mark.time?.as_microsecond()))
        });
        let commits: BTreeMap<u64, i64> = commits.collect();
        let mut compared = 0;
        for row in told.split(',') {
            let (transaction, time) = row.split_once(' ').unwrap();
            // That of a prepared one stands deeper in its record. What came from elsewhere keeps the time of there.
            if let Some(ours) = commits.get(&transaction.parse().unwrap()) {
                assert_eq!(ours.to_string(), time, "{release}: transaction {transaction}");
                compared += 1;
            }
        }
        assert!(compared > 150, "{compared}");

        let mut whole = 0;
        for (segment, content) in &files {
            let check = |expected: &Expected| wal::check_segment(content, *segment, expected);
            if segment.end(size()) <= end {
                let checked = check(&expected(system, 1, None)).unwrap();
                assert_eq!((checked.major, checked.system), (release.major(), system));
                whole += 1;
                let foreign = check(&expected(SystemId(system.0 ^ 1), 1, None)).unwrap_err();
                assert!(
                    matches!(foreign, Fault::System { found, .. } if found == system),
                    "{foreign}"
                );
                let elsewhere = wal::check_segment(content, segment.next(), &expected(system, 1, None)).unwrap_err();
                assert!(matches!(elsewhere, Fault::Address { .. }), "{elsewhere}");
            } else if segment.start(size()) <= end {
                wal::check_until(content, *segment, end, &expected(system, 1, None)).unwrap();
                let truncated = check(&expected(system, 1, None)).unwrap_err();
                assert!(
                    matches!(truncated, Fault::Truncated { .. } | Fault::Address { .. }),
                    "{truncated}"
                );
            } else {
                // A file that is kept to be used again: empty, or with what another segment once held.
                let recycled = check(&expected(system, 1, None)).unwrap_err();
                assert!(
                    matches!(recycled, Fault::Truncated { .. } | Fault::Address { .. }),
                    "{recycled}"
                );
            }
        }
        assert!(whole > 5, "{whole} whole segments");

        // What is zero behind the end is the end, after a crash as well.
        cluster.kill();
        cluster.start_again().await;
        let end = end_of(&cluster).await;
        let files = self::files(&cluster.data().join("pg_wal"));
        read(&files, expected(system, 1, None), end).unwrap();
    }
}

/// A server is promoted in the middle of a segment, and the old one goes on.
#[tokio::test]
async fn a_promotion_is_followed_as_its_history_says() {
    let test = "a_promotion_is_followed_as_its_history_says";
    for release in [Release::V14, Release::V15] {
        let Some(primary) = Cluster::start(recipe(release), test).await else {
            continue;
        };
        work(&primary).await;
        let standby = primary.standby(None).await;
        let (position, system) = (end_of(&primary).await, system_of(&primary).await);
        let reached = format!("select pg_last_wal_replay_lsn() >= '{position}'");
        eventually(|| async { standby.run(&reached).await == "t" }).await;
        standby.promote().await;
        // A checkpoint, so that the end of recovery is in the log, too.
        standby.run("checkpoint").await;
        standby
            .run("insert into kept select 12 from generate_series(1, 20000)")
            .await;
        primary
            .run("insert into kept select 13 from generate_series(1, 20000)")
            .await;
        let (old_end, end) = (end_of(&primary).await, end_of(&standby).await);
        let (old_log, log) = (primary.data().join("pg_wal"), standby.data().join("pg_wal"));
        let history = History::parse(&fs::read(log.join("00000002.history")).unwrap()).unwrap();
        let switch = history.left(Timeline(1)).unwrap();

        let mut new: BTreeMap<_, _> = files(&log);
        new.retain(|segment, _| segment.timeline == Timeline(2));
        let first = *new.keys().next().unwrap();
        assert_eq!(first.number, Segment::containing(Timeline(2), switch, size()).number);
        for history in [None, Some(history.clone())] {
            let seen = read(&new, expected(system, 2, history), end).unwrap();
            let ended = seen.iter().find_map(|seen| match seen.mark.as_ref()?.kind {
                Kind::EndOfRecovery { timeline, previous } => Some((seen.start, timeline, previous)),
                _ => None,
            });
            let (start, timeline, previous) = ended.unwrap();
            assert!(
                start >= switch && start.since(switch) <= 40,
                "{start} is the first behind {switch}"
            );
            assert_eq!((timeline, previous), (Timeline(2), Timeline(1)));
        }
        // The old server's file of that number, and the new one's under a history that turned off elsewhere.
        let old = files(&old_log);
        let of_old = wal::check_segment(
            &old[&Segment {
                timeline: Timeline(1),
                ..first
            }],
            first,
            &expected(system, 2, Some(history.clone())),
        );
        assert!(matches!(of_old, Err(Fault::Timeline { .. })), "{of_old:?}");
        let elsewhere = History::parse(b"1\t0/100028\twhy").unwrap();
        let other = wal::check_segment(&new[&first], first, &expected(system, 2, Some(elsewhere)));
        assert!(matches!(other, Err(Fault::Timeline { .. })), "{other:?}");

        // Both servers' files in one archive: the way goes over the switch, and the old end is on none of it.
        let mut all = old;
        all.retain(|segment, _| segment.end(size()) <= old_end);
        all.extend(new);
        let mut held = Held {
            segment_size: size(),
            ..Held::default()
        };
        for segment in all.keys() {
            let ends = if segment.timeline == Timeline(1) { old_end } else { end };
            if segment.end(size()) <= ends {
                held.segments.insert(*segment);
            } else if segment.start(size()) < ends {
                held.partials.insert(*segment, ends);
            }
        }
        held.histories.insert(Timeline(2), history);
        let start = all.keys().next().unwrap().start(size());
        let base = Base {
            start,
            timeline: Timeline(1),
            end: start,
            end_timeline: Timeline(1),
        };
        let way = reach::way(&held, &base, Branch::Newest).unwrap();
        assert_eq!((way.reached, way.gaps.len()), (end, 0));
        let last = search::position_of_end(&Files(all), &way, system).await.unwrap();
        assert_eq!(last.end, end);
    }
}

/// Files in memory.
struct Files(BTreeMap<Segment, Vec<u8>>);

#[async_trait]
impl Log for Files {
    type Error = Infallible;

    async fn read(&self, piece: &Piece) -> Result<Bytes, Infallible> {
        Ok(self.0[&piece.segment].clone().into())
    }
}

/// Until something is so, for at most a minute.
async fn eventually<F: Future<Output = bool>>(mut is_so: impl FnMut() -> F) {
    let waits = async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), waits)
        .await
        .expect("within a minute");
}

/// Copies a stopped cluster.
async fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status().await.unwrap();
    assert!(copied.success());
}

/// A server that recovers from a cold copy, and how many bytes it replayed, what it has, and what it says of why it stopped.
async fn recovered(
    release: Release,
    cold: &Path,
    log: &Path,
    settings: &[(&str, &str)],
    test: &str,
) -> (Lsn, String, String) {
    let folder = tempfile::tempdir().unwrap();
    open_to_all(folder.path());
    let data = folder.path().join("data");
    copy(cold, &data).await;
    fs::write(data.join("recovery.signal"), "").unwrap();
    let restore = format!("cp {}/%f %p", log.display());
    let mut recipe = recipe(release)
        .data(&data)
        .setting("restore_command", &restore)
        .setting("recovery_target_timeline", "1")
        .setting("recovery_target_action", "pause")
        .setting("log_timezone", "UTC");
    for (name, value) in settings {
        recipe = recipe.setting(name, value);
    }
    let cluster = Cluster::start(recipe, test).await.expect("it was there a moment ago");
    eventually(|| async { cluster.run("select pg_get_wal_replay_pause_state()").await == "paused" }).await;
    let replayed = cluster.run("select pg_last_wal_replay_lsn()").await.parse().unwrap();
    let rows = cluster
        .run("select count(*) || ' ' || sum(n) || ' ' || max(x::text::bigint) from kept")
        .await;
    let stops = cluster.server().log();
    let stops = stops
        .lines()
        .find(|line| line.contains("recovery stopping"))
        .unwrap_or_default()
        .to_owned();
    (replayed, rows, stops)
}

fn open_to_all(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The settings that a stop stands for.
fn settings(stop: &Stop) -> [(&'static str, String); 2] {
    let inclusive = if stop.inclusive { "on" } else { "off" };
    [
        ("recovery_target_lsn", stop.lsn.to_string()),
        ("recovery_target_inclusive", inclusive.to_owned()),
    ]
}

/// The files up to a position, laid out for `restore_command`, and the way over them.
fn archive(cluster: &Cluster, to: &Path, from: Lsn, until: Lsn) -> (Files, Way) {
    let mut held = Held {
        segment_size: size(),
        ..Held::default()
    };
    let mut contents = BTreeMap::new();
    for (segment, mut content) in files(&cluster.data().join("pg_wal")) {
        let start = segment.start(size());
        if start >= until {
            continue;
        }
        if segment.end(size()) <= until {
            held.segments.insert(segment);
        } else {
            held.partials.insert(segment, until);
            content[until.since(start) as usize..].fill(0);
        }
        fs::write(to.join(segment.file_name(size())), &content).unwrap();
        contents.insert(segment, content);
    }
    let base = Base {
        start: from,
        timeline: Timeline(1),
        end: from,
        end_timeline: Timeline(1),
    };
    (Files(contents), reach::way(&held, &base, Branch::Newest).unwrap())
}

/// A recovery to a time, as PostgreSQL finds it, stops exactly at the position that is found here; so does a recovery to that
/// position; and likewise for a name and for the end.
#[tokio::test]
async fn a_recovery_stops_where_the_search_says() {
    let test = "a_recovery_stops_where_the_search_says";
    for release in Release::ALL {
        let Some(mut cluster) = Cluster::start(recipe(release), test).await else {
            continue;
        };
        let from: Lsn = cluster
            .run("select redo_lsn from pg_control_checkpoint()")
            .await
            .parse()
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        open_to_all(folder.path());
        cluster.stop().await;
        let cold = folder.path().join("cold");
        copy(cluster.data(), &cold).await;
        cluster.start_again().await;
        work(&cluster).await;
        let until = end_of(&cluster).await;
        let system = system_of(&cluster).await;
        let log: PathBuf = folder.path().join("log");
        fs::create_dir(&log).unwrap();
        open_to_all(&log);
        let (files, way) = archive(&cluster, &log, from, until);
        drop(cluster);

        let seen = read(&files.0, expected(system, 1, None), until).unwrap();
        let commits: Vec<_> = seen
            .iter()
            .filter_map(|seen| seen.mark.as_ref())
            .filter(|mark| mark.kind.ends_transaction())
            .collect();
        let time = commits[commits.len() / 2].time.unwrap();
        let AtTime::Before(stop) = search::position_of_time(&files, &way, system, time, MARGIN)
            .await
            .unwrap()
        else {
            panic!("there are later ones")
        };
        // It knows no abbreviations of zones yet when it reads its settings, not even `Z`.
        let by_time = [("recovery_target_time", time.strftime("%F %T%.6f+00").to_string())];
        let named = search::position_of_name(&files, &way, system, "before the deploy")
            .await
            .unwrap();
        let by_name = [("recovery_target_name", "before the deploy".to_owned())];
        let mut ends = Vec::new();
        for (stop, theirs) in [(stop, &by_time[..]), (named.stop, &by_name[..])] {
            let mut told = Vec::new();
            for settings in [theirs, &settings(&stop)[..]] {
                let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
                told.push(recovered(release, &cold, &log, &settings, test).await);
            }
            let [(replayed, rows, why), (again, same, _)] = &told[..] else {
                panic!("two recoveries")
            };
            assert_eq!((replayed, rows), (again, same), "{release}: {why}");
            let expected = if stop.inclusive { stop.end } else { stop.lsn };
            // The end of the record before, and behind it at most what fills up and the header of a page.
            assert!(
                *replayed <= expected && expected.since(*replayed) <= 48,
                "{release}: {replayed} {expected}"
            );
            ends.push(rows.clone());
        }
        let end = search::position_of_end(&files, &way, system).await.unwrap();
        assert_eq!(end.end, until);
        let settings = settings(&end);
        let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let (replayed, rows, _) = recovered(release, &cold, &log, &settings, test).await;
        assert_eq!(replayed, until);
        assert!(!ends.contains(&rows));
        // Later than everything: only the end is known.
        let later = search::position_of_time(&files, &way, system, Timestamp::MAX, MARGIN)
            .await
            .unwrap();
        assert_eq!(later, AtTime::NoneLater(end));
        let missing = search::position_of_name(&files, &way, system, "never")
            .await
            .unwrap_err();
        assert!(matches!(missing, SearchError::NoSuchName { .. }), "{missing}");
    }
}
