//! The judge of a canary as a state machine: what was observed goes in, what is to be done comes out. Pure; the driver
//! ([`crate::worker`]) does the doing. It is serialisable, so that a judge that died goes on with what it knew.
//!
//! `Starting` -> `Step` (one after another) -> `Promoting` -> `Baking` -> `Finishing`, or `Step` -> `Holding` until somebody
//! decides. From each of them `RollingBack` is one look away; nothing leads back from it.

pub mod bake;
pub mod criteria;
pub mod resources;
pub mod share;

pub use bake::Bake;
pub use criteria::Criterion;
pub use resources::Resources;
pub use share::Share;

use crate::analysis::counters::{Scrape, Step as Counted, Tracker};
use crate::analysis::{Analysis, Look, Verdict};
use crate::spec::{OnInconclusive, Spec};
use criteria::Seen;
use jiff::{SignedDuration, Timestamp};
use opsctl_platform::Usage;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How often an instance may be started again before the canary is given up.
const RESTART_LIMIT: u32 = 3;

/// Where the canary is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub enum Stage {
    /// Its instances start; it has no traffic.
    Starting {
        /// Since when.
        since: Timestamp,
    },
    /// It has the share of a step.
    Step {
        /// Which, from 0.
        index: usize,
        /// Since when.
        since: Timestamp,
    },
    /// It keeps its share until somebody decides.
    Holding {
        /// Since when.
        since: Timestamp,
        /// Nothing was proven when it began.
        inconclusive: bool,
    },
    /// It is being made the stable version.
    Promoting {
        /// Since when.
        since: Timestamp,
    },
    /// It is stable; the old version waits at full capacity.
    Baking {
        /// Since when.
        since: Timestamp,
    },
    /// The old version is being taken away; there is no way back in this run.
    Finishing {
        /// Since when.
        since: Timestamp,
    },
    /// It is being taken away.
    RollingBack {
        /// Since when.
        since: Timestamp,
        /// Why.
        cause: Cause,
    },
}

impl Stage {
    /// The word that records and reports use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting { .. } => "starting",
            Self::Step { .. } => "step",
            Self::Holding { .. } => "holding",
            Self::Promoting { .. } => "promoting",
            Self::Baking { .. } => "baking",
            Self::Finishing { .. } => "finishing",
            Self::RollingBack { .. } => "rolling_back",
        }
    }
}

/// Why a canary is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// It is worse than the stable version.
    Worse,
    /// It was promoted and missed the objectives.
    ObjectiveMissed,
    /// A number that the service sets a bound to was beyond it.
    CriterionMissed,
    /// It did not become ready in time.
    NeverReady,
    /// Its instances end again and again, or never start.
    Died,
    /// Somebody asked for it.
    Requested,
    /// The time is over and nothing is proven.
    Inconclusive,
    /// Nobody decided for the longest time that a canary may be held.
    HeldTooLong,
    /// Somebody else changed what this run had set.
    Interference,
    /// Its worker was lost, and what it had done was undone before another one took it up.
    Undone,
}

impl Cause {
    /// One sentence without a full stop.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Worse => "the canary is worse than the stable version",
            Self::ObjectiveMissed => "the new version missed the objectives after its promotion",
            Self::CriterionMissed => "a criterion of the service is not met",
            Self::NeverReady => "the canary did not become ready in time",
            Self::Died => "the canary's instances end again and again, or never start",
            Self::Requested => "it was asked for",
            Self::Inconclusive => "the time is over and nothing is proven",
            Self::HeldTooLong => "nobody decided for the longest time that a canary may be held",
            Self::Interference => "somebody else changed what this canary had set",
            Self::Undone => "its worker was lost; undone",
        }
    }
}

/// What somebody asks of a running judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Make it stable now.
    Promote,
    /// Take it away.
    Abort,
}

/// The instances of the canary.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fleet {
    /// How many there should be; 0 when the version is gone.
    pub desired: u32,
    /// How many take traffic.
    pub ready: u32,
    /// The most often that one of them was started again.
    pub restarts: u32,
    /// One of them is given up on for the moment.
    pub crash_loop: bool,
}

/// What is seen at one look.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// When.
    pub now: Timestamp,
    /// The counters; absent when they could not be read.
    pub scrape: Option<Scrape>,
    /// The canary's instances; absent when they could not be read.
    pub fleet: Option<Fleet>,
    /// One number for each criterion of the service; none at all when they were not asked.
    pub criteria: Vec<Option<f64>>,
    /// What the instances use; none where nobody tells.
    pub usage: Vec<Usage>,
    /// What was asked for since the last look.
    pub request: Option<Request>,
}

