//! Restored clusters under a scratch server and on the ladder: a sound one passes every step, and each kind of damage is
//! found by the step that is there for it. Real servers, real damage.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use backups::postgres::ladder::{Came, Ladder, LadderOptions, Step, climb};
use backups::postgres::scratch::{ScratchError, ScratchOptions, ScratchServer};
use backups::proof::{Assertion, Bound, Canary, Expectation, Number, Value};
use peers::servers::Release;
use peers::servers::postgres::{Cluster, Postgres};
use replication::Lsn;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

/// A base backup without log, the log beside it, and where it leads to.
struct World {
    folder: tempfile::TempDir,
    #[expect(dead_code, reason = "the programs may lie in its folder, which goes with it")]
    cluster: Cluster,
    programs: PathBuf,
    target: String,
    /// The file of a table that the log after the base backup says nothing of, below the data folder.
    still: String,
}

const ROWS: i64 = 5000;

impl World {
    async fn make(recipe: Postgres, test: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        // The server's user goes through it.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
        // No checkpoint takes away what is to be the archive.
        let recipe = recipe.setting("wal_keep_size", "1GB");
        let mut cluster = Cluster::start(recipe, test).await?;
        cluster.run("create database shop").await;
        cluster
            .run_in(
                "shop",
                "create table orders (id bigint primary key, note text, at timestamptz default now());
                 insert into orders select n, 'order ' || n from generate_series(1, 100) n;
                 create table still (id bigint primary key, note text);
                 insert into still select n, 'row ' || n from generate_series(1, 1000) n;
                 create function die() returns int language plpgsql as
                 $$ begin copy (select 1) to program 'kill -9 $(head -1 postmaster.pid)'; return 1; end $$",
            )
            .await;
        let still = cluster.run_in("shop", "vacuum freeze still").await;
        assert_eq!(still, "");
        cluster.run_in("shop", "checkpoint").await;
        let still = cluster.run_in("shop", "select pg_relation_filepath('still')").await;
        let base = folder.path().join("base");
        let copied = if cluster.release() == Release::V15 {
            let mut copy = Command::new(Release::V15.client("pg_basebackup").unwrap());
            copy.args(["-X", "none", "-c", "fast", "--no-sync", "-d", &cluster.url(), "-D"])
                .arg(&base);
            copy.kill_on_drop(true).status().await.unwrap()
        } else {
            cluster.stop().await;
            let copied = Command::new("cp")
                .arg("-a")
                .args([cluster.data(), &base])
                .status()
                .await
                .unwrap();
            cluster.start_again().await;
            copied
        };
        assert!(copied.success());
        let more = format!("insert into orders select n, 'order ' || n from generate_series(101, {ROWS}) n");
        cluster.run_in("shop", &more).await;
        let target = cluster.restore_point("here").await;
        cluster.run_in("shop", "delete from orders").await;
        cluster.switch_wal().await;
        cluster.stop().await;
        let archive = folder.path().join("archive");
        let copied = Command::new("cp")
            .arg("-r")
            .arg(cluster.data().join("pg_wal"))
            .arg(&archive)
            .status()
            .await;
        assert!(copied.unwrap().success());
        let everybody = Command::new("chmod").args(["-R", "a+rX"]).arg(&archive).status().await;
        assert!(everybody.unwrap().success());
        let beside = cluster.server().folder().join("postgres/bin");
        let programs = if beside.exists() {
            beside
        } else {
            cluster.release().programs().unwrap()
        };
        Some(Self {
            folder,
            cluster,
            programs,
            target,
            still,
        })
    }

