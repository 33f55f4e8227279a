//! A part of a dump: some schemas, some tables, with whatever belongs to them and whatever they need. `pg_restore -t`
//! leaves out indexes and constraints, and `-n` the schema itself; this does not.

use std::collections::{BTreeMap, BTreeSet};

use super::{Contents, Entry};

/// Which part of a dump is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Schemas, whole.
    pub schemas: Vec<String>,
    /// Tables, views, sequences: `schema.name`, or a name that is looked for in every schema.
    pub tables: Vec<String>,
}

/// What was chosen of a dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// The numbers of its entries, in the order of the dump.
    pub ids: Vec<u32>,
    /// Foreign keys that lead out of what was chosen, and are therefore left out.
    pub without: Vec<String>,
}

/// What was chosen and is not in the dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unselected(pub Vec<String>);

/// What can be chosen by its name.
const RELATIONS: [&str; 5] = ["TABLE", "FOREIGN TABLE", "VIEW", "MATERIALIZED VIEW", "SEQUENCE"];

/// What comes with the object that it depends on.
const BELONGING: [&str; 19] = [
    "TABLE DATA",
    "MATERIALIZED VIEW DATA",
    "INDEX",
    "CONSTRAINT",
    "CHECK CONSTRAINT",
    "DEFAULT",
    "TRIGGER",
    "RULE",
    "POLICY",
    "ROW SECURITY",
    "STATISTICS",
    "EXTENDED STATISTICS",
    "STATISTICS DATA",
    "SEQUENCE SET",
    "SEQUENCE OWNED BY",
    "COMMENT",
    "ACL",
    "DEFAULT ACL",
    "SECURITY LABEL",
];

/// What is said of an object that is needed, though it was not chosen.
const SAID: [&str; 4] = ["COMMENT", "ACL", "SECURITY LABEL", "SEQUENCE OWNED BY"];

/// What no part has: it is of the database as a whole.
const OF_DATABASE: [&str; 4] = ["DATABASE", "DATABASE PROPERTIES", "BLOBS", "BLOB"];

impl Selection {
    /// The whole of it.
    pub fn is_all(&self) -> bool {
        self.schemas.is_empty() && self.tables.is_empty()
    }

    /// The entries that are wanted: what was chosen, what belongs to it (data, indexes, constraints, triggers, rights,
    /// partitions), and what must be there for it (its schema, types, functions, tables behind a view, without their
    /// data).
    ///
    /// Errors: what is not in the dump.
    pub fn of(&self, contents: &Contents) -> Result<Selected, Unselected> {
        let entries: BTreeMap<u32, &Entry> = contents.entries.iter().map(|entry| (entry.id, entry)).collect();
        let mut chosen = self.chosen(contents)?;
        // A partition goes with what it is a part of.
        loop {
            let before = chosen.len();
            for entry in contents.entries.iter().filter(|entry| entry.kind == "TABLE ATTACH") {
                if entry.depends_on.iter().any(|id| chosen.contains(id)) && is_attached_to(entry, &entries, &chosen) {
                    chosen.extend(entry.depends_on.iter().copied());
                }
            }
            if chosen.len() == before {
                break;
            }
        }
        let mut wanted = chosen.clone();
        let belongs = |entry: &Entry, to: &BTreeSet<u32>| entry.depends_on.iter().any(|id| to.contains(id));
        // Twice, since a comment may be about an index, and an index' part is attached to another's.
        for _ in 0..2 {
            for entry in &contents.entries {
                let is_identity = entry.kind == "SEQUENCE";
                if (BELONGING.contains(&entry.kind.as_str()) || is_identity) && belongs(entry, &wanted) {
                    wanted.insert(entry.id);
                }
            }
        }
        needed(&mut wanted, &entries);
        for entry in &contents.entries {
            let all_there = || entry.depends_on.iter().all(|id| wanted.contains(id));
            let is_said = SAID.contains(&entry.kind.as_str()) && belongs(entry, &wanted) && all_there();
            let is_joint = matches!(entry.kind.as_str(), "TABLE ATTACH" | "INDEX ATTACH" | "FK CONSTRAINT")
                && belongs(entry, &chosen)
                && all_there();
            let is_counter = entry.kind == "SEQUENCE SET" && belongs(entry, &wanted);
            if is_said || is_joint || is_counter {
                wanted.insert(entry.id);
            }
        }
        let without = contents.entries.iter().filter(|entry| {
            entry.kind == "FK CONSTRAINT"
                && !wanted.contains(&entry.id)
                && entry.depends_on.iter().any(|id| {
                    chosen.contains(id)
                        && entries
                            .get(id)
                            .is_some_and(|of| entry.tag.starts_with(&format!("{} ", of.tag)))
                })
        });
        Ok(Selected {
            without: without.map(|entry| entry.tag.clone()).collect(),
            ids: contents
                .entries
                .iter()
                .map(|entry| entry.id)
                .filter(|id| wanted.contains(id))
                .collect(),
        })
    }

