//! Restore drills through the crate's public surface: what they find, what they measure, what is kept of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use backups::proof::standing::Standing;
use backups::proof::{
    Assertion, Bound, Canary, Expectation, Group, Number, Objectives, Outcome, Proof, RpoBasis, Terms, Verdict,
};
use backups::snapshots::{self, SnapshotFilter, SnapshotRecord};
use backups::source::{Source, SqliteSource};
use backups::store::{LocalStore, StoreKey, list_all};
use backups::{Repository, Silent, Store, proof};
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::world::*;

struct Place {
    folder: tempfile::TempDir,
    store: Arc<dyn Store>,
    repository: Repository,
}

impl Place {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(LocalStore::new(folder.path().join("repository")));
        let repository = init(&store).await;
        Self {
            folder,
            store,
            repository,
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn database(&self, sql: &str) -> SqliteSource {
        let path = self.path("shop.db");
        rusqlite::Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        SqliteSource::new(path, self.path("staging"))
    }

    async fn saved(&self, source: &dyn Source) -> SnapshotRecord {
        save(&self.repository, source).await.unwrap();
        let list = snapshots::list(&self.repository, &SnapshotFilter::default())
            .await
            .unwrap();
        list.snapshots.last().unwrap().clone()
    }

    async fn drill(&self, source: &dyn Source, record: &SnapshotRecord, terms: &Terms) -> Proof {
        let into = tempfile::tempdir_in(self.folder.path()).unwrap();
        let cancel = CancellationToken::new();
        proof::rehearse(&self.repository, source, record, terms, into.path(), &Silent, &cancel)
            .await
            .unwrap()
    }
}

fn terms(name: &str, record: &SnapshotRecord) -> Terms {
    Terms {
        forward: None,
        datastore: "store".to_owned(),
        environment: "local".to_owned(),
        actor: "tester@here".to_owned(),
        host: "here".to_owned(),
        run: None,
        moment: record.snapshot.time,
        objectives: Objectives::default(),
        assertions: Vec::new(),
        canary: None,
        name: name.into(),
        is_database: name == "shop.db",
        revive: None,
        opened: Duration::from_millis(5),
        query_limit: Duration::from_secs(30),
    }
}

fn sql(query: &str, bound: Bound) -> Assertion {
    Assertion {
        name: None,
        database: None,
        expect: Expectation::Sql {
            query: query.to_owned(),
            bound,
        },
    }
}

fn outcome<'a>(proof: &'a Proof, name: &str) -> (Outcome, &'a str) {
    let check = proof.checks.iter().find(|check| check.name.contains(name));
    let check = check.unwrap_or_else(|| panic!("no {name} in {:?}", proof.checks));
    (check.outcome, &check.observed)
}

const ORDERS: &str = "CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT, created_at TEXT);
    INSERT INTO orders (item, created_at) VALUES ('book', '2026-03-14 01:00:00'), ('pen', '2026-03-14T02:00:00.500Z');";

