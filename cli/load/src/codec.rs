//! HTTP/1.1 as a client sees it (RFC 9112): writes a request, reads a response. Pure: bytes in, state out; no I/O, no
//! clock. Response bodies are counted and captured, not decoded.

use http::Method;

use crate::request::Request;

/// The most bytes of one response's head, and of one trailer section.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// The most headers of one response.
const MAX_HEADERS: usize = 128;
/// The longest chunk-size line, extensions included.
const MAX_CHUNK_LINE_BYTES: usize = 4096;
/// The most interim (1xx) responses before the real one.
const MAX_INTERIM: u32 = 16;

/// Appends the request to `out`.
pub(crate) fn encode(request: &Request, authority: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(request.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(request.path.as_str().as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    out.extend_from_slice(authority.as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in &request.headers {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    let bodied = matches!(request.method, Method::POST | Method::PUT | Method::PATCH);
    if bodied || !request.body.is_empty() {
        out.extend_from_slice(b"content-length: ");
        out.extend_from_slice(request.body.len().to_string().as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(&request.body);
}

/// Why bytes are no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DecodeError {
    /// The stream ended before the response did.
    ClosedEarly,
    /// The bytes break the grammar or a limit.
    Malformed(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    Sized { left: u64 },
    ChunkLine,
    Chunk { left: u64 },
    ChunkEnd,
    Trailers { seen: usize },
    UntilClose,
    Done,
}

/// Reads one response. Feed it with [`Decoder::push`] until [`Decoder::is_done`].
#[derive(Debug)]
pub(crate) struct Decoder {
    state: State,
    head_request: bool,
    interim: u32,
    status: u16,
    keep_alive: bool,
    body_bytes: u64,
    capture: usize,
    body: Vec<u8>,
}

impl Decoder {
    /// For the answer to one request; `body` is a buffer to capture up to `capture` bytes in.
    pub(crate) fn new(method: &Method, capture: usize, mut body: Vec<u8>) -> Self {
        body.clear();
        Self {
            state: State::Head,
            head_request: *method == Method::HEAD,
            interim: 0,
            status: 0,
            keep_alive: true,
            body_bytes: 0,
            capture,
            body,
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The status; 0 before the head was read.
    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    /// Whether the connection may carry another request. Only meaningful when done.
    pub(crate) fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    pub(crate) fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }

    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.body
    }

    /// Reads from the front of `bytes` and says how many it used. What is not used must come again, with more bytes
    /// behind it. Stops at the end of the response.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<usize, DecodeError> {
        let mut used = 0;
        loop {
            let rest = &bytes[used..];
            let step = match self.state {
                State::Head => self.head(rest)?,
                State::Sized { left } => {
                    let take = self.take(rest, left);
                    let left = left - take as u64;
                    self.state = if left == 0 { State::Done } else { State::Sized { left } };
                    Some(take)
                }
                State::UntilClose => Some(self.take(rest, u64::MAX)),
                State::ChunkLine => self.chunk_line(rest)?,
                State::Chunk { left } => {
                    let take = self.take(rest, left);
                    let left = left - take as u64;
                    self.state = if left == 0 {
                        State::ChunkEnd
                    } else {
                        State::Chunk { left }
                    };
                    Some(take)
                }
                State::ChunkEnd => match rest {
                    [b'\r', b'\n', ..] => {
                        self.state = State::ChunkLine;
                        Some(2)
                    }
                    [] | [b'\r'] => None,
                    _ => return Err(DecodeError::Malformed("a chunk is longer than it says")),
                },
                State::Trailers { seen } => self.trailer(rest, seen)?,
                State::Done => None,
            };
            match step {
                None => return Ok(used),
                Some(step) => {
                    used += step;
                    let waits = matches!(
                        self.state,
                        State::Sized { .. } | State::Chunk { .. } | State::UntilClose
                    );
                    if waits && used == bytes.len() {
                        return Ok(used);
                    }
                }
            }
        }
    }

    /// The stream has ended: completes a response that is delimited by it.
    pub(crate) fn end(&mut self) -> Result<(), DecodeError> {
        match self.state {
            State::Done => Ok(()),
            State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            _ => Err(DecodeError::ClosedEarly),
        }
    }

    fn take(&mut self, bytes: &[u8], left: u64) -> usize {
        let take = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let room = self.capture.saturating_sub(self.body.len()).min(take);
        self.body.extend_from_slice(&bytes[..room]);
        self.body_bytes += take as u64;
        take
    }

    fn head(&mut self, bytes: &[u8]) -> Result<Option<usize>, DecodeError> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut parsed = httparse::Response::new(&mut headers);
        let size = match parsed.parse(bytes) {
            Ok(httparse::Status::Complete(size)) => size,
            Ok(httparse::Status::Partial) if bytes.len() > MAX_HEAD_BYTES => {
                return Err(DecodeError::Malformed("the response head is longer than 64 KiB"));
            }
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => {
                return Err(DecodeError::Malformed("the response has more than 128 headers"));
            }
            Err(_) => return Err(DecodeError::Malformed("the response head is not HTTP/1.1")),
        };
        let status = parsed.code.unwrap_or(0);
        if (100..200).contains(&status) {
            self.interim += 1;
            if status == 101 {
                return Err(DecodeError::Malformed("the server switched protocols unasked"));
            }
            if self.interim > MAX_INTERIM {
                return Err(DecodeError::Malformed("too many interim responses"));
            }
            return Ok(Some(size));
        }
        if !(200..=999).contains(&status) {
            return Err(DecodeError::Malformed("the status code is out of range"));
        }
        self.status = status;
        self.keep_alive = parsed.version == Some(1);
        let framing = Framing::of(parsed.headers, &mut self.keep_alive)?;
        self.state = if self.head_request || status == 204 || status == 304 {
            State::Done
        } else {
            match framing {
                Framing::Sized(0) => State::Done,
                Framing::Sized(left) => State::Sized { left },
                Framing::Chunked => State::ChunkLine,
                Framing::UntilClose => {
                    self.keep_alive = false;
                    State::UntilClose
                }
            }
        };
        Ok(Some(size))
    }

    fn chunk_line(&mut self, bytes: &[u8]) -> Result<Option<usize>, DecodeError> {
        match httparse::parse_chunk_size(bytes) {
            Ok(httparse::Status::Complete((size, 0))) => {
                self.state = State::Trailers { seen: 0 };
                Ok(Some(size))
            }
            Ok(httparse::Status::Complete((size, left))) => {
                self.state = State::Chunk { left };
                Ok(Some(size))
            }
            Ok(httparse::Status::Partial) if bytes.len() > MAX_CHUNK_LINE_BYTES => {
                Err(DecodeError::Malformed("a chunk-size line is longer than 4 KiB"))
            }
            Ok(httparse::Status::Partial) => Ok(None),
            Err(_) => Err(DecodeError::Malformed("a chunk size is no hexadecimal number")),
        }
    }

    fn trailer(&mut self, bytes: &[u8], seen: usize) -> Result<Option<usize>, DecodeError> {
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
            return if seen + bytes.len() > MAX_HEAD_BYTES {
                Err(DecodeError::Malformed("the trailers are longer than 64 KiB"))
            } else {
                Ok(None)
            };
        };
        let line = &bytes[..=end];
        let seen = seen + line.len();
        if seen > MAX_HEAD_BYTES {
            return Err(DecodeError::Malformed("the trailers are longer than 64 KiB"));
        }
        self.state = match line {
            b"\r\n" | b"\n" => State::Done,
            _ => State::Trailers { seen },
        };
        Ok(Some(line.len()))
    }
}

enum Framing {
    Sized(u64),
    Chunked,
    UntilClose,
}

impl Framing {
    /// RFC 9112 section 6.3, with every ambiguity refused.
    fn of(headers: &[httparse::Header<'_>], keep_alive: &mut bool) -> Result<Self, DecodeError> {
        let mut length: Option<u64> = None;
        let mut chunked: Option<bool> = None;
        for header in headers {
            if header.name.eq_ignore_ascii_case("content-length") {
                let value = std::str::from_utf8(header.value)
                    .ok()
                    .filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
                    .and_then(|text| text.parse().ok())
                    .ok_or(DecodeError::Malformed("the content-length is no number"))?;
                if length.is_some_and(|known| known != value) {
                    return Err(DecodeError::Malformed("two content-lengths differ"));
                }
                length = Some(value);
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                chunked = Some(last_token_is(header.value, b"chunked"));
            } else if header.name.eq_ignore_ascii_case("connection") {
                for token in header.value.split(|byte| *byte == b',') {
                    let token = token.trim_ascii();
                    if token.eq_ignore_ascii_case(b"close") {
                        *keep_alive = false;
                    } else if token.eq_ignore_ascii_case(b"keep-alive") {
                        *keep_alive = true;
                    }
                }
            }
        }
        match (length, chunked) {
            (Some(_), Some(_)) => Err(DecodeError::Malformed("both content-length and transfer-encoding")),
            (_, Some(true)) => Ok(Self::Chunked),
            (_, Some(false)) | (None, None) => Ok(Self::UntilClose),
            (Some(length), None) => Ok(Self::Sized(length)),
        }
    }
}

fn last_token_is(value: &[u8], token: &[u8]) -> bool {
    value
        .rsplit(|byte| *byte == b',')
        .next()
        .is_some_and(|last| last.trim_ascii().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads `bytes` in pieces that end at `cuts`, as a socket would deliver them, then the end of the stream.
    fn read(bytes: &[u8], cuts: &[usize], method: &Method) -> Result<(Decoder, usize), DecodeError> {
        let mut decoder = Decoder::new(method, 1 << 20, Vec::new());
        let (mut used, mut have) = (0, 0);
        for cut in cuts.iter().copied().chain([bytes.len()]) {
            have = have.max(cut.min(bytes.len()));
            used += decoder.push(&bytes[used..have])?;
            if decoder.is_done() {
                return Ok((decoder, used));
            }
        }
        decoder.end()?;
        Ok((decoder, used))
    }

    const CASES: [(&str, u16, &str, bool); 9] = [
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", 200, "hello", true),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nt: v\r\n\r\n",
            200,
            "hello",
            true,
        ),
        ("HTTP/1.1 200 OK\r\n\r\nhello", 200, "hello", false),
        ("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nhi", 200, "hi", false),
        (
            "HTTP/1.0 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\nhi",
            200,
            "hi",
            true,
        ),
        (
            "HTTP/1.1 503 No\r\ncontent-length: 0\r\nConnection: foo, Close\r\n\r\n",
            503,
            "",
            false,
        ),
        ("HTTP/1.1 204 No\r\ncontent-length: 9\r\n\r\n", 204, "", true),
        ("HTTP/1.1 304 No\r\n\r\n", 304, "", true),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx",
            200,
            "x",
            true,
        ),
    ];

    #[test]
    fn responses_are_read_whole_whatever_their_framing() {
        for (text, status, body, keep_alive) in CASES {
            let (decoder, used) = read(text.as_bytes(), &[], &Method::GET).expect(text);
            assert_eq!(decoder.status(), status, "{text}");
            assert_eq!(decoder.body(), body.as_bytes(), "{text}");
            assert_eq!(decoder.keep_alive(), keep_alive, "{text}");
            assert_eq!(used, text.len(), "{text}");
        }
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n";
        let (decoder, used) = read(head, &[], &Method::HEAD).expect("HEAD has no body");
        assert_eq!((decoder.status(), used, decoder.body_bytes()), (200, head.len(), 0));
    }

    #[test]
    fn what_follows_a_response_is_left_alone() {
        let text = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nxHTTP/1.1 500";
        let mut decoder = Decoder::new(&Method::GET, 0, Vec::new());
        assert_eq!(decoder.push(text), Ok(text.len() - "HTTP/1.1 500".len()));
        assert!(decoder.is_done());
    }

    #[test]
    fn ambiguous_and_endless_responses_are_refused() {
        let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n", "a".repeat(70_000));
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(200));
        let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(20);
        let chunk_line = format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;{}",
            "e".repeat(5000)
        );
        for text in [
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
            "HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc",
            "HTTP/1.1 101 Switching\r\n\r\n",
            "SSH-2.0-OpenSSH_9\r\n",
            &long,
            &many,
            &interim,
            &chunk_line,
        ] {
            let shown = &text[..text.len().min(60)];
            let result = read(text.as_bytes(), &[], &Method::GET).map(|(decoder, _)| decoder.status());
            assert!(
                matches!(result, Err(DecodeError::Malformed(_))),
                "{shown:?}: {result:?}"
            );
        }
    }

    #[test]
    fn a_response_that_is_cut_off_is_no_response() {
        for (text, _, _, _) in CASES {
            let whole_needs_end = text == CASES[2].0;
            for cut in 1..text.len() {
                let result = read(&text.as_bytes()[..cut], &[], &Method::GET);
                if whole_needs_end && cut >= text.find("\r\n\r\n").map_or(0, |at| at + 4) {
                    continue;
                }
                assert_eq!(result.map(|_| ()), Err(DecodeError::ClosedEarly), "{cut} of {text:?}");
            }
        }
    }

    #[test]
    fn a_request_is_written_as_asked() {
        let request = Request::post_json("/orders?x=1", "{}")
            .and_then(|r| r.header("X-Id", "7"))
            .expect("valid");
        let mut out = Vec::new();
        encode(&request, "localhost:1", &mut out);
        assert_eq!(
            String::from_utf8_lossy(&out),
            "POST /orders?x=1 HTTP/1.1\r\nhost: localhost:1\r\ncontent-type: application/json\r\nx-id: 7\r\ncontent-length: 2\r\n\r\n{}"
        );
        out.clear();
        encode(&Request::get("/").expect("valid"), "h", &mut out);
        assert_eq!(String::from_utf8_lossy(&out), "GET / HTTP/1.1\r\nhost: h\r\n\r\n");
        assert!(Request::get("/a b").is_err() && Request::get("a").is_err());
        assert!(Request::get("/").expect("valid").header("Host", "x").is_err());
        assert!(Request::get("/").expect("valid").header("x", "a\r\nb: c").is_err());
    }

    proptest! {
        #[test]
        fn the_way_bytes_are_cut_changes_nothing(case in 0..CASES.len(), cuts in prop::collection::vec(0_usize..160, 0..12)) {
            let (text, status, body, keep_alive) = CASES[case];
            let mut cuts = cuts;
            cuts.sort_unstable();
            let (decoder, used) = read(text.as_bytes(), &cuts, &Method::GET).expect("whole");
            prop_assert_eq!(decoder.status(), status);
            prop_assert_eq!(decoder.body(), body.as_bytes());
            prop_assert_eq!(decoder.keep_alive(), keep_alive);
            prop_assert_eq!(used, text.len());
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = read(&bytes, &[], &Method::GET);
            let mut prefixed = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
            prefixed.extend(bytes);
            let _ = read(&prefixed, &[], &Method::GET);
        }
    }
}
