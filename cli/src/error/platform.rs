//! What is told when the platform or a run on it failed.

use opsctl_platform::PlatformError;
use opsctl_platform::local::up::Cause;
use opsctl_platform::run::{JournalError, RunError};

use crate::error::Failure;
use crate::exit::Exit;

/// The failure of doing `what` on the platform.
pub(crate) fn failure(what: impl Into<String>, error: &PlatformError) -> Failure {
    let told = |exit, code| Failure::new(exit, code, what.into()).because(error);
    match error {
        PlatformError::UnknownService { service } => {
            told(Exit::Usage, "service_not_running").help(format!("`opsctl up {service}` starts it"))
        }
        PlatformError::UnknownField { .. } => told(Exit::Failed, "bug"),
        PlatformError::InvalidValue { .. } => told(Exit::Usage, "invalid_value"),
        PlatformError::Gone { .. } => {
            told(Exit::Failed, "instance_gone").help("it ended by itself meanwhile; run the same command again")
        }
        PlatformError::Fenced { .. }
        | PlatformError::WeightLost { .. }
        | PlatformError::FaultLost { .. }
        | PlatformError::LeaseLost { .. } => told(Exit::Failed, "run_lost")
            .help("another process took the run over; `opsctl run list` shows how it ended"),
        PlatformError::RecordExists { .. } | PlatformError::RecordConflict { .. } => {
            told(Exit::Locked, "run_changed").help("another process works on this run; try again")
        }
        PlatformError::RecordMissing { .. } => told(Exit::Usage, "unknown_run").help("opsctl run list"),
        PlatformError::Busy { .. } => told(Exit::Locked, "busy").help("wait for it, or end that process"),
        PlatformError::PortTaken { .. } => told(Exit::Usage, "port_taken")
            .help("end what listens there, or set another port in `local = { ports = { … } }` of opsctl.toml"),
        PlatformError::Unsafe { path, .. } => told(Exit::Refused, "unsafe_path")
            .help(format!("only you may own and write it: chmod go-w {}", path.display())),
        PlatformError::Unreachable { .. } => {
            told(Exit::Unreachable, "unreachable")
                .help("is it up, and is its address right? What runs on this machine, `opsctl up` starts")
        }
        PlatformError::Forbidden { .. } => {
            told(Exit::Refused, "forbidden").help("`opsctl rbac` prints the role that is needed")
        }
        PlatformError::Unauthorized { .. } => {
            told(Exit::Refused, "unauthorized").help("log in to the cluster again, then run the same command again")
        }
        PlatformError::Expired { .. } => told(Exit::Usage, "expired").help("renew it, then run the same command again"),
        PlatformError::Refused { .. } => told(Exit::Refused, "refused").help("nothing was changed by what was refused"),
        PlatformError::Owned { .. } => told(Exit::Refused, "owned").help("`--take-ownership` changes it all the same"),
        PlatformError::Missing { .. } => told(Exit::Usage, "missing").help(
            "what a service is called on the cluster, and who splits its traffic, says `kubernetes = { … }` in opsctl.toml",
        ),
        PlatformError::NoTraffic { .. } => told(Exit::Inconclusive, "no_traffic"),
        PlatformError::WrongServer { .. } => told(Exit::Refused, "wrong_server")
            .help("is it the right cluster? `server` in opsctl.toml says which one is meant"),
        PlatformError::UnknownContext { known, .. } => {
            told(Exit::Usage, "unknown_context").help(format!("the kubeconfig has: {}", known.join(", ")))
        }
        PlatformError::Kubeconfig { .. } => told(Exit::Usage, "kubeconfig")
            .help("`kubeconfig` of `[cluster.NAME]` in opsctl.toml, else KUBECONFIG, says which file is read"),
        PlatformError::TimedOut { .. } => told(Exit::Unreachable, "timed_out").help("opsctl status; opsctl logs"),
        PlatformError::Io { source, .. } => {
            let full = source.kind() == std::io::ErrorKind::StorageFull;
            let failure = told(Exit::Failed, if full { "disk_full" } else { "io" });
            if full {
                failure.help("free some space, then run the same command again")
            } else {
                failure
            }
        }
        PlatformError::Corrupt { path, .. } => told(Exit::Failed, "state_damaged").help(format!(
            "`{}` was changed by something else: `opsctl down`, move it away, `opsctl up`",
            path.display()
        )),
        PlatformError::Spawn { .. } => {
            told(Exit::Usage, "cannot_start").help("is `command` in opsctl.toml right, and is it built?")
        }
    }
}

/// A service (or none at all) was named that does not run.
pub(crate) fn not_running(service: Option<&str>) -> Failure {
    match service {
        Some(service) => Failure::usage("service_not_running", format!("service `{service}` does not run"))
            .help(format!("`opsctl up {service}` starts it")),
        None => Failure::usage("service_not_running", "nothing runs").help("`opsctl up` starts what is declared"),
    }
}

/// The exit code and word for a service that did not come up.
pub(crate) fn not_up(cause: Cause) -> (Exit, &'static str) {
    match cause {
        Cause::Ended => (Exit::Failed, "service_ended"),
        Cause::NotStarted => (Exit::Usage, "cannot_start"),
        Cause::PortTaken => (Exit::Usage, "port_taken"),
        Cause::NeverReady => (Exit::Unreachable, "not_ready"),
        Cause::NoFrontDoor | Cause::NoSupervisor => (Exit::Unreachable, "unreachable"),
    }
}

/// The failure of doing `what` as a run.
pub(crate) fn run_failure(what: impl Into<String>, error: &RunError) -> Failure {
    let what = what.into();
    let told = |exit, code| Failure::new(exit, code, what.clone()).because(error);
    match error {
        RunError::Locked { lease } => told(Exit::Locked, "locked").help(format!(
            "`opsctl run attach {0}` follows it, `opsctl run show {0}` tells what it is",
            lease.holder.run
        )),
        RunError::Fenced { .. } => told(Exit::Failed, "run_lost").help("`opsctl run list` shows how it ended"),
        RunError::Running { run, .. } => told(Exit::Locked, "run_alive").help(format!("opsctl run attach {run}")),
        RunError::Conflict { .. } => told(Exit::Failed, "conflict")
            .help("somebody else changed it at the same time; what this run had changed was undone"),
        RunError::UndoIncomplete { run } => {
            told(Exit::UndoIncomplete, "undo_incomplete").help(format!("opsctl recover {run}"))
        }
        RunError::NoWatchdog { .. } => told(Exit::Failed, "no_watchdog")
            .help("nothing was changed; the log is in the run's folder under .opsctl/runs"),
        RunError::Platform(platform) => failure(what, platform),
        RunError::Journal(journal) => self::journal(what, journal),
    }
}

/// The failure of reading or writing a journal.
pub(crate) fn journal(what: impl Into<String>, error: &JournalError) -> Failure {
    let full = error.source.kind() == std::io::ErrorKind::StorageFull;
    Failure::new(Exit::Failed, if full { "disk_full" } else { "io" }, what.into()).because(error)
}
