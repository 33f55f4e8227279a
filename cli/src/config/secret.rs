//! Secrets: where one comes from (a file, a command, a variable), and the value itself, which no `Debug`, `Display`
//! or document ever shows.

use std::fmt;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use zeroize::Zeroizing;

use super::document::{Node, Value};
use super::finding::Findings;
use super::values::{FromNode, quoted};
use crate::context::Context;
use crate::error::Failure;
use crate::exit::Exit;

/// Where a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SecretSource {
    /// The first line of a file.
    File(PathBuf),
    /// What a command prints; program and arguments, no shell.
    Command {
        /// Program and arguments.
        command: Vec<String>,
        /// Where it runs.
        folder: Option<PathBuf>,
    },
    /// An environment variable.
    Variable(String),
    /// A Kubernetes Secret, `namespace/name#key`.
    Kubernetes(String),
}

/// A secret's value. Wiped from memory when dropped.
#[derive(Clone)]
pub(crate) struct Secret(Zeroizing<String>);

impl Secret {
    /// A secret from its value.
    pub(crate) fn new(value: impl Into<String>) -> Self {
        Self(Zeroizing::new(value.into()))
    }

    /// The value, for the one call that needs it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// More than any password or address; a longer file is the wrong file.
const LIMIT: u64 = 64 * 1024;

impl SecretSource {
    /// Fetches the value. `what` names it in errors, for example ``the password of repository `here` ``.
    pub(crate) fn fetch(&self, context: &Context, what: &str) -> Result<Secret, Failure> {
        match self {
            Self::File(path) => read_file(Some(context), path, what),
            Self::Command { command, folder } => run(command, folder.as_deref(), what),
            Self::Variable(name) => context.env(name).map(Secret::new).ok_or_else(|| {
                Failure::usage("secret_missing", format!("{what} is not set"))
                    .cause(format!("the environment variable `{name}` is empty or absent"))
                    .help(format!("set `{name}`"))
            }),
            Self::Kubernetes(_) => Err(of_a_cluster(what)),
        }
    }

    /// As [`SecretSource::fetch`], for what is fetched in the middle of a command, perhaps again: it warns of nothing.
    pub(crate) fn fetch_again(&self, what: &str) -> Result<Secret, Failure> {
        match self {
            Self::File(path) => read_file(None, path, what),
            Self::Command { command, folder } => run(command, folder.as_deref(), what),
            Self::Variable(name) => {
                let missing = || {
                    Failure::usage("secret_missing", format!("{what} is not set"))
                        .cause(format!("the environment variable `{name}` is empty or absent"))
                };
                let value = std::env::var(name).ok().filter(|value| !value.is_empty());
                value.map(Secret::new).ok_or_else(missing)
            }
            Self::Kubernetes(_) => Err(of_a_cluster(what)),
        }
    }
}

fn of_a_cluster(what: &str) -> Failure {
    Failure::usage("not_built", format!("{what} is in a Kubernetes Secret"))
        .cause("secrets of a cluster cannot be read yet")
        .help("use `{ file = … }`, `{ command = … }` or `{ env = … }`")
}

/// Without a context nobody is warned.
fn read_file(context: Option<&Context>, path: &std::path::Path, what: &str) -> Result<Secret, Failure> {
    let shown = context.map_or_else(|| path.display().to_string(), |context| context.shown(path).clone());
    let mut file = std::fs::File::open(path).map_err(|error| {
        let failure = Failure::usage("secret_missing", format!("{what} is not there"))
            .cause(format!("could not open `{shown}`"))
            .because(&error);
        if error.kind() == std::io::ErrorKind::NotFound {
            failure.help(format!(
                "put it into `{shown}`, on one line that nobody else may read (chmod 600)"
            ))
        } else {
            failure
        }
    })?;
    let mode = file.metadata().map_or(0, |metadata| metadata.mode());
    if let (Some(context), true) = (context, mode & 0o077 != 0) {
        context.out.warn(format!(
            "others may read `{shown}` (mode {:04o}): chmod 600 {shown}",
            mode & 0o7777
        ));
    }
    let mut text = Zeroizing::new(String::new());
    file.by_ref().take(LIMIT).read_to_string(&mut text).map_err(|error| {
        Failure::usage("secret_unreadable", format!("could not read {what} from `{shown}`")).because(&error)
    })?;
    first_line(&text, what, &format!("`{shown}` is empty"))
}

fn run(command: &[String], folder: Option<&std::path::Path>, what: &str) -> Result<Secret, Failure> {
    let [program, args @ ..] = command else {
        return Err(Failure::usage("secret_missing", format!("{what} has an empty command")));
    };
    let mut process = Command::new(program);
    process.args(args).stdin(Stdio::null()).stderr(Stdio::inherit());
    if let Some(folder) = folder {
        process.current_dir(folder);
    }
    let failed = || {
        Failure::usage(
            "secret_missing",
            format!("could not get {what} from the command `{program}`"),
        )
    };
    let output = process.output().map_err(|error| failed().because(&error))?;
    if !output.status.success() {
        // What it printed may be half a secret and is not shown.
        return Err(failed().cause(format!("it ended with {}", output.status)));
    }
    let text = Zeroizing::new(String::from_utf8(output.stdout).map_err(|_| failed().cause("it did not print text"))?);
    first_line(&text, what, "the command printed nothing")
}

fn first_line(text: &str, what: &str, empty: &str) -> Result<Secret, Failure> {
    match text.lines().next().filter(|line| !line.is_empty()) {
        Some(line) => Ok(Secret::new(line)),
        None => Err(Failure::new(Exit::Usage, "secret_missing", format!("{what} is empty")).cause(empty)),
    }
}

impl FromNode for SecretSource {
    fn from_node(node: &Node, findings: &Findings) -> Option<Self> {
        let Value::Table(table) = &node.value else {
            findings.error(&node.origin, "a secret is never written here: use { file = … }, { command = [ … ] }, { env = … } or { kubernetes = … }");
            return None;
        };
        let mut entries = table.entries.iter();
        let (Some((key, (origin, value))), None) = (entries.next(), entries.next()) else {
            findings.error(&node.origin, "expected one of `file`, `command`, `env`, `kubernetes`");
            return None;
        };
        match key.as_str() {
            "file" => PathBuf::from_node(value, findings).map(Self::File),
            "command" => Some(Self::Command {
                command: Vec::from_node(value, findings)?,
                folder: node.origin.folder().map(std::path::Path::to_path_buf),
            }),
            "env" => String::from_node(value, findings).map(Self::Variable),
            "kubernetes" => String::from_node(value, findings).map(Self::Kubernetes),
            other => {
                findings.error(
                    origin,
                    format!("unknown key `{other}`, known are `file`, `command`, `env`, `kubernetes`"),
                );
                None
            }
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::File(path) => format!("{{ file = {} }}", quoted(&path.display().to_string())),
            Self::Command { command, .. } => format!("{{ command = {} }}", command.shown()),
            Self::Variable(name) => format!("{{ env = {} }}", quoted(name)),
            Self::Kubernetes(name) => format!("{{ kubernetes = {} }}", quoted(name)),
        }
    }
}
