//! Configurations that are wrong, not ours, or layered: what is refused, with which words, and which value wins.

#[path = "support/sandbox.rs"]
mod sandbox;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};

use sandbox::Sandbox;

const GOOD: &str = "version = 1\ndefault_env = \"local\"\n[env.local]\n[env.production]\nprotected = true\n\
    [defaults.service]\nobjectives = { availability = \"99.9%\" }\n\
    [service.shop]\nlocal = { command = [\"sh\"], replicas = 2 }\nenv.production = { local = { replicas = 5 } }\n";

#[test]
fn every_error_is_told_at_once_with_its_place() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "opsctl.toml",
        r#"version = 1
default_env = "local"
[env.local]
platform = "locl"
repository = "her"
[repository.here]
store = "ftp://x"
password = "hunter2"
[datastore.db]
kind = "sqlit"
path = "a.db"
[service.orders]
uses = ["dbb"]
depends_on = ["order"]
local = { comand = ["x"], replica = 2 }
objectives = { availability = 99.9, latency_p95 = "fast" }
env.prod = { team = "pay" }
[service.Bad_Name]
local = { command = [] }
"#,
    );
    let ran = sandbox.run(&["config", "check"]).ended(2);
    assert!(!ran.stderr.contains("hunter2"), "a secret is never shown");
    insta::assert_snapshot!(sandbox.told(&ran));
}

#[test]
fn an_unknown_key_names_file_line_and_the_key_that_was_meant() {
    let sandbox = Sandbox::new();
    sandbox.write("opsctl.toml", &GOOD.replace("replicas = 2", "replica = 2"));
    sandbox
        .run(&["config", "check"])
        .ended(2)
        .says("opsctl.toml:9:29: unknown key `replica` in `service.shop.local`, did you mean `replicas`?");
}

#[test]
fn a_syntax_error_has_its_place() {
    let sandbox = Sandbox::new();
    sandbox.write("opsctl.toml", "version = 1\n[env.local\n");
    sandbox.run(&["config", "check"]).ended(2).says("opsctl.toml:2:");
}

#[test]
fn what_others_may_write_is_refused_for_root_too() {
    let sandbox = Sandbox::new();
    sandbox.write("opsctl.toml", GOOD);
    let file = sandbox.path("opsctl.toml");
    for mode in [0o666, 0o664, 0o602] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("our own file");
        sandbox
            .run(&["config", "check"])
            .ended(5)
            .says("may write it")
            .says("chmod go-w");
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("our own file");
    fs::set_permissions(sandbox.path(""), fs::Permissions::from_mode(0o777)).expect("our own folder");
    sandbox
        .run(&["config", "check"])
        .ended(5)
        .says("everybody may write it (mode 0777)");
    fs::set_permissions(sandbox.path(""), fs::Permissions::from_mode(0o700)).expect("our own folder");
    sandbox.run(&["config", "check"]).ended(0);
}

#[test]
fn a_file_of_somebody_else_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.write("opsctl.toml", GOOD);
    if chown(sandbox.path("opsctl.toml"), Some(54_321), None).is_err() {
        peers::skip("a_file_of_somebody_else_is_refused", "only root can give a file away");
        return;
    }
    sandbox
        .run(&["config", "check"])
        .ended(5)
        .says("it belongs to uid 54321");
}

#[test]
fn layers_flag_variable_environment_service_defaults() {
    let sandbox = Sandbox::new();
    sandbox.write("opsctl.toml", GOOD);
    let shown = |args: &[&str], variables: &[(&str, &str)]| {
        let mut command = sandbox.command(&[&["config", "show", "service.shop", "--json"], args].concat());
        command.envs(variables.iter().copied());
        let output = command.output().expect("opsctl starts");
        let document: serde_json::Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        let find = |path: &str| {
            let value = document["values"]
                .as_array()
                .expect("values")
                .iter()
                .find(|value| value["path"] == path)
                .expect("the value")
                .clone();
            (
                value["value"].as_str().expect("text").to_owned(),
                value["origin"].as_str().expect("text").to_owned(),
            )
        };
        (
            find("service.shop.local.replicas"),
            find("service.shop.objectives.availability"),
        )
    };
    let (replicas, availability) = shown(&["-e", "local"], &[]);
    assert_eq!(replicas, ("2".to_owned(), "opsctl.toml:9:40".to_owned()));
    assert_eq!(availability, ("\"99.9%\"".to_owned(), "opsctl.toml:7:31".to_owned()));
    assert_eq!(shown(&["-e", "production"], &[]).0.0, "5");
    assert_eq!(shown(&[], &[("OPSCTL_ENV", "production")]).0.0, "5");
    assert_eq!(shown(&["-e", "local"], &[("OPSCTL_ENV", "production")]).0.0, "2");
    let (replicas, _) = shown(&["-e", "production"], &[("OPSCTL_SERVICE__SHOP__LOCAL__REPLICAS", "7")]);
    assert_eq!(
        replicas,
        ("7".to_owned(), "OPSCTL_SERVICE__SHOP__LOCAL__REPLICAS".to_owned())
    );
}

