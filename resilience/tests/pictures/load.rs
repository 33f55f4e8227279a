//! Scenes of too many calls: bulkhead, rate limit, the limit that finds itself, load shedding, throttle.

use std::collections::BTreeMap;
use std::sync::Mutex;

use resilience::{
    AdaptiveLimit, AdaptiveSettings, Bulkhead, Priority, RateLimit, RateLimitSettings, Sample, ShedSettings, Shedder,
    Throttle, ThrottleSettings, Verdict,
};
use tokio::time::sleep;

use super::millis;
use super::plot::{Mark, Panel, Picture, Tone};
use super::scene::{Dice, Points, Stage, Tally};

pub async fn bulkhead() -> Picture {
    const END: f64 = 30.0;
    let bulkhead = Bulkhead::new("payments", 10, 5).unwrap();
    let (stage, ends) = (Stage::new(), Tally::new(1.0, 2));
    let (inside, waiting) = (Points::default(), Points::default());
    stage
        .every(0.05, END, |begun| {
            let figures = bulkhead.snapshot();
            inside.add(begun, figures.in_flight as f64);
            waiting.add(begun, figures.queued as f64);
            let (bulkhead, ends) = (bulkhead.clone(), ends.clone());
            async move {
                let place = bulkhead.enter().await;
                ends.add(begun, usize::from(place.is_err()));
                if place.is_ok() {
                    sleep(millis(if (10.0..20.0).contains(&begun) { 1000 } else { 400 })).await;
                }
            }
        })
        .await;
    Picture {
        title: "Bulkhead of 10 places and a queue of 5: answers are slow from second 10 to 20",
        description: "Twenty calls a second that take 0.4 s need eight places. When answers take a second they would need twenty: all ten \
                      places and then the queue fill, and half of the calls are refused at once instead of piling up.",
        axis: "time (s)",
        span: (0.0, END),
        panels: vec![
            Panel::Chart {
                axis: "calls",
                span: (0.0, 12.0),
                height: 84.0,
                marks: vec![
                    Mark::Line("inside", Tone::Main, inside.all()),
                    Mark::Line("waiting", Tone::Wait, waiting.all()),
                    Mark::Level("limit", 10.0),
                ],
            },
            Panel::Chart {
                axis: "calls/s",
                span: (0.0, 20.0),
                height: 60.0,
                marks: vec![Mark::Bars {
                    width: 1.0,
                    kinds: vec![("let in", Tone::Good), ("refused", Tone::Bad)],
                    bars: ends.bars(),
                }],
            },
        ],
    }
}

pub async fn rate_limit() -> Picture {
    const END: f64 = 16.0;
    let limit = RateLimit::new(
        "partner",
        RateLimitSettings {
            limit: 10,
            burst: Some(20),
            ..RateLimitSettings::default()
        },
    )
    .unwrap();
    let (stage, calls, left) = (Stage::new(), Tally::new(0.5, 2), Points::default());
    for step in 0..480 {
        let now = f64::from(step) / 30.0;
        stage.at(now).await;
        left.add(now, limit.snapshot().available as f64);
        // Thirty calls a second for six seconds, then five.
        let comes = match now {
            2.0..8.0 => true,
            8.0..END => step % 6 == 0,
            _ => false,
        };
        if comes {
            calls.add(now, usize::from(limit.try_acquire().is_err()));
        }
    }
    Picture {
        title: "Rate limit of 10 a second with a burst of 20: 30 calls a second come, then 5",
        description: "The burst lets the first twenty calls pass at once, then ten a second pass and the others are \
                      refused. When fewer come than are allowed, all pass and the burst fills again.",
        axis: "time (s)",
        span: (0.0, END),
        panels: vec![
            Panel::Chart {
                axis: "calls/0.5 s",
                span: (0.0, 16.0),
                height: 84.0,
                marks: vec![
                    Mark::Bars {
                        width: 0.5,
                        kinds: vec![("passed", Tone::Good), ("refused", Tone::Bad)],
                        bars: calls.bars(),
                    },
                    Mark::Level("the limit", 5.0),
                ],
            },
            Panel::Chart {
                axis: "calls",
                span: (0.0, 20.0),
                height: 60.0,
                marks: vec![Mark::Line("left of the burst", Tone::Main, left.all())],
            },
        ],
    }
}

