//! Which of the two texts a scraper asks for, by its `Accept` header (RFC 9110, section 12.5.1). Whatever it sends, it
//! gets one of them: a scraper that was refused would tell nothing.

use axum::http::{HeaderMap, header};

/// Longest header that is read, in bytes; Prometheus sends about 300.
const LIMIT: usize = 4 * 1024;

/// Whether OpenMetrics 1.0 is wanted, and not less than the classic text.
pub(super) fn wants_openmetrics(headers: &HeaderMap) -> bool {
    let mut openmetrics = 0;
    let mut classic = 0;
    let values = headers.get_all(header::ACCEPT).iter();
    let values = values.filter_map(|value| value.to_str().ok());
    for range in values.filter(|value| value.len() <= LIMIT).flat_map(split) {
        match Asked::of(range) {
            Some(Asked::OpenMetrics(weight)) => openmetrics = openmetrics.max(weight),
            Some(Asked::Classic(weight)) => classic = classic.max(weight),
            None => {}
        }
    }
    openmetrics > 0 && openmetrics >= classic
}

/// One part of the header that speaks of us, with its weight in thousandths.
enum Asked {
    OpenMetrics(u16),
    Classic(u16),
}

impl Asked {
    fn of(range: &str) -> Option<Self> {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next()?;
        let mut weight = 1000;
        let mut version = None;
        for part in parts {
            let (name, value) = part.split_once('=')?;
            let value = value.trim().trim_matches('"');
            if name.trim().eq_ignore_ascii_case("q") {
                weight = thousandths(value)?;
            } else if name.trim().eq_ignore_ascii_case("version") {
                version = Some(value);
            }
        }
        if kind.eq_ignore_ascii_case("application/openmetrics-text") {
            // Version 0.0.1 is older than what we write.
            matches!(version, None | Some("1.0.0")).then_some(Self::OpenMetrics(weight))
        } else if kind.eq_ignore_ascii_case("text/plain") {
            matches!(version, None | Some("0.0.4")).then_some(Self::Classic(weight))
        } else if kind.eq_ignore_ascii_case("text/*") || kind == "*/*" {
            Some(Self::Classic(weight))
        } else {
            None
        }
    }
}

/// A weight as the header has it: `1`, `0.5`, `0.123`.
fn thousandths(text: &str) -> Option<u16> {
    let weight: f32 = text.parse().ok()?;
    (0.0..=1.0)
        .contains(&weight)
        .then_some((weight * 1000.0).round() as u16)
}

/// The parts between commas, of which a quoted one may hold some itself.
fn split(value: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    value.split(move |character| {
        quoted ^= character == '"';
        character == ',' && !quoted
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wants(accept: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        wants_openmetrics(&headers)
    }

    #[test]
    fn what_scrapers_send() {
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, wanted) in [
            (prometheus_3, true),
            ("application/openmetrics-text; version=1.0.0", true),
            ("application/openmetrics-text", true),
            (
                "APPLICATION/OpenMetrics-Text; Version=\"1.0.0\"; Q=0.9, text/plain;q=0.8",
                true,
            ),
            (
                "text/plain;version=0.0.4;q=0.9,application/openmetrics-text;version=1.0.0;q=0.5",
                false,
            ),
            ("application/openmetrics-text;version=1.0.0;q=0", false),
            ("application/openmetrics-text;version=0.0.1", false),
            ("application/openmetrics-text;version=1.0.0;q=seven", false),
            ("application/openmetrics-text-2", false),
            ("application/json", false),
            ("*/*", false),
            ("", false),
            (",,;;=,\"", false),
            ("text/html;a=\",application/openmetrics-text,\"", false),
        ] {
            assert_eq!(wants(accept), wanted, "{accept}");
        }
        assert!(!wants_openmetrics(&HeaderMap::new()));
        assert!(
            !wants(&"application/openmetrics-text,".repeat(500)),
            "too long to be meant"
        );
    }

    proptest! {
        #[test]
        fn no_header_is_too_strange(accept in "[ -~]{0,200}") {
            wants(&accept);
        }

        #[test]
        fn the_heavier_one_wins(openmetrics in 0..=1000_u16, classic in 0..=1000_u16) {
            let weight = |weight: u16| f64::from(weight) / 1000.0;
            let accept = format!(
                "text/plain;q={}, application/openmetrics-text;version=1.0.0;q={}",
                weight(classic),
                weight(openmetrics)
            );
            prop_assert_eq!(wants(&accept), openmetrics > 0 && openmetrics >= classic, "{}", accept);
        }
    }
}
