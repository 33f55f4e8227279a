//! Schedules through the real binary: what is due runs once and is remembered, whatever is killed; who waits to hear of it
//! is told; and what is exported is read by those whom it is for.

#[path = "support/sandbox.rs"]
mod sandbox;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use sandbox::{Ran, Sandbox, eventually};
use serde_json::{Value, json};

/// The stores of [`Sandbox::with_stores`] and further tables.
fn with(tables: &str) -> Sandbox {
    let sandbox = Sandbox::with_stores();
    let text = fs::read_to_string(sandbox.path("opsctl.toml")).expect("the file");
    sandbox.write("opsctl.toml", &format!("{text}{tables}"));
    sandbox
}

fn record(sandbox: &Sandbox, name: &str) -> Value {
    let path = sandbox.path(format!(".opsctl/schedule/local/{name}.json"));
    serde_json::from_slice(&fs::read(path).expect("a record")).expect("JSON")
}

/// As after a downtime: the last run was then.
fn handled(sandbox: &Sandbox, name: &str, time: &str) {
    let mut record = record(sandbox, name);
    record["handled"] = json!(time);
    sandbox.write(&format!(".opsctl/schedule/local/{name}.json"), &record.to_string());
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).expect("a process");
    rustix::process::kill_process(pid, signal).expect("it is ours");
}