/// A dependency that shares itself among the calls inside: above its capacity every one takes longer.
pub async fn adaptive_limit() -> Picture {
    const END: f64 = 60.0;
    const BASE: f64 = 0.02;
    let capacity = |now: f64| if (20.0..40.0).contains(&now) { 12.0 } else { 40.0 };
    let limit = AdaptiveLimit::new(
        "search",
        AdaptiveSettings {
            min: 5,
            max: 100,
            ..AdaptiveSettings::default()
        },
    )
    .unwrap();
    let stage = Stage::new();
    let mut running: BTreeMap<(u64, u64), Sample> = BTreeMap::new();
    let (limits, latencies, capacities) = (Points::default(), Points::default(), Points::default());
    let (mut sum, mut count) = (0.0, 0.0);
    for step in 0..30_000_u64 {
        let now = step as f64 * 0.002;
        stage.at(now).await;
        while let Some(entry) = running.first_entry().filter(|entry| entry.key().0 <= step) {
            entry.remove().record(Verdict::Success);
        }
        while let Ok(sample) = limit.acquire() {
            let latency = BASE * (running.len() as f64 / capacity(now)).max(1.0);
            (sum, count) = (sum + latency, count + 1.0);
            running.insert(
                (step + (latency / 0.002).ceil() as u64, (count as u64) + step * 1000),
                sample,
            );
        }
        if step % 125 == 124 && count > 0.0 {
            limits.add(now, limit.snapshot().limit as f64);
            capacities.add(now, capacity(now));
            latencies.add(now, sum / count * 1000.0);
            (sum, count) = (0.0, 0.0);
        }
    }
    Picture {
        title: "Adaptive limit: the dependency's capacity falls from 40 calls to 12 and comes back",
        description: "More calls than can be served always wait outside. The limit rises until answers take half as long \
                      again as usual; it falls when the capacity falls, so that the latency is high for two seconds only, \
                      and rises again afterwards.",
        axis: "time (s)",
        span: (0.0, END),
        panels: vec![
            Panel::Chart {
                axis: "calls",
                span: (0.0, 100.0),
                height: 90.0,
                marks: vec![
                    Mark::Line("limit", Tone::Main, limits.all()),
                    Mark::Line("capacity", Tone::Quiet, capacities.all()),
                ],
            },
            Panel::Chart {
                axis: "latency (ms)",
                span: (0.0, 100.0),
                height: 64.0,
                marks: vec![Mark::Line("latency", Tone::Wait, latencies.all())],
            },
        ],
    }
}

