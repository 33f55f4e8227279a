//! Credentials that expire are fetched again, once; those that are wrong are said to be.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use backups::store::S3Store;
use backups::store::s3::{Credentials, Keys, S3Options};
use backups::{Store, StoreError};

use crate::service::{Service, key, refused, root_keys};

/// Keys that are old for the first `old` times that they are fetched.
fn fetched(old: usize) -> (Credentials, Arc<AtomicUsize>) {
    let times = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&times);
    let fetch = move || {
        let old = counted.fetch_add(1, Ordering::SeqCst) < old;
        Ok(Keys {
            access_key: if old {
                "old-key".to_owned()
            } else {
                root_keys().access_key
            },
            ..root_keys()
        })
    };
    (Credentials::Fetched(Arc::new(fetch)), times)
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_credentials_are_fetched_again_once() {
    let Some(service) = Service::start("expired_credentials_are_fetched_again_once").await else {
        return;
    };
    service.proxy.rule(|request| {
        let old = request
            .header("authorization")
            .is_some_and(|value| value.contains("old-key"));
        old.then(|| refused(400, "ExpiredToken"))
    });
    let (credentials, times) = fetched(1);
    let store = S3Store::new(S3Options {
        credentials,
        ..service.options()
    });
    // All at once: whoever is refused first fetches for all.
    let puts = (0..8).map(|number| {
        let store = store.clone();
        async move { store.put(&key(&format!("data/ab/{number}")), "content".into()).await }
    });
    for outcome in futures::future::join_all(puts).await {
        outcome.unwrap();
    }
    assert_eq!(times.load(Ordering::SeqCst), 2);
    store.stat(&key("data/ab/1")).await.unwrap();

    let (credentials, times) = fetched(usize::MAX);
    let store = S3Store::new(S3Options {
        credentials,
        ..service.options()
    });
    for outcome in [
        store.put(&key("data/ab/x"), "content".into()).await.err(),
        store.stat(&key("data/ab/1")).await.err(),
    ] {
        assert!(matches!(outcome, Some(StoreError::Credentials { .. })), "{outcome:?}");
    }
    assert!(times.load(Ordering::SeqCst) <= 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_said_to_be_and_never_shown() {
    let Some(service) = Service::start("wrong_credentials_are_said_to_be_and_never_shown").await else {
        return;
    };
    let wrong = |access_key: &str| Keys {
        access_key: access_key.to_owned(),
        secret_key: "a-secret-that-is-wrong".to_owned().into(),
        session_token: None,
    };
    for keys in [wrong(&root_keys().access_key), wrong("nobody")] {
        let store = S3Store::new(S3Options {
            credentials: Credentials::fixed(keys),
            ..service.options()
        });
        let before = service.proxy.seen().len();
        let outcome = store.get(&key("config")).await;
        assert!(matches!(outcome, Err(StoreError::Credentials { .. })), "{outcome:?}");
        assert_eq!(service.proxy.seen().len(), before + 1, "it is not tried again");
        assert!(!format!("{outcome:?} {:?}", service.options()).contains("a-secret"));
    }
    let none = Credentials::Fetched(Arc::new(|| Err(std::io::Error::other("the vault is sealed"))));
    let store = S3Store::new(S3Options {
        credentials: none,
        ..service.options()
    });
    let Err(StoreError::Credentials { source, .. }) = store.get(&key("config")).await else {
        panic!("there are no credentials");
    };
    assert_eq!(source.to_string(), "the vault is sealed");
}
