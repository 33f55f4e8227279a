//! What is told when boards could not be written, drawn or pushed.

use dashboards::draw::NotABoard;
use dashboards::draw::data::{DataError, FixtureError};
use dashboards::provision::Unwritable;
use dashboards::push::PushError;
use endpoint::EndpointError;
use manifest::capture;
use pictures::PngError;

use crate::error::Failure;
use crate::exit::Exit;

/// The failure of doing `what` on a Grafana.
pub(crate) fn push(what: impl Into<String>, error: &PushError) -> Failure {
    let told = |exit, code| Failure::new(exit, code, what.into()).because(error);
    let error = match error {
        PushError::Endpoint(error) => error,
        PushError::Changed { .. } => {
            return told(Exit::Failed, "changed")
                .help("somebody saved it meanwhile; run the same command again and look at the plan");
        }
    };
    match error {
        EndpointError::Address(_) => told(Exit::Usage, "invalid_address").help("for example https://grafana.internal"),
        EndpointError::Client { .. } => {
            told(Exit::Usage, "client").help("is `ca_file` of `grafana` in opsctl.toml a certificate?")
        }
        EndpointError::Unreachable { .. } => {
            told(Exit::Unreachable, "unreachable").help("is it up, and is its address in opsctl.toml right?")
        }
        EndpointError::TimedOut { .. } => {
            told(Exit::Unreachable, "timed_out").help("try again; what was written stays")
        }
        EndpointError::Forbidden { .. } => told(Exit::Refused, "forbidden").help(
            "`token` of `grafana` in opsctl.toml has to be that of a service account that may edit boards and folders",
        ),
        EndpointError::Refused { .. } => {
            told(Exit::Failed, "refused_by_grafana").help("nothing of this board was changed")
        }
        EndpointError::Redirected { .. } | EndpointError::TooLarge { .. } | EndpointError::Foreign { .. } => {
            told(Exit::Failed, "bad_answer").help("is it the address of a Grafana, with the path below which it is?")
        }
    }
}

/// The failure of asking a Prometheus for the figures of a picture.
pub(crate) fn data(what: impl Into<String>, error: &DataError) -> Failure {
    let told = |exit, code| Failure::new(exit, code, what.into()).because(error);
    match error {
        DataError::Unreachable(_) => told(Exit::Unreachable, "unreachable")
            .help("is it up? `--fixture FILE` draws what `--record FILE` has kept"),
        DataError::TimeOut => {
            told(Exit::Unreachable, "timed_out").help("a shorter stretch of time is asked for with `--from -15m`")
        }
        DataError::Refused(_) => told(Exit::Failed, "refused_by_prometheus"),
        DataError::TooLarge(_) | DataError::Garbled(_) => {
            told(Exit::Failed, "bad_answer").help("is `prometheus` in opsctl.toml the address of one?")
        }
        DataError::NotRecorded => told(Exit::Inconclusive, "not_recorded"),
    }
}

/// The failure of reading a recording.
pub(crate) fn fixture(file: &str, error: &FixtureError) -> Failure {
    let code = match error {
        FixtureError::TooLarge => "too_large",
        FixtureError::Schema => "wrong_schema",
        FixtureError::Read(_) => "not_a_recording",
    };
    Failure::usage(code, format!("`{file}` cannot be drawn from"))
        .because(error)
        .help("`opsctl dashboard render --format svg --record FILE` makes a recording")
}

/// The failure of reading a board to draw.
pub(crate) fn board(file: &str, error: &NotABoard) -> Failure {
    let code = match error {
        NotABoard::Json(_) => "not_json",
        NotABoard::Shape => "not_a_board",
    };
    Failure::usage(code, format!("`{file}` cannot be drawn"))
        .because(error)
        .help(format!("opsctl dashboard check {file}"))
}

/// The failure of reading a capture of `/metrics`.
pub(crate) fn capture(file: &str, error: &capture::Unreadable) -> Failure {
    Failure::usage("not_a_capture", format!("`{file}` is no capture of `/metrics`"))
        .because(error)
        .help(format!("curl -s http://localhost:8080/metrics > {file}"))
}

/// The failure of making a PNG of a board.
pub(crate) fn png(board: &str, error: &PngError) -> Failure {
    let what = format!("`{board}` cannot be drawn as PNG");
    match error {
        PngError::Size { .. } => Failure::usage("too_large", what)
            .because(error)
            .help("`--width` makes it smaller, and `--format svg` has no such limit"),
        PngError::Theme | PngError::Read(_) | PngError::Write(_) => Failure::bug(what).because(error),
    }
}

/// The failure of writing YAML.
pub(crate) fn unwritable(error: &Unwritable) -> Failure {
    Failure::bug("could not write the files of Grafana").because(error)
}
