//! The board: everything that is known of a service's health, kept so that a probe reads it without waiting for anybody.
//! Checks write to it (`schedule`); what their answers mean is decided by `state`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::builder::Liveness;
use crate::check::{Check, Outcome};
use crate::live::Beat;
use crate::settings::Token;
use crate::snapshot::{CheckSnapshot, GroupSnapshot, LivenessSnapshot, Snapshot};
use crate::state::{Record, State, Status, aggregate, group, stale_after};

/// Longest time that a refresh waits.
const REFRESH_LIMIT: Duration = Duration::from_secs(2);
/// Time from one refresh to the next that is granted.
const REFRESH_GAP: Duration = Duration::from_secs(1);
/// How many times longer the interval is while a check is slowed down.
const SLOWER: u32 = 3;

pub(crate) struct Board {
    pub(crate) entries: Vec<Entry>,
    pub(crate) liveness: Vec<Liveness>,
    pub(crate) groups: Vec<Group>,
    /// Names of grpc.health.v1, each with what it follows.
    pub(crate) services: Vec<(String, Probe)>,
    /// What a caller shows to see details on the listeners of probes; without it they have none.
    pub(crate) token: Option<Token>,
    pub(crate) state: watch::Sender<State>,
    verdict: watch::Sender<Verdict>,
    known: Mutex<Known>,
    /// True once long streams must end, so that they cannot hold up the shutdown.
    closing: watch::Sender<bool>,
    /// Counts wishes that every check be run at once.
    wishes: watch::Sender<u64>,
    /// Counts answers of checks.
    answers: watch::Sender<u64>,
}

/// A check and its times.
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) check: Box<dyn Check>,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    pub(crate) slow_while: Option<Box<dyn Fn() -> bool + Send + Sync>>,
}

/// Some of the checks, by their places among the entries.
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) members: Vec<usize>,
}

/// What a probe can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    Live,
    Ready,
    Startup,
    /// Live and ready.
    Whole,
    /// The group in that place.
    Group(usize),
}

/// What probes are told, as of the last change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    state: State,
    started: bool,
    groups: Vec<Status>,
    /// When the first answer that it rests on will be too old.
    fresh_until: Option<Instant>,
}

struct Known {
    checks: Vec<Told>,
    started: bool,
    /// Set by draining and stopping; no check changes the state after that.
    ended: Option<State>,
    refreshed: Option<Instant>,
}

struct Told {
    record: Record,
    last_duration: Duration,
    last_answer: Instant,
    last_success: Option<jiff::Timestamp>,
    fresh_until: Instant,
}

impl Board {
    pub(crate) fn new(
        entries: Vec<(Entry, Record)>,
        liveness: Vec<Liveness>,
        groups: Vec<Group>,
        services: Vec<(String, Probe)>,
        token: Option<Token>,
    ) -> Self {
        let now = Instant::now();
        let (entries, checks) = entries
            .into_iter()
            .map(|(entry, record)| {
                let fresh_until = now + stale_after(entry.interval, entry.timeout);
                let told = Told {
                    record,
                    last_duration: Duration::ZERO,
                    last_answer: now,
                    last_success: None,
                    fresh_until,
                };
                (entry, told)
            })
            .unzip();
        let verdict = Verdict {
            state: State::Starting,
            started: false,
            groups: Vec::new(),
            fresh_until: None,
        };
        let board = Self {
            entries,
            liveness,
            groups,
            services,
            token,
            state: watch::Sender::new(State::Starting),
            verdict: watch::Sender::new(verdict),
            known: Mutex::new(Known {
                checks,
                started: false,
                ended: None,
                refreshed: None,
            }),
            closing: watch::Sender::new(false),
            wishes: watch::Sender::new(0),
            answers: watch::Sender::new(0),
        };
        let change = board.publish(&mut board.known());
        change.log();
        board
    }

    /// What a probe is told now. It takes no lock that a check holds while it runs.
    pub(crate) fn status(&self, probe: Probe) -> Status {
        let word = |good| if good { Status::Pass } else { Status::Fail };
        if probe == Probe::Live {
            return word(self.is_alive());
        }
        self.look();
        let told = {
            let verdict = self.verdict.borrow();
            match probe {
                Probe::Live | Probe::Ready | Probe::Whole => verdict.state.readiness(),
                Probe::Startup => word(verdict.started),
                Probe::Group(index) => verdict.groups.get(index).copied().unwrap_or(Status::Fail),
            }
        };
        if probe == Probe::Whole {
            told.max(word(self.is_alive()))
        } else {
            told
        }
    }

