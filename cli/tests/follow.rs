//! `opsctl backup --follow` on real servers: what was committed is there after a restore, whoever ends, is killed or is
//! promoted in between; what the server removed is an incident that is told, and mended by itself.

#[path = "support/answers.rs"]
mod answers;
#[path = "support/follower.rs"]
mod follower;
#[path = "support/sandbox.rs"]
mod sandbox;

use std::fs;

use answers::{Answers, http};
use follower::{Follower, archived, opsctl, project, received, row, rows, snapshots, write_much};
use peers::servers::postgres::{Cluster, Postgres, Release};
use rustix::process::Signal;
use sandbox::Sandbox;

/// Its log becomes durable when it is told to end, or asked for: no pulse comes meanwhile.
const SELDOM: &str = "objectives = { rpo = \"1h\" }";
/// Twice a second.
const OFTEN: &str = "objectives = { rpo = \"1s\" }";

/// A server that hears of us often, and whose segments are small.
fn recipe(release: Release) -> Postgres {
    Postgres::of(release)
        .made_with("--wal-segsize=1")
        .setting("wal_sender_timeout", "2s")
}

async fn slots(cluster: &Cluster) -> String {
    cluster
        .run("select string_agg(slot_name || ' ' || active, ',') from pg_replication_slots")
        .await
}

