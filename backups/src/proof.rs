//! Proof that a snapshot restores: a drill brings it back, checks it, asks it questions, measures how long that took and
//! how much would have been lost ([`rehearse`]), and what came of it is kept beside the snapshots.
//!
//! Records lie under `proofs/`, outside of restic's folders, sealed with the repository's key and named after their time
//! and the SHA-256 of their bytes. They are only ever added: whoever may write and not delete can prove, too. What they
//! say is decided without I/O ([`judge`], [`standing`]); a damaged or hostile record is told of and passed over.

mod assertion;
mod drill;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub mod judge;
mod live;
mod record;
mod scratch;
mod session;
pub mod standing;

pub(crate) use assertion::Subject;
pub use assertion::{Assertion, Canary, Expectation};
pub(crate) use drill::{Found, conclude, nanoseconds, not_restored};
pub use drill::{Terms, at_or_before, needed_bytes, rehearse};
pub use judge::{Bound, Number, Value};
pub use live::{Live, Revive, Revived};
pub use record::{Check, Group, Objectives, Outcome, Phases, Proof, RpoBasis, SCHEMA, Verdict};
pub use scratch::{Scratch, free_bytes};
pub use session::ask_database;

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, stream};
use jiff::Timestamp;

use crate::error::{Damage, Error};
use crate::repo::{Id, Repository, compress};
use crate::store::{StoreKey, list_all};

const FOLDER: &str = "proofs/";
/// A record has a few kilobytes; what is larger is none of ours, and is not read.
const SEALED_LIMIT: u64 = 1 << 20;
/// Nor may it grow beyond this.
const PLAIN_LIMIT: usize = 4 << 20;

/// A record and its name.
#[derive(Debug, Clone, PartialEq)]
pub struct ProofRecord {
    /// The SHA-256 of its sealed bytes.
    pub id: Id,
    /// What it says.
    pub proof: Proof,
}

/// What [`list`] found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ProofList {
    /// All records, oldest first.
    pub proofs: Vec<ProofRecord>,
    /// Objects that are no record, by key, and what is wrong with each.
    pub damaged: Vec<(String, Damage)>,
}

impl ProofList {
    /// The drills of a datastore in an environment, oldest first.
    pub fn of<'a>(&'a self, environment: &'a str, datastore: &'a str) -> impl DoubleEndedIterator<Item = &'a Proof> {
        let all = self.proofs.iter().map(|record| &record.proof);
        all.filter(move |proof| proof.environment == environment && proof.datastore == datastore)
    }

    /// When each snapshot was proved last.
    pub fn proved(&self) -> BTreeMap<Id, Timestamp> {
        let mut proved = BTreeMap::new();
        for ProofRecord { proof, .. } in &self.proofs {
            if proof.verdict == Verdict::Proved {
                proved.insert(proof.snapshot, proof.at);
            }
        }
        proved
    }
}

/// Keeps a record. After `Ok` it is durable.
///
/// Errors: [`Error::ReadOnlyVersion`] in a repository of version 1, which is never written.
pub async fn save(repository: &Repository, proof: &Proof) -> Result<Id, Error> {
    if repository.version() == 1 {
        return Err(Error::ReadOnlyVersion);
    }
    let (id, sealed) = repository.seal_file(proof)?;
    repository.store().put(&key(proof.at, &id)?, sealed).await?;
    Ok(id)
}

/// Every record of the repository. Damaged ones do not hide the others.
pub async fn list(repository: &Repository) -> Result<ProofList, Error> {
    let entries = list_all(&*repository.store(), FOLDER).await?;
    let mut loading = stream::iter(entries)
        .map(|entry| async move {
            let loaded = load(repository, &entry.key, entry.size).await;
            (entry.key, loaded)
        })
        .buffered(16);
    let mut list = ProofList::default();
    // Two objects with the same bytes are one record, whatever they are called.
    let mut seen = BTreeSet::new();
    while let Some((key, loaded)) = loading.next().await {
        match loaded? {
            Ok(record) if seen.insert(record.id) => list.proofs.push(record),
            // The same again, or taken away since it was listed.
            Ok(_) | Err(Damage::Missing) => {}
            Err(damage) => list.damaged.push((key.to_string(), damage)),
        }
    }
    list.proofs.sort_by_key(|record| (record.proof.at, record.id));
    Ok(list)
}

