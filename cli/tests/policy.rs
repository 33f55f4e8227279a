//! Live policies through the real binary and a real service: shown, forced, let go by time or by hand, and what is told
//! when a name is wrong, nobody is there, or changes are not allowed.

#[path = "support/sandbox.rs"]
mod sandbox;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use sandbox::{Sandbox, eventually, example, tiny_service};
use serde_json::Value;

/// The service `shop` of two instances; `words` are its arguments, `env` is its environment.
fn shop(words: &[&str], env: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    let mut command = vec![example("guarded_service").display().to_string()];
    command.extend(words.iter().map(|word| (*word).to_owned()));
    sandbox.write(
        "opsctl.toml",
        &format!(
            "version = 1\n[env.local]\n[service.shop]\nhealth = {{ http = \"/healthz\" }}\n[service.shop.local]\n\
             command = {command:?}\nreplicas = 2\nenv = {{ {env} }}\n\
             [service.other]\nhealth = {{ http = \"/healthz\" }}\nlocal = {{ command = [{:?}] }}\n",
            tiny_service().display().to_string()
        ),
    );
    sandbox
}

/// The same, up, and open for changes.
fn up() -> Sandbox {
    let sandbox = shop(&[], "ADMIN_WRITES = \"1\"");
    sandbox.run(&["up"]).ended(0);
    sandbox
}

fn policies(sandbox: &Sandbox) -> Vec<Value> {
    let shown = sandbox.run(&["policy", "show", "shop", "--json"]).ended(0).json();
    assert_eq!(shown["schema"], "opsctl.policies/v1");
    shown["policies"].as_array().expect("policies").clone()
}

/// States of the breaker `peer`, by instance.
fn states(sandbox: &Sandbox) -> Vec<(String, String)> {
    let word = |policy: &Value, pointer: &str| {
        let value = policy.pointer(pointer).and_then(Value::as_str);
        value.unwrap_or_default().to_owned()
    };
    policies(sandbox)
        .iter()
        .filter(|policy| policy["name"] == "peer")
        .map(|policy| (word(policy, "/instance"), word(policy, "/breaker/state")))
        .collect()
}

fn both(state: &str) -> Vec<(String, String)> {
    ["shop-1", "shop-2"]
        .map(|instance| (instance.to_owned(), state.to_owned()))
        .to_vec()
}

/// Asks an instance itself, behind the proxy: status and body.
fn ask(sandbox: &Sandbox, instance: &str, path: &str) -> (u16, String) {
    let status = sandbox.run(&["status", "--json"]).json();
    let address = status["services"]
        .as_array()
        .expect("services")
        .iter()
        .flat_map(|service| service["instances"].as_array().expect("instances"))
        .find(|known| known["id"] == instance)
        .and_then(|known| known["addresses"]["http"].as_str())
        .expect("an address")
        .to_owned();
    let mut stream = TcpStream::connect(address).expect("a connection");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    (status.expect("a status"), answer)
}

/// The audit lines of an instance.
fn audited(sandbox: &Sandbox, instance: &str) -> Vec<Value> {
    let logs = sandbox.run(&["logs", "shop", "--instance", instance]).ended(0).stdout;
    let lines = logs
        .lines()
        .filter_map(|line| line.find('{').map(|start| &line[start..]));
    lines
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["target"] == "audit")
        .collect()
}

#[test]
fn shown_for_people_and_for_scripts() {
    let sandbox = up();
    ask(&sandbox, "shop-1", "/call");
    let shown = policies(&sandbox);
    let names: Vec<_> = shown
        .iter()
        .map(|policy| (&policy["instance"], &policy["name"]))
        .collect();
    assert_eq!(
        format!("{names:?}"),
        r#"[(String("shop-1"), String("peer")), (String("shop-2"), String("peer")), (String("shop-1"), String("plain")), (String("shop-2"), String("plain"))]"#
    );
    assert_eq!(shown[0]["service"], "shop");
    assert_eq!(shown[0]["breaker"]["window_calls"], 1);
    assert_eq!(shown[1]["breaker"]["window_calls"], 0);
    assert_eq!(shown[0]["bulkhead"]["limit"], 100);
    assert_eq!(shown[0]["forced"], Value::Null);
    assert_eq!(shown[2]["breaker"], Value::Null);

    // `other` has no admin listener, and nobody asked for it.
    let table = sandbox.run(&["policy", "show"]).ended(0);
    assert_eq!(table.stderr, "");
    let rows: Vec<Vec<&str>> = table.stdout.lines().map(|line| line.split("  ").collect()).collect();
    assert!(rows[0][0].starts_with("INSTANCE"), "{}", table.stdout);
    assert!(
        table.stdout.contains("1 calls, 0.0 % failed") && table.stdout.contains("30 left"),
        "{}",
        table.stdout
    );
    assert!(table.stdout.contains("0 of 100 inside"), "{}", table.stdout);
    assert_eq!(table.stdout.lines().count(), 5, "{}", table.stdout);
    let one = sandbox.run(&["policy", "show", "--instance", "shop-2"]).ended(0).stdout;
    assert!(one.contains("shop-2") && !one.contains("shop-1"), "{one}");
}

