//! How a service ends: one line on stderr that says why it could not start or go on, and the exit code that says what
//! kind of failure it was (0 done, 1 failed, 2 usage or configuration, 143 told to stop while starting).

use std::io::Write as _;
use std::process::ExitCode;

use telemetry::InitError;

use crate::database::DatabaseError;
use crate::listen::ListenError;
use crate::postgres::PostgresError;
use crate::sqlite::SqliteError;

/// Exit code of a service that was told to stop before it had started: as if SIGTERM had ended it.
const INTERRUPTED: u8 = 143;

/// Something in the service's settings is wrong: ends with exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Misconfigured(pub String);

/// Turns what a service's `run` returned into its exit code, and tells a failure on stderr with all its causes.
pub fn exit(service: &str, result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when stderr is gone.
            let _ = writeln!(std::io::stderr(), "{service}: {}", one_line(&error));
            ExitCode::from(code(&error))
        }
    }
}

/// Tells on stderr what telemetry could not hand over at the end, if anything: the log cannot tell it any more. `None`
/// stands for a report that was not made in time.
pub fn tell_losses(service: &str, report: Option<&telemetry::Report>) {
    // Nobody is left to tell when stderr is gone.
    let _ = match report {
        Some(report) if report.is_lossless() => Ok(()),
        Some(report) => writeln!(
            std::io::stderr(),
            "{service}: log lines or spans were lost at the end: {report:?}"
        ),
        None => writeln!(
            std::io::stderr(),
            "{service}: log lines or spans may be lost: there was no time to hand them over"
        ),
    };
}

/// The error and its causes on one line, whatever characters they hold.
fn one_line(error: &anyhow::Error) -> String {
    format!("{error:#}")
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

fn code(error: &anyhow::Error) -> u8 {
    if error.is::<health::Interrupted>() {
        return INTERRUPTED;
    }
    let usage = error.chain().any(|cause| {
        cause.is::<Misconfigured>()
            || cause.is::<health::SettingsError>()
            || matches!(cause.downcast_ref(), Some(health::LifecycleError::TooLong { .. }))
            || matches!(
                cause.downcast_ref(),
                Some(health::BuildError::Setting { .. } | health::BuildError::Listen { .. })
            )
            || matches!(
                cause.downcast_ref(),
                Some(InitError::Setting { .. } | InitError::Filter { .. } | InitError::Listen { .. })
            )
            || cause.is::<telemetry::AdminError>()
            || matches!(
                cause.downcast_ref(),
                Some(ListenError::PortTaken { .. } | ListenError::Bind { .. })
            )
            || match cause.downcast_ref() {
                Some(DatabaseError::Sqlite(error)) => is_usage(error),
                Some(DatabaseError::Postgres(error)) => matches!(
                    error,
                    PostgresError::Refused(_) | PostgresError::TooNew { .. } | PostgresError::Foreign { .. }
                ),
                None => cause.downcast_ref().is_some_and(is_usage),
            }
    });
    if usage { 2 } else { 1 }
}

fn is_usage(error: &SqliteError) -> bool {
    matches!(error, SqliteError::Create { .. } | SqliteError::TooNew { .. })
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn wrong_settings_are_told_from_failures() {
        let taken = ListenError::PortTaken {
            protocol: "HTTP",
            address: "127.0.0.1:80".parse().unwrap(),
        };
        assert_eq!(code(&anyhow::Error::from(taken).context("start")), 2);
        assert_eq!(code(&anyhow::Error::from(Misconfigured("no".into()))), 2);
        for (name, value) in [("LOG_FORMAT", "xml"), ("RUST_LOG", "info,,=")] {
            let telemetry =
                telemetry::Telemetry::builder("orders").read_env(|read| (read == name).then(|| value.into()));
            assert_eq!(code(&telemetry.init().err().unwrap().into()), 2, "{name}={value}");
        }
        assert_eq!(code(&anyhow::anyhow!("bug")), 1);
        assert_eq!(code(&anyhow::Error::from(health::Interrupted)), 143);
    }

    #[test]
    fn a_failure_is_one_line_with_its_causes() {
        let error = Err::<(), _>(anyhow::anyhow!("cause\nwith a \u{1b}[31mline"))
            .context("effect")
            .unwrap_err();
        assert_eq!(one_line(&error), "effect: cause with a  [31mline");
    }
}
