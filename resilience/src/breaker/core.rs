//! The breaker's state machine, pure: time is an argument, tokens carry the generation in which they were given, and a
//! result of an older generation changes nothing. Counting calls, locks, clocks and listeners are others' matter: what
//! is here happens once in a transition, or for a probe.

use super::State;
use super::settings::BreakerSettings;
use super::word::{GENERATION_MASK, Seen};
use crate::clock::millis;

/// What the breaker does. Times are milliseconds of the crate's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    Closed,
    Open { until: u64 },
    HalfOpen(Probes),
    ForcedOpen { until: Option<u64> },
    ForcedClosed { until: Option<u64> },
}

/// The probes of one half-open time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Probes {
    /// Under way: number, and end of the lease.
    out: Vec<(u32, u64)>,
    succeeded: u32,
    failed: u32,
}

/// The answer to a call that asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// It may go, and is counted.
    Plain,
    /// It may go, and decides; with its number, from 1.
    Probe(u32),
    /// It may not.
    Refused(Refused),
}

/// A refusal: the milliseconds after which it is worth asking again, if known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused(pub(super) Option<u64>);

#[derive(Debug)]
pub(super) struct Core {
    phase: Phase,
    generation: u32,
    /// Opens since it was last closed; the break doubles with each.
    trips: u32,
    next_probe: u32,
}

impl Core {
    pub(super) const fn new() -> Self {
        Self {
            phase: Phase::Closed,
            generation: 0,
            trips: 0,
            next_probe: 0,
        }
    }

    /// The state at `now`: open past its time reads half-open, forced past its time reads closed.
    pub(super) fn state(&self, now: u64) -> State {
        let is_over = |until: Option<u64>| until.is_some_and(|until| now >= until);
        match self.phase {
            Phase::Open { until } if now < until => State::Open,
            Phase::Open { .. } | Phase::HalfOpen(_) => State::HalfOpen,
            Phase::ForcedOpen { until } if !is_over(until) => State::ForcedOpen,
            Phase::ForcedClosed { until } if !is_over(until) => State::ForcedClosed,
            Phase::Closed | Phase::ForcedOpen { .. } | Phase::ForcedClosed { .. } => State::Closed,
        }
    }

    /// Milliseconds until a forced state ends by itself.
    pub(super) fn forced_for(&self, now: u64) -> Option<u64> {
        match self.phase {
            Phase::ForcedOpen { until } | Phase::ForcedClosed { until } => {
                until.map(|until| until.saturating_sub(now)).filter(|left| *left > 0)
            }
            Phase::Closed | Phase::Open { .. } | Phase::HalfOpen(_) => None,
        }
    }

    /// Whether all calls are refused at `now`.
    pub(super) fn refuses(&self, now: u64) -> Option<Refused> {
        match self.phase {
            Phase::Open { until } | Phase::ForcedOpen { until: Some(until) } if now < until => {
                Some(Refused(Some(until - now)))
            }
            Phase::ForcedOpen { until: None } => Some(Refused(None)),
            _ => None,
        }
    }

    pub(super) const fn generation(&self) -> u32 {
        self.generation
    }

    /// What calls read without the lock.
    pub(super) fn seen(&self) -> Seen {
        Seen::new(&self.phase, self.generation)
    }

    /// Asks for a call.
    pub(super) fn admit(&mut self, settings: &BreakerSettings, now: u64) -> Admission {
        self.lapse(now);
        match &mut self.phase {
            Phase::Closed | Phase::ForcedClosed { .. } => Admission::Plain,
            Phase::Open { until } => Admission::Refused(Refused(Some(until.saturating_sub(now)))),
            Phase::ForcedOpen { until } => Admission::Refused(Refused(until.map(|until| until.saturating_sub(now)))),
            Phase::HalfOpen(probes) => {
                // A probe that hangs loses its place when its lease is over.
                probes.out.retain(|(_, until)| *until > now);
                if probes.out.len() as u64 + u64::from(probes.succeeded) + u64::from(probes.failed)
                    >= u64::from(settings.half_open.probes)
                {
                    let first = probes.out.iter().map(|(_, until)| until.saturating_sub(now)).min();
                    return Admission::Refused(Refused(first));
                }
                // 0 and the highest number are not a probe's; two billion later ones cannot meet.
                self.next_probe = (self.next_probe + 1) & (u32::MAX >> 1);
                self.next_probe = self.next_probe.max(1);
                let lease = millis(settings.half_open.lease).max(1);
                probes.out.push((self.next_probe, now.saturating_add(lease)));
                Admission::Probe(self.next_probe)
            }
        }
    }

