//! One connection of a client: requests to the server and answers back, one after the other. What goes wrong on the way is
//! decided by [`FaultProxy`](super::FaultProxy).

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep_until},
};

use super::{Answer, Fault, Limits, Request};

/// No head of a request or an answer is larger.
const HEAD: usize = 64 * 1024;
/// What is passed on at once.
const PIECE: usize = 16 * 1024;

/// A client's connection, and the server's that belongs to it.
pub(super) struct Exchange {
    client: Side,
    upstream: SocketAddr,
    server: Option<Side>,
}

/// One connection with what was read of it and not used.
struct Side {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
    UntilClosed,
}

/// When the next piece may go.
struct Pace {
    rate: Option<u64>,
    due: Instant,
}

impl Pace {
    fn new(rate: Option<u64>) -> Self {
        let due = Instant::now();
        Self { rate, due }
    }

    async fn wait(&mut self, length: usize) {
        let Some(rate) = self.rate else { return };
        self.due += Duration::from_secs_f64(length as f64 / rate.max(1) as f64);
        sleep_until(self.due).await;
    }
}

impl Side {
    fn new(stream: TcpStream) -> Self {
        let buffer = Vec::new();
        Self { stream, buffer }
    }

    /// Reads more; false at the end.
    async fn fill(&mut self) -> io::Result<bool> {
        self.buffer.reserve(PIECE);
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }

    /// The bytes of a head with its empty line, or none at the end of the connection.
    async fn head(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                return Ok(Some(self.buffer.drain(..end + 4).collect()));
            }
            if self.buffer.len() > HEAD {
                return Err(broken("a head without an end"));
            }
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }

    async fn line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|bytes| bytes == b"\r\n") {
                return Ok(self.buffer.drain(..end + 2).collect());
            }
            if self.buffer.len() > HEAD || !self.fill().await? {
                return Err(broken("a line without an end"));
            }
        }
    }

    /// Up to `most` bytes that are there, after waiting for one; none at the end of the connection.
    async fn piece(&mut self, most: u64) -> io::Result<Vec<u8>> {
        if self.buffer.is_empty() {
            self.fill().await?;
        }
        let length = usize::try_from(most)
            .unwrap_or(usize::MAX)
            .min(self.buffer.len())
            .min(PIECE);
        // Not by way of an iterator, which is slow where nothing is optimised.
        let piece = self.buffer[..length].to_vec();
        self.buffer.drain(..length);
        Ok(piece)
    }
}

impl Framing {
    /// The next piece of a body and what is left of it; none at its end.
    async fn next(&mut self, side: &mut Side) -> io::Result<Option<Vec<u8>>> {
        match self {
            Self::Length(0) => Ok(None),
            Self::Length(left) => {
                let piece = side.piece(*left).await?;
                if piece.is_empty() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                *left -= piece.len() as u64;
                Ok(Some(piece))
            }
            Self::UntilClosed => {
                let piece = side.piece(u64::MAX).await?;
                Ok((!piece.is_empty()).then_some(piece))
            }
            Self::Chunked => {
                let line = side.line().await?;
                let text = String::from_utf8_lossy(&line);
                let digits = text.split(';').next().unwrap_or_default().trim();
                let length = u64::from_str_radix(digits, 16).map_err(|_| broken("a chunk without a length"))?;
                if length == 0 {
                    while side.line().await? != b"\r\n" {}
                    return Ok(None);
                }
                let mut chunk = Vec::new();
                while (chunk.len() as u64) < length {
                    let piece = side.piece(length - chunk.len() as u64).await?;
                    if piece.is_empty() {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    chunk.extend(piece);
                }
                side.line().await?;
                Ok(Some(chunk))
            }
        }
    }
}

impl Exchange {
    pub(super) fn new(client: TcpStream, upstream: SocketAddr) -> Self {
        let client = Side::new(client);
        Self {
            client,
            upstream,
            server: None,
        }
    }

