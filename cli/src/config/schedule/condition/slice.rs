//! A seeded slice of fuzzing for conditions and statements: sound ones, cut and joined at random. SQLite is the judge: what
//! was taken reaches nothing beyond the brackets that it is put into.

use rusqlite::Connection;

use super::{check, check_statement, columns_of, filled, placeholders};

/// So many of each.
const EACH: usize = 4000;

const CONDITIONS: [&str; 8] = [
    "created_at < :cutoff",
    "state = 2 AND (a OR b = 'x')",
    "state IN ('open', 'it''s; -- true') AND \"the note\" < :cutoff",
    "coalesce(a, 0) = 0 OR a IS NULL",
    "a BETWEEN 1 AND 5 AND b",
    "id NOT IN (SELECT a FROM t WHERE b = 1)",
    "`b` = 1 OR [a] = 2",
    "b || '(' = ')' AND a > 1.5e3",
];

const STATEMENTS: [&str; 2] = [
    "DELETE FROM t WHERE id IN (SELECT id FROM t WHERE a AND b < :cutoff LIMIT :batch)",
    "UPDATE t SET a = 1 WHERE id IN (SELECT id FROM t WHERE state = 2 LIMIT :batch)",
];

/// What opens, closes, ends or joins something.
const ODD: [&str; 36] = [
    "(",
    ")",
    "'",
    "''",
    "\"",
    "\"\"",
    "`",
    "[",
    "]",
    ";",
    "--",
    "/*",
    "*/",
    " OR ",
    " AND ",
    " NOT ",
    "1",
    "true",
    "=",
    "a",
    "1=1",
    "\\",
    "\0",
    "\n",
    "\u{a0}",
    "é",
    "E'",
    "x'41'",
    "$1",
    "?",
    ":",
    "::",
    ":cutoff",
    " UNION SELECT 1",
    ") OR (",
    ") --",
];

/// Splitmix64.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % end.max(1) as u64).unwrap_or_default()
    }

    /// A place between two characters.
    fn place(&mut self, text: &str) -> usize {
        let mut at = self.below(text.len() + 1);
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    }

    fn mutated(&mut self, of: &[&str]) -> String {
        let mut text = of[self.below(of.len())].to_owned();
        for _ in 0..=self.below(4) {
            let (one, other) = (self.place(&text), self.place(&text));
            let (from, to) = (one.min(other), one.max(other));
            match self.below(5) {
                0 => text.truncate(from),
                1 => drop(text.drain(from..text.floor_char_boundary(from + 6).min(to))),
                2 => {
                    let other = of[self.below(of.len())];
                    let rest = self.place(other);
                    text.truncate(from);
                    text.push_str(&other[rest..]);
                }
                _ => text.insert_str(from, ODD[self.below(ODD.len())]),
            }
        }
        text
    }
}

fn chance() -> Chance {
    let told = std::env::var("OPSCTL_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = told.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
    println!("OPSCTL_SEED={seed}");
    Chance(seed)
}

fn table() -> Connection {
    let database = Connection::open_in_memory().expect("memory");
    database
        .execute_batch(
            "CREATE TABLE t (id INTEGER, a, b, state, created_at, \"the note\"); CREATE TABLE kept (id INTEGER);\n\
             INSERT INTO t VALUES (1, 1, 1, 1, 1, 1), (2, 0, 'x', 2, 5, NULL), (3, NULL, NULL, NULL, NULL, ''); INSERT INTO kept VALUES (1);",
        )
        .expect("tables");
    database
}

fn rows(database: &Connection) -> i64 {
    let count = database.query_row(
        "SELECT (SELECT count(*) FROM t) * 10 + (SELECT count(*) FROM kept)",
        [],
        |row| row.get(0),
    );
    count.expect("a count")
}

#[test]
fn what_is_taken_stays_between_its_brackets() {
    let (mut chance, database, mut taken) = (chance(), table(), 0);
    let whole = rows(&database);
    for _ in 0..EACH {
        let condition = chance.mutated(&CONDITIONS);
        if check(&condition).is_err() {
            continue;
        }
        assert!(!columns_of(&condition).is_empty(), "{condition:?}");
        assert_eq!(filled(&condition, &[]), condition);
        let full = filled(&condition, &[("cutoff", "3".to_owned())]);
        assert!(!placeholders(&full).contains(&"cutoff".to_owned()), "{full:?}");
        // As jobs put it, with an end that nothing passes.
        taken += usize::from(
            database
                .execute(&format!("DELETE FROM t WHERE ({full}) AND 0"), [])
                .is_ok(),
        );
        assert_eq!(rows(&database), whole, "it broke out: {condition:?}");
    }
    assert!(taken > 20, "{taken} were SQL at all");
}

#[test]
fn statements_that_are_taken_are_one_and_have_a_condition() {
    let mut chance = chance();
    for _ in 0..EACH {
        let statement = chance.mutated(&STATEMENTS);
        if check_statement(&statement).is_err() {
            continue;
        }
        assert!(placeholders(&statement).contains(&"batch".to_owned()), "{statement:?}");
        let full = filled(&statement, &[("batch", "0".to_owned()), ("cutoff", "3".to_owned())]);
        let database = table();
        // No batch, no row: whatever else goes was not held by the condition.
        if database.execute(&full, []).is_ok() && full.contains("LIMIT 0)") && full.starts_with("DELETE") {
            assert!(rows(&database) % 10 == 1, "another table: {statement:?}");
        }
    }
}
