//! What a command prints, such as `pg_dumpall`. Its exit status decides: a snapshot comes to be only if the output came
//! to its end, the command ended with status 0, and, where a trailer is asked for, the output ends with it. Whatever was
//! stored of an output that does not count is never named by a snapshot.
//!
//! The output is stored as a file beside a `manifest.json`. Nothing is written to a disk on the way.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::stream::{MANIFEST, Outcome, Passed, against_manifest, stream_node, take};
use super::{Source, SourceError, Verification, VerifiedCheck, Written};
pub use crate::process::Variable;
use crate::process::{self, Launch, redact};
use crate::progress::Phase;
use crate::repo::{Node, NodeKind, Tree, Writer};
use crate::threads::blocking;
use crate::{Error, clock};

/// What to run, and what to expect of it.
#[derive(Default)]
pub struct CommandOptions {
    /// The program: a path, or a name that is looked for on `PATH`.
    pub program: PathBuf,
    /// Its arguments. What looks like a secret in them is not written into the manifest.
    pub arguments: Vec<String>,
    /// Added to our environment.
    pub variables: Vec<Variable>,
    /// Where it runs; otherwise where we do.
    pub folder: Option<PathBuf>,
    /// What the output is called in the snapshot.
    pub name: String,
    /// Stands in the last 4 KiB of an output that is complete.
    pub trailer: Option<String>,
    /// How long it may take.
    pub timeout: Option<Duration>,
}

/// The output of a command.
pub struct CommandSource {
    options: Arc<CommandOptions>,
}

/// What the manifest says: enough to prove a restored copy without the repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// `opsctl.source/v1`.
    pub schema: String,
    /// The kind of source.
    pub kind: String,
    /// The file that it describes.
    pub name: String,
    /// Its length.
    pub length_bytes: u64,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
    /// The program that wrote the manifest.
    pub tool_version: String,
    /// The command, with `…` for what looks like a secret.
    pub command: Vec<String>,
    /// How it ended.
    pub exit_status: i32,
    /// The trailer that was found at the end.
    pub trailer: Option<String>,
    /// When the command was started: the state that was saved is not older than this.
    pub taken_at: Timestamp,
    /// When it had ended.
    pub ended_at: Timestamp,
}

/// Why the output of a command does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandFailure {
    /// It ended with another status than 0.
    Status(i32),
    /// A signal ended it.
    Signal(i32),
    /// It took longer than it may.
    Timeout(Duration),
    /// It ended well and printed nothing.
    Nothing,
    /// It ended well, and the output does not end with this.
    NoTrailer(String),
    /// Its output could not be read.
    Output(String),
}

impl fmt::Display for CommandFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "ended with status {status}"),
            Self::Signal(signal) => write!(f, "was ended by signal {signal}"),
            Self::Timeout(limit) => write!(f, "did not end within {} s, and was ended", limit.as_secs_f64()),
            Self::Nothing => f.write_str("ended well and printed nothing"),
            Self::NoTrailer(trailer) => write!(
                f,
                "ended well, but its output does not end with {trailer:?}, so it is not complete"
            ),
            Self::Output(problem) => write!(f, "printed what could not be read: {problem}"),
        }
    }
}

impl CommandSource {
    /// The output of this command.
    pub fn new(options: CommandOptions) -> Self {
        Self {
            options: Arc::new(options),
        }
    }

    fn failed(&self, failure: CommandFailure, said: &[u8]) -> SourceError {
        let said = String::from_utf8_lossy(said);
        SourceError::Command {
            program: self.program(),
            failure,
            said: redact::hide(said.trim_end(), &self.options.variables),
        }
    }

    fn program(&self) -> String {
        self.options.program.display().to_string()
    }

    fn launch(&self) -> Launch {
        let options = &self.options;
        let copied = |variable: &Variable| Variable {
            name: variable.name.clone(),
            value: variable.value.clone(),
            is_secret: variable.is_secret,
        };
        Launch {
            program: options.program.clone(),
            arguments: options.arguments.iter().map(Into::into).collect(),
            variables: options.variables.iter().map(copied).collect(),
            folder: options.folder.clone(),
            ..Launch::default()
        }
    }
}

