//! Events: what may be published, and what each is turned into. Pure: nothing is stored, sent or timed here.

use std::time::Duration;

use chassis::request::Invalid;
use jiff::Timestamp;
use serde::Deserialize;
use uuid::Uuid;

/// The longest payload, in bytes.
pub const MAX_PAYLOAD: usize = 64 << 10;
/// The version of every type's payload that this build understands.
pub const VERSION: u32 = 1;

/// A checked event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The same id is the same event.
    pub id: Uuid,
    /// What happened, such as `order.paid`.
    pub kind: String,
    /// Version of the payload's shape, from 1.
    pub version: u32,
    /// What it happened to.
    pub subject: String,
    /// Who says so.
    pub source: String,
    /// When it happened.
    pub occurred_at: Timestamp,
    /// JSON, at most [`MAX_PAYLOAD`] bytes.
    pub payload: Vec<u8>,
}

impl Event {
    /// Checks the fields. That the payload is JSON is not asked here: one that is not becomes a dead letter, so that it
    /// is not lost.
    pub fn check(self) -> Result<Self, Invalid> {
        let word = |text: &str| {
            (1..=64).contains(&text.len())
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        let wrong = |field, expected| Err(Invalid::new(field, expected));
        if !word(&self.kind) {
            return wrong("type", "1 to 64 of A-Z a-z 0-9 . _ -");
        }
        if self.version == 0 {
            return wrong("version", "at least 1");
        }
        if !(1..=128).contains(&self.subject.chars().count()) || self.subject.chars().any(char::is_control) {
            return wrong("subject", "1 to 128 characters, none of them a control character");
        }
        if !word(&self.source) {
            return wrong("source", "1 to 64 of A-Z a-z 0-9 . _ -");
        }
        if self.payload.len() > MAX_PAYLOAD {
            return wrong("payload", "at most 65536 bytes");
        }
        Ok(self)
    }

    /// True when `other` says the same under the same id.
    pub fn is_same(&self, other: &Self) -> bool {
        self.id == other.id
            && self.kind == other.kind
            && self.version == other.version
            && self.subject == other.subject
            && self.source == other.source
            && self.payload == other.payload
    }
}

/// Why an event cannot take effect until somebody does something about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Nobody knows its type.
    UnknownType,
    /// Its payload has a newer shape than this build understands.
    UnsupportedVersion,
    /// Its payload is not what its type and version say.
    BadPayload,
    /// It failed as often as it may.
    AttemptsExhausted,
}

impl Reason {
    /// The word for machines, as stored and sent.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownType => "unknown_type",
            Self::UnsupportedVersion => "unsupported_version",
            Self::BadPayload => "bad_payload",
            Self::AttemptsExhausted => "attempts_exhausted",
        }
    }
}

/// Why one attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Another attempt may succeed. The text says what went wrong.
    Passing(String),
    /// No attempt will. The text says what is wrong.
    Lasting(Reason, String),
}

/// Turns an event into what the customer is told.
///
/// It runs within the transaction that stores the effect, so it neither waits nor does anything that lasts.
pub trait Handler: Send + Sync + 'static {
    /// The text, or why there is none.
    fn handle(&self, event: &Event) -> Result<String, Failure>;
}

/// The texts of this service.
#[derive(Debug, Clone, Copy, Default)]
pub struct Texts;

impl Handler for Texts {
    fn handle(&self, event: &Event) -> Result<String, Failure> {
        render(event)
    }
}

/// Fields of the payloads of version 1 that are used; others are left alone, so that publishers may add some.
#[derive(Debug, Deserialize)]
struct Payload {
    #[serde(default)]
    total_cents: Option<i64>,
    #[serde(default)]
    currency: Option<String>,
}

/// The text for `event`. The same event always gives the same.
pub fn render(event: &Event) -> Result<String, Failure> {
    let what = match event.kind.as_str() {
        "order.created" => "has been received",
        "order.paid" => "has been paid",
        "order.delivered" => "has been delivered",
        "order.cancelled" => "has been cancelled",
        "order.refunded" => "has been refunded",
        "order.failed" => "could not be paid",
        other => return Err(Failure::Lasting(Reason::UnknownType, format!("type {other}"))),
    };
    if event.version > VERSION {
        let detail = format!(
            "version {} of {}; this build understands {VERSION}",
            event.version, event.kind
        );
        return Err(Failure::Lasting(Reason::UnsupportedVersion, detail));
    }
    // By way of a map: serde would take an array for a struct as well.
    let payload: Payload = serde_json::from_slice::<serde_json::Map<_, _>>(&event.payload)
        .and_then(|fields| serde_json::from_value(fields.into()))
        .map_err(|error| Failure::Lasting(Reason::BadPayload, error.to_string()))?;
    let amount = match (payload.total_cents, payload.currency) {
        (Some(cents), Some(currency)) if cents >= 0 => format!(" ({}.{:02} {currency})", cents / 100, cents % 100),
        _ => String::new(),
    };
    Ok(format!("Your order {}{amount} {what}.", event.subject))
}