/// What the driver has to do after a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Give the canary this share.
    Grant(u8),
    /// Make it stable: all traffic, switch, then call [`Judge::promoted`].
    Promote,
    /// Take the old version away and close the run.
    Finish,
    /// Take the canary away in order and close the run.
    RollBack(Cause),
    /// Tell whoever waits that the canary is held and what is known.
    AnnounceHold(Verdict),
}

/// Everything that the judge knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judge {
    /// Where the canary is.
    pub stage: Stage,
    /// The share that it should have now, in percent.
    pub percent: u8,
    /// The evidence before the promotion.
    pub analysis: Analysis,
    /// The evidence after it.
    pub bake: Bake,
    /// The share observed in the present step.
    pub share: Share,
    /// What was seen of the service's criteria, in their order.
    #[serde(default)]
    pub criteria: Vec<Seen>,
    /// What the instances of both versions used, while both had traffic.
    #[serde(default)]
    pub resources: Resources,
    /// The promotion was asked for, whatever the evidence.
    pub promote_requested: bool,
    tracker: Tracker,
    first_share_at: Option<Timestamp>,
    last_look: Option<Timestamp>,
}

impl Judge {
    /// A judge that has seen nothing.
    pub fn new(spec: &Spec, now: Timestamp) -> Self {
        Self {
            stage: Stage::Starting { since: now },
            percent: 0,
            analysis: Analysis::new(spec.settings, spec.errors_allowed_ratio, spec.slow_allowed_ratio),
            bake: Bake::new(spec),
            share: Share::default(),
            resources: Resources::default(),
            criteria: vec![Seen::default(); spec.criteria.len()],
            promote_requested: false,
            tracker: Tracker::default(),
            first_share_at: None,
            last_look: None,
        }
    }

    /// One look: takes in what was observed and says what to do, in order. Nothing more is to be done while the canary
    /// rolls back.
    pub fn look(&mut self, spec: &Spec, seen: &Observation) -> Vec<Action> {
        let now = seen.now;
        let warm = self.is_warm(spec, self.last_look.unwrap_or(now));
        self.skip_absence(spec, now);
        let counted = self.count(spec, seen, warm);
        if warm {
            if matches!(self.stage, Stage::Step { .. } | Stage::Holding { .. }) {
                self.resources.add(&seen.usage, &spec.stable, &spec.version.version);
            }
            let both = self.criteria.iter_mut().zip(&spec.criteria);
            for ((known, criterion), value) in both.zip(&seen.criteria) {
                known.add(criterion, *value);
            }
        }
        if let Some(request) = seen.request {
            match request {
                Request::Abort => return self.roll_back(now, Cause::Requested),
                Request::Promote => self.promote_requested = true,
            }
        }
        if seen.fleet.is_some_and(given_up) {
            return self.roll_back(now, Cause::Died);
        }
        let has_traffic = matches!(
            self.stage,
            Stage::Step { .. } | Stage::Holding { .. } | Stage::Promoting { .. }
        );
        if has_traffic && seen.fleet.is_some_and(|fleet| fleet.desired == 0) {
            return self.roll_back(now, Cause::Interference);
        }
        match self.stage {
            Stage::Starting { since } => self.starting(spec, seen, since),
            Stage::Step { index, since } => self.in_step(spec, now, index, since, counted),
            Stage::Holding { since, inconclusive } => self.holding(spec, now, since, inconclusive, counted),
            Stage::Promoting { .. } => vec![Action::Promote],
            Stage::Baking { since } => self.baking(spec, now, since, counted),
            Stage::Finishing { .. } => vec![Action::Finish],
            Stage::RollingBack { cause, .. } => vec![Action::RollBack(cause)],
        }
    }

    /// The driver has switched the stable version.
    pub fn promoted(&mut self, now: Timestamp) {
        self.stage = Stage::Baking { since: now };
        self.percent = 100;
        self.bake.begin(&self.analysis.evidence().metrics);
    }

    /// The driver has granted the share, anew or again after it had lapsed: what was observed of it begins from here.
    pub fn share_granted(&mut self) {
        self.share = Share::of(self.percent);
    }

    /// The driver found that somebody else changed what this run had set, or cannot do its work.
    pub fn interfered(&mut self, now: Timestamp) -> Action {
        self.roll_back(now, Cause::Interference)[0]
    }

