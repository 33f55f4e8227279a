//! Why Loki refuses lines: what can be read from the text of its answers (`pkg/validation/validate.go` and
//! `pkg/ingester/stream.go` of Loki 3). A text that says nothing known is no error: lines are then found by halving.

use crate::report::RejectReason;
use crate::sink::queue::Severity;

use super::labels::LEVELS;

/// The rules that a push broke.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Causes {
    /// Longer lines are refused. Bytes.
    pub(crate) longest_line: Option<usize>,
    /// Lines before that are refused in every stream. Nanoseconds since 1970.
    pub(crate) oldest: Option<i64>,
    /// Lines before that are refused in the stream of this level, which has much newer ones.
    pub(crate) too_far_behind: Option<(Severity, i64)>,
    /// The line as such is at fault for its time.
    times: bool,
}

impl Causes {
    /// Reads an answer.
    pub(crate) fn read(text: &str) -> Self {
        Self {
            longest_line: after(text, "max entry size '")
                .and_then(|rest| rest.split('\'').next())
                .and_then(|digits| digits.parse().ok()),
            oldest: after(text, "has timestamp too old").and_then(oldest_acceptable),
            too_far_behind: after(text, "entry too far behind").and_then(|rest| {
                let oldest = oldest_acceptable(rest)?;
                let stream = after(rest, "for stream: ")?;
                let level = after(stream, "level=\"")?.split('"').next()?;
                let (level, _) = LEVELS.iter().find(|(_, known)| *known == level)?;
                Some((*level, oldest))
            }),
            times: ["timestamp too old", "too far behind", "out of order"]
                .iter()
                .any(|words| text.contains(words)),
        }
    }

    /// The reason for a line that was refused alone.
    pub(crate) const fn reason(&self) -> RejectReason {
        if self.times {
            RejectReason::TooOld
        } else {
            RejectReason::BadRequest
        }
    }
}

/// Whether the settings are to blame and not a line: every push would be refused.
pub(crate) fn blames_the_settings(text: &str) -> bool {
    [
        "error parsing labels",
        "couldn't parse labels",
        "at least one label pair is required",
        "missing required labels",
        "label names; limit",
        "label name too long",
        "label value too long",
        "duplicate label name",
        "error getting tenant id",
        // A server or a proxy with TLS, and an address without.
        "HTTP request to an HTTPS server",
        "HTTP request was sent to HTTPS port",
    ]
    .iter()
    .any(|words| text.contains(words))
}

/// Whether Loki would take the same lines without structured metadata: it is older than version 3, or does not allow it.
pub(crate) fn wants_no_metadata(text: &str) -> bool {
    text.contains("includes structured metadata, but this feature is disallowed")
}

/// Loki cuts off the fraction: what is before the full second is refused for certain.
fn oldest_acceptable(text: &str) -> Option<i64> {
    let time = after(text, "oldest acceptable timestamp is: ")?;
    let end = time
        .find(|letter: char| !letter.is_ascii_alphanumeric() && !matches!(letter, '-' | ':' | '+' | '.'))
        .unwrap_or(time.len());
    let time: jiff::Timestamp = time[..end].parse().ok()?;
    time.as_nanosecond().try_into().ok()
}

fn after<'a>(text: &'a str, words: &str) -> Option<&'a str> {
    text.split_once(words).map(|(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    //! Texts as Loki 3.7 sends them.

    use super::*;

    #[test]
    fn limits_are_read_from_what_loki_says() {
        let causes = Causes::read(
            "2 errors like: max entry size '262144' bytes exceeded for stream '{level=\"info\"}' while adding an entry with length '300000' bytes; 1 errors like: entry for stream '{level=\"info\"}' has timestamp too old: 2020-01-01T00:00:00Z, oldest acceptable timestamp is: 1970-01-01T00:00:07Z\n",
        );
        assert_eq!(causes.longest_line, Some(262_144));
        assert_eq!(causes.oldest, Some(7_000_000_000));
        assert_eq!(causes.too_far_behind, None);
    }

    #[test]
    fn a_stream_that_is_ahead_is_named_by_its_level() {
        let text = "entry with timestamp 2026-01-01 10:00:00 +0000 UTC ignored, reason: 'entry too far behind, entry timestamp is: 2026-01-01T10:00:00Z, oldest acceptable timestamp is: 1970-01-01T01:00:09+01:00',\nuser 'fake', total ignored: 1 out of 1 for stream: {env=\"dev\", level=\"warn\", service=\"a\"}";
        let causes = Causes::read(text);
        assert_eq!(causes.too_far_behind, Some((Severity::Warn, 9_000_000_000)));
        assert_eq!((causes.oldest, causes.reason()), (None, RejectReason::TooOld));
    }

    #[test]
    fn other_texts_say_nothing() {
        for text in [
            "",
            "no",
            "max entry size 'x' bytes",
            "max entry size '99999999999999999999999' bytes",
            "has timestamp too old: oldest acceptable timestamp is: ",
            "has timestamp too old: oldest acceptable timestamp is: never",
            "entry too far behind, oldest acceptable timestamp is: 1970-01-01T00:00:07Z, for stream: {level=\"odd\"}",
        ] {
            let causes = Causes::read(text);
            let known = (causes.longest_line, causes.oldest, causes.too_far_behind);
            assert_eq!(known, (None, None, None), "{text}");
        }
        assert!(blames_the_settings("couldn't parse labels: 1:2: parse error"));
        assert!(!blames_the_settings("max entry size '1' bytes exceeded"));
    }
}
