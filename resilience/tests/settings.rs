//! Settings of a policy: what is refused when it is made, with the key; and that whatever is not refused never panics in a
//! call. What the parts refuse when they are used alone is in their own tests.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

#[path = "support/whole_policy.rs"]
mod whole_policy;

use std::error::Error as _;
use std::time::Duration;

use proptest::prelude::*;
use resilience::{
    AdaptiveSettings, Attempt, BreakerSettings, BudgetSettings, BulkheadSettings, ConfigError, HalfOpen, HedgeSettings,
    Jitter, Kind, OnDrop, Part, Pipeline, PipelineSettings, RateLimitSettings, RetrySettings, Safety, SlowCalls,
    ThrottleSettings, TimeoutSettings, Tokens, Verdict,
};
use tokio::time::{advance, sleep};

use whole_policy::{all, from_text, secs};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Each line makes a policy by itself but for what is wrong with one key.
const REFUSED: &[(&str, &str)] = &[
    ("timeout.total", r#"timeout = { total = "0s" }"#),
    ("timeout.total", r#"timeout = { total = "25h" }"#),
    ("timeout.attempt", r#"timeout = { attempt = "0s" }"#),
    ("timeout.attempt", r#"timeout = { attempt = "500years" }"#),
    ("timeout.attempt", r#"timeout = { total = "1s", attempt = "1001ms" }"#),
    ("gate", "gate = true"),
    ("bulkhead.limit", "bulkhead = { limit = 0 }"),
    ("bulkhead.limit", "bulkhead = { limit = 2147483648 }"),
    ("bulkhead.max_wait", r#"bulkhead = { max_wait = "0s" }"#),
    ("bulkhead.max_wait", r#"bulkhead = { queue = 0, max_wait = "1s" }"#),
    (
        "bulkhead.max_wait",
        "timeout.total = \"1s\"\nbulkhead = { max_wait = \"2s\" }",
    ),
    ("retry.base", r#"retry = { base = "0s" }"#),
    ("retry.base", r#"retry = { base = "2s", cap = "1s" }"#),
    ("retry.base", r#"retry = { cap = "0s" }"#),
    ("retry.cap", r#"retry = { cap = "25h" }"#),
    ("retry.hint_cap", r#"retry = { hint_cap = "0s" }"#),
    ("retry.hint_cap", r#"retry = { hint_cap = "25h" }"#),
    ("retry.budget.ratio", "retry.budget.ratio = -0.1"),
    ("retry.budget.ratio", "retry.budget.ratio = 1.1"),
    ("retry.budget.ratio", "retry.budget.ratio = nan"),
    ("retry.budget.min_per_sec", "retry.budget.min_per_sec = -1.0"),
    ("retry.budget.min_per_sec", "retry.budget.min_per_sec = inf"),
    ("retry.budget", "retry.budget = { ratio = 0.0, min_per_sec = 0.0 }"),
    ("retry.budget", "retry.budget = { ratio = 0.0, min_per_sec = 0.09 }"),
    (
        "retry.budget.tokens.max",
        "retry.budget.tokens = { max = 0.0, ratio = 0.1 }",
    ),
    (
        "retry.budget.tokens.max",
        "retry.budget.tokens = { max = nan, ratio = 0.1 }",
    ),
    (
        "retry.budget.tokens.max",
        "retry.budget.tokens = { max = 1e300, ratio = 0.1 }",
    ),
    (
        "retry.budget.tokens.ratio",
        "retry.budget.tokens = { max = 10.0, ratio = 0.0 }",
    ),
    (
        "retry.budget.tokens.ratio",
        "retry.budget.tokens = { max = 10.0, ratio = -1.0 }",
    ),
    (
        "retry.budget.tokens.ratio",
        "retry.budget.tokens = { max = 10.0, ratio = nan }",
    ),
    ("hedge.delay", r#"hedge = { delay = "0s" }"#),
    ("hedge.delay", r#"hedge = { delay = "25h" }"#),
    ("hedge.delay", "timeout.total = \"1s\"\nhedge = { delay = \"1s\" }"),
    ("hedge.quantile", "hedge = { quantile = 0.0 }"),
    ("hedge.quantile", "hedge = { quantile = 1.0 }"),
    ("hedge.quantile", "hedge = { quantile = -0.5 }"),
    ("hedge.quantile", "hedge = { quantile = nan }"),
    ("hedge.max", "hedge = { max = 0 }"),
    ("hedge.max", "hedge = { max = 11 }"),
    ("throttle.k", "throttle = { k = 0.99 }"),
    ("throttle.k", "throttle = { k = nan }"),
    ("throttle.k", "throttle = { k = inf }"),
    ("throttle.window", r#"throttle = { window = "0s" }"#),
    ("throttle.window", r#"throttle = { window = "25h" }"#),
    ("throttle.max_reject", "throttle = { max_reject = 0.0 }"),
    ("throttle.max_reject", "throttle = { max_reject = 1.1 }"),
    ("throttle.max_reject", "throttle = { max_reject = nan }"),
    ("throttle.min_per_sec", "throttle = { min_per_sec = -1.0 }"),
    ("throttle.min_per_sec", "throttle = { min_per_sec = nan }"),
    ("breaker.failure_ratio", "breaker = { failure_ratio = 0.0 }"),
    ("breaker.failure_ratio", "breaker = { failure_ratio = -1.0 }"),
    ("breaker.failure_ratio", "breaker = { failure_ratio = nan }"),
    ("breaker.failure_ratio", "breaker = { failure_ratio = 1.01 }"),
    ("breaker.min_calls", "breaker = { min_calls = 0 }"),
    ("breaker.min_calls", "breaker = { min_calls = 20, last_calls = 10 }"),
    ("breaker.window", r#"breaker = { window = "0s" }"#),
    ("breaker.window", r#"breaker = { window = "25h" }"#),
    (
        "breaker.window",
        "timeout.attempt = \"6s\"\nbreaker = { window = \"10s\" }",
    ),
    ("breaker.last_calls", "breaker = { last_calls = 0 }"),
    ("breaker.last_calls", "breaker = { last_calls = 1000001 }"),
    ("breaker.consecutive", "breaker = { consecutive = 0 }"),
    ("breaker.slow.limit", r#"breaker.slow = { limit = "0s", ratio = 0.5 }"#),
    ("breaker.slow.ratio", r#"breaker.slow = { limit = "1s", ratio = 0.0 }"#),
    ("breaker.slow.ratio", r#"breaker.slow = { limit = "1s", ratio = nan }"#),
    ("breaker.open", r#"breaker = { open = "0s" }"#),
    ("breaker.open", r#"breaker = { open = "61s" }"#),
    ("breaker.open_max", r#"breaker = { open_max = "0s" }"#),
    ("breaker.open_max", r#"breaker = { open_max = "25h" }"#),
    ("breaker.half_open.probes", "breaker.half_open = { probes = 0 }"),
    ("breaker.half_open.probes", "breaker.half_open = { probes = 10001 }"),
    ("breaker.half_open.ratio", "breaker.half_open = { ratio = -0.5 }"),
    ("breaker.half_open.ratio", "breaker.half_open = { ratio = nan }"),
    ("breaker.half_open.lease", r#"breaker.half_open = { lease = "0s" }"#),
    ("breaker.half_open.lease", r#"breaker.half_open = { lease = "25h" }"#),
    (
        "breaker.on_drop.failure_after",
        r#"breaker.on_drop = { failure_after = "0s" }"#,
    ),
    ("rate_limit.limit", "rate_limit = { limit = 0 }"),
    ("rate_limit.limit", r#"rate_limit = { limit = 4294967295, per = "1s" }"#),
    ("rate_limit.per", r#"rate_limit = { per = "0s" }"#),
    ("rate_limit.per", r#"rate_limit = { per = "2years" }"#),
    ("rate_limit.burst", "rate_limit = { burst = 0 }"),
    (
        "rate_limit.burst",
        r#"rate_limit = { limit = 1, per = "365days", burst = 4294967295 }"#,
    ),
    ("rate_limit.max_wait", r#"rate_limit = { max_wait = "11years" }"#),
    (
        "rate_limit.max_wait",
        "timeout.total = \"1s\"\nrate_limit = { max_wait = \"2s\" }",
    ),
    ("concurrency_limit.min", "concurrency_limit = { min = 0 }"),
    ("concurrency_limit.min", "concurrency_limit = { min = 21, max = 20 }"),
    ("concurrency_limit.max", "concurrency_limit = { max = 2147483648 }"),
    ("concurrency_limit.initial", "concurrency_limit = { initial = 201 }"),
    ("concurrency_limit.smoothing", "concurrency_limit = { smoothing = 0.0 }"),
    ("concurrency_limit.smoothing", "concurrency_limit = { smoothing = nan }"),
    ("concurrency_limit.tolerance", "concurrency_limit = { tolerance = 0.5 }"),
    ("concurrency_limit.tolerance", "concurrency_limit = { tolerance = inf }"),
    ("concurrency_limit.growth", "concurrency_limit = { growth = 0.0 }"),
    ("concurrency_limit.growth", "concurrency_limit = { growth = nan }"),
    ("concurrency_limit.window", r#"concurrency_limit = { window = "0s" }"#),
    (
        "concurrency_limit.long_window",
        "concurrency_limit = { long_window = 9 }",
    ),
    ("order", r#"order = ["breaker"]"#),
    ("order", "retry = {}\norder = [\"retry\", \"retry\"]"),
    ("order", "retry = {}\nbulkhead = {}\norder = [\"retry\"]"),
    ("order", "gate = true\nbreaker = {}\norder = [\"breaker\", \"gate\"]"),
];

#[test]
fn what_makes_no_sense_is_refused_with_its_key() {
    for (key, body) in REFUSED {
        match from_text(body) {
            Err(ConfigError::Build(error)) => {
                assert_eq!((&*error.name, &*error.key), ("x", *key), "{body}");
                assert!(error.to_string().starts_with(&format!("policy x: {key} ")), "{error}");
            }
            other => panic!("{body}: {other:?}"),
        }
    }
}

/// What the text's form already refuses: the message names the key or what was found in its place.
#[test]
fn what_is_no_setting_is_refused_with_its_place() {
    for (word, body) in [
        ("unknown field `timeouts`", "timeouts = {}"),
        ("unknown field `totl`", r#"timeout = { totl = "1s" }"#),
        ("unknown field `limits`", "bulkhead = { limits = 1 }"),
        ("unknown field `maximum`", "retry = { maximum = 2 }"),
        ("unknown field `share`", "retry.budget = { share = 0.2 }"),
        (
            "unknown field `rate`",
            "retry.budget.tokens = { max = 1.0, rate = 0.1 }",
        ),
        ("unknown field `after`", r#"hedge = { after = "1s" }"#),
        ("unknown field `factor`", "throttle = { factor = 2.0 }"),
        ("unknown field `ratio`", "breaker = { ratio = 0.5 }"),
        ("unknown field `places`", "breaker.half_open = { places = 3 }"),
        (
            "unknown field `share`",
            r#"breaker.slow = { limit = "1s", share = 0.5 }"#,
        ),
        ("unknown field `per_second`", "rate_limit = { per_second = 5 }"),
        ("unknown field `minimum`", "concurrency_limit = { minimum = 5 }"),
        ("unknown variant `cache`", r#"order = ["cache"]"#),
        ("unknown variant `equal`", r#"retry = { jitter = "equal" }"#),
        ("unknown variant `success`", r#"breaker = { on_drop = "success" }"#),
        ("missing field `ratio`", r#"breaker.slow = { limit = "1s" }"#),
        ("missing field `max`", "retry.budget.tokens = { ratio = 0.1 }"),
        ("total = \"-1s\"", r#"timeout = { total = "-1s" }"#),
        ("total = \"1\"", r#"timeout = { total = "1" }"#),
        ("total = \"\"", r#"timeout = { total = "" }"#),
        ("total = 1", "timeout = { total = 1 }"),
        (
            "attempt = \"99999999999999999999y\"",
            r#"timeout = { attempt = "99999999999999999999y" }"#,
        ),
        ("base = \"1 parsec\"", r#"retry = { base = "1 parsec" }"#),
        ("limit = -1", "bulkhead = { limit = -1 }"),
        ("max = -1", "retry = { max = -1 }"),
        ("max = 4294967296", "retry = { max = 4294967296 }"),
        ("max = 2.5", "retry = { max = 2.5 }"),
        ("limit = -1", "rate_limit = { limit = -1 }"),
        ("failure_ratio = \"half\"", r#"breaker = { failure_ratio = "half" }"#),
        ("gate = 1", "gate = 1"),
    ] {
        match from_text(body) {
            Err(ConfigError::Text { source }) => {
                let said = source.to_string();
                assert!(said.contains(word) && said.contains("line 2"), "{body}: {said}");
            }
            other => panic!("{body}: {other:?}"),
        }
    }
    let missing = Pipeline::from_toml("[policy.y]", "x").unwrap_err();
    assert_eq!(
        (missing.to_string(), missing.source().is_none()),
        ("there is no [policy.x]".to_owned(), true)
    );
}

/// What no text can say, and what only a combination makes wrong.
#[test]
fn what_makes_no_sense_in_code_is_refused_too() {
    type Change = fn(&mut PipelineSettings);
    let cases: &[(&str, Change)] = &[
        ("timeout.total", |s| s.timeout.total = Some(Duration::MAX)),
        ("timeout.total", |s| {
            s.timeout.total = Some(DAY + Duration::from_nanos(1));
        }),
        ("timeout.attempt", |s| {
            s.timeout = TimeoutSettings {
                total: None,
                attempt: Some(Duration::MAX),
            }
        }),
        ("bulkhead.limit", |s| s.bulkhead.as_mut().unwrap().limit = usize::MAX),
        ("bulkhead.max_wait", |s| {
            s.bulkhead.as_mut().unwrap().max_wait = Some(Duration::MAX);
        }),
        ("retry.cap", |s| s.retry.as_mut().unwrap().cap = Duration::MAX),
        ("retry.base", |s| s.retry.as_mut().unwrap().base = Duration::MAX),
        ("retry.hint_cap", |s| s.retry.as_mut().unwrap().hint_cap = Duration::MAX),
        ("hedge.delay", |s| s.hedge.as_mut().unwrap().delay = Duration::MAX),
        ("hedge.delay", |s| {
            s.timeout.total = None;
            s.hedge.as_mut().unwrap().delay = Duration::MAX;
        }),
        ("hedge.max", |s| s.hedge.as_mut().unwrap().max = u32::MAX),
        ("throttle.window", |s| {
            s.throttle.as_mut().unwrap().window = Duration::MAX;
        }),
        ("breaker.window", |s| s.breaker.as_mut().unwrap().window = Duration::MAX),
        ("breaker.window", |s| s.breaker.as_mut().unwrap().window = secs(19)),
        ("breaker.last_calls", |s| {
            s.breaker.as_mut().unwrap().last_calls = Some(usize::MAX);
        }),
        ("breaker.open_max", |s| {
            s.breaker.as_mut().unwrap().open_max = Duration::MAX;
        }),
        ("rate_limit.per", |s| s.rate_limit.as_mut().unwrap().per = Duration::MAX),
        ("rate_limit.max_wait", |s| {
            s.rate_limit.as_mut().unwrap().max_wait = Duration::MAX;
        }),
        ("concurrency_limit.max", |s| {
            s.concurrency_limit.as_mut().unwrap().max = usize::MAX;
        }),
        ("gate", |s| s.breaker = None),
        ("order", |s| s.order = Some(Vec::new())),
        ("order", |s| s.order = Some(vec![Part::Deadline; 11])),
    ];
    let policy = Pipeline::from_settings("x", all()).build().unwrap();
    for (row, (key, change)) in cases.iter().enumerate() {
        let mut settings = all();
        change(&mut settings);
        let error = Pipeline::from_settings("x", settings.clone()).build().unwrap_err();
        assert_eq!(error.key, *key, "row {row}: {error}");
        // A reload refuses the same, and changes nothing.
        let before = policy.snapshot();
        assert!(policy.reload(settings).is_err(), "row {row}");
        assert_eq!((policy.settings(), policy.snapshot()), (all(), before), "row {row}");
    }
}

/// The bounds themselves are allowed.
#[test]
fn what_is_just_within_bounds_is_allowed() {
    for body in [
        r#"timeout = { total = "24h", attempt = "24h" }"#,
        r#"timeout = { total = "1ns" }"#,
        "timeout.attempt = \"5s\"\nbreaker = { window = \"10s\" }",
        // A window of calls has no length to compare.
        "timeout.attempt = \"60s\"\nbreaker = { window = \"10s\", last_calls = 100 }",
        r#"retry = { max = 4294967295, base = "24h", cap = "24h", hint_cap = "24h" }"#,
        "retry = { max = 0 }",
        "retry.budget = { ratio = 0.0, min_per_sec = 0.1 }",
        "retry.budget = { ratio = 1.0, min_per_sec = 0.0 }",
        "retry.budget.tokens = { max = 1000.0, ratio = 0.001 }",
        r#"hedge = { delay = "24h", quantile = 0.001, max = 10 }"#,
        "bulkhead = { limit = 2147483647, queue = 0 }",
        "timeout.total = \"1s\"\nbulkhead = { max_wait = \"1s\" }",
        "throttle = { k = 1.0, max_reject = 1.0, min_per_sec = 0.0 }",
        r#"breaker = { failure_ratio = 1.0, min_calls = 1, open = "24h", open_max = "24h" }"#,
        r#"rate_limit = { limit = 1, per = "365days", burst = 10 }"#,
        "concurrency_limit = { min = 1, initial = 1, max = 1 }",
        "",
    ] {
        assert!(from_text(body).is_ok(), "{body}: {:?}", from_text(body));
    }
}

/// A row of choices that a test makes, one after the other.
struct Choices<'a>(std::slice::Iter<'a, u8>);

impl Choices<'_> {
    fn next(&mut self) -> usize {
        usize::from(*self.0.next().unwrap_or(&0))
    }

    /// Mostly what is sane, so that many of the settings are taken.
    fn choose<T: Copy>(&mut self, sane: T, odd: &[T]) -> T {
        let choice = self.next();
        if choice < 248 { sane } else { odd[choice % odd.len()] }
    }

    fn time(&mut self, sane: Duration) -> Duration {
        self.choose(
            sane,
            &[
                Duration::ZERO,
                Duration::from_nanos(1),
                Duration::from_millis(10),
                secs(1),
                DAY,
                Duration::MAX,
            ],
        )
    }

    fn share(&mut self, sane: f64) -> f64 {
        self.choose(
            sane,
            &[
                0.0,
                -1.0,
                f64::NAN,
                f64::INFINITY,
                f64::NEG_INFINITY,
                f64::MIN_POSITIVE,
                0.999,
                1.0,
                1e300,
            ],
        )
    }

    fn count(&mut self, sane: u32) -> u32 {
        self.choose(sane, &[0, 1, 2, 10, 1_000, u32::MAX])
    }

    fn places(&mut self, sane: usize) -> usize {
        self.choose(sane, &[0, 1, 2, 10, 1_000, (1 << 31) - 1, usize::MAX])
    }

    fn perhaps<T>(&mut self, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.next() % 2 == 0).then(|| value(self))
    }

    /// Settings of a policy that has some of its nine parts.
    fn settings(&mut self, has: [bool; 9]) -> PipelineSettings {
        let budget = BudgetSettings {
            ratio: self.share(0.2),
            min_per_sec: self.share(3.0),
            tokens: self.perhaps(|own| Tokens {
                max: own.share(10.0),
                ratio: own.share(0.1),
            }),
        };
        let retry = RetrySettings {
            max: self.count(3),
            base: self.time(Duration::from_millis(50)),
            cap: self.time(secs(1)),
            hint_cap: self.time(secs(60)),
            jitter: self.choose(Jitter::Full, &[Jitter::None]),
            budget: self.perhaps(|_| budget),
        };
        let (window, slow, lease) = (self.time(secs(30)), self.time(secs(1)), self.time(secs(30)));
        let breaker = BreakerSettings {
            failure_ratio: self.share(0.5),
            min_calls: self.count(2).into(),
            window,
            last_calls: self.perhaps(|own| own.places(10)),
            consecutive: self.perhaps(|own| own.count(3)),
            slow: self.perhaps(|own| SlowCalls {
                limit: slow,
                ratio: own.share(0.5),
            }),
            open: self.time(secs(1)),
            open_max: self.time(secs(60)),
            half_open: HalfOpen {
                probes: self.count(3),
                ratio: None,
                lease,
            },
            on_drop: self.perhaps(|own| OnDrop::FailureAfter(own.time(secs(1)))),
            observe_only: self.next() % 8 == 0,
        };
        let bulkhead = BulkheadSettings {
            limit: self.places(2),
            queue: self.places(1),
            max_wait: self.perhaps(|own| own.time(secs(1))),
        };
        let hedge = HedgeSettings {
            delay: self.time(secs(1)),
            quantile: self.perhaps(|own| own.share(0.9)),
            max: self.count(2),
        };
        let throttle = ThrottleSettings {
            k: self.share(1.0).max(self.share(0.0)) + 1.0,
            window: self.time(secs(10)),
            max_reject: self.share(0.5),
            min_per_sec: self.share(0.0),
        };
        let rate_limit = RateLimitSettings {
            limit: self.count(5),
            per: self.time(secs(1)),
            burst: self.perhaps(|own| own.count(2)),
            max_wait: self.time(secs(1)),
        };
        let concurrency_limit = AdaptiveSettings {
            initial: self.places(10),
            min: self.places(1),
            max: self.places(1_000),
            smoothing: self.share(0.2),
            tolerance: self.share(0.5) + 1.0,
            growth: self.share(4.0),
            window: self.time(Duration::from_millis(100)),
            long_window: self.count(600),
        };
        let (total, attempt) = (self.perhaps(|own| own.time(secs(30))), self.time(secs(5)));
        let [
            has_gate,
            has_breaker,
            has_bulkhead,
            has_retry,
            has_hedge,
            has_throttle,
            has_rate,
            has_limit,
            has_attempt,
        ] = has;
        PipelineSettings {
            timeout: TimeoutSettings {
                attempt: has_attempt.then_some(attempt),
                total,
            },
            gate: has_gate && has_breaker,
            breaker: has_breaker.then_some(breaker),
            bulkhead: has_bulkhead.then_some(bulkhead),
            retry: has_retry.then_some(retry),
            hedge: has_hedge.then_some(hedge),
            throttle: has_throttle.then_some(throttle),
            rate_limit: has_rate.then_some(rate_limit),
            concurrency_limit: has_limit.then_some(concurrency_limit),
            order: None,
        }
    }
}

/// Ten calls, some of them at one time, some of them dropped; then nothing may be left inside.
fn use_it(policy: &Pipeline) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let call = async |number: u64| {
            let safety = if number % 3 == 0 {
                Safety::Unsafe
            } else {
                Safety::Idempotent
            };
            let meaning = |result: Result<&(), &()>| match (result, number % 4) {
                (Ok(()), _) => Verdict::Success,
                (Err(()), 1) => Verdict::Overload {
                    hint: Some(Duration::MAX),
                },
                (Err(()), _) => Verdict::Failure(Kind::Transient),
            };
            let attempt = |attempt: Attempt| async move {
                let _ = attempt.timeout();
                sleep(Duration::from_millis(number * 700)).await;
                if number % 2 == 0 { Ok(()) } else { Err(()) }
            };
            policy.call_with(safety, &meaning, attempt).await
        };
        for number in 0..5 {
            // Some of the waits that are allowed are years.
            let _ = tokio::join!(
                tokio::time::timeout(DAY * 2, call(number)),
                tokio::time::timeout(secs(1), call(number + 1)),
            );
            advance(secs(3)).await;
        }
        let snapshot = policy.snapshot();
        prop_assert_eq!(
            snapshot
                .bulkhead
                .map_or(0, |bulkhead| bulkhead.in_flight + bulkhead.queued),
            0
        );
        prop_assert_eq!(snapshot.concurrency_limit.map_or(0, |limit| limit.in_flight), 0);
        Ok(())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn text_of_any_kind_is_no_panic(text in ".{0,80}", name in ".{0,5}") {
        let _ = Pipeline::from_toml(&text, &name);
        let _ = from_text(&text);
    }

    /// Two lines of the refused ones at one time, or with the end of one cut off.
    #[test]
    fn text_that_is_nearly_right_is_no_panic(one in 0..REFUSED.len(), two in 0..REFUSED.len(), cut in 0..60_usize) {
        let both = format!("{}\n{}", REFUSED[one].1, REFUSED[two].1);
        let _ = from_text(&both);
        let shorter: String = both.chars().take(cut).collect();
        if let Ok(policy) = from_text(&shorter) {
            use_it(&policy)?;
        }
    }

    #[test]
    fn settings_of_any_kind_are_refused_or_never_panic_in_a_call(
        has in any::<[bool; 9]>(),
        choices in prop::collection::vec(any::<u8>(), 80),
        others in prop::collection::vec(any::<u8>(), 80),
    ) {
        let settings = Choices(choices.iter()).settings(has);
        let checked = settings.check("x");
        let built = Pipeline::from_settings("x", settings.clone()).build();
        prop_assert_eq!(checked.is_ok(), built.is_ok(), "{:?}: {:?}", checked, built);
        if let Ok(policy) = built {
            use_it(&policy)?;
            // Of a reload everything is taken or nothing.
            let other = Choices(others.iter()).settings(has);
            let now = if policy.reload(other.clone()).is_ok() { other } else { settings };
            prop_assert_eq!(policy.settings(), now);
            use_it(&policy)?;
        }
    }
}
