//! Hostile sets, sealed with the right key: every length and number that they claim is held against what is there.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::repo::{InitOptions, KdfParams};
use crate::store::MemoryStore;

fn repository() -> Repository {
    let cheap = InitOptions {
        kdf: KdfParams { log_n: 4, r: 1, p: 1 },
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime
        .block_on(Repository::init(Arc::new(MemoryStore::new()), "password", &cheap))
        .unwrap()
}

fn header(pages: u32) -> Header {
    Header {
        schema: Header::schema(),
        datastore: "local.orders".to_owned(),
        generation: "g".to_owned(),
        sequence: 1,
        previous: Some(Id::of(b"")),
        page_size: 512,
        page_count: 9,
        pages,
        partial: false,
        sum: Header::sum_of(7),
        complete_until: Timestamp::UNIX_EPOCH,
        taken_at: Timestamp::UNIX_EPOCH,
        unchanged_until: None,
        interval_ms: 1000,
        store_ahead_ms: 0,
        program: "opsctl".to_owned(),
    }
}

fn damage(repository: &Repository, sealed: &[u8]) -> Damage {
    match open(repository, "ship/x", sealed) {
        Err(Error::Shipping(ShippingError::Damaged { damage, .. })) => damage,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_sealed_comes_back() {
    let repository = repository();
    let sealed = seal(&repository, &header(2), &[2, 9], &[5; 1024]).unwrap();
    let set = open(&repository, "ship/x", &sealed).unwrap();
    assert_eq!((&set.header, set.id), (&header(2), Id::of(&sealed)));
    let pages: Vec<_> = set.pages().collect();
    assert_eq!(pages, [(2, &[5; 512][..]), (9, &[5; 512])]);
}

#[test]
fn nothing_that_is_claimed_is_believed() {
    let repository = repository();
    let page = [0; 512];
    let two = [page, page].concat();
    let sets: [(Header, &[u32], &[u8]); 13] = [
        (header(1), &[0], &page),
        (header(1), &[10], &page),
        (header(1), &[u32::MAX], &page),
        (header(2), &[3, 3], &two),
        (header(2), &[4, 3], &two),
        (header(1), &[1, 2], &page),
        (header(2), &[1], &page),
        (header(u32::MAX), &[1], &page),
        (
            Header {
                page_size: 0,
                ..header(1)
            },
            &[1],
            &[],
        ),
        (
            Header {
                page_size: 1000,
                ..header(1)
            },
            &[1],
            &[0; 1000],
        ),
        (
            Header {
                page_size: u32::MAX,
                ..header(u32::MAX)
            },
            &[1],
            &page,
        ),
        (
            Header {
                schema: "opsctl.ship/v9".to_owned(),
                ..header(1)
            },
            &[1],
            &page,
        ),
        (
            Header {
                program: "x".repeat(HEADER_LIMIT),
                ..header(1)
            },
            &[1],
            &page,
        ),
    ];
    for (header, numbers, content) in sets {
        let sealed = seal(&repository, &header, numbers, content).unwrap();
        assert_eq!(damage(&repository, &sealed), Damage::Malformed, "{header:?}");
    }
}

#[test]
fn what_would_grow_is_refused_before_it_does() {
    let repository = repository();
    let sealed = |length: u64, packed: &[u8]| {
        repository
            .key()
            .seal_to_vec(&[&MAGIC[..], &length.to_le_bytes(), packed].concat())
    };
    let bomb = zstd::encode_all(std::io::Read::take(std::io::repeat(0), 1 << 30), 3).unwrap();
    for length in [1 << 30, BODY_LIMIT as u64 + 1, BODY_LIMIT as u64, 100, u64::MAX] {
        assert_eq!(
            damage(&repository, &sealed(length, &bomb)),
            Damage::NotDecompressible,
            "{length}"
        );
    }
    assert_eq!(damage(&repository, &sealed(100, b"no zstd")), Damage::NotDecompressible);
    assert_eq!(
        damage(
            &repository,
            &repository.key().seal_to_vec(b"OPSHIP\x02\0 another version")
        ),
        Damage::Malformed
    );
    assert_eq!(
        damage(&repository, &vec![0; SEALED_LIMIT as usize + 1]),
        Damage::WrongSize
    );
}

#[test]
fn another_key_or_a_changed_bit_is_seen() {
    let (repository, other) = (repository(), repository());
    let whole = seal(&repository, &header(1), &[1], &[5; 512]).unwrap();
    assert_eq!(damage(&other, &whole), Damage::NotAuthentic);
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 4;
        assert_eq!(damage(&repository, &changed), Damage::NotAuthentic, "byte {at}");
        assert_eq!(damage(&repository, &whole[..at]), Damage::NotAuthentic, "cut at {at}");
    }
}

/// The largest set that is ever made fits into the limit for stored objects, even if it does not compress.
#[test]
fn the_largest_set_can_be_read() {
    use rand::{RngCore, SeedableRng};
    let repository = repository();
    let mut content = vec![0; CONTENT_LIMIT];
    rand::rngs::StdRng::seed_from_u64(1).fill_bytes(&mut content);
    let pages = (CONTENT_LIMIT / 512) as u32;
    let largest = Header {
        page_count: pages,
        ..header(pages)
    };
    let sealed = seal(&repository, &largest, &(1..=pages).collect::<Vec<_>>(), &content).unwrap();
    assert!(sealed.len() as u64 <= SEALED_LIMIT);
    assert_eq!(
        open(&repository, "ship/x", &sealed).unwrap().pages().count(),
        pages as usize
    );
}

proptest! {
    #[test]
    fn any_body_is_borne(body in proptest::collection::vec(any::<u8>(), 0..400), json: bool) {
        let mut body = body;
        if json {
            let json = serde_json::to_vec(&header(1)).unwrap();
            body = [&(json.len() as u32).to_le_bytes()[..], &json, &body].concat();
        }
        let set = parse(Id::of(&body), body);
        prop_assert!(set.is_none_or(|set| set.pages().count() == 1));
    }
}