/// How often, and how far apart, an event is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Attempts before an event becomes a dead letter.
    pub attempts: u32,
    /// Wait after the first failure; doubles with each.
    pub base: Duration,
    /// The longest wait.
    pub cap: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 8,
            base: Duration::from_millis(200),
            cap: Duration::from_secs(30),
        }
    }
}

impl Retry {
    /// The wait after failure number `failures` (from 1), or `None` when that was the last attempt.
    ///
    /// No jitter: attempts are local and follow each other, nothing is there to be stampeded.
    pub fn wait(&self, failures: u32) -> Option<Duration> {
        (failures < self.attempts).then(|| {
            let factor = 1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
            self.base.saturating_mul(factor).min(self.cap)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, version: u32, payload: &str) -> Event {
        Event {
            id: Uuid::nil(),
            kind: kind.into(),
            version,
            subject: "o-1".into(),
            source: "orders".into(),
            occurred_at: Timestamp::UNIX_EPOCH,
            payload: payload.into(),
        }
    }

    #[test]
    fn every_known_type_has_its_text() {
        let texts: Vec<_> = ["created", "paid", "delivered", "cancelled", "refunded", "failed"]
            .map(|name| render(&event(&format!("order.{name}"), 1, "{}")).unwrap())
            .into();
        for (index, text) in texts.iter().enumerate() {
            assert!(text.contains("o-1"), "{text}");
            assert!(!texts[..index].contains(text), "{text} stands for two types");
        }
        let with_amount = r#"{"total_cents": 1205, "currency": "EUR", "added_later": [1]}"#;
        assert_eq!(
            render(&event("order.paid", 1, with_amount)).unwrap(),
            "Your order o-1 (12.05 EUR) has been paid."
        );
    }

    #[test]
    fn what_cannot_be_understood_has_its_reason() {
        for (event, reason) in [
            (event("order.eaten", 1, "{}"), Reason::UnknownType),
            (event("order.paid", 2, "{}"), Reason::UnsupportedVersion),
            (event("order.paid", 1, "{"), Reason::BadPayload),
            (event("order.paid", 1, "[1]"), Reason::BadPayload),
            (event("order.paid", 1, r#"{"total_cents": "many"}"#), Reason::BadPayload),
            (event("order.paid", 1, &"[".repeat(60_000)), Reason::BadPayload),
        ] {
            match render(&event) {
                Err(Failure::Lasting(found, _)) => assert_eq!(found, reason),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn each_field_out_of_range_is_named() {
        let good = event("order.paid", 1, "{}");
        good.clone().check().unwrap();
        for (wrong, field) in [
            (
                Event {
                    kind: String::new(),
                    ..good.clone()
                },
                "type",
            ),
            (
                Event {
                    kind: "order paid".into(),
                    ..good.clone()
                },
                "type",
            ),
            (
                Event {
                    version: 0,
                    ..good.clone()
                },
                "version",
            ),
            (
                Event {
                    subject: String::new(),
                    ..good.clone()
                },
                "subject",
            ),
            (
                Event {
                    subject: "a\r\nb".into(),
                    ..good.clone()
                },
                "subject",
            ),
            (
                Event {
                    subject: "é".repeat(129),
                    ..good.clone()
                },
                "subject",
            ),
            (
                Event {
                    source: "x".repeat(65),
                    ..good.clone()
                },
                "source",
            ),
            (
                Event {
                    payload: vec![b' '; MAX_PAYLOAD + 1],
                    ..good.clone()
                },
                "payload",
            ),
        ] {
            assert_eq!(wrong.check().unwrap_err().field, field);
        }
        Event {
            subject: "é".repeat(128),
            payload: vec![b' '; MAX_PAYLOAD],
            ..good
        }
        .check()
        .unwrap();
    }

    #[test]
    fn waits_double_up_to_their_cap_and_end() {
        let retry = Retry {
            attempts: 5,
            base: Duration::from_millis(100),
            cap: Duration::from_millis(350),
        };
        let waits: Vec<_> = (1..=6)
            .map(|failures| retry.wait(failures).map(|wait| wait.as_millis()))
            .collect();
        assert_eq!(waits, [Some(100), Some(200), Some(350), Some(350), None, None]);
        let endless = Retry {
            attempts: u32::MAX,
            ..retry
        };
        assert_eq!(endless.wait(1_000_000), Some(Duration::from_millis(350)));
    }
}
