//! Cleanup jobs through the real binary, on real SQLite files and a real PostgreSQL: what meets the condition goes, in
//! batches, and nothing else does, whatever is written or typed.

#[path = "support/sandbox.rs"]
mod sandbox;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::Stdio;

use peers::servers::Postgres;
use rusqlite::Connection;
use sandbox::{Ran, Sandbox, eventually};

/// A project with one SQLite file, and the tables of cleanups.
fn project(sql: &str, tables: &str) -> (Sandbox, Connection) {
    let sandbox = Sandbox::new();
    sandbox.write(
        "opsctl.toml",
        &format!("version = 1\n[env.local]\n[datastore.db]\nkind = \"sqlite\"\npath = \"shop.db\"\n{tables}"),
    );
    let database = Connection::open(sandbox.path("shop.db")).expect("a database");
    database
        .execute_batch(&format!("PRAGMA journal_mode = WAL; {sql}"))
        .expect("tables");
    (sandbox, database)
}

fn count(database: &Connection, table: &str) -> i64 {
    database
        .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))
        .expect("a number")
}

const NUMBERS: &str = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 999)";

#[test]
fn rows_go_in_batches_and_only_those_that_are_meant() {
    let (sandbox, database) = project(
        &format!(
            "CREATE TABLE \"odd \"\"name\" (rowid TEXT, state INTEGER, at INTEGER);
             {NUMBERS} INSERT INTO \"odd \"\"name\" SELECT 'x', i % 2, CASE WHEN i < 500 THEN 0 ELSE unixepoch() * 1000 END FROM n;"
        ),
        "[cleanup.old]\ndatastore = \"db\"\ntable = 'odd \"name'\nwhere = \"state = 1 AND at < :cutoff\"\n\
         cutoff = { older_than = \"1h\", as = \"milliseconds\" }\nbatch = 100\npause = \"1ms\"\n",
    );
    let table = "\"odd \"\"name\"";
    let plan = sandbox
        .run(&["schedule", "run", "old", "--dry-run", "--json"])
        .ended(0)
        .json();
    assert_eq!(plan["jobs"][0]["cleanup"]["rows"], 250);
    assert_eq!(plan["jobs"][0]["cleanup"]["sample"].as_array().map(Vec::len), Some(5));
    assert_eq!(plan["jobs"][0]["cleanup"]["sample"][0], "rowid=x state=1 at=0");
    assert_eq!(count(&database, table), 1000);

    let ran = sandbox
        .run(&["schedule", "run", "cleanup:old", "--json"])
        .ended(0)
        .json();
    assert_eq!(ran["cleanup"]["rows"], 250);
    assert_eq!(ran["cleanup"]["batches"], 3);
    assert_eq!(count(&database, table), 750);
    let again = sandbox.run(&["schedule", "run", "old", "--json"]).ended(0).json();
    assert_eq!(again["cleanup"]["rows"], 0);
    let metrics = fs::read_to_string(sandbox.path(".opsctl/schedule/local/metrics.prom")).expect("metrics");
    assert!(
        metrics.contains("cleanup_rows_deleted_total{schedule=\"cleanup:old\"} 250\n"),
        "{metrics}"
    );
}

