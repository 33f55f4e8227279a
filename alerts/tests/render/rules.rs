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

/// A change for the worse: of which alert the tests see it, in the rules about what, what is replaced by what.
type Mutant = (&'static str, &'static str, &'static str, &'static str);

const SERVICE: &str = "service-checkout";
const STORE: &str = "datastore-pg-main";

const MUTANTS: [Mutant; 25] = [
    // Bounds moved.
    ("AvailabilityBudgetBurn", SERVICE, "> 0.0072", "> 0.008"),
    ("AvailabilityBudgetBurn", SERVICE, "> 0.0072", "> 0.0065"),
    ("AvailabilityBudgetBurn", SERVICE, "> 0.003", "> 0.0035"),
    ("AvailabilityBudgetBurn", SERVICE, "> 0.0015", "> 0.002"),
    ("LatencyBudgetBurn", SERVICE, "> 0.144", "> 0.2"),
    ("HighErrorRate", SERVICE, "> 0.05", "> 0.06"),
    ("OutboxBacklog", SERVICE, "> 300", "> 3000"),
    ("HighDBConnectionUsage", SERVICE, "> 0.9", "> 1"),
    ("BackupTooOld", STORE, "> 129600", "> 1296000"),
    ("RestoreProofTooOld", STORE, "> 691200", "> 6912000"),
    // Evidence no longer asked for.
    ("HighErrorRate", SERVICE, ">= 5", ">= 0"),
    // A bucket's bound lost.
    ("LatencyBudgetBurn", SERVICE, ", le=~\"1(\\\\.0)?\"", ""),
    // Too much is an error, or too little.
    (
        "AvailabilityBudgetBurn",
        SERVICE,
        ", http_response_status_code=~\"5..\"",
        "",
    ),
    ("AvailabilityBudgetBurn", SERVICE, "=~\"5..\"", "=~\"[45]..\""),
    ("AvailabilityBudgetBurn", SERVICE, "|DeadlineExceeded", ""),
    ("AvailabilityBudgetBurn", SERVICE, "Unknown|", "NotFound|Unknown|"),
    // Streams counted as requests.
    ("LatencyBudgetBurn", SERVICE, ", grpc_type=\"unary\"", ""),
    // What every instance tells, summed.
    ("OutboxBacklog", SERVICE, "max(outbox_oldest", "sum(outbox_oldest"),
    ("DeadLetterBacklog", SERVICE, "max(dead_letters", "sum(dead_letters"),
    // Labels lost, or none in common.
    ("CircuitBreakerOpen", SERVICE, "max by (name)", "max"),
    (
        "HighDBConnectionUsage",
        SERVICE,
        "sum by (instance, pool)",
        "sum by (pool)",
    ),
    ("SagaStuck", SERVICE, "sum by (step)", "sum"),
    ("HighDBConnectionUsage", STORE, "on (instance, server)", "on (datname)"),
    // Silent where nothing is told, or where nothing has that value.
    ("HealthEndpointDown", SERVICE, "or vector(0)", ""),
    ("CircuitBreakerOpen", SERVICE, "open|forced_open", "opened"),
];

/// A third of them, which third is a matter of the seed; all with `OPSCTL_SOAK=1`.
#[test]
fn a_change_for_the_worse_fails_the_tests() {
    let Some(promtool) = Promtool::find("a_change_for_the_worse_fails_the_tests") else {
        return;
    };
    let rendered = render(&landscapes::cluster(), &Settings::default()).unwrap();
    let (all, seed) = (std::env::var_os("OPSCTL_SOAK").is_some(), fixtures::fuzzing::seed());
    for (number, (alert, about, right, wrong)) in (0..).zip(MUTANTS) {
        if !all && (seed % 3 + number) % 3 != 0 {
            continue;
        }
        let mut one = rendered.clone();
        one.rules.retain(|rules| rules.name == about);
        one.rules[0].cases.retain(|case| case.alert == alert);
        let mut mutant = one.prometheus();
        let rules = &mut mutant[0].text;
        assert!(rules.contains(right), "{about} does not say `{right}`");
        *rules = rules.replace(right, wrong);
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &mutant);
        let told = promtool.test(folder.path(), &mutant);
        assert!(told.is_err(), "{alert}: `{right}` -> `{wrong}` was not seen");
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
