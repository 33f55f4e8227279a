//! What names a request: a trace id, or the correlation id that came with it. Nothing else gets into a query.

use crate::error::Failure;

/// The name of a request. Its text holds no character that means something in LogQL, in a URL or on a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RequestId {
    /// 32 lower-case hexadecimal digits, not all zero (W3C Trace Context).
    Trace(String),
    /// `[A-Za-z0-9._:-]{1,128}`, as `X-Correlation-ID` is taken by our services.
    Correlation(String),
}

/// Longest correlation id.
const LONGEST: usize = 128;

impl RequestId {
    /// A trace id, a whole `traceparent`, or else a correlation id.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let text = text.trim();
        let inner = match text.split('-').collect::<Vec<_>>().as_slice() {
            [version, trace, span, flags] if (version.len(), span.len(), flags.len()) == (2, 16, 2) => *trace,
            _ => text,
        };
        if inner.len() == 32 && inner.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let trace = inner.to_ascii_lowercase();
            if trace.bytes().all(|byte| byte == b'0') {
                return Err(Failure::usage("invalid_id", "a trace id is not all zeros")
                    .help("a request that was not traced has none: look for its X-Correlation-ID"));
            }
            return Ok(Self::Trace(trace));
        }
        if text.is_empty() || text.len() > LONGEST || !text.bytes().all(is_part) {
            return Err(Failure::usage("invalid_id", "this is neither a trace id nor a correlation id").help(
                "a trace id is 32 hexadecimal digits, a correlation id at most 128 letters, digits, `.`, `_`, `:`, `-`",
            ));
        }
        Ok(Self::Correlation(text.to_owned()))
    }

    /// The id alone.
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Trace(text) | Self::Correlation(text) => text,
        }
    }

    /// `trace id` or `correlation id`.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Trace(_) => "trace id",
            Self::Correlation(_) => "correlation id",
        }
    }

    /// Whether a line belongs to the request. Of a JSON line a field must have the id as its value, or be a
    /// `traceparent` of it; of other text it must stand there as a word of its own.
    pub(crate) fn is_in(&self, line: &str) -> bool {
        let id = self.text();
        if !line.contains(id) {
            return false;
        }
        if line.starts_with('{')
            && let Ok(serde_json::Value::Object(fields)) = serde_json::from_str(line)
        {
            return fields.values().any(|value| self.is_value(value));
        }
        line.match_indices(id).any(|(at, _)| {
            let before = line[..at].bytes().next_back();
            let after = line[at + id.len()..].bytes().next();
            match self {
                // Within a traceparent it stands between dashes.
                Self::Trace(_) => ![before, after].iter().flatten().any(u8::is_ascii_alphanumeric),
                Self::Correlation(_) => ![before, after].iter().flatten().any(|byte| is_part(*byte)),
            }
        })
    }

    fn is_value(&self, value: &serde_json::Value) -> bool {
        match value {
            serde_json::Value::String(text) => match self {
                Self::Trace(id) => text == id || text.split('-').nth(1) == Some(id),
                Self::Correlation(id) => text == id,
            },
            serde_json::Value::Object(fields) => fields.values().any(|value| self.is_value(value)),
            _ => false,
        }
    }
}

fn is_part(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-')
}

#[cfg(test)]
mod tests {
    use super::RequestId;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn an_id_is_a_trace_a_correlation_or_refused() {
        let trace = RequestId::Trace(TRACE.to_owned());
        assert_eq!(RequestId::parse(TRACE), Ok(trace.clone()));
        assert_eq!(RequestId::parse(&TRACE.to_uppercase()), Ok(trace.clone()));
        assert_eq!(RequestId::parse(&format!("00-{TRACE}-00f067aa0ba902b7-01")), Ok(trace));
        let uuid = "0198a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b";
        assert_eq!(RequestId::parse(uuid), Ok(RequestId::Correlation(uuid.to_owned())));
        let long = "a".repeat(129);
        for bad in [
            "",
            "a b",
            "a\"}",
            "a`",
            "a\\d+",
            "a|b",
            "é",
            "\u{1b}[2J",
            "a/b",
            &long,
            &"0".repeat(32),
        ] {
            assert!(RequestId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_line_belongs_to_a_request_by_a_whole_value() {
        let id = |text: &str| RequestId::parse(text).expect("an id");
        assert!(id(TRACE).is_in(&format!(r#"{{"trace_id":"{TRACE}","message":"x"}}"#)));
        assert!(id(TRACE).is_in(&format!(
            r#"{{"headers":{{"traceparent":"00-{TRACE}-00f067aa0ba902b7-01"}}}}"#
        )));
        assert!(!id(TRACE).is_in(&format!(r#"{{"message":"{TRACE}{TRACE}"}}"#)));
        assert!(id(TRACE).is_in(&format!("INFO trace={TRACE} paid")));
        assert!(id(TRACE).is_in(&format!("got 00-{TRACE}-00f067aa0ba902b7-01")));
        assert!(!id(TRACE).is_in(&format!("a{TRACE}")));
        assert!(id("a-1").is_in(r#"{"correlation_id":"a-1"}"#));
        assert!(!id("a-1").is_in(r#"{"correlation_id":"a-12"}"#));
        assert!(!id("a").is_in(r#"{"message":"a word"}"#));
        assert!(id("a-1").is_in("correlation a-1, paid"));
        assert!(!id("a-1").is_in("correlation a-1.5, paid"));
    }
}