#[async_trait]
impl Source for CommandSource {
    fn kind(&self) -> &'static str {
        "command"
    }

    fn paths(&self) -> Vec<PathBuf> {
        vec![Path::new("/").join(&self.options.name)]
    }

    async fn write(&self, into: &Writer<'_>) -> Result<Written, Error> {
        let options = &self.options;
        if options.name == MANIFEST || !Node::new(&options.name, NodeKind::File, 0).has_safe_name() {
            let name = &options.name;
            return Err(Error::Invalid(format!(
                "{name:?} is no name for the output of a command"
            )));
        }
        let taken_at = clock::now();
        into.progress().phase(Phase::Saving, None, Some(1));
        into.progress().file(Path::new(&options.name));
        if let Some(folder) = options.folder.as_ref().filter(|folder| !folder.is_dir()) {
            let (path, expected) = (folder.clone(), "folder");
            return Err(SourceError::NotA { path, expected }.into());
        }
        let launch = self.launch();
        let started = blocking(move || process::start(launch)).await?;
        let (mut running, output) = started.map_err(|source| SourceError::Program {
            program: self.program(),
            source,
        })?;
        let (passed, tail) = (Passed::default(), output.tail());
        let taking = take(into, &mut running, &passed, output);
        let taken = match options.timeout {
            Some(limit) => {
                let expired = |_| Err(Outcome::Failed(CommandFailure::Timeout(limit)));
                tokio::time::timeout(limit, taking).await.unwrap_or_else(expired)
            }
            None => taking.await,
        };
        let trailer = options.trailer.as_deref().filter(|trailer| !trailer.is_empty());
        let judged = taken.and_then(|(content, status)| {
            if content.size == 0 {
                return Err(Outcome::Failed(CommandFailure::Nothing));
            }
            match trailer.filter(|trailer| !tail.holds(trailer.as_bytes())) {
                Some(trailer) => Err(Outcome::Failed(CommandFailure::NoTrailer(trailer.to_owned()))),
                None => Ok((content, status)),
            }
        });
        let (content, status) = match judged {
            Ok(good) => good,
            Err(Outcome::Engine(error)) => return Err(error),
            Err(Outcome::Failed(failure)) => {
                let said = running.give_up().await;
                return Err(self.failed(failure, &said).into());
            }
        };
        running.release();
        let manifest = Manifest {
            schema: "opsctl.source/v1".to_owned(),
            kind: self.kind().to_owned(),
            name: options.name.clone(),
            length_bytes: content.size,
            sha256: passed.sha256(),
            tool_version: concat!("opsctl ", env!("CARGO_PKG_VERSION")).to_owned(),
            command: redact::command(&self.program(), &options.arguments, &options.variables),
            exit_status: status.code().unwrap_or_default(),
            trailer: trailer.map(str::to_owned),
            taken_at,
            ended_at: clock::now(),
        };
        let ended_at = manifest.ended_at;
        let json =
            serde_json::to_vec_pretty(&manifest).map_err(|_| Error::Internal("a manifest is always valid JSON"))?;
        let manifest = into.save_bytes(json).await?;
        into.count(|summary| {
            summary.files_new += 2;
            summary.total_files_processed += 2;
            summary.total_bytes_processed += content.size + manifest.size;
        });
        into.progress().file_done();
        let nodes = vec![
            stream_node(options.name.clone().into(), content, ended_at),
            stream_node(MANIFEST.into(), manifest, ended_at),
        ];
        Ok(Written {
            root: Tree::new(nodes),
            skipped: Vec::new(),
            changed: Vec::new(),
        })
    }

    async fn verify(&self, restored: &Path) -> Result<Verification, Error> {
        let (file, manifest) = (restored.join(&self.options.name), restored.join(MANIFEST));
        let comparing = blocking(move || against_manifest(&file, &manifest));
        let problem = comparing.await?.map_err(|error| error.to_string());
        Ok(Verification {
            checks: vec![VerifiedCheck {
                name: "manifest",
                problem: problem.unwrap_or_else(Some),
            }],
        })
    }
}
