//! A service's life under chance: checks with any rules give any answers at their own pace, the service is drained and
//! stopped at any time. After every moment what it says is what a plain model says that keeps every answer, and it never
//! lies: no traffic before each required check has passed, none ever again after the drain began.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use health::{Failure, Health, OnDown, Outcome, Reason, Role, Spec, State, Status};
use proptest::prelude::*;
use tower::ServiceExt as _;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Pass,
    Warn,
    Fail,
    /// No answer until the timeout.
    Hang,
}

#[derive(Debug, Clone)]
struct Plan {
    role: Role,
    not_ready: bool,
    required: Option<bool>,
    down_after: u32,
    up_after: u32,
    /// Its answers, again and again.
    script: Vec<Answer>,
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Wait(u64),
    Drain,
    Stop,
}

fn plan() -> impl Strategy<Value = Plan> {
    let role = prop_oneof![Just(Role::Critical), Just(Role::Degraded), Just(Role::Informative)];
    let answer = prop_oneof![
        4 => Just(Answer::Pass),
        1 => Just(Answer::Warn),
        3 => Just(Answer::Fail),
        1 => Just(Answer::Hang)
    ];
    let script = prop::collection::vec(answer, 1..12);
    (role, any::<bool>(), any::<Option<bool>>(), 1_u32..4, 1_u32..4, script).prop_map(
        |(role, not_ready, required, down_after, up_after, script)| Plan {
            role,
            not_ready,
            required: required.filter(|required| !*required || role != Role::Informative),
            down_after,
            up_after,
            script,
        },
    )
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![30 => (1_u64..8_000).prop_map(Act::Wait), 1 => Just(Act::Drain), 1 => Just(Act::Stop)];
    prop::collection::vec(act, 1..40)
}

impl Plan {
    fn spec(&self, index: usize, log: &Log) -> Spec {
        let (script, log, turn) = (self.script.clone(), log.clone(), Mutex::new(0));
        let check = move || {
            let mut turn = turn.lock().unwrap();
            let answer = script[*turn % script.len()];
            *turn += 1;
            let log = log.clone();
            async move {
                // Told when the answer is there; for one that hangs, when it is given up.
                let _told = Told { index, answer, log };
                match answer {
                    Answer::Pass => Outcome::Pass,
                    Answer::Warn => Outcome::Warn(Failure::new(Reason::Saturated, "full")),
                    Answer::Fail => Outcome::Fail(Failure::new(Reason::Refused, "gone")),
                    Answer::Hang => std::future::pending().await,
                }
            }
        };
        let name = format!("check{index}");
        let mut spec = match self.role {
            Role::Critical => Spec::critical(name, check),
            Role::Degraded => Spec::degraded(name, check),
            Role::Informative => Spec::informative(name, check),
        };
        if self.role == Role::Critical && self.not_ready {
            spec = spec.on_down(OnDown::NotReady);
        }
        if let Some(required) = self.required {
            spec = spec.required_at_start(required);
        }
        spec.down_after(self.down_after).up_after(self.up_after)
    }

    fn is_required(&self) -> bool {
        self.required.unwrap_or(self.role == Role::Critical)
    }

    /// What the whole row of its answers makes of it.
    fn status(&self, answers: &[Answer]) -> Status {
        let good = |answer: &Answer| matches!(answer, Answer::Pass | Answer::Warn);
        let mut status = Status::Fail;
        for end in 1..=answers.len() {
            let (row, last) = (&answers[..end], &answers[end - 1]);
            let in_a_row = row.iter().rev().take_while(|answer| good(answer) == good(last)).count() as u32;
            let first_success = good(last) && row.iter().filter(|answer| good(answer)).count() == 1;
            if good(last) && (first_success || status != Status::Fail || in_a_row >= self.up_after) {
                status = if *last == Answer::Warn {
                    Status::Warn
                } else {
                    Status::Pass
                };
            }
            if !good(last) && in_a_row >= self.down_after {
                status = Status::Fail;
            }
        }
        status
    }
}

