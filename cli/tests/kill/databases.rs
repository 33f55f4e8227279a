//! Kills of `restore --replace` of a PostgreSQL: a service has either the old database or the restored one, whole and open,
//! and nothing else is left on the server.

use std::process::Command;

use peers::Server;
use peers::servers::Postgres;
use rustix::process::{Signal, kill_process};

use crate::dice::{Dice, kill_after, kills, pass, say};
use crate::sandbox::{Sandbox, eventually, tiny_service};
use crate::stage::command_lines;
use crate::stores::{measured, spawn};

const REPLACE: [&str; 5] = ["restore", "pg", "--database", "orders", "--replace"];

#[tokio::test(flavor = "multi_thread")]
async fn restore_replace_postgres() {
    let test = "restore_replace_postgres";
    let Some(psql) = peers::peer("postgres", test).map(|program| program.with_file_name("psql")) else {
        return;
    };
    let Some(server) = Server::start(Postgres::default(), test).await else {
        return;
    };
    let url = |database: &str| format!("postgres://postgres@{}/{database}", server.address("postgres"));
    let sql = |database: &str, sql: &str| {
        let mut psql = Command::new(&psql);
        psql.args([
            "-X",
            "-A",
            "-t",
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            &url(database),
            "-c",
            sql,
        ]);
        let output = psql.output().expect("psql starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{sql}: {said}");
        String::from_utf8(output.stdout).expect("text").trim_end().to_owned()
    };
    let mut dice = Dice::new(test);
    let sandbox = Sandbox::new();
    sandbox.secret("password", "correct horse\n");
    sandbox.secret("dsn", &url("postgres"));
    sandbox.secret("orders.dsn", &url("orders"));
    let command = [
        tiny_service().display().to_string(),
        "--postgres".to_owned(),
        sandbox.path("orders.dsn").display().to_string(),
    ];
    sandbox.write(
        "opsctl.toml",
        &format!(
            "version = 1\n[env.local]\nrepository = \"here\"\n\
             [repository.here]\nstore = \"file:repo\"\npassword = {{ file = \"password\" }}\n\
             [datastore.pg]\nkind = \"postgres\"\ndsn = {{ file = \"dsn\" }}\n\
             [[datastore.pg.assert]]\ndatabase = \"orders\"\nmin_rows = {{ items = 2000 }}\n\
             [service.shop]\nuses = [\"pg/orders\"]\nhealth = {{ http = \"/healthz\" }}\n\
             [service.shop.local]\ncommand = {command:?}\nreplicas = 1\n"
        ),
    );
    sql("postgres", "CREATE DATABASE orders");
    sql(
        "orders",
        "CREATE TABLE items (id int PRIMARY KEY, what text); INSERT INTO items SELECT n, repeat('x', 100) FROM generate_series(1, 2000) n",
    );
    sandbox.run(&["backup", "pg"]).ended(0);
    sandbox.run(&["up"]).ended(0);
    let items = |database: &str| {
        sql(database, "SELECT count(*) FROM items")
            .parse::<u64>()
            .expect("a number")
    };
    let others = || {
        let list = sql(
            "postgres",
            "SELECT datname FROM pg_database WHERE datname NOT IN ('postgres', 'template0', 'template1', 'orders')",
        );
        list.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let oid = || sql("postgres", "SELECT oid FROM pg_database WHERE datname = 'orders'");
    let replace = [&REPLACE[..], &["--yes"]].concat();
    let whole = measured(|| drop(sandbox.run(&replace).ended(0)));
    let (mut ended, mut restored) = (0, 0);
    for kill in 0..kills() {
        for old in others() {
            sql("postgres", &format!("DROP DATABASE \"{old}\""));
        }
        sql("orders", "INSERT INTO items SELECT max(id) + 1, 'later' FROM items");
        let (before, old) = (items("orders"), oid());
        let instant = dice.between(std::time::Duration::ZERO, whole);
        let told = format!("kill {kill} after {} ms", instant.as_millis());
        // Every third time nobody watches either, and `recover` does it alone.
        let mut child = spawn(sandbox.command(&replace));
        if kill % 3 == 2 {
            pass(instant);
            let state = sandbox.path(".opsctl").display().to_string();
            let watchdogs = command_lines()
                .into_iter()
                .filter(|(_, words)| words.contains(&state) && words.iter().any(|word| word == "watchdog"));
            for (pid, _) in watchdogs {
                let _ = kill_process(pid, Signal::KILL);
            }
            ended += u64::from(kill_after(&mut child, std::time::Duration::ZERO));
        } else {
            ended += u64::from(kill_after(&mut child, instant));
        }
        eventually(&format!("{told}: the undo"), || {
            sandbox.run(&["recover"]).code == 0
                && sandbox.run(&["run", "list", "--active", "--json"]).json()["runs"] == serde_json::json!([])
        });
        let is_restored = oid() != old;
        restored += u64::from(is_restored);
        let kept = others();
        assert_eq!(items("orders"), if is_restored { 2000 } else { before }, "{told}");
        assert_eq!(kept.len(), usize::from(is_restored), "{told}: {kept:?}");
        for kept in &kept {
            assert!(kept.starts_with("orders.before-"), "{told}: {kept}");
            assert_eq!(items(kept), before, "{told}");
        }
        let closed = sql(
            "postgres",
            "SELECT count(*) FROM pg_database WHERE NOT datallowconn AND datname <> 'template0'",
        );
        assert_eq!(closed, "0", "{told}");
        eventually(&format!("{told}: the service"), || sandbox.run(&["status"]).code == 0);
        eventually(&format!("{told}: its session"), || {
            sql(
                "postgres",
                "SELECT count(*) FROM pg_stat_activity WHERE datname = 'orders' AND application_name = 'tiny_service'",
            ) == "1"
        });
    }
    say(format_args!(
        "{test}: {ended} of {} had ended before the kill, {restored} are restored; {} ms each",
        kills(),
        whole.as_millis()
    ));
    sandbox.run(&["down"]).ended(0);
}
