//! What is told when a drill or a canary may not start.

use opsctl_drills::{PlanError as DrillError, WorkError as DrillWorkError};
use opsctl_rollouts::{PlanError as CanaryError, ScheduleError, WorkError as CanaryWorkError};

use crate::error::{Failure, platform};
use crate::exit::Exit;

impl From<DrillError> for Failure {
    fn from(error: DrillError) -> Self {
        const WHAT: &str = "could not start the drill";
        let told = |exit, code| Self::new(exit, code, WHAT).because(&error);
        match &error {
            DrillError::NoneToKill | DrillError::Unfit { .. } => told(Exit::Usage, "usage"),
            DrillError::NoneMatch { .. } => told(Exit::Usage, "none_match"),
            DrillError::LastInstance { .. } => told(Exit::Refused, "last_instance")
                .help("run more instances (`replicas` in opsctl.toml, then `opsctl up`), or kill fewer"),
            DrillError::NotReady { .. } => told(Exit::Refused, "not_ready").help("opsctl status; opsctl logs"),
            DrillError::Held { .. } => {
                told(Exit::Refused, "held").help("`opsctl run list --active` shows who holds it")
            }
            DrillError::Locked { run, .. } => told(Exit::Locked, "locked").help(format!("opsctl run attach {run}")),
            DrillError::NoPrometheus => {
                told(Exit::Usage, "no_prometheus").help("`prometheus = \"http://…\"` in `[env.NAME]` of opsctl.toml")
            }
            DrillError::Impossible { .. } => told(Exit::Refused, "impossible"),
            DrillError::LocalData { .. } => {
                told(Exit::Refused, "local_data").help("`--lose-local-data` drains it all the same")
            }
            DrillError::NoDependency { .. } => {
                told(Exit::Usage, "no_dependency").help("`depends_on` in opsctl.toml says what a service calls")
            }
            DrillError::Faulted { run, .. } => told(Exit::Locked, "faulted").help(format!("opsctl run show {run}")),
            DrillError::NoFaults { .. } => told(Exit::Refused, "no_faults"),
            DrillError::Unseen { .. } => told(Exit::Refused, "unseen")
                .help("give the service `probe = { http = \"…\" }` in opsctl.toml, and leave `--no-probe` out"),
            DrillError::Platform(error) => platform::failure(WHAT, error),
            DrillError::Lock(error) => platform::run_failure(WHAT, error),
        }
    }
}

impl From<CanaryError> for Failure {
    fn from(error: CanaryError) -> Self {
        const WHAT: &str = "could not start the canary";
        let told = |exit, code| Self::new(exit, code, WHAT).because(&error);
        match &error {
            CanaryError::Schedule(error) => schedule("the steps", error),
            CanaryError::NoStable { service } => {
                told(Exit::Usage, "service_not_running").help(format!(
                    "`opsctl up {service}` starts it on this machine; on a cluster, `kubernetes = {{ … }}` in opsctl.toml says which Deployment it is"
                ))
            }
            CanaryError::StableChanged { .. } => {
                told(Exit::Refused, "stable_changed").help("run the same command again")
            }
            CanaryError::StableNotReady { .. } => told(Exit::Refused, "not_ready").help("opsctl status; opsctl logs"),
            CanaryError::Criterion { service, .. } => told(Exit::Usage, "bad_criterion")
                .help(format!("`[[service.{service}.criteria]]` of opsctl.toml has its query")),
            CanaryError::Held { .. } => {
                told(Exit::Refused, "held").help("`opsctl run list --active` shows who holds it")
            }
            CanaryError::CanaryExists { run, .. } | CanaryError::Locked { run, .. } => {
                told(Exit::Locked, "locked").help(format!("opsctl run attach {run}"))
            }
            CanaryError::Platform(error) => platform::failure(WHAT, error),
            CanaryError::Lock(error) => platform::run_failure(WHAT, error),
        }
    }
}

/// The failure of a drill's worker.
pub(crate) fn drill_work(what: impl Into<String>, error: &DrillWorkError) -> Failure {
    match error {
        DrillWorkError::Run(error) => platform::run_failure(what, error),
        DrillWorkError::Condition { .. } => Failure::usage("no_condition", what).because(error),
        DrillWorkError::Alerts { .. } => Failure::usage("no_alerting", what).because(error),
        DrillWorkError::Spec { .. } | DrillWorkError::NoDrill { .. } => {
            Failure::new(Exit::Failed, "state_damaged", what).because(error)
        }
    }
}

/// The failure of a canary's worker.
pub(crate) fn canary_work(what: impl Into<String>, error: &CanaryWorkError) -> Failure {
    match error {
        CanaryWorkError::Run(error) => platform::run_failure(what, error),
        CanaryWorkError::Spec { .. } | CanaryWorkError::Report(_) => {
            Failure::new(Exit::Failed, "state_damaged", what).because(error)
        }
    }
}

/// The failure of a weight or of steps as typed.
pub(crate) fn schedule(typed: &str, error: &ScheduleError) -> Failure {
    let failure = Failure::usage("usage", format!("`{typed}` cannot be used")).because(error);
    match error {
        ScheduleError::Zero => failure.help("`opsctl deploy abort` takes a canary's traffic away"),
        ScheduleError::TooLarge { .. } => failure.help("`opsctl deploy promote` sends everything to the new version"),
        ScheduleError::NotANumber { .. } => failure.help("for example `--weight 10`"),
        ScheduleError::NoDuration { .. }
        | ScheduleError::DurationAtPromotion
        | ScheduleError::AfterPromotion
        | ScheduleError::OnlyPromotion
        | ScheduleError::NotRising { .. }
        | ScheduleError::Empty => failure.help("for example `--steps 10:15m,50:15m,100`"),
    }
}
