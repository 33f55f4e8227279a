//! What a datastore says of how it is saved, beyond its path: the keys of the kinds `files`, `command` and `postgres`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backups::Namespace;

use super::document::{Node, Value};
use super::finding::Findings;
use super::secret::SecretSource;
use super::section::Section;
use super::suggest::suggestion;
use super::values::{FromNode, Size, Span, quoted};

/// Keys of a `files` datastore. `exclude` stands beside them.
#[derive(Debug, Clone, Default)]
pub(crate) struct FilesKeys {
    /// Patterns that do not tell small letters from large ones.
    pub(crate) iexclude: Vec<String>,
    /// `NAME` or `NAME:HEADER` of files that mark their directory.
    pub(crate) exclude_if_present: Vec<String>,
    /// Directories with a `CACHEDIR.TAG` are left empty.
    pub(crate) exclude_caches: bool,
    /// Larger files are left out, bytes.
    pub(crate) exclude_larger_than: Option<u64>,
    /// Mounted file systems are not entered.
    pub(crate) one_file_system: bool,
    /// Which extended attributes are saved, if not the default.
    pub(crate) xattrs: Option<Vec<Namespace>>,
}

/// Keys of a `command` datastore.
#[derive(Debug, Clone)]
pub(crate) struct CommandKeys {
    /// Program and arguments, no shell.
    pub(crate) command: Vec<String>,
    /// What the output is called in the snapshot.
    pub(crate) filename: String,
    /// Stands at the end of a complete output.
    pub(crate) trailer: Option<String>,
    /// How long it may take.
    pub(crate) timeout: Option<Duration>,
    /// Where it runs.
    pub(crate) cwd: PathBuf,
    /// Added to its environment.
    pub(crate) variables: BTreeMap<String, Given>,
}

/// Keys of a `postgres` datastore: `programs`, and those in its `backup` table.
#[derive(Debug, Clone)]
pub(crate) struct PostgresKeys {
    /// How it is saved.
    pub(crate) method: Method,
    /// The databases that are dumped, if not all.
    pub(crate) databases: Vec<String>,
    /// Roles and what else is of all databases are dumped, too.
    pub(crate) globals: bool,
    /// The folder of PostgreSQL's programs, if they are not where they are looked for.
    pub(crate) programs: Option<PathBuf>,
}

/// How a `postgres` datastore is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// Its databases, by `pg_dump`.
    Dump,
    /// The whole cluster, and its log.
    Physical,
}

