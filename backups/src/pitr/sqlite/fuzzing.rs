//! What holds for the readers of SQLite's write-ahead log, of shipped sets and of their names.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use rustix::fs::MemfdFlags;

use super::chain;
use super::set::{self, Header};
use super::table::{Table, hash_page};
use super::{Datastore, StreamTable, wal};
use crate::fuzzing::Target;
use crate::repo::{Id, InitOptions, KdfParams, Repository};
use crate::store::{Entry, MemoryStore, StoreKey};

pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "wal",
        seeds: logs,
        property: log,
    },
    Target {
        name: "shipped_set",
        seeds: sets,
        property: shipped_set,
    },
    Target {
        name: "shipped_names",
        seeds: names,
        property: shipped_names,
    },
    Target {
        name: "page_table",
        seeds: || vec![database(512, 5), database(4096, 2), b"no database".to_vec()],
        property: page_table,
    },
];

/// Something under a key like every other.
fn repository() -> &'static Repository {
    static REPOSITORY: OnceLock<Repository> = OnceLock::new();
    REPOSITORY.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let options = InitOptions {
            kdf: KdfParams { log_n: 4, r: 1, p: 1 },
        };
        let made = Repository::init(Arc::new(MemoryStore::new()), "right", &options);
        runtime.expect("a runtime").block_on(made).expect("a new repository")
    })
}

fn header(pages: u32, sequence: u64) -> Header {
    Header {
        schema: Header::schema(),
        datastore: "db".to_owned(),
        generation: chain::generation_name(Timestamp::UNIX_EPOCH, Id::of(b"snapshot")),
        sequence,
        previous: (sequence > 0).then(|| Id::of(b"previous")),
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
        program: "test".to_owned(),
    }
}

/// Bodies as they are unpacked, and the bytes that are sealed.
fn sets() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (header, numbers) in [(header(2, 1), &[3, 9][..]), (header(0, 0), &[])] {
        let content = vec![5; 512 * numbers.len()];
        let sealed = set::seal(repository(), &header, numbers, &content).expect("a sound set");
        let set = set::open(repository(), "ship/db", &sealed).expect("a sound set");
        let mut plain = Vec::new();
        let opened = repository().key().open(&sealed, &mut plain);
        opened.expect("our own bytes");
        seeds.extend([set.body().to_vec(), plain]);
    }
    seeds
}

fn shipped_set(input: &[u8]) {
    let whole = |set: &set::Set| {
        let header = &set.header;
        let (numbers, pages): (Vec<u32>, Vec<&[u8]>) = set.pages().unzip();
        assert_eq!(numbers.len(), header.pages as usize);
        assert!(pages.iter().all(|page| page.len() == header.page_size as usize));
        assert!(numbers.is_sorted_by(|one, next| one < next));
        assert!(numbers.iter().all(|number| (1..=header.page_count).contains(number)));
        let sealed = set::seal(repository(), header, &numbers, &pages.concat()).expect("what was read can be written");
        let same = set::open(repository(), "ship/db", &sealed).expect("and read");
        assert!(same.header == *header && same.pages().eq(set.pages()));
    };
    if let Some(set) = set::parse(Id::of(input), input.to_vec()) {
        whole(&set);
    }
    if let Ok(set) = set::open(repository(), "ship/db", &repository().key().seal_to_vec(input)) {
        whole(&set);
    }
    assert!(set::open(repository(), "ship/db", input).is_err(), "nobody sealed it");
}

fn names() -> Vec<Vec<u8>> {
    let datastore = Datastore::new("db").expect("a sound name");
    let key = |sequence| chain::set_key(&datastore, &header(0, sequence)).expect("a sound key");
    let both = format!("{}\n{}\n{}-part", key(0), key(1), key(2));
    vec![both.into_bytes(), b"ship/db/x/y\nship/db/1-2/3-4\nconfig".to_vec()]
}

