//! Scenes of slow answers: time limits with the caller's deadline, hedging.

use std::future::pending;
use std::sync::{Arc, Mutex};

use resilience::{Deadline, HedgeSettings, Jitter, Pipeline, Retry};
use tokio::time::sleep;

use super::millis;
use super::plot::{Mark, Panel, Picture, Row, Span, Tone};
use super::scene::{Dice, Stage};

/// An attempt that runs. Dropped before it was answered, it was cut off.
struct Running {
    stage: Stage,
    from: f64,
    answered: bool,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let (tone, text) = if self.answered {
            (Tone::Good, "answered")
        } else {
            (Tone::Bad, "cut off")
        };
        self.spans.lock().unwrap().push(Span {
            from: self.from,
            to: self.stage.now(),
            tone,
            text,
        });
    }
}

/// A call whose attempts number 1, 2 and so on take so many milliseconds; those beyond hang.
async fn call(policy: &Pipeline, deadline: Option<u64>, script: &[u64]) -> Vec<Span> {
    let (stage, spans) = (Stage::new(), Arc::new(Mutex::new(Vec::new())));
    let made = policy.call(|attempt| {
        let latency = script.get(attempt.number() as usize - 1).copied();
        let running = Running {
            stage,
            from: stage.now(),
            answered: false,
            spans: Arc::clone(&spans),
        };
        async move {
            // As a whole: it tells its end when it is dropped.
            let mut running = running;
            match latency {
                Some(latency) => sleep(millis(latency)).await,
                None => pending().await,
            }
            running.answered = true;
            Ok::<_, ()>(())
        }
    });
    let _ = match deadline {
        Some(deadline) => Deadline::after(millis(deadline)).scope(made).await,
        None => made.await,
    };
    let attempts = std::mem::take(&mut *spans.lock().unwrap());
    // Between two attempts it waits.
    let waits: Vec<Span> = attempts
        .windows(2)
        .map(|pair| Span {
            from: pair[0].to,
            to: pair[1].from,
            tone: Tone::Wait,
            text: "waits",
        })
        .collect();
    attempts.into_iter().chain(waits).collect()
}

pub async fn timeout() -> Picture {
    let policy = Pipeline::builder("payments")
        .total_timeout(millis(2000))
        .attempt_timeout(millis(800))
        .retry(
            Retry::default()
                .max(3)
                .backoff(millis(100), millis(1000))
                .jitter(Jitter::None),
        )
        .build()
        .unwrap();
    let row = |name, spans| Row { name, spans };
    let limits = vec![
        Span {
            from: 0.0,
            to: 0.8,
            tone: Tone::Quiet,
            text: "attempt: 0.8 s",
        },
        Span {
            from: 0.8,
            to: 2.0,
            tone: Tone::Quiet,
            text: "total: 2 s",
        },
    ];
    Picture {
        title: "Time limits: attempts of at most 0.8 s within 2 s in total",
        description: "A call that is answered at once; one whose first attempt hangs and is cut off and whose \
                      second is answered; one whose attempts all hang: the third has only the rest of the total; and one \
                      whose caller has a deadline of one second, which leaves the second attempt a tenth.",
        axis: "time (s)",
        span: (0.0, 2.2),
        panels: vec![Panel::Rows(vec![
            row("limits", limits),
            row("answers", call(&policy, None, &[300]).await),
            row("hangs once", call(&policy, None, &[9000, 400]).await),
            row("hangs", call(&policy, None, &[]).await),
            row("deadline 1 s", call(&policy, Some(1000), &[]).await),
        ])],
    }
}

/// Latencies of 5000 calls in milliseconds, sorted, and the extra attempts among them.
async fn latencies(policy: &Pipeline) -> (Vec<f64>, u64) {
    const WARM_UP: u64 = 500;
    const CALLS: u64 = 5000;
    let mut all = Vec::new();
    for call in 0..WARM_UP + CALLS {
        let stage = Stage::new();
        let answer = policy.call(|attempt| {
            // The same attempt of the same call takes as long, hedged or not.
            let mut dice = Dice::new(call * 16 + u64::from(attempt.number()));
            // The first roll is near the seed.
            let [_, chance, place] = [(); 3].map(|()| dice.roll());
            let is_slow = chance < 0.05;
            let latency = if is_slow {
                300.0 + 500.0 * place
            } else {
                20.0 + 40.0 * place
            };
            async move {
                sleep(millis(latency as u64)).await;
                Ok::<_, ()>(())
            }
        });
        answer.await.unwrap();
        if call >= WARM_UP {
            all.push(stage.now() * 1000.0);
        }
    }
    all.sort_by(f64::total_cmp);
    let hedges = policy.snapshot().hedge.map_or(0, |hedge| hedge.hedges);
    (all, hedges)
}

pub async fn hedging() -> Picture {
    let plain = || {
        Pipeline::builder("search")
            .total_timeout(millis(10_000))
            .retry(Retry::default())
    };
    let hedge = HedgeSettings {
        quantile: Some(0.95),
        ..HedgeSettings::default()
    };
    let (without, _) = latencies(&plain().build().unwrap()).await;
    let (with, hedges) = latencies(&plain().hedge(hedge).build().unwrap()).await;
    // What the guide says it costs.
    assert!((200..=330).contains(&hedges), "{hedges}");
    let within = |sorted: &[f64]| -> Vec<(f64, f64)> {
        (0..=90)
            .map(|ten| {
                let limit = f64::from(ten) * 10.0;
                let answered = sorted.partition_point(|latency| *latency <= limit + 1e-6);
                (limit, answered as f64 / sorted.len() as f64 * 100.0)
            })
            .filter(|(_, share)| *share >= 90.0)
            .collect()
    };
    Picture {
        title: "Hedging at the 0.95 quantile: 5 % of the answers take 0.3 s to 0.8 s",
        description: "Share of calls that are answered within a time. Without hedging the slowest twentieth takes up to 800 \
                      milliseconds. With it a second attempt starts after about 60, and nearly all calls are answered \
                      within 130.",
        axis: "time until the answer (ms)",
        span: (0.0, 900.0),
        panels: vec![Panel::Chart {
            axis: "answered (%)",
            span: (90.0, 100.0),
            height: 130.0,
            marks: vec![
                Mark::Line("with hedging", Tone::Main, within(&with)),
                Mark::Line("without", Tone::Bad, within(&without)),
            ],
        }],
    }
}