/// The drills of a datastore in any environment, oldest first.
pub async fn history(repository: &Repository, datastore: &str) -> Result<Vec<Proof>, Error> {
    let proofs = list(repository).await?.proofs.into_iter().map(|record| record.proof);
    Ok(proofs.filter(|proof| proof.datastore == datastore).collect())
}

/// The snapshots that were proved: brought back whole, with every check and assertion met and no objective missed.
pub async fn proved(repository: &Repository) -> Result<BTreeSet<Id>, Error> {
    Ok(list(repository).await?.proved().into_keys().collect())
}

/// `proofs/20261122T163011.250Z-<id>`: listed in the order of time.
fn key(at: Timestamp, id: &Id) -> Result<StoreKey, Error> {
    let key = format!("{FOLDER}{}-{id}", at.strftime("%Y%m%dT%H%M%S%.3fZ"));
    Ok(StoreKey::new(key)?)
}

/// Reads one record. The outer error is the store's, the inner one the record's.
async fn load(repository: &Repository, key: &StoreKey, size: u64) -> Result<Result<ProofRecord, Damage>, Error> {
    let name = key
        .file_name()
        .rsplit_once('-')
        .and_then(|(_, id)| id.parse::<Id>().ok());
    let Some(id) = name else {
        return Ok(Err(Damage::Malformed));
    };
    if size > SEALED_LIMIT {
        return Ok(Err(Damage::WrongSize));
    }
    // Not more than was listed, should it have grown since.
    let sealed = match repository.store().get_range(key, 0, SEALED_LIMIT + 1).await {
        Err(error) if error.is_not_found() => return Ok(Err(Damage::Missing)),
        sealed => sealed?,
    };
    Ok(open(repository, id, &sealed).map(|proof| ProofRecord { id, proof }))
}