fn start(sandbox: &Sandbox, args: &[&str]) -> Child {
    sandbox
        .command(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("opsctl starts")
}

fn end(child: Child) -> Ran {
    Ran::of(child.wait_with_output().expect("it ends"))
}

const SAVE: &str = "[schedule.save]\njob = \"backup\"\ntarget = \"db\"\ncron = \"0 2 * * *\"\n";

#[test]
fn what_was_missed_runs_once() {
    let sandbox = with(SAVE);
    // A schedule counts from when it is first seen.
    sandbox
        .run(&["schedule", "run", "--once"])
        .ended(0)
        .says("nothing is due");
    handled(&sandbox, "save", "2026-01-01T02:00:00Z");
    let list = sandbox.run(&["schedule", "list", "--json"]).ended(0).json();
    assert_eq!(list["schedules"][0]["next"], "2026-01-02T02:00:00Z");
    let plan = sandbox.run(&["schedule", "run", "--once", "--dry-run"]).ended(0);
    assert!(plan.stdout.contains("would run save: opsctl"), "{}", plan.stdout);
    assert!(plan.stdout.trim_end().ends_with("backup db"), "{}", plan.stdout);

    let runs = sandbox.run(&["schedule", "run", "--once", "--json"]).ended(0).json();
    assert_eq!(runs["runs"].as_array().map(Vec::len), Some(1));
    assert_eq!(runs["runs"][0]["outcome"], "succeeded");
    assert!(runs["runs"][0]["missed"].as_u64() > Some(100), "{runs}");
    sandbox
        .run(&["schedule", "run", "--once"])
        .ended(0)
        .says("nothing is due");
    let snapshots = sandbox.run(&["snapshot", "list", "--json"]).ended(0).json();
    assert_eq!(snapshots["snapshots"].as_array().map(Vec::len), Some(1));

    let list = sandbox.run(&["schedule", "list"]).ended(0);
    assert!(list.stdout.contains("succeeded"), "{}", list.stdout);
    let metrics = fs::read_to_string(sandbox.path(".opsctl/schedule/local/metrics.prom")).expect("metrics");
    for line in [
        "# TYPE schedule_runs_total counter\n",
        "schedule_runs_total{schedule=\"save\",outcome=\"succeeded\"} 1\n",
        "schedule_last_success_timestamp_seconds{schedule=\"save\"} ",
        "schedule_next_start_timestamp_seconds{schedule=\"save\"} ",
    ] {
        assert!(metrics.contains(line), "{line} is not in:\n{metrics}");
    }
}

#[test]
fn a_job_that_fails_is_remembered_as_failed_and_the_others_run() {
    let sandbox = with(&format!(
        "{SAVE}[schedule.broken]\njob = \"backup\"\ntarget = \"files\"\ncron = \"0 1 * * *\"\n"
    ));
    sandbox.run(&["schedule", "run", "--once"]).ended(0);
    handled(&sandbox, "save", "2026-01-01T02:00:00Z");
    handled(&sandbox, "broken", "2026-01-01T02:00:00Z");
    fs::remove_dir_all(sandbox.path("data/uploads")).expect("our own folder");
    let runs = sandbox.run(&["schedule", "run", "--once", "--json"]).ended(3).json();
    // They run side by side, and are told as they end.
    let run = |name: &str| {
        let mut runs = runs["runs"].as_array().expect("runs").iter();
        runs.find(|run| run["schedule"] == name).expect("its run").clone()
    };
    assert_eq!(run("broken")["outcome"], "failed");
    assert_eq!(run("broken")["exit_code"], 2);
    assert_eq!(run("save")["outcome"], "succeeded");
    // It is done with until its next time.
    sandbox
        .run(&["schedule", "run", "--once"])
        .ended(0)
        .says("nothing is due");
    assert_eq!(record(&sandbox, "broken")["counts"]["failed"], 1);
}

#[test]
fn a_runner_runs_on_time_alone_and_ends_cleanly() {
    let sandbox = with("[schedule.often]\njob = \"backup\"\ntarget = \"db\"\ncron = \"* * * * * *\"\n");
    let mut runner = start(&sandbox, &["schedule", "run", "--json"]);
    let mut lines = BufReader::new(runner.stdout.take().expect("stdout")).lines();
    for _ in 0..2 {
        let line = lines.next().expect("a run ends").expect("text");
        let ran: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(ran["outcome"], "succeeded", "{line}");
    }
    sandbox
        .run(&["schedule", "run"])
        .ended(8)
        .says("another process runs these schedules");
    sandbox.run(&["schedule", "run", "--once"]).ended(8);
    signal(&runner, rustix::process::Signal::INT);
    let rest: Vec<_> = lines.collect();
    let ended = end(runner).ended(130);
    assert!(rest.len() < 3, "{rest:?} {}", ended.stderr);
    assert_eq!(record(&sandbox, "often")["running"], Value::Null);
    sandbox.run(&["repository", "check", "--read-data"]).ended(0);

    let mut runner = start(&sandbox, &["schedule", "run", "--json"]);
    let mut lines = BufReader::new(runner.stdout.take().expect("stdout")).lines();
    lines.next().expect("a run ends").expect("text");
    sandbox.run(&["schedule", "run", "--once"]).ended(8);
    signal(&runner, rustix::process::Signal::TERM);
    drop(lines);
    end(runner).ended(143);
}

#[test]
fn a_kill_in_the_middle_leaves_what_the_next_run_finishes() {
    let sandbox = with(
        "[cleanup.sold]\ndatastore = \"db\"\ntable = \"orders\"\nwhere = \"item = 'sold'\"\nbatch = 1\npause = \"20ms\"\nschedule = \"0 2 * * *\"\n",
    );
    let database = rusqlite::Connection::open(sandbox.path("data/shop.db")).expect("a database");
    database
        .execute_batch(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200) INSERT INTO orders (item) SELECT 'sold' FROM n;",
        )
        .expect("rows");
    let left = || -> i64 {
        database
            .query_row("SELECT count(*) FROM orders WHERE item = 'sold'", [], |row| row.get(0))
            .expect("a number")
    };
    sandbox.run(&["schedule", "run", "--once"]).ended(0);
    handled(&sandbox, "cleanup.sold", "2026-01-01T02:00:00Z");
    let mut child = start(&sandbox, &["schedule", "run", "--once"]);
    eventually("some rows are gone", || left() < 190);
    child.kill().expect("it runs");
    end(child);
    let after_kill = left();
    assert!(after_kill > 0);
    assert!(record(&sandbox, "cleanup.sold")["running"].is_object());

    sandbox
        .run(&["schedule", "run", "--once"])
        .ended(0)
        .says("is gone with its process");
    assert_eq!(left(), 0);
    let record = record(&sandbox, "cleanup.sold");
    assert_eq!(record["running"], Value::Null);
    assert_eq!(record["counts"], json!({ "succeeded": 1, "lost": 1 }));
    assert_eq!(record["rows"], after_kill);
    assert_eq!(Sandbox::rows(&sandbox.path("data/shop.db")), ["book", "pen"]);
}

#[test]
fn a_job_that_outlives_a_killed_runner_is_not_started_again() {
    let sandbox = with(SAVE);
    sandbox.run(&["schedule", "run", "--once"]).ended(0);
    // As a killed runner leaves it: this test stands for the job's process.
    let mut left = record(&sandbox, "save");
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
    let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("Linux");
    left["handled"] = json!("2026-01-01T02:00:00Z");
    left["running"] = json!({
        "occurrence": "2026-01-02T02:00:00Z", "started": "2026-01-02T02:00:00Z", "host": host.trim(),
        "pid": std::process::id(), "start_ticks": fields[19].parse::<u64>().expect("a number"),
    });
    sandbox.write(".opsctl/schedule/local/save.json", &left.to_string());
    sandbox
        .run(&["schedule", "run", "--once"])
        .ended(0)
        .says("nothing is due");
    sandbox.run(&["schedule", "run", "save"]).ended(8).says("runs already");
    let list = sandbox.run(&["schedule", "list", "--json"]).ended(0).json();
    assert_eq!(list["schedules"][0]["running_since"], "2026-01-02T02:00:00Z");
}