    /// One request and its answer; false when the connection is over.
    pub(super) async fn next(
        &mut self,
        limits: impl Fn() -> Limits,
        decide: impl FnOnce(&Request) -> Option<Fault>,
    ) -> io::Result<bool> {
        let Some(head) = self.client.head().await? else {
            return Ok(false);
        };
        let request = parse_request(&head)?;
        let fault = decide(&request);
        let Limits {
            latency,
            bytes_per_second,
        } = limits();
        sleep_until(Instant::now() + latency).await;
        if request.header("expect").is_some() {
            self.client.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let mut body = Framing::Length(request.length);
        let mut pace = Pace::new(bytes_per_second);
        if let Some(Fault::Instead(_) | Fault::Silence) = &fault {
            while let Some(piece) = body.next(&mut self.client).await? {
                pace.wait(piece.len()).await;
            }
            let Some(Fault::Instead(answer)) = &fault else {
                return std::future::pending().await;
            };
            self.answer(answer, &request.method).await?;
            return Ok(true);
        }
        // A server may close a connection that is idle: each fresh request may need a new one.
        if self.server.as_ref().is_none_or(|server| is_closed(&server.stream)) {
            let stream = TcpStream::connect(self.upstream).await?;
            stream.set_nodelay(true)?;
            self.server = Some(Side::new(stream));
        }
        let Self { client, server, .. } = self;
        let Some(server) = server else { return Ok(false) };
        server.stream.write_all(&head).await?;
        let mut passed = 0;
        while let Some(piece) = body.next(client).await? {
            if let Some(Fault::RequestCut(after)) = fault
                && passed + piece.len() as u64 > after
            {
                let length = usize::try_from(after - passed).unwrap_or(piece.len());
                server.stream.write_all(&piece[..length]).await?;
                return Ok(false);
            }
            passed += piece.len() as u64;
            pace.wait(piece.len()).await;
            server.stream.write_all(&piece).await?;
        }
        if let Some(Fault::RequestCut(_)) = fault {
            return Ok(false);
        }
        let (head, answer, framing) = loop {
            let head = server.head().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let (answer, framing) = parse_answer(&head, &request.method)?;
            if answer.status >= 200 {
                break (head, answer, framing);
            }
        };
        match fault {
            Some(Fault::AnswerLost) => {
                whole(server, framing).await?;
                Ok(false)
            }
            Some(Fault::Edited(edit)) => {
                let body = whole(server, framing).await?;
                let answer = edit(Answer { body, ..answer });
                self.answer(&answer, &request.method).await?;
                Ok(framing != Framing::UntilClosed)
            }
            fault => {
                let cut = match fault {
                    Some(Fault::AnswerCut(after)) => Some(after),
                    _ => None,
                };
                client.stream.write_all(&head).await?;
                relay(server, client, framing, Pace::new(bytes_per_second), cut).await
            }
        }
    }

    /// Writes a whole answer.
    async fn answer(&mut self, answer: &Answer, method: &str) -> io::Result<()> {
        let mut text = format!("HTTP/1.1 {} -\r\n", answer.status);
        for (name, value) in &answer.headers {
            text.extend([name.as_str(), ": ", value.as_str(), "\r\n"]);
        }
        // The answer to HEAD tells the length of a body that it does not have.
        if !answer.headers.iter().any(|(name, _)| name == "content-length") {
            text.extend(["content-length: ", &answer.body.len().to_string(), "\r\n"]);
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        if method != "HEAD" {
            bytes.extend(&answer.body);
        }
        self.client.stream.write_all(&bytes).await
    }
}

/// Passes an answer's body on, perhaps not to its end. Whether the connection can be used again.
async fn relay(
    server: &mut Side,
    client: &mut Side,
    mut framing: Framing,
    mut pace: Pace,
    cut: Option<u64>,
) -> io::Result<bool> {
    let mut passed = 0;
    while let Some(mut piece) = framing.next(server).await? {
        let end = cut.filter(|after| passed + piece.len() as u64 > *after);
        if let Some(after) = end {
            piece.truncate(usize::try_from(after - passed).unwrap_or(usize::MAX));
        }
        passed += piece.len() as u64;
        pace.wait(piece.len()).await;
        if framing == Framing::Chunked {
            let head = format!("{:x}\r\n", piece.len());
            piece = [head.as_bytes(), &piece, b"\r\n"].concat();
        }
        client.stream.write_all(&piece).await?;
        if end.is_some() {
            return Ok(false);
        }
    }
    if framing == Framing::Chunked {
        client.stream.write_all(b"0\r\n\r\n").await?;
    }
    Ok(cut.is_none() && framing != Framing::UntilClosed)
}

async fn whole(server: &mut Side, mut framing: Framing) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(piece) = framing.next(server).await? {
        body.extend(piece);
    }
    Ok(body)
}

/// Whether the server closed an idle connection.
fn is_closed(stream: &TcpStream) -> bool {
    let mut byte = [0];
    !matches!(stream.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

fn parse_request(head: &[u8]) -> io::Result<Request> {
    let mut headers = [httparse::EMPTY_HEADER; 128];
    let mut parsed = httparse::Request::new(&mut headers);
    parsed.parse(head).map_err(|_| broken("no request of HTTP/1.1"))?;
    let headers = told(parsed.headers);
    let value = |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value);
    if value("transfer-encoding").is_some() {
        return Err(broken("a request without a length"));
    }
    let length = value("content-length").map_or(Ok(0), |length| length.parse());
    Ok(Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: parsed.path.unwrap_or_default().to_owned(),
        length: length.map_err(|_| broken("a request of no length"))?,
        headers,
    })
}

fn parse_answer(head: &[u8], method: &str) -> io::Result<(Answer, Framing)> {
    let mut headers = [httparse::EMPTY_HEADER; 128];
    let mut parsed = httparse::Response::new(&mut headers);
    parsed.parse(head).map_err(|_| broken("no answer of HTTP/1.1"))?;
    let status = parsed.code.unwrap_or_default();
    let mut headers = told(parsed.headers);
    let value = |name: &str| {
        headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.clone())
    };
    let framing = if method == "HEAD" || status < 200 || status == 204 || status == 304 {
        Framing::Length(0)
    } else if value("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        Framing::Chunked
    } else if let Some(length) = value("content-length") {
        Framing::Length(length.parse().map_err(|_| broken("an answer of no length"))?)
    } else {
        Framing::UntilClosed
    };
    let bodiless = method == "HEAD";
    headers.retain(|(name, _)| {
        name != "transfer-encoding" && name != "connection" && (bodiless || name != "content-length")
    });
    let body = Vec::new();
    Ok((Answer { status, headers, body }, framing))
}

fn told(headers: &[httparse::Header<'_>]) -> Vec<(String, String)> {
    let told = headers.iter().map(|header| {
        let value = String::from_utf8_lossy(header.value).into_owned();
        (header.name.to_ascii_lowercase(), value)
    });
    told.collect()
}

fn broken(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
