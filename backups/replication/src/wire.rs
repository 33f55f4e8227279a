//! One connection's bytes: messages in and out, in their order, bounded. It knows what any answer may be broken by (a
//! refusal, a notice, an end), not what is asked.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use crate::error::{Error, ServerError};
use crate::frame::{self, Fields, Message, Row, Taken, Wrong};
use crate::lsn::Malformed;
use crate::version::ServerVersion;

/// What is read at once. Bodies are slices of it, so it lives as long as the last of them.
const CHUNK: usize = 256 << 10;
/// Less room than this is not read into.
const LITTLE: usize = 32 << 10;
/// What a server may say between two answers that answers nothing.
const CHATTER: usize = 10_000;
/// How many of its notices are kept: the last ones.
const NOTICES: usize = 32;
/// Results with more rows, or with more bytes, are none of ours.
const ROWS: usize = 100_000;
const RESULT: usize = 64 << 20;

/// After a refusal nothing more of the answer is waited for than this long.
const REST: Duration = Duration::from_secs(10);

/// What bytes go through.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Io for T {}

/// A connection.
pub(crate) struct Wire {
    io: Box<dyn Io>,
    input: BytesMut,
    output: BytesMut,
    /// The server, for errors.
    pub at: String,
    /// What is asked for, for errors.
    pub doing: &'static str,
    /// Whether an answer is not read to its end.
    asked: bool,
    /// What came and is not told yet.
    refusal: Option<Refusal>,
    chatter: usize,
    notices: VecDeque<ServerError>,
    /// What the server says of itself at the start.
    pub version: Option<ServerVersion>,
    pub standby: Option<bool>,
}

