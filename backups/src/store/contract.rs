//! What every store must do, as one suite. An implementation's test calls [`check`] with an empty store.

use std::sync::Arc;

use bytes::Bytes;

use super::{Store, StoreError, StoreKey, list_all};

fn key(name: &str) -> StoreKey {
    StoreKey::new(name).expect("the suite uses sound names")
}

/// Runs the suite. Panics, naming the promise that was broken.
pub async fn check(store: Arc<dyn Store>) {
    absence_is_not_found(&*store).await;
    an_object_comes_back_whole_and_in_ranges(&*store).await;
    nothing_is_replaced(&*store).await;
    one_of_two_writers_wins(&store).await;
    pages_cover_every_key_in_order(&*store).await;
    deleting_twice_is_fine(&*store).await;
    objects_are_as_old_as_the_clock_says(&*store).await;
}

async fn absence_is_not_found(store: &dyn Store) {
    let none = key("snapshots/none");
    assert!(
        store.get(&none).await.expect_err("absent").is_not_found(),
        "get of an absent object"
    );
    assert!(
        store.get_range(&none, 0, 1).await.expect_err("absent").is_not_found(),
        "get_range of an absent object"
    );
    assert!(
        store.stat(&none).await.expect_err("absent").is_not_found(),
        "stat of an absent object"
    );
    assert!(
        list_all(store, "snapshots/").await.expect("list").is_empty(),
        "an empty store lists nothing"
    );
}

async fn an_object_comes_back_whole_and_in_ranges(store: &dyn Store) {
    let (large, empty) = (key("data/4f/4f00"), key("data/4f/4f01"));
    let body: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    store.put(&large, Bytes::from(body.clone())).await.expect("put");
    store.put(&empty, Bytes::new()).await.expect("put of an empty object");
    assert_eq!(store.get(&large).await.expect("get"), body);
    assert_eq!(store.get(&empty).await.expect("get"), Bytes::new());
    assert_eq!(
        store.get_range(&large, 1000, 50).await.expect("range"),
        body[1000..1050]
    );
    assert_eq!(
        store.get_range(&large, 399_990, 100).await.expect("range over the end"),
        body[399_990..]
    );
    assert_eq!(
        store
            .get_range(&large, 500_000, 10)
            .await
            .expect("range beyond the end"),
        Bytes::new()
    );
    let entry = store.stat(&large).await.expect("stat");
    assert_eq!((entry.key, entry.size), (large, 400_000));
}

async fn nothing_is_replaced(store: &dyn Store) {
    let config = key("config");
    store.put(&config, Bytes::from_static(b"first")).await.expect("put");
    let second = store.put(&config, Bytes::from_static(b"second")).await;
    assert!(
        matches!(second, Err(StoreError::Exists { .. })),
        "a second put must say Exists"
    );
    assert_eq!(store.get(&config).await.expect("get"), "first");
}

async fn one_of_two_writers_wins(store: &Arc<dyn Store>) {
    for round in 0..20 {
        let name = key(&format!("locks/race{round}"));
        let writers = ["a", "b", "c", "d"].map(|body| {
            let (store, name) = (Arc::clone(store), name.clone());
            tokio::spawn(async move { (body, store.put(&name, Bytes::from_static(body.as_bytes())).await) })
        });
        let mut winner = None;
        for writer in writers {
            match writer.await.expect("the store does not panic") {
                (body, Ok(())) => assert!(winner.replace(body).is_none(), "two writers won"),
                (_, Err(error)) => assert!(error.is_exists(), "the loser must see Exists, saw {error:?}"),
            }
        }
        assert_eq!(store.get(&name).await.expect("get"), winner.expect("one writer wins"));
    }
}

async fn pages_cover_every_key_in_order(store: &dyn Store) {
    let names = [
        "index/a",
        "index/ab",
        "index/b-c",
        "index/b.d",
        "index/b/e",
        "index/b/f",
        "index/c",
        "indices",
    ];
    for name in names {
        store.put(&key(name), Bytes::from_static(b"x")).await.expect("put");
    }
    for limit in 1..=names.len() {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = store.list("index/", after.as_ref(), limit).await.expect("list");
            assert!(page.entries.len() <= limit, "a page is no longer than its limit");
            seen.extend(page.entries.iter().map(|entry| entry.key.to_string()));
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!(seen, names[..7], "pages of {limit}");
    }
    let part: Vec<String> = list_all(store, "index/b")
        .await
        .expect("list")
        .iter()
        .map(|entry| entry.key.to_string())
        .collect();
    assert_eq!(part, names[2..6], "a prefix may end inside a name");
}

async fn deleting_twice_is_fine(store: &dyn Store) {
    let name = key("index/a");
    store.delete(&name).await.expect("delete");
    store.delete(&name).await.expect("second delete");
    assert!(
        store.get(&name).await.expect_err("deleted").is_not_found(),
        "a deleted object is gone"
    );
    store
        .put(&name, Bytes::from_static(b"new"))
        .await
        .expect("a deleted name can be used again");
}

async fn objects_are_as_old_as_the_clock_says(store: &dyn Store) {
    // Clocks of file systems tick in steps, and those of services tell whole seconds.
    let coarse = jiff::SignedDuration::from_secs(2);
    let name = key("index/dated");
    let before = store.time().await.expect("the store's time");
    store.put(&name, Bytes::from_static(b"x")).await.expect("put");
    let after = store.time().await.expect("the store's time");
    let written = store.stat(&name).await.expect("stat").modified.expect("a time");
    assert!(
        before - coarse <= written && written <= after + coarse,
        "written at {written}, between {before} and {after}"
    );
}
