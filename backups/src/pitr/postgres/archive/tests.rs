//! One content a name, whoever writes it and however often; nothing that is stored is believed; what nobody needs goes.

use std::sync::Arc;

use super::*;
use crate::repo::{InitOptions, KdfParams};
use crate::store::{Fault, FaultyStore, MemoryStore, Store};

const CHEAP: InitOptions = InitOptions {
    kdf: KdfParams { log_n: 4, r: 1, p: 1 },
};
const SYSTEM: SystemId = SystemId(7_301_234_567_890_123_456);

fn size() -> SegmentSize {
    SegmentSize::new(1 << 20).unwrap()
}

fn segment(timeline: u32, number: u64) -> Segment {
    Segment {
        timeline: Timeline(timeline),
        number,
    }
}

fn whole(byte: u8) -> Bytes {
    vec![byte; 1 << 20].into()
}

fn standing(timeline: u32, lsn: u64, second: i64) -> Standing {
    Standing {
        timeline: Timeline(timeline),
        lsn: Lsn(lsn),
        moment: Timestamp::from_second(second).unwrap(),
    }
}

async fn world() -> (Arc<MemoryStore>, Archive) {
    let store = Arc::new(MemoryStore::new());
    let repository = Repository::init(Arc::clone(&store) as _, "right", &CHEAP)
        .await
        .unwrap();
    (
        store,
        Archive::new(&repository, Datastore::new("local.pg-main").unwrap()),
    )
}

