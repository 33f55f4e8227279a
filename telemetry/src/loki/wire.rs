//! Loki's push protocol: the messages (`pkg/push/push.proto` of Loki) and the body of a request. Loki reads protobuf
//! only from a raw snappy block; gzip can stand around that.

use std::io::Write as _;

use bytes::Bytes;
use prost::Message;
use prost_types::Timestamp;

use super::entry::Entry;
use super::labels::Streams;

/// `logproto.PushRequest`. Text is bytes here: the encoding is the same, and lines are not copied.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PushRequest {
    #[prost(message, repeated, tag = "1")]
    pub(crate) streams: Vec<Stream>,
}

/// `logproto.StreamAdapter`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Stream {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) labels: Bytes,
    #[prost(message, repeated, tag = "2")]
    pub(crate) entries: Vec<EntryAdapter>,
}

/// `logproto.EntryAdapter`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct EntryAdapter {
    #[prost(message, required, tag = "1")]
    pub(crate) timestamp: Timestamp,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) line: Bytes,
    #[prost(message, repeated, tag = "3")]
    pub(crate) structured_metadata: Vec<LabelPair>,
}

/// `logproto.LabelPairAdapter`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct LabelPair {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) value: Bytes,
}

/// How a push is made smaller on its way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LokiCompression {
    /// Snappy: cheap, and what Loki's own agents do.
    #[default]
    Snappy,
    /// Gzip around an uncompressed snappy block: about half the bytes for about four times the work.
    Gzip,
}

impl LokiCompression {
    /// The header `Content-Encoding`; Loki wants none for snappy.
    pub(crate) const fn content_encoding(self) -> Option<&'static str> {
        match self {
            Self::Snappy => None,
            Self::Gzip => Some("gzip"),
        }
    }
}

/// Makes bodies of requests, in buffers that stay.
#[derive(Debug)]
pub(crate) struct Encoder {
    streams: Streams,
    compression: LokiCompression,
    /// Trace and span ids beside each line, too.
    structured_metadata: bool,
    plain: Vec<u8>,
    snappy: snap::raw::Encoder,
}

impl Encoder {
    pub(crate) fn new(streams: Streams, compression: LokiCompression, structured_metadata: bool) -> Self {
        Self {
            streams,
            compression,
            structured_metadata,
            plain: Vec::new(),
            snappy: snap::raw::Encoder::new(),
        }
    }

    /// Sends no ids beside lines from now on; whether it did so before.
    pub(crate) const fn leave_out_metadata(&mut self) -> bool {
        let before = self.structured_metadata;
        self.structured_metadata = false;
        before
    }

    /// The body of a push of these entries. Neighbours of one stream share it.
    pub(crate) fn encode(&mut self, entries: &[Entry]) -> Bytes {
        let streams = entries
            .chunk_by(|one, next| one.stream() == next.stream())
            .map(|entries| Stream {
                labels: self.streams.text(entries[0].level, entries[0].late),
                entries: entries.iter().map(|entry| self.adapt(entry)).collect(),
            })
            .collect();
        self.plain.clear();
        // A vector grows: encoding cannot fail.
        let _ = PushRequest { streams }.encode(&mut self.plain);
        match self.compression {
            LokiCompression::Snappy => self.compressed(),
            LokiCompression::Gzip => gzip(&self.plain),
        }
    }

    fn adapt(&self, entry: &Entry) -> EntryAdapter {
        EntryAdapter {
            timestamp: Timestamp {
                seconds: entry.at.div_euclid(1_000_000_000),
                nanos: entry.at.rem_euclid(1_000_000_000) as i32,
            },
            line: entry.line.clone(),
            structured_metadata: if self.structured_metadata {
                ids(&entry.line)
            } else {
                Vec::new()
            },
        }
    }

    fn compressed(&mut self) -> Bytes {
        let mut body = vec![0; snap::raw::max_compress_len(self.plain.len())];
        // It fails only beyond 4 GiB: batches are far below that.
        let length = self.snappy.compress(&self.plain, &mut body).unwrap_or_default();
        body.truncate(length);
        body.into()
    }
}

/// The ids that the log layer wrote into a line. A quote inside a value is escaped, so that the keys are never found
/// there.
fn ids(line: &Bytes) -> Vec<LabelPair> {
    let value = |name: &str, length: usize| {
        let key = format!(",\"{name}\":\"");
        let start = line.windows(key.len()).position(|part| part == key.as_bytes())? + key.len();
        let value = line.get(start..start + length)?;
        value.iter().all(u8::is_ascii_hexdigit).then(|| LabelPair {
            name: name.to_owned(),
            value: line.slice(start..start + length),
        })
    };
    [value("trace_id", 32), value("span_id", 16)]
        .into_iter()
        .flatten()
        .collect()
}