/// A server that notes what is asked of it and answers by a function.
fn server(answer: impl Fn(&str) -> (u16, String) + Send + 'static) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let asked = Arc::new(Mutex::new(Vec::new()));
    let notes = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream);
            let mut first = String::new();
            let _ = reader.read_line(&mut first);
            let mut length = 0;
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) == 0 || line.trim().is_empty() {
                    break;
                }
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap_or(0);
                }
            }
            let mut body = vec![0; length];
            let _ = std::io::Read::read_exact(&mut reader, &mut body);
            let line = first
                .trim_end_matches(['\r', '\n'])
                .trim_end_matches(" HTTP/1.1")
                .to_owned();
            let (status, text) = answer(&line);
            notes
                .lock()
                .expect("no panic")
                .push(format!("{line} {}", String::from_utf8_lossy(&body)).trim().to_owned());
            let _ = write!(
                reader.get_mut(),
                "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
                text.len()
            );
        }
    });
    (format!("http://{address}"), asked)
}

#[test]
fn who_waits_for_a_ping_is_told_and_a_ping_fails_no_job() {
    let (url, asked) = server(|_| (200, String::new()));
    let sandbox = with(
        "[schedule.save]\njob = \"backup\"\ntarget = \"db\"\ncron = \"@daily\"\nping = { file = \"ping\" }\n\
         [schedule.broken]\njob = \"backup\"\ntarget = \"files\"\ncron = \"@daily\"\nping = { url = { env = \"CHECK\" }, method = \"POST\" }\n",
    );
    sandbox.write("ping", &format!("{url}/one?rid=7\n"));
    fs::remove_dir_all(sandbox.path("data/uploads")).expect("our own folder");
    sandbox.run(&["schedule", "run", "save"]).ended(0);
    let ran = sandbox
        .command(&["schedule", "run", "broken"])
        .env("CHECK", format!("{url}/two"))
        .output();
    Ran::of(ran.expect("opsctl starts")).ended(2);
    let asked = asked.lock().expect("no panic").clone();
    assert_eq!(
        asked[..3],
        ["GET /one/start?rid=7", "GET /one?rid=7", "POST /two/start backup files"]
    );
    assert!(asked[3].starts_with("POST /two/fail broken failed"), "{asked:?}");
    assert_eq!(asked.len(), 4);

    // Nobody listens; the address, a secret, is not told.
    let gone = sandbox::free_port();
    sandbox.write("ping", &format!("http://127.0.0.1:{gone}/hidden\n"));
    let ran = sandbox
        .run(&["schedule", "run", "save"])
        .ended(0)
        .says("the ping of `save` was not sent");
    assert!(!ran.stderr.contains("hidden"), "{}", ran.stderr);
    sandbox.write("ping", "\n");
    sandbox.run(&["schedule", "run", "save"]).ended(0).says("is empty");
}