    /// A restored copy, and how it recovers to `target`.
    async fn copy(&self, name: &str, target: &str) -> LadderOptions {
        let data = self.folder.path().join(name);
        let base = self.folder.path().join("base");
        let copied = Command::new("cp").arg("-a").args([&base, &data]).status().await;
        assert!(copied.unwrap().success());
        let setting = |name: &str, value: String| (name.to_owned(), value);
        let archive = self.folder.path().join("archive");
        let recovery = vec![
            setting("restore_command", format!("cp {}/%f %p", archive.display())),
            setting("recovery_target_lsn", target.to_owned()),
            setting("recovery_target_action", "promote".to_owned()),
        ];
        let assertion = |database: &str, expect| Assertion {
            name: None,
            database: Some(database.to_owned()),
            expect,
        };
        LadderOptions {
            scratch: ScratchOptions {
                programs: self.programs.clone(),
                data,
                roles: Vec::new(),
                recovery: Some(recovery),
                settings: vec![setting("shared_buffers", "16MB".to_owned())],
                sockets: None,
                lasting: false,
            },
            target: Some(target.parse().unwrap()..=Lsn(u64::MAX)),
            manifest: Came::Passed("as written".to_owned()),
            repository: Came::NotRun("not asked for".to_owned()),
            assertions: vec![
                assertion(
                    "shop",
                    Expectation::Sql {
                        query: "select max(id) from orders".to_owned(),
                        bound: Bound::EqualsNumber(Number::Integer(ROWS)),
                    },
                ),
                assertion(
                    "shop",
                    Expectation::MinRows(BTreeMap::from([
                        ("public.orders".to_owned(), ROWS as u64),
                        ("still".to_owned(), 1000),
                    ])),
                ),
            ],
            canary: Some(Canary {
                query: "select max(at) from orders".to_owned(),
                database: Some("shop".to_owned()),
            }),
            asked: None,
            query_limit: Duration::from_secs(20),
            jobs: 2,
        }
    }

    fn still_in(&self, options: &LadderOptions) -> PathBuf {
        options.scratch.data.join(&self.still)
    }
}

async fn climbed(options: &LadderOptions) -> Ladder {
    climb(options, &|_| {}, &CancellationToken::new())
        .await
        .expect("it can be climbed")
}

/// The step failed, and says these words.
#[track_caller]
fn fails(ladder: &Ladder, step: Step, words: &str) {
    match ladder.came(step) {
        Some(Came::Failed(told)) if told.contains(words) => assert!(!ladder.holds()),
        other => panic!(
            "{step:?} did not fail with {words:?}: {other:?}; all: {:#?}",
            ladder.rungs
        ),
    }
}

#[track_caller]
fn passes(ladder: &Ladder, steps: &[Step]) {
    for step in steps {
        let came = ladder.came(*step);
        assert!(
            matches!(came, Some(Came::Passed(_))),
            "{step:?}: {came:?}; all: {:#?}",
            ladder.rungs
        );
    }
}

#[track_caller]
fn is_not_run(ladder: &Ladder, step: Step, words: &str) {
    match ladder.came(step) {
        Some(Came::NotRun(told)) if told.contains(words) => {}
        other => panic!("{step:?} was run, or not for {words:?}: {other:?}"),
    }
}

fn flip(file: &Path, offset: u64) {
    let file = fs::File::options().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x55], offset).unwrap();
}

/// Where the header of the first tuple of the first page says how long it is.
fn header_length(file: &Path) -> u64 {
    let bytes = fs::read(file).unwrap();
    // The first line pointer follows the page's header; its lowest 15 bits are the tuple's offset.
    let pointer = u32::from_le_bytes(bytes[24..28].try_into().unwrap());
    u64::from(pointer & 0x7fff) + 22
}

const ALL_OURS: [Step; 6] = [
    Step::Files,
    Step::Recovery,
    Step::Checksums,
    Step::Indexes,
    Step::Dump,
    Step::Questions,
];

