//! The breaker against a model: a plain list of everything that happened, looked through anew at every step. Whatever
//! the sequence of calls, results, drops, waits and forced states, both must admit and refuse the same calls, be in the
//! same state and have counted the same.

use std::time::Duration;

use proptest::prelude::*;

use super::{Breaker, BreakerBuilder, BreakerCounts, Force, Permit, State};
use crate::clock;
use crate::verdict::{Kind, Verdict};

const MIN_CALLS: usize = 4;
const PROBES: usize = 2;
const LEASE: u64 = 300;
/// Ten buckets of 100 ms.
const BUCKET: u64 = 100;
const FIRST_BREAK: u64 = 200;
const LONGEST_BREAK: u64 = 800;

/// What differs between breakers.
#[derive(Debug, Clone, Copy)]
struct Options {
    last_calls: Option<usize>,
    consecutive: Option<usize>,
    /// Milliseconds; half of the calls.
    slow: Option<u64>,
}

#[derive(Debug, Clone)]
enum Step {
    Acquire,
    End { which: prop::sample::Index, how: How },
    Wait(u64),
    Force { open: bool, ttl: Option<u64> },
    Release,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum How {
    Success,
    Failure,
    Overload,
    Ignore,
    Drop,
}

fn options() -> impl Strategy<Value = Options> {
    (
        prop_oneof![2 => Just(None), 1 => (MIN_CALLS..9).prop_map(Some)],
        prop_oneof![2 => Just(None), 1 => (1..5_usize).prop_map(Some)],
        prop_oneof![2 => Just(None), 1 => Just(Some(150))],
    )
        .prop_map(|(last_calls, consecutive, slow)| Options {
            last_calls,
            consecutive,
            slow,
        })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let how = prop_oneof![
        6 => Just(How::Success),
        7 => Just(How::Failure),
        1 => Just(How::Overload),
        1 => Just(How::Ignore),
        1 => Just(How::Drop),
    ];
    let ttl = prop_oneof![Just(None), (1..900_u64).prop_map(Some)];
    let step = prop_oneof![
        20 => Just(Step::Acquire),
        20 => (any::<prop::sample::Index>(), how).prop_map(|(which, how)| Step::End { which, how }),
        8 => (1..700_u64).prop_map(Step::Wait),
        1 => (any::<bool>(), ttl).prop_map(|(open, ttl)| Step::Force { open, ttl }),
        1 => Just(Step::Release),
    ];
    prop::collection::vec(step, 1..150)
}

/// What the breaker should be, kept in the simplest way. Times are milliseconds.
struct Model {
    options: Options,
    era: u64,
    trips: u32,
    phase: Phase,
    results: Vec<Outcome>,
    counts: BreakerCounts,
}

#[derive(Clone, Copy)]
struct Outcome {
    at: u64,
    failed: bool,
    slow: bool,
    /// Whether it continues a row of failures, ends it, or neither.
    row: Option<bool>,
}

enum Phase {
    Closed,
    Open {
        until: u64,
    },
    HalfOpen {
        out: Vec<(usize, u64)>,
        good: usize,
        bad: usize,
    },
    Forced {
        open: bool,
        until: Option<u64>,
    },
}

/// What a result makes of the breaker.
#[derive(Debug, PartialEq)]
enum Effect {
    None,
    Opens,
}

struct Call {
    id: usize,
    era: u64,
    started: u64,
    permit: Permit,
}

impl Model {
    fn state(&self, now: u64) -> State {
        match &self.phase {
            Phase::Forced { until: Some(until), .. } if now >= *until => State::Closed,
            Phase::Forced { open: true, .. } => State::ForcedOpen,
            Phase::Forced { open: false, .. } => State::ForcedClosed,
            Phase::Closed => State::Closed,
            Phase::Open { until } if now < *until => State::Open,
            Phase::Open { .. } | Phase::HalfOpen { .. } => State::HalfOpen,
        }
    }

    fn change(&mut self, phase: Phase) {
        self.era += 1;
        self.results.clear();
        self.phase = phase;
    }

    fn admits(&mut self, now: u64, id: usize) -> bool {
        match self.phase {
            Phase::Open { until } if now >= until => self.change(Phase::HalfOpen {
                out: Vec::new(),
                good: 0,
                bad: 0,
            }),
            Phase::Forced { until: Some(until), .. } if now >= until => {
                self.trips = 0;
                self.change(Phase::Closed);
            }
            _ => {}
        }
        let admits = match &mut self.phase {
            Phase::Closed | Phase::Forced { open: false, .. } => true,
            Phase::Open { .. } | Phase::Forced { .. } => false,
            Phase::HalfOpen { out, good, bad } => {
                out.retain(|(_, until)| *until > now);
                let free = out.len() + *good + *bad < PROBES;
                if free {
                    out.push((id, now + LEASE));
                }
                free
            }
        };
        self.counts.rejected += u64::from(!admits);
        admits
    }

