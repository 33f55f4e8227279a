//! A database of a live PostgreSQL is replaced by one that was restored beside it, through the real binary and against a
//! real server: services that use it are held down meanwhile, nobody else on the server is touched, and whatever does not
//! go well is taken back.

#[path = "support/sandbox.rs"]
mod sandbox;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use peers::Server;
use peers::servers::Postgres;
use sandbox::{Ran, Sandbox, eventually, tiny_service};
use serde_json::Value;

const PASSWORD: &str = "hunter2-of-the-server";

/// A server with the databases `orders` and `audit`, and a service for each of them.
struct Shop {
    server: Server,
    sandbox: Sandbox,
    psql: PathBuf,
}

impl Shop {
    async fn open(test: &str) -> Option<Self> {
        let psql = peers::peer("postgres", test)?.with_file_name("psql");
        let server = Server::start(Postgres::default().password(PASSWORD), test).await?;
        let shop = Self {
            server,
            sandbox: Sandbox::new(),
            psql,
        };
        shop.sandbox.secret("password", "correct horse\n");
        shop.sandbox
            .secret("dsn", &format!("{}\n", shop.url("postgres", "postgres")));
        for (service, database) in [("shop", "orders"), ("clerk", "audit")] {
            shop.sandbox
                .secret(format!("{service}.dsn"), &shop.url("app", database));
        }
        shop.declare("", "", &[]);
        for sql in [
            "CREATE ROLE app LOGIN PASSWORD 'hunter2-of-the-server'",
            "CREATE ROLE reader",
            "CREATE DATABASE orders OWNER app",
            "CREATE DATABASE audit OWNER app",
            "ALTER DATABASE orders SET search_path TO \"$user\", sales, public",
            "ALTER ROLE app IN DATABASE orders SET work_mem TO '5MB'",
            "ALTER DATABASE orders CONNECTION LIMIT 20",
            "REVOKE ALL ON DATABASE orders FROM PUBLIC",
            "GRANT CONNECT ON DATABASE orders TO reader WITH GRANT OPTION",
            "COMMENT ON DATABASE orders IS 'it''s ours'",
        ] {
            shop.sql("postgres", sql);
        }
        shop.sql("orders", "CREATE TABLE items (id int PRIMARY KEY); INSERT INTO items SELECT generate_series(1, 500); ALTER TABLE items OWNER TO app");
        shop.sql("audit", "CREATE TABLE notes (id int)");
        Some(shop)
    }

    /// Writes the catalogue with more about the environment and the datastore, and more words for the service `shop`.
    fn declare(&self, environment: &str, datastore: &str, words: &[&str]) {
        let service = |name: &str, uses: &str, words: &[&str]| {
            let dsn = self.sandbox.path(format!("{name}.dsn")).display().to_string();
            let tiny = tiny_service().display().to_string();
            let command = [&[tiny.as_str(), "--postgres", &dsn], words].concat();
            format!(
                "[service.{name}]\nuses = [{uses:?}]\nhealth = {{ http = \"/healthz\" }}\n[service.{name}.local]\ncommand = {command:?}\nreplicas = 1\n"
            )
        };
        self.sandbox.write(
            "opsctl.toml",
            &format!(
                "version = 1\n[env.local]\nrepository = \"here\"\n{environment}\n\
                 [repository.here]\nstore = \"file:repo\"\npassword = {{ file = \"password\" }}\n\
                 [datastore.pg]\nkind = \"postgres\"\ndsn = {{ file = \"dsn\" }}\n{datastore}\n{}{}",
                service("shop", "pg/orders", words),
                service("clerk", "pg/audit", &[]),
            ),
        );
    }

    fn url(&self, user: &str, database: &str) -> String {
        format!(
            "postgres://{user}:{PASSWORD}@{}/{database}",
            self.server.address("postgres")
        )
    }

    fn psql(&self, database: &str) -> Command {
        let mut psql = Command::new(&self.psql);
        psql.args([
            "-X",
            "-A",
            "-t",
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            &self.url("postgres", database),
        ]);
        psql
    }