#[test]
fn forced_open_refuses_calls_until_its_time_is_over() {
    let sandbox = up();
    assert_eq!(ask(&sandbox, "shop-1", "/call").0, 200);
    let forced = sandbox
        .run(&[
            "policy", "force", "shop", "peer", "open", "--for", "4s", "--reason", "game day", "--json",
        ])
        .ended(0)
        .json();
    assert_eq!(forced["schema"], "opsctl.policy/v1");
    assert_eq!(forced["instances"][0]["state_before"], "closed");
    assert_eq!(forced["instances"][1]["state"], "forced_open");
    assert_eq!(states(&sandbox), both("forced_open"));
    let shown = policies(&sandbox);
    assert_eq!(shown[0]["forced"]["reason"], "game day");
    assert_eq!(shown[0]["breaker"]["last_transitions"][0]["to"], "forced_open");
    for instance in ["shop-1", "shop-2"] {
        assert_eq!(ask(&sandbox, instance, "/call").0, 503);
        let metrics = ask(&sandbox, instance, "/metrics").1;
        for series in [
            r#"circuit_breaker_state{name="peer",state="forced_open"} 1"#,
            r#"circuit_breaker_state{name="peer",state="closed"} 0"#,
            r#"circuit_breaker_calls_total{name="peer",outcome="rejected"} 1"#,
        ] {
            assert!(metrics.contains(series), "{series} is not in\n{metrics}");
        }
    }
    let audit = audited(&sandbox, "shop-2");
    let line = audit.iter().find(|line| line["message"] == "breaker forced");
    let line = line.unwrap_or_else(|| panic!("{audit:#?}"));
    assert_eq!(
        (&line["policy"], &line["state"]),
        (&"peer".into(), &"forced_open".into())
    );
    assert_eq!(line["ttl_seconds"].as_f64(), Some(4.0));
    assert_eq!(line["reason"], "game day");
    assert_eq!(line["actor"], forced["actor"]);

    eventually("the end of the forced time", || states(&sandbox) == both("closed"));
    assert_eq!(ask(&sandbox, "shop-1", "/call").0, 200);
}

#[test]
fn one_instance_alone_and_the_way_back() {
    let sandbox = up();
    sandbox
        .run(&["policy", "force", "shop", "peer", "closed", "--dry-run"])
        .ended(0)
        .says("would force the breaker `peer` closed for 10m");
    assert_eq!(states(&sandbox), both("closed"));
    let forced = sandbox
        .run(&["policy", "force", "shop", "peer", "open", "--instance", "shop-2"])
        .ended(0)
        .says("is forced open for 10m");
    assert!(
        forced.stdout.starts_with("shop-2  was closed, is forced open until "),
        "{}",
        forced.stdout
    );
    assert_eq!(states(&sandbox)[0].1, "closed");
    assert_eq!(states(&sandbox)[1].1, "forced_open");
    sandbox
        .run(&["policy", "show", "shop"])
        .ended(0)
        .says("shop-2 peer: forced open by");
    sandbox
        .run(&["policy", "reset", "shop", "peer"])
        .ended(0)
        .says("decides by itself again");
    assert_eq!(states(&sandbox), both("closed"));
    let audit = audited(&sandbox, "shop-2");
    assert!(
        audit.iter().any(|line| line["message"] == "breaker reset"),
        "{audit:#?}"
    );
}

#[test]
fn wrong_names_are_told_with_those_that_there_are() {
    let sandbox = shop(&[], "ADMIN_WRITES = \"1\"");
    let show = ["policy", "show", "shop"];
    sandbox
        .run(&show)
        .ended(2)
        .says("`shop` does not run")
        .says("opsctl up shop");
    sandbox.run(&["policy", "show"]).ended(2).says("nothing runs");
    sandbox.run(&["up"]).ended(0);
    sandbox
        .run(&["policy", "show", "shpo"])
        .ended(2)
        .says("did you mean `shop`?");
    let force = |words: &[&str]| sandbox.run(&[&["policy", "force"], words].concat());
    force(&["shpo", "peer", "open"])
        .ended(2)
        .says("declared are other, shop");
    force(&["shop", "pear", "open"])
        .ended(2)
        .says("there is no policy `pear`")
        .says("there are peer, plain")
        .says("did you mean `peer`?");
    force(&["shop", "peer", "open", "--instance", "shop-3"])
        .ended(2)
        .says("there are shop-1, shop-2");
    force(&["shop", "plain", "open"]).ended(2).says("has no breaker");
    sandbox
        .run(&["policy", "reset", "shop", "pear"])
        .ended(2)
        .says("there is no policy `pear`");
    assert_eq!(states(&sandbox), both("closed"));
}