#[tokio::test]
async fn a_database_is_proved_and_restic_minds_no_record() {
    let place = Place::new().await;
    let source = place.database(ORDERS);
    let record = place.saved(&source).await;
    let mut terms = terms("shop.db", &record);
    terms.moment = "2026-03-14T02:01:00Z".parse().unwrap();
    terms.objectives = Objectives {
        rpo_seconds: Some(60.0),
        rto_seconds: Some(600.0),
        prove_every_seconds: None,
    };
    terms.canary = Some(Canary {
        query: "SELECT max(created_at) FROM orders".to_owned(),
        database: None,
    });
    terms.assertions = vec![
        sql("SELECT count(*) FROM orders", Bound::EqualsNumber(Number::Integer(2))),
        sql(
            "SELECT item FROM orders ORDER BY id LIMIT 1",
            Bound::EqualsText("book".to_owned()),
        ),
        sql(
            "SELECT avg(id) FROM orders",
            Bound::Between(Number::Real(1.5), Number::Integer(2)),
        ),
        Assertion {
            name: Some("rows".to_owned()),
            database: None,
            expect: Expectation::MinRows(BTreeMap::from([("orders".to_owned(), 2)])),
        },
    ];
    let proof = place.drill(&source, &record, &terms).await;
    assert_eq!(proof.verdict, Verdict::Proved, "{:#?}", proof.checks);
    assert_eq!(
        proof.group(Group::Source).count(),
        3,
        "manifest, integrity, foreign keys"
    );
    assert_eq!((proof.rpo_seconds, proof.rpo_basis), (Some(59.5), RpoBasis::Canary));
    assert!(proof.rto_seconds.unwrap() >= 0.005 && proof.rto_seconds.unwrap() < 600.0);
    assert!((proof.rto_seconds.unwrap() - proof.phases.total()).abs() < 1e-8);

    proof::save(&place.repository, &proof).await.unwrap();
    proof::save(&place.repository, &proof).await.unwrap();
    let list = proof::list(&place.repository).await.unwrap();
    assert_eq!(list.damaged, []);
    assert!(list.proofs.iter().all(|kept| kept.proof == proof));
    assert_eq!(
        proof::proved(&place.repository).await.unwrap().first(),
        Some(&record.id)
    );
    let names = list_all(&*place.store, "proofs/").await.unwrap();
    assert_eq!(names.len(), 2);

    // Neither check sees anything odd in a repository with records, and a damaged one is no damage of the data.
    place
        .store
        .put(&StoreKey::new("proofs/x").unwrap(), bytes_of(b"y"))
        .await
        .unwrap();
    assert!(check(&place.repository).await.findings.is_empty());
    if let Some(restic) = Restic::find("a_database_is_proved_and_restic_minds_no_record") {
        let repository = place.path("repository");
        restic.ok(&repository, PASSWORD, &["check", "--read-data"]);
        restic.ok(&repository, PASSWORD, &["prune"]);
    }
    assert_eq!(proof::list(&place.repository).await.unwrap().proofs.len(), 2);
}

fn bytes_of(bytes: &'static [u8]) -> bytes::Bytes {
    bytes::Bytes::from_static(bytes)
}

#[tokio::test]
async fn what_a_database_is_not_is_told_question_by_question() {
    let place = Place::new().await;
    let source = place.database(&format!(
        "{ORDERS} CREATE TABLE \"o\"\"dd\" (x); CREATE TABLE none (x);"
    ));
    let record = place.saved(&source).await;
    let mut terms = terms("shop.db", &record);
    let least = |rows: i64| Bound::AtLeast(Number::Integer(rows));
    terms.assertions = vec![
        sql("SELECT count(*) FROM orders /* too many */", least(3)),
        sql("SELECT max(x) FROM none", least(0)),
        sql("SELECT * FROM missing", least(0)),
        sql("this is no SQL", least(0)),
        sql("DELETE FROM orders", least(0)),
        sql("ATTACH DATABASE '/etc/passwd' AS other", least(0)),
        sql("SELECT 1 WHERE 0 /* no row */", least(0)),
        Assertion {
            name: None,
            database: None,
            expect: Expectation::MinRows(BTreeMap::from([("o\"dd".to_owned(), 0), ("absent".to_owned(), 0)])),
        },
    ];
    let proof = place.drill(&source, &record, &terms).await;
    assert_eq!(proof.verdict, Verdict::NotProved);
    for name in [
        "too many",
        "max(x)",
        "missing",
        "this is no SQL",
        "DELETE",
        "ATTACH",
        "no row",
        "rows of absent",
    ] {
        assert_eq!(outcome(&proof, name).0, Outcome::NotMet, "{name}");
    }
    assert_eq!(outcome(&proof, "rows of o\"dd").0, Outcome::Met);
    assert!(outcome(&proof, "missing").1.contains("no such table"));
    assert_eq!(outcome(&proof, "too many").1, "2");
    // Without an objective, and without a canary, nothing is asked of the loss.
    assert_eq!(proof.group(Group::Objective).count(), 0);
    assert_eq!(proof.rpo_basis, RpoBasis::Snapshot);
}