#[test]
fn tables_without_row_ids_and_what_hangs_on_a_row() {
    let (sandbox, database) = project(
        &format!(
            "CREATE TABLE keys (customer TEXT, key TEXT, at TEXT, PRIMARY KEY (customer, key)) WITHOUT ROWID;
             {NUMBERS} INSERT INTO keys SELECT 'c' || i % 3, 'k' || i, CASE WHEN i < 300 THEN '2020-01-01 00:00:00' ELSE datetime('now') END FROM n;
             CREATE TABLE carts (id INTEGER PRIMARY KEY, open INTEGER);
             CREATE TABLE lines (cart INTEGER REFERENCES carts (id) ON DELETE CASCADE, item TEXT);
             CREATE TABLE paid (cart INTEGER REFERENCES carts (id));
             INSERT INTO carts VALUES (1, 0), (2, 0), (3, 1); INSERT INTO lines VALUES (1, 'a'), (2, 'b'), (3, 'c');"
        ),
        "[cleanup.keys]\ndatastore = \"db\"\ntable = \"keys\"\nwhere = \"at < :cutoff\"\nbatch = 77\npause = \"1ms\"\n\
         cutoff = { older_than = \"1d\", as = \"text\" }\n\
         [cleanup.carts]\ndatastore = \"db\"\ntable = \"main.carts\"\nwhere = \"open = 0\"\n",
    );
    sandbox
        .run(&["schedule", "run", "keys"])
        .ended(0)
        .says("300 rows deleted");
    assert_eq!(count(&database, "keys"), 700);
    // A row that something needs stays, and takes its batch with it.
    database.execute_batch("INSERT INTO paid VALUES (2)").expect("a row");
    sandbox
        .run(&["schedule", "run", "carts"])
        .ended(1)
        .says("FOREIGN KEY constraint failed");
    assert_eq!((count(&database, "carts"), count(&database, "lines")), (3, 3));
    database.execute_batch("DELETE FROM paid").expect("a row");
    sandbox.run(&["schedule", "run", "carts"]).ended(0);
    assert_eq!((count(&database, "carts"), count(&database, "lines")), (1, 1));
}

