//! Logs that SQLite wrote, whole and damaged; what the hints are worth under writers is tested through the shipper.

use std::path::PathBuf;

use proptest::prelude::*;
use rusqlite::Connection;

use super::*;

struct Log {
    _folder: tempfile::TempDir,
    connection: Connection,
    path: PathBuf,
}

impl Log {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let connection = Connection::open(folder.path().join("a.db")).unwrap();
        connection
            .execute_batch("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (a);")
            .unwrap();
        let path = folder.path().join("a.db-wal");
        let log = Self {
            _folder: folder,
            connection,
            path,
        };
        log.write(3);
        log
    }

    fn write(&self, rows: u32) {
        for _ in 0..rows {
            self.connection
                .execute_batch("BEGIN; INSERT INTO t VALUES (randomblob(9000)); COMMIT;")
                .unwrap();
        }
    }

    fn checkpoint(&self, mode: &str) {
        self.connection
            .query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()))
            .unwrap();
    }

    fn scan(&self, from: Option<&Position>) -> Scan {
        scan(&self.path, from).unwrap().unwrap()
    }
}

#[test]
fn what_follows_a_position_is_told() {
    let log = Log::new();
    let first = log.scan(None);
    assert!(first.pages.is_none() && first.settled.frames > 0);
    log.write(2);
    let second = log.scan(Some(&first.settled));
    assert!(
        second.pages.is_some_and(|pages| pages.len() >= 5),
        "two rows have three pages each, and more"
    );
    let third = log.scan(Some(&second.settled));
    assert!(
        !third.pages.unwrap().is_empty(),
        "the last transaction is not settled before another follows"
    );
}

#[test]
fn the_last_transaction_is_settled_by_the_next() {
    let log = Log::new();
    let before = log.scan(None).settled;
    let frames = |position: &Position| position.frames;
    log.write(1);
    let after = log.scan(None).settled;
    assert!(frames(&after) > frames(&before));
    let whole = std::fs::metadata(&log.path).unwrap().len();
    assert!(after.header.offset(frames(&after)) < whole, "not to the very end");
}

/// After one restart the former life is still told; after two, or when it was overwritten or cut, nobody knows.
#[test]
fn a_restart_is_followed_once() {
    let log = Log::new();
    log.write(20);
    let position = log.scan(None).settled;
    log.write(2);
    log.checkpoint("RESTART");
    log.write(1);
    let once = log.scan(Some(&position)).pages.unwrap();
    assert!(once.len() >= 8, "both lives: {once:?}");
    log.write(40);
    assert!(log.scan(Some(&position)).pages.is_none(), "overwritten");

    let position = log.scan(None).settled;
    log.checkpoint("RESTART");
    log.write(1);
    log.checkpoint("RESTART");
    log.write(1);
    assert!(log.scan(Some(&position)).pages.is_none(), "twice");

    let position = log.scan(None).settled;
    log.checkpoint("TRUNCATE");
    assert!(scan(&log.path, Some(&position)).unwrap().is_none(), "cut");
    log.write(1);
    assert!(log.scan(Some(&position)).pages.is_none(), "cut and written");
}

/// A changed bit ends the log there or before: nothing behind it is believed.
#[test]
fn a_changed_bit_ends_the_log() {
    let log = Log::new();
    log.write(4);
    let bytes = std::fs::read(&log.path).unwrap();
    let whole = log.scan(None).settled.frames;
    let copy = log.path.with_extension("copy");
    for at in (0..bytes.len()).step_by(97) {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        std::fs::write(&copy, changed).unwrap();
        if let Some(scan) = scan(&copy, None).unwrap() {
            let header = &scan.settled.header;
            assert!(
                scan.settled.frames <= whole && header.offset(scan.settled.frames) <= at as u64,
                "bit in byte {at}"
            );
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_borne(bytes in proptest::collection::vec(any::<u8>(), 0..3000), magic: bool, size in 9_u32..17) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut bytes = bytes;
        if bytes.len() >= HEADER {
            bytes[..4].copy_from_slice(&(if magic { MAGIC_BIG } else { MAGIC_LITTLE }).to_be_bytes());
            bytes[8..12].copy_from_slice(&(1_u32 << size).to_be_bytes());
            let checksum = add([0; 2], &bytes[..24], magic);
            bytes[24..28].copy_from_slice(&checksum[0].to_be_bytes());
            bytes[28..32].copy_from_slice(&checksum[1].to_be_bytes());
        }
        std::fs::write(&path, &bytes).unwrap();
        let scanned = scan(&path, None).unwrap();
        prop_assert_eq!(scanned.is_some(), bytes.len() >= HEADER);
        if let Some(scanned) = scanned {
            prop_assert!(scan(&path, Some(&scanned.settled)).unwrap().is_some_and(|again| again.pages.is_some()));
        }
    }
}
