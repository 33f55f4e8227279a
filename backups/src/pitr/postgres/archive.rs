//! PostgreSQL's write-ahead log in a repository: one object a segment, sealed with the repository's key, below
//! `wal/<datastore>/<system identifier>/` ([`File`] has the names). Who writes it is a receiver or the server itself, who
//! reads it a recovery; what it leads to is said by [`super::reach`], what nobody needs any more by [`unneeded`].
//!
//! A name has one content for ever. A writer that brings the same content again is told that all is well, whoever came
//! first; other content under the same name is an error, since one of the two is not this cluster's log. Nothing is ever
//! replaced or taken away here, so that whoever writes needs no right to delete.
//!
//! Sealed under `OPSWAL`, version 1 ([`crate::pitr`]'s envelope), is the length of a header (four bytes, little-endian),
//! the header as JSON, and the content. The header says what the object is called, so that none can stand in for another.

mod file;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod retention;

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use jiff::Timestamp;
use replication::{History, Lsn, Segment, SegmentSize, SystemId, Timeline};
use serde::{Deserialize, Serialize};

pub use file::{File, Lost};
pub(crate) use retention::is_empty;
pub use retention::{KeptBase, kept_bases, sweep, unneeded};

use super::contents::{Contents, Held, Standing};
use super::reach::Piece;
use super::search::Log;
use crate::error::{Damage, Error};
use crate::pitr::Datastore;
use crate::pitr::sealed::Envelope;
use crate::repo::{Id, Repository};
use crate::store::{Entry, StoreError, StoreKey, list_all};
use crate::threads::blocking;

const KIND: &str = "wal";
const SCHEMA: &str = "opsctl.wal/v1";
const HEADER_LIMIT: usize = 4 << 10;
/// No file of history is longer: thousands of promotions.
const HISTORY_LIMIT: usize = 1 << 20;
/// So many objects are read to find a sound one.
const TRIES: usize = 16;
/// The largest segment that a cluster can have.
const CONTENT_LIMIT: usize = 1 << 30;
const ENVELOPE: Envelope = Envelope::new(*b"OPSWAL\x01\0", CONTENT_LIMIT + HEADER_LIMIT + 4);

/// Why the archive was not written or read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Something else has the name: another cluster with the same identifier, or this one after it was put back to an
    /// older state and went another way.
    #[error("the archive holds another {name}: {theirs}, and not {ours}; they differ from byte {at} on")]
    Conflict {
        /// The file.
        name: String,
        /// What is there.
        theirs: Content,
        /// What was to be put there.
        ours: Content,
        /// The first byte that is not the same.
        at: u64,
    },
    /// There is no such file.
    #[error("the archive holds no {name}")]
    Missing {
        /// The file.
        name: String,
    },
    /// What is stored is not what was.
    #[error("the archived object {key} is {damage}")]
    Damaged {
        /// The object.
        key: String,
        /// In what way.
        damage: Damage,
    },
    /// What is to be stored is not what its name says.
    #[error("{name} cannot have a content of {length} bytes")]
    Length {
        /// The file.
        name: String,
        /// Its length.
        length: u64,
    },
    /// The repository or its store failed.
    #[error("the archive in the repository cannot be used")]
    Repository(#[from] Error),
}

impl From<StoreError> for ArchiveError {
    fn from(error: StoreError) -> Self {
        Self::Repository(error.into())
    }
}

impl ArchiveError {
    /// Whether another try later makes sense: the store failed, and nothing is wrong with what was asked for.
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Repository(Error::Store(
                StoreError::Unavailable { .. }
                    | StoreError::Io { .. }
                    | StoreError::Full { .. }
                    | StoreError::Denied { .. }
                    | StoreError::Credentials { .. }
                    | StoreError::ClockSkew { .. }
                    | StoreError::NoPlace { .. }
            ))
        )
    }
}

/// A content, as a message names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// Its length in bytes.
    pub length: u64,
    /// Its SHA-256.
    pub sha256: Id,
}

impl Content {
    fn of(bytes: &[u8]) -> Self {
        Self {
            length: bytes.len() as u64,
            sha256: Id::of(bytes),
        }
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes with the SHA-256 {}", self.length, self.sha256)
    }
}

