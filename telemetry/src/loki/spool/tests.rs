//! The spool alone: nothing is lost or read twice whatever order things happen in, also when the process ends in between,
//! and no file that somebody else left can do harm.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::loki::labels::LEVELS;

fn entry(at: i64, level: usize, length: usize) -> Entry {
    Entry {
        level: LEVELS[level].0,
        at,
        line: Bytes::from(format!("{at}{}", "x".repeat(length))),
        late: false,
    }
}

fn open(folder: &Path, most: usize) -> (Spool, Found) {
    let mut spool = Spool::open(folder, most).unwrap();
    let found = spool.recover().unwrap();
    (spool, found)
}

/// A folder for a spool in one that is gone at the end.
fn folder() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool");
    (folder, path)
}

#[derive(Debug, Clone)]
enum Step {
    Store(Vec<(usize, usize)>),
    /// Takes lines; they are settled with the next of these, or not at all.
    Take(usize),
    /// The process ends without a word, and another begins.
    Killed,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => prop::collection::vec((0usize..5, 0usize..400), 0..12).prop_map(Step::Store),
        4 => (1usize..3000).prop_map(Step::Take),
        1 => Just(Step::Killed),
    ];
    prop::collection::vec(step, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_line_is_taken_in_order_until_it_is_settled(steps in steps()) {
        let (_folder, path) = folder();
        let (mut spool, _) = open(&path, 1 << 20);
        // What is on disk by the spool's word, and of it what was taken by this process.
        let mut stored: BTreeMap<i64, Entry> = BTreeMap::new();
        let mut taken: Vec<i64> = Vec::new();
        let mut mark = None;
        let mut clock = 0;
        for step in steps {
            match step {
                Step::Store(lines) => {
                    let mut entries: Vec<Entry> = lines.iter().map(|(level, length)| { clock += 1; entry(clock, *level, *length) }).collect();
                    stored.extend(entries.iter().map(|entry| (entry.at, entry.clone())));
                    let count = entries.len() as u64;
                    let done = spool.store(&mut entries);
                    prop_assert_eq!((done.kept, done.refused, done.given_up), (count, 0, 0));
                }
                Step::Take(bytes) => {
                    if let Some(mark) = mark.take() {
                        spool.settled(mark);
                        taken.drain(..).for_each(|at| { stored.remove(&at); });
                    }
                    let batch = spool.take(bytes);
                    prop_assert_eq!(batch.damaged, 0);
                    let expected: Vec<Entry> = stored.values().take(batch.entries.len()).cloned().collect();
                    prop_assert_eq!(&batch.entries, &expected, "the oldest, in order");
                    prop_assert_eq!(batch.entries.is_empty(), stored.is_empty());
                    taken = batch.entries.iter().map(|entry| entry.at).collect();
                    mark = Some(batch.mark);
                }
                Step::Killed => {
                    drop(spool);
                    let found;
                    (spool, found) = open(&path, 1 << 20);
                    prop_assert_eq!(found, Found { lines: stored.len() as u64, torn: 0 });
                    taken.clear();
                    mark = None;
                }
            }
        }
    }
}

#[test]
fn a_full_spool_gives_up_old_lines_below_warn_first_and_stays_within_its_size() {
    let (_folder, path) = folder();
    let most = 256 * 1024;
    let (mut spool, _) = open(&path, most);
    let (mut emitted, mut gone) = (0, 0);
    for at in 0..3000 {
        let level = if at % 4 == 0 { 4 } else { 2 };
        let done = spool.store(&mut vec![entry(at, level, 200)]);
        emitted += 1;
        gone += done.given_up + done.refused;
        let on_disk: u64 = std::fs::read_dir(&path)
            .unwrap()
            .map(|file| file.unwrap().metadata().unwrap().len())
            .sum();
        assert!(on_disk <= most as u64 + 64, "{on_disk}");
    }
    let batch = spool.take(usize::MAX);
    assert_eq!(batch.entries.len() as u64 + gone, emitted, "each is there or counted");
    let errors = batch
        .entries
        .iter()
        .filter(|entry| entry.level == Severity::Error)
        .count();
    assert_eq!(errors, 750, "errors had room, and none went");
    let newest = batch.entries.iter().map(|entry| entry.at).max();
    assert_eq!(newest, Some(2999), "the oldest went");
}

#[test]
fn lines_without_room_are_refused_and_counted() {
    let (_folder, path) = folder();
    let (mut spool, _) = open(&path, 10_000);
    let mut entries: Vec<Entry> = (0..100).map(|at| entry(at, 4, 1000)).collect();
    let done = spool.store(&mut entries);
    assert_eq!(done.kept + done.refused + done.given_up, 100);
    assert!(done.kept >= 9, "{done:?}");
    let done = spool.store(&mut vec![entry(0, 4, segment::LONGEST_LINE + 1)]);
    assert_eq!(done.refused, 1, "longer than any record");
}

