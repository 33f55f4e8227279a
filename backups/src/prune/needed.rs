//! What snapshots need: every tree that one of them leads to, and every blob that such a tree names.

use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryStreamExt, stream};

use super::table::Table;
use crate::error::{Damage, Error};
use crate::progress::Progress;
use crate::repo::index::Index;
use crate::repo::layout::FileKind;
use crate::repo::{BlobKind, Id, Repository};

/// So many trees are read at once.
const AT_ONCE: usize = 8;

/// The root trees of these snapshots. One that cannot be read is an error: nobody knows what it needs.
pub(super) async fn roots(repository: &Repository, snapshots: Vec<Id>) -> Result<Vec<Id>, Error> {
    let load = async |id: Id| match repository.snapshot(&id).await {
        Ok(snapshot) => Ok(Some(snapshot.tree)),
        // Forgotten since it was listed.
        Err(Error::Damaged {
            damage: Damage::Missing,
            ..
        }) => Ok(None),
        Err(error) => Err(error),
    };
    let loading = stream::iter(snapshots).map(load).boxed().buffered(16);
    loading.try_filter_map(async |root| Ok(root)).try_collect().await
}

/// Every snapshot. Listed before the index is read, so that the index names all that they need.
pub(super) async fn snapshots(repository: &Repository) -> Result<Vec<Id>, Error> {
    let listed = repository.list(FileKind::Snapshot).await?;
    Ok(listed.into_iter().map(|(id, _)| id).collect())
}

/// Marks in the table what these trees need, and all below them. Each tree is read once; `trees` finds it. Whatever is
/// missing or cannot be read is an error: what is not known to be needed would go.
pub(super) async fn mark(
    repository: &Repository,
    table: &mut Table,
    trees: Index,
    mut open: Vec<Id>,
    progress: &dyn Progress,
) -> Result<(), Error> {
    let reader = repository.reader_with(trees);
    let mut reading = FuturesUnordered::new();
    loop {
        while reading.len() < AT_ONCE {
            let Some(id) = open.pop() else { break };
            if table.need(BlobKind::Tree, &id)? {
                let reader = &reader;
                reading.push(async move { reader.tree(&id).await });
            }
        }
        let Some(tree) = reading.try_next().await? else {
            return Ok(());
        };
        for node in tree.nodes {
            for blob in node.content.iter().flatten() {
                table.need(BlobKind::Data, blob)?;
            }
            open.extend(node.subtree);
        }
        progress.file_done();
    }
}
