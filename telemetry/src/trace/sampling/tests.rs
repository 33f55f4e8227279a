//! Shares, parents, load and time, without any span.

use proptest::prelude::*;

use super::*;
use crate::builder::env::Env;

fn sampled(sampling: &Sampling, traces: u64) -> f64 {
    (0..traces).filter(|_| sampling.root(ids::trace_id())).count() as f64
}

fn fixed(ratio: f64) -> Sampling {
    Sampling::new(Sampler::default().with_ratio(ratio))
}

fn parent(sampled: bool, remote: bool) -> Parent {
    Parent {
        trace_id: ids::trace_id(),
        span_id: ids::span_id(),
        sampled,
        remote,
    }
}

#[test]
fn the_share_is_met() {
    assert!(sampled(&fixed(0.0), 1000) < 1.0);
    assert!(sampled(&fixed(1.0), 1000) > 999.0);
    let (traces, ratio) = (100_000_f64, 0.1);
    let deviation = (traces * ratio * (1.0 - ratio)).sqrt();
    let found = sampled(&fixed(ratio), traces as u64);
    // Six deviations: once in a billion runs.
    assert!((found - traces * ratio).abs() < 6.0 * deviation, "{found}");
}

#[test]
fn all_agree_about_one_trace() {
    // The rule of OpenTelemetry's SDKs, with their own words.
    let low = |value: u64| TraceId::from((7_u128 << 64) | u128::from(value));
    let sampling = fixed(0.25);
    assert!(sampling.root(low(0)));
    assert!(sampling.root(low((1 << 62) - 1)));
    assert!(!sampling.root(low(1 << 62)));
    assert!(!sampling.root(low(u64::MAX)));
}

#[test]
fn those_below_follow_unless_a_public_edge_says_no() {
    let never = fixed(0.0);
    assert!(never.below(parent(true, true)) && never.below(parent(true, false)));
    let always = fixed(1.0);
    assert!(!always.below(parent(false, true)) && !always.below(parent(false, false)));
    let edge = Sampling::new(Sampler {
        trusts_callers: false,
        ..Sampler::default().with_ratio(0.0)
    });
    // A trace id that every share would take does not help a caller.
    let chosen = Parent {
        trace_id: TraceId::from(1_u128 << 64),
        ..parent(true, true)
    };
    assert!(!edge.below(chosen) && edge.below(parent(true, false)));
    let alone = Sampling::new(Sampler {
        follows_parent: false,
        ..Sampler::default().with_ratio(1.0)
    });
    assert!(alone.below(parent(false, true)));
}

#[test]
fn the_share_under_load() {
    for (ratio, per_second, wanted) in [
        (0.1, 0.0, 0.1),
        (0.1, 10_000.0, 0.1),
        (0.1, 10_001.0, 0.05),
        (1.0, 20_000.0, 0.025),
        (0.1, 50_000.0, 0.01),
        (0.1, 1_000_000.0, 0.01),
        (0.002, 1_000_000.0, 0.002),
    ] {
        let found = under_load(ratio, per_second);
        assert!((found - wanted).abs() < 1e-4, "{ratio} at {per_second}/s: {found}");
    }
}

proptest! {
    #[test]
    fn under_load_lies_between_its_bounds(ratio in 0.0..=1.0_f64, per_second in 0.0..1e9_f64) {
        let found = under_load(ratio, per_second);
        prop_assert!(found <= ratio);
        prop_assert!(per_second <= BUSY || found <= 0.05);
        prop_assert!(found >= ratio.min(0.01));
    }
}

#[tokio::test(start_paused = true)]
async fn the_share_falls_with_the_rate_and_returns() {
    let sampling = Sampling::new(Sampler::of_environment("production"));
    assert!((sampling.status().ratio - 0.1).abs() < 1e-9);
    for (per_second, wanted) in [(20_000_u64, 0.025), (100_000, 0.01), (500, 0.1)] {
        for _ in 0..20 {
            sampled(&sampling, per_second / 10);
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        let status = sampling.status();
        assert!(
            (status.ratio - wanted).abs() < wanted / 5.0,
            "{per_second}/s: {status:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_ends_by_itself_also_without_traffic() {
    let sampling = fixed(0.0);
    sampling.set(1.0, Duration::from_secs(60)).unwrap();
    assert_eq!(sampling.status().ttl_seconds, Some(60.0));
    assert!(sampled(&sampling, 10) > 9.0);
    tokio::time::advance(Duration::from_secs(61)).await;
    assert!(sampled(&sampling, 10) < 1.0, "the first trace after it is not sampled");
    assert_eq!(sampling.status().ttl_seconds, None);
    sampling.set(1.0, Duration::from_secs(60)).unwrap();
    sampling.reset();
    assert!(sampled(&sampling, 10) < 1.0);
    assert!(sampling.set(1.1, Duration::from_secs(1)).is_err());
    assert!(sampling.set(f64::NAN, Duration::from_secs(1)).is_err());
}

#[test]
fn the_variables_of_opentelemetry_win() {
    let read = |kind: &str, argument: &str| {
        let mut sampler = Sampler::of_environment("production");
        let lookup = |name: &str| match name {
            "OTEL_TRACES_SAMPLER" => Some(kind.into()),
            "OTEL_TRACES_SAMPLER_ARG" => Some(argument.into()),
            _ => None,
        };
        sampler.read_env(&Env::new(&lookup)).map(|()| sampler)
    };
    for (kind, argument, ratio, follows_parent, automatic) in [
        ("", "", 0.1, true, true),
        ("", "0.5", 0.5, true, false),
        ("traceidratio", "0.5", 0.5, false, false),
        ("traceidratio", "", 1.0, false, false),
        ("parentbased_traceidratio", "0.02", 0.02, true, false),
        ("always_on", "", 1.0, false, false),
        ("always_off", "0.5", 0.0, false, false),
        ("parentbased_always_on", "", 1.0, true, false),
        ("parentbased_always_off", "", 0.0, true, false),
    ] {
        let sampler = read(kind, argument).unwrap();
        assert!((sampler.ratio - ratio).abs() < 1e-9, "{kind} {argument}: {sampler:?}");
        assert_eq!(
            (sampler.follows_parent, sampler.automatic),
            (follows_parent, automatic),
            "{kind} {argument}"
        );
    }
    for (kind, argument) in [
        ("jaeger_remote", ""),
        ("traceidratio", "2"),
        ("traceidratio", "x"),
        ("", "-1"),
    ] {
        assert!(read(kind, argument).is_err(), "{kind} {argument}");
    }
    assert!((Sampler::of_environment("staging").ratio - 1.0).abs() < 1e-9);
}