type Log = Arc<Mutex<Vec<(usize, Answer)>>>;

struct Told {
    index: usize,
    answer: Answer,
    log: Log,
}

impl Drop for Told {
    fn drop(&mut self) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.push((self.index, self.answer));
    }
}

/// The service as it should be after these answers, from the first to the last.
fn model(plans: &[Plan], log: &[(usize, Answer)]) -> State {
    let mut started = false;
    let mut state = State::Starting;
    for end in 0..=log.len() {
        let answers = |index: usize| -> Vec<Answer> {
            let of_it = log[..end].iter().filter(|(of, _)| *of == index);
            of_it.map(|(_, answer)| *answer).collect()
        };
        let all = || plans.iter().enumerate().map(|(index, plan)| (plan, answers(index)));
        if !started && all().any(|(plan, answers)| plan.is_required() && plan.status(&answers) == Status::Fail) {
            state = State::Starting;
            continue;
        }
        let worst = all().map(|(plan, answers)| {
            let status = plan.status(&answers);
            if plan.role == Role::Informative || answers.is_empty() || status == Status::Pass {
                0
            } else if plan.role == Role::Critical && plan.not_ready && status == Status::Fail {
                2
            } else {
                1
            }
        });
        state = [State::Ready, State::Degraded, State::NotReady][worst.max().unwrap_or(0)];
        started |= state.takes_traffic();
    }
    state
}

async fn code(health: &Health, path: &str) -> u16 {
    let router: axum::Router = health.http_router();
    let request = Request::get(path).body(Body::empty()).unwrap();
    router.oneshot(request).await.unwrap().status().as_u16()
}

async fn live(plans: Vec<Plan>, acts: Vec<Act>) -> Result<(), TestCaseError> {
    let log = Log::default();
    let mut builder = Health::builder();
    for (index, plan) in plans.iter().enumerate() {
        builder = builder.check(plan.spec(index, &log));
    }
    let health = builder.build().unwrap();
    let mut ended = None;
    let mut was_started = false;
    for act in acts {
        match act {
            Act::Wait(time) => tokio::time::sleep(Duration::from_millis(time)).await,
            Act::Drain => {
                health.drain();
                ended = ended.or(Some(State::Draining));
            }
            Act::Stop => {
                health.stop();
                ended = Some(State::Stopped);
            }
        }
        let heard = log.lock().unwrap().clone();
        let expected = ended.unwrap_or_else(|| model(&plans, &heard));
        let state = health.state();
        prop_assert_eq!(state, expected, "after {:?}", heard);
        if ended.is_none() {
            for (index, (plan, check)) in plans.iter().zip(health.snapshot().checks).enumerate() {
                let of_it: Vec<Answer> = heard
                    .iter()
                    .filter(|(of, _)| *of == index)
                    .map(|(_, answer)| *answer)
                    .collect();
                prop_assert_eq!(check.status, plan.status(&of_it), "{} after {:?}", check.name, of_it);
                prop_assert_eq!(check.runs, of_it.len() as u64);
            }
        }
        // No lie, whatever the model says.
        if state.takes_traffic() {
            for (index, plan) in plans.iter().enumerate() {
                let passed =
                    |(of, answer): &(usize, Answer)| *of == index && matches!(answer, Answer::Pass | Answer::Warn);
                prop_assert!(
                    !plan.is_required() || heard.iter().any(passed),
                    "check {} never passed",
                    index
                );
            }
            prop_assert!(ended.is_none());
        }
        prop_assert_eq!(code(&health, "/readyz").await == 200, state.takes_traffic());
        prop_assert_eq!(code(&health, "/healthz").await, 200);
        let is_started = code(&health, "/health/startup").await == 200;
        prop_assert!(is_started || !was_started, "once started, always started");
        was_started = is_started;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn a_service_says_what_its_checks_have_said(plans in prop::collection::vec(plan(), 0..4), acts in acts()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(live(plans, acts))?;
    }
}
