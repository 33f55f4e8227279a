//! Scenes of a dependency that is down for a while: breaker, retries with and without a budget, stale answers.

use resilience::{Answer, Breaker, Budget, Error, Jitter, Pipeline, Retry, StaleCache, StaleSettings, State};
use tokio::time::sleep;

use super::millis;
use super::plot::{Mark, Panel, Picture, Row, Span, Tone};
use super::scene::{Points, Stage, Tally};

/// Ten calls every two seconds. Between its first and last possible moment, which differ by the jitter of a break, nobody
/// looks at the breaker: so the picture is the same every time.
pub async fn breaker() -> Picture {
    const STEP: f64 = 2.0;
    const END: f64 = 40.0;
    let policy = Pipeline::builder("payments")
        .attempt_timeout(millis(2000))
        .breaker(
            Breaker::builder("payments")
                .min_calls(20)
                .window(millis(10_000))
                .open(millis(3000), millis(60_000)),
        )
        .build()
        .unwrap();
    let (stage, calls, ratio) = (Stage::new(), Tally::new(STEP, 3), Points::default());
    let mut states: Vec<(f64, State)> = Vec::new();
    let mut look = || {
        let seen = policy.breaker().unwrap().snapshot();
        states.push((stage.now(), seen.state));
        ratio.add(stage.now(), seen.failure_ratio * 100.0);
    };
    for burst in 0..20 {
        let begun = f64::from(burst) * STEP;
        stage.at(begun).await;
        look();
        let latency = match begun {
            18.0..26.0 => 400,
            26.0..28.0 => 1600,
            _ => 200,
        };
        let running: Vec<_> = (0..10)
            .map(|number| {
                let (policy, calls) = (policy.clone(), calls.clone());
                tokio::spawn(async move {
                    sleep(millis(number * 2)).await;
                    let answer = policy.call(|_| async {
                        sleep(millis(latency)).await;
                        if (10.0..24.0).contains(&begun) { Err(()) } else { Ok(()) }
                    });
                    let kind = match answer.await {
                        Ok(()) => 0,
                        Err(Error::Inner(())) => 1,
                        Err(_) => 2,
                    };
                    calls.add(begun, kind);
                })
            })
            .collect();
        sleep(millis(30)).await;
        look();
        if running.iter().any(|call| !call.is_finished()) {
            for call in running {
                call.await.unwrap();
            }
            look();
        }
    }
    let seen: Vec<State> = states.iter().map(|(_, state)| *state).collect();
    assert!(seen.contains(&State::Open) && seen.contains(&State::HalfOpen) && seen.ends_with(&[State::Closed]));
    let spans = merged(&states, END, |state| match state {
        State::Closed => (Tone::Good, "closed"),
        State::HalfOpen => (Tone::Wait, "half-open"),
        _ => (Tone::Bad, "open"),
    });
    Picture {
        title: "Circuit breaker: a dependency is down from second 10 to 24",
        description: "Ten calls every two seconds. The failure ratio rises to a half, the breaker opens and refuses; after \
                      the break three probes fail and it opens for twice as long; the next probes succeed and it closes.",
        axis: "time (s)",
        span: (0.0, END),
        panels: vec![
            Panel::Chart {
                axis: "calls",
                span: (0.0, 10.0),
                height: 84.0,
                marks: vec![Mark::Bars {
                    width: STEP,
                    kinds: vec![
                        ("answered", Tone::Good),
                        ("failed", Tone::Bad),
                        ("refused", Tone::Quiet),
                    ],
                    bars: calls.bars(),
                }],
            },
            Panel::Chart {
                axis: "ratio (%)",
                span: (0.0, 100.0),
                height: 60.0,
                marks: vec![
                    Mark::Line("failure ratio", Tone::Main, stairs(&ratio.all(), END)),
                    Mark::Level("opens at 50 %", 50.0),
                ],
            },
            Panel::Rows(vec![Row { name: "state", spans }]),
        ],
    }
}

/// Twenty requests a second; returns first attempts and retries a second, and what was left of the budget.
async fn retried(budget: Option<Budget>) -> (Tally, Points) {
    const END: f64 = 40.0;
    let retry = Retry::default()
        .max(2)
        .backoff(millis(50), millis(1000))
        .jitter(Jitter::None);
    let retry = match &budget {
        Some(budget) => retry.budget(budget.clone()),
        None => retry.without_budget(),
    };
    let policy = Pipeline::builder("payments")
        .total_timeout(millis(5000))
        .retry(retry)
        .build()
        .unwrap();
    let (stage, attempts, left) = (Stage::new(), Tally::new(1.0, 2), Points::default());
    stage
        .every(0.05, END, |begun| {
            if let Some(budget) = &budget {
                left.add(begun, budget.snapshot().left as f64);
            }
            let (policy, attempts) = (policy.clone(), attempts.clone());
            async move {
                let answer = policy.call(|attempt| {
                    let now = stage.now();
                    attempts.add(now, usize::from(attempt.number() > 1));
                    async move { if (10.0..25.0).contains(&now) { Err(()) } else { Ok(()) } }
                });
                drop(answer.await);
            }
        })
        .await;
    (attempts, left)
}