impl Method {
    const ALL: [(&'static str, Self); 2] = [("dump", Self::Dump), ("physical", Self::Physical)];
}

/// A value that is written down, or a secret that is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Given {
    /// Written down.
    Plain(String),
    /// Fetched when it is needed.
    Secret(SecretSource),
}

pub(super) fn files(section: &Section<'_>) -> FilesKeys {
    let words: Option<Vec<Word>> = section.optional("xattrs");
    FilesKeys {
        iexclude: section.optional("iexclude").unwrap_or_default(),
        exclude_if_present: section.optional("exclude_if_present").unwrap_or_default(),
        exclude_caches: section.optional("exclude_caches").unwrap_or_default(),
        exclude_larger_than: section.optional::<Size>("exclude_larger_than").map(|size| size.0),
        one_file_system: section.optional("one_file_system").unwrap_or_default(),
        xattrs: words.map(|words| words.into_iter().map(|word| word.0).collect()),
    }
}

pub(super) fn command(name: &str, section: &Section<'_>) -> Option<CommandKeys> {
    let command: Option<Vec<String>> = section.required("command");
    if command
        .as_ref()
        .is_some_and(|command| command.first().is_none_or(String::is_empty))
    {
        let message = "the command is empty: expected a program and its arguments";
        section.findings().error(section.place("command"), message);
    }
    let filename = section.or("filename", format!("{name}.dump"));
    if filename.is_empty()
        || filename.contains(['/', '\0'])
        || [".", "..", "manifest.json"].contains(&filename.as_str())
        || filename.len() > 255
    {
        let message =
            format!("{filename:?} is no name for the output: expected the name of a file, such as \"shop.sql\"");
        section.findings().error(section.place("filename"), message);
    }
    let folder = section.origin().folder().unwrap_or(Path::new("/"));
    Some(CommandKeys {
        filename,
        trailer: section.optional("trailer"),
        timeout: section.optional::<Span>("timeout").map(|span| span.0),
        cwd: section.optional("cwd").unwrap_or_else(|| folder.to_path_buf()),
        variables: section.optional("variables").unwrap_or_default(),
        command: command.filter(|command| !command.is_empty())?,
    })
}

/// The keys of `postgres`; `backup` is its table of that name.
pub(super) fn postgres(section: &Section<'_>, backup: Option<&Section<'_>>) -> PostgresKeys {
    let databases: Option<Vec<String>> = backup.and_then(|backup| backup.optional("databases"));
    if let (Some(backup), Some([])) = (backup, databases.as_deref()) {
        let told = "no database is named: leave `databases` out to save all";
        backup.findings().error(backup.place("databases"), told);
    }
    PostgresKeys {
        method: backup
            .and_then(|backup| backup.optional("method"))
            .unwrap_or(Method::Dump),
        databases: databases.unwrap_or_default(),
        globals: backup.and_then(|backup| backup.optional("globals")).unwrap_or(true),
        programs: section.optional("programs"),
    }
}

impl FromNode for Method {
    fn from_node(node: &Node, findings: &Findings) -> Option<Self> {
        let word = String::from_node(node, findings)?;
        let found = Self::ALL.iter().find(|(known, _)| *known == word);
        if found.is_none() {
            let known = Self::ALL.map(|(known, _)| format!("`{known}`")).join(", ");
            findings.error(
                &node.origin,
                format!("`{word}` is no way to save a database, known: {known}"),
            );
        }
        found.map(|(_, method)| *method)
    }

    fn shown(&self) -> String {
        let word = Self::ALL.iter().find(|(_, method)| method == self);
        quoted(word.map_or("", |(word, _)| word))
    }
}

/// A kind of extended attributes.
#[derive(Clone, Copy)]
struct Word(Namespace);

impl FromNode for Word {
    fn from_node(node: &Node, findings: &Findings) -> Option<Self> {
        let word = String::from_node(node, findings)?;
        let found = Namespace::ALL.iter().find(|(known, _)| *known == word);
        if found.is_none() {
            let near = suggestion(&word, Namespace::ALL.iter().map(|(known, _)| *known));
            let help = near.map_or_else(
                || format!("known are {}", Namespace::ALL.map(|(known, _)| known).join(", ")),
                |near| format!("did you mean `{near}`?"),
            );
            findings.error(
                &node.origin,
                format!("`{word}` is no kind of extended attributes, {help}"),
            );
        }
        found.map(|(_, namespace)| Self(*namespace))
    }

    fn shown(&self) -> String {
        quoted(self.0.word())
    }
}

impl FromNode for BTreeMap<String, Given> {
    fn from_node(node: &Node, findings: &Findings) -> Option<Self> {
        let Value::Table(table) = &node.value else {
            findings.error(
                &node.origin,
                "expected a table: variables = { PGHOST = \"db\", PGPASSWORD = { file = \"…\" } }",
            );
            return None;
        };
        let mut given = Self::new();
        for (name, (origin, node)) in &table.entries {
            if name.is_empty() || name.contains(['=', '\0']) {
                findings.error(origin, format!("{name:?} is no name of a variable"));
                return None;
            }
            let value = match &node.value {
                Value::Table(_) => SecretSource::from_node(node, findings).map(Given::Secret)?,
                _ => String::from_node(node, findings).map(Given::Plain)?,
            };
            given.insert(name.clone(), value);
        }
        Some(given)
    }

    fn shown(&self) -> String {
        // A value that is written down may be a secret in spite of everything.
        let shown = self.iter().map(|(name, given)| match given {
            Given::Plain(_) => format!("{name} = …"),
            Given::Secret(source) => format!("{name} = {}", source.shown()),
        });
        format!("{{ {} }}", shown.collect::<Vec<_>>().join(", "))
    }
}