async fn restored(sandbox: &Sandbox, release: Release, into: &str, args: &[&str], test: &str) -> String {
    let place = format!("./{into}");
    opsctl(sandbox, &[&["restore", "pg", "--into", &place], args].concat()).ended(0);
    rows(&sandbox.path(into), release, test).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_followed_comes_back_and_goes_on_where_it_ended() {
    let test = "what_is_followed_comes_back_and_goes_on_where_it_ended";
    let recipe = recipe(Release::V15).setting("max_slot_wal_keep_size", "1GB");
    let Some(cluster) = Cluster::start(recipe, test).await else {
        return;
    };
    let sandbox = project(&cluster.url(), SELDOM);
    let plan = opsctl(&sandbox, &["backup", "--follow", "--dry-run"]).ended(0);
    assert_eq!(plan.stdout, "would follow pg into here\n");
    assert!(!sandbox.path("repo").exists());

    row(&cluster, 1).await;
    let follower = Follower::start(&sandbox);
    let base = follower.event("base_backup");
    assert_eq!(base["schema"], "opsctl.following/v1");
    assert_eq!(
        snapshots(&sandbox),
        [base["snapshot"].as_str().expect("a snapshot").to_owned()]
    );
    row(&cluster, 2).await;
    received(&cluster).await;
    let slot = slots(&cluster).await;
    assert!(
        slot.starts_with("opsctl_local_pg_") && slot.ends_with(" true"),
        "{slot}"
    );

    // It is told by the server and by the repository, without anybody else.
    let status = opsctl(&sandbox, &["recovery", "status", "--json"]).ended(0).json();
    let pg = &status["datastores"][0];
    assert_eq!(pg["log"]["slot"]["state"], "receiving", "{pg}");
    assert_eq!(pg["log"]["base_backup"], base["snapshot"], "{pg}");
    assert_eq!(pg["log"]["lost"], serde_json::json!([]), "{pg}");
    assert!(
        pg["log"]["archived_lsn"].is_string() && pg["log"]["slot"]["kept_bytes"].is_u64(),
        "{pg}"
    );
    assert!(pg["log"]["slot"]["safe_bytes"].as_i64() > Some(0), "{pg}");
    assert_eq!(pg["log"]["until"], pg["last_shipped"], "{pg}");
    let text = opsctl(&sandbox, &["recovery", "status"]).ended(0);
    assert!(text.stdout.contains("receiving"), "{}", text.stdout);
    let metrics = opsctl(&sandbox, &["recovery", "status", "--metrics"]).ended(0).stdout;
    let of = |name: &str| {
        let line = format!("{name}{{environment=\"local\",datastore=\"pg\"}} ");
        let line = metrics.lines().find_map(|found| found.strip_prefix(&line));
        line.unwrap_or_else(|| panic!("no {name} in:\n{metrics}"))
    };
    assert_eq!(of("opsctl_log_receiving"), "1");
    assert_eq!((of("opsctl_log_slot_lost"), of("opsctl_log_lost_gaps")), ("0", "0"));
    let number = |name: &str| of(name).parse::<f64>().expect("a number");
    assert!(number("opsctl_log_archived_position_bytes") > 0.0);
    assert!(number("opsctl_log_slot_safe_bytes") > 0.0);
    assert!(number("opsctl_backup_complete_until_timestamp_seconds") > 1.7e9);

    // One is enough, here and elsewhere.
    opsctl(&sandbox, &["backup", "pg", "--follow"])
        .ended(8)
        .says("`pg` is followed by another process");
    let elsewhere = project(&cluster.url(), SELDOM);
    let text = fs::read_to_string(elsewhere.path("opsctl.toml")).expect("the file");
    let store = format!("file:{}", sandbox.path("repo").display());
    elsewhere.write("opsctl.toml", &text.replace("file:repo", &store));
    opsctl(&elsewhere, &["backup", "pg", "--follow"])
        .ended(8)
        .says("is in use by somebody else")
        .says("pg_stat_replication");

    // What was received and is not in the repository yet is there at the end.
    let partials = |names: &[String]| names.iter().filter(|name| name.contains(".partial-")).count();
    let before = partials(&archived(&sandbox));
    let (code, events, said) = follower.interrupt();
    assert_eq!(code, 0, "{said}");
    assert_eq!(events.last().expect("events")["type"], "stopped");
    assert!(partials(&archived(&sandbox)) > before, "{:?}", archived(&sandbox));
    assert!(slots(&cluster).await.ends_with(" false"), "the slot is kept");
    let idle = opsctl(&sandbox, &["recovery", "status", "--json"])
        .ended(0)
        .says("nobody receives its log");
    assert_eq!(idle.json()["datastores"][0]["log"]["slot"]["state"], "idle");
    assert_eq!(restored(&sandbox, Release::V15, "first", &[], test).await, "1,2");

    // The server kept what was written while nobody followed.
    row(&cluster, 3).await;
    write_much(&cluster).await;
    let follower = Follower::start(&sandbox);
    row(&cluster, 4).await;
    received(&cluster).await;
    // A kill leaves out nothing either.
    follower.signal(Signal::KILL);
    follower.ended();
    row(&cluster, 5).await;
    let follower = Follower::start(&sandbox);
    received(&cluster).await;
    let (code, events, said) = follower.interrupt();
    assert_eq!(code, 0, "{said}");
    assert!(
        events
            .iter()
            .all(|event| event["type"] != "base_backup" && event["type"] != "lost"),
        "nothing was missing: {events:?}"
    );
    assert_eq!(snapshots(&sandbox).len(), 1);
    assert_eq!(restored(&sandbox, Release::V15, "second", &[], test).await, "1,2,3,4,5");
}

#[tokio::test(flavor = "multi_thread")]
async fn words_without_json_and_the_moment_that_is_held() {
    let test = "words_without_json_and_the_moment_that_is_held";
    let Some(mut cluster) = Cluster::start(recipe(Release::V15), test).await else {
        return;
    };
    let sandbox = project(&cluster.url(), OFTEN);
    let follower = Follower::run(&sandbox, &["backup", "pg", "--follow"]);
    follower.says("following pg at 127.0.0.1:");
    follower
        .says("warning: pg: max_slot_wal_keep_size is not set: while nobody follows, the log fills the server's disk");
    follower.says("took a base backup of pg: snapshot ");
    cluster.kill();
    follower.says("; trying again");
    cluster.start_again().await;
    follower.says("pg is followed again");
    let (code, events, said) = follower.interrupt();
    assert_eq!((code, events.len()), (0, 0), "{said}");
    assert!(said.contains("pg is no longer followed"), "{said}");
    // What happened is told, a line each, and not how far it is.
    assert!(
        said.lines().count() < 20 && !said.contains(" in the repository, "),
        "{said}"
    );

    let follower = Follower::start(&sandbox);
    let committed = row(&cluster, 1).await;
    let moment = |value: &serde_json::Value| value.as_str()?.parse::<jiff::Timestamp>().ok();
    let committed: jiff::Timestamp = committed.parse().expect("a time");
    let held = follower.until("the moment is held", |event| {
        moment(&event["until"]).is_some_and(|until| until >= committed)
    });
    assert_eq!(held["type"], "following");
    assert_eq!(held["timeline"], 1, "{held}");
    let (code, ..) = follower.interrupt();
    assert_eq!(code, 0);
    // Without the server the repository tells what it knows, and that more than a second would be lost by now.
    cluster.kill();
    let status = || opsctl(&sandbox, &["recovery", "status", "--json"]);
    tokio::task::block_in_place(|| sandbox::eventually("the promise is broken", || status().code == 4));
    let status = status()
        .says("whether its log is received is not known")
        .says("what was shipped or received last is older than that");
    let log = status.json()["datastores"][0]["log"].clone();
    assert_eq!(
        (&log["slot"]["state"], &log["lost"]),
        (&"unknown".into(), &serde_json::json!([]))
    );
    assert!(
        log["archived_lsn"].is_string() && log["until"].is_string() && log["slot"]["why"].is_string(),
        "{log}"
    );
    let at = held["until"].as_str().expect("a time");
    assert_eq!(restored(&sandbox, Release::V15, "then", &["--at", at], test).await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn prune_takes_the_log_that_no_base_backup_needs_and_no_other() {
    let test = "prune_takes_the_log_that_no_base_backup_needs_and_no_other";
    let Some(cluster) = Cluster::start(recipe(Release::V15), test).await else {
        return;
    };
    let sandbox = project(&cluster.url(), OFTEN);
    let follower = Follower::start(&sandbox);
    follower.event("base_backup");
    let mut moments = Vec::new();
    for n in 1..=3 {
        moments.push(row(&cluster, n).await);
        cluster.switch_wal().await;
    }
    // A base backup beside the one who follows takes the log from there.
    opsctl(&sandbox, &["backup", "pg"]).ended(0);
    moments.push(row(&cluster, 4).await);
    cluster.switch_wal().await;
    received(&cluster).await;
    let segments = |sandbox: &Sandbox| {
        let names = archived(sandbox);
        names.into_iter().filter(|name| name.len() == 24).collect::<Vec<_>>()
    };
    // What the slot kept from before the base backup on is superfluous, and so are beginnings of what is there as a whole.
    let before = segments(&sandbox);
    opsctl(&sandbox, &["repository", "prune", "--yes"]).ended(0);
    let after = segments(&sandbox);
    let mut needed = before.iter().skip_while(|name| !after.contains(name));
    assert!(
        needed.clone().count() > 4 && needed.all(|name| after.contains(name)),
        "{before:?} {after:?}"
    );
    assert_eq!(
        restored(&sandbox, Release::V15, "kept", &["--at", &moments[1]], test).await,
        "1,2"
    );

    let oldest = snapshots(&sandbox)[0].clone();
    opsctl(&sandbox, &["repository", "forget", &oldest[..8], "--prune", "--yes"]).ended(0);
    let left = segments(&sandbox);
    assert!(
        !left.contains(&after[0]) && left.len() < after.len(),
        "{after:?} {left:?}"
    );
    opsctl(&sandbox, &["restore", "pg", "--at", &moments[1], "--into", "./gone"])
        .ended(2)
        .says("lies before the first state");
    let (code, _, said) = follower.interrupt();
    assert_eq!(code, 0, "{said}");
    assert_eq!(restored(&sandbox, Release::V15, "latest", &[], test).await, "1,2,3,4");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_slot_is_an_incident_that_a_new_base_backup_ends() {
    let test = "a_lost_slot_is_an_incident_that_a_new_base_backup_ends";
    for release in [Release::V15, Release::V18] {
        let recipe = recipe(release)
            .made_with("--data-checksums")
            .setting("wal_keep_size", "0")
            .setting("max_slot_wal_keep_size", "24MB")
            .setting("max_wal_size", "2MB")
            .setting("min_wal_size", "2MB");
        let Some(cluster) = Cluster::start(recipe, test).await else {
            continue;
        };
        let sandbox = project(&cluster.url(), OFTEN);
        let hook = Answers::always(http("204 No Content", "", ""));
        sandbox.secret("hook", &hook.url("/incidents"));
        let follower = Follower::start(&sandbox);
        follower.event("base_backup");
        row(&cluster, 1).await;
        received(&cluster).await;
        let (code, _, said) = follower.interrupt();
        assert_eq!(code, 0, "{said}");
        assert!(!said.contains("max_slot_wal_keep_size"), "{said}");
        let swallowed = row(&cluster, 2).await;
        let lost = "select count(*) from pg_replication_slots where wal_status = 'lost'";
        let mut rounds = 0;
        while cluster.run(lost).await != "1" {
            rounds += 1;
            assert!(rounds < 40, "{release:?}: the slot is kept");
            write_much(&cluster).await;
            cluster.run("checkpoint").await;
        }

        // As long as no base backup can be taken, since a page is damaged, it stays what it is.
        cluster
            .run("create table still as select generate_series(1, 1000) n")
            .await;
        cluster.run("vacuum freeze still").await;
        cluster.run("checkpoint").await;
        let file = cluster
            .data()
            .join(cluster.run("select pg_relation_filepath('still')").await);
        let sound = fs::read(&file).expect("a table");
        let mut damaged = sound.clone();
        damaged[8000] ^= 1;
        fs::write(&file, &damaged).expect("we may");
        let status = || opsctl(&sandbox, &["recovery", "status", "--json"]);
        tokio::task::block_in_place(|| sandbox::eventually("the promise is broken", || status().code == 4));
        let lost = status().says("given up on slot");
        assert_eq!(lost.json()["datastores"][0]["log"]["slot"]["state"], "lost");
        let follower = Follower::start(&sandbox);
        let gap = follower.event("lost")["lost"]
            .as_str()
            .expect("what is lost")
            .to_owned();
        follower.event("failing");
        let open = status().ended(4).says("is lost: no restore leads over it");
        let open = open.json()["datastores"][0]["log"].clone();
        let words = |lost: &serde_json::Value| {
            let word = |key: &str| lost[key].as_str().unwrap_or_default().to_owned();
            format!("{} to {} of timeline {}", word("from"), word("until"), lost["timeline"])
        };
        assert_eq!(words(&open["lost"][0]), gap, "{open}");
        assert!(open["base_backup"].is_null() && open["until"].is_null(), "{open}");

        // Who comes after a kill knows of it, and ends it.
        follower.signal(Signal::KILL);
        let (_, events, said) = follower.ended();
        assert!(
            said.contains(&format!(
                "the server had removed its log from {gap} before it was received"
            )),
            "{said}"
        );
        assert!(
            events.iter().all(|event| event["until"].is_null()),
            "what no base backup leads to is not held: {events:?}"
        );
        fs::write(&file, &sound).expect("we may");
        let follower = Follower::start(&sandbox);
        follower.event("base_backup");
        let committed = row(&cluster, 3).await;
        let committed: jiff::Timestamp = committed.parse().expect("a time");
        follower.until("what comes after it is held", |event| {
            let until = event["until"]
                .as_str()
                .and_then(|until| until.parse::<jiff::Timestamp>().ok());
            until.is_some_and(|until| until >= committed)
        });
        let closed = status().json();
        assert_eq!(
            closed["datastores"][0]["log"]["lost"],
            serde_json::json!([]),
            "{closed}"
        );
        let (code, events, said) = follower.interrupt();
        assert_eq!(code, 0, "{said}");
        let order: Vec<&str> = events.iter().filter_map(|event| event["type"].as_str()).collect();
        let at = |kind: &str| order.iter().position(|known| *known == kind);
        assert!(at("lost") < at("base_backup") && at("lost").is_some(), "{order:?}");

        let told = hook.documents();
        let names: Vec<&str> = told.iter().filter_map(|told| told["event"].as_str()).collect();
        assert_eq!(names, ["log_lost", "log_lost", "log_resumed"], "{told:?}");
        assert_eq!(told[0]["schema"], "opsctl.notification/v1");
        assert_eq!(told[0]["target"], "datastore/pg");
        assert_eq!(told[0]["environment"], "local");
        assert!(
            told[0]["message"].as_str().is_some_and(|said| said.contains(&gap)),
            "{told:?}"
        );

        // The programs of the newer release are nowhere where a restore looks for them.
        if release != Release::V15 {
            continue;
        }
        assert_eq!(restored(&sandbox, release, "latest", &[], test).await, "1,2,3");
        opsctl(&sandbox, &["restore", "pg", "--at", &swallowed, "--into", "./then"]).ended(1);
        assert!(
            !sandbox.path("then").exists(),
            "nothing is written before the way is known"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_standby_is_followed_without_a_gap() {
    let test = "a_promoted_standby_is_followed_without_a_gap";
    let Some(mut primary) = Cluster::start(recipe(Release::V15).setting("wal_keep_size", "256MB"), test).await else {
        return;
    };
    let standby = primary.standby(Some("follower")).await;
    let host = |cluster: &Cluster| cluster.url().split(['@', '/']).nth(3).expect("a host").to_owned();
    let dsn = format!(
        "postgres://postgres@{},{}/postgres?target_session_attrs=primary",
        host(&primary),
        host(&standby)
    );
    let sandbox = project(&dsn, OFTEN);
    let follower = Follower::start(&sandbox);
    follower.event("base_backup");
    row(&primary, 1).await;
    write_much(&primary).await;
    let position = primary.position().await;
    let caught_up = format!("select pg_last_wal_receive_lsn() >= '{position}'");
    let caught_up = async {
        while standby.run(&caught_up).await != "t" {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_mins(1), caught_up)
        .await
        .expect("the standby has all of it");
    primary.kill();
    follower.event("failing");
    standby.promote().await;
    row(&standby, 2).await;
    follower.until("the next timeline", |event| event["timeline"] == 2);
    let committed = row(&standby, 3).await;
    let committed: jiff::Timestamp = committed.parse().expect("a time");
    follower.until("what the new primary wrote is held", |event| {
        let until = event["until"]
            .as_str()
            .and_then(|until| until.parse::<jiff::Timestamp>().ok());
        until.is_some_and(|until| until >= committed)
    });
    assert!(slots(&standby).await.contains("opsctl_"), "a slot on the new primary");
    let (code, events, said) = follower.interrupt();
    assert_eq!(code, 0, "{said}");
    assert!(
        events.iter().all(|event| event["type"] != "lost"),
        "nothing was lost: {events:?}"
    );
    let bases = events.iter().filter(|event| event["type"] == "base_backup").count();
    assert_eq!(bases, 1, "the one before leads there: {said}");
    assert_eq!(restored(&sandbox, Release::V15, "latest", &[], test).await, "1,2,3");
}

/// The processes that a process started and that have not ended.
fn children(of: i32) -> Vec<i32> {
    let parent = |stat: &str| {
        let behind = stat.rsplit_once(") ")?.1;
        let mut words = behind.split(' ');
        let state = words.next()?;
        (state != "Z").then(|| words.next()?.parse::<i32>().ok()).flatten()
    };
    let processes = fs::read_dir("/proc").expect("processes").flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_child = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        parent(&stat) == Some(of)
    };
    numbers.filter(is_child).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn schedules_receive_the_log_for_as_long_as_they_run() {
    let test = "schedules_receive_the_log_for_as_long_as_they_run";
    let Some(cluster) = Cluster::start(recipe(Release::V15), test).await else {
        return;
    };
    let sandbox = project(&cluster.url(), OFTEN);
    let schedules = Follower::run(&sandbox, &["schedule", "run"]);
    schedules.says("took a base backup of pg: snapshot ");
    opsctl(&sandbox, &["backup", "pg", "--follow"])
        .ended(8)
        .says("`pg` is followed by another process");
    let receiver = || children(schedules.pid());
    let first = receiver();
    assert_eq!(first.len(), 1, "never two");

    // One that is killed is started again.
    sandbox::kill(first[0]);
    schedules.says("backup pg --follow was killed; it begins again in 1s");
    let again = || {
        let now = receiver();
        now.len() == 1 && now != first
    };
    tokio::task::block_in_place(|| sandbox::eventually("another one", again));
    row(&cluster, 1).await;
    received(&cluster).await;

    // It does not outlive whoever started it.
    let orphan = receiver()[0];
    schedules.signal(Signal::KILL);
    let (.., said) = schedules.ended();
    tokio::task::block_in_place(|| sandbox::eventually("its end", || !sandbox::alive(orphan)));
    assert!(!said.contains("panicked"), "{said}");

    let schedules = Follower::run(&sandbox, &["schedule", "run"]);
    row(&cluster, 2).await;
    received(&cluster).await;
    let last = children(schedules.pid());
    assert_eq!(last.len(), 1, "never two");
    let (code, _, said) = schedules.interrupt();
    assert_eq!(code, 130, "{said}");
    assert!(said.contains("pg is no longer followed"), "{said}");
    assert!(!sandbox::alive(last[0]), "it is gone before");
    assert_eq!(snapshots(&sandbox).len(), 1);
    assert_eq!(restored(&sandbox, Release::V15, "latest", &[], test).await, "1,2");
}
