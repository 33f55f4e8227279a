//! Reads the tar archives of a base backup as they come over the wire: nothing is copied but headers that were torn apart,
//! nothing is kept but what stands before the next file. No reader of every archive there is: what a server never sends
//! (hard links, devices, holes) is refused by name, and so is every path that leads elsewhere.
//!
//! The format is POSIX `ustar` with numbers in base 256 where eight gigabytes are not enough (`src/port/tar.c`), long names
//! as POSIX (`x`) and as GNU (`L`, `K`) writes them. Before PostgreSQL 15 the two empty blocks at the end are missing.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};
use jiff::Timestamp;

const BLOCK: usize = 512;
/// What stands before a file for its long names is never longer.
const LONGEST_EXTENSION: u64 = 64 << 10;
/// No path is longer, as no system call takes one that is.
const LONGEST_PATH: usize = 4096;
/// No name is longer.
const LONGEST_NAME: usize = 255;
/// Folders are not nested more deeply. Those of a server are by four.
pub(super) const DEEPEST: usize = 64;
/// No file is larger: the kernel counts no further.
const LARGEST: u64 = i64::MAX as u64;

/// Why an archive does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TarFault {
    /// A header's sum does not fit, or it is none.
    #[error("at byte {at} stands no header of a file")]
    NoHeader {
        /// The offset in the archive.
        at: u64,
    },
    /// A number in a header is none, or larger than any that makes sense.
    #[error("the {field} of {path:?} is no number that makes sense")]
    Number {
        /// Which field.
        field: &'static str,
        /// The file.
        path: OsString,
    },
    /// A path is absolute, leads upwards, is empty or too long.
    #[error("the path {path:?} leads elsewhere")]
    Path {
        /// The path, cut where it is too long.
        path: OsString,
    },
    /// A link to nowhere.
    #[error("the link {path:?} leads nowhere")]
    Link {
        /// The link.
        path: OsString,
    },
    /// Something that no server sends.
    #[error("{path:?} is of kind {kind:?}, which base backups do not have")]
    Kind {
        /// What it is called.
        path: OsString,
        /// The byte in its header.
        kind: char,
    },
    /// What stands before a file for its long names is malformed or too long.
    #[error("the extended header at byte {at} makes no sense")]
    Extension {
        /// The offset in the archive.
        at: u64,
    },
    /// It ends in the middle.
    #[error("the archive is cut after {at} bytes")]
    Cut {
        /// How many bytes there were.
        at: u64,
    },
    /// Something follows its end.
    #[error("something follows the end of the archive, at byte {at}")]
    Trailing {
        /// The offset in the archive.
        at: u64,
    },
}

