//! Manifests as servers write them, and others.

use super::*;

const HASH: &str = "0f0e0d0c0b0a09080706050403020100f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0";

fn file(path: &str) -> String {
    format!(
        "{{ \"Path\": \"{path}\", \"Size\": 3, \"Last-Modified\": \"2026-11-23 13:00:00 GMT\", \
         \"Checksum-Algorithm\": \"SHA256\", \"Checksum\": \"{HASH}\" }}"
    )
}

const RANGE: &str = "{ \"Timeline\": 1, \"Start-LSN\": \"0/2000028\", \"End-LSN\": \"16/B374D848\" }";

/// A manifest of these files and ranges, with its checksum.
pub(in crate::source) fn manifest(start: &str, files: &[String], ranges: &str) -> Vec<u8> {
    let files = files.join(",\n");
    let mut text = format!("{{ {start},\n\"Files\": [\n{files}\n],\n\"WAL-Ranges\": [\n{ranges}\n],\n").into_bytes();
    let checksum = hex::encode(Sha256::digest(&text));
    text.extend(format!("\"Manifest-Checksum\": \"{checksum}\"}}\n").bytes());
    text
}

const FIRST: &str = "\"PostgreSQL-Backup-Manifest-Version\": 1";
const SECOND: &str = "\"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": 7320280665284567118";

pub(in crate::source) fn samples() -> Vec<Vec<u8>> {
    let encoded = file("x").replace("\"Path\": \"x\"", "\"Encoded-Path\": \"62617365ff\"");
    vec![
        manifest(FIRST, &[file("backup_label"), file("base/1/PG_VERSION")], RANGE),
        manifest(
            SECOND,
            &[file("pg_tblspc/16385/PG_15_202209061/5/16384"), encoded],
            RANGE,
        ),
    ]
}

#[test]
fn both_versions_are_read() {
    let [first, second] = [0, 1].map(|at| BackupManifest::parse(&samples()[at]).unwrap());
    assert_eq!((first.version, first.system), (1, None));
    assert_eq!((second.version, second.system), (2, Some(7_320_280_665_284_567_118)));
    assert_eq!(first.files[1].path, Path::new("base/1/PG_VERSION"));
    assert_eq!(
        (first.files[1].size, hex::encode(first.files[1].sha256)),
        (3, HASH.to_owned())
    );
    use std::os::unix::ffi::OsStrExt;
    assert_eq!(second.files[1].path.as_os_str().as_bytes(), b"base\xff");
    let range = WalRange {
        timeline: 1,
        start: 0x200_0028,
        end: 0x16_b374_d848,
    };
    assert_eq!(first.ranges, [range]);
}

#[test]
fn a_manifest_that_was_changed_or_cut_is_none() {
    let whole = &samples()[0];
    for at in 0..whole.len() {
        assert!(BackupManifest::parse(&whole[..at]).is_err(), "cut at {at}");
        for bit in [0, 5] {
            let mut changed = whole.clone();
            changed[at] ^= 1 << bit;
            // The digits of a hash mean the same as capitals.
            if changed.eq_ignore_ascii_case(whole) {
                continue;
            }
            assert!(BackupManifest::parse(&changed).is_err(), "changed at {at}");
        }
    }
    assert!(BackupManifest::parse(&[&whole[..], b"\n"].concat()).is_err());
}

#[test]
fn what_makes_no_sense_is_refused_though_it_is_authentic() {
    let parse = |start: &str, files: &[String], ranges: &str| BackupManifest::parse(&manifest(start, files, ranges));
    let version = |version: &str| FIRST.replace('1', version);
    assert_eq!(parse(&version("3"), &[], RANGE), Err(ManifestFault::Version(3)));
    assert!(matches!(
        parse(&version("2"), &[], RANGE),
        Err(ManifestFault::Malformed(_))
    ));
    assert_eq!(
        parse(FIRST, &[file("a"), file("b"), file("a")], RANGE),
        Err(ManifestFault::Twice("a".into()))
    );
    for path in ["/a", "../a", "a/../b", "", "./a", "a/"] {
        let outcome = parse(FIRST, &[file(path)], RANGE);
        assert_eq!(outcome, Err(ManifestFault::Path(path.to_owned())), "{path}");
    }
    for (from, to) in [("SHA256", "CRC32C"), (HASH, "00"), ("\"Checksum\"", "\"Check\"")] {
        assert_eq!(
            parse(FIRST, &[file("a").replace(from, to)], RANGE),
            Err(ManifestFault::NoHash("a".into()))
        );
    }
    for (from, to) in [("\"Path\"", "\"Pfad\""), ("3,", "-3,"), ("3,", "3e3,")] {
        let outcome = parse(FIRST, &[file("a").replacen(from, to, 1)], RANGE);
        assert!(matches!(outcome, Err(ManifestFault::Malformed(_))), "{to}: {outcome:?}");
    }
    for (from, to) in [
        ("0/2000028", "17/0"),
        ("0/2000028", "02000028"),
        ("16/", "1600000000/"),
        ("16/", "+16/"),
    ] {
        let outcome = parse(FIRST, &[], &RANGE.replace(from, to));
        assert!(matches!(outcome, Err(ManifestFault::Malformed(_))), "{to}: {outcome:?}");
    }
}
