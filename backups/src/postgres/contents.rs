//! What a dump in PostgreSQL's custom format holds: the header and the table of contents at its beginning, without the
//! data. A dump is foreign bytes: lengths are bounded, and nothing is reserved because a file says so.
//!
//! The format is `ReadHead` and `ReadToc` of PostgreSQL's `pg_backup_archiver.c`, versions 1.12 (9.0) to 1.16 (17, 18).

use std::io::{self, Read};

/// A table of contents holds at most so many bytes; that of a hundred thousand tables has some hundred megabytes.
const MOST: u64 = 1 << 30;
/// So many entries at most.
const ENTRIES: u64 = 1 << 24;
/// The versions that are known, as 256 times the first number and the second.
const KNOWN: std::ops::RangeInclusive<u32> = 0x10c..=0x110;
const CUSTOM: u8 = 1;

/// The beginning of a dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// The database that was dumped.
    pub database: String,
    /// The server's version in its own words.
    pub server_version: String,
    /// The version of `pg_dump`.
    pub dump_version: String,
    /// What is in it, in the order of the file.
    pub entries: Vec<Entry>,
}

/// One object, its data, or something that is said of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// The number that others name it by.
    pub id: u32,
    /// What it is: `TABLE`, `TABLE DATA`, `FK CONSTRAINT`.
    pub kind: String,
    /// Its name, or that of what it belongs to and its own.
    pub tag: String,
    /// The schema that it is in.
    pub schema: Option<String>,
    /// Who owns it.
    pub owner: Option<String>,
    /// The tablespace that it is in, if that is not the default.
    pub tablespace: Option<String>,
    /// The statement that makes it.
    pub definition: String,
    /// The entries that must be there before it.
    pub depends_on: Vec<u32>,
}

/// Why the beginning of a dump cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// It does not begin as such a dump does.
    #[error("it is no dump in PostgreSQL's custom format")]
    Magic,
    /// A format that came later, or long before.
    #[error("its format has the version {}.{}, and 1.12 to 1.16 are known", .0 >> 8, .0 & 0xff)]
    Version(u32),
    /// It ends before its table of contents does.
    #[error("it ends within its table of contents")]
    Truncated,
    /// It contradicts itself.
    #[error("its table of contents is damaged: {0}")]
    Damaged(&'static str),
    /// It cannot be read.
    #[error("it cannot be read")]
    Io(#[source] io::Error),
}

impl From<io::Error> for ContentError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated,
            _ => Self::Io(error),
        }
    }
}

impl Contents {
    /// Reads the beginning of a dump; `from` should be buffered.
    pub fn read(from: impl Read) -> Result<Self, ContentError> {
        let mut input = Input {
            from: from.take(MOST),
            integer: 4,
        };
        let mut magic = [0; 5];
        input.from.read_exact(&mut magic).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ContentError::Magic,
            _ => ContentError::Io(error),
        })?;
        if &magic != b"PGDMP" {
            return Err(ContentError::Magic);
        }
        let version = (u32::from(input.byte()?) << 8) | u32::from(input.byte()?);
        let _revision = input.byte()?;
        if !KNOWN.contains(&version) {
            return Err(ContentError::Version(version));
        }
        let (integer, offset) = (input.byte()?, input.byte()?);
        if !matches!(integer, 1..=8) || !matches!(offset, 1..=8) {
            return Err(ContentError::Damaged("its numbers have no width"));
        }
        input.integer = usize::from(integer);
        if input.byte()? != CUSTOM {
            return Err(ContentError::Magic);
        }
        if version >= 0x10f {
            input.byte()?;
        } else {
            input.number()?;
        }
        // When it was made: seven numbers without a time zone.
        for _ in 0..7 {
            input.number()?;
        }
        let (database, server_version) = (input.word()?, input.word()?);
        let dump_version = input.word()?;
        let count = input.number()?;
        let count = u64::try_from(count).ok().filter(|count| *count <= ENTRIES);
        let count = count.ok_or(ContentError::Damaged("it has no possible number of entries"))?;
        let mut entries = Vec::new();
        for _ in 0..count {
            entries.push(input.entry(version, usize::from(offset))?);
        }
        Ok(Self {
            database,
            server_version,
            dump_version,
            entries,
        })
    }

    /// The major version of the `pg_dump` that wrote it.
    pub fn dump_major(&self) -> u32 {
        let digits: String = self.dump_version.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or(0)
    }

    /// The entry of the database itself.
    pub fn of_database(&self) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.kind == "DATABASE")
    }

    /// How many tables have their data in it.
    pub fn tables(&self) -> usize {
        self.entries.iter().filter(|entry| entry.kind == "TABLE DATA").count()
    }
}

struct Input<R> {
    from: io::Take<R>,
    /// Bytes of a number.
    integer: usize,
}

impl<R: Read> Input<R> {
    fn byte(&mut self) -> Result<u8, ContentError> {
        let mut byte = [0];
        self.from.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    /// A sign, then the bytes, the lowest first.
    fn number(&mut self) -> Result<i64, ContentError> {
        let is_negative = self.byte()? != 0;
        let mut bytes = [0; 8];
        self.from.read_exact(&mut bytes[..self.integer])?;
        let number = i64::try_from(u64::from_le_bytes(bytes));
        let number = number.map_err(|_| ContentError::Damaged("a number is too large"))?;
        Ok(if is_negative { -number } else { number })
    }

    /// A length and so many bytes; a negative length is no text at all.
    fn text(&mut self) -> Result<Option<String>, ContentError> {
        let Ok(length) = u64::try_from(self.number()?) else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        (&mut self.from).take(length).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != length {
            return Err(ContentError::Truncated);
        }
        // A database may be in any encoding, its names with it.
        Ok(Some(String::from_utf8(bytes).unwrap_or_else(|error| {
            String::from_utf8_lossy(error.as_bytes()).into_owned()
        })))
    }

    fn word(&mut self) -> Result<String, ContentError> {
        Ok(self.text()?.unwrap_or_default())
    }

    fn some_word(&mut self) -> Result<Option<String>, ContentError> {
        Ok(self.text()?.filter(|word| !word.is_empty()))
    }

    fn entry(&mut self, version: u32, offset: usize) -> Result<Entry, ContentError> {
        let id = self.number()?;
        let id = u32::try_from(id).ok().filter(|id| *id > 0);
        let id = id.ok_or(ContentError::Damaged("an entry has no number"))?;
        let _has_data = self.number()?;
        let (_class, _oid) = (self.text()?, self.text()?);
        let (tag, kind) = (self.word()?, self.word()?);
        let _section = self.number()?;
        let definition = self.word()?;
        let (_drop, _copy) = (self.text()?, self.text()?);
        let (schema, tablespace) = (self.some_word()?, self.some_word()?);
        if version >= 0x10e {
            let _access_method = self.text()?;
        }
        if version >= 0x110 {
            let _relation_kind = self.number()?;
        }
        let owner = self.some_word()?;
        let _with_oids = self.text()?;
        let mut depends_on = Vec::new();
        while let Some(number) = self.text()? {
            let number = number.trim().parse();
            depends_on.push(number.map_err(|_| ContentError::Damaged("an entry depends on no number"))?);
        }
        for _ in 0..=offset {
            self.byte()?;
        }
        Ok(Entry {
            id,
            kind,
            tag,
            schema,
            owner,
            tablespace,
            definition,
            depends_on,
        })
    }
}
