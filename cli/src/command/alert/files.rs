//! Files of rules and tests as they are typed: one by one, or as folders. Nothing is judged here but what a file is.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use alerts::kind::Kind;
use lint::SourceFile;

use crate::context::Context;
use crate::error::Failure;
use crate::exit::Exit;

/// A larger file is refused before it is read.
const LARGEST: u64 = 64 << 20;
/// Folders inside of folders.
const DEPTH: usize = 16;
/// Files below the folders that were typed.
const MOST: usize = 20_000;

/// A file that was read.
pub(super) struct Read {
    /// Where it is.
    pub(super) path: PathBuf,
    /// Its text, under the name that it is told by.
    pub(super) source: SourceFile,
    /// What it is.
    pub(super) kind: Kind,
}

/// The files that were typed, and those in typed folders that are of a wanted kind.
pub(super) fn read(context: &Context, typed: &[PathBuf], wanted: &[Kind]) -> Result<Vec<Read>, Failure> {
    let mut all: Vec<Read> = Vec::new();
    for typed in typed {
        let path = context.absolute(typed);
        if !path.is_dir() {
            all.push(one(context, path)?);
            continue;
        }
        let mut found = Vec::new();
        below(context, &path, DEPTH, &mut found)?;
        let before = all.len();
        for path in found {
            let read = one(context, path)?;
            if wanted.contains(&read.kind) {
                all.push(read);
            }
        }
        if all.len() == before {
            let told = format!("`{}` holds nothing of the kind", context.shown(&path));
            return Err(Failure::usage("nothing_there", told));
        }
    }
    all.sort_by(|a, b| a.path.cmp(&b.path));
    all.dedup_by(|a, b| a.path == b.path);
    Ok(all)
}

fn one(context: &Context, path: PathBuf) -> Result<Read, Failure> {
    let text = text(context, &path)?;
    Ok(Read {
        kind: Kind::of(&text),
        source: SourceFile::new(context.shown(&path), text),
        path,
    })
}

/// The text of a file.
pub(super) fn text(context: &Context, path: &Path) -> Result<String, Failure> {
    let unreadable = || Failure::usage("unreadable", format!("could not read `{}`", context.shown(path)));
    let file = fs::File::open(path).map_err(|error| unreadable().because(&error))?;
    // Of something without end no more is read either.
    let mut text = String::new();
    let read = file.take(LARGEST + 1).read_to_string(&mut text);
    if text.len() as u64 > LARGEST {
        return Err(unreadable().cause(format!("it is larger than {} MiB", LARGEST >> 20)));
    }
    read.map_err(|error| unreadable().because(&error))?;
    Ok(text)
}

/// Every `.yaml` and `.yml`, without hidden folders and links to folders.
fn below(context: &Context, folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let unreadable = |error| {
        let told = format!("could not read the folder `{}`", context.shown(folder));
        Failure::new(Exit::Usage, "unreadable", told).because(&error)
    };
    let mut entries: Vec<_> = fs::read_dir(folder)
        .and_then(Iterator::collect::<Result<_, _>>)
        .map_err(unreadable)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        let kind = entry.file_type().map_err(unreadable)?;
        if kind.is_dir() && !hidden && depth > 0 {
            below(context, &path, depth - 1, found)?;
        } else if !kind.is_dir() && path.extension().is_some_and(|end| end == "yaml" || end == "yml") {
            found.push(path);
        }
        if found.len() > MOST {
            let told = format!("`{}` holds more than {MOST} files", context.shown(folder));
            return Err(Failure::usage("too_many", told));
        }
    }
    Ok(())
}
