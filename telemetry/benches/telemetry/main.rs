//! What logs, spans, request metrics, a scrape and a probe cost, beside what others ask for the same, in one run. Not a
//! test: it judges nothing and prints one JSON document, which `cargo xtask bench telemetry` turns into a page.
//!
//! `cargo bench -p telemetry --bench telemetry [-- WORD]`, with a word of what is to be measured alone.

#![expect(clippy::print_stdout, reason = "its output is its purpose")]

mod flood;
mod lines;
mod loki;
mod probe;
mod requests;
mod scrape;
mod spans;

use serde_json::json;

fn main() {
    telemetry::init_tls();
    // Cargo hands `--bench` over.
    let word = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let wanted = |what: &str| word.as_ref().is_none_or(|word| what.contains(word.as_str()));
    let mut candidates = lines::candidates();
    candidates.extend(spans::candidates());
    candidates.extend(requests::candidates());
    candidates.extend(scrape::candidates());
    candidates.retain(|candidate| wanted(&candidate.name()));
    let calls = measure::measure(&candidates);
    let flood = wanted("flood").then(flood::measure);
    let probe = wanted("probe").then(probe::measure);
    let loki = wanted("loki").then(loki::measure);
    println!(
        "{}",
        json!({ "calls": calls, "flood": flood, "probe": probe, "loki": loki })
    );
}
