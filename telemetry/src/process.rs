//! `process_*`: what the kernel knows of this process, read at each scrape from `/proc`. Elsewhere they are absent.

use crate::metrics::Metrics;

/// Exports the process's figures. What cannot be read is left out.
pub(crate) fn watch(metrics: &Metrics) {
    let started = started();
    metrics.on_scrape(move |metrics| {
        if let Some(seconds) = started {
            metrics.gauge(catalogue::PROCESS_START_TIME_SECONDS, []).set(seconds);
        }
        if let Some((cpu_seconds, resident_bytes)) = usage() {
            metrics
                .counter(catalogue::PROCESS_CPU_SECONDS_TOTAL, [])
                .set_total(cpu_seconds);
            metrics
                .gauge(catalogue::PROCESS_RESIDENT_MEMORY_BYTES, [])
                .set(resident_bytes);
        }
        if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
            // One of them is the listing itself.
            metrics
                .gauge(catalogue::PROCESS_OPEN_FDS, [])
                .set(entries.count().saturating_sub(1) as f64);
        }
        if let Some(limit) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
            metrics.gauge(catalogue::PROCESS_MAX_FDS, []).set(limit as f64);
        }
    });
}

/// Fields of `/proc/self/stat` from the third on (the second may hold spaces and brackets).
fn stat() -> Option<Vec<u64>> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(|word| word.parse().unwrap_or(0)).collect())
}

/// CPU seconds and resident bytes.
fn usage() -> Option<(f64, f64)> {
    let stat = stat()?;
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let cpu = (*stat.get(11)? + *stat.get(12)?) as f64 / ticks;
    let resident = *stat.get(21)? as f64 * rustix::param::page_size() as f64;
    Some((cpu, resident))
}

/// Unix time of the process's start.
fn started() -> Option<f64> {
    let ticks = *stat()?.get(19)? as f64 / rustix::param::clock_ticks_per_second() as f64;
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = text
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()?;
    Some(boot + ticks)
}