#[test]
fn variables_cannot_set_what_runs_or_who_is_asked() {
    let sandbox = Sandbox::new();
    sandbox.write("opsctl.toml", GOOD);
    for (variable, word) in [
        ("OPSCTL_SERVICE__SHOP__LOCAL__COMMAND", "command"),
        ("OPSCTL_SERVICE__SHOP__LOCAL__BUILD", "build"),
        ("OPSCTL_SERVICE__SHOP__CANARY__COMMAND", "command"),
    ] {
        let output = sandbox
            .command(&["config", "check", "-e", "local"])
            .env(variable, "[\"evil\"]")
            .output()
            .expect("opsctl starts");
        assert_eq!(output.status.code(), Some(2));
        assert!(
            String::from_utf8_lossy(&output.stderr)
                .contains(&format!("{variable}: `{word}` cannot be set by a variable"))
        );
    }
}

#[test]
fn included_files_hold_only_what_teams_own_and_no_name_twice() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "opsctl.toml",
        &format!("include = [\"services/*/opsctl.toml\"]\n{GOOD}"),
    );
    sandbox.write(
        "services/a/opsctl.toml",
        "[service.cart]\nlocal = { command = [\"sh\"] }\n",
    );
    let document = sandbox
        .run(&["config", "check", "-e", "local", "--json"])
        .ended(0)
        .json();
    assert_eq!(document["services"], 2);
    sandbox.write(
        "services/b/opsctl.toml",
        "include = []\n[env.x]\n[service.shop]\nlocal = { command = [\"sh\"] }\n",
    );
    sandbox
        .run(&["config", "check", "-e", "local"])
        .ended(2)
        .says("includes do not nest")
        .says("`env` cannot stand here")
        .says("`service.shop` is declared twice, first at opsctl.toml:9");
}

#[test]
fn an_unknown_environment_is_refused_with_a_suggestion() {
    let sandbox = Sandbox::new();
    sandbox.write("opsctl.toml", GOOD);
    sandbox
        .run(&["config", "check", "-e", "prodution"])
        .ended(2)
        .says("did you mean `production`?");
    sandbox.write("opsctl.toml", &GOOD.replace("default_env = \"local\"\n", ""));
    sandbox.run(&["config", "check"]).ended(2).says("set `default_env`");
}

/// An environment on two clusters.
const CLUSTERS: &str = r#"version = 1
[env.production]
platform = "kubernetes"
clusters = ["eu", "us"]
namespace = "ops"
prometheus = "https://prom.internal/"
[cluster.eu]
context = "prod-eu"
server = "https://eu.internal:6443"
image = "registry.internal/opsctl:1"
gateway_url = "http://10.0.0.1:8000"
[cluster.us]
context = "prod-us"
service_account = "ops"
prometheus = "https://prom.us.internal"
[defaults.service]
kubernetes = { namespace = "shop" }
[service.orders]
metrics = "traefik"
kubernetes = { deployment = "orders-api", service = "orders", container = "api", image = "registry.internal/orders:2", provider = "gateway", routes = ["HTTPRoute/orders", "GRPCRoute/orders"], url = "https://orders.internal" }
[service.legacy]
metrics = { preset = "otel-http", port = 9090 }
sli = { total = "requests_total", errors = "errors_total", slow = "slow_total" }
kubernetes = { provider = "ingress-nginx", routes = ["Ingress/legacy"] }
"#;

#[test]
fn clusters_and_where_services_live_in_them_are_shown() {
    let sandbox = Sandbox::new();
    sandbox.write("opsctl.toml", CLUSTERS);
    sandbox.run(&["config", "check"]).ended(0);
    let ran = sandbox.run(&["config", "show"]).ended(0);
    insta::assert_snapshot!(sandbox.told(&ran));
}

#[test]
fn what_is_wrong_with_clusters_is_told_with_its_place() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "opsctl.toml",
        r#"version = 1
default_env = "staging"
[env.local]
clusters = ["eu"]
[env.staging]
platform = "kubernetes"
clusters = ["eu", "ue"]
prometheus = "prom.internal"
[cluster.eu]
contxt = "prod-eu"
server = "https://me:secret@eu.internal"
service_account = "Ops!"
[service.orders]
metrics = "trafik"
sli = { total = "requests_total" }
kubernetes = { namspace = "shop", deployment = "Orders/x", provider = "nginx", routes = ["orders"] }
"#,
    );
    let ran = sandbox.run(&["config", "check"]).ended(2);
    assert!(!ran.stderr.contains("secret@"), "a password is never shown");
    insta::assert_snapshot!(sandbox.told(&ran));
}

