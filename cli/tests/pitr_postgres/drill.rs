//! Drills of a whole cluster through the real binary: a sound one is proved, step by step, and each kind of damage ends it
//! by its name.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use peers::servers::postgres::{Cluster, Postgres};
use serde_json::Value;

use super::sandbox::{Ran, Sandbox};
use super::{cluster, declare, flip, nothing_is_left, object, opsctl, project, push, row};

const ASSERTED: &str = "canary = { sql = \"select max(at) from orders\", database = \"shop\" }\n\
    [[datastore.pg.assert]]\nmin_rows = { orders = 101 }\n\
    [[datastore.pg.assert]]\nname = \"the last order\"\nsql = \"select max(id) from orders\"\nequals = 101\n";

/// A check of a drill, by its name.
#[track_caller]
fn check<'a>(proof: &'a Value, name: &str) -> &'a Value {
    let checks = proof["checks"].as_array().expect("checks");
    let found = checks.iter().find(|check| check["name"] == name);
    found.unwrap_or_else(|| panic!("{name} is not in {checks:#?}"))
}

#[track_caller]
fn came(proof: &Value, name: &str, outcome: &str, words: &str) {
    let check = check(proof, name);
    let observed = check["observed"].as_str().expect("words");
    assert!(check["outcome"] == outcome && observed.contains(words), "{check}");
}

fn drill(sandbox: &Sandbox, more: &[&str]) -> Ran {
    opsctl(sandbox, &[&["drill", "restore", "pg", "--json"], more].concat())
}

