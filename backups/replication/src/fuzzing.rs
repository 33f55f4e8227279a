//! What holds for everything here that reads foreign bytes, one property a reader. `cargo xtask fuzz` calls them with
//! bytes that coverage guides (`fuzz/`), and every run of the tests with a seeded slice of mutations.

use std::path::Path;

use bytes::{BufMut, Bytes, BytesMut};

use crate::frame::{self, Taken};
use crate::{Address, History, Lsn, Segment, SegmentSize, ServerVersion, Timeline};

/// One reader and what holds for it.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name: that of the fuzz target, too.
    pub name: &'static str,
    /// Sound input, which what is tried is made of.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Panics where something does not hold.
    pub property: fn(&[u8]),
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target {
        name: "address",
        seeds: || texts(&ADDRESSES),
        property: address,
    },
    Target {
        name: "frames",
        seeds: || vec![conversation(), conversation().repeat(3)],
        property: frames,
    },
    Target {
        name: "history",
        seeds: || texts(&["1\t0/3000148\tno recovery target specified\n\n2\t1/5000000\tbefore 2026-01-01\n"]),
        property: history,
    },
    Target {
        name: "names",
        seeds: || {
            texts(&[
                "0000000100000016000000B3",
                "0000000A.history",
                "16/B374D848",
                "15.6 (Debian)",
                "16MB",
            ])
        },
        property: names,
    },
];

const ADDRESSES: [&str; 4] = [
    "postgres://back%40up:s3cr3t@db.internal:5433,[::1]:2/shop?sslmode=verify-full&connect_timeout=7",
    "host='/run/pg' port=5433 user=backup password='s3cr3t' dbname=shop",
    "host=a,b hostaddr=127.0.0.1,::1 port=1,2 target_session_attrs=primary sslrootcert=system",
    "postgresql:///x?host=/run/pg&options=-c%20a%3Db",
];

/// The target of this name.
///
/// # Panics
/// If there is none.
pub fn target(name: &str) -> &'static Target {
    let found = TARGETS.iter().find(|target| target.name == name);
    found.expect("a fuzz target is named after a property")
}

/// Where the environment names a folder, writes a target's sound input there.
///
/// # Panics
/// If that folder cannot be written.
pub fn write_seeds(target: &Target) {
    let Some(folder) = std::env::var_os("OPSCTL_FUZZ_SEEDS") else {
        return;
    };
    for (number, seed) in (target.seeds)().iter().enumerate() {
        let file = Path::new(&folder).join(format!("seed-{number}"));
        std::fs::write(file, seed).expect("the folder for seeds can be written");
    }
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// What a server says: one message of each kind that is read.
fn conversation() -> Vec<u8> {
    let mut bytes = BytesMut::new();
    let mut say = |kind: u8, body: &[u8]| {
        bytes.put_u8(kind);
        bytes.put_u32(body.len() as u32 + 4);
        bytes.put_slice(body);
    };
    say(b'R', &[0, 0, 0, 10]);
    say(b'S', b"server_version\x0015.6\0");
    say(b'T', b"\0\0");
    say(b'D', b"\0\x02\0\0\0\x05hello\xff\xff\xff\xff");
    say(b'E', b"SERROR\0VERROR\0C58P01\0Mgone\0Hlook\0\0");
    say(b'd', b"w\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0data");
    say(b'd', b"k\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\x01");
    say(b'd', b"n16385.tar\0/space\0");
    say(b'd', b"m");
    say(b'd', b"p\0\0\0\0\0\0\x10\0");
    say(b'Z', b"I");
    bytes.to_vec()
}

/// Nothing panics, nothing grows beyond what was sent, and where bytes are cut makes no difference.
fn frames(input: &[u8]) {
    let mut buffer = BytesMut::from(input);
    let mut whole = Vec::new();
    let end = loop {
        match frame::take(&mut buffer) {
            Ok(Taken::Whole(message)) => whole.push(message),
            other => break other,
        }
    };
    if let Ok(Taken::Needs(more)) = &end {
        assert!(*more > 0 && *more <= (16 << 20) + 5, "{more}");
    }
    for message in &whole {
        let body = message.body.clone();
        if let Ok(row) = frame::row(body.clone()) {
            let length: usize = row.iter().flatten().map(Bytes::len).sum();
            assert!(length + 4 * row.len() + 2 == body.len());
        }
        if let Ok(error) = frame::server_error(body.clone()) {
            assert!(!error.to_string().contains(char::is_control));
            assert!(error.code.chars().count() <= 5);
        }
        let _ = (frame::streamed(body.clone()), frame::piece(body));
    }
    let (mut buffer, mut pieces) = (BytesMut::new(), Vec::new());
    'cut: for piece in input.chunks(7) {
        buffer.put_slice(piece);
        loop {
            match frame::take(&mut buffer) {
                Ok(Taken::Whole(message)) => pieces.push(message),
                Ok(Taken::Needs(_)) => break,
                Err(_) => break 'cut,
            }
        }
    }
    assert_eq!(whole, pieces);
    let _ = (crate::der::signature_hash(input), crate::der::validity(input));
}

