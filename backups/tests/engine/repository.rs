//! Opening and making repositories.

use std::sync::Arc;

use backups::store::{MemoryStore, StoreKey, list_all};
use backups::{Damage, Error, Object, Repository, Store};

use crate::world::*;

fn store() -> (Arc<MemoryStore>, Arc<dyn Store>) {
    let memory = Arc::new(MemoryStore::new());
    (Arc::clone(&memory), memory)
}

async fn open(store: &Arc<dyn Store>, password: &str) -> Result<Repository, Error> {
    Repository::open(Arc::clone(store), password).await
}

#[tokio::test]
async fn each_way_of_not_opening_has_its_error() {
    let (memory, store) = store();
    assert!(matches!(
        open(&store, PASSWORD).await.err(),
        Some(Error::NoRepository { .. })
    ));
    init(&store).await;
    assert!(open(&store, PASSWORD).await.is_ok());
    assert!(matches!(
        open(&store, "wrong").await.err(),
        Some(Error::WrongPassword { keys: 1 })
    ));
    let again = Repository::init(Arc::clone(&store), PASSWORD, &CHEAP).await;
    assert!(matches!(again.err(), Some(Error::RepositoryExists { .. })));

    let config = StoreKey::new("config").unwrap();
    let sound = store.get(&config).await.unwrap();
    let mut changed = sound.to_vec();
    changed[20] ^= 1;
    memory.overwrite(config.clone(), changed);
    let damaged = open(&store, PASSWORD).await.err();
    assert!(
        matches!(
            damaged,
            Some(Error::Damaged {
                object: Object::Config,
                damage: Damage::NotAuthentic
            })
        ),
        "{damaged:?}"
    );
    memory.overwrite(config, sound);

    let key = list_all(&*store, "keys/").await.unwrap().remove(0).key;
    let mut changed = store.get(&key).await.unwrap().to_vec();
    changed[100] ^= 1;
    memory.overwrite(key, changed);
    for password in [PASSWORD, "wrong"] {
        let damaged = open(&store, password).await.err();
        assert!(
            matches!(
                damaged,
                Some(Error::Damaged {
                    object: Object::Key(_),
                    damage: Damage::WrongHash
                })
            ),
            "{damaged:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_make_a_repository_one_wins_and_all_can_use_it() {
    let (_, store) = store();
    let makers: Vec<_> = (0..6)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { Repository::open_or_init(store, PASSWORD, &CHEAP).await })
        })
        .collect();
    let (mut made, mut ids) = (0, std::collections::HashSet::new());
    for maker in makers {
        let (repository, was_made) = maker.await.unwrap().unwrap();
        made += usize::from(was_made);
        ids.insert(repository.id());
    }
    assert_eq!((made, ids.len()), (1, 1));
    assert_eq!(
        list_all(&*store, "keys/").await.unwrap().len(),
        1,
        "the losers' keys are gone"
    );
}

#[tokio::test]
async fn what_a_killed_init_left_is_used() {
    let (_, store) = store();
    init(&store).await;
    store.delete(&StoreKey::new("config").unwrap()).await.unwrap();
    let (repository, made) = Repository::open_or_init(Arc::clone(&store), PASSWORD, &CHEAP)
        .await
        .unwrap();
    assert!(made);
    assert_eq!(list_all(&*store, "keys/").await.unwrap().len(), 1);
    assert_eq!(open(&store, PASSWORD).await.unwrap().id(), repository.id());
    store.delete(&StoreKey::new("config").unwrap()).await.unwrap();
    let other = Repository::init(Arc::clone(&store), "other", &CHEAP).await;
    assert!(matches!(other.err(), Some(Error::WrongPassword { .. })));
}

#[tokio::test]
async fn restic_opens_what_we_made_with_the_real_cost() {
    let Some(restic) = Restic::find("restic_opens_what_we_made_with_the_real_cost") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(backups::store::LocalStore::new(folder.path()));
    Repository::init(store, PASSWORD, &backups::InitOptions::default())
        .await
        .unwrap();
    restic.ok(folder.path(), PASSWORD, &["check"]);
    let refused = restic.run(folder.path(), "wrong", &["check"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("wrong password"));
}
