//! Reading: an answer that is cut in the middle goes on where it ended, for as long as each attempt brings something.

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use bytes::{Bytes, BytesMut};
use tokio::sync::Mutex;

use super::S3Store;
use super::attempt::Watch;
use super::failure::{Failed, Kind};
use crate::store::StoreKey;

/// No answer makes us set more memory aside at once.
const RESERVED_AT_MOST: u64 = 64 << 20;
/// Attempts that brought less are not worth going on.
const WORTH_GOING_ON: u64 = 64 << 10;

/// What is wanted of an object, and how much of it is there.
struct Partial {
    offset: u64,
    /// How many bytes there are from `offset` on; unknown until the service said it.
    length: Option<u64>,
    /// Which state of the object the bytes are of.
    etag: Option<String>,
    bytes: BytesMut,
}

impl Partial {
    fn new(offset: u64, length: Option<u64>) -> Self {
        Self {
            offset,
            length,
            etag: None,
            bytes: BytesMut::new(),
        }
    }

    fn got(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// What to ask for: none means the whole object.
    fn range(&self) -> Option<String> {
        let start = self.offset + self.got();
        match self.length {
            Some(length) => Some(format!("bytes={start}-{}", (self.offset + length).saturating_sub(1))),
            None if start == 0 => None,
            None => Some(format!("bytes={start}-")),
        }
    }

    fn is_whole(&self) -> bool {
        self.length.is_some_and(|length| self.got() >= length)
    }
}

impl S3Store {
    pub(super) async fn read_whole(&self, key: &StoreKey) -> Result<Bytes, Failed> {
        self.read(key, Partial::new(0, None)).await
    }

    pub(super) async fn read_range(&self, key: &StoreKey, offset: u64, length: u64) -> Result<Bytes, Failed> {
        if length == 0 || offset.checked_add(length).is_none() {
            self.head(key).await?;
            return Ok(Bytes::new());
        }
        match self.read(key, Partial::new(offset, Some(length))).await {
            // The object is there, and ends before.
            Err(failed) if failed.kind == Kind::BeyondEnd => Ok(Bytes::new()),
            read => read,
        }
    }

    async fn read(&self, key: &StoreKey, partial: Partial) -> Result<Bytes, Failed> {
        let partial = Mutex::new(partial);
        loop {
            let before = partial.lock().await.got();
            let outcome = self.attempt(|| self.read_on(key, &partial)).await;
            match outcome {
                Ok(()) => return Ok(partial.into_inner().bytes.freeze()),
                Err(failed) if failed.leaves_doubt() && partial.lock().await.got() >= before + WORTH_GOING_ON => {}
                Err(failed) => return Err(failed),
            }
        }
    }

    /// One attempt at what is missing.
    async fn read_on(&self, key: &StoreKey, partial: &Mutex<Partial>) -> Result<(), Failed> {
        let mut partial = partial.lock().await;
        if partial.is_whole() {
            return Ok(());
        }
        let link = self.link().await?;
        let watch = self.watch();
        let request = link
            .client
            .get_object()
            .bucket(self.bucket())
            .key(self.name(key.as_str()))
            .set_range(partial.range())
            .set_if_match(partial.etag.clone());
        let answer = watch
            .sent(&link, request.customize().interceptor(watch.clone()).send())
            .await;
        let answer = match answer {
            // It is another object by now: from the start.
            Err(failed) if failed.kind == Kind::Exists && partial.etag.is_some() => {
                partial.bytes.clear();
                partial.etag = None;
                return Err(Failed::new(Kind::Passing, "the object was replaced while it was read"));
            }
            answer => answer?,
        };
        partial.accept(&answer)?;
        partial.fill(answer, &watch).await
    }
}

impl Partial {
    /// Makes sure that the answer goes on where the bytes end.
    fn accept(&mut self, answer: &GetObjectOutput) -> Result<(), Failed> {
        let wrong = |said: &str| Err(Failed::new(Kind::Other, said));
        let length = answer.content_length().and_then(|length| u64::try_from(length).ok());
        let asked = self.range().is_some();
        match (asked, answer.content_range()) {
            (true, Some(range)) => {
                let Some((start, total)) = parse_range(range) else {
                    return wrong("the service answers with a range that makes no sense");
                };
                if start != self.offset + self.got() {
                    return wrong("the service answers with another range than it was asked for");
                }
                // The end of the object may come before that of the range.
                if let (Some(total), Some(length)) = (total, self.length) {
                    self.length = Some(length.min(total.saturating_sub(self.offset)));
                } else if let Some(total) = total {
                    self.length = Some(total.saturating_sub(self.offset));
                }
            }
            // It knows no ranges and sends all.
            (true, None) if self.offset == 0 && self.etag.is_some() => {
                self.bytes.clear();
                self.length = length;
            }
            (true, None) => return wrong("the service does not answer with the range that it was asked for"),
            (false, _) => self.length = length,
        }
        self.etag = answer.e_tag().map(str::to_owned);
        let missing = self.length.unwrap_or(0).saturating_sub(self.got());
        let reserved = missing.min(RESERVED_AT_MOST);
        self.bytes.reserve(usize::try_from(reserved).unwrap_or(0));
        Ok(())
    }

    async fn fill(&mut self, answer: GetObjectOutput, watch: &Watch) -> Result<(), Failed> {
        let mut body = answer.body;
        loop {
            match watch.over(body.next()).await? {
                Some(Ok(piece)) => self.bytes.extend_from_slice(&piece),
                Some(Err(error)) => return Err(Failed::new(Kind::Passing, super::failure::chain(&error))),
                None => break,
            }
            if self.length.is_some_and(|length| self.got() > length) {
                self.bytes.clear();
                return Err(Failed::new(Kind::Other, "the service sends more than it said"));
            }
        }
        if self.length.is_some() && !self.is_whole() {
            return Err(Failed::new(Kind::Passing, "the answer ended too soon"));
        }
        Ok(())
    }
}

/// Start and length of the whole from `bytes 5-9/100`.
fn parse_range(range: &str) -> Option<(u64, Option<u64>)> {
    let (bytes, total) = range.strip_prefix("bytes ")?.split_once('/')?;
    let start = bytes.split_once('-')?.0.parse().ok()?;
    Some((start, total.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_asked_for() {
        let mut whole = Partial::new(0, None);
        assert_eq!(whole.range(), None);
        whole.bytes.extend_from_slice(b"abc");
        assert_eq!(whole.range().unwrap(), "bytes=3-");
        let mut part = Partial::new(10, Some(5));
        assert_eq!(part.range().unwrap(), "bytes=10-14");
        part.bytes.extend_from_slice(b"abc");
        assert_eq!(part.range().unwrap(), "bytes=13-14");
        assert!(!part.is_whole());
        part.bytes.extend_from_slice(b"de");
        assert!(part.is_whole());
    }

    #[test]
    fn ranges_of_answers_are_read_or_refused() {
        assert_eq!(parse_range("bytes 5-9/100"), Some((5, Some(100))));
        assert_eq!(parse_range("bytes 5-9/*"), Some((5, None)));
        for odd in ["", "bytes", "bytes */100", "bytes a-b/c", "5-9/100"] {
            assert_eq!(parse_range(odd), None, "{odd}");
        }
    }
}
