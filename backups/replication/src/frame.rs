//! Messages of the protocol, cut out of bytes that nobody vouches for: a byte that says what it is, four that say how long
//! it is, and its body. Bodies are slices of what was read, never copies. Nothing here waits or connects.

use bytes::{Buf, Bytes, BytesMut};

use crate::error::ServerError;

/// What a message begins with.
const HEAD: usize = 5;
/// What is kept of each of a server's words.
const WORDS: usize = 2000;

/// The longest body of a kind of message. A server sends pieces of 32 kB of files and 128 kB of the log; rows hold a
/// file of history at most.
const fn longest(kind: u8) -> usize {
    match kind {
        b'd' => 4 << 20,
        b'D' => 16 << 20,
        b'E' | b'N' | b'T' => 256 << 10,
        _ => 32 << 10,
    }
}

/// Bytes that are not the protocol, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrong(pub String);

fn wrong<T>(why: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong(why.into()))
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub kind: u8,
    pub body: Bytes,
}

/// What a buffer holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// A whole message, which is out of the buffer now.
    Whole(Message),
    /// The beginning of one; it takes so many bytes more, or a few of them to know.
    Needs(usize),
}

/// Takes the first message.
pub(crate) fn take(buffer: &mut BytesMut) -> Result<Taken, Wrong> {
    let Some((kind, length)) = buffer.first().copied().zip(buffer.get(1..HEAD)) else {
        return Ok(Taken::Needs(HEAD - buffer.len()));
    };
    // The length counts itself.
    let length = length.iter().fold(0usize, |sum, byte| sum << 8 | usize::from(*byte));
    if !kind.is_ascii_alphanumeric() {
        return wrong(format!("a message begins with the byte 0x{kind:02x}"));
    }
    let body = match length.checked_sub(4) {
        Some(body) if body <= longest(kind) => body,
        _ => return wrong(format!("a message {:?} of {length} bytes", char::from(kind))),
    };
    if buffer.len() < HEAD + body {
        return Ok(Taken::Needs(HEAD + body - buffer.len()));
    }
    let mut body = buffer.split_to(HEAD + body).freeze();
    body.advance(HEAD);
    Ok(Taken::Whole(Message { kind, body }))
}

/// What is left of a body.
pub(crate) struct Fields(pub Bytes);