pub async fn retry() -> Picture {
    let (with, left) = retried(Some(Budget::new(0.2, 1.0))).await;
    super::scene::next_hour().await;
    let (without, _) = retried(None).await;
    let all: Vec<_> = without
        .bars()
        .into_iter()
        .map(|(at, parts)| (at + 0.5, parts.iter().sum()))
        .collect();
    Picture {
        title: "Retries and their budget: a dependency is down from second 10 to 25",
        description: "Twenty requests a second. Each failed one would be tried three times: the dashed line shows sixty \
                      attempts a second without a budget. With one of 20 percent and one a second, they \
                      end once it is spent, and in ten seconds the dependency gets at most a quarter more attempts than \
                      requests.",
        axis: "time (s)",
        span: (0.0, 40.0),
        panels: vec![
            Panel::Chart {
                axis: "attempts/s",
                span: (0.0, 70.0),
                height: 104.0,
                marks: vec![
                    Mark::Bars {
                        width: 1.0,
                        kinds: vec![("first attempts", Tone::Main), ("retries", Tone::Wait)],
                        bars: with.bars(),
                    },
                    Mark::Line("attempts without a budget", Tone::Bad, all),
                ],
            },
            Panel::Chart {
                axis: "retries",
                span: (0.0, 60.0),
                height: 60.0,
                marks: vec![Mark::Line("left in the budget", Tone::Good, left.all())],
            },
        ],
    }
}

pub async fn stale() -> Picture {
    const END: f64 = 50.0;
    let policy = Pipeline::builder("prices").build().unwrap();
    let cache = StaleCache::new(
        "prices",
        StaleSettings {
            max_age: millis(15_000),
            ..StaleSettings::default()
        },
    )
    .unwrap();
    let (stage, mut answers, mut ages) = (Stage::new(), Vec::new(), Vec::new());
    for second in 0..50 {
        let now = f64::from(second);
        stage.at(now).await;
        let is_down = (10.0..35.0).contains(&now);
        let answer = cache
            .call(
                &policy,
                "book",
                |_| async move { if is_down { Err(()) } else { Ok(12) } },
            )
            .await;
        let (kind, age) = match answer {
            Ok(Answer::Fresh(_)) => (0, Some(0.0)),
            Ok(Answer::Stale { stale, .. }) => (1, Some(stale.age.as_secs_f64())),
            Err(_) => (2, None),
        };
        answers.push((now, kind));
        // Where there is no answer, the line has a gap.
        ages.push((now, age.unwrap_or(f64::NAN)));
    }
    let spans = merged(&answers, END, |kind| match kind {
        0 => (Tone::Good, "fresh"),
        1 => (Tone::Wait, "stale"),
        _ => (Tone::Bad, "errors"),
    });
    Picture {
        title: "Stale answers: a dependency is down from second 10 to 35, answers keep for 15 s",
        description: "One call a second. While the dependency is down the last good answer is given, older each second; \
                      after fifteen seconds it is too old and callers get the error until the dependency is back.",
        axis: "time (s)",
        span: (0.0, END),
        panels: vec![
            Panel::Chart {
                axis: "age (s)",
                span: (0.0, 20.0),
                height: 90.0,
                marks: vec![
                    Mark::Line("age of the answer", Tone::Main, ages),
                    Mark::Level("max_age", 15.0),
                ],
            },
            Panel::Rows(vec![Row { name: "answers", spans }]),
        ],
    }
}

/// What was seen at moments, as spans that reach to the next moment at which something else was seen.
fn merged<S: Copy + PartialEq>(seen: &[(f64, S)], end: f64, show: impl Fn(S) -> (Tone, &'static str)) -> Vec<Span> {
    let mut spans: Vec<(S, Span)> = Vec::new();
    for (at, what) in seen {
        if let Some((known, span)) = spans.last_mut() {
            span.to = *at;
            if known == what {
                continue;
            }
        }
        let (tone, text) = show(*what);
        spans.push((
            *what,
            Span {
                from: *at,
                to: end,
                tone,
                text,
            },
        ));
    }
    if let Some((_, last)) = spans.last_mut() {
        last.to = end;
    }
    spans.into_iter().map(|(_, span)| span).collect()
}

/// A line that keeps its height until the next point.
fn stairs(points: &[(f64, f64)], end: f64) -> Vec<(f64, f64)> {
    let ends = points.iter().skip(1).map(|(at, _)| *at).chain([end]);
    points
        .iter()
        .zip(ends)
        .flat_map(|((from, value), to)| [(*from, *value), (to, *value)])
        .collect()
}
