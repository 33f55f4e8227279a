//! Dumps of a PostgreSQL through the real binary, against a real server: what is saved, what comes back, and what is left
//! when something goes wrong. PostgreSQL's own programs judge.

#[path = "support/sandbox.rs"]
mod sandbox;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use peers::Server;
use peers::servers::Postgres;
use sandbox::{Ran, Sandbox, alive, eventually};

const PASSWORD: &str = "hunter2-of-the-server";

/// A server with the databases `orders` and `o'dd "one"`, and a project that saves it.
struct Shop {
    server: Server,
    sandbox: Sandbox,
    /// Where PostgreSQL's programs are.
    programs: PathBuf,
}

impl Shop {
    async fn open(test: &str) -> Option<Self> {
        let programs = programs(test)?;
        let server = Server::start(Postgres::default().password(PASSWORD), test).await?;
        let shop = Self {
            server,
            sandbox: Sandbox::new(),
            programs,
        };
        shop.sandbox.secret("password", "correct horse\n");
        shop.sandbox.secret("dsn", &format!("{}\n", shop.url("postgres")));
        shop.declare("");
        for sql in [
            "CREATE ROLE app LOGIN PASSWORD 'hunter2-of-app'",
            "CREATE ROLE reader",
            "GRANT reader TO app",
            "CREATE DATABASE orders OWNER app",
            "CREATE DATABASE \"o'dd \"\"one\"\"\"",
            "ALTER DATABASE orders SET search_path TO sales, public",
        ] {
            shop.sql("postgres", sql);
        }
        shop.sql("orders", ORDERS);
        Some(shop)
    }

    /// Writes the catalogue with more about the datastore.
    fn declare(&self, more: &str) {
        self.sandbox.write(
            "opsctl.toml",
            &format!(
                "version = 1\n[env.local]\nrepository = \"here\"\n\
                 [repository.here]\nstore = \"file:repo\"\npassword = {{ file = \"password\" }}\n\
                 [datastore.pg]\nkind = \"postgres\"\ndsn = {{ file = \"dsn\" }}\n{more}"
            ),
        );
    }

    /// The address of a database, with the password.
    fn url(&self, database: &str) -> String {
        format!(
            "postgres://postgres:{PASSWORD}@{}/{database}",
            self.server.address("postgres")
        )
    }

    fn psql(&self, database: &str) -> Command {
        judge(&self.programs.join("psql"), &self.server, database)
    }

