//! Writes a file's content, or a directory as a tar archive, to any output.

use std::io::Write;
use std::path::Path;

use futures::{StreamExt, TryStreamExt, stream};

use super::{LsEntry, ls, node_at, tar};
use crate::error::Error;
use crate::repo::{BlobKind, Node, NodeKind, Reader, Repository, Snapshot};

/// So many blobs are fetched ahead.
const AHEAD: usize = 4;

/// Writes what lies at `path`: a file as its bytes, a directory (empty: the whole snapshot) as a tar archive with
/// names relative to it. Damage ends it with an error; what was written until then is sound.
pub async fn dump(
    repository: &Repository,
    snapshot: &Snapshot,
    path: &Path,
    out: &mut (dyn Write + Send),
) -> Result<(), Error> {
    let reader = repository.reader().await?;
    let base = match node_at(&reader, snapshot, path).await? {
        Some((_, node)) if node.kind == NodeKind::File => {
            content(&reader, &node, out).await?;
            return out.flush().map_err(Error::Output);
        }
        Some((base, node)) if node.kind == NodeKind::Dir => base,
        Some(_) => {
            return Err(Error::WrongType {
                path: path.to_owned(),
                expected: "file or directory",
            });
        }
        None => std::path::PathBuf::new(),
    };
    for LsEntry { path, node } in ls(repository, snapshot, path, true).await? {
        let Some(name) = path
            .strip_prefix(&base)
            .ok()
            .filter(|name| !name.as_os_str().is_empty())
        else {
            continue;
        };
        let Some(header) = tar::header(name, &node) else {
            continue;
        };
        out.write_all(&header).map_err(Error::Output)?;
        if node.kind == NodeKind::File {
            content(&reader, &node, out).await?;
            out.write_all(tar::padding(node.size)).map_err(Error::Output)?;
        }
    }
    out.write_all(&tar::END).map_err(Error::Output)?;
    out.flush().map_err(Error::Output)
}

/// Writes a file's content; its length is the node's, or it is an error.
async fn content(reader: &Reader, node: &Node, out: &mut (dyn Write + Send)) -> Result<(), Error> {
    let blobs = node.content.clone().unwrap_or_default();
    let mut fetched = stream::iter(blobs)
        .map(|id| async move { reader.blob(BlobKind::Data, &id).await })
        .buffered(AHEAD);
    let mut written = 0;
    while let Some(plain) = fetched.try_next().await? {
        out.write_all(&plain).map_err(Error::Output)?;
        written += plain.len() as u64;
    }
    if written == node.size {
        Ok(())
    } else {
        Err(Error::Invalid(format!(
            "{} has {written} bytes, not {} as its directory says",
            node.name.display(),
            node.size
        )))
    }
}