/// An error of the server's, until the rest of its answer was read.
struct Refusal {
    error: ServerError,
    /// Whether there is a rest.
    waits: bool,
    /// No longer than to then.
    until: Instant,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Wire {
    pub(crate) fn new(io: Box<dyn Io>, at: String) -> Self {
        Self {
            io,
            input: BytesMut::new(),
            output: BytesMut::new(),
            at,
            doing: "the start of a connection",
            asked: false,
            refusal: None,
            chatter: 0,
            notices: VecDeque::new(),
            version: None,
            standby: None,
        }
    }

    /// Adds a message to what is sent next; the first one of a connection has no kind.
    pub(crate) fn put(&mut self, kind: Option<u8>, body: impl FnOnce(&mut BytesMut)) {
        self.output.extend(kind);
        let at = self.output.len();
        self.output.put_u32(0);
        body(&mut self.output);
        let length = (self.output.len() - at) as u32;
        self.output[at..at + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// Sends what was put. May be dropped while it waits: what is left goes with the next one.
    pub(crate) async fn flush(&mut self) -> Result<(), Error> {
        let Self { io, output, .. } = self;
        let sent = async {
            while !output.is_empty() {
                if io.write_buf(output).await? == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
            }
            io.flush().await
        };
        let sent = sent.await;
        sent.map_err(|source| self.broken(source))
    }

    /// The next message that answers something. May be dropped while it waits: nothing is lost.
    pub(crate) async fn receive(&mut self) -> Result<Message, Error> {
        loop {
            match frame::take(&mut self.input) {
                Ok(Taken::Whole(message)) => {
                    if !self.heard(&message)? {
                        self.chatter = 0;
                        return Ok(message);
                    }
                }
                Ok(Taken::Needs(more)) => self.fill(more).await?,
                Err(wrong) => return Err(self.wrong(wrong)),
            }
        }
    }

    async fn fill(&mut self, more: usize) -> Result<(), Error> {
        let room = self.input.capacity() - self.input.len();
        if room < more.max(LITTLE) {
            self.input.reserve(more.max(CHUNK));
        }
        match self.io.read_buf(&mut self.input).await {
            Ok(0) => Err(self.broken(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => Ok(()),
            Err(source) => Err(self.broken(source)),
        }
    }

    /// Whether a message was something that a server may say at any time.
    fn heard(&mut self, message: &Message) -> Result<bool, Error> {
        match message.kind {
            b'N' => {
                let notice = frame::server_error(message.body.clone()).map_err(|wrong| self.wrong(wrong))?;
                if self.notices.len() == NOTICES {
                    self.notices.pop_front();
                }
                self.notices.push_back(notice);
            }
            b'S' => {
                let mut fields = Fields(message.body.clone());
                let pair = fields.text().and_then(|name| Ok((name, fields.text()?)));
                let (name, value) = pair.map_err(|wrong| self.wrong(wrong))?;
                match &name[..] {
                    b"server_version" => {
                        let version = frame::words(&value).parse();
                        self.version = Some(version.map_err(|source| self.answer(source))?);
                    }
                    b"in_hot_standby" => self.standby = Some(&value[..] == b"on"),
                    _ => {}
                }
            }
            // Nobody listens for notifications.
            b'A' => {}
            _ => return Ok(false),
        }
        self.chatter += 1;
        if self.chatter > CHATTER {
            return Err(self.protocol("it says a lot and answers nothing"));
        }
        Ok(true)
    }

    /// The next message, which a refusal is not: that is read to its end and becomes the error. May be dropped while it
    /// waits: a refusal that came already is told by the next call.
    pub(crate) async fn answered(&mut self) -> Result<Message, Error> {
        if self.refusal.is_none() {
            let message = self.receive().await?;
            if message.kind != b'E' {
                return Ok(message);
            }
            self.refusal = Some(self.refusal(message)?);
        }
        let until = self.refusal.as_ref().map(|refusal| refusal.until);
        if let Some(until) = until {
            let _ = tokio::time::timeout_at(until, self.rest()).await;
        }
        match self.refusal.take() {
            Some(refusal) => Err(Error::Server {
                at: self.at.clone(),
                doing: self.doing,
                source: Box::new(refusal.error),
            }),
            None => Err(self.protocol("a refusal that says nothing")),
        }
    }

    fn refusal(&self, message: Message) -> Result<Refusal, Error> {
        let mut error = frame::server_error(message.body).map_err(|wrong| self.wrong(wrong))?;
        // Which files are damaged it says in warnings before.
        if error.code == "XX001" && error.detail.is_empty() {
            let notices = self.notices.iter().map(|notice| notice.message.as_str());
            error.detail = notices.collect::<Vec<_>>().join("; ").chars().take(2000).collect();
        }
        let waits = self.asked && error.severity == "ERROR";
        let until = Instant::now() + if waits { REST } else { Duration::ZERO };
        Ok(Refusal { error, waits, until })
    }

    /// What still comes after a refusal belongs to the answer. If the connection ends meanwhile the refusal says more than
    /// that.
    async fn rest(&mut self) {
        if !self.refusal.as_ref().is_some_and(|refusal| refusal.waits) {
            return;
        }
        let mut left = CHATTER;
        while let Ok(message) = self.receive().await {
            left -= 1;
            if message.kind == b'Z' {
                self.asked = false;
                break;
            }
            if left == 0 {
                break;
            }
        }
    }

    /// Asks something. `doing` is what errors call it.
    pub(crate) async fn ask(&mut self, doing: &'static str, question: &str) -> Result<(), Error> {
        self.doing = doing;
        if self.asked {
            return Err(self.protocol("the answer to what was asked before was not read to its end"));
        }
        self.asked = true;
        self.notices.clear();
        self.put(Some(b'Q'), |body| {
            body.put_slice(question.as_bytes());
            body.put_u8(0);
        });
        self.flush().await
    }

    /// Reads one result to its end, given its first message where that was read.
    pub(crate) async fn rows(&mut self, first: Option<Message>) -> Result<Vec<Row>, Error> {
        let (mut rows, mut size) = (Vec::new(), 0);
        let mut message = match first {
            Some(message) => message,
            None => self.answered().await?,
        };
        if message.kind != b'T' {
            return Err(self.unexpected(&message, "the head of a result"));
        }
        loop {
            message = self.answered().await?;
            match message.kind {
                b'D' => {
                    size += message.body.len();
                    if rows.len() >= ROWS || size > RESULT {
                        return Err(self.protocol("a result that does not end"));
                    }
                    rows.push(frame::row(message.body).map_err(|wrong| self.wrong(wrong))?);
                }
                b'C' => return Ok(rows),
                _ => return Err(self.unexpected(&message, "a row")),
            }
        }
    }

    /// Says that the answer was read to its end.
    pub(crate) fn done(&mut self) {
        self.asked = false;
    }

    /// Reads what follows the last result.
    pub(crate) async fn ready(&mut self) -> Result<(), Error> {
        let mut left = 8;
        loop {
            let message = self.answered().await?;
            match message.kind {
                b'Z' => {
                    self.asked = false;
                    return Ok(());
                }
                // A command that has results says that it is done once more after them.
                b'C' if left > 0 => left -= 1,
                _ => return Err(self.unexpected(&message, "the end of the answer")),
            }
        }
    }

    /// Asks what has one result, or none, as a command that only changes something.
    pub(crate) async fn query(&mut self, doing: &'static str, question: &str) -> Result<Vec<Row>, Error> {
        self.ask(doing, question).await?;
        let message = self.answered().await?;
        let rows = match message.kind {
            b'T' => self.rows(Some(message)).await?,
            b'C' | b'I' => Vec::new(),
            _ => return Err(self.unexpected(&message, "a result")),
        };
        self.ready().await?;
        Ok(rows)
    }

    /// The row of a result that has one.
    pub(crate) async fn query_one(&mut self, doing: &'static str, question: &str) -> Result<Row, Error> {
        let mut rows = self.query(doing, question).await?;
        match (rows.pop(), rows.is_empty()) {
            (Some(row), true) => Ok(row),
            _ => Err(self.protocol("a result that has not one row")),
        }
    }

    /// A column's text; `None` for null.
    pub(crate) fn text(&self, row: &Row, column: usize) -> Result<Option<String>, Error> {
        let Some(value) = row.get(column) else {
            return Err(self.protocol("a row with fewer columns than it should have"));
        };
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec());
        let text = value.as_ref().map(text).transpose();
        text.map_err(|_| self.protocol("a text that is no UTF-8"))
    }

    /// A column that says something, as what it should be.
    pub(crate) fn value<T: std::str::FromStr<Err = Malformed>>(&self, row: &Row, column: usize) -> Result<T, Error> {
        let text = self.text(row, column)?.unwrap_or_default();
        text.parse().map_err(|source| self.answer(source))
    }

    /// The same for a column that may be null.
    pub(crate) fn optional<T>(&self, row: &Row, column: usize) -> Result<Option<T>, Error>
    where
        T: std::str::FromStr<Err = Malformed>,
    {
        let text = self.text(row, column)?;
        text.map(|text| text.parse().map_err(|source| self.answer(source)))
            .transpose()
    }

    pub(crate) fn protocol(&self, what: &str) -> Error {
        Error::Protocol {
            at: self.at.clone(),
            doing: self.doing,
            what: what.to_owned(),
        }
    }

    pub(crate) fn unexpected(&self, message: &Message, wanted: &str) -> Error {
        self.protocol(&format!(
            "a message {:?} where {wanted} belongs",
            char::from(message.kind)
        ))
    }

    pub(crate) fn wrong(&self, wrong: Wrong) -> Error {
        self.protocol(&wrong.0)
    }

    pub(crate) fn answer(&self, source: Malformed) -> Error {
        let at = self.at.clone();
        Error::Answer { at, source }
    }

    pub(crate) fn broken(&self, source: io::Error) -> Error {
        Error::Broken {
            at: self.at.clone(),
            doing: self.doing,
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = (body.len() as u32 + 4).to_be_bytes();
        [&[kind][..], &length, body].concat()
    }

    /// Whoever waits for several things at once drops one wait for another at any time.
    #[tokio::test]
    async fn a_refusal_outlives_who_waited_for_its_end() {
        let (client, mut server) = tokio::io::duplex(4096);
        let mut wire = Wire::new(Box::new(client), "here".to_owned());
        wire.ask("the test", "a question").await.unwrap();
        let error = b"SERROR\0VERROR\0C58P01\0Mit was removed\0\0";
        server.write_all(&message(b'E', error)).await.unwrap();
        for _ in 0..2 {
            tokio::select! {
                biased;
                early = wire.answered() => panic!("{early:?}"),
                () = std::future::ready(()) => {}
            }
        }
        server.write_all(&message(b'Z', b"I")).await.unwrap();
        let error = wire.answered().await.unwrap_err();
        assert!(error.is_removed(), "{error}");
        // The answer is at its end.
        wire.ask("the test", "another question").await.unwrap();
    }
}