    #[track_caller]
    fn sql(&self, database: &str, sql: &str) -> String {
        let mut psql = self.psql(database);
        told(psql.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", sql]))
    }

    fn databases(&self) -> String {
        self.sql(
            "postgres",
            "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database",
        )
    }

    /// Everything in a database as `pg_dump` tells it, but for what differs each time.
    #[track_caller]
    fn told(&self, database: &str, more: &[&str]) -> String {
        let mut dump = judge(&self.programs.join("pg_dump"), &self.server, database);
        let text = told(dump.args(more));
        let lines = text
            .lines()
            .filter(|line| !line.starts_with("--") && !line.contains("restrict "));
        lines.collect::<Vec<_>>().join("\n")
    }

    fn run(&self, args: &[&str]) -> Ran {
        let ran = self.sandbox.run(args);
        for secret in [PASSWORD, "hunter2-of-app", "correct horse"] {
            assert!(
                !ran.stdout.contains(secret) && !ran.stderr.contains(secret),
                "{secret}: {ran:?}"
            );
        }
        ran
    }

    /// A folder with PostgreSQL's programs, one of them replaced by a script.
    fn programs_with(&self, name: &str, script: &str) -> PathBuf {
        let folder = self.sandbox.path(format!("programs-{name}"));
        fs::create_dir_all(&folder).expect("a folder");
        for program in ["psql", "pg_dump", "pg_dumpall", "pg_restore"] {
            let place = folder.join(program);
            let _ = fs::remove_file(&place);
            if program == name {
                let real = self.programs.join(name);
                let text = format!(
                    "#!/bin/sh\nreal={}\nif [ \"$1\" = --version ]; then exec \"$real\" --version; fi\n{script}\n",
                    real.display()
                );
                fs::write(&place, text).expect("a script");
                fs::set_permissions(&place, fs::Permissions::from_mode(0o700)).expect("our own file");
            } else {
                std::os::unix::fs::symlink(self.programs.join(program), place).expect("a link");
            }
        }
        folder
    }
}

const ORDERS: &str = "SET search_path TO public;
    CREATE SCHEMA sales AUTHORIZATION app;
    CREATE TYPE sales.state AS ENUM ('open', 'paid');
    CREATE TABLE people (id serial PRIMARY KEY, name text NOT NULL);
    CREATE TABLE sales.orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, person int REFERENCES people, state sales.state NOT NULL, at timestamptz NOT NULL);
    CREATE TABLE sales.items (id serial PRIMARY KEY, of bigint REFERENCES sales.orders, what text, data bytea);
    CREATE INDEX items_what ON sales.items (what);
    CREATE VIEW sales.open AS SELECT * FROM sales.orders WHERE state = 'open';
    ALTER TABLE sales.orders OWNER TO app; ALTER TABLE sales.items OWNER TO app;
    GRANT SELECT ON sales.orders TO reader;
    COMMENT ON TABLE sales.items IS 'what is in it';
    INSERT INTO people (name) SELECT 'person ' || n FROM generate_series(1, 100) n;
    INSERT INTO sales.orders (person, state, at) SELECT 1 + n % 100, 'open', now() FROM generate_series(1, 1000) n;
    INSERT INTO sales.items (of, what, data) SELECT 1 + n % 1000, 'thing ' || n, sha256(n::text::bytea) FROM generate_series(1, 20000) n;
    SELECT lo_from_bytea(4711, 'a large object');";

fn programs(test: &str) -> Option<PathBuf> {
    let program = fs::canonicalize(peers::peer("postgres", test)?).expect("a program");
    program.parent().map(Path::to_path_buf)
}

/// One of PostgreSQL's programs, told where the server is.
fn judge(program: &Path, server: &Server, database: &str) -> Command {
    let address = server.address("postgres");
    let mut command = Command::new(program);
    command
        .env("PGPASSWORD", PASSWORD)
        .env("PGHOST", address.ip().to_string())
        .env("PGPORT", address.port().to_string())
        .env("PGUSER", "postgres")
        .env("PGDATABASE", database);
    command
}