#[test]
fn a_protected_environment_is_asked() {
    let sandbox = with(SAVE);
    let text = fs::read_to_string(sandbox.path("opsctl.toml")).expect("the file");
    sandbox.write(
        "opsctl.toml",
        &text.replace("[env.local]\n", "[env.local]\nprotected = true\n"),
    );
    for args in [&["schedule", "run", "--once"][..], &["schedule", "run", "save"]] {
        sandbox.run(args).ended(5).says("environment `local` is protected");
        let yes = [args, &["--yes"]].concat();
        sandbox.run(&yes).ended(5).says("needs a reason");
        sandbox
            .run(&[yes.as_slice(), &["--reason", "by cron"]].concat())
            .ended(0);
    }
    // Looking asks nobody.
    sandbox.run(&["schedule", "list"]).ended(0);
    sandbox.run(&["schedule", "run", "--once", "--dry-run"]).ended(0);
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let sandbox = with(
        "[schedule.a]\njob = \"bakup\"\ncron = \"0 2 * * *\"\n\
         [schedule.b]\njob = \"backup\"\ntarget = \"dbb\"\ncron = \"0 25 * * *\"\ntimezone = \"Europe/Berlni\"\n\
         [schedule.c]\njob = \"prune\"\ntarget = \"here\"\ncron = \"0 0 30 2 *\"\nquiet_hours = [\"00:00-24:00\"]\n\
         [schedule.d]\njob = \"check\"\nquiet_hour = []\n\
         [schedule.e]\njob = \"cleanup\"\ntarget = \"rest\"\ncron = \"@daily\"\nping = \"https://hc.example/secret\"\n\
         [cleanup.rows]\ndatastore = \"db\"\ntable = \"orders\"\n\
         [cleanup.all]\ndatastore = \"db\"\ntable = \"orders\"\nwhere = \"1 = 1\"\n\
         [cleanup.old]\ndatastore = \"files\"\ntable = \"orders\"\nwhere = \"at < :cutoff\"\n\
         [cleanup.sql]\ndatastore = \"db\"\nsql = \"DELETE FROM orders\"\n\
         [cleanup.both]\ntable = \"a\"\nwhere = \"b\"\ncall = { service = \"shop\", path = \"gc\" }\n",
    );
    let ran = sandbox.run(&["config", "check"]).ended(2);
    for told in [
        "opsctl.toml:14:7: `bakup` is no job, did you mean `backup`?",
        "opsctl.toml:18:10: schedule `b` is for the datastore or service `dbb`, which is not declared, did you mean `db`?",
        "`0 25 * * *` is no schedule: 25 is no hour: expected 0 to 23",
        "`Europe/Berlni` is no time zone, did you mean `Europe/Berlin`?",
        "it never happens",
        "the quiet hours leave no time in the whole week",
        "takes no target",
        "unknown key `quiet_hour` in `schedule.d`, did you mean `quiet_hours`?",
        "`schedule.d` needs `cron`",
        "schedule `e` is for the cleanup `rest`, which is not declared",
        "a secret is never written here",
        "`cleanup.rows` needs `where`: without a condition every row of `orders` would go",
        "`1 = 1` names no column",
        "datastore `files` is of kind `files`, rows are of sqlite and postgres",
        "`:cutoff` needs `cutoff = ",
        "the statement has no WHERE: every row would go",
        "`cleanup.both` needs one of `table` with `where`, `sql`, `call`",
    ] {
        assert!(ran.stderr.contains(told), "{told:?} is not in:\n{}", ran.stderr);
    }
    assert!(!ran.stderr.contains("hc.example"), "a secret is never shown");
}

#[test]
fn an_expression_can_be_tried_out() {
    let sandbox = Sandbox::new();
    let next = |expression: &str, place: &str, after: &str| {
        sandbox.run(&[
            "schedule",
            "next",
            "--expression",
            expression,
            "--timezone",
            place,
            "--after",
            after,
            "-n",
            "3",
            "--json",
        ])
    };
    let document = next("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z")
        .ended(0)
        .json();
    let starts: Vec<&str> = document["times"]
        .as_array()
        .expect("times")
        .iter()
        .filter_map(|time| time["start"].as_str())
        .collect();
    assert_eq!(
        starts,
        ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]
    );
    next("61 * * * *", "UTC", "2026-03-28T00:00:00Z")
        .ended(2)
        .says("61 is no minute");
    next("* * * * *", "Mars/Olympus", "2026-03-28T00:00:00Z")
        .ended(2)
        .says("is no time zone");
}

#[test]
fn an_unknown_name_is_told_with_those_that_there_are() {
    let sandbox = with(SAVE);
    sandbox
        .run(&["schedule", "run", "sav"])
        .ended(2)
        .says("did you mean `save`?");
    sandbox
        .run(&["schedule", "next", "nothing-like-it"])
        .ended(2)
        .says("declared are save");
}

const EXPORTED: &str = "[cluster.eu]\ncontext = \"eu\"\nimage = \"registry.internal/opsctl:1\"\n\
    [env.production]\nplatform = \"kubernetes\"\nclusters = [\"eu\"]\nnamespace = \"shop\"\nprotected = true\nrepository = \"here\"\n\
    [schedule.save]\njob = \"backup\"\ncron = \"*/15 2 13 * FRI\"\ntimezone = \"Europe/Berlin\"\njitter = \"5m\"\n\
    [schedule.look]\njob = \"check\"\ncron = \"@weekly\"\nquiet_hours = [\"MON-FRI 08:00-18:00\"]\n\
    [cleanup.sold]\ndatastore = \"db\"\ntable = \"orders\"\nwhere = \"item = 'so%d'\"\nschedule = \"0 3 * * 1-5\"\n\
    [datastore.pg]\nkind = \"postgres\"\ndsn = { env = \"DATABASE_URL\" }\nbackup = { method = \"physical\" }\n";

