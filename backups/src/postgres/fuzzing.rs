//! What holds for the readers of addresses, dumps and scripts.

use super::script;
use super::{Contents, Dsn, Selection};
use crate::fuzzing::Target;

pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "dump_contents",
        seeds: || vec![dump(0x10e), dump(0x10f), dump(0x110)],
        property: contents,
    },
    Target {
        name: "globals",
        seeds: || {
            let seeds = [
                "-- roles\n\\restrict x\nCREATE ROLE a;\nALTER ROLE a WITH LOGIN PASSWORD 'x''y';\nGRANT a TO \"b\"\"c\";\n\\unrestrict x\n",
                "ALTER DATABASE shop SET x TO E'a\\'b';\nALTER ROLE a IN DATABASE shop SET y TO '1';",
                "CREATE DATABASE shop WITH TEMPLATE = template0 ENCODING = 'UTF8' TABLESPACE = fast;",
            ];
            seeds.map(|seed| seed.as_bytes().to_vec()).to_vec()
        },
        property: globals,
    },
    Target {
        name: "dsn",
        seeds: || {
            let seeds = [
                "postgres://shop:p%40ss@db:5433,[::1]:5432/orders?sslmode=verify-full",
                "host = db user=shop password='it\\'s' dbname=orders",
            ];
            seeds.map(|seed| seed.as_bytes().to_vec()).to_vec()
        },
        property: dsn,
    },
];

/// The table of contents of a small dump.
fn dump(version: u32) -> Vec<u8> {
    let mut bytes = b"PGDMP".to_vec();
    bytes.extend([1, version.to_le_bytes()[0], 0, 4, 8, 1]);
    let number = |bytes: &mut Vec<u8>, number: u32| {
        bytes.push(0);
        bytes.extend(number.to_le_bytes());
    };
    let text = |bytes: &mut Vec<u8>, text: &str| {
        bytes.push(0);
        bytes.extend(u32::try_from(text.len()).unwrap_or_default().to_le_bytes());
        bytes.extend(text.as_bytes());
    };
    let nothing = |bytes: &mut Vec<u8>| bytes.extend([1, 1, 0, 0, 0]);
    match version {
        0x10e => number(&mut bytes, 0),
        _ => bytes.push(0),
    }
    for part in [0, 0, 12, 1, 2, 126, 0] {
        number(&mut bytes, part);
    }
    for word in ["shop", "15.6", "15.6"] {
        text(&mut bytes, word);
    }
    number(&mut bytes, 2);
    for (id, kind, after) in [(1, "TABLE", None), (2, "TABLE DATA", Some("1"))] {
        number(&mut bytes, id);
        number(&mut bytes, 1);
        for word in ["1259", "16384", "items", kind] {
            text(&mut bytes, word);
        }
        number(&mut bytes, 2);
        for word in ["CREATE TABLE items ();", "DROP TABLE items;"] {
            text(&mut bytes, word);
        }
        nothing(&mut bytes);
        for word in ["sales", "", "heap"] {
            text(&mut bytes, word);
        }
        if version == 0x110 {
            number(&mut bytes, 114);
        }
        for word in ["app", "false"] {
            text(&mut bytes, word);
        }
        if let Some(after) = after {
            text(&mut bytes, after);
        }
        nothing(&mut bytes);
        bytes.extend([3, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
    bytes
}

/// Nothing is chosen that is not there, and a seed is read whole.
fn contents(input: &[u8]) {
    let Ok(contents) = Contents::read(input) else {
        return;
    };
    let selection = Selection {
        tables: contents.entries.iter().take(3).map(|entry| entry.tag.clone()).collect(),
        schemas: contents
            .entries
            .iter()
            .take(3)
            .filter_map(|entry| entry.schema.clone())
            .collect(),
    };
    if let Ok(selected) = selection.of(&contents) {
        for id in selected.ids {
            assert!(contents.entries.iter().any(|entry| entry.id == id), "{id} is no entry");
        }
    }
}

/// No statement that is taken can be a command to `psql`, and each is one when it is read again.
fn globals(input: &[u8]) {
    let script = String::from_utf8_lossy(input);
    let Ok((taken, _)) = script::roles(&script, &std::collections::BTreeSet::new()) else {
        return;
    };
    let settings = script::settings(&script, "new \"name\"").unwrap_or_default();
    let _ = script::creation(&script);
    for statement in taken.into_iter().chain(settings) {
        let again = script::statements(&format!("{statement};")).expect("what was taken is a statement");
        assert_eq!(again.len(), 1, "{statement:?}");
        assert_eq!(again[0].text, statement);
    }
}

/// Nothing that is shown of an address holds its password, and what is written is read as the same.
fn dsn(input: &[u8]) {
    let Ok(dsn) = Dsn::parse(&String::from_utf8_lossy(input)) else {
        return;
    };
    let written = dsn.settings();
    if !written.is_empty() {
        let again = Dsn::parse(&written).expect("what was written is an address");
        assert_eq!(again.settings(), written);
        assert!(!again.has_password());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_contents_is_read_in_every_version() {
        for version in [0x10e, 0x10f, 0x110] {
            let contents = Contents::read(&dump(version)[..]).expect("a dump");
            assert_eq!((contents.database.as_str(), contents.dump_major()), ("shop", 15));
            let entries: Vec<_> = contents
                .entries
                .iter()
                .map(|entry| (entry.id, &*entry.kind, &entry.depends_on[..]))
                .collect();
            assert_eq!(entries, [(1, "TABLE", &[][..]), (2, "TABLE DATA", &[1][..])]);
            assert_eq!(contents.entries[0].owner.as_deref(), Some("app"));
            for length in 0..dump(version).len() {
                assert!(Contents::read(&dump(version)[..length]).is_err(), "cut at {length}");
            }
        }
        let mut other = dump(0x110);
        other[6] = 0x11;
        let error = Contents::read(&other[..]).expect_err("of the future");
        assert_eq!(
            error.to_string(),
            "its format has the version 1.17, and 1.12 to 1.16 are known"
        );
    }
}