#[test]
fn a_torn_end_is_cut_off_and_counted() {
    let (_folder, path) = folder();
    let (mut spool, _) = open(&path, 1 << 20);
    spool.store(&mut (0..10).map(|at| entry(at, 2, 50)).collect());
    drop(spool);
    let name = std::fs::read_dir(&path).unwrap().find_map(|file| {
        let name = file.unwrap().file_name().into_string().unwrap();
        name.ends_with("-i.spool").then_some(name)
    });
    let file = path.join(name.unwrap());
    let length = file.metadata().unwrap().len();
    std::fs::File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .set_len(length - 3)
        .unwrap();
    let (mut spool, found) = open(&path, 1 << 20);
    assert_eq!(found, Found { lines: 9, torn: 1 });
    spool.store(&mut vec![entry(100, 2, 50)]);
    let times: Vec<i64> = spool.take(usize::MAX).entries.iter().map(|entry| entry.at).collect();
    assert_eq!(times, [0, 1, 2, 3, 4, 5, 6, 7, 8, 100]);
    drop(spool);
    assert_eq!(open(&path, 1 << 20).1, Found { lines: 10, torn: 0 }, "told once");
}

#[test]
fn one_process_has_the_folder() {
    let (_folder, path) = folder();
    let spool = Spool::open(&path, 1 << 20).unwrap();
    assert!(matches!(Spool::open(&path, 1 << 20), Err(SpoolError::Locked { .. })));
    drop(spool);
    assert!(Spool::open(&path, 1 << 20).is_ok());
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode(&path), mode(&path.join("lock")), mode(&path.join("cursor"))),
        (0o700, 0o600, 0o600)
    );
}

#[test]
fn what_is_open_to_others_or_leads_elsewhere_is_refused() {
    let (outside, path) = folder();
    let target = outside.path().join("target");
    std::fs::create_dir(&target).unwrap();
    symlink(&target, &path).unwrap();
    assert!(
        matches!(Spool::open(&path, 1 << 20), Err(SpoolError::Strange { .. })),
        "the folder is a link"
    );
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert!(
        matches!(Spool::open(&path, 1 << 20), Err(SpoolError::Foreign { .. })),
        "others can read it"
    );
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    let precious = outside.path().join("precious");
    std::fs::write(&precious, "precious").unwrap();
    for name in ["lock", "cursor", "0000000000000001-i.spool"] {
        symlink(&precious, path.join(name)).unwrap();
        let opened = Spool::open(&path, 1 << 20).and_then(|mut spool| spool.recover());
        assert!(matches!(opened, Err(SpoolError::Strange { .. })), "{name} is a link");
        std::fs::remove_file(path.join(name)).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn files_with_anything_in_them_do_no_harm(
        files in prop::collection::vec((0u64..4, any::<bool>(), prop::collection::vec(any::<u8>(), 0..200), any::<bool>()), 0..4),
        cursor in prop::collection::vec(any::<u8>(), 0..60),
        places in any::<[(u8, u16); 2]>(),
        valid_cursor in any::<bool>(),
    ) {
        let (_folder, path) = folder();
        drop(Spool::open(&path, 1 << 20).unwrap());
        let write = |name: &str, bytes: &[u8]| {
            let file = path.join(name);
            std::fs::write(&file, bytes).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        };
        for (number, important, bytes, ours) in files {
            let mut content = if ours { segment::MAGIC.to_vec() } else { Vec::new() };
            content.extend(bytes);
            write(&format!("{number:016x}-{}.spool", if important { 'w' } else { 'i' }), &content);
        }
        let places = places.map(|(segment, offset)| Place { segment: segment.into(), offset: offset.into() });
        let cursor = if valid_cursor { super::cursor(places) } else { cursor };
        write("cursor", &cursor);
        let (mut spool, _) = open(&path, 1 << 20);
        spool.store(&mut vec![entry(7, 2, 10)]);
        let batch = spool.take(usize::MAX);
        prop_assert!(batch.entries.iter().any(|entry| entry.at == 7));
        spool.settled(batch.mark);
        drop(spool);
        // What was settled stays settled, and what comes then is found.
        let (mut spool, found) = open(&path, 1 << 20);
        prop_assert_eq!(found.lines, 0);
        spool.store(&mut vec![entry(8, 4, 10)]);
        drop(spool);
        prop_assert_eq!(open(&path, 1 << 20).1, Found { lines: 1, torn: 0 });
    }
}
