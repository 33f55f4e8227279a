//! Whether an outbox is being emptied: the age of its oldest message that was not sent. How many wait says little: a burst
//! is no fault, a message that nobody takes is one.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use super::Asking;
use crate::check::{Check, Failure, Outcome, Reason};

/// Warns, then fails, as the oldest unsent message grows old. It knows no table: a closure tells the age.
pub struct OutboxCheck {
    oldest: Box<dyn Fn() -> OldestUnsent + Send + Sync>,
    warn_after: Duration,
    fail_after: Duration,
}

type OldestUnsent = std::pin::Pin<Box<dyn Future<Output = Result<Option<Duration>, Failure>> + Send>>;

impl fmt::Debug for OutboxCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutboxCheck")
            .field("warn_after", &self.warn_after)
            .field("fail_after", &self.fail_after)
            .finish_non_exhaustive()
    }
}

impl OutboxCheck {
    /// `oldest` answers the age of the oldest unsent message, `None` when all are sent. Age is best computed where the
    /// messages are, `now() - min(created_at)`, so that two clocks do not mix. Warns above one minute, fails above ten.
    pub fn new<F, Fut, E>(oldest: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Option<Duration>, E>> + Send + 'static,
        E: Into<Failure>,
    {
        Self {
            oldest: Box::new(move || {
                let oldest = oldest();
                Box::pin(async move { oldest.await.map_err(Into::into) })
            }),
            warn_after: Duration::from_secs(60),
            fail_after: Duration::from_secs(600),
        }
    }

    /// Age above which it warns.
    #[must_use]
    pub fn warn_after(mut self, age: Duration) -> Self {
        self.warn_after = age;
        self
    }

    /// Age above which it fails.
    #[must_use]
    pub fn fail_after(mut self, age: Duration) -> Self {
        self.fail_after = age;
        self
    }

    fn judge(&self, oldest: Option<Duration>) -> Outcome {
        let Some(age) = oldest.filter(|age| *age > self.warn_after.min(self.fail_after)) else {
            return Outcome::Pass;
        };
        let failure = Failure::new(
            Reason::Stale,
            format!("the oldest unsent message is {} s old", age.as_secs()),
        );
        if age > self.fail_after {
            Outcome::Fail(failure)
        } else {
            Outcome::Warn(failure)
        }
    }
}

impl Check for OutboxCheck {
    fn run(&self) -> Asking<'_> {
        Box::pin(async move { (self.oldest)().await.map(|oldest| self.judge(oldest)).into() })
    }
}