#[test]
fn systemd_takes_the_timers() {
    let sandbox = with(EXPORTED);
    sandbox
        .run(&["-e", "production", "schedule", "export", "systemd", "--into", "units"])
        .ended(0);
    let timer = fs::read_to_string(sandbox.path("units/opsctl-save.timer")).expect("a timer");
    assert!(
        timer.contains(
            "OnCalendar=*-*-13 02:00,15,30,45:00 Europe/Berlin\nOnCalendar=Fri *-*-* 02:00,15,30,45:00 Europe/Berlin\nRandomizedDelaySec=300s\n"
        ),
        "{timer}"
    );
    assert!(timer.contains("Persistent=true\n"), "{timer}");
    let service = fs::read_to_string(sandbox.path("units/opsctl-cleanup-sold.service")).expect("a service");
    assert!(
        service.contains("schedule run cleanup:sold --yes --reason \"systemd timer\"\n"),
        "{service}"
    );
    let service = fs::read_to_string(sandbox.path("units/opsctl-continuous-pg.service")).expect("a service");
    assert!(
        service.contains("--no-input backup pg --follow\nRestart=always\n") && service.contains("[Install]\n"),
        "{service}"
    );
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        peers::skip("systemd_takes_the_timers", "systemd-analyze is not installed");
        return;
    }
    let units: Vec<_> = fs::read_dir(sandbox.path("units"))
        .expect("a folder")
        .map(|entry| entry.expect("a file").path())
        .collect();
    assert_eq!(units.len(), 7);
    let verified = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .args(&units)
        .output()
        .expect("systemd-analyze starts");
    let told = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success(), "{told}");
    assert!(!told.contains("opsctl-"), "{told}");
}

#[test]
fn kubernetes_takes_the_cron_jobs() {
    let sandbox = with(EXPORTED);
    let export = ["-e", "production", "schedule", "export", "kubernetes", "--into", "jobs"];
    sandbox.run(&export).ended(0);
    let job = fs::read_to_string(sandbox.path("jobs/opsctl-save.yaml")).expect("a job");
    for line in [
        "  schedule: \"0,15,30,45 2 13 * 5\"\n",
        "  timeZone: Europe/Berlin\n",
        "  concurrencyPolicy: Forbid\n",
        "  startingDeadlineSeconds: 3600\n",
        "automountServiceAccountToken: false\n",
        "runAsNonRoot: true\n",
        "image: \"registry.internal/opsctl:1\"\n",
        "\"--as-scheduled\"",
    ] {
        assert!(job.contains(line), "{line:?} is not in:\n{job}");
    }
    let pod = fs::read_to_string(sandbox.path("jobs/opsctl-continuous-pg.yaml")).expect("a Deployment");
    for line in [
        "kind: Deployment\n",
        "    type: Recreate\n",
        "restartPolicy: Always\n",
        "\"--follow\"",
    ] {
        assert!(pod.contains(line), "{line:?} is not in:\n{pod}");
    }
    sandbox
        .run(&["-e", "local", "schedule", "export", "kubernetes"])
        .ended(2)
        .says("which image of opsctl");
    let test = "kubernetes_takes_the_cron_jobs";
    let (Some(kubeconform), Some(schemas)) = (
        peers::peer("kubeconform", test),
        peers::peer("kubernetes-schemas", test),
    ) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    stand_alone(&schemas.join("v1.36.0-local-strict"), folder.path());
    let checked = Command::new(kubeconform)
        .args(["-strict", "-summary", "-output", "json", "-schema-location"])
        .arg(folder.path().join("{{.ResourceKind}}{{.KindSuffix}}.json"))
        .arg(sandbox.path("jobs"))
        .output()
        .expect("kubeconform starts");
    let told = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success(), "{told}");
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(
        told["summary"],
        json!({ "valid": 5, "invalid": 0, "errors": 0, "skipped": 0 })
    );
}

/// Puts the definitions that the schemas share into each, since kubeconform looks for them nowhere else.
fn stand_alone(schemas: &Path, into: &Path) {
    let read = |name: &str| fs::read_to_string(schemas.join(name)).expect("a schema");
    let shared: Value = serde_json::from_str(&read("_definitions.json")).expect("JSON");
    for name in [
        "cronjob-batch-v1.json",
        "deployment-apps-v1.json",
        "serviceaccount-v1.json",
    ] {
        let text = read(name).replace("/api/_definitions.json#", "#");
        let mut schema: Value = serde_json::from_str(&text).expect("JSON");
        schema["$defs"] = shared["$defs"].clone();
        fs::write(into.join(name), schema.to_string()).expect("our own file");
    }
}
