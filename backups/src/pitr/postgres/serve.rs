//! Hands the archive out to a PostgreSQL that recovers: a server on a Unix socket, which `restore_command` asks for one
//! file after the other ([`take`]). It fetches ahead, in the order in which the recovery will need the segments, so that
//! the distance to the store costs nothing.
//!
//! PostgreSQL takes *every* answer but a file for the end of the log, and a log that ends early for a recovery that is
//! done. So there are three answers: the file; "not there", which only what lies beyond the known end gets, and files of
//! histories that do not exist; and a refusal, on which the command ends with a status over 125 and PostgreSQL aborts.
//!
//! The protocol: the name and a line feed, at most `NAME_LIMIT` bytes; then one byte (`Status`), the length of what
//! follows in eight (little-endian), and the file, or why it is refused. A segment is written ahead, into a file without a
//! name on the file system where PostgreSQL wants it; its descriptor comes with the answer then instead of the bytes, and
//! who asked gives it its name. The socket lies in a folder that only its user may enter. It decides nothing about
//! recoveries, and leaves no file behind.

mod client;
mod unnamed;

pub use client::{TakeError, Taken, take};

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use replication::{Segment, SegmentSize, Timeline};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use self::unnamed::Unnamed;
use super::reach::{self, Piece, Way};
use crate::error::Error;
use crate::error::chain;

/// The longest request, with its line feed. The longest name is that of a backup's history file.
pub(crate) const NAME_LIMIT: usize = 64;
/// No segment is larger.
pub(crate) const FILE_LIMIT: u64 = 1 << 30;
/// So long a reason is told.
pub(crate) const REASON_LIMIT: usize = 4096;
/// Bytes of segments that are held at one time, those that are fetched among them.
const HELD: u64 = 192 << 20;
/// Segments that are fetched ahead, at least and at most.
const AHEAD: (u64, u64) = (2, 12);
/// Whoever has connected asks at once.
const ASK_LIMIT: Duration = Duration::from_secs(10);
/// Whoever has asked takes the answer.
const ANSWER_LIMIT: Duration = Duration::from_mins(10);

/// How an answer begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// The file follows.
    File,
    /// The file has so many bytes; its descriptor came with the answer.
    Unnamed,
    /// There is no such file, and that is right so.
    Absent,
    /// It must be there, and cannot be had; why follows.
    Refused,
}

impl Status {
    pub(crate) const fn byte(self) -> u8 {
        match self {
            Self::File => b'F',
            Self::Unnamed => b'U',
            Self::Absent => b'A',
            Self::Refused => b'R',
        }
    }

    pub(crate) fn of(byte: u8) -> Option<Self> {
        [Self::File, Self::Unnamed, Self::Absent, Self::Refused]
            .into_iter()
            .find(|status| status.byte() == byte)
    }
}

/// Why a file cannot be had.
type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Where the files come from.
#[async_trait]
pub trait Supply: Send + Sync + 'static {
    /// A file of the way, verified: a whole segment, or a partial one as far as it is log. One that is not there is an
    /// error.
    async fn piece(&self, piece: &Piece, size: SegmentSize) -> Result<Bytes, Failed>;

    /// A file of history.
    async fn history(&self, timeline: Timeline) -> Result<Bytes, Failed>;
}

/// How far the recovery has asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Served {
    /// Segments from the beginning of the way up to the last one that was handed out.
    pub segments: u64,
    /// Segments of the way.
    pub of: u64,
    /// Why a file was refused, if one was; the first one.
    pub refused: Option<String>,
}

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct Server {
    socket: PathBuf,
    served: watch::Receiver<Served>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Listens in `folder`, which is made, and which only `owner` (a user and a group, if not ours) may enter. `way` is
    /// what the recovery needs, `histories` what is held of them. Fetching begins at once. `beside` is the folder in which
    /// PostgreSQL wants the files, if it is known.
    ///
    /// Errors: [`Error::Target`] if the folder or the socket cannot be made; the path of a socket has at most 107 bytes.
    pub fn start(
        folder: &Path,
        owner: Option<(u32, u32)>,
        way: Way,
        histories: Vec<Timeline>,
        supply: Arc<dyn Supply>,
        beside: Option<PathBuf>,
    ) -> Result<Self, Error> {
        let socket = folder.join("wal");
        let listener = listen(folder, &socket, owner).map_err(|source| Error::Target {
            action: "listen at",
            path: socket.clone(),
            source,
        })?;
        let (tell, served) = watch::channel(Served {
            of: way.pieces.len() as u64,
            ..Served::default()
        });
        let ring = Arc::new(Ring::new(way, histories, supply, Unnamed::new(beside, owner), tell));
        ring.ahead_of(0);
        Ok(Self {
            socket,
            served,
            accepting: tokio::spawn(accept(listener, ring)),
        })
    }

    /// The socket that [`take`] is to connect to.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// How far the recovery has asked; changes are seen by waiting for them.
    pub fn served(&self) -> watch::Receiver<Served> {
        self.served.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
        let _ = fs::remove_file(&self.socket);
    }
}