#[tokio::test]
async fn a_query_without_end_and_a_canary_without_a_time_leave_it_open() {
    let place = Place::new().await;
    let source = place.database(ORDERS);
    let record = place.saved(&source).await;
    let mut terms = terms("shop.db", &record);
    terms.query_limit = Duration::from_millis(200);
    terms.assertions = vec![sql(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
        Bound::AtLeast(Number::Integer(0)),
    )];
    let proof = place.drill(&source, &record, &terms).await;
    assert_eq!(proof.verdict, Verdict::Inconclusive);
    assert!(outcome(&proof, "RECURSIVE").1.contains("no answer within 0.2 s"));

    terms.assertions.clear();
    for (query, told) in [
        ("SELECT max(created_at) FROM orders WHERE 0", "found no row"),
        ("SELECT max(item) FROM orders", "which is no time"),
        ("SELECT max(created_at) FROM absent", "no such table"),
        ("SELECT '2100-01-01T00:00:00Z'", "a clock is wrong"),
    ] {
        terms.canary = Some(Canary {
            query: query.to_owned(),
            database: None,
        });
        let proof = place.drill(&source, &record, &terms).await;
        assert_eq!(proof.verdict, Verdict::Inconclusive, "{query}");
        assert_eq!(proof.rpo_seconds, None);
        assert!(
            outcome(&proof, "rpo").1.contains(told),
            "{query}: {:?}",
            outcome(&proof, "rpo")
        );
    }
}

#[tokio::test]
async fn a_drill_that_is_given_up_ends_at_once() {
    let place = Place::new().await;
    let source = place.database(ORDERS);
    let record = place.saved(&source).await;
    let mut terms = terms("shop.db", &record);
    terms.query_limit = Duration::from_hours(1);
    terms.assertions = vec![sql(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
        Bound::AtLeast(Number::Integer(0)),
    )];
    let into = tempfile::tempdir_in(place.folder.path()).unwrap();
    let cancel = CancellationToken::new();
    let drill = proof::rehearse(
        &place.repository,
        &source,
        &record,
        &terms,
        into.path(),
        &Silent,
        &cancel,
    );
    let stop = async {
        // The copy is there: what follows is the query that never ends.
        while !into.path().join("shop.db").exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        cancel.cancel();
    };
    let (ended, ()) = tokio::join!(drill, stop);
    assert!(matches!(ended, Err(backups::Error::Cancelled)), "{ended:?}");
}

#[tokio::test]
async fn files_are_read_again_counted_and_looked_for() {
    let place = Place::new().await;
    let root = place.path("uploads");
    odd_tree(&root);
    fs::write(root.join("logo.png"), b"png").unwrap();
    std::os::unix::fs::symlink("/etc", root.join("outside")).unwrap();
    let source = files(&root);
    let record = place.saved(&source).await;
    let mut terms = terms("uploads", &record);
    let path = |path: &str| Assertion {
        name: None,
        database: None,
        expect: Expectation::Path(path.into()),
    };
    let many = |expect| Assertion {
        name: None,
        database: None,
        expect,
    };
    terms.assertions = vec![
        path("logo.png"),
        path("./deep/er"),
        many(Expectation::MinFiles(10)),
        many(Expectation::MinBytes(5 << 20)),
    ];
    let proof = place.drill(&source, &record, &terms).await;
    assert_eq!(proof.verdict, Verdict::Proved, "{:#?}", proof.checks);
    assert_eq!(outcome(&proof, "content by hash").0, Outcome::Met);

    terms.assertions = vec![
        path("absent"),
        path("outside/passwd"),
        path("../repository/config"),
        path("/etc/passwd"),
        many(Expectation::MinFiles(10_000)),
        many(Expectation::MinBytes(u64::MAX)),
    ];
    let proof = place.drill(&source, &record, &terms).await;
    for check in proof.group(Group::Assertion) {
        assert_eq!(check.outcome, Outcome::NotMet, "{}", check.name);
    }
}