#[tokio::test]
async fn a_sound_copy_passes_and_every_damage_is_found_by_its_step() {
    let test = "a_sound_copy_passes_and_every_damage_is_found_by_its_step";
    let Some(world) = World::make(Postgres::default().made_with("--data-checksums"), test).await else {
        return;
    };

    let sound = world.copy("sound", &world.target).await;
    let ladder = climbed(&sound).await;
    passes(&ladder, &ALL_OURS);
    assert!(ladder.holds());
    assert_eq!(ladder.rungs.iter().map(|rung| rung.step).collect::<Vec<_>>(), Step::ALL);
    let reached = ladder.reached.unwrap();
    assert!(
        sound.target.as_ref().unwrap().contains(&reached.position) && reached.timeline.0 == 2 && !reached.paused,
        "{reached:?}"
    );
    assert!(reached.last_commit.is_some() && ladder.recovered_in.is_some());
    let newest = ladder.newest.clone().unwrap().unwrap();
    assert!(backups::proof::judge::time_of(&newest).is_some(), "{newest:?}");
    assert!(
        ladder
            .version
            .as_deref()
            .is_some_and(|version| version.starts_with("15."))
    );
    assert_eq!(ladder.checks.len(), 3);
    nothing_is_left(&sound.scratch.data);

    // The same copy again, which is not what was saved any more.
    let mut again = sound.clone();
    again.scratch.recovery = None;
    let ladder = climbed(&again).await;
    is_not_run(&ladder, Step::Files, "has run over the copy");
    passes(&ladder, &ALL_OURS[1..]);

    // An index that lacks rows: nothing but a look into both finds it.
    let server = ScratchServer::start(&again.scratch, &CancellationToken::new())
        .await
        .unwrap();
    let client = server.connect("shop").await.unwrap();
    for statement in [
        "update pg_index set indisready = false, indislive = false where indexrelid = 'orders_pkey'::regclass",
        "insert into orders values (1000000, 'in no index')",
        "update pg_index set indisready = true, indislive = true where indexrelid = 'orders_pkey'::regclass",
    ] {
        client.batch_execute(statement).await.unwrap();
    }
    drop(client);
    server.stop().await.unwrap();
    again.assertions.remove(0);
    let ladder = climbed(&again).await;
    fails(&ladder, Step::Indexes, "orders_pkey");
    passes(&ladder, &[Step::Recovery, Step::Checksums, Step::Dump, Step::Questions]);

    let flipped = world.copy("flipped", &world.target).await;
    flip(&world.still_in(&flipped), 8000);
    let ladder = climbed(&flipped).await;
    fails(&ladder, Step::Files, &world.still);
    fails(&ladder, Step::Checksums, "checksum verification failed");

    // Without the manifest the page's own checksum is left.
    let unseen = world.copy("unseen", &world.target).await;
    fs::remove_file(unseen.scratch.data.join("backup_manifest")).unwrap();
    flip(&world.still_in(&unseen), 8000);
    let ladder = climbed(&unseen).await;
    is_not_run(&ladder, Step::Files, "no manifest");
    fails(&ladder, Step::Checksums, "checksum verification failed");
    fails(&ladder, Step::Dump, "invalid page");

    let missing = world.copy("missing", &world.target).await;
    fs::remove_file(world.still_in(&missing)).unwrap();
    let ladder = climbed(&missing).await;
    fails(&ladder, Step::Files, "not on disk");
    fails(&ladder, Step::Dump, "could not open file");

    let truncated = world.copy("truncated", &world.target).await;
    let file = fs::File::options()
        .write(true)
        .open(world.still_in(&truncated))
        .unwrap();
    file.set_len(8192).unwrap();
    let ladder = climbed(&truncated).await;
    fails(&ladder, Step::Files, "size");
    fails(&ladder, Step::Questions, "rows of still");

    // A server that dies in the middle is no success of the steps that follow.
    let mut dying = world.copy("dying", &world.target).await;
    let Expectation::Sql { query, .. } = &mut dying.assertions[0].expect else {
        panic!("the first one is a query");
    };
    *query = "select die()".to_owned();
    let ladder = climbed(&dying).await;
    fails(&ladder, Step::Questions, "the server ended meanwhile");
    is_not_run(&ladder, Step::Dump, "had ended");
    is_not_run(&ladder, Step::Checksums, "had ended");

    // Log that ends before the target is an error, and so is a recovery without one.
    let beyond = world.copy("beyond", "FF/0").await;
    let ladder = climbed(&beyond).await;
    fails(
        &ladder,
        Step::Recovery,
        "recovery ended before configured recovery target was reached",
    );
    is_not_run(&ladder, Step::Dump, "did not start");
    let mut aimless = beyond.clone();
    aimless
        .scratch
        .recovery
        .as_mut()
        .unwrap()
        .retain(|(name, _)| name != "recovery_target_lsn");
    let refused = climb(&aimless, &|_| {}, &CancellationToken::new()).await;
    assert!(matches!(refused, Err(ScratchError::NoTarget)), "{refused:?}");

    // Paused at the target: it can be read, and everything else says so.
    let mut paused = world.copy("paused", &world.target).await;
    let recovery = paused.scratch.recovery.as_mut().unwrap();
    recovery.push(("recovery_target_action".to_owned(), "pause".to_owned()));
    paused
        .scratch
        .settings
        .push(("max_connections".to_owned(), "50".to_owned()));
    let ladder = climbed(&paused).await;
    passes(&ladder, &[Step::Files, Step::Recovery, Step::Dump, Step::Questions]);
    is_not_run(&ladder, Step::Indexes, "can only be read");
    assert!(ladder.reached.unwrap().paused);

    let given_up = world.copy("given up", &world.target).await;
    let cancel = CancellationToken::new();
    cancel.cancel();
    assert!(matches!(
        climb(&given_up, &|_| {}, &cancel).await,
        Err(ScratchError::Cancelled)
    ));
}

