//! Every kind of drill through the real binary, on services of this machine.

#[path = "drills/alerts.rs"]
mod alerts;
#[path = "support/sandbox.rs"]
mod sandbox;

use std::process::Stdio;

use opsctl_proxy_control::{Client, HopClient};
use rustix::process::{Pid, Signal, kill_process};
use sandbox::{Sandbox, alive, eventually, free_port, tiny_service};
use serde_json::Value;

/// Two services, `shop` and `desk`, which depends on it; each has two instances and is probed.
fn up() -> Sandbox {
    let sandbox = Sandbox::new();
    let tiny = tiny_service().display().to_string();
    let service = |name: &str, more: &str| {
        format!(
            "[service.{name}]\nhealth = {{ http = \"/healthz\" }}\nprobe = {{ http = \"/\", rate = \"50/s\" }}\n\
             objectives = {{ availability = \"99%\", latency_p95 = \"100ms\" }}\n{more}\n\
             [service.{name}.local]\ncommand = [{tiny:?}]\nreplicas = 2\n"
        )
    };
    let shop = service("shop", "");
    let desk = service("desk", "depends_on = [\"shop\"]");
    sandbox.write("opsctl.toml", &format!("version = 1\n[env.local]\n{shop}{desk}"));
    sandbox.run(&["up"]).ended(0);
    sandbox
}

fn service(sandbox: &Sandbox, name: &str) -> Value {
    let status = sandbox.run(&["status", "--json"]).json();
    let services = status["services"].as_array().expect("services").clone();
    let mut found = services.into_iter().filter(|service| service["name"] == name);
    found.next().expect("one of ours")
}

/// The faults that the proxy plays on a service.
fn faults(sandbox: &Sandbox, service: &str) -> usize {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let client = Client::new(sandbox.path(".opsctl/proxy.sock"));
    runtime.block_on(client.faults(service)).expect("the proxy").len()
}

#[test]
fn a_service_is_taken_down_and_brought_back_while_its_caller_stands() {
    let sandbox = up();
    let plan = sandbox
        .run(&["drill", "service-down", "shop", "--dry-run", "--json"])
        .ended(0)
        .json();
    assert_eq!(plan["spec"]["others"][0]["service"], "desk", "{plan}");
    let report = sandbox
        .run(&["drill", "service-down", "shop", "--for", "2s", "--json"])
        .ended(0)
        .json();
    assert_eq!(
        (&report["kind"], &report["verdict"]),
        (&"service-down".into(), &"pass".into())
    );
    assert!(
        report["fault_probe"]["errors"].as_u64().expect("a count") > 50,
        "{report}"
    );
    let desk = &report["others"][0];
    assert_eq!((&desk["service"], &desk["ready_lowest"]), (&"desk".into(), &2.into()));
    assert_eq!(desk["during"]["probe"]["errors"], 0);
    let shop = service(&sandbox, "shop");
    assert!(
        shop["hold"].is_null() && shop["instances"].as_array().is_some_and(|all| all.len() == 2),
        "{shop}"
    );
    sandbox.run(&["down"]).ended(0);
}

#[test]
fn answers_are_slowed_for_a_while_and_nobody_fails() {
    let sandbox = up();
    let words = [
        "drill", "latency", "shop", "--delay", "200ms", "--jitter", "50ms", "--for", "2s", "--json",
    ];
    let report = sandbox.run(&words).ended(0).json();
    let during = &report["fault_probe"];
    let (slow, all) = (
        during["slow"].as_u64().expect("a count"),
        during["requests"].as_u64().expect("a count"),
    );
    assert!(slow * 10 > all * 8 && all > 50, "{during}");
    assert_eq!(during["errors"], 0);
    assert!(report["recovery"]["time_to_detect_seconds"].as_f64().expect("a time") < 5.0);
    assert_eq!(faults(&sandbox, "shop"), 0);
    // Of one that it depends on: that one is slow, and locked as well.
    let words = [
        "drill", "latency", "desk", "--to", "shop", "--delay", "200ms", "--for", "1s", "--json",
    ];
    let report = sandbox.run(&words).ended(0).json();
    assert_eq!(report["service"], "desk");
    assert!(
        report["others"][0]["during"]["probe"]["slow"]
            .as_u64()
            .expect("a count")
            > 20,
        "{report}"
    );
    assert_eq!(report["fault_probe"]["slow"], 0);
    sandbox
        .run(&["drill", "latency", "shop", "--to", "desk"])
        .ended(2)
        .says("does not depend on");
    sandbox
        .run(&["drill", "latency", "shop", "--no-probe"])
        .ended(5)
        .says("nobody would see");
    sandbox
        .run(&["drill", "latency", "shop", "--jitter", "1s"])
        .ended(2)
        .says("jitter");
    sandbox.run(&["down"]).ended(0);
}

