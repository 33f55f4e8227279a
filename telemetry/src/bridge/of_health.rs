//! Health as `health_*`. Nothing is judged here.

use health::{Health, State, Status};

use crate::metrics::Metrics;

pub(crate) fn health(metrics: &Metrics, health: &Health) {
    let health = health.clone();
    metrics.on_scrape(move |metrics| {
        let snapshot = health.snapshot();
        for state in State::ALL {
            let value = f64::from(u8::from(state == snapshot.state));
            metrics.gauge(catalogue::HEALTH_STATUS, [state.as_str()]).set(value);
        }
        for check in &snapshot.checks {
            let up = f64::from(u8::from(check.status != Status::Fail));
            metrics.gauge(catalogue::HEALTH_CHECK_UP, [&check.name]).set(up);
            metrics
                .gauge(catalogue::HEALTH_CHECK_DURATION_SECONDS, [&check.name])
                .set(check.duration_seconds);
            let last = check.last_success.map_or(0.0, |at| at.as_millisecond() as f64 / 1e3);
            metrics
                .gauge(catalogue::HEALTH_CHECK_LAST_SUCCESS_TIMESTAMP_SECONDS, [&check.name])
                .set(last);
            for (to, count) in [Status::Pass, Status::Warn, Status::Fail]
                .into_iter()
                .zip(check.transitions)
            {
                metrics
                    .counter(catalogue::HEALTH_TRANSITIONS_TOTAL, [&check.name, to.as_str()])
                    .set_total(count as f64);
            }
        }
    });
}
