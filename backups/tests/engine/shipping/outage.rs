//! A store that is away for a while, and comes back.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use backups::pitr::sqlite::{self, Event, RestoreTo, Shipper};
use backups::store::{Entry, MemoryStore, Page, StoreKey};
use backups::{Repository, Store, StoreError};
use bytes::Bytes;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::shop::{Shop, datastore};
use crate::world::PASSWORD;

const UP: u8 = 0;
const DOWN: u8 = 1;
/// What is written is there, and the answer is lost.
const DEAF: u8 = 2;

/// Fails while it is told to.
struct Away {
    inner: Arc<MemoryStore>,
    state: AtomicU8,
}

fn refused(key: &StoreKey) -> StoreError {
    StoreError::Io {
        action: "write",
        key: key.to_string(),
        source: std::io::ErrorKind::HostUnreachable.into(),
    }
}

#[async_trait]
impl Store for Away {
    fn location(&self) -> String {
        self.inner.location()
    }

    async fn put(&self, key: &StoreKey, body: Bytes) -> Result<(), StoreError> {
        let state = self.state.load(Ordering::SeqCst);
        if state != DOWN {
            self.inner.put(key, body).await?;
        }
        if state == UP { Ok(()) } else { Err(refused(key)) }
    }

    async fn get(&self, key: &StoreKey) -> Result<Bytes, StoreError> {
        self.inner.get(key).await
    }

    async fn get_range(&self, key: &StoreKey, offset: u64, length: u64) -> Result<Bytes, StoreError> {
        self.inner.get_range(key, offset, length).await
    }

    async fn stat(&self, key: &StoreKey) -> Result<Entry, StoreError> {
        self.inner.stat(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&StoreKey>, limit: usize) -> Result<Page, StoreError> {
        self.inner.list(prefix, after, limit).await
    }

    async fn delete(&self, key: &StoreKey) -> Result<(), StoreError> {
        self.inner.delete(key).await
    }

    async fn time(&self) -> Result<Timestamp, StoreError> {
        self.inner.time().await
    }
}

async fn away(shop: &Shop) -> (Arc<Away>, Shipper) {
    let away = Arc::new(Away {
        inner: Arc::clone(&shop.memory),
        state: AtomicU8::new(UP),
    });
    let repository = Repository::open(Arc::clone(&away) as Arc<dyn Store>, PASSWORD)
        .await
        .unwrap();
    let shipper = Shipper::new(repository, datastore(), &shop.path, shop.options());
    (away, shipper)
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_outage_the_chain_goes_on_to_the_newest_state() {
    let cancel = CancellationToken::new();
    for outage in [DOWN, DEAF] {
        let shop = Shop::new("WAL").await;
        let (store, mut shipper) = away(&shop).await;
        shipper.ship_once(&cancel).await.unwrap();
        shop.sell(1);
        let before = shipper.ship_once(&cancel).await.unwrap();
        store.state.store(outage, Ordering::SeqCst);
        for _ in 0..5 {
            shop.sell(1);
            // With the answer lost the next step finds what it wrote; so every other one gets through.
            let _ = shipper.ship_once(&cancel).await;
        }
        // All of this may take less than the millisecond to which times are kept.
        let during = backups::now().max(before.latest);
        shop.sell(1);
        store.state.store(UP, Ordering::SeqCst);
        let after = shipper.ship_once(&cancel).await.unwrap();
        assert!(after.generation.is_none(), "the same generation goes on");
        shop.last_is_the_database(&mut shipper).await;
        // The time of the outage: the state that is known, and how old it is.
        let plan = sqlite::plan(
            &shop.repository,
            &datastore(),
            &RestoreTo {
                time: during,
                allow_older: true,
            },
        )
        .await
        .unwrap();
        assert!(
            plan.reached >= before.until && plan.reached <= during,
            "{} of {during}, after {before:?}: {plan:?}",
            plan.reached
        );
        shop.restored(&plan).await;
    }
}

/// The loop with the store gone: it tells at once, goes on trying, tells when it is over, and ends when it is told to.
#[tokio::test(flavor = "multi_thread")]
async fn the_loop_tells_of_an_outage_and_of_its_end() {
    let shop = Shop::new("WAL").await;
    let (store, shipper) = away(&shop).await;
    drop(shipper);
    let mut options = shop.options();
    options.interval = Duration::from_millis(20);
    let repository = Repository::open(Arc::clone(&store) as Arc<dyn Store>, PASSWORD)
        .await
        .unwrap();
    let mut shipper = Shipper::new(repository, datastore(), &shop.path, options);
    let cancel = CancellationToken::new();
    let told = Arc::new(Mutex::new(Vec::new()));
    let (heard, stop) = (Arc::clone(&told), cancel.clone());
    let running = tokio::spawn(async move {
        let tell = |event: Event<'_>| {
            heard.lock().unwrap().push(match event {
                Event::Shipped(_) => "shipped",
                Event::Failing { .. } => "failing",
                Event::Recovered { .. } => "recovered",
            });
        };
        shipper.run(&stop, &tell).await;
        shipper
    });
    let until = async |word: &str| {
        let waiting = async {
            while !told.lock().unwrap().contains(&word) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waiting)
            .await
            .expect(word);
    };
    until("shipped").await;
    store.state.store(DOWN, Ordering::SeqCst);
    shop.sell(1);
    until("failing").await;
    shop.sell(1);
    store.state.store(UP, Ordering::SeqCst);
    until("recovered").await;
    shop.sell(3);
    cancel.cancel();
    drop(running.await.unwrap());
    let told = told.lock().unwrap().clone();
    assert_eq!(
        told.iter().filter(|word| **word == "failing").count(),
        1,
        "once: {told:?}"
    );
    // What was committed before the end is there.
    let status = sqlite::status(&shop.repository, &datastore()).await.unwrap().unwrap();
    let plan = sqlite::plan(
        &shop.repository,
        &datastore(),
        &RestoreTo {
            time: status.latest,
            allow_older: false,
        },
    )
    .await
    .unwrap();
    assert_eq!(shop.restored(&plan).await.rows(), shop.rows());
}