#[track_caller]
fn told(command: &mut Command) -> String {
    let output = command.output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).expect("text").trim_end().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_come_back_as_they_were() {
    let test = "databases_come_back_as_they_were";
    let Some(shop) = Shop::open(test).await else { return };
    let planned = shop.run(&["backup", "pg", "--dry-run"]).ended(0);
    assert_eq!(planned.stdout, "would back up pg (postgres, its databases) to here\n");
    let saved = shop.run(&["backup", "pg", "--json"]).ended(0).json();
    assert_eq!(saved["datastores"][0]["kind"], "postgres");
    let list = shop.run(&["snapshot", "ls", "latest"]).ended(0).stdout;
    for file in [
        "globals.sql",
        "manifest.json",
        "o%27dd%20%22one%22.dump",
        "orders.dump",
        "postgres.dump",
    ] {
        assert!(list.contains(file), "{file} is not in:\n{list}");
    }
    let manifest = shop
        .run(&["snapshot", "dump", "latest", "manifest.json"])
        .ended(0)
        .json();
    assert_eq!(
        manifest["server_version"],
        shop.sql("postgres", "SHOW server_version").as_str()
    );
    assert_eq!(manifest["globals"]["role_passwords"], true);
    let names: Vec<&str> = manifest["databases"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|of| of["name"].as_str())
        .collect();
    assert_eq!(names, ["o'dd \"one\"", "orders", "postgres"]);

    // As files, judged by `pg_restore`, and by restic.
    let beside = shop
        .run(&["restore", "pg"])
        .ended(0)
        .says("verified (manifest, table of contents)");
    let dump = Path::new(beside.stdout.trim()).join("orders.dump");
    let listed = told(Command::new(shop.programs.join("pg_restore")).arg("--list").arg(&dump));
    assert!(listed.contains("TABLE DATA sales items app"), "{listed}");
    shop.sandbox.judged_by_restic(test);

    // As a database beside the one that is there.
    let before = shop.databases();
    let restored = shop
        .run(&[
            "restore",
            "pg",
            "--database",
            "orders",
            "--into",
            "orders_back",
            "--json",
        ])
        .ended(0)
        .json();
    assert_eq!(
        (restored["database"].as_str(), restored["of"].as_str()),
        (Some("orders_back"), Some("orders"))
    );
    assert_eq!(restored["tables"], 3);
    assert_eq!(shop.told("orders_back", &[]), shop.told("orders", &[]));
    assert_eq!(
        shop.sql("orders_back", "SELECT convert_from(lo_get(4711), 'UTF8')"),
        "a large object"
    );
    let about = "SELECT pg_get_userbyid(datdba), datcollate, pg_encoding_to_char(encoding), shobj_description(oid, 'pg_database'), \
        (SELECT setconfig FROM pg_db_role_setting WHERE setdatabase = d.oid) FROM pg_database d WHERE datname = ";
    assert_eq!(
        shop.sql("postgres", &format!("{about} 'orders_back'")),
        shop.sql("postgres", &format!("{about} 'orders'"))
    );
    assert_eq!(shop.databases(), before.replace("orders", "orders orders_back"));

    // What is there stays as it is.
    shop.run(&["restore", "pg", "--database", "orders", "--into", "orders"])
        .ended(5)
        .says("there is a database \"orders\" already");
    shop.run(&["restore", "pg", "--into", "other"])
        .ended(2)
        .says("--database NAME");
    shop.run(&["restore", "pg", "--database", "gone", "--into", "other"])
        .ended(2)
        .says("holds no database \"gone\"");
    shop.run(&["restore", "pg", "--replace", "--yes"])
        .ended(2)
        .says("--database NAME");
    shop.run(&["restore", "pg", "--table", "items", "--into", "./folder"])
        .ended(2)
        .says("--table is of a database");
    shop.run(&["restore", "pg", "--database", "orders", "--into", &shop.url("x")])
        .ended(2)
        .says("a password stands in --into");
    assert_eq!(shop.databases(), before.replace("orders", "orders orders_back"));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_gets_the_roles_that_it_lacks() {
    let test = "another_server_gets_the_roles_that_it_lacks";
    let Some(shop) = Shop::open(test).await else { return };
    let Some(other) = Server::start(Postgres::default().password(PASSWORD), test).await else {
        return;
    };
    shop.run(&["backup", "pg"]).ended(0);
    let into = format!("postgres://postgres@{}/copy", other.address("postgres"));
    let restore = |more: &[&str]| {
        let args = [&["restore", "pg", "--database", "orders", "--into", &into], more].concat();
        let ran = shop.sandbox.command(&args).env("PGPASSWORD", PASSWORD).output();
        Ran::of(ran.expect("opsctl starts"))
    };
    let ask = |database: &str, sql: &str| {
        let mut psql = judge(&shop.programs.join("psql"), &other, database);
        told(psql.args(["-X", "-A", "-t", "-q", "-c", sql]))
    };
    let databases = "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database";
    // The password of its own server is nobody else's.
    shop.run(&["restore", "pg", "--database", "orders", "--into", &into])
        .ended(2)
        .says("does not let us in");
    restore(&[]).ended(2).says("roles are missing on the server: app");
    restore(&["--no-owner"]).ended(0);
    assert_eq!(ask("copy", "SELECT count(*) FROM sales.items"), "20000");
    assert_eq!(ask("copy", "SELECT count(*) FROM pg_roles WHERE rolname = 'app'"), "0");
    ask("postgres", "DROP DATABASE copy");
    let made = restore(&["--globals", "--json"]).ended(0).json();
    assert_eq!(made["roles"], serde_json::json!(["app", "reader"]));
    assert_eq!(
        ask("copy", "SELECT tableowner FROM pg_tables WHERE tablename = 'items'"),
        "app"
    );
    let proves = "SELECT rolpassword FROM pg_authid WHERE rolname = 'app'";
    assert_eq!(ask("postgres", proves), shop.sql("postgres", proves));
    assert_eq!(ask("postgres", "SELECT pg_has_role('app', 'reader', 'member')"), "t");
    assert_eq!(ask("postgres", databases), "copy postgres template0 template1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_and_a_schema_come_with_what_belongs_to_them() {
    let Some(shop) = Shop::open("a_table_and_a_schema_come_with_what_belongs_to_them").await else {
        return;
    };
    shop.declare("backup = { databases = [\"orders\"], globals = false }\n");
    shop.run(&["backup", "pg"]).ended(0);
    shop.run(&["restore", "pg", "--table", "items", "--into", "one"])
        .ended(0)
        .says("the foreign key `items items_of_fkey` is left out");
    let tables = "SELECT string_agg(schemaname || '.' || relname, ' ' ORDER BY relname) FROM pg_stat_user_tables";
    assert_eq!(shop.sql("one", tables), "sales.items");
    let rows = "SELECT md5(string_agg(i::text, ',' ORDER BY id)) FROM sales.items i";
    assert_eq!(shop.sql("one", rows), shop.sql("orders", rows));
    let indexes = "SELECT string_agg(indexname, ' ' ORDER BY indexname) FROM pg_indexes WHERE tablename = 'items'";
    assert_eq!(shop.sql("one", indexes), "items_pkey items_what");
    let next = "SELECT nextval(pg_get_serial_sequence('sales.items', 'id'))";
    assert_eq!(shop.sql("one", next), "20001");
    assert_eq!(
        shop.sql("one", "SELECT obj_description('sales.items'::regclass)"),
        "what is in it"
    );

    shop.run(&[
        "restore",
        "pg",
        "--table",
        "public.people",
        "--schema",
        "sales",
        "--into",
        "both",
    ])
    .ended(0);
    let keys = "SELECT string_agg(conname, ' ' ORDER BY conname) FROM pg_constraint WHERE contype = 'f'";
    assert_eq!(shop.sql("both", keys), "items_of_fkey orders_person_fkey");
    let part = ["--schema=sales", "--table=public.people"];
    assert_eq!(shop.told("both", &part[..1]), shop.told("orders", &part[..1]));
    assert_eq!(shop.told("both", &part[1..]), shop.told("orders", &part[1..]));

    let before = shop.databases();
    shop.run(&[
        "restore", "pg", "--table", "nothing", "--schema", "nowhere", "--into", "none",
    ])
    .ended(2)
    .says("the dump holds no schema \"nowhere\", no table \"nothing\"");
    assert_eq!(shop.databases(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_dumped_makes_no_snapshot_and_says_why() {
    let Some(mut shop) = Shop::open("what_cannot_be_dumped_makes_no_snapshot_and_says_why").await else {
        return;
    };
    let none = |shop: &Shop| {
        let list = shop.run(&["snapshot", "list", "--json"]).ended(0).json();
        assert_eq!(list["snapshots"].as_array().map(Vec::len), Some(0));
    };
    let right = shop.url("postgres");
    shop.sandbox.secret("dsn", &right.replace(PASSWORD, "wrong"));
    let denied = shop.run(&["backup", "pg"]).ended(2).says("does not let us in");
    assert!(!denied.stderr.contains("wrong@"), "{}", denied.stderr);
    shop.sandbox.secret("dsn", "127.0.0.1 hunter2-of-the-server");
    shop.run(&["backup", "pg"]).ended(2).says("is no address");
    shop.sandbox.secret("dsn", &shop.url("gone"));
    shop.run(&["backup", "pg"]).ended(2).says("has no database \"gone\"");
    shop.sandbox.secret("dsn", &right);
    shop.declare("backup = { databases = [\"orders\", \"gone\"] }\n");
    shop.run(&["backup", "pg"]).ended(2).says("has no database \"gone\"");
    shop.declare("backup = { method = \"magic\" }\n");
    shop.run(&["config", "check"])
        .ended(2)
        .says("`magic` is no way to save a database");
    shop.declare("programs = \"nowhere\"\n");
    shop.run(&["backup", "pg"])
        .ended(2)
        .says("there is none in")
        .says("apt install");

    // Killed in the middle, after much was written; and what says that it ended well with nothing written.
    for (script, words) in [
        (
            "\"$real\" \"$@\" | head -c 100000; kill -9 $$",
            "pg_dump was ended by signal 9",
        ),
        ("echo it is on fire >&2; exit 3", "it is on fire"),
        ("exit 0", "pg_dump ended well and printed nothing"),
    ] {
        let folder = shop.programs_with("pg_dump", script);
        shop.declare(&format!("programs = {folder:?}\n"));
        shop.run(&["backup", "pg"])
            .ended(1)
            .says("could not back up `pg`")
            .says(words);
    }
    shop.declare("");
    shop.server.stop().await;
    shop.run(&["backup", "pg"]).ended(7).says("does not answer");
    none(&shop);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_only_read_saves_roles_without_their_passwords() {
    let Some(shop) = Shop::open("who_may_only_read_saves_roles_without_their_passwords").await else {
        return;
    };
    // Who is in pg_read_all_data may read the passwords, too.
    shop.sql("postgres", "CREATE ROLE saver LOGIN PASSWORD 'saves'");
    shop.sql(
        "orders",
        "DO $$ DECLARE name text; BEGIN
           FOR name IN SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' LOOP
             EXECUTE format('GRANT USAGE ON SCHEMA %I TO saver', name);
             EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA %I TO saver', name);
             EXECUTE format('GRANT SELECT ON ALL SEQUENCES IN SCHEMA %I TO saver', name);
           END LOOP;
         END $$",
    );
    let right = shop
        .url("postgres")
        .replace(&format!("postgres:{PASSWORD}@"), "saver:saves@");
    shop.sandbox.secret("dsn", &right);
    // Large objects are nobody's but their owner's.
    shop.run(&["backup", "pg"])
        .ended(1)
        .says("permission denied for large object 4711");
    shop.sql("orders", "GRANT SELECT ON LARGE OBJECT 4711 TO saver");
    let saved = shop.run(&["backup", "pg"]).ended(0);
    let saved = saved.says("roles are saved without their passwords");
    assert!(!saved.stderr.contains("saves@"), "{}", saved.stderr);
    let manifest = shop
        .run(&["snapshot", "dump", "latest", "manifest.json"])
        .ended(0)
        .json();
    assert_eq!(manifest["globals"]["role_passwords"], false);
    shop.run(&["drill", "restore", "pg"]).ended(0);
    // Nor may they make a database.
    shop.run(&["restore", "pg", "--database", "orders", "--into", "mine"])
        .ended(1)
        .says("permission denied to create database");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_loads_every_database_and_asks_it() {
    let Some(shop) = Shop::open("a_drill_loads_every_database_and_asks_it").await else {
        return;
    };
    let asserts = "[[datastore.pg.assert]]\ndatabase = \"orders\"\nmin_rows = { \"sales.items\" = 20000, people = 100 }\n\
        [[datastore.pg.assert]]\nname = \"no order without a person\"\ndatabase = \"orders\"\nequals = 0\n\
        sql = \"SELECT count(*) FROM sales.orders WHERE person IS NULL;\"\n\
        [[datastore.pg.assert]]\nname = \"roles\"\ndatabase = \"postgres\"\nequals = \"app\"\n\
        sql = \"SELECT rolname FROM pg_roles WHERE rolname = 'app'\"\n";
    let canary = "canary = { sql = \"SELECT max(at) FROM sales.orders\", database = \"orders\" }\n";
    shop.declare(&format!("{canary}{asserts}"));
    shop.run(&["backup", "pg"]).ended(0);
    let proof = shop.run(&["drill", "restore", "pg", "--json"]).ended(0).json()["proof"].clone();
    assert_eq!(proof["verdict"], "proved");
    assert_eq!(proof["rpo_basis"], "canary");
    let major = shop.sql("postgres", "SHOW server_version");
    let told = proof["server_version"].as_str().expect("a version");
    assert!(major.split(' ').next() == Some(told), "{told} is not {major}");
    let checks = proof["checks"].as_array().expect("checks");
    let names: Vec<&str> = checks.iter().filter_map(|check| check["name"].as_str()).collect();
    for name in [
        "roles",
        "pg_restore orders",
        "pg_restore o'dd \"one\"",
        "rows of sales.items",
        "no order without a person",
    ] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    let scratch = sandbox::content(&shop.sandbox.path(".opsctl/scratch"));
    assert!(scratch.is_empty(), "{:?}", scratch.keys());

    // What does not hold is found, and so is what would change something.
    for (assert, observed) in [
        ("equals = 1\nsql = \"SELECT count(*) FROM sales.orders\"", "1000"),
        (
            "equals = 1\nsql = \"DELETE FROM sales.orders RETURNING 1\"",
            "syntax error",
        ),
        ("equals = 1\nsql = \"SELECT 1; SELECT 2\"", "multiple commands"),
        ("equals = 1\nsql = \"SELECT nextval('people_id_seq')\"", "read-only"),
        ("min_rows = { nothing = 0 }", "does not exist"),
    ] {
        shop.declare(&format!(
            "[[datastore.pg.assert]]\nname = \"it\"\ndatabase = \"orders\"\n{assert}\n"
        ));
        let proof = shop.run(&["drill", "restore", "pg", "--json"]).ended(4).json()["proof"].clone();
        let check = proof["checks"]
            .as_array()
            .expect("checks")
            .iter()
            .find(|check| check["group"] == "assertion");
        let told = check.and_then(|check| check["observed"].as_str()).expect("an answer");
        assert!(told.contains(observed), "{assert}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_that_is_cut_short_is_found_and_leaves_nothing() {
    let Some(shop) = Shop::open("a_dump_that_is_cut_short_is_found_and_leaves_nothing").await else {
        return;
    };
    // It says that it ended well; the data ends in the middle of a table.
    let folder = shop.programs_with("pg_dump", "\"$real\" \"$@\" | head -c 400000\nexit 0");
    shop.declare(&format!(
        "programs = {folder:?}\nbackup = {{ databases = [\"orders\"] }}\n"
    ));
    shop.run(&["backup", "pg"]).ended(0);
    shop.declare("");
    let before = shop.databases();
    let drilled = shop.run(&["drill", "restore", "pg", "--json"]).ended(4).json();
    let check = drilled["proof"]["checks"]
        .as_array()
        .expect("checks")
        .iter()
        .find(|check| check["name"] == "pg_restore orders")
        .cloned();
    let check = check.expect("it was tried");
    assert_eq!(check["outcome"], "not_met");
    assert!(
        check["observed"]
            .as_str()
            .is_some_and(|told| told.contains("end of file")),
        "{check}"
    );
    shop.run(&["restore", "pg", "--into", "broken"])
        .ended(1)
        .says("end of file");
    assert_eq!(shop.databases(), before);

    // The same within the table of contents.
    let folder = shop.programs_with("pg_dump", "\"$real\" \"$@\" | head -c 2000\nexit 0");
    shop.declare(&format!(
        "programs = {folder:?}\nbackup = {{ databases = [\"orders\"] }}\n"
    ));
    shop.run(&["backup", "pg"]).ended(0);
    shop.declare("");
    shop.run(&["drill", "restore", "pg"]).ended(4);
    shop.run(&["restore", "pg", "--into", "broken"])
        .ended(1)
        .says("it ends within its table of contents");
    assert_eq!(shop.databases(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_restore_leaves_no_database_and_a_killed_one_is_named() {
    let Some(shop) = Shop::open("an_interrupted_restore_leaves_no_database_and_a_killed_one_is_named").await else {
        return;
    };
    shop.run(&["backup", "pg"]).ended(0);
    let before = shop.databases();
    // The real one loads everything, and then does not come to its end.
    let script = "\"$real\" \"$@\"\necho $$ > \"${0%/*}/waits\"\nsleep 1000";
    let folder = shop.programs_with("pg_restore", script);
    let waits = folder.join("waits");
    let started = || {
        let _ = fs::remove_file(&waits);
        let mut command = shop
            .sandbox
            .command(&["restore", "pg", "--database", "orders", "--into", "late"]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let child = Ends(child.expect("opsctl starts"));
        let mut pid = None;
        eventually("pg_restore", || {
            pid = fs::read_to_string(&waits)
                .ok()
                .and_then(|text| text.trim().parse::<i32>().ok());
            pid.is_some()
        });
        (child, pid.expect("a number"))
    };
    shop.declare(&format!("programs = {folder:?}\n"));

    let (child, restorer) = started();
    let shown = everybody();
    assert!(shown.contains("orders.dump"), "{shown}");
    assert!(
        !shown.contains(PASSWORD) && !shown.contains("hunter2-of-app"),
        "a secret is in a list of processes"
    );
    assert!(shop.databases().contains("opsctl_restoring_"));
    let signal = |pid: u32, signal| {
        let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a number");
        rustix::process::kill_process(pid, signal).expect("it runs");
    };
    signal(child.0.id(), rustix::process::Signal::INT);
    child.ended().ended(130);
    assert_eq!(shop.databases(), before);
    eventually("the end of pg_restore", || !alive(restorer));

    let (child, restorer) = started();
    signal(child.0.id(), rustix::process::Signal::KILL);
    child.ended();
    eventually("the end of pg_restore", || !alive(restorer));
    shop.declare("");
    let left = shop.databases();
    let name = left
        .split(' ')
        .find(|name| name.starts_with("opsctl_restoring_"))
        .expect("it was killed");
    eventually("that nobody is connected", || {
        shop.sql(
            "postgres",
            &format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'"),
        ) == "0"
    });
    shop.run(&["restore", "pg", "--database", "orders", "--into", "late"])
        .ended(0)
        .says(&format!(
            "a restore that was killed left a database on 127.0.0.1:{}: DROP DATABASE \"{name}\"",
            shop.server.address("postgres").port()
        ));
    assert_eq!(shop.sql("late", "SELECT count(*) FROM sales.items"), "20000");
    // Nor is it saved.
    shop.run(&["backup", "pg"]).ended(0);
    let list = shop.run(&["snapshot", "ls", "latest"]).ended(0).stdout;
    assert!(list.contains("late.dump") && !list.contains("restoring"), "{list}");
}

/// A process that does not outlive its test.
struct Ends(Child);

impl Ends {
    /// What it told, at its end.
    fn ended(mut self) -> Ran {
        let status = self.0.wait().expect("it ends");
        let read = |from: &mut dyn std::io::Read| {
            let mut text = Vec::new();
            from.read_to_end(&mut text).expect("readable");
            text
        };
        let stdout = self.0.stdout.as_mut().map(|from| read(from)).unwrap_or_default();
        let stderr = self.0.stderr.as_mut().map(|from| read(from)).unwrap_or_default();
        Ran::of(Output { status, stdout, stderr })
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The command lines of everybody on this machine.
fn everybody() -> String {
    let processes = fs::read_dir("/proc").expect("processes").flatten();
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " ") + "\n")
        .collect()
}
