//! Rules are taken by promtool, and their tests are passed; a rule that is changed for the worse fails them.

use std::cell::Cell;

use alerts::render::{File, Settings, render};
use manifest::landscape::{Instrumentation, Landscape, Latency, Ratio, Sli};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::judges::{Promtool, write};
use crate::landscapes;

fn files(landscape: &Landscape) -> Vec<File> {
    render(landscape, &Settings::default()).unwrap().prometheus()
}

fn passes(landscape: &Landscape, test: &str) {
    let Some(promtool) = Promtool::find(test) else { return };
    let (folder, files) = (tempfile::tempdir().unwrap(), files(landscape));
    write(folder.path(), &files);
    promtool.check(folder.path(), &files).unwrap();
    promtool.test(folder.path(), &files).unwrap();
}

#[test]
fn the_rules_of_the_reference_services_pass_their_tests() {
    passes(
        &landscapes::reference(),
        "the_rules_of_the_reference_services_pass_their_tests",
    );
}

#[test]
fn the_rules_of_a_shop_on_kubernetes_pass_their_tests() {
    passes(
        &landscapes::cluster(),
        "the_rules_of_a_shop_on_kubernetes_pass_their_tests",
    );
}

/// A change for the worse: in the file of which subject, what is replaced by what.
type Mutant = (&'static str, &'static str, &'static str);

const MUTANTS: [Mutant; 26] = [
    // Bounds moved.
    ("service-checkout", "> 0.0072", "> 0.008"),
    ("service-checkout", "> 0.0072", "> 0.0065"),
    ("service-checkout", "> 0.003", "> 0.0035"),
    ("service-checkout", "> 0.0015", "> 0.002"),
    ("service-checkout", "> 0.144", "> 0.2"),
    ("service-checkout", "> 0.05", "> 0.06"),
    ("service-checkout", "> 300", "> 3000"),
    ("service-checkout", "> 0.9", "> 1"),
    ("datastore-pg-main", "> 129600", "> 1296000"),
    ("datastore-pg-main", "> 691200", "> 6912000"),
    // Evidence no longer asked for.
    ("service-checkout", ">= 5", ">= 0"),
    // A bucket's bound lost, or another one.
    ("service-checkout", ", le=~\"1(\\\\.0)?\"", ""),
    // Everything an error, nothing an error.
    ("service-checkout", ", http_response_status_code=~\"5..\"", ""),
    ("service-checkout", "=~\"5..\"", "=~\"[45]..\""),
    ("service-checkout", "|DeadlineExceeded", ""),
    ("service-checkout", "Unknown|", "NotFound|Unknown|"),
    // Streams counted as requests.
    ("service-checkout", ", grpc_type=\"unary\"", ""),
    // What instances share summed.
    ("service-checkout", "max(outbox_oldest", "sum(outbox_oldest"),
    ("service-checkout", "max(dead_letters", "sum(dead_letters"),
    ("service-checkout", "max(min_over_time", "sum(min_over_time"),
    // Labels lost or kept.
    ("service-checkout", "max by (name) (", "max("),
    ("service-checkout", "sum by (instance, pool) (avg", "sum by (pool) (avg"),
    ("service-checkout", "sum by (step) (", "sum("),
    ("datastore-pg-main", "on (instance, server)", "on (datname)"),
    // Silence where nothing is told.
    ("service-checkout", "\n              or vector(0)", ""),
    ("service-checkout", "state=~\"open|forced_open\"", "state=\"opened\""),
];

#[test]
fn a_change_for_the_worse_fails_the_tests() {
    let Some(promtool) = Promtool::find("a_change_for_the_worse_fails_the_tests") else {
        return;
    };
    let mut landscape = landscapes::cluster();
    landscape.services.truncate(1);
    let files = files(&landscape);
    for (file, right, wrong) in MUTANTS {
        let folder = tempfile::tempdir().unwrap();
        let path = format!("{file}.yaml");
        let mut mutant = files.clone();
        let changed = mutant.iter_mut().find(|file| file.path == path).unwrap();
        assert!(changed.text.contains(right), "{file} does not say `{right}`");
        changed.text = changed.text.replace(right, wrong);
        mutant.retain(|other| other.path == path || other.path.starts_with(&format!("tests/{file}.")));
        write(folder.path(), &mutant);
        assert!(
            promtool.test(folder.path(), &mutant).is_err(),
            "{file}: `{right}` -> `{wrong}` was not seen"
        );
    }
}

fn landscape() -> impl Strategy<Value = Landscape> {
    let objective = prop_oneof![
        (800_000_000_u64..=1_000_000_000).prop_map(|parts| parts as f64 / 1e9),
        prop::sample::select(vec![0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999_999_999, 1.0, 0.5, 0.0]),
    ];
    let bound = prop_oneof![
        prop::sample::select(catalogue::DURATION_BUCKETS.to_vec()),
        (1_u64..20_000).prop_map(|milliseconds| milliseconds as f64 / 1000.0),
    ];
    let sli = prop_oneof![
        Just(Sli::Opsctl),
        Just(Sli::OtelHttp),
        "[a-z_]{1,9}(\\{[a-z]{1,5}=\"[ -~&&[^\"\\\\]]{0,9}\"\\})?".prop_map(|total| Sli::Custom {
            errors: total.clone(),
            slow: Some(total.clone()),
            total,
        }),
    ];
    let all = vec![
        Instrumentation::CircuitBreaker,
        Instrumentation::DatabasePool,
        Instrumentation::DeadLetters,
        Instrumentation::Health,
        Instrumentation::Outbox,
        Instrumentation::Retry,
        Instrumentation::Saga,
    ];
    let exports = prop::sample::subsequence(all, 0..=7);
    let name = "[A-Za-z0-9][a-zA-Z0-9._-]{0,20}";
    let service = (
        name,
        sli,
        prop::option::of(objective.clone()),
        objective,
        bound,
        exports,
    );
    (name, prop::collection::vec(service, 0..3), any::<bool>(), 1_u64..400).prop_map(
        |(environment, services, local, interval)| {
            let mut landscape = if local {
                landscapes::reference()
            } else {
                landscapes::cluster()
            };
            landscape.environment = environment;
            landscape.evaluation_interval = std::time::Duration::from_secs(interval);
            landscape.services = services
                .into_iter()
                .map(
                    |(name, sli, availability, quantile, bound, exports)| manifest::landscape::Service {
                        availability: availability.and_then(Ratio::new),
                        latency: Some(Latency {
                            quantile: Ratio::new(quantile).unwrap(),
                            bound: std::time::Duration::from_secs_f64(bound),
                        }),
                        exports: exports.into_iter().collect(),
                        ..landscapes::service(&name, sli)
                    },
                )
                .collect();
            landscape
        },
    )
}

#[test]
fn rules_of_any_landscape_are_taken_or_refused_with_a_reason() {
    let Some(promtool) = Promtool::find("rules_of_any_landscape_are_taken_or_refused_with_a_reason") else {
        return;
    };
    let (taken, refused) = (Cell::new(0), Cell::new(0));
    let mut runner = TestRunner::new(Config {
        cases: 60,
        failure_persistence: None,
        ..Config::default()
    });
    let outcome = runner.run(&landscape(), |landscape| {
        match render(&landscape, &Settings::default()) {
            Err(error) => {
                refused.set(refused.get() + 1);
                prop_assert!(!error.to_string().is_empty());
            }
            Ok(rendered) => {
                taken.set(taken.get() + 1);
                let (folder, files) = (tempfile::tempdir().unwrap(), rendered.prometheus());
                write(folder.path(), &files);
                if let Err(told) = promtool.check(folder.path(), &files) {
                    prop_assert!(false, "{told}");
                }
            }
        }
        Ok(())
    });
    outcome.unwrap();
    let (taken, refused) = (taken.get(), refused.get());
    assert!(taken > 5 && refused > 5, "{taken} taken, {refused} refused");
}