/// What an archive holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Relative, of plain names alone; empty for the folder itself.
    pub(super) path: PathBuf,
    pub(super) kind: EntryKind,
    /// The permission bits (`0o7777`).
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) modified: Timestamp,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EntryKind {
    /// So many bytes follow.
    File {
        size: u64,
    },
    Folder,
    Link {
        target: OsString,
    },
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TarEvent {
    /// An entry begins; one that is no file is over with that.
    Entry(Entry),
    /// Content of the file that began.
    Content(Bytes),
    /// All of its content has come.
    FileEnds,
}

/// A reader of one archive.
#[derive(Debug)]
pub(super) struct TarReader {
    /// What came and was not looked at.
    input: Bytes,
    /// The beginning of a header whose end has not come.
    torn: Vec<u8>,
    state: State,
    said: Said,
    /// How much of the archive was looked at.
    at: u64,
}

#[derive(Debug)]
enum State {
    Header,
    Content {
        left: u64,
        padding: usize,
    },
    Extension {
        kind: u8,
        bytes: Vec<u8>,
        left: usize,
        padding: usize,
    },
    Padding {
        left: usize,
    },
    Ended,
}

/// What extended headers said of the entry that follows.
#[derive(Debug, Default)]
struct Said {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    anything: bool,
}

impl TarReader {
    pub(super) fn new() -> Self {
        Self {
            input: Bytes::new(),
            torn: Vec::new(),
            state: State::Header,
            said: Said::default(),
            at: 0,
        }
    }

    /// Gives it what came next. Everything that came before was asked for with [`TarReader::next`], until it had no more.
    pub(super) fn push(&mut self, chunk: Bytes) {
        debug_assert!(self.input.is_empty(), "what came before was looked at");
        self.input = chunk;
    }

    /// What comes next; `None` if more has to come first.
    pub(super) fn next(&mut self) -> Result<Option<TarEvent>, TarFault> {
        loop {
            match &mut self.state {
                State::Content { left: 0, padding } => {
                    self.state = State::Padding { left: *padding };
                    return Ok(Some(TarEvent::FileEnds));
                }
                State::Padding { left: 0 } => self.state = State::Header,
                State::Extension { left: 0, .. } => self.take_extension()?,
                _ if self.input.is_empty() => return Ok(None),
                State::Content { left, .. } => {
                    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(self.input.len());
                    *left -= count as u64;
                    self.at += count as u64;
                    return Ok(Some(TarEvent::Content(self.input.split_to(count))));
                }
                State::Padding { left } => {
                    let count = (*left).min(self.input.len());
                    *left -= count;
                    self.at += count as u64;
                    self.input.advance(count);
                }
                State::Extension { bytes, left, .. } => {
                    let count = (*left).min(self.input.len());
                    *left -= count;
                    self.at += count as u64;
                    bytes.extend_from_slice(&self.input.split_to(count));
                }
                State::Ended => {
                    if let Some(at) = self.input.iter().position(|byte| *byte != 0) {
                        return Err(TarFault::Trailing {
                            at: self.at + at as u64,
                        });
                    }
                    self.at += self.input.len() as u64;
                    self.input.clear();
                }
                State::Header => {
                    let Some(block) = self.block() else { return Ok(None) };
                    if let Some(entry) = self.header(&block)? {
                        return Ok(Some(TarEvent::Entry(entry)));
                    }
                }
            }
        }
    }

    /// The archive is over, as far as whoever sent it is concerned.
    pub(super) fn finish(mut self) -> Result<(), TarFault> {
        // The padding of the last file may be all that is left to be looked at.
        let more = self.next()?;
        match self.state {
            State::Header if more.is_none() && self.torn.is_empty() && !self.said.anything => Ok(()),
            State::Ended if more.is_none() => Ok(()),
            _ => Err(TarFault::Cut {
                at: self.at + self.torn.len() as u64,
            }),
        }
    }

    /// The next whole header.
    fn block(&mut self) -> Option<Bytes> {
        let block = if self.torn.is_empty() && self.input.len() >= BLOCK {
            self.input.split_to(BLOCK)
        } else {
            let count = (BLOCK - self.torn.len()).min(self.input.len());
            self.torn.extend_from_slice(&self.input.split_to(count));
            if self.torn.len() < BLOCK {
                return None;
            }
            std::mem::take(&mut self.torn).into()
        };
        self.at += BLOCK as u64;
        Some(block)
    }

    /// Reads a header. `None`: it was no entry's.
    fn header(&mut self, block: &[u8]) -> Result<Option<Entry>, TarFault> {
        let at = self.at - BLOCK as u64;
        if block.iter().all(|byte| *byte == 0) {
            if self.said.anything {
                return Err(TarFault::Extension { at });
            }
            self.state = State::Ended;
            return Ok(None);
        }
        let sum = block[..148]
            .iter()
            .chain(&block[156..])
            .map(|&byte| u64::from(byte))
            .sum::<u64>()
            + 8 * 32;
        if number(&block[148..156]) != Some(sum) || &block[257..262] != b"ustar" {
            return Err(TarFault::NoHeader { at });
        }
        let kind = block[156];
        let said = match kind {
            b'x' | b'L' | b'K' => None,
            _ => Some(std::mem::take(&mut self.said)),
        };
        let mut name = said.as_ref().and_then(|said| said.path.clone()).unwrap_or_else(|| {
            let (prefix, name) = (text(&block[345..500]), text(&block[..100]));
            // GNU, whose magic goes on with a blank, keeps times where POSIX has the prefix.
            if prefix.is_empty() || block[262] != 0 {
                name.to_vec()
            } else {
                [prefix, b"/", name].concat()
            }
        });
        let shown = || OsString::from_vec(name.iter().copied().take(LONGEST_PATH).collect());
        let field = |field, range: std::ops::Range<usize>| {
            number(&block[range]).ok_or_else(|| TarFault::Number { field, path: shown() })
        };
        let size = match said.as_ref().and_then(|said| said.size) {
            Some(size) => size,
            None => field("size", 124..136)?,
        };
        if size > LARGEST {
            return Err(TarFault::Number {
                field: "size",
                path: shown(),
            });
        }
        let padding = (BLOCK - (size % BLOCK as u64) as usize) % BLOCK;
        let Some(said) = said else {
            if size == 0 || size > LONGEST_EXTENSION {
                return Err(TarFault::Extension { at });
            }
            self.said.anything = true;
            self.state = State::Extension {
                kind,
                bytes: Vec::new(),
                left: size as usize,
                padding,
            };
            return Ok(None);
        };
        let (uid, gid, mode, modified) = (
            field("owner", 108..116)?,
            field("group", 116..124)?,
            field("mode", 100..108)?,
            field("time", 136..148)?,
        );
        let small = |field, value: u64| u32::try_from(value).map_err(|_| TarFault::Number { field, path: shown() });
        let (uid, gid) = (small("owner", uid)?, small("group", gid)?);
        let modified = i64::try_from(modified)
            .ok()
            .and_then(|seconds| Timestamp::from_second(seconds).ok());
        let modified = modified.ok_or_else(|| TarFault::Number {
            field: "time",
            path: shown(),
        })?;
        let kind = match kind {
            b'0' | 0 => EntryKind::File { size },
            b'5' => EntryKind::Folder,
            b'2' => {
                let target = said.link.unwrap_or_else(|| text(&block[157..257]).to_vec());
                if target.is_empty() || target.len() > LONGEST_PATH || target.contains(&0) {
                    return Err(TarFault::Link { path: shown() });
                }
                EntryKind::Link {
                    target: OsString::from_vec(target),
                }
            }
            kind => {
                return Err(TarFault::Kind {
                    path: shown(),
                    kind: kind.into(),
                });
            }
        };
        if matches!(kind, EntryKind::Link { .. }) && size != 0 {
            return Err(TarFault::Number {
                field: "size",
                path: OsString::from_vec(name),
            });
        }
        // What is no file has a slash at its end: folders everywhere, links from PostgreSQL, too.
        while name.last() == Some(&b'/') && !matches!(kind, EntryKind::File { .. }) {
            name.pop();
        }
        let path = inside(&name).filter(|path| kind == EntryKind::Folder || path != Path::new(""));
        let Some(path) = path else {
            name.truncate(LONGEST_PATH);
            return Err(TarFault::Path {
                path: OsString::from_vec(name),
            });
        };
        self.state = match kind {
            EntryKind::File { .. } => State::Content { left: size, padding },
            // A folder may say a size, which means nothing: no content follows.
            _ => State::Header,
        };
        Ok(Some(Entry {
            path,
            kind,
            mode: (mode & 0o7777) as u32,
            uid,
            gid,
            modified,
        }))
    }

    /// An extended header has come as a whole.
    fn take_extension(&mut self) -> Result<(), TarFault> {
        let at = self.at;
        let malformed = || TarFault::Extension { at };
        let State::Extension {
            kind, bytes, padding, ..
        } = std::mem::replace(&mut self.state, State::Header)
        else {
            return Ok(());
        };
        self.state = State::Padding { left: padding };
        match kind {
            b'L' => self.said.path = Some(text(&bytes).to_vec()),
            b'K' => self.said.link = Some(text(&bytes).to_vec()),
            _ => {
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let (key, value, next) = record(rest).ok_or_else(malformed)?;
                    match key {
                        b"path" => self.said.path = Some(value.to_vec()),
                        b"linkpath" => self.said.link = Some(value.to_vec()),
                        b"size" => self.said.size = Some(decimal(value).ok_or_else(malformed)?),
                        _ => {}
                    }
                    rest = next;
                }
            }
        }
        Ok(())
    }
}

