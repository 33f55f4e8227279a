//! Takes the archives of a base backup apart while they come: each file is hashed, cut and handed to the writer, and put
//! into its folder when its last byte has come.
//!
//! Files of relations are changed page by page in their places, and never shift: they are cut at fixed distances, so that
//! a changed page costs the chunk that it lies in and nothing around it. Chunks are smaller than those of other sources,
//! because changes are scattered.

use std::collections::BTreeSet;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use replication::{Oid, Part};
use sha2::{Digest, Sha256};

use super::folders::{FileItem, Folder, Look, Taken};
use super::manifest;
use super::record::{DATA, TABLESPACES};
use super::tar::{Entry, EntryKind, TarEvent, TarReader};
use super::{BaseError, FileProblem, ManifestFault};
use crate::Error;
use crate::repo::{Cut, Id, ReadFailure, Writer};

/// Where files are cut: 32 pages. One scattered change in a hundred pages then leaves three quarters of a file as they
/// are; half of this would leave more, and make the index twice as large.
const CHUNK: u64 = 256 << 10;

/// The manifest's name in a data folder.
pub(in crate::source::postgres::base) const BACKUP_MANIFEST: &str = "backup_manifest";

/// Everything that came.
pub(super) struct Received {
    /// The snapshot's root.
    pub(super) root: Folder,
    /// The blobs of all files, one behind the other.
    pub(super) blobs: Vec<Id>,
    /// Which archives there were.
    pub(super) archives: BTreeSet<Option<Oid>>,
    /// The server's manifest.
    pub(super) manifest: Bytes,
    /// How many files there were, and bytes in them; without the manifest.
    pub(super) files: u64,
    pub(super) bytes: u64,
    /// The last file of the data folder.
    pub(super) last: PathBuf,
}

/// Takes a base backup in, part by part.
pub(super) struct Intake<'a, 'w> {
    into: &'a Writer<'w>,
    received: Received,
    archive: Option<Archive>,
    file: Option<OpenFile>,
    cut: Cut,
    /// How many chunks were ended: the number of the next one.
    chunks: usize,
    sealing: FuturesOrdered<BoxFuture<'static, Result<Vec<Id>, Error>>>,
    /// What came of the manifest, once it began.
    manifest: Option<Vec<u8>>,
}

/// The archive that is being read.
struct Archive {
    tablespace: Option<Oid>,
    tar: TarReader,
}

impl Archive {
    /// What people call it.
    fn name(&self) -> String {
        match self.tablespace {
            None => "the data folder".to_owned(),
            Some(oid) => format!("tablespace {oid}"),
        }
    }

    /// Where its files lie in the snapshot.
    fn folder(&self) -> PathBuf {
        match self.tablespace {
            None => DATA.into(),
            Some(oid) => Path::new(TABLESPACES).join(oid.to_string()),
        }
    }
}

/// The file that is being read.
struct OpenFile {
    path: PathBuf,
    look: Look,
    size: u64,
    left: u64,
    hash: Sha256,
    first_chunk: usize,
    /// How much of the open chunk is still to come.
    chunk_left: u64,
}

impl<'a, 'w> Intake<'a, 'w> {
    pub(super) fn new(into: &'a Writer<'w>) -> Self {
        Self {
            into,
            received: Received {
                root: Folder::default(),
                blobs: Vec::new(),
                archives: BTreeSet::new(),
                manifest: Bytes::new(),
                files: 0,
                bytes: 0,
                last: PathBuf::new(),
            },
            archive: None,
            file: None,
            cut: into.cut(),
            chunks: 0,
            sealing: FuturesOrdered::new(),
            manifest: None,
        }
    }

    /// Takes what came next.
    pub(super) async fn take(&mut self, part: Part) -> Result<(), Error> {
        match part {
            Part::Archive { tablespace } => {
                self.end_archive()?;
                if self.manifest.is_some() || !self.received.archives.insert(tablespace) {
                    return Err(inconsistent("an archive came twice, or after the manifest"));
                }
                self.archive = Some(Archive {
                    tablespace,
                    tar: TarReader::new(),
                });
                Ok(())
            }
            Part::Data(bytes) => self.data(bytes).await,
            Part::ManifestBegins => {
                self.end_archive()?;
                if self.manifest.replace(Vec::new()).is_some() {
                    return Err(inconsistent("there are two manifests"));
                }
                Ok(())
            }
            Part::Manifest(bytes) => {
                let Some(manifest) = &mut self.manifest else {
                    return Err(inconsistent("the manifest has no beginning"));
                };
                if manifest.len() + bytes.len() > manifest::LONGEST {
                    return Err(BaseError::from(ManifestFault::TooLong).into());
                }
                manifest.extend_from_slice(&bytes);
                Ok(())
            }
        }
    }

