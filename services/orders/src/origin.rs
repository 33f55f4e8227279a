//! Where an order came from: the trace and the correlation id of the request that placed it. It is kept with the order, so
//! that its saga and its events belong to that trace, also when another instance takes them over hours later.

use std::collections::BTreeMap;

use axum::http::HeaderName;
use serde::{Deserialize, Serialize};
use telemetry::propagation::{CORRELATION_ID, TRACEPARENT, TRACESTATE, extract, inject};
use tracing::Span;

/// What is kept. Baggage stays behind: what callers put there is not ours to store.
const KEPT: [HeaderName; 3] = [TRACEPARENT, TRACESTATE, CORRELATION_ID];

/// The headers by which a trace goes on. Empty for orders of which nothing is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Origin(BTreeMap<String, String>);

impl Origin {
    /// The span in which this is called.
    pub fn current() -> Self {
        let mut headers = BTreeMap::new();
        inject(&mut headers);
        headers.retain(|name, _: &mut String| KEPT.iter().any(|kept| kept.as_str() == name));
        Self(headers)
    }

    /// Makes a span that goes on with the trace. `make` says `parent: None`: the request that placed the order is answered
    /// by now, or soon, and its span must not wait for this one.
    pub fn span(&self, make: impl FnOnce() -> Span) -> Span {
        if self.0.is_empty() {
            make()
        } else {
            extract(&self.0).scope(make)
        }
    }

    /// As in the database; `None` when nothing is known.
    pub fn to_json(&self) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        serde_json::to_string(self).ok()
    }

    /// From the database. What cannot be read is as good as unknown: no order waits for its trace.
    pub fn from_json(text: Option<&str>) -> Self {
        text.and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::Origin;

    #[test]
    fn what_is_stored_comes_back_and_what_is_damaged_is_unknown() {
        let origin = Origin([("traceparent".to_owned(), "00-x".to_owned())].into());
        assert_eq!(Origin::from_json(origin.to_json().as_deref()), origin);
        assert_eq!(Origin::default().to_json(), None);
        for text in [None, Some(""), Some("[1]"), Some("{\"a\":1}")] {
            assert_eq!(Origin::from_json(text), Origin::default(), "{text:?}");
        }
    }
}