/// A path of plain names, relative to where it is to lie; `None` if it leads elsewhere. A leading `./` and a lone `.` are
/// what many programs write for the folder itself.
pub(super) fn inside(name: &[u8]) -> Option<PathBuf> {
    if name.len() > LONGEST_PATH || name.contains(&0) {
        return None;
    }
    let rest = match name {
        b"." => b"",
        _ => name.strip_prefix(b"./").unwrap_or(name),
    };
    let mut path = PathBuf::new();
    if rest.is_empty() {
        return Some(path);
    }
    for (depth, name) in rest.split(|byte| *byte == b'/').enumerate() {
        if name.is_empty() || name == b"." || name == b".." || name.len() > LONGEST_NAME || depth >= DEEPEST {
            return None;
        }
        path.push(OsStr::from_bytes(name));
    }
    Some(path)
}

/// Up to the first zero byte.
fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    &field[..end]
}

/// Octal digits among blanks, or bytes after a set first bit. Negative numbers are none.
fn number(field: &[u8]) -> Option<u64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        let digits = std::iter::once(first & 0x7f).chain(rest.iter().copied());
        return digits
            .into_iter()
            .try_fold(0_u64, |value, byte| value.checked_mul(256)?.checked_add(byte.into()));
    }
    let text = std::str::from_utf8(text(field)).ok()?.trim_matches(' ');
    if text.is_empty() {
        return Some(0);
    }
    let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    digits.then(|| u64::from_str_radix(text, 8).ok())?
}

fn decimal(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

/// `length key=value\n`, where the length counts itself; and what follows it.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = bytes.iter().take(10).position(|byte| *byte == b' ')?;
    let length = usize::try_from(decimal(&bytes[..blank])?).ok()?;
    let (record, next) = bytes.split_at_checked(length)?;
    let body = record.get(blank + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    Some((&body[..equals], &body[equals + 1..], next))
}

#[cfg(test)]
#[path = "tar/tests.rs"]
mod tests;