#[test]
fn changes_need_leave_and_a_protected_environment_a_reason() {
    let sandbox = shop(&[], "");
    sandbox.run(&["up"]).ended(0);
    let force = ["policy", "force", "shop", "peer", "open"];
    sandbox
        .run(&force)
        .ended(5)
        .says("takes no changes")
        .says("ADMIN_WRITES");
    assert_eq!(states(&sandbox), both("closed"));
    let audit = audited(&sandbox, "shop-1");
    assert!(
        audit.iter().any(|line| line["message"] == "admin write refused"),
        "{audit:#?}"
    );
    let text = std::fs::read_to_string(sandbox.path("opsctl.toml")).expect("the file");
    sandbox.write(
        "opsctl.toml",
        &text
            .replace("[env.local]", "[env.local]\nprotected = true")
            .replace("env = {  }", "env = { ADMIN_WRITES = \"1\" }"),
    );
    sandbox.run(&["up"]).ended(0);
    // The instances with the new environment have other names.
    let all = |sandbox: &Sandbox| -> Vec<String> { states(sandbox).into_iter().map(|(_, state)| state).collect() };
    sandbox.run(&force).ended(5).says("is protected");
    sandbox
        .run(&[&force[..], &["--yes"]].concat())
        .ended(5)
        .says("needs a reason");
    assert_eq!(all(&sandbox), ["closed", "closed"]);
    sandbox
        .run(&[&force[..], &["--yes", "--reason", "game day"]].concat())
        .ended(0);
    sandbox
        .run(&["policy", "reset", "shop", "peer"])
        .ended(5)
        .says("is protected");
    assert_eq!(all(&sandbox), ["forced_open", "forced_open"]);
}

#[test]
fn who_does_not_answer_is_named() {
    let sandbox = shop(&["--bare"], "");
    sandbox.run(&["up"]).ended(0);
    sandbox
        .run(&["policy", "show"])
        .ended(0)
        .says("nothing that runs tells of policies");
    sandbox
        .run(&["policy", "show", "shop"])
        .ended(7)
        .says("`shop-1`: it has no admin listener")
        .says("ADMIN_ADDR");
    sandbox.run(&["down"]).ended(0);

    let sandbox = up();
    // A socket that is there, and nobody behind it.
    let socket = sandbox.path(".opsctl/admin/shop-2.sock");
    std::fs::remove_file(&socket).expect("the socket of the instance");
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("a socket of ours"));
    let partial = sandbox.run(&["policy", "show", "shop"]).ended(3);
    assert!(partial.stdout.contains("shop-1"), "{}", partial.stdout);
    partial.says("shop-2: its admin listener does not answer");
    sandbox
        .run(&["policy", "force", "shop", "peer", "open"])
        .ended(3)
        .says("shop-2: its admin listener does not answer");
    sandbox
        .run(&["policy", "reset", "shop", "peer", "--instance", "shop-2"])
        .ended(7)
        .says("`shop-2`: its admin listener does not answer");
}

/// A project whose admin sockets would have too long a path: its listeners are on loopback, with a token file each.
struct Deep(Sandbox, String);

impl Drop for Deep {
    fn drop(&mut self) {
        let _ = self.0.command(&["--config", &self.1, "down", "-qq"]).output();
    }
}

#[test]
fn a_path_too_long_for_a_socket() {
    let sandbox = shop(&[], "ADMIN_WRITES = \"1\"");
    let text = std::fs::read_to_string(sandbox.path("opsctl.toml")).expect("the file");
    let file = format!("{}/opsctl.toml", "deep".repeat(30));
    sandbox.write(&file, &text);
    let deep = Deep(sandbox, file);
    let run = |words: &[&str]| deep.0.run(&[&["--config", &deep.1], words].concat());
    run(&["up", "shop"]).ended(0);
    run(&["policy", "force", "shop", "peer", "closed"]).ended(0);
    let shown = run(&["policy", "show", "shop"]).ended(0).stdout;
    assert_eq!(shown.matches("forced closed for").count(), 2, "{shown}");
    run(&["policy", "reset", "shop", "peer", "--json"]).ended(0);
}