fn damage<T: fmt::Debug>(outcome: Result<T, ArchiveError>) -> Damage {
    match outcome {
        Err(ArchiveError::Damaged { damage, .. }) => damage,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_put_is_listed_and_comes_back() {
    let (store, archive) = world().await;
    assert_eq!(archive.list().await.unwrap(), Contents::default());
    let history = Bytes::from_static(b"1\t0/280000\tpromoted\n");
    let put = archive.put_segment(SYSTEM, segment(1, 1), size(), whole(1)).await;
    assert_eq!(put.unwrap(), Put::Stored);
    for length in [70_000, 90_000, 80_000] {
        let part = whole(2).slice(..length);
        archive.put_partial(SYSTEM, segment(1, 2), size(), part).await.unwrap();
    }
    archive
        .put_history(SYSTEM, Timeline(2), size(), history.clone())
        .await
        .unwrap();
    for record in [standing(1, 500, 10), standing(2, 400, 20), standing(2, 400, 5)] {
        archive.put_standing(SYSTEM, size(), record).await.unwrap();
    }
    let gap = Lost {
        timeline: Timeline(2),
        from: Lsn(5),
        until: Lsn(1 << 20),
    };
    archive.put_gap(SYSTEM, size(), gap).await.unwrap();
    // Of others, and of nobody.
    let neighbour = Archive::new(archive.repository(), Datastore::new("local.pg-main2").unwrap());
    neighbour
        .put_segment(SYSTEM, segment(1, 1), size(), whole(3))
        .await
        .unwrap();
    archive
        .put_segment(SystemId(8), segment(1, 9), size(), whole(4))
        .await
        .unwrap();
    for odd in [
        "7/000000010000000000000001.lz4",
        "07/000000010000000000000001",
        "x/y",
        "7/standing-x",
    ] {
        let key = StoreKey::new(format!("wal/local.pg-main/{odd}")).unwrap();
        store.put(&key, "odd".into()).await.unwrap();
    }

    let contents = archive.list().await.unwrap();
    assert_eq!(
        contents.systems.keys().copied().collect::<Vec<_>>(),
        [SystemId(8), SYSTEM]
    );
    let held = &contents.systems[&SYSTEM];
    let expected = Held {
        segment_size: size(),
        segments: [segment(1, 1)].into(),
        partials: [(segment(1, 2), Lsn((2 << 20) + 90_000))].into(),
        histories: [(Timeline(2), History::parse(&history).unwrap())].into(),
        standing: Some(standing(2, 400, 20)),
    };
    assert_eq!(held, &expected);
    assert_eq!(archive.gaps(SYSTEM).await.unwrap(), [gap]);
    let get = |file: File| {
        let archive = archive.clone();
        async move { archive.get(SYSTEM, &file, size()).await }
    };
    assert_eq!(get(File::Segment(segment(1, 1))).await.unwrap(), whole(1));
    assert_eq!(get(File::History(Timeline(2))).await.unwrap(), history);
    let missing = get(File::Segment(segment(1, 7))).await;
    assert!(matches!(missing, Err(ArchiveError::Missing { name }) if name == "000000010000000000000007"));
    let name = File::Segment(segment(1, 1)).name(size());
    let key = StoreKey::new(format!("wal/local.pg-main/{SYSTEM}/{name}")).unwrap();
    let sealed = store.get(&key).await.unwrap();
    assert!(!sealed.windows(64).any(|bytes| bytes == [1; 64]), "it is sealed");
}

#[tokio::test]
async fn a_name_has_one_content() {
    let (_, archive) = world().await;
    let put = |content| archive.put_segment(SYSTEM, segment(1, 1), size(), content);
    assert_eq!(put(whole(1)).await.unwrap(), Put::Stored);
    assert_eq!(put(whole(1)).await.unwrap(), Put::Present);
    let mut other = vec![1; 1 << 20];
    other[12_345] = 2;
    let error = put(other.clone().into()).await.unwrap_err();
    let ArchiveError::Conflict { name, theirs, ours, at } = &error else {
        panic!("{error:?}");
    };
    assert_eq!((name.as_str(), *at), ("000000010000000000000001", 12_345));
    assert_eq!((theirs.sha256, ours.sha256), (Id::of(&whole(1)), Id::of(&other)));
    assert!(!error.is_passing());
    let said = error.to_string();
    assert!(
        said.contains(&theirs.sha256.to_string()) && said.contains(&ours.sha256.to_string()),
        "{said}"
    );
    let there = archive.get(SYSTEM, &File::Segment(segment(1, 1)), size()).await;
    assert_eq!(there.unwrap(), whole(1), "what was first stays");
    // Two servers that were promoted to the same timeline.
    let history = |at: &str| Bytes::from(format!("1\t{at}\tpromoted\n"));
    archive
        .put_history(SYSTEM, Timeline(2), size(), history("0/5"))
        .await
        .unwrap();
    let split = archive.put_history(SYSTEM, Timeline(2), size(), history("0/6")).await;
    assert!(matches!(split, Err(ArchiveError::Conflict { at: 4, .. })), "{split:?}");
}

/// Of many writers one stores, and all others find out whether it was the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_that_race_agree_or_are_told() {
    let (_, archive) = world().await;
    for number in 0..8 {
        let writers = (0..6).map(|writer| {
            let archive = archive.clone();
            let content = whole(u8::from(writer >= 4));
            tokio::spawn(async move { archive.put_segment(SYSTEM, segment(1, number), size(), content).await })
        });
        let outcomes = futures::future::join_all(writers).await;
        let outcomes: Vec<_> = outcomes.into_iter().map(Result::unwrap).collect();
        let stored = outcomes
            .iter()
            .filter(|outcome| matches!(outcome, Ok(Put::Stored)))
            .count();
        let refused = outcomes
            .iter()
            .filter(|outcome| matches!(outcome, Err(ArchiveError::Conflict { .. })));
        let there = archive
            .get(SYSTEM, &File::Segment(segment(1, number)), size())
            .await
            .unwrap();
        let expected = if there == whole(0) { 2 } else { 4 };
        assert_eq!((stored, refused.count()), (1, expected), "{outcomes:?}");
    }
}

/// A store that loses its answer has the object; whoever asks again is told so.
#[tokio::test]
async fn a_lost_answer_is_found_out() {
    let (store, archive) = world().await;
    for (fault, second) in [
        (Fault::LoseAnswer, Put::Present),
        (Fault::Refuse, Put::Stored),
        (Fault::Full, Put::Stored),
    ] {
        let number = fault as u64;
        let faulty: Arc<dyn Store> = Arc::new(FaultyStore::new(Arc::clone(&store) as _, 0, fault));
        let failing = Archive::new(
            &Repository::open(faulty, "right").await.unwrap(),
            archive.datastore().clone(),
        );
        let put = failing.put_segment(SYSTEM, segment(1, number), size(), whole(5)).await;
        assert!(put.as_ref().is_err_and(ArchiveError::is_passing), "{put:?}");
        let put = archive.put_segment(SYSTEM, segment(1, number), size(), whole(5)).await;
        assert_eq!(put.unwrap(), second, "{fault:?}");
    }
}

#[tokio::test]
async fn only_what_a_name_says_is_stored() {
    let (store, archive) = world().await;
    let too_long = vec![b'#'; HISTORY_LIMIT + 1];
    let wrong = [
        (File::Segment(segment(1, 1)), whole(1).slice(1..)),
        (File::Segment(segment(1, 1)), Bytes::new()),
        (File::Segment(segment(0, 1)), whole(1)),
        (
            File::Partial {
                segment: segment(1, 1),
                until: Lsn(2 << 20),
            },
            whole(1),
        ),
        (
            File::Partial {
                segment: segment(1, 1),
                until: Lsn(1 << 20),
            },
            Bytes::new(),
        ),
        (File::History(Timeline(2)), too_long.into()),
        (File::Standing(standing(1, 1, 1)), whole(1)),
    ];
    for (file, content) in wrong {
        let put = archive.put(SYSTEM, file, size(), content).await;
        assert!(matches!(put, Err(ArchiveError::Length { .. })), "{file:?}: {put:?}");
    }
    assert_eq!(list_all(&*store, "wal/").await.unwrap(), []);
}

/// Whoever can write to the store and has not the key can hide log, and never put in another.
#[tokio::test]
async fn nothing_that_is_stored_is_believed() {
    let (store, archive) = world().await;
    let (one, two) = (File::Segment(segment(1, 1)), File::Segment(segment(1, 2)));
    archive
        .put_segment(SYSTEM, segment(1, 1), size(), whole(1))
        .await
        .unwrap();
    archive
        .put_segment(SYSTEM, segment(1, 2), size(), whole(2))
        .await
        .unwrap();
    let key = |file: &File| archive.key(SYSTEM, &file.name(size())).unwrap();
    let good = store.get(&key(&one)).await.unwrap();
    let get = |file| {
        let archive = archive.clone();
        async move { archive.get(SYSTEM, &file, size()).await }
    };
    // Another segment, another cluster's, another datastore's.
    store.overwrite(key(&two), good.clone());
    assert_eq!(damage(get(two).await), Damage::Malformed);
    archive
        .put_segment(SystemId(8), segment(1, 1), size(), whole(8))
        .await
        .unwrap();
    let foreign = archive.key(SystemId(8), &one.name(size())).unwrap();
    store.overwrite(key(&one), store.get(&foreign).await.unwrap());
    assert_eq!(damage(get(one).await), Damage::Malformed);
    let neighbour = Archive::new(archive.repository(), Datastore::new("other").unwrap());
    neighbour
        .put_segment(SYSTEM, segment(1, 1), size(), whole(9))
        .await
        .unwrap();
    let foreign = neighbour.key(SYSTEM, &one.name(size())).unwrap();
    store.overwrite(key(&one), store.get(&foreign).await.unwrap());
    assert_eq!(damage(get(one).await), Damage::Malformed);
    // A bit, an end, another kind of object.
    let mut changed = good.to_vec();
    changed[40] ^= 1;
    store.overwrite(key(&one), Bytes::from(changed));
    assert_eq!(damage(get(one).await), Damage::NotAuthentic);
    store.overwrite(key(&one), good.slice(..good.len() - 1));
    assert_eq!(damage(get(one).await), Damage::NotAuthentic);
    let (_, proof) = archive.repository().seal_file(&serde_json::json!({"a": 1})).unwrap();
    store.overwrite(key(&one), proof);
    assert_eq!(damage(get(one).await), Damage::Malformed);
    store.overwrite(key(&one), good);
    assert_eq!(get(one).await.unwrap(), whole(1));
}

/// One standing record that is damaged, or that nobody sealed, hides neither the log nor the record before it.
#[tokio::test]
async fn a_forged_standing_record_promises_nothing() {
    let (store, archive) = world().await;
    archive
        .put_segment(SYSTEM, segment(1, 1), size(), whole(1))
        .await
        .unwrap();
    archive
        .put_standing(SYSTEM, size(), standing(1, 500, 10))
        .await
        .unwrap();
    let real = archive
        .key(SYSTEM, &File::Standing(standing(1, 500, 10)).name(size()))
        .unwrap();
    let copied = archive
        .key(SYSTEM, &File::Standing(standing(1, 500, 99)).name(size()))
        .unwrap();
    store.overwrite(copied, store.get(&real).await.unwrap());
    let invented = archive
        .key(SYSTEM, &File::Standing(standing(9, 900, 999)).name(size()))
        .unwrap();
    store.overwrite(invented, Bytes::from_static(b"x"));
    let held = archive.list().await.unwrap().systems.remove(&SYSTEM).unwrap();
    assert_eq!(held.standing, Some(standing(1, 500, 10)));
    assert_eq!(held.segment_size, size());
    assert_eq!(held.segments.len(), 1);
}

fn base(timeline: u32, start: u64) -> KeptBase {
    KeptBase {
        system: SYSTEM,
        timeline: Timeline(timeline),
        start: Lsn((start << 20) + 77),
    }
}

#[test]
fn log_is_kept_from_the_oldest_base_on() {
    let partial = |number: u64, bytes| File::Partial {
        segment: segment(1, number),
        until: Lsn((number << 20) + bytes),
    };
    let files = [
        File::Segment(segment(1, 3)),
        File::Segment(segment(1, 5)),
        File::Segment(segment(1, 4)),
        File::Segment(segment(2, 4)),
        partial(3, 9),
        partial(5, 1),
        partial(6, 10),
        partial(6, 20),
        File::History(Timeline(2)),
        File::Standing(standing(1, 5, 1)),
        File::Standing(standing(1, 5, 2)),
        File::Standing(standing(2, 1, 1)),
    ];
    let gone = |bases: &[KeptBase]| unneeded(&files, size(), bases);
    let always = [
        File::Standing(standing(1, 5, 1)),
        partial(3, 9),
        partial(5, 1),
        partial(6, 10),
    ];
    // Without a base nothing of the log goes but what others have overtaken.
    assert_eq!(gone(&[]), always);
    assert_eq!(gone(&[base(1, 3)]), always);
    // In the order of the log; the newer timeline stays until a base of it is kept.
    let expected = [
        always[0],
        File::Segment(segment(1, 3)),
        always[1],
        File::Segment(segment(1, 4)),
        always[2],
        always[3],
    ];
    assert_eq!(gone(&[base(1, 5)]), expected);
    assert_eq!(
        gone(&[base(1, 5), base(2, 4)]),
        [always[0], expected[1], always[1], always[2], always[3]]
    );
    assert!(gone(&[base(1, 5), base(2, 6)]).contains(&File::Segment(segment(2, 4))));
    assert!(gone(&[base(2, 9)]).contains(&partial(6, 20)));
}

/// What a sweep leaves is understood as before; other clusters and datastores keep what is theirs.
#[tokio::test]
async fn a_sweep_takes_what_no_base_needs() {
    let (store, archive) = world().await;
    for number in 1..6 {
        archive
            .put_segment(SYSTEM, segment(1, number), size(), whole(1))
            .await
            .unwrap();
        archive
            .put_segment(SystemId(8), segment(1, number), size(), whole(1))
            .await
            .unwrap();
    }
    for second in 0..4 {
        archive
            .put_standing(SYSTEM, size(), standing(1, 6 << 20, second))
            .await
            .unwrap();
    }
    assert_eq!(sweep(archive.repository(), &[base(1, 4)]).await.unwrap(), 3 + 3);
    let contents = archive.list().await.unwrap();
    let held = &contents.systems[&SYSTEM];
    assert_eq!(held.segments, [segment(1, 4), segment(1, 5)].into());
    assert_eq!(held.standing, Some(standing(1, 6 << 20, 3)));
    assert_eq!(contents.systems[&SystemId(8)].segments.len(), 5);
    assert_eq!(sweep(archive.repository(), &[base(1, 4)]).await.unwrap(), 0);
    // What is not understood stays.
    let key = StoreKey::new("wal/strange/7/000000010000000000000001").unwrap();
    store.put(&key, "x".into()).await.unwrap();
    assert_eq!(sweep(archive.repository(), &[base(1, 4)]).await.unwrap(), 0);
    store.get(&key).await.unwrap();
}
