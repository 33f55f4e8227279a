//! Services on this machine through the real binary: up, status, logs, drills, canaries, restore in place, down; and what
//! is told when a port is taken or a service does not come up.

#[path = "support/sandbox.rs"]
mod sandbox;

use std::fs;
use std::net::TcpListener;

use sandbox::{Sandbox, eventually, free_port, tiny_service};

/// Of the fifty requests of a second a killed instance may take one or two with it, which it was answering.
fn service(more: &str, words: &[&str]) -> Sandbox {
    let sandbox = Sandbox::with_stores();
    let mut command = vec![tiny_service().display().to_string()];
    command.extend(words.iter().map(|word| (*word).to_owned()));
    let text = fs::read_to_string(sandbox.path("opsctl.toml")).expect("the file");
    sandbox.write(
        "opsctl.toml",
        &format!(
            "{text}[service.shop]\nuses = [\"db\"]\nhealth = {{ http = \"/healthz\" }}\nprobe = {{ http = \"/\", rate = \"50/s\" }}\n\
             objectives = {{ availability = \"90%\" }}\n[service.shop.local]\ncommand = {command:?}\nreplicas = 2\n{more}\n"
        ),
    );
    sandbox
}

#[test]
fn up_status_logs_down() {
    let sandbox = service("", &[]);
    let up = sandbox.run(&["up", "--json"]).ended(0).json();
    let port = up["ready"][0]["ports"]["http"].as_u64().expect("a port");
    let status = sandbox.run(&["status", "--json"]).ended(0).json();
    assert_eq!(status["services"][0]["name"], "shop");
    assert_eq!(status["healthy"], true);
    assert!(sandbox.run(&["status"]).ended(0).stdout.contains("2/2"));
    let load = sandbox
        .run(&[
            "load",
            "run",
            &format!("http://127.0.0.1:{port}/"),
            "--rate",
            "50/s",
            "--for",
            "1s",
            "--max-errors",
            "0%",
            "--json",
        ])
        .json();
    assert_eq!(load["scheduled"], 50);
    assert_eq!(load["failed"], 0);
    assert!(sandbox.run(&["logs", "shop"]).ended(0).stdout.contains("listening on"));
    sandbox.run(&["logs", "shpo"]).ended(2).says("did you mean `shop`?");
    sandbox.run(&["up"]).ended(0);
    sandbox.run(&["down"]).ended(0);
    sandbox.run(&["down"]).ended(0).says("nothing ran");
    sandbox.run(&["status"]).ended(0).says("nothing runs");
}

#[test]
fn a_port_that_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let sandbox = service(&format!("ports = {{ http = {port} }}"), &[]);
    sandbox.run(&["up"]).ended(2).says(&format!("port {port} is taken by"));
    sandbox.run(&["status"]).ended(0).says("nothing runs");
}

#[test]
fn a_service_that_dies_at_once() {
    let sandbox = service("", &["--die"]);
    sandbox
        .run(&["up"])
        .ended(1)
        .says("`shop` did not become ready")
        .says("there is no database");
    sandbox.run(&["status"]).ended(0).says("nothing runs");
}

#[test]
fn a_service_that_never_becomes_ready() {
    let sandbox = service("", &["--never-ready"]);
    sandbox
        .run(&["up", "--timeout", "3s"])
        .ended(7)
        .says("`shop` did not become ready")
        .says("0 of 2 ready");
    sandbox.run(&["status"]).ended(0).says("nothing runs");
}

#[test]
fn a_program_that_is_not_there() {
    let sandbox = service("", &[]);
    let text = fs::read_to_string(sandbox.path("opsctl.toml")).expect("the file");
    sandbox.write("opsctl.toml", &text.replace("tiny_service", "tiny_servic"));
    sandbox.run(&["up"]).ended(2).says("is not there");
    sandbox.run(&["up", "shpo"]).ended(2).says("did you mean `shop`?");
}

