//! Finds `opsctl.toml` and refuses one that others could have written. The file says which commands run, so whoever
//! can change it can run anything as its reader; that is why root refuses it too.

use std::fs::{File, Metadata};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{ConfigError, FILE_NAME};
use crate::context::Context;

/// The configuration file: `--config`, else `OPSCTL_CONFIG`, else the nearest `opsctl.toml` upwards.
pub(super) fn find(context: &Context) -> Result<PathBuf, ConfigError> {
    let named = context
        .global
        .config
        .clone()
        .or_else(|| context.env("OPSCTL_CONFIG").map(PathBuf::from));
    if let Some(named) = named {
        return Ok(context.absolute(&named));
    }
    context
        .cwd()
        .ancestors()
        .map(|folder| folder.join(FILE_NAME))
        .find(|file| file.symlink_metadata().is_ok())
        .ok_or_else(|| ConfigError::NotFound {
            from: context.cwd().display().to_string(),
        })
}

/// Reads a file whose owner and mode, and whose folder's, can be trusted.
pub(super) fn read_trusted(context: &Context, file: &Path) -> Result<String, ConfigError> {
    let shown = context.shown(file);
    let failed = |source| ConfigError::Read {
        path: shown.clone(),
        source,
    };
    let mut open = File::open(file).map_err(failed)?;
    // The opened file is judged, not the name, which could come to mean another file.
    trust(context, file, &open.metadata().map_err(failed)?)?;
    let real = file.canonicalize().map_err(failed)?;
    for folder in [file.parent(), real.parent()].into_iter().flatten() {
        trust(context, folder, &folder.metadata().map_err(failed)?)?;
    }
    let mut text = String::new();
    open.read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

/// Refuses a path that others own or may write.
pub(crate) fn check_trust(context: &Context, path: &Path) -> Result<(), ConfigError> {
    let metadata = path.metadata().map_err(|source| ConfigError::Read {
        path: context.shown(path),
        source,
    })?;
    trust(context, path, &metadata)
}

fn trust(context: &Context, path: &Path, metadata: &Metadata) -> Result<(), ConfigError> {
    let shown = context.shown(path);
    let refuse = |reason: String, cure: String| {
        Err(ConfigError::Untrusted {
            path: shown.clone(),
            reason,
            cure,
        })
    };
    let me = rustix::process::geteuid().as_raw();
    let (owner, mode) = (metadata.uid(), metadata.mode());
    if owner != me && owner != 0 {
        return refuse(
            format!("it belongs to uid {owner}, not to you (uid {me})"),
            format!("chown {me} {shown}"),
        );
    }
    if mode & 0o022 != 0 {
        let who = if mode & 0o002 != 0 { "everybody" } else { "its group" };
        return refuse(
            format!("{who} may write it (mode {:04o})", mode & 0o7777),
            format!("chmod go-w {shown}"),
        );
    }
    Ok(())
}