    /// Whether every liveness check says so; one that panics does not.
    pub(crate) fn is_alive(&self) -> bool {
        self.liveness.iter().all(Liveness::is_alive)
    }

    /// Sees every change of what probes are told, except of liveness.
    pub(crate) fn changes(&self) -> watch::Receiver<Verdict> {
        self.verdict.subscribe()
    }

    /// Turns answers that are too old by now into failures. Called before anything is told, so that a runtime that
    /// stands still cannot make old answers look new.
    pub(crate) fn look(&self) {
        let now = Instant::now();
        if self.verdict.borrow().fresh_until.is_none_or(|until| now <= until) {
            return;
        }
        let mut stale = Vec::new();
        let change = {
            let mut known = self.known();
            for (entry, told) in self.entries.iter().zip(&mut known.checks) {
                if now > told.fresh_until && told.record.no_answer() {
                    stale.push(&entry.name);
                }
            }
            self.publish(&mut known)
        };
        for check in stale {
            tracing::warn!(check, status = "fail", reason = "stale", "health check");
        }
        change.log();
    }

    /// Takes one answer of a check and says how long to wait until its next run, before any spread.
    pub(crate) fn take(&self, index: usize, outcome: &Outcome, began: Instant) -> Pause {
        let (now, entry) = (Instant::now(), &self.entries[index]);
        let slow = entry.slow_while.as_ref().is_some_and(|slow| caught(slow, false));
        let interval = if slow { entry.interval * SLOWER } else { entry.interval };
        let mut locked = self.known();
        let known = &mut *locked;
        let told = &mut known.checks[index];
        let passed_before = told.record.passed_once;
        told.last_duration = now.duration_since(began);
        told.last_answer = now;
        told.fresh_until = now + stale_after(interval, entry.timeout);
        if !matches!(outcome, Outcome::Fail(_)) {
            told.last_success = Some(wall_clock());
        }
        let changed = told.record.answer(outcome);
        let status = told.record.status;
        let pause = match (passed_before, told.record.passed_once) {
            (_, false) => Pause::Starting(interval),
            (false, true) => Pause::First(interval),
            (true, true) => Pause::Usual(interval),
        };
        let change = self.publish(known);
        drop(locked);
        log(&entry.name, outcome, status, changed);
        change.log();
        self.answers.send_modify(|answers| *answers += 1);
        pause
    }

    /// See [`Health::drain`](crate::Health::drain) and [`Health::stop`](crate::Health::stop).
    pub(crate) fn end(&self, state: State) {
        let change = {
            let mut known = self.known();
            if known.ended != Some(State::Stopped) {
                known.ended = Some(state);
            }
            self.publish(&mut known)
        };
        change.log();
    }

    /// See [`Health::refresh`](crate::Health::refresh).
    pub(crate) async fn refresh(&self) {
        let mut answers = self.answers.subscribe();
        let before: Vec<u64> = {
            let mut known = self.known();
            let now = Instant::now();
            let granted = known.refreshed.is_none_or(|last| now >= last + REFRESH_GAP);
            if !granted || known.ended == Some(State::Stopped) {
                return;
            }
            known.refreshed = Some(now);
            known.checks.iter().map(|told| told.record.runs).collect()
        };
        self.wishes.send_modify(|wishes| *wishes += 1);
        let all_answered = || {
            let known = self.known();
            known
                .checks
                .iter()
                .zip(&before)
                .all(|(told, before)| told.record.runs > *before)
        };
        let waited = async { while !all_answered() && answers.changed().await.is_ok() {} };
        // Out of time: what is known by then is told.
        let _ = tokio::time::timeout(REFRESH_LIMIT, waited).await;
    }

    /// Sees every wish that the checks be run at once.
    pub(crate) fn wishes(&self) -> watch::Receiver<u64> {
        self.wishes.subscribe()
    }

    /// Ends the Watch streams.
    pub(crate) fn close_streams(&self) {
        self.closing.send_replace(true);
    }

