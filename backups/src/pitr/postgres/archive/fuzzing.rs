//! What holds for the names and the objects of an archive, whoever made them.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use replication::{Lsn, Segment, SegmentSize, SystemId, Timeline};

use super::{Archive, File, KeptBase, Lost, open, parse, seal, unneeded};
use crate::fuzzing::Target;
use crate::pitr::Datastore;
use crate::repo::{InitOptions, KdfParams, Repository};
use crate::store::MemoryStore;

pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "archived_names",
        seeds: names,
        property: archived_names,
    },
    Target {
        name: "archived_object",
        seeds: objects,
        property: archived_object,
    },
];

/// Something under a key like every other.
fn archive() -> &'static Archive {
    static ARCHIVE: OnceLock<Archive> = OnceLock::new();
    ARCHIVE.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let options = InitOptions {
            kdf: KdfParams { log_n: 4, r: 1, p: 1 },
        };
        let made = Repository::init(Arc::new(MemoryStore::new()), "right", &options);
        let repository = runtime.expect("a runtime").block_on(made).expect("a new repository");
        Archive::new(&repository, Datastore::new("db").expect("a sound name"))
    })
}

fn names() -> Vec<Vec<u8>> {
    let (timeline, size) = (Timeline(2), SegmentSize::DEFAULT);
    let segment = Segment::containing(timeline, Lsn(0x16_B374_D848), size);
    let files = [
        File::Segment(segment),
        File::Partial {
            segment,
            until: Lsn(0x16_B374_D848),
        },
        File::History(timeline),
        File::Gap(Lost {
            timeline,
            from: Lsn(5),
            until: Lsn(1 << 24),
        }),
    ];
    let all: Vec<String> = files.iter().map(|file| file.name(size)).collect();
    let standing = "standing-00000002-00000016B374D848-1773453600000";
    vec![format!("{}\n{standing}", all.join("\n")).into_bytes()]
}

/// Each file has one name, and what is deleted for a base is never what a restore from it reads.
fn archived_names(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    for size in [SegmentSize::DEFAULT, SegmentSize::new(1 << 20).expect("a size")] {
        let files: Vec<File> = text
            .lines()
            .take(100)
            .filter_map(|name| File::parse(name, size))
            .collect();
        for (file, name) in files
            .iter()
            .zip(text.lines().filter(|name| File::parse(name, size).is_some()))
        {
            assert_eq!(file.name(size), name);
        }
        let Some(File::Segment(first)) = files.iter().find(|file| matches!(file, File::Segment(_))) else {
            continue;
        };
        let base = KeptBase {
            system: SystemId(1),
            timeline: first.timeline,
            start: first.start(size),
        };
        for gone in unneeded(&files, size, &[base]) {
            assert!(files.contains(&gone), "only what is there");
            match gone {
                File::Segment(segment) => assert!(segment.number < first.number),
                File::Partial { segment, until } => {
                    let more = |file: &File| match file {
                        File::Segment(other) => *other == segment,
                        File::Partial {
                            segment: other,
                            until: further,
                        } => *other == segment && *further > until,
                        _ => false,
                    };
                    assert!(segment.number < first.number || files.iter().any(more));
                }
                File::Standing(_) => {}
                File::History(_) | File::Gap(_) => panic!("they are kept: {gone:?}"),
            }
        }
    }
}

fn objects() -> Vec<Vec<u8>> {
    let header = archive().header(SystemId(7), "00000002.history", SegmentSize::DEFAULT);
    let sealed = seal(archive().repository(), &header, b"1\t0/3000148\tx\n").expect("a sound object");
    let mut plain = Vec::new();
    let opened = archive().repository().key().open(&sealed, &mut plain);
    opened.expect("our own bytes");
    let json = serde_json::to_vec(&header).expect("a header is JSON");
    let body = [&(json.len() as u32).to_le_bytes()[..], &json, b"content"].concat();
    vec![body, plain]
}

/// What is read can be written, and is the same then.
fn archived_object(input: &[u8]) {
    let repository = archive().repository();
    if let Some((header, content)) = parse(Bytes::copy_from_slice(input)) {
        let sealed = seal(repository, &header, &content).expect("what was read can be written");
        let again = open(repository, &sealed).expect("zstd").expect("and read");
        assert!(again == (header, content));
    }
    let sealed = repository.key().seal_to_vec(input);
    let _ = open(repository, &sealed).expect("zstd");
    assert!(open(repository, input).expect("zstd").is_err(), "nobody sealed it");
}
