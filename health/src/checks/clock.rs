//! How far this machine's clock is from another's: an NTP server, or a peer that says the time in its HTTP answers. It
//! measures and never sets a clock. Tokens, leases and log lines go wrong long before anyone looks at a clock.

mod sntp;

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use tokio::time::Instant;

use super::Asking;
use super::http::Target;
use crate::check::{Check, Failure, Outcome, Reason};

/// Fails when the clocks are surely further apart than allowed: half of the round trip, and what the answer's own
/// precision leaves open, are given in doubt.
#[derive(Debug)]
pub struct ClockCheck {
    source: Source,
    warn_above: Duration,
    fail_above: Duration,
    now: fn() -> Timestamp,
}

#[derive(Debug)]
enum Source {
    /// `host:port`.
    Ntp(String),
    Http(Target),
}

/// What was measured: the other clock is ahead of ours by `offset`, give or take `doubt`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Measured {
    offset_seconds: f64,
    doubt_seconds: f64,
}

impl ClockCheck {
    /// Against the NTP server at `host:port` (port 123 as a rule), with one packet of SNTP a run. Ask a server of your
    /// own at this pace; public ones want to be asked less often. Warns above 100 ms, fails above 1 s.
    pub fn ntp(server: impl Into<String>) -> Self {
        Self::new(
            Source::Ntp(server.into()),
            Duration::from_millis(100),
            Duration::from_secs(1),
        )
    }

    /// Against the `Date` of a peer's answer to a GET of `uri`. It has whole seconds, so it finds clocks that are wrong,
    /// not clocks that are inexact: warns above 2 s, fails above 10 s.
    ///
    /// # Errors
    /// When `uri` is no absolute `http://` URI.
    pub fn http(uri: &str) -> Result<Self, Failure> {
        let source = Source::Http(Target::parse(uri)?);
        Ok(Self::new(source, Duration::from_secs(2), Duration::from_secs(10)))
    }

    fn new(source: Source, warn_above: Duration, fail_above: Duration) -> Self {
        Self {
            source,
            warn_above,
            fail_above,
            now: Timestamp::now,
        }
    }

    /// Offset above which it warns.
    #[must_use]
    pub fn warn_above(mut self, offset: Duration) -> Self {
        self.warn_above = offset;
        self
    }

    /// Offset above which it fails.
    #[must_use]
    pub fn fail_above(mut self, offset: Duration) -> Self {
        self.fail_above = offset;
        self
    }

    /// Reads our time from here instead of the system's clock.
    #[must_use]
    pub fn with_clock(mut self, now: fn() -> Timestamp) -> Self {
        self.now = now;
        self
    }

    async fn ask(&self) -> Result<Outcome, Failure> {
        let measured = match &self.source {
            Source::Ntp(server) => sntp::ask(server, self.now).await?,
            Source::Http(target) => self.ask_http(target).await?,
        };
        Ok(self.judge(measured))
    }

    async fn ask_http(&self, target: &Target) -> Result<Measured, Failure> {
        let (sent, began) = ((self.now)(), Instant::now());
        let date = target
            .get(async |response| {
                let date = response
                    .headers()
                    .get(http::header::DATE)
                    .map(|value| value.to_str().map(str::to_owned));
                match date {
                    Some(Ok(date)) => Ok(date),
                    _ => Err(Failure::new(Reason::Protocol, "an answer without a Date")),
                }
            })
            .await?;
        let took = began.elapsed().as_secs_f64();
        // RFC 9110 5.6.7: always in GMT, which RFC 2822 knows as an old name of +0000.
        let date = DateTimeParser::new()
            .parse_timestamp(&date)
            .map_err(|error| Failure::new(Reason::Protocol, format!("Date: {error}")))?;
        // It was some time within that second, somewhere on the way.
        Ok(Measured {
            offset_seconds: date.duration_since(sent).as_secs_f64() + 0.5 - took / 2.0,
            doubt_seconds: 0.5 + took / 2.0,
        })
    }

    fn judge(&self, measured: Measured) -> Outcome {
        let surely = measured.offset_seconds.abs() - measured.doubt_seconds;
        let side = if measured.offset_seconds > 0.0 {
            "behind"
        } else {
            "ahead"
        };
        let failure = || {
            let off = measured.offset_seconds.abs();
            let detail = format!(
                "our clock is {off:.3} s {side}, give or take {:.3} s",
                measured.doubt_seconds
            );
            Failure::new(Reason::Error, detail)
        };
        if surely > self.fail_above.as_secs_f64() {
            Outcome::Fail(failure())
        } else if surely > self.warn_above.as_secs_f64() {
            Outcome::Warn(failure())
        } else {
            Outcome::Pass
        }
    }
}

impl Check for ClockCheck {
    fn run(&self) -> Asking<'_> {
        Box::pin(async move { self.ask().await.into() })
    }

    fn component_type(&self) -> &'static str {
        "system"
    }
}
