//! What a platform call can fail with. Sentences and exit codes are the business of the command line.

use std::path::PathBuf;

use crate::Field;

/// Why a platform call failed. `Display` says what, the source says why.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// No service has that name.
    #[error("there is no service `{service}`")]
    UnknownService {
        /// The name asked for.
        service: String,
    },
    /// The object has no such field.
    #[error("there is no field `{field}`")]
    UnknownField {
        /// The field asked for.
        field: Field,
    },
    /// The field cannot hold that value.
    #[error("`{field}` cannot be set: {reason}")]
    InvalidValue {
        /// The field.
        field: Field,
        /// What is wrong with the value.
        reason: String,
    },
    /// The instance is not the process it was.
    #[error("instance `{instance}` ({uid}) is gone")]
    Gone {
        /// The instance's id.
        instance: String,
        /// The uid that was meant.
        uid: String,
    },
    /// The run was closed or taken over; whoever asked must stop.
    #[error("run `{run}` has lost its right to change anything")]
    Fenced {
        /// The run.
        run: String,
    },
    /// The canary share lapsed or belongs to another run.
    #[error("the canary share of `{service}` is no longer held")]
    WeightLost {
        /// The service.
        service: String,
    },
    /// A record with that id exists.
    #[error("run `{run}` exists already")]
    RecordExists {
        /// The run.
        run: String,
    },
    /// The record was changed by somebody else since it was read.
    #[error("the record of run `{run}` changed meanwhile")]
    RecordConflict {
        /// The run.
        run: String,
    },
    /// There is no such record.
    #[error("there is no run `{run}`")]
    RecordMissing {
        /// The run.
        run: String,
    },
    /// The lease has another holder or is gone.
    #[error("the lease `{name}` is lost")]
    LeaseLost {
        /// The lease.
        name: String,
    },
    /// Another process has what is asked for.
    #[error("{what} is in use by {holder}")]
    Busy {
        /// What is locked.
        what: String,
        /// Who has it, in words (process id, command).
        holder: String,
    },
    /// A port cannot be had.
    #[error("port {port} is taken{}", .holder.as_ref().map(|h| format!(" by {h}")).unwrap_or_default())]
    PortTaken {
        /// The port.
        port: u16,
        /// Who has it, if that can be seen: `name (pid N)`.
        holder: Option<String>,
    },
    /// A file or folder that others own or may write.
    #[error("`{}` is not safe to use: {reason}", .path.display())]
    Unsafe {
        /// The path.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The peer did not answer.
    #[error("{what} cannot be reached")]
    Unreachable {
        /// Which peer.
        what: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The peer took too long.
    #[error("{what} took longer than {} s", .limit.as_secs_f64())]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long.
        limit: std::time::Duration,
    },
    /// A file operation failed.
    #[error("could not {action} `{}`", .path.display())]
    Io {
        /// What was tried: `read`, `write` …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file of ours does not hold what it should.
    #[error("`{}` is damaged", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A program could not be started.
    #[error("could not start `{program}`")]
    Spawn {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}