#[test]
fn limits_end_a_run_and_the_next_goes_on() {
    let (sandbox, database) = project(
        &format!("CREATE TABLE t (a INTEGER); {NUMBERS} INSERT INTO t SELECT i FROM n;"),
        "[cleanup.rows]\ndatastore = \"db\"\ntable = \"t\"\nwhere = \"a >= 0\"\nbatch = 300\nmax_rows = 700\npause = \"1ms\"\n\
         [cleanup.time]\ndatastore = \"db\"\ntable = \"t\"\nwhere = \"a >= 0\"\nbatch = 1\npause = \"1h\"\nmax_time = \"1h\"\n",
    );
    let ran = sandbox.run(&["schedule", "run", "rows", "--json"]).ended(0).json();
    assert_eq!(
        (&ran["cleanup"]["rows"], &ran["cleanup"]["batches"]),
        (&700.into(), &3.into())
    );
    assert_eq!(ran["cleanup"]["stopped_by"], "max_rows");
    assert_eq!(count(&database, "t"), 300);
    // Stopped between two batches, however long the pause.
    let child = sandbox
        .command(&["schedule", "run", "time", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("opsctl starts");
    eventually("a batch is gone", || count(&database, "t") == 299);
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it is ours");
    let ran = Ran::of(child.wait_with_output().expect("it ends")).ended(130);
    assert_eq!(ran.json()["outcome"], "interrupted");
    assert_eq!(count(&database, "t"), 299);
    sandbox.run(&["schedule", "run", "rows"]).ended(0);
    assert_eq!(count(&database, "t"), 0);
}

#[test]
fn what_does_not_fit_the_table_is_refused_with_nothing_deleted() {
    let (sandbox, database) = project(
        "CREATE TABLE t (a INTEGER); INSERT INTO t VALUES (1), (2); CREATE VIEW v AS SELECT a FROM t;",
        "[cleanup.typo]\ndatastore = \"db\"\ntable = \"t\"\nwhere = '\"b\" > 0'\n\
         [cleanup.half]\ndatastore = \"db\"\ntable = \"t\"\nwhere = 'a > 0 AND \"b\" > 0'\n\
         [cleanup.gone]\ndatastore = \"db\"\ntable = \"u\"\nwhere = \"a > 0\"\n\
         [cleanup.view]\ndatastore = \"db\"\ntable = \"v\"\nwhere = \"a > 0\"\n\
         [cleanup.drop]\ndatastore = \"db\"\ntable = 't\"; DROP TABLE t; --'\nwhere = \"a > 0\"\n\
         [cleanup.good]\ndatastore = \"db\"\ntable = \"t\"\nwhere = \"a = 2\"\n",
    );
    sandbox
        .run(&["schedule", "run", "typo"])
        .ended(5)
        .says("names no column of `t`");
    // SQLite by itself takes a name that is no column for a string, which is true of every row.
    sandbox
        .run(&["schedule", "run", "half"])
        .ended(1)
        .says("no such column");
    sandbox
        .run(&["schedule", "run", "gone"])
        .ended(2)
        .says("has no table `u`");
    assert_ne!(sandbox.run(&["schedule", "run", "view"]).code, 0);
    sandbox.run(&["schedule", "run", "drop"]).ended(2).says("has no table");
    assert_eq!(count(&database, "t"), 2);

    database.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    sandbox
        .run(&["schedule", "run", "good"])
        .ended(8)
        .says("others write to the database");
    database.execute_batch("ROLLBACK").expect("the lock");
    sandbox.run(&["schedule", "run", "good"]).ended(0);
    assert_eq!(count(&database, "t"), 1);
    fs::rename(sandbox.path("shop.db"), sandbox.path("moved.db")).expect("our own file");
    sandbox
        .run(&["schedule", "run", "good"])
        .ended(2)
        .says("could not open");
    assert!(!sandbox.path("shop.db").exists(), "no database is made");
}

#[test]
fn the_projects_own_cleanups_fit_the_services_tables() {
    let root = peers::workspace_root();
    let sandbox = Sandbox::new();
    let text = fs::read_to_string(root.join("opsctl.toml")).expect("the project's file");
    sandbox.write("opsctl.toml", &text);
    fs::create_dir_all(sandbox.path(".opsctl/data/orders")).expect("our own folder");
    for folder in [".opsctl", ".opsctl/data", ".opsctl/data/orders"] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(sandbox.path(folder), mode).expect("our own folder");
    }
    let database = Connection::open(sandbox.path(".opsctl/data/orders/orders.db")).expect("a database");
    let mut migrations: Vec<_> = fs::read_dir(root.join("services/orders/migrations/sqlite"))
        .expect("migrations")
        .map(|entry| entry.expect("a file").path())
        .collect();
    migrations.sort();
    for migration in migrations {
        database
            .execute_batch(&fs::read_to_string(migration).expect("SQL"))
            .expect("tables");
    }
    // Of each one that is old and done with, one that is old and not, and one that is new.
    database
        .execute_batch(
            "INSERT INTO idempotency VALUES ('c', 'old', 'a', x'00', 0), ('c', 'new', 'b', x'00', unixepoch() * 1000);
             INSERT INTO outbox VALUES (1, 'e', 'a', 'k', 1, 0, '{}', 2, 0, 0, 1, 'no', 1), (2, 'e', 'a', 'k', 1, 0, '{}', 0, 0, 0, 0, NULL, NULL),
                 (3, 'e', 'b', 'k', 1, 0, '{}', 2, 0, 0, 1, 'no', unixepoch() * 1000);
             INSERT INTO orders (id, customer, items, currency, address, total_cents, status, step, attempts, cancel_requested, charge_id, created_at, updated_at, due_at, claim)
                 VALUES ('a', 'c', '[]', 'EUR', '', 1, 'cancelled', 'done', 0, 1, NULL, 0, 0, 0, 0),
                        ('b', 'c', '[]', 'EUR', '', 1, 'pending', 'payment', 0, 0, NULL, 0, 0, 0, 0),
                        ('d', 'c', '[]', 'EUR', '', 1, 'cancelled', 'done', 0, 1, 'paid', 0, 0, 0, 0),
                        ('f', 'c', '[]', 'EUR', '', 1, 'failed', 'done', 0, 1, NULL, 0, unixepoch() * 1000, 0, 0);
             INSERT INTO steps VALUES ('a', 'cancel', 1, 0, 0, 'ok'), ('b', 'payment', 1, 0, NULL, NULL);
             INSERT INTO orphans VALUES ('1', 'x', 1, 'EUR', '', 0, 1, NULL), ('2', 'x', 1, 'EUR', '', 0, NULL, 'no');",
        )
        .expect("rows");
    for (job, table, left) in [
        ("expired-idempotency-keys", "idempotency", 1),
        ("old-dead-letters", "outbox", 2),
        ("unpaid-orders", "orders", 3),
        ("steps-without-orders", "steps", 1),
        ("settled-orphans", "orphans", 1),
    ] {
        let plan = sandbox
            .run(&["schedule", "run", job, "--dry-run", "--json"])
            .ended(0)
            .json();
        assert_eq!(plan["jobs"][0]["cleanup"]["rows"], 1, "{job}");
        let ran = sandbox.run(&["schedule", "run", job, "--json"]).ended(0).json();
        assert_eq!(ran["cleanup"]["rows"], 1, "{job}");
        assert_eq!(count(&database, table), left, "{job}");
    }
    let orders: String = database
        .query_row("SELECT group_concat(id) FROM orders", [], |row| row.get(0))
        .expect("orders");
    assert_eq!(orders, "b,d,f");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_postgres_go_and_nobody_waits() {
    let Some(server) = Postgres::shared("rows_of_postgres_go_and_nobody_waits").await else {
        return;
    };
    let url = server.url("postgres");
    let connect = || async {
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
            .await
            .expect("a connection");
        tokio::spawn(connection);
        client
    };
    let client = connect().await;
    client
        .batch_execute(
            "CREATE SCHEMA \"Shop\"; CREATE TABLE \"Shop\".carts (id bigint PRIMARY KEY, seen timestamptz NOT NULL, note text);
             INSERT INTO \"Shop\".carts SELECT i, CASE WHEN i <= 1000 THEN now() - interval '10 days' ELSE now() END, ':cutoff' FROM generate_series(1, 1500) i;
             CREATE VIEW \"Shop\".shown AS SELECT * FROM \"Shop\".carts;",
        )
        .await
        .expect("tables");
    let sandbox = Sandbox::new();
    sandbox.write(
        "opsctl.toml",
        "version = 1\n[env.local]\n[datastore.pg]\nkind = \"postgres\"\ndsn = { env = \"SHOP_DSN\" }\n\
         [cleanup.carts]\ndatastore = \"pg\"\ntable = \"Shop.carts\"\nwhere = \"seen < :cutoff AND note = ':cutoff'\"\nbatch = 300\npause = \"1ms\"\n\
         cutoff = { older_than = \"7d\", as = \"timestamp\" }\n\
         [cleanup.view]\ndatastore = \"pg\"\ntable = \"Shop.shown\"\nwhere = \"id > 0\"\n\
         [cleanup.sql]\ndatastore = \"pg\"\n\
         sql = 'DELETE FROM \"Shop\".carts WHERE id IN (SELECT id FROM \"Shop\".carts WHERE id > 1490 LIMIT :batch)'\nbatch = 4\npause = \"1ms\"\n",
    );
    let run = |args: &[&str], dsn: &str| {
        let mut command = sandbox.command(&[&["schedule", "run", "--json"], args].concat());
        Ran::of(command.env("SHOP_DSN", dsn).output().expect("opsctl starts"))
    };
    let left = || async {
        let row = client.query_one("SELECT count(*) FROM \"Shop\".carts", &[]).await;
        row.expect("a number").get::<_, i64>(0)
    };
    let plan = run(&["carts", "--dry-run"], &url).ended(0).json();
    assert_eq!(plan["jobs"][0]["cleanup"]["rows"], 1000);
    assert!(
        plan["jobs"][0]["cleanup"]["sample"][0]
            .as_str()
            .is_some_and(|line| line.starts_with("id=")),
        "{plan}"
    );
    let plan = run(&["sql", "--dry-run"], &url).ended(0).json();
    assert_eq!(plan["jobs"][0]["cleanup"]["rows"], 4);
    assert_eq!(left().await, 1500);

    // Rows that somebody works on are left to the next run.
    let mut other = connect().await;
    let transaction = other.transaction().await.expect("a transaction");
    transaction
        .execute("UPDATE \"Shop\".carts SET note = note WHERE id <= 10", &[])
        .await
        .expect("locks");
    let ran = run(&["carts"], &url).ended(0).json();
    assert_eq!(
        (&ran["cleanup"]["rows"], &ran["cleanup"]["batches"]),
        (&990.into(), &4.into())
    );
    transaction.rollback().await.expect("locks");
    assert_eq!(run(&["carts"], &url).ended(0).json()["cleanup"]["rows"], 10);
    assert_eq!(left().await, 500);
    assert_eq!(run(&["sql"], &url).ended(0).json()["cleanup"]["rows"], 10);
    assert_eq!(left().await, 490);
    run(&["view"], &url).ended(2).says("is no plain table");

    // A whole table that is locked is not waited for.
    let transaction = other.transaction().await.expect("a transaction");
    transaction
        .batch_execute("LOCK TABLE \"Shop\".carts IN ACCESS EXCLUSIVE MODE")
        .await
        .expect("a lock");
    run(&["sql"], &url).ended(8);
    transaction.rollback().await.expect("locks");

    let gone = format!("postgres://shop:hunter2@{}/shop", sandbox::NOBODY);
    let ran = run(&["carts"], &gone).ended(7);
    assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
    let ran = run(&["carts"], "postgres://shop:hunter2@localhost:what/shop").ended(2);
    assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
}

/// A server that gives these answers, one a request, and then the last again.
fn server(answers: &'static [(u16, &'static str)]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for (asked, stream) in listener.incoming().flatten().enumerate() {
            let mut reader = BufReader::new(stream);
            let mut line = String::new();
            while reader.read_line(&mut line).unwrap_or(0) > 2 {
                line.clear();
            }
            let (status, body) = answers[asked.min(answers.len() - 1)];
            let _ = write!(
                reader.get_mut(),
                "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    format!("http://{address}")
}

#[test]
fn a_service_is_asked_until_nothing_is_left() {
    let run = |url: &str, args: &[&str]| {
        let sandbox = Sandbox::new();
        sandbox.write(
            "opsctl.toml",
            &format!(
                "version = 1\n[env.local]\n[cleanup.carts]\npause = \"1ms\"\nmax_rows = 100\ncall = {{ url = \"{url}\", path = \"/carts/stale\", method = \"DELETE\" }}\n"
            ),
        );
        sandbox.run(&[&["schedule", "run", "carts", "--json"], args].concat())
    };
    let rows = |answers| run(&server(answers), &[]).ended(0).json()["cleanup"]["rows"].as_u64();
    assert_eq!(
        rows(&[
            (200, "{\"deleted\":20,\"remaining\":5}"),
            (200, "{\"deleted\":5,\"remaining\":0}"),
            (500, "")
        ]),
        Some(25)
    );
    assert_eq!(
        rows(&[(200, "{\"deleted\":3}"), (200, "{\"deleted\":0}"), (500, "")]),
        Some(3)
    );
    assert_eq!(
        rows(&[(200, "{\"deleted\":3,\"more\":true}"), (204, ""), (500, "")]),
        Some(3)
    );
    // One that never ends is ended.
    assert_eq!(rows(&[(200, "{\"deleted\":30,\"more\":true}")]), Some(120));
    let failing: &'static [(u16, &'static str)] = &[(200, "{\"deleted\":3}"), (500, "")];
    run(&server(failing), &[]).ended(1).says("answered 500");
    run(&server(&[(200, "all gone")]), &[])
        .ended(1)
        .says("did not answer with JSON");
    run(&server(&[(200, "{}")]), &[])
        .ended(1)
        .says("does not say what it deleted");
    let nobody = format!("http://{}", sandbox::NOBODY);
    run(&nobody, &[]).ended(7);
    let plan = run(&nobody, &["--dry-run"]).ended(0).json();
    assert_eq!(
        plan["jobs"][0]["cleanup"]["how"],
        format!("DELETE {nobody}/carts/stale")
    );
}