    /// The entries that were named, and those of schemas.
    fn chosen(&self, contents: &Contents) -> Result<BTreeSet<u32>, Unselected> {
        let mut chosen = BTreeSet::new();
        let mut missing = Vec::new();
        for schema in &self.schemas {
            let of: Vec<u32> = contents
                .entries
                .iter()
                .filter(|entry| !OF_DATABASE.contains(&entry.kind.as_str()))
                // A key may lead out of the schema: it is looked at with the others.
                .filter(|entry| entry.kind != "FK CONSTRAINT" && entry.kind != "TABLE ATTACH")
                .filter(|entry| {
                    entry.schema.as_ref() == Some(schema)
                        || (entry.kind == "SCHEMA" && entry.tag == *schema)
                        || (entry.schema.is_none() && entry.tag == format!("SCHEMA {schema}"))
                })
                .map(|entry| entry.id)
                .collect();
            if of.is_empty() {
                missing.push(format!("schema {schema:?}"));
            }
            chosen.extend(of);
        }
        for table in &self.tables {
            let of: Vec<u32> = contents
                .entries
                .iter()
                .filter(|entry| RELATIONS.contains(&entry.kind.as_str()))
                .filter(|entry| {
                    let schema = entry.schema.as_deref().unwrap_or_default();
                    entry.tag == *table || format!("{schema}.{}", entry.tag) == *table
                })
                .map(|entry| entry.id)
                .collect();
            if of.is_empty() {
                missing.push(format!("table {table:?}"));
            }
            chosen.extend(of);
        }
        if missing.is_empty() {
            Ok(chosen)
        } else {
            Err(Unselected(missing))
        }
    }
}

/// Whether the table that another one is attached to was chosen: the tag is that of the part.
fn is_attached_to(entry: &Entry, entries: &BTreeMap<u32, &Entry>, chosen: &BTreeSet<u32>) -> bool {
    let whole = entry
        .depends_on
        .iter()
        .filter(|id| entries.get(id).is_some_and(|of| of.tag != entry.tag));
    whole.into_iter().any(|id| chosen.contains(id))
}

