//! Base backups: all files of a cluster as the server sends them, one tar archive a tablespace, and the manifest that
//! says what must have come.

use bytes::Bytes;

use crate::connection::{Connection, Position};
use crate::error::Error;
use crate::frame::{self, Piece, Row};
use crate::lsn::{Malformed, decimal};

/// More tablespaces no cluster has.
const MOST: usize = 10_000;
/// PostgreSQL takes labels up to 1024 bytes.
const LONGEST_LABEL: usize = 1000;

/// The number of a database object.
pub type Oid = u32;

/// When the server begins: after a checkpoint, which it takes its time for, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Checkpoint {
    /// As soon as it can, whatever that does to others.
    #[default]
    Fast,
    /// Over minutes, as its own checkpoints (`checkpoint_completion_target`).
    Spread,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseBackup {
    /// What the server calls it in `backup_label`.
    pub label: String,
    /// How soon it begins.
    pub checkpoint: Checkpoint,
    /// Whether the server holds each page against its checksum while it reads, and refuses at the end where one does not
    /// fit. Where the cluster has no checksums there is nothing to look at.
    pub verify_checksums: bool,
    /// Whether the server adds `tablespace_map`, from which a server that starts on the files makes the links to its
    /// tablespaces anew. Who makes those links somewhere else has no use for it.
    pub tablespace_map: bool,
}

impl Default for BaseBackup {
    fn default() -> Self {
        Self {
            label: String::new(),
            checkpoint: Checkpoint::default(),
            verify_checksums: true,
            tablespace_map: true,
        }
    }
}

/// A tablespace beside the main data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tablespace {
    /// Its number; `None` for the main data directory.
    pub oid: Option<Oid>,
    /// Its folder on the server; empty for the main data directory.
    pub location: String,
    /// How large it was before the backup began, in bytes, to a kibibyte; `None` where the server does not tell.
    pub size: Option<u64>,
}

/// A part of a base backup, in the order in which the server sends them: archives, each with its data, then the
/// manifest with its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// An archive (tar) begins. What comes before its first [`Part::Data`] belongs to nothing.
    Archive {
        /// Of which tablespace; `None` for the main data directory.
        tablespace: Option<Oid>,
    },
    /// The next bytes of the archive.
    Data(Bytes),
    /// The archives are whole and the manifest begins.
    ManifestBegins,
    /// The next bytes of the manifest.
    Manifest(Bytes),
}

/// A base backup on its way. What is not read the server does not send; a stream that is dropped ends the backup.
#[derive(Debug)]
pub struct BaseBackupStream {
    connection: Connection,
    start: Position,
    tablespaces: Vec<Tablespace>,
    /// How many archives began.
    archives: usize,
    state: State,
    /// Whether a copy holds all archives and says what each piece is (from version 15 on).
    typed: bool,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A copy, or the end.
    Between,
    /// Data of an archive.
    Archive,
    /// Data of the manifest.
    Manifest,
    /// One copy of pieces; which they belong to was not said yet.
    Pieces,
    /// Nothing: all of it came.
    Done,
}

impl BaseBackupStream {
    pub(crate) async fn begin(mut connection: Connection, options: &BaseBackup) -> Result<Self, Error> {
        let major = connection.server_version().major();
        if major < 13 {
            return Err(connection.unsupported("say what a base backup consists of", 13));
        }
        let typed = major >= 15;
        connection.wire.ask("BASE_BACKUP", &question(options, typed)).await?;
        let first = connection.wire.rows(None).await?;
        let start = match &first[..] {
            [row] => connection.position(row)?,
            _ => return Err(connection.wire.protocol("a base backup that starts nowhere")),
        };
        let rows = connection.wire.rows(None).await?;
        if rows.is_empty() || rows.len() > MOST {
            return Err(connection
                .wire
                .protocol("a base backup of no tablespace, or of too many"));
        }
        let tablespaces = rows
            .iter()
            .map(|row| tablespace(&connection, row))
            .collect::<Result<Vec<_>, Error>>()?;
        if tablespaces.iter().filter(|space| space.oid.is_none()).count() != 1 {
            return Err(connection
                .wire
                .protocol("a base backup without one main data directory"));
        }
        let (archives, state) = (0, State::Between);
        Ok(Self {
            connection,
            start,
            tablespaces,
            archives,
            state,
            typed,
        })
    }