/// Whether a file was new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is there now.
    Stored,
    /// It was there already, with this content.
    Present,
}

/// The archive of one datastore's log.
#[derive(Clone)]
pub struct Archive {
    repository: Repository,
    datastore: Datastore,
}

/// What an object says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    schema: String,
    datastore: String,
    system: SystemId,
    name: String,
    segment_bytes: u64,
    program: String,
}

impl Archive {
    /// The archive of a datastore in a repository, whether or not there is anything in it.
    pub fn new(repository: &Repository, datastore: Datastore) -> Self {
        Self {
            repository: repository.clone(),
            datastore,
        }
    }

    /// Whose log it is.
    pub fn datastore(&self) -> &Datastore {
        &self.datastore
    }

    /// Where it lies.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// All that it holds. Of the objects only what is needed to understand their names is read: the newest standing
    /// record and the histories.
    ///
    /// # Errors
    /// The store's, and [`ArchiveError::Damaged`] for one of those that were read.
    pub async fn list(&self) -> Result<Contents, ArchiveError> {
        let mut contents = Contents::default();
        for listing in self.listings().await? {
            contents.systems.insert(listing.system, self.held(&listing).await?);
        }
        Ok(contents)
    }

    /// The clusters whose log it holds, by the names of the first object of each: however much there is, little is asked
    /// for.
    pub async fn systems(&self) -> Result<Vec<SystemId>, ArchiveError> {
        let folder = self.datastore.folder(KIND);
        let (mut systems, mut after) = (Vec::new(), None);
        loop {
            let page = self.repository.store().list(&folder, after.as_ref(), 1).await?;
            let Some(entry) = page.entries.into_iter().next() else {
                match page.next {
                    Some(next) => after = Some(next),
                    None => break,
                }
                continue;
            };
            let name = entry
                .key
                .as_str()
                .strip_prefix(&folder)
                .and_then(|rest| rest.split_once('/'));
            let system = name.and_then(|(system, _)| system.parse::<SystemId>().ok());
            after = Some(match system {
                Some(system) => {
                    systems.push(system);
                    // Behind every name of a file.
                    StoreKey::new(format!("{folder}{system}/zzzz")).map_err(Error::from)?
                }
                None => entry.key,
            });
        }
        Ok(systems)
    }

    /// The log that was lost for ever, of one cluster: in the order in which it was noticed to be.
    pub async fn gaps(&self, system: SystemId) -> Result<Vec<Lost>, ArchiveError> {
        let listings = self.listings().await?;
        let listing = listings.iter().find(|listing| listing.system == system);
        Ok(listing.map(Listing::gaps).unwrap_or_default())
    }

    /// Keeps a whole segment. After `Ok` it is durable.
    ///
    /// # Errors
    /// [`ArchiveError::Conflict`] where another content has its name.
    pub async fn put_segment(
        &self,
        system: SystemId,
        segment: Segment,
        size: SegmentSize,
        content: Bytes,
    ) -> Result<Put, ArchiveError> {
        self.put(system, File::Segment(segment), size, content).await
    }

    /// Keeps the beginning of a segment, as far as there is any.
    ///
    /// # Errors
    /// [`ArchiveError::Conflict`] where another content has its name.
    pub async fn put_partial(
        &self,
        system: SystemId,
        segment: Segment,
        size: SegmentSize,
        content: Bytes,
    ) -> Result<Put, ArchiveError> {
        let until = segment.start(size).plus(content.len() as u64);
        self.put(system, File::Partial { segment, until }, size, content).await
    }

    /// Keeps a timeline's file of history.
    ///
    /// # Errors
    /// [`ArchiveError::Conflict`] where the archive knows another timeline by this number: two servers were promoted.
    pub async fn put_history(
        &self,
        system: SystemId,
        timeline: Timeline,
        size: SegmentSize,
        content: Bytes,
    ) -> Result<Put, ArchiveError> {
        self.put(system, File::History(timeline), size, content).await
    }

