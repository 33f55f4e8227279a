//! The crate's clock: monotonic, tokio's, so that tests with paused time work; never the wall clock, which steps.

use std::sync::LazyLock;
use std::time::Duration;

use tokio::time::Instant;

static ORIGIN: LazyLock<Instant> = LazyLock::new(|| {
    // A second is taken off so that a window never has to reach before the origin.
    let now = Instant::now();
    now.checked_sub(Duration::from_secs(1)).unwrap_or(now)
});

/// Time since some moment before the first call in this process.
pub(crate) fn now() -> Duration {
    Instant::now().saturating_duration_since(*ORIGIN)
}