fn listen(folder: &Path, socket: &Path, owner: Option<(u32, u32)>) -> io::Result<UnixListener> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    if let Some((user, group)) = owner {
        for path in [socket, folder] {
            std::os::unix::fs::chown(path, Some(user), Some(group))?;
        }
    }
    Ok(listener)
}

async fn accept(listener: UnixListener, ring: Arc<Ring>) {
    // Whoever is being answered is let go with the server.
    let mut answering = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let ring = Arc::clone(&ring);
                    answering.spawn(async move {
                        if let Err(error) = answer(stream, &ring).await {
                            tracing::debug!(%error, "somebody who asked for a file of the log did not take it");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "nobody could be let in to ask for the log");
                    // Out of descriptors, most likely; others give theirs back meanwhile.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = answering.join_next() => {}
        }
    }
}

async fn answer(mut stream: UnixStream, ring: &Ring) -> io::Result<()> {
    let asked = tokio::time::timeout(ASK_LIMIT, read_name(&mut stream)).await??;
    let mut unnamed = None;
    let (status, content) = match ring.find(asked.as_deref().unwrap_or_default()).await {
        Answer::File(content) => (Status::File, content),
        Answer::Unnamed(file, length) => {
            unnamed = Some((file, length));
            (Status::Unnamed, Bytes::new())
        }
        Answer::Absent => (Status::Absent, Bytes::new()),
        Answer::Refused(mut why) => {
            let end = why.floor_char_boundary(REASON_LIMIT);
            why.truncate(end);
            (Status::Refused, why.into())
        }
    };
    let mut head = [status.byte(), 0, 0, 0, 0, 0, 0, 0, 0];
    let length = unnamed.as_ref().map_or(content.len() as u64, |(_, length)| *length);
    head[1..].copy_from_slice(&length.to_le_bytes());
    let send = async {
        match &unnamed {
            Some((file, _)) => unnamed::send(&stream, &head, file).await?,
            None => stream.write_all(&head).await?,
        }
        stream.write_all(&content).await?;
        stream.shutdown().await
    };
    tokio::time::timeout(ANSWER_LIMIT, send).await?
}

/// The line that was asked with; none if it is none.
async fn read_name(stream: &mut UnixStream) -> io::Result<Option<String>> {
    let mut line = Vec::with_capacity(NAME_LIMIT);
    while line.len() < NAME_LIMIT {
        match stream.read_u8().await? {
            b'\n' => return Ok(String::from_utf8(line).ok()),
            byte => line.push(byte),
        }
    }
    Ok(None)
}

enum Answer {
    File(Bytes),
    /// With its length.
    Unnamed(File, u64),
    Absent,
    Refused(String),
}

/// A file that is fetched, or was.
type Fetching = Shared<BoxFuture<'static, Result<Fetched, Arc<str>>>>;

/// A file that was fetched.
#[derive(Clone)]
struct Fetched {
    content: Bytes,
    /// Given away once: it is PostgreSQL's then, which writes into it again when it has no more use for the segment.
    file: Arc<Mutex<Option<File>>>,
}

struct Held {
    fetching: Fetching,
    task: AbortHandle,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The segments around the place where the recovery is.
struct Ring {
    supply: Arc<dyn Supply>,
    way: Way,
    histories: Vec<Timeline>,
    ahead: usize,
    unnamed: Unnamed,
    held: Mutex<BTreeMap<usize, Held>>,
    tell: watch::Sender<Served>,
}

impl Ring {
    fn new(
        way: Way,
        histories: Vec<Timeline>,
        supply: Arc<dyn Supply>,
        unnamed: Unnamed,
        tell: watch::Sender<Served>,
    ) -> Self {
        let ahead = (HELD / way.size.bytes()).clamp(AHEAD.0, AHEAD.1) as usize;
        Self {
            supply,
            way,
            histories,
            ahead,
            unnamed,
            held: Mutex::default(),
            tell,
        }
    }