    /// The driver took up a run of which nothing is left: somebody had begun to undo it and did not come to its end.
    pub fn undone(&mut self, now: Timestamp) {
        self.roll_back(now, Cause::Undone);
    }

    /// The verdict so far: that of the bake when it is worse.
    pub fn verdict(&self) -> Verdict {
        match self.stage {
            Stage::RollingBack {
                cause: Cause::NeverReady | Cause::Died | Cause::ObjectiveMissed | Cause::CriterionMissed,
                ..
            } => Verdict::Fail,
            _ => self.proven(),
        }
    }

    /// What the service's criteria say together; a pass when there are none.
    pub fn criteria_verdict(&self) -> Verdict {
        let confirm = self.analysis.settings().fail_intervals;
        let mut together = Verdict::Pass;
        for seen in &self.criteria {
            match seen.verdict(confirm) {
                Verdict::Fail => return Verdict::Fail,
                Verdict::Inconclusive => together = Verdict::Inconclusive,
                Verdict::Pass => {}
            }
        }
        together
    }

    /// The comparison and the service's criteria together.
    fn proven(&self) -> Verdict {
        match (self.analysis.verdict(), self.criteria_verdict()) {
            (Verdict::Fail, _) | (_, Verdict::Fail) => Verdict::Fail,
            (Verdict::Pass, Verdict::Pass) => Verdict::Pass,
            _ => Verdict::Inconclusive,
        }
    }

    /// When the first share was granted.
    pub fn first_share_at(&self) -> Option<Timestamp> {
        self.first_share_at
    }

    /// A judge was away for longer than a gap: that time counts for no step.
    fn skip_absence(&mut self, spec: &Spec, now: Timestamp) {
        let limit = spec.interval * (spec.settings.gap_limit + 1);
        let away = self.last_look.map_or(Duration::ZERO, |last| elapsed(last, now));
        if away > limit {
            let shift = SignedDuration::try_from(away).unwrap_or(SignedDuration::ZERO);
            let moved = |at: Timestamp| at.checked_add(shift).unwrap_or(now);
            self.first_share_at = self.first_share_at.map(moved);
            match &mut self.stage {
                Stage::Step { since, .. } | Stage::Baking { since } => *since = moved(*since),
                _ => {}
            }
        }
        self.last_look = Some(now);
    }

    /// Whether an interval that began at `began` counts: after the warm-up, or in the bake.
    fn is_warm(&self, spec: &Spec, began: Timestamp) -> bool {
        match self.stage {
            Stage::Baking { .. } => true,
            Stage::Step { .. } | Stage::Holding { .. } => {
                self.first_share_at.is_some_and(|at| elapsed(at, began) >= spec.warm_up)
            }
            _ => false,
        }
    }

    /// Turns the counters into one interval; absent when there is none to judge.
    fn count(&mut self, spec: &Spec, seen: &Observation, warm: bool) -> Option<Look> {
        let interval_ms = i64::try_from(spec.interval.as_millis()).unwrap_or(i64::MAX);
        let counted = match seen.scrape.clone() {
            Some(scrape) => self.tracker.step(scrape, interval_ms, spec.settings.gap_limit),
            None => Counted::Invalid,
        };
        if !warm {
            return None;
        }
        match counted {
            Counted::Interval { look, .. } => return Some(look),
            Counted::Gap { intervals } => self.analysis.miss(intervals),
            Counted::Invalid => self.analysis.miss(1),
            Counted::First => {}
        }
        None
    }

    fn starting(&mut self, spec: &Spec, seen: &Observation, since: Timestamp) -> Vec<Action> {
        let ready = seen
            .fleet
            .is_some_and(|fleet| fleet.desired > 0 && fleet.ready >= fleet.desired);
        if ready {
            return self.enter_step(spec, seen.now, 0);
        }
        if elapsed(since, seen.now) >= spec.ready_timeout {
            return self.roll_back(seen.now, Cause::NeverReady);
        }
        Vec::new()
    }

    fn enter_step(&mut self, spec: &Spec, now: Timestamp, index: usize) -> Vec<Action> {
        self.stage = Stage::Step { index, since: now };
        self.percent = spec.schedule.steps[index].percent;
        self.share = Share::of(self.percent);
        self.first_share_at.get_or_insert(now);
        vec![Action::Grant(self.percent)]
    }