    fn end(&mut self, now: u64, call: &Call, how: How) -> Effect {
        let took = now - call.started;
        let slow = self.options.slow.is_some_and(|limit| took >= limit);
        let says = match how {
            How::Success => Some(false),
            How::Failure | How::Overload => Some(true),
            How::Ignore => None,
            // Without another rule a call that hung for as long as a slow one is a failure.
            How::Drop => slow.then_some(true),
        };
        let current = call.era == self.era;
        let mut counts_as_current = current;
        let mut effect = Effect::None;
        match &mut self.phase {
            Phase::HalfOpen { out, good, bad } if current => {
                let place = out.iter().position(|(id, _)| *id == call.id);
                counts_as_current = place.is_some();
                if let Some(place) = place {
                    out.remove(place);
                    match says {
                        Some(false) if !slow => *good += 1,
                        Some(_) => *bad += 1,
                        None => {}
                    }
                    // Two probes at a ratio of one half: both must succeed.
                    if *good == PROBES {
                        self.trips = 0;
                        self.change(Phase::Closed);
                    } else if *bad > 0 {
                        effect = Effect::Opens;
                    }
                }
            }
            Phase::Closed if current => {
                if let Some(failed) = says {
                    let row = match how {
                        How::Success => Some(false),
                        How::Overload => None,
                        _ => Some(true),
                    };
                    self.results.push(Outcome {
                        at: now,
                        failed,
                        slow,
                        row,
                    });
                    if (failed || slow) && self.is_too_much(now, row == Some(true)) {
                        effect = Effect::Opens;
                    }
                }
            }
            _ => {}
        }
        let counts = &mut self.counts;
        *match how {
            How::Drop => &mut counts.cancelled,
            _ if !counts_as_current => &mut counts.stale,
            How::Success if slow => &mut counts.slow,
            How::Success => &mut counts.success,
            How::Failure | How::Overload => &mut counts.failure,
            How::Ignore => &mut counts.ignored,
        } += 1;
        effect
    }

    fn is_too_much(&self, now: u64, in_row: bool) -> bool {
        let row = self
            .results
            .iter()
            .rev()
            .filter_map(|result| result.row)
            .take_while(|failed| *failed);
        if in_row && self.options.consecutive.is_some_and(|limit| row.count() >= limit) {
            return true;
        }
        let first = now / BUCKET - 9;
        let window: Vec<&Outcome> = match self.options.last_calls {
            Some(size) => self.results.iter().rev().take(size).collect(),
            None => self
                .results
                .iter()
                .filter(|result| result.at / BUCKET >= first)
                .collect(),
        };
        let half_are = |are: fn(&Outcome) -> bool| {
            let count = window.iter().filter(|result| are(result)).count();
            count > 0 && count * 2 >= window.len()
        };
        window.len() >= MIN_CALLS
            && (half_are(|result| result.failed) || self.options.slow.is_some() && half_are(|result| result.slow))
    }
}

fn breaker(options: Options) -> Breaker {
    let millis = Duration::from_millis;
    let mut builder: BreakerBuilder = Breaker::builder("model")
        .min_calls(MIN_CALLS as u64)
        .window(millis(10 * BUCKET))
        .open(millis(FIRST_BREAK), millis(LONGEST_BREAK))
        .half_open(PROBES as u32, millis(LEASE));
    if let Some(calls) = options.last_calls {
        builder = builder.last_calls(calls);
    }
    if let Some(failures) = options.consecutive {
        builder = builder.consecutive(failures as u32);
    }
    if let Some(limit) = options.slow {
        builder = builder.slow_calls(millis(limit), 0.5);
    }
    builder.build().expect("the settings make sense")
}

async fn compare(options: Options, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let breaker = breaker(options);
    let mut model = Model {
        options,
        era: 0,
        trips: 0,
        phase: Phase::Closed,
        results: Vec::new(),
        counts: BreakerCounts::default(),
    };
    let mut calls: Vec<Call> = Vec::new();
    for (id, step) in steps.into_iter().enumerate() {
        let now = clock::coarse_millis();
        match step {
            Step::Acquire => {
                let admitted = breaker.acquire();
                prop_assert_eq!(admitted.is_ok(), model.admits(now, id), "step {}", id);
                if let Ok(permit) = admitted {
                    calls.push(Call {
                        id,
                        era: model.era,
                        started: now,
                        permit,
                    });
                }
            }
            Step::End { which, how } if !calls.is_empty() => {
                let call = calls.swap_remove(which.index(calls.len()));
                let effect = model.end(now, &call, how);
                match how {
                    How::Success => call.permit.record(Verdict::Success),
                    How::Failure => call.permit.record(Verdict::Failure(Kind::Transient)),
                    How::Overload => call.permit.record(Verdict::Overload { hint: None }),
                    How::Ignore => call.permit.record(Verdict::Ignore),
                    How::Drop => drop(call.permit),
                }
                if effect == Effect::Opens {
                    // Its length is drawn, so it is asked for, and must lie where it may.
                    let Err(refused) = breaker.gate() else {
                        return Err(TestCaseError::fail(format!("step {id}: not open")));
                    };
                    model.counts.rejected += 1;
                    let length = refused.retry_after.map_or(0, clock::millis);
                    let base = (FIRST_BREAK << model.trips.min(8)).min(LONGEST_BREAK);
                    prop_assert!((base..=base + base / 4).contains(&length), "step {}: {} ms", id, length);
                    model.trips += 1;
                    model.change(Phase::Open { until: now + length });
                }
            }
            Step::End { .. } => {}
            Step::Wait(millis) => tokio::time::advance(Duration::from_millis(millis)).await,
            Step::Force { open, ttl } => {
                let force = if open { Force::Open } else { Force::Closed };
                breaker.force(force, ttl.map(Duration::from_millis));
                model.trips = 0;
                model.change(Phase::Forced {
                    open,
                    until: ttl.map(|ttl| now + ttl),
                });
            }
            Step::Release => {
                breaker.release();
                model.trips = 0;
                model.change(Phase::Closed);
            }
        }
        prop_assert_eq!(breaker.state(), model.state(clock::coarse_millis()), "step {}", id);
        prop_assert_eq!(breaker.snapshot().calls, model.counts, "step {}", id);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_breaker_is_its_model(options in options(), steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(compare(options, steps))?;
    }
}