    /// Where it starts: recovery needs the log from here on.
    pub const fn start(&self) -> Position {
        self.start
    }

    /// What comes, the main data directory among them, in the order in which it comes.
    pub fn tablespaces(&self) -> &[Tablespace] {
        &self.tablespaces
    }

    /// The next part; `None` after the last one, when the server said that all of it was sent. Data come in pieces of
    /// about 32 kB, which are slices of what was read: who keeps a few bytes of one for long copies them.
    ///
    /// # Errors
    /// [`Error`]. A backup that ends early is one, whatever came before.
    pub async fn next(&mut self) -> Result<Option<Part>, Error> {
        loop {
            if self.state == State::Done {
                return Ok(None);
            }
            if self.state == State::Between && self.archives == self.tablespaces.len() + 1 {
                self.state = State::Done;
                continue;
            }
            let message = self.connection.wire.answered().await?;
            let part = match (self.state, message.kind) {
                (State::Between, b'H') if self.typed => {
                    self.state = State::Pieces;
                    None
                }
                (State::Between, b'H') => Some(self.opens()),
                (State::Archive | State::Manifest | State::Pieces, b'd') if self.typed => self.piece(message.body)?,
                (State::Archive, b'd') => Some(Part::Data(message.body)),
                (State::Manifest, b'd') => Some(Part::Manifest(message.body)),
                (State::Archive | State::Manifest, b'c') if !self.typed => {
                    self.state = State::Between;
                    None
                }
                // The manifest comes last: a copy that ends before it is cut.
                (State::Manifest, b'c') => {
                    self.state = State::Done;
                    None
                }
                _ => return Err(self.connection.wire.unexpected(&message, "a part of a base backup")),
            };
            if part.is_some() {
                return Ok(part);
            }
        }
    }

    /// A copy of an old server begins: one each for what the header named, in its order, then the manifest's.
    fn opens(&mut self) -> Part {
        let space = self.tablespaces.get(self.archives).map(|space| space.oid);
        self.archives += 1;
        if let Some(tablespace) = space {
            self.state = State::Archive;
            return Part::Archive { tablespace };
        }
        self.state = State::Manifest;
        Part::ManifestBegins
    }

    fn piece(&mut self, body: Bytes) -> Result<Option<Part>, Error> {
        let wire = &self.connection.wire;
        match frame::piece(body).map_err(|wrong| wire.wrong(wrong))? {
            Piece::Progress => Ok(None),
            Piece::Data(data) => match self.state {
                State::Archive => Ok(Some(Part::Data(data))),
                State::Manifest => Ok(Some(Part::Manifest(data))),
                _ => Err(wire.protocol("data that belong to no archive")),
            },
            Piece::Archive { name } => {
                let tablespace = archive(&name).map_err(|source| wire.answer(source))?;
                // In the order that the header has: none twice, none that it does not name.
                let wanted = self.tablespaces.get(self.archives).map(|space| space.oid);
                if self.state == State::Manifest || wanted != Some(tablespace) {
                    return Err(wire.protocol("an archive that the header does not name there"));
                }
                self.archives += 1;
                self.state = State::Archive;
                Ok(Some(Part::Archive { tablespace }))
            }
            Piece::Manifest => {
                if self.state == State::Manifest || self.archives != self.tablespaces.len() {
                    return Err(wire.protocol("a manifest before the end of the archives"));
                }
                self.state = State::Manifest;
                Ok(Some(Part::ManifestBegins))
            }
        }
    }