    fn in_step(
        &mut self,
        spec: &Spec,
        now: Timestamp,
        index: usize,
        since: Timestamp,
        look: Option<Look>,
    ) -> Vec<Action> {
        if let Some(actions) = self.judge(now, look) {
            return actions;
        }
        let last = index + 1 == spec.schedule.steps.len();
        let verdict = self.sure_verdict();
        if last && !spec.schedule.promote && verdict == Verdict::Pass {
            return self.hold(now, Verdict::Pass);
        }
        let over = elapsed(since, now) >= spec.schedule.steps[index].duration;
        if over && self.share.requests() > 0 && !self.share.refuted() {
            if !last {
                return self.enter_step(spec, now, index + 1);
            }
            if spec.schedule.promote && verdict == Verdict::Pass {
                return self.promote(now);
            }
        }
        let spent = self.first_share_at.map_or(Duration::ZERO, |at| elapsed(at, now));
        if spent >= spec.max.max(spec.schedule.total()) {
            return match spec.on_inconclusive {
                OnInconclusive::Hold => self.hold(now, Verdict::Inconclusive),
                OnInconclusive::Rollback => self.roll_back(now, Cause::Inconclusive),
                OnInconclusive::Promote => self.promote(now),
            };
        }
        Vec::new()
    }

    fn holding(
        &mut self,
        spec: &Spec,
        now: Timestamp,
        since: Timestamp,
        inconclusive: bool,
        look: Option<Look>,
    ) -> Vec<Action> {
        if let Some(actions) = self.judge(now, look) {
            return actions;
        }
        if elapsed(since, now) >= spec.max_hold {
            return self.roll_back(now, Cause::HeldTooLong);
        }
        if inconclusive && self.sure_verdict() == Verdict::Pass {
            self.stage = Stage::Holding {
                since,
                inconclusive: false,
            };
            return vec![Action::AnnounceHold(Verdict::Pass)];
        }
        Vec::new()
    }

    fn baking(&mut self, spec: &Spec, now: Timestamp, since: Timestamp, look: Option<Look>) -> Vec<Action> {
        if let Some(look) = look {
            self.bake.add(look.canary);
        }
        if self.bake.missed() {
            return self.roll_back(now, Cause::ObjectiveMissed);
        }
        if self.criteria_verdict() == Verdict::Fail {
            return self.roll_back(now, Cause::CriterionMissed);
        }
        if elapsed(since, now) >= spec.bake {
            self.stage = Stage::Finishing { since: now };
            return vec![Action::Finish];
        }
        Vec::new()
    }

    /// What every look with a share does: take in the interval, give up on a failure, promote on request.
    fn judge(&mut self, now: Timestamp, look: Option<Look>) -> Option<Vec<Action>> {
        if let Some(look) = look {
            self.analysis.add(look);
            self.share.add(look.canary.requests, look.stable.requests);
        }
        if self.analysis.verdict() == Verdict::Fail {
            return Some(self.roll_back(now, Cause::Worse));
        }
        if self.criteria_verdict() == Verdict::Fail {
            return Some(self.roll_back(now, Cause::CriterionMissed));
        }
        self.promote_requested.then(|| self.promote(now))
    }

    /// A pass counts only while the canary really has the share that it should have.
    fn sure_verdict(&self) -> Verdict {
        match self.proven() {
            Verdict::Pass if self.share.refuted() => Verdict::Inconclusive,
            verdict => verdict,
        }
    }

    fn hold(&mut self, now: Timestamp, verdict: Verdict) -> Vec<Action> {
        self.stage = Stage::Holding {
            since: now,
            inconclusive: verdict != Verdict::Pass,
        };
        vec![Action::AnnounceHold(verdict)]
    }

    fn promote(&mut self, now: Timestamp) -> Vec<Action> {
        self.stage = Stage::Promoting { since: now };
        vec![Action::Promote]
    }

    fn roll_back(&mut self, now: Timestamp, cause: Cause) -> Vec<Action> {
        match self.stage {
            // Past the point of no return; going on is the only way to leave no mess.
            Stage::Finishing { .. } => return vec![Action::Finish],
            Stage::RollingBack { .. } => {}
            _ => self.stage = Stage::RollingBack { since: now, cause },
        }
        let Stage::RollingBack { cause, .. } = self.stage else {
            return Vec::new();
        };
        vec![Action::RollBack(cause)]
    }
}

fn given_up(fleet: Fleet) -> bool {
    fleet.crash_loop || fleet.restarts >= RESTART_LIMIT
}

/// Time from `from` to `to`; zero when the clock went back.
fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}
