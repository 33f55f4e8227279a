//! Archives of ours and of GNU tar, read in pieces of any size; and those that lie.

use std::process::Command;

use proptest::prelude::*;

use super::*;

/// A header as the server writes it.
pub(in crate::source) fn header(name: &str, kind: u8, size: u64, target: &str) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..108].copy_from_slice(b"0000600 ");
    block[108..116].copy_from_slice(b"0000145 ");
    block[116..124].copy_from_slice(b"0000155 ");
    if size < 1 << 33 {
        block[124..136].copy_from_slice(format!("{size:011o} ").as_bytes());
    } else {
        block[128..136].copy_from_slice(&size.to_be_bytes());
        block[124] = 0x80;
    }
    block[136..148].copy_from_slice(b"14700000000 ");
    block[156] = kind;
    block[157..157 + target.len()].copy_from_slice(target.as_bytes());
    block[257..265].copy_from_slice(b"ustar\x0000");
    sum(&mut block);
    block
}

fn sum(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o} \0").as_bytes());
}

fn file(name: &str, content: &[u8]) -> Vec<u8> {
    let mut bytes = header(name, b'0', content.len() as u64, "");
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

/// What an archive holds: paths with their kinds, and the content of files.
fn read(archive: &[u8], piece: usize) -> Result<Vec<(Entry, Vec<u8>)>, TarFault> {
    let mut reader = TarReader::new();
    let mut read = Vec::new();
    let mut open = false;
    for piece in archive.chunks(piece) {
        reader.push(Bytes::copy_from_slice(piece));
        while let Some(event) = reader.next()? {
            match event {
                TarEvent::Entry(entry) => {
                    assert!(!open, "one file after the other");
                    open = matches!(entry.kind, EntryKind::File { .. });
                    read.push((entry, Vec::new()));
                }
                TarEvent::Content(bytes) => read.last_mut().unwrap().1.extend_from_slice(&bytes),
                TarEvent::FileEnds => {
                    let (entry, content) = read.last().unwrap();
                    let size = content.len() as u64;
                    assert_eq!(entry.kind, EntryKind::File { size });
                    open = false;
                }
            }
        }
    }
    reader.finish()?;
    Ok(read)
}

fn fault(archive: &[u8]) -> TarFault {
    let whole = read(archive, archive.len().max(1)).expect_err("an archive that lies");
    assert_eq!(read(archive, 7).expect_err("in pieces, too"), whole);
    whole
}

const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

#[test]
fn what_a_server_sends_is_read_with_and_without_its_end() {
    let archive = [
        file("backup_label", b"START WAL LOCATION"),
        header("base", b'5', 0, ""),
        header("pg_tblspc/16385/", b'2', 0, "/srv/fast"),
        file("base/1/PG_VERSION", b"15\n"),
        file("base/1/empty", b""),
        file("base/1/page", &[7; 8192]),
    ]
    .concat();
    for archive in [
        archive.clone(),
        [&archive[..], &END].concat(),
        [&archive[..], &[0; 20 * BLOCK]].concat(),
    ] {
        for piece in [1, 100, BLOCK, 8192, archive.len()] {
            let read = read(&archive, piece).unwrap();
            let paths: Vec<_> = read.iter().map(|(entry, _)| entry.path.to_str().unwrap()).collect();
            assert_eq!(
                paths,
                [
                    "backup_label",
                    "base",
                    "pg_tblspc/16385",
                    "base/1/PG_VERSION",
                    "base/1/empty",
                    "base/1/page"
                ]
            );
            assert_eq!(read[1].0.kind, EntryKind::Folder);
            assert_eq!(
                read[2].0.kind,
                EntryKind::Link {
                    target: "/srv/fast".into()
                }
            );
            assert_eq!(
                (&read[3].1[..], read[4].1.len(), &read[5].1[..]),
                (&b"15\n"[..], 0, &[7; 8192][..])
            );
            let look = &read[0].0;
            assert_eq!((look.mode, look.uid, look.gid), (0o600, 0o145, 0o155));
            assert_eq!(look.modified, Timestamp::from_second(0o14_700_000_000).unwrap());
        }
    }
}

#[test]
fn a_file_may_be_larger_than_eight_gigabytes() {
    let mut reader = TarReader::new();
    let size = 3 << 40;
    reader.push(header("base/5/16384", b'0', size, "").into());
    let Some(TarEvent::Entry(entry)) = reader.next().unwrap() else {
        panic!("a file begins")
    };
    assert_eq!(entry.kind, EntryKind::File { size });
    reader.push(Bytes::from_static(&[1; 1000]));
    assert_eq!(
        reader.next().unwrap(),
        Some(TarEvent::Content(Bytes::from_static(&[1; 1000])))
    );
    assert_eq!(reader.finish(), Err(TarFault::Cut { at: 1512 }));
}

#[test]
fn content_is_not_copied() {
    let whole = Bytes::from([file("a", &[9; 4096]), END.to_vec()].concat());
    let mut reader = TarReader::new();
    reader.push(whole.clone());
    reader.next().unwrap();
    let Some(TarEvent::Content(content)) = reader.next().unwrap() else {
        panic!("content follows")
    };
    assert_eq!(content.as_ptr(), whole[BLOCK..].as_ptr());
}

#[test]
fn paths_that_lead_elsewhere_are_refused() {
    for name in [
        "/etc/passwd",
        "../up",
        "a/../../up",
        "a//b",
        "a/./b",
        "",
        "./",
        "..",
        "a/..",
    ] {
        let fault = fault(&file(name, b"x"));
        assert!(matches!(fault, TarFault::Path { .. }), "{name:?}: {fault}");
    }
    let deep = format!("{}x", "a/".repeat(DEEPEST)).into_bytes();
    assert_eq!(
        (inside(&deep), inside(&[b'a'; 256]), inside(b"a\0b")),
        (None, None, None)
    );
    assert_eq!(inside(b"./a"), Some("a".into()));
    assert_eq!(read(&header("./", b'5', 0, ""), 512).unwrap()[0].0.path, Path::new(""));
}

#[test]
fn what_no_server_sends_is_refused_by_name() {
    for kind in *b"1346Sg" {
        assert_eq!(
            fault(&header("odd", kind, 0, "somewhere")),
            TarFault::Kind {
                path: "odd".into(),
                kind: kind.into()
            }
        );
    }
    assert!(matches!(fault(&header("link", b'2', 0, "")), TarFault::Link { .. }));
    assert!(matches!(
        fault(&header("link", b'2', 5, "x")),
        TarFault::Number { field: "size", .. }
    ));
    let mut negative = header("a", b'0', 0, "");
    negative[124..136].fill(0xff);
    sum(&mut negative);
    assert!(matches!(fault(&negative), TarFault::Number { field: "size", .. }));
    let mut huge = header("a", b'0', u64::MAX, "");
    assert!(matches!(fault(&huge), TarFault::Number { field: "size", .. }));
    huge[200] ^= 1;
    assert_eq!(fault(&huge), TarFault::NoHeader { at: 0 });
    let mut words = header("a", b'0', 0, "");
    words[136..148].copy_from_slice(b"yesterday   ");
    sum(&mut words);
    assert!(matches!(fault(&words), TarFault::Number { field: "time", .. }));
}

#[test]
fn what_is_cut_or_followed_by_something_is_noticed() {
    let archive = file("a", &[1; 700]);
    for cut in [1, 511, 513, 1000, 1535] {
        assert_eq!(fault(&archive[..cut]), TarFault::Cut { at: cut as u64 });
    }
    let followed = [&archive[..], &END, &file("b", b"")].concat();
    assert_eq!(
        fault(&followed),
        TarFault::Trailing {
            at: archive.len() as u64 + 1024
        }
    );
    let shifted = [&archive[..], &[5; 512]].concat();
    assert_eq!(fault(&shifted), TarFault::NoHeader { at: 1536 });
    assert_eq!(fault(&header("x", b'x', 0, "")), TarFault::Extension { at: 0 });
    assert_eq!(fault(&header("x", b'x', 1 << 30, "")), TarFault::Extension { at: 0 });
    let alone = [header("x", b'L', 3, ""), [b"abc", &[0; 509][..]].concat()].concat();
    assert!(matches!(fault(&alone), TarFault::Cut { .. }), "a long name of nothing");
}

/// GNU tar is another writer of the same format, with its own ways for long names.
#[test]
fn what_gnu_tar_writes_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let deep = "a-rather-long-name-of-a-folder/".repeat(6);
    let long = format!("{deep}{}", "f".repeat(120));
    std::fs::create_dir_all(folder.path().join(&deep)).unwrap();
    std::fs::write(folder.path().join(&long), b"long").unwrap();
    std::fs::write(folder.path().join("short"), vec![3; 100_000]).unwrap();
    std::os::unix::fs::symlink("t".repeat(150), folder.path().join("link")).unwrap();
    for format in ["gnu", "pax"] {
        let output = Command::new("tar")
            .args(["--create", "--format", format, "--directory"])
            .arg(folder.path())
            .arg(".")
            .output()
            .unwrap();
        assert!(output.status.success());
        let read = read(&output.stdout, 1000).unwrap();
        let find = |path: &str| read.iter().find(|(entry, _)| entry.path == Path::new(path)).unwrap();
        assert_eq!(find(&long).1, b"long", "{format}");
        assert_eq!(find("short").1, vec![3; 100_000], "{format}");
        let target = "t".repeat(150).into();
        assert_eq!(find("link").0.kind, EntryKind::Link { target }, "{format}");
        assert_eq!(find(deep.trim_end_matches('/')).0.kind, EntryKind::Folder, "{format}");
    }
}

proptest! {
    #[test]
    fn files_come_back_however_they_are_cut(
        contents in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..3000), 0..8),
        piece in 1..5000_usize,
        ended: bool,
    ) {
        let mut archive: Vec<u8> = contents.iter().enumerate().flat_map(|(at, content)| file(&format!("d/{at}"), content)).collect();
        if ended {
            archive.extend(END);
        }
        let read = read(&archive, piece).unwrap();
        prop_assert_eq!(read.len(), contents.len());
        for (at, ((entry, read), content)) in read.into_iter().zip(&contents).enumerate() {
            prop_assert_eq!(entry.path, PathBuf::from(format!("d/{at}")));
            prop_assert_eq!(&read, content);
        }
    }

    #[test]
    fn numbers_are_read_as_they_are_written(value in 0..1_u64 << 62) {
        let name = header("a", b'0', value, "");
        prop_assert_eq!(number(&name[124..136]), Some(value));
    }
}
