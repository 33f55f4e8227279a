//! docs/guides/resilience.md lists every key that settings have, no others, and with the defaults that are in force.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as _;

use resilience::{
    AdaptiveSettings, BreakerSettings, BulkheadSettings, ConsumerSettings, HedgeSettings, KeyedRateLimitSettings,
    PipelineSettings, RateLimitSettings, RetrySettings, ShedSettings, StaleSettings, ThrottleSettings,
};

/// Keys of a policy that are tables.
const TABLES: &[&str] = &[
    "",
    "timeout",
    "retry",
    "retry.budget",
    "retry.budget.tokens",
    "breaker",
    "breaker.slow",
    "breaker.half_open",
    "bulkhead",
    "rate_limit",
    "concurrency_limit",
    "throttle",
    "hedge",
];

/// Rows of the guide's tables of keys: key and default.
fn rows() -> BTreeMap<String, String> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/guides/resilience.md");
    let page = std::fs::read_to_string(page).unwrap();
    let mut rows = BTreeMap::new();
    let tables = page.split("| key | default | meaning |\n|---|---|---|\n").skip(1);
    for line in tables.flat_map(|table| table.lines().take_while(|line| line.starts_with('|'))) {
        let mut cells = line.split('|').skip(1).map(|cell| cell.trim().trim_matches('`'));
        let (key, default) = (cells.next().unwrap(), cells.next().unwrap());
        let before = rows.insert(key.to_owned(), default.to_owned());
        assert!(before.is_none(), "{key} is there twice");
    }
    rows
}

/// The keys that a table may have, as its parser names them when it meets another one.
fn keys(table: &str, error: &str) -> Vec<String> {
    let (_, expected) = error
        .split_once("unknown field `nonsense`, expected")
        .unwrap_or_else(|| panic!("[{table}]: {error}"));
    let expected = expected.lines().next().unwrap();
    let names = expected.split('`').skip(1).step_by(2);
    names
        .map(|key| {
            if table.is_empty() {
                key.to_owned()
            } else {
                format!("{table}.{key}")
            }
        })
        .collect()
}

fn in_policy(table: &str) -> Vec<String> {
    let path = if table.is_empty() {
        String::new()
    } else {
        format!(".{table}")
    };
    let text = format!("[policy.p{path}]\nnonsense = 1\n");
    let error = PipelineSettings::from_toml(&text, "p").unwrap_err();
    keys(table, &error.source().unwrap().to_string())
}

fn alone<S: serde::de::DeserializeOwned>(table: &str) -> Vec<String> {
    match toml::from_str::<S>("nonsense = 1\n") {
        Ok(_) => panic!("{table} takes everything"),
        Err(error) => keys(table, &error.to_string()),
    }
}

#[test]
fn every_key_is_in_the_guide_and_no_other() {
    let mut known: BTreeSet<String> = TABLES.iter().flat_map(|table| in_policy(table)).collect();
    known.extend(alone::<KeyedRateLimitSettings>("keyed"));
    known.extend(alone::<ShedSettings>("shed"));
    known.extend(alone::<resilience::Shares>("shed.shares"));
    known.extend(alone::<StaleSettings>("stale"));
    known.extend(alone::<ConsumerSettings>("consumer"));
    // A table stands there by its keys.
    let tables: Vec<String> = known
        .iter()
        .filter(|key| {
            known
                .range(format!("{key}.")..)
                .next()
                .is_some_and(|next| next.starts_with(&format!("{key}.")))
        })
        .cloned()
        .collect();
    for table in tables {
        known.remove(&table);
    }
    let told: BTreeSet<String> = rows().into_keys().collect();
    assert_eq!(told, known);
}

/// What the guide says of a table's defaults, as TOML.
fn told(table: &str) -> String {
    let prefix = format!("{table}.");
    let rows = rows().into_iter().filter(|(_, default)| !default.is_empty());
    rows.filter_map(|(key, default)| Some(format!("{} = {default}\n", key.strip_prefix(&prefix)?)))
        .collect()
}

fn holds<S: serde::de::DeserializeOwned + Default + PartialEq + std::fmt::Debug>(table: &str) {
    let told = told(table);
    assert!(!told.is_empty(), "{table} has no defaults in the guide");
    assert_eq!(toml::from_str::<S>(&told).unwrap(), S::default(), "{table}");
}

#[test]
fn defaults_are_what_the_guide_says() {
    holds::<RetrySettings>("retry");
    holds::<BreakerSettings>("breaker");
    holds::<BulkheadSettings>("bulkhead");
    holds::<RateLimitSettings>("rate_limit");
    holds::<KeyedRateLimitSettings>("keyed");
    holds::<AdaptiveSettings>("concurrency_limit");
    holds::<ThrottleSettings>("throttle");
    holds::<HedgeSettings>("hedge");
    holds::<ShedSettings>("shed");
    holds::<StaleSettings>("stale");
    holds::<ConsumerSettings>("consumer");
}

/// Every `toml` block is a policy that can be built.
#[test]
fn the_guides_policies_can_be_built() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/guides/resilience.md");
    let page = std::fs::read_to_string(page).unwrap();
    let mut blocks = 0;
    for block in page.split("```toml\n").skip(1) {
        let text = block.split("```").next().unwrap();
        let name = text.split("[policy.").nth(1).unwrap().split(']').next().unwrap();
        resilience::Pipeline::from_toml(text, name).unwrap();
        blocks += 1;
    }
    assert!(blocks > 0, "the guide shows a policy");
}
