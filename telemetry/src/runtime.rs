//! `tokio_*`: what an async runtime tells of itself without unstable flags, read at each scrape.

use tokio::runtime::Handle;

use crate::Telemetry;
use crate::metrics::Metrics;

impl Telemetry {
    /// Exports a runtime as `tokio_*`; the one in which telemetry is set up is exported as `main` by itself.
    pub fn watch_runtime(&self, name: &str, runtime: &Handle) {
        watch(self.metrics(), name, runtime);
    }
}

pub(crate) fn watch(metrics: &Metrics, name: &str, runtime: &Handle) {
    let name = name.to_owned();
    let runtime = runtime.metrics();
    metrics.on_scrape(move |metrics| {
        let gauge = |handle, value: usize| metrics.gauge(handle, [&name]).set(value as f64);
        gauge(catalogue::TOKIO_WORKERS, runtime.num_workers());
        gauge(catalogue::TOKIO_ALIVE_TASKS, runtime.num_alive_tasks());
        gauge(catalogue::TOKIO_GLOBAL_QUEUE_DEPTH, runtime.global_queue_depth());
        #[cfg(target_has_atomic = "64")]
        for worker in 0..runtime.num_workers() {
            let number = worker.to_string();
            let total = |handle, value: f64| metrics.counter(handle, [&name, &number]).set_total(value);
            let busy = runtime.worker_total_busy_duration(worker).as_secs_f64();
            total(catalogue::TOKIO_WORKER_BUSY_SECONDS_TOTAL, busy);
            total(
                catalogue::TOKIO_WORKER_PARKS_TOTAL,
                runtime.worker_park_count(worker) as f64,
            );
        }
    });
}