/// No secret is shown, whatever is done to an address, and what is shown is an address of the same servers.
fn address(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    match Address::parse(text) {
        Ok(address) => {
            let again = Address::parse(&address.to_string());
            let again = again.unwrap_or_else(|error| panic!("{address} is shown and is no address: {error}"));
            assert_eq!(again.user(), address.user());
            assert_eq!(again.database(), address.database());
            assert_eq!(again.hosts().len(), address.hosts().len());
            assert!(!address.hosts().is_empty());
            // Whatever the password is, what is shown is the same.
            assert_eq!(
                format!("{address:?}"),
                format!("{:?}", address.clone().with_password("another"))
            );
        }
        Err(error) => assert!(!error.to_string().contains("s3cr3t"), "{error}"),
    }
}

/// The way of a history has no gap and goes only forwards.
fn history(input: &[u8]) {
    if let Ok(history) = History::parse(input) {
        let way = history.way(Timeline(u32::MAX));
        assert_eq!(way.len(), history.switches().len() + 1);
        assert!(
            way.windows(2)
                .all(|two| two[0].until == Some(two[1].from) && two[0].from <= two[1].from)
        );
    }
}

/// What is read is written the same.
fn names(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Ok(segment) = Segment::parse(text, SegmentSize::DEFAULT) {
        assert_eq!(segment.file_name(SegmentSize::DEFAULT), text);
    }
    if let Ok(timeline) = Timeline::of_history_file(text) {
        assert_eq!(timeline.history_file(), text);
    }
    if let Ok(lsn) = text.parse::<Lsn>() {
        assert_eq!(lsn.to_string().parse(), Ok(lsn));
    }
    if let Ok(version) = text.parse::<ServerVersion>() {
        assert_eq!(version.to_string().parse(), Ok(version));
    }
    let _ = SegmentSize::of_setting(text);
}

#[cfg(test)]
mod slice {
    use std::path::Path;

    use fixtures::fuzzing::{same_names, seed, try_out};

    fn targets() -> Vec<fixtures::fuzzing::Target> {
        let target = |target: &super::Target| fixtures::fuzzing::Target {
            name: target.name,
            seeds: target.seeds,
            property: target.property,
            odd: &["s3cr3t", "%", ",", "=", "'", "\\", "[", "@"],
        };
        super::TARGETS.iter().map(target).collect()
    }

    #[test]
    fn every_reader_of_foreign_bytes_holds_under_mutation() {
        let seed = seed();
        for target in targets() {
            try_out(&target, 2000, seed);
        }
    }

    #[test]
    fn every_property_is_a_fuzz_target() {
        same_names(
            &targets(),
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets"),
        );
    }
}
