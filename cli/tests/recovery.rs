//! Restore drills, what stands of them, and the document, through the real binary: what is proved, what is refuted, what
//! cannot be told, and that nothing is left behind.

#[path = "support/answers.rs"]
mod answers;
#[path = "support/sandbox.rs"]
mod sandbox;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use answers::{Answers, http};
use jiff::{SignedDuration, Timestamp};
use sandbox::{Sandbox, eventually};

fn with(more: &str) -> Sandbox {
    let sandbox = Sandbox::with_stores();
    let text = fs::read_to_string(sandbox.path("opsctl.toml")).expect("the file");
    sandbox.write("opsctl.toml", &format!("{text}{more}"));
    sandbox
}

fn database(sandbox: &Sandbox, sql: &str) {
    rusqlite::Connection::open(sandbox.path("data/shop.db"))
        .and_then(|database| database.execute_batch(sql))
        .expect("our own database");
}

/// What lies in the place where drills restore to.
fn scratch(sandbox: &Sandbox) -> Vec<PathBuf> {
    let entries = fs::read_dir(sandbox.path(".opsctl/scratch"));
    entries
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect()
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(files_in(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

fn overwrite(path: &Path, bytes: &[u8]) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("our own file");
    fs::write(path, bytes).expect("our own file");
}

const GOOD: &str = "[datastore.db.objectives]\nrpo = \"1h\"\nrto = \"10m\"\nprove_every = \"7d\"\n\
    [[datastore.db.assert]]\nname = \"orders are there\"\nsql = \"select count(*) from orders\"\nequals = 2\n\
    [[datastore.db.assert]]\nsql = \"select item from orders order by id\"\nequals = \"book\"\n\
    [[datastore.db.assert]]\nmin_rows = { orders = 1 }\n\
    [[datastore.files.assert]]\npath = \"deep/b.bin\"\n\
    [[datastore.files.assert]]\nmin_files = 2\n\
    [[datastore.files.assert]]\nmin_bytes = 1000\n";

#[test]
fn a_good_drill_proves_the_snapshot_and_leaves_nothing() {
    let sandbox = with(GOOD);
    sandbox.run(&["backup"]).ended(0);
    let told = sandbox.run(&["drill", "restore", "db", "--dry-run"]).ended(0);
    assert!(
        told.stdout.starts_with("would bring db back from snapshot"),
        "{}",
        told.stdout
    );
    let told = sandbox.run(&["drill", "restore", "db"]).ended(0).says("is proved");
    for text in [
        "verdict",
        "proved",
        "integrity_check",
        "orders are there",
        "met: 2",
        "time to recover",
    ] {
        assert!(told.stdout.contains(text), "{text}: {}", told.stdout);
    }
    let drill = sandbox.run(&["drill", "restore", "files", "--json"]).ended(0).json();
    assert_eq!(drill["schema"], "opsctl.restore_drill/v1");
    assert_eq!(drill["proof"]["verdict"], "proved");
    assert_eq!(drill["proof"]["schema"], "opsctl.proof/v1");
    let phases = drill["proof"]["phases"].as_object().expect("phases");
    let sum: f64 = phases.values().map(|seconds| seconds.as_f64().expect("seconds")).sum();
    assert!((sum - drill["proof"]["rto_seconds"].as_f64().expect("seconds")).abs() < 1e-9);
    assert_eq!(scratch(&sandbox), Vec::<PathBuf>::new());

    let list = sandbox.run(&["snapshot", "list", "--json"]).ended(0).json();
    for snapshot in list["snapshots"].as_array().expect("snapshots") {
        assert!(snapshot["proved"].is_string(), "{snapshot}");
    }
    sandbox.run(&["backup", "db"]).ended(0);
    let list = sandbox.run(&["snapshot", "list", "db", "--json"]).ended(0).json();
    assert!(list["snapshots"][1]["proved"].is_null(), "a new one is not proved yet");

    let run = drill["proof"]["run"].as_str().expect("a run");
    let page = fs::read_to_string(sandbox.path(".opsctl/runs").join(run).join("report.html")).expect("the page");
    assert!(page.contains("Drill: restore of files") && page.contains("content by hash"));
    let runs = sandbox.run(&["run", "list", "--json"]).ended(0).json();
    let runs = runs["runs"].as_array().expect("runs");
    assert_eq!(runs.len(), 2);
    assert!(
        runs.iter()
            .all(|run| run["kind"] == "drill/restore" && run["outcome"] == "passed")
    );
    sandbox.run(&["run", "show", run]).ended(0);
    sandbox.run(&["repository", "check", "--read-data"]).ended(0);
    sandbox.judged_by_restic("a_good_drill_proves_the_snapshot_and_leaves_nothing");
}

#[test]
fn what_was_restored_can_be_kept() {
    let sandbox = with(GOOD);
    sandbox.run(&["backup"]).ended(0);
    let drill = sandbox
        .run(&["drill", "restore", "db", "--keep", "--scratch", "big", "--json"])
        .ended(0)
        .json();
    let kept = PathBuf::from(drill["kept"].as_str().expect("where it is kept"));
    assert_eq!(Sandbox::rows(&kept.join("shop.db")), ["book", "pen"]);
    sandbox.run(&["drill", "restore", "db", "--scratch", "big"]).ended(0);
    assert!(kept.exists(), "no later drill removes it");
    assert_eq!(fs::read_dir(sandbox.path("big")).expect("the folder").count(), 1);
}

#[test]
fn damage_is_a_no_that_names_the_files() {
    let sandbox = with(GOOD);
    sandbox.run(&["backup", "files"]).ended(0);
    let (mut trees, mut contents) = (0, 0);
    for pack in files_in(&sandbox.path("repo/data")) {
        let whole = fs::read(&pack).expect("a pack");
        let mut changed = whole.clone();
        // In its first blob: nobody who restores reads the header at the end.
        changed[20] ^= 0x40;
        overwrite(&pack, &changed);
        let told = sandbox
            .run(&["drill", "restore", "files"])
            .ended(4)
            .says("is not proved");
        if told.stdout.contains("uploads/a.txt") || told.stdout.contains("uploads/deep/b.bin") {
            contents += 1;
        } else {
            assert!(told.stdout.contains("tree "), "{}", told.stdout);
            trees += 1;
        }
        overwrite(&pack, &whole);
    }
    assert!(trees > 0 && contents > 0, "{trees} {contents}");
    let list = sandbox.run(&["snapshot", "list", "--json"]).ended(0).json();
    assert!(list["snapshots"][0]["proved"].is_null());
    sandbox
        .run(&["recovery", "status", "files"])
        .ended(4)
        .says("did not prove");
    assert_eq!(scratch(&sandbox), Vec::<PathBuf>::new());
}

#[test]
fn what_does_not_hold_is_a_no_and_what_cannot_be_told_is_open() {
    for (more, code, told) in [
        (
            "[[datastore.db.assert]]\nsql = \"select count(*) from orders\"\nat_least = 3\n",
            4,
            "not met: 2",
        ),
        (
            "[[datastore.db.assert]]\nmin_rows = { invoices = 0 }\n",
            4,
            "no such table",
        ),
        (
            "[[datastore.db.assert]]\nsql = \"drop table orders\"\nequals = 0\n",
            4,
            "no query",
        ),
        ("[datastore.db.objectives]\nrto = \"1ns\"\n", 4, "rto"),
        ("[datastore.db.objectives]\nrpo = \"1ns\"\n", 4, "rpo"),
        (
            "[datastore.db.canary]\nsql = \"select max(id) from orders where 0\"\n",
            9,
            "found no row",
        ),
        (
            "[[datastore.db.assert]]\nsql = \"with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n\"\nat_least = 0\n",
            9,
            "no answer within 0.3 s",
        ),
    ] {
        let sandbox = with(more);
        sandbox.run(&["backup", "db"]).ended(0);
        let ran = sandbox
            .run(&["drill", "restore", "db", "--query-limit", "300ms"])
            .ended(code);
        assert!(ran.stdout.contains(told), "{told}: {}", ran.stdout);
        let list = sandbox.run(&["snapshot", "list", "--json"]).ended(0).json();
        assert!(list["snapshots"][0]["proved"].is_null(), "{more}");
        assert_eq!(Sandbox::rows(&sandbox.path("data/shop.db")), ["book", "pen"], "{more}");
        assert_eq!(scratch(&sandbox), Vec::<PathBuf>::new());
    }
}

#[test]
fn a_canary_row_tells_what_would_be_lost_to_the_second() {
    let sandbox =
        with("[datastore.db.objectives]\nrpo = \"100s\"\n[datastore.db.canary]\nsql = \"select max(at) from ticks\"\n");
    let first = Timestamp::now() - SignedDuration::from_secs(1000);
    let first = Timestamp::from_second(first.as_second()).expect("a second");
    database(
        &sandbox,
        &format!("CREATE TABLE ticks (at TEXT); INSERT INTO ticks VALUES ('{first}');"),
    );
    sandbox.run(&["backup", "db"]).ended(0);
    let between = Timestamp::now();
    database(&sandbox, &format!("INSERT INTO ticks VALUES ('{between}');"));
    sandbox.run(&["backup", "db"]).ended(0);
    let list = sandbox.run(&["snapshot", "list", "--json"]).ended(0).json();
    let time = |index: usize| -> Timestamp {
        let time = list["snapshots"][index]["time"].as_str().expect("a time");
        time.parse().expect("a time")
    };
    let lost = |args: &[&str], code| {
        let args = [&["drill", "restore", "db", "--json"], args].concat();
        let proof = sandbox.run(&args).ended(code).json()["proof"].clone();
        (proof["rpo_seconds"].as_f64().expect("seconds"), proof)
    };
    // The moment between the two: the first snapshot, and its newest row.
    let at = between.to_string();
    let (seconds, proof) = lost(&["--at", &at], 4);
    assert!(
        (seconds - between.duration_since(first).as_secs_f64()).abs() < 1e-6,
        "{proof}"
    );
    assert_eq!(proof["rpo_basis"], "canary");
    assert_eq!(proof["snapshot"], list["snapshots"][0]["snapshot"]);
    // The first snapshot by name: to its own time.
    let id = list["snapshots"][0]["snapshot"].as_str().expect("an id");
    let (seconds, proof) = lost(&["--snapshot", &id[..8]], 4);
    assert!(
        (seconds - time(0).duration_since(first).as_secs_f64()).abs() < 1e-6,
        "{proof}"
    );
    // Now: the second one, seconds ago.
    let (seconds, proof) = lost(&[], 0);
    assert!(seconds < 60.0, "{proof}");
    assert_eq!(proof["snapshot"], list["snapshots"][1]["snapshot"]);
    let exact = time(1).to_string();
    assert_eq!(
        lost(&["--at", &exact], 0).1["snapshot"],
        list["snapshots"][1]["snapshot"]
    );

    let early = first.to_string();
    sandbox
        .run(&["drill", "restore", "db", "--at", &early])
        .ended(2)
        .says("is later than");
    sandbox
        .run(&["drill", "restore", "db", "--at", "2999-01-01T00:00:00Z"])
        .ended(2)
        .says("has not come yet");
    sandbox
        .run(&["drill", "restore", "db", "--at", "2026-03-14 02:30"])
        .ended(2)
        .says("with its zone");
    sandbox
        .run(&["drill", "restore", "files", "--snapshot", &id[..8]])
        .ended(2)
        .says("is of datastore `db`");
}

#[test]
fn a_place_that_is_too_small_is_told_before_anything_is_written() {
    let name = "a_place_that_is_too_small_is_told_before_anything_is_written";
    let sandbox = Sandbox::with_stores();
    sandbox.run(&["backup", "files"]).ended(0);
    let small = sandbox.path("small");
    fs::create_dir_all(&small).expect("a folder");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs"])
        .arg(&small)
        .output();
    if !mounted.is_ok_and(|mounted| mounted.status.success()) {
        peers::skip(name, "a small tmpfs cannot be mounted here");
        return;
    }
    let outcome = std::panic::catch_unwind(|| {
        sandbox
            .run(&["drill", "restore", "files", "--scratch", "small"])
            .ended(1)
            .says("it needs")
            .says("--scratch FOLDER");
        assert_eq!(fs::read_dir(&small).expect("the folder").count(), 0);
    });
    let _ = Command::new("umount").arg("-l").arg(&small).status();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn an_interrupted_drill_takes_its_folder_away_at_once() {
    let sandbox = with(
        "[[datastore.db.assert]]\nsql = \"with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n\"\nat_least = 0\n",
    );
    sandbox.run(&["backup", "db"]).ended(0);
    let mut child = sandbox
        .command(&["drill", "restore", "db"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("opsctl starts");
    eventually("the restored database", || {
        scratch(&sandbox).iter().any(|folder| folder.join("shop.db").exists())
    });
    let mode = fs::metadata(&scratch(&sandbox)[0])
        .expect("the folder")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("our own child");
    assert_eq!(child.wait().expect("it ends").code(), Some(143));
    assert_eq!(scratch(&sandbox), Vec::<PathBuf>::new());
    let runs = sandbox.run(&["run", "list", "--json"]).ended(0).json();
    assert_eq!(
        runs["runs"],
        serde_json::json!([]),
        "a drill that was stopped proved nothing"
    );
}

#[test]
fn what_restored_data_says_is_text() {
    let sandbox = with(
        "[[datastore.db.assert]]\nsql = \"select item from orders order by id desc\"\nequals = \"pen\"\n\
         [[datastore.files.assert]]\nmin_files = 100\nname = \"a|b <script>\"\n",
    );
    database(
        &sandbox,
        "INSERT INTO orders (item) VALUES ('<script>alert(1)</script>' || char(27) || '[2J' || char(10) || '| x |');",
    );
    sandbox.run(&["backup"]).ended(0);
    let told = sandbox.run(&["drill", "restore", "db"]).ended(4);
    assert!(
        !told.stdout.contains('\u{1b}') && !told.stderr.contains('\u{1b}'),
        "{}",
        told.stdout
    );
    sandbox.run(&["drill", "restore", "files"]).ended(4);
    for entry in fs::read_dir(sandbox.path(".opsctl/runs")).expect("the runs").flatten() {
        let page = fs::read_to_string(entry.path().join("report.html")).expect("the page");
        assert!(!page.contains("<script") && !page.contains('\u{1b}'));
    }
    let markdown = sandbox.run(&["recovery", "report"]).ended(0).stdout;
    assert!(
        !markdown.contains("<script") && !markdown.contains('\u{1b}'),
        "{markdown}"
    );
    let page = sandbox.run(&["recovery", "report", "--format", "html"]).ended(0).stdout;
    assert!(!page.contains("<script"), "{page}");
    // A record that is none is told of, and hides no other.
    fs::write(sandbox.path("repo/proofs/20260101T000000.000Z-x"), "x").expect("our own repository");
    sandbox
        .run(&["snapshot", "list"])
        .ended(0)
        .says("is no record of a restore drill");
    let status = sandbox.run(&["recovery", "status", "--json"]).ended(4).json();
    assert_eq!(status["damaged"].as_array().map(Vec::len), Some(1));
    assert_eq!(status["datastores"][0]["last_drill"]["verdict"], "not_proved");
}

#[test]
fn every_mistake_of_the_catalogue_is_told_at_once() {
    let sandbox = with(
        "[[datastore.db.assert]]\nsql = \"select 1\"\n[[datastore.db.assert]]\nsql = \"select 1\"\nat_least = 1\nat_most = 2\n\
         [[datastore.db.assert]]\nsql = \"select 1\"\nbetween = [3, 1]\n[[datastore.db.assert]]\nname = \"nothing\"\n\
         [[datastore.db.assert]]\nmin_files = 1\n[[datastore.files.assert]]\nsql = \"select 1\"\nequals = 1\n\
         [[datastore.files.assert]]\npath = \"../secret\"\n[[datastore.files.assert]]\nmin_files = -1\n\
         [datastore.files.canary]\nsql = \"select 1\"\n[datastore.db.objectives]\nrpo = \"soon\"\nprove_evry = \"7d\"\n",
    );
    let told = sandbox.run(&["config", "check"]).ended(2);
    let all = format!("{}{}", told.stdout, told.stderr);
    for text in [
        "a query needs one of",
        "the lower and the higher number",
        "an assertion needs one of",
        "`min_files` counts files",
        "`sql` asks a database",
        "a path inside of the datastore",
        "a whole number from 0 on",
        "`soon` is no time",
        "did you mean `prove_every`?",
    ] {
        assert!(all.contains(text), "{text}: {all}");
    }
}

#[test]
fn how_recovery_stands_from_nothing_to_kept_to_missed() {
    let sandbox = with(GOOD);
    sandbox
        .run(&["recovery", "status"])
        .ended(2)
        .says("there is no repository");
    sandbox.run(&["backup", "db"]).ended(0);
    let told = sandbox
        .run(&["recovery", "status"])
        .ended(9)
        .says("opsctl drill restore db");
    assert!(told.stdout.contains("never"), "{}", told.stdout);
    sandbox.run(&["drill", "restore", "db"]).ended(0);
    let told = sandbox.run(&["recovery", "status", "db"]).ended(0);
    assert!(told.stdout.contains("kept"), "{}", told.stdout);
    sandbox
        .run(&["recovery", "status"])
        .ended(9)
        .says("opsctl backup files");

    let status = sandbox.run(&["recovery", "status", "db", "--json"]).ended(0).json();
    assert_eq!(status["schema"], "opsctl.recovery/v1");
    let db = &status["datastores"][0];
    assert_eq!(
        (&db["snapshots"], &db["outcome"]),
        (&serde_json::json!(1), &serde_json::json!("met"))
    );
    assert_eq!(db["promises"].as_array().map(Vec::len), Some(3));

    let metrics = sandbox.run(&["recovery", "status", "db", "--metrics"]).ended(0).stdout;
    for line in [
        "# TYPE opsctl_backup_last_success_timestamp_seconds gauge",
        "opsctl_recovery_point_objective_seconds{environment=\"local\",datastore=\"db\"} 3600",
        "opsctl_recovery_time_objective_seconds{environment=\"local\",datastore=\"db\"} 600",
        "opsctl_proof_interval_objective_seconds{environment=\"local\",datastore=\"db\"} 604800",
        "opsctl_proof_last_verdict{environment=\"local\",datastore=\"db\",verdict=\"proved\"} 1",
        "opsctl_recovery_objective_missed{environment=\"local\",datastore=\"db\",objective=\"rpo\"} 0",
    ] {
        assert!(metrics.lines().any(|seen| seen == line), "{line}: {metrics}");
    }
    if let Some(promtool) = peers::peer("promtool", "how_recovery_stands_from_nothing_to_kept_to_missed") {
        use std::io::Write as _;
        let mut child = Command::new(promtool)
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(metrics.as_bytes()).expect("it reads");
        drop(stdin);
        let judged = child.wait_with_output().expect("it ends");
        let told = String::from_utf8_lossy(&judged.stderr).into_owned();
        assert!(judged.status.success() && told.is_empty(), "{told}");
    }
    sandbox
        .run(&["recovery", "status", "db", "-q", "--textfile", "opsctl.prom"])
        .ended(0);
    let file = sandbox.path("opsctl.prom");
    assert_eq!(
        fs::metadata(&file).expect("the file").permissions().mode() & 0o777,
        0o644
    );
    assert!(
        fs::read_to_string(&file)
            .expect("the file")
            .contains("opsctl_backup_size_bytes{")
    );
    assert_eq!(
        fs::read_dir(sandbox.path(""))
            .expect("the folder")
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().contains(".prom."))
            .count(),
        0,
        "nothing half written stays"
    );
    sandbox
        .run(&["recovery", "status", "--textfile", "absent/opsctl.prom"])
        .ended(1);

    let text = fs::read_to_string(sandbox.path("opsctl.toml")).expect("the file");
    sandbox.write("opsctl.toml", &text.replace("rpo = \"1h\"", "rpo = \"1ms\""));
    sandbox
        .run(&["recovery", "status", "db"])
        .ended(4)
        .says("the last whole backup is older");
    sandbox.write("opsctl.toml", &text.replace("rto = \"10m\"", "rto = \"1ns\""));
    sandbox.run(&["recovery", "status", "db"]).ended(4).says("took longer");
    sandbox.write(
        "opsctl.toml",
        &text.replace("prove_every = \"7d\"", "prove_every = \"1ms\""),
    );
    sandbox
        .run(&["recovery", "status", "db"])
        .ended(4)
        .says("the last proof is older");
}

#[test]
fn the_document_is_the_same_each_time_and_its_commands_work() {
    let sandbox = with(GOOD);
    sandbox.run(&["backup"]).ended(0);
    sandbox.run(&["drill", "restore", "db"]).ended(0);
    let text = sandbox.run(&["recovery", "report"]).ended(0).stdout;
    assert_eq!(text, sandbox.run(&["recovery", "report"]).ended(0).stdout);
    for part in [
        "# Recovery of local",
        "## db: restore runbook",
        "Expect it to take about",
        "No restore drill has measured",
        "orders are there",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    sandbox.run(&["recovery", "report", "--out", "recovery.html"]).ended(0);
    let page = fs::read_to_string(sandbox.path("recovery.html")).expect("the page");
    assert!(page.starts_with("<!doctype html>") && page.contains("db: restore runbook"));
    sandbox.run(&["recovery", "report", "--out", "recovery.md"]).ended(0);
    assert_eq!(
        fs::read_to_string(sandbox.path("recovery.md")).expect("the document"),
        text
    );

    // What the runbook says is typed as it stands.
    let section = text.split("## db: restore runbook").nth(1).expect("the runbook");
    let section = section.split("\n## ").next().expect("the runbook");
    let commands: Vec<&str> = section.lines().filter(|line| line.starts_with("opsctl ")).collect();
    assert!(
        commands.iter().any(|command| command.ends_with("restore db --replace")),
        "{commands:?}"
    );
    for command in &commands {
        let args: Vec<&str> = command.split(' ').skip(1).collect();
        let args = if args.contains(&"--replace") {
            [args.as_slice(), &["--yes"]].concat()
        } else {
            args
        };
        let ran = sandbox.run(&args);
        assert!(ran.code == 0 || args.contains(&"status"), "{command}: {}", ran.stderr);
    }
    let restic = section
        .lines()
        .find(|line| line.starts_with("restic "))
        .expect("a way without us");
    if peers::peer("restic", "the_document_is_the_same_each_time_and_its_commands_work").is_some() {
        let ran = Command::new("sh")
            .args(["-c", &restic.replace("restic ", "restic --no-cache ")])
            .current_dir(sandbox.path(""))
            .env("RESTIC_PASSWORD", "correct horse")
            .output()
            .expect("a shell");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        assert_eq!(Sandbox::rows(&sandbox.path("restored-db/shop.db")), ["book", "pen"]);
    }
}

#[test]
fn the_runbook_of_a_dump_says_what_to_do_with_it() {
    let sandbox = with(
        "[datastore.dump]\nkind = \"command\"\ncommand = [\"printf\", \"secret-argument\"]\nfilename = \"shop.sql\"\n",
    );
    sandbox.run(&["backup", "dump"]).ended(0);
    sandbox.run(&["drill", "restore", "dump"]).ended(0);
    let text = sandbox.run(&["recovery", "report", "dump"]).ended(0).stdout;
    for part in [
        "the output of the command printf",
        "shop.sql is what the command printed",
        "What is checked",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("secret-argument"), "{text}");
    sandbox.run(&["-e", "local", "restore", "dump"]).ended(0);
}

#[test]
fn the_webhook_is_told_how_a_drill_ended() {
    let hook = Answers::always(http("204 No Content", "", ""));
    let sandbox = with(GOOD);
    let text = fs::read_to_string(sandbox.path("opsctl.toml")).expect("the file");
    let environment = "[env.local]\nnotify = { webhook = { file = \"hook\" } }\n";
    sandbox.write("opsctl.toml", &text.replace("[env.local]\n", environment));
    sandbox.secret("hook", &hook.url("/drills"));
    sandbox.run(&["backup", "db"]).ended(0);
    sandbox.run(&["drill", "restore", "db"]).ended(0);
    database(&sandbox, "DELETE FROM orders");
    sandbox.run(&["backup", "db"]).ended(0);
    sandbox.run(&["drill", "restore", "db"]).ended(4);
    let asked = hook.asked();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(
        asked.iter().all(|asked| asked.starts_with("post /drills ")),
        "{asked:?}"
    );
    let runs = sandbox.run(&["run", "list", "--json"]).ended(0).json();
    let runs = runs["runs"].as_array().expect("runs");
    let mut told = Vec::new();
    for run in runs {
        let id = run["id"].as_str().expect("an id");
        let journal =
            fs::read_to_string(sandbox.path(format!(".opsctl/runs/{id}/events.ndjson"))).expect("its journal");
        told.extend(
            ["finished", "failed"].into_iter().filter(|event| {
                journal.contains("\"notified\"") && journal.contains(&format!("\"event\":\"{event}\""))
            }),
        );
    }
    told.sort_unstable();
    assert_eq!(told, ["failed", "finished"]);
}
