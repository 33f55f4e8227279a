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
    /// The fault lapsed or was replaced.
    #[error("the fault on `{object}` is no longer there")]
    FaultLost {
        /// What it was played on.
        object: String,
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
    /// The credentials are good for something else.
    #[error("not allowed to {verb} {resource} in {}", .namespace.as_deref().map_or_else(|| "the cluster".to_owned(), |n| format!("namespace `{n}`")))]
    Forbidden {
        /// `get`, `patch` …
        verb: String,
        /// With its group: `deployments.apps`, `pods/eviction`.
        resource: String,
        /// Where; `None` for the whole cluster.
        namespace: Option<String>,
    },
    /// The credentials are good for nothing.
    #[error("{what} does not accept the credentials")]
    Unauthorized {
        /// Which peer.
        what: String,
    },
    /// A certificate's time is over.
    #[error("the certificate {what} has expired")]
    Expired {
        /// Whose: `of the API server`, `in the kubeconfig`.
        what: String,
    },
    /// The platform understood, and does not do it.
    #[error("{what} is refused: {why}")]
    Refused {
        /// What was asked for.
        what: String,
        /// In the platform's words.
        why: String,
    },
    /// Somebody else keeps the object as it is, and would set back what is changed.
    #[error("{what} is refused: it belongs to {owner}, which sets that back; {how}")]
    Owned {
        /// What was asked for.
        what: String,
        /// Who keeps it.
        owner: String,
        /// What makes that one leave it alone.
        how: String,
    },
    /// Something that the platform needs is not there: an object, a namespace, a kind of object.
    #[error("{what} does not exist")]
    Missing {
        /// What.
        what: String,
    },
    /// Nothing counts the traffic of the service.
    #[error("the traffic of `{service}` is not known: {why}")]
    NoTraffic {
        /// The service.
        service: String,
        /// Why.
        why: String,
    },
    /// The kubeconfig means another cluster than the configuration.
    #[error("context `{context}` leads to {actual}, not to {expected}")]
    WrongServer {
        /// The context's name.
        context: String,
        /// The server that is configured.
        expected: String,
        /// The server in the kubeconfig.
        actual: String,
    },
    /// The kubeconfig has no such context.
    #[error("there is no context `{context}` in the kubeconfig")]
    UnknownContext {
        /// The name asked for.
        context: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// There is no kubeconfig, or it cannot be used.
    #[error("the kubeconfig cannot be used: {why}")]
    Kubeconfig {
        /// Why.
        why: String,
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