#[test]
fn a_drill_measures_and_its_guards_refuse() {
    let sandbox = service("", &[]);
    sandbox.run(&["drill", "pod-kill"]).ended(2);
    sandbox.run(&["up"]).ended(0);
    sandbox
        .run(&["drill", "pod-kill", "--count", "2"])
        .ended(5)
        .says("would leave none");
    sandbox
        .run(&["drill", "pod-kill", "shpo"])
        .ended(2)
        .says("did you mean `shop`?");
    sandbox.run(&["drill", "pod-kill", "--dry-run"]).ended(0);
    let report = sandbox
        .run(&["drill", "pod-kill", "--for", "2s", "--json"])
        .ended(0)
        .json();
    assert_eq!(report["schema"], "opsctl.drill/v1");
    assert_eq!(report["verdict"], "pass");
    assert!(report["recovery"]["time_to_recovery_seconds"].as_f64().is_some());
    assert!(sandbox.run(&["run", "list"]).ended(0).stdout.contains("passed"));
    sandbox.run(&["run", "show"]).ended(0);
    sandbox.run(&["recover"]).ended(0).says("nothing to do");
}

#[test]
fn a_protected_environment_wants_a_reason() {
    let sandbox = service("", &[]);
    let text = fs::read_to_string(sandbox.path("opsctl.toml")).expect("the file");
    sandbox.write(
        "opsctl.toml",
        &text.replace("[env.local]", "[env.local]\nprotected = true"),
    );
    sandbox.run(&["up"]).ended(0);
    sandbox.run(&["drill", "pod-kill"]).ended(5).says("is protected");
    sandbox
        .run(&["drill", "pod-kill", "--yes"])
        .ended(5)
        .says("needs a reason");
    sandbox
        .run(&["drill", "pod-kill", "--yes", "--reason", "game day", "--for", "1s"])
        .ended(0);
    let runs = sandbox.run(&["run", "list", "--json"]).ended(0).json();
    assert_eq!(runs["runs"][0]["reason"], "game day");
    assert_eq!(runs["runs"][0]["environment"], "local");
}

#[test]
fn restore_in_place_holds_the_service_swaps_and_keeps_the_old() {
    let sandbox = service(&format!("ports = {{ http = {} }}", free_port()), &[]);
    sandbox.run(&["backup", "db"]).ended(0);
    sandbox.run(&["up"]).ended(0);
    let database = rusqlite::Connection::open(sandbox.path("data/shop.db")).expect("the database");
    database
        .execute_batch("INSERT INTO orders (item) VALUES ('after the backup')")
        .expect("a row");
    sandbox
        .run(&["restore", "db", "--replace"])
        .ended(5)
        .says("`--yes` is required");
    // This process has the database open.
    sandbox
        .run(&["restore", "db", "--replace", "--yes"])
        .ended(5)
        .says("is open")
        .says(&format!("(pid {})", std::process::id()));
    // The service was let go again and comes up by itself.
    eventually("the service's return", || sandbox.run(&["status"]).code == 0);
    assert_eq!(Sandbox::rows(&sandbox.path("data/shop.db")).len(), 3);
    drop(database);

    let document = sandbox
        .run(&["restore", "db", "--replace", "--yes", "--json"])
        .ended(0)
        .json();
    assert_eq!(Sandbox::rows(&sandbox.path("data/shop.db")), ["book", "pen"]);
    let kept = document["kept"].as_str().expect("the old database is kept");
    assert_eq!(Sandbox::rows(kept.as_ref()), ["book", "pen", "after the backup"]);
    assert_eq!(sandbox.run(&["status", "--json"]).ended(0).json()["healthy"], true);
}

#[test]
fn a_canary_of_what_runs_already_is_nothing_to_do() {
    let sandbox = service("", &[]);
    sandbox.run(&["up"]).ended(0);
    sandbox
        .run(&["deploy", "canary", "--weight", "10"])
        .ended(0)
        .says("nothing to do");
    sandbox
        .run(&["deploy", "canary", "--version", "2", "--weight", "10"])
        .ended(2)
        .says("does not say what version `2` runs");
    sandbox.run(&["deploy", "abort"]).ended(0).says("nothing to do");
    sandbox.run(&["deploy", "promote"]).ended(2).says("there is no canary");
}

#[test]
fn two_at_once_exclude_each_other() {
    let sandbox = service("", &[]);
    sandbox.run(&["up"]).ended(0);
    let mut first = sandbox
        .command(&["drill", "pod-kill", "--for", "3s", "-q"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("opsctl starts");
    sandbox::eventually("the first drill", || {
        !sandbox.run(&["run", "list", "--active", "--json"]).json()["runs"]
            .as_array()
            .expect("runs")
            .is_empty()
    });
    sandbox.run(&["drill", "pod-kill"]).ended(8).says("is locked by run");
    assert!(first.wait().expect("it ends").success());
}