#[tokio::test]
async fn damage_refutes_and_names_the_files() {
    let place = Place::new().await;
    let root = place.path("uploads");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("large"), noise(1, 3 << 20)).unwrap();
    fs::write(root.join("other"), noise(2, 2000)).unwrap();
    let source = files(&root);
    let record = place.saved(&source).await;
    let mut broken = 0;
    for pack in list_all(&*place.store, "data/").await.unwrap() {
        let path = place.path("repository").join(pack.key.as_str());
        let whole = fs::read(&path).unwrap();
        let mut changed = whole.clone();
        changed[whole.len() / 3] ^= 1;
        write(&path, &changed);
        let proof = place.drill(&source, &record, &terms("uploads", &record)).await;
        assert_eq!(proof.verdict, Verdict::NotProved, "{:#?}", proof.checks);
        assert_eq!(proof.rto_seconds, None);
        broken += proof.group(Group::Restore).count();
        write(&path, &whole);
    }
    assert!(broken >= 2, "a pack with trees and one with data at least");
    let proof = place.drill(&source, &record, &terms("uploads", &record)).await;
    assert_eq!(proof.verdict, Verdict::Proved);
}

fn write(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn how_a_datastore_stands() {
    let place = Place::new().await;
    let source = place.database(ORDERS);
    let record = place.saved(&source).await;
    let proof = place.drill(&source, &record, &terms("shop.db", &record)).await;
    let promised = |rpo: f64, rto: f64, every: f64| Objectives {
        rpo_seconds: Some(rpo),
        rto_seconds: Some(rto),
        prove_every_seconds: Some(every),
    };
    let snapshots = [record.clone()];
    let later = |seconds| proof.at + SignedDuration::from_secs(seconds);
    let stands = |drills: &[&Proof], promised, now: Timestamp| Standing::of(&snapshots, None, drills, promised, now);

    let good = stands(&[&proof], promised(100.0, 600.0, 1000.0), later(50));
    assert_eq!(good.outcome(), Outcome::Met, "{good:#?}");
    let outcomes = |standing: &Standing| {
        standing
            .promises
            .iter()
            .map(|promise| promise.outcome)
            .collect::<Vec<_>>()
    };
    let late = stands(&[&proof], promised(100.0, 1e-9, 1000.0), later(2000));
    assert_eq!(outcomes(&late), [Outcome::NotMet; 3]);
    let never = stands(&[], promised(100.0, 600.0, 1000.0), later(50));
    assert_eq!(outcomes(&never), [Outcome::Met, Outcome::Unknown, Outcome::Unknown]);
    assert_eq!(never.outcome(), Outcome::Unknown);

    let mut failed = proof.clone();
    failed.verdict = Verdict::NotProved;
    let failed = stands(&[&proof, &failed], Objectives::default(), later(1));
    assert_eq!(failed.outcome(), Outcome::NotMet, "the last drill counts");
    assert_eq!(failed.last_proof.unwrap().verdict, Verdict::Proved);

    let mut partial = record.clone();
    partial.snapshot.tags.push(backups::PARTIAL_TAG.to_owned());
    partial.snapshot.time += SignedDuration::from_secs(5000);
    let both = [record.clone(), partial];
    let standing = Standing::of(
        &both,
        None,
        &[],
        promised(100.0, 1.0, 1.0),
        record.snapshot.time + SignedDuration::from_secs(5001),
    );
    assert!(standing.last_backup.as_ref().unwrap().partial);
    assert_eq!(
        standing.promise("rpo").unwrap().outcome,
        Outcome::NotMet,
        "half a backup is none"
    );

    let empty = Standing::of(&[], None, &[], Objectives::default(), later(0));
    assert_eq!(empty.outcome(), Outcome::Unknown);
    let empty = Standing::of(&[], None, &[], promised(1.0, 1.0, 1.0), later(0));
    assert_eq!(empty.outcome(), Outcome::NotMet, "all would be lost");
}

#[tokio::test]
async fn what_could_not_be_read_makes_a_partial_snapshot() {
    let place = Place::new().await;
    let root = place.path("uploads");
    fs::create_dir(&root).unwrap();
    // A socket cannot be saved.
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    let report = save(&place.repository, &files(&root)).await.unwrap();
    let snapshot = place.repository.snapshot(&report.snapshot).await.unwrap();
    assert_eq!(
        report.is_partial(),
        snapshot.tags.iter().any(|tag| tag == backups::PARTIAL_TAG)
    );
}
