//! The breaker's state machine, pure: time is an argument, tokens carry the generation in which they were given, and a
//! result of an older generation changes nothing. Locks, clocks and listeners are `breaker`'s.

use std::collections::VecDeque;
use std::time::Duration;

use super::State;
use crate::window::Window;

const OK: usize = 0;
const FAILED: usize = 1;
const SLOW: usize = 2;

#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) failure_ratio: f64,
    pub(super) min_calls: u64,
    pub(super) kind: WindowKind,
    pub(super) consecutive: Option<u32>,
    pub(super) slow: Option<(Duration, f64)>,
    pub(super) open: Duration,
    pub(super) open_max: Duration,
    pub(super) probes: u32,
    pub(super) lease: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WindowKind {
    Time(Duration),
    Calls(usize),
}

/// Right to make one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    generation: u64,
    probe: Option<u64>,
}

/// How a call ended, as far as the breaker cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Success,
    Failure,
    Ignored,
}

#[derive(Debug)]
pub(super) struct Core {
    settings: Settings,
    phase: Phase,
    forced: Option<State>,
    generation: u64,
    calls: Calls,
    consecutive_failures: u32,
    /// Opens since it was last closed; the break doubles with each.
    trips: u32,
    next_probe: u64,
}

#[derive(Debug)]
enum Phase {
    Closed,
    Open {
        until: Duration,
    },
    HalfOpen {
        out: Vec<(u64, Duration)>,
        succeeded: u32,
        failed: u32,
    },
}

#[derive(Debug)]
enum Calls {
    Time(Box<Window<3>>),
    Last { size: usize, ring: VecDeque<(bool, bool)> },
}

impl Calls {
    fn new(kind: WindowKind) -> Self {
        match kind {
            WindowKind::Time(length) => Self::Time(Box::new(Window::new(length))),
            WindowKind::Calls(size) => Self::Last {
                size,
                ring: VecDeque::with_capacity(size),
            },
        }
    }

    fn add(&mut self, now: Duration, failed: bool, slow: bool) {
        match self {
            Self::Time(window) => {
                window.add(now, if failed { FAILED } else { OK });
                if slow {
                    window.add(now, SLOW);
                }
            }
            Self::Last { size, ring } => {
                if ring.len() == *size {
                    ring.pop_front();
                }
                ring.push_back((failed, slow));
            }
        }
    }

    /// All, failed, slow.
    fn sums(&self, now: Duration) -> (u64, u64, u64) {
        match self {
            Self::Time(window) => {
                let [ok, failed, slow] = window.sums(now);
                (ok + failed, failed, slow)
            }
            Self::Last { ring, .. } => {
                let failed = ring.iter().filter(|(failed, _)| *failed).count() as u64;
                let slow = ring.iter().filter(|(_, slow)| *slow).count() as u64;
                (ring.len() as u64, failed, slow)
            }
        }
    }

    fn clear(&mut self) {
        match self {
            Self::Time(window) => window.clear(),
            Self::Last { ring, .. } => ring.clear(),
        }
    }
}

impl Core {
    pub(super) fn new(settings: Settings) -> Self {
        let calls = Calls::new(settings.kind);
        Self {
            settings,
            phase: Phase::Closed,
            forced: None,
            generation: 0,
            calls,
            consecutive_failures: 0,
            trips: 0,
            next_probe: 0,
        }
    }

    /// The state at `now`: open past its time reads half-open.
    pub(super) fn state(&self, now: Duration) -> State {
        if let Some(forced) = self.forced {
            return forced;
        }
        match self.phase {
            Phase::Closed => State::Closed,
            Phase::Open { until } if now < until => State::Open,
            Phase::Open { .. } | Phase::HalfOpen { .. } => State::HalfOpen,
        }
    }