/// A cluster with a database `shop` in which an order came after the base backup.
async fn shop(cluster: &Cluster, sandbox: &Sandbox) {
    cluster.run("create database shop").await;
    let orders = "create table orders (id bigint primary key, at timestamptz default clock_timestamp());
        insert into orders select generate_series(1, 100)";
    cluster.run_in("shop", orders).await;
    opsctl(sandbox, &["backup", "pg"]).ended(0);
    cluster.run_in("shop", "insert into orders values (101)").await;
    push(cluster, sandbox).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_proved_step_by_step() {
    let test = "a_cluster_is_proved_step_by_step";
    let recipe = Postgres::default().made_with("--data-checksums");
    let Some(cluster) = Cluster::start(recipe.setting("wal_keep_size", "512MB"), test).await else {
        return;
    };
    let sandbox = project(&cluster);
    declare(&sandbox, ASSERTED);
    shop(&cluster, &sandbox).await;
    let would = opsctl(&sandbox, &["drill", "restore", "pg", "--dry-run"]).ended(0);
    assert!(
        would.stdout.contains("files of its log, to position"),
        "{}",
        would.stdout
    );

    let document = drill(&sandbox, &[]).ended(0).json();
    let proof = &document["proof"];
    assert_eq!(
        (&proof["verdict"], &proof["kind"]),
        (&"proved".into(), &"postgres".into())
    );
    for (step, words) in [
        ("manifest", "by its hash"),
        ("repository", "are there and fit"),
        ("pg_verifybackup", "as the manifest says"),
        ("recovery", "is on timeline 2"),
        ("pg_checksums", "as its checksum says"),
        ("pg_amcheck", "are sound"),
        ("pg_dump", "can be read"),
        ("assertions", "2 answers"),
        ("rows of orders", "101"),
        ("the last order", "101"),
    ] {
        came(proof, step, "met", words);
    }
    assert_eq!(proof["rpo_basis"], "canary");
    assert!(proof["rpo_seconds"].as_f64() > Some(0.0), "{proof}");
    let phase = |name: &str| proof["phases"][name].as_f64().expect("seconds");
    let (rto, parts) = (
        proof["rto_seconds"].as_f64().expect("seconds"),
        ["open_seconds", "restore_seconds", "recovery_seconds"].map(phase),
    );
    assert!(
        parts[2] > 0.0 && (rto - parts.iter().sum::<f64>()).abs() < 1e-6,
        "{proof}"
    );
    assert!(
        proof["server_version"]
            .as_str()
            .is_some_and(|version| version.starts_with("15."))
    );
    nothing_is_left(&sandbox);

    // Each step has a line of its own wherever it is told.
    let run = proof["run"].as_str().expect("a run");
    let page = fs::read_to_string(sandbox.path(format!(".opsctl/runs/{run}/report.html"))).expect("a page");
    let text = opsctl(&sandbox, &["drill", "restore", "pg"]).ended(0).stdout;
    for step in [
        "manifest",
        "pg_verifybackup",
        "recovery",
        "pg_checksums",
        "pg_amcheck",
        "pg_dump",
    ] {
        assert!(page.contains(step), "{step}");
        assert!(
            text.lines()
                .any(|line| line.starts_with(step) && line.contains("met: ")),
            "{step}:\n{text}"
        );
    }
    let list = opsctl(&sandbox, &["snapshot", "list", "--json"]).ended(0).json();
    assert!(list["snapshots"][0]["proved"].is_string(), "{list}");
    let status = opsctl(&sandbox, &["recovery", "status", "--json"]).ended(0).json();
    assert!(status.to_string().contains("\"last_proof\":{"), "{status}");

    // The snapshot alone is the state where it was whole: the last order came later.
    let id = list["snapshots"][0]["snapshot"].as_str().expect("an id");
    let earlier = drill(&sandbox, &["--snapshot", id]).ended(4).json();
    came(&earlier["proof"], "the last order", "not_met", "100");
    came(&earlier["proof"], "recovery", "met", "is on timeline 2");
    drill(&sandbox, &["--at", "2001-01-01T00:00:00Z"])
        .ended(2)
        .says("lies before the first state");
    drill(&sandbox, &["--at", "2200-01-01T00:00:00Z"])
        .ended(2)
        .says("has not come yet");
    // What lies between the last that is held and the moment is the loss.
    let now = cluster
        .run("select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
        .await;
    let late = drill(&sandbox, &["--at", &now]).ended(0).json();
    assert_eq!(late["proof"]["verdict"], "proved");

    declare(
        &sandbox,
        "[[datastore.pg.assert]]\nname = \"no orders at all\"\nsql = \"select count(*) from orders\"\nequals = 0\n",
    );
    let failed = drill(&sandbox, &[]).ended(4).says("no orders at all not met").json();
    came(&failed["proof"], "no orders at all", "not_met", "101");
    came(&failed["proof"], "assertions", "not_met", "no orders at all");
    came(&failed["proof"], "pg_amcheck", "met", "are sound");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_page_that_was_saved_is_found_and_what_cannot_be_looked_at_is_said() {
    let test = "a_damaged_page_that_was_saved_is_found_and_what_cannot_be_looked_at_is_said";
    let Some(mut cluster) = cluster(test).await else { return };
    let sandbox = project(&cluster);
    shop(&cluster, &sandbox).await;
    cluster
        .run_in(
            "shop",
            "create table still (id bigint, note text); insert into still select n, 'row ' || n from generate_series(1, 1000) n",
        )
        .await;
    cluster.run_in("shop", "vacuum freeze still").await;
    let file = cluster.run_in("shop", "select pg_relation_filepath('still')").await;
    opsctl(&sandbox, &["backup", "pg"]).ended(0);
    let sound = drill(&sandbox, &[]).ended(0).json();
    assert_eq!(sound["proof"]["verdict"], "proved");
    came(&sound["proof"], "pg_checksums", "skipped", "has no checksums");
    came(&sound["proof"], "assertions", "skipped", "nothing is asserted");
    came(&sound["proof"], "pg_amcheck", "met", "are sound");
    let text = opsctl(&sandbox, &["drill", "restore", "pg"]).ended(0).stdout;
    assert!(text.contains("skipped: the cluster has no checksums"), "{text}");

    cluster.stop().await;
    break_header(&cluster.data().join(&file));
    cluster.start_again().await;
    opsctl(&sandbox, &["backup", "pg"]).ended(0);
    let damaged = drill(&sandbox, &[]).ended(4).says("pg_amcheck not met").json();
    assert_eq!(damaged["proof"]["verdict"], "not_proved");
    came(&damaged["proof"], "pg_amcheck", "not_met", "still");
    came(&damaged["proof"], "pg_verifybackup", "met", "");
    let list = opsctl(&sandbox, &["snapshot", "list", "--json"]).ended(0).json();
    let proved: Vec<bool> = list["snapshots"]
        .as_array()
        .expect("snapshots")
        .iter()
        .map(|snapshot| snapshot["proved"].is_string())
        .collect();
    assert_eq!(proved, [false, true, false]);
    nothing_is_left(&sandbox);
}

/// Makes the header of the first row longer than it is.
fn break_header(file: &Path) {
    let bytes = fs::read(file).expect("a table");
    // The first line pointer follows the page's header; its lowest 15 bits are the row's offset.
    let pointer = u32::from_le_bytes(bytes[24..28].try_into().expect("four bytes"));
    let at = (pointer & 0x7fff) as usize + 22;
    let open = fs::File::options().write(true).open(file).expect("our own file");
    open.write_all_at(&[bytes[at] ^ 0x55], at as u64).expect("our own file");
}

#[tokio::test(flavor = "multi_thread")]
async fn log_that_is_missing_or_damaged_ends_a_drill_by_its_name() {
    let test = "log_that_is_missing_or_damaged_ends_a_drill_by_its_name";
    let Some(cluster) = cluster(test).await else { return };
    let sandbox = project(&cluster);
    row(&cluster, 1).await;
    opsctl(&sandbox, &["backup", "pg"]).ended(0);
    let mut files = Vec::new();
    for n in 2..=6 {
        row(&cluster, n).await;
        files.push(push(&cluster, &sandbox).await);
    }
    let lost = object(&sandbox, &files[2]);
    let kept = fs::read(&lost).expect("an object");

    fs::remove_file(&lost).expect("our own file");
    let gap = drill(&sandbox, &[]).ended(4).says("is not proved").json();
    came(&gap["proof"], "log", "not_met", &files[2]);
    assert!(gap["proof"]["rto_seconds"].is_null(), "{gap}");

    // That it is damaged shows when PostgreSQL asks for it: it is refused, and recovery ends there.
    fs::write(&lost, &kept).expect("our own file");
    flip(&lost);
    let damaged = drill(&sandbox, &[]).ended(4).json();
    assert_eq!(damaged["proof"]["verdict"], "not_proved");
    came(&damaged["proof"], "recovery", "not_met", &files[2]);
    came(&damaged["proof"], "recovery", "not_met", "the log is not whole");
    came(&damaged["proof"], "pg_dump", "skipped", "did not start");
    nothing_is_left(&sandbox);

    let ran = opsctl(&sandbox, &["restore", "pg", "--into", "./latest"]).ended(1);
    let ran = ran.says("the log is not whole").says(&files[2]);
    assert_eq!(ran.stdout, "", "it claims nothing");
    assert!(!ran.stderr.contains("restored pg"), "{}", ran.stderr);
    fs::write(&lost, &kept).expect("our own file");
    assert_eq!(drill(&sandbox, &[]).ended(0).json()["proof"]["verdict"], "proved");

    // And damage of the base backup: a pack is gone.
    let packs = super::sandbox::content(&sandbox.path("repo/data"));
    let largest = packs.iter().max_by_key(|(_, bytes)| bytes.len()).expect("a pack").0;
    fs::remove_file(sandbox.path("repo/data").join(largest)).expect("our own file");
    let broken = drill(&sandbox, &[]).ended(4).json();
    came(&broken["proof"], "manifest", "not_met", "");
    let checks = broken["proof"]["checks"].as_array().expect("checks");
    assert!(checks.iter().all(|check| check["outcome"] != "met"), "{broken}");
    nothing_is_left(&sandbox);

    // With all packs gone nothing is known of the base backup, not even where its log begins.
    fs::remove_dir_all(sandbox.path("repo/data")).expect("our own folder");
    let broken = drill(&sandbox, &[]).ended(4).json();
    came(&broken["proof"], "manifest", "not_met", "is missing");
    opsctl(&sandbox, &["restore", "pg", "--into", "./nothing"])
        .ended(1)
        .says("is missing");
    assert!(!sandbox.path("nothing").exists());
}