impl Fields {
    fn number<const N: usize>(&mut self) -> Result<[u8; N], Wrong> {
        let bytes = self.0.get(..N).and_then(|bytes| bytes.try_into().ok());
        let bytes = bytes.map_or_else(|| wrong("a message that is too short"), Ok)?;
        self.0.advance(N);
        Ok(bytes)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Wrong> {
        self.number().map(u8::from_be_bytes)
    }

    pub(crate) fn i16(&mut self) -> Result<i16, Wrong> {
        self.number().map(i16::from_be_bytes)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, Wrong> {
        self.number().map(i32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Wrong> {
        self.number().map(u64::from_be_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, Wrong> {
        self.number().map(i64::from_be_bytes)
    }

    /// Text up to a zero byte.
    pub(crate) fn text(&mut self) -> Result<Bytes, Wrong> {
        let end = self.0.iter().position(|byte| *byte == 0);
        let end = end.map_or_else(|| wrong("a text without its end"), Ok)?;
        let text = self.0.split_to(end);
        self.0.advance(1);
        Ok(text)
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Result<Bytes, Wrong> {
        if length > self.0.len() {
            return wrong("a message that is too short");
        }
        Ok(self.0.split_to(length))
    }
}

/// A row of a result: each column's bytes, `None` for null.
pub(crate) type Row = Vec<Option<Bytes>>;

/// Reads a row (`D`).
pub(crate) fn row(body: Bytes) -> Result<Row, Wrong> {
    let mut fields = Fields(body);
    let columns = usize::try_from(fields.i16()?).or_else(|_| wrong("a row with less than no columns"))?;
    // Each takes four bytes at least: a count that is too large is found before there is place for it.
    if columns > fields.0.len() / 4 {
        return wrong("a row that is too short");
    }
    let mut column = || match fields.i32()? {
        -1 => Ok(None),
        length => {
            let length = usize::try_from(length).or_else(|_| wrong("a column of less than no bytes"))?;
            fields.bytes(length).map(Some)
        }
    };
    let row = (0..columns).map(|_| column()).collect::<Result<Row, Wrong>>()?;
    if fields.0.is_empty() {
        Ok(row)
    } else {
        wrong("a row that is too long")
    }
}

/// Reads what is wrong (`E`) or worth saying (`N`). Words are cut, and nothing in them moves a cursor.
pub(crate) fn server_error(body: Bytes) -> Result<ServerError, Wrong> {
    let mut fields = Fields(body);
    let mut error = ServerError::default();
    let mut translated = String::new();
    loop {
        let field = fields.byte()?;
        if field == 0 {
            break;
        }
        let text = words(&fields.text()?);
        match field {
            // In the server's language, and since version 9.6 in English as well.
            b'S' => translated = text,
            b'V' => error.severity = text,
            b'C' => error.code = text.chars().take(5).collect(),
            b'M' => error.message = text,
            b'D' => error.detail = text,
            b'H' => error.hint = text,
            b'W' => error.context = text,
            _ => {}
        }
    }
    if error.severity.is_empty() {
        error.severity = translated;
    }
    Ok(error)
}

/// A server's words, fit to be shown.
pub(crate) fn words(bytes: &[u8]) -> String {
    // Longer than what is kept, in bytes, and not as long as a message may be.
    let bytes = &bytes[..bytes.len().min(4 * WORDS)];
    let text = String::from_utf8_lossy(bytes);
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(WORDS).collect::<String>().trim().to_owned()
}

/// What stands in a piece of the log's stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Streamed {
    Wal {
        start: u64,
        end_of_log: u64,
        sent_at: i64,
        data: Bytes,
    },
    KeepAlive {
        end_of_log: u64,
        sent_at: i64,
        asks: bool,
    },
}

/// Reads a piece of the log's stream.
pub(crate) fn streamed(body: Bytes) -> Result<Streamed, Wrong> {
    let mut fields = Fields(body);
    match fields.byte()? {
        b'w' => Ok(Streamed::Wal {
            start: fields.u64()?,
            end_of_log: fields.u64()?,
            sent_at: fields.i64()?,
            data: fields.0,
        }),
        b'k' => Ok(Streamed::KeepAlive {
            end_of_log: fields.u64()?,
            sent_at: fields.i64()?,
            asks: fields.byte()? != 0,
        }),
        other => wrong(format!("a piece of the log's stream of kind 0x{other:02x}")),
    }
}

/// What stands in a piece of a base backup from version 15 on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Archive { name: Bytes },
    Manifest,
    Data(Bytes),
    Progress,
}

/// Reads a piece of a base backup from version 15 on.
pub(crate) fn piece(body: Bytes) -> Result<Piece, Wrong> {
    let mut fields = Fields(body);
    match fields.byte()? {
        b'n' => {
            let name = fields.text()?;
            // The tablespace's folder, which the header said already.
            fields.text()?;
            Ok(Piece::Archive { name })
        }
        b'm' => Ok(Piece::Manifest),
        b'd' => Ok(Piece::Data(fields.0)),
        b'p' => fields.i64().map(|_| Piece::Progress),
        other => wrong(format!("a piece of a base backup of kind 0x{other:02x}")),
    }
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u8, body: &[u8]) -> BytesMut {
        let mut bytes = BytesMut::new();
        bytes.put_u8(kind);
        bytes.put_u32(body.len() as u32 + 4);
        bytes.put_slice(body);
        bytes
    }

    #[test]
    fn a_length_is_never_believed() {
        for length in [0u32, 3, u32::MAX, 1 << 31, (4 << 20) + 5] {
            let mut bytes = BytesMut::from(&b"d"[..]);
            bytes.put_u32(length);
            assert!(take(&mut bytes).is_err(), "{length}");
        }
        assert!(take(&mut message(0, b"")).is_err());
        assert_eq!(take(&mut BytesMut::from(&b"d\0\0"[..])), Ok(Taken::Needs(2)));
        assert_eq!(take(&mut BytesMut::from(&b"d\0\0\0\x08ab"[..])), Ok(Taken::Needs(2)));
        assert!(row(Bytes::from_static(b"\x7f\xff\0\0\0\x01a")).is_err());
        assert!(row(Bytes::from_static(b"\0\x01\x7f\xff\xff\xffa")).is_err());
        assert!(row(Bytes::from_static(b"\0\x01\xff\xff\xff\xfea")).is_err());
        assert!(row(Bytes::from_static(b"\0\x01\0\0\0\x01ab")).is_err());
        assert_eq!(
            row(Bytes::from_static(b"\0\x02\0\0\0\x01a\xff\xff\xff\xff")),
            Ok(vec![Some("a".into()), None])
        );
    }

    #[test]
    fn a_servers_words_move_no_cursor() {
        let body = b"SFEHLER\0VERROR\0C58P01\0Mgone\x1b[2J\nfor\xff good\0Hlook\0Zunknown\0\0";
        let error = server_error(Bytes::from_static(body)).unwrap();
        assert_eq!(error.severity, "ERROR");
        assert_eq!(
            error.to_string(),
            "gone [2J for\u{fffd} good (SQLSTATE 58P01); hint: look"
        );
        assert!(server_error(Bytes::from_static(b"Mnever ends")).is_err());
        assert_eq!(words("x".repeat(100_000).as_bytes()).len(), WORDS);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(input: Vec<u8>) {
            let mut buffer = BytesMut::from(&input[..]);
            while let Ok(Taken::Whole(_)) = take(&mut buffer) {}
            let body = Bytes::from(input);
            let _ = (row(body.clone()), server_error(body.clone()), streamed(body.clone()), piece(body));
        }

        #[test]
        fn messages_come_whole_wherever_they_were_cut(
            bodies in prop::collection::vec((prop::sample::select(&b"dDTCZ"[..]), prop::collection::vec(any::<u8>(), 0..50)), 1..6),
            cut in 1..20usize,
        ) {
            let sent: Vec<u8> = bodies.iter().flat_map(|(kind, body)| message(*kind, body)).collect();
            let (mut buffer, mut got) = (BytesMut::new(), Vec::new());
            for part in sent.chunks(cut) {
                buffer.put_slice(part);
                while let Taken::Whole(message) = take(&mut buffer).unwrap() {
                    got.push((message.kind, message.body.to_vec()));
                }
            }
            prop_assert_eq!(got, bodies);
            prop_assert!(buffer.is_empty());
        }
    }
}
