//! The crate's clock: monotonic, and cheap enough to be read in every call. It is never the wall clock, which steps.
//!
//! The system's clock is read directly: tokio's costs 20 ns, the coarse one 2.5 ns. With the feature `testing` both
//! functions read tokio's clock instead, so that tests with paused time work.

use std::time::Duration;

use tokio::time::Instant;

/// Time since some moment before the first call in this process, exact to the nanosecond.
#[inline]
pub(crate) fn now() -> Duration {
    #[cfg(feature = "testing")]
    if !is_production() {
        return tokios::now();
    }
    system::now()
}

/// [`now`] in milliseconds, up to 4 ms behind it (a tick of the kernel), at a tenth of its cost.
#[inline]
pub(crate) fn coarse_millis() -> u64 {
    #[cfg(feature = "testing")]
    if !is_production() {
        return millis(tokios::now());
    }
    system::coarse_millis()
}

/// Now as a moment of tokio's clock, up to a tick of the kernel (4 ms) in the past, and [`coarse_millis`]: one look at
/// the clock, at a tenth of the cost of an exact one.
#[inline]
pub(crate) fn coarse() -> (Instant, u64) {
    #[cfg(feature = "testing")]
    if !is_production() {
        return (Instant::now(), millis(tokios::now()));
    }
    system::coarse()
}

/// Whole milliseconds; 585 million years fit.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(feature = "testing")]
static PRODUCTION: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

#[cfg(feature = "testing")]
fn is_production() -> bool {
    PRODUCTION.load(std::sync::atomic::Ordering::Relaxed)
}

/// From here on this process reads the system's clock although the feature `testing` is on.
#[cfg(feature = "testing")]
pub(crate) fn use_production() {
    PRODUCTION.store(true, std::sync::atomic::Ordering::Relaxed);
}

#[cfg(target_os = "linux")]
mod system {
    use std::sync::LazyLock;
    use std::time::Duration;

    use rustix::time::{ClockId, clock_gettime};
    use tokio::time::Instant;

    pub(super) fn now() -> Duration {
        let time = clock_gettime(ClockId::Monotonic);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }

    #[inline]
    pub(super) fn coarse_millis() -> u64 {
        let time = clock_gettime(ClockId::MonotonicCoarse);
        time.tv_sec as u64 * 1_000 + time.tv_nsec as u64 / 1_000_000
    }

    pub(super) fn coarse() -> (Instant, u64) {
        /// The same moment on both clocks.
        static ORIGIN: LazyLock<(std::time::Instant, Duration)> = LazyLock::new(|| {
            #[expect(clippy::disallowed_methods, reason = "this is the clock")]
            let moment = std::time::Instant::now();
            (moment, now())
        });
        let (origin, at) = *ORIGIN;
        let time = clock_gettime(ClockId::MonotonicCoarse);
        let (seconds, nanos) = (time.tv_sec as u64, time.tv_nsec as u32);
        let since = Duration::new(seconds, nanos).saturating_sub(at);
        let millis = seconds * 1_000 + u64::from(nanos) / 1_000_000;
        (Instant::from_std(origin + since), millis)
    }
}

/// Where there is no coarse clock, the exact one stands in for it.
#[cfg(not(target_os = "linux"))]
mod system {
    pub(super) use super::tokios::now;

    pub(super) fn coarse() -> (tokio::time::Instant, u64) {
        (tokio::time::Instant::now(), coarse_millis())
    }

    pub(super) fn coarse_millis() -> u64 {
        super::millis(now())
    }
}

#[cfg(any(feature = "testing", not(target_os = "linux")))]
mod tokios {
    use std::sync::LazyLock;
    use std::time::Duration;

    use tokio::time::Instant;

    static ORIGIN: LazyLock<Instant> = LazyLock::new(|| {
        // A second is taken off so that a window never has to reach before the origin.
        let now = Instant::now();
        now.checked_sub(Duration::from_secs(1)).unwrap_or(now)
    });

    // Out of the way of those who read the system's clock.
    #[cold]
    pub(super) fn now() -> Duration {
        Instant::now().saturating_duration_since(*ORIGIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn under_test_both_clocks_are_tokios() {
        let (exact, coarse) = (now(), coarse_millis());
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(now(), exact + Duration::from_secs(3600));
        assert_eq!(coarse_millis() - coarse, 3_600_000);
    }

    #[test]
    fn the_systems_coarse_clock_follows_its_exact_one() {
        for _ in 0..1000 {
            let before = millis(system::now());
            let coarse = system::coarse_millis();
            // A tick is at most 10 ms on any kernel; the slack is for a thread that is put aside in between.
            assert!(coarse + 1_000 >= before, "{coarse} is far behind {before}");
            assert!(coarse <= millis(system::now()), "{coarse} is ahead");
        }
    }
}