pub async fn shedding() -> Picture {
    const END: f64 = 40.0;
    const TICK: f64 = 0.02;
    let settings = ShedSettings {
        limit: Some(40),
        ..ShedSettings::default()
    };
    let shedder = Shedder::new("front", &settings).unwrap();
    let stage = Stage::new();
    let (offered, refused, inside) = (Tally::new(1.0, 4), Tally::new(1.0, 4), Points::default());
    let mut due = [0.0; 4];
    for tick in 0..2000_usize {
        let now = tick as f64 * TICK;
        stage.at(now).await;
        // Of each priority from 5 requests a second up to 45 and back.
        let rate = 5.0 + 40.0 * (1.0 - (now - END / 2.0).abs() / (END / 2.0));
        for turn in 0..4 {
            // Nobody always comes first.
            let kind = (turn + tick) % 4;
            due[kind] += rate * TICK;
            if due[kind] < 1.0 {
                continue;
            }
            due[kind] -= 1.0;
            offered.add(now, kind);
            match shedder.admit(Priority::ALL[kind]) {
                Ok(admission) => drop(tokio::spawn(async move {
                    sleep(millis(500)).await;
                    drop(admission);
                })),
                Err(_) => refused.add(now, kind),
            }
        }
        if tick % 10 == 0 {
            inside.add(now, shedder.snapshot().in_flight as f64);
        }
    }
    let share = |kind| -> Vec<(f64, f64)> {
        let all = offered.rate(kind, END);
        let refused = refused.rate(kind, END);
        all.iter()
            .zip(refused)
            .map(|((at, all), (_, refused))| (*at, refused / all * 100.0))
            .collect()
    };
    Picture {
        title: "Load shedding with a limit of 40: requests rise from 20 a second to 180 and fall",
        description: "Low requests may use half of the limit and are refused first, then normal ones, then high ones; \
                      critical ones are refused only when everything is full.",
        axis: "time (s)",
        span: (0.0, END),
        panels: vec![
            Panel::Chart {
                axis: "refused (%)",
                span: (0.0, 100.0),
                height: 96.0,
                marks: vec![
                    Mark::Line("low", Tone::Bad, share(3)),
                    Mark::Line("normal", Tone::Wait, share(2)),
                    Mark::Line("high", Tone::Good, share(1)),
                    Mark::Line("critical", Tone::Main, share(0)),
                ],
            },
            Panel::Chart {
                axis: "requests",
                span: (0.0, 50.0),
                height: 56.0,
                marks: vec![
                    Mark::Line("inside", Tone::Quiet, inside.all()),
                    Mark::Level("limit", 40.0),
                ],
            },
        ],
    }
}

pub async fn throttle() -> Picture {
    const END: f64 = 120.0;
    let dice = Mutex::new(Dice::new(7));
    let settings = ThrottleSettings {
        window: millis(30_000),
        ..ThrottleSettings::default()
    };
    let throttle = Throttle::with_chance("search", settings, move || dice.lock().unwrap().roll()).unwrap();
    let (stage, calls, share) = (Stage::new(), Tally::new(2.0, 3), Points::default());
    let mut arrived = 0;
    for step in 0..6000 {
        let now = f64::from(step) * 0.02;
        stage.at(now).await;
        calls.add(now, 0);
        if step % 50 == 0 {
            share.add(now, throttle.snapshot().reject_probability * 100.0);
            arrived = 0;
        }
        let Ok(permit) = throttle.acquire() else { continue };
        calls.add(now, 1);
        arrived += 1;
        // Ten a second are accepted while it has too much to do.
        if (20.0..70.0).contains(&now) && arrived > 10 {
            permit.record(Verdict::Overload { hint: None });
        } else {
            calls.add(now, 2);
            permit.record(Verdict::Success);
        }
    }
    Picture {
        title: "Throttle: from second 20 to 70 the dependency accepts 10 calls a second of 50",
        description: "Once more than twice as many calls are sent as are accepted, the client refuses the rest itself, by \
                      chance: the dependency is sent about twice what it accepts, not five times. When it accepts all \
                      again, the share refused falls to nothing.",
        axis: "time (s)",
        span: (0.0, END),
        panels: vec![
            Panel::Chart {
                axis: "calls/s",
                span: (0.0, 60.0),
                height: 96.0,
                marks: vec![
                    Mark::Line("offered", Tone::Quiet, calls.rate(0, END)),
                    Mark::Line("sent", Tone::Main, calls.rate(1, END)),
                    Mark::Line("accepted", Tone::Good, calls.rate(2, END)),
                ],
            },
            Panel::Chart {
                axis: "share (%)",
                span: (0.0, 100.0),
                height: 56.0,
                marks: vec![Mark::Line("refused here", Tone::Bad, share.all())],
            },
        ],
    }
}
