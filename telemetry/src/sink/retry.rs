//! What the answer of a receiver of lines or spans asks of the sender, and how long to wait before sending again.
//! Pure: the time and chance are arguments, and nothing is sent here.

use std::time::Duration;

/// Longest wait that a receiver may ask for. A wrong header must not silence a sink for a day.
pub(crate) const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(5 * 60);

/// What an answer asks of the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Taken.
    Delivered,
    /// Not now; not before `after`, if the receiver said so.
    Later {
        /// From `Retry-After`, at most [`LONGEST_RETRY_AFTER`].
        after: Option<Duration>,
    },
    /// Too much at once.
    TooLarge,
    /// Something inside cannot be taken, now or ever.
    Bad,
    /// The receiver cannot be used as it is set up: wrong credentials, wrong address, a redirect. No batch is to blame
    /// and each is kept.
    Closed,
}

/// Judges an answer by its status and its `Retry-After`, if it has one.
pub(crate) fn verdict(status: u16, retry_after: Option<&str>, now: jiff::Timestamp) -> Verdict {
    match status {
        200..=299 => Verdict::Delivered,
        408 | 425 | 429 | 500..=599 => Verdict::Later {
            after: retry_after.and_then(|value| wait_asked_for(value, now)),
        },
        413 => Verdict::TooLarge,
        400 | 422 => Verdict::Bad,
        _ => Verdict::Closed,
    }
}

/// Reads `Retry-After`: seconds or an HTTP date (RFC 9110, 10.2.3). A date that is over is no wait.
fn wait_asked_for(value: &str, now: jiff::Timestamp) -> Option<Duration> {
    let value = value.trim();
    let wait = if value.bytes().all(|byte| byte.is_ascii_digit()) && !value.is_empty() {
        // More digits than a number holds are a long wait, too.
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        let date = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
        Duration::try_from(date.duration_since(now)).unwrap_or(Duration::ZERO)
    };
    Some(wait.min(LONGEST_RETRY_AFTER))
}

/// Waits between attempts: exponential with full jitter, so that senders that failed together do not return together
/// (<https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>).
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// The first wait is at most `first`; each failure doubles that, up to `longest`.
    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            failures: 0,
        }
    }

    /// The wait after one more failure. `after` is what the receiver asked for, and the least; `chance` is from `0..1`.
    pub(crate) fn next(&mut self, after: Option<Duration>, chance: f64) -> Duration {
        let most = self.first.saturating_mul(1 << self.failures.min(20)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        // Never quite zero: a receiver that refuses at once must not be asked in a tight loop.
        let spread = (most / 20).max(most.mul_f64(chance.clamp(0.0, 1.0)));
        after.unwrap_or_default().saturating_add(spread)
    }

    /// Something went through: the next failure is a first one.
    pub(crate) const fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    //! Every class of answers, both forms of `Retry-After`, and the bounds of the waits.

    use proptest::prelude::*;

    use super::*;

    fn now() -> jiff::Timestamp {
        "1994-11-06T08:49:00Z".parse().unwrap()
    }

    #[test]
    fn each_status_has_its_class() {
        let later = Verdict::Later { after: None };
        for (status, wanted) in [
            (200, Verdict::Delivered),
            (204, Verdict::Delivered),
            (301, Verdict::Closed),
            (307, Verdict::Closed),
            (400, Verdict::Bad),
            (401, Verdict::Closed),
            (403, Verdict::Closed),
            (404, Verdict::Closed),
            (408, later),
            (413, Verdict::TooLarge),
            (422, Verdict::Bad),
            (429, later),
            (500, later),
            (503, later),
            (599, later),
            (999, Verdict::Closed),
        ] {
            assert_eq!(verdict(status, None, now()), wanted, "{status}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_bounded() {
        let seconds = |count| Some(Duration::from_secs(count));
        for (value, wanted) in [
            ("0", seconds(0)),
            (" 7 ", seconds(7)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", seconds(37)),
            ("Sun, 06 Nov 1994 08:48:37 GMT", seconds(0)),
            ("Sat, 06 Nov 2094 08:49:37 GMT", Some(LONGEST_RETRY_AFTER)),
            ("99999", Some(LONGEST_RETRY_AFTER)),
            ("99999999999999999999999999", Some(LONGEST_RETRY_AFTER)),
            ("-1", None),
            ("", None),
            ("soon", None),
            ("1.5", None),
        ] {
            let after = wanted;
            assert_eq!(verdict(429, Some(value), now()), Verdict::Later { after }, "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn waits_stay_within_their_bounds(chances in prop::collection::vec(0.0f64..1.0, 1..60), after in prop::option::of(0u64..100)) {
            let (first, longest) = (Duration::from_millis(200), Duration::from_secs(10));
            let after = after.map(Duration::from_secs);
            let mut backoff = Backoff::new(first, longest);
            for (failure, chance) in chances.into_iter().enumerate() {
                let wait = backoff.next(after, chance).saturating_sub(after.unwrap_or_default());
                let most = first.saturating_mul(1 << failure.min(20)).min(longest);
                prop_assert!(wait <= most && wait >= most / 20, "{wait:?} of {most:?}");
            }
            backoff.reset();
            prop_assert!(backoff.next(None, 1.0) <= first);
        }
    }
}