#[tokio::test]
async fn without_checksums_what_cannot_be_said_is_said_and_the_heap_is_looked_into() {
    let test = "without_checksums_what_cannot_be_said_is_said_and_the_heap_is_looked_into";
    let Some(world) = World::make(Postgres::default(), test).await else {
        return;
    };
    let options = world.copy("flipped", &world.target).await;
    fs::remove_file(options.scratch.data.join("backup_manifest")).unwrap();
    let still = world.still_in(&options);
    flip(&still, header_length(&still));
    let ladder = climbed(&options).await;
    is_not_run(&ladder, Step::Checksums, "has no checksums");
    fails(&ladder, Step::Indexes, "still");
    passes(&ladder, &[Step::Recovery]);
}

/// Servers without client programs recover and answer; the other steps say what is missing.
#[tokio::test]
async fn a_step_whose_program_is_missing_is_not_run() {
    let test = "a_step_whose_program_is_missing_is_not_run";
    for release in [Release::V14, Release::V18] {
        let Some(world) = World::make(Postgres::of(release), test).await else {
            continue;
        };
        let options = world.copy("copy", &world.target).await;
        let ladder = climbed(&options).await;
        passes(&ladder, &[Step::Recovery, Step::Questions]);
        is_not_run(&ladder, Step::Indexes, "no pg_amcheck");
        is_not_run(&ladder, Step::Dump, "no pg_dump");
        assert!(ladder.holds());
        let newest = ladder.newest.unwrap().unwrap();
        assert!(matches!(newest, Value::Text(_)), "{newest:?}");
    }
}

/// Set in the test that is started to be killed, to the folder of its cluster.
const HOLD: &str = "OPSCTL_TEST_HOLDS_SCRATCH";

/// A server ends with whoever started it, also when that is killed.
#[tokio::test]
async fn nothing_outlives_a_killed_process() {
    use tokio::io::{AsyncBufReadExt, BufReader};
    let test = "nothing_outlives_a_killed_process";
    if let Some(data) = std::env::var_os(HOLD) {
        let options = ScratchOptions {
            programs: Release::V15.programs().unwrap(),
            data: data.into(),
            roles: Vec::new(),
            recovery: None,
            settings: Vec::new(),
            sockets: None,
            lasting: false,
        };
        let server = ScratchServer::start(&options, &CancellationToken::new()).await.unwrap();
        assert_eq!(server.databases().await.unwrap(), ["postgres", "template1"]);
        println!("\nheld {}", server.socket().display());
        std::future::pending::<()>().await;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let data = folder.path().join("data");
    let Some(mut cluster) = Cluster::start(Postgres::default().data(&data), test).await else {
        return;
    };
    cluster.stop().await;
    let mut victim = Command::new(std::env::current_exe().unwrap());
    victim
        .args(["--exact", &format!("ladder::{test}"), "--nocapture"])
        .env(HOLD, &data);
    let mut victim = victim
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    let socket = loop {
        let line = lines.next_line().await.unwrap().expect("it holds a server");
        if let Some((_, socket)) = line.split_once("held ") {
            break PathBuf::from(socket);
        }
    };
    assert!(socket.join(".s.PGSQL.5432").exists());
    victim.kill().await.unwrap();
    let patience = tokio::time::Instant::now() + Duration::from_mins(1);
    while socket.exists() || data.join("postmaster.pid").exists() {
        assert!(tokio::time::Instant::now() < patience, "something is left");
        tokio::task::yield_now().await;
    }
    nothing_is_left(&data);
}

/// Neither a process of the server nor its socket.
#[track_caller]
fn nothing_is_left(data: &Path) {
    assert!(!data.join("postmaster.pid").exists());
    let beside = fs::read_dir(data.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = beside
        .filter(|name| name.as_encoded_bytes().starts_with(b".opsctl-pg-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
