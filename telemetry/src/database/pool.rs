//! Pools of connections as `db_pool_*`, read at each scrape. What a pool does is its own matter.

use crate::metrics::Metrics;

/// Something that lends connections. A closure is one too:
///
/// ```
/// # struct Status { size: u64, available: u64, max_size: u64, waiting: u64 }
/// # fn status() -> Status { Status { size: 3, available: 1, max_size: 8, waiting: 0 } }
/// # let telemetry = telemetry::Telemetry::test();
/// use telemetry::PoolFigures;
///
/// // As deadpool's pools tell of themselves.
/// telemetry.watch_pool("shop", || {
///     let status = status();
///     PoolFigures {
///         used: status.size - status.available,
///         idle: status.available,
///         max: status.max_size,
///         waiters: status.waiting,
///         ..PoolFigures::default()
///     }
/// });
/// ```
///
/// How long callers wait is for whoever lets them wait: `metrics().histogram(catalogue::DB_POOL_WAIT_SECONDS, [name])`.
pub trait Pool: Send + Sync + 'static {
    /// How it stands.
    fn figures(&self) -> PoolFigures;
}

/// How a pool stands at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolFigures {
    /// Connections that are lent.
    pub used: u64,
    /// Connections that are open and not lent.
    pub idle: u64,
    /// Connections that there may be.
    pub max: u64,
    /// Callers that wait for one.
    pub waiters: u64,
    /// Callers that got none in time, since the start.
    pub timeouts: u64,
}

impl<F: Fn() -> PoolFigures + Send + Sync + 'static> Pool for F {
    fn figures(&self) -> PoolFigures {
        self()
    }
}

pub(super) fn watch(metrics: &Metrics, name: &str, pool: impl Pool) {
    let name = name.to_owned();
    metrics.on_scrape(move |metrics| {
        let figures = pool.figures();
        let gauge = |handle, value: u64| metrics.gauge(handle, [&name]).set(value as f64);
        for (state, count) in [("used", figures.used), ("idle", figures.idle)] {
            metrics
                .gauge(catalogue::DB_POOL_CONNECTIONS, [&name, state])
                .set(count as f64);
        }
        gauge(catalogue::DB_POOL_CONNECTIONS_MAX, figures.max);
        gauge(catalogue::DB_POOL_WAITERS, figures.waiters);
        metrics
            .counter(catalogue::DB_POOL_TIMEOUTS_TOTAL, [&name])
            .set_total(figures.timeouts as f64);
    });
}