    /// Goes on from a phase whose time is over.
    fn lapse(&mut self, now: u64) {
        match self.phase {
            Phase::Open { until } if now >= until => self.enter(Phase::HalfOpen(Probes::default())),
            Phase::ForcedOpen { until: Some(until) } | Phase::ForcedClosed { until: Some(until) } if now >= until => {
                self.trips = 0;
                self.enter(Phase::Closed);
            }
            _ => {}
        }
    }

    /// Takes the result of a probe: whether it was good, or `None` when it says nothing. False when it lost its place, as
    /// probes of an earlier half-open time did: their numbers do not come again. `spread` in 0..=1 is the jitter of a break that begins now.
    pub(super) fn probed(
        &mut self,
        settings: &BreakerSettings,
        now: u64,
        probe: u32,
        good: Option<bool>,
        spread: f64,
    ) -> bool {
        let Phase::HalfOpen(probes) = &mut self.phase else {
            return false;
        };
        let Some(place) = probes.out.iter().position(|(number, _)| *number == probe) else {
            return false;
        };
        probes.out.swap_remove(place);
        match good {
            Some(true) => probes.succeeded += 1,
            Some(false) => probes.failed += 1,
            // The place is free for another probe.
            None => {}
        }
        self.decide(settings, now, spread);
        true
    }

    /// Closes or opens when the probes say enough; to be asked again when the settings changed.
    pub(super) fn decide(&mut self, settings: &BreakerSettings, now: u64, spread: f64) {
        let Phase::HalfOpen(Probes { succeeded, failed, .. }) = self.phase else {
            return;
        };
        let all = settings.half_open.probes;
        let needed = needed_successes(all, settings.half_open.ratio.unwrap_or(settings.failure_ratio));
        if succeeded >= needed {
            self.trips = 0;
            self.enter(Phase::Closed);
        } else if failed > all - needed {
            self.open(settings, now, spread);
        }
    }

    /// Opens, if it is closed and still in `generation`: for the base time doubled with each trip in a row, spread by
    /// up to a quarter.
    pub(super) fn trip(&mut self, settings: &BreakerSettings, now: u64, generation: u32, spread: f64) {
        if self.phase == Phase::Closed && generation == self.generation {
            self.open(settings, now, spread);
        }
    }

    fn open(&mut self, settings: &BreakerSettings, now: u64, spread: f64) {
        let doubled = settings.open.saturating_mul(2_u32.saturating_pow(self.trips));
        let length = doubled.min(settings.open_max).as_secs_f64() * 1000.0 * (1.0 + 0.25 * spread.clamp(0.0, 1.0));
        self.trips = self.trips.saturating_add(1);
        self.enter(Phase::Open {
            until: now.saturating_add(length.ceil() as u64),
        });
    }

    /// Forces a phase, or with [`Phase::Closed`] ends a forced or an open one; nothing is remembered.
    pub(super) fn force(&mut self, phase: Phase) {
        self.trips = 0;
        self.enter(phase);
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.generation = self.generation.wrapping_add(1) & GENERATION_MASK;
    }
}

/// Successes among `probes` after which the share of failures stays under `ratio`; at least one.
fn needed_successes(probes: u32, ratio: f64) -> u32 {
    // One that reaches the ratio is too many: at one half, one of two may not fail, and one of three may.
    let tolerated = (f64::from(probes) * ratio - 1e-9).floor().max(0.0) as u32;
    probes - tolerated.min(probes.saturating_sub(1))
}

#[cfg(all(test, not(resilience_loom)))]
mod tests {
    use super::*;

    /// A failure that was counted just before a transition may ask only after it.
    #[test]
    fn who_comes_too_late_opens_nothing() {
        let (settings, mut core) = (BreakerSettings::default(), Core::new());
        let late = core.generation();
        core.force(Phase::Closed);
        core.trip(&settings, 0, late, 0.0);
        assert_eq!(core.state(0), State::Closed);
        core.trip(&settings, 0, core.generation(), 0.0);
        core.trip(&settings, 1_000, core.generation(), 0.0);
        assert_eq!(core.phase, Phase::Open { until: 5_000 }, "open is not opened again");
    }

    #[test]
    fn one_that_reaches_the_share_is_one_too_many() {
        for (probes, ratio, needed) in [
            (1, 0.5, 1),
            (2, 0.5, 2),
            (3, 0.5, 2),
            (4, 0.5, 3),
            (3, 1.0, 1),
            (1, 1.0, 1),
            (10, 0.1, 10),
        ] {
            assert_eq!(needed_successes(probes, ratio), needed, "{probes} at {ratio}");
        }
    }
}
