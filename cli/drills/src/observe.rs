//! Watching a service while something is done to it: one sample at a time, and when it was whole again. It judges nothing.

use std::sync::Arc;

use jiff::Timestamp;
use opsctl_platform::{Objectives, Platform, ServiceState, Traffic};
use serde::{Deserialize, Serialize};

use crate::figures::Figures;
use crate::probe::Probe;

/// What happened between two readings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Seconds since the start of the observation, at the end of the interval.
    pub at_seconds: f64,
    /// How long the interval was.
    pub interval_seconds: f64,
    /// Requests of clients, as the proxy counted them; none when the counters could not be read.
    pub clients: Figures,
    /// Requests of the probe, as it saw them itself.
    pub probe: Figures,
    /// Ready instances; absent when they could not be read.
    pub ready: Option<u32>,
}

/// Reads traffic and instances of one service again and again, and what its probe saw.
pub struct Observer {
    platform: Arc<dyn Platform>,
    /// The service.
    pub service: String,
    /// What it promises.
    pub objectives: Objectives,
    /// What is sent to it meanwhile.
    pub probe: Option<Probe>,
    /// How many instances must be ready for it to be whole.
    pub wanted: u32,
    /// Restarts of its instances, when it was last read.
    pub restarts: u32,
    /// The same when it was taken as whole.
    pub restarts_before: u32,
    start: Timestamp,
    last: Option<(Timestamp, Figures, Figures)>,
    /// Every sample so far.
    pub samples: Vec<Sample>,
}

impl Observer {
    /// Begins now; the first reading only sets the zero.
    pub fn new(platform: Arc<dyn Platform>, service: &str, objectives: Objectives) -> Self {
        Self {
            start: platform.now(),
            platform,
            service: service.to_owned(),
            objectives,
            probe: None,
            wanted: 0,
            restarts: 0,
            restarts_before: 0,
            last: None,
            samples: Vec::new(),
        }
    }

    /// Seconds since the start of the observation.
    pub fn seconds(&self, at: Timestamp) -> f64 {
        at.duration_since(self.start).as_secs_f64()
    }

    /// The time of so many seconds of the observation.
    pub fn at(&self, seconds: f64) -> Timestamp {
        let since = jiff::SignedDuration::try_from_secs_f64(seconds).unwrap_or_default();
        self.start.checked_add(since).unwrap_or(self.start)
    }

    /// Reads once; gives the service as it is, if it could be read.
    pub async fn sample(&mut self) -> Option<ServiceState> {
        let state = self.platform.service(&self.service).await.ok();
        let traffic = self.platform.traffic(&self.service).await.ok();
        let now = self.platform.now();
        let probed = self.probe.as_ref().map(Probe::figures).unwrap_or_default();
        let counted = match (&traffic, &self.last) {
            (Some(traffic), _) => clients(traffic),
            (None, Some((_, before, _))) => *before,
            (None, None) => Figures::default(),
        };
        if let Some((at, before, probed_before)) = self.last {
            self.samples.push(Sample {
                at_seconds: self.seconds(now),
                interval_seconds: now.duration_since(at).as_secs_f64(),
                clients: counted.since(before),
                probe: probed.since(probed_before),
                ready: state.as_ref().map(|state| state.ready().count() as u32),
            });
        }
        self.last = Some((now, counted, probed));
        if let Some(state) = &state {
            self.restarts = state.instances.iter().map(|instance| instance.restarts).sum();
        }
        state
    }

    /// Takes what it has now as whole: what another service has is its business, but it should not become less.
    pub fn take_as_whole(&mut self) {
        self.wanted = self.samples.last().and_then(|sample| sample.ready).unwrap_or(0);
        self.restarts_before = self.restarts;
    }

    /// The figures of clients and probe from `from` seconds on.
    pub fn figures_from(&self, from: f64) -> (Figures, Figures) {
        self.samples
            .iter()
            .filter(|sample| sample.at_seconds >= from)
            .fold(Default::default(), |(clients, probe): (Figures, Figures), sample| {
                (clients.and(sample.clients), probe.and(sample.probe))
            })
    }

    /// As [`recovered_at`], of this service.
    pub fn recovered_at(&self, from: f64, hold: usize) -> Option<f64> {
        recovered_at(&self.samples, from, self.wanted, hold, &self.objectives)
    }
}

/// All requests of a service's clients: probes are not among them; those that no instance got are, as errors.
pub fn clients(traffic: &Traffic) -> Figures {
    let lost = traffic.held_rejections + traffic.unrouted_errors;
    traffic.versions.iter().fold(
        Figures {
            requests: lost,
            errors: lost,
            slow: 0,
        },
        |sum, version| {
            sum.and(Figures {
                requests: version.counts.requests,
                errors: version.counts.errors,
                slow: version.counts.over_objective,
            })
        },
    )
}

/// Whether one sample is in steady state: as many instances ready as wanted, and no more errors than a service that just
/// keeps its objective has by chance in so few requests (three standard deviations).
pub fn steady(sample: &Sample, wanted: u32, objectives: &Objectives) -> bool {
    let allowed = 1.0 - objectives.availability_ratio.unwrap_or(1.0);
    let good = |figures: Figures| {
        let expected = allowed * figures.requests as f64;
        figures.errors as f64 <= expected + 3.0 * (expected * (1.0 - allowed)).sqrt() + 1e-9
    };
    sample.ready.is_some_and(|ready| ready >= wanted) && good(sample.clients) && good(sample.probe)
}

/// When the service was whole again from `from` on: the end of the first sample of the steady state that lasts, provided that
/// it has at least `hold` samples. Absent while it is not.
pub fn recovered_at(samples: &[Sample], from: f64, wanted: u32, hold: usize, objectives: &Objectives) -> Option<f64> {
    let after: Vec<&Sample> = samples.iter().filter(|sample| sample.at_seconds >= from).collect();
    let broken = after.iter().rposition(|sample| !steady(sample, wanted, objectives));
    let first_good = broken.map_or(0, |index| index + 1);
    (after.len() >= first_good + hold.max(1)).then(|| after[first_good].at_seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at_seconds: f64, ready: u32, errors: u64) -> Sample {
        Sample {
            at_seconds,
            interval_seconds: 1.0,
            clients: Figures {
                requests: 10,
                errors,
                slow: 0,
            },
            probe: Figures::default(),
            ready: Some(ready),
        }
    }

    #[test]
    fn recovery_is_where_lasting_steady_state_begins() {
        let objectives = Objectives::default();
        let mut samples = vec![sample(2.0, 1, 3), sample(3.0, 1, 0), sample(4.0, 2, 0)];
        assert_eq!(
            recovered_at(&samples, 1.0, 2, 3, &objectives),
            None,
            "not held long enough"
        );
        samples.extend([sample(5.0, 2, 0), sample(6.0, 2, 0)]);
        assert_eq!(recovered_at(&samples, 1.0, 2, 3, &objectives), Some(4.0));
        samples.push(sample(7.0, 2, 1));
        assert_eq!(recovered_at(&samples, 1.0, 2, 3, &objectives), None, "errors came back");
    }
}