/// Adds whatever must be there before, but no data.
fn needed(wanted: &mut BTreeSet<u32>, entries: &BTreeMap<u32, &Entry>) {
    let mut open: Vec<u32> = wanted.iter().copied().collect();
    while let Some(id) = open.pop() {
        for before in entries.get(&id).map_or(&[][..], |entry| &entry.depends_on) {
            let is_data = entries
                .get(before)
                .is_none_or(|entry| entry.kind.ends_with(" DATA") || entry.kind.starts_with("BLOB"));
            if !is_data && wanted.insert(*before) {
                open.push(*before);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: u32, kind: &str, schema: &str, tag: &str, depends_on: &[u32]) -> Entry {
        Entry {
            id,
            kind: kind.to_owned(),
            tag: tag.to_owned(),
            schema: (!schema.is_empty()).then(|| schema.to_owned()),
            depends_on: depends_on.to_vec(),
            ..Entry::default()
        }
    }

    /// Two schemas; orders in one of them refer to each other's tables.
    fn contents() -> Contents {
        Contents {
            database: "shop".to_owned(),
            server_version: "15.6".to_owned(),
            dump_version: "15.6".to_owned(),
            entries: vec![
                entry(1, "DATABASE", "", "shop", &[]),
                entry(2, "SCHEMA", "", "sales", &[]),
                entry(3, "TYPE", "sales", "state", &[2]),
                entry(4, "TABLE", "sales", "orders", &[2, 3]),
                entry(5, "TABLE", "public", "people", &[]),
                entry(6, "TABLE", "sales", "items", &[2]),
                entry(7, "TABLE DATA", "sales", "orders", &[4]),
                entry(8, "TABLE DATA", "public", "people", &[5]),
                entry(9, "TABLE DATA", "sales", "items", &[6]),
                entry(10, "CONSTRAINT", "sales", "orders orders_pkey", &[4]),
                entry(11, "CONSTRAINT", "public", "people people_pkey", &[5]),
                entry(12, "FK CONSTRAINT", "sales", "orders orders_person_fkey", &[4, 5, 11]),
                entry(13, "FK CONSTRAINT", "sales", "items items_order_fkey", &[6, 4, 10]),
                entry(14, "SEQUENCE", "sales", "orders_id_seq", &[2]),
                entry(15, "DEFAULT", "sales", "orders id", &[4, 14]),
                entry(16, "SEQUENCE SET", "sales", "orders_id_seq", &[14]),
                entry(17, "SEQUENCE OWNED BY", "sales", "orders_id_seq", &[14, 4]),
                entry(18, "ACL", "sales", "TABLE orders", &[4]),
                entry(19, "COMMENT", "", "SCHEMA sales", &[2]),
                entry(20, "VIEW", "public", "late", &[4]),
                entry(21, "INDEX", "sales", "orders_when_idx", &[4]),
            ],
        }
    }

    fn of(schemas: &[&str], tables: &[&str]) -> Result<(Vec<u32>, Vec<String>), Vec<String>> {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let selection = Selection {
            schemas: owned(schemas),
            tables: owned(tables),
        };
        let selected = selection.of(&contents()).map_err(|Unselected(missing)| missing)?;
        Ok((selected.ids, selected.without))
    }

    #[test]
    fn a_table_comes_with_what_belongs_to_it_and_what_it_needs() {
        let (ids, without) = of(&[], &["orders"]).expect("there");
        assert_eq!(ids, [2, 3, 4, 7, 10, 14, 15, 16, 17, 18, 19, 21]);
        assert_eq!(without, ["orders orders_person_fkey"]);
    }

    #[test]
    fn tables_that_refer_to_each_other_keep_their_keys() {
        let (ids, without) = of(&[], &["sales.items", "sales.orders", "public.people"]).expect("there");
        assert!(ids.contains(&12) && ids.contains(&13), "{ids:?}");
        assert!(without.is_empty());
    }

    #[test]
    fn a_view_comes_with_its_tables_and_without_their_data() {
        let (ids, _) = of(&[], &["late"]).expect("there");
        assert!(ids.contains(&20) && ids.contains(&4) && !ids.contains(&7), "{ids:?}");
    }

    #[test]
    fn a_schema_is_whole_and_alone() {
        let (ids, without) = of(&["sales"], &[]).expect("there");
        assert_eq!(ids, [2, 3, 4, 6, 7, 9, 10, 13, 14, 15, 16, 17, 18, 19, 21]);
        assert_eq!(without, ["orders orders_person_fkey"]);
    }

    #[test]
    fn what_is_not_there_is_named() {
        assert_eq!(
            of(&["nowhere"], &["orders", "public.orders"]),
            Err(vec![
                "schema \"nowhere\"".to_owned(),
                "table \"public.orders\"".to_owned()
            ])
        );
    }
}