    #[track_caller]
    fn sql(&self, database: &str, sql: &str) -> String {
        let output = self.psql(database).args(["-c", sql]).output().expect("psql starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{sql}: {said}");
        String::from_utf8(output.stdout).expect("text").trim_end().to_owned()
    }

    fn databases(&self) -> String {
        self.sql(
            "postgres",
            "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE NOT datistemplate",
        )
    }

    fn items(&self, database: &str) -> String {
        self.sql(database, "SELECT count(*) FROM public.items")
    }

    /// Everything that is of a database and not in it.
    fn about(&self, database: &str) -> String {
        self.sql(
            "postgres",
            &format!(
                "SELECT pg_get_userbyid(datdba), datconnlimit, datacl, datallowconn, datistemplate, encoding, datcollate, \
                 shobj_description(oid, 'pg_database'), \
                 (SELECT json_agg(json_build_array(setrole::regrole, setconfig) ORDER BY setrole) FROM pg_db_role_setting WHERE setdatabase = d.oid) \
                 FROM pg_database d WHERE datname = '{database}'"
            ),
        )
    }

    /// The server's process for a service, which is another one once it was connected anew.
    fn session(&self, database: &str) -> String {
        self.sql(
            "postgres",
            &format!("SELECT string_agg(pid::text, ' ') FROM pg_stat_activity WHERE datname = '{database}' AND application_name = 'tiny_service'"),
        )
    }

    fn run(&self, args: &[&str]) -> Ran {
        let ran = self.sandbox.run(args);
        for secret in [PASSWORD, "correct horse"] {
            assert!(!ran.stdout.contains(secret) && !ran.stderr.contains(secret), "{ran:?}");
        }
        ran
    }

    fn replace(&self, more: &[&str]) -> Ran {
        self.run(&[&["restore", "pg", "--database", "orders", "--replace"], more].concat())
    }

    /// Nothing was changed, and the service is up.
    #[track_caller]
    fn is_as_it_was(&self) {
        assert_eq!(self.databases(), "audit orders postgres");
        assert_eq!(self.items("orders"), "501");
        eventually("the service", || self.run(&["status"]).code == 0);
        let runs = self.run(&["run", "list", "--active", "--json"]).json();
        assert_eq!(runs["runs"], serde_json::json!([]));
    }
}

/// Somebody with a session, as long as this is not dropped.
struct Guest(Child);

