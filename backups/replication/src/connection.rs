//! A connection in physical replication mode, and what is asked on it.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;

use crate::address::Address;
use crate::base::{BaseBackup, BaseBackupStream};
use crate::error::Error;
use crate::lsn::{Lsn, Malformed, SystemId, Timeline, decimal};
use crate::slot::{Slot, SlotLifetime, SlotName};
use crate::sql::Sql;
use crate::startup::{self, Mode};
use crate::version::ServerVersion;
use crate::wal::WalStream;
use crate::wire::Wire;

/// How long a server has for an answer that takes no work.
const LIMIT: Duration = Duration::from_mins(1);

/// A position on a timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Where.
    pub lsn: Lsn,
    /// On which timeline.
    pub timeline: Timeline,
}

/// Who a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub system: SystemId,
    /// Its present timeline.
    pub timeline: Timeline,
    /// Up to where its log is flushed; on a standby, up to where it is replayed or received.
    pub flushed: Lsn,
}

/// A timeline's file of history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryFile {
    /// Its name, which is that of the timeline that was asked for.
    pub name: String,
    /// Its content, as [`History::parse`](crate::History::parse) reads it.
    pub content: Bytes,
}

/// A connection that waits for a question. Questions that take no work are answered within a minute, or are an error:
/// [`Error::TimedOut`]. A connection whose question was dropped before its answer takes no other one.
#[derive(Debug)]
pub struct Connection {
    pub(crate) wire: Wire,
    /// With the one server that this is.
    address: Address,
    application: String,
    version: ServerVersion,
}

impl Connection {
    /// Connects to the first of the address's servers that can be used, proves who we are, and enters physical
    /// replication mode, for which the user needs the right `REPLICATION` and `pg_hba.conf` a line for the database
    /// `replication`. `application` is what the server calls us in `pg_stat_replication`.
    ///
    /// # Errors
    /// [`Error`]. A server that does not let us in within the address's `connect_timeout` (15 s if it has none) is
    /// [`Error::TimedOut`]; with several servers, [`Error::NoServer`] names what is wrong with each.
    pub async fn open(address: &Address, application: &str) -> Result<Self, Error> {
        let (wire, address) = startup::open(address, application, Mode::Replication).await?;
        let version = wire
            .version
            .ok_or_else(|| wire.protocol("it does not say its version"))?;
        let application = application.to_owned();
        Ok(Self {
            wire,
            address,
            application,
            version,
        })
    }

    /// The server's version.
    pub const fn server_version(&self) -> ServerVersion {
        self.version
    }

    /// The address, with the one server that this connection is to.
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// Who the server is, and where (`IDENTIFY_SYSTEM`).
    ///
    /// # Errors
    /// [`Error`].
    pub async fn identify(&mut self) -> Result<Identity, Error> {
        let at = self.wire.at.clone();
        within(at, async {
            let row = self.wire.query_one("IDENTIFY_SYSTEM", "IDENTIFY_SYSTEM").await?;
            Ok(Identity {
                system: self.wire.value(&row, 0)?,
                timeline: self.wire.value(&row, 1)?,
                flushed: self.wire.value(&row, 2)?,
            })
        })
        .await
    }

    /// The value of a setting such as `wal_segment_size`, as text and with its unit, as `SHOW` writes it.
    ///
    /// # Errors
    /// [`Error`]; a name that is none is [`Error::Answer`].
    pub async fn show(&mut self, setting: &str) -> Result<String, Error> {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.');
        if setting.is_empty() || !setting.bytes().all(letter) {
            return Err(self.wire.answer(Malformed::new("the name of a setting", setting)));
        }
        let at = self.wire.at.clone();
        within(at, async {
            let row = self.wire.query_one("SHOW", &format!("SHOW {setting}")).await?;
            Ok(self.wire.text(&row, 0)?.unwrap_or_default())
        })
        .await
    }

    /// Makes a physical slot that keeps the log from now on.
    ///
    /// # Errors
    /// [`Error`]; [`Error::exists`] tells that there is one of this name.
    pub async fn create_slot(&mut self, name: &SlotName, lifetime: SlotLifetime) -> Result<(), Error> {
        let temporary = match lifetime {
            SlotLifetime::Permanent => "",
            SlotLifetime::Temporary => "TEMPORARY ",
        };
        let reserve = if self.version.major() >= 15 {
            "(RESERVE_WAL)"
        } else {
            "RESERVE_WAL"
        };
        let question = format!("CREATE_REPLICATION_SLOT \"{name}\" {temporary}PHYSICAL {reserve}");
        let at = self.wire.at.clone();
        let made = self.wire.query("CREATE_REPLICATION_SLOT", &question);
        within(at, made).await.map(drop)
    }