fn shipped_names(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let entries: Vec<Entry> = text
        .lines()
        .take(100)
        .filter_map(|line| StoreKey::new(line).ok())
        .map(|key| Entry {
            key,
            size: 1,
            modified: None,
        })
        .collect();
    let generations = chain::generations("ship/db/", &entries);
    let mut keys = Vec::new();
    for generation in &generations {
        let (name, sets) = (&generation.name, &generation.sets);
        assert!(!sets.is_empty() && sets.is_sorted_by_key(|set| set.sequence));
        for set in sets {
            let (number, time) = (set.sequence, set.taken_at.as_millisecond());
            let end = if set.partial { "-part" } else { "" };
            let expected = format!("ship/db/{name}/{number:010}-{time:013}{end}");
            assert_eq!(set.key.as_str(), expected, "a name says all that is read from it");
            keys.push(set.key.clone());
        }
    }
    let mut unneeded = chain::unneeded(&generations, &BTreeSet::new());
    unneeded.sort();
    keys.sort();
    assert_eq!(unneeded, keys);
    let kept = generations.iter().map(|generation| generation.snapshot).collect();
    assert!(chain::unneeded(&generations, &kept).is_empty());
}

/// A log with three transactions, the second of two pages.
fn logs() -> Vec<Vec<u8>> {
    let mut log = vec![0; 32];
    log[..4].copy_from_slice(&0x377f_0682_u32.to_be_bytes());
    log[8..12].copy_from_slice(&512_u32.to_be_bytes());
    for (page, size) in [(1_u32, 2_u32), (2, 0), (3, 3), (1, 3)] {
        log.extend(page.to_be_bytes());
        log.extend(size.to_be_bytes());
        log.extend([0; 16 + 512]);
    }
    let mut sums_right = vec![1];
    sums_right.extend(&log);
    let mut as_it_is = vec![0];
    as_it_is.extend(&log);
    vec![sums_right, as_it_is]
}

/// Puts salts and running sums right, which no mutation would.
fn put_sums_right(log: &mut [u8]) {
    let Some((header, frames)) = log.split_first_chunk_mut::<32>() else {
        return;
    };
    let word = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap_or_default());
    let write = |sum: [u32; 2], bytes: &mut [u8]| {
        bytes[..4].copy_from_slice(&sum[0].to_be_bytes());
        bytes[4..8].copy_from_slice(&sum[1].to_be_bytes());
    };
    let big_endian = word(&header[..4]) & 1 == 1;
    let mut sum = wal::add([0; 2], &header[..24], big_endian);
    write(sum, &mut header[24..]);
    let page_size = word(&header[8..12]) as usize;
    for frame in frames.chunks_exact_mut(24 + page_size.clamp(512, 65536)) {
        frame[8..16].copy_from_slice(&header[16..24]);
        sum = wal::add(sum, &frame[..8], big_endian);
        sum = wal::add(sum, &frame[24..], big_endian);
        write(sum, &mut frame[16..24]);
    }
}

fn log(input: &[u8]) {
    let Some((mode, log)) = input.split_first() else { return };
    let mut log = log.to_vec();
    if mode & 1 == 1 {
        put_sums_right(&mut log);
    }
    let file = rustix::fs::memfd_create("log", MemfdFlags::CLOEXEC).expect("a file in memory");
    let mut file = std::fs::File::from(file);
    file.write_all(&log).expect("a file in memory");
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let scan = |from: Option<&wal::Position>| wal::scan(&path, from).expect("the file can be read");
    let Some(found) = scan(None) else { return };
    assert!(found.pages.is_none(), "without a position nobody knows what was before");
    let most = log.len() / (24 + 512);
    assert!(found.settled.frames() as usize <= most);
    let rest = scan(Some(&found.settled)).expect("the log is there");
    let pages = rest.pages.expect("it goes on where it ended");
    assert!(pages.len() <= most - found.settled.frames() as usize);
    assert!(rest.settled == found.settled, "the file has not changed");
}

fn database(page_size: u16, pages: usize) -> Vec<u8> {
    let mut file = vec![7; usize::from(page_size) * pages];
    file[16..18].copy_from_slice(&page_size.to_be_bytes());
    file
}

fn page_table(input: &[u8]) {
    let table = |piece: usize| {
        let mut stream = StreamTable::default();
        for piece in input.chunks(piece) {
            stream.update(piece);
            assert!(stream.waiting() < 65536 + piece.len(), "no more than a page is kept");
        }
        stream.finish()
    };
    let whole = table(input.len().max(1));
    assert_eq!(whole, table(100), "wherever it is cut");
    let Some(whole) = whole else { return };
    let size = (whole.page_size as usize).max(1);
    let mut same = Table::default();
    same.resize(whole.page_count());
    for (page, number) in input.chunks(size).zip(1..) {
        same.set(number, hash_page(number, page));
    }
    assert_eq!(same.sum(), whole.sum());
}