    /// Keeps how far the log is held; the moment counts in whole milliseconds, rounded down.
    pub async fn put_standing(
        &self,
        system: SystemId,
        size: SegmentSize,
        standing: Standing,
    ) -> Result<Put, ArchiveError> {
        self.put(system, File::Standing(standing.rounded()), size, Bytes::new())
            .await
    }

    /// Keeps that there is a gap, so that nobody waits for what it swallowed.
    pub async fn put_gap(&self, system: SystemId, size: SegmentSize, gap: Lost) -> Result<Put, ArchiveError> {
        self.put(system, File::Gap(gap), size, Bytes::new()).await
    }

    /// Keeps a file. After `Ok` it is durable, whoever put it there; after `Err` it is absent or whole.
    pub async fn put(
        &self,
        system: SystemId,
        file: File,
        size: SegmentSize,
        content: Bytes,
    ) -> Result<Put, ArchiveError> {
        let name = file.name(size);
        if !fits(&file, size, content.len()) || File::parse(&name, size) != Some(file) {
            let length = content.len() as u64;
            return Err(ArchiveError::Length { name, length });
        }
        if self.repository.version() == 1 {
            return Err(Error::ReadOnlyVersion.into());
        }
        let key = self.key(system, &name)?;
        let (header, ours, repository) = (
            self.header(system, &name, size),
            content.clone(),
            self.repository.clone(),
        );
        let sealed = blocking(move || seal(&repository, &header, &ours)).await??;
        match self.repository.store().put(&key, sealed.into()).await {
            Ok(()) => return Ok(Put::Stored),
            // Another writer was first, or an answer of ours was lost: what is there decides.
            Err(error) if error.is_exists() => {}
            Err(error) => return Err(error.into()),
        }
        let theirs = self.get(system, &file, size).await?;
        if theirs == content {
            return Ok(Put::Present);
        }
        let same = theirs.iter().zip(&content).take_while(|(one, other)| one == other);
        Err(ArchiveError::Conflict {
            name,
            at: same.count() as u64,
            theirs: Content::of(&theirs),
            ours: Content::of(&content),
        })
    }

    /// The content of a file, verified: authentic, whole, and the one of this name.
    ///
    /// # Errors
    /// [`ArchiveError::Missing`] if it is not there, [`ArchiveError::Damaged`].
    pub async fn get(&self, system: SystemId, file: &File, size: SegmentSize) -> Result<Bytes, ArchiveError> {
        let name = file.name(size);
        let key = self.key(system, &name)?;
        let (header, content) = self.read(&key).await?;
        let expected = self.header(system, &name, size);
        let in_place = Header {
            program: header.program.clone(),
            ..expected
        } == header;
        if in_place && fits(file, size, content.len()) {
            return Ok(content);
        }
        Err(damaged(&key, Damage::Malformed))
    }

    /// Takes a file away. That it is absent is no error. For whoever prunes.
    pub async fn remove(&self, system: SystemId, file: &File, size: SegmentSize) -> Result<(), ArchiveError> {
        let key = self.key(system, &file.name(size))?;
        Ok(self.repository.store().delete(&key).await?)
    }

    /// The files of one cluster, for a search or a recovery along a way.
    pub fn log(&self, system: SystemId, size: SegmentSize) -> ArchivedLog {
        ArchivedLog {
            archive: self.clone(),
            system,
            size,
        }
    }

    /// What is held of one cluster, and its gaps; `None` if nothing is.
    pub(super) async fn listed(&self, system: SystemId) -> Result<Listed, ArchiveError> {
        let listings = self.listings().await?;
        let others = listings.iter().map(|listing| listing.system);
        let others = others.filter(|other| *other != system).collect();
        let mut listed = Listed {
            held: None,
            gaps: Vec::new(),
            others,
        };
        if let Some(listing) = listings.iter().find(|listing| listing.system == system) {
            listed.held = Some(self.held(listing).await?);
            listed.gaps = listing.gaps();
        }
        Ok(listed)
    }

    async fn listings(&self) -> Result<Vec<Listing>, ArchiveError> {
        let folder = self.datastore.folder(KIND);
        let entries = list_all(&*self.repository.store(), &folder).await?;
        let mut listings = Vec::new();
        for (system, names) in by_system(&folder, entries) {
            let size = self.segment_size(&names).await?;
            listings.push(Listing {
                system,
                size,
                files: understood(names, size),
            });
        }
        Ok(listings)
    }

