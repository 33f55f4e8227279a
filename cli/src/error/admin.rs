//! What is told when an instance's admin listener could not be asked, or said no.

use opsctl_platform::{Instance, PlatformError};

use crate::admin::AdminError;
use crate::error::Failure;
use crate::exit::Exit;

/// The failure of doing `what` through the admin listener of an instance.
pub(crate) fn failure(what: impl Into<String>, instance: &Instance, error: &AdminError) -> Failure {
    let (service, id) = (&instance.service, &instance.id);
    let told = |exit, code| {
        Failure::new(exit, code, what.into())
            .cause(format!("`{id}`: {error}"))
            .maybe_because(std::error::Error::source(error))
    };
    match error {
        AdminError::NotRunning => {
            told(Exit::Unreachable, "unreachable").help(format!("opsctl status; opsctl logs {service}"))
        }
        AdminError::NoListener => told(Exit::Unreachable, "no_admin_listener").help(
            "the program opens one at `ADMIN_ADDR`; with the library telemetry: `telemetry.admin().serve_from_env()`",
        ),
        AdminError::Unknown => told(Exit::Unreachable, "no_admin_listener")
            .help("with the library telemetry: `telemetry.watch_policy(&policy)`, and its feature `resilience`"),
        AdminError::Token(_) => told(Exit::Failed, "io").help(format!("`opsctl down`, then `opsctl up {service}`")),
        AdminError::Cluster(PlatformError::Forbidden { .. }) => {
            told(Exit::Refused, "forbidden").help("`opsctl rbac --for policy` prints the role that is needed")
        }
        AdminError::Cluster(PlatformError::Missing { .. }) => told(Exit::Usage, "missing")
            .help("the Secret that the pod mounts at `ADMIN_TOKEN_FILE` has to be there"),
        AdminError::Unreachable(_) | AdminError::Cluster(_) | AdminError::Broken(_) | AdminError::TimedOut => {
            told(Exit::Unreachable, "unreachable").help(format!("opsctl status; opsctl logs {service} --instance {id}"))
        }
        AdminError::ReadOnly => told(Exit::Refused, "admin_read_only").help(format!(
            "allow it with `ADMIN_WRITES = \"1\"` in the `env` of `[service.{service}.local]`, then `opsctl up {service}`"
        )),
        AdminError::Refused(_) => told(Exit::Failed, "refused_by_instance").help(format!("opsctl policy show {service}")),
        AdminError::Answer(_) | AdminError::TooLong => told(Exit::Failed, "bad_answer")
            .help(format!("is `{service}` built with this version of the libraries?")),
    }
}