    /// Where it ends: recovery needs the log up to here. The backup is whole only if this returns. Reads what was not read
    /// yet, and forgets it.
    ///
    /// # Errors
    /// [`Error`]. SQLSTATE `XX001` tells that the server found wrong checksums; which files they are in stands in the
    /// error's detail.
    pub async fn finish(mut self) -> Result<(Position, Connection), Error> {
        while self.next().await?.is_some() {}
        let Self {
            mut connection, start, ..
        } = self;
        let rows = connection.wire.rows(None).await?;
        let end = match &rows[..] {
            [row] => connection.position(row)?,
            _ => return Err(connection.wire.protocol("a base backup that ends nowhere")),
        };
        if end.lsn < start.lsn || end.timeline < start.timeline {
            return Err(connection.wire.protocol("a base backup that ends before it starts"));
        }
        // A refusal for wrong checksums comes at the very end.
        connection.wire.ready().await?;
        Ok((end, connection))
    }
}

fn question(options: &BaseBackup, typed: bool) -> String {
    let label: String = options
        .label
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let mut end = label.len().min(LONGEST_LABEL);
    while !label.is_char_boundary(end) {
        end -= 1;
    }
    let label = label[..end].replace('\'', "''");
    let fast = options.checkpoint == Checkpoint::Fast;
    if typed {
        let checkpoint = if fast { "fast" } else { "spread" };
        let map = if options.tablespace_map { "TABLESPACE_MAP, " } else { "" };
        let verify = u8::from(options.verify_checksums);
        format!(
            "BASE_BACKUP (LABEL '{label}', PROGRESS, CHECKPOINT '{checkpoint}', WAIT 0, {map}\
             VERIFY_CHECKSUMS {verify}, MANIFEST 'yes', MANIFEST_CHECKSUMS 'SHA256')"
        )
    } else {
        let fast = if fast { "FAST " } else { "" };
        let map = if options.tablespace_map { "TABLESPACE_MAP " } else { "" };
        let verify = if options.verify_checksums {
            ""
        } else {
            "NOVERIFY_CHECKSUMS "
        };
        format!(
            "BASE_BACKUP LABEL '{label}' PROGRESS {fast}NOWAIT {map}{verify}MANIFEST 'yes' MANIFEST_CHECKSUMS 'SHA256'"
        )
    }
}

fn tablespace(connection: &Connection, row: &Row) -> Result<Tablespace, Error> {
    let oid = connection.number(row, 0)?.map(Oid::try_from).transpose();
    let wrong = |_| {
        connection
            .wire
            .answer(Malformed::new("the number of a tablespace", "a larger one"))
    };
    Ok(Tablespace {
        oid: oid.map_err(wrong)?,
        location: connection.wire.text(row, 1)?.unwrap_or_default(),
        // In kibibytes.
        size: connection.number(row, 2)?.and_then(|size| size.checked_mul(1024)),
    })
}

/// The tablespace of an archive's name: `base.tar`, `16385.tar`.
fn archive(name: &[u8]) -> Result<Option<Oid>, Malformed> {
    let wrong = || Malformed::new("the name of a tablespace's archive", &frame::words(name));
    let name = std::str::from_utf8(name).map_err(|_| wrong())?;
    match name.strip_suffix(".tar") {
        Some("base") => Ok(None),
        Some(digits) => {
            let oid = decimal(digits).and_then(|number| Oid::try_from(number).ok());
            oid.map(Some).ok_or_else(wrong)
        }
        None => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_stays_in_its_quotes() {
        let backup = |label: &str| BaseBackup {
            label: label.into(),
            checkpoint: Checkpoint::Spread,
            ..BaseBackup::default()
        };
        let question = |label: &str, typed| super::question(&backup(label), typed);
        assert!(
            question("it's\nme", true).starts_with("BASE_BACKUP (LABEL 'it''s me', PROGRESS, CHECKPOINT 'spread',")
        );
        assert!(question("it's", false).starts_with("BASE_BACKUP LABEL 'it''s' PROGRESS NOWAIT"));
        assert!(question(&"é'".repeat(2000), true).len() < 2500);
    }

    #[test]
    fn archives_are_named_after_their_tablespaces() {
        assert_eq!(archive(b"base.tar"), Ok(None));
        assert_eq!(archive(b"16385.tar"), Ok(Some(16385)));
        for wrong in [
            &b"base"[..],
            b"4294967296.tar",
            b"../1.tar",
            b"-1.tar",
            b".tar",
            b"\xff.tar",
        ] {
            assert!(archive(wrong).is_err());
        }
    }
}