    async fn find(&self, name: &str) -> Answer {
        if let Ok(segment) = Segment::parse(name, self.way.size) {
            return match self.way.answer(segment) {
                reach::Answer::Give(piece) => self.give(name, &piece).await,
                reach::Answer::Older | reach::Answer::Beyond => Answer::Absent,
                reach::Answer::Missing => self.refuse(match self.way.gaps.first() {
                    Some(gap) => format!("{name} is not in the archive: missing is {gap}"),
                    None => format!("{name} is not in the archive, and the recovery needs it"),
                }),
            };
        }
        if let Ok(timeline) = Timeline::of_history_file(name) {
            // Also those of other branches: the new timeline must not get the number of one that exists.
            if !self.histories.contains(&timeline) && !self.way.histories().any(|known| known == timeline) {
                return Answer::Absent;
            }
            return match self.supply.history(timeline).await {
                Ok(content) => Answer::File(content),
                Err(error) => self.refuse(format!("{name}: {}", chain(&*error))),
            };
        }
        if is_name(name) && name.len() != 24 {
            // The label of a backup, or half a segment of another archive: a recovery goes on without.
            return Answer::Absent;
        }
        self.refuse(format!("{name:?} is no name of a file of the log"))
    }

    async fn give(&self, name: &str, piece: &Piece) -> Answer {
        let at = self.way.pieces.partition_point(|known| known.start < piece.start);
        let Some(fetching) = self.ahead_of(at) else {
            return self.refuse(format!("{name} is not on the way"));
        };
        match fetching.await {
            Ok(fetched) => {
                let segments = at as u64 + 1;
                self.tell.send_if_modified(|served| {
                    let further = segments > served.segments;
                    served.segments = served.segments.max(segments);
                    further
                });
                match fetched.file.lock().unwrap_or_else(PoisonError::into_inner).take() {
                    Some(file) => Answer::Unnamed(file, fetched.content.len() as u64),
                    None => Answer::File(fetched.content.clone()),
                }
            }
            Err(error) => {
                // Asked once more it is fetched once more.
                self.held().remove(&at);
                self.refuse(format!("{name}: {error}"))
            }
        }
    }

    fn refuse(&self, why: String) -> Answer {
        self.tell.send_modify(|served| {
            served.refused.get_or_insert_with(|| why.clone());
        });
        Answer::Refused(why)
    }

    fn held(&self) -> std::sync::MutexGuard<'_, BTreeMap<usize, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that this segment and those that follow are being fetched, and lets go of those that lie behind; but
    /// for the last one, which a server that starts again asks for again.
    fn ahead_of(&self, at: usize) -> Option<Fetching> {
        let mut held = self.held();
        let wanted = at.saturating_sub(1)..self.way.pieces.len().min(at + 1 + self.ahead);
        held.retain(|place, _| wanted.contains(place));
        for place in at..wanted.end {
            held.entry(place).or_insert_with(|| self.fetch(self.way.pieces[place]));
        }
        held.get(&at).map(|held| held.fetching.clone())
    }

    fn fetch(&self, piece: Piece) -> Held {
        let (supply, size, unnamed) = (Arc::clone(&self.supply), self.way.size, self.unnamed.clone());
        let fetch = async move {
            let fetched = supply.piece(&piece, size).await;
            let content = fetched.map_err(|failed| Arc::from(chain(&*failed)))?;
            let content = filled(content, size);
            let file = unnamed.write(content.clone()).await;
            Ok(Fetched {
                content,
                file: Arc::new(Mutex::new(file)),
            })
        };
        let fetching = fetch.boxed().shared();
        let task = tokio::spawn(fetching.clone()).abort_handle();
        Held { fetching, task }
    }
}

/// PostgreSQL takes files of one size alone; what is not log yet is zeros, as in a file of its own.
fn filled(content: Bytes, size: SegmentSize) -> Bytes {
    let size = size.bytes() as usize;
    if content.len() >= size {
        return content;
    }
    let mut whole = Vec::with_capacity(size);
    whole.extend_from_slice(&content);
    whole.resize(size, 0);
    whole.into()
}

/// What PostgreSQL asks an archive for: a segment, a history, the label of a backup, half a segment.
pub(crate) fn is_name(name: &str) -> bool {
    let hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'))
    };
    match name.split_once('.') {
        None => hex(name, 24),
        Some((timeline, "history")) => hex(timeline, 8),
        Some((segment, "partial")) => hex(segment, 24),
        Some((segment, rest)) => hex(segment, 24) && rest.strip_suffix(".backup").is_some_and(|at| hex(at, 8)),
    }
}

#[cfg(test)]
mod tests;
