//! The breaker against a model: a plain list of everything that happened, looked through anew at every step. Whatever
//! the sequence of calls, results, drops and waits, both must admit and refuse the same calls and be in the same state.

use std::time::Duration;

use proptest::prelude::*;

use super::State;
use super::core::{Core, Ending, Settings, Token, WindowKind};

const MIN_CALLS: usize = 4;
const PROBES: usize = 2;
const LEASE: u64 = 300;
/// Ten buckets of 100 ms.
const BUCKET: u64 = 100;

#[derive(Debug, Clone)]
enum Step {
    Acquire,
    End { which: prop::sample::Index, how: How },
    Wait(u64),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum How {
    Success,
    Failure,
    Ignore,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let how = prop_oneof![
        3 => Just(How::Success),
        4 => Just(How::Failure),
        1 => Just(How::Ignore),
    ];
    let step = prop_oneof![
        5 => Just(Step::Acquire),
        5 => (any::<prop::sample::Index>(), how).prop_map(|(which, how)| Step::End { which, how }),
        2 => (1..700_u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..120)
}

/// What the breaker should be, kept in the simplest way. Times are milliseconds.
struct Model {
    era: u64,
    trips: u32,
    phase: Phase,
    results: Vec<(u64, bool)>,
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
}

struct Call {
    id: usize,
    era: u64,
    token: Token,
}

impl Model {
    fn state(&self, now: u64) -> State {
        match &self.phase {
            Phase::Closed => State::Closed,
            Phase::Open { until } if now < *until => State::Open,
            _ => State::HalfOpen,
        }
    }

    fn change(&mut self, phase: Phase) {
        self.era += 1;
        self.results.clear();
        self.phase = phase;
    }

    fn admits(&mut self, now: u64, id: usize) -> bool {
        if matches!(self.phase, Phase::Open { until } if now >= until) {
            self.change(Phase::HalfOpen {
                out: Vec::new(),
                good: 0,
                bad: 0,
            });
        }
        match &mut self.phase {
            Phase::Closed => true,
            Phase::Open { .. } => false,
            Phase::HalfOpen { out, good, bad } => {
                out.retain(|(_, until)| *until > now);
                let free = out.len() + *good + *bad < PROBES;
                if free {
                    out.push((id, now + LEASE));
                }
                free
            }
        }
    }

    fn end(&mut self, now: u64, call: &Call, how: How) {
        if call.era == self.era && self.trips_with(now, call, how) {
            let until = now + (200 << self.trips).min(800);
            self.trips += 1;
            self.change(Phase::Open { until });
        }
    }

    fn trips_with(&mut self, now: u64, call: &Call, how: How) -> bool {
        match &mut self.phase {
            Phase::HalfOpen { out, good, bad } => {
                let Some(place) = out.iter().position(|(id, _)| *id == call.id) else {
                    return false;
                };
                out.remove(place);
                match how {
                    How::Success => *good += 1,
                    How::Failure => *bad += 1,
                    How::Ignore => {}
                }
                // Two probes at a ratio of one half: both must succeed.
                if *good == PROBES {
                    self.trips = 0;
                    self.change(Phase::Closed);
                    return false;
                }
                *bad > 0
            }
            Phase::Closed => {
                match how {
                    How::Success => self.results.push((now, true)),
                    How::Failure => self.results.push((now, false)),
                    How::Ignore => return false,
                }
                let first = (now / BUCKET).saturating_sub(9);
                let recent: Vec<bool> = self
                    .results
                    .iter()
                    .filter(|(at, _)| at / BUCKET >= first)
                    .map(|(_, ok)| *ok)
                    .collect();
                let failed = recent.iter().filter(|ok| !**ok).count();
                how == How::Failure && recent.len() >= MIN_CALLS && failed * 2 >= recent.len()
            }
            Phase::Open { .. } => false,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_breaker_is_its_model(steps in steps()) {
        let mut core = Core::new(Settings {
            failure_ratio: 0.5,
            min_calls: MIN_CALLS as u64,
            kind: WindowKind::Time(Duration::from_millis(10 * BUCKET)),
            consecutive: None,
            slow: None,
            open: Duration::from_millis(200),
            open_max: Duration::from_millis(800),
            probes: PROBES as u32,
            lease: Duration::from_millis(LEASE),
        });
        let mut model = Model { era: 0, trips: 0, phase: Phase::Closed, results: Vec::new() };
        let mut calls: Vec<Call> = Vec::new();
        let mut now = 1_000;
        for (id, step) in steps.into_iter().enumerate() {
            let at = Duration::from_millis(now);
            match step {
                Step::Acquire => {
                    let admitted = core.acquire(at);
                    prop_assert_eq!(admitted.is_ok(), model.admits(now, id), "step {}", id);
                    if let Ok(token) = admitted {
                        calls.push(Call { id, era: model.era, token });
                    }
                }
                Step::End { which, how } if !calls.is_empty() => {
                    let call = calls.swap_remove(which.index(calls.len()));
                    model.end(now, &call, how);
                    let ending = match how {
                        How::Success => Ending::Success,
                        How::Failure => Ending::Failure,
                        How::Ignore => Ending::Ignored,
                    };
                    core.record(at, call.token, ending, Duration::ZERO, 0.0);
                }
                Step::End { .. } => {}
                Step::Wait(millis) => now += millis,
            }
            prop_assert_eq!(core.state(Duration::from_millis(now)), model.state(now), "step {}", id);
        }
    }
}
