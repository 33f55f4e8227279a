//! What every store of users does, whatever it stores them in. `make` gives two handles of one new and empty store, as
//! two instances of the service hold them.

use std::future::Future;
use std::sync::Arc;

use super::*;

/// Checks one implementation.
pub(super) async fn check<S: Store, F: Future<Output = (S, S)>>(make: impl Fn() -> F) {
    who_is_added_is_found(make().await).await;
    an_address_has_one_user(make().await).await;
    of_many_at_once_one_gets_the_address(make().await).await;
}

fn user(email: &str) -> User {
    User {
        id: Uuid::now_v7(),
        email: Email::parse(email).unwrap(),
        password_hash: "$scrypt$ln=14,r=8,p=5$AA$AA".into(),
        created_at: "2026-11-21T10:00:00.123456Z".parse().unwrap(),
    }
}

async fn who_is_added_is_found<S: Store>((one, two): (S, S)) {
    let (ada, bob) = (
        user("ada@example.org"),
        user("b'; --b@example.org".replace("'; --", "'").as_str()),
    );
    assert_eq!(one.find(&ada.email).await.unwrap(), None);
    one.add(ada.clone()).await.unwrap();
    two.add(bob.clone()).await.unwrap();
    assert_eq!(
        two.find(&Email::parse("ADA@example.org").unwrap()).await.unwrap(),
        Some(ada)
    );
    assert_eq!(one.find(&bob.email.clone()).await.unwrap(), Some(bob));
    one.ping().await.unwrap();
}

async fn an_address_has_one_user<S: Store>((one, two): (S, S)) {
    let first = user("ada@example.org");
    one.add(first.clone()).await.unwrap();
    let error = two.add(user("Ada@Example.org")).await.unwrap_err();
    assert!(matches!(error, StoreError::Exists), "{error}");
    assert_eq!(two.find(&first.email).await.unwrap(), Some(first));
}

async fn of_many_at_once_one_gets_the_address<S: Store>((one, two): (S, S)) {
    let (one, two) = (Arc::new(one), Arc::new(two));
    let tasks: Vec<_> = (0..32)
        .map(|n| {
            let store = Arc::clone(if n % 2 == 0 { &one } else { &two });
            tokio::spawn(async move {
                let user = user("ada@example.org");
                store.add(user.clone()).await.is_ok().then_some(user)
            })
        })
        .collect();
    let mut added = Vec::new();
    for task in tasks {
        added.extend(task.await.unwrap());
    }
    assert_eq!(added.len(), 1);
    assert_eq!(one.find(&added[0].email).await.unwrap().as_ref(), added.first());
}