impl Guest {
    fn of(shop: &Shop, database: &str, name: &str) -> Self {
        let mut psql = shop.psql(database);
        psql.env("PGAPPNAME", name)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = psql.spawn().expect("psql starts");
        let stdin = child.stdin.as_mut().expect("a pipe");
        stdin.write_all(b"SELECT 1;\n").expect("it reads");
        let there = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}'");
        eventually("a session", || shop.sql("postgres", &there) == "1");
        Self(child)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_restored_database_takes_the_place_of_the_old_one() {
    let test = "the_restored_database_takes_the_place_of_the_old_one";
    let Some(shop) = Shop::open(test).await else { return };
    shop.declare("", "[[datastore.pg.assert]]\ndatabase = \"orders\"\nmin_rows = { items = 500 }\n[[datastore.pg.assert]]\ndatabase = \"audit\"\nmin_rows = { gone = 1 }\n", &[]);
    shop.run(&["backup", "pg"]).ended(0);
    shop.run(&["up"]).ended(0);
    shop.sql("orders", "INSERT INTO items VALUES (501)");
    let about = shop.about("orders");
    let others = shop.session("audit");
    let guest = Guest::of(&shop, "audit", "a guest of audit");

    let told = shop.replace(&["--dry-run"]).ended(0).stdout;
    assert!(
        told.contains("hold down shop; and give it its name") && told.contains("orders.before-RUN"),
        "{told}"
    );
    shop.is_as_it_was();

    let document = shop.replace(&["--yes", "--json"]).ended(0).json();
    let kept = document["kept"].as_str().expect("the old database is kept").to_owned();
    assert_eq!(document["database"], "orders");
    assert_eq!(
        document["run"].as_str().map(|run| format!("orders.before-{run}")),
        Some(kept.clone())
    );
    let checks: Vec<&Value> = document["checks"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|check| &check["name"])
        .collect();
    assert_eq!(checks, ["pg_restore", "tables", "assertions"]);
    assert_eq!(shop.databases(), format!("audit orders {kept} postgres"));
    assert_eq!(
        (shop.items("orders"), shop.items(&kept)),
        ("500".to_owned(), "501".to_owned())
    );
    assert_eq!(shop.about("orders"), about);
    assert_eq!(shop.about(&kept), about);
    assert_eq!(shop.run(&["status", "--json"]).ended(0).json()["healthy"], true);
    eventually("the service's session", || !shop.session("orders").is_empty());
    // Who uses another database of the server has noticed nothing.
    assert_eq!(shop.session("audit"), others);
    drop(guest);
    let run = shop.run(&["run", "show", "--json"]).ended(0).json();
    assert!(!run.to_string().contains(PASSWORD), "{run}");
    shop.run(&["recover"]).ended(0).says("nothing to do");

    // Once more: the names of what is kept are not in each other's way.
    shop.replace(&["--yes"]).ended(0).says("DROP DATABASE \"orders.before-");
    // And where the database is lost, and its service with it.
    shop.sql("postgres", "DROP DATABASE orders WITH (FORCE)");
    let document = shop.replace(&["--yes", "--json"]).ended(0).json();
    assert_eq!(document["kept"], Value::Null);
    assert_eq!(shop.items("orders"), "500");
    // Nobody waits for services that are meant to be down.
    shop.run(&["down"]).ended(0);
    shop.replace(&["--yes"]).ended(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_a_cluster_is_put_in_place_as_it_was_at_a_moment() {
    let test = "a_database_of_a_cluster_is_put_in_place_as_it_was_at_a_moment";
    let Some(shop) = Shop::open(test).await else { return };
    let physical = "backup = { method = \"physical\" }\n[[datastore.pg.assert]]\ndatabase = \"orders\"\n";
    shop.declare("", &format!("{physical}min_rows = {{ items = 500 }}\n"), &[]);
    shop.run(&["backup", "pg"]).ended(0);
    shop.run(&["up"]).ended(0);
    shop.sql("orders", "INSERT INTO items VALUES (501)");
    let then = shop.sql(
        "orders",
        "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
    );
    shop.sql("orders", "DELETE FROM items WHERE id > 100");
    // It brings the log along.
    shop.run(&["backup", "pg"]).ended(0);
    let about = shop.about("orders");
    let others = shop.session("audit");

    // What is there now does not hold what is asserted, and replaces nothing.
    shop.replace(&["--yes"]).ended(4).says("expected at least 500");
    assert_eq!(shop.databases(), "audit orders postgres");
    for (args, words) in [
        (
            &["restore", "pg", "--replace", "--yes"][..],
            "it is not said which database",
        ),
        (
            &["restore", "pg", "--replace", "--database", "none", "--yes"],
            "holds no database \"none\"",
        ),
        (
            &[
                "restore",
                "pg",
                "--replace",
                "--database",
                "orders",
                "--snapshot",
                "0123",
            ],
            "--snapshot is not for",
        ),
        (
            &[
                "restore",
                "pg",
                "--replace",
                "--database",
                "orders",
                "--at",
                "2200-01-01T00:00:00Z",
            ],
            "lies after what is held",
        ),
    ] {
        shop.run(args).ended(2).says(words);
        assert_eq!(shop.databases(), "audit orders postgres", "{args:?}");
    }
    assert_eq!(shop.items("orders"), "100");

    let told = shop.replace(&["--at", &then, "--dry-run"]).ended(0).stdout;
    assert!(
        told.contains("as it was at") && told.contains("hold down shop"),
        "{told}"
    );
    let document = shop.replace(&["--at", &then, "--yes", "--json"]).ended(0).json();
    let kept = document["kept"].as_str().expect("the old database is kept").to_owned();
    assert!(document["reached_lsn"].is_string(), "{document}");
    assert_eq!(shop.databases(), format!("audit orders {kept} postgres"));
    assert_eq!(
        (shop.items("orders"), shop.items(&kept)),
        ("501".to_owned(), "100".to_owned())
    );
    assert_eq!(shop.about("orders"), about);
    assert_eq!(shop.session("audit"), others);
    let scratch = sandbox::content(&shop.sandbox.path(".opsctl/scratch"));
    assert!(scratch.is_empty(), "{:?}", scratch.keys());
    shop.run(&["recover"]).ended(0).says("nothing to do");
    shop.run(&["down"]).ended(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_replaced_stays_as_it_is() {
    let test = "what_cannot_be_replaced_stays_as_it_is";
    let Some(shop) = Shop::open(test).await else { return };
    shop.run(&["backup", "pg"]).ended(0);
    shop.run(&["up"]).ended(0);
    shop.sql("orders", "INSERT INTO items VALUES (501)");
    let session = shop.session("orders");
    assert!(!session.is_empty());

    shop.replace(&[]).ended(5).says("`--yes` is required");
    shop.run(&["restore", "pg", "--replace", "--yes"])
        .ended(2)
        .says("--database NAME");
    shop.run(&["restore", "pg", "--replace", "--yes", "--database", "gone"])
        .ended(2)
        .says("holds no database \"gone\"");
    shop.run(&["restore", "pg", "--replace", "--yes", "--database", "postgres"])
        .ended(2)
        .says("one of the server's own");
    shop.replace(&["--yes", "--into", "x"]).ended(2);
    shop.replace(&["--yes", "--at", "1h ago"]).ended(2);
    shop.run(&["restore", "pg", "--database", "orders"])
        .ended(2)
        .says("--database is of a database");

    // An assertion that does not hold, and one that is no query.
    for (assertion, told) in [
        (
            "min_rows = { items = 501 }",
            "rows of items: expected at least 501, was 500",
        ),
        (
            "sql = \"select count(*) from gone\"\nequals = 0",
            "relation \"gone\" does not exist",
        ),
        ("sql = \"delete from items\"\nequals = 0", "delete from items"),
    ] {
        shop.declare(
            "",
            &format!("[[datastore.pg.assert]]\ndatabase = \"orders\"\n{assertion}\n"),
            &[],
        );
        shop.replace(&["--yes"])
            .ended(4)
            .says("does not hold in the restored database")
            .says(told);
        shop.is_as_it_was();
    }

    // Consent where the environment is protected.
    shop.declare("protected = true", "", &[]);
    shop.replace(&["--yes"]).ended(5).says("needs a reason");
    shop.declare("", "", &[]);

    // A role that may not make databases, and one that is not the owner.
    shop.sql("postgres", &format!("CREATE ROLE keeper LOGIN PASSWORD '{PASSWORD}'"));
    shop.sandbox.secret("dsn", &shop.url("keeper", "postgres"));
    shop.replace(&["--yes"])
        .ended(2)
        .says("the role \"keeper\" may not make databases");
    shop.sql("postgres", "ALTER ROLE keeper CREATEDB");
    shop.replace(&["--yes"]).ended(2).says("GRANT \"app\" TO \"keeper\"");
    shop.sandbox.secret("dsn", &shop.url("postgres", "postgres"));
    assert_eq!(shop.session("orders"), session, "so far nobody was held down");

    // Somebody else who is connected is told of, and stays.
    let guest = Guest::of(&shop, "orders", "the monthly report");
    shop.replace(&["--yes"])
        .ended(5)
        .says("somebody is connected to the database orders")
        .says("the monthly report as postgres from 127.0.0.1");
    shop.is_as_it_was();
    let there = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'the monthly report'";
    assert_eq!(shop.sql("postgres", there), "1");
    drop(guest);

    // A service that cannot live with what was restored gets the old database back.
    shop.sql("orders", "CREATE TABLE newer (id int); GRANT SELECT ON newer TO app");
    shop.declare("", "", &["--needs", "SELECT FROM public.newer"]);
    shop.run(&["up"]).ended(0);
    shop.replace(&["--yes", "--timeout", "3s"])
        .ended(4)
        .says("`shop` did not become ready with the restored database");
    shop.is_as_it_was();
    assert_eq!(
        shop.sql(
            "postgres",
            "SELECT datallowconn FROM pg_database WHERE datname = 'orders'"
        ),
        "t"
    );
}