    /// Becomes true when streams must end.
    pub(crate) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// Whether the service was ready once.
    pub(crate) fn has_started(&self) -> bool {
        self.verdict.borrow().started
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.look();
        let now = Instant::now();
        let state = *self.state.borrow();
        let groups = self.groups.iter().zip(self.verdict.borrow().groups.clone());
        let groups = groups
            .map(|(group, status)| GroupSnapshot {
                name: group.name.clone(),
                status,
            })
            .collect();
        let known = self.known();
        let checks = self
            .entries
            .iter()
            .zip(&known.checks)
            .map(|(entry, told)| CheckSnapshot {
                name: entry.name.clone(),
                component_type: entry.check.component_type(),
                role: told.record.rule.role,
                status: told.record.status,
                reason: told.record.reason,
                failures_in_a_row: told.record.failures,
                runs: told.record.runs,
                transitions: told.record.transitions,
                duration_seconds: told.last_duration.as_secs_f64(),
                age_seconds: now.duration_since(told.last_answer).as_secs_f64(),
                last_success: told.last_success,
            });
        let checks = checks.collect();
        drop(known);
        let liveness = self.liveness.iter().map(|liveness| LivenessSnapshot {
            name: liveness.name.clone(),
            alive: liveness.is_alive(),
        });
        Snapshot {
            state,
            checks,
            groups,
            liveness: liveness.collect(),
        }
    }

    /// Decides and tells what follows from what is known. What came of it is logged when nothing is locked any more: a
    /// log that hangs must not keep a probe waiting.
    fn publish(&self, known: &mut Known) -> Change {
        let records = known.checks.iter().map(|told| &told.record);
        let state = known.ended.unwrap_or_else(|| aggregate(records, known.started));
        known.started |= state.takes_traffic();
        let member = |index: &usize| known.checks.get(*index).map(|told| &told.record);
        let groups = self
            .groups
            .iter()
            .map(|set| group(set.members.iter().filter_map(member)));
        let fresh = known.checks.iter().filter(|told| !told.record.is_stale());
        let verdict = Verdict {
            state,
            started: known.started,
            groups: groups.collect(),
            fresh_until: fresh.map(|told| told.fresh_until).min(),
        };
        self.verdict.send_if_modified(|told| {
            let same = (told.state, told.started, &told.groups) == (verdict.state, verdict.started, &verdict.groups);
            *told = verdict;
            !same
        });
        // Nobody else publishes meanwhile: `known` is locked.
        let from = *self.state.borrow();
        if from != state {
            self.state.send_replace(state);
        }
        Change { from, to: state }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a publication made of the state.
#[must_use]
struct Change {
    from: State,
    to: State,
}

impl Change {
    fn log(&self) {
        if self.from != self.to {
            tracing::info!(from = self.from.as_str(), to = self.to.as_str(), "health state");
        }
    }
}

/// How long to wait until the next run of a check.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pause {
    /// It has not passed yet.
    Starting(Duration),
    /// It has passed for the first time.
    First(Duration),
    Usual(Duration),
}

/// Asks foreign code that has promised not to panic, and takes `otherwise` when it does.
pub(crate) fn caught<T>(ask: impl Fn() -> T, otherwise: T) -> T {
    catch_unwind(AssertUnwindSafe(ask)).unwrap_or(otherwise)
}

impl Liveness {
    fn is_alive(&self) -> bool {
        caught(&self.check, Beat::Dead) == Beat::Alive
    }
}

fn log(check: &str, outcome: &Outcome, status: Status, changed: bool) {
    let status = status.as_str();
    match outcome {
        Outcome::Fail(failure) | Outcome::Warn(failure) if changed => {
            let (reason, detail) = (failure.reason.as_str(), &failure.detail);
            tracing::warn!(check, status, reason, detail, "health check");
        }
        Outcome::Fail(failure) | Outcome::Warn(failure) => {
            let (reason, detail) = (failure.reason.as_str(), &failure.detail);
            tracing::debug!(check, status, reason, detail, "health check");
        }
        Outcome::Pass if changed => tracing::info!(check, status, "health check"),
        Outcome::Pass => {}
    }
}

/// The crate's one wall clock: `last_success` is shown to people and scraped as Unix time.
fn wall_clock() -> jiff::Timestamp {
    jiff::Timestamp::now()
}