#[test]
fn a_delay_that_nobody_keeps_up_ends_where_it_acts() {
    let sandbox = up();
    let mut command = sandbox.command(&["drill", "latency", "shop", "--delay", "100ms", "--for", "5m"]);
    let mut terminal = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("opsctl starts");
    eventually("the delay", || faults(&sandbox, "shop") == 1);
    let run = std::fs::read_dir(sandbox.path(".opsctl/runs"))
        .expect("runs")
        .flatten()
        .next();
    let record = std::fs::read(run.expect("a run").path().join("record.json")).expect("a record");
    let record: Value = serde_json::from_slice(&record).expect("a record");
    let pid = |process: &Value| process["pid"].as_i64().expect("a pid") as i32;
    let (watchdog, worker) = (pid(&record["watchdog"]), pid(&record["worker"]["process"]));
    let signal = |pid, signal| kill_process(Pid::from_raw(pid).expect("a pid"), signal).expect("a process of ours");
    // A terminal that looks on undoes when both are gone, and a worker that runs starts another watchdog, which does.
    terminal.kill().expect("our own child");
    terminal.wait().expect("our own child");
    signal(worker, Signal::STOP);
    signal(watchdog, Signal::KILL);
    signal(worker, Signal::KILL);
    eventually("their end", || !alive(watchdog) && !alive(worker));
    sandbox.run(&["drill", "latency", "shop"]).ended(8);
    let recovered = sandbox.run(&["recover", "--json"]).ended(0).json();
    assert_eq!(recovered["runs"][0]["state"], "undone", "{recovered}");
    assert_eq!(faults(&sandbox, "shop"), 0);
    sandbox.run(&["down"]).ended(0);
}

#[test]
fn what_this_machine_has_no_way_to_do_is_refused_with_the_reason() {
    let sandbox = up();
    sandbox
        .run(&["drill", "db-down", "shop"])
        .ended(5)
        .says("no network between");
    sandbox
        .run(&["drill", "node-drain", "n1"])
        .ended(5)
        .says("there are no nodes here");
    let plan = sandbox
        .run(&[
            "drill",
            "pod-kill",
            "shop",
            "--percent",
            "50",
            "-l",
            "instance=shop-2",
            "-n",
            "--json",
        ])
        .ended(0)
        .json();
    assert_eq!(plan["spec"]["victims"][0]["instance"], "shop-2", "{plan}");
    assert_eq!(plan["mutations"][0]["accepted"], true, "{plan}");
    sandbox
        .run(&["drill", "pod-kill", "shop", "-l", "zone=b"])
        .ended(2)
        .says("no ready instance");
    sandbox.run(&["down"]).ended(0);
}

#[test]
fn a_drill_that_a_file_describes_is_the_one_of_the_command_line() {
    let sandbox = up();
    let typed = [
        "drill",
        "latency",
        "desk",
        "--to",
        "shop",
        "--delay",
        "200ms",
        "--percent",
        "20",
        "--no-probe",
        "-n",
        "--json",
    ];
    sandbox.run(&typed).ended(5).says("nobody would see");
    let planned = sandbox.run(&[&typed[..9], &["-n", "--json"]].concat()).ended(0).json();
    let file = |more: &str| {
        let text =
            "version = 1\ndrill = \"latency\"\nservice = \"desk\"\nto = \"shop\"\ndelay = \"200ms\"\npercent = 20\n";
        sandbox.write("drills/slow.toml", &format!("{text}{more}"));
        sandbox.run(&["drill", "run", "drills/slow.toml", "--dry-run", "--json"])
    };
    assert_eq!(file("").ended(0).json()["spec"], planned["spec"]);
    file("no_probe = true\n").ended(5).says("nobody would see");
    file("jiter = \"1s\"\n").ended(2).says("did you mean `jitter`?");
    file("jitter = \"soon\"\n").ended(2).says("invalid value 'soon'");
    sandbox.run(&["down"]).ended(0);
}

/// A hop as it runs in a pod, before a PostgreSQL: sessions that went past it are ended when it is asked to.
#[tokio::test]
async fn a_hop_ends_the_sessions_that_were_open_before_it() {
    let test = "a_hop_ends_the_sessions_that_were_open_before_it";
    let Some(server) = peers::Server::start(peers::servers::Postgres::default(), test).await else {
        return;
    };
    let sandbox = Sandbox::new();
    sandbox.write("token", "secret\n");
    let (port, control) = (free_port(), free_port());
    let database = server.address("postgres");
    /// Whatever becomes of the test, it leaves no process.
    struct Ends(std::process::Child);
    impl Drop for Ends {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
    let hop = sandbox
        .command(&["internal", "hop", "--token", "token"])
        .args(["--forward", &format!("127.0.0.1:{port}={database}")])
        .args(["--control", &format!("127.0.0.1:{control}")])
        .args(["--sessions-at", &database.to_string()])
        .env("DATABASE_URL", "postgres://postgres@postgres.shop:5432/postgres")
        .spawn()
        .expect("opsctl starts");
    let mut hop = Ends(hop);
    let client = HopClient::new("secret");
    let control = || HopClient::connect(([127, 0, 0, 1], control).into());
    eventually("the hop", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let direct = format!("host=127.0.0.1 port={} user=postgres dbname=postgres", database.port());
    let (session, connection) = tokio_postgres::connect(&direct, tokio_postgres::NoTls)
        .await
        .expect("a session");
    let connection = tokio::spawn(connection);
    session.simple_query("select 1").await.expect("an answer");
    let ended = client
        .end_sessions(control().await.expect("the hop"))
        .await
        .expect("an answer");
    assert_eq!(ended, 1);
    let error = connection.await.expect("a task").expect_err("its session was ended");
    assert!(
        error.to_string().contains("terminat") || error.is_closed() || error.as_db_error().is_some(),
        "{error}"
    );
    let counted = client
        .counters(control().await.expect("the hop"))
        .await
        .expect("an answer");
    assert_eq!(counted.reset, 0);
    kill_process(Pid::from_raw(hop.0.id().cast_signed()).expect("a pid"), Signal::TERM).expect("our own child");
    assert!(hop.0.wait().expect("our own child").success());
}