    /// Drops a slot.
    ///
    /// # Errors
    /// [`Error`]; [`Error::is_missing`] tells that there is none, [`Error::slot_in_use`] that somebody reads from it.
    pub async fn drop_slot(&mut self, name: &SlotName) -> Result<(), Error> {
        let question = format!("DROP_REPLICATION_SLOT \"{name}\"");
        let at = self.wire.at.clone();
        let dropped = self.wire.query("DROP_REPLICATION_SLOT", &question);
        within(at, dropped).await.map(drop)
    }

    /// What a physical slot keeps; `None` if there is none of this name. Servers before version 15 are asked by SQL, on a
    /// connection of its own to the address's database (`postgres` if it names none), which the user must be allowed.
    ///
    /// # Errors
    /// [`Error`], also where it is a logical slot.
    pub async fn slot(&mut self, name: &SlotName) -> Result<Option<Slot>, Error> {
        if self.version.major() < 15 {
            let address = self.address.clone();
            let address = if address.database().is_none() {
                address.with_database("postgres")
            } else {
                address
            };
            let mut sql = Sql::open(&address, &self.application).await?;
            return Ok(sql.slot(name).await?.map(|state| state.slot));
        }
        let at = self.wire.at.clone();
        let question = format!("READ_REPLICATION_SLOT \"{name}\"");
        within(at, async {
            let row = self.wire.query_one("READ_REPLICATION_SLOT", &question).await?;
            if self.wire.text(&row, 0)?.is_none() {
                return Ok(None);
            }
            let (restart, timeline) = (self.wire.optional(&row, 1)?, self.wire.optional(&row, 2)?);
            Ok(Some(Slot { restart, timeline }))
        })
        .await
    }

    /// The file of history of a timeline; the first one has none, and neither has one that never was.
    ///
    /// # Errors
    /// [`Error`]; [`Error::is_removed`] tells that there is no such file.
    pub async fn history(&mut self, timeline: Timeline) -> Result<HistoryFile, Error> {
        let at = self.wire.at.clone();
        within(at, async {
            let row = self
                .wire
                .query_one("TIMELINE_HISTORY", &format!("TIMELINE_HISTORY {timeline}"))
                .await?;
            let name = self.wire.text(&row, 0)?.unwrap_or_default();
            if name != timeline.history_file() {
                let wanted = Malformed::new("the name of the history that was asked for", &name);
                return Err(self.wire.answer(wanted));
            }
            let content = row.get(1).cloned().flatten();
            let content = content.ok_or_else(|| self.wire.protocol("a history without its content"))?;
            // Not a slice of what was read with it, which would live as long.
            let content = Bytes::copy_from_slice(&content);
            Ok(HistoryFile { name, content })
        })
        .await
    }

    /// Begins a base backup (`BASE_BACKUP`). Returns when the server's checkpoint is done, which may take minutes: no
    /// limit but the caller's holds.
    ///
    /// # Errors
    /// [`Error`]; servers before version 13 have no manifest and are [`Error::Unsupported`].
    pub async fn base_backup(self, options: &BaseBackup) -> Result<BaseBackupStream, Error> {
        BaseBackupStream::begin(self, options).await
    }

    /// Begins to stream the log of `timeline` from `start` on (`START_REPLICATION`). A segment is asked for from its
    /// beginning: a server sends from the middle of one just as well, and nobody has the first half then.
    ///
    /// # Errors
    /// [`Error`]; [`Error::is_removed`] tells that the log is not there any more, [`Error::slot_in_use`] that somebody
    /// else reads from the slot.
    pub async fn stream(self, slot: Option<&SlotName>, timeline: Timeline, start: Lsn) -> Result<WalStream, Error> {
        WalStream::begin(self, slot, timeline, start).await
    }

    pub(crate) fn unsupported(&self, what: &'static str, since: u32) -> Error {
        Error::Unsupported {
            at: self.wire.at.clone(),
            version: self.version,
            what,
            since,
        }
    }

    /// A position that is written in two columns: where, and on which timeline.
    pub(crate) fn position(&self, row: &crate::frame::Row) -> Result<Position, Error> {
        let (lsn, timeline) = (self.wire.value(row, 0)?, self.wire.value(row, 1)?);
        Ok(Position { lsn, timeline })
    }

    /// A number in a column; `None` for null.
    pub(crate) fn number(&self, row: &crate::frame::Row, column: usize) -> Result<Option<u64>, Error> {
        let Some(text) = self.wire.text(row, column)? else {
            return Ok(None);
        };
        let number = decimal(&text).ok_or_else(|| Malformed::new("a number", &text));
        number.map(Some).map_err(|source| self.wire.answer(source))
    }
}

/// Holds an answer to the limit.
pub(crate) async fn within<T>(at: String, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let late = |_| Error::TimedOut {
        at,
        what: "answer",
        limit: LIMIT,
    };
    tokio::time::timeout(LIMIT, answer).await.map_err(late)?
}