/// Gzip over a snappy block that is stored, not compressed: compressing twice would cost time and gain nothing.
fn gzip(plain: &[u8]) -> Bytes {
    let mut out = flate2::write::GzEncoder::new(Vec::with_capacity(plain.len() / 8), flate2::Compression::fast());
    // Writing into a vector cannot fail.
    let _ = out.write_all(&stored_snappy_header(plain.len()));
    for part in plain.chunks(1 << 16) {
        // A literal of up to 65536 bytes: tag 61, then its length less one in two bytes
        // (https://github.com/google/snappy/blob/main/format_description.txt).
        let length = (part.len() - 1) as u16;
        let _ = out.write_all(&[61 << 2, length.to_le_bytes()[0], length.to_le_bytes()[1]]);
        let _ = out.write_all(part);
    }
    out.finish().unwrap_or_default().into()
}

/// A snappy block begins with its uncompressed length as a varint.
fn stored_snappy_header(length: usize) -> Vec<u8> {
    let mut header = Vec::with_capacity(5);
    prost::encoding::encode_varint(length as u64, &mut header);
    header
}

#[cfg(test)]
mod tests {
    //! What is encoded is decoded by snappy, gzip and prost again.

    use std::collections::BTreeMap;
    use std::io::Read as _;

    use super::*;
    use crate::sink::queue::Severity;

    fn entries() -> Vec<Entry> {
        let entry = |level, at, line: &str| Entry {
            level,
            at,
            line: Bytes::from(line.to_owned()),
            late: false,
        };
        vec![
            entry(Severity::Info, -1, "first"),
            entry(Severity::Info, 1_700_000_000_123_456_789, &"long ".repeat(40_000)),
            entry(Severity::Error, 5, ""),
        ]
    }

    fn plain(compression: LokiCompression, body: &Bytes) -> Vec<u8> {
        let mut block = body.to_vec();
        if compression == LokiCompression::Gzip {
            block.clear();
            flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut block).unwrap();
        }
        snap::raw::Decoder::new().decompress_vec(&block).unwrap()
    }

    #[test]
    fn a_push_survives_both_compressions() {
        let streams = Streams::new(&BTreeMap::new()).unwrap();
        for compression in [LokiCompression::Snappy, LokiCompression::Gzip] {
            let mut encoder = Encoder::new(streams.clone(), compression, false);
            let body = encoder.encode(&entries());
            let request = PushRequest::decode(&plain(compression, &body)[..]).unwrap();
            let labels: Vec<_> = request.streams.iter().map(|stream| &stream.labels[..]).collect();
            assert_eq!(
                labels,
                [b"{level=\"info\"}".as_slice(), b"{level=\"error\"}".as_slice()]
            );
            let [first, second] = &request.streams[0].entries[..] else {
                panic!("two lines are of the first stream")
            };
            assert_eq!((first.timestamp.seconds, first.timestamp.nanos), (-1, 999_999_999));
            assert_eq!(second.timestamp.nanos, 123_456_789);
            assert_eq!(second.line.len(), 200_000);
            assert!(body.len() < 20_000, "{compression:?} makes it smaller: {}", body.len());
        }
    }

    #[test]
    fn ids_are_found_only_where_the_log_layer_put_them() {
        let of = |line: &'static str| ids(&Bytes::from_static(line.as_bytes())).len();
        let trace = "\"trace_id\":\"0123456789abcdef0123456789abcdef\"";
        assert_eq!(
            of(
                "{\"message\":\"x\",\"trace_id\":\"0123456789abcdef0123456789abcdef\",\"span_id\":\"0123456789abcdef\"}"
            ),
            2
        );
        assert_eq!(
            of("{\"message\":\",\\\"trace_id\\\":\\\"0123456789abcdef0123456789abcdef\"}"),
            0
        );
        assert_eq!(of("{\"message\":\"x\",\"trace_id\":\"short"), 0);
        assert_eq!(
            of("{\"message\":\"x\",\"trace_id\":\"not of hexadecimal digits, but 32 long\"}"),
            0
        );
        assert!(
            ids(&Bytes::from(format!("{{\"a\":1,{trace}}}")))[0]
                .value
                .starts_with(b"0123")
        );
    }
}