    /// Everything has come.
    pub(super) async fn finish(mut self) -> Result<Received, Error> {
        self.end_archive()?;
        self.send()?;
        while let Some(sealed) = self.sealing.next().await {
            self.received.blobs.extend(sealed?);
        }
        self.received.manifest = self.manifest.take().unwrap_or_default().into();
        let reader = Cursor::new(self.received.manifest.clone());
        let content = match self.into.save(reader).await {
            Ok(content) => content,
            Err(ReadFailure::Engine(error)) => return Err(error),
            Err(ReadFailure::Reader(_)) => return Err(Error::Internal("memory cannot fail to be read")),
        };
        let first = self.received.blobs.len();
        self.received.blobs.extend(content.blobs);
        let manifest = FileItem {
            look: Look::ours(crate::clock::now()),
            size: content.size,
            sha256: Sha256::digest(&self.received.manifest).into(),
            blobs: first..self.received.blobs.len(),
        };
        let path = Path::new(DATA).join(BACKUP_MANIFEST);
        let added = self.received.root.add_file(&path, manifest);
        added.map_err(|Taken| twice(Path::new(BACKUP_MANIFEST)))?;
        Ok(self.received)
    }

    async fn data(&mut self, bytes: Bytes) -> Result<(), Error> {
        let Some(archive) = &mut self.archive else {
            return Err(inconsistent("data came before its archive"));
        };
        archive.tar.push(bytes);
        while let Some(archive) = &mut self.archive {
            match archive.tar.next() {
                Ok(None) => break,
                Ok(Some(TarEvent::Entry(entry))) => self.entry(entry)?,
                Ok(Some(TarEvent::Content(bytes))) => self.content(&bytes).await?,
                Ok(Some(TarEvent::FileEnds)) => self.end_file()?,
                Err(source) => {
                    let archive = archive.name();
                    return Err(BaseError::Archive { archive, source }.into());
                }
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: Entry) -> Result<(), Error> {
        let Some(archive) = &self.archive else {
            return Err(Error::Internal("an entry has its archive"));
        };
        let look = Look::from(&entry);
        let path = archive.folder().join(&entry.path);
        let root = &mut self.received.root;
        match entry.kind {
            EntryKind::File { size } => {
                if archive.tablespace.is_none() {
                    self.received.last.clone_from(&entry.path);
                }
                self.into.progress().file(&entry.path);
                self.file = Some(OpenFile {
                    path,
                    look,
                    size,
                    left: size,
                    hash: Sha256::new(),
                    first_chunk: self.chunks,
                    chunk_left: 0,
                });
                Ok(())
            }
            EntryKind::Folder => root.add_folder(&path, look).map_err(|Taken| twice(&entry.path)),
            EntryKind::Link { target } => root.add_link(&path, look, target).map_err(|Taken| twice(&entry.path)),
        }
    }

    /// The next bytes of the open file.
    async fn content(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let Some(file) = &mut self.file else {
                return Err(Error::Internal("content has its file"));
            };
            if file.chunk_left == 0 {
                let next = CHUNK.min(file.left);
                if next > self.cut.room() as u64 {
                    self.send()?;
                    self.wait().await?;
                    continue;
                }
                file.chunk_left = next;
            }
            let count = usize::try_from(file.chunk_left).unwrap_or(usize::MAX).min(bytes.len());
            let (now, rest) = bytes.split_at(count);
            if self.cut.extend(now) != count {
                return Err(Error::Internal("there is room for a chunk"));
            }
            file.hash.update(now);
            file.left -= count as u64;
            file.chunk_left -= count as u64;
            if file.chunk_left == 0 {
                self.chunks += usize::from(self.cut.end_chunk());
            }
            bytes = rest;
        }
        Ok(())
    }

    fn end_file(&mut self) -> Result<(), Error> {
        let Some(file) = self.file.take() else {
            return Err(Error::Internal("what ends has begun"));
        };
        let item = FileItem {
            look: file.look,
            size: file.size,
            sha256: file.hash.finalize().into(),
            blobs: file.first_chunk..self.chunks,
        };
        self.received.files += 1;
        self.received.bytes += file.size;
        self.into.progress().bytes(file.size);
        self.into.progress().file_done();
        let added = self.received.root.add_file(&file.path, item);
        added.map_err(|Taken| twice(&file.path))
    }

    fn end_archive(&mut self) -> Result<(), Error> {
        let Some(archive) = self.archive.take() else {
            return Ok(());
        };
        let name = archive.name();
        let whole = archive.tar.finish();
        Ok(whole.map_err(|source| BaseError::Archive { archive: name, source })?)
    }

    /// Hands over what was cut.
    fn send(&mut self) -> Result<(), Error> {
        self.into.still_wanted()?;
        let cut = std::mem::replace(&mut self.cut, self.into.cut());
        if !cut.is_empty() {
            self.sealing.push_back(Box::pin(self.into.save_cut(cut)));
        }
        Ok(())
    }

    /// Waits while more is in hand than can be worked on.
    async fn wait(&mut self) -> Result<(), Error> {
        while self.sealing.len() > self.into.blocks_at_once()
            && let Some(sealed) = self.sealing.next().await
        {
            self.received.blobs.extend(sealed?);
        }
        Ok(())
    }
}

fn inconsistent(what: &str) -> Error {
    BaseError::Inconsistent(what.to_owned()).into()
}

fn twice(path: &Path) -> Error {
    BaseError::File {
        path: path.to_owned(),
        problem: FileProblem::Twice,
    }
    .into()
}
