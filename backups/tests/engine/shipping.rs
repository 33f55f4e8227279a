//! What was shipped of a live SQLite database leads back to any moment: every commit that was acknowledged before is
//! there, none that began later, and the sums hold. Under writers, checkpoints by others, VACUUM, swaps of the file, and
//! a store that fails.

#[path = "shipping/outage.rs"]
mod outage;
#[path = "shipping/shop.rs"]
mod shop;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use backups::pitr::sqlite::{self, Outcome, RestoreTo, Shipper, ShippingError};
use backups::store::{Fault, FaultyStore, list_all};
use backups::{Error, Repository, Store};
use rand::{Rng, SeedableRng};
use rusqlite::Connection;
use tokio_util::sync::CancellationToken;

use crate::world::*;
use shop::{Shop, datastore};

fn seed(test: &str) -> rand::rngs::StdRng {
    let seed = std::env::var("OPSCTL_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(rand::random::<u64>);
    println!("{test}: OPSCTL_SEED={seed}");
    rand::rngs::StdRng::seed_from_u64(seed)
}

async fn step(shipper: &mut Shipper) -> backups::pitr::sqlite::Shipped {
    shipper.ship_once(&CancellationToken::new()).await.unwrap()
}

/// Ships under writers and everything that others may do to a database meanwhile; then any moment comes back.
async fn any_moment_comes_back(test: &str, journal: &str, by_copy: bool, compare_all: bool) {
    let mut random = seed(test);
    let shop = Shop::new(journal).await;
    let mut options = shop.options();
    options.by_copy = by_copy;
    options.generation_sets = 12;
    if compare_all {
        options.compare_all = Duration::ZERO;
    }
    let mut shipper = shop.shipper(options);
    let writers = shop.writers(3);
    let others = shop.others(random.random());
    let first = step(&mut shipper).await;
    let mut generations = BTreeSet::from([first.generation.unwrap().name]);
    for at in 0..1000 {
        // A database with a rollback journal is not copied before there is a pause, or five seconds are over.
        if at >= 40 && generations.len() > 1 {
            break;
        }
        let shipped = step(&mut shipper).await;
        generations.extend(shipped.generation.map(|generation| generation.name));
        if let Outcome::Changed { missed, .. } = shipped.outcome {
            assert_eq!(missed, 0, "the log did not tell of all changes");
        }
        // Looks have any distance from each other.
        tokio::time::sleep(Duration::from_millis(random.random_range(0..15))).await;
    }
    others.stop();
    let commits = writers.stop();
    let last = shipper.ship_last(&CancellationToken::new()).await.unwrap();
    drop(shipper);
    assert!(generations.len() > 1, "a new generation was begun meanwhile");
    assert!(commits.len() > 20, "the writers wrote: {}", commits.len());

    let moments = (0..6).map(|_| {
        let span = last.latest.duration_since(first.latest).as_millis() as i64;
        first.latest + jiff::SignedDuration::from_millis(random.random_range(0..=span))
    });
    for moment in moments.chain([last.latest]) {
        let to = RestoreTo {
            time: moment,
            allow_older: true,
        };
        let plan = match sqlite::plan(&shop.repository, &datastore(), &to).await {
            // Before the copy of the first snapshot was finished.
            Err(Error::Shipping(ShippingError::BeforeFirst { .. }))
                if moment < first.until + Duration::from_secs(30) =>
            {
                continue;
            }
            plan => plan.unwrap(),
        };
        assert!(plan.reached <= moment);
        shop.restored(&plan).await.holds(&commits, plan.reached, moment);
    }
    // Nobody writes any more: the last state is the database.
    let plan = sqlite::plan(
        &shop.repository,
        &datastore(),
        &RestoreTo {
            time: last.latest,
            allow_older: false,
        },
    )
    .await
    .unwrap();
    assert!(plan.reached <= last.latest && plan.reached >= last.until);
    assert_eq!(shop.restored(&plan).await.rows(), shop.rows());
    assert!(check(&shop.repository).await.is_sound());
}

#[tokio::test(flavor = "multi_thread")]
async fn any_moment_comes_back_with_a_write_ahead_log() {
    any_moment_comes_back("any_moment_comes_back_with_a_write_ahead_log", "WAL", false, false).await;
}

/// Every look compares all pages with what the log told: it never told too little.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_tells_of_every_change() {
    any_moment_comes_back("the_log_tells_of_every_change", "WAL", false, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_moment_comes_back_with_a_rollback_journal() {
    any_moment_comes_back("any_moment_comes_back_with_a_rollback_journal", "DELETE", false, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_moment_comes_back_where_pages_are_read_from_a_copy() {
    any_moment_comes_back(
        "any_moment_comes_back_where_pages_are_read_from_a_copy",
        "WAL",
        true,
        false,
    )
    .await;
}

#[test]
fn this_sqlite_reads_single_pages() {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch("CREATE TABLE t (a)").unwrap();
    let pages: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_dbpage('main')", [], |row| row.get(0))
        .unwrap();
    assert_eq!(pages, 2, "the flag in .cargo/config.toml is in effect");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_stored_where_nothing_changes_but_that() {
    let shop = Shop::new("WAL").await;
    let mut options = shop.options();
    options.heartbeat = Duration::from_hours(1);
    let mut shipper = shop.shipper(options);
    step(&mut shipper).await;
    let objects = shop.objects().await;
    for _ in 0..20 {
        assert_eq!(step(&mut shipper).await.outcome, Outcome::Unchanged);
    }
    assert_eq!(shop.objects().await, objects);
    // Told at the end, so that the time until then can be asked for.
    let last = shipper.ship_last(&CancellationToken::new()).await.unwrap();
    assert_eq!((last.outcome, shop.objects().await), (Outcome::Unchanged, objects + 1));
    let plan = sqlite::plan(
        &shop.repository,
        &datastore(),
        &RestoreTo {
            time: last.latest,
            allow_older: false,
        },
    )
    .await
    .unwrap();
    assert_eq!(plan.reached, last.until);
    let status = sqlite::status(&shop.repository, &datastore()).await.unwrap().unwrap();
    assert_eq!((status.latest, status.generations), (last.latest, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_reads_what_changed_and_no_more() {
    let shop = Shop::new("WAL").await;
    shop.fill(2000);
    let mut shipper = shop.shipper(shop.options());
    step(&mut shipper).await;
    shop.sell(1);
    // The first look after the snapshot reads everything, and learns where the log is.
    step(&mut shipper).await;
    shop.sell(1);
    step(&mut shipper).await;
    shop.sell(1);
    let Outcome::Changed { pages, compared, .. } = step(&mut shipper).await.outcome else {
        panic!("a row was written")
    };
    assert!(pages >= 1 && compared < 30, "{pages} of {compared} pages");
}

/// Whoever hears that a change is shipped and asks for the state of right now gets that change, however fast the store is.
#[tokio::test(flavor = "multi_thread")]
async fn the_moment_of_what_was_shipped_is_over() {
    let shop = Shop::new("WAL").await;
    let mut shipper = shop.shipper(shop.options());
    for _ in 0..50 {
        shop.sell(1);
        let shipped = step(&mut shipper).await;
        assert!(shipped.latest <= jiff::Timestamp::now(), "{shipped:?}");
    }
}

/// What others do to the file itself ends nothing.
#[tokio::test(flavor = "multi_thread")]
async fn the_database_is_replaced_deleted_and_made_anew() {
    let shop = Shop::new("DELETE").await;
    let mut shipper = shop.shipper(shop.options());
    let first = step(&mut shipper).await.generation.unwrap();
    shop.sell(5);
    step(&mut shipper).await;
    // Put away: an error that says so, as often as it is asked.
    let away = shop.path.with_extension("away");
    std::fs::rename(&shop.path, &away).unwrap();
    for _ in 0..2 {
        let refused = shipper.ship_once(&CancellationToken::new()).await;
        assert!(matches!(refused, Err(Error::Source(_))), "{refused:?}");
    }
    assert!(!shop.path.exists(), "a database that is missing is not made");
    std::fs::rename(&away, &shop.path).unwrap();
    shop.sell(1);
    assert!(matches!(step(&mut shipper).await.outcome, Outcome::Changed { .. }));
    // Another file of the same name.
    std::fs::copy(&shop.path, &away).unwrap();
    Connection::open(&away)
        .unwrap()
        .execute_batch("UPDATE account SET cents = cents + 0; DELETE FROM sale WHERE id = 3")
        .unwrap();
    std::fs::rename(&away, &shop.path).unwrap();
    assert!(matches!(step(&mut shipper).await.outcome, Outcome::Changed { .. }));
    shop.last_is_the_database(&mut shipper).await;
    // No database any more, and one again.
    std::fs::write(&shop.path, "certainly no database ".repeat(1000)).unwrap();
    assert!(shipper.ship_once(&CancellationToken::new()).await.is_err());
    std::fs::remove_file(&shop.path).unwrap();
    shop.make("WAL");
    shop.sell(2);
    step(&mut shipper).await;
    shop.last_is_the_database(&mut shipper).await;
    // Pages of another size are another generation.
    shop.connection().execute_batch("PRAGMA journal_mode = DELETE").ok();
    drop(shipper);
    let mut shipper = shop.shipper(shop.options());
    step(&mut shipper).await;
    drop(shipper);
    let other = shop.path.with_extension("other");
    shop.connection()
        .execute(&format!("VACUUM INTO '{}'", other.display()), [])
        .unwrap();
    let resized = Connection::open(&other).unwrap();
    resized
        .execute_batch("PRAGMA journal_mode = DELETE; PRAGMA page_size = 8192; VACUUM")
        .unwrap();
    drop(resized);
    let mut shipper = shop.shipper(shop.options());
    let before = step(&mut shipper).await.generation.unwrap();
    for end in ["-wal", "-shm"] {
        std::fs::remove_file(format!("{}{end}", shop.path.display())).ok();
    }
    std::fs::rename(&other, &shop.path).unwrap();
    let after = step(&mut shipper).await.generation.unwrap();
    assert!(before != first && after != before);
    shop.last_is_the_database(&mut shipper).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journal_becomes_a_log_and_the_pages_move() {
    let shop = Shop::new("DELETE").await;
    shop.fill(500);
    let mut shipper = shop.shipper(shop.options());
    step(&mut shipper).await;
    let acts = [
        "PRAGMA journal_mode = WAL; INSERT INTO sale (item) VALUES ('in the log')",
        "DELETE FROM sale WHERE id % 2 = 0; VACUUM",
        "CREATE TABLE more (a, b); CREATE INDEX more_a ON more (a); INSERT INTO more SELECT id, item FROM sale",
        "PRAGMA wal_checkpoint(TRUNCATE); DROP TABLE more",
        "PRAGMA auto_vacuum = INCREMENTAL; VACUUM; DELETE FROM sale WHERE id > 20; PRAGMA incremental_vacuum",
        "PRAGMA cache_size = 10; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) INSERT INTO sale (item) SELECT randomblob(500) FROM n",
        "ATTACH ':memory:' AS beside; CREATE TABLE beside.t (a); INSERT INTO sale (item) VALUES ('attached'); DETACH beside",
        "DELETE FROM sale",
    ];
    for act in acts {
        shop.connection()
            .execute_batch(act)
            .unwrap_or_else(|error| panic!("{act}: {error}"));
        assert!(
            matches!(step(&mut shipper).await.outcome, Outcome::Changed { .. }),
            "{act}"
        );
        shop.last_is_the_database(&mut shipper).await;
    }
}

/// A transaction of any size is shipped, in as many sets as it takes; none of them but the last is a state.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_change_takes_several_sets() {
    let shop = Shop::new("WAL").await;
    let mut options = shop.options();
    options.set_bytes = 1 << 16;
    let mut shipper = shop.shipper(options);
    let before = step(&mut shipper).await;
    let rows = shop.rows();
    shop.fill(2000);
    let shipped = step(&mut shipper).await;
    let Outcome::Changed { pages, .. } = shipped.outcome else {
        panic!("{shipped:?}")
    };
    let generations = sqlite::list(&shop.repository, &datastore()).await.unwrap();
    let parts = generations[0].sets.iter().filter(|set| set.partial).count();
    assert!(pages > 100 && parts > 5, "{pages} pages, {parts} parts");
    shop.last_is_the_database(&mut shipper).await;
    // In the middle of it there is no state but the one before.
    let to = RestoreTo {
        time: generations[0].sets[parts].taken_at,
        allow_older: true,
    };
    let plan = sqlite::plan(&shop.repository, &datastore(), &to).await.unwrap();
    assert_eq!((plan.sets(), shop.restored(&plan).await.rows()), (1, rows));
    assert!(plan.reached >= before.until);
}

#[tokio::test(flavor = "multi_thread")]
async fn times_that_cannot_be_had_are_errors_that_name_those_that_can() {
    let shop = Shop::new("WAL").await;
    let ask = async |time| {
        sqlite::plan(
            &shop.repository,
            &datastore(),
            &RestoreTo {
                time,
                allow_older: false,
            },
        )
        .await
    };
    let now = backups::now();
    let none = ask(now).await;
    assert!(
        matches!(none, Err(Error::Shipping(ShippingError::NothingShipped { .. }))),
        "{none:?}"
    );
    let mut shipper = shop.shipper(shop.options());
    let first = step(&mut shipper).await;
    let early = ask(now - Duration::from_mins(1)).await;
    assert!(
        matches!(early, Err(Error::Shipping(ShippingError::BeforeFirst { earliest, .. })) if earliest >= now),
        "{early:?}"
    );
    let late = ask(first.until + Duration::from_mins(1)).await;
    let Err(Error::Shipping(ShippingError::Beyond { latest, .. })) = late else {
        panic!("{late:?}")
    };
    assert_eq!(latest, first.latest);
    let reached = ask(latest).await.unwrap().reached;
    assert!(first.until <= reached && reached <= latest);
    let to = RestoreTo {
        time: first.until + Duration::from_mins(1),
        allow_older: true,
    };
    assert_eq!(
        sqlite::plan(&shop.repository, &datastore(), &to).await.unwrap().reached,
        reached
    );
}

/// Whatever is missing, swapped or damaged is an error that names it; never another state.
#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_is_broken_leads_nowhere() {
    let shop = Shop::new("WAL").await;
    let mut shipper = shop.shipper(shop.options());
    step(&mut shipper).await;
    for _ in 0..5 {
        shop.sell(3);
        step(&mut shipper).await;
    }
    let last = shipper.ship_last(&CancellationToken::new()).await.unwrap();
    let sets = sqlite::list(&shop.repository, &datastore())
        .await
        .unwrap()
        .remove(0)
        .sets;
    let to = RestoreTo {
        time: last.latest,
        allow_older: false,
    };
    let mut bodies = Vec::new();
    for set in &sets {
        bodies.push(shop.memory.get(&set.key).await.unwrap());
    }
    let target = shop.folder.path().join("broken");
    for at in 0..sets.len() - 1 {
        for kind in ["missing", "swapped", "cut", "changed"] {
            match kind {
                "missing" => shop.memory.delete(&sets[at].key).await.unwrap(),
                "swapped" => shop.memory.overwrite(sets[at].key.clone(), bodies[at + 1].clone()),
                "cut" => shop
                    .memory
                    .overwrite(sets[at].key.clone(), bodies[at].slice(..bodies[at].len() / 2)),
                _ => {
                    let mut changed = bodies[at].to_vec();
                    changed[20] ^= 1;
                    shop.memory.overwrite(sets[at].key.clone(), changed);
                }
            }
            let outcome = match sqlite::plan(&shop.repository, &datastore(), &to).await {
                Ok(plan) => shop.apply(&plan, &target).await.map(drop),
                Err(error) => Err(error),
            };
            assert!(
                matches!(outcome, Err(Error::Shipping(ShippingError::Damaged { .. }))),
                "{kind} {at}: {outcome:?}"
            );
            assert!(!target.join("shop.db").exists(), "nothing looks whole");
            shop.memory.overwrite(sets[at].key.clone(), bodies[at].clone());
        }
    }
    let plan = sqlite::plan(&shop.repository, &datastore(), &to).await.unwrap();
    shop.apply(&plan, &target).await.unwrap();
}

/// A store that fails from any one write on: what was acknowledged comes back, and nothing in between.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_at_any_write_leaves_what_was_acknowledged() {
    for fault in [Fault::Refuse, Fault::Full, Fault::LoseAnswer] {
        for allowed in 0.. {
            let shop = Shop::new("WAL").await;
            let faulty: Arc<dyn Store> = Arc::new(FaultyStore::new(
                Arc::clone(&shop.memory) as Arc<dyn Store>,
                allowed,
                fault,
            ));
            let repository = Repository::open(faulty, PASSWORD).await.unwrap();
            let mut shipper = Shipper::new(repository, datastore(), &shop.path, shop.options());
            let mut states = vec![];
            let mut refused = false;
            for _ in 0..4 {
                shop.sell(2);
                if let Ok(shipped) = shipper.ship_once(&CancellationToken::new()).await {
                    states.push((shipped.until, shop.rows()));
                } else {
                    refused = true;
                    // Stored or not, nobody knows.
                    states.push((backups::now(), shop.rows()));
                    break;
                }
            }
            drop(shipper);
            let to = RestoreTo {
                time: backups::now() + Duration::from_secs(1),
                allow_older: true,
            };
            match sqlite::plan(&shop.repository, &datastore(), &to).await {
                Ok(plan) => {
                    let restored = shop.restored(&plan).await.rows();
                    let acknowledged = states.len() - usize::from(refused);
                    let found = states.iter().position(|(_, rows)| *rows == restored).unwrap();
                    assert!(
                        found + 1 >= acknowledged,
                        "{fault:?} {allowed}: state {found} of {acknowledged}"
                    );
                }
                Err(Error::Shipping(ShippingError::NothingShipped { .. })) => assert!(refused && states.len() == 1),
                Err(error) => panic!("{error:?}"),
            }
            assert!(check(&shop.repository).await.is_sound());
            if !refused {
                assert!(allowed > 5);
                break;
            }
            assert!(allowed < 60, "shipping ends at some time");
        }
    }
}

/// Sets go with their snapshot, from the end on; those of others stay.
#[tokio::test(flavor = "multi_thread")]
async fn what_serves_no_restore_is_swept() {
    let shop = Shop::new("WAL").await;
    for _ in 0..3 {
        let mut shipper = shop.shipper(shop.options());
        step(&mut shipper).await;
        shop.sell(1);
        step(&mut shipper).await;
    }
    let generations = sqlite::list(&shop.repository, &datastore()).await.unwrap();
    assert_eq!(generations.len(), 3);
    let kept: BTreeSet<_> = generations.iter().map(|generation| generation.snapshot).collect();
    assert!(sqlite::unneeded(&generations, &kept).is_empty());
    assert_eq!(sqlite::sweep(&shop.repository).await.unwrap(), 0);
    // Forgotten, by whomever.
    let forgotten = &generations[1];
    let snapshot = list_all(&*shop.memory, "snapshots/").await.unwrap();
    let snapshot = snapshot
        .iter()
        .find(|entry| entry.key.file_name() == forgotten.snapshot.to_string())
        .unwrap();
    shop.memory.delete(&snapshot.key).await.unwrap();
    let kept: BTreeSet<_> = [generations[0].snapshot, generations[2].snapshot].into();
    let unneeded = sqlite::unneeded(&generations, &kept);
    let expected: Vec<_> = forgotten.sets.iter().rev().map(|set| set.key.clone()).collect();
    assert_eq!(unneeded, expected);
    assert_eq!(sqlite::sweep(&shop.repository).await.unwrap(), expected.len() as u64);
    let left = sqlite::list(&shop.repository, &datastore()).await.unwrap();
    assert_eq!(left, [generations[0].clone(), generations[2].clone()]);
}