    /// Asks for a call. Refused: when to come back, if known.
    pub(super) fn acquire(&mut self, now: Duration) -> Result<Token, Option<Duration>> {
        match self.forced {
            Some(State::ForcedOpen) => return Err(None),
            Some(_) => {
                return Ok(Token {
                    generation: self.generation,
                    probe: None,
                });
            }
            None => {}
        }
        if let Phase::Open { until } = self.phase {
            if now < until {
                return Err(Some(until.saturating_sub(now)));
            }
            self.enter(Phase::HalfOpen {
                out: Vec::new(),
                succeeded: 0,
                failed: 0,
            });
        }
        let (generation, lease) = (self.generation, self.settings.lease);
        match &mut self.phase {
            Phase::HalfOpen { out, succeeded, failed } => {
                // A probe that hangs loses its place when its lease is over.
                out.retain(|(_, until)| *until > now);
                if out.len() as u32 + *succeeded + *failed >= self.settings.probes {
                    return Err(out.iter().map(|(_, until)| until.saturating_sub(now)).min());
                }
                let id = self.next_probe;
                self.next_probe += 1;
                out.push((id, now + lease));
                Ok(Token {
                    generation,
                    probe: Some(id),
                })
            }
            Phase::Closed | Phase::Open { .. } => Ok(Token {
                generation,
                probe: None,
            }),
        }
    }

    /// Takes a result; false when it is of an older generation, or of a probe that lost its place. `spread` in 0..=1
    /// is the jitter of a break that begins now.
    pub(super) fn record(&mut self, now: Duration, token: Token, ending: Ending, took: Duration, spread: f64) -> bool {
        if token.generation != self.generation {
            return false;
        }
        let slow = self.settings.slow.is_some_and(|(limit, _)| took >= limit);
        if let Phase::HalfOpen { out, succeeded, failed } = &mut self.phase {
            let Some(place) = out.iter().position(|(id, _)| Some(*id) == token.probe) else {
                return false;
            };
            out.swap_remove(place);
            match ending {
                Ending::Success if !slow => *succeeded += 1,
                Ending::Success | Ending::Failure => *failed += 1,
                // The place is free for another probe.
                Ending::Ignored => {}
            }
            let (succeeded, failed) = (*succeeded, *failed);
            let needed = needed_successes(self.settings.probes, self.settings.failure_ratio);
            if succeeded >= needed {
                self.trips = 0;
                self.enter(Phase::Closed);
            } else if failed > self.settings.probes - needed {
                self.trip(now, spread);
            }
            return true;
        }
        match ending {
            Ending::Ignored => return true,
            Ending::Success => self.consecutive_failures = 0,
            Ending::Failure => self.consecutive_failures = self.consecutive_failures.saturating_add(1),
        }
        self.calls.add(now, ending == Ending::Failure, slow);
        // A fast success cannot raise either ratio.
        if self.forced.is_none() && (ending == Ending::Failure || slow) && self.is_too_much(now) {
            self.trip(now, spread);
        }
        true
    }

    fn is_too_much(&self, now: Duration) -> bool {
        if self
            .settings
            .consecutive
            .is_some_and(|limit| self.consecutive_failures >= limit)
        {
            return true;
        }
        let (all, failed, slow) = self.calls.sums(now);
        if all < self.settings.min_calls {
            return false;
        }
        failed as f64 >= self.settings.failure_ratio * all as f64 - 1e-9 && failed > 0
            || self
                .settings
                .slow
                .is_some_and(|(_, ratio)| slow as f64 >= ratio * all as f64 - 1e-9 && slow > 0)
    }

    /// Opens for the base time doubled with each trip in a row, spread by up to a quarter.
    fn trip(&mut self, now: Duration, spread: f64) {
        let doubled = self
            .settings
            .open
            .saturating_mul(2_u32.saturating_pow(self.trips.min(16)));
        let break_for = doubled
            .min(self.settings.open_max)
            .mul_f64(1.0 + 0.25 * spread.clamp(0.0, 1.0));
        self.trips = self.trips.saturating_add(1);
        self.enter(Phase::Open { until: now + break_for });
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.generation += 1;
        self.calls.clear();
        self.consecutive_failures = 0;
    }

    /// Forces a state, or releases it (to closed, with nothing remembered).
    pub(super) fn force(&mut self, forced: Option<State>) {
        self.forced = forced;
        self.trips = 0;
        self.enter(Phase::Closed);
    }

    /// Calls and failures in the window.
    pub(super) fn window(&self, now: Duration) -> (u64, u64) {
        let (all, failed, _) = self.calls.sums(now);
        (all, failed)
    }
}

/// Successes among `probes` after which the share of failures stays under `ratio`; at least one.
pub(super) fn needed_successes(probes: u32, ratio: f64) -> u32 {
    let tolerated = (f64::from(probes) * ratio - 1e-9).floor().max(0.0) as u32;
    (probes - tolerated.min(probes - 1)).max(1)
}
