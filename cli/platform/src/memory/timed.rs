//! What ends by itself unless it is prolonged: a share of traffic, a fault.

use std::time::Duration;

use tokio::time::Instant;

/// A value until an instant, or none.
#[derive(Debug)]
pub(super) struct Timed<T>(Option<(T, Instant)>);

impl<T> Default for Timed<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Timed<T> {
    pub(super) fn until(end: Instant, value: T) -> Self {
        Self(Some((value, end)))
    }

    /// The value, while its time is not over.
    pub(super) fn at(&self, now: Instant) -> Option<&T> {
        self.0.as_ref().filter(|(_, end)| now < *end).map(|(value, _)| value)
    }

    /// Lets it last for `time` from now, if it is still there and `holds`. `None`: it is not.
    pub(super) fn prolong(&mut self, now: Instant, time: Duration, holds: impl Fn(&T) -> bool) -> Option<()> {
        let (_, end) = self.0.as_mut().filter(|(value, end)| now < *end && holds(value))?;
        *end = now + time;
        Some(())
    }
}