fn open(repository: &Repository, id: Id, sealed: &[u8]) -> Result<Proof, Damage> {
    if Id::of(sealed) != id {
        return Err(Damage::WrongHash);
    }
    let mut plain = Vec::new();
    repository
        .key()
        .open(sealed, &mut plain)
        .map_err(|_| Damage::NotAuthentic)?;
    let json = compress::unpack_file_within(plain, PLAIN_LIMIT).map_err(|_| Damage::NotDecompressible)?;
    let proof: Proof = serde_json::from_slice(&json).map_err(|_| Damage::Malformed)?;
    if proof.makes_sense() {
        Ok(proof)
    } else {
        Err(Damage::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::repo::{InitOptions, KdfParams};
    use crate::store::{MemoryStore, Store};

    const CHEAP: InitOptions = InitOptions {
        kdf: KdfParams { log_n: 4, r: 1, p: 1 },
    };

    fn sound() -> Value {
        json!({
            "schema": SCHEMA, "snapshot": Id::of(b"snapshot"), "snapshot_time": "2026-03-14T02:00:00Z",
            "datastore": "orders-db", "kind": "sqlite", "environment": "local", "at": "2026-03-14T03:00:00Z",
            "moment": "2026-03-14T02:30:00Z",
            "phases": {"open_seconds": 0.1, "restore_seconds": 2.0, "checks_seconds": 1.0, "assertions_seconds": 0.5},
            "rto_seconds": 3.6, "rpo_seconds": 12.0, "rpo_basis": "canary",
            "checks": [{"group": "assertion", "name": "rows", "expected": "at least 1", "observed": "2", "figure": 2.0, "outcome": "met"}],
            "verdict": "proved",
        })
    }

    async fn repository() -> (Arc<MemoryStore>, Repository) {
        let store = Arc::new(MemoryStore::new());
        let repository = Repository::init(Arc::clone(&store) as _, "right", &CHEAP)
            .await
            .unwrap();
        (store, repository)
    }

    /// Seals any plain bytes as a record is sealed.
    fn put(store: &MemoryStore, repository: &Repository, plain: &[u8]) {
        let sealed = Bytes::from(repository.key().seal_to_vec(plain));
        let key = key("2026-03-14T03:00:00Z".parse().unwrap(), &Id::of(&sealed)).unwrap();
        store.overwrite(key, sealed);
    }

    /// What whoever has the key may write as a value.
    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            Just(json!(1e308)),
            Just(json!(-1)),
            ".{0,20}".prop_map(Value::from),
            Just(json!("9999-12-31T23:59:59Z")),
            Just(json!("-9999-01-02T00:00:00Z")),
            Just(json!([])),
            Just(json!({"a": [1, {"b": null}]})),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// A record with any field replaced is read with figures that can be calculated with, or told as damaged; the
        /// others are found all the same.
        #[test]
        fn a_hostile_record_hides_no_other(field in 0_usize..14, value in value(), raw in any::<Vec<u8>>()) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(async {
                let (store, repository) = repository().await;
                save(&repository, &serde_json::from_value(sound()).unwrap()).await.unwrap();
                let mut document = sound();
                let fields = document.as_object_mut().unwrap();
                let name = fields.keys().nth(field % fields.len()).unwrap().clone();
                fields.insert(name, value);
                put(&store, &repository, document.to_string().as_bytes());
                put(&store, &repository, &raw);
                let list = list(&repository).await.unwrap();
                prop_assert_eq!(list.proofs.len() + list.damaged.len(), 3);
                prop_assert!(list.proofs.iter().any(|record| record.proof == serde_json::from_value(sound()).unwrap()));
                for ProofRecord { proof, .. } in &list.proofs {
                    let figures = [proof.rto_seconds, proof.rpo_seconds, Some(proof.phases.total())];
                    prop_assert!(figures.iter().flatten().all(|seconds| (0.0..=1e13).contains(seconds)));
                    let _ = std::time::Duration::from_secs_f64(proof.phases.total());
                }
                Ok(())
            })?;
        }
    }

    #[tokio::test]
    async fn every_way_of_being_no_record_is_told_by_its_name() {
        let (store, repository) = repository().await;
        let at = "2026-03-14T03:00:00Z".parse().unwrap();
        let id = save(&repository, &serde_json::from_value(sound()).unwrap())
            .await
            .unwrap();
        let good = store.get(&key(at, &id).unwrap()).await.unwrap();
        let mut later = sound();
        later["at"] = json!("2027-01-01T00:00:00Z");
        later["verdict"] = json!("not_proved");
        later["what_a_later_version_adds"] = json!({"x": 1});
        put(&store, &repository, later.to_string().as_bytes());
        assert_eq!(list(&repository).await.unwrap().damaged, []);
        assert_eq!(
            proved(&repository).await.unwrap().into_iter().collect::<Vec<_>>(),
            [Id::of(b"snapshot")]
        );
        assert_eq!(history(&repository, "orders-db").await.unwrap().len(), 2);
        assert_eq!(history(&repository, "orders").await.unwrap(), []);

        // The same bytes under another time are the same record.
        let twin = key("2030-01-01T00:00:00Z".parse().unwrap(), &id).unwrap();
        store.overwrite(twin, good.clone());
        assert_eq!(list(&repository).await.unwrap().proofs.len(), 2);

        let odd = |name: &str| StoreKey::new(format!("proofs/{name}")).unwrap();
        let zeros = "0".repeat(64);
        store.overwrite(odd("notes.txt"), Bytes::from_static(b"hello"));
        store.overwrite(odd(&format!("x-{zeros}")), good.clone());
        let foreign = {
            let other = Repository::init(Arc::new(MemoryStore::new()), "right", &CHEAP)
                .await
                .unwrap();
            other.seal_file(&sound()).unwrap()
        };
        store.overwrite(key(at, &foreign.0).unwrap(), foreign.1);
        let (large, size) = (Bytes::from(vec![7; 2 << 20]), Damage::WrongSize);
        store.overwrite(key(at, &Id::of(&large)).unwrap(), large);
        let bomb = compress::pack_file(&vec![b' '; 64 << 20]).unwrap();
        put(&store, &repository, &bomb);
        // A snapshot or a lock is sealed with the same key, and is no proof.
        put(&store, &repository, br#"{"time":"2026-03-14T02:00:00Z","tree":"00"}"#);
        let mut infinite = sound();
        infinite["rto_seconds"] = json!(1e300);
        put(&store, &repository, infinite.to_string().as_bytes());

        let list = list(&repository).await.unwrap();
        assert_eq!(list.proofs.len(), 2);
        let mut found: Vec<Damage> = list.damaged.iter().map(|(_, damage)| *damage).collect();
        found.sort_unstable();
        let mut expected = vec![
            Damage::Malformed,
            Damage::Malformed,
            Damage::Malformed,
            Damage::WrongHash,
            Damage::NotAuthentic,
            size,
            Damage::NotDecompressible,
        ];
        expected.sort_unstable();
        assert_eq!(found, expected, "{:?}", list.damaged);
    }
}
