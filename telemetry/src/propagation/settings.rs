//! Which forms of context are read and written: `OTEL_PROPAGATORS`. Pure.

use crate::InitError;
use crate::builder::env::Env;

/// The forms that are in use. `X-Correlation-ID` is always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Propagators {
    /// `traceparent` and `tracestate`.
    pub trace_context: bool,
    /// `baggage`.
    pub baggage: bool,
}

impl Default for Propagators {
    fn default() -> Self {
        Self {
            trace_context: true,
            baggage: true,
        }
    }
}

impl Propagators {
    /// Reads `OTEL_PROPAGATORS`: `tracecontext`, `baggage` or both with a comma, or `none`. Others (`b3`, `jaeger`,
    /// `xray`) do not exist here, and are refused rather than left out.
    pub(crate) fn read_env(env: &Env<'_>) -> Result<Option<Self>, InitError> {
        let known = "tracecontext, baggage, both with a comma, or none";
        env.read("OTEL_PROPAGATORS", known, |text| {
            let mut wanted = Self {
                trace_context: false,
                baggage: false,
            };
            for name in text.split(',').map(str::trim) {
                match name {
                    "tracecontext" => wanted.trace_context = true,
                    "baggage" => wanted.baggage = true,
                    "none" => {}
                    _ => return None,
                }
            }
            Some(wanted)
        })
    }
}