#[test]
fn no_variable_leads_to_another_cluster() {
    let sandbox = Sandbox::new();
    sandbox.write("opsctl.toml", CLUSTERS);
    for variable in ["OPSCTL_SERVICE__ORDERS__SERVER", "OPSCTL_SERVICE__ORDERS__PROTECTED"] {
        let output = sandbox
            .command(&["config", "check"])
            .env(variable, "false")
            .output()
            .expect("opsctl starts");
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains("cannot be set by a variable"));
    }
    let output = sandbox
        .command(&["config", "show", "--json"])
        .env("OPSCTL_CLUSTER__EU__SERVER", "https://evil.internal")
        .env("OPSCTL_PROTECTED", "false")
        .env("OPSCTL_CLUSTERS", "[\"evil\"]")
        .output()
        .expect("opsctl starts");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("evil"));
}

/// Catalogues with whatever is read by rules of its own: schedules, conditions, assertions, times, sizes, addresses.
const CATALOGUES: [&str; 3] = [
    r#"version = 1
[env.local]
repository = "here"
[repository.here]
store = "s3://keeps/shop"
endpoint = "https://s3.example.com"
password = { file = "password" }
[datastore.db]
kind = "sqlite"
path = "data/shop.db"
objectives = { rpo = "15m", rto = "1h30m" }
canary = { sql = "SELECT max(at) FROM beats" }
backup = { schedule = "0 2 * * MON-FRI", timezone = "Europe/Berlin", keep = { within = "35d", monthly = 12 } }
[[datastore.db.assert]]
sql = "SELECT count(*) FROM orders WHERE item <> ''"
at_least = 1
"#,
    r#"version = 1
[env.local]
[datastore.db]
kind = "sqlite"
path = "data/shop.db"
[schedule.tidy]
job = "check"
cron = "*/15 30 2,14 1-7 JAN,OCT-DEC *"
timezone = "America/New_York"
jitter = "5m"
quiet_hours = ["SAT,SUN 00:00-24:00"]
[cleanup.carts]
datastore = "db"
table = "carts"
where = "state IN ('open', 'it''s') AND at < :cutoff"
cutoff = { older_than = "30d", as = "milliseconds" }
batch = 500
schedule = "@daily"
"#,
    r#"version = 1
default_env = "local"
[env.local]
[env.production]
protected = true
[datastore.dump]
kind = "command"
command = ["pg_dump", "-Fc", "shop"]
timeout = "1h"
variables = { PGPASSWORD = { file = "password" } }
[[datastore.dump.assert]]
min_bytes = 1000
[service.shop]
uses = ["dump"]
health = { http = "/healthz" }
objectives = { availability = "99.9%", latency_p95 = "300ms" }
local = { command = ["sh"], replicas = 2, env = { A = "b" } }
"#,
];

#[test]
fn a_catalogue_that_was_changed_at_random_is_read_or_refused_and_nothing_else() {
    const ODD: [&str; 24] = [
        "\"",
        "'",
        "[",
        "]",
        "{",
        "}",
        "=",
        "\n",
        ".",
        ",",
        "-1",
        "0",
        "18446744073709551616",
        "1e400",
        "nan",
        "@yearly",
        "* * * * *",
        "60 24 32 13 8",
        "24:00-00:00",
        "1000000y",
        "::",
        "é",
        "\u{202e}",
        "\0",
    ];
    let told = std::env::var("OPSCTL_SEED").ok().and_then(|seed| seed.parse().ok());
    let mut state: u64 = told.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
    println!("OPSCTL_SEED={state}");
    let mut below = |end: usize| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end.max(1) as u64) as usize
    };
    let sandbox = Sandbox::new();
    for round in 0..120 {
        let mut text = CATALOGUES[round % CATALOGUES.len()].to_owned();
        // The first of each as it is.
        for _ in 0..if round < CATALOGUES.len() { 0 } else { 1 + below(3) } {
            let mut at = below(text.len() + 1);
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            let rest = text.split_off(at);
            let cut = rest.char_indices().nth(below(8)).map_or(rest.len(), |(at, _)| at);
            match below(3) {
                0 => text.push_str(&rest[cut..]),
                1 => text.extend([ODD[below(ODD.len())], rest.as_str()]),
                _ => text.extend([ODD[below(ODD.len())], &rest[cut..]]),
            }
        }
        sandbox.write("opsctl.toml", &text);
        let checked = sandbox.run(&["config", "check"]);
        assert!(matches!(checked.code, 0 | 2), "{text}\n{}", sandbox.told(&checked));
        assert!(
            round >= CATALOGUES.len() || checked.code == 0,
            "{}",
            sandbox.told(&checked)
        );
        let said = format!("{}{}", checked.stdout, checked.stderr);
        let steers = |c: char| (c.is_control() && !matches!(c, '\n' | '\t')) || c == '\u{202e}';
        assert!(!said.contains(steers), "{text}\n{said:?}");
        if checked.code == 0 {
            // What is taken can be used.
            for use_of_it in [
                &["config", "show"][..],
                &["schedule", "list"],
                &["schedule", "export", "systemd"],
            ] {
                let ran = sandbox.run(use_of_it);
                assert!(
                    matches!(ran.code, 0 | 2),
                    "{use_of_it:?}\n{text}\n{}",
                    sandbox.told(&ran)
                );
            }
        }
    }
}
