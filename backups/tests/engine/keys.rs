//! Several passwords: added, removed, replaced; and at no instant none that opens.

use std::sync::Arc;

use backups::repo::KdfParams;
use backups::store::{Fault, FaultyStore, LocalStore, MemoryStore, list_all};
use backups::{Error, Repository, Store};

use crate::world::*;

const KDF: KdfParams = CHEAP.kdf;

async fn opens(store: &Arc<dyn Store>, password: &str) -> bool {
    Repository::open(Arc::clone(store), password).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_come_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(LocalStore::new(folder.path()));
    let repository = init(&store).await;
    let added = repository.add_key("second", KDF).await.unwrap();
    assert!(opens(&store, PASSWORD).await && opens(&store, "second").await);
    let list = repository.keys().await.unwrap();
    assert_eq!((list.keys.len(), list.damaged.len()), (2, 0));
    let current = list.keys.iter().find(|key| key.current).unwrap();
    assert_ne!(current.id, added);
    assert!(list.keys.iter().all(|key| !key.host.is_empty()));
    let others = Repository::open(Arc::clone(&store), "second")
        .await
        .unwrap()
        .keys()
        .await
        .unwrap();
    assert_eq!(others.keys.iter().find(|key| key.current).unwrap().id, added);

    for (wanted, refused) in [
        (current.id.to_string(), "KeyInUse"),
        (current.id.short(), "KeyInUse"),
        ("zz".to_owned(), "KeyNotFound"),
        (String::new(), "KeyNotFound"),
    ] {
        let error = repository.remove_key(&wanted).await.unwrap_err();
        assert!(format!("{error:?}").starts_with(refused), "{wanted}: {error:?}");
    }
    if let Some(restic) = Restic::find("passwords_come_and_go") {
        restic.ok(folder.path(), "second", &["check"]);
        let listed = restic.ok(folder.path(), "second", &["key", "list"]);
        assert!(listed.contains(&format!("*{}", added.short())), "{listed}");
    }
    assert_eq!(repository.remove_key(&added.short()).await.unwrap(), added);
    assert!(opens(&store, PASSWORD).await && !opens(&store, "second").await);
    // Whose own key is gone removes no other: it may be the last.
    let second = repository.add_key("second", KDF).await.unwrap();
    let stranger = Repository::open(Arc::clone(&store), "second").await.unwrap();
    repository.remove_key(&second.to_string()).await.unwrap();
    let refused = stranger.remove_key(&current.id.to_string()).await;
    assert!(matches!(refused, Err(Error::KeyInUse { .. })), "{refused:?}");
    assert_eq!(list_all(&*store, "locks/").await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_replaced_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(LocalStore::new(folder.path()));
    let repository = init(&store).await;
    repository.add_key(PASSWORD, KDF).await.unwrap();
    repository.add_key("of somebody else", KDF).await.unwrap();
    let same = repository.rotate_key(PASSWORD, PASSWORD, KDF).await;
    assert!(matches!(same, Err(Error::Invalid(_))));
    let wrong = repository.rotate_key("wrong", "new", KDF).await;
    assert!(matches!(wrong, Err(Error::WrongPassword { .. })), "{wrong:?}");
    let (added, removed) = repository.rotate_key(PASSWORD, "new", KDF).await.unwrap();
    assert_eq!(removed.len(), 2, "the old password opened two");
    assert!(!removed.contains(&added));
    assert!(opens(&store, "new").await && opens(&store, "of somebody else").await && !opens(&store, PASSWORD).await);
    if let Some(restic) = Restic::find("a_password_is_replaced_everywhere") {
        restic.ok(folder.path(), "new", &["check"]);
        assert!(!restic.run(folder.path(), PASSWORD, &["check"]).status.success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_passwords_than_are_tried() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repository = init(&store).await;
    for number in 1..20 {
        repository.add_key(&format!("number {number}"), KDF).await.unwrap();
    }
    assert!(opens(&store, "number 19").await && opens(&store, PASSWORD).await);
    for refused in [
        repository.add_key("one more", KDF).await.map(drop),
        repository.rotate_key(PASSWORD, "new", KDF).await.map(drop),
    ] {
        assert!(matches!(refused, Err(Error::TooManyKeys { count: 20 })), "{refused:?}");
    }
    assert!(opens(&store, PASSWORD).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_fails_at_any_write_leaves_a_password_that_opens() {
    for fault in [Fault::Refuse, Fault::LoseAnswer, Fault::Full] {
        for allowed in 0.. {
            let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
            init(&store).await;
            let faulty: Arc<dyn Store> = Arc::new(FaultyStore::new(Arc::clone(&store), allowed, fault));
            let repository = Repository::open(faulty, PASSWORD).await.unwrap();
            let outcome = repository.rotate_key(PASSWORD, "new", KDF).await;
            let (old, new) = (opens(&store, PASSWORD).await, opens(&store, "new").await);
            assert!(old || new, "{fault:?} from write {allowed} on");
            if outcome.is_ok() {
                assert!(new && !old);
                assert!(allowed >= 3, "lock, new key, old key");
                break;
            }
            assert!(allowed < 20, "it ends at some time");
        }
    }
}
