//! Files that are derived from the catalogue: what would change where they lie, and then that. Whether a file that lies
//! there may be replaced is for whoever derives it to say.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::context::Context;
use crate::error::Failure;
use crate::output::{Paint, Style, one_line};

/// What happens to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Change {
    Create,
    Update,
    /// It is as it should be.
    Keep,
    /// It was derived once and is not any more.
    Remove,
}

impl Change {
    fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Keep => "keep",
            Self::Remove => "remove",
        }
    }

    fn style(self) -> Style {
        match self {
            Self::Create => Style::Done,
            Self::Update => Style::Warning,
            Self::Keep => Style::Faint,
            Self::Remove => Style::Error,
        }
    }
}

/// A file, and what happens to it.
#[derive(Debug, Serialize)]
pub(crate) struct Derived {
    #[serde(skip)]
    pub(crate) file: PathBuf,
    /// As it is told of.
    path: String,
    pub(crate) change: Change,
    #[serde(skip)]
    bytes: Vec<u8>,
}

impl Derived {
    /// A file that is to hold `bytes`, and now holds `old`, if it is there.
    pub(crate) fn wanted(context: &Context, file: PathBuf, old: Option<&[u8]>, bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self {
            path: context.shown(&file),
            file,
            change: match old {
                None => Change::Create,
                Some(old) if old == bytes => Change::Keep,
                Some(_) => Change::Update,
            },
            bytes,
        }
    }

    /// A file that is to go.
    pub(crate) fn unwanted(context: &Context, file: PathBuf) -> Self {
        Self {
            path: context.shown(&file),
            file,
            change: Change::Remove,
            bytes: Vec::new(),
        }
    }

    /// Does it.
    pub(crate) fn apply(&self, context: &Context) -> Result<(), Failure> {
        match self.change {
            Change::Keep => Ok(()),
            Change::Create | Change::Update => replace(context, &self.file, &self.bytes),
            Change::Remove => fs::remove_file(&self.file)
                .map_err(|error| Failure::io(format!("could not remove `{}`", self.path), &error)),
        }
    }
}

/// How many files change.
pub(crate) fn differing(files: &[Derived]) -> usize {
    files.iter().filter(|file| file.change != Change::Keep).count()
}

/// A line for each file that changes.
pub(crate) fn lines(files: &[Derived], paint: Paint) -> String {
    let changed = files.iter().filter(|file| file.change != Change::Keep);
    let line = |file: &Derived| {
        let word = paint.apply(file.change.style(), file.change.word());
        format!("{word}  {}\n", one_line(&file.path))
    };
    changed.map(line).collect()
}

/// What a file holds; `None` where there is none.
pub(crate) fn held(context: &Context, file: &Path) -> Result<Option<Vec<u8>>, Failure> {
    match fs::read(file) {
        Ok(bytes) => Ok(Some(bytes)),
        // A link that leads nowhere is something that lies there.
        Err(error) if error.kind() == io::ErrorKind::NotFound && file.symlink_metadata().is_err() => Ok(None),
        Err(error) => Err(Failure::io(format!("could not read `{}`", context.shown(file)), &error)),
    }
}

/// Replaces a file as a whole, so that nobody reads half of one, and keeps who may read it. A link stays one: what it leads
/// to is replaced.
pub(crate) fn replace(context: &Context, file: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let write = || {
        let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
        let folder = file.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder)?;
        let mode = fs::metadata(&file).map_or(0o644, |metadata| metadata.permissions().mode());
        let mut half = tempfile::NamedTempFile::new_in(folder)?;
        half.write_all(bytes)?;
        half.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
        half.as_file().sync_all()?;
        half.persist(file).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(|error: io::Error| Failure::io(format!("could not write `{}`", context.shown(file)), &error))
}
