//! The journal of a run: one JSON object a line, appended, readable while it is written. Not the record: losing its last
//! line loses nothing that undo needs.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One event, schema `opsctl.event/v1`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// `opsctl.event/v1`.
    pub schema: String,
    /// When.
    pub ts: Timestamp,
    /// The run's id.
    pub run: String,
    /// Counts the events of a journal from 1.
    pub seq: u64,
    /// The kind's own name for what it was doing.
    pub phase: String,
    /// What happened, e.g. `injected`.
    #[serde(rename = "type")]
    pub kind: String,
    /// More about it; an object or null. Never NaN or infinite.
    pub data: Value,
}

/// Why a journal could not be written or read.
#[derive(Debug, thiserror::Error)]
#[error("could not {action} the journal `{}`", .path.display())]
pub struct JournalError {
    /// `open`, `append to`, `read`.
    pub action: &'static str,
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Appends events. Cheap to clone; all clones count together.
#[derive(Clone)]
pub struct Journal {
    inner: Arc<Mutex<Inner>>,
    run: Arc<str>,
    path: Arc<Path>,
}

struct Inner {
    sink: Sink,
    seq: u64,
    phase: String,
}

enum Sink {
    File(File),
    Memory(Vec<Event>),
}

impl Journal {
    /// Opens (or makes, mode 0600) the file and goes on counting after its last event.
    pub fn open(path: impl Into<PathBuf>, run: &str) -> Result<Self, JournalError> {
        let path = path.into();
        let fail = |action, path: &Path| {
            let path = path.to_owned();
            move |source| JournalError { action, path, source }
        };
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(fail("open", &path))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(fail("read", &path))?;
        let seq = parse(&text).last().map_or(0, |event| event.seq);
        if !text.is_empty() && !text.ends_with(b"\n") {
            // The last writer died within a line; the next event must not continue it.
            file.write_all(b"\n").map_err(fail("append to", &path))?;
        }
        Ok(Self::with(Sink::File(file), seq, run, &path))
    }

    /// Keeps events in memory, for tests and dry runs; read them with [`Journal::events`].
    pub fn memory(run: &str) -> Self {
        Self::with(Sink::Memory(Vec::new()), 0, run, Path::new("(memory)"))
    }

    fn with(sink: Sink, seq: u64, run: &str, path: &Path) -> Self {
        Self {
            inner: Arc::new(Mutex::new(Inner {
                sink,
                seq,
                phase: String::new(),
            })),
            run: run.into(),
            path: path.into(),
        }
    }

    /// Where it is written.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sets the phase of the events that follow, and makes those before it durable.
    pub fn enter(&self, phase: &str) -> Result<(), JournalError> {
        phase.clone_into(&mut self.lock().phase);
        self.sync()
    }

    /// Appends one event in one write.
    pub fn append(&self, now: Timestamp, kind: &str, data: Value) -> Result<Event, JournalError> {
        let mut inner = self.lock();
        let event = Event {
            schema: "opsctl.event/v1".to_owned(),
            ts: now,
            run: self.run.to_string(),
            seq: inner.seq + 1,
            phase: inner.phase.clone(),
            kind: kind.to_owned(),
            data,
        };
        match &mut inner.sink {
            Sink::File(file) => {
                let mut line = serde_json::to_vec(&event).map_err(|e| self.error("append to", e.into()))?;
                line.push(b'\n');
                file.write_all(&line).map_err(|e| self.error("append to", e))?;
            }
            Sink::Memory(events) => events.push(event.clone()),
        }
        inner.seq = event.seq;
        Ok(event)
    }

    /// Makes everything appended so far durable.
    pub fn sync(&self) -> Result<(), JournalError> {
        match &self.lock().sink {
            Sink::File(file) => file.sync_data().map_err(|e| self.error("append to", e)),
            Sink::Memory(_) => Ok(()),
        }
    }

    /// Every event so far.
    pub fn events(&self) -> Result<Vec<Event>, JournalError> {
        if let Sink::Memory(events) = &self.lock().sink {
            return Ok(events.clone());
        }
        read_events(&self.path)
    }

    fn error(&self, action: &'static str, source: io::Error) -> JournalError {
        JournalError {
            action,
            path: self.path.to_path_buf(),
            source,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads all whole events of a journal file; lines that are none (torn by a kill) are skipped.
pub fn read_events(path: &Path) -> Result<Vec<Event>, JournalError> {
    let text = std::fs::read(path).map_err(|source| JournalError {
        action: "read",
        path: path.to_owned(),
        source,
    })?;
    Ok(parse(&text).collect())
}

fn parse(text: &[u8]) -> impl Iterator<Item = Event> + '_ {
    text.split(|&byte| byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
}

/// Reads a journal while it is written: each call returns the events that were completed since the last one.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    offset: u64,
}

impl Tail {
    /// Starts at the beginning of the file, which need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            offset: 0,
        }
    }

    /// The whole lines that are new.
    pub fn poll(&mut self) -> Result<Vec<Event>, JournalError> {
        let mut text = Vec::new();
        let read = File::open(&self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.offset))?;
            file.read_to_end(&mut text)
        });
        match read {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => {
                return Err(JournalError {
                    action: "read",
                    path: self.path.clone(),
                    source,
                });
            }
        }
        let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        self.offset += whole as u64;
        Ok(parse(&text[..whole]).collect())
    }
}