    /// How long the segments of a cluster are. Every object tells it; small ones are read for it.
    async fn segment_size(&self, names: &[(String, Entry)]) -> Result<SegmentSize, ArchiveError> {
        let mut entries: Vec<&Entry> = names.iter().map(|(_, entry)| entry).collect();
        entries.sort_by_key(|entry| entry.size);
        let mut failed = Error::Internal("a cluster in the archive has an object").into();
        for entry in entries.into_iter().take(TRIES) {
            match self.read(&entry.key).await {
                Ok((header, _)) => match SegmentSize::new(header.segment_bytes) {
                    Ok(size) => return Ok(size),
                    Err(_) => failed = damaged(&entry.key, Damage::Malformed),
                },
                Err(error @ ArchiveError::Repository(_)) => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "an object of the archived log is passed over");
                    failed = error;
                }
            }
        }
        Err(failed)
    }

    /// The newest standing record that is ours: one that is damaged leaves the one before.
    async fn standing(&self, listing: &Listing) -> Result<Option<Standing>, ArchiveError> {
        let standings = listing.files.iter().filter_map(|(file, _)| match file {
            File::Standing(standing) => Some(*standing),
            _ => None,
        });
        let mut standings: Vec<_> = standings.collect();
        standings.sort_by_key(place);
        for standing in standings.into_iter().rev().take(TRIES) {
            match self.get(listing.system, &File::Standing(standing), listing.size).await {
                Ok(_) => return Ok(Some(standing)),
                Err(error @ ArchiveError::Repository(_)) => return Err(error),
                Err(error) => tracing::warn!(%error, "a standing record of the archived log is passed over"),
            }
        }
        Ok(None)
    }

    async fn held(&self, listing: &Listing) -> Result<Held, ArchiveError> {
        let mut held = Held {
            segment_size: listing.size,
            ..Held::default()
        };
        for (file, entry) in &listing.files {
            match *file {
                File::Segment(segment) => {
                    held.segments.insert(segment);
                }
                File::Partial { segment, until } => {
                    let furthest = held.partials.entry(segment).or_insert(until);
                    *furthest = until.max(*furthest);
                }
                File::History(timeline) => {
                    let content = self.get(listing.system, file, listing.size).await?;
                    let history = History::parse(&content).map_err(|_| damaged(&entry.key, Damage::Malformed))?;
                    held.histories.insert(timeline, history);
                }
                File::Standing(_) | File::Gap(_) => {}
            }
        }
        held.standing = self.standing(listing).await?;
        Ok(held)
    }

    fn key(&self, system: SystemId, name: &str) -> Result<StoreKey, ArchiveError> {
        let key = StoreKey::new(format!("{}{system}/{name}", self.datastore.folder(KIND)));
        Ok(key.map_err(Error::from)?)
    }

    fn header(&self, system: SystemId, name: &str, size: SegmentSize) -> Header {
        Header {
            schema: SCHEMA.to_owned(),
            datastore: self.datastore.as_str().to_owned(),
            system,
            name: name.to_owned(),
            segment_bytes: size.bytes(),
            program: concat!("opsctl ", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }

    async fn read(&self, key: &StoreKey) -> Result<(Header, Bytes), ArchiveError> {
        let sealed = match self.repository.store().get(key).await {
            Err(error) if error.is_not_found() => {
                let name = key.file_name().to_owned();
                return Err(ArchiveError::Missing { name });
            }
            sealed => sealed?,
        };
        let repository = self.repository.clone();
        let opened = blocking(move || open(&repository, &sealed)).await??;
        opened.map_err(|damage| damaged(key, damage))
    }
}

/// The archived log of one cluster.
#[derive(Clone)]
pub struct ArchivedLog {
    archive: Archive,
    system: SystemId,
    size: SegmentSize,
}

#[async_trait::async_trait]
impl Log for ArchivedLog {
    type Error = ArchiveError;

    async fn read(&self, piece: &Piece) -> Result<Bytes, ArchiveError> {
        let segment = piece.segment;
        let file = match piece.partial {
            None => File::Segment(segment),
            Some(until) => File::Partial { segment, until },
        };
        self.archive.get(self.system, &file, self.size).await
    }
}

/// What one cluster has in the archive, and who else has something there.
pub(super) struct Listed {
    pub(super) held: Option<Held>,
    pub(super) gaps: Vec<Lost>,
    pub(super) others: Vec<SystemId>,
}

/// The objects of one cluster.
struct Listing {
    system: SystemId,
    size: SegmentSize,
    files: Vec<(File, Entry)>,
}

impl Listing {
    fn gaps(&self) -> Vec<Lost> {
        let gaps = self.files.iter().filter_map(|(file, _)| match file {
            File::Gap(gap) => Some(*gap),
            _ => None,
        });
        let mut gaps: Vec<_> = gaps.collect();
        gaps.sort_unstable();
        gaps
    }
}

fn damaged(key: &StoreKey, damage: Damage) -> ArchiveError {
    let key = key.to_string();
    ArchiveError::Damaged { key, damage }
}

/// Which of two standing records tells more: that of the newer timeline, and on one timeline the one that is further.
fn place(standing: &Standing) -> (Timeline, Lsn, Timestamp) {
    (standing.timeline, standing.lsn, standing.moment)
}

/// The objects of a datastore by cluster, each with its name.
fn by_system(folder: &str, entries: Vec<Entry>) -> BTreeMap<SystemId, Vec<(String, Entry)>> {
    let mut systems = BTreeMap::<SystemId, Vec<(String, Entry)>>::new();
    for entry in entries {
        let Some((system, name)) = entry
            .key
            .as_str()
            .strip_prefix(folder)
            .and_then(|rest| rest.split_once('/'))
        else {
            continue;
        };
        let Ok(id) = system.parse::<SystemId>() else { continue };
        // One name for each cluster.
        if id.to_string() == system && is_ours(name) {
            systems.entry(id).or_default().push((name.to_owned(), entry));
        }
    }
    systems
}

/// Whether a name can be one of a file, whatever the size of segments.
fn is_ours(name: &str) -> bool {
    let sizes = [1 << 20, 16 << 20, 1 << 30]
        .into_iter()
        .filter_map(|bytes| SegmentSize::new(bytes).ok());
    sizes.into_iter().any(|size| File::parse(name, size).is_some())
}

fn understood(names: Vec<(String, Entry)>, size: SegmentSize) -> Vec<(File, Entry)> {
    let files = names
        .into_iter()
        .filter_map(|(name, entry)| Some((File::parse(&name, size)?, entry)));
    files.collect()
}

/// Whether a file can have a content of this length.
fn fits(file: &File, size: SegmentSize, length: usize) -> bool {
    match file.length(size) {
        Some(expected) => length as u64 == expected,
        None => length <= HISTORY_LIMIT,
    }
}

fn seal(repository: &Repository, header: &Header, content: &[u8]) -> Result<Vec<u8>, Error> {
    let json = serde_json::to_vec(header).map_err(|_| Error::Internal("a header is always valid JSON"))?;
    let mut body = Vec::with_capacity(4 + json.len() + content.len());
    body.extend_from_slice(&(json.len() as u32).to_le_bytes());
    body.extend_from_slice(&json);
    body.extend_from_slice(content);
    ENVELOPE.seal(repository, &body)
}

/// Reads stored bytes, and believes nothing.
fn open(repository: &Repository, sealed: &[u8]) -> Result<Result<(Header, Bytes), Damage>, Error> {
    let body = ENVELOPE.open(repository, sealed)?;
    Ok(body.and_then(|body| parse(body.into()).ok_or(Damage::Malformed)))
}

fn parse(mut body: Bytes) -> Option<(Header, Bytes)> {
    let length = u32::from_le_bytes(*body.first_chunk::<4>()?) as usize;
    if length > HEADER_LIMIT || body.len() < 4 + length {
        return None;
    }
    let content = body.split_off(4 + length);
    let header: Header = serde_json::from_slice(&body[4..]).ok()?;
    (header.schema == SCHEMA).then_some((header, content))
}

#[cfg(test)]
mod tests;
